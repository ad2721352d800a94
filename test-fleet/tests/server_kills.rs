//! The server's two processes, killed with SIGKILL again and again while there is work: what the
//! letter box acknowledged is on its disk, and what the gatekeeper signed verifies and only rises.
//! Each run draws a seed and prints it; `LOCKGATE_TEST_SEED` repeats its delays.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use lockgate_agent::{
    clock::Stopwatch,
    core::tuf::{Floor, Updater},
    transport::{Repository, Transport},
    tuf_store::FileStore,
};
use lockgate_server::{
    audit, clock,
    status::{RolloutState, Verdict},
    store::{Store as _, sqlite::SqliteStore},
    stream::{Entry, EntryKind, LetterRecord},
    tuf::{
        repository::{Versions, versions_on_disk},
        trusted::{Files, Trusted},
    },
};
use lockgate_shared::{
    facts::Facts,
    id::DeviceId,
    rollout::RolloutFile,
    time::Seconds,
    wire::{Format, Outcomes, Sealed, codec, decode_rollout_file},
};
use lockgate_test_fleet::{
    https::{Ask, Client},
    letter_writer::{LetterWriter, Post, PostError, enrolment_token},
    process::{Programs, until},
    world::{BENCH_PLAN, Device, DevicePlan, PROFILES, World, app::Behaviour},
};

/// How often the letter box is killed.
const KILLS: usize = 200;
/// Threads that write letters, each over one connection of its own.
const THREADS: usize = 4;
/// Devices of each thread: enough letters an hour that the server keeps only records of many of them.
const DEVICES: usize = 6;
/// Every how manieth kill waits for the sweep, which comes a second after the start.
const SWEEP_EVERY: usize = 20;
/// Between two letters of a thread, and between two attempts: letters come all the time, and leave the
/// processor to the server.
const PAUSE: Duration = Duration::from_millis(3);
/// How long the server may take to answer again, on a machine that is busy with other tests.
const BACK: Duration = Duration::from_secs(30);
/// How often the gatekeeper is killed.
const GATEKEEPER_KILLS: usize = 20;
/// How long a rollout may take while its gatekeeper is killed all the time.
const ROLLOUT: Duration = Duration::from_secs(120);

#[test]
fn no_acknowledged_letter_is_lost_in_200_kills() {
    let mut dice = Dice::cast();
    let folder = folder();
    let programs = Programs::find().expect("the programs are built");
    let mut world = World::create(folder.path(), &programs).expect("a world");
    world.configure("sweep_s = 5", "sweep_s = 1").expect("a setting");
    world.launch_api().expect("the letter box");
    let mut desks: Vec<Desk> = (0..THREADS).map(|n| Desk::open(&world, n, &mut dice)).collect();
    enrol(&world, &mut desks);

    let kills = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let (checked, answers) = channel();
    thread::scope(|scope| {
        for desk in &mut desks {
            let (kills, over, checked) = (&kills, &over, checked.clone());
            scope.spawn(move || {
                let outcome = desk.work(kills, over, &checked);
                if let Err(complaint) = outcome {
                    let _ = checked.send(Err(complaint));
                }
            });
        }
        let outcome = kill_often(&mut world, &kills, &answers, &mut dice);
        over.store(true, Ordering::Relaxed);
        outcome
    })
    .unwrap_or_else(|complaint| panic!("{complaint}\n{}", world.said()));
    world.kill_api();
    compare(&desks, &world.path("api/store.db"));
}

fn enrol(world: &World, desks: &mut [Desk]) {
    let key = world.key("tenants/acme.key").expect("the enrolment key");
    let uses = u32::try_from(THREADS * DEVICES).expect("few");
    // A second ago: moments are whole seconds.
    let issued = clock::now().minus(Seconds(1));
    let tenant = "acme".parse().expect("a name");
    let token = enrolment_token(&tenant, uses, issued, &key).expect("a token");
    for desk in desks {
        for correspondent in &mut desk.correspondents {
            let enrolment = correspondent.writer.enrolment(&token).expect("an enrolment");
            until("the letter box's first answer", BACK, || desk.post.enrol(&enrolment).is_ok())
                .expect("it starts");
        }
    }
}

