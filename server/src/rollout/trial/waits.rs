//! What makes a trial wait, for what, and how long: nothing here waits for more than the fleet can show,
//! nor for good. It opens nothing.

use std::fmt;

use lockgate_shared::{count::count, group::Habit};

use super::{
    Case, Guard, State, Trial,
    clock::{Pace, Phase, Rest},
    heard::Span,
    judge::{self, Verdict},
    reports::Part,
    room,
    roster::{Device, FLEET, Group},
    steps::ASKED,
};

/// A drop of those heard to this share of yesterday's is an outage: nothing opens.
const OUTAGE: f64 = 0.6;
/// Devices that must have lived for each one that had been well and failed later, before more are let in.
const LATE_EACH: u32 = 40;
/// At most one device in so many must have: a small fleet's canary has no more to show.
const LATE_PART: u32 = 10;
/// So many first devices that fall silent at once make the gate wait …
const STARTLING: usize = 3;
/// … when chance would do it about once in so many hours, as a logarithm.
const STARTLED: f64 = 6.0;
/// Sentinels that must have lived before the canary begins.
const LIVED: u32 = 2;

/// What a trial waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A few surprises that nothing explains.
    Unexplained,
    /// Far fewer devices are heard than a day ago.
    Outage,
    /// Many of the first devices fell silent at once.
    Startled,
    /// The evidence is close to its threshold.
    Near,
    /// Sentinels have to live.
    Sentinels(Asked),
    /// The first devices have to live before the ramp, of which so many failed after they had been well.
    Rest(Asked, u32),
    /// So many groups have to show devices of their own that lived for so many slots.
    Soaks(u32, u32),
}

/// Devices that have to be well for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How many are.
    pub lived: u32,
    /// How many must be.
    pub devices: u32,
    /// For how many slots.
    pub slots: u32,
}

impl fmt::Display for Wait {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexplained => to.write_str(
                "a few surprises that no group explains: nothing opens until more is known",
            ),
            Self::Outage => to.write_str(
                "far fewer devices are heard than a day ago: nothing opens on an outage",
            ),
            Self::Startled => to.write_str(
                "many of the first devices fell silent at once: nothing opens until more is known",
            ),
            Self::Near => to.write_str(
                "the evidence against it is close to its threshold: its clock runs slowly",
            ),
            Self::Sentinels(asked) => write!(to, "the canary waits for sentinels: {asked}"),
            Self::Rest(asked, 0) => write!(to, "the ramp waits for the first devices: {asked}"),
            Self::Rest(asked, late) => write!(
                to,
                "the ramp waits, because {} that had been well failed later: {asked}; or all that were there at the last failure must",
                count(*late, "device", "devices")
            ),
            Self::Soaks(groups, slots) => write!(
                to,
                "{} for devices of their own that have been well for {}",
                count(*groups, "group waits", "groups wait"),
                count(*slots, "slot", "slots")
            ),
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = count(self.slots, "slot", "slots");
        write!(to, "of {} that must have been well for {slots}, {} have", self.devices, self.lived)
    }
}

impl Trial {
    pub(super) fn pace(&self) -> Pace {
        if self.verdict == Verdict::Wait || self.is_startled() {
            return Pace::Stand;
        }
        if self.is_close(FLEET) { Pace::Slow } else { Pace::Full }
    }

    /// Whether a group's evidence is close to its threshold.
    pub(super) fn is_close(&self, group: Group) -> bool {
        self.wealth[group as usize] * self.terms.near >= judge::threshold(self, group)
    }

    /// Whether far fewer devices are heard than at this hour yesterday. Then the gate waits: it opens
    /// neither on an outage nor for somebody who drops the controls' letters.
    pub(super) fn is_outage(&self) -> bool {
        let last = self.hour - 1;
        let Some(yesterday) = last.checked_sub(24) else { return false };
        let now = self.heard.count(Span::of(last - 1, last));
        let then = self.heard.count(Span::of(yesterday.saturating_sub(1), yesterday));
        // The other days of the week are no measure: a third of the fleet is enough evidence of life.
        let alive = f64::from(now) >= f64::from(self.roster.len()) * 0.15;
        !alive && f64::from(now) < f64::from(then) * OUTAGE
    }

