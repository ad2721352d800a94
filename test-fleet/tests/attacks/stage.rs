//! The stage of this suite: one true server for all tests, and for each test a device whose way to it
//! goes through a hostile one. The device runs 1.0.0 before anything hostile begins.

use std::{
    collections::BTreeMap,
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use lockgate_agent::status::{Status, Verdict};
use lockgate_shared::id::Digest;
use lockgate_test_fleet::{
    hostile::{Asked, Front, Reply},
    https::Client,
    letter_writer::fingerprint,
    process::{Lifeline, Programs, until},
    world::{Device, DevicePlan, PROFILES, Server, World},
};
use serde_json::{Value, json};

use crate::forge::{Forge, Goods, PRODUCT, Shared, honest};

/// Some polls, a trial, a retry: far below this on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);
/// The version that runs before an attack.
pub(crate) const BEFORE: &str = "1.0.0";
/// How far apart the versions of two served repositories lie.
const STEP: u64 = 20;
/// Devices that one run of the suite may enrol.
const DEVICES: &str = "400";

/// The true server, and what was signed when it was made.
pub(crate) struct Site {
    pub(crate) world: World,
    /// The repository with 1.0.0 open to everybody.
    pub(crate) forge: Forge,
    token: String,
    _lifeline: Lifeline,
}

/// The site that all tests share.
pub(crate) fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let programs = Programs::find().expect("the programs");
        let folder = tempfile::tempdir().expect("a folder").keep();
        let mut world = World::create(&folder, &programs).expect("a world");
        world.set_polls(2).expect("configured");
        world.start().expect("a server");
        let lifeline = Lifeline::hold(&world.ids(), &folder).expect("a lifeline");
        let token = world.enrolment_token("globex", DEVICES).expect("a token");
        let mut forge = Forge::of(&world);
        forge.roll_out(&Goods::new(BEFORE));
        Site { world, forge, token, _lifeline: lifeline }
    })
}

/// A device, the hostile server before it, and what that serves while it is honest.
pub(crate) struct Victim {
    pub(crate) device: Device,
    pub(crate) front: Front,
    pub(crate) forge: Shared,
    pub(crate) id: String,
    served: AtomicU32,
}

/// What an attack must not change: what runs, and what is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    link: PathBuf,
    files: BTreeMap<String, Digest>,
    service: String,
    anchor: Digest,
}

/// What is believed of the repository: versions never fall, and no root goes.
#[derive(Clone, Debug)]
pub(crate) struct Believed {
    pub(crate) roots: BTreeMap<u64, Digest>,
    pub(crate) timestamp: u64,
    pub(crate) snapshot: u64,
}

impl Victim {
    /// A device that runs 1.0.0.
    pub(crate) fn installed() -> Self {
        let mut victim = Self::enrolled(&[PRODUCT], "");
        victim.start();
        victim.rest_on(BEFORE);
        victim
    }

