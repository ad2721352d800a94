//! A device without an agent: it has a key of its own, enrols, and writes real signed letters about
//! whatever a test wants to hear of. It keeps nothing on the disk and decides nothing; a letter is
//! sent again only when the test sends its bytes again.

use std::{collections::BTreeMap, path::Path};

use ed25519_dalek::SigningKey;
use lockgate_agent::{
    letters::digest_of_facts,
    transport::{Origin, OriginError, Sources, Transport, TransportError},
};
use lockgate_server::clock;
use lockgate_shared::{
    bucket::Bucket,
    facts::Facts,
    group::{Habit, groups_of},
    id::{DeviceId, Digest, IdError, RolloutId, TenantId, TokenId},
    limits,
    pin::Pin,
    sign,
    time::{Moment, Seconds},
    version::VersionError,
    wire::{
        BINARY, CodecError, Directive, Enrolment, EnrolmentAnswer, EnrolmentToken, Format, Letter,
        Orders, Outcome, OutcomeKind, OutcomeRecord, Outcomes, Problem, ProductState, RolloutView,
        SignedToken, SlotState,
    },
};
use thiserror::Error;

/// The repository of a try-out.
pub const REPOSITORY: &str = "trial";
/// The product that the letters speak of.
const PRODUCT: &str = "app";

/// Who writes.
#[derive(Debug)]
pub struct LetterWriter {
    /// Its key.
    pub key: SigningKey,
    /// The tenant that its letters name.
    pub tenant: TenantId,
    facts: Facts,
}

/// The way of letters: one connection, as an agent has it.
#[derive(Debug)]
pub struct Post(Transport);

/// What was acknowledged, and when the server says that it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The letter's number.
    pub sequence: u64,
    /// Its offset in the journal.
    pub offset: u64,
    /// The server's clock.
    pub server_time: Moment,
}

/// Why there is no receipt.
#[derive(Debug, Error)]
pub enum PostError {
    /// The server's address is none.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The server said no, or nothing.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A message cannot be written or read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A name is none.
    #[error(transparent)]
    Name(#[from] IdError),
    /// A version is none.
    #[error(transparent)]
    Version(#[from] VersionError),
}

impl PostError {
    /// What the server said, if it answered.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Transport(error) => error.problem(),
            Self::Origin(_) | Self::Codec(_) | Self::Name(_) | Self::Version(_) => None,
        }
    }
}

impl Post {
    /// Makes ready to send to the server at `url`; connects to nobody yet.
    pub fn open(url: &str, ca: &Path) -> Result<Self, PostError> {
        let sources =
            Sources { server: url.parse::<Origin>()?, mirrors: Vec::new(), ca: ca.to_owned() };
        Ok(Self(Transport::open(sources)?))
    }

    /// Sends a sealed enrolment.
    pub fn enrol(&mut self, bytes: &[u8]) -> Result<EnrolmentAnswer, PostError> {
        let answer = self.send("/v1/enroll", bytes)?;
        Ok(EnrolmentAnswer::read(&answer, Format::Binary)?)
    }

    /// Sends a sealed letter.
    pub fn letter(&mut self, bytes: &[u8]) -> Result<Receipt, PostError> {
        let answer = self.send("/v1/checkin", bytes)?;
        let Directive { acknowledged, offset, server_time, .. } =
            Directive::read(&answer, Format::Binary)?;
        Ok(Receipt { sequence: acknowledged, offset, server_time })
    }

    /// The connection itself, for what is not a letter.
    pub const fn transport(&mut self) -> &mut Transport {
        &mut self.0
    }

    fn send(&mut self, path: &str, bytes: &[u8]) -> Result<Vec<u8>, PostError> {
        Ok(self.0.post(path, BINARY, bytes, limits::DIRECTIVE_BYTES as u64)?.body)
    }
}

impl LetterWriter {
    /// A device with this secret, in a tenant.
    pub fn new(secret: [u8; 32], tenant: &str) -> Result<Self, PostError> {
        let facts = Facts {
            vendor: "Acme".into(),
            model: "Slate 3".into(),
            arch: "x86_64".into(),
            os_id: "debian".into(),
            os_version: "12".into(),
            time_zone: "UTC".into(),
            ..Facts::default()
        };
        Ok(Self { key: SigningKey::from_bytes(&secret), tenant: tenant.parse()?, facts })
    }

