//! What each fuzz target does with bytes from outside: decode them within their limits and, where
//! that succeeds, encode them again to the same meaning. The targets under `fuzz/` and the replay of
//! the committed corpora in `tests/corpora.rs` call the same functions.

mod archive;
mod metadata;

use std::fs;
use std::path::Path;

use lockgate_agent::{
    config as agent_configuration,
    tpm::wire::{self as tpm, BLOB_BYTES},
};
use lockgate_server::config::Config;
use lockgate_server::stream::{FRAME_BYTES, Request, Response};
use lockgate_shared::{
    act::SignedAct,
    id::PublicKey,
    manifest::Manifest,
    policy::Policy,
    wire::{
        Directive, Enrolment, EnrolmentAnswer, Format, Letter, Sealed, SignedToken, codec,
        decode_rollout_file, encode_rollout_file,
    },
};
use tempfile::TempDir;

pub use archive::{archive, archive_tar};
pub use metadata::{anchor, metadata_raw, metadata_signed};

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which names its corpus too.
    pub name: &'static str,
    /// What it does with bytes from outside.
    pub run: fn(&[u8]),
    /// Most bytes of memory that it may hold at once, for an input of at most [`INPUT_BYTES`].
    pub memory: usize,
}

/// Longest input that is tried: mutations repeat pieces, and no corpus entry is longer by much.
pub const INPUT_BYTES: usize = 32 * 1024;

/// What a message of binary or JSON may cost. Most is not what it holds but what it claims: serde
/// reserves up to 1 MiB for a list before it reads its parts, and lists stand in lists.
const MESSAGE_MEMORY: usize = 8 << 20;
/// What metadata may cost: it is kept as received, as a tree of values, in canonical form and as the
/// document, for each of five roles.
const METADATA_MEMORY: usize = 8 << 20;
/// What unpacking may cost, whatever the archive claims to hold: two buffers of 128 KiB and the list.
/// The decoder's own window is zstd's, and bounded by `WINDOW_LOG_MAX`.
const ARCHIVE_MEMORY: usize = 1 << 20;
/// What a configuration may cost: its text, its tree with a place for each value, and the faults, of
/// which each quotes a part.
const SETTINGS_MEMORY: usize = 8 << 20;

/// What a TPM's answer may cost: the halves of a sealed object, and they once more as a file.
const ANSWER_MEMORY: usize = 4 * BLOB_BYTES;

/// What a frame on the gatekeeper's socket may cost: a text in it may claim the whole length that a
/// frame may have, and is reserved before it is read; lists come on top, as above.
const FRAME_MEMORY: usize = 3 * FRAME_BYTES;

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "letter_binary", run: letter_binary, memory: MESSAGE_MEMORY },
    Target { name: "letter_json", run: letter_json, memory: MESSAGE_MEMORY },
    Target { name: "enrolment_binary", run: enrolment_binary, memory: MESSAGE_MEMORY },
    Target { name: "enrolment_json", run: enrolment_json, memory: MESSAGE_MEMORY },
    Target { name: "directive_binary", run: directive_binary, memory: MESSAGE_MEMORY },
    Target { name: "directive_json", run: directive_json, memory: MESSAGE_MEMORY },
    Target { name: "enrolment_answer", run: enrolment_answer, memory: MESSAGE_MEMORY },
    Target { name: "rollout_file", run: rollout_file, memory: MESSAGE_MEMORY },
    Target { name: "token", run: token, memory: MESSAGE_MEMORY },
    Target { name: "act", run: act, memory: MESSAGE_MEMORY },
    Target { name: "manifest", run: manifest, memory: MESSAGE_MEMORY },
    Target { name: "policy", run: policy, memory: MESSAGE_MEMORY },
    Target { name: "metadata_raw", run: metadata_raw, memory: METADATA_MEMORY },
    Target { name: "metadata_signed", run: metadata_signed, memory: METADATA_MEMORY },
    Target { name: "archive", run: archive, memory: ARCHIVE_MEMORY },
    Target { name: "archive_tar", run: archive_tar, memory: ARCHIVE_MEMORY },
    Target { name: "agent_settings", run: agent_settings, memory: SETTINGS_MEMORY },
    Target { name: "server_settings", run: server_settings, memory: SETTINGS_MEMORY },
    Target { name: "tpm_answer", run: tpm_answer, memory: ANSWER_MEMORY },
    Target { name: "frame_request", run: frame_request, memory: FRAME_MEMORY },
    Target { name: "frame_response", run: frame_response, memory: FRAME_MEMORY },
];

/// A letter in binary.
pub fn letter_binary(bytes: &[u8]) {
    letter(bytes, Format::Binary);
}

/// A letter in JSON.
pub fn letter_json(bytes: &[u8]) {
    letter(bytes, Format::Json);
}

fn letter(bytes: &[u8], format: Format) {
    let Ok(sealed) = Sealed::read(bytes, format) else { return };
    let key = PublicKey(sealed.device.0);
    assert!(Letter::open(&sealed, &key).is_err(), "a device's id is never its key");
    if let Ok(letter) = Letter::open_unverified(&sealed) {
        assert!(letter.check().is_ok(), "what is read is within its bounds");
    }
    let again = sealed.to_bytes().and_then(|bytes| Sealed::read(&bytes, format));
    assert_eq!(again.ok().as_ref(), Some(&sealed), "written and read again it is the same");
}

