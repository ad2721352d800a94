//! What a device was told and keeps. Where its tenant has a key of its own, a server that forgets a
//! pin, a window or a freeze loosens nothing: it ends only by a loosening that this key signed.
//!
//! Without such a key there is nothing to keep: the newest orders are all there is.

use lockgate_shared::{
    id::{DeviceId, ProductId, TenantId},
    limits,
    loosening::{Loosened, Loosening},
    pin::Pin,
    policy::Policy,
    time::Moment,
    window::{Freeze, Window},
    wire::Orders,
};
use serde::{Deserialize, Serialize};

/// Everything that was told and that nobody loosened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept(Vec<Told>);

/// One thing that was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    at: Moment,
    what: Restriction,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Restriction {
    Pin(ProductId, Pin),
    Windows(Vec<Window>),
    Freeze(Freeze),
}

/// How much is kept: everything that one set of orders can say, several times over. Beyond, what is new
/// is not kept, and what was told first still is.
const MOST: usize = 4 * (limits::DEVICE_PRODUCTS + limits::FREEZES);

/// Whose restrictions they are.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// The device.
    pub device: &'a DeviceId,
    /// Its tenant.
    pub tenant: &'a TenantId,
}

impl Kept {
    /// Takes in what the device is told at `now`: first what the tenant's key loosened, then what is
    /// new. Says whether anything changed.
    pub fn heed(
        &mut self,
        orders: &Orders,
        policy: Option<&Policy>,
        whose: Whose<'_>,
        now: Moment,
    ) -> bool {
        let before = self.clone();
        if let Some(policy) = policy {
            let tenant = policy.tenants.get(whose.tenant);
            if tenant.is_none_or(|tenant| tenant.tenant_key.is_none()) {
                self.0.clear();
                return *self != before;
            }
        }
        // Without a policy nobody knows whose key loosens, and all is kept until it is read.
        let loosened: Vec<Loosening> = orders
            .loosened
            .iter()
            .filter_map(|signed| signed.verify(policy?).ok())
            .filter(|it| it.tenant == *whose.tenant)
            .filter(|it| it.device.is_none_or(|device| device == *whose.device))
            .collect();
        self.0.retain(|told| {
            let over = matches!(&told.what, Restriction::Freeze(freeze) if freeze.until <= now);
            !over && !loosened.iter().any(|it| told.at < it.before && told.what.is_a(&it.what))
        });
        let pins = orders.pins.iter().filter(|(_, pin)| **pin != Pin::Latest);
        let pins = pins.map(|(product, pin)| Restriction::Pin(product.clone(), pin.clone()));
        let windows =
            (!orders.windows.is_empty()).then(|| Restriction::Windows(orders.windows.clone()));
        let freezes = orders.freezes.iter().filter(|freeze| now < freeze.until);
        let freezes = freezes.map(|freeze| Restriction::Freeze(freeze.clone()));
        for what in pins.chain(windows).chain(freezes) {
            if self.0.len() < MOST && self.0.iter().all(|told| told.what != what) {
                self.0.push(Told { at: now, what });
            }
        }
        *self != before
    }

    /// The pins of a product that are kept beside the ordered one.
    pub fn pins<'a>(
        &'a self,
        of: &'a ProductId,
        orders: &'a Orders,
    ) -> impl Iterator<Item = &'a Pin> {
        let ordered = orders.pins.get(of);
        self.0.iter().filter_map(move |told| match &told.what {
            Restriction::Pin(product, pin) if product == of && Some(pin) != ordered => Some(pin),
            Restriction::Pin(..) | Restriction::Windows(_) | Restriction::Freeze(_) => None,
        })
    }

    /// The lists of windows that are kept beside the ordered one.
    pub fn windows<'a>(&'a self, orders: &'a Orders) -> impl Iterator<Item = &'a [Window]> {
        self.0.iter().filter_map(|told| match &told.what {
            Restriction::Windows(windows) if *windows != orders.windows => Some(&windows[..]),
            Restriction::Pin(..) | Restriction::Windows(_) | Restriction::Freeze(_) => None,
        })
    }

    /// Every freeze: those ordered and those kept beside them.
    pub fn freezes(&self, orders: &Orders) -> Vec<Freeze> {
        let kept = self.0.iter().filter_map(|told| match &told.what {
            Restriction::Freeze(freeze) => Some(freeze),
            Restriction::Pin(..) | Restriction::Windows(_) => None,
        });
        let beside = kept.filter(|freeze| !orders.freezes.contains(freeze));
        orders.freezes.iter().chain(beside).cloned().collect()
    }
}

