//! The release manifest: what a release is, for whom, how it proves itself healthy, and the ladder it
//! climbs. A TUF target of the product's role, `releases/<product>/<version>.json`.
//!
//! It is read after the TUF client has verified its bytes; this module refuses what is out of bounds
//! or contradicts itself, and knows nothing of signatures.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    facts::Facts,
    id::{Digest, ProductId},
    json, limits,
    time::{Moment, Seconds},
    version::Version,
};

mod ladder;

pub use ladder::{Gate, GateRule, Ladder, Stage, StageApproval};

/// The format this code reads.
pub const MANIFEST_FORMAT: u32 = 1;

/// A release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The product.
    pub product: ProductId,
    /// The version.
    pub version: Version,
    /// How grave it is to be without it.
    pub severity: Severity,
    /// The bytes, per platform. The first that fits a device is the device's.
    pub artifacts: Vec<Artifact>,
    /// What a device must be.
    #[serde(default)]
    pub compatibility: Compatibility,
    /// The oldest version from which it may be installed: everything older goes through a version at
    /// or above this one first.
    #[serde(default)]
    pub barrier: Option<Version>,
    /// There is no way back once it is confirmed.
    #[serde(default)]
    pub irreversible: bool,
    /// It changes data that both slots share: a device goes back to a version that cannot read them
    /// only when its owner says so.
    #[serde(default)]
    pub migrates_data: bool,
    /// With `migrates_data`: the oldest version that reads the data as this one leaves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_read_by: Option<Version>,
    /// SHA-256 of the software bill of materials.
    #[serde(default)]
    pub sbom: Option<Digest>,
    /// SHA-256 of the statement of its provenance.
    #[serde(default)]
    pub provenance: Option<Digest>,
    /// Notes for the devices' owners.
    #[serde(default)]
    pub notes: String,
    /// When support ends.
    #[serde(default)]
    pub end_of_support: Option<Moment>,
    /// How it proves itself healthy.
    pub trial: Trial,
    /// The stages.
    pub ladder: Ladder,
}

/// How grave it is to be without a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing urgent.
    Routine,
    /// It closes vulnerabilities.
    Security {
        /// CVSS 3.1 or 4.0 base score in tenths, 0 to 100.
        cvss_tenths: u8,
        /// Advisory ids.
        advisories: Vec<String>,
    },
}

/// The bytes of a release for one platform: tar in zstd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// For which architecture; none means any.
    #[serde(default)]
    pub arch: Option<String>,
    /// For which operating system ids; none means any.
    #[serde(default)]
    pub os_ids: BTreeSet<String>,
    /// For which hardware models (`vendor model`); none means any.
    #[serde(default)]
    pub models: BTreeSet<String>,
    /// What it is.
    pub kind: ArtifactKind,
    /// Bytes as sent.
    pub size: u64,
    /// SHA-256 of the bytes as sent.
    pub sha256: Digest,
    /// The files in it, in the archive's order: nothing else may be in the archive.
    pub files: Vec<FileEntry>,
}

/// What an artifact is: it chooses the kind of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactKind {
    /// A program in a directory.
    App,
    /// A bootable image.
    Image,
    /// The agent itself.
    Agent,
    /// Settings: they go through the same gates as code.
    Config,
}

/// One entry of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "EntryFields")]
pub struct FileEntry {
    /// Its path inside the slot, with `/`.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: FileKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FileKind {
    /// A regular file, mode 0755 if executable, else 0644.
    File {
        /// Its bytes.
        size: u64,
        /// SHA-256 of its bytes.
        sha256: Digest,
        /// Whether it may be run.
        executable: bool,
    },
    /// A folder, mode 0755.
    Directory,
    /// A symbolic link that stays inside the slot.
    Symlink {
        /// Where it points, relative to its own folder.
        target: String,
    },
}

