//! The real gate with somebody beside it: a story is told, a cost is taken, a rule is checked. Every
//! question and every letter goes on to the gate, which decides as it would alone.

use super::policy::{Gate, Look, Policy, Update};

/// Who stands beside the gate. What it does not write of its own goes on to the gate as it came; what it
/// does, it hands on itself, before or after it has looked.
pub trait Observer {
    /// A new hour.
    fn begin_hour(&mut self, gate: &mut Gate, hour: u32, look: &Look<'_>) {
        gate.begin_hour(hour, look);
    }

    /// A letter.
    fn letter(&mut self, gate: &mut Gate, device: u32, hour: u32, update: Update) {
        gate.letter(device, hour, update);
    }

    /// A gate tick within an hour.
    fn look(&mut self, gate: &mut Gate, hour: u32) {
        gate.look(hour);
    }
}

/// Nobody.
impl Observer for () {}

/// A gate that is watched. It never rests, so that whoever watches hears of every poll.
#[derive(Debug)]
pub struct Watch<O> {
    /// The gate.
    pub gate: Gate,
    /// Who stands beside it.
    pub observer: O,
}

impl<O: Observer> Policy for Watch<O> {
    fn begin_hour(&mut self, hour: u32, look: &Look<'_>) {
        self.observer.begin_hour(&mut self.gate, hour, look);
    }

    fn admits(&self, device: u32) -> bool {
        self.gate.admits(device)
    }

    fn letter(&mut self, device: u32, hour: u32, update: Update) {
        self.observer.letter(&mut self.gate, device, hour, update);
    }

    fn look(&mut self, hour: u32) {
        self.observer.look(&mut self.gate, hour);
    }

    fn halted(&self) -> bool {
        self.gate.halted()
    }

    fn stops(&self, device: u32) -> bool {
        self.gate.stops(device)
    }

    fn sentences(&self) -> Vec<String> {
        self.gate.sentences()
    }

    fn peak(&self) -> f64 {
        self.gate.peak()
    }
}
