//! The agent's own binary in slots: releases are unpacked into two directories, and the active one
//! is the one whose binary is installed at a fixed path. The old binary stays in the other slot as
//! the guard, which is able to put itself back.
//!
//! A new agent is tried before it is installed ([`Slots::try_out`]): its slot counts as active, and
//! the installed binary, which a machine starts after a power cut, is still the guard's.
//!
//! ```text
//! <root>/trial        names the slot that is tried, while one is
//! ```
//!
//! It refuses to install a binary that does not start, or one that would leave no way back. Whether
//! the new agent has proved itself is decided by whoever supervises it, not here.

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lockgate_shared::manifest::FileEntry;

use super::{Contents, Directory, Slot, SlotError, Slots, tree};
use crate::{
    health::command::{self, Ending},
    unpack::check_name,
};

/// How long a new binary may take to say its version: it does nothing else, and the slowest board
/// we measure on starts a process in under a second.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// Slots for the agent itself.
#[derive(Debug)]
pub struct AgentBinary {
    slots: Directory,
    installed: PathBuf,
    binary: String,
}

impl AgentBinary {
    /// Opens the slots below `root` for the agent that is installed at `installed`; a release holds
    /// it under the name `binary`.
    pub fn open(root: &Path, installed: &Path, binary: &str) -> Result<Self, SlotError> {
        check_name(binary)
            .map_err(|fault| SlotError::BinaryName { name: binary.to_owned(), fault })?;
        Ok(Self {
            slots: Directory::open(root)?,
            installed: installed.to_owned(),
            binary: binary.to_owned(),
        })
    }

    /// Takes the installed binary, which came by a package and not through a slot, into a slot, so
    /// that there is a way back from the first update. Does nothing when a slot holds it already.
    pub fn adopt(&mut self, contents: &Contents) -> Result<Slot, SlotError> {
        if let Some(slot) = self.active()? {
            return Ok(slot);
        }
        let slot = Slot::A;
        let at = self.slots.empty_and_open(slot)?.join(&self.binary);
        let failed = |error| SlotError::disk("copy", &at, error);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::copy(&self.installed, &at).map_err(failed)?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        self.slots.mark(slot, contents)?;
        self.slots.activate(slot)?;
        Ok(slot)
    }

    /// Puts the binary of `guard` back, whatever is installed now. Naming the slot makes doing it
    /// twice harmless.
    pub fn restore(&mut self, guard: Slot) -> Result<(), SlotError> {
        let binary = self.runnable(guard)?;
        if !self.holds_installed(guard)? {
            install(&binary, &self.installed)?;
        }
        // Needs no space, unlike the link, which only settles a tie.
        self.end_trial()?;
        self.slots.activate(guard)
    }

    /// The slot whose binary is installed, whether or not another one is tried just now.
    pub fn installed_in(&self) -> Result<Option<Slot>, SlotError> {
        match (self.holds_installed(Slot::A)?, self.holds_installed(Slot::B)?) {
            (true, false) => Ok(Some(Slot::A)),
            (false, true) => Ok(Some(Slot::B)),
            (false, false) => Ok(None),
            // The same binary in both: the link tells which was meant; a broken one decides nothing.
            (true, true) => match self.slots.active() {
                Ok(Some(slot)) => Ok(Some(slot)),
                Ok(None) | Err(SlotError::Link { .. }) => Ok(Some(Slot::A)),
                Err(error) => Err(error),
            },
        }
    }

    /// A slot's binary, wherever it is installed.
    pub fn binary_in(&self, slot: Slot) -> PathBuf {
        self.slots.path(slot).join(&self.binary)
    }

    /// A sealed slot's binary, after it has shown that it starts.
    fn runnable(&self, slot: Slot) -> Result<PathBuf, SlotError> {
        if self.contents(slot)?.is_none() {
            return Err(SlotError::NotSealed { slot });
        }
        let binary = self.binary_in(slot);
        check_starts(&binary)?;
        Ok(binary)
    }

    fn trial(&self) -> PathBuf {
        self.slots.path(Slot::A).with_file_name("trial")
    }

    /// The slot that is tried.
    fn tried(&self) -> Result<Option<Slot>, SlotError> {
        let path = self.trial();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Slot::BOTH.into_iter().find(|slot| slot.name() == text.trim())),
            Err(error) if tree::is_absent(&error) => Ok(None),
            // Not a word of ours.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(SlotError::disk("read", &path, error)),
        }
    }

    fn end_trial(&self) -> Result<(), SlotError> {
        let path = self.trial();
        match fs::remove_file(&path) {
            Ok(()) => path.parent().map_or(Ok(()), tree::sync_directory),
            Err(error) if tree::is_absent(&error) => Ok(()),
            Err(error) => Err(SlotError::disk("remove", &path, error)),
        }
    }

    /// Whether a sealed slot holds what is installed.
    fn holds_installed(&self, slot: Slot) -> Result<bool, SlotError> {
        if self.contents(slot)?.is_none() {
            return Ok(false);
        }
        // Most binaries differ in length already; the digests are worked out only when they do not.
        let length = |path: &Path| fs::metadata(path).ok().map(|meta| meta.len());
        let (installed, held) = (resolved(&self.installed), self.binary_in(slot));
        if length(&installed).is_none() || length(&installed) != length(&held) {
            return Ok(false);
        }
        Ok(tree::digest(&installed)? == tree::digest(&held)?)
    }

    fn require_idle(&self, slot: Slot) -> Result<(), SlotError> {
        // While another agent is tried, the guard's slot is as untouchable as the active one.
        if self.active()? == Some(slot) || self.installed_in()? == Some(slot) {
            return Err(SlotError::Active { slot });
        }
        Ok(())
    }
}

