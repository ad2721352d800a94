//! Release plans of a try-out, as an author writes them in TOML, with times of seconds. It decides
//! nothing: what a plan may say is the operator's tool's to refuse.

use std::fmt;

/// A probe that holds while the service of a try-out runs.
pub const ALIVE: &str =
    r#"{ name = "alive", kind = "process", pidfile = "app.pid", interval_s = 1 }"#;

/// Everything that a try-out's plan says.
#[derive(Clone, Debug)]
pub struct Plan<'p> {
    /// What the artifacts are: `app` or `agent`.
    pub kind: &'p str,
    /// When a device is well.
    pub trial: Trial<'p>,
    /// The ladder.
    pub stages: &'p [Stage<'p>],
}

/// When a device is well, or must go back.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'p> {
    /// How many seconds the probes must hold without a break.
    pub soak_s: u32,
    /// After how many seconds it goes back.
    pub deadline_s: u32,
    /// How often it may be interrupted.
    pub attempts: u8,
    /// The probes, each an inline table of TOML.
    pub probes: &'p [&'p str],
}

/// One stage of the ladder.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'p> {
    /// Its cohort.
    pub cohort: &'p str,
    /// Its earliest moment, in seconds since the start.
    pub floor_s: u32,
    /// How many seconds it must have been open before the next.
    pub bake_s: u32,
    /// What opens it further.
    pub by: By<'p>,
}

/// By what a stage is opened further.
#[derive(Clone, Copy, Debug)]
pub enum By<'p> {
    /// Devices are counted.
    Count(Gate),
    /// It is a randomised trial, whose terms are these and otherwise the routine preset's.
    Trial(&'p [(&'p str, u32)]),
}

/// What opens a stage further. How sure the bound must be is 90 % in every try-out: fleets are small.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// How many devices are let in before anything is known.
    pub first_devices: u32,
    /// How many further devices each healthy one earns.
    pub growth: u32,
    /// How many devices must have confirmed.
    pub min_devices: u32,
    /// With fewer treated devices than this, any failure halts.
    pub small_stage: u32,
    /// The share of failures that is too much, in millionths.
    pub max_failure_ppm: u32,
    /// After how many silent seconds a device counts as failed.
    pub silence_after_s: u32,
}

impl Gate {
    /// Lets a few in and halts at the first failure.
    pub const CAREFUL: Self = Self {
        first_devices: 3,
        growth: 2,
        min_devices: 1,
        small_stage: 10,
        max_failure_ppm: 100_000,
        silence_after_s: 60,
    };
    /// Lets everybody in at once and stops no release, however bad: what counts is each device.
    pub const OPEN: Self = Self {
        first_devices: 1000,
        growth: 1,
        min_devices: 1,
        small_stage: 1,
        max_failure_ppm: 999_999,
        silence_after_s: 300,
    };
}

impl<'p> Stage<'p> {
    /// A stage without a floor or a bake.
    pub const fn at_once(cohort: &'p str, gate: Gate) -> Self {
        Self { cohort, floor_s: 0, bake_s: 0, by: By::Count(gate) }
    }
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trial { soak_s, deadline_s, attempts, probes } = self.trial;
        writeln!(f, "kind = \"{}\"\n\n[trial]", self.kind)?;
        writeln!(f, "soak_s = {soak_s}\ndeadline_s = {deadline_s}\nattempts = {attempts}")?;
        writeln!(f, "probes = [\n  {},\n]", probes.join(",\n  "))?;
        // Older words of the gatekeeper than this open nothing: a dozen of its timestamps.
        writeln!(f, "\n[ladder]\ntimestamp_max_age_s = 60")?;
        self.stages.iter().try_for_each(|stage| write!(f, "{stage}"))
    }
}

impl fmt::Display for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cohort, floor_s, bake_s, by } = self;
        writeln!(f, "[[ladder.stages]]\ncohort = \"{cohort}\"")?;
        writeln!(f, "floor_s = {floor_s}\nbake_s = {bake_s}")?;
        let gate = match by {
            By::Count(gate) => gate,
            By::Trial(terms) => {
                writeln!(f, "[ladder.stages.trial]")?;
                return terms.iter().try_for_each(|(name, value)| writeln!(f, "{name} = {value}"));
            }
        };
        writeln!(f, "[ladder.stages.gate]\nfirst_devices = {}", gate.first_devices)?;
        writeln!(f, "growth = {}\nmin_devices = {}", gate.growth, gate.min_devices)?;
        writeln!(f, "small_stage = {}", gate.small_stage)?;
        writeln!(f, "max_failure_ppm = {}\nconfidence_ppm = 900000", gate.max_failure_ppm)?;
        writeln!(f, "silence_after_s = {}", gate.silence_after_s)
    }
}

#[cfg(test)]
mod tests {
    use lockgate_server::release::plan::ReleasePlan;
    use lockgate_shared::manifest;

    use super::*;
    use crate::world::BENCH_PLAN;

    #[test]
    fn the_operators_tool_reads_a_plan_as_it_was_meant() {
        let plan = ReleasePlan::from_toml(&BENCH_PLAN.to_string()).expect("a plan");
        let ladder = plan.ladder.ladder(None).expect("explicit");
        ladder.check().expect("it holds");
        assert_eq!(ladder.stages.len(), 3);
        let manifest::Gate::Count(rule) = &ladder.stages[1].gate else { panic!("it counts") };
        assert_eq!(rule.first_devices, Gate::CAREFUL.first_devices);
        assert_eq!((plan.trial.probes.len(), plan.trial.attempts), (1, 3));
    }
}
