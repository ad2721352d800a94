//! Who is let in by name, so that every group has a device early. The one to be drawn is a lottery
//! among candidates that were fixed before: devices of the group that were heard lately and that no
//! other group of theirs keeps back. Each was equally likely, and so each draw is evidence on silence:
//! the chosen one's share among the silent candidates.
//!
//! The draw is by a hash of the hour and the device, never by the bucket: so who lost a draw is as
//! likely as before to lie below the next limit.

use lockgate_shared::id::Digest;
use serde::{Deserialize, Serialize};

use super::{
    looks::{LOOKS, Stakes},
    roster::{Device, Group},
};

/// A candidate that has not polled since the draw.
const UNHEARD: u32 = u32::MAX;
/// A candidate whose next poll came too late, or at which more than the bucket spoke against it.
const DROPPED: u32 = u32::MAX - 1;

/// One draw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// Who was drawn.
    pub chosen: Device,
    /// The hour.
    pub hour: u32,
    /// Hours within which a candidate's next poll must come.
    pub within: u32,
    candidates: Vec<(Device, u32)>,
}

/// What a poll said besides the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Everything else said yes.
    AtRisk,
    /// Something else said no.
    Kept,
}

impl Draw {
    /// Draws one of these candidates; nobody from nobody.
    pub fn among(candidates: &[Device], salt: &Digest, hour: u32, within: u32) -> Option<Self> {
        let chosen = *candidates.iter().min_by_key(|device| ticket(salt, hour, **device))?;
        let candidates = candidates.iter().map(|device| (*device, UNHEARD)).collect();
        Some(Self { chosen, hour, within, candidates })
    }

    /// The candidates.
    pub fn candidates(&self) -> impl Iterator<Item = Device> {
        self.candidates.iter().map(|(device, _)| *device)
    }

    /// A candidate polls: its looks count from its first poll after the draw.
    pub fn heard(&mut self, device: Device, hour: u32, poll: Poll) {
        let in_time = hour <= self.hour + self.within;
        for (candidate, slot) in &mut self.candidates {
            if *candidate == device && *slot == UNHEARD {
                *slot = match poll {
                    Poll::AtRisk if in_time => hour,
                    Poll::AtRisk | Poll::Kept => DROPPED,
                };
            }
        }
    }

    /// Whether nobody need wait for the one that was drawn: it said that more than its bucket keeps it back,
    /// as a pin does, or was not heard for so many hours. It may still come.
    pub fn stays_away(&self, hour: u32, hours: u32) -> bool {
        self.candidates.iter().any(|(device, slot)| {
            *device == self.chosen
                && match *slot {
                    DROPPED => true,
                    UNHEARD => hour > self.hour + hours,
                    _ => false,
                }
        })
    }

    /// The candidates that polled in time, with the hours of their polls.
    pub fn present(&self) -> impl Iterator<Item = (Device, u32)> {
        self.candidates.iter().copied().filter(|(_, slot)| *slot < DROPPED)
    }

    /// When a look at this draw is complete: the first hour after it.
    pub const fn closes(&self, look: usize) -> u32 {
        self.hour + self.within + LOOKS[look].to + 1
    }
}

/// A device's ticket in the draws of an hour.
pub fn ticket(salt: &Digest, hour: u32, device: Device) -> u64 {
    let parts: [&[u8]; 3] = [&salt.0, &hour.to_be_bytes(), &device.to_be_bytes()];
    let [a, b, c, d, e, f, g, h, ..] = Digest::of_parts("lockgate coverage draw v1", &parts).0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// What a draw contributes to a group: the chosen one's stake (one when it was seen) over the mean of
/// all. `others` are the stakes of the silent among the candidates of that group, the chosen one's
/// included, and `count` is how many candidates of the group polled.
pub fn contribution(
    chosen: Option<&Stakes>,
    silent: &[Stakes],
    count: usize,
    tolerance: f64,
) -> Stakes {
    let mut change = [0.0; super::looks::RATES.len()];
    for (place, change) in change.iter_mut().enumerate() {
        let excess: f64 = silent.iter().map(|stakes| stakes[place] - 1.0).sum();
        let expected = (tolerance * excess / count.max(1) as f64).ln_1p();
        *change = chosen.map_or(0.0, |stakes| stakes[place].ln()) - expected;
    }
    change
}

/// A draw that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// For which group.
    pub group: Group,
    /// How many devices.
    pub devices: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Digest = Digest([7; 32]);

    #[test]
    fn every_candidate_is_drawn_about_as_often() {
        let candidates: Vec<Device> = (0..8).collect();
        let mut drawn = [0u32; 8];
        for hour in 0..4000 {
            let draw = Draw::among(&candidates, &SALT, hour, 3).expect("eight candidates");
            drawn[draw.chosen as usize] += 1;
        }
        assert!(drawn.iter().all(|count| (400..600).contains(count)), "{drawn:?}");
    }

    #[test]
    fn who_polls_late_or_is_kept_back_by_something_else_is_out() {
        let mut draw = Draw::among(&[1, 2, 3, 4], &SALT, 10, 3).expect("four candidates");
        draw.heard(1, 11, Poll::AtRisk);
        draw.heard(2, 14, Poll::AtRisk);
        draw.heard(3, 11, Poll::Kept);
        draw.heard(3, 12, Poll::AtRisk);
        assert_eq!(draw.present().collect::<Vec<_>>(), [(1, 11)]);
    }

    #[test]
    fn over_all_draws_the_contribution_has_the_mean_one() {
        let stakes = [2.0, 3.0, 5.0, 9.0, 20.0, 60.0, 90.0];
        let silent = [stakes, stakes];
        let of = |chosen| contribution(chosen, &silent, 10, 1.0);
        for place in 0..stakes.len() {
            let mean = 0.2 * of(Some(&stakes))[place].exp() + 0.8 * of(None)[place].exp();
            assert!((mean - 1.0).abs() < 1e-9, "{mean}");
        }
    }
}