impl Slots for AgentBinary {
    fn active(&self) -> Result<Option<Slot>, SlotError> {
        let Some(installed) = self.installed_in()? else { return Ok(None) };
        let other = installed.other();
        let tried = self.tried()? == Some(other) && self.contents(other)?.is_some();
        Ok(Some(if tried { other } else { installed }))
    }

    fn contents(&self, slot: Slot) -> Result<Option<Contents>, SlotError> {
        self.slots.contents(slot)
    }

    fn begin(&mut self, slot: Slot) -> Result<PathBuf, SlotError> {
        self.require_idle(slot)?;
        self.slots.empty_and_open(slot)
    }

    fn seal(&mut self, slot: Slot, contents: &Contents) -> Result<(), SlotError> {
        if self.contents(slot)?.as_ref() != Some(contents) {
            self.require_idle(slot)?;
        }
        self.slots.mark(slot, contents)
    }

    fn verify(&self, slot: Slot, files: &[FileEntry]) -> Result<(), SlotError> {
        self.slots.verify(slot, files)
    }

    fn activate(&mut self, slot: Slot) -> Result<(), SlotError> {
        let binary = self.runnable(slot)?;
        if !self.holds_installed(slot)? {
            let guard = slot.other();
            if resolved(&self.installed).exists() && !self.holds_installed(guard)? {
                return Err(SlotError::NoGuard { slot: guard, path: self.installed.clone() });
            }
            install(&binary, &self.installed)?;
        }
        // Installed is what counts; the link only settles a tie.
        self.slots.activate(slot)?;
        self.end_trial()
    }

    fn try_out(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.runnable(slot)?;
        let guard = slot.other();
        if !self.holds_installed(guard)? {
            return Err(SlotError::NoGuard { slot: guard, path: self.installed.clone() });
        }
        let (path, fresh) = (self.trial(), self.trial().with_extension("new"));
        let failed = |error| SlotError::disk("write", &path, error);
        let mut file = fs::File::create(&fresh).map_err(failed)?;
        file.write_all(slot.name().as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&fresh, &path).map_err(failed)?;
        path.parent().map_or(Ok(()), tree::sync_directory)
    }

    fn discard(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.require_idle(slot)?;
        self.slots.empty(slot)
    }
}

/// Puts a copy of `new` in the place of `installed`, atomically, and brings it to the disk.
///
/// The running program is replaced by `self_replace`, which knows what each system asks for;
/// any other path by renaming a synced copy over it.
pub fn install(new: &Path, installed: &Path) -> Result<(), SlotError> {
    let target = resolved(installed);
    let failed = |error| SlotError::disk("replace", &target, error);
    if is_this_program(&target) {
        // It copies and renames without a sync between. The copy's source was synced when its slot
        // was sealed, and ext4, btrfs and reflinking XFS keep a replacing rename behind its data;
        // the sync below makes it so for the rest.
        self_replace::self_replace(new).map_err(failed)?;
        fs::File::open(&target).and_then(|file| file.sync_all()).map_err(failed)?;
    } else {
        replace(new, &target).map_err(failed)?;
    }
    match target.parent() {
        Some(parent) => tree::sync_directory(parent),
        None => Ok(()),
    }
}

fn replace(new: &Path, target: &Path) -> io::Result<()> {
    let fresh = target.with_extension("lockgate-new");
    let outcome = copy_synced(new, &fresh, target).and_then(|()| fs::rename(&fresh, target));
    if outcome.is_err() {
        // On a full disk the part of a copy is the last thing that should stay.
        let _ = fs::remove_file(&fresh);
    }
    outcome
}

/// Copies `new` to `fresh`, synced, with the mode that `target` has now.
fn copy_synced(new: &Path, fresh: &Path, target: &Path) -> io::Result<()> {
    let mode = fs::metadata(target).map_or(0o755, |meta| meta.permissions().mode() & 0o777);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(fresh)?;
    io::copy(&mut fs::File::open(new)?, &mut file)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.flush()?;
    file.sync_all()
}

fn is_this_program(target: &Path) -> bool {
    // After a replacement the running program's path no longer exists, and this is false: the old
    // process, as guard, then goes by the other way.
    env::current_exe().and_then(fs::canonicalize).is_ok_and(|exe| exe == target)
}

/// The file behind an installed path that may be a link, such as `/usr/bin/x -> /opt/x/bin/x`.
fn resolved(installed: &Path) -> PathBuf {
    fs::canonicalize(installed).unwrap_or_else(|_| installed.to_owned())
}

/// Runs `<binary> --version`, which must end by itself and well.
fn check_starts(binary: &Path) -> Result<(), SlotError> {
    let mut start = Command::new(binary);
    start.arg("--version");
    let ran = command::run_bounded(&mut start, START_LIMIT).map_err(|error| {
        SlotError::NotRunnable { path: binary.to_owned(), detail: error.to_string() }
    })?;
    match ran.ending {
        Ending::Exited(0) => Ok(()),
        Ending::Exited(_) | Ending::Killed(_) | Ending::TimedOut => {
            Err(SlotError::NotRunnable { path: binary.to_owned(), detail: ran.to_string() })
        }
    }
}

#[cfg(test)]
mod tests;
