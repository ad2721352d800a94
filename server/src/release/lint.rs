//! Warnings about a release that is allowed and unwise. Plain data in, findings out: a code for
//! programs, a sentence with the number, and what would mend it. `ladder` looks at how far and how
//! fast it goes.
//!
//! It refuses nothing: what must not be is [`Manifest::check`]'s. People read these before they sign.

mod ladder;

use std::{collections::BTreeSet, fmt};

use lockgate_shared::{
    manifest::{
        Artifact, ArtifactKind, FileEntry, FileKind, Ladder, Manifest, ProbeKind, Severity,
        StageApproval, Trial,
    },
    time::Seconds,
};
use serde::{Deserialize, Serialize};

pub use self::ladder::Around;
use super::{pack, plan::ReleasePlan};

/// A soak shorter than this sees no second failure of anything that restarts.
const SHORT_SOAK: Seconds = Seconds(30);

/// Something that people should look at twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What, for programs: it keeps its meaning.
    pub code: Code,
    /// What, in a sentence with its number.
    pub text: String,
    /// What would mend it.
    pub mend: String,
}

/// What kind of danger it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// An artifact that no device takes.
    UnusedArtifact,
    /// A link to nothing.
    DanglingLink,
    /// A program without a file that can run.
    NotExecutable,
    /// A soak that sees no second failure.
    ShortSoak,
    /// No probe asks the product.
    NoProbe,
    /// A probe that runs less than once.
    RareProbe,
    /// A probe's program that is not there.
    MissingProbe,
    /// No notes.
    NoNotes,
    /// What cannot be undone asks nobody.
    IrreversibleUnasked,
    /// Data that no older version reads.
    NoWayBack,
    /// A security release without advisory.
    NoAdvisory,
    /// A CVSS score that means nothing.
    OddScore,
    /// Everybody is in the first group.
    OneStage,
    /// A stop can be withheld for long.
    OldTimestamps,
    /// Nobody has time to say stop.
    NoFloor,
    /// A release in haste that no person looks at.
    NoApproval,
    /// A bake in which most devices do not poll.
    ShortBake,
    /// A bake that does not see every habit.
    BakeBelowADay,
    /// Many devices before anything was learnt.
    ManyAtOnce,
    /// A large last stage that only counts.
    LastStageCounts,
    /// It opens faster than it learns.
    FastGrowth,
    /// Failures that are too much.
    ManyFailures,
    /// A bound that is a guess.
    LowConfidence,
    /// Devices are called silent between two polls.
    ImpatientSilence,
    /// One device opens the next stage.
    OneDevice,
    /// A comparison among too few.
    SmallTrial,
    /// No controls at the end.
    NoHoldBack,
    /// Fewer names than groups.
    FewNames,
    /// Good releases are held often.
    FalseHolds,
    /// Groups without a proof of their own.
    UnguardedGroups,
    /// Slots in which nobody is heard.
    ShortSlots,
    /// Devices are judged while they try.
    LongDeadline,
    /// A soak that misses what comes later.
    ShortTrialSoak,
}

impl Finding {
    fn of(code: Code, text: String, mend: &str) -> Self {
        Self { code, text, mend: mend.to_owned() }
    }
}

impl Code {
    /// The code's word.
    pub fn word(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(word)) => word,
            // A variant without fields is always a word.
            Ok(_) | Err(_) => String::new(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]\n  {}", self.text, self.code.word(), self.mend)
    }
}

/// Everything about a release that people should look at twice.
pub fn warnings(manifest: &Manifest, around: &Around) -> Vec<Finding> {
    let mut found = Vec::new();
    artifacts(manifest, &mut found);
    trial(&manifest.trial, &mut found);
    programs(manifest, &mut found);
    ladder::ladder(&manifest.ladder, &manifest.severity, &manifest.trial, around, &mut found);
    release(&Author::of(manifest), &mut found);
    found
}

/// The same about a plan whose bytes are not packed yet, with its ladder as it would be.
pub fn plan_warnings(plan: &ReleasePlan, ladder: &Ladder, around: &Around) -> Vec<Finding> {
    let mut found = Vec::new();
    trial(&plan.trial, &mut found);
    ladder::ladder(ladder, &plan.severity, &plan.trial, around, &mut found);
    let author = Author {
        notes: &plan.notes,
        irreversible: plan.irreversible,
        read_by_nobody: plan.migrates_data && plan.data_read_by.is_none(),
        ladder,
        severity: &plan.severity,
    };
    release(&author, &mut found);
    found
}

