//! What devices there are, kind by kind, for a plan to be tried on: counts and words, and no device. It
//! decides nothing.

use std::{cmp::Reverse, collections::BTreeMap};

use lockgate_shared::{
    group::{GroupKind, Habit, groups_of, words_of},
    id::{ChannelId, CohortId, GroupId, ProductId},
    policy::Policy,
    time::{Moment, Seconds},
};

use super::book::Book;
use crate::status::{CohortStatus, FleetStatus, KINDS, KindStatus, KindWords};

/// How old the count may be: a walk over all devices, and half a megabyte to send, every ten minutes.
const FLEET_AGE: Seconds = Seconds(600);

/// When the fleet has changed so much that it is counted anew: an eighth of it came, went, or moved to
/// another cohort or channel. A device names its channel only after its first refresh.
const MOVED: u64 = 8;

/// The count that the letter box has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FleetTold {
    /// When it was made.
    pub(super) at: Moment,
    /// Where the devices were.
    pub(super) cohorts: Vec<CohortStatus>,
}

impl FleetTold {
    /// Whether it still tells, roughly, what devices there are.
    pub(super) fn holds(&self, cohorts: &[CohortStatus], now: Moment) -> bool {
        let told = self.cohorts.iter().map(|cohort| u64::from(cohort.devices)).sum::<u64>();
        now < self.at.plus(FLEET_AGE) && moved(&self.cohorts, cohorts) * MOVED <= told
    }
}

/// How many places of devices differ: one that moved leaves one and takes another.
fn moved(before: &[CohortStatus], now: &[CohortStatus]) -> u64 {
    let mut places: BTreeMap<_, [u32; 2]> = BTreeMap::new();
    for (side, cohorts) in [before, now].into_iter().enumerate() {
        for cohort in cohorts {
            let place = (&cohort.product, &cohort.channel, &cohort.cohort);
            if let Some(devices) = places.entry(place).or_default().get_mut(side) {
                *devices += cohort.devices;
            }
        }
    }
    places.values().map(|[before, now]| u64::from(before.abs_diff(*now))).sum()
}

/// What makes devices alike: the words are looked at, never copied, device by device.
type Key<'a> = (&'a ProductId, &'a ChannelId, CohortId, [&'a str; 8], Habit);

/// Device-days, and those on which a device was heard, by hour of the day.
#[derive(Default)]
struct Count {
    devices: u32,
    known: [u32; 24],
    heard: [u32; 24],
}

impl Book {
    /// Counts the devices that may call: revoked ones do not.
    pub(super) fn kinds(&self, policy: &Policy, now: Moment) -> FleetStatus {
        let mut counts: BTreeMap<Key<'_>, Count> = BTreeMap::new();
        for (id, device) in self.devices().filter(|(_, device)| !device.barred) {
            let since = device.enrolled_at;
            for (product, channel) in &device.products {
                let place = (product, channel);
                let Some(cohort) = self.expected_cohort(policy, id, place, now) else { continue };
                let key = (product, channel, cohort, words_of(&device.facts), device.habit);
                let count = counts.entry(key).or_default();
                count.devices += 1;
                let by_hour = device.presence.by_hour(since, now);
                for ((known, heard), hour) in
                    count.known.iter_mut().zip(&mut count.heard).zip(by_hour)
                {
                    *known += u32::from(hour.known);
                    *heard += u32::from(hour.heard);
                }
            }
        }
        let mut past: BTreeMap<GroupId, (u32, u32)> = BTreeMap::new();
        let counted = counts.into_iter();
        let mut kinds: Vec<KindStatus> = counted
            .map(|(key, count)| {
                let mut kind = kind(key, &count);
                let groups = groups_of(&kind.words.facts(), kind.habit);
                let hardware = groups.iter().find(|group| group.kind == GroupKind::Hardware);
                (kind.failed, kind.installs) = hardware.map_or((0, 0), |group| {
                    *past.entry(group.id).or_insert_with(|| self.past(&group.id, None))
                });
                kind
            })
            .collect();
        kinds.sort_by_key(|kind| Reverse(kind.devices));
        let left_out = kinds.iter().skip(KINDS).map(|kind| kind.devices).sum();
        kinds.truncate(KINDS);
        FleetStatus { at: now, kinds, left_out }
    }
}

fn kind(key: Key<'_>, count: &Count) -> KindStatus {
    let (product, channel, cohort, words, habit) = key;
    let [vendor, model, arch, os_id, os_version, firmware_version, configuration, time_zone] =
        words.map(str::to_owned);
    let percent = |hour: usize| {
        let (known, heard) = (count.known.get(hour), count.heard.get(hour));
        let (known, heard) = (known.copied().unwrap_or(0), heard.copied().unwrap_or(0));
        u8::try_from(u64::from(heard) * 100 / u64::from(known.max(1))).unwrap_or(100)
    };
    KindStatus {
        product: product.clone(),
        channel: channel.clone(),
        cohort,
        devices: count.devices,
        words: KindWords {
            vendor,
            model,
            arch,
            os_id,
            os_version,
            firmware_version,
            configuration,
            time_zone,
        },
        habit,
        heard: std::array::from_fn(percent),
        installs: 0,
        failed: 0,
    }
}

#[cfg(test)]
mod tests {
    use lockgate_shared::wire::NO_CHANNEL;

    use super::*;

    fn cohort(channel: &str, devices: u32) -> CohortStatus {
        CohortStatus {
            product: "app".parse().expect("a product"),
            channel: channel.parse().expect("a channel"),
            cohort: "everyone".parse().expect("a cohort"),
            devices,
        }
    }

    #[test]
    fn a_count_ends_with_its_age_and_when_an_eighth_of_the_devices_came_left_or_moved() {
        let told = FleetTold { at: Moment(1_000), cohorts: vec![cohort("stable", 80)] };
        let soon = Moment(1_001);
        assert!(told.holds(&[cohort("stable", 80)], soon));
        assert!(told.holds(&[cohort("stable", 90)], soon));
        assert!(!told.holds(&[cohort("stable", 91)], soon));
        assert!(!told.holds(&[cohort("stable", 69)], soon));
        assert!(told.holds(&[cohort("stable", 75), cohort("beta", 5)], soon));
        assert!(!told.holds(&[cohort("stable", 74), cohort("beta", 6)], soon));
        assert!(!told.holds(&[cohort("stable", 80)], Moment(1_000).plus(FLEET_AGE)));
    }

    #[test]
    fn the_only_device_is_counted_anew_when_it_names_its_channel() {
        let told = FleetTold { at: Moment(0), cohorts: vec![cohort(NO_CHANNEL, 1)] };
        assert!(!told.holds(&[cohort("stable", 1), cohort(NO_CHANNEL, 0)], Moment(1)));
        let empty = FleetTold { at: Moment(0), cohorts: vec![cohort("stable", 0)] };
        assert!(empty.holds(&[cohort("stable", 0)], Moment(1)));
        assert!(!empty.holds(&[cohort("stable", 1)], Moment(1)));
    }
}