/// The fields of an entry, whatever it is: what serde derives for a flattened enum is three times as
/// much code, and the agent is small.
#[derive(Deserialize)]
struct EntryFields {
    path: String,
    kind: EntryWord,
    size: Option<u64>,
    sha256: Option<Digest>,
    executable: Option<bool>,
    target: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum EntryWord {
    File,
    Directory,
    Symlink,
}

impl TryFrom<EntryFields> for FileEntry {
    type Error = MissingField;

    fn try_from(fields: EntryFields) -> Result<Self, MissingField> {
        let kind = match fields.kind {
            EntryWord::File => FileKind::File {
                size: fields.size.ok_or(MissingField("size"))?,
                sha256: fields.sha256.ok_or(MissingField("sha256"))?,
                executable: fields.executable.ok_or(MissingField("executable"))?,
            },
            EntryWord::Directory => FileKind::Directory,
            EntryWord::Symlink => {
                FileKind::Symlink { target: fields.target.ok_or(MissingField("target"))? }
            }
        };
        Ok(Self { path: fields.path, kind })
    }
}

/// A field that this kind of entry or probe needs.
#[derive(Debug, Error)]
#[error("missing field `{0}`")]
struct MissingField(&'static str);

/// What a device must be to install a release. Empty lists and absent numbers ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compatibility {
    /// Hardware models (`vendor model`).
    pub models: BTreeSet<String>,
    /// Operating system ids.
    pub os_ids: BTreeSet<String>,
    /// Least memory in MiB.
    pub min_ram_mib: Option<u32>,
    /// Least free space in MiB where the slots are, beyond the release itself.
    pub min_free_disk_mib: Option<u32>,
}

/// How a release proves itself after activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The probes that must hold.
    pub probes: Vec<Probe>,
    /// How long all of them must hold without a break.
    pub soak_s: Seconds,
    /// How long after activation they may take to hold for the first time and soak; later means back.
    pub deadline_s: Seconds,
    /// How often the trial may be interrupted (a crash of the agent, a boot) before it means back.
    pub attempts: u8,
}

/// One health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ProbeFields")]
pub struct Probe {
    /// Its name: letters and reports use it.
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub kind: ProbeKind,
    /// How often it runs.
    pub interval_s: Seconds,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ProbeKind {
    /// Runs a command in the slot; healthy when it ends with status 0 in time.
    Command {
        /// The program, relative to the slot or absolute, and its arguments.
        argv: Vec<String>,
        /// How long it may take.
        timeout_s: Seconds,
    },
    /// Asks a loopback address over HTTP.
    Http {
        /// `http://` and a loopback address, port and path.
        url: String,
        /// The status that means healthy.
        status: u16,
        /// How long it may take.
        timeout_s: Seconds,
    },
    /// The process whose number stands in a file is alive and is still the same one.
    Process {
        /// The file, relative to the product's folder or absolute.
        pidfile: String,
    },
    /// The agent itself reached its server.
    Contact,
}

/// The fields of a probe, whatever it does.
#[derive(Deserialize)]
struct ProbeFields {
    name: String,
    kind: ProbeWord,
    interval_s: Seconds,
    argv: Option<Vec<String>>,
    timeout_s: Option<Seconds>,
    url: Option<String>,
    status: Option<u16>,
    pidfile: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProbeWord {
    Command,
    Http,
    Process,
    Contact,
}

impl TryFrom<ProbeFields> for Probe {
    type Error = MissingField;

