//! `lockgate cohort`: how many devices each has, pausing one, and moving a device back to the last.

use clap::Subcommand;
use lockgate_shared::{
    id::{CohortId, ProductId},
    rollout::Scope,
};

use super::{Session, device_id, exit::CliError, offline, rollout, table};
use crate::{status::Status, stream::StopHow};

/// What can be done with cohorts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What needs no server
    #[command(flatten)]
    Offline(Box<offline::grant::CohortCommand>),
    /// List cohorts and how many devices each has
    List,
    /// Pause a cohort of a product on every channel; approvers lift the pause
    Pause {
        /// The product
        product: ProductId,
        /// The cohort
        cohort: CohortId,
        /// Why; whoever lifts the pause reads it
        #[arg(long)]
        reason: String,
    },
    /// Take a device's grant back: it is in the last cohort again
    Revoke {
        /// The device, or its first digits
        device: String,
        /// The product
        product: ProductId,
    },
}

/// Does it.
pub async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Offline(command) => session.offline(|_| offline::grant::run(&command)),
        Command::List => {
            let status: Status = session.client()?.get("/v1/status").await?;
            session.print(&status.cohorts, |cohorts| {
                let rows = cohorts.iter().map(|cohort| {
                    vec![
                        cohort.product.to_string(),
                        cohort.channel.to_string(),
                        cohort.cohort.to_string(),
                        cohort.devices.to_string(),
                    ]
                });
                let header = ["product", "channel", "cohort", "devices"];
                table::of(&header, rows.collect(), "no device has been counted yet")
            })
        }
        Command::Pause { product, cohort, reason } => {
            rollout::stop(session, Scope::Cohort(product, cohort), StopHow::Pause, reason).await
        }
        Command::Revoke { device, product } => {
            let client = session.client()?;
            let device = device_id(&client, &device).await?;
            client.delete(&format!("/v1/grants/{device}/{product}")).await?;
            session.done(&format!(
                "device {} is in the last cohort of `{product}` from its next check-in on",
                table::short(&device)
            ))
        }
    }
}
