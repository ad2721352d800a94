//! Whole archives through the whole pass: good ones arrive as signed, and each named breach is
//! refused by its own name without a trace outside the slot.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Cursor, Write as _},
    os::unix::fs::PermissionsExt as _,
};

use lockgate_shared::{limits::ARTIFACT_BYTES, manifest::ArtifactKind};
use tar::{EntryType, Header};

use super::*;
use crate::slots::tests::on_small_disk;

#[test]
fn a_good_archive_arrives_as_signed() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let parent = "d".repeat(120);
    let release = Release::new()
        .directory("bin")
        .file("bin/tool", b"#!/bin/sh\n", Run::Yes)
        .file("empty", b"", Run::No)
        .file("data", &noise(3_000_000), Run::No)
        .symlink("bin/alias", "../data")
        .directory(&parent)
        .file(&long, b"deep", Run::No)
        .symlink("far", &long);
    let slot = Place::new();
    unpack(Cursor::new(&release.archive()), &release.artifact(), &slot.path()).expect("as signed");
    let at = |name: &str| slot.path().join(name);
    assert_eq!(fs::read(at("bin/tool")).expect("there"), b"#!/bin/sh\n");
    assert_eq!(fs::read(at("data")).expect("there"), noise(3_000_000));
    assert_eq!(fs::read(at(&long)).expect("there"), b"deep");
    assert_eq!(fs::read_link(at("bin/alias")).expect("a link"), Path::new("../data"));
    assert_eq!(fs::read_link(at("far")).expect("a link"), Path::new(&long));
    for (name, mode) in [("bin/tool", 0o755), ("empty", 0o644), ("data", 0o644), ("bin", 0o755)] {
        let found = fs::metadata(at(name)).expect("there").permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{name}");
    }
}

#[test]
fn bytes_may_come_in_any_portions() {
    let release = Release::new().file("data", &noise(70_000), Run::No);
    let archive = release.archive();
    for portion in [1, 7, 511, 4096] {
        let slot = Place::new();
        let source = Portions { bytes: &archive, portion };
        unpack(source, &release.artifact(), &slot.path()).expect("as signed");
        assert_eq!(fs::read(slot.path().join("data")).expect("there"), noise(70_000));
    }
}

#[test]
fn more_small_files_than_may_be_open_at_once_arrive() {
    let mut release = Release::new();
    for n in 0..700 {
        release = release.file(&format!("f{n}"), n.to_string().as_bytes(), Run::No);
    }
    let slot = Place::new();
    unpack(Cursor::new(&release.archive()), &release.artifact(), &slot.path()).expect("as signed");
    assert_eq!(fs::read_dir(slot.path()).expect("there").count(), 700);
    assert_eq!(fs::read(slot.path().join("f699")).expect("there"), b"699");
}

#[test]
fn names_that_lead_out_are_refused() {
    for (name, fault) in [
        ("../evil", NameFault::Parent),
        ("bin/../../evil", NameFault::Parent),
        ("/tmp/evil", NameFault::Absolute),
        ("./good", NameFault::Dot),
        ("a\\b", NameFault::Backslash),
        ("bin//x", NameFault::EmptyPart),
    ] {
        let error = refused(&Release::good().raw(&header(name, b'0', b"evil"), b"evil"));
        assert!(matches!(&error, UnpackError::Name { fault: f, .. } if *f == fault), "{error:?}");
    }
    let mut latin = header("good", b'0', b"");
    latin.as_old_mut().name[0] = 0xff;
    latin.set_cksum();
    let error = refused(&Release::good().raw(&latin, b""));
    assert!(matches!(error, UnpackError::Name { fault: NameFault::NotUtf8, .. }), "{error:?}");
}

#[test]
fn a_name_that_leads_out_is_refused_even_when_signed() {
    for name in ["../evil", "/tmp/evil", ""] {
        let release = Release::new().listed(name, file_kind(b"evil", Run::No));
        let error = refused(&release.raw(&header(name, b'0', b"evil"), b"evil"));
        assert!(matches!(error, UnpackError::List(ListError::Name { .. })), "{error:?}");
    }
}

