//! A repository that is signed anew at each step, and the mirror that serves it. What is in it may be
//! as wrong as one likes: it is JSON until it is signed, and bytes from then on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use ed25519_dalek::{Signer as _, SigningKey};
use lockgate_agent::core::tuf::escape;
use lockgate_shared::time::Moment;
use lockgate_test_fleet::olpc::canonical;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use super::clients::Mirror;

/// 2027-01-15T08:00:00Z, when every case begins.
pub(crate) const START: i64 = 1_800_000_000;
pub(crate) const HOUR: i64 = 3_600;
pub(crate) const DAY: i64 = 24 * HOUR;

/// Every targets role of the base, in the order in which they are signed: leaves first.
pub(crate) const TARGETS_ROLES: [&str; 5] = ["beta", "app", "lib", "rest", "targets"];

/// Every path that is asked for.
pub(crate) const PATHS: [&str; 8] =
    ["top", "app/1", "app/2", "app/beta-1", "lib/1", "x/1", "x/2", "nowhere"];

/// Who signs a role, and under which key id.
#[derive(Debug, Clone)]
pub(crate) struct Hand {
    pub(crate) key_id: String,
    pub(crate) seed: u8,
}

impl Hand {
    pub(crate) fn of(seed: u8) -> Self {
        Self { key_id: key_id(seed), seed }
    }
}

/// What a parent says about the files below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pins {
    /// Version, length and hash.
    All,
    /// The version alone, as many repositories in the world have it.
    Version,
}

#[derive(Debug, Clone)]
pub(crate) struct Repository {
    /// The signed part of each role.
    pub(crate) roles: BTreeMap<String, Value>,
    pub(crate) hands: BTreeMap<String, Vec<Hand>>,
    pub(crate) mirror: Mirror,
    /// Everything that was ever served, by role, oldest first, with the version that it said it had.
    pub(crate) past: BTreeMap<String, Vec<(String, Vec<u8>)>>,
    /// Every payload that a role was ever made to list under a path.
    pub(crate) listed: BTreeSet<(String, Vec<u8>)>,
    pub(crate) pins: Pins,
    pub(crate) now: i64,
    /// What is done to the list of signatures of a role when it is signed.
    pub(crate) scribbles: BTreeMap<String, fn(&mut Vec<Value>)>,
}

impl Repository {
    /// Version 1 of everything: root keys 1 and 2 (one must sign), timestamp 3, snapshot 4, targets 5,
    /// and four delegated roles, one of them below another.
    pub(crate) fn new(pins: Pins, consistent: Value) -> Self {
        let mut repo = Self {
            roles: BTreeMap::new(),
            hands: BTreeMap::new(),
            mirror: Mirror::default(),
            past: BTreeMap::new(),
            listed: BTreeSet::new(),
            pins,
            now: START,
            scribbles: BTreeMap::new(),
        };
        for (role, kind) in [("root", "root"), ("timestamp", "timestamp"), ("snapshot", "snapshot")]
            .into_iter()
            .chain(TARGETS_ROLES.map(|role| (role, "targets")))
        {
            let signed = json!({"_type": kind, "spec_version": "1.0.31", "version": 0});
            repo.roles.insert(role.to_owned(), signed);
        }
        repo.role("root")["consistent_snapshot"] = consistent;
        repo.role("root")["keys"] = json!({});
        repo.role("root")["roles"] = json!({});
        repo.role("snapshot")["meta"] = json!({});
        for role in TARGETS_ROLES {
            repo.role(role)["targets"] = json!({});
        }
        repo.appoint("root", &[1, 2], 1);
        repo.appoint("timestamp", &[3], 1);
        repo.appoint("snapshot", &[4], 1);
        repo.appoint("targets", &[5], 1);
        repo.delegate("targets", "app", 6, &json!({"paths": ["app/*"]}));
        repo.delegate("targets", "lib", 7, &json!({"paths": ["lib/*", "app/2"]}));
        repo.delegate(
            "targets",
            "rest",
            8,
            &json!({"path_hash_prefixes": ["0", "1", "2", "3", "4",
            "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"]}),
        );
        repo.delegate("app", "beta", 9, &json!({"paths": ["app/beta-*"]}));
        for (role, path) in [
            ("targets", "top"),
            ("app", "app/1"),
            ("lib", "app/2"),
            ("beta", "app/beta-1"),
            ("lib", "lib/1"),
            ("rest", "x/1"),
            ("rest", "x/2"),
        ] {
            repo.add(role, path, format!("{path}, the first").as_bytes());
        }
        repo.publish("root");
        repo.release();
        repo
    }

    pub(crate) fn role(&mut self, role: &str) -> &mut Value {
        self.roles.get_mut(role).expect("a role of this repository")
    }

    /// Gives a top-level role these keys and hands. Takes effect when the root is published.
    pub(crate) fn appoint(&mut self, role: &str, seeds: &[u8], threshold: u64) {
        let root = self.role("root");
        for &seed in seeds {
            root["keys"][key_id(seed)] = key_json(seed);
        }
        let ids: Vec<String> = seeds.iter().map(|&seed| key_id(seed)).collect();
        root["roles"][role] = json!({"keyids": ids, "threshold": threshold});
        self.hands.insert(role.to_owned(), seeds.iter().map(|&seed| Hand::of(seed)).collect());
    }

