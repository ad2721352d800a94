//! Who this device is: its key, which never leaves it, and where it was enrolled.
//!
//! The key is made on the device. Where a TPM answers, it is sealed there: the file holds what that TPM
//! alone can unseal, and the device counts in it how old its state is. It refuses a key that others may
//! read, because whoever reads it can be this device; it replaces no key, not even one that it cannot
//! use. An enrolment brings the device into a tenant and no trust in anything.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use ed25519_dalek::SigningKey;
use lockgate_shared::{
    failure::Chain,
    id::{DeviceId, RepositoryId, TenantId},
    json, sign,
    time::Moment,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    config::{Sealing, TpmSettings},
    dice::{self, DiceError},
    tpm::{self, CounterPlace, InTpm, Tpm, TpmError},
};

/// The key's file in the state folder: 32 bytes, or those that a TPM made of them; readable by its
/// owner alone.
pub const KEY_FILE: &str = "device.key";
/// The enrolment's file in the state folder.
pub const ENROLMENT_FILE: &str = "enrolment.json";
/// The longest enrolment: four short fields.
const ENROLMENT_BYTES: u64 = 4 * 1024;
const KEY_BYTES: usize = 32;
/// Begins the file of a sealed key.
const SEALED: &[u8] = b"lockgate key sealed in a TPM, 1\n";
/// The longest such file.
const SEALED_BYTES: u64 = (SEALED.len() + 2 * (2 + tpm::wire::BLOB_BYTES)) as u64;
/// What is sealed: the key, the counter's number or zero, where it stood.
const SECRET_BYTES: usize = KEY_BYTES + 4 + 8;

/// Who the device is.
#[derive(Debug)]
pub struct Identity {
    /// Its key.
    pub key: SigningKey,
    /// How that is kept.
    pub kept: Kept,
    /// Why it was not kept better, where it was made just now.
    pub notes: Vec<String>,
}

/// How a key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In a file, as it is.
    Plain,
    /// Sealed in the TPM.
    Sealed(Option<Start>),
}

