//! What every kind of slots must do, as tests that any kind can run: [`run`] on a healthy disk,
//! [`on_a_full_disk`] and [`on_a_read_only_disk`] on a sick one. They look at the outcome from the
//! outside, through [`Subject::running`], and open the slots anew at every turn, so that nothing
//! may be kept in memory.
//!
//! A failed expectation panics: this module is called from tests only.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use lockgate_shared::{
    id::Digest,
    manifest::{FileEntry, FileKind},
};

use super::{Contents, Difference, Slot, SlotError, Slots};

/// A new device: both slots empty, nothing active.
pub struct Subject {
    /// Opens the device's slots, as after a start of the agent.
    pub open: Box<dyn Fn() -> Box<dyn Slots>>,
    /// Fills the directory that `begin` opened with a working release of this version, and says
    /// what a manifest would list. Holds at least one regular file.
    pub fill: Fill,
    /// The version that would run now, found out without the slots' help.
    pub running: Box<dyn Fn() -> Option<String>>,
}

/// How a subject fills a directory with a release of a version.
pub type Fill = Box<dyn Fn(&Path, &str) -> Vec<FileEntry>>;

/// Runs every rule, each on a new device that `make` provides.
pub fn run(mut make: impl FnMut() -> Subject) {
    let rules: [fn(&Subject); 12] = [
        a_new_device_has_nothing,
        an_unsealed_slot_is_empty_and_cannot_be_activated,
        a_sealed_slot_is_known_after_a_restart,
        activation_changes_what_runs_and_nothing_else,
        the_active_slot_is_never_touched,
        beginning_again_forgets_the_old_release,
        everything_may_be_done_twice,
        going_back_brings_the_old_release,
        a_whole_slot_verifies,
        every_change_after_sealing_is_found,
        a_damaged_marker_counts_as_none,
        slots_change_places_for_years,
    ];
    for rule in rules {
        rule(&make());
    }
}

/// Runs on a file system without room: writing must fail as [`SlotError::Full`] and change nothing.
/// `full` exhausts the disk of the device.
pub fn on_a_full_disk(subject: &Subject, full: impl FnOnce()) {
    install(subject, Slot::A, "1.0.0");
    let mut slots = (subject.open)();
    slots.begin(Slot::B).expect("there is room yet");
    full();
    let sealed = slots.seal(Slot::B, &contents("1.1.0"));
    assert!(matches!(sealed, Err(SlotError::Full { .. })), "{sealed:?}");
    untouched(subject, Slot::A, "1.0.0");
    assert_eq!((subject.open)().contents(Slot::B).expect("readable"), None);
    (subject.open)().discard(Slot::B).expect("emptying needs no room");
}

/// Runs on a file system that accepts no writes: everything that writes must fail as
/// [`SlotError::ReadOnly`], and reading goes on. `freeze` makes the device's disk read-only.
pub fn on_a_read_only_disk(subject: &Subject, freeze: impl FnOnce()) {
    install(subject, Slot::A, "1.0.0");
    install(subject, Slot::B, "1.1.0");
    freeze();
    let mut slots = (subject.open)();
    let attempts = [
        ("begin", slots.begin(Slot::A).map(drop)),
        ("seal", slots.seal(Slot::A, &contents("1.2.0"))),
        ("activate", slots.activate(Slot::A)),
        ("discard", slots.discard(Slot::A)),
    ];
    for (act, outcome) in attempts {
        assert!(matches!(outcome, Err(SlotError::ReadOnly { .. })), "{act}: {outcome:?}");
    }
    untouched(subject, Slot::B, "1.1.0");
    assert_eq!(version_in(subject, Slot::A).as_deref(), Some("1.0.0"));
}

fn a_new_device_has_nothing(subject: &Subject) {
    let slots = (subject.open)();
    assert_eq!(slots.active().expect("readable"), None);
    for slot in Slot::BOTH {
        assert_eq!(slots.contents(slot).expect("readable"), None);
        let verified = slots.verify(slot, &[]);
        assert!(matches!(verified, Err(SlotError::NotSealed { .. })), "{verified:?}");
    }
    assert_eq!((subject.running)(), None);
}

fn an_unsealed_slot_is_empty_and_cannot_be_activated(subject: &Subject) {
    let mut slots = (subject.open)();
    let sealed = slots.seal(Slot::B, &contents("1.0.0"));
    assert!(matches!(sealed, Err(SlotError::NotBegun { slot: Slot::B })), "{sealed:?}");
    let directory = slots.begin(Slot::B).expect("an idle slot opens");
    assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 0);
    (subject.fill)(&directory, "1.0.0");
    let mut slots = (subject.open)();
    assert_eq!(slots.contents(Slot::B).expect("readable"), None);
    let activated = slots.activate(Slot::B);
    assert!(matches!(activated, Err(SlotError::NotSealed { slot: Slot::B })), "{activated:?}");
    assert_eq!((subject.open)().active().expect("readable"), None);
    assert_eq!((subject.running)(), None);
}

