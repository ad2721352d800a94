//! People's and the gatekeeper's Ed25519 keys as files: PKCS#8 in PEM, encrypted with PBES2 (scrypt
//! and AES-256) under a passphrase, so that `openssl pkey` reads them too. Only the gatekeeper's
//! online keys are plain, because nobody is there to type when it starts.
//!
//! A passphrase comes from a file, from the environment or from a prompt, never from a command's
//! arguments, which other users can read. Nothing here prints a private key.

use std::{
    env, fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes},
};
use pkcs8::{
    EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument,
    der::{Decode as _, pem::PemLabel as _},
    pkcs5::{pbes2::Parameters, scrypt},
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    dice,
    whole_folder::{self, FolderError, Readers},
};

/// The environment's variable that may hold the passphrase.
pub const PASSPHRASE_VARIABLE: &str = "LOCKGATE_PASSPHRASE";
/// The environment's variable that may hold the new passphrase when it changes.
pub const NEW_PASSPHRASE_VARIABLE: &str = "LOCKGATE_NEW_PASSPHRASE";
/// The shortest new passphrase, in characters. It guards files that lie in a safe, not a login that
/// anybody can try.
pub const MIN_PASSPHRASE: usize = 12;
/// The longest passphrase or key file that is read: far above any real one.
const MAX_FILE: u64 = 64 * 1024;
/// scrypt's cost as a power of two: 16 MiB, the most that openssl reads without an option.
const SCRYPT_LOG_N: u8 = 14;
/// scrypt's block size, its usual value.
const SCRYPT_R: u32 = 8;
/// scrypt's parallelism, its usual value.
const SCRYPT_P: u32 = 1;

/// A passphrase, wiped from memory when it is dropped.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

/// Where a passphrase comes from.
#[derive(Clone, Debug, Default)]
pub enum PassphraseSource {
    /// The first line of a file.
    File(PathBuf),
    /// The environment, else a prompt.
    #[default]
    EnvironmentOrPrompt,
    /// Known already.
    Given(Passphrase),
}

/// How a key lies on the disk.
#[derive(Clone, Copy, Debug)]
pub enum Protection<'a> {
    /// Readable by whoever reads the file: for the gatekeeper's host only.
    Plain,
    /// Encrypted.
    Encrypted(&'a Passphrase),
}

/// Why a key or a passphrase cannot be had.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] FolderError),
    /// Not a private key that this program reads.
    #[error("`{}` is not an Ed25519 private key in PKCS#8 PEM\nhint: make one with `lockgate key new`", .0.display())]
    NotAKey(PathBuf),
    /// The passphrase is wrong, or the file is damaged.
    #[error("the passphrase does not open `{}`\nhint: try another one: with `--passphrase-file FILE`, or without it and without {PASSPHRASE_VARIABLE} to be asked; a key whose passphrase nobody knows is replaced with `lockgate repo change --replace OLD=NEW`", .0.display())]
    WrongPassphrase(PathBuf),
    /// The key lies open where it must not.
    #[error("`{}` is readable by others than its owner (mode {mode:04o})\nhint: run `chmod 600` on it, and replace the key if others may have read it", path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Nobody can be asked.
    #[error("`{}` needs a passphrase and there is no terminal to ask at\nhint: pass `--passphrase-file` or set {PASSPHRASE_VARIABLE}", .0.display())]
    NobodyToAsk(PathBuf),
    /// The prompt failed.
    #[error("cannot ask for the passphrase")]
    Prompt(#[source] std::io::Error),
    /// Two different texts were typed.
    #[error("the two passphrases differ")]
    Differ,
    /// A new passphrase that is too short.
    #[error(
        "a new passphrase needs at least {MIN_PASSPHRASE} characters\nhint: five random words are easier to type than twelve random characters"
    )]
    TooShort,
    /// Encryption failed.
    #[error("cannot encrypt the key: {0}")]
    Encrypt(String),
}

/// A new key from the machine's dice.
pub fn generate() -> SigningKey {
    SigningKey::from_bytes(&Zeroizing::new(dice::bytes::<32>()))
}

