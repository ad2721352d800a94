//! What the world may throw at an agent: servers, metadata, artifacts, disks, clocks and
//! configurations that are not as they should be. Each is refused with a message that says what it is
//! and what to do; what runs goes on running and is not touched; and once the world is right again, the
//! agent goes on by itself.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use lockgate_agent::status::Status;
use lockgate_test_fleet::{
    own_mounts::OwnMounts,
    process::{Programs, until},
    world::{
        Device, DevicePlan, PROFILES, World,
        app::Behaviour,
        plan::{ALIVE, By, Gate, Plan, Stage, Trial},
    },
};
use rustix::process::{Pid, Signal, kill_process};

const PRODUCT: &str = "tools";
/// Some polls, a trial, a backoff: far below this on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_wrong_configuration_is_refused_with_its_place_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("agent.toml");
    let good = format!(
        "server = \"https://127.0.0.1:1\"\nstate = \"{0}/state\"\nanchor = \"{0}/root.json\"\nca = \"{0}/ca.pem\"\n[[product]]\nname = \"tools\"\nslots = \"directory\"\nroot = \"{0}/tools\"\n",
        folder.path().display()
    );
    let cases = [
        (
            "poll_s = \"300\"\n",
            "agent.toml:1:10: expected a number of seconds, found a string; hint: write `poll_s = 300`",
        ),
        ("pol_s = 300\n", "agent.toml:1:1: unknown key `pol_s`; hint: did you mean `poll_s`?"),
    ];
    for (line, expected) in cases {
        fs::write(&config, format!("{line}{good}")).expect("written");
        for command in ["run", "check-config"] {
            let output = agent(&config, &[command]);
            assert_eq!(output.status.code(), Some(3), "{command}: {output:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(expected), "{command}: {said}");
        }
    }
    let made = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(made, 1, "something was made beside the configuration");
}

#[test]
fn a_server_or_repository_that_is_not_right_is_not_followed() {
    let (mut site, mut device) = Site::new(&[("\ntimestamp_interval_s = 5\n", EXPIRES_SOON)]);
    install(&mut device);
    let before = Kept::of(&device);

    // Somebody else's certificate.
    let foreign = site.world.authority("foreign").expect("another authority");
    device.stop();
    device.drop_in("50-ca.toml", &format!("ca = \"{}\"\n", foreign.display())).expect("written");
    device.start().expect("started");
    expect_problem(&mut device, &["is not trusted", "and another key", "hint: put"]);
    device.stop();
    device.drop_in_gone("50-ca.toml").expect("removed");
    device.start().expect("started");
    expect_well(&mut device);

    // Nobody answers: it asks more and more seldom, and goes on when somebody does.
    site.world.kill_api();
    expect_problem(&mut device, &["cannot reach", "hint: check the network"]);
    expect(&mut device, "the pause grows", |status| {
        let next = status.contact.next_poll.expect("a poll is planned");
        next.since(status.taken).0 >= BACKS_OFF_S
    });
    site.world.start_api().expect("started");
    expect_well(&mut device);

    // Metadata that is not signed anew.
    site.world.kill_gatekeeper();
    expect_problem(&mut device, &["`timestamp` version", "expired"]);
    site.world.start_gatekeeper().expect("started");
    expect_well(&mut device);

    // An older copy of the metadata.
    let path = site.world.path("repository/metadata/timestamp.json");
    let old = fs::read(&path).expect("a timestamp");
    let seen = device.status().expect("a status").refresh.timestamp_version;
    expect(&mut device, "newer ones are seen", |status| {
        status.refresh.timestamp_version > seen.map(|seen| seen + 1)
    });
    site.world.kill_gatekeeper();
    let new = fs::read(&path).expect("a timestamp");
    fs::write(&path, &old).expect("put back");
    expect_problem(&mut device, &["`timestamp` is offered in version", "was seen"]);
    fs::write(&path, &new).expect("mended");
    site.world.start_gatekeeper().expect("started");
    expect_well(&mut device);

    assert_eq!(Kept::of(&device), before, "{}", device.said());
}