/// The counter that was made with the key. It is sealed with it: no configuration leads past it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its number in the TPM.
    pub index: u32,
    /// Where it stood then.
    pub value: u64,
}

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
    /// Neither 32 bytes in a plain file nor what a TPM makes of them.
    #[error(
        "`{path}` is neither a key of {KEY_BYTES} bytes nor a sealed one\nhint: remove it and enrol again; the device then has a new id",
        path = path.display()
    )]
    Key {
        /// The key.
        path: PathBuf,
    },
    /// Sealed, and the TPM does not unseal it. The file stays as it is.
    #[error(
        "the device's key in `{path}` cannot be unsealed; what is installed runs on\nhint: to enrol anew, move `{path}` and `enrolment.json` away first; it then is another device",
        path = path.display()
    )]
    Unsealed {
        /// The key.
        path: PathBuf,
        /// What the TPM says.
        source: TpmError,
    },
    /// Sealed, and the configuration keeps the agent from the TPM.
    #[error(
        "the device's key in `{path}` is sealed in the TPM, which `tpm = \"off\"` keeps the agent from\nhint: write `tpm = \"auto\"`",
        path = path.display()
    )]
    Off {
        /// The key.
        path: PathBuf,
    },
    /// A key was to be made and the TPM does not seal it.
    #[error("no key was made: the TPM does not keep it, and `tpm = \"require\"` asks for that")]
    Required(#[source] TpmError),
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
pub fn key(state: &Path, tpm: &TpmSettings) -> Result<Identity, IdentityError> {
    let path = state.join(KEY_FILE);
    let bytes = own_file(&path)?;
    if let Ok(key) = <&[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
        let key = SigningKey::from_bytes(key);
        return Ok(Identity { key, kept: Kept::Plain, notes: Vec::new() });
    }
    let sealed = bytes.strip_prefix(SEALED).and_then(|rest| tpm::Sealed::read(rest).ok());
    let Some(sealed) = sealed else { return Err(IdentityError::Key { path }) };
    match tpm.sealing {
        Sealing::Off => return Err(IdentityError::Off { path }),
        Sealing::Auto | Sealing::Require => {}
    }
    let unsealed = Tpm::open(&tpm.device).and_then(|mut tpm| tpm.unseal(&sealed));
    let secret =
        unsealed.map_err(|source| IdentityError::Unsealed { path: path.clone(), source })?;
    let (key, start) = opened(&secret).ok_or(IdentityError::Key { path })?;
    Ok(Identity { key, kept: Kept::Sealed(start), notes: Vec::new() })
}

/// The device's key; a new one the first time, sealed where the TPM does it and nobody said otherwise.
pub fn key_or_new(state: &Path, tpm: &TpmSettings) -> Result<Identity, IdentityError> {
    let path = match key(state, tpm) {
        Err(IdentityError::NoKey(path)) => path,
        other => return other,
    };
    let bytes = Zeroizing::new(dice::bytes::<KEY_BYTES>()?);
    let key = SigningKey::from_bytes(&bytes);
    let plain = |notes| {
        replace(&path, bytes.as_ref())?;
        Ok(Identity { key: key.clone(), kept: Kept::Plain, notes })
    };
    match tpm.sealing {
        Sealing::Off => return plain(vec!["`tpm = \"off\"`".to_owned()]),
        Sealing::Auto | Sealing::Require => {}
    }
    match seal(state, tpm, &bytes) {
        Ok((sealed, start, notes)) => {
            replace(&path, &[SEALED, &sealed.to_bytes()].concat())?;
            Ok(Identity { key, kept: Kept::Sealed(start), notes })
        }
        Err(error) => match tpm.sealing {
            Sealing::Require => Err(IdentityError::Required(error)),
            Sealing::Auto | Sealing::Off => plain(vec![told(&error)]),
        },
    }
}

/// Whether there is a key and an enrolment at all, for who has no use for either.
pub fn enrolled(state: &Path) -> Result<(), IdentityError> {
    let (key, enrolment) = (state.join(KEY_FILE), state.join(ENROLMENT_FILE));
    if !key.exists() {
        return Err(IdentityError::NoKey(key));
    }
    if enrolment.exists() { Ok(()) } else { Err(IdentityError::NotEnrolled(enrolment)) }
}

impl Identity {
    /// The counter that was made with the key.
    pub fn counter(&self, state: &Path, tpm: &TpmSettings) -> Option<(InTpm, Start)> {
        let (Kept::Sealed(Some(start)), bytes) = (self.kept, self.key.as_bytes()) else {
            return None;
        };
        let place = CounterPlace::of(state, Some(start.index), bytes);
        Some((InTpm { device: tpm.device.clone(), place }, start))
    }
}

/// Seals a key, with a counter where the TPM gives one. Without one it is sealed all the same, unless
/// the owner asks for both.
fn seal(
    state: &Path,
    settings: &TpmSettings,
    key: &[u8; KEY_BYTES],
) -> Result<(tpm::Sealed, Option<Start>, Vec<String>), TpmError> {
    let mut tpm = Tpm::open(&settings.device)?;
    let place = CounterPlace::of(state, settings.counter, key);
    let (start, notes) = match (tpm.make_counter(&place), settings.sealing) {
        (Ok(value), _) => (Some(Start { index: place.index, value }), Vec::new()),
        (Err(error), Sealing::Require) => return Err(error),
        (Err(error), Sealing::Auto | Sealing::Off) => {
            (None, vec![format!("nothing counts how old its state is: {}", told(&error))])
        }
    };
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    let Start { index, value } = start.unwrap_or(Start { index: 0, value: 0 });
    let parts = key.iter().copied().chain(index.to_be_bytes()).chain(value.to_be_bytes());
    for (place, byte) in secret.iter_mut().zip(parts) {
        *place = byte;
    }
    Ok((tpm.seal(secret.as_ref())?, start, notes))
}

/// What was sealed.
fn opened(secret: &[u8]) -> Option<(SigningKey, Option<Start>)> {
    let (key, rest) = secret.split_first_chunk()?;
    let (index, rest) = rest.split_first_chunk()?;
    let (index, value) = (u32::from_be_bytes(*index), u64::from_be_bytes(rest.try_into().ok()?));
    Some((SigningKey::from_bytes(key), (index != 0).then_some(Start { index, value })))
}

/// An error in one line, without what to do about it: nobody has to.
fn told(error: &TpmError) -> String {
    let text = Chain(error).to_string();
    text.split_once("\nhint: ").map_or(text.as_str(), |(what, _)| what).to_owned()
}

/// Reads the key's file, if nobody else may.
fn own_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let path = path.to_path_buf();
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
    if !meta.is_file() || meta.len() > SEALED_BYTES {
        return Err(IdentityError::Key { path });
    }
    if mode & 0o077 != 0 {
        return Err(IdentityError::Open { path, mode });
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(IdentityError::Owner { path });
    }
    let size = usize::try_from(meta.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(vec![0; size]);
    file.read_exact(bytes.as_mut()).map_err(failed)?;
    Ok(bytes)
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
        assert!(matches!(key(state.path(), &off()), Err(IdentityError::NoKey(_))));
        let first = key_or_new(state.path(), &off()).expect("a key");
        let again = key_or_new(state.path(), &off()).expect("the same key");
        assert_eq!(first.key, again.key);
        assert_eq!((first.kept, again.kept), (Kept::Plain, Kept::Plain));
        let mode = fs::metadata(state.path().join(KEY_FILE)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(state.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let state = tempfile::tempdir().expect("a folder");
        key_or_new(state.path(), &off()).expect("a key");
        let path = state.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        let refused = key_or_new(state.path(), &off());
        assert!(matches!(refused, Err(IdentityError::Open { mode: 0o640, .. })));
    }

    #[test]
    fn a_key_cut_short_is_refused_and_not_replaced() {
        let state = tempfile::tempdir().expect("a folder");
        replace(&state.path().join(KEY_FILE), &[7; 31]).expect("written");
        assert!(matches!(key_or_new(state.path(), &off()), Err(IdentityError::Key { .. })));
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

    #[test]
    fn a_key_is_made_without_a_tpm_unless_one_is_required() {
        let state = tempfile::tempdir().expect("a folder");
        let absent = |sealing| TpmSettings {
            sealing,
            device: state.path().join("tpm"),
            ..TpmSettings::default()
        };
        let refused = key_or_new(state.path(), &absent(Sealing::Require));
        assert!(matches!(refused, Err(IdentityError::Required(TpmError::Absent(_)))));
        assert_eq!(fs::read_dir(state.path()).expect("a folder").count(), 0);
        let made = key_or_new(state.path(), &absent(Sealing::Auto)).expect("a key");
        assert_eq!(made.kept, Kept::Plain);
        assert!(made.notes.iter().any(|note| note.contains("there is no TPM")), "{made:?}");
        // A fleet whose configuration asks for more goes on with the keys that it has.
        let kept = key(state.path(), &absent(Sealing::Require)).expect("the key");
        assert_eq!(kept.key, made.key);
    }

    #[test]
    fn a_sealed_key_without_its_tpm_is_refused_and_left_as_it_is() {
        let state = tempfile::tempdir().expect("a folder");
        let sealed = tpm::Sealed { public: vec![1; 78], private: vec![2; 150] };
        let bytes = [SEALED, &sealed.to_bytes()].concat();
        replace(&state.path().join(KEY_FILE), &bytes).expect("written");
        let refused = key_or_new(state.path(), &off());
        assert!(matches!(refused, Err(IdentityError::Off { .. })));
        let auto = TpmSettings { device: state.path().join("tpm"), ..TpmSettings::default() };
        let refused = key_or_new(state.path(), &auto).expect_err("no TPM is there");
        let text = Chain(&refused).to_string();
        assert!(text.contains("there is no TPM") && text.contains("runs on"), "{text}");
        assert_eq!(fs::read(state.path().join(KEY_FILE)).expect("there"), bytes);
        replace(&state.path().join(KEY_FILE), &bytes[..bytes.len() - 1]).expect("written");
        assert!(matches!(key(state.path(), &auto), Err(IdentityError::Key { .. })));
    }

    fn off() -> TpmSettings {
        TpmSettings { sealing: Sealing::Off, ..TpmSettings::default() }
    }
}
