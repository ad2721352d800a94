//! In which hours a device was heard lately: one bit for each. It is what a trial knows of a device's day
//! before the trial begins.

use lockgate_shared::time::Moment;
use serde::{Deserialize, Serialize};

/// The hours up to the one in which the device was last heard, as bits: the highest is that hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    hour: i64,
    bits: u128,
}

impl Presence {
    /// The device was heard. What comes out of order is left out: it changes no more than an hour's bit.
    pub const fn note(&mut self, at: Moment) {
        let hour = hour_of(at);
        if hour < self.hour {
            return;
        }
        self.bits = shifted(self.bits, hour - self.hour) | 1 << 127;
        self.hour = hour;
    }

    /// The hours before that of `now`: the highest bit is the last of them.
    pub const fn before(&self, now: Moment) -> u128 {
        match hour_of(now) - 1 - self.hour {
            ..0 => self.bits << 1,
            hours => shifted(self.bits, hours),
        }
    }
}

const fn hour_of(at: Moment) -> i64 {
    at.0.div_euclid(3_600)
}

const fn shifted(bits: u128, hours: i64) -> u128 {
    if hours > 127 { 0 } else { bits >> hours }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hours_are_told_from_the_hour_before_now() {
        let mut presence = Presence::default();
        for hour in [1_000, 1_001, 1_005] {
            presence.note(Moment(hour * 3_600 + 40));
        }
        let top = presence.before(Moment(1_006 * 3_600)) >> 120;
        assert_eq!(top, 0b1000_1100, "heard in the hours 1005, 1001 and 1000");
        assert_eq!(presence.before(Moment(1_005 * 3_600 + 59)) >> 120, 0b0001_1000);
        assert_eq!(presence.before(Moment(1_200 * 3_600)), 0);
        presence.note(Moment(0));
        assert_eq!(presence.before(Moment(1_006 * 3_600)) >> 120, 0b1000_1100);
    }
}
