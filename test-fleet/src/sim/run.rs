//! One run: a fleet, a scenario, a policy, one gate tick at a time. What devices are told changes only
//! at the hour; polls of devices that have left, sleep or are done cost a few multiplications.

use super::{
    TICKS_PER_HOUR,
    fate::{Install, World},
    fleet::Fleet,
    policy::{Look, Policy, Standing, Update},
    presence::{Cut, Today},
    scenario::{Hit, How, Scenario},
};

/// Hours before the rollout that are simulated, so that everybody's day is known.
pub const BEFORE: u32 = lockgate_server::rollout::trial::BEFORE;
/// Ticks ahead that an event may lie: the longest install and the longest crash loop.
const AHEAD: usize = 128;

/// What a device has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Life {
    /// The tick in which it began, since the run's first; nothing before.
    begun: u32,
    /// The install's length in ticks.
    length: u8,
    stage: Stage,
    hit: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Waiting,
    /// Installs, or is in its trial.
    Trial,
    /// Its result is known to it and not told yet.
    Told(bool),
    /// It said that it is well.
    Healthy,
    /// It said that it failed.
    Failed,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Devices that the release was bad for and that activated it.
    pub harmed: u32,
    /// The hour in which the rollout was stopped for everybody.
    pub halted: Option<u32>,
    /// Devices heard in the last hours that the release is good for and that may not have it.
    pub held_good: u32,
    /// Devices that the release is good for.
    pub good: u32,
    /// Hours until these shares of those who asked had begun.
    pub hours_95: Option<u32>,
    /// See above.
    pub hours_99: Option<u32>,
    /// Devices that began.
    pub begun: u32,
    /// Polls that reached the server, without those that were left out because they change nothing.
    pub polls: u64,
    /// Sentences of holds.
    pub sentences: Vec<String>,
    /// The highest evidence, for calibration.
    pub peak: f64,
}

/// A run in progress.
pub struct Run<'a> {
    world: World<'a>,
    lives: Vec<Life>,
    days: Vec<Today>,
    cuts: Vec<Cut>,
    events: Vec<Vec<u32>>,
    /// Devices that may still have something to say, once the policy rests.
    live: Option<Vec<u32>>,
    /// Devices that asked within [`ASKED_H`] when they were free to install.
    asked: Vec<bool>,
    hours: u32,
    outcome: Outcome,
}

/// Bytes that one device costs the simulator, the gate's own apart.
pub const BYTES: usize = size_of::<Life>()
    + size_of::<super::fleet::Device>()
    + size_of::<lockgate_server::rollout::trial::roster::Member>()
    + size_of::<Today>()
    + size_of::<bool>();

/// Devices that ask at least once within these hours of the rollout while their window is open and their
/// battery full enough are those of which a share is to be reached: when a routine rollout is open to
/// everybody, and until four days are over. No policy reaches those that are only on outside of their
/// windows.
const ASKED_H: std::ops::Range<u32> = 64..96;

impl<'a> Run<'a> {
    /// A run of this scenario.
    pub fn new(fleet: &'a Fleet, scenario: &'a Scenario) -> Self {
        let hit = |device| fleet.is_hit(device, scenario);
        let lives = (0..fleet.devices.len() as u32)
            .map(|device| Life { hit: hit(device), ..Life::default() })
            .collect();
        Self {
            world: World::new(fleet, scenario),
            lives,
            days: vec![Today::default(); fleet.devices.len()],
            cuts: vec![Cut::default(); fleet.sites as usize],
            events: vec![Vec::new(); AHEAD],
            live: None,
            asked: vec![false; fleet.devices.len()],
            hours: 0,
            outcome: Outcome::default(),
        }
    }

