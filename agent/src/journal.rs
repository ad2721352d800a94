//! The journal: what every machine is doing and is about to do, on the disk before it is done; the
//! outcomes and letters that no server has acknowledged; what the device remembers and was told.
//! SQLite in one file, synced with every entry.
//!
//! A journal that cannot be read is moved aside and begun anew: the device goes on from what its
//! slots hold. Its letters go on above every number it ever used, because a second, tiny file keeps
//! those apart. The trust anchor and the device's key are never touched here.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use lockgate_shared::{
    failure::Chain,
    id::{Digest, ProductId, RolloutId},
    json,
    version::Version,
    wire::{CodecError, Outcome, OutcomeRecord, Outcomes},
};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    core::{
        age::Tally,
        machine::{Effect, Plan, State},
    },
    log,
};

/// The journal's file in the agent's state folder.
pub const FILE: &str = "journal.db";
/// The file with the numbers that outlive the journal.
pub const SEQUENCE_FILE: &str = "sequence";
/// The journal's largest size: a dozen manifests of the largest kind, with room to rewrite them.
pub const MAX_BYTES: u64 = 64 << 20;
/// How many letter numbers are reserved at once in the sequence file: one more sync in so many
/// letters.
pub const RESERVED: u64 = 100;
/// How far the numbers jump when the journal was lost: past everything that may have been sent.
pub const JUMP: u64 = 1000;
/// Versions that are remembered as failed, per product, newest last.
pub const FAILED_KEPT: usize = 64;

const PAGE: u64 = 4096;
const FORMAT: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE steps (n INTEGER PRIMARY KEY AUTOINCREMENT, product TEXT NOT NULL,
    effect BLOB NOT NULL, done INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE outcomes (number INTEGER PRIMARY KEY, outcome BLOB NOT NULL) STRICT;
CREATE TABLE letters (sequence INTEGER PRIMARY KEY, bytes BLOB NOT NULL,
    carries BLOB NOT NULL) STRICT;
CREATE TABLE manifests (digest TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
";

/// What is kept for one product.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Its machine.
    pub state: State,
    /// Versions that failed here.
    pub failed: Vec<Version>,
    /// Rollouts that the device was let into.
    pub treated: Vec<RolloutId>,
    /// How the version that was confirmed last came: the way back from it.
    pub installed: Option<Plan>,
}

/// A letter on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Its number.
    pub sequence: u64,
    /// Its bytes, sealed: the same ones every time.
    pub bytes: Vec<u8>,
    /// What its acknowledgement settles.
    pub carries: Carries,
}

/// What the acknowledgement of a letter settles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carries {
    /// Numbers of its outcomes.
    pub outcomes: Vec<u64>,
    /// Rollouts whose groups it names.
    pub grouped: Vec<(ProductId, RolloutId)>,
    /// The digest of the facts it carries.
    pub facts: Option<Digest>,
}

/// How the journal was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There was none.
    Fresh,
    /// As it was left.
    Sound,
    /// It could not be read and was moved to this file.
    Broken(PathBuf),
}

/// The numbers that outlive the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Numbers {
    /// Letters up to this number may have been sent.
    reserved: u64,
    /// The outcomes' chain.
    outcomes: Outcomes,
    /// What the journal last said of the TPM's counter.
    #[serde(default)]
    tally: Option<String>,
}

