//! One simulated rollout, five minutes at a time: devices poll when they are on, install when the gate
//! lets them, fail as the scenario has it, and the real gate sees what they say. People consent at once
//! where a stage asks.

use std::collections::{BTreeMap, BTreeSet};

use lockgate_server::rollout::{
    self, Census, Head, Move, Rollout,
    evidence::{Sighting, Silence, Standing},
    trial::{
        self,
        clock::Phase,
        stage::{Age, Entrant, StageTrial},
    },
};
use lockgate_server::{
    preflight::{GRAIN, Question},
    status::CoverageGuard,
};
use lockgate_shared::{
    act::{Act, CohortSize, RiskClass, SignedAct, Start},
    id::{CohortId, DeviceId, Digest, TenantId},
    manifest::{Gate, Ladder, Stage, StageApproval},
    rollout::{Scope, Stop, StopKind},
    terms::TrialTerms,
    time::{Moment, Seconds},
    wire::OutcomeKind,
};

use super::{
    PlanError,
    town::{STEPS, Town, id},
};
use crate::sim::{
    TICKS_PER_HOUR,
    fate::{Install, World},
    fleet::Fleet,
    presence::{Calendar, Cut, Today},
    scenario::{How, Scenario},
};

/// A tick of the gate, and the finest poll.
const TICK: u64 = GRAIN.0;
/// Ticks that are simulated at most: two weeks, the longest schedule of a trial.
pub(super) const TICKS: u32 = 14 * 24 * TICKS_PER_HOUR;
/// A rollout is looked on for so many times what its ladder takes at least …
const PATIENCE: u64 = 2;
/// … and two days, in which what a release does late has shown.
const AFTER: Seconds = Seconds(2 * 86_400);
/// Ticks ahead that an install may end.
const AHEAD: usize = 128;
/// Hours before a trial in which its devices were heard.
const HISTORY: u32 = 60;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// Of each stage, when it opened.
    pub(super) opened: Vec<Option<Seconds>>,
    /// When its limit reached the ceiling.
    pub(super) full: Vec<Option<Seconds>>,
    /// When the rollout was complete.
    pub(super) complete: Option<Seconds>,
    /// Of each stage, devices that began in each of its steps.
    pub(super) begun: Vec<[u32; STEPS]>,
    /// Devices that began in the busiest hour.
    pub(super) busiest: u32,
    /// Devices that the release is bad for and that began.
    pub(super) harmed: u32,
    /// When something was first held or halted.
    pub(super) stopped: Option<Seconds>,
    /// Groups without a named device when a ramp began: whose, which, and how large.
    pub(super) holes: Vec<(CohortId, String, u32)>,
    /// Of each trial that never let everybody in, how it stood at the end, in sentences.
    pub(super) waits: BTreeMap<usize, Vec<String>>,
}

/// What a device has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Life {
    begun: u32,
    length: u8,
    state: State,
    hit: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    /// Installs, or is in its trial.
    Trying,
    /// Its result is known to it and not told yet.
    Knows(Health),
    /// It told it.
    Told(Health),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    Failed,
}

/// A device, where it stands.
#[derive(Clone, Copy)]
struct Seat {
    device: u32,
    stage: usize,
    /// Its number within the stage.
    place: u32,
}

/// A rollout on its way.
pub(super) struct Trip<'a> {
    question: &'a Question,
    town: &'a Town,
    scenario: &'a Scenario,
    fleet: Fleet,
    calendar: Calendar,
    rollout: Rollout,
    stops: Vec<Stop>,
    lives: Vec<Life>,
    days: Vec<Today>,
    cuts: Vec<Cut>,
    ends: Vec<Vec<Seat>>,
    /// When devices of stages that count were last heard.
    heard: BTreeMap<DeviceId, Seconds>,
    hours: Vec<u32>,
    ramped: BTreeSet<usize>,
    /// Everybody's: whose a device is, nobody was told.
    tenant: TenantId,
    tick: u32,
    outcome: Outcome,
}

