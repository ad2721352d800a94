//! `policy.json`: the people, their keys and roles, what needs how many of them, the tenants and
//! their enrolment keys, the products with their channels and cohorts.
//!
//! It is a TUF target signed by the targets role: who may do what is decided offline. This module
//! reads it and refuses one that would undo the separation of duties; it trusts nothing by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    act::{Act, RiskClass},
    id::{ChannelId, CohortId, IdError, PersonId, ProductId, PublicKey, RepositoryId, TenantId},
    json, limits,
    time::Moment,
};

/// The target path of the policy.
pub const POLICY_PATH: &str = "policy.json";

/// The format this code reads.
pub const POLICY_FORMAT: u32 = 1;

/// Who may do what in one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// [`POLICY_FORMAT`].
    pub format: u32,
    /// The repository to which every signed act and letter must belong.
    pub repository: RepositoryId,
    /// The people, by name.
    pub people: BTreeMap<PersonId, Person>,
    /// How many approvers an act needs.
    pub approvals: Approvals,
    /// The tenants, by name.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// The products, by name.
    pub products: BTreeMap<ProductId, Product>,
    /// When somebody must look again at a key that another company holds: whether it is still needed,
    /// and still held by whom one believes. Nothing stops by it; operators are reminded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reviews: BTreeMap<PublicKey, Moment>,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Keys with which the person signs acts.
    #[serde(default)]
    pub keys: BTreeSet<PublicKey>,
    /// What the person may do.
    pub roles: BTreeSet<Role>,
    /// Names of the API tokens that belong to the person.
    #[serde(default)]
    pub tokens: BTreeSet<String>,
}

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Sign releases. Never together with `approver`.
    Author,
    /// Sign starts, approvals, lifts, waivers and grants.
    Approver,
    /// Submit acts, pause and stop.
    Operator,
    /// Restrict the devices of a tenant.
    Administrator,
    /// Read.
    Auditor,
}

/// How many distinct approvers an act needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    /// To start a routine rollout.
    pub start_routine: u8,
    /// To start a security rollout.
    pub start_security: u8,
    /// To start an emergency rollout.
    pub start_emergency: u8,
    /// To approve a stage, where the ladder asks for approval.
    pub stage: u8,
    /// To lift a hold, halt or pause.
    pub lift: u8,
    /// To grant an earlier cohort.
    pub grant: u8,
    /// To waive a rule.
    pub waiver: u8,
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Keys that sign enrolment tokens.
    pub enrolment_keys: BTreeSet<PublicKey>,
    /// A key of the customer's own: where present, only it loosens restrictions.
    #[serde(default)]
    pub tenant_key: Option<PublicKey>,
}

/// A product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Its channels; the first is the default.
    pub channels: Vec<ChannelId>,
    /// Its cohorts, earliest first; a device without a grant is in the last.
    pub cohorts: Vec<CohortId>,
}

/// Why a policy cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// Not JSON of this shape.
    #[error("policy.json cannot be read")]
    Json(#[from] serde_json::Error),
    /// Larger than [`limits::POLICY_BYTES`].
    #[error("policy.json has {0} bytes, at most {max} are read", max = limits::POLICY_BYTES)]
    TooLarge(usize),
    /// Made by a later version.
    #[error(
        "policy.json has format {0}, this version reads format {POLICY_FORMAT}\nhint: update this program"
    )]
    Format(u32),
    /// A name in it is not one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// One person could author and approve.
    #[error("`{0}` is author and approver\nhint: name two people; who builds does not deploy")]
    AuthorApproves(PersonId),
    /// A key counts for two people.
    #[error("`{0}` and `{1}` have the same key\nhint: each person signs with a key of their own")]
    SharedKey(PersonId, PersonId),
    /// A token belongs to two people.
    #[error("`{0}` and `{1}` have the same token name `{2}`")]
    SharedToken(PersonId, PersonId, String),
    /// More approvals asked for than approvers named, or none.
    #[error(
        "`approvals.{what}` asks for {needed} approvers, {named} are named\nhint: it must be at least 1 and at most the number of approvers with a key"
    )]
    Approvals {
        /// Which act.
        what: &'static str,
        /// How many are asked for.
        needed: u8,
        /// How many there are.
        named: usize,
    },
    /// A product without a channel or a cohort.
    #[error("product `{0}` needs at least one channel and one cohort, each named once")]
    Product(ProductId),
    /// More than the limit of anything.
    #[error("policy.json names {count} {what}, at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
}

impl Approvals {
    /// So many for every act.
    pub const fn each(approvers: u8) -> Self {
        Self {
            start_routine: approvers,
            start_security: approvers,
            start_emergency: approvers,
            stage: approvers,
            lift: approvers,
            grant: approvers,
            waiver: approvers,
        }
    }
}

impl Policy {
    /// A repository of nobody and nothing yet.
    pub const fn new(repository: RepositoryId, approvals: Approvals) -> Self {
        Self {
            format: POLICY_FORMAT,
            repository,
            people: BTreeMap::new(),
            approvals,
            tenants: BTreeMap::new(),
            products: BTreeMap::new(),
            reviews: BTreeMap::new(),
        }
    }

