//! `lockgate tenant`: what a tenant does with its own key. `submit` carries what was signed away from
//! the server.

use std::path::PathBuf;

use clap::Subcommand;
use lockgate_shared::loosening::{LOOSENING_BYTES, SignedLoosening};

use super::{Session, exit::CliError, offline};

/// What a tenant does with its own key.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What needs no server
    #[command(flatten)]
    Offline(offline::tenant::TenantCommand),
    /// Send what was signed to the server
    Submit {
        /// The file that `loosen` wrote
        file: PathBuf,
    },
}

/// Does it.
pub async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Offline(command) => session.offline(|_| offline::tenant::run(&command)),
        Command::Submit { file } => {
            // The text stands in JSON once more, and a signature beside it.
            let bytes = offline::read(&file, 3 * LOOSENING_BYTES)?;
            let signed: SignedLoosening = serde_json::from_slice(&bytes)
                .map_err(|error| CliError::Usage(format!("`{}`: {error}", file.display())))?;
            session.client()?.send("POST", "/v1/loosenings", &signed).await?;
            session.done("accepted; devices hear of it at their next check-in")
        }
    }
}
