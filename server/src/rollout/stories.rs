//! Rollouts told from start to end on made-up fleets: what must hold, whatever the fleet.

use lockgate_shared::{
    act::{Act, CohortSize, RiskClass},
    bucket::Bucket,
    id::{ChannelId, DeviceId, Digest},
    manifest::{Gate, GateRule, Stage, StageApproval},
    wire::OutcomeKind,
};
use proptest::prelude::*;

use super::{evidence::Sighting, *};

const COHORTS: [&str; 3] = ["dogfood", "early", "general"];
const TICK: i64 = 60;

/// A fleet of devices that do what the rollout allows, at every tick.
struct Fleet {
    rollout: Rollout,
    cohorts: Vec<u32>,
    now: Moment,
    stops: Vec<Stop>,
}

impl Fleet {
    fn new(cohorts: &[u32], ceiling: u32) -> Self {
        let sizes = COHORTS.iter().zip(cohorts);
        let start = Start {
            repository: "trial".parse().expect("a name"),
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            version: "1.1.0".parse().expect("a version"),
            manifest: Digest([7; 32]),
            moment: Moment(0),
            cohorts: sizes
                .map(|(name, n)| CohortSize { cohort: cohort(name), devices: *n })
                .collect(),
            owner: "eva".parse().expect("a name"),
            risk: RiskClass::Routine,
            plan: Digest([0; 32]),
        };
        let signed = SignedAct::unsigned(&Act::Start(start.clone())).expect("an act");
        let rollout = Rollout::new(start, signed, ladder(ceiling), 0);
        let mut fleet =
            Self { rollout, cohorts: cohorts.to_vec(), now: Moment(0), stops: Vec::new() };
        for (device, name) in fleet.devices() {
            let bucket = bucket(device);
            let sighting = Sighting {
                cohort: cohort(name),
                bucket,
                groups: Vec::new(),
                standing: Standing::Counts,
            };
            fleet.rollout.evidence.meet(device, sighting);
        }
        fleet
    }

    fn devices(&self) -> Vec<(DeviceId, &'static str)> {
        let mut devices = Vec::new();
        for (place, (name, count)) in COHORTS.iter().zip(&self.cohorts).enumerate() {
            for number in 0..*count {
                let mut id = [0; 32];
                id[0] = u8::try_from(place).expect("three");
                id[1..5].copy_from_slice(&number.to_be_bytes());
                devices.push((DeviceId(id), *name));
            }
        }
        devices
    }

    /// One gate tick, then every device that was let in installs and ends as `outcome` says.
    fn tick(&mut self, outcome: &dyn Fn(DeviceId) -> OutcomeKind) -> Climb {
        self.now = Moment(self.now.0 + TICK);
        let climb = climb(&self.rollout, &self.census(), &self.stops, self.now);
        for step in &climb.moves {
            if let Move::Halt { what, why, .. } = step {
                self.stops.push(Stop {
                    number: 1,
                    kind: StopKind::Halt,
                    scope: Scope::Rollout(self.rollout.id),
                    since: self.now,
                    reason: report::halt_sentence(what, "", why),
                });
            }
            self.rollout.apply(step, self.now);
        }
        if self.stops.is_empty() {
            for device in self.let_in() {
                if self.rollout.evidence.speak(device, true) {
                    self.rollout.evidence.conclude(device, outcome(device));
                }
            }
        }
        climb
    }

    fn let_in(&self) -> Vec<DeviceId> {
        let entry = self.rollout.entry();
        let cases = self.rollout.evidence.cases();
        cases
            .filter(|(_, case)| {
                entry.limit_for(&case.cohort, &[]).is_some_and(|limit| limit.admits(case.bucket))
            })
            .map(|(device, _)| *device)
            .collect()
    }

    fn census(&self) -> Census {
        let heads = COHORTS.iter().zip(&self.cohorts);
        heads.map(|(name, n)| (cohort(name), Head { devices: *n, unheard: 0 })).collect()
    }
}

#[test]
fn a_good_release_climbs_stage_by_stage_and_completes() {
    let mut fleet = Fleet::new(&[3, 5, 40], 1_000_000);
    let mut opened = Vec::new();
    for _ in 0..200 {
        for step in fleet.tick(&|_| OutcomeKind::Confirmed).moves {
            if let Move::Open { index, .. } = step {
                opened.push(index);
            }
        }
    }
    assert_eq!(opened, [0, 1, 2]);
    assert!(fleet.rollout.complete.is_some());
    for (index, pair) in fleet.rollout.steps.windows(2).enumerate() {
        let bake = fleet.rollout.ladder.stages[index].bake_s;
        assert!(pair[1].open.opened >= pair[0].open.opened.plus(bake));
    }
    assert_eq!(fleet.rollout.evidence.tally(&cohort("general")).confirmed, 40);
}