#[test]
fn an_artifact_that_is_not_as_signed_runs_nowhere() {
    let (site, mut device) = Site::new(&[]);
    install(&mut device);
    let before = Kept::of(&device);

    // Cut short, as by a disk that filled up: passing, and tried again.
    let whole = site.roll_out("1.1.0", |bytes| bytes.truncate(bytes.len() / 2));
    expect_said(&mut device, "1.1.0", &["bytes, ", "are signed"]);
    assert_eq!(Kept::of(&device), before, "{}", device.said());
    whole.mend();
    expect_rest(&mut device, "1.1.0");

    // One bit: it is asked for more and more seldom, never runs, and is taken once it is right.
    let before = Kept::of(&device);
    let flipped = site.roll_out("1.2.0", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    expect_said(&mut device, "1.2.0", &["these are not the signed bytes"]);
    expect(&mut device, "it pauses", |status| {
        status.products.iter().any(|product| {
            let text = &product.state_text;
            text.contains("fetches 1.2.0 again from") && text.contains("other bytes")
        })
    });
    expect(&mut device, "1.1.0 runs on", |status| runs(status, "1.1.0"));
    assert_eq!(Kept::of(&device), before, "{}", device.said());
    flipped.mend();
    expect_rest(&mut device, "1.2.0");
}

#[test]
fn a_full_or_read_only_disk_keeps_the_old_release_until_there_is_room() {
    let (site, mut device) = Site::new(&[]);
    let disk = Disk::under(&mut device);
    expect(&mut device, "1.0.0 runs", |status| runs(status, "1.0.0"));
    let root = disk.root();
    let before = Kept::at(&root);

    // Less than what always stays free: found before anything is fetched.
    let filler = root.join("filler");
    fs::write(&filler, vec![1; 48 << 20]).expect("there is room for it");
    let _good = site.roll_out("1.1.0", |_| ());
    expect_said(&mut device, "1.1.0", &["bytes are needed and", "hint: make room on the disk"]);
    assert_eq!(Kept::at(&root), before, "{}", device.said());
    fs::remove_file(&filler).expect("removed");
    expect(&mut device, "1.1.0 runs", |status| runs(status, "1.1.0"));

    // Nothing at all: it does not even begin.
    let before = Kept::at(&root);
    fill_up(&filler);
    let _good = site.roll_out("1.2.0", |_| ());
    expect_reason(&mut device, "1.2.0", "MiB of disk, 0 are free");
    assert_eq!(Kept::at(&root), before, "{}", device.said());
    fs::remove_file(&filler).expect("removed");
    expect(&mut device, "1.2.0 runs", |status| runs(status, "1.2.0"));

    // A file system that was turned read-only.
    let before = Kept::at(&root);
    disk.remount("ro");
    let _good = site.roll_out("1.3.0", |_| ());
    let said = ["the file system is read-only", "hint: `mount -o remount,rw`"];
    expect_said(&mut device, "1.3.0", &said);
    assert_eq!(Kept::at(&root), before, "{}", device.said());
    disk.remount("rw");
    expect(&mut device, "1.3.0 runs", |status| runs(status, "1.3.0"));
}

#[test]
fn a_wrong_clock_a_second_agent_and_a_refused_letter_each_say_what_they_are() {
    let (site, mut device) = Site::new(&[]);
    install(&mut device);
    let before = Kept::of(&device);

    let second = agent(&device.folder().join("agent.toml"), &["run"]);
    assert_eq!(second.status.code(), Some(7), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr);
    let first = device.process().expect("it runs").id();
    assert!(said.contains(&format!("(process {first})")), "{said}");
    assert!(said.contains("hint: `systemctl stop lockgate-agent`"), "{said}");

    let library = fake_clock();
    wrong_clock(&mut device, &library, "-365d", "has expired or is not valid yet");
    wrong_clock(&mut device, &library, "+400d", "expired");

    // A letter that the server will never take.
    device.stop();
    let path = device.folder().join("state/enrolment.json");
    let right = fs::read_to_string(&path).expect("an enrolment");
    fs::write(&path, right.replace("globex", "acme")).expect("written");
    device.start().expect("started");
    expect_contact_problem(&mut device, &["tenant"]);
    device.stop();
    fs::write(&path, &right).expect("mended");
    device.start().expect("started");
    expect_well(&mut device);
    assert_eq!(Kept::of(&device), before, "{}", device.said());

    // The same device twice, as after a disk was copied: the server cannot know which is the true one,
    // holds both, and says so to each; what they run goes on running.
    let mut clone = site.clone_of(&mut device, "clone");
    device.start().expect("started");
    clone.start().expect("started");
    for twin in [&mut device, &mut clone] {
        expect_contact_problem(twin, &["this device is held", "two machines", "hint: "]);
    }
    expect(&mut device, "1.0.0 runs on", |status| runs(status, "1.0.0"));
    expect(&mut clone, "nothing is installed", |status| !runs(status, "1.0.0"));
    clone.stop();
    assert_eq!(Kept::of(&device), before, "{}", device.said());
}

/// Runs the agent under another clock until it says what is wrong, and then under the right one.
fn wrong_clock(device: &mut Device, library: &str, offset: &str, problem: &str) {
    device.stop();
    let environment =
        [("LD_PRELOAD", library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    device.start_with(&environment).expect("started");
    expect_problem(device, &[problem, "clock"]);
    device.stop();
    device.start().expect("started");
    expect_well(device);
}

/// A Lockgate with one release everywhere.
struct Site {
    world: World,
    token: String,
    _folder: tempfile::TempDir,
}

/// Starts a device and waits until it runs 1.0.0.
fn install(device: &mut Device) {
    device.start().expect("started");
    expect_rest(device, "1.0.0");
}

/// An artifact on the server's disk, and what it should be.
struct Altered {
    path: PathBuf,
    right: Vec<u8>,
}

impl Altered {
    fn mend(self) {
        fs::write(self.path, self.right).expect("written");
    }
}

impl Site {
    /// With a device that is enrolled and does not run yet: a rollout counts on the devices that were
    /// there before it.
    fn new(changes: &[(&str, &str)]) -> (Self, Device) {
        let programs = Programs::find().expect("the programs");
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = World::create(folder.path(), &programs).expect("a world");
        for (old, new) in changes {
            world.configure(old, new).expect("configured");
        }
        world.start().expect("a server");
        let token = world.enrolment_token("globex", "8").expect("a token");
        let site = Self { world, token, _folder: folder };
        let device = site.enrolled("kiosk");
        let _good = site.roll_out("1.0.0", |_| ());
        (site, device)
    }

    fn enrolled(&self, name: &str) -> Device {
        let plan =
            DevicePlan { name: name.into(), tenant: "globex".into(), profile: PROFILES[0].clone() };
        self.world.device(plan, &[PRODUCT], &self.token).expect("enrolled")
    }

    /// A device with the same key and the same memory as another, which is stopped.
    fn clone_of(&self, device: &mut Device, name: &str) -> Device {
        let clone = self.enrolled(name);
        device.stop();
        let (from, to) = (device.folder().join("state"), clone.folder().join("state"));
        for entry in fs::read_dir(from).expect("a folder").flatten() {
            if entry.path().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
            }
        }
        clone
    }

    /// Releases a version to everybody, with its artifact altered on the server's disk.
    fn roll_out(&self, version: &str, alter: impl FnOnce(&mut Vec<u8>)) -> Altered {
        let release =
            self.world.release(PRODUCT, version, &Behaviour::Well, PLAN).expect("a release");
        let name = fs::read_dir(release.join("artifacts"))
            .expect("a folder")
            .flatten()
            .next()
            .expect("an artifact")
            .file_name();
        let path = self.world.path("api/artifacts").join(name);
        let right = fs::read(&path).expect("the server has it");
        let mut bytes = right.clone();
        alter(&mut bytes);
        fs::write(&path, bytes).expect("written");
        self.world
            .start_rollout(PRODUCT, version, &release, &[("everyone", 8)])
            .expect("a rollout");
        Altered { path, right }
    }
}

/// A product's active slot and its link, as they are on the disk, and which slots are sealed.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    link: PathBuf,
    files: BTreeMap<PathBuf, Vec<u8>>,
    sealed: Vec<u8>,
}

impl Kept {
    fn of(device: &Device) -> Self {
        Self::at(&device.folder().join(PRODUCT))
    }

    fn at(root: &Path) -> Self {
        let link = fs::read_link(root.join("current")).expect("a link");
        let mut files = BTreeMap::new();
        let mut folders = vec![root.join(&link)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder").flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    let inside = entry.path().strip_prefix(root).expect("below").to_owned();
                    files.insert(inside, fs::read(entry.path()).expect("a file"));
                }
            }
        }
        let sealed = fs::read(root.join(&link).with_extension("sealed")).expect("a marker");
        Self { link, files, sealed }
    }
}

