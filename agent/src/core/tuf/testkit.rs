//! A repository, a mirror of it that can be made hostile, and a device, all in memory.

use std::cell::Cell;
use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};
use lockgate_shared::time::Moment;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::json::canonical;
use super::updater::{Refreshed, Updater};
use super::{Fetch, FetchError, Floor, Store, StoreError, TargetInfo, TufError, escape};

/// 2027-01-15T08:00:00Z, when all tests begin.
pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const HOUR: i64 = 3_600;
pub(crate) const DAY: i64 = 24 * HOUR;

/// What each role's metadata is valid for.
pub(crate) const LIFETIMES: [(&str, i64); 4] =
    [("root", 365 * DAY), ("targets", 90 * DAY), ("snapshot", 7 * DAY), ("timestamp", DAY)];

thread_local! {
    static CHECKS: Cell<u64> = const { Cell::new(0) };
}

/// Called at each signature check.
pub(crate) fn count_check() {
    CHECKS.set(CHECKS.get() + 1);
}

/// Signature checks made by `act`.
pub(crate) fn checks(act: impl FnOnce()) -> u64 {
    let before = CHECKS.get();
    act();
    CHECKS.get() - before
}

/// A repository under construction, and the mirror that serves it.
#[derive(Clone)]
pub(crate) struct Repo {
    /// The signed part of each role.
    pub(crate) roles: BTreeMap<String, Value>,
    /// Who signs each role when it is published.
    pub(crate) signers: BTreeMap<String, Vec<SigningKey>>,
    /// What the mirror serves.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) payloads: BTreeMap<String, Vec<u8>>,
    /// What it answers instead.
    pub(crate) faults: BTreeMap<String, FetchError>,
    /// What it was asked for, in order.
    pub(crate) asked: Vec<String>,
    /// Whether the mirror sends more than it was asked for.
    pub(crate) endless: bool,
}

impl Repo {
    /// Version 1 of everything, one key a role: 1 root, 2 timestamp, 3 snapshot, 4 targets.
    pub(crate) fn new() -> Self {
        let mut repo = Self {
            roles: BTreeMap::new(),
            signers: BTreeMap::new(),
            files: BTreeMap::new(),
            payloads: BTreeMap::new(),
            faults: BTreeMap::new(),
            asked: Vec::new(),
            endless: false,
        };
        for (role, lifetime) in LIFETIMES {
            let signed = json!({
                "_type": role, "spec_version": "1.0.31", "version": 0, "expires": at(NOW + lifetime),
            });
            repo.roles.insert(role.to_owned(), signed);
        }
        repo.roles.entry("root".into()).and_modify(|root| {
            root["consistent_snapshot"] = json!(true);
            root["keys"] = json!({});
            root["roles"] = json!({});
        });
        repo.role("targets")["targets"] = json!({});
        repo.role("snapshot")["meta"] = json!({});
        for (seed, role) in [(1, "root"), (2, "timestamp"), (3, "snapshot"), (4, "targets")] {
            repo.appoint(role, &[seed], 1);
            repo.signers.insert(role.to_owned(), vec![key(seed)]);
        }
        repo.publish("root");
        repo.release();
        repo
    }

    pub(crate) fn role(&mut self, role: &str) -> &mut Value {
        self.roles.get_mut(role).expect("a role of this repository")
    }

    /// Gives a top-level role these keys and signers. Takes effect when the root is published.
    pub(crate) fn appoint(&mut self, role: &str, seeds: &[u8], threshold: u64) {
        let root = self.role("root");
        for &seed in seeds {
            root["keys"][key_id(seed)] = key_json(seed);
        }
        let ids: Vec<String> = seeds.iter().map(|&seed| key_id(seed)).collect();
        root["roles"][role] = json!({"keyids": ids, "threshold": threshold});
        if role != "root" {
            self.signers.insert(role.to_owned(), seeds.iter().map(|&seed| key(seed)).collect());
        }
    }

