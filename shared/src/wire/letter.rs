//! The letter: the signed body of a check-in. Frozen, version 1.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use super::{
    codec::{self, CodecError},
    sealed::{Format, Kind, Sealed},
};
use crate::{
    bucket::Bucket,
    cut::cut,
    eligibility::Reason,
    facts::Facts,
    group::{GROUPS_PER_DEVICE, Habit},
    id::{
        ChannelId, CohortId, DeviceId, Digest, GroupId, ProductId, PublicKey, RepositoryId,
        RolloutId, TenantId,
    },
    limits,
    pin::Pin,
    time::{Moment, Seconds},
    version::Version,
};

/// What a device says at a check-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The repository it is meant for: a letter cannot be moved to another one.
    pub repository: RepositoryId,
    /// The device's tenant.
    pub tenant: TenantId,
    /// The device: the same as outside.
    pub device: DeviceId,
    /// Strictly rising over the device's life, from 1. The same number comes again only with the
    /// same bytes.
    pub sequence: u64,
    /// The digest of the sealed letter that was last acknowledged; all zero where the device knows of
    /// none. Two letters that name the same one, or one that names an older one, come from two devices
    /// with one identity.
    pub previous: Digest,
    /// By the device's clock.
    pub sent: Moment,
    /// Since the device booted.
    pub uptime: Seconds,
    /// The agent's version.
    pub agent: Version,
    /// The digest of its facts.
    pub facts_digest: Digest,
    /// The facts, when they are new or the server asked for them.
    pub facts: Option<Facts>,
    /// The digest of the orders it holds.
    pub orders_digest: Digest,
    /// The newest timestamp version it verified.
    pub timestamp_version: u64,
    /// The highest number among the stops it has seen, 0 for none: shows who has confirmed a stop.
    pub highest_stop: u64,
    /// Its products.
    pub products: Vec<ProductState>,
    /// The rollouts that it has an open question about, or is treated by.
    pub rollouts: Vec<RolloutView>,
    /// Probe results since the last acknowledged letter.
    pub beacons: Vec<Beacon>,
    /// How many outcomes it has had in its life.
    pub outcomes_count: u64,
    /// The digest chained over all of them.
    pub outcomes_digest: Digest,
    /// Those that no acknowledged letter has carried yet.
    pub outcomes: Vec<OutcomeRecord>,
    /// What it wants its operator to know: refusals, missing timestamps, at most
    /// [`limits::LETTER_REASONS`] short sentences.
    pub notices: Vec<String>,
}

/// What stands for the channel in the letters of a device that has not read the policy yet, and whose
/// owner names none. The letter after its first refresh names the channel.
pub const NO_CHANNEL: &str = "unknown";

/// One product on the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductState {
    /// The product.
    pub product: ProductId,
    /// The channel it follows; [`NO_CHANNEL`] where it has none yet.
    pub channel: ChannelId,
    /// What it wants.
    pub pin: Pin,
    /// What runs, and where.
    pub state: SlotState,
    /// The version in the active slot.
    pub running: Option<Version>,
    /// The manifest's hash of the active slot: finds builds that the server does not know.
    pub running_manifest: Option<Digest>,
    /// The version in the other slot.
    pub other: Option<Version>,
}

/// What the state machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// Nothing to do.
    Idle,
    /// Something speaks against installing.
    Waiting,
    /// Bytes are coming.
    Fetching,
    /// The other slot is complete and verified.
    Staged,
    /// About to switch, or switching.
    Activating,
    /// The new slot proves itself.
    Trial,
    /// The new slot is kept.
    Confirmed,
    /// On the way back.
    RollingBack,
    /// It gave up on a release.
    Failed,
}

impl SlotState {
    /// Its word, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Staged => "staged",
            Self::Activating => "activating",
            Self::Trial => "trial",
            Self::Confirmed => "confirmed",
            Self::RollingBack => "rolling-back",
            Self::Failed => "failed",
        }
    }
}

/// A rollout as the device sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutView {
    /// The rollout.
    pub rollout: RolloutId,
    /// The device's cohort in it.
    pub cohort: CohortId,
    /// Its bucket.
    pub bucket: Bucket,
    /// Its habit when it first saw it.
    pub habit: Habit,
    /// Its groups when it first saw it: in every letter until one that had them is acknowledged, then
    /// left out.
    pub groups: Vec<GroupId>,
    /// Whether the device has been let in (it began to fetch).
    pub treated: bool,
    /// Every reason against installing, in order.
    pub reasons: Vec<ReasonRecord>,
}

/// A reason in a letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonRecord {
    /// [`Reason::code`].
    pub code: u16,
    /// The sentence.
    pub text: String,
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// The product.
    pub product: ProductId,
    /// The probe.
    pub probe: String,
    /// How often it held since the last acknowledged letter.
    pub held: u32,
    /// How often it failed.
    pub failed: u32,
    /// The longest it took, in milliseconds.
    pub latency_ms: u32,
}