/// Kills, restarts and waits until every desk has seen that nothing is lost, often.
fn kill_often(
    world: &mut World,
    kills: &AtomicUsize,
    answers: &Receiver<Result<usize, String>>,
    dice: &mut Dice,
) -> Result<(), String> {
    for kill in 1..=KILLS {
        let sweep = kill % SWEEP_EVERY == 0;
        // The sweep takes some milliseconds and comes about here: before, in the middle, after.
        let delay = if sweep { 750 + dice.below(350) } else { dice.below(60) };
        thread::sleep(Duration::from_millis(delay));
        world.kill_api();
        kills.store(kill, Ordering::SeqCst);
        world.launch_api().map_err(|error| error.to_string())?;
        if dice.below(10) == 0 {
            // Once more, while it reads what the last one left.
            thread::sleep(Duration::from_millis(dice.below(80)));
            world.kill_api();
            world.launch_api().map_err(|error| error.to_string())?;
        }
        let mut waiting = THREADS;
        while waiting > 0 {
            let answer = answers.recv_timeout(2 * BACK).map_err(|error| {
                format!("after kill {kill} a desk did not come to an end: {error}")
            })?;
            match answer {
                Ok(of) if of == kill => waiting -= 1,
                Ok(_) => {}
                Err(complaint) => return Err(format!("after kill {kill}: {complaint}")),
            }
        }
    }
    Ok(())
}

/// A thread's devices.
struct Desk {
    post: Post,
    correspondents: Vec<Correspondent>,
    dice: Dice,
}

/// A device and everything that it was told.
struct Correspondent {
    writer: LetterWriter,
    chain: Outcomes,
    sequence: u64,
    /// Written, sent, and not acknowledged: sent until it is.
    pending: Option<(Vec<u8>, Kept)>,
    acknowledged: Vec<Acknowledged>,
}

/// What the server has to keep of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Every byte.
    Whole,
    /// At least number and digest.
    Record,
}

struct Acknowledged {
    sequence: u64,
    offset: u64,
    bytes: Vec<u8>,
    kept: Kept,
}

impl Desk {
    fn open(world: &World, number: usize, dice: &mut Dice) -> Self {
        let post = Post::open(&world.url(), &world.path("tls/ca.pem")).expect("a client");
        let correspondents = (0..DEVICES).map(|_| Correspondent::new(dice)).collect();
        Self { post, correspondents, dice: Dice(dice.next() ^ number as u64) }
    }

    /// Writes letters until it is over; after every kill it first looks what is left.
    fn work(
        &mut self,
        kills: &AtomicUsize,
        over: &AtomicBool,
        checked: &Sender<Result<usize, String>>,
    ) -> Result<(), String> {
        let mut seen = 0;
        while !over.load(Ordering::Relaxed) {
            let kill = kills.load(Ordering::SeqCst);
            if kill == seen {
                let next = self.dice.below(DEVICES as u64) as usize;
                self.write(next)?;
            } else {
                self.look_what_is_left(over)?;
                seen = kill;
                // Nobody listens when it is over.
                let _ = checked.send(Ok(kill));
            }
        }
        Ok(())
    }

    /// Writes one letter and sends it once.
    fn write(&mut self, device: usize) -> Result<(), String> {
        let correspondent = &mut self.correspondents[device];
        correspondent.write(&mut self.dice).map_err(|error| error.to_string())?;
        correspondent.send(&mut self.post)?;
        thread::sleep(PAUSE);
        Ok(())
    }

