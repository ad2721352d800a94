//! What others do, on the same fleets: shares of the fleet by bucket, and rules over counted results. They
//! count late failures as well, which is kinder to them than their documentation is.
//!
//! | policy | opens | stops |
//! |---|---|---|
//! | all at once | everything | never |
//! | time steps | 1, 10, 50, 100 %, a day apart | a person looks before each step: 5 % failed, or 8 % of those let in a day ago unreported |
//! | hawkBit | 1, 10, 50, 100 %, the next group when 90 % of the last succeeded | 10 % of a group failed |
//! | AWS IoT Jobs | an hourly rate that doubles with each hundredth of the fleet that succeeded | 10 % of the executed failed or timed out after 12 h, once a hundredth was executed |
//! | Mender | phases of 5, 20, 50, 100 %, a day apart | never: a person aborts |
//! | Wilson | 1, 10, 100 %, a day apart at least | the lower bound of the failing share is above 1 %; silence counts after 72 h |

use super::{
    fleet::Fleet,
    policy::{Look, Policy, Standing, Update},
    run::BEFORE,
};

/// Which peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everything at once.
    AllAtOnce,
    /// Fixed shares by time.
    TimeSteps,
    /// Thresholds on results.
    HawkBit,
    /// Exponential rate with abort criteria.
    AwsIot,
    /// Phases by time.
    Mender,
    /// A bound on the failing share.
    Wilson,
}

/// A peer's policy at work.
#[derive(Debug)]
pub struct Peer {
    rule: Rule,
    buckets: Vec<u32>,
    begun_at: Vec<u32>,
    results: Vec<Done>,
    /// Begun and unreported, by the hour of the beginning.
    open: Vec<u32>,
    begun: u32,
    well: u32,
    failed: u32,
    share: f64,
    step: usize,
    since: u32,
    halted: bool,
    /// Begun, well and failed in the newest group.
    group: [u32; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Not,
    Well,
    Failed,
}

const STEPS: [f64; 4] = [0.01, 0.1, 0.5, 1.0];
const PHASES: [f64; 4] = [0.05, 0.2, 0.5, 1.0];
const WILSON: [f64; 3] = [0.01, 0.1, 1.0];

impl Rule {
    /// Every peer.
    pub const ALL: [Self; 6] =
        [Self::AllAtOnce, Self::TimeSteps, Self::HawkBit, Self::AwsIot, Self::Mender, Self::Wilson];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllAtOnce => "all-at-once",
            Self::TimeSteps => "time-steps",
            Self::HawkBit => "hawkbit",
            Self::AwsIot => "aws-iot",
            Self::Mender => "mender",
            Self::Wilson => "wilson",
        }
    }
}

impl Peer {
    /// A peer over this fleet.
    pub fn new(rule: Rule, fleet: &Fleet) -> Self {
        let devices = fleet.roster.devices.len();
        Self {
            rule,
            buckets: fleet.roster.devices.iter().map(|member| member.bucket.0).collect(),
            begun_at: vec![0; devices],
            results: vec![Done::Not; devices],
            open: Vec::new(),
            begun: 0,
            well: 0,
            failed: 0,
            share: 0.0,
            step: 0,
            since: BEFORE,
            halted: false,
            group: [0; 3],
        }
    }

    /// Devices that began at least `age` hours ago and have said nothing since.
    fn overdue(&self, hour: u32, age: u32) -> u32 {
        let until = (hour + 1).saturating_sub(age) as usize;
        self.open.iter().take(until).sum()
    }

    fn steps(&mut self, hour: u32, shares: &[f64]) {
        if let Some(share) = shares.get(self.step) {
            self.share = *share;
        }
        self.step += 1;
        self.since = hour;
        self.group = [0; 3];
    }

    fn time_steps(&mut self, hour: u32) {
        let due = self.step == 0 || hour >= self.since + 24;
        if !due || self.step > STEPS.len() {
            return;
        }
        let results = f64::from((self.well + self.failed).max(1));
        let lost = f64::from(self.overdue(hour, 23)) / f64::from(self.begun.max(1));
        self.halted |= self.failed >= 2 && f64::from(self.failed) / results > 0.05;
        self.halted |= self.begun >= 5 && lost > 0.08;
        if !self.halted {
            self.steps(hour, &STEPS);
        }
    }

    /// Devices of hawkBit's newest group.
    fn group_size(&self) -> f64 {
        let before = self.step.checked_sub(2).and_then(|step| STEPS.get(step)).copied();
        (self.share - before.unwrap_or(0.0)) * self.buckets.len() as f64
    }

