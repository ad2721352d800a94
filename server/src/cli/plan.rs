//! `lockgate plan`: the preflight. It asks the server what devices there are, hands them and the ladder
//! to the simulator, a program of its own, and shows what would come of it. What it writes with `--out`
//! is what `rollout start --plan` puts under the approvers' signatures.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use clap::Args;
use lockgate_shared::{
    count::count,
    group::groups_of,
    id::{ChannelId, Digest, GroupId},
    manifest::{Gate, Manifest},
    time::Seconds,
};
use serde_json::json;

use super::{
    Session,
    exit::CliError,
    offline::{self, ManifestSource},
    table,
};
use crate::{
    api::admin::reports::FleetShown,
    preflight::{
        self, Answer, FORMAT, GRAIN, Question, Risk, Spread, StageForecast, Subject, When,
    },
    release::lint::{self, Around},
    status::KindStatus,
    whole_folder::{self, Readers},
};

/// The simulator.
const PROGRAM: &str = "lockgate-plan";
/// Where it is, in place of beside this program.
const PROGRAM_VARIABLE: &str = "LOCKGATE_PLAN";
/// The longest answer, and the largest file of a fleet: thousands of kinds with all their words.
const ANSWER_BYTES: usize = 16 << 20;
/// Below so many steps of the simulator people are told how long a step is: a time may be off by one.
const FEW_STEPS: u64 = 12;
/// Holes that people are shown; the plan has them all.
const HOLES_SHOWN: usize = 20;

/// Options of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The release's folder or its manifest.json
    #[arg(value_name = "RELEASE")]
    manifest: String,
    /// The channel
    #[arg(long)]
    channel: ChannelId,
    /// The moment of the start; else now
    #[arg(long, value_name = "RFC3339")]
    at: Option<String>,
    /// Where chance comes from: the same seed, fleet and moment give the same plan
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each future is tried
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    simulations: u32,
    /// The fleet from a file, as `GET /v1/fleet` answers, in place of the server's
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// The simulator; else LOCKGATE_PLAN, else `lockgate-plan` beside this program
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// The file to write, for `rollout start --plan`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Does it.
pub async fn run(args: PlanArgs, session: &Session) -> Result<(), CliError> {
    let ManifestSource::File(manifest, digest) = ManifestSource::of(&args.manifest)? else {
        return Err(CliError::Usage(
            "a digest has no ladder\nhint: pass the release's folder or its manifest.json".into(),
        ));
    };
    let fleet = fleet(&args, &manifest, session).await?;
    if fleet.fleet.kinds.is_empty() {
        return Err(CliError::Usage(format!(
            "`{}` has no device on `{}`\nhint: `lockgate cohort list` shows where there are",
            manifest.product, args.channel
        )));
    }
    let around = around(&manifest, &fleet);
    let question = question(&args, &manifest, digest, fleet)?;
    let mut answer = ask(&args, &question)?;
    answer.warnings = lint::warnings(&manifest, &around);
    let bytes = preflight::canonical(&answer).map_err(CliError::ours)?;
    if let Some(path) = &args.out {
        whole_folder::write_new(path, &bytes, Readers::Everybody)
            .map_err(offline::CliError::from)?;
    }
    let sha256 = Digest::of(&bytes);
    let whole = json!({ "sha256": sha256, "file": args.out, "plan": answer });
    session.print(&whole, |_| {
        let mut text = text(&answer, &sha256);
        if let Some(path) = &args.out {
            text += &format!(
                "\nwritten to `{at}`\nnext: `lockgate rollout start … --plan {at}`",
                at = path.display()
            );
        }
        text
    })
}

async fn fleet(
    args: &PlanArgs,
    manifest: &Manifest,
    session: &Session,
) -> Result<FleetShown, CliError> {
    let Some(path) = &args.fleet else {
        let ask = format!("/v1/fleet?product={}&channel={}", manifest.product, args.channel);
        return session.client()?.get(&ask).await;
    };
    let bytes = offline::read(path, ANSWER_BYTES)?;
    let mut fleet: FleetShown = serde_json::from_slice(&bytes).map_err(|error| {
        CliError::Usage(format!("`{}` is no answer of `GET /v1/fleet`: {error}", path.display()))
    })?;
    let wanted =
        |kind: &KindStatus| kind.product == manifest.product && kind.channel == args.channel;
    fleet.fleet.kinds.retain(wanted);
    Ok(fleet)
}

fn question(
    args: &PlanArgs,
    manifest: &Manifest,
    digest: Digest,
    fleet: FleetShown,
) -> Result<Question, CliError> {
    Ok(Question {
        format: FORMAT,
        subject: Subject::new(
            (manifest.product.clone(), manifest.version.clone()),
            args.channel.clone(),
            digest,
            &manifest.ladder,
        )
        .map_err(CliError::ours)?,
        ladder: manifest.ladder.clone(),
        at: offline::moment(args.at.as_deref())?,
        polls: fleet.polls,
        artifact_bytes: manifest.artifacts.iter().map(|artifact| artifact.size).max().unwrap_or(0),
        kinds: fleet.fleet.kinds,
        left_out: fleet.fleet.left_out,
        seed: args.seed,
        simulations: args.simulations,
    })
}

