//! The old agent as guard of the new one: it stays what is installed and what the system knows as the
//! service's process, runs the new agent from its slot as a child, and in the end becomes, in the same
//! process, whichever of the two is to work.
//!
//! When to start, install or go back is decided in [`crate::core::handover`]. Nothing here reads the
//! journal: it belongs to the agent that works, and a new one may write it otherwise.

mod post;

use std::{
    env, io,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child as Process, Command},
    time::Duration,
};

use lockgate_shared::{failure::Chain, time::Seconds};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use thiserror::Error;

pub use post::{Post, PostError};

use crate::{
    clock::Stopwatch,
    core::handover::{Child, Course, Decision, Found, LOOK, Sight, Watchword},
    lock::{Lock, LockError},
    log,
    slots::{AgentBinary, Slot, SlotError, Slots as _},
    transport::{Transport, TransportError, Woken},
};

/// Tells a new agent that it is watched over, and where agents are installed here: its own program
/// lies in a slot.
pub const INSTALLED: &str = "LOCKGATE_INSTALLED";

/// How long a new agent may take to end in good order: as long as the service's own stop, less a
/// little, so that the guard is not killed before it.
const GRACE: Duration = Duration::from_secs(45);
/// How long a guard that cannot install the new agent waits before it tries again: a disk that is full
/// may be emptied, and until then the new agent works from its slot.
const AGAIN: Duration = Duration::from_secs(60);

/// The agent's own slots, where it is told to update itself.
#[derive(Debug)]
pub struct Guard {
    post: Post,
    slots: AgentBinary,
    installed: PathBuf,
}

/// What a starting agent is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Duty {
    /// Work as the agent.
    Work,
    /// Watch over a new one, by this word.
    Watch(Box<Watchword>),
}

/// How a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// What is installed now is to work in this process's place.
    Succeeded,
    /// The guard was told to end, and so was the new agent.
    Told,
}

/// What keeps a guard from its duty.
#[derive(Debug, Error)]
pub enum GuardError {
    /// The watchword.
    #[error(transparent)]
    Post(#[from] PostError),
    /// The slots.
    #[error("the agent's own slots cannot be used")]
    Slots(#[from] SlotError),
    /// Another guard.
    #[error("another guard watches over the new agent")]
    Lock(#[from] LockError),
    /// Waiting.
    #[error("the guard cannot wait")]
    Wait(#[from] TransportError),
    /// The new agent's process.
    #[error("the new agent cannot be watched")]
    Child(#[from] io::Error),
    /// One turn alone is asked for, while a new agent is tried.
    #[error(
        "version {0} of the agent is being tried, and no agent is running\nhint: `systemctl start lockgate-agent` goes on with it"
    )]
    Pending(lockgate_shared::version::Version),
}

/// Whether this process is a new agent that a guard has started.
pub fn is_watched() -> bool {
    env::var_os(INSTALLED).is_some()
}

/// Has this process end when its guard does: nobody would watch over it.
pub fn end_with_guard() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        log::warn(format!("this agent would outlive its guard: {error}"));
    }
}

impl Guard {
    /// Opens what the guard needs.
    pub fn new(post: Post, slots: AgentBinary, installed: PathBuf) -> Self {
        Self { post, slots, installed }
    }

    /// Finds out what this agent, just started from where agents are installed, is to do; and ends
    /// what an earlier guard left undone.
    pub fn duty(&mut self) -> Result<Duty, GuardError> {
        let found = Found { active: self.slots.active()?, installed: self.slots.installed_in()? };
        let word = match self.post.word() {
            Ok(word) => word,
            Err(error) => {
                log::warn(Chain(&error));
                None
            }
        };
        let Some(word) = word else {
            // A trial that nobody can supervise any more.
            if let Some(installed) = found.installed.filter(|_| found.active != found.installed) {
                self.slots.restore(installed)?;
            }
            return Ok(Duty::Work);
        };
        match word.course(found) {
            Course::Guard => Ok(Duty::Watch(Box::new(word))),
            Course::Return => {
                self.slots.restore(word.guard)?;
                Ok(Duty::Work)
            }
            Course::Work => {
                self.post.clear()?;
                Ok(Duty::Work)
            }
        }
    }

