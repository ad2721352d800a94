//! The store in one SQLite file, the embedded default: write-ahead log, a sync for every commit, a
//! lock so that one process works on it at a time.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    time::Duration,
};

use lockgate_shared::{id::DeviceId, time::Moment, wire::Format};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::{Change, DeviceRow, NewEntry, PRUNE_SPAN, Store, StoreError, Table};
use crate::stream::{Entry, EntryKind};

/// The format this code reads and writes.
const FORMAT: i64 = 1;
/// How often the lock of a store is tried, and the pause in between: half a second in all, which a
/// restart takes, and no second server bridges.
const ATTEMPTS: u32 = 11;
const PAUSE: Duration = Duration::from_millis(50);
/// Pages of the write-ahead log before it is folded in: 16 MiB, so that a stream of letters does not
/// pay for it at every other batch.
const CHECKPOINT_PAGES: i64 = 4_096;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    offset INTEGER PRIMARY KEY, received INTEGER NOT NULL, kind INTEGER NOT NULL, bytes BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS devices (device BLOB PRIMARY KEY, bytes BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS small (
    name TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (name, key)
) WITHOUT ROWID;
";

/// The store.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    head: u64,
    // Held as long as the store is open: the system frees it when the process ends, however it ends.
    _lock: File,
}

impl SqliteStore {
    /// Opens or makes the file at `path`. Its folder must exist.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        let connection = Connection::open(path).map_err(|error| failed("open", error))?;
        let set = |name, value| {
            connection.pragma_update(None, name, value).map_err(|error| failed("pragma", error))
        };
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .map_err(|error| failed("journal_mode", error))?;
        set("synchronous", "FULL")?;
        connection
            .pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))
            .map_err(|error| failed("wal_autocheckpoint", error))?;
        let found: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|error| failed("user_version", error))?;
        match found {
            0 => {
                connection
                    .execute_batch(&format!(
                        "BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;"
                    ))
                    .map_err(|error| failed("schema", error))?;
            }
            FORMAT => {}
            found => return Err(StoreError::Format { found, known: FORMAT }),
        }
        let newest: Option<i64> = connection
            .query_row("SELECT max(offset) FROM entries", [], |row| row.get(0))
            .map_err(|error| failed("head", error))?;
        let head = newest.map_or(0, |newest| unsigned(newest) + 1);
        Ok(Self { connection, head, _lock: lock })
    }
}

