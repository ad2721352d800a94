//! The lots: polls at which a device's bucket was the one open question while its limit had risen since
//! the last such poll. They are kept until the last look at them is closed, and sampled by a hash that
//! knows nothing of the bucket, so that a large fleet costs no more than a small one.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

use super::{
    looks::{Arm, LAST},
    roster::Device,
};

/// Controls wanted in an hour: at least so many …
const CONTROLS: f64 = 3_000.0;
/// … or so many for each device let in.
const CONTROLS_EACH: f64 = 4.0;
/// Devices let in in an hour that are kept as lots.
const TREATED: f64 = 6_000.0;

/// One lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// Whose.
    pub device: Device,
    /// Its limit at its previous poll in the risk set.
    pub before: u32,
    /// Its limit now.
    pub limit: u32,
    /// How it fell.
    pub arm: Arm,
}

/// The lots of one hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The hour.
    pub hour: u32,
    /// How densely they were sampled.
    pub sample: Sample,
    /// The lots that were kept.
    pub lots: Vec<Lot>,
}

/// The share of lots that is kept, by arm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Of devices let in.
    pub treated: f64,
    /// Of the others.
    pub controls: f64,
}

/// All lots that a look is still to come for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lots(VecDeque<Batch>);

impl Sample {
    /// How densely to sample when about `inflow` of `devices` are let in in an hour.
    pub fn of(inflow: f64, devices: u32) -> Self {
        let controls = CONTROLS.max(CONTROLS_EACH * inflow.min(TREATED));
        Self {
            treated: (TREATED / inflow.max(1.0)).min(1.0),
            controls: (controls / f64::from(devices.max(1))).min(1.0),
        }
    }

    /// Whether a lot is kept. `ticket` is uniform and independent of the bucket.
    pub fn keeps(&self, arm: Arm, ticket: u32) -> bool {
        let share = match arm {
            Arm::Treated => self.treated,
            Arm::Control => self.controls,
        };
        f64::from(ticket) < share * 4_294_967_296.0
    }

    /// The chance that a kept lot is one of a device let in: of buckets above `before`, those below
    /// `limit` against those that still are above `closing`.
    pub fn chance(&self, before: f64, limit: f64, closing: f64) -> f64 {
        let inside = (limit - before) * self.treated;
        let outside = (1.0 - closing) * self.controls;
        if inside <= 0.0 { 0.0 } else { inside / (inside + outside) }
    }
}

impl Lots {
    /// A new hour.
    pub fn begin(&mut self, hour: u32, sample: Sample) {
        self.0.push_back(Batch { hour, sample, lots: Vec::new() });
        while self.0.front().is_some_and(|batch| batch.hour + LAST < hour) {
            self.0.pop_front();
        }
    }

    /// Keeps a lot of this hour, if it is in the sample.
    pub fn add(&mut self, lot: Lot, ticket: u32) {
        if let Some(batch) = self.0.back_mut()
            && batch.sample.keeps(lot.arm, ticket)
        {
            batch.lots.push(lot);
        }
    }

    /// The lots of an hour.
    pub fn of(&self, hour: u32) -> Option<&Batch> {
        let first = self.0.front()?.hour;
        self.0.get(hour.checked_sub(first)? as usize)
    }

    /// All lots.
    pub fn all(&self) -> impl Iterator<Item = &Batch> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_small_fleet_every_lot_is_kept_and_in_a_large_one_a_bounded_number() {
        assert_eq!(Sample::of(10.0, 1_000), Sample { treated: 1.0, controls: 1.0 });
        let large = Sample::of(100_000.0, 1_000_000);
        assert!(large.treated * 100_000.0 <= 6_000.1 && large.controls * 1e6 <= 24_000.1);
    }

    #[test]
    fn the_chance_of_a_lot_is_its_part_of_what_lies_above_the_last_limit() {
        let all = Sample { treated: 1.0, controls: 1.0 };
        assert!((all.chance(0.2, 0.4, 0.4) - 0.25).abs() < 1e-12);
        let thin = Sample { treated: 1.0, controls: 0.1 };
        assert!((thin.chance(0.2, 0.4, 0.4) - 0.2 / 0.26).abs() < 1e-12);
        assert!(all.chance(0.4, 0.4, 0.4).abs() < 1e-12);
        assert!((all.chance(0.9, 1.0, 1.0) - 1.0).abs() < 1e-12);
    }
}