/// An enrolment in binary.
pub fn enrolment_binary(bytes: &[u8]) {
    enrolment(bytes, Format::Binary);
}

/// An enrolment in JSON.
pub fn enrolment_json(bytes: &[u8]) {
    enrolment(bytes, Format::Json);
}

fn enrolment(bytes: &[u8], format: Format) {
    let Ok(sealed) = Sealed::read(bytes, format) else { return };
    if let Ok(enrolment) = Enrolment::open(&sealed) {
        assert!(enrolment.facts.well_formed(), "what is read is within its bounds");
    }
}

/// A directive in binary.
pub fn directive_binary(bytes: &[u8]) {
    directive(bytes, Format::Binary);
}

/// A directive in JSON.
pub fn directive_json(bytes: &[u8]) {
    directive(bytes, Format::Json);
}

fn directive(bytes: &[u8], format: Format) {
    let Ok(read) = Directive::read(bytes, format) else { return };
    let Ok(bytes) = read.to_bytes(format) else { return };
    assert_eq!(Directive::read(&bytes, format).ok(), Some(read), "it means the same");
}

/// The answer to an enrolment, in either form.
pub fn enrolment_answer(bytes: &[u8]) {
    for format in [Format::Binary, Format::Json] {
        let Ok(read) = EnrolmentAnswer::read(bytes, format) else { continue };
        let Ok(bytes) = read.to_bytes(format) else { continue };
        assert_eq!(EnrolmentAnswer::read(&bytes, format).ok(), Some(read), "it means the same");
    }
}

/// A rollout file.
pub fn rollout_file(bytes: &[u8]) {
    let Ok(file) = decode_rollout_file(bytes) else { return };
    assert_eq!(encode_rollout_file(&file).ok().as_deref(), Some(bytes), "one form for one meaning");
}

/// An enrolment token's text.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(token) = text.parse::<SignedToken>() else { return };
    if let Ok(text) = token.to_text() {
        assert_eq!(text.parse::<SignedToken>().ok(), Some(token), "it means the same");
    }
}

/// A signed act.
pub fn act(bytes: &[u8]) {
    let Ok(signed) = serde_json::from_slice::<SignedAct>(bytes) else { return };
    let _ = signed.unverified();
}

/// A release manifest.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::from_json(bytes) {
        assert!(manifest.check().is_ok(), "what is read is within its bounds");
        for artifact in &manifest.artifacts {
            let _ = artifact.unpacked();
        }
    }
}

/// A policy.
pub fn policy(bytes: &[u8]) {
    if let Ok(policy) = Policy::from_json(bytes) {
        assert!(policy.check().is_ok(), "what is read is within its bounds");
    }
}

/// An agent's configuration file.
pub fn agent_settings(bytes: &[u8]) {
    let folder = scratch();
    let path = folder.path().join("agent.toml");
    fs::write(&path, bytes).expect("a file");
    if let Err(refused) = agent_configuration::load(&path) {
        assert!(!refused.to_string().is_empty(), "a refusal says why");
    }
}

/// A server's configuration file.
pub fn server_settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(refused) = Config::parse(text, Path::new("/etc/lockgate")) {
        assert!(!refused.to_string().is_empty(), "a refusal says why");
    }
}

/// A TPM's answer, whatever it is the answer to; and a sealed key's file.
pub fn tpm_answer(bytes: &[u8]) {
    let label = [0x4c; 32];
    let parts = |parameters: &[u8]| {
        if let Ok(sealed) = tpm::created(parameters) {
            assert_eq!(tpm::Sealed::read(&sealed.to_bytes()), Ok(sealed), "it is read again");
        }
        if let Ok(secret) = tpm::secret(parameters) {
            assert!(secret.len() <= tpm::SECRET_BYTES, "within its bounds");
        }
        let _ = tpm::count(parameters);
        let _ = tpm::is_counter(parameters, 0x0182_0000, &label);
    };
    for handle in [tpm::Handle::Made, tpm::Handle::None] {
        match tpm::answer(bytes, handle) {
            Ok(answer) => parts(answer.parameters),
            Err(refused) => assert!(!refused.to_string().is_empty(), "a refusal says why"),
        }
    }
    parts(bytes);
    if let Ok(sealed) = tpm::Sealed::read(bytes) {
        assert_eq!(sealed.to_bytes(), bytes, "one form for one meaning");
    }
}

/// A frame from the gatekeeper to the letter box.
pub fn frame_request(bytes: &[u8]) {
    let Ok(request) = codec::decode_frame::<Request>(bytes, FRAME_BYTES) else { return };
    let again = codec::encode(&request, FRAME_BYTES).expect("what was read can be written");
    assert_eq!(codec::encode(&read_again(&again), FRAME_BYTES).ok(), Some(again));

    fn read_again(bytes: &[u8]) -> Request {
        codec::decode_frame(bytes, FRAME_BYTES).expect("what was written can be read")
    }
}

/// A frame from the letter box to the gatekeeper.
pub fn frame_response(bytes: &[u8]) {
    let Ok(response) = codec::decode_frame::<Response>(bytes, FRAME_BYTES) else { return };
    let again = codec::encode(&response, FRAME_BYTES).expect("what was read can be written");
    assert_eq!(codec::decode_frame(&again, FRAME_BYTES).ok(), Some(response), "it means the same");
}

/// A temporary folder, in memory where there is one: what is tried is not the disk.
fn scratch() -> TempDir {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.expect("a temporary folder")
}