fn a_sealed_slot_is_known_after_a_restart(subject: &Subject) {
    fill(subject, Slot::B, "1.0.0");
    let slots = (subject.open)();
    assert_eq!(slots.contents(Slot::B).expect("readable"), Some(contents("1.0.0")));
    assert_eq!(slots.contents(Slot::A).expect("readable"), None);
    assert_eq!(slots.active().expect("readable"), None, "sealing does not switch");
}

fn activation_changes_what_runs_and_nothing_else(subject: &Subject) {
    install(subject, Slot::A, "1.0.0");
    untouched(subject, Slot::A, "1.0.0");
    fill(subject, Slot::B, "1.1.0");
    untouched(subject, Slot::A, "1.0.0");
    (subject.open)().activate(Slot::B).expect("a sealed slot activates");
    untouched(subject, Slot::B, "1.1.0");
    assert_eq!(version_in(subject, Slot::A).as_deref(), Some("1.0.0"), "the way back stays");
}

fn the_active_slot_is_never_touched(subject: &Subject) {
    install(subject, Slot::A, "1.0.0");
    let mut slots = (subject.open)();
    for (act, outcome) in [
        ("begin", slots.begin(Slot::A).map(drop)),
        ("discard", slots.discard(Slot::A)),
        ("seal", slots.seal(Slot::A, &contents("9.9.9"))),
    ] {
        let refused = matches!(outcome, Err(SlotError::Active { slot: Slot::A }));
        assert!(refused, "{act}: {outcome:?}");
    }
    untouched(subject, Slot::A, "1.0.0");
}

fn beginning_again_forgets_the_old_release(subject: &Subject) {
    fill(subject, Slot::B, "1.0.0");
    let directory = (subject.open)().begin(Slot::B).expect("an idle slot opens");
    assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 0);
    assert_eq!(version_in(subject, Slot::B), None);
}

fn everything_may_be_done_twice(subject: &Subject) {
    install(subject, Slot::A, "1.0.0");
    (subject.open)().begin(Slot::B).expect("once");
    let directory = (subject.open)().begin(Slot::B).expect("twice");
    let files = (subject.fill)(&directory, "1.1.0");
    for _ in 0..2 {
        (subject.open)().seal(Slot::B, &contents("1.1.0")).expect("sealed again");
    }
    for _ in 0..2 {
        (subject.open)().verify(Slot::B, &files).expect("as signed");
    }
    for _ in 0..2 {
        (subject.open)().activate(Slot::B).expect("activated again");
        untouched(subject, Slot::B, "1.1.0");
    }
    (subject.open)().seal(Slot::B, &contents("1.1.0")).expect("what is sealed may be sealed again");
    for _ in 0..2 {
        (subject.open)().discard(Slot::A).expect("discarded again");
        assert_eq!(version_in(subject, Slot::A), None);
    }
    untouched(subject, Slot::B, "1.1.0");
}

fn going_back_brings_the_old_release(subject: &Subject) {
    install(subject, Slot::A, "1.0.0");
    install(subject, Slot::B, "1.1.0");
    (subject.open)().activate(Slot::A).expect("the old slot is still sealed");
    untouched(subject, Slot::A, "1.0.0");
    (subject.open)().discard(Slot::B).expect("the bad release is idle now");
    untouched(subject, Slot::A, "1.0.0");
}

fn a_whole_slot_verifies(subject: &Subject) {
    let files = fill(subject, Slot::A, "1.0.0");
    (subject.open)().verify(Slot::A, &files).expect("as signed");
    (subject.open)().activate(Slot::A).expect("sealed");
    (subject.open)().verify(Slot::A, &files).expect("an active slot can be verified too");
}

