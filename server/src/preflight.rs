//! The preflight of a rollout: what the simulator is asked and what it answers, before people sign a
//! start, and whether a start is what was tried. Data only: the simulation itself is a program of its own,
//! `lockgate-plan`, which reads a [`Question`] from standard input and writes an [`Answer`] to standard
//! output, both in JSON.
//!
//! Numbers are whole, so that the same answer is the same bytes and has one digest.

use std::collections::BTreeMap;

use lockgate_shared::{
    count::count,
    id::{ChannelId, CohortId, Digest, ProductId},
    manifest::Ladder,
    time::{Moment, Seconds},
    version::Version,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{release::lint::Finding, status::KindStatus};

/// The shape of [`Question`] and [`Answer`]: a program of another one is refused.
pub const FORMAT: u32 = 1;
/// The simulator's step: no time in an answer is finer. It is the gate's own tick.
pub const GRAIN: Seconds = Seconds(300);

/// What is to be tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// [`FORMAT`].
    pub format: u32,
    /// What the answer is about.
    pub subject: Subject,
    /// The ladder.
    pub ladder: Ladder,
    /// When the rollout starts: the weekday and the hour count.
    pub at: Moment,
    /// How often devices poll.
    pub polls: Seconds,
    /// Bytes that one device downloads.
    pub artifact_bytes: u64,
    /// The fleet, kind by kind.
    pub kinds: Vec<KindStatus>,
    /// Devices of further kinds, of which no more is known, whatever they follow: none of them is tried.
    pub left_out: u32,
    /// Where chance comes from.
    pub seed: u64,
    /// How often each future is tried.
    pub simulations: u32,
}

/// What is tried, by name and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The product.
    pub product: ProductId,
    /// The channel.
    pub channel: ChannelId,
    /// The version.
    pub version: Version,
    /// SHA-256 of the manifest: what is signed must be what was tried.
    pub manifest: Digest,
    /// SHA-256 of the ladder: of its JSON with sorted keys and no space.
    pub ladder: Digest,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`FORMAT`].
    pub format: u32,
    /// What it is about.
    pub subject: Subject,
    /// The seed.
    pub seed: u64,
    /// How often each future was tried.
    pub simulations: u32,
    /// The start.
    pub at: Moment,
    /// Devices of each cohort, as they are.
    pub cohorts: BTreeMap<CohortId, u32>,
    /// Devices that were simulated: fewer where the fleet is larger than the simulator takes.
    pub simulated: u32,
    /// Devices of kinds that nobody told, as the question has them.
    pub left_out: u32,
    /// The stages, as a good release goes through them.
    pub stages: Vec<StageForecast>,
    /// Seconds from the start until a good release is complete.
    pub complete: When,
    /// Devices that begin in the busiest hour.
    pub busiest_hour: Spread,
    /// Bytes a second that they download then, on the average of that hour.
    pub bytes_per_second: Spread,
    /// What bad releases would do.
    pub risks: Vec<Risk>,
    /// Groups that no name reaches.
    pub holes: Vec<Hole>,
    /// What the simulator did otherwise than it was asked, and what a trial that never lets everybody in
    /// waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What is dangerous about the plan; `lockgate plan` adds it.
    #[serde(default)]
    pub warnings: Vec<Finding>,
}

/// A stage in good releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageForecast {
    /// Its cohort.
    pub cohort: CohortId,
    /// Its devices.
    pub devices: u32,
    /// Seconds from the start until it opens.
    pub opens: When,
    /// Seconds from the start until its limit reaches the ceiling.
    pub full: When,
    /// Devices that begin in each step inside it, in order.
    pub phases: Vec<PhaseForecast>,
}

/// A step inside a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseForecast {
    /// Its name.
    pub phase: String,
    /// Devices that begin in it.
    pub devices: Spread,
}

/// A number over all simulations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: u64,
    /// The 95th percentile.
    pub p95: u64,
}

/// A moment over all simulations, in seconds since the start. Where it never came in the simulated
/// month, it counts as later than all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct When {
    /// The median.
    pub median: Option<Seconds>,
    /// The 95th percentile.
    pub p95: Option<Seconds>,
}

/// A bad release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Risk {
    /// The scenario's name.
    pub scenario: String,
    /// In words.
    pub about: String,
    /// Devices that the release is bad for and that install it.
    pub harmed: Spread,
    /// The most of them in any simulation.
    pub most: u32,
    /// In how many simulations it was held or halted.
    pub stopped: u32,
    /// Seconds from the start until then.
    pub after: When,
}

/// A group that no name reaches before the ramp.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hole {
    /// The stage's cohort.
    pub cohort: CohortId,
    /// What its devices have in common, and the values.
    pub label: String,
    /// Its devices.
    pub devices: u32,
    /// In how many simulations.
    pub simulations: u32,
}

impl Subject {
    /// This version on this channel, by its manifest's digest and its ladder.
    pub fn new(
        (product, version): (ProductId, Version),
        channel: ChannelId,
        manifest: Digest,
        ladder: &Ladder,
    ) -> Result<Self, serde_json::Error> {
        let ladder = Digest::of(&lockgate_shared::json::write(ladder)?);
        Ok(Self { product, channel, version, manifest, ladder })
    }
}

/// An answer as it is signed: its JSON with sorted keys, without space.
pub fn canonical(answer: &Answer) -> Result<Vec<u8>, serde_json::Error> {
    lockgate_shared::json::write(answer)
}

