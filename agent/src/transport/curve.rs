//! Curve25519 for TLS, the exchange of keys (X25519) and servers' signatures (Ed25519), by the library
//! that checks everybody else's signatures already: the TLS provider's own code and table for the same
//! curve would be 40 kB more.
//!
//! It makes no key that lasts and signs nothing.

use curve25519_dalek::montgomery::MontgomeryPoint;
use ed25519_dalek::{Signature, VerifyingKey};
use rustls::{
    Error, NamedGroup, PeerMisbehaved,
    crypto::{ActiveKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup},
};
use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use zeroize::Zeroizing;

use crate::dice;

/// An agreement on a key by X25519 (RFC 7748), new for each connection.
#[derive(Debug)]
pub(super) struct X25519;

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = Zeroizing::new([0; 32]);
        dice::fill(&mut *secret).map_err(|_| GetRandomFailed)?;
        let public = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let refused = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);
        let Ok(peer) = <[u8; 32]>::try_from(peer) else { return Err(refused) };
        let shared = Zeroizing::new(MontgomeryPoint(peer).mul_clamped(*self.secret).to_bytes());
        // A point of small order leads everybody to the same secret (RFC 8446, 7.4.2).
        if shared.iter().fold(0, |all, byte| all | byte) == 0 {
            return Err(refused);
        }
        Ok(SharedSecret::from(shared.as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// Signatures by Ed25519 keys, of certificates and of handshakes.
#[derive(Debug)]
pub(super) struct Ed25519;

impl SignatureVerificationAlgorithm for Ed25519 {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let key = public_key.try_into().map_err(|_| InvalidSignature)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_slice(signature).map_err(|_| InvalidSignature)?;
        key.verify_strict(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use rustls::crypto::ring::kx_group;

    use super::*;

    #[test]
    fn both_ends_have_one_secret_whichever_library_the_other_has() {
        for _ in 0..20 {
            let (ours, theirs) =
                (X25519.start().expect("ours"), kx_group::X25519.start().expect("theirs"));
            let (our_key, their_key) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
            let secret = ours.complete(&their_key).expect("a secret");
            let other = theirs.complete(&our_key).expect("a secret");
            assert_eq!(secret.secret_bytes(), other.secret_bytes());
        }
    }

    #[test]
    fn a_key_share_that_decides_the_secret_is_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        // The order of the field, which is zero in another form.
        let mut order = [0xff; 32];
        (order[0], order[31]) = (0xed, 0x7f);
        for share in [vec![0; 32], one.to_vec(), order.to_vec(), vec![], vec![9; 31], vec![9; 33]] {
            let refused = X25519.start().expect("ours").complete(&share);
            assert!(refused.is_err(), "{share:02x?}");
        }
    }

    #[test]
    fn a_signature_counts_for_its_message_and_key_only() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let signature = key.sign(b"hello").to_bytes();
        let verdict = |public: &[u8], message: &[u8], signature: &[u8]| {
            let ours = Ed25519.verify_signature(public, message, signature).is_ok();
            let theirs = webpki::ring::ED25519.verify_signature(public, message, signature).is_ok();
            assert_eq!(ours, theirs, "the TLS library's own says otherwise");
            ours
        };
        assert!(verdict(&public, b"hello", &signature));
        assert!(!verdict(&public, b"hallo", &signature));
        assert!(!verdict(&[8; 32], b"hello", &signature));
        assert!(!verdict(&public, b"hello", &[0; 64]));
        assert!(!verdict(&public, b"hello", signature.get(..63).expect("shorter")));
        assert!(!verdict(public.get(..31).expect("shorter"), b"hello", &signature));
    }
}