/// A key as PEM text.
pub fn to_pem(key: &SigningKey, protection: Protection<'_>) -> Result<Zeroizing<String>, KeyError> {
    // Without the public half: the form of RFC 8410 that every openssl reads.
    let pair = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let failed = |error: &dyn std::fmt::Display| KeyError::Encrypt(error.to_string());
    let plain = pair.to_pkcs8_der().map_err(|error| failed(&error))?;
    let (label, document) = match protection {
        Protection::Plain => (PrivateKeyInfoRef::PEM_LABEL, plain),
        Protection::Encrypted(passphrase) => {
            let parameters = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P)
                .map_err(|error| failed(&error))?;
            let (salt, iv) = (dice::bytes::<16>(), dice::bytes::<16>());
            let parameters = Parameters::generate_scrypt_aes256cbc(parameters, &salt, iv)
                .map_err(|error| failed(&error))?;
            let info =
                PrivateKeyInfoRef::from_der(plain.as_bytes()).map_err(|error| failed(&error))?;
            let document = info
                .encrypt_with_params(parameters, passphrase.0.as_bytes())
                .map_err(|error| failed(&error))?;
            (EncryptedPrivateKeyInfoRef::PEM_LABEL, document)
        }
    };
    document.to_pem(label, LineEnding::LF).map_err(|error| failed(&error))
}

/// Writes a key to a new file, readable by its owner only.
pub fn write(path: &Path, key: &SigningKey, protection: Protection<'_>) -> Result<(), KeyError> {
    let pem = to_pem(key, protection)?;
    Ok(whole_folder::write_new(path, pem.as_bytes(), Readers::Owner)?)
}

/// Puts a key under another protection, in place.
pub fn rewrite(path: &Path, key: &SigningKey, protection: Protection<'_>) -> Result<(), KeyError> {
    let pem = to_pem(key, protection)?;
    Ok(whole_folder::replace(path, pem.as_bytes(), Readers::Owner)?)
}

/// Reads a key; asks for a passphrase only where the file is encrypted.
pub fn read(path: &Path, source: &PassphraseSource) -> Result<SigningKey, KeyError> {
    let text = read_text(path)?;
    let not_a_key = || KeyError::NotAKey(path.to_owned());
    let (label, document) = SecretDocument::from_pem(&text).map_err(|_| not_a_key())?;
    if label == PrivateKeyInfoRef::PEM_LABEL {
        require_private(path)?;
        return SigningKey::from_pkcs8_der(document.as_bytes()).map_err(|_| not_a_key());
    }
    if label != EncryptedPrivateKeyInfoRef::PEM_LABEL {
        return Err(not_a_key());
    }
    let info =
        EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| not_a_key())?;
    let passphrase = source.unlock(path)?;
    let plain = info
        .decrypt(passphrase.0.as_bytes())
        .map_err(|_| KeyError::WrongPassphrase(path.to_owned()))?;
    SigningKey::from_pkcs8_der(plain.as_bytes())
        .map_err(|_| KeyError::WrongPassphrase(path.to_owned()))
}

/// Reads a plain key, as the gatekeeper does when it starts; never asks anybody.
pub fn read_plain(path: &Path) -> Result<SigningKey, KeyError> {
    let text = read_text(path)?;
    require_private(path)?;
    SigningKey::from_pkcs8_pem(&text).map_err(|_| KeyError::NotAKey(path.to_owned()))
}

fn read_text(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let failed = |source| KeyError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(KeyError::NotAKey(path.to_owned()));
    }
    Ok(Zeroizing::new(fs::read_to_string(path).map_err(failed)?))
}

fn require_private(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| KeyError::Read { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(KeyError::OpenToOthers { path: path.to_owned(), mode })
    }
}

impl Passphrase {
    /// A passphrase as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself: for a token, which wants it as its PIN.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    fn long_enough(self) -> Result<Self, KeyError> {
        if self.0.chars().count() < MIN_PASSPHRASE { Err(KeyError::TooShort) } else { Ok(self) }
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

impl PassphraseSource {
    /// The passphrase that opens `path`.
    pub fn unlock(&self, path: &Path) -> Result<Passphrase, KeyError> {
        match self.known(PASSPHRASE_VARIABLE)? {
            Some(passphrase) => Ok(passphrase),
            None => ask(path, &format!("passphrase for {}: ", path.display())),
        }
    }

