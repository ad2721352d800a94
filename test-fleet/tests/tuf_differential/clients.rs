//! The two clients, each with its own disk, given the same mirror and the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use ed25519_dalek::{Signature, VerifyingKey};
use lockgate_agent::core::tuf::{
    Fetch, FetchError, Floor, ROOT_LIMIT, ROOTS_PER_REFRESH, SNAPSHOT_LIMIT, Store, StoreError,
    TARGETS_LIMIT, TIMESTAMP_LIMIT, TufError, Updater,
};
use lockgate_shared::time::Moment;
use serde_json::Value;
use sha2::{Digest, Sha256, Sha384, Sha512};
use sigstore_crypto::{CryptoProvider, HashContext, SigningScheme};
use sigstore_tuf::client::Updater as Referee;
use sigstore_tuf::transport::{FetchFuture, Repository as Source, UpdaterConfig};
use sigstore_tuf::{Error, MemoryStore};
use sigstore_types::HashAlgorithm;

/// What is served, to both clients alike.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mirror {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) payloads: BTreeMap<String, Vec<u8>>,
    /// Files that neither come nor are said not to exist.
    pub(crate) failing: BTreeSet<String>,
}

/// Why a client refused: its kind of error, and the whole of it.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) kind: String,
    pub(crate) text: String,
}

impl Refusal {
    /// What the agent's client said at `clock`.
    fn ours(error: &TufError, clock: i64) -> Self {
        let mut refusal = Self::of(error);
        if let TufError::Expired { expires, now, .. } = error {
            refusal.kind = match () {
                () if expires == now => "ExpiresNow",
                () if now.0 > clock => "ExpiredByFloor",
                () => "Expired",
            }
            .to_owned();
        }
        refusal
    }

    /// Whether a version of this role was refused because it lies below one that is kept.
    pub(crate) fn is_older(&self, role: &str) -> bool {
        self.kind == "Rollback" && self.text.contains(&format!("role: \"{role}\""))
    }

    /// Takes the kind from how a derived `Debug` begins: `Malformed { role: …, source: VersionZero }`
    /// is `Malformed/VersionZero`.
    fn of(error: &impl std::fmt::Debug) -> Self {
        let text = format!("{error:?}");
        let head =
            |text: &str| text.chars().take_while(char::is_ascii_alphanumeric).collect::<String>();
        let mut kind = head(&text);
        if let Some((_, source)) = text.split_once("source: ") {
            kind = format!("{kind}/{}", head(source));
        }
        Self { kind, text }
    }
}

/// The bytes of a target, or why there are none.
pub(crate) type Answer = Result<Vec<u8>, Refusal>;

/// The agent's client.
pub(crate) struct Ours {
    anchor: Vec<u8>,
    disk: Disk,
    floor: String,
    running: Option<Updater>,
}

impl Ours {
    pub(crate) fn new(anchor: &[u8]) -> Self {
        let floor = serde_json::to_string(&Floor::default()).expect("plain data");
        Self { anchor: anchor.to_vec(), disk: Disk::default(), floor, running: None }
    }

    pub(crate) fn restart(&mut self) {
        self.running = None;
    }

    pub(crate) fn refresh(&mut self, mirror: &Mirror, now: i64) -> Result<(), Refusal> {
        let mut updater = self.start().map_err(|e| Refusal::ours(&e, now))?;
        let result = updater.refresh(&mut Fetcher(mirror), &mut self.disk, Moment(now));
        self.floor = serde_json::to_string(updater.floor()).expect("plain data");
        self.running = Some(updater);
        result.map(|_| ()).map_err(|e| Refusal::ours(&e, now))
    }

