//! A rollout told line by line: when its phase changes, what makes it wait, what is held, and every twelve
//! hours how it stands. An operator could read it; tests compare it with what was told before.

use std::{fmt::Write as _, mem::discriminant};

use lockgate_server::rollout::trial::{
    BEFORE, Trial, clock::Phase, roster::FLEET, terms::Terms, waits::Wait,
};

use super::{
    fleet::Fleet,
    policy::{Gate, Look, Policy as _},
    run::Run,
    scenario::Scenario,
    watch::{Observer, Watch},
};

/// Hours between two lines when nothing happens.
const EVERY_H: u32 = 12;

/// The story of one rollout of so many hours.
pub fn tell(scenario: &Scenario, size: u32, seed: u64, hours: u32) -> String {
    let fleet = Fleet::new(size, scenario, seed);
    let gate = Gate::new(&fleet, Terms::routine());
    let text = format!("{}; {size} devices, seed {seed}\n", scenario.about);
    let mut watch = Watch { gate, observer: Teller { text, phase: None, why: None, holds: 0 } };
    let outcome = Run::new(&fleet, scenario).play(&mut watch, hours);
    let mut text = watch.observer.text;
    let reached = |hours: Option<u32>| hours.map_or("never".to_owned(), |h| format!("{h} h"));
    let _ = writeln!(
        text,
        "in the end: {} began, {} were harmed; 95 % of those who asked after {}, 99 % after {}",
        outcome.begun,
        outcome.harmed,
        reached(outcome.hours_95),
        reached(outcome.hours_99)
    );
    text
}

struct Teller {
    text: String,
    phase: Option<Phase>,
    why: Option<Wait>,
    holds: usize,
}

impl Teller {
    fn line(&mut self, trial: &Trial, hour: u32) {
        let phase = trial.phase();
        let why = trial.why_waiting();
        let new = trial.holds().get(self.holds..).unwrap_or_default();
        // Of what else it waits for, or for whom, only the kind is news: its numbers change every hour.
        let changed = why.map(|why| discriminant(&why)) != self.why.map(|why| discriminant(&why));
        let news = self.phase != Some(phase) || changed || !new.is_empty();
        if !news && !hour.is_multiple_of(EVERY_H) {
            return;
        }
        let name = phase.name();
        let tally = trial.tally(FLEET);
        let _ = writeln!(
            self.text,
            "hour {hour:>3}: {name}; limit {}, {} by name, {} groups narrower; {} let in, {} well, {} failed",
            trial.fleet_limit(),
            trial.drawn().count(),
            trial.narrower().len(),
            tally.begun,
            tally.healthy,
            tally.failed
        );
        for hold in new {
            let _ = writeln!(self.text, "          {}", hold.sentence);
        }
        if let Some(why) = why.filter(|_| changed) {
            let _ = writeln!(self.text, "          waits: {why}");
        }
        (self.phase, self.why, self.holds) = (Some(phase), why, trial.holds().len());
    }
}

impl Observer for Teller {
    fn begin_hour(&mut self, gate: &mut Gate, hour: u32, look: &Look<'_>) {
        gate.begin_hour(hour, look);
        if let Some(hour) = hour.checked_sub(BEFORE) {
            self.line(&gate.0, hour);
        }
    }
}