    fn try_from(fields: ProbeFields) -> Result<Self, MissingField> {
        let timeout_s = fields.timeout_s.ok_or(MissingField("timeout_s"));
        let kind = match fields.kind {
            ProbeWord::Command => ProbeKind::Command {
                argv: fields.argv.ok_or(MissingField("argv"))?,
                timeout_s: timeout_s?,
            },
            ProbeWord::Http => ProbeKind::Http {
                url: fields.url.ok_or(MissingField("url"))?,
                status: fields.status.ok_or(MissingField("status"))?,
                timeout_s: timeout_s?,
            },
            ProbeWord::Process => {
                ProbeKind::Process { pidfile: fields.pidfile.ok_or(MissingField("pidfile"))? }
            }
            ProbeWord::Contact => ProbeKind::Contact,
        };
        Ok(Self { name: fields.name, kind, interval_s: fields.interval_s })
    }
}

/// Why a manifest cannot be used.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Not JSON of this shape.
    #[error("the release manifest cannot be read")]
    Json(#[from] serde_json::Error),
    /// Larger than [`limits::MANIFEST_BYTES`].
    #[error("the release manifest has {0} bytes, at most {max} are read", max = limits::MANIFEST_BYTES)]
    TooLarge(usize),
    /// Made by a later version.
    #[error(
        "the release manifest has format {0}, this version reads format {MANIFEST_FORMAT}\nhint: update this program"
    )]
    Format(u32),
    /// Something in it is out of bounds or contradicts itself.
    #[error("{0}")]
    Field(String),
}

impl Manifest {
    /// A routine release of these bytes, with nothing of what a plan may leave out.
    pub fn new(
        (product, version): (ProductId, Version),
        artifacts: Vec<Artifact>,
        trial: Trial,
        ladder: Ladder,
    ) -> Self {
        Self {
            format: MANIFEST_FORMAT,
            product,
            version,
            severity: Severity::Routine,
            artifacts,
            compatibility: Compatibility::default(),
            barrier: None,
            irreversible: false,
            migrates_data: false,
            data_read_by: None,
            sbom: None,
            provenance: None,
            notes: String::new(),
            end_of_support: None,
            trial,
            ladder,
        }
    }

    /// The target path of a release.
    pub fn path(product: &ProductId, version: &Version) -> String {
        format!("releases/{product}/{version}.json")
    }

    /// Reads and checks a manifest whose bytes were verified.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > limits::MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let manifest: Self = json::read(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Everything that must hold inside one manifest.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.format != MANIFEST_FORMAT {
            return Err(ManifestError::Format(self.format));
        }
        if self.data_read_by.is_some() && !self.migrates_data {
            return Err(ManifestError::Field(
                "`data_read_by` says who reads migrated data, and this release migrates none"
                    .into(),
            ));
        }
        if self.artifacts.is_empty() {
            return Err(ManifestError::Field("a release needs at least one artifact".into()));
        }
        for artifact in &self.artifacts {
            artifact.check()?;
        }
        self.trial.check()?;
        self.ladder.check()
    }

    /// Whether `before` cannot read shared data as this release leaves them.
    pub fn unreadable_by(&self, before: &Version) -> bool {
        self.migrates_data && self.data_read_by.as_ref().is_none_or(|oldest| before < oldest)
    }

    /// The artifact for a device with these facts, if there is one.
    pub fn artifact_for(&self, facts: &Facts) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.fits(facts))
    }
}

impl ArtifactKind {
    /// The kind's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Image => "image",
            Self::Agent => "agent",
            Self::Config => "config",
        }
    }
}

impl Artifact {
    /// Whether it is for a device with these facts.
    pub fn fits(&self, facts: &Facts) -> bool {
        let any = |set: &BTreeSet<String>, value: &str| set.is_empty() || set.contains(value);
        self.arch.as_deref().is_none_or(|arch| arch == facts.arch)
            && any(&self.os_ids, &facts.os_id)
            && any(&self.models, &format!("{} {}", facts.vendor, facts.model))
    }

