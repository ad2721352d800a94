//! The trials of open stages in the book: who takes part, which letters they hear, and the rows that keep
//! them over a restart. What follows from them is [`crate::rollout::trial`]'s to say.
//!
//! A trial is written whole when a slot is over, and in between only the letters since: a restart reads
//! the whole and hears those letters again.

use std::collections::BTreeMap;

use lockgate_shared::{
    bucket::Bucket,
    eligibility::Reason,
    group::{Group, GroupKind, Habit, groups_of},
    id::{CohortId, DeviceId, Digest, GroupId, RolloutId},
    manifest::Gate,
    policy::Policy,
    time::{Moment, Seconds},
    wire::{CodecError, Letter, OutcomeKind, RolloutView, codec},
};

use super::book::{Book, BookError, Device};
use crate::{
    gatekeeper_store::{GatekeeperStore, Table, Write},
    rollout::{
        Rollout,
        trial::{
            self,
            roster::{Noise, expected},
            stage::{Age, Entrant, StageTrial, Unsaved},
        },
    },
    stream::{watch_place, watched_below},
};

/// The longest row of a trial.
const CHUNK: usize = 8 << 20;
/// The largest trial: some hundred bytes for each of ten million devices.
const TRIAL: usize = 1 << 30;
/// Rows of letters beside a whole trial, at most: then it is written whole, whatever the slot.
const LETTER_ROWS: u64 = 2_000;
/// The slot for which the book remembers when devices were heard.
const HOUR: Seconds = Seconds(3_600);
/// Slots after the last opening during which a trial is listened to: the last look takes so long.
const AFTER: u32 = 100;

/// Which rows a trial has in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    chunks: u32,
    letters: u64,
}

/// Which trial: its rollout, and its stage's place.
pub(super) type Key = (RolloutId, usize);

impl Book {
    /// Begins the trial of a stage that has just opened, if it is to be one.
    pub(super) fn begin_trial(
        &mut self,
        id: &RolloutId,
        index: usize,
        policy: &Policy,
        listened: Seconds,
        now: Moment,
    ) {
        let Some(rollout) = self.rollouts.get(id) else { return };
        let Some(stage) = rollout.ladder.stages.get(index) else { return };
        let Gate::Trial(terms) = &stage.gate else { return };
        let entrants = self.entrants(rollout, &stage.cohort, terms.slot_s, policy, now);
        let salt = Digest::of_parts(
            "lockgate trial v1",
            &[&id.0, &u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes()],
        );
        let trial = StageTrial::new(terms, stage.ceiling_ppm, entrants, salt, listened);
        if let Some(rollout) = self.rollout_mut(id) {
            rollout.trials.insert(index, trial);
            rollout.coverage_grows();
        }
    }

    /// The devices of a cohort that enrolled before the start and were heard of lately, as they are known.
    fn entrants(
        &self,
        rollout: &Rollout,
        cohort: &CohortId,
        slot: Seconds,
        policy: &Policy,
        now: Moment,
    ) -> Vec<Entrant> {
        let mut known: BTreeMap<GroupId, Noise> = BTreeMap::new();
        let watched = watched_below(self.devices_count());
        let start = &rollout.start;
        let mut entrants = Vec::new();
        for (id, device) in self.expected_in(rollout, cohort, policy, now) {
            let case = rollout.evidence.case(id);
            let habit = case.map_or(device.habit, |case| habit_of(&case.groups));
            let mut groups = groups_of(&device.facts, habit);
            if let Some(case) = case {
                groups = self.words_of(&case.groups, groups);
            }
            entrants.push(Entrant {
                device: *id,
                tenant: device.tenant.clone(),
                bucket: Bucket::of(&start.manifest, &start.channel, id),
                noise: hardware(&groups).map_or_else(Noise::default, |model| {
                    *known.entry(model).or_insert_with(|| self.noise(&model, rollout.id))
                }),
                groups,
                habit,
                zone: device.facts.time_zone.clone(),
                history: if slot == HOUR { device.presence.before(now) } else { 0 },
                watched: watch_place(id) <= watched,
            });
        }
        entrants
    }

    /// Signed groups with their words: the device's own where they still are the same.
    fn words_of(&self, signed: &[GroupId], own: Vec<Group>) -> Vec<Group> {
        let words = |(place, id): (usize, &GroupId)| {
            let own = own.get(place).filter(|group| group.id == *id);
            own.cloned().unwrap_or_else(|| Group {
                id: *id,
                kind: GroupKind::ALL.get(place).copied().unwrap_or(GroupKind::Fleet),
                label: self.labels.get(id).map(|label| label.words.clone()).unwrap_or_default(),
            })
        };
        signed.iter().enumerate().map(words).collect()
    }

