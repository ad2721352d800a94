//! The plan of a repository in TOML: who the people are, what needs how many of them, which products,
//! tenants and keys there are. What people decide before a ceremony, in one page that they can sign
//! off.
//!
//! It refuses fields it does not know, thresholds that cannot be met, and one person who could both
//! author and approve; the rest is [`Policy::check`]'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::{ChannelId, CohortId, PersonId, ProductId, PublicKey, RepositoryId, TenantId},
    policy::{Approvals, Policy, PolicyError, Role},
    time::{Moment, Seconds},
};
use serde::Deserialize;
use thiserror::Error;

use super::charter::Office;

/// The most keys of one role: more people than any ceremony gathers.
const MAX_KEYS: u8 = 20;
/// The longest life of metadata: five years. What never expires can never be found missing.
pub(crate) const MAX_DAYS: u32 = 1_830;
/// The largest plan that is read: a thousand tenants stay below it.
const MAX_PLAN: u64 = 1024 * 1024;

/// What a repository shall be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its name.
    pub repository: RepositoryId,
    /// The root role.
    #[serde(default = "root_keys")]
    pub root: RoleKeys,
    /// The targets role.
    #[serde(default = "targets_keys")]
    pub targets: RoleKeys,
    /// What holds for every product's release role.
    #[serde(default)]
    pub release: ReleaseRole,
    /// How many approvers each act needs.
    pub approvals: Approvals,
    /// The people.
    pub people: BTreeMap<PersonId, PlannedPerson>,
    /// The products.
    pub products: BTreeMap<ProductId, PlannedProduct>,
    /// The tenants.
    #[serde(default)]
    pub tenants: BTreeMap<TenantId, PlannedTenant>,
    /// The gatekeeper's keys, where they are not to stay as they are.
    #[serde(default)]
    pub online: PlannedOnline,
    /// When somebody must look again at a key that another company holds.
    #[serde(default)]
    pub reviews: BTreeMap<PublicKey, Moment>,
}

/// The gatekeeper's keys by their public halves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlannedOnline {
    /// Of the delegated role `rollouts`.
    pub rollouts: Option<PublicKey>,
    /// Of `snapshot`.
    pub snapshot: Option<PublicKey>,
    /// Of `timestamp`.
    pub timestamp: Option<PublicKey>,
}

/// An offline role with keys of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKeys {
    /// How many keys it has.
    pub keys: u8,
    /// How many of them must sign.
    pub threshold: u8,
    /// How long its metadata is good.
    pub expires_days: u32,
    /// Which they are, where they are not to stay as they are. A ceremony makes its own.
    #[serde(default)]
    pub public_keys: Option<BTreeSet<PublicKey>>,
}

/// The release roles: their keys are the authors'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseRole {
    /// How many authors must sign a release.
    pub threshold: u8,
    /// How long a release role's metadata is good.
    pub expires_days: u32,
}

/// A person of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedPerson {
    /// What the person may do.
    pub roles: BTreeSet<Role>,
    /// The key that the person made elsewhere; otherwise the ceremony makes one.
    #[serde(default)]
    pub public_key: Option<PublicKey>,
    /// Names of the API tokens that belong to the person.
    #[serde(default)]
    pub tokens: BTreeSet<String>,
    /// For an author: the products whose releases the person signs; all if empty.
    #[serde(default)]
    pub products: BTreeSet<ProductId>,
}

/// A product of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedProduct {
    /// Its channels; the first is the default.
    pub channels: Vec<ChannelId>,
    /// Its cohorts, earliest first.
    pub cohorts: Vec<CohortId>,
    /// Instead of `release.threshold`.
    #[serde(default)]
    pub threshold: Option<u8>,
}

/// A tenant of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlannedTenant {
    /// The customer's own key, if there is one.
    pub tenant_key: Option<PublicKey>,
    /// The keys that sign enrolment tokens, where they are not to stay as they are. A ceremony makes
    /// one.
    pub enrolment_keys: Option<BTreeSet<PublicKey>>,
}

