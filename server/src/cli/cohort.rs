//! `lockgate cohort`: how many devices each has, pausing one, and moving a device back to the last.

use clap::Subcommand;
use lockgate_shared::{
    id::{CohortId, ProductId},
    rollout::Scope,
    wire::NO_CHANNEL,
};

use super::{Session, device_id, exit::CliError, offline, rollout, table};
use crate::{
    status::{CohortStatus, Status},
    stream::StopHow,
};

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
            session.print(&status.cohorts, |cohorts| list_text(cohorts))
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

fn list_text(cohorts: &[CohortStatus]) -> String {
    let rows = cohorts.iter().map(|cohort| {
        vec![
            cohort.product.to_string(),
            cohort.channel.to_string(),
            cohort.cohort.to_string(),
            cohort.devices.to_string(),
        ]
    });
    let header = ["product", "channel", "cohort", "devices"];
    let mut text = table::of(&header, rows.collect(), "no device has been counted yet");
    if cohorts.iter().any(|cohort| cohort.channel.as_str() == NO_CHANNEL && cohort.devices > 0) {
        text += &format!(
            "\n\ndevices on `{NO_CHANNEL}` have not read the repository yet: with the letter after it they name their channel"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_read_the_repository_yet_is_listed_and_explained() {
        let cohort = |channel: &str, devices| CohortStatus {
            product: "app".parse().expect("a name"),
            channel: channel.parse().expect("a name"),
            cohort: "everyone".parse().expect("a name"),
            devices,
        };
        let settled = list_text(&[cohort("stable", 3)]);
        assert_eq!(settled.lines().count(), 2, "{settled}");
        let early = list_text(&[cohort("stable", 3), cohort(NO_CHANNEL, 2)]);
        assert!(early.lines().any(|line| line.trim_end().ends_with(" 2")), "{early}");
        assert!(early.contains("`unknown` have not read the repository yet"), "{early}");
    }
}