fn every_change_after_sealing_is_found(subject: &Subject) {
    let mut slots = (subject.open)();
    let directory = slots.begin(Slot::B).expect("an idle slot opens");
    let mut files = (subject.fill)(&directory, "1.0.0");
    fs::create_dir(directory.join("zz")).expect("created");
    std::os::unix::fs::symlink("zz", directory.join("zz-link")).expect("created");
    files.push(FileEntry { path: "zz".to_owned(), kind: FileKind::Directory });
    let target = "zz".to_owned();
    files.push(FileEntry { path: "zz-link".to_owned(), kind: FileKind::Symlink { target } });
    slots.seal(Slot::B, &contents("1.0.0")).expect("sealed");
    slots.verify(Slot::B, &files).expect("as signed");

    let name = regular(&files);
    let file = directory.join(&name);
    let good = fs::read(&file).expect("readable");
    let mode = fs::metadata(&file).expect("there").permissions().mode();
    let mut flipped = good.clone();
    *flipped.first_mut().expect("not empty") ^= 1;
    let differs = |expected: Difference| {
        let verified = (subject.open)().verify(Slot::B, &files);
        let found = matches!(
            &verified,
            Err(SlotError::Differs { slot: Slot::B, difference, .. }) if *difference == expected
        );
        assert!(found, "{expected:?}: {verified:?}");
    };

    fs::write(&file, &flipped).expect("written");
    differs(Difference::Content);
    fs::write(&file, [&good[..], b"\n"].concat()).expect("written");
    differs(Difference::Size);
    fs::write(&file, &good).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).expect("changed");
    differs(Difference::Mode);
    fs::remove_file(&file).expect("removed");
    differs(Difference::Missing);
    std::os::unix::fs::symlink("/etc/hostname", &file).expect("created");
    differs(Difference::Kind);
    fs::remove_file(&file).expect("removed");
    fs::write(&file, &good).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
    fs::write(directory.join("zz/extra"), b"x").expect("written");
    differs(Difference::Extra);
    fs::remove_file(directory.join("zz/extra")).expect("removed");
    fs::remove_file(directory.join("zz-link")).expect("removed");
    std::os::unix::fs::symlink("../..", directory.join("zz-link")).expect("created");
    differs(Difference::Target);
    fs::remove_file(directory.join("zz-link")).expect("removed");
    std::os::unix::fs::symlink("zz", directory.join("zz-link")).expect("created");
    (subject.open)().verify(Slot::B, &files).expect("mended");
}

fn a_damaged_marker_counts_as_none(subject: &Subject) {
    install(subject, Slot::A, "1.0.0");
    let mut slots = (subject.open)();
    let directory = slots.begin(Slot::B).expect("an idle slot opens");
    (subject.fill)(&directory, "1.1.0");
    slots.seal(Slot::B, &contents("1.1.0")).expect("sealed");
    let marker = directory.with_extension("sealed");
    for damage in ["", "{", "{\"manifest\":\"00\",\"version\":\"1.1.0\"}", "null"] {
        fs::write(&marker, damage).expect("markers lie beside the slots");
        assert_eq!((subject.open)().contents(Slot::B).expect("no error"), None, "{damage}");
        let activated = (subject.open)().activate(Slot::B);
        assert!(matches!(activated, Err(SlotError::NotSealed { .. })), "{activated:?}");
    }
    (subject.open)().begin(Slot::B).expect("it does not lock out");
    untouched(subject, Slot::A, "1.0.0");
}

fn slots_change_places_for_years(subject: &Subject) {
    let mut slot = Slot::A;
    for patch in 0..6 {
        let version = format!("1.0.{patch}");
        install(subject, slot, &version);
        untouched(subject, slot, &version);
        slot = slot.other();
    }
}

/// Fills and seals a slot.
fn fill(subject: &Subject, slot: Slot, version: &str) -> Vec<FileEntry> {
    let mut slots = (subject.open)();
    let directory = slots.begin(slot).expect("an idle slot opens");
    let files = (subject.fill)(&directory, version);
    slots.seal(slot, &contents(version)).expect("a filled slot is sealed");
    files
}

fn install(subject: &Subject, slot: Slot, version: &str) {
    fill(subject, slot, version);
    (subject.open)().activate(slot).expect("a sealed slot activates");
}

/// Whether `slot` is active with `version`, as seen by the slots and from the outside.
fn untouched(subject: &Subject, slot: Slot, version: &str) {
    assert_eq!((subject.open)().active().expect("readable"), Some(slot));
    assert_eq!(version_in(subject, slot).as_deref(), Some(version));
    assert_eq!((subject.running)().as_deref(), Some(version));
}

fn version_in(subject: &Subject, slot: Slot) -> Option<String> {
    (subject.open)().contents(slot).expect("readable").map(|contents| contents.version.to_string())
}

fn contents(version: &str) -> Contents {
    Contents {
        manifest: Digest::of(version.as_bytes()),
        version: version.parse().expect("a version"),
    }
}

fn regular(files: &[FileEntry]) -> String {
    (files.iter())
        .find(|entry| matches!(entry.kind, FileKind::File { size, .. } if size > 0))
        .map(|entry| entry.path.clone())
        .expect("a release holds a regular file")
}