    fn hawkbit(&mut self, hour: u32) {
        let well = f64::from(self.group[1]);
        if self.step == 0 || (self.step <= STEPS.len() && well >= 0.9 * self.group_size()) {
            self.steps(hour, &STEPS);
        }
    }

    /// What each counts against a stop at any time.
    fn counts(&mut self, hour: u32) {
        let devices = self.buckets.len() as f64;
        self.halted |= match self.rule {
            Rule::AllAtOnce | Rule::TimeSteps | Rule::Mender => false,
            Rule::HawkBit => {
                self.group[0] > 0 && f64::from(self.group[2]) > 0.1 * self.group_size()
            }
            Rule::AwsIot => {
                let timed_out = self.overdue(hour, 12);
                let executed = f64::from(self.well + self.failed + timed_out);
                let bad = f64::from(self.failed + timed_out);
                executed >= (0.01 * devices).max(5.0) && bad >= 0.1 * executed
            }
            Rule::Wilson => {
                let bad = f64::from(self.failed + self.overdue(hour, 72));
                bad >= 2.0 && lower(bad, bad + f64::from(self.well)) > 0.01
            }
        };
    }

    fn aws(&mut self) {
        let devices = self.buckets.len() as f64;
        let doublings = f64::from(self.well) / (0.01 * devices).max(1.0);
        let rate = devices / 500.0 * 2f64.powf(doublings.floor().min(20.0));
        self.share = (self.share + rate / devices).min(1.0);
    }

    fn wilson(&mut self, hour: u32) {
        let shown = f64::from(self.well) >= 0.7 * self.share * self.buckets.len() as f64;
        let due = self.step == 0 || (hour >= self.since + 24 && shown);
        if due && self.step <= WILSON.len() {
            self.steps(hour, &WILSON);
        }
    }

    fn result(&mut self, device: u32, done: Done) {
        let place = device as usize;
        let before = std::mem::replace(&mut self.results[place], done);
        let begun = self.begun_at[place];
        if before == Done::Not
            && let Some(open) = self.open.get_mut(begun as usize)
        {
            *open = open.saturating_sub(1);
        }
        if before == Done::Well {
            self.well -= 1;
        }
        let newest = begun >= self.since;
        match done {
            Done::Well => {
                self.well += 1;
                self.group[1] += u32::from(newest);
            }
            Done::Failed => {
                self.failed += 1;
                self.group[2] += u32::from(newest);
            }
            Done::Not => {}
        }
    }
}

/// Wilson's lower bound, 95 % one-sided.
fn lower(bad: f64, all: f64) -> f64 {
    let (z, share) = (1.645f64, bad / all.max(1.0));
    let middle = share + z * z / (2.0 * all);
    let spread = z * (share * (1.0 - share) / all + z * z / (4.0 * all * all)).max(0.0).sqrt();
    (middle - spread) / (1.0 + z * z / all)
}

impl Policy for Peer {
    fn begin_hour(&mut self, hour: u32, _: &Look<'_>) {
        self.open.push(0);
        if hour >= BEFORE {
            self.counts(hour);
        }
        if hour < BEFORE || self.halted {
            return;
        }
        match self.rule {
            Rule::AllAtOnce => self.share = 1.0,
            Rule::TimeSteps => self.time_steps(hour),
            Rule::HawkBit => self.hawkbit(hour),
            Rule::AwsIot => self.aws(),
            Rule::Mender => {
                if self.step < PHASES.len() && (self.step == 0 || hour >= self.since + 24) {
                    self.steps(hour, &PHASES);
                }
            }
            Rule::Wilson => self.wilson(hour),
        }
    }

    fn admits(&self, device: u32) -> bool {
        !self.halted && f64::from(self.buckets[device as usize]) < self.share * 4_294_967_296.0
    }

    fn letter(&mut self, device: u32, hour: u32, update: Update) {
        match update {
            Update::Waits(Standing::Begins) => {
                self.begun_at[device as usize] = hour;
                self.begun += 1;
                self.group[0] += 1;
                if let Some(open) = self.open.last_mut() {
                    *open += 1;
                }
            }
            Update::Healthy => self.result(device, Done::Well),
            Update::Failed(_) => self.result(device, Done::Failed),
            Update::Waits(Standing::AtRisk | Standing::Kept) | Update::On => {}
        }
    }

    fn look(&mut self, hour: u32) {
        if hour >= BEFORE {
            self.counts(hour);
        }
    }

    fn halted(&self) -> bool {
        self.halted
    }
}
