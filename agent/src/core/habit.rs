//! When this device is usually on, from 28 days of its own polls. Only the word that comes out
//! leaves the device; the hours never do.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use lockgate_shared::{
    group::Habit,
    time::{Moment, Seconds},
};
use serde::{Deserialize, Serialize};

/// How many days are kept.
pub const DAYS: usize = 28;
/// Below this many days since the first one the habit is not known: two weekends must be in it.
pub const KNOWN_AFTER: i64 = 14;
/// The most of the past that one look fills in: between two polls a device is on, but a longer gap
/// says nothing.
const REACH: Seconds = Seconds(2 * 3600);

/// The hours of the last days in which the device was on, by the device's own time zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    /// For each day since 1970: a bit for each hour.
    days: BTreeMap<i64, u32>,
    /// The first day ever noted.
    first: Option<i64>,
}

impl Hours {
    /// Notes that the device is on at `now`, and was since its last poll or its boot, whichever is
    /// later.
    pub fn note(&mut self, now: Moment, since: Seconds, zone: &str) {
        let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
        let mut moment = now.minus(Seconds(since.0.min(REACH.0)));
        while moment < now {
            self.mark(moment, &zone);
            moment = moment.plus(Seconds(1800));
        }
        self.mark(now, &zone);
        while self.days.len() > DAYS {
            self.days.pop_first();
        }
    }

    /// The habit, as far as it is known.
    pub fn habit(&self) -> Habit {
        let (Some(first), Some((last, _))) = (self.first, self.days.last_key_value()) else {
            return Habit::Unknown;
        };
        if last - first < KNOWN_AFTER {
            return Habit::Unknown;
        }
        let begin = first.max(last - DAYS as i64 + 1);
        // Today is not over yet.
        let span = (last - begin).max(1);
        let mut on = Shares::default();
        for (day, hours) in self.days.range(begin..*last) {
            on.add(*day, *hours);
        }
        on.habit(u32::try_from(span).unwrap_or(1))
    }

    fn mark(&mut self, moment: Moment, zone: &TimeZone) {
        let Ok(stamp) = Timestamp::from_second(moment.0) else { return };
        let local = zone.to_datetime(stamp);
        let Ok(epoch) = jiff::civil::date(1970, 1, 1).until(local.date()) else { return };
        let day = i64::from(epoch.get_days());
        *self.days.entry(day).or_default() |= 1 << u32::from(local.hour().unsigned_abs() % 24);
        self.first.get_or_insert(day);
    }
}

/// Hours on, by what they are usually for.
#[derive(Default)]
struct Shares {
    /// Monday to Friday, 7 to 18 o'clock.
    work: u32,
    /// Evenings, and weekends from 8 o'clock.
    leisure: u32,
    /// All.
    all: u32,
}

impl Shares {
    fn add(&mut self, day: i64, hours: u32) {
        // 1970-01-01 was a Thursday.
        let weekend = matches!((day + 3).rem_euclid(7), 5 | 6);
        let bits = |from: u32, to: u32| (hours & (((1 << (to - from)) - 1) << from)).count_ones();
        self.all += hours.count_ones();
        if weekend {
            self.leisure += bits(8, 24);
        } else {
            self.work += bits(7, 18);
            self.leisure += bits(18, 24);
        }
    }

    /// Nine tenths of all hours: always on, with room for a reboot and a lost network. Less than an
    /// hour a day: on duty, whenever that is. Else three fifths of the hours it is on decide.
    const fn habit(&self, days: u32) -> Habit {
        if self.all * 10 >= days * 24 * 9 {
            Habit::AlwaysOn
        } else if self.all < days {
            Habit::Duty
        } else if self.work * 5 >= self.all * 3 {
            Habit::Office
        } else if self.leisure * 5 >= self.all * 3 {
            Habit::Home
        } else {
            Habit::Duty
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Monday, 00:00 UTC.
    const MONDAY: i64 = 1_795_392_000;

    #[test]
    fn two_weeks_must_pass_before_anything_is_known() {
        assert_eq!(observed(13, |_, _| true), Habit::Unknown);
        assert_eq!(observed(16, |_, _| true), Habit::AlwaysOn);
        assert_eq!(Hours::default().habit(), Habit::Unknown);
    }

    #[test]
    fn offices_homes_and_machines_on_duty_are_told_apart() {
        assert_eq!(observed(28, |day, hour| day < 5 && (8..17).contains(&hour)), Habit::Office);
        assert_eq!(observed(28, |day, hour| day > 4 && hour > 9 || hour > 17), Habit::Home);
        assert_eq!(observed(28, |day, hour| day == 2 && hour == 3), Habit::Duty);
        assert_eq!(observed(28, |_, hour| hour < 6), Habit::Duty);
    }

    #[test]
    fn what_was_four_weeks_ago_is_forgotten() {
        let mut hours = Hours::default();
        fill(&mut hours, 0, 28, |_, _| true);
        fill(&mut hours, 28, 60, |day, hour| day < 5 && (8..17).contains(&hour));
        assert_eq!(hours.habit(), Habit::Office);
        assert!(hours.days.len() <= DAYS);
    }

    #[test]
    fn a_gap_of_a_night_is_not_taken_for_a_night_awake() {
        let mut hours = Hours::default();
        hours.note(Moment(MONDAY + 86_400), Seconds(86_400), "UTC");
        let on: u32 = hours.days.values().map(|hours| hours.count_ones()).sum();
        assert!(on <= 3, "{on} hours");
    }

    fn observed(days: i64, on: fn(i64, i64) -> bool) -> Habit {
        let mut hours = Hours::default();
        fill(&mut hours, 0, days, on);
        hours.habit()
    }

    fn fill(hours: &mut Hours, from: i64, to: i64, on: fn(i64, i64) -> bool) {
        for day in from..to {
            for hour in (0..24).filter(|hour| on(day % 7, *hour)) {
                let now = Moment(MONDAY + day * 86_400 + hour * 3600 + 60);
                hours.note(now, Seconds(0), "UTC");
            }
        }
    }
}
