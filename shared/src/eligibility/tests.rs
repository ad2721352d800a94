//! What keeps a device from a release, each reason alone and all at once.

use super::*;
use crate::{
    bucket::Limit,
    group::KnownGroups,
    id::{ChannelId, GroupId, RolloutId},
    pace::tests::{START, World, open},
    rollout::{GroupLimit, Stop, StopKind},
    time::Seconds,
    window::Weekday,
};

#[test]
fn a_device_whose_turn_it_is_goes() {
    let asked = Asked::new();
    assert_eq!(asked.reasons(), Vec::<u16>::new());
}

#[test]
fn every_reason_is_named_at_once_and_in_the_fixed_order() {
    let mut asked = Asked::new();
    asked.facts.ram_mib = 1;
    asked.world.manifest.compatibility.min_ram_mib = Some(512);
    asked.pins = vec![(Asker::Owner, exact("9.9.9"))];
    asked.world.entry.ended = Some(START);
    asked.limit(Limit::NOBODY);
    asked.freezes =
        vec![Freeze { from: START, until: asked.now.plus(Seconds(9)), reason: "fair".into() }];
    asked.conditions =
        Conditions { on_battery: Some(true), battery_percent: Some(5), ..asked.conditions };
    asked.conditions.metered = Some(true);
    asked.conditions.free_disk_mib = Some(0);
    assert_eq!(asked.reasons(), [204, 302, 503, 701, 901, 1001, 1101, 1201]);
}

#[test]
fn only_the_bucket_being_open_puts_a_device_at_risk() {
    let mut asked = Asked::new();
    asked.limit(Limit::NOBODY);
    assert!(asked.at_risk());
    asked.conditions.metered = Some(true);
    assert!(!asked.at_risk());
}

#[test]
fn a_bucket_on_the_coverage_list_is_let_in_early() {
    let mut asked = Asked::new();
    asked.limit(Limit::NOBODY);
    let bucket = asked.with(|answer| answer.bucket);
    asked.world.entry.coverage = vec![bucket];
    asked.look();
    assert_eq!(asked.reasons(), Vec::<u16>::new());
}

#[test]
fn nothing_is_installed_that_is_not_newer_or_that_failed_here() {
    let mut asked = Asked::new();
    for running in ["1.1.0", "1.2.0"] {
        asked.running = Some(running.parse().expect("a version"));
        assert_eq!(asked.reasons(), [102]);
    }
    asked.running = Some("1.0.0".parse().expect("a version"));
    asked.failed = vec!["1.1.0".parse().expect("a version")];
    assert_eq!(asked.reasons(), [103]);
}

#[test]
fn what_no_slot_of_this_device_can_hold_is_refused() {
    for kind in [ArtifactKind::Image, ArtifactKind::Config, ArtifactKind::Agent] {
        let mut asked = Asked::new();
        asked.world.manifest.artifacts[0].kind = kind;
        assert_eq!(asked.reasons(), [205], "{kind:?}");
    }
}

#[test]
fn every_rule_that_alone_is_broken_speaks_alone() {
    type Break = fn(&mut Asked);
    let broken: [(u16, Break); 11] = [
        (101, |asked| asked.product = "other".parse().expect("a name")),
        (201, |asked| asked.world.manifest.artifacts[0].arch = Some("riscv64".into())),
        (202, |asked| {
            asked.world.manifest.compatibility.models.insert("Acme Anvil".into());
        }),
        (203, |asked| {
            asked.world.manifest.compatibility.os_ids.insert("plan9".into());
        }),
        (301, |asked| asked.channel = "beta".parse().expect("a name")),
        (503, |asked| asked.world.entry.ended = Some(START)),
        // A file that shows it again does not bring it back.
        (503, |asked| asked.memory().ended = Some(START)),
        (602, |asked| {
            asked.world.entry.stages.pop();
        }),
        (604, |asked| {
            // The gatekeeper's clock is ahead, or it lies.
            asked.world.manifest.ladder.stages[1].floor_s = Seconds(1_001);
            asked.world.entry.stages[1].opened = START.plus(Seconds(1_001));
        }),
        (701, |asked| {
            let group = asked.memory().groups[1];
            asked.world.entry.stages[1].groups = vec![GroupLimit { group, limit: Limit(0) }];
        }),
        (701, |asked| {
            let group = asked.memory().groups[1];
            asked.world.entry.groups = vec![GroupLimit { group, limit: Limit(0) }];
        }),
    ];
    for (code, breaks) in broken {
        let mut asked = Asked::new();
        breaks(&mut asked);
        assert_eq!(asked.reasons(), [code]);
    }
}