    /// What is to be expected of the devices of a model after what complete rollouts did to them.
    fn noise(&self, model: &GroupId, but: RolloutId) -> Noise {
        let (failed, installs) = self.past(model, Some(but));
        let share = expected(failed, installs);
        Noise { prompt: share, late: share }
    }

    /// Failures of a model's devices in complete rollouts, which were not the releases', and installs.
    pub(super) fn past(&self, model: &GroupId, but: Option<RolloutId>) -> (u32, u32) {
        let complete = self
            .rollouts
            .values()
            .filter(|rollout| Some(rollout.id) != but && rollout.complete.is_some());
        let tallies = complete.filter_map(|rollout| rollout.evidence.groups().get(model));
        tallies.fold((0_u32, 0_u32), |(failed, installs), tally| {
            (failed.saturating_add(tally.harmed), installs.saturating_add(tally.treated))
        })
    }

    /// The first letter of a device about a rollout says in which groups it is.
    pub(super) fn meet_trial(&mut self, view: &RolloutView, device: &Device, id: &DeviceId) {
        let Some(rollout) = self.rollouts.get(&view.rollout) else { return };
        if rollout.trials.is_empty() {
            return;
        }
        let groups = self.words_of(&view.groups, groups_of(&device.facts, view.habit));
        let entrant = Entrant {
            device: *id,
            tenant: device.tenant.clone(),
            bucket: view.bucket,
            noise: hardware(&groups)
                .map_or_else(Noise::default, |model| self.noise(&model, view.rollout)),
            groups,
            habit: view.habit,
            zone: device.facts.time_zone.clone(),
            history: 0,
            watched: false,
        };
        if let Some(trial) = self.trial_of(&view.rollout, &view.cohort) {
            trial.meet(&entrant);
        }
    }

    /// What a letter says of one rollout.
    pub(super) fn view_in_trial(&mut self, view: &RolloutView, id: &DeviceId, age: Age) {
        let Some(trial) = self.trial_of(&view.rollout, &view.cohort) else { return };
        let bucket_alone = !view.reasons.is_empty()
            && view.reasons.iter().all(|reason| reason.code == Reason::ABOVE_LIMIT);
        let word = match (view.treated, bucket_alone) {
            (true, _) => trial::Letter::Begins,
            (false, true) => trial::Letter::AtRisk,
            (false, false) => trial::Letter::Kept,
        };
        trial.hear(id, word, age);
    }

    /// A letter is a sign of life for every trial, whatever it is about.
    pub(super) fn lives_in_trials(&mut self, letter: &Letter) {
        for rollout in self.rollouts.values_mut().filter(|rollout| !rollout.trials.is_empty()) {
            for trial in rollout.trials.values_mut() {
                trial.hear(&letter.device, trial::Letter::On, Age::Fresh);
            }
        }
    }

    /// An outcome.
    pub(super) fn outcome_in_trial(
        &mut self,
        rollout: &RolloutId,
        id: &DeviceId,
        kind: OutcomeKind,
        age: Age,
    ) {
        let word = match kind {
            OutcomeKind::Confirmed => trial::Letter::Healthy,
            OutcomeKind::RolledBack => trial::Letter::Failed(None),
            OutcomeKind::Failed | OutcomeKind::Inconclusive => trial::Letter::Nothing,
        };
        let Some(rollout) = self.rollouts.get_mut(rollout) else { return };
        for trial in rollout.trials.values_mut() {
            trial.hear(id, word, age);
        }
    }

    /// Time passes for a rollout's trials, where it does not stand still.
    pub(super) fn pass_trials(&mut self, id: &RolloutId, listened: Seconds) {
        let stops: Vec<_> = self.stops.values().map(|stop| stop.scope.clone()).collect();
        let Some(rollout) = self.rollouts.get_mut(id) else { return };
        let stopped =
            rollout.ended.is_some() || stops.iter().any(|scope| rollout.is_stopped_by(scope));
        for trial in rollout.trials.values_mut() {
            if stopped {
                trial.stand(listened);
            } else {
                trial.pass(listened);
            }
        }
        let over = |trial: &StageTrial| trial.is_over(AFTER);
        let done = rollout.ended.is_some()
            || rollout.complete.is_some() && rollout.trials.values().all(over);
        let grew = rollout.coverage_grows();
        if done {
            rollout.trials.clear();
        }
        if grew {
            self.rollout_mut(id);
        }
    }

    /// Looks at what was reported since.
    pub(super) fn look_at_trials(&mut self, id: &RolloutId) {
        let Some(rollout) = self.rollouts.get_mut(id) else { return };
        rollout.trials.values_mut().for_each(StageTrial::look);
    }

    fn trial_of(&mut self, rollout: &RolloutId, cohort: &CohortId) -> Option<&mut StageTrial> {
        let rollout = self.rollouts.get_mut(rollout)?;
        let place = rollout.ladder.stages.iter().position(|stage| stage.cohort == *cohort)?;
        rollout.trials.get_mut(&place)
    }

