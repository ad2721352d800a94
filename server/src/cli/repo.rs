//! `lockgate repo publish` and `fetch`: a signed change on its way to the server, and a fresh copy of
//! the repository on its way to the people who sign. Everything else of `repo` needs no server.

use std::io;

use clap::Subcommand;

use super::{Session, act, exit::CliError, offline};
use crate::api::admin::Appended;

/// What can be done with a repository.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What needs no server
    #[command(flatten)]
    Offline(offline::repo::RepoCommand),
    /// Hand in a change that enough people have signed
    Publish {
        /// The change and the copy
        #[command(flatten)]
        change: offline::repo::ShowArgs,
        /// Whether to wait
        #[command(flatten)]
        wait: act::Wait,
    },
}

/// Does it.
pub async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Offline(command) => Ok(offline::repo::run(&command, &mut io::stdout())?),
        Command::Publish { change, wait } => {
            let publication = offline::repo::publication(&change)?;
            let client = session.client()?;
            let appended: Appended = client.post("/v1/publications", &publication).await?;
            act::finish(session, &client, appended, &wait).await
        }
    }
}
