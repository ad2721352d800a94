//! Explicit reports as evidence. Each group has a wealth that starts at one and is bet on "more devices
//! fail than this model's noise": a failure multiplies it by how surprising it is, a healthy device
//! costs a share. Under a harmless release its mean never exceeds one at any time, so that one may look
//! as often as one likes and errs with a chance of at most 1/x when it ever passes x.
//!
//! It never counts what says nothing on health: failed downloads, a full disk, no contact anywhere.
//! Trial and time after it are bets of their own. A bet on the time after the trial is paid when it
//! begins, because failures come early in it and health only at its end.

use serde::{Deserialize, Serialize};

use super::roster::{Group, Noise};

/// The excess shares that are bet on, mixed in equal parts.
pub const RATES: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.06, 0.15, 0.35, 0.7, 0.97];

/// When a report falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// Within the trial.
    Trial,
    /// After it.
    Soak,
}

/// The wealth of every group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reports {
    trial: Vec<[f64; RATES.len()]>,
    soak: Vec<[f64; RATES.len()]>,
    changed: Vec<bool>,
    /// Whether any group's did.
    news: bool,
}

/// What one failure is worth: the inverse of the share that fails without any fault of the release,
/// which is a tenth more than what is known and never below one in five thousand.
pub fn surprise(noise: Noise, part: Part) -> f64 {
    let known = match part {
        Part::Trial => noise.prompt,
        Part::Soak => noise.late,
    };
    1.0 / (known * 1.1 + 0.0002).min(0.9)
}

/// The logarithms by which a healthy device changes each bet.
pub fn healthy() -> [f64; RATES.len()] {
    RATES.map(|rate| (-rate).ln_1p())
}

/// The logarithms by which a failure of this surprise changes each bet, where `paid` for health already
/// or not.
pub fn failure(surprise: f64, part: Part) -> [f64; RATES.len()] {
    RATES.map(|rate| {
        let won = (1.0 - rate + rate * surprise).ln();
        match part {
            Part::Trial => won,
            Part::Soak => won - (-rate).ln_1p(),
        }
    })
}

/// The mean of the bets whose logarithms these are.
pub fn mean(logs: &[f64]) -> f64 {
    logs.iter().map(|log| log.exp()).sum::<f64>() / logs.len() as f64
}

impl Reports {
    /// Nothing was reported yet.
    pub fn new(groups: usize) -> Self {
        let none = vec![[0.0; RATES.len()]; groups];
        Self { trial: none.clone(), soak: none, changed: vec![false; groups], news: false }
    }

    /// There are so many groups now.
    pub fn grow(&mut self, groups: usize) {
        self.trial.resize(groups, [0.0; RATES.len()]);
        self.soak.resize(groups, [0.0; RATES.len()]);
        self.changed.resize(groups, false);
    }

    /// A group begins anew.
    pub fn forget(&mut self, group: Group) {
        self.trial[group as usize] = [0.0; RATES.len()];
        self.soak[group as usize] = [0.0; RATES.len()];
    }

    /// Changes the bets of these groups.
    pub fn add(&mut self, groups: &[Group], part: Part, change: &[f64; RATES.len()]) {
        self.news = true;
        let table = match part {
            Part::Trial => &mut self.trial,
            Part::Soak => &mut self.soak,
        };
        for group in groups {
            self.changed[*group as usize] = true;
            for (log, change) in table[*group as usize].iter_mut().zip(change) {
                *log += change;
            }
        }
    }

    /// The logarithms of a group's bets.
    pub fn logs(&self, group: Group, part: Part) -> &[f64; RATES.len()] {
        match part {
            Part::Trial => &self.trial[group as usize],
            Part::Soak => &self.soak[group as usize],
        }
    }

    /// Whether anything was added since this was last asked.
    pub const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.news, false)
    }

    /// Whether a group's bets changed since this was last asked.
    pub fn take_changed(&mut self, group: Group) -> bool {
        std::mem::take(&mut self.changed[group as usize])
    }

    /// A group's wealth.
    pub fn wealth(&self, group: Group, part: Part) -> f64 {
        mean(self.logs(group, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_a_bet_is_one_when_as_many_fail_as_are_known_to() {
        let noise = Noise { prompt: 0.003, late: 0.0005 };
        let surprise = surprise(noise, Part::Trial);
        let chance = 1.0 / surprise;
        for (won, lost) in failure(surprise, Part::Trial).iter().zip(healthy()) {
            let mean = chance * won.exp() + (1.0 - chance) * lost.exp();
            assert!((mean - 1.0).abs() < 1e-9, "{mean}");
        }
    }

    #[test]
    fn three_failures_of_five_are_overwhelming_and_one_of_five_hundred_is_nothing() {
        let noise = Noise { prompt: 0.003, late: 0.0 };
        let mut reports = Reports::new(2);
        for _ in 0..3 {
            reports.add(&[0], Part::Trial, &failure(surprise(noise, Part::Trial), Part::Trial));
        }
        reports.add(&[0, 0], Part::Trial, &healthy());
        reports.add(&[1], Part::Trial, &failure(surprise(noise, Part::Trial), Part::Trial));
        for _ in 0..499 {
            reports.add(&[1], Part::Trial, &healthy());
        }
        assert!(reports.wealth(0, Part::Trial) > 1e5);
        assert!(reports.wealth(1, Part::Trial) < 1.0);
    }
}
