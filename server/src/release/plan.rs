//! `release.toml`: what the author of a release decides, beside its bytes.
//!
//! It refuses fields it does not know, also inside trial and ladder. Presets are starting values for
//! a ladder over a product's cohorts; what is signed is always the ladder itself.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::{CohortId, Digest},
    manifest::{
        ArtifactKind, Compatibility, Gate, GateRule, Ladder, Severity, Stage, StageApproval, Trial,
    },
    terms::TrialTerms,
    time::{Moment, Seconds},
    version::Version,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, value::MapAccessDeserializer},
};
use thiserror::Error;

/// The largest `release.toml` that is read: notes and sixteen stages stay far below it.
const MAX_PLAN: u64 = 256 * 1024;

/// What the author decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasePlan {
    /// What the artifacts are.
    #[serde(default = "app")]
    pub kind: ArtifactKind,
    /// How grave it is to be without it.
    #[serde(default = "routine")]
    pub severity: Severity,
    /// What a device must be.
    #[serde(default)]
    pub compatibility: Compatibility,
    /// The oldest version from which it may be installed.
    #[serde(default)]
    pub barrier: Option<Version>,
    /// There is no way back once it is confirmed.
    #[serde(default)]
    pub irreversible: bool,
    /// It changes data that both slots share.
    #[serde(default)]
    pub migrates_data: bool,
    /// The oldest version that reads the data as this one leaves them.
    #[serde(default)]
    pub data_read_by: Option<Version>,
    /// SHA-256 of the software bill of materials.
    #[serde(default)]
    pub sbom: Option<Digest>,
    /// SHA-256 of the statement of its provenance.
    #[serde(default)]
    pub provenance: Option<Digest>,
    /// Notes for the devices' owners.
    #[serde(default)]
    pub notes: String,
    /// When support ends.
    #[serde(default)]
    pub end_of_support: Option<Moment>,
    /// How it proves itself healthy.
    pub trial: Trial,
    /// The stages: a preset's name, or all of them.
    pub ladder: LadderPlan,
}

/// A ladder by name or in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum LadderPlan {
    /// Starting values over the product's cohorts.
    Preset(Preset),
    /// As it stands.
    Explicit(Ladder),
}

/// Starting values for a ladder, by urgency. In each the last stage is a randomised trial, because
/// there are enough devices to compare; the cohorts before it have a few devices each and are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// A day for each stage: every device has had its working day and its night. The trial has slots of
    /// an hour, and everybody in 64 of them.
    Routine,
    /// Four hours for each stage: half a working shift. The trial has slots of 20 minutes, four of the
    /// usual polls, and everybody after 21 hours.
    Security,
    /// A quarter of an hour for each stage: short, never absent. The trial has slots of five minutes,
    /// one of the usual polls, and everybody after five hours: who sleeps meanwhile is no evidence.
    Emergency,
    /// Settings: eight hours for each stage. The trial has slots of half an hour, everybody after 32
    /// hours, and a soak of a whole day, because what a setting does shows when it is next used.
    Config,
}

/// Why a release's plan cannot be used.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Larger than any plan.
    #[error("the release's plan has {0} bytes, at most {MAX_PLAN} are read")]
    TooLarge(u64),
    /// Not TOML of this shape.
    #[error("the release's plan cannot be read\n{0}")]
    Toml(#[from] toml::de::Error),
    /// A field that nobody would have read.
    #[error(
        "the release's plan has a field `{0}` that nobody reads\nhint: compare its spelling with the documentation"
    )]
    Unknown(String),
    /// A preset without the product's cohorts.
    #[error(
        "a ladder preset needs the product's cohorts\nhint: pass `--policy policy.json` or `--repository DIR`, or write `[[ladder.stages]]`"
    )]
    NoCohorts,
}

impl ReleasePlan {
    /// Reads a plan from a file.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let failed = |source| PlanError::Read { path: path.to_owned(), source };
        let size = fs::metadata(path).map_err(failed)?.len();
        if size > MAX_PLAN {
            return Err(PlanError::TooLarge(size));
        }
        Self::from_toml(&fs::read_to_string(path).map_err(failed)?)
    }

    /// Reads a plan.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text)?;
        let given: toml::Table = toml::from_str(text)?;
        let read = toml::Value::try_from(&plan)
            .map_err(|error| PlanError::Toml(de::Error::custom(error)))?;
        match unread(&toml::Value::Table(given), &read) {
            Some(field) => Err(PlanError::Unknown(field)),
            None => Ok(plan),
        }
    }
}

