//! The agent's kind: the conformance suite with shell scripts for agents, the guard, and a real
//! process that replaces itself.

use lockgate_shared::{id::Digest, manifest::FileKind};

use super::*;
use crate::slots::{
    conformance::{self, Subject},
    tests::{fill_up, freeze, on_small_disk},
};

const BINARY: &str = "lockgate-agent";

#[test]
fn the_agents_own_slots_conform() {
    let root = tempfile::tempdir().expect("a directory");
    let mut count = 0;
    conformance::run(|| {
        count += 1;
        subject(&root.path().join(format!("device-{count}")))
    });
}

#[test]
fn a_full_disk_is_named_and_changes_nothing() {
    on_small_disk("slots::agent_binary::tests::a_full_disk_is_named_and_changes_nothing", |disk| {
        let filler = disk.join("filler");
        conformance::on_a_full_disk(&subject(&disk.join("device")), || fill_up(&filler));
    });
}

#[test]
fn a_disk_that_is_full_at_the_replacement_leaves_the_old_binary() {
    let test = "slots::agent_binary::tests::\
                a_disk_that_is_full_at_the_replacement_leaves_the_old_binary";
    on_small_disk(test, |disk| {
        let device = Device { root: tempfile::tempdir_in(disk).expect("a directory") };
        let mut slots = device.running("1.0.0");
        fill(&mut slots, Slot::B, "1.1.0");
        fill_up(&disk.join("filler"));
        let outcome = slots.activate(Slot::B);
        assert!(matches!(outcome, Err(SlotError::Full { .. })), "{outcome:?}");
        assert_eq!(slots.active().expect("readable"), Some(Slot::A));
        assert_eq!(device.version().as_deref(), Some("1.0.0"));
        fs::remove_file(disk.join("filler")).expect("removed");
        slots.activate(Slot::B).expect("there is room again");
        assert_eq!(device.version().as_deref(), Some("1.1.0"));
    });
}

#[test]
fn a_read_only_disk_is_named_and_changes_nothing() {
    on_small_disk(
        "slots::agent_binary::tests::a_read_only_disk_is_named_and_changes_nothing",
        |disk| {
            conformance::on_a_read_only_disk(&subject(&disk.join("device")), || freeze(disk));
        },
    );
}

#[test]
fn a_binary_that_does_not_start_is_not_installed() {
    let device = Device::new();
    let mut slots = device.running("1.0.0");
    for script in ["exit 7", "kill -9 $$"] {
        let directory = slots.begin(Slot::B).expect("idle");
        write_binary(&directory.join(BINARY), &format!("#!/bin/sh\n{script}\n"));
        slots.seal(Slot::B, &contents("1.1.0")).expect("sealed");
        let outcome = slots.activate(Slot::B);
        assert!(matches!(outcome, Err(SlotError::NotRunnable { .. })), "{outcome:?}");
        let outcome = slots.restore(Slot::B);
        assert!(matches!(outcome, Err(SlotError::NotRunnable { .. })), "{outcome:?}");
        assert_eq!(slots.active().expect("readable"), Some(Slot::A));
        assert_eq!(device.version().as_deref(), Some("1.0.0"));
    }
    let directory = slots.begin(Slot::B).expect("idle");
    fs::write(directory.join("other"), b"").expect("written");
    slots.seal(Slot::B, &contents("1.1.0")).expect("sealed");
    let outcome = slots.activate(Slot::B);
    assert!(matches!(outcome, Err(SlotError::NotRunnable { .. })), "{outcome:?}");
}

#[test]
fn an_installed_binary_is_adopted_before_it_is_replaced() {
    let device = Device::new();
    write_binary(&device.installed(), &script("0.9.0"));
    let mut slots = device.open();
    assert_eq!(slots.active().expect("readable"), None);
    fill(&mut slots, Slot::B, "1.0.0");
    let outcome = slots.activate(Slot::B);
    assert!(matches!(outcome, Err(SlotError::NoGuard { slot: Slot::A, .. })), "{outcome:?}");
    assert_eq!(device.version().as_deref(), Some("0.9.0"));

    for _ in 0..2 {
        assert_eq!(slots.adopt(&contents("0.9.0")).expect("adopted"), Slot::A);
    }
    slots.activate(Slot::B).expect("there is a way back now");
    assert_eq!(device.version().as_deref(), Some("1.0.0"));
    assert_eq!(slots.adopt(&contents("0.9.0")).expect("nothing to adopt"), Slot::B);
}

