//! The refresh: from the pinned root to the current top-level targets, in the order of the
//! specification, with what was verified remembered so that a refresh without news costs one
//! signature check.
//!
//! It refuses to go on past the first thing that is wrong with every source. What was verified before
//! that stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_shared::{failure, time::Moment};

use super::authority::{Authority, AuthorityId};
use super::error::{TufError, quote};
use super::floor::{Bound, Floor};
use super::imprint::Imprint;
use super::metadata::{Document, Named, Root, Snapshot, Targets, Timestamp};
use super::proof::{Place, proved, read};
use super::received::{Held, Received, check_expiry, check_imprint, verify};
use super::{
    Another, Fetch, FetchError, LAG, ROOT_LIMIT, SNAPSHOT_LIMIT, SOURCES_PER_FILE, Store,
    TARGETS_LIMIT, TIMESTAMP_LIMIT,
};

/// Most roots that one refresh walks: five years of monthly ceremonies. A device further behind
/// fails once, keeps what it reached, and goes on at its next refresh.
pub const ROOTS_PER_REFRESH: u64 = 64;
/// Most delegated roles kept in memory; beyond it they are read from the store again.
pub(super) const DELEGATED_IN_MEMORY: usize = 64;

const TIMESTAMP: &str = "timestamp.json";
const SNAPSHOT: &str = "snapshot.json";
const TARGETS: &str = "targets.json";

/// A client of one repository, between refreshes.
#[derive(Debug)]
pub struct Updater {
    pub(super) root: Root,
    pub(super) floor: Floor,
    /// What was verified under `root`; nothing before the store was read under it.
    pub(super) memory: Option<Memory>,
    /// Where the last refresh ended.
    pub(super) freshness: Freshness,
    /// What the last refresh that succeeded saw.
    last: Option<Seen>,
}

/// Verified metadata. Not necessarily parts of one state of the repository: only a refresh that
/// succeeded says that they belong together.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) timestamp: Option<Held<Timestamp>>,
    pub(super) snapshot: Option<Held<Snapshot>>,
    pub(super) targets: Option<Held<Targets>>,
    /// By who vouched for it, because one role may be delegated to by several.
    pub(super) delegated: BTreeMap<(AuthorityId, String), Held<Targets>>,
}

/// Whether targets may be looked up.
#[derive(Debug)]
pub(super) enum Freshness {
    /// No refresh yet, or the last one failed.
    Stale,
    /// The last refresh succeeded with this chain.
    Fresh(Chain),
}

/// Files that belong together.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) targets: Arc<Targets>,
    pub(super) status: Status,
}

/// Versions and times of the top-level roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Version of the root.
    pub root_version: u64,
    /// Expiry of the root.
    pub root_expires: Moment,
    /// Version of the timestamp.
    pub timestamp_version: u64,
    /// Expiry of the timestamp.
    pub timestamp_expires: Moment,
    /// When the timestamp was signed, where its signer says so.
    pub timestamp_issued: Option<Moment>,
    /// Version of the snapshot.
    pub snapshot_version: u64,
    /// Expiry of the snapshot.
    pub snapshot_expires: Moment,
    /// Version of the top-level targets.
    pub targets_version: u64,
    /// Expiry of the top-level targets.
    pub targets_expires: Moment,
}

impl Status {
    /// When the first of the four expires.
    pub fn expires(&self) -> Moment {
        self.root_expires
            .min(self.timestamp_expires)
            .min(self.snapshot_expires)
            .min(self.targets_expires)
    }
}

/// What a refresh that succeeded found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Versions and times now.
    pub status: Status,
    /// What is new since the last refresh that succeeded.
    pub change: Change,
}

/// What is new since the last refresh that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Not one byte.
    Nothing,
    /// A newer root or timestamp that says the same about every target.
    Renewed,
    /// Another snapshot, so perhaps other targets. Always so on the first refresh after a start.
    Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    root: u64,
    timestamp: Imprint,
    snapshot: Imprint,
    targets: Imprint,
}

impl Updater {
    /// Starts from the pinned root, which is never written, and walks on over the roots in the
    /// store as far as they verify. Nothing is fetched.
    pub fn open(anchor: &[u8], store: &mut dyn Store, floor: Floor) -> Result<Self, TufError> {
        let received = Received::<Root>::read("root", anchor)?;
        let own = received.claimed().root.clone();
        let mut root = received.verified_by(&own)?;
        while let Some(next) = root.head().version.checked_add(1) {
            let stored = store.load(&root_file(next))?;
            let Some(Ok(newer)) = stored.map(|bytes| successor(&root, next, &bytes)) else { break };
            root = newer;
        }
        let mut floor = floor;
        settle_keys(&mut floor, &root, store)?;
        Ok(Self { root, floor, memory: None, freshness: Freshness::Stale, last: None })
    }

