//! A rollout in words and numbers for people. It decides nothing and reads no clock.

use std::collections::BTreeMap;

use lockgate_shared::{
    bucket::Bucket,
    group::GroupKind,
    id::GroupId,
    manifest::Gate,
    rollout::{Stop, StopKind},
};

use super::{Census, Rollout, gate::Judgement, limits};
use crate::status::{
    CoverageStatus, Decision, GroupStatus, RolloutState, RolloutStatus, StageStatus,
};

/// How many groups a report names.
const GROUPS: usize = 20;

/// The words of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// What its devices have in common.
    pub kind: GroupKind,
    /// The values.
    pub words: String,
}

/// Words of the groups that are known.
pub type Labels = BTreeMap<GroupId, Label>;

/// A rollout as it stands.
pub fn status(
    rollout: &Rollout,
    census: &Census,
    judgements: &[Judgement],
    stops: &[Stop],
    labels: &Labels,
) -> RolloutStatus {
    RolloutStatus {
        rollout: rollout.id,
        product: rollout.start.product.clone(),
        channel: rollout.start.channel.clone(),
        version: rollout.start.version.clone(),
        manifest: rollout.start.manifest,
        owner: rollout.start.owner.clone(),
        risk: rollout.start.risk,
        started: rollout.start.moment,
        state: state(rollout, stops),
        stages: stages(rollout, census, judgements),
        groups: groups(rollout, labels),
        coverage: coverage(rollout),
    }
}

/// How a rollout stands. A stop counts before completion, since people ask what holds it.
pub fn state(rollout: &Rollout, stops: &[Stop]) -> RolloutState {
    if rollout.ended.is_some() {
        return RolloutState::Ended;
    }
    let mut standing = stops.iter().filter(|stop| rollout.is_stopped_by(&stop.scope));
    if standing.clone().any(|stop| stop.kind == StopKind::Halt) {
        RolloutState::Halted
    } else if rollout.complete.is_some() {
        // What everybody may have already cannot be paused: only who has not come yet waits.
        RolloutState::Complete
    } else if standing.next().is_some() {
        RolloutState::Paused
    } else {
        RolloutState::Running
    }
}

/// What the harmed devices of a stage have in common and the others have not all, in words such as
/// `hardware Acme Slate 3`; empty when it is nothing.
pub fn common_words(rollout: &Rollout, index: usize, labels: &Labels) -> String {
    let Some(stage) = rollout.ladder.stages.get(index) else { return String::new() };
    let harmed: Vec<_> = rollout.evidence.harmed(&stage.cohort).collect();
    let Some(first) = harmed.first() else { return String::new() };
    let shared = first.groups.iter().filter(|group| {
        harmed.iter().all(|case| case.groups.contains(group))
            // A group of which somebody is well is no explanation.
            && rollout.evidence.groups().get(group).is_some_and(|tally| tally.confirmed == 0)
    });
    let telling =
        [GroupKind::Hardware, GroupKind::Firmware, GroupKind::Os, GroupKind::Configuration];
    let mut words: Vec<String> = shared
        .filter_map(|group| labels.get(group))
        .filter(|label| telling.contains(&label.kind) && !label.words.trim().is_empty())
        .map(|label| format!("{} {}", label.kind.name(), label.words))
        .collect();
    words.truncate(2);
    words.join(", ")
}

/// A halt in one sentence. `words` are what the harmed devices have in common.
pub fn halt_sentence(what: &str, words: &str, why: &str) -> String {
    if why.is_empty() {
        // A trial's sentence says it all.
        return what.to_owned();
    }
    if words.is_empty() { format!("{what}: {why}") } else { format!("{what} ({words}): {why}") }
}

fn stages(rollout: &Rollout, census: &Census, judgements: &[Judgement]) -> Vec<StageStatus> {
    let stages = rollout.ladder.stages.iter().enumerate();
    stages
        .map(|(index, stage)| {
            let tally = rollout.evidence.tally(&stage.cohort);
            let known = rollout.evidence.buckets(&stage.cohort);
            let open = rollout.steps.get(index).map(|step| &step.open);
            let table = census.get(&stage.cohort).map_or(0, |head| head.devices);
            let judgement = judgements.get(index);
            StageStatus {
                cohort: stage.cohort.clone(),
                devices: table.max(tally.devices),
                authorised: authorised(rollout, index, &known),
                treated: tally.treated,
                confirmed: tally.confirmed,
                rolled_back: tally.rolled_back,
                failed: tally.failed,
                inconclusive: tally.inconclusive,
                silent: tally.silent,
                limit: open.map(|open| open.limit),
                opened: open.map(|open| open.opened),
                full: open.and_then(|open| open.full),
                decision: judgement.map_or(Decision::Wait, |judgement| judgement.decision),
                reasons: judgement.map(|judgement| judgement.reasons.clone()).unwrap_or_default(),
            }
        })
        .collect()
}

/// How many devices a stage lets in: in a trial those below their own groups' limits, and those named.
fn authorised(rollout: &Rollout, index: usize, known: &[Bucket]) -> u32 {
    if let Some(trial) = rollout.trials.get(&index) {
        return trial.authorised();
    }
    let open = rollout.steps.get(index).map(|step| &step.open);
    open.map_or(0, |open| limits::authorised(known, open.limit))
}

/// The matrices of the stages in trial.
fn coverage(rollout: &Rollout) -> Vec<CoverageStatus> {
    let trials = rollout.trials.iter();
    trials
        .filter_map(|(index, trial)| {
            let stage = rollout.ladder.stages.get(*index)?;
            match &stage.gate {
                Gate::Trial(terms) => Some(trial.coverage_of(&stage.cohort, terms.group_least)),
                Gate::Count(_) => None,
            }
        })
        .collect()
}

fn groups(rollout: &Rollout, labels: &Labels) -> Vec<GroupStatus> {
    let mut harmed: Vec<GroupStatus> = rollout
        .evidence
        .groups()
        .iter()
        .filter(|(_, tally)| tally.harmed > 0)
        .map(|(group, tally)| GroupStatus {
            group: *group,
            label: labels
                .get(group)
                .map(|label| format!("{} {}", label.kind.name(), label.words).trim().to_owned())
                .unwrap_or_default(),
            treated: tally.treated,
            confirmed: tally.confirmed,
            harmed: tally.harmed,
        })
        .collect();
    // Worst first: the largest share of harm, compared without division, then the most devices.
    harmed.sort_by(|a, b| {
        let share = |x: &GroupStatus, y: &GroupStatus| u64::from(x.harmed) * u64::from(y.treated);
        share(b, a).cmp(&share(a, b)).then(b.harmed.cmp(&a.harmed)).then(a.group.cmp(&b.group))
    });
    harmed.truncate(GROUPS);
    harmed
}
