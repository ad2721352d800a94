//! TUF metadata through the agent's client: as it comes from a stranger, and signed by a thief who
//! holds every key, so that what stands behind the signatures is reached too.

use std::collections::BTreeMap;

use ed25519_dalek::{Signer as _, SigningKey};
use lockgate_agent::core::tuf::{
    Fetch, FetchError, Floor, Store, StoreError, TARGETS_LIMIT, Updater,
};
use lockgate_shared::time::Moment;
use serde_json::{Value, json};

use crate::olpc::canonical;

/// 2027-01-15T08:00:00Z.
const NOW: Moment = Moment(1_800_000_000);
/// The target that is looked for, and what is served in its place.
const TARGET: (&str, &[u8]) = ("app/1", b"one");

/// Bytes in place of the anchor, and of every file after it.
pub fn metadata_raw(bytes: &[u8]) {
    let mut store = Disk::default();
    let _ = Updater::open(bytes, &mut store, Floor::default());
    let mut fetch = Same(bytes);
    let mut updater = open(&mut store);
    let root = updater.root_version();
    if updater.refresh(&mut fetch, &mut store, NOW).is_ok() {
        panic!("no one file is a whole repository");
    }
    assert_eq!(updater.root_version(), root, "what the root's key did not sign is no root");
}

/// A map of roles to what is to be signed of each, all of it by the right key.
pub fn metadata_signed(bytes: &[u8]) {
    let Ok(Value::Object(roles)) = serde_json::from_slice(bytes) else { return };
    let mut served = Served::default();
    for (role, signed) in roles {
        let name = if role == "root" { "2.root.json".to_owned() } else { format!("{role}.json") };
        served.0.insert(name, sign(&signed));
    }
    let mut store = Disk::default();
    let mut updater = open(&mut store);
    if updater.refresh(&mut served, &mut store, NOW).is_err() {
        assert!(updater.status().is_none(), "a refresh that failed leaves nothing to go by");
        return;
    }
    if let Ok(Some(target)) = updater.find_target(&mut served, &mut store, TARGET.0, NOW)
        && let Ok(bytes) = updater.target_bytes(&mut served, &target)
    {
        assert_eq!(bytes.len() as u64, target.length(), "a target is as long as listed");
    }
}

/// The root that every case begins with: one key for every role.
pub fn anchor() -> Vec<u8> {
    let public = hex::encode(key().verifying_key().as_bytes());
    let role = json!({"keyids": ["k"], "threshold": 1});
    sign(&json!({
        "_type": "root", "spec_version": "1.0.31", "version": 1, "consistent_snapshot": false,
        "expires": "2030-01-01T00:00:00Z",
        "keys": {"k": {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}}},
        "roles": {"root": role, "timestamp": role, "snapshot": role, "targets": role},
    }))
}

fn open(store: &mut Disk) -> Updater {
    Updater::open(&anchor(), store, Floor::default()).expect("the anchor is sound")
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn sign(signed: &Value) -> Vec<u8> {
    let sig = hex::encode(key().sign(&canonical(signed)).to_bytes());
    json!({"signatures": [{"keyid": "k", "sig": sig}], "signed": signed}).to_string().into_bytes()
}

struct Same<'a>(&'a [u8]);

impl Fetch for Same<'_> {
    fn metadata(&mut self, _: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        bounded(Some(self.0), max)
    }

    fn target(&mut self, _: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        bounded(Some(self.0), max)
    }
}

#[derive(Default)]
struct Served(BTreeMap<String, Vec<u8>>);

impl Fetch for Served {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        bounded(self.0.get(name).map(Vec::as_slice), max)
    }

    fn target(&mut self, _: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        bounded(Some(TARGET.1), max)
    }
}

fn bounded(file: Option<&[u8]>, limit: u64) -> Result<Vec<u8>, FetchError> {
    match file {
        None => Err(FetchError::NotFound),
        Some(bytes) if bytes.len() as u64 > limit => Err(FetchError::TooLong { limit }),
        Some(bytes) => Ok(bytes.to_vec()),
    }
}

#[derive(Default)]
struct Disk(BTreeMap<String, Vec<u8>>);

impl Store for Disk {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(name).cloned())
    }

    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        assert!(!name.contains('/') && !name.starts_with('.') && name.len() <= 255, "{name:?}");
        assert!(bytes.len() as u64 <= TARGETS_LIMIT, "{name} is kept whole");
        self.0.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.0.remove(name);
        Ok(())
    }
}