    fn look_what_is_left(&mut self, over: &AtomicBool) -> Result<(), String> {
        let replayed = self.dice.below(DEVICES as u64) as usize;
        for (device, correspondent) in self.correspondents.iter_mut().enumerate() {
            let begun = Stopwatch::start();
            while correspondent.pending.is_some() || !correspondent.again(&mut self.post)? {
                if over.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if begun.elapsed() > BACK {
                    return Err("the letter box does not come back".into());
                }
                if correspondent.send(&mut self.post)? == Sent::Lost {
                    thread::sleep(PAUSE);
                }
            }
            if device == replayed {
                correspondent.replay(&mut self.post)?;
            }
        }
        Ok(())
    }
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Acknowledged,
    Lost,
}

impl Correspondent {
    fn new(dice: &mut Dice) -> Self {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&dice.next().to_le_bytes());
        let writer = LetterWriter::new(secret, "acme").expect("a writer");
        let chain = Outcomes::default();
        Self { writer, chain, sequence: 0, pending: None, acknowledged: Vec::new() }
    }

    fn write(&mut self, dice: &mut Dice) -> Result<(), PostError> {
        if self.pending.is_some() {
            return Ok(());
        }
        self.sequence += 1 + dice.below(2);
        let (letter, kept) = match dice.below(3) {
            0 => (self.writer.with_outcome(self.sequence, &mut self.chain)?, Kept::Whole),
            1 => (self.writer.with_groups(self.sequence)?, Kept::Whole),
            _ => (self.writer.plain(self.sequence)?, Kept::Record),
        };
        self.pending = Some((self.writer.seal(&letter)?, kept));
        Ok(())
    }

    /// Sends what is not acknowledged yet. Without an answer nobody knows whether it is on disk.
    fn send(&mut self, post: &mut Post) -> Result<Sent, String> {
        let Some((bytes, kept)) = self.pending.take() else { return Ok(Sent::Acknowledged) };
        let sequence = self.sequence;
        match post.letter(&bytes) {
            Ok(receipt) if receipt.sequence == sequence => {
                let offset = receipt.offset;
                self.acknowledged.push(Acknowledged { sequence, offset, bytes, kept });
                Ok(Sent::Acknowledged)
            }
            Ok(receipt) => Err(format!("letter {sequence} was answered with {receipt:?}")),
            Err(error) => {
                self.pending = Some((bytes, kept));
                silence(&error).map(|()| Sent::Lost)
            }
        }
    }

    /// The last acknowledged letter again: acknowledged again, at the same offset. False when nobody
    /// answers.
    fn again(&self, post: &mut Post) -> Result<bool, String> {
        let Some(last) = self.acknowledged.last() else { return Ok(true) };
        match post.letter(&last.bytes) {
            Ok(receipt) if (receipt.sequence, receipt.offset) == (last.sequence, last.offset) => {
                Ok(true)
            }
            Ok(receipt) => Err(format!(
                "letter {} was acknowledged at {}, then with {receipt:?}",
                last.sequence, last.offset
            )),
            Err(error) => silence(&error).map(|()| false),
        }
    }

    /// Other bytes under a number that was used, or an older one: refused by name.
    fn replay(&self, post: &mut Post) -> Result<(), String> {
        let Some(last) = self.acknowledged.last() else { return Ok(()) };
        for sequence in [last.sequence, last.sequence.saturating_sub(1).max(1)] {
            let other = self.writer.plain(sequence).and_then(|mut letter| {
                letter.notices = vec!["not what was sent before".into()];
                self.writer.seal(&letter)
            });
            let bytes = other.map_err(|error| error.to_string())?;
            match post.letter(&bytes) {
                Err(error)
                    if error.problem().is_some_and(|said| said.kind == "sequence-replayed") => {}
                other => {
                    return Err(format!("other bytes under number {sequence}: {other:?}"));
                }
            }
        }
        Ok(())
    }
}

/// Succeeds if an error only means that the server is not there at the moment.
fn silence(error: &PostError) -> Result<(), String> {
    match error.problem() {
        Some(problem) if problem.status < 500 => Err(format!("refused: {problem:?}")),
        Some(_) | None => Ok(()),
    }
}

