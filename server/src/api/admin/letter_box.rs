//! The letter box behind the admin API, and the task that draws the consequences of what the
//! gatekeeper reports.

use std::sync::{Arc, Mutex};

use lockgate_shared::{
    id::{DeviceId, TenantId},
    time::{Moment, Seconds},
};

use super::{
    audit::{AuditFailure, AuditSink},
    desk::{Desk, KnownDevice},
};
use crate::{
    audit::Chain,
    clock, dice,
    letters::{
        CurrentPolicy, DeviceRecord, JournalError, LetterBox, OrdersBook, Page, Reports, bars::Bar,
    },
    registry::{Later, Registry, RegistryError, TABLES, TOKEN_BYTES, Tables},
    store::{Change, NewEntry},
    stream::{BarRequest, Entry, EntryKind, FRAME_BYTES},
};

/// A letter box and its audit chain.
pub struct LetterDesk {
    letter_box: Arc<LetterBox>,
    chain: Mutex<Chain>,
}

impl LetterDesk {
    /// A desk at this letter box.
    pub const fn new(letter_box: Arc<LetterBox>, chain: Chain) -> Self {
        Self { letter_box, chain: Mutex::new(chain) }
    }

    /// Reads the small tables into a registry, and tells check-ins what devices are told.
    pub async fn registry(&self) -> Result<Registry, RegistryError> {
        let mut changes = Vec::new();
        for table in TABLES {
            for (key, value) in self.letter_box.table(table).await? {
                changes.push(Change { table, key, value: Some(value) });
            }
        }
        let registry = Registry::of_rows(&changes)?;
        self.tell(Arc::clone(registry.view().book()));
        Ok(registry)
    }

    fn known(&self, record: DeviceRecord) -> KnownDevice {
        KnownDevice { barred: self.letter_box.barred(&record.device), ..record.into() }
    }

    /// After each report of the gatekeeper, draws its consequences. Ends with the letter box.
    pub async fn follow(&self, registry: &Registry) {
        let mut reported = self.letter_box.reported();
        loop {
            // Cloned, because the guard may not be held while the disk is waited for.
            let reports = self.letter_box.reports().clone();
            if let Some(status) = reports.status() {
                let verdict = |offset| reports.entry(offset).cloned();
                if let Err(error) = registry.settle(self, status, verdict).await {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a report's consequences could not be written"
                    );
                }
            }
            if reported.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Tables for LetterDesk {
    fn put(&self, changes: Vec<Change>) -> Later<'_, Result<(), JournalError>> {
        Box::pin(self.letter_box.put(changes))
    }

    fn put_and_append(
        &self,
        changes: Vec<Change>,
        kind: EntryKind,
        bytes: Vec<u8>,
    ) -> Later<'_, Result<u64, JournalError>> {
        let entry = NewEntry { received: clock::now(), kind, bytes };
        Box::pin(self.letter_box.put_and_append(changes, entry))
    }

    fn tell(&self, book: Arc<OrdersBook>) {
        self.letter_box.orders.store(book);
    }
}

impl AuditSink for LetterDesk {
    fn append_line(
        &self,
        at: Moment,
        who: &str,
        act: &str,
        detail: &str,
    ) -> Result<(), AuditFailure> {
        self.chain.append_line(at, who, act, detail)
    }

    fn read_lines(&self, from: u64, max: usize) -> Result<Vec<String>, AuditFailure> {
        self.chain.read_lines(from, max)
    }
}

impl Desk for LetterDesk {
    fn append(&self, kind: EntryKind, bytes: Vec<u8>) -> Later<'_, Result<u64, JournalError>> {
        Box::pin(self.letter_box.append(NewEntry { received: clock::now(), kind, bytes }))
    }

    fn entry(&self, offset: u64) -> Later<'_, Result<Option<Entry>, JournalError>> {
        Box::pin(async move {
            let entries = self.letter_box.read(offset, 1, FRAME_BYTES).await?;
            Ok(entries.into_iter().find(|entry| entry.offset == offset))
        })
    }

    fn policy(&self) -> Option<Arc<CurrentPolicy>> {
        self.letter_box.policy()
    }

    fn reports(&self, read: &mut dyn FnMut(&Reports)) {
        read(&self.letter_box.reports());
    }

    fn device(&self, device: &DeviceId) -> Option<KnownDevice> {
        self.letter_box.devices().get(device).map(|record| self.known(record))
    }

    fn devices(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Vec<KnownDevice> {
        let page = Page { tenant: tenant.cloned(), after: after.copied(), limit };
        self.letter_box.devices().page(&page).into_iter().map(|r| self.known(r)).collect()
    }

    fn bar(&self, request: BarRequest) -> Later<'_, Result<(Bar, Option<u64>), JournalError>> {
        Box::pin(self.letter_box.bar(request, clock::now()))
    }

    fn polls(&self) -> Seconds {
        self.letter_box.polls()
    }

    fn now(&self) -> Moment {
        clock::now()
    }

    fn random(&self) -> [u8; TOKEN_BYTES] {
        dice::bytes()
    }
}
