//! The gate as a randomised trial: a rollout's stage as plain data that takes in letters and says, once
//! an hour, how far it is open and why. Pure: hours are arguments, chance is the rollout's own hash.
//!
//! | where is it decided … | open |
//! |---|---|
//! | which hours, counts and shares there are | [`terms`] |
//! | who takes part, in which groups | [`roster`] |
//! | how far the fleet may be open by now | [`clock`] |
//! | how far each group is | [`room`] |
//! | who is let in by name | [`coverage`] |
//! | what an explicit report is worth | [`reports`] |
//! | what silence is worth | [`looks`], [`lots`] |
//! | which group explains it, what is held | [`judge`] |
//! | what makes it wait, and for what | [`waits`] |
//! | what people read | [`words`] |
//! | what real devices say, and what they are told | [`stage`] |
//!
//! [`stage`] is where it meets real devices: their ids and groups, time in slots of listening, and what of
//! it stands in the rollout file. A device may install below the smallest limit of its groups, or when its
//! bucket is on the coverage list.
//!
//! A letter costs a bounded number of steps; an hour costs steps in the number of groups, kinds and
//! sampled lots, and one walk over the fleet while draws are wanted.

pub mod clock;
pub mod coverage;
mod evidence;
pub mod heard;
pub mod judge;
pub mod looks;
pub mod lots;
pub mod reports;
pub mod room;
pub mod roster;
pub mod stage;
mod steps;
pub mod terms;
pub mod waits;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

use lockgate_shared::{
    bucket::Limit,
    id::{Digest, GroupId},
};
use serde::{Deserialize, Serialize};

use self::{
    clock::Clock,
    coverage::{Draw, Poll},
    heard::Heard,
    looks::{Arm, Silence, Word},
    lots::{Lot, Lots},
    reports::{Part, Reports},
    room::{Guard, Tally},
    roster::{Device, FLEET, Group, Likeness, Roster, Tenant},
    terms::Terms,
};

/// Hours that are heard before a rollout starts, so that everybody's day is known.
pub const BEFORE: u32 = 30;

/// Devices that are watched one by one for whether they are still there: the first ones.
const EARLY: usize = 20_000;

/// One stage's trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    terms: Terms,
    roster: Roster,
    salt: Digest,
    clock: Clock,
    hour: u32,
    cases: Vec<Case>,
    heard: Heard,
    guards: Vec<Guard>,
    tallies: Vec<Tally>,
    /// Devices let in, in this order: as many as are watched one by one.
    early: Vec<Device>,
    /// Devices of every kind.
    sizes: Vec<u32>,
    /// The effective limit of every kind.
    limits: Vec<u32>,
    fleet_limit: u32,
    lots: Lots,
    draws: Vec<Draw>,
    /// Which draws a device is a candidate of.
    candidates: BTreeMap<Device, Vec<u32>>,
    drawn: u32,
    reports: Reports,
    silence: Silence,
    /// Failures: whose, when, how surprising.
    failures: Vec<(Device, Part, f64)>,
    /// The hour in which a device that had been well last failed.
    late: u32,
    /// What silent devices said.
    words: Vec<Word>,
    /// Hours and places of failures: what fails together in one place is one surprise.
    places: BTreeSet<(u32, u32)>,
    wealth: Vec<f64>,
    /// How many groups each level has, for the sharing of the error.
    levels: [u32; 4],
    /// Groups were added since guards were last set.
    regrouped: bool,
    peak: f64,
    holds: Vec<judge::Hold>,
    held_tenants: BTreeSet<Tenant>,
    waited: u32,
    /// The last of the hours that were waited.
    waiting_since: u32,
    verdict: judge::Verdict,
}

/// What is known of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Case {
    /// Its limit at its previous poll in the risk set.
    before: u32,
    /// The hour in which it began.
    begun: u32,
    state: State,
    /// It is a candidate of a draw that is not over: see [`Trial::candidates`].
    candidate: bool,
    /// The spans of the time after its trial that it paid for, by [`reports::SPANS`]: from this one …
    from: u8,
    /// … to before this one.
    to: u8,
}

