//! A small Lockgate for the engine's stories: a ceremony, people, devices, and a letter box that is a
//! list in memory.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    num::NonZeroU64,
    path::Path,
};

use ed25519_dalek::{Signer as _, SigningKey, pkcs8::EncodePrivateKey as _};
use lockgate_shared::{
    act::{Act, CohortSize, RiskClass, SignedAct, Start},
    bucket::Bucket,
    facts::Facts,
    group::{Habit, groups_of},
    id::{DeviceId, Digest, PublicKey, TokenId},
    limits,
    manifest::Manifest,
    policy::{Approvals, Person, Policy, Product, Role, Tenant},
    rollout::RolloutFile,
    sign,
    time::{Moment, Seconds},
    wire::{
        Enrolment, EnrolmentToken, Format, Letter, Outcome, OutcomeKind, OutcomeRecord, Outcomes,
        ProductState, RolloutView, SignedToken, SlotState, codec, decode_rollout_file,
    },
};
use serde_json::json;
use tempfile::TempDir;
use tough::{
    TargetName,
    schema::{
        DelegatedRole, Delegations, Hashes, PathPattern, PathSet, RoleKeys, RoleType, Root,
        Signature, Signed, Snapshot, Target, Targets, Timestamp,
        decoded::{Decoded, Hex},
        key::Key,
    },
};

use super::{
    Engine, Turn,
    source::{Batch, Reached, Source, SourceError},
};
use crate::{
    config::{Gatekeeper, OnlineKeySource},
    status::{About, Decision, FleetStatus, Status, Verdict},
    stream::{Entry, EntryKind, LetterRecord, Publication},
    tuf::metadata::target_path,
};

pub(super) const BEGIN: Moment = Moment(1_795_000_000);
const YEAR: Seconds = Seconds(365 * 86_400);

/// Keys by number: root 1, targets 2, snapshot 3, timestamp 4, rollouts 5, authors 11 and 12,
/// approvers 21 and 22, enrolment 31 and 33, devices from 100.
pub(super) fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

/// The letter box: a list, and what was reported to it.
#[derive(Debug, Default)]
pub(super) struct LetterBox {
    pub(super) entries: Vec<Entry>,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) status: Option<Status>,
    pub(super) fleets: Vec<FleetStatus>,
    pub(super) audit: Vec<String>,
    pub(super) broken: bool,
}

impl Source for LetterBox {
    fn pull(&mut self, reached: Reached, max: u32, _: u32) -> Result<Batch, SourceError> {
        if self.broken {
            return Err(SourceError::Refused("it is down".into()));
        }
        let from = usize::try_from(reached.from).expect("a small offset");
        let entries = self.entries.iter().skip(from).take(max as usize).cloned().collect();
        Ok(Batch { entries, head: self.entries.len() as u64 })
    }

    fn report(
        &mut self,
        verdicts: Vec<Verdict>,
        status: Status,
        audit: Vec<String>,
    ) -> Result<(), SourceError> {
        self.verdicts.extend(verdicts);
        self.fleets.extend(status.fleet.clone());
        self.status = Some(status);
        self.audit.extend(audit);
        Ok(())
    }
}

/// A gatekeeper with a letter box and a clock that the story moves.
pub(super) struct Yard {
    pub(super) folder: TempDir,
    pub(super) letters: LetterBox,
    pub(super) now: Moment,
    pub(super) policy: Policy,
    pub(super) engine: Option<Engine>,
}

/// A device of a story.
#[derive(Clone)]
pub(super) struct Phone {
    pub(super) key: SigningKey,
    pub(super) facts: Facts,
    pub(super) sequence: u64,
    pub(super) outcomes: Outcomes,
}

