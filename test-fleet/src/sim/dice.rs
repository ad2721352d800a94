//! Chance from a seed: every draw is a hash of the seed and of what it is for, so that a device's day can
//! be asked for in any order and a run replays to the bit.

/// A stream of draws for one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dice(pub u64);

impl Dice {
    /// The dice for something within this one's purpose.
    #[inline]
    pub const fn of(self, what: u64) -> Self {
        Self(mix(self.0 ^ what.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number below `bound`.
    #[inline]
    pub const fn below(self, bound: u32) -> u32 {
        (((self.0 >> 32) * bound as u64) >> 32) as u32
    }

    /// From 0 to 1.
    #[inline]
    pub fn unit(self) -> f64 {
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of this chance happens.
    #[inline]
    pub fn hits(self, chance: f64) -> bool {
        self.unit() < chance
    }

    /// About normal: mean 0, deviation 1.
    pub fn normal(self) -> f64 {
        (0..12).map(|n| self.of(n).unit()).sum::<f64>() - 6.0
    }

    /// A place from 0 to `count`, the first ones likelier by the power `skew`.
    pub fn zipf(self, count: u32, skew: f64) -> u32 {
        let weights: f64 = (1..=count).map(|n| f64::from(n).powf(-skew)).sum();
        let mut left = self.unit() * weights;
        for n in 1..count {
            left -= f64::from(n).powf(-skew);
            if left < 0.0 {
                return n - 1;
            }
        }
        count - 1
    }
}

#[inline]
const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