    pub(crate) fn target(&mut self, mirror: &Mirror, path: &str, now: i64) -> Answer {
        let updater = self.running.as_mut().expect("a refresh came before");
        let found = updater
            .find_target(&mut Fetcher(mirror), &mut self.disk, path, Moment(now))
            .map_err(|e| Refusal::ours(&e, now))?;
        let Some(found) = found else { return Err(unlisted()) };
        updater.target_bytes(&mut Fetcher(mirror), &found).map_err(|e| Refusal::ours(&e, now))
    }

    /// The versions of the root and the timestamp that this client believes.
    pub(crate) fn kept(&self) -> [Option<u64>; 2] {
        let root = self.running.as_ref().map(Updater::root_version);
        let timestamp: Option<Value> =
            self.disk.0.get("timestamp.json").and_then(|bytes| serde_json::from_slice(bytes).ok());
        [root, timestamp.and_then(|timestamp| timestamp["signed"]["version"].as_u64())]
    }

    /// `mirror`, with the targets roles that this client holds in place of what is served.
    pub(crate) fn mend(&self, mirror: &Mirror) -> Mirror {
        let mut mended = mirror.clone();
        for (name, bytes) in &self.disk.0 {
            let role = name.strip_prefix("delegated-").unwrap_or(name);
            let document: Option<Value> = serde_json::from_slice(bytes).ok();
            let Some(document) = document else { continue };
            if document["signed"]["_type"] == "root" || role == "timestamp.json" {
                continue;
            }
            for name in [role.to_owned(), format!("{}.{role}", document["signed"]["version"])] {
                mended.failing.remove(&name);
                mended.files.insert(name, bytes.clone());
            }
        }
        mended
    }

    fn start(&mut self) -> Result<Updater, TufError> {
        match self.running.take() {
            Some(updater) => Ok(updater),
            None => {
                let floor = serde_json::from_str(&self.floor).expect("as written");
                Updater::open(&self.anchor, &mut self.disk, floor)
            }
        }
    }
}

fn unlisted() -> Refusal {
    Refusal { kind: "Unlisted".to_owned(), text: "no role lists it".to_owned() }
}

struct Fetcher<'a>(&'a Mirror);

impl Fetch for Fetcher<'_> {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        if self.0.failing.contains(name) {
            return Err(FetchError::Failed("connection reset".to_owned()));
        }
        bounded(self.0.files.get(name), max)
    }

    fn target(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        // No path that is asked for has anything to escape.
        bounded(self.0.payloads.get(path), max)
    }
}

fn bounded(file: Option<&Vec<u8>>, limit: u64) -> Result<Vec<u8>, FetchError> {
    let bytes = file.ok_or(FetchError::NotFound)?;
    if bytes.len() as u64 > limit {
        return Err(FetchError::TooLong { limit });
    }
    Ok(bytes.clone())
}

#[derive(Default)]
struct Disk(BTreeMap<String, Vec<u8>>);

impl Store for Disk {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(name).cloned())
    }

    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.0.remove(name);
        Ok(())
    }
}

/// The other maker's client, under the same limits.
pub(crate) struct Theirs {
    anchor: Vec<u8>,
    disk: Arc<MemoryStore>,
    source: Shared,
    running: Option<Referee>,
}

impl Theirs {
    pub(crate) fn new(anchor: &[u8]) -> Self {
        // A second installation in one process is refused, and is of the same provider.
        let _ = sigstore_crypto::install_default_provider(&Dalek);
        let (disk, source) = (Arc::new(MemoryStore::new()), Shared::default());
        Self { anchor: anchor.to_vec(), disk, source, running: None }
    }

    pub(crate) fn restart(&mut self) {
        self.running = None;
    }

    pub(crate) fn refresh(&mut self, mirror: &Mirror, now: i64) -> Result<(), Refusal> {
        *self.source.0.lock().expect("no holder panicked") = mirror.clone();
        let mut referee = self.start().map_err(|e| Refusal::of(&e))?;
        let result = at_once(referee.refresh(stamp(now)));
        self.running = Some(referee);
        result.map_err(|e| Refusal::of(&e))
    }

