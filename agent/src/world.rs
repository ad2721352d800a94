//! Everything outside the agent, as its loop sees it: the server, the clocks, the device's facts and
//! conditions. One trait, so that the loop itself runs in a simulator and in tests.
//!
//! It decides nothing and keeps nothing.

use std::{fmt::Display, io::Read, path::PathBuf, time::Duration};

use lockgate_shared::{
    facts::{Conditions, Facts},
    failure::Chain,
    limits,
    time::{Moment, Seconds},
    wire::BINARY,
};

use crate::{
    clock,
    core::{
        machine::PlannedArtifact,
        tuf::{Another, Fetch, FetchError},
    },
    facts::{self, Overrides, Sources},
    transport::{self, Behind, Remedy, Transport, TransportError, Woken},
};

/// What the loop asks of the world.
pub trait World {
    /// The wall clock, which may be wrong.
    fn clock(&self) -> Moment;
    /// How long ago the machine booted.
    fn uptime(&self) -> Seconds;
    /// What the device is.
    fn facts(&mut self) -> Facts;
    /// What it finds now.
    fn conditions(&mut self) -> Conditions;
    /// Reads a small file of the repository, such as `metadata/timestamp.json`.
    fn read(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError>;
    /// Hears that the file or payload that came last is not what was signed, and why. Says whether
    /// another source is left: then the same is asked for again, and comes from there.
    fn refused(&mut self, why: &dyn Display) -> Another;
    /// The sources of files and payloads that are asked last now, because of what they did.
    fn behind(&mut self) -> Vec<Behind>;
    /// Sends a sealed letter; gives the directive's bytes.
    fn check_in(&mut self, letter: &[u8]) -> Result<Vec<u8>, Refusal>;
    /// Opens an artifact's bytes.
    fn payload<'a>(&'a mut self, artifact: &PlannedArtifact) -> Result<Box<dyn Read + 'a>, String>;
    /// Sleeps.
    fn wait(&mut self, span: Seconds) -> Woken;
    /// Lets go of connections until the next turn.
    fn rest(&mut self);
}

/// Why a letter was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it means for the letter.
    pub fate: Fate,
    /// What happened, in a sentence.
    pub text: String,
    /// How long the server asks to wait.
    pub retry_after: Option<Seconds>,
}

/// What a refusal means for the letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody knows whether it came: the same bytes go again.
    Keep,
    /// The server has seen its number with other bytes: another one is written far above.
    Jump,
    /// The server will never take these bytes: another one is written.
    Drop,
    /// The device was revoked, or is held because two devices have its identity.
    Barred,
}

/// The machine that the agent runs on.
#[derive(Debug)]
pub struct Machine {
    /// The way to the network.
    pub transport: Transport,
    /// Where the system says what it is.
    pub sources: Sources,
    /// What the owner says instead.
    pub overrides: Overrides,
    /// The disk whose space counts.
    pub slots: PathBuf,
}

impl World for Machine {
    fn clock(&self) -> Moment {
        clock::now()
    }

    fn uptime(&self) -> Seconds {
        clock::uptime()
    }

    fn facts(&mut self) -> Facts {
        facts::gather(&self.sources, &self.overrides, &self.slots)
    }

    fn conditions(&mut self) -> Conditions {
        facts::conditions(&self.sources, &self.slots)
    }

    fn read(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        let mut repository = transport::Repository(&mut self.transport);
        match path.split_once('/') {
            Some(("metadata", name)) => repository.metadata(name, max),
            Some(("targets", path)) => repository.target(path, max),
            Some(_) | None => {
                Err(FetchError::Failed(format!("`{path}` is no file of the repository")))
            }
        }
    }

    fn refused(&mut self, why: &dyn Display) -> Another {
        self.transport.refused(&why.to_string())
    }

    fn behind(&mut self) -> Vec<Behind> {
        self.transport.behind()
    }

    fn check_in(&mut self, letter: &[u8]) -> Result<Vec<u8>, Refusal> {
        let max = limits::DIRECTIVE_BYTES as u64;
        match self.transport.post("/v1/checkin", BINARY, letter, max) {
            Ok(answer) => Ok(answer.body),
            Err(error) => Err(Refusal {
                fate: fate(&error),
                text: Chain(&error).to_string(),
                retry_after: error.retry_after(),
            }),
        }
    }

    fn payload<'a>(&'a mut self, artifact: &PlannedArtifact) -> Result<Box<dyn Read + 'a>, String> {
        let path = format!("/artifacts/{}", artifact.sha256);
        match self.transport.download(&path, artifact.size) {
            Ok(download) => Ok(Box::new(download)),
            Err(error) => Err(Chain(&error).to_string()),
        }
    }

    fn wait(&mut self, span: Seconds) -> Woken {
        match self.transport.wait(Duration::from_secs(span.0)) {
            Ok(woken) => woken,
            Err(error) => {
                // Without signals there is no good order to end in; ending is better than spinning.
                crate::log::error(Chain(&error));
                Woken::Terminate
            }
        }
    }

    fn rest(&mut self) {
        self.transport.end_turn();
    }
}

/// The TUF client's view of a world.
pub struct Reader<'a>(pub &'a mut dyn World);

impl Fetch for Reader<'_> {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        self.0.read(&format!("metadata/{name}"), max)
    }

    fn target(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        self.0.read(&format!("targets/{path}"), max)
    }

    fn refused(&mut self, why: &dyn Display) -> Another {
        self.0.refused(why)
    }
}

fn fate(error: &TransportError) -> Fate {
    let kind = error.problem().map(|problem| problem.kind.as_str());
    match (error.remedy(), kind) {
        (Remedy::Accept, Some("sequence-replayed")) => Fate::Jump,
        (_, Some("device-held" | "device-revoked")) => Fate::Barred,
        (
            Remedy::Accept,
            Some(
                "malformed" | "unknown-version" | "too-large" | "signature" | "wrong-repository"
                | "wrong-tenant",
            ),
        ) => Fate::Drop,
        (Remedy::Accept | Remedy::Wait | Remedy::Mend | Remedy::Stop, _) => Fate::Keep,
    }
}
