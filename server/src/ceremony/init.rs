//! `lockgate repo init`: from a plan to a folder with every key, the policy and the first metadata,
//! signed m of n and verified before it is put in place.
//!
//! It makes a folder whole or not at all, and never touches one that exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ed25519_dalek::SigningKey;
use lockgate_shared::{
    id::{Digest, PersonId, ProductId, PublicKey, TenantId},
    policy::{POLICY_PATH, Policy, Role},
    sign,
    time::Moment,
};
use thiserror::Error;
use tough::schema::{Delegations, Root, Signed, Targets};

use super::{
    charter::{self, Charter, CharterError, Office},
    metadata::{self, FIRST, MetadataError, SPEC_VERSION},
    plan::{Plan, PlanError, release_role},
};
use crate::{
    keys::{self, KeyError, Passphrase, Protection},
    whole_folder::{FolderError, Readers, WholeFolder},
};

/// What a ceremony made.
#[derive(Clone, Debug)]
pub struct Ceremony {
    /// The folder.
    pub folder: PathBuf,
    /// The policy.
    pub policy: Policy,
    /// The id of each root key, for people to compare.
    pub root_keys: Vec<PublicKey>,
    /// SHA-256 of `root.json`, the trust anchor.
    pub anchor: Digest,
}

/// Why a ceremony ended without a folder.
#[derive(Debug, Error)]
pub enum CeremonyError {
    /// The plan cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A key could not be made or written.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Who holds which role could not be written down.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// Metadata could not be written.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The folder could not be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Authors who brought their own public keys cannot sign here.
    #[error(
        "the first metadata of `{role}` needs {needed} authors' signatures, and {here} of their keys are made here\nhint: leave out `public_key` of enough authors; each can change the passphrase with `lockgate key passwd` or be replaced by a key of their own later"
    )]
    AuthorsElsewhere {
        /// The role.
        role: String,
        /// Signatures needed.
        needed: u8,
        /// Private keys at hand.
        here: usize,
    },
    /// The plan names keys that the ceremony makes.
    #[error(
        "the plan names keys of roles or tenants, and a ceremony makes these itself\nhint: leave out `public_keys`, `enrolment_keys` and `[online]`; `lockgate repo change` puts others in their place"
    )]
    NamesKeys,
    /// What was made does not verify: a fault of this program, not of the plan.
    #[error("the new metadata of `{role}` does not verify: {reason}")]
    Unverified {
        /// The role.
        role: String,
        /// What `tough` says.
        reason: String,
    },
}

/// Every private key of a ceremony, in memory.
struct Keyring {
    root: Vec<SigningKey>,
    targets: Vec<SigningKey>,
    people: BTreeMap<PersonId, SigningKey>,
    tenants: BTreeMap<TenantId, SigningKey>,
    rollouts: SigningKey,
    snapshot: SigningKey,
    timestamp: SigningKey,
}

/// Makes the repository that `plan` describes in the new folder `out`. Every offline, person's and
/// tenant's key is encrypted with `passphrase`, until its holder changes it.
pub fn init(
    plan: &Plan,
    out: &Path,
    passphrase: &Passphrase,
    now: Moment,
) -> Result<Ceremony, CeremonyError> {
    plan.check()?;
    if plan.names_keys() {
        return Err(CeremonyError::NamesKeys);
    }
    let keyring = Keyring::make(plan);
    let people = public_keys(plan, &keyring);
    let tenants = keyring
        .tenants
        .iter()
        .map(|(name, key)| (name.clone(), BTreeSet::from([sign::public(key)])))
        .collect();
    let policy = plan.policy(&people, &tenants)?;
    let policy_text = charter::policy_text(&policy)?;
    let charter = keyring.charter(plan, &policy);
    let root = root(plan, &charter, &keyring, now)?;
    let targets = targets(plan, &charter, &keyring, policy_text.as_bytes(), now)?;
    let releases = releases(plan, &keyring, now)?;
    verify(&root, &targets, &releases)?;

    let folder = WholeFolder::begin(out)?;
    keyring.write(&folder, passphrase)?;
    let root_text = metadata::to_text(&root)?;
    let mut public: Vec<(String, String)> = vec![
        ("root.json".into(), root_text.clone()),
        ("repository/metadata/1.root.json".into(), root_text.clone()),
        ("repository/metadata/1.targets.json".into(), metadata::to_text(&targets)?),
    ];
    for (role, signed) in &releases {
        let path = format!("repository/metadata/1.{role}.json");
        public.push((path, metadata::to_text(signed)?));
    }
    let digest = Digest::of(policy_text.as_bytes());
    public.push((format!("repository/targets/{digest}.{POLICY_PATH}"), policy_text));
    for (path, text) in &public {
        folder.file(path, text.as_bytes(), Readers::Everybody)?;
    }
    folder.finish()?;
    Ok(Ceremony {
        folder: out.to_owned(),
        policy,
        root_keys: keyring.root.iter().map(sign::public).collect(),
        anchor: Digest::of(root_text.as_bytes()),
    })
}

