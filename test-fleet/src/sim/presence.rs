//! When devices are on, reachable and free to install: a pure function of device and time, so that no
//! day is stored and a poll costs a few multiplications.

use lockgate_shared::group::Habit;

use super::{
    TICKS_PER_DAY, TICKS_PER_HOUR,
    dice::Dice,
    fleet::{Fleet, Kind},
    scenario::{Beside, Span},
};

/// The local hours of a window.
pub const WINDOW_H: std::ops::Range<u32> = 10..13;

/// Time within a run: what a tick means to devices.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// The tick (since Monday, 0 o'clock, of the first week) at which the rollout starts.
    pub start: u32,
    /// What else goes on.
    pub beside: Beside,
}

/// One device's local day, worked out once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Today {
    /// The day, counted from one; nothing was worked out yet at zero.
    day: u16,
    /// The ticks of the day in which it is on.
    from: u16,
    to: u16,
    /// Until when what began the day before goes on.
    late: u16,
    /// The tick at which it leaves for good.
    left: u32,
}

/// One site's day: the ticks in which its network or power is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// The day, counted from one.
    day: u16,
    from: u16,
    to: u16,
}

impl Calendar {
    /// The calendar of a scenario: the rollout starts in the second week.
    pub const fn new(beside: Beside) -> Self {
        Self { start: (7 * 24 + beside.start.hour()) * TICKS_PER_HOUR, beside }
    }

    /// Whether a device is on, has a network, and reaches the server.
    pub fn reaches(&self, fleet: &Fleet, device: u32, tick: u32) -> bool {
        self.reaches_by(fleet, device, tick, &mut Today::default(), &mut Cut::default())
    }

    /// The same, with what was worked out for the device's day and its site's; both are renewed when
    /// another day has begun.
    pub fn reaches_by(
        &self,
        fleet: &Fleet,
        device: u32,
        tick: u32,
        today: &mut Today,
        cut: &mut Cut,
    ) -> bool {
        let (kind, site) = (fleet.kind(device), fleet.devices[device as usize].site);
        let local = tick.wrapping_add_signed(kind.ahead * TICKS_PER_HOUR as i32);
        let (day, now) = (local / TICKS_PER_DAY, (local % TICKS_PER_DAY) as u16);
        if u32::from(today.day) != day + 1 {
            *today = self.today(fleet, device, day);
        }
        let on = now < today.late || (today.from..today.to).contains(&now);
        on && tick < today.left
            && !self.is_on_holiday(kind, fleet.dice, site, tick)
            && !self.is_lost(fleet, device, tick)
            && !self.is_cut_by(fleet.dice, site, tick, cut)
    }

    /// Whether the network or power of a site is out.
    pub fn is_cut(&self, fleet: Dice, site: u16, tick: u32) -> bool {
        self.is_cut_by(fleet, site, tick, &mut Cut::default())
    }

    fn is_cut_by(&self, fleet: Dice, site: u16, tick: u32, cut: &mut Cut) -> bool {
        let (day, now) = (tick / TICKS_PER_DAY, (tick % TICKS_PER_DAY) as u16);
        if u32::from(cut.day) != day + 1 {
            *cut = self.cut(fleet, site, day);
        }
        (cut.from..cut.to).contains(&now)
            || self.beside.outage.is_some_and(|outage| self.is_in(outage, fleet.of(21), site, tick))
    }

    fn cut(&self, fleet: Dice, site: u16, day: u32) -> Cut {
        let draw = fleet.of(20).of(u64::from(site)).of(u64::from(day));
        let mut cut = Cut { day: day as u16 + 1, from: 0, to: 0 };
        if draw.hits(self.beside.site_outages) {
            let from = draw.of(1).below(TICKS_PER_DAY - 6 * TICKS_PER_HOUR);
            let length = TICKS_PER_HOUR / 2 + draw.of(2).below(6 * TICKS_PER_HOUR);
            (cut.from, cut.to) = (from as u16, (from + length) as u16);
        }
        cut
    }

    fn is_in(&self, span: Span, dice: Dice, site: u16, tick: u32) -> bool {
        let hours = (f64::from(tick) - f64::from(self.start)) / f64::from(TICKS_PER_HOUR);
        hours >= span.from_h
            && hours < span.from_h + span.hours
            && dice.of(u64::from(site)).hits(span.share)
    }

    fn is_lost(&self, fleet: &Fleet, device: u32, tick: u32) -> bool {
        let own = || fleet.dice.of(10).of(u64::from(device));
        self.beside.flaky > 0.0
            && own().of(7).of(u64::from(tick / TICKS_PER_HOUR)).hits(self.beside.flaky)
    }

