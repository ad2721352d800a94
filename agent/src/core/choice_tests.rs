//! Which grants count, and what a device goes for out of several releases: whatever is not its own, not
//! complete or recalled moves it nowhere.

use ed25519_dalek::SigningKey;
use lockgate_shared::{
    act::{CohortSize, Grant, RiskClass},
    group::{Habit, KnownGroups},
    manifest::{
        Artifact, FileEntry, FileKind, Gate, GateRule, Ladder, Probe, ProbeKind, Stage,
        StageApproval, Trial,
    },
    policy::{Approvals, Person, Product, Role},
    recall::{Recall, RecallStep},
    rollout::OpenStage,
    sign,
    time::Seconds,
};

use super::*;

const NOW: Moment = Moment(1_800_000_000);
const DEVICE: DeviceId = DeviceId([5; 32]);

#[test]
fn a_grant_counts_for_its_device_and_product_while_it_lasts_and_if_people_signed_it() {
    let place = |act: &SignedAct, at: i64| {
        let grants = std::slice::from_ref(act);
        granted(&policy(), grants, &DEVICE, &app(), Moment(at)).map(|given| given.cohort)
    };
    let good = grant(&|_| {}, APPROVER);
    for (at, counts) in [(99, false), (100, true), (199, true), (200, false)] {
        assert_eq!(place(&good, at).is_some(), counts, "at {at}");
    }
    assert_eq!(place(&grant(&|it| it.device = DeviceId([6; 32]), APPROVER), 150), None);
    assert_eq!(place(&grant(&|it| it.product = name("other"), APPROVER), 150), None);
    assert_eq!(place(&grant(&|_| {}, 9), 150), None, "anybody may move a device");
}

#[test]
fn of_several_grants_the_newest_counts_in_whatever_order_they_come() {
    let old = grant(&|_| {}, APPROVER);
    let new = grant(&|it| (it.cohort, it.issued) = (name("general"), Moment(120)), APPROVER);
    for grants in [[old.clone(), new.clone()], [new, old]] {
        let place = granted(&policy(), &grants, &DEVICE, &app(), Moment(150));
        assert_eq!(place.expect("a grant").cohort, name::<CohortId>("general"));
    }
}

#[test]
fn an_entry_whose_manifest_is_not_at_hand_is_not_held_against_another_one() {
    let mut scene = Scene::of(&["1.1.0", "1.2.0"]);
    scene.manifests.retain(|_, manifest| manifest.version == version("1.1.0"));
    let choice = scene.decide();
    let refused = Finding::Refused("its manifest is not at hand".into());
    assert_eq!(choice.considered[0].finding, refused, "its signers are accused");
    assert_eq!(scene.chosen(), Some(version("1.1.0")));
}

#[test]
fn a_line_behind_counts_from_what_is_complete_on_the_devices_own_channel() {
    let mut scene = Scene::of(&["1.1.0", "1.2.0"]);
    scene.pin = Pin::NMinus1;
    assert_eq!(scene.decide().complete, [version("1.2.0"), version("1.1.0")]);
    assert_eq!(scene.chosen(), Some(version("1.1.0")));

    // As long as nobody knows whether 1.2.0 is good, it pushes nobody on to 1.1.0.
    scene.entry("1.2.0").stages[0].full = None;
    assert_eq!(scene.decide().complete, [version("1.1.0")]);
    assert_eq!(scene.chosen(), None);

    let mut scene = Scene::of(&["1.1.0"]);
    scene.pin = Pin::NMinus1;
    scene.add("1.2.0", "beta");
    assert_eq!(scene.decide().complete, [version("1.1.0")]);
    assert_eq!(scene.chosen(), None);
}

