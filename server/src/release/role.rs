//! A product's release role as a local copy of the repository has it: found, and verified from the
//! root down, so that nobody signs on top of metadata that somebody else made up.
//!
//! It reads a folder and writes nothing. An expired role is taken: signing the next one renews it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::{CohortId, Digest, ProductId, PublicKey},
    manifest::Manifest,
    policy::{POLICY_PATH, Policy, PolicyError},
    rollout::Stop,
    wire::decode_rollout_file,
};
use thiserror::Error;
use tough::schema::{Delegations, Root, Signed, Targets};

use crate::{
    ceremony::plan::release_role,
    tuf::{
        METADATA_BYTES, TufError,
        metadata::{self, KeyId, MetadataError, digest_of, listed, metadata_path, target_path},
        trusted::{ROLLOUTS, Roots},
    },
};

/// A local copy of a repository, verified as far as its targets role.
#[derive(Clone, Debug)]
pub struct LocalRepository {
    folder: PathBuf,
    root: Signed<Root>,
    targets: Signed<Targets>,
}

/// A product's role, verified.
#[derive(Clone, Debug)]
pub struct CurrentRole {
    /// Its name.
    pub name: String,
    /// Its newest metadata.
    pub targets: Targets,
    /// Who may sign it, and how many must.
    pub delegations: Delegations,
    /// The product's cohorts by the copy's policy, if the copy holds the policy's file.
    pub cohorts: Option<Vec<CohortId>>,
}

/// Why a copy of a repository cannot be used.
#[derive(Debug, Error)]
pub enum RoleError {
    /// A file or folder cannot be read.
    #[error("cannot read `{}`\nhint: pass the repository's folder, which holds `metadata/`", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is larger than any metadata.
    #[error("`{}` has {size} bytes, at most {METADATA_BYTES} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// No metadata of a role.
    #[error("`{}` has no metadata of role `{role}`\nhint: fetch a fresh copy of the repository", folder.display())]
    Missing {
        /// The role.
        role: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The roots do not verify.
    #[error("the roots of this copy are not what their signers signed")]
    Roots(#[from] TufError),
    /// Metadata that does not verify.
    #[error("the metadata of `{role}` in this copy is not what its signers signed: {reason}")]
    Unverified {
        /// The role.
        role: String,
        /// What `tough` says.
        reason: String,
    },
    /// Metadata that cannot be read.
    #[error("`{}`: {source}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: MetadataError,
    },
    /// The targets role delegates to no such role.
    #[error("the repository has no role `{0}`\nhint: products are named in the ceremony's plan")]
    NoRole(String),
    /// The policy of this copy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A text is not the one that was signed.
    #[error("`{0}` in this copy is not the text that was signed")]
    OtherText(String),
    /// The policy's file is not the one that the targets role signed.
    #[error("the policy in this copy is not the one that the targets role signed")]
    OtherPolicy,
}

impl LocalRepository {
    /// Opens the copy in `folder` (the repository's folder, or its `metadata`). Trust begins at
    /// `anchor`, a root file that came by another way, or else at the oldest root in the copy.
    pub fn open(folder: &Path, anchor: Option<&Path>) -> Result<Self, RoleError> {
        let folder = if folder.file_name().is_some_and(|name| name == "metadata") {
            folder.parent().unwrap_or(folder).to_owned()
        } else {
            folder.to_owned()
        };
        let versions = versions(&folder, "root")?;
        let oldest =
            || versions.first().map(|version| folder.join(metadata_path("root", *version)));
        let Some(start) = anchor.map(Path::to_owned).or_else(oldest) else {
            return Err(RoleError::Missing { role: "root".into(), folder });
        };
        let root = Roots::walk(&read_file(&start)?, |path| {
            let path = folder.join(path);
            if path.exists() { read_file(&path).map(Some) } else { Ok(None) }
        })?
        .newest;
        let targets: Signed<Targets> = newest(&folder, "targets")?;
        root.signed.verify_role(&targets).map_err(|error| unverified("targets", &error))?;
        Ok(Self { folder, root, targets })
    }

    /// The newest root.
    pub const fn root(&self) -> &Signed<Root> {
        &self.root
    }

    /// The newest targets.
    pub const fn targets(&self) -> &Signed<Targets> {
        &self.targets
    }

    /// A text of the repository (`targets/…`), if its SHA-256 is this.
    pub fn text(&self, path: &str, digest: &Digest) -> Result<Vec<u8>, RoleError> {
        let bytes = read_file(&self.folder.join(target_path(path, digest)))?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(RoleError::OtherText(path.into()))
        }
    }