/// Holds every acknowledgement against the store.
fn compare(desks: &[Desk], path: &Path) {
    let store = SqliteStore::open(path).expect("the store");
    let low_water = store.load(&mut |_| {}).expect("the table");
    let head = store.head().expect("the head");
    let entries = store.read(0, usize::MAX >> 1, usize::MAX).expect("the journal");
    let offsets: Vec<u64> = entries.iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets, (0..head).collect::<Vec<_>>(), "offsets rise without gaps");
    let mut letters = 0;
    let mut records = 0;
    for correspondent in desks.iter().flat_map(|desk| &desk.correspondents) {
        for known in &correspondent.acknowledged {
            let entry = usize::try_from(known.offset).ok().and_then(|n| entries.get(n));
            let entry = entry.unwrap_or_else(|| panic!("entry {} is lost", known.offset));
            match entry.kind {
                EntryKind::Letter(Format::Binary) => {
                    assert!(entry.bytes == known.bytes, "entry {} holds others", known.offset);
                    letters += 1;
                }
                EntryKind::Record if known.kept == Kept::Record => {
                    check_record(entry, known, correspondent.writer.device());
                    records += 1;
                }
                kind @ (EntryKind::Letter(_)
                | EntryKind::Record
                | EntryKind::Enrolment(_)
                | EntryKind::Act
                | EntryKind::Publish
                | EntryKind::Stop
                | EntryKind::Bar
                | EntryKind::Withdraw) => panic!("entry {} is {kind:?}", known.offset),
            }
        }
    }
    no_letter_twice(&entries);
    println!("{letters} whole letters, {records} records, {head} entries, swept to {low_water}");
    assert!(letters >= KILLS && records > 0, "{letters} letters and {records} records: too few");
    assert!(low_water > 0, "no sweep came to its end");
}

fn check_record(entry: &Entry, known: &Acknowledged, device: DeviceId) {
    let record: LetterRecord = codec::decode(&entry.bytes, entry.bytes.len()).expect("a record");
    let sealed = Sealed::read(&known.bytes, Format::Binary).expect("what was sent");
    let wanted = LetterRecord { device, sequence: known.sequence, digest: sealed.digest() };
    assert_eq!(record, wanted, "entry {}", known.offset);
}

/// However often a letter came, it stands in the journal once.
fn no_letter_twice(entries: &[Entry]) {
    let mut digests = BTreeSet::new();
    for entry in entries {
        let digest = match entry.kind {
            EntryKind::Letter(format) => {
                Sealed::read(&entry.bytes, format).expect("a letter").digest()
            }
            EntryKind::Record => {
                let record: LetterRecord =
                    codec::decode(&entry.bytes, entry.bytes.len()).expect("a record");
                record.digest
            }
            EntryKind::Enrolment(_)
            | EntryKind::Act
            | EntryKind::Publish
            | EntryKind::Stop
            | EntryKind::Bar
            | EntryKind::Withdraw => {
                continue;
            }
        };
        assert!(digests.insert(digest), "entry {} was there before", entry.offset);
    }
}

#[test]
fn a_gatekeeper_killed_20_times_in_a_rollout_signs_what_verifies_and_only_rises() {
    let mut dice = Dice::cast();
    let folder = folder();
    let programs = Programs::find().expect("the programs are built");
    let mut world = World::create(folder.path(), &programs).expect("a world");
    world.start().expect("both processes");
    let devices = fleet(&world);
    // From here on the gatekeeper belongs to the test, so that the world can go on without it.
    world.kill_gatekeeper();
    let world = &world;
    let log = world.path("gatekeeper.log");
    let mut witness = Witness::open(world);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let story = scope.spawn(|| rollouts(world, &over));
        for _ in 0..GATEKEEPER_KILLS {
            let mut gatekeeper = world.server_process("gatekeeper", &log).expect("a gatekeeper");
            thread::sleep(Duration::from_millis(200 + dice.below(1_200)));
            assert!(gatekeeper.ended().expect("watched").is_none(), "it ended: {}", world.said());
            gatekeeper.kill();
            witness.look(world);
        }
        over.store(true, Ordering::Relaxed);
        let _gatekeeper = world.server_process("gatekeeper", &log).expect("a gatekeeper");
        let told = story.join().expect("no panic");
        told.unwrap_or_else(|complaint| panic!("{complaint}\n{}", world.said()));
        witness.look(world);
        witness.files(world);
    });
    // Two grants, a release and a start at least, and every stage that opened.
    assert!(witness.verdicts.len() >= 7, "only {} verdicts", witness.verdicts.len());
    assert!(witness.versions.rollouts >= 5, "{:?}", witness.versions);
    for device in &devices {
        assert!(device.version_on_disk("app").is_some(), "a device stayed behind");
    }
}

