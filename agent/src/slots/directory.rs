//! Two directory trees and one link that names the active one. The link is replaced by renaming
//! another over it, which the file system does whole or not at all.
//!
//! ```text
//! <root>/a/           a release's files, nothing else
//! <root>/b/
//! <root>/a.sealed     the marker: written after the tree is on the disk, removed before it changes
//! <root>/b.sealed
//! <root>/current -> a
//! ```
//!
//! Every act is planned as a list of `Step`s first and then carried out in order. Power may fail
//! after any of them: a slot without a marker counts as empty, and the link always names a slot
//! that was sealed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
};

use lockgate_shared::{json, manifest::FileEntry};

use super::{Contents, Slot, SlotError, Slots, tree};

/// The longest marker that is read: a digest, a version and their names take 150 bytes.
const MAX_MARKER: u64 = 1024;

/// Slots that are two directories.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Opens the slots below `root`, and makes that directory where it is missing.
    pub fn open(root: &Path) -> Result<Self, SlotError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(root)
            .map_err(|error| SlotError::disk("create", root, error))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Where a slot's files are.
    pub fn path(&self, slot: Slot) -> PathBuf {
        self.root.join(slot.name())
    }

    /// The link to the active slot: what a service's unit file names.
    pub fn link(&self) -> PathBuf {
        self.root.join("current")
    }

    /// [`Slots::begin`] for an owner that knows by other means that the slot is idle.
    pub(super) fn empty_and_open(&self, slot: Slot) -> Result<PathBuf, SlotError> {
        perform(&self.begin_steps(slot))?;
        Ok(self.path(slot))
    }

    /// [`Slots::discard`], likewise.
    pub(super) fn empty(&self, slot: Slot) -> Result<(), SlotError> {
        perform(&self.discard_steps(slot))
    }

    /// [`Slots::seal`], likewise.
    pub(super) fn mark(&self, slot: Slot, contents: &Contents) -> Result<(), SlotError> {
        let tree = self.path(slot);
        match fs::symlink_metadata(&tree) {
            Ok(meta) if meta.is_dir() => perform(&self.seal_steps(slot, contents)),
            Ok(_) => Err(SlotError::NotBegun { slot }),
            Err(error) if tree::is_absent(&error) => Err(SlotError::NotBegun { slot }),
            Err(error) => Err(SlotError::disk("look at", &tree, error)),
        }
    }

    fn require_idle(&self, slot: Slot) -> Result<(), SlotError> {
        if self.active()? == Some(slot) { Err(SlotError::Active { slot }) } else { Ok(()) }
    }

    fn marker(&self, slot: Slot) -> PathBuf {
        self.root.join(format!("{slot}.sealed"))
    }

    fn fresh(&self, path: &Path) -> PathBuf {
        path.with_extension("new")
    }

    fn begin_steps(&self, slot: Slot) -> Vec<Step> {
        let mut steps = self.discard_steps(slot);
        steps.push(Step::MakeDirectory(self.path(slot)));
        steps.push(Step::SyncDirectory(self.root.clone()));
        steps
    }

    fn discard_steps(&self, slot: Slot) -> Vec<Step> {
        vec![
            // The marker goes first and durably: no marker may outlive a part of its tree.
            Step::RemoveFile(self.marker(slot)),
            Step::SyncDirectory(self.root.clone()),
            Step::RemoveTree(self.path(slot)),
            Step::SyncDirectory(self.root.clone()),
        ]
    }

    fn seal_steps(&self, slot: Slot, contents: &Contents) -> Vec<Step> {
        let marker = self.marker(slot);
        let fresh = self.fresh(&marker);
        vec![
            Step::SyncTree(self.path(slot)),
            Step::Write { path: fresh.clone(), contents: contents.clone() },
            Step::Rename { from: fresh, to: marker },
            Step::SyncDirectory(self.root.clone()),
        ]
    }

    fn activate_steps(&self, slot: Slot) -> Vec<Step> {
        let link = self.link();
        let fresh = self.fresh(&link);
        vec![
            Step::RemoveFile(fresh.clone()),
            Step::Link { target: slot.name(), at: fresh.clone() },
            Step::Rename { from: fresh, to: link },
            Step::SyncDirectory(self.root.clone()),
        ]
    }
}