impl Store for SqliteStore {
    fn append(&mut self, entries: &[NewEntry]) -> Result<u64, StoreError> {
        const WHAT: &str = "append";
        let first = self.head;
        let fail = |error| failed(WHAT, error);
        let transaction = self.connection.transaction().map_err(fail)?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO entries VALUES (?1, ?2, ?3, ?4)")
                .map_err(fail)?;
            for (offset, entry) in (first..).zip(entries) {
                let kind = kind_number(entry.kind);
                insert
                    .execute(params![signed(offset), entry.received.0, kind, entry.bytes])
                    .map_err(fail)?;
            }
        }
        transaction.commit().map_err(fail)?;
        self.head = first + entries.len() as u64;
        Ok(first)
    }

    fn move_on(&mut self, from: u64, to: u64) -> Result<u64, StoreError> {
        let fail = |error| failed("move on", error);
        let to = to.max(self.head);
        let transaction = self.connection.transaction().map_err(fail)?;
        let moved: Vec<i64> = {
            let mut select = transaction
                .prepare("SELECT offset FROM entries WHERE offset >= ?1 ORDER BY offset")
                .map_err(fail)?;
            let rows = select.query_map([signed(from)], |row| row.get(0)).map_err(fail)?;
            rows.collect::<Result<_, _>>().map_err(fail)?
        };
        let mut head = to;
        for offset in moved {
            // Every new offset is above every old one, so none is taken.
            transaction
                .prepare_cached("UPDATE entries SET offset = ?1 WHERE offset = ?2")
                .and_then(|mut update| update.execute(params![signed(head), offset]))
                .map_err(fail)?;
            head += 1;
        }
        transaction.commit().map_err(fail)?;
        self.head = head;
        Ok(head)
    }

    fn head(&self) -> Result<u64, StoreError> {
        Ok(self.head)
    }

    fn read(&self, from: u64, max: usize, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let fail = |error| failed("read", error);
        let mut select = self
            .connection
            .prepare_cached("SELECT * FROM entries WHERE offset >= ?1 ORDER BY offset LIMIT ?2")
            .map_err(fail)?;
        let mut rows = select.query(params![signed(from), signed(max as u64)]).map_err(fail)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next().map_err(fail)? {
            let entry = Entry {
                offset: unsigned(row.get(0).map_err(fail)?),
                received: Moment(row.get(1).map_err(fail)?),
                kind: kind(row.get(2).map_err(fail)?)?,
                bytes: row.get(3).map_err(fail)?,
            };
            bytes += entry.bytes.len();
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn sweep(&mut self, rows: &[DeviceRow], low_water: u64) -> Result<(), StoreError> {
        let fail = |error| failed("sweep", error);
        let transaction = self.connection.transaction().map_err(fail)?;
        {
            let mut replace = transaction
                .prepare_cached("INSERT OR REPLACE INTO devices VALUES (?1, ?2)")
                .map_err(fail)?;
            for row in rows {
                replace.execute(params![row.device.0.as_slice(), row.bytes]).map_err(fail)?;
            }
        }
        transaction
            .execute(
                "INSERT OR REPLACE INTO meta VALUES ('low_water', ?1)",
                params![signed(low_water)],
            )
            .map_err(fail)?;
        transaction.commit().map_err(fail)
    }

    fn prune(&mut self, below: u64, before: Moment) -> Result<u64, StoreError> {
        let fail = |error| failed("prune", error);
        let below = below.min(self.head.saturating_sub(1));
        let transaction = self.connection.transaction().map_err(fail)?;
        // What lies below was looked at before: what is left there stays for good.
        let from: i64 = transaction
            .query_row("SELECT value FROM meta WHERE key = 'pruned'", [], |row| row.get(0))
            .optional()
            .map_err(fail)?
            .unwrap_or(0);
        // A store that moved on has no entries in between, and perhaps far more of none than a span.
        let from: i64 = transaction
            .query_row("SELECT min(offset) FROM entries WHERE offset >= ?1", [from], |row| {
                row.get::<_, Option<i64>>(0)
            })
            .map_err(fail)?
            .unwrap_or(from);
        let to = signed(below).min(from.saturating_add(signed(PRUNE_SPAN)));
        let young = transaction
            .query_row(
                "SELECT offset FROM entries WHERE offset >= ?1 AND offset < ?2 AND received >= ?3 ORDER BY offset LIMIT 1",
                params![from, to, before.0],
                |row| row.get::<_, i64>(0),
            )
            .optional()
            .map_err(fail)?;
        let to = young.unwrap_or(to);
        if to <= from {
            return Ok(0);
        }
        let gone = transaction
            .execute(
                "DELETE FROM entries WHERE offset >= ?1 AND offset < ?2 AND kind IN (2, 3, 4)",
                params![from, to],
            )
            .map_err(fail)?;
        transaction
            .execute("INSERT OR REPLACE INTO meta VALUES ('pruned', ?1)", params![to])
            .map_err(fail)?;
        transaction.commit().map_err(fail)?;
        Ok(gone as u64)
    }

    fn load(&self, each: &mut dyn FnMut(DeviceRow)) -> Result<u64, StoreError> {
        let fail = |error| failed("load", error);
        let mut select = self
            .connection
            .prepare("SELECT device, bytes FROM devices ORDER BY device")
            .map_err(fail)?;
        let mut rows = select.query([]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let device: [u8; 32] = row.get(0).map_err(fail)?;
            each(DeviceRow { device: DeviceId(device), bytes: row.get(1).map_err(fail)? });
        }
        let low_water: Option<i64> = self
            .connection
            .query_row("SELECT value FROM meta WHERE key = 'low_water'", [], |row| row.get(0))
            .optional()
            .map_err(fail)?;
        Ok(low_water.map_or(0, unsigned))
    }

    fn put(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let fail = |error| failed("put", error);
        let transaction = self.connection.transaction().map_err(fail)?;
        for change in changes {
            let name = change.table.name();
            match &change.value {
                Some(value) => transaction
                    .prepare_cached("INSERT OR REPLACE INTO small VALUES (?1, ?2, ?3)")
                    .and_then(|mut put| put.execute(params![name, change.key, value])),
                None => transaction
                    .prepare_cached("DELETE FROM small WHERE name = ?1 AND key = ?2")
                    .and_then(|mut delete| delete.execute(params![name, change.key])),
            }
            .map_err(fail)?;
        }
        transaction.commit().map_err(fail)
    }

    fn table(&self, table: Table) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let fail = |error| failed("table", error);
        let mut select = self
            .connection
            .prepare_cached("SELECT key, value FROM small WHERE name = ?1")
            .map_err(fail)?;
        select
            .query_map([table.name()], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(fail)?
            .collect::<Result<_, _>>()
            .map_err(fail)
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let broken = |source: std::io::Error| StoreError::Backend {
        what: "its lock file",
        source: Box::new(source),
    };
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&name).map_err(broken)?;
    for attempt in 1.. {
        match file.try_lock() {
            Ok(()) => break,
            // Whoever is about to let go does so soon: a server that ends, or a program that this
            // process has just started and that still holds what it was born with.
            Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: path.display().to_string() });
            }
            Err(TryLockError::Error(source)) => return Err(broken(source)),
        }
    }
    Ok(file)
}

