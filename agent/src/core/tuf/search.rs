//! The search for a target: top-level targets, then delegated roles in the order of precedence,
//! depth first, each fetched only when it is its turn.
//!
//! A role that cannot be had ends the searches that would have asked it, and no others: passing it
//! over would let whoever can hide a file hand its paths to a role of lower precedence.

use std::collections::BTreeSet;
use std::sync::Arc;

use lockgate_shared::time::Moment;
use serde_json::Value;

use super::error::TufError;
use super::imprint::{Hashes, Imprint};
use super::metadata::{After, Delegate, Document, Snapshot, Targets};
use super::names;
use super::proof::{Place, proved};
use super::received::Held;
use super::updater::{
    Chain, DELEGATED_IN_MEMORY, Freshness, Memory, Outside, Updater, Wanted, stored,
};
use super::{Fetch, SMALL_TARGET_LIMIT, Store, TARGETS_LIMIT};

/// Most delegated roles that one search visits. A repository of ours has one for a path.
pub const DELEGATED_ROLES_PER_SEARCH: usize = 32;

/// What is known about a target, by the first role in precedence that lists it.
#[derive(Debug, Clone)]
pub struct TargetInfo {
    path: String,
    fetch_path: String,
    length: u64,
    hashes: Hashes,
    custom: Option<Value>,
    role: String,
    role_version: u64,
}

impl TargetInfo {
    /// The path that was asked for.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where it is fetched: relative to the targets base, escaped, with its hash in front where the
    /// repository keeps consistent snapshots.
    pub fn fetch_path(&self) -> &str {
        &self.fetch_path
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its SHA-256, where listed.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.hashes.sha256()
    }

    /// What the role says beyond length and hashes.
    pub fn custom(&self) -> Option<&Value> {
        self.custom.as_ref()
    }

    /// The role that lists it: `targets`, or a delegated one.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// That role's version.
    pub fn role_version(&self) -> u64 {
        self.role_version
    }

    /// Succeeds if `bytes` are this target: its length and every known hash.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), TufError> {
        let imprint = Imprint::of(bytes);
        imprint.check_length(&self.path, Some(self.length))?;
        imprint.check_hashes(&self.path, &self.hashes)
    }
}

impl Updater {
    /// What is known about the target `path`; nothing if no role that may list it does. Needs a
    /// refresh that succeeded, and fails once that chain has expired at `now`.
    pub fn find_target(
        &mut self,
        fetch: &mut dyn Fetch,
        store: &mut dyn Store,
        path: &str,
        now: Moment,
    ) -> Result<Option<TargetInfo>, TufError> {
        names::check_target_path(path)?;
        let now = self.floor.effective(now);
        let chain = self.chain(now)?;
        let mut outside = Outside { fetch, store, now };
        let mut visited = BTreeSet::new();
        let mut pending = Vec::new();
        let (mut role, mut document) = ("targets".to_owned(), Arc::clone(&chain.targets));
        loop {
            if let Some(info) = self.listed(&role, &document, path)? {
                return Ok(Some(info));
            }
            plan(&document, path, &mut pending);
            let next = loop {
                match pending.pop() {
                    Some(delegate) if visited.contains(&delegate.name) => {}
                    other => break other,
                }
            };
            let Some(delegate) = next else { return Ok(None) };
            if visited.len() >= DELEGATED_ROLES_PER_SEARCH {
                let limit = DELEGATED_ROLES_PER_SEARCH;
                return Err(TufError::TooManyRoles { path: path.to_owned(), limit });
            }
            document = self.delegated(&delegate, &chain.snapshot, &mut outside)?.document;
            visited.insert(delegate.name.clone());
            role = delegate.name;
        }
    }

    /// Fetches a small target and returns its bytes once they have proved to be it.
    pub fn target_bytes(
        &self,
        fetch: &mut dyn Fetch,
        target: &TargetInfo,
    ) -> Result<Vec<u8>, TufError> {
        let (path, length, limit) = (target.path.clone(), target.length, SMALL_TARGET_LIMIT);
        if length > limit {
            return Err(TufError::TargetTooLong { path, length, limit });
        }
        let file = (Place::Targets, target.fetch_path.as_str());
        let ((), bytes) = proved(fetch, file, length, |bytes| target.verify(bytes))?;
        Ok(bytes)
    }

