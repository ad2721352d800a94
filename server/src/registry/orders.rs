//! What each device is told to keep to, computed when a restriction changes. A check-in looks it up.
//!
//! A device's own pin and windows stand instead of its tenant's; freezes add up, because a device
//! must not thaw by getting a freeze of its own.

use std::{collections::BTreeMap, sync::Arc};

use lockgate_shared::{
    id::TenantId,
    limits,
    rollout::{PassedStop, Scope},
    wire::Orders,
};

use super::{RegistryError, View, rows::Reach};
use crate::letters::{OrdersBook, Prepared};

/// What a directive needs besides the orders: its fixed fields are below 100 bytes.
const DIRECTIVE_REST: usize = 1024;

/// Computes anew what everybody is told.
pub(super) fn refresh_everyone(book: &mut OrdersBook, view: &View) -> Result<(), RegistryError> {
    let stops = stops_for(view, None);
    book.everyone = prepared(Orders { stops, ..Orders::default() }, "*")?;
    Ok(())
}

/// Computes anew what one tenant's devices are told. `old` is the view before the change: what it
/// said of devices of which nothing is said any more, goes.
pub(super) fn refresh_tenant(
    book: &mut OrdersBook,
    (old, view): (&View, &View),
    tenant: &TenantId,
) -> Result<(), RegistryError> {
    for device in old.devices_with_rows(tenant) {
        book.devices.remove(&device);
    }
    let all = prepared(orders_of(view, &Reach::all(tenant.clone())), tenant.as_str())?;
    book.tenants.insert(tenant.clone(), all);
    for device in view.devices_with_rows(tenant) {
        let reach = Reach { tenant: tenant.clone(), device: Some(device) };
        book.devices.insert(device, prepared(orders_of(view, &reach), &reach.to_string())?);
    }
    Ok(())
}

fn orders_of(view: &View, reach: &Reach) -> Orders {
    let all = Reach::all(reach.tenant.clone());
    let mut orders = Orders { stops: stops_for(view, Some(&reach.tenant)), ..Orders::default() };
    orders.pins = view.pins.get(&all).cloned().unwrap_or_default();
    orders.windows = view.windows.get(&all).cloned().unwrap_or_default();
    orders.freezes = view.freezes.get(&all).cloned().unwrap_or_default();
    let loosened = |reach| view.loosenings.get(reach).into_iter().flat_map(BTreeMap::values);
    orders.loosened = loosened(&all).cloned().collect();
    if reach.device.is_none() {
        return orders;
    }
    orders.loosened.extend(loosened(reach).cloned());
    for (product, pin) in view.pins.get(reach).into_iter().flatten() {
        orders.pins.insert(product.clone(), pin.clone());
    }
    if let Some(windows) = view.windows.get(reach) {
        orders.windows.clone_from(windows);
    }
    if let Some(freezes) = view.freezes.get(reach) {
        orders.freezes.extend(freezes.iter().cloned());
    }
    let grants = view.grants.get(reach).into_iter().flatten();
    orders.grants = grants.map(|(_, row)| row.act.clone()).collect();
    orders
}

/// The stops on their way, one for each scope: the newest, which binds longest.
fn stops_for(view: &View, tenant: Option<&TenantId>) -> Vec<PassedStop> {
    let mut newest: BTreeMap<&Scope, &PassedStop> = BTreeMap::new();
    for row in view.stops.values() {
        let covered = match &row.stop.scope {
            Scope::Tenant(stopped) => tenant == Some(stopped),
            Scope::Rollout(_)
            | Scope::Groups(..)
            | Scope::Cohort(..)
            | Scope::Product(_)
            | Scope::Everything => true,
        };
        if covered {
            newest.insert(&row.stop.scope, &row.stop);
        }
    }
    newest.into_values().cloned().collect()
}

/// Orders that a directive can carry: in bincode and, for devices that speak it, in JSON.
fn prepared(orders: Orders, whom: &str) -> Result<Arc<Prepared>, RegistryError> {
    let too_much = |what: &'static str, max: usize| RegistryError::TooMuch {
        whom: whom.to_owned(),
        what,
        max,
    };
    for (count, what, max) in [
        (orders.pins.len(), "pins", limits::DEVICE_PRODUCTS),
        (orders.windows.len(), "windows", limits::WINDOWS),
        (orders.freezes.len(), "freezes", limits::FREEZES),
        (orders.stops.len(), "stops", limits::FILE_STOPS),
        (orders.grants.len(), "grants", limits::GRANTS),
        (orders.loosened.len(), "loosenings", limits::LOOSENINGS),
    ] {
        if count > max {
            return Err(too_much(what, max));
        }
    }
    let max = limits::DIRECTIVE_BYTES - DIRECTIVE_REST;
    let json = serde_json::to_vec(&orders).map_or(usize::MAX, |bytes| bytes.len());
    if json > max {
        return Err(too_much("bytes", max));
    }
    Prepared::new(orders).map(Arc::new).map_err(|error| {
        tracing::debug!(%error, "orders cannot be encoded");
        too_much("bytes", max)
    })
}
