//! TUF roles as documents: keys, signatures and exact text. Signed is the canonical JSON of `tough`'s
//! schema; the text on disk is the same document, indented for people.
//!
//! It signs what it is given and decides nothing.

use std::{collections::HashMap, num::NonZeroU64};

use lockgate_shared::{
    id::{Digest, PublicKey},
    time::{Moment, Seconds},
};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tough::schema::{
    Hashes, Role, Signature, Signed, Target, Targets,
    decoded::{Decoded, Hex},
    key::{Ed25519Key, Ed25519Scheme, Key},
};

use crate::signer::{self, Signer, SignerError};

/// The version of the TUF specification that the metadata follows.
pub const SPEC_VERSION: &str = "1.0.0";

/// A key's id in TUF metadata.
pub type KeyId = Decoded<Hex>;

/// Why metadata cannot be written or read.
#[derive(Debug, Error)]
pub enum MetadataError {
    /// `tough` refuses it.
    #[error("TUF metadata: {0}")]
    Schema(String),
    /// There is no signature.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// Not JSON of this role.
    #[error("TUF metadata cannot be read")]
    Json(#[from] serde_json::Error),
    /// A moment beyond what can be written.
    #[error("`{0}` is no moment that metadata can hold")]
    Moment(Moment),
}

impl From<tough::schema::Error> for MetadataError {
    fn from(error: tough::schema::Error) -> Self {
        Self::Schema(error.to_string())
    }
}

/// A public key as TUF writes it.
pub fn tuf_key(key: &PublicKey) -> Key {
    Key::Ed25519 {
        keyval: Ed25519Key { public: key.0.to_vec().into(), _extra: HashMap::new() },
        scheme: Ed25519Scheme::Ed25519,
        _extra: HashMap::new(),
    }
}

/// The public key behind a TUF key, if it is an Ed25519 key.
pub fn public_key(key: &Key) -> Option<PublicKey> {
    match key {
        Key::Ed25519 { keyval, .. } => keyval.public.as_ref().try_into().ok().map(PublicKey),
        Key::Rsa { .. } | Key::Ecdsa { .. } | Key::EcdsaOld { .. } => None,
    }
}

/// A key's id: SHA-256 of its canonical JSON.
pub fn key_id(key: &PublicKey) -> Result<KeyId, MetadataError> {
    Ok(tuf_key(key).key_id()?)
}

/// Keys by their ids, as metadata lists them.
pub fn key_table<'a>(
    keys: impl IntoIterator<Item = &'a PublicKey>,
) -> Result<HashMap<KeyId, Key>, MetadataError> {
    keys.into_iter().map(|key| Ok((key_id(key)?, tuf_key(key)))).collect()
}

/// The ids of keys, in the order given.
pub fn key_ids<'a>(
    keys: impl IntoIterator<Item = &'a PublicKey>,
) -> Result<Vec<KeyId>, MetadataError> {
    keys.into_iter().map(key_id).collect()
}

/// A role not yet signed by anybody.
pub const fn unsigned<T>(signed: T) -> Signed<T> {
    Signed { signed, signatures: Vec::new() }
}

/// The bytes that are signed.
pub fn signed_bytes<T: Role>(role: &Signed<T>) -> Result<Vec<u8>, MetadataError> {
    Ok(role.signed.canonical_form()?)
}

/// Adds one signature; a second one with the same key replaces the first.
pub fn sign_role<T: Role>(role: &mut Signed<T>, key: &dyn Signer) -> Result<(), MetadataError> {
    let keyid = key_id(&key.public())?;
    let signature = signer::signed_by(key, &signed_bytes(role)?)?;
    let sig = signature.0.to_vec().into();
    role.signatures.retain(|signature| signature.keyid != keyid);
    role.signatures.push(Signature { keyid, sig });
    Ok(())
}

/// The document's text: sorted and indented, the same bytes for the same document.
pub fn to_text<T: Serialize>(role: &Signed<T>) -> Result<String, MetadataError> {
    // By way of a value, whose keys are sorted: tough's tables are not.
    let mut text = serde_json::to_string_pretty(&serde_json::to_value(role)?)?;
    text.push('\n');
    Ok(text)
}

/// Reads a document. Whether its signatures hold is the caller's to ask.
pub fn from_text<T: DeserializeOwned>(text: &[u8]) -> Result<Signed<T>, MetadataError> {
    Ok(serde_json::from_slice(text)?)
}

/// When metadata made at `now` expires.
pub fn expiry(now: Moment, span: Seconds) -> Result<jiff::Timestamp, MetadataError> {
    let end = now.plus(span);
    jiff::Timestamp::from_second(end.0).map_err(|_| MetadataError::Moment(end))
}

/// What metadata says of a target with these bytes.
pub fn target(bytes: &[u8]) -> Target {
    Target {
        length: bytes.len() as u64,
        hashes: Hashes { sha256: Digest::of(bytes).0.to_vec().into(), _extra: HashMap::new() },
        custom: HashMap::new(),
        _extra: HashMap::new(),
    }
}

/// What metadata says of the target of this path, if it lists it.
pub fn listed<'a>(targets: &'a Targets, path: &str) -> Option<&'a Target> {
    targets.targets.iter().find(|(name, _)| name.raw() == path).map(|(_, target)| target)
}

/// The SHA-256 that a target must have; none where metadata gives no whole one.
pub fn digest_of(target: &Target) -> Option<Digest> {
    target.hashes.sha256.as_ref().try_into().ok().map(Digest)
}

/// The path of a role's metadata in the repository.
pub fn metadata_path(role: &str, version: u64) -> String {
    format!("metadata/{version}.{role}.json")
}

/// The path of a target's file in a consistent snapshot.
pub fn target_path(path: &str, digest: &Digest) -> String {
    match path.rsplit_once('/') {
        Some((folder, file)) => format!("targets/{folder}/{digest}.{file}"),
        None => format!("targets/{digest}.{path}"),
    }
}

/// The first version of any role.
pub const FIRST: NonZeroU64 = NonZeroU64::MIN;

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use tough::schema::{RoleType, Targets};

    use super::*;

    #[test]
    fn the_same_document_is_always_the_same_text() {
        let expires = expiry(Moment(1_795_000_000), Seconds(60)).expect("a moment");
        let mut targets = Targets::new(SPEC_VERSION.into(), FIRST, expires);
        for n in 0..20 {
            let name = tough::TargetName::new(format!("a/{n}")).expect("a name");
            targets.add_target(name, target(&[n]));
        }
        let key = SigningKey::from_bytes(&[1; 32]);
        let (mut one, mut two) = (unsigned(targets.clone()), unsigned(targets));
        for role in [&mut one, &mut two] {
            sign_role(role, &key).expect("signed");
            sign_role(role, &key).expect("signed");
            assert_eq!(role.signatures.len(), 1);
        }
        let text = to_text(&one).expect("text");
        assert_eq!(text, to_text(&two).expect("text"));
        let again: Signed<Targets> = from_text(text.as_bytes()).expect("read");
        assert_eq!(again, one);
        assert_eq!(<Targets as Role>::TYPE, RoleType::Targets);
    }
}
