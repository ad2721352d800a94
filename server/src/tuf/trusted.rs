//! What people published: root, targets with the policy, and one role per product. [`Trusted`] can be
//! made only of metadata whose signatures were counted; [`Trusted::examine`] says whether a publication
//! may follow, or names what is wrong with it. No file is touched here.

use std::collections::{BTreeMap, BTreeSet};

use lockgate_shared::{
    count::count,
    id::{Digest, ProductId, PublicKey},
    limits,
    manifest::Manifest,
    policy::{POLICY_PATH, Policy},
    recall::Recall,
    time::Moment,
};
use tough::schema::{DelegatedRole, Delegations, PathSet, Role, RoleType, Root, Signed, Targets};

use super::{
    TufError,
    metadata::{digest_of, listed, metadata_path, target_path},
    roles::{self, Holder},
};
use crate::stream::Publication;

/// The name of the delegated role that the gatekeeper signs.
pub const ROLLOUTS: &str = "rollouts";
/// What the names of product roles begin with.
pub const RELEASES: &str = "releases-";

/// Roles that come with another at most: a product's each, as many as a policy names.
const TOGETHER: usize = limits::PRODUCTS + 1;

/// New roots that are followed in one go: one a day for thirty years.
const ROOTS: usize = 10_000;

/// Files of the repository by path (`metadata/…`, `targets/…`).
pub type Files = BTreeMap<String, Vec<u8>>;

/// Verified metadata of people's roles.
#[derive(Clone, Debug)]
pub struct Trusted {
    root: Signed<Root>,
    targets: Published,
    products: BTreeMap<String, Published>,
    policy: Policy,
}

/// One role and its exact bytes.
#[derive(Clone, Debug)]
struct Published {
    signed: Signed<Targets>,
    bytes: Vec<u8>,
    signers: BTreeSet<PublicKey>,
}

/// A publication that may be written: nothing in it is unverified.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The state with it.
    pub next: Trusted,
    /// New files; of each role its metadata last.
    pub files: Vec<(String, Vec<u8>)>,
    /// What it is, in a sentence.
    pub what: String,
}

/// A published release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The file's path in the repository.
    pub file: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The keys that signed the product's role as it stands.
    pub authors: BTreeSet<PublicKey>,
}

/// The roots from the trust anchor on, each verified by the one before it and by itself.
#[derive(Clone, Debug)]
pub struct Roots {
    /// The newest.
    pub newest: Signed<Root>,
    /// Those before it, oldest first.
    pub earlier: Vec<Signed<Root>>,
}

