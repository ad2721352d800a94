//! `lockgate release sign` and `check`: the next version of a product's TUF role, signed by one
//! person after the other, each on a machine of their own, each after the same checks.
//!
//! `publication.json` exists when, and only when, enough signatures hold; a signature is never added
//! to a role that says anything but "what there was, and this release".

use std::{
    fs,
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::{Digest, ProductId, PublicKey},
    limits,
    manifest::{Artifact, Manifest, ManifestError},
    recall::{Recall, RecallError},
    time::{Moment, Seconds},
    version::Version,
};
use thiserror::Error;
use tough::{
    TargetName,
    schema::{Signed, Targets},
};

use super::{
    create::{ARTIFACTS_FOLDER, MANIFEST_FILE},
    pack::{self, PackError},
    recall,
    role::CurrentRole,
};
use crate::{
    signer::Signer,
    stream::Publication,
    tuf::metadata::{self, KeyId, MetadataError, SPEC_VERSION},
    whole_folder::{self, FolderError, Readers},
};

/// The role's next version inside a release's folder, with the signatures so far.
pub const ROLE_FILE: &str = "role.json";
/// What is sent to the server, once there are enough signatures.
pub const PUBLICATION_FILE: &str = "publication.json";
/// The longest life that a signer accepts for a role's metadata: what [`super::super::ceremony::plan`]
/// allows.
const MAX_LIFE: Seconds = Seconds(1_830 * 86_400);

/// What a folder would add to the role.
#[derive(Clone, Debug)]
pub enum Content {
    /// A release.
    Release(Box<Manifest>),
    /// The recall of one.
    Recall(Box<Recall>),
}

/// A release's or a recall's folder, read and checked, with the role's next version.
#[derive(Clone, Debug)]
pub struct Draft {
    folder: PathBuf,
    content: Content,
    text: String,
    role: Signed<Targets>,
    absent: Vec<Digest>,
}

/// How far a release is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The role.
    pub role: String,
    /// The version of its metadata.
    pub version: u64,
    /// How many earlier targets it keeps.
    pub kept: usize,
    /// The keys whose signatures hold.
    pub signers: Vec<PublicKey>,
    /// How many must.
    pub needed: u64,
    /// Artifacts that are not in the folder and so were not looked at.
    pub unchecked: Vec<Digest>,
}

/// Why a release cannot be signed or published.
#[derive(Debug, Error)]
pub enum SignError {
    /// A file cannot be read.
    #[error("cannot read `{}`\nhint: pass the folder that `lockgate release create` made", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] FolderError),
    /// The manifest is refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The recall is refused.
    #[error(transparent)]
    Recall(#[from] RecallError),
    /// A recall names a version that is not released.
    #[error(
        "version {0} is not released\nhint: a recall leads from one published release to an older one"
    )]
    Unpublished(Version),
    /// A recall leads to other bytes.
    #[error(
        "the recall leads to another manifest than the published {0}\nhint: make it again with that release's own folder"
    )]
    OtherManifest(Version),
    /// An artifact is not what the manifest says.
    #[error("artifact `{sha256}`: {source}")]
    Artifact {
        /// Its name.
        sha256: Digest,
        /// What is wrong.
        source: PackError,
    },
    /// Metadata cannot be read or written.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The ladder is not over the product's cohorts.
    #[error(
        "the ladder's stages are not the cohorts of `{0}` in the policy's order\nhint: make the release again with `--repository`"
    )]
    Cohorts(ProductId),
    /// The version was released already.
    #[error(
        "`{0}` is released already\nhint: a release never changes; give the new one another version"
    )]
    Released(String),
    /// `role.json` says something else than it must.
    #[error(
        "`role.json` does not follow from this repository and this manifest: {0}\nhint: if the manifest or the repository changed on purpose, remove `role.json` and let everybody sign again"
    )]
    OtherRole(String),
    /// Nobody whose key counts.
    #[error(
        "the key {key} may not sign `{role}`\nhint: authors are named in the ceremony's plan; approvers sign acts, not releases"
    )]
    Stranger {
        /// The key.
        key: PublicKey,
        /// The role.
        role: String,
    },
    /// Too few signatures.
    #[error(
        "`{role}` has {valid} of {needed} signatures it needs\nhint: have another author run `lockgate release sign` on the same folder"
    )]
    Threshold {
        /// The role.
        role: String,
        /// Signatures that hold.
        valid: usize,
        /// Signatures needed.
        needed: u64,
    },
}

