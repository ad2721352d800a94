//! The evidence of one rollout: what verified letters said about each device, counted by cohort and by
//! group. It counts and judges nothing; [`super::gate`] judges.
//!
//! ```text
//!             treated            an outcome
//!   Waiting ----------> Treated ------------> Confirmed | RolledBack | Failed | Inconclusive
//!                        |   ^
//!                 silence|   |speaks again
//!                        v   |
//!                       Silent
//!   any but Confirmed and RolledBack -- an outcome got lost --> Lost (stays)
//!   Failed, Inconclusive -- tried again, a later outcome --> that outcome
//!   any -- went back --> RolledBack (stays)
//! ```
//!
//! Devices that enrolled after the start are remembered but never counted: whoever wants to outvote
//! the sick by enrolling phantoms has to do it before anybody knows of the rollout.

use std::collections::{BTreeMap, BTreeSet};

use lockgate_shared::{
    bucket::{Bucket, Limit},
    id::{CohortId, DeviceId, GroupId},
    time::Seconds,
    wire::OutcomeKind,
};
use serde::{Deserialize, Serialize};

/// Everything known of one rollout's devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    cases: BTreeMap<DeviceId, Case>,
    cohorts: BTreeMap<CohortId, Tally>,
    groups: BTreeMap<GroupId, GroupTally>,
    treated: BTreeSet<DeviceId>,
}

/// One device in one rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Its cohort, as its first letter said.
    pub cohort: CohortId,
    /// Its bucket.
    pub bucket: Bucket,
    /// Its groups, as its first letter said.
    pub groups: Vec<GroupId>,
    /// Whether it counts.
    pub standing: Standing,
    /// How it fares.
    pub health: Health,
    /// Whether people lifted a halt that this device's harm had been part of.
    pub forgiven: bool,
}

/// Whether a device is evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// It enrolled before the start.
    Counts,
    /// It enrolled after the start.
    Newcomer,
}

/// How a device fares in a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Health {
    /// It has not begun.
    Waiting,
    /// It began, and nothing is known of the end.
    Treated,
    /// It began and said nothing for too long.
    Silent,
    /// It had an outcome that never arrived: somebody keeps news back.
    Lost,
    /// It keeps the new release.
    Confirmed,
    /// It went back.
    RolledBack,
    /// It came to nothing before activation.
    Failed,
    /// Nobody knows.
    Inconclusive,
}

/// Counters of one cohort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Devices whose first letter was counted.
    pub devices: u32,
    /// Devices that began.
    pub treated: u32,
    /// Of these, devices that keep the release.
    pub confirmed: u32,
    /// Devices that went back.
    pub rolled_back: u32,
    /// Devices that came to nothing before activation.
    pub failed: u32,
    /// Devices of which nobody knows.
    pub inconclusive: u32,
    /// Devices that said nothing for too long, or whose outcome got lost.
    pub silent: u32,
    /// Devices that went back or fell silent and were forgiven by a lift.
    pub forgiven: u32,
}

/// Counters of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupTally {
    /// Devices that began.
    pub treated: u32,
    /// Of these, devices that keep the release.
    pub confirmed: u32,
    /// Devices that went back or fell silent.
    pub harmed: u32,
}

/// What a device's letter says of itself in a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its cohort.
    pub cohort: CohortId,
    /// Its bucket, computed and not believed.
    pub bucket: Bucket,
    /// Its groups; empty once a letter with them was acknowledged.
    pub groups: Vec<GroupId>,
    /// Whether it counts.
    pub standing: Standing,
}

/// What came of a sighting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// The first letter that names this rollout: the device waits until a file says that it was
    /// counted.
    First,
    /// Known, and the same as before.
    Known,
    /// Known as something else; what was known first stays.
    Contradiction(&'static str),
}