impl Roots {
    /// Walks from the anchor's text on as far as there are roots. `read` gives a file of the repository
    /// by its path, where there is one.
    pub fn walk<E: From<TufError>>(
        anchor: &[u8],
        read: impl Fn(&str) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, E> {
        let newest = roles::parse::<Root>("root", anchor)?;
        Holder::of_root(&newest.signed, RoleType::Root)?.verify(&newest)?;
        let mut roots = Self { newest, earlier: Vec::new() };
        while roots.earlier.len() < ROOTS {
            let due = roots.newest.signed.version.get() + 1;
            let Some(bytes) = read(&metadata_path("root", due))? else { break };
            let next = next_root(&roots.newest, &bytes)?;
            roots.earlier.push(std::mem::replace(&mut roots.newest, next));
        }
        Ok(roots)
    }

    fn in_files(anchor: &[u8], files: &Files) -> Result<Self, TufError> {
        Self::walk(anchor, |path| Ok(files.get(path).cloned()))
    }
}

/// Every key that people ever gave to the role `rollouts`, by the repository's files from the trust
/// anchor on: the keys that an audit chain's heads may be signed by. Targets that no root of the chain
/// verifies name nobody.
pub fn gatekeeper_keys(anchor: &[u8], files: &Files) -> Result<BTreeSet<PublicKey>, TufError> {
    let roots = Roots::in_files(anchor, files)?;
    let mut keys = BTreeSet::new();
    for (_, bytes) in files.iter().filter(|(path, _)| path.ends_with(".targets.json")) {
        let signed = roles::parse::<Targets>("targets", bytes)?;
        let good = roots.earlier.iter().chain([&roots.newest]).any(|root| {
            Holder::of_root(&root.signed, RoleType::Targets)
                .is_ok_and(|holder| holder.verify(&signed).is_ok())
        });
        if good {
            keys.extend(
                Holder::of_delegation(roles::delegations(&signed.signed)?, ROLLOUTS)?.keys(),
            );
        }
    }
    Ok(keys)
}

impl Trusted {
    /// Reads what is in a repository's files, beginning at the trust anchor.
    pub fn read(anchor: &[u8], files: &Files) -> Result<Self, TufError> {
        let root = Roots::in_files(anchor, files)?.newest;
        let bytes = newest(files, "targets")?;
        let signed = roles::parse::<Targets>("targets", bytes)?;
        let signers = Holder::of_root(&root.signed, RoleType::Targets)?.verify(&signed)?;
        let targets = Published { signed, bytes: bytes.clone(), signers };
        let policy = policy_of(&targets.signed.signed, files)?;
        let delegations = roles::delegations(&targets.signed.signed)?;
        let mut products = BTreeMap::new();
        for name in product_roles(files) {
            let bytes = newest(files, &name)?;
            let signed = roles::parse::<Targets>(&name, bytes)?;
            let signers = signers_of(delegations, &name, &signed);
            products.insert(name, Published { signed, bytes: bytes.clone(), signers });
        }
        Ok(Self { root, targets, products, policy })
    }

    /// The policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The root.
    pub const fn root(&self) -> &Root {
        &self.root.signed
    }

    /// The targets.
    pub const fn targets(&self) -> &Targets {
        &self.targets.signed.signed
    }

    /// What a snapshot lists of people's roles: file name, version and exact bytes.
    pub fn listed(&self) -> Vec<(String, u64, &[u8])> {
        let mut listed = vec![(
            "targets.json".to_owned(),
            self.targets().version.get(),
            &self.targets.bytes[..],
        )];
        for (name, product) in &self.products {
            let version = product.signed.signed.version.get();
            listed.push((format!("{name}.json"), version, &product.bytes[..]));
        }
        listed
    }

    /// Which keys the online roles have, and how many must sign: another digest means that people
    /// replaced them, and that devices forget what the old ones counted.
    pub fn online_keys(&self) -> Result<Digest, TufError> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for role in [RoleType::Snapshot, RoleType::Timestamp] {
            let holder = Holder::of_root(self.root(), role)?;
            parts.push(holder.threshold().to_be_bytes().to_vec());
            parts.extend(holder.keys().into_iter().map(|key| key.0.to_vec()));
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Ok(Digest::of_parts("lockgate online keys v1", &parts))
    }

    /// The product roles that the keys in force have not signed.
    pub fn unsigned_products(&self) -> Vec<String> {
        let delegated = |name: &&String| {
            let delegations = self.targets().delegations.iter().flat_map(|all| &all.roles);
            delegations.into_iter().any(|role| role.name == **name)
        };
        let unsigned = self.products.iter().filter(|(_, product)| product.signers.is_empty());
        unsigned.map(|(name, _)| name).filter(delegated).cloned().collect()
    }

    /// People's roles: name, who may sign, and who signed the present version.
    pub fn offices(&self) -> Result<Vec<(String, Holder<'_>, BTreeSet<PublicKey>)>, TufError> {
        let root = Holder::of_root(self.root(), RoleType::Root)?;
        let targets = Holder::of_root(self.root(), RoleType::Targets)?;
        let signers = root.signers(&self.root)?;
        let mut offices = vec![
            ("root".to_owned(), root, signers),
            ("targets".to_owned(), targets, self.targets.signers.clone()),
        ];
        let delegations = roles::delegations(self.targets())?;
        for (name, product) in &self.products {
            if let Ok(holder) = Holder::of_delegation(delegations, name) {
                offices.push((name.clone(), holder, product.signers.clone()));
            }
        }
        Ok(offices)
    }

