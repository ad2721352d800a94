//! The agent's own replacement, as the old agent sees it. A new agent runs its own trial like any
//! other release; but one that cannot even do that must not be the end of the device. So the old one
//! stays as a guard: it runs the new one from its slot, as its child, and is itself what is installed
//! until the new one's trial has ended well.
//!
//! ```text
//!                 switch                      kept
//!  the old agent ---------> the guard -------------------> the new agent
//!        ^                  starts and watches the new one
//!        |                          |
//!        +--------------------------+  gave up by itself, silent, late, or died too often
//! ```
//!
//! The guard needs no server and believes the new agent only so far: that it runs, and that its trial
//! ended well, which for an agent takes a letter that the server acknowledged ([`trial`]). A power cut
//! costs an attempt: what is installed is the guard, and the guard begins again where this file says.

use lockgate_shared::{
    id::ProductId,
    manifest::{ArtifactKind, Probe, ProbeKind, Trial},
    time::Seconds,
    version::Version,
};
use serde::{Deserialize, Serialize};

use super::trial::EXTENSIONS;
use crate::slots::Slot;

/// What the guard adds to the trial's own deadline, all extensions included: the new agent should
/// always be the first to decide.
pub const MARGIN: Seconds = Seconds(300);
/// How long a new agent may take to show that it runs at all, where its trial does not end before.
pub const FIRST_SIGN: Seconds = Seconds(120);
/// How often the guard looks: often enough for a trial of seconds, and only while there is one.
pub const LOOK: Seconds = Seconds(1);
/// The name of the probe that every agent's trial has.
const CONTACT: &str = "contact";
/// How often it runs where nothing else says: as often as probes commonly do.
const CONTACT_INTERVAL: Seconds = Seconds(30);

/// What the guard goes by. Written before the switch, kept up with each start of the new agent,
/// removed by the agent that works afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchword {
    /// The product that is the agent.
    pub product: ProductId,
    /// The version on trial.
    pub version: Version,
    /// The slot with the old agent.
    pub guard: Slot,
    /// By when the new agent must have shown that it runs, counted from the guard's start.
    pub first_sign: Seconds,
    /// By when it must have ended its trial, counted likewise.
    pub deadline: Seconds,
    /// How far it is.
    pub stage: Stage,
}

/// How far a handover is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The new agent is being tried.
    Open {
        /// How often more it may be started.
        starts_left: u8,
    },
    /// The guard has decided against it.
    Refused {
        /// Why, in a sentence.
        why: String,
    },
}

/// What an agent finds when it starts while there is a watchword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The slot that is switched to.
    pub active: Option<Slot>,
    /// The slot whose binary is installed, and so has been started.
    pub installed: Option<Slot>,
}

/// What it is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Work as the agent: nothing is handed over, or everything was.
    Work,
    /// Watch over the new agent.
    Guard,
    /// Switch back to the guard's slot, then work as the agent.
    Return,
}

/// What the guard sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// How long it has watched.
    pub elapsed: Seconds,
    /// How far the new agent has come.
    pub progress: Progress,
    /// Whether it runs now.
    pub child: Child,
    /// The slot that is switched to.
    pub active: Option<Slot>,
}

/// Whether the new agent's process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// It was not started yet, or has ended.
    Absent,
    /// It runs.
    Runs,
}

/// How far a new agent has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Nothing was heard of it.
    Silent,
    /// It has opened its journal and runs its trial.
    Running,
    /// Its trial ended well.
    Kept,
}

/// What the guard does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It looks again soon.
    Wait,
    /// It starts the new agent, which costs one start.
    Start,
    /// It installs the new agent and ends.
    Install,
    /// It ends: the new agent went back by itself.
    Leave,
    /// It ends the new agent and goes back.
    Refuse {
        /// Why, in a sentence.
        why: String,
    },
}

impl Watchword {
    /// What to leave with the guard in the old slot, for a new agent with this trial.
    pub fn of(product: ProductId, version: Version, trial: &Trial, guard: Slot) -> Self {
        let span = trial.deadline_s.0.saturating_mul(u64::from(EXTENSIONS) + 1);
        // The first start is none of the trial's interruptions.
        let starts_left = trial.attempts.saturating_add(1);
        Self {
            product,
            version,
            guard,
            first_sign: FIRST_SIGN.min(trial.deadline_s),
            deadline: Seconds(span.saturating_add(MARGIN.0)),
            stage: Stage::Open { starts_left },
        }
    }

    /// What the installed agent does at its start.
    pub fn course(&self, found: Found) -> Course {
        match &self.stage {
            Stage::Refused { .. } => Course::Return,
            Stage::Open { .. } => {
                let switched = found.active == Some(self.guard.other());
                let installed = found.installed == Some(self.guard);
                if switched && installed { Course::Guard } else { Course::Work }
            }
        }
    }

    /// What the guard does now.
    pub fn decide(&self, sight: Sight) -> Decision {
        let starts_left = match &self.stage {
            Stage::Refused { why } => return Decision::Refuse { why: why.clone() },
            Stage::Open { starts_left } => *starts_left,
        };
        if sight.active != Some(self.guard.other()) {
            return Decision::Leave;
        }
        let until = match sight.progress {
            Progress::Kept => return Decision::Install,
            Progress::Silent => self.first_sign.min(self.deadline),
            Progress::Running => self.deadline,
        };
        if sight.elapsed >= until {
            let what = match sight.progress {
                Progress::Silent => "it gave no sign",
                Progress::Running | Progress::Kept => "its trial did not end",
            };
            return Decision::Refuse { why: format!("{what} within {until}") };
        }
        match (sight.child, starts_left) {
            (Child::Runs, _) => Decision::Wait,
            (Child::Absent, 0) => Decision::Refuse {
                why: "it ended before its trial had, and as often as it may".to_owned(),
            },
            (Child::Absent, _) => Decision::Start,
        }
    }

