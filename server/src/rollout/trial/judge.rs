//! What follows from the evidence: hold the group that explains it, halt, or wait. Every verdict carries
//! its numbers.
//!
//! The error allowed is shared out: 40 % to the fleet, 30 % to single attributes, 20 % to pairs, 10 % to
//! strata, equally within a level. A group that passes its threshold is held unless a smaller one inside
//! it explains what happened: the surprising devices are concentrated in it, its own evidence is at
//! least as strong, and without it the larger one shows nothing.

use lockgate_shared::group::GroupKind;
use serde::{Deserialize, Serialize};

use super::{
    Guard, Trial,
    looks::{Arm, LOOKS, Stakes, wealth_of},
    reports::{self, Bets, Part, SPANS, mean},
    roster::{Device, FLEET, Group, Tenant},
    words,
};

/// What is left of a group's evidence without the part that explains it: at most this.
const EXPLAINED: f64 = 4.5;
/// The likelihood ratio of a concentration, to which the logarithm of the level's groups is added.
const CONCENTRATED: f64 = 2.3;
/// With fewer surprising devices …
const FEW: usize = 5;
/// … and less than this factor above the threshold, what nothing explains is waited out for a while.
const BARE: f64 = 55.0;
/// The fleet's evidence from which a habit's or a zone's is the fleet's.
const ALSO: f64 = 5.0;
/// A silent device surprises when it raised the boldest bet by this factor.
const SURPRISING: f32 = 1.5;

/// How a trial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It goes on, apart from the groups that are held.
    Open,
    /// Something is unexplained: nothing opens for some hours.
    Wait,
    /// It is over.
    Halt,
}

/// A hold, with what speaks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Which group shows it.
    pub group: Group,
    /// Only this tenant's devices are held, because nobody else's show it: a person has to look.
    pub tenant: Option<Tenant>,
    /// In which hour.
    pub hour: u32,
    /// The evidence.
    pub odds: f64,
    /// The numbers behind it.
    pub facts: words::Facts,
    /// As an operator reads it out.
    pub sentence: String,
}

/// What the devices of each group contributed to the evidence of one group.
struct Parts {
    trial: Vec<Bets>,
    soak: Vec<[Bets; SPANS.len()]>,
    silence: Vec<[Stakes; LOOKS.len()]>,
    exposed: Vec<u32>,
    surprising: Vec<u32>,
    devices: Vec<Device>,
}

/// The evidence at which a group is held.
pub fn threshold(trial: &Trial, group: Group) -> f64 {
    1.0 / (trial.terms.alpha * weight(trial, group))
}

/// A group's part of the allowed error.
pub fn weight(trial: &Trial, group: Group) -> f64 {
    let level = Level::of(trial.roster.groups[group as usize].kind);
    let (share, count) = (level.share(), level.groups(trial));
    share / f64::from(count.max(1))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Fleet,
    Single,
    Pair,
    Stratum,
}

impl Level {
    const fn of(kind: GroupKind) -> Self {
        match kind {
            GroupKind::Fleet => Self::Fleet,
            GroupKind::Hardware
            | GroupKind::Os
            | GroupKind::Firmware
            | GroupKind::Configuration
            | GroupKind::Habit
            | GroupKind::TimeZone => Self::Single,
            GroupKind::HardwareOs
            | GroupKind::HardwareConfiguration
            | GroupKind::OsFirmware
            | GroupKind::OsConfiguration
            | GroupKind::FirmwareConfiguration => Self::Pair,
            GroupKind::Stratum => Self::Stratum,
        }
    }

    const fn share(self) -> f64 {
        match self {
            Self::Fleet => 0.4,
            Self::Single => 0.3,
            Self::Pair => 0.2,
            Self::Stratum => 0.1,
        }
    }

    fn groups(self, trial: &Trial) -> u32 {
        trial.levels[self as usize]
    }
}

/// How many groups each level has.
pub(super) fn levels(roster: &super::Roster) -> [u32; 4] {
    let mut counts = [0; 4];
    for entry in &roster.groups {
        counts[Level::of(entry.kind) as usize] += 1;
    }
    counts
}

/// The evidence from its parts: trial, soak, prompt and later silence, and the products of what belongs
/// together, because a power cut gives a failure and a silence at once.
fn total((trial, soak): (f64, f64), (prompt, later): (f64, f64)) -> f64 {
    0.3 * trial
        + 0.2 * soak
        + 0.15 * prompt
        + 0.15 * later
        + 0.1 * trial * prompt
        + 0.1 * soak * later
}