/// How a device fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum State {
    #[default]
    Waiting,
    /// On the coverage list.
    Drawn,
    /// Began.
    Begun,
    /// Reported itself well.
    Healthy,
    /// Was well at the age of a soak.
    Soaked,
    /// Failed.
    Failed,
    /// Came to nothing before activation.
    Nothing,
}

/// What a letter says of the device in this rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Letter {
    /// Only its bucket keeps it back: a lot that it lost, if what is published opened further since it
    /// last asked.
    AtRisk,
    /// It waits, and something else keeps it back as well or alone.
    Kept,
    /// It was let in: nothing kept it back, so the first of these is a lot that it won. A device says so
    /// before it activates, and never that it was at risk a moment ago.
    Begins,
    /// It was let in, and that is no lot: nobody would notice its absence.
    BeginsApart,
    /// It has begun, and says nothing new.
    On,
    /// Its trial ended well.
    Healthy,
    /// It failed or went back, at this place (a network or site; nothing if that is not known).
    Failed(Option<u32>),
    /// The install came to nothing before activation.
    Nothing,
}

impl Trial {
    /// A trial that nobody has written to yet. Its first hour is 0; the first devices are let in when
    /// [`Self::begin_hour`] is asked for an hour from [`BEFORE`] on.
    pub fn new(terms: Terms, roster: Roster, salt: Digest) -> Self {
        let groups = roster.groups.len();
        let mut sizes = vec![0; roster.kinds.len()];
        for member in &roster.devices {
            sizes[member.kind as usize] += 1;
        }
        Self {
            guards: room::guards(&roster, &terms),
            levels: judge::levels(&roster),
            regrouped: false,
            tallies: vec![Tally::default(); groups],
            early: Vec::new(),
            sizes,
            limits: vec![Limit::NOBODY.0; roster.kinds.len()],
            cases: vec![Case::default(); roster.devices.len()],
            heard: Heard::new(roster.len()),
            reports: Reports::new(groups),
            silence: Silence::new(groups),
            wealth: vec![1.0; groups],
            terms,
            roster,
            salt,
            clock: Clock::default(),
            hour: 0,
            fleet_limit: Limit::NOBODY.0,
            lots: Lots::default(),
            draws: Vec::new(),
            candidates: BTreeMap::new(),
            drawn: 0,
            failures: Vec::new(),
            late: 0,
            words: Vec::new(),
            places: BTreeSet::new(),
            peak: 1.0,
            holds: Vec::new(),
            held_tenants: BTreeSet::new(),
            waited: 0,
            waiting_since: 0,
            verdict: judge::Verdict::Open,
        }
    }

    /// Whether a device may install by what is published now: the device asks the same of the signed
    /// file.
    pub fn admits(&self, device: Device) -> bool {
        let member = self.roster.devices[device as usize];
        match self.verdict {
            judge::Verdict::Halt => return false,
            judge::Verdict::Open | judge::Verdict::Wait => {}
        }
        if self.is_tenant_held(device) {
            return false;
        }
        match self.cases[device as usize].state {
            State::Drawn => !self.is_held(device),
            State::Waiting
            | State::Begun
            | State::Healthy
            | State::Soaked
            | State::Failed
            | State::Nothing => Limit(self.limits[member.kind as usize]).admits(member.bucket),
        }
    }

    /// Whether a device is or was let in: it may install now, or has begun.
    pub fn has_let_in(&self, device: Device) -> bool {
        match self.cases[device as usize].state {
            State::Waiting | State::Drawn => self.admits(device),
            State::Begun | State::Healthy | State::Soaked | State::Failed | State::Nothing => true,
        }
    }