#[test]
fn the_guard_puts_itself_back_whatever_is_installed() {
    let device = Device::new();
    let mut slots = device.running("1.0.0");
    fill(&mut slots, Slot::B, "1.1.0");
    slots.activate(Slot::B).expect("activated");
    for _ in 0..2 {
        slots.restore(Slot::A).expect("the guard is sealed");
        assert_eq!(slots.active().expect("readable"), Some(Slot::A));
        assert_eq!(device.version().as_deref(), Some("1.0.0"));
    }
    fs::write(device.installed(), b"torn").expect("overwritten");
    assert_eq!(slots.active().expect("readable"), None);
    slots.restore(Slot::A).expect("the guard is sealed");
    assert_eq!(device.version().as_deref(), Some("1.0.0"));
    fs::remove_file(device.installed()).expect("removed");
    slots.restore(Slot::A).expect("the guard is sealed");
    assert_eq!(device.version().as_deref(), Some("1.0.0"));
}

#[test]
fn power_may_fail_between_the_replacement_and_its_record() {
    let device = Device::new();
    let mut slots = device.running("1.0.0");
    fill(&mut slots, Slot::B, "1.1.0");
    install(&slots.binary_in(Slot::B), &device.installed()).expect("installed");
    // The link still names the old slot; what is installed counts.
    let mut slots = device.open();
    assert_eq!(slots.active().expect("readable"), Some(Slot::B));
    assert!(matches!(slots.begin(Slot::B), Err(SlotError::Active { .. })));
    slots.activate(Slot::B).expect("finished");
    slots.begin(Slot::A).expect("the old one is idle");
    assert_eq!(device.version().as_deref(), Some("1.1.0"));
}

#[test]
fn a_replacement_cut_short_leaves_the_old_binary() {
    let device = Device::new();
    let mut slots = device.running("1.0.0");
    fs::write(device.installed().with_extension("lockgate-new"), b"half").expect("left over");
    assert_eq!(device.version().as_deref(), Some("1.0.0"));
    fill(&mut slots, Slot::B, "1.1.0");
    slots.activate(Slot::B).expect("activated");
    assert_eq!(device.version().as_deref(), Some("1.1.0"));
    let left = device.installed().with_extension("lockgate-new").exists();
    assert!(!left, "the leftover is gone");
}

#[test]
fn the_same_binary_in_both_slots_is_told_apart_by_the_last_activation() {
    let device = Device::new();
    let mut slots = device.running("1.0.0");
    fill(&mut slots, Slot::B, "1.0.0");
    assert_eq!(slots.active().expect("readable"), Some(Slot::A));
    slots.activate(Slot::B).expect("activated");
    assert_eq!(device.open().active().expect("readable"), Some(Slot::B));
}

#[test]
fn an_installed_path_that_is_a_link_keeps_being_one() {
    let device = Device::new();
    let mut slots = device.running("1.0.0");
    let behind = device.root.path().join("behind");
    fs::rename(device.installed(), &behind).expect("moved");
    std::os::unix::fs::symlink(&behind, device.installed()).expect("made");
    fill(&mut slots, Slot::B, "1.1.0");
    slots.activate(Slot::B).expect("activated");
    assert!(fs::symlink_metadata(device.installed()).expect("there").is_symlink());
    assert_eq!(device.version().as_deref(), Some("1.1.0"));
}

#[test]
fn a_binarys_name_cannot_lead_out_of_its_slot() {
    let root = tempfile::tempdir().expect("a directory");
    for name in ["../agent", "/bin/sh", ""] {
        let outcome = AgentBinary::open(root.path(), Path::new("/nowhere/agent"), name);
        assert!(matches!(outcome, Err(SlotError::BinaryName { .. })), "{outcome:?}");
    }
}

