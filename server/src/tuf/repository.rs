//! The repository's folder: what the online roles say, signed, and the order in which it reaches the
//! disk. A reader that comes between any two writes finds a whole older state, because whatever is
//! named is written before what names it: targets, `rollouts`, `snapshot`, and `timestamp` last.
//!
//! Every version is taken once and never again: the engine notes the next ones in its own store before
//! a file is written. Whatever a crash leaves behind is written again, with higher versions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::Write,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use lockgate_shared::{
    act::Act,
    id::Digest,
    time::{Moment, Seconds},
    wire::decode_rollout_file,
};
use serde::{Deserialize, Serialize};
use tough::{
    TargetName,
    schema::{Hashes, Metafile, RoleType, Snapshot, Target, Targets, Timestamp},
};

use crate::signer::Signer;

use super::{
    TufError,
    metadata::{SPEC_VERSION, metadata_path, target_path},
    roles::{self, Holder, OnlineKeys, RoleFile},
    trusted::{Files, ROLLOUTS, Trusted},
};

/// How many versions of the online roles stay on disk for clients in the middle of a refresh.
const KEEP_VERSIONS: u64 = 16;

/// The versions of the online roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Of `rollouts`.
    pub rollouts: u64,
    /// Of `snapshot`.
    pub snapshot: u64,
    /// Of `timestamp`.
    pub timestamp: u64,
}

impl Versions {
    /// The next version of a role; there is none after the last that a number can hold.
    pub fn after(role: &str, version: u64) -> Result<u64, TufError> {
        version.checked_add(1).ok_or_else(|| TufError::UsedUp { role: role.to_owned() })
    }

    /// Where the count goes on once new keys sign. Devices forget what the old keys counted, so that a
    /// thief may have driven it up without harm; a count above the seconds since 1970 was not reached
    /// by signing, and goes on from there.
    #[must_use]
    pub fn under_new_keys(self, now: Moment) -> Self {
        let most = u64::try_from(now.0).unwrap_or(0);
        Self {
            rollouts: self.rollouts.min(most),
            snapshot: self.snapshot.min(most),
            timestamp: self.timestamp.min(most),
        }
    }

    /// The higher of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            rollouts: self.rollouts.max(other.rollouts),
            snapshot: self.snapshot.max(other.snapshot),
            timestamp: self.timestamp.max(other.timestamp),
        }
    }
}

/// How long the online roles are good.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// `rollouts`.
    pub rollouts: Seconds,
    /// `snapshot`.
    pub snapshot: Seconds,
    /// `timestamp`.
    pub timestamp: Seconds,
}

/// The online roles as last signed.
#[derive(Clone, Debug)]
pub struct Online {
    /// `rollouts`, and the digests of its targets.
    pub rollouts: RoleFile,
    /// `snapshot`.
    pub snapshot: RoleFile,
    /// `timestamp`.
    pub timestamp: RoleFile,
}

/// Which online roles stand there signed by keys that people have replaced since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// `rollouts`.
    pub rollouts: bool,
    /// `snapshot` or `timestamp`.
    pub others: bool,
}

impl Online {
    /// Which of these roles have other keys now.
    pub fn replaced(&self, trusted: &Trusted) -> Result<Replaced, TufError> {
        let rollouts = Holder::of_delegation(roles::delegations(trusted.targets())?, ROLLOUTS)?;
        let snapshot = Holder::of_root(trusted.root(), RoleType::Snapshot)?;
        let timestamp = Holder::of_root(trusted.root(), RoleType::Timestamp)?;
        Ok(Replaced {
            rollouts: !rollouts.names(&self.rollouts.signer),
            others: !snapshot.names(&self.snapshot.signer)
                || !timestamp.names(&self.timestamp.signer),
        })
    }
}

/// A repository's folder and who signs in it.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
    keys: OnlineKeys,
    terms: Terms,
}

impl Repository {
    /// The repository in `folder`.
    pub const fn new(folder: PathBuf, keys: OnlineKeys, terms: Terms) -> Self {
        Self { folder, keys, terms }
    }

    /// Takes up other keys.
    pub fn set_keys(&mut self, keys: OnlineKeys) {
        self.keys = keys;
    }

