//! The directive: what the server answers to a letter. Frozen, version 1.
//!
//! It can restrict and it can carry; it opens nothing. Grants in it are signed by approvers, loosenings
//! by the tenant's key, and the device verifies them; everything else in its orders only narrows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    codec::{self, CodecError},
    sealed::{Format, VERSION_1},
};
use crate::{
    act::SignedAct,
    id::{Digest, ProductId},
    json, limits,
    loosening::SignedLoosening,
    pin::Pin,
    rollout::PassedStop,
    time::{Moment, Seconds},
    window::{Freeze, Window},
};

/// The answer to a check-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// The sequence number of the letter that is now on disk.
    pub acknowledged: u64,
    /// That letter's offset in the server's journal: a device acts on a rollout only when the
    /// rollout file counts it.
    pub offset: u64,
    /// When to poll next.
    pub next_poll: Seconds,
    /// At most this much is added to it, by the device's own id.
    pub jitter: Seconds,
    /// The longest pause between retries when the server cannot be reached.
    pub backoff_max: Seconds,
    /// Whether the next letter should carry the facts.
    pub want_facts: bool,
    /// The server's clock, for the device's owner to compare: never trusted.
    pub server_time: Moment,
    /// New orders, when the device's digest shows others.
    pub orders: Option<Orders>,
}

/// What a device is told to keep to. It keeps them until other orders come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Orders {
    /// Pins by product.
    pub pins: BTreeMap<ProductId, Pin>,
    /// Maintenance windows.
    pub windows: Vec<Window>,
    /// Freezes.
    pub freezes: Vec<Freeze>,
    /// Stops not yet numbered.
    pub stops: Vec<PassedStop>,
    /// Signed grants of this device.
    pub grants: Vec<SignedAct>,
    /// What the tenant's own key loosened.
    pub loosened: Vec<SignedLoosening>,
}

impl Orders {
    /// Their digest: letters name it, so that orders travel only when they change.
    pub fn digest(&self) -> Result<Digest, CodecError> {
        Ok(Digest::of(&codec::encode(self, limits::DIRECTIVE_BYTES)?))
    }

    fn check(&self) -> Result<(), CodecError> {
        for (count, max, what) in [
            (self.pins.len(), limits::DEVICE_PRODUCTS, "too many pins"),
            (self.windows.len(), limits::WINDOWS, "too many windows"),
            (self.freezes.len(), limits::FREEZES, "too many freezes"),
            (self.stops.len(), limits::FILE_STOPS, "too many stops"),
            (self.grants.len(), limits::GRANTS, "too many grants"),
            (self.loosened.len(), limits::LOOSENINGS, "too many loosenings"),
        ] {
            if count > max {
                return Err(CodecError::Field(what));
            }
        }
        Ok(())
    }
}

impl Directive {
    /// The bytes as they travel.
    pub fn to_bytes(&self, format: Format) -> Result<Vec<u8>, CodecError> {
        to_answer(self, format)
    }

    /// Reads and bounds a directive.
    pub fn read(bytes: &[u8], format: Format) -> Result<Self, CodecError> {
        let directive: Self = read_answer(bytes, format)?;
        if let Some(orders) = &directive.orders {
            orders.check()?;
        }
        Ok(directive)
    }
}

impl super::EnrolmentAnswer {
    /// The bytes as they travel.
    pub fn to_bytes(&self, format: Format) -> Result<Vec<u8>, CodecError> {
        to_answer(self, format)
    }

    /// Reads an answer.
    pub fn read(bytes: &[u8], format: Format) -> Result<Self, CodecError> {
        read_answer(bytes, format)
    }
}

fn to_answer<T: Serialize>(value: &T, format: Format) -> Result<Vec<u8>, CodecError> {
    match format {
        Format::Binary => {
            let mut bytes = vec![VERSION_1];
            bytes.extend(codec::encode(value, limits::DIRECTIVE_BYTES)?);
            Ok(bytes)
        }
        Format::Json => {
            serde_json::to_vec(value).map_err(|error| CodecError::Malformed(error.to_string()))
        }
    }
}

fn read_answer<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    format: Format,
) -> Result<T, CodecError> {
    if bytes.len() > limits::DIRECTIVE_BYTES {
        return Err(CodecError::TooLarge { found: bytes.len(), max: limits::DIRECTIVE_BYTES });
    }
    match format {
        Format::Binary => match bytes.split_first() {
            None => Err(CodecError::Empty),
            Some((&VERSION_1, body)) => codec::decode(body, limits::DIRECTIVE_BYTES),
            Some((&found, _)) => Err(CodecError::Version { found, known: VERSION_1 }),
        },
        Format::Json => json::read(bytes).map_err(|error| CodecError::Malformed(error.to_string())),
    }
}
