//! Packs a folder as tar in zstd, the same bytes for the same content wherever and whenever it is
//! packed: sorted, without owners or times, modes 0755 and 0644 only. One pass, bounded memory.
//!
//! It refuses what a device would refuse: links that leave the tree, anything but files, folders
//! and links, special mode bits, names that are no plain text. [`verify`] reads an archive again and
//! holds it against its signed list; it writes nothing.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::Digest,
    limits,
    manifest::{Artifact, FileEntry, FileKind, path_stays_inside},
};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The zstd window as a power of two: 8 MiB, the most that a device unpacks.
pub const WINDOW_LOG: u32 = 23;
/// The compression level: a third of level 19's time for some 3 % more bytes.
pub const LEVEL: i32 = 15;
/// How much content is handled at once.
const BUFFER: usize = 128 * 1024;
/// The longest part of a name: what common file systems hold.
const MAX_PART: usize = 255;
/// setuid, setgid and sticky.
const SPECIAL_BITS: u32 = 0o7000;
/// Any of the three execute bits.
const EXECUTE_BITS: u32 = 0o111;

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the archive.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// What is in it, in its order.
    pub files: Vec<FileEntry>,
}

/// Why a folder cannot be packed, or an archive is not what its list says.
#[derive(Debug, Error)]
pub enum PackError {
    /// The disk says no.
    #[error("cannot {act} `{}`", path.display())]
    Io {
        /// What was attempted.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The archive cannot be written or read.
    #[error("the archive cannot be {act}")]
    Archive {
        /// `written` or `read`.
        act: &'static str,
        /// What was said.
        source: io::Error,
    },
    /// A name that no device unpacks.
    #[error("`{name}` cannot be packed: {why}\nhint: rename it")]
    Name {
        /// The name, made printable.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A link that may leave the tree.
    #[error(
        "the link `{path}` points to `{target}`: {why}\nhint: links must be relative and stay inside the packed folder; `..` may stand only at their beginning"
    )]
    Link {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A device node, a socket or a pipe.
    #[error(
        "`{0}` is neither a file nor a folder nor a link\nhint: remove it from the packed folder"
    )]
    Special(String),
    /// Set-user-id and the like.
    #[error(
        "`{path}` has mode {mode:04o}: setuid, setgid and sticky are never installed\nhint: `chmod u-s,g-s,-t` it"
    )]
    SpecialBits {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// Written to while it was read.
    #[error("`{0}` changed while it was packed\nhint: pack a folder that nobody writes to")]
    Changed(String),
    /// Nothing to pack.
    #[error("`{}` is empty\nhint: name the folder that holds the release's files", .0.display())]
    Empty(PathBuf),
    /// Too much to pack.
    #[error("a release holds at most {max} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// An archive differs from its signed list.
    #[error("the archive differs from the manifest: {0}")]
    Differs(String),
}

/// Packs what is in `folder` into `out`.
pub fn pack(folder: &Path, out: impl Write) -> Result<Packed, PackError> {
    let archive = |source| PackError::Archive { act: "written", source };
    let mut members = Vec::new();
    walk(folder, "", &mut members)?;
    if members.is_empty() {
        return Err(PackError::Empty(folder.to_owned()));
    }
    let counted = Counted::new(BufWriter::with_capacity(BUFFER, out));
    let mut encoder = zstd::stream::write::Encoder::new(counted, LEVEL).map_err(archive)?;
    encoder.window_log(WINDOW_LOG).map_err(archive)?;
    let mut tar = tar::Builder::new(encoder);
    let mut files = Vec::with_capacity(members.len());
    let mut total = 0_u64;
    for member in members {
        let entry = append(&mut tar, folder, member)?;
        if let FileKind::File { size, .. } = &entry.kind {
            total = total.saturating_add(*size);
        }
        if total > limits::ARTIFACT_BYTES {
            return Err(PackError::TooMuch { what: "bytes", max: limits::ARTIFACT_BYTES });
        }
        files.push(entry);
    }
    let counted = tar.into_inner().and_then(|encoder| encoder.finish()).map_err(archive)?;
    let (size, sha256) = counted.finish().map_err(archive)?;
    Ok(Packed { size, sha256, files })
}