#[test]
fn a_recalled_version_is_for_nobody_and_makes_no_line_for_a_pin() {
    let mut scene = Scene::of(&["1.1.0", "1.2.0"]);
    assert_eq!(scene.chosen(), Some(version("1.2.0")));
    scene.recall("1.2.0");
    assert_eq!(scene.chosen(), Some(version("1.1.0")));
    scene.pin = Pin::NMinus1;
    assert_eq!(scene.decide().complete, [version("1.1.0")]);
    assert_eq!(scene.chosen(), None);
}

const APPROVER: u8 = 1;

/// A device and releases that are open to everybody and complete.
struct Scene {
    file: RolloutFile,
    manifests: BTreeMap<Digest, Manifest>,
    recalls: Recalls,
    pin: Pin,
}

impl Scene {
    fn of(versions: &[&str]) -> Self {
        let file = RolloutFile {
            repository: name("trial"),
            product: app(),
            model: Facts::default().model_id(),
            issued: NOW,
            letters_offset: 10,
            rollouts: Vec::new(),
            stops: Vec::new(),
            lifts: Vec::new(),
        };
        let (manifests, recalls) = (BTreeMap::new(), Recalls::new());
        let mut scene = Self { file, manifests, recalls, pin: Pin::Latest };
        for version in versions {
            scene.add(version, "stable");
        }
        scene
    }

    fn add(&mut self, text: &str, channel: &str) {
        let manifest = manifest(text);
        let digest = Digest::of(text.as_bytes());
        let start = Start {
            repository: name("trial"),
            product: app(),
            channel: name(channel),
            version: version(text),
            manifest: digest,
            moment: NOW.minus(Seconds(900)),
            cohorts: vec![CohortSize { cohort: name("general"), devices: 1 }],
            owner: name("ben"),
            risk: RiskClass::Routine,
            plan: Digest([0; 32]),
        };
        let open = OpenStage {
            cohort: name("general"),
            opened: NOW.minus(Seconds(900)),
            limit: Limit::EVERYBODY,
            full: Some(NOW.minus(Seconds(900))),
            groups: Vec::new(),
        };
        self.manifests.insert(digest, manifest);
        self.file.rollouts.push(RolloutEntry {
            rollout: start.rollout(),
            start: signed(&Act::Start(start), APPROVER),
            approvals: Vec::new(),
            stages: vec![open],
            groups: Vec::new(),
            known: KnownGroups::default(),
            coverage: Vec::new(),
            complete: None,
            ended: None,
        });
    }

    fn entry(&mut self, text: &str) -> &mut RolloutEntry {
        let of = |entry: &RolloutEntry| pace::verify_start(entry, &policy()).expect("signed");
        let entry = self.file.rollouts.iter_mut().find(|it| of(it).version == version(text));
        entry.expect("its rollout")
    }

    fn recall(&mut self, text: &str) {
        let recall = recall(text, NOW);
        self.recalls.insert(version(text), Some((Digest([1; 32]), recall)));
    }

    fn chosen(&self) -> Option<Version> {
        let choice = self.decide();
        let chosen = choice.considered.get(choice.chosen?)?;
        version_of(chosen.start.as_ref())
    }

    /// What a device decides that has seen all of it from the beginning, and was counted.
    fn decide(&self) -> Choice {
        let (policy, facts, orders) = (policy(), Facts::default(), Orders::default());
        let mut memory = Memory::default();
        let sight = pace::Sight {
            facts: &facts,
            habit: Habit::Unknown,
            cohort: &|_| name("general"),
            now: NOW.minus(Seconds(600)),
        };
        memory.observe(&self.file, &policy, &sight);
        for known in memory.rollouts.values_mut() {
            known.first_letter = Some(3);
            known.first_offset = 3;
        }
        let conditions = Conditions::default();
        let situation = Situation {
            policy: &policy,
            file: Some(&self.file),
            manifests: &self.manifests,
            recalls: &self.recalls,
            memory: &memory,
            timestamp_issued: Some(NOW),
            own: Own {
                id: DEVICE,
                tenant: &name("acme"),
                product: &app(),
                channel: &name("stable"),
                facts: &facts,
                conditions: &conditions,
                takes: ArtifactKind::App,
                running: Some(&version("1.0.0")),
                pins: &[(Asker::Owner, &self.pin)],
                windows: &[],
                preferences: Preferences::default(),
                freezes: &[],
                standing: Standing { harmed: false, undoable: true },
                failed: &[],
                orders: &orders,
            },
            now: NOW,
        };
        decide(&situation)
    }
}