    /// The versions of the root and the timestamp that this client believes.
    pub(crate) fn kept(&self) -> [Option<u64>; 2] {
        let Some(referee) = &self.running else { return [None, None] };
        let trusted = referee.trusted();
        [Some(trusted.root().version), trusted.timestamp().map(|timestamp| timestamp.version)]
    }

    pub(crate) fn target(&mut self, path: &str, now: i64) -> Answer {
        let referee = self.running.as_mut().expect("a refresh came before");
        let found = at_once(referee.get_target_info(path, stamp(now)));
        let Some(found) = found.map_err(|e| Refusal::of(&e))? else { return Err(unlisted()) };
        at_once(referee.download_target(&found, path)).map_err(|e| Refusal::of(&e))
    }

    fn start(&mut self) -> Result<Referee, Error> {
        if let Some(referee) = self.running.take() {
            return Ok(referee);
        }
        let mut config = UpdaterConfig::default();
        config.root_max_length = ROOT_LIMIT;
        config.timestamp_max_length = TIMESTAMP_LIMIT;
        config.snapshot_max_length = SNAPSHOT_LIMIT;
        config.targets_max_length = TARGETS_LIMIT;
        config.max_root_rotations = u32::try_from(ROOTS_PER_REFRESH).expect("a small number");
        let referee = Referee::new(self.source.clone(), &self.anchor)?;
        Ok(referee.with_config(config).with_store(Arc::clone(&self.disk)))
    }
}

fn stamp(now: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(now).expect("a moment of this millennium")
}

/// Runs what never waits.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("everything is in memory"),
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Mirror>>);

impl Source for Shared {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        let mirror = self.0.lock().expect("no holder panicked");
        let answer = match mirror.failing.contains(name) {
            true => Err(Error::transport("connection reset")),
            false => limited(mirror.files.get(name), max_length),
        };
        Box::pin(async move { answer })
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        let mirror = self.0.lock().expect("no holder panicked");
        let answer = limited(mirror.payloads.get(path), max_length);
        Box::pin(async move { answer })
    }
}

fn limited(file: Option<&Vec<u8>>, max: u64) -> Result<Option<Vec<u8>>, Error> {
    match file {
        Some(bytes) if bytes.len() as u64 > max => Err(Error::transport("too long")),
        found => Ok(found.cloned()),
    }
}

/// The referee's cryptography: hashes and Ed25519 are all that these repositories use.
#[derive(Debug)]
struct Dalek;

impl CryptoProvider for Dalek {
    fn hash(&self, algorithm: HashAlgorithm) -> sigstore_crypto::Result<Box<dyn HashContext>> {
        Ok(match algorithm {
            HashAlgorithm::Sha2256 => Box::new(Hashing(Sha256::new())),
            HashAlgorithm::Sha2384 => Box::new(Hashing(Sha384::new())),
            HashAlgorithm::Sha2512 => Box::new(Hashing(Sha512::new())),
            other => {
                return Err(sigstore_crypto::Error::UnsupportedAlgorithm(format!("{other:?}")));
            }
        })
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        public: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> sigstore_crypto::Result<()> {
        let refused = || sigstore_crypto::Error::Verification("not this key's".to_owned());
        if scheme != SigningScheme::Ed25519 {
            return Err(refused());
        }
        let public = public.try_into().map_err(|_| refused())?;
        let key = VerifyingKey::from_bytes(public).map_err(|_| refused())?;
        let signature = Signature::from_slice(signature).map_err(|_| refused())?;
        key.verify_strict(data, &signature).map_err(|_| refused())
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        _: &[u8],
        _: &[u8],
        _: &[u8],
    ) -> sigstore_crypto::Result<()> {
        Err(sigstore_crypto::Error::Verification(format!("no keys for {scheme:?} are made here")))
    }
}

struct Hashing<D>(D);

impl<D: Digest + Send> HashContext for Hashing<D> {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}
