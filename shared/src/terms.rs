//! The terms of a stage that is a randomised trial: every hour, count and share by which the gate lets
//! devices in and judges what it hears of them. They stand in the signed ladder, so that nobody who
//! holds the server can hurry. This module holds and bounds the values; the gatekeeper's `rollout::trial`
//! works by them.
//!
//! Times are numbers of *slots*, which last an hour unless [`TrialTerms::slot_s`] says otherwise. A slot
//! should be no shorter than the fleet's polls: in a slot in which nobody can be heard, silence says
//! nothing.

use serde::{Deserialize, Serialize};

use crate::time::Seconds;

/// What a stage's trial keeps to. What is left out is the routine preset's: everybody in four days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrialTerms {
    /// How long a slot is.
    pub slot_s: Seconds,
    /// The chance, in millionths, that a harmless release is ever held: shared out among its groups.
    pub false_hold_ppm: u32,
    /// Devices let in at once, before anything is known.
    pub first_devices: u32,
    /// Sentinels in all: at least so many …
    pub sentinels: u32,
    /// … or one device in so many.
    pub sentinel_one_in: u32,
    /// Slots that the first must live before the other sentinels follow.
    pub first_live: u32,
    /// Slots that two sentinels must live before the canary begins.
    pub sentinel_live: u32,
    /// When the canary begins.
    pub canary_from: u32,
    /// When it has its full size.
    pub canary_full: u32,
    /// Its size, in hundredths of the root of the number of devices.
    pub canary_roots_percent: u32,
    /// When the ramp begins.
    pub ramp_from: u32,
    /// When it has reached the hold-back.
    pub ramp_to: u32,
    /// While it lasts, at most this percentage of those that have begun is let in in a slot.
    pub ramp_growth_percent: u32,
    /// The share of devices, in millionths, kept back as controls until [`Self::open_at`].
    pub hold_back_ppm: u32,
    /// When everybody is let in.
    pub open_at: u32,
    /// Slots that half a crew of sentinels must live before the ramp begins.
    pub ramp_live: u32,
    /// From this slot on, when as many lived as long, devices beyond the canary's size are named for the
    /// groups that it left out.
    pub cover_from: u32,
    /// Healthy for so many slots means soaked.
    pub soak: u32,
    /// From this slot on the soak asked for falls, if it is longer than a day's …
    pub soak_falls_from: u32,
    /// … by so many slots in a slot …
    pub soak_falls_by: u32,
    /// … down to this …
    pub soak_day: u32,
    /// … until this slot, and from then on …
    pub soak_day_to: u32,
    /// … down to this.
    pub soak_least: u32,
    /// The smallest group with a limit of its own.
    pub group_least: u32,
    /// Groups with a limit of their own at most, the largest ones.
    pub guarded: u32,
    /// A group with a larger share of the stage's devices than this, in millionths, has none of its own.
    pub group_share_ppm: u32,
    /// Unresolved installs for each healthy one.
    pub growth: u32,
    /// The same in a group that has soaked.
    pub growth_soaked: u32,
    /// Unresolved installs in a group that has shown nothing yet.
    pub room_first: u32,
    /// The same from the end of the ramp on.
    pub room_last: u32,
    /// Unresolved installs in a group that has soaked.
    pub room_soaked: u32,
    /// A group grows no more while its evidence is within this factor of its threshold.
    pub near: u32,
    /// Slots for which a few surprises that no group explains are waited out, while nothing opens.
    pub patience: u32,
    /// Slots between two coverage draws for a group that has no live device.
    pub redraw: u32,
    /// Entries on the coverage list at most.
    pub coverage: u32,
    /// Of these, entries kept for groups whose devices went missing.
    pub spare: u32,
    /// Candidates of a coverage draw at most.
    pub candidates: u32,
    /// What silence is compared with: the lot's odds in hundredths, above 100 for what any install
    /// disturbs.
    pub tolerance_percent: u32,
    /// The share of devices, in millionths, that any install disturbs.
    pub disturbed_ppm: u32,
    /// Holds of groups that make a halt.
    pub holds: u32,
    /// The share of devices held, in millionths, that makes a halt.
    pub held_share_ppm: u32,
    /// Devices that must have confirmed before the next stage opens; a smaller cohort needs all of its
    /// that were let in.
    pub min_devices: u32,
}

/// The longest schedule, in slots: two weeks of hours.
pub const SLOTS: u32 = 336;

impl Default for TrialTerms {
    fn default() -> Self {
        Self {
            slot_s: Seconds(3_600),
            false_hold_ppm: 5_000,
            first_devices: 5,
            sentinels: 7,
            sentinel_one_in: 2_000,
            first_live: 3,
            sentinel_live: 8,
            canary_from: 10,
            canary_full: 22,
            canary_roots_percent: 65,
            ramp_from: 39,
            ramp_to: 60,
            ramp_growth_percent: 40,
            hold_back_ppm: 100_000,
            open_at: 64,
            ramp_live: 27,
            cover_from: 38,
            soak: 38,
            soak_falls_from: 60,
            soak_falls_by: 6,
            soak_day: 26,
            soak_day_to: 62,
            soak_least: 6,
            group_least: 15,
            guarded: 800,
            group_share_ppm: 150_000,
            growth: 3,
            growth_soaked: 6,
            room_first: 2,
            room_last: 4,
            room_soaked: 16,
            near: 25,
            patience: 12,
            redraw: 10,
            coverage: 300,
            spare: 20,
            candidates: 40,
            tolerance_percent: 110,
            disturbed_ppm: 500,
            holds: 12,
            held_share_ppm: 340_000,
            min_devices: 30,
        }
    }
}

