//! What is dangerous about a ladder: too many devices at once, too little time, evidence that cannot
//! come. Each finding names the number and what would mend it.
//!
//! Where the fleet is not known it says what is dangerous in any; it refuses nothing.

use std::collections::BTreeMap;

use lockgate_shared::{
    count::count,
    id::CohortId,
    manifest::{Gate, GateRule, Ladder, Severity, Stage, StageApproval, Trial},
    terms::TrialTerms,
    time::Seconds,
};

use super::{Code, Finding};

/// Whoever withholds a stop gains the timestamp's age: more than this is worth a thought.
const LONG_TIMESTAMP: Seconds = Seconds(6 * 3_600);
/// The longest habit: whoever works by day is seen once in it.
const DAY: Seconds = Seconds(86_400);
/// From so many devices on comparison teaches something, and below it nothing. Simulated: of 1,000 devices
/// silence takes a tenth before it is seen, and of 50 nothing is learnt from controls.
const COMPARED: u32 = 50;
/// Devices at once without knowing how many there are: few enough to visit by hand.
const FIRST: u32 = 20;
/// Of a cohort that is known, one in so many at once.
const FIRST_ONE_IN: u32 = 10;
/// More for each healthy device than this, and one lucky device opens the stage.
const GROWTH: u32 = 10;
/// Failures that harm more devices than any release is worth: one in twenty.
const FAILURES_PPM: u32 = 50_000;
/// A bound less sure than this is a guess.
const CONFIDENCE_PPM: u32 = 800_000;
/// Polls that a device may miss before its silence means something: a restart, and a lost letter. A bake
/// of fewer is over before most devices have polled.
const MISSED_POLLS: u64 = 3;
/// Fewer controls than this, and a silence of one device in ten is not seen.
const HOLD_BACK_PPM: u32 = 20_000;
/// Groups that one named device covers: measured, 180 devices covered 470 groups.
const GROUPS_PER_NAME: f64 = 2.6;
/// Names below which a fleet of a few hundred groups, which is usual, is not covered.
const NAMES: u32 = 100;
/// One good release in twenty: more, and people learn to lift holds unread.
const FALSE_HOLD_PPM: u32 = 50_000;
/// Groups larger than this without a proof of their own are models, not odds and ends.
const GROUP_LEAST: u32 = 50;
/// A ramp that may more than double in a slot outruns its own reports.
const RAMP_GROWTH: u32 = 100;
/// Slots of soak below which a crash loop of some hours is missed.
const SOAK: u32 = 12;

/// What is known of the fleet beside the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// How often devices poll; five minutes unless the server says otherwise.
    pub polls: Option<Seconds>,
    /// Devices of cohorts, as far as they are known.
    pub devices: BTreeMap<CohortId, u32>,
    /// Groups of cohorts that have a limit of their own, as far as they are known.
    pub groups: BTreeMap<CohortId, u32>,
}

/// The polls where nobody says otherwise.
const POLLS: Seconds = Seconds(300);

/// What is dangerous about a ladder for a release of this severity and trial.
pub(super) fn ladder(
    ladder: &Ladder,
    severity: &Severity,
    trial: &Trial,
    around: &Around,
    found: &mut Vec<Finding>,
) {
    whole(ladder, severity, found);
    let last = ladder.stages.len().saturating_sub(1);
    for (index, stage) in ladder.stages.iter().enumerate() {
        let place = Place {
            stage,
            position: if index == last { Position::Last } else { Position::Earlier },
            hurry: match severity {
                Severity::Routine => Hurry::None,
                Severity::Security { .. } => Hurry::Security,
            },
            polls: around.polls.unwrap_or(POLLS),
            devices: around.devices.get(&stage.cohort).copied(),
            groups: around.groups.get(&stage.cohort).copied(),
        };
        place.times(found);
        match &stage.gate {
            Gate::Count(rule) => place.count(rule, found),
            Gate::Trial(terms) => {
                place.trial(terms, found);
                place.trial_times(terms, trial, found);
            }
        }
    }
}

