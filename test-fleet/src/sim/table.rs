//! Tables of runs: policy by scenario by size of the fleet, and the calibration of the evidence. It prints
//! and asserts nothing.

use lockgate_server::rollout::trial::{Trial, terms::Terms};
use lockgate_shared::terms::TrialTerms;

use super::{
    clairvoyant::Clairvoyant,
    cost::Cost,
    crew,
    fleet::Fleet,
    peers::{Peer, Rule},
    policy::{Gate, Policy},
    run::{self, Outcome, Run},
    scenario::Scenario,
};

/// Hours that a run usually lasts: the rollout, and a day of looking on.
pub const HOURS: u32 = 128;

/// Devices of the fleet in which a decision is timed: it has some thousand groups.
const DECISION: u32 = 10_000;

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The real gate.
    Trial,
    /// Who knows the fault.
    Clairvoyant,
    /// A peer.
    Peer(Rule),
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Devices.
    pub sizes: Vec<u32>,
    /// Scenarios.
    pub scenarios: Vec<Scenario>,
    /// Policies.
    pub policies: Vec<Who>,
    /// Runs of each.
    pub runs: u64,
    /// The first run's seed.
    pub seed: u64,
    /// Hours after the start.
    pub hours: u32,
    /// Threads.
    pub jobs: usize,
    /// What the gate and the clairvoyant keep to.
    pub terms: TrialTerms,
    /// Whether the sentences of holds are printed.
    pub talk: Talk,
}

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// Numbers.
    Numbers,
    /// Sentences too.
    Sentences,
}

impl Who {
    /// Everybody.
    pub fn all() -> Vec<Self> {
        let peers = Rule::ALL.into_iter().map(Self::Peer);
        peers.chain([Self::Trial, Self::Clairvoyant]).collect()
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Clairvoyant => "clairvoyant",
            Self::Peer(rule) => rule.name(),
        }
    }
}

/// One run of so many hours, by the routine terms.
pub fn once(who: Who, scenario: &Scenario, size: u32, seed: u64, hours: u32) -> Outcome {
    under(&Terms::routine(), who, scenario, (size, seed, hours))
}

/// One run of a fleet of a size from a seed for so many hours.
fn under(
    terms: &Terms,
    who: Who,
    scenario: &Scenario,
    (size, seed, hours): (u32, u64, u32),
) -> Outcome {
    let fleet = Fleet::new(size, scenario, seed);
    let mut policy: Box<dyn Policy> = match who {
        Who::Trial => Box::new(Gate::new(&fleet, terms.clone())),
        Who::Clairvoyant => Box::new(Clairvoyant::new(&fleet, scenario, terms)),
        Who::Peer(rule) => Box::new(Peer::new(rule, &fleet)),
    };
    Run::new(&fleet, scenario).play(policy.as_mut(), hours)
}

/// Runs of one policy in one scenario, in the order of their seeds.
pub fn many(who: Who, scenario: &Scenario, size: u32, plan: &Plan) -> Vec<Outcome> {
    let terms = Terms::of(&plan.terms, 1_000_000);
    let run = |number| under(&terms, who, scenario, (size, plan.seed + number, plan.hours));
    crew::each(plan.runs, plan.jobs, run)
}

/// The whole table.
pub fn print(plan: &Plan) {
    println!(
        "bytes per device: {} for the gate, {} for the simulator",
        Trial::bytes_per_device(),
        run::BYTES
    );
    if let Some(scenario) = plan.scenarios.first() {
        decision(&Cost::of(scenario, DECISION, plan.seed));
    }
    for size in &plan.sizes {
        println!(
            "\n{:<24} {:<12} {:>13} {:>7} {:>9} {:>7} {:>7} {:>7} {:>8} {:>8}",
            format!("{size} devices, {} runs", plan.runs),
            "policy",
            "harmed/p95",
            "halted",
            "held good",
            "95 %",
            "99 %",
            "p95",
            "x clairv",
            "x fewer"
        );
        for scenario in &plan.scenarios {
            rows(scenario, *size, plan);
        }
    }
}

fn decision(cost: &Cost) {
    println!(
        "one decision: a look at {} groups after an hour's letters takes {:.2} of one walk over {} devices in the same run ({:.0} of {:.0} us)",
        cost.groups,
        cost.ratio(),
        cost.devices,
        cost.look.as_secs_f64() * 1e6,
        cost.walk.as_secs_f64() * 1e6
    );
}

fn rows(scenario: &Scenario, size: u32, plan: &Plan) {
    let mut results: Vec<(Who, Vec<Outcome>)> = Vec::new();
    for who in &plan.policies {
        // Without a fault there is nothing to know.
        if *who == Who::Clairvoyant && scenario.hit.is_none() {
            continue;
        }
        results.push((*who, many(*who, scenario, size, plan)));
    }
    let median = |outcomes: &[Outcome]| quantile(outcomes.iter().map(|run| run.harmed), 0.5);
    let beside = Beside {
        clairvoyant: results
            .iter()
            .find(|(who, _)| *who == Who::Clairvoyant)
            .map(|(_, outcomes)| median(outcomes)),
        peer: results
            .iter()
            .filter(|(who, _)| matches!(who, Who::Peer(_)))
            .map(|(_, outcomes)| median(outcomes))
            .min(),
    };
    for (who, outcomes) in &results {
        row(scenario, *who, outcomes, &beside);
        if plan.talk == Talk::Sentences {
            for (number, outcome) in outcomes.iter().enumerate() {
                for sentence in &outcome.sentences {
                    println!("    {} {sentence}", plan.seed + number as u64);
                }
            }
        }
    }
}

