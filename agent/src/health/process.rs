//! Looks whether the process that a pid file names is alive, and which one it is: a number alone
//! may have been given to another process since, so its start time is read with it.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use super::{Deadline, ProbeResult};

/// The most that is read of a pid file or a stat file; both are far shorter.
const MAX_FILE: u64 = 4096;

/// One process among all that a boot has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since boot.
    pub started: u64,
}

/// Probes by looking at the process named in `pidfile`: healthy when it exists and is no zombie.
/// `proc` is where the kernel shows its processes.
pub fn probe(pidfile: &Path, proc: &Path) -> ProbeResult {
    let deadline = Deadline::after(Duration::MAX);
    match look(pidfile, proc) {
        Ok(process) => {
            let detail = format!("process {} is running", process.pid);
            ProbeResult { process: Some(process), ..ProbeResult::new(Ok(detail), &deadline) }
        }
        Err(detail) => ProbeResult::new(Err(detail), &deadline),
    }
}

fn look(pidfile: &Path, proc: &Path) -> Result<Identity, String> {
    let text = read(pidfile)
        .map_err(|error| format!("cannot read the pid file `{}`: {error}", pidfile.display()))?;
    let pid: u32 = (text.trim().parse().ok().filter(|pid| *pid > 0))
        .ok_or_else(|| format!("the pid file `{}` holds no number", pidfile.display()))?;
    let stat = match read(&proc.join(pid.to_string()).join("stat")) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("process {pid} does not exist"));
        }
        Err(error) => return Err(format!("cannot look at process {pid}: {error}")),
    };
    let (state, started) =
        state_and_start(&stat).ok_or_else(|| format!("cannot make sense of process {pid}"))?;
    match state {
        // Zombie, and dead in both spellings of proc(5).
        "Z" | "X" | "x" => Err(format!("process {pid} has ended and was not collected")),
        _ => Ok(Identity { pid, started }),
    }
}

/// The third and the 22nd field of proc(5)'s `stat`. The second is the name in parentheses, which
/// may itself hold spaces and parentheses, so counting starts behind the last one.
fn state_and_start(stat: &str) -> Option<(&str, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // A fifo in the file's place would otherwise hold the agent up.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_running_process_is_healthy_and_has_an_identity() {
        let slot = tempfile::tempdir().expect("a directory");
        let pidfile = slot.path().join("pid");
        fs::write(&pidfile, format!("{}\n", std::process::id())).expect("written");
        let result = probe(&pidfile, Path::new("/proc"));
        assert!(result.ok, "{result:?}");
        assert_eq!(result.process.map(|process| process.pid), Some(std::process::id()));
    }

    #[test]
    fn a_process_that_ended_without_being_collected_is_unhealthy() {
        let slot = tempfile::tempdir().expect("a directory");
        let pidfile = slot.path().join("pid");
        let mut child = std::process::Command::new("true").spawn().expect("true is there");
        fs::write(&pidfile, child.id().to_string()).expect("written");
        // A zombie until it is waited for.
        let options =
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).expect("ended");
        let zombie = probe(&pidfile, Path::new("/proc"));
        child.wait().expect("collected");
        assert!(!zombie.ok && zombie.detail.contains("not collected"), "{zombie:?}");
        let gone = probe(&pidfile, Path::new("/proc"));
        assert!(!gone.ok && gone.detail.contains("does not exist"), "{gone:?}");
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_mislead() {
        let fields = "S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 0 0";
        let stat = format!("7 (a) Z (b) {fields}");
        assert_eq!(state_and_start(&stat), Some(("S", 987_654)));
    }

    #[test]
    fn a_missing_or_foreign_pid_file_is_unhealthy() {
        let slot = tempfile::tempdir().expect("a directory");
        let pidfile = slot.path().join("pid");
        assert!(!probe(&pidfile, Path::new("/proc")).ok);
        for text in ["", "0", "-1", "abc", "12 34", "../1", "99999999999"] {
            fs::write(&pidfile, text).expect("written");
            let result = probe(&pidfile, Path::new("/proc"));
            assert!(!result.ok && result.detail.contains("no number"), "{text}: {result:?}");
        }
    }
}
