//! A device for the stories of [`super`]: real decisions, a real journal and a real repository, with
//! slots, clock and server in memory.

use std::{cell::RefCell, collections::BTreeMap, fmt::Display, io::Read, rc::Rc};

use lockgate_shared::{
    act::{Act, CohortSize, Grant, RiskClass, SignedAct, Start},
    bucket::Limit,
    facts::Conditions,
    group::KnownGroups,
    id::{PublicKey, RolloutId},
    manifest::{Artifact, FileEntry, Manifest, Probe},
    policy::{Approvals, Person, Policy, Role as PolicyRole},
    recall::Recall,
    rollout::{OpenStage, RolloutEntry, RolloutFile, Scope, Stop, StopKind},
    wire::{
        Directive, Format, Letter, OutcomeKind, OutcomeRecord, Outcomes, Sealed,
        encode_rollout_file,
    },
};
use serde_json::json;

use crate::{
    core::{
        choice::tests as samples,
        machine::{Device, Fault, Plan, PlannedArtifact},
        trial::{Answer, Health, Said},
        tuf::{Another, Fetch as _, FetchError, testkit},
    },
    journal::power::{self, Cut},
    run::*,
    slots::{Contents, Slot},
    world::{Fate, Refusal},
};

/// A device, its server and its owner, in memory.
pub(super) struct Bench {
    pub(super) folder: tempfile::TempDir,
    pub(super) it: Rc<RefCell<It>>,
}

