//! The numbers of a trial, as they are reckoned with: the signed ones are [`TrialTerms`]. It holds
//! values and computes nothing but what follows from them alone.
//!
//! An hour here is a slot of the signed terms. Hours are hours of the rollout's own clock (see
//! [`super::clock`]) unless a field says otherwise.

use lockgate_shared::{bucket::Limit, terms::TrialTerms};
use serde::{Deserialize, Serialize};

/// A small fleet's canary: so many times the root of the number of devices …
const CANARY_SMALL: f64 = 1.8;
/// … up to so many, which is the canary of a thousand devices: with fewer, a tenth that falls silent or a
/// fifth that fails a day later is not proven before the ramp.
const CANARY_LEAST: f64 = 57.0;

/// What a stage's trial keeps to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// The chance that a harmless release is ever held, shared out among its groups.
    pub alpha: f64,
    /// No limit rises above this one.
    pub ceiling: u32,
    /// Devices let in at once, before anything is known.
    pub first: u32,
    /// Sentinels in all: at least so many …
    pub sentinels_least: u32,
    /// … or one device in so many.
    pub sentinels_one_in: u32,
    /// Hours (by the wall) that the first must live before the other sentinels follow.
    pub first_live_h: u32,
    /// Hours (by the wall) that two sentinels must live before the canary begins.
    pub sentinel_live_h: u32,
    /// When the canary begins.
    pub canary_from_h: f64,
    /// When it has its full size.
    pub canary_full_h: f64,
    /// Its size: so many times the root of the number of devices.
    pub canary_roots: f64,
    /// When the ramp begins.
    pub ramp_from_h: f64,
    /// When the ramp has reached the hold-back.
    pub ramp_to_h: f64,
    /// While it lasts, at most this share of those that have begun is let in in an hour.
    pub ramp_growth: f64,
    /// The share of devices kept back as controls until [`Self::open_h`].
    pub hold_back: f64,
    /// When everybody is let in.
    pub open_h: f64,
    /// Hours (by the wall) that half a crew of sentinels must live before the ramp begins.
    pub ramp_live_h: u32,
    /// From this hour of the clock on, when as many lived as long, groups that the canary left out are
    /// covered by name.
    pub cover_from_h: f64,
    /// Healthy at this age (hours by the wall) means soaked.
    pub soak_h: u32,
    /// From this hour of the clock the soak asked for falls …
    pub soak_falls_from_h: f64,
    /// … by so many hours an hour …
    pub soak_falls_by: f64,
    /// … down to this …
    pub soak_day_h: u32,
    /// … until this hour of the clock, and from then on …
    pub soak_day_to_h: f64,
    /// … down to this.
    pub soak_least_h: u32,
    /// The smallest group with a limit of its own.
    pub group_least: u32,
    /// Groups with a limit of their own at most, the largest ones: as many as names can cover.
    pub guarded: u32,
    /// Above this share of the fleet a group has none: the fleet's schedule is the guard.
    pub group_share: f64,
    /// Unresolved installs for each healthy one.
    pub growth: u32,
    /// The same in a group that has soaked.
    pub growth_soaked: u32,
    /// Unresolved installs in a group that has shown nothing yet.
    pub room_first: u32,
    /// The same from the end of the ramp on, by limit: whom no name could reach.
    pub room_last: u32,
    /// Unresolved installs in a group that has soaked.
    pub room_soaked: u32,
    /// A group grows no more while its evidence is within this factor of its threshold.
    pub near: f64,
    /// Hours for which what nothing explains is waited out.
    pub patience_h: u32,
    /// Hours (by the wall) between two coverage draws for a group that has no live device.
    pub redraw_h: u32,
    /// Coverage entries at most.
    pub coverage: u32,
    /// Of these, entries kept for after the canary: for groups whose devices went missing.
    pub spare: u32,
    /// Candidates of a coverage draw at most.
    pub candidates: u32,
    /// The hour by which a letter of every device that is on is expected, in slots of an hour: one
    /// letter an hour at least.
    pub tolerance: f64,
    /// What is added to every baseline: a share of devices that any install disturbs.
    pub disturbed: f64,
    /// Holds of groups that make a halt.
    pub holds: u32,
    /// The share of devices held that makes a halt.
    pub held_share: f64,
}