fn artifacts(manifest: &Manifest, found: &mut Vec<Finding>) {
    for (index, artifact) in manifest.artifacts.iter().enumerate() {
        let earlier = manifest.artifacts.iter().take(index);
        if let Some(place) = earlier.into_iter().position(|earlier| covers(earlier, artifact)) {
            found.push(Finding::of(
                Code::UnusedArtifact,
                format!(
                    "artifact {} is never used: artifact {} fits the same devices and comes first",
                    index + 1,
                    place + 1
                ),
                "name the narrower one first",
            ));
        }
        for link in pack::dangling(&artifact.files) {
            found.push(Finding::of(
                Code::DanglingLink,
                format!("artifact {}: the link `{link}` points to nothing", index + 1),
                "pack what it points to",
            ));
        }
        let runnable = artifact
            .files
            .iter()
            .any(|entry| matches!(entry.kind, FileKind::File { executable: true, .. }));
        let program = matches!(artifact.kind, ArtifactKind::App | ArtifactKind::Agent);
        if program && !runnable {
            found.push(Finding::of(
                Code::NotExecutable,
                format!("artifact {}: no file in it is executable", index + 1),
                "`chmod +x` its program",
            ));
        }
    }
}

/// Whether every device of `later` is one of `earlier`.
fn covers(earlier: &Artifact, later: &Artifact) -> bool {
    let all = |wide: &BTreeSet<String>, narrow: &BTreeSet<String>| {
        wide.is_empty() || (!narrow.is_empty() && narrow.is_subset(wide))
    };
    (earlier.arch.is_none() || earlier.arch == later.arch)
        && all(&earlier.os_ids, &later.os_ids)
        && all(&earlier.models, &later.models)
}

fn trial(trial: &Trial, found: &mut Vec<Finding>) {
    if trial.soak_s < SHORT_SOAK {
        found.push(Finding::of(
            Code::ShortSoak,
            format!("the soak of {} is short: a crash a little later is missed", trial.soak_s),
            "`soak_s` of 30 or more sees it",
        ));
    }
    let looks_inside = |kind: &ProbeKind| match kind {
        ProbeKind::Command { .. } | ProbeKind::Http { .. } => true,
        ProbeKind::Process { .. } | ProbeKind::Contact => false,
    };
    if !trial.probes.iter().any(|probe| looks_inside(&probe.kind)) {
        found.push(Finding::of(
            Code::NoProbe,
            "no probe asks the product itself: a release that hangs looks healthy".into(),
            "add a probe of kind `command` or `http`",
        ));
    }
    for probe in trial.probes.iter().filter(|probe| probe.interval_s > trial.soak_s) {
        found.push(Finding::of(
            Code::RareProbe,
            format!("probe `{}` runs less than once in the soak", probe.name),
            "shorten its `interval_s`",
        ));
    }
}

fn programs(manifest: &Manifest, found: &mut Vec<Finding>) {
    for probe in &manifest.trial.probes {
        let ProbeKind::Command { argv, .. } = &probe.kind else { continue };
        let Some(program) = argv.first() else { continue };
        for (index, artifact) in manifest.artifacts.iter().enumerate() {
            if lacks(&artifact.files, program) {
                let text = format!(
                    "probe `{}` runs `{program}`, which artifact {} does not have",
                    probe.name,
                    index + 1
                );
                found.push(Finding::of(Code::MissingProbe, text, "pack it, or name its path"));
            }
        }
    }
}

/// Whether a probe's program is looked for in the slot, and is not there. As the device takes it, a
/// bare name is looked up in PATH, and `bin/x` and `./x` in the slot.
fn lacks(files: &[FileEntry], program: &str) -> bool {
    let inside = program.contains('/') && !program.starts_with('/');
    let path = program.trim_start_matches("./");
    inside && !files.iter().any(|entry| entry.path == path)
}

/// What the author says of the release as a whole.
struct Author<'a> {
    notes: &'a str,
    irreversible: bool,
    read_by_nobody: bool,
    ladder: &'a Ladder,
    severity: &'a Severity,
}

impl<'a> Author<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        Self {
            notes: &manifest.notes,
            irreversible: manifest.irreversible,
            read_by_nobody: manifest.migrates_data && manifest.data_read_by.is_none(),
            ladder: &manifest.ladder,
            severity: &manifest.severity,
        }
    }
}

