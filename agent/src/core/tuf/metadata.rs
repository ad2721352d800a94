//! The four kinds of metadata, read from a signed part that was not yet verified. Reading takes what
//! it needs and ignores the rest; the rest stays in the signed bytes.

use std::collections::BTreeMap;

use lockgate_shared::time::Moment;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::DELEGATED_ROLES_PER_SEARCH;
use super::authority::Authority;
use super::error::{Malformed, quote};
use super::imprint::Hashes;
use super::names;

/// A kind of metadata.
pub(super) trait Document: Sized {
    /// What `_type` must say.
    const TYPE: &'static str;
    /// Takes the fields of this kind out of a signed part.
    fn read(head: Head, signed: Value) -> Result<Self, Malformed>;
    /// What every kind has.
    fn head(&self) -> Head;
}

/// What every kind of metadata has, besides its type and its specification's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: u64,
    pub(super) expires: Moment,
}

/// Reads a signed part as metadata of the kind `D`.
pub(super) fn read<D: Document>(signed: Value) -> Result<D, Malformed> {
    let kind = text(&signed, "_type")?;
    if kind != D::TYPE {
        return Err(Malformed::Type { expected: D::TYPE, found: quote(kind) });
    }
    let spec = text(&signed, "spec_version")?;
    if spec.split('.').next() != Some("1") {
        return Err(Malformed::SpecVersion(quote(spec)));
    }
    let Some(version) = signed.get("version").and_then(Value::as_u64) else {
        return Err(Malformed::Field("`version` is not a whole number".to_owned()));
    };
    if version == 0 {
        return Err(Malformed::VersionZero);
    }
    let expires = text(&signed, "expires")?;
    let expires =
        Moment::parse_rfc3339(expires).ok_or_else(|| Malformed::Moment(quote(expires)))?;
    D::read(Head { version, expires }, signed)
}

/// `root.json`: whose keys count for what.
#[derive(Debug, Clone)]
pub(super) struct Root {
    head: Head,
    /// Whether files carry their version, and targets their hash, in their names.
    pub(super) consistent: bool,
    pub(super) root: Authority,
    pub(super) timestamp: Authority,
    pub(super) snapshot: Authority,
    pub(super) targets: Authority,
}

impl Document for Root {
    const TYPE: &'static str = "root";

    fn read(head: Head, signed: Value) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default)]
            consistent_snapshot: bool,
            keys: BTreeMap<String, Value>,
            roles: Roles,
        }
        #[derive(Deserialize)]
        struct Roles {
            root: Signers,
            timestamp: Signers,
            snapshot: Signers,
            targets: Signers,
        }
        let Fields { consistent_snapshot, keys, roles } = fields(signed)?;
        let authority = |signers: &Signers| match signers.threshold {
            0 => Err(Malformed::Field("a role has a threshold of 0".to_owned())),
            _ => Ok(signers.authority(&keys)),
        };
        Ok(Self {
            head,
            consistent: consistent_snapshot,
            root: authority(&roles.root)?,
            timestamp: authority(&roles.timestamp)?,
            snapshot: authority(&roles.snapshot)?,
            targets: authority(&roles.targets)?,
        })
    }

    fn head(&self) -> Head {
        self.head
    }
}

/// `timestamp.json`: which snapshot is current.
#[derive(Debug, Clone)]
pub(super) struct Timestamp {
    head: Head,
    /// When it was signed, if the signer wrote that down.
    pub(super) issued: Option<Moment>,
    pub(super) snapshot: Named,
}

impl Document for Timestamp {
    const TYPE: &'static str = "timestamp";

    fn read(head: Head, signed: Value) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Fields {
            meta: Meta,
        }
        #[derive(Deserialize)]
        struct Meta {
            #[serde(rename = "snapshot.json")]
            snapshot: Named,
        }
        // Other repositories may have a field of this name that means something else.
        let issued = signed.get("issued").and_then(Value::as_str).and_then(Moment::parse_rfc3339);
        let Fields { meta } = fields(signed)?;
        Ok(Self { head, issued, snapshot: meta.snapshot })
    }

    fn head(&self) -> Head {
        self.head
    }
}

/// `snapshot.json`: which version of each targets role is current.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    head: Head,
    /// By file name without version, not escaped: `targets.json`.
    pub(super) files: BTreeMap<String, Named>,
}

