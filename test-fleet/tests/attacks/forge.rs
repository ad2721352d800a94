//! A repository made by somebody who holds as many keys as an entry grants: every role as a document
//! that can be changed at will, signed with this suite's own code by whichever keys a test names.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use ed25519_dalek::{Signer as _, SigningKey};
use lockgate_server::{ceremony::metadata::key_id, clock, release::pack::pack};
use lockgate_shared::{
    act::{Act, CohortSize, RiskClass, SignedAct, Start},
    bucket::Limit,
    facts::Facts,
    group::KnownGroups,
    id::{Digest, ModelId, ProductId, RolloutId, Signature},
    manifest::{
        Artifact, ArtifactKind, Gate, GateRule, Ladder, Manifest, Probe, ProbeKind, Stage,
        StageApproval, Trial,
    },
    rollout::{OpenStage, RolloutEntry, RolloutFile},
    sign,
    time::{Moment, Seconds},
    wire::encode_rollout_file,
};
use lockgate_test_fleet::{
    hostile::{Asked, Reply},
    olpc::canonical,
    world::{PROFILES, World, app},
};
use serde_json::{Value, json};

/// The product that devices run here.
pub(crate) const PRODUCT: &str = "tools";
/// A day in seconds.
pub(crate) const DAY: u64 = 86_400;
/// The online roles and the keys that sign them.
pub(crate) const ONLINE: [&str; 3] = ["timestamp", "snapshot", "rollouts"];

/// How many letters the next rollout file claims to have counted.
static COUNTED: AtomicU64 = AtomicU64::new(1 << 40);

/// A repository under construction, and what a hostile server makes of it.
#[derive(Clone)]
pub(crate) struct Forge {
    keys: Arc<BTreeMap<String, SigningKey>>,
    /// The signed part of each role.
    pub(crate) roles: BTreeMap<String, Value>,
    /// Everything below `/repo/`.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Artifacts by their digest.
    pub(crate) artifacts: BTreeMap<String, Vec<u8>>,
    /// The rollout file of each product.
    pub(crate) rollouts: BTreeMap<String, RolloutFile>,
    /// How old the timestamp pretends to be.
    pub(crate) age: Seconds,
}

/// A repository that a mind serves and a test changes.
pub(crate) type Shared = Arc<Mutex<Forge>>;

impl Forge {
    /// What the ceremony made, with every key.
    pub(crate) fn of(world: &World) -> Self {
        let mut keys = BTreeMap::new();
        for folder in ["offline", "people", "tenants", "online"] {
            for entry in fs::read_dir(world.path("ceremony").join(folder)).expect("keys").flatten()
            {
                let name = entry.file_name().to_string_lossy().into_owned();
                let key = match folder {
                    "online" => lockgate_server::keys::read_plain(&entry.path()).expect("a key"),
                    _ => world.key(&format!("{folder}/{name}")).expect("a key"),
                };
                keys.insert(name.trim_end_matches(".key").to_owned(), key);
            }
        }
        for number in 1..10_u8 {
            keys.insert(format!("thief-{number}"), SigningKey::from_bytes(&[200 + number; 32]));
            keys.insert(format!("next-{number}"), SigningKey::from_bytes(&[100 + number; 32]));
        }
        let mut forge = Self {
            keys: Arc::new(keys),
            roles: BTreeMap::new(),
            files: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            age: Seconds(0),
        };
        forge.take_in(&world.path("ceremony/repository"));
        forge.publish("rollouts");
        forge.chain();
        forge
    }

