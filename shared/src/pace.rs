//! The signed pace: what a device checks for itself before it believes that a rollout is open to it.
//!
//! [`verify`] turns a rollout file's entry into a [`VerifiedRollout`], or says what in it contradicts
//! what people signed. [`Memory`] is what the device saw with its own eyes: when it last saw a stage
//! not open (bakes count from there), which stops it saw (they bind until a lift names them), which
//! coverage list (it may only grow). Nothing here reads a clock or a file.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    act::{Act, SignedAct, Start},
    bucket::{Bucket, Limit},
    facts::Facts,
    gather::gather,
    group::{Habit, groups_of},
    id::{CohortId, Digest, GroupId, RolloutId},
    limits,
    manifest::{Manifest, StageApproval},
    policy::Policy,
    rollout::{OpenStage, RolloutEntry, RolloutFile, Stop},
    time::{Moment, Seconds},
};

/// What a device remembers of the rollouts of one product.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// When it last read a rollout file of this product, or learnt that there is none.
    pub last_refresh: Option<Moment>,
    /// The rollouts it has seen. A list in JSON, because a rollout's id is no JSON key in every
    /// language.
    pub rollouts: BTreeMap<RolloutId, RolloutMemory>,
    /// Stops it has seen and no lift has named.
    pub stops: BTreeMap<u64, Stop>,
    /// Numbers that a lift has named: they stay lifted even if an older file shows them again.
    pub lifted: BTreeSet<u64>,
}

/// What a device remembers of one rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutMemory {
    /// When it first saw it.
    pub first_seen: Moment,
    /// Its groups then: the update itself may change OS or firmware.
    pub groups: Vec<GroupId>,
    /// Its habit then.
    pub habit: Habit,
    /// Its cohort then: a grant is good for rollouts first seen after it.
    pub cohort: CohortId,
    /// The journal offset of its first letter that named this rollout, once acknowledged. The
    /// answer that told it is signed by nobody.
    pub first_letter: Option<u64>,
    /// What the rollout file counted in which it first saw this rollout: its first letter came later.
    #[serde(default)]
    pub first_offset: u64,
    /// For each stage of the ladder: its last refresh in which that stage was not open.
    pub last_not_open: BTreeMap<CohortId, Moment>,
    /// The longest coverage list it saw in an entry that agreed with what people signed.
    pub coverage: Vec<Bucket>,
    /// The highest limit it saw for each cohort: a limit never falls back, except to a stop.
    pub limits: BTreeMap<CohortId, Limit>,
    /// When it saw that the rollout was ended: for good, whatever a later file says.
    #[serde(default)]
    pub ended: Option<Moment>,
}

/// Rollouts that are remembered after they left the file: a file that leaves one out and shows it
/// again must not make a device forget its end or its coverage list. As many as two files hold.
const LEFT_OUT: usize = 2 * limits::FILE_ROLLOUTS;

/// An entry that agrees with everything people signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRollout {
    start: Start,
    entry: RolloutEntry,
}

/// What contradicts what people signed. A device refuses the entry, names the reason and goes on with
/// the others.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PaceError {
    /// The start is not signed as the policy asks.
    #[error("its start does not count: {0}")]
    Start(String),
    /// The entry's start is another act.
    #[error("its start is not the start of this rollout and product")]
    OtherStart,
    /// The manifest's bytes are not those that the start names.
    #[error("its manifest is not the one that its start names")]
    OtherManifest,
    /// The start names other cohorts than the ladder, or in another order.
    #[error("its start names other cohorts than the ladder")]
    Cohorts,
    /// Stages are not a beginning of the ladder's.
    #[error("its stages are not opened in the ladder's order")]
    Order,
    /// A stage opened before its floor.
    #[error("stage `{cohort}` was opened before its floor {floor}")]
    Floor {
        /// The stage.
        cohort: CohortId,
        /// The earliest moment.
        floor: Moment,
    },
    /// A stage opened before the one before it had baked.
    #[error("stage `{cohort}` was opened before the stage before it had baked")]
    Bake {
        /// The stage.
        cohort: CohortId,
    },
    /// A limit above the ladder's ceiling.
    #[error("stage `{cohort}` has a limit above its ceiling")]
    Ceiling {
        /// The stage.
        cohort: CohortId,
    },
    /// A stage without the approval it needs.
    #[error("stage `{cohort}` needs an approval that is missing")]
    Approval {
        /// The stage.
        cohort: CohortId,
    },
    /// The coverage list is longer than the ladder allows.
    #[error("its coverage list has {found} entries, the ladder allows {allowed}")]
    CoverageTooLong {
        /// Entries.
        found: usize,
        /// Allowed.
        allowed: usize,
    },
    /// The coverage list lost an entry that the device has seen.
    #[error("its coverage list lost an entry")]
    CoverageLost,
}