impl Restriction {
    fn is_a(&self, kind: &Loosened) -> bool {
        match (self, kind) {
            (Self::Pin(product, _), Loosened::Pin(loosened)) => product == loosened,
            (Self::Windows(_), Loosened::Windows) | (Self::Freeze(_), Loosened::Freezes) => true,
            (Self::Pin(..) | Self::Windows(_) | Self::Freeze(_), _) => false,
        }
    }
}

#[cfg(test)]
mod tests {

    use ed25519_dalek::SigningKey;
    use lockgate_shared::{
        loosening::SignedLoosening,
        policy::{Approvals, Tenant},
        sign,
    };

    use super::*;

    #[test]
    fn what_a_server_forgets_is_kept_until_the_tenants_key_loosens_it() {
        let mut scene = Scene::new(true);
        scene.told(&pinned("1.0.0"), 10);
        assert_eq!(scene.kept(), ["1.0.0"]);
        scene.told(&pinned("1.1.0"), 20);
        assert_eq!(scene.kept(), ["1.0.0", "1.1.0"], "another pin in its place loosens too");
        scene.told(&Orders::default(), 30);
        assert_eq!(scene.kept(), ["1.0.0", "1.1.0"]);
        scene.told(&loosened(9, 100, None), 40);
        scene.told(&loosened(7, 100, Some(DeviceId([8; 32]))), 40);
        assert_eq!(scene.kept(), ["1.0.0", "1.1.0"], "another's key, or for another device");
        scene.told(&loosened(7, 15, None), 40);
        assert_eq!(scene.kept(), ["1.1.0"], "told after the moment that it names");
        scene.told(&loosened(7, 45, Some(DeviceId([1; 32]))), 50);
        assert!(scene.kept().is_empty());
    }

    #[test]
    fn an_old_loosening_sent_again_loosens_nothing_new() {
        let mut scene = Scene::new(true);
        scene.told(&pinned("1.0.0"), 10);
        scene.told(&Orders { pins: pinned("1.0.0").pins, ..loosened(7, 15, None) }, 20);
        scene.told(&loosened(7, 15, None), 30);
        assert_eq!(scene.kept(), ["1.0.0"], "it was told once more after the loosening");
    }

    #[test]
    fn windows_and_freezes_are_kept_and_a_freeze_ends_by_itself() {
        let mut scene = Scene::new(true);
        let window = Window {
            zone: "UTC".into(),
            days: [].into(),
            hour: 1,
            minute: 0,
            length_s: lockgate_shared::time::Seconds(60),
        };
        let freeze = Freeze { from: Moment(0), until: Moment(50), reason: "fair".into() };
        let orders = Orders {
            windows: vec![window.clone()],
            freezes: vec![freeze.clone()],
            ..Orders::default()
        };
        scene.told(&orders, 10);
        let nothing = Orders::default();
        scene.told(&nothing, 20);
        assert_eq!(scene.kept.windows(&nothing).collect::<Vec<_>>(), [&[window][..]]);
        assert_eq!(scene.kept.freezes(&nothing), [freeze]);
        scene.told(&nothing, 50);
        assert!(scene.kept.freezes(&nothing).is_empty());
    }

    #[test]
    fn a_tenant_without_a_key_of_its_own_is_told_anew_each_time() {
        let mut scene = Scene::new(false);
        scene.told(&pinned("1.0.0"), 10);
        assert!(scene.kept().is_empty());
    }

