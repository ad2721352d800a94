//! The device table in memory, in 256 parts by a device id's first byte. It decides whether a letter
//! is the next one, the same again, or a replay, one device at a time and atomically: of two letters
//! with one number only one is ever queued.
//!
//! It keeps no letter and asks no clock; what is on disk is the journal's and the sweep's.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use lockgate_shared::{
    id::{DeviceId, Digest, PublicKey, RolloutId, TenantId, TokenId},
    time::Moment,
};
use tokio::sync::watch;

use super::{
    journal::{JournalError, Written},
    record::{Arrival, DeviceRecord, NO_LETTER, RecordError, Row, Update},
};
use crate::store::DeviceRow;

/// Parts of the table: one for each first byte, so that parts in order are keys in order.
const PARTS: usize = 256;

/// Every enrolled device.
#[derive(Debug)]
pub struct Devices {
    parts: Vec<Mutex<Part>>,
    count: AtomicUsize,
    replayed: AtomicU64,
}

#[derive(Debug, Default)]
struct Part {
    rows: BTreeMap<DeviceId, Slot>,
    dirty: BTreeSet<DeviceId>,
}

#[derive(Debug)]
struct Slot {
    row: Row,
    replayed: u32,
    /// When a letter of it was last journalled whole; the distant past after a start.
    whole: Moment,
    pending: Option<Pending>,
}

/// A letter that is queued and not yet on disk.
#[derive(Debug)]
struct Pending {
    sequence: u64,
    digest: Digest,
    written: Written,
}

/// Which devices a page of the table shows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only those behind this one, in key order.
    pub after: Option<DeviceId>,
    /// At most this many.
    pub limit: usize,
}

/// Who a device is, as far as its letters need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) tenant: TenantId,
    pub(super) key: PublicKey,
    pub(super) token: TokenId,
    pub(super) enrolled: u64,
    pub(super) facts_digest: Digest,
    pub(super) settled: Vec<RolloutId>,
    pub(super) whole: Moment,
}

/// A letter's number and digest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) device: DeviceId,
    pub(super) sequence: u64,
    pub(super) digest: Digest,
    pub(super) previous: Digest,
}

/// What became of the attempt to queue a letter.
#[derive(Debug)]
pub(super) enum Reserved {
    /// It is queued, or it was before: wait until it is on disk.
    Queued(Written),
    /// It has been on disk for long, at this offset.
    Known(u64),
    /// An older one is queued: wait for that one and ask again.
    Behind(Written),
    /// Other bytes came under this number, or a later number came.
    Replayed {
        /// The last number.
        last: u64,
    },
    /// Two devices write under this identity.
    Forked,
    /// The queue did not take it.
    Refused(JournalError),
    /// No such device.
    Unknown,
}

impl Slot {
    const fn new(row: Row) -> Self {
        Self { row, replayed: 0, whole: Moment(i64::MIN), pending: None }
    }

    /// Whether a letter that would be the next shows that two devices have this identity. It does not
    /// follow the last one, and either follows the same letter as that did, or comes after letters under
    /// used numbers. A gap alone shows nothing: a server whose store was restored knows fewer letters
    /// than its devices.
    fn forks(&self, number: &Number) -> bool {
        if number.previous == NO_LETTER || number.previous == self.row.digest {
            return false;
        }
        number.previous == self.row.previous || self.replayed > 0
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            replayed: AtomicU64::new(0),
        }
    }
}

impl Devices {
    /// A device.
    pub fn get(&self, device: &DeviceId) -> Option<DeviceRecord> {
        let part = self.part(device);
        part.rows.get(device).map(|slot| slot.row.record(*device, slot.replayed))
    }

    /// A device's tenant.
    pub fn tenant(&self, device: &DeviceId) -> Option<TenantId> {
        self.part(device).rows.get(device).map(|slot| slot.row.tenant.clone())
    }

    /// How many devices are enrolled.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether no device is enrolled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Letters refused as replays since the start.
    pub fn replayed(&self) -> u64 {
        self.replayed.load(Ordering::Relaxed)
    }

    /// Devices in key order. It locks one part at a time: check-ins go on meanwhile.
    pub fn page(&self, page: &Page) -> Vec<DeviceRecord> {
        let mut found = Vec::new();
        let first = page.after.map_or(0, |device| usize::from(device.0[0]));
        let start = page.after.map_or(Bound::Unbounded, Bound::Excluded);
        for part in self.parts.iter().skip(first) {
            let part = lock(part);
            for (device, slot) in part.rows.range((start, Bound::Unbounded)) {
                if found.len() >= page.limit {
                    return found;
                }
                if page.tenant.as_ref().is_none_or(|tenant| *tenant == slot.row.tenant) {
                    found.push(slot.row.record(*device, slot.replayed));
                }
            }
        }
        found
    }

    /// Calls `each` with every device and its tenant, in key order, one part at a time.
    pub fn each(&self, mut each: impl FnMut(&DeviceId, &TenantId)) {
        for part in &self.parts {
            for (device, slot) in &lock(part).rows {
                each(device, &slot.row.tenant);
            }
        }
    }

