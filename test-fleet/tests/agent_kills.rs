//! Power cuts: a fleet of real agents, each of which dies by SIGKILL at another journalled step of
//! an update, and some at any moment at all. What must hold: at every instant the active slot is one
//! whole release, and in the end every device rests on the right one and told its server once.
//!
//! The agent that kills itself is a program of its own (feature `faults`, `scripts/test` builds it); the one that goes
//! on afterwards is the shipped one.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use lockgate_agent::{
    clock::Stopwatch,
    slots::{Directory, Slots as _},
};
use lockgate_shared::manifest::{FileEntry, Manifest};
use lockgate_test_fleet::{
    process::{Programs, until},
    world::{
        Device, DevicePlan, PROFILES, World,
        app::Behaviour,
        plan::{ALIVE, By, Gate, Plan, Stage, Trial},
    },
};
use rusqlite::{Connection, OpenFlags};

/// One device dies after each of this many journal writes: an update takes some thirty, a rollback
/// forty.
const WRITES: u32 = 48;
/// One device dies after each of this many effects: an update takes some ten.
const EFFECTS: u32 = 12;
/// So many devices die at moments that have nothing to do with steps.
const RANDOM: u32 = 6;
/// How often each of those dies.
const RANDOM_KILLS: u32 = 4;
/// The longest such a device lives between two deaths.
const RANDOM_LIFE_MS: u64 = 2_500;

/// A stage of the test: far above what it takes on two slow cores.
const PATIENCE: Duration = Duration::from_secs(150);
/// Between two looks at every device.
const LOOK: Duration = Duration::from_millis(40);

const PRODUCT: &str = "tools";

#[test]
fn an_agent_killed_at_any_step_rests_on_a_whole_release_and_tells_its_server_once() {
    let faulty = agent_with_faults();
    let mut fleet = Fleet::enrolled();
    fleet.install("1.0.0");

    let cut = fleet.update(&faulty, "1.1.0", &Behaviour::Well, "1.1.0");
    for state in ["fetching", "staged", "activating", "trial", "confirmed"] {
        assert!(cut.contains(state), "nobody died while `{state}` stood in the journal: {cut:?}");
    }
    assert_eq!(fleet.told("1.1.0"), Told { confirmed: fleet.size(), rolled_back: 0, other: 0 });

    let crashes = Behaviour::CrashesOn { model: PROFILES[0].model.into() };
    let cut = fleet.update(&faulty, "1.2.0", &crashes, "1.1.0");
    for state in ["fetching", "staged", "activating", "trial", "rolling-back", "failed"] {
        assert!(cut.contains(state), "nobody died while `{state}` stood in the journal: {cut:?}");
    }
    assert_eq!(fleet.told("1.2.0"), Told { confirmed: 0, rolled_back: fleet.size(), other: 0 });

    let alarms = fleet.world.status().expect("a status").alarms;
    assert!(alarms.is_empty(), "the server saw contradictions: {alarms:?}");
}

/// When a device dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    AfterWrite(u32),
    AfterEffect(u32),
    AtAnyMoment { seed: u64 },
}

/// A device and what is still to happen to it.
struct Victim {
    device: Device,
    death: Death,
    deaths_left: u32,
    dice: Dice,
    born: Stopwatch,
    life: Duration,
}

/// What the gatekeeper counted of a rollout.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    confirmed: u32,
    rolled_back: u32,
    other: u32,
}

/// The signed files of each release, by its version.
type Releases = Arc<Mutex<BTreeMap<String, Vec<FileEntry>>>>;

struct Fleet {
    victims: Vec<Victim>,
    world: World,
    releases: Releases,
    _folder: tempfile::TempDir,
}

