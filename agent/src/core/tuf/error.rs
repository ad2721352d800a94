//! Everything that can end a refresh or a search, each with what to do about it.

use lockgate_shared::time::Moment;
use thiserror::Error;

use super::{FetchError, StoreError};

/// Why a refresh, a search or a read was refused.
#[derive(Debug, Error)]
pub enum TufError {
    /// A file of the repository could not be read.
    #[error("cannot fetch `{name}`")]
    Fetch {
        /// The escaped name.
        name: String,
        /// What came instead.
        source: FetchError,
    },
    /// The device's own store failed.
    #[error("trusted metadata cannot be kept")]
    Store(#[from] StoreError),
    /// Bytes that are not a role's metadata.
    #[error("metadata of `{}` is malformed", .role.escape_debug())]
    Malformed {
        /// The role.
        role: String,
        /// What is wrong.
        source: Malformed,
    },
    /// Too few different keys signed.
    #[error("`{}` has {valid} valid signatures and needs {threshold}", .role.escape_debug())]
    Signatures {
        /// The role.
        role: String,
        /// How many keys did.
        valid: u64,
        /// How many must.
        threshold: u64,
    },
    /// A role that nobody would have to sign.
    #[error("`{}` has a threshold of 0", .role.escape_debug())]
    ZeroThreshold {
        /// The role.
        role: String,
    },
    /// The file's version is not the one its parent, or its name, says.
    #[error("`{}` has version {found} where {expected} is named", .role.escape_debug())]
    Version {
        /// The role.
        role: String,
        /// What the parent names.
        expected: u64,
        /// What the file says.
        found: u64,
    },
    /// Older than what was seen before.
    #[error("`{}` is offered in version {offered} after {trusted} was seen", .role.escape_debug())]
    Rollback {
        /// The role.
        role: String,
        /// What was seen.
        trusted: u64,
        /// What came.
        offered: u64,
    },
    /// A role that a newer snapshot no longer lists.
    #[error("`{}` was removed from the snapshot", .name.escape_debug())]
    Removed {
        /// The entry.
        name: String,
    },
    /// A role that the snapshot does not list.
    #[error("`{}` is not listed in the snapshot", .role.escape_debug())]
    NotInSnapshot {
        /// The role.
        role: String,
    },
    /// Another length than named.
    #[error("`{}` is {found} bytes long where {expected} are named", .name.escape_debug())]
    Length {
        /// The file.
        name: String,
        /// What the parent names.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A hash that does not agree.
    #[error("`{}` does not have the {algorithm} that is named", .name.escape_debug())]
    Hash {
        /// The file.
        name: String,
        /// `sha256` or `sha512`.
        algorithm: String,
    },
    /// Hashes, but none that this client knows.
    #[error("`{}` has no hash of a known kind", .name.escape_debug())]
    NoKnownHash {
        /// The file.
        name: String,
    },
    /// Past its time.
    #[error("`{}` version {version} expired {} ago", .role.escape_debug(), now.since(*expires))]
    Expired {
        /// The role.
        role: String,
        /// Its version.
        version: u64,
        /// When it expired.
        expires: Moment,
        /// The time it was held against.
        now: Moment,
    },
    /// Seen expired once; only a newer one is believed, whatever the clock says now.
    #[error("timestamp version {version} was seen expired before")]
    SeenExpired {
        /// Its version.
        version: u64,
    },
    /// The walk to the newest root is longer than one refresh goes. What was reached is kept.
    #[error("root version {reached} is not the newest after {limit} steps")]
    TooManyRoots {
        /// The version reached.
        reached: u64,
        /// The steps of one refresh.
        limit: u64,
    },
    /// The search met more delegated roles than it visits.
    #[error("`{}` is not found in {limit} delegated roles", .path.escape_debug())]
    TooManyRoles {
        /// The target.
        path: String,
        /// The roles of one search.
        limit: usize,
    },
    /// A delegated role's name that cannot be kept or asked for.
    #[error("`{}` cannot be the name of a delegated role", .role.escape_debug())]
    RoleName {
        /// The role.
        role: String,
    },
    /// A target path that could leave its folder.
    #[error("`{}` cannot be the path of a target", .path.escape_debug())]
    TargetPath {
        /// The path.
        path: String,
    },
    /// A target too long to be held in memory.
    #[error("target `{}` is {length} bytes long where {limit} are allowed", .path.escape_debug())]
    TargetTooLong {
        /// The path.
        path: String,
        /// What metadata says.
        length: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A search without a refresh that succeeded before it.
    #[error("metadata has not been refreshed")]
    NotRefreshed,
}

impl TufError {
    /// What a person does next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Fetch { .. } => {
                "check the network and the repository's address; the agent retries"
            }
            Self::Store(_) => "check that the state directory is writable and not full",
            Self::Malformed { .. }
            | Self::Signatures { .. }
            | Self::ZeroThreshold { .. }
            | Self::Version { .. }
            | Self::Rollback { .. }
            | Self::Removed { .. }
            | Self::NotInSnapshot { .. }
            | Self::Length { .. }
            | Self::Hash { .. }
            | Self::NoKnownHash { .. }
            | Self::RoleName { .. }
            | Self::TargetPath { .. } => {
                "the repository or a mirror of it is broken or hostile; tell its operator"
            }
            Self::Expired { .. } | Self::SeenExpired { .. } => {
                "check this device's clock; if it is right, the repository is not being signed anew"
            }
            Self::TooManyRoots { .. } => "nothing to do: the next refresh goes on from there",
            Self::TooManyRoles { .. } => "delegate fewer roles for this path",
            Self::TargetTooLong { .. } => "publish large files as artifacts, not as targets",
            Self::NotRefreshed => "refresh first",
        }
    }
}

/// Most characters of a foreign text that an error carries: what is not yet verified must not fill a
/// log or a letter.
const QUOTE_LIMIT: usize = 200;

/// The beginning of a text that somebody else wrote.
pub(super) fn quote(text: &str) -> String {
    text.chars().take(QUOTE_LIMIT).collect()
}

/// What is wrong with metadata, before any signature is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Not JSON within the bounds.
    #[error("not acceptable JSON: {0}")]
    Json(String),
    /// A number in the signed part that is not whole or does not fit.
    #[error("a number in the signed part is not whole")]
    Number,
    /// A field is missing or of the wrong kind.
    #[error("{0}")]
    Field(String),
    /// Another kind of metadata.
    #[error("it is of type `{}` where `{expected}` is due", .found.escape_debug())]
    Type {
        /// The type due.
        expected: &'static str,
        /// The type found.
        found: String,
    },
    /// Written to a specification that this client does not follow.
    #[error("specification version `{}` is not one of 1.x", .0.escape_debug())]
    SpecVersion(String),
    /// Version 0.
    #[error("version 0")]
    VersionZero,
    /// Not a moment in UTC to the second.
    #[error("`{}` is not a moment such as `2030-01-31T00:00:00Z`", .0.escape_debug())]
    Moment(String),
    /// One key id twice among the signatures.
    #[error("two signatures with one key id")]
    DuplicateSignature,
    /// More signatures than any honest file has.
    #[error("more than {0} signatures")]
    TooManySignatures(usize),
    /// Delegations that are no list, or a list and bins at once.
    #[error("delegations must have either roles or bins")]
    Delegations,
    /// A delegation that says two things at once, or nothing.
    #[error("a delegation must have either paths or hash prefixes")]
    Delegation,
}
