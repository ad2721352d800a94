//! What the letter box knows besides letters: tokens, pins, windows, freezes, grants, stops on their
//! way, releases. Readers get an immutable view, swapped whole.
//!
//! A change is written to the store first and shown then. Nothing here can let a device in: pins,
//! windows, freezes and stops restrict, grants are signed by approvers and verified by the device.

mod orders;
pub mod rows;
mod view;

use std::{future::Future, pin::Pin as Pinned, sync::Arc};

use arc_swap::ArcSwap;
use lockgate_shared::{
    id::{Digest, PersonId, TenantId},
    rollout::Scope,
    time::Moment,
    wire::CodecError,
};
use thiserror::Error;

use self::rows::{StopRow, TokenRole, TokenRow};
pub use self::view::View;
use crate::{
    letters::{JournalError, OrdersBook},
    status::{Decision, RolloutState, Status, Verdict},
    store::{Change, Store, StoreError, Table},
    stream::{EntryKind, StopHow},
};

/// How a token's text begins: it is found in logs and by scanners for leaked secrets.
pub const TOKEN_PREFIX: &str = "lgtok1_";
/// Random bytes in a token: nobody guesses 256 bits.
pub const TOKEN_BYTES: usize = 32;

/// The tables that make a view, in the order in which they are read.
pub(crate) const TABLES: [Table; 9] = [
    Table::Tokens,
    Table::Pins,
    Table::Windows,
    Table::Freezes,
    Table::Grants,
    Table::Loosenings,
    Table::RevokedGrants,
    Table::Stops,
    Table::Releases,
];

/// An answer that comes later.
pub type Later<'a, T> = Pinned<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where changes of the small tables are written.
pub trait Tables: Send + Sync {
    /// Writes changes together; they are on disk when it answers.
    fn put(&self, changes: Vec<Change>) -> Later<'_, Result<(), JournalError>>;

    /// Writes changes and appends an entry to the stream, together or not at all; they are on disk when
    /// it answers with the entry's offset.
    fn put_and_append(
        &self,
        changes: Vec<Change>,
        kind: EntryKind,
        bytes: Vec<u8>,
    ) -> Later<'_, Result<u64, JournalError>>;

    /// Shows check-ins what devices are told from now on. Called after `put`, one change at a time.
    fn tell(&self, book: Arc<OrdersBook>);
}

/// Why the registry could not do it.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal's writer failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Empty orders cannot be encoded, which no store can cause.
    #[error("orders cannot be encoded")]
    Orders(#[source] CodecError),
    /// A row cannot be read or written.
    #[error("row `{key}` of table `{table}` cannot be read or written")]
    Row {
        /// The table.
        table: &'static str,
        /// The row.
        key: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A row's key is not one.
    #[error("`{key}` is not a key of table `{table}`")]
    Key {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
    },
    /// A device would be told more than a directive holds.
    #[error(
        "this would give `{whom}` more than {max} {what}, and its directive would not fit\nhint: clear what is no longer needed"
    )]
    TooMuch {
        /// The device or tenant.
        whom: String,
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
    /// A token's name is taken.
    #[error("there is a token `{0}` already\nhint: names are never used twice; choose another")]
    TokenExists(String),
    /// A token's name is not one.
    #[error(
        "`{0}` is not a token's name\nhint: use 1 to 64 characters of `a-z`, `0-9`, `.`, `_`, `-`"
    )]
    TokenName(String),
    /// An administrator needs a tenant, and a publisher or operator has none.
    #[error(
        "role `{role}` {}\nhint: administrators belong to one tenant, auditors may, operators and publishers do not",
        if *.needs { "needs a tenant" } else { "cannot have a tenant" }
    )]
    TokenTenant {
        /// The role.
        role: TokenRole,
        /// Whether a tenant is missing.
        needs: bool,
    },
}

/// The registry: one view for all readers, one writer at a time.
#[derive(Debug)]
pub struct Registry {
    view: ArcSwap<View>,
    turn: tokio::sync::Mutex<()>,
}

impl Registry {
    /// Reads the small tables.
    pub fn load(store: &dyn Store) -> Result<Self, RegistryError> {
        let mut changes = Vec::new();
        for table in TABLES {
            for (key, value) in store.table(table)? {
                changes.push(Change { table, key, value: Some(value) });
            }
        }
        Self::of_rows(&changes)
    }

    /// A registry made of rows, as if they had been written one after another.
    pub fn of_rows(changes: &[Change]) -> Result<Self, RegistryError> {
        Ok(Self::of(View::empty()?.with(changes)?))
    }

    /// A registry over a view.
    pub fn of(view: View) -> Self {
        Self { view: ArcSwap::from_pointee(view), turn: tokio::sync::Mutex::new(()) }
    }