impl Trial {
    /// Weighs every group whose evidence changed; whether there was any.
    pub(super) fn weigh(&mut self) -> bool {
        if !(self.reports.take_news() | self.silence.take_news()) {
            return false;
        }
        for group in 0..self.roster.groups.len() as Group {
            let reported = self.reports.take_changed(group);
            let unheard = self.silence.settle(group);
            if !reported && !unheard {
                continue;
            }
            let odds = total(self.reports.wealth(group), self.silence.wealth(group));
            self.wealth[group as usize] = odds;
            self.peak = self.peak.max(odds * weight(self, group));
        }
        true
    }

    /// Judges, and holds what has to be held.
    pub(super) fn judge(&mut self) {
        if self.verdict == Verdict::Halt {
            return;
        }
        self.verdict = Verdict::Open;
        for _ in 0..=self.terms.holds {
            let Some(group) = self.crossing() else { return };
            let parts = self.parts(group);
            let explained = self.explain(group, &parts);
            let bare = parts.devices.len() < FEW
                && self.wealth[group as usize] < BARE * threshold(self, group);
            // Within one hour it may be looked at more than once: that must not shorten the wait.
            let next = self.waiting_since != self.hour;
            if explained.is_none() && bare && (self.waited < self.terms.patience_h || !next) {
                self.waited += u32::from(next);
                self.waiting_since = self.hour;
                self.verdict = Verdict::Wait;
                return;
            }
            match self.one_tenant(&parts.devices) {
                Some(tenant) => self.hold_tenant(group, tenant),
                None => self.hold(self.plainest(explained.unwrap_or_else(|| self.as_fleet(group)))),
            }
            if self.verdict == Verdict::Halt {
                return;
            }
        }
    }

    /// The tenant whose devices alone speak against the release although another's were let in. Whoever
    /// owns them may be lying, or have a fault of his own: the others go on.
    fn one_tenant(&self, surprising: &[Device]) -> Option<Tenant> {
        let tenant = self.roster.tenant(*surprising.first()?);
        let alone = surprising.iter().all(|device| self.roster.tenant(*device) == tenant);
        let other = |device: &Device| self.roster.tenant(*device) != tenant;
        (alone && self.early.iter().any(other)).then_some(tenant)
    }

    /// Holds one tenant's devices; what they said leaves the evidence.
    fn hold_tenant(&mut self, group: Group, tenant: Tenant) {
        let parts = self.parts_of(&|device| self.roster.tenant(device) == tenant);
        let name = self.roster.tenants().get(usize::from(tenant)).cloned().unwrap_or_default();
        let (odds, facts) = (self.wealth[group as usize], self.facts(group));
        let alone = words::sentence(&self.roster.groups[group as usize], &facts, odds);
        let sentence =
            format!("Held: tenant {name} alone, a person has to look; by its devices {alone}");
        let tenant = Some(tenant);
        self.holds.push(Hold { group, tenant, hour: self.hour, odds, facts, sentence });
        self.held_tenants.extend(tenant);
        self.take_out(&parts, None);
        self.weigh();
        self.narrow_held();
    }

    /// Takes what some devices said out of the evidence of every group, but for one.
    fn take_out(&mut self, parts: &Parts, but: Option<Group>) {
        for other in 0..self.roster.groups.len() as Group {
            if Some(other) == but {
                continue;
            }
            let place = other as usize;
            let less = |logs: &Bets| logs.map(|log| -log);
            self.reports.add(&[other], Part::Trial, &less(&parts.trial[place]));
            for (span, bets) in (0..).zip(&parts.soak[place]) {
                self.reports.add(&[other], Part::Soak(span), &less(bets));
            }
            for (look, sums) in parts.silence[place].iter().enumerate() {
                self.silence.add(&[other], look, &sums.map(|sum| -sum));
            }
        }
    }

    /// Of the groups that are the very same devices, the one that is said most simply.
    fn plainest(&self, group: Group) -> Group {
        let size = self.roster.groups[group as usize].size;
        let kinds = || self.roster.kinds.iter().filter(move |kind| kind.groups.contains(&group));
        let Some(first) = kinds().next() else { return group };
        let same = first.groups.iter().filter(|other| {
            self.roster.groups[**other as usize].size == size
                && kinds().all(|kind| kind.groups.contains(other))
        });
        same.min_by_key(|other| self.roster.groups[**other as usize].kind)
            .map_or(group, |same| *same)
    }