#[test]
fn a_freeze_holds_from_its_beginning_until_just_before_its_end() {
    let mut asked = Asked::new();
    let now = asked.now;
    for (from, until, holds) in [(0, 1, true), (-9, 0, false), (1, 9, false)] {
        let at = |seconds: i64| Moment(now.0 + seconds);
        asked.freezes = vec![Freeze { from: at(from), until: at(until), reason: "fair".into() }];
        assert_eq!(asked.reasons() == [901], holds, "{from} {until}");
    }
}

#[test]
fn a_barrier_may_not_be_skipped() {
    let mut asked = Asked::new();
    asked.world.manifest.barrier = Some("1.0.5".parse().expect("a version"));
    assert_eq!(asked.reasons(), [401]);
    asked.running = Some("1.0.5".parse().expect("a version"));
    assert_eq!(asked.reasons(), Vec::<u16>::new());
}

#[test]
fn a_pinned_device_takes_its_own_line_and_says_why_not_the_newest() {
    let mut asked = Asked::new();
    asked.pins = vec![(Asker::Owner, Pin::NMinus1)];
    asked.complete = vec!["1.0.0".parse().expect("v"), "1.1.0".parse().expect("v")];
    assert_eq!(asked.reasons(), [302]);
    asked.complete.push("1.2.0".parse().expect("v"));
    assert_eq!(asked.reasons(), Vec::<u16>::new());
}

#[test]
fn the_owners_pin_and_the_ordered_one_both_hold_and_each_is_named() {
    let mut asked = Asked::new();
    asked.complete = ["1.0.0", "1.1.0", "1.2.0"].map(|v| v.parse().expect("v")).into();
    asked.pins = vec![(Asker::Owner, Pin::NMinus1), (Asker::Orders, exact("1.1.0"))];
    assert_eq!(asked.reasons(), Vec::<u16>::new(), "they agree");
    asked.pins[1].1 = exact("1.2.0");
    assert_eq!(asked.reasons(), [302], "they contradict each other: n-1 is 1.1.0");
    asked.pins[1].1 = exact("1.2.1");
    asked.pins[0].1 = exact("1.2.0");
    assert_eq!(asked.reasons(), [302, 302]);
    let told = asked.with(|answer| answer.reasons.iter().map(ToString::to_string).collect());
    let told: Vec<String> = told;
    assert!(told[0].contains("1.2.0 (config)"), "{told:?}");
    assert!(told[1].contains("1.2.1 (orders)"), "{told:?}");
}

#[test]
fn a_line_further_behind_is_the_stricter_of_two_pins() {
    let mut asked = Asked::new();
    asked.complete = ["1.1.0", "1.2.0", "1.3.0"].map(|v| v.parse().expect("v")).into();
    asked.pins = vec![(Asker::Owner, Pin::NMinus1), (Asker::Orders, Pin::NMinus2)];
    assert_eq!(asked.reasons(), Vec::<u16>::new(), "1.1.0 is two lines behind");
    asked.complete = ["1.0.0", "1.1.0", "1.2.0"].map(|v| v.parse().expect("v")).into();
    assert_eq!(asked.reasons(), [302], "1.1.0 is only one line behind");
}