    /// The view now. What is done with it holds together, whatever changes meanwhile.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Makes a change: `plan` sees the newest view, its rows go to disk, then the view is swapped.
    pub async fn change<E: From<RegistryError>>(
        &self,
        tables: &dyn Tables,
        plan: impl FnOnce(&View) -> Result<Vec<Change>, E> + Send,
    ) -> Result<Arc<View>, E> {
        let _turn = self.turn.lock().await;
        let now = self.view.load_full();
        let changes = plan(&now)?;
        if changes.is_empty() {
            return Ok(now);
        }
        let next = Arc::new(now.with(&changes)?);
        tables.put(changes).await.map_err(RegistryError::from)?;
        self.view.store(Arc::clone(&next));
        tables.tell(Arc::clone(next.book()));
        Ok(next)
    }

    /// Makes a change of which the gatekeeper hears, by an entry that is on disk with it or not at all:
    /// `plan` gives its rows and the entry. Returns the entry's offset.
    pub async fn change_and_append<E: From<RegistryError>>(
        &self,
        tables: &dyn Tables,
        plan: impl FnOnce(&View) -> Result<(Vec<Change>, EntryKind, Vec<u8>), E> + Send,
    ) -> Result<u64, E> {
        let _turn = self.turn.lock().await;
        let now = self.view.load_full();
        let (changes, kind, bytes) = plan(&now)?;
        let next = Arc::new(now.with(&changes)?);
        let offset =
            tables.put_and_append(changes, kind, bytes).await.map_err(RegistryError::from)?;
        self.view.store(Arc::clone(&next));
        tables.tell(Arc::clone(next.book()));
        Ok(offset)
    }

    /// Draws the consequences of what the gatekeeper reported: stops that have a number leave the
    /// orders, refused grants too, accepted releases count as published. It looks at what is open,
    /// not at what is new, so that a step that was lost half-way is made good by the next.
    pub async fn settle(
        &self,
        tables: &dyn Tables,
        status: &Status,
        verdict: impl Fn(u64) -> Option<Arc<Verdict>> + Send,
    ) -> Result<(), RegistryError> {
        self.change(tables, |view| consequences(view, status, verdict)).await.map(drop)
    }
}

/// What verdicts change in the tables.
fn consequences(
    view: &View,
    status: &Status,
    verdict: impl Fn(u64) -> Option<Arc<Verdict>>,
) -> Result<Vec<Change>, RegistryError> {
    let mut changes = Vec::new();
    for (offset, row) in view.stops.iter() {
        let Some(verdict) = verdict(*offset) else { continue };
        let over = verdict.decision == Decision::Refused
            || (status.at >= verdict.at && shows(status, *offset, row));
        if over {
            changes.push(rows::remove(Table::Stops, rows::number_key(*offset)));
        }
    }
    for (reach, grants) in view.grants.iter() {
        for (product, row) in grants {
            if verdict(row.offset).is_some_and(|verdict| verdict.decision == Decision::Refused) {
                changes.push(rows::remove(Table::Grants, rows::product_key(reach, product)));
            }
        }
    }
    for ((product, version), row) in view.releases.iter().filter(|(_, r)| r.published.is_none()) {
        let Some(verdict) = verdict(row.offset) else { continue };
        let key = rows::release_key(product, version);
        changes.push(if verdict.decision == Decision::Accepted {
            let row = rows::ReleaseRow { published: Some(verdict.at), ..row.clone() };
            rows::write(Table::Releases, key, &row)?
        } else {
            rows::remove(Table::Releases, key)
        });
    }
    for ((product, version), row) in view.releases.iter().filter(|(_, r)| r.published.is_some()) {
        let Some(recall) = row.recall.as_ref().filter(|recall| recall.published.is_none()) else {
            continue;
        };
        let Some(verdict) = verdict(recall.offset) else { continue };
        let recall = (verdict.decision == Decision::Accepted)
            .then(|| rows::RecallRow { published: Some(verdict.at), ..recall.clone() });
        let row = rows::ReleaseRow { recall, ..row.clone() };
        changes.push(rows::write(Table::Releases, rows::release_key(product, version), &row)?);
    }
    Ok(changes)
}

/// Whether signed files say at least as much as the stop that was passed on: they list it, or they
/// count its entry (and a lift may have ended it since).
fn shows(status: &Status, offset: u64, row: &StopRow) -> bool {
    let listed = match row.how {
        // An older pause of the same scope says nothing of this one, and hosts' clocks differ.
        StopHow::Pause => false,
        StopHow::End => status.rollouts.iter().any(|rollout| {
            row.stop.scope == Scope::Rollout(rollout.rollout)
                && rollout.state == RolloutState::Ended
        }),
    };
    listed || status.letters_offset > offset
}

/// What a new token is to be.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: TokenRole,
    /// Its tenant.
    pub tenant: Option<TenantId>,
}

