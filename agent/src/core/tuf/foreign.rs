//! P-256 and RSA keys, for repositories that others made. Not part of the shipped agent: Lockgate's
//! own keys are Ed25519.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

/// An uncompressed point: a tag and two coordinates.
const POINT_BYTES: usize = 65;
/// 1.2.840.10045.2.1 (public key on a curve), then 1.2.840.10045.3.1.7 (the curve P-256).
const P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07,
];
/// 1.2.840.113549.1.1.1 (RSA), then a null.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// The point in a PEM block, or in hexadecimal as older repositories have it.
pub(super) fn p256_point(public: &str) -> Option<Vec<u8>> {
    let point = match hex::decode(public) {
        Ok(point) => point,
        Err(_) => subject_key(public, P256)?,
    };
    (point.len() == POINT_BYTES && point.first() == Some(&0x04)).then_some(point)
}

/// The PKCS #1 key in a PEM block.
pub(super) fn rsa_key(public: &str) -> Option<Vec<u8>> {
    subject_key(public, RSA)
}

/// Whether an ASN.1 signature with SHA-256 holds.
pub(super) fn p256_verifies(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    verifies(&ECDSA_P256_SHA256_ASN1, point, message, signature)
}

/// Whether a PSS signature with SHA-256 and a salt of 32 bytes holds.
pub(super) fn rsa_pss_verifies(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    verifies(&RSA_PSS_2048_8192_SHA256, key, message, signature)
}

fn verifies(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

/// The bit string of a SubjectPublicKeyInfo whose algorithm is exactly `algorithm`.
fn subject_key(pem: &str, algorithm: &[u8]) -> Option<Vec<u8>> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (info, rest) = element(0x30, der.as_ref())?;
    let (found, info) = element(0x30, info)?;
    let (bits, after) = element(0x03, info)?;
    let (unused, key) = bits.split_first()?;
    let sound = rest.is_empty() && after.is_empty() && found == algorithm && *unused == 0;
    sound.then(|| key.to_vec())
}

/// One DER element with the given tag: its content, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    if found != tag {
        return None;
    }
    let (length, der) = match first {
        0..=0x7f => (usize::from(first), der),
        0x81 => der.split_first().map(|(&n, der)| (usize::from(n), der))?,
        0x82 => {
            let (bytes, der) = der.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*bytes)), der)
        }
        _ => return None,
    };
    der.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    /// A P-256 key as tuf-on-ci writes it.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEu+ebm3VUg6U2b0IIeR6NFZU7uxkL\n\
        R1sVLxV8SEW7G+AMXMasEQf5daxfwVMP1kuEkhGs3mBYLkYXlWDh9BNSxg==\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn a_p256_signature_holds_for_its_message_and_no_other() {
        let dice = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &dice).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &dice).expect("read");
        let point = p256_point(&hex::encode(pair.public_key())).expect("a point");
        let signature = pair.sign(&dice, b"message").expect("signed");
        assert!(p256_verifies(&point, b"message", signature.as_ref()));
        assert!(!p256_verifies(&point, b"massage", signature.as_ref()));
        assert!(!p256_verifies(&point, b"message", b""));
    }

    #[test]
    fn the_key_in_a_pem_block_is_the_same_as_its_point() {
        let point = p256_point(PEM).expect("a point");
        assert_eq!(p256_point(&hex::encode(&point)), Some(point));
    }

    #[test]
    fn a_key_of_another_algorithm_or_cut_short_is_no_key() {
        assert_eq!(rsa_key(PEM), None);
        assert_eq!(p256_point(&PEM.replace("R1sVLxV8SEW7", "")), None);
        assert_eq!(p256_point("04"), None);
        assert_eq!(element(0x30, &[0x30, 0x84, 0, 0, 0, 1, 0]), None);
        assert_eq!(element(0x30, &[0x30, 5, 0]), None);
        assert_eq!(element(0x30, &[]), None);
    }
}
