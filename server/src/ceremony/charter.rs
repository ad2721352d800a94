//! Who holds which role of a repository, as plain data: read from a root, targets and a policy, and
//! written back as these. It is what people compare before they sign a change.
//!
//! It refuses a root or targets that say anything which it cannot hold: whatever a charter does not
//! show, nobody can be made to sign.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU64,
};

use lockgate_shared::{
    id::{ProductId, PublicKey},
    policy::{POLICY_PATH, Policy},
};
use thiserror::Error;
use tough::{
    TargetName,
    schema::{DelegatedRole, Delegations, PathPattern, PathSet, RoleKeys, RoleType, Root, Targets},
};

use super::{
    metadata::{self, KeyId, MetadataError, SPEC_VERSION},
    plan::release_role,
};
use crate::tuf::trusted::ROLLOUTS;

/// What the gatekeeper's role may list.
const ROLLOUTS_PATHS: &str = "rollouts/*/*";

/// Who holds which role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charter {
    /// The root.
    pub root: Office,
    /// The targets.
    pub targets: Office,
    /// The snapshot.
    pub snapshot: Office,
    /// The timestamp.
    pub timestamp: Office,
    /// The gatekeeper's delegated role.
    pub rollouts: Office,
    /// The release roles.
    pub releases: BTreeMap<ProductId, Office>,
    /// The people, and what needs how many of them.
    pub policy: Policy,
}

/// The keys of a role, and how many of them must sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Office {
    /// The keys.
    pub keys: BTreeSet<PublicKey>,
    /// How many must sign.
    pub threshold: u64,
}

