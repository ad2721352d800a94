//! Files on their way to the disk, in batches that are synced and then dropped from the page cache,
//! so that an installation neither crowds out what the owner has open nor leaves hundreds of
//! megabytes dirty. It only ever creates: a name that exists is an error.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use super::{UnpackError, file_mode};
use crate::slots::SlotError;

/// How many bytes may be dirty at once: as much as the window, some tens of milliseconds of writing
/// on a slow flash chip.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;

/// How many small files may wait open for one sync: far below any limit on open files, and the
/// first sync of a batch carries the others with it on a journalling file system.
const BATCH_FILES: usize = 64;

/// Writes files and keeps the page cache small.
pub(super) struct Writer {
    waiting: Vec<Open>,
    dirty: u64,
}

/// A file being written.
pub(super) struct Open {
    file: File,
    path: PathBuf,
}

impl Writer {
    pub(super) const fn new() -> Self {
        Self { waiting: Vec::new(), dirty: 0 }
    }

    pub(super) fn directory(&self, at: &Path) -> Result<(), UnpackError> {
        let failed = |error| SlotError::disk("create", at, error);
        fs::DirBuilder::new().mode(0o755).create(at).map_err(failed)?;
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        Ok(())
    }

    pub(super) fn symlink(&self, target: &str, at: &Path) -> Result<(), UnpackError> {
        Ok(symlink(target, at).map_err(|error| SlotError::disk("create", at, error))?)
    }

    pub(super) fn file(&self, at: &Path, executable: bool) -> Result<Open, UnpackError> {
        let failed = |error| SlotError::disk("create", at, error);
        let mode = file_mode(executable);
        let file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(at).map_err(failed)?;
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(Open { file, path: at.to_owned() })
    }

    pub(super) fn write(&mut self, open: &mut Open, bytes: &[u8]) -> Result<(), UnpackError> {
        open.file.write_all(bytes).map_err(|error| SlotError::disk("write", &open.path, error))?;
        self.dirty += bytes.len() as u64;
        if self.dirty >= BATCH_BYTES {
            self.settle()?;
            settle(open)?;
        }
        Ok(())
    }

    pub(super) fn close(&mut self, open: Open) -> Result<(), UnpackError> {
        self.waiting.push(open);
        if self.waiting.len() >= BATCH_FILES { self.settle() } else { Ok(()) }
    }

    /// Brings everything that was closed to the disk and out of the cache.
    pub(super) fn settle(&mut self) -> Result<(), UnpackError> {
        self.dirty = 0;
        self.waiting.drain(..).try_for_each(|open| settle(&open))
    }
}

fn settle(open: &Open) -> Result<(), UnpackError> {
    open.file.sync_data().map_err(|error| SlotError::disk("sync", &open.path, error))?;
    forget(&open.file);
    Ok(())
}

/// Drops a file's clean pages from the cache. Advice only: where the system declines, nothing is
/// lost but the owner's cache.
pub(crate) fn forget(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}
