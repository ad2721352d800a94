//! May a device follow a recall now? The same questions as for a release, in the same order; only what
//! a rollout asks is missing, because the release keys alone open this way.

use super::{Device, Reason, ServerView, calendar, conditions, platform, stale};
use crate::{
    bucket::Bucket,
    id::Digest,
    manifest::Manifest,
    pin::Pin,
    recall::Recall,
    rollout::{Scope, Stop, StopKind},
    time::Moment,
};

/// The way back that a recall opens from what a device runs.
#[derive(Clone, Copy, Debug)]
pub struct WayBack<'a> {
    /// The recall.
    pub recall: &'a Recall,
    /// SHA-256 of its bytes: it draws the order.
    pub digest: Digest,
    /// The manifest of the release that it leads to.
    pub manifest: &'a Manifest,
    /// Whether the recalled release harmed the device.
    pub harmed: bool,
    /// Whether what runs can be undone on this device.
    pub undoable: bool,
}

/// May `device`, which runs the recalled version, go back now? What the gate stopped does not keep it,
/// whatever its scope: a halt or hold says that rollouts do harm, and a recall is what people sign next.
/// That goes for a tenant that is held by its own evidence too: it is there that devices came to harm.
/// A pause is a person's word, so one of the tenant, the product or of everything does keep it; one of a
/// rollout, of its groups or of a cohort does not, because no recall belongs to one.
pub fn way_back(
    back: &WayBack<'_>,
    device: &Device<'_>,
    server: &ServerView<'_>,
    now: Moment,
) -> Vec<Reason> {
    let WayBack { recall, manifest, .. } = back;
    let mut reasons = Vec::new();
    if device.failed.contains(&recall.to) {
        reasons.push(Reason::FailedBefore(recall.to.clone()));
    }
    if !back.undoable {
        reasons.push(Reason::NoWayBack(recall.version.clone()));
    }
    platform(manifest, device, &mut reasons);
    for (by, pin) in device.pins {
        if matches!(pin, Pin::Exact(version) if *version != recall.to) {
            reasons.push(Reason::Pinned { pin: (*pin).clone(), wants: None, by: *by });
        }
    }
    let covers = |scope: &Scope| match scope {
        Scope::Rollout(_) | Scope::Groups(..) | Scope::Cohort(..) => false,
        Scope::Tenant(tenant) => tenant == device.tenant,
        Scope::Product(product) => product == device.product,
        Scope::Everything => true,
    };
    let by_people = |stop: &&Stop| match stop.kind {
        StopKind::Pause => covers(&stop.scope),
        StopKind::Hold | StopKind::Halt => false,
    };
    for stop in server.memory.stops.values().filter(by_people) {
        let (number, kind, reason) = (stop.number, stop.kind, stop.reason.clone());
        reasons.push(Reason::Stopped { number, kind, reason });
    }
    for stop in server.passed {
        if stop.offset >= server.letters_offset && covers(&stop.scope) {
            reasons.push(Reason::PassedStop(stop.reason.clone()));
        }
    }
    stale(recall.timestamp_max_age_s, server, now, &mut reasons);
    let opens = recall.opens(Bucket::of(&back.digest, device.channel, &device.id), back.harmed);
    if recall.until <= now {
        reasons.push(Reason::RecallOver(recall.until));
    } else if now < opens {
        reasons.push(Reason::Floor(opens));
    }
    calendar(device, now, &mut reasons);
    conditions(manifest, device, &mut reasons);
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        eligibility::Preferences,
        facts::{Conditions, Facts},
        id::DeviceId,
        manifest::{ArtifactKind, tests::manifest},
        pace::Memory,
        pin::Asker,
        recall::tests::recall,
        rollout::PassedStop,
        time::Seconds,
        version::Version,
        window::{Freeze, Weekday, Window},
    };

    #[test]
    fn a_device_goes_back_when_its_turn_has_come_and_not_after_the_end() {
        let mut asked = Asked::new();
        asked.now = asked.recall.issued;
        assert_eq!(asked.reasons(), [604]);
        asked.now = asked.recall.issued.plus(Seconds(10));
        assert_eq!(asked.reasons(), [604], "only those that it harmed go this soon");
        asked.harmed = true;
        assert_eq!(asked.reasons(), Vec::<u16>::new());
        asked.harmed = false;
        asked.now = asked.recall.issued.plus(Seconds(3600));
        assert_eq!(asked.reasons(), Vec::<u16>::new());
        asked.now = asked.recall.until;
        assert_eq!(asked.reasons(), [504, 606]);
    }

    #[test]
    fn what_holds_a_device_holds_its_way_back_too() {
        let mut asked = Asked::new();
        asked.stop(StopKind::Pause, Scope::Everything);
        asked.pin = Pin::Exact("1.1.0".parse().expect("a version"));
        asked.undoable = false;
        asked.failed = vec![asked.recall.to.clone()];
        asked.issued = None;
        assert_eq!(asked.reasons(), [103, 105, 302, 501, 504]);
    }

    #[test]
    fn what_the_gate_stopped_keeps_nobody_from_the_way_back_and_a_person_who_stops_all_does() {
        let product = || Scope::Product("app".parse().expect("a name"));
        let tenant = || Scope::Tenant("acme".parse().expect("a name"));
        let rollout = crate::id::RolloutId([1; 32]);
        for scope in [tenant(), product(), Scope::Everything, Scope::Rollout(rollout)] {
            let mut asked = Asked::new();
            asked.stop(StopKind::Hold, scope.clone());
            asked.stop(StopKind::Halt, scope);
            assert_eq!(asked.reasons(), Vec::<u16>::new(), "{:?}", asked.memory.stops);
        }
        for scope in [tenant(), product(), Scope::Everything] {
            let mut asked = Asked::new();
            asked.stop(StopKind::Pause, scope);
            assert_eq!(asked.reasons(), [501], "{:?}", asked.memory.stops);
        }
        let mut asked = Asked::new();
        asked.stop(StopKind::Pause, Scope::Rollout(rollout));
        assert_eq!(asked.reasons(), Vec::<u16>::new(), "a recall belongs to no rollout");
    }

    #[test]
    fn every_rule_that_alone_is_broken_speaks_alone() {
        type Break = fn(&mut Asked);
        let stopped = |asked: &mut Asked, scope| asked.stop(StopKind::Pause, scope);
        for (own, other) in [
            (
                Scope::Tenant("acme".parse().expect("a name")),
                Scope::Tenant("globex".parse().expect("a name")),
            ),
            (
                Scope::Product("app".parse().expect("a name")),
                Scope::Product("tools".parse().expect("a name")),
            ),
        ] {
            let mut asked = Asked::new();
            stopped(&mut asked, other);
            assert_eq!(asked.reasons(), Vec::<u16>::new());
            stopped(&mut asked, own);
            assert_eq!(asked.reasons(), [501]);
        }
        let broken: [(u16, Break); 6] = [
            (201, |asked| asked.arch = Some("riscv64".into())),
            (502, |asked| {
                asked.passed = vec![PassedStop {
                    offset: 0,
                    scope: Scope::Everything,
                    since: Moment(0),
                    reason: "drill".into(),
                }];
            }),
            (802, |asked| {
                asked.windows = vec![Window {
                    zone: "No/Where".into(),
                    days: [Weekday::Mon].into(),
                    hour: 1,
                    minute: 0,
                    length_s: Seconds(60),
                }];
            }),
            (901, |asked| {
                let (from, until) = (asked.now, asked.now.plus(Seconds(1)));
                asked.freezes = vec![Freeze { from, until, reason: "fair".into() }];
            }),
            (1101, |asked| asked.conditions.metered = Some(true)),
            (1201, |asked| asked.conditions.free_disk_mib = Some(0)),
        ];
        for (code, breaks) in broken {
            let mut asked = Asked::new();
            breaks(&mut asked);
            assert_eq!(asked.reasons(), [code]);
        }
    }

    #[test]
    fn a_pin_to_an_older_line_does_not_keep_a_device_on_what_is_recalled() {
        for pin in [Pin::NMinus1, Pin::NMinus2, Pin::Exact("1.0.0".parse().expect("a version"))] {
            let mut asked = Asked::new();
            asked.pin = pin;
            assert_eq!(asked.reasons(), Vec::<u16>::new());
        }
    }

    struct Asked {
        recall: Recall,
        now: Moment,
        harmed: bool,
        undoable: bool,
        memory: Memory,
        pin: Pin,
        failed: Vec<Version>,
        issued: Option<Moment>,
        arch: Option<String>,
        passed: Vec<PassedStop>,
        windows: Vec<Window>,
        freezes: Vec<Freeze>,
        conditions: Conditions,
    }

    impl Asked {
        fn new() -> Self {
            let recall = recall();
            let now = recall.issued.plus(Seconds(3600));
            Self {
                recall,
                now,
                harmed: false,
                undoable: true,
                memory: Memory::default(),
                pin: Pin::Latest,
                failed: Vec::new(),
                issued: Some(now),
                arch: None,
                passed: Vec::new(),
                windows: Vec::new(),
                freezes: Vec::new(),
                conditions: Conditions::default(),
            }
        }

        fn stop(&mut self, kind: StopKind, scope: Scope) {
            let number = self.memory.stops.len() as u64 + 1;
            let stop = Stop { number, kind, scope, since: Moment(0), reason: "drill".into() };
            self.memory.stops.insert(number, stop);
        }

        fn reasons(&self) -> Vec<u16> {
            let mut manifest = Manifest { version: self.recall.to.clone(), ..manifest() };
            manifest.artifacts[0].arch = self.arch.clone();
            let digest = Digest::of(b"the recall");
            let back = WayBack {
                recall: &self.recall,
                digest,
                manifest: &manifest,
                harmed: self.harmed,
                undoable: self.undoable,
            };
            let device = Device {
                id: DeviceId([5; 32]),
                tenant: &"acme".parse().expect("a name"),
                product: &"app".parse().expect("a name"),
                channel: &"stable".parse().expect("a name"),
                facts: &Facts::default(),
                conditions: &self.conditions,
                takes: ArtifactKind::App,
                running: Some(&self.recall.version),
                pins: &[(Asker::Owner, &self.pin)],
                complete: &[],
                windows: &[&self.windows],
                freezes: &self.freezes,
                preferences: Preferences::default(),
                failed: &self.failed,
            };
            let server = ServerView {
                memory: &self.memory,
                passed: &self.passed,
                letters_offset: 0,
                timestamp_issued: self.issued,
            };
            way_back(&back, &device, &server, self.now).iter().map(Reason::code).collect()
        }
    }
}
