//! The loop's side of the TPM's counter: looks at it when the agent starts, has it rise when something
//! rose that a copy of the state must not set back, and keeps an old copy from installing anything.
//!
//! What counts is decided in [`crate::core::age`]. A counter that cannot be asked keeps the device from
//! installing too, until it can; nothing of what runs is touched by either.

use lockgate_shared::{failure::Chain, gather::gather};

use super::{Agent, ManagedProduct, RunError};
use crate::{
    core::age::{self, Age, Marks, Tally},
    log,
    tpm::{Counter, TpmError},
    world::World,
};

/// A counter that was made with the device's key.
pub struct Counted {
    /// It.
    pub counter: Box<dyn Counter>,
    /// Where it stood then.
    pub start: u64,
}

/// What is known of the state's age.
pub(super) struct Aged {
    counted: Counted,
    finding: Finding,
}

enum Finding {
    /// The counter has not been asked, or did not answer.
    Unknown(String),
    /// The state is the newest.
    Newest(Tally),
    /// It is not, and nothing in this run changes that.
    Refused(String),
}

impl Aged {
    pub(super) fn of(counted: Counted) -> Self {
        Self { counted, finding: Finding::Unknown("it was not asked yet".to_owned()) }
    }

    /// Why nothing may be installed by this state.
    pub(super) fn problem(&self) -> Option<String> {
        match &self.finding {
            Finding::Newest(_) => None,
            Finding::Unknown(why) => {
                Some(format!("nothing is installed while nobody knows the state's age: {why}"))
            }
            Finding::Refused(why) => Some(why.clone()),
        }
    }
}

impl<W: World> Agent<W> {
    /// Why nothing may be installed by this state, if the device has a counter that says so.
    pub(super) fn state_problem(&self) -> Option<String> {
        self.aged.as_ref().and_then(Aged::problem)
    }

    /// Asks the counter, where it is not known yet what it says. Tells owner and server what is wrong.
    pub(super) fn look_at_age(&mut self) -> Result<(), RunError> {
        let Some(aged) = &mut self.aged else { return Ok(()) };
        if let Finding::Unknown(_) = aged.finding {
            let device = self.writer.device;
            let tally = self.journal.tally()?.filter(|tally| tally.device == device);
            let tally = tally.unwrap_or_else(|| Tally::begun(device, aged.counted.start));
            aged.finding = match aged.counted.counter.value() {
                Ok(stands) => found(age::judge(tally.clone(), stands)),
                Err(error) => unknown(&error),
            };
            match &aged.finding {
                // A step that a power cut left half written down.
                Finding::Newest(now) if *now != tally => self.journal.save_tally(now)?,
                Finding::Newest(_) => {}
                Finding::Unknown(_) | Finding::Refused(_) => {
                    log::error(aged.problem().unwrap_or_default());
                }
            }
        }
        if let Some(problem) = self.state_problem()
            && !self.notices.contains(&problem)
        {
            self.notices.push(problem);
        }
        Ok(())
    }

    /// Has the counter rise where something rose that a copy of the state must not set back.
    pub(super) fn count(&mut self) -> Result<(), RunError> {
        let now = self.now().clock;
        let Some(Aged { finding: Finding::Newest(tally), .. }) = &self.aged else { return Ok(()) };
        let marks = self.marks()?;
        if !tally.is_due(&marks, now) {
            return Ok(());
        }
        let begun = tally.beginning(marks, now);
        self.journal.save_tally(&begun)?;
        let Some(aged) = &mut self.aged else { return Ok(()) };
        let stepped = aged.counted.counter.step();
        #[cfg(feature = "faults")]
        crate::faults::did();
        #[cfg(test)]
        crate::journal::power::did();
        aged.finding = match stepped {
            Ok(stands) => found(age::judge(begun, stands)),
            Err(error) => unknown(&error),
        };
        match &aged.finding {
            Finding::Newest(ended) => Ok(self.journal.save_tally(ended)?),
            // The journal says that a step was begun: the next look tells whether it was taken.
            Finding::Unknown(_) | Finding::Refused(_) => self.look_at_age(),
        }
    }

    /// What rose so far.
    fn marks(&self) -> Result<Marks, RunError> {
        let trusted = self.heard.trusted;
        let stop = self.products.iter().map(ManagedProduct::highest_stop).max();
        let recalled = self.products.iter().flat_map(|managed| {
            managed.recalls.keys().map(|version| format!("{}/{version}", managed.product))
        });
        Ok(Marks {
            root: trusted.map_or(0, |trusted| trusted.root_version),
            targets: trusted.map_or(0, |trusted| trusted.targets_version),
            outcomes: self.journal.outcomes()?.count,
            stop: stop.unwrap_or_default(),
            recalled: gather(recalled),
        })
    }
}

fn found(age: Age) -> Finding {
    match (age.problem(), age) {
        (None, Age::Newest(tally)) => Finding::Newest(tally),
        (problem, Age::Newest(_) | Age::Older { .. } | Age::Other { .. }) => {
            Finding::Refused(problem.unwrap_or_default())
        }
    }
}

fn unknown(error: &TpmError) -> Finding {
    Finding::Unknown(Chain(error).to_string())
}
