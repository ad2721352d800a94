//! `lockgate key`: a person's key file.

use std::path::PathBuf;

use clap::Subcommand;
use lockgate_shared::{id::PublicKey, sign};
use serde_json::json;

use super::{Answer, CliError, PassphraseArgs};
use crate::{
    keys::{self, PassphraseSource, Protection},
    signer::KeyRef,
    tuf::metadata,
};

/// Keys of people.
#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key, encrypted under a passphrase
    New {
        /// The file to make
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Leave it plain: for a gatekeeper's host only
        #[arg(long, conflicts_with = "passphrase_file")]
        plain: bool,
        /// The new passphrase
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Print the public half
    Show {
        /// Its file, `pkcs11:…`, or `command:…`
        #[arg(value_name = "KEY")]
        file: KeyRef,
        /// Its passphrase or PIN
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Change the passphrase
    Passwd {
        /// The key's file
        file: PathBuf,
        /// Its passphrase now
        #[command(flatten)]
        passphrase: PassphraseArgs,
        /// File whose first line is the new one; else LOCKGATE_NEW_PASSPHRASE, else a prompt
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
}

/// Does what was asked.
pub fn run(command: &KeyCommand) -> Result<Answer, CliError> {
    match command {
        KeyCommand::New { out: path, plain, passphrase } => {
            let key = keys::generate();
            if *plain {
                keys::write(path, &key, Protection::Plain)?;
            } else {
                let passphrase = passphrase.source().choose(path)?;
                keys::write(path, &key, Protection::Encrypted(&passphrase))?;
            }
            show(&path.display().to_string(), &sign::public(&key))
        }
        KeyCommand::Show { file, passphrase } => {
            show(&file.to_string(), &file.open(&passphrase.source())?.public())
        }
        KeyCommand::Passwd { file, passphrase, new_passphrase_file } => {
            let key = keys::read(file, &passphrase.source())?;
            let source = new_passphrase_file
                .clone()
                .map_or(PassphraseSource::EnvironmentOrPrompt, PassphraseSource::File);
            let new = source.change(file)?;
            keys::rewrite(file, &key, Protection::Encrypted(&new))?;
            let at = file.display();
            Ok(Answer {
                text: format!("`{at}` has a new passphrase; older copies keep the old one\n"),
                json: json!({ "file": file, "public_key": sign::public(&key) }),
            })
        }
    }
}

fn show(file: &str, public: &PublicKey) -> Result<Answer, CliError> {
    let id = hex::encode(metadata::key_id(public)?);
    Ok(Answer {
        text: format!("public key  {public}\nTUF key id  {id}\n"),
        json: json!({ "file": file, "public_key": public, "tuf_key_id": id }),
    })
}