/// Starts the simulator and waits for its answer.
fn ask(args: &PlanArgs, question: &Question) -> Result<Answer, CliError> {
    let program = program(args)?;
    let started = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CliError::Usage(format!(
                "there is no simulator at `{}`\nhint: pass `--program`, or put `{PROGRAM}` beside `lockgate`; `cargo build -p lockgate-test-fleet --bin {PROGRAM}` makes it",
                program.display()
            )));
        }
        Err(source) => return Err(CliError::File { path: program, source }),
    };
    let bytes = serde_json::to_vec(question).map_err(CliError::ours)?;
    // It reads all of it before it writes anything; dropped, its input ends.
    let handed = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(&bytes));
    let output = child.wait_with_output().map_err(CliError::ours)?;
    if !output.status.success() {
        return Err(CliError::ours(format!("`{}` failed: {}", program.display(), output.status)));
    }
    handed.map_err(CliError::ours)?;
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(CliError::ours)?;
    if answer.format != FORMAT || answer.subject != question.subject {
        return Err(CliError::Usage(format!(
            "`{}` answers something else than was asked\nhint: it must be of the same version as `lockgate`",
            program.display()
        )));
    }
    Ok(answer)
}

fn program(args: &PlanArgs) -> Result<PathBuf, CliError> {
    if let Some(program) =
        args.program.clone().or_else(|| env::var_os(PROGRAM_VARIABLE).map(Into::into))
    {
        return Ok(program);
    }
    let own = env::current_exe().and_then(fs::canonicalize).map_err(CliError::ours)?;
    Ok(own.with_file_name(PROGRAM))
}

/// What the linter may know of the fleet.
fn around(manifest: &Manifest, fleet: &FleetShown) -> Around {
    let mut around = Around { polls: Some(fleet.polls), ..Around::default() };
    for stage in &manifest.ladder.stages {
        let own = fleet.fleet.kinds.iter().filter(|kind| kind.cohort == stage.cohort);
        let devices = own.clone().map(|kind| kind.devices).sum();
        around.devices.insert(stage.cohort.clone(), devices);
        if let Gate::Trial(terms) = &stage.gate {
            let groups = guarded(own, terms.group_least);
            around.groups.insert(stage.cohort.clone(), groups.min(terms.guarded));
        }
    }
    around
}

/// Groups of so many devices that a release can be bad for.
fn guarded<'k>(kinds: impl Iterator<Item = &'k KindStatus>, least: u32) -> u32 {
    let mut sizes: BTreeMap<GroupId, u32> = BTreeMap::new();
    for kind in kinds {
        for group in groups_of(&kind.words.facts(), kind.habit) {
            if group.kind.explains_faults() {
                *sizes.entry(group.id).or_default() += kind.devices;
            }
        }
    }
    let large = sizes.values().filter(|size| **size >= least).count();
    u32::try_from(large).unwrap_or(u32::MAX)
}

fn text(answer: &Answer, sha256: &Digest) -> String {
    let subject = &answer.subject;
    let devices: u32 = answer.cohorts.values().sum();
    let mut parts = vec![format!(
        "PLAN of {} {} on `{}`, starting {}\nmanifest    sha256 {}\nplan        sha256 {sha256}\ntried       {} from seed {}, on {} of {}",
        subject.product,
        subject.version,
        subject.channel,
        answer.at,
        subject.manifest,
        count(answer.simulations, "time", "times"),
        answer.seed,
        answer.simulated,
        count(devices, "device", "devices"),
    )];
    if answer.left_out > 0 {
        let devices = count(answer.left_out, "device", "devices");
        parts.push(format!("not tried: {devices} of the fleet's rarest kinds"));
    }
    let stages: Vec<Vec<String>> = answer.stages.iter().map(stage_row).collect();
    let header = ["stage", "devices", "opens", "p95", "everybody", "p95"];
    parts.push(table::of(&header, stages, "it has no stage"));
    let phases = answer.stages.iter().flat_map(|stage| {
        stage.phases.iter().map(|phase| {
            vec![
                stage.cohort.to_string(),
                phase.phase.clone(),
                phase.devices.median.to_string(),
                phase.devices.p95.to_string(),
            ]
        })
    });
    parts.push(table::of(&["stage", "step", "begin", "p95"], phases.collect(), "nobody begins"));
    parts.push(format!(
        "complete after {} (p95 {}); busiest hour: {} devices (p95 {}), {} (p95 {})",
        at(answer.complete.median),
        at(answer.complete.p95),
        answer.busiest_hour.median,
        answer.busiest_hour.p95,
        rate(answer.bytes_per_second.median),
        rate(answer.bytes_per_second.p95)
    ));
    parts.extend(steps_text(answer));
    let risks = answer.risks.iter().map(|risk| risk_row(risk, answer.simulations)).collect();
    let header = ["if", "devices at risk", "p95", "most", "stopped", "after", "p95"];
    parts.push(table::of(&header, risks, "nothing bad was tried"));
    parts.push(holes_text(answer));
    let notes = answer.notes.iter().map(|note| format!("note: {note}"));
    let warnings = answer.warnings.iter().map(|warning| format!("warning: {warning}"));
    let said: Vec<String> = notes.chain(warnings).collect();
    parts.extend((!said.is_empty()).then(|| said.join("\n")));
    parts.join("\n\n")
}

