//! What the agent tells its owner: one snapshot of everything it knows and intends, written to
//! `status.json` after each turn. `status` and `explain` print it; nothing reads it back to decide.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::{
        ChannelId, CohortId, DeviceId, Digest, ModelId, ProductId, RepositoryId, RolloutId,
        TenantId,
    },
    json,
    time::{Moment, Seconds},
    version::Version,
    wire::SlotState,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The snapshot's file in the agent's state folder.
pub const STATUS_FILE: &str = "status.json";

/// The longest snapshot that is read back for printing: eight products with thirty candidates each
/// stay below 200 KiB.
pub const STATUS_BYTES: u64 = 1024 * 1024;

/// The agent at the end of a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When the snapshot was taken, by the guarded clock.
    pub taken: Moment,
    /// The agent's own version.
    pub agent: String,
    /// The device's id.
    pub device: DeviceId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its repository.
    pub repository: RepositoryId,
    /// Its hardware model, as it names the rollout file that it reads.
    pub model: ModelId,
    /// The words by which it counts itself to groups: kind and values.
    pub groups: Vec<GroupWords>,
    /// The repository as last verified.
    pub refresh: RefreshStatus,
    /// The server as last reached.
    pub contact: ContactStatus,
    /// Why nothing is installed by this state, where the TPM's counter speaks against it.
    #[serde(default)]
    pub state_problem: Option<String>,
    /// The sources of the repository that are asked last, because of what they did.
    #[serde(default)]
    pub behind: Vec<SourceStatus>,
    /// Its products.
    pub products: Vec<ProductStatus>,
    /// Stops that it has seen and that nobody lifted, in sentences.
    #[serde(default)]
    pub stops: Vec<String>,
    /// What its owner should know, in sentences.
    pub notices: Vec<String>,
}

/// One group of the device, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupWords {
    /// What its devices have in common.
    pub kind: String,
    /// The values.
    pub values: String,
}

/// What is known of the repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshStatus {
    /// The last refresh that succeeded.
    pub last: Option<Moment>,
    /// Why the newest refresh failed, if it did.
    pub problem: Option<String>,
    /// Version of the newest timestamp believed.
    pub timestamp_version: Option<u64>,
    /// When it was signed.
    pub timestamp_issued: Option<Moment>,
    /// When the first of the metadata files expires.
    pub expires: Option<Moment>,
}

/// What is known of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactStatus {
    /// The last letter that was acknowledged.
    pub last: Option<Moment>,
    /// Why the newest letter was not acknowledged, if so.
    pub problem: Option<String>,
    /// How far the device's clock was ahead of the server's at the last answer; negative is behind.
    pub clock_ahead_s: Option<i64>,
    /// Letters written and not acknowledged yet.
    pub letters_waiting: u64,
    /// Outcomes not acknowledged yet.
    pub outcomes_waiting: u64,
    /// When the next poll is due.
    pub next_poll: Option<Moment>,
}

/// A mirror, or the server as one, that is asked after the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its address.
    pub source: String,
    /// What it did, in a sentence.
    pub why: String,
    /// Until when it is asked last.
    pub until: Moment,
}

/// One product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductStatus {
    /// The product.
    pub product: ProductId,
    /// The channel it follows.
    pub channel: Option<ChannelId>,
    /// Its pins, and who asked for each; none means the latest.
    pub pins: Vec<PinStatus>,
    /// What the state machine is doing.
    pub state: SlotState,
    /// The same in a sentence.
    pub state_text: String,
    /// The active slot.
    pub slot: Option<String>,
    /// The version in the active slot.
    pub running: Option<Version>,
    /// The manifest's hash of the active slot.
    pub running_manifest: Option<Digest>,
    /// The version in the other slot.
    pub other: Option<Version>,
    /// The recall of what runs, if there is one.
    #[serde(default)]
    pub recall: Option<RecallStatus>,
    /// What came of the owner's last request to go back, for a day.
    #[serde(default)]
    pub rollback: Option<RollbackStatus>,
    /// Versions that failed here and are not tried again.
    pub failed: Vec<Version>,
    /// The trial, while there is one.
    pub trial: Option<TrialStatus>,
    /// Every release that was considered at the last decision, newest first.
    pub candidates: Vec<CandidateStatus>,
}

/// A recall of what runs, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallStatus {
    /// Where it leads.
    pub to: Version,
    /// Why it was recalled.
    pub why: String,
    /// Everything against going there now.
    pub reasons: Vec<ReasonStatus>,
}

/// The answer to an owner's request to go back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackStatus {
    /// When it was given.
    pub answered: Moment,
    /// Why it does not go back; none where it does.
    pub refused: Option<String>,
}