/// Checks an entry against policy, manifest and what the device saw. `manifest_digest` is of the very
/// bytes that `manifest` was read from.
pub fn verify(
    entry: &RolloutEntry,
    policy: &Policy,
    manifest: &Manifest,
    manifest_digest: &Digest,
    memory: Option<&RolloutMemory>,
) -> Result<VerifiedRollout, PaceError> {
    let start = verify_start(entry, policy)?;
    if start.product != manifest.product || start.version != manifest.version {
        return Err(PaceError::OtherStart);
    }
    if start.manifest != *manifest_digest {
        return Err(PaceError::OtherManifest);
    }
    let ladder = &manifest.ladder;
    let named: Vec<_> = start.cohorts.iter().map(|size| &size.cohort).collect();
    let stages: Vec<_> = ladder.stages.iter().map(|stage| &stage.cohort).collect();
    if named != stages {
        return Err(PaceError::Cohorts);
    }
    verify_stages(entry, &start, policy, manifest)?;
    let allowed = usize::from(ladder.coverage_max).min(limits::COVERAGE);
    if entry.coverage.len() > allowed {
        return Err(PaceError::CoverageTooLong { found: entry.coverage.len(), allowed });
    }
    if let Some(memory) = memory
        && !memory.coverage.iter().all(|bucket| entry.coverage.contains(bucket))
    {
        return Err(PaceError::CoverageLost);
    }
    Ok(VerifiedRollout { start, entry: entry.clone() })
}

/// Checks the start's signatures alone and that it belongs to this entry: enough to know which
/// manifest to fetch.
pub fn verify_start(entry: &RolloutEntry, policy: &Policy) -> Result<Start, PaceError> {
    let verified =
        entry.start.verify(policy).map_err(|error| PaceError::Start(error.to_string()))?;
    let Act::Start(start) = verified.act() else { return Err(PaceError::OtherStart) };
    if start.rollout() != entry.rollout {
        return Err(PaceError::OtherStart);
    }
    Ok(start.clone())
}

fn verify_stages(
    entry: &RolloutEntry,
    start: &Start,
    policy: &Policy,
    manifest: &Manifest,
) -> Result<(), PaceError> {
    let stages = &manifest.ladder.stages;
    if entry.stages.len() > stages.len() {
        return Err(PaceError::Order);
    }
    let mut before: Option<(&OpenStage, Seconds)> = None;
    for (index, (open, signed)) in entry.stages.iter().zip(stages).enumerate() {
        let cohort = signed.cohort.clone();
        if open.cohort != signed.cohort {
            return Err(PaceError::Order);
        }
        let floor = start.moment.plus(signed.floor_s);
        if open.opened < floor {
            return Err(PaceError::Floor { cohort, floor });
        }
        if let Some((previous, bake)) = before
            && open.opened < previous.opened.plus(bake)
        {
            return Err(PaceError::Bake { cohort });
        }
        if open.limit > Limit::of_share_ppm(signed.ceiling_ppm) {
            return Err(PaceError::Ceiling { cohort });
        }
        match signed.approval {
            StageApproval::None => {}
            StageApproval::Required if approved(entry, policy, index) => {}
            StageApproval::Required => return Err(PaceError::Approval { cohort }),
        }
        before = Some((open, signed.bake_s));
    }
    Ok(())
}

/// Whether the entry carries an approval of the ladder's stage `index` that the policy accepts.
pub fn approved(entry: &RolloutEntry, policy: &Policy, index: usize) -> bool {
    entry.approvals.iter().filter_map(|act| act.verify(policy).ok()).any(|act| match act.act() {
        Act::Approve(approval) => {
            approval.rollout == entry.rollout && usize::from(approval.stage) == index
        }
        Act::Start(_) | Act::Lift(_) | Act::Waive(_) | Act::Grant(_) => false,
    })
}

impl VerifiedRollout {
    /// The signed start.
    pub const fn start(&self) -> &Start {
        &self.start
    }

    /// The entry that agrees with it.
    pub const fn entry(&self) -> &RolloutEntry {
        &self.entry
    }

    /// Whether it is complete by what the device itself saw: the last stage is open to everybody and
    /// that stage's bake has passed since the device's last refresh in which it was not.
    pub fn complete(&self, manifest: &Manifest, memory: &RolloutMemory, now: Moment) -> bool {
        let Some(last) = manifest.ladder.stages.last() else { return false };
        let Some(open) = self.entry.stages.iter().find(|stage| stage.cohort == last.cohort) else {
            return false;
        };
        let Some(full) = open.full else { return false };
        open.limit == Limit::EVERYBODY
            && full.plus(last.bake_s) <= now
            && memory
                .last_not_open
                .get(&last.cohort)
                .is_none_or(|moment| moment.plus(last.bake_s) <= now)
    }
}

