//! In which hours each device was heard: a bit for each of the last 128 hours. Sixteen bytes a device
//! answer every question that the looks ask, without a letter being kept.

use serde::{Deserialize, Serialize};

use super::roster::Device;

/// Hours that are remembered.
pub const HOURS: u32 = 128;

/// The hours of all devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heard(Vec<u128>);

/// A span of hours as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(u128);

impl Span {
    /// The hours from `first` to `last`, both included; nothing when `last` comes first.
    pub fn of(first: u32, last: u32) -> Self {
        (first..=last).fold(Self(0), |span, hour| Self(span.0 | 1 << (hour % HOURS)))
    }
}

impl Heard {
    /// Nobody was heard yet.
    pub fn new(devices: u32) -> Self {
        Self(vec![0; devices as usize])
    }

    /// What was heard of a device before: its highest bit is the hour before `hour`.
    pub fn recall(&mut self, device: Device, history: u128, hour: u32) {
        for back in 1..hour.min(HOURS) {
            if history >> (HOURS - back) & 1 == 1 {
                self.note(device, hour - back);
            }
        }
    }

    /// The device was heard.
    pub fn note(&mut self, device: Device, hour: u32) {
        self.0[device as usize] |= 1 << (hour % HOURS);
    }

    /// A new hour begins: what was noted in the same place so many hours ago is forgotten.
    pub fn begin(&mut self, hour: u32) {
        let keep = !(1 << (hour % HOURS));
        for hours in &mut self.0 {
            *hours &= keep;
        }
    }

    /// Whether the device was heard in any of these hours.
    pub fn any(&self, device: Device, span: Span) -> bool {
        self.0[device as usize] & span.0 != 0
    }

    /// How many devices were heard in any of these hours.
    pub fn count(&self, span: Span) -> u32 {
        self.0.iter().filter(|hours| **hours & span.0 != 0).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_remembered_for_its_hours_and_then_forgotten() {
        let mut heard = Heard::new(2);
        heard.note(1, 100);
        assert!(heard.any(1, Span::of(90, 100)) && !heard.any(1, Span::of(101, 110)));
        assert!(!heard.any(0, Span::of(90, 110)));
        assert!(!heard.any(1, Span::of(101, 100)));
        heard.begin(228);
        assert!(!heard.any(1, Span::of(228, 228)));
    }
}
