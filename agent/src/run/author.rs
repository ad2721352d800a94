//! Who wrote the journal. A device that was enrolled anew has another key and is another device: the
//! letters, outcomes and rollouts of the one before are not its own, and nobody would take them from
//! it. What holds for the machine stays: its slots, what failed in them, stops, the floor of time, and
//! restrictions of a tenant that it still belongs to.

use lockgate_shared::{
    id::{DeviceId, ProductId, TenantId},
    pace::Memory,
};

use super::managed::memory_key;
use crate::{
    journal::{Journal, JournalError, Record, record_key, to_json},
    log,
};

/// The key of this entry in the journal: device and tenant.
const AUTHOR: &str = "author";
/// What the server told the one before about letters and polls.
const TOLD: [&str; 3] = ["acknowledged", "facts-known", "schedule"];
/// What its tenant ordered.
const ORDERED: [&str; 2] = ["orders", "kept"];

/// Makes the journal this device's own.
pub(super) fn sign_for(
    journal: &mut Journal,
    device: DeviceId,
    tenant: &TenantId,
    products: &[ProductId],
) -> Result<(), JournalError> {
    let author = format!("{device} {tenant}");
    let Some(before) = journal.load::<String>(AUTHOR)? else {
        return journal.save(AUTHOR, &author);
    };
    if before == author {
        return Ok(());
    }
    log::info("the device was enrolled anew: what the one before had still to say is forgotten");
    let mut kept = vec![(AUTHOR.to_owned(), to_json(AUTHOR, &author)?)];
    for product in products {
        let key = memory_key(product);
        if let Some(memory) = journal.load::<Memory>(&key)? {
            let memory = Memory { rollouts: Default::default(), last_refresh: None, ..memory };
            kept.push((key.clone(), to_json(&key, &memory)?));
        }
        let record = Record { treated: Vec::new(), ..journal.record(product)? };
        let key = record_key(product);
        kept.push((key.clone(), to_json(&key, &record)?));
    }
    let mut dropped = TOLD.to_vec();
    if !before.ends_with(&format!(" {tenant}")) {
        dropped.extend(ORDERED);
    }
    journal.begin_anew(&kept, &dropped)
}
