//! Devices with a TPM: `swtpm` plays it, on a socket. Their keys are sealed, other TPMs do not unseal
//! them, and a disk that was put back installs nothing.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{net::UnixStream, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lockgate_agent::{
    config::{Sealing, TpmSettings},
    core::age,
    identity::{self, IdentityError, KEY_FILE, Kept},
    journal,
    tpm::{Counter as _, CounterPlace, Tpm, TpmError},
};
use lockgate_shared::failure::Chain;
use lockgate_test_fleet::{
    process::{Process, Programs, until},
    world::{
        Device, DevicePlan, PROFILES, World,
        app::{self, Behaviour},
        plan::{ALIVE, By, Gate, Plan, Stage, Trial},
    },
};
use tempfile::TempDir;

const PRODUCT: &str = "tools";
/// A stage of a story: far above what it takes on two slow cores.
const PATIENCE: Duration = Duration::from_secs(60);
/// More journal writes than the first turn of an agent takes.
const WRITES_MOST: u32 = 60;

#[test]
fn a_sealed_key_survives_restarts_and_no_other_tpm_unseals_it() {
    let (state, mut chip) = (folder(), Chip::new());
    let settings = chip.settings(Sealing::Auto);
    let made = identity::key_or_new(state.path(), &settings).expect("a key");
    assert!(matches!(made.kept, Kept::Sealed(Some(_))), "{:?}", made.kept);
    let file = fs::read(state.path().join(KEY_FILE)).expect("a file");
    let secret = made.key.as_bytes();
    assert!(!file.windows(8).any(|part| secret.windows(8).any(|piece| piece == part)));
    chip.restart();
    let again = identity::key_or_new(state.path(), &settings).expect("the key");
    assert_eq!((again.key, again.kept), (made.key, made.kept));

    let other = Chip::new();
    let refused = identity::key_or_new(state.path(), &other.settings(Sealing::Auto));
    let refused = refused.expect_err("another TPM unsealed it");
    let IdentityError::Unsealed { source: TpmError::Foreign, .. } = &refused else {
        panic!("{refused}")
    };
    let text = Chain(&refused).to_string();
    for part in ["another TPM sealed it", "runs on", "enrol anew"] {
        assert!(text.contains(part), "{text}");
    }
    let changed = [&file[..60], &[file[60] ^ 1], &file[61..]].concat();
    fs::write(state.path().join(KEY_FILE), changed).expect("written");
    let refused = identity::key(state.path(), &settings).expect_err("it was changed");
    assert!(matches!(refused, IdentityError::Unsealed { .. }), "{refused}");
    fs::write(state.path().join(KEY_FILE), &file).expect("put back");
    assert!(identity::key(state.path(), &settings).is_ok(), "the TPM locked its owner out");
}

#[test]
fn the_storage_key_that_persists_is_used_where_there_is_one_and_is_not_missed_when_it_goes() {
    let (state, chip) = (folder(), Chip::new());
    let settings = chip.settings(Sealing::Require);
    chip.persist_storage_root();
    let made = identity::key_or_new(state.path(), &settings).expect("a key");
    // Asked for again it goes: it has the template's key, which is made for the moment then.
    chip.persist_storage_root();
    let again = identity::key(state.path(), &settings).expect("the key");
    assert_eq!(again.key, made.key);
}

#[test]
fn a_counter_only_rises_opens_to_its_key_alone_and_takes_nobodys_place() {
    let (state, mut chip) = (folder(), Chip::new());
    let settings = chip.settings(Sealing::Require);
    let made = identity::key_or_new(state.path(), &settings).expect("a key");
    let (mut counter, start) = made.counter(state.path(), &settings).expect("a counter");
    assert_eq!(counter.value().expect("read"), start.value);
    assert_eq!(counter.step().expect("stepped"), start.value + 1);
    chip.restart();
    assert_eq!(counter.value().expect("read"), start.value + 1);

    // A key made anew has the counter's place, above all that was ever counted there.
    fs::rename(state.path().join(KEY_FILE), state.path().join("old.key")).expect("moved");
    let anew = identity::key_or_new(state.path(), &settings).expect("a key");
    let (mut next, then) = anew.counter(state.path(), &settings).expect("a counter");
    assert_eq!(then.index, start.index);
    assert!(then.value > start.value + 1, "{then:?}");
    let refused = counter.step().expect_err("another key's counter was stepped");
    assert!(Chain(&refused).to_string().contains("password"), "{refused}");
    assert_eq!(next.value().expect("read"), then.value);

    let strangers = CounterPlace::of(Path::new("/elsewhere"), Some(then.index), &[3; 32]);
    let taken = Tpm::open(&settings.device).and_then(|mut tpm| tpm.make_counter(&strangers));
    assert!(matches!(taken, Err(TpmError::Taken(index)) if index == then.index), "{taken:?}");
    assert_eq!(next.value().expect("read"), then.value, "it was replaced all the same");
}