impl Yard {
    /// After the ceremony, with the gatekeeper's first start done.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let policy = policy();
        ceremony(folder.path(), &policy);
        let mut yard =
            Self { folder, letters: LetterBox::default(), now: BEGIN, policy, engine: None };
        yard.start_engine();
        yard
    }

    pub(super) fn start_engine(&mut self) {
        self.engine = None;
        let config = self.config();
        self.engine = Some(Engine::open(&config, self.now).expect("an engine"));
    }

    pub(super) fn config(&self) -> Gatekeeper {
        let at = |name: &str| self.folder.path().join(name);
        Gatekeeper {
            state: at("state"),
            repository: at("repository"),
            socket: at("socket"),
            keys: OnlineKeySource::Folder(at("online")),
            anchor: at("root.json"),
            tick_s: Seconds(60),
            timestamp_interval_s: Seconds(600),
            timestamp_expiry_s: Seconds(86_400),
            snapshot_expiry_s: Seconds(604_800),
            rollouts_expiry_s: Seconds(604_800),
        }
    }

    /// The engine's turns at this moment, until nothing is left to take.
    pub(super) fn turn(&mut self) {
        let now = self.now;
        for _ in 0..3 {
            let engine = self.engine.as_mut().expect("an engine");
            engine.turn(&mut self.letters, &|| now).expect("a turn");
        }
    }

    pub(super) fn one_turn(&mut self) -> Turn {
        let now = self.now;
        let engine = self.engine.as_mut().expect("an engine");
        engine.turn(&mut self.letters, &|| now).expect("a turn")
    }

    /// One gate tick later.
    pub(super) fn tick(&mut self) {
        self.now = self.now.plus(Seconds(60));
        self.turn();
    }

    pub(super) fn ticks(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.tick();
        }
    }

    pub(super) fn send(&mut self, kind: EntryKind, bytes: Vec<u8>) -> u64 {
        let offset = self.letters.entries.len() as u64;
        self.letters.entries.push(Entry { offset, received: self.now, kind, bytes });
        offset
    }

    pub(super) fn json<T: serde::Serialize>(&mut self, kind: EntryKind, value: &T) -> u64 {
        self.send(kind, serde_json::to_vec(value).expect("json"))
    }

    /// The gatekeeper's verdict about an entry.
    pub(super) fn verdict(&self, offset: u64) -> Option<(Decision, String)> {
        let about = About::Entry(offset);
        let verdict = self.letters.verdicts.iter().find(|verdict| verdict.about == about)?;
        Some((verdict.decision, verdict.reasons.join("; ")))
    }

    /// Sends, takes a turn, and expects a refusal with these words.
    pub(super) fn refused(&mut self, offset: u64, words: &str) {
        self.turn();
        let (decision, reasons) = self.verdict(offset).expect("a verdict");
        assert_eq!(decision, Decision::Refused, "{reasons}");
        assert!(reasons.contains(words), "{reasons:?} lacks {words:?}");
    }

    /// Sends, takes a turn, and expects it to be accepted; gives what is said of it.
    pub(super) fn accepted(&mut self, offset: u64) -> String {
        self.turn();
        let (decision, reasons) = self.verdict(offset).expect("a verdict");
        assert_eq!(decision, Decision::Accepted, "{reasons}");
        reasons
    }

    /// The state of everything, whose numbers fit together at any moment.
    pub(super) fn status(&self) -> Status {
        let status = self.engine.as_ref().expect("an engine").status(self.now);
        for stage in status.rollouts.iter().flat_map(|rollout| &rollout.stages) {
            let known = stage.confirmed + stage.rolled_back + stage.failed + stage.silent;
            assert!(stage.authorised <= stage.devices, "more are let in than there are: {stage:?}");
            assert!(known <= stage.treated, "more came to an end than began: {stage:?}");
        }
        status
    }

    pub(super) fn token(&self, enrolment_key: u8, uses: u32) -> SignedToken {
        let token = EnrolmentToken {
            repository: self.policy.repository.clone(),
            tenant: "acme".parse().expect("a name"),
            id: TokenId([enrolment_key; 16]),
            issued: BEGIN.minus(Seconds(60)),
            expires: BEGIN.plus(YEAR),
            uses,
        };
        SignedToken::make(&token, &key(enrolment_key)).expect("a token")
    }

    pub(super) fn enrol(&mut self, phone: &Phone, token: SignedToken) -> u64 {
        let enrolment = Enrolment {
            token,
            key: sign::public(&phone.key),
            sent: self.now,
            facts: phone.facts.clone(),
        };
        let sealed = enrolment.seal(Format::Binary, &phone.key).expect("sealed");
        self.send(EntryKind::Enrolment(Format::Binary), sealed.to_bytes().expect("bytes"))
    }

    /// Devices that are enrolled and have sent a first letter.
    pub(super) fn phones(&mut self, count: u8, model: &str) -> Vec<Phone> {
        let token = self.token(31, 1000);
        let first = 100 + u8::try_from(self.letters.entries.len() % 100).expect("small");
        (0..count)
            .map(|number| {
                let mut phone = Phone::new(first + number, model);
                self.enrol(&phone, token.clone());
                let letter = phone.letter(self);
                self.post(&mut phone, letter);
                phone
            })
            .collect()
    }

    pub(super) fn post(&mut self, phone: &mut Phone, letter: Letter) -> u64 {
        let sealed = letter.seal(Format::Binary, &phone.key).expect("sealed");
        self.send(EntryKind::Letter(Format::Binary), sealed.to_bytes().expect("bytes"))
    }

    /// The record that a letter box leaves of a letter, or makes up.
    pub(super) fn record(&mut self, phone: &Phone, sequence: u64) -> u64 {
        let record = LetterRecord { device: phone.id(), sequence, digest: Digest([0; 32]) };
        let bytes = codec::encode(&record, limits::LETTER_BYTES).expect("bytes");
        self.send(EntryKind::Record, bytes)
    }

    /// A letter that names the rollout.
    pub(super) fn sees(&mut self, phone: &mut Phone, start: &Start, treated: bool) -> u64 {
        let letter = phone.names(self, start, treated);
        self.post(phone, letter)
    }

    pub(super) fn ends(&mut self, phone: &mut Phone, start: &Start, kind: OutcomeKind) -> u64 {
        let letter = phone.tells(self, start, kind);
        self.post(phone, letter)
    }

    /// Publishes a release signed by these authors, as version `number` of the product's role.
    pub(super) fn release(&mut self, number: u64, versions: &[&str], authors: &[u8]) -> u64 {
        let publication = release(number, versions, authors);
        self.json(EntryKind::Publish, &publication)
    }

    pub(super) fn start(&self, version: &str, devices: u32) -> Start {
        Start {
            repository: self.policy.repository.clone(),
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            version: version.parse().expect("a version"),
            manifest: Digest::of(manifest(version).as_bytes()),
            moment: self.now,
            cohorts: vec![
                CohortSize { cohort: "early".parse().expect("a name"), devices: 0 },
                CohortSize { cohort: "general".parse().expect("a name"), devices },
            ],
            owner: "ben".parse().expect("a name"),
            risk: RiskClass::Routine,
            plan: Digest([0; 32]),
        }
    }

    /// A rollout that is a tick old, and the devices that read of it.
    pub(super) fn under_way(count: u8) -> (Self, Start, Vec<Phone>) {
        let mut yard = Self::new();
        let (start, phones) = yard.started(count);
        yard.tick();
        (yard, start, phones)
    }

    /// Ticks until somebody of the last stage may begin.
    pub(super) fn until_somebody_may_begin(&mut self) {
        while self.status().rollouts[0].stages[1].authorised == 0 {
            self.tick();
        }
    }

    /// A release that is published and started, and the devices that read of it.
    pub(super) fn started(&mut self, count: u8) -> (Start, Vec<Phone>) {
        let mut phones = self.phones(count, "Slate 3");
        let start = self.starts("1.1.0", &mut phones);
        (start, phones)
    }

    /// Publishes and starts a release, of which these devices read.
    pub(super) fn starts(&mut self, version: &str, phones: &mut [Phone]) -> Start {
        self.release(2, &[version], &[11, 12]);
        let start = self.start(version, u32::try_from(phones.len()).expect("few"));
        let offset = self.json(EntryKind::Act, &signed(&Act::Start(start.clone()), &[21, 22]));
        self.accepted(offset);
        for phone in phones {
            self.sees(phone, &start, false);
        }
        self.turn();
        start
    }

    /// The rollout file of a model, found and verified as a client does it: by tough's signatures,
    /// from root to timestamp to target.
    pub(super) fn file(&self, model: &str) -> Option<RolloutFile> {
        let repository = self.folder.path().join("repository");
        let read =
            |path: String| fs::read(repository.join(path)).expect("a file of the repository");
        let root: Signed<Root> =
            serde_json::from_slice(&read("metadata/1.root.json".into())).expect("root");
        let timestamp: Signed<Timestamp> =
            serde_json::from_slice(&read("metadata/timestamp.json".into())).expect("timestamp");
        root.signed.verify_role(&timestamp).expect("a signed timestamp");
        let named = &timestamp.signed.meta["snapshot.json"];
        let bytes = read(format!("metadata/{}.snapshot.json", named.version));
        assert_eq!(named.hashes.as_ref().expect("hashes").sha256, Digest::of(&bytes).0.to_vec());
        let snapshot: Signed<Snapshot> = serde_json::from_slice(&bytes).expect("snapshot");
        root.signed.verify_role(&snapshot).expect("a signed snapshot");
        let meta = |name: &str| snapshot.signed.meta[&format!("{name}.json")].version;
        let targets: Signed<Targets> =
            serde_json::from_slice(&read(format!("metadata/{}.targets.json", meta("targets"))))
                .expect("targets");
        root.signed.verify_role(&targets).expect("signed targets");
        let rollouts: Signed<Targets> =
            serde_json::from_slice(&read(format!("metadata/{}.rollouts.json", meta("rollouts"))))
                .expect("rollouts");
        let delegations = targets.signed.delegations.expect("delegations");
        delegations.verify_role(&rollouts, "rollouts").expect("signed rollouts");
        let facts = Phone::new(1, model).facts;
        let path = RolloutFile::path(&"app".parse().expect("a name"), &facts.model_id());
        let target =
            rollouts.signed.targets.get(&TargetName::new(path.clone()).expect("a name"))?;
        let digest = Digest(target.hashes.sha256.as_ref().try_into().expect("a digest"));
        let bytes = read(target_path(&path, &digest));
        assert_eq!(Digest::of(&bytes), digest);
        Some(decode_rollout_file(&bytes).expect("a rollout file"))
    }
}

