//! The orders that check-ins answer with, prepared whenever a restriction changes and swapped whole:
//! an answer is looked up, never computed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use lockgate_shared::{
    id::{DeviceId, Digest, TenantId},
    wire::{CodecError, Orders},
};

/// Orders with their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    orders: Orders,
    digest: Digest,
}

/// Everyone's orders. A device has its own, or else its tenant's, or else everyone's.
#[derive(Clone, Debug)]
pub struct OrdersBook {
    /// Devices with orders that differ from their tenant's.
    pub devices: HashMap<DeviceId, Arc<Prepared>>,
    /// Tenants with orders that differ from everyone's.
    pub tenants: BTreeMap<TenantId, Arc<Prepared>>,
    /// Everyone else's.
    pub everyone: Arc<Prepared>,
}

impl Prepared {
    /// Orders that fit an answer.
    pub fn new(orders: Orders) -> Result<Self, CodecError> {
        Ok(Self { digest: orders.digest()?, orders })
    }

    /// The orders.
    pub const fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Their digest, as letters name it.
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

impl OrdersBook {
    /// A book in which nobody is told anything.
    pub fn empty() -> Result<Self, CodecError> {
        let everyone = Arc::new(Prepared::new(Orders::default())?);
        Ok(Self { devices: HashMap::new(), tenants: BTreeMap::new(), everyone })
    }

    /// A device's orders.
    pub fn of(&self, tenant: &TenantId, device: &DeviceId) -> &Arc<Prepared> {
        self.devices.get(device).or_else(|| self.tenants.get(tenant)).unwrap_or(&self.everyone)
    }
}

#[cfg(test)]
mod tests {
    use lockgate_shared::{
        rollout::{PassedStop, Scope},
        time::Moment,
    };

    use super::*;

    fn prepared(reason: &str) -> Arc<Prepared> {
        let stop = PassedStop {
            offset: 1,
            scope: Scope::Everything,
            since: Moment(1),
            reason: reason.into(),
        };
        Arc::new(Prepared::new(Orders { stops: vec![stop], ..Orders::default() }).expect("orders"))
    }

    #[test]
    fn a_devices_own_orders_come_before_its_tenants_and_those_before_everyones() {
        let tenant: TenantId = "acme".parse().expect("a name");
        let other: TenantId = "other".parse().expect("a name");
        let mut book = OrdersBook::empty().expect("a book");
        book.tenants.insert(tenant.clone(), prepared("tenant"));
        book.devices.insert(DeviceId([1; 32]), prepared("device"));
        assert_eq!(book.of(&tenant, &DeviceId([1; 32])), &prepared("device"));
        assert_eq!(book.of(&tenant, &DeviceId([2; 32])), &prepared("tenant"));
        assert_eq!(book.of(&other, &DeviceId([2; 32])), &book.everyone);
    }
}
