//! The limit of what is possible: a policy that knows the fault's population, rate, mode and delay and the
//! fleet's noise, and runs Wald's sequential probability-ratio test on the same reports and silences, with
//! the gate's own schedule and the same bound on false alarms. It knows not whether there is a fault.

use lockgate_server::rollout::trial::terms::Terms;

use super::{
    TICKS_PER_HOUR,
    fleet::Fleet,
    policy::{Gate, Look, Policy, Standing, Update},
    run::BEFORE,
    scenario::{Hit, How, Scenario, Who},
};

/// The clairvoyant at work.
#[derive(Debug)]
pub struct Clairvoyant {
    gate: Gate,
    hit: Option<Hit>,
    /// The failing share among those it watches.
    rate: f64,
    watched: Vec<bool>,
    heard: Vec<u128>,
    begun: Vec<(u32, u32)>,
    settled: Vec<bool>,
    noise: Vec<f64>,
    ratio: f64,
    alpha: f64,
    halted: bool,
}

/// Devices of the same habit that are asked how usual a silence is.
const SAMPLE: u32 = 80;

impl Clairvoyant {
    /// A clairvoyant over this fleet, by the schedule and the false alarms of these terms.
    pub fn new(fleet: &Fleet, scenario: &Scenario, terms: &Terms) -> Self {
        let devices = fleet.devices.len();
        let (rate, by_chance) = match scenario.hit {
            Some(Hit { who: Who::Share(share), rate, .. }) => (share * rate, true),
            Some(hit) => (hit.rate, false),
            None => (1.0, true),
        };
        Self {
            gate: Gate::new(fleet, Terms { alpha: 1e-200, ..terms.clone() }),
            hit: scenario.hit,
            rate,
            watched: (0..devices as u32)
                .map(|device| by_chance || fleet.in_population(device, scenario))
                .collect(),
            heard: vec![0; devices],
            begun: Vec::new(),
            settled: vec![false; devices],
            noise: (0..devices as u32)
                .map(|device| fleet.kind(device).noise.prompt + fleet.kind(device).noise.late)
                .collect(),
            ratio: 0.0,
            alpha: terms.alpha,
            halted: false,
        }
    }

    /// Hours after the beginning at which the fault shows.
    fn delay(&self) -> u32 {
        self.hit.map_or(0, |hit| (hit.after_h + 0.5).ceil() as u32)
    }

    /// What one device that did or did not show the fault says.
    fn weigh(&mut self, device: u32, shown: bool, usual: f64, if_hit: f64) {
        if std::mem::replace(&mut self.settled[device as usize], true) {
            return;
        }
        let usual = usual.clamp(1e-4, 0.999);
        let bad = (self.rate * if_hit + (1.0 - self.rate * if_hit) * usual).clamp(1e-4, 0.9999);
        self.ratio += if shown { (bad / usual).ln() } else { ((1.0 - bad) / (1.0 - usual)).ln() };
        self.halted |= self.ratio > (1.0 / self.alpha).ln();
    }

    /// Silences that can be judged by now.
    fn silences(&mut self, hour: u32, look: &Look<'_>) {
        let Some(hit) = self.hit else { return };
        let if_hit = match hit.how {
            How::Explicit => return,
            How::Silent | How::CrashLoop => 1.0,
            How::Half => 0.25,
        };
        let delay = self.delay();
        let due: Vec<(u32, u32)> =
            self.begun.iter().copied().filter(|(_, begun)| begun + delay + 3 == hour).collect();
        for (device, begun) in due {
            let (from, to) = (begun + delay + 1, begun + delay + 2);
            let bits = 1u128 << (from % 128) | 1u128 << (to % 128);
            let silent = self.heard[device as usize] & bits == 0;
            let usual = usual(look, device, begun, (from, to));
            self.weigh(device, silent, usual, if_hit);
        }
    }
}

/// The share of devices of the same habit and zone that were on at the one hour and not at the others.
fn usual(look: &Look<'_>, device: u32, begun: u32, (from, to): (u32, u32)) -> f64 {
    let like = look.fleet.kind(device);
    let devices = look.fleet.devices.len() as u32;
    let first = look.calendar.start - BEFORE * TICKS_PER_HOUR;
    let reaches = |other: u32, hour: u32| {
        look.calendar.reaches(
            look.fleet,
            other,
            first + hour * TICKS_PER_HOUR + other % TICKS_PER_HOUR,
        )
    };
    let (mut all, mut silent) = (0u32, 0u32);
    let mut other = device;
    for _ in 0..40 * SAMPLE {
        other = (other + 7919) % devices.max(1);
        let kind = look.fleet.kind(other);
        if kind.habit != like.habit || kind.ahead != like.ahead || !reaches(other, begun) {
            continue;
        }
        all += 1;
        silent += u32::from(!(from..=to).any(|hour| reaches(other, hour)));
        if all >= SAMPLE {
            break;
        }
    }
    (f64::from(silent) + 0.3) / (f64::from(all) + 1.0)
}

impl Policy for Clairvoyant {
    fn begin_hour(&mut self, hour: u32, look: &Look<'_>) {
        self.silences(hour, look);
        for heard in &mut self.heard {
            *heard &= !(1u128 << (hour % 128));
        }
        self.gate.begin_hour(hour, look);
    }

    fn admits(&self, device: u32) -> bool {
        !self.halted && self.gate.admits(device)
    }

    fn letter(&mut self, device: u32, hour: u32, update: Update) {
        self.gate.letter(device, hour, update);
        self.heard[device as usize] |= 1u128 << (hour % 128);
        if !self.watched[device as usize] {
            return;
        }
        let explicit = self.hit.is_some_and(|hit| hit.how == How::Explicit);
        let delayed = self.hit.is_some_and(|hit| hit.after_h > 0.0);
        let usual = self.noise[device as usize];
        match update {
            Update::Waits(Standing::Begins) => self.begun.push((device, hour)),
            Update::Failed(_) if explicit => self.weigh(device, true, usual, 1.0),
            Update::Healthy if explicit && !delayed => self.weigh(device, false, usual, 1.0),
            Update::On if explicit && delayed => {
                let begun = self.begun.iter().find(|(other, _)| *other == device);
                if begun.is_some_and(|(_, begun)| hour > begun + self.delay() + 1) {
                    self.weigh(device, false, usual, 1.0);
                }
            }
            Update::Waits(Standing::AtRisk | Standing::Kept)
            | Update::Failed(_)
            | Update::Healthy
            | Update::On => {}
        }
    }

    fn halted(&self) -> bool {
        self.halted
    }

    fn stops(&self, device: u32) -> bool {
        self.halted || self.gate.stops(device)
    }
}