    /// Whether many of the oldest devices that are always on have fallen silent within the last hours, and
    /// others like them have not. Nothing is proven by it, and nothing opens until it is: in five hours
    /// they are back, or their silence is evidence.
    fn is_startled(&self) -> bool {
        let (hour, early) = (self.hour, self.early.len().min(ASKED));
        let then = Span::of(hour.saturating_sub(6), hour - 2);
        let now = Span::of(hour - 1, hour - 1);
        let there = |device: &Device| {
            self.roster.kind(*device).habit == Habit::AlwaysOn && self.heard.any(*device, then)
        };
        let well = |device: &Device| {
            matches!(self.cases[*device as usize].state, State::Healthy | State::Soaked)
        };
        let mut seen: Vec<(u32, bool)> = self.early[..early]
            .iter()
            .filter(|device| well(device) && there(device))
            .map(|device| (self.cases[*device as usize].begun, self.heard.any(*device, now)))
            .collect();
        if seen.iter().filter(|(_, seen)| !seen).count() < STARTLING {
            return false;
        }
        seen.sort_unstable();
        let step = (self.roster.devices.len() / ASKED).max(1);
        let (mut others, mut gone) = (1.0, 1.0);
        let waits = |device: &Device| self.cases[*device as usize].state == State::Waiting;
        for device in (0..self.roster.len()).step_by(step).filter(|d| waits(d) && there(d)) {
            (others, gone) = (others + 1.0, gone + f64::from(!self.heard.any(device, now)));
        }
        // What comes with age comes to the oldest first: those of one hour come together.
        let (mut all, mut silent) = (0.0, 0.0);
        seen.chunk_by(|one, other| one.0 == other.0).any(|alike| {
            all += alike.len() as f64;
            silent += alike.iter().filter(|(_, seen)| !seen).count() as f64;
            let usual = all * gone / others;
            // How unlikely so many are, by Poisson's law.
            silent >= STARTLING as f64
                && silent > usual
                && silent * (silent / usual).ln() - (silent - usual) > STARTLED
        })
    }

    /// What makes it wait, and for what.
    pub fn why_waiting(&self) -> Option<Wait> {
        match self.verdict {
            Verdict::Halt => None,
            Verdict::Wait => Some(Wait::Unexplained),
            Verdict::Open if self.is_outage() => Some(Wait::Outage),
            Verdict::Open if self.is_startled() => Some(Wait::Startled),
            Verdict::Open if self.pace() == Pace::Slow => Some(Wait::Near),
            Verdict::Open => self.wanted(),
        }
    }

    /// What has to be shown before it goes on, when its time has come.
    fn wanted(&self) -> Option<Wait> {
        let (terms, next) = (&self.terms, self.clock.hours() + 1.0);
        match self.phase() {
            Phase::Sentinel => {
                let (devices, slots) = (LIVED.min(self.roster.len()), terms.sentinel_live_h);
                let asked = Asked { lived: self.lived(), devices, slots };
                (next >= terms.canary_from_h && asked.lived < asked.devices)
                    .then_some(Wait::Sentinels(asked))
            }
            Phase::Canary => {
                let waits = next >= terms.ramp_from_h && self.rest() == Rest::Wanting;
                waits.then(|| {
                    let (asked, late) = self.asked();
                    Wait::Rest(asked, late)
                })
            }
            Phase::Ramp | Phase::HoldBack | Phase::Open => self.soaks(),
        }
    }