    pub(super) fn identity(&self, device: &DeviceId) -> Option<Identity> {
        let part = self.part(device);
        part.rows.get(device).map(|slot| Identity {
            tenant: slot.row.tenant.clone(),
            key: slot.row.key,
            token: slot.row.token,
            enrolled: slot.row.enrolled,
            facts_digest: slot.row.facts_digest,
            settled: slot.row.settled.clone(),
            whole: slot.whole,
        })
    }

    /// Notes that a letter of the device is journalled whole.
    pub(super) fn wrote_whole(&self, device: &DeviceId, now: Moment) {
        if let Some(slot) = self.part(device).rows.get_mut(device) {
            slot.whole = slot.whole.max(now);
        }
    }

    /// Queues a letter with `queue`, if it is the next one. The part stays locked meanwhile, so
    /// `queue` must not wait.
    pub(super) fn reserve(
        &self,
        number: Number,
        queue: impl FnOnce(watch::Sender<Option<Result<u64, JournalError>>>) -> Result<(), JournalError>,
    ) -> Reserved {
        let mut part = self.part(&number.device);
        let Some(slot) = part.rows.get_mut(&number.device) else { return Reserved::Unknown };
        let last = slot.pending.as_ref().map_or(slot.row.sequence, |pending| pending.sequence);
        if let Some(pending) = &slot.pending {
            if number.sequence > pending.sequence {
                return Reserved::Behind(pending.written.clone());
            }
            if number.sequence == pending.sequence && number.digest == pending.digest {
                return Reserved::Queued(pending.written.clone());
            }
        }
        if number.sequence == slot.row.sequence && number.digest == slot.row.digest {
            return Reserved::Known(slot.row.offset);
        }
        if number.sequence <= last {
            slot.replayed = slot.replayed.saturating_add(1);
            self.replayed.fetch_add(1, Ordering::Relaxed);
            return Reserved::Replayed { last };
        }
        if slot.forks(&number) {
            return Reserved::Forked;
        }
        let (sender, receiver) = watch::channel(None);
        let written = Written::new(receiver);
        if let Err(error) = queue(sender) {
            return Reserved::Refused(error);
        }
        slot.pending = Some(Pending {
            sequence: number.sequence,
            digest: number.digest,
            written: written.clone(),
        });
        Reserved::Queued(written)
    }

    /// Takes in a letter that is on disk.
    pub(super) fn letter(&self, update: Update, offset: u64) {
        let device = update.device;
        let mut part = self.part(&device);
        let Some(slot) = part.rows.get_mut(&device) else { return };
        if slot.pending.as_ref().is_some_and(|pending| pending.sequence == update.sequence) {
            slot.pending = None;
        }
        slot.row.update(update, offset);
        part.dirty.insert(device);
    }

    /// Forgets a queued letter that did not reach the disk.
    pub(super) fn forget(&self, device: &DeviceId, sequence: u64) {
        let mut part = self.part(device);
        if let Some(slot) = part.rows.get_mut(device)
            && slot.pending.as_ref().is_some_and(|pending| pending.sequence == sequence)
        {
            slot.pending = None;
        }
    }

    /// Takes in an enrolment that is on disk; one that is older than the row changes nothing.
    pub(super) fn enrol(&self, arrival: &Arrival, offset: u64) {
        let device = arrival.device;
        let mut part = self.part(&device);
        match part.rows.get_mut(&device) {
            Some(slot) if slot.row.enrolled >= offset => return,
            Some(slot) => slot.row = Row::enrol(Some(&slot.row), arrival, offset),
            None => {
                let row = Row::enrol(None, arrival, offset);
                part.rows.insert(device, Slot::new(row));
                self.count.fetch_add(1, Ordering::Relaxed);
            }
        }
        part.dirty.insert(device);
    }

    /// Takes in a row from disk.
    pub(super) fn load(&self, row: &DeviceRow) -> Result<(), RecordError> {
        let slot = Slot::new(Row::from_bytes(&row.bytes)?);
        if self.part(&row.device).rows.insert(row.device, slot).is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The rows of one part that changed since they were last taken, in key order; none beyond the
    /// last part. When one of them cannot be written down, all of them stay marked.
    pub(super) fn take_dirty(&self, part: usize) -> Option<Result<Vec<DeviceRow>, RecordError>> {
        let mut part = lock(self.parts.get(part)?);
        let rows: Result<Vec<DeviceRow>, RecordError> = part
            .dirty
            .iter()
            .filter_map(|device| part.rows.get(device).map(|slot| (*device, slot)))
            .map(|(device, slot)| Ok(DeviceRow { device, bytes: slot.row.to_bytes()? }))
            .collect();
        if rows.is_ok() {
            part.dirty.clear();
        }
        Some(rows)
    }

    /// Marks rows as changed again, because they did not reach the disk.
    pub(super) fn mark_dirty(&self, rows: &[DeviceRow]) {
        for row in rows {
            self.part(&row.device).dirty.insert(row.device);
        }
    }

    fn part(&self, device: &DeviceId) -> MutexGuard<'_, Part> {
        // There is a part for every first byte.
        lock(&self.parts[usize::from(device.0[0])])
    }
}

/// No code panics while it holds a part; if one did, the other devices' rows are still whole.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