    /// When each of people's roles ends.
    pub fn expiries(&self) -> Vec<(String, u64, Moment)> {
        let mut expiries = vec![
            ("root".to_owned(), self.root().version.get(), moment(self.root())),
            ("targets".to_owned(), self.targets().version.get(), moment(self.targets())),
        ];
        for (name, product) in &self.products {
            let role = &product.signed.signed;
            expiries.push((name.clone(), role.version.get(), moment(role)));
        }
        expiries
    }

    /// The release of a product with this target path, if its role is in order.
    pub fn release(&self, product: &ProductId, path: &str) -> Option<Release> {
        let role = self.products.get(&format!("{RELEASES}{product}"))?;
        let target = listed(&role.signed.signed, path)?;
        let digest = digest_of(target)?;
        (!role.signers.is_empty()).then(|| Release {
            file: target_path(path, &digest),
            digest,
            authors: role.signers.clone(),
        })
    }

    /// Whether a publication may follow, with all that comes with it. `published` gives the files that
    /// are already in the repository.
    pub fn examine(
        &self,
        publication: &Publication,
        published: &dyn Fn(&str) -> Option<Vec<u8>>,
        now: Moment,
    ) -> Result<Accepted, TufError> {
        if publication.with.len() > TOGETHER {
            return Err(TufError::Content(format!(
                "{} roles come together, at most {TOGETHER} do",
                publication.with.len() + 1
            )));
        }
        let mut whole = self.examine_one(publication, published, now)?;
        for part in &publication.with {
            if !part.with.is_empty() {
                return Err(TufError::Content(
                    "what comes together stands in one list, not in lists of lists".into(),
                ));
            }
            let next = whole.next.examine_one(part, published, now)?;
            whole.what = format!("{}; {}", whole.what, next.what);
            whole.files.extend(next.files);
            whole.next = next.next;
        }
        whole.next.check_whole()?;
        Ok(whole)
    }

    fn examine_one(
        &self,
        publication: &Publication,
        published: &dyn Fn(&str) -> Option<Vec<u8>>,
        now: Moment,
    ) -> Result<Accepted, TufError> {
        match publication.role.as_str() {
            "root" => self.examine_root(publication, now),
            "targets" => self.examine_targets(publication, published, now),
            role if role.starts_with(RELEASES) => self.examine_product(publication, now),
            role => Err(TufError::Content(format!(
                "role `{role}` is not published by people: they publish `root`, `targets` and `releases-<product>`"
            ))),
        }
    }

    fn examine_targets(
        &self,
        publication: &Publication,
        published: &dyn Fn(&str) -> Option<Vec<u8>>,
        now: Moment,
    ) -> Result<Accepted, TufError> {
        let signed = roles::parse::<Targets>("targets", publication.metadata.as_bytes())?;
        let signers = Holder::of_root(self.root(), RoleType::Targets)?.verify(&signed)?;
        let due = self.targets().version.get() + 1;
        follows("targets", &signed.signed, due, now)?;
        let brought = brought(publication, &signed.signed)?;
        let file = |path: &str| brought.get(path).cloned().or_else(|| published(path));
        let mut next = self.clone();
        next.policy = self.check_targets(&signed.signed, &file)?;
        let delegations = roles::delegations(&signed.signed)?;
        for (name, product) in &mut next.products {
            product.signers = signers_of(delegations, name, &product.signed);
        }
        let bytes = publication.metadata.as_bytes().to_vec();
        next.targets = Published { signed, bytes, signers };
        Ok(accepted(next, publication, due, brought))
    }

