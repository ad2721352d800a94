//! The TUF repository: what people published, verified; and the gatekeeper's three online roles
//! (`rollouts`, `snapshot`, `timestamp`), signed with the keys of its host.
//!
//! | to find out | open |
//! |---|---|
//! | how a role's text, keys and signatures are written | [`metadata`] |
//! | how signatures are counted and made | [`roles`] |
//! | what a publication must be to be taken | [`trusted`] |
//! | which files are written, and in which order | [`repository`] |
//!
//! What people signed is published byte for byte as it came; nothing here signs for them. The types are
//! tough's.

pub mod metadata;
pub mod repository;
pub mod roles;
pub mod trusted;

use std::path::PathBuf;

use lockgate_shared::{policy::PolicyError, time::Moment};
use thiserror::Error;

/// The largest metadata of one role that is taken: a product role with ten thousand releases.
pub const METADATA_BYTES: usize = 4 << 20;

/// Why a repository cannot be read, extended or signed.
#[derive(Debug, Error)]
pub enum TufError {
    /// A file could not be read or written.
    #[error("`{path}` failed at {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        what: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A key file is not one.
    #[error(
        "`{path}` is not a private key in plain PKCS#8 PEM\nhint: copy the folder `online/` of the ceremony to this host"
    )]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// A key may be read by others.
    #[error("`{path}` may be read by others than its owner\nhint: `chmod 600 {path}`")]
    KeyOpen {
        /// The file.
        path: PathBuf,
    },
    /// A text is not metadata of its role.
    #[error("the metadata of role `{role}` cannot be read: {why}")]
    Metadata {
        /// The role.
        role: String,
        /// Why.
        why: String,
    },
    /// A role is not delegated to.
    #[error("there is no role `{role}` in what was signed")]
    NoRole {
        /// The role.
        role: String,
    },
    /// Not enough signatures.
    #[error(
        "role `{role}` has {valid} of {needed} signatures it needs\nhint: have further holders of its keys sign with `lockgate release sign`"
    )]
    Threshold {
        /// The role.
        role: String,
        /// Distinct keys whose signature holds.
        valid: usize,
        /// How many are needed.
        needed: u64,
    },
    /// The version does not follow.
    #[error("role `{role}` has version {found}, the next one is {due}")]
    Version {
        /// The role.
        role: String,
        /// In the metadata.
        found: u64,
        /// Expected.
        due: u64,
    },
    /// It has ended.
    #[error("role `{role}` ended at {expires}\nhint: sign it again with a later end")]
    Expired {
        /// The role.
        role: String,
        /// When.
        expires: Moment,
    },
    /// Something in it is not as this server needs it.
    #[error("{0}")]
    Content(String),
    /// The policy in it cannot be used.
    #[error("the policy cannot be used: {0}")]
    Policy(#[from] PolicyError),
    /// One of this host's keys does not belong to its role any more.
    #[error(
        "the key of role `{role}` on this host is not the one that people signed for\nhint: copy the current key to the folder `keys`, beside the others; it is taken up at once"
    )]
    NotOurs {
        /// The role.
        role: String,
    },
    /// The key of a role gave no signature.
    #[error("the key of `{role}` gave no signature")]
    Signer {
        /// The role, or the name of the key.
        role: String,
        /// Why.
        #[source]
        source: crate::signer::SignerError,
    },
    /// No version is left.
    #[error(
        "role `{role}` has had its last version\nhint: a thief drove it up; replace the online keys with `lockgate repo change --new-online`"
    )]
    UsedUp {
        /// The role.
        role: String,
    },
    /// The trust anchor and the folder do not fit.
    #[error(
        "the repository lacks {what}\nhint: copy the ceremony's `repository/` to the folder `repository` of the configuration"
    )]
    Missing {
        /// What.
        what: String,
    },
}
