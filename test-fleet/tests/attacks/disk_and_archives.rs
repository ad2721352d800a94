//! Disk, archives and the agent's own update: entries 39 to 43. The agent's own replacement, and cuts
//! at every journalled step, have tests of their own beside this suite.

use std::{fs, io::Write as _, path::Path};

use lockgate_shared::{
    id::Digest,
    manifest::{FileEntry, FileKind},
};
use serde_json::{Value, json};

use crate::{
    forge::{Goods, PRODUCT},
    stage::{Victim, site},
};

/// The window of a zstd frame that asks for 2 GiB, as a power of two.
const HUGE_WINDOW: u32 = 31;

#[test]
fn e39_torn_files_are_absent_and_the_agent_starts_from_its_pinned_root() {
    let mut victim = Victim::installed();
    let kept = victim.kept();
    let state = victim.device.folder().join("state");
    let honest = victim.forge().clone();
    let old = ["timestamp.json", "snapshot.json"]
        .map(|name| (name, fs::read(state.join("tuf").join(name)).expect("a file")));
    victim.serve(&honest, |own| own.publish("root"));
    victim.believes();
    // Power was cut before the newer ones were on disk: the old ones are good, and not the last word.
    let newest = victim.believed().timestamp;
    victim.device.stop();
    for (name, bytes) in old {
        fs::write(state.join("tuf").join(name), bytes).expect("put back");
    }
    victim.start();
    victim.polled_again();
    victim.believes();
    assert_eq!((victim.kept(), victim.believed().timestamp), (kept.clone(), newest));
    let tears: [fn(&[u8]) -> Vec<u8>; 3] =
        [|_| Vec::new(), |bytes| bytes[..bytes.len() / 2].to_vec(), |bytes| vec![0; bytes.len()]];
    for tear in tears {
        victim.device.stop();
        for entry in fs::read_dir(state.join("tuf")).expect("metadata").flatten() {
            let bytes = fs::read(entry.path()).expect("a file");
            fs::write(entry.path(), tear(&bytes)).expect("torn");
        }
        fs::write(state.join("tuf/.new-timestamp.json"), b"half").expect("written");
        fs::write(state.join("status.json"), b"{").expect("torn");
        victim.start();
        victim.believes();
        assert_eq!(victim.kept(), kept);
        assert!(victim.believed().roots.contains_key(&2), "the root was walked anew");
    }
    // The journal itself: it is put aside, said so, and begun anew from the slots.
    victim.device.stop();
    let journal = fs::read_dir(&state).expect("state").flatten().find(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("journal") && !name.ends_with("-wal") && !name.ends_with("-shm")
    });
    let journal = journal.expect("a journal").path();
    fs::write(&journal, b"torn in the middle of everything").expect("torn");
    for helper in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{helper}", journal.display()));
    }
    victim.start();
    victim.notes(&["the journal could not be read: begun anew from the slots"]);
    assert_eq!(victim.kept(), kept);
    // A half-written slot is no release: it is written again.
    victim.device.stop();
    let half = victim.device.folder().join(PRODUCT).join("b/bin");
    fs::create_dir_all(&half).expect("a folder");
    fs::write(half.join("app"), b"half").expect("written");
    victim.start();
    victim.forge().roll_out(&Goods::new("1.1.0"));
    victim.rest_on("1.1.0");
}