/// Why the journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// SQLite's answer.
    #[error(
        "cannot {act} the journal\nhint: `df -h` and `ls -l` its folder: it must be writable and not full"
    )]
    Sqlite {
        /// What was tried.
        act: &'static str,
        /// Its reason.
        source: rusqlite::Error,
    },
    /// The disk's answer.
    #[error("cannot {act} `{path}`", path = path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// An entry is not what it was written as.
    #[error("the journal's entry `{key}` cannot be read")]
    Entry {
        /// Which.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An outcome that cannot be chained.
    #[error("an outcome cannot be encoded")]
    Outcome(#[from] CodecError),
}

/// The journal, open.
#[derive(Debug)]
pub struct Journal {
    db: Connection,
    folder: PathBuf,
    numbers: Numbers,
}

impl Journal {
    /// Opens the journal below `folder`, or begins one.
    pub fn open(folder: &Path) -> Result<(Self, Found), JournalError> {
        let path = folder.join(FILE);
        let numbers = read_numbers(folder);
        let existed = path.exists();
        match sound(&path) {
            Ok(db) => {
                let found = if existed { Found::Sound } else { Found::Fresh };
                let lost = !existed && numbers.as_ref().is_some_and(|n| n.reserved > 0);
                let mut journal =
                    Self { db, folder: folder.to_owned(), numbers: numbers.unwrap_or_default() };
                if lost {
                    journal.jump()?;
                }
                Ok((journal, found))
            }
            Err(JournalError::Sqlite { source, .. }) if is_broken(&source) => {
                let aside = move_aside(&path)?;
                let db = sound(&path)?;
                let mut journal =
                    Self { db, folder: folder.to_owned(), numbers: numbers.unwrap_or_default() };
                journal.jump()?;
                Ok((journal, Found::Broken(aside)))
            }
            Err(other) => Err(other),
        }
    }

    /// What stands under a key. An entry that this version cannot read counts as absent: an agent
    /// that went back to its old slot meets what a newer one wrote, and must go on.
    pub fn load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, JournalError> {
        let bytes: Option<Vec<u8>> = self
            .db
            .prepare_cached("SELECT value FROM state WHERE key = ?1")
            .and_then(|mut query| query.query_row([key], |row| row.get(0)).optional())
            .map_err(|source| JournalError::Sqlite { act: "read", source })?;
        Ok(bytes.and_then(|bytes| readable(key, &bytes)))
    }

    /// Replaces what stands under a key.
    pub fn save<T: Serialize>(&mut self, key: &str, value: &T) -> Result<(), JournalError> {
        let bytes = to_json(key, value)?;
        self.write(|tx| put(tx, key, &bytes))
    }

    /// A product's record.
    pub fn record(&self, product: &ProductId) -> Result<Record, JournalError> {
        Ok(self.load(&record_key(product))?.unwrap_or_default())
    }

    /// Writes down a step: the product's record and the effects that are about to be done, in one
    /// entry with the outcomes among them. Effects of an earlier step are over by that. Gives each
    /// effect that the shell has to do its number.
    pub fn commit(
        &mut self,
        product: &ProductId,
        record: &mut Record,
        effects: &[Effect],
    ) -> Result<Vec<(i64, Effect)>, JournalError> {
        let mut outcomes = Vec::new();
        let mut chain = self.outcomes()?;
        let mut to_do = Vec::new();
        for effect in effects {
            match effect {
                Effect::RecordOutcome { outcome } => {
                    chain = chain.with(outcome)?;
                    outcomes.push((chain.count, to_json("outcome", outcome)?));
                }
                Effect::RememberFailed { version } => remember(&mut record.failed, version),
                Effect::Fetch
                | Effect::DiscardSlot { .. }
                | Effect::VerifySlot { .. }
                | Effect::LastLook
                | Effect::Activate { .. }
                | Effect::Restart
                | Effect::RunProbe { .. }
                | Effect::SendLetter => to_do.push((effect, to_json("effect", effect)?)),
            }
        }
        let recorded = !outcomes.is_empty();
        let state = to_json("record", record)?;
        let chain_bytes = to_json("outcomes", &chain)?;
        let numbered = self.write(|tx| {
            put(tx, &record_key(product), &state)?;
            tx.execute("DELETE FROM steps WHERE product = ?1", [product.as_str()])?;
            for (number, bytes) in &outcomes {
                tx.execute("INSERT INTO outcomes VALUES (?1, ?2)", params![*number as i64, bytes])?;
            }
            if recorded {
                put(tx, "outcomes", &chain_bytes)?;
            }
            let mut numbered = Vec::new();
            for (effect, bytes) in &to_do {
                tx.execute(
                    "INSERT INTO steps (product, effect) VALUES (?1, ?2)",
                    params![product.as_str(), bytes],
                )?;
                numbered.push((tx.last_insert_rowid(), (*effect).clone()));
            }
            Ok(numbered)
        })?;
        if recorded {
            self.numbers.outcomes = chain;
            self.write_numbers()?;
        }
        Ok(numbered)
    }

    /// Notes that an effect was done.
    pub fn done(&mut self, step: i64) -> Result<(), JournalError> {
        self.write(|tx| tx.execute("DELETE FROM steps WHERE n = ?1", [step]).map(drop))
    }

    /// Effects that were written down and of which nobody knows whether they were done.
    pub fn undone(&self, product: &ProductId) -> Result<Vec<Effect>, JournalError> {
        let rows: Result<Vec<Vec<u8>>, rusqlite::Error> = self
            .db
            .prepare_cached("SELECT effect FROM steps WHERE product = ?1 AND done = 0 ORDER BY n")
            .and_then(|mut query| query.query_map([product.as_str()], |row| row.get(0))?.collect());
        let rows = rows.map_err(|source| JournalError::Sqlite { act: "read", source })?;
        Ok(rows.iter().filter_map(|bytes| readable("effect", bytes)).collect())
    }

    /// The chain over all outcomes in the device's life.
    pub fn outcomes(&self) -> Result<Outcomes, JournalError> {
        Ok(self.load("outcomes")?.unwrap_or(self.numbers.outcomes))
    }

    /// What it says of the TPM's counter.
    pub fn tally(&self) -> Result<Option<Tally>, JournalError> {
        let line: Option<String> = self.load("tally")?;
        Ok(line.as_ref().or(self.numbers.tally.as_ref()).and_then(|line| Tally::read(line)))
    }

    /// Replaces what it says of the TPM's counter, also where it outlives the journal.
    pub fn save_tally(&mut self, tally: &Tally) -> Result<(), JournalError> {
        let line = tally.to_string();
        self.save("tally", &line)?;
        self.numbers.tally = Some(line);
        self.write_numbers()
    }

    /// The oldest outcomes that no acknowledged letter carried.
    pub fn waiting_outcomes(&self, most: usize) -> Result<Vec<OutcomeRecord>, JournalError> {
        let rows: Result<Vec<(i64, Vec<u8>)>, rusqlite::Error> = self
            .db
            .prepare_cached("SELECT number, outcome FROM outcomes ORDER BY number LIMIT ?1")
            .and_then(|mut query| {
                query
                    .query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| {
                        Ok((row.get(0)?, row.get(1)?))
                    })?
                    .collect()
            });
        rows.map_err(|source| JournalError::Sqlite { act: "read", source })?
            .into_iter()
            .map(|(number, bytes)| {
                let outcome: Outcome = from_json("outcome", &bytes)?;
                Ok(OutcomeRecord { number: number.unsigned_abs(), outcome })
            })
            .collect()
    }

    /// The number of the next letter.
    pub fn next_sequence(&mut self) -> Result<u64, JournalError> {
        let last: u64 = self.load("sequence")?.unwrap_or(self.numbers.reserved);
        let next = last.saturating_add(1);
        if next > self.numbers.reserved {
            self.numbers.reserved = next.saturating_add(RESERVED);
            self.write_numbers()?;
        }
        Ok(next)
    }

    /// Goes on far above every number used so far: another letter already used the next ones.
    pub fn jump(&mut self) -> Result<(), JournalError> {
        let last: u64 = self.load("sequence")?.unwrap_or_default();
        let from = last.max(self.numbers.reserved).saturating_add(JUMP);
        self.numbers.reserved = from.saturating_add(RESERVED);
        self.write_numbers()?;
        self.save("sequence", &from)
    }

    /// Puts a sealed letter into the spool.
    pub fn spool(&mut self, letter: &Spooled) -> Result<(), JournalError> {
        let carries = to_json("carries", &letter.carries)?;
        let sequence = to_json("sequence", &letter.sequence)?;
        self.write(|tx| {
            tx.execute(
                "INSERT OR REPLACE INTO letters VALUES (?1, ?2, ?3)",
                params![letter.sequence as i64, letter.bytes, carries],
            )?;
            put(tx, "sequence", &sequence)
        })
    }

    /// The oldest letter in the spool.
    pub fn waiting_letter(&self) -> Result<Option<Spooled>, JournalError> {
        let row: Option<(i64, Vec<u8>, Vec<u8>)> = self
            .db
            .prepare_cached(
                "SELECT sequence, bytes, carries FROM letters ORDER BY sequence LIMIT 1",
            )
            .and_then(|mut query| {
                query.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
            })
            .map_err(|source| JournalError::Sqlite { act: "read", source })?;
        row.map(|(sequence, bytes, carries)| {
            let carries = from_json("carries", &carries)?;
            Ok(Spooled { sequence: sequence.unsigned_abs(), bytes, carries })
        })
        .transpose()
    }

    /// Takes an acknowledged letter and its outcomes out of the spool, and replaces `saved` with it,
    /// all in one entry.
    pub fn settle(
        &mut self,
        letter: &Spooled,
        saved: &[(String, Vec<u8>)],
    ) -> Result<(), JournalError> {
        self.write(|tx| {
            tx.execute("DELETE FROM letters WHERE sequence = ?1", [letter.sequence as i64])?;
            for number in &letter.carries.outcomes {
                tx.execute("DELETE FROM outcomes WHERE number = ?1", [*number as i64])?;
            }
            saved.iter().try_for_each(|(key, bytes)| put(tx, key, bytes))
        })
    }

    /// Takes a letter that the server will never take out of the spool; what it carried goes into
    /// the next one.
    pub fn drop_letter(&mut self, sequence: u64) -> Result<(), JournalError> {
        self.write(|tx| {
            tx.execute("DELETE FROM letters WHERE sequence = ?1", [sequence as i64]).map(drop)
        })
    }

    /// Forgets every letter and outcome, and what is `dropped`; replaces `saved`. For a device that is
    /// another one from now on. Its numbers go on rising, which is no harm.
    pub fn begin_anew(
        &mut self,
        saved: &[(String, Vec<u8>)],
        dropped: &[&str],
    ) -> Result<(), JournalError> {
        let none = to_json("outcomes", &Outcomes::default())?;
        self.write(|tx| {
            tx.execute_batch("DELETE FROM letters; DELETE FROM outcomes")?;
            for key in dropped {
                tx.execute("DELETE FROM state WHERE key = ?1", [key])?;
            }
            put(tx, "outcomes", &none)?;
            saved.iter().try_for_each(|(key, bytes)| put(tx, key, bytes))
        })?;
        self.numbers.outcomes = Outcomes::default();
        self.write_numbers()
    }

    /// How many letters and outcomes wait.
    pub fn waiting(&self) -> Result<(u64, u64), JournalError> {
        let count = |sql: &str| -> Result<i64, rusqlite::Error> {
            self.db.prepare_cached(sql)?.query_row([], |row| row.get(0))
        };
        let letters = count("SELECT count(*) FROM letters");
        let outcomes = count("SELECT count(*) FROM outcomes");
        match (letters, outcomes) {
            (Ok(letters), Ok(outcomes)) => Ok((letters.unsigned_abs(), outcomes.unsigned_abs())),
            (Err(source), _) | (_, Err(source)) => {
                Err(JournalError::Sqlite { act: "read", source })
            }
        }
    }

    /// A manifest's verified bytes.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<Vec<u8>>, JournalError> {
        self.db
            .prepare_cached("SELECT bytes FROM manifests WHERE digest = ?1")
            .and_then(|mut query| {
                query.query_row([digest.to_string()], |row| row.get(0)).optional()
            })
            .map_err(|source| JournalError::Sqlite { act: "read", source })
    }

    /// Keeps a manifest's verified bytes, and of the others only those named.
    pub fn keep_manifest(
        &mut self,
        digest: &Digest,
        bytes: &[u8],
        others: &[Digest],
    ) -> Result<(), JournalError> {
        let kept: Vec<String> = others.iter().map(ToString::to_string).collect();
        self.write(|tx| {
            let all: Vec<String> = tx
                .prepare("SELECT digest FROM manifests")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for stale in all.iter().filter(|digest| !kept.contains(digest)) {
                tx.execute("DELETE FROM manifests WHERE digest = ?1", [stale])?;
            }
            tx.execute(
                "INSERT OR REPLACE INTO manifests VALUES (?1, ?2)",
                params![digest.to_string(), bytes],
            )
            .map(drop)
        })
    }

    /// Gives back what the database keeps at hand: until the next turn nobody reads from it.
    pub fn rest(&self) {
        // Without it the agent is only larger.
        let _ = self.db.execute_batch("PRAGMA shrink_memory");
    }

    fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, JournalError> {
        #[cfg(test)]
        power::check()?;
        let result = self.db.transaction().and_then(|tx| {
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        });
        let value = result.map_err(|source| JournalError::Sqlite { act: "write", source })?;
        #[cfg(feature = "faults")]
        crate::faults::wrote();
        #[cfg(test)]
        power::wrote()?;
        Ok(value)
    }

    fn write_numbers(&self) -> Result<(), JournalError> {
        let bytes = to_json("sequence", &self.numbers)?;
        let path = self.folder.join(SEQUENCE_FILE);
        let fresh = path.with_extension("new");
        let failed = |source| JournalError::Io { act: "write", path: path.clone(), source };
        let mut file = fs::File::create(&fresh).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&fresh, &path).map_err(failed)?;
        fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

