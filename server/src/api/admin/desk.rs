//! What the admin API asks of the letter box, and nothing more: to append to the stream, to write the
//! small tables, and to say what it knows of devices.

use std::sync::Arc;

use lockgate_shared::{
    facts::Facts,
    id::{DeviceId, TenantId},
    time::{Moment, Seconds},
};
use serde::{Deserialize, Serialize};

use super::audit::AuditSink;
use crate::{
    letters::{CurrentPolicy, DeviceRecord, JournalError, LastLetter, Reports, bars::Bar},
    registry::{Later, TOKEN_BYTES, Tables},
    stream::{BarRequest, Entry, EntryKind},
};

/// The letter box, as seen from the admin API.
pub trait Desk: Tables + AuditSink {
    /// Appends an entry to the stream; it is on disk when it answers with its offset.
    fn append(&self, kind: EntryKind, bytes: Vec<u8>) -> Later<'_, Result<u64, JournalError>>;

    /// An entry of the stream.
    fn entry(&self, offset: u64) -> Later<'_, Result<Option<Entry>, JournalError>>;

    /// The policy in force, once the repository was read.
    fn policy(&self) -> Option<Arc<CurrentPolicy>>;

    /// Lets `read` look at what the gatekeeper reported.
    fn reports(&self, read: &mut dyn FnMut(&Reports));

    /// What is known of a device.
    fn device(&self, device: &DeviceId) -> Option<KnownDevice>;

    /// Devices in the order of their ids, after one of them, of one tenant or of all.
    fn devices(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Vec<KnownDevice>;

    /// Takes no letter of a device any more; the entry's offset, where that is new.
    fn bar(&self, request: BarRequest) -> Later<'_, Result<(Bar, Option<u64>), JournalError>>;

    /// How often devices are asked to poll.
    fn polls(&self) -> Seconds;

    /// The clock.
    fn now(&self) -> Moment;

    /// The dice: for new tokens.
    fn random(&self) -> [u8; TOKEN_BYTES];
}

/// What the letter box knows of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownDevice {
    /// Its id.
    pub device: DeviceId,
    /// Its tenant, by its enrolment.
    pub tenant: TenantId,
    /// When it enrolled.
    pub enrolled: Moment,
    /// When its last letter came, if one did.
    pub seen: Option<Moment>,
    /// Letters refused since the server's start because other bytes came under a number that had
    /// been used: a sign of a clone.
    pub replayed: u32,
    /// Its last letter's number.
    pub sequence: u64,
    /// Whether and why its letters are not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barred: Option<Bar>,
    /// What it says it is.
    pub facts: Option<Facts>,
    /// What it said last.
    pub letter: Option<LastLetter>,
}

impl KnownDevice {
    /// Whether somebody should look at it.
    pub const fn is_odd(&self) -> bool {
        self.barred.is_some() || self.replayed > 0
    }
}

impl From<DeviceRecord> for KnownDevice {
    fn from(record: DeviceRecord) -> Self {
        Self {
            device: record.device,
            tenant: record.tenant,
            enrolled: record.enrolled_at,
            seen: (record.sequence > 0).then_some(record.received),
            replayed: record.replayed,
            sequence: record.sequence,
            barred: None,
            facts: record.facts,
            letter: record.last,
        }
    }
}
