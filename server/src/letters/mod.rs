//! The letter box: takes letters and enrolments, acknowledges them when they are on disk, keeps a
//! table of devices in memory, and passes on what restricts.
//!
//! | to find out | open |
//! |---|---|
//! | whether a letter or enrolment is taken, and what it is answered | [`checkin`] |
//! | which devices are revoked or held | [`bars`] |
//! | who comes too often | [`meter`] |
//! | when something is on disk | [`journal`] |
//! | which letter is next, the same again, or a replay | [`devices`] |
//! | what is known of a device | [`record`] |
//! | what a device is told to keep to | [`orders`] |
//! | by which policy tokens are judged | [`policy`] |
//! | what the gatekeeper reported | [`reports`] |
//!
//! It opens nothing: what expands is signed elsewhere and verified by the gatekeeper and the devices.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use lockgate_shared::{
    id::Digest,
    time::{Moment, Seconds},
    wire::{CodecError, Enrolment, Letter, Sealed, codec},
};
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    config::{Api, Config, ConfigError, Polls},
    status::{Status, Verdict},
    store::{Change, DeviceRow, NewEntry, Store, StoreError, Table, sqlite::SqliteStore},
    stream::{Entry, EntryKind, FRAME_BYTES, LetterRecord},
};

pub mod bars;
pub mod checkin;
pub mod devices;
pub mod journal;
pub mod meter;
pub mod orders;
pub mod policy;
pub mod record;
pub mod reports;
mod sample;
mod tokens;

pub use checkin::Refusal;
pub use devices::{Devices, Page};
pub use journal::JournalError;
pub use orders::{OrdersBook, Prepared};
pub use policy::CurrentPolicy;
pub use record::{DeviceRecord, LastLetter};
pub use reports::Reports;

use bars::Bars;
use journal::Journal;
use meter::Meter;
use record::{Arrival, RecordError, Update};
use reports::ReportError;
use sample::Sampler;
use tokens::TokenUses;

/// Rows in one part of a sweep: some megabytes, so that letters wait for one only a moment.
const SWEEP_ROWS: usize = 2_000;
/// How far ahead of the store a gatekeeper is followed: as far as it passes over what is missing in an
/// hour, so that the numbers outlast whatever leads it astray.
const AHEAD: u64 = 1 << 36;
/// Entries read at once while the journal is replayed.
const REPLAY: usize = 4_096;

/// The state that every request shares.
#[derive(Debug)]
pub struct LetterBox {
    api: Api,
    polls: Polls,
    devices: Arc<Devices>,
    journal: Journal,
    low_water: AtomicU64,
    uses: TokenUses,
    bars: Bars,
    writers: Meter,
    addresses: Meter,
    acknowledged: AtomicU64,
    /// The first entry that was taken since the store was opened or moved on.
    fresh: AtomicU64,
    /// Whether a gatekeeper has been found to count the same entries since then.
    agreed: AtomicBool,
    sampler: Sampler,
    reports: RwLock<Reports>,
    reported: watch::Sender<u64>,
    policy: ArcSwapOption<CurrentPolicy>,
    /// What devices are told to keep to: swapped whole when a restriction changes.
    pub orders: ArcSwap<OrdersBook>,
}

/// Whether the letter box holds what a gatekeeper counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It does.
    Agrees,
    /// It lost some of it, and holds no more than what lies below.
    Behind(u64),
}

