//! `lockgate repo`: the key ceremony, and every change of keys, people and ends after it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use lockgate_shared::{id::PublicKey, time::Moment};
use serde_json::json;

use super::{Answer, CliError, Confirmation, PassphraseArgs, confirm, release::CopyArgs};
use crate::{
    ceremony::{
        self, Ceremony,
        change::{ChangeSet, Current, Edit, Renew, propose},
        charter::Charter,
        plan::{Plan, PlannedOnline},
        words,
    },
    clock,
    keys::{self, Protection},
    release::role::LocalRepository,
    signer::KeyRef,
    span::Span,
    stream::Publication,
    whole_folder::FolderError,
};

/// The repository and its keys.
#[derive(Clone, Debug, Subcommand)]
pub enum RepoCommand {
    /// Make a repository's keys, policy and first metadata from a plan
    Init {
        /// The plan, in TOML
        #[arg(long, value_name = "FILE")]
        plan: PathBuf,
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The passphrase of all offline keys, until each holder changes it
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Write a change of keys, people, thresholds or tenants, signed by nobody yet
    Change(ChangeArgs),
    /// Write roles again with a later end and nothing else changed, signed by nobody yet
    Resign(ResignArgs),
    /// Say what a change changes, and how far it is signed
    Show(ShowArgs),
    /// Show a change, then sign every role of it that this key may sign
    Sign(SignArgs),
}

/// Options of `repo change`.
#[derive(Clone, Debug, Args)]
pub struct ChangeArgs {
    /// The repository's copy
    #[command(flatten)]
    pub copy: CopyArgs,
    /// The plan as it shall be from now on; without one, what stands stays
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Put a key in the place of another, wherever that stands
    #[arg(long, value_name = "OLD=NEW", value_parser = replacement)]
    pub replace: Vec<(PublicKey, PublicKey)>,
    /// Make new keys for the gatekeeper in this new folder: all three are replaced
    #[arg(long, value_name = "DIR", conflicts_with = "online")]
    pub new_online: Option<PathBuf>,
    /// A key that the gatekeeper's host made: `rollouts=…`, `snapshot=…` or `timestamp=…`
    #[arg(long, value_name = "ROLE=KEY", value_parser = online)]
    pub online: Vec<(OnlineRole, PublicKey)>,
    /// How long what is made is good; else as the plan says, or 365d, or 180d for release roles
    #[arg(long, value_name = "SPAN")]
    pub expires: Option<Span>,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// A role that the gatekeeper signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnlineRole {
    /// How far a stage is open.
    Rollouts,
    /// Which files belong together.
    Snapshot,
    /// What is newest.
    Timestamp,
}

/// Options of `repo resign`.
#[derive(Clone, Debug, Args)]
pub struct ResignArgs {
    /// `root`, `targets`, `releases-<product>`; all if none is named
    pub roles: Vec<String>,
    /// The repository's copy
    #[command(flatten)]
    pub copy: CopyArgs,
    /// For how long; else 365d, and 180d for release roles
    #[arg(long, value_name = "SPAN")]
    pub expires: Option<Span>,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Options of `repo show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The change's folder
    #[arg(value_name = "CHANGE")]
    pub folder: PathBuf,
    /// The repository's copy
    #[command(flatten)]
    pub copy: CopyArgs,
}

/// Options of `repo sign`.
#[derive(Clone, Debug, Args)]
pub struct SignArgs {
    /// The change's folder
    #[arg(value_name = "CHANGE")]
    pub folder: PathBuf,
    /// The repository's copy
    #[command(flatten)]
    pub copy: CopyArgs,
    /// The key: a file, `pkcs11:…` (RFC 7512), or `command:PROGRAM`
    #[arg(long, value_name = "KEY")]
    pub key: KeyRef,
    /// The key's passphrase
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// Sign without asking
    #[arg(long)]
    pub yes: bool,
}

/// Does what was asked. What is to be read before anybody confirms goes to `desk`.
pub fn run(command: &RepoCommand, desk: &mut dyn Write) -> Result<Answer, CliError> {
    match command {
        RepoCommand::Init { plan, out: folder, passphrase } => {
            let plan = Plan::read(plan)?;
            let passphrase = passphrase.source().choose(folder)?;
            let made = ceremony::init(&plan, folder, &passphrase, clock::now())?;
            Ok(Answer {
                text: made_words(&made),
                json: json!({
                    "repository": made.policy.repository,
                    "folder": made.folder,
                    "root_sha256": made.anchor,
                    "root_keys": made.root_keys,
                }),
            })
        }
        RepoCommand::Change(args) => change(args),
        RepoCommand::Resign(args) => {
            let renew = match args.roles.is_empty() {
                true => Renew::All,
                false => Renew::Roles(args.roles.iter().cloned().collect()),
            };
            let life = args.expires.map(|Span(life)| life);
            let edit = Edit { renew, life, ..Edit::default() };
            write(&current(&args.copy)?, &edit, &args.out)
        }
        RepoCommand::Show(args) => {
            let opened = Opened::open(&args.folder, &args.copy, clock::now())?;
            let text = format!("{}\n{}", opened.words(), opened.standing()?);
            Ok(Answer { text, json: opened.json(&args.folder)? })
        }
        RepoCommand::Sign(args) => sign(args, desk),
    }
}

/// What `repo publish` sends; refused below any threshold, after the same checks as before signing.
pub fn publication(args: &ShowArgs) -> Result<Publication, CliError> {
    let opened = Opened::open(&args.folder, &args.copy, clock::now())?;
    Ok(opened.set.publication(&opened.current)?)
}

fn current(copy: &CopyArgs) -> Result<Current, CliError> {
    let copy = LocalRepository::open(&copy.repository, copy.anchor.as_deref())?;
    Ok(Current::of(&copy)?)
}

fn change(args: &ChangeArgs) -> Result<Answer, CliError> {
    let current = current(&args.copy)?;
    let mut online = PlannedOnline::default();
    for (role, key) in &args.online {
        *place(&mut online, *role) = Some(*key);
    }
    let mut made = String::new();
    if let Some(folder) = &args.new_online {
        let version = current.root.signed.version.get().saturating_add(1);
        online = new_online(folder, version)?;
        made = format!("new keys of the gatekeeper are in `{}`\n", folder.display());
    }
    let edit = Edit {
        plan: args.plan.as_deref().map(Plan::read).transpose()?,
        replace: args.replace.clone(),
        online,
        renew: Renew::Changed,
        life: args.expires.map(|Span(life)| life),
    };
    let answer = write(&current, &edit, &args.out)?;
    Ok(Answer { text: made + &answer.text, ..answer })
}

fn write(current: &Current, edit: &Edit, folder: &Path) -> Result<Answer, CliError> {
    let now = clock::now();
    let set = propose(current, edit, now)?;
    let next = set.check(current, now)?;
    set.write(folder)?;
    let opened = Opened { current: current.clone(), set, next };
    let (said, at) = (opened.words(), folder.display());
    Ok(Answer {
        text: format!(
            "{said}\nwritten to `{at}`, signed by nobody yet\nnext: `lockgate repo sign {at} --repository DIR --key KEY`, by each holder\n"
        ),
        json: opened.json(folder)?,
    })
}

fn sign(args: &SignArgs, desk: &mut dyn Write) -> Result<Answer, CliError> {
    let mut opened = Opened::open(&args.folder, &args.copy, clock::now())?;
    write!(desk, "{}", opened.words())?;
    confirm(Confirmation::from(args.yes), desk)?;
    let key = args.key.open(&args.passphrase.source())?;
    let roles = opened.set.sign(&opened.current, &opened.next, &*key)?;
    opened.set.rewrite(&args.folder)?;
    let mut text = format!("\nsigned {} by {}\n", roles.join(", "), key.public());
    text += &opened.standing()?;
    if opened.set.publication(&opened.current).is_ok() {
        let at = args.folder.display();
        text += &format!("next: `lockgate repo publish {at} --repository DIR --wait`\n");
    }
    Ok(Answer { text, json: opened.json(&args.folder)? })
}

/// A change's folder, checked against a copy of the repository.
struct Opened {
    current: Current,
    set: ChangeSet,
    next: Charter,
}

impl Opened {
    fn open(folder: &Path, copy: &CopyArgs, now: Moment) -> Result<Self, CliError> {
        let (current, set) = (current(copy)?, ChangeSet::read(folder)?);
        let next = set.check(&current, now)?;
        Ok(Self { current, set, next })
    }

    fn words(&self) -> String {
        words::describe(&self.set, &self.current, &self.next)
    }

    fn json(&self, folder: &Path) -> Result<serde_json::Value, CliError> {
        let roles: Vec<_> = self
            .set
            .standing(&self.current)?
            .into_iter()
            .map(|one| {
                json!({
                    "role": one.what, "signed": one.signed, "missing": one.missing,
                    "needed": one.needed, "enough": one.complete(),
                })
            })
            .collect();
        Ok(json!({ "folder": folder, "roles": roles, "words": self.words() }))
    }

    fn standing(&self) -> Result<String, CliError> {
        let policies = [&self.current.charter.policy, &self.next.policy];
        Ok(words::standing(&self.set.standing(&self.current)?, policies))
    }
}

/// Three new plain keys in a new folder, named so that they fit beside the present ones.
fn new_online(folder: &Path, version: u64) -> Result<PlannedOnline, CliError> {
    fs::create_dir(folder).map_err(|source| {
        let path = folder.to_owned();
        if source.kind() == io::ErrorKind::AlreadyExists {
            FolderError::Taken(path)
        } else {
            FolderError::Io { act: "make", path, source }
        }
    })?;
    let mut online = PlannedOnline::default();
    for (role, name) in [
        (OnlineRole::Rollouts, "rollouts"),
        (OnlineRole::Snapshot, "snapshot"),
        (OnlineRole::Timestamp, "timestamp"),
    ] {
        let key = keys::generate();
        keys::write(&folder.join(format!("{name}-{version}.key")), &key, Protection::Plain)?;
        *place(&mut online, role) = Some(lockgate_shared::sign::public(&key));
    }
    Ok(online)
}

const fn place(online: &mut PlannedOnline, role: OnlineRole) -> &mut Option<PublicKey> {
    match role {
        OnlineRole::Rollouts => &mut online.rollouts,
        OnlineRole::Snapshot => &mut online.snapshot,
        OnlineRole::Timestamp => &mut online.timestamp,
    }
}

fn replacement(text: &str) -> Result<(PublicKey, PublicKey), String> {
    let refuse = || "write two public keys, such as `3a19…=e50b…`".to_owned();
    let (old, new) = text.split_once('=').ok_or_else(refuse)?;
    Ok((old.parse().map_err(|_| refuse())?, new.parse().map_err(|_| refuse())?))
}

fn online(text: &str) -> Result<(OnlineRole, PublicKey), String> {
    let refuse = || "write a role and a public key, such as `timestamp=3a19…`".to_owned();
    let (role, key) = text.split_once('=').ok_or_else(refuse)?;
    let role = match role {
        "rollouts" => OnlineRole::Rollouts,
        "snapshot" => OnlineRole::Snapshot,
        "timestamp" => OnlineRole::Timestamp,
        _ => return Err(refuse()),
    };
    Ok((role, key.parse().map_err(|_| refuse())?))
}

fn made_words(made: &Ceremony) -> String {
    let at = made.folder.display();
    let mut text = format!("repository `{}` made in `{at}`\n", made.policy.repository);
    text += &format!("root.json  sha256 {}\n", made.anchor);
    for (index, key) in made.root_keys.iter().enumerate() {
        text += &format!("root key {}  {key}\n", index + 1);
    }
    text + &format!(
        "\nnext:
  give each person their key of `{at}/people`; each runs `lockgate key passwd`
  put `{at}/offline` in safes, and remove it here
  copy `{at}/online` to the gatekeeper's host only, `{at}/repository` beside it
  put `{at}/root.json` into the devices' image: trust begins there\n"
    )
}