    /// A habit or a time zone that nothing smaller explains stands for the fleet when the fleet shows the
    /// same: most devices of the canary are of one habit.
    fn as_fleet(&self, group: Group) -> Group {
        let kind = self.roster.groups[group as usize].kind;
        let untold = kind == GroupKind::Habit || kind == GroupKind::TimeZone;
        if untold && self.wealth[FLEET as usize] > ALSO { FLEET } else { group }
    }

    /// The group furthest above its threshold that is not held.
    fn crossing(&self) -> Option<Group> {
        let ratio = |group: &Group| self.wealth[*group as usize] / threshold(self, *group);
        (0..self.roster.groups.len() as Group)
            .filter(|group| self.guards[*group as usize] != Guard::Held && ratio(group) > 1.0)
            .max_by(|a, b| ratio(a).total_cmp(&ratio(b)))
    }

    fn parts(&self, group: Group) -> Parts {
        self.parts_of(&|device| self.roster.groups_of(device).contains(&group))
    }

    /// What these devices contributed, but for those that are held.
    fn parts_of(&self, which: &dyn Fn(Device) -> bool) -> Parts {
        let groups = self.roster.groups.len();
        let mut parts = Parts {
            trial: vec![[0.0; reports::RATES.len()]; groups],
            soak: vec![[[0.0; reports::RATES.len()]; SPANS.len()]; groups],
            silence: vec![[[0.0; super::looks::RATES.len()]; LOOKS.len()]; groups],
            exposed: vec![0; groups],
            surprising: vec![0; groups],
            devices: Vec::new(),
        };
        let inside = |device: Device| which(device) && !self.is_held(device);
        self.exposures(&inside, &mut parts);
        for (device, part, surprise) in self.failures.iter().filter(|(device, ..)| inside(*device))
        {
            let change = reports::failure(*surprise, *part);
            for other in self.roster.groups_of(*device) {
                let bets = match part {
                    Part::Trial => &mut parts.trial[*other as usize],
                    Part::Soak(span) => &mut parts.soak[*other as usize][usize::from(*span)],
                };
                add(bets, &change);
            }
            parts.devices.push(*device);
        }
        for word in self.words.iter().filter(|word| inside(word.device)) {
            for other in self.roster.groups_of(word.device) {
                let sums = &mut parts.silence[*other as usize][usize::from(word.look)];
                add(sums, &word.stakes.map(f64::from));
            }
            if word.arm == Arm::Treated && word.stakes[word.stakes.len() - 1] > SURPRISING {
                parts.devices.push(word.device);
            }
        }
        parts.devices.sort_unstable();
        parts.devices.dedup();
        for device in &parts.devices {
            for other in self.roster.groups_of(*device) {
                parts.surprising[*other as usize] += 1;
            }
        }
        parts
    }

    fn exposures(&self, inside: &impl Fn(Device) -> bool, parts: &mut Parts) {
        let paid = reports::healthy();
        for device in 0..self.roster.len() {
            if !self.is_treated(device) || !inside(device) {
                continue;
            }
            let case = self.cases[device as usize];
            for group in self.roster.groups_of(device) {
                let place = *group as usize;
                parts.exposed[place] += 1;
                if case.from < case.to {
                    add(&mut parts.trial[place], &paid);
                }
                for span in case.from..case.to {
                    add(&mut parts.soak[place][usize::from(span)], &paid);
                }
            }
        }
    }

    /// The smallest part of a crossing group that explains it.
    fn explain(&self, group: Group, parts: &Parts) -> Option<Group> {
        let all = parts.devices.len() as u32;
        let size = self.roster.groups[group as usize].size;
        let mut found: Option<(f64, Group)> = None;
        for other in 0..self.roster.groups.len() as Group {
            let entry = &self.roster.groups[other as usize];
            let (own, exposed) = (parts.surprising[other as usize], parts.exposed[other as usize]);
            if own == 0 || other == group || entry.size >= size {
                continue;
            }
            let level = Level::of(entry.kind).groups(self);
            let share = f64::from(exposed) / f64::from(parts.exposed[group as usize].max(1));
            let ratio = concentration(own, all, share);
            let strong = self.wealth[other as usize] >= self.wealth[group as usize];
            if ratio >= CONCENTRATED + f64::from(level).ln()
                && strong
                && self.without(group, other, parts) < EXPLAINED
                && found.is_none_or(|(best, _)| ratio > best)
            {
                found = Some((ratio, other));
            }
        }
        found.map(|(_, group)| group)
    }