impl<'a> Trip<'a> {
    /// A rollout before its start.
    pub(super) fn new(
        question: &'a Question,
        town: &'a Town,
        scenario: &'a Scenario,
        seed: u64,
    ) -> Result<Self, PlanError> {
        let fleet = town.fleet(question, scenario, seed);
        let lives = (0..town.devices())
            .map(|device| Life { hit: fleet.is_hit(device, scenario), ..Life::default() })
            .collect();
        let stages = question.ladder.stages.len();
        let mut calendar = Calendar::new(scenario.beside);
        calendar.start = start_tick(question.at);
        Ok(Self {
            rollout: rollout(question, town)?,
            days: vec![Today::default(); town.devices() as usize],
            cuts: vec![Cut::default(); fleet.sites as usize],
            stops: Vec::new(),
            lives,
            ends: vec![Vec::new(); AHEAD],
            heard: BTreeMap::new(),
            hours: vec![0; (TICKS / TICKS_PER_HOUR) as usize + 1],
            ramped: BTreeSet::new(),
            tenant: "plan".parse()?,
            tick: 0,
            outcome: Outcome {
                opened: vec![None; stages],
                full: vec![None; stages],
                begun: vec![[0; STEPS]; stages],
                ..Outcome::default()
            },
            question,
            town,
            scenario,
            fleet,
            calendar,
        })
    }

    /// Goes on until it is complete, halted, or the time is over.
    pub(super) fn go(mut self) -> Outcome {
        for tick in 0..ticks(&self.question.ladder) {
            self.tick = tick;
            for seat in std::mem::take(&mut self.ends[tick as usize % AHEAD]) {
                self.finishes(seat);
            }
            for stage in 0..self.town.members.len() {
                if self.is_listened_to(stage) {
                    self.stage_polls(stage);
                }
            }
            if self.gate() == Course::Over {
                break;
            }
            self.look_for_holes();
        }
        self.tell_waits();
        self.outcome.busiest = self.hours.iter().copied().max().unwrap_or(0);
        self.outcome
    }

    /// What the trials that are not open to everybody say of themselves.
    fn tell_waits(&mut self) {
        for (index, trial) in &self.rollout.trials {
            if trial.phase() < Phase::Open {
                let cohort = &self.question.ladder.stages[*index].cohort;
                self.outcome.waits.insert(*index, trial.report(cohort));
            }
        }
    }

    fn now(&self) -> Moment {
        self.question.at.plus(self.listened())
    }

    fn listened(&self) -> Seconds {
        Seconds(u64::from(self.tick) * TICK)
    }

    /// The calendar's tick.
    const fn today(&self) -> u32 {
        self.calendar.start + self.tick
    }

    /// A stage that counts opens to devices that were heard; those of a trial are known when it begins.
    fn is_listened_to(&self, stage: usize) -> bool {
        stage < self.rollout.steps.len()
            || matches!(self.question.ladder.stages[stage].gate, Gate::Count(_))
    }

    fn stage_polls(&mut self, stage: usize) {
        let period = self.period(stage);
        let town = self.town;
        let members = town.members[stage].iter().zip(0u32..);
        for (device, place) in members.skip((self.tick % period) as usize).step_by(period as usize)
        {
            if self.reaches(*device) {
                self.polls(Seat { device: *device, stage, place });
            }
        }
    }

    /// Ticks between two polls. What a device says twice in a slot of a trial changes nothing, nor in an
    /// hour before its stage opens, so that it is asked once.
    fn period(&self, stage: usize) -> u32 {
        if stage >= self.rollout.steps.len() {
            return TICKS_PER_HOUR;
        }
        let slot = match &self.question.ladder.stages[stage].gate {
            Gate::Count(_) => Seconds(0),
            Gate::Trial(terms) => terms.slot_s,
        };
        u32::try_from(self.question.polls.max(slot).0 / TICK).unwrap_or(u32::MAX).max(1)
    }

    fn reaches(&mut self, device: u32) -> bool {
        let tick = self.today();
        let site = self.fleet.devices[device as usize].site as usize;
        let (today, cut) = (&mut self.days[device as usize], &mut self.cuts[site]);
        self.calendar.reaches_by(&self.fleet, device, tick, today, cut) && !self.is_lost(device)
    }

