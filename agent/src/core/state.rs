//! The words of a product's machine: its states, what happens to it, and what it asks for. Plain data
//! that the journal keeps; what follows from what is in [`super::machine`].

use lockgate_shared::{
    id::{Digest, ProductId, RolloutId},
    manifest::{ArtifactKind, Trial},
    time::{Moment, Seconds},
    version::Version,
    wire::{Outcome, ReasonRecord, SlotState},
};
use serde::{Deserialize, Serialize};

use super::trial::{Answer, Watch};
use crate::slots::Slot;

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
    /// Once it is confirmed, nothing leads back.
    #[serde(default)]
    pub irreversible: bool,
    /// It migrates data which what runs now cannot read afterwards.
    #[serde(default)]
    pub strands_data: bool,
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

/// That other bytes came than the signed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// How often, in a row.
    pub times: u8,
    /// They are not asked for again before.
    pub until: Option<Moment>,
}

/// What a product's machine is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
        refused: Refused,
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
    /// The owner wants the version before this one, which the plan brought.
    GoBack(Box<Plan>, Consent),
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

/// What the owner agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consent {
    /// To go back, where nothing is lost by it.
    GoBack,
    /// Also to a version that cannot read the product's data.
    LoseData,
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
#[serde(rename_all = "kebab-case")]
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
            Self::GoBack(..) => "go back",
            Self::Probed(_) => "probed",
            Self::Tick => "tick",
            Self::Contact(_) => "contact",
            Self::Restarted { .. } => "restarted",
        }
    }
}
