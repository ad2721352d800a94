//! The rollout file: how far each started rollout of a product is open now, what is stopped, and
//! which releases are complete. The gatekeeper signs it (as a TUF target of the role `rollouts`), one
//! file per product and hardware model; it never lists devices.
//!
//! The file only narrows: what it may open at most stands in the start and the ladder, which people
//! signed and [`crate::pace`] compares.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    act::SignedAct,
    bucket::{Bucket, Limit},
    group::KnownGroups,
    id::{CohortId, GroupId, ModelId, ProductId, RepositoryId, RolloutId, TenantId},
    time::Moment,
};

/// What the gatekeeper says about one product to the devices of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutFile {
    /// The repository.
    pub repository: RepositoryId,
    /// The product.
    pub product: ProductId,
    /// The hardware model whose devices read it.
    pub model: ModelId,
    /// When it was written.
    pub issued: Moment,
    /// Every letter below this offset had been counted when it was written.
    pub letters_offset: u64,
    /// Rollouts, oldest start first: those in progress and the complete ones a late device needs.
    pub rollouts: Vec<RolloutEntry>,
    /// Numbered stops that no lift has ended, by rising number.
    pub stops: Vec<Stop>,
    /// Signed lifts of stops that devices may have seen, newest last.
    pub lifts: Vec<SignedAct>,
}

/// One rollout in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutEntry {
    /// The rollout.
    pub rollout: RolloutId,
    /// The signed start: product, channel, version, manifest's hash, moment, cohorts.
    pub start: SignedAct,
    /// Signed approvals of stages that ask for one.
    pub approvals: Vec<SignedAct>,
    /// The stages opened so far, in the ladder's order.
    pub stages: Vec<OpenStage>,
    /// Narrower limits by group in every stage, sorted by id: an unlisted group has its stage's limit.
    pub groups: Vec<GroupLimit>,
    /// The groups that the gatekeeper knows: a device with another one waits until it is known. Only
    /// while the rollout is in progress.
    #[serde(default)]
    pub known: KnownGroups,
    /// Exact buckets let in early, sorted; only ever added to.
    pub coverage: Vec<Bucket>,
    /// Set when the rollout is complete in the gatekeeper's eyes; devices check it themselves.
    pub complete: Option<Moment>,
    /// Set when a person ended it for good.
    pub ended: Option<Moment>,
}

/// A stage that is open, and how far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenStage {
    /// Its cohort.
    pub cohort: CohortId,
    /// When it opened.
    pub opened: Moment,
    /// Who lies below may install.
    pub limit: Limit,
    /// When its limit reached the ladder's ceiling.
    pub full: Option<Moment>,
    /// Narrower limits of groups in this stage, sorted by id.
    pub groups: Vec<GroupLimit>,
}

/// A group with a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLimit {
    /// The group.
    pub group: GroupId,
    /// Its limit.
    pub limit: Limit,
}

/// A numbered hold, halt or pause. A device that saw one goes on only with a lift that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Its number: one rising sequence per repository.
    pub number: u64,
    /// Which kind.
    pub kind: StopKind,
    /// What it stops.
    pub scope: Scope,
    /// Since when.
    pub since: Moment,
    /// Why, in a sentence.
    pub reason: String,
}

/// Who stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopKind {
    /// The gate keeps groups back.
    Hold,
    /// The breaker stopped the rollout.
    Halt,
    /// A person paused.
    Pause,
}

/// What is stopped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// One rollout.
    Rollout(RolloutId),
    /// Groups of one rollout.
    Groups(RolloutId, Vec<GroupId>),
    /// One cohort of a product, on every channel.
    Cohort(ProductId, CohortId),
    /// One tenant's devices.
    Tenant(TenantId),
    /// Every rollout of a product.
    Product(ProductId),
    /// Everything in the repository.
    Everything,
}

/// A stop passed on by the API server before the gatekeeper has numbered it. It binds until a rollout
/// file that counts it says more. Which file does is told by its place in the stream and never by a
/// clock: the two hosts have one each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedStop {
    /// Its place in the stream that the gatekeeper reads.
    pub offset: u64,
    /// What it stops.
    pub scope: Scope,
    /// Since when, by the server's clock: for people.
    pub since: Moment,
    /// Why.
    pub reason: String,
}

/// Whom a scope may cover.
#[derive(Clone, Copy, Debug)]
pub struct ScopeOf<'a> {
    /// The rollout in question.
    pub rollout: &'a RolloutId,
    /// Its product.
    pub product: &'a ProductId,
    /// The device's cohort.
    pub cohort: &'a CohortId,
    /// The device's tenant.
    pub tenant: &'a TenantId,
    /// The device's groups.
    pub groups: &'a [GroupId],
}

impl StopKind {
    /// The kind's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Halt => "halt",
            Self::Pause => "pause",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rollout(rollout) => write!(f, "rollout {rollout}"),
            Self::Groups(rollout, groups) => write!(f, "{} groups of {rollout}", groups.len()),
            Self::Cohort(product, cohort) => write!(f, "cohort `{cohort}` of `{product}`"),
            Self::Tenant(tenant) => write!(f, "tenant `{tenant}`"),
            Self::Product(product) => write!(f, "product `{product}`"),
            Self::Everything => f.write_str("everything"),
        }
    }
}

impl Scope {
    /// Whether it covers a device in a rollout.
    pub fn covers(&self, device: &ScopeOf<'_>) -> bool {
        match self {
            Self::Rollout(rollout) => rollout == device.rollout,
            Self::Groups(rollout, groups) => {
                rollout == device.rollout
                    && groups.iter().any(|group| device.groups.contains(group))
            }
            Self::Cohort(product, cohort) => product == device.product && cohort == device.cohort,
            Self::Tenant(tenant) => tenant == device.tenant,
            Self::Product(product) => product == device.product,
            Self::Everything => true,
        }
    }
}

impl RolloutFile {
    /// The target path of the binary file.
    pub fn path(product: &ProductId, model: &ModelId) -> String {
        format!("rollouts/{product}/{model}.bin")
    }

    /// The target path of the same file for people.
    pub fn json_path(product: &ProductId, model: &ModelId) -> String {
        format!("rollouts/{product}/{model}.json")
    }
}

impl RolloutEntry {
    /// The limit of a device with these groups in the stage of `cohort`: the smallest of its
    /// stage's and its groups'. `None` while the stage is not open.
    pub fn limit_for(&self, cohort: &CohortId, groups: &[GroupId]) -> Option<Limit> {
        let stage = self.stages.iter().find(|stage| stage.cohort == *cohort)?;
        let listed = stage.groups.iter().chain(&self.groups);
        let narrower = listed.filter(|entry| groups.contains(&entry.group));
        Some(narrower.map(|entry| entry.limit).fold(stage.limit, Limit::min))
    }
}
