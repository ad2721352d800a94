//! `lockgate repo publish` and `fetch`: a signed change on its way to the server, and a fresh copy of
//! the repository on its way to the people who sign. Everything else of `repo` needs no server.

use std::path::PathBuf;

use clap::Subcommand;

use super::{
    Session, act,
    copy::{self, Depth},
    exit::CliError,
    offline,
};
use crate::api::admin::Appended;

/// What can be done with a repository.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What needs no server
    #[command(flatten)]
    Offline(offline::repo::RepoCommand),
    /// Copy the repository from the server into a new folder, and verify it
    Fetch {
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The root file at which trust begins; else the oldest root that the server offers
        #[arg(long, value_name = "FILE")]
        anchor: Option<PathBuf>,
    },
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
        Command::Offline(command) => session.offline(|desk| offline::repo::run(&command, desk)),
        Command::Fetch { out, anchor } => {
            let files = copy::fetch(&session.client()?, Depth::Whole).await?;
            let copy = copy::keep(&files, &out, anchor.as_deref())?;
            let (root, targets) = (copy.root().signed.version, copy.targets().signed.version);
            session.done(&format!(
                "`{}` holds the repository with root {root} and targets {targets}, which verify",
                out.display()
            ))
        }
        Command::Publish { change, wait } => {
            let publication = offline::repo::publication(&change)?;
            let client = session.client()?;
            let appended: Appended = client.post("/v1/publications", &publication).await?;
            act::finish(session, &client, appended, (&wait, "lockgate doctor")).await
        }
    }
}