    fn take_in(&mut self, folder: &Path) {
        for part in ["metadata", "targets"] {
            for entry in fs::read_dir(folder.join(part)).expect("a folder").flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let bytes = fs::read(entry.path()).expect("a file");
                if part == "metadata" {
                    let role = name.trim_start_matches("1.").trim_end_matches(".json").to_owned();
                    let file: Value = serde_json::from_slice(&bytes).expect("JSON");
                    self.roles.insert(role, file["signed"].clone());
                }
                self.files.insert(format!("{part}/{name}"), bytes);
            }
        }
        let people: Vec<String> = self.roles.keys().cloned().collect();
        for role in ONLINE {
            self.roles.insert(role.to_owned(), empty(role));
        }
        for role in people {
            self.name(&role);
        }
    }

    /// A key by its name: `root-1`, `ada`, `timestamp`, `thief-1`.
    pub(crate) fn key(&self, name: &str) -> SigningKey {
        self.keys.get(name).unwrap_or_else(|| panic!("a key `{name}`")).clone()
    }

    /// A key's id in metadata.
    pub(crate) fn key_id(&self, name: &str) -> String {
        id_of(&self.key(name))
    }

    /// A key as metadata lists it.
    pub(crate) fn key_json(&self, name: &str) -> Value {
        let public = sign::public(&self.key(name)).to_string();
        json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}})
    }

    /// Who signs a role when nobody means harm.
    pub(crate) fn signers(role: &str) -> &'static [&'static str] {
        match role {
            "root" => &["root-1", "root-2"],
            "targets" => &["targets-1", "targets-2"],
            "timestamp" => &["timestamp"],
            "snapshot" => &["snapshot"],
            "rollouts" => &["rollouts"],
            _ => &["ada", "alan"],
        }
    }

    /// A role's document.
    pub(crate) fn role(&mut self, role: &str) -> &mut Value {
        self.roles.get_mut(role).unwrap_or_else(|| panic!("a role `{role}`"))
    }

    /// A role's version.
    pub(crate) fn version(&self, role: &str) -> u64 {
        self.roles[role]["version"].as_u64().expect("a version")
    }

    /// Sets when a role ends, counted from now.
    pub(crate) fn expires_in(&mut self, role: &str, seconds: i64) {
        let at = Moment(clock::now().0 + seconds).to_string();
        self.role(role)["expires"] = json!(at);
    }

    /// Raises a role's version, signs it as its signers would, serves it and names it in its parent.
    pub(crate) fn publish(&mut self, role: &str) {
        self.publish_by(role, Self::signers(role));
    }

    /// The same, signed by others.
    pub(crate) fn publish_by(&mut self, role: &str, by: &[&str]) {
        let version = self.version(role) + 1;
        self.role(role)["version"] = json!(version);
        self.serve(role, by);
    }

    /// Signs and serves a role as it stands, and names it in its parent.
    pub(crate) fn serve(&mut self, role: &str, by: &[&str]) {
        if role == "timestamp" {
            let issued = clock::now().minus(self.age).to_string();
            self.role(role)["issued"] = json!(issued);
        }
        let bytes = self.signed(role, by);
        let file = self.file(role);
        self.files.insert(file, bytes);
        self.name(role);
    }

    /// A role's file, signed by these keys.
    pub(crate) fn signed(&self, role: &str, by: &[&str]) -> Vec<u8> {
        let keys: Vec<SigningKey> = by.iter().map(|name| self.key(name)).collect();
        sign_value(&self.roles[role], &keys)
    }

    /// Where a role's file is served.
    pub(crate) fn file(&self, role: &str) -> String {
        match role {
            "timestamp" => "metadata/timestamp.json".to_owned(),
            _ => format!("metadata/{}.{role}.json", self.version(role)),
        }
    }

    /// A role's bytes as they are served.
    pub(crate) fn bytes(&self, role: &str) -> Vec<u8> {
        self.files[&self.file(role)].clone()
    }

    /// Names a role's served bytes in its parent.
    pub(crate) fn name(&mut self, role: &str) {
        let (parent, entry) = match role {
            "root" | "timestamp" => return,
            "snapshot" => ("timestamp", "snapshot.json".to_owned()),
            _ => ("snapshot", format!("{role}.json")),
        };
        let bytes = self.bytes(role);
        let named = json!({
            "version": self.version(role),
            "length": bytes.len(),
            "hashes": {"sha256": Digest::of(&bytes).to_string()},
        });
        self.role(parent)["meta"][entry] = named;
    }

    /// Gives a top-level role these keys; takes effect when the root is published.
    pub(crate) fn appoint(&mut self, role: &str, names: &[&str], threshold: u64) {
        let ids: Vec<String> = names.iter().map(|name| self.key_id(name)).collect();
        for name in names {
            let (id, key) = (self.key_id(name), self.key_json(name));
            self.role("root")["keys"][id] = key;
        }
        self.role("root")["roles"][role] = json!({"keyids": ids, "threshold": threshold});
    }

    /// The delegation to a role in targets.
    pub(crate) fn delegation(&mut self, role: &str) -> &mut Value {
        let roles = self.role("targets")["delegations"]["roles"].as_array_mut().expect("a list");
        roles.iter_mut().find(|one| one["name"] == role).expect("a delegation")
    }

    /// What a parent says of a role.
    pub(crate) fn named(&self, role: &str) -> Value {
        match role {
            "snapshot" => self.roles["timestamp"]["meta"]["snapshot.json"].clone(),
            _ => self.roles["snapshot"]["meta"][format!("{role}.json")].clone(),
        }
    }

    /// Has a parent say something else of a role; the parent is not published yet.
    pub(crate) fn misname(&mut self, role: &str, said: Value) {
        match role {
            "snapshot" => self.role("timestamp")["meta"]["snapshot.json"] = said,
            _ => self.role("snapshot")["meta"][format!("{role}.json")] = said,
        }
    }

    /// Publishes snapshot and timestamp.
    pub(crate) fn chain(&mut self) {
        self.publish("snapshot");
        self.publish("timestamp");
    }

    /// Lists a target in a role and serves its bytes; the role is not published yet.
    pub(crate) fn target(&mut self, role: &str, path: &str, bytes: &[u8]) {
        let digest = Digest::of(bytes).to_string();
        self.role(role)["targets"][path] =
            json!({"length": bytes.len(), "hashes": {"sha256": digest}});
        let file = match path.rsplit_once('/') {
            Some((folder, file)) => format!("targets/{folder}/{digest}.{file}"),
            None => format!("targets/{digest}.{path}"),
        };
        self.files.insert(file, bytes.to_vec());
    }

    /// Publishes a release as authors do. Gives its manifest's digest.
    pub(crate) fn release(&mut self, manifest: &Manifest) -> Digest {
        let role = format!("releases-{}", manifest.product);
        self.release_in(&role, manifest, &["ada", "alan"])
    }

    /// The same in another role, signed by others.
    pub(crate) fn release_in(&mut self, role: &str, manifest: &Manifest, by: &[&str]) -> Digest {
        let bytes = serde_json::to_vec(manifest).expect("JSON");
        let path = Manifest::path(&manifest.product, &manifest.version);
        self.target(role, &path, &bytes);
        self.publish_by(role, by);
        Digest::of(&bytes)
    }

    /// The start of a rollout, signed by people.
    pub(crate) fn start(&self, manifest: &Manifest, by: &[&str]) -> SignedAct {
        self.start_with(manifest, by, |_| ())
    }

    /// The same, changed before it is signed.
    pub(crate) fn start_with(
        &self,
        manifest: &Manifest,
        by: &[&str],
        change: impl FnOnce(&mut Start),
    ) -> SignedAct {
        let bytes = serde_json::to_vec(manifest).expect("JSON");
        let mut start = Start {
            repository: "trial".parse().expect("a name"),
            product: manifest.product.clone(),
            channel: "stable".parse().expect("a name"),
            version: manifest.version.clone(),
            manifest: Digest::of(&bytes),
            moment: clock::now().minus(Seconds(60)),
            cohorts: manifest
                .ladder
                .stages
                .iter()
                .map(|stage| CohortSize { cohort: stage.cohort.clone(), devices: 10 })
                .collect(),
            owner: "eva".parse().expect("a name"),
            risk: RiskClass::Routine,
            plan: Digest::of(b"plan"),
        };
        change(&mut start);
        self.act(&Act::Start(start), by)
    }

    /// An act, signed by these keys.
    pub(crate) fn act(&self, act: &Act, by: &[&str]) -> SignedAct {
        let mut signed = SignedAct::unsigned(act).expect("an act");
        for name in by {
            signed.sign(&self.key(name));
        }
        signed
    }

    /// An entry that opens every stage of a start to everybody since its moment.
    pub(crate) fn entry(start: SignedAct) -> RolloutEntry {
        let Ok(Act::Start(terms)) = start.unverified() else { panic!("a start") };
        let open = |size: &CohortSize| OpenStage {
            cohort: size.cohort.clone(),
            opened: terms.moment,
            limit: Limit::EVERYBODY,
            full: Some(terms.moment),
            groups: Vec::new(),
        };
        RolloutEntry {
            rollout: terms.rollout(),
            start,
            approvals: Vec::new(),
            stages: terms.cohorts.iter().map(open).collect(),
            groups: Vec::new(),
            known: KnownGroups::default(),
            coverage: Vec::new(),
            complete: None,
            ended: None,
        }
    }

    /// The rollout file of a product, to be changed; [`Forge::say`] publishes it.
    pub(crate) fn file_of(&mut self, product: &str) -> &mut RolloutFile {
        let product: ProductId = product.parse().expect("a name");
        self.rollouts.entry(product.to_string()).or_insert_with(|| RolloutFile {
            repository: "trial".parse().expect("a name"),
            product,
            model: model(),
            issued: clock::now(),
            letters_offset: 0,
            rollouts: Vec::new(),
            stops: Vec::new(),
            lifts: Vec::new(),
        })
    }

    /// Publishes the rollout files as they stand, and all that names them.
    pub(crate) fn say(&mut self) {
        self.put_files("rollouts");
        self.publish("rollouts");
        self.chain();
    }

    /// Lists the rollout files in a role, which is not published yet.
    pub(crate) fn put_files(&mut self, role: &str) {
        let issued = clock::now();
        for file in self.rollouts.values_mut() {
            file.issued = issued;
            // Beyond every letter, and later with each file.
            file.letters_offset = COUNTED.fetch_add(1, Ordering::Relaxed);
        }
        for file in self.rollouts.clone().values() {
            let bytes = encode_rollout_file(file).expect("a rollout file");
            self.target(role, &RolloutFile::path(&file.product, &file.model), &bytes);
        }
    }

    /// Releases a version and opens it to everybody, as everybody who must sign would.
    pub(crate) fn roll_out(&mut self, goods: &Goods) {
        self.artifacts.insert(goods.digest(), goods.archive.clone());
        self.release(&goods.manifest);
        let entry = Self::entry(self.start(&goods.manifest, &["ben", "eva"]));
        self.file_of(goods.manifest.product.as_str()).rollouts.push(entry);
        self.say();
    }

    /// What an honest server of this repository answers.
    pub(crate) fn answer(&self, asked: &Asked) -> Reply {
        let found = if let Some(path) = asked.path.strip_prefix("/repo/") {
            self.files.get(path)
        } else if let Some(digest) = asked.path.strip_prefix("/artifacts/") {
            self.artifacts.get(digest)
        } else {
            return Reply::Pass;
        };
        found.map_or_else(Reply::missing, |bytes| Reply::file(bytes.clone()))
    }
}

