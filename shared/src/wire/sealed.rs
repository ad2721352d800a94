//! A device's message as it travels: version byte, device, signature, body.
//!
//! Binary: `version (1) ‖ device (32) ‖ signature (64) ‖ body`. JSON: an object with the same four
//! fields, the body being a string that holds JSON text. The signature is Ed25519 over
//! `domain ‖ version ‖ device ‖ body`, over the very bytes that came: a reader verifies first and
//! decodes then, and what it stores verifies again years later.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::codec::{self, CodecError};
use crate::{
    id::{DeviceId, Digest, PublicKey, Signature},
    limits,
    sign::{self, Domain},
};

/// The version byte of the first frozen structs.
pub(super) const VERSION_1: u8 = 1;

const HEAD: usize = 1 + 32 + 64;

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// bincode.
    Binary,
    /// JSON.
    Json,
}

/// A message whose outer form was read, and nothing else: neither verified nor decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its form.
    pub format: Format,
    /// Who claims to have sent it.
    pub device: DeviceId,
    /// The signature.
    pub signature: Signature,
    /// The body's bytes.
    pub body: Vec<u8>,
}

/// The JSON form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedJson {
    /// 1.
    pub version: u8,
    /// The device.
    pub device: DeviceId,
    /// The signature.
    pub signature: Signature,
    /// The body: JSON text in a string.
    pub body: String,
}

/// What kind of message is sealed: it chooses the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Letter,
    Enrolment,
}

impl Sealed {
    /// Reads the outer form of a message of at most [`limits::LETTER_BYTES`].
    pub fn read(bytes: &[u8], format: Format) -> Result<Self, CodecError> {
        if bytes.len() > limits::LETTER_BYTES {
            return Err(CodecError::TooLarge { found: bytes.len(), max: limits::LETTER_BYTES });
        }
        match format {
            Format::Binary => Self::read_binary(bytes),
            Format::Json => Self::read_json(bytes),
        }
    }

    fn read_binary(bytes: &[u8]) -> Result<Self, CodecError> {
        let version = *bytes.first().ok_or(CodecError::Empty)?;
        check_version(version)?;
        let (head, body) = bytes
            .split_at_checked(HEAD)
            .ok_or_else(|| CodecError::Malformed("it ends within its head".into()))?;
        let mut device = [0; 32];
        let mut signature = [0; 64];
        device.copy_from_slice(&head[1..33]);
        signature.copy_from_slice(&head[33..HEAD]);
        Ok(Self {
            format: Format::Binary,
            device: DeviceId(device),
            signature: Signature(signature),
            body: body.to_vec(),
        })
    }

    fn read_json(bytes: &[u8]) -> Result<Self, CodecError> {
        let json: SealedJson = serde_json::from_slice(bytes)
            .map_err(|error| CodecError::Malformed(error.to_string()))?;
        check_version(json.version)?;
        Ok(Self {
            format: Format::Json,
            device: json.device,
            signature: json.signature,
            body: json.body.into_bytes(),
        })
    }