impl Keyring {
    fn make(plan: &Plan) -> Self {
        let many = |count: u8| (0..count).map(|_| keys::generate()).collect();
        let signs = |roles: &std::collections::BTreeSet<Role>| {
            roles.contains(&Role::Author) || roles.contains(&Role::Approver)
        };
        Self {
            root: many(plan.root.keys),
            targets: many(plan.targets.keys),
            people: (plan.people.iter())
                .filter(|(_, person)| person.public_key.is_none() && signs(&person.roles))
                .map(|(name, _)| (name.clone(), keys::generate()))
                .collect(),
            tenants: plan.tenants.keys().map(|name| (name.clone(), keys::generate())).collect(),
            rollouts: keys::generate(),
            snapshot: keys::generate(),
            timestamp: keys::generate(),
        }
    }

    /// Who holds which role.
    fn charter(&self, plan: &Plan, policy: &Policy) -> Charter {
        let public = |keys: &[SigningKey]| keys.iter().map(sign::public).collect();
        let one = |key: &SigningKey| Office::alone(sign::public(key));
        Charter {
            root: Office { keys: public(&self.root), threshold: plan.root.threshold.into() },
            targets: Office {
                keys: public(&self.targets),
                threshold: plan.targets.threshold.into(),
            },
            snapshot: one(&self.snapshot),
            timestamp: one(&self.timestamp),
            rollouts: one(&self.rollouts),
            releases: plan.releases(policy),
            policy: policy.clone(),
        }
    }

    fn write(&self, folder: &WholeFolder, passphrase: &Passphrase) -> Result<(), CeremonyError> {
        let mut sealed: Vec<(String, &SigningKey)> = Vec::new();
        for (role, role_keys) in [("root", &self.root), ("targets", &self.targets)] {
            for (index, key) in role_keys.iter().enumerate() {
                sealed.push((format!("offline/{role}-{}.key", index + 1), key));
            }
        }
        sealed.extend(self.people.iter().map(|(name, key)| (format!("people/{name}.key"), key)));
        sealed.extend(self.tenants.iter().map(|(name, key)| (format!("tenants/{name}.key"), key)));
        for (path, key) in sealed {
            let pem = keys::to_pem(key, Protection::Encrypted(passphrase))?;
            folder.file(&path, pem.as_bytes(), Readers::Owner)?;
        }
        for (name, key) in [
            ("rollouts", &self.rollouts),
            ("snapshot", &self.snapshot),
            ("timestamp", &self.timestamp),
        ] {
            let pem = keys::to_pem(key, Protection::Plain)?;
            folder.file(&format!("online/{name}.key"), pem.as_bytes(), Readers::Owner)?;
        }
        Ok(())
    }
}

/// The public keys of everybody who signs, brought or made here.
fn public_keys(plan: &Plan, keyring: &Keyring) -> BTreeMap<PersonId, BTreeSet<PublicKey>> {
    let brought = plan
        .people
        .iter()
        .filter_map(|(name, person)| person.public_key.map(|key| (name.clone(), [key].into())));
    let made = keyring.people.iter().map(|(name, key)| (name.clone(), [sign::public(key)].into()));
    brought.chain(made).collect()
}

fn root(
    plan: &Plan,
    charter: &Charter,
    keyring: &Keyring,
    now: Moment,
) -> Result<Signed<Root>, CeremonyError> {
    let root = charter.root_role(FIRST, metadata::expiry(now, plan.root.life())?)?;
    let mut signed = metadata::unsigned(root);
    for key in keyring.root.iter().take(usize::from(plan.root.threshold)) {
        metadata::sign_role(&mut signed, key)?;
    }
    Ok(signed)
}

fn targets(
    plan: &Plan,
    charter: &Charter,
    keyring: &Keyring,
    policy: &[u8],
    now: Moment,
) -> Result<Signed<Targets>, CeremonyError> {
    let expires = metadata::expiry(now, plan.targets.life())?;
    let mut signed = metadata::unsigned(charter.targets_role(FIRST, expires, policy)?);
    for key in keyring.targets.iter().take(usize::from(plan.targets.threshold)) {
        metadata::sign_role(&mut signed, key)?;
    }
    Ok(signed)
}

/// The first, empty metadata of each product's release role.
fn releases(
    plan: &Plan,
    keyring: &Keyring,
    now: Moment,
) -> Result<BTreeMap<String, Signed<Targets>>, CeremonyError> {
    let empty = |product: &ProductId| {
        let expires = metadata::expiry(now, plan.release.life())?;
        let mut targets = Targets::new(SPEC_VERSION.into(), FIRST, expires);
        targets.delegations = None;
        let (role, needed) = (release_role(product), plan.threshold(product));
        let mut signed = metadata::unsigned(targets);
        let here: Vec<&SigningKey> =
            plan.authors(product).into_iter().filter_map(|name| keyring.people.get(name)).collect();
        if here.len() < usize::from(needed) {
            return Err(CeremonyError::AuthorsElsewhere { role, needed, here: here.len() });
        }
        for key in here.into_iter().take(usize::from(needed)) {
            metadata::sign_role(&mut signed, key)?;
        }
        Ok((role, signed))
    };
    plan.products.keys().map(empty).collect()
}