/// What an honest server of a shared repository answers.
pub(crate) fn honest(forge: &Shared, asked: &Asked) -> Reply {
    forge.lock().unwrap_or_else(PoisonError::into_inner).answer(asked)
}

/// A release: what is signed of it, and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Goods {
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// The archive that its artifact names.
    pub(crate) archive: Vec<u8>,
}

impl Goods {
    /// A version of the service, well made.
    pub(crate) fn new(version: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        app::write_version(folder.path(), version, &app::Behaviour::Well).expect("files");
        Self::of_folder(version, folder.path())
    }

    /// A version whose files are those of a folder.
    pub(crate) fn of_folder(version: &str, folder: &Path) -> Self {
        let mut archive = Vec::new();
        let packed = pack(folder, &mut archive).expect("packed");
        let artifact = Artifact {
            arch: None,
            os_ids: Default::default(),
            models: Default::default(),
            kind: ArtifactKind::App,
            size: packed.size,
            sha256: packed.sha256,
            files: packed.files,
        };
        Self { manifest: manifest(version, artifact), archive }
    }

    /// The artifact's digest.
    pub(crate) fn digest(&self) -> String {
        self.manifest.artifacts[0].sha256.to_string()
    }

    /// The rollout that a start of it begins.
    pub(crate) fn rollout(&self) -> RolloutId {
        let bytes = serde_json::to_vec(&self.manifest).expect("JSON");
        RolloutId::of(&Digest::of(&bytes), &"stable".parse().expect("a name"))
    }