#[test]
fn links_out_of_the_slot_are_refused_even_when_signed() {
    for target in ["../outside", "/etc", "a/../../outside", "a/.."] {
        let error = refused(&Release::new().symlink("l", target));
        assert!(matches!(error, UnpackError::List(ListError::Target { .. })), "{error:?}");
    }
}

#[test]
fn a_link_that_points_elsewhere_than_signed_is_refused() {
    let target = "good".to_owned();
    let mut link = header("l", b'2', b"");
    link.set_link_name_literal("/etc/passwd").expect("fits");
    link.set_cksum();
    let release = Release::good().listed("l", FileKind::Symlink { target }).raw(&link, b"");
    let error = refused(&release);
    assert!(matches!(error, UnpackError::Target { .. }), "{error:?}");
}

#[test]
fn nothing_is_written_through_a_link() {
    // The list promises a directory; the archive brings a link of that name, then a file below it.
    let mut link = header("d", b'2', b"");
    link.set_link_name_literal("..").expect("fits");
    link.set_cksum();
    let release = Release::new()
        .listed("d", FileKind::Directory)
        .listed("d/evil", file_kind(b"evil", Run::No))
        .raw(&link, b"")
        .raw(&header("d/evil", b'0', b"evil"), b"evil");
    let error = refused(&release);
    assert!(matches!(error, UnpackError::Kind { .. }), "{error:?}");
    // The list itself promises a file below a link.
    let release = Release::new().symlink("d", "x").file("d/evil", b"evil", Run::No);
    let error = refused(&release);
    assert!(matches!(error, UnpackError::List(ListError::Parent { .. })), "{error:?}");
}

#[test]
fn devices_fifos_hard_links_and_extended_headers_are_refused() {
    for (kind, word) in [
        (b'1', "hard link"),
        (b'3', "character device"),
        (b'4', "block device"),
        (b'6', "fifo"),
        (b'S', "sparse file"),
        (b'x', "extended header"),
        (b'g', "extended header"),
        (b'7', "member of unknown kind"),
    ] {
        let release = Release::good().listed("x", file_kind(b"", Run::No));
        let mut member = header("x", kind, b"");
        member.set_link_name_literal("good").expect("fits");
        member.set_cksum();
        let error = refused(&release.raw(&member, b""));
        let named = matches!(&error, UnpackError::ForbiddenKind { found, .. } if *found == word);
        assert!(named, "{error:?}");
    }
}

#[test]
fn setuid_setgid_sticky_and_unsigned_modes_are_refused() {
    for mode in [0o4755, 0o2755, 0o1755] {
        let release = Release::good().listed("x", file_kind(b"", Run::Yes));
        let error = refused(&release.raw(&with_mode("x", mode), b""));
        assert!(matches!(error, UnpackError::SpecialBits { .. }), "{mode:o}: {error:?}");
    }
    for mode in [0o777, 0o666, 0o755, 0o600, 0] {
        let release = Release::good().listed("x", file_kind(b"", Run::No));
        let error = refused(&release.raw(&with_mode("x", mode), b""));
        assert!(matches!(error, UnpackError::Mode { .. }), "{mode:o}: {error:?}");
    }
    let mut sticky = header("d", b'5', b"");
    sticky.set_mode(0o1777);
    sticky.set_cksum();
    let error = refused(&Release::good().listed("d", FileKind::Directory).raw(&sticky, b""));
    assert!(matches!(error, UnpackError::SpecialBits { .. }), "{error:?}");
}

