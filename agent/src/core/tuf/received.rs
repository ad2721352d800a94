//! Metadata as it arrives, and the one way by which it becomes believed: [`verify`].

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_shared::time::Moment;
use serde::Deserialize;
use serde_json::Value;

use super::authority::Authority;
use super::error::{Malformed, TufError, quote};
use super::imprint::Imprint;
use super::json;
use super::metadata::{self, Document, Head, Named};

/// Most signatures of one file; honest ones have a handful.
const SIGNATURES_LIMIT: usize = 256;

/// Metadata that was read, but not believed.
pub(super) struct Received<D> {
    role: String,
    document: D,
    /// What the signatures cover: the canonical form of exactly the value `document` was read from.
    canonical: Vec<u8>,
    signatures: BTreeMap<String, String>,
}

impl<D: Document> Received<D> {
    /// Reads `bytes` as metadata of `role`.
    pub(super) fn read(role: &str, bytes: &[u8]) -> Result<Self, TufError> {
        let malformed = |source| TufError::Malformed { role: role.to_owned(), source };
        let (signed, signatures) = open(bytes).map_err(malformed)?;
        let canonical = json::canonical(&signed).ok_or_else(|| malformed(Malformed::Number))?;
        let document = metadata::read(signed).map_err(malformed)?;
        Ok(Self { role: role.to_owned(), document, canonical, signatures })
    }

    /// What it says, for checks that come before belief.
    pub(super) fn claimed(&self) -> &D {
        &self.document
    }

    /// Succeeds if `authority` signed it.
    pub(super) fn check(&self, authority: &Authority) -> Result<(), TufError> {
        authority.check(&self.role, &self.canonical, &self.signatures)
    }

    /// Believes it, if `authority` signed it.
    pub(super) fn verified_by(self, authority: &Authority) -> Result<D, TufError> {
        self.check(authority)?;
        Ok(self.document)
    }
}

/// Verified metadata, and what its bytes are recognised by.
#[derive(Debug, Clone)]
pub(super) struct Held<D> {
    pub(super) document: Arc<D>,
    pub(super) imprint: Imprint,
}

/// Reads and verifies `bytes` as metadata of `role` signed by `authority`.
pub(super) fn verify<D: Document>(
    role: &str,
    bytes: &[u8],
    authority: &Authority,
) -> Result<Held<D>, TufError> {
    let document = Received::read(role, bytes)?.verified_by(authority)?;
    Ok(Held { document: Arc::new(document), imprint: Imprint::of(bytes) })
}

impl<D: Document> Held<D> {
    /// Its version and expiry.
    pub(super) fn head(&self) -> Head {
        self.document.head()
    }

    /// Whether these are the bytes that a parent names.
    pub(super) fn is(&self, role: &str, named: &Named) -> bool {
        self.head().version == named.version && check_imprint(role, &self.imprint, named).is_ok()
    }

    /// Succeeds while it has not expired.
    pub(super) fn check_expiry(&self, role: &str, now: Moment) -> Result<(), TufError> {
        check_expiry(role, self.head(), now)
    }
}

/// Succeeds if `imprint` has the length and hashes that a parent names.
pub(super) fn check_imprint(role: &str, imprint: &Imprint, named: &Named) -> Result<(), TufError> {
    imprint.check_length(role, named.length)?;
    named.hashes.as_ref().map_or(Ok(()), |hashes| imprint.check_hashes(role, hashes))
}

/// Succeeds while `head` has not expired.
pub(super) fn check_expiry(role: &str, head: Head, now: Moment) -> Result<(), TufError> {
    if now < head.expires {
        return Ok(());
    }
    let Head { version, expires } = head;
    Err(TufError::Expired { role: role.to_owned(), version, expires, now })
}

/// Splits a file into its signed part and its signatures by key id.
fn open(bytes: &[u8]) -> Result<(Value, BTreeMap<String, String>), Malformed> {
    #[derive(Deserialize)]
    struct Envelope {
        signatures: Vec<Entry>,
        signed: Value,
    }
    #[derive(Deserialize)]
    struct Entry {
        keyid: String,
        sig: String,
    }
    let value = json::parse(bytes).map_err(|why| Malformed::Json(quote(&why)))?;
    let Envelope { signatures, signed } =
        serde_json::from_value(value).map_err(|e| Malformed::Field(quote(&e.to_string())))?;
    if signatures.len() > SIGNATURES_LIMIT {
        return Err(Malformed::TooManySignatures(SIGNATURES_LIMIT));
    }
    let mut by_key = BTreeMap::new();
    for Entry { keyid, sig } in signatures {
        if by_key.insert(keyid, sig).is_some() {
            return Err(Malformed::DuplicateSignature);
        }
    }
    Ok((signed, by_key))
}
