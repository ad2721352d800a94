//! The least that a device believes of the time, and the timestamp it has seen expired.
//!
//! The floor never follows the bare clock upwards: it rises only with a refresh that succeeded, to
//! the moment that the timestamp's signer wrote into it (or, where none is written, to the clock,
//! which the unexpired chain has then bounded). So a clock set back revives nothing, and a clock set
//! forward for a while locks nothing out: the one mark it can leave, "this timestamp was seen
//! expired", ends with the next timestamp.

use lockgate_shared::time::Moment;
use serde::{Deserialize, Serialize};

use super::authority::AuthorityId;

/// Persisted by the shell after every refresh, also after one that failed. Without it (a new
/// device, a lost file) a device starts over with its clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    moment: Option<Moment>,
    /// Newest timestamp version that was seen expired.
    expired: Option<u64>,
    /// The online keys that both come from. When a root replaces those keys, what they said is
    /// forgotten, so that a thief's timestamp cannot bind a device beyond the theft's repair.
    keys: Option<String>,
}

/// What [`Floor::bind`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// The same keys as before, or the first ever.
    Kept,
    /// Other keys: the floor is empty again.
    Rekeyed,
}

impl Floor {
    /// The time to hold expiry against: the clock's, or the floor if that is later.
    pub fn effective(&self, now: Moment) -> Moment {
        self.moment.map_or(now, |moment| moment.max(now))
    }

    /// The floor itself.
    pub fn moment(&self) -> Option<Moment> {
        self.moment
    }

    /// Whether a timestamp of this version, or a newer one, was seen expired.
    pub(super) fn refuses(&self, timestamp: u64) -> bool {
        self.expired.is_some_and(|expired| timestamp <= expired)
    }

    /// Notes that a timestamp was seen expired.
    pub(super) fn note_expired(&mut self, timestamp: u64) {
        self.expired = self.expired.max(Some(timestamp));
    }

    /// Notes a refresh that succeeded at `moment`. A moment at which part of the chain would be
    /// expired is not believed, whoever signed it.
    pub(super) fn raise(&mut self, moment: Moment, chain_expires: Moment) {
        if moment < chain_expires {
            self.moment = self.moment.max(Some(moment));
        }
    }

    /// Ties the floor to the online keys of a root, and forgets it if they are others.
    pub(super) fn bind(&mut self, keys: [AuthorityId; 2]) -> Bound {
        let keys = hex::encode(keys.concat());
        let bound = match &self.keys {
            Some(old) if *old != keys => {
                *self = Self::default();
                Bound::Rekeyed
            }
            Some(_) | None => Bound::Kept,
        };
        self.keys = Some(keys);
        bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_only_rises_and_never_beyond_what_the_chain_allows() {
        let mut floor = Floor::default();
        assert_eq!(floor.effective(Moment(50)), Moment(50));
        floor.raise(Moment(100), Moment(200));
        floor.raise(Moment(90), Moment(200));
        floor.raise(Moment(200), Moment(200));
        assert_eq!(floor.moment(), Some(Moment(100)));
        assert_eq!(floor.effective(Moment(50)), Moment(100));
        assert_eq!(floor.effective(Moment(150)), Moment(150));
    }

    #[test]
    fn a_version_seen_expired_is_refused_until_a_newer_one() {
        let mut floor = Floor::default();
        assert!(!floor.refuses(1));
        floor.note_expired(7);
        floor.note_expired(5);
        assert!(floor.refuses(7) && floor.refuses(5) && !floor.refuses(8));
        floor.note_expired(u64::MAX);
        assert!(floor.refuses(u64::MAX));
    }

    #[test]
    fn other_keys_empty_the_floor_and_the_first_ones_do_not() {
        let mut floor = Floor::default();
        floor.raise(Moment(100), Moment(200));
        assert_eq!(floor.bind([[1; 32], [2; 32]]), Bound::Kept);
        assert_eq!(floor.bind([[1; 32], [2; 32]]), Bound::Kept);
        assert_eq!(floor.moment(), Some(Moment(100)));
        assert_eq!(floor.bind([[1; 32], [3; 32]]), Bound::Rekeyed);
        assert_eq!(floor.moment(), None);
    }

    #[test]
    fn the_floor_survives_being_written_and_read() {
        let mut floor = Floor::default();
        floor.bind([[1; 32], [2; 32]]);
        floor.raise(Moment(100), Moment(200));
        floor.note_expired(u64::MAX);
        let text = serde_json::to_string(&floor).expect("plain data");
        assert_eq!(serde_json::from_str::<Floor>(&text).expect("as written"), floor);
    }
}