    /// Takes in news of long ago: no sign of life, and good for nothing but harm.
    pub fn late(&mut self, device: Device, letter: Letter) {
        match letter {
            Letter::Begins | Letter::BeginsApart => self.begin(device),
            Letter::Failed(place) => self.failed(device, place),
            Letter::AtRisk | Letter::Kept | Letter::On | Letter::Healthy | Letter::Nothing => {}
        }
    }

    /// Takes in a letter.
    pub fn letter(&mut self, device: Device, letter: Letter) {
        self.heard.note(device, self.hour);
        match letter {
            Letter::AtRisk => self.at_risk(device),
            Letter::Begins => self.let_in(device),
            Letter::BeginsApart => {
                self.candidate(device, Poll::Kept);
                self.begin(device);
            }
            Letter::Kept => self.candidate(device, Poll::Kept),
            Letter::On => self.age(device),
            Letter::Healthy => self.healthy(device),
            Letter::Failed(place) => self.failed(device, place),
            Letter::Nothing => self.came_to_nothing(device),
        }
    }

    /// Remembers what was heard of a device before the trial: its highest bit is the hour before the first.
    pub fn recall(&mut self, device: Device, history: u128) {
        self.heard.recall(device, history, BEFORE);
    }

    /// The device's first letter names other groups than were expected of it: those count, unless it has
    /// taken part in a lot already.
    pub fn resettle(&mut self, device: Device, likeness: Likeness) {
        let case = self.cases[device as usize];
        if case.state != State::Waiting || case.before > 0 || case.candidate {
            return;
        }
        let before = self.roster.devices[device as usize].kind as usize;
        self.roster.resettle(device, likeness);
        let (groups, kinds) = (self.roster.groups.len(), self.roster.kinds.len());
        self.regrouped |= self.guards.len() < groups;
        self.guards.resize(groups, Guard::Fleet);
        self.tallies.resize(groups, Tally::default());
        self.wealth.resize(groups, 1.0);
        self.reports.grow(groups);
        self.silence.grow(groups);
        self.sizes.resize(kinds, 0);
        let after = self.roster.devices[device as usize].kind as usize;
        self.sizes[before] -= 1;
        self.sizes[after] += 1;
        if self.limits.len() < kinds {
            self.limits.push(self.limit_of(after));
        }
    }

    /// Groups that have become large enough get a limit of their own: as far as their devices are let in
    /// already, because a limit never falls.
    fn regroup(&mut self) {
        if !std::mem::take(&mut self.regrouped) {
            return;
        }
        for (level, now) in self.levels.iter_mut().zip(judge::levels(&self.roster)) {
            *level = now.max(*level);
        }
        let guards = room::guards(&self.roster, &self.terms);
        let mut reached = vec![Limit::NOBODY.0; guards.len()];
        for (kind, limit) in self.roster.kinds.iter().zip(&self.limits) {
            for group in kind.groups {
                reached[group as usize] = reached[group as usize].max(*limit);
            }
        }
        for (group, guard) in guards.into_iter().enumerate() {
            if self.guards[group] == Guard::Fleet && guard == Guard::Own {
                self.guards[group] = Guard::Own;
                self.tallies[group].limit = reached[group];
            }
        }
    }

    /// People looked at what was held and let it go on: what is known by now holds nothing any more. All
    /// groups, or these.
    pub fn forgive(&mut self, only: Option<&[GroupId]>) {
        let groups: Vec<Group> = match only {
            Some(ids) => ids.iter().filter_map(|id| self.roster.number(id)).collect(),
            None => (0..self.roster.groups.len() as Group).collect(),
        };
        let roster = &self.roster;
        let forgiven =
            |device: Device| roster.groups_of(device).iter().any(|group| groups.contains(group));
        self.failures.retain(|(device, ..)| !forgiven(*device));
        self.words.retain(|word| !forgiven(word.device));
        let guards = room::guards(&self.roster, &self.terms);
        for group in groups {
            self.reports.forget(group);
            self.silence.forget(group);
            self.wealth[group as usize] = 1.0;
            if self.guards[group as usize] == Guard::Held {
                self.guards[group as usize] = guards[group as usize];
            }
        }
        if only.is_none() {
            self.held_tenants.clear();
        }
        self.waited = 0;
        self.verdict = judge::Verdict::Open;
        self.narrow_held();
    }

