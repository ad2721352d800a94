//! Trusted TUF metadata in a folder, one file a name. A file is replaced whole or not at all,
//! whenever the power fails.
//!
//! It trusts nothing it reads back: what is stored is verified again by whoever loads it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::core::tuf::{Store, StoreError, TARGETS_LIMIT};

/// Longest file that is read back: the longest metadata there is. What is longer was not written
/// by this store and counts as absent.
const LOAD_LIMIT: u64 = TARGETS_LIMIT;
/// Longest name that file systems take, less the prefix of the file written first.
const NAME_LIMIT: usize = 255 - UNFINISHED.len();
/// Begins the name of a file that is still being written. No name of the store begins so.
const UNFINISHED: &str = ".new-";

/// A folder of trusted metadata.
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
}

impl FileStore {
    /// Opens the folder, making it if need be, and clears away what a power cut left unfinished.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let store = Self { folder: folder.to_owned() };
        let failed = |source| error("open", &folder.display().to_string(), source);
        fs::create_dir_all(folder).map_err(failed)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(store)
    }

    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let plain =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'%');
        let sound = (1..=NAME_LIMIT).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(plain);
        if sound { Ok(self.folder.join(name)) } else { Err(StoreError::Name(name.to_owned())) }
    }

    fn write(&self, path: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.folder.join(format!("{UNFINISHED}{name}"));
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&unfinished, path)?;
        self.sync_folder()
    }

    /// Makes a rename or a removal durable. Only Unix has a way to say so.
    #[cfg(unix)]
    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Store for FileStore {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let file = match File::open(self.path(name)?) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error("read", name, e)),
        };
        let mut bytes = Vec::new();
        file.take(LOAD_LIMIT + 1).read_to_end(&mut bytes).map_err(|e| error("read", name, e))?;
        Ok((bytes.len() as u64 <= LOAD_LIMIT).then_some(bytes))
    }

    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name)?;
        self.write(&path, name, bytes).map_err(|e| error("write", name, e))
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.path(name)?) {
            Ok(()) => self.sync_folder().map_err(|e| error("remove", name, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(error("remove", name, e)),
        }
    }
}

fn error(act: &'static str, name: &str, source: io::Error) -> StoreError {
    StoreError::Io { act, name: name.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_also_by_the_next_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = FileStore::open(&folder.path().join("a/b")).expect("made");
        assert_eq!(store.load("timestamp.json").expect("readable"), None);
        store.save("timestamp.json", b"one").expect("saved");
        store.save("timestamp.json", b"two").expect("saved again");
        let mut store = FileStore::open(&folder.path().join("a/b")).expect("there");
        assert_eq!(store.load("timestamp.json").expect("readable").as_deref(), Some(&b"two"[..]));
        store.remove("timestamp.json").expect("removed");
        store.remove("timestamp.json").expect("removed again");
        assert_eq!(store.load("timestamp.json").expect("readable"), None);
    }

    #[test]
    fn names_that_leave_the_folder_or_hide_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = FileStore::open(folder.path()).expect("made");
        let long = "x".repeat(NAME_LIMIT + 1);
        for name in ["", ".", "..", "../x", "a/b", "a\\b", ".new-x", "a\0b", "a b", &long] {
            assert!(matches!(store.save(name, b""), Err(StoreError::Name(_))), "{name:?}");
            assert!(matches!(store.load(name), Err(StoreError::Name(_))), "{name:?}");
            assert!(matches!(store.remove(name), Err(StoreError::Name(_))), "{name:?}");
        }
        store.save(&"x".repeat(NAME_LIMIT), b"").expect("the longest name");
    }

    #[test]
    fn an_unfinished_write_is_neither_loaded_nor_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = FileStore::open(folder.path()).expect("made");
        store.save("timestamp.json", b"whole").expect("saved");
        let unfinished = folder.path().join(".new-timestamp.json");
        fs::write(&unfinished, b"ha").expect("as a power cut leaves it");
        let store = FileStore::open(folder.path()).expect("there");
        assert_eq!(store.load("timestamp.json").expect("readable").as_deref(), Some(&b"whole"[..]));
        assert!(!unfinished.exists());
    }

    #[test]
    fn a_file_longer_than_any_metadata_is_absent() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FileStore::open(folder.path()).expect("made");
        let file = File::create(folder.path().join("targets.json")).expect("made");
        file.set_len(1 << 40).expect("a sparse giant");
        assert_eq!(store.load("targets.json").expect("readable"), None);
    }
}
