//! One immutable view of the small tables. It is made of rows and changed by rows, the same way at
//! the start and at every change, so that memory cannot say anything that the disk does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lockgate_shared::{
    id::{DeviceId, Digest, ProductId, TenantId},
    loosening::SignedLoosening,
    pin::Pin,
    rollout::Scope,
    time::Moment,
    version::Version,
    window::{Freeze, Window},
};

use super::{
    RegistryError, orders,
    rows::{self, GrantRow, Reach, ReleaseRow, StopRow, TokenRow},
};
use crate::{
    letters::OrdersBook,
    store::{Change, Table},
};

/// The small tables. Maps are shared with the view before; a change copies those it touches.
#[derive(Clone, Debug)]
pub struct View {
    /// Tokens by name.
    pub tokens: Arc<BTreeMap<String, TokenRow>>,
    secrets: Arc<BTreeMap<Digest, String>>,
    /// Pins.
    pub pins: Arc<BTreeMap<Reach, BTreeMap<ProductId, Pin>>>,
    /// Maintenance windows.
    pub windows: Arc<BTreeMap<Reach, Vec<Window>>>,
    /// Freezes.
    pub freezes: Arc<BTreeMap<Reach, Vec<Freeze>>>,
    /// Signed grants.
    pub grants: Arc<BTreeMap<Reach, BTreeMap<ProductId, GrantRow>>>,
    /// What tenants' own keys loosened, by kind.
    pub loosenings: Arc<BTreeMap<Reach, BTreeMap<String, SignedLoosening>>>,
    /// The newest moment of issue of a revoked grant: it and older ones stay revoked, however often they
    /// are handed in again.
    pub revoked_grants: Arc<BTreeMap<Reach, BTreeMap<ProductId, Moment>>>,
    /// Stops on their way, by entry.
    pub stops: Arc<BTreeMap<u64, StopRow>>,
    /// Releases.
    pub releases: Arc<BTreeMap<(ProductId, Version), ReleaseRow>>,
    book: Arc<OrdersBook>,
}

/// Whose orders a change may have changed.
#[derive(Debug, Default)]
struct Touched {
    everyone: bool,
    tenants: BTreeSet<TenantId>,
}

impl View {
    /// The view of empty tables.
    pub fn empty() -> Result<Self, RegistryError> {
        let book = OrdersBook::empty().map_err(RegistryError::Orders)?;
        Ok(Self {
            tokens: Arc::default(),
            secrets: Arc::default(),
            pins: Arc::default(),
            windows: Arc::default(),
            freezes: Arc::default(),
            grants: Arc::default(),
            loosenings: Arc::default(),
            revoked_grants: Arc::default(),
            stops: Arc::default(),
            releases: Arc::default(),
            book: Arc::new(book),
        })
    }

    /// The view after some changes; refused where they would give a device more than a directive
    /// holds.
    pub fn with(&self, changes: &[Change]) -> Result<Self, RegistryError> {
        let mut next = self.clone();
        let mut touched = Touched::default();
        for change in changes {
            next.apply(change, &mut touched)?;
        }
        if !touched.everyone && touched.tenants.is_empty() {
            return Ok(next);
        }
        let mut book = OrdersBook::clone(&self.book);
        if touched.everyone {
            orders::refresh_everyone(&mut book, &next)?;
            touched.tenants.extend(book.tenants.keys().cloned());
        }
        for tenant in &touched.tenants {
            orders::refresh_tenant(&mut book, (self, &next), tenant)?;
        }
        next.book = Arc::new(book);
        Ok(next)
    }

    /// What devices are told.
    pub const fn book(&self) -> &Arc<OrdersBook> {
        &self.book
    }

    /// The token with this text's SHA-256, unless it was revoked.
    pub fn token(&self, secret: &Digest) -> Option<&TokenRow> {
        let row = self.tokens.get(self.secrets.get(secret)?)?;
        row.revoked.is_none().then_some(row)
    }

    /// The published versions of a product, oldest first.
    pub fn published<'a>(&'a self, product: &'a ProductId) -> impl Iterator<Item = &'a Version> {
        self.releases
            .iter()
            .filter(move |((of, _), row)| of == product && row.published.is_some())
            .map(|((_, version), _)| version)
    }

    /// The devices of a tenant about which some row speaks.
    pub(super) fn devices_with_rows(&self, tenant: &TenantId) -> BTreeSet<DeviceId> {
        let pins = devices_of(&self.pins, tenant);
        let windows = devices_of(&self.windows, tenant);
        let freezes = devices_of(&self.freezes, tenant);
        let grants = devices_of(&self.grants, tenant);
        let loosened = devices_of(&self.loosenings, tenant);
        pins.chain(windows).chain(freezes).chain(grants).chain(loosened).collect()
    }

