//! How an effect is done: the slots, the bytes, the probes and the restart of one product. Each act
//! answers with the event that the machine waits for; each may be done twice.
//!
//! When to do what is decided in [`crate::core::machine`].

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lockgate_shared::{
    failure::Chain,
    id::Digest,
    manifest::{Artifact, FileEntry, Probe},
};

use crate::{
    core::{
        machine::{Device, Event, Fault, Plan},
        trial::{Answer, Health, Said},
        tuf::Another,
    },
    health::{
        self, Continuity, Place,
        command::{Ending, run_bounded},
    },
    slots::{AgentBinary, Contents, Directory, Slot, SlotError, Slots},
    unpack::{require_room, unpack},
    world::World,
};

/// What stays free on the disk beside a release: for the journal, and for the owner's logs.
pub const RESERVE: u64 = 64 << 20;

/// From how many sources a payload is read in one go: the first that gives other bytes than the signed
/// ones, and one more. Whoever pays by the byte pays for one lie at a time.
pub const PAYLOADS_AT_ONCE: u32 = 2;

/// What the loop can do to one product.
pub trait Performer {
    /// The slots as they are on the disk.
    fn device(&self) -> Result<Device, SlotError>;
    /// What a slot holds.
    fn contents(&self, slot: Slot) -> Result<Option<Contents>, SlotError>;
    /// Fills and seals the plan's slot.
    fn fetch(&mut self, plan: &Plan, artifact: &Artifact, world: &mut dyn World) -> Event;
    /// Holds a slot against the signed list.
    fn verify(&mut self, slot: Slot, files: &[FileEntry]) -> Event;
    /// Switches to a slot.
    fn activate(&mut self, slot: Slot) -> Event;
    /// Switches to a slot whose trial another process supervises: the agent's own.
    fn try_out(&mut self, slot: Slot) -> Event {
        self.activate(slot)
    }
    /// Empties a slot.
    fn discard(&mut self, slot: Slot) -> Result<(), SlotError>;
    /// Starts the product again from a slot, where its owner says how.
    fn restart(&mut self, slot: Slot) -> Result<(), String>;
    /// Asks a probe; `None` for one that asks about the agent's own contact.
    fn probe(&mut self, probe: &Probe, slot: Slot) -> Option<Answer>;
}

/// Slots and processes of this machine.
pub struct OnDisk {
    slots: Box<dyn Slots>,
    root: PathBuf,
    restart: Option<Vec<String>>,
    restart_timeout: Duration,
    watch: health::Watch,
}

/// Which kind of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Two trees and a link.
    Directory,
    /// The agent's own binary.
    Agent {
        /// Where it is installed.
        installed: &'a Path,
        /// Its name in a release.
        binary: &'a str,
    },
}

impl OnDisk {
    /// Opens the slots of a product below `root`.
    pub fn open(
        kind: Kind<'_>,
        root: &Path,
        restart: Option<Vec<String>>,
        restart_timeout: Duration,
    ) -> Result<Self, SlotError> {
        let slots: Box<dyn Slots> = match kind {
            Kind::Directory => Box::new(Directory::open(root)?),
            Kind::Agent { installed, binary } => {
                let mut slots = AgentBinary::open(root, installed, binary)?;
                // An agent that came by a package is taken into a slot, so that there is a way back
                // from its first update. No manifest brought it.
                if let Ok(version) = env!("CARGO_PKG_VERSION").parse() {
                    slots.adopt(&Contents { manifest: Digest([0; 32]), version })?;
                }
                Box::new(slots)
            }
        };
        let root = root.to_owned();
        Ok(Self { slots, root, restart, restart_timeout, watch: health::Watch::default() })
    }

    fn path(&self, slot: Slot) -> PathBuf {
        self.root.join(slot.name())
    }