/// From 100 to 200, of the cohort `early`.
fn grant(change: &dyn Fn(&mut Grant), seed: u8) -> SignedAct {
    let mut grant = Grant {
        repository: name("trial"),
        device: DEVICE,
        tenant: name("acme"),
        product: app(),
        channel: name("stable"),
        cohort: name("early"),
        issued: Moment(100),
        expires: Moment(200),
        reason: "a colleague's".into(),
    };
    change(&mut grant);
    signed(&Act::Grant(grant), seed)
}

fn signed(act: &Act, seed: u8) -> SignedAct {
    let mut signed = SignedAct::unsigned(act).expect("an act");
    signed.sign(&SigningKey::from_bytes(&[seed; 32]));
    signed
}

/// A release for the cohort `general`, of one program.
pub(crate) fn manifest(text: &str) -> Manifest {
    let file = FileKind::File { size: 1, sha256: Digest([3; 32]), executable: true };
    let gate = GateRule {
        first_devices: 1,
        growth: 2,
        min_devices: 1,
        small_stage: 10,
        max_failure_ppm: 10_000,
        confidence_ppm: 950_000,
        silence_after_s: Seconds(600),
    };
    let stage = Stage {
        cohort: name("general"),
        ceiling_ppm: 1_000_000,
        floor_s: Seconds(0),
        bake_s: Seconds(60),
        approval: StageApproval::None,
        gate: Gate::Count(gate),
    };
    let artifact = Artifact {
        arch: None,
        os_ids: [].into(),
        models: [].into(),
        kind: ArtifactKind::App,
        size: 10,
        sha256: Digest([4; 32]),
        files: vec![FileEntry { path: "run".into(), kind: file }],
    };
    let probe = Probe {
        name: "alive".into(),
        kind: ProbeKind::Process { pidfile: "pid".into() },
        interval_s: Seconds(10),
    };
    let trial =
        Trial { probes: vec![probe], soak_s: Seconds(40), deadline_s: Seconds(120), attempts: 3 };
    let ladder =
        Ladder { stages: vec![stage], timestamp_max_age_s: Seconds(3600), coverage_max: 10 };
    Manifest::new((app(), version(text)), vec![artifact], trial, ladder)
}

/// A recall to 1.0.0, of everybody at once.
pub(crate) fn recall(text: &str, issued: Moment) -> Recall {
    Recall {
        format: 1,
        product: app(),
        version: version(text),
        to: version("1.0.0"),
        manifest: Digest([0; 32]),
        issued,
        until: issued.plus(Seconds(100_000)),
        harmed_after_s: Seconds(0),
        steps: vec![RecallStep { after_s: Seconds(0), share_ppm: 1_000_000 }],
        timestamp_max_age_s: Seconds(20_000),
        reason: "it loses data".into(),
    }
}

fn policy() -> Policy {
    let ben = Person {
        keys: [sign::public(&SigningKey::from_bytes(&[APPROVER; 32]))].into(),
        roles: [Role::Approver].into(),
        tokens: [].into(),
    };
    let product = Product {
        channels: vec![name("stable"), name("beta")],
        cohorts: vec![name("early"), name("general")],
    };
    Policy {
        people: [(name("ben"), ben)].into(),
        products: [(app(), product)].into(),
        ..Policy::new(name("trial"), Approvals::each(1))
    }
}

fn app() -> ProductId {
    name("app")
}

fn version(text: &str) -> Version {
    name(text)
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a name of this test")
}