#[test]
fn e40_what_was_edited_on_the_disk_is_absent_and_not_obeyed() {
    let mut victim = Victim::installed();
    let kept = victim.kept();
    let folder = victim.device.folder().join("state/tuf");
    let honest = victim.forge().clone();
    for (name, change) in [
        ("timestamp.json", json!(999)),
        ("snapshot.json", json!(999)),
        ("targets.json", json!(999)),
    ] {
        victim.device.stop();
        let path = folder.join(name);
        let mut file: Value =
            serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        file["signed"]["version"] = change;
        fs::write(&path, file.to_string()).expect("written");
        victim.start();
        victim.serve(&honest, |_| ());
        victim.believes();
        assert!(victim.believed().timestamp < 999, "what was edited locks nobody out");
        assert_eq!(victim.kept(), kept);
    }
    // The same, with another hash for what runs and for what might come.
    victim.device.stop();
    let stored = fs::read_dir(&folder).expect("metadata").flatten().map(|entry| entry.path());
    let mut edited = 0;
    for path in stored {
        let text = fs::read_to_string(&path).expect("a file");
        let Ok(mut file) = serde_json::from_str::<Value>(&text) else { continue };
        let Some(targets) = file["signed"]["targets"].as_object_mut() else { continue };
        for target in targets.values_mut() {
            target["hashes"]["sha256"] = json!(Digest::of(b"evil").to_string());
            edited += 1;
        }
        fs::write(&path, file.to_string()).expect("written");
    }
    assert!(edited > 1, "only {edited} targets were edited");
    victim.start();
    victim.serve(&honest, |_| ());
    victim.believes();
    assert_eq!(victim.kept(), kept);
    // A root that nobody signed, beside the true ones.
    victim.device.stop();
    let mut forged = victim.forge().clone();
    forged.appoint("timestamp", &["thief-1"], 1);
    forged.publish_by("root", &["thief-1", "thief-2"]);
    fs::write(folder.join("2.root.json"), forged.bytes("root")).expect("written");
    victim.start();
    victim.serve(&honest, |_| ());
    victim.believes();
    victim.serve(&honest, |own| own.publish_by("timestamp", &["thief-1"]));
    victim.refused(&["`timestamp` has 0 valid signatures and needs 1"]);
    assert_eq!(victim.kept(), kept);
    // None of it locked it out.
    victim.serve(&honest, |own| own.roll_out(&Goods::new("1.1.0")));
    victim.rest_on("1.1.0");
}

#[test]
fn e40_a_slot_that_was_edited_after_it_was_written_is_not_activated() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    // From fetching to activating is one step: so the slot is edited while the agent waits in the
    // middle of a payload, and is cut off there.
    let goods = Goods::new("1.1.0");
    victim.forge().roll_out(&goods);
    let body = goods.archive.clone();
    let size = body.len() as u64;
    let path = format!("/artifacts/{}", goods.digest());
    victim.attack_path(&path, move || lockgate_test_fleet::hostile::Reply::Cut {
        announced: size,
        body: body[..body.len() - 1].to_vec(),
    });
    victim.counted(&goods);
    victim.expect("it is being written", |status| {
        status.products.iter().any(|product| product.state_text.contains("fetches 1.1.0"))
    });
    victim.device.kill();
    victim.front.hang_up();
    let slot = victim.device.folder().join(PRODUCT).join("b");
    fs::create_dir_all(slot.join("bin")).expect("a folder");
    fs::write(slot.join("bin/app"), b"#!/bin/sh\nexec evil\n").expect("edited");
    fs::write(slot.join("extra"), b"more").expect("edited");
    victim.unharmed_asleep(&kept, &believed);
    victim.be_honest();
    victim.start();
    victim.rest_on("1.1.0");
    assert!(!slot.join("extra").exists(), "what was not signed is gone");
}

/// One archive entry that breaks a rule.
struct Breach {
    what: &'static str,
    header: tar::Header,
    body: Vec<u8>,
    words: &'static str,
}

#[test]
fn e41_an_archive_that_holds_other_than_its_signed_list_is_discarded() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    for (number, breach) in breaches().into_iter().enumerate() {
        let mut goods = Goods::new(&format!("6.0.{number}"));
        goods.archive = with_entry(&goods.archive, &breach);
        let goods = goods.sealed();
        victim.serve(&honest, |own| own.roll_out(&goods));
        victim.counted(&goods);
        victim.says(&[breach.words]);
        victim.unharmed(&kept, &believed);
        assert!(!slot_holds(&victim, "evil"), "{}", breach.what);
    }
    // A listed file that would run as root.
    let mut goods = Goods::new("6.1.0");
    let mut tar = zstd::stream::decode_all(&goods.archive[..]).expect("an archive");
    let at = tar.chunks(512).position(|block| block.starts_with(b"bin/app\0")).expect("the file");
    let mut header = tar::Header::from_byte_slice(&tar[at * 512..(at + 1) * 512]).clone();
    header.set_mode(0o4755);
    header.set_cksum();
    tar[at * 512..(at + 1) * 512].copy_from_slice(header.as_bytes());
    goods.archive = zstd::stream::encode_all(&tar[..], 3).expect("packed");
    let goods = goods.sealed();
    victim.serve(&honest, |own| own.roll_out(&goods));
    victim.counted(&goods);
    victim.says(&["setuid, setgid and sticky are never installed"]);
    victim.operator_reads(&["setuid, setgid and sticky are never installed"]);
    victim.unharmed(&kept, &believed);
    let escaped = names_below(&site().world.path("devices"));
    assert!(!escaped.iter().any(|name| name.contains("evil")), "{escaped:?}");
    victim.be_honest();
    victim.serve(&honest, |own| own.roll_out(&Goods::new("7.0.0")));
    victim.rest_on("7.0.0");
}

