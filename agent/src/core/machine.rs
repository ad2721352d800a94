//! What one product on the device does next. [`step`] takes the state, an event and the slots as they
//! are on the disk, and says the next state, what is to be done, and what a person should know.
//!
//! ```text
//!           Chosen              Fetched            Verified, Cleared
//!  Idle ------------> Fetching ---------> Staged --------------------> Activating
//!   ^ |                 |    |              |                            |      |
//!   | | Refused         |    | Refused      | Refused          Activated |      | ActivateFailed
//!   | v                 |    v              v (the slot stays)           v      |
//!   | Waiting <---------+----+--------------+                          Trial    |
//!   |                   |                                              |   |    |
//!   |                   | FetchFailed, for good          probes held   |   |    | anything else
//!   |                   v                                through soak  v   v    v
//!   +--- next poll -- Failed <--------- RollingBack <------ Confirmed     RollingBack
//! ```
//!
//! The shell journals the state and the effects before it does any of them, and answers each with an
//! event. An effect may be done twice. An event that does not fit is ignored and reported. Nothing
//! here waits for a server: a trial ends, and a device falls back, without one.

use lockgate_shared::{
    id::{Digest, ProductId, RolloutId},
    manifest::{ArtifactKind, Trial},
    time::{Moment, Seconds},
    version::Version,
    wire::{Outcome, OutcomeKind, ReasonRecord, SlotState},
};
use serde::{Deserialize, Serialize};

use super::trial::{Answer, Blame, Health, Verdict, Watch};
use crate::slots::Slot;

/// How often bytes that are not the signed ones are fetched again before the release is given up: a
/// damaged copy in one cache is no fault of the release.
pub const FETCH_REFUSALS: u8 = 3;

/// How many polls the old slot has to reach the server after a trial that lacked contact alone,
/// before nobody knows whose fault it was.
pub const CONTACT_POLLS: u8 = 3;

/// A release on its way onto the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its rollout.
    pub rollout: RolloutId,
    /// The hash of its manifest: names the release's bytes and its list of files.
    pub manifest: Digest,
    /// Its version.
    pub version: Version,
    /// Its product.
    pub product: ProductId,
    /// The bytes for this device.
    pub artifact: PlannedArtifact,
    /// The slot that runs now, if any does.
    pub from: Option<Slot>,
    /// The slot that it goes to.
    pub to: Slot,
    /// How it proves itself.
    pub trial: Trial,
    /// What runs now.
    pub previous: Option<Version>,
    /// When it was chosen.
    pub chosen: Moment,
}

/// The bytes of a release for this device. Their list of files stands in the manifest, which the
/// journal keeps beside the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedArtifact {
    /// What it is.
    pub kind: ArtifactKind,
    /// Bytes as sent.
    pub size: u64,
    /// SHA-256 of the bytes as sent.
    pub sha256: Digest,
}

/// What a product's machine is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Nothing to do.
    #[default]
    Idle,
    /// Something speaks against installing. What was staged stays in its slot.
    Waiting {
        /// When that may have passed by time alone.
        until: Option<Moment>,
        /// Everything against the newest candidate.
        reasons: Vec<ReasonRecord>,
    },
    /// Bytes are coming into the other slot.
    Fetching {
        /// The release.
        plan: Plan,
        /// How often other bytes came than the signed ones.
        refusals: u8,
    },
    /// The other slot is complete.
    Staged {
        /// The release.
        plan: Plan,
    },
    /// Past the last look: the switch is about to be thrown, or was.
    Activating {
        /// The release.
        plan: Plan,
    },
    /// The new slot runs and proves itself.
    Trial {
        /// The release.
        plan: Plan,
        /// The trial so far.
        watch: Watch,
        /// Whether the next start of the agent is the switch itself.
        handover: Handover,
    },
    /// The new slot is kept.
    Confirmed {
        /// The version.
        version: Version,
    },
    /// On the way to the old slot.
    RollingBack {
        /// The release that failed.
        plan: Plan,
        /// Why.
        why: String,
        /// How far.
        way: Way,
        /// How long it had been on trial.
        took: Seconds,
    },
    /// It gave up on a release.
    Failed {
        /// The version.
        version: Version,
        /// Why.
        reasons: Vec<String>,
    },
}

/// Whether the agent itself is about to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handover {
    /// The next start is the new agent's first and no interruption.
    Due,
    /// Every start is an interruption.
    Done,
}