/// Why metadata is more, or less, than a charter.
#[derive(Debug, Error)]
pub enum CharterError {
    /// A role that must be there is not.
    #[error("`{0}` has no keys")]
    NoRole(String),
    /// A key of another kind, or listed under another id than its own.
    #[error("`{0}` has a key that is no Ed25519 key under its own id")]
    OddKey(String),
    /// Fewer keys than must sign, or none needed.
    #[error("`{role}` asks for {threshold} signatures and has {keys} keys")]
    Threshold {
        /// The role.
        role: String,
        /// Signatures asked for.
        threshold: u64,
        /// Keys there are.
        keys: usize,
    },
    /// It says something that no charter says.
    #[error(
        "`{0}` says something that cannot be shown in words, and is not signed for that reason"
    )]
    MoreThanWords(&'static str),
    /// Metadata could not be made.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl Charter {
    /// Reads who holds which role. Everything in `root` and `targets` is in the charter, or it is
    /// refused.
    pub fn of(root: &Root, targets: &Targets, policy: &Policy) -> Result<Self, CharterError> {
        let top = |role: RoleType| {
            let keys = root.roles.get(&role).ok_or(CharterError::NoRole(role.to_string()))?;
            Office::of(&role.to_string(), &keys.keyids, keys.threshold, &root.keys)
        };
        let none = Delegations::new();
        let delegations = targets.delegations.as_ref().unwrap_or(&none);
        let delegated = |name: &str| {
            let role = delegations.roles.iter().find(|role| role.name == name);
            let role = role.ok_or_else(|| CharterError::NoRole(name.to_owned()))?;
            Office::of(name, &role.keyids, role.threshold, &delegations.keys)
        };
        let mut releases = BTreeMap::new();
        for product in policy.products.keys() {
            releases.insert(product.clone(), delegated(&release_role(product))?);
        }
        Ok(Self {
            root: top(RoleType::Root)?,
            targets: top(RoleType::Targets)?,
            snapshot: top(RoleType::Snapshot)?,
            timestamp: top(RoleType::Timestamp)?,
            rollouts: delegated(ROLLOUTS)?,
            releases,
            policy: policy.clone(),
        })
    }

    /// Refuses a root that says anything else than this charter.
    pub fn root_only(&self, root: &Root) -> Result<(), CharterError> {
        let expected = self.root_role(root.version, root.expires)?;
        if sorted_root(root) == sorted_root(&expected) {
            Ok(())
        } else {
            Err(CharterError::MoreThanWords("root"))
        }
    }

    /// Refuses targets that say anything else than this charter with this policy.
    pub fn targets_only(&self, targets: &Targets, policy: &[u8]) -> Result<(), CharterError> {
        let expected = self.targets_role(targets.version, targets.expires, policy)?;
        if sorted(targets) == sorted(&expected) {
            Ok(())
        } else {
            Err(CharterError::MoreThanWords("targets"))
        }
    }

    /// The root that says so.
    pub fn root_role(
        &self,
        version: NonZeroU64,
        expires: jiff::Timestamp,
    ) -> Result<Root, CharterError> {
        let mut root = Root {
            spec_version: SPEC_VERSION.into(),
            consistent_snapshot: true,
            version,
            expires,
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        for (role, office) in [
            (RoleType::Root, &self.root),
            (RoleType::Targets, &self.targets),
            (RoleType::Snapshot, &self.snapshot),
            (RoleType::Timestamp, &self.timestamp),
        ] {
            let threshold = office.met(&role.to_string())?;
            let keyids = metadata::key_ids(&office.keys)?;
            root.keys.extend(metadata::key_table(&office.keys)?);
            root.roles.insert(role, RoleKeys { keyids, threshold, _extra: HashMap::new() });
        }
        Ok(root)
    }

    /// The targets that say so, with the text of the policy.
    pub fn targets_role(
        &self,
        version: NonZeroU64,
        expires: jiff::Timestamp,
        policy: &[u8],
    ) -> Result<Targets, CharterError> {
        let mut targets = Targets::new(SPEC_VERSION.into(), version, expires);
        let name = TargetName::new(POLICY_PATH)
            .map_err(|error| MetadataError::Schema(error.to_string()))?;
        targets.add_target(name, metadata::target(policy));
        let mut delegations = Delegations::new();
        let releases = self.releases.iter().map(|(product, office)| {
            (release_role(product), office, format!("releases/{product}/*"))
        });
        let rollouts = (ROLLOUTS.to_owned(), &self.rollouts, ROLLOUTS_PATHS.to_owned());
        for (name, office, path) in releases.chain([rollouts]) {
            delegations.keys.extend(metadata::key_table(&office.keys)?);
            let path = PathPattern::new(path).map_err(MetadataError::from)?;
            delegations.roles.push(DelegatedRole {
                keyids: metadata::key_ids(&office.keys)?,
                threshold: office.met(&name)?,
                paths: PathSet::Paths(vec![path]),
                terminating: true,
                targets: None,
                name,
            });
        }
        targets.delegations = Some(delegations);
        Ok(targets)
    }
}

impl Office {
    /// One key, which signs alone.
    pub fn alone(key: PublicKey) -> Self {
        Self { keys: [key].into(), threshold: 1 }
    }

    fn of(
        name: &str,
        ids: &[KeyId],
        threshold: NonZeroU64,
        table: &HashMap<KeyId, tough::schema::key::Key>,
    ) -> Result<Self, CharterError> {
        let odd = || CharterError::OddKey(name.to_owned());
        let mut keys = BTreeSet::new();
        for id in ids {
            let key = table.get(id).and_then(metadata::public_key).ok_or_else(odd)?;
            if metadata::key_id(&key)? != *id || !keys.insert(key) {
                return Err(odd());
            }
        }
        let office = Self { keys, threshold: threshold.get() };
        office.met(name)?;
        Ok(office)
    }

    /// The threshold, if it can be met.
    fn met(&self, name: &str) -> Result<NonZeroU64, CharterError> {
        let can = self.keys.len() as u64 >= self.threshold;
        NonZeroU64::new(self.threshold).filter(|_| can).ok_or_else(|| CharterError::Threshold {
            role: name.to_owned(),
            threshold: self.threshold,
            keys: self.keys.len(),
        })
    }
}

/// The policy's text, as it is published.
pub fn policy_text(policy: &Policy) -> Result<String, MetadataError> {
    let mut text = serde_json::to_string_pretty(policy)?;
    text.push('\n');
    Ok(text)
}

fn sorted_root(root: &Root) -> Root {
    let mut root = root.clone();
    root.roles.values_mut().for_each(|role| role.keyids.sort());
    root
}

/// Delegations and key ids in one order: whoever wrote them may have chosen another.
fn sorted(targets: &Targets) -> Targets {
    let mut targets = targets.clone();
    if let Some(delegations) = &mut targets.delegations {
        delegations.roles.sort_by(|one, other| one.name.cmp(&other.name));
        for role in &mut delegations.roles {
            role.keyids.sort();
        }
    }
    targets
}
