//! How far a gap in the stream may move the gatekeeper. It holds a gap against what an honest letter box
//! can leave out; whether its entries count is asked elsewhere. A letter box whose own store was restored
//! leaves no gap here: it goes on behind what was counted ([`crate::letters::LetterBox::follow`]).
//!
//! An honest letter box takes letters away once the gatekeeper has them, so only a gatekeeper whose own
//! store is older than that, a backup or a new one, meets gaps. A stolen letter box numbers its entries
//! as it likes. Followed without a bound, the gatekeeper would count beyond every entry that an honest
//! letter box in its place will ever have, and never hear another letter.

use lockgate_shared::time::Moment;

/// Entries that may be missing within an hour: ten million devices that poll hourly leave so many in
/// nine months, and whoever jumps as far each hour needs longer than mankind to the last number.
pub const MISSING_HOURLY: u64 = 1 << 36;

/// What was passed over within the hour. In memory only: a restart begins the hour anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaps {
    hour: i64,
    passed: u64,
}

impl Gaps {
    /// Whether so many missing entries may be passed over, which are counted then.
    pub fn pass(&mut self, missing: u64, now: Moment) -> bool {
        let hour = now.0.div_euclid(3_600);
        if self.hour != hour {
            *self = Self { hour, passed: 0 };
        }
        let passed = self.passed.saturating_add(missing);
        let good = passed <= MISSING_HOURLY;
        if good {
            self.passed = passed;
        }
        good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_gaps_go_no_further_than_a_large_one() {
        let mut gaps = Gaps::default();
        assert!(!gaps.pass(u64::MAX, Moment(0)));
        assert!(gaps.pass(MISSING_HOURLY - 1, Moment(1)));
        assert!(gaps.pass(1, Moment(2)));
        assert!(!gaps.pass(1, Moment(3_599)));
        assert!(gaps.pass(1, Moment(3_600)), "an hour later");
    }
}