    /// People looked at a tenant that was held alone, and let it go on: what its devices said left the
    /// evidence when it was held, and its failures are forgotten.
    pub fn forgive_tenant(&mut self, name: &str) {
        let Some(tenant) = self.roster.tenants().iter().position(|tenant| tenant == name) else {
            return;
        };
        let other = |device: Device| usize::from(self.roster.tenant(device)) != tenant;
        self.failures.retain(|(device, ..)| other(*device));
        self.words.retain(|word| other(word.device));
        self.held_tenants.retain(|held| usize::from(*held) != tenant);
    }

    /// A signed waiver: the group widens with the fleet, without having shown anything of its own.
    pub fn waive(&mut self, group: &GroupId) {
        if let Some(group) = self.roster.number(group)
            && self.guards[group as usize] == Guard::Own
        {
            self.guards[group as usize] = Guard::Fleet;
        }
    }

    /// How far the stage is open to devices without a narrower group.
    pub const fn fleet_limit(&self) -> Limit {
        Limit(self.fleet_limit)
    }

    /// The limits of groups that are narrower than the stage's, sorted by id.
    pub fn narrower(&self) -> Vec<(GroupId, Limit)> {
        let mut narrower: Vec<(GroupId, Limit)> = (self.roster.groups.iter())
            .zip(self.guards.iter().zip(&self.tallies))
            .filter_map(|(entry, (guard, tally))| match guard {
                Guard::Own => {
                    (tally.limit < self.fleet_limit).then_some((entry.id, Limit(tally.limit)))
                }
                Guard::Fleet => None,
                Guard::Held => Some((entry.id, Limit::NOBODY)),
            })
            .collect();
        narrower.sort_unstable();
        narrower
    }

    /// Who is let in by name, in the order in which they were drawn.
    pub fn drawn(&self) -> impl Iterator<Item = Device> {
        self.draws.iter().map(|draw| draw.chosen)
    }

    /// The published limit of a device's kind and whether it is chosen by name.
    pub fn is_chosen(&self, device: Device) -> bool {
        self.cases[device as usize].state == State::Drawn
    }

    /// Whether a device's group is held.
    pub fn is_held(&self, device: Device) -> bool {
        let held = |group: &Group| self.guards[*group as usize] == Guard::Held;
        self.roster.groups_of(device).iter().any(held) || self.is_tenant_held(device)
    }

    /// Whether a device's tenant is held.
    fn is_tenant_held(&self, device: Device) -> bool {
        !self.held_tenants.is_empty() && self.held_tenants.contains(&self.roster.tenant(device))
    }

    /// Whether everything that is not held is open to everybody, and no look at silence is to come: from
    /// now on only the word that a device failed changes anything.
    pub fn is_settled(&self) -> bool {
        let open = |(guard, tally): (&Guard, &Tally)| match guard {
            Guard::Own => tally.limit >= self.fleet_limit,
            Guard::Fleet | Guard::Held => true,
        };
        let treated = |batch: &lots::Batch| batch.lots.iter().all(|lot| lot.arm == Arm::Treated);
        self.fleet_limit == Limit::EVERYBODY.0
            && self.guards.iter().zip(&self.tallies).all(open)
            && self.draws.iter().all(|draw| draw.closes(looks::LOOKS.len() - 1) < self.hour)
            && self.lots.all().all(treated)
    }

    /// The clock.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The devices and groups.
    pub const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// A group's counters.
    pub fn tally(&self, group: Group) -> &Tally {
        &self.tallies[group as usize]
    }

