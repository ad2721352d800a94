//! A release in words, as people read it before they sign: the same text on every machine for the
//! same manifest. Pure; it judges nothing.

use std::fmt::{self, Write as _};

use lockgate_shared::{
    count::count,
    id::Digest,
    manifest::{
        Artifact, ArtifactKind, Compatibility, Gate, Manifest, Probe, ProbeKind, Severity, Stage,
        StageApproval,
    },
    terms::TrialTerms,
};

use crate::plain::plain;

/// What a manifest with this digest says.
pub fn describe(manifest: &Manifest, digest: &Digest) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, manifest, digest);
    text
}

fn write(out: &mut String, manifest: &Manifest, digest: &Digest) -> fmt::Result {
    writeln!(out, "release   {} {}", manifest.product, manifest.version)?;
    writeln!(out, "manifest  sha256 {digest}")?;
    writeln!(out, "severity  {}", severity(&manifest.severity))?;
    if let Some(barrier) = &manifest.barrier {
        writeln!(out, "barrier   only from {barrier} or newer")?;
    }
    if manifest.irreversible {
        writeln!(out, "IRREVERSIBLE once confirmed")?;
    }
    if manifest.migrates_data {
        let readers = match &manifest.data_read_by {
            Some(oldest) => format!("{oldest} and newer read them"),
            None => "NO OLDER VERSION READS THEM: a failed trial does not go back".into(),
        };
        writeln!(out, "migrates data that both slots share: {readers}")?;
    }
    for (what, digest) in [("sbom", manifest.sbom), ("provenance", manifest.provenance)] {
        if let Some(digest) = digest {
            writeln!(out, "{what}  sha256 {digest}")?;
        }
    }
    if let Some(end) = manifest.end_of_support {
        writeln!(out, "supported until {end}")?;
    }
    compatibility(out, &manifest.compatibility)?;
    for (index, artifact) in manifest.artifacts.iter().enumerate() {
        platform(out, index + 1, artifact)?;
    }
    let trial = &manifest.trial;
    writeln!(
        out,
        "trial     soak {}, deadline {}, at most {}",
        trial.soak_s,
        trial.deadline_s,
        count(trial.attempts, "attempt", "attempts")
    )?;
    for shown in &trial.probes {
        probe(out, shown)?;
    }
    writeln!(
        out,
        "ladder    {}, timestamp at most {} old, coverage of at most {}",
        count(manifest.ladder.stages.len(), "stage", "stages"),
        manifest.ladder.timestamp_max_age_s,
        count(manifest.ladder.coverage_max, "device", "devices")
    )?;
    for (index, shown) in manifest.ladder.stages.iter().enumerate() {
        stage(out, index, shown)?;
    }
    for line in manifest.notes.lines() {
        writeln!(out, "note      {}", plain(line))?;
    }
    Ok(())
}

fn severity(severity: &Severity) -> String {
    match severity {
        Severity::Routine => "routine".into(),
        Severity::Security { cvss_tenths, advisories } => {
            let names: Vec<String> = advisories.iter().map(|name| plain(name)).collect();
            let names = if names.is_empty() { "no advisory".into() } else { names.join(", ") };
            format!("security, CVSS {}.{} ({names})", cvss_tenths / 10, cvss_tenths % 10)
        }
    }
}

fn compatibility(out: &mut String, asked: &Compatibility) -> fmt::Result {
    for (what, set) in [("models", &asked.models), ("os", &asked.os_ids)] {
        if !set.is_empty() {
            let names: Vec<String> = set.iter().map(|name| plain(name)).collect();
            writeln!(out, "only      {what} {}", names.join(", "))?;
        }
    }
    for (what, mib) in [("memory", asked.min_ram_mib), ("free disk", asked.min_free_disk_mib)] {
        if let Some(mib) = mib {
            writeln!(out, "only      with {mib} MiB of {what}")?;
        }
    }
    Ok(())
}

