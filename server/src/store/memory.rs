//! The store in memory: for tests and simulations, where nothing needs to outlive the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lockgate_shared::{id::DeviceId, time::Moment};

use super::{Change, DeviceRow, NewEntry, Store, StoreError, Table};
use crate::stream::Entry;

/// The store. Clones share what they hold, as two openings of one file do.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    entries: Vec<Entry>,
    devices: BTreeMap<DeviceId, Vec<u8>>,
    low_water: u64,
    head: u64,
    tables: BTreeMap<Table, BTreeMap<String, Vec<u8>>>,
}

impl MemoryStore {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn append(&mut self, entries: &[NewEntry]) -> Result<u64, StoreError> {
        let mut held = self.held();
        let first = held.head;
        held.head += entries.len() as u64;
        held.entries.extend((first..).zip(entries).map(|(offset, entry)| Entry {
            offset,
            received: entry.received,
            kind: entry.kind,
            bytes: entry.bytes.clone(),
        }));
        Ok(first)
    }

    fn move_on(&mut self, from: u64, to: u64) -> Result<u64, StoreError> {
        let mut held = self.held();
        let to = to.max(held.head);
        let first = held.entries.partition_point(|entry| entry.offset < from);
        let moved = held.entries.iter_mut().skip(first);
        held.head = moved.zip(to..).fold(to, |_, (entry, offset)| {
            entry.offset = offset;
            offset + 1
        });
        Ok(held.head)
    }

    fn head(&self) -> Result<u64, StoreError> {
        Ok(self.held().head)
    }

    fn read(&self, from: u64, max: usize, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let held = self.held();
        let mut bytes = 0;
        let first = held.entries.partition_point(|entry| entry.offset < from);
        let fitting =
            held.entries.iter().skip(first).take(max).enumerate().take_while(|(n, entry)| {
                bytes += entry.bytes.len();
                *n == 0 || bytes <= max_bytes
            });
        Ok(fitting.map(|(_, entry)| entry.clone()).collect())
    }

    fn sweep(&mut self, rows: &[DeviceRow], low_water: u64) -> Result<(), StoreError> {
        let mut held = self.held();
        held.devices.extend(rows.iter().map(|row| (row.device, row.bytes.clone())));
        held.low_water = low_water;
        Ok(())
    }

    fn prune(&mut self, below: u64, before: Moment) -> Result<u64, StoreError> {
        let mut held = self.held();
        let below = below.min(held.head.saturating_sub(1));
        let count = held.entries.len();
        let young = held.entries.iter().find(|entry| entry.received >= before);
        let below = young.map_or(below, |entry| below.min(entry.offset));
        held.entries.retain(|entry| entry.offset >= below || !entry.kind.is_letter());
        Ok((count - held.entries.len()) as u64)
    }

    fn load(&self, each: &mut dyn FnMut(DeviceRow)) -> Result<u64, StoreError> {
        let held = self.held();
        for (device, bytes) in &held.devices {
            each(DeviceRow { device: *device, bytes: bytes.clone() });
        }
        Ok(held.low_water)
    }

    fn put(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut held = self.held();
        for change in changes {
            let table = held.tables.entry(change.table).or_default();
            match &change.value {
                Some(value) => {
                    table.insert(change.key.clone(), value.clone());
                }
                None => {
                    table.remove(&change.key);
                }
            }
        }
        Ok(())
    }

    fn table(&self, table: Table) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        Ok(self.held().tables.get(&table).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn memory_conforms() {
        conformance::all(|| {
            let store = MemoryStore::default();
            move || Box::new(store.clone()) as Box<dyn Store>
        });
    }
}