/// Three devices that run, two of them in earlier cohorts.
fn fleet(world: &World) -> Vec<Device> {
    let token = world.enrolment_token("acme", "3").expect("a token");
    let mut devices = Vec::new();
    for (profile, cohort) in PROFILES.iter().zip([Some("dogfood"), Some("early"), None]) {
        let name = cohort.unwrap_or("general").to_owned();
        let plan = DevicePlan { name, tenant: "acme".into(), profile: profile.clone() };
        let mut device = world.device(plan, &["app"], &token).expect("a device");
        if let Some(cohort) = cohort {
            world.grant(&device, "app", cohort).expect("a grant");
        }
        device.start().expect("an agent");
        // A grant is good for rollouts that a device sees after it was told.
        until("the device's first answer", ROLLOUT, || {
            device.status().is_some_and(|status| status.contact.last.is_some())
        })
        .expect("an answer");
        devices.push(device);
    }
    devices
}

/// One rollout after the other, until it is over; the last one comes to its end.
fn rollouts(world: &World, over: &AtomicBool) -> Result<(), String> {
    let mut number = 0;
    while number == 0 || !over.load(Ordering::Relaxed) {
        let version = format!("1.{number}.0");
        number += 1;
        let release = world
            .release("app", &version, &Behaviour::Well, BENCH_PLAN)
            .map_err(|error| error.to_string())?;
        let cohorts = [("dogfood", 1), ("early", 1), ("general", 1)];
        world
            .start_rollout("app", &version, &release, &cohorts)
            .map_err(|error| error.to_string())?;
        until(&format!("the end of the rollout of {version}"), ROLLOUT, || {
            let rollout = world.rollout("app", &version);
            rollout.is_some_and(|rollout| rollout.state == RolloutState::Complete)
        })
        .map_err(|error| format!("{error}\n{:#?}", world.rollout("app", &version)))?;
    }
    Ok(())
}

/// Who looks at everything that the gatekeeper leaves, and remembers what was there.
struct Witness {
    updater: Updater,
    store: FileStore,
    transport: Transport,
    client: Client,
    bearer: String,
    versions: Versions,
    verdicts: BTreeMap<u64, Verdict>,
    audit: Vec<u8>,
    _folder: tempfile::TempDir,
}

impl Witness {
    fn open(world: &World) -> Self {
        let folder = folder();
        let mut store = FileStore::open(folder.path()).expect("a store");
        let anchor = std::fs::read(world.path("ceremony/root.json")).expect("the anchor");
        let updater = Updater::open(&anchor, &mut store, Floor::default()).expect("the anchor");
        let ca = world.path("tls/ca.pem");
        let sources = lockgate_agent::transport::Sources {
            server: world.url().parse().expect("an address"),
            mirrors: Vec::new(),
            ca: ca.clone(),
        };
        let token = world.token("olga-laptop").expect("a token");
        Self {
            updater,
            store,
            transport: Transport::open(sources).expect("a transport"),
            client: Client::new(world.port(), &ca).expect("a client"),
            bearer: format!("Bearer {token}"),
            versions: versions(world),
            verdicts: BTreeMap::new(),
            audit: Vec::new(),
            _folder: folder,
        }
    }