    /// Brings root, timestamp, snapshot and top-level targets up to date at `now`. The caller persists [`Updater::floor`] afterwards, whatever the result.
    pub fn refresh(
        &mut self,
        fetch: &mut dyn Fetch,
        store: &mut dyn Store,
        now: Moment,
    ) -> Result<Refreshed, TufError> {
        self.freshness = Freshness::Stale;
        self.walk_roots(fetch, store)?;
        let guarded = self.floor.effective(now);
        check_expiry("root", self.root.head(), guarded)?;

        let mut memory = match self.memory.take() {
            Some(memory) => memory,
            None => Memory::load(&self.root, store)?,
        };
        let mut outside = Outside { fetch, store, now: guarded };
        let result = self.refresh_chain(&mut memory, &mut outside);
        self.memory = Some(memory);
        let (chain, seen) = result?;

        let status = chain.status;
        self.floor.raise(status.timestamp_issued.unwrap_or(now), status.expires());
        let change = seen.since(self.last.as_ref());
        self.last = Some(seen);
        self.freshness = Freshness::Fresh(chain);
        Ok(Refreshed { status, change })
    }

    /// What the shell persists after each refresh.
    pub fn floor(&self) -> &Floor {
        &self.floor
    }

    /// The version of the newest root believed.
    pub fn root_version(&self) -> u64 {
        self.root.head().version
    }

    /// Versions and times, if the last refresh succeeded.
    pub fn status(&self) -> Option<Status> {
        match &self.freshness {
            Freshness::Fresh(chain) => Some(chain.status),
            Freshness::Stale => None,
        }
    }

    fn walk_roots(&mut self, fetch: &mut dyn Fetch, store: &mut dyn Store) -> Result<(), TufError> {
        for _ in 0..ROOTS_PER_REFRESH {
            let Some(next) = self.root.head().version.checked_add(1) else { return Ok(()) };
            let file = root_file(next);
            let trusted = &self.root;
            let prove = |bytes: &[u8]| successor(trusted, next, bytes);
            let (root, bytes) = match proved(fetch, (Place::Metadata, &file), ROOT_LIMIT, prove) {
                Ok(proven) => proven,
                Err(TufError::Fetch { source: FetchError::NotFound, .. }) => return Ok(()),
                Err(other) => return Err(other),
            };
            // Before the root is stored: were power cut in between the other way round, the new
            // root would be known and the old keys' versions would still stand.
            settle_keys(&mut self.floor, &root, store)?;
            store.save(&file, &bytes)?;
            self.root = root;
            self.memory = None;
        }
        let reached = self.root.head().version;
        Err(TufError::TooManyRoots { reached, limit: ROOTS_PER_REFRESH })
    }

    fn refresh_chain(
        &mut self,
        memory: &mut Memory,
        outside: &mut Outside<'_>,
    ) -> Result<(Chain, Seen), TufError> {
        let root = &self.root;
        let timestamp = current_timestamp(memory, &mut self.floor, &root.timestamp, outside)?;
        let snapshot = current_snapshot(memory, root, &timestamp.document.snapshot, outside)?;
        let targets = current_targets(memory, root, &snapshot.document, outside)?;
        let status = Status {
            root_version: root.head().version,
            root_expires: root.head().expires,
            timestamp_version: timestamp.head().version,
            timestamp_expires: timestamp.head().expires,
            timestamp_issued: timestamp.document.issued,
            snapshot_version: snapshot.head().version,
            snapshot_expires: snapshot.head().expires,
            targets_version: targets.head().version,
            targets_expires: targets.head().expires,
        };
        let seen = Seen {
            root: status.root_version,
            timestamp: timestamp.imprint,
            snapshot: snapshot.imprint,
            targets: targets.imprint,
        };
        Ok((Chain { snapshot: snapshot.document, targets: targets.document, status }, seen))
    }
}

impl Memory {
    /// Reads the store as if it had been received: what does not verify is absent.
    fn load(root: &Root, store: &dyn Store) -> Result<Self, TufError> {
        Ok(Self {
            timestamp: stored(store, TIMESTAMP, "timestamp", &root.timestamp)?,
            snapshot: stored(store, SNAPSHOT, "snapshot", &root.snapshot)?,
            targets: stored(store, TARGETS, "targets", &root.targets)?,
            delegated: BTreeMap::new(),
        })
    }
}