    fn polls(&mut self, seat: Seat) {
        match self.lives[seat.device as usize].state {
            State::Waiting => self.asks(seat),
            State::Trying | State::Told(Health::Failed) => self.says(seat, trial::Letter::On),
            State::Knows(health) => self.tells(seat, health),
            State::Told(Health::Well) => {
                if self.world().fails_late(seat.device, self.install(seat.device)) {
                    self.tells(seat, Health::Failed);
                } else {
                    self.says(seat, trial::Letter::On);
                }
            }
        }
    }

    fn asks(&mut self, seat: Seat) {
        if !self.calendar.may_install(&self.fleet, seat.device, self.today()) {
            self.says(seat, trial::Letter::Kept);
            return;
        }
        self.says(seat, trial::Letter::AtRisk);
        if self.admits(seat) {
            self.says(seat, trial::Letter::Begins);
            self.begins(seat);
        }
    }

    fn admits(&self, seat: Seat) -> bool {
        if let Some(trial) = self.rollout.trials.get(&seat.stage) {
            return trial.trial().admits(seat.place);
        }
        let bucket = self.fleet.roster.devices[seat.device as usize].bucket;
        let open = self.rollout.steps.get(seat.stage);
        open.is_some_and(|step| step.open.limit.admits(bucket))
    }

    fn begins(&mut self, seat: Seat) {
        let length = self.calendar.install(&self.fleet, seat.device).min(AHEAD as u32 - 1);
        let life = &mut self.lives[seat.device as usize];
        (life.begun, life.length, life.state) = (self.tick, length as u8, State::Trying);
        self.outcome.harmed += u32::from(life.hit);
        self.ends[(self.tick + length) as usize % AHEAD].push(seat);
        let phase = self.rollout.trials.get(&seat.stage).map(StageTrial::phase);
        let step = Phase::ALL.iter().position(|step| Some(*step) == phase).unwrap_or(0);
        self.outcome.begun[seat.stage][step] += 1;
        self.hours[(self.tick / TICKS_PER_HOUR) as usize] += 1;
    }

    /// Its trial ends: told at once by a device that is on, at the next poll by one that is not.
    fn finishes(&mut self, seat: Seat) {
        let fails =
            self.world().fails_in_trial(seat.device, self.install(seat.device), self.today());
        let health = if fails { Health::Failed } else { Health::Well };
        self.lives[seat.device as usize].state = State::Knows(health);
        if self.reaches(seat.device) {
            self.tells(seat, health);
        }
    }

    fn tells(&mut self, seat: Seat, health: Health) {
        self.lives[seat.device as usize].state = State::Told(health);
        let site = u32::from(self.fleet.devices[seat.device as usize].site);
        self.says(
            seat,
            match health {
                Health::Well => trial::Letter::Healthy,
                Health::Failed => trial::Letter::Failed(Some(site)),
            },
        );
    }

    /// A letter reaches the gatekeeper.
    fn says(&mut self, seat: Seat, letter: trial::Letter) {
        let device = id(seat.device);
        if let Some(trial) = self.rollout.trials.get_mut(&seat.stage) {
            trial.hear(&device, letter, Age::Fresh);
            return;
        }
        let listened = self.listened();
        self.heard.insert(device, listened);
        let evidence = &mut self.rollout.evidence;
        evidence.meet(
            device,
            Sighting {
                cohort: self.question.ladder.stages[seat.stage].cohort.clone(),
                bucket: self.fleet.roster.devices[seat.device as usize].bucket,
                groups: Vec::new(),
                standing: Standing::Counts,
            },
        );
        match letter {
            trial::Letter::AtRisk | trial::Letter::Kept => {
                evidence.speak(device, false);
            }
            trial::Letter::Begins | trial::Letter::BeginsApart | trial::Letter::On => {
                evidence.speak(device, true);
            }
            trial::Letter::Healthy => {
                evidence.conclude(device, OutcomeKind::Confirmed);
            }
            trial::Letter::Failed(_) => {
                evidence.conclude(device, OutcomeKind::RolledBack);
            }
            trial::Letter::Nothing => {
                evidence.conclude(device, OutcomeKind::Failed);
            }
        }
    }