pub(super) struct It {
    pub(super) repo: testkit::Repo,
    pub(super) uptime: u64,
    pub(super) reachable: bool,
    pub(super) healthy: bool,
    pub(super) stop_at_fetch: bool,
    pub(super) disk_is_full: bool,
    pub(super) lose_answers: u32,
    pub(super) counted: bool,
    /// What the next answers tell.
    pub(super) orders: Option<Orders>,
    /// What was asked of the server, in order.
    pub(super) log: Vec<String>,
    pub(super) slots: BTreeMap<Slot, Contents>,
    pub(super) active: Slot,
    pub(super) fetches: u32,
    pub(super) letters: BTreeMap<u64, Vec<u8>>,
    pub(super) resent: u32,
    pub(super) replays: u32,
    pub(super) outcomes: BTreeMap<u64, OutcomeRecord>,
    pub(super) chain: Outcomes,
    pub(super) key: [u8; 32],
    pub(super) counter: super::age::OnPaper,
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut repo = testkit::Repo::new();
        let bytes = serde_json::to_vec(&manifest()).expect("json");
        repo.add("targets", "policy.json", &serde_json::to_vec(&policy()).expect("json"));
        repo.add("targets", "releases/app/1.1.0.json", &bytes);
        publish(&mut repo, vec![], 1);
        let contents = Contents { manifest: Digest([0; 32]), version: version("1.0.0") };
        let it = It {
            repo,
            uptime: 1000,
            reachable: true,
            healthy: true,
            stop_at_fetch: false,
            disk_is_full: false,
            lose_answers: 0,
            counted: false,
            orders: None,
            log: Vec::new(),
            slots: [(Slot::A, contents)].into(),
            active: Slot::A,
            fetches: 0,
            letters: BTreeMap::new(),
            resent: 0,
            replays: 0,
            outcomes: BTreeMap::new(),
            chain: Outcomes::default(),
            key: [42; 32],
            counter: super::age::OnPaper::default(),
        };
        // In memory where there is such a folder: what is tested is the order of writes, and a disk
        // syncs each of thousands.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { folder: folder.expect("a folder"), it: Rc::new(RefCell::new(it)) }
    }

    /// Publishes a release of which no rollout was started; gives its manifest's hash.
    pub(super) fn release(&self, text: &str) -> Digest {
        let bytes = serde_json::to_vec(&Manifest { version: version(text), ..manifest() });
        let bytes = bytes.expect("json");
        let path = format!("releases/app/{text}.json");
        self.with(|it| it.repo.add("targets", &path, &bytes));
        Digest::of(&bytes)
    }

    /// Recalls 1.1.0 to the release with this manifest.
    pub(super) fn recall(&self, manifest: Digest) {
        let recall = Recall { manifest, ..samples::recall("1.1.0", Moment(testkit::NOW)) };
        let bytes = serde_json::to_vec(&recall).expect("json");
        self.with(|it| {
            it.repo.add("targets", "releases/app/recall-1.1.0.json", &bytes);
            publish(&mut it.repo, vec![], 3000);
        });
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut It) -> T) -> T {
        look(&mut self.it.borrow_mut())
    }

    pub(super) fn start(&self) -> Result<Agent<World_>, RunError> {
        let anchor = self.with(|it| it.repo.anchor());
        let setup = Setup {
            state: self.folder.path().to_owned(),
            anchor,
            key: SigningKey::from_bytes(&self.with(|it| it.key)),
            counted: super::age::counted(&self.it),
            repository: "trial".parse().expect("a name"),
            tenant: "acme".parse().expect("a name"),
            agent: version("0.1.0"),
            poll: Seconds(30),
            windows: vec![],
            preferences: Preferences::default(),
            products: vec![Product {
                product: app(),
                channel: None,
                pin: Pin::Latest,
                role: Role::Other,
                performer: Box::new(OnPaper(Rc::clone(&self.it))),
            }],
        };
        Agent::open(World_(Rc::clone(&self.it)), setup)
    }

    /// Runs until the release is done with and its outcome heard; after a power cut the agent is
    /// started again. Says whether the power was cut.
    pub(super) fn run_until_settled(&self, cut: Cut) -> bool {
        power::set(cut);
        let mut was_cut = false;
        let mut agent = None;
        for _ in 0..200 {
            let turned = match agent.as_mut() {
                None => self.start().map(|opened| agent = Some(opened)),
                Some(agent) => agent.turn().map(drop),
            };
            self.check();
            if power::is_off() {
                was_cut = true;
                agent = None;
                power::set(Cut::Never);
                self.with(|it| it.uptime += 5);
            } else {
                turned.expect("with power, everything can be written");
            }
            let pause = agent.as_ref().map_or(1, |agent| agent.pause().0);
            let heard = self.with(|it| {
                it.uptime += pause;
                !it.outcomes.is_empty()
            });
            if heard
                && agent.as_ref().is_some_and(|agent| {
                    agent.journal.waiting().is_ok_and(|waiting| waiting == (0, 0))
                })
            {
                break;
            }
        }
        power::set(Cut::Never);
        was_cut
    }

    pub(super) fn turns(&self, agent: &mut Agent<World_>, count: u32) {
        for _ in 0..count {
            agent.turn().expect("a turn");
            self.check();
            let pause = agent.pause().0;
            self.with(|it| it.uptime += pause);
        }
    }

    pub(super) fn turn_until(&self, agent: &mut Agent<World_>, done: impl Fn(&It) -> bool) {
        for _ in 0..200 {
            if self.with(|it| done(it)) {
                return;
            }
            self.turns(agent, 1);
        }
        panic!("it never came to that: {:?}", agent.snapshot());
    }

    /// What must hold at any instant.
    pub(super) fn check(&self) {
        self.with(|it| assert!(it.slots.contains_key(&it.active), "an empty slot is active"));
    }

    pub(super) fn running(&self) -> String {
        self.with(|it| it.slots[&it.active].version.to_string())
    }

    pub(super) fn last_letter(&self) -> Letter {
        self.with(|it| open(it.letters.values().next_back().expect("a letter")))
    }

    pub(super) fn heard(&self) -> Vec<OutcomeKind> {
        self.with(|it| it.outcomes.values().map(|record| record.outcome.kind).collect())
    }
}

pub(super) struct World_(Rc<RefCell<It>>);

impl World for World_ {
    fn clock(&self) -> Moment {
        Moment(testkit::NOW + i64::try_from(self.0.borrow().uptime).expect("small"))
    }

    fn uptime(&self) -> Seconds {
        Seconds(self.0.borrow().uptime)
    }

    fn facts(&mut self) -> Facts {
        facts()
    }

    fn conditions(&mut self) -> Conditions {
        Conditions::default()
    }

    fn read(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        let mut it = self.0.borrow_mut();
        if !it.reachable {
            return Err(FetchError::Failed("no route".into()));
        }
        it.log.push(path.to_owned());
        match path.split_once('/').expect("a folder") {
            ("metadata", name) => it.repo.metadata(name, max),
            (_, path) => it.repo.target(path, max),
        }
    }

    fn refused(&mut self, _: &dyn Display) -> Another {
        Another::Nobody
    }

    fn behind(&mut self) -> Vec<Behind> {
        Vec::new()
    }