    /// A new passphrase for what will be `path`: long enough, and typed twice if typed.
    pub fn choose(&self, path: &Path) -> Result<Passphrase, KeyError> {
        self.choose_from(path, PASSPHRASE_VARIABLE)
    }

    /// A new passphrase in the place of an old one: the environment has a variable of its own for it.
    pub fn change(&self, path: &Path) -> Result<Passphrase, KeyError> {
        self.choose_from(path, NEW_PASSPHRASE_VARIABLE)
    }

    fn choose_from(&self, path: &Path, variable: &str) -> Result<Passphrase, KeyError> {
        if let Some(passphrase) = self.known(variable)? {
            return passphrase.long_enough();
        }
        let first =
            ask(path, &format!("new passphrase for {}: ", path.display()))?.long_enough()?;
        let second = ask(path, "the same again: ")?;
        if first.0 == second.0 { Ok(first) } else { Err(KeyError::Differ) }
    }

    fn known(&self, variable: &str) -> Result<Option<Passphrase>, KeyError> {
        match self {
            Self::Given(passphrase) => Ok(Some(passphrase.clone())),
            Self::File(path) => {
                let text = read_text(path)?;
                let line = text.lines().next().unwrap_or_default();
                Ok(Some(Passphrase::new(line)))
            }
            Self::EnvironmentOrPrompt => Ok(env::var(variable).ok().map(Passphrase::new)),
        }
    }
}

fn ask(path: &Path, prompt: &str) -> Result<Passphrase, KeyError> {
    if !std::io::stdin().is_terminal() {
        return Err(KeyError::NobodyToAsk(path.to_owned()));
    }
    rpassword::prompt_password(prompt).map(Passphrase::new).map_err(KeyError::Prompt)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_only() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let path = temp.path().join("ada.key");
        let key = generate();
        let good = Passphrase::new("correct horse battery");
        write(&path, &key, Protection::Encrypted(&good)).expect("written");
        let read_key = read(&path, &PassphraseSource::Given(good)).expect("opened");
        assert_eq!(read_key.to_bytes(), key.to_bytes());
        let bad = PassphraseSource::Given(Passphrase::new("incorrect horse"));
        assert!(matches!(read(&path, &bad), Err(KeyError::WrongPassphrase(_))));
        assert!(matches!(read_plain(&path), Err(KeyError::NotAKey(_))));
        let text = fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn openssl_reads_an_encrypted_key_and_finds_the_same_public_half() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (path, passphrase) = (temp.path().join("ada.key"), "correct horse battery");
        let key = generate();
        write(&path, &key, Protection::Encrypted(&Passphrase::new(passphrase))).expect("written");
        let output = Command::new("openssl")
            .args(["pkey", "-in"])
            .arg(&path)
            .args(["-passin", &format!("pass:{passphrase}"), "-pubout", "-outform", "DER"])
            .output()
            .expect("openssl is part of Debian's base for tests");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.ends_with(&key.verifying_key().to_bytes()));
    }

    #[test]
    fn a_plain_key_that_others_can_read_is_refused() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let path = temp.path().join("timestamp.key");
        let key = generate();
        write(&path, &key, Protection::Plain).expect("written");
        assert_eq!(read_plain(&path).expect("opened").to_bytes(), key.to_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(matches!(read_plain(&path), Err(KeyError::OpenToOthers { mode: 0o644, .. })));
    }

    #[test]
    fn a_key_file_is_never_overwritten_by_a_new_one() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let path = temp.path().join("a.key");
        write(&path, &generate(), Protection::Plain).expect("written");
        assert!(write(&path, &generate(), Protection::Plain).is_err());
    }

    #[test]
    fn a_short_new_passphrase_is_refused_and_a_file_gives_its_first_line() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let path = temp.path().join("passphrase");
        fs::write(&path, "correct horse battery\nsecond line\n").expect("written");
        let chosen = PassphraseSource::File(path.clone()).choose(&path).expect("long enough");
        assert_eq!(chosen.0.as_str(), "correct horse battery");
        fs::write(&path, "short\n").expect("written");
        assert!(matches!(
            PassphraseSource::File(path.clone()).choose(&path),
            Err(KeyError::TooShort)
        ));
    }
}
