//! Enrolments and letters: whether one is taken, and what it is answered. The answer is looked up,
//! and is given only when what it acknowledges is on disk.

use lockgate_shared::{
    id::{DeviceId, Digest, RepositoryId, TenantId},
    limits,
    time::{Moment, Seconds},
    wire::{
        CodecError, Directive, Enrolment, EnrolmentAnswer, Format, Letter, Sealed, SlotState,
        TokenError, codec,
    },
};
use thiserror::Error;

use super::{
    LetterBox,
    bars::{Bar, BarKind},
    devices::{Identity, Number, Reserved},
    journal::{JournalError, Then, Write, Written},
    record::{Arrival, RecordError, Update},
    tokens::{Claim, Claimed},
};
use crate::{
    store::NewEntry,
    stream::{BarRequest, EntryKind, LetterRecord},
};

/// A letter's record: device, number, digest.
pub(super) const RECORD_BYTES: usize = 72;
/// How many older letters of the same device one waits for before the device is asked to come again:
/// an honest device has one letter under way.
const BEHIND: usize = 4;

/// Why an enrolment or a letter is not taken.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Its bytes are no message, or its signature does not hold.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The device is not enrolled here.
    #[error("device `{0}` is not enrolled here\nhint: enrol it again with a token of its tenant")]
    UnknownDevice(DeviceId),
    /// It is meant for another repository.
    #[error("it is meant for repository `{found}`, this server carries `{own}`")]
    Repository {
        /// In the message.
        found: RepositoryId,
        /// This server's.
        own: RepositoryId,
    },
    /// It names another tenant than the one that the device enrolled in.
    #[error("it names tenant `{0}`, in which the device is not enrolled")]
    Tenant(TenantId),
    /// Other bytes came under its number, or a later number came.
    #[error(
        "number {sequence} is not above the last number {last}\nhint: the device's state may be a copy or a backup; enrol one of the two under a new key"
    )]
    Replayed {
        /// Its number.
        sequence: u64,
        /// The last one.
        last: u64,
    },
    /// The device writes more often than any device needs to.
    #[error("this device writes too often\nhint: come again in {wait}")]
    TooOften {
        /// After how long to come again.
        wait: Seconds,
    },
    /// The device was revoked, or is held.
    #[error("{0}")]
    Barred(Bar),
    /// The token brings nobody in.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token was used as often as it may be.
    #[error(
        "the enrolment token is used up\nhint: have a new one made with `lockgate token enrol`"
    )]
    TokenUsedUp,
    /// The device used this token before, and enrolled with another one since.
    #[error("the device has enrolled with another token since\nhint: use that token, or a new one")]
    OlderToken,
    /// There is no policy to judge tokens by.
    #[error("this server has no repository yet\nhint: come again when its operator has set one up")]
    NoPolicy,
    /// It cannot be encoded for the journal.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It could not be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl From<Bar> for Refusal {
    fn from(bar: Bar) -> Self {
        Self::Barred(bar)
    }
}

impl LetterBox {
    /// Takes a letter and answers it.
    pub async fn check_in(
        &self,
        bytes: &[u8],
        format: Format,
        now: Moment,
    ) -> Result<Directive, Refusal> {
        let sealed = Sealed::read(bytes, format)?;
        let identity =
            self.devices.identity(&sealed.device).ok_or(Refusal::UnknownDevice(sealed.device))?;
        let letter = Letter::open(&sealed, &identity.key)?;
        self.check_repository(&letter.repository)?;
        if letter.tenant != identity.tenant {
            return Err(Refusal::Tenant(letter.tenant));
        }
        // After the signature: nobody uses up what is another's.
        self.writers.pass(&letter.device, now).map_err(|wait| Refusal::TooOften { wait })?;
        // Only now: a stranger is not told.
        if let Some(bar) = self.bars.of(&letter.device) {
            return Err(bar.into());
        }
        let offset = self.record(bytes, &sealed, &letter, &identity, now).await?;
        Ok(self.directive(&letter, &identity, offset, now))
    }

    /// Takes an enrolment and answers it.
    pub async fn enrol(
        &self,
        bytes: &[u8],
        format: Format,
        now: Moment,
    ) -> Result<EnrolmentAnswer, Refusal> {
        let sealed = Sealed::read(bytes, format)?;
        let enrolment = Enrolment::open(&sealed)?;
        let claimed = enrolment.token.unverified()?;
        self.check_repository(&claimed.repository)?;
        if let Some(bar) = self.bars.of(&sealed.device) {
            return Err(bar.into());
        }
        let known = self.devices.identity(&sealed.device);
        if let Some(identity) = &known
            && identity.token == claimed.id
            && identity.tenant == claimed.tenant
        {
            return Ok(self.welcome(
                claimed.repository,
                claimed.tenant,
                &sealed,
                identity.enrolled,
            ));
        }
        let token = {
            let policy = self.policy().ok_or(Refusal::NoPolicy)?;
            enrolment.token.verify(&policy.policy, now)?
        };
        let arrival = Arrival::of(&enrolment, now)?;
        let current = known.map(|identity| identity.token);
        let claim = Claim { token: token.id, device: sealed.device, uses: token.uses, current };
        let claimed = self.uses.claim(claim, |change, answer| {
            let kind = EntryKind::Enrolment(format);
            let entry = NewEntry { received: now, kind, bytes: bytes.to_vec() };
            let then = Then::Enrol(arrival, answer);
            self.journal.write(Write { changes: vec![change], entry: Some(entry), then })
        });
        let offset = match claimed {
            Claimed::Queued(written) => written.wait().await?,
            Claimed::UsedUp => return Err(Refusal::TokenUsedUp),
            Claimed::Older => return Err(Refusal::OlderToken),
            Claimed::Refused(error) => return Err(error.into()),
        };
        Ok(self.welcome(token.repository, token.tenant, &sealed, offset))
    }

