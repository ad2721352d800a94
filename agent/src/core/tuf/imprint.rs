//! The length and hashes of bytes, and whether they are those that a parent named.
//!
//! Every known hash must agree; a list of unknown ones only is no proof and is refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256, Sha512};

use super::error::TufError;

/// What bytes are recognised by once they themselves are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Imprint {
    length: u64,
    sha256: [u8; 32],
    sha512: [u8; 64],
}

impl Imprint {
    /// The imprint of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len() as u64,
            sha256: Sha256::digest(bytes).into(),
            sha512: Sha512::digest(bytes).into(),
        }
    }

    /// Succeeds if the length, where named, is `length`.
    pub(super) fn check_length(&self, name: &str, length: Option<u64>) -> Result<(), TufError> {
        match length {
            Some(expected) if expected != self.length => {
                Err(TufError::Length { name: name.to_owned(), expected, found: self.length })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Succeeds if each known hash is right and at least one is known.
    pub(super) fn check_hashes(&self, name: &str, hashes: &Hashes) -> Result<(), TufError> {
        let mut known = false;
        for (algorithm, want) in &hashes.0 {
            let agrees = match algorithm.as_str() {
                "sha256" => hex::decode(want).is_ok_and(|want| want == self.sha256),
                "sha512" => hex::decode(want).is_ok_and(|want| want == self.sha512),
                _ => continue,
            };
            if !agrees {
                let algorithm = algorithm.clone();
                return Err(TufError::Hash { name: name.to_owned(), algorithm });
            }
            known = true;
        }
        if known { Ok(()) } else { Err(TufError::NoKnownHash { name: name.to_owned() }) }
    }
}

/// Hashes by algorithm, as metadata lists them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Hashes(BTreeMap<String, String>);

impl Hashes {
    /// The hash that a consistent snapshot puts before a target's file name, in lower case.
    pub(super) fn prefix(&self) -> Option<String> {
        let text = self.0.get("sha256").or_else(|| self.0.get("sha512"))?;
        // Through bytes and back, so that nothing but hexadecimal gets into a URL.
        hex::decode(text).ok().map(hex::encode)
    }

    /// The SHA-256, if listed.
    pub(super) fn sha256(&self) -> Option<[u8; 32]> {
        hex::decode(self.0.get("sha256")?).ok()?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_hash_must_agree_and_one_must_be_known() {
        let imprint = Imprint::of(b"bytes");
        let sha256 = hex::encode(Sha256::digest(b"bytes"));
        let sha512 = hex::encode(Sha512::digest(b"bytes"));
        let check = |list: &[(&str, &str)]| {
            let map = list.iter().map(|(a, h)| ((*a).to_owned(), (*h).to_owned())).collect();
            imprint.check_hashes("x", &Hashes(map)).is_ok()
        };
        assert!(check(&[("sha256", &sha256)]));
        assert!(check(&[("sha512", &sha512)]));
        assert!(check(&[("sha256", &sha256), ("sha512", &sha512), ("blake3", "00")]));
        assert!(!check(&[("sha256", &sha256), ("sha512", &sha256)]));
        assert!(!check(&[("sha256", &sha512), ("sha512", &sha512)]));
        assert!(!check(&[("sha256", &sha256[..62])]));
        assert!(!check(&[("blake3", &sha256)]));
        assert!(!check(&[]));
    }
}
