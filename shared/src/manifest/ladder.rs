//! The ladder: stages in order, how far and how soon each may open, and by what kind of gate. It is part
//! of the manifest and signed with it; this module refuses what is out of bounds or contradicts itself.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ManifestError;
use crate::{id::CohortId, limits, terms::TrialTerms, time::Seconds};

/// The ordered stages of a rollout and what holds for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ladder {
    /// The stages, earliest first; each cohort of the product once.
    pub stages: Vec<Stage>,
    /// Nothing activates on a timestamp issued longer ago than this.
    #[serde(default = "default_timestamp_age")]
    pub timestamp_max_age_s: Seconds,
    /// How many exact buckets the coverage list may hold.
    #[serde(default = "default_coverage")]
    pub coverage_max: u16,
}

/// One cohort's part of the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StageFields", into = "StageFields")]
pub struct Stage {
    /// The cohort.
    pub cohort: CohortId,
    /// The share of the cohort that may be open, in millionths.
    pub ceiling_ppm: u32,
    /// Earliest opening, counted from the start's moment.
    pub floor_s: Seconds,
    /// How long it must have been open before the next stage opens.
    pub bake_s: Seconds,
    /// Whether approvers must consent before it opens.
    pub approval: StageApproval,
    /// How it lets devices in, and what the evidence must say.
    pub gate: Gate,
}

/// How a stage lets devices in, and what their evidence must say: the one or the other, in JSON the
/// field `gate` or the field `trial`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Devices are counted: for cohorts so small that nothing can be learnt from comparison.
    Count(GateRule),
    /// The stage is a randomised trial: groups are weighed one by one, silence against controls.
    Trial(Box<TrialTerms>),
}

impl Gate {
    /// How long somebody is waited for who was promised and has not called.
    pub fn patience(&self) -> Seconds {
        match self {
            Self::Count(rule) => rule.silence_after_s,
            // A day of slots: whoever has a habit has shown it once.
            Self::Trial(terms) => Seconds(24 * terms.slot_s.0),
        }
    }

    /// Entries that it may put on the coverage list.
    const fn coverage(&self) -> u32 {
        match self {
            Self::Count(_) => 0,
            Self::Trial(terms) => terms.coverage,
        }
    }
}

/// A stage as it is written.
#[derive(Clone, Serialize, Deserialize)]
struct StageFields {
    cohort: CohortId,
    #[serde(default = "everybody")]
    ceiling_ppm: u32,
    floor_s: Seconds,
    bake_s: Seconds,
    #[serde(default)]
    approval: StageApproval,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gate: Option<GateRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<Box<TrialTerms>>,
}

/// A stage with both kinds of gate, or with none.
#[derive(Debug, Error)]
#[error("stage `{0}` needs either `gate` or `trial`, and not both")]
struct OneGate(CohortId);

impl TryFrom<StageFields> for Stage {
    type Error = OneGate;

    fn try_from(fields: StageFields) -> Result<Self, OneGate> {
        let gate = match (fields.gate, fields.trial) {
            (Some(rule), None) => Gate::Count(rule),
            (None, Some(terms)) => Gate::Trial(terms),
            (None, None) | (Some(_), Some(_)) => return Err(OneGate(fields.cohort)),
        };
        Ok(Self {
            cohort: fields.cohort,
            ceiling_ppm: fields.ceiling_ppm,
            floor_s: fields.floor_s,
            bake_s: fields.bake_s,
            approval: fields.approval,
            gate,
        })
    }
}

impl From<Stage> for StageFields {
    fn from(stage: Stage) -> Self {
        let (gate, trial) = match stage.gate {
            Gate::Count(rule) => (Some(rule), None),
            Gate::Trial(terms) => (None, Some(terms)),
        };
        Self {
            cohort: stage.cohort,
            ceiling_ppm: stage.ceiling_ppm,
            floor_s: stage.floor_s,
            bake_s: stage.bake_s,
            approval: stage.approval,
            gate,
            trial,
        }
    }
}

/// Whether a stage waits for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageApproval {
    /// Evidence is enough.
    #[default]
    None,
    /// Approvers sign an approval of this stage, as many as the policy asks for.
    Required,
}