#[test]
fn extra_missing_repeated_and_misplaced_members_are_refused() {
    let error = refused(&Release::good().raw(&header("extra", b'0', b""), b""));
    assert!(matches!(error, UnpackError::Extra { .. }), "{error:?}");
    let error = refused(&Release::good().raw(&header("good", b'0', b"good"), b"good"));
    assert!(matches!(error, UnpackError::Twice { .. }), "{error:?}");
    let error = refused(&Release::good().listed("x", file_kind(b"", Run::No)));
    assert!(matches!(error, UnpackError::Missing { .. }), "{error:?}");
    let late = Release::new().file("d/x", b"x", Run::No).directory("d");
    let error = refused(&late);
    assert!(matches!(error, UnpackError::BeforeParent { .. }), "{error:?}");
}

#[test]
fn another_kind_or_size_or_content_than_signed_is_refused() {
    let error =
        refused(&Release::new().listed("x", FileKind::Directory).raw(&header("x", b'0', b""), b""));
    assert!(matches!(error, UnpackError::Kind { .. }), "{error:?}");
    for (signed, sent) in [(&b"1234"[..], &b"12345"[..]), (b"1234", b"123")] {
        let release = Release::new().listed("x", file_kind(signed, Run::No));
        let error = refused(&release.raw(&header("x", b'0', sent), sent));
        assert!(matches!(error, UnpackError::FileSize { .. }), "{error:?}");
    }
    let release = Release::new().listed("x", file_kind(b"1234", Run::No));
    let error = refused(&release.raw(&header("x", b'0', b"1235"), b"1235"));
    assert!(matches!(error, UnpackError::FileDigest { .. }), "{error:?}");
}

#[test]
fn a_giant_is_refused_at_its_header() {
    // The header claims 8 GiB; not a byte of content needs to follow for it to be refused.
    let release = Release::good().listed("x", file_kind(b"", Run::No));
    let mut giant = header("x", b'0', b"");
    giant.set_size(8 << 30);
    giant.set_cksum();
    let error = refused(&release.raw(&giant, b""));
    assert!(matches!(error, UnpackError::FileSize { .. }), "{error:?}");
}

#[test]
fn files_that_hold_more_than_any_release_may_are_refused() {
    let half =
        FileKind::File { size: ARTIFACT_BYTES / 2 + 1, sha256: Digest([0; 32]), executable: false };
    let error = refused(&Release::good().listed("x", half.clone()).listed("y", half));
    assert!(matches!(error, UnpackError::List(ListError::Sum { .. })), "{error:?}");
}

#[test]
fn entries_without_end_are_refused_at_the_first_that_is_not_signed() {
    let mut tar = Vec::new();
    for n in 0..100_000 {
        tar.extend_from_slice(header(&format!("n{n}"), b'0', b"").as_bytes());
    }
    let archive = zstd::encode_all(&tar[..], 3).expect("compressed");
    let artifact = Artifact { size: archive.len() as u64, ..Release::good().artifact() };
    let artifact = Artifact { sha256: sha256(&archive), ..artifact };
    let error = attempt(Cursor::new(archive), &artifact);
    assert!(matches!(&error, UnpackError::Extra { path } if path == "n0"), "{error:?}");
}

#[test]
fn a_small_archive_that_unfolds_without_end_is_refused() {
    // 64 MiB of zeros in about 2 kB: as the end mark, as a long name, as padding.
    let zeros = vec![0; 64 << 20];
    let mut endless = Release::good();
    endless.tail = zeros.clone();
    let error = refused(&endless);
    assert!(matches!(error, UnpackError::Framing(Framing::EndlessEnd)), "{error:?}");

    let mut name = header("././@LongLink", b'L', b"");
    name.set_size(zeros.len() as u64);
    name.set_cksum();
    let error = refused(&Release::good().raw(&name, &zeros));
    assert!(matches!(error, UnpackError::Name { fault: NameFault::TooLong, .. }), "{error:?}");
}

