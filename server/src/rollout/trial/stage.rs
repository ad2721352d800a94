//! A stage's trial among real devices: which letters say what, how time passes, what of it stands in the
//! rollout file. It passes on and translates; what follows is decided beside it.
//!
//! Time is what was *listened*, in slots: while the gatekeeper hears nobody, nobody falls silent.

use std::{cmp::Reverse, collections::BTreeMap};

use lockgate_shared::{
    bucket::{Bucket, Limit},
    count::count,
    group::{Group as Words, Habit},
    id::{CohortId, DeviceId, Digest, GroupId, RolloutId, TenantId},
    rollout::{GroupLimit, Scope},
    terms::TrialTerms,
    time::Seconds,
};
use serde::{Deserialize, Serialize};

use super::{
    BEFORE, Letter, Trial,
    clock::Phase,
    judge::{Hold, Verdict},
    room::Guard,
    roster::{Device, FLEET, Group, Likeness, Member, Noise, Roster, Tenant, ZONES},
    terms::Terms,
};
use crate::status::{COVERED, CoverageGuard, CoverageStatus, GroupCoverage};

/// One stage's trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageTrial {
    /// Sorted: a device's place is its number in the roster.
    ids: Vec<DeviceId>,
    trial: Trial,
    /// What had been listened when it began.
    since: Seconds,
    slot_s: Seconds,
    open_at: u32,
    min_devices: u32,
    /// Slots that were gone through.
    slots: u32,
    /// Holds that stand as numbered stops.
    told: usize,
    zones: Vec<String>,
    /// Which devices are heard in every hour in which they are there: the absence of others says nothing.
    watched: Vec<bool>,
    #[serde(skip)]
    unsaved: Unsaved,
}

/// A device that takes part.
#[derive(Clone, Debug)]
pub struct Entrant {
    /// Which.
    pub device: DeviceId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its bucket.
    pub bucket: Bucket,
    /// Its groups, with their words.
    pub groups: Vec<Words>,
    /// Its habit.
    pub habit: Habit,
    /// Its time zone.
    pub zone: String,
    /// What is known of its model.
    pub noise: Noise,
    /// In which of the last hours it was heard: the highest bit is the last one. Nothing where a slot is
    /// no hour.
    pub history: u128,
    /// Whether it is heard in every hour in which it is there.
    pub watched: bool,
}

/// When a letter was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Age {
    /// Lately: its device lives.
    Fresh,
    /// Nobody knows.
    Late,
}

/// What a store does not have yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Unsaved {
    /// Everything.
    #[default]
    Whole,
    /// These letters.
    Letters(Vec<(Device, Letter, Age)>),
}

/// The hour numbers that a trial can go through: nobody waits for centuries.
const SLOTS: u32 = 1 << 24;

impl StageTrial {
    /// A trial among these devices, sorted by id. `salt` is of the rollout and the stage.
    pub fn new(
        terms: &TrialTerms,
        ceiling_ppm: u32,
        entrants: Vec<Entrant>,
        salt: Digest,
        listened: Seconds,
    ) -> Self {
        debug_assert!(entrants.is_sorted_by(|a, b| a.device < b.device));
        let zones = zones(&entrants);
        let mut kinds: Vec<Likeness> = Vec::new();
        let mut alike: BTreeMap<Vec<GroupId>, u32> = BTreeMap::new();
        let mut members = Vec::with_capacity(entrants.len());
        for entrant in &entrants {
            let groups: Vec<GroupId> = entrant.groups.iter().map(|group| group.id).collect();
            let kind = *alike.entry(groups).or_insert_with(|| {
                kinds.push(likeness(&zones, entrant));
                count_u32(kinds.len()) - 1
            });
            members.push(Member { kind, bucket: entrant.bucket });
        }
        let (tenants, names) = tenants(&entrants);
        let roster = Roster::new(kinds, members).belongs(tenants, names);
        let mut trial = Trial::new(Terms::of(terms, ceiling_ppm), roster, salt);
        for (device, entrant) in (0..).zip(&entrants) {
            trial.recall(device, entrant.history);
        }
        trial.begin_hour(BEFORE);
        Self {
            ids: entrants.iter().map(|entrant| entrant.device).collect(),
            trial,
            since: listened,
            slot_s: terms.slot_s,
            open_at: terms.open_at,
            min_devices: terms.min_devices,
            slots: 0,
            told: 0,
            zones,
            watched: entrants.iter().map(|entrant| entrant.watched).collect(),
            unsaved: Unsaved::Whole,
        }
    }