/// Why a plan cannot be carried out.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("cannot read the plan `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Larger than any plan.
    #[error("the plan has {0} bytes, at most {MAX_PLAN} are read")]
    TooLarge(u64),
    /// Not TOML of this shape.
    #[error("the plan cannot be read\n{0}")]
    Toml(#[from] toml::de::Error),
    /// A threshold of zero, or more than there are keys.
    #[error(
        "`{role}` asks for {threshold} signatures and has {keys} keys\nhint: the threshold must be at least 1 and at most the number of keys (at most {MAX_KEYS})"
    )]
    Threshold {
        /// The role.
        role: String,
        /// Signatures asked for.
        threshold: u8,
        /// Keys there are.
        keys: usize,
    },
    /// A lifetime that is none.
    #[error("`{role}.expires_days` is {days}\nhint: use 1 to {MAX_DAYS} days")]
    Expiry {
        /// The role.
        role: &'static str,
        /// What was given.
        days: u32,
    },
    /// No product.
    #[error("the plan names no product\nhint: add `[products.app]` with `channels` and `cohorts`")]
    NoProduct,
    /// A person signs for a product that is none.
    #[error("`{person}` signs releases of `{product}`, which the plan does not name")]
    UnknownProduct {
        /// The person.
        person: PersonId,
        /// The product.
        product: ProductId,
    },
    /// The names of a role's keys do not fit its number of keys.
    #[error(
        "`{role}` has {keys} keys, and {named} are named\nhint: name each of them in `{role}.public_keys`"
    )]
    Named {
        /// The role.
        role: &'static str,
        /// How many it has.
        keys: u8,
        /// How many are named.
        named: usize,
    },
    /// The policy that follows from the plan is refused.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl Plan {
    /// Reads a plan from a file.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let failed = |source| PlanError::Read { path: path.to_owned(), source };
        let size = fs::metadata(path).map_err(failed)?.len();
        if size > MAX_PLAN {
            return Err(PlanError::TooLarge(size));
        }
        Self::from_toml(&fs::read_to_string(path).map_err(failed)?)
    }

    /// Reads and checks a plan.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text)?;
        plan.check()?;
        Ok(plan)
    }

    /// Everything that must hold before keys are made; what needs the keys is checked with them.
    pub fn check(&self) -> Result<(), PlanError> {
        for (role, keys) in [("root", &self.root), ("targets", &self.targets)] {
            require_threshold(role, keys.threshold, usize::from(keys.keys))?;
            if keys.keys > MAX_KEYS {
                let (role, threshold) = (role.to_owned(), keys.threshold);
                return Err(PlanError::Threshold { role, threshold, keys: keys.keys.into() });
            }
            require_days(role, keys.expires_days)?;
            let named = keys.public_keys.as_ref().map_or(usize::from(keys.keys), BTreeSet::len);
            if named != usize::from(keys.keys) {
                return Err(PlanError::Named { role, keys: keys.keys, named });
            }
        }
        require_days("release", self.release.expires_days)?;
        if self.products.is_empty() {
            return Err(PlanError::NoProduct);
        }
        for (person, planned) in &self.people {
            if let Some(product) = planned.products.iter().find(|p| !self.products.contains_key(p))
            {
                let (person, product) = (person.clone(), product.clone());
                return Err(PlanError::UnknownProduct { person, product });
            }
        }
        for product in self.products.keys() {
            let role = release_role(product);
            require_threshold(&role, self.threshold(product), self.authors(product).len())?;
        }
        Ok(())
    }

    /// The authors who sign a product's releases.
    pub fn authors(&self, product: &ProductId) -> Vec<&PersonId> {
        self.people
            .iter()
            .filter(|(_, person)| person.roles.contains(&Role::Author))
            .filter(|(_, person)| person.products.is_empty() || person.products.contains(product))
            .map(|(name, _)| name)
            .collect()
    }

    /// How many of them must sign.
    pub fn threshold(&self, product: &ProductId) -> u8 {
        self.products
            .get(product)
            .and_then(|product| product.threshold)
            .unwrap_or(self.release.threshold)
    }

    /// Whether it names keys that a ceremony makes itself.
    pub fn names_keys(&self) -> bool {
        self.root.public_keys.is_some()
            || self.targets.public_keys.is_some()
            || self.online != PlannedOnline::default()
            || self.tenants.values().any(|tenant| tenant.enrolment_keys.is_some())
    }

    /// Each product's release role: its authors' keys by this policy, and how many must sign.
    pub fn releases(&self, policy: &Policy) -> BTreeMap<ProductId, Office> {
        let office = |product: &ProductId| {
            let people = self.authors(product).into_iter();
            let keys = people.filter_map(|name| policy.people.get(name)).flat_map(|p| &p.keys);
            Office { keys: keys.copied().collect(), threshold: self.threshold(product).into() }
        };
        self.products.keys().map(|product| (product.clone(), office(product))).collect()
    }

    /// The policy that follows, with the keys of people and tenants filled in and checked.
    pub fn policy(
        &self,
        people: &BTreeMap<PersonId, BTreeSet<PublicKey>>,
        tenants: &BTreeMap<TenantId, BTreeSet<PublicKey>>,
    ) -> Result<Policy, PlanError> {
        use lockgate_shared::policy::{POLICY_FORMAT, Person, Product, Tenant};
        let policy = Policy {
            format: POLICY_FORMAT,
            repository: self.repository.clone(),
            people: (self.people.iter())
                .map(|(name, planned)| {
                    let person = Person {
                        keys: people.get(name).cloned().unwrap_or_default(),
                        roles: planned.roles.clone(),
                        tokens: planned.tokens.clone(),
                    };
                    (name.clone(), person)
                })
                .collect(),
            approvals: self.approvals,
            tenants: (self.tenants.iter())
                .map(|(name, planned)| {
                    let tenant = Tenant {
                        enrolment_keys: tenants.get(name).cloned().unwrap_or_default(),
                        tenant_key: planned.tenant_key,
                    };
                    (name.clone(), tenant)
                })
                .collect(),
            products: (self.products.iter())
                .map(|(name, planned)| {
                    let product = Product {
                        channels: planned.channels.clone(),
                        cohorts: planned.cohorts.clone(),
                    };
                    (name.clone(), product)
                })
                .collect(),
            reviews: self.reviews.clone(),
        };
        policy.check()?;
        Ok(policy)
    }
}

