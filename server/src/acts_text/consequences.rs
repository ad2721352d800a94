//! What follows from an act, in words: how many devices, when at the earliest, judged by what evidence
//! in which strata, what cannot be undone; and of a lift, what the stops that it ends said. It is read
//! from files that were verified by the hash or the keys that stand behind the signed text, and says so
//! where such a file is not at hand. Pure; it permits nothing.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use lockgate_shared::{
    act::{Act, Approval, Lift, Start},
    count::count,
    id::Digest,
    manifest::{Gate, Manifest, Stage, StageApproval},
    rollout::Stop,
    time::{Moment, Seconds},
};

use crate::plain::plain;

/// The strata by which the gate judges, besides the fleet as a whole.
const STRATA: &str = "hardware, OS version, firmware, configuration, habit, time zone, and the pairs of the first four";

/// What is at hand besides an act's own text.
#[derive(Clone, Copy, Debug, Default)]
pub struct AtHand<'a> {
    /// A manifest and the SHA-256 of its text.
    pub manifest: Option<(Digest, &'a Manifest)>,
    /// The stops that stand, as the gatekeeper signed them.
    pub stops: Option<&'a BTreeMap<u64, Stop>>,
}

/// What an act's consequences cannot be shown without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// The manifest with this SHA-256.
    Manifest(Digest),
    /// The rollout files in which the stops stand.
    Stops,
}

impl AtHand<'_> {
    /// What is missing to show what follows from an act, if anything is.
    pub fn unseen(&self, act: &Act) -> Option<Unseen> {
        match act {
            Act::Start(Start { manifest, .. }) | Act::Approve(Approval { manifest, .. }) => {
                let missing = self.manifest_of(manifest).is_none();
                missing.then_some(Unseen::Manifest(*manifest))
            }
            Act::Lift(_) => self.stops.is_none().then_some(Unseen::Stops),
            Act::Waive(_) | Act::Grant(_) => None,
        }
    }

    /// The manifest, if it is the one whose hash was signed.
    fn manifest_of(&self, signed: &Digest) -> Option<&Manifest> {
        self.manifest.filter(|(digest, _)| digest == signed).map(|(_, manifest)| manifest)
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(digest) => write!(
                f,
                "devices, times, evidence and what cannot be undone: the manifest with SHA-256 {digest} is not at hand"
            ),
            Self::Stops => f.write_str("what these stops say: no rollout files are at hand"),
        }
    }
}

pub(super) fn write(out: &mut String, act: &Act, at_hand: &AtHand<'_>) -> fmt::Result {
    match act {
        Act::Start(start) => of_start(out, start, at_hand),
        Act::Approve(approval) => of_approval(out, approval, at_hand),
        Act::Lift(lift) => of_lift(out, lift, at_hand),
        Act::Waive(_) | Act::Grant(_) => Ok(()),
    }
}

fn not_at_hand(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "\nNOT SHOWN: devices, times, evidence and what cannot be undone; the manifest with this"
    )?;
    writeln!(out, "SHA-256 is not at hand (pass `--repository` or `--manifest`)")
}

fn of_start(out: &mut String, start: &Start, at_hand: &AtHand<'_>) -> fmt::Result {
    let Some(manifest) = at_hand.manifest_of(&start.manifest) else { return not_at_hand(out) };
    writeln!(out, "\nwhat follows, by the manifest with this SHA-256:")?;
    irreversible(out, manifest)?;
    let mut all: u64 = 0;
    for (index, stage) in manifest.ladder.stages.iter().enumerate() {
        let size = start.cohorts.iter().find(|size| size.cohort == stage.cohort);
        let devices = size.map_or(0, |size| size.devices);
        let reached = share(devices, stage.ceiling_ppm);
        all += u64::from(reached);
        stage_line(out, index, stage, Some((reached, devices)), Some(start.moment))?;
        evidence(out, stage)?;
    }
    let all = count(all, "device", "devices");
    writeln!(out, "in all      at most {all} known now, and those that come later")?;
    writeln!(out, "strata      a stage holds for any of: {STRATA}")?;
    let (age, coverage) = (manifest.ladder.timestamp_max_age_s, manifest.ladder.coverage_max);
    writeln!(out, "stop        reaches every device before it activates within {age}")?;
    writeln!(
        out,
        "coverage    at most {coverage} devices out of turn, so that every stratum is seen"
    )
}

