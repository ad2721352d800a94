//! What a decision costs: one look at what an hour's letters reported, beside one walk over the fleet in
//! the same run. It prints and judges nothing.

use std::time::Duration;

use lockgate_agent::clock::Stopwatch;
use lockgate_server::rollout::trial::{BEFORE, terms::Terms};

use super::{
    fleet::Fleet,
    policy::{Gate, Look, Policy as _},
    run::Run,
    scenario::Scenario,
    watch::{Observer, Watch},
};

/// Hours of the rollout in which decisions are timed: from the canary's full size to the end of the ramp.
const TIMED_H: std::ops::Range<u32> = 22..60;

/// The medians of some hours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Groups that were weighed.
    pub groups: usize,
    /// Devices that were walked over.
    pub devices: u32,
    /// One look.
    pub look: Duration,
    /// One walk.
    pub walk: Duration,
}

impl Cost {
    /// Times decisions in a rollout of this scenario.
    pub fn of(scenario: &Scenario, size: u32, seed: u64) -> Self {
        let fleet = Fleet::new(size, scenario, seed);
        let gate = Gate::new(&fleet, Terms::routine());
        let mut watch = Watch { gate, observer: Timed::default() };
        Run::new(&fleet, scenario).play(&mut watch, TIMED_H.end);
        let timed = watch.observer;
        Self {
            groups: fleet.roster.groups.len(),
            devices: size,
            look: median(timed.looks),
            walk: median(timed.walks),
        }
    }

    /// A look in walks.
    pub fn ratio(&self) -> f64 {
        self.look.as_secs_f64() / self.walk.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Times of the gate, which looks once an hour, so that a look has an hour's letters before it.
#[derive(Default)]
struct Timed {
    looks: Vec<Duration>,
    walks: Vec<Duration>,
}

impl Observer for Timed {
    fn begin_hour(&mut self, gate: &mut Gate, hour: u32, look: &Look<'_>) {
        if TIMED_H.contains(&hour.saturating_sub(BEFORE)) {
            self.looks.push(timed(|| gate.0.look()));
            let devices = 0..gate.0.roster().len();
            let walk = || devices.filter(|device| gate.0.admits(*device)).count();
            self.walks.push(timed(|| std::hint::black_box(walk())));
        }
        gate.begin_hour(hour, look);
    }

    fn look(&mut self, _: &mut Gate, _: u32) {}
}

fn timed<T>(act: impl FnOnce() -> T) -> Duration {
    let begun = Stopwatch::start();
    act();
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