    /// What signs for the role `rollouts`, and the audit chain's heads too; none while this host lacks
    /// its key.
    pub fn rollouts_signer(&self, trusted: &Trusted) -> Option<&dyn Signer> {
        let delegations = roles::delegations(trusted.targets()).ok()?;
        Holder::of_delegation(delegations, ROLLOUTS).ok()?.signer_of(&self.keys)
    }

    /// Signs `rollouts` over these targets (path and bytes).
    pub fn rollouts(
        &self,
        trusted: &Trusted,
        targets: &BTreeMap<String, Vec<u8>>,
        version: u64,
        now: Moment,
    ) -> Result<RoleFile, TufError> {
        let expires = stamp(now.plus(self.terms.rollouts));
        let mut role = Targets::new(SPEC_VERSION.into(), number(version), expires);
        role.delegations = None;
        for (path, bytes) in targets {
            let name = TargetName::new(path.clone())
                .map_err(|error| TufError::Content(format!("`{path}`: {error}")))?;
            let target = Target {
                length: bytes.len() as u64,
                hashes: hashes(&Digest::of(bytes)),
                custom: HashMap::new(),
                _extra: HashMap::new(),
            };
            role.targets.insert(name, target);
        }
        let delegations = roles::delegations(trusted.targets())?;
        Holder::of_delegation(delegations, ROLLOUTS)?.sign(role, &self.keys)
    }

    /// Signs a snapshot of people's roles and `rollouts`.
    pub fn snapshot(
        &self,
        trusted: &Trusted,
        rollouts: &RoleFile,
        version: u64,
        now: Moment,
    ) -> Result<RoleFile, TufError> {
        let expires = stamp(now.plus(self.terms.snapshot));
        let mut role = Snapshot::new(SPEC_VERSION.into(), number(version), expires);
        for (name, version, bytes) in trusted.listed() {
            role.meta.insert(name, metafile(version, bytes));
        }
        let name = format!("{ROLLOUTS}.json");
        role.meta.insert(name, metafile(rollouts.version, &rollouts.bytes));
        Holder::of_root(trusted.root(), RoleType::Snapshot)?.sign(role, &self.keys)
    }

    /// Signs a timestamp that names this snapshot. Its field `issued` is what devices measure the age
    /// of a word by.
    pub fn timestamp(
        &self,
        trusted: &Trusted,
        snapshot: &RoleFile,
        version: u64,
        now: Moment,
    ) -> Result<RoleFile, TufError> {
        let expires = stamp(now.plus(self.terms.timestamp));
        let mut role = Timestamp::new(SPEC_VERSION.into(), number(version), expires);
        role.meta.insert("snapshot.json".into(), metafile(snapshot.version, &snapshot.bytes));
        role._extra.insert("issued".into(), serde_json::Value::String(now.to_string()));
        Holder::of_root(trusted.root(), RoleType::Timestamp)?.sign(role, &self.keys)
    }

    /// Writes files that people signed, where they are missing: metadata after all that it lists, so
    /// that who reads the folder meanwhile misses nothing.
    pub fn restore(&self, files: &Files) -> Result<(), TufError> {
        let (metadata, listed): (Vec<_>, Vec<_>) =
            files.iter().partition(|(path, _)| path.starts_with("metadata/"));
        for (path, bytes) in listed.into_iter().chain(metadata) {
            let whole = fs::read(self.folder.join(path)).is_ok_and(|found| found == *bytes);
            if !whole {
                self.write(path, bytes)?;
            }
        }
        Ok(())
    }

    /// Writes rollout files and the role that lists them.
    pub fn write_rollouts(
        &self,
        targets: &BTreeMap<String, Vec<u8>>,
        role: &RoleFile,
    ) -> Result<(), TufError> {
        for (path, bytes) in targets {
            let file = target_path(path, &Digest::of(bytes));
            if !self.folder.join(&file).exists() {
                self.write(&file, bytes)?;
            }
        }
        self.write(&metadata_path(ROLLOUTS, role.version), &role.bytes)
    }

