//! The commands that need no server: keys, ceremony, releases, acts, enrolment tokens. Each noun has
//! a file with its subcommands and one `run`; what they do is done by the modules that they call.
//!
//! Nothing here opens a connection.

pub mod act;
pub mod grant;
pub mod key;
pub mod release;
pub mod repo;
pub mod rollout;
pub mod tenant;
pub mod token;

use std::{
    fs,
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use lockgate_shared::{
    act::{Act, ActError, SignedAct},
    id::{Digest, PublicKey, TenantId},
    limits,
    loosening::LooseningError,
    manifest::{Manifest, ManifestError},
    policy::{Policy, PolicyError, Role},
    time::Moment,
    wire::{CodecError, TokenError},
};
use serde_json::json;
use thiserror::Error;

use crate::{
    acts::{self, ActsError},
    acts_text::consequences::Unseen,
    ceremony::{
        CeremonyError, change::ChangeError, metadata::MetadataError, plan::PlanError,
        words::role_name,
    },
    keys::{KeyError, PassphraseSource},
    names,
    release::{
        CreateError, plan::PlanError as ReleasePlanError, recall, role::LocalRepository,
        role::RoleError, sign::SignError,
    },
    signer::{KeyRef, SignerError},
    whole_folder::{self, FolderError, Readers},
};

/// What a command did, for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Lines, each ended.
    pub text: String,
    /// The same as one JSON object.
    pub json: serde_json::Value,
}

/// Where a key's passphrase comes from: never from the command line itself.
#[derive(Clone, Debug, Default, Args)]
pub struct PassphraseArgs {
    /// File whose first line is the passphrase; else LOCKGATE_PASSPHRASE, else a prompt
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// Where the policy comes from.
#[derive(Clone, Debug, Args)]
pub struct PolicyArgs {
    /// The repository's policy.json
    #[arg(long, value_name = "FILE", conflicts_with = "repository")]
    pub policy: Option<PathBuf>,
    /// A local copy of the repository, whose policy is verified and used
    #[arg(long, value_name = "DIR")]
    pub repository: Option<PathBuf>,
    /// The root file at which trust begins; else the oldest root in the copy
    #[arg(long, value_name = "FILE", requires = "repository")]
    pub anchor: Option<PathBuf>,
}

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
pub enum CliError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] FolderError),
    /// The answer cannot be printed.
    #[error("cannot print")]
    Print(#[from] io::Error),
    /// A key or a passphrase.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A signature.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// A change of the repository.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The ceremony's plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The ceremony.
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
    /// The making of a release.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The making of a recall.
    #[error(transparent)]
    Recall(#[from] recall::MakeError),
    /// A release's plan.
    #[error(transparent)]
    ReleasePlan(#[from] ReleasePlanError),
    /// A copy of a repository.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The signing of a release.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// TUF metadata.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The making of an act.
    #[error(transparent)]
    Acts(#[from] ActsError),
    /// An act's file.
    #[error(transparent)]
    Act(#[from] ActError),
    /// An enrolment token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A loosening.
    #[error(transparent)]
    Loosening(#[from] LooseningError),
    /// The text of an enrolment token.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// No policy was named.
    #[error("this needs the policy\nhint: pass `--policy policy.json` or `--repository DIR`")]
    NoPolicy,
    /// What follows from an act could not be shown, and nobody said that it is to be signed unseen.
    #[error(
        "nothing was signed. Not shown: {0}\nhint: {hint}; `--unseen` signs all the same",
        hint = match .0 {
            Unseen::Manifest(_) => "pass the release's folder with `--manifest`, or a copy of the repository with `--repository DIR`",
            Unseen::Stops => "pass a copy of the repository with `--repository DIR`",
        }
    )]
    Unseen(Unseen),
    /// Nobody said yes.
    #[error("nothing was signed\nhint: read the text above, then answer `yes` or pass `--yes`")]
    NotConfirmed,
    /// A key whose signature would not count.
    #[error(
        "the key of `{key}` is no approver's: {whose}\nhint: an act is signed by approvers, each with a key of their own: {approvers}"
    )]
    NoApprover {
        /// The key.
        key: KeyRef,
        /// Whose it is.
        whose: String,
        /// Whose keys count.
        approvers: String,
    },
    /// A tenant that is not there.
    #[error("the policy names no tenant `{tenant}`\nhint: {known}")]
    NoTenant {
        /// Its name.
        tenant: TenantId,
        /// Those that are.
        known: String,
    },
    /// A key that enrols nobody.
    #[error(
        "the key of `{path}` is no enrolment key of tenant `{tenant}`\nhint: the ceremony wrote it to `tenants/{tenant}.key`; policy.json lists the public halves of those that count"
    )]
    NoEnrolmentKey {
        /// The key.
        path: KeyRef,
        /// The tenant.
        tenant: String,
    },
    /// A plan that is to be sound, and is not.
    #[error(
        "{} in this plan, and `--strict` allows none\nhint: each says what would mend it",
        lockgate_shared::count::count(*.0, "danger", "dangers")
    )]
    Dangerous(usize),
    /// An option that makes no sense.
    #[error("{0}")]
    Usage(String),
}

impl PassphraseArgs {
    /// The source that the options name.
    pub fn source(&self) -> PassphraseSource {
        self.passphrase_file
            .clone()
            .map_or(PassphraseSource::EnvironmentOrPrompt, PassphraseSource::File)
    }
}

