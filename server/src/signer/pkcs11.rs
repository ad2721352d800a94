//! A key in a token: a smart card, a hardware security module or SoftHSM, by the PKCS#11 module that
//! comes with it. The private half never leaves the token.
//!
//! An RFC 7512 address names it: `pkcs11:token=safe;object=root-1?module-path=/usr/lib/…/module.so`.
//! The token's PIN comes like a passphrase (a file, the environment, a prompt), or from the file that
//! `pin-source=file:…` names; an address with the PIN itself in it is refused, because command lines
//! can be read by others. A key of another kind than Ed25519 is refused.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Mutex,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{
        Mechanism,
        eddsa::{EddsaParams, EddsaSignatureScheme},
    },
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use lockgate_shared::id::{PublicKey, Signature};

use super::{Signer, SignerError};
use crate::keys::PassphraseSource;

/// What an address begins with.
pub(super) const SCHEME: &str = "pkcs11:";

/// Where a token's key is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenAddress {
    /// The token's label.
    pub token: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// The key's label.
    pub object: Option<String>,
    /// The key's id.
    pub id: Option<Vec<u8>>,
    /// The module.
    pub module: PathBuf,
    /// The file that holds the PIN.
    pub pin_file: Option<PathBuf>,
    text: String,
}

/// A key in a token.
pub struct TokenSigner {
    session: Mutex<Session>,
    key: ObjectHandle,
    public: PublicKey,
}

impl TokenSigner {
    /// Loads the module, opens the token with its PIN, and finds the key.
    pub fn open(address: &TokenAddress, pin: &PassphraseSource) -> Result<Self, SignerError> {
        let failed = |source| SignerError::Token { address: address.to_string(), source };
        let module = Pkcs11::new(&address.module).map_err(failed)?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // Another key of the same process came first.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(failed(error)),
        }
        let slot = address.slot(&module)?;
        let session = module.open_ro_session(slot).map_err(failed)?;
        let source = address.pin_file.clone().map(PassphraseSource::File);
        let pin = source.as_ref().unwrap_or(pin).unlock(Path::new(&address.to_string()));
        let pin = AuthPin::from(pin.map_err(|error| SignerError::Pin(Box::new(error)))?.text());
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(failed(error)),
        }
        let key = address.only(&session, ObjectClass::PRIVATE_KEY)?;
        let point = address.only(&session, ObjectClass::PUBLIC_KEY)?;
        let attributes =
            session.get_attributes(point, &[AttributeType::EcPoint]).map_err(failed)?;
        let point = attributes.into_iter().find_map(|attribute| {
            if let Attribute::EcPoint(point) = attribute { Some(point) } else { None }
        });
        let public = point
            .as_deref()
            .and_then(point_of)
            .ok_or_else(|| SignerError::NotEd25519 { address: address.to_string() })?;
        Ok(Self { session: Mutex::new(session), key, public })
    }
}

impl Signer for TokenSigner {
    fn public(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, bytes: &[u8]) -> Result<Signature, SignerError> {
        let failed = |source| SignerError::Token { address: SCHEME.to_owned(), source };
        // A thread that panicked while it signed left a session that the token still knows.
        let session = self.session.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let scheme = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
        let signature = session.sign(&scheme, self.key, bytes).map_err(failed)?;
        let signature = <[u8; 64]>::try_from(signature.as_slice()).ok();
        signature.map(Signature).ok_or(SignerError::DoesNotHold(self.public))
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSigner({})", self.public)
    }
}

impl TokenAddress {
    fn slot(&self, module: &Pkcs11) -> Result<Slot, SignerError> {
        let failed = |source| SignerError::Token { address: self.to_string(), source };
        let mut found = Vec::new();
        for slot in module.get_slots_with_token().map_err(failed)? {
            let info = module.get_token_info(slot).map_err(failed)?;
            let fits = |asked: &Option<String>, is: &str| asked.as_ref().is_none_or(|a| a == is);
            if info.token_initialized()
                && fits(&self.token, info.label())
                && fits(&self.serial, info.serial_number())
            {
                found.push(slot);
            }
        }
        match found.as_slice() {
            [slot] => Ok(*slot),
            others => Err(SignerError::HowMany {
                what: "tokens",
                count: others.len(),
                address: self.to_string(),
            }),
        }
    }

