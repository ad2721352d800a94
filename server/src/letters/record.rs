//! What the letter box knows of one device, in memory and on disk. Facts and the last letter are kept
//! encoded: a million devices must fit, and they are read one at a time, by people.

use lockgate_shared::{
    facts::Facts,
    id::{DeviceId, Digest, PublicKey, RolloutId, TenantId, TokenId},
    limits,
    time::{Moment, Seconds},
    version::Version,
    wire::{
        CodecError, Enrolment, Letter, ProductState, RolloutView, Sealed, TokenError,
        codec::{decode, encode},
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The first format of a row on disk.
const FORMAT_1: u8 = 1;
/// A row holds less than the letter and the facts it was made of.
const ROW_BYTES: usize = 2 * limits::LETTER_BYTES;

/// What stands for the letter before the first.
pub(super) const NO_LETTER: Digest = Digest([0; 32]);

/// A device as the letter box knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// The device.
    pub device: DeviceId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its key.
    pub key: PublicKey,
    /// The enrolment token that brought it.
    pub token: TokenId,
    /// The enrolment's offset.
    pub enrolled: u64,
    /// When it enrolled.
    pub enrolled_at: Moment,
    /// The last letter's number; 0 before the first.
    pub sequence: u64,
    /// The last letter's offset; the enrolment's before the first.
    pub offset: u64,
    /// When the last letter came; the enrolment before the first.
    pub received: Moment,
    /// Letters refused since the start, because other bytes had come under their number or a later
    /// one: a sign of a cloned device.
    pub replayed: u32,
    /// What it says it is, where it said so.
    pub facts: Option<Facts>,
    /// Its last letter, where one came and was not lost from memory at a restart.
    pub last: Option<LastLetter>,
}

/// What is kept of a device's last letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLetter {
    /// Its number.
    pub sequence: u64,
    /// By the device's clock.
    pub sent: Moment,
    /// Since the device booted.
    pub uptime: Seconds,
    /// The agent's version.
    pub agent: Version,
    /// The digest of the orders it holds.
    pub orders_digest: Digest,
    /// The newest timestamp version it verified.
    pub timestamp_version: u64,
    /// The highest stop it has seen.
    pub highest_stop: u64,
    /// Its products.
    pub products: Vec<ProductState>,
    /// Its rollouts, with every reason.
    pub rollouts: Vec<RolloutView>,
    /// How many outcomes it has had.
    pub outcomes_count: u64,
    /// The digest chained over them.
    pub outcomes_digest: Digest,
    /// What it wants its operator to know.
    pub notices: Vec<String>,
}

/// A row in memory and on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) tenant: TenantId,
    pub(super) key: PublicKey,
    pub(super) token: TokenId,
    pub(super) enrolled: u64,
    pub(super) enrolled_at: Moment,
    pub(super) sequence: u64,
    pub(super) digest: Digest,
    pub(super) offset: u64,
    pub(super) received: Moment,
    pub(super) facts_digest: Digest,
    pub(super) facts: Box<[u8]>,
    pub(super) last: Box<[u8]>,
    /// Rollouts that the device calls itself treated by and whose outcome came: nothing is open there.
    pub(super) settled: Vec<RolloutId>,
    /// What its last letter named as the one before; all zero where that is not known.
    pub(super) previous: Digest,
}

/// What an enrolment changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) device: DeviceId,
    pub(super) tenant: TenantId,
    pub(super) key: PublicKey,
    pub(super) token: TokenId,
    pub(super) received: Moment,
    pub(super) facts_digest: Digest,
    pub(super) facts: Box<[u8]>,
}

/// What a letter changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Update {
    pub(super) device: DeviceId,
    pub(super) sequence: u64,
    pub(super) digest: Digest,
    pub(super) received: Moment,
    /// None where only the letter's record is left, after a restart.
    pub(super) said: Option<Said>,
}

/// What a whole letter said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    facts: Option<(Digest, Box<[u8]>)>,
    last: Box<[u8]>,
    previous: Digest,
    treated: Vec<RolloutId>,
    ended: Vec<RolloutId>,
}