impl Draft {
    /// Reads a release's folder and checks everything in it against itself and the repository. Where
    /// nobody has signed yet, the role's next version is made, good for `life` from `now`.
    pub fn open(
        folder: &Path,
        current: &CurrentRole,
        now: Moment,
        life: Seconds,
    ) -> Result<Self, SignError> {
        let mut absent = Vec::new();
        let (text, content) = if let Some(path) = recall::of_folder(folder) {
            let text = read(&path, limits::RECALL_BYTES)?;
            let recall = Recall::from_json(text.as_bytes())?;
            check_recall(&recall, current)?;
            (text, Content::Recall(Box::new(recall)))
        } else {
            let text = read(&folder.join(MANIFEST_FILE), limits::MANIFEST_BYTES)?;
            let manifest = Manifest::from_json(text.as_bytes())?;
            if let Some(cohorts) = &current.cohorts
                && !manifest.ladder.stages.iter().map(|stage| &stage.cohort).eq(cohorts)
            {
                return Err(SignError::Cohorts(manifest.product));
            }
            for artifact in &manifest.artifacts {
                if !check_artifact(folder, artifact)? {
                    absent.push(artifact.sha256);
                }
            }
            (text, Content::Release(Box::new(manifest)))
        };
        let path = content.path();
        let role_path = folder.join(ROLE_FILE);
        let role = if role_path.exists() {
            let given: Signed<Targets> =
                metadata::from_text(read(&role_path, limits::MANIFEST_BYTES)?.as_bytes())?;
            let expected = next_role(current, path, &text, given.signed.expires)?;
            compare(&expected, &given.signed, now)?;
            given
        } else {
            let expires = metadata::expiry(now, life)?;
            metadata::unsigned(next_role(current, path, &text, expires)?)
        };
        Ok(Self { folder: folder.to_owned(), content, text, role, absent })
    }

    /// What it would add to the role.
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// SHA-256 of its text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }

    /// When the role's next version expires.
    pub fn expires(&self) -> Moment {
        Moment(self.role.signed.expires.as_second())
    }

    /// Adds one author's signature and writes `role.json`; also `publication.json` once there are
    /// enough.
    pub fn sign(&mut self, current: &CurrentRole, key: &dyn Signer) -> Result<Standing, SignError> {
        let public = key.public();
        if !current.key_ids().contains(&metadata::key_id(&public)?) {
            return Err(SignError::Stranger { key: public, role: current.name.clone() });
        }
        metadata::sign_role(&mut self.role, key)?;
        let text = metadata::to_text(&self.role)?;
        whole_folder::replace(&self.folder.join(ROLE_FILE), text.as_bytes(), Readers::Everybody)?;
        self.settle(current)
    }

    /// Counts the signatures, and makes `publication.json` exist when there are enough and only then.
    pub fn settle(&self, current: &CurrentRole) -> Result<Standing, SignError> {
        let standing = self.standing(current)?;
        let path = self.folder.join(PUBLICATION_FILE);
        match self.publication(current) {
            Ok(publication) => {
                let mut text = serde_json::to_vec(&publication).map_err(MetadataError::from)?;
                text.push(b'\n');
                whole_folder::replace(&path, &text, Readers::Everybody)?;
            }
            Err(SignError::Threshold { .. }) => match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(SignError::Read { path, source });
                }
                Ok(()) | Err(_) => {}
            },
            Err(other) => return Err(other),
        }
        Ok(standing)
    }

    /// What is sent to the server; refused below the threshold.
    pub fn publication(&self, current: &CurrentRole) -> Result<Publication, SignError> {
        let standing = self.standing(current)?;
        if !standing.complete()
            || current.delegations.verify_role(&self.role, &current.name).is_err()
        {
            return Err(SignError::Threshold {
                role: current.name.clone(),
                valid: standing.signers.len(),
                needed: standing.needed,
            });
        }
        let path = self.content.path();
        Ok(Publication {
            role: current.name.clone(),
            metadata: metadata::to_text(&self.role)?,
            targets: vec![(path, self.text.clone())],
            with: Vec::new(),
        })
    }

    /// How far it is signed.
    pub fn standing(&self, current: &CurrentRole) -> Result<Standing, SignError> {
        let mut signers = Vec::new();
        for id in current.key_ids() {
            if let Some(key) = current.public_key(id)
                && self.holds(current, id)?
            {
                signers.push(key);
            }
        }
        Ok(Standing {
            role: current.name.clone(),
            version: self.role.signed.version.get(),
            kept: self.role.signed.targets.len().saturating_sub(1),
            signers,
            needed: current.threshold(),
            unchecked: self.absent.clone(),
        })
    }

    /// Whether the signature by one key is there and holds: asked of `tough` with that key alone.
    fn holds(&self, current: &CurrentRole, id: &KeyId) -> Result<bool, SignError> {
        let mut alone = self.role.clone();
        alone.signatures.retain(|signature| signature.keyid == *id);
        let mut delegations = current.delegations.clone();
        for role in &mut delegations.roles {
            role.threshold = metadata::FIRST;
        }
        Ok(!alone.signatures.is_empty() && delegations.verify_role(&alone, &current.name).is_ok())
    }
}