impl Phone {
    pub(super) fn new(number: u8, model: &str) -> Self {
        let facts = Facts {
            vendor: "Acme".into(),
            model: model.into(),
            os_id: "debian".into(),
            firmware_version: "1.2".into(),
            ..Facts::default()
        };
        Self { key: key(number), facts, sequence: 0, outcomes: Outcomes::default() }
    }

    pub(super) fn id(&self) -> DeviceId {
        DeviceId::of_key(&sign::public(&self.key))
    }

    pub(super) fn letter(&mut self, yard: &Yard) -> Letter {
        self.sequence += 1;
        Letter {
            sequence: self.sequence,
            sent: yard.now,
            outcomes_count: self.outcomes.count,
            outcomes_digest: self.outcomes.digest,
            ..letter(self.id())
        }
    }

    /// A letter that names the rollout.
    pub(super) fn names(&mut self, yard: &Yard, start: &Start, treated: bool) -> Letter {
        let mut letter = self.letter(yard);
        letter.rollouts.push(self.view(start, treated));
        letter
    }

    /// A letter of a device that was let in, with what came of it.
    pub(super) fn tells(&mut self, yard: &Yard, start: &Start, kind: OutcomeKind) -> Letter {
        let outcome = self.outcome(start, kind, yard.now);
        let mut letter = self.names(yard, start, true);
        letter.outcomes.push(outcome);
        letter
    }