    /// The bytes as they travel.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        match self.format {
            Format::Binary => {
                let mut bytes = Vec::with_capacity(HEAD + self.body.len());
                bytes.push(VERSION_1);
                bytes.extend_from_slice(&self.device.0);
                bytes.extend_from_slice(&self.signature.0);
                bytes.extend_from_slice(&self.body);
                Ok(bytes)
            }
            Format::Json => {
                let body = String::from_utf8(self.body.clone())
                    .map_err(|error| CodecError::Malformed(error.to_string()))?;
                let json = SealedJson {
                    version: VERSION_1,
                    device: self.device,
                    signature: self.signature,
                    body,
                };
                serde_json::to_vec(&json).map_err(|error| CodecError::Malformed(error.to_string()))
            }
        }
    }

    pub(super) fn seal<T: Serialize>(
        value: &T,
        kind: Kind,
        format: Format,
        key: &SigningKey,
    ) -> Result<Self, CodecError> {
        let max = limits::LETTER_BYTES - HEAD;
        let body = match format {
            Format::Binary => codec::encode(value, max)?,
            Format::Json => serde_json::to_vec(value)
                .map_err(|error| CodecError::Malformed(error.to_string()))?,
        };
        let device = DeviceId::of_key(&sign::public(key));
        let signature = sign::sign(key, domain(kind, format), &signed_bytes(device, &body));
        Ok(Self { format, device, signature, body })
    }

    /// Decodes the body if `key` is the device's and signed it.
    pub(super) fn open<T: DeserializeOwned>(
        &self,
        kind: Kind,
        key: &PublicKey,
    ) -> Result<T, CodecError> {
        let bytes = signed_bytes(self.device, &self.body);
        let own_key = DeviceId::of_key(key) == self.device;
        if !own_key || !sign::verify(key, domain(kind, self.format), &bytes, &self.signature) {
            return Err(CodecError::Signature);
        }
        self.decode_unverified()
    }

    pub(super) fn decode_unverified<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        match self.format {
            Format::Binary => codec::decode(&self.body, limits::LETTER_BYTES),
            Format::Json => serde_json::from_slice(&self.body)
                .map_err(|error| CodecError::Malformed(error.to_string())),
        }
    }

    /// The digest of the body with its head: tells the same letter from another with its number.
    pub fn digest(&self) -> Digest {
        let format = match self.format {
            Format::Binary => 0u8,
            Format::Json => 1,
        };
        Digest::of_parts(
            "lockgate sealed v1",
            &[&[format], &self.device.0, &self.signature.0, &self.body],
        )
    }
}

const fn check_version(found: u8) -> Result<(), CodecError> {
    if found == VERSION_1 { Ok(()) } else { Err(CodecError::Version { found, known: VERSION_1 }) }
}

fn signed_bytes(device: DeviceId, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(33 + body.len());
    bytes.push(VERSION_1);
    bytes.extend_from_slice(&device.0);
    bytes.extend_from_slice(body);
    bytes
}

const fn domain(kind: Kind, format: Format) -> Domain {
    match (kind, format) {
        (Kind::Letter, Format::Binary) => Domain::LetterV1,
        (Kind::Letter, Format::Json) => Domain::LetterJsonV1,
        (Kind::Enrolment, Format::Binary) => Domain::EnrolmentV1,
        (Kind::Enrolment, Format::Json) => Domain::EnrolmentJsonV1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_opens_only_with_the_key_that_its_device_is_named_after_and_that_signed_it() {
        for format in [Format::Binary, Format::Json] {
            let (own, other) = (key(5), key(6));
            let good = Sealed::seal(&7u32, Kind::Letter, format, &own).expect("small");
            let opens = |sealed: &Sealed, key: &SigningKey| {
                sealed.open::<u32>(Kind::Letter, &sign::public(key)).ok()
            };
            assert_eq!(opens(&good, &own), Some(7));
            assert_eq!(opens(&good, &other), None);
            let mut changed = good.clone();
            changed.signature.0[9] ^= 1;
            assert_eq!(opens(&changed, &own), None);
            let mut changed = good.clone();
            changed.body = Sealed::seal(&8u32, Kind::Letter, format, &own).expect("small").body;
            assert_eq!(opens(&changed, &own), None);
            // Another key signs in the device's name, with everything else as it should be.
            let bytes = signed_bytes(good.device, &good.body);
            let signature = sign::sign(&other, domain(Kind::Letter, format), &bytes);
            let forged = Sealed { signature, ..good.clone() };
            assert_eq!((opens(&forged, &own), opens(&forged, &other)), (None, None));
            let as_another = good.open::<u32>(Kind::Enrolment, &sign::public(&own));
            assert!(as_another.is_err(), "a letter enrols nobody");
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }
}
