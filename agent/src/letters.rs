//! What the device says to its server and what it is told in return. A letter is sealed once, put on
//! the disk, and sent with the same bytes until it is acknowledged; what it carried stays in the
//! journal until then. The directive restricts and carries; it opens nothing.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use lockgate_shared::{
    facts::Facts,
    id::{DeviceId, Digest, ProductId, RepositoryId, TenantId},
    json, limits,
    time::{Moment, Seconds},
    version::Version,
    wire::{
        Beacon, CodecError, Directive, Format, Letter, Orders, OutcomeRecord, Outcomes,
        ProductState, RolloutView,
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    core::{
        choice::short,
        trial::{Answer, Health},
    },
    journal::{Carries, Spooled},
};

/// Why a letter could not be written or its answer read.
#[derive(Debug, Error)]
pub enum LetterError {
    /// The letter is out of bounds.
    #[error("the letter cannot be sealed")]
    Seal(#[source] CodecError),
    /// The directive is not one.
    #[error("the server's answer cannot be read")]
    Answer(#[source] CodecError),
    /// The directive acknowledges another letter.
    #[error("the server acknowledged letter {found} instead of {sent}")]
    Other {
        /// What was sent.
        sent: u64,
        /// What came.
        found: u64,
    },
}

/// Who writes.
pub struct Writer {
    /// The device's key.
    pub key: SigningKey,
    /// Its id, which follows from the key.
    pub device: DeviceId,
    /// Its repository.
    pub repository: RepositoryId,
    /// Its tenant.
    pub tenant: TenantId,
    /// The agent's version.
    pub agent: Version,
}

/// What a letter is about.
pub struct Draft {
    /// Its number.
    pub sequence: u64,
    /// The digest of the letter that was last acknowledged; all zero before the first.
    pub previous: Digest,
    /// By the guarded clock.
    pub now: Moment,
    /// Since the machine booted.
    pub uptime: Seconds,
    /// What the device is.
    pub facts: Facts,
    /// The digest of the facts that the server has.
    pub facts_known: Option<Digest>,
    /// What it was told.
    pub orders: Orders,
    /// The newest timestamp version it verified.
    pub timestamp_version: u64,
    /// The highest stop it has seen.
    pub highest_stop: u64,
    /// Its products.
    pub products: Vec<ProductState>,
    /// Rollouts with their products.
    pub rollouts: Vec<(ProductId, RolloutView)>,
    /// Probe results.
    pub beacons: Vec<Beacon>,
    /// The chain over all outcomes.
    pub chain: Outcomes,
    /// Outcomes that wait.
    pub outcomes: Vec<OutcomeRecord>,
    /// What its operator should know.
    pub notices: Vec<String>,
}

/// Probe results since the last letter, by product and probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacons(BTreeMap<(ProductId, String), Count>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    held: u32,
    failed: u32,
    latency_ms: u32,
}

impl Beacons {
    /// Counts one result.
    pub fn count(&mut self, product: &ProductId, answer: &Answer) {
        let count = self.0.entry((product.clone(), answer.probe.clone())).or_default();
        count.latency_ms = count.latency_ms.max(answer.latency_ms);
        let counted = match answer.said.health {
            Health::Held => &mut count.held,
            Health::Failed | Health::Restarted => &mut count.failed,
        };
        *counted = counted.saturating_add(1);
    }

    /// Takes everything counted so far into a letter.
    pub fn take(&mut self) -> Vec<Beacon> {
        std::mem::take(&mut self.0)
            .into_iter()
            .take(limits::LETTER_BEACONS)
            .map(|((product, probe), count)| Beacon {
                product,
                probe,
                held: count.held,
                failed: count.failed,
                latency_ms: count.latency_ms,
            })
            .collect()
    }
}

impl Writer {
    /// Writes and seals a letter.
    pub fn write(&self, draft: Draft) -> Result<Spooled, LetterError> {
        let facts_digest = digest_of_facts(&draft.facts);
        let send_facts = draft.facts_known != Some(facts_digest);
        let carries = Carries {
            outcomes: draft.outcomes.iter().map(|record| record.number).collect(),
            grouped: draft
                .rollouts
                .iter()
                .filter(|(_, view)| !view.groups.is_empty())
                .map(|(product, view)| (product.clone(), view.rollout))
                .collect(),
            facts: send_facts.then_some(facts_digest),
        };
        let letter = Letter {
            repository: self.repository.clone(),
            tenant: self.tenant.clone(),
            device: self.device,
            sequence: draft.sequence,
            previous: draft.previous,
            sent: draft.now,
            uptime: draft.uptime,
            agent: self.agent.clone(),
            facts_digest,
            facts: send_facts.then_some(draft.facts),
            orders_digest: draft.orders.digest().map_err(LetterError::Seal)?,
            timestamp_version: draft.timestamp_version,
            highest_stop: draft.highest_stop,
            products: draft.products,
            rollouts: draft.rollouts.into_iter().map(|(_, view)| view).collect(),
            beacons: draft.beacons,
            outcomes_count: draft.chain.count,
            outcomes_digest: draft.chain.digest,
            outcomes: draft.outcomes,
            notices: draft
                .notices
                .iter()
                .take(limits::LETTER_REASONS)
                .map(|notice| short(notice))
                .collect(),
        };
        let sealed = letter.seal(Format::Binary, &self.key).map_err(LetterError::Seal)?;
        let bytes = sealed.to_bytes().map_err(LetterError::Seal)?;
        Ok(Spooled { sequence: draft.sequence, bytes, carries })
    }
}

/// Reads the answer to a letter.
pub fn read(answer: &[u8], sent: &Spooled) -> Result<Directive, LetterError> {
    let directive = Directive::read(answer, Format::Binary).map_err(LetterError::Answer)?;
    if directive.acknowledged == sent.sequence {
        Ok(directive)
    } else {
        Err(LetterError::Other { sent: sent.sequence, found: directive.acknowledged })
    }
}

/// The digest by which a letter names the device's facts: over their JSON, whose order is that of
/// their names.
pub fn digest_of_facts(facts: &Facts) -> Digest {
    let bytes = json::write(facts).unwrap_or_default();
    Digest::of_parts("lockgate facts v1", &[&bytes])
}