/// Holds an archive against its entry in a manifest: bytes, order, names, kinds, modes, content.
pub fn verify(archive: impl Read, artifact: &Artifact) -> Result<(), PackError> {
    let broken = |source| PackError::Archive { act: "read", source };
    let differs = |text: String| Err(PackError::Differs(text));
    let hashed = Hashed::new(archive, artifact.size);
    let reader = BufReader::with_capacity(BUFFER, hashed);
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(reader).map_err(broken)?.single_frame();
    decoder.window_log_max(WINDOW_LOG).map_err(broken)?;
    let mut archive = tar::Archive::new(decoder);
    let mut expected = artifact.files.iter();
    for member in archive.entries().map_err(broken)? {
        let mut member = member.map_err(broken)?;
        let path = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let path = path.trim_end_matches('/');
        let Some(entry) = expected.next() else {
            return differs(format!("`{path}` is not listed"));
        };
        if entry.path != path {
            return differs(format!("`{path}` stands where `{}` is listed", entry.path));
        }
        if !same(&mut member, &entry.kind).map_err(broken)? {
            return differs(format!("`{path}` is not what is listed"));
        }
    }
    if let Some(entry) = expected.next() {
        return differs(format!("`{}` is missing", entry.path));
    }
    let mut decoder = archive.into_inner();
    io::copy(&mut decoder, &mut io::sink()).map_err(broken)?;
    let mut rest = decoder.finish();
    io::copy(&mut rest, &mut io::sink()).map_err(broken)?;
    let (size, sha256) = rest.into_inner().finish();
    if size == artifact.size && sha256 == artifact.sha256 {
        Ok(())
    } else {
        differs(format!("it has {size} bytes or more with SHA-256 {sha256}"))
    }
}

/// One thing to pack: its path inside the archive and what it looked like.
struct Member {
    path: String,
    kind: MemberKind,
}

enum MemberKind {
    File,
    Directory,
    Symlink(String),
}

/// Lists `folder` depth first in the order of names, each folder before what it holds.
fn walk(folder: &Path, prefix: &str, members: &mut Vec<Member>) -> Result<(), PackError> {
    let failed = |source| PackError::Io { act: "list", path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for name in names {
        let at = folder.join(&name);
        let Some(name) = name.to_str() else {
            let name = name.to_string_lossy().into_owned();
            return Err(PackError::Name { name, why: "it is not UTF-8" });
        };
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        check_name(&path)?;
        let failed = |source| PackError::Io { act: "look at", path: at.clone(), source };
        let meta = fs::symlink_metadata(&at).map_err(failed)?;
        if meta.is_symlink() {
            let target = fs::read_link(&at).map_err(failed)?;
            let target = link_target(&path, &target)?;
            members.push(Member { path, kind: MemberKind::Symlink(target) });
        } else if meta.is_dir() {
            members.push(Member { path: path.clone(), kind: MemberKind::Directory });
            walk(&at, &path, members)?;
        } else if meta.is_file() {
            if meta.mode() & SPECIAL_BITS != 0 {
                return Err(PackError::SpecialBits { path, mode: meta.mode() & 0o7777 });
            }
            members.push(Member { path, kind: MemberKind::File });
        } else {
            return Err(PackError::Special(path));
        }
        if members.len() > limits::ARTIFACT_FILES {
            let max = limits::ARTIFACT_FILES as u64;
            return Err(PackError::TooMuch { what: "files", max });
        }
    }
    Ok(())
}

fn check_name(path: &str) -> Result<(), PackError> {
    let why = if path.chars().any(char::is_control) {
        "it holds a control character"
    } else if path.split('/').any(|part| part.len() > MAX_PART) {
        "a part of it is longer than 255 bytes"
    } else if !path_stays_inside(path) {
        "it holds a backslash or is longer than 4095 bytes"
    } else {
        return Ok(());
    };
    Err(PackError::Name { name: path.escape_debug().to_string(), why })
}

/// A link's target in its plain form. `..` may stand only at its beginning: there it climbs folders
/// that were walked; after a name it would climb from wherever another link leads.
fn link_target(path: &str, target: &Path) -> Result<String, PackError> {
    let shown = target.to_string_lossy().escape_debug().to_string();
    let refuse = |why| Err(PackError::Link { path: path.to_owned(), target: shown.clone(), why });
    let Some(text) = target.to_str() else { return refuse("it is not UTF-8") };
    if text.starts_with('/') {
        return refuse("it is absolute");
    }
    if text.contains('\\') || text.chars().any(char::is_control) {
        return refuse("it holds a backslash or a control character");
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let climbs = parts.iter().take_while(|part| **part == "..").count();
    if climbs > path.matches('/').count() {
        return refuse("it leaves the packed folder");
    }
    if parts.iter().skip(climbs).any(|part| *part == "..") {
        return refuse("it climbs after a name");
    }
    if parts.is_empty() { refuse("it points to its own folder") } else { Ok(parts.join("/")) }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    folder: &Path,
    member: Member,
) -> Result<FileEntry, PackError> {
    let archive = |source| PackError::Archive { act: "written", source };
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mode(0o755);
    let path = member.path;
    let kind = match member.kind {
        MemberKind::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, &path, io::empty()).map_err(archive)?;
            FileKind::Directory
        }
        MemberKind::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, &path, &target).map_err(archive)?;
            FileKind::Symlink { target }
        }
        MemberKind::File => {
            let (file, meta) = open(&folder.join(&path))?;
            let (size, executable) = (meta.len(), meta.mode() & EXECUTE_BITS != 0);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(if executable { 0o755 } else { 0o644 });
            header.set_size(size);
            let mut hashed = Hashed::new(file, size);
            tar.append_data(&mut header, &path, &mut hashed).map_err(archive)?;
            let (read, sha256) = hashed.finish();
            if read != size {
                return Err(PackError::Changed(path));
            }
            FileKind::File { size, sha256, executable }
        }
    };
    Ok(FileEntry { path, kind })
}