#[test]
fn the_owners_windows_and_the_ordered_ones_must_both_be_open() {
    let mut asked = Asked::new();
    let always = |hour| Window {
        zone: "UTC".into(),
        days: Weekday::ALL.into(),
        hour,
        minute: 0,
        length_s: Seconds(3600),
    };
    let hour = u8::try_from(asked.now.0.rem_euclid(86_400) / 3600).expect("an hour");
    let (open, shut) = (always(hour), always((hour + 12) % 24));
    asked.windows = vec![vec![open.clone()], vec![open.clone()]];
    assert_eq!(asked.reasons(), Vec::<u16>::new());
    asked.windows = vec![vec![shut.clone()], vec![open]];
    assert_eq!(asked.reasons(), [801], "the owner's own was passed over");
    asked.windows = vec![vec![shut.clone()], vec![shut]];
    assert_eq!(asked.reasons(), [801, 801]);
}

#[test]
fn a_stop_passed_on_binds_until_a_file_that_counts_it_whatever_the_hosts_clocks_say() {
    for since in [Moment(0), START, START.plus(Seconds(1_000_000))] {
        let mut asked = Asked::new();
        asked.passed = vec![PassedStop {
            offset: 12,
            scope: Scope::Tenant("acme".parse().expect("a name")),
            since,
            reason: "call me".into(),
        }];
        for (counted_up_to, reasons) in [(11, vec![502]), (12, vec![502]), (13, vec![])] {
            asked.letters_offset = counted_up_to;
            assert_eq!(asked.reasons(), reasons, "counted up to {counted_up_to}");
        }
    }
}

#[test]
fn an_answer_with_a_false_offset_does_not_make_a_device_counted() {
    let mut asked = Asked::new();
    asked.memory().first_letter = Some(0);
    asked.memory().first_offset = 10;
    asked.letters_offset = 10;
    assert_eq!(asked.reasons(), [605], "the file is the one in which it first saw the rollout");
    asked.letters_offset = 11;
    assert_eq!(asked.reasons(), Vec::<u16>::new());
    let own = asked.memory().groups.clone();
    asked.world.entry.known = KnownGroups::of(&own[1..]);
    assert_eq!(asked.reasons(), [605], "the gatekeeper does not know one of its groups");
    asked.world.entry.known = KnownGroups::of(&own);
    assert_eq!(asked.reasons(), Vec::<u16>::new());
}

#[test]
fn a_numbered_stop_binds_whom_it_covers() {
    let mut own = Asked::new();
    let (rollout, groups) = (own.world.entry.rollout, own.memory().groups.clone());
    let (another, strange) = (RolloutId([9; 32]), GroupId([9; 8]));
    for (scope, binds) in [
        (Scope::Everything, true),
        (Scope::Product("app".parse().expect("a name")), true),
        (Scope::Product("other".parse().expect("a name")), false),
        (Scope::Tenant("acme".parse().expect("a name")), true),
        (Scope::Tenant("globex".parse().expect("a name")), false),
        (Scope::Cohort("app".parse().expect("a"), "general".parse().expect("a")), true),
        (Scope::Cohort("app".parse().expect("a"), "dogfood".parse().expect("a")), false),
        (Scope::Cohort("other".parse().expect("a"), "general".parse().expect("a")), false),
        (Scope::Rollout(rollout), true),
        (Scope::Rollout(another), false),
        (Scope::Groups(rollout, vec![strange, groups[1]]), true),
        (Scope::Groups(rollout, vec![strange]), false),
        (Scope::Groups(another, groups), false),
    ] {
        let mut asked = Asked::new();
        let stop = Stop {
            number: 3,
            kind: StopKind::Pause,
            scope: scope.clone(),
            since: START,
            reason: "drill".into(),
        };
        asked.world.memory.stops.insert(3, stop);
        assert_eq!(asked.reasons() == [501], binds, "{scope:?}");
    }
}

#[test]
fn whoever_withholds_news_stops_the_device() {
    let mut asked = Asked::new();
    asked.timestamp_issued = Some(asked.now.minus(Seconds(3601)));
    assert_eq!(asked.reasons(), [504]);
    asked.timestamp_issued = None;
    assert_eq!(asked.reasons(), [504]);
}

