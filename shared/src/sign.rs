//! Ed25519 over a domain and bytes, so that a signature made for one purpose never serves another.

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use crate::id::{PublicKey, Signature};

/// What a signature is for. The text is part of what is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// A device's letter, first version, in binary.
    LetterV1,
    /// A device's letter, first version, in JSON.
    LetterJsonV1,
    /// A device's enrolment, first version, in binary.
    EnrolmentV1,
    /// A device's enrolment, first version, in JSON.
    EnrolmentJsonV1,
    /// An enrolment token, first version, by a tenant's enrolment key.
    TokenV1,
    /// A person's act: start, approval, lift, waiver, grant.
    ActV1,
    /// A tenant's loosening of its own restrictions.
    LooseningV1,
    /// The head of an audit chain.
    AuditV1,
}

impl Domain {
    const fn text(self) -> &'static str {
        match self {
            Self::LetterV1 => "lockgate letter v1\0",
            Self::LetterJsonV1 => "lockgate letter json v1\0",
            Self::EnrolmentV1 => "lockgate enrolment v1\0",
            Self::EnrolmentJsonV1 => "lockgate enrolment json v1\0",
            Self::TokenV1 => "lockgate enrolment token v1\0",
            Self::ActV1 => "lockgate act v1\0",
            Self::LooseningV1 => "lockgate loosening v1\0",
            Self::AuditV1 => "lockgate audit v1\0",
        }
    }
}

/// Signs `bytes` for `domain`.
pub fn sign(key: &SigningKey, domain: Domain, bytes: &[u8]) -> Signature {
    Signature(key.sign(&message(domain, bytes)).to_bytes())
}

/// Whether `signature` over `bytes` for `domain` is by `key`. Strict: weak keys and malleable
/// signatures are refused.
pub fn verify(key: &PublicKey, domain: Domain, bytes: &[u8], signature: &Signature) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&key.0) else { return false };
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    key.verify_strict(&message(domain, bytes), &signature).is_ok()
}

/// The public half of a signing key.
pub fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

/// What is signed: the domain's text, then the bytes. For keys that this code does not hold itself.
pub fn message(domain: Domain, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(domain.text().len() + bytes.len());
    message.extend_from_slice(domain.text().as_bytes());
    message.extend_from_slice(bytes);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_serves_only_its_own_domain_bytes_and_key() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let other = SigningKey::from_bytes(&[2; 32]);
        let signature = sign(&key, Domain::LetterV1, b"bytes");
        assert!(verify(&public(&key), Domain::LetterV1, b"bytes", &signature));
        assert!(!verify(&public(&key), Domain::LetterJsonV1, b"bytes", &signature));
        assert!(!verify(&public(&key), Domain::LetterV1, b"byte5", &signature));
        assert!(!verify(&public(&other), Domain::LetterV1, b"bytes", &signature));
    }

    #[test]
    fn a_key_that_is_no_point_or_of_small_order_verifies_nothing() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let key = SigningKey::from_bytes(&[1; 32]);
        let signature = sign(&key, Domain::ActV1, b"");
        for bad in [PublicKey(neutral), PublicKey([0xff; 32])] {
            assert!(!verify(&bad, Domain::ActV1, b"", &signature));
        }
    }
}