    /// Its id.
    pub fn device(&self) -> DeviceId {
        DeviceId::of_key(&sign::public(&self.key))
    }

    /// A sealed enrolment with a token.
    pub fn enrolment(&self, token: &SignedToken) -> Result<Vec<u8>, PostError> {
        let enrolment = Enrolment {
            token: token.clone(),
            key: sign::public(&self.key),
            sent: clock::now(),
            facts: self.facts.clone(),
        };
        Ok(enrolment.seal(Format::Binary, &self.key)?.to_bytes()?)
    }

    /// A letter of a device that has nothing to do.
    pub fn plain(&self, sequence: u64) -> Result<Letter, PostError> {
        let product = ProductState {
            product: PRODUCT.parse()?,
            channel: "stable".parse()?,
            pin: Pin::Latest,
            state: SlotState::Idle,
            running: Some("1.0.0".parse()?),
            running_manifest: None,
            other: None,
        };
        let none = Outcomes::default();
        Ok(Letter {
            repository: REPOSITORY.parse()?,
            tenant: self.tenant.clone(),
            device: self.device(),
            sequence,
            previous: Digest([0; 32]),
            sent: clock::now(),
            uptime: Seconds(sequence),
            agent: "0.1.0".parse()?,
            facts_digest: digest_of_facts(&self.facts),
            facts: None,
            orders_digest: Orders::default().digest()?,
            timestamp_version: 1,
            highest_stop: 0,
            products: vec![product],
            rollouts: Vec::new(),
            beacons: Vec::new(),
            outcomes_count: none.count,
            outcomes_digest: none.digest,
            outcomes: Vec::new(),
            notices: Vec::new(),
        })
    }

    /// A letter that names the device's groups in a rollout.
    pub fn with_groups(&self, sequence: u64) -> Result<Letter, PostError> {
        let habit = Habit::Unknown;
        let groups = groups_of(&self.facts, habit);
        let view = RolloutView {
            rollout: rollout(),
            cohort: "general".parse()?,
            bucket: Bucket(7),
            habit,
            groups: groups.into_iter().map(|group| group.id).collect(),
            treated: false,
            reasons: Vec::new(),
        };
        Ok(Letter { rollouts: vec![view], ..self.plain(sequence)? })
    }

    /// A letter that brings the device's next outcome; `chain` goes on with it.
    pub fn with_outcome(&self, sequence: u64, chain: &mut Outcomes) -> Result<Letter, PostError> {
        let outcome = Outcome {
            rollout: rollout(),
            product: PRODUCT.parse()?,
            version: "1.0.0".parse()?,
            kind: OutcomeKind::Confirmed,
            at: clock::now(),
            took: Seconds(9),
            detail: format!("in letter {sequence}"),
        };
        *chain = chain.with(&outcome)?;
        let record = OutcomeRecord { number: chain.count, outcome };
        Ok(Letter {
            outcomes_count: chain.count,
            outcomes_digest: chain.digest,
            outcomes: vec![record],
            ..self.plain(sequence)?
        })
    }

    /// A letter's bytes, sealed with the device's key.
    pub fn seal(&self, letter: &Letter) -> Result<Vec<u8>, PostError> {
        Ok(letter.seal(Format::Binary, &self.key)?.to_bytes()?)
    }
}

/// A rollout that no repository knows: the letter box does not ask.
const fn rollout() -> RolloutId {
    RolloutId([9; 32])
}

/// An enrolment token as a tenant's key would sign it, good for an hour from `issued` on.
pub fn enrolment_token(
    tenant: &TenantId,
    uses: u32,
    issued: Moment,
    key: &SigningKey,
) -> Result<SignedToken, PostError> {
    let token = EnrolmentToken {
        repository: REPOSITORY.parse()?,
        tenant: tenant.clone(),
        id: TokenId(lockgate_server::dice::bytes()),
        issued,
        expires: issued.plus(Seconds(3_600)),
        uses,
    };
    Ok(SignedToken::make(&token, key)?)
}

/// Digests of files by name, for comparing a folder before and after; the folders below it are part
/// of it.
pub fn fingerprint(folder: &Path) -> std::io::Result<BTreeMap<String, Digest>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                found.insert(name, Digest::of(&std::fs::read(&path)?));
            }
        }
    }
    Ok(found)
}