/// How an installation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    /// The new slot is kept.
    Confirmed,
    /// It failed before activation (download, space, verification): says nothing on health.
    Failed,
    /// The device went back to its old slot.
    RolledBack,
    /// Neither slot could reach anything: nobody knows.
    Inconclusive,
}

/// One outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The rollout.
    pub rollout: RolloutId,
    /// The product.
    pub product: ProductId,
    /// The version.
    pub version: Version,
    /// How it ended.
    pub kind: OutcomeKind,
    /// When, by the device's clock.
    pub at: Moment,
    /// How long from activation (or from the first byte, if it came to none).
    pub took: Seconds,
    /// Why, in a sentence of at most [`limits::LETTER_TEXT`] bytes.
    pub detail: String,
}

/// An outcome and its number in the device's life, from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// The number.
    pub number: u64,
    /// The outcome.
    pub outcome: Outcome,
}

/// The count and chained digest of a device's outcomes: a single lost one shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// How many.
    pub count: u64,
    /// The chain's head; all zero before the first.
    pub digest: Digest,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self { count: 0, digest: Digest([0; 32]) }
    }
}

impl Outcomes {
    /// The chain with one more outcome.
    pub fn with(self, outcome: &Outcome) -> Result<Self, CodecError> {
        let bytes = codec::encode(outcome, limits::LETTER_BYTES)?;
        let count = self.count.saturating_add(1);
        let digest = Digest::of_parts(
            "lockgate outcomes v1",
            &[&self.digest.0, &count.to_be_bytes(), &bytes],
        );
        Ok(Self { count, digest })
    }
}

impl ReasonRecord {
    /// A reason as a letter carries it.
    pub fn of(reason: &Reason) -> Self {
        Self { code: reason.code(), text: cut(&reason.to_string(), limits::LETTER_TEXT) }
    }
}

impl Outcome {
    /// The same outcome with its detail cut to what a letter carries.
    pub fn bounded(mut self) -> Self {
        self.detail = cut(&self.detail, limits::LETTER_TEXT);
        self
    }
}

impl Letter {
    /// Seals the letter with the device's key.
    pub fn seal(&self, format: Format, key: &SigningKey) -> Result<Sealed, CodecError> {
        self.check()?;
        Sealed::seal(self, Kind::Letter, format, key)
    }

    /// Verifies and reads a sealed letter.
    pub fn open(sealed: &Sealed, key: &PublicKey) -> Result<Self, CodecError> {
        let letter: Self = sealed.open(Kind::Letter, key)?;
        if letter.device != sealed.device {
            return Err(CodecError::Field("its device differs inside and outside"));
        }
        letter.check()?;
        Ok(letter)
    }

    /// Reads a sealed letter without verifying it: for fuzzing and for showing it to people.
    pub fn open_unverified(sealed: &Sealed) -> Result<Self, CodecError> {
        let letter: Self = sealed.decode_unverified()?;
        letter.check()?;
        Ok(letter)
    }

    /// The bounds of everything in it.
    pub fn check(&self) -> Result<(), CodecError> {
        let short = |text: &String| text.len() <= limits::LETTER_TEXT;
        let refuse = |what| Err(CodecError::Field(what));
        if self.sequence == 0 {
            return refuse("sequence numbers begin at 1");
        }
        if self.facts.as_ref().is_some_and(|facts| !facts.well_formed()) {
            return refuse("a fact is too long or not printable");
        }
        if self.products.len() > limits::DEVICE_PRODUCTS {
            return refuse("too many products");
        }
        if self.rollouts.len() > limits::LETTER_ROLLOUTS {
            return refuse("too many rollouts");
        }
        for view in &self.rollouts {
            let groups = view.groups.len();
            if groups != 0 && groups != GROUPS_PER_DEVICE {
                return refuse("a rollout needs one group of each kind");
            }
            if view.reasons.len() > limits::LETTER_REASONS
                || !view.reasons.iter().all(|reason| short(&reason.text))
            {
                return refuse("too many or too long reasons");
            }
        }
        if self.beacons.len() > limits::LETTER_BEACONS
            || !self.beacons.iter().all(|beacon| beacon.probe.len() <= 40)
        {
            return refuse("too many or too long beacons");
        }
        if self.outcomes.len() > limits::LETTER_OUTCOMES
            || !self.outcomes.iter().all(|record| short(&record.outcome.detail))
        {
            return refuse("too many or too long outcomes");
        }
        if self.notices.len() > limits::LETTER_REASONS || !self.notices.iter().all(short) {
            return refuse("too many or too long notices");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_the_same_word_for_people_and_in_json() {
        use SlotState as S;
        for state in [
            S::Idle,
            S::Waiting,
            S::Fetching,
            S::Staged,
            S::Activating,
            S::Trial,
            S::Confirmed,
            S::RollingBack,
            S::Failed,
        ] {
            assert_eq!(serde_json::to_value(state).expect("a word"), state.name());
        }
    }
}
