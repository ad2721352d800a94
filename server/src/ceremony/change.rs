//! A change of who holds which role: the next versions of root, targets, policy and release roles in
//! one folder, which passes from signer to signer and is published whole or not at all.
//!
//! Every machine on the way checks the folder against its own copy of the repository, and against the
//! words that it shows: what cannot be shown is not signed. A root counts when the keys before and the
//! keys after have signed it, each in their number.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    num::NonZeroU64,
    path::Path,
};

use lockgate_shared::{
    id::{ProductId, PublicKey},
    limits,
    policy::{POLICY_PATH, Policy, PolicyError, Role},
    time::{Moment, Seconds},
};
use thiserror::Error;
use tough::schema::{RoleType, Root, Signed, Targets};

use super::{
    charter::{self, Charter, CharterError, Office},
    metadata::{self, FIRST, MetadataError, SPEC_VERSION},
    plan::{MAX_DAYS, Plan, PlanError, PlannedOnline, release_role},
};
use crate::{
    release::role::{LocalRepository, RoleError},
    signer::Signer,
    stream::Publication,
    tuf::{TufError, roles::Holder},
    whole_folder::{self, FolderError, Readers, WholeFolder},
};

/// What is changed.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// The plan as it shall be from now on; without one, all stays that the rest does not name.
    pub plan: Option<Plan>,
    /// Keys by which others are replaced, wherever they stand.
    pub replace: Vec<(PublicKey, PublicKey)>,
    /// The gatekeeper's next keys.
    pub online: PlannedOnline,
    /// Roles that get a later end though nothing else in them changes.
    pub renew: Renew,
    /// How long what is made is good; else as long as the plan says, or a year, or half a year for
    /// release roles.
    pub life: Option<Seconds>,
}

/// Roles that get a later end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Renew {
    /// Those that change anyway.
    #[default]
    Changed,
    /// These as well: `root`, `targets`, `releases-<product>`.
    Roles(BTreeSet<String>),
    /// All.
    All,
}

/// A repository as it stands, verified.
#[derive(Clone, Debug)]
pub struct Current {
    /// The root.
    pub root: Signed<Root>,
    /// The targets.
    pub targets: Signed<Targets>,
    /// The release roles, by name.
    pub releases: BTreeMap<String, Signed<Targets>>,
    /// Who holds which role.
    pub charter: Charter,
}

/// The next versions.
#[derive(Clone, Debug, Default)]
pub struct ChangeSet {
    /// Of the root.
    pub root: Option<Signed<Root>>,
    /// Of the targets.
    pub targets: Option<Signed<Targets>>,
    /// The policy's text, where it changes.
    pub policy: Option<String>,
    /// Of release roles, by name.
    pub releases: BTreeMap<String, Signed<Targets>>,
}

/// How far one role is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The role, and by whose keys: `root by its keys so far`.
    pub what: String,
    /// The keys that signed.
    pub signed: BTreeSet<PublicKey>,
    /// The keys that may sign and have not.
    pub missing: BTreeSet<PublicKey>,
    /// How many must.
    pub needed: u64,
}

