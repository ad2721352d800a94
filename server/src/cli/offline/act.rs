//! `lockgate act show|sign`: an act's file, passed from hand to hand.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use lockgate_shared::{
    act::SignedAct,
    limits,
    policy::{Policy, Role},
    sign,
};
use serde_json::json;

use super::{Answer, CliError, Confirmation, PassphraseArgs, PolicyArgs, act_bytes, confirm, read};
use crate::{
    acts_text, keys,
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
}

/// Options of `act sign`.
#[derive(Clone, Debug, Args)]
pub struct SignArgs {
    /// The act's file
    pub file: PathBuf,
    /// The approver's key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The key's passphrase
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// The policy, to refuse a key that does not count
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Sign without asking
    #[arg(long)]
    pub yes: bool,
}

/// Does what was asked. What is to be read before anybody confirms goes to `desk`.
pub fn run(command: &ActCommand, desk: &mut dyn Write) -> Result<Answer, CliError> {
    match command {
        ActCommand::Show(args) => {
            let policy = args.policy.load()?;
            let signed = read_act(&args.file)?;
            let text = acts_text::describe_signed(&signed, policy.as_ref())?;
            Ok(Answer { text, json: shown(&signed, policy.as_ref())? })
        }
        ActCommand::Sign(args) => {
            let (policy, mut signed) = (args.policy.load()?, read_act(&args.file)?);
            write!(desk, "{}", acts_text::describe_signed(&signed, policy.as_ref())?)?;
            confirm(Confirmation::from(args.yes), desk)?;
            let key = keys::read(&args.key, &args.passphrase.source())?;
            let counts = policy.as_ref().is_none_or(|policy| {
                policy.person_with_key(&sign::public(&key), Role::Approver).is_some()
            });
            if !counts {
                return Err(CliError::NoApprover(args.key.clone()));
            }
            signed.sign(&key);
            whole_folder::replace(&args.file, &act_bytes(&signed)?, Readers::Everybody)?;
            let mut text = format!("signed by {}\n", sign::public(&key));
            if let Some(policy) = &policy {
                text += &acts_text::standing(&signed, policy)?;
            }
            Ok(Answer { text, json: shown(&signed, policy.as_ref())? })
        }
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
