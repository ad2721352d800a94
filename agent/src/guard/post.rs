//! What guard and new agent leave for each other, in a folder of its own in the state folder: the
//! guard's watchword, the new agent's sign, and the lock of the guard that is on duty.
//!
//! Both files are replaced whole and brought to the disk. It judges nothing that stands in them.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use lockgate_shared::{json, version::Version};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::core::handover::{Progress, Watchword};

/// The folder in the state folder.
const FOLDER: &str = "handover";
/// The guard's file.
const WORD: &str = "watchword.json";
/// The new agent's file.
const SIGN: &str = "sign.json";
/// The longest file that is read: a word takes some 300 bytes and its reason a few hundred more.
const MAX_BYTES: u64 = 16 * 1024;

/// The place.
#[derive(Clone, Debug)]
pub struct Post {
    folder: PathBuf,
}

/// A file that cannot be read or written.
#[derive(Debug, Error)]
pub enum PostError {
    /// The disk.
    #[error(
        "cannot {act} `{path}`\nhint: `df -h` shows whether the disk is full; the state folder must belong to the agent's user",
        path = path.display()
    )]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is not what an agent writes.
    #[error("`{path}` is no word of an agent", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// How far the new agent says it has come.
#[derive(Debug, Serialize, Deserialize)]
struct Sign {
    version: Version,
    progress: Progress,
}

impl Post {
    /// The place in a state folder. Nothing is made yet.
    pub fn of(state: &Path) -> Self {
        Self { folder: state.join(FOLDER) }
    }

    /// Its folder, made where it is missing.
    pub fn folder(&self) -> Result<PathBuf, PostError> {
        let failed = |source| PostError::Io { act: "make", path: self.folder.clone(), source };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        Ok(self.folder.clone())
    }

    /// The watchword, where there is one.
    pub fn word(&self) -> Result<Option<Watchword>, PostError> {
        self.read(WORD)
    }

    /// Begins a handover: an earlier one's sign counts no more.
    pub fn begin(&self, word: &Watchword) -> Result<(), PostError> {
        self.remove(SIGN)?;
        self.write(word)
    }

    /// Writes the watchword as it is now.
    pub fn write(&self, word: &Watchword) -> Result<(), PostError> {
        self.replace(WORD, word)
    }

    /// How far a version has come by its own word; silent where it cannot be read.
    pub fn progress(&self, version: &Version) -> Progress {
        match self.read::<Sign>(SIGN) {
            Ok(Some(sign)) if sign.version == *version => sign.progress,
            Ok(_) | Err(_) => Progress::Silent,
        }
    }

    /// Signs, where the sign that stands there says otherwise.
    pub fn sign(&self, version: &Version, progress: Progress) -> Result<(), PostError> {
        if self.progress(version) == progress {
            return Ok(());
        }
        self.replace(SIGN, &Sign { version: version.clone(), progress })
    }

    /// Ends a handover: the word first, for a sign alone says nothing.
    pub fn clear(&self) -> Result<(), PostError> {
        self.remove(WORD)?;
        self.remove(SIGN)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, PostError> {
        let path = self.folder.join(name);
        let failed = |source| PostError::Io { act: "read", path: path.clone(), source };
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        match json::read(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(source) => Err(PostError::Json { path, source }),
        }
    }

    fn replace<T: Serialize>(&self, name: &str, value: &T) -> Result<(), PostError> {
        let folder = self.folder()?;
        let path = folder.join(name);
        let fresh = path.with_extension("new");
        let mut bytes =
            json::write(value).map_err(|source| PostError::Json { path: path.clone(), source })?;
        bytes.push(b'\n');
        let write = || {
            let mut file = fs::File::create(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            fs::File::open(&folder)?.sync_all()
        };
        write().map_err(|source| PostError::Io { act: "write", path: path.clone(), source })
    }

    fn remove(&self, name: &str) -> Result<(), PostError> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(PostError::Io { act: "remove", path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::handover::Stage, slots::Slot};
    use lockgate_shared::time::Seconds;

    #[test]
    fn a_word_is_found_again_as_it_was_left_until_it_is_cleared() {
        let (state, word) = (tempfile::tempdir().expect("a folder"), word());
        let post = Post::of(state.path());
        assert_eq!(post.word().expect("readable"), None);
        post.begin(&word).expect("written");
        assert_eq!(post.word().expect("readable"), Some(word));
        post.clear().expect("removed");
        post.clear().expect("removed twice");
        assert_eq!(post.word().expect("readable"), None);
    }

    #[test]
    fn a_sign_counts_for_its_version_and_its_handover_only() {
        let (state, word) = (tempfile::tempdir().expect("a folder"), word());
        let post = Post::of(state.path());
        post.begin(&word).expect("written");
        assert_eq!(post.progress(&word.version), Progress::Silent);
        post.sign(&word.version, Progress::Kept).expect("written");
        assert_eq!(post.progress(&word.version), Progress::Kept);
        assert_eq!(post.progress(&"1.2.0".parse().expect("a version")), Progress::Silent);
        post.begin(&word).expect("written");
        assert_eq!(post.progress(&word.version), Progress::Silent);
    }

    #[test]
    fn a_torn_word_is_a_fault_and_a_torn_sign_is_silence() {
        let (state, word) = (tempfile::tempdir().expect("a folder"), word());
        let post = Post::of(state.path());
        post.begin(&word).expect("written");
        post.sign(&word.version, Progress::Running).expect("written");
        for name in [WORD, SIGN] {
            fs::write(state.path().join(FOLDER).join(name), b"{\"vers").expect("torn");
        }
        assert!(matches!(post.word(), Err(PostError::Json { .. })));
        assert_eq!(post.progress(&word.version), Progress::Silent);
    }

    fn word() -> Watchword {
        Watchword {
            product: "agent".parse().expect("a name"),
            version: "1.1.0".parse().expect("a version"),
            guard: Slot::A,
            first_sign: Seconds(10),
            deadline: Seconds(100),
            stage: Stage::Open { starts_left: 3 },
        }
    }
}
