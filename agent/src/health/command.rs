//! Runs a program with a hard deadline: it, and whatever it started, is gone when the function
//! returns. Output is kept up to a few KiB and drained beyond, so that a talkative program neither
//! fills memory nor blocks.

use std::{
    fmt,
    io::{self, PipeReader, Read as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

use super::{Deadline, ProbeResult};

/// The output that is kept: enough for a message, little enough for a letter.
pub const MAX_OUTPUT: usize = 4096;

/// How long to wait between looks at a running program: short at first, because most probes end
/// within milliseconds, then rarely, because the others take seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Probes by running `argv` in the slot: healthy when it ends with 0 in time.
pub fn probe(argv: &[String], timeout: Duration, slot_dir: &Path) -> ProbeResult {
    let deadline = Deadline::after(timeout);
    let Some((program, arguments)) = argv.split_first() else {
        return ProbeResult::new(Err("the probe names no program".to_owned()), &deadline);
    };
    // `./check` means the slot's own; a bare name is looked up in PATH.
    let program = if program.contains('/') { slot_dir.join(program) } else { program.into() };
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(slot_dir).env("LOCKGATE_SLOT", slot_dir);
    let verdict = match run_bounded(&mut command, timeout) {
        Ok(ran) => match ran.ending {
            Ending::Exited(0) => Ok(ran.to_string()),
            Ending::Exited(_) | Ending::Killed(_) | Ending::TimedOut => Err(ran.to_string()),
        },
        Err(error) => Err(format!("cannot start `{}`: {error}", program.display())),
    };
    ProbeResult::new(verdict, &deadline)
}

/// Runs `command` to its end or to the deadline, then kills its whole process group. Standard input
/// is empty; standard output and error are captured together.
pub fn run_bounded(command: &mut Command, limit: Duration) -> io::Result<Ran> {
    let deadline = Deadline::after(limit);
    let (mut pipe, writer) = io::pipe()?;
    fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let child = start(command, &deadline);
    // The command keeps the pipe's writing ends open; without this the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut group = Group { child: child? };
    let mut output = Vec::new();
    let in_time = group.wait(&deadline, || drain(&mut pipe, &mut output))?;
    let status = group.end()?;
    drain(&mut pipe, &mut output)?;
    let ending = match (in_time, status.code()) {
        (false, _) => Ending::TimedOut,
        (true, Some(code)) => Ending::Exited(code),
        (true, None) => {
            Ending::Killed(std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0))
        }
    };
    Ok(Ran { ending, limit, output })
}

/// How a program went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub ending: Ending,
    /// What it had.
    pub limit: Duration,
    /// The first [`MAX_OUTPUT`] bytes of what it said.
    pub output: Vec<u8>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, which was not ours.
    Killed(i32),
    /// By us, at the deadline.
    TimedOut,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ending {
            Ending::Exited(code) => write!(f, "exit code {code}")?,
            Ending::Killed(signal) => write!(f, "killed by signal {signal}")?,
            Ending::TimedOut => write!(f, "no end after {} ms", self.limit.as_millis())?,
        }
        match String::from_utf8_lossy(&self.output).trim() {
            "" => Ok(()),
            said => write!(f, ": {said}"),
        }
    }
}

/// A program that was just written may still be open for writing in a process that is being
/// started elsewhere, for a few milliseconds; the system then says that the file is busy.
fn start(command: &mut Command, deadline: &Deadline) -> io::Result<Child> {
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && deadline.left().is_some() =>
            {
                thread::sleep(FIRST_PAUSE);
            }
            other => return other,
        }
    }
}

/// A child and everything it started. Dropping it ends them all.
struct Group {
    child: Child,
}