    fn fill(
        &mut self,
        plan: &Plan,
        artifact: &Artifact,
        world: &mut dyn World,
    ) -> Result<(), (Fault, String)> {
        let passing = |error: &SlotError| (Fault::Passing, Chain(error).to_string());
        let fault = |error: crate::unpack::UnpackError| {
            let fault = if error.is_passing() { Fault::Passing } else { Fault::Content };
            (fault, Chain(&error).to_string())
        };
        let mut asked = 1;
        loop {
            let folder = self.slots.begin(plan.to).map_err(|error| passing(&error))?;
            require_room(&folder, artifact, RESERVE).map_err(fault)?;
            let payload = world.payload(&plan.artifact).map_err(|why| (Fault::Passing, why))?;
            let Err(error) = unpack(payload, artifact, &folder) else { break };
            let wrong = !error.is_passing();
            if !wrong || world.refused(&Chain(&error)) == Another::Nobody {
                return Err(fault(error));
            }
            if asked >= PAYLOADS_AT_ONCE {
                return Err(fault(error));
            }
            asked += 1;
        }
        let contents = Contents { manifest: plan.manifest, version: plan.version.clone() };
        self.slots.seal(plan.to, &contents).map_err(|error| passing(&error))
    }
}

impl Performer for OnDisk {
    fn device(&self) -> Result<Device, SlotError> {
        let holds = |slot| {
            let contents = self.slots.contents(slot)?;
            Ok::<_, SlotError>(contents.map(|contents| contents.manifest))
        };
        Ok(Device { active: self.slots.active()?, a: holds(Slot::A)?, b: holds(Slot::B)? })
    }

    fn contents(&self, slot: Slot) -> Result<Option<Contents>, SlotError> {
        self.slots.contents(slot)
    }

    fn fetch(&mut self, plan: &Plan, artifact: &Artifact, world: &mut dyn World) -> Event {
        match self.fill(plan, artifact, world) {
            Ok(()) => Event::Fetched,
            Err((fault, why)) => Event::FetchFailed { fault, why },
        }
    }

    fn verify(&mut self, slot: Slot, files: &[FileEntry]) -> Event {
        match self.slots.verify(slot, files) {
            Ok(()) => Event::Verified,
            Err(error) => Event::VerifyFailed { why: Chain(&error).to_string() },
        }
    }

    fn activate(&mut self, slot: Slot) -> Event {
        // Another release's processes say nothing about this one's.
        self.watch = health::Watch::default();
        match self.slots.activate(slot) {
            Ok(()) => Event::Activated,
            Err(error) => Event::ActivateFailed { why: Chain(&error).to_string() },
        }
    }

    fn try_out(&mut self, slot: Slot) -> Event {
        match self.slots.try_out(slot) {
            Ok(()) => Event::Activated,
            Err(error) => Event::ActivateFailed { why: Chain(&error).to_string() },
        }
    }

    fn discard(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.slots.discard(slot)
    }

    fn restart(&mut self, slot: Slot) -> Result<(), String> {
        let Some((program, arguments)) = self.restart.as_ref().and_then(|argv| argv.split_first())
        else {
            return Ok(());
        };
        let mut command = Command::new(program);
        command.args(arguments).env("LOCKGATE_SLOT_DIR", self.path(slot));
        match run_bounded(&mut command, self.restart_timeout) {
            Ok(ran) => match ran.ending {
                Ending::Exited(0) => Ok(()),
                Ending::Exited(_) | Ending::Killed(_) | Ending::TimedOut => {
                    Err(format!("`{program}`: {ran}"))
                }
            },
            Err(error) => Err(format!("cannot start `{program}`: {error}")),
        }
    }

    fn probe(&mut self, probe: &Probe, slot: Slot) -> Option<Answer> {
        let path = self.path(slot);
        let place = Place { slot: &path, product: &self.root };
        let (result, continuity) = self.watch.run(probe, place)?;
        let health = match (result.ok, continuity) {
            (false, _) => Health::Failed,
            (true, Continuity::Same) => Health::Held,
            (true, Continuity::Restarted) => Health::Restarted,
        };
        Some(Answer {
            probe: probe.name.clone(),
            said: Said { health, detail: result.detail },
            latency_ms: result.latency_ms,
        })
    }
}
