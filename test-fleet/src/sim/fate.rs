//! What the release and the world do to a device that installs: whether it fails, when, and whether it is
//! heard of again. It decides nothing that an agent decides.

use super::{
    TICKS_PER_HOUR,
    dice::Dice,
    fleet::Fleet,
    presence::Calendar,
    scenario::{How, Scenario},
};

/// A fleet in its scenario.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The fleet.
    pub fleet: &'a Fleet,
    /// What happens to it.
    pub scenario: &'a Scenario,
    /// Its days.
    pub calendar: Calendar,
}

/// An install under way or over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Install {
    /// Whether the release is bad for the device.
    pub hit: bool,
    /// Ticks since it began.
    pub age: u32,
    /// Ticks that it takes, its trial included.
    pub length: u32,
}

impl<'a> World<'a> {
    /// A fleet in this scenario.
    pub const fn new(fleet: &'a Fleet, scenario: &'a Scenario) -> Self {
        Self { fleet, scenario, calendar: Calendar::new(scenario.beside) }
    }

    fn own(&self, device: u32) -> Dice {
        self.fleet.dice.of(30).of(u64::from(device))
    }

    /// Whether the trial that ends at this tick ends badly.
    pub fn fails_in_trial(&self, device: u32, install: Install, tick: u32) -> bool {
        let explicit = |hit: super::scenario::Hit| hit.after_h <= 0.0 && hit.how == How::Explicit;
        let prompt = install.hit && self.scenario.hit.is_some_and(explicit);
        let site = self.fleet.devices[device as usize].site;
        let cut = self.scenario.beside.power_cuts > 0.0
            && self.calendar.is_cut(self.fleet.dice, site, tick)
            && self.own(device).of(3).hits(self.scenario.beside.power_cuts);
        prompt || cut || self.own(device).hits(self.fleet.kind(device).noise.prompt)
    }

    /// Whether a device that called itself well may still fail.
    pub fn may_fail_late(&self, device: u32, hit: bool) -> bool {
        let shows = hit
            && self.scenario.hit.is_some_and(|hit| match hit.how {
                How::Explicit => hit.after_h > 0.0,
                How::CrashLoop => true,
                How::Silent | How::Half => false,
            });
        shows || self.own(device).of(1).hits(self.fleet.kind(device).noise.late)
    }

    /// Whether a device that called itself well has failed since.
    pub fn fails_late(&self, device: u32, install: Install) -> bool {
        let age = f64::from(install.age) / f64::from(TICKS_PER_HOUR);
        let noise = self.own(device).of(1);
        if noise.hits(self.fleet.kind(device).noise.late) && age >= 48.0 * noise.of(1).unit() {
            return true;
        }
        let Some(hit) = self.scenario.hit.filter(|_| install.hit) else { return false };
        let at = hit.after_h + f64::from(install.length) / f64::from(TICKS_PER_HOUR);
        match hit.how {
            How::Explicit => hit.after_h > 0.0 && age >= at,
            // It tries for some hours before it goes back.
            How::CrashLoop => age >= at + 3.0 + 5.0 * self.own(device).of(2).unit(),
            How::Silent | How::Half => false,
        }
    }

    /// Whether a device with the release on it is not heard at this tick because of the release.
    pub fn silences(&self, device: u32, install: Install, tick: u32) -> bool {
        let Some(hit) = self.scenario.hit.filter(|_| install.hit) else { return false };
        let age = f64::from(install.age) / f64::from(TICKS_PER_HOUR);
        let at = hit.after_h + f64::from(install.length) / f64::from(TICKS_PER_HOUR);
        if age < at {
            return false;
        }
        match hit.how {
            How::Explicit => false,
            How::Silent => true,
            How::Half => self.own(device).of(u64::from(tick)).hits(0.5),
            How::CrashLoop => age < at + 3.0 + 5.0 * self.own(device).of(2).unit(),
        }
    }
}
