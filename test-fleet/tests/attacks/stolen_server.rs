//! The stolen API server (25) and the evidence that it forges (32): with its journal, its TLS key, its
//! database and its place between devices and gatekeeper, every move that we know.

use lockgate_server::{
    clock, dice,
    status::{Decision, StageStatus},
    stream::{EntryKind, LetterRecord, Publication},
};
use lockgate_shared::{
    act::{Act, Grant, Lift},
    bucket::Bucket,
    id::{Digest, RolloutId, TenantId},
    limits,
    pin::Pin,
    time::{Moment, Seconds},
    wire::{
        Directive, Format, Letter, Orders, Outcome, OutcomeKind, OutcomeRecord, Outcomes,
        SignedToken, codec,
    },
};
use lockgate_test_fleet::{
    hostile::Reply,
    letter_writer::{LetterWriter, Post, enrolment_token},
    process::{Programs, until},
    thief::StolenLetterBox,
    world::{World, app::Behaviour},
};

use crate::{
    forge::{Forge, Goods, PRODUCT, stage},
    stage::{PATIENCE, Victim},
};

/// Devices that were there before the start.
const FLEET: usize = 4;
/// Devices that the thief invents.
const PHANTOMS: usize = 12;
/// No pause between two polls is longer, whatever a server says: a day.
const LONGEST_PAUSE: Seconds = Seconds(86_400);

#[test]
fn e25_whatever_a_stolen_server_answers_a_device_installs_nothing_sooner_or_other_than_signed() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();

    // It acknowledges with numbers of its own: the device is counted by signed files alone.
    let goods = Goods::new("6.6.6");
    victim.serve(&honest, |own| own.roll_out(&goods));
    for offset in [0, u64::MAX] {
        answer_with(&victim, move |directive| directive.offset = offset);
        victim.polled_again();
        victim.polled_again();
        victim.held("6.6.6", &["has not counted this device's first letter"]);
        victim.unharmed(&kept, &believed);
    }
    // It grants an earlier cohort: by its own hand, and with another device's or an expired grant.
    let closed = |own: &mut Forge, number: &str| {
        let mut early = Goods::new(number);
        early.manifest.ladder.stages = vec![stage("first"), stage("everyone")];
        own.release(&early.manifest);
        let start = own.start_with(&early.manifest, &["ben", "eva"], |start| {
            start.moment = clock::now().minus(Seconds(60));
        });
        let mut entry = Forge::entry(start);
        entry.stages.truncate(1);
        own.file_of(PRODUCT).rollouts.push(entry);
        own.say();
    };
    let other = "00".repeat(32);
    for (number, device, by, lasts) in [
        ("6.7.0", victim.id.clone(), "thief-1", 3_600),
        ("6.7.1", victim.id.clone(), "ada", 3_600),
        ("6.7.2", other, "ben", 3_600),
        ("6.7.3", victim.id.clone(), "ben", -3_600),
    ] {
        let now = clock::now();
        let act = Act::Grant(Grant {
            repository: "trial".parse().expect("a name"),
            device: device.parse().expect("an id"),
            tenant: "globex".parse().expect("a name"),
            product: PRODUCT.parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            cohort: "first".parse().expect("a name"),
            issued: now.minus(Seconds(7_200)),
            expires: Moment(now.0 + lasts),
            reason: "a favour".into(),
        });
        let grant = honest.act(&act, &[by]);
        answer_with(&victim, move |directive| {
            directive.orders = Some(Orders { grants: vec![grant.clone()], ..Orders::default() });
        });
        victim.polled_again();
        victim.serve(&honest, |own| closed(own, number));
        victim.held(number, &["the stage of cohort `everyone` is not open"]);
        victim.unharmed(&kept, &believed);
    }
    // It pins to what is older, and forgets every restriction: nothing is installed by that.
    let older = Goods::new("0.9.0");
    victim.serve(&honest, |own| own.roll_out(&older));
    answer_with(&victim, |directive| {
        let pin = Pin::Exact("0.9.0".parse().expect("a version"));
        let pins = [(PRODUCT.parse().expect("a name"), pin)].into();
        directive.orders = Some(Orders { pins, ..Orders::default() });
    });
    victim.held("0.9.0", &["not newer"]);
    victim.unharmed(&kept, &believed);
    // It sends devices to sleep: for a day at most.
    answer_with(&victim, |directive| {
        directive.next_poll = Seconds(u64::MAX);
        directive.jitter = Seconds(u64::MAX);
        directive.backoff_max = Seconds(u64::MAX);
        directive.orders = Some(Orders::default());
    });
    victim.expect("a day's sleep at most", |status| {
        let next = status.contact.next_poll.expect("a poll is planned");
        let pause = next.since(status.taken);
        pause > Seconds(3_600) && pause <= LONGEST_PAUSE
    });
    // It answers for a letter that was never sent, with nonsense, or as if the device were a clone.
    for acknowledged in [0, u64::MAX] {
        answer_with(&victim, move |directive| directive.acknowledged = acknowledged);
        victim.expect("the answer is not believed", |status| status.contact.problem.is_some());
    }
    const REPLAYED: &[u8] =
        br#"{"type":"sequence-replayed","title":"x","status":409,"detail":"x"}"#;
    let replies: [fn() -> Reply; 3] = [
        || Reply::Status(409, REPLAYED.to_vec()),
        || Reply::Status(404, Vec::new()),
        || Reply::file(vec![0xff; 40_000]),
    ];
    for reply in replies {
        victim.attack_path("/v1/checkin", reply);
        victim.expect("no letter is acknowledged", |status| status.contact.problem.is_some());
        victim.unharmed(&kept, &believed);
    }
    let asked = victim.front.paths();
    for goods in [&goods, &older] {
        let path = format!("/artifacts/{}", goods.digest());
        assert!(!asked.contains(&path), "a payload was asked for");
    }
    // All of it is over when the server is its owner's again.
    victim.be_honest();
    victim.serve(&honest, |own| own.roll_out(&Goods::new("7.0.0")));
    victim.rest_on("7.0.0");
    victim.well();
}

