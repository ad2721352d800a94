//! `lockgate act show|sign`: an act's file, passed from hand to hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use lockgate_shared::{
    act::{Act, ActError, ActSignature, SignedAct},
    id::Digest,
    limits,
    manifest::Manifest,
    policy::{Policy, Role},
    rollout::Stop,
    sign::Domain,
};
use serde_json::json;

use super::{
    Answer, CliError, Confirmation, ManifestSource, PassphraseArgs, PolicyArgs, act_bytes, confirm,
    confirm_unseen, copy_word, read, word,
};
use crate::{
    acts_text::{self, consequences::AtHand},
    release::role::LocalRepository,
    signer::{self, KeyRef},
    whole_folder::{self, Readers},
};

/// The most bytes of an act's file: its text twice, because JSON escapes it, and its signatures.
const MAX_FILE: usize = 2 * limits::ACT_BYTES + limits::ACT_SIGNATURES * 512;

/// Acts as files.
#[derive(Clone, Debug, Subcommand)]
pub enum ActCommand {
    /// Say what an act says, who signed it and how many are missing
    Show(ShowArgs),
    /// Show an act, then sign it with one approver's key
    Sign(SignArgs),
}

/// Options of `act show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The act's file
    pub file: PathBuf,
    /// The policy, to say whose signatures count
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// The release's folder or its manifest.json, where no copy of the repository has it
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<String>,
}

/// Options of `act sign`.
#[derive(Clone, Debug, Args)]
pub struct SignArgs {
    /// The act's file
    pub file: PathBuf,
    /// The approver's key: a file, `pkcs11:…` (RFC 7512), or `command:PROGRAM`
    #[arg(long, value_name = "KEY")]
    pub key: KeyRef,
    /// The key's passphrase
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// The policy, to refuse a key that does not count
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// The release's folder or its manifest.json, where no copy of the repository has it
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<String>,
    /// Sign without asking
    #[arg(long)]
    pub yes: bool,
    /// Sign although what follows from it cannot be shown
    #[arg(long)]
    pub unseen: bool,
}

/// Does what was asked. What is to be read before anybody confirms goes to `desk`.
pub fn run(command: &ActCommand, desk: &mut dyn Write) -> Result<Answer, CliError> {
    match command {
        ActCommand::Show(args) => {
            let (policy, signed) = (args.policy.load()?, read_act(&args.file)?);
            let known = Known::of(&signed, &args.policy, args.manifest.as_deref())?;
            let mut text = acts_text::describe_signed(&signed, policy.as_ref(), &known.at_hand())?;
            text += &next(&args.file, &signed, policy.as_ref(), &args.policy);
            Ok(Answer { text, json: shown(&signed, policy.as_ref())? })
        }
        ActCommand::Sign(args) => sign(args, desk),
    }
}

fn sign(args: &SignArgs, desk: &mut dyn Write) -> Result<Answer, CliError> {
    let (policy, mut signed) = (args.policy.load()?, read_act(&args.file)?);
    let known = Known::of(&signed, &args.policy, args.manifest.as_deref())?;
    let at_hand = known.at_hand();
    write!(desk, "{}", acts_text::describe_signed(&signed, policy.as_ref(), &at_hand)?)?;
    let yes = Confirmation::from(args.yes);
    match at_hand.unseen(&signed.unverified()?) {
        Some(unseen) if !args.unseen => confirm_unseen(unseen, yes, desk)?,
        Some(_) | None => confirm(yes, desk)?,
    }
    let key = args.key.open(&args.passphrase.source())?;
    if let Some(policy) = &policy
        && policy.person_with_key(&key.public(), Role::Approver).is_none()
    {
        return Err(CliError::no_approver(policy, args.key.clone(), &key.public()));
    }
    let signature = signer::signed_for(&*key, Domain::ActV1, signed.text.as_bytes())?;
    let again = signed.signatures.iter().any(|known| known.key == key.public());
    signed.add(ActSignature { key: key.public(), signature });
    whole_folder::replace(&args.file, &act_bytes(&signed)?, Readers::Everybody)?;
    let mut text = format!("signed by {}\n", key.public());
    if again {
        text += "this key had signed before: it counts once\n";
    }
    if let Some(policy) = &policy {
        text += &acts_text::standing(&signed, policy)?;
    }
    text += &next(&args.file, &signed, policy.as_ref(), &args.policy);
    Ok(Answer { text, json: shown(&signed, policy.as_ref())? })
}

