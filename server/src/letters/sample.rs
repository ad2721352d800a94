//! Which ordinary letters are journalled whole: the first of every hour of the devices that are watched,
//! from which the gatekeeper knows who is there, and a sample of the others chosen by hash, so that a
//! device cannot know beforehand and nobody picks.

use std::sync::Mutex;

use lockgate_shared::{
    id::{DeviceId, Digest},
    time::{Moment, Seconds},
};

use crate::stream::{WATCHED, watch_place, watched_below};

/// Ordinary letters in an hour at most (design): ten a second, some 20 KiB a second on disk.
const HOURLY: u32 = WATCHED;
/// Letters of devices that were let in and came to no end yet, all of which are taken up to here in an
/// hour: thirty thousand devices in trial at once that poll every five minutes, some 100 MB an hour.
const UNSETTLED_HOURLY: u32 = 400_000;
/// Beyond that, one letter of each such device in this time: a fleet of a million that is let in within
/// an hour writes three million letters, about a gigabyte. A ladder for such a fleet bears silence for an
/// hour and longer.
const UNSETTLED_EVERY: Seconds = Seconds(1_200);
const HOUR: i64 = 3_600;

/// Counts what was sampled within the hour.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    watched: Mutex<Hour>,
    controls: Mutex<Hour>,
    unsettled: Mutex<Hour>,
}

#[derive(Debug, Default)]
struct Hour {
    number: i64,
    count: u32,
}

impl Sampler {
    /// Whether a letter of a watched device is taken, when one was last taken at `last`: the first of
    /// every hour.
    pub(super) fn takes_watched(
        &self,
        device: &DeviceId,
        last: Moment,
        now: Moment,
        devices: usize,
    ) -> bool {
        last.0.div_euclid(HOUR) != now.0.div_euclid(HOUR)
            && watch_place(device) <= watched_below(devices)
            && room(&self.watched, HOURLY, now)
    }

    /// Whether a letter is in the sample, in a fleet of `devices` that poll every `interval`: what the
    /// watched leave of the hour.
    pub(super) fn takes(
        &self,
        digest: &Digest,
        now: Moment,
        devices: usize,
        interval: Seconds,
    ) -> bool {
        let left = HOURLY.saturating_sub(u32::try_from(devices).unwrap_or(HOURLY));
        chosen(digest, devices, interval) && room(&self.controls, left, now)
    }

    /// Whether a letter of a device that is at it is taken, when one was last taken at `last`: always
    /// while few are at it, and often enough that none is taken for silent while many are.
    pub(super) fn takes_unsettled(&self, last: Moment, now: Moment) -> bool {
        room(&self.unsettled, UNSETTLED_HOURLY, now) || last.plus(UNSETTLED_EVERY) <= now
    }
}

/// Whether one more may be taken in this hour; it counts if so.
fn room(hour: &Mutex<Hour>, most: u32, now: Moment) -> bool {
    let mut hour = hour.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let number = now.0.div_euclid(HOUR);
    if hour.number != number {
        *hour = Hour { number, count: 0 };
    }
    if hour.count >= most {
        return false;
    }
    hour.count += 1;
    true
}

/// Whether the digest's first four bytes lie below the share that makes [`HOURLY`] of all letters.
fn chosen(digest: &Digest, devices: usize, interval: Seconds) -> bool {
    let hourly = (devices as u64).saturating_mul(3_600) / interval.0.max(1);
    let [a, b, c, d, ..] = digest.0;
    let place = u64::from(u32::from_be_bytes([a, b, c, d]));
    // place / 2^32 < HOURLY / hourly
    u128::from(place) * u128::from(hourly) < u128::from(HOURLY) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_fleet_is_sampled_whole_and_a_large_one_by_about_the_limit() {
        let share = |devices: usize| {
            (0..20_000u32)
                .filter(|n| chosen(&Digest::of(&n.to_be_bytes()), devices, Seconds(300)))
                .count()
        };
        assert_eq!(share(3_000), 20_000);
        // A million devices write twelve million letters an hour: one in three hundred is taken.
        let taken = share(1_000_000);
        assert!((40..100).contains(&taken), "{taken} of 20000");
    }

    #[test]
    fn however_many_are_at_it_each_of_them_is_heard_often_enough_and_the_journal_is_bounded() {
        let sampler = Sampler::default();
        let (now, just_now) = (Moment(7_200), Moment(7_100));
        let taken =
            (0..UNSETTLED_HOURLY + 10).filter(|_| sampler.takes_unsettled(just_now, now)).count();
        assert_eq!(taken, UNSETTLED_HOURLY as usize);
        assert!(sampler.takes_unsettled(now.minus(UNSETTLED_EVERY), now), "it would seem silent");
        assert!(sampler.takes_unsettled(Moment(i64::MIN), now), "none since the start");
    }

    #[test]
    fn the_first_letter_of_each_hour_is_taken_of_everybody_who_is_watched() {
        let sampler = Sampler::default();
        let (before, now) = (Moment(7_100), Moment(7_200));
        let device = |n: u32| DeviceId(Digest::of(&n.to_be_bytes()).0);
        let taken = |devices: usize, last: Moment| {
            (0..1_000).filter(|n| sampler.takes_watched(&device(*n), last, now, devices)).count()
        };
        assert_eq!(taken(40_000, before), 1_000);
        assert_eq!(taken(40_000, now), 0, "one an hour is enough");
        assert!(
            (60..150).contains(&taken(400_000, before)),
            "a tenth of a fleet ten times as large"
        );
    }

    #[test]
    fn no_hour_takes_more_than_the_limit_and_the_next_hour_begins_again() {
        let sampler = Sampler::default();
        let digest = Digest([0; 32]);
        let taken = (0..HOURLY + 10)
            .filter(|_| sampler.takes(&digest, Moment(7_200), 1, Seconds(300)))
            .count();
        assert_eq!(taken, HOURLY as usize - 1, "one is left for the watched");
        assert!(sampler.takes(&digest, Moment(10_800), 1, Seconds(300)));
    }
}