    fn apply(&mut self, change: &Change, touched: &mut Touched) -> Result<(), RegistryError> {
        let Change { table, key, value } = change;
        let value = value.as_deref();
        match table {
            Table::Tokens => self.apply_token(key, value),
            Table::RevokedGrants => {
                let Some((reach, product)) = rows::read_product_key(key) else {
                    return Err(bad_key(*table, key));
                };
                set_inner(&mut self.revoked_grants, reach, product, *table, key, value)
            }
            Table::Pins | Table::Grants => {
                let Some((reach, product)) = rows::read_product_key(key) else {
                    return Err(bad_key(*table, key));
                };
                touched.tenants.insert(reach.tenant.clone());
                if *table == Table::Pins {
                    set_inner(&mut self.pins, reach, product, *table, key, value)
                } else {
                    set_inner(&mut self.grants, reach, product, *table, key, value)
                }
            }
            Table::Loosenings => {
                let Some((reach, kind)) = rows::read_loosening_key(key) else {
                    return Err(bad_key(*table, key));
                };
                touched.tenants.insert(reach.tenant.clone());
                set_inner(&mut self.loosenings, reach, kind, *table, key, value)
            }
            Table::Windows | Table::Freezes => {
                let Some(reach) = rows::read_reach_key(key) else {
                    return Err(bad_key(*table, key));
                };
                touched.tenants.insert(reach.tenant.clone());
                if *table == Table::Windows {
                    set(&mut self.windows, reach, *table, key, value)
                } else {
                    set(&mut self.freezes, reach, *table, key, value)
                }
            }
            Table::Stops => {
                let Ok(offset) = key.parse::<u64>() else { return Err(bad_key(*table, key)) };
                self.touch_stop(offset, touched);
                set(&mut self.stops, offset, *table, key, value)?;
                self.touch_stop(offset, touched);
                Ok(())
            }
            Table::Releases => {
                let Some(of) = rows::read_release_key(key) else {
                    return Err(bad_key(*table, key));
                };
                set(&mut self.releases, of, *table, key, value)
            }
            // Uses of enrolment tokens and barred devices belong to the letter box; reports are kept
            // apart.
            Table::TokenUses | Table::Bars | Table::Reports => Ok(()),
        }
    }

    fn apply_token(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), RegistryError> {
        let secrets = Arc::make_mut(&mut self.secrets);
        if let Some(old) = self.tokens.get(key) {
            secrets.remove(&old.secret);
        }
        set(&mut self.tokens, key.to_owned(), Table::Tokens, key, value)?;
        if let Some(new) = self.tokens.get(key) {
            secrets.insert(new.secret, key.to_owned());
        }
        Ok(())
    }

    fn touch_stop(&self, offset: u64, touched: &mut Touched) {
        match self.stops.get(&offset).map(|row| &row.stop.scope) {
            None => {}
            Some(Scope::Tenant(tenant)) => {
                touched.tenants.insert(tenant.clone());
            }
            Some(
                Scope::Rollout(_)
                | Scope::Groups(..)
                | Scope::Cohort(..)
                | Scope::Product(_)
                | Scope::Everything,
            ) => touched.everyone = true,
        }
    }
}

fn set<K: Ord + Clone, V: Clone + serde::de::DeserializeOwned>(
    map: &mut Arc<BTreeMap<K, V>>,
    key: K,
    table: Table,
    text: &str,
    value: Option<&[u8]>,
) -> Result<(), RegistryError> {
    match value {
        Some(bytes) => {
            let row = rows::read(table, text, bytes)?;
            Arc::make_mut(map).insert(key, row);
        }
        None => {
            Arc::make_mut(map).remove(&key);
        }
    }
    Ok(())
}

fn set_inner<K: Ord + Clone, V: Clone + serde::de::DeserializeOwned>(
    map: &mut Arc<BTreeMap<Reach, BTreeMap<K, V>>>,
    reach: Reach,
    inner_key: K,
    table: Table,
    text: &str,
    value: Option<&[u8]>,
) -> Result<(), RegistryError> {
    let map = Arc::make_mut(map);
    match value {
        Some(bytes) => {
            let row = rows::read(table, text, bytes)?;
            map.entry(reach).or_default().insert(inner_key, row);
        }
        None => {
            if let Some(inner) = map.get_mut(&reach) {
                inner.remove(&inner_key);
                if inner.is_empty() {
                    map.remove(&reach);
                }
            }
        }
    }
    Ok(())
}

fn devices_of<'a, V>(
    map: &'a BTreeMap<Reach, V>,
    tenant: &'a TenantId,
) -> impl Iterator<Item = DeviceId> + 'a {
    map.range(Reach::all(tenant.clone())..)
        .take_while(move |(reach, _)| reach.tenant == *tenant)
        .filter_map(|(reach, _)| reach.device)
}

fn bad_key(table: Table, key: &str) -> RegistryError {
    RegistryError::Key { table: table.name(), key: key.to_owned() }
}