impl Document for Snapshot {
    const TYPE: &'static str = "snapshot";

    fn read(head: Head, signed: Value) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Fields {
            meta: BTreeMap<String, Named>,
        }
        let Fields { meta } = fields(signed)?;
        Ok(Self { head, files: meta })
    }

    fn head(&self) -> Head {
        self.head
    }
}

impl Snapshot {
    /// What is said about a role.
    pub(super) fn file(&self, role: &str) -> Option<&Named> {
        self.files.get(&format!("{role}.json"))
    }
}

/// What a parent says about a metadata file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Named {
    pub(super) version: u64,
    #[serde(default)]
    pub(super) length: Option<u64>,
    #[serde(default)]
    pub(super) hashes: Option<Hashes>,
}

/// `targets.json` or a delegated role: what targets are, and who else may say so.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    head: Head,
    pub(super) targets: BTreeMap<String, Target>,
    delegations: Delegations,
}

/// What a role says about a target.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Target {
    pub(super) length: u64,
    pub(super) hashes: Hashes,
    #[serde(default)]
    pub(super) custom: Option<Value>,
}

impl Document for Targets {
    const TYPE: &'static str = "targets";

    fn read(head: Head, signed: Value) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Fields {
            targets: BTreeMap<String, Target>,
            #[serde(default)]
            delegations: Option<Delegations>,
        }
        let Fields { targets, delegations } = fields(signed)?;
        let delegations = match delegations {
            Some(delegations) => delegations.checked()?,
            None => Delegations::default(),
        };
        Ok(Self { head, targets, delegations })
    }

    fn head(&self) -> Head {
        self.head
    }
}

impl Targets {
    /// The roles to ask about `path` next, in the order in which they take precedence; one more
    /// than a search visits is enough to see that there are too many.
    pub(super) fn delegates(&self, path: &str) -> Vec<Delegate> {
        let Delegations { keys, roles, succinct_roles } = &self.delegations;
        if let Some(bins) = succinct_roles {
            let name = names::bin(path, &bins.name_prefix, bins.bit_length);
            let authority = Authority::new(bins.threshold, &bins.keyids, keys);
            return vec![Delegate { name, authority, after: After::Nothing }];
        }
        roles
            .iter()
            .flatten()
            .filter(|role| role.covers(path))
            .take(DELEGATED_ROLES_PER_SEARCH + 1)
            .map(|role| Delegate {
                name: role.name.clone(),
                authority: Authority::new(role.threshold, &role.keyids, keys),
                after: if role.terminating { After::Nothing } else { After::Others },
            })
            .collect()
    }
}

/// A role that may say something about a path.
#[derive(Debug, Clone)]
pub(super) struct Delegate {
    pub(super) name: String,
    pub(super) authority: Authority,
    pub(super) after: After,
}

/// Who is asked when a role and its own delegates know nothing of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The delegations that come after it.
    Others,
    /// Nobody: the delegation is terminating.
    Nothing,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Delegations {
    keys: BTreeMap<String, Value>,
    #[serde(default)]
    roles: Option<Vec<Delegated>>,
    #[serde(default)]
    succinct_roles: Option<Bins>,
}

