//! Maintenance windows and freezes: when a device may install.
//!
//! A window opens at a local wall-clock time on given weekdays in a named IANA zone, and stays open
//! for a span of real time. So a window of two hours is two hours long on every night, the nights on
//! which clocks change included: if its opening time is skipped that night, it opens as much later as
//! the gap is long; if the time comes twice, it opens at the first.

use std::collections::BTreeSet;

use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::time::{Moment, Seconds};

/// The longest window: a week, beyond which it would be open always.
pub const MAX_WINDOW: Seconds = Seconds(7 * 86_400);

/// A weekly maintenance window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The IANA zone, such as `Europe/Berlin`.
    pub zone: String,
    /// On which days it opens.
    pub days: BTreeSet<Weekday>,
    /// The local hour at which it opens, 0 to 23.
    pub hour: u8,
    /// The minute of that hour, 0 to 59.
    pub minute: u8,
    /// How long it stays open.
    pub length_s: Seconds,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// A period without installs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// It begins.
    pub from: Moment,
    /// It ends.
    pub until: Moment,
    /// Why.
    pub reason: String,
}

/// Why a window cannot be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum WindowError {
    /// No such zone on this machine.
    #[error(
        "`{0}` is not a time zone known here\nhint: use an IANA name such as `Europe/Berlin`; Debian's package `tzdata` has them"
    )]
    Zone(String),
    /// Hour, minute, days or length out of bounds.
    #[error("a window opens at 00:00 to 23:59 on at least one day and lasts 1 second to 7 days")]
    Shape,
}

/// What the windows say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Installing is allowed until then.
    Open {
        /// When the window closes; none without any window.
        until: Option<Moment>,
    },
    /// Installing is not allowed.
    Closed {
        /// The next opening.
        next: Option<Moment>,
    },
}

impl Window {
    /// Checks its shape and that its zone is known.
    pub fn check(&self) -> Result<(), WindowError> {
        let shape = self.hour < 24
            && self.minute < 60
            && !self.days.is_empty()
            && self.length_s.0 > 0
            && self.length_s <= MAX_WINDOW;
        if !shape {
            return Err(WindowError::Shape);
        }
        zone(&self.zone).map(|_| ())
    }

    /// The openings (begin, end) from eight days before `now` to eight days after it.
    fn openings(&self, now: Moment) -> Result<Vec<(Moment, Moment)>, WindowError> {
        self.check()?;
        let zone = zone(&self.zone)?;
        let stamp = Timestamp::from_second(now.0).map_err(|_| WindowError::Shape)?;
        let today = stamp.to_zoned(zone.clone()).date();
        let mut openings = Vec::new();
        for offset in -8..=8i64 {
            let Ok(date) = today.checked_add(offset.days()) else { continue };
            if !self.days.contains(&Weekday::of(date)) {
                continue;
            }
            let (Ok(hour), Ok(minute)) = (i8::try_from(self.hour), i8::try_from(self.minute))
            else {
                return Err(WindowError::Shape);
            };
            let Ok(time) = civil::Time::new(hour, minute, 0, 0) else {
                return Err(WindowError::Shape);
            };
            // `Compatible` (RFC 5545): later by the gap's length, or the first of two.
            let Ok(begin) = zone.to_ambiguous_zoned(date.to_datetime(time)).compatible() else {
                continue;
            };
            let begin = Moment(begin.timestamp().as_second());
            openings.push((begin, begin.plus(self.length_s)));
        }
        Ok(openings)
    }
}