    /// The newest metadata of a product's release role.
    pub fn role(&self, product: &ProductId) -> Result<CurrentRole, RoleError> {
        let name = release_role(product);
        let delegations = self.targets.signed.delegations.clone().unwrap_or_default();
        if !delegations.roles.iter().any(|role| role.name == name) {
            return Err(RoleError::NoRole(name));
        }
        let signed = self.signed_role(product)?;
        let cohorts = match self.policy() {
            Ok(policy) => policy.products.get(product).map(|product| product.cohorts.clone()),
            Err(RoleError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(CurrentRole { name, targets: signed.signed, delegations, cohorts })
    }

    /// The release manifest with this SHA-256, if a release role of the copy lists it.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, RoleError> {
        for product in self.policy()?.products.keys() {
            let Ok(role) = self.signed_role(product) else { continue };
            let listed = role.signed.targets.iter();
            let path = listed
                .filter(|(_, target)| digest_of(target) == Some(*digest))
                .map(|(name, _)| name.raw().to_owned())
                .next();
            if let Some(path) = path {
                let text = self.text(&path, digest)?;
                let manifest = Manifest::from_json(&text);
                return manifest.map(Some).map_err(|_| RoleError::OtherText(path));
            }
        }
        Ok(None)
    }

    /// The stops that stand, by the newest rollout files that the gatekeeper's keys signed.
    pub fn stops(&self) -> Result<BTreeMap<u64, Stop>, RoleError> {
        let delegations = self.targets.signed.delegations.clone().unwrap_or_default();
        let mut stops = BTreeMap::new();
        for version in versions(&self.folder, ROLLOUTS)?.into_iter().rev() {
            let path = self.folder.join(metadata_path(ROLLOUTS, version));
            let Ok(role) = read::<Targets>(&path) else { continue };
            if delegations.verify_role(&role, ROLLOUTS).is_err() {
                continue;
            }
            for (name, target) in &role.signed.targets {
                let Some(digest) = digest_of(target) else { continue };
                if let Some(file) = name.raw().strip_suffix(".bin") {
                    let path = format!("{file}.bin");
                    let file = decode_rollout_file(&self.text(&path, &digest)?)
                        .map_err(|_| RoleError::OtherText(path))?;
                    stops.extend(file.stops.into_iter().map(|stop| (stop.number, stop)));
                }
            }
            break;
        }
        Ok(stops)
    }

    /// The newest metadata of a product's release role, with its signatures.
    pub fn signed_role(&self, product: &ProductId) -> Result<Signed<Targets>, RoleError> {
        let name = release_role(product);
        let signed: Signed<Targets> = newest(&self.folder, &name)?;
        let delegations = self.targets.signed.delegations.clone().unwrap_or_default();
        delegations.verify_role(&signed, &name).map_err(|error| unverified(&name, &error))?;
        Ok(signed)
    }

    /// The policy that the targets role signed.
    pub fn policy(&self) -> Result<Policy, RoleError> {
        let digest = listed(&self.targets.signed, POLICY_PATH).and_then(digest_of);
        let text = self.text(POLICY_PATH, &digest.ok_or(RoleError::OtherPolicy)?);
        let text = text.map_err(|error| {
            if matches!(error, RoleError::OtherText(_)) { RoleError::OtherPolicy } else { error }
        })?;
        Ok(Policy::from_json(&text)?)
    }
}

impl CurrentRole {
    /// The ids of the keys that may sign it.
    pub fn key_ids(&self) -> &[KeyId] {
        self.delegated().map_or(&[], |role| &role.keyids)
    }

    /// How many must sign.
    pub fn threshold(&self) -> u64 {
        self.delegated().map_or(u64::MAX, |role| role.threshold.get())
    }

    /// The public key of an id, if the role names it.
    pub fn public_key(&self, id: &KeyId) -> Option<PublicKey> {
        self.delegations.keys.get(id).and_then(metadata::public_key)
    }

    fn delegated(&self) -> Option<&tough::schema::DelegatedRole> {
        self.delegations.roles.iter().find(|role| role.name == self.name)
    }
}

fn unverified(role: &str, error: &tough::schema::Error) -> RoleError {
    RoleError::Unverified { role: role.to_owned(), reason: error.to_string() }
}

fn newest<T: serde::de::DeserializeOwned>(
    folder: &Path,
    role: &str,
) -> Result<Signed<T>, RoleError> {
    match versions(folder, role)?.last() {
        Some(version) => read(&folder.join(metadata_path(role, *version))),
        None => Err(RoleError::Missing { role: role.to_owned(), folder: folder.to_owned() }),
    }
}

/// The versions of a role in a copy, oldest first.
fn versions(copy: &Path, role: &str) -> Result<Vec<u64>, RoleError> {
    let folder = copy.join("metadata");
    let failed = |source| RoleError::Read { path: folder.clone(), source };
    let suffix = format!(".{role}.json");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let version = name.to_str().and_then(|name| name.strip_suffix(&suffix));
        found.extend(version.and_then(|version| version.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Signed<T>, RoleError> {
    let bytes = read_file(path)?;
    metadata::from_text(&bytes)
        .map_err(|source| RoleError::Metadata { path: path.to_owned(), source })
}

fn read_file(path: &Path) -> Result<Vec<u8>, RoleError> {
    let failed = |source| RoleError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > METADATA_BYTES as u64 {
        return Err(RoleError::TooLarge { path: path.to_owned(), size });
    }
    fs::read(path).map_err(failed)
}
