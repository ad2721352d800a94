//! `lockgate act show|sign`: an act's file, passed from hand to hand.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use lockgate_shared::{
    act::{ActError, ActSignature, SignedAct},
    limits,
    policy::Role,
    sign::Domain,
};

use super::{CliError, Confirmation, PassphraseArgs, PolicyArgs, act_bytes, confirm, read};
use crate::{
    acts_text,
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
}

/// Options of `act sign`.
#[derive(Clone, Debug, Args)]
pub struct SignArgs {
    /// The act's file
    pub file: PathBuf,
    /// The approver's key
    #[arg(long, value_name = "KEY")]
    pub key: KeyRef,
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

/// Does what was asked.
pub fn run(command: &ActCommand, out: &mut dyn Write) -> Result<(), CliError> {
    match command {
        ActCommand::Show(args) => {
            let policy = args.policy.load()?;
            let text = acts_text::describe_signed(&read_act(&args.file)?, policy.as_ref())?;
            write!(out, "{text}")?;
            Ok(())
        }
        ActCommand::Sign(args) => {
            let (policy, mut signed) = (args.policy.load()?, read_act(&args.file)?);
            write!(out, "{}", acts_text::describe_signed(&signed, policy.as_ref())?)?;
            confirm(Confirmation::from(args.yes), out)?;
            let key = args.key.open(&args.passphrase.source())?;
            let counts = policy.as_ref().is_none_or(|policy| {
                policy.person_with_key(&key.public(), Role::Approver).is_some()
            });
            if !counts {
                return Err(CliError::NoApprover(args.key.clone()));
            }
            let signature = signer::signed_for(&*key, Domain::ActV1, signed.text.as_bytes())?;
            signed.add(ActSignature { key: key.public(), signature });
            whole_folder::replace(&args.file, &act_bytes(&signed)?, Readers::Everybody)?;
            writeln!(out, "signed by {}", key.public())?;
            if let Some(policy) = &policy {
                write!(out, "{}", acts_text::standing(&signed, policy)?)?;
            }
            Ok(())
        }
    }
}

/// Reads an act's file; what it says is not verified by that.
pub fn read_act(path: &Path) -> Result<SignedAct, CliError> {
    let signed: SignedAct =
        serde_json::from_slice(&read(path, MAX_FILE)?).map_err(ActError::from)?;
    signed.unverified()?;
    Ok(signed)
}
