//! Warnings about a release that is allowed and unwise. Plain data in, sentences out.
//!
//! It refuses nothing: what must not be is [`Manifest::check`]'s. People read these before they sign.

use std::collections::BTreeSet;

use lockgate_shared::{
    manifest::{
        Artifact, ArtifactKind, FileEntry, FileKind, Manifest, ProbeKind, Severity, StageApproval,
    },
    time::Seconds,
};

use super::pack;

/// A soak shorter than this sees no second failure of anything that restarts.
const SHORT_SOAK: Seconds = Seconds(30);
/// A stage's bake shorter than this is over before most devices have polled (every five minutes).
const SHORT_BAKE: Seconds = Seconds(900);
/// Whoever withholds a stop gains the timestamp's age: more than this is worth a thought.
const LONG_TIMESTAMP: Seconds = Seconds(6 * 3_600);

/// Everything about a release that people should look at twice.
pub fn warnings(manifest: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    artifacts(manifest, &mut found);
    trial(manifest, &mut found);
    ladder(manifest, &mut found);
    release(manifest, &mut found);
    found
}

fn artifacts(manifest: &Manifest, found: &mut Vec<String>) {
    for (index, artifact) in manifest.artifacts.iter().enumerate() {
        let earlier = manifest.artifacts.iter().take(index);
        if let Some(place) = earlier.into_iter().position(|earlier| covers(earlier, artifact)) {
            found.push(format!(
                "artifact {} is never used: artifact {} fits the same devices and comes first",
                index + 1,
                place + 1
            ));
        }
        for link in pack::dangling(&artifact.files) {
            found.push(format!("artifact {}: the link `{link}` points to nothing", index + 1));
        }
        let runnable = artifact
            .files
            .iter()
            .any(|entry| matches!(entry.kind, FileKind::File { executable: true, .. }));
        let program = matches!(artifact.kind, ArtifactKind::App | ArtifactKind::Agent);
        if program && !runnable {
            found.push(format!("artifact {}: no file in it is executable", index + 1));
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

fn trial(manifest: &Manifest, found: &mut Vec<String>) {
    let trial = &manifest.trial;
    if trial.soak_s < SHORT_SOAK {
        found.push(format!(
            "the soak of {} is short: a crash a little later is missed",
            trial.soak_s
        ));
    }
    let looks_inside = |kind: &ProbeKind| match kind {
        ProbeKind::Command { .. } | ProbeKind::Http { .. } => true,
        ProbeKind::Process { .. } | ProbeKind::Contact => false,
    };
    if !trial.probes.iter().any(|probe| looks_inside(&probe.kind)) {
        found.push("no probe asks the product itself: a release that hangs looks healthy".into());
    }
    for probe in &trial.probes {
        if probe.interval_s > trial.soak_s {
            found.push(format!("probe `{}` runs less than once in the soak", probe.name));
        }
        let ProbeKind::Command { argv, .. } = &probe.kind else { continue };
        let Some(program) = argv.first() else { continue };
        for (index, artifact) in manifest.artifacts.iter().enumerate() {
            if lacks(&artifact.files, program) {
                found.push(format!(
                    "probe `{}` runs `{program}`, which artifact {} does not have",
                    probe.name,
                    index + 1
                ));
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

fn ladder(manifest: &Manifest, found: &mut Vec<String>) {
    let ladder = &manifest.ladder;
    if ladder.stages.len() == 1 {
        found.push("the ladder has one stage: everybody is in the first group".into());
    }
    if ladder.timestamp_max_age_s > LONG_TIMESTAMP {
        found.push(format!(
            "`timestamp_max_age_s` is {}: so long can a stop be withheld",
            ladder.timestamp_max_age_s
        ));
    }
    for stage in &ladder.stages {
        if stage.bake_s < SHORT_BAKE {
            found.push(format!(
                "stage `{}` bakes for {}: most devices have not polled by then",
                stage.cohort, stage.bake_s
            ));
        }
    }
}

fn release(manifest: &Manifest, found: &mut Vec<String>) {
    if manifest.notes.trim().is_empty() {
        found.push("there are no notes for the devices' owners".into());
    }
    let asked = manifest.ladder.stages.iter().any(|s| s.approval == StageApproval::Required);
    if manifest.irreversible && !asked {
        found.push("it is irreversible, and no stage asks for approval".into());
    }
    if manifest.migrates_data && manifest.data_read_by.is_none() {
        found.push(
            "it migrates shared data and names no older version that reads them (`data_read_by`): \
             a device whose trial fails stays on it"
                .into(),
        );
    }
    if let Severity::Security { cvss_tenths, advisories } = &manifest.severity {
        if advisories.is_empty() {
            found.push("it is a security release and names no advisory".into());
        }
        if *cvss_tenths > 100 {
            found.push(format!("`cvss_tenths` is {cvss_tenths}, at most 100 has a meaning"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
