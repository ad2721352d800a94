//! Unpacks a release into a slot in one pass: bytes from the network go through SHA-256, zstd and
//! tar straight to the slot's files, and every name, kind, size, count and digest is held against
//! the signed list while it passes. Nothing is copied on the side; memory does not grow with the
//! release.
//!
//! Until the last byte has been hashed the archive is a stranger's, so this refuses, each by its
//! own name, whatever the list does not promise. It never cleans up: after any error the slot holds
//! a part of a release, and whoever called discards it.

mod listing;
mod member;
mod source;
mod writer;

use std::{
    fs,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::Digest,
    manifest::{Artifact, FileEntry, FileKind},
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zstd::stream::read::Decoder;

pub use listing::{ListError, Listing, MAX_PATH, NameFault, check_name};
use member::{Framing, Member, MemberKind, Members};
use source::Source;
use writer::Writer;
pub(crate) use writer::forget;

use crate::slots::{self, SlotError};

/// The largest zstd window as a power of two: 8 MiB, which is what level 19 uses. `--long=27` would
/// cost a device 134 MB of memory for a gain of a few percent.
pub const WINDOW_LOG_MAX: u32 = 23;

/// How much is read from the network at once: zstd's own recommendation for its input.
const INPUT_BUFFER: usize = 128 * 1024;

/// How much unpacked content is handled at once: large enough that a system call's cost vanishes,
/// small beside the window.
const OUTPUT_BUFFER: usize = 128 * 1024;

/// What a file costs on disk beyond its bytes: its last, half-empty block.
const BLOCK: u64 = 4096;

/// Unpacks `archive` into the empty directory `into`, which afterwards holds exactly
/// the artifact's files, synced file by file. Directories are synced when the slot is sealed.
pub fn unpack(archive: impl Read, artifact: &Artifact, into: &Path) -> Result<(), UnpackError> {
    let mut listing = Listing::of(&artifact.files)?;
    require_empty(into)?;
    let source = Source::new(archive, artifact.size);
    let mut decoder = Decoder::with_buffer(BufReader::with_capacity(INPUT_BUFFER, source))
        .map_err(zstd_failed)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(zstd_failed)?;
    let mut members = Members::new(decoder.single_frame());

    let outcome = members_into(&mut members, &mut listing, into);
    // A transfer that broke or ran too long shows up as a decoding error: its cause is named first.
    let decoder = members.into_inner();
    if let Some(breach) = decoder.get_ref().get_ref().breach(outcome.is_err()) {
        return Err(breach);
    }
    if matches!(outcome, Err(UnpackError::Damaged { .. }))
        && decoder.get_ref().get_ref().window_above(1 << WINDOW_LOG_MAX)
    {
        return Err(UnpackError::Window);
    }
    outcome?;
    finish(decoder, artifact)
}

/// Refuses when the file system under `dir` has not enough room for the release and `reserve`
/// bytes, which stay free for the journal and for the owner.
pub fn require_room(dir: &Path, artifact: &Artifact, reserve: u64) -> Result<(), UnpackError> {
    let blocks = (artifact.files.len() as u64).saturating_mul(BLOCK);
    let needed = artifact.unpacked().saturating_add(blocks).saturating_add(reserve);
    let free = slots::room(dir)?;
    if free < needed { Err(UnpackError::NoRoom { needed, free }) } else { Ok(()) }
}

fn members_into(
    members: &mut Members<impl Read>,
    listing: &mut Listing<'_>,
    into: &Path,
) -> Result<(), UnpackError> {
    let mut writer = Writer::new();
    let mut buffer = vec![0; OUTPUT_BUFFER];
    while let Some(member) = members.next_member()? {
        let signed = admit(&member, listing)?;
        let at = into.join(&member.path);
        match &signed.kind {
            FileKind::Directory => writer.directory(&at)?,
            FileKind::Symlink { target } => writer.symlink(target, &at)?,
            FileKind::File { size, sha256, executable } => {
                let mut file = writer.file(&at, *executable)?;
                let mut hash = Sha256::new();
                let mut left = *size;
                while left > 0 {
                    let chunk = members.content(&mut buffer, left)?;
                    hash.update(chunk);
                    writer.write(&mut file, chunk)?;
                    left -= chunk.len() as u64;
                }
                members.skip_padding(*size)?;
                if hash.finalize()[..] != sha256.0 {
                    return Err(UnpackError::FileDigest { path: member.path });
                }
                writer.close(file)?;
            }
        }
    }
    writer.settle()?;
    match listing.first_absent() {
        Some(path) => Err(UnpackError::Missing { path: path.to_owned() }),
        None => Ok(()),
    }
}

/// Holds one member's header against the signed list, before any of its content is read.
fn admit<'l>(member: &Member, listing: &mut Listing<'l>) -> Result<&'l FileEntry, UnpackError> {
    let path = || member.path.clone();
    let signed = listing.take(&member.path)?;
    if member.mode & SPECIAL_BITS != 0 {
        return Err(UnpackError::SpecialBits { path: path(), mode: member.mode });
    }
    match (&signed.kind, &member.kind) {
        (FileKind::File { size, executable, .. }, MemberKind::File) => {
            if member.size != *size {
                return Err(UnpackError::FileSize {
                    path: path(),
                    signed: *size,
                    found: member.size,
                });
            }
            let mode = file_mode(*executable);
            if member.mode != mode {
                return Err(UnpackError::Mode { path: path(), signed: mode, found: member.mode });
            }
        }
        (FileKind::Directory, MemberKind::Directory) => {}
        (FileKind::Symlink { target }, MemberKind::Symlink { target: found }) => {
            if target != found {
                return Err(UnpackError::Target { path: path() });
            }
        }
        (FileKind::File { .. } | FileKind::Directory | FileKind::Symlink { .. }, found) => {
            return Err(UnpackError::Kind {
                path: path(),
                signed: word(&signed.kind),
                found: found.word(),
            });
        }
    }
    Ok(signed)
}

