//! The agent updates itself, as real processes against a real server: a good successor takes over in
//! the same process, a bad one is put back by the old agent that guards it, and the gatekeeper hears
//! of both. Nothing starts the agent again but itself.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use lockgate_test_fleet::{
    process::{Process, Programs, until},
    world::{
        Device, DevicePlan, PROFILES, World,
        app::Behaviour,
        plan::{Gate, Plan, Stage, Trial},
    },
};

/// How long a release may take from its start to its outcome on a busy machine.
const SOON: Duration = Duration::from_secs(90);

const BINARY: &str = "lockgate-agent";

#[test]
fn a_good_agent_takes_over_and_bad_ones_are_put_back_without_anybodys_help() {
    let bench = &mut Bench::new();
    let old = bench.installed_bytes();

    // One that starts, says its version, and then dies.
    bench.publish("1.1.0", &script("exit 1"));
    bench.refuses("1.1.0");
    assert!(bench.installed_bytes() == old, "the old binary is not installed");
    assert!(bench.said().contains("as often as it may"), "{}", bench.said());

    // One that starts and does nothing.
    bench.publish("1.2.0", &script("exec sleep 600"));
    bench.refuses("1.2.0");
    assert!(bench.installed_bytes() == old, "the old binary is not installed");
    assert!(bench.said().contains("no sign within"), "{}", bench.said());

    // The agent itself, as other bytes.
    let mut new = old;
    new.extend_from_slice(b"1.3.0");
    bench.publish("1.3.0", &new);
    bench.wait("the gatekeeper hears of 1.3.0", |it| {
        it.world.rollout("agent", "1.3.0").is_some_and(|it| it.stages[0].confirmed == 1)
    });
    bench.wait("1.3.0 is installed", |it| it.installed_bytes() == new);
    let (before, pid) = (bench.polled(), bench.process.id());
    bench.wait("1.3.0 works", |it| it.polled() > before && it.holder() == Some(pid));
    assert!(matches!(bench.process.ended(), Ok(None)), "the service's process ended");
    assert_eq!(bench.running().as_deref(), Some("1.3.0"));
    assert!(!bench.device.folder().join("state/handover/watchword.json").exists());

    // Neither bad one was tried again.
    for version in ["1.1.0", "1.2.0"] {
        let line = format!("watching over version {version}");
        assert_eq!(bench.said().matches(&line).count(), 1, "{}", bench.said());
    }
}

#[test]
fn a_power_cut_during_the_trial_neither_loses_the_guard_nor_the_verdict() {
    let bench = &mut Bench::new();
    let old = bench.installed_bytes();
    bench.publish("1.1.0", &script("exec sleep 600"));
    let line = "watching over version 1.1.0";
    bench.wait("the trial", |it| it.said().contains(line));
    bench.process.kill();
    bench.start();
    bench.wait("the guard is back", |it| it.said().matches(line).count() == 2);
    bench.refuses("1.1.0");
    assert!(bench.installed_bytes() == old, "the old binary is not installed");
}