fn breaches() -> Vec<Breach> {
    let entry = |name: &str, kind: tar::EntryType, mode: u32, body: &[u8]| {
        let mut header = tar::Header::new_ustar();
        let bytes = name.as_bytes();
        header.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(body.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        header
    };
    let file = tar::EntryType::Regular;
    let plain = |what, name: &str, kind, mode, words| Breach {
        what,
        header: entry(name, kind, mode, b"evil"),
        body: b"evil".to_vec(),
        words,
    };
    let mut link = entry("evil-link", tar::EntryType::Symlink, 0o777, b"");
    link.set_link_name_literal("../../../../etc").expect("a target");
    link.set_cksum();
    let mut hard = entry("evil-hard", tar::EntryType::Link, 0o644, b"");
    hard.set_link_name_literal("/etc/passwd").expect("a target");
    hard.set_cksum();
    let mut sparse = entry("evil-giant", tar::EntryType::GNUSparse, 0o644, b"");
    sparse.set_size(0);
    sparse.set_cksum();
    vec![
        plain("a way up", "../evil", file, 0o644, "the archive holds the name `../evil`"),
        plain(
            "an absolute name",
            "/tmp/evil",
            file,
            0o644,
            "the archive holds the name `/tmp/evil`",
        ),
        plain("not listed", "evil", file, 0o644, "`evil` is not in the signed list"),
        Breach {
            what: "a device",
            header: entry("evil-device", tar::EntryType::Char, 0o644, b""),
            body: Vec::new(),
            words: "which is never installed",
        },
        Breach { what: "a link out", header: link, body: Vec::new(), words: "evil-link" },
        Breach { what: "a hard link", header: hard, body: Vec::new(), words: "is a hard link" },
        Breach { what: "a sparse giant", header: sparse, body: Vec::new(), words: "a sparse file" },
        plain("a listed file twice", "bin/app", file, 0o755, "`bin/app`"),
    ]
}

/// The same archive with one entry more, before everything else.
fn with_entry(archive: &[u8], breach: &Breach) -> Vec<u8> {
    let tar = zstd::stream::decode_all(archive).expect("an archive");
    let mut all = breach.header.as_bytes().to_vec();
    all.extend_from_slice(&breach.body);
    all.resize(all.len().next_multiple_of(512), 0);
    all.extend_from_slice(&tar);
    zstd::stream::encode_all(&all[..], 3).expect("packed")
}

fn slot_holds(victim: &Victim, name: &str) -> bool {
    names_below(&victim.device.folder().join(PRODUCT)).iter().any(|found| found.ends_with(name))
}

fn names_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            names.push(entry.path().display().to_string());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    names
}