    /// The rows of what changed in trials.
    pub(super) fn trial_writes(&mut self, writes: &mut Vec<Write>) -> Result<(), BookError> {
        for (id, rollout) in &mut self.rollouts {
            for (index, trial) in &mut rollout.trials {
                let rows = self.trial_rows.entry((*id, *index)).or_default();
                write_trial((*id, *index), trial, rows, writes)?;
            }
        }
        let rollouts = &self.rollouts;
        self.trial_rows.retain(|key, rows| {
            let stays = rollouts.get(&key.0).is_some_and(|r| r.trials.contains_key(&key.1));
            if !stays {
                remove(*key, rows, 0, writes);
            }
            stays
        });
        Ok(())
    }

    /// Reads every trial that a store keeps.
    pub(super) fn read_trials(&mut self, store: &GatekeeperStore) -> Result<(), BookError> {
        let mut wholes: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
        let mut letters: BTreeMap<Key, Vec<Vec<u8>>> = BTreeMap::new();
        for (key, row) in store.table(Table::Trials)? {
            let Some((id, rest)) = key.split_first_chunk::<32>() else { continue };
            let Some(([a, b, part], _)) = rest.split_first_chunk::<3>() else { continue };
            let trial = (RolloutId(*id), usize::from(u16::from_be_bytes([*a, *b])));
            let rows = self.trial_rows.entry(trial).or_default();
            if *part == WHOLE {
                rows.chunks += 1;
                wholes.entry(trial).or_default().extend(row);
            } else {
                rows.letters += 1;
                letters.entry(trial).or_default().push(row);
            }
        }
        for ((id, index), whole) in wholes {
            let Some(rollout) = self.rollouts.get_mut(&id) else { continue };
            let mut trial: StageTrial = codec::decode_stored(&whole, TRIAL)?;
            for row in letters.remove(&(id, index)).unwrap_or_default() {
                trial.replay(&codec::decode_stored::<Vec<_>>(&row, CHUNK)?);
            }
            trial.saved();
            rollout.trials.insert(index, trial);
        }
        Ok(())
    }
}

/// What kind of row it is: a part of the whole, or letters beside it.
const WHOLE: u8 = 0;
const LETTERS: u8 = 1;

fn row_key((id, index): Key, part: u8, number: u64) -> Vec<u8> {
    let index = u16::try_from(index).unwrap_or(u16::MAX);
    [&id.0[..], &index.to_be_bytes(), &[part], &number.to_be_bytes()].concat()
}

fn write_trial(
    key: Key,
    trial: &mut StageTrial,
    rows: &mut Rows,
    writes: &mut Vec<Write>,
) -> Result<(), CodecError> {
    let letters = match trial.take_unsaved() {
        Unsaved::Letters(letters) if letters.is_empty() => return Ok(()),
        Unsaved::Letters(letters) if rows.letters < LETTER_ROWS => letters,
        Unsaved::Letters(_) | Unsaved::Whole => {
            let whole = codec::encode(&*trial, TRIAL)?;
            let chunks = whole.chunks(CHUNK);
            let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
            for (number, chunk) in (0..).zip(chunks) {
                writes.push(Write::put(Table::Trials, row_key(key, WHOLE, number), chunk.to_vec()));
            }
            remove(key, rows, count, writes);
            *rows = Rows { chunks: count, letters: 0 };
            return Ok(());
        }
    };
    let row = codec::encode(&letters, CHUNK)?;
    writes.push(Write::put(Table::Trials, row_key(key, LETTERS, rows.letters), row));
    rows.letters += 1;
    Ok(())
}

/// Removes a trial's letters, and the parts of it from `keep` on.
fn remove(key: Key, rows: &Rows, keep: u32, writes: &mut Vec<Write>) {
    let chunks = (u64::from(keep)..u64::from(rows.chunks)).map(|number| (WHOLE, number));
    for (part, number) in chunks.chain((0..rows.letters).map(|number| (LETTERS, number))) {
        writes.push(Write::remove(Table::Trials, row_key(key, part, number)));
    }
}

/// The group of a device's model.
fn hardware(groups: &[Group]) -> Option<GroupId> {
    groups.iter().find(|group| group.kind == GroupKind::Hardware).map(|group| group.id)
}

/// The habit that signed groups tell.
fn habit_of(groups: &[GroupId]) -> Habit {
    let place = GroupKind::ALL.iter().position(|kind| *kind == GroupKind::Habit);
    let signed = place.and_then(|place| groups.get(place));
    let all = [Habit::AlwaysOn, Habit::Office, Habit::Home, Habit::Duty, Habit::Unknown];
    let told = |habit: &Habit| {
        let own = groups_of(&Default::default(), *habit);
        own.iter().any(|group| group.kind == GroupKind::Habit && Some(&group.id) == signed)
    };
    all.into_iter().find(told).unwrap_or_default()
}