/// Opens a regular file without following a link that was put in its place meanwhile.
fn open(path: &Path) -> Result<(File, fs::Metadata), PackError> {
    let failed = |source| PackError::Io { act: "read", path: path.to_owned(), source };
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path)
        .map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(PackError::Changed(path.display().to_string()));
    }
    Ok((file, meta))
}

fn same<R: Read>(member: &mut tar::Entry<'_, R>, kind: &FileKind) -> io::Result<bool> {
    let mode = member.header().mode()?;
    let found = member.header().entry_type();
    Ok(match kind {
        FileKind::Directory => found.is_dir(),
        FileKind::Symlink { target } => {
            found.is_symlink()
                && member.link_name_bytes().is_some_and(|name| *name == *target.as_bytes())
        }
        FileKind::File { size, sha256, executable } => {
            let signed_mode = if *executable { 0o755 } else { 0o644 };
            let alike = found.is_file() && mode == signed_mode && member.size() == *size;
            let mut hashed = Hashed::new(member, *size);
            io::copy(&mut hashed, &mut io::sink())?;
            alike && hashed.finish() == (*size, *sha256)
        }
    })
}

/// A reader that hashes what passes, and never gives more than `limit` and one byte, so that a
/// stream that is longer than it says shows.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
    read: u64,
    limit: u64,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R, limit: u64) -> Self {
        Self { inner, hash: Sha256::new(), read: 0, limit: limit.saturating_add(1) }
    }

    fn finish(self) -> (u64, Digest) {
        (self.read, Digest(self.hash.finalize().into()))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.limit.saturating_sub(self.read)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let space = buffer.get_mut(..most).unwrap_or_default();
        let count = self.inner.read(space)?;
        self.hash.update(space.get(..count).unwrap_or_default());
        self.read += count as u64;
        Ok(count)
    }
}

/// A writer that hashes and counts what passes.
struct Counted<W> {
    inner: W,
    hash: Sha256,
    written: u64,
}