#[test]
fn e42_bombs_and_giants_are_refused_before_they_take_memory_or_disk() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    victim.polled_again();
    let peak = victim.peak_kib();
    let honest = victim.forge().clone();

    // A window that no device has the memory for.
    let mut goods = Goods::new("6.1.0");
    let tar = zstd::stream::decode_all(&goods.archive[..]).expect("an archive");
    goods.archive = huge_window(&tar);
    let goods = goods.sealed();
    victim.serve(&honest, |own| own.roll_out(&goods));
    victim.counted(&goods);
    victim.says(&["zstd window above 8 MiB"]);
    victim.operator_reads(&["zstd window above 8 MiB"]);
    victim.unharmed(&kept, &believed);

    // A few kilobytes that unfold to a gigabyte, where a small file is signed.
    let mut goods = Goods::new("6.2.0");
    let mut bomb = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("an encoder");
    let mut header = tar::Header::new_ustar();
    header.set_path("bin").expect("a name");
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    header.set_cksum();
    bomb.write_all(header.as_bytes()).expect("written");
    header.set_path("bin/app").expect("a name");
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(1 << 30);
    header.set_cksum();
    bomb.write_all(header.as_bytes()).expect("written");
    let zeros = vec![0; 1 << 20];
    for _ in 0..1_024 {
        bomb.write_all(&zeros).expect("written");
    }
    goods.archive = bomb.finish().expect("packed");
    let goods = goods.sealed();
    assert!(goods.archive.len() < 100_000, "{} bytes unfold to a gigabyte", goods.archive.len());
    victim.serve(&honest, |own| own.roll_out(&goods));
    victim.counted(&goods);
    victim.says(&["`bin/app` has 1073741824 bytes where", "were signed"]);
    victim.operator_reads(&["`bin/app` has 1073741824 bytes where"]);
    victim.unharmed(&kept, &believed);

    // Well signed, and larger than the disk: found before anything is fetched.
    let mut goods = Goods::new("6.3.0");
    let giant = FileKind::File { size: 60 << 30, sha256: Digest::of(b"zeros"), executable: false };
    let file = FileEntry { path: "giant".into(), kind: giant };
    goods.manifest.artifacts[0].files.push(file);
    let free = free_bytes(victim.device.folder());
    if free > 60 << 30 {
        // Then it asks for more room than any disk of this size has.
        goods.manifest.compatibility.min_free_disk_mib = Some(u32::MAX);
    }
    victim.serve(&honest, |own| own.roll_out(&goods));
    victim.held("6.3.0", &["MiB of disk", "are free"]);
    victim.operator_reads(&["MiB of disk", "are free"]);
    victim.unharmed(&kept, &believed);
    let grown = victim.peak_kib().saturating_sub(peak);
    assert!(grown < 24 * 1024, "the agent grew by {grown} KiB");
    // What was written of all this is gone with the next release.
    victim.serve(&honest, |own| own.roll_out(&Goods::new("7.0.0")));
    victim.rest_on("7.0.0");
    let left = names_below(&victim.device.folder().join(PRODUCT));
    assert!(!left.iter().any(|name| name.contains("giant")), "{left:?}");
    let bytes = left.iter().filter_map(|name| fs::metadata(name).ok()).filter(|f| f.is_file());
    let bytes: u64 = bytes.map(|file| file.len()).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes are left in {left:?}");
}

/// A frame whose header asks for a window of 2 GiB, over raw blocks.
fn huge_window(bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0];
    // Window descriptor: the exponent above 10, and no mantissa.
    frame.push(u8::try_from((HUGE_WINDOW - 10) << 3).expect("a small number"));
    let mut blocks = bytes.chunks(100_000).peekable();
    while let Some(block) = blocks.next() {
        let last = u32::from(blocks.peek().is_none());
        let header = (u32::try_from(block.len()).expect("a small block") << 3) | last;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

fn free_bytes(folder: &Path) -> u64 {
    let stat = rustix::fs::statvfs(folder).expect("a file system");
    stat.f_bavail * stat.f_frsize
}

#[test]
fn e43_a_release_that_crashes_goes_back_without_a_server_and_is_not_tried_again() {
    let mut victim = Victim::installed();
    let kept_link = victim.kept();
    let folder = tempfile::tempdir().expect("a folder");
    let crashes = lockgate_test_fleet::world::app::Behaviour::CrashesOn { model: "Slate 3".into() };
    lockgate_test_fleet::world::app::write_version(folder.path(), "1.1.0", &crashes)
        .expect("files");
    let mut goods = Goods::of_folder("1.1.0", folder.path());
    goods.manifest.trial.deadline_s = lockgate_shared::time::Seconds(6);
    victim.forge().roll_out(&goods);
    victim.counted(&goods);
    victim.expect("it is tried", |status| {
        status.products.iter().any(|product| {
            product.trial.is_some() || product.failed.iter().any(|v| v.to_string() == "1.1.0")
        })
    });
    // From here on nobody answers.
    victim.attack(|_| Some(lockgate_test_fleet::hostile::Reply::Hangup));
    let went_back = |victim: &Victim| victim.device.version_on_disk(PRODUCT);
    victim.expect("it goes back", |status| {
        status.products.iter().any(|product| {
            product.trial.is_none()
                && product.running.as_ref().is_some_and(|running| running.to_string() == "1.0.0")
        })
    });
    assert_eq!(went_back(&victim).as_deref(), Some("1.0.0"));
    victim.be_honest();
    victim.well();
    victim.owner_reads("explain", &["1.1.0 failed here and is not tried again"]);
    victim.operator_reads(&["version 1.0.0 runs"]);
    victim.front.forget();
    victim.polled_again();
    let path = format!("/artifacts/{}", goods.digest());
    assert!(!victim.front.paths().contains(&path), "it is not asked for again");
    assert_eq!(kept_link, victim.kept_but_service(&kept_link));
}
