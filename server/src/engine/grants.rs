//! Grants that were verified, and those that were taken back: in which cohort a device is expected by
//! them. Whether a grant or its withdrawal counts is [`super::intake`]'s to say.
//!
//! A device hears of a withdrawal in the answer to its next letter. What it saw before, it names in that
//! very letter, and in the cohort that it was granted: that is true, and is believed once.

use std::collections::BTreeMap;

use lockgate_shared::{
    act::Grant,
    id::{ChannelId, CohortId, DeviceId, ProductId},
    policy::Policy,
    time::Moment,
};
use serde::{Deserialize, Serialize};

use super::book::{Book, BookError, decode, encode};
use crate::gatekeeper_store::{GatekeeperStore, Table, Write};

/// Every grant.
#[derive(Debug, Default)]
pub struct Grants {
    given: BTreeMap<DeviceId, BTreeMap<(ProductId, ChannelId), Given>>,
    withdrawn: BTreeMap<(DeviceId, ProductId), Moment>,
}

/// A grant as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    cohort: CohortId,
    issued: Moment,
    standing: Standing,
}

/// How a grant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Standing {
    /// It counts.
    Counts,
    /// It was taken back, and no letter of the device has come since.
    Leaving,
}

impl Grants {
    /// Reads them from the store.
    pub(super) fn load(store: &GatekeeperStore) -> Result<Self, BookError> {
        let mut grants = Self::default();
        for (_, row) in store.table(Table::Grants)? {
            let ((device, product, channel), given) = decode(&row)?;
            grants.given.entry(device).or_default().insert((product, channel), given);
        }
        for (_, row) in store.table(Table::Withdrawn)? {
            let (key, until) = decode(&row)?;
            grants.withdrawn.insert(key, until);
        }
        Ok(grants)
    }

    /// Why a grant comes too late, if it does: it, or a newer one, was taken back, or a newer one
    /// stands. Whoever carries acts can hand an old one in again.
    pub fn outdated(&self, grant: &Grant) -> Option<&'static str> {
        let withdrawn = self.withdrawn.get(&(grant.device, grant.product.clone()));
        if withdrawn.is_some_and(|until| grant.issued <= *until) {
            return Some("it, or a newer one, was withdrawn");
        }
        let known = self.given(&grant.device, &grant.product, &grant.channel);
        known
            .is_some_and(|known| grant.issued < known.issued)
            .then_some("the device has a newer grant")
    }

    /// Keeps a grant.
    pub(super) fn give(&mut self, grant: &Grant) -> Result<Write, BookError> {
        let (cohort, issued) = (grant.cohort.clone(), grant.issued);
        let given = Given { cohort, issued, standing: Standing::Counts };
        let place = (grant.product.clone(), grant.channel.clone());
        let write = put(&grant.device, &place, &given)?;
        self.given.entry(grant.device).or_default().insert(place, given);
        Ok(write)
    }

    /// Takes back what a device was granted for a product until `issued`. What was not given yet is
    /// taken back until `latest` only, so that nobody can take back what people will sign.
    pub(super) fn withdraw(
        &mut self,
        device: &DeviceId,
        product: &ProductId,
        (issued, latest): (Moment, Moment),
    ) -> Result<Vec<Write>, BookError> {
        let (mut until, mut writes) = (issued.min(latest), Vec::new());
        for (place, given) in self.given.get_mut(device).into_iter().flatten() {
            if place.0 == *product && given.issued <= issued {
                given.standing = Standing::Leaving;
                until = until.max(given.issued);
                writes.push(put(device, place, given)?);
            }
        }
        let key = (*device, product.clone());
        let until = self.withdrawn.get(&key).map_or(until, |known| until.max(*known));
        writes.push(Write::put(Table::Withdrawn, encode(&key)?, encode(&(&key, until))?));
        self.withdrawn.insert(key, until);
        Ok(writes)
    }

    /// A letter of the device came: what was taken back is over.
    pub(super) fn heard(&mut self, device: &DeviceId) -> Result<Vec<Write>, BookError> {
        let Some(given) = self.given.get_mut(device) else { return Ok(Vec::new()) };
        let mut writes = Vec::new();
        for (place, _) in given.iter().filter(|(_, given)| given.standing == Standing::Leaving) {
            writes.push(Write::remove(Table::Grants, encode(&(device, &place.0, &place.1))?));
        }
        given.retain(|_, given| given.standing == Standing::Counts);
        if given.is_empty() {
            self.given.remove(device);
        }
        Ok(writes)
    }

    /// The cohort that a device was granted.
    pub fn cohort(
        &self,
        device: &DeviceId,
        product: &ProductId,
        channel: &ChannelId,
    ) -> Option<&CohortId> {
        let given = self.given(device, product, channel)?;
        (given.standing == Standing::Counts).then_some(&given.cohort)
    }

    /// The cohort that a device's next letter may still name, whatever was taken back.
    pub fn last_cohort(
        &self,
        device: &DeviceId,
        product: &ProductId,
        channel: &ChannelId,
    ) -> Option<&CohortId> {
        self.given(device, product, channel).map(|given| &given.cohort)
    }

    fn given(&self, device: &DeviceId, product: &ProductId, channel: &ChannelId) -> Option<&Given> {
        self.given.get(device)?.get(&(product.clone(), channel.clone()))
    }
}

impl Book {
    /// What devices were granted.
    pub const fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Remembers a grant.
    pub fn grant(&mut self, grant: &Grant) -> Result<(), BookError> {
        self.writes.push(self.grants.give(grant)?);
        Ok(())
    }

    /// Takes grants of a device for a product back that were issued until the first moment; those that
    /// were not given yet until the second only.
    pub fn withdraw(
        &mut self,
        device: &DeviceId,
        product: &ProductId,
        until: (Moment, Moment),
    ) -> Result<(), BookError> {
        self.writes.extend(self.grants.withdraw(device, product, until)?);
        Ok(())
    }

    /// A letter of a device was taken: it has heard of what was taken back.
    pub fn heard_of_withdrawals(&mut self, device: &DeviceId) -> Result<(), BookError> {
        self.writes.extend(self.grants.heard(device)?);
        Ok(())
    }

    /// The cohort in which a device is by its grants and the policy.
    pub fn expected_cohort(
        &self,
        policy: &Policy,
        device: &DeviceId,
        product: &ProductId,
        channel: &ChannelId,
    ) -> Option<CohortId> {
        let granted = self.grants.cohort(device, product, channel);
        granted.or_else(|| policy.products.get(product)?.cohorts.last()).cloned()
    }
}

fn put(
    device: &DeviceId,
    (product, channel): &(ProductId, ChannelId),
    given: &Given,
) -> Result<Write, BookError> {
    let key = (device, product, channel);
    Ok(Write::put(Table::Grants, encode(&key)?, encode(&(key, given))?))
}
