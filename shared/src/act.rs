//! What people sign: the start of a rollout, the approval of a stage, a lift, a waiver, a grant.
//!
//! A signed act is its exact JSON text and signatures over it. What was verified is what is used: the
//! text is parsed once, after its signatures have been counted, and [`VerifiedAct`] can be made in no
//! other way.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;

use crate::{
    gather::gather,
    id::{
        ChannelId, CohortId, DeviceId, Digest, GroupId, PersonId, ProductId, PublicKey,
        RepositoryId, RolloutId, Signature, TenantId,
    },
    json, limits,
    policy::{Policy, Role},
    sign::{self, Domain},
    time::Moment,
    version::Version,
};

/// An act of people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum Act {
    /// A rollout begins.
    Start(Start),
    /// A stage that asks for approval may open.
    Approve(Approval),
    /// Numbered holds, halts or pauses end.
    Lift(Lift),
    /// A rule is set aside, with a reason and an end.
    Waive(Waiver),
    /// A device may be in an earlier cohort or on another channel.
    Grant(Grant),
}

/// By hand: what serde derives for a tagged enum is three times as much code, and the agent is small.
impl<'de> Deserialize<'de> for Act {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (act, fields) = json::Tagged::take(deserializer, "act")?;
        let read = match act.as_str() {
            "start" => fields.read().map(Self::Start),
            "approve" => fields.read().map(Self::Approve),
            "lift" => fields.read().map(Self::Lift),
            "waive" => fields.read().map(Self::Waive),
            "grant" => fields.read().map(Self::Grant),
            _ => Err(de::Error::unknown_variant(&act, &ACTS)),
        };
        read.map_err(de::Error::custom)
    }
}

const ACTS: [&str; 5] = ["start", "approve", "lift", "waive", "grant"];

/// The signed act that begins a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// The product.
    pub product: ProductId,
    /// The channel.
    pub channel: ChannelId,
    /// The release's version.
    pub version: Version,
    /// SHA-256 of the release manifest's bytes.
    pub manifest: Digest,
    /// The moment from which floors count.
    pub moment: Moment,
    /// How many devices each cohort has, in the ladder's order.
    pub cohorts: Vec<CohortSize>,
    /// The person who answers for the rollout.
    pub owner: PersonId,
    /// How urgent and how risky it is.
    pub risk: RiskClass,
    /// SHA-256 of the plan that was shown to the approvers.
    pub plan: Digest,
}

/// A cohort and the number of its devices when the rollout started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CohortSize {
    /// The cohort.
    pub cohort: CohortId,
    /// Its devices.
    pub devices: u32,
}

/// A rollout's risk class: it decides how many approvers a start needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RiskClass {
    /// An ordinary release.
    Routine,
    /// A fix for a vulnerability.
    Security,
    /// A fix that cannot wait.
    Emergency,
}

/// Consent to the opening of one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// The rollout.
    pub rollout: RolloutId,
    /// SHA-256 of the release manifest's bytes.
    pub manifest: Digest,
    /// The stage's index in the ladder, from 0.
    pub stage: u16,
    /// The cohort of that stage, for the reader's eye.
    pub cohort: CohortId,
}

/// The end of numbered stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lift {
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// The numbers of the stops that end.
    pub numbers: BTreeSet<u64>,
    /// Why it is safe to go on.
    pub reason: String,
}

/// A rule set aside for one rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiver {
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// The rollout.
    pub rollout: RolloutId,
    /// The rule.
    pub rule: WaivedRule,
    /// Why.
    pub reason: String,
    /// When it ends.
    pub expires: Moment,
}

/// What can be waived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaivedRule {
    /// A group may widen before its coverage devices are healthy.
    Coverage(GroupId),
    /// A stage may open with fewer devices than its gate asks for.
    MinimumDevices(u16),
}

/// Permission for one device to be in an earlier cohort or on another channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// The device.
    pub device: DeviceId,
    /// Its tenant.
    pub tenant: TenantId,
    /// For which product.
    pub product: ProductId,
    /// On which channel.
    pub channel: ChannelId,
    /// In which cohort.
    pub cohort: CohortId,
    /// When it was given: it is good for rollouts that the device first sees after it.
    pub issued: Moment,
    /// When it ends.
    pub expires: Moment,
    /// Why.
    pub reason: String,
}