fn whole(ladder: &Ladder, severity: &Severity, found: &mut Vec<Finding>) {
    if ladder.stages.len() == 1 {
        found.push(Finding::of(
            Code::OneStage,
            "the ladder has one stage: everybody is in the first group".into(),
            "give a few devices that you can reach a cohort before it",
        ));
    }
    if ladder.timestamp_max_age_s > LONG_TIMESTAMP {
        found.push(Finding::of(
            Code::OldTimestamps,
            format!(
                "`timestamp_max_age_s` is {}: so long can a stop be withheld",
                ladder.timestamp_max_age_s
            ),
            "an hour is usual",
        ));
    }
    let later = ladder.stages.iter().skip(1);
    for stage in later.filter(|stage| stage.floor_s.0 == 0) {
        found.push(Finding::of(
            Code::NoFloor,
            format!("stage `{}` has a floor of 0 s: nobody has time to say stop", stage.cohort),
            "even in an emergency 900 s let somebody look at the stage before it",
        ));
    }
    let asked = ladder.stages.iter().skip(1).any(|s| s.approval == StageApproval::Required);
    if matches!(severity, Severity::Security { .. }) && ladder.stages.len() > 1 && !asked {
        found.push(Finding::of(
            Code::NoApproval,
            "it is a security release, made in haste, and 0 of its stages ask for approval".into(),
            "`approval = \"required\"` on the last stage makes a person look first",
        ));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Earlier,
    Last,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hurry {
    None,
    Security,
}

/// A stage, and what is known around it.
struct Place<'a> {
    stage: &'a Stage,
    position: Position,
    hurry: Hurry,
    polls: Seconds,
    devices: Option<u32>,
    groups: Option<u32>,
}

impl Place<'_> {
    fn found(&self, code: Code, what: &str, mend: &str) -> Finding {
        Finding::of(code, format!("stage `{}` {what}", self.stage.cohort), mend)
    }

    const fn missed_polls(&self) -> Seconds {
        Seconds(self.polls.0.saturating_mul(MISSED_POLLS))
    }

    fn times(&self, found: &mut Vec<Finding>) {
        let bake = self.stage.bake_s;
        let least = self.missed_polls();
        if bake < least {
            found.push(self.found(
                Code::ShortBake,
                &format!(
                    "bakes for {bake}, and devices poll every {}: most have not polled by then",
                    self.polls
                ),
                &format!("three polls, {least}, are the least"),
            ));
        } else if bake < DAY && self.position == Position::Earlier && self.hurry == Hurry::None {
            found.push(self.found(
                Code::BakeBelowADay,
                &format!(
                    "bakes for {bake}: who is on by day or by night only is not heard by then"
                ),
                "86400 s see every habit once",
            ));
        }
    }

    /// Devices let in before anything was learnt.
    fn at_once(&self, first: u32, found: &mut Vec<Finding>) {
        let (much, of) = match self.devices {
            Some(all) => {
                let few = 5.max(all / FIRST_ONE_IN);
                (first > few && all > 5, format!(" of {all}"))
            }
            None => (first > FIRST, String::new()),
        };
        if much {
            found.push(self.found(
                Code::ManyAtOnce,
                &format!("lets in {first}{of} devices before anything was learnt"),
                "`first_devices = 5` notices what harms everybody",
            ));
        }
    }

    fn count(&self, rule: &GateRule, found: &mut Vec<Finding>) {
        self.at_once(rule.first_devices, found);
        let large = self.devices.is_none_or(|devices| devices > COMPARED);
        if self.position == Position::Last && large {
            let who = self.devices.map_or_else(
                || format!("counts, whether or not it has more than {COMPARED} devices"),
                |devices| format!("counts its {devices} devices"),
            );
            found.push(self.found(
                Code::LastStageCounts,
                &format!("{who}: it sees neither a bad model among good ones nor what silence is usual"),
                "`[ladder.stages.trial]` in place of `gate` compares devices and holds single groups",
            ));
        }
        if rule.growth > GROWTH {
            found.push(self.found(
                Code::FastGrowth,
                &format!(
                    "lets in {} more for each healthy device: one device opens it",
                    rule.growth
                ),
                "`growth = 3` takes four rounds to a hundred devices",
            ));
        }
        if rule.max_failure_ppm > FAILURES_PPM {
            let percent = f64::from(rule.max_failure_ppm) / 10_000.0;
            found.push(self.found(
                Code::ManyFailures,
                &format!("bears failures of {percent} %"),
                "`max_failure_ppm = 20000` is two in a hundred; usual is a third of one",
            ));
        }
        if rule.confidence_ppm < CONFIDENCE_PPM {
            let percent = f64::from(rule.confidence_ppm) / 10_000.0;
            found.push(self.found(
                Code::LowConfidence,
                &format!("is content with a bound that holds with {percent} %"),
                "`confidence_ppm = 950000` is usual",
            ));
        }
        if rule.silence_after_s < self.missed_polls() {
            found.push(self.found(
                Code::ImpatientSilence,
                &format!(
                    "calls a device silent after {}, and devices poll every {}",
                    rule.silence_after_s, self.polls
                ),
                "bear three missed polls at least, or a restart halts a good release",
            ));
        }
        if rule.min_devices == 1 && self.devices.is_none_or(|devices| devices > 5) {
            found.push(self.found(
                Code::OneDevice,
                "opens the next one when 1 device is well",
                "`min_devices` of 3 or more, as far as the cohort has them",
            ));
        }
    }

    fn trial(&self, terms: &TrialTerms, found: &mut Vec<Finding>) {
        self.at_once(terms.first_devices, found);
        if let Some(devices) = self.devices.filter(|devices| *devices < COMPARED) {
            found.push(self.found(
                Code::SmallTrial,
                &format!(
                    "compares {}: nothing is learnt from so few",
                    count(devices, "device", "devices")
                ),
                "`[ladder.stages.gate]` in place of `trial` counts them",
            ));
        }
        if terms.hold_back_ppm < HOLD_BACK_PPM || terms.open_at == terms.ramp_to {
            let percent = f64::from(terms.hold_back_ppm) / 10_000.0;
            let slots = terms.open_at - terms.ramp_to.min(terms.open_at);
            found.push(self.found(
                Code::NoHoldBack,
                &format!("keeps {percent} % back for {}: silence at the end of the ramp is compared with nobody", count(slots, "slot", "slots")),
                "`hold_back_ppm = 100000` and `open_at` four slots after `ramp_to` are usual",
            ));
        }
        self.names(terms, found);
        if terms.false_hold_ppm > FALSE_HOLD_PPM {
            let percent = f64::from(terms.false_hold_ppm) / 10_000.0;
            found.push(self.found(
                Code::FalseHolds,
                &format!("holds a good release in {percent} % of rollouts: people learn to lift holds unread"),
                "`false_hold_ppm = 5000` is one in two hundred",
            ));
        }
        if terms.group_least > GROUP_LEAST {
            found.push(self.found(
                Code::UnguardedGroups,
                &format!(
                    "lets groups of fewer than {} devices follow the others unproven",
                    terms.group_least
                ),
                "`group_least = 15` is usual",
            ));
        }
        if terms.ramp_growth_percent > RAMP_GROWTH {
            found.push(self.found(
                Code::FastGrowth,
                &format!(
                    "may grow by {} % in a slot: faster than its devices report",
                    terms.ramp_growth_percent
                ),
                "`ramp_growth_percent = 25` is usual",
            ));
        }
    }

    fn names(&self, terms: &TrialTerms, found: &mut Vec<Finding>) {
        let names = terms.coverage - terms.spare.min(terms.coverage);
        let covered = (f64::from(names) * GROUPS_PER_NAME) as u32;
        let (few, groups) = match self.groups {
            Some(groups) => (groups > covered, format!("there are {groups}")),
            None => (names < NAMES, "a fleet has some hundreds".to_owned()),
        };
        if few {
            found.push(self.found(
                Code::FewNames,
                &format!("names {names} devices, which cover about {covered} groups, and {groups}"),
                "raise `coverage` and `coverage_max`, or some models are first met by the ramp",
            ));
        }
    }

    fn trial_times(&self, terms: &TrialTerms, trial: &Trial, found: &mut Vec<Finding>) {
        let slot = terms.slot_s;
        if slot < self.polls {
            found.push(self.found(
                Code::ShortSlots,
                &format!("has slots of {slot}, and devices poll every {}: in most slots nobody can be heard", self.polls),
                "a slot is no shorter than a poll",
            ));
        }
        if trial.deadline_s > slot {
            found.push(self.found(
                Code::LongDeadline,
                &format!("has slots of {slot}, and a device's trial lasts up to {}: it is judged silent while it is still at it", trial.deadline_s),
                "shorten `deadline_s`, or lengthen `slot_s` to as much",
            ));
        }
        let soak = Seconds(u64::from(terms.soak) * slot.0);
        if terms.soak < SOAK || soak < DAY && self.hurry == Hurry::None {
            let slots = count(terms.soak, "slot", "slots");
            found.push(self.found(
                Code::ShortTrialSoak,
                &format!("calls a device soaked after {slots}, {soak}: what breaks with the next day is missed"),
                "a soak of a day sees every habit once; less than 12 slots sees no crash loop",
            ));
        }
    }
}