/// The true server's answers to letters, each changed so.
pub(crate) fn answer_with(
    victim: &Victim,
    change: impl Fn(&mut Directive) + Send + Clone + 'static,
) {
    victim.attack(move |asked| {
        let change = change.clone();
        (asked.path == "/v1/checkin").then(|| {
            Reply::Changed(Box::new(move |answer| {
                let Ok(mut directive) = Directive::read(&answer.body, Format::Binary) else {
                    return;
                };
                change(&mut directive);
                answer.body = directive.to_bytes(Format::Binary).expect("a directive");
            }))
        })
    });
}

#[test]
fn e32_a_stolen_letter_box_invents_no_evidence_and_opens_nothing_at_the_gatekeeper() {
    let scene = Scene::new();
    let before = scene.stage();
    assert_eq!((before.authorised, before.confirmed), (1, 0), "{before:?}");
    let chosen = scene.let_in();

    // Letters in the devices' names, signed by the thief.
    let thief = LetterWriter::new(dice::bytes(), "acme").expect("a writer");
    for device in &scene.fleet {
        let letter = scene.outcome(device, 5, OutcomeKind::Confirmed);
        let mut sealed = letter.seal(Format::Binary, &thief.key).expect("sealed");
        sealed.device = device.device();
        scene.refused(EntryKind::Letter(Format::Binary), sealed.to_bytes().expect("bytes"));
    }
    // True letters again and again, and signs of life that nobody signed.
    for entry in scene.stolen.entries() {
        if matches!(entry.kind, EntryKind::Letter(_)) {
            scene.counted(entry.kind, entry.bytes);
        }
    }
    for device in &scene.fleet {
        let record = LetterRecord {
            device: device.device(),
            sequence: 1_000_000,
            digest: Digest::of(b"a letter"),
        };
        let bytes = codec::encode(&record, limits::LETTER_BYTES).expect("bytes");
        scene.counted(EntryKind::Record, bytes);
    }
    // Phantoms with a token of the thief's own, and with the stolen one, which has uses left.
    let own = enrolment_token(&thief.tenant, 99, clock::now().minus(Seconds(60)), &thief.key);
    for token in [&own.expect("a token"), &scene.token] {
        for _ in 0..PHANTOMS {
            let phantom = LetterWriter::new(dice::bytes(), "acme").expect("a writer");
            let enrolment = phantom.enrolment(token).expect("an enrolment");
            scene.counted(EntryKind::Enrolment(Format::Binary), enrolment);
            let letter = scene.outcome(&phantom, 1, OutcomeKind::Confirmed);
            let bytes = phantom.seal(&letter).expect("sealed");
            scene.counted(EntryKind::Letter(Format::Binary), bytes);
        }
    }
    // Acts and releases without their signatures.
    scene.acts_without_signatures();
    scene.ticked();
    let after = scene.stage();
    assert_eq!((after.limit, after.confirmed), (before.limit, 0), "{after:?}");
    assert_eq!((after.rolled_back, after.silent), (0, 0), "{after:?}");

    // What the device that was let in really says still counts, and more are let in.
    let letter = scene.outcome(chosen, 9, OutcomeKind::Confirmed);
    scene.counted(EntryKind::Letter(Format::Binary), chosen.seal(&letter).expect("sealed"));
    scene.until("the next device is let in", |stage| {
        stage.confirmed == 1 && stage.limit > before.limit
    });
}

