//! Names and numbers that identify something, each a type of its own, so that a tenant cannot be
//! passed where a product is due.
//!
//! Byte identifiers are lower-case hexadecimal in JSON and on the command line, and plain bytes in
//! binary. Names are 1 to 64 characters of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter
//! or digit: they stand in paths, URLs and TUF role names without escaping.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The longest name: it fits a file name with room for a version and a digest beside it.
pub const MAX_NAME: usize = 64;

/// Why a text is not an identifier.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum IdError {
    /// Wrong characters or length for a name.
    #[error(
        "`{text}` is not a name\nhint: use 1 to {MAX_NAME} characters of `a-z`, `0-9`, `.`, `_`, `-`, beginning with a letter or digit"
    )]
    Name {
        /// What was given, cut to 80 characters.
        text: String,
    },
    /// Wrong characters or length for hexadecimal bytes.
    #[error("`{text}` is not {bytes} bytes in hexadecimal")]
    Hex {
        /// What was given, cut to 80 characters.
        text: String,
        /// How many bytes are due.
        bytes: usize,
    },
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError::Hex {
                    text: text.chars().take(80).collect(),
                    bytes: $len,
                })?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    hex_free::serialize(&self.0, serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    hex_free::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

bytes_id!(
    /// A SHA-256 digest.
    Digest, 32
);
bytes_id!(
    /// A device: SHA-256 over a domain and its public key, so that an id cannot be claimed without
    /// the key.
    DeviceId, 32
);
bytes_id!(
    /// A rollout: SHA-256 over a domain, the manifest's hash and the channel. One manifest goes out
    /// once on a channel.
    RolloutId, 32
);
bytes_id!(
    /// A group of devices that are alike in one attribute, in a pair of attributes, or in all.
    GroupId, 8
);
bytes_id!(
    /// An Ed25519 public key (RFC 8032).
    PublicKey, 32
);
bytes_id!(
    /// An Ed25519 signature (RFC 8032).
    Signature, 64
);
bytes_id!(
    /// The number of an enrolment token, drawn at random when it is made.
    TokenId, 16
);

impl Digest {
    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// SHA-256 over a domain and parts, each preceded by its length, so that no two lists of parts
    /// share a digest.
    pub fn of_parts(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update((domain.len() as u64).to_be_bytes());
        hash.update(domain.as_bytes());
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

impl DeviceId {
    /// The id that belongs to a device's public key.
    pub fn of_key(key: &PublicKey) -> Self {
        Self(Digest::of_parts("lockgate device v1", &[&key.0]).0)
    }
}

impl RolloutId {
    /// The id of the rollout of one manifest on one channel.
    pub fn of(manifest: &Digest, channel: &ChannelId) -> Self {
        Self(Digest::of_parts("lockgate rollout v1", &[&manifest.0, channel.as_str().as_bytes()]).0)
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check_name(text).map(|()| Self(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                check_name(&text).map_err(de::Error::custom)?;
                Ok(Self(text))
            }
        }
    };
}

name_id!(
    /// One Lockgate installation: a TUF repository and what belongs to it.
    RepositoryId
);
name_id!(
    /// A customer and its devices.
    TenantId
);
name_id!(
    /// What is updated on a device: an app, an image, the agent, a configuration.
    ProductId
);
name_id!(
    /// A stream of releases, such as `stable`.
    ChannelId
);
name_id!(
    /// A named group of devices that moves together, such as `dogfood`.
    CohortId
);
name_id!(
    /// A person whom the policy names.
    PersonId
);
name_id!(
    /// A hardware model in the form that names the rollout file a device reads.
    ModelId
);

impl ModelId {
    /// The model's name made of a device's own words (`vendor`, `model`). What does not fit a name
    /// becomes `-`; eight digits of a digest keep apart what would then look alike.
    pub fn of_hardware(vendor: &str, model: &str) -> Self {
        let digest = Digest::of_parts("lockgate model v1", &[vendor.as_bytes(), model.as_bytes()]);
        let mut name: String = format!("{vendor}-{model}")
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
            .take(40)
            .collect();
        while name.starts_with('-') {
            name.remove(0);
        }
        let tail = hex::encode(&digest.0[..4]);
        Self(if name.is_empty() { format!("m-{tail}") } else { format!("{name}-{tail}") })
    }
}

fn check_name(text: &str) -> Result<(), IdError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let well_formed = text.len() <= MAX_NAME
        && text.starts_with(good)
        && text.chars().all(|c| good(c) || matches!(c, '.' | '_' | '-'))
        && !text.contains("..");
    if well_formed { Ok(()) } else { Err(IdError::Name { text: text.chars().take(80).collect() }) }
}

/// Fixed-size bytes without a length in front, as binary formats want them; serde itself stops at
/// 32 elements.
mod hex_free {
    use std::fmt;

    use serde::{Deserializer, Serializer, de, ser::SerializeTuple};

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        for byte in bytes {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        struct Bytes<const N: usize>;
        impl<'de, const N: usize> de::Visitor<'de> for Bytes<N> {
            type Value = [u8; N];
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<[u8; N], A::Error> {
                let mut bytes = [0; N];
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = seq
                        .next_element()?
                        .ok_or_else(|| de::Error::invalid_length(index, &self))?;
                }
                Ok(bytes)
            }
        }
        deserializer.deserialize_tuple(N, Bytes::<N>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_reach_out_of_a_folder_are_refused() {
        for bad in ["", "..", "a/../b", "../x", ".hidden", "A", "a b", "a\0", "a..b", "ä"] {
            assert!(bad.parse::<ProductId>().is_err(), "{bad:?} was taken");
        }
        assert!("x".repeat(MAX_NAME + 1).parse::<TenantId>().is_err());
        assert!("early-access_1.x".parse::<ChannelId>().is_ok());
    }

    #[test]
    fn models_that_differ_only_in_odd_characters_get_different_names() {
        let a = ModelId::of_hardware("Acme", "X/1");
        let b = ModelId::of_hardware("Acme", "X 1");
        assert_ne!(a, b);
        for model in [a, b, ModelId::of_hardware("", ""), ModelId::of_hardware("  ", "日本")] {
            assert!(model.as_str().parse::<ModelId>().is_ok(), "{model}");
        }
    }

    #[test]
    fn parts_with_the_same_joined_bytes_have_different_digests() {
        assert_ne!(Digest::of_parts("d", &[b"ab", b"c"]), Digest::of_parts("d", &[b"a", b"bc"]));
    }
}
