//! `enroll`: brings the device into a tenant with a token. The key is made here and stays here; the
//! server's answer is believed only as far as it repeats what the token says.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::TenantId,
    limits,
    wire::{self, CodecError, Enrolment, EnrolmentAnswer, Format, SignedToken, TokenError},
};
use serde_json::json;
use thiserror::Error;

use super::{CliError, Report, anchor, transport};
use crate::{
    clock,
    config::{Settings, TpmSettings},
    facts::{self, Sources},
    identity::{self, Enrolled, Identity, IdentityError, Kept, Start},
    lock::Lock,
    transport::TransportError,
};

/// The longest token's text, with room for blanks around it.
const TOKEN_TEXT: u64 = 8 * 1024;

/// Why the device was not brought in.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// The token's file.
    #[error("cannot read the token from `{path}`", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The token's text.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It is in a tenant already.
    #[error(
        "this device belongs to tenant `{0}` already\nhint: to move it, stop the agent and remove `enrolment.json` and `device.key` from its state folder first; it then is another device"
    )]
    Already(TenantId),
    /// The message could not be made or the answer not be read.
    #[error("the enrolment cannot be exchanged")]
    Codec(#[from] CodecError),
    /// The server was not reached, or refused.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer is about something else than was asked.
    #[error(
        "the server's answer names another {0} than the token\nhint: is `server` the one that the token is for?"
    )]
    Answer(&'static str),
}

/// Enrols, once. Where the answer was lost the same command may be repeated: the key is kept.
pub(super) fn enroll(settings: &Settings, text: &str) -> Result<Report, CliError> {
    let signed: SignedToken = text.parse().map_err(EnrollError::Token)?;
    let token = signed.unverified().map_err(EnrollError::Token)?;
    // Without them the device would be enrolled and could not do anything.
    anchor(&settings.anchor)?;
    let mut transport = transport(settings)?;
    make_state(&settings.state)?;
    let _lock = Lock::take(&settings.state)?;
    let Identity { key, kept, notes } = identity::key_or_new(&settings.state, &settings.tpm)?;
    match Enrolled::read(&settings.state, &key) {
        Ok(enrolled) => return Err(EnrollError::Already(enrolled.tenant).into()),
        Err(IdentityError::NotEnrolled(_)) => {}
        Err(error) => return Err(error.into()),
    }

    let sent = clock::now();
    let facts = facts::gather(&Sources::system(), &settings.facts, &settings.state);
    let public = lockgate_shared::sign::public(&key);
    let enrolment = Enrolment { token: signed, key: public, sent, facts };
    let sealed = enrolment.seal(Format::Binary, &key).map_err(EnrollError::Codec)?;
    let bytes = sealed.to_bytes().map_err(EnrollError::Codec)?;
    let most = limits::DIRECTIVE_BYTES as u64;
    let answer =
        transport.post("/v1/enroll", wire::BINARY, &bytes, most).map_err(EnrollError::Transport)?;
    let answer = EnrolmentAnswer::read(&answer.body, Format::Binary).map_err(EnrollError::Codec)?;
    for (same, what) in [
        (answer.repository == token.repository, "repository"),
        (answer.tenant == token.tenant, "tenant"),
        (answer.device == sealed.device, "device"),
    ] {
        if !same {
            return Err(EnrollError::Answer(what).into());
        }
    }
    let enrolled = Enrolled {
        repository: answer.repository,
        tenant: answer.tenant,
        device: answer.device,
        enrolled: sent,
    };
    enrolled.write(&settings.state)?;
    let told = how_kept(kept, &settings.tpm, &notes);
    let text = format!(
        "enrolled in tenant `{}` of repository `{}`\ndevice {}\nkey {told}\nnext: systemctl enable --now lockgate-agent\n",
        enrolled.tenant, enrolled.repository, enrolled.device
    );
    let sealed = matches!(kept, Kept::Sealed(_));
    let key = json!({ "sealed": sealed, "detail": told });
    Ok(Report::of(text, json!({ "ok": true, "enrolment": enrolled, "key": key })))
}

/// How the key is kept, and why not better.
pub(super) fn how_kept(kept: Kept, tpm: &TpmSettings, notes: &[String]) -> String {
    let device = tpm.device.display();
    let how = match kept {
        Kept::Plain => "in a file that only its owner may read".to_owned(),
        Kept::Sealed(None) => format!("sealed in the TPM at `{device}`"),
        Kept::Sealed(Some(Start { index, .. })) => {
            format!("sealed in the TPM at `{device}`, with counter {index:#010x}")
        }
    };
    if notes.is_empty() { how } else { format!("{how} ({})", notes.join("; ")) }
}

