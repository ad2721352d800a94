//! The gatekeeper's own file: everything it verified and decided, in small tables of keys and bytes.
//! One transaction takes an entry's consequences together with the offset behind it, so that after a
//! crash each entry has been counted once. It never holds what the letter box says unverified.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use thiserror::Error;

/// The format that this program writes.
const FORMAT: i64 = 1;

/// How long another process may take to let go of the store: a restart, not a second gatekeeper.
const PATIENCE: Duration = Duration::from_millis(500);

/// An open store. One process works on it.
#[derive(Debug)]
pub struct GatekeeperStore {
    connection: Connection,
}

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Single values by name: offset, counters, versions of signed roles.
    Meta,
    /// Verified devices, by id.
    Devices,
    /// Rollouts, by id.
    Rollouts,
    /// Devices in rollouts, by rollout and device.
    Cases,
    /// Trials of open stages in parts, by rollout, stage and part.
    Trials,
    /// The newest grants, by device and product.
    Grants,
    /// Until which moment of issue grants were taken back, by device and product.
    Withdrawn,
    /// Numbered stops that no lift has ended, by number.
    Stops,
    /// Signed lifts, by number.
    Lifts,
    /// Uses of enrolment tokens, by token.
    TokenUses,
    /// Verdicts, by number.
    Verdicts,
    /// Acts on their way into the audit chain, by number.
    Audit,
    /// What people published, by path in the repository.
    Files,
}

/// A row: its key and its bytes.
pub type Row = (Vec<u8>, Vec<u8>);

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The table.
    pub table: Table,
    /// The row.
    pub key: Vec<u8>,
    /// Its bytes; none removes it.
    pub value: Option<Vec<u8>>,
}

/// Why the store could not do it.
#[derive(Debug, Error)]
pub enum GatekeeperStoreError {
    /// Another process has it open.
    #[error(
        "`{path}` is in use by another process\nhint: one gatekeeper works on a store; stop the other one or give this one a `state` of its own"
    )]
    InUse {
        /// The file.
        path: String,
    },
    /// Made by a later version.
    #[error(
        "the gatekeeper's store has format {found}, this program knows {FORMAT}\nhint: update this program"
    )]
    Format {
        /// On disk.
        found: i64,
    },
    /// SQLite failed.
    #[error("the gatekeeper's store failed at {what}")]
    Database {
        /// What was attempted.
        what: &'static str,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
}

impl Table {
    const ALL: [Self; 13] = [
        Self::Meta,
        Self::Devices,
        Self::Rollouts,
        Self::Cases,
        Self::Trials,
        Self::Grants,
        Self::Withdrawn,
        Self::Stops,
        Self::Lifts,
        Self::TokenUses,
        Self::Verdicts,
        Self::Audit,
        Self::Files,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Devices => "devices",
            Self::Rollouts => "rollouts",
            Self::Cases => "cases",
            Self::Trials => "trials",
            Self::Grants => "grants",
            Self::Withdrawn => "withdrawn",
            Self::Stops => "stops",
            Self::Lifts => "lifts",
            Self::TokenUses => "token_uses",
            Self::Verdicts => "verdicts",
            Self::Audit => "audit",
            Self::Files => "files",
        }
    }
}

impl Write {
    /// A row's new bytes.
    pub fn put(table: Table, key: impl Into<Vec<u8>>, value: Vec<u8>) -> Self {
        Self { table, key: key.into(), value: Some(value) }
    }

    /// A row's removal.
    pub fn remove(table: Table, key: impl Into<Vec<u8>>) -> Self {
        Self { table, key: key.into(), value: None }
    }
}

impl GatekeeperStore {
    /// Opens or makes the store and keeps others out of it.
    pub fn open(path: &Path) -> Result<Self, GatekeeperStoreError> {
        let fail = |what| move |source| GatekeeperStoreError::Database { what, source };
        let connection = Connection::open(path).map_err(fail("opening it"))?;
        connection.busy_timeout(PATIENCE).map_err(fail("opening it"))?;
        let locked = connection.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             BEGIN EXCLUSIVE; COMMIT;",
        );
        if let Err(source) = locked {
            if source.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) {
                return Err(GatekeeperStoreError::InUse { path: path.display().to_string() });
            }
            return Err(fail("locking it")(source));
        }
        let found: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(fail("reading its format"))?;
        if found > FORMAT {
            return Err(GatekeeperStoreError::Format { found });
        }
        for table in Table::ALL {
            connection
                .execute_batch(&format!(
                    "CREATE TABLE IF NOT EXISTS {} (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
                    table.name()
                ))
                .map_err(fail("making its tables"))?;
        }
        connection
            .execute_batch(&format!("PRAGMA user_version = {FORMAT}"))
            .map_err(fail("noting its format"))?;
        Ok(Self { connection })
    }

    /// Writes all changes or none; they are on disk when it returns.
    pub fn commit(&mut self, writes: &[Write]) -> Result<(), GatekeeperStoreError> {
        let fail = |source| GatekeeperStoreError::Database { what: "writing", source };
        let transaction = self.connection.transaction().map_err(fail)?;
        for write in writes {
            let table = write.table.name();
            match &write.value {
                Some(value) => transaction
                    .prepare_cached(&format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2)"))
                    .and_then(|mut statement| statement.execute(params![write.key, value])),
                None => transaction
                    .prepare_cached(&format!("DELETE FROM {table} WHERE key = ?1"))
                    .and_then(|mut statement| statement.execute(params![write.key])),
            }
            .map_err(fail)?;
        }
        transaction.commit().map_err(fail)
    }

    /// One row.
    pub fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, GatekeeperStoreError> {
        self.connection
            .prepare_cached(&format!("SELECT value FROM {} WHERE key = ?1", table.name()))
            .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
            .map_err(|source| GatekeeperStoreError::Database { what: "reading a row", source })
    }

    /// Rows of a table from a key on, in key order, at most `max`.
    pub fn rows(
        &self,
        table: Table,
        from: &[u8],
        max: usize,
    ) -> Result<Vec<Row>, GatekeeperStoreError> {
        let fail = |source| GatekeeperStoreError::Database { what: "reading a table", source };
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT key, value FROM {} WHERE key >= ?1 ORDER BY key LIMIT ?2",
                table.name()
            ))
            .map_err(fail)?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let rows = statement
            .query_map(params![from, max], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(fail)?;
        rows.collect::<Result<_, _>>().map_err(fail)
    }

    /// A whole table, in key order.
    pub fn table(&self, table: Table) -> Result<Vec<Row>, GatekeeperStoreError> {
        self.rows(table, &[], usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_there_again_and_in_key_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gatekeeper.db");
        let mut store = GatekeeperStore::open(&path).expect("a store");
        let put = |key: u64| Write::put(Table::Verdicts, key.to_be_bytes(), vec![1]);
        store.commit(&[put(300), put(2), put(1)]).expect("a commit");
        store.commit(&[Write::remove(Table::Verdicts, 2u64.to_be_bytes())]).expect("a commit");
        drop(store);
        let store = GatekeeperStore::open(&path).expect("the store again");
        let keys: Vec<_> =
            store.table(Table::Verdicts).expect("rows").into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [1u64.to_be_bytes(), 300u64.to_be_bytes()]);
    }

    #[test]
    fn a_second_gatekeeper_is_kept_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gatekeeper.db");
        let _first = GatekeeperStore::open(&path).expect("a store");
        assert!(matches!(GatekeeperStore::open(&path), Err(GatekeeperStoreError::InUse { .. })));
    }
}
