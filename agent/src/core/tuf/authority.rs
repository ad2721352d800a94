//! Who may sign a role: a set of keys, and how many of them must have signed.
//!
//! It counts keys by their material: one key listed under two key ids, or signing twice, is one.

use std::collections::{BTreeMap, BTreeSet};

use lockgate_shared::gather::gather;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::TufError;
use super::key::PublicKey;

/// Digest of an authority's keys and threshold: equal exactly when both are.
pub(super) type AuthorityId = [u8; 32];

/// The keys and the threshold of one role.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    threshold: u64,
    keys: BTreeMap<String, PublicKey>,
    id: AuthorityId,
}

impl Authority {
    /// Picks a role's keys out of those that its delegator lists. Key ids that lead nowhere, and
    /// keys that cannot be read, are left out.
    pub(super) fn new(threshold: u64, ids: &[String], listed: &BTreeMap<String, Value>) -> Self {
        let read = |id: &String| Some((id.clone(), PublicKey::read(listed.get(id)?)?));
        let keys: BTreeMap<String, PublicKey> = gather(ids.iter().filter_map(read));
        let id = identify(threshold, &keys);
        Self { threshold, keys, id }
    }

    /// What this authority is recognised by.
    pub(super) fn id(&self) -> AuthorityId {
        self.id
    }

    /// Succeeds if at least the threshold of different keys signed `message`.
    pub(super) fn check(
        &self,
        role: &str,
        message: &[u8],
        signatures: &BTreeMap<String, String>,
    ) -> Result<(), TufError> {
        if self.threshold == 0 {
            return Err(TufError::ZeroThreshold { role: role.to_owned() });
        }
        let mut signed: BTreeSet<Vec<u8>> = BTreeSet::new();
        for (id, key) in &self.keys {
            if signed.len() as u64 >= self.threshold {
                break;
            }
            let Some(signature) = signatures.get(id).and_then(|text| hex::decode(text).ok()) else {
                continue;
            };
            let material = key.material();
            if !signed.contains(&material) && key.verifies(message, &signature) {
                signed.insert(material);
            }
        }
        let valid = signed.len() as u64;
        if valid < self.threshold {
            let threshold = self.threshold;
            return Err(TufError::Signatures { role: role.to_owned(), valid, threshold });
        }
        Ok(())
    }
}

fn identify(threshold: u64, keys: &BTreeMap<String, PublicKey>) -> AuthorityId {
    let mut materials: BTreeSet<Vec<u8>> = BTreeSet::new();
    materials.extend(keys.values().map(PublicKey::material));
    let mut hasher = Sha256::new();
    hasher.update(threshold.to_be_bytes());
    for material in materials {
        hasher.update((material.len() as u64).to_be_bytes());
        hasher.update(&material);
    }
    hasher.finalize().into()
}