#[test]
fn long_names_cannot_be_stacked_or_left_over() {
    let name = header("././@LongLink", b'L', b"x\0");
    let error = refused(&Release::good().raw(&name, b"x\0").raw(&name, b"x\0"));
    assert!(matches!(error, UnpackError::Framing(Framing::RepeatedLongName)), "{error:?}");
    let error = refused(&Release::good().raw(&name, b"x\0"));
    assert!(matches!(error, UnpackError::Framing(Framing::LoneLongName)), "{error:?}");
    let evil = header("././@LongLink", b'L', b"../evil\0");
    let error =
        refused(&Release::good().raw(&evil, b"../evil\0").raw(&header("good", b'0', b""), b""));
    assert!(matches!(error, UnpackError::Name { fault: NameFault::Parent, .. }), "{error:?}");
}

#[test]
fn a_window_beyond_eight_mebibytes_is_refused() {
    for (log, fits) in [(WINDOW_LOG_MAX, true), (WINDOW_LOG_MAX + 1, false), (31, false)] {
        let release = Release::good();
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.window_log(log).expect("a window");
        encoder.write_all(&release.tar_stream()).expect("compressed");
        let archive = encoder.finish().expect("compressed");
        let artifact = sealed(&release, &archive);
        let slot = Place::new();
        match unpack(Cursor::new(archive), &artifact, &slot.path()) {
            Ok(()) => assert!(fits, "2^{log}"),
            Err(error) => assert!(!fits && matches!(error, UnpackError::Window), "{error:?}"),
        }
    }
}

#[test]
fn a_truncated_archive_is_refused_at_every_length() {
    let release = Release::good();
    let archive = release.archive();
    for length in 0..archive.len() {
        let error = attempt(Cursor::new(&archive[..length]), &release.artifact());
        let told = matches!(error, UnpackError::Truncated { found, .. } if found == length as u64);
        assert!(told, "{length}: {error:?}");
        assert!(error.is_passing());
    }
}

#[test]
fn an_archive_with_one_flipped_bit_is_refused_at_every_byte() {
    let release = Release::good();
    let archive = release.archive();
    for at in 0..archive.len() {
        let mut flipped = archive.clone();
        flipped[at] ^= 0x10;
        let error = attempt(Cursor::new(flipped), &release.artifact());
        assert!(!error.is_passing() || matches!(error, UnpackError::Truncated { .. }), "{error:?}");
    }
}

#[test]
fn the_same_files_in_other_bytes_are_refused() {
    // Another compression level: every file is as signed and yet it is not the signed archive.
    let release = Release::new().file("data", &noise(50_000), Run::No);
    let archive = zstd::encode_all(&release.tar_stream()[..], 1).expect("compressed");
    let artifact =
        Artifact { size: archive.len() as u64, sha256: Digest([7; 32]), ..release.artifact() };
    let error = attempt(Cursor::new(archive), &artifact);
    assert!(matches!(error, UnpackError::ArchiveDigest { .. }), "{error:?}");
}

#[test]
fn bytes_beyond_the_signed_length_are_refused() {
    let release = Release::good();
    let mut archive = release.archive();
    archive.extend_from_slice(b"more");
    let error = attempt(Cursor::new(archive), &release.artifact());
    assert!(matches!(error, UnpackError::TooLong { .. }), "{error:?}");
}

#[test]
fn an_endless_transfer_is_cut_off_at_the_signed_length() {
    let release = Release::good();
    let endless = Cursor::new(release.archive()).chain(io::repeat(0));
    let error = attempt(endless, &release.artifact());
    assert!(matches!(error, UnpackError::TooLong { .. }), "{error:?}");
}

#[test]
fn garbage_behind_the_archive_is_refused_even_when_signed() {
    let release = Release::good();
    let second = zstd::encode_all(&b"second frame"[..], 3).expect("compressed");
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    for garbage in [&b"x"[..], &second, &skippable] {
        let archive = [&release.archive()[..], garbage].concat();
        let artifact = sealed(&release, &archive);
        let error = attempt(Cursor::new(archive), &artifact);
        assert!(matches!(error, UnpackError::TrailingBytes), "{error:?}");
    }
    let mut hidden = Release::good();
    hidden.tail = [vec![0; 512], b"hidden".to_vec()].concat();
    let error = refused(&hidden);
    assert!(matches!(error, UnpackError::Framing(Framing::AfterEnd)), "{error:?}");
}

