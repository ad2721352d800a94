//! Real processes of the shipped programs: started, watched, killed. A process never outlives what
//! started it.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use lockgate_agent::clock::Stopwatch;
use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

/// How long a process may take to obey SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Where the shipped programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The device's agent.
    pub agent: PathBuf,
    /// The server, in either role.
    pub server: PathBuf,
    /// The operator's tool.
    pub lockgate: PathBuf,
}

/// A running program; dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Ends processes with the program that holds it, however that ends: for fixtures that several tests
/// share and none of them drops.
#[derive(Debug)]
pub struct Lifeline(Child);

/// Why a process could not be had.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// A program is missing.
    #[error("`{0}` is missing\nhint: cargo build --workspace --bins")]
    Missing(PathBuf),
    /// It could not be started or watched.
    #[error("`{name}` could not be {act}")]
    Io {
        /// The process.
        name: String,
        /// What was tried.
        act: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {within:?}")]
    Late {
        /// What.
        what: String,
        /// The limit.
        within: Duration,
    },
}

impl Programs {
    /// The programs that were built beside the running one, or beside the folder of test binaries.
    pub fn find() -> Result<Self, ProcessError> {
        Ok(Self {
            agent: Self::built("lockgate-agent")?,
            server: Self::built("lockgate-server")?,
            lockgate: Self::built("lockgate")?,
        })
    }

    /// One program by its name, from the same folder.
    pub fn built(name: &str) -> Result<PathBuf, ProcessError> {
        let own = std::env::current_exe().map_err(|source| ProcessError::Io {
            name: "this program".into(),
            act: "found",
            source,
        })?;
        let mut folder = own.parent().map(Path::to_path_buf).unwrap_or_default();
        if folder.ends_with("deps") {
            folder.pop();
        }
        let path = folder.join(name);
        if path.is_file() { Ok(path) } else { Err(ProcessError::Missing(path)) }
    }
}

impl Process {
    /// Starts a program; what it says goes to `log`, after what earlier runs said.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: &[A],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self, ProcessError> {
        let failed = |act| move |source| ProcessError::Io { name: name.to_owned(), act, source };
        let out = append(log).map_err(failed("logged"))?;
        let err = out.try_clone().map_err(failed("logged"))?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(failed("started"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said, of this and earlier runs.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        self.child.try_wait().map_err(|source| ProcessError::Io {
            name: self.name.clone(),
            act: "watched",
            source,
        })
    }

    /// SIGKILL, and waits for its end: as if the power were cut.
    pub fn kill(&mut self) {
        // It may have ended already: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGTERM, then SIGKILL if it does not obey.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let begun = Stopwatch::start();
        while begun.elapsed() < GRACE {
            if !matches!(self.ended(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus, ProcessError> {
        let mut status = None;
        until(&format!("the end of `{}`", self.name), within, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        status.ok_or_else(|| ProcessError::Late { what: self.name.clone(), within })
    }
}

impl Lifeline {
    /// Has these processes end with this one, and a folder go with them.
    pub fn hold(ids: &[u32], folder: &Path) -> Result<Self, ProcessError> {
        // The pipe closes with this process; nobody ever writes to it.
        let script = "folder=$1; shift; read -r _; kill -9 \"$@\"; rm -rf \"$folder\"";
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(folder)
            .args(ids.iter().map(u32::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| ProcessError::Io { name: "sh".into(), act: "started", source })?;
        Ok(Self(child))
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `holds`, looking every 50 ms.
pub fn until(
    what: &str,
    within: Duration,
    mut holds: impl FnMut() -> bool,
) -> Result<(), ProcessError> {
    let begun = Stopwatch::start();
    while !holds() {
        if begun.elapsed() > within {
            return Err(ProcessError::Late { what: what.to_owned(), within });
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn append(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}