#[test]
fn a_rollout_that_was_promised_devices_is_not_complete_without_them_until_people_say_so() {
    let nobody = |_: DeviceId| OutcomeKind::Confirmed;
    let mut fleet = Fleet::new(&[0, 0, 0], 1_000_000);
    for size in &mut fleet.rollout.start.cohorts {
        size.devices = 4;
    }
    let mut last = None;
    for _ in 0..500 {
        last = Some(fleet.tick(&nobody));
    }
    assert_eq!(fleet.rollout.complete, None, "0 of 0 is no success");
    let why: Vec<String> =
        last.expect("a tick").judgements.into_iter().flat_map(|j| j.reasons).collect();
    assert!(why.iter().any(|text| text.contains("devices that `dogfood` needs")), "{why:?}");
    let over = fleet.now;
    for (until, stages, complete) in [(over, 1, false), (Moment(i64::MAX), 3, true)] {
        fleet.rollout.waived = Some(Waived { devices: 0, until });
        for _ in 0..500 {
            fleet.tick(&nobody);
        }
        assert_eq!(fleet.rollout.steps.len(), stages, "waived until {until}");
        assert_eq!(fleet.rollout.complete.is_some(), complete, "waived until {until}");
    }

    let mut fleet = Fleet::new(&[2, 2, 2], 1_000_000);
    fleet.rollout.start.cohorts[2].devices = 50;
    let mut last = None;
    for _ in 0..500 {
        last = Some(fleet.tick(&nobody));
    }
    assert_eq!(fleet.rollout.complete, None);
    let why = last.expect("a tick").judgements[2].reasons.join("; ");
    assert!(why.contains("promised 50 devices in `general`, and 2 have called"), "{why}");
    fleet.rollout.waived = Some(Waived { devices: 2, until: fleet.now });
    for _ in 0..500 {
        fleet.tick(&nobody);
    }
    assert_eq!(fleet.rollout.complete, None, "the waiver is over");
}

#[test]
fn one_failure_in_dogfood_halts_before_anybody_else_is_let_in() {
    let mut fleet = Fleet::new(&[3, 5, 40], 1_000_000);
    let bad = fleet.devices()[0].0;
    let outcome = |device| {
        if device == bad { OutcomeKind::RolledBack } else { OutcomeKind::Confirmed }
    };
    for _ in 0..50 {
        fleet.tick(&outcome);
    }
    assert_eq!(fleet.stops.len(), 1, "a halt is given once");
    assert!(fleet.stops[0].reason.starts_with("1 of 3 treated devices in `dogfood`"));
    assert_eq!(fleet.rollout.steps.len(), 1);
    assert_eq!(fleet.rollout.evidence.tally(&cohort("early")).treated, 0);
}

#[test]
fn after_a_lift_the_known_failure_halts_no_more_and_a_new_one_does() {
    let mut fleet = Fleet::new(&[3, 5, 40], 1_000_000);
    let bad = [fleet.devices()[0].0, fleet.devices()[4].0];
    let outcome = |device| {
        if bad.contains(&device) { OutcomeKind::RolledBack } else { OutcomeKind::Confirmed }
    };
    for _ in 0..5 {
        fleet.tick(&outcome);
    }
    assert_eq!(fleet.stops.len(), 1);
    fleet.stops.clear();
    fleet.rollout.evidence.forgive();
    for _ in 0..50 {
        fleet.tick(&outcome);
    }
    assert_eq!(fleet.stops.len(), 1, "the second failure, in early, was not forgiven");
    assert!(fleet.stops[0].reason.contains("`early`"), "{}", fleet.stops[0].reason);
}

#[test]
fn devices_that_never_begin_delay_a_rollout_and_do_not_end_it() {
    let mut fleet = Fleet::new(&[3, 5, 40], 1_000_000);
    let pinned: Vec<DeviceId> = fleet.devices().iter().step_by(3).map(|(id, _)| *id).collect();
    for _ in 0..2000 {
        fleet.now = Moment(fleet.now.0 + TICK);
        let climb = climb(&fleet.rollout, &fleet.census(), &[], fleet.now);
        for step in &climb.moves {
            fleet.rollout.apply(step, fleet.now);
        }
        for device in fleet.let_in() {
            if !pinned.contains(&device) && fleet.rollout.evidence.speak(device, true) {
                fleet.rollout.evidence.conclude(device, OutcomeKind::Confirmed);
            }
        }
    }
    assert!(fleet.rollout.complete.is_some(), "{:?}", fleet.rollout.steps);
}

#[test]
fn a_stop_of_the_product_holds_everything_and_a_stopped_cohort_holds_what_follows() {
    let mut fleet = Fleet::new(&[3, 5, 40], 1_000_000);
    let product = fleet.rollout.start.product.clone();
    let pause = |scope| Stop {
        number: 9,
        kind: StopKind::Pause,
        scope,
        since: Moment(0),
        reason: "wait".into(),
    };
    let ask = |fleet: &Fleet, scope| {
        climb(&fleet.rollout, &fleet.census(), &[pause(scope)], Moment(1_000_000)).moves
    };
    assert!(ask(&fleet, Scope::Product(product.clone())).is_empty());
    assert!(ask(&fleet, Scope::Everything).is_empty());
    while fleet.rollout.steps.is_empty() {
        fleet.tick(&|_| OutcomeKind::Confirmed);
    }
    assert!(!ask(&fleet, Scope::Tenant("acme".parse().expect("a name"))).is_empty());
    let opens = |moves: &[Move]| moves.iter().any(|step| matches!(step, Move::Open { .. }));
    assert!(!opens(&ask(&fleet, Scope::Cohort(product, cohort("early")))));
}