    pub(super) fn view(&self, start: &Start, treated: bool) -> RolloutView {
        RolloutView {
            rollout: start.rollout(),
            cohort: "general".parse().expect("a name"),
            bucket: Bucket::of(&start.manifest, &start.channel, &self.id()),
            habit: Habit::Unknown,
            groups: groups_of(&self.facts, Habit::Unknown).iter().map(|group| group.id).collect(),
            treated,
            reasons: Vec::new(),
        }
    }

    pub(super) fn outcome(
        &mut self,
        start: &Start,
        kind: OutcomeKind,
        at: Moment,
    ) -> OutcomeRecord {
        let outcome = Outcome {
            rollout: start.rollout(),
            product: start.product.clone(),
            version: start.version.clone(),
            kind,
            at,
            took: Seconds(5),
            detail: "as the story says".into(),
        };
        self.outcomes = self.outcomes.with(&outcome).expect("an outcome");
        OutcomeRecord { number: self.outcomes.count, outcome }
    }
}

/// A device's first letter, of one product that runs nothing and has nothing to do.
pub(crate) fn letter(device: DeviceId) -> Letter {
    Letter {
        repository: "trial".parse().expect("a name"),
        tenant: "acme".parse().expect("a name"),
        device,
        sequence: 1,
        previous: Digest([0; 32]),
        sent: BEGIN,
        uptime: Seconds(60),
        agent: "0.1.0".parse().expect("a version"),
        facts_digest: Digest([0; 32]),
        facts: None,
        orders_digest: Digest([0; 32]),
        timestamp_version: 1,
        highest_stop: 0,
        products: vec![ProductState {
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            pin: lockgate_shared::pin::Pin::Latest,
            state: SlotState::Idle,
            running: None,
            running_manifest: None,
            other: None,
        }],
        rollouts: Vec::new(),
        beacons: Vec::new(),
        outcomes_count: 0,
        outcomes_digest: Digest([0; 32]),
        outcomes: Vec::new(),
        notices: Vec::new(),
    }
}

