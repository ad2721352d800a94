//! Enrolment: a device brings its own public key and a token into a tenant. Frozen, version 1.
//!
//! The token is signed by the tenant's enrolment key, which the server does not hold. It is good for
//! a count of devices until a moment, and brings no trust in anything: that comes with the root file
//! of the installer or the image.

use std::str::FromStr;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    codec::{self, CodecError},
    sealed::{Format, Kind, Sealed},
};
use crate::{
    facts::Facts,
    id::{DeviceId, PublicKey, RepositoryId, Signature, TenantId, TokenId},
    policy::Policy,
    sign::{self, Domain},
    time::{Moment, Seconds},
};

/// What stands before a token's hexadecimal digits, so that secret scanners know one.
const TOKEN_PREFIX: &str = "lgenrol1_";
/// A token's bytes: two names, a number, two moments, a signature.
const TOKEN_BYTES: usize = 512;

/// Permission to enrol devices in a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentToken {
    /// The repository.
    pub repository: RepositoryId,
    /// The tenant.
    pub tenant: TenantId,
    /// Drawn at random when it was made.
    pub id: TokenId,
    /// When it was made.
    pub issued: Moment,
    /// When it ends.
    pub expires: Moment,
    /// For how many devices.
    pub uses: u32,
}

/// A token with its signature. As text: `lgenrol1_` and hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedToken {
    /// The token's bytes as signed.
    pub bytes: Vec<u8>,
    /// The enrolment key.
    pub key: PublicKey,
    /// Its signature.
    pub signature: Signature,
}

/// A request to enrol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The token.
    pub token: SignedToken,
    /// The device's public key; its id follows from it.
    pub key: PublicKey,
    /// By the device's clock.
    pub sent: Moment,
    /// What it is.
    pub facts: Facts,
}

/// The server's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentAnswer {
    /// The repository.
    pub repository: RepositoryId,
    /// The tenant.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// The enrolment's offset in the server's journal.
    pub offset: u64,
    /// When to check in first.
    pub next_poll: Seconds,
}

/// Why a token brings nobody in.
#[derive(Debug, Error)]
pub enum TokenError {
    /// Not a token's text or bytes.
    #[error(
        "this is not an enrolment token\nhint: copy the whole text, from `{TOKEN_PREFIX}` to its last digit"
    )]
    Malformed,
    /// For another repository.
    #[error("the enrolment token is for repository `{0}`")]
    Repository(RepositoryId),
    /// A tenant that the policy does not name.
    #[error("the enrolment token is for tenant `{0}`, which the policy does not name")]
    Tenant(TenantId),
    /// No enrolment key of the tenant signed it.
    #[error(
        "no enrolment key of tenant `{0}` signed this token\nhint: have a new one made with `lockgate token enrol`"
    )]
    Signature(TenantId),
    /// It has ended, or has not begun.
    #[error(
        "the enrolment token is good from {issued} until {expires}\nhint: have a new one made, or set the clock right"
    )]
    Expired {
        /// Begins.
        issued: Moment,
        /// Ends.
        expires: Moment,
    },
}

impl SignedToken {
    /// Makes a token.
    pub fn make(token: &EnrolmentToken, key: &SigningKey) -> Result<Self, CodecError> {
        let bytes = Self::text_of(token)?;
        let signature = sign::sign(key, Domain::TokenV1, &bytes);
        Ok(Self { bytes, key: sign::public(key), signature })
    }

    /// The bytes of a token, to be signed for [`Domain::TokenV1`] by a key that lies elsewhere.
    pub fn text_of(token: &EnrolmentToken) -> Result<Vec<u8>, CodecError> {
        codec::encode(token, TOKEN_BYTES)
    }

    /// What it says, unverified.
    pub fn unverified(&self) -> Result<EnrolmentToken, TokenError> {
        codec::decode(&self.bytes, TOKEN_BYTES).map_err(|_| TokenError::Malformed)
    }