impl Fleet {
    fn enrolled() -> Self {
        let programs = Programs::find().expect("the programs");
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = World::create(folder.path(), &programs).expect("a world");
        world.set_polls(2).expect("a configuration");
        world.start().expect("a server");
        let deaths: Vec<Death> = (1..=WRITES)
            .map(Death::AfterWrite)
            .chain((1..=EFFECTS).map(Death::AfterEffect))
            .chain((1..=RANDOM).map(|n| Death::AtAnyMoment { seed: u64::from(n) }))
            .collect();
        let token = world.enrolment_token("globex", &deaths.len().to_string()).expect("a token");
        let victims = deaths
            .into_iter()
            .enumerate()
            .map(|(index, death)| {
                let plan = DevicePlan {
                    name: format!("device-{index}"),
                    tenant: "globex".into(),
                    profile: PROFILES[0].clone(),
                };
                let device = world.device(plan, &[PRODUCT], &token).expect("a device");
                Victim::new(device, death)
            })
            .collect();
        Self { victims, world, releases: Releases::default(), _folder: folder }
    }

    fn size(&self) -> u32 {
        u32::try_from(self.victims.len()).expect("few")
    }

    /// Everybody gets the first release, and nobody dies.
    fn install(&mut self, version: &str) {
        for victim in &mut self.victims {
            victim.device.start().expect("started");
        }
        self.roll_out(version, &Behaviour::Well);
        self.wait_for(&format!("{version} everywhere"), |device| device.rests_on(PRODUCT, version));
        self.stop();
    }

    /// Everybody updates, each dying in its own way. Gives the states that stood in the journals
    /// when somebody died.
    fn update(
        &mut self,
        faulty: &Path,
        version: &str,
        behaviour: &Behaviour,
        ends_on: &str,
    ) -> BTreeSet<String> {
        self.make_ready(version, behaviour);
        let watch = Watch::over(&self.victims, &self.releases);
        for victim in &mut self.victims {
            victim.begin(faulty);
        }
        let mut states = BTreeSet::new();
        let begun = Stopwatch::start();
        loop {
            for victim in &mut self.victims {
                states.extend(victim.look());
            }
            let tried = |victim: &Victim| victim.has_tried(version, ends_on);
            if self.victims.iter().all(|victim| victim.is_over() && tried(victim)) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                self.give_up(|victim| victim.is_over() && tried(victim));
            }
            thread::sleep(LOOK);
        }
        let deaths = self.victims.iter().filter(|victim| victim.deaths_left == 0).count();
        let took = begun.elapsed().as_secs();
        println!("{version}: {deaths} devices died, states {states:?}, {took} s");
        let looks = watch.end();
        assert!(looks > 100, "only {looks} looks were taken at active slots");
        self.wait_for_count(version);
        for victim in &self.victims {
            let whole = look_at(&victim.root(), &self.releases);
            assert_eq!(whole, Look::Whole, "{}", victim.device.said());
            assert_eq!(victim.device.version_on_disk(PRODUCT).as_deref(), Some(ends_on));
        }
        self.stop();
        states
    }

    /// Starts the rollout and waits until every device has heard that it may install, and waits for
    /// its own pin alone; then the pin is taken away. So each device's next start is an update from
    /// its first poll on.
    fn make_ready(&mut self, version: &str, behaviour: &Behaviour) {
        for victim in &mut self.victims {
            let running = victim.device.version_on_disk(PRODUCT).expect("something runs");
            let pin = format!("[[product]]\nname = \"{PRODUCT}\"\npin = \"{running}\"\n");
            victim.device.drop_in("50-hold.toml", &pin).expect("written");
            victim.device.start().expect("started");
        }
        self.roll_out(version, behaviour);
        self.wait_for(&format!("everybody is let in to {version}"), |device| {
            let reasons = device.reasons(PRODUCT, version);
            reasons.len() == 1 && reasons.iter().all(|reason| reason.contains("pinned"))
        });
        self.stop();
        for victim in &self.victims {
            victim.device.drop_in_gone("50-hold.toml").expect("removed");
        }
    }

    fn roll_out(&mut self, version: &str, behaviour: &Behaviour) {
        let plan = match behaviour {
            Behaviour::Well => PLAN,
            // Nothing is won by waiting for it.
            Behaviour::CrashesOn { .. } => {
                Plan { trial: Trial { deadline_s: 3, ..PLAN.trial }, ..PLAN }
            }
        };
        let release = self.world.release(PRODUCT, version, behaviour, plan).expect("a release");
        let manifest = std::fs::read(release.join("manifest.json")).expect("a manifest");
        let manifest = Manifest::from_json(&manifest).expect("a right one");
        let files = manifest.artifacts.first().expect("an artifact").files.clone();
        lock(&self.releases).insert(version.to_owned(), files);
        let cohorts = [("everyone", self.size())];
        self.world.start_rollout(PRODUCT, version, &release, &cohorts).expect("a rollout");
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Device) -> bool) {
        let all = || self.victims.iter().all(|victim| holds(&victim.device));
        if until(what, PATIENCE, all).is_err() {
            println!("{what} did not come about");
            self.give_up(|victim| holds(&victim.device));
        }
    }

    fn wait_for_count(&self, version: &str) {
        let counted = || {
            let told = self.told(version);
            told.confirmed + told.rolled_back + told.other >= self.size()
        };
        if until("everybody is counted", PATIENCE, counted).is_err() {
            println!("{:?}\n{}", self.told(version), self.world.said());
            panic!("the gatekeeper has not counted everybody");
        }
    }

    fn told(&self, version: &str) -> Told {
        let Some(rollout) = self.world.rollout(PRODUCT, version) else {
            return Told { confirmed: 0, rolled_back: 0, other: 0 };
        };
        let sum = |number: fn(&lockgate_server::status::StageStatus) -> u32| {
            rollout.stages.iter().map(number).sum()
        };
        Told {
            confirmed: sum(|stage| stage.confirmed),
            rolled_back: sum(|stage| stage.rolled_back),
            other: sum(|stage| stage.failed + stage.inconclusive + stage.silent),
        }
    }

    fn stop(&mut self) {
        for victim in &mut self.victims {
            victim.device.stop();
        }
    }

    /// Ends the test with what the first device that is not well has to say.
    fn give_up(&self, well: impl Fn(&Victim) -> bool) -> ! {
        println!("{:#?}", self.world.status().map(|status| (status.rollouts, status.alarms)));
        let ill: Vec<&Victim> = self.victims.iter().filter(|victim| !well(victim)).collect();
        let first = ill.first().expect("somebody is ill, or nobody would give up");
        println!("{}\n{:#?}", first.device.said(), first.device.status());
        let deaths: Vec<Death> = ill.iter().map(|victim| victim.death).collect();
        panic!("{} devices did not come to rest: {deaths:?}", ill.len());
    }
}