impl Weekday {
    /// All of them, from Monday on.
    pub const ALL: [Self; 7] =
        [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    fn of(date: civil::Date) -> Self {
        match date.weekday() {
            civil::Weekday::Monday => Self::Mon,
            civil::Weekday::Tuesday => Self::Tue,
            civil::Weekday::Wednesday => Self::Wed,
            civil::Weekday::Thursday => Self::Thu,
            civil::Weekday::Friday => Self::Fri,
            civil::Weekday::Saturday => Self::Sat,
            civil::Weekday::Sunday => Self::Sun,
        }
    }
}

/// What a set of windows says at `now`. Without any window installing is always allowed; with some,
/// inside any of them. A window that cannot be evaluated is an error, never an open door.
pub fn opening(windows: &[Window], now: Moment) -> Result<Opening, WindowError> {
    if windows.is_empty() {
        return Ok(Opening::Open { until: None });
    }
    let mut until: Option<Moment> = None;
    let mut next: Option<Moment> = None;
    for window in windows {
        for (begin, end) in window.openings(now)? {
            if begin <= now && now < end {
                until = Some(until.map_or(end, |earlier| earlier.max(end)));
            } else if begin > now {
                next = Some(next.map_or(begin, |earlier| earlier.min(begin)));
            }
        }
    }
    Ok(match until {
        Some(until) => Opening::Open { until: Some(until) },
        None => Opening::Closed { next },
    })
}

fn zone(name: &str) -> Result<TimeZone, WindowError> {
    TimeZone::get(name).map_err(|_| WindowError::Zone(name.chars().take(80).collect()))
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample};

    use super::*;

