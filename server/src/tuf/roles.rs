//! Signatures of TUF roles: counted by key material, so that one key under two ids counts once; and
//! made with this host's online keys. Ed25519 only, as the ceremony makes them: another kind of key
//! counts for nothing.

use std::{collections::BTreeSet, path::Path};

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey, pkcs8::DecodePrivateKey as _};
use lockgate_shared::{
    id::{Digest, PublicKey},
    sign,
    time::Moment,
};
use serde::{Serialize, de::DeserializeOwned};
use tough::schema::{
    Delegations, Role, RoleKeys, RoleType, Root, Signature, Signed, Targets,
    decoded::{Decoded, Hex},
    key::Key,
};
use zeroize::Zeroizing;

use super::{METADATA_BYTES, TufError};

/// The keys of the roles that this host signs.
pub struct OnlineKeys {
    /// For the delegated role `rollouts`.
    pub rollouts: SigningKey,
    /// For `snapshot`.
    pub snapshot: SigningKey,
    /// For `timestamp`.
    pub timestamp: SigningKey,
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
    /// The exact bytes.
    pub bytes: Vec<u8>,
}

impl OnlineKeys {
    /// Reads `rollouts.key`, `snapshot.key` and `timestamp.key`; refuses a file that others may read.
    pub fn load(folder: &Path) -> Result<Self, TufError> {
        let read = |name: &str| read_key(&folder.join(name));
        Ok(Self {
            rollouts: read("rollouts.key")?,
            snapshot: read("snapshot.key")?,
            timestamp: read("timestamp.key")?,
        })
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
        let bytes = canonical(&self.name, &signed.signed)?;
        let valid: BTreeSet<PublicKey> = signed
            .signatures
            .iter()
            .filter_map(|signature| {
                let key = self.material(&signature.keyid)?;
                let sig: [u8; 64] = signature.sig.as_ref().try_into().ok()?;
                let sig = ed25519_dalek::Signature::from_bytes(&sig);
                let verifying = VerifyingKey::from_bytes(&key.0).ok()?;
                verifying.verify_strict(&bytes, &sig).is_ok().then_some(key)
            })
            .collect();
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

    /// Signs a role with one key. For the online roles, which need one signature.
    pub fn sign<T: Role>(&self, role: T, key: &SigningKey) -> Result<RoleFile, TufError> {
        let ours = sign::public(key);
        let keyid = self.role.keyids.iter().find(|id| self.material(id) == Some(ours));
        let Some(keyid) = keyid.filter(|_| self.role.threshold.get() == 1) else {
            return Err(TufError::NotOurs { role: self.name.clone() });
        };
        let bytes = canonical(&self.name, &role)?;
        let signature =
            Signature { keyid: keyid.clone(), sig: key.sign(&bytes).to_bytes().to_vec().into() };
        let (version, expires) = (role.version().get(), Moment(role.expires().as_second()));
        let signed = Signed { signed: role, signatures: vec![signature] };
        let bytes = serde_json::to_vec_pretty(&signed).map_err(|error| TufError::Metadata {
            role: self.name.clone(),
            why: error.to_string(),
        })?;
        Ok(RoleFile { version, expires, bytes })
    }

    fn material(&self, id: &Decoded<Hex>) -> Option<PublicKey> {
        if !self.role.keyids.contains(id) {
            return None;
        }
        match self.keys.get(id)? {
            Key::Ed25519 { keyval, .. } => keyval.public.as_ref().try_into().ok().map(PublicKey),
            Key::Rsa { .. } | Key::Ecdsa { .. } | Key::EcdsaOld { .. } => None,
        }
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

fn read_key(path: &Path) -> Result<SigningKey, TufError> {
    use std::os::unix::fs::PermissionsExt as _;

    let fail = |source| TufError::File { path: path.to_path_buf(), what: "reading it", source };
    let mode = std::fs::metadata(path).map_err(fail)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(TufError::KeyOpen { path: path.to_path_buf() });
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(fail)?);
    SigningKey::from_pkcs8_pem(&text).map_err(|_| TufError::Key { path: path.to_path_buf() })
}
