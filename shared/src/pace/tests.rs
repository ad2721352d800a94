//! What a device must not believe of a rollout file, and what it remembers of those that it saw.

use super::*;
use crate::{
    act::{Approval, CohortSize, Lift, RiskClass, tests as acts},
    id::{ModelId, ProductId, RepositoryId},
    manifest::tests::manifest,
    rollout::{Scope, StopKind},
};

#[test]
fn an_entry_as_people_signed_it_is_believed() {
    let world = World::new();
    let verified = world.verify(&world.entry).expect("agrees with what was signed");
    assert_eq!(verified.start().version.to_string(), "1.1.0");
}

#[test]
fn a_start_without_enough_approvers_is_refused() {
    let mut world = World::new();
    world.entry.start.signatures.clear();
    world.entry.start.sign(&acts::key(3));
    assert!(matches!(world.verify(&world.entry), Err(PaceError::Start(_))));
}

#[test]
fn an_opening_before_its_floor_or_its_bake_is_refused() {
    let world = World::new();
    let mut early = world.entry.clone();
    early.stages[0].opened = START.minus(Seconds(1));
    assert!(matches!(world.verify(&early), Err(PaceError::Floor { .. })));
    let mut unbaked = world.entry.clone();
    unbaked.stages[0].opened = START.plus(Seconds(30));
    unbaked.stages.push(open("general", 80, Limit::EVERYBODY));
    assert!(matches!(world.verify(&unbaked), Err(PaceError::Bake { .. })));
}

#[test]
fn a_skipped_or_foreign_stage_is_refused() {
    let world = World::new();
    let mut skipped = world.entry.clone();
    skipped.stages = vec![open("general", 60, Limit::EVERYBODY)];
    assert_eq!(world.verify(&skipped), Err(PaceError::Order));
    let mut more = world.entry.clone();
    more.stages.push(open("general", 60, Limit::NOBODY));
    more.stages.push(open("moon", 120, Limit::NOBODY));
    assert_eq!(world.verify(&more), Err(PaceError::Order));
}

#[test]
fn a_limit_above_the_ceiling_is_refused() {
    let mut world = World::new();
    world.manifest.ladder.stages[0].ceiling_ppm = 100_000;
    let mut entry = world.entry.clone();
    entry.stages[0].limit = Limit::of_share_ppm(100_001);
    assert!(matches!(world.verify(&entry), Err(PaceError::Ceiling { .. })));
    entry.stages[0].limit = Limit::of_share_ppm(100_000);
    assert!(world.verify(&entry).is_ok());
}

#[test]
fn a_start_of_other_cohorts_or_of_another_rollout_is_refused() {
    let mut world = World::new();
    world.manifest.ladder.stages.swap(0, 1);
    assert_eq!(world.verify(&world.entry), Err(PaceError::Cohorts));
    world.manifest.ladder.stages.truncate(1);
    assert_eq!(world.verify(&world.entry), Err(PaceError::Cohorts));
    let world = World::new();
    let other = RolloutEntry { rollout: RolloutId([9; 32]), ..world.entry.clone() };
    assert_eq!(world.verify(&other), Err(PaceError::OtherStart));
}

#[test]
fn a_grant_moves_no_rollout_that_was_seen_before_it() {
    let mut world = World::new();
    let file = world.file(&world.entry.clone());
    world.observe(&file, START);
    let earlier = |_: &Start| "dogfood".parse().expect("a name");
    let now = START.plus(Seconds(9));
    let habit = Habit::Unknown;
    let sight = Sight { facts: &world.facts, habit, cohort: &earlier, now };
    world.memory.observe(&file, &world.policy, &sight);
    let known = &world.memory.rollouts[&world.entry.rollout];
    assert_eq!(known.cohort.as_str(), "general");
}

#[test]
fn a_manifest_that_the_start_does_not_name_is_refused() {
    let world = World::new();
    let other = Digest::of(b"other bytes");
    let verdict = verify(&world.entry, &world.policy, &world.manifest, &other, None);
    assert_eq!(verdict, Err(PaceError::OtherManifest));
}