#[test]
fn a_disk_that_was_put_back_installs_nothing_until_it_is_enrolled_anew() {
    let (mut world, chip) = (Fleet::new(), Chip::new());
    let mut device = world.device("laptop", &chip);
    let doctor = device.command(&["doctor"]).expect("nothing is wrong");
    assert!(doctor.contains("sealed in the TPM"), "{doctor}");
    device.start().expect("started");
    world.install(&device, "1.0.0");
    device.stop();
    let backup = folder();
    copy(device.folder(), backup.path());

    device.start().expect("started");
    world.install(&device, "1.1.0");
    let doctor = device.command(&["doctor"]).expect("all is well");
    assert!(doctor.contains("is the newest, after"), "{doctor}");
    device.stop();
    app::stop(&device.folder().join(PRODUCT));

    // Slots and all: what runs is 1.0.0 again, and 1.1.0 is open to everybody.
    copy(backup.path(), device.folder());
    device.start().expect("started");
    let told = || device.status().is_some_and(|status| status.state_problem.is_some());
    until("the owner is told", PATIENCE, told).expect("told");
    let refuses = || {
        let product = device.product(PRODUCT).expect("a product");
        product.state_text.contains("nothing is installed by this state")
    };
    if until("it polls and refuses", PATIENCE, refuses).is_err() {
        panic!("{:#?}\n{}", device.status(), device.said());
    }
    assert_eq!(device.version_on_disk(PRODUCT).as_deref(), Some("1.0.0"));
    let doctor = device.command(&["doctor"]).expect_err("a fault").to_string();
    assert!(doctor.contains("restored from a backup") && doctor.contains("enrol anew"), "{doctor}");
    device.stop();

    for file in ["enrolment.json", KEY_FILE] {
        fs::remove_file(device.folder().join("state").join(file)).expect("removed");
    }
    device.enroll(&world.token()).expect("enrolled anew");
    device.start().expect("started");
    world.rests_on(&device, "1.1.0");
    assert_eq!(device.status().expect("a status").state_problem, None);
}

#[test]
fn an_agent_killed_at_any_write_around_a_step_of_the_counter_goes_on() {
    let faulty = Programs::built("lockgate-agent-faults").expect("built with its feature");
    let fleet = Fleet::new();
    let mut half_written = 0;
    // Another chip and device for the death between the step and its entry: the first effect is the step.
    for (name, deaths) in [
        ("writes", (1..=WRITES_MOST).map(|n| n.to_string()).collect::<Vec<_>>()),
        ("effect", vec!["1+".to_owned()]),
    ] {
        let chip = Chip::new();
        let device = fleet.device(name, &chip);
        let state = device.folder().join("state");
        let settings = chip.settings(Sealing::Require);
        let key = identity::key(&state, &settings).expect("the key");
        let (mut counter, start) = key.counter(&state, &settings).expect("a counter");
        for at in deaths {
            let died = turn(&faulty, &device, &at);
            let tally = journal::tally(&state);
            half_written += u32::from(tally.is_some_and(|tally| tally.rising.is_some()));
            assert!(!device.said().contains("nothing is installed"), "{}", device.said());
            if !died {
                break;
            }
        }
        device.command(&["check"]).expect("a turn");
        let status = device.status().expect("a status");
        assert_eq!(status.state_problem, None, "killed around a step of the counter");
        let stands = counter.value().expect("read");
        assert_eq!(stands, start.value + 1, "one rise is one step");
        let tally = journal::tally(&state).expect("written");
        assert_eq!(age::judge(tally, stands).problem(), None);
    }
    assert!(half_written >= 2, "only {half_written} deaths were between intent and entry");
}

/// A TPM that `swtpm` plays.
struct Chip {
    folder: TempDir,
    process: Process,
}

impl Chip {
    fn new() -> Self {
        let folder = folder();
        fs::create_dir(folder.path().join("state")).expect("made");
        let process = Self::start(folder.path());
        Self { folder, process }
    }

    fn start(folder: &Path) -> Process {
        let socket = folder.join("socket");
        let _ = fs::remove_file(&socket);
        let state = format!("dir={}", folder.join("state").display());
        let server = format!("type=unixio,path={}", socket.display());
        let flags = "startup-clear,not-need-init";
        let arguments =
            ["socket", "--tpm2", "--tpmstate", &state, "--server", &server, "--flags", flags];
        let log = folder.join("log");
        let process = Process::start("swtpm", Path::new("swtpm"), &arguments, &[], &log);
        let process = process.expect("`apt-get install swtpm`");
        until("the TPM's start", PATIENCE, || UnixStream::connect(&socket).is_ok())
            .unwrap_or_else(|late| panic!("{late}: {}", process.said()));
        process
    }

