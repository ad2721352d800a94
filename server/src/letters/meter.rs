//! How often one device or one address comes: a count per minute in a table of fixed size, so that
//! nobody can fill the memory with new names. Names that fall into one place share its count; where
//! they fall is drawn at the start, so that nobody can choose a place beside somebody else.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use lockgate_shared::time::{Moment, Seconds};

/// Places of a table: 2 MiB. A million devices that poll every five minutes leave about one letter a
/// minute in each.
const PLACES: usize = 1 << 18;
const MINUTE: i64 = 60;

/// Counts within the current minute.
#[derive(Debug)]
pub struct Meter {
    most: u32,
    places: Box<[AtomicU64]>,
    state: RandomState,
}

impl Meter {
    /// A meter that lets `most` pass in a minute.
    pub fn new(most: u32) -> Self {
        let places = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { most, places, state: RandomState::new() }
    }

    /// Counts one; too many are told after how long to come again.
    pub fn pass(&self, name: &impl Hash, now: Moment) -> Result<(), Seconds> {
        let minute = now.0.div_euclid(MINUTE).unsigned_abs() & 0xffff_ffff;
        let place = self.state.hash_one(name) as usize % PLACES;
        let Some(place) = self.places.get(place) else { return Ok(()) };
        let counted = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            let count = if old >> 32 == minute { old & 0xffff_ffff } else { 0 };
            (count < u64::from(self.most)).then_some(minute << 32 | (count + 1))
        });
        let left = MINUTE - now.0.rem_euclid(MINUTE);
        counted.map(|_| ()).map_err(|_| Seconds(left.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_stopped_until_the_next_minute_and_others_go_on() {
        let meter = Meter::new(3);
        let now = Moment(120);
        assert!((0..3).all(|_| meter.pass(&"a", now).is_ok()));
        assert_eq!(meter.pass(&"a", Moment(130)), Err(Seconds(50)));
        assert!(meter.pass(&"b", now).is_ok());
        assert!(meter.pass(&"a", Moment(180)).is_ok());
    }
}