    /// What it says, if an enrolment key of its tenant signed it and it is good at `now`. How often
    /// it was used is the server's to know.
    pub fn verify(&self, policy: &Policy, now: Moment) -> Result<EnrolmentToken, TokenError> {
        let token = self.unverified()?;
        if token.repository != policy.repository {
            return Err(TokenError::Repository(token.repository));
        }
        let Some(tenant) = policy.tenants.get(&token.tenant) else {
            return Err(TokenError::Tenant(token.tenant));
        };
        let signed = tenant.enrolment_keys.contains(&self.key)
            && sign::verify(&self.key, Domain::TokenV1, &self.bytes, &self.signature);
        if !signed {
            return Err(TokenError::Signature(token.tenant));
        }
        if now < token.issued || token.expires <= now {
            return Err(TokenError::Expired { issued: token.issued, expires: token.expires });
        }
        Ok(token)
    }

    /// The text that people pass on.
    pub fn to_text(&self) -> Result<String, CodecError> {
        Ok(format!("{TOKEN_PREFIX}{}", hex::encode(codec::encode(self, 2 * TOKEN_BYTES)?)))
    }
}

impl FromStr for SignedToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text.trim().strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Malformed)?;
        let bytes = hex::decode(digits).map_err(|_| TokenError::Malformed)?;
        codec::decode(&bytes, 2 * TOKEN_BYTES).map_err(|_| TokenError::Malformed)
    }
}

impl Enrolment {
    /// Seals the request with the device's key.
    pub fn seal(&self, format: Format, key: &SigningKey) -> Result<Sealed, CodecError> {
        Sealed::seal(self, Kind::Enrolment, format, key)
    }

    /// Reads a sealed request and verifies it with the key that it brings: so its sender holds it.
    pub fn open(sealed: &Sealed) -> Result<Self, CodecError> {
        let claimed: Self = sealed.decode_unverified()?;
        let enrolment: Self = sealed.open(Kind::Enrolment, &claimed.key)?;
        if !enrolment.facts.well_formed() {
            return Err(CodecError::Field("a fact is too long or not printable"));
        }
        Ok(enrolment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        act::tests::{key, policy},
        policy::Tenant,
    };

    #[test]
    fn a_token_counts_while_it_lasts_if_an_enrolment_key_of_its_own_tenant_signed_it() {
        let mut policy = policy(1);
        for (tenant, seed) in [("acme", ACME), ("globex", GLOBEX)] {
            let enrolment_keys = [sign::public(&key(seed))].into();
            let tenant = tenant.parse().expect("a name");
            policy.tenants.insert(tenant, Tenant { enrolment_keys, tenant_key: None });
        }
        let counts = |token: &SignedToken, at| token.verify(&policy, Moment(at)).is_ok();
        let good = token(&|_| {}, ACME);
        for (at, good_then) in [(99, false), (100, true), (199, true), (200, false)] {
            assert_eq!(counts(&good, at), good_then, "at {at}");
        }
        let foreign = token(&|token| token.repository = "other".parse().expect("a name"), ACME);
        let strange = token(&|token| token.tenant = "initech".parse().expect("a name"), ACME);
        let mut changed = good.clone();
        changed.bytes = token(&|token| token.uses = 1_000_000, ACME).bytes;
        for bad in [foreign, strange, changed, token(&|_| {}, GLOBEX)] {
            assert!(!counts(&bad, 150), "{:?}", bad.unverified());
        }
        // Whose key it is said to be makes it nobody's who did not sign.
        let named = SignedToken { key: good.key, ..token(&|_| {}, GLOBEX) };
        assert!(!counts(&named, 150));
    }

    const ACME: u8 = 31;
    const GLOBEX: u8 = 33;

    /// Of the tenant `acme`, from 100 to 200.
    fn token(change: &dyn Fn(&mut EnrolmentToken), signer: u8) -> SignedToken {
        let mut token = EnrolmentToken {
            repository: "trial".parse().expect("a name"),
            tenant: "acme".parse().expect("a name"),
            id: TokenId([7; 16]),
            issued: Moment(100),
            expires: Moment(200),
            uses: 10,
        };
        change(&mut token);
        SignedToken::make(&token, &key(signer)).expect("a token")
    }
}
