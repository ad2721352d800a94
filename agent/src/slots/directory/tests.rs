//! The directory kind: the conformance suite, on healthy and on sick disks, and power failing
//! between any two steps.

use lockgate_shared::{id::Digest, manifest::FileKind};

use super::*;
use crate::slots::{
    conformance::{self, Subject},
    tests::{fill_up, freeze, on_small_disk},
};

#[test]
fn two_directories_conform() {
    let root = tempfile::tempdir().expect("a directory");
    let mut count = 0;
    conformance::run(|| {
        count += 1;
        subject(&root.path().join(format!("device-{count}")))
    });
}

#[test]
fn power_may_fail_between_any_two_steps() {
    for act in ["begin", "seal", "activate", "discard"] {
        let mut done = 0;
        loop {
            let device = Device::with_release_in_a_and_another_in_b();
            let steps = device.steps(act);
            if done > steps.len() {
                break;
            }
            perform(&steps[..done]).expect("each step succeeds");
            device.has_a_working_slot();
            device.finishes(act);
            done += 1;
        }
        assert!(done > 3, "{act} has steps");
    }
}

#[test]
fn power_may_fail_while_a_tree_is_removed_or_filled() {
    let device = Device::with_release_in_a_and_another_in_b();
    let steps = device.steps("begin");
    perform(&steps[..2]).expect("marker removed");
    fs::remove_file(device.slots.path(Slot::B).join("version")).expect("half of it removed");
    device.has_a_working_slot();
    assert_eq!(device.slots.contents(Slot::B).expect("readable"), None);
    device.finishes("begin");
}

#[test]
fn a_torn_marker_never_stands_under_its_name() {
    let device = Device::with_release_in_a_and_another_in_b();
    device.slots.empty_and_open(Slot::B).expect("idle");
    fs::write(device.slots.root.join("b.new"), b"{\"mani").expect("a marker cut short");
    assert_eq!(device.slots.contents(Slot::B).expect("readable"), None);
    device.finishes("begin");
}

#[test]
fn a_link_that_names_neither_slot_is_told_and_mended_by_activation() {
    let mut device = Device::with_release_in_a_and_another_in_b();
    for target in ["/etc", "c", "../a", "a/../b"] {
        fs::remove_file(device.slots.link()).expect("removed");
        symlink(target, device.slots.link()).expect("made");
        assert!(matches!(device.slots.active(), Err(SlotError::Link { .. })));
        assert!(matches!(device.slots.begin(Slot::B), Err(SlotError::Link { .. })));
        device.slots.activate(Slot::A).expect("a sealed slot");
        assert_eq!(device.slots.active().expect("readable"), Some(Slot::A));
    }
    fs::remove_file(device.slots.link()).expect("removed");
    fs::create_dir(device.slots.link()).expect("made");
    assert!(matches!(device.slots.active(), Err(SlotError::Link { .. })));
}

#[test]
fn a_slot_that_is_a_link_to_elsewhere_counts_as_empty() {
    let mut device = Device::with_release_in_a_and_another_in_b();
    let elsewhere = tempfile::tempdir().expect("a directory");
    payload(elsewhere.path(), release(Slot::B));
    fs::remove_dir_all(device.slots.path(Slot::B)).expect("removed");
    symlink(elsewhere.path(), device.slots.path(Slot::B)).expect("made");
    assert_eq!(device.slots.contents(Slot::B).expect("readable"), None);
    assert!(matches!(device.slots.activate(Slot::B), Err(SlotError::NotSealed { .. })));
    device.slots.begin(Slot::B).expect("the link is replaced");
    assert!(elsewhere.path().join("version").exists(), "and not followed");
}

#[test]
fn a_full_disk_is_named_and_changes_nothing() {
    on_small_disk("slots::directory::tests::a_full_disk_is_named_and_changes_nothing", |disk| {
        let filler = disk.join("filler");
        conformance::on_a_full_disk(&subject(&disk.join("device")), || fill_up(&filler));
    });
}

#[test]
fn a_read_only_disk_is_named_and_changes_nothing() {
    on_small_disk(
        "slots::directory::tests::a_read_only_disk_is_named_and_changes_nothing",
        |disk| {
            conformance::on_a_read_only_disk(&subject(&disk.join("device")), || freeze(disk));
        },
    );
}

struct Device {
    _root: tempfile::TempDir,
    slots: Directory,
}

impl Device {
    fn with_release_in_a_and_another_in_b() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let mut slots = Directory::open(&root.path().join("slots")).expect("opened");
        for slot in Slot::BOTH {
            let directory = slots.begin(slot).expect("idle");
            payload(&directory, release(slot));
            slots.seal(slot, &contents(release(slot))).expect("sealed");
        }
        slots.activate(Slot::A).expect("activated");
        Self { _root: root, slots }
    }

    fn steps(&self, act: &str) -> Vec<Step> {
        match act {
            "begin" => self.slots.begin_steps(Slot::B),
            "seal" => self.slots.seal_steps(Slot::B, &contents(release(Slot::B))),
            "activate" => self.slots.activate_steps(Slot::B),
            _ => self.slots.discard_steps(Slot::B),
        }
    }

    /// After a restart: the link names a sealed slot whose files are whole.
    fn has_a_working_slot(&self) {
        let again = Directory::open(&self.slots.root).expect("opened");
        let active = again.active().expect("readable").expect("one is active");
        let sealed = again.contents(active).expect("readable").expect("sealed");
        assert_eq!(sealed.version.to_string(), release(active));
        let running = fs::read_to_string(again.link().join("version")).expect("whole");
        assert_eq!(running, release(active));
    }

    /// After a restart the same act, done from its beginning, succeeds.
    fn finishes(mut self, act: &str) {
        match act {
            "begin" => {
                let directory = self.slots.begin(Slot::B).expect("begun");
                assert_eq!(fs::read_dir(directory).expect("there").count(), 0);
            }
            "seal" => {
                self.slots.seal(Slot::B, &contents(release(Slot::B))).expect("sealed");
                assert_eq!(
                    self.slots.contents(Slot::B).expect("readable"),
                    Some(contents(release(Slot::B)))
                );
            }
            "activate" => {
                self.slots.activate(Slot::B).expect("activated");
                assert_eq!(self.slots.active().expect("readable"), Some(Slot::B));
            }
            _ => {
                self.slots.discard(Slot::B).expect("discarded");
                assert_eq!(self.slots.contents(Slot::B).expect("readable"), None);
            }
        }
        self.has_a_working_slot();
    }
}

fn subject(root: &Path) -> Subject {
    let (here, there) = (root.to_owned(), root.to_owned());
    Subject {
        open: Box::new(move || Box::new(Directory::open(&here).expect("opened"))),
        fill: Box::new(payload),
        running: Box::new(move || fs::read_to_string(there.join("current/version")).ok()),
    }
}

fn payload(directory: &Path, version: &str) -> Vec<FileEntry> {
    let path = directory.join("version");
    fs::write(&path, version).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&path, mode).expect("changed");
    let sha256 = Digest::of(version.as_bytes());
    let kind = FileKind::File { size: version.len() as u64, sha256, executable: false };
    vec![FileEntry { path: "version".to_owned(), kind }]
}

/// The version that a slot of [`Device`] holds.
const fn release(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "1.0.0",
        Slot::B => "1.1.0",
    }
}

fn contents(version: &str) -> Contents {
    Contents { manifest: Digest([7; 32]), version: version.parse().expect("a version") }
}