/// An act's exact text and the signatures over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAct {
    /// The act as JSON, byte for byte as it was signed.
    pub text: String,
    /// The signatures.
    pub signatures: Vec<ActSignature>,
}

/// One person's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActSignature {
    /// The person's key.
    pub key: PublicKey,
    /// The signature over the text.
    pub signature: Signature,
}

/// An act whose signatures were counted against a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedAct {
    act: Act,
    people: BTreeSet<PersonId>,
}

/// Why an act does not count.
#[derive(Debug, Error)]
pub enum ActError {
    /// Larger than [`limits::ACT_BYTES`] or with too many signatures.
    #[error("the act is larger than allowed ({what})")]
    TooLarge {
        /// What is too large.
        what: &'static str,
    },
    /// Not JSON of an act.
    #[error("the act cannot be read")]
    Json(#[from] serde_json::Error),
    /// Made for another repository.
    #[error("the act belongs to repository `{found}`, not to `{expected}`")]
    Repository {
        /// In the act.
        found: RepositoryId,
        /// In the policy.
        expected: RepositoryId,
    },
    /// Not enough people signed.
    #[error(
        "the act has {valid} of {needed} approvals it needs\nhint: have further approvers named in policy.json sign the same file with `lockgate act sign`"
    )]
    Threshold {
        /// Distinct approvers whose signature holds.
        valid: usize,
        /// How many the policy asks for.
        needed: u8,
    },
    /// A field is out of bounds.
    #[error("{0}")]
    Field(String),
}

impl Act {
    /// The repository it belongs to.
    pub const fn repository(&self) -> &RepositoryId {
        match self {
            Self::Start(act) => &act.repository,
            Self::Approve(act) => &act.repository,
            Self::Lift(act) => &act.repository,
            Self::Waive(act) => &act.repository,
            Self::Grant(act) => &act.repository,
        }
    }

    fn check(&self) -> Result<(), ActError> {
        let bounded = |what: &str, text: &str| {
            if text.trim().is_empty() || text.len() > 500 {
                Err(ActError::Field(format!("the act's {what} must have 1 to 500 characters")))
            } else {
                Ok(())
            }
        };
        match self {
            Self::Start(start) if start.cohorts.len() > limits::STAGES => {
                Err(ActError::TooLarge { what: "cohorts" })
            }
            Self::Start(_) | Self::Approve(_) => Ok(()),
            Self::Lift(lift) if lift.numbers.is_empty() || lift.numbers.len() > 64 => {
                Err(ActError::Field("a lift names 1 to 64 numbers".into()))
            }
            Self::Lift(lift) => bounded("reason", &lift.reason),
            Self::Waive(waiver) => bounded("reason", &waiver.reason),
            Self::Grant(grant) => bounded("reason", &grant.reason),
        }
    }
}

impl Start {
    /// The rollout that it begins.
    pub fn rollout(&self) -> RolloutId {
        RolloutId::of(&self.manifest, &self.channel)
    }
}

impl SignedAct {
    /// The act as text, not yet signed by anybody.
    pub fn unsigned(act: &Act) -> Result<Self, ActError> {
        act.check()?;
        Ok(Self { text: serde_json::to_string_pretty(act)?, signatures: Vec::new() })
    }

    /// Adds one person's signature; a second one with the same key replaces the first.
    pub fn sign(&mut self, key: &SigningKey) {
        let signature = sign::sign(key, Domain::ActV1, self.text.as_bytes());
        self.add(ActSignature { key: sign::public(key), signature });
    }

    /// Adds a signature that was made elsewhere, for [`Domain::ActV1`] over the text; it replaces an
    /// earlier one by the same key. Whether it holds is [`SignedAct::verify`]'s to say.
    pub fn add(&mut self, signature: ActSignature) {
        self.signatures.retain(|known| known.key != signature.key);
        self.signatures.push(signature);
    }

    /// The text read without counting signatures: to show it to people, never to act on it.
    pub fn unverified(&self) -> Result<Act, ActError> {
        self.bounded()?;
        let act: Act = json::read(self.text.as_bytes())?;
        act.check()?;
        Ok(act)
    }

