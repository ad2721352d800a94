//! Explicit reports as evidence. Each group has a wealth that starts at one and is bet on "more devices
//! fail than this model's noise": a failure multiplies it by how surprising it is, a healthy device
//! costs a share. Under a harmless release its mean never exceeds one at any time, so that one may look
//! as often as one likes and errs with a chance of at most 1/x when it ever passes x.
//!
//! It never counts what says nothing on health: failed downloads, a full disk, no contact anywhere.
//! Trial and time after it are bets of their own, and so is each span of the time after it: a device
//! pays for a span when it enters it, because failures come early in a span and health only at its end.
//! What fails a day later then stands beside the devices that have lived a day, and not beside the many
//! that were let in since.

use serde::{Deserialize, Serialize};

use super::roster::{Group, Noise};

/// The excess shares that are bet on, mixed in equal parts.
pub const RATES: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.06, 0.15, 0.35, 0.7, 0.97];

/// One logarithm for each of [`RATES`].
pub type Bets = [f64; RATES.len()];
const NONE: Bets = [0.0; RATES.len()];

/// The ages in hours at which the spans of the time after the trial begin; the last one never ends.
/// Delays of twelve hours, a day and a day and a half lie inside of spans.
pub const SPANS: [u32; 6] = [0, 6, 12, 20, 30, 42];

/// When a report falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// Within the trial.
    Trial,
    /// After it, in this one of [`SPANS`].
    Soak(u8),
}

/// The wealth of every group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reports {
    trial: Vec<Bets>,
    soak: Vec<[Bets; SPANS.len()]>,
    changed: Vec<bool>,
    /// Whether any group's did.
    news: bool,
}

/// The span in which a device of this age is.
pub fn span(age: u32) -> u8 {
    (SPANS.partition_point(|from| *from <= age) - 1) as u8
}

/// What one failure is worth: the inverse of the share that fails without any fault of the release,
/// which is a tenth more than what is known and never below one in five thousand.
pub fn surprise(noise: Noise, part: Part) -> f64 {
    let known = match part {
        Part::Trial => noise.prompt,
        // It may all fall into one span.
        Part::Soak(_) => noise.late,
    };
    1.0 / (known * 1.1 + 0.0002).min(0.9)
}

/// The logarithms by which a healthy device changes each bet.
pub fn healthy() -> Bets {
    RATES.map(|rate| (-rate).ln_1p())
}

/// The logarithms by which a failure of this surprise changes each bet, where `paid` for health already
/// or not.
pub fn failure(surprise: f64, part: Part) -> Bets {
    RATES.map(|rate| {
        let won = (1.0 - rate + rate * surprise).ln();
        match part {
            Part::Trial => won,
            Part::Soak(_) => won - (-rate).ln_1p(),
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
        Self {
            trial: vec![NONE; groups],
            soak: vec![[NONE; SPANS.len()]; groups],
            changed: vec![false; groups],
            news: false,
        }
    }

    /// There are so many groups now.
    pub fn grow(&mut self, groups: usize) {
        self.trial.resize(groups, NONE);
        self.soak.resize(groups, [NONE; SPANS.len()]);
        self.changed.resize(groups, false);
    }

    /// A group begins anew.
    pub fn forget(&mut self, group: Group) {
        self.trial[group as usize] = NONE;
        self.soak[group as usize] = [NONE; SPANS.len()];
    }

    /// Changes the bets of these groups.
    pub fn add(&mut self, groups: &[Group], part: Part, change: &Bets) {
        self.news = true;
        for group in groups {
            self.changed[*group as usize] = true;
            let logs = match part {
                Part::Trial => &mut self.trial[*group as usize],
                Part::Soak(span) => &mut self.soak[*group as usize][usize::from(span)],
            };
            for (log, change) in logs.iter_mut().zip(change) {
                *log += change;
            }
        }
    }

    /// The logarithms of a group's bets on trials.
    pub fn trial(&self, group: Group) -> &Bets {
        &self.trial[group as usize]
    }

    /// The logarithms of a group's bets on the time after them, span by span.
    pub fn soak(&self, group: Group) -> &[Bets; SPANS.len()] {
        &self.soak[group as usize]
    }

    /// Whether anything was added since this was last asked.
    pub const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.news, false)
    }

    /// Whether a group's bets changed since this was last asked.
    pub fn take_changed(&mut self, group: Group) -> bool {
        std::mem::take(&mut self.changed[group as usize])
    }

    /// A group's wealth from trials, and from the time after them.
    pub fn wealth(&self, group: Group) -> (f64, f64) {
        (mean(self.trial(group)), wealth_of(self.soak(group)))
    }
}

/// The wealth that the spans' bets make: one half is on a span that nobody knows, their mean, and one on
/// all of them alike, their product. What fails at one age only shows in the first, and what fails at
/// any, or soon after few began, in the second.
pub fn wealth_of(spans: &[Bets; SPANS.len()]) -> f64 {
    let one = spans.iter().map(|bets| mean(bets)).sum::<f64>() / SPANS.len() as f64;
    let all: Bets = std::array::from_fn(|rate| spans.iter().map(|bets| bets[rate]).sum());
    (one + mean(&all)) / 2.0
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
        assert!(reports.wealth(0).0 > 1e5);
        assert!(reports.wealth(1).0 < 1.0);
    }

    #[test]
    fn two_late_failures_weigh_beside_the_few_that_are_as_old_and_not_beside_all() {
        let noise = Noise { prompt: 0.003, late: 0.001 };
        let mut reports = Reports::new(2);
        let fail = |part| failure(surprise(noise, part), part);
        for group in [0, 1] {
            for young in 0..200 {
                reports.add(&[group], Part::Soak(0), &healthy());
                if group == 0 && young < 7 {
                    reports.add(&[0], Part::Soak(3), &healthy());
                }
            }
        }
        for _ in 0..2 {
            reports.add(&[0], Part::Soak(3), &fail(Part::Soak(3)));
            reports.add(&[1], Part::Soak(0), &fail(Part::Soak(0)));
        }
        assert!(reports.wealth(0).1 > 20.0 * reports.wealth(1).1);
    }

    #[test]
    fn every_age_has_its_span() {
        assert_eq!([0, 5, 6, 25, 37, 500].map(span), [0, 0, 1, 3, 4, 5]);
    }
}