impl PolicyArgs {
    /// The policy, if one was named.
    pub fn load(&self) -> Result<Option<Policy>, CliError> {
        if let Some(path) = &self.policy {
            return Ok(Some(Policy::from_json(&read(path, limits::POLICY_BYTES)?)?));
        }
        match &self.repository {
            Some(folder) => {
                let copy = LocalRepository::open(folder, self.anchor.as_deref())?;
                Ok(Some(copy.policy()?))
            }
            None => Ok(None),
        }
    }

    /// The policy, which must be named.
    pub fn require(&self) -> Result<Policy, CliError> {
        self.load()?.ok_or(CliError::NoPolicy)
    }
}

impl CliError {
    /// That a key may not sign acts: whose it is, and whose would count.
    fn no_approver(policy: &Policy, key: KeyRef, public: &PublicKey) -> Self {
        let owner = policy.people.iter().find(|(_, person)| person.keys.contains(public));
        let whose = owner.map_or_else(
            || "nobody in policy.json has it".to_owned(),
            |(name, person)| {
                let roles: Vec<&str> = person.roles.iter().map(|role| role_name(*role)).collect();
                format!("it belongs to `{name}` ({})", roles.join(", "))
            },
        );
        let approvers = policy.people.iter().filter(|(_, p)| p.roles.contains(&Role::Approver));
        let approvers = names::instead_of("", approvers.map(|(name, _)| name.as_str()));
        Self::NoApprover { key, whose, approvers }
    }
}

/// A file's bytes, if they are not more than `limit`.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, CliError> {
    let failed = |source| CliError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > limit as u64 {
        let text = format!("`{}` has {size} bytes, at most {limit} are read", path.display());
        return Err(CliError::Usage(text));
    }
    fs::read(path).map_err(failed)
}

/// A manifest that was named as a file, or by its digest.
#[derive(Clone, Debug)]
pub enum ManifestSource {
    /// Read from a file.
    File(Box<Manifest>, Digest),
    /// Known by digest only.
    Digest(Digest),
}

impl ManifestSource {
    /// What the option's text names: a digest, a manifest, or a folder with a `manifest.json`.
    pub fn of(text: &str) -> Result<Self, CliError> {
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest(digest));
        }
        let mut path = PathBuf::from(text);
        if path.is_dir() {
            path.push("manifest.json");
        }
        let bytes = read(&path, limits::MANIFEST_BYTES)?;
        Ok(Self::File(Box::new(Manifest::from_json(&bytes)?), Digest::of(&bytes)))
    }

    /// As the makers of acts take it.
    pub fn release(&self) -> acts::Release<'_> {
        match self {
            Self::File(manifest, digest) => acts::Release::Known { manifest, digest: *digest },
            Self::Digest(digest) => acts::Release::Digest(*digest),
        }
    }
}

/// Writes an unsigned act to a new file and says what comes next.
fn write_act(act: &Act, path: &Path, policy: &PolicyArgs) -> Result<Answer, CliError> {
    let signed = acts::to_file(act)?;
    whole_folder::write_new(path, act_bytes(&signed)?.as_slice(), Readers::Everybody)?;
    let (said, at) = (crate::acts_text::describe(act), path.display());
    let next = act::sign_next(path, policy.repository.as_deref());
    Ok(Answer {
        text: format!("{said}\nwritten to `{at}`, signed by nobody yet\n{next}"),
        json: json!({ "act": act, "file": path, "sha256": signed.digest() }),
    })
}

fn act_bytes(signed: &SignedAct) -> Result<Vec<u8>, CliError> {
    let mut bytes = serde_json::to_vec_pretty(signed).map_err(ActError::from)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Asks a person to confirm what was shown; without a terminal only `--yes` confirms.
fn confirm(yes: Confirmation, out: &mut dyn Write) -> Result<(), CliError> {
    let confirmed = match yes {
        Confirmation::Given => true,
        Confirmation::Ask => answered(out, "sign exactly this? Type `yes`: ", "yes")?,
    };
    if confirmed { Ok(()) } else { Err(CliError::NotConfirmed) }
}

/// Asks a person to confirm an act although what follows from it was not shown. `--yes` is no answer to
/// that: it confirms what was.
fn confirm_unseen(unseen: Unseen, yes: Confirmation, out: &mut dyn Write) -> Result<(), CliError> {
    let question = format!("not shown: {unseen}\nsign it unseen? Type `unseen`: ");
    let confirmed = match yes {
        Confirmation::Given => false,
        Confirmation::Ask => answered(out, &question, "unseen")?,
    };
    if confirmed { Ok(()) } else { Err(CliError::Unseen(unseen)) }
}

/// Whether a person at a terminal answers with this word.
pub(super) fn answered(out: &mut dyn Write, question: &str, word: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    write!(out, "{question}")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == word)
}

/// A path as a shell takes it for one word.
pub(super) fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The copy of the repository that was named, or a word for the one to name.
pub(super) fn copy_word(repository: Option<&Path>) -> String {
    repository.map_or_else(|| "DIR".to_owned(), word)
}

/// Whether the person has confirmed already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confirmation {
    Given,
    Ask,
}

impl From<bool> for Confirmation {
    fn from(yes: bool) -> Self {
        if yes { Self::Given } else { Self::Ask }
    }
}

/// A moment from an option, else now.
pub fn moment(text: Option<&str>) -> Result<Moment, CliError> {
    match text {
        None => Ok(crate::clock::now()),
        Some(text) => Moment::parse_rfc3339(text).ok_or_else(|| {
            let hint = "hint: write it like `2026-11-21T09:30:00Z`";
            CliError::Usage(format!("`{text}` is not a moment\n{hint}"))
        }),
    }
}