/// What the evidence of a stage must say before the next one opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRule {
    /// How many devices are let in before anything is known.
    pub first_devices: u32,
    /// How many further devices each healthy one earns.
    pub growth: u32,
    /// How many devices must have confirmed; a cohort with fewer devices needs all that were let in.
    pub min_devices: u32,
    /// With fewer treated devices than this, any failure halts.
    pub small_stage: u32,
    /// The share of failures that is too much, in millionths.
    pub max_failure_ppm: u32,
    /// How sure the bound must be, in millionths: 950,000 is 95 %.
    pub confidence_ppm: u32,
    /// A device that was let in and then said nothing for this long counts as failed.
    pub silence_after_s: Seconds,
}

impl Ladder {
    /// The stage of a cohort.
    pub fn stage_of(&self, cohort: &CohortId) -> Option<(usize, &Stage)> {
        self.stages.iter().enumerate().find(|(_, stage)| stage.cohort == *cohort)
    }

    /// Everything that must hold inside one ladder.
    pub fn check(&self) -> Result<(), ManifestError> {
        let refuse = |text: String| Err(ManifestError::Field(text));
        if self.stages.is_empty() || self.stages.len() > limits::STAGES {
            return refuse(format!("a ladder has 1 to {} stages", limits::STAGES));
        }
        if usize::from(self.coverage_max) > limits::COVERAGE {
            return refuse(format!("`coverage_max` is at most {}", limits::COVERAGE));
        }
        if self.timestamp_max_age_s.0 == 0 {
            return refuse("`timestamp_max_age_s` must be above zero".into());
        }
        let mut cohorts = BTreeSet::new();
        cohorts.extend(self.stages.iter().map(|stage| &stage.cohort));
        if cohorts.len() < self.stages.len() {
            return refuse("a ladder names each cohort once".into());
        }
        for pair in self.stages.windows(2) {
            if let [earlier, later] = pair
                && later.floor_s < earlier.floor_s
            {
                return refuse(format!(
                    "stage `{}` has an earlier floor than the stage before it",
                    later.cohort
                ));
            }
        }
        for stage in &self.stages {
            stage.check()?;
        }
        let named: u32 = self.stages.iter().map(|stage| stage.gate.coverage()).sum();
        if named > u32::from(self.coverage_max) {
            return refuse(format!(
                "the stages' `coverage` is {named} in all, and `coverage_max` {}",
                self.coverage_max
            ));
        }
        match self.stages.last() {
            Some(last) if last.ceiling_ppm < 1_000_000 => refuse(format!(
                "the last stage, `{}`, must reach everybody: a rollout that cannot end is never complete",
                last.cohort
            )),
            Some(_) | None => Ok(()),
        }
    }
}

impl Stage {
    fn check(&self) -> Result<(), ManifestError> {
        let problem = if self.ceiling_ppm == 0 || self.ceiling_ppm > 1_000_000 {
            Some("`ceiling_ppm` must be 1 to 1000000")
        } else {
            match &self.gate {
                Gate::Count(rule) => rule.problem(),
                Gate::Trial(terms) => terms.problem(),
            }
        };
        problem.map_or(Ok(()), |problem| {
            Err(ManifestError::Field(format!("stage `{}`: {problem}", self.cohort)))
        })
    }
}

impl GateRule {
    /// What is wrong with it, in a few words.
    const fn problem(&self) -> Option<&'static str> {
        Some(if self.first_devices == 0 {
            "`first_devices` must be above zero, or the stage never begins"
        } else if self.max_failure_ppm == 0 || self.max_failure_ppm >= 1_000_000 {
            "`max_failure_ppm` must lie between 0 and 1000000"
        } else if self.confidence_ppm < 500_000 || self.confidence_ppm >= 1_000_000 {
            "`confidence_ppm` must be 500000 to 999999"
        } else if self.silence_after_s.0 == 0 {
            "`silence_after_s` must be above zero: silence is evidence"
        } else if self.min_devices == 0 {
            "`min_devices` must be above zero: a stage opens on evidence"
        } else {
            return None;
        })
    }
}