    /// Adds a delegation with a key of its own, and the role behind it at version 0.
    pub(crate) fn delegate(&mut self, from: &str, to: &str, seed: u8, paths: &[&str]) {
        let entry = json!({
            "name": to, "keyids": [key_id(seed)], "threshold": 1, "terminating": false, "paths": paths,
        });
        let delegator = self.role(from);
        if delegator.get("delegations").is_none() {
            delegator["delegations"] = json!({"keys": {}, "roles": []});
        }
        delegator["delegations"]["keys"][key_id(seed)] = key_json(seed);
        delegator["delegations"]["roles"].as_array_mut().expect("a list").push(entry);
        self.signers.entry(to.to_owned()).or_default().push(key(seed));
        self.roles.entry(to.to_owned()).or_insert_with(|| {
            json!({
                "_type": "targets", "spec_version": "1.0.31", "version": 0,
                "expires": at(NOW + 90 * DAY), "targets": {},
            })
        });
    }

    /// Lists a target in a role and serves its bytes.
    pub(crate) fn add(&mut self, role: &str, path: &str, bytes: &[u8]) {
        let hash = hex::encode(Sha256::digest(bytes));
        self.role(role)["targets"][path] = json!({
            "length": bytes.len(), "hashes": {"sha256": hash}, "custom": {"from": role},
        });
        let file = match path.rsplit_once('/') {
            Some((folder, file)) => format!("{folder}/{hash}.{file}"),
            None => format!("{hash}.{path}"),
        };
        self.payloads.insert(file, bytes.to_vec());
    }

    /// Raises a role's version, signs it, serves it, and names it in its parent.
    pub(crate) fn publish(&mut self, role: &str) {
        let version = self.version(role).checked_add(1).expect("room for another version");
        self.role(role)["version"] = json!(version);
        self.serve(role);
    }

    /// Signs and serves a role as it stands, and names it in its parent.
    pub(crate) fn serve(&mut self, role: &str) {
        let bytes = self.signed(role);
        let named = json!({
            "version": self.version(role),
            "length": bytes.len(),
            "hashes": {"sha256": hex::encode(Sha256::digest(&bytes))},
        });
        match role {
            "root" | "timestamp" => {}
            "snapshot" => self.role("timestamp")["meta"] = json!({"snapshot.json": named}),
            _ => self.role("snapshot")["meta"][format!("{role}.json")] = named,
        }
        let name = self.file(role);
        self.files.insert(name, bytes);
    }

    /// Publishes targets, snapshot and timestamp.
    pub(crate) fn release(&mut self) {
        for role in ["targets", "snapshot", "timestamp"] {
            self.publish(role);
        }
    }

    pub(crate) fn version(&self, role: &str) -> u64 {
        self.roles[role]["version"].as_u64().expect("a version")
    }

    /// The name under which the role is served now.
    pub(crate) fn file(&self, role: &str) -> String {
        match role {
            "timestamp" => "timestamp.json".to_owned(),
            _ => format!("{}.{}.json", self.version(role), escape(role)),
        }
    }

    /// A role's file, signed by its signers.
    pub(crate) fn signed(&self, role: &str) -> Vec<u8> {
        sign(&self.roles[role], &self.signers[role])
    }

    pub(crate) fn anchor(&self) -> Vec<u8> {
        self.files["1.root.json"].clone()
    }

    /// Serves other bytes as a file or a payload that it has.
    pub(crate) fn spoil(&mut self, name: &str, bytes: &[u8]) {
        let payload = self.payloads.contains_key(name);
        let map = if payload { &mut self.payloads } else { &mut self.files };
        assert!(map.insert(name.to_owned(), bytes.to_vec()).is_some(), "`{name}` was not served");
    }
}

impl Fetch for Repo {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        self.asked.push(name.to_owned());
        if self.endless {
            return Ok(vec![b' '; usize::try_from(max).expect("a limit that fits") + 1]);
        }
        if let Some(fault) = self.faults.get(name) {
            return Err(fault.clone());
        }
        bounded(self.files.get(name), max)
    }

    fn target(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        self.asked.push(path.to_owned());
        if self.endless {
            return Ok(vec![b' '; usize::try_from(max).expect("a limit that fits") + 1]);
        }
        bounded(self.payloads.get(path), max)
    }
}

fn bounded(file: Option<&Vec<u8>>, max: u64) -> Result<Vec<u8>, FetchError> {
    let bytes = file.ok_or(FetchError::NotFound)?;
    if bytes.len() as u64 > max {
        return Err(FetchError::TooLong { limit: max });
    }
    Ok(bytes.clone())
}

/// A device: its pinned root, its disk, and what runs on it.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Changes that still reach the disk before the power fails.
    pub(crate) power: Option<usize>,
    /// `save timestamp.json`, `remove snapshot.json`.
    pub(crate) log: Vec<String>,
}

