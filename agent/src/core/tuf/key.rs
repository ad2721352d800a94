//! Public keys as metadata lists them. A key of a kind that this build does not know is no error:
//! it is left out, and the role's threshold must be reached by the others.

use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::Value;

#[cfg(feature = "foreign-keys")]
use super::foreign;

/// A key that can verify. Two keys are the same if their material is, whatever their key ids say.
#[derive(Debug, Clone)]
pub(super) enum PublicKey {
    /// `ed25519` with scheme `ed25519`.
    Ed25519(VerifyingKey),
    /// `ecdsa` over P-256 with SHA-256: the uncompressed point.
    #[cfg(feature = "foreign-keys")]
    P256(Vec<u8>),
    /// `rsa` with PSS and SHA-256: the PKCS #1 public key.
    #[cfg(feature = "foreign-keys")]
    RsaPss(Vec<u8>),
}

impl PublicKey {
    /// Reads a key object; nothing if its kind is unknown or its material is not a sound key.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let kind = object.get("keytype")?.as_str()?;
        let scheme = object.get("scheme")?.as_str()?;
        let public = object.get("keyval")?.get("public")?.as_str()?;
        match (kind, scheme) {
            ("ed25519", "ed25519") => {
                let bytes = <[u8; 32]>::try_from(hex::decode(public).ok()?).ok()?;
                let key = VerifyingKey::from_bytes(&bytes).ok()?;
                // A key of small order accepts signatures that nobody made.
                (!key.is_weak()).then_some(Self::Ed25519(key))
            }
            #[cfg(feature = "foreign-keys")]
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                foreign::p256_point(public).map(Self::P256)
            }
            #[cfg(feature = "foreign-keys")]
            ("rsa", "rsassa-pss-sha256") => foreign::rsa_key(public).map(Self::RsaPss),
            _ => None,
        }
    }

    /// What makes it this key and no other.
    pub(super) fn material(&self) -> Vec<u8> {
        let (tag, bytes) = match self {
            Self::Ed25519(key) => (b'e', key.as_bytes().as_slice()),
            #[cfg(feature = "foreign-keys")]
            Self::P256(point) => (b'p', point.as_slice()),
            #[cfg(feature = "foreign-keys")]
            Self::RsaPss(key) => (b'r', key.as_slice()),
        };
        [&[tag], bytes].concat()
    }

    /// Whether `signature` over `message` was made by this key's holder.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        #[cfg(test)]
        super::testkit::count_check();
        match self {
            Self::Ed25519(key) => Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            #[cfg(feature = "foreign-keys")]
            Self::P256(point) => foreign::p256_verifies(point, message, signature),
            #[cfg(feature = "foreign-keys")]
            Self::RsaPss(key) => foreign::rsa_pss_verifies(key, message, signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_kinds_schemes_and_broken_material_are_left_out() {
        let good = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let key = |kind: &str, scheme: &str, public: &str| {
            PublicKey::read(
                &json!({"keytype": kind, "scheme": scheme, "keyval": {"public": public}}),
            )
        };
        assert!(key("ed25519", "ed25519", good).is_some());
        assert!(key("ed25519", "ed25519", &good[2..]).is_none());
        assert!(key("ed25519", "ed25519", "zz").is_none());
        assert!(key("ed25519", "ed448", good).is_none());
        assert!(key("ml-dsa-65", "ml-dsa-65", good).is_none());
        assert!(key("ecdsa", "ecdsa-sha2-nistp256", "-----BEGIN PUBLIC KEY-----").is_none());
        assert!(PublicKey::read(&json!(7)).is_none());
    }

    #[test]
    fn a_key_of_small_order_is_left_out() {
        let identity = format!("01{}", "00".repeat(31));
        let key =
            json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": identity}});
        assert!(PublicKey::read(&key).is_none());
    }
}
