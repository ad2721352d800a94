//! `lockgate release create`: packs folders, joins them with the author's plan to a manifest, and
//! writes a folder that can be carried from signer to signer.
//!
//! It signs nothing and speaks to nobody.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use lockgate_shared::{
    id::{CohortId, Digest, ProductId},
    limits,
    manifest::{Artifact, MANIFEST_FORMAT, Manifest, ManifestError},
    policy::Policy,
    version::Version,
};
use thiserror::Error;

use super::{
    lint,
    pack::{self, PackError},
    plan::{PlanError, ReleasePlan},
};
use crate::whole_folder::{FolderError, Readers, WholeFolder};

/// The manifest inside a release's folder.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The artifacts inside a release's folder, each named by its SHA-256.
pub const ARTIFACTS_FOLDER: &str = "artifacts";

/// What a release is made of.
#[derive(Clone, Debug)]
pub struct Create<'a> {
    /// The product.
    pub product: &'a ProductId,
    /// The version.
    pub version: &'a Version,
    /// The folders to pack; the first that fits a device is the device's.
    pub artifacts: &'a [ArtifactSource],
    /// What the author decided.
    pub plan: &'a ReleasePlan,
    /// The repository's policy, where it is at hand: for a ladder preset, and to check the ladder.
    pub policy: Option<&'a Policy>,
    /// The folder to make.
    pub out: &'a Path,
}

/// A folder to pack and the devices it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArtifactSource {
    /// The folder.
    pub folder: PathBuf,
    /// For which architecture; none means any.
    pub arch: Option<String>,
    /// For which operating system ids; none means any.
    pub os_ids: BTreeSet<String>,
    /// For which hardware models (`vendor model`); none means any.
    pub models: BTreeSet<String>,
}

/// A release that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of its text.
    pub digest: Digest,
    /// What people should look at twice.
    pub warnings: Vec<lint::Finding>,
}

/// Why a release was not made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// A folder cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The plan cannot be used.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The manifest would be refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The folder cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The product is none of the repository's.
    #[error("the policy names no product `{0}`")]
    UnknownProduct(ProductId),
    /// The ladder is not over the product's cohorts.
    #[error(
        "the ladder's cohorts are {found}, the product's are {expected}\nhint: name each cohort once, in the policy's order"
    )]
    Cohorts {
        /// In the ladder.
        found: String,
        /// In the policy.
        expected: String,
    },
    /// Not `DIR:key=value:…`.
    #[error(
        "`{text}` is not an artifact: {why}\nhint: write `DIR:arch=x86_64:os=debian:model=Acme Slate 3`, each part after the folder as often as needed"
    )]
    Source {
        /// What was given.
        text: String,
        /// What is wrong.
        why: String,
    },
}

/// Makes a release's folder: `manifest.json` and `artifacts/<sha256>`.
pub fn create(release: &Create<'_>) -> Result<Created, CreateError> {
    let cohorts = cohorts(release)?;
    let ladder = release.plan.ladder.ladder(cohorts)?;
    if let Some(cohorts) = cohorts {
        let found: Vec<&CohortId> = ladder.stages.iter().map(|stage| &stage.cohort).collect();
        if found != cohorts.iter().collect::<Vec<_>>() {
            let list = |names: &[&CohortId]| {
                names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            };
            let expected = list(&cohorts.iter().collect::<Vec<_>>());
            return Err(CreateError::Cohorts { found: list(&found), expected });
        }
    }
    let folder = WholeFolder::begin(release.out)?;
    let store = folder.folder(ARTIFACTS_FOLDER)?;
    let mut artifacts = Vec::new();
    for source in release.artifacts {
        artifacts.push(artifact(source, release.plan, &store)?);
    }
    let plan = release.plan;
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        product: release.product.clone(),
        version: release.version.clone(),
        severity: plan.severity.clone(),
        artifacts,
        compatibility: plan.compatibility.clone(),
        barrier: plan.barrier.clone(),
        irreversible: plan.irreversible,
        migrates_data: plan.migrates_data,
        data_read_by: plan.data_read_by.clone(),
        sbom: plan.sbom,
        provenance: plan.provenance,
        notes: plan.notes.clone(),
        end_of_support: plan.end_of_support,
        trial: plan.trial.clone(),
        ladder,
    };
    manifest.check()?;
    // On one line: a list of twenty thousand files must stay below the limit.
    let mut text = serde_json::to_vec(&manifest).map_err(ManifestError::from)?;
    text.push(b'\n');
    if text.len() > limits::MANIFEST_BYTES {
        return Err(ManifestError::TooLarge(text.len()).into());
    }
    folder.file(MANIFEST_FILE, &text, Readers::Everybody)?;
    folder.finish()?;
    let warnings = lint::warnings(&manifest, &lint::Around::default());
    Ok(Created { digest: Digest::of(&text), manifest, warnings })
}

