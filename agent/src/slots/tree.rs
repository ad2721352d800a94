//! A slot's tree of files: brought to the disk, and held against its signed list. It follows no
//! link and changes nothing.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::Digest,
    manifest::{FileEntry, FileKind},
};
use sha2::{Digest as _, Sha256};

use super::{Slot, SlotError};
use crate::unpack::{Listing, SPECIAL_BITS, file_mode, forget};

/// How much of a file is hashed at once.
const BUFFER: usize = 128 * 1024;

/// Syncs every file and directory below `root`, and `root` itself.
pub(super) fn sync(root: &Path) -> Result<(), SlotError> {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for (path, kind) in list(&directory)? {
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                let file = open(&path)?;
                file.sync_all().map_err(|error| SlotError::disk("sync", &path, error))?;
            }
        }
        sync_directory(&directory)?;
    }
    Ok(())
}

/// Syncs the names in one directory.
pub(super) fn sync_directory(path: &Path) -> Result<(), SlotError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| SlotError::disk("sync", path, error))
}

/// Compares the tree below `root` with the signed list and names the first difference.
pub(super) fn verify(slot: Slot, root: &Path, files: &[FileEntry]) -> Result<(), SlotError> {
    let listing = Listing::of(files)?;
    let differs =
        |path: &str, difference| SlotError::Differs { slot, path: path.to_owned(), difference };
    for entry in listing.entries() {
        if let Some(difference) = compare(&root.join(&entry.path), &entry.kind)? {
            return Err(differs(&entry.path, difference));
        }
    }
    match first_unlisted(root, &listing)? {
        Some(path) => Err(differs(&path, Difference::Extra)),
        None => Ok(()),
    }
}

/// The digest of a regular file, or `None` where there is none.
pub(super) fn digest(path: &Path) -> Result<Option<Digest>, SlotError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => hash(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(SlotError::disk("look at", path, error)),
    }
}

/// Whether an error says that there is nothing at a path.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn compare(path: &Path, signed: &FileKind) -> Result<Option<Difference>, SlotError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if is_absent(&error) => return Ok(Some(Difference::Missing)),
        Err(error) => return Err(SlotError::disk("look at", path, error)),
    };
    let mode = meta.permissions().mode() & 0o7777;
    let kind = meta.file_type();
    Ok(match signed {
        FileKind::Directory if !kind.is_dir() => Some(Difference::Kind),
        FileKind::Directory => (mode & SPECIAL_BITS != 0).then_some(Difference::Mode),
        FileKind::Symlink { .. } if !kind.is_symlink() => Some(Difference::Kind),
        FileKind::Symlink { target } => {
            let found =
                fs::read_link(path).map_err(|error| SlotError::disk("read", path, error))?;
            (found != Path::new(target)).then_some(Difference::Target)
        }
        FileKind::File { .. } if !kind.is_file() => Some(Difference::Kind),
        FileKind::File { size, .. } if meta.len() != *size => Some(Difference::Size),
        FileKind::File { executable, .. } if mode != file_mode(*executable) => {
            Some(Difference::Mode)
        }
        FileKind::File { sha256, .. } => (hash(path)? != *sha256).then_some(Difference::Content),
    })
}

fn first_unlisted(root: &Path, listing: &Listing<'_>) -> Result<Option<String>, SlotError> {
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        for (path, kind) in list(&root.join(&directory))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = if directory.is_empty() {
                name.into_owned()
            } else {
                format!("{directory}/{name}")
            };
            if listing.entry(&name).is_none() {
                return Ok(Some(name));
            }
            if kind.is_dir() {
                directories.push(name);
            }
        }
    }
    Ok(None)
}

/// The names in a directory, in order, with their kinds; links are not followed.
fn list(directory: &Path) -> Result<Vec<(PathBuf, fs::FileType)>, SlotError> {
    let failed = |error| SlotError::disk("list", directory, error);
    let mut entries = BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        entries.insert(entry.map_err(failed)?.path());
    }
    (entries.into_iter())
        .map(|path| {
            let meta = fs::symlink_metadata(&path);
            let kind = meta.map_err(|error| SlotError::disk("look at", &path, error))?.file_type();
            Ok((path, kind))
        })
        .collect()
}

fn hash(path: &Path) -> Result<Digest, SlotError> {
    let failed = |error| SlotError::disk("read", path, error);
    let mut file = open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hash.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    forget(&file);
    Ok(Digest(hash.finalize().into()))
}

/// Opens a regular file that was just looked at; a link put there meanwhile is not followed, and a
/// fifo does not hang.
fn open(path: &Path) -> Result<File, SlotError> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(|error| SlotError::disk("open", path, error))
}

/// How an entry on disk differs from the signed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// It is not in the list.
    Extra,
    /// It is of another kind.
    Kind,
    /// It has another length.
    Size,
    /// It has another mode.
    Mode,
    /// It points elsewhere.
    Target,
    /// It has another content.
    Content,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::Extra => "is not in the signed list",
            Self::Kind => "is of another kind",
            Self::Size => "has another length",
            Self::Mode => "has another mode",
            Self::Target => "points elsewhere",
            Self::Content => "has another content",
        })
    }
}