const fn default_timestamp_age() -> Seconds {
    // Whoever withholds a stop gains at most this.
    Seconds(3600)
}

const fn default_coverage() -> u16 {
    300
}

const fn everybody() -> u32 {
    1_000_000
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::tests::manifest;

    #[test]
    fn a_stage_is_counted_or_tried_and_never_both_or_neither() {
        let stage = |gate: bool, trial: bool| {
            let mut text = serde_json::to_value(&manifest().ladder.stages[0]).expect("json");
            let fields = text.as_object_mut().expect("a map");
            fields.retain(|name, _| gate || name != "gate");
            if trial {
                fields.insert("trial".into(), json!({ "min_devices": 7 }));
            }
            serde_json::from_value::<Stage>(text)
        };
        assert!(matches!(stage(true, false).expect("counted").gate, Gate::Count(_)));
        let Gate::Trial(terms) = stage(false, true).expect("tried").gate else {
            panic!("it is a trial")
        };
        assert_eq!(*terms, TrialTerms { min_devices: 7, ..TrialTerms::default() });
        assert!(stage(true, true).is_err(), "which of both would it go by?");
        assert!(stage(false, false).is_err(), "it would open without evidence");
    }

    #[test]
    fn whatever_is_out_of_bounds_in_a_ladder_refuses_the_whole() {
        assert!(ladder().check().is_ok());
        let wrong: [fn(&mut Ladder); 8] = [
            |ladder| {
                let stages = (0..=limits::STAGES).map(|number| {
                    let cohort = format!("cohort-{number}").parse().expect("a name");
                    Stage { cohort, ..manifest().ladder.stages[1].clone() }
                });
                ladder.stages = stages.collect();
            },
            |ladder| ladder.coverage_max += 1,
            |ladder| ladder.timestamp_max_age_s = Seconds(0),
            |ladder| ladder.stages[0].ceiling_ppm = 0,
            |ladder| ladder.stages[0].ceiling_ppm = 1_000_001,
            |ladder| terms(ladder).tolerance_percent = 99,
            // One list of buckets has to do for all trials of a ladder.
            |ladder| terms(ladder).coverage += 1,
            |ladder| {
                let second =
                    Stage { cohort: "third".parse().expect("a name"), ..ladder.stages[1].clone() };
                ladder.stages.push(second);
            },
        ];
        for (number, change) in wrong.iter().enumerate() {
            let mut ladder = ladder();
            change(&mut ladder);
            assert!(ladder.check().is_err(), "change {number} was let through");
        }
    }

    #[test]
    fn a_rule_by_which_nothing_could_be_seen_or_opened_is_refused() {
        let wrong: [fn(&mut GateRule); 8] = [
            |rule| rule.first_devices = 0,
            |rule| rule.max_failure_ppm = 0,
            |rule| rule.max_failure_ppm = 1_000_000,
            |rule| rule.confidence_ppm = 499_999,
            |rule| rule.confidence_ppm = 1_000_000,
            |rule| rule.silence_after_s = Seconds(0),
            |rule| rule.min_devices = 0,
            |rule| (rule.min_devices, rule.first_devices) = (0, 0),
        ];
        for (number, change) in wrong.iter().enumerate() {
            let mut ladder = ladder();
            let Gate::Count(rule) = &mut ladder.stages[0].gate else { panic!("it is counted") };
            change(rule);
            assert!(ladder.check().is_err(), "change {number} was let through");
        }
    }

    /// A counted stage, then one in trial whose coverage list is as long as may be.
    fn ladder() -> Ladder {
        let mut ladder = manifest().ladder;
        ladder.coverage_max = limits::COVERAGE as u16;
        let coverage = limits::COVERAGE as u32;
        let terms = TrialTerms { coverage, ..TrialTerms::default() };
        ladder.stages[1].gate = Gate::Trial(Box::new(terms));
        ladder
    }

    fn terms(ladder: &mut Ladder) -> &mut TrialTerms {
        let Gate::Trial(terms) = &mut ladder.stages[1].gate else { panic!("it is a trial") };
        terms
    }
}
