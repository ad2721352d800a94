//! Signatures of TUF roles: counted by key material, so that one key under two ids counts once; and
//! made with this host's online keys. Ed25519 only, as the ceremony makes them: another kind of key
//! counts for nothing.

use std::{collections::BTreeSet, path::Path};

use ed25519_dalek::VerifyingKey;
use lockgate_shared::{
    id::{Digest, PublicKey},
    time::Moment,
};
use serde::{Serialize, de::DeserializeOwned};
use tough::schema::{
    Delegations, Role, RoleKeys, RoleType, Root, Signature, Signed, Targets,
    decoded::{Decoded, Hex},
    key::Key,
};

use super::{METADATA_BYTES, TufError, metadata};
use crate::{
    config::OnlineKeySource,
    keys::{self, KeyError, PassphraseSource},
    signer::{self, KeyRef, Signer},
};

/// The most keys in the folder of online keys: the keys in force and those that will follow.
const MAX_ONLINE_KEYS: usize = 32;

/// The keys that this host has. Which of them signs a role is what people signed: the next keys may
/// lie beside the present ones, and take over in the moment in which a root names them.
pub struct OnlineKeys {
    signers: Vec<Box<dyn Signer>>,
}

/// Who may sign a role, and how many must.
#[derive(Clone, Debug)]
pub struct Holder<'a> {
    name: String,
    keys: &'a std::collections::HashMap<Decoded<Hex>, Key>,
    role: RoleKeys,
}

/// A signed role as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleFile {
    /// Its version.
    pub version: u64,
    /// When it ends.
    pub expires: Moment,
    /// The key that signed it.
    pub signer: PublicKey,
    /// The exact bytes.
    pub bytes: Vec<u8>,
}

impl OnlineKeys {
    /// These keys.
    pub const fn new(signers: Vec<Box<dyn Signer>>) -> Self {
        Self { signers }
    }

    /// The keys that a configuration names.
    pub fn open(source: &OnlineKeySource) -> Result<Self, TufError> {
        let list = match source {
            OnlineKeySource::Folder(folder) => return Self::load(folder),
            OnlineKeySource::List(list) => list,
        };
        let open = |key: &KeyRef| -> Result<Box<dyn Signer>, TufError> {
            match key {
                KeyRef::File(path) => Ok(Box::new(read_key(path)?)),
                KeyRef::Token(_) | KeyRef::Command(_) => key
                    .open(&PassphraseSource::EnvironmentOrPrompt)
                    .map_err(|source| TufError::Signer { role: key.to_string(), source }),
            }
        };
        Ok(Self { signers: list.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Reads every `*.key` of a folder; refuses a file that others may read.
    pub fn load(folder: &Path) -> Result<Self, TufError> {
        let fail =
            |source| TufError::File { path: folder.to_path_buf(), what: "reading it", source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_some_and(|extension| extension == "key") {
                paths.push(path);
            }
        }
        paths.sort();
        if paths.is_empty() || paths.len() > MAX_ONLINE_KEYS {
            let text = format!(
                "`{}` holds {} files `*.key`, it must be 1 to {MAX_ONLINE_KEYS}\nhint: copy the folder `online/` of the ceremony to this host",
                folder.display(),
                paths.len()
            );
            return Err(TufError::Content(text));
        }
        let read = |path: &std::path::PathBuf| -> Result<Box<dyn Signer>, TufError> {
            Ok(Box::new(read_key(path)?))
        };
        Ok(Self { signers: paths.iter().map(read).collect::<Result<_, _>>()? })
    }
}

impl std::fmt::Debug for OnlineKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnlineKeys(..)")
    }
}

impl<'a> Holder<'a> {
    /// Of a top-level role.
    pub fn of_root(root: &'a Root, role: RoleType) -> Result<Self, TufError> {
        let name = role.to_string();
        let keys = root.roles.get(&role);
        let role = keys.ok_or_else(|| TufError::NoRole { role: name.clone() })?.clone();
        Ok(Self { name, keys: &root.keys, role })
    }

    /// Of a role that targets delegate to.
    pub fn of_delegation(delegations: &'a Delegations, name: &str) -> Result<Self, TufError> {
        let role = delegations.roles.iter().find(|role| role.name == name);
        let role = role.ok_or_else(|| TufError::NoRole { role: name.to_owned() })?;
        Ok(Self { name: name.to_owned(), keys: &delegations.keys, role: role.keys() })
    }

    /// The keys whose signatures hold, if there are enough of them.
    pub fn verify<T: Role>(&self, signed: &Signed<T>) -> Result<BTreeSet<PublicKey>, TufError> {
        let valid = self.signers(signed)?;
        let needed = self.role.threshold.get();
        if (valid.len() as u64) < needed {
            return Err(TufError::Threshold {
                role: self.name.clone(),
                valid: valid.len(),
                needed,
            });
        }
        Ok(valid)
    }