#[test]
fn a_stage_that_asks_for_people_opens_only_with_their_approval_of_that_stage() {
    let mut world = World::new();
    world.manifest.ladder.stages[0].approval = StageApproval::Required;
    let mut entry = world.entry.clone();
    assert!(matches!(world.verify(&entry), Err(PaceError::Approval { .. })));
    entry.approvals.push(approval(entry.rollout, 1));
    assert!(matches!(world.verify(&entry), Err(PaceError::Approval { .. })));
    entry.approvals.push(approval(RolloutId([9; 32]), 0));
    assert!(matches!(world.verify(&entry), Err(PaceError::Approval { .. })));
    entry.approvals.push(approval(entry.rollout, 0));
    assert!(world.verify(&entry).is_ok());
}

#[test]
fn a_coverage_list_is_bounded_and_only_grows() {
    let mut world = World::new();
    world.manifest.ladder.coverage_max = 2;
    let mut entry = world.entry.clone();
    entry.coverage = vec![Bucket(1), Bucket(2), Bucket(3)];
    assert!(matches!(world.verify(&entry), Err(PaceError::CoverageTooLong { .. })));
    world.see(&entry, START);
    entry.coverage = vec![Bucket(1), Bucket(2)];
    world.verify(&entry).expect("what was refused is not remembered");
    world.see(&entry, START);
    entry.coverage = vec![Bucket(1), Bucket(4)];
    assert_eq!(world.verify(&entry), Err(PaceError::CoverageLost));
}

#[test]
fn a_bake_counts_from_the_last_refresh_in_which_the_stage_was_not_open() {
    let mut world = World::new();
    let mut closed = world.entry.clone();
    closed.stages.clear();
    world.see(&closed, START.plus(Seconds(10)));
    world.see(&closed, START.plus(Seconds(40)));
    world.see(&world.entry.clone(), START.plus(Seconds(70)));
    assert_eq!(world.last_not_open("dogfood"), START.plus(Seconds(40)));
    world.see(&world.entry.clone(), START.plus(Seconds(100)));
    assert_eq!(world.last_not_open("dogfood"), START.plus(Seconds(40)));
}

#[test]
fn an_unseen_rollout_counts_as_not_open_at_the_refresh_before() {
    let mut world = World::new();
    world.memory.observe_none(START.plus(Seconds(5)));
    world.see(&world.entry.clone(), START.plus(Seconds(50)));
    assert_eq!(world.last_not_open("dogfood"), START.plus(Seconds(5)));
    let mut newcomer = World::new();
    newcomer.see(&newcomer.entry.clone(), START.plus(Seconds(50)));
    assert_eq!(newcomer.last_not_open("dogfood"), START.plus(Seconds(50)));
}

#[test]
fn a_stop_once_seen_binds_until_a_signed_lift_names_it() {
    let mut world = World::new();
    let mut file = world.file(&world.entry.clone());
    file.stops = vec![stop(4)];
    world.observe(&file, START);
    // A file that no longer mentions it ends nothing.
    file.stops.clear();
    world.observe(&file, START.plus(Seconds(1)));
    assert_eq!(world.memory.stops.len(), 1);
    // Neither does a lift that names another, or that nobody may sign.
    for (number, key) in [(5, 1), (4, 3)] {
        file.lifts = vec![lift(number, key)];
        world.observe(&file, START.plus(Seconds(2)));
        assert_eq!(world.memory.stops.len(), 1, "lifted by {number} with key {key}");
    }
    file.lifts = vec![lift(4, 1)];
    world.observe(&file, START.plus(Seconds(3)));
    assert!(world.memory.stops.is_empty());
    // An older file that still shows it does not bring it back.
    file.stops = vec![stop(4)];
    file.lifts.clear();
    world.observe(&file, START.plus(Seconds(4)));
    assert!(world.memory.stops.is_empty());
}

