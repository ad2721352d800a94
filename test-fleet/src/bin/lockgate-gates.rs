//! Runs releases through simulated fleets under the gate and its peers, and prints the table or the
//! calibration of the evidence.

use std::{
    error::Error,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use clap::Parser;
use lockgate_shared::terms::TrialTerms;
use lockgate_test_fleet::sim::{
    scenario,
    table::{self, Plan, Talk, Who},
};

/// What to run.
#[derive(Debug, Parser)]
#[command(
    name = "lockgate-gates",
    about = "releases on simulated fleets, under the gate and its peers"
)]
struct Arguments {
    /// Sizes of the fleets.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    fleet: Vec<u32>,
    /// Runs of each policy in each scenario.
    #[arg(long, default_value_t = 5)]
    runs: u64,
    /// Only scenarios whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Only these policies.
    #[arg(long, value_delimiter = ',')]
    policy: Vec<String>,
    /// The first run's seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Hours that each run lasts after the start.
    #[arg(long, default_value_t = table::HOURS)]
    hours: u32,
    /// Threads; as many as there are cores.
    #[arg(long)]
    jobs: Option<usize>,
    /// Terms of a trial to keep to, as they stand in a plan; what is left out is the routine preset's.
    #[arg(long)]
    terms: Option<PathBuf>,
    /// The folder of scenarios.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"))]
    scenarios: PathBuf,
    /// Print how often the evidence passes its marks in good releases.
    #[arg(long)]
    calibration: bool,
    /// Print the sentences of holds as well.
    #[arg(long)]
    sentences: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut scenarios = scenario::read(&arguments.scenarios)?;
    let among = |names: &[String], name: &str| {
        names.is_empty() || names.iter().any(|part| name.contains(part.as_str()))
    };
    scenarios.retain(|scenario| among(&arguments.scenario, &scenario.name));
    let policies = Who::all().into_iter().filter(|who| among(&arguments.policy, who.name()));
    let plan = Plan {
        sizes: arguments.fleet,
        scenarios,
        policies: policies.collect(),
        runs: arguments.runs,
        seed: arguments.seed,
        hours: arguments.hours,
        jobs: arguments
            .jobs
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get)),
        terms: match &arguments.terms {
            None => TrialTerms::default(),
            Some(path) => terms(path)?,
        },
        talk: if arguments.sentences { Talk::Sentences } else { Talk::Numbers },
    };
    if arguments.calibration {
        table::calibration(&plan)
    } else {
        table::print(&plan)
    }
    Ok(())
}

fn terms(path: &Path) -> Result<TrialTerms, Box<dyn Error>> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let terms: TrialTerms =
        toml::from_str(&text).map_err(|error| format!("`{}`: {error}", path.display()))?;
    match terms.problem() {
        Some(problem) => Err(format!("`{}`: {problem}", path.display()).into()),
        None => Ok(terms),
    }
}