/// When silence is judged.
pub struct Silence<'a> {
    /// How much had been listened when a verified letter of the device last came.
    pub heard_at: &'a dyn Fn(&DeviceId) -> Option<Seconds>,
    /// How long a device of each cohort may be silent.
    pub after: &'a BTreeMap<CohortId, Seconds>,
    /// How long the gatekeeper has listened in all: nobody is silent to the deaf, and a break in the
    /// stream forgives nobody the silence before it.
    pub listened: Seconds,
}

impl Health {
    /// Whether the release harmed the device, as far as anybody can tell.
    pub const fn is_harm(self) -> bool {
        match self {
            Self::Silent | Self::Lost | Self::RolledBack => true,
            Self::Waiting | Self::Treated | Self::Confirmed | Self::Failed | Self::Inconclusive => {
                false
            }
        }
    }
}

impl Tally {
    /// Harmed devices that no lift has forgiven.
    pub const fn harmed(&self) -> u32 {
        (self.rolled_back + self.silent).saturating_sub(self.forgiven)
    }

    /// Devices whose health is known and counts: confirmed, or harmed and not forgiven.
    pub const fn judged(&self) -> u32 {
        self.confirmed + self.harmed()
    }

    /// Devices that began and are still at it.
    pub const fn pending(&self) -> u32 {
        self.treated.saturating_sub(
            self.confirmed + self.rolled_back + self.failed + self.inconclusive + self.silent,
        )
    }
}

impl Evidence {
    /// Evidence from the cases that a store kept.
    pub fn of_cases(cases: impl IntoIterator<Item = (DeviceId, Case)>) -> Self {
        let mut evidence = Self::default();
        for (device, case) in cases {
            evidence.count(device, &case, Sign::Plus);
            evidence.cases.insert(device, case);
        }
        evidence
    }

    /// Takes in what a letter says of the device in this rollout.
    pub fn meet(&mut self, device: DeviceId, sighting: Sighting) -> Meeting {
        if let Some(known) = self.cases.get(&device) {
            return if known.cohort != sighting.cohort {
                Meeting::Contradiction("its cohort is another than before")
            } else if !sighting.groups.is_empty() && known.groups != sighting.groups {
                Meeting::Contradiction("its groups are others than before")
            } else {
                Meeting::Known
            };
        }
        let case = Case {
            cohort: sighting.cohort,
            bucket: sighting.bucket,
            groups: sighting.groups,
            standing: sighting.standing,
            health: Health::Waiting,
            forgiven: false,
        };
        self.count(device, &case, Sign::Plus);
        self.cases.insert(device, case);
        Meeting::First
    }

    /// The device spoke; `treated` says whether it has begun. Returns whether anything changed. Once it
    /// came to an end, only another outcome changes that: a device goes on calling itself treated.
    pub fn speak(&mut self, device: DeviceId, treated: bool) -> bool {
        self.change(device, |health| match health {
            Health::Waiting if treated => Health::Treated,
            Health::Silent => Health::Treated,
            Health::Waiting
            | Health::Treated
            | Health::Lost
            | Health::Confirmed
            | Health::RolledBack
            | Health::Failed
            | Health::Inconclusive => health,
        })
    }

    /// A letter that came late says that the device began. Returns whether anything changed. It ends no
    /// silence: somebody may have kept it back while the device died.
    pub fn begin(&mut self, device: DeviceId) -> bool {
        self.change(device, |health| match health {
            Health::Waiting => Health::Treated,
            Health::Treated
            | Health::Silent
            | Health::Lost
            | Health::Confirmed
            | Health::RolledBack
            | Health::Failed
            | Health::Inconclusive => health,
        })
    }

    /// The device reported an outcome. Returns whether anything changed. What a device once kept can
    /// still go back; what went back stays harm, whatever follows.
    pub fn conclude(&mut self, device: DeviceId, kind: OutcomeKind) -> bool {
        self.change(device, |health| match (health, kind) {
            (_, OutcomeKind::RolledBack) => Health::RolledBack,
            (Health::RolledBack | Health::Lost | Health::Confirmed, _) => health,
            (_, OutcomeKind::Confirmed) => Health::Confirmed,
            (_, OutcomeKind::Failed) => Health::Failed,
            (_, OutcomeKind::Inconclusive) => Health::Inconclusive,
        })
    }