#[test]
fn a_stop_that_was_seen_is_not_narrowed_by_a_later_file() {
    let mut world = World::new();
    let mut file = world.file(&world.entry.clone());
    file.stops = vec![stop(4)];
    world.observe(&file, START);
    file.stops[0].scope = Scope::Product("other".parse().expect("a name"));
    world.observe(&file, START.plus(Seconds(1)));
    assert_eq!(world.memory.stops[&4].scope, Scope::Everything);
}

#[test]
fn what_was_seen_of_a_rollout_holds_after_a_file_left_it_out() {
    let mut world = World::new();
    let mut entry = world.entry.clone();
    entry.coverage = vec![Bucket(1)];
    entry.ended = Some(START);
    world.see(&entry, START);
    let mut without = world.file(&entry);
    without.rollouts.clear();
    world.observe(&without, START.plus(Seconds(20)));
    entry.ended = None;
    entry.coverage = vec![Bucket(2)];
    world.see(&entry, START.plus(Seconds(40)));
    assert_eq!(world.verify(&entry), Err(PaceError::CoverageLost));
    assert_eq!(world.memory.rollouts[&entry.rollout].ended, Some(START));
    assert_eq!(world.last_not_open("dogfood"), START.plus(Seconds(20)), "left out is not open");
}

#[test]
fn only_so_many_rollouts_are_remembered_after_they_left_the_file() {
    let mut world = World::new();
    world.see(&world.entry.clone(), START);
    let known = world.memory.rollouts[&world.entry.rollout].clone();
    for number in 0..200 {
        let first_seen = START.plus(Seconds(number.into()));
        let old = RolloutMemory { first_seen, ..known.clone() };
        world.memory.rollouts.insert(RolloutId([number; 32]), old);
    }
    world.see(&world.entry.clone(), START.plus(Seconds(300)));
    assert_eq!(world.memory.rollouts.len(), LEFT_OUT + 1);
    assert!(world.memory.rollouts.contains_key(&RolloutId([199; 32])), "the newest stay");
}

#[test]
fn a_rollout_is_complete_only_after_the_last_bake_that_the_device_itself_saw() {
    let mut world = World::new();
    let mut entry = world.entry.clone();
    let mut last = open("general", 60, Limit::EVERYBODY);
    last.full = Some(START.plus(Seconds(60)));
    entry.stages.push(last);
    world.memory.observe_none(START.plus(Seconds(100)));
    world.see(&entry, START.plus(Seconds(130)));
    let verified = world.verify(&entry).expect("agrees");
    let memory = world.memory.rollouts[&entry.rollout].clone();
    let complete = |at: u64| verified.complete(&world.manifest, &memory, START.plus(Seconds(at)));
    assert!(!complete(159));
    assert!(complete(160));
    let with = |change: &dyn Fn(&mut OpenStage)| {
        let mut entry = entry.clone();
        entry.stages.iter_mut().skip(1).for_each(change);
        let verified = world.verify(&entry).expect("agrees");
        verified.complete(&world.manifest, &memory, START.plus(Seconds(160)))
    };
    assert!(with(&|_| {}));
    assert!(!with(&|last| last.limit = Limit(u32::MAX - 1)), "not open to everybody");
    assert!(!with(&|last| last.full = Some(START.plus(Seconds(101)))), "not baked since full");
    assert!(!with(&|last| last.full = None));
}

pub(crate) const START: Moment = Moment(1_790_000_000);

/// A policy, a signed release and a rollout of it whose first stage is open.
pub(crate) struct World {
    pub(crate) policy: Policy,
    pub(crate) manifest: Manifest,
    pub(crate) digest: Digest,
    pub(crate) entry: RolloutEntry,
    pub(crate) memory: Memory,
    pub(crate) facts: Facts,
}

