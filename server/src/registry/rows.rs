//! The rows of the small tables: what they hold, their keys, and their bytes (JSON). Nothing is
//! decided here.

use std::fmt;

use lockgate_shared::{
    act::{Grant, SignedAct},
    id::{DeviceId, Digest, ProductId, TenantId},
    recall::Recall,
    rollout::PassedStop,
    time::Moment,
    version::Version,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::RegistryError;
use crate::{
    store::{Change, Table},
    stream::StopHow,
};

/// An API token. Its secret is not here: only the secret's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Its name; the policy gives each name to one person. One that a tenant's administrator made begins
    /// with the tenant's name and a slash.
    pub name: String,
    /// What it may do.
    pub role: TokenRole,
    /// The only tenant whose devices it sees and restricts; none for the vendor's own people.
    pub tenant: Option<TenantId>,
    /// SHA-256 of its text.
    pub secret: Digest,
    /// When it was made.
    pub created: Moment,
    /// When it was revoked.
    pub revoked: Option<Moment>,
}

/// What a token may do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum TokenRole {
    /// Submit acts, stop, restrict, read everything.
    Operator,
    /// Restrict one tenant's devices and read about them.
    Administrator,
    /// Read.
    Auditor,
    /// Upload artifacts and signed metadata.
    Publisher,
}

impl TokenRole {
    /// The role as people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Administrator => "administrator",
            Self::Auditor => "auditor",
            Self::Publisher => "publisher",
        }
    }
}

impl fmt::Display for TokenRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// For whom a restriction holds: one device of a tenant, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// The tenant.
    pub tenant: TenantId,
    /// The device; none for all of the tenant's.
    pub device: Option<DeviceId>,
}

impl Reach {
    /// All devices of a tenant.
    pub const fn all(tenant: TenantId) -> Self {
        Self { tenant, device: None }
    }

    /// The device as people write it: its id, or `*`.
    pub fn device_text(&self) -> String {
        self.device.map_or_else(|| "*".to_owned(), |device| device.to_string())
    }

    fn parse(tenant: &str, device: &str) -> Option<Self> {
        let device = match device {
            "*" => None,
            id => Some(id.parse().ok()?),
        };
        Some(Self { tenant: tenant.parse().ok()?, device })
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.device_text())
    }
}

/// A signed grant, as it is passed on to its device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRow {
    /// The entry with which it came.
    pub offset: u64,
    /// When it came.
    pub received: Moment,
    /// The act as people signed it.
    pub act: SignedAct,
    /// The same, read.
    pub grant: Grant,
}

/// A stop on its way to a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRow {
    /// The entry with which it came.
    pub offset: u64,
    /// What devices are told.
    pub stop: PassedStop,
    /// Whether it can be lifted.
    pub how: StopHow,
    /// The token that stopped.
    pub token: String,
}

/// A release that was handed in, and whether the gatekeeper took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRow {
    /// The product.
    pub product: ProductId,
    /// The version.
    pub version: Version,
    /// SHA-256 of its manifest.
    pub manifest: Digest,
    /// The entry with which it came.
    pub offset: u64,
    /// When it came.
    pub submitted: Moment,
    /// When the gatekeeper accepted it; none until then.
    pub published: Option<Moment>,
    /// What people want to know of its manifest.
    pub summary: ReleaseSummary,
    /// Its recall, if it has one.
    #[serde(default)]
    pub recall: Option<RecallRow>,
}

/// A recall that was handed in, and whether the gatekeeper took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallRow {
    /// What it says.
    pub recall: Recall,
    /// The entry with which it came.
    pub offset: u64,
    /// When the gatekeeper accepted it; none until then.
    pub published: Option<Moment>,
}

/// What people want to know of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseSummary {
    /// `routine`, or `security` with its score.
    pub severity: String,
    /// What changed.
    pub notes: String,
    /// Its artifacts.
    pub artifacts: Vec<ArtifactSummary>,
    /// Its ladder, in words.
    pub stages: Vec<StageSummary>,
    /// Whether it cannot be undone.
    pub irreversible: bool,
    /// The least version from which it installs.
    pub barrier: Option<Version>,
    /// When it stops being supported.
    pub end_of_support: Option<Moment>,
}

/// One artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactSummary {
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its packed size.
    pub size: u64,
    /// For which architecture; none for any.
    pub arch: Option<String>,
    /// How many files it has.
    pub files: u64,
}

/// One stage of the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSummary {
    /// The cohort.
    pub cohort: String,
    /// The share that it may reach, in millionths.
    pub ceiling_ppm: u32,
    /// The floor, counted from the start.
    pub floor_s: u64,
    /// How long it is watched after it is full.
    pub bake_s: u64,
    /// Whether people must approve it.
    pub approval: bool,
}

/// The key of a pin or a grant.
pub fn product_key(reach: &Reach, product: &ProductId) -> String {
    format!("{reach}/{product}")
}

/// Reads the key of a pin or a grant.
pub fn read_product_key(key: &str) -> Option<(Reach, ProductId)> {
    let mut parts = key.splitn(3, '/');
    let reach = Reach::parse(parts.next()?, parts.next()?)?;
    Some((reach, parts.next()?.parse().ok()?))
}

/// The key of a loosening.
pub fn loosening_key(reach: &Reach, kind: &str) -> String {
    format!("{reach}/{kind}")
}

/// Reads the key of a loosening.
pub fn read_loosening_key(key: &str) -> Option<(Reach, String)> {
    let mut parts = key.splitn(3, '/');
    let reach = Reach::parse(parts.next()?, parts.next()?)?;
    Some((reach, parts.next()?.to_owned()))
}

/// Reads the key of windows and freezes.
pub fn read_reach_key(key: &str) -> Option<Reach> {
    let (tenant, device) = key.split_once('/')?;
    Reach::parse(tenant, device)
}

/// The key of windows and freezes.
pub fn reach_key(reach: &Reach) -> String {
    reach.to_string()
}

/// The key of a release.
pub fn release_key(product: &ProductId, version: &Version) -> String {
    format!("{product}/{version}")
}

/// Reads a release's key.
pub fn read_release_key(key: &str) -> Option<(ProductId, Version)> {
    let (product, version) = key.split_once('/')?;
    Some((product.parse().ok()?, version.parse().ok()?))
}

/// A number as a key: twenty digits, so that text sorts as numbers do.
pub fn number_key(number: u64) -> String {
    format!("{number:020}")
}

/// A change that writes a row.
pub fn write<T: Serialize>(table: Table, key: String, row: &T) -> Result<Change, RegistryError> {
    match serde_json::to_vec(row) {
        Ok(bytes) => Ok(Change { table, key, value: Some(bytes) }),
        Err(source) => Err(RegistryError::Row { table: table.name(), key, source }),
    }
}

/// A change that removes a row.
pub const fn remove(table: Table, key: String) -> Change {
    Change { table, key, value: None }
}

/// Reads a row.
pub fn read<T: DeserializeOwned>(
    table: Table,
    key: &str,
    bytes: &[u8],
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|source| RegistryError::Row {
        table: table.name(),
        key: key.to_owned(),
        source,
    })
}