    /// Appends a delegation with a key of its own; `scope` holds its `paths` or the like.
    pub(crate) fn delegate(&mut self, from: &str, to: &str, seed: u8, scope: &Value) {
        let mut entry = json!({
            "name": to, "keyids": [key_id(seed)], "threshold": 1, "terminating": false,
        });
        for (name, value) in scope.as_object().expect("a map") {
            entry[name] = value.clone();
        }
        let delegator = self.role(from);
        if !delegator["delegations"]["roles"].is_array() {
            delegator["delegations"] = json!({"keys": {}, "roles": []});
        }
        delegator["delegations"]["keys"][key_id(seed)] = key_json(seed);
        delegator["delegations"]["roles"].as_array_mut().expect("a list").push(entry);
        self.hands.entry(to.to_owned()).or_insert_with(|| vec![Hand::of(seed)]);
    }

    /// Lists a target in a role and serves its bytes.
    pub(crate) fn add(&mut self, role: &str, path: &str, bytes: &[u8]) {
        let (short, long) = (sha256(bytes), hex::encode(Sha512::digest(bytes)));
        self.role(role)["targets"][path] =
            json!({"length": bytes.len(), "hashes": {"sha256": short}});
        self.listed.insert((path.to_owned(), bytes.to_vec()));
        let (folder, file) = path.rsplit_once('/').map_or(("", path), |(a, b)| (a, b));
        for name in [file.to_owned(), format!("{short}.{file}"), format!("{long}.{file}")] {
            let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            self.mirror.payloads.insert(name, bytes.to_vec());
        }
    }

    /// Raises a role's version and expiry and serves it.
    pub(crate) fn publish(&mut self, role: &str) {
        self.renew(role);
        self.serve(role);
    }

    /// Raises a role's version and expiry, unsigned yet.
    pub(crate) fn renew(&mut self, role: &str) {
        let days = match role {
            "root" => 365,
            "timestamp" => 1,
            "snapshot" => 7,
            _ => 90,
        };
        let expires = at(self.now + days * DAY);
        let version = self.role(role)["version"].as_u64().unwrap_or(0).saturating_add(1);
        self.role(role)["version"] = json!(version);
        self.role(role)["expires"] = json!(expires);
    }

    /// Publishes everything but the root.
    pub(crate) fn release(&mut self) {
        for role in TARGETS_ROLES.into_iter().chain(["snapshot", "timestamp"]) {
            self.publish(role);
        }
    }

    /// Signs a role as it stands, serves it, and names it in its parent.
    pub(crate) fn serve(&mut self, role: &str) {
        let bytes = self.signed(role);
        let version = self.roles[role]["version"].clone();
        let mut named = json!({"version": version});
        if self.pins == Pins::All {
            named["length"] = json!(bytes.len());
            named["hashes"] = json!({"sha256": sha256(&bytes)});
        }
        match role {
            "root" | "timestamp" => {}
            "snapshot" => self.role("timestamp")["meta"] = json!({"snapshot.json": named}),
            _ if self.roles["snapshot"]["meta"].is_object() => {
                self.role("snapshot")["meta"][format!("{role}.json")] = named;
            }
            _ => {}
        }
        for name in [format!("{}.{}.json", version, escape(role)), format!("{}.json", escape(role))]
        {
            self.mirror.files.insert(name, bytes.clone());
        }
        self.past.entry(role.to_owned()).or_default().push((version.to_string(), bytes));
    }

    /// The file under which a role is asked for now.
    pub(crate) fn file(&self, role: &str) -> String {
        let prefix = role == "root"
            || role != "timestamp" && self.roles["root"]["consistent_snapshot"] == json!(true);
        match prefix {
            true => format!("{}.{}.json", self.roles[role]["version"], escape(role)),
            false => format!("{}.json", escape(role)),
        }
    }

    fn signed(&self, role: &str) -> Vec<u8> {
        let signed = &self.roles[role];
        let message = canonical(signed);
        let mut signatures: Vec<Value> = self.hands[role]
            .iter()
            .map(|hand| json!({"keyid": hand.key_id, "sig": signature(hand.seed, &message)}))
            .collect();
        if let Some(scribble) = self.scribbles.get(role) {
            scribble(&mut signatures);
        }
        let file = json!({"signatures": signatures, "signed": signed});
        serde_json::to_vec_pretty(&file).expect("JSON")
    }
}

/// Hexadecimal signature of `message`. Remembered, because most roles are signed as they were before.
fn signature(seed: u8, message: &[u8]) -> String {
    thread_local! {
        static MADE: RefCell<HashMap<(u8, [u8; 32]), String>> = RefCell::new(HashMap::new());
    }
    let digest: [u8; 32] = Sha256::digest(message).into();
    MADE.with_borrow_mut(|made| {
        let sign = || hex::encode(key(seed).sign(message).to_bytes());
        made.entry((seed, digest)).or_insert_with(sign).clone()
    })
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn key_id(seed: u8) -> String {
    format!("key-{seed}")
}

pub(crate) fn key_json(seed: u8) -> Value {
    let public = hex::encode(key(seed).verifying_key().as_bytes());
    json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}})
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A moment as metadata writes it.
pub(crate) fn at(seconds: i64) -> String {
    Moment(seconds).to_string()
}
