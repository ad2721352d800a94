//! The one place that knows bincode: fixed little-endian integers, a limit on every decode, no
//! trailing bytes. bincode 2.0.1 is the last version that works and is not maintained any more; what
//! replaces it replaces this file.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// What decoding any network message may claim: above every such limit. bincode has its limit in a
/// type, so it is not the caller's.
const MESSAGE: usize = 1 << 20;
/// What decoding a row or frame of the server's own processes may claim: the longest of them.
const FRAME: usize = 16 << 20;

/// Why bytes are not a message.
#[derive(Debug, Error)]
pub enum CodecError {
    /// More bytes than the limit.
    #[error("the message has {found} bytes, at most {max} are read")]
    TooLarge {
        /// How many came.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes do not make this message.
    #[error("the message cannot be decoded: {0}")]
    Malformed(String),
    /// Something follows the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// No bytes at all.
    #[error("the message is empty")]
    Empty,
    /// A version this code does not know.
    #[error(
        "the message has version {found}, this program reads version {known}\nhint: update the older of the two sides"
    )]
    Version {
        /// In the message.
        found: u8,
        /// The newest known.
        known: u8,
    },
    /// A field is out of bounds.
    #[error("the message is out of bounds: {0}")]
    Field(&'static str),
    /// The signature does not hold.
    #[error("the message's signature does not hold for this device's key")]
    Signature,
}

/// Decodes exactly `bytes`, which may not be longer than `max`. What is decoded never claims more
/// memory than a small multiple of `max`: bincode counts every announced length against the limit
/// before it reserves anything.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    let config = bincode::config::legacy().with_limit::<MESSAGE>();
    whole(bytes, max, |bytes| bincode::serde::decode_from_slice(bytes, config))
}

/// The same for rows and frames of the server's own processes, which may be longer than any message.
pub fn decode_frame<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    let config = bincode::config::legacy().with_limit::<FRAME>();
    whole(bytes, max, |bytes| bincode::serde::decode_from_slice(bytes, config))
}

/// The same for what a process wrote into its own store, however long.
pub fn decode_stored<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    let config = bincode::config::legacy();
    whole(bytes, max, |bytes| bincode::serde::decode_from_slice(bytes, config))
}

fn whole<T>(
    bytes: &[u8],
    max: usize,
    decode: impl FnOnce(&[u8]) -> Result<(T, usize), bincode::error::DecodeError>,
) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLarge { found: bytes.len(), max });
    }
    let (value, used) = decode(bytes).map_err(|error| CodecError::Malformed(error.to_string()))?;
    match bytes.len().checked_sub(used) {
        Some(0) => Ok(value),
        Some(rest) => Err(CodecError::Trailing(rest)),
        None => Err(CodecError::Malformed("it ends early".into())),
    }
}

/// Encodes a message of at most `max` bytes.
pub fn encode<T: Serialize>(value: &T, max: usize) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(value, bincode::config::legacy())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if bytes.len() > max {
        return Err(CodecError::TooLarge { found: bytes.len(), max });
    }
    Ok(bytes)
}