    /// One tick of the gate, as the gatekeeper's own.
    fn gate(&mut self) -> Course {
        let (now, listened) = (self.now(), self.listened());
        self.fall_silent(listened);
        for trial in self.rollout.trials.values_mut() {
            trial.pass(listened);
        }
        let climb = rollout::climb(&self.rollout, &self.census(), &self.stops, now);
        let mut course = Course::Goes;
        for step in &climb.moves {
            match step {
                Move::Halt { what, .. } => {
                    self.stop(StopKind::Halt, Scope::Rollout(self.rollout.id), what);
                    course = Course::Over;
                }
                Move::Hold { scope, sentence, .. } => {
                    self.stop(StopKind::Hold, scope.clone(), sentence);
                }
                Move::Complete => {
                    self.outcome.complete = Some(listened);
                    course = Course::Over;
                }
                Move::Open { .. } | Move::Raise { .. } => {}
            }
            self.rollout.apply(step, now);
            if let Move::Open { index, .. } = step {
                self.outcome.opened[*index] = Some(listened);
                self.open(*index);
            }
        }
        for (full, step) in self.outcome.full.iter_mut().zip(&self.rollout.steps) {
            if full.is_none() && step.open.full.is_some() {
                *full = Some(listened);
            }
        }
        course
    }

    fn stop(&mut self, kind: StopKind, scope: Scope, reason: &str) {
        let listened = self.listened();
        self.outcome.stopped.get_or_insert(listened);
        self.stops.push(Stop {
            number: self.stops.len() as u64 + 1,
            kind,
            scope,
            since: self.now(),
            reason: reason.to_owned(),
        });
    }

    fn fall_silent(&mut self, listened: Seconds) {
        let stages = self.question.ladder.stages.iter();
        let after: BTreeMap<CohortId, Seconds> = stages
            .filter_map(|stage| match &stage.gate {
                Gate::Count(rule) => Some((stage.cohort.clone(), rule.silence_after_s)),
                Gate::Trial(_) => None,
            })
            .collect();
        let heard = &self.heard;
        let heard_at = |device: &DeviceId| heard.get(device).copied();
        let silence = Silence { heard_at: &heard_at, after: &after, listened };
        let silent = self.rollout.evidence.overdue(&silence);
        self.rollout.evidence.fall_silent(&silent);
    }

    fn census(&self) -> Census {
        let stages = self.question.ladder.stages.iter().zip(&self.town.members);
        stages
            .map(|(stage, members)| {
                let devices = members.len() as u32;
                let heard = self.rollout.evidence.tally(&stage.cohort).devices;
                (stage.cohort.clone(), Head { devices, unheard: devices.saturating_sub(heard) })
            })
            .collect()
    }

    /// Begins the trial of a stage that opened.
    fn open(&mut self, index: usize) {
        let stage: &Stage = &self.question.ladder.stages[index];
        let Gate::Trial(terms) = &stage.gate else { return };
        let entrants = self.entrants(index, terms);
        let salt = Digest::of_parts(
            "lockgate plan trial v1",
            &[&self.rollout.id.0, &self.fleet.dice.0.to_be_bytes()],
        );
        let trial = StageTrial::new(terms, stage.ceiling_ppm, entrants, salt, self.listened());
        self.rollout.trials.insert(index, trial);
    }

    fn entrants(&self, stage: usize, terms: &TrialTerms) -> Vec<Entrant> {
        let members = self.town.members[stage].iter();
        members
            .map(|device| {
                let kind = self.town.kind(*device);
                Entrant {
                    device: id(*device),
                    tenant: self.tenant.clone(),
                    bucket: self.fleet.roster.devices[*device as usize].bucket,
                    groups: kind.groups.clone(),
                    habit: kind.habit,
                    zone: kind.zone.clone(),
                    noise: kind.known,
                    // The simulated letter box samples nobody's letters.
                    watched: true,
                    history: if terms.slot_s == Seconds(3_600) { self.history(*device) } else { 0 },
                }
            })
            .collect()
    }

    /// In which of the last hours a device was heard, the last one in the highest bit.
    fn history(&self, device: u32) -> u128 {
        let (mut today, mut cut) = (Today::default(), Cut::default());
        let mut history = 0;
        for back in (0..HISTORY).rev() {
            let tick = self.today() - (back + 1) * TICKS_PER_HOUR + device % TICKS_PER_HOUR;
            let heard = self.calendar.reaches_by(&self.fleet, device, tick, &mut today, &mut cut);
            history |= u128::from(heard) << (127 - back);
        }
        history
    }

