//! Grants that were verified, those that ended and those that were taken back: in which cohort a device
//! is expected by them. Whether a grant or its withdrawal counts is [`super::intake`]'s to say; what one
//! that counts gives is [`grant`]'s, for the device too.
//!
//! A device keeps its newest grant for each product, and so does this table. What it saw of a rollout
//! while the grant counted, it names in the cohort that it was granted, also when the letter comes after
//! the end: that is true, and is believed until a letter came that it wrote after the end. Of a withdrawal
//! it hears in the answer to its next letter.

use std::collections::BTreeMap;

use lockgate_shared::{
    act::Grant,
    grant::{self, Given},
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
    kept: BTreeMap<DeviceId, BTreeMap<ProductId, Kept>>,
    withdrawn: BTreeMap<(DeviceId, ProductId), Moment>,
}

/// A grant as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    given: Given,
    standing: Standing,
}

/// How a grant stands, its end aside.
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
            let ((device, product), kept) = decode(&row)?;
            grants.kept.entry(device).or_default().insert(product, kept);
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
        let known = self.kept(&grant.device, &grant.product);
        known
            .is_some_and(|known| grant.issued < known.given.issued)
            .then_some("the device has a newer grant")
    }

    /// Keeps a grant.
    pub(super) fn give(&mut self, grant: &Grant) -> Result<Write, BookError> {
        let kept = Kept { given: Given::by(grant), standing: Standing::Counts };
        let write = put(&grant.device, &grant.product, &kept)?;
        self.kept.entry(grant.device).or_default().insert(grant.product.clone(), kept);
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
        let kept = self.kept.get_mut(device).and_then(|kept| kept.get_mut(product));
        if let Some(kept) = kept.filter(|kept| kept.given.issued <= issued) {
            kept.standing = Standing::Leaving;
            until = until.max(kept.given.issued);
            writes.push(put(device, product, kept)?);
        }
        let key = (*device, product.clone());
        let until = self.withdrawn.get(&key).map_or(until, |known| until.max(*known));
        writes.push(Write::put(Table::Withdrawn, encode(&key)?, encode(&(&key, until))?));
        self.withdrawn.insert(key, until);
        Ok(writes)
    }

    /// A letter of the device came that it wrote at `written`: what was taken back is over, and so is
    /// what had ended by then.
    pub(super) fn heard(
        &mut self,
        device: &DeviceId,
        written: Moment,
    ) -> Result<Vec<Write>, BookError> {
        let Some(kept) = self.kept.get_mut(device) else { return Ok(Vec::new()) };
        let over =
            |kept: &Kept| kept.standing == Standing::Leaving || kept.given.expires <= written;
        let mut writes = Vec::new();
        for (product, _) in kept.iter().filter(|(_, kept)| over(kept)) {
            writes.push(Write::remove(Table::Grants, encode(&(device, product))?));
        }
        kept.retain(|_, kept| !over(kept));
        if kept.is_empty() {
            self.kept.remove(device);
        }
        Ok(writes)
    }

    /// What a device was granted for a product and counts at `now`.
    pub fn given(&self, device: &DeviceId, product: &ProductId, now: Moment) -> Option<Given> {
        let kept = self.kept(device, product)?;
        let given = (kept.standing == Standing::Counts).then(|| kept.given.clone());
        grant::newest(given.into_iter(), now)
    }

    /// The cohort that a device's next letter may still name, whatever ended or was taken back.
    pub fn last_cohort(
        &self,
        device: &DeviceId,
        product: &ProductId,
        channel: &ChannelId,
    ) -> Option<&CohortId> {
        let given = &self.kept(device, product)?.given;
        (given.channel == *channel).then_some(&given.cohort)
    }

    fn kept(&self, device: &DeviceId, product: &ProductId) -> Option<&Kept> {
        self.kept.get(device)?.get(product)
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

    /// A letter of a device was taken, which it wrote at `written`: it has heard of what was taken back,
    /// and has met the end of what ended by then.
    pub fn heard_of_grants(&mut self, device: &DeviceId, written: Moment) -> Result<(), BookError> {
        self.writes.extend(self.grants.heard(device, written)?);
        Ok(())
    }

    /// The cohort in which a device is at `now`, by its grants and the policy.
    pub fn expected_cohort(
        &self,
        policy: &Policy,
        device: &DeviceId,
        (product, channel): (&ProductId, &ChannelId),
        now: Moment,
    ) -> Option<CohortId> {
        let given = self.grants.given(device, product, now);
        grant::cohort(policy, given.as_ref(), product, channel).cloned()
    }
}

fn put(device: &DeviceId, product: &ProductId, kept: &Kept) -> Result<Write, BookError> {
    let key = (device, product);
    Ok(Write::put(Table::Grants, encode(&key)?, encode(&(key, kept))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId([5; 32]);
    /// The host's clock, and what it may be behind.
    const LATEST: Moment = Moment(1_000);

    #[test]
    fn a_withdrawal_takes_back_what_was_granted_until_then_for_that_product() {
        let mut grants = Grants::default();
        for product in ["app", "os"] {
            grants.give(&grant(product, 100)).expect("written");
        }
        withdraw(&mut grants, 99);
        assert_eq!((early(&grants, "app"), early(&grants, "os")), (true, true));
        withdraw(&mut grants, 100);
        assert_eq!((early(&grants, "app"), early(&grants, "os")), (false, true));
    }

    #[test]
    fn what_was_withdrawn_stays_so_after_an_older_withdrawal() {
        let mut grants = Grants::default();
        grants.give(&grant("app", 100)).expect("written");
        withdraw(&mut grants, 100);
        withdraw(&mut grants, 50);
        assert!(grants.outdated(&grant("app", 100)).is_some());
        assert!(grants.outdated(&grant("app", 101)).is_none());
    }

    #[test]
    fn a_grant_of_tomorrow_that_was_taken_back_does_not_come_back_tomorrow() {
        let mut grants = Grants::default();
        grants.give(&grant("app", 5_000)).expect("written");
        withdraw(&mut grants, 5_000);
        grants.heard(&DEVICE, LATEST).expect("written");
        assert!(grants.outdated(&grant("app", 5_000)).is_some());
        assert!(grants.outdated(&grant("app", 5_001)).is_none(), "people sign another one");
    }

    fn withdraw(grants: &mut Grants, issued: i64) {
        let until = (Moment(issued), LATEST);
        grants.withdraw(&DEVICE, &"app".parse().expect("a name"), until).expect("written");
    }

    fn early(grants: &Grants, product: &str) -> bool {
        grants.given(&DEVICE, &product.parse().expect("a name"), LATEST).is_some()
    }

    fn grant(product: &str, issued: i64) -> Grant {
        Grant {
            repository: "trial".parse().expect("a name"),
            device: DEVICE,
            tenant: "acme".parse().expect("a name"),
            product: product.parse().expect("a name"),
            channel: stable(),
            cohort: "early".parse().expect("a name"),
            issued: Moment(issued),
            expires: Moment(100_000),
            reason: "a colleague's".into(),
        }
    }

    fn stable() -> ChannelId {
        "stable".parse().expect("a name")
    }
}