/// Why a change is not made, signed or published.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The copy of the repository.
    #[error(transparent)]
    Copy(#[from] RoleError),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The policy that would follow.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Who holds which role.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// Metadata cannot be read or made.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Signatures cannot be counted.
    #[error(transparent)]
    Tuf(#[from] TufError),
    /// The folder cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The plan is for another repository.
    #[error("the plan is for repository `{plan}`, the copy is of `{copy}`")]
    OtherRepository {
        /// In the plan.
        plan: String,
        /// In the copy.
        copy: String,
    },
    /// Somebody or something has no key.
    #[error(
        "{what} `{name}` has no key yet\nhint: name the public half of one made with `lockgate key new` in the plan as `{field}`"
    )]
    NoKey {
        /// A person or a tenant.
        what: &'static str,
        /// Its name.
        name: String,
        /// The plan's field.
        field: &'static str,
    },
    /// The number of keys changes, and the keys are not named.
    #[error(
        "`{role}` shall have {planned} keys and has {present}\nhint: name all of them in `{role}.public_keys` of the plan"
    )]
    KeysNotNamed {
        /// The role.
        role: &'static str,
        /// In the plan.
        planned: u8,
        /// Now.
        present: usize,
    },
    /// The key to be replaced is nowhere.
    #[error("the key {0} stands nowhere in this repository")]
    NotThere(PublicKey),
    /// The new key has a place already.
    #[error(
        "the key {0} has a place in this repository already\nhint: each place needs a key of its own"
    )]
    Taken(PublicKey),
    /// There is no such role.
    #[error("there is no role `{0}`\nhint: roles are `root`, `targets` and `releases-<product>`")]
    NoRole(String),
    /// Nothing would change.
    #[error("nothing changes\nhint: `lockgate repo resign` gives roles a later end")]
    Nothing,
    /// The folder is not the successor of this repository.
    #[error(
        "this change does not follow from this repository: {0}\nhint: fetch a fresh copy with `lockgate repo fetch`; if others changed it meanwhile, make the change again"
    )]
    DoesNotFollow(String),
    /// A key that signs nothing here.
    #[error(
        "the key {0} may sign nothing of this change\nhint: root keys sign a root, the old ones and the new ones; targets keys sign targets, authors' keys their product's role; `lockgate key show` says which key a file holds"
    )]
    Stranger(PublicKey),
    /// Too few signatures.
    #[error(
        "{what} has {signed} of {needed} signatures it needs\nhint: have further holders of its keys sign with `lockgate repo sign`"
    )]
    Threshold {
        /// The role and whose keys.
        what: String,
        /// Signatures that hold.
        signed: usize,
        /// Signatures needed.
        needed: u64,
    },
}

/// The longest life of metadata.
const MAX_LIFE: Seconds = Seconds(MAX_DAYS as u64 * 86_400);
/// How long root and targets are good without a plan.
const YEAR: Seconds = Seconds(365 * 86_400);
/// How long a release role is good without a plan.
const HALF_A_YEAR: Seconds = Seconds(180 * 86_400);
/// The largest file of a change that is read.
const MAX_FILE: u64 = crate::tuf::METADATA_BYTES as u64;