    /// When a ramp begins, groups of which nobody was named.
    fn look_for_holes(&mut self) {
        for (index, trial) in &self.rollout.trials {
            let before = trial.phase() < Phase::Ramp;
            let stage = &self.question.ladder.stages[*index];
            let Gate::Trial(terms) = &stage.gate else { continue };
            if before || !self.ramped.insert(*index) {
                continue;
            }
            let matrix = trial.coverage_of(&stage.cohort, terms.group_least);
            let bare = matrix
                .groups
                .into_iter()
                .filter(|group| group.is_bare() && group.guard == CoverageGuard::Own);
            let holes = bare.map(|group| {
                let label = format!("{} {}", group.kind.name(), group.label);
                (stage.cohort.clone(), label, group.devices)
            });
            self.outcome.holes.extend(holes);
        }
    }

    /// What the release and the world do to devices.
    const fn world(&self) -> World<'_> {
        World { fleet: &self.fleet, scenario: self.scenario, calendar: self.calendar }
    }

    fn install(&self, device: u32) -> Install {
        let life = self.lives[device as usize];
        Install { hit: life.hit, age: self.tick - life.begun, length: u32::from(life.length) }
    }

    /// Whether the release keeps a device from being heard now.
    fn is_lost(&self, device: u32) -> bool {
        let loops = self.scenario.hit.is_some_and(|hit| hit.how == How::CrashLoop);
        match self.lives[device as usize].state {
            State::Waiting => false,
            // A crash loop ends when the device has gone back.
            State::Told(Health::Failed) if loops => false,
            State::Trying | State::Knows(_) | State::Told(_) => {
                self.world().silences(device, self.install(device), self.today())
            }
        }
    }
}

/// Whether there is more to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    Goes,
    Over,
}

/// How long a rollout up this ladder is looked on.
pub(super) fn ticks(ladder: &Ladder) -> u32 {
    let floor = ladder.stages.last().map_or(0, |stage| stage.floor_s.0);
    let stages = ladder.stages.iter().map(|stage| {
        let trial = match &stage.gate {
            Gate::Count(rule) => rule.silence_after_s.0,
            Gate::Trial(terms) => u64::from(terms.open_at) * terms.slot_s.0,
        };
        stage.bake_s.0 + trial
    });
    let least = stages.sum::<u64>().max(floor);
    let all = (PATIENCE * least + AFTER.0) / TICK;
    u32::try_from(all).unwrap_or(TICKS).min(TICKS)
}

/// The tick of the second simulated week at which the rollout starts.
fn start_tick(at: Moment) -> u32 {
    // The first of January 1970 was a Thursday.
    let week = (at.0 + 3 * 86_400).rem_euclid(7 * 86_400);
    let ticks = u32::try_from(week / TICK as i64).unwrap_or(0);
    7 * 24 * TICKS_PER_HOUR + ticks
}

fn rollout(question: &Question, town: &Town) -> Result<Rollout, PlanError> {
    let Question { subject, ladder, .. } = question;
    let start = Start {
        repository: "plan".parse()?,
        product: subject.product.clone(),
        channel: subject.channel.clone(),
        version: subject.version.clone(),
        manifest: subject.manifest,
        moment: question.at,
        cohorts: sizes(ladder, town),
        owner: "plan".parse()?,
        risk: RiskClass::Routine,
        plan: Digest([0; 32]),
    };
    let signed = SignedAct::unsigned(&Act::Start(start.clone()))?;
    let asking = (0u16..).zip(&ladder.stages);
    let asking = asking.filter(|(_, stage)| stage.approval == StageApproval::Required);
    let approvals = asking.map(|(index, _)| (index, signed.clone())).collect();
    Ok(Rollout { approvals, ..Rollout::new(start, signed, ladder.clone(), 0) })
}

/// What a start promises: devices of stages that count; those of a trial are all there when it begins.
fn sizes(ladder: &Ladder, town: &Town) -> Vec<CohortSize> {
    let stages = ladder.stages.iter().zip(&town.members);
    stages
        .map(|(stage, members)| CohortSize {
            cohort: stage.cohort.clone(),
            devices: match stage.gate {
                Gate::Count(_) => members.len() as u32,
                Gate::Trial(_) => 0,
            },
        })
        .collect()
}