    /// Takes the archive's bytes for what is signed, whatever they are.
    pub(crate) fn sealed(mut self) -> Self {
        self.manifest.artifacts[0].size = self.archive.len() as u64;
        self.manifest.artifacts[0].sha256 = Digest::of(&self.archive);
        self
    }
}

fn manifest(version: &str, artifact: Artifact) -> Manifest {
    let probe = Probe {
        name: "alive".into(),
        kind: ProbeKind::Process { pidfile: "app.pid".into() },
        interval_s: Seconds(1),
    };
    Manifest::new(
        (PRODUCT.parse().expect("a name"), version.parse().expect("a version")),
        vec![artifact],
        Trial { probes: vec![probe], soak_s: Seconds(1), deadline_s: Seconds(20), attempts: 3 },
        Ladder {
            stages: vec![stage("everyone")],
            timestamp_max_age_s: Seconds(3_600),
            coverage_max: 5,
        },
    )
}

/// A stage that lets everybody in at once.
pub(crate) fn stage(cohort: &str) -> Stage {
    Stage {
        cohort: cohort.parse().expect("a name"),
        ceiling_ppm: 1_000_000,
        floor_s: Seconds(0),
        bake_s: Seconds(0),
        approval: StageApproval::None,
        gate: Gate::Count(GateRule {
            first_devices: 100,
            growth: 1,
            min_devices: 1,
            small_stage: 1,
            max_failure_ppm: 999_999,
            confidence_ppm: 900_000,
            silence_after_s: Seconds(300),
        }),
    }
}

