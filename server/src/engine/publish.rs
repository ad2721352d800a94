//! From the book to the repository's folder: which rollout files are due, and the signed roles over
//! them. It decides when to write; what stands in the files is the book's, how they are signed
//! [`crate::tuf`]'s.
//!
//! Rollout files change at ticks, and at once when people acted. The timestamp is signed again at its
//! interval; a snapshot, and `rollouts`, before half of their time is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockgate_shared::{
    group::KnownGroups,
    id::{Digest, ModelId, ProductId, RepositoryId, RolloutId},
    limits,
    rollout::{RolloutEntry, RolloutFile, Scope, Stop},
    time::{Moment, Seconds},
    wire::{CodecError, encode_rollout_file},
};
use thiserror::Error;

use super::book::Book;
use crate::{
    rollout::Rollout,
    status::Expiry,
    tuf::{
        TufError,
        metadata::target_path,
        repository::{Online, Replaced, Repository, Versions},
        roles::{OnlineKeys, RoleFile},
        trusted::Trusted,
    },
};

/// How many written states of the rollout files stay on disk for clients in the middle of a refresh.
const KEEP_STATES: usize = 4;
/// What remains of a stop's reason in a file that is too full for all of it.
const SHORT_REASON: usize = 80;

/// Writes the repository.
#[derive(Debug)]
pub struct Publisher {
    repository: Repository,
    terms: PublisherTerms,
    written: Shelf,
    online: Option<Online>,
    issued: Moment,
    kept: VecDeque<BTreeSet<String>>,
}

/// When roles are signed again.
#[derive(Clone, Copy, Debug)]
pub struct PublisherTerms {
    /// The timestamp.
    pub timestamp_interval: Seconds,
    /// How long a snapshot is good.
    pub snapshot: Seconds,
    /// How long `rollouts` is good.
    pub rollouts: Seconds,
}

/// Why it is time to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Nothing happened; roles may be due.
    Clock,
    /// A gate tick, or people acted.
    Change,
    /// People published: a snapshot must name it.
    Publication,
}

/// What is due to be written, signed already.
#[derive(Clone, Debug)]
pub struct Due {
    online: Online,
    files: BTreeMap<String, Vec<u8>>,
    written: Shelf,
    rollouts: bool,
    snapshot: bool,
    /// The versions that are taken with it: the store notes them first.
    pub versions: Versions,
}

/// Rollout files by product and model.
type Shelf = BTreeMap<(ProductId, ModelId), Written>;

#[derive(Clone, Debug)]
struct Written {
    content: Digest,
    bin: Vec<u8>,
    json: Vec<u8>,
}