    /// The one object of this class with the label and id asked for.
    fn only(&self, session: &Session, class: ObjectClass) -> Result<ObjectHandle, SignerError> {
        let mut asked = vec![Attribute::Class(class), Attribute::KeyType(KeyType::EC_EDWARDS)];
        asked.extend(self.object.clone().map(|label| Attribute::Label(label.into_bytes())));
        asked.extend(self.id.clone().map(Attribute::Id));
        let found = session
            .find_objects(&asked)
            .map_err(|source| SignerError::Token { address: self.to_string(), source })?;
        match found.as_slice() {
            [object] => Ok(*object),
            others => Err(SignerError::HowMany {
                what: "Ed25519 key pairs",
                count: others.len(),
                address: self.to_string(),
            }),
        }
    }
}

/// The 32 bytes of a point, which modules wrap as an octet string, as a bit string, or not at all.
fn point_of(bytes: &[u8]) -> Option<PublicKey> {
    let raw = match bytes {
        [0x04, 0x20, rest @ ..] | [0x03, 0x21, 0x00, rest @ ..] => rest,
        whole => whole,
    };
    raw.try_into().ok().map(PublicKey)
}

impl FromStr for TokenAddress {
    type Err = SignerError;

    fn from_str(text: &str) -> Result<Self, SignerError> {
        let refuse = |why: &'static str| SignerError::Address { address: text.to_owned(), why };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| refuse("it has no `pkcs11:`"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut address = Self { text: text.to_owned(), ..Self::default() };
        let parts = path.split(';').chain(query.split('&'));
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| refuse("a part of it has no `=`"))?;
            let bytes =
                unescape(value).ok_or_else(|| refuse("a `%` in it is not followed by hex"))?;
            let words = String::from_utf8(bytes.clone());
            let words = words.map_err(|_| refuse("a part of it is no text"));
            match name {
                "token" => address.token = Some(words?),
                "serial" => address.serial = Some(words?),
                "object" => address.object = Some(words?),
                "id" => address.id = Some(bytes),
                "module-path" => address.module = words?.into(),
                "pin-source" => {
                    let file = words?;
                    let path = file.strip_prefix("file:").unwrap_or(&file);
                    address.pin_file = Some(path.into());
                }
                "type" if value == "private" => {}
                "pin-value" => {
                    return Err(refuse(
                        "a PIN does not belong into it: others can read command lines",
                    ));
                }
                _ => return Err(refuse("it asks for something that is not understood here")),
            }
        }
        if address.module.as_os_str().is_empty() {
            return Err(refuse("it does not say `module-path=…`"));
        }
        if address.object.is_none() && address.id.is_none() {
            return Err(refuse("it names neither `object` nor `id`"));
        }
        Ok(address)
    }
}

