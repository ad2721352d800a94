//! The policy that the letter box goes by: it is looked up in the repository's folder and verified
//! from the trust anchor on, root by root, down to the targets role's signature and the policy's hash.
//!
//! Expiry is not asked here: devices and the gatekeeper refuse what has expired, and the letter box
//! opens nothing by its policy.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::Digest,
    limits,
    policy::{POLICY_PATH, Policy, PolicyError},
};
use thiserror::Error;
use tough::schema::{Signed, Targets};

use crate::tuf::{
    TufError,
    metadata::{digest_of, listed, target_path},
    trusted::Roots,
};

/// The largest root or targets file: a thousand keys and delegations stay below a quarter of it.
const METADATA_BYTES: u64 = 4 << 20;

/// The policy in force.
#[derive(Clone, Debug)]
pub struct CurrentPolicy {
    /// The policy.
    pub policy: Policy,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its exact bytes.
    pub text: Vec<u8>,
    /// The version of the targets metadata that names it.
    pub targets_version: u64,
}

/// Why there is no policy to go by.
#[derive(Debug, Error)]
pub enum PolicyFileError {
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is larger than any that is read.
    #[error("`{0}` is too large to be repository metadata")]
    TooLarge(PathBuf),
    /// Not metadata.
    #[error("`{path}` is not repository metadata")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The roots do not verify from the anchor on.
    #[error(
        "the roots from the trust anchor on do not hold\nhint: anchor and repository must come from one ceremony"
    )]
    Roots(#[from] TufError),
    /// Its signatures do not hold.
    #[error(
        "the signatures of `{path}` do not hold\nhint: anchor and repository must come from one ceremony"
    )]
    Signature {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<tough::schema::Error>,
    },
    /// A file's version is not the one in its name.
    #[error("`{path}` has version {found} inside")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// No targets metadata at all.
    #[error(
        "`{0}` holds no targets metadata\nhint: copy what `lockgate repo init` made into the repository's folder"
    )]
    NoTargets(PathBuf),
    /// The targets metadata names no policy.
    #[error("the targets metadata names no `{POLICY_PATH}`")]
    NoPolicy,
    /// The policy's bytes are not those that were signed.
    #[error("`{0}` is not the policy that the targets role signed")]
    Hash(PathBuf),
    /// The policy cannot be used.
    #[error("the signed policy cannot be used")]
    Policy(#[from] PolicyError),
}

/// Reads the newest policy.
pub fn read(repository: &Path, anchor: &Path) -> Result<CurrentPolicy, PolicyFileError> {
    let metadata = repository.join("metadata");
    let anchor = bytes(anchor, METADATA_BYTES)?;
    let root = Roots::walk(&anchor, |path| optional(&repository.join(path)))?.newest;
    let (path, version) = newest_targets(&metadata)?;
    let targets: Signed<Targets> = parse(&path)?;
    root.signed.verify_role(&targets).map_err(|source| PolicyFileError::Signature {
        path: path.clone(),
        source: source.into(),
    })?;
    let found = targets.signed.version.get();
    if found != version {
        return Err(PolicyFileError::Version { path, found });
    }
    let target = listed(&targets.signed, POLICY_PATH).ok_or(PolicyFileError::NoPolicy)?;
    let digest = digest_of(target).ok_or(PolicyFileError::NoPolicy)?;
    let path = repository.join(target_path(POLICY_PATH, &digest));
    let text = bytes(&path, limits::POLICY_BYTES as u64)?;
    if text.len() as u64 != target.length || Digest::of(&text) != digest {
        return Err(PolicyFileError::Hash(path));
    }
    Ok(CurrentPolicy { policy: Policy::from_json(&text)?, digest, text, targets_version: version })
}

fn newest_targets(metadata: &Path) -> Result<(PathBuf, u64), PolicyFileError> {
    let read = |source| PolicyFileError::Read { path: metadata.to_owned(), source };
    let mut newest = None;
    for file in fs::read_dir(metadata).map_err(read)? {
        let name = file.map_err(read)?.file_name();
        let version = name
            .to_str()
            .and_then(|name| name.strip_suffix(".targets.json"))
            .and_then(|version| version.parse::<u64>().ok());
        newest = newest.max(version);
    }
    let version = newest.ok_or_else(|| PolicyFileError::NoTargets(metadata.to_owned()))?;
    Ok((metadata.join(format!("{version}.targets.json")), version))
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, PolicyFileError> {
    serde_json::from_slice(&bytes(path, METADATA_BYTES)?)
        .map_err(|source| PolicyFileError::Json { path: path.to_owned(), source })
}

fn optional(path: &Path) -> Result<Option<Vec<u8>>, PolicyFileError> {
    if path.exists() { bytes(path, METADATA_BYTES).map(Some) } else { Ok(None) }
}

fn bytes(path: &Path, max: u64) -> Result<Vec<u8>, PolicyFileError> {
    let read = |source| PolicyFileError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(read)?.len() > max {
        return Err(PolicyFileError::TooLarge(path.to_owned()));
    }
    fs::read(path).map_err(read)
}
