//! A device's place in a rollout, and the limit below which it is open.
//!
//! The bucket is the first four bytes of SHA-256 over a domain, the manifest's hash, the channel and
//! the device's id. The manifest salts it, so that the same devices are not always first; nothing
//! else enters, so that a share never re-rolls.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ChannelId, DeviceId, Digest};

/// A device's place in a rollout: uniform over 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bucket(pub u32);

/// Who lies below may install.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Limit(pub u32);

impl Bucket {
    /// The bucket of `device` in the rollout of `manifest` on `channel`.
    pub fn of(manifest: &Digest, channel: &ChannelId, device: &DeviceId) -> Self {
        let digest = Digest::of_parts(
            "lockgate bucket v1",
            &[&manifest.0, channel.as_str().as_bytes(), &device.0],
        );
        let [a, b, c, d, ..] = digest.0;
        Self(u32::from_be_bytes([a, b, c, d]))
    }
}

impl Limit {
    /// Nobody.
    pub const NOBODY: Self = Self(0);
    /// Everybody, the highest bucket included.
    pub const EVERYBODY: Self = Self(u32::MAX);

    /// Whether a device with this bucket may install.
    pub const fn admits(self, bucket: Bucket) -> bool {
        self.0 == u32::MAX || bucket.0 < self.0
    }

    /// The limit that lets this bucket in and nothing above it.
    pub const fn just_above(bucket: Bucket) -> Self {
        Self(bucket.0.saturating_add(1))
    }

    /// The limit below which a share of all buckets lies, in millionths; a million and more is
    /// everybody.
    pub const fn of_share_ppm(ppm: u32) -> Self {
        if ppm >= 1_000_000 {
            return Self::EVERYBODY;
        }
        Self(((ppm as u64) * (1 << 32) / 1_000_000) as u32)
    }

    /// The largest share in millionths whose limit is not above this one: for the limit of a share, that
    /// very share.
    pub const fn share_ppm(self) -> u32 {
        if self.0 == u32::MAX {
            return 1_000_000;
        }
        let ppm = (((self.0 as u64) * 1_000_000) >> 32) as u32;
        // A limit is rounded down to a whole bucket, and its share with it.
        if Self::of_share_ppm(ppm + 1).0 <= self.0 { ppm + 1 } else { ppm }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ppm = self.share_ppm();
        write!(f, "{}.{:04} %", ppm / 10_000, ppm % 10_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whoever_is_let_in_stays_in_as_the_limit_rises(
            number: u32, salt: u8, low in 0..=1_000_000_u32, more in 0..=1_000_000_u32,
        ) {
            let channel: ChannelId = "stable".parse().expect("a name of this test");
            let bucket = Bucket::of(&Digest([salt; 32]), &channel, &device(number));
            let (low, high) = (Limit::of_share_ppm(low), Limit::of_share_ppm(low.saturating_add(more)));
            prop_assert!(!low.admits(bucket) || high.admits(bucket));
        }

        #[test]
        fn a_limit_just_above_a_bucket_lets_in_exactly_those_up_to_it(top: u32, other: u32) {
            let limit = Limit::just_above(Bucket(top));
            // At the very top a limit lets everybody in.
            prop_assert_eq!(limit.admits(Bucket(other)), other <= top);
        }

        #[test]
        fn a_share_is_shown_as_it_was_asked_for(ppm in 0..=1_000_000_u32) {
            let shown = Limit::of_share_ppm(ppm).share_ppm();
            prop_assert_eq!(shown, ppm);
        }

        #[test]
        fn no_limit_is_shown_as_a_share_that_lets_in_more(limit: u32) {
            let limit = Limit(limit);
            let shown = limit.share_ppm();
            prop_assert!(Limit::of_share_ppm(shown) <= limit);
            prop_assert!(shown == 1_000_000 || limit < Limit::of_share_ppm(shown + 1));
        }
    }

    #[test]
    fn people_read_the_share_that_they_wrote() {
        for (ppm, text) in [(50_000, "5.0000 %"), (900_000, "90.0000 %"), (1, "0.0001 %")] {
            assert_eq!(Limit::of_share_ppm(ppm).to_string(), text);
        }
        assert_eq!(Limit::NOBODY.to_string(), "0.0000 %");
        assert_eq!(Limit::EVERYBODY.to_string(), "100.0000 %");
    }

    fn device(number: u32) -> DeviceId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        DeviceId(id)
    }

    #[test]
    fn a_share_of_the_limit_lets_in_that_share_of_the_fleet() {
        let channel: ChannelId = "stable".parse().expect("a name of this test");
        let manifest = Digest([7; 32]);
        for ppm in [10_000, 100_000, 500_000] {
            let limit = Limit::of_share_ppm(ppm);
            let inside = (0..20_000)
                .filter(|n| limit.admits(Bucket::of(&manifest, &channel, &device(*n))))
                .count() as f64;
            let share = f64::from(ppm) / 1e6;
            let spread = 5.0 * (20_000.0 * share * (1.0 - share)).sqrt();
            assert!((inside - 20_000.0 * share).abs() < spread, "{ppm} ppm let in {inside}");
        }
    }

    #[test]
    fn another_release_draws_another_order() {
        let channel: ChannelId = "stable".parse().expect("a name of this test");
        let first = |manifest: Digest| {
            (0..1000u32)
                .min_by_key(|n| Bucket::of(&manifest, &channel, &device(*n)))
                .expect("a thousand devices")
        };
        let distinct: std::collections::BTreeSet<u32> =
            (0..20u8).map(|salt| first(Digest([salt; 32]))).collect();
        assert!(distinct.len() > 15, "the same devices were first: {distinct:?}");
    }

    #[test]
    fn everybody_includes_the_highest_bucket_and_nobody_excludes_the_lowest() {
        assert!(Limit::EVERYBODY.admits(Bucket(u32::MAX)));
        assert!(!Limit::NOBODY.admits(Bucket(0)));
        assert!(Limit::just_above(Bucket(9)).admits(Bucket(9)));
        assert!(!Limit::just_above(Bucket(9)).admits(Bucket(10)));
    }
}