    /// Reads and checks a policy. Whether its bytes are the ones that the targets role signed is the
    /// caller's to know.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > limits::POLICY_BYTES {
            return Err(PolicyError::TooLarge(bytes.len()));
        }
        let policy: Self = json::read(bytes)?;
        policy.check()?;
        Ok(policy)
    }

    /// Everything that must hold inside one policy.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.format != POLICY_FORMAT {
            return Err(PolicyError::Format(self.format));
        }
        self.check_people()?;
        self.check_approvals()?;
        for (what, count, max) in [
            ("people", self.people.len(), limits::PEOPLE),
            ("tenants", self.tenants.len(), limits::TENANTS),
            ("products", self.products.len(), limits::PRODUCTS),
        ] {
            if count > max {
                return Err(PolicyError::TooMany { what, count, max });
            }
        }
        for (name, product) in &self.products {
            let (mut channels, mut cohorts) = (BTreeSet::new(), BTreeSet::new());
            channels.extend(&product.channels);
            cohorts.extend(&product.cohorts);
            let twice = channels.len() < product.channels.len()
                || cohorts.len() < product.cohorts.len()
                || cohorts.len() > limits::STAGES;
            if twice || channels.is_empty() || cohorts.is_empty() {
                return Err(PolicyError::Product(name.clone()));
            }
        }
        Ok(())
    }

    fn check_people(&self) -> Result<(), PolicyError> {
        let mut keys: BTreeMap<PublicKey, &PersonId> = BTreeMap::new();
        let mut tokens: BTreeMap<&str, &PersonId> = BTreeMap::new();
        for (name, person) in &self.people {
            if person.roles.contains(&Role::Author) && person.roles.contains(&Role::Approver) {
                return Err(PolicyError::AuthorApproves(name.clone()));
            }
            for key in &person.keys {
                if let Some(other) = keys.insert(*key, name) {
                    return Err(PolicyError::SharedKey(other.clone(), name.clone()));
                }
            }
            for token in &person.tokens {
                if let Some(other) = tokens.insert(token, name) {
                    return Err(PolicyError::SharedToken(
                        other.clone(),
                        name.clone(),
                        token.clone(),
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_approvals(&self) -> Result<(), PolicyError> {
        let named = self
            .people
            .values()
            .filter(|person| person.roles.contains(&Role::Approver) && !person.keys.is_empty())
            .count();
        let a = &self.approvals;
        for (what, needed) in [
            ("start_routine", a.start_routine),
            ("start_security", a.start_security),
            ("start_emergency", a.start_emergency),
            ("stage", a.stage),
            ("lift", a.lift),
            ("grant", a.grant),
            ("waiver", a.waiver),
        ] {
            if needed == 0 || usize::from(needed) > named {
                return Err(PolicyError::Approvals { what, needed, named });
            }
        }
        Ok(())
    }

    /// How many distinct approvers must sign `act`.
    pub const fn needed(&self, act: &Act) -> u8 {
        match act {
            Act::Start(start) => match start.risk {
                RiskClass::Routine => self.approvals.start_routine,
                RiskClass::Security => self.approvals.start_security,
                RiskClass::Emergency => self.approvals.start_emergency,
            },
            Act::Approve(_) => self.approvals.stage,
            Act::Lift(_) => self.approvals.lift,
            Act::Grant(_) => self.approvals.grant,
            Act::Waive(_) => self.approvals.waiver,
        }
    }

    /// The person whose key this is, if the policy names one with this role.
    pub fn person_with_key(&self, key: &PublicKey, role: Role) -> Option<&PersonId> {
        self.people
            .iter()
            .find(|(_, person)| person.roles.contains(&role) && person.keys.contains(key))
            .map(|(name, _)| name)
    }

    /// The cohort and channel of a device without a grant.
    pub fn default_place(&self, product: &ProductId) -> Option<(&ChannelId, &CohortId)> {
        let product = self.products.get(product)?;
        Some((product.channels.first()?, product.cohorts.last()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(roles: &[Role], key: u8) -> Person {
        Person {
            keys: [PublicKey([key; 32])].into(),
            roles: roles.iter().copied().collect(),
            tokens: BTreeSet::new(),
        }
    }

    fn policy() -> Policy {
        let name = |text: &str| text.parse::<PersonId>().expect("a name of this test");
        Policy {
            people: [
                (name("ada"), person(&[Role::Author], 1)),
                (name("ben"), person(&[Role::Approver], 2)),
                (name("eva"), person(&[Role::Approver, Role::Operator], 3)),
            ]
            .into(),
            ..Policy::new(
                "trial".parse().expect("a name"),
                Approvals { start_routine: 2, ..Approvals::each(1) },
            )
        }
    }

    #[test]
    fn who_builds_does_not_approve() {
        let mut policy = policy();
        assert!(policy.check().is_ok());
        policy
            .people
            .insert("max".parse().expect("a name"), person(&[Role::Author, Role::Approver], 9));
        assert!(matches!(policy.check(), Err(PolicyError::AuthorApproves(_))));
    }

    #[test]
    fn one_key_is_one_person() {
        let mut policy = policy();
        policy.people.insert("max".parse().expect("a name"), person(&[Role::Approver], 2));
        assert!(matches!(policy.check(), Err(PolicyError::SharedKey(..))));
    }

    #[test]
    fn an_act_that_needs_nobody_or_more_people_than_there_are_is_refused() {
        for count in [0, 3] {
            let mut policy = policy();
            policy.approvals.lift = count;
            assert!(matches!(policy.check(), Err(PolicyError::Approvals { what: "lift", .. })));
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let json = serde_json::to_vec(&policy()).expect("json");
        assert_eq!(Policy::from_json(&json).expect("policy"), policy());
    }
}
