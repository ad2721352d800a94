//! The preflight: a ladder tried on the fleet as it is, in good releases and in bad ones, before people
//! sign a start. The real `server::rollout` decides; devices, days and faults are the simulated fleet's.
//! The same question has the same answer, to the byte.
//!
//! | to find out | open |
//! |---|---|
//! | how much a question may cost | `bound` |
//! | which devices are simulated | `town` |
//! | what one rollout among them comes to | `trip` |
//! | what is asked and answered | [`lockgate_server::preflight`] |

mod bound;
mod town;
mod trip;

use std::{
    collections::BTreeMap,
    num::NonZero,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use lockgate_server::preflight::{
    Answer, FORMAT, Hole, PhaseForecast, Question, Risk, Spread, StageForecast, When,
};
use lockgate_shared::{id::CohortId, time::Seconds};
use thiserror::Error;

use self::{
    bound::Bound,
    town::Town,
    trip::{Outcome, Trip},
};
use crate::sim::{crew, scenario::Scenario};

/// A good release in an ordinary week.
const GOOD: (&str, &str) = ("good", include_str!("../../scenarios/good-quiet.toml"));
/// What may go wrong, from the plainest to what only time shows. Each in a line that people read.
const BAD: [(&str, &str); 6] = [
    ("all-brick", include_str!("../../scenarios/all-brick.toml")),
    ("crash-loop-6", include_str!("../../scenarios/crash-loop-6.toml")),
    ("stratum-brick", include_str!("../../scenarios/stratum-brick.toml")),
    ("silent-10", include_str!("../../scenarios/silent-10.toml")),
    ("fail-1", include_str!("../../scenarios/fail-1.toml")),
    ("fail-20-after-24", include_str!("../../scenarios/fail-20-after-24.toml")),
];
/// The futures that are tried.
const FUTURES: u64 = 1 + BAD.len() as u64;
/// Threads: the simulator runs beside other work of an operator's machine.
const JOBS: usize = 8;

/// Why a question has no answer.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Asked by a program of another version.
    #[error(
        "the question has format {0}, and this program answers {FORMAT}\nhint: use `lockgate` and `lockgate-plan` of one version"
    )]
    Format(u32),
    /// A ladder that no gatekeeper would take.
    #[error("the ladder does not hold")]
    Ladder(#[from] lockgate_shared::manifest::ManifestError),
    /// A scenario of this program's own.
    #[error("the scenario `{0}` cannot be read")]
    Scenario(&'static str, #[source] Box<toml::de::Error>),
    /// A name of this program's own.
    #[error("a name cannot be read")]
    Name(#[from] lockgate_shared::id::IdError),
    /// A start cannot be written.
    #[error("the start of the rollout cannot be written")]
    Start(#[from] lockgate_shared::act::ActError),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Simulations that are over, in whatever order.
    pub done: u64,
    /// All of them.
    pub all: u64,
}

/// Who is told after each simulation, by any thread.
struct Course<'a> {
    done: AtomicU64,
    all: u64,
    told: &'a (dyn Fn(Progress) + Sync),
}

impl Course<'_> {
    fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        (self.told)(Progress { done, all: self.all });
    }
}

/// Tries it, and says how far it is.
pub fn answer(question: &Question, told: &(dyn Fn(Progress) + Sync)) -> Result<Answer, PlanError> {
    if question.format != FORMAT {
        return Err(PlanError::Format(question.format));
    }
    question.ladder.check()?;
    let town = Town::of(question);
    let Bound { question, mut notes } = bound::within(question, town.devices(), bound::WORK);
    let question = question.as_ref();
    let all = FUTURES * u64::from(question.simulations);
    let course = Course { done: AtomicU64::new(0), all, told };
    let good = futures(question, &town, &scenario(GOOD)?, &course)?;
    notes.extend(waits(&good));
    let mut risks = Vec::new();
    for bad in BAD {
        let scenario = scenario(bad)?;
        risks.push(risk(bad.0, &scenario, &futures(question, &town, &scenario, &course)?));
    }
    let busiest: Vec<u64> = good.iter().map(|outcome| u64::from(outcome.busiest)).collect();
    let rates: Vec<u64> =
        busiest.iter().map(|devices| (devices * question.artifact_bytes).div_ceil(3_600)).collect();
    Ok(Answer {
        format: FORMAT,
        subject: question.subject.clone(),
        seed: question.seed,
        simulations: question.simulations,
        at: question.at,
        cohorts: cohorts(question),
        simulated: town.devices(),
        left_out: question.left_out,
        stages: stages(question, &town, &good),
        complete: When::of(&good.iter().map(|outcome| outcome.complete).collect::<Vec<_>>()),
        busiest_hour: Spread::of(&busiest),
        bytes_per_second: Spread::of(&rates),
        risks,
        holes: holes(&good),
        notes,
        warnings: Vec::new(),
    })
}