fn irreversible(out: &mut String, manifest: &Manifest) -> fmt::Result {
    if manifest.irreversible {
        writeln!(out, "IRREVERSIBLE: a device that has confirmed it never goes back")?;
    } else {
        writeln!(out, "reversible  a device that is not well goes back by itself")?;
    }
    if manifest.migrates_data {
        writeln!(out, "MIGRATES data that both slots share: that is not rolled back")?;
    }
    if let Some(barrier) = &manifest.barrier {
        writeln!(out, "barrier     only devices with {barrier} or newer")?;
    }
    Ok(())
}

fn stage_line(
    out: &mut String,
    index: usize,
    stage: &Stage,
    devices: Option<(u32, u32)>,
    started: Option<Moment>,
) -> fmt::Result {
    write!(out, "stage {index}     `{}`", stage.cohort)?;
    match devices {
        Some((reached, all)) => {
            write!(out, ": at most {reached} of {}", count(all, "device", "devices"))?;
        }
        None => write!(out, ": at most {} ppm of its devices", stage.ceiling_ppm)?,
    }
    match started {
        Some(moment) => write!(out, ", not before {}", moment.plus(stage.floor_s))?,
        None => write!(out, ", not before {} after the start", stage.floor_s)?,
    }
    write!(out, ", bakes {}", stage.bake_s)?;
    match stage.approval {
        StageApproval::None => writeln!(out),
        StageApproval::Required => writeln!(out, ", WAITS for an approval of its own"),
    }
}

fn evidence(out: &mut String, stage: &Stage) -> fmt::Result {
    let percent = |ppm: u32| format!("{}.{:02} %", ppm / 10_000, ppm % 10_000 / 100);
    let gate = match &stage.gate {
        Gate::Count(rule) => rule,
        Gate::Trial(terms) => {
            let all = u64::from(terms.open_at) * terms.slot_s.0;
            writeln!(
                out,
                "            {} devices first, {} by name at most, the rest as their groups prove themselves;",
                terms.first_devices, terms.coverage
            )?;
            return writeln!(
                out,
                "            everybody after {} at the earliest; the next stage needs {} well; a harmless release is held in at most {}",
                Seconds(all),
                terms.min_devices,
                percent(terms.false_hold_ppm)
            );
        }
    };
    writeln!(
        out,
        "            {} first, {} more for each that is well; the next stage needs {} well",
        count(gate.first_devices, "device", "devices"),
        gate.growth,
        gate.min_devices
    )?;
    writeln!(
        out,
        "            halts at any failure below {} devices, above when more than {} fail ({} sure);",
        gate.small_stage,
        percent(gate.max_failure_ppm),
        percent(gate.confidence_ppm)
    )?;
    writeln!(out, "            silence of {} counts as failure", gate.silence_after_s)
}

/// The share of a cohort, rounded up: devices round in their own favour by less than one.
fn share(devices: u32, ppm: u32) -> u32 {
    let exact = (u64::from(devices) * u64::from(ppm)).div_ceil(1_000_000);
    u32::try_from(exact).unwrap_or(u32::MAX)
}

fn of_approval(out: &mut String, approval: &Approval, at_hand: &AtHand<'_>) -> fmt::Result {
    let Some(manifest) = at_hand.manifest_of(&approval.manifest) else { return not_at_hand(out) };
    writeln!(out, "\nwhat follows, by the manifest with this SHA-256:")?;
    writeln!(out, "release     {} {}", manifest.product, manifest.version)?;
    irreversible(out, manifest)?;
    let index = usize::from(approval.stage);
    match manifest.ladder.stages.get(index) {
        Some(stage) if stage.cohort == approval.cohort => {
            stage_line(out, index, stage, None, None)?;
            evidence(out, stage)
        }
        Some(_) | None => {
            writeln!(out, "NO EFFECT: the ladder has no stage {index} `{}`", approval.cohort)
        }
    }
}

