//! `lockgate rollout start|approve|lift|waive`: the acts that expand, written to files for people to
//! sign. What restricts and what reads speaks to the server and is not here.

use std::{collections::BTreeSet, path::PathBuf, str::FromStr};

use clap::{Args, Subcommand, ValueEnum};
use lockgate_shared::{
    act::{CohortSize, RiskClass, WaivedRule},
    id::{ChannelId, CohortId, Digest, IdError, PersonId, ProductId, RolloutId},
    version::Version,
};

use super::{Answer, CliError, ManifestSource, PolicyArgs, moment, read, write_act};
use crate::{
    acts::{self, StartOptions},
    clock, preflight,
    span::Span,
};

/// The largest plan of a rollout that is hashed: a document for people.
const MAX_PLAN: usize = 64 * 1024 * 1024;

/// Acts about rollouts.
#[derive(Clone, Debug, Subcommand)]
pub enum RolloutCommand {
    /// Write the act that begins a rollout
    Start(StartArgs),
    /// Write the consent to a stage that asks for it
    Approve(ApproveArgs),
    /// Write the act that ends numbered holds, halts or pauses
    Lift(LiftArgs),
    /// Write the act that sets a rule aside
    Waive(WaiveArgs),
}

/// Options of `rollout start`.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// The product
    #[arg(long)]
    pub product: ProductId,
    /// The version
    #[arg(long)]
    pub version: Version,
    /// The channel
    #[arg(long)]
    pub channel: ChannelId,
    /// The release's folder, its manifest.json, or the manifest's SHA-256
    #[arg(long, value_name = "FILE|SHA256")]
    pub manifest: String,
    /// A cohort and its number of devices, for each cohort of the product
    #[arg(long = "cohort", value_name = "NAME=DEVICES", required = true, value_parser = cohort_size)]
    pub cohorts: Vec<CohortSize>,
    /// Who answers for it
    #[arg(long)]
    pub owner: PersonId,
    /// How urgent it is
    #[arg(long, value_enum)]
    pub risk: Risk,
    /// The plan that approvers are shown: what `lockgate plan --out` wrote, or a document of your own
    #[arg(long, value_name = "FILE")]
    pub plan: PathBuf,
    /// The moment from which floors count; else now
    #[arg(long, value_name = "RFC3339")]
    pub at: Option<String>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The policy
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Options of `rollout approve`.
#[derive(Clone, Debug, Args)]
pub struct ApproveArgs {
    /// The release's folder or its manifest.json
    #[arg(long, value_name = "FILE")]
    pub manifest: String,
    /// The channel
    #[arg(long)]
    pub channel: ChannelId,
    /// The stage's cohort
    #[arg(long)]
    pub cohort: CohortId,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The policy
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Options of `rollout lift`.
#[derive(Clone, Debug, Args)]
pub struct LiftArgs {
    /// The numbers of the stops that end
    #[arg(value_name = "NUMBER", required = true)]
    pub numbers: Vec<u64>,
    /// Why it is safe to go on
    #[arg(long)]
    pub reason: String,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The policy
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Options of `rollout waive`.
#[derive(Clone, Debug, Args)]
pub struct WaiveArgs {
    /// The rollout, by its whole id: no server is asked which begins so
    #[arg(value_name = "ROLLOUT", value_parser = whole_id)]
    pub rollout: RolloutId,
    /// The rule: `coverage=GROUP`, or `minimum-devices=STAGE` with a stage's number from 0
    #[arg(long, value_parser = rule)]
    pub rule: WaivedRule,
    /// When it ends
    #[arg(long, value_name = "SPAN")]
    pub expires: Span,
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

/// A risk class on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Risk {
    /// An ordinary release
    Routine,
    /// A fix for a vulnerability
    Security,
    /// A fix that cannot wait
    Emergency,
}

/// Does what was asked.
pub fn run(command: &RolloutCommand) -> Result<Answer, CliError> {
    match command {
        RolloutCommand::Start(args) => start(args),
        RolloutCommand::Approve(args) => {
            let (policy, manifest) = (args.policy.require()?, ManifestSource::of(&args.manifest)?);
            let act =
                acts::approve(&policy, manifest.release(), &args.channel, args.cohort.clone())?;
            write_act(&act, &args.out, &args.policy)
        }
        RolloutCommand::Lift(args) => {
            let numbers: BTreeSet<u64> = args.numbers.iter().copied().collect();
            let act = acts::lift(&args.policy.require()?, numbers, args.reason.clone());
            write_act(&act, &args.out, &args.policy)
        }
        RolloutCommand::Waive(args) => {
            let Span(span) = args.expires;
            let act = acts::waive(
                &args.policy.require()?,
                args.rollout,
                args.rule.clone(),
                args.reason.clone(),
                clock::now().plus(span),
            );
            write_act(&act, &args.out, &args.policy)
        }
    }
}

fn start(args: &StartArgs) -> Result<Answer, CliError> {
    let (policy, manifest) = (args.policy.require()?, ManifestSource::of(&args.manifest)?);
    let plan = read(&args.plan, MAX_PLAN)?;
    let digest = match &manifest {
        ManifestSource::File(_, digest) | ManifestSource::Digest(digest) => digest,
    };
    let cohorts = args.cohorts.iter().map(|size| (size.cohort.clone(), size.devices)).collect();
    preflight::fits(&plan, digest, &args.channel, &cohorts)
        .map_err(|misfit| CliError::Usage(misfit.to_string()))?;
    let options = StartOptions {
        product: args.product.clone(),
        version: args.version.clone(),
        channel: args.channel.clone(),
        release: manifest.release(),
        moment: moment(args.at.as_deref())?,
        cohorts: args.cohorts.clone(),
        owner: args.owner.clone(),
        risk: match args.risk {
            Risk::Routine => RiskClass::Routine,
            Risk::Security => RiskClass::Security,
            Risk::Emergency => RiskClass::Emergency,
        },
        plan: Digest::of(&plan),
    };
    write_act(&acts::start(&policy, options)?, &args.out, &args.policy)
}

pub(super) fn cohort_size(text: &str) -> Result<CohortSize, String> {
    let refuse = || "write a cohort and its number of devices, such as `dogfood=3`".to_owned();
    let (cohort, devices) = text.split_once('=').ok_or_else(refuse)?;
    Ok(CohortSize {
        cohort: CohortId::from_str(cohort).map_err(|error| error.to_string())?,
        devices: devices.parse().map_err(|_| refuse())?,
    })
}

fn whole_id(text: &str) -> Result<RolloutId, String> {
    text.parse().map_err(|error: IdError| {
        format!("{error}\nhint: give the whole id, which `lockgate rollout list --json` shows")
    })
}

fn rule(text: &str) -> Result<WaivedRule, String> {
    let refuse = || {
        "write `coverage=GROUP`, or `minimum-devices=STAGE` with a stage's number from 0".to_owned()
    };
    match text.split_once('=') {
        Some(("coverage", group)) => group.parse().map(WaivedRule::Coverage).map_err(|_| refuse()),
        Some(("minimum-devices", stage)) => {
            stage.parse().map(WaivedRule::MinimumDevices).map_err(|_| refuse())
        }
        Some(_) | None => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiver_of_an_abbreviated_rollout_is_told_where_the_whole_id_stands() {
        let text = whole_id("0a1b2c3d4e5f").expect_err("abbreviated");
        assert!(
            text.contains("hint: ") && text.contains("`lockgate rollout list --json`"),
            "{text}"
        );
        let whole = RolloutId([7; 32]);
        assert_eq!(whole_id(&whole.to_string()), Ok(whole));
    }
}