    fn check_repository(&self, found: &RepositoryId) -> Result<(), Refusal> {
        let policy = self.policy().ok_or(Refusal::NoPolicy)?;
        let own = &policy.policy.repository;
        if found == own {
            Ok(())
        } else {
            Err(Refusal::Repository { found: found.clone(), own: own.clone() })
        }
    }

    fn welcome(
        &self,
        repository: RepositoryId,
        tenant: TenantId,
        sealed: &Sealed,
        offset: u64,
    ) -> EnrolmentAnswer {
        tracing::debug!(device = %sealed.device, offset, "enrolled");
        let next_poll = self.polls.interval_s;
        EnrolmentAnswer { repository, tenant, device: sealed.device, offset, next_poll }
    }

    /// Brings the letter to disk, once, and returns its offset.
    async fn record(
        &self,
        bytes: &[u8],
        sealed: &Sealed,
        letter: &Letter,
        identity: &Identity,
        now: Moment,
    ) -> Result<u64, Refusal> {
        let whole = self.is_whole(letter, identity, &sealed.digest(), now);
        let number = Number {
            device: letter.device,
            sequence: letter.sequence,
            digest: sealed.digest(),
            previous: letter.previous,
        };
        let update = Update::of(sealed, letter, now)?;
        for _ in 0..BEHIND {
            let reserved = self.devices.reserve(number, |answer| {
                let entry = entry(bytes, sealed.format, number, whole, now)?;
                let then = Then::Letter(update.clone(), answer);
                self.journal.write(Write { changes: Vec::new(), entry: Some(entry), then })
            });
            match reserved {
                Reserved::Queued(written) => {
                    let offset = written.wait().await?;
                    if whole {
                        self.devices.wrote_whole(&letter.device, now);
                    }
                    return Ok(offset);
                }
                Reserved::Known(offset) => return Ok(offset),
                Reserved::Behind(older) => passed(older).await,
                Reserved::Replayed { last } => {
                    tracing::warn!("a letter came under an old number: possibly a cloned device");
                    tracing::debug!(device = %letter.device, letter.sequence, last, "replayed");
                    return Err(Refusal::Replayed { sequence: letter.sequence, last });
                }
                Reserved::Forked => {
                    let reason = format!(
                        "letter {} does not follow the last one: two machines write under one identity",
                        letter.sequence
                    );
                    return Err(self.bar_clone(letter, identity, reason, now).await?.into());
                }
                Reserved::Refused(error) => return Err(error.into()),
                Reserved::Unknown => return Err(Refusal::UnknownDevice(letter.device)),
            }
        }
        Err(JournalError::Busy.into())
    }

    /// Whether a letter is journalled whole: the gatekeeper believes only what it can verify itself, so
    /// a treated device whose letters it does not get is silent to it.
    fn is_whole(&self, letter: &Letter, identity: &Identity, digest: &Digest, now: Moment) -> bool {
        match weight(letter, identity) {
            Weight::News => true,
            Weight::Unsettled => self.sampler.takes_unsettled(identity.whole, now),
            Weight::Ordinary => {
                let devices = self.devices.len();
                self.sampler.takes_watched(&letter.device, identity.whole, now, devices)
                    || self.sampler.takes(digest, now, devices, self.polls.interval_s)
            }
        }
    }

    /// Holds a device of which two are seen to exist.
    async fn bar_clone(
        &self,
        letter: &Letter,
        identity: &Identity,
        reason: String,
        now: Moment,
    ) -> Result<Bar, JournalError> {
        tracing::warn!(device = %letter.device, reason, "a device is held");
        let request = BarRequest {
            device: letter.device,
            tenant: identity.tenant.clone(),
            kind: BarKind::Held,
            reason,
            by: "letter-box".into(),
        };
        self.bar(request, now).await.map(|(bar, _)| bar)
    }