    /// Bytes of all its files together.
    pub fn unpacked(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| match &file.kind {
            FileKind::File { size, .. } => sum.saturating_add(*size),
            FileKind::Directory | FileKind::Symlink { .. } => sum,
        })
    }

    fn check(&self) -> Result<(), ManifestError> {
        let refuse = |text: String| Err(ManifestError::Field(text));
        if self.files.is_empty() || self.files.len() > limits::ARTIFACT_FILES {
            return refuse(format!(
                "an artifact lists {} files, 1 to {} are allowed",
                self.files.len(),
                limits::ARTIFACT_FILES
            ));
        }
        if self.size > limits::ARTIFACT_BYTES || self.unpacked() > limits::ARTIFACT_BYTES {
            return refuse("an artifact is larger than 64 GiB".into());
        }
        let mut seen = BTreeSet::new();
        let mut folders = BTreeSet::new();
        for file in &self.files {
            if !path_stays_inside(&file.path) {
                return refuse(format!("`{}` is not a path inside a slot", file.path));
            }
            if !seen.insert(file.path.as_str()) {
                return refuse(format!("`{}` is listed twice", file.path));
            }
            if let Some((folder, _)) = file.path.rsplit_once('/')
                && !folders.contains(folder)
            {
                return refuse(format!("`{}` is listed before its folder `{folder}`", file.path));
            }
            if file.kind == FileKind::Directory {
                folders.insert(file.path.as_str());
            }
            if let FileKind::Symlink { target } = &file.kind
                && !link_stays_inside(&file.path, target)
            {
                return refuse(format!("`{}` links to `{target}`, out of the slot", file.path));
            }
        }
        Ok(())
    }
}

impl Trial {
    fn check(&self) -> Result<(), ManifestError> {
        let refuse = |text: &str| Err(ManifestError::Field(text.into()));
        if self.probes.is_empty() || self.probes.len() > limits::PROBES {
            return refuse("a release needs 1 to 16 probes: without one it cannot show its health");
        }
        let mut names = BTreeSet::new();
        names.extend(self.probes.iter().map(|probe| probe.name.as_str()));
        if names.len() < self.probes.len() {
            return refuse("two probes have the same name");
        }
        for probe in &self.probes {
            if probe.interval_s.0 == 0 || probe.name.is_empty() || probe.name.len() > 40 {
                return refuse("a probe needs a name of 1 to 40 characters and an interval");
            }
            match &probe.kind {
                ProbeKind::Command { argv, .. } if argv.is_empty() => {
                    return refuse("a command probe needs a program");
                }
                ProbeKind::Http { url, .. } if !url_is_loopback(url) => {
                    return refuse("an HTTP probe asks `http://127.0.0.1`, `[::1]` or `localhost`");
                }
                ProbeKind::Command { .. }
                | ProbeKind::Http { .. }
                | ProbeKind::Process { .. }
                | ProbeKind::Contact => {}
            }
        }
        if self.deadline_s <= self.soak_s {
            return refuse("the trial's deadline must lie beyond its soak");
        }
        if self.attempts == 0 {
            return refuse("a trial needs at least one attempt");
        }
        Ok(())
    }
}

/// The longest part of a path, as file systems have it.
const PATH_PART: usize = 255;