/// Reads a token's text from a file, or from standard input for `-`.
pub(super) fn read_token(path: &Path) -> Result<String, EnrollError> {
    let failed = |source| EnrollError::File { path: path.to_path_buf(), source };
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().take(TOKEN_TEXT).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = fs::File::open(path).map_err(failed)?;
        file.take(TOKEN_TEXT).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

/// The state folder, for its owner alone.
fn make_state(state: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.map_err(|source| IdentityError::Io { act: "make", path: state.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use lockgate_shared::{
        id::TokenId,
        time::{Moment, Seconds},
        wire::EnrolmentToken,
    };

    use super::*;
    use crate::{
        config,
        transport::tests::{Server, serve, whole},
    };

    #[test]
    fn a_device_is_brought_in_once_and_keeps_its_key() {
        let (folder, server) = prepared("acme");
        let settings = settings(folder.path(), &server);
        enroll(&settings, &token()).expect("brought in");
        let key = identity::key(&settings.state, &settings.tpm).expect("the key").key;
        let enrolled = Enrolled::read(&settings.state, &key).expect("the enrolment");
        assert_eq!(enrolled.tenant.as_str(), "acme");
        let again = enroll(&settings, &token()).expect_err("it is in already");
        assert!(matches!(again, CliError::Enroll(EnrollError::Already(_))), "{again}");
    }

    #[test]
    fn an_answer_about_another_tenant_is_not_believed() {
        let (folder, server) = prepared("other");
        let settings = settings(folder.path(), &server);
        let error = enroll(&settings, &token()).expect_err("not what the token says");
        assert!(matches!(error, CliError::Enroll(EnrollError::Answer("tenant"))), "{error}");
        assert!(!settings.state.join(identity::ENROLMENT_FILE).exists());
    }

    #[test]
    fn a_refusal_is_told_apart_from_a_server_that_is_down() {
        let (folder, _) = prepared("acme");
        let server = serve(|_, _| whole(403, "", b""));
        let refused = enroll(&settings(folder.path(), &server), &token()).expect_err("refused");
        assert_eq!(refused.exit(), 6);
        let server = serve(|_, _| whole(503, "", b""));
        let down = enroll(&settings(folder.path(), &server), &token()).expect_err("down");
        assert_eq!(down.exit(), 5);
    }

    /// A folder with a key and a root, and a server that takes its device into a tenant.
    fn prepared(tenant: &str) -> (tempfile::TempDir, Server) {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        fs::create_dir(&state).expect("a folder");
        fs::write(folder.path().join("root.json"), b"{}").expect("written");
        let off = TpmSettings { sealing: config::Sealing::Off, ..TpmSettings::default() };
        let key = identity::key_or_new(&state, &off).expect("a key").key;
        let answer = EnrolmentAnswer {
            repository: "trial".parse().expect("a name"),
            tenant: tenant.parse().expect("a name"),
            device: identity::device(&key),
            offset: 1,
            next_poll: Seconds(300),
        };
        let bytes = answer.to_bytes(Format::Binary).expect("short");
        (folder, serve(move |_, _| whole(200, "", &bytes)))
    }

    fn settings(folder: &Path, server: &Server) -> Settings {
        let at = folder.display();
        let (origin, ca) = (server.origin("localhost"), server.ca());
        let text = format!(
            "server = \"{origin}\"\nstate = \"{at}/state\"\nanchor = \"{at}/root.json\"\nca = \"{}\"\ntpm = \"off\"\n[[product]]\nname = \"app\"\nslots = \"directory\"\nroot = \"{at}/app\"\n",
            ca.display()
        );
        fs::write(folder.join("agent.toml"), text).expect("written");
        config::load(&folder.join("agent.toml")).expect("right")
    }

    fn token() -> String {
        let token = EnrolmentToken {
            repository: "trial".parse().expect("a name"),
            tenant: "acme".parse().expect("a name"),
            id: TokenId([1; 16]),
            issued: Moment(0),
            expires: Moment(i64::MAX),
            uses: 1,
        };
        let signed = SignedToken::make(&token, &SigningKey::from_bytes(&[9; 32])).expect("short");
        signed.to_text().expect("short")
    }
}