impl Victim {
    fn new(device: Device, death: Death) -> Self {
        let seed = match death {
            Death::AfterWrite(_) | Death::AfterEffect(_) => 0,
            Death::AtAnyMoment { seed } => seed,
        };
        let (born, life) = (Stopwatch::start(), Duration::ZERO);
        Self { device, death, deaths_left: 0, dice: Dice(seed), born, life }
    }

    /// Starts the agent that is going to die.
    fn begin(&mut self, faulty: &Path) {
        let dies_at = |at: String| [("LOCKGATE_FAULT_KILL_AT", at)];
        let environment = match self.death {
            Death::AfterWrite(number) => dies_at(number.to_string()),
            Death::AfterEffect(number) => dies_at(format!("{number}+")),
            Death::AtAnyMoment { .. } => {
                self.deaths_left = RANDOM_KILLS;
                return self.live();
            }
        };
        self.deaths_left = 1;
        let environment = environment.each_ref().map(|(name, at)| (*name, at.as_str()));
        self.device.start_program(faulty, &[], &environment).expect("started");
    }

    /// Starts the shipped agent, for a while of its own.
    fn live(&mut self) {
        self.device.start().expect("started");
        self.born = Stopwatch::start();
        self.life = Duration::from_millis(self.dice.up_to(RANDOM_LIFE_MS));
    }

    /// Kills whom it is time for and starts the dead again. Gives the state in which one died.
    fn look(&mut self) -> Option<String> {
        let random = matches!(self.death, Death::AtAnyMoment { .. });
        if random && self.deaths_left > 0 && self.born.elapsed() >= self.life {
            self.device.kill();
            self.deaths_left -= 1;
            let state = self.state_on_disk();
            self.live();
            return state;
        }
        let process = self.device.process().expect("it was started");
        let ended = process.ended().expect("watched")?;
        let said = || self.device.said();
        assert_eq!(ended.signal(), Some(9), "the agent ended by itself: {}", said());
        assert!(self.deaths_left > 0, "the shipped agent died: {}", said());
        self.deaths_left -= 1;
        let state = self.state_on_disk();
        self.live();
        state
    }

