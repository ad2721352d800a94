//! How far a stage is open: exposure is earned, counted in devices and never taken back.
//!
//! `k = first_devices + growth × confirmed + passed over` devices may be let in. Passed over are those
//! that took a place and will not use it: they failed before activation, nobody knows how they fared,
//! a lift forgave them, or they had their chance for as long as silence is borne and did not begin
//! (a pin, a closed window, a device that is off). Without that, one pinned device in the first place
//! would keep a whole fleet waiting.
//!
//! The limit lies just above the bucket of the k-th device whose first letter is in. Devices that are
//! still unheard of take places too, by the share of buckets below the limit, so that the first three
//! that happen to call do not open the stage for hundreds that call later.

use lockgate_shared::{
    bucket::{Bucket, Limit},
    manifest::GateRule,
};

use super::evidence::Tally;

/// The devices of a stage's cohort that count as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cohort<'a> {
    /// The sorted buckets of those whose first letter is in.
    pub known: &'a [Bucket],
    /// How many there are, heard or not.
    pub size: u32,
    /// How many are expected to call and have not.
    pub unheard: u32,
}

/// How many devices may be let in. `idle` are those that had their chance and did not begin.
pub const fn allowed(rule: &GateRule, tally: &Tally, idle: u32) -> u32 {
    rule.first_devices
        .saturating_add(rule.growth.saturating_mul(tally.confirmed))
        .saturating_add(tally.failed)
        .saturating_add(tally.inconclusive)
        .saturating_add(tally.forgiven)
        .saturating_add(idle)
}

/// The limit that lets in `allowed` devices of the cohort, never above the ceiling, never below
/// `before`. The ceiling itself (everybody, for a million) when no more than `allowed` lie below it.
pub fn limit(allowed: u32, cohort: &Cohort<'_>, ceiling_ppm: u32, before: Limit) -> Limit {
    let ceiling = Limit::of_share_ppm(ceiling_ppm);
    let heard_all = cohort.known.len() >= cohort.size as usize;
    let earned_all =
        u64::from(allowed) * 1_000_000 >= u64::from(cohort.size) * u64::from(ceiling_ppm);
    if (heard_all || earned_all) && cohort.exposure(ceiling) <= u64::from(allowed) {
        return ceiling;
    }
    let most = cohort.known.len().min(allowed as usize);
    let earned = cohort.known[..most]
        .iter()
        .rev()
        // The highest value means everybody, and this is not everybody.
        .map(|bucket| Limit::just_above(*bucket).min(Limit(u32::MAX - 1)))
        .find(|limit| *limit <= ceiling && cohort.exposure(*limit) <= u64::from(allowed))
        .unwrap_or(Limit::NOBODY);
    before.max(earned)
}

/// How many of the sorted buckets a limit lets in.
pub fn authorised(known: &[Bucket], limit: Limit) -> u32 {
    let inside = known.partition_point(|bucket| limit.admits(*bucket));
    u32::try_from(inside).unwrap_or(u32::MAX)
}

impl Cohort<'_> {
    /// Devices below a limit: those heard of, and the share of the others, rounded down.
    fn exposure(&self, limit: Limit) -> u64 {
        let heard = u64::from(authorised(self.known, limit));
        heard + u64::from(self.unheard) * u64::from(limit.share_ppm()) / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exactly_as_many_are_let_in_as_were_earned(
            known in buckets(),
            allowed in 1u32..60,
        ) {
            let cohort = all_heard(&known);
            let limit = limit(allowed, &cohort, 1_000_000, Limit::NOBODY);
            let inside = known.iter().filter(|bucket| limit.admits(**bucket)).count();
            prop_assert_eq!(inside, known.len().min(allowed as usize));
            prop_assert_eq!(limit == Limit::EVERYBODY, allowed as usize >= known.len());
        }

        #[test]
        fn the_ceiling_is_never_exceeded_and_a_limit_never_shrinks(
            known in buckets(),
            steps in prop::collection::vec((0u32..80, 0u32..40), 1..12),
            ceiling in 1u32..=1_000_000,
        ) {
            let mut before = Limit::NOBODY;
            for (allowed, unheard) in steps {
                let size = u32::try_from(known.len()).expect("few") + unheard;
                let cohort = Cohort { known: &known, size, unheard };
                let next = limit(allowed, &cohort, ceiling, before);
                prop_assert!(next >= before);
                prop_assert!(next <= Limit::of_share_ppm(ceiling));
                before = next;
            }
        }

        #[test]
        fn no_more_than_earned_are_let_in_while_others_are_unheard_of(
            known in buckets(),
            unheard in 1u32..1000,
            allowed in 1u32..60,
        ) {
            let size = u32::try_from(known.len()).expect("few") + unheard;
            let cohort = Cohort { known: &known, size, unheard };
            let limit = limit(allowed, &cohort, 1_000_000, Limit::NOBODY);
            let inside = known.iter().filter(|bucket| limit.admits(**bucket)).count();
            prop_assert!(inside <= allowed as usize);
            if limit == Limit::EVERYBODY {
                prop_assert!(allowed >= size);
            } else {
                let share = u64::from(unheard) * u64::from(limit.share_ppm()) / 1_000_000;
                prop_assert!(inside as u64 + share <= u64::from(allowed));
            }
        }
    }

    #[test]
    fn the_first_caller_of_a_large_cohort_does_not_open_it() {
        let known = [Bucket(u32::MAX / 2)];
        let cohort = Cohort { known: &known, size: 1000, unheard: 999 };
        assert_eq!(limit(3, &cohort, 1_000_000, Limit::NOBODY), Limit::NOBODY);
        let few = Cohort { known: &known, size: 3, unheard: 2 };
        assert!(limit(2, &few, 1_000_000, Limit::NOBODY).admits(known[0]));
    }

    #[test]
    fn a_cohort_without_devices_is_open_at_once() {
        let cohort = Cohort { known: &[], size: 0, unheard: 0 };
        assert_eq!(limit(1, &cohort, 1_000_000, Limit::NOBODY), Limit::EVERYBODY);
        assert_eq!(limit(1, &cohort, 200_000, Limit::NOBODY), Limit::of_share_ppm(200_000));
    }

    fn all_heard(known: &[Bucket]) -> Cohort<'_> {
        Cohort { known, size: u32::try_from(known.len()).expect("few"), unheard: 0 }
    }

    fn buckets() -> impl Strategy<Value = Vec<Bucket>> {
        prop::collection::btree_set(0u32..u32::MAX - 1, 0..50)
            .prop_map(|set| set.into_iter().map(Bucket).collect())
    }
}
