//! The TUF client workflow (specification 1.0, sections 5.3.4 to 5.7): which metadata a device
//! believes, and what it then knows about a target.
//!
//! ```text
//! anchor root --> root walk --> timestamp --> snapshot --> targets --> delegated roles, on demand
//!     (pinned)    one step at a time   each: length, hashes, signatures, type, version, expiry
//! ```
//!
//! [`Updater`] is the whole public act: [`Updater::open`], [`Updater::refresh`],
//! [`Updater::find_target`], [`Updater::target_bytes`]. Bytes arrive through [`Fetch`], what was
//! verified is kept through [`Store`], time is an argument. What is stored is believed no more than
//! what is received: it is verified again after each start, and what fails is treated as absent.
//!
//! A file that is not what it must be is asked for again, of the source that comes next
//! ([`Fetch::refused`]): each file is held against its parent alone, so parts of one chain may come
//! from several sources, and none of them can make another's files believed.
//!
//! It refuses to guess: any answer to "is there a newer root?" other than a clear "no such file"
//! ends the refresh, and a failed refresh leaves nothing to look targets up in.

mod authority;
mod error;
mod floor;
#[cfg(feature = "foreign-keys")]
mod foreign;
mod imprint;
mod json;
mod key;
mod metadata;
mod names;
mod proof;
mod received;
mod search;
#[cfg(test)]
pub(crate) mod testkit;
mod updater;

#[cfg(test)]
mod tests_hostile;
#[cfg(test)]
mod tests_refresh;
#[cfg(test)]
mod tests_sources;
#[cfg(test)]
mod tests_targets;

pub use error::{Malformed, TufError};
pub use floor::Floor;
pub use names::{escape, escape_path};
pub use search::{DELEGATED_ROLES_PER_SEARCH, TargetInfo};
pub use updater::{Change, ROOTS_PER_REFRESH, Refreshed, Status, Updater};

use std::fmt::Display;

use lockgate_shared::time::Seconds;
use thiserror::Error;

/// Most sources that one file is asked of: eight mirrors, the server, and room for as many more.
pub const SOURCES_PER_FILE: u32 = 16;
/// A timestamp signed longer ago than this is asked for of the other sources as well, and the newest
/// counts: the signer signs every ten minutes, so this is three signatures late.
pub const LAG: Seconds = Seconds(30 * 60);
/// Longest `root.json`: room for about a thousand keys, and still small enough to hold in memory.
pub const ROOT_LIMIT: u64 = 512 * 1024;
/// Longest `timestamp.json`: it names one file, so this is room for some dozens of signatures.
pub const TIMESTAMP_LIMIT: u64 = 16 * 1024;
/// Longest `snapshot.json`: about ten thousand roles with hashes.
pub const SNAPSHOT_LIMIT: u64 = 2 * 1024 * 1024;
/// Longest `targets.json` or delegated role: about twenty thousand targets.
pub const TARGETS_LIMIT: u64 = 5 * 1024 * 1024;
/// Longest target that [`Updater::target_bytes`] holds in memory: policies, manifests and rollout
/// files are at most 64 KiB each, chunk indexes a megabyte or two. Payloads stream elsewhere.
pub const SMALL_TARGET_LIMIT: u64 = 4 * 1024 * 1024;

/// Where metadata and small targets come from. An implementation gives each read a deadline.
pub trait Fetch {
    /// Reads `name`, which is relative to the metadata base and already escaped
    /// (`2.root.json`, `timestamp.json`, `7.snapshot.json`), stopping once `max` bytes are exceeded.
    fn metadata(&mut self, name: &str, max: u64) -> Result<Vec<u8>, FetchError>;

    /// Reads `path`, which is relative to the targets base and already escaped
    /// (`releases/app/<sha256>.1.2.0.json`), stopping once `max` bytes are exceeded.
    fn target(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError>;

    /// Hears that the bytes it gave last are not what they must be, and why. Says whether another
    /// source has still to be asked: then the same file is read again, and must come from there.
    fn refused(&mut self, why: &dyn Display) -> Another {
        let _ = why;
        Another::Nobody
    }
}

/// Whether the file that was refused may come from somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Another {
    /// The next read of the same file asks the source that comes next.
    Source,
    /// Every source was asked, or enough was tried.
    Nobody,
}

/// Why a file could not be read from the repository.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FetchError {
    /// The repository said clearly that there is no such file (HTTP 404, nothing else).
    #[error("no such file")]
    NotFound,
    /// More bytes came, or were announced, than asked for.
    #[error("longer than the {limit} bytes allowed")]
    TooLong {
        /// The bytes asked for.
        limit: u64,
    },
    /// Anything else: refused, reset, timed out, another status.
    #[error("{0}")]
    Failed(String),
}

/// Where verified metadata is kept. Names are plain file names: `timestamp.json`, `3.root.json`,
/// `delegated-app.json`; never a separator, never a leading dot, at most 255 bytes.
pub trait Store {
    /// The bytes under `name`, or nothing if there are none.
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Replaces what is under `name`, all or nothing, durable on return.
    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;
    /// Removes `name`, durable on return; removing what is absent succeeds.
    fn remove(&mut self, name: &str) -> Result<(), StoreError>;
}

/// Why the store could not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Not a name that a store keeps anything under.
    #[error("`{}` is not a name for stored metadata", .0.escape_debug())]
    Name(String),
    /// The disk's answer.
    #[error("cannot {act} `{name}`")]
    Io {
        /// What was tried: `read`, `write`, `remove`.
        act: &'static str,
        /// The file.
        name: String,
        /// The system's reason.
        source: std::io::Error,
    },
}