impl Current {
    /// Reads a verified copy.
    pub fn of(copy: &LocalRepository) -> Result<Self, ChangeError> {
        let policy = copy.policy()?;
        let charter = Charter::of(&copy.root().signed, &copy.targets().signed, &policy)?;
        let mut releases = BTreeMap::new();
        for product in charter.releases.keys() {
            match copy.signed_role(product) {
                Ok(signed) => drop(releases.insert(release_role(product), signed)),
                // A product whose first metadata its authors still owe.
                Err(RoleError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (root, targets) = (copy.root().clone(), copy.targets().clone());
        Ok(Self { root, targets, releases, charter })
    }
}

/// The change set that an edit asks for, signed by nobody.
pub fn propose(current: &Current, edit: &Edit, now: Moment) -> Result<ChangeSet, ChangeError> {
    let next = charter_after(&current.charter, edit)?;
    let release_names = next.releases.keys().map(release_role);
    let names: BTreeSet<String> =
        release_names.chain(["root".to_owned(), "targets".to_owned()]).collect();
    let renewed = match &edit.renew {
        Renew::Changed => BTreeSet::new(),
        Renew::All => names,
        Renew::Roles(roles) => {
            if let Some(other) = roles.iter().find(|role| !names.contains(*role)) {
                return Err(ChangeError::NoRole(other.clone()));
            }
            roles.clone()
        }
    };
    let before = &current.charter;
    let offices = |charter: &Charter| {
        let Charter { root, targets, snapshot, timestamp, .. } = charter.clone();
        [root, targets, snapshot, timestamp]
    };
    let life = Lives::of(edit);
    let mut set = ChangeSet::default();
    if offices(before) != offices(&next) || renewed.contains("root") {
        let version = after("root", current.root.signed.version)?;
        let expires = metadata::expiry(now, life.root)?;
        set.root = Some(metadata::unsigned(next.root_role(version, expires)?));
    }
    let delegated = before.rollouts != next.rollouts || before.releases != next.releases;
    let people = before.policy != next.policy;
    let holders = before.targets != next.targets;
    if delegated || people || holders || renewed.contains("targets") {
        let version = after("targets", current.targets.signed.version)?;
        let expires = metadata::expiry(now, life.targets)?;
        let text = charter::policy_text(&next.policy)?;
        let role = next.targets_role(version, expires, text.as_bytes())?;
        set.targets = Some(metadata::unsigned(role));
        set.policy = Some(text);
    }
    for (product, office) in &next.releases {
        let name = release_role(product);
        if before.releases.get(product) == Some(office) && !renewed.contains(&name) {
            continue;
        }
        let expires = metadata::expiry(now, life.release)?;
        let role = next_release(current.releases.get(&name), &name, expires)?;
        set.releases.insert(name, metadata::unsigned(role));
    }
    if set.is_empty() { Err(ChangeError::Nothing) } else { Ok(set) }
}

/// How long each role is good.
struct Lives {
    root: Seconds,
    targets: Seconds,
    release: Seconds,
}

impl Lives {
    fn of(edit: &Edit) -> Self {
        let plan = edit.plan.as_ref();
        let given =
            |planned: Option<Seconds>, otherwise| edit.life.or(planned).unwrap_or(otherwise);
        Self {
            root: given(plan.map(|plan| plan.root.life()), YEAR),
            targets: given(plan.map(|plan| plan.targets.life()), YEAR),
            release: given(plan.map(|plan| plan.release.life()), HALF_A_YEAR),
        }
    }
}

fn after(role: &str, version: NonZeroU64) -> Result<NonZeroU64, ChangeError> {
    version.checked_add(1).ok_or_else(|| TufError::UsedUp { role: role.to_owned() }.into())
}

fn next_release(
    before: Option<&Signed<Targets>>,
    name: &str,
    expires: jiff::Timestamp,
) -> Result<Targets, ChangeError> {
    let version = match before {
        Some(before) => after(name, before.signed.version)?,
        None => FIRST,
    };
    let mut role = Targets::new(SPEC_VERSION.into(), version, expires);
    role.delegations = None;
    if let Some(before) = before {
        role.targets.clone_from(&before.signed.targets);
    }
    Ok(role)
}

/// Who shall hold which role.
fn charter_after(before: &Charter, edit: &Edit) -> Result<Charter, ChangeError> {
    let mut next = match &edit.plan {
        Some(plan) => planned(before, plan)?,
        None => before.clone(),
    };
    for (place, key) in [
        (&mut next.rollouts, edit.online.rollouts),
        (&mut next.snapshot, edit.online.snapshot),
        (&mut next.timestamp, edit.online.timestamp),
    ] {
        if let Some(key) = key {
            *place = Office::alone(key);
        }
    }
    for (old, new) in &edit.replace {
        if mentions(&next, new) {
            return Err(ChangeError::Taken(*new));
        }
        if !mentions(&next, old) {
            return Err(ChangeError::NotThere(*old));
        }
        replace(&mut next, *old, *new);
    }
    next.policy.check()?;
    Ok(next)
}

fn planned(before: &Charter, plan: &Plan) -> Result<Charter, ChangeError> {
    if plan.repository != before.policy.repository {
        return Err(ChangeError::OtherRepository {
            plan: plan.repository.to_string(),
            copy: before.policy.repository.to_string(),
        });
    }
    let mut people = BTreeMap::new();
    for (name, planned) in &plan.people {
        let known = before.policy.people.get(name).map(|person| person.keys.clone());
        let keys = planned.public_key.map(|key| [key].into()).or(known).unwrap_or_default();
        let signs =
            planned.roles.contains(&Role::Author) || planned.roles.contains(&Role::Approver);
        if signs && keys.is_empty() {
            let (what, name, field) = ("person", name.to_string(), "public_key");
            return Err(ChangeError::NoKey { what, name, field });
        }
        people.insert(name.clone(), keys);
    }
    let mut tenants = BTreeMap::new();
    for (name, planned) in &plan.tenants {
        let known = before.policy.tenants.get(name).map(|tenant| tenant.enrolment_keys.clone());
        let keys = planned.enrolment_keys.clone().or(known).ok_or_else(|| {
            let (what, name, field) = ("tenant", name.to_string(), "enrolment_keys");
            ChangeError::NoKey { what, name, field }
        })?;
        tenants.insert(name.clone(), keys);
    }
    let policy = plan.policy(&people, &tenants)?;
    let office = |role, planned: &super::plan::RoleKeys, present: &Office| {
        let keys = planned.public_keys.clone().unwrap_or_else(|| present.keys.clone());
        if keys.len() != usize::from(planned.keys) {
            let (planned, present) = (planned.keys, present.keys.len());
            return Err(ChangeError::KeysNotNamed { role, planned, present });
        }
        Ok(Office { keys, threshold: planned.threshold.into() })
    };
    let online = |key: Option<PublicKey>, present: &Office| {
        key.map_or_else(|| present.clone(), Office::alone)
    };
    Ok(Charter {
        root: office("root", &plan.root, &before.root)?,
        targets: office("targets", &plan.targets, &before.targets)?,
        snapshot: online(plan.online.snapshot, &before.snapshot),
        timestamp: online(plan.online.timestamp, &before.timestamp),
        rollouts: online(plan.online.rollouts, &before.rollouts),
        releases: plan.releases(&policy),
        policy,
    })
}

/// Every place where a key may stand.
fn places(charter: &mut Charter) -> Vec<&mut BTreeSet<PublicKey>> {
    let Charter { root, targets, snapshot, timestamp, rollouts, releases, policy } = charter;
    let offices = [root, targets, snapshot, timestamp, rollouts];
    let mut places: Vec<&mut BTreeSet<PublicKey>> =
        offices.into_iter().chain(releases.values_mut()).map(|office| &mut office.keys).collect();
    places.extend(policy.people.values_mut().map(|person| &mut person.keys));
    places.extend(policy.tenants.values_mut().map(|tenant| &mut tenant.enrolment_keys));
    places
}

fn mentions(charter: &Charter, key: &PublicKey) -> bool {
    let own = charter.policy.tenants.values().any(|tenant| tenant.tenant_key == Some(*key));
    own || places(&mut charter.clone()).into_iter().any(|keys| keys.contains(key))
}

fn replace(charter: &mut Charter, old: PublicKey, new: PublicKey) {
    for keys in places(charter) {
        if keys.remove(&old) {
            keys.insert(new);
        }
    }
    for tenant in charter.policy.tenants.values_mut() {
        if tenant.tenant_key == Some(old) {
            tenant.tenant_key = Some(new);
        }
    }
    // The review was of the old key.
    charter.policy.reviews.remove(&old);
}

impl ChangeSet {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.root.is_none() && self.targets.is_none() && self.releases.is_empty()
    }

    /// Writes a new folder.
    pub fn write(&self, folder: &Path) -> Result<(), ChangeError> {
        let whole = WholeFolder::begin(folder)?;
        for (name, text) in self.files()? {
            whole.file(&name, text.as_bytes(), Readers::Everybody)?;
        }
        Ok(whole.finish()?)
    }

    /// Writes the signatures into its folder.
    pub fn rewrite(&self, folder: &Path) -> Result<(), ChangeError> {
        for (name, text) in self.files()? {
            whole_folder::replace(&folder.join(name), text.as_bytes(), Readers::Everybody)?;
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<(String, String)>, ChangeError> {
        let mut files = Vec::new();
        if let Some(root) = &self.root {
            files.push(("root.json".to_owned(), metadata::to_text(root)?));
        }
        if let Some(targets) = &self.targets {
            files.push(("targets.json".to_owned(), metadata::to_text(targets)?));
        }
        if let Some(policy) = &self.policy {
            files.push((POLICY_PATH.to_owned(), policy.clone()));
        }
        for (name, role) in &self.releases {
            files.push((format!("{name}.json"), metadata::to_text(role)?));
        }
        Ok(files)
    }

    /// Reads a folder. What it says is not checked by that.
    pub fn read(folder: &Path) -> Result<Self, ChangeError> {
        let mut set = Self::default();
        let failed = |source| ChangeError::Read { path: folder.display().to_string(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        for name in names {
            let bytes = read_file(&folder.join(&name))?;
            match name.strip_suffix(".json") {
                Some("root") => set.root = Some(metadata::from_text(&bytes)?),
                Some("targets") => set.targets = Some(metadata::from_text(&bytes)?),
                Some("policy") => {
                    let text = String::from_utf8(bytes)
                        .map_err(|_| ChangeError::DoesNotFollow("its policy is no text".into()))?;
                    set.policy = Some(text);
                }
                Some(role) if role.starts_with("releases-") => {
                    set.releases.insert(role.to_owned(), metadata::from_text(&bytes)?);
                }
                Some(_) | None => {
                    let text = format!("`{name}` is no part of a change");
                    return Err(ChangeError::DoesNotFollow(text));
                }
            }
        }
        if set.is_empty() { Err(ChangeError::Nothing) } else { Ok(set) }
    }

    /// Who would hold which role. Everything in the change is in what this gives, in the versions and
    /// ends of the roles, or else it is refused.
    pub fn check(&self, current: &Current, now: Moment) -> Result<Charter, ChangeError> {
        let refuse = |text: String| Err(ChangeError::DoesNotFollow(text));
        let root = self.root.as_ref().map_or(&current.root.signed, |root| &root.signed);
        let targets = self.targets.as_ref().map_or(&current.targets.signed, |role| &role.signed);
        let policy = match (&self.policy, &self.targets) {
            (Some(text), Some(_)) => {
                if text.len() > limits::POLICY_BYTES {
                    return refuse("its policy is too large".into());
                }
                Policy::from_json(text.as_bytes())?
            }
            (None, None) => current.charter.policy.clone(),
            (Some(_), None) | (None, Some(_)) => {
                return refuse("targets and policy come together".into());
            }
        };
        if policy.repository != current.charter.policy.repository {
            return refuse(format!("its policy is for repository `{}`", policy.repository));
        }
        let next = Charter::of(root, targets, &policy)?;
        if let Some(root) = &self.root {
            follows("root", root.signed.version, current.root.signed.version, moment(root), now)?;
            next.root_only(&root.signed)?;
        }
        if let (Some(role), Some(text)) = (&self.targets, &self.policy) {
            if *text != charter::policy_text(&next.policy)? {
                return refuse("its policy has more in it than is read".into());
            }
            let before = current.targets.signed.version;
            follows("targets", role.signed.version, before, moment(role), now)?;
            next.targets_only(&role.signed, text.as_bytes())?;
        }
        if next.targets != current.charter.targets && self.targets.is_none() {
            return refuse("other keys for targets need new targets that they sign".into());
        }
        self.check_releases(current, &next, now)?;
        Ok(next)
    }

    fn check_releases(
        &self,
        current: &Current,
        next: &Charter,
        now: Moment,
    ) -> Result<(), ChangeError> {
        for (product, office) in &next.releases {
            let name = release_role(product);
            let changed = current.charter.releases.get(product) != Some(office);
            if changed && !self.releases.contains_key(&name) {
                let text = format!("other keys for `{name}` need a new version that they sign");
                return Err(ChangeError::DoesNotFollow(text));
            }
        }
        for (name, role) in &self.releases {
            let known = next.releases.keys().any(|product| release_role(product) == *name);
            if !known {
                return Err(ChangeError::NoRole(name.clone()));
            }
            let before = current.releases.get(name);
            let expected = next_release(before, name, role.signed.expires)?;
            if role.signed != expected {
                let text = format!("`{name}` says something else than its last version");
                return Err(ChangeError::DoesNotFollow(text));
            }
            require_life(name, moment(role), now)?;
        }
        Ok(())
    }

    /// Signs every role of which this key is one. Gives the names of the roles.
    pub fn sign(
        &mut self,
        current: &Current,
        next: &Charter,
        signer: &dyn Signer,
    ) -> Result<Vec<String>, ChangeError> {
        let (key, mut signed) = (signer.public(), Vec::new());
        if let Some(root) = &mut self.root
            && (current.charter.root.keys.contains(&key) || next.root.keys.contains(&key))
        {
            metadata::sign_role(root, signer)?;
            signed.push("root".to_owned());
        }
        if let Some(targets) = &mut self.targets
            && next.targets.keys.contains(&key)
        {
            metadata::sign_role(targets, signer)?;
            signed.push("targets".to_owned());
        }
        for (name, role) in &mut self.releases {
            if office_of(next, name).is_some_and(|office| office.keys.contains(&key)) {
                metadata::sign_role(role, signer)?;
                signed.push(name.clone());
            }
        }
        if signed.is_empty() { Err(ChangeError::Stranger(key)) } else { Ok(signed) }
    }

    /// How far each role is signed.
    pub fn standing(&self, current: &Current) -> Result<Vec<Standing>, ChangeError> {
        let mut all = Vec::new();
        if let Some(root) = &self.root {
            let before = Holder::of_root(&current.root.signed, RoleType::Root)?;
            let after = Holder::of_root(&root.signed, RoleType::Root)?;
            if before.keys() == after.keys() && before.threshold() == after.threshold() {
                all.push(Standing::of("root".into(), &after, root)?);
            } else {
                all.push(Standing::of("root by its keys so far".into(), &before, root)?);
                all.push(Standing::of("root by its new keys".into(), &after, root)?);
            }
        }
        let root = self.root.as_ref().map_or(&current.root.signed, |root| &root.signed);
        let targets = self.targets.as_ref().map_or(&current.targets.signed, |role| &role.signed);
        if let Some(role) = &self.targets {
            let holder = Holder::of_root(root, RoleType::Targets)?;
            all.push(Standing::of("targets".into(), &holder, role)?);
        }
        for (name, role) in &self.releases {
            let delegations = crate::tuf::roles::delegations(targets)?;
            let holder = Holder::of_delegation(delegations, name)?;
            all.push(Standing::of(name.clone(), &holder, role)?);
        }
        Ok(all)
    }

    /// What is sent to the server; refused while any role is below its threshold.
    pub fn publication(&self, current: &Current) -> Result<Publication, ChangeError> {
        for standing in self.standing(current)? {
            if !standing.complete() {
                return Err(ChangeError::Threshold {
                    what: standing.what,
                    signed: standing.signed.len(),
                    needed: standing.needed,
                });
            }
        }
        let one = |role: &str, metadata: String, targets: Vec<(String, String)>| Publication {
            role: role.to_owned(),
            metadata,
            targets,
            with: Vec::new(),
        };
        let mut parts = Vec::new();
        if let Some(root) = &self.root {
            parts.push(one("root", metadata::to_text(root)?, Vec::new()));
        }
        if let (Some(targets), Some(policy)) = (&self.targets, &self.policy) {
            let brought = vec![(POLICY_PATH.to_owned(), policy.clone())];
            parts.push(one("targets", metadata::to_text(targets)?, brought));
        }
        for (name, role) in &self.releases {
            parts.push(one(name, metadata::to_text(role)?, Vec::new()));
        }
        let mut parts = parts.into_iter();
        let mut first = parts.next().ok_or(ChangeError::Nothing)?;
        first.with = parts.collect();
        Ok(first)
    }
}

impl Standing {
    fn of<T: tough::schema::Role>(
        what: String,
        holder: &Holder<'_>,
        signed: &Signed<T>,
    ) -> Result<Self, ChangeError> {
        let made = holder.signers(signed)?;
        let missing = holder.keys().difference(&made).copied().collect();
        Ok(Self { what, signed: made, missing, needed: holder.threshold() })
    }

    /// Whether enough signatures hold.
    pub fn complete(&self) -> bool {
        self.signed.len() as u64 >= self.needed
    }
}

/// The release role of this name.
fn office_of<'a>(charter: &'a Charter, name: &str) -> Option<&'a Office> {
    let own = |(product, _): &(&ProductId, &Office)| release_role(product) == name;
    charter.releases.iter().find(own).map(|(_, office)| office)
}

fn follows(
    role: &str,
    found: NonZeroU64,
    before: NonZeroU64,
    expires: Moment,
    now: Moment,
) -> Result<(), ChangeError> {
    let due = after(role, before)?;
    if found != due {
        let text = format!("`{role}` has version {found}, and version {due} is next");
        return Err(ChangeError::DoesNotFollow(text));
    }
    require_life(role, expires, now)
}

fn require_life(role: &str, expires: Moment, now: Moment) -> Result<(), ChangeError> {
    if expires > now && expires <= now.plus(MAX_LIFE) {
        return Ok(());
    }
    Err(ChangeError::DoesNotFollow(format!("`{role}` ends at {expires}")))
}

/// When a role ends.
pub fn moment<T: tough::schema::Role>(role: &Signed<T>) -> Moment {
    Moment(role.signed.expires().as_second())
}

fn read_file(path: &Path) -> Result<Vec<u8>, ChangeError> {
    let failed = |source| ChangeError::Read { path: path.display().to_string(), source };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        let text = format!("`{}` is larger than any metadata", path.display());
        return Err(ChangeError::DoesNotFollow(text));
    }
    fs::read(path).map_err(failed)
}