impl<W: Write> Counted<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), written: 0 }
    }

    fn finish(mut self) -> io::Result<(u64, Digest)> {
        self.inner.flush()?;
        Ok((self.written, Digest(self.hash.finalize().into())))
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Links in a list of files that point to nothing in it, for a warning.
pub(super) fn dangling(files: &[FileEntry]) -> Vec<&str> {
    let names: BTreeSet<&str> = files.iter().map(|entry| entry.path.as_str()).collect();
    let leads_nowhere = |entry: &&FileEntry| match &entry.kind {
        FileKind::File { .. } | FileKind::Directory => false,
        FileKind::Symlink { target } => {
            let mut at: Vec<&str> = entry.path.split('/').collect();
            at.pop();
            let through_link = target.split('/').any(|part| {
                if part == ".." {
                    at.pop();
                } else {
                    at.push(part);
                }
                let here = at.join("/");
                let link = |entry: &FileEntry| matches!(entry.kind, FileKind::Symlink { .. });
                files.iter().any(|entry| entry.path == here && link(entry))
            });
            // What lies behind another link is that link's own affair.
            !through_link && !at.is_empty() && !names.contains(at.join("/").as_str())
        }
    };
    files.iter().filter(leads_nowhere).map(|entry| entry.path.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use lockgate_shared::manifest::ArtifactKind;

    use super::*;

    #[test]
    fn the_same_content_is_the_same_bytes_whatever_the_disk_says_of_it() {
        let (one, two) = (tree(), tree());
        let old = File::open(two.path().join("bin/app")).expect("there");
        old.set_modified(std::time::UNIX_EPOCH).expect("changed");
        fs::set_permissions(two.path().join("notes.txt"), fs::Permissions::from_mode(0o600))
            .expect("changed");
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let packed = pack(one.path(), &mut first).expect("packed");
        assert_eq!(packed, pack(two.path(), &mut second).expect("packed"));
        assert_eq!(first, second);
        assert_eq!((packed.size, packed.sha256), (first.len() as u64, Digest::of(&first)));
        let paths: Vec<&str> = packed.files.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["bin", "bin/app", "bin/link", "notes.txt"]);
    }

    #[test]
    fn an_archive_is_held_against_its_list() {
        let tree = tree();
        fs::write(tree.path().join("n".repeat(200)), "a long name").expect("written");
        let mut bytes = Vec::new();
        let good = artifact(pack(tree.path(), &mut bytes).expect("packed"));
        verify(&bytes[..], &good).expect("as listed");
        let mut fewer = good.clone();
        fewer.files.pop();
        let mut other = good.clone();
        if let FileKind::File { sha256, .. } = &mut other.files[1].kind {
            sha256.0[0] ^= 1;
        }
        let mut longer = good.clone();
        longer.size += 1;
        for bad in [fewer, other, longer] {
            assert!(verify(&bytes[..], &bad).is_err());
        }
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert!(verify(&bytes[..], &good).is_err());
    }

    #[test]
    fn links_that_leave_the_tree_are_refused_by_name() {
        for target in ["/etc/passwd", "../../etc", "sub/../../../etc", "a/../b", "."] {
            let tree = tree();
            symlink(target, tree.path().join("bin/bad")).expect("made");
            let error = pack(tree.path(), io::sink()).expect_err(target);
            assert!(matches!(error, PackError::Link { .. }), "{target}: {error}");
            assert!(error.to_string().contains("bin/bad"), "{error}");
        }
        let tree = tree();
        symlink("./../notes.txt", tree.path().join("bin/good")).expect("made");
        let packed = pack(tree.path(), io::sink()).expect("packed");
        let good = packed.files.iter().find(|entry| entry.path == "bin/good").expect("there");
        assert_eq!(good.kind, FileKind::Symlink { target: "../notes.txt".into() });
    }

    #[test]
    fn special_files_bits_and_names_are_refused() {
        let sockets = tree();
        let _socket =
            std::os::unix::net::UnixListener::bind(sockets.path().join("s")).expect("bound");
        assert!(matches!(pack(sockets.path(), io::sink()), Err(PackError::Special(_))));
        let setuid = tree();
        fs::set_permissions(setuid.path().join("bin/app"), fs::Permissions::from_mode(0o4755))
            .expect("changed");
        assert!(matches!(pack(setuid.path(), io::sink()), Err(PackError::SpecialBits { .. })));
        for name in ["back\\slash", "line\nbreak"] {
            let odd = tree();
            fs::write(odd.path().join(name), "").expect("written");
            assert!(matches!(pack(odd.path(), io::sink()), Err(PackError::Name { .. })), "{name}");
        }
        let empty = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(pack(empty.path(), io::sink()), Err(PackError::Empty(_))));
    }

    #[test]
    fn a_link_to_nothing_is_noticed() {
        let tree = tree();
        symlink("nowhere", tree.path().join("lost")).expect("made");
        let packed = pack(tree.path(), io::sink()).expect("packed");
        assert_eq!(dangling(&packed.files), ["lost"]);
    }

    fn tree() -> tempfile::TempDir {
        let temp = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(temp.path().join("bin")).expect("made");
        fs::write(temp.path().join("bin/app"), "#!/bin/sh\nexit 0\n").expect("written");
        fs::set_permissions(temp.path().join("bin/app"), fs::Permissions::from_mode(0o755))
            .expect("changed");
        symlink("app", temp.path().join("bin/link")).expect("made");
        fs::write(temp.path().join("notes.txt"), "notes\n").expect("written");
        temp
    }

    fn artifact(packed: Packed) -> Artifact {
        Artifact {
            arch: None,
            os_ids: BTreeSet::new(),
            models: BTreeSet::new(),
            kind: ArtifactKind::App,
            size: packed.size,
            sha256: packed.sha256,
            files: packed.files,
        }
    }
}