/// A pin, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinStatus {
    /// The pin, such as `n-1`.
    pub pin: String,
    /// Who asked for it: `config` or `orders`.
    pub by: String,
}

/// A trial, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// The version on trial.
    pub version: Version,
    /// How long it has run.
    pub elapsed: Seconds,
    /// How long all probes have held, if they do.
    pub healthy_for: Option<Seconds>,
    /// How long they must hold.
    pub soak: Seconds,
    /// When time is up, counted like `elapsed`.
    pub deadline: Seconds,
    /// How many more interruptions it bears.
    pub attempts_left: u8,
    /// Its probes.
    pub probes: Vec<ProbeStatus>,
}

/// A probe of a trial, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Its name.
    pub name: String,
    /// How often it held.
    pub held: u32,
    /// How often it failed.
    pub failed: u32,
    /// What it said last.
    pub last: Option<String>,
}

/// A release that was considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateStatus {
    /// The version.
    pub version: Option<Version>,
    /// The rollout.
    pub rollout: RolloutId,
    /// The device's cohort in it.
    pub cohort: Option<CohortId>,
    /// The device's place in it, as a share of the cohort, such as `41.3300 %`.
    pub place: Option<String>,
    /// How far it is open to the device's cohort and groups.
    pub limit: Option<String>,
    /// Whether it is what the device goes for.
    pub verdict: Verdict,
    /// Every reason against installing it now, in the fixed order of questions.
    pub reasons: Vec<ReasonStatus>,
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The device goes for it.
    Chosen,
    /// Nothing speaks against it, but a newer one was chosen.
    Passed,
    /// Something speaks against it now.
    Waits,
    /// What the server says about it contradicts what people signed, or cannot be read.
    Refused,
}

/// A reason, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonStatus {
    /// Its number, stable; 0 for a refusal.
    pub code: u16,
    /// The question that it answers with no, such as `window`.
    pub question: String,
    /// The sentence.
    pub text: String,
    /// When it may go away by the passing of time alone.
    pub until: Option<Moment>,
}

/// Why a snapshot could not be written or read.
#[derive(Debug, Error)]
pub enum StatusError {
    /// The disk's answer.
    #[error("cannot {act} `{path}`", path = path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is none yet.
    #[error(
        "there is no `{path}` yet\nhint: is the agent running? `systemctl status lockgate-agent`",
        path = .0.display()
    )]
    Absent(PathBuf),
    /// Not JSON of this shape.
    #[error(
        "`{path}` cannot be read: it was written by another version of the agent\nhint: restart the agent",
        path = path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: serde_json::Error,
    },
}

impl Status {
    /// Writes the snapshot below `state`, whole or not at all. It is not synced: a snapshot lost to
    /// a power cut is written again by the next turn.
    pub fn write(&self, state: &Path) -> Result<(), StatusError> {
        let path = state.join(STATUS_FILE);
        let fresh = path.with_extension("json.new");
        let failed = |source| StatusError::Io { act: "write", path: path.clone(), source };
        let text = json::write_pretty(self)
            .map_err(|source| StatusError::Json { path: path.clone(), source })?;
        let mut file = fs::File::create(&fresh).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        fs::rename(&fresh, &path).map_err(failed)
    }

    /// Reads the snapshot below `state`.
    pub fn read(state: &Path) -> Result<Self, StatusError> {
        let path = state.join(STATUS_FILE);
        let failed = |source| StatusError::Io { act: "read", path: path.clone(), source };
        let size = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StatusError::Absent(path));
            }
            Err(error) => return Err(failed(error)),
        };
        if size > STATUS_BYTES {
            return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        let text = fs::read(&path).map_err(failed)?;
        json::read(&text).map_err(|source| StatusError::Json { path: path.clone(), source })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_nothing_else_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(Status::read(folder.path()), Err(StatusError::Absent(_))));
        let status = snapshot();
        status.write(folder.path()).expect("written");
        status.write(folder.path()).expect("written again");
        assert_eq!(Status::read(folder.path()).expect("read"), status);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    /// A device that follows nothing.
    pub(crate) fn snapshot() -> Status {
        Status {
            taken: Moment(1_795_000_000),
            agent: "0.1.0".into(),
            device: DeviceId([1; 32]),
            tenant: "acme".parse().expect("a name"),
            repository: "trial".parse().expect("a name"),
            model: ModelId::of_hardware("Acme", "Slate"),
            groups: vec![],
            refresh: RefreshStatus::default(),
            contact: ContactStatus::default(),
            state_problem: None,
            behind: vec![],
            products: vec![],
            stops: vec![],
            notices: vec!["nothing to do".into()],
        }
    }
}
