//! A thief who holds every online key: signs whatever rollout file they like into the repository.
//! What devices then refuse is what people did not sign.

use std::{collections::BTreeMap, fs, path::Path};

use lockgate_server::{
    keys::{self, PassphraseSource},
    tuf::{
        repository::{Repository, Terms, versions_on_disk},
        roles::OnlineKeys,
        trusted::Trusted,
    },
};
use lockgate_shared::{
    act::{Act, SignedAct},
    bucket::Limit,
    group::KnownGroups,
    id::CohortId,
    rollout::{OpenStage, RolloutEntry},
    time::{Moment, Seconds},
    wire::{decode_rollout_file, encode_rollout_file},
};

use super::{Error, World};

/// Beyond every letter: the thief claims to have counted all of them.
const ALL_LETTERS: u64 = u64::MAX;

/// Everything that lay on the gatekeeper's host: its keys, and people's roles as they stood.
#[derive(Debug)]
pub struct Loot {
    repository: Repository,
    trusted: Trusted,
}

impl Loot {
    /// Writes the online roles into the server's repository with this version of each, opening
    /// nothing that was not open.
    pub fn write(&self, version: u64, now: Moment) -> Result<(), Error> {
        let (repository, trusted) = (&self.repository, &self.trusted);
        let none = BTreeMap::new();
        let rollouts = repository.rollouts(trusted, &none, version, now).map_err(other)?;
        let snapshot = repository.snapshot(trusted, &rollouts, version, now).map_err(other)?;
        let timestamp = repository.timestamp(trusted, &snapshot, version, now).map_err(other)?;
        repository.write_rollouts(&none, &rollouts).map_err(other)?;
        repository.write_snapshot(&snapshot).map_err(other)?;
        repository.write_timestamp(&timestamp).map_err(other)
    }
}

impl World {
    /// Steals what lies on the gatekeeper's host.
    pub fn loot(&self) -> Result<Loot, Error> {
        let keys = OnlineKeys::load(&self.path("ceremony/online")).map_err(other)?;
        let day = Seconds(86_400);
        let terms = Terms { rollouts: day, snapshot: day, timestamp: day };
        let repository = Repository::new(self.path("repository"), keys, terms);
        Ok(Loot { repository, trusted: self.trusted()? })
    }

    /// Signs an act with people's keys whoever they are: the tool of the trade refuses to.
    pub fn sign_anyway(&self, act: &str, people: &[&str]) -> Result<(), Error> {
        let path = self.path(act);
        let mut signed: SignedAct = read_json(&path)?;
        for person in people {
            let key = self.path(&format!("ceremony/people/{person}.key"));
            let source = PassphraseSource::File(self.path("passphrase"));
            signed.sign(&keys::read(&key, &source).map_err(other)?);
        }
        let text = serde_json::to_string_pretty(&signed).map_err(other)?;
        Ok(fs::write(path, text)?)
    }

    /// Kills the gatekeeper, takes its keys and opens the rollout of `act`, signed as it may be, to
    /// everybody.
    pub fn forge_rollout(&mut self, product: &str, act: &str) -> Result<(), Error> {
        let now = self.status()?.at.plus(Seconds(1));
        self.kill_gatekeeper();
        let start: SignedAct = read_json(&self.path(act))?;
        let Act::Start(terms) = start.unverified().map_err(other)? else {
            return Err(other("the act is not a start"));
        };
        let entry = RolloutEntry {
            rollout: terms.rollout(),
            start,
            approvals: Vec::new(),
            stages: terms.cohorts.iter().map(|size| open(&size.cohort, terms.moment)).collect(),
            groups: Vec::new(),
            known: KnownGroups::default(),
            coverage: Vec::new(),
            complete: None,
            ended: None,
        };
        let folder = self.path("repository");
        let trusted = self.trusted()?;
        let mut targets = current_targets(&folder, &trusted)?;
        // Every model that has a file.
        let folder_of = format!("rollouts/{product}/");
        for (path, bytes) in &mut targets {
            if !path.starts_with(&folder_of) || !path.ends_with(".bin") {
                continue;
            }
            let mut file = decode_rollout_file(bytes).map_err(other)?;
            file.rollouts.push(entry.clone());
            file.issued = now;
            file.letters_offset = ALL_LETTERS;
            *bytes = encode_rollout_file(&file).map_err(other)?;
        }
        publish(&folder, &self.path("ceremony"), &targets, now)
    }

    /// What people published, as it stands in the repository's folder.
    fn trusted(&self) -> Result<Trusted, Error> {
        let none = OnlineKeys::new(Vec::new());
        let day = Seconds(86_400);
        let terms = Terms { rollouts: day, snapshot: day, timestamp: day };
        let repository = Repository::new(self.path("repository"), none, terms);
        let anchor = fs::read(self.path("ceremony/root.json"))?;
        Trusted::read(&anchor, &repository.people_files().map_err(other)?).map_err(other)
    }
}

fn publish(
    folder: &Path,
    ceremony: &Path,
    targets: &BTreeMap<String, Vec<u8>>,
    now: Moment,
) -> Result<(), Error> {
    let day = Seconds(86_400);
    let terms = Terms { rollouts: day, snapshot: day, timestamp: day };
    let keys = OnlineKeys::load(&ceremony.join("online")).map_err(other)?;
    let repository = Repository::new(folder.to_owned(), keys, terms);
    let files = repository.people_files().map_err(other)?;
    let anchor = fs::read(ceremony.join("root.json"))?;
    let trusted = Trusted::read(&anchor, &files).map_err(other)?;
    let versions = versions_on_disk(folder, &trusted);
    let rollouts =
        repository.rollouts(&trusted, targets, versions.rollouts + 1, now).map_err(other)?;
    let snapshot =
        repository.snapshot(&trusted, &rollouts, versions.snapshot + 1, now).map_err(other)?;
    let timestamp =
        repository.timestamp(&trusted, &snapshot, versions.timestamp + 1, now).map_err(other)?;
    repository.write_rollouts(targets, &rollouts).map_err(other)?;
    repository.write_snapshot(&snapshot).map_err(other)?;
    repository.write_timestamp(&timestamp).map_err(other)
}

/// The rollout files of the newest `rollouts` role: path and bytes.
fn current_targets(folder: &Path, trusted: &Trusted) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let version = versions_on_disk(folder, trusted).rollouts;
    let role: serde_json::Value =
        read_json(&folder.join(format!("metadata/{version}.rollouts.json")))?;
    let mut targets = BTreeMap::new();
    for (path, target) in role["signed"]["targets"].as_object().into_iter().flatten() {
        let digest = target["hashes"]["sha256"].as_str().unwrap_or_default();
        let (parent, file) = path.rsplit_once('/').unwrap_or(("", path));
        let bytes = fs::read(folder.join("targets").join(parent).join(format!("{digest}.{file}")))?;
        targets.insert(path.clone(), bytes);
    }
    Ok(targets)
}

fn open(cohort: &CohortId, opened: Moment) -> OpenStage {
    OpenStage {
        cohort: cohort.clone(),
        opened,
        limit: Limit::EVERYBODY,
        full: Some(opened),
        groups: Vec::new(),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    serde_json::from_slice(&fs::read(path)?).map_err(other)
}

fn other(error: impl ToString) -> Error {
    Error::Io(std::io::Error::other(error.to_string()))
}