    /// Whether a device takes part.
    pub fn has(&self, device: &DeviceId) -> bool {
        self.number(device).is_some()
    }

    fn number(&self, device: &DeviceId) -> Option<Device> {
        self.ids.binary_search(device).ok().map(count_u32)
    }

    fn is_watched(&self, device: Device) -> bool {
        self.watched.get(device as usize) == Some(&true)
    }

    /// Takes in what a device's letter says.
    pub fn hear(&mut self, device: &DeviceId, letter: Letter, age: Age) {
        let Some(device) = self.number(device) else { return };
        let letter = match letter {
            // Who is there often unheard takes part in no lot.
            Letter::AtRisk if !self.is_watched(device) => Letter::Kept,
            Letter::Begins if !self.is_watched(device) => Letter::BeginsApart,
            Letter::AtRisk
            | Letter::Kept
            | Letter::Begins
            | Letter::BeginsApart
            | Letter::On
            | Letter::Healthy
            | Letter::Failed(_)
            | Letter::Nothing => letter,
        };
        self.take(device, letter, age);
        match &mut self.unsaved {
            Unsaved::Whole => {}
            Unsaved::Letters(letters) => letters.push((device, letter, age)),
        }
    }

    fn take(&mut self, device: Device, letter: Letter, age: Age) {
        match age {
            Age::Fresh => self.trial.letter(device, letter),
            Age::Late => self.trial.late(device, letter),
        }
    }

    /// The device's first letter: its groups are what it says.
    pub fn meet(&mut self, entrant: &Entrant) {
        let Some(device) = self.number(&entrant.device) else { return };
        let groups: Vec<GroupId> = entrant.groups.iter().map(|group| group.id).collect();
        if !self.trial.roster().is_like(device, &groups) {
            self.trial.resettle(device, likeness(&self.zones, entrant));
            self.unsaved = Unsaved::Whole;
        }
    }

    /// Time passes; limits, draws and the verdict follow.
    pub fn pass(&mut self, listened: Seconds) {
        let due = listened.0.saturating_sub(self.since.0) / self.slot_s.0.max(1);
        let due = u32::try_from(due).unwrap_or(SLOTS).min(SLOTS);
        while self.slots < due {
            self.slots += 1;
            self.trial.begin_hour(BEFORE + self.slots);
            self.unsaved = Unsaved::Whole;
        }
        self.look();
    }

    /// Time stands still: while people stopped it, no slot passes.
    pub fn stand(&mut self, listened: Seconds) {
        self.since = Seconds(listened.0.saturating_sub(u64::from(self.slots) * self.slot_s.0));
        self.look();
    }

    /// Whether everybody was let in so many slots ago.
    pub fn is_over(&self, slots: u32) -> bool {
        self.trial.phase() == Phase::Open && self.slots > self.open_at + slots
    }

    /// Looks at what was reported, as often as one likes.
    pub fn look(&mut self) {
        let before = (self.trial.holds().len(), *self.trial.verdict());
        self.trial.look();
        if before != (self.trial.holds().len(), *self.trial.verdict()) {
            self.unsaved = Unsaved::Whole;
        }
    }

    /// People lifted a stop: see [`Trial::forgive`].
    pub fn forgive(&mut self, only: Option<&[GroupId]>) {
        self.trial.forgive(only);
        self.told = self.trial.holds().len();
        self.unsaved = Unsaved::Whole;
    }

    /// People lifted the hold of a tenant: see [`Trial::forgive_tenant`].
    pub fn forgive_tenant(&mut self, tenant: &TenantId) {
        self.trial.forgive_tenant(tenant.as_str());
        self.unsaved = Unsaved::Whole;
    }