    /// An outcome of the device never arrived. Returns whether anything changed.
    pub fn lose(&mut self, device: DeviceId) -> bool {
        self.change(device, |health| match health {
            Health::Confirmed | Health::RolledBack => health,
            Health::Waiting
            | Health::Treated
            | Health::Silent
            | Health::Lost
            | Health::Failed
            | Health::Inconclusive => Health::Lost,
        })
    }

    /// Treated devices that were not heard for too long.
    pub fn overdue(&self, silence: &Silence<'_>) -> Vec<DeviceId> {
        self.treated
            .iter()
            .filter(|device| {
                let Some(case) = self.cases.get(device) else { return false };
                let Some(after) = silence.after.get(&case.cohort) else { return false };
                let heard = (silence.heard_at)(device).unwrap_or(silence.listened);
                silence.listened.0.saturating_sub(heard.0) >= after.0
            })
            .copied()
            .collect()
    }

    /// Counts treated devices as silent.
    pub fn fall_silent(&mut self, devices: &[DeviceId]) {
        for device in devices {
            self.change(*device, |health| match health {
                Health::Treated => Health::Silent,
                Health::Waiting
                | Health::Silent
                | Health::Lost
                | Health::Confirmed
                | Health::RolledBack
                | Health::Failed
                | Health::Inconclusive => health,
            });
        }
    }

    /// People lifted a halt: harm known by now halts no more. Names the devices it was about.
    pub fn forgive(&mut self) -> Vec<DeviceId> {
        let harmed: Vec<DeviceId> = self
            .cases
            .iter()
            .filter(|(_, case)| case.health.is_harm() && !case.forgiven)
            .map(|(device, _)| *device)
            .collect();
        for device in &harmed {
            if let Some(mut case) = self.cases.get(device).cloned() {
                self.count(*device, &case, Sign::Minus);
                case.forgiven = true;
                self.count(*device, &case, Sign::Plus);
                self.cases.insert(*device, case);
            }
        }
        harmed
    }

    /// One device's case.
    pub fn case(&self, device: &DeviceId) -> Option<&Case> {
        self.cases.get(device)
    }

    /// Every case.
    pub fn cases(&self) -> impl Iterator<Item = (&DeviceId, &Case)> {
        self.cases.iter()
    }

    /// A cohort's counters.
    pub fn tally(&self, cohort: &CohortId) -> Tally {
        self.cohorts.get(cohort).copied().unwrap_or_default()
    }

    /// Every group's counters.
    pub const fn groups(&self) -> &BTreeMap<GroupId, GroupTally> {
        &self.groups
    }

    /// The sorted buckets of a cohort's devices that count and whose first letter is in.
    pub fn buckets(&self, cohort: &CohortId) -> Vec<Bucket> {
        let mut buckets: Vec<Bucket> = self.counted(cohort).map(|(_, case)| case.bucket).collect();
        buckets.sort_unstable();
        buckets
    }

    /// How many of a cohort's devices that count lie below `limit` and have not begun.
    pub fn idle(&self, cohort: &CohortId, limit: Limit) -> u32 {
        let idle = self
            .counted(cohort)
            .filter(|(_, case)| case.health == Health::Waiting && limit.admits(case.bucket))
            .count();
        u32::try_from(idle).unwrap_or(u32::MAX)
    }

    /// The harmed and unforgiven devices of a cohort.
    pub fn harmed<'a>(&'a self, cohort: &'a CohortId) -> impl Iterator<Item = &'a Case> {
        self.counted(cohort)
            .map(|(_, case)| case)
            .filter(|case| case.health.is_harm() && !case.forgiven)
    }