    fn look(&mut self, world: &World) {
        let mut repository = Repository(&mut self.transport);
        let refreshed = self.updater.refresh(&mut repository, &mut self.store, clock::now());
        refreshed.unwrap_or_else(|error| panic!("it does not verify: {error}\n{}", world.said()));
        self.transport.end_turn();
        let found = versions(world);
        let risen = found.rollouts >= self.versions.rollouts
            && found.snapshot >= self.versions.snapshot
            && found.timestamp >= self.versions.timestamp;
        assert!(risen, "{:?}, then {found:?}", self.versions);
        self.versions = found;
        self.read_verdicts();
        self.read_audit(&world.path("gatekeeper/audit.log"));
    }

    /// Numbers rise without gaps, and a verdict that was there stays as it was.
    fn read_verdicts(&mut self) {
        let headers = [("authorization", self.bearer.as_str())];
        let mut from = 0;
        loop {
            let path = format!("/v1/verdicts?from={from}");
            let ask = Ask { method: "GET", path: &path, headers: &headers, body: &[] };
            let answer = self.client.ask(ask).expect("an answer");
            let page: Vec<Verdict> = serde_json::from_slice(&answer.body).expect("verdicts");
            let Some(last) = page.last() else { break };
            from = last.number + 1;
            for verdict in page {
                let number = verdict.number;
                if let Some(before) = self.verdicts.insert(number, verdict) {
                    assert_eq!(Some(&before), self.verdicts.get(&number), "verdict {number}");
                }
            }
        }
        let numbers: Vec<u64> = self.verdicts.keys().copied().collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    }

    /// The chain verifies, and begins with what was in it before. A line that the kill tore is not
    /// part of it.
    fn read_audit(&mut self, path: &Path) {
        let mut text = std::fs::read(path).expect("the audit log");
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        text.truncate(whole);
        audit::verify(text.as_slice()).expect("a whole chain");
        assert!(text.starts_with(&self.audit), "another chain than before");
        self.audit = text;
    }

    /// Every rollout file is there, byte for byte as signed.
    fn files(&mut self, world: &World) {
        for profile in &PROFILES {
            let facts = Facts {
                vendor: profile.vendor.into(),
                model: profile.model.into(),
                ..Facts::default()
            };
            let path = RolloutFile::path(&"app".parse().expect("a name"), &facts.model_id());
            let mut repository = Repository(&mut self.transport);
            let target = self
                .updater
                .find_target(&mut repository, &mut self.store, &path, clock::now())
                .unwrap_or_else(|error| panic!("{path}: {error}\n{}", world.said()))
                .unwrap_or_else(|| panic!("no `{path}`"));
            let bytes = self.updater.target_bytes(&mut repository, &target).expect("its bytes");
            let file = decode_rollout_file(&bytes).expect("a rollout file");
            assert!(!file.rollouts.is_empty(), "{path} lists no rollout");
        }
    }
}

/// A folder in memory, where there is one: a kill is no power cut, so what a process gave to the system
/// stays either way, and no other test's disk slows this one down.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    /// From `LOCKGATE_TEST_SEED`, else from the machine. The seed is printed with a test that fails.
    fn cast() -> Self {
        let given = std::env::var("LOCKGATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from_le_bytes(lockgate_server::dice::bytes::<8>()));
        println!("LOCKGATE_TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The versions of the online roles, by what people published.
fn versions(world: &World) -> Versions {
    let folder = world.path("repository");
    let mut files = Files::new();
    for part in ["metadata", "targets"] {
        for entry in std::fs::read_dir(folder.join(part)).expect("a part of the repository") {
            let entry = entry.expect("an entry");
            // A file may make room for the next one while this looks.
            let Ok(bytes) = std::fs::read(entry.path()) else { continue };
            files.insert(format!("{part}/{}", entry.file_name().to_string_lossy()), bytes);
        }
    }
    let anchor = std::fs::read(world.path("ceremony/root.json")).expect("the trust anchor");
    let trusted = Trusted::read(&anchor, &files).expect("what people published");
    versions_on_disk(&folder, &trusted)
}