pub(super) fn signed(act: &Act, people: &[u8]) -> SignedAct {
    let mut signed = SignedAct::unsigned(act).expect("an act");
    for number in people {
        signed.sign(&key(*number));
    }
    signed
}

fn policy() -> Policy {
    let person = |keys: &[u8], roles: &[Role], tokens: &[&str]| Person {
        keys: keys.iter().map(|number| public(*number)).collect(),
        roles: roles.iter().copied().collect(),
        tokens: tokens.iter().map(ToString::to_string).collect(),
    };
    let name = |text: &str| text.parse().expect("a name");
    Policy {
        people: [
            (name("ada"), person(&[11], &[Role::Author], &[])),
            (name("abe"), person(&[12], &[Role::Author], &[])),
            (name("ben"), person(&[21], &[Role::Approver, Role::Operator], &["ben-laptop"])),
            (name("eva"), person(&[22], &[Role::Approver], &[])),
            (name("tom"), person(&[], &[Role::Administrator], &["tom-acme"])),
        ]
        .into(),
        tenants: [("acme", 31), ("globex", 33)]
            .map(|(tenant, number)| {
                let enrolment_keys = [public(number)].into();
                (tenant.parse().expect("a name"), Tenant { enrolment_keys, tenant_key: None })
            })
            .into(),
        products: [(
            "app".parse().expect("a name"),
            Product {
                channels: vec!["stable".parse().expect("a name")],
                cohorts: vec!["early".parse().expect("a name"), "general".parse().expect("a name")],
            },
        )]
        .into(),
        ..Policy::new(
            "trial".parse().expect("a name"),
            Approvals { start_routine: 2, ..Approvals::each(1) },
        )
    }
}

/// A release's manifest. The last stage of versions from 2 on is a randomised trial, in slots of a tick.
pub(crate) fn manifest(version: &str) -> String {
    let stage = |cohort: &str| {
        json!({
            "cohort": cohort, "floor_s": 0, "bake_s": 60,
            "gate": {
                "first_devices": 2, "growth": 2, "min_devices": 2, "small_stage": 10,
                "max_failure_ppm": 50_000, "confidence_ppm": 950_000, "silence_after_s": 600
            }
        })
    };
    let trial = json!({
        "cohort": "general", "floor_s": 0, "bake_s": 60,
        "trial": { "slot_s": 60, "min_devices": 5 }
    });
    let general = if version.starts_with("2.") { trial } else { stage("general") };
    let manifest = json!({
        "format": 1, "product": "app", "version": version, "severity": "routine",
        "artifacts": [{
            "kind": "app", "size": 10, "sha256": Digest([1; 32]),
            "files": [{ "path": "run", "kind": "file", "size": 3, "sha256": Digest([2; 32]), "executable": true }]
        }],
        "trial": {
            "probes": [{ "name": "runs", "kind": "process", "pidfile": "pid", "interval_s": 1 }],
            "soak_s": 5, "deadline_s": 60, "attempts": 3
        },
        "ladder": { "stages": [stage("early"), general] }
    });
    let text = serde_json::to_string_pretty(&manifest).expect("json");
    Manifest::from_json(text.as_bytes()).expect("a manifest");
    text
}

pub(super) fn release(number: u64, versions: &[&str], authors: &[u8]) -> Publication {
    let text = |version: &&str| (format!("releases/app/{version}.json"), manifest(version));
    published(number, versions.iter().map(text).collect(), authors)
}

/// The product's role as version `number`, with these files.
pub(super) fn published(number: u64, texts: Vec<(String, String)>, authors: &[u8]) -> Publication {
    let mut role = targets(number);
    role.delegations = None;
    for (path, text) in &texts {
        role.targets.insert(TargetName::new(path.clone()).expect("a name"), target(text));
    }
    Publication {
        role: "releases-app".into(),
        metadata: String::from_utf8(sign_role(role, authors)).expect("text"),
        targets: texts,
        with: Vec::new(),
    }
}