/// How far a rollback is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The old slot is being activated; the release is to blame.
    Switching,
    /// The old slot is being activated; only contact was missing.
    SwitchingWithoutContact,
    /// The old slot runs; whether it has contact tells a bad release from a bad network.
    Listening {
        /// How many more polls may fail.
        polls: u8,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The decision found a release that nothing speaks against.
    Chosen(Box<Plan>),
    /// The last look found that nothing speaks against it still.
    Cleared {
        /// The manifest that was looked at.
        manifest: Digest,
    },
    /// There are candidates, and something speaks against each.
    Refused {
        /// When that may have passed by time alone.
        until: Option<Moment>,
        /// Everything against the newest one.
        reasons: Vec<ReasonRecord>,
    },
    /// There is nothing newer.
    NothingNewer,
    /// The other slot is filled and sealed.
    Fetched,
    /// It is not.
    FetchFailed {
        /// Whether trying again may help.
        fault: Fault,
        /// Why.
        why: String,
    },
    /// The slot holds exactly what was signed.
    Verified,
    /// It does not.
    VerifyFailed {
        /// What differs.
        why: String,
    },
    /// The switch was thrown.
    Activated,
    /// It was not.
    ActivateFailed {
        /// Why.
        why: String,
    },
    /// The product did not start again after the switch.
    RestartFailed {
        /// Why.
        why: String,
    },
    /// A probe answered.
    Probed(Answer),
    /// Time passed.
    Tick,
    /// The server answered a letter, or did not.
    Contact(Contact),
    /// The agent started and found this state and these effects, of which it cannot know whether
    /// they were done.
    Restarted {
        /// The effects, in order.
        undone: Vec<Effect>,
    },
}

/// Whether the server was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// It answered.
    Reached,
    /// It did not.
    Missed,
}

/// Whose doing a failed transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The network's or the disk's: trying again may help.
    Passing,
    /// The bytes are not what was signed.
    Content,
}

/// What is to be done. Each may be done twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "kebab-case")]
pub enum Effect {
    /// Fill and seal the plan's slot.
    Fetch,
    /// Empty a slot.
    DiscardSlot {
        /// Which.
        slot: Slot,
    },
    /// Hold the plan's slot against the signed list once more.
    VerifySlot {
        /// Which.
        slot: Slot,
    },
    /// Ask everybody once more: refresh, check in, decide again.
    LastLook,
    /// Throw the switch.
    Activate {
        /// To this slot.
        slot: Slot,
    },
    /// Start the product again from its active slot.
    Restart,
    /// Ask a probe.
    RunProbe {
        /// Its name.
        probe: String,
    },
    /// Add to the device's outcomes. Done with the state's own journal entry, and so exactly once.
    RecordOutcome {
        /// The outcome.
        outcome: Outcome,
    },
    /// Never try this version again. Done with the state's own journal entry.
    RememberFailed {
        /// The version.
        version: Version,
    },
    /// Write to the server without waiting for the next poll.
    SendLetter,
}

/// The slots as they are on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Which one runs.
    pub active: Option<Slot>,
    /// The manifest of slot A's contents, if it is sealed.
    pub a: Option<Digest>,
    /// The manifest of slot B's contents, if it is sealed.
    pub b: Option<Digest>,
}

/// The moment, twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// By the guarded clock.
    pub clock: Moment,
    /// Since the machine booted.
    pub uptime: Seconds,
}

/// What follows from an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The next state.
    pub state: State,
    /// What is to be done, in this order.
    pub effects: Vec<Effect>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Device {
    /// What a slot holds.
    pub const fn holds(&self, slot: Slot) -> Option<Digest> {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }
}

impl State {
    /// The state's word in letters.
    pub const fn word(&self) -> SlotState {
        match self {
            Self::Idle => SlotState::Idle,
            Self::Waiting { .. } => SlotState::Waiting,
            Self::Fetching { .. } => SlotState::Fetching,
            Self::Staged { .. } => SlotState::Staged,
            Self::Activating { .. } => SlotState::Activating,
            Self::Trial { .. } => SlotState::Trial,
            Self::Confirmed { .. } => SlotState::Confirmed,
            Self::RollingBack { .. } => SlotState::RollingBack,
            Self::Failed { .. } => SlotState::Failed,
        }
    }