impl Terms {
    /// The routine preset: everywhere in four days.
    pub fn routine() -> Self {
        Self::of(&TrialTerms::default(), 1_000_000)
    }

    /// What a stage's signed terms and ceiling ask for.
    pub fn of(terms: &TrialTerms, ceiling_ppm: u32) -> Self {
        let (millionths, hundredths) =
            (|ppm: u32| f64::from(ppm) / 1e6, |percent: u32| f64::from(percent) / 100.0);
        Self {
            alpha: millionths(terms.false_hold_ppm),
            ceiling: Limit::of_share_ppm(ceiling_ppm).0,
            first: terms.first_devices,
            sentinels_least: terms.sentinels,
            sentinels_one_in: terms.sentinel_one_in,
            first_live_h: terms.first_live,
            sentinel_live_h: terms.sentinel_live,
            canary_from_h: f64::from(terms.canary_from),
            canary_full_h: f64::from(terms.canary_full),
            canary_roots: hundredths(terms.canary_roots_percent),
            ramp_from_h: f64::from(terms.ramp_from),
            ramp_to_h: f64::from(terms.ramp_to),
            ramp_growth: hundredths(terms.ramp_growth_percent),
            hold_back: millionths(terms.hold_back_ppm),
            open_h: f64::from(terms.open_at),
            ramp_live_h: terms.ramp_live,
            cover_from_h: f64::from(terms.cover_from),
            soak_h: terms.soak,
            soak_falls_from_h: f64::from(terms.soak_falls_from),
            soak_falls_by: f64::from(terms.soak_falls_by),
            soak_day_h: terms.soak_day,
            soak_day_to_h: f64::from(terms.soak_day_to),
            soak_least_h: terms.soak_least,
            group_least: terms.group_least,
            guarded: terms.guarded,
            group_share: millionths(terms.group_share_ppm),
            growth: terms.growth,
            growth_soaked: terms.growth_soaked,
            room_first: terms.room_first,
            room_last: terms.room_last,
            room_soaked: terms.room_soaked,
            near: f64::from(terms.near),
            patience_h: terms.patience,
            redraw_h: terms.redraw,
            coverage: terms.coverage,
            spare: terms.spare,
            candidates: terms.candidates,
            tolerance: hundredths(terms.tolerance_percent),
            disturbed: millionths(terms.disturbed_ppm),
            holds: terms.holds,
            held_share: millionths(terms.held_share_ppm),
        }
    }

    /// Sentinels in a fleet of `devices`.
    pub fn sentinels(&self, devices: u32) -> u32 {
        self.sentinels_least.max(devices / self.sentinels_one_in.max(1))
    }

    /// The canary's full size in a fleet of `devices`: never less than two beside the sentinels, and in
    /// fleets of up to a thousand more than its share, because there a device is a model's only one.
    pub fn canary(&self, devices: u32) -> f64 {
        let root = f64::from(devices).sqrt();
        let small = (CANARY_SMALL * root).min(CANARY_LEAST);
        let least = f64::from(self.sentinels(devices) + 2).max(small);
        (self.canary_roots * root).max(least).min(f64::from(devices))
    }

    /// The age in hours at which a healthy device counts as soaked when the clock stands at `clock`.
    pub fn soak_at(&self, clock: f64) -> u32 {
        let fallen = |from: f64| ((clock - from).max(0.0) * self.soak_falls_by).floor();
        let first = f64::from(self.soak_h) - fallen(self.soak_falls_from_h);
        let day = f64::from(self.soak_day_h.min(self.soak_h)) - fallen(self.soak_day_to_h);
        (first.max(day).max(f64::from(self.soak_least_h))) as u32
    }
}
