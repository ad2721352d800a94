//! Silence as evidence, by the lot alone. Among the polls at which the bucket was the one open question,
//! who is let in is a coin of known chance; if those let in are unheard afterwards more often than the
//! coin says, it is the release.
//!
//! Whether a device is unheard in a span of hours is a fact that a harmless release does not change.
//! Given all these facts and who was drawn from, the coins are still independent, so a device let in
//! with chance `π` that falls silent contributes `ψ^T / (1 - π + πψ)`, whose mean is one whatever the
//! stake `ψ`, even one computed from everybody's silence. The usual silent share of a cell therefore
//! chooses the stake and never the verdict. Who is seen contributes nothing.
//!
//! It keeps sums for each group and look, and knows no time but whole hours.

use lockgate_shared::group::Habit;
use serde::{Deserialize, Serialize};

use super::{
    reports::mean,
    roster::{Device, Group, Kind, ZONES},
};

/// The excess shares that are bet on, mixed in equal parts.
pub const RATES: [f64; 7] = [0.004, 0.012, 0.035, 0.10, 0.30, 0.70, 0.97];
/// One logarithm for each of [`RATES`].
pub type Stakes = [f64; RATES.len()];

/// A span of hours after the lot in which a device should be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The first hour after the lot's.
    pub from: u32,
    /// The last.
    pub to: u32,
}

/// Looks soon after the lot.
pub const PROMPT: usize = 4;
/// All looks: the prompt ones first.
pub const LOOKS: [Look; 16] = [
    Look { from: 1, to: 2 },
    Look { from: 1, to: 4 },
    Look { from: 1, to: 12 },
    Look { from: 1, to: 28 },
    Look { from: 7, to: 8 },
    Look { from: 13, to: 14 },
    Look { from: 20, to: 21 },
    Look { from: 26, to: 27 },
    Look { from: 26, to: 36 },
    Look { from: 31, to: 32 },
    Look { from: 37, to: 38 },
    Look { from: 42, to: 44 },
    Look { from: 48, to: 50 },
    Look { from: 56, to: 58 },
    Look { from: 64, to: 66 },
    Look { from: 72, to: 75 },
];
/// Hours after which the last look is closed.
pub const LAST: u32 = 76;
/// Above this silent share a cell is left out: so many sleep there that silence says nothing.
pub const SLEEPY: f64 = 0.4;

/// Silent sums of every group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    sums: Vec<[Stakes; LOOKS.len()]>,
    /// The mean of every look's bets, as of the last [`Silence::settle`].
    means: Vec<[f64; LOOKS.len()]>,
    /// A bit for each look whose sums changed since.
    changed: Vec<u16>,
    /// Whether any did.
    news: bool,
}

/// A device's cell: those with whom its silence is compared to choose the stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell(usize);

/// How many were silent, cell by cell.
#[derive(Clone, Debug)]
pub struct Cells {
    counts: Vec<(u32, u32)>,
}

/// What one silent device says at one look.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// Who.
    pub device: Device,
    /// At which look, by its place in [`LOOKS`].
    pub look: u8,
    /// Whether it was let in.
    pub arm: Arm,
    /// The logarithms it contributed.
    pub stakes: [f32; RATES.len()],
}

/// The two sides of a lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arm {
    /// Let in.
    Treated,
    /// Not let in.
    Control,
}

impl Cell {
    /// Habits times zones times two times two.
    const COUNT: usize = 5 * ZONES as usize * 4;

    /// The cell of a device that was `awake` in the hour before, and was heard at this time `before`,
    /// one or more whole days ago.
    pub fn of(kind: &Kind, awake: bool, before: bool) -> Self {
        let habit = habit_number(kind.habit);
        let zone = habit * ZONES as usize + usize::from(kind.zone);
        Self(zone * 4 + usize::from(awake) * 2 + usize::from(before))
    }

    /// All cells of the same habit and regularity.
    fn alike(self) -> impl Iterator<Item = usize> {
        let zones = ZONES as usize;
        let (habit, rest) = (self.0 / 4 / zones, self.0 % 4);
        (0..zones).map(move |zone| (habit * zones + zone) * 4 + rest)
    }
}

const fn habit_number(habit: Habit) -> usize {
    match habit {
        Habit::AlwaysOn => 0,
        Habit::Office => 1,
        Habit::Home => 2,
        Habit::Duty => 3,
        Habit::Unknown => 4,
    }
}

impl Default for Cells {
    fn default() -> Self {
        Self { counts: vec![(0, 0); Cell::COUNT] }
    }
}

impl Cells {
    /// Counts a device.
    pub fn count(&mut self, cell: Cell, silent: bool) {
        let (all, unheard) = &mut self.counts[cell.0];
        *all += 1;
        *unheard += u32::from(silent);
    }

    /// The silent share of every cell with a silent device; small cells lean on the same habit in other
    /// zones. Nobody stakes anything in the others, and at most looks that is all of them.
    pub fn shares(&self, disturbed: f64) -> Shares {
        let share = |cell: usize| {
            let (wide_all, wide_silent) = Cell(cell).alike().fold((0, 0), |(all, silent), cell| {
                (all + self.counts[cell].0, silent + self.counts[cell].1)
            });
            let wide = (f64::from(wide_silent) + 0.5) / (f64::from(wide_all) + 5.0);
            let (all, silent) = self.counts[cell];
            (f64::from(silent) + 8.0 * wide) / (f64::from(all) + 8.0) * 1.05 + disturbed
        };
        let asked = |cell: usize| self.counts[cell].1 > 0;
        let of = |cell| if asked(cell) { share(cell).min(1.0) } else { 1.0 };
        Shares((0..Cell::COUNT).map(of).collect())
    }
}