fn cohorts<'a>(release: &Create<'a>) -> Result<Option<&'a [CohortId]>, CreateError> {
    let Some(policy) = release.policy else { return Ok(None) };
    match policy.products.get(release.product) {
        Some(product) => Ok(Some(&product.cohorts)),
        None => Err(CreateError::UnknownProduct(release.product.clone())),
    }
}

/// Packs one folder straight into the release's store.
fn artifact(
    source: &ArtifactSource,
    plan: &ReleasePlan,
    store: &Path,
) -> Result<Artifact, CreateError> {
    let draft = store.join(".partial");
    let failed = |act, path: &Path| {
        let path = path.to_owned();
        move |source| CreateError::Folder(FolderError::Io { act, path, source })
    };
    let mut file = fs::File::create(&draft).map_err(failed("create", &draft))?;
    let packed = pack::pack(&source.folder, &mut file)?;
    file.flush().and_then(|()| file.sync_all()).map_err(failed("write", &draft))?;
    let place = store.join(packed.sha256.to_string());
    fs::rename(&draft, &place).map_err(failed("name", &place))?;
    Ok(Artifact {
        arch: source.arch.clone(),
        os_ids: source.os_ids.clone(),
        models: source.models.clone(),
        kind: plan.kind,
        size: packed.size,
        sha256: packed.sha256,
        files: packed.files,
    })
}

impl FromStr for ArtifactSource {
    type Err = CreateError;
    fn from_str(text: &str) -> Result<Self, CreateError> {
        let refuse = |why: String| CreateError::Source { text: text.to_owned(), why };
        let mut parts = text.split(':');
        let folder = parts.next().filter(|folder| !folder.is_empty());
        let folder = folder.ok_or_else(|| refuse("it names no folder".into()))?;
        let mut source = Self { folder: folder.into(), ..Self::default() };
        for part in parts {
            let (key, value) =
                part.split_once('=').ok_or_else(|| refuse(format!("`{part}` has no `=`")))?;
            let value = value.trim_matches('"').to_owned();
            match key {
                _ if value.is_empty() => return Err(refuse(format!("`{key}` is empty"))),
                "arch" => source.arch = Some(value),
                "os" => {
                    source.os_ids.insert(value);
                }
                "model" => {
                    source.models.insert(value);
                }
                _ => return Err(refuse(format!("`{key}` is neither `arch` nor `os` nor `model`"))),
            }
        }
        Ok(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::plan::{LadderPlan, Preset, tests::PLAN};

    #[test]
    fn what_is_allowed_and_unwise_is_said_and_a_folder_is_made_once() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (files, out) = (temp.path().join("files"), temp.path().join("out"));
        fs::create_dir(&files).expect("made");
        fs::write(files.join("notes.txt"), "no program").expect("written");
        let plan = ReleasePlan::from_toml(PLAN).expect("a plan");
        let ladder =
            LadderPlan::Explicit(Preset::Emergency.ladder(&["all".parse().expect("a name")]));
        let plan = ReleasePlan { ladder, notes: String::new(), irreversible: true, ..plan };
        let source = ArtifactSource { folder: files, ..ArtifactSource::default() };
        let release = Create {
            product: &"app".parse().expect("a name"),
            version: &"1.0.0".parse().expect("a version"),
            artifacts: &[source.clone(), ArtifactSource { arch: Some("arm".into()), ..source }],
            plan: &plan,
            policy: None,
            out: &out,
        };
        let made = create(&release).expect("made");
        for part in
            ["is never used", "executable", "`bin/app`", "one stage", "no notes", "approval"]
        {
            assert!(
                made.warnings.iter().any(|said| said.text.contains(part)),
                "{part}: {:?}",
                made.warnings
            );
        }
        let text = fs::read(out.join(MANIFEST_FILE)).expect("readable");
        assert_eq!(Digest::of(&text), made.digest);
        assert_eq!(Manifest::from_json(&text).expect("a manifest"), made.manifest);
        assert!(matches!(create(&release), Err(CreateError::Folder(FolderError::Taken(_)))));
    }

    #[test]
    fn an_artifact_is_a_folder_and_the_devices_it_is_for() {
        let source: ArtifactSource =
            "out/arm:arch=aarch64:model=\"Acme Slate 3\":model=Acme Slate 4:os=debian"
                .parse()
                .expect("an artifact");
        assert_eq!(source.folder, Path::new("out/arm"));
        assert_eq!(source.arch.as_deref(), Some("aarch64"));
        assert_eq!(source.models.len(), 2);
        for bad in ["", ":arch=arm", "dir:arch", "dir:arch=", "dir:cpu=arm"] {
            assert!(bad.parse::<ArtifactSource>().is_err(), "{bad:?} was taken");
        }
    }
}