    fn counted<'a>(
        &'a self,
        cohort: &'a CohortId,
    ) -> impl Iterator<Item = (&'a DeviceId, &'a Case)> {
        self.cases
            .iter()
            .filter(move |(_, case)| case.standing == Standing::Counts && case.cohort == *cohort)
    }

    fn change(&mut self, device: DeviceId, next: impl FnOnce(Health) -> Health) -> bool {
        let Some(mut case) = self.cases.get(&device).cloned() else { return false };
        let health = next(case.health);
        if health == case.health {
            return false;
        }
        self.count(device, &case, Sign::Minus);
        // Forgiveness is for the harm that people looked at, not for the next one.
        case.forgiven = case.forgiven && health.is_harm() && case.health.is_harm();
        case.health = health;
        self.count(device, &case, Sign::Plus);
        self.cases.insert(device, case);
        true
    }

    /// Adds a case to every counter it belongs to, or takes it away: as many steps as it has groups.
    fn count(&mut self, device: DeviceId, case: &Case, sign: Sign) {
        if case.health == Health::Treated && sign == Sign::Plus {
            self.treated.insert(device);
        } else {
            self.treated.remove(&device);
        }
        if case.standing == Standing::Newcomer {
            return;
        }
        let tally = self.cohorts.entry(case.cohort.clone()).or_default();
        sign.apply(&mut tally.devices);
        if case.health != Health::Waiting {
            sign.apply(&mut tally.treated);
        }
        if case.forgiven && case.health.is_harm() {
            sign.apply(&mut tally.forgiven);
        }
        match case.health {
            Health::Waiting | Health::Treated => {}
            Health::Silent | Health::Lost => sign.apply(&mut tally.silent),
            Health::Confirmed => sign.apply(&mut tally.confirmed),
            Health::RolledBack => sign.apply(&mut tally.rolled_back),
            Health::Failed => sign.apply(&mut tally.failed),
            Health::Inconclusive => sign.apply(&mut tally.inconclusive),
        }
        if case.health == Health::Waiting {
            return;
        }
        for group in &case.groups {
            let tally = self.groups.entry(*group).or_default();
            sign.apply(&mut tally.treated);
            if case.health == Health::Confirmed {
                sign.apply(&mut tally.confirmed);
            }
            if case.health.is_harm() {
                sign.apply(&mut tally.harmed);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

impl Sign {
    const fn apply(self, counter: &mut u32) {
        match self {
            Self::Plus => *counter = counter.saturating_add(1),
            Self::Minus => *counter = counter.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_device_that_enrolled_after_the_start_is_no_evidence() {
        let mut evidence = Evidence::default();
        evidence.meet(device(1), sighting(Standing::Newcomer));
        evidence.conclude(device(1), OutcomeKind::RolledBack);
        assert_eq!(evidence.tally(&cohort()), Tally::default());
        assert!(evidence.groups().is_empty());
    }

    #[test]
    fn silence_is_measured_in_listened_time_and_ends_when_the_device_speaks() {
        let mut evidence = Evidence::default();
        evidence.meet(device(1), sighting(Standing::Counts));
        evidence.speak(device(1), true);
        let after = [(cohort(), Seconds(100))].into();
        let judge = |evidence: &mut Evidence, listened: u64| {
            let silence = Silence {
                heard_at: &|_| Some(Seconds(1000)),
                after: &after,
                listened: Seconds(listened),
            };
            let silent = evidence.overdue(&silence);
            evidence.fall_silent(&silent);
            silent.len()
        };
        assert_eq!(judge(&mut evidence, 900), 0, "a restart may have forgotten the last minutes");
        assert_eq!(judge(&mut evidence, 1099), 0);
        assert_eq!(judge(&mut evidence, 1100), 1);
        assert!(!evidence.begin(device(1)), "a letter that was kept back ends no silence");
        assert_eq!(evidence.tally(&cohort()).harmed(), 1);
        evidence.speak(device(1), true);
        assert_eq!(evidence.tally(&cohort()).harmed(), 0);
        evidence.conclude(device(1), OutcomeKind::Confirmed);
        assert_eq!(evidence.tally(&cohort()).confirmed, 1);
    }

    #[test]
    fn what_went_back_stays_harm_until_people_forgive_and_new_harm_counts_again() {
        let mut evidence = Evidence::default();
        for number in 1..=2 {
            evidence.meet(device(number), sighting(Standing::Counts));
        }
        evidence.conclude(device(1), OutcomeKind::RolledBack);
        evidence.conclude(device(1), OutcomeKind::Confirmed);
        assert_eq!(evidence.tally(&cohort()).harmed(), 1);
        assert_eq!(evidence.forgive(), [device(1)]);
        assert_eq!(evidence.tally(&cohort()).harmed(), 0);
        evidence.lose(device(2));
        // Whoever keeps one outcome back could have the next one brought.
        evidence.conclude(device(2), OutcomeKind::Confirmed);
        assert_eq!(evidence.tally(&cohort()).harmed(), 1);
        assert_eq!(evidence.forgive(), [device(2)]);
    }

    #[test]
    fn a_second_story_about_groups_or_cohort_is_a_contradiction() {
        let mut evidence = Evidence::default();
        assert_eq!(evidence.meet(device(1), sighting(Standing::Counts)), Meeting::First);
        let silent = Sighting { groups: Vec::new(), ..sighting(Standing::Counts) };
        assert_eq!(evidence.meet(device(1), silent), Meeting::Known);
        let other = Sighting { groups: vec![GroupId([9; 8])], ..sighting(Standing::Counts) };
        assert!(matches!(evidence.meet(device(1), other), Meeting::Contradiction(_)));
    }

    proptest! {
        #[test]
        fn counters_are_always_what_a_recount_of_the_cases_gives(
            events in prop::collection::vec((0u8..6, 0u8..8), 0..60),
        ) {
            let mut evidence = Evidence::default();
            for (number, event) in events {
                let device = device(number);
                let standing = if number == 5 { Standing::Newcomer } else { Standing::Counts };
                match event {
                    0 => drop(evidence.meet(device, sighting(standing))),
                    1 => drop(evidence.speak(device, true)),
                    2 => drop(evidence.conclude(device, OutcomeKind::Confirmed)),
                    3 => drop(evidence.conclude(device, OutcomeKind::RolledBack)),
                    4 => drop(evidence.conclude(device, OutcomeKind::Failed)),
                    5 => drop(evidence.lose(device)),
                    6 => drop(evidence.forgive()),
                    _ => drop(evidence.speak(device, false)),
                }
            }
            let tally = evidence.tally(&cohort());
            let count = |what: &dyn Fn(&Case) -> bool| {
                let found = evidence
                    .cases()
                    .filter(|(_, case)| case.standing == Standing::Counts && what(case))
                    .count();
                u32::try_from(found).expect("few")
            };
            prop_assert_eq!(tally.devices, count(&|_| true));
            prop_assert_eq!(tally.treated, count(&|case| case.health != Health::Waiting));
            prop_assert_eq!(tally.harmed(), count(&|case| case.health.is_harm() && !case.forgiven));
            prop_assert_eq!(tally.pending(), count(&|case| case.health == Health::Treated));
            let again = Evidence::of_cases(evidence.cases().map(|(d, c)| (*d, c.clone())));
            prop_assert_eq!(again.tally(&cohort()), tally);
        }
    }

    fn device(number: u8) -> DeviceId {
        DeviceId([number; 32])
    }

    fn cohort() -> CohortId {
        "dogfood".parse().expect("a name of this test")
    }

    fn sighting(standing: Standing) -> Sighting {
        Sighting { cohort: cohort(), bucket: Bucket(7), groups: vec![GroupId([1; 8])], standing }
    }
}