    /// People waived a group's own proof.
    pub fn waive(&mut self, group: &GroupId) {
        self.trial.waive(group);
        self.unsaved = Unsaved::Whole;
    }

    /// How far the stage is open.
    pub const fn limit(&self) -> Limit {
        self.trial.fleet_limit()
    }

    /// Groups that are open less far.
    pub fn groups(&self) -> Vec<GroupLimit> {
        let narrower = self.trial.narrower().into_iter();
        narrower.map(|(group, limit)| GroupLimit { group, limit }).collect()
    }

    /// Exact buckets that are let in.
    pub fn coverage(&self) -> Vec<Bucket> {
        let devices = &self.trial.roster().devices;
        self.trial.drawn().filter_map(|device| Some(devices.get(device as usize)?.bucket)).collect()
    }

    /// How many devices are let in, whether they came or not.
    pub fn authorised(&self) -> u32 {
        let all = 0..self.trial.roster().len();
        count_u32(all.filter(|device| self.trial.has_let_in(*device)).count())
    }

    /// The trial itself.
    pub const fn trial(&self) -> &Trial {
        &self.trial
    }

    /// The next hold that stands as no numbered stop yet, with what it stops in this rollout.
    pub fn untold(&self, rollout: RolloutId) -> Option<(&Hold, Scope)> {
        let hold = self.trial.holds().get(self.told)?;
        let roster = self.trial.roster();
        if let Some(tenant) = hold.tenant {
            let name = roster.tenants().get(usize::from(tenant))?;
            return Some((hold, Scope::Tenant(name.parse().ok()?)));
        }
        let entry = roster.groups.get(hold.group as usize)?;
        Some((hold, Scope::Groups(rollout, vec![entry.id])))
    }

    /// The hold was numbered.
    pub fn tell(&mut self) {
        self.told += 1;
        self.unsaved = Unsaved::Whole;
    }

    /// What halts it, in a sentence.
    pub fn halt(&self) -> Option<&str> {
        match self.trial.verdict() {
            Verdict::Halt => {
                Some(self.trial.holds().last().map_or("it is over", |hold| hold.sentence.as_str()))
            }
            Verdict::Open | Verdict::Wait => None,
        }
    }

    /// How it stands, in sentences.
    pub fn report(&self, cohort: &CohortId) -> Vec<String> {
        let tally = self.trial.tally(FLEET);
        let phase = self.phase().name();
        let mut lines = vec![format!(
            "`{cohort}`: {phase}, slot {:.0} of {}: {} of {} let in, {} well, {} failed",
            self.trial.clock().hours(),
            self.open_at,
            tally.begun,
            count(self.trial.roster().len(), "device", "devices"),
            tally.healthy,
            tally.failed
        )];
        lines.extend(self.trial.why_waiting().map(|wait| wait.to_string()));
        lines.extend(self.trial.holds().iter().map(|hold| hold.sentence.clone()));
        lines
    }

    /// The coverage matrix: the groups of `least` devices and more, as many as a report carries.
    pub fn coverage_of(&self, cohort: &CohortId, least: u32) -> CoverageStatus {
        let roster = self.trial.roster();
        let numbers = (FLEET + 1..count_u32(roster.groups.len()))
            .filter(|group| roster.groups.get(*group as usize).is_some_and(|g| g.size >= least));
        let mut groups: Vec<GroupCoverage> =
            numbers.filter_map(|group| self.group_coverage(group)).collect();
        let without = count_u32(groups.iter().filter(|group| group.is_bare()).count());
        // What is missing is what people look for: it never makes room for what is there.
        groups.sort_by_key(|group| (!group.is_bare(), Reverse(group.devices), group.group));
        let left_out = count_u32(groups.len().saturating_sub(COVERED));
        groups.truncate(COVERED);
        groups.sort_by_key(|group| (Reverse(group.devices), group.group));
        CoverageStatus {
            cohort: cohort.clone(),
            phase: self.phase().name().to_owned(),
            devices: roster.len(),
            group_least: least,
            groups,
            left_out,
            without,
        }
    }