impl LadderPlan {
    /// The ladder itself.
    pub fn ladder(&self, cohorts: Option<&[CohortId]>) -> Result<Ladder, PlanError> {
        match self {
            Self::Explicit(ladder) => Ok(ladder.clone()),
            Self::Preset(preset) => Ok(preset.ladder(cohorts.ok_or(PlanError::NoCohorts)?)),
        }
    }
}

/// What a preset is made of.
struct Values {
    /// Floors lie so far apart, and every stage bakes as long.
    pace: u64,
    /// How the cohorts before the last are counted.
    counted: GateRule,
    /// The last one's trial.
    trial: TrialTerms,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 4] = [Self::Routine, Self::Security, Self::Emergency, Self::Config];

    /// The preset's ladder over these cohorts, earliest first.
    pub fn ladder(self, cohorts: &[CohortId]) -> Ladder {
        let Values { pace, counted, trial } = self.values();
        let last = cohorts.len().saturating_sub(1);
        let stage = |(index, cohort): (usize, &CohortId)| Stage {
            cohort: cohort.clone(),
            ceiling_ppm: 1_000_000,
            floor_s: Seconds(index as u64 * pace),
            bake_s: Seconds(pace),
            approval: StageApproval::None,
            gate: if index == last {
                Gate::Trial(Box::new(trial.clone()))
            } else {
                Gate::Count(counted.clone())
            },
        };
        Ladder {
            stages: cohorts.iter().enumerate().map(stage).collect(),
            timestamp_max_age_s: Seconds(3_600),
            coverage_max: 300,
        }
    }

    fn values(self) -> Values {
        let (pace, gate) = match self {
            Self::Routine => (86_400, (3, 30, 20_000, 86_400)),
            Self::Security => (4 * 3_600, (5, 20, 30_000, 8 * 3_600)),
            Self::Emergency => (900, (10, 10, 50_000, 3_600)),
            Self::Config => (8 * 3_600, (5, 20, 20_000, 86_400)),
        };
        let (growth, min_devices, max_failure_ppm, silence) = gate;
        let counted = GateRule {
            // Five: enough to notice what harms everybody, few enough to visit by hand.
            first_devices: 5,
            growth,
            min_devices,
            small_stage: 10,
            max_failure_ppm,
            confidence_ppm: 950_000,
            silence_after_s: Seconds(silence),
        };
        let paced =
            |slot| TrialTerms { slot_s: Seconds(slot), min_devices, ..TrialTerms::default() };
        let trial = match self {
            Self::Routine => TrialTerms::default(),
            Self::Security => paced(1_200),
            Self::Emergency => paced(300),
            // A soak of a day in the canary, which ends at slot 22 and is 38 slots old at the ramp's end;
            // what could not be soaked that long by then lives for six hours at least.
            Self::Config => TrialTerms {
                soak: 48,
                soak_falls_from: 56,
                soak_falls_by: 4,
                soak_day: 12,
                soak_least: 12,
                ..paced(1_800)
            },
        };
        Values { pace, counted, trial }
    }
}