fn scenario((name, text): (&'static str, &'static str)) -> Result<Scenario, PlanError> {
    toml::from_str(text).map_err(|error| PlanError::Scenario(name, Box::new(error)))
}

/// One outcome for each seed, in the order of the seeds, whoever was ready first.
fn futures(
    question: &Question,
    town: &Town,
    scenario: &Scenario,
    course: &Course<'_>,
) -> Result<Vec<Outcome>, PlanError> {
    let jobs = thread::available_parallelism().map_or(1, NonZero::get).min(JOBS);
    let run = |number| {
        let seed = question.seed.wrapping_add(number);
        let outcome = Trip::new(question, town, scenario, seed).map(Trip::go);
        course.step();
        outcome
    };
    crew::each(u64::from(question.simulations), jobs, run).into_iter().collect()
}

fn cohorts(question: &Question) -> BTreeMap<CohortId, u32> {
    let mut cohorts: BTreeMap<CohortId, u32> =
        question.ladder.stages.iter().map(|stage| (stage.cohort.clone(), 0)).collect();
    for kind in &question.kinds {
        *cohorts.entry(kind.cohort.clone()).or_default() += kind.devices;
    }
    cohorts
}

fn stages(question: &Question, town: &Town, good: &[Outcome]) -> Vec<StageForecast> {
    let own = cohorts(question);
    let stages = question.ladder.stages.iter().enumerate();
    stages
        .map(|(index, stage)| {
            let moments = |of: &dyn Fn(&Outcome) -> &[Option<Seconds>]| {
                let all: Vec<Option<Seconds>> =
                    good.iter().map(|outcome| of(outcome).get(index).copied().flatten()).collect();
                When::of(&all)
            };
            let phases = town.phases(index).iter().enumerate().map(|(place, phase)| {
                let begun = good.iter().filter_map(|outcome| outcome.begun.get(index));
                let begun: Vec<u64> = begun.map(|begun| u64::from(begun[place])).collect();
                PhaseForecast { phase: (*phase).to_owned(), devices: Spread::of(&begun) }
            });
            StageForecast {
                cohort: stage.cohort.clone(),
                devices: own.get(&stage.cohort).copied().unwrap_or(0),
                opens: moments(&|outcome| &outcome.opened),
                full: moments(&|outcome| &outcome.full),
                phases: phases.collect(),
            }
        })
        .collect()
}

fn risk(name: &str, scenario: &Scenario, outcomes: &[Outcome]) -> Risk {
    let harmed: Vec<u64> = outcomes.iter().map(|outcome| u64::from(outcome.harmed)).collect();
    let stopped: Vec<Option<Seconds>> = outcomes.iter().map(|outcome| outcome.stopped).collect();
    Risk {
        scenario: name.to_owned(),
        about: scenario.about.clone(),
        harmed: Spread::of(&harmed),
        most: outcomes.iter().map(|outcome| outcome.harmed).max().unwrap_or(0),
        stopped: stopped.iter().flatten().count() as u32,
        after: When::of(&stopped),
    }
}

/// Of each trial that most simulations never see open to everybody, how the first of them ends.
fn waits(good: &[Outcome]) -> Vec<String> {
    let mut times: BTreeMap<usize, Vec<&[String]>> = BTreeMap::new();
    for (stage, said) in good.iter().flat_map(|outcome| &outcome.waits) {
        times.entry(*stage).or_default().push(said);
    }
    let often = times.into_values().filter(|said| said.len() * 2 > good.len());
    often
        .filter_map(|said| {
            let first = said.first()?.join("; ");
            let (waits, all) = (said.len(), good.len());
            Some(format!("not open to everybody in {waits} of {all} simulations: {first}"))
        })
        .collect()
}

/// Groups that most simulations name no device of before the ramp, the largest first.
fn holes(good: &[Outcome]) -> Vec<Hole> {
    let mut times: BTreeMap<(&CohortId, &str, u32), u32> = BTreeMap::new();
    for (cohort, label, devices) in good.iter().flat_map(|outcome| &outcome.holes) {
        *times.entry((cohort, label, *devices)).or_default() += 1;
    }
    let often = times.into_iter().filter(|(_, times)| *times as usize * 2 > good.len());
    let mut holes: Vec<Hole> = often
        .map(|((cohort, label, devices), simulations)| Hole {
            cohort: cohort.clone(),
            label: label.to_owned(),
            devices,
            simulations,
        })
        .collect();
    holes.sort_by_key(|hole| std::cmp::Reverse(hole.devices));
    holes
}

#[cfg(test)]
mod tests;