    /// The release on its way, if there is one.
    pub const fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Fetching { plan, .. }
            | Self::Staged { plan }
            | Self::Activating { plan }
            | Self::Trial { plan, .. }
            | Self::RollingBack { plan, .. } => Some(plan),
            Self::Idle | Self::Waiting { .. } | Self::Confirmed { .. } | Self::Failed { .. } => {
                None
            }
        }
    }

    /// How long until this state has something to do by itself.
    pub fn rest(&self) -> Option<Seconds> {
        match self {
            Self::Trial { watch, .. } => Some(watch.rest()),
            // A switch that failed is tried again at this pace: a full or read-only disk may heal.
            Self::RollingBack { way: Way::Switching | Way::SwitchingWithoutContact, .. } => {
                Some(Seconds(30))
            }
            Self::RollingBack { way: Way::Listening { .. }, .. }
            | Self::Idle
            | Self::Waiting { .. }
            | Self::Fetching { .. }
            | Self::Staged { .. }
            | Self::Activating { .. }
            | Self::Confirmed { .. }
            | Self::Failed { .. } => None,
        }
    }
}

/// What follows from `event` in `state`.
pub fn step(state: State, event: Event, device: &Device, now: Now) -> Step {
    let at = At { device, now };
    match state {
        State::Idle | State::Waiting { .. } | State::Confirmed { .. } | State::Failed { .. } => {
            at.rest(state, event)
        }
        State::Fetching { plan, refusals } => at.fetching(plan, refusals, event),
        State::Staged { plan } => at.staged(plan, event),
        State::Activating { plan } => at.activating(plan, event),
        State::Trial { plan, watch, handover } => {
            at.trial(Proving { plan, watch, handover }, event)
        }
        State::RollingBack { plan, why, way, took } => {
            at.rolling_back(Retreat { plan, why, way, took }, event)
        }
    }
}

/// Where and when a step is taken.
struct At<'a> {
    device: &'a Device,
    now: Now,
}

/// The contents of [`State::Trial`].
struct Proving {
    plan: Plan,
    watch: Watch,
    handover: Handover,
}

/// The contents of [`State::RollingBack`].
struct Retreat {
    plan: Plan,
    why: String,
    way: Way,
    took: Seconds,
}

impl Proving {
    fn state(self) -> State {
        State::Trial { plan: self.plan, watch: self.watch, handover: self.handover }
    }
}

impl Retreat {
    fn state(self) -> State {
        State::RollingBack { plan: self.plan, why: self.why, way: self.way, took: self.took }
    }
}