/// Why a rollout file cannot be made.
#[derive(Debug, Error)]
pub enum PublishError {
    /// It does not fit, whatever is left out.
    #[error("the rollout file of `{product}` cannot be made")]
    File {
        /// Its product.
        product: ProductId,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// JSON failed.
    #[error("a rollout file cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// Signing or writing failed.
    #[error(transparent)]
    Tuf(#[from] TufError),
}

impl Publisher {
    /// A publisher that has written nothing yet: its first look writes everything.
    pub const fn new(repository: Repository, terms: PublisherTerms) -> Self {
        Self {
            repository,
            terms,
            written: BTreeMap::new(),
            online: None,
            issued: Moment(0),
            kept: VecDeque::new(),
        }
    }

    /// The folder.
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Takes up other keys.
    pub fn set_keys(&mut self, keys: OnlineKeys) {
        self.repository.set_keys(keys);
    }

    /// What is due now, if anything is.
    pub fn due(
        &self,
        book: &Book,
        trusted: &Trusted,
        occasion: Occasion,
        now: Moment,
    ) -> Result<Option<Due>, PublishError> {
        let half = |role: &RoleFile, term: Seconds| role.expires <= now.plus(Seconds(term.0 / 2));
        let before = self.online.as_ref();
        let written = match (occasion, before) {
            (Occasion::Clock, Some(_)) => None,
            (Occasion::Clock | Occasion::Change | Occasion::Publication, _) => {
                self.changed(book, &trusted.policy().repository, now)?
            }
        };
        let replaced = match before {
            Some(online) => online.replaced(trusted)?,
            None => Replaced::default(),
        };
        let rollouts = before.is_none_or(|online| half(&online.rollouts, self.terms.rollouts))
            || written.is_some()
            || replaced.rollouts;
        let snapshot = before.is_none_or(|online| half(&online.snapshot, self.terms.snapshot))
            || rollouts
            || replaced.others
            || occasion == Occasion::Publication;
        if !snapshot && now < self.issued.plus(self.terms.timestamp_interval) {
            return Ok(None);
        }
        let written = written.unwrap_or_else(|| self.written.clone());
        let files = files_of(&written);
        let mut versions = book.versions();
        let rollouts_role = match before {
            Some(online) if !rollouts => online.rollouts.clone(),
            Some(_) | None => {
                versions.rollouts = Versions::after("rollouts", versions.rollouts)?;
                self.repository.rollouts(trusted, &files, versions.rollouts, now)?
            }
        };
        let snapshot_role = match before {
            Some(online) if !snapshot => online.snapshot.clone(),
            Some(_) | None => {
                versions.snapshot = Versions::after("snapshot", versions.snapshot)?;
                self.repository.snapshot(trusted, &rollouts_role, versions.snapshot, now)?
            }
        };
        versions.timestamp = Versions::after("timestamp", versions.timestamp)?;
        let timestamp =
            self.repository.timestamp(trusted, &snapshot_role, versions.timestamp, now)?;
        let online = Online { rollouts: rollouts_role, snapshot: snapshot_role, timestamp };
        Ok(Some(Due { online, files, written, rollouts, snapshot, versions }))
    }

    /// Writes what is due, after the store has noted its versions.
    pub fn write(&mut self, due: Due, now: Moment) -> Result<(), PublishError> {
        if due.rollouts {
            self.repository.write_rollouts(&due.files, &due.online.rollouts)?;
        }
        if due.snapshot {
            self.repository.write_snapshot(&due.online.snapshot)?;
        }
        self.repository.write_timestamp(&due.online.timestamp)?;
        if due.rollouts {
            let paths = due.files.iter().map(|(path, bytes)| target_path(path, &Digest::of(bytes)));
            self.kept.push_back(paths.collect());
            while self.kept.len() > KEEP_STATES {
                self.kept.pop_front();
            }
            let keep = self.kept.iter().flatten().cloned().collect();
            self.repository.sweep(due.versions, &keep)?;
        }
        self.written = due.written;
        self.online = Some(due.online);
        self.issued = now;
        Ok(())
    }

    /// When the online roles end.
    pub fn expiries(&self) -> Vec<Expiry> {
        let Some(online) = &self.online else { return Vec::new() };
        let roles = [
            ("rollouts", &online.rollouts),
            ("snapshot", &online.snapshot),
            ("timestamp", &online.timestamp),
        ];
        roles
            .into_iter()
            .map(|(role, file)| Expiry {
                role: role.into(),
                version: file.version,
                expires: file.expires,
            })
            .collect()
    }

    /// The rollout files as they should be, if any of them has to be written again.
    fn changed(
        &self,
        book: &Book,
        repository: &RepositoryId,
        now: Moment,
    ) -> Result<Option<Shelf>, PublishError> {
        let models = book.models();
        let products: BTreeSet<ProductId> =
            book.rollouts.values().map(|rollout| rollout.start.product.clone()).collect();
        let mut all = BTreeMap::new();
        let mut any = self.online.is_none();
        for product in products {
            let mut file = RolloutFile {
                repository: repository.clone(),
                product: product.clone(),
                model: ModelId::of_hardware("", ""),
                issued: Moment(0),
                letters_offset: 0,
                rollouts: entries(book, &product),
                stops: stops(book, &product),
                lifts: book.lifts.iter().cloned().collect(),
            };
            let bare = fit(&mut file)
                .map_err(|source| PublishError::File { product: product.clone(), source })?;
            let content = Digest::of(&bare);
            for model in &models {
                let key = (product.clone(), model.clone());
                let same = self.written.get(&key).filter(|known| known.content == content);
                if let Some(known) = same.filter(|_| !book.fresh.contains(&key)) {
                    all.insert(key, known.clone());
                    continue;
                }
                any = true;
                file.model = model.clone();
                file.issued = now;
                file.letters_offset = book.offset;
                let bin = encode_rollout_file(&file)
                    .map_err(|source| PublishError::File { product: product.clone(), source })?;
                let json = serde_json::to_vec_pretty(&file)?;
                all.insert(key, Written { content, bin, json });
            }
        }
        Ok(any.then_some(all))
    }
}

fn files_of(written: &Shelf) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for ((product, model), file) in written {
        files.insert(RolloutFile::path(product, model), file.bin.clone());
        files.insert(RolloutFile::json_path(product, model), file.json.clone());
    }
    files
}

/// A product's rollouts for its files, oldest start first: everything in progress, and of each channel
/// the last complete ones and the last ended ones.
fn entries(book: &Book, product: &ProductId) -> Vec<RolloutEntry> {
    let mut rollouts: Vec<&Rollout> =
        book.rollouts.values().filter(|rollout| rollout.start.product == *product).collect();
    rollouts.sort_by_key(|rollout| std::cmp::Reverse(rollout.offset));
    let mut over: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    rollouts.retain(|rollout| {
        if rollout.complete.is_none() && rollout.ended.is_none() {
            return true;
        }
        let kind = (rollout.start.channel.as_str(), rollout.ended.is_some());
        let count = over.entry(kind).or_default();
        *count += 1;
        *count <= limits::FILE_COMPLETE
    });
    // More than a file holds: what is over makes room first, oldest first, the ended before the
    // complete.
    while rollouts.len() > limits::FILE_ROLLOUTS {
        let oldest = |over: &dyn Fn(&Rollout) -> bool| rollouts.iter().rposition(|r| over(r));
        let place = oldest(&|rollout| rollout.ended.is_some())
            .or_else(|| oldest(&|rollout| rollout.complete.is_some()))
            .unwrap_or(rollouts.len() - 1);
        rollouts.remove(place);
    }
    rollouts.iter().rev().map(|rollout| rollout.entry()).collect()
}

/// The stops that may concern a product's devices.
fn stops(book: &Book, product: &ProductId) -> Vec<Stop> {
    let own = |id: &RolloutId| {
        book.rollouts.get(id).is_some_and(|rollout| rollout.start.product == *product)
    };
    let concerns = |stop: &&Stop| match &stop.scope {
        Scope::Rollout(id) | Scope::Groups(id, _) => own(id),
        Scope::Cohort(name, _) | Scope::Product(name) => name == product,
        Scope::Tenant(_) | Scope::Everything => true,
    };
    book.stops.values().filter(concerns).cloned().collect()
}

/// The file's bytes. A file that is too large first loses what is over, then its oldest lifts, then the
/// length of its reasons, at last what its older rollouts know of groups; stops themselves, and rollouts in progress, are never left out.
fn fit(file: &mut RolloutFile) -> Result<Vec<u8>, CodecError> {
    loop {
        let error = match encode_rollout_file(file) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let over = |entry: &RolloutEntry| entry.ended.is_some() || entry.complete.is_some();
        if let Some(oldest) = file.rollouts.iter().position(over) {
            file.rollouts.remove(oldest);
        } else if !file.lifts.is_empty() {
            file.lifts.remove(0);
        } else if file.stops.iter().any(|stop| stop.reason.chars().count() > SHORT_REASON) {
            for stop in &mut file.stops {
                stop.reason = stop.reason.chars().take(SHORT_REASON).collect();
            }
        } else if let Some(entry) = file.rollouts.iter_mut().find(|one| !one.known.is_empty()) {
            entry.known = KnownGroups::default();
        } else {
            return Err(error);
        }
    }
}