/// Everything is verified as a device would, before anybody sees it.
fn verify(
    root: &Signed<Root>,
    targets: &Signed<Targets>,
    releases: &BTreeMap<String, Signed<Targets>>,
) -> Result<(), CeremonyError> {
    let refuse = |role: &str, error: tough::schema::Error| CeremonyError::Unverified {
        role: role.to_owned(),
        reason: error.to_string(),
    };
    root.signed.verify_role(root).map_err(|error| refuse("root", error))?;
    root.signed.verify_role(targets).map_err(|error| refuse("targets", error))?;
    let none = Delegations::new();
    let delegations = targets.signed.delegations.as_ref().unwrap_or(&none);
    for (role, signed) in releases {
        delegations.verify_role(signed, role).map_err(|error| refuse(role, error))?;
    }
    Ok(())
}

impl From<tough::schema::Error> for CeremonyError {
    fn from(error: tough::schema::Error) -> Self {
        Self::Metadata(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tough::TargetName;

    use super::*;
    use crate::{ceremony::plan::tests::PLAN, keys::PassphraseSource};

    const NOW: Moment = Moment(1_795_000_000);

    #[test]
    fn a_ceremony_leaves_keys_policy_and_metadata_that_verify() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let out = temp.path().join("repo");
        let plan = Plan::from_toml(PLAN).expect("a plan");
        let passphrase = Passphrase::new("correct horse battery");
        let made = init(&plan, &out, &passphrase, NOW).expect("made");
        let read = |path: &str| fs::read(out.join(path)).expect(path);

        let root: Signed<Root> = metadata::from_text(&read("root.json")).expect("root");
        assert_eq!(read("root.json"), read("repository/metadata/1.root.json"));
        root.signed.verify_role(&root).expect("root verifies itself");
        let targets: Signed<Targets> =
            metadata::from_text(&read("repository/metadata/1.targets.json")).expect("targets");
        root.signed.verify_role(&targets).expect("targets verifies");
        let app: Signed<Targets> =
            metadata::from_text(&read("repository/metadata/1.releases-app.json")).expect("app");
        let delegations = targets.signed.delegations.as_ref().expect("delegations");
        delegations.verify_role(&app, "releases-app").expect("the release role verifies");

        let path = TargetName::new(POLICY_PATH).expect("a name");
        let listed = targets.signed.targets.get(&path).expect("the policy is a target");
        let file = format!("repository/targets/{}.policy.json", hex::encode(&listed.hashes.sha256));
        assert_eq!(Policy::from_json(&read(&file)).expect("a policy"), made.policy);

        for name in ["ada", "alan", "ben", "eva"] {
            let path = out.join(format!("people/{name}.key"));
            let key = keys::read(&path, &PassphraseSource::Given(passphrase.clone()))
                .expect("opens with the passphrase");
            let person = &made.policy.people[&name.parse::<PersonId>().expect("a name")];
            assert!(person.keys.contains(&sign::public(&key)));
        }
        for name in ["rollouts", "snapshot", "timestamp"] {
            keys::read_plain(&out.join(format!("online/{name}.key"))).expect("plain");
        }
        assert!(out.join("tenants/acme.key").exists());
        assert!(matches!(
            init(&plan, &out, &passphrase, NOW),
            Err(CeremonyError::Folder(FolderError::Taken(_)))
        ));
    }

    #[test]
    fn below_its_threshold_metadata_does_not_verify() {
        let plan = Plan::from_toml(PLAN).expect("a plan");
        let keyring = Keyring::make(&plan);
        let policy = plan.policy(&public_keys(&plan, &keyring), &BTreeMap::new()).expect("policy");
        let charter = keyring.charter(&plan, &policy);
        let mut root = root(&plan, &charter, &keyring, NOW).expect("made");
        root.signatures.truncate(1);
        assert!(root.signed.verify_role(&root).is_err());
    }

    #[test]
    fn an_author_with_a_key_elsewhere_counts_in_the_role_but_cannot_sign_here() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let out = temp.path().join("repo");
        let own = format!("[people.ada]\npublic_key = \"{}\"", sign::public(&keys::generate()));
        let text = PLAN.replace("[people.ada]", &own);
        let plan = Plan::from_toml(&text).expect("a plan");
        let passphrase = Passphrase::new("correct horse battery");
        let refused = init(&plan, &out, &passphrase, NOW);
        assert!(matches!(refused, Err(CeremonyError::AuthorsElsewhere { here: 1, .. })));
        assert!(!out.exists());
        let one =
            Plan::from_toml(&text.replace("threshold = 2\nexpires_days = 90", "")).expect("a plan");
        init(&one, &out, &passphrase, NOW).expect("made");
        assert!(!out.join("people/ada.key").exists());
    }
}