impl Seen {
    fn since(&self, last: Option<&Self>) -> Change {
        match last {
            Some(last) if last == self => Change::Nothing,
            Some(last) if last.snapshot == self.snapshot && last.targets == self.targets => {
                Change::Renewed
            }
            Some(_) | None => Change::Content,
        }
    }
}

/// The timestamp to go by, of the first source that gives a good one that is fresh. A source that
/// stands still is as good as a liar to whoever waits for a stop: where the others have nothing
/// better, its timestamp counts all the same.
fn current_timestamp(
    memory: &mut Memory,
    floor: &mut Floor,
    authority: &Authority,
    outside: &mut Outside<'_>,
) -> Result<Held<Timestamp>, TufError> {
    let (mut late, mut asked) = (None, 1);
    loop {
        let (another, offered) = match offered_timestamp(memory, floor, authority, outside) {
            Ok(current) => {
                let age = current.document.issued.map(|issued| outside.now.since(issued));
                let Some(age) = age.filter(|age| *age > LAG) else { return Ok(current) };
                let why = format_args!("its timestamp was signed {age} ago");
                (outside.fetch.refused(&why), Ok(current))
            }
            Err(error @ TufError::Store(_)) => return Err(error),
            Err(error @ TufError::Fetch { .. }) => (Another::Nobody, Err(error)),
            Err(error) => (outside.fetch.refused(&failure::Chain(&error)), Err(error)),
        };
        if another == Another::Nobody || asked >= SOURCES_PER_FILE {
            return offered.or_else(|error| late.ok_or(error));
        }
        late = offered.ok().or(late);
        asked += 1;
    }
}

/// The timestamp that one source offers, or the one held if the offered has its version.
fn offered_timestamp(
    memory: &mut Memory,
    floor: &mut Floor,
    authority: &Authority,
    outside: &mut Outside<'_>,
) -> Result<Held<Timestamp>, TufError> {
    const ROLE: &str = "timestamp";
    let bytes = read(outside.fetch, (Place::Metadata, TIMESTAMP), TIMESTAMP_LIMIT)?;
    let (current, news) = match memory.timestamp.clone() {
        Some(held) if held.imprint == Imprint::of(&bytes) => (held, None),
        Some(held) => {
            let offered = verify::<Timestamp>(ROLE, &bytes, authority)?;
            let (trusted, found) = (held.head().version, offered.head().version);
            refuse_older(ROLE, trusted, found)?;
            if trusted == found {
                (held, None)
            } else {
                let trusted = held.document.snapshot.version;
                refuse_older("snapshot", trusted, offered.document.snapshot.version)?;
                (offered, Some(bytes))
            }
        }
        None => (verify(ROLE, &bytes, authority)?, Some(bytes)),
    };
    if let Some(snapshot) = &memory.snapshot {
        let named = current.document.snapshot.version;
        refuse_older("snapshot", snapshot.head().version, named)?;
    }
    let version = current.head().version;
    if floor.refuses(version) {
        return Err(TufError::SeenExpired { version });
    }
    if let Err(expired) = current.check_expiry(ROLE, outside.now) {
        floor.note_expired(version);
        return Err(expired);
    }
    if let Some(bytes) = news {
        outside.store.save(TIMESTAMP, &bytes)?;
        memory.timestamp = Some(current.clone());
    }
    Ok(current)
}

/// The snapshot that the timestamp names, held or fetched, and not behind the one held.
fn current_snapshot(
    memory: &mut Memory,
    root: &Root,
    named: &Named,
    outside: &mut Outside<'_>,
) -> Result<Held<Snapshot>, TufError> {
    const ROLE: &str = "snapshot";
    if let Some(held) = &memory.snapshot
        && held.is(ROLE, named)
    {
        held.check_expiry(ROLE, outside.now)?;
        return Ok(held.clone());
    }
    let wanted = Wanted { role: ROLE, file: ROLE, named, limit: SNAPSHOT_LIMIT, root };
    let (offered, bytes) = wanted.fetch::<Snapshot>(&root.snapshot, outside)?;
    if let Some(held) = &memory.snapshot {
        for (name, old) in &held.document.files {
            let Some(new) = offered.document.files.get(name) else {
                return Err(TufError::Removed { name: quote(name) });
            };
            refuse_older(name, old.version, new.version)?;
        }
    }
    offered.check_expiry(ROLE, outside.now)?;
    outside.store.save(SNAPSHOT, &bytes)?;
    memory.snapshot = Some(offered.clone());
    Ok(offered)
}