impl Delegations {
    fn checked(self) -> Result<Self, Malformed> {
        if self.roles.is_some() == self.succinct_roles.is_some() {
            return Err(Malformed::Delegations);
        }
        if self.succinct_roles.as_ref().is_some_and(|bins| !(1..=32).contains(&bins.bit_length)) {
            return Err(Malformed::Field("`bit_length` is not from 1 to 32".to_owned()));
        }
        let sound = |role: &Delegated| role.paths.is_some() != role.path_hash_prefixes.is_some();
        if self.roles.iter().flatten().all(sound) { Ok(self) } else { Err(Malformed::Delegation) }
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Delegated {
    name: String,
    keyids: Vec<String>,
    threshold: u64,
    #[serde(default)]
    terminating: bool,
    #[serde(default)]
    paths: Option<Vec<String>>,
    #[serde(default)]
    path_hash_prefixes: Option<Vec<String>>,
}

impl Delegated {
    fn covers(&self, path: &str) -> bool {
        self.paths.iter().flatten().any(|pattern| names::matches(pattern, path))
            || self.path_hash_prefixes.iter().flatten().any(|p| names::hash_begins(path, p))
    }
}

/// Hash bins of one set of keys (TAP 15).
#[derive(Debug, Clone, Deserialize)]
struct Bins {
    keyids: Vec<String>,
    threshold: u64,
    bit_length: u32,
    name_prefix: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Signers {
    keyids: Vec<String>,
    threshold: u64,
}

impl Signers {
    fn authority(&self, keys: &BTreeMap<String, Value>) -> Authority {
        Authority::new(self.threshold, &self.keyids, keys)
    }
}

fn fields<T: DeserializeOwned>(signed: Value) -> Result<T, Malformed> {
    serde_json::from_value(signed).map_err(|e| Malformed::Field(quote(&e.to_string())))
}

fn text<'a>(signed: &'a Value, name: &str) -> Result<&'a str, Malformed> {
    let found = signed.get(name).and_then(Value::as_str);
    found.ok_or_else(|| Malformed::Field(format!("`{name}` is not text")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in ["", "2026-11-21", "2026-11-21T11:38:13", "2026-02-29T00:00:00Z", "never"] {
            let read = read::<Snapshot>(json!({
                "_type": "snapshot", "spec_version": "1.0", "version": 1,
                "expires": text, "meta": {}
            }));
            assert!(matches!(read, Err(Malformed::Moment(_))), "{text}");
        }
    }

    #[test]
    fn another_major_version_of_the_specification_is_refused_and_a_minor_one_accepted() {
        let snapshot = |spec: &str| {
            read::<Snapshot>(json!({
                "_type": "snapshot", "spec_version": spec, "version": 1,
                "expires": "2030-01-01T00:00:00Z", "meta": {}
            }))
        };
        for spec in ["1.0", "1.0.34", "1.99.0", "1"] {
            assert!(snapshot(spec).is_ok(), "{spec}");
        }
        for spec in ["2.0.0", "0.9", "10.0", "", "v1.0"] {
            assert!(matches!(snapshot(spec), Err(Malformed::SpecVersion(_))), "{spec}");
        }
    }

    #[test]
    fn versions_are_whole_numbers_from_one_to_the_largest() {
        let snapshot = |version: Value| {
            read::<Snapshot>(json!({
                "_type": "snapshot", "spec_version": "1.0", "version": version,
                "expires": "2030-01-01T00:00:00Z", "meta": {}
            }))
        };
        for version in [json!(0), json!(-1), json!(1.5), json!("1"), json!(null)] {
            assert!(snapshot(version.clone()).is_err(), "{version}");
        }
        let largest = snapshot(json!(u64::MAX)).expect("the largest version");
        assert_eq!(largest.head().version, u64::MAX);
    }

    #[test]
    fn delegations_are_a_list_of_roles_or_bins_and_nothing_else() {
        let targets = |delegations: Value| {
            read::<Targets>(json!({
                "_type": "targets", "spec_version": "1.0", "version": 1,
                "expires": "2030-01-01T00:00:00Z", "targets": {}, "delegations": delegations
            }))
        };
        let bins = json!({"keyids": [], "threshold": 1, "bit_length": 4, "name_prefix": "b"});
        assert!(targets(json!({"keys": {}, "roles": []})).is_ok());
        assert!(targets(json!({"keys": {}, "succinct_roles": bins})).is_ok());
        for refused in [
            json!({}),
            json!({"keys": {}}),
            json!({"roles": []}),
            json!({"keys": {}, "roles": null}),
            json!({"keys": {}, "roles": [], "succinct_roles": bins}),
        ] {
            assert!(targets(refused.clone()).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_delegation_has_either_paths_or_hash_prefixes() {
        let targets = |role: Value| {
            read::<Targets>(json!({
                "_type": "targets", "spec_version": "1.0", "version": 1,
                "expires": "2030-01-01T00:00:00Z", "targets": {},
                "delegations": {"keys": {}, "roles": [role]}
            }))
        };
        let role = json!({"name": "a", "keyids": [], "threshold": 1, "paths": ["*"]});
        let mut both = role.clone();
        both["path_hash_prefixes"] = json!(["0"]);
        let neither = json!({"name": "a", "keyids": [], "threshold": 1});
        assert!(targets(role).is_ok());
        assert!(targets(both).is_err());
        assert!(targets(neither).is_err());
    }
}