#[test]
fn newcomers_of_a_new_kind_wait_until_the_rollout_is_complete() {
    let mut fleet = Fleet::new(&[3, 5, 4], 1_000_000);
    let (old, new) = (GroupId([1; 8]), GroupId([2; 8]));
    fleet.rollout.old_groups.insert(old);
    let mut meet = |id: u8, group| {
        let sighting = Sighting {
            cohort: cohort("general"),
            bucket: Bucket(0),
            groups: vec![group],
            standing: Standing::Newcomer,
        };
        fleet.rollout.evidence.meet(DeviceId([id; 32]), sighting);
    };
    meet(0xf1, old);
    meet(0xf2, new);
    let listed: Vec<GroupId> = fleet.rollout.entry().groups.iter().map(|g| g.group).collect();
    assert_eq!(listed, [new]);
    let known = fleet.rollout.entry().known;
    assert!(known.may_hold(&old) && known.may_hold(&new));
    assert!(!known.may_hold(&GroupId([3; 8])), "nobody of this kind was met");
    fleet.rollout.complete = Some(Moment(9));
    assert!(fleet.rollout.entry().groups.is_empty());
    assert!(fleet.rollout.entry().known.may_hold(&GroupId([3; 8])), "now everybody may");
}

#[test]
fn a_complete_rollout_still_halts_when_late_devices_are_harmed() {
    let mut fleet = Fleet::new(&[1, 1, 4], 1_000_000);
    for _ in 0..200 {
        fleet.tick(&|_| OutcomeKind::Confirmed);
    }
    assert!(fleet.rollout.complete.is_some());
    let (device, _) = fleet.devices()[3];
    fleet.rollout.evidence.conclude(device, OutcomeKind::RolledBack);
    let climb = fleet.tick(&|_| OutcomeKind::Confirmed);
    assert!(matches!(climb.moves[..], [Move::Halt { .. }]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_the_fleet_stages_open_in_order_and_limits_only_grow_within_the_ceiling(
        cohorts in prop::collection::vec(0u32..60, 3),
        ceiling in 50_000u32..=1_000_000,
        bad in 0u32..20,
        salt in any::<u8>(),
    ) {
        let mut fleet = Fleet::new(&cohorts, ceiling);
        let outcome = |device: DeviceId| {
            let draw = Digest::of_parts("test", &[&[salt], &device.0]).0[0];
            if u32::from(draw) < bad { OutcomeKind::RolledBack } else { OutcomeKind::Confirmed }
        };
        let mut before: Vec<Limit> = Vec::new();
        for _ in 0..60 {
            let treated: Vec<u32> = tallies(&fleet).iter().map(|tally| tally.treated).collect();
            fleet.tick(&outcome);
            let limits: Vec<Limit> = fleet.rollout.steps.iter().map(|s| s.open.limit).collect();
            prop_assert!(limits.len() >= before.len() && limits.len() <= before.len() + 1);
            for (index, limit) in limits.iter().enumerate() {
                prop_assert!(*limit >= before.get(index).copied().unwrap_or(Limit::NOBODY));
                let signed = fleet.rollout.ladder.stages[index].ceiling_ppm;
                prop_assert!(*limit <= Limit::of_share_ppm(signed));
            }
            for (index, tally) in tallies(&fleet).iter().enumerate() {
                let Gate::Count(rule) = &fleet.rollout.ladder.stages[index].gate else {
                    panic!("these stages count")
                };
                prop_assert!(tally.treated <= rule.first_devices + rule.growth * treated[index]);
            }
            before = limits;
        }
    }
}

fn tallies(fleet: &Fleet) -> Vec<evidence::Tally> {
    COHORTS.iter().map(|name| fleet.rollout.evidence.tally(&cohort(name))).collect()
}

fn cohort(name: &str) -> CohortId {
    name.parse().expect("a name of this test")
}

fn bucket(device: DeviceId) -> Bucket {
    let channel: ChannelId = "stable".parse().expect("a name");
    Bucket::of(&Digest([7; 32]), &channel, &device)
}

fn ladder(ceiling: u32) -> Ladder {
    let stage = |name: &str, ceiling_ppm| Stage {
        cohort: cohort(name),
        ceiling_ppm,
        floor_s: Seconds(60),
        bake_s: Seconds(300),
        approval: StageApproval::None,
        gate: Gate::Count(GateRule {
            first_devices: 3,
            growth: 2,
            min_devices: 3,
            small_stage: 10,
            max_failure_ppm: 100_000,
            confidence_ppm: 950_000,
            silence_after_s: Seconds(600),
        }),
    };
    Ladder {
        stages: vec![
            stage("dogfood", ceiling),
            stage("early", ceiling),
            stage("general", 1_000_000),
        ],
        timestamp_max_age_s: Seconds(3600),
        coverage_max: 200,
    }
}