impl RoleKeys {
    /// How long its metadata is good.
    pub const fn life(&self) -> Seconds {
        days(self.expires_days)
    }
}

impl ReleaseRole {
    /// How long a release role's metadata is good.
    pub const fn life(&self) -> Seconds {
        days(self.expires_days)
    }
}

impl Default for ReleaseRole {
    fn default() -> Self {
        // One author signs until a plan says more; half a year leaves room for a product at rest.
        Self { threshold: 1, expires_days: 180 }
    }
}

/// The name of a product's release role.
pub fn release_role(product: &ProductId) -> String {
    format!("releases-{product}")
}

const fn root_keys() -> RoleKeys {
    // Two of three: one key may be lost or stolen without harm.
    RoleKeys { keys: 3, threshold: 2, expires_days: 365, public_keys: None }
}

const fn targets_keys() -> RoleKeys {
    RoleKeys { keys: 3, threshold: 2, expires_days: 365, public_keys: None }
}

const fn days(count: u32) -> Seconds {
    Seconds(count as u64 * 86_400)
}

fn require_threshold(role: &str, threshold: u8, keys: usize) -> Result<(), PlanError> {
    if threshold == 0 || usize::from(threshold) > keys {
        return Err(PlanError::Threshold { role: role.to_owned(), threshold, keys });
    }
    Ok(())
}

const fn require_days(role: &'static str, days: u32) -> Result<(), PlanError> {
    if days == 0 || days > MAX_DAYS { Err(PlanError::Expiry { role, days }) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const PLAN: &str = r#"
repository = "trial"

[root]
keys = 3
threshold = 2
expires_days = 365

[targets]
keys = 2
threshold = 1
expires_days = 365

[release]
threshold = 2
expires_days = 90

[approvals]
start_routine = 1
start_security = 1
start_emergency = 2
stage = 1
lift = 1
grant = 1
waiver = 2

[people.ada]
roles = ["author"]

[people.alan]
roles = ["author"]
tokens = ["ci"]

[people.ben]
roles = ["approver"]

[people.eva]
roles = ["approver", "operator"]

[products.app]
channels = ["stable", "beta"]
cohorts = ["dogfood", "early", "general"]

[tenants.acme]
"#;

    #[test]
    fn a_plan_is_read_as_it_is_written() {
        let plan = Plan::from_toml(PLAN).expect("a plan");
        let app: ProductId = "app".parse().expect("a name");
        assert_eq!(plan.authors(&app).len(), 2);
        assert_eq!(plan.threshold(&app), 2);
        assert!(plan.tenants.contains_key(&"acme".parse().expect("a name")));
    }

    #[test]
    fn a_threshold_that_nobody_can_meet_is_refused_by_name() {
        for (from, to) in [
            ("keys = 3\nthreshold = 2", "keys = 3\nthreshold = 4"),
            ("keys = 3\nthreshold = 2", "keys = 3\nthreshold = 0"),
            ("threshold = 2\nexpires_days = 90", "threshold = 3\nexpires_days = 90"),
        ] {
            let text = PLAN.replace(from, to);
            assert_ne!(text, PLAN);
            assert!(matches!(Plan::from_toml(&text), Err(PlanError::Threshold { .. })), "{to}");
        }
    }

    #[test]
    fn a_misspelt_field_is_refused_and_not_passed_over() {
        let text = PLAN.replace("tokens = [\"ci\"]", "token = [\"ci\"]");
        let error = Plan::from_toml(&text).expect_err("misspelt").to_string();
        assert!(error.contains("token"), "{error}");
    }

    #[test]
    fn an_author_of_a_product_that_is_none_is_refused() {
        let text = PLAN.replace("tokens = [\"ci\"]", "products = [\"apps\"]");
        assert!(matches!(Plan::from_toml(&text), Err(PlanError::UnknownProduct { .. })));
    }
}