    /// Counts the signatures against the policy, each approver once.
    pub fn verify(&self, policy: &Policy) -> Result<VerifiedAct, ActError> {
        self.bounded()?;
        let people: BTreeSet<PersonId> = gather(self.signatures.iter().filter_map(|signature| {
            let person = policy.person_with_key(&signature.key, Role::Approver)?;
            let bytes = self.text.as_bytes();
            sign::verify(&signature.key, Domain::ActV1, bytes, &signature.signature)
                .then(|| person.clone())
        }));
        let act = self.unverified()?;
        if act.repository() != &policy.repository {
            return Err(ActError::Repository {
                found: act.repository().clone(),
                expected: policy.repository.clone(),
            });
        }
        let needed = policy.needed(&act);
        if people.len() < usize::from(needed) {
            return Err(ActError::Threshold { valid: people.len(), needed });
        }
        Ok(VerifiedAct { act, people })
    }

    /// The digest of the exact text: names the act in audit logs and answers.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }

    const fn bounded(&self) -> Result<(), ActError> {
        if self.text.len() > limits::ACT_BYTES {
            return Err(ActError::TooLarge { what: "text" });
        }
        if self.signatures.len() > limits::ACT_SIGNATURES {
            return Err(ActError::TooLarge { what: "signatures" });
        }
        Ok(())
    }
}

impl VerifiedAct {
    /// The act.
    pub const fn act(&self) -> &Act {
        &self.act
    }

    /// Who signed it, by the policy it was verified against.
    pub const fn people(&self) -> &BTreeSet<PersonId> {
        &self.people
    }
}

#[cfg(test)]
pub(crate) mod tests {

    use super::*;
    use crate::policy::{Approvals, Person};

    #[test]
    fn two_approvals_mean_two_people_and_not_two_signatures() {
        let policy = policy(2);
        let mut signed = SignedAct::unsigned(&lift()).expect("an act");
        signed.sign(&key(1));
        signed.sign(&key(1));
        assert!(matches!(signed.verify(&policy), Err(ActError::Threshold { valid: 1, .. })));
        let copy = signed.signatures[0].clone();
        signed.signatures.push(copy);
        assert!(matches!(signed.verify(&policy), Err(ActError::Threshold { valid: 1, .. })));
        signed.sign(&key(2));
        assert_eq!(signed.verify(&policy).expect("enough").people().len(), 2);
    }

    #[test]
    fn a_person_without_the_role_or_the_policy_does_not_count() {
        let policy = policy(1);
        for stranger in [key(3), key(9)] {
            let mut signed = SignedAct::unsigned(&lift()).expect("an act");
            signed.sign(&stranger);
            assert!(matches!(signed.verify(&policy), Err(ActError::Threshold { valid: 0, .. })));
        }
    }

    #[test]
    fn a_changed_text_or_another_repository_is_refused() {
        let policy = policy(1);
        let mut signed = SignedAct::unsigned(&lift()).expect("an act");
        signed.sign(&key(1));
        let mut changed = signed.clone();
        changed.text = changed.text.replace('7', "8");
        assert!(matches!(changed.verify(&policy), Err(ActError::Threshold { valid: 0, .. })));
        let mut elsewhere = policy;
        elsewhere.repository = "other".parse().expect("a name");
        assert!(matches!(signed.verify(&elsewhere), Err(ActError::Repository { .. })));
    }

    fn lift() -> Act {
        Act::Lift(Lift {
            repository: "trial".parse().expect("a name"),
            numbers: [7].into(),
            reason: "checked by hand".into(),
        })
    }

    pub(crate) fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    /// `ben` (key 1) and `eva` (key 2) approve, `ada` (key 3) authors.
    pub(crate) fn policy(lifts: u8) -> Policy {
        let person = |seed: u8, role: Role| Person {
            keys: [sign::public(&key(seed))].into(),
            roles: [role].into(),
            tokens: BTreeSet::new(),
        };
        Policy {
            people: [
                ("ben".parse().expect("a name"), person(1, Role::Approver)),
                ("eva".parse().expect("a name"), person(2, Role::Approver)),
                ("ada".parse().expect("a name"), person(3, Role::Author)),
            ]
            .into(),
            ..Policy::new(
                "trial".parse().expect("a name"),
                Approvals { lift: lifts, ..Approvals::each(1) },
            )
        }
    }
}
