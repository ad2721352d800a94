//! Pins, maintenance windows, freezes and grants of devices: set for one device, or for all of a
//! tenant's (`*`). A device learns of them at its next check-in.
//!
//! A pin that nothing can satisfy is refused here, with what exists: otherwise it would show months
//! later as a device that never updates.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use lockgate_shared::{
    act::Grant,
    id::{DeviceId, IdError, ProductId, TenantId},
    limits,
    pin::Pin,
    time::Moment,
    window::{Freeze, Window},
};
use serde::{Deserialize, Serialize};

use super::{Admin, Ask, Caller, Refusal, Said, auth, loosenings};
use crate::{
    registry::{
        View,
        rows::{self, Reach},
    },
    store::{Change, Table},
    stream::{EntryKind, WithdrawRequest},
};

/// Versions that a message names: the newest, as many as fit a line.
const VERSIONS_SHOWN: usize = 8;

/// `?tenant=`
#[derive(Debug, Deserialize)]
pub struct Whose {
    tenant: Option<String>,
}

/// A pin as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinSaid {
    /// `latest`, `n-1`, `n-2` or a version.
    pub pin: String,
}

/// A pin in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinShown {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its device, or `*`.
    pub device: String,
    /// The product.
    pub product: ProductId,
    /// The pin.
    pub pin: String,
}

/// Windows or freezes in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown<T> {
    /// Their tenant.
    pub tenant: TenantId,
    /// Their device, or `*`.
    pub device: String,
    /// What is set.
    pub set: Vec<T>,
}

/// A grant in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantShown {
    /// The entry with which it came.
    pub offset: u64,
    /// When it came.
    pub received: Moment,
    /// What it says.
    pub grant: Grant,
}

/// `GET /v1/pins`
pub async fn pins(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Ask(whose): Ask<Whose>,
) -> Result<Json<Vec<PinShown>>, Refusal> {
    caller.need(auth::READERS)?;
    let tenant = caller.narrowed(whose.tenant.as_deref())?;
    let view = admin.registry.view();
    let seen = view.pins.iter().filter(|(reach, _)| seen(tenant.as_ref(), &reach.tenant));
    Ok(Json(
        seen.flat_map(|(reach, pins)| {
            pins.iter().map(|(product, pin)| PinShown {
                tenant: reach.tenant.clone(),
                device: reach.device_text(),
                product: product.clone(),
                pin: pin.to_string(),
            })
        })
        .collect(),
    ))
}

fn seen(narrowed: Option<&TenantId>, tenant: &TenantId) -> bool {
    narrowed.is_none_or(|own| own == tenant)
}

/// `GET /v1/pins/<device>/<product>`
pub async fn pin(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path((device, product)): Path<(String, String)>,
    Ask(whose): Ask<Whose>,
) -> Result<Json<PinSaid>, Refusal> {
    caller.need(auth::READERS)?;
    let reach = caller.reach(&admin, &device, whose.tenant.as_deref())?;
    let product = product_named(&product)?;
    let view = admin.registry.view();
    let pin = view.pins.get(&reach).and_then(|pins| pins.get(&product));
    pin.map(|pin| Json(PinSaid { pin: pin.to_string() }))
        .ok_or_else(|| Refusal::missing(format!("no pin of `{product}` is set for `{reach}`")))
}

