//! A folder that appears whole or not at all: it is filled beside its place, under a name of its own,
//! and renamed when everything is in it. Also a file that is replaced the same way.
//!
//! It never writes into a folder that has something in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner: mode 0600.
    Owner,
    /// Everybody: mode 0644.
    Everybody,
}

/// Why a folder or a file could not be written.
#[derive(Debug, Error)]
pub enum FolderError {
    /// There is something already.
    #[error("`{}` exists and is not empty\nhint: name a folder that does not exist yet", .0.display())]
    Taken(PathBuf),
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
}

/// A folder in the making. Dropped before [`WholeFolder::finish`], it takes with it what it wrote.
#[derive(Debug)]
pub struct WholeFolder {
    place: PathBuf,
    draft: PathBuf,
    finished: bool,
}

impl WholeFolder {
    /// Begins a folder at `place`, which must be absent or empty.
    pub fn begin(place: &Path) -> Result<Self, FolderError> {
        let taken = match fs::read_dir(place) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() == io::ErrorKind::NotADirectory,
        };
        if taken {
            return Err(FolderError::Taken(place.to_owned()));
        }
        let name = place.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_else(|| "folder".to_owned());
        let draft = place.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        if let Some(parent) = place.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(|source| io_error("create", parent, source))?;
        }
        let folder = Self { place: place.to_owned(), draft, finished: false };
        folder.make(&folder.draft)?;
        Ok(folder)
    }

    /// Where it is for now.
    pub fn draft(&self) -> &Path {
        &self.draft
    }

    /// Makes a folder inside, readable by its owner only until the end says otherwise.
    pub fn folder(&self, path: &str) -> Result<PathBuf, FolderError> {
        let at = self.draft.join(path);
        self.make(&at)?;
        Ok(at)
    }

    /// Writes a file inside, with its folder.
    pub fn file(&self, path: &str, bytes: &[u8], readers: Readers) -> Result<(), FolderError> {
        let at = self.draft.join(path);
        if let Some(parent) = at.parent() {
            self.make(parent)?;
        }
        write_new(&at, bytes, readers)
    }

    /// Puts the folder in its place.
    pub fn finish(mut self) -> Result<(), FolderError> {
        fs::rename(&self.draft, &self.place)
            .map_err(|source| io_error("put in place", &self.place, source))?;
        self.finished = true;
        sync_parent(&self.place)
    }

    fn make(&self, at: &Path) -> Result<(), FolderError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(at)
            .map_err(|source| io_error("create", at, source))
    }
}

impl Drop for WholeFolder {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing better can be done with a failure here: the draft is named so that people
            // know what it is.
            let _ = fs::remove_dir_all(&self.draft);
        }
    }
}

/// Writes a file that must not exist yet, synced.
pub fn write_new(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), FolderError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode(readers))
        .open(path)
        .map_err(|source| io_error("create", path, source))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|source| io_error("write", path, source))
}

/// Replaces a file, or makes it: at any instant there is the old content or the new.
pub fn replace(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), FolderError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "file".to_owned());
    let draft = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    write_new(&draft, bytes, readers)?;
    if let Err(source) = fs::rename(&draft, path) {
        let _ = fs::remove_file(&draft);
        return Err(io_error("replace", path, source));
    }
    sync_parent(path)
}

fn sync_parent(path: &Path) -> Result<(), FolderError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(parent)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| io_error("sync", parent, source))
}

const fn mode(readers: Readers) -> u32 {
    match readers {
        Readers::Owner => 0o600,
        Readers::Everybody => 0o644,
    }
}

fn io_error(act: &'static str, path: &Path, source: io::Error) -> FolderError {
    FolderError::Io { act, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_given_up_leaves_nothing() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let place = temp.path().join("new");
        let folder = WholeFolder::begin(&place).expect("begun");
        folder.file("a/b", b"text", Readers::Everybody).expect("written");
        drop(folder);
        assert_eq!(fs::read_dir(temp.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        fs::write(temp.path().join("mine"), "text").expect("written");
        assert!(matches!(WholeFolder::begin(temp.path()), Err(FolderError::Taken(_))));
        assert!(temp.path().join("mine").exists());
    }

    #[test]
    fn a_file_for_its_owner_is_so_from_its_first_instant_on() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().expect("a temporary folder");
        let path = temp.path().join("secret");
        replace(&path, b"one", Readers::Owner).expect("written");
        replace(&path, b"two", Readers::Owner).expect("written");
        assert_eq!(fs::read(&path).expect("readable"), b"two");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(write_new(&path, b"three", Readers::Owner).is_err());
    }
}