impl Slots for Directory {
    fn active(&self) -> Result<Option<Slot>, SlotError> {
        let link = self.link();
        match fs::read_link(&link) {
            Ok(target) => (Slot::BOTH.into_iter())
                .find(|slot| target == Path::new(slot.name()))
                .map(Some)
                .ok_or(SlotError::Link { path: link }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Something is there, and it is no link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(SlotError::Link { path: link })
            }
            Err(error) => Err(SlotError::disk("read", &link, error)),
        }
    }

    fn contents(&self, slot: Slot) -> Result<Option<Contents>, SlotError> {
        let path = self.marker(slot);
        let mut text = Vec::new();
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if tree::is_absent(&error) => return Ok(None),
            Err(error) => return Err(SlotError::disk("open", &path, error)),
        };
        file.take(MAX_MARKER)
            .read_to_end(&mut text)
            .map_err(|error| SlotError::disk("read", &path, error))?;
        // A marker that was tampered with or torn is absent, not obeyed: the slot is filled anew.
        Ok(json::read(&text).ok().filter(|_| is_directory(&self.path(slot))))
    }

    fn begin(&mut self, slot: Slot) -> Result<PathBuf, SlotError> {
        self.require_idle(slot)?;
        self.empty_and_open(slot)
    }

    fn seal(&mut self, slot: Slot, contents: &Contents) -> Result<(), SlotError> {
        if self.contents(slot)?.as_ref() != Some(contents) {
            self.require_idle(slot)?;
        }
        self.mark(slot, contents)
    }

    fn verify(&self, slot: Slot, files: &[FileEntry]) -> Result<(), SlotError> {
        if self.contents(slot)?.is_none() {
            return Err(SlotError::NotSealed { slot });
        }
        tree::verify(slot, &self.path(slot), files)
    }

    fn activate(&mut self, slot: Slot) -> Result<(), SlotError> {
        if self.contents(slot)?.is_none() {
            return Err(SlotError::NotSealed { slot });
        }
        perform(&self.activate_steps(slot))
    }

    fn discard(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.require_idle(slot)?;
        self.empty(slot)
    }
}

/// One change on disk. Each is whole or not at all, except for the trees, which carry no marker
/// while they change; doing one twice does no harm.
#[derive(Debug)]
enum Step {
    RemoveFile(PathBuf),
    RemoveTree(PathBuf),
    MakeDirectory(PathBuf),
    Write { path: PathBuf, contents: Contents },
    Link { target: &'static str, at: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    SyncTree(PathBuf),
    SyncDirectory(PathBuf),
}

fn perform(steps: &[Step]) -> Result<(), SlotError> {
    steps.iter().try_for_each(Step::perform)
}

impl Step {
    fn perform(&self) -> Result<(), SlotError> {
        match self {
            Self::RemoveFile(path) => {
                gone(fs::remove_file(path)).map_err(|error| SlotError::disk("remove", path, error))
            }
            Self::RemoveTree(path) => match fs::symlink_metadata(path) {
                Ok(meta) if meta.is_dir() => gone(fs::remove_dir_all(path)),
                Ok(_) => gone(fs::remove_file(path)),
                Err(error) => gone(Err(error)),
            }
            .map_err(|error| SlotError::disk("empty", path, error)),
            Self::MakeDirectory(path) => fs::DirBuilder::new()
                .mode(0o755)
                .create(path)
                .map_err(|error| SlotError::disk("create", path, error)),
            Self::Write { path, contents } => {
                write(path, contents).map_err(|error| SlotError::disk("write", path, error))
            }
            Self::Link { target, at } => {
                symlink(target, at).map_err(|error| SlotError::disk("create", at, error))
            }
            Self::Rename { from, to } => {
                fs::rename(from, to).map_err(|error| SlotError::disk("replace", to, error))
            }
            Self::SyncTree(path) => tree::sync(path),
            Self::SyncDirectory(path) => tree::sync_directory(path),
        }
    }
}

fn write(path: &Path, contents: &Contents) -> io::Result<()> {
    let mut text = json::write(contents).map_err(io::Error::other)?;
    text.push(b'\n');
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    file.write_all(&text)?;
    file.sync_all()
}

/// A directory itself, and not a link to one.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// Removing what is not there has succeeded.
fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
