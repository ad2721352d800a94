//! `lockgate key`: a person's key file.

use std::{io::Write, path::PathBuf};

use clap::Subcommand;
use lockgate_shared::{id::PublicKey, sign};

use super::{CliError, PassphraseArgs};
use crate::{
    ceremony::metadata,
    keys::{self, PassphraseSource, Protection},
    signer::KeyRef,
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
pub fn run(command: &KeyCommand, out: &mut dyn Write) -> Result<(), CliError> {
    match command {
        KeyCommand::New { out: path, plain, passphrase } => {
            let key = keys::generate();
            if *plain {
                keys::write(path, &key, Protection::Plain)?;
            } else {
                let passphrase = passphrase.source().choose(path)?;
                keys::write(path, &key, Protection::Encrypted(&passphrase))?;
            }
            show(&sign::public(&key), out)
        }
        KeyCommand::Show { file, passphrase } => {
            show(&file.open(&passphrase.source())?.public(), out)
        }
        KeyCommand::Passwd { file, passphrase, new_passphrase_file } => {
            let key = keys::read(file, &passphrase.source())?;
            let source = new_passphrase_file
                .clone()
                .map_or(PassphraseSource::EnvironmentOrPrompt, PassphraseSource::File);
            let new = source.change(file)?;
            keys::rewrite(file, &key, Protection::Encrypted(&new))?;
            writeln!(
                out,
                "`{}` has a new passphrase; older copies keep the old one",
                file.display()
            )?;
            Ok(())
        }
    }
}

fn show(public: &PublicKey, out: &mut dyn Write) -> Result<(), CliError> {
    writeln!(out, "public key  {public}")?;
    writeln!(out, "TUF key id  {}", hex::encode(metadata::key_id(public)?))?;
    Ok(())
}