/// The hardware model of this suite's devices.
pub(crate) fn model() -> ModelId {
    let facts = Facts {
        vendor: PROFILES[0].vendor.into(),
        model: PROFILES[0].model.into(),
        ..Facts::default()
    };
    facts.model_id()
}

/// A document with one signature by each of these keys.
pub(crate) fn sign_value(signed: &Value, keys: &[SigningKey]) -> Vec<u8> {
    let signatures: Vec<(String, SigningKey)> =
        keys.iter().map(|key| (id_of(key), key.clone())).collect();
    sign_value_as(signed, &signatures)
}

/// The same under key ids of one's own choice.
pub(crate) fn sign_value_as(signed: &Value, keys: &[(String, SigningKey)]) -> Vec<u8> {
    let message = canonical(signed);
    let signatures: Vec<Value> = keys
        .iter()
        .map(|(id, key)| {
            let sig = Signature(key.sign(&message).to_bytes()).to_string();
            json!({"keyid": id, "sig": sig})
        })
        .collect();
    serde_json::to_vec_pretty(&json!({"signatures": signatures, "signed": signed})).expect("JSON")
}

fn id_of(key: &SigningKey) -> String {
    let id = key_id(&sign::public(key)).expect("a key");
    let id = serde_json::to_value(id).expect("JSON");
    id.as_str().expect("a text").to_owned()
}

/// A role that says nothing yet, at version 0.
fn empty(role: &str) -> Value {
    let expires = clock::now().plus(Seconds(DAY)).to_string();
    let mut document = json!({
        "_type": role, "spec_version": "1.0.0", "version": 0, "expires": expires,
    });
    match role {
        "timestamp" | "snapshot" => document["meta"] = json!({}),
        _ => {
            document["_type"] = json!("targets");
            document["targets"] = json!({});
        }
    }
    document
}