    /// The same after one more start of the new agent.
    #[must_use]
    pub fn started(mut self) -> Self {
        if let Stage::Open { starts_left } = &mut self.stage {
            *starts_left = starts_left.saturating_sub(1);
        }
        self
    }

    /// The same after the guard's decision against the new agent.
    #[must_use]
    pub fn refused(self, why: String) -> Self {
        Self { stage: Stage::Refused { why }, ..self }
    }
}

/// The trial of an artifact: its release's own, and for an agent always with a probe of its contact.
/// An agent that cannot reach its server cannot be mended by it either.
pub fn trial(kind: ArtifactKind, trial: &Trial) -> Trial {
    let mut trial = trial.clone();
    let agent = match kind {
        ArtifactKind::Agent => true,
        ArtifactKind::App | ArtifactKind::Image | ArtifactKind::Config => false,
    };
    if agent && !trial.probes.iter().any(|probe| probe.kind == ProbeKind::Contact) {
        let interval_s = trial.probes.iter().map(|probe| probe.interval_s).min();
        let taken = trial.probes.iter().any(|probe| probe.name == CONTACT);
        trial.probes.push(Probe {
            name: if taken { format!("agent-{CONTACT}") } else { CONTACT.to_owned() },
            kind: ProbeKind::Contact,
            interval_s: interval_s.unwrap_or(CONTACT_INTERVAL).min(CONTACT_INTERVAL),
        });
    }
    trial
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::trial::tests::{local, trial as trial_of};

    #[test]
    fn a_new_agent_that_is_never_heard_of_is_refused_though_it_runs() {
        let sight = Sight { child: Child::Runs, ..sight(0, Progress::Silent) };
        assert_eq!(word().decide(sight), Decision::Wait);
        let late = Sight { elapsed: Seconds(120), ..sight };
        assert!(matches!(word().decide(late), Decision::Refuse { .. }));
    }

    #[test]
    fn a_new_agent_that_hangs_in_its_trial_is_refused_at_the_deadline_and_not_before() {
        let at = |elapsed| {
            word().decide(Sight { child: Child::Runs, ..sight(elapsed, Progress::Running) })
        };
        assert_eq!(at(1499), Decision::Wait);
        assert!(matches!(at(1500), Decision::Refuse { .. }));
    }

    #[test]
    fn a_new_agent_that_dies_is_started_a_bounded_number_of_times() {
        let mut word = word();
        let mut starts = 0;
        while word.decide(sight(0, Progress::Silent)) == Decision::Start {
            word = word.started();
            starts += 1;
        }
        assert_eq!(starts, u32::from(trial_of(&[]).attempts) + 1);
        let decision = word.decide(sight(0, Progress::Silent));
        assert!(matches!(decision, Decision::Refuse { .. }), "{decision:?}");
        let running = Sight { child: Child::Runs, ..sight(0, Progress::Silent) };
        assert_eq!(word.decide(running), Decision::Wait, "the last start counts in full");
    }

    #[test]
    fn a_new_agent_that_was_kept_is_installed_however_late() {
        for elapsed in [0, 100, u64::MAX] {
            assert_eq!(word().decide(sight(elapsed, Progress::Kept)), Decision::Install);
        }
    }

    #[test]
    fn a_guard_leaves_when_the_new_agent_went_back_by_itself() {
        for progress in [Progress::Silent, Progress::Running, Progress::Kept] {
            let sight = Sight { active: Some(Slot::A), ..sight(0, progress) };
            assert_eq!(word().decide(sight), Decision::Leave);
        }
    }

    #[test]
    fn at_a_start_only_the_old_binary_over_a_switched_slot_guards() {
        let course = |active, installed| word().course(Found { active, installed });
        assert_eq!(course(Some(Slot::B), Some(Slot::A)), Course::Guard);
        assert_eq!(course(Some(Slot::A), Some(Slot::A)), Course::Work, "not switched yet");
        assert_eq!(course(Some(Slot::B), Some(Slot::B)), Course::Work, "installed already");
        assert_eq!(course(None, None), Course::Work, "another binary was installed by hand");
    }

    #[test]
    fn a_refusal_outlives_a_power_cut() {
        let word = word().refused("it gave no sign".into());
        for active in [Some(Slot::A), Some(Slot::B)] {
            let found = Found { active, installed: Some(Slot::A) };
            assert_eq!(word.course(found), Course::Return);
        }
    }

    #[test]
    fn an_agents_trial_always_asks_for_contact_and_no_other_trial_is_changed() {
        let own = trial_of(&[("process", local())]);
        let agents = trial(ArtifactKind::Agent, &own);
        assert!(agents.probes.iter().any(|probe| probe.kind == ProbeKind::Contact));
        assert_eq!(trial(ArtifactKind::Agent, &agents), agents);
        assert_eq!(trial(ArtifactKind::App, &own), own);
    }

    fn word() -> Watchword {
        let product = "agent".parse().expect("a name");
        let version = "1.1.0".parse().expect("a version");
        Watchword::of(product, version, &trial_of(&[("process", local())]), Slot::A)
    }

    fn sight(elapsed: u64, progress: Progress) -> Sight {
        let elapsed = Seconds(elapsed);
        Sight { elapsed, progress, child: Child::Absent, active: Some(Slot::B) }
    }
}