    /// The keys that may sign it.
    pub fn keys(&self) -> BTreeSet<PublicKey> {
        self.role.keyids.iter().filter_map(|id| self.material(id)).collect()
    }

    /// Whether as many distinct keys are listed as must sign.
    pub fn can_be_met(&self) -> bool {
        self.keys().len() as u64 >= self.role.threshold.get()
    }

    /// Whether this key is one of the role's.
    pub fn names(&self, key: &PublicKey) -> bool {
        self.role.keyids.iter().any(|id| self.material(id) == Some(*key))
    }

    /// How many of them must sign.
    pub const fn threshold(&self) -> u64 {
        self.role.threshold.get()
    }

    /// Which of its keys signed, enough or not.
    pub fn signers<T: Role>(&self, signed: &Signed<T>) -> Result<BTreeSet<PublicKey>, TufError> {
        let bytes = canonical(&self.name, &signed.signed)?;
        let valid = signed.signatures.iter().filter_map(|signature| {
            let key = self.material(&signature.keyid)?;
            let sig: [u8; 64] = signature.sig.as_ref().try_into().ok()?;
            let sig = ed25519_dalek::Signature::from_bytes(&sig);
            let verifying = VerifyingKey::from_bytes(&key.0).ok()?;
            verifying.verify_strict(&bytes, &sig).is_ok().then_some(key)
        });
        Ok(valid.collect())
    }

    /// The first of the host's keys that is the role's.
    pub fn signer_of<'k>(&self, keys: &'k OnlineKeys) -> Option<&'k dyn Signer> {
        keys.signers.iter().map(AsRef::as_ref).find(|signer| self.names(&signer.public()))
    }

    /// Signs a role with the first of the host's keys that is the role's. For the online roles, which
    /// need one signature.
    pub fn sign<T: Role>(&self, role: T, keys: &OnlineKeys) -> Result<RoleFile, TufError> {
        let found = self.signer_of(keys).and_then(|signer| {
            let public = signer.public();
            let id = self.role.keyids.iter().find(|id| self.material(id) == Some(public))?;
            Some((signer, public, id))
        });
        let Some((signer, public, keyid)) = found.filter(|_| self.role.threshold.get() == 1) else {
            return Err(TufError::NotOurs { role: self.name.clone() });
        };
        let bytes = canonical(&self.name, &role)?;
        let signature = signer::signed_by(signer, &bytes)
            .map_err(|source| TufError::Signer { role: self.name.clone(), source })?;
        let signature = Signature { keyid: keyid.clone(), sig: signature.0.to_vec().into() };
        let (version, expires) = (role.version().get(), Moment(role.expires().as_second()));
        let signed = Signed { signed: role, signatures: vec![signature] };
        let bytes = serde_json::to_vec_pretty(&signed).map_err(|error| TufError::Metadata {
            role: self.name.clone(),
            why: error.to_string(),
        })?;
        Ok(RoleFile { version, expires, signer: public, bytes })
    }

    fn material(&self, id: &Decoded<Hex>) -> Option<PublicKey> {
        if !self.role.keyids.contains(id) {
            return None;
        }
        metadata::public_key(self.keys.get(id)?)
    }
}

impl RoleFile {
    /// The digest of its bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

/// Reads the metadata of a role, of at most [`METADATA_BYTES`].
pub fn parse<T: Role + DeserializeOwned>(role: &str, bytes: &[u8]) -> Result<Signed<T>, TufError> {
    let refuse = |why: String| TufError::Metadata { role: role.to_owned(), why };
    if bytes.len() > METADATA_BYTES {
        return Err(refuse(format!(
            "it has {} bytes, at most {METADATA_BYTES} are read",
            bytes.len()
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))
}

/// The delegations of targets; none are an empty list.
pub fn delegations(targets: &Targets) -> Result<&Delegations, TufError> {
    targets.delegations.as_ref().ok_or_else(|| TufError::NoRole { role: "rollouts".into() })
}

fn canonical<T: Role + Serialize>(name: &str, role: &T) -> Result<Vec<u8>, TufError> {
    role.canonical_form()
        .map_err(|error| TufError::Metadata { role: name.to_owned(), why: error.to_string() })
}

fn read_key(path: &Path) -> Result<ed25519_dalek::SigningKey, TufError> {
    let path = path.to_path_buf();
    keys::read_plain(&path).map_err(|error| match error {
        KeyError::OpenToOthers { .. } => TufError::KeyOpen { path },
        KeyError::Read { source, .. } => TufError::File { path, what: "reading it", source },
        KeyError::Write(_)
        | KeyError::NotAKey(_)
        | KeyError::WrongPassphrase(_)
        | KeyError::NobodyToAsk(_)
        | KeyError::Prompt(_)
        | KeyError::Differ
        | KeyError::TooShort
        | KeyError::Encrypt(_) => TufError::Key { path },
    })
}
