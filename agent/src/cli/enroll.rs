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
    config::Settings,
    facts::{self, Sources},
    identity::{self, Enrolled, IdentityError},
    lock::Lock,
    log,
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
    let key = identity::key_or_new(&settings.state)?;
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
    log::info(format_args!("enrolled in tenant `{}`", enrolled.tenant));
    let text = format!(
        "enrolled in tenant `{}` of repository `{}`\ndevice {}\nnext: systemctl enable --now lockgate-agent\n",
        enrolled.tenant, enrolled.repository, enrolled.device
    );
    Ok(Report::of(text, json!({ "ok": true, "enrolment": enrolled })))
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