fn platform(out: &mut String, number: usize, artifact: &Artifact) -> fmt::Result {
    let kind = match artifact.kind {
        ArtifactKind::App => "app",
        ArtifactKind::Image => "image",
        ArtifactKind::Agent => "agent",
        ArtifactKind::Config => "config",
    };
    let mut fits = Vec::new();
    fits.extend(artifact.arch.as_deref().map(|arch| format!("arch {}", plain(arch))));
    fits.extend(artifact.os_ids.iter().map(|os| format!("os {}", plain(os))));
    fits.extend(artifact.models.iter().map(|model| format!("model {}", plain(model))));
    let fits = if fits.is_empty() { "every device".into() } else { fits.join(", ") };
    writeln!(out, "artifact {number} ({kind}) for {fits}")?;
    writeln!(out, "          sha256 {}, {} bytes", artifact.sha256, artifact.size)?;
    writeln!(
        out,
        "          {}, {} unpacked",
        count(artifact.files.len(), "entry", "entries"),
        count(artifact.unpacked(), "byte", "bytes")
    )
}

fn probe(out: &mut String, probe: &Probe) -> fmt::Result {
    let what = match &probe.kind {
        ProbeKind::Command { argv, timeout_s } => {
            let argv: Vec<String> = argv.iter().map(|word| plain(word)).collect();
            format!("runs `{}` within {timeout_s}", argv.join(" "))
        }
        ProbeKind::Http { url, status, timeout_s } => {
            format!("asks `{}` for status {status} within {timeout_s}", plain(url))
        }
        ProbeKind::Process { pidfile } => format!("process of `{}` lives", plain(pidfile)),
        ProbeKind::Contact => "the agent reaches its server".into(),
    };
    writeln!(out, "  probe   {}: {what}, every {}", plain(&probe.name), probe.interval_s)
}

fn stage(out: &mut String, index: usize, stage: &Stage) -> fmt::Result {
    let approval = match stage.approval {
        StageApproval::None => "",
        StageApproval::Required => ", waits for approval",
    };
    let (percent, rest) = (stage.ceiling_ppm / 10_000, stage.ceiling_ppm % 10_000);
    writeln!(
        out,
        "  stage {index} `{}`: at most {percent}.{rest:04} % of it, not before {} after the start, bakes {}{approval}",
        stage.cohort, stage.floor_s, stage.bake_s
    )?;
    let gate = match &stage.gate {
        Gate::Count(rule) => rule,
        Gate::Trial(terms) => return trial(out, terms),
    };
    writeln!(
        out,
        "          {} first, {} more for each healthy one, {} must confirm; any failure halts below {},",
        count(gate.first_devices, "device", "devices"),
        gate.growth,
        gate.min_devices,
        count(gate.small_stage, "device", "devices")
    )?;
    writeln!(
        out,
        "          above at most {} ppm failures at {} ppm confidence; silent for {} counts as failed",
        gate.max_failure_ppm, gate.confidence_ppm, gate.silence_after_s
    )
}

/// A randomised trial's terms: those that decide how many devices are at risk, and for how long.
fn trial(out: &mut String, terms: &TrialTerms) -> fmt::Result {
    writeln!(
        out,
        "          a randomised trial in slots of {}: {} first, {} sentinels or one in {}, a canary from slot {} to {},",
        terms.slot_s,
        count(terms.first_devices, "device", "devices"),
        terms.sentinels,
        terms.sentinel_one_in,
        terms.canary_from,
        terms.ramp_from
    )?;
    writeln!(
        out,
        "          a ramp to slot {}, everybody at {}; groups of {} and more prove themselves; {} must confirm;",
        terms.ramp_to, terms.open_at, terms.group_least, terms.min_devices
    )?;
    writeln!(
        out,
        "          a harmless release is held with a chance of at most {} ppm; {} named at most",
        terms.false_hold_ppm,
        count(terms.coverage, "device", "devices")
    )
}