impl Content {
    /// Its target path.
    pub fn path(&self) -> String {
        match self {
            Self::Release(manifest) => Manifest::path(&manifest.product, &manifest.version),
            Self::Recall(recall) => Recall::path(&recall.product, &recall.version),
        }
    }
}

impl Standing {
    /// Whether enough signatures hold.
    pub fn complete(&self) -> bool {
        self.signers.len() as u64 >= self.needed
    }
}

/// A recall is of a release that the role lists, and leads to one, by its very bytes.
fn check_recall(recall: &Recall, current: &CurrentRole) -> Result<(), SignError> {
    let listed = |version| {
        let path = Manifest::path(&recall.product, version);
        current
            .targets
            .targets
            .iter()
            .find(|(name, _)| name.raw() == path)
            .map(|(_, target)| target)
    };
    if listed(&recall.version).is_none() {
        return Err(SignError::Unpublished(recall.version.clone()));
    }
    let to = listed(&recall.to).ok_or_else(|| SignError::Unpublished(recall.to.clone()))?;
    if metadata::digest_of(to) != Some(recall.manifest) {
        return Err(SignError::OtherManifest(recall.to.clone()));
    }
    Ok(())
}

/// What the role must say next: what it says now, and this release or recall.
fn next_role(
    current: &CurrentRole,
    path: String,
    text: &str,
    expires: jiff::Timestamp,
) -> Result<Targets, SignError> {
    let name =
        TargetName::new(path.clone()).map_err(|error| MetadataError::Schema(error.to_string()))?;
    if current.targets.targets.contains_key(&name) {
        return Err(SignError::Released(path));
    }
    let version = current
        .targets
        .version
        .checked_add(1)
        .ok_or_else(|| MetadataError::Schema("no version is left".into()))?;
    let mut next = Targets::new(SPEC_VERSION.into(), version, expires);
    next.delegations = None;
    next.targets.clone_from(&current.targets.targets);
    next.add_target(name, metadata::target(text.as_bytes()));
    Ok(next)
}

/// Names the first difference between what must be signed and what lies there to be signed.
fn compare(expected: &Targets, given: &Targets, now: Moment) -> Result<(), SignError> {
    let refuse = |text: String| Err(SignError::OtherRole(text));
    if given.version != expected.version {
        return refuse(format!(
            "it is version {}, and version {} is next",
            given.version, expected.version
        ));
    }
    let expires = Moment(given.expires.as_second());
    if expires <= now || expires > now.plus(MAX_LIFE) {
        return refuse(format!("it expires {expires}"));
    }
    for (name, target) in &expected.targets {
        match given.targets.get(name) {
            Some(found) if found == target => {}
            Some(_) => return refuse(format!("`{}` has another hash or length", name.raw())),
            None => return refuse(format!("`{}` is missing", name.raw())),
        }
    }
    if given == expected {
        Ok(())
    } else {
        refuse("it lists something beyond the earlier releases and this one".into())
    }
}

/// Whether an artifact is in the folder; refused if it is there and is not what was described.
fn check_artifact(folder: &Path, artifact: &Artifact) -> Result<bool, SignError> {
    let path = folder.join(ARTIFACTS_FOLDER).join(artifact.sha256.to_string());
    match fs::File::open(&path) {
        Ok(file) => pack::verify(file, artifact)
            .map(|()| true)
            .map_err(|source| SignError::Artifact { sha256: artifact.sha256, source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(SignError::Read { path, source }),
    }
}

fn read(path: &Path, limit: usize) -> Result<String, SignError> {
    let failed = |source| SignError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > limit as u64 {
        return Err(ManifestError::TooLarge(usize::try_from(size).unwrap_or(usize::MAX)).into());
    }
    fs::read_to_string(path).map_err(failed)
}