impl World {
    pub(crate) fn new() -> Self {
        let manifest = manifest();
        let digest = Digest::of(b"the manifest's bytes");
        let start = Start {
            repository: repository(),
            product: manifest.product.clone(),
            channel: "stable".parse().expect("a name"),
            version: manifest.version.clone(),
            manifest: digest,
            moment: START,
            cohorts: manifest
                .ladder
                .stages
                .iter()
                .map(|stage| CohortSize { cohort: stage.cohort.clone(), devices: 10 })
                .collect(),
            owner: "ben".parse().expect("a name"),
            risk: RiskClass::Routine,
            plan: Digest::of(b"plan"),
        };
        let rollout = start.rollout();
        let mut signed = SignedAct::unsigned(&Act::Start(start)).expect("an act");
        signed.sign(&acts::key(1));
        let entry = RolloutEntry {
            rollout,
            start: signed,
            approvals: Vec::new(),
            stages: vec![open("dogfood", 0, Limit::EVERYBODY)],
            groups: Vec::new(),
            known: crate::group::KnownGroups::default(),
            coverage: Vec::new(),
            complete: None,
            ended: None,
        };
        let facts = Facts { vendor: "Acme".into(), model: "Slate".into(), ..Facts::default() };
        Self { policy: acts::policy(1), manifest, digest, entry, memory: Memory::default(), facts }
    }

    pub(crate) fn verify(&self, entry: &RolloutEntry) -> Result<VerifiedRollout, PaceError> {
        let memory = self.memory.rollouts.get(&entry.rollout);
        verify(entry, &self.policy, &self.manifest, &self.digest, memory)
    }

    pub(crate) fn see(&mut self, entry: &RolloutEntry, now: Moment) {
        let file = self.file(entry);
        self.observe(&file, now);
    }

    fn observe(&mut self, file: &RolloutFile, now: Moment) {
        let cohort = |_: &Start| "general".parse().expect("a name");
        let sight = Sight { facts: &self.facts, habit: Habit::Unknown, cohort: &cohort, now };
        self.memory.observe(file, &self.policy, &sight);
        let manifests = BTreeMap::from([(self.digest, self.manifest.clone())]);
        self.memory.believe(file, &self.policy, &manifests);
    }

    pub(crate) fn file(&self, entry: &RolloutEntry) -> RolloutFile {
        RolloutFile {
            repository: repository(),
            product: "app".parse::<ProductId>().expect("a name"),
            model: ModelId::of_hardware("Acme", "Slate"),
            issued: START,
            letters_offset: 10,
            rollouts: vec![entry.clone()],
            stops: Vec::new(),
            lifts: Vec::new(),
        }
    }

    fn last_not_open(&self, cohort: &str) -> Moment {
        let cohort: CohortId = cohort.parse().expect("a name");
        self.memory.rollouts[&self.entry.rollout].last_not_open[&cohort]
    }
}

pub(crate) fn open(cohort: &str, after: u64, limit: Limit) -> OpenStage {
    OpenStage {
        cohort: cohort.parse().expect("a name"),
        opened: START.plus(Seconds(after)),
        limit,
        full: None,
        groups: Vec::new(),
    }
}

fn approval(rollout: RolloutId, stage: u16) -> SignedAct {
    let act = Act::Approve(Approval {
        repository: repository(),
        rollout,
        manifest: Digest::of(b"the manifest's bytes"),
        stage,
        cohort: "dogfood".parse().expect("a name"),
    });
    let mut signed = SignedAct::unsigned(&act).expect("an act");
    signed.sign(&acts::key(1));
    signed
}

fn lift(number: u64, key: u8) -> SignedAct {
    let act = Act::Lift(Lift {
        repository: repository(),
        numbers: [number].into(),
        reason: "looked into it".into(),
    });
    let mut signed = SignedAct::unsigned(&act).expect("an act");
    signed.sign(&acts::key(key));
    signed
}

fn stop(number: u64) -> Stop {
    Stop {
        number,
        kind: StopKind::Pause,
        scope: Scope::Everything,
        since: START,
        reason: "drill".into(),
    }
}

fn repository() -> RepositoryId {
    "trial".parse().expect("a name")
}
