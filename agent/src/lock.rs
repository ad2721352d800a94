//! One agent to a state folder: a lock that the system takes back when its holder ends, however it
//! ends. It refuses a second agent, and names the first.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// The lock's file in the state folder.
pub const LOCK_FILE: &str = "lock";

/// A held lock; dropping it gives it back.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock was not had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another agent has it.
    #[error(
        "another agent works in `{state}`{}\nhint: `systemctl stop lockgate-agent` first, or name another configuration with `--config`",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        state = state.display()
    )]
    Held {
        /// The state folder.
        state: PathBuf,
        /// Its process, where the file says so.
        pid: Option<i32>,
    },
    /// The file cannot be opened or locked.
    #[error(
        "cannot lock `{path}`\nhint: the folder must exist and belong to the user that the agent runs as",
        path = path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of a state folder, or says who has it.
    pub fn take(state: &Path) -> Result<Self, LockError> {
        let path = state.join(LOCK_FILE);
        let failed = |source| LockError::Io { path: path.clone(), source };
        // Never truncated before it is held: the holder's number stands in it.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { state: state.to_path_buf(), pid: pid_in(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// The process that holds the lock of a state folder, if one does.
pub fn holder(state: &Path) -> Result<Option<i32>, LockError> {
    if fs::symlink_metadata(state.join(LOCK_FILE)).is_err() {
        return Ok(None);
    }
    match Lock::take(state) {
        Ok(_) => Ok(None),
        Err(LockError::Held { pid, .. }) => Ok(pid),
        Err(error) => Err(error),
    }
}

fn pid_in(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_told_who_is_first() {
        let state = tempfile::tempdir().expect("a folder");
        let first = Lock::take(state.path()).expect("nobody has it");
        let own = i32::try_from(std::process::id()).ok();
        let second = Lock::take(state.path());
        assert!(matches!(second, Err(LockError::Held { pid, .. }) if pid == own), "{second:?}");
        drop(first);
        assert!(Lock::take(state.path()).is_ok());
    }

    #[test]
    fn a_folder_without_a_lock_has_no_holder_and_gets_no_file() {
        let state = tempfile::tempdir().expect("a folder");
        assert_eq!(holder(state.path()).expect("readable"), None);
        assert!(!state.path().join(LOCK_FILE).exists());
    }
}