fn failed(what: &'static str, error: rusqlite::Error) -> StoreError {
    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        return StoreError::Full;
    }
    StoreError::Backend { what, source: Box::new(error) }
}

const fn kind_number(kind: EntryKind) -> i64 {
    match kind {
        EntryKind::Enrolment(Format::Binary) => 0,
        EntryKind::Enrolment(Format::Json) => 1,
        EntryKind::Letter(Format::Binary) => 2,
        EntryKind::Letter(Format::Json) => 3,
        EntryKind::Record => 4,
        EntryKind::Act => 5,
        EntryKind::Publish => 6,
        EntryKind::Stop => 7,
        EntryKind::Bar => 8,
        EntryKind::Withdraw => 9,
    }
}

fn kind(number: i64) -> Result<EntryKind, StoreError> {
    Ok(match number {
        0 => EntryKind::Enrolment(Format::Binary),
        1 => EntryKind::Enrolment(Format::Json),
        2 => EntryKind::Letter(Format::Binary),
        3 => EntryKind::Letter(Format::Json),
        4 => EntryKind::Record,
        5 => EntryKind::Act,
        6 => EntryKind::Publish,
        7 => EntryKind::Stop,
        8 => EntryKind::Bar,
        9 => EntryKind::Withdraw,
        other => {
            return Err(StoreError::Backend {
                what: "read: an entry's kind",
                source: format!("{other} is no kind").into(),
            });
        }
    })
}

/// SQLite's integers are signed: offsets beyond 2^63 do not come up before the sun burns out.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn sqlite_conforms() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut count = 0;
        conformance::all(|| {
            count += 1;
            let path = folder.path().join(format!("{count}.db"));
            move || Box::new(SqliteStore::open(&path).expect("a store")) as Box<dyn Store>
        });
    }

    #[test]
    fn a_second_server_on_one_store_is_refused_and_welcome_when_the_first_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let first = SqliteStore::open(&path).expect("a store");
        assert!(matches!(SqliteStore::open(&path), Err(StoreError::InUse { .. })));
        drop(first);
        assert!(SqliteStore::open(&path).is_ok());
    }

    #[test]
    fn a_store_of_a_later_version_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path).expect("a store");
        store.connection.pragma_update(None, "user_version", 2).expect("a pragma");
        drop(store);
        let refused = SqliteStore::open(&path);
        assert!(matches!(refused, Err(StoreError::Format { found: 2, known: 1 })));
    }

    #[test]
    fn a_full_disk_is_said_to_be_full_and_takes_nothing_halfway() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = SqliteStore::open(&folder.path().join("store.db")).expect("a store");
        store
            .connection
            .pragma_update_and_check(None, "max_page_count", 16, |_| Ok(()))
            .expect("a pragma");
        let entry =
            |size| NewEntry { received: Moment(1), kind: EntryKind::Record, bytes: vec![7; size] };
        let refused = store.append(&[entry(10), entry(1 << 20)]);
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
        assert_eq!(store.head().expect("a head"), 0);
        assert_eq!(store.append(&[entry(10)]).expect("room for a small one"), 0);
    }
}