    fn is_on_holiday(&self, kind: &Kind, fleet: Dice, site: u16, tick: u32) -> bool {
        match kind.habit {
            Habit::AlwaysOn | Habit::Duty | Habit::Unknown => false,
            Habit::Office | Habit::Home => self
                .beside
                .holiday
                .is_some_and(|holiday| self.is_in(holiday, fleet.of(22), site, tick)),
        }
    }

    fn today(&self, fleet: &Fleet, device: u32, day: u32) -> Today {
        let kind = fleet.kind(device);
        let own = fleet.dice.of(10).of(u64::from(device));
        let months =
            if self.beside.churn > 0.0 { own.of(8).unit() / self.beside.churn } else { 1e9 };
        let left = f64::from(self.start) + months * f64::from(30 * TICKS_PER_DAY);
        let mut today =
            Today { day: day as u16 + 1, left: left.min(4e9) as u32, ..Today::default() };
        if kind.away && own.of(9).of(u64::from(day)).hits(0.3) {
            return today;
        }
        let (from, to) = hours_of(kind, own.of(u64::from(day)), own, day);
        // What began yesterday may go on past midnight.
        let before = day.saturating_sub(1);
        let (_, late) = hours_of(kind, own.of(u64::from(before)), own, before);
        (today.from, today.to) = (from as u16, to as u16);
        today.late = late.saturating_sub(TICKS_PER_DAY) as u16;
        today
    }

    /// Whether nothing but the bucket keeps a device back: its window is open, its battery full enough.
    pub fn may_install(&self, fleet: &Fleet, device: u32, tick: u32) -> bool {
        let kind = fleet.kind(device);
        if kind.window {
            let local = tick.wrapping_add_signed(kind.ahead * TICKS_PER_HOUR as i32);
            let hour = (local % TICKS_PER_DAY) / TICKS_PER_HOUR;
            if !WINDOW_H.contains(&hour) {
                return false;
            }
        }
        !self.is_weak(fleet, device, tick)
    }

    /// Whether a device's battery is low.
    pub fn is_weak(&self, fleet: &Fleet, device: u32, tick: u32) -> bool {
        let own = || fleet.dice.of(11).of(u64::from(device));
        self.beside.batteries > 0.0
            && own().hits(self.beside.batteries)
            && own().of(u64::from(tick / (2 * TICKS_PER_HOUR))).hits(0.5)
    }

    /// Ticks that an install takes, its trial included.
    pub fn install(&self, fleet: &Fleet, device: u32) -> u32 {
        let own = fleet.dice.of(12).of(u64::from(device));
        let slow = self.beside.slow_links > 0.0 && own.hits(self.beside.slow_links);
        if slow { 12 + own.of(1).below(48) } else { 3 + own.of(1).below(4) }
    }
}

/// The ticks of a local day in which a device is on; the end may lie after midnight.
fn hours_of(kind: &Kind, draw: Dice, own: Dice, day: u32) -> (u32, u32) {
    const H: u32 = TICKS_PER_HOUR;
    let weekend = day % 7 >= 5;
    match kind.habit {
        Habit::AlwaysOn | Habit::Unknown => {
            // Off for some hours now and then: the day then ends early.
            if draw.of(1).below(1000) < 15 {
                (0, 4 * H + draw.of(2).below(16 * H))
            } else {
                (0, TICKS_PER_DAY)
            }
        }
        Habit::Office => {
            let away = own.of(2).of(u64::from(day / 7)).below(100) < 3;
            let chance = if weekend { 4 } else { 93 };
            if away || draw.of(1).below(100) >= chance {
                return (0, 0);
            }
            let usual = 7 * H + own.of(3).below(3 * H);
            let early = if kind.window { 2 * H } else { 0 };
            let from = usual + draw.of(2).below(H);
            (from, from + 8 * H + draw.of(3).below(2 * H + H / 2) - early)
        }
        Habit::Home => {
            let chance = if weekend { 85 } else { 76 };
            if draw.of(1).below(100) >= chance {
                return (0, 0);
            }
            let (first, spread, most) =
                if weekend { (9 * H, 5 * H, 8 * H) } else { (16 * H + H / 2, 3 * H, 4 * H) };
            let from = first + draw.of(2).below(spread);
            (from, from + 2 * H + draw.of(3).below(most))
        }
        Habit::Duty => {
            if draw.of(1).below(100) >= 55 {
                return (0, 0);
            }
            let from = [6, 14, 20][own.of(4).below(3) as usize] * H + draw.of(2).below(2 * H);
            (from, from + 3 * H + draw.of(3).below(5 * H))
        }
    }
}
