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

    /// For each hour of the day, in UTC: on how many of the last five days the device was there to be heard
    /// then, and on how many it was heard. `since` is when it enrolled.
    pub fn by_hour(&self, since: Moment, now: Moment) -> [Heard; 24] {
        let mut hours = [Heard::default(); 24];
        let (last, first) = (hour_of(now) - 1, hour_of(since));
        for hour in (last - DAYS * 24 + 1..=last).filter(|hour| *hour >= first) {
            let place = usize::try_from(hour.rem_euclid(24)).unwrap_or_default();
            let Some(entry) = hours.get_mut(place) else { continue };
            entry.known += 1;
            // What was heard in the hour that goes on says nothing on those that are over.
            let back = self.hour - hour;
            let heard = (0..128).contains(&back) && self.bits >> (127 - back) & 1 == 1;
            entry.heard += u8::from(heard);
        }
        hours
    }

    /// The hours before that of `now`: the highest bit is the last of them.
    pub const fn before(&self, now: Moment) -> u128 {
        match hour_of(now) - 1 - self.hour {
            ..0 => self.bits << 1,
            hours => shifted(self.bits, hours),
        }
    }
}

/// Days of which the hours are told: as many as the bits hold.
const DAYS: i64 = 5;

/// One hour of the day over some days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Days on which the device was enrolled by then.
    pub known: u8,
    /// Of these, days on which it was heard.
    pub heard: u8,
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
    fn the_hours_of_the_day_are_told_since_the_enrolment_and_for_five_days_at_most() {
        let mut presence = Presence::default();
        let at = |day: i64, hour: i64| Moment((day * 24 + hour) * 3_600 + 60);
        for day in 10..20 {
            presence.note(at(day, 9));
        }
        let hours = presence.by_hour(at(10, 0), at(20, 0));
        assert_eq!(hours[9], Heard { known: 5, heard: 5 });
        assert_eq!(hours[10], Heard { known: 5, heard: 0 });
        let hours = presence.by_hour(at(18, 12), at(20, 0));
        assert_eq!((hours[9].known, hours[9].heard, hours[13].known), (1, 1, 2));
    }

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