    /// Writes a snapshot.
    pub fn write_snapshot(&self, role: &RoleFile) -> Result<(), TufError> {
        self.write(&metadata_path("snapshot", role.version), &role.bytes)
    }

    /// Writes the timestamp: from here on the new state is the repository's.
    pub fn write_timestamp(&self, role: &RoleFile) -> Result<(), TufError> {
        self.write("metadata/timestamp.json", &role.bytes)
    }

    /// Every file of people's roles in the folder: the first start takes them in.
    pub fn people_files(&self) -> Result<Files, TufError> {
        let mut files = all_files(&self.folder)?;
        let online = |path: &str| {
            path.ends_with("timestamp.json")
                || path.ends_with(".snapshot.json")
                || path.ends_with(".rollouts.json")
                || path.starts_with("targets/rollouts/")
        };
        files.retain(|path, _| !online(path));
        Ok(files)
    }

    /// Removes online files that no client needs any more: old versions, and rollout files that no
    /// kept version lists. What cannot be removed stays; the next turn tries again.
    pub fn sweep(&self, versions: Versions, keep: &BTreeSet<String>) -> Result<(), TufError> {
        let old = |name: &str, role: &str, now: u64| {
            let version =
                name.strip_suffix(&format!(".{role}.json")).and_then(|v| v.parse::<u64>().ok());
            // A version above the newest is a thief's, whose keys people have replaced.
            version
                .is_some_and(|version| version > now || version.saturating_add(KEEP_VERSIONS) < now)
        };
        let mut files = Files::new();
        gather(&self.folder, Path::new("metadata"), &mut files)?;
        gather(&self.folder, Path::new("targets/rollouts"), &mut files)?;
        for path in files.keys() {
            let gone = match path.strip_prefix("metadata/") {
                Some(name) => {
                    old(name, ROLLOUTS, versions.rollouts)
                        || old(name, "snapshot", versions.snapshot)
                }
                None => !keep.contains(path),
            };
            if gone {
                let _ = fs::remove_file(self.folder.join(path));
            }
        }
        Ok(())
    }

    /// Writes one file so that a reader finds the old bytes or the new ones, whenever the power fails.
    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), TufError> {
        let target = self.folder.join(path);
        let fail = |what| {
            let path = target.clone();
            move |source| TufError::File { path, what, source }
        };
        let folder = target.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(fail("making its folder"))?;
        let mut temporary = target.clone().into_os_string();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let mut file = fs::File::create(&temporary).map_err(fail("writing it"))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail("writing it"))?;
        fs::rename(&temporary, &target).map_err(fail("renaming it"))?;
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(fail("writing its folder"))
    }
}

/// Every file of a repository's folder.
pub fn all_files(folder: &Path) -> Result<Files, TufError> {
    let mut files = Files::new();
    for part in ["metadata", "targets"] {
        gather(folder, Path::new(part), &mut files)?;
    }
    Ok(files)
}

/// The versions found in the folder, so that a lost store never signs a version again. What the
/// present keys did not sign does not count: whoever could write here may have left anything.
pub fn versions_on_disk(folder: &Path, trusted: &Trusted) -> Versions {
    let snapshot = newest_snapshot(folder, trusted);
    let timestamp = fs::read(folder.join("metadata/timestamp.json")).ok();
    let timestamp = timestamp.and_then(|bytes| roles::parse::<Timestamp>("timestamp", &bytes).ok());
    // A thief's timestamp whose key people kept still names a snapshot whose key they replaced.
    let last = snapshot.as_ref().map_or(0, |snapshot| snapshot.version.get());
    let timestamp = timestamp.filter(|signed| {
        let named = signed.signed.meta.get("snapshot.json").map(|meta| meta.version.get());
        named.is_some_and(|named| named <= last)
            && Holder::of_root(trusted.root(), RoleType::Timestamp)
                .is_ok_and(|holder| holder.verify(signed).is_ok())
    });
    let listed = |snapshot: &Snapshot| {
        snapshot.meta.get(&format!("{ROLLOUTS}.json")).map_or(0, |meta| meta.version.get())
    };
    Versions {
        rollouts: snapshot.as_ref().map_or(0, listed),
        snapshot: snapshot.as_ref().map_or(0, |snapshot| snapshot.version.get()),
        timestamp: timestamp.map_or(0, |signed| signed.signed.version.get()),
    }
}