impl TrialTerms {
    /// What is wrong with them, in a few words.
    pub fn problem(&self) -> Option<&'static str> {
        let schedule = [self.canary_from, self.canary_full, self.ramp_from, self.ramp_to];
        let shares = [self.hold_back_ppm, self.group_share_ppm, self.held_share_ppm];
        Some(if self.slot_s.0 == 0 {
            "`slot_s` must be above zero"
        } else if self.first_devices == 0 || self.min_devices == 0 {
            "`first_devices` and `min_devices` must be above zero: a stage opens on evidence"
        } else if self.sentinels < self.first_devices || self.sentinel_one_in == 0 {
            "`sentinels` must include `first_devices`, and `sentinel_one_in` be above zero"
        } else if !schedule.is_sorted() || self.ramp_from == self.ramp_to {
            "`canary_from`, `canary_full`, `ramp_from` and `ramp_to` must follow each other"
        } else if self.open_at < self.ramp_to || self.open_at > SLOTS {
            "`open_at` must not come before `ramp_to`, nor after 336 slots"
        } else if self.sentinel_live > self.canary_from || self.ramp_live > self.ramp_from {
            "nobody can live longer than the rollout: `sentinel_live`, `ramp_live`"
        } else if self.false_hold_ppm == 0 || self.false_hold_ppm > 100_000 {
            "`false_hold_ppm` must be 1 to 100000"
        } else if shares.iter().any(|share| *share == 0 || *share >= 1_000_000) {
            "`hold_back_ppm`, `group_share_ppm` and `held_share_ppm` must lie between 0 and 1000000"
        } else if self.canary_roots_percent == 0 || self.ramp_growth_percent == 0 {
            "`canary_roots_percent` and `ramp_growth_percent` must be above zero"
        } else if self.growth == 0 || self.growth_soaked == 0 || self.room_first == 0 {
            "`growth`, `growth_soaked` and `room_first` must be above zero, or nobody follows"
        } else if self.near == 0 || self.holds == 0 || self.candidates == 0 {
            "`near`, `holds` and `candidates` must be above zero"
        } else if self.soak_least > self.soak_day {
            "`soak_least` must not be longer than `soak_day`"
        } else if self.coverage < self.sentinels + self.spare {
            "`coverage` must hold the sentinels and what is spared: sentinels are let in by name"
        } else if self.patience > SLOTS {
            "`patience` must be at most 336 slots"
        } else if self.tolerance_percent < 100 {
            "`tolerance_percent` must be at least 100"
        } else {
            return None;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routine_terms_hold_and_what_contradicts_itself_is_refused() {
        assert_eq!(TrialTerms::default().problem(), None);
        let routine = TrialTerms::default;
        for wrong in [
            TrialTerms { slot_s: Seconds(0), ..routine() },
            TrialTerms { first_devices: 0, ..routine() },
            TrialTerms { min_devices: 0, ..routine() },
            TrialTerms { sentinels: 3, ..routine() },
            TrialTerms { sentinel_one_in: 0, ..routine() },
            TrialTerms { ramp_from: 20, ..routine() },
            TrialTerms { ramp_from: 60, ..routine() },
            TrialTerms { open_at: 59, ..routine() },
            TrialTerms { open_at: SLOTS + 1, ..routine() },
            TrialTerms { sentinel_live: 11, ..routine() },
            TrialTerms { ramp_live: 40, ..routine() },
            TrialTerms { false_hold_ppm: 0, ..routine() },
            TrialTerms { false_hold_ppm: 100_001, ..routine() },
            TrialTerms { hold_back_ppm: 0, ..routine() },
            TrialTerms { group_share_ppm: 0, ..routine() },
            TrialTerms { held_share_ppm: 1_000_000, ..routine() },
            TrialTerms { canary_roots_percent: 0, ..routine() },
            TrialTerms { ramp_growth_percent: 0, ..routine() },
            TrialTerms { growth: 0, ..routine() },
            TrialTerms { growth_soaked: 0, ..routine() },
            TrialTerms { room_first: 0, ..routine() },
            TrialTerms { near: 0, ..routine() },
            TrialTerms { patience: SLOTS + 1, ..routine() },
            TrialTerms { holds: 0, ..routine() },
            TrialTerms { candidates: 0, ..routine() },
            TrialTerms { coverage: 26, ..routine() },
            TrialTerms { soak_least: 27, ..routine() },
            TrialTerms { tolerance_percent: 99, ..routine() },
        ] {
            assert!(wrong.problem().is_some(), "{wrong:?}");
        }
    }
}