    /// Watches over a new agent to the end.
    pub fn watch(
        &mut self,
        mut word: Watchword,
        transport: &mut Transport,
    ) -> Result<Over, GuardError> {
        let _lock = Lock::take(&self.post.folder()?)?;
        log::info(format!("watching over version {} of the agent", word.version));
        let begun = Stopwatch::start();
        let mut successor = Successor::default();
        loop {
            let sight = Sight {
                elapsed: Seconds(begun.elapsed().as_secs()),
                progress: self.post.progress(&word.version),
                child: successor.look()?,
                active: self.slots.active()?,
            };
            let mut pause = Duration::from_secs(LOOK.0);
            match word.decide(sight) {
                Decision::Wait => {}
                Decision::Start => {
                    word = word.started();
                    // A disk that takes no more must not end the watch: this process still counts.
                    self.write(&word);
                    self.start(word.guard.other(), &mut successor);
                }
                Decision::Install => match self.install(&word, &mut successor)? {
                    Some(over) => return Ok(over),
                    None => pause = AGAIN,
                },
                Decision::Leave => {
                    successor.end()?;
                    log::info(format!("version {} went back by itself", word.version));
                    return Ok(Over::Succeeded);
                }
                Decision::Refuse { why } => {
                    log::error(format!("version {} is put back: {why}", word.version));
                    successor.kill()?;
                    word = word.refused(why);
                    self.write(&word);
                    self.slots.restore(word.guard)?;
                    return Ok(Over::Succeeded);
                }
            }
            match transport.wait(pause)? {
                Woken::Time | Woken::Poked => {}
                Woken::Terminate => {
                    successor.end()?;
                    return Ok(Over::Told);
                }
            }
        }
    }

    /// Puts the new agent in the place of this one. Where that fails it is run from its slot again, and
    /// the watch goes on.
    fn install(
        &mut self,
        word: &Watchword,
        successor: &mut Successor,
    ) -> Result<Option<Over>, GuardError> {
        successor.end()?;
        let slot = word.guard.other();
        match self.slots.activate(slot) {
            Ok(()) => {
                log::info(format!("version {} is installed", word.version));
                self.post.clear()?;
                Ok(Some(Over::Succeeded))
            }
            Err(error) => {
                log::error(Chain(&error));
                self.start(slot, successor);
                Ok(None)
            }
        }
    }

    /// Runs what is installed in this process's place, with the same command line. Comes back only
    /// where that cannot be done.
    pub fn succeed(&self) -> io::Error {
        Command::new(&self.installed).args(env::args_os().skip(1)).env_remove(INSTALLED).exec()
    }

    fn start(&self, slot: Slot, successor: &mut Successor) {
        let program = self.slots.binary_in(slot);
        let mut command = Command::new(&program);
        command.args(env::args_os().skip(1)).env(INSTALLED, &self.installed).process_group(0);
        match command.spawn() {
            Ok(process) => successor.process = Some(process),
            // As good as an end at once.
            Err(error) => log::error(format!("cannot start `{}`: {error}", program.display())),
        }
    }

    fn write(&self, word: &Watchword) {
        if let Err(error) = self.post.write(word) {
            log::error(Chain(&error));
        }
    }
}

/// The new agent's process, with whatever it has started. Dropped, it is killed.
#[derive(Debug, Default)]
struct Successor {
    process: Option<Process>,
}

impl Successor {
    /// Whether it runs.
    fn look(&mut self) -> io::Result<Child> {
        let Some(process) = &mut self.process else { return Ok(Child::Absent) };
        match process.try_wait()? {
            None => Ok(Child::Runs),
            Some(status) => {
                log::warn(format!("the new agent ended: {status}"));
                self.process = None;
                Ok(Child::Absent)
            }
        }
    }

    /// Ends it in good order where it obeys, and otherwise all the same.
    fn end(&mut self) -> io::Result<()> {
        if let Some(process) = &self.process {
            // It may have ended by itself.
            let _ = kill_process(Pid::from_child(process), Signal::TERM);
        }
        let begun = Stopwatch::start();
        while self.look()? == Child::Runs && begun.left(GRACE).is_some() {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill()
    }

    fn kill(&mut self) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        // It is not reaped yet, so its group's number is its own.
        let _ = kill_process_group(Pid::from_child(&process), Signal::KILL);
        process.wait().map(drop)
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