/// Why a plan is not a start's.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Misfit {
    /// Something else was tried.
    #[error(
        "the plan is for {} {} on `{}`, of another manifest or channel\nhint: run `lockgate plan` on this release",
        .0.product, .0.version, .0.channel
    )]
    Subject(Box<Subject>),
    /// It was tried on another fleet.
    #[error(
        "the plan was tried with {} in `{cohort}`, and the start names {named}\nhint: run `lockgate plan` again",
        count(*tried, "device", "devices")
    )]
    Fleet {
        /// The first cohort that differs.
        cohort: CohortId,
        /// Its devices, as they were tried.
        tried: u32,
        /// Its devices, as the start has them.
        named: u32,
    },
}

/// Refuses a preflight of something else than what is to start. Any other document is taken as it is.
pub fn fits(
    plan: &[u8],
    manifest: &Digest,
    channel: &ChannelId,
    cohorts: &BTreeMap<CohortId, u32>,
) -> Result<(), Misfit> {
    let Ok(answer) = serde_json::from_slice::<Answer>(plan) else { return Ok(()) };
    if answer.subject.manifest != *manifest || answer.subject.channel != *channel {
        return Err(Misfit::Subject(Box::new(answer.subject)));
    }
    for (cohort, named) in cohorts {
        let tried = answer.cohorts.get(cohort).copied().unwrap_or(0);
        // A tenth: fleets breathe, and a plan for half of one says nothing of the other half.
        if u64::from(tried.abs_diff(*named)) * 10 > u64::from((*named).max(tried)).max(10) {
            return Err(Misfit::Fleet { cohort: cohort.clone(), tried, named: *named });
        }
    }
    Ok(())
}

/// The value below which this share of the numbers lies, in hundredths: the smallest that fits.
pub fn quantile<T: Copy + Ord>(numbers: &[T], hundredths: usize) -> Option<T> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * hundredths).div_ceil(100).max(1) - 1;
    sorted.get(place).copied()
}

impl Spread {
    /// Of these numbers.
    pub fn of(numbers: &[u64]) -> Self {
        let at = |hundredths| quantile(numbers, hundredths).unwrap_or(0);
        Self { median: at(50), p95: at(95) }
    }
}

impl When {
    /// Of these moments; `None` is never.
    pub fn of(moments: &[Option<Seconds>]) -> Self {
        let late: Vec<u64> =
            moments.iter().map(|moment| moment.map_or(u64::MAX, |moment| moment.0)).collect();
        let at = |hundredths| {
            quantile(&late, hundredths).filter(|moment| *moment < u64::MAX).map(Seconds)
        };
        Self { median: at(50), p95: at(95) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::release::plan::Preset;

    #[test]
    fn what_never_happens_is_later_than_everything_that_does() {
        let some = |seconds| Some(Seconds(seconds));
        let when = When::of(&[some(30), None, some(10), some(20)]);
        assert_eq!((when.median, when.p95), (some(20), None));
        assert_eq!(When::of(&[]), When::default());
        let numbers: Vec<u64> = (1..=20).collect();
        assert_eq!(Spread::of(&numbers), Spread { median: 10, p95: 19 });
    }

    #[test]
    fn a_plan_of_another_release_channel_or_fleet_is_not_signed_and_a_document_is() {
        let bytes = canonical(&answer()).expect("json");
        let (manifest, channel) = (Digest([7; 32]), "stable".parse().expect("a name"));
        let fleet = |devices| BTreeMap::from([("general".parse().expect("a name"), devices)]);
        let fits = |manifest: &Digest, channel: &ChannelId, devices| {
            super::fits(&bytes, manifest, channel, &fleet(devices))
        };
        assert_eq!(fits(&manifest, &channel, 1_050), Ok(()));
        let other = Err(Misfit::Subject(Box::new(answer().subject)));
        assert_eq!(fits(&Digest([9; 32]), &channel, 1_000), other);
        assert_eq!(fits(&manifest, &"beta".parse().expect("a name"), 1_000), other);
        let grown = fits(&manifest, &channel, 1_200).expect_err("another fleet").to_string();
        assert!(grown.contains("1000 devices") && grown.contains("1200"), "{grown}");
        assert_eq!(super::fits(b"our plan: be careful", &manifest, &channel, &fleet(1)), Ok(()));
    }

    /// A plan of 1,000 devices in `general`, of a manifest with the digest of sevens.
    pub(crate) fn answer() -> Answer {
        let cohort: CohortId = "general".parse().expect("a name");
        let hours = |hours: u64| Some(Seconds(hours * 3_600));
        Answer {
            format: FORMAT,
            subject: Subject::new(
                ("app".parse().expect("a name"), "1.0.0".parse().expect("a version")),
                "stable".parse().expect("a name"),
                Digest([7; 32]),
                &Preset::Routine.ladder(std::slice::from_ref(&cohort)),
            )
            .expect("json"),
            seed: 1,
            simulations: 20,
            at: Moment(0),
            cohorts: [(cohort.clone(), 1_000)].into(),
            simulated: 1_000,
            left_out: 7,
            stages: vec![StageForecast {
                cohort: cohort.clone(),
                devices: 1_000,
                opens: When { median: hours(48), p95: hours(49) },
                full: When { median: hours(112), p95: None },
                phases: vec![PhaseForecast {
                    phase: "sentinels".into(),
                    devices: Spread { median: 7, p95: 7 },
                }],
            }],
            complete: When::default(),
            busiest_hour: Spread { median: 300, p95: 320 },
            bytes_per_second: Spread { median: 8_000_000, p95: 9_000_000 },
            risks: vec![Risk {
                scenario: "all-brick".into(),
                about: "every device bricks".into(),
                harmed: Spread { median: 4, p95: 6 },
                most: 7,
                stopped: 20,
                after: When { median: hours(5), p95: hours(7) },
            }],
            holes: vec![Hole {
                cohort,
                label: "hardware Acme Slate 9".into(),
                devices: 16,
                simulations: 12,
            }],
            notes: Vec::new(),
            warnings: Vec::new(),
        }
    }
}
