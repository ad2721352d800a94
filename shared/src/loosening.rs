//! The end of what a tenant's devices were told, signed by the tenant's own key. A device whose tenant
//! has such a key keeps every pin, window and freeze it was ever told until one of these names it.
//!
//! It is its exact JSON text and one signature: what was verified is what is used. It ends only what
//! was told before the moment it names, so that an old one sent again loosens nothing new.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    id::{DeviceId, ProductId, RepositoryId, Signature, TenantId},
    policy::Policy,
    sign::{self, Domain},
    time::Moment,
};

/// The longest text: names, a reason, and room.
pub const LOOSENING_BYTES: usize = 2048;

/// What ends, for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loosening {
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// The tenant.
    pub tenant: TenantId,
    /// The device; none for all of the tenant's.
    pub device: Option<DeviceId>,
    /// What ends.
    pub what: Loosened,
    /// It ends what devices were told before this moment.
    pub before: Moment,
    /// Why.
    pub reason: String,
}

/// A kind of restriction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loosened {
    /// The pins of a product.
    Pin(ProductId),
    /// Maintenance windows.
    Windows,
    /// Freezes.
    Freezes,
}

/// A loosening's text and the signature over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedLoosening {
    /// The loosening as JSON, byte for byte as it was signed.
    pub text: String,
    /// The tenant's signature.
    pub signature: Signature,
}

/// Why a loosening does not count.
#[derive(Debug, Error)]
pub enum LooseningError {
    /// Longer than [`LOOSENING_BYTES`].
    #[error("the loosening has more than {LOOSENING_BYTES} bytes")]
    TooLarge,
    /// Not JSON of a loosening.
    #[error("the loosening cannot be read")]
    Json(#[from] serde_json::Error),
    /// For another repository.
    #[error("the loosening belongs to repository `{0}`")]
    Repository(RepositoryId),
    /// The policy names no key of this tenant.
    #[error(
        "the policy names no key of tenant `{0}`\nhint: without one, restrictions are cleared by the server: `lockgate pin clear`"
    )]
    NoKey(TenantId),
    /// Another key signed it, or another text.
    #[error("it is not signed by the key of tenant `{0}` that the policy names")]
    Signature(TenantId),
}

impl SignedLoosening {
    /// The text to be signed, for [`Domain::LooseningV1`].
    pub fn text_of(loosening: &Loosening) -> Result<String, LooseningError> {
        let text = serde_json::to_string_pretty(loosening)?;
        if text.len() > LOOSENING_BYTES { Err(LooseningError::TooLarge) } else { Ok(text) }
    }

    /// Signs a loosening.
    pub fn make(loosening: &Loosening, key: &SigningKey) -> Result<Self, LooseningError> {
        let text = Self::text_of(loosening)?;
        let signature = sign::sign(key, Domain::LooseningV1, text.as_bytes());
        Ok(Self { text, signature })
    }

    /// What it says, unverified: to show it, never to act on it.
    pub fn unverified(&self) -> Result<Loosening, LooseningError> {
        if self.text.len() > LOOSENING_BYTES {
            return Err(LooseningError::TooLarge);
        }
        Ok(serde_json::from_str(&self.text)?)
    }

    /// What it says, if the key that the policy names for its tenant signed it.
    pub fn verify(&self, policy: &Policy) -> Result<Loosening, LooseningError> {
        let loosening = self.unverified()?;
        if loosening.repository != policy.repository {
            return Err(LooseningError::Repository(loosening.repository));
        }
        let tenant = policy.tenants.get(&loosening.tenant);
        let Some(key) = tenant.and_then(|tenant| tenant.tenant_key) else {
            return Err(LooseningError::NoKey(loosening.tenant));
        };
        if sign::verify(&key, Domain::LooseningV1, self.text.as_bytes(), &self.signature) {
            Ok(loosening)
        } else {
            Err(LooseningError::Signature(loosening.tenant))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{act::tests as acts, policy::Tenant};

    #[test]
    fn only_the_tenants_own_key_loosens() {
        let mut policy = acts::policy(1);
        let loosening = Loosening {
            repository: policy.repository.clone(),
            tenant: "acme".parse().expect("a name"),
            device: None,
            what: Loosened::Windows,
            before: Moment(9),
            reason: "the fair is over".into(),
        };
        let signed = SignedLoosening::make(&loosening, &acts::key(7)).expect("signed");
        assert!(matches!(signed.verify(&policy), Err(LooseningError::NoKey(_))));
        let mut tenant = Tenant { enrolment_keys: [].into(), tenant_key: None };
        for (key, holds) in [(None, false), (Some(8), false), (Some(7), true)] {
            tenant.tenant_key = key.map(|key| sign::public(&acts::key(key)));
            policy.tenants.insert(loosening.tenant.clone(), tenant.clone());
            assert_eq!(signed.verify(&policy).is_ok(), holds, "{key:?}");
        }
        let mut changed = signed.clone();
        changed.text = changed.text.replace("windows", "freezes");
        assert!(matches!(changed.verify(&policy), Err(LooseningError::Signature(_))));
        policy.repository = "other".parse().expect("a name");
        assert!(matches!(signed.verify(&policy), Err(LooseningError::Repository(_))));
    }
}
