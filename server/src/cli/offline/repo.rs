//! `lockgate repo`: the key ceremony.

use std::{io::Write, path::PathBuf};

use clap::Subcommand;

use super::{CliError, PassphraseArgs};
use crate::{
    ceremony::{self, plan::Plan},
    clock,
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
}

/// Does what was asked.
pub fn run(command: &RepoCommand, out: &mut dyn Write) -> Result<(), CliError> {
    match command {
        RepoCommand::Init { plan, out: folder, passphrase } => {
            let plan = Plan::read(plan)?;
            let passphrase = passphrase.source().choose(folder)?;
            let made = ceremony::init(&plan, folder, &passphrase, clock::now())?;
            let at = made.folder.display();
            writeln!(out, "repository `{}` made in `{at}`", made.policy.repository)?;
            writeln!(out, "root.json  sha256 {}", made.anchor)?;
            for (index, key) in made.root_keys.iter().enumerate() {
                writeln!(out, "root key {}  {key}", index + 1)?;
            }
            writeln!(out, "\nnext:")?;
            writeln!(
                out,
                "  give each person their key of `{at}/people`; each runs `lockgate key passwd`"
            )?;
            writeln!(out, "  put `{at}/offline` in safes, and remove it here")?;
            writeln!(
                out,
                "  copy `{at}/online` to the gatekeeper's host only, `{at}/repository` beside it"
            )?;
            writeln!(out, "  put `{at}/root.json` into the devices' image: trust begins there")?;
            Ok(())
        }
    }
}
