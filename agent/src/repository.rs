//! What the device knows of the repository: the policy, its products' rollout files and the manifests
//! that it needs, all through the TUF client and nothing past it.
//!
//! Only what changed is read. One product's broken file is that product's trouble and nobody else's.

use std::{collections::BTreeMap, path::Path};

use lockgate_shared::{
    id::{Digest, ModelId, ProductId},
    manifest::{Manifest, ManifestError},
    policy::{POLICY_PATH, Policy, PolicyError},
    recall::{Recall, RecallError},
    rollout::RolloutFile,
    time::Moment,
    version::Version,
    wire::{CodecError, decode_rollout_file},
};
use thiserror::Error;

use crate::{
    core::tuf::{Change, Floor, Status, StoreError, TufError, Updater},
    tuf_store::FileStore,
    world::{Reader, World},
};

impl From<TufError> for RepositoryError {
    fn from(error: TufError) -> Self {
        if matches!(error, TufError::Fetch { .. } | TufError::Store(_)) {
            Self::Unread(error)
        } else {
            Self::Refused(error)
        }
    }
}

/// Why something of the repository cannot be used.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// The folder of trusted metadata.
    #[error("the folder of trusted metadata cannot be used")]
    Store(#[from] StoreError),
    /// The repository, or a part of it, did not come: nothing is said against it.
    #[error("the repository cannot be read")]
    Unread(#[source] TufError),
    /// The TUF client refused what came.
    #[error("the repository was not believed")]
    Refused(#[source] TufError),
    /// The policy is not there.
    #[error("the repository has no `{POLICY_PATH}`")]
    NoPolicy,
    /// The policy cannot be used.
    #[error("the repository's `{POLICY_PATH}` is refused")]
    Policy(#[from] PolicyError),
    /// A rollout file cannot be read.
    #[error("`{path}` cannot be read")]
    File {
        /// Its path.
        path: String,
        /// Why.
        source: CodecError,
    },
    /// A rollout file that is another's.
    #[error("`{path}` is about another repository, product or model")]
    Other {
        /// Its path.
        path: String,
    },
    /// A manifest that is not there.
    #[error("the repository has no `{path}`")]
    NoManifest {
        /// Its path.
        path: String,
    },
    /// A manifest that cannot be used.
    #[error("`{path}` is refused")]
    Manifest {
        /// Its path.
        path: String,
        /// Why.
        source: ManifestError,
    },
    /// A recall that cannot be used.
    #[error("`{path}` is refused")]
    Recall {
        /// Its path.
        path: String,
        /// Why.
        source: RecallError,
    },
    /// A manifest other than the one that people started.
    #[error("`{path}` is not the manifest that was started")]
    OtherManifest {
        /// Its path.
        path: String,
    },
}

/// Which release.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// Its product.
    pub product: &'a ProductId,
    /// Its version.
    pub version: &'a Version,
    /// SHA-256 of its manifest.
    pub manifest: Digest,
}

/// What is known of one repository.
#[derive(Debug)]
pub struct Repository {
    updater: Updater,
    store: FileStore,
    policy: Option<Policy>,
    files: BTreeMap<(ProductId, ModelId), Option<RolloutFile>>,
    manifests: BTreeMap<Digest, Manifest>,
    recalls: BTreeMap<(ProductId, Version), Option<(Digest, Recall)>>,
}

impl Repository {
    /// Opens what was verified earlier, from the pinned root on.
    pub fn open(anchor: &[u8], folder: &Path, floor: Floor) -> Result<Self, RepositoryError> {
        let mut store = FileStore::open(folder)?;
        let updater = Updater::open(anchor, &mut store, floor)?;
        Ok(Self {
            updater,
            store,
            policy: None,
            files: BTreeMap::new(),
            manifests: BTreeMap::new(),
            recalls: BTreeMap::new(),
        })
    }

    /// Asks for news: root, timestamp, and more only if they say that something changed.
    pub fn refresh(
        &mut self,
        world: &mut dyn World,
        clock: Moment,
    ) -> Result<Status, RepositoryError> {
        let refreshed = self.updater.refresh(&mut Reader(world), &mut self.store, clock)?;
        match refreshed.change {
            Change::Content => {
                self.policy = None;
                self.files.clear();
                self.recalls.clear();
            }
            Change::Nothing | Change::Renewed => {}
        }
        if self.policy.is_none() {
            self.policy = Some(self.read_policy(world, clock)?);
        }
        Ok(refreshed.status)
    }

    /// The least that is believed of the time; persisted after each refresh.
    pub fn floor(&self) -> &Floor {
        self.updater.floor()
    }

    /// The clock's time, or the floor if that is later.
    pub fn guarded(&self, clock: Moment) -> Moment {
        self.updater.floor().effective(clock)
    }

    /// Versions and times, if the last refresh succeeded.
    pub fn status(&self) -> Option<Status> {
        self.updater.status()
    }

    /// The policy, once a refresh has succeeded in this process.
    pub const fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// The manifests at hand.
    pub const fn manifests(&self) -> &BTreeMap<Digest, Manifest> {
        &self.manifests
    }

    /// The rollout file as last read.
    pub fn file(&self, product: &ProductId, model: &ModelId) -> Option<&RolloutFile> {
        self.files.get(&(product.clone(), model.clone())).and_then(Option::as_ref)
    }

    /// Whether it is known which rollout file there is, or that there is none.
    pub fn knows(&self, product: &ProductId, model: &ModelId) -> bool {
        self.files.contains_key(&(product.clone(), model.clone()))
    }

    /// Reads the product's rollout file for this model, if the last refresh brought another one.
    pub fn read_file(
        &mut self,
        world: &mut dyn World,
        place: (&ProductId, &ModelId),
        clock: Moment,
    ) -> Result<(), RepositoryError> {
        let key = (place.0.clone(), place.1.clone());
        if self.files.contains_key(&key) {
            return Ok(());
        }
        let path = RolloutFile::path(place.0, place.1);
        let file = match self.target(world, &path, clock)? {
            None => None,
            Some(bytes) => Some(self.checked(path, &bytes, place)?),
        };
        self.files.insert(key, file);
        Ok(())
    }

    /// Reads a release's manifest, unless it is at hand.
    pub fn read_manifest(
        &mut self,
        world: &mut dyn World,
        release: Release<'_>,
        clock: Moment,
    ) -> Result<(), RepositoryError> {
        if !self.manifests.contains_key(&release.manifest) {
            self.manifest_bytes(world, release, clock)?;
        }
        Ok(())
    }

    /// Reads a release's manifest and gives its bytes.
    pub fn manifest_bytes(
        &mut self,
        world: &mut dyn World,
        release: Release<'_>,
        clock: Moment,
    ) -> Result<Vec<u8>, RepositoryError> {
        let path = Manifest::path(release.product, release.version);
        let Some(bytes) = self.target(world, &path, clock)? else {
            return Err(RepositoryError::NoManifest { path });
        };
        if Digest::of(&bytes) != release.manifest {
            return Err(RepositoryError::OtherManifest { path });
        }
        let manifest = Manifest::from_json(&bytes)
            .map_err(|source| RepositoryError::Manifest { path, source })?;
        self.manifests.insert(release.manifest, manifest);
        Ok(bytes)
    }

    /// Reads the recall of a version, if there is one.
    pub fn read_recall(
        &mut self,
        world: &mut dyn World,
        (product, version): (&ProductId, &Version),
        clock: Moment,
    ) -> Result<Option<(Digest, Recall)>, RepositoryError> {
        let key = (product.clone(), version.clone());
        if let Some(known) = self.recalls.get(&key) {
            return Ok(known.clone());
        }
        let path = Recall::path(product, version);
        let found = match self.target(world, &path, clock)? {
            None => None,
            Some(bytes) => {
                let recall = Recall::from_json(&bytes)
                    .map_err(|source| RepositoryError::Recall { path: path.clone(), source })?;
                if recall.product != *product || recall.version != *version {
                    return Err(RepositoryError::Other { path });
                }
                Some((Digest::of(&bytes), recall))
            }
        };
        self.recalls.insert(key, found.clone());
        Ok(found)
    }

    /// Forgets all manifests but these.
    pub fn keep(&mut self, wanted: &[Digest]) {
        self.manifests.retain(|digest, _| wanted.contains(digest));
    }

    fn checked(
        &self,
        path: String,
        bytes: &[u8],
        (product, model): (&ProductId, &ModelId),
    ) -> Result<RolloutFile, RepositoryError> {
        let file = match decode_rollout_file(bytes) {
            Ok(file) => file,
            Err(source) => return Err(RepositoryError::File { path, source }),
        };
        let own = self.policy.as_ref().is_some_and(|policy| policy.repository == file.repository)
            && file.product == *product
            && file.model == *model;
        if own { Ok(file) } else { Err(RepositoryError::Other { path }) }
    }

    fn read_policy(
        &mut self,
        world: &mut dyn World,
        clock: Moment,
    ) -> Result<Policy, RepositoryError> {
        let bytes = self.target(world, POLICY_PATH, clock)?.ok_or(RepositoryError::NoPolicy)?;
        Ok(Policy::from_json(&bytes)?)
    }

    fn target(
        &mut self,
        world: &mut dyn World,
        path: &str,
        clock: Moment,
    ) -> Result<Option<Vec<u8>>, RepositoryError> {
        let mut reader = Reader(world);
        let found = self.updater.find_target(&mut reader, &mut self.store, path, clock)?;
        let Some(target) = found else { return Ok(None) };
        Ok(Some(self.updater.target_bytes(&mut reader, &target)?))
    }
}