impl<'de> Deserialize<'de> for LadderPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = LadderPlan;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`routine`, `security`, `emergency`, `config` or a table with `stages`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<LadderPlan, E> {
                let text: de::value::StrDeserializer<'_, E> =
                    de::IntoDeserializer::into_deserializer(text);
                Preset::deserialize(text).map(LadderPlan::Preset)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LadderPlan, A::Error> {
                Ladder::deserialize(MapAccessDeserializer::new(map)).map(LadderPlan::Explicit)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// The first field of what was given that is not in what was read.
fn unread(given: &toml::Value, read: &toml::Value) -> Option<String> {
    match (given, read) {
        (toml::Value::Table(given), toml::Value::Table(read)) => {
            given.iter().find_map(|(name, value)| match read.get(name) {
                None => Some(name.clone()),
                Some(read) => unread(value, read).map(|below| format!("{name}.{below}")),
            })
        }
        (toml::Value::Array(given), toml::Value::Array(read)) => {
            given.iter().zip(read).find_map(|(given, read)| unread(given, read))
        }
        (_, _) => None,
    }
}

const fn app() -> ArtifactKind {
    ArtifactKind::App
}

const fn routine() -> Severity {
    Severity::Routine
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const PLAN: &str = concat!(
        include_str!("../../testdata/release.toml"),
        "[severity.security]\ncvss_tenths = 75\nadvisories = [\"ACME-2026-1\"]\n",
    );

    #[test]
    fn a_preset_becomes_a_ladder_that_holds() {
        let plan = ReleasePlan::from_toml(PLAN).expect("a plan");
        let cohorts: Vec<CohortId> =
            ["dogfood", "early", "general"].map(|name| name.parse().expect("a name")).into();
        assert!(matches!(plan.ladder.ladder(None), Err(PlanError::NoCohorts)));
        for preset in Preset::ALL {
            let ladder = preset.ladder(&cohorts);
            ladder.check().expect("it holds");
            preset.ladder(&cohorts[..1]).check().expect("it holds for one cohort");
            let trials = ladder.stages.iter().map(|stage| matches!(stage.gate, Gate::Trial(_)));
            assert_eq!(trials.collect::<Vec<_>>(), [false, false, true], "{preset:?}");
            assert!(ladder.stages.iter().all(|stage| stage.bake_s > Seconds(0)));
            assert!(ladder.stages.windows(2).all(|pair| pair[0].floor_s < pair[1].floor_s));
        }
    }

    #[test]
    fn a_trial_in_a_plan_says_only_what_differs_from_the_routine_one() {
        let text = explicit("[ladder.stages.trial]\nslot_s = 1800\nsoak = 48\n");
        let plan = ReleasePlan::from_toml(&text).expect("a plan");
        let ladder = plan.ladder.ladder(None).expect("explicit");
        ladder.check().expect("it holds");
        let Gate::Trial(terms) = &ladder.stages[0].gate else { panic!("no trial: {ladder:?}") };
        let asked = TrialTerms { slot_s: Seconds(1_800), soak: 48, ..TrialTerms::default() };
        assert_eq!(**terms, asked);
        let wrong = text.replace("soak = 48", "soak_h = 48");
        let error = ReleasePlan::from_toml(&wrong).expect_err("misspelt").to_string();
        assert!(error.contains("ladder.stages.trial.soak_h"), "{error}");
        let both = text.replace("[ladder.stages.trial]", &format!("{GATE}[ladder.stages.trial]"));
        let error = ReleasePlan::from_toml(&both).expect_err("two gates").to_string();
        assert!(error.contains("either `gate` or `trial`"), "{error}");
    }

    /// As the README has them: floors and bakes, a slot, everybody, and the soak.
    #[test]
    fn presets_take_as_long_as_people_are_told() {
        const H: u64 = 3_600;
        let cohorts = ["early", "general"].map(|name| name.parse().expect("a name"));
        let times = |preset: Preset| {
            let [early, general] = &preset.ladder(&cohorts).stages[..] else { panic!("two") };
            let Gate::Trial(terms) = &general.gate else { panic!("no trial") };
            assert_eq!((early.bake_s, general.bake_s), (general.floor_s, general.floor_s));
            let slots = |slots: u32| u64::from(slots) * terms.slot_s.0 / H;
            (general.floor_s.0, terms.slot_s.0, slots(terms.open_at), slots(terms.soak))
        };
        let told = [
            (24 * H, H, 64, 38),
            (4 * H, H / 3, 21, 12),
            (H / 4, H / 12, 5, 3),
            (8 * H, H / 2, 32, 24),
        ];
        assert_eq!(Preset::ALL.map(times), told);
    }

    #[test]
    fn a_misspelt_field_anywhere_is_refused() {
        let explicit = explicit(GATE);
        let plan = ReleasePlan::from_toml(&explicit).expect("a plan");
        plan.ladder.ladder(None).expect("explicit").check().expect("it holds");
        for (text, field) in [
            (PLAN.replace("notes", "note"), "note"),
            (PLAN.replace("attempts = 3", "attempts = 3\nretries = 3"), "trial.retries"),
            (explicit.replace("bake_s", "ceiling_ppn = 5\nbake_s"), "ladder.stages.ceiling_ppn"),
            (PLAN.replace("\"routine\"", "\"rutine\""), "rutine"),
        ] {
            let error = ReleasePlan::from_toml(&text).expect_err(field).to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    const GATE: &str = "gate = { first_devices = 5, growth = 3, min_devices = 3, small_stage = 10, max_failure_ppm = 20000, confidence_ppm = 950000, silence_after_s = 60 }\n";

    /// A plan with a ladder of its own, of one stage that is judged like this.
    fn explicit(gate: &str) -> String {
        let stage = "[[ladder.stages]]\ncohort = \"general\"\nfloor_s = 0\nbake_s = 60\n";
        format!("{}\n{stage}{gate}", PLAN.replace("ladder = \"routine\"", ""))
    }
}
