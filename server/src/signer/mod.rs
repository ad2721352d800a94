//! What signs: a key in this process's memory, a key in a token behind PKCS#11, or another program.
//! Each is one [`Signer`], and each passes the same [`conformance`] suite.
//!
//! Whoever signs is not believed: [`signed_by`] verifies every signature with the public key before it
//! is used, so that a faulty token or a program with another key is an error here and not a refusal
//! on a million devices.

use ed25519_dalek::{SigningKey, VerifyingKey};
use lockgate_shared::{
    id::{PublicKey, Signature},
    sign::{self, Domain},
};
use thiserror::Error;

/// The most bytes that are signed at once: the largest metadata of a role.
pub const MESSAGE_BYTES: usize = crate::tuf::METADATA_BYTES;

/// A private key, wherever it lies.
pub trait Signer: Send + Sync {
    /// Its public half.
    fn public(&self) -> PublicKey;

    /// An Ed25519 signature over exactly these bytes.
    fn sign(&self, bytes: &[u8]) -> Result<Signature, SignerError>;
}

/// Why there is no signature.
#[derive(Debug, Error)]
pub enum SignerError {
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
