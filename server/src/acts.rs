//! Acts of people, made from what an operator types: a start, an approval, a lift, a waiver, a grant.
//!
//! Each is checked against the policy, and against the manifest where it is at hand, so that nobody
//! is asked to sign what would be refused. Signing is [`SignedAct::sign`]'s; nothing here counts as
//! permission.

use std::collections::BTreeSet;

use lockgate_shared::{
    act::{
        Act, ActError, Approval, CohortSize, Grant, Lift, RiskClass, SignedAct, Start, WaivedRule,
        Waiver,
    },
    id::{ChannelId, CohortId, DeviceId, Digest, PersonId, ProductId, RolloutId, TenantId},
    manifest::Manifest,
    policy::{Policy, Product},
    time::{Moment, Seconds},
    version::Version,
};
use thiserror::Error;

/// A release's manifest as the maker of an act knows it.
#[derive(Clone, Copy, Debug)]
pub enum Release<'a> {
    /// Its text was read.
    Known {
        /// The manifest.
        manifest: &'a Manifest,
        /// SHA-256 of its text.
        digest: Digest,
    },
    /// Only its digest is known.
    Digest(Digest),
}

/// What starts a rollout.
#[derive(Clone, Debug)]
pub struct StartOptions<'a> {
    /// The product.
    pub product: ProductId,
    /// The version.
    pub version: Version,
    /// The channel.
    pub channel: ChannelId,
    /// The release.
    pub release: Release<'a>,
    /// The moment from which floors count.
    pub moment: Moment,
    /// How many devices each cohort has, in any order.
    pub cohorts: Vec<CohortSize>,
    /// Who answers for it.
    pub owner: PersonId,
    /// How urgent it is.
    pub risk: RiskClass,
    /// SHA-256 of the plan that approvers were shown.
    pub plan: Digest,
}

/// What lets one device be earlier or elsewhere.
#[derive(Clone, Debug)]
pub struct GrantOptions {
    /// The device.
    pub device: DeviceId,
    /// Its tenant.
    pub tenant: TenantId,
    /// The product.
    pub product: ProductId,
    /// The channel.
    pub channel: ChannelId,
    /// The cohort.
    pub cohort: CohortId,
    /// When it is given.
    pub issued: Moment,
    /// For how long.
    pub life: Seconds,
    /// Why.
    pub reason: String,
}

/// Why an act was not made.
#[derive(Debug, Error)]
pub enum ActsError {
    /// The act itself is out of bounds.
    #[error(transparent)]
    Act(#[from] ActError),
    /// A name that the policy does not know.
    #[error("the policy names no {what} `{name}`")]
    Unknown {
        /// Of which kind.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Cohorts missing, twice or too many.
    #[error(
        "the start must give the number of devices of {expected}, each once\nhint: pass `--cohort NAME=DEVICES` for each"
    )]
    Cohorts {
        /// The product's cohorts.
        expected: String,
    },
    /// The manifest is another release's.
    #[error("the manifest is of `{found}`, the act of `{expected}`")]
    OtherRelease {
        /// In the manifest.
        found: String,
        /// Asked for.
        expected: String,
    },
    /// The ladder has no such cohort.
    #[error("the release's ladder has no stage `{0}`")]
    NoStage(CohortId),
    /// A stage that opens without people.
    #[error("stage `{0}` asks for no approval: it opens on evidence alone")]
    NoApproval(CohortId),
    /// A stage can only be found with the manifest.
    #[error(
        "the stage of a cohort stands in the manifest\nhint: pass the manifest's file, not its digest"
    )]
    NeedsManifest,
}

