//! `lockgate coverage`: which attribute values, pairs and strata of a stage in trial have shown what, and
//! which have no device yet. It reads the gatekeeper's report and decides nothing.

use clap::Args;
use lockgate_shared::{count::count, id::RolloutId};
use serde::Serialize;

use super::{Session, exit::CliError, rollout, table};
use crate::status::{CoverageGuard, CoverageStatus, RolloutStatus};

/// Options of `coverage`.
#[derive(Debug, Args)]
pub struct CoverageArgs {
    /// The rollout, or its first digits; else all that are in trial
    rollout: Option<String>,
    /// Show only groups that have no device yet, or are held
    #[arg(long)]
    missing: bool,
}

/// One rollout's matrices.
#[derive(Serialize)]
struct Shown {
    rollout: RolloutId,
    #[serde(skip)]
    title: String,
    stages: Vec<CoverageStatus>,
}

/// Does it.
pub async fn run(args: CoverageArgs, session: &Session) -> Result<(), CliError> {
    let mut rollouts: Vec<RolloutStatus> = session.client()?.get("/v1/rollouts").await?;
    match &args.rollout {
        Some(text) => {
            let id = rollout::pick(&rollouts, text)?;
            rollouts.retain(|rollout| rollout.rollout == id);
        }
        None => rollouts.retain(|rollout| !rollout.coverage.is_empty()),
    }
    if args.missing {
        let stages = rollouts.iter_mut().flat_map(|rollout| &mut rollout.coverage);
        stages.for_each(keep_missing);
    }
    let shown: Vec<Shown> = rollouts.into_iter().map(of).collect();
    session.print(&shown, |shown| {
        let parts: Vec<String> = shown.iter().map(text).collect();
        if parts.is_empty() { "no stage is in trial".to_owned() } else { parts.join("\n\n") }
    })
}

/// Leaves the groups that have no device yet, or are held.
fn keep_missing(stage: &mut CoverageStatus) {
    stage.groups.retain(|group| group.is_bare() || group.guard == CoverageGuard::Held);
}

fn of(rollout: RolloutStatus) -> Shown {
    Shown {
        rollout: rollout.rollout,
        title: format!(
            "{} {} on `{}` ({})",
            rollout.product,
            rollout.version,
            rollout.channel,
            table::short(rollout.rollout)
        ),
        stages: rollout.coverage,
    }
}

fn text(shown: &Shown) -> String {
    let mut parts = vec![shown.title.clone()];
    if shown.stages.is_empty() {
        parts.push("no stage of it is in trial: stages that count have no matrix".into());
    }
    for stage in &shown.stages {
        parts.push(stage_text(stage));
    }
    parts.join("\n")
}

fn stage_text(stage: &CoverageStatus) -> String {
    let rows = stage.groups.iter().map(|group| {
        let open = match group.guard {
            CoverageGuard::Own | CoverageGuard::Stage => group.limit.to_string(),
            CoverageGuard::Held => "held".to_owned(),
        };
        let numbers =
            [group.devices, group.named, group.begun, group.well, group.soaked, group.failed];
        let mut row = vec![group.kind.name().to_owned(), group.label.clone()];
        row.extend(numbers.map(|number| number.to_string()));
        row.push(open);
        row
    });
    let header =
        ["kind", "group", "devices", "named", "begun", "well", "soaked", "failed", "open to"];
    let without = count(stage.without, "group has", "groups have");
    let mut text = format!(
        "`{}`: {}, {}; of groups of {} and more, {without} no device yet\n{}",
        stage.cohort,
        stage.phase,
        count(stage.devices, "device", "devices"),
        stage.group_least,
        table::of(&header, rows.collect(), "no group to show")
    );
    if stage.left_out > 0 {
        text += &format!("\nand {} more, smaller", count(stage.left_out, "group", "groups"));
    }
    text
}

#[cfg(test)]
mod tests {
    use lockgate_shared::{bucket::Limit, group::GroupKind, id::GroupId};

    use super::*;
    use crate::status::GroupCoverage;

    #[test]
    fn a_matrix_says_what_is_missing_and_what_is_held() {
        let group = |label: &str, begun, guard| GroupCoverage {
            group: GroupId([1; 8]),
            kind: GroupKind::Hardware,
            label: label.into(),
            devices: 40,
            named: begun,
            begun,
            well: begun,
            soaked: 0,
            failed: 0,
            limit: Limit::EVERYBODY,
            guard,
        };
        let mut stage = CoverageStatus {
            cohort: "general".parse().expect("a name"),
            phase: "canary".into(),
            devices: 120,
            group_least: 15,
            groups: vec![
                group("Slate 3", 2, CoverageGuard::Own),
                group("Slate 4", 0, CoverageGuard::Stage),
                group("Slate 5", 1, CoverageGuard::Held),
            ],
            left_out: 0,
            without: 1,
        };
        let text = stage_text(&stage);
        assert!(text.starts_with("`general`: canary, 120 devices; of groups of 15"), "{text}");
        assert!(text.contains("1 group has no device yet"), "{text}");
        let line = |label: &str| text.lines().find(|line| line.contains(label)).expect("a line");
        let ends = |label: &str, with: &str| line(label).trim_end().ends_with(with);
        assert!(ends("Slate 3", "100.0000 %") && ends("Slate 5", "held"), "{text}");
        keep_missing(&mut stage);
        let left: Vec<&str> = stage.groups.iter().map(|group| group.label.as_str()).collect();
        assert_eq!(left, ["Slate 4", "Slate 5"]);
    }
}
