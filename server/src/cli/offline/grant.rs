//! `lockgate cohort grant`: an act that lets one device be earlier or elsewhere.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lockgate_shared::id::{ChannelId, CohortId, DeviceId, ProductId, TenantId};

use super::{Answer, CliError, PolicyArgs, moment, write_act};
use crate::{
    acts::{self, GrantOptions},
    span::Span,
};

/// Acts about cohorts.
#[derive(Clone, Debug, Subcommand)]
pub enum CohortCommand {
    /// Write the act that lets a device be in an earlier cohort or on another channel
    Grant(GrantArgs),
}

/// Options of `cohort grant`.
#[derive(Clone, Debug, Args)]
pub struct GrantArgs {
    /// The device
    #[arg(value_name = "DEVICE")]
    pub device: DeviceId,
    /// Its tenant
    #[arg(long)]
    pub tenant: TenantId,
    /// The product
    #[arg(long)]
    pub product: ProductId,
    /// The channel
    #[arg(long)]
    pub channel: ChannelId,
    /// The cohort
    #[arg(long)]
    pub cohort: CohortId,
    /// When it ends
    #[arg(long, value_name = "SPAN")]
    pub expires: Span,
    /// When it is given; else now
    #[arg(long, value_name = "RFC3339")]
    pub at: Option<String>,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The policy
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Does what was asked.
pub fn run(command: &CohortCommand) -> Result<Answer, CliError> {
    match command {
        CohortCommand::Grant(args) => {
            let Span(life) = args.expires;
            let options = GrantOptions {
                device: args.device,
                tenant: args.tenant.clone(),
                product: args.product.clone(),
                channel: args.channel.clone(),
                cohort: args.cohort.clone(),
                issued: moment(args.at.as_deref())?,
                life,
                reason: args.reason.clone(),
            };
            let act = acts::grant(&args.policy.require()?, options)?;
            write_act(&act, &args.out, &args.policy)
        }
    }
}
