//! Slots: two places for a product, of which one runs and the other is written. A release is
//! unpacked into the idle one, sealed, verified and then switched to by one atomic act, so that at
//! any instant one of the two is bootable and known good.
//!
//! Every kind answers from the disk, never from memory, refuses to touch the active slot, and does
//! no harm when told twice. When to switch or to go back is decided elsewhere (`core`); whether an
//! archive is worth unpacking in [`crate::unpack`].

pub mod agent_binary;
pub mod conformance;
pub mod directory;
mod tree;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use lockgate_shared::{id::Digest, manifest::FileEntry, version::Version};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use agent_binary::AgentBinary;
pub use directory::Directory;
pub use tree::Difference;

use crate::unpack::{ListError, NameFault};

/// A pair of slots. One conformance suite ([`conformance::run`]) holds for every kind.
pub trait Slots {
    /// What boots or runs now, read from the disk. `None` before the first activation.
    fn active(&self) -> Result<Option<Slot>, SlotError>;

    /// What a slot holds; `None` when it is empty, incomplete or its marker is unreadable.
    fn contents(&self, slot: Slot) -> Result<Option<Contents>, SlotError>;

    /// Empties a slot and opens it for unpacking: the directory to fill. The active one is refused.
    fn begin(&mut self, slot: Slot) -> Result<PathBuf, SlotError>;

    /// Brings the slot's tree to the disk and writes its marker last. The same contents may be
    /// sealed again.
    fn seal(&mut self, slot: Slot, contents: &Contents) -> Result<(), SlotError>;

    /// Holds a sealed slot against its signed list of files once more, to be done before it is
    /// activated: the disk may have failed or been tampered with since.
    fn verify(&self, slot: Slot, files: &[FileEntry]) -> Result<(), SlotError>;

    /// Switches to a sealed slot in one atomic step.
    fn activate(&mut self, slot: Slot) -> Result<(), SlotError>;

    /// Switches to a sealed slot for a trial that somebody else supervises. Where a kind knows no
    /// difference, that is the switch itself.
    fn try_out(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.activate(slot)
    }

    /// Empties a slot. The active one is refused.
    fn discard(&mut self, slot: Slot) -> Result<(), SlotError>;
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one beside it.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A slot's marker: which release it holds, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// The digest of the release's signed manifest.
    pub manifest: Digest,
    /// The release's version.
    pub version: Version,
}

/// The free bytes that an unprivileged writer has under `dir`.
pub fn room(dir: &Path) -> Result<u64, SlotError> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(|errno| SlotError::disk("measure", dir, io::Error::from(errno)))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Why a slot could not be read, written or switched.
#[derive(Debug, Error)]
pub enum SlotError {
    /// The file system accepts no writes.
    #[error(
        "cannot {act} `{path}`: the file system is read-only\nhint: `mount -o remount,rw` it, and look at `dmesg` for why it was turned read-only",
        path = path.display()
    )]
    ReadOnly {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The file system, or the quota, is full.
    #[error(
        "cannot {act} `{path}`: the disk is full\nhint: `df -h` and `df -i` show what is used; the update is tried again once there is room",
        path = path.display()
    )]
    Full {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The agent's user may not.
    #[error(
        "cannot {act} `{path}`: permission denied\nhint: `ls -ld` the directory; the agent's user must own the slots",
        path = path.display()
    )]
    Denied {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// Any other failure of the disk.
    #[error("cannot {act} `{path}`", path = path.display())]
    Disk {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The active slot is never emptied or written.
    #[error("slot `{slot}` is active, and the active slot is never changed")]
    Active {
        /// The slot.
        slot: Slot,
    },
    /// Sealed before it was begun.
    #[error("slot `{slot}` was not begun")]
    NotBegun {
        /// The slot.
        slot: Slot,
    },
    /// Activated or verified before it was sealed.
    #[error("slot `{slot}` holds no complete release")]
    NotSealed {
        /// The slot.
        slot: Slot,
    },
    /// The link that names the active slot names something else.
    #[error(
        "`{path}` names neither slot\nhint: `ln -sfn a {path}` or `ln -sfn b {path}`, whichever slot is known to work",
        path = path.display()
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// The signed list cannot be used.
    #[error("the signed list of files is refused")]
    List(#[from] ListError),
    /// A sealed slot is no longer what was signed.
    #[error("slot `{slot}` is not as signed: `{path}` {difference}")]
    Differs {
        /// The slot.
        slot: Slot,
        /// The first entry that differs.
        path: String,
        /// In what way.
        difference: Difference,
    },
    /// The configured name of the agent's binary inside a release.
    #[error("`{name}` cannot be the binary's name in a release: it {fault}")]
    BinaryName {
        /// As configured.
        name: String,
        /// What is wrong.
        fault: NameFault,
    },
    /// A new binary that does not start.
    #[error("`{path} --version` does not run: {detail}", path = path.display())]
    NotRunnable {
        /// The binary.
        path: PathBuf,
        /// What happened.
        detail: String,
    },
    /// Replacing the installed binary would leave nothing to go back to.
    #[error(
        "slot `{slot}` does not hold the installed `{path}`, so there would be no way back\nhint: the installed binary is adopted into a slot first",
        path = path.display()
    )]
    NoGuard {
        /// The slot that should hold it.
        slot: Slot,
        /// The installed binary.
        path: PathBuf,
    },
}