/// The top-level targets that the snapshot names, held or fetched.
fn current_targets(
    memory: &mut Memory,
    root: &Root,
    snapshot: &Snapshot,
    outside: &mut Outside<'_>,
) -> Result<Held<Targets>, TufError> {
    const ROLE: &str = "targets";
    let Some(named) = snapshot.file(ROLE) else {
        return Err(TufError::NotInSnapshot { role: ROLE.to_owned() });
    };
    if let Some(held) = &memory.targets
        && held.is(ROLE, named)
    {
        held.check_expiry(ROLE, outside.now)?;
        return Ok(held.clone());
    }
    let wanted = Wanted { role: ROLE, file: ROLE, named, limit: TARGETS_LIMIT, root };
    let (offered, bytes) = wanted.fetch::<Targets>(&root.targets, outside)?;
    offered.check_expiry(ROLE, outside.now)?;
    outside.store.save(TARGETS, &bytes)?;
    memory.targets = Some(offered.clone());
    Ok(offered)
}

/// What a step of a refresh or a search may touch, and the time it holds expiry against.
pub(super) struct Outside<'a> {
    pub(super) fetch: &'a mut dyn Fetch,
    pub(super) store: &'a mut dyn Store,
    pub(super) now: Moment,
}

/// A file that its parent names.
pub(super) struct Wanted<'a> {
    pub(super) role: &'a str,
    /// The role's name, escaped.
    pub(super) file: &'a str,
    pub(super) named: &'a Named,
    pub(super) limit: u64,
    pub(super) root: &'a Root,
}

impl Wanted<'_> {
    /// Fetches it and holds it against all that is known of it but expiry: length and hashes before
    /// anything in it is looked at, then signatures, then the version.
    pub(super) fn fetch<D: Document>(
        &self,
        authority: &Authority,
        outside: &mut Outside<'_>,
    ) -> Result<(Held<D>, Vec<u8>), TufError> {
        let Self { role, file, named, limit, root } = *self;
        let name = match root.consistent {
            true => format!("{}.{file}.json", named.version),
            false => format!("{file}.json"),
        };
        let limit = named.length.map_or(limit, |length| length.min(limit));
        proved(outside.fetch, (Place::Metadata, &name), limit, |bytes| {
            check_imprint(role, &Imprint::of(bytes), named)?;
            let held = verify::<D>(role, bytes, authority)?;
            let (expected, found) = (named.version, held.head().version);
            if expected != found {
                return Err(TufError::Version { role: role.to_owned(), expected, found });
            }
            Ok(held)
        })
    }
}

/// What the store has under `name`, if it verifies.
pub(super) fn stored<D: Document>(
    store: &dyn Store,
    name: &str,
    role: &str,
    authority: &Authority,
) -> Result<Option<Held<D>>, TufError> {
    let bytes = store.load(name)?.filter(|bytes| bytes.len() as u64 <= TARGETS_LIMIT);
    Ok(bytes.and_then(|bytes| verify(role, &bytes, authority).ok()))
}

/// Reads the root that follows `root`: signed by the threshold of both, and one version on.
fn successor(root: &Root, next: u64, bytes: &[u8]) -> Result<Root, TufError> {
    const ROLE: &str = "root";
    let received = Received::<Root>::read(ROLE, bytes)?;
    received.check(&root.root)?;
    let found = received.claimed().head().version;
    if found != next {
        return Err(TufError::Version { role: ROLE.to_owned(), expected: next, found });
    }
    let own = received.claimed().root.clone();
    received.verified_by(&own)
}

/// Forgets timestamp, snapshot and floor if `root` gives those roles other keys or thresholds than
/// they had, so that versions driven up with a stolen key do not outlive the key.
fn settle_keys(floor: &mut Floor, root: &Root, store: &mut dyn Store) -> Result<(), TufError> {
    match floor.bind([root.timestamp.id(), root.snapshot.id()]) {
        Bound::Kept => {}
        Bound::Rekeyed => {
            store.remove(TIMESTAMP)?;
            store.remove(SNAPSHOT)?;
        }
    }
    Ok(())
}

fn refuse_older(role: &str, trusted: u64, offered: u64) -> Result<(), TufError> {
    if offered < trusted {
        return Err(TufError::Rollback { role: quote(role), trusted, offered });
    }
    Ok(())
}

fn root_file(version: u64) -> String {
    format!("{version}.root.json")
}