/// A small disk in memory that only one device's agent sees, in place of its product's folder.
struct Disk {
    mounts: OwnMounts,
    agent: u32,
    root: PathBuf,
}

impl Disk {
    /// Starts a device's agent on one.
    fn under(device: &mut Device) -> Self {
        let root = device.folder().join(PRODUCT);
        let at = root.display().to_string();
        let agent = Programs::find().expect("the programs").agent.display().to_string();
        let script = "mount -t tmpfs -o size=96m none \"$0\" && exec \"$@\"";
        let mounts = OwnMounts::find().unwrap_or_else(|error| panic!("{error}"));
        let before = [mounts.unshare, &["sh", "-c", script, &at, &agent]].concat();
        device.start_program(Path::new("unshare"), &before, &[]).expect("started");
        Self { agent: device.process().expect("it was started").id(), root, mounts }
    }

    /// Where it is seen from outside.
    fn root(&self) -> PathBuf {
        let inside = self.root.strip_prefix("/").expect("an absolute path");
        Path::new(&format!("/proc/{}/root", self.agent)).join(inside)
    }

    fn remount(&self, how: &str) {
        let agent = self.agent.to_string();
        let status = Command::new("nsenter")
            .args(["--target", &agent])
            .args(self.mounts.nsenter)
            .args(["mount", "-o"])
            .arg(format!("remount,{how}"))
            .arg(&self.root)
            .status();
        assert!(status.expect("nsenter runs").success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The service on it is seen only through the agent, which may be gone.
        let pid = fs::read_to_string(self.root().join("app.pid")).unwrap_or_default();
        if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Takes every free byte.
fn fill_up(filler: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(filler).expect("created");
    let mut size = 1 << 20;
    while size > 0 {
        if file.write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
}

fn agent(config: &Path, arguments: &[&str]) -> Output {
    Command::new(Programs::find().expect("the programs").agent)
        .arg("--config")
        .arg(config)
        .args(arguments)
        .output()
        .expect("the agent runs")
}

/// The library that shows a process another clock.
fn fake_clock() -> String {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let mut libraries = folders.iter().map(|folder| format!("{folder}/faketime/libfaketime.so.1"));
    let found = libraries.find(|library| Path::new(library).is_file());
    found.unwrap_or_else(|| {
        panic!("no clock can be faked here\nhint: install the Debian package `faketime`")
    })
}

/// Waits until the device's own status says so, while its agent runs.
fn expect(device: &mut Device, what: &str, holds: impl Fn(&Status) -> bool) {
    let reached = until(what, PATIENCE, || device.status().is_some_and(|status| holds(&status)));
    if let Err(error) = reached {
        panic!("{error}\n{:#?}\n{}", device.status(), device.said());
    }
    let process = device.process().expect("it was started");
    assert!(matches!(process.ended(), Ok(None)), "the agent has ended: {}", process.said());
}

/// The refresh fails with all of this in its message, also for people.
fn expect_problem(device: &mut Device, words: &[&str]) {
    let has = |text: &str| words.iter().all(|word| text.contains(word));
    expect(device, &format!("a problem with {words:?}"), |status| {
        status.refresh.problem.as_deref().is_some_and(has)
            && status.notices.iter().any(|notice| has(notice))
    });
    let text = device.command(&["status"]).expect("a status");
    assert!(has(&text), "{text}");
}

/// Letters are not acknowledged, with all of this in the message.
fn expect_contact_problem(device: &mut Device, words: &[&str]) {
    expect(device, &format!("a refused letter with {words:?}"), |status| {
        let problem = status.contact.problem.as_deref();
        problem.is_some_and(|text| words.iter().all(|word| text.contains(word)))
    });
}

/// Everything is heard and told again.
fn expect_well(device: &mut Device) {
    expect(device, "all is well", |status| {
        status.refresh.last.is_some()
            && status.contact.last.is_some()
            && status.refresh.problem.is_none()
            && status.contact.problem.is_none()
    });
}

fn expect_rest(device: &mut Device, version: &str) {
    let rests = until(&format!("{version} runs"), PATIENCE, || device.rests_on(PRODUCT, version));
    if let Err(error) = rests {
        panic!("{error}\n{:#?}\n{}", device.status(), device.said());
    }
}

/// The agent's log says all of this in one place, and its status which release it is about.
fn expect_said(device: &mut Device, version: &str, words: &[&str]) {
    let has = |text: &str| words.iter().all(|word| text.contains(word));
    let log = device.log();
    expect(device, &format!("{words:?} about {version}"), |status| {
        let product = status.products.first().expect("a product");
        let said = fs::read_to_string(&log).unwrap_or_default();
        has(&said)
            && product
                .candidates
                .iter()
                .any(|one| one.version.as_ref().is_some_and(|found| found.to_string() == version))
            && (has(&product.state_text) || status.notices.iter().any(|notice| has(notice)))
    });
}

fn expect_reason(device: &mut Device, version: &str, word: &str) {
    let reached = until(&format!("`{word}` against {version}"), PATIENCE, || {
        device.reasons(PRODUCT, version).iter().any(|reason| reason.contains(word))
    });
    if let Err(error) = reached {
        panic!("{error}\n{:#?}\n{}", device.status(), device.said());
    }
    let text = device.command(&["explain", PRODUCT]).expect("explained");
    assert!(text.contains(word), "{text}");
}

fn runs(status: &Status, version: &str) -> bool {
    status.products.iter().any(|product| {
        product.trial.is_none()
            && product.running.as_ref().is_some_and(|running| running.to_string() == version)
    })
}

/// Timestamps that end soon after their gatekeeper.
const EXPIRES_SOON: &str = "\ntimestamp_interval_s = 3\ntimestamp_expiry_s = 20\n";
/// The second failure in a row waits at least half of the backoff's first step.
const BACKS_OFF_S: u64 = 4;

/// One stage that lets everybody in at once.
const PLAN: Plan<'static> = Plan {
    kind: "app",
    trial: Trial { soak_s: 1, deadline_s: 20, attempts: 3, probes: &[ALIVE] },
    stages: &[Stage { cohort: "everyone", floor_s: 0, bake_s: 1, by: By::Count(Gate::OPEN) }],
};
