//! What each fuzz target does with bytes from outside: decode them within their limits and, where
//! that succeeds, encode them again to the same meaning. The targets under `fuzz/` and the replay of
//! the committed corpora in `tests/corpora.rs` call the same functions.

use lockgate_shared::{
    act::SignedAct,
    id::PublicKey,
    manifest::Manifest,
    policy::Policy,
    wire::{
        Directive, Enrolment, EnrolmentAnswer, Format, Letter, Sealed, SignedToken,
        decode_rollout_file, encode_rollout_file,
    },
};

/// A fuzz target: its name, which names its corpus too, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("letter_binary", letter_binary),
    ("letter_json", letter_json),
    ("enrolment_binary", enrolment_binary),
    ("enrolment_json", enrolment_json),
    ("directive_binary", directive_binary),
    ("directive_json", directive_json),
    ("enrolment_answer", enrolment_answer),
    ("rollout_file", rollout_file),
    ("token", token),
    ("act", act),
    ("manifest", manifest),
    ("policy", policy),
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