/// Whether a path names something inside a slot: relative, no empty, `.` or `..` parts, each part at
/// most 255 bytes, no control character or backslash, at most 4,095 bytes.
pub fn path_stays_inside(path: &str) -> bool {
    !path.is_empty()
        && path.len() < 4096
        && !path.contains(|c: char| c.is_control() || c == '\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() <= PATH_PART)
}

/// Whether a link at `path` to `target` stays inside the slot. `..` may stand only at the beginning:
/// behind a name it would go up from wherever that name, which may be a link, leads.
pub fn link_stays_inside(path: &str, target: &str) -> bool {
    let up = target.split('/').take_while(|part| *part == "..").count();
    let depth = path.split('/').count().saturating_sub(1);
    let rest: Vec<&str> = target.split('/').skip(up).collect();
    up <= depth && !rest.is_empty() && path_stays_inside(&rest.join("/"))
}

/// Whether a URL asks this device and no other: `http://`, a loopback address, a port, a path.
fn url_is_loopback(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        Some(_) | None => (authority, "80"),
    };
    let host = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(host);
    let loopback = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    loopback && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_release_that_cannot_show_its_health_is_refused() {
        let mut manifest = manifest();
        assert!(manifest.check().is_ok());
        manifest.trial.probes.clear();
        assert!(manifest.check().is_err());
    }

    #[test]
    fn migrated_data_are_read_by_those_versions_that_the_release_names() {
        let mut manifest = manifest();
        let version = |text: &str| text.parse::<Version>().expect("a version");
        assert!(!manifest.unreadable_by(&version("1.0.0")));
        manifest.migrates_data = true;
        assert!(manifest.unreadable_by(&version("1.0.0")), "nobody said that it can");
        manifest.data_read_by = Some(version("1.0.5"));
        assert!(manifest.check().is_ok());
        assert!(manifest.unreadable_by(&version("1.0.4")));
        assert!(!manifest.unreadable_by(&version("1.0.5")));
        manifest.migrates_data = false;
        assert!(manifest.check().is_err());
    }

    #[test]
    fn paths_and_links_that_leave_the_slot_are_refused() {
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\b", "a\0"] {
            assert!(!path_stays_inside(bad), "{bad:?}");
        }
        assert!(link_stays_inside("bin/run", "../lib/run"));
        for bad in ["/etc", "../../x", "", "a/../../../x", "lib/../x", "..", "./x", "x//y"] {
            assert!(!link_stays_inside("bin/run", bad), "{bad:?}");
        }
    }

    #[test]
    fn a_ladder_that_skips_repeats_or_never_ends_is_refused() {
        let good = manifest().ladder;
        let mut twice = good.clone();
        twice.stages[1].cohort = twice.stages[0].cohort.clone();
        let mut sinking = good.clone();
        sinking.stages[0].floor_s = Seconds(1_000_000);
        let mut endless = good.clone();
        endless.stages[1].ceiling_ppm = 500_000;
        let mut empty = good.clone();
        empty.stages.clear();
        assert!(good.check().is_ok());
        for bad in [twice, sinking, endless, empty] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn probes_ask_this_device_only() {
        for bad in [
            "http://example.org/",
            "https://127.0.0.1/",
            "http://127.0.0.1.evil.org/",
            "http://127.0.0.1:80@evil.org/",
            "http://127.0.0.1:0/",
            "http://0.0.0.0/",
        ] {
            assert!(!url_is_loopback(bad), "{bad}");
        }
        assert!(url_is_loopback("http://127.8.0.1/"));
        assert!(url_is_loopback("http://127.0.0.1:8080/health"));
        assert!(url_is_loopback("http://[::1]:8080/health"));
    }

    /// Two stages, `dogfood` and `general`.
    pub(crate) fn manifest() -> Manifest {
        let stage = |cohort: &str, floor: u64| Stage {
            cohort: cohort.parse().expect("a name"),
            ceiling_ppm: 1_000_000,
            floor_s: Seconds(floor),
            bake_s: Seconds(60),
            approval: StageApproval::None,
            gate: Gate::Count(GateRule {
                first_devices: 3,
                growth: 2,
                min_devices: 3,
                small_stage: 10,
                max_failure_ppm: 50_000,
                confidence_ppm: 950_000,
                silence_after_s: Seconds(600),
            }),
        };
        Manifest::new(
            ("app".parse().expect("a name"), "1.1.0".parse().expect("a version")),
            vec![Artifact {
                arch: None,
                os_ids: BTreeSet::new(),
                models: BTreeSet::new(),
                kind: ArtifactKind::App,
                size: 10,
                sha256: Digest::of(b"artifact"),
                files: vec![
                    FileEntry { path: "bin".into(), kind: FileKind::Directory },
                    FileEntry {
                        path: "bin/app".into(),
                        kind: FileKind::File {
                            size: 4,
                            sha256: Digest::of(b"app\n"),
                            executable: true,
                        },
                    },
                ],
            }],
            Trial {
                probes: vec![Probe {
                    name: "answers".into(),
                    kind: ProbeKind::Command {
                        argv: vec!["bin/app".into(), "--health".into()],
                        timeout_s: Seconds(5),
                    },
                    interval_s: Seconds(5),
                }],
                soak_s: Seconds(30),
                deadline_s: Seconds(120),
                attempts: 3,
            },
            Ladder {
                stages: vec![stage("dogfood", 0), stage("general", 60)],
                timestamp_max_age_s: Seconds(3600),
                coverage_max: 200,
            },
        )
    }
}
