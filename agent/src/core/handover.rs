//! The agent's own replacement, as the old agent sees it. A new agent runs its own trial like any
//! other release; but one that cannot even do that must not be the end of the device. So the old one
//! stays behind as a guard, and puts itself back unless the new one shows within a deadline that it
//! has taken over.
//!
//! The guard needs no server and believes the new agent only so far: that it checked in, or that it
//! ended its trial by itself.

use lockgate_shared::{manifest::Trial, time::Seconds};
use serde::{Deserialize, Serialize};

use super::trial::EXTENSIONS;
use crate::slots::Slot;

/// What the guard adds to the trial's own deadline, all extensions included: the new agent should
/// always be the first to decide.
pub const MARGIN: Seconds = Seconds(300);
/// How long a new agent may take to show that it runs at all.
pub const FIRST_SIGN: Seconds = Seconds(120);

/// What the guard was left with. Written before the switch, removed by the agent that takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchword {
    /// The slot with the old agent.
    pub guard: Slot,
    /// By when the new agent must have ended its trial, counted from the switch.
    pub deadline: Seconds,
}

/// What the guard sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// How long ago the switch was.
    pub elapsed: Seconds,
    /// How far the new agent has come.
    pub progress: Progress,
}

/// How far a new agent has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Nothing was heard of it.
    Silent,
    /// It has opened its journal and runs its trial.
    Running,
    /// It ended its trial, in whichever way.
    Ended,
}

/// What the guard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It looks again after this span.
    Wait(Seconds),
    /// The new agent has taken over: the guard ends.
    Leave,
    /// It puts the agent of this slot back.
    Restore(Slot),
}

impl Watchword {
    /// What to leave with the guard in the old slot, for a new agent with this trial.
    pub const fn of(trial: &Trial, guard: Slot) -> Self {
        let span = trial.deadline_s.0.saturating_mul(EXTENSIONS as u64 + 1);
        Self { guard, deadline: Seconds(span.saturating_add(MARGIN.0)) }
    }

    /// What the guard does now.
    pub fn decide(&self, sight: Sight) -> Decision {
        let until = match sight.progress {
            Progress::Ended => return Decision::Leave,
            Progress::Silent => FIRST_SIGN.min(self.deadline),
            Progress::Running => self.deadline,
        };
        match until.0.checked_sub(sight.elapsed.0) {
            Some(left) if left > 0 => Decision::Wait(Seconds(left.min(LOOK.0))),
            Some(_) | None => Decision::Restore(self.guard),
        }
    }
}

/// How often the guard looks: a device without an agent for so long misses one poll at most.
const LOOK: Seconds = Seconds(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::trial::tests::{local, trial};

    #[test]
    fn a_new_agent_that_is_never_heard_of_is_replaced_by_the_old_one() {
        let word = word();
        assert!(matches!(decide(&word, 0, Progress::Silent), Decision::Wait(_)));
        assert_eq!(decide(&word, 120, Progress::Silent), Decision::Restore(Slot::A));
    }

    #[test]
    fn a_new_agent_that_hangs_in_its_trial_is_replaced_at_the_deadline_and_not_before() {
        let word = word();
        assert!(matches!(decide(&word, 1499, Progress::Running), Decision::Wait(Seconds(1))));
        assert_eq!(decide(&word, 1500, Progress::Running), Decision::Restore(Slot::A));
    }

    #[test]
    fn the_guard_leaves_as_soon_as_the_trial_has_ended() {
        for elapsed in [0, 100, u64::MAX] {
            assert_eq!(decide(&word(), elapsed, Progress::Ended), Decision::Leave);
        }
    }

    fn word() -> Watchword {
        Watchword::of(&trial(&[("process", local())]), Slot::A)
    }

    fn decide(word: &Watchword, elapsed: u64, progress: Progress) -> Decision {
        word.decide(Sight { elapsed: Seconds(elapsed), progress })
    }
}
