//! The interface between letter box and gatekeeper: one numbered stream of entries, and what the
//! gatekeeper reports back. The gatekeeper connects to the letter box's Unix socket, pulls from an
//! offset, and trusts nothing that comes: it verifies every entry byte for byte.
//!
//! A frame is a length (four bytes, little-endian) and a bincode message of at most [`FRAME_BYTES`].

use lockgate_shared::{
    id::{DeviceId, Digest, ProductId, TenantId},
    rollout::Scope,
    time::Moment,
    wire::Format,
};
use serde::{Deserialize, Serialize};

use crate::{
    letters::bars::BarKind,
    status::{Status, Verdict},
};

/// The longest frame: a batch stops before it would grow beyond this.
pub const FRAME_BYTES: usize = 16 << 20;

/// Devices that are watched: of each, the first letter of every hour is journalled whole, so that the
/// gatekeeper knows in which hours it was there. A larger fleet is watched in part.
pub const WATCHED: u32 = 40_000;

/// Below which place, by [`watch_place`], a device is watched in a fleet of `devices`.
pub fn watched_below(devices: usize) -> u32 {
    let share = (u64::from(WATCHED) << 32) / (devices as u64).max(1);
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// A device's place among those that may be watched: from its id, so that both sides know it, and apart
/// from its bucket in any rollout.
pub const fn watch_place(device: &DeviceId) -> u32 {
    let [a, b, c, d, ..] = device.0;
    u32::from_be_bytes([a, b, c, d])
}

/// One entry of the stream. Offsets rise without gaps from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the stream.
    pub offset: u64,
    /// When the letter box took it.
    pub received: Moment,
    /// What it is.
    pub kind: EntryKind,
    /// Its bytes, as they came.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// A digest by which both sides know that an entry is the same, whatever its number.
    pub fn digest(&self) -> Digest {
        Digest::of_parts("lockgate entry v1", &[&self.received.0.to_be_bytes(), &self.bytes])
    }
}

/// What an entry is, and so how its bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A sealed enrolment (`lockgate_shared::wire::Sealed`).
    Enrolment(Format),
    /// A sealed letter, whole.
    Letter(Format),
    /// A [`LetterRecord`]: a letter that was not journalled whole.
    Record,
    /// A signed act of people (`SignedAct` as JSON).
    Act,
    /// A [`Publication`] as JSON: signed metadata of a role, and its new targets.
    Publish,
    /// A [`StopRequest`] as JSON: what restricts.
    Stop,
    /// A [`BarRequest`] as JSON: a device whose letters are not taken any more.
    Bar,
    /// A [`WithdrawRequest`] as JSON: a device's grants that count no more.
    Withdraw,
}

impl EntryKind {
    /// Whether it is a letter, whole or not.
    pub const fn is_letter(self) -> bool {
        match self {
            Self::Letter(_) | Self::Record => true,
            Self::Enrolment(_)
            | Self::Act
            | Self::Publish
            | Self::Stop
            | Self::Bar
            | Self::Withdraw => false,
        }
    }
}

/// What is kept of a letter that is not journalled whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterRecord {
    /// The device.
    pub device: DeviceId,
    /// The letter's number.
    pub sequence: u64,
    /// The digest of the sealed letter.
    pub digest: Digest,
}

/// Signed TUF metadata of one offline role (`root`, `targets` or `releases-<product>`), published
/// byte for byte as signed, and the small targets it brings (manifests, policy). Artifacts travel
/// apart, by hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The role's name.
    pub role: String,
    /// The exact text of its metadata.
    pub metadata: String,
    /// New targets: path and exact text.
    pub targets: Vec<(String, String)>,
    /// What takes effect together with it or not at all, in this order: a new root brings the targets
    /// that its keys signed, new targets bring the release roles that their keys signed. What stands
    /// here brings nothing itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<Self>,
}

/// A person's restriction, by token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// What is stopped.
    pub scope: Scope,
    /// Whether it can be lifted.
    pub how: StopHow,
    /// Why.
    pub reason: String,
    /// The token's name, which belongs to a person in the policy.
    pub token: String,
}

/// A device whose letters are not taken any more. To the gatekeeper it is the letter box's word, so it
/// makes the device no better: what it reports of health counts no more, what it reports of harm does,
/// and its silence is silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarRequest {
    /// The device.
    pub device: DeviceId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Why, in a word.
    pub kind: BarKind,
    /// Why, in a sentence.
    pub reason: String,
    /// Who says so: a token's name, or the letter box.
    pub by: String,
}

/// A device's grants that count no more: it is in the last cohort again, in rollouts that it has not seen
/// yet. That restricts, so nobody signs it, and to the gatekeeper it is the letter box's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawRequest {
    /// The device.
    pub device: DeviceId,
    /// Its tenant.
    pub tenant: TenantId,
    /// The product.
    pub product: ProductId,
    /// Grants that were issued until then.
    pub issued: Moment,
    /// Who says so: a token's name.
    pub by: String,
}

/// Whether a stop can be lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopHow {
    /// A pause: numbered, ended by a lift.
    Pause,
    /// The end of one rollout, for good. Only with [`Scope::Rollout`].
    End,
}

/// From the gatekeeper to the letter box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Entries from an offset on; answered at once if there are any, else after at most `wait_ms`.
    Pull {
        /// The first offset wanted: everything below was counted.
        from: u64,
        /// The digest of the last entry that was counted, by [`Entry::digest`]: a letter box whose store
        /// was restored from a backup has another one there.
        last: Option<Digest>,
        /// How many at most.
        max: u32,
        /// How long to wait for the first.
        wait_ms: u32,
    },
    /// What the gatekeeper decided since its last report. The letter box keeps and serves it.
    Report {
        /// Verdicts, by rising number.
        verdicts: Vec<Verdict>,
        /// The state of everything, for people.
        status: Box<Status>,
        /// New lines of the gatekeeper's audit chain.
        audit: Vec<String>,
    },
}

/// From the letter box to the gatekeeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Entries, and the offset that the next one will have.
    Batch {
        /// The entries, without gaps.
        entries: Vec<Entry>,
        /// One beyond the newest offset.
        head: u64,
    },
    /// The report is on disk.
    Reported,
    /// The request could not be served.
    Refused(String),
}
