//! The letter box's store: a trait with one conformance suite that every backend runs.
//!
//! Letters are appended in batches and acknowledged after the sync; what is known of each device is
//! swept from memory in key order, now and then, together with the journal's low-water mark. There is
//! no row update per check-in. The small tables are maps from text to bytes.

pub mod conformance;
pub mod memory;
pub mod sqlite;

use std::collections::BTreeMap;

use lockgate_shared::{id::DeviceId, time::Moment};
use thiserror::Error;

use crate::stream::{Entry, EntryKind};

/// What a backend does. Calls come from one writer; a backend need not be shared.
pub trait Store: Send {
    /// Appends entries in order and returns the first one's offset, after they are on disk. All or
    /// none.
    fn append(&mut self, entries: &[NewEntry]) -> Result<u64, StoreError>;

    /// Goes on numbering at `to`, or at the head where that is above it: the entries from `from` on get
    /// the offsets from there on, in their order, and the next entry the one behind them. Returns the head, after it
    /// is on disk; where nothing was numbered anew, a restart begins at the old head again.
    fn move_on(&mut self, from: u64, to: u64) -> Result<u64, StoreError>;

    /// The offset that the next entry will have.
    fn head(&self) -> Result<u64, StoreError>;

    /// Entries from `from` on, at most `max` and at most about `max_bytes` of them (always at least
    /// one, if there is one).
    fn read(&self, from: u64, max: usize, max_bytes: usize) -> Result<Vec<Entry>, StoreError>;

    /// Writes what is known of devices, and the offset below which every entry is contained in it.
    /// All or none; on disk when it returns.
    fn sweep(&mut self, rows: &[DeviceRow], low_water: u64) -> Result<(), StoreError>;

    /// Takes letters and their records away that lie below `below` and came before `before`, some ten
    /// thousand at a time, and says how many. Everything else stays: enrolments, acts, publications and
    /// stops are what a gatekeeper is made of again. Offsets of what stays do not change, and the newest
    /// entry is never taken, so that none is given twice.
    fn prune(&mut self, below: u64, before: Moment) -> Result<u64, StoreError>;

    /// Every device row, in key order, and the low-water mark: replay begins there.
    fn load(&self, each: &mut dyn FnMut(DeviceRow)) -> Result<u64, StoreError>;

    /// Writes or removes rows of the small tables, together: all or none, on disk when it returns.
    fn put(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// A small table, whole.
    fn table(&self, table: Table) -> Result<BTreeMap<String, Vec<u8>>, StoreError>;
}

/// Offsets that one [`Store::prune`] looks at: some ten milliseconds, which letters wait.
pub const PRUNE_SPAN: u64 = 20_000;

/// An entry to append; the store gives it its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// When it came.
    pub received: Moment,
    /// What it is.
    pub kind: EntryKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What the letter box knows of a device, in its own encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// The device.
    pub device: DeviceId,
    /// Opaque to the store.
    pub bytes: Vec<u8>,
}

/// A change of a small table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table.
    pub table: Table,
    /// The row.
    pub key: String,
    /// Its new bytes; none removes it.
    pub value: Option<Vec<u8>>,
}

/// The small tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// API tokens, by name.
    Tokens,
    /// Pins, by tenant, device and product.
    Pins,
    /// Maintenance windows, by tenant and device.
    Windows,
    /// Freezes, by tenant and device.
    Freezes,
    /// Signed grants, by device and product.
    Grants,
    /// What tenants' own keys loosened, by tenant, device and kind.
    Loosenings,
    /// Stops passed on until the gatekeeper has numbered them, by entry.
    Stops,
    /// Uses of enrolment tokens, by token.
    TokenUses,
    /// What the gatekeeper said: verdicts by number, `status`, audit lines by number.
    Reports,
    /// Until which moment of issue the grants of a device for a product are revoked.
    RevokedGrants,
    /// Devices whose letters are not taken, by id.
    Bars,
    /// Releases that were published, by product and version.
    Releases,
}

impl Table {
    /// Its name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Pins => "pins",
            Self::Windows => "windows",
            Self::Freezes => "freezes",
            Self::Grants => "grants",
            Self::Loosenings => "loosenings",
            Self::Stops => "stops",
            Self::TokenUses => "token_uses",
            Self::Reports => "reports",
            Self::RevokedGrants => "revoked_grants",
            Self::Bars => "bars",
            Self::Releases => "releases",
        }
    }
}

/// Why the store could not do it.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error(
        "`{path}` is in use by another process\nhint: one server at a time works on a store; stop the other one or give this one a `state` of its own"
    )]
    InUse {
        /// The store.
        path: String,
    },
    /// The disk is full.
    #[error(
        "the disk that holds the store is full\nhint: free space; nothing that was acknowledged is lost"
    )]
    Full,
    /// Made by a later version.
    #[error(
        "the store has format {found}, this program knows up to {known}\nhint: update this program"
    )]
    Format {
        /// On disk.
        found: i64,
        /// Known.
        known: i64,
    },
    /// The backend failed.
    #[error("the store failed at {what}")]
    Backend {
        /// What was attempted.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