impl Memory {
    /// Takes in a rollout file that the TUF client verified: remembers what is new, and which of its
    /// stages were not open at this refresh. `cohort` is the device's place for rollouts it sees for
    /// the first time.
    ///
    /// An unseen rollout counts as not open: so a stage that is open already at first sight is
    /// remembered as last not open at the refresh before this one, or at this one without any before.
    pub fn observe(&mut self, file: &RolloutFile, policy: &Policy, device: &Sight<'_>) {
        let before = self.last_refresh.unwrap_or(device.now);
        for entry in &file.rollouts {
            let Ok(start) = verify_start(entry, policy) else { continue };
            let known = self.rollouts.entry(entry.rollout).or_insert_with(|| RolloutMemory {
                first_seen: device.now,
                groups: groups_of(device.facts, device.habit).iter().map(|g| g.id).collect(),
                habit: device.habit,
                cohort: (device.cohort)(&start),
                first_letter: None,
                first_offset: file.letters_offset,
                last_not_open: gather(
                    start.cohorts.iter().map(|size| (size.cohort.clone(), before)),
                ),
                coverage: Vec::new(),
                limits: BTreeMap::new(),
                ended: None,
            });
            known.see(entry, &start, device.now);
        }
        let listed: BTreeSet<RolloutId> = gather(file.rollouts.iter().map(|entry| entry.rollout));
        self.leave_out(&listed, device.now);
        self.lift(&file.lifts, policy);
        for stop in &file.stops {
            if !self.lifted.contains(&stop.number) {
                // What a number stands for is fixed when it is first seen: a file that shows the same
                // number with a narrower scope would lift it without anybody's signature.
                self.stops.entry(stop.number).or_insert_with(|| stop.clone());
            }
        }
        self.last_refresh = Some(device.now);
    }

    /// Remembers the coverage lists of those entries that agree with what people signed. A list that
    /// was refused binds nobody: else whoever once signed too long a one would shut the rollout for
    /// good, also after his keys were replaced.
    pub fn believe(
        &mut self,
        file: &RolloutFile,
        policy: &Policy,
        manifests: &BTreeMap<Digest, Manifest>,
    ) {
        for entry in &file.rollouts {
            let Some(known) = self.rollouts.get_mut(&entry.rollout) else { continue };
            let Ok(start) = verify_start(entry, policy) else { continue };
            let Some(manifest) = manifests.get(&start.manifest) else { continue };
            if verify(entry, policy, manifest, &start.manifest, Some(known)).is_ok() {
                known.coverage.clone_from(&entry.coverage);
            }
        }
    }

    /// Notes a refresh in which there was no rollout file for this device.
    pub const fn observe_none(&mut self, now: Moment) {
        self.last_refresh = Some(now);
    }

    /// What a file does not list counts as not open, and is forgotten when newer ones need the room.
    fn leave_out(&mut self, listed: &BTreeSet<RolloutId>, now: Moment) {
        let mut left: Vec<(Moment, RolloutId)> = Vec::new();
        for (rollout, known) in &mut self.rollouts {
            if !listed.contains(rollout) {
                known.last_not_open.values_mut().for_each(|moment| *moment = now);
                left.push((known.first_seen, *rollout));
            }
        }
        left.sort_unstable();
        for (_, oldest) in left.iter().take(left.len().saturating_sub(LEFT_OUT)) {
            self.rollouts.remove(oldest);
        }
    }

    fn lift(&mut self, lifts: &[SignedAct], policy: &Policy) {
        for lift in lifts.iter().filter_map(|act| act.verify(policy).ok()) {
            if let Act::Lift(lift) = lift.act() {
                for number in &lift.numbers {
                    self.stops.remove(number);
                    self.lifted.insert(*number);
                }
            }
        }
    }
}

/// With whose eyes a rollout file is seen.
pub struct Sight<'a> {
    /// The device's facts now.
    pub facts: &'a Facts,
    /// Its habit now.
    pub habit: Habit,
    /// Its cohort for a rollout that it sees for the first time.
    pub cohort: &'a dyn Fn(&Start) -> CohortId,
    /// The moment.
    pub now: Moment,
}

impl RolloutMemory {
    fn see(&mut self, entry: &RolloutEntry, start: &Start, now: Moment) {
        let opened = entry.stages.iter().filter(|stage| stage.limit > Limit::NOBODY);
        let open: BTreeSet<&CohortId> = gather(opened.map(|stage| &stage.cohort));
        for size in &start.cohorts {
            if !open.contains(&size.cohort) {
                self.last_not_open.insert(size.cohort.clone(), now);
            }
        }
        for stage in &entry.stages {
            let highest = self.limits.entry(stage.cohort.clone()).or_insert(Limit::NOBODY);
            *highest = (*highest).max(stage.limit);
        }
        if let Some(ended) = entry.ended {
            self.ended.get_or_insert(ended);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
