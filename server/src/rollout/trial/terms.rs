//! The numbers of a trial: hours, counts and shares that a ladder will sign. It holds values and
//! computes nothing but what follows from them alone.
//!
//! Hours are hours of the rollout's own clock (see [`super::clock`]) unless a field says otherwise.

/// What a stage's trial keeps to.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The chance that a harmless release is ever held, shared out among its groups.
    pub alpha: f64,
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
    /// Healthy at this age (hours by the wall) means soaked.
    pub soak_h: u32,
    /// From this hour of the clock the soak asked for falls …
    pub soak_falls_from_h: f64,
    /// … by so many hours an hour …
    pub soak_falls_by: f64,
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
    pub const fn routine() -> Self {
        Self {
            alpha: 0.005,
            first: 5,
            sentinels_least: 7,
            sentinels_one_in: 2_000,
            first_live_h: 3,
            sentinel_live_h: 8,
            canary_from_h: 10.0,
            canary_full_h: 22.0,
            canary_roots: 1.8,
            ramp_from_h: 36.0,
            ramp_to_h: 60.0,
            ramp_growth: 0.25,
            hold_back: 0.1,
            open_h: 64.0,
            ramp_live_h: 28,
            soak_h: 38,
            soak_falls_from_h: 54.0,
            soak_falls_by: 3.0,
            soak_least_h: 6,
            group_least: 15,
            guarded: 800,
            group_share: 0.15,
            growth: 3,
            growth_soaked: 6,
            room_first: 2,
            room_last: 4,
            room_soaked: 16,
            near: 25.0,
            redraw_h: 10,
            coverage: 200,
            spare: 20,
            candidates: 40,
            tolerance: 1.1,
            disturbed: 0.0005,
            holds: 12,
            held_share: 0.34,
        }
    }

    /// Sentinels in a fleet of `devices`.
    pub fn sentinels(&self, devices: u32) -> u32 {
        self.sentinels_least.max(devices / self.sentinels_one_in.max(1))
    }

    /// The canary's full size in a fleet of `devices`.
    pub fn canary(&self, devices: u32) -> f64 {
        self.canary_roots * f64::from(devices).sqrt()
    }

    /// The age in hours at which a healthy device counts as soaked when the clock stands at `clock`.
    pub fn soak_at(&self, clock: f64) -> u32 {
        let fallen = ((clock - self.soak_falls_from_h).max(0.0) * self.soak_falls_by).floor();
        let left = f64::from(self.soak_h) - fallen;
        (left.max(f64::from(self.soak_least_h))) as u32
    }
}