    /// The evidence of `group` without the devices that are in `other` too.
    fn without(&self, group: Group, other: Group, parts: &Parts) -> f64 {
        let rest = |all: &Bets, part: &Bets| std::array::from_fn(|rate| all[rate] - part[rate]);
        let place = other as usize;
        let mut sums = *self.silence.sums(group);
        for (sums, part) in sums.iter_mut().zip(&parts.silence[place]) {
            for (sum, part) in sums.iter_mut().zip(part) {
                *sum -= part;
            }
        }
        let trial: Bets = rest(self.reports.trial(group), &parts.trial[place]);
        let mut soak = *self.reports.soak(group);
        for (bets, part) in soak.iter_mut().zip(&parts.soak[place]) {
            *bets = rest(bets, part);
        }
        total((mean(&trial), reports::wealth_of(&soak)), wealth_of(&sums))
    }

    /// Holds a group: its devices' evidence leaves the other groups, so that it is not held against them.
    fn hold(&mut self, group: Group) {
        let odds = self.wealth[group as usize];
        let facts = self.facts(group);
        let parts = self.parts(group);
        let sentence = words::sentence(&self.roster.groups[group as usize], &facts, odds);
        self.holds.push(Hold { group, tenant: None, hour: self.hour, odds, facts, sentence });
        self.take_out(&parts, Some(group));
        self.guards[group as usize] = Guard::Held;
        self.weigh();
        let held = (0..self.roster.len()).filter(|device| self.is_held(*device)).count();
        let too_many = held as f64 > self.terms.held_share * f64::from(self.roster.len());
        let standing = self.guards.iter().filter(|guard| **guard == Guard::Held).count();
        if group == FLEET || too_many || standing >= self.terms.holds as usize {
            self.verdict = Verdict::Halt;
        }
        self.narrow_held();
    }

    /// What is known of a group, in numbers: of the look that says most.
    fn facts(&self, group: Group) -> words::Facts {
        let tally = &self.tallies[group as usize];
        let mut facts =
            words::Facts { let_in: tally.begun, failed: tally.failed, ..words::Facts::default() };
        let sums = self.silence.sums(group);
        let strongest = (0..LOOKS.len())
            .max_by(|a, b| mean(&sums[*a]).total_cmp(&mean(&sums[*b])))
            .unwrap_or(0);
        facts.within_h = LOOKS[strongest].to;
        facts.from_h = LOOKS[strongest].from;
        let (trial, soak) = self.reports.wealth(group);
        facts.by_silence = mean(&sums[strongest]) > trial.max(soak);
        let mut silent: Vec<Device> = Vec::new();
        for word in self.words.iter().filter(|word| usize::from(word.look) == strongest) {
            if word.arm == Arm::Treated && self.roster.groups_of(word.device).contains(&group) {
                silent.push(word.device);
            }
        }
        silent.sort_unstable();
        silent.dedup();
        facts.silent = silent.len() as u32;
        for batch in self.lots.all() {
            for lot in batch.lots.iter().filter(|lot| lot.arm == Arm::Control) {
                if batch.hour + LOOKS[strongest].to < self.hour
                    && self.roster.groups_of(lot.device).contains(&group)
                    && !self.is_treated(lot.device)
                {
                    let from = batch.hour + LOOKS[strongest].from;
                    let span = super::heard::Span::of(from, batch.hour + LOOKS[strongest].to);
                    facts.controls += 1;
                    facts.controls_silent += u32::from(!self.heard.any(lot.device, span));
                }
            }
        }
        facts
    }
}

/// The likelihood ratio of `own` of `all` surprising devices lying in a `share` of the exposure.
fn concentration(own: u32, all: u32, share: f64) -> f64 {
    let (k, total) = (f64::from(own), f64::from(all));
    if share <= 0.0 || share >= 1.0 || k <= total * share {
        return 0.0;
    }
    let rest = total - k;
    let outside = if rest > 0.0 { rest * (rest / (total * (1.0 - share))).ln() } else { 0.0 };
    k * (k / (total * share)).ln() + outside
}

fn add<const N: usize>(sums: &mut [f64; N], change: &[f64; N]) {
    for (sum, change) in sums.iter_mut().zip(change) {
        *sum += change;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concentration_grows_with_how_unlikely_it_is_and_is_nothing_when_it_is_even() {
        assert!(concentration(5, 50, 0.1).abs() < f64::EPSILON);
        assert!(concentration(5, 5, 0.02) > concentration(5, 10, 0.02));
        assert!(concentration(3, 3, 0.01) > CONCENTRATED + f64::from(500).ln());
    }
}