fn release(author: &Author<'_>, found: &mut Vec<Finding>) {
    if author.notes.trim().is_empty() {
        found.push(Finding::of(
            Code::NoNotes,
            "there are no notes for the devices' owners".into(),
            "say in `notes` what changes for them",
        ));
    }
    let asked = author.ladder.stages.iter().any(|s| s.approval == StageApproval::Required);
    if author.irreversible && !asked {
        found.push(Finding::of(
            Code::IrreversibleUnasked,
            "it is irreversible, and no stage asks for approval".into(),
            "`approval = \"required\"` on the last stage",
        ));
    }
    if author.read_by_nobody {
        found.push(Finding::of(
            Code::NoWayBack,
            "it migrates shared data and names no older version that reads them (`data_read_by`): \
             a device whose trial fails stays on it"
                .into(),
            "name the oldest version that reads them",
        ));
    }
    if let Severity::Security { cvss_tenths, advisories } = author.severity {
        if advisories.is_empty() {
            found.push(Finding::of(
                Code::NoAdvisory,
                "it is a security release and names no advisory".into(),
                "name it in `advisories`",
            ));
        }
        if *cvss_tenths > 100 {
            found.push(Finding::of(
                Code::OddScore,
                format!("`cvss_tenths` is {cvss_tenths}, at most 100 has a meaning"),
                "7.5 is 75",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use lockgate_shared::{
        id::CohortId,
        manifest::{Gate, GateRule},
        terms::TrialTerms,
    };

    use super::*;
    use crate::release::plan::{Preset, tests::PLAN};

    #[test]
    fn a_probe_is_looked_for_in_the_release_only_where_the_device_looks_there() {
        for (program, missing) in [
            ("test", false),
            ("/usr/bin/test", false),
            ("bin/app", false),
            ("./bin/app", false),
            ("bin/other", true),
            ("./other", true),
        ] {
            let files = [FileEntry { path: "bin/app".into(), kind: FileKind::Directory }];
            assert_eq!(lacks(&files, program), missing, "{program}");
        }
    }

    fn cohorts(names: &[&str]) -> Vec<CohortId> {
        names.iter().map(|name| name.parse().expect("a name")).collect()
    }

    fn around(devices: &[(&str, u32)]) -> Around {
        let devices = devices.iter().map(|(name, n)| (name.parse().expect("a name"), *n));
        Around { devices: devices.collect(), ..Around::default() }
    }

    fn codes(ladder: &Ladder, severity: &Severity, around: &Around) -> BTreeSet<Code> {
        let plan = ReleasePlan::from_toml(PLAN).expect("a plan");
        let plan = ReleasePlan { severity: severity.clone(), ..plan };
        plan_warnings(&plan, ladder, around).into_iter().map(|finding| finding.code).collect()
    }

    fn security() -> Severity {
        Severity::Security { cvss_tenths: 75, advisories: ["ACME-2026-1".into()].into() }
    }

    #[test]
    fn the_routine_ladder_over_a_usual_fleet_is_found_sound_and_a_hurried_one_is_not() {
        let names = cohorts(&["dogfood", "early", "general"]);
        let fleet = around(&[("dogfood", 5), ("early", 40), ("general", 10_000)]);
        let of = |preset: Preset, severity| codes(&preset.ladder(&names), &severity, &fleet);
        assert_eq!(of(Preset::Routine, Severity::Routine), BTreeSet::new());
        assert_eq!(of(Preset::Security, security()), [Code::NoApproval].into());
        assert_eq!(of(Preset::Config, Severity::Routine), [Code::BakeBelowADay].into());
        let hurried = of(Preset::Emergency, Severity::Routine);
        assert!(hurried.contains(&Code::ShortTrialSoak) && hurried.contains(&Code::BakeBelowADay));
    }

    #[test]
    fn each_danger_of_a_stage_that_counts_has_its_code() {
        let names = cohorts(&["few", "general"]);
        let with = |change: fn(&mut GateRule)| {
            let mut ladder = Preset::Routine.ladder(&names);
            let Gate::Count(mut rule) = ladder.stages[0].gate.clone() else { panic!("it counts") };
            change(&mut rule);
            ladder.stages[0].gate = Gate::Count(rule);
            codes(&ladder, &Severity::Routine, &around(&[("few", 100), ("general", 1_000)]))
        };
        for (change, code) in [
            ((|rule| rule.first_devices = 30) as fn(&mut GateRule), Code::ManyAtOnce),
            (|rule| rule.growth = 50, Code::FastGrowth),
            (|rule| rule.max_failure_ppm = 100_000, Code::ManyFailures),
            (|rule| rule.confidence_ppm = 600_000, Code::LowConfidence),
            (|rule| rule.silence_after_s = Seconds(600), Code::ImpatientSilence),
            (|rule| rule.min_devices = 1, Code::OneDevice),
        ] {
            assert_eq!(with(change), [code].into());
        }
        let mut ladder = Preset::Routine.ladder(&names);
        ladder.stages[1].gate = ladder.stages[0].gate.clone();
        ladder.stages[1].floor_s = Seconds(0);
        let fleet = around(&[("few", 100), ("general", 1_000)]);
        assert_eq!(
            codes(&ladder, &Severity::Routine, &fleet),
            [Code::LastStageCounts, Code::NoFloor].into()
        );
        let few = around(&[("few", 100), ("general", 30)]);
        assert_eq!(codes(&ladder, &Severity::Routine, &few), [Code::NoFloor].into());
    }

    #[test]
    fn a_bake_is_short_by_the_polls_that_there_are() {
        let mut ladder = Preset::Routine.ladder(&cohorts(&["few", "general"]));
        ladder.stages[0].bake_s = Seconds(60);
        let fleet = around(&[("few", 5), ("general", 1_000)]);
        let at = |polls: Option<u64>| {
            let around = Around { polls: polls.map(Seconds), ..fleet.clone() };
            let plan = ReleasePlan::from_toml(PLAN).expect("a plan");
            let found = plan_warnings(&plan, &ladder, &around);
            found.into_iter().find(|found| found.code == Code::ShortBake).map(|f| f.to_string())
        };
        assert_eq!(at(Some(1)), None, "sixty polls");
        assert_eq!(at(Some(20)), None, "three polls");
        for (polls, words) in
            [(Some(21), "three polls, 1 min 3 s,"), (None, "three polls, 15 min,")]
        {
            let text = at(polls).expect("short");
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn each_danger_of_a_trial_has_its_code_and_its_number() {
        let names = cohorts(&["few", "general"]);
        let with = |change: fn(&mut TrialTerms), around: &Around| {
            let mut ladder = Preset::Routine.ladder(&names);
            let mut terms = TrialTerms::default();
            change(&mut terms);
            ladder.stages[1].gate = Gate::Trial(Box::new(terms));
            codes(&ladder, &Severity::Routine, around)
        };
        let fleet = around(&[("few", 10), ("general", 1_000)]);
        for (change, code) in [
            ((|terms| terms.hold_back_ppm = 5_000) as fn(&mut TrialTerms), Code::NoHoldBack),
            (|terms| terms.open_at = terms.ramp_to, Code::NoHoldBack),
            (|terms| terms.coverage = 90, Code::FewNames),
            (|terms| terms.false_hold_ppm = 90_000, Code::FalseHolds),
            (|terms| terms.group_least = 200, Code::UnguardedGroups),
            (|terms| terms.ramp_growth_percent = 150, Code::FastGrowth),
            (|terms| terms.soak = 20, Code::ShortTrialSoak),
        ] {
            assert_eq!(with(change, &fleet), [code].into());
        }
        let slow = Around { polls: Some(Seconds(7_200)), ..fleet.clone() };
        assert_eq!(with(|_| {}, &slow), [Code::ShortSlots].into());
        assert_eq!(
            with(|_| {}, &around(&[("few", 10), ("general", 20)])),
            [Code::SmallTrial].into()
        );
        let many = Around { groups: [("general".parse().expect("a name"), 900)].into(), ..fleet };
        assert_eq!(with(|_| {}, &many), [Code::FewNames].into());
        let plan = ReleasePlan::from_toml(PLAN).expect("a plan");
        let ladder = Preset::Routine.ladder(&names);
        let said = plan_warnings(&plan, &ladder, &many);
        let names = said.iter().find(|found| found.code == Code::FewNames).expect("few names");
        assert!(names.text.contains("names 280 devices") && names.text.contains("there are 900"));
        assert!(names.to_string().contains("[few-names]\n  raise `coverage`"), "{names}");
    }
}
