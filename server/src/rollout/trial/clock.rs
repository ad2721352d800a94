//! The rollout's own clock, and how much of the fleet it allows. It stands still while anything makes
//! the gate wait, and runs slowly while the evidence is undecided. It opens nothing by itself: groups
//! earn their part of what it allows (see [`super::room`]).
//!
//! ```text
//!   0 h       10 h            22 h       27 h           39 h            60 h        64 h
//!   | sentinels | canary, linear | it stays | groups left out | ramp, doubling | hold-back | everybody
//! ```

use serde::{Deserialize, Serialize};

use super::terms::Terms;

/// How long the clock may run slowly in all: this part of the whole schedule, a day of the routine one.
const SLOW_MOST: f64 = 24.0 / 64.0;
/// How fast it runs then.
const SLOW: f64 = 0.25;

/// The clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    hours: f64,
    slow: f64,
}

/// The step inside a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// A handful.
    Sentinel,
    /// As many as cover the groups.
    Canary,
    /// Exponential growth.
    Ramp,
    /// All but the controls.
    HoldBack,
    /// Everybody.
    Open,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 5] =
        [Self::Sentinel, Self::Canary, Self::Ramp, Self::HoldBack, Self::Open];

    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sentinel => "sentinels",
            Self::Canary => "canary",
            Self::Ramp => "ramp",
            Self::HoldBack => "hold-back",
            Self::Open => "open",
        }
    }
}

/// What the clock needs to know to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Sentinels that were well at their age.
    pub lived: u32,
    /// Whether enough devices are well at the age asked for before the ramp.
    pub rest: Rest,
    /// Devices in the fleet.
    pub devices: u32,
    /// How the evidence stands.
    pub pace: Pace,
}

/// Whether enough devices lived long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They did.
    Enough,
    /// They did not yet.
    Wanting,
}

/// How the clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// An hour an hour.
    Full,
    /// The evidence is close to its threshold.
    Slow,
    /// Something makes the gate wait.
    Stand,
}

impl Clock {
    /// Where it stands, in hours.
    pub const fn hours(&self) -> f64 {
        self.hours
    }

    /// The phase.
    pub fn phase(&self, terms: &Terms) -> Phase {
        match self.hours {
            h if h < terms.canary_from_h => Phase::Sentinel,
            h if h < terms.ramp_from_h => Phase::Canary,
            h if h < terms.ramp_to_h => Phase::Ramp,
            h if h < terms.open_h => Phase::HoldBack,
            _ => Phase::Open,
        }
    }

    /// An hour passes.
    pub fn advance(&mut self, terms: &Terms, shown: &Shown) {
        let step = match shown.pace {
            Pace::Stand => return,
            Pace::Slow if self.slow < SLOW_MOST * terms.open_h => {
                self.slow += 1.0;
                SLOW
            }
            Pace::Slow | Pace::Full => 1.0,
        };
        let next = self.hours + step;
        let waits = |at: f64, shown: bool| self.hours < at && next >= at && !shown;
        if waits(terms.canary_from_h, shown.lived >= 2.min(shown.devices))
            || waits(terms.ramp_from_h, shown.rest == Rest::Enough)
        {
            return;
        }
        self.hours = next;
    }

    /// Devices that may be let in by now while the canary lasts, those chosen for coverage included.
    pub fn canary(&self, terms: &Terms, devices: u32) -> f64 {
        let (crew, full) = (f64::from(terms.sentinels(devices)), terms.canary(devices));
        let length = (terms.canary_full_h - terms.canary_from_h).max(1.0);
        let part = ((self.hours - terms.canary_from_h) / length).clamp(0.0, 1.0);
        crew.min(full) + (full - crew).max(0.0) * part
    }

    /// The share of the fleet that the schedule allows from the ramp on; nothing before.
    pub fn ramp(&self, terms: &Terms, devices: u32) -> f64 {
        match self.phase(terms) {
            Phase::Sentinel | Phase::Canary => 0.0,
            Phase::Ramp => {
                let first = (terms.canary(devices) / f64::from(devices.max(1))).min(0.5);
                let last = 1.0 - terms.hold_back;
                let length = terms.ramp_to_h - terms.ramp_from_h;
                let part = (self.hours - terms.ramp_from_h + 1.0) / length;
                (first * (last / first).powf(part.min(1.0))).min(last)
            }
            Phase::HoldBack => 1.0 - terms.hold_back,
            Phase::Open => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Shown = Shown { lived: 5, rest: Rest::Enough, devices: 10_000, pace: Pace::Full };

    fn after(hours: u32, shown: Shown) -> Clock {
        let mut clock = Clock::default();
        for _ in 0..hours {
            clock.advance(&Terms::routine(), &shown);
        }
        clock
    }

    #[test]
    fn everybody_is_in_after_the_hours_of_the_ladder_and_the_share_never_falls() {
        let terms = Terms::routine();
        let mut before = 0.0;
        for hours in 0..80 {
            let share = after(hours, WELL).ramp(&terms, 10_000);
            assert!(share >= before);
            before = share;
        }
        assert_eq!(after(64, WELL).phase(&terms), Phase::Open);
        assert!((before - 1.0).abs() < f64::EPSILON);
        assert!(after(63, WELL).ramp(&terms, 10_000) < 0.91);
    }

    #[test]
    fn without_living_sentinels_nobody_else_and_without_a_soak_no_ramp() {
        let terms = Terms::routine();
        assert_eq!(after(500, Shown { lived: 1, ..WELL }).phase(&terms), Phase::Sentinel);
        assert_eq!(after(500, Shown { rest: Rest::Wanting, ..WELL }).phase(&terms), Phase::Canary);
        assert!(after(500, Shown { pace: Pace::Stand, ..WELL }).hours() < 1.0);
        let slow = after(60, Shown { pace: Pace::Slow, ..WELL });
        assert!((slow.hours() - 42.0).abs() < 1e-9, "{}", slow.hours());
    }
}