/// What others harm in the same scenario, in the median.
struct Beside {
    clairvoyant: Option<u32>,
    peer: Option<u32>,
}

fn row(scenario: &Scenario, who: Who, outcomes: &[Outcome], beside: &Beside) {
    let harmed = |part| quantile(outcomes.iter().map(|outcome| outcome.harmed), part);
    let halted = outcomes.iter().filter(|outcome| outcome.halted.is_some()).count();
    let good: u64 = outcomes.iter().map(|outcome| u64::from(outcome.good)).sum();
    let held: u64 = outcomes.iter().map(|outcome| u64::from(outcome.held_good)).sum();
    let never = u32::MAX;
    let hours = |of: &dyn Fn(&Outcome) -> Option<u32>, part| {
        let hours = quantile(outcomes.iter().map(|outcome| of(outcome).unwrap_or(never)), part);
        if hours == never { "-".to_owned() } else { hours.to_string() }
    };
    let own = f64::from(harmed(0.5).max(1));
    let times = |ratio: Option<f64>| ratio.map_or_else(String::new, |times| format!("{times:.1}"));
    let worse = beside.clairvoyant.map(|best| f64::from(harmed(0.5)) / f64::from(best.max(1)));
    let fewer = match who {
        Who::Trial | Who::Clairvoyant if scenario.hit.is_some() => {
            beside.peer.map(|best| f64::from(best) / own)
        }
        Who::Trial | Who::Clairvoyant | Who::Peer(_) => None,
    };
    println!(
        "{:<24} {:<12} {:>13} {:>7} {:>8.2}% {:>7} {:>7} {:>7} {:>8} {:>8}",
        scenario.name,
        who.name(),
        format!("{}/{}", harmed(0.5), harmed(0.95)),
        format!("{halted}/{}", outcomes.len()),
        100.0 * held as f64 / good.max(1) as f64,
        hours(&|outcome| outcome.hours_95, 0.5),
        hours(&|outcome| outcome.hours_99, 0.5),
        hours(&|outcome| outcome.hours_99, 0.95),
        times(worse),
        times(fewer)
    );
}

/// The share of good rollouts whose evidence ever passes `x`, beside what is promised.
pub fn calibration(plan: &Plan) {
    const MARKS: [f64; 6] = [10.0, 20.0, 50.0, 100.0, 150.0, 200.0];
    println!(
        "{:<24} {:>8} {:>6} {}",
        "good release",
        "devices",
        "runs",
        MARKS.map(|mark| format!("{:>11}", format!("> {mark}"))).concat()
    );
    println!(
        "{:<40} {}",
        "promised at most",
        MARKS.map(|mark| format!("{:>11.4}", 1.0 / mark)).concat()
    );
    for size in &plan.sizes {
        let (mut all, mut passed) = (0, MARKS.map(|_| 0u64));
        for scenario in plan.scenarios.iter().filter(|scenario| scenario.hit.is_none()) {
            let outcomes = many(Who::Trial, scenario, *size, plan);
            let own = MARKS
                .map(|mark| outcomes.iter().filter(|outcome| outcome.peak > mark).count() as u64);
            shares(&scenario.name, *size, plan.runs, &own);
            all += plan.runs;
            for (sum, own) in passed.iter_mut().zip(own) {
                *sum += own;
            }
        }
        shares("all of them", *size, all, &passed);
        let most = passed.map(|count| format!("{:>11.4}", upper(count, all)));
        println!("{:<40} {}", "proven to be at most (95 %)", most.concat());
    }
}

/// The largest share under which so few or fewer of all would pass in one of twenty times: Clopper and
/// Pearson's bound.
fn upper(passed: u64, all: u64) -> f64 {
    if passed >= all {
        return 1.0;
    }
    // The chance of at most `passed` of `all`, term by term.
    let chance = |share: f64| {
        let mut term = (all as f64 * (-share).ln_1p()).exp();
        let mut sum = term;
        for k in 0..passed {
            term *= (all - k) as f64 / (k + 1) as f64 * share / (1.0 - share);
            sum += term;
        }
        sum
    };
    let (mut low, mut high) = (passed as f64 / all as f64, 1.0 - 1e-9);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if chance(middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

fn shares(name: &str, size: u32, runs: u64, passed: &[u64]) {
    let shares: String = passed
        .iter()
        .map(|count| format!("{:>11.4}", *count as f64 / runs.max(1) as f64))
        .collect();
    println!("{name:<24} {size:>8} {runs:>6} {shares}");
}

/// The value below which this part of the numbers lies.
fn quantile(numbers: impl Iterator<Item = u32>, part: f64) -> u32 {
    let mut sorted: Vec<u32> = numbers.collect();
    sorted.sort_unstable();
    let place = ((sorted.len() as f64 * part).ceil() as usize).max(1) - 1;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_seen_in_three_hundred_runs_happens_in_one_of_a_hundred_at_most() {
        assert!((upper(0, 300) - 0.00994).abs() < 1e-4, "{}", upper(0, 300));
        assert!((upper(5, 100) - 0.1023).abs() < 1e-3, "{}", upper(5, 100));
        assert!(upper(3, 3) > 0.99 && upper(1, 1000) < upper(2, 1000));
    }
}