fn stage_row(stage: &StageForecast) -> Vec<String> {
    let When { median: opens, p95: opens_late } = stage.opens;
    let When { median: full, p95: full_late } = stage.full;
    vec![
        stage.cohort.to_string(),
        stage.devices.to_string(),
        at(opens),
        at(opens_late),
        at(full),
        at(full_late),
    ]
}

fn risk_row(risk: &Risk, simulations: u32) -> Vec<String> {
    let Spread { median, p95 } = risk.harmed;
    vec![
        risk.about.clone(),
        median.to_string(),
        p95.to_string(),
        risk.most.to_string(),
        format!("{} of {simulations}", risk.stopped),
        at(risk.after.median),
        at(risk.after.p95),
    ]
}

/// How coarse the times are, where some are so short that it matters.
fn steps_text(answer: &Answer) -> Option<String> {
    let stages = answer.stages.iter().flat_map(|stage| [stage.opens, stage.full]);
    let risks = answer.risks.iter().map(|risk| risk.after);
    let whens = stages.chain(risks).chain([answer.complete]);
    let mut times = whens.flat_map(|when| [when.median, when.p95]).flatten();
    let short = times.any(|time| time.0 > 0 && time.0 < FEW_STEPS * GRAIN.0);
    short.then(|| format!("times are in steps of {} min", GRAIN.0 / 60))
}

fn holes_text(answer: &Answer) -> String {
    if answer.holes.is_empty() {
        // A stage that counts has one step, a trial several.
        let trial = answer.stages.iter().any(|stage| stage.phases.len() > 1);
        return if trial {
            "every group of a trial that came to its ramp had a device before it".into()
        } else {
            "no stage is a trial: none compares groups".into()
        };
    }
    let shown = answer.holes.iter().take(HOLES_SHOWN).map(|hole| {
        format!(
            "hole: no device of {} ({} in `{}`) is named before the ramp, in {} of {} simulations",
            hole.label,
            count(hole.devices, "device", "devices"),
            hole.cohort,
            hole.simulations,
            answer.simulations
        )
    });
    let mut lines: Vec<String> = shown.collect();
    let more = answer.holes.len().saturating_sub(HOLES_SHOWN);
    if more > 0 {
        lines.push(format!("and {more} more holes, smaller"));
    }
    lines.join("\n")
}

fn at(seconds: Option<Seconds>) -> String {
    let Some(Seconds(seconds)) = seconds else { return "never".into() };
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {minutes:02} min"),
        (_, _) => format!("{days} d {hours:02} h"),
    }
}

fn rate(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B/s"),
        10_000..10_000_000 => format!("{} kB/s", bytes / 1_000),
        10_000_000.. => format!("{} MB/s", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::tests::answer;

    #[test]
    fn a_plan_is_read_in_hours_and_devices() {
        let noted = Answer { notes: vec!["fewer simulations".into()], ..answer() };
        let text = text(&noted, &Digest([1; 32]));
        for part in [
            "PLAN of app 1.0.0 on `stable`",
            "2 d 00 h",
            "never",
            "sentinels",
            "every device bricks",
            "20 of 20",
            "hole: no device of hardware Acme Slate 9 (16 devices in `general`)",
            "8000 kB/s",
            "not tried: 7 devices",
            "note: fewer simulations",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn short_times_are_shown_with_the_step_that_they_are_measured_in_and_long_ones_are_not() {
        let steps = "times are in steps of 5 min";
        let mut answer = answer();
        assert!(!text(&answer, &Digest([1; 32])).contains(steps));
        answer.complete.median = Some(Seconds(0));
        assert!(!text(&answer, &Digest([1; 32])).contains(steps), "the start itself is exact");
        answer.risks[0].after.median = Some(Seconds(900));
        assert!(text(&answer, &Digest([1; 32])).contains(steps));
    }

    #[test]
    fn a_ladder_without_a_trial_is_told_so_and_nothing_of_groups() {
        let mut answer = answer();
        answer.holes.clear();
        let told = |answer: &Answer| text(answer, &Digest([1; 32]));
        assert!(told(&answer).contains("no stage is a trial"), "{}", told(&answer));
        let step = answer.stages[0].phases[0].clone();
        answer.stages[0].phases.push(step);
        assert!(!told(&answer).contains("no stage is a trial"), "{}", told(&answer));
        assert!(told(&answer).contains("every group of a trial"), "{}", told(&answer));
    }
}