/// The act that begins a rollout.
pub fn start(policy: &Policy, options: StartOptions<'_>) -> Result<Act, ActsError> {
    let product = product(policy, &options.product)?;
    require_channel(product, &options.channel)?;
    if !policy.people.contains_key(&options.owner) {
        return Err(unknown("person", &options.owner));
    }
    if let Release::Known { manifest, .. } = options.release {
        let (found, expected) = (
            format!("{} {}", manifest.product, manifest.version),
            format!("{} {}", options.product, options.version),
        );
        if found != expected {
            return Err(ActsError::OtherRelease { found, expected });
        }
        for stage in &manifest.ladder.stages {
            if !product.cohorts.contains(&stage.cohort) {
                return Err(unknown("cohort", &stage.cohort));
            }
        }
    }
    Ok(Act::Start(Start {
        repository: policy.repository.clone(),
        product: options.product,
        channel: options.channel,
        version: options.version,
        manifest: options.release.digest(),
        moment: options.moment,
        cohorts: ordered(product, options.cohorts)?,
        owner: options.owner,
        risk: options.risk,
        plan: options.plan,
    }))
}

/// The consent to one stage of a rollout.
pub fn approve(
    policy: &Policy,
    release: Release<'_>,
    channel: &ChannelId,
    cohort: CohortId,
) -> Result<Act, ActsError> {
    use lockgate_shared::manifest::StageApproval;
    let Release::Known { manifest, digest } = release else {
        return Err(ActsError::NeedsManifest);
    };
    require_channel(product(policy, &manifest.product)?, channel)?;
    let Some((index, stage)) = manifest.ladder.stage_of(&cohort) else {
        return Err(ActsError::NoStage(cohort));
    };
    match stage.approval {
        StageApproval::None => return Err(ActsError::NoApproval(cohort)),
        StageApproval::Required => {}
    }
    Ok(Act::Approve(Approval {
        repository: policy.repository.clone(),
        rollout: RolloutId::of(&digest, channel),
        manifest: digest,
        // A ladder has at most sixteen stages.
        stage: u16::try_from(index).unwrap_or(u16::MAX),
        cohort,
    }))
}

/// The end of numbered stops.
pub fn lift(policy: &Policy, numbers: BTreeSet<u64>, reason: String) -> Act {
    Act::Lift(Lift { repository: policy.repository.clone(), numbers, reason })
}

/// A rule set aside for one rollout.
pub fn waive(
    policy: &Policy,
    rollout: RolloutId,
    rule: WaivedRule,
    reason: String,
    expires: Moment,
) -> Act {
    Act::Waive(Waiver { repository: policy.repository.clone(), rollout, rule, reason, expires })
}

/// Permission for one device.
pub fn grant(policy: &Policy, options: GrantOptions) -> Result<Act, ActsError> {
    let product = product(policy, &options.product)?;
    require_channel(product, &options.channel)?;
    if !product.cohorts.contains(&options.cohort) {
        return Err(unknown("cohort", &options.cohort));
    }
    if !policy.tenants.contains_key(&options.tenant) {
        return Err(unknown("tenant", &options.tenant));
    }
    Ok(Act::Grant(Grant {
        repository: policy.repository.clone(),
        device: options.device,
        tenant: options.tenant,
        product: options.product,
        channel: options.channel,
        cohort: options.cohort,
        issued: options.issued,
        expires: options.issued.plus(options.life),
        reason: options.reason,
    }))
}

/// The act as a file's content, not yet signed by anybody.
pub fn to_file(act: &Act) -> Result<SignedAct, ActsError> {
    Ok(SignedAct::unsigned(act)?)
}

impl Release<'_> {
    /// SHA-256 of the manifest's text.
    pub const fn digest(&self) -> Digest {
        match self {
            Self::Known { digest, .. } | Self::Digest(digest) => *digest,
        }
    }
}

fn product<'a>(policy: &'a Policy, name: &ProductId) -> Result<&'a Product, ActsError> {
    policy.products.get(name).ok_or_else(|| unknown("product", name))
}

fn require_channel(product: &Product, channel: &ChannelId) -> Result<(), ActsError> {
    if product.channels.contains(channel) { Ok(()) } else { Err(unknown("channel", channel)) }
}

