//! Asks the machine for the time: the only file of the agent that does, besides the one for chance
//! ([`crate::dice`]). Decisions take what it says as an argument.
//!
//! Wall time and time since boot are both kept, because laptops sleep, clocks jump, and some devices
//! start in 1970. It refuses to judge which of the two is right: that is `core`'s.
#![expect(clippy::disallowed_methods, reason = "this file is where the machine's clocks are asked")]

use std::{
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lockgate_shared::{
    id::Digest,
    time::{Moment, Seconds},
};

/// The wall clock's time, which may be wrong.
pub fn now() -> Moment {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Moment(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
        Err(before) => {
            Moment(i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |ago| -ago))
        }
    }
}

/// How long ago the machine booted, its sleep included. Zero where the system does not say.
pub fn uptime() -> Seconds {
    fs::read_to_string("/proc/uptime")
        .ok()
        .and_then(|text| whole_seconds(&text))
        .unwrap_or_default()
}

/// A digest that is the same until the machine boots again: tells a restarted agent from a restarted
/// machine. The system's own number stays on the device. `None` where the system has none.
pub fn boot() -> Option<Digest> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(Digest::of_parts("lockgate boot v1", &[id.trim().as_bytes()]))
}

/// Measures a span within this process; it does not run while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long ago it was started.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// What is left of `limit`, or `None` when it has passed.
    pub fn left(&self, limit: Duration) -> Option<Duration> {
        limit.checked_sub(self.elapsed()).filter(|left| !left.is_zero())
    }
}

fn whole_seconds(text: &str) -> Option<Seconds> {
    text.split(['.', ' ']).next()?.parse().ok().map(Seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_read_in_whole_seconds_and_nonsense_is_nothing() {
        assert_eq!(whole_seconds("350735.47 234388.90\n"), Some(Seconds(350_735)));
        assert_eq!(whole_seconds("never"), None);
        assert_eq!(whole_seconds(""), None);
    }

    #[test]
    fn the_boot_digest_stays_the_same_within_a_boot() {
        assert_eq!(boot(), boot());
    }

    #[test]
    fn a_stopwatch_has_nothing_left_of_no_time() {
        assert_eq!(Stopwatch::start().left(Duration::ZERO), None);
        assert!(Stopwatch::start().left(Duration::from_secs(3600)).is_some());
    }
}