fn of_lift(out: &mut String, lift: &Lift, at_hand: &AtHand<'_>) -> fmt::Result {
    let Some(stops) = at_hand.stops else {
        return writeln!(
            out,
            "\nNOT SHOWN: what these stops say; no rollout files are at hand (pass `--repository`)"
        );
    };
    writeln!(out, "\nwhat ends, as the gatekeeper signed it:")?;
    for number in &lift.numbers {
        match stops.get(number) {
            Some(stop) => {
                let (kind, scope, since) = (stop.kind.name(), &stop.scope, stop.since);
                writeln!(out, "stop {number:<6} {kind} of {scope}, since {since}")?;
                writeln!(out, "            because: {}", plain(&stop.reason))?;
            }
            None => writeln!(out, "stop {number:<6} STANDS IN NO ROLLOUT FILE that is at hand")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lockgate_shared::{
        act::{CohortSize, RiskClass},
        rollout::{Scope, StopKind},
    };

    use super::*;
    use crate::engine::sample_manifest;

    #[test]
    fn a_start_says_how_many_devices_when_and_by_what_evidence() {
        let (manifest, digest) = manifest(|_| ());
        let text =
            said(&start(digest), &AtHand { manifest: Some((digest, &manifest)), stops: None });
        for words in [
            "reversible  a device that is not well goes back",
            "stage 0     `early`: at most 40 of 40 devices, not before 2026-11-18T",
            "stage 1     `general`: at most 900 of 900 devices",
            "2 devices first, 2 more for each that is well; the next stage needs 2 well",
            "halts at any failure below 10 devices, above when more than 5.00 % fail (95.00 % sure)",
            "in all      at most 940 devices",
            "hardware, OS version",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }

    #[test]
    fn what_cannot_be_undone_is_said_and_a_manifest_with_another_hash_says_nothing() {
        let (manifest, digest) = manifest(|manifest| {
            manifest.irreversible = true;
            manifest.migrates_data = true;
            manifest.ladder.stages[1].approval = StageApproval::Required;
        });
        let at_hand = AtHand { manifest: Some((digest, &manifest)), stops: None };
        let text = said(&start(digest), &at_hand);
        for words in ["IRREVERSIBLE", "MIGRATES", "WAITS for an approval"] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
        let other = said(&start(Digest::of(b"another")), &at_hand);
        assert!(other.contains("NOT SHOWN") && !other.contains("IRREVERSIBLE"), "{other}");
    }

    #[test]
    fn a_lift_says_what_the_stop_said_and_what_it_does_not_know() {
        let stop = Stop {
            number: 7,
            kind: StopKind::Hold,
            scope: Scope::Everything,
            since: Moment(1_795_000_000),
            reason: "3 of 20 failed\u{1b}[2J".into(),
        };
        let stops = [(7, stop)].into();
        let lift = Act::Lift(Lift {
            repository: "trial".parse().expect("a name"),
            numbers: [7, 8].into(),
            reason: "fixed".into(),
        });
        let text = said(&lift, &AtHand { manifest: None, stops: Some(&stops) });
        assert!(text.contains("stop 7      hold of everything, since 2026-11-18T"), "{text}");
        assert!(text.contains("because: 3 of 20 failed\\u{1b}"), "{text}");
        assert!(text.contains("stop 8      STANDS IN NO ROLLOUT FILE"), "{text}");
        assert!(said(&lift, &AtHand::default()).contains("NOT SHOWN"));
    }

    fn said(act: &Act, at_hand: &AtHand<'_>) -> String {
        let mut text = String::new();
        write(&mut text, act, at_hand).expect("a string takes all");
        text
    }

    fn manifest(edit: impl FnOnce(&mut Manifest)) -> (Manifest, Digest) {
        let text = sample_manifest("1.1.0");
        let mut manifest = Manifest::from_json(text.as_bytes()).expect("a manifest");
        edit(&mut manifest);
        (manifest, Digest::of(text.as_bytes()))
    }

    fn start(manifest: Digest) -> Act {
        let size =
            |cohort: &str, devices| CohortSize { cohort: cohort.parse().expect("a name"), devices };
        Act::Start(Start {
            repository: "trial".parse().expect("a name"),
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            version: "1.1.0".parse().expect("a version"),
            manifest,
            moment: Moment(1_795_000_000),
            cohorts: vec![size("early", 40), size("general", 900)],
            owner: "eva".parse().expect("a name"),
            risk: RiskClass::Routine,
            plan: Digest::of(b"plan"),
        })
    }
}