impl SlotError {
    /// Names a failure of the disk by what a person can do about it.
    pub fn disk(act: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let kind = source.kind();
        if kind == io::ErrorKind::ReadOnlyFilesystem {
            Self::ReadOnly { act, path }
        } else if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full { act, path }
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::Denied { act, path }
        } else {
            Self::Disk { act, path, source }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{env, fs, io::Write as _, process::Command};

    use super::*;

    #[test]
    fn the_disks_failures_are_told_apart() {
        let named = |errno: rustix::io::Errno| {
            SlotError::disk("write", Path::new("/slots/b"), io::Error::from(errno))
        };
        assert!(matches!(named(rustix::io::Errno::ROFS), SlotError::ReadOnly { .. }));
        assert!(matches!(named(rustix::io::Errno::NOSPC), SlotError::Full { .. }));
        assert!(matches!(named(rustix::io::Errno::DQUOT), SlotError::Full { .. }));
        assert!(matches!(named(rustix::io::Errno::ACCESS), SlotError::Denied { .. }));
        assert!(matches!(named(rustix::io::Errno::IO), SlotError::Disk { .. }));
    }

    #[test]
    fn a_slots_other_is_never_itself() {
        for slot in Slot::BOTH {
            assert_ne!(slot, slot.other());
            assert_eq!(slot, slot.other().other());
        }
    }

    /// Takes every free byte.
    pub(crate) fn fill_up(filler: &Path) {
        let mut file = fs::File::create(filler).expect("created");
        let mut size = 64 * 1024;
        while size > 0 {
            match file.write_all(&vec![1; size]) {
                Ok(()) => {}
                Err(_) => size /= 2,
            }
        }
    }

    /// Makes the disk accept no more writes.
    pub(crate) fn freeze(disk: &Path) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(disk).status();
        assert!(status.expect("mount runs").success());
    }

    /// Runs `rule`, which is the body of `test`, in a process of its own, which has a small disk in memory for itself. Where the
    /// system grants no namespaces to the test's user, the test says so and passes.
    pub(crate) fn on_small_disk(test: &str, rule: impl FnOnce(&Path)) {
        const DISK: &str = "LOCKGATE_TEST_DISK";
        if let Some(disk) = env::var_os(DISK) {
            return rule(Path::new(&disk));
        }
        let disk = tempfile::tempdir().expect("a directory");
        let alone = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
            command.env(DISK, disk.path());
            command
        };
        let mount = "mount -t tmpfs -o size=256k none \"$LOCKGATE_TEST_DISK\"";
        if !alone(mount).output().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: `unshare --user --mount` is not granted here");
            return;
        }
        let output = alone(&format!("{mount} && exec \"$0\" \"$@\""))
            .arg(env::current_exe().expect("this test"))
            .args([test, "--exact", "--nocapture"])
            .output()
            .expect("it ran a moment ago");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("1 passed"), "the test has another name: {said}");
    }
}