    /// A device that does not run yet, with lines of its owner's in its configuration.
    pub(crate) fn enrolled(products: &[&str], lines: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let site = site();
        let name = format!("device-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let front = front();
        let plan = DevicePlan {
            name: name.clone(),
            tenant: "globex".into(),
            profile: PROFILES[0].clone(),
        };
        let server = Server {
            url: front.url(),
            ca: site.world.path("tls/ca.pem"),
            anchor: site.world.path("ceremony/root.json"),
        };
        let folder = site.world.path("devices").join(&name);
        let programs = Programs::find().expect("the programs");
        let device =
            Device::lay_out(&folder, plan, &server, products, &programs).expect("laid out");
        if !lines.is_empty() {
            device.drop_in("50-owner.toml", lines).expect("written");
        }
        device.enroll(&site.token).expect("enrolled");
        let id = site.world.device_id(&device).expect("an id");
        let forge = Arc::new(Mutex::new(site.forge.clone()));
        let victim = Self { device, front, forge, id, served: AtomicU32::new(1) };
        victim.be_honest();
        victim
    }

    /// Starts the agent.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the agent with further environment.
    pub(crate) fn start_with(&mut self, environment: &[(&str, &str)]) {
        let runs = |device: &Device| device.said().matches("is running").count();
        let before = runs(&self.device);
        self.device.start_with(environment).expect("started");
        until("the agent's start", PATIENCE, || runs(&self.device) > before).expect("started");
    }

    /// The hostile server serves the repository as it stands.
    pub(crate) fn be_honest(&self) {
        let forge = Arc::clone(&self.forge);
        self.front.think(move |asked| honest(&forge, asked));
    }

    /// The hostile server answers some requests itself; the rest is honest.
    pub(crate) fn attack(&self, mut mind: impl FnMut(&Asked) -> Option<Reply> + Send + 'static) {
        let forge = Arc::clone(&self.forge);
        self.front.think(move |asked| mind(asked).unwrap_or_else(|| honest(&forge, asked)));
    }

    /// The hostile server answers one path so, each time.
    pub(crate) fn attack_path(&self, path: &str, reply: impl Fn() -> Reply + Send + 'static) {
        let path = path.to_owned();
        self.attack(move |asked| (asked.path == path).then(&reply));
    }

    /// The repository, to be changed while nobody asks for it.
    pub(crate) fn forge(&self) -> MutexGuard<'_, Forge> {
        self.forge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves another repository: this one with a change.
    pub(crate) fn serve(&self, honest: &Forge, change: impl FnOnce(&mut Forge)) -> Forge {
        let mut forge = honest.clone();
        // Above everything that the device may have believed meanwhile, as a thief would go on.
        let above = STEP * u64::from(self.served.fetch_add(1, Ordering::Relaxed));
        for role in
            ["targets", "releases-app", "releases-tools", "rollouts", "snapshot", "timestamp"]
        {
            let version = forge.version(role) + above;
            forge.role(role)["version"] = json!(version);
            forge.publish(role);
        }
        change(&mut forge);
        self.restore(&forge);
        forge
    }

    /// Waits until the device believes the timestamp that is served.
    pub(crate) fn believes(&mut self) {
        let version = self.forge().version("timestamp");
        self.expect(&format!("timestamp {version} is believed"), |status| {
            status.refresh.timestamp_version == Some(version) && status.refresh.problem.is_none()
        });
    }

    /// Somewhere in its words for the owner the device says all of this: problem, notice or state.
    pub(crate) fn says(&mut self, words: &[&str]) {
        self.expect(&format!("words {words:?}"), |status| {
            let problems = [&status.refresh.problem, &status.contact.problem];
            let states = status.products.iter().map(|product| &product.state_text);
            problems
                .into_iter()
                .flatten()
                .chain(&status.notices)
                .chain(states)
                .any(|text| words.iter().all(|word| text.contains(word)))
        });
    }

    /// The most memory that the agent's process ever had, in KiB.
    pub(crate) fn peak_kib(&mut self) -> u64 {
        let id = self.device.process().expect("it was started").id();
        let text = fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Puts the repository back to what it was.
    pub(crate) fn restore(&self, forge: &Forge) {
        *self.forge() = forge.clone();
    }

    /// Waits until the device's own status says so, poking now and then, while its agent runs.
    pub(crate) fn expect(&mut self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let mut found = None;
        let mut turns = 0_u32;
        let reached = until(what, PATIENCE, || {
            if turns.is_multiple_of(10) {
                // An agent that just ended is found below.
                let _ = self.device.poke();
            }
            turns += 1;
            found = self.device.status().filter(|status| holds(status));
            found.is_some()
        });
        if let Err(error) = reached {
            panic!(
                "{error}\n{:#?}\nasked: {:?}\n{}",
                self.device.status(),
                self.front.paths().iter().rev().take(20).collect::<Vec<_>>(),
                self.said()
            );
        }
        self.alive();
        found.expect("it was just found")
    }

    /// Waits until the device has told of a rollout, and has the repository say that this letter was
    /// counted: from here on it may be let in.
    pub(crate) fn counted(&mut self, goods: &Goods) {
        let rollout = goods.rollout();
        let mut turns = 0_u32;
        let told = until("a letter that names the rollout", PATIENCE, || {
            if turns.is_multiple_of(10) {
                let _ = self.device.poke();
            }
            turns += 1;
            let letters = self.front.letters();
            letters.iter().any(|letter| letter.rollouts.iter().any(|view| view.rollout == rollout))
        });
        assert!(told.is_ok(), "{}", self.said());
        self.forge().say();
    }

    /// The last that the agent said.
    pub(crate) fn said(&self) -> String {
        let said = self.device.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The agent runs on.
    pub(crate) fn alive(&mut self) {
        let process = self.device.process().expect("it was started");
        assert!(matches!(process.ended(), Ok(None)), "the agent has ended: {}", process.said());
    }

    /// Waits until a version runs, whole and kept.
    pub(crate) fn rest_on(&mut self, version: &str) {
        let mut turns = 0_u32;
        let rests = until(&format!("{version} runs"), PATIENCE, || {
            if turns.is_multiple_of(10) {
                // A device acts on a file that is later than the one in which it saw the rollout.
                self.forge().say();
                let _ = self.device.poke();
            }
            turns += 1;
            self.device.rests_on(PRODUCT, version)
        });
        if let Err(error) = rests {
            panic!("{error}\n{:#?}\n{}", self.device.status(), self.said());
        }
    }

    /// The refresh fails with all of this in its message: in the status, in what the owner reads, and
    /// in what the operator reads of the device's next letter.
    pub(crate) fn refused(&mut self, words: &[&str]) {
        let has = |text: &str| words.iter().all(|word| text.contains(word));
        self.expect(&format!("a problem with {words:?}"), |status| {
            status.refresh.problem.as_deref().is_some_and(has)
        });
        self.owner_reads("status", words);
        self.operator_reads(words);
    }

    /// The device refuses a version, or waits, with all of this among its reasons: in `explain`, and in
    /// what the operator reads.
    pub(crate) fn held(&mut self, version: &str, words: &[&str]) {
        let has = |text: &str| words.iter().all(|word| text.contains(word));
        self.expect(&format!("reasons with {words:?} against {version}"), |status| {
            status.products.iter().flat_map(|product| &product.candidates).any(|one| {
                let named = one.version.as_ref().is_none_or(|found| found.to_string() == version);
                let reasons: Vec<&str> =
                    one.reasons.iter().map(|reason| reason.text.as_str()).collect();
                named
                    && matches!(one.verdict, Verdict::Waits | Verdict::Refused)
                    && has(&reasons.join("; "))
            })
        });
        self.owner_reads("explain", words);
    }

    /// Some candidate is refused with all of this; `explain` says so.
    pub(crate) fn says_of_candidates(&mut self, words: &[&str]) {
        self.expect(&format!("a candidate refused with {words:?}"), |status| {
            status.products.iter().flat_map(|product| &product.candidates).any(|one| {
                one.verdict == Verdict::Refused
                    && one.reasons.iter().any(|r| words.iter().all(|word| r.text.contains(word)))
            })
        });
        self.owner_reads("explain", words);
    }

    /// A notice with all of this, in the status and in what the operator reads.
    pub(crate) fn notes(&mut self, words: &[&str]) {
        let has = |text: &str| words.iter().all(|word| text.contains(word));
        self.expect(&format!("a notice with {words:?}"), |status| {
            status.notices.iter().any(|notice| has(notice))
        });
        self.operator_reads(words);
    }

    /// One of the agent's commands prints all of this.
    pub(crate) fn owner_reads(&self, command: &str, words: &[&str]) {
        let mut text = String::new();
        let reads = until("what the owner reads", PATIENCE, || {
            text = self.device.command(&[command]).expect("a command");
            words.iter().all(|word| text.contains(word))
        });
        assert!(reads.is_ok(), "`{command}` lacks {words:?}:\n{text}");
    }

    /// `lockgate device explain` prints all of this.
    pub(crate) fn operator_reads(&self, words: &[&str]) {
        let mut text = String::new();
        let reads = until("what the operator reads", PATIENCE, || {
            text = self.operator(&["device", "explain", &self.id]);
            words.iter().all(|word| text.contains(word))
        });
        assert!(reads.is_ok(), "the operator does not read {words:?}:\n{text}");
    }

    /// What a command of the operator prints.
    pub(crate) fn operator(&self, arguments: &[&str]) -> String {
        site().world.lockgate("olga-laptop", arguments).expect("a command")
    }

    /// The device has polled at least once more since, and told the server.
    pub(crate) fn polled_again(&mut self) {
        let told = self.front.letters().len();
        let mut turns = 0_u32;
        let told_more = until("another letter", PATIENCE, || {
            if turns.is_multiple_of(10) {
                let _ = self.device.poke();
            }
            turns += 1;
            self.front.letters().len() > told
        });
        assert!(told_more.is_ok(), "no letter came: {}", self.said());
    }

    /// All is well: heard and told.
    pub(crate) fn well(&mut self) {
        self.expect("all is well", |status| {
            status.refresh.last.is_some()
                && status.refresh.problem.is_none()
                && status.contact.problem.is_none()
                && status.contact.last.is_some()
        });
    }

    /// What runs and what is trusted now.
    pub(crate) fn kept(&self) -> Kept {
        let root = self.device.folder().join(PRODUCT);
        let link = fs::read_link(root.join("current")).expect("a link");
        let mut files = fingerprint(&root.join(&link)).expect("the active slot");
        let seal = fs::read(root.join(&link).with_extension("sealed")).expect("a marker");
        files.insert("the seal".into(), Digest::of(&seal));
        let service = fs::read_to_string(root.join("app.pid")).expect("the service runs");
        assert!(self.device.service_alive(PRODUCT), "the service has ended");
        let anchor = fs::read(site().world.path("ceremony/root.json")).expect("the anchor");
        Kept { link, files, service, anchor: Digest::of(&anchor) }
    }

    /// The same after the service was started anew: its process is another.
    pub(crate) fn kept_but_service(&self, before: &Kept) -> Kept {
        Kept { service: before.service.clone(), ..self.kept() }
    }

    /// What is believed now, from the disk.
    pub(crate) fn believed(&self) -> Believed {
        let folder = self.device.folder().join("state/tuf");
        let mut roots = BTreeMap::new();
        for entry in fs::read_dir(&folder).expect("trusted metadata").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name.strip_suffix(".root.json").and_then(|version| version.parse().ok());
            if let Some(version) = version {
                let bytes = fs::read(entry.path()).expect("a root");
                roots.insert(version, Digest::of(&bytes));
            }
        }
        let version = |name: &str| version_in(&folder.join(name));
        Believed { roots, timestamp: version("timestamp.json"), snapshot: version("snapshot.json") }
    }

    /// What ran runs, what was trusted is, and nothing newer is below the product's folder.
    pub(crate) fn unharmed(&mut self, kept: &Kept, believed: &Believed) {
        self.alive();
        self.unharmed_asleep(kept, believed);
    }

    /// The same while no agent runs.
    pub(crate) fn unharmed_asleep(&self, kept: &Kept, believed: &Believed) {
        assert_eq!(&self.kept(), kept, "{}", self.said());
        let now = self.believed();
        for (version, digest) in &believed.roots {
            assert_eq!(now.roots.get(version), Some(digest), "root {version} is gone");
        }
        assert!(now.timestamp >= believed.timestamp, "the timestamp fell: {now:?} {believed:?}");
        assert!(now.snapshot >= believed.snapshot, "the snapshot fell: {now:?} {believed:?}");
    }
}

impl Deref for Site {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

/// A hostile server with the true one's certificate.
pub(crate) fn front() -> Front {
    let world = &site().world;
    Front::open(&world.path("tls/server.pem"), &world.path("tls/server.key"), client())
        .expect("a hostile server")
}

/// A client of the true server.
pub(crate) fn client() -> Client {
    let world = &site().world;
    Client::new(world.port(), &world.path("tls/ca.pem")).expect("a client")
}

fn version_in(path: &Path) -> u64 {
    let Ok(bytes) = fs::read(path) else { return 0 };
    let value: Value = serde_json::from_slice(&bytes).expect("JSON");
    value["signed"]["version"].as_u64().expect("a version")
}

/// The library that shows a process another clock.
///
/// # Panics
/// Where it is not installed: a test that needs it must not pass without it.
pub(crate) fn fake_clock() -> String {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let mut libraries = folders.iter().map(|folder| format!("{folder}/faketime/libfaketime.so.1"));
    let found = libraries.find(|library| Path::new(library).is_file());
    found.expect("the package `faketime`, which `scripts/test` installs")
}