    /// Whether it has died as often as it should. One that was to die after more effects than its
    /// update took lives on.
    fn is_over(&self) -> bool {
        match self.death {
            Death::AfterEffect(_) => true,
            Death::AfterWrite(_) | Death::AtAnyMoment { .. } => self.deaths_left == 0,
        }
    }

    /// Whether the update has come to its end, and the device to rest.
    fn has_tried(&self, version: &str, ends_on: &str) -> bool {
        let failed = self.device.product(PRODUCT).is_some_and(|product| {
            product.failed.iter().any(|failed| failed.to_string() == version)
        });
        (version == ends_on) != failed && self.device.rests_on(PRODUCT, ends_on)
    }

    fn root(&self) -> PathBuf {
        self.device.folder().join(PRODUCT)
    }

    /// The state that stands in the journal.
    fn state_on_disk(&self) -> Option<String> {
        let path = self.device.folder().join("state/journal.db");
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        let key = format!("product/{PRODUCT}");
        let query = "SELECT value FROM state WHERE key = ?1";
        let bytes: Vec<u8> = db.query_row(query, [key], |row| row.get(0)).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let state = &record["state"];
        let name = state.as_str().or_else(|| state.as_object()?.keys().next().map(String::as_str));
        Some(name?.to_owned())
    }
}

/// Looks at every device's active slot over and over, beside what else happens.
struct Watch {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<u64>,
}

/// What a look at an active slot showed.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Whole,
    /// It was switched while looked at.
    Switched,
    Broken(String),
}

impl Watch {
    fn over(victims: &[Victim], releases: &Releases) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let roots: Vec<PathBuf> = victims.iter().map(Victim::root).collect();
        let (ended, releases) = (Arc::clone(&over), Arc::clone(releases));
        let thread = thread::spawn(move || {
            let mut looks = 0;
            while !ended.load(Ordering::SeqCst) {
                for root in &roots {
                    match look_at(root, &releases) {
                        Look::Whole => looks += 1,
                        Look::Switched => {}
                        Look::Broken(why) => panic!("`{}`: {why}", root.display()),
                    }
                }
                thread::sleep(LOOK);
            }
            looks
        });
        Self { over, thread }
    }

    /// Ends it. Gives how many looks it took.
    fn end(self) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().expect("every active slot was whole at every look")
    }
}

/// Whether the link resolves to a sealed slot that holds exactly the files of its release.
fn look_at(root: &Path, releases: &Releases) -> Look {
    let slots = Directory::open(root).expect("a folder");
    let active = slots.active();
    let found = match &active {
        Ok(Some(slot)) => match slots.contents(*slot) {
            Ok(Some(contents)) => {
                let releases = lock(releases);
                let files = releases.get(&contents.version.to_string()).expect("it was released");
                slots.verify(*slot, files).map_err(|error| format!("{error}"))
            }
            Ok(None) => Err(format!("slot `{slot}` is active and not sealed")),
            Err(error) => Err(error.to_string()),
        },
        Ok(None) => Err("no slot is active".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok(()) => Look::Whole,
        Err(_) if slots.active().ok() != active.ok() => Look::Switched,
        Err(why) => Look::Broken(why),
    }
}

/// A seeded sequence (splitmix64): the same moments in every run.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % (most + 1)
    }
}

/// The agent that kills itself, built beside the shipped one.
fn agent_with_faults() -> PathBuf {
    Programs::built("lockgate-agent-faults")
        .expect("cargo build -p lockgate-agent --features faults --bin lockgate-agent-faults")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everybody at once, and no gate that stops a bad release: what counts here is each device.
const PLAN: Plan<'static> = Plan {
    kind: "app",
    trial: Trial { soak_s: 2, deadline_s: 30, attempts: 20, probes: &[ALIVE] },
    stages: &[Stage { cohort: "everyone", floor_s: 0, bake_s: 2, by: By::Count(Gate::OPEN) }],
};