    fn check_in(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut it = self.0.borrow_mut();
        let lost = |text: &str| Refusal { fate: Fate::Keep, text: text.into(), retry_after: None };
        if !it.reachable || power::is_off() {
            return Err(lost("no route"));
        }
        it.log.push("letter".into());
        let letter = open(bytes);
        match it.letters.get(&letter.sequence) {
            Some(known) if *known == bytes => it.resent += 1,
            Some(_) => it.replays += 1,
            None => {}
        }
        it.letters.insert(letter.sequence, bytes.to_vec());
        for record in &letter.outcomes {
            if it.outcomes.insert(record.number, record.clone()).is_none() {
                it.chain = it.chain.with(&record.outcome).expect("small");
            }
        }
        assert_eq!(
            (letter.outcomes_count, letter.outcomes_digest),
            (it.chain.count, it.chain.digest)
        );
        if !it.counted && letter.rollouts.iter().any(|view| !view.groups.is_empty()) {
            it.counted = true;
            publish(&mut it.repo, vec![], 1000);
        }
        if it.lose_answers > 0 {
            it.lose_answers -= 1;
            return Err(lost("the answer was lost"));
        }
        let directive = Directive {
            acknowledged: letter.sequence,
            offset: 5,
            next_poll: Seconds(30),
            jitter: Seconds(3),
            backoff_max: Seconds(60),
            want_facts: false,
            server_time: Moment(testkit::NOW),
            orders: it.orders.clone(),
        };
        Ok(directive.to_bytes(Format::Binary).expect("small"))
    }

    fn payload<'a>(&'a mut self, _: &PlannedArtifact) -> Result<Box<dyn Read + 'a>, String> {
        Ok(Box::new(std::io::empty()))
    }

    fn wait(&mut self, span: Seconds) -> Woken {
        self.0.borrow_mut().uptime += span.0;
        Woken::Time
    }

    fn rest(&mut self) {}
}

struct OnPaper(Rc<RefCell<It>>);

impl OnPaper {
    /// Does something to the slots, unless the power is off.
    fn act(&self, act: impl FnOnce(&mut It)) {
        if !power::is_off() {
            act(&mut self.0.borrow_mut());
            power::did();
        }
    }
}

impl Performer for OnPaper {
    fn device(&self) -> Result<Device, SlotError> {
        let it = self.0.borrow();
        let holds = |slot| it.slots.get(&slot).map(|contents: &Contents| contents.manifest);
        Ok(Device { active: Some(it.active), a: holds(Slot::A), b: holds(Slot::B) })
    }

    fn contents(&self, slot: Slot) -> Result<Option<Contents>, SlotError> {
        Ok(self.0.borrow().slots.get(&slot).cloned())
    }

    fn fetch(&mut self, plan: &Plan, _: &Artifact, _: &mut dyn World) -> Event {
        if self.0.borrow().disk_is_full {
            return Event::FetchFailed { fault: Fault::Passing, why: "the disk is full".into() };
        }
        let contents = Contents { manifest: plan.manifest, version: plan.version.clone() };
        self.act(|it| {
            assert_ne!(it.active, plan.to, "the active slot was written");
            it.fetches += 1;
            it.slots.insert(plan.to, contents);
            if it.stop_at_fetch {
                let halt = Stop {
                    number: 7,
                    kind: StopKind::Halt,
                    scope: Scope::Everything,
                    since: Moment(testkit::NOW),
                    reason: "too many failures".into(),
                };
                publish(&mut it.repo, vec![halt], 1000);
            }
        });
        Event::Fetched
    }

    fn verify(&mut self, slot: Slot, files: &[FileEntry]) -> Event {
        assert_eq!(files.len(), 1);
        assert!(self.0.borrow().slots.contains_key(&slot) || power::is_off());
        Event::Verified
    }

    fn activate(&mut self, slot: Slot) -> Event {
        self.act(|it| {
            assert!(it.slots.contains_key(&slot), "an empty slot was activated");
            it.active = slot;
        });
        Event::Activated
    }

    fn discard(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.act(|it| {
            assert_ne!(it.active, slot, "the active slot was emptied");
            it.slots.remove(&slot);
        });
        Ok(())
    }

    fn restart(&mut self, _: Slot) -> Result<(), String> {
        self.act(|_| {});
        Ok(())
    }

    fn probe(&mut self, probe: &Probe, slot: Slot) -> Option<Answer> {
        let it = self.0.borrow();
        let good = it.healthy || it.slots[&slot].version == version("1.0.0");
        let health = if good { Health::Held } else { Health::Failed };
        let said = Said { health, detail: "asked".into() };
        Some(Answer { probe: probe.name.clone(), said, latency_ms: 1 })
    }
}