    fn examine_product(
        &self,
        publication: &Publication,
        now: Moment,
    ) -> Result<Accepted, TufError> {
        let role = publication.role.as_str();
        let signed = roles::parse::<Targets>(role, publication.metadata.as_bytes())?;
        let holder = Holder::of_delegation(roles::delegations(self.targets())?, role)?;
        let signers = holder.verify(&signed)?;
        let before = self.products.get(role).map(|before| &before.signed.signed);
        let due = before.map_or(0, |before| before.version.get()) + 1;
        follows(role, &signed.signed, due, now)?;
        let brought = brought(publication, &signed.signed)?;
        self.check_releases(role, &signed.signed, before, &brought)?;
        let mut next = self.clone();
        let bytes = publication.metadata.as_bytes().to_vec();
        next.products.insert(role.to_owned(), Published { signed, bytes, signers });
        Ok(accepted(next, publication, due, brought))
    }

    fn examine_root(&self, publication: &Publication, now: Moment) -> Result<Accepted, TufError> {
        if !publication.targets.is_empty() {
            return Err(TufError::Content("a root brings no targets".into()));
        }
        let bytes = publication.metadata.as_bytes();
        let root = next_root(&self.root, bytes)?;
        let version = root.signed.version.get();
        follows("root", &root.signed, version, now)?;
        if !root.signed.consistent_snapshot {
            return Err(TufError::Content("root must ask for consistent snapshots".into()));
        }
        for role in [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
            if !Holder::of_root(&root.signed, role)?.can_be_met() {
                return Err(TufError::Content(format!(
                    "root lists fewer keys for role `{role}` than must sign it"
                )));
            }
        }
        let mut next = self.clone();
        next.root = root;
        Ok(accepted(next, publication, version, Files::new()))
    }

    /// What must hold of the state that a publication leads to: a root whose keys did not sign the
    /// targets would leave devices without any. A product role may wait for its new authors: devices
    /// refuse it meanwhile, and so does a start.
    fn check_whole(&self) -> Result<(), TufError> {
        let signed = &self.targets.signed;
        Holder::of_root(self.root(), RoleType::Targets)?.verify(signed).map(|_| ()).map_err(|error| {
            TufError::Content(format!(
                "the new root does not stand behind the targets: {error}\nhint: publish it together with targets that its keys signed; `lockgate repo change` makes both"
            ))
        })
    }