/// After the last member nothing but the frame's own end may follow, and the whole must be the
/// signed bytes.
fn finish<R: Read>(
    mut decoder: Decoder<'_, BufReader<Source<R>>>,
    artifact: &Artifact,
) -> Result<(), UnpackError> {
    let ended = decoder.finish_frame();
    let mut buffered = decoder.into_inner();
    if let Some(breach) = buffered.get_ref().breach(ended.is_err()) {
        return Err(breach);
    }
    ended.map_err(zstd_failed)?;
    let mut one = [0];
    let surplus = buffered.read(&mut one);
    let source = buffered.get_ref();
    if let Some(breach) = source.breach(surplus.is_err()) {
        return Err(breach);
    }
    if !matches!(surplus, Ok(0)) {
        return Err(UnpackError::TrailingBytes);
    }
    let (size, sha256) = buffered.into_inner().finish();
    if size != artifact.size {
        return Err(UnpackError::Truncated { signed: artifact.size, found: size });
    }
    if sha256 != artifact.sha256 {
        return Err(UnpackError::ArchiveDigest { signed: artifact.sha256, found: sha256 });
    }
    Ok(())
}

fn require_empty(into: &Path) -> Result<(), UnpackError> {
    let read = |error| SlotError::disk("list", into, error);
    match fs::read_dir(into).map_err(read)?.next() {
        None => Ok(()),
        Some(_) => Err(UnpackError::NotEmpty { path: into.to_owned() }),
    }
}

/// A failure reported by zstd or from beneath it.
fn zstd_failed(error: io::Error) -> UnpackError {
    let detail = error.to_string();
    // As it is built here, zstd says by this that its words were left out.
    let wordless = detail.contains("strings stripped");
    UnpackError::Damaged {
        detail: if wordless { "it is no zstd frame, or was altered".to_owned() } else { detail },
    }
}

/// The mode a signed file gets, whatever the umask.
pub const fn file_mode(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

/// Setuid, setgid and sticky.
pub const SPECIAL_BITS: u32 = 0o7000;

/// An entry's kind in a person's words.
const fn word(kind: &FileKind) -> &'static str {
    match kind {
        FileKind::File { .. } => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink { .. } => "symbolic link",
    }
}

