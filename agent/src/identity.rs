//! Who this device is: its key, which never leaves it, and where it was enrolled.
//!
//! The key is made on the device. It refuses a key that others may read, because whoever reads it can
//! be this device. An enrolment brings the device into a tenant and no trust in anything.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use ed25519_dalek::SigningKey;
use lockgate_shared::{
    id::{DeviceId, RepositoryId, TenantId},
    json, sign,
    time::Moment,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::dice::{self, DiceError};

/// The key's file in the state folder: 32 bytes, readable by its owner alone.
pub const KEY_FILE: &str = "device.key";
/// The enrolment's file in the state folder.
pub const ENROLMENT_FILE: &str = "enrolment.json";
/// The longest enrolment: four short fields.
const ENROLMENT_BYTES: u64 = 4 * 1024;
const KEY_BYTES: usize = 32;

/// Where the device belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The repository.
    pub repository: RepositoryId,
    /// The tenant.
    pub tenant: TenantId,
    /// The device, which follows from its key.
    pub device: DeviceId,
    /// When the server took it in, by the device's clock.
    pub enrolled: Moment,
}

/// Why the device does not know who it is.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The disk's answer.
    #[error(
        "cannot {act} `{path}`\nhint: the folder must exist and belong to the user that the agent runs as",
        path = path.display()
    )]
    Io {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others than its owner may read or write the key.
    #[error(
        "`{path}` may be read by others than its owner (mode {mode:04o})\nhint: whoever read it can pass for this device; remove it and enrol again, or, if nobody did, `chmod 600 {path}`",
        path = path.display()
    )]
    Open {
        /// The key.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key belongs to another user.
    #[error(
        "`{path}` belongs to another user\nhint: run this command as the user that the agent runs as",
        path = path.display()
    )]
    Owner {
        /// The key.
        path: PathBuf,
    },
    /// Not 32 bytes in a plain file.
    #[error(
        "`{path}` is not a key of {KEY_BYTES} bytes\nhint: remove it and enrol again; the device then has a new id",
        path = path.display()
    )]
    Key {
        /// The key.
        path: PathBuf,
    },
    /// No key yet.
    #[error(
        "this device has no key yet: there is no `{path}`\nhint: `lockgate-agent enroll --token-file FILE`",
        path = .0.display()
    )]
    NoKey(PathBuf),
    /// Not enrolled.
    #[error(
        "this device is not enrolled: there is no `{path}`\nhint: `lockgate-agent enroll --token-file FILE`",
        path = .0.display()
    )]
    NotEnrolled(PathBuf),
    /// The enrolment cannot be read, or is another device's.
    #[error(
        "`{path}` is not the enrolment of this device: {reason}\nhint: remove it and enrol again",
        path = path.display()
    )]
    Enrolment {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No chance to be had.
    #[error(transparent)]
    Dice(#[from] DiceError),
}

/// The device's key, which must be there.
pub fn key(state: &Path) -> Result<SigningKey, IdentityError> {
    let path = state.join(KEY_FILE);
    let failed = |source| IdentityError::Io { act: "read", path: path.clone(), source };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IdentityError::NoKey(path));
        }
        Err(error) => return Err(failed(error)),
    };
    let meta = file.metadata().map_err(failed)?;
    let mode = meta.mode() & 0o7777;
    if !meta.is_file() || meta.len() != KEY_BYTES as u64 {
        return Err(IdentityError::Key { path });
    }
    if mode & 0o077 != 0 {
        return Err(IdentityError::Open { path, mode });
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(IdentityError::Owner { path });
    }
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    file.read_exact(bytes.as_mut()).map_err(failed)?;
    Ok(SigningKey::from_bytes(&bytes))
}

/// The device's key; a new one the first time.
pub fn key_or_new(state: &Path) -> Result<SigningKey, IdentityError> {
    match key(state) {
        Err(IdentityError::NoKey(path)) => {
            let bytes = Zeroizing::new(dice::bytes::<KEY_BYTES>()?);
            replace(&path, bytes.as_ref())?;
            Ok(SigningKey::from_bytes(&bytes))
        }
        other => other,
    }
}

/// The id that follows from a key.
pub fn device(key: &SigningKey) -> DeviceId {
    DeviceId::of_key(&sign::public(key))
}

impl Enrolled {
    /// The enrolment of the device with this key, which must be there.
    pub fn read(state: &Path, key: &SigningKey) -> Result<Self, IdentityError> {
        let path = state.join(ENROLMENT_FILE);
        let failed = |source| IdentityError::Io { act: "read", path: path.clone(), source };
        let refuse = |reason| IdentityError::Enrolment { path: path.clone(), reason };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::NotEnrolled(path));
            }
            Err(error) => return Err(failed(error)),
        };
        let mut text = Vec::new();
        file.take(ENROLMENT_BYTES).read_to_end(&mut text).map_err(failed)?;
        let enrolled: Self = json::read(&text).map_err(|error| refuse(error.to_string()))?;
        if enrolled.device != device(key) {
            return Err(refuse("it names another device than the key does".to_owned()));
        }
        Ok(enrolled)
    }

    /// Keeps the enrolment, whole or not at all.
    pub fn write(&self, state: &Path) -> Result<(), IdentityError> {
        let path = state.join(ENROLMENT_FILE);
        let text = json::write_pretty(self).map_err(|error| IdentityError::Enrolment {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        replace(&path, &text)
    }
}

/// Writes a file that only its owner may read: beside it first, to the disk, then in its place.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let fresh = path.with_extension("new");
    let write = || -> io::Result<()> {
        // A leftover of a power cut may have other permissions.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| IdentityError::Io { act: "write", path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_may_read_it() {
        let state = tempfile::tempdir().expect("a folder");
        assert!(matches!(key(state.path()), Err(IdentityError::NoKey(_))));
        let first = key_or_new(state.path()).expect("a key");
        let again = key_or_new(state.path()).expect("the same key");
        assert_eq!(first, again);
        let mode = fs::metadata(state.path().join(KEY_FILE)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(state.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let state = tempfile::tempdir().expect("a folder");
        key_or_new(state.path()).expect("a key");
        let path = state.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        let refused = key_or_new(state.path());
        assert!(matches!(refused, Err(IdentityError::Open { mode: 0o640, .. })));
    }

    #[test]
    fn a_key_cut_short_is_refused_and_not_replaced() {
        let state = tempfile::tempdir().expect("a folder");
        replace(&state.path().join(KEY_FILE), &[7; 31]).expect("written");
        assert!(matches!(key_or_new(state.path()), Err(IdentityError::Key { .. })));
        assert_eq!(fs::read(state.path().join(KEY_FILE)).expect("read").len(), 31);
    }

    #[test]
    fn an_enrolment_belongs_to_the_key_that_made_it() {
        let state = tempfile::tempdir().expect("a folder");
        let own = SigningKey::from_bytes(&[1; 32]);
        let enrolled = Enrolled {
            repository: "trial".parse().expect("a name"),
            tenant: "acme".parse().expect("a name"),
            device: device(&own),
            enrolled: Moment(1_795_000_000),
        };
        assert!(matches!(Enrolled::read(state.path(), &own), Err(IdentityError::NotEnrolled(_))));
        enrolled.write(state.path()).expect("written");
        assert_eq!(Enrolled::read(state.path(), &own).expect("read"), enrolled);
        let other = SigningKey::from_bytes(&[2; 32]);
        let refused = Enrolled::read(state.path(), &other);
        assert!(matches!(refused, Err(IdentityError::Enrolment { .. })));
    }
}