    /// Power off and on again.
    fn restart(&mut self) {
        self.process.kill();
        self.process = Self::start(self.folder.path());
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn settings(&self, sealing: Sealing) -> TpmSettings {
        TpmSettings { sealing, device: self.socket(), counter: None }
    }

    /// Has the key of the storage template persist where TCG says; asked again, no more.
    fn persist_storage_root(&self) {
        const ROOT: &str = "81000001";
        let create = lockgate_agent::tpm::wire::create_primary();
        let made = self.ask(&create);
        let handle = hex::encode(&made[10..14]);
        let there = self.ask(&unhex(&format!("8001 0000000e 00000173 {ROOT}")));
        let object = if there[6..10] == [0; 4] { ROOT } else { &handle };
        let session = "00000009 40000009 0000 00 0000";
        // TPM2_EvictControl by the owner.
        let evict = format!("8002 00000023 00000120 40000001 {object} {session} {ROOT}");
        let done = self.ask(&unhex(&evict));
        assert_eq!(done[6..10], [0; 4], "{}", hex::encode(&done));
        let flushed = self.ask(&unhex(&format!("8001 0000000e 00000165 {handle}")));
        assert_eq!(flushed[6..10], [0; 4], "{}", hex::encode(&flushed));
    }

    fn ask(&self, command: &[u8]) -> Vec<u8> {
        let mut line = UnixStream::connect(self.socket()).expect("the TPM");
        line.write_all(command).expect("sent");
        let mut answer = vec![0; 10];
        line.read_exact(&mut answer).expect("a header");
        let size = u32::from_be_bytes([answer[2], answer[3], answer[4], answer[5]]);
        answer.resize(usize::try_from(size).expect("short"), 0);
        line.read_exact(&mut answer[10..]).expect("the rest");
        answer
    }
}

/// A server and its devices.
struct Fleet {
    world: World,
    _folder: TempDir,
}

impl Fleet {
    fn new() -> Self {
        let programs = Programs::find().expect("the programs");
        let folder = folder();
        let mut world = World::create(folder.path(), &programs).expect("a world");
        world.set_polls(1).expect("a configuration");
        world.start().expect("a server");
        Self { world, _folder: folder }
    }

    fn token(&self) -> String {
        self.world.enrolment_token("globex", "1").expect("a token")
    }

    /// Enrols a device whose owner wants its key in this TPM.
    fn device(&self, name: &str, chip: &Chip) -> Device {
        let drop_ins = self.world.path("devices").join(name).join("agent.d");
        fs::create_dir_all(&drop_ins).expect("made");
        let socket = chip.socket().display().to_string();
        let text = format!("tpm = \"require\"\ntpm_device = \"{socket}\"\n");
        fs::write(drop_ins.join("50-tpm.toml"), text).expect("written");
        let plan =
            DevicePlan { name: name.into(), tenant: "globex".into(), profile: PROFILES[0].clone() };
        self.world.device(plan, &[PRODUCT], &self.token()).expect("a device")
    }

    fn install(&mut self, device: &Device, version: &str) {
        let release = self.world.release(PRODUCT, version, &Behaviour::Well, PLAN);
        let release = release.expect("a release");
        let cohorts = [("everyone", 1)];
        self.world.start_rollout(PRODUCT, version, &release, &cohorts).expect("a rollout");
        self.rests_on(device, version);
    }

    fn rests_on(&self, device: &Device, version: &str) {
        if until(version, PATIENCE, || device.rests_on(PRODUCT, version)).is_err() {
            panic!("not on {version}: {:#?}\n{}", device.status(), device.said());
        }
    }
}

/// Has an agent with faults take one turn. Says whether it died.
fn turn(faulty: &Path, device: &Device, at: &str) -> bool {
    let config = device.folder().join("agent.toml");
    let log = fs::OpenOptions::new().create(true).append(true).open(device.log()).expect("a log");
    let ended = Command::new(faulty)
        .arg("--config")
        .arg(config)
        .arg("check")
        .env("LOCKGATE_FAULT_KILL_AT", at)
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .status()
        .expect("started");
    let died = ended.signal() == Some(9);
    assert!(died || ended.success(), "it failed by itself: {}", device.said());
    died
}

/// Everybody at once.
const PLAN: Plan<'static> = Plan {
    kind: "app",
    trial: Trial { soak_s: 1, deadline_s: 30, attempts: 3, probes: &[ALIVE] },
    stages: &[Stage { cohort: "everyone", floor_s: 0, bake_s: 1, by: By::Count(Gate::OPEN) }],
};

/// Makes one folder what another is, links and all.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("sh")
        .args(["-c", "rm -rf \"$2\" && cp -a \"$1\" \"$2\"", "copy"])
        .args([from, to])
        .status();
    assert!(done.expect("started").success(), "{} was not copied", from.display());
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).expect("hex")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}
