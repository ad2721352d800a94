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
//! | what people read | [`words`] |
//!
//! The engine does not ask it yet. It would have to bring: a [`roster::Roster`] from its device table at
//! the start (groups and habit as first signed); for each letter whether the bucket was the one open
//! question, which devices compute (`Answer::bucket_alone`) and have to sign; [`roster::expected`] noise per
//! model from earlier outcomes; and, from what is decided here, the narrower limits by group and the
//! coverage list of the rollout file, and holds as numbered stops. A device may install below the smallest
//! limit of its groups, or when its bucket is on the list: both are in the file's format already.
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
mod steps;
pub mod terms;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

use lockgate_shared::{bucket::Limit, id::Digest};

use self::{
    clock::Clock,
    coverage::{Draw, Poll},
    heard::Heard,
    looks::{Arm, Silence, Word},
    lots::{Lot, Lots},
    reports::{Part, Reports},
    room::{Guard, Tally},
    roster::{Device, FLEET, Group, Roster},
    terms::Terms,
};

/// Hours that are heard before a rollout starts, so that everybody's day is known.
pub const BEFORE: u32 = 30;

/// Devices that are watched one by one for whether they are still there: the first ones.
const EARLY: usize = 20_000;

/// One stage's trial.
#[derive(Clone, Debug)]
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
    /// What silent devices said.
    words: Vec<Word>,
    /// Hours and places of failures: what fails together in one place is one surprise.
    places: BTreeSet<(u32, u32)>,
    wealth: Vec<f64>,
    /// How many groups each level has, for the sharing of the error.
    levels: [u32; 4],
    peak: f64,
    holds: Vec<judge::Hold>,
    waited: u32,
    verdict: judge::Verdict,
}

/// What is known of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Case {
    /// Its limit at its previous poll in the risk set.
    before: u32,
    /// The hour in which it began.
    begun: u32,
    state: State,
}

/// How a device fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter {
    /// It waits, and only its bucket keeps it back.
    AtRisk,
    /// It waits, and something else keeps it back as well or alone.
    Kept,
    /// It begins.
    Begins,
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
            words: Vec::new(),
            places: BTreeSet::new(),
            peak: 1.0,
            holds: Vec::new(),
            waited: 0,
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

    /// Takes in a letter.
    pub fn letter(&mut self, device: Device, letter: Letter) {
        self.heard.note(device, self.hour);
        match letter {
            Letter::AtRisk => self.at_risk(device, Arm::Control),
            Letter::Begins => {
                self.at_risk(device, Arm::Treated);
                self.begin(device);
            }
            Letter::Kept => self.candidate(device, Poll::Kept),
            Letter::On => self.age(device),
            Letter::Healthy => self.healthy(device),
            Letter::Failed(place) => self.failed(device, place),
            Letter::Nothing => self.count(device, State::Nothing, |tally| tally.resolved += 1),
        }
    }

    /// The published limit of a device's kind and whether it is chosen by name.
    pub fn is_chosen(&self, device: Device) -> bool {
        self.cases[device as usize].state == State::Drawn
    }

    /// Whether a device's group is held.
    pub fn is_held(&self, device: Device) -> bool {
        self.roster
            .groups_of(device)
            .iter()
            .any(|group| self.guards[*group as usize] == Guard::Held)
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

    fn at_risk(&mut self, device: Device, arm: Arm) {
        self.candidate(device, Poll::AtRisk);
        let limit = self.limits[self.roster.devices[device as usize].kind as usize];
        let case = &mut self.cases[device as usize];
        if case.state != State::Waiting || limit <= case.before {
            return;
        }
        let lot = Lot { device, before: case.before, limit, arm };
        case.before = limit;
        self.lots.add(lot, scatter(device, self.hour));
    }

    fn candidate(&mut self, device: Device, poll: Poll) {
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

    fn healthy(&mut self, device: Device) {
        if self.cases[device as usize].state != State::Begun {
            return;
        }
        self.count(device, State::Healthy, |tally| {
            tally.healthy += 1;
            tally.resolved += 1;
        });
        let (groups, change) = (*self.roster.groups_of(device), reports::healthy());
        self.reports.add(&groups, Part::Trial, &change);
        self.reports.add(&groups, Part::Soak, &change);
    }

    fn failed(&mut self, device: Device, place: Option<u32>) {
        let state = self.cases[device as usize].state;
        let part = match state {
            State::Begun => Part::Trial,
            State::Healthy | State::Soaked => Part::Soak,
            State::Waiting | State::Drawn | State::Failed | State::Nothing => return,
        };
        self.count(device, State::Failed, |tally| {
            tally.failed += 1;
            match part {
                Part::Trial => tally.resolved += 1,
                // It was counted among the healthy, and earned room that it does not deserve.
                Part::Soak => tally.healthy = tally.healthy.saturating_sub(1),
            }
            if state == State::Soaked {
                tally.soaked = tally.soaked.saturating_sub(1);
            }
        });
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