/// Why an archive was not unpacked. After each of these the slot is to be discarded.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The signed list itself promises what is never installed.
    #[error("the signed list of files is refused")]
    List(#[from] ListError),
    /// The slot could not be written.
    #[error(transparent)]
    Disk(#[from] SlotError),
    /// The directory to fill holds something already.
    #[error("`{path}` is not empty", path = path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Too little space, found before anything was fetched.
    #[error(
        "{needed} bytes are needed and {free} are free\nhint: make room on the disk that holds the slots"
    )]
    NoRoom {
        /// With the reserve.
        needed: u64,
        /// What there is.
        free: u64,
    },
    /// The transfer failed.
    #[error("the archive could not be read to its end")]
    Transfer(#[source] io::Error),
    /// Fewer bytes than signed.
    #[error("the archive ends after {found} of {signed} bytes")]
    Truncated {
        /// The signed length.
        signed: u64,
        /// The bytes that came.
        found: u64,
    },
    /// More bytes than signed.
    #[error("the archive is longer than its signed {signed} bytes")]
    TooLong {
        /// The signed length.
        signed: u64,
    },
    /// All bytes came, and they are not the signed ones.
    #[error("the archive's digest is `{found}` where `{signed}` was signed")]
    ArchiveDigest {
        /// As signed.
        signed: Digest,
        /// As received.
        found: Digest,
    },
    /// The packer used more history than a device has memory for.
    #[error("the archive needs a zstd window above {} MiB\nhint: pack with level 19 or below and without `--long`", 1 << (WINDOW_LOG_MAX - 20))]
    Window,
    /// Not a zstd frame, or one that was altered.
    #[error("the archive is damaged: {detail}")]
    Damaged {
        /// What is known of it.
        detail: String,
    },
    /// Bytes after the compressed frame.
    #[error("something follows the end of the archive")]
    TrailingBytes,
    /// The tar stream is not well formed.
    #[error("the archive's tar stream is refused")]
    Framing(#[from] Framing),
    /// A member's name.
    #[error("the archive holds the name `{name}`, which {fault}")]
    Name {
        /// The name, cut and made printable.
        name: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// A device, fifo, hard link, sparse file or extended header.
    #[error("`{path}` is a {found}, which is never installed")]
    ForbiddenKind {
        /// The member.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// Another kind than signed.
    #[error("`{path}` is a {found} where a {signed} was signed")]
    Kind {
        /// The member.
        path: String,
        /// As signed.
        signed: &'static str,
        /// As found.
        found: &'static str,
    },
    /// Setuid, setgid or sticky.
    #[error("`{path}` has mode {mode:04o}: setuid, setgid and sticky are never installed")]
    SpecialBits {
        /// The member.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// Another mode than signed.
    #[error("`{path}` has mode {found:04o} where {signed:04o} was signed")]
    Mode {
        /// The member.
        path: String,
        /// As signed.
        signed: u32,
        /// As found.
        found: u32,
    },
    /// A link that points elsewhere than signed.
    #[error("the link `{path}` points elsewhere than was signed")]
    Target {
        /// The member.
        path: String,
    },
    /// A member that the list does not name.
    #[error("`{path}` is not in the signed list")]
    Extra {
        /// The member.
        path: String,
    },
    /// A member that came twice.
    #[error("`{path}` is in the archive twice")]
    Twice {
        /// The member.
        path: String,
    },
    /// A member whose directory has not come yet.
    #[error("`{path}` comes before the directory that holds it")]
    BeforeParent {
        /// The member.
        path: String,
    },
    /// A listed entry that never came.
    #[error("`{path}` is in the signed list and not in the archive")]
    Missing {
        /// The entry.
        path: String,
    },
    /// Another length than signed.
    #[error("`{path}` has {found} bytes where {signed} were signed")]
    FileSize {
        /// The member.
        path: String,
        /// As signed.
        signed: u64,
        /// As found.
        found: u64,
    },
    /// Another content than signed.
    #[error("the content of `{path}` is not the signed one")]
    FileDigest {
        /// The member.
        path: String,
    },
}

impl UnpackError {
    /// Whether trying the same bytes again may help: true for what the network or the disk did,
    /// false for what the archive is.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Disk(_)
            | Self::NotEmpty { .. }
            | Self::NoRoom { .. }
            | Self::Transfer(_)
            | Self::Truncated { .. } => true,
            Self::List(_)
            | Self::TooLong { .. }
            | Self::ArchiveDigest { .. }
            | Self::Window
            | Self::Damaged { .. }
            | Self::TrailingBytes
            | Self::Framing(_)
            | Self::Name { .. }
            | Self::ForbiddenKind { .. }
            | Self::Kind { .. }
            | Self::SpecialBits { .. }
            | Self::Mode { .. }
            | Self::Target { .. }
            | Self::Extra { .. }
            | Self::Twice { .. }
            | Self::BeforeParent { .. }
            | Self::Missing { .. }
            | Self::FileSize { .. }
            | Self::FileDigest { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