/// Why a row or an entry cannot be read.
#[derive(Debug, Error)]
pub enum RecordError {
    /// A row of a later version.
    #[error(
        "the row of a device has format {0}, this program reads format {FORMAT_1}\nhint: update this program"
    )]
    Format(u8),
    /// The bytes are no row.
    #[error("the row of a device cannot be read")]
    Codec(#[from] CodecError),
    /// An enrolment's token that was verified when it came, and is none now.
    #[error("the token of a journalled enrolment cannot be read")]
    Token(#[from] TokenError),
}

impl Row {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        let mut bytes = vec![FORMAT_1];
        bytes.extend(encode(self, ROW_BYTES)?);
        Ok(bytes)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((&FORMAT_1, body)) => Ok(decode(body, ROW_BYTES)?),
            Some((&other, _)) => Err(RecordError::Format(other)),
            None => Err(CodecError::Empty.into()),
        }
    }

    /// A new row, or what an enrolment leaves of the old one: the numbers of letters go on, so that
    /// no letter from before comes again.
    pub(super) fn enrol(old: Option<&Self>, arrival: &Arrival, offset: u64) -> Self {
        Self {
            tenant: arrival.tenant.clone(),
            key: arrival.key,
            token: arrival.token,
            enrolled: offset,
            enrolled_at: arrival.received,
            sequence: old.map_or(0, |row| row.sequence),
            digest: old.map_or(NO_LETTER, |row| row.digest),
            offset: old.filter(|row| row.sequence > 0).map_or(offset, |row| row.offset),
            received: old
                .filter(|row| row.sequence > 0)
                .map_or(arrival.received, |row| row.received),
            facts_digest: arrival.facts_digest,
            facts: arrival.facts.clone(),
            last: old.map_or_else(Box::default, |row| row.last.clone()),
            settled: old.map_or_else(Vec::new, |row| row.settled.clone()),
            previous: old.map_or(NO_LETTER, |row| row.previous),
        }
    }

    /// Takes in a letter; one that is older than the row changes nothing.
    pub(super) fn update(&mut self, update: Update, offset: u64) {
        if update.sequence <= self.sequence {
            return;
        }
        self.sequence = update.sequence;
        self.digest = update.digest;
        self.previous = update.said.as_ref().map_or(NO_LETTER, |said| said.previous);
        self.offset = offset;
        self.received = update.received;
        if let Some(said) = update.said {
            self.last = said.last;
            self.settled.extend(said.ended);
            // What the device names no more is over; so the list stays as short as a letter's.
            self.settled.retain(|rollout| said.treated.contains(rollout));
            self.settled.sort_unstable();
            self.settled.dedup();
            if let Some((digest, facts)) = said.facts {
                self.facts_digest = digest;
                self.facts = facts;
            }
        }
    }

    pub(super) fn record(&self, device: DeviceId, replayed: u32) -> DeviceRecord {
        DeviceRecord {
            device,
            tenant: self.tenant.clone(),
            key: self.key,
            token: self.token,
            enrolled: self.enrolled,
            enrolled_at: self.enrolled_at,
            sequence: self.sequence,
            offset: self.offset,
            received: self.received,
            replayed,
            // Empty is "none"; both were encoded here.
            facts: decode(&self.facts, limits::LETTER_BYTES).ok(),
            last: decode(&self.last, limits::LETTER_BYTES).ok(),
        }
    }
}

impl Arrival {
    pub(super) fn of(enrolment: &Enrolment, received: Moment) -> Result<Self, RecordError> {
        let token = enrolment.token.unverified()?;
        let facts = encode(&enrolment.facts, limits::LETTER_BYTES)?;
        Ok(Self {
            device: DeviceId::of_key(&enrolment.key),
            tenant: token.tenant,
            key: enrolment.key,
            token: token.id,
            received,
            facts_digest: Digest::of(&facts),
            facts: facts.into(),
        })
    }
}

impl Update {
    pub(super) fn of(
        sealed: &Sealed,
        letter: &Letter,
        received: Moment,
    ) -> Result<Self, CodecError> {
        let facts = match &letter.facts {
            Some(facts) => Some((letter.facts_digest, encode(facts, limits::LETTER_BYTES)?.into())),
            None => None,
        };
        let last = encode(&LastLetter::of(letter), limits::LETTER_BYTES)?.into();
        let treated = letter.rollouts.iter().filter(|view| view.treated);
        let treated = treated.map(|view| view.rollout).collect();
        let ended = letter.outcomes.iter().map(|record| record.outcome.rollout).collect();
        Ok(Self {
            device: letter.device,
            sequence: letter.sequence,
            digest: sealed.digest(),
            received,
            said: Some(Said { facts, last, previous: letter.previous, treated, ended }),
        })
    }
}

impl LastLetter {
    fn of(letter: &Letter) -> Self {
        Self {
            sequence: letter.sequence,
            sent: letter.sent,
            uptime: letter.uptime,
            agent: letter.agent.clone(),
            orders_digest: letter.orders_digest,
            timestamp_version: letter.timestamp_version,
            highest_stop: letter.highest_stop,
            products: letter.products.clone(),
            rollouts: letter.rollouts.clone(),
            outcomes_count: letter.outcomes_count,
            outcomes_digest: letter.outcomes_digest,
            notices: letter.notices.clone(),
        }
    }
}