    fn group_coverage(&self, group: Group) -> Option<GroupCoverage> {
        let entry = self.trial.roster().groups.get(group as usize)?;
        let tally = self.trial.tally(group);
        let stage = self.trial.fleet_limit();
        let (guard, limit) = match self.trial.guard(group) {
            Guard::Own => (CoverageGuard::Own, stage.min(Limit(tally.limit))),
            Guard::Fleet => (CoverageGuard::Stage, stage),
            Guard::Held => (CoverageGuard::Held, Limit::NOBODY),
        };
        Some(GroupCoverage {
            group: entry.id,
            kind: entry.kind,
            label: entry.label.clone(),
            devices: entry.size,
            named: tally.drawn,
            begun: tally.begun,
            well: tally.healthy,
            soaked: tally.soaked,
            failed: tally.failed,
            limit,
            guard,
        })
    }

    /// The step inside the stage.
    pub fn phase(&self) -> Phase {
        self.trial.phase()
    }

    /// What keeps the next stage from opening, apart from bake and ceiling.
    pub fn missing(&self, cohort: &CohortId, waived: Option<u32>) -> Vec<String> {
        let tally = self.trial.tally(FLEET);
        let asked = waived.unwrap_or(self.min_devices).min(tally.begun.max(1));
        let narrower = self.trial.narrower().len();
        let mut missing = Vec::new();
        if tally.healthy < asked {
            missing.push(format!("{} of {asked} devices in `{cohort}` confirmed", tally.healthy));
        }
        if narrower > 0 {
            missing.push(format!(
                "{} of `{cohort}` earned less than the others",
                count(count_u32(narrower), "group", "groups")
            ));
        }
        missing
    }

    /// What a store does not have yet; from now on it has it.
    pub fn take_unsaved(&mut self) -> Unsaved {
        std::mem::replace(&mut self.unsaved, Unsaved::Letters(Vec::new()))
    }

    /// Takes in letters that a store kept beside the whole.
    pub fn replay(&mut self, letters: &[(Device, Letter, Age)]) {
        for (device, letter, age) in letters {
            if (*device as usize) < self.ids.len() {
                self.take(*device, *letter, *age);
            }
        }
    }

    /// The store has all of it.
    pub fn saved(&mut self) {
        self.unsaved = Unsaved::Letters(Vec::new());
    }
}

/// Each device's tenant by its place among the names.
fn tenants(entrants: &[Entrant]) -> (Vec<Tenant>, Vec<String>) {
    let mut names: Vec<&str> = entrants.iter().map(|entrant| entrant.tenant.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let place = |entrant: &Entrant| names.binary_search(&entrant.tenant.as_str()).unwrap_or(0);
    let of = |entrant| Tenant::try_from(place(entrant)).unwrap_or(Tenant::MAX);
    let tenants = entrants.iter().map(of).collect();
    (tenants, names.into_iter().map(ToOwned::to_owned).collect())
}

/// The time zones that are told apart: the most common ones.
fn zones(entrants: &[Entrant]) -> Vec<String> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for entrant in entrants {
        *counts.entry(&entrant.zone).or_default() += 1;
    }
    let mut zones: Vec<(&str, u32)> = counts.into_iter().collect();
    zones.sort_by_key(|(_, devices)| std::cmp::Reverse(*devices));
    zones.into_iter().take(usize::from(ZONES)).map(|(zone, _)| zone.to_owned()).collect()
}

fn likeness(zones: &[String], entrant: &Entrant) -> Likeness {
    let zone = zones.iter().position(|zone| *zone == entrant.zone);
    Likeness {
        groups: entrant
            .groups
            .iter()
            .map(|group| (group.id, group.kind, group.label.clone()))
            .collect(),
        habit: entrant.habit,
        zone: zone.and_then(|zone| u8::try_from(zone).ok()).unwrap_or(ZONES - 1),
        noise: entrant.noise,
    }
}

fn count_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