/// `PUT /v1/pins/<device>/<product>`
pub async fn set_pin(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path((device, product)): Path<(String, String)>,
    Ask(whose): Ask<Whose>,
    Said(said): Said<PinSaid>,
) -> Result<StatusCode, Refusal> {
    caller.need(auth::RESTRICTORS)?;
    let reach = caller.reach(&admin, &device, whose.tenant.as_deref())?;
    let product = product_named(&product)?;
    let pin: Pin = said.pin.parse().map_err(Refusal::invalid)?;
    let detail = format!("{reach}, `{product}`, {pin}");
    let key = rows::product_key(&reach, &product);
    change(&admin, |view| {
        check_pin(&admin, view, &product, &pin)?;
        Ok(vec![rows::write(Table::Pins, key, &pin)?])
    })
    .await?;
    admin.record(&caller, "pin set", &detail)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/pins/<device>/<product>`
pub async fn clear_pin(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path((device, product)): Path<(String, String)>,
    Ask(whose): Ask<Whose>,
) -> Result<StatusCode, Refusal> {
    caller.need(auth::RESTRICTORS)?;
    let reach = caller.reach(&admin, &device, whose.tenant.as_deref())?;
    loosenings::check(&admin, &reach)?;
    let product = product_named(&product)?;
    let key = rows::product_key(&reach, &product);
    change(&admin, |view| {
        if view.pins.get(&reach).is_some_and(|pins| pins.contains_key(&product)) {
            Ok(vec![rows::remove(Table::Pins, key)])
        } else {
            Err(Refusal::missing(format!("no pin of `{product}` is set for `{reach}`")))
        }
    })
    .await?;
    admin.record(&caller, "pin cleared", &format!("{reach}, `{product}`"))?;
    Ok(StatusCode::NO_CONTENT)
}

fn product_named(text: &str) -> Result<ProductId, Refusal> {
    text.parse().map_err(|error: IdError| Refusal::malformed(error.to_string()))
}

/// Refuses a pin that nothing can satisfy, with what exists.
fn check_pin(admin: &Admin, view: &View, product: &ProductId, pin: &Pin) -> Result<(), Refusal> {
    let policy = admin.desk.policy();
    let products = policy.as_ref().map(|current| &current.policy.products);
    if let Some(products) = products
        && !products.contains_key(product)
    {
        let names: Vec<String> = products.keys().map(|name| format!("`{name}`")).collect();
        return Err(Refusal::invalid(format!(
            "the policy names no product `{product}`\nhint: it names {}",
            names.join(", ")
        )));
    }
    let Pin::Exact(version) = pin else { return Ok(()) };
    if view.published(product).any(|published| published == version) {
        return Ok(());
    }
    let mut newest: Vec<String> = view.published(product).map(ToString::to_string).collect();
    newest.reverse();
    newest.truncate(VERSIONS_SHOWN);
    Err(Refusal::invalid(if newest.is_empty() {
        format!(
            "version {version} of `{product}` was never published\nhint: no version of it was yet; `lockgate release list` shows them"
        )
    } else {
        format!(
            "version {version} of `{product}` was never published\nhint: published are {}",
            newest.join(", ")
        )
    }))
}

/// `GET /v1/windows`
pub async fn all_windows(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Ask(whose): Ask<Whose>,
) -> Result<Json<Vec<Shown<Window>>>, Refusal> {
    let tenant = listed(&caller, &whose)?;
    Ok(Json(shown(&admin.registry.view().windows, tenant.as_ref())))
}

/// `GET /v1/freezes`
pub async fn all_freezes(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Ask(whose): Ask<Whose>,
) -> Result<Json<Vec<Shown<Freeze>>>, Refusal> {
    let tenant = listed(&caller, &whose)?;
    Ok(Json(shown(&admin.registry.view().freezes, tenant.as_ref())))
}

fn listed(caller: &Caller, whose: &Whose) -> Result<Option<TenantId>, Refusal> {
    caller.need(auth::READERS)?;
    caller.narrowed(whose.tenant.as_deref())
}

fn shown<T: Clone>(
    map: &std::collections::BTreeMap<Reach, Vec<T>>,
    tenant: Option<&TenantId>,
) -> Vec<Shown<T>> {
    map.iter()
        .filter(|(reach, _)| seen(tenant, &reach.tenant))
        .map(|(reach, set)| Shown {
            tenant: reach.tenant.clone(),
            device: reach.device_text(),
            set: set.clone(),
        })
        .collect()
}

/// `GET /v1/windows/<device>`
pub async fn windows(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(device): Path<String>,
    Ask(whose): Ask<Whose>,
) -> Result<Json<Vec<Window>>, Refusal> {
    caller.need(auth::READERS)?;
    let reach = caller.reach(&admin, &device, whose.tenant.as_deref())?;
    let view = admin.registry.view();
    view.windows.get(&reach).cloned().map(Json).ok_or_else(|| none("windows", &reach))
}

/// `GET /v1/freezes/<device>`
pub async fn freezes(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(device): Path<String>,
    Ask(whose): Ask<Whose>,
) -> Result<Json<Vec<Freeze>>, Refusal> {
    caller.need(auth::READERS)?;
    let reach = caller.reach(&admin, &device, whose.tenant.as_deref())?;
    let view = admin.registry.view();
    view.freezes.get(&reach).cloned().map(Json).ok_or_else(|| none("freezes", &reach))
}

fn none(what: &str, reach: &Reach) -> Refusal {
    Refusal::missing(format!("no {what} are set for `{reach}`"))
}

/// `PUT /v1/windows/<device>`
pub async fn set_windows(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(device): Path<String>,
    Ask(whose): Ask<Whose>,
    Said(windows): Said<Vec<Window>>,
) -> Result<StatusCode, Refusal> {
    caller.need(auth::RESTRICTORS)?;
    let reach = caller.reach(&admin, &device, whose.tenant.as_deref())?;
    if windows.is_empty() || windows.len() > limits::WINDOWS {
        return Err(Refusal::invalid(format!(
            "1 to {} windows are set at a time\nhint: `lockgate window clear` removes them all",
            limits::WINDOWS
        )));
    }
    for window in &windows {
        window.check().map_err(|error| Refusal::invalid(error.to_string()))?;
    }
    let detail = format!("{reach}, {}", serde_json::to_string(&windows).unwrap_or_default());
    let key = rows::reach_key(&reach);
    change(&admin, |_| Ok(vec![rows::write(Table::Windows, key, &windows)?])).await?;
    admin.record(&caller, "windows set", &detail)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /v1/freezes/<device>`
pub async fn set_freezes(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(device): Path<String>,
    Ask(whose): Ask<Whose>,
    Said(freezes): Said<Vec<Freeze>>,
) -> Result<StatusCode, Refusal> {
    caller.need(auth::RESTRICTORS)?;
    let reach = caller.reach(&admin, &device, whose.tenant.as_deref())?;
    if freezes.is_empty() || freezes.len() > limits::FREEZES {
        return Err(Refusal::invalid(format!(
            "1 to {} freezes are set at a time\nhint: `lockgate freeze clear` removes them all",
            limits::FREEZES
        )));
    }
    for freeze in &freezes {
        if freeze.until <= freeze.from || freeze.until <= admin.desk.now() {
            return Err(Refusal::invalid("a freeze ends after it begins, and not in the past"));
        }
        if freeze.reason.trim().is_empty() || freeze.reason.len() > limits::LETTER_TEXT {
            return Err(Refusal::invalid(format!(
                "a reason has 1 to {} characters",
                limits::LETTER_TEXT
            )));
        }
    }
    let detail = format!("{reach}, {}", serde_json::to_string(&freezes).unwrap_or_default());
    let key = rows::reach_key(&reach);
    change(&admin, |_| Ok(vec![rows::write(Table::Freezes, key, &freezes)?])).await?;
    admin.record(&caller, "freezes set", &detail)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/windows/<device>`
pub async fn clear_windows(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(device): Path<String>,
    Ask(whose): Ask<Whose>,
) -> Result<StatusCode, Refusal> {
    clear(&admin, &caller, (&device, &whose), Cleared::Windows).await
}

/// `DELETE /v1/freezes/<device>`
pub async fn clear_freezes(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(device): Path<String>,
    Ask(whose): Ask<Whose>,
) -> Result<StatusCode, Refusal> {
    clear(&admin, &caller, (&device, &whose), Cleared::Freezes).await
}

/// What is set for a device, or all of a tenant's, as a whole.
#[derive(Clone, Copy, Debug)]
enum Cleared {
    Windows,
    Freezes,
}

async fn clear(
    admin: &Admin,
    caller: &Caller,
    (device, whose): (&str, &Whose),
    what: Cleared,
) -> Result<StatusCode, Refusal> {
    caller.need(auth::RESTRICTORS)?;
    let reach = caller.reach(admin, device, whose.tenant.as_deref())?;
    loosenings::check(admin, &reach)?;
    let (table, name, act) = match what {
        Cleared::Windows => (Table::Windows, "windows", "windows cleared"),
        Cleared::Freezes => (Table::Freezes, "freezes", "freezes cleared"),
    };
    change(admin, |view| {
        let set = match what {
            Cleared::Windows => view.windows.contains_key(&reach),
            Cleared::Freezes => view.freezes.contains_key(&reach),
        };
        if set {
            Ok(vec![rows::remove(table, rows::reach_key(&reach))])
        } else {
            Err(none(name, &reach))
        }
    })
    .await?;
    admin.record(caller, act, &reach.to_string())?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/grants`
pub async fn grants(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Ask(whose): Ask<Whose>,
) -> Result<Json<Vec<GrantShown>>, Refusal> {
    let tenant = listed(&caller, &whose)?;
    let view = admin.registry.view();
    let seen = view.grants.iter().filter(|(reach, _)| seen(tenant.as_ref(), &reach.tenant));
    Ok(Json(
        seen.flat_map(|(_, grants)| grants.values())
            .map(|row| GrantShown {
                offset: row.offset,
                received: row.received,
                grant: row.grant.clone(),
            })
            .collect(),
    ))
}

/// `DELETE /v1/grants/<device>/<product>`: the device is in the last cohort again, and the gatekeeper
/// expects it there. That restricts, so no signature is asked for.
pub async fn revoke_grant(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path((device, product)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    caller.need(auth::RESTRICTORS)?;
    let known = caller.device(&admin, &device)?;
    let product = product_named(&product)?;
    let id: DeviceId = known.device;
    let reach = Reach { tenant: known.tenant, device: Some(id) };
    let plan = |view: &View| {
        let grant = view.grants.get(&reach).and_then(|grants| grants.get(&product));
        let Some(row) = grant else {
            return Err(Refusal::missing(format!("device `{id}` has no grant for `{product}`")));
        };
        let key = rows::product_key(&reach, &product);
        let revoked = rows::write(Table::RevokedGrants, key.clone(), &row.grant.issued)?;
        let request = WithdrawRequest {
            device: id,
            tenant: reach.tenant.clone(),
            product: product.clone(),
            issued: row.grant.issued,
            by: caller.name.clone(),
        };
        let bytes = serde_json::to_vec(&request).map_err(|e| Refusal::malformed(e.to_string()))?;
        Ok((vec![rows::remove(Table::Grants, key), revoked], EntryKind::Withdraw, bytes))
    };
    let offset = admin.registry.change_and_append(admin.tables(), plan).await?;
    admin.record(&caller, "grant revoked", &format!("entry {offset}, {reach}, `{product}`"))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn change(
    admin: &Admin,
    plan: impl FnOnce(&View) -> Result<Vec<Change>, Refusal> + Send,
) -> Result<(), Refusal> {
    admin.registry.change(admin.tables(), plan).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Bench, device, key, sign_with};
    use super::*;

    #[tokio::test]
    async fn a_devices_own_pin_and_windows_stand_before_its_tenants() {
        let bench = Bench::new();
        bench.release("app", "1.0.0").await;
        let (one, all) = (format!("/v1/pins/{}/app", device(1)), "/v1/pins/*/app");
        assert_eq!(bench.put("acme-admin", all, &json!({"pin": "n-1"})).await.status, 204);
        assert_eq!(bench.put("acme-admin", &one, &json!({"pin": "1.0.0"})).await.status, 204);
        let app: ProductId = "app".parse().expect("a name");
        let exact = Pin::Exact("1.0.0".parse().expect("a version"));
        assert_eq!(bench.orders("acme", 1).pins.get(&app), Some(&exact));
        assert_eq!(bench.orders("acme", 2).pins.get(&app), Some(&Pin::NMinus1));
        assert_eq!(bench.orders("globex", 3).pins.get(&app), None);
        assert_eq!(bench.delete("acme-admin", &one).await.status, 204);
        assert_eq!(bench.orders("acme", 1).pins.get(&app), Some(&Pin::NMinus1));
        assert_eq!(bench.delete("acme-admin", &one).await.status, 404);
    }

    #[tokio::test]
    async fn a_pin_that_nothing_satisfies_is_refused_with_what_exists() {
        let bench = Bench::new();
        let path = "/v1/pins/*/app";
        let never = bench.put("acme-admin", path, &json!({"pin": "9.9.9"})).await;
        assert_eq!((never.status, never.kind()), (422, "invalid"));
        bench.release("app", "1.0.0").await;
        bench.release("app", "1.1.0").await;
        let never = bench.put("acme-admin", path, &json!({"pin": "9.9.9"})).await;
        assert!(never.hint().contains("1.1.0, 1.0.0"), "{}", never.hint());
        let other = bench.put("acme-admin", "/v1/pins/*/appp", &json!({"pin": "latest"})).await;
        assert_eq!(other.status, 422);
        assert!(other.hint().contains("`app`"), "{}", other.hint());
        let nonsense = bench.put("acme-admin", path, &json!({"pin": "newest"})).await;
        assert_eq!(nonsense.status, 422);
        assert!(bench.get("acme-admin", "/v1/pins").await.body == json!([]));
    }

    #[tokio::test]
    async fn no_restriction_of_another_tenant_can_be_set_read_or_cleared() {
        let bench = Bench::new();
        let window =
            json!([{"zone": "UTC", "days": ["mon"], "hour": 1, "minute": 0, "length_s": 60}]);
        let freeze = json!([{"from": "2030-01-01T00:00:00Z", "until": "2030-02-01T00:00:00Z", "reason": "x"}]);
        for (path, body) in [
            (format!("/v1/pins/{}/app", device(1)), json!({"pin": "n-1"})),
            (format!("/v1/windows/{}", device(1)), window.clone()),
            (format!("/v1/freezes/{}", device(1)), freeze.clone()),
        ] {
            assert_eq!(bench.put("acme-admin", &path, &body).await.status, 204, "{path}");
            assert_eq!(bench.get("acme-admin", &path).await.status, 200, "{path}");
            assert_eq!(bench.put("globex-admin", &path, &body).await.status, 404, "{path}");
            assert_eq!(bench.get("globex-admin", &path).await.status, 404, "{path}");
            assert_eq!(bench.delete("globex-admin", &path).await.status, 404, "{path}");
            assert_eq!(bench.put("auditor", &path, &body).await.status, 403, "{path}");
            assert_eq!(bench.delete("acme-auditor", &path).await.status, 403, "{path}");
            assert_eq!(bench.get("publisher", &path).await.status, 403, "{path}");
        }
        for (path, body) in [
            ("/v1/pins/*/app?tenant=acme", json!({"pin": "n-1"})),
            ("/v1/windows/*?tenant=acme", window),
            ("/v1/freezes/*?tenant=acme", freeze),
        ] {
            assert_eq!(bench.put("globex-admin", path, &body).await.status, 403, "{path}");
            assert_eq!(bench.put("operator", path, &body).await.status, 204, "{path}");
        }
        for path in ["/v1/pins", "/v1/windows", "/v1/freezes"] {
            assert_eq!(bench.get("globex-admin", path).await.body, json!([]), "{path}");
            let crossing = format!("{path}?tenant=acme");
            assert_eq!(bench.get("globex-admin", &crossing).await.status, 403, "{path}");
            let all = bench.get("operator", path).await.body;
            assert_eq!(all.as_array().map(Vec::len), Some(2), "{path}");
        }
        assert_eq!(bench.orders("globex", 3), lockgate_shared::wire::Orders::default());
    }

    #[tokio::test]
    async fn a_device_does_not_thaw_by_a_freeze_of_its_own() {
        let bench = Bench::new();
        let freeze = |day: u8| json!([{"from": "2030-01-01T00:00:00Z", "until": format!("2030-02-{day:02}T00:00:00Z"), "reason": "x"}]);
        assert_eq!(bench.put("acme-admin", "/v1/freezes/*", &freeze(9)).await.status, 204);
        let own = format!("/v1/freezes/{}", device(1));
        assert_eq!(bench.put("acme-admin", &own, &freeze(1)).await.status, 204);
        assert_eq!(bench.orders("acme", 1).freezes.len(), 2);
        assert_eq!(bench.orders("acme", 2).freezes.len(), 1);
    }

    #[tokio::test]
    async fn windows_and_freezes_out_of_shape_are_refused() {
        let bench = Bench::new();
        for (path, body) in [
            ("/v1/windows/*", json!([])),
            (
                "/v1/windows/*",
                json!([{"zone": "Mars/Olympus", "days": ["mon"], "hour": 1, "minute": 0, "length_s": 60}]),
            ),
            (
                "/v1/windows/*",
                json!([{"zone": "UTC", "days": [], "hour": 1, "minute": 0, "length_s": 60}]),
            ),
            (
                "/v1/freezes/*",
                json!([{"from": "2030-03-01T00:00:00Z", "until": "2030-02-01T00:00:00Z", "reason": "x"}]),
            ),
            (
                "/v1/freezes/*",
                json!([{"from": "2030-01-01T00:00:00Z", "until": "2030-02-01T00:00:00Z", "reason": ""}]),
            ),
        ] {
            assert_eq!(bench.put("acme-admin", path, &body).await.status, 422, "{path} {body}");
        }
        let many = vec![
            json!({"zone": "UTC", "days": ["mon"], "hour": 1, "minute": 0, "length_s": 60});
            33
        ];
        assert_eq!(bench.put("acme-admin", "/v1/windows/*", &json!(many)).await.status, 422);
    }

    #[tokio::test]
    async fn a_grant_is_revoked_by_the_own_tenants_administrator_without_a_signature() {
        let bench = Bench::new();
        let signed = sign_with(&bench.grant("acme"), &[key(1)]);
        assert_eq!(bench.post("operator", "/v1/acts", &json!(signed)).await.status, 202);
        let path = format!("/v1/grants/{}/app", device(1));
        assert_eq!(bench.delete("globex-admin", &path).await.status, 404);
        assert_eq!(bench.delete("auditor", &path).await.status, 403);
        assert_eq!(bench.get("globex-admin", "/v1/grants").await.body, json!([]));
        assert_eq!(bench.entries().len(), 1);
        assert_eq!(bench.delete("acme-admin", &path).await.status, 204);
        assert!(bench.orders("acme", 1).grants.is_empty());
        let told = bench.entries().pop().expect("an entry");
        assert_eq!(told.kind, EntryKind::Withdraw, "the gatekeeper hears of it");
        let told: WithdrawRequest = serde_json::from_slice(&told.bytes).expect("a request");
        let expected = (device(1), "acme", "app", "acme-admin");
        let found = (told.device, told.tenant.as_str(), told.product.as_str(), told.by.as_str());
        assert_eq!(found, expected);
    }
}