impl At<'_> {
    /// Idle, Waiting, Confirmed, Failed: nothing is under way.
    fn rest(&self, state: State, event: Event) -> Step {
        match event {
            Event::Chosen(plan) => self.take(state, *plan),
            Event::Refused { until, reasons } => to(State::Waiting { until, reasons }, Vec::new()),
            Event::NothingNewer => to(State::Idle, Vec::new()),
            Event::Restarted { undone } => to(state, undone),
            Event::RestartFailed { why } => {
                noted(to(state, Vec::new()), format!("the product was not restarted: {why}"))
            }
            Event::Tick | Event::Contact(_) => to(state, Vec::new()),
            Event::Cleared { .. }
            | Event::Fetched
            | Event::FetchFailed { .. }
            | Event::Verified
            | Event::VerifyFailed { .. }
            | Event::Activated
            | Event::ActivateFailed { .. }
            | Event::Probed(_) => ignored(state, &event),
        }
    }

    /// Begins with a plan, or goes on with it where its slot is filled already.
    fn take(&self, state: State, plan: Plan) -> Step {
        if self.device.active == Some(plan.to) || plan.from != self.device.active {
            return noted(to(state, Vec::new()), "the plan is for other slots: ignored".into());
        }
        if self.device.holds(plan.to) == Some(plan.manifest) {
            let slot = plan.to;
            return to(State::Staged { plan }, vec![Effect::VerifySlot { slot }]);
        }
        to(State::Fetching { plan, refusals: 0 }, vec![Effect::Fetch])
    }

    fn fetching(&self, plan: Plan, refusals: u8, event: Event) -> Step {
        match event {
            Event::Chosen(other) if other.manifest == plan.manifest => {
                to(State::Fetching { plan, refusals }, vec![Effect::Fetch])
            }
            Event::Chosen(other) => self.take(State::Fetching { plan, refusals }, *other),
            Event::Refused { until, reasons } => {
                let slot = plan.to;
                to(State::Waiting { until, reasons }, vec![Effect::DiscardSlot { slot }])
            }
            Event::NothingNewer => {
                let slot = plan.to;
                to(State::Idle, vec![Effect::DiscardSlot { slot }])
            }
            Event::Fetched => {
                let slot = plan.to;
                to(State::Staged { plan }, vec![Effect::VerifySlot { slot }])
            }
            Event::FetchFailed { fault: Fault::Passing, why } => noted(
                to(State::Fetching { plan, refusals }, Vec::new()),
                format!("fetching is tried again at the next poll: {why}"),
            ),
            Event::FetchFailed { fault: Fault::Content, why } => {
                let refusals = refusals.saturating_add(1);
                if refusals < FETCH_REFUSALS {
                    return noted(
                        to(State::Fetching { plan, refusals }, Vec::new()),
                        format!("these are not the signed bytes: {why}"),
                    );
                }
                self.give_up(plan, why)
            }
            // What came is unpacked from its beginning: a slot half filled cannot be trusted.
            Event::Restarted { .. } => to(State::Fetching { plan, refusals }, vec![Effect::Fetch]),
            Event::Tick | Event::Contact(_) => to(State::Fetching { plan, refusals }, Vec::new()),
            Event::Cleared { .. }
            | Event::Verified
            | Event::VerifyFailed { .. }
            | Event::Activated
            | Event::ActivateFailed { .. }
            | Event::RestartFailed { .. }
            | Event::Probed(_) => ignored(State::Fetching { plan, refusals }, &event),
        }
    }

    fn staged(&self, plan: Plan, event: Event) -> Step {
        let slot = plan.to;
        match event {
            Event::Verified => to(State::Staged { plan }, vec![Effect::LastLook]),
            Event::VerifyFailed { why } => noted(
                to(State::Idle, vec![Effect::DiscardSlot { slot }]),
                format!("the staged slot was discarded: {why}"),
            ),
            Event::Cleared { manifest } if manifest == plan.manifest => {
                to(State::Activating { plan }, vec![Effect::Activate { slot }])
            }
            Event::Chosen(other) => self.take(State::Staged { plan }, *other),
            Event::Refused { until, reasons } => to(State::Waiting { until, reasons }, Vec::new()),
            Event::NothingNewer => to(State::Idle, Vec::new()),
            // The last look may be long past: it is taken again.
            Event::Restarted { .. } => {
                to(State::Staged { plan }, vec![Effect::VerifySlot { slot }])
            }
            Event::Tick | Event::Contact(_) => to(State::Staged { plan }, Vec::new()),
            Event::Cleared { .. }
            | Event::Fetched
            | Event::FetchFailed { .. }
            | Event::Activated
            | Event::ActivateFailed { .. }
            | Event::RestartFailed { .. }
            | Event::Probed(_) => ignored(State::Staged { plan }, &event),
        }
    }

    fn activating(&self, plan: Plan, event: Event) -> Step {
        let slot = plan.to;
        match event {
            Event::Activated => {
                let watch = Watch::begin(&plan.trial, self.now.uptime);
                let handover = match plan.artifact.kind {
                    ArtifactKind::Agent => Handover::Due,
                    ArtifactKind::App | ArtifactKind::Image | ArtifactKind::Config => {
                        Handover::Done
                    }
                };
                to(State::Trial { plan, watch, handover }, vec![Effect::Restart])
            }
            Event::ActivateFailed { why } if self.device.active == Some(slot) => {
                self.retreat(plan, why, Blame::Release, Seconds(0))
            }
            Event::ActivateFailed { why } => self.give_up(plan, why),
            Event::Restarted { .. } if self.device.active == Some(slot) => {
                to(State::Activating { plan }, vec![Effect::Activate { slot }])
            }
            // Not switched yet, and the last look may be long past: it is taken again.
            Event::Restarted { .. } => {
                to(State::Staged { plan }, vec![Effect::VerifySlot { slot }])
            }
            Event::Tick
            | Event::Contact(_)
            | Event::Chosen(_)
            | Event::Refused { .. }
            | Event::NothingNewer => to(State::Activating { plan }, Vec::new()),
            Event::Cleared { .. }
            | Event::Fetched
            | Event::FetchFailed { .. }
            | Event::Verified
            | Event::VerifyFailed { .. }
            | Event::RestartFailed { .. }
            | Event::Probed(_) => ignored(State::Activating { plan }, &event),
        }
    }

    fn trial(&self, mut trial: Proving, event: Event) -> Step {
        match event {
            Event::Probed(answer) => {
                trial.watch.advance(&trial.plan.trial, self.now.uptime);
                trial.watch.answer(&trial.plan.trial, &answer);
                match answer.said.health {
                    Health::Held | Health::Failed => self.judge(trial, Vec::new()),
                    Health::Restarted => self.interrupted(
                        trial,
                        format!("probe `{}` found its process restarted", answer.probe),
                        Vec::new(),
                    ),
                }
            }
            Event::Tick => {
                trial.watch.advance(&trial.plan.trial, self.now.uptime);
                let due = trial.watch.due();
                self.judge(trial, due.into_iter().map(|probe| Effect::RunProbe { probe }).collect())
            }
            Event::RestartFailed { why } => {
                let why = format!("it did not start: {why}");
                self.retreat(trial.plan, why, Blame::Release, trial.watch.elapsed)
            }
            // The switch was thrown back while the agent was not looking, or could not write.
            Event::Restarted { .. }
                if trial.plan.from.is_some() && self.device.active == trial.plan.from =>
            {
                let why = "the old slot was active again at a start".into();
                self.retreat(trial.plan, why, Blame::Release, trial.watch.elapsed)
            }
            Event::Restarted { undone } => {
                // Probes are asked again by the next tick anyway.
                let undone: Vec<Effect> = undone
                    .into_iter()
                    .filter(|effect| matches!(effect, Effect::Restart | Effect::SendLetter))
                    .collect();
                match trial.handover {
                    Handover::Due => {
                        trial.handover = Handover::Done;
                        trial.watch.mark = self.now.uptime;
                        to(trial.state(), Vec::new())
                    }
                    Handover::Done => {
                        self.interrupted(trial, "the agent or the machine".into(), undone)
                    }
                }
            }
            Event::Contact(_) | Event::Chosen(_) | Event::Refused { .. } | Event::NothingNewer => {
                to(trial.state(), Vec::new())
            }
            Event::Cleared { .. }
            | Event::Fetched
            | Event::FetchFailed { .. }
            | Event::Verified
            | Event::VerifyFailed { .. }
            | Event::Activated
            | Event::ActivateFailed { .. } => ignored(trial.state(), &event),
        }
    }

    fn interrupted(&self, mut trial: Proving, what: String, effects: Vec<Effect>) -> Step {
        match trial.watch.interrupt(self.now.uptime) {
            Some(()) => {
                let left = trial.watch.attempts_left;
                let note = format!("the trial was interrupted ({what}), {left} more are allowed");
                noted(to(trial.state(), effects), note)
            }
            None => {
                let why = format!("the trial was interrupted once too often ({what})");
                self.retreat(trial.plan, why, Blame::Release, trial.watch.elapsed)
            }
        }
    }

    fn judge(&self, mut trial: Proving, effects: Vec<Effect>) -> Step {
        match trial.watch.verdict(&trial.plan.trial) {
            Verdict::Undecided => to(trial.state(), effects),
            Verdict::Extend => {
                trial.watch.extend(&trial.plan.trial);
                let note = "only the contact to the server is missing: the trial is extended";
                noted(to(trial.state(), effects), note.into())
            }
            Verdict::Keep => {
                let Proving { plan, watch, .. } = trial;
                let outcome = self.outcome(&plan, OutcomeKind::Confirmed, watch.elapsed, "");
                let effects = vec![Effect::RecordOutcome { outcome }, Effect::SendLetter];
                to(State::Confirmed { version: plan.version }, effects)
            }
            Verdict::RollBack { why, blame } => {
                self.retreat(trial.plan, why, blame, trial.watch.elapsed)
            }
        }
    }

    /// Turns back to the old slot, where there is one.
    fn retreat(&self, plan: Plan, why: String, blame: Blame, took: Seconds) -> Step {
        let Some(slot) = plan.from else {
            let why = format!("{why}; there is no older version to go back to");
            return self.failed(plan, OutcomeKind::RolledBack, why, took);
        };
        let way = match blame {
            Blame::Release => Way::Switching,
            Blame::Contact => Way::SwitchingWithoutContact,
        };
        to(State::RollingBack { plan, why, way, took }, vec![Effect::Activate { slot }])
    }

    fn rolling_back(&self, back: Retreat, event: Event) -> Step {
        match (event, back.way) {
            (Event::Activated, Way::Switching) => {
                let mut step = self.failed(back.plan, OutcomeKind::RolledBack, back.why, back.took);
                step.effects.push(Effect::Restart);
                step
            }
            (Event::Activated, Way::SwitchingWithoutContact) => {
                let way = Way::Listening { polls: CONTACT_POLLS };
                to(Retreat { way, ..back }.state(), vec![Effect::Restart])
            }
            (Event::ActivateFailed { why }, Way::Switching | Way::SwitchingWithoutContact) => {
                let note = format!("the way back is tried again: {why}");
                noted(to(back.state(), Vec::new()), note)
            }
            (
                Event::Tick | Event::Restarted { .. },
                Way::Switching | Way::SwitchingWithoutContact,
            ) => match back.plan.from {
                Some(slot) => to(back.state(), vec![Effect::Activate { slot }]),
                None => to(back.state(), Vec::new()),
            },
            (Event::Restarted { undone }, Way::Listening { .. }) => to(back.state(), undone),
            (Event::Contact(Contact::Reached), Way::Listening { .. }) => {
                let why = format!("{}; the old version reaches it", back.why);
                self.failed(back.plan, OutcomeKind::RolledBack, why, back.took)
            }
            (Event::Contact(Contact::Missed), Way::Listening { polls }) => {
                match polls.checked_sub(1) {
                    Some(polls) if polls > 0 => {
                        to(Retreat { way: Way::Listening { polls }, ..back }.state(), Vec::new())
                    }
                    Some(_) | None => self.inconclusive(back),
                }
            }
            (Event::RestartFailed { why }, _) => {
                noted(to(back.state(), Vec::new()), format!("the product was not restarted: {why}"))
            }
            (
                Event::Tick
                | Event::Contact(_)
                | Event::Chosen(_)
                | Event::Refused { .. }
                | Event::NothingNewer,
                _,
            ) => to(back.state(), Vec::new()),
            (
                event @ (Event::Cleared { .. }
                | Event::Fetched
                | Event::FetchFailed { .. }
                | Event::Verified
                | Event::VerifyFailed { .. }
                | Event::Activated
                | Event::ActivateFailed { .. }
                | Event::Probed(_)),
                _,
            ) => ignored(back.state(), &event),
        }
    }

    fn inconclusive(&self, back: Retreat) -> Step {
        let why = format!("{}; the old version does not reach it either", back.why);
        let outcome = self.outcome(&back.plan, OutcomeKind::Inconclusive, back.took, &why);
        to(
            State::Failed { version: back.plan.version, reasons: vec![why] },
            vec![Effect::RecordOutcome { outcome }, Effect::SendLetter],
        )
    }

    /// Gives up before the switch.
    fn give_up(&self, plan: Plan, why: String) -> Step {
        let slot = plan.to;
        let took = self.now.clock.since(plan.chosen);
        let mut step = self.failed(plan, OutcomeKind::Failed, why, took);
        step.effects.push(Effect::DiscardSlot { slot });
        step
    }

    fn failed(&self, plan: Plan, kind: OutcomeKind, why: String, took: Seconds) -> Step {
        let outcome = self.outcome(&plan, kind, took, &why);
        let version = plan.version;
        to(
            State::Failed { version: version.clone(), reasons: vec![why] },
            vec![
                Effect::RecordOutcome { outcome },
                Effect::RememberFailed { version },
                Effect::SendLetter,
            ],
        )
    }

    fn outcome(&self, plan: &Plan, kind: OutcomeKind, took: Seconds, detail: &str) -> Outcome {
        Outcome {
            rollout: plan.rollout,
            product: plan.product.clone(),
            version: plan.version.clone(),
            kind,
            at: self.now.clock,
            took,
            detail: detail.to_owned(),
        }
        .bounded()
    }
}

const fn to(state: State, effects: Vec<Effect>) -> Step {
    Step { state, effects, notes: Vec::new() }
}

fn noted(mut step: Step, note: String) -> Step {
    step.notes.push(note);
    step
}

fn ignored(state: State, event: &Event) -> Step {
    let note = format!("ignored in state {:?}: {}", state.word(), event.word());
    noted(to(state, Vec::new()), note)
}

impl Event {
    /// Its name.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Chosen(_) => "chosen",
            Self::Cleared { .. } => "cleared",
            Self::Refused { .. } => "refused",
            Self::NothingNewer => "nothing newer",
            Self::Fetched => "fetched",
            Self::FetchFailed { .. } => "fetch failed",
            Self::Verified => "verified",
            Self::VerifyFailed { .. } => "verify failed",
            Self::Activated => "activated",
            Self::ActivateFailed { .. } => "activate failed",
            Self::RestartFailed { .. } => "restart failed",
            Self::Probed(_) => "probed",
            Self::Tick => "tick",
            Self::Contact(_) => "contact",
            Self::Restarted { .. } => "restarted",
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