    #[test]
    fn a_loosening_of_another_tenant_or_of_something_else_loosens_nothing_here() {
        let mut scene = Scene::new(true);
        scene.told(&pinned("1.0.0"), 10);
        let others: [fn(&mut Loosening); 3] = [
            |it| it.tenant = globex(),
            |it| it.what = Loosened::Windows,
            |it| it.what = Loosened::Pin("other".parse().expect("a name")),
        ];
        for change in others {
            let mut loosening = loosening(100, None);
            change(&mut loosening);
            // Each tenant's key is as good as the other's, for its own devices.
            let seed = if loosening.tenant == globex() { 6 } else { 7 };
            let key = SigningKey::from_bytes(&[seed; 32]);
            let signed = SignedLoosening::make(&loosening, &key).expect("signed");
            assert!(signed.verify(&scene.policy).is_ok(), "its own tenant's key signed it");
            scene.told(&Orders { loosened: vec![signed], ..Orders::default() }, 40);
            assert_eq!(scene.kept(), ["1.0.0"], "{loosening:?}");
        }
    }

    #[test]
    fn what_is_told_at_each_poll_is_kept_once_and_a_flood_pushes_nothing_out() {
        let mut scene = Scene::new(true);
        for at in 0..100 {
            scene.told(&pinned("1.0.0"), at);
        }
        assert_eq!(scene.kept(), ["1.0.0"]);
        for number in 0..2 * MOST {
            scene.told(&pinned(&format!("2.0.{number}")), 100);
        }
        assert_eq!(scene.kept().len(), MOST);
        assert_eq!(scene.kept()[0], "1.0.0", "what was told first is pushed out");
    }

    #[test]
    fn who_has_not_read_the_policy_yet_keeps_what_it_was_told() {
        let mut scene = Scene::new(true);
        scene.told(&pinned("1.0.0"), 10);
        let whose = Whose { device: &DeviceId([1; 32]), tenant: &acme() };
        scene.kept.heed(&loosened(7, 100, None), None, whose, Moment(20));
        scene.kept.heed(&pinned("1.1.0"), None, whose, Moment(30));
        assert_eq!(scene.kept(), ["1.0.0", "1.1.0"]);
    }

    struct Scene {
        policy: Policy,
        kept: Kept,
    }

    impl Scene {
        fn new(has_key: bool) -> Self {
            let tenant_key = has_key.then(|| sign::public(&SigningKey::from_bytes(&[7; 32])));
            let tenant = Tenant { enrolment_keys: [].into(), tenant_key };
            let key = sign::public(&SigningKey::from_bytes(&[6; 32]));
            let other = Tenant { enrolment_keys: [].into(), tenant_key: Some(key) };
            let policy = Policy {
                tenants: [(acme(), tenant), (globex(), other)].into(),
                ..Policy::new("trial".parse().expect("a name"), Approvals::each(1))
            };
            Self { policy, kept: Kept::default() }
        }

        fn told(&mut self, orders: &Orders, at: i64) {
            let whose = Whose { device: &DeviceId([1; 32]), tenant: &acme() };
            self.kept.heed(orders, Some(&self.policy), whose, Moment(at));
        }

        fn kept(&self) -> Vec<String> {
            self.kept.pins(&app(), &Orders::default()).map(ToString::to_string).collect()
        }
    }

    fn pinned(version: &str) -> Orders {
        let pin = Pin::Exact(version.parse().expect("a version"));
        Orders { pins: [(app(), pin)].into(), ..Orders::default() }
    }

    fn loosened(key: u8, before: i64, device: Option<DeviceId>) -> Orders {
        let key = SigningKey::from_bytes(&[key; 32]);
        let signed = SignedLoosening::make(&loosening(before, device), &key).expect("signed");
        Orders { loosened: vec![signed], ..Orders::default() }
    }

    /// Of the pin, by this tenant.
    fn loosening(before: i64, device: Option<DeviceId>) -> Loosening {
        Loosening {
            repository: "trial".parse().expect("a name"),
            tenant: acme(),
            device,
            what: Loosened::Pin(app()),
            before: Moment(before),
            reason: "checked".into(),
        }
    }

    fn acme() -> TenantId {
        "acme".parse().expect("a name")
    }

    fn globex() -> TenantId {
        "globex".parse().expect("a name")
    }

    fn app() -> ProductId {
        "app".parse().expect("a name")
    }
}