    /// Zones that differ in what can go wrong: no changes, half an hour and two hours of summer time,
    /// a change at midnight, a day that never was, changes around Ramadan, odd offsets.
    const ZONES: [&str; 12] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/St_Johns",
        "America/Sao_Paulo",
        "Australia/Lord_Howe",
        "Antarctica/Troll",
        "Pacific/Apia",
        "Pacific/Chatham",
        "Africa/Casablanca",
        "Asia/Gaza",
        "Asia/Kathmandu",
    ];

    proptest! {
        #[test]
        fn a_closed_window_opens_when_it_said_and_then_for_its_whole_length(
            window in any_window(), now in any_moment(),
        ) {
            let windows = [window];
            let Ok(Opening::Closed { next }) = opening(&windows, now) else { return Ok(()) };
            let next = next.expect("it opens every week");
            prop_assert!(next > now && next.since(now) <= Seconds(8 * 86_400), "{next}");
            let before = opening(&windows, next.minus(Seconds(1)));
            prop_assert_eq!(before, Ok(Opening::Closed { next: Some(next) }));
            let until = Some(next.plus(windows[0].length_s));
            prop_assert_eq!(opening(&windows, next), Ok(Opening::Open { until }));
        }

        #[test]
        fn it_opens_at_its_wall_clock_unless_that_time_does_not_exist(
            window in any_window(), now in any_moment(),
        ) {
            let zone = zone(&window.zone).expect("a known zone");
            let time = civil::time(
                window.hour.try_into().expect("small"), window.minute.try_into().expect("small"), 0, 0,
            );
            let days = window.days.clone();
            let Ok(Opening::Closed { next: Some(next) }) = opening(&[window], now) else {
                return Ok(());
            };
            let local = Timestamp::from_second(next.0).expect("in range").to_zoned(zone.clone());
            let skipped = |date: civil::Date| zone.to_ambiguous_zoned(date.to_datetime(time)).compatible().is_ok_and(|moment| moment.datetime() != date.to_datetime(time));
            let on_time = local.time() == time && days.contains(&Weekday::of(local.date()));
            let yesterday = local.date().yesterday().expect("in range");
            prop_assert!(on_time || skipped(local.date()) || skipped(yesterday), "{local}");
        }

        #[test]
        fn what_is_open_stays_open_until_it_said(
            window in any_window(), now in any_moment(), share in 0..100_u64,
        ) {
            let windows = [window];
            let Ok(Opening::Open { until: Some(until) }) = opening(&windows, now) else {
                return Ok(());
            };
            prop_assert!(until > now && until.since(now) <= windows[0].length_s);
            let later = now.plus(Seconds((until.since(now).0 - 1) * share / 99));
            prop_assert!(matches!(opening(&windows, later), Ok(Opening::Open { .. })), "{later}");
        }

        #[test]
        fn another_window_never_takes_time_away(
            first in any_window(), second in any_window(), now in any_moment(),
        ) {
            let open = |windows: &[Window]| matches!(opening(windows, now), Ok(Opening::Open { .. }));
            let alone = open(std::slice::from_ref(&first)) || open(std::slice::from_ref(&second));
            prop_assert_eq!(open(&[first, second]), alone);
        }
    }

    fn any_window() -> impl Strategy<Value = Window> {
        let days = sample::subsequence(Weekday::ALL.to_vec(), 1..=7);
        let length = prop_oneof![1..4 * 3600_u64, 1..=MAX_WINDOW.0];
        (sample::select(ZONES.to_vec()), days, 0..24_u8, 0..60_u8, length).prop_map(
            |(zone, days, hour, minute, length)| Window {
                zone: zone.into(),
                days: days.into_iter().collect(),
                hour,
                minute,
                length_s: Seconds(length),
            },
        )
    }

    /// 2005 to 2037; half of them within days of a change of clocks in Europe or the missing day in Apia.
    fn any_moment() -> impl Strategy<Value = Moment> {
        let near = |moment: i64| (moment - 3 * 86_400)..(moment + 3 * 86_400);
        prop_oneof![
            1_104_537_600..2_145_916_800_i64,
            near(1_774_746_000),
            near(1_792_890_000),
            near(1_325_239_200),
        ]
        .prop_map(Moment)
    }

    fn berlin(day: Weekday, hour: u8, minute: u8) -> Window {
        Window {
            zone: "Europe/Berlin".into(),
            days: [day].into(),
            hour,
            minute,
            length_s: Seconds(2 * 3600),
        }
    }

    fn at(text: &str) -> Moment {
        Moment::parse_rfc3339(text).expect("a moment of this test")
    }

    #[test]
    fn a_window_keeps_its_wall_clock_across_daylight_saving() {
        let window = [berlin(Weekday::Tue, 22, 0)];
        // Winter: UTC+1. Summer: UTC+2.
        assert_eq!(
            opening(&window, at("2026-01-13T21:00:00Z")),
            Ok(Opening::Open { until: Some(at("2026-01-13T23:00:00Z")) })
        );
        assert_eq!(
            opening(&window, at("2026-07-14T19:59:59Z")),
            Ok(Opening::Closed { next: Some(at("2026-07-14T20:00:00Z")) })
        );
    }

    #[test]
    fn the_night_without_an_opening_hour_still_has_a_window_of_full_length() {
        // 2026-03-29, 02:00 to 03:00 does not exist in Berlin; 02:30 becomes 03:30 (UTC+2).
        let window = [berlin(Weekday::Sun, 2, 30)];
        assert_eq!(
            opening(&window, at("2026-03-29T01:30:00Z")),
            Ok(Opening::Open { until: Some(at("2026-03-29T03:30:00Z")) })
        );
    }

    #[test]
    fn the_night_with_the_hour_twice_has_one_window_of_the_same_length() {
        // 2026-10-25, 02:30 comes twice in Berlin; the first is 00:30 UTC.
        let window = [berlin(Weekday::Sun, 2, 30)];
        assert_eq!(
            opening(&window, at("2026-10-25T00:30:00Z")),
            Ok(Opening::Open { until: Some(at("2026-10-25T02:30:00Z")) })
        );
        assert!(matches!(opening(&window, at("2026-10-25T02:30:00Z")), Ok(Opening::Closed { .. })));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_opens() {
        let window = [berlin(Weekday::Mon, 23, 0)];
        assert!(matches!(opening(&window, at("2026-01-12T23:30:00Z")), Ok(Opening::Open { .. })));
    }

    #[test]
    fn what_cannot_be_evaluated_is_not_an_open_door() {
        let unknown = Window { zone: "Mars/Olympus".into(), ..berlin(Weekday::Mon, 1, 0) };
        assert!(matches!(opening(&[unknown], Moment(0)), Err(WindowError::Zone(_))));
        let endless = Window { length_s: Seconds(u64::MAX), ..berlin(Weekday::Mon, 1, 0) };
        assert_eq!(opening(&[endless], Moment(0)), Err(WindowError::Shape));
    }
}