fn newest_snapshot(folder: &Path, trusted: &Trusted) -> Option<Snapshot> {
    let holder = Holder::of_root(trusted.root(), RoleType::Snapshot).ok()?;
    let names = fs::read_dir(folder.join("metadata")).ok()?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut versions: Vec<u64> =
        names.filter_map(|name| name.strip_suffix(".snapshot.json")?.parse().ok()).collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions.into_iter().find_map(|version| {
        let bytes = fs::read(folder.join(metadata_path("snapshot", version))).ok()?;
        let signed = roles::parse::<Snapshot>("snapshot", &bytes).ok()?;
        let good = signed.signed.version.get() == version && holder.verify(&signed).is_ok();
        good.then_some(signed.signed)
    })
}

/// The highest number of a stop that the folder's rollout files show, lifted or not: a lost store
/// never gives a number again, since devices that saw it lifted would not heed it.
pub fn highest_stop_on_disk(folder: &Path) -> Result<u64, TufError> {
    let mut files = Files::new();
    gather(folder, Path::new("targets/rollouts"), &mut files)?;
    let numbers = files.values().filter_map(|bytes| decode_rollout_file(bytes).ok()).map(|file| {
        let lifted = file.lifts.iter().filter_map(|act| match act.unverified() {
            Ok(Act::Lift(lift)) => lift.numbers.last().copied(),
            Ok(Act::Start(_) | Act::Approve(_) | Act::Waive(_) | Act::Grant(_)) | Err(_) => None,
        });
        file.stops.iter().map(|stop| stop.number).chain(lifted).max().unwrap_or(0)
    });
    Ok(numbers.max().unwrap_or(0))
}

fn gather(root: &Path, part: &Path, files: &mut Files) -> Result<(), TufError> {
    let folder = root.join(part);
    let fail = |source| TufError::File { path: folder.clone(), what: "reading it", source };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let path = part.join(entry.file_name());
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_dir() {
            gather(root, &path, files)?;
        } else if kind.is_file()
            && let Some(name) = path.to_str()
        {
            files.insert(name.to_owned(), fs::read(root.join(&path)).map_err(fail)?);
        }
    }
    Ok(())
}

fn metafile(version: u64, bytes: &[u8]) -> Metafile {
    Metafile {
        length: Some(bytes.len() as u64),
        hashes: Some(hashes(&Digest::of(bytes))),
        version: number(version),
        _extra: HashMap::new(),
    }
}

fn hashes(digest: &Digest) -> Hashes {
    Hashes { sha256: digest.0.to_vec().into(), _extra: HashMap::new() }
}

fn number(version: u64) -> NonZeroU64 {
    NonZeroU64::new(version).unwrap_or(NonZeroU64::MIN)
}

fn stamp(moment: Moment) -> jiff::Timestamp {
    jiff::Timestamp::from_second(moment.0).unwrap_or(jiff::Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who copies the folder while it is written reads no metadata whose files are still missing.
    #[test]
    fn what_people_signed_is_listed_only_after_it_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let terms = Terms { rollouts: Seconds(1), snapshot: Seconds(1), timestamp: Seconds(1) };
        let repository = Repository::new(folder.path().into(), OnlineKeys::new(Vec::new()), terms);
        // The disk fails in the middle: what should be the folder of targets is a file.
        fs::write(folder.path().join("targets"), "").expect("written");
        let files = Files::from([
            ("metadata/2.release-app.json".into(), b"lists it".to_vec()),
            ("targets/releases/app/1.json".into(), b"it".to_vec()),
        ]);
        assert!(repository.restore(&files).is_err());
        assert!(!folder.path().join("metadata/2.release-app.json").exists());

        fs::remove_file(folder.path().join("targets")).expect("removed");
        repository.restore(&files).expect("there is room now");
        for (path, bytes) in files {
            assert_eq!(fs::read(folder.path().join(path)).expect("there"), bytes);
        }
    }
}