    fn directive(
        &self,
        letter: &Letter,
        identity: &Identity,
        offset: u64,
        now: Moment,
    ) -> Directive {
        let book = self.orders.load();
        let prepared = book.of(&identity.tenant, &letter.device);
        let fresh = prepared.digest() != letter.orders_digest;
        Directive {
            acknowledged: letter.sequence,
            offset,
            next_poll: self.polls.interval_s,
            jitter: self.polls.jitter_s,
            backoff_max: self.polls.backoff_max_s,
            want_facts: letter.facts.is_none() && letter.facts_digest != identity.facts_digest,
            server_time: now,
            orders: fresh.then(|| prepared.orders().clone()),
        }
    }
}

/// The letter whole, or its record.
fn entry(
    bytes: &[u8],
    format: Format,
    number: Number,
    whole: bool,
    now: Moment,
) -> Result<NewEntry, JournalError> {
    if whole {
        let kind = EntryKind::Letter(format);
        return Ok(NewEntry { received: now, kind, bytes: bytes.to_vec() });
    }
    let Number { device, sequence, digest, previous: _ } = number;
    let record = codec::encode(&LetterRecord { device, sequence, digest }, RECORD_BYTES)
        .map_err(|_| JournalError::Failed)?;
    Ok(NewEntry { received: now, kind: EntryKind::Record, bytes: record })
}

/// What a letter is to the gatekeeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// It says something that no other letter says again.
    News,
    /// Its device was let in and has come to no end: that it lives is evidence.
    Unsettled,
    /// A control's.
    Ordinary,
}

fn weight(letter: &Letter, identity: &Identity) -> Weight {
    let names_groups = letter.rollouts.iter().any(|view| !view.groups.is_empty());
    let moves = letter.products.iter().any(|product| match product.state {
        // From the first byte on: a device that dies at the switch said last that it was let in, and
        // without that letter its silence would be nobody's.
        SlotState::Fetching
        | SlotState::Staged
        | SlotState::Activating
        | SlotState::Trial
        | SlotState::RollingBack => true,
        // The outcome that led there came in a letter of its own.
        SlotState::Idle | SlotState::Waiting | SlotState::Confirmed | SlotState::Failed => false,
    });
    // Facts that the server has are not news, however often a device sends them.
    let new_facts = letter.facts.is_some() && letter.facts_digest != identity.facts_digest;
    if names_groups || new_facts || !letter.outcomes.is_empty() {
        return Weight::News;
    }
    let open = letter
        .rollouts
        .iter()
        .any(|view| view.treated && !identity.settled.contains(&view.rollout));
    if moves || open { Weight::Unsettled } else { Weight::Ordinary }
}

/// Waits until an older letter is decided; whatever became of it, the next one is asked about again.
async fn passed(older: Written) {
    if let Err(error) = older.wait().await {
        tracing::debug!(error = &error as &dyn std::error::Error, "an older letter was not taken");
    }
}

const _: () = assert!(RECORD_BYTES < limits::LETTER_BYTES);

#[cfg(test)]
mod tests {
    use lockgate_shared::{
        bucket::Bucket,
        facts::Facts,
        group::Habit,
        id::{PublicKey, RolloutId, TokenId},
        wire::RolloutView,
    };

    use super::*;
    use crate::engine::sample_letter;

    #[test]
    fn a_device_that_was_let_in_is_heard_whole_until_its_outcome_came() {
        let rollout = RolloutId([7; 32]);
        let mut letter = sample_letter(DeviceId([5; 32]));
        assert_eq!(weight(&letter, &identity(&[])), Weight::Ordinary);
        letter.rollouts.push(view(rollout));
        // Back to waiting, with nothing decided: the gatekeeper still counts it among those at it.
        assert_eq!(weight(&letter, &identity(&[])), Weight::Unsettled);
        assert_eq!(weight(&letter, &identity(&[RolloutId([8; 32])])), Weight::Unsettled);
        letter.products[0].state = SlotState::Confirmed;
        assert_eq!(weight(&letter, &identity(&[rollout])), Weight::Ordinary);
        letter.products[0].state = SlotState::Trial;
        assert_eq!(weight(&letter, &identity(&[rollout])), Weight::Unsettled);
    }

    #[test]
    fn facts_that_the_server_has_make_no_letter_heavier() {
        let mut letter = sample_letter(DeviceId([5; 32]));
        letter.facts = Some(Facts::default());
        assert_eq!(weight(&letter, &identity(&[])), Weight::Ordinary);
        letter.facts_digest = Digest([2; 32]);
        assert_eq!(weight(&letter, &identity(&[])), Weight::News);
    }

    fn identity(settled: &[RolloutId]) -> Identity {
        Identity {
            tenant: "acme".parse().expect("a name"),
            key: PublicKey([3; 32]),
            token: TokenId([4; 16]),
            enrolled: 0,
            facts_digest: Digest([0; 32]),
            settled: settled.to_vec(),
            whole: Moment(0),
        }
    }

    fn view(rollout: RolloutId) -> RolloutView {
        RolloutView {
            rollout,
            cohort: "general".parse().expect("a name"),
            bucket: Bucket(1),
            habit: Habit::Unknown,
            groups: Vec::new(),
            treated: true,
            reasons: Vec::new(),
        }
    }
}