/// The first root, targets and product role; the policy; the online keys.
fn ceremony(folder: &Path, policy: &Policy) {
    use std::os::unix::fs::PermissionsExt as _;

    let root = root_role(1, 1, 3);
    let policy = serde_json::to_string_pretty(policy).expect("json");
    let targets = first_targets(1, &policy);
    let mut releases = self::targets(1);
    releases.delegations = None;
    let digest = Digest::of(policy.as_bytes());
    let files: BTreeMap<String, Vec<u8>> = [
        ("root.json".into(), sign_role(root.clone(), &[1])),
        ("repository/metadata/1.root.json".into(), sign_role(root, &[1])),
        ("repository/metadata/1.targets.json".into(), sign_role(targets, &[2])),
        ("repository/metadata/1.releases-app.json".into(), sign_role(releases, &[11, 12])),
        (format!("repository/targets/{digest}.policy.json"), policy.into_bytes()),
    ]
    .into();
    for (path, bytes) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, bytes).expect("a file");
    }
    fs::create_dir_all(folder.join("online")).expect("a folder");
    for (name, number) in [("snapshot", 3), ("timestamp", 4), ("rollouts", 5)] {
        let path = folder.join(format!("online/{name}.key"));
        let pem = key(number).to_pkcs8_pem(pkcs8::LineEnding::LF).expect("pem");
        fs::write(&path, pem.as_bytes()).expect("a key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    }
}

/// A root whose own key and whose snapshot's key are these.
pub(super) fn root_role(version: u64, root: u8, snapshot: u8) -> Root {
    let role = |keys: &[u8], threshold| RoleKeys {
        keyids: keys.iter().map(|number| key_id(*number)).collect(),
        threshold: NonZeroU64::new(threshold).expect("above zero"),
        _extra: HashMap::new(),
    };
    Root {
        spec_version: "1.0.0".into(),
        consistent_snapshot: true,
        version: NonZeroU64::new(version).expect("above zero"),
        expires: stamp(),
        keys: (1..=9).map(|number| (key_id(number), tuf_key(number))).collect(),
        roles: [
            (RoleType::Root, role(&[root], 1)),
            (RoleType::Targets, role(&[2], 1)),
            (RoleType::Snapshot, role(&[snapshot], 1)),
            (RoleType::Timestamp, role(&[4], 1)),
        ]
        .into(),
        _extra: HashMap::new(),
    }
}

pub(super) fn first_targets(version: u64, policy: &str) -> Targets {
    let delegate = |name: &str, path: &str, keys: &[u8]| DelegatedRole {
        name: name.into(),
        keyids: keys.iter().map(|number| key_id(*number)).collect(),
        threshold: NonZeroU64::new(keys.len() as u64).expect("above zero"),
        paths: PathSet::Paths(vec![PathPattern::new(path).expect("a pattern")]),
        terminating: true,
        targets: None,
    };
    let mut role = targets(version);
    role.targets.insert(TargetName::new("policy.json").expect("a name"), target(policy));
    role.delegations = Some(Delegations {
        keys: [5, 11, 12].into_iter().map(|number| (key_id(number), tuf_key(number))).collect(),
        roles: vec![
            delegate("releases-app", "releases/app/*", &[11, 12]),
            delegate("rollouts", "rollouts/*/*", &[5]),
        ],
    });
    role
}

pub(super) fn sign_role<T: tough::schema::Role>(role: T, keys: &[u8]) -> Vec<u8> {
    let bytes = role.canonical_form().expect("canonical");
    let signatures = keys
        .iter()
        .map(|number| Signature {
            keyid: key_id(*number),
            sig: key(*number).sign(&bytes).to_bytes().to_vec().into(),
        })
        .collect();
    serde_json::to_vec_pretty(&Signed { signed: role, signatures }).expect("json")
}

fn targets(version: u64) -> Targets {
    Targets::new("1.0.0".into(), NonZeroU64::new(version).expect("above zero"), stamp())
}

fn target(text: &str) -> Target {
    Target {
        length: text.len() as u64,
        hashes: Hashes {
            sha256: Digest::of(text.as_bytes()).0.to_vec().into(),
            _extra: HashMap::new(),
        },
        custom: HashMap::new(),
        _extra: HashMap::new(),
    }
}

fn stamp() -> jiff::Timestamp {
    jiff::Timestamp::from_second(BEGIN.plus(YEAR).0).expect("a moment")
}

fn public(number: u8) -> PublicKey {
    sign::public(&key(number))
}

fn tuf_key(number: u8) -> Key {
    serde_json::from_value(json!({
        "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": public(number) }
    }))
    .expect("a key")
}

fn key_id(number: u8) -> Decoded<Hex> {
    tuf_key(number).key_id().expect("an id")
}