impl Group {
    /// Waits until the child has ended or the deadline has passed, whichever is first; true for the
    /// former. The child is left unreaped, so that its group's number cannot be given to another.
    fn wait(
        &self,
        deadline: &Deadline,
        mut meanwhile: impl FnMut() -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut pause = FIRST_PAUSE;
        loop {
            meanwhile()?;
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            if waitid(WaitId::Pid(Pid::from_child(&self.child)), look)?.is_some() {
                return Ok(true);
            }
            let Some(left) = deadline.left() else { return Ok(false) };
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn end(&mut self) -> io::Result<std::process::ExitStatus> {
        // Fails only when the group is empty, and then there is nothing to kill.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After `end` the child is reaped and its number may be another's: only a living one is
        // killed.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.end();
        }
    }
}

/// Reads what is there, keeps what fits. An endless writer is served one look at a time.
fn drain(pipe: &mut PipeReader, kept: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; MAX_OUTPUT];
    for _ in 0..MAX_READS_PER_LOOK {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let room = MAX_OUTPUT.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A pipe holds 64 KiB, so this empties one twice over before the deadline is looked at again.
const MAX_READS_PER_LOOK: usize = 32;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_program_that_ends_with_zero_is_healthy_and_any_other_is_not() {
        let slot = slot();
        let result = sh(&slot, "echo fine", 10);
        assert!(result.ok && result.detail == "exit code 0: fine", "{result:?}");
        let result = sh(&slot, "echo broken >&2; exit 3", 10);
        assert!(!result.ok && result.detail == "exit code 3: broken", "{result:?}");
        let result = sh(&slot, "kill -SEGV $$", 10);
        assert!(!result.ok && result.detail.contains("signal 11"), "{result:?}");
    }

    #[test]
    fn a_program_finds_itself_in_its_slot_with_nothing_to_read() {
        let slot = slot();
        let result = sh(&slot, "test \"$PWD\" = \"$LOCKGATE_SLOT\" && test -z \"$(cat)\"", 10);
        assert!(result.ok, "{result:?}");
        fs::write(slot.path().join("check"), "#!/bin/sh\nexit 0\n").expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(slot.path().join("check"), mode).expect("changed");
        let result = probe(&["./check".to_owned()], Duration::from_secs(10), slot.path());
        assert!(result.ok, "{result:?}");
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_all_it_started() {
        let slot = slot();
        let script = "sleep 300 & echo $! > child; wait";
        let result = sh(&slot, script, 3);
        assert!(!result.ok && result.detail.contains("no end after 3000 ms"), "{result:?}");
        assert!((3000..20_000).contains(&result.latency_ms), "{result:?}");
        assert_dead(&slot);
    }

    #[test]
    fn a_program_leaves_nothing_behind_when_it_ends_in_time() {
        let slot = slot();
        let result = sh(&slot, "sleep 300 & echo $! > child", 10);
        assert!(result.ok, "{result:?}");
        assert!(result.latency_ms < 10_000, "the child's hold on the pipe does not delay");
        assert_dead(&slot);
    }

    #[test]
    fn a_program_that_talks_without_end_neither_blocks_nor_fills_memory() {
        let slot = slot();
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 1000000 /dev/zero | tr '\\0' x"]).current_dir(slot.path());
        let ran = run_bounded(&mut command, Duration::from_secs(20)).expect("started");
        assert_eq!(ran.ending, Ending::Exited(0));
        assert_eq!(ran.output.len(), MAX_OUTPUT);
        let result = sh(&slot, "yes", 1);
        assert!(!result.ok && result.detail.len() <= super::super::MAX_DETAIL, "{result:?}");
    }

    #[test]
    fn a_program_that_is_not_there_is_unhealthy() {
        let slot = slot();
        for argv in [vec!["./nothing".to_owned()], vec![]] {
            let result = probe(&argv, Duration::from_secs(1), slot.path());
            assert!(!result.ok && !result.detail.is_empty(), "{result:?}");
        }
    }

    fn slot() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    fn sh(slot: &tempfile::TempDir, script: &str, seconds: u64) -> ProbeResult {
        let argv = ["sh", "-c", script].map(str::to_owned);
        probe(&argv, Duration::from_secs(seconds), slot.path())
    }

    /// The process whose number is in `child` is gone, or a zombie that waits for init.
    fn assert_dead(slot: &tempfile::TempDir) {
        let pid = fs::read_to_string(slot.path().join("child")).expect("the child's number");
        let deadline = Deadline::after(Duration::from_secs(5));
        loop {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            if stat.as_ref().map_or(true, |stat| stat.contains(") Z")) {
                return;
            }
            assert!(deadline.left().is_some(), "still there: {stat:?}");
            thread::sleep(FIRST_PAUSE);
        }
    }
}