impl fmt::Display for TokenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Takes `%20` and its like apart.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.extend(hex::decode(digits).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;
    use crate::{keys::Passphrase, signer::conformance};

    const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
    /// Says to [`in_a_process_that_has_a_token`] where its token is.
    const CONFIGURATION: &str = "SOFTHSM2_CONF";

    #[test]
    fn an_address_says_where_the_key_is_and_never_its_pin() {
        let text = "pkcs11:token=the%20safe;id=%01%a0;object=root-1;type=private?module-path=/m.so&pin-source=file:/pin";
        let address: TokenAddress = text.parse().expect("an address");
        assert_eq!(address.token.as_deref(), Some("the safe"));
        assert_eq!(address.id.as_deref(), Some(&[1, 0xa0][..]));
        assert_eq!(address.module, Path::new("/m.so"));
        assert_eq!(address.pin_file.as_deref(), Some(Path::new("/pin")));
        for bad in [
            "pkcs11:object=a",
            "pkcs11:token=a?module-path=/m.so",
            "pkcs11:object=a?module-path=/m.so&pin-value=1234",
            "pkcs11:object=%4?module-path=/m.so",
            "pkcs11:object?module-path=/m.so",
            "pkcs11:object=a;slot-weather=fine?module-path=/m.so",
        ] {
            let refused = bad.parse::<TokenAddress>();
            assert!(matches!(refused, Err(SignerError::Address { .. })), "{bad}");
        }
    }

    /// SoftHSM reads its configuration's place from the environment, which a process has only one of:
    /// the token is tried in a process of its own, the test beside this one.
    #[test]
    fn a_token_signs_like_any_signer() {
        let temp = tempfile::tempdir().expect("a folder");
        fs::create_dir(temp.path().join("tokens")).expect("made");
        let configuration = temp.path().join("softhsm2.conf");
        let tokens = temp.path().join("tokens");
        let text =
            format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
        fs::write(&configuration, text).expect("written");
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", "the safe", "--so-pin", "87654321"])
            .args(["--pin", "a pin of twelve"])
            .env(CONFIGURATION, &configuration)
            .output()
            .expect("`softhsm2` is installed by scripts/test");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let inner = Command::new(std::env::current_exe().expect("this program"))
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("signer::pkcs11::tests::in_a_process_that_has_a_token")
            .env(CONFIGURATION, &configuration)
            .output()
            .expect("this program again");
        let said = String::from_utf8_lossy(&inner.stdout);
        assert!(inner.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "run by the test above, in an environment of its own"]
    fn in_a_process_that_has_a_token() {
        let temp = tempfile::tempdir().expect("a folder");
        let pin = temp.path().join("pin");
        fs::write(&pin, "a pin of twelve\n").expect("written");
        generate("root-1", "a pin of twelve");
        let named = |object: &str, more: &str| -> TokenAddress {
            let text =
                format!("pkcs11:token=the%20safe;object={object}?module-path={MODULE}{more}");
            text.parse().expect("an address")
        };
        let from_file = format!("&pin-source=file:{}", pin.display());
        let nobody = PassphraseSource::Given(Passphrase::new("not asked"));
        let signer = TokenSigner::open(&named("root-1", &from_file), &nobody).expect("found");
        conformance::check(&signer);
        let absent = TokenSigner::open(&named("root-2", &from_file), &nobody);
        assert!(matches!(absent, Err(SignerError::HowMany { count: 0, .. })), "{absent:?}");
        generate("root-1", "a pin of twelve");
        let twice = TokenSigner::open(&named("root-1", &from_file), &nobody);
        assert!(matches!(twice, Err(SignerError::HowMany { count: 2, .. })), "{twice:?}");
        let text = format!("pkcs11:token=another;object=a?module-path={MODULE}");
        let elsewhere = TokenSigner::open(&text.parse().expect("an address"), &nobody);
        assert!(matches!(elsewhere, Err(SignerError::HowMany { what: "tokens", .. })));
        let text = "pkcs11:object=a?module-path=/nonexistent.so";
        let no_module = TokenSigner::open(&text.parse().expect("an address"), &nobody);
        assert!(matches!(no_module, Err(SignerError::Token { .. })));
    }

    /// A key pair made inside the token.
    fn generate(label: &str, pin: &str) {
        let module = Pkcs11::new(MODULE).expect("the module");
        let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slots = module.get_slots_with_initialized_token().expect("slots");
        let session = module.open_rw_session(slots[0]).expect("a session");
        match session.login(UserType::User, Some(&AuthPin::from(pin))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => panic!("{error}"),
        }
        let name = Attribute::Label(label.as_bytes().to_vec());
        // PrintableString `edwards25519`, as PKCS#11 3.0 names the curve.
        let mut curve = vec![0x13, 0x0c];
        curve.extend_from_slice(b"edwards25519");
        let public = [
            Attribute::Token(true),
            Attribute::Verify(true),
            Attribute::EcParams(curve),
            name.clone(),
        ];
        let private = [Attribute::Token(true), Attribute::Sign(true), name];
        session
            .generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private)
            .expect("a key pair");
    }
}