#[test]
fn a_device_waits_for_the_bake_it_saw_itself_and_until_it_is_counted() {
    let mut asked = Asked::new();
    asked.now = START.plus(Seconds(100));
    asked.timestamp_issued = Some(asked.now);
    let memory = asked.memory();
    memory.last_not_open.insert("dogfood".parse().expect("a"), START.plus(Seconds(50)));
    assert_eq!(asked.reasons(), [603]);
    let mut asked = Asked::new();
    asked.memory().first_letter = Some(11);
    assert_eq!(asked.reasons(), [605]);
    asked.memory().first_letter = None;
    assert_eq!(asked.reasons(), [605]);
}

#[test]
fn a_window_that_cannot_be_evaluated_keeps_the_device_waiting() {
    let mut asked = Asked::new();
    asked.windows = vec![vec![Window {
        zone: "No/Where".into(),
        days: [Weekday::Mon].into(),
        hour: 1,
        minute: 0,
        length_s: Seconds(60),
    }]];
    assert_eq!(asked.reasons(), [802]);
}

fn exact(version: &str) -> Pin {
    Pin::Exact(version.parse().expect("a version"))
}

/// A device of cohort `general` in a rollout that is open to everybody and baked.
struct Asked {
    world: World,
    now: Moment,
    product: ProductId,
    channel: ChannelId,
    facts: Facts,
    conditions: Conditions,
    running: Option<Version>,
    pins: Vec<(Asker, Pin)>,
    complete: Vec<Version>,
    windows: Vec<Vec<Window>>,
    freezes: Vec<Freeze>,
    failed: Vec<Version>,
    passed: Vec<PassedStop>,
    letters_offset: u64,
    timestamp_issued: Option<Moment>,
}

impl Asked {
    fn new() -> Self {
        let mut world = World::new();
        world.entry.stages.push(open("general", 60, Limit::EVERYBODY));
        let now = START.plus(Seconds(1_000));
        let mut asked = Self {
            world,
            now,
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            facts: Facts::default(),
            conditions: Conditions::default(),
            running: Some("1.0.0".parse().expect("a version")),
            pins: Vec::new(),
            complete: Vec::new(),
            windows: Vec::new(),
            freezes: Vec::new(),
            failed: Vec::new(),
            passed: Vec::new(),
            letters_offset: 11,
            timestamp_issued: Some(now),
        };
        asked.look();
        asked.memory().first_letter = Some(3);
        asked
    }

    fn look(&mut self) {
        let entry = self.world.entry.clone();
        self.world.see(&entry, START.plus(Seconds(200)));
    }

    fn limit(&mut self, limit: Limit) {
        self.world.entry.stages[1].limit = limit;
    }

    fn memory(&mut self) -> &mut RolloutMemory {
        let rollout = self.world.entry.rollout;
        self.world.memory.rollouts.get_mut(&rollout).expect("it was seen")
    }

    fn reasons(&self) -> Vec<u16> {
        self.with(|answer| answer.reasons.iter().map(Reason::code).collect())
    }

    fn at_risk(&self) -> bool {
        self.with(|answer| answer.bucket_alone())
    }

    fn with<T>(&self, read: impl FnOnce(&Answer<'_>) -> T) -> T {
        let world = &self.world;
        let rollout = world.verify(&world.entry).expect("agrees");
        let candidate = Candidate {
            rollout: &rollout,
            manifest: &world.manifest,
            memory: &world.memory.rollouts[&world.entry.rollout],
        };
        let pins: Vec<_> = self.pins.iter().map(|(by, pin)| (*by, pin)).collect();
        let windows: Vec<_> = self.windows.iter().map(Vec::as_slice).collect();
        let device = Device {
            id: DeviceId([5; 32]),
            tenant: &"acme".parse().expect("a name"),
            product: &self.product,
            channel: &self.channel,
            facts: &self.facts,
            conditions: &self.conditions,
            takes: ArtifactKind::App,
            running: self.running.as_ref(),
            pins: &pins,
            complete: &self.complete,
            windows: &windows,
            freezes: &self.freezes,
            preferences: Preferences::default(),
            failed: &self.failed,
        };
        let server = ServerView {
            memory: &world.memory,
            passed: &self.passed,
            letters_offset: self.letters_offset,
            timestamp_issued: self.timestamp_issued,
        };
        read(&eligibility(&candidate, &device, &server, self.now))
    }
}