/// Why a letter box cannot start.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The configuration lacks a section.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A folder cannot be made.
    #[error(
        "cannot make the folder `{path}`\nhint: make it, and give it to the user that runs the server"
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// A row cannot be read.
    #[error("the device table cannot be loaded")]
    Record(#[from] RecordError),
    /// An entry cannot be read.
    #[error("entry {offset} of the journal cannot be replayed")]
    Replay {
        /// Its offset.
        offset: u64,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// Empty orders cannot be written, which no store can cause.
    #[error("orders cannot be encoded")]
    Orders(#[from] CodecError),
}

/// Why a report was refused.
#[derive(Debug, Error)]
pub enum TakeError {
    /// It makes no sense.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// It is not on disk.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl LetterBox {
    /// Opens the store that the configuration names, loads the table and replays the journal's tail.
    pub fn open(config: &Config) -> Result<Arc<Self>, OpenError> {
        let api = config.api()?;
        for path in [api.state.clone(), api.state.join("artifacts")] {
            fs::create_dir_all(&path).map_err(|source| OpenError::Folder { path, source })?;
        }
        let store = SqliteStore::open(&api.state.join("store.db"))?;
        Self::open_store(Box::new(store), api, config.polls)
    }

    /// The same on a store that is open already.
    pub fn open_store(
        store: Box<dyn Store>,
        api: &Api,
        polls: Polls,
    ) -> Result<Arc<Self>, OpenError> {
        let devices = Arc::new(Devices::default());
        let low_water = load(store.as_ref(), &devices)?;
        let uses = TokenUses::default();
        for key in store.table(Table::TokenUses)?.keys() {
            uses.load(key);
        }
        let bars = Bars::load(&store.table(Table::Bars)?);
        let reports = Reports::load(store.table(Table::Reports)?);
        tracing::info!(devices = devices.len(), head = store.head()?, low_water, "store loaded");
        let fresh = store.head()?;
        let tick = Duration::from_millis(api.journal_tick_ms);
        let journal = Journal::start(store, Arc::clone(&devices), tick)?;
        let letter_box = Self {
            api: api.clone(),
            polls,
            devices,
            journal,
            low_water: low_water.into(),
            uses,
            bars,
            writers: Meter::new(api.device_letters_per_minute),
            addresses: Meter::new(api.address_requests_per_minute),
            acknowledged: AtomicU64::new(0),
            fresh: fresh.into(),
            agreed: AtomicBool::new(false),
            sampler: Sampler::default(),
            reports: RwLock::new(reports),
            reported: watch::Sender::new(0),
            policy: ArcSwapOption::empty(),
            orders: ArcSwap::from_pointee(OrdersBook::empty()?),
        };
        letter_box.refresh_policy();
        Ok(Arc::new(letter_box))
    }

    /// Its configuration.
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// How often each address comes.
    pub const fn addresses(&self) -> &Meter {
        &self.addresses
    }

    /// The gatekeeper asked for entries from here on: what lies below is in its own store.
    pub fn acknowledge(&self, from: u64) {
        self.acknowledged.fetch_max(from, Ordering::Relaxed);
    }

    /// Whether the store holds what a gatekeeper counted that asks for entries `from` here on, and whose
    /// `last` one has this digest. Where it does not, because it was restored from an older backup or is a
    /// new one, it moves on: were the next entries numbered as those that it lost, nobody would ever count
    /// them. What was taken since the start is taken along; what was lost stays lost, which devices'
    /// counts of outcomes show.
    pub async fn follow(&self, from: u64, last: Option<Digest>) -> Result<Followed, JournalError> {
        let head = *self.journal.head().borrow();
        let agreed = self.agreed.load(Ordering::Relaxed);
        if from <= head && (agreed || self.has(from, last).await?) {
            self.agreed.store(true, Ordering::Relaxed);
            return Ok(Followed::Agrees);
        }
        let behind = Followed::Behind(head.min(from.saturating_sub(1)));
        if from.saturating_sub(head) > AHEAD {
            tracing::error!(head, from, "the gatekeeper is further ahead than this is followed");
            return Ok(behind);
        }
        let moved = self.journal.move_on(self.fresh.load(Ordering::Relaxed), from).await?;
        self.fresh.store(moved, Ordering::Relaxed);
        self.agreed.store(true, Ordering::Relaxed);
        tracing::error!(head, from, moved, "this store is older than what the gatekeeper counted");
        Ok(behind)
    }

    /// Whether the entry before `from` is this one. One that was pruned was counted long ago.
    async fn has(&self, from: u64, last: Option<Digest>) -> Result<bool, JournalError> {
        let (Some(before), Some(last)) = (from.checked_sub(1), last) else { return Ok(true) };
        let found = self.read(before, 1, FRAME_BYTES).await?;
        let same = found.first().filter(|entry| entry.offset == before);
        Ok(same.is_none_or(|entry| entry.digest() == last))
    }

    /// The device table.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The policy in force; none before there is a repository.
    pub fn policy(&self) -> Option<Arc<CurrentPolicy>> {
        self.policy.load_full()
    }

    /// Looks for a newer policy. One that cannot be verified leaves the old one in force.
    pub fn refresh_policy(&self) {
        match policy::read(&self.api.repository, &self.api.anchor) {
            Ok(new) => {
                let old = self.policy.load();
                let version = old.as_ref().map(|old| old.targets_version);
                if version.is_some_and(|version| version >= new.targets_version) {
                    return;
                }
                tracing::info!(targets = new.targets_version, "policy in force");
                self.policy.store(Some(Arc::new(new)));
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no newer policy");
            }
        }
    }

    /// Appends an entry to the stream; returns its offset when it is on disk.
    pub async fn append(&self, entry: NewEntry) -> Result<u64, JournalError> {
        self.journal.tell(Vec::new(), Some(entry)).await
    }

    /// Writes small tables' changes and then an entry: the entry is never on disk without them.
    pub async fn put_and_append(
        &self,
        changes: Vec<Change>,
        entry: NewEntry,
    ) -> Result<u64, JournalError> {
        self.journal.tell(changes, Some(entry)).await
    }

    /// Changes rows of the small tables together; they are on disk when it returns.
    pub async fn put(&self, changes: Vec<Change>) -> Result<(), JournalError> {
        self.journal.tell(changes, None).await.map(|_| ())
    }

    /// A small table, whole.
    pub async fn table(&self, table: Table) -> Result<BTreeMap<String, Vec<u8>>, JournalError> {
        self.journal.table(table).await
    }

    /// Entries from an offset on.
    pub async fn read(
        &self,
        from: u64,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, JournalError> {
        self.journal.read(from, max, max_bytes).await
    }

    /// One beyond the newest offset on disk, and a way to wait for the next.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.journal.head()
    }

    /// How often devices are asked to poll.
    pub const fn polls(&self) -> Seconds {
        self.polls.interval_s
    }

    /// What the gatekeeper reported. Hold the guard only briefly, and never across an await.
    pub fn reports(&self) -> RwLockReadGuard<'_, Reports> {
        self.reports.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts reports: changes whenever the gatekeeper reported.
    pub fn reported(&self) -> watch::Receiver<u64> {
        self.reported.subscribe()
    }

    /// Keeps a report of the gatekeeper.
    pub async fn take_report(
        &self,
        verdicts: Vec<Verdict>,
        status: Status,
        audit: Vec<String>,
    ) -> Result<(), TakeError> {
        self.put(Reports::changes(&verdicts, &status, &audit)?).await?;
        self.reports.write().unwrap_or_else(PoisonError::into_inner).take(verdicts, status, audit);
        self.refresh_policy();
        self.reported.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// Writes every changed row to disk, in key order, and with the last ones the offset from which a
    /// restart replays.
    pub async fn sweep(&self) -> Result<(), JournalError> {
        // Read before the rows are: every row contains what lies below it.
        let head = *self.journal.head().borrow();
        let low = self.low_water.load(Ordering::Relaxed);
        let mut part = 0;
        while let Some(dirty) = self.devices.take_dirty(part) {
            part += 1;
            match dirty {
                Ok(rows) => self.sweep_rows(&rows, low).await?,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "a row cannot be written down");
                    return Err(JournalError::Failed);
                }
            }
        }
        self.journal.sweep(Vec::new(), head).await?;
        self.low_water.store(head, Ordering::Relaxed);
        self.prune(head).await
    }

    /// Takes letters away that nobody needs any more: their content is in the device table, the
    /// gatekeeper has them in its own store, and people had the time to look at them.
    async fn prune(&self, low_water: u64) -> Result<(), JournalError> {
        let below = low_water.min(self.acknowledged.load(Ordering::Relaxed));
        let before = crate::clock::now().minus(self.api.letters_kept_s);
        let gone = self.journal.prune(below, before).await?;
        if gone > 0 {
            tracing::debug!(gone, "letters were taken out of the journal");
        }
        Ok(())
    }

    async fn sweep_rows(&self, rows: &[DeviceRow], low_water: u64) -> Result<(), JournalError> {
        for (n, some) in rows.chunks(SWEEP_ROWS).enumerate() {
            let swept = self.journal.sweep(some.to_vec(), low_water).await;
            if swept.is_err() {
                self.devices.mark_dirty(rows.get(n * SWEEP_ROWS..).unwrap_or(rows));
                return swept;
            }
        }
        Ok(())
    }

    /// Ends the writer; the store is closed when it returns. What was acknowledged is on disk with or
    /// without it.
    pub fn close(&self) {
        self.journal.stop();
    }
}

/// Loads the table and replays what came after it was swept.
fn load(store: &dyn Store, devices: &Devices) -> Result<u64, OpenError> {
    let mut unreadable = None;
    let low_water = store.load(&mut |row| {
        if let Err(error) = devices.load(&row) {
            unreadable.get_or_insert(error);
        }
    })?;
    if let Some(error) = unreadable {
        return Err(error.into());
    }
    let mut from = low_water;
    loop {
        let entries = store.read(from, REPLAY, FRAME_BYTES)?;
        let Some(last) = entries.last() else { return Ok(low_water) };
        from = last.offset + 1;
        for entry in &entries {
            replay(entry, devices)
                .map_err(|source| OpenError::Replay { offset: entry.offset, source })?;
        }
    }
}

/// Does to the table what the entry did when it came. It was verified then.
fn replay(entry: &Entry, devices: &Devices) -> Result<(), RecordError> {
    match entry.kind {
        EntryKind::Enrolment(format) => {
            let enrolment = Enrolment::open(&Sealed::read(&entry.bytes, format)?)?;
            devices.enrol(&Arrival::of(&enrolment, entry.received)?, entry.offset);
        }
        EntryKind::Letter(format) => {
            let sealed = Sealed::read(&entry.bytes, format)?;
            let letter = Letter::open_unverified(&sealed)?;
            devices.letter(Update::of(&sealed, &letter, entry.received)?, entry.offset);
        }
        EntryKind::Record => {
            let record: LetterRecord = codec::decode(&entry.bytes, checkin::RECORD_BYTES)?;
            let LetterRecord { device, sequence, digest } = record;
            let received: Moment = entry.received;
            let update = Update { device, sequence, digest, received, said: None };
            devices.letter(update, entry.offset);
        }
        EntryKind::Act
        | EntryKind::Publish
        | EntryKind::Stop
        | EntryKind::Bar
        | EntryKind::Withdraw => {}
    }
    Ok(())
}