    /// The groups that are narrower than the fleet because nobody of theirs lived long enough yet.
    fn soaks(&self) -> Option<Wait> {
        let waits = |group: &Group| {
            let tally = self.tally(*group);
            self.guard(*group) == Guard::Own
                && tally.limit < self.fleet_limit
                && !room::soaked(&self.roster, &self.terms, *group, tally)
        };
        let groups = (0..self.roster.groups.len() as Group).filter(waits).count() as u32;
        let slots = self.terms.soak_at(self.clock.hours());
        (groups > 0).then_some(Wait::Soaks(groups, slots))
    }

    /// Sentinels that lived long enough for the next step: asked only while there are few.
    pub(super) fn lived(&self) -> u32 {
        let hour = self.hour;
        let lately = Span::of(hour.saturating_sub(2), hour.saturating_sub(1));
        if self.clock.hours() >= self.terms.canary_from_h {
            return u32::MAX;
        }
        self.draws
            .iter()
            .filter(|draw| {
                let case = self.cases[draw.chosen as usize];
                matches!(case.state, State::Healthy | State::Soaked)
                    && hour.saturating_sub(case.begun) >= self.terms.sentinel_live_h
                    && self.heard.any(draw.chosen, lately)
            })
            .count() as u32
    }

    /// Whether enough devices lived long enough for the next step: half a crew of sentinels, and where some
    /// of those who had been well failed later, forty for each of them and a tenth of a small fleet, or all
    /// that were there when the last one failed. Whoever came since may not put it off: the wait ends by
    /// itself.
    pub(super) fn rest(&self) -> Rest {
        if self.clock.hours() >= self.terms.ramp_from_h {
            return Rest::Enough;
        }
        let (asked, late) = self.asked();
        let live = self.terms.ramp_live_h;
        let young = || {
            self.early.iter().any(|device| {
                let Case { begun, state, .. } = self.cases[*device as usize];
                let ended = matches!(state, State::Failed | State::Nothing);
                !ended && begun <= self.late && self.hour.saturating_sub(begun) < live
            })
        };
        let enough =
            asked.lived >= self.crew() && (asked.lived >= asked.devices || late > 0 && !young());
        if enough { Rest::Enough } else { Rest::Wanting }
    }

    /// Half a crew of sentinels.
    fn crew(&self) -> u32 {
        let crew = self.terms.sentinels(self.roster.len()).min(self.roster.len());
        (crew / 2).clamp(1, 50)
    }

    /// Whom the ramp asks for, and for how many that failed after they had been well.
    fn asked(&self) -> (Asked, u32) {
        let (lately, slots) =
            (Span::of(self.hour.saturating_sub(3), self.hour - 1), self.terms.ramp_live_h);
        let rested = self.early.iter().filter(|device| {
            let case = self.cases[**device as usize];
            matches!(case.state, State::Healthy | State::Soaked)
                && self.hour.saturating_sub(case.begun) >= slots
                && self.heard.any(**device, lately)
        });
        let lived = rested.count() as u32;
        let failed = |(device, part, _): &&(Device, Part, f64)| {
            matches!(part, Part::Soak(_)) && !self.is_held(*device)
        };
        let late = self.failures.iter().filter(failed).count() as u32;
        let devices = (LATE_EACH * late).min(self.roster.len() / LATE_PART).max(self.crew());
        (Asked { lived, devices, slots }, late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_is_told_for_how_many_and_how_long() {
        let asked = Asked { lived: 1, devices: 2, slots: 8 };
        assert_eq!(
            Wait::Sentinels(asked).to_string(),
            "the canary waits for sentinels: of 2 that must have been well for 8 slots, 1 have"
        );
        assert_eq!(
            Wait::Rest(Asked { lived: 12, devices: 40, slots: 27 }, 1).to_string(),
            "the ramp waits, because 1 device that had been well failed later: of 40 that must have been well for 27 slots, 12 have; or all that were there at the last failure must"
        );
        assert_eq!(
            Wait::Soaks(1, 26).to_string(),
            "1 group waits for devices of their own that have been well for 26 slots"
        );
    }
}
