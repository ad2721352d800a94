//! Devices whose letters are not taken: revoked by a person, or held because two machines write under
//! one identity. Both only restrict, so they need no signature; neither is ever taken back, because who
//! copied a key has it: each machine enrols anew, under a key of its own.
//!
//! A device installs nothing that the server speaks against at its last look, so a refused letter keeps
//! both machines of a pair from installing.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use lockgate_shared::{
    id::{DeviceId, TenantId},
    time::Moment,
};
use serde::{Deserialize, Serialize};

use super::{JournalError, LetterBox};
use crate::{
    store::{Change, NewEntry, Table},
    stream::{BarRequest, EntryKind},
};

/// Why a device's letters are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BarKind {
    /// A person revoked it.
    Revoked,
    /// Two machines have its identity.
    Held,
}

/// A device whose letters are not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// The number, rising from 1 in this letter box.
    pub number: u64,
    /// The device's tenant.
    pub tenant: TenantId,
    /// Why, in a word.
    pub kind: BarKind,
    /// Why, in a sentence.
    pub reason: String,
    /// Since when.
    pub since: Moment,
    /// Who said so: a token's name, or the letter box.
    pub by: String,
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, hint) = match self.kind {
            BarKind::Revoked => (
                "revoked",
                "its operator knows why; a device that may come back enrols under a new key",
            ),
            BarKind::Held => (
                "held",
                "its state is a copy or a backup; enrol each machine anew, under a key of its own",
            ),
        };
        write!(
            f,
            "this device is {what} since {} (number {}): {}\nhint: {hint}",
            self.since, self.number, self.reason
        )
    }
}

/// Every such device.
#[derive(Debug, Default)]
pub(super) struct Bars(Mutex<BTreeMap<DeviceId, Bar>>);

impl Bars {
    /// Those that are on disk. A row that cannot be read is an error of the store's.
    pub(super) fn load(rows: &BTreeMap<String, Vec<u8>>) -> Self {
        let read = |(key, bytes): (&String, &Vec<u8>)| {
            let bar = serde_json::from_slice(bytes);
            match (key.parse(), bar) {
                (Ok(device), Ok(bar)) => Some((device, bar)),
                (_, _) => {
                    tracing::error!(key, "the row of a barred device cannot be read");
                    None
                }
            }
        };
        Self(Mutex::new(rows.iter().filter_map(read).collect()))
    }

    pub(super) fn of(&self, device: &DeviceId) -> Option<Bar> {
        self.lock().get(device).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<DeviceId, Bar>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LetterBox {
    /// Why a device's letters are not taken, if they are not.
    pub fn barred(&self, device: &DeviceId) -> Option<Bar> {
        self.bars.of(device)
    }

    /// Takes no letter of a device from now on, and tells the gatekeeper. The first reason stands. Gives
    /// the entry's offset where it is new.
    pub async fn bar(
        &self,
        request: BarRequest,
        now: Moment,
    ) -> Result<(Bar, Option<u64>), JournalError> {
        let bar = {
            let mut bars = self.bars.lock();
            if let Some(known) = bars.get(&request.device) {
                return Ok((known.clone(), None));
            }
            let bar = Bar {
                number: bars.len() as u64 + 1,
                tenant: request.tenant.clone(),
                kind: request.kind,
                reason: request.reason.clone(),
                since: now,
                by: request.by.clone(),
            };
            // In memory first: what restricts holds even while the disk is slow.
            bars.insert(request.device, bar.clone());
            bar
        };
        let value = serde_json::to_vec(&bar).map_err(|_| JournalError::Failed)?;
        let key = request.device.to_string();
        let change = Change { table: Table::Bars, key, value: Some(value) };
        let bytes = serde_json::to_vec(&request).map_err(|_| JournalError::Failed)?;
        let entry = NewEntry { received: now, kind: EntryKind::Bar, bytes };
        let written = self.put_and_append(vec![change], entry).await;
        if let Err(error) = written {
            // Nobody was told that it holds, so it may be asked for again.
            self.bars.lock().remove(&request.device);
            return Err(error);
        }
        Ok((bar, written.ok()))
    }
}