pub(crate) struct Device {
    anchor: Vec<u8>,
    pub(crate) disk: Disk,
    pub(crate) floor: String,
    running: Option<Updater>,
}

impl Device {
    pub(crate) fn new(repo: &Repo) -> Self {
        let disk = Disk { files: BTreeMap::new(), power: None, log: Vec::new() };
        let floor = serde_json::to_string(&Floor::default()).expect("plain data");
        Self { anchor: repo.anchor(), disk, floor, running: None }
    }

    /// A device that has refreshed once.
    pub(crate) fn settled(repo: &mut Repo) -> Self {
        let mut device = Self::new(repo);
        device.refresh(repo, NOW).expect("an honest repository");
        repo.asked.clear();
        device
    }

    /// Another device with the same disk.
    pub(crate) fn twin(&self) -> Self {
        let (anchor, disk, floor) = (self.anchor.clone(), self.disk.clone(), self.floor.clone());
        Self { anchor, disk, floor, running: None }
    }

    pub(crate) fn refresh(
        &mut self,
        source: &mut dyn Fetch,
        now: i64,
    ) -> Result<Refreshed, TufError> {
        let mut updater = self.start()?;
        let result = updater.refresh(source, &mut self.disk, Moment(now));
        self.floor = serde_json::to_string(updater.floor()).expect("plain data");
        self.running = Some(updater);
        result
    }

    pub(crate) fn find(
        &mut self,
        source: &mut dyn Fetch,
        path: &str,
        now: i64,
    ) -> Result<Option<TargetInfo>, TufError> {
        let mut updater = self.start()?;
        let result = updater.find_target(source, &mut self.disk, path, Moment(now));
        self.running = Some(updater);
        result
    }

    pub(crate) fn bytes(
        &mut self,
        source: &mut dyn Fetch,
        target: &TargetInfo,
    ) -> Result<Vec<u8>, TufError> {
        let updater = self.start()?;
        let result = updater.target_bytes(source, target);
        self.running = Some(updater);
        result
    }

    /// Ends the process; disk and floor stay.
    pub(crate) fn restart(&mut self) {
        self.running = None;
        self.disk.power = None;
    }

    pub(crate) fn root_version(&mut self) -> u64 {
        let updater = self.start().expect("a sound anchor");
        let version = updater.root_version();
        self.running = Some(updater);
        version
    }

    fn start(&mut self) -> Result<Updater, TufError> {
        match self.running.take() {
            Some(updater) => Ok(updater),
            None => {
                let floor = serde_json::from_str(&self.floor).expect("as written");
                Updater::open(&self.anchor, &mut self.disk, floor)
            }
        }
    }
}

impl Disk {
    fn change(&mut self, act: &'static str, name: &str) -> Result<(), StoreError> {
        if let Some(power) = &mut self.power {
            let Some(left) = power.checked_sub(1) else {
                let source = std::io::Error::other("the power failed");
                return Err(StoreError::Io { act, name: name.to_owned(), source });
            };
            *power = left;
        }
        self.log.push(format!("{act} {name}"));
        Ok(())
    }
}

impl Store for Disk {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.files.get(name).cloned())
    }

    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.change("save", name)?;
        self.files.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.change("remove", name)?;
        self.files.remove(name);
        Ok(())
    }
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// A key id that is no hash of the key, because it need not be one.
pub(crate) fn key_id(seed: u8) -> String {
    format!("key-{seed}")
}

pub(crate) fn key_json(seed: u8) -> Value {
    let public = hex::encode(key(seed).verifying_key().as_bytes());
    json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}})
}

/// A metadata file with one signature by each of `keys`.
pub(crate) fn sign(signed: &Value, keys: &[SigningKey]) -> Vec<u8> {
    let message = canonical(signed).expect("whole numbers");
    let signatures: Vec<Value> = keys
        .iter()
        .map(|key| {
            let sig = hex::encode(key.sign(&message).to_bytes());
            json!({"keyid": key_id(key.to_bytes()[0]), "sig": sig})
        })
        .collect();
    serde_json::to_vec_pretty(&json!({"signatures": signatures, "signed": signed})).expect("JSON")
}

/// A moment as metadata writes it.
pub(crate) fn at(seconds: i64) -> String {
    Moment(seconds).to_string()
}