    /// The chain of the last refresh, if it succeeded and nothing of it has expired since.
    fn chain(&self, now: Moment) -> Result<Chain, TufError> {
        let chain = match &self.freshness {
            Freshness::Fresh(chain) => chain.clone(),
            Freshness::Stale => return Err(TufError::NotRefreshed),
        };
        let s = chain.status;
        for (role, version, expires) in [
            ("root", s.root_version, s.root_expires),
            ("timestamp", s.timestamp_version, s.timestamp_expires),
            ("snapshot", s.snapshot_version, s.snapshot_expires),
            ("targets", s.targets_version, s.targets_expires),
        ] {
            if now >= expires {
                return Err(TufError::Expired { role: role.to_owned(), version, expires, now });
            }
        }
        Ok(chain)
    }

    fn listed(
        &self,
        role: &str,
        document: &Targets,
        path: &str,
    ) -> Result<Option<TargetInfo>, TufError> {
        let Some(target) = document.targets.get(path) else { return Ok(None) };
        let Some(hash) = target.hashes.prefix() else {
            return Err(TufError::NoKnownHash { name: path.to_owned() });
        };
        let plain = names::escape_path(path);
        let fetch_path = match (self.root.consistent, plain.rsplit_once('/')) {
            (false, _) => plain,
            (true, Some((folder, file))) => format!("{folder}/{hash}.{file}"),
            (true, None) => format!("{hash}.{plain}"),
        };
        Ok(Some(TargetInfo {
            path: path.to_owned(),
            fetch_path,
            length: target.length,
            hashes: target.hashes.clone(),
            custom: target.custom.clone(),
            role: role.to_owned(),
            role_version: document.head().version,
        }))
    }

    /// A delegated role as the snapshot names it, verified under the delegator that led here:
    /// remembered, or stored, or fetched.
    fn delegated(
        &mut self,
        delegate: &Delegate,
        snapshot: &Snapshot,
        outside: &mut Outside<'_>,
    ) -> Result<Held<Targets>, TufError> {
        let Delegate { name, authority, .. } = delegate;
        let escaped = names::delegated(name)?;
        let Some(named) = snapshot.file(name) else {
            return Err(TufError::NotInSnapshot { role: name.clone() });
        };
        let remembered = (authority.id(), name.clone());
        let held = self.memory.as_ref().and_then(|memory| memory.delegated.get(&remembered));
        if let Some(held) = held.filter(|held| held.is(name, named)) {
            held.check_expiry(name, outside.now)?;
            return Ok(held.clone());
        }
        let file = format!("delegated-{escaped}.json");
        let known: Option<Held<Targets>> = stored(outside.store, &file, name, authority)?;
        let current = match known.filter(|held| held.is(name, named)) {
            Some(held) => {
                held.check_expiry(name, outside.now)?;
                held
            }
            None => {
                let (root, limit) = (&self.root, TARGETS_LIMIT);
                let wanted = Wanted { role: name, file: &escaped, named, limit, root };
                let (offered, bytes) = wanted.fetch::<Targets>(authority, outside)?;
                offered.check_expiry(name, outside.now)?;
                outside.store.save(&file, &bytes)?;
                offered
            }
        };
        if let Some(memory) = &mut self.memory {
            memory.remember(remembered, current.clone());
        }
        Ok(current)
    }
}

impl Memory {
    fn remember(&mut self, key: ([u8; 32], String), held: Held<Targets>) {
        if self.delegated.len() >= DELEGATED_IN_MEMORY {
            self.delegated.clear();
        }
        self.delegated.insert(key, held);
    }
}

/// Puts the roles to ask next on top of `pending`, the first one uppermost; behind a terminating
/// one nobody is asked any more.
fn plan(document: &Targets, path: &str, pending: &mut Vec<Delegate>) {
    let mut next = document.delegates(path);
    if let Some(last) = next.iter().position(|delegate| delegate.after == After::Nothing) {
        next.truncate(last + 1);
        pending.clear();
    }
    pending.extend(next.into_iter().rev());
}