/// The usual silent share by cell.
#[derive(Clone, Debug)]
pub struct Shares(Vec<f64>);

impl Shares {
    /// What is staked on a silent device of this cell, for each of [`RATES`]; nothing where too many
    /// sleep.
    pub fn stakes(&self, cell: Cell) -> Option<Stakes> {
        let usual = self.0[cell.0];
        (usual <= SLEEPY).then(|| RATES.map(|rate| (usual + rate * (1.0 - usual)) / usual))
    }
}

/// What a silent device contributes that was let in with the chance `chance` or not.
pub fn of_lot(stakes: &Stakes, arm: Arm, chance: f64) -> Stakes {
    stakes.map(|stake| {
        let expected = (chance * (stake - 1.0)).ln_1p();
        match arm {
            Arm::Treated => stake.ln() - expected,
            Arm::Control => -expected,
        }
    })
}

/// The chance after its odds were raised by what any install disturbs.
pub fn tolerant(chance: f64, tolerance: f64) -> f64 {
    chance * tolerance / (1.0 - chance + chance * tolerance)
}

impl Silence {
    /// Nobody was silent yet.
    pub fn new(groups: usize) -> Self {
        Self {
            sums: vec![[[0.0; RATES.len()]; LOOKS.len()]; groups],
            means: vec![[1.0; LOOKS.len()]; groups],
            changed: vec![0; groups],
            news: false,
        }
    }

    /// There are so many groups now.
    pub fn grow(&mut self, groups: usize) {
        self.sums.resize(groups, [[0.0; RATES.len()]; LOOKS.len()]);
        self.means.resize(groups, [1.0; LOOKS.len()]);
        self.changed.resize(groups, 0);
    }

    /// A group begins anew.
    pub fn forget(&mut self, group: Group) {
        self.sums[group as usize] = [[0.0; RATES.len()]; LOOKS.len()];
        self.means[group as usize] = [1.0; LOOKS.len()];
    }

    /// Adds a contribution to these groups.
    pub fn add(&mut self, groups: &[Group], look: usize, stakes: &Stakes) {
        self.news = true;
        for group in groups {
            self.changed[*group as usize] |= 1 << look;
            for (sum, stake) in self.sums[*group as usize][look].iter_mut().zip(stakes) {
                *sum += stake;
            }
        }
    }

    /// Whether anything was added since this was last asked.
    pub const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.news, false)
    }

    /// Works out the bets of the looks that changed; whether any did.
    pub fn settle(&mut self, group: Group) -> bool {
        let place = group as usize;
        let changed = std::mem::take(&mut self.changed[place]);
        for (look, (mean_of, sums)) in
            self.means[place].iter_mut().zip(&self.sums[place]).enumerate()
        {
            if changed >> look & 1 == 1 {
                *mean_of = mean(sums);
            }
        }
        changed != 0
    }

    /// A group's sums.
    pub fn sums(&self, group: Group) -> &[Stakes; LOOKS.len()] {
        &self.sums[group as usize]
    }

    /// A group's wealth from the prompt looks, and from the later ones, as of the last
    /// [`Self::settle`].
    pub fn wealth(&self, group: Group) -> (f64, f64) {
        averages(&self.means[group as usize])
    }
}

/// The wealth that sums make: the looks' mean, prompt and later apart.
pub fn wealth_of(sums: &[Stakes; LOOKS.len()]) -> (f64, f64) {
    averages(&sums.each_ref().map(|sums| mean(sums)))
}

fn averages(means: &[f64; LOOKS.len()]) -> (f64, f64) {
    let average = |looks: &[f64]| looks.iter().sum::<f64>() / looks.len().max(1) as f64;
    let (prompt, later) = means.split_at(PROMPT);
    (average(prompt), average(later))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_stake_a_fair_coin_wins_nothing_on_average() {
        for chance in [0.001, 0.2, 0.9] {
            let stakes = [1.1, 2.0, 5.0, 20.0, 100.0, 300.0, 900.0];
            let won = of_lot(&stakes, Arm::Treated, chance);
            let lost = of_lot(&stakes, Arm::Control, chance);
            for (won, lost) in won.iter().zip(lost) {
                let mean = chance * won.exp() + (1.0 - chance) * lost.exp();
                assert!((mean - 1.0).abs() < 1e-9, "{mean}");
            }
        }
    }

    #[test]
    fn where_most_sleep_nothing_is_staked() {
        let kind = Kind {
            groups: [0; 13],
            habit: Habit::Office,
            zone: 0,
            noise: super::super::roster::Noise::default(),
        };
        let (night, day) = (Cell::of(&kind, false, false), Cell::of(&kind, true, true));
        let mut cells = Cells::default();
        for number in 0..1000 {
            cells.count(night, number % 10 != 0);
            cells.count(day, number % 100 == 0);
        }
        let shares = cells.shares(0.0005);
        assert!(shares.stakes(night).is_none());
        assert!(shares.stakes(Cell::of(&kind, true, false)).is_none(), "nobody is silent there");
        assert!(shares.stakes(day).is_some_and(|stakes| stakes[6] > 30.0));
    }
}
