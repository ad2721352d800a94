//! `lockgate repo`: the key ceremony.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{Answer, CliError, PassphraseArgs};
use crate::{
    ceremony::{self, Ceremony, plan::Plan},
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
pub fn run(command: &RepoCommand) -> Result<Answer, CliError> {
    match command {
        RepoCommand::Init { plan, out: folder, passphrase } => {
            let plan = Plan::read(plan)?;
            let passphrase = passphrase.source().choose(folder)?;
            let made = ceremony::init(&plan, folder, &passphrase, clock::now())?;
            Ok(Answer {
                text: words(&made),
                json: json!({
                    "repository": made.policy.repository,
                    "folder": made.folder,
                    "root_sha256": made.anchor,
                    "root_keys": made.root_keys,
                }),
            })
        }
    }
}

fn words(made: &Ceremony) -> String {
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