    /// How a group is guarded.
    pub fn guard(&self, group: Group) -> Guard {
        self.guards[group as usize]
    }

    /// Groups' evidence, by number, as of the last hour.
    pub fn wealth(&self) -> &[f64] {
        &self.wealth
    }

    /// The highest evidence that any group ever had, times what it weighs among all: under a harmless
    /// release it passes `x` with a chance of at most `1/x`.
    pub const fn peak(&self) -> f64 {
        self.peak
    }

    /// What is held, and why.
    pub fn holds(&self) -> &[judge::Hold] {
        &self.holds
    }

    /// The verdict.
    pub const fn verdict(&self) -> &judge::Verdict {
        &self.verdict
    }

    /// Bytes that one device costs.
    pub const fn bytes_per_device() -> usize {
        size_of::<Case>() + size_of::<u128>() + size_of::<roster::Member>()
    }

    fn at_risk(&mut self, device: Device) {
        self.candidate(device, Poll::AtRisk);
        let member = self.roster.devices[device as usize];
        let limit = self.limits[member.kind as usize];
        let arm = if Limit(limit).admits(member.bucket) { Arm::Treated } else { Arm::Control };
        let case = &mut self.cases[device as usize];
        // Who won a lot and had not read so yet draws no second one.
        let won = Limit(case.before).admits(member.bucket);
        if case.state != State::Waiting || limit <= case.before || won {
            return;
        }
        let lot = Lot { device, before: case.before, limit, arm };
        case.before = limit;
        self.lots.add(lot, scatter(device, self.hour));
    }

    /// Whoever is let in drew the same lot as those who are kept back by nothing but their bucket.
    fn let_in(&mut self, device: Device) {
        match self.cases[device as usize].state {
            State::Waiting | State::Drawn => self.at_risk(device),
            State::Begun | State::Healthy | State::Soaked | State::Failed | State::Nothing => {}
        }
        self.begin(device);
    }

    fn candidate(&mut self, device: Device, poll: Poll) {
        if !self.cases[device as usize].candidate {
            return;
        }
        let Some(draws) = self.candidates.get(&device) else { return };
        for draw in draws {
            if let Some(draw) = self.draws.get_mut(*draw as usize) {
                draw.heard(device, self.hour, poll);
            }
        }
        let (hour, all) = (self.hour, &self.draws);
        let over =
            |draw: &u32| all.get(*draw as usize).is_none_or(|draw| draw.hour + draw.within < hour);
        if draws.iter().all(over) {
            self.candidates.remove(&device);
            self.cases[device as usize].candidate = false;
        }
    }

    fn begin(&mut self, device: Device) {
        let (state, hour) = (self.cases[device as usize].state, self.hour);
        if !matches!(state, State::Waiting | State::Drawn) {
            return;
        }
        self.cases[device as usize].begun = hour;
        if self.early.len() < EARLY {
            self.early.push(device);
        }
        self.count(device, State::Begun, |tally| {
            tally.begun += 1;
            tally.last = hour;
            if state == State::Drawn {
                tally.pending = tally.pending.saturating_sub(1);
            }
        });
    }

    /// An install that came to nothing takes no room, and says nothing on health.
    fn came_to_nothing(&mut self, device: Device) {
        self.begin(device);
        if self.cases[device as usize].state == State::Begun {
            self.count(device, State::Nothing, |tally| tally.resolved += 1);
        }
    }

    fn healthy(&mut self, device: Device) {
        self.begin(device);
        if self.cases[device as usize].state != State::Begun {
            return;
        }
        self.count(device, State::Healthy, |tally| {
            tally.healthy += 1;
            tally.resolved += 1;
        });
        if self.is_held(device) {
            return;
        }
        let groups = *self.roster.groups_of(device);
        self.reports.add(&groups, Part::Trial, &reports::healthy());
        self.pay(device);
    }