/// The test's own program, copied to a place of its own, runs this test there once more, replaces
/// itself while running, and then, as the guard, puts itself back.
#[test]
fn a_running_program_replaces_itself_and_puts_itself_back() {
    const ROOT: &str = "LOCKGATE_TEST_SELF";
    let slots = |root: &Path| {
        AgentBinary::open(&root.join("slots"), &root.join(BINARY), BINARY).expect("opened")
    };
    if let Some(root) = env::var_os(ROOT) {
        let root = Path::new(&root);
        let installed = root.join(BINARY);
        assert!(is_this_program(&fs::canonicalize(&installed).expect("it runs")));
        let mut slots = slots(root);
        slots.activate(Slot::B).expect("replaced");
        let said = Command::new(&installed).arg("--version").output().expect("the new one runs");
        assert_eq!(said.stdout, b"lockgate-agent 1.1.0\n");
        assert!(!is_this_program(&fs::canonicalize(&installed).expect("there")));
        // The test's program does not know `--version`, so the bare act stands for `restore`.
        install(&slots.binary_in(Slot::A), &installed).expect("put back");
        assert_eq!(slots.active().expect("readable"), Some(Slot::A));
        return;
    }
    let root = tempfile::tempdir().expect("a directory");
    let installed = root.path().join(BINARY);
    fs::copy(env::current_exe().expect("this test"), &installed).expect("copied");
    let before = tree::digest(&installed).expect("readable");
    let mut old = slots(root.path());
    old.adopt(&contents("1.0.0")).expect("adopted");
    fill(&mut old, Slot::B, "1.1.0");
    let test = "slots::agent_binary::tests::a_running_program_replaces_itself_and_puts_itself_back";
    let mut again = Command::new(&installed);
    again.args([test, "--exact", "--nocapture"]).env(ROOT, root.path());
    let ran = command::run_bounded(&mut again, Duration::from_secs(60)).expect("it runs");
    assert!(ran.ending == Ending::Exited(0), "{ran}");
    assert!(String::from_utf8_lossy(&ran.output).contains("1 passed"), "{ran}");
    assert_eq!(tree::digest(&installed).expect("readable"), before);
}

struct Device {
    root: tempfile::TempDir,
}

impl Device {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a directory") }
    }

    fn installed(&self) -> PathBuf {
        self.root.path().join(BINARY)
    }

    fn open(&self) -> AgentBinary {
        AgentBinary::open(&self.root.path().join("slots"), &self.installed(), BINARY)
            .expect("opened")
    }

    /// A device whose slot A is installed.
    fn running(&self, version: &str) -> AgentBinary {
        let mut slots = self.open();
        fill(&mut slots, Slot::A, version);
        slots.activate(Slot::A).expect("activated");
        slots
    }

    fn version(&self) -> Option<String> {
        version_of(&self.installed())
    }
}

fn subject(root: &Path) -> Subject {
    let installed = root.join("bin").join(BINARY);
    fs::create_dir_all(root.join("bin")).expect("created");
    let (slots, path) = (root.join("slots"), installed.clone());
    Subject {
        open: Box::new(move || Box::new(AgentBinary::open(&slots, &path, BINARY).expect("opened"))),
        fill: Box::new(|directory, version| {
            write_binary(&directory.join(BINARY), &script(version));
            let text = script(version);
            let kind = FileKind::File {
                size: text.len() as u64,
                sha256: Digest::of(text.as_bytes()),
                executable: true,
            };
            vec![FileEntry { path: BINARY.to_owned(), kind }]
        }),
        running: Box::new(move || version_of(&installed)),
    }
}

fn fill(slots: &mut AgentBinary, slot: Slot, version: &str) {
    let directory = slots.begin(slot).expect("idle");
    write_binary(&directory.join(BINARY), &script(version));
    slots.seal(slot, &contents(version)).expect("sealed");
}

fn script(version: &str) -> String {
    format!("#!/bin/sh\necho lockgate-agent {version}\n")
}

fn write_binary(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("changed");
}

fn version_of(installed: &Path) -> Option<String> {
    let mut ask = Command::new(installed);
    let ran = command::run_bounded(ask.arg("--version"), START_LIMIT).ok()?;
    let said = String::from_utf8(ran.output).ok()?;
    said.trim().rsplit(' ').next().map(str::to_owned)
}

fn contents(version: &str) -> Contents {
    Contents { manifest: Digest([7; 32]), version: version.parse().expect("a version") }
}