struct Bench {
    process: Process,
    device: Device,
    world: World,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let programs = Programs::find().expect("built");
        let mut world = World::create(&folder.path().join("world"), &programs).expect("a world");
        world.start().expect("a server");
        let token = world.enrolment_token("acme", "1").expect("a token");
        let plan = DevicePlan {
            name: "kiosk".into(),
            tenant: "acme".into(),
            profile: PROFILES[0].clone(),
        };
        let device = world.device(plan, &["app"], &token).expect("enrolled");
        let installed = install(&device, &programs.agent);
        let process = run(&device, &installed);
        let bench = Self { process, device, world, _folder: folder };
        bench.wait("the first poll", |it| it.polled().is_some());
        bench
    }

    fn start(&mut self) {
        self.process = run(&self.device, &self.installed());
    }

    /// Releases an agent and starts its rollout.
    fn publish(&self, version: &str, binary: &[u8]) {
        let files = self.world.path("releases").join(format!("agent-{version}/files"));
        fs::create_dir_all(&files).expect("made");
        write_program(&files.join(BINARY), binary);
        let world = &self.world;
        let release = world.release("agent", version, &Behaviour::Well, PLAN).expect("released");
        world.start_rollout("agent", version, &release, &[("everyone", 1)]).expect("started");
    }

    /// Waits until a version was put back, everybody knows, and the agent works.
    fn refuses(&self, version: &str) {
        self.wait(&format!("the gatekeeper hears of {version}"), |it| {
            it.world.rollout("agent", version).is_some_and(|it| it.stages[0].rolled_back == 1)
        });
        self.wait(&format!("{version} is remembered"), |it| {
            it.device
                .product("agent")
                .is_some_and(|it| it.failed.iter().any(|failed| failed.to_string() == version))
        });
        let before = self.polled();
        self.wait("the old agent works", |it| it.polled() > before);
        assert!(!self.device.folder().join("state/handover/watchword.json").exists());
        assert_ne!(self.running().as_deref(), Some(version));
    }

    fn wait(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let outcome = until(what, SOON, || holds(self));
        let said = || format!("{}\n{}\n{:?}", self.said(), self.world.said(), self.world.status());
        assert!(outcome.is_ok(), "{outcome:?}\n{}", said());
    }

    fn polled(&self) -> Option<lockgate_shared::time::Moment> {
        self.device.status()?.contact.last
    }

    fn running(&self) -> Option<String> {
        self.device.product("agent")?.running.map(|version| version.to_string())
    }

    /// The process that works in the state folder.
    fn holder(&self) -> Option<u32> {
        let text = fs::read_to_string(self.device.folder().join("state/lock")).ok()?;
        text.trim().parse().ok()
    }

    fn installed(&self) -> PathBuf {
        self.device.folder().join("bin").join(BINARY)
    }

    fn installed_bytes(&self) -> Vec<u8> {
        fs::read(self.installed()).expect("installed")
    }

    fn said(&self) -> String {
        self.process.said()
    }
}

/// Installs a copy of the agent, and has it update itself.
fn install(device: &Device, agent: &Path) -> PathBuf {
    let installed = device.folder().join("bin").join(BINARY);
    fs::create_dir_all(device.folder().join("bin")).expect("made");
    fs::copy(agent, &installed).expect("copied");
    let mut config =
        OpenOptions::new().append(true).open(device.folder().join("agent.toml")).expect("laid out");
    write!(
        config,
        "\n[[product]]\nname = \"agent\"\nslots = \"agent\"\nroot = \"{}\"\ninstalled = \"{}\"\n",
        device.folder().join("own").display(),
        installed.display()
    )
    .expect("written");
    installed
}

fn run(device: &Device, installed: &Path) -> Process {
    let config = device.folder().join("agent.toml").display().to_string();
    let log = device.folder().join("agent.log");
    Process::start("kiosk", installed, &["--config", &config, "run"], &[], &log).expect("started")
}

/// An agent that says its version, and otherwise does this.
fn script(otherwise: &str) -> Vec<u8> {
    format!(
        "#!/bin/sh\ncase \"$*\" in --version) echo lockgate-agent; exit 0;; esac\n{otherwise}\n"
    )
    .into_bytes()
}

fn write_program(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("changed");
}

/// One stage that lets everybody in at once. Its trial asks for nothing: contact is an agent's always.
const PLAN: Plan<'static> = Plan {
    kind: "agent",
    trial: Trial {
        soak_s: 2,
        deadline_s: 12,
        attempts: 2,
        probes: &[r#"{ name = "contact", kind = "contact", interval_s = 1 }"#],
    },
    stages: &[Stage::at_once("everyone", Gate { max_failure_ppm: 900_000, ..Gate::CAREFUL })],
};