    /// A device that is well pays for the spans of its life up to now. Not for those before it was heard
    /// to be well: they are over.
    fn pay(&mut self, device: Device) {
        let case = &mut self.cases[device as usize];
        let now = reports::span(self.hour.saturating_sub(case.begun));
        let due = if case.to == 0 { now } else { case.to }..now + 1;
        if case.to == 0 {
            case.from = now;
        }
        case.to = now + 1;
        let groups = *self.roster.groups_of(device);
        for span in due {
            self.reports.add(&groups, Part::Soak(span), &reports::healthy());
        }
    }

    /// Whoever enters another span of the time after its trial pays for it, heard or not.
    fn grow_older(&mut self) {
        let mut counts: BTreeMap<(u32, u8), u32> = BTreeMap::new();
        let held: Vec<bool> = self.guards.iter().map(|guard| *guard == Guard::Held).collect();
        for (case, member) in self.cases.iter_mut().zip(&self.roster.devices) {
            let well = matches!(case.state, State::Healthy | State::Soaked) && case.to > 0;
            let Some(from) = reports::SPANS.get(usize::from(case.to)).filter(|_| well) else {
                continue;
            };
            let groups = &self.roster.kinds[member.kind as usize].groups;
            if self.hour >= case.begun + from && !groups.iter().any(|group| held[*group as usize]) {
                *counts.entry((member.kind, case.to)).or_default() += 1;
                case.to += 1;
            }
        }
        for ((kind, span), devices) in counts {
            let groups = self.roster.kinds[kind as usize].groups;
            let paid = reports::healthy().map(|log| log * f64::from(devices));
            self.reports.add(&groups, Part::Soak(span), &paid);
        }
    }

    fn failed(&mut self, device: Device, place: Option<u32>) {
        self.begin(device);
        let state = self.cases[device as usize].state;
        let part = match state {
            State::Begun => Part::Trial,
            State::Healthy | State::Soaked => Part::Soak(reports::span(
                self.hour.saturating_sub(self.cases[device as usize].begun),
            )),
            State::Waiting | State::Drawn | State::Failed | State::Nothing => return,
        };
        self.count(device, State::Failed, |tally| {
            tally.failed += 1;
            match part {
                Part::Trial => tally.resolved += 1,
                // It was counted among the healthy, and earned room that it does not deserve.
                Part::Soak(_) => tally.healthy = tally.healthy.saturating_sub(1),
            }
            if state == State::Soaked {
                tally.soaked = tally.soaked.saturating_sub(1);
            }
        });
        if self.is_held(device) {
            // What is held explains it: it is held against nobody else.
            return;
        }
        if let Part::Soak(_) = part {
            self.pay(device);
            self.late = self.hour;
        }
        if place.is_some_and(|place| !self.places.insert((self.hour, place))) {
            return;
        }
        let kind = self.roster.kind(device);
        let surprise = reports::surprise(kind.noise, part);
        let groups = kind.groups;
        self.reports.add(&groups, part, &reports::failure(surprise, part));
        self.failures.push((device, part, surprise));
    }

    /// A device that is well grows older.
    fn age(&mut self, device: Device) {
        let case = self.cases[device as usize];
        let age = self.hour.saturating_sub(case.begun);
        if case.state == State::Healthy && age >= self.terms.soak_h {
            self.count(device, State::Soaked, |tally| tally.soaked += 1);
        }
    }

    fn count(&mut self, device: Device, state: State, change: impl Fn(&mut Tally)) {
        self.cases[device as usize].state = state;
        for group in *self.roster.groups_of(device) {
            change(&mut self.tallies[group as usize]);
        }
    }

    fn fleet(&self) -> &Tally {
        &self.tallies[FLEET as usize]
    }
}

/// A number for sampling: uniform, and independent of the bucket.
fn scatter(device: Device, hour: u32) -> u32 {
    let mut x = (u64::from(hour) << 32 | u64::from(device)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 32) as u32
}

#[cfg(test)]
mod stories;