    /// Runs for so many hours after the start.
    pub fn play(mut self, policy: &mut dyn Policy, hours: u32) -> Outcome {
        for hour in 0..BEFORE + hours {
            policy.begin_hour(
                hour,
                &Look { fleet: self.world.fleet, calendar: &self.world.calendar },
            );
            self.note_halt(policy, hour);
            // A rollout that was stopped and whose devices have all come to an end changes nothing more.
            if self.outcome.halted.is_some_and(|at| hour > at + BEFORE + 12) {
                break;
            }
            self.hours = hour + 1;
            // Until then it is noted who asks.
            if hour >= BEFORE + ASKED_H.end && policy.rests() {
                self.leave_out();
            }
            for tick in 0..TICKS_PER_HOUR {
                if tick > 0 {
                    policy.look(hour);
                    self.note_halt(policy, hour);
                }
                self.tick(policy, hour, tick);
            }
        }
        self.finish(policy)
    }

    fn note_halt(&mut self, policy: &dyn Policy, hour: u32) {
        if policy.halted() {
            self.outcome.halted.get_or_insert(hour.saturating_sub(BEFORE));
        }
    }

    /// Leaves out the polls of devices that will say nothing but that they are there.
    fn leave_out(&mut self) {
        let mut live = self.live.take().unwrap_or_else(|| (0..self.lives.len() as u32).collect());
        live.retain(|device| {
            let life = self.lives[*device as usize];
            match life.stage {
                Stage::Waiting | Stage::Trial | Stage::Told(_) => true,
                Stage::Healthy => self.world.may_fail_late(*device, life.hit),
                Stage::Failed => false,
            }
        });
        self.live = Some(live);
    }

    fn tick(&mut self, policy: &mut dyn Policy, hour: u32, phase: u32) {
        // Ticks of the calendar; the run's first hour lies BEFORE hours ahead of the start.
        let now = hour * TICKS_PER_HOUR + phase;
        let tick = self.world.calendar.start - BEFORE * TICKS_PER_HOUR + now;
        for device in std::mem::take(&mut self.events[now as usize % AHEAD]) {
            self.ends(policy, device, tick, now);
        }
        let phases = &self.world.fleet.phases;
        let (from, to) = (phases[phase as usize], phases[phase as usize + 1]);
        match self.live.take() {
            None => (from..to).for_each(|device| self.may_poll(policy, device, tick, now)),
            Some(live) => {
                let first = live.partition_point(|device| *device < from);
                for device in live[first..].iter().take_while(|device| **device < to) {
                    self.may_poll(policy, *device, tick, now);
                }
                self.live = Some(live);
            }
        }
    }

    fn may_poll(&mut self, policy: &mut dyn Policy, device: u32, tick: u32, now: u32) {
        if self.reaches(device, tick) {
            self.polls(policy, device, tick, now);
        }
    }

    fn reaches(&mut self, device: u32, tick: u32) -> bool {
        let site = self.world.fleet.devices[device as usize].site as usize;
        let (today, cut) = (&mut self.days[device as usize], &mut self.cuts[site]);
        self.world.calendar.reaches_by(self.world.fleet, device, tick, today, cut)
    }

    fn polls(&mut self, policy: &mut dyn Policy, device: u32, tick: u32, now: u32) {
        let hour = now / TICKS_PER_HOUR;
        if self.is_lost(device, tick, now) {
            return;
        }
        self.outcome.polls += 1;
        if ASKED_H.contains(&hour.wrapping_sub(BEFORE)) && !self.asked[device as usize] {
            self.asked[device as usize] =
                self.world.calendar.may_install(self.world.fleet, device, tick);
        }
        let life = self.lives[device as usize];
        match life.stage {
            Stage::Waiting => {
                let may = self.world.calendar.may_install(self.world.fleet, device, tick);
                let standing = if !may || policy.stops(device) {
                    Standing::Kept
                } else if hour >= BEFORE && policy.admits(device) {
                    self.begins(device, now);
                    Standing::Begins
                } else {
                    Standing::AtRisk
                };
                policy.letter(device, hour, Update::Waits(standing));
            }
            Stage::Trial => policy.letter(device, hour, Update::On),
            Stage::Told(well) => self.tell(policy, device, hour, well),
            Stage::Healthy => {
                if self.world.fails_late(device, self.install(device, now)) {
                    self.tell(policy, device, hour, false);
                } else {
                    policy.letter(device, hour, Update::On);
                }
            }
            Stage::Failed => policy.letter(device, hour, Update::On),
        }
    }

