//! What the owner asks of the agent: found in each turn, answered in the snapshot, and then withdrawn. A
//! wish that nothing leads to changes nothing, and its answer says why.

use lockgate_shared::failure::Chain;

use super::{Agent, ManagedProduct, RunError};
use crate::{
    cli::Request,
    core::machine::{self, Consent, Event, Now, Plan, State},
    log,
    status::RollbackStatus,
    world::World,
};

impl<W: World> Agent<W> {
    /// Carries out what the owner asked for, and takes the request away.
    pub(super) fn heed_requests(&mut self) -> Result<(), RunError> {
        for request in Request::waiting(&self.state)? {
            let Request::Rollback(product, consent) = &request;
            match self.products.iter().position(|managed| managed.product == *product) {
                Some(index) => self.go_back(index, *consent)?,
                None => log::warn(format_args!("`{product}`, which is to go back, is not managed")),
            }
            // First the answer: whoever asked looks for it as soon as the request is gone.
            self.show();
            request.withdraw(&self.state)?;
        }
        Ok(())
    }

    fn go_back(&mut self, index: usize, consent: Consent) -> Result<(), RunError> {
        let now = self.now();
        let problem = self.state_problem();
        let Some(managed) = self.products.get_mut(index) else { return Ok(()) };
        let answer = problem.map_or_else(|| managed.going_back(consent, now), Err);
        let refused = answer.as_ref().err().cloned();
        managed.asked_back = Some(RollbackStatus { answered: now.clock, refused });
        match answer {
            Ok(event) => self.drive(index, event),
            Err(why) => {
                log::warn(format_args!("`{}` does not go back: {why}", managed.product));
                Ok(())
            }
        }
    }
}

impl ManagedProduct {
    /// What leads back to the version before, or why nothing does.
    fn going_back(&self, consent: Consent, now: Now) -> Result<Event, String> {
        let plan = self.way_back()?;
        let device = self.performer.device().map_err(|error| Chain(&error).to_string())?;
        let event = Event::GoBack(Box::new(plan), consent);
        let step = machine::step(self.record.state.clone(), event.clone(), &device, now);
        // The machine knows best what may not be undone; what it refuses leads to nothing.
        if step.effects.is_empty() { Err(step.notes.join("; ")) } else { Ok(event) }
    }

    /// The way back from the running version, while the other slot still holds what ran before.
    fn way_back(&self) -> Result<Plan, String> {
        let none = || "there is no older version to go back to".to_owned();
        let plan = match &self.record.state {
            State::Trial { plan, .. } => {
                return plan.from.map(|_| plan.clone()).ok_or_else(none);
            }
            State::Fetching { plan, .. } | State::Staged { plan } | State::Activating { plan } => {
                return Err(format!(
                    "{} is on its way: ask again when it has been tried out",
                    plan.version
                ));
            }
            State::RollingBack { plan, .. } => {
                return Err(format!("it is on its way back from {} already", plan.version));
            }
            State::Idle
            | State::Waiting { .. }
            | State::Confirmed { .. }
            | State::Failed { .. } => self.record.installed.clone().ok_or_else(none)?,
        };
        let before = plan.previous.clone().ok_or_else(none)?;
        if self.recalls.contains_key(&before) {
            return Err(format!("{before}, which ran before, is recalled"));
        }
        if self.running().as_ref() == Some(&before) {
            return Err(format!("{before} runs already, and nothing older is kept"));
        }
        let slot = plan.from.ok_or_else(none)?;
        match self.performer.contents(slot).ok().flatten() {
            Some(held) if held.version == before => Ok(plan),
            Some(_) | None => Err(format!("slot {slot} does not hold {before} any more")),
        }
    }
}