    /// Targets name a policy of this repository and delegate as this server expects.
    fn check_targets(
        &self,
        targets: &Targets,
        file: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Policy, TufError> {
        let missing = || TufError::Content(format!("targets need a target `{POLICY_PATH}`"));
        let target = listed(targets, POLICY_PATH).ok_or_else(missing)?;
        let digest = digest_of(target).ok_or_else(missing)?;
        let bytes = file(&target_path(POLICY_PATH, &digest)).ok_or_else(|| {
            TufError::Content(format!("the publication lacks the text of `{POLICY_PATH}`"))
        })?;
        let policy = Policy::from_json(&bytes)?;
        if policy.repository != self.policy.repository {
            return Err(TufError::Content(format!(
                "the policy is for repository `{}`, this is `{}`",
                policy.repository, self.policy.repository
            )));
        }
        let delegations = roles::delegations(targets)?;
        let reaches = |role: &DelegatedRole, path: &str| match &role.paths {
            PathSet::Paths(paths) => {
                role.terminating && paths.len() == 1 && paths.iter().all(|p| p.value() == path)
            }
            PathSet::PathHashPrefixes(_) => false,
        };
        let mut expected = vec![(ROLLOUTS.to_owned(), "rollouts/*/*".to_owned())];
        for product in policy.products.keys() {
            expected.push((format!("{RELEASES}{product}"), format!("releases/{product}/*")));
        }
        for (name, path) in expected {
            let role = delegations.roles.iter().find(|role| role.name == name);
            if !role.is_some_and(|role| reaches(role, &path)) {
                return Err(TufError::Content(format!(
                    "targets must delegate `{path}`, and nothing else, to role `{name}`, terminating"
                )));
            }
            if !Holder::of_delegation(delegations, &name)?.can_be_met() {
                return Err(TufError::Content(format!(
                    "targets list fewer keys for role `{name}` than must sign it"
                )));
            }
        }
        Ok(policy)
    }

    /// Every release keeps its bytes for good; every new one is a manifest that fits its path and the
    /// policy.
    fn check_releases(
        &self,
        role: &str,
        targets: &Targets,
        before: Option<&Targets>,
        brought: &Files,
    ) -> Result<(), TufError> {
        let refuse = |text: String| Err(TufError::Content(text));
        let product = role.trim_start_matches(RELEASES);
        let Some((product, rules)) =
            self.policy.products.iter().find(|(name, _)| name.as_str() == product)
        else {
            return refuse(format!("the policy names no product `{product}`"));
        };
        for (name, target) in &targets.targets {
            let path = name.raw();
            let old = before.and_then(|before| listed(before, path));
            if let Some(old) = old {
                if digest_of(old) != digest_of(target) || old.length != target.length {
                    return refuse(format!("`{path}` is published already, with other bytes"));
                }
                continue;
            }
            let Some(digest) = digest_of(target) else {
                return refuse(format!("`{path}` has no SHA-256"));
            };
            let Some(bytes) = brought.get(&target_path(path, &digest)) else {
                return refuse(format!("the publication lacks the text of `{path}`"));
            };
            if path.rsplit('/').next().is_some_and(|name| name.starts_with("recall-")) {
                check_recall(product, path, bytes, targets)?;
                continue;
            }
            let manifest = Manifest::from_json(bytes)
                .map_err(|error| TufError::Content(format!("`{path}`: {error}")))?;
            if manifest.product != *product || Manifest::path(product, &manifest.version) != path {
                return refuse(format!(
                    "`{path}` holds the manifest of `{}` {}",
                    manifest.product, manifest.version
                ));
            }
            let cohorts = manifest.ladder.stages.iter().map(|stage| &stage.cohort);
            if !cohorts.eq(&rules.cohorts) {
                return refuse(format!(
                    "the ladder of `{path}` must name the cohorts of `{product}` in the policy's order"
                ));
            }
        }
        Ok(())
    }
}

/// A recall is of a release that is published, and leads to one, by its very bytes.
fn check_recall(
    product: &ProductId,
    path: &str,
    bytes: &[u8],
    targets: &Targets,
) -> Result<(), TufError> {
    let refuse = |text: String| Err(TufError::Content(text));
    let recall = Recall::from_json(bytes)
        .map_err(|error| TufError::Content(format!("`{path}`: {error}")))?;
    if recall.product != *product || Recall::path(product, &recall.version) != path {
        return refuse(format!(
            "`{path}` holds the recall of `{}` {}",
            recall.product, recall.version
        ));
    }
    if listed(targets, &Manifest::path(product, &recall.version)).is_none() {
        return refuse(format!("`{path}` recalls a release that was never published"));
    }
    if listed(targets, &Recall::path(product, &recall.to)).is_some() {
        return refuse(format!("`{path}` leads to {}, which is recalled itself", recall.to));
    }
    let to = listed(targets, &Manifest::path(product, &recall.to)).and_then(digest_of);
    if to != Some(recall.manifest) {
        return refuse(format!(
            "`{path}` leads to another manifest than the published {}",
            recall.to
        ));
    }
    Ok(())
}

fn accepted(next: Trusted, publication: &Publication, version: u64, brought: Files) -> Accepted {
    let role = &publication.role;
    let what = match brought.len() {
        0 if role == "root" => format!("role `{role}`, version {version}"),
        targets => format!(
            "role `{role}`, version {version}, with {}",
            count(targets, "new target", "new targets")
        ),
    };
    let mut files: Vec<(String, Vec<u8>)> = brought.into_iter().collect();
    files.push((metadata_path(role, version), publication.metadata.as_bytes().to_vec()));
    Accepted { next, files, what }
}

/// The product roles in the repository, also of products that targets delegate to no more: a snapshot
/// that stopped listing one would be refused by every device that saw it listed.
fn product_roles(files: &Files) -> BTreeSet<String> {
    let name = |path: &String| {
        let name = path.strip_prefix("metadata/")?.strip_suffix(".json")?;
        let (_, role) = name.split_once('.')?;
        role.starts_with(RELEASES).then(|| role.to_owned())
    };
    files.keys().filter_map(name).collect()
}

/// Who signed a product's role, if enough did. A role whose keys people have just replaced stays
/// listed until they sign it again.
fn signers_of(
    delegations: &Delegations,
    name: &str,
    signed: &Signed<Targets>,
) -> BTreeSet<PublicKey> {
    Holder::of_delegation(delegations, name)
        .and_then(|holder| holder.verify(signed))
        .unwrap_or_default()
}

fn next_root(root: &Signed<Root>, bytes: &[u8]) -> Result<Signed<Root>, TufError> {
    let next = roles::parse::<Root>("root", bytes)?;
    let due = root.signed.version.get() + 1;
    let found = next.signed.version.get();
    if found != due {
        return Err(TufError::Version { role: "root".into(), found, due });
    }
    Holder::of_root(&root.signed, RoleType::Root)?.verify(&next)?;
    Holder::of_root(&next.signed, RoleType::Root)?.verify(&next)?;
    Ok(next)
}

fn follows<T: Role>(role: &str, metadata: &T, due: u64, now: Moment) -> Result<(), TufError> {
    let (found, expires) = (metadata.version().get(), moment(metadata));
    if found != due {
        return Err(TufError::Version { role: role.to_owned(), found, due });
    }
    if expires <= now {
        return Err(TufError::Expired { role: role.to_owned(), expires });
    }
    Ok(())
}

/// The texts that a publication brings, by file path, each one listed with its length and hash.
fn brought(publication: &Publication, targets: &Targets) -> Result<Files, TufError> {
    let mut files = Files::new();
    for (path, text) in &publication.targets {
        let target = listed(targets, path).ok_or_else(|| {
            TufError::Content(format!("`{path}` is brought but not listed in the signed metadata"))
        })?;
        let digest = Digest::of(text.as_bytes());
        if digest_of(target) != Some(digest) || target.length != text.len() as u64 {
            return Err(TufError::Content(format!("`{path}` is not the text that was signed")));
        }
        files.insert(target_path(path, &digest), text.clone().into_bytes());
    }
    Ok(files)
}

fn newest<'a>(files: &'a Files, role: &str) -> Result<&'a Vec<u8>, TufError> {
    let version_of = |path: &str| {
        let name = path.strip_prefix("metadata/")?.strip_suffix(".json")?;
        let (version, found) = name.split_once('.')?;
        (found == role).then(|| version.parse::<u64>().ok())?
    };
    files
        .iter()
        .filter_map(|(path, bytes)| Some((version_of(path)?, bytes)))
        .max_by_key(|(version, _)| *version)
        .map(|(_, bytes)| bytes)
        .ok_or_else(|| TufError::Missing { what: format!("the metadata of role `{role}`") })
}

fn policy_of(targets: &Targets, files: &Files) -> Result<Policy, TufError> {
    let missing = || TufError::Missing { what: format!("the target `{POLICY_PATH}`") };
    let digest = listed(targets, POLICY_PATH).and_then(digest_of).ok_or_else(missing)?;
    let bytes = files.get(&target_path(POLICY_PATH, &digest)).ok_or_else(missing)?;
    if Digest::of(bytes) != digest {
        return Err(TufError::Content(format!("`{POLICY_PATH}` is not the text that was signed")));
    }
    Ok(Policy::from_json(bytes)?)
}

fn moment<T: Role>(role: &T) -> Moment {
    Moment(role.expires().as_second())
}
