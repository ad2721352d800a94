//! How much a question may cost, and what is tried in place of one that costs more. Whatever differs from
//! what was asked is said in the answer; nothing is left out in silence.

use std::borrow::Cow;

use lockgate_server::preflight::{GRAIN, Question};
use lockgate_shared::{
    count::count,
    manifest::{Gate, Ladder},
};

use super::{FUTURES, town::DEVICES, trip};

/// Simulations that every fleet and every ladder gets if they are asked for: what `lockgate plan` asks for
/// by itself, twenty, with some to spare.
const SIMULATIONS: u64 = 25;
/// What a tick costs apart from its devices, in devices.
const GATE: u64 = 100;
/// Devices times ticks that all simulations together may take: so many simulations of the largest fleet for
/// the longest time. Small fleets never come near it with what people ask for.
pub(super) const WORK: u64 = SIMULATIONS * FUTURES * trip::TICKS as u64 * (DEVICES as u64 + GATE);

/// What is tried.
pub(super) struct Bound<'a> {
    /// The question, with slots that the simulator can tell apart.
    pub(super) question: Cow<'a, Question>,
    /// How it differs from what was asked, in sentences.
    pub(super) notes: Vec<String>,
}

/// What is tried of this question, among so many simulated devices.
pub(super) fn within(asked: &Question, devices: u32, work: u64) -> Bound<'_> {
    let mut bound = Bound { question: Cow::Borrowed(asked), notes: Vec::new() };
    bound.lengthen_slots();
    bound.leave_out(devices, work);
    bound
}

impl Bound<'_> {
    /// Devices are heard once in a tick: in slots that are shorter none would be heard in most of them, and
    /// each slot costs the gate as much as a long one.
    fn lengthen_slots(&mut self) {
        let asked = shortest(&self.question.ladder);
        let Some(asked) = asked.filter(|slot| *slot < GRAIN.0) else { return };
        for stage in &mut self.question.to_mut().ladder.stages {
            match &mut stage.gate {
                Gate::Trial(terms) => terms.slot_s = terms.slot_s.max(GRAIN),
                Gate::Count(_) => {}
            }
        }
        self.notes.push(format!(
            "a slot of {asked} s is shorter than the simulator's step: it was tried with slots of {} min, so that times inside such a trial are up to {} times too long",
            GRAIN.0 / 60,
            GRAIN.0.div_ceil(asked.max(1))
        ));
    }

    fn leave_out(&mut self, devices: u32, work: u64) {
        let asked = self.question.simulations;
        let ticks = u64::from(trip::ticks(&self.question.ladder));
        let each = FUTURES * ticks.max(1) * (u64::from(devices) + GATE);
        let most = u32::try_from((work / each).max(1)).unwrap_or(u32::MAX);
        if most < asked {
            self.question.to_mut().simulations = most;
            self.notes.push(format!(
                "each future was tried {}, not {asked} times: so many devices take too long",
                count(most, "time", "times")
            ));
        }
    }
}

/// The shortest slot of any trial, in seconds.
fn shortest(ladder: &Ladder) -> Option<u64> {
    let slots = ladder.stages.iter().filter_map(|stage| match &stage.gate {
        Gate::Trial(terms) => Some(terms.slot_s.0),
        Gate::Count(_) => None,
    });
    slots.min()
}
