//! The agent's own replacement, in the loop: the old agent leaves a watchword before the switch, the
//! new one signs as it comes along, and the old one, back after a refusal, takes note of it. Who
//! watches whom is in [`crate::guard`].

use lockgate_shared::{failure::Chain, wire::SlotState};

use super::{Agent, Role, RunError};
use crate::{
    core::{
        choice,
        handover::{Progress, Stage, Watchword},
        machine::{Event, State},
        trial::{Answer, Health, Said},
    },
    guard::Post,
    log,
    slots::Slot,
    world::World,
};

impl<W: World> Agent<W> {
    /// Finds out whether an old agent watches over this one.
    pub(super) fn look_for_guard(&mut self) {
        if self.products.iter().all(|managed| managed.role == Role::Other) {
            return;
        }
        self.watched = self.word().filter(|word| match word.stage {
            Stage::Open { .. } => true,
            Stage::Refused { .. } => false,
        });
    }

    /// Shows the guard how far this agent has come.
    pub(super) fn sign(&self) {
        let Some(word) = &self.watched else { return };
        let Some(managed) = self.products.iter().find(|managed| managed.product == word.product)
        else {
            return;
        };
        let kept =
            managed.record.installed.as_ref().is_some_and(|plan| plan.version == word.version);
        let settled = match managed.record.state.word() {
            SlotState::Trial | SlotState::Activating | SlotState::RollingBack => false,
            SlotState::Idle
            | SlotState::Waiting
            | SlotState::Fetching
            | SlotState::Staged
            | SlotState::Confirmed
            | SlotState::Failed => true,
        };
        let progress = if kept && settled { Progress::Kept } else { Progress::Running };
        if let Err(error) = Post::of(&self.state).sign(&word.version, progress) {
            log::warn(Chain(&error));
        }
    }

    /// Takes note of the guard's decision against a new agent, and removes its word once that stands
    /// in the journal.
    pub(super) fn heed_guard(&mut self, index: usize) -> Result<(), RunError> {
        let Some(managed) = self.products.get(index).filter(|managed| managed.role == Role::Agent)
        else {
            return Ok(());
        };
        let Some(word) = self.word().filter(|word| word.product == managed.product) else {
            return Ok(());
        };
        let Stage::Refused { why } = word.stage else { return Ok(()) };
        log::warn(format!("`{}` {}: {why}; it was put back", word.product, word.version));
        self.drive(index, Event::RestartFailed { why })?;
        if let Err(error) = Post::of(&self.state).clear() {
            log::warn(Chain(&error));
        }
        Ok(())
    }

    /// Throws a product's switch. Before a new agent's, its guard gets the watchword.
    pub(super) fn switch(&mut self, index: usize, slot: Slot) -> Option<Event> {
        let word = self.word();
        let managed = self.products.get_mut(index)?;
        let plan = match (managed.role, &managed.record.state) {
            (Role::Agent, State::Activating { plan }) => plan,
            (Role::Agent | Role::Other, _) => return Some(managed.performer.activate(slot)),
        };
        let Some(guard) = plan.from else {
            let why = "no slot holds the agent that runs, so there would be no guard".to_owned();
            return Some(Event::ActivateFailed { why });
        };
        let fresh = Watchword::of(plan.product.clone(), plan.version.clone(), &plan.trial, guard);
        // A new agent that repeats the switch after a power cut must not get its starts back.
        let known = word.is_some_and(|word| match word.stage {
            Stage::Open { .. } => word.product == fresh.product && word.version == fresh.version,
            Stage::Refused { .. } => false,
        });
        if !known && let Err(error) = Post::of(&self.state).begin(&fresh) {
            return Some(Event::ActivateFailed { why: Chain(&error).to_string() });
        }
        Some(managed.performer.try_out(slot))
    }

    /// Whether a new agent reaches its server: only an acknowledged letter is proof.
    pub(super) fn ask_letter(&mut self, name: &str) -> Answer {
        let failed = match self.last_letter() {
            Ok(None) => None,
            Ok(Some(refusal)) => Some(refusal.text),
            Err(error) => Some(Chain(&error).to_string()),
        };
        let (health, detail) = match failed {
            None if self.heard.contact.is_some() => {
                (Health::Held, "the server acknowledged a letter".to_owned())
            }
            None => (Health::Failed, "no letter was acknowledged".to_owned()),
            Some(text) => (Health::Failed, choice::short(&text)),
        };
        Answer { probe: name.to_owned(), said: Said { health, detail }, latency_ms: 0 }
    }

    /// The watchword, where there is one that can be read.
    fn word(&self) -> Option<Watchword> {
        Post::of(&self.state).word().unwrap_or_else(|error| {
            log::warn(Chain(&error));
            None
        })
    }
}