#[test]
fn a_malformed_tar_stream_is_refused() {
    let mut cut = Release::good();
    cut.tail = Vec::new();
    let error = refused(&cut);
    assert!(matches!(error, UnpackError::Framing(Framing::NoEnd)), "{error:?}");

    let mut sum = header("x", b'0', b"");
    sum.as_mut_bytes()[0] ^= 1;
    let error = refused(&Release::good().raw(&sum, b""));
    assert!(matches!(error, UnpackError::Framing(Framing::Checksum)), "{error:?}");

    let mut padded = Release::new().listed("x", file_kind(b"1", Run::No));
    padded.members.extend_from_slice(header("x", b'0', b"1").as_bytes());
    padded.members.extend_from_slice(&[b'1'; 512]);
    let error = refused(&padded);
    assert!(matches!(error, UnpackError::Framing(Framing::Padding)), "{error:?}");

    let error = attempt(
        Cursor::new(b"not zstd at all".to_vec()),
        &Artifact { size: 15, ..Release::good().artifact() },
    );
    assert!(matches!(error, UnpackError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_transfer_that_breaks_is_told_apart_from_a_bad_archive() {
    let release = Release::good();
    let broken = Cursor::new(release.archive()[..20].to_vec()).chain(Broken);
    let error = attempt(broken, &release.artifact());
    assert!(matches!(error, UnpackError::Transfer(_)), "{error:?}");
    assert!(error.is_passing());
}

#[test]
fn a_directory_that_holds_something_is_refused() {
    let release = Release::good();
    let slot = Place::new();
    fs::write(slot.path().join("old"), b"").expect("written");
    let outcome = unpack(Cursor::new(release.archive()), &release.artifact(), &slot.path());
    assert!(matches!(outcome, Err(UnpackError::NotEmpty { .. })), "{outcome:?}");
}

#[test]
fn room_is_asked_for_beforehand() {
    let slot = Place::new();
    let artifact = Release::good().artifact();
    require_room(&slot.path(), &artifact, 0).expect("a few bytes are free");
    let huge = FileKind::File { size: 1 << 60, sha256: Digest([0; 32]), executable: false };
    let huge = Release::good().listed("huge", huge).artifact();
    let outcome = require_room(&slot.path(), &huge, 0);
    assert!(matches!(outcome, Err(UnpackError::NoRoom { .. })), "{outcome:?}");
    let outcome = require_room(&slot.path(), &artifact, u64::MAX);
    assert!(matches!(outcome, Err(UnpackError::NoRoom { .. })), "{outcome:?}");
}

#[test]
fn a_disk_that_fills_up_on_the_way_is_named() {
    on_small_disk("unpack::tests::a_disk_that_fills_up_on_the_way_is_named", |disk| {
        let release = Release::new().file("data", &noise(3_000_000), Run::No);
        let slot = disk.join("slot");
        fs::create_dir(&slot).expect("created");
        let outcome = unpack(Cursor::new(release.archive()), &release.artifact(), &slot);
        let full = matches!(outcome, Err(UnpackError::Disk(SlotError::Full { .. })));
        assert!(full, "{outcome:?}");
        assert!(outcome.expect_err("refused").is_passing());
    });
}

#[derive(Clone, Copy)]
enum Run {
    Yes,
    No,
}

/// A release under construction: its signed list and its tar stream, which tests let disagree.
struct Release {
    files: Vec<FileEntry>,
    members: Vec<u8>,
    tail: Vec<u8>,
}

impl Release {
    fn new() -> Self {
        Self { files: Vec::new(), members: Vec::new(), tail: vec![0; 1024] }
    }

    fn good() -> Self {
        Self::new().file("good", b"good", Run::No)
    }

    fn file(self, path: &str, content: &[u8], run: Run) -> Self {
        let mode = if matches!(run, Run::Yes) { 0o755 } else { 0o644 };
        self.listed(path, file_kind(content, run)).packed(path, mode, EntryType::Regular, content)
    }

    fn directory(self, path: &str) -> Self {
        let slash = format!("{path}/");
        self.listed(path, FileKind::Directory).packed(&slash, 0o755, EntryType::Directory, b"")
    }

    fn symlink(mut self, path: &str, target: &str) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        builder.append_link(&mut header, path, target).expect("packed");
        self.append(builder);
        self.listed(path, FileKind::Symlink { target: target.to_owned() })
    }

    fn packed(mut self, path: &str, mode: u32, kind: EntryType, content: &[u8]) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        builder.append_data(&mut header, path, content).expect("packed");
        self.append(builder);
        self
    }

    fn append(&mut self, builder: tar::Builder<Vec<u8>>) {
        let mut stream = builder.into_inner().expect("packed");
        stream.truncate(stream.len() - 1024);
        self.members.extend_from_slice(&stream);
    }

    /// An entry of the list alone.
    fn listed(mut self, path: &str, kind: FileKind) -> Self {
        self.files.push(FileEntry { path: path.to_owned(), kind });
        self
    }

    /// A member of the archive alone.
    fn raw(mut self, header: &Header, content: &[u8]) -> Self {
        self.members.extend_from_slice(header.as_bytes());
        self.members.extend_from_slice(content);
        let end = self.members.len().next_multiple_of(512);
        self.members.resize(end, 0);
        self
    }

    fn tar_stream(&self) -> Vec<u8> {
        [&self.members[..], &self.tail].concat()
    }

    fn archive(&self) -> Vec<u8> {
        zstd::encode_all(&self.tar_stream()[..], 3).expect("compressed")
    }

    fn artifact(&self) -> Artifact {
        sealed(self, &self.archive())
    }
}

fn sealed(release: &Release, archive: &[u8]) -> Artifact {
    Artifact {
        size: archive.len() as u64,
        sha256: sha256(archive),
        files: release.files.clone(),
        arch: None,
        os_ids: BTreeSet::new(),
        models: BTreeSet::new(),
        kind: ArtifactKind::App,
    }
}

/// Unpacks into a new slot what must not be unpacked, and looks that nothing lies beside it.
fn attempt(archive: impl Read, artifact: &Artifact) -> UnpackError {
    let slot = Place::new();
    let error = unpack(archive, artifact, &slot.path()).expect_err("this must be refused");
    let beside: Vec<_> = fs::read_dir(slot.outer.path()).expect("there").flatten().collect();
    assert_eq!(beside.len(), 1, "something was written outside the slot: {beside:?}");
    error
}

fn refused(release: &Release) -> UnpackError {
    attempt(Cursor::new(release.archive()), &release.artifact())
}

/// A slot's directory inside another, so that an escape by one step is seen.
struct Place {
    outer: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let outer = tempfile::tempdir().expect("a directory");
        fs::create_dir(outer.path().join("slot")).expect("created");
        Self { outer }
    }

    fn path(&self) -> PathBuf {
        self.outer.path().join("slot")
    }
}

fn header(name: &str, kind: u8, content: &[u8]) -> Header {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(EntryType::new(kind));
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn with_mode(name: &str, mode: u32) -> Header {
    let mut header = header(name, b'0', b"");
    header.set_mode(mode);
    header.set_cksum();
    header
}

fn file_kind(content: &[u8], run: Run) -> FileKind {
    FileKind::File {
        size: content.len() as u64,
        sha256: sha256(content),
        executable: matches!(run, Run::Yes),
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}

/// Bytes that do not compress, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

struct Portions<'b> {
    bytes: &'b [u8],
    portion: usize,
}

impl Read for Portions<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.portion.min(buffer.len()).min(self.bytes.len());
        let (now, rest) = self.bytes.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.bytes = rest;
        Ok(count)
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}