#[test]
fn e32_bad_news_that_is_kept_back_shows_and_counts_against_the_rollout() {
    let scene = Scene::new();
    let chosen = scene.let_in();
    // The device went back and said so; the thief loses that letter and carries the next one.
    let lost = scene.outcome(chosen, 5, OutcomeKind::RolledBack);
    let mut next = chosen.plain(6).expect("a letter");
    next.outcomes_count = lost.outcomes_count;
    next.outcomes_digest = lost.outcomes_digest;
    scene.counted(EntryKind::Letter(Format::Binary), chosen.seal(&next).expect("sealed"));
    until("the operator hears of it", PATIENCE, || {
        scene.stolen.status().is_some_and(|status| {
            status.alarms.iter().any(|alarm| {
                alarm.device == Some(chosen.device()) && alarm.text.contains("keeps news back")
            })
        })
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", scene.stolen.status()));
    scene.ticked();
    let stage = scene.stage();
    assert_eq!((stage.authorised, stage.confirmed), (1, 0), "{stage:?}");
}

/// A gatekeeper with a rollout that is open to one device of four, and a thief in the place of its
/// letter box.
struct Scene {
    stolen: StolenLetterBox,
    world: World,
    fleet: Vec<LetterWriter>,
    token: SignedToken,
    rollout: RolloutId,
    manifest: Digest,
    // Last, so that the processes end before their folder goes.
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let programs = Programs::find().expect("the programs");
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = World::create(folder.path(), &programs).expect("a world");
        world.start().expect("a server");
        let acme: TenantId = "acme".parse().expect("a name");
        let key = world.key("tenants/acme.key").expect("the enrolment key");
        let uses = u32::try_from(FLEET + 4 * PHANTOMS).expect("a few");
        let past = clock::now().minus(Seconds(60));
        let token = enrolment_token(&acme, uses, past, &key).expect("a token");
        let mut post = Post::open(&world.url(), &world.path("tls/ca.pem")).expect("a client");
        let mut fleet: Vec<LetterWriter> = (0..FLEET)
            .map(|_| {
                let device = LetterWriter::new(dice::bytes(), "acme").expect("a writer");
                post.enrol(&device.enrolment(&token).expect("an enrolment")).expect("enrolled");
                device
            })
            .collect();
        let release = world.release(PRODUCT, "1.0.0", &Behaviour::Well, PLAN).expect("a release");
        let devices = u32::try_from(FLEET).expect("a few");
        world.start_rollout(PRODUCT, "1.0.0", &release, &[("everyone", devices)]).expect("started");
        let started = world.rollout(PRODUCT, "1.0.0").expect("a rollout");
        let (rollout, manifest) = (started.rollout, started.manifest);
        // The first that is heard of lies lowest: so the first limit lets in that one alone.
        let stable = "stable".parse().expect("a name");
        fleet.sort_by_key(|device| Bucket::of(&manifest, &stable, &device.device()));
        for device in &fleet {
            let letter = first_letter(device, 1, rollout, manifest);
            post.letter(&device.seal(&letter).expect("sealed")).expect("taken");
        }
        until("one device is let in", PATIENCE, || {
            let stage = world.rollout(PRODUCT, "1.0.0").map(|found| found.stages[0].clone());
            stage.is_some_and(|stage| stage.authorised == 1)
        })
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", world.status(), world.said()));
        world.kill_api();
        let journal = StolenLetterBox::journal(&world.path("api/store.db")).expect("a journal");
        let socket = world.path("gatekeeper.sock");
        let stolen = StolenLetterBox::open(&socket, journal).expect("a socket");
        let scene = Self { stolen, world, fleet, token, rollout, manifest, _folder: folder };
        until("the gatekeeper talks to the thief", PATIENCE, || scene.stolen.status().is_some())
            .unwrap_or_else(|error| panic!("{error}\n{}", scene.world.said()));
        scene
    }

    /// The rollout's one stage, as the gatekeeper last reported.
    fn stage(&self) -> StageStatus {
        let status = self.stolen.status().expect("a report");
        let rollout = status.rollouts.iter().find(|one| one.rollout == self.rollout);
        rollout.expect("the rollout").stages[0].clone()
    }

    /// The one device that the limit lets in.
    fn let_in(&self) -> &LetterWriter {
        self.fleet.first().expect("a fleet")
    }

    /// A letter that brings the device's first outcome.
    fn outcome(&self, device: &LetterWriter, sequence: u64, kind: OutcomeKind) -> Letter {
        let outcome = Outcome {
            rollout: self.rollout,
            product: PRODUCT.parse().expect("a name"),
            version: "1.0.0".parse().expect("a version"),
            kind,
            at: clock::now(),
            took: Seconds(9),
            detail: String::new(),
        };
        let chain = Outcomes::default().with(&outcome).expect("a chain");
        let mut letter = first_letter(device, sequence, self.rollout, self.manifest);
        letter.rollouts[0].treated = true;
        letter.outcomes_count = chain.count;
        letter.outcomes_digest = chain.digest;
        letter.outcomes = vec![OutcomeRecord { number: chain.count, outcome }];
        letter
    }

    /// Appends an entry and waits until the gatekeeper has counted it.
    fn counted(&self, kind: EntryKind, bytes: Vec<u8>) -> u64 {
        let offset = self.stolen.append(kind, bytes);
        until("the entry is counted", PATIENCE, || {
            self.stolen.status().is_some_and(|status| status.letters_offset > offset)
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.world.said()));
        offset
    }

    /// The same of one that must be refused.
    fn refused(&self, kind: EntryKind, bytes: Vec<u8>) {
        let offset = self.counted(kind, bytes);
        let verdict = self.stolen.verdict(offset);
        assert_eq!(verdict.as_ref().map(|verdict| verdict.decision), Some(Decision::Refused));
    }

    /// A tick later than now.
    fn ticked(&self) {
        let now = clock::now();
        until("two ticks", PATIENCE, || {
            self.stolen.status().is_some_and(|status| status.at > now.plus(Seconds(2)))
        })
        .expect("ticks");
    }

    fn until(&self, what: &str, holds: impl Fn(&StageStatus) -> bool) {
        until(what, PATIENCE, || holds(&self.stage()))
            .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", self.stage(), self.world.said()));
    }

    /// A start, a lift and a publication, signed by nobody who may.
    fn acts_without_signatures(&self) {
        let forge = Forge::of(&self.world);
        let goods = Goods::new("6.6.6");
        let lift = Act::Lift(Lift {
            repository: "trial".parse().expect("a name"),
            numbers: [1].into(),
            reason: "all is well".into(),
        });
        for act in
            [forge.start(&goods.manifest, &["thief-1", "thief-2"]), forge.act(&lift, &["thief-1"])]
        {
            self.refused(EntryKind::Act, serde_json::to_vec(&act).expect("JSON"));
        }
        let mut role = forge;
        role.release_in("releases-tools", &goods.manifest, &["thief-1", "thief-2"]);
        let publication = Publication {
            role: "releases-tools".into(),
            metadata: String::from_utf8(role.bytes("releases-tools")).expect("text"),
            targets: Vec::new(),
            with: Vec::new(),
        };
        self.refused(EntryKind::Publish, serde_json::to_vec(&publication).expect("JSON"));
    }
}

/// A device's first letter about a rollout: it names its groups.
fn first_letter(
    device: &LetterWriter,
    sequence: u64,
    rollout: RolloutId,
    manifest: Digest,
) -> Letter {
    let mut letter = device.with_groups(sequence).expect("a letter");
    let view = &mut letter.rollouts[0];
    view.rollout = rollout;
    view.cohort = "everyone".parse().expect("a name");
    view.bucket = Bucket::of(&manifest, &"stable".parse().expect("a name"), &device.device());
    letter.products[0].product = PRODUCT.parse().expect("a name");
    letter.products[0].running = None;
    letter
}

/// One device first, and one more for each that is well.
const PLAN: &str = r#"kind = "app"

[trial]
soak_s = 1
deadline_s = 20
attempts = 3
[[trial.probes]]
name = "alive"
kind = "process"
pidfile = "app.pid"
interval_s = 1

[ladder]
timestamp_max_age_s = 60
[[ladder.stages]]
cohort = "everyone"
floor_s = 0
bake_s = 1
[ladder.stages.gate]
first_devices = 1
growth = 1
min_devices = 1
small_stage = 1
max_failure_ppm = 999999
confidence_ppm = 900000
silence_after_s = 300
"#;