/// What the journal below a folder last said of the TPM's counter, for whoever does not open it.
pub fn tally(folder: &Path) -> Option<Tally> {
    Tally::read(&read_numbers(folder)?.tally?)
}

/// The bytes under which a value stands in the journal: for [`Journal::settle`].
pub fn to_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Vec<u8>, JournalError> {
    json::write(value).map_err(|source| JournalError::Entry { key: key.to_owned(), source })
}

fn from_json<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, JournalError> {
    json::read(bytes).map_err(|source| JournalError::Entry { key: key.to_owned(), source })
}

fn readable<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Option<T> {
    match from_json(key, bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            log::error(Chain(&error));
            None
        }
    }
}

/// The key of a product's record.
pub fn record_key(product: &ProductId) -> String {
    format!("product/{product}")
}

fn put(tx: &Transaction<'_>, key: &str, bytes: &[u8]) -> Result<(), rusqlite::Error> {
    tx.prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2)")?
        .execute(params![key, bytes])
        .map(drop)
}

fn remember(failed: &mut Vec<Version>, version: &Version) {
    failed.retain(|known| known != version);
    failed.push(version.clone());
    let excess = failed.len().saturating_sub(FAILED_KEPT);
    failed.drain(..excess);
}

/// Opens the database and makes sure that it is one, whole, and of this format.
fn sound(path: &Path) -> Result<Connection, JournalError> {
    let opened = || -> Result<Connection, rusqlite::Error> {
        let db = Connection::open(path)?;
        // The rollback journal keeps its file and so its place on a disk that fills up: the way back
        // to the old slot must be writable then too.
        db.pragma_update(None, "journal_mode", "PERSIST")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "max_page_count", i64::try_from(MAX_BYTES / PAGE).unwrap_or(1))?;
        // One product's machine needs no cache beyond a few pages.
        db.pragma_update(None, "cache_size", -256)?;
        let check: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        let format: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if check != "ok" || (format != 0 && format != FORMAT) {
            return Err(broken());
        }
        if format == 0 {
            db.execute_batch(&format!("BEGIN;{SCHEMA}PRAGMA user_version={FORMAT};COMMIT"))?;
        }
        Ok(db)
    };
    opened().map_err(|source| JournalError::Sqlite { act: "open", source })
}

fn broken() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some("the journal fails its own check".into()),
    )
}

fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

/// Moves the file out of the way, over the one of an earlier time: one is enough to look into.
fn move_aside(path: &Path) -> Result<PathBuf, JournalError> {
    let aside = path.with_extension("db.broken");
    let failed = |source| JournalError::Io { act: "move aside", path: path.to_owned(), source };
    fs::rename(path, &aside).map_err(failed)?;
    let mut log = path.as_os_str().to_owned();
    log.push("-journal");
    match fs::remove_file(PathBuf::from(log)) {
        Ok(()) => Ok(aside),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(aside),
        Err(error) => Err(failed(error)),
    }
}

fn read_numbers(folder: &Path) -> Option<Numbers> {
    let bytes = fs::read(folder.join(SEQUENCE_FILE)).ok()?;
    json::read(&bytes).ok()
}

#[cfg(test)]
pub(crate) mod power;

#[cfg(test)]
mod tests;