/// The cohorts in the product's order, each once.
fn ordered(product: &Product, given: Vec<CohortSize>) -> Result<Vec<CohortSize>, ActsError> {
    let incomplete = || {
        let names: Vec<String> = product.cohorts.iter().map(|name| format!("`{name}`")).collect();
        ActsError::Cohorts { expected: names.join(", ") }
    };
    if given.len() != product.cohorts.len() {
        return Err(incomplete());
    }
    let size = |cohort: &CohortId| given.iter().find(|size| size.cohort == *cohort).cloned();
    product.cohorts.iter().map(|cohort| size(cohort).ok_or_else(incomplete)).collect()
}

fn unknown(what: &'static str, name: &impl ToString) -> ActsError {
    ActsError::Unknown { what, name: name.to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ceremony::plan::{Plan, tests::PLAN};

    #[test]
    fn a_start_lists_the_cohorts_in_the_policys_order_whatever_was_typed() {
        let policy = policy();
        let typed = [("general", 900), ("dogfood", 3), ("early", 40)];
        let Act::Start(start) = start(&policy, options(&typed)).expect("made") else {
            panic!("a start");
        };
        let cohorts: Vec<String> =
            start.cohorts.iter().map(|size| format!("{}={}", size.cohort, size.devices)).collect();
        assert_eq!(cohorts, ["dogfood=3", "early=40", "general=900"]);
    }

    #[test]
    fn a_start_with_missing_repeated_or_unknown_cohorts_is_refused() {
        let policy = policy();
        for typed in [
            &[("dogfood", 3), ("early", 40)][..],
            &[("dogfood", 3), ("dogfood", 3), ("early", 40)],
            &[("dogfood", 3), ("early", 40), ("others", 9)],
        ] {
            let refused = start(&policy, options(typed));
            assert!(matches!(refused, Err(ActsError::Cohorts { .. })), "{typed:?}");
        }
        let mut stranger = options(&[("dogfood", 3), ("early", 40), ("general", 9)]);
        stranger.owner = "zoe".parse().expect("a name");
        assert!(matches!(start(&policy, stranger), Err(ActsError::Unknown { what: "person", .. })));
    }

    #[test]
    fn a_grant_names_what_the_policy_names() {
        let policy = policy();
        let options = GrantOptions {
            device: DeviceId([7; 32]),
            tenant: "acme".parse().expect("a name"),
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            cohort: "early".parse().expect("a name"),
            issued: Moment(1_795_000_000),
            life: Seconds(60),
            reason: "tester".into(),
        };
        assert!(grant(&policy, options.clone()).is_ok());
        let other = GrantOptions { tenant: "other".parse().expect("a name"), ..options };
        assert!(matches!(grant(&policy, other), Err(ActsError::Unknown { what: "tenant", .. })));
    }

    fn policy() -> Policy {
        let plan = Plan::from_toml(PLAN).expect("a plan");
        let key = |n: u8| lockgate_shared::id::PublicKey([n; 32]);
        let people = (1..).zip(plan.people.keys()).map(|(n, name)| (name.clone(), [key(n)].into()));
        plan.policy(&people.collect(), &BTreeMap::new()).expect("a policy")
    }

    fn options(cohorts: &[(&str, u32)]) -> StartOptions<'static> {
        StartOptions {
            product: "app".parse().expect("a name"),
            version: "1.1.0".parse().expect("a version"),
            channel: "stable".parse().expect("a name"),
            release: Release::Digest(Digest::of(b"manifest")),
            moment: Moment(1_795_000_000),
            cohorts: cohorts
                .iter()
                .map(|(name, devices)| CohortSize {
                    cohort: name.parse().expect("a name"),
                    devices: *devices,
                })
                .collect(),
            owner: "eva".parse().expect("a name"),
            risk: RiskClass::Routine,
            plan: Digest::of(b"plan"),
        }
    }
}