/// The line that says what comes next: another signature, or the way to the server. Without a policy
/// nobody knows which.
fn next(file: &Path, signed: &SignedAct, policy: Option<&Policy>, copy: &PolicyArgs) -> String {
    match policy.map(|policy| signed.verify(policy)) {
        Some(Ok(_)) => format!("next: `lockgate act submit {} --wait`\n", word(file)),
        Some(Err(ActError::Threshold { .. })) => sign_next(file, copy.repository.as_deref()),
        // It says above what is wrong with it.
        Some(Err(_)) => String::new(),
        None => {
            format!(
                "next: `lockgate act show {} --repository DIR` says who is missing\n",
                word(file)
            )
        }
    }
}

/// The line that says how the next approver signs.
pub(super) fn sign_next(file: &Path, repository: Option<&Path>) -> String {
    format!(
        "next: `lockgate act sign {} --repository {} --key people/<approver>.key`\n",
        word(file),
        copy_word(repository)
    )
}

/// What is at hand about an act besides its own text: from a verified copy, or from a file.
struct Known {
    manifest: Option<(Digest, Manifest)>,
    stops: Option<BTreeMap<u64, Stop>>,
}

impl Known {
    fn of(signed: &SignedAct, copy: &PolicyArgs, manifest: Option<&str>) -> Result<Self, CliError> {
        let given = match manifest.map(ManifestSource::of).transpose()? {
            Some(ManifestSource::File(manifest, digest)) => Some((digest, *manifest)),
            Some(ManifestSource::Digest(_)) | None => None,
        };
        let Some(folder) = &copy.repository else {
            return Ok(Self { manifest: given, stops: None });
        };
        let copy = LocalRepository::open(folder, copy.anchor.as_deref())?;
        let wanted = match signed.unverified()? {
            Act::Start(start) => Some(start.manifest),
            Act::Approve(approval) => Some(approval.manifest),
            Act::Lift(_) => return Ok(Self { manifest: None, stops: Some(copy.stops()?) }),
            Act::Waive(_) | Act::Grant(_) => None,
        };
        let manifest = match (given, wanted) {
            (None, Some(digest)) => copy.manifest(&digest)?.map(|manifest| (digest, manifest)),
            // Who brings the manifest needs no copy of it.
            (given, _) => given,
        };
        Ok(Self { manifest, stops: None })
    }

    fn at_hand(&self) -> AtHand<'_> {
        let manifest = self.manifest.as_ref().map(|(digest, manifest)| (*digest, manifest));
        AtHand { manifest, stops: self.stops.as_ref() }
    }
}

/// An act and its signatures for programs; how many approvals it has and needs, where the policy is known.
fn shown(signed: &SignedAct, policy: Option<&Policy>) -> Result<serde_json::Value, CliError> {
    let act = signed.unverified()?;
    let judged = acts_text::judge(signed, policy);
    let signatures: Vec<_> = judged
        .iter()
        .map(|one| json!({ "key": one.key, "approver": one.approver, "holds": one.holds }))
        .collect();
    let people: BTreeSet<_> =
        judged.iter().filter(|one| one.holds).filter_map(|one| one.approver.as_ref()).collect();
    Ok(json!({
        "act": act,
        "sha256": signed.digest(),
        "signatures": signatures,
        "approvals": policy.map(|_| people.len()),
        "needed": policy.map(|policy| policy.needed(&act)),
        "enough": policy.map(|policy| signed.verify(policy).is_ok()),
    }))
}

/// Reads an act's file; what it says is not verified by that.
pub fn read_act(path: &Path) -> Result<SignedAct, CliError> {
    let signed: SignedAct = serde_json::from_slice(&read(path, MAX_FILE)?).map_err(|error| {
        CliError::Usage(format!(
            "`{}` is not an act: {error}\nhint: `lockgate rollout start` and others write them",
            path.display()
        ))
    })?;
    signed.unverified()?;
    Ok(signed)
}
