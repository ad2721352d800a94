//! When to poll next. Counted in the machine's uptime, so that no jump of the wall clock makes a
//! device poll at once or never; spread by the device's id, so that a fleet never polls as one.
//!
//! It sleeps for nobody: the shell waits until the moment that stands here.

use lockgate_shared::{
    id::{DeviceId, Digest},
    time::Seconds,
    wire::Directive,
};
use serde::{Deserialize, Serialize};

/// The shortest pause between two polls, whatever anybody says.
pub const LEAST: Seconds = Seconds(1);
/// The longest pause between two polls, whatever anybody says: a device must be able to hear of an
/// emergency within a day.
pub const MOST: Seconds = Seconds(86_400);
/// The pause after the first failure; each further one doubles it.
pub const FIRST_BACKOFF: Seconds = Seconds(10);
/// The longest pause between retries until the server has said otherwise.
pub const BACKOFF_MAX: Seconds = Seconds(3600);

/// What the server asked for, and what has happened since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The pause between two polls.
    pub interval: Seconds,
    /// At most this much is added.
    pub jitter: Seconds,
    /// The longest pause between retries.
    pub backoff_max: Seconds,
    /// Polls in the device's life: each draws another place within the jitter.
    pub polls: u64,
    /// Failures in a row.
    pub failures: u32,
}

impl Schedule {
    /// The schedule before a server has said anything: a fifth of the interval, at most a minute, is
    /// jitter.
    pub const fn new(interval: Seconds) -> Self {
        let fifth = interval.0 / 5;
        let jitter = Seconds(if fifth < 60 { fifth } else { 60 });
        Self { interval, jitter, backoff_max: BACKOFF_MAX, polls: 0, failures: 0 }
    }

    /// Takes over what the server asks for.
    pub const fn heed(&mut self, directive: &Directive) {
        self.interval = directive.next_poll;
        self.jitter = directive.jitter;
        self.backoff_max = directive.backoff_max;
    }

    /// The pause before the first poll after a start: a place within the jitter, because a site's
    /// power comes back for all its devices at once.
    pub fn first(&self, device: &DeviceId) -> Seconds {
        Seconds(place(device, self.polls, self.jitter.0).min(MOST.0))
    }

    /// The pause after a poll that succeeded.
    pub fn succeeded(&mut self, device: &DeviceId) -> Seconds {
        self.polls = self.polls.wrapping_add(1);
        self.failures = 0;
        let pause = self.interval.0.saturating_add(place(device, self.polls, self.jitter.0));
        Seconds(pause.clamp(LEAST.0, MOST.0))
    }

    /// The pause after a poll that failed. It doubles with each failure up to the cap, and between
    /// half of it and all of it is drawn; a server that asks for more (`Retry-After`) is heeded and
    /// jitter added, because it asked everybody alike.
    pub fn failed(&mut self, device: &DeviceId, retry_after: Option<Seconds>) -> Seconds {
        self.polls = self.polls.wrapping_add(1);
        let doublings = self.failures.min(32);
        self.failures = self.failures.saturating_add(1);
        let cap = self.backoff_max.0.clamp(FIRST_BACKOFF.0, MOST.0);
        let full = FIRST_BACKOFF.0.saturating_mul(1 << doublings).min(cap);
        let pause = full / 2 + place(device, self.polls, full.div_ceil(2));
        let asked = retry_after.map_or(0, |asked| {
            asked.0.saturating_add(place(device, self.polls, self.jitter.0.max(asked.0 / 10)))
        });
        Seconds(pause.max(asked).clamp(LEAST.0, MOST.0))
    }
}

/// A place from 0 to `width` inclusive, by the device's id and the number of the poll.
fn place(device: &DeviceId, poll: u64, width: u64) -> u64 {
    let digest = Digest::of_parts("lockgate jitter v1", &[&device.0, &poll.to_be_bytes()]);
    let [a, b, c, d, e, f, g, h, ..] = digest.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) % width.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_devices_that_start_together_do_not_poll_together() {
        let mut busiest = [0u32; 61];
        for number in 0..1000 {
            let pause = Schedule::new(Seconds(300)).first(&device(number));
            busiest[usize::try_from(pause.0).expect("small")] += 1;
        }
        assert!(busiest.iter().all(|count| *count < 40), "{busiest:?}");
    }

    #[test]
    fn the_same_device_draws_the_same_pause_again_and_another_one_next_time() {
        let mut a = Schedule::new(Seconds(300));
        let mut b = a.clone();
        let pauses: Vec<Seconds> = (0..8).map(|_| a.succeeded(&device(7))).collect();
        let again: Vec<Seconds> = (0..8).map(|_| b.succeeded(&device(7))).collect();
        assert_eq!(pauses, again);
        let distinct: std::collections::BTreeSet<&Seconds> = pauses.iter().collect();
        assert!(distinct.len() > 4, "{pauses:?}");
        assert!(pauses.iter().all(|pause| (300..=360).contains(&pause.0)), "{pauses:?}");
    }

    #[test]
    fn failures_back_off_up_to_the_cap_and_one_success_ends_it() {
        let mut schedule = Schedule { backoff_max: Seconds(600), ..Schedule::new(Seconds(300)) };
        let pauses: Vec<u64> = (0..40).map(|_| schedule.failed(&device(1), None).0).collect();
        assert!(pauses[0] <= FIRST_BACKOFF.0, "{pauses:?}");
        assert!(pauses.iter().all(|pause| (5..=600).contains(pause)), "{pauses:?}");
        assert!(pauses[20..].iter().all(|pause| *pause >= 300), "{pauses:?}");
        assert!(schedule.succeeded(&device(1)) >= Seconds(300));
        assert!(schedule.failed(&device(1), None) <= FIRST_BACKOFF);
    }

    #[test]
    fn a_server_that_asks_for_patience_gets_it_but_never_more_than_a_day() {
        let mut schedule = Schedule::new(Seconds(60));
        let asked = schedule.failed(&device(1), Some(Seconds(900)));
        assert!((900..=1000).contains(&asked.0), "{asked}");
        assert_eq!(schedule.failed(&device(1), Some(Seconds(u64::MAX))), MOST);
    }

    #[test]
    fn no_server_can_make_a_device_poll_without_pause() {
        let mut schedule = Schedule::new(Seconds(0));
        assert_eq!(schedule.succeeded(&device(1)), LEAST);
        schedule.interval = Seconds(u64::MAX);
        assert_eq!(schedule.succeeded(&device(1)), MOST);
    }

    fn device(number: u32) -> DeviceId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        DeviceId(id)
    }
}
