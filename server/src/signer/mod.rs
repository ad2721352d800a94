//! What signs: a key in this process's memory, a key in a token behind PKCS#11, or another program.
//! Each is one [`Signer`], and each passes the same [`conformance`] suite.
//!
//! Whoever signs is not believed: [`signed_by`] verifies every signature with the public key before it
//! is used, so that a faulty token or a program with another key is an error here and not a refusal
//! on a million devices.

mod command;
pub mod conformance;
mod pkcs11;

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use ed25519_dalek::{SigningKey, VerifyingKey};
use lockgate_shared::{
    id::{PublicKey, Signature},
    sign::{self, Domain},
};
use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

pub use self::{
    command::{COMMAND_TIME, CommandSigner},
    pkcs11::{TokenAddress, TokenSigner},
};
use crate::keys::{self, KeyError, PassphraseSource};

/// The most bytes that are signed at once: the largest metadata of a role.
pub const MESSAGE_BYTES: usize = crate::tuf::METADATA_BYTES;

/// A private key, wherever it lies.
pub trait Signer: Send + Sync {
    /// Its public half.
    fn public(&self) -> PublicKey;

    /// An Ed25519 signature over exactly these bytes.
    fn sign(&self, bytes: &[u8]) -> Result<Signature, SignerError>;
}

/// A private key as an operator names it: `--key FILE`, `--key pkcs11:…`, `--key command:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRef {
    /// A file, as [`crate::keys`] reads them.
    File(PathBuf),
    /// A key in a token.
    Token(Box<TokenAddress>),
    /// A program and its arguments.
    Command(String),
}

/// What the name of a program begins with.
const COMMAND: &str = "command:";

impl KeyRef {
    /// Makes it ready to sign; asks for a passphrase or a PIN where it needs one.
    pub fn open(&self, passphrase: &PassphraseSource) -> Result<Box<dyn Signer>, SignerError> {
        match self {
            Self::File(path) => {
                let key = keys::read(path, passphrase);
                Ok(Box::new(key.map_err(|error| SignerError::Key(Box::new(error)))?))
            }
            Self::Token(address) => Ok(Box::new(TokenSigner::open(address, passphrase)?)),
            Self::Command(line) => Ok(Box::new(CommandSigner::open(line)?)),
        }
    }
}

impl FromStr for KeyRef {
    type Err = SignerError;

    fn from_str(text: &str) -> Result<Self, SignerError> {
        if text.starts_with(pkcs11::SCHEME) {
            return Ok(Self::Token(Box::new(text.parse()?)));
        }
        Ok(match text.strip_prefix(COMMAND) {
            Some(line) => Self::Command(line.to_owned()),
            None => Self::File(PathBuf::from(text)),
        })
    }
}

impl<'de> Deserialize<'de> for KeyRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Token(address) => write!(f, "{address}"),
            Self::Command(line) => write!(f, "{COMMAND}{line}"),
        }
    }
}

/// Why there is no signature.
#[derive(Debug, Error)]
pub enum SignerError {
    /// The key's file.
    #[error(transparent)]
    Key(Box<KeyError>),
    /// The PIN of a token.
    #[error(transparent)]
    Pin(Box<KeyError>),
    /// No program was named.
    #[error("no program is named\nhint: write `command:` and a program with its arguments")]
    NoProgram,
    /// The program could not be run, or ended badly.
    #[error("`{program}` did not sign")]
    Program {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program took too long.
    #[error("`{program}` did not answer within {} s", time.as_secs())]
    Late {
        /// The program.
        program: String,
        /// How long it had.
        time: Duration,
    },
    /// The program answered something else.
    #[error("`{program}` did not answer with {what}")]
    Answer {
        /// The program.
        program: String,
        /// What was expected.
        what: &'static str,
    },
    /// An address that names no key.
    #[error(
        "`{address}` names no key in a token: {why}\nhint: write it like `pkcs11:token=safe;object=root-1?module-path=/usr/lib/softhsm/libsofthsm2.so`"
    )]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The token or its module failed.
    #[error("the token of `{address}` failed")]
    Token {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: cryptoki::error::Error,
    },
    /// None, or more than one.
    #[error(
        "{count} {what} fit `{address}`, it must be one\nhint: name token, object or id more closely; `pkcs11-tool --keypairgen --key-type EC:edwards25519` makes a key"
    )]
    HowMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The address.
        address: String,
    },
    /// Another kind of key.
    #[error("the key of `{address}` is not an Ed25519 key")]
    NotEd25519 {
        /// The address.
        address: String,
    },
    /// More than is signed at once.
    #[error("{0} bytes are to be signed, at most {MESSAGE_BYTES} are")]
    TooLarge(usize),
    /// The signature does not hold.
    #[error(
        "what signs for the public key {0} gave a signature that does not hold\nhint: check that it has the private key that belongs to this public key"
    )]
    DoesNotHold(PublicKey),
}

/// A signature over bytes, verified.
pub fn signed_by(signer: &dyn Signer, bytes: &[u8]) -> Result<Signature, SignerError> {
    if bytes.len() > MESSAGE_BYTES {
        return Err(SignerError::TooLarge(bytes.len()));
    }
    let (public, signature) = (signer.public(), signer.sign(bytes)?);
    let holds = VerifyingKey::from_bytes(&public.0).is_ok_and(|key| {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(bytes, &signature).is_ok()
    });
    if holds { Ok(signature) } else { Err(SignerError::DoesNotHold(public)) }
}

/// A signature over bytes for one purpose, verified.
pub fn signed_for(
    signer: &dyn Signer,
    domain: Domain,
    bytes: &[u8],
) -> Result<Signature, SignerError> {
    signed_by(signer, &sign::message(domain, bytes))
}

impl Signer for SigningKey {
    fn public(&self) -> PublicKey {
        sign::public(self)
    }

    fn sign(&self, bytes: &[u8]) -> Result<Signature, SignerError> {
        Ok(Signature(ed25519_dalek::Signer::sign(self, bytes).to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_memory_signs_like_any_signer() {
        conformance::check(&keys::generate());
    }

    #[test]
    fn who_signs_with_another_key_than_it_says_is_found_out() {
        struct Liar(SigningKey, PublicKey);
        impl Signer for Liar {
            fn public(&self) -> PublicKey {
                self.1
            }
            fn sign(&self, bytes: &[u8]) -> Result<Signature, SignerError> {
                self.0.sign(bytes)
            }
        }
        let liar = Liar(keys::generate(), keys::generate().public());
        assert!(matches!(signed_by(&liar, b"bytes"), Err(SignerError::DoesNotHold(_))));
    }

    #[test]
    fn a_key_is_named_by_its_file_its_token_or_its_program() {
        for text in [
            "people/ada.key",
            "pkcs11:object=ada?module-path=/m.so",
            "command:/usr/local/bin/vault sign ada",
        ] {
            assert_eq!(text.parse::<KeyRef>().expect("a key").to_string(), text);
        }
    }
}