pub(super) fn open(bytes: &[u8]) -> Letter {
    let sealed = Sealed::read(bytes, Format::Binary).expect("a sealed letter");
    // The device's first key, or the one that it was enrolled anew with.
    let keys = [42, 43].map(|seed| sign::public(&SigningKey::from_bytes(&[seed; 32])));
    keys.iter().find_map(|key| Letter::open(&sealed, key).ok()).expect("a letter")
}

pub(super) fn publish(repo: &mut testkit::Repo, stops: Vec<Stop>, letters_offset: u64) {
    let file = RolloutFile {
        repository: "trial".parse().expect("a name"),
        product: app(),
        model: facts().model_id(),
        issued: Moment(testkit::NOW),
        letters_offset,
        rollouts: vec![entry()],
        stops,
        lifts: vec![],
    };
    let path = RolloutFile::path(&app(), &facts().model_id());
    repo.add("targets", &path, &encode_rollout_file(&file).expect("small"));
    repo.role("timestamp")["issued"] = json!(testkit::at(testkit::NOW));
    repo.release();
}

fn entry() -> RolloutEntry {
    let bytes = serde_json::to_vec(&manifest()).expect("json");
    let start = Start {
        repository: "trial".parse().expect("a name"),
        product: app(),
        channel: "stable".parse().expect("a name"),
        version: version("1.1.0"),
        manifest: Digest::of(&bytes),
        moment: Moment(testkit::NOW - 7200),
        cohorts: vec![CohortSize { cohort: "all".parse().expect("a name"), devices: 1 }],
        owner: "ben".parse().expect("a name"),
        risk: RiskClass::Routine,
        plan: Digest([0; 32]),
    };
    let rollout: RolloutId = start.rollout();
    let mut signed = SignedAct::unsigned(&Act::Start(start)).expect("an act");
    signed.sign(&SigningKey::from_bytes(&[1; 32]));
    RolloutEntry {
        rollout,
        start: signed,
        approvals: vec![],
        stages: vec![OpenStage {
            cohort: "all".parse().expect("a name"),
            opened: Moment(testkit::NOW - 3600),
            limit: Limit::EVERYBODY,
            full: None,
            groups: vec![],
        }],
        groups: vec![],
        known: KnownGroups::default(),
        coverage: vec![],
        complete: None,
        ended: None,
    }
}

/// A grant of a cohort to the device, as an answer carries it.
pub(super) fn granted(cohort: &str) -> Orders {
    let grant = Grant {
        repository: "trial".parse().expect("a name"),
        device: DeviceId::of_key(&sign::public(&SigningKey::from_bytes(&[42; 32]))),
        tenant: "acme".parse().expect("a name"),
        product: app(),
        channel: "stable".parse().expect("a name"),
        cohort: cohort.parse().expect("a name"),
        issued: Moment(testkit::NOW),
        expires: Moment(testkit::NOW + 100_000),
        reason: "a colleague's".into(),
    };
    let mut signed = SignedAct::unsigned(&Act::Grant(grant)).expect("an act");
    signed.sign(&SigningKey::from_bytes(&[1; 32]));
    Orders { grants: vec![signed], ..Orders::default() }
}

/// In which cohort the device saw each rollout.
pub(super) fn cohorts(agent: &Agent<World_>) -> Vec<String> {
    let seen = agent.products[0].memory.rollouts.values();
    seen.map(|known| known.cohort.to_string()).collect()
}

pub(super) fn manifest() -> Manifest {
    let mut manifest = samples::manifest("1.1.0");
    let stage = &mut manifest.ladder.stages[0];
    (stage.cohort, stage.bake_s) = ("all".parse().expect("a name"), Seconds(0));
    manifest.ladder.timestamp_max_age_s = Seconds(20_000);
    manifest
}

fn policy() -> Policy {
    let person = |seed: u8| Person {
        keys: [PublicKey(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes())].into(),
        roles: [PolicyRole::Approver].into(),
        tokens: Default::default(),
    };
    let product = lockgate_shared::policy::Product {
        channels: vec!["stable".parse().expect("a name")],
        cohorts: vec!["all".parse().expect("a name")],
    };
    Policy {
        people: [("ben".parse().expect("a name"), person(1))].into(),
        products: [(app(), product)].into(),
        ..Policy::new("trial".parse().expect("a name"), Approvals::each(1))
    }
}

fn facts() -> Facts {
    Facts { vendor: "Acme".into(), model: "Slate".into(), ..Facts::default() }
}

pub(super) fn app() -> ProductId {
    "app".parse().expect("a name")
}

fn version(text: &str) -> Version {
    text.parse().expect("a version")
}