    fn begins(&mut self, device: u32, now: u32) {
        let length = self.world.calendar.install(self.world.fleet, device).min(AHEAD as u32 - 1);
        let life = &mut self.lives[device as usize];
        (life.begun, life.length, life.stage) = (now, length as u8, Stage::Trial);
        self.events[(now + length) as usize % AHEAD].push(device);
        self.outcome.begun += 1;
        self.outcome.harmed += u32::from(life.hit);
    }

    /// The trial ends: the result is told at once by a device that is on, and at its next poll by one
    /// that is not.
    fn ends(&mut self, policy: &mut dyn Policy, device: u32, tick: u32, now: u32) {
        let well = !self.world.fails_in_trial(device, self.install(device, now), tick);
        self.lives[device as usize].stage = Stage::Told(well);
        if self.reaches(device, tick) && !self.is_lost(device, tick, now) {
            self.tell(policy, device, now / TICKS_PER_HOUR, well);
        }
    }

    fn tell(&mut self, policy: &mut dyn Policy, device: u32, hour: u32, well: bool) {
        let site = u32::from(self.world.fleet.devices[device as usize].site);
        let life = &mut self.lives[device as usize];
        life.stage = if well { Stage::Healthy } else { Stage::Failed };
        policy.letter(device, hour, if well { Update::Healthy } else { Update::Failed(site) });
    }

    fn install(&self, device: u32, now: u32) -> Install {
        let life = self.lives[device as usize];
        Install { hit: life.hit, age: now - life.begun, length: u32::from(life.length) }
    }

    /// Whether the release keeps a device from being heard now.
    fn is_lost(&self, device: u32, tick: u32, now: u32) -> bool {
        let life = self.lives[device as usize];
        if !life.hit {
            return false;
        }
        match life.stage {
            Stage::Waiting => false,
            Stage::Failed => {
                // A crash loop ends when the device has gone back.
                let crashes = |hit: Hit| hit.how == How::CrashLoop;
                !self.world.scenario.hit.is_some_and(crashes)
                    && self.world.silences(device, self.install(device, now), tick)
            }
            Stage::Trial | Stage::Told(_) | Stage::Healthy => {
                self.world.silences(device, self.install(device, now), tick)
            }
        }
    }

    fn finish(mut self, policy: &dyn Policy) -> Outcome {
        let all = self.asked.iter().filter(|asked| **asked).count() as f64;
        let mut begun_by = vec![0u32; self.hours as usize];
        for (life, asked) in self.lives.iter().zip(&self.asked) {
            let place = (life.begun / TICKS_PER_HOUR) as usize;
            if *asked
                && life.stage != Stage::Waiting
                && let Some(count) = begun_by.get_mut(place)
            {
                *count += 1;
            }
        }
        let mut sum = 0;
        for (hour, begun) in begun_by.iter().enumerate() {
            sum += begun;
            let at = (hour as u32 + 1).saturating_sub(BEFORE);
            if self.outcome.hours_95.is_none() && f64::from(sum) >= 0.95 * all {
                self.outcome.hours_95 = Some(at);
            }
            if self.outcome.hours_99.is_none() && f64::from(sum) >= 0.99 * all {
                self.outcome.hours_99 = Some(at);
            }
        }
        for (device, life) in self.lives.iter().enumerate() {
            let number = device as u32;
            if life.hit || self.world.fleet.in_population(number, self.world.scenario) {
                continue;
            }
            self.outcome.good += 1;
            let waits = life.stage == Stage::Waiting && self.asked[device];
            self.outcome.held_good += u32::from(waits && !policy.admits(number));
        }
        self.outcome.sentences = policy.sentences();
        self.outcome.peak = policy.peak();
        self.outcome
    }
}