impl NewToken {
    /// The row of a token with this secret text, if the token may be: its name is new, and its
    /// tenant fits its role.
    pub fn row(self, view: &View, text: &str, now: Moment) -> Result<Change, RegistryError> {
        let Self { name, role, tenant } = self;
        // Names are used once for good: a revoked token's name stands in old audit lines.
        if view.tokens.contains_key(&name) {
            return Err(RegistryError::TokenExists(name));
        }
        let own = tenant.as_ref().and_then(|tenant| name.strip_prefix(&own_prefix(tenant)));
        if own.unwrap_or(&name).parse::<PersonId>().is_err() {
            return Err(RegistryError::TokenName(name.chars().take(80).collect()));
        }
        match (role, &tenant) {
            (TokenRole::Administrator, None) => {
                return Err(RegistryError::TokenTenant { role, needs: true });
            }
            (TokenRole::Operator | TokenRole::Publisher, Some(_)) => {
                return Err(RegistryError::TokenTenant { role, needs: false });
            }
            (TokenRole::Administrator | TokenRole::Auditor, Some(_))
            | (TokenRole::Operator | TokenRole::Publisher | TokenRole::Auditor, None) => {}
        }
        let secret = Digest::of(text.as_bytes());
        let row =
            TokenRow { name: name.clone(), role, tenant, secret, created: now, revoked: None };
        rows::write(Table::Tokens, name, &row)
    }
}

/// How the names begin of tokens that a tenant's administrators make: no name of the vendor's or of
/// another tenant's begins so, and nobody learns by trying which names others have.
pub fn own_prefix(tenant: &TenantId) -> String {
    format!("{tenant}/")
}

/// A token's text, made of random bytes.
pub fn token_text(random: &[u8; TOKEN_BYTES]) -> String {
    format!("{TOKEN_PREFIX}{}", hex::encode(random))
}

/// Makes a token in a store that no server has open: how the first one comes to be. Returns its
/// text, which is shown once and stored nowhere.
pub fn create_token(
    store: &mut dyn Store,
    token: NewToken,
    random: &[u8; TOKEN_BYTES],
    now: Moment,
) -> Result<String, RegistryError> {
    let registry = Registry::load(store)?;
    let text = token_text(random);
    let change = token.row(&registry.view(), &text, now)?;
    store.put(&[change])?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use lockgate_shared::{
        id::{DeviceId, ProductId},
        pin::Pin,
    };

    use super::*;
    use crate::{registry::rows::Reach, store::memory::MemoryStore};

    #[test]
    fn what_was_written_is_told_again_after_a_restart() {
        let mut store = MemoryStore::default();
        let reach = reach(1);
        let app: ProductId = "app".parse().expect("a name");
        let key = rows::product_key(&reach, &app);
        let pin = rows::write(Table::Pins, key.clone(), &Pin::NMinus1).expect("a row");
        store.put(&[pin]).expect("written");
        let told = |store: &MemoryStore| {
            let view = Registry::load(store).expect("loads").view();
            view.book().of(&reach.tenant, &DeviceId([1; 32])).orders().pins.get(&app).cloned()
        };
        assert_eq!(told(&store), Some(Pin::NMinus1));
        store.put(&[rows::remove(Table::Pins, key)]).expect("written");
        assert_eq!(told(&store), None);
    }

    #[test]
    fn a_device_that_is_cleared_is_told_what_its_tenant_is() {
        let app: ProductId = "app".parse().expect("a name");
        let (own, all) = (reach(1), Reach::all(reach(1).tenant));
        let pin = |reach: &Reach, pin: &Pin| {
            rows::write(Table::Pins, rows::product_key(reach, &app), pin).expect("a row")
        };
        let view = View::empty().expect("empty");
        let view = view.with(&[pin(&own, &Pin::NMinus2), pin(&all, &Pin::NMinus1)]).expect("fits");
        let view =
            view.with(&[rows::remove(Table::Pins, rows::product_key(&own, &app))]).expect("fits");
        let told = view.book().of(&own.tenant, &DeviceId([1; 32]));
        assert_eq!(told.orders().pins.get(&app), Some(&Pin::NMinus1));
    }

    #[test]
    fn more_than_a_directive_holds_is_refused_before_it_is_written() {
        let pins: Vec<Change> = (0..9)
            .map(|number| {
                let product: ProductId = format!("app-{number}").parse().expect("a name");
                let key = rows::product_key(&reach(1), &product);
                rows::write(Table::Pins, key, &Pin::NMinus1).expect("a row")
            })
            .collect();
        let view = View::empty().expect("empty");
        assert!(matches!(
            view.with(&pins),
            Err(RegistryError::TooMuch { what: "pins", max: 8, .. })
        ));
    }

    #[test]
    fn the_first_token_is_made_without_a_server_and_its_text_is_stored_nowhere() {
        let mut store = MemoryStore::default();
        let token = NewToken { name: "ben".into(), role: TokenRole::Operator, tenant: None };
        let text = create_token(&mut store, token, &[7; TOKEN_BYTES], Moment(1)).expect("made");
        let registry = Registry::load(&store).expect("loads");
        assert!(registry.view().token(&Digest::of(text.as_bytes())).is_some());
        let bytes = store.table(Table::Tokens).expect("a table").remove("ben").expect("a row");
        assert!(!String::from_utf8_lossy(&bytes).contains(&"07".repeat(TOKEN_BYTES)));
    }

    fn reach(device: u8) -> Reach {
        Reach { tenant: "acme".parse().expect("a name"), device: Some(DeviceId([device; 32])) }
    }
}
