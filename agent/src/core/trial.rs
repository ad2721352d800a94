//! Is the release on trial well? Turns probe results into keep, go on, or go back.
//!
//! Time is counted, not read off: a trial adds up what passed between the agent's own looks, and of
//! a long gap (sleep, a clock that jumped, a boot) only what the probes could have seen. So no sleep
//! soaks a release, and none makes it miss its deadline. It asks no probe by itself.

use std::collections::BTreeMap;

use lockgate_shared::{
    gather::gather,
    manifest::{ProbeKind, Trial},
    time::Seconds,
};
use serde::{Deserialize, Serialize};

/// How often no contact alone may extend a trial, each time by its whole deadline: a site that is cut
/// off for longer should run what ran before.
pub const EXTENSIONS: u8 = 3;

/// What is added to the longest probe interval for the longest gap that counts in full: probes run
/// one after the other, each for up to a minute.
pub const GAP_SLACK: Seconds = Seconds(120);

/// A trial so far. All moments in it are counted in [`Watch::elapsed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// How long the release has been on trial.
    pub elapsed: Seconds,
    /// The machine's uptime when that was counted last.
    pub mark: Seconds,
    /// When time is up.
    pub deadline: Seconds,
    /// Since when every probe has held without a break.
    pub healthy_since: Option<Seconds>,
    /// How many more interruptions it bears.
    pub attempts_left: u8,
    /// How often no contact has extended it.
    pub extensions: u8,
    /// What broke the last soak, or kept the first from beginning.
    pub broken_by: Blame,
    /// The probes, by name.
    pub probes: BTreeMap<String, Tally>,
}

/// One probe's results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How often it held.
    pub held: u32,
    /// How often it failed.
    pub failed: u32,
    /// The longest it took.
    pub latency_ms: u32,
    /// What it said last.
    pub last: Option<Said>,
    /// When it is asked next.
    pub due: Seconds,
}

/// What a probe said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Whether it held.
    pub health: Health,
    /// In a sentence.
    pub detail: String,
}

/// The answer of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It held.
    Held,
    /// It failed.
    Failed,
    /// It held, but its process is another one than before: it crashed in between.
    Restarted,
}

/// What keeps a trial from ending well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The release itself.
    Release,
    /// No contact to the server and nothing else: perhaps the network's doing.
    Contact,
}

/// What a trial has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has shown its health.
    Keep,
    /// Not yet.
    Undecided,
    /// Only the contact is missing: it gets more time.
    Extend,
    /// It goes back.
    RollBack {
        /// Why, in a sentence.
        why: String,
        /// Whose doing it is.
        blame: Blame,
    },
}

/// One result on its way into a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The probe's name.
    pub probe: String,
    /// What it said.
    pub said: Said,
    /// How long it took.
    pub latency_ms: u32,
}

impl Watch {
    /// A trial that begins at this uptime.
    pub fn begin(trial: &Trial, uptime: Seconds) -> Self {
        Self {
            elapsed: Seconds(0),
            mark: uptime,
            deadline: trial.deadline_s,
            healthy_since: None,
            attempts_left: trial.attempts,
            extensions: 0,
            broken_by: Blame::Release,
            probes: gather(trial.probes.iter().map(|probe| (probe.name.clone(), Tally::default()))),
        }
    }

    /// Counts the time since the last look.
    pub fn advance(&mut self, trial: &Trial, uptime: Seconds) {
        let longest = trial.probes.iter().map(|probe| probe.interval_s.0).max().unwrap_or_default();
        let most = longest.saturating_add(GAP_SLACK.0);
        let gap = uptime.0.saturating_sub(self.mark.0).min(most);
        self.elapsed = Seconds(self.elapsed.0.saturating_add(gap));
        self.mark = uptime;
    }

    /// Takes in one result; the probe is asked again after its interval. A name that the trial does
    /// not have changes nothing.
    pub fn answer(&mut self, trial: &Trial, answer: &Answer) {
        let Some(probe) = trial.probes.iter().find(|probe| probe.name == answer.probe) else {
            return;
        };
        let tally = self.probes.entry(answer.probe.clone()).or_default();
        tally.due = Seconds(self.elapsed.0.saturating_add(probe.interval_s.0.max(1)));
        tally.latency_ms = tally.latency_ms.max(answer.latency_ms);
        tally.last = Some(answer.said.clone());
        match answer.said.health {
            Health::Held => tally.held = tally.held.saturating_add(1),
            Health::Failed => {
                tally.failed = tally.failed.saturating_add(1);
                self.broken_by = match probe.kind {
                    ProbeKind::Contact => Blame::Contact,
                    ProbeKind::Command { .. }
                    | ProbeKind::Http { .. }
                    | ProbeKind::Process { .. } => Blame::Release,
                };
            }
            Health::Restarted => {
                tally.failed = tally.failed.saturating_add(1);
                self.broken_by = Blame::Release;
            }
        }
        self.healthy_since = if self.all_hold(trial) {
            Some(self.healthy_since.unwrap_or(self.elapsed))
        } else {
            None
        };
    }

    /// Notes an interruption (a crash, a boot): the soak begins anew. `None` when it was one too
    /// many.
    #[must_use]
    pub fn interrupt(&mut self, uptime: Seconds) -> Option<()> {
        self.mark = uptime;
        self.healthy_since = None;
        for tally in self.probes.values_mut() {
            tally.last = None;
            tally.due = self.elapsed;
        }
        self.attempts_left = self.attempts_left.checked_sub(1)?;
        Some(())
    }

    /// The probes that are due, by name.
    pub fn due(&self) -> Vec<String> {
        self.probes
            .iter()
            .filter(|(_, tally)| tally.due <= self.elapsed)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// How long until the next probe is due or time is up.
    pub fn rest(&self) -> Seconds {
        let next = self.probes.values().map(|tally| tally.due).min().unwrap_or(self.deadline);
        Seconds(next.min(self.deadline).0.saturating_sub(self.elapsed.0))
    }

    /// What the trial has come to.
    pub fn verdict(&self, trial: &Trial) -> Verdict {
        if let Some(since) = self.healthy_since
            && self.elapsed.0.saturating_sub(since.0) >= trial.soak_s.0
        {
            // The soak ends with an answer, not with time: what held a while ago may be dead by now.
            return if self.due().is_empty() { Verdict::Keep } else { Verdict::Undecided };
        }
        if self.elapsed < self.deadline {
            return Verdict::Undecided;
        }
        match self.blame(trial) {
            Blame::Contact if self.extensions < EXTENSIONS => Verdict::Extend,
            Blame::Contact => Verdict::RollBack {
                why: format!("the server was not reached within {}", self.elapsed),
                blame: Blame::Contact,
            },
            Blame::Release => Verdict::RollBack { why: self.complaint(), blame: Blame::Release },
        }
    }

    /// Gives a trial that lacks nothing but contact its deadline once more.
    pub fn extend(&mut self, trial: &Trial) {
        self.extensions = self.extensions.saturating_add(1);
        self.deadline = Seconds(self.deadline.0.saturating_add(trial.deadline_s.0));
    }

    fn all_hold(&self, trial: &Trial) -> bool {
        trial.probes.iter().all(|probe| self.holds(&probe.name))
    }

    fn holds(&self, name: &str) -> bool {
        self.probes
            .get(name)
            .and_then(|tally| tally.last.as_ref())
            .is_some_and(|said| said.health == Health::Held)
    }

    fn blame(&self, trial: &Trial) -> Blame {
        let mut failing = trial.probes.iter().filter(|probe| !self.holds(&probe.name)).peekable();
        if failing.peek().is_none() {
            return self.broken_by;
        }
        if failing.all(|probe| probe.kind == ProbeKind::Contact) {
            Blame::Contact
        } else {
            Blame::Release
        }
    }

    fn complaint(&self) -> String {
        let failing = self.probes.iter().find_map(|(name, tally)| match &tally.last {
            Some(said) if said.health == Health::Held => None,
            Some(said) => Some(format!("probe `{name}` failed: {}", said.detail)),
            None => Some(format!("probe `{name}` never answered")),
        });
        let cause = failing.unwrap_or_else(|| "the probes did not hold for long enough".into());
        format!("after {}: {cause}", self.elapsed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use lockgate_shared::manifest::Probe;

    use super::*;

    #[test]
    fn a_release_whose_probes_hold_through_the_soak_is_kept_and_not_before() {
        let trial = trial(&[("web", local())]);
        let mut watch = Watch::begin(&trial, Seconds(1000));
        for step in 0..=5 {
            watch.advance(&trial, Seconds(1000 + step * 20));
            watch.answer(&trial, &held("web"));
            let expected = if step < 5 { Verdict::Undecided } else { Verdict::Keep };
            assert_eq!(watch.verdict(&trial), expected, "at step {step}");
        }
    }

    #[test]
    fn time_alone_does_not_end_a_soak_while_a_probe_is_due() {
        let trial = trial(&[("web", local())]);
        let mut watch = Watch::begin(&trial, Seconds(0));
        watch.answer(&trial, &held("web"));
        watch.advance(&trial, Seconds(100));
        assert_eq!(watch.verdict(&trial), Verdict::Undecided);
        watch.answer(&trial, &failed("web"));
        assert_eq!(watch.verdict(&trial), Verdict::Undecided, "it died meanwhile");
    }

    #[test]
    fn one_failure_begins_the_soak_anew() {
        let trial = trial(&[("web", local())]);
        let mut watch = Watch::begin(&trial, Seconds(0));
        watch.answer(&trial, &held("web"));
        watch.advance(&trial, Seconds(90));
        watch.answer(&trial, &failed("web"));
        watch.answer(&trial, &held("web"));
        watch.advance(&trial, Seconds(110));
        assert_eq!(watch.verdict(&trial), Verdict::Undecided);
    }

    #[test]
    fn a_missed_deadline_goes_back_and_names_the_probe() {
        let trial = trial(&[("web", local())]);
        let mut watch = Watch::begin(&trial, Seconds(0));
        for uptime in (0..=300).step_by(20) {
            watch.advance(&trial, Seconds(uptime));
            watch.answer(&trial, &failed("web"));
        }
        let Verdict::RollBack { why, blame } = watch.verdict(&trial) else {
            panic!("{:?}", watch.verdict(&trial))
        };
        assert_eq!(blame, Blame::Release);
        assert!(why.contains("`web` failed: refused"), "{why}");
    }

    #[test]
    fn no_contact_alone_extends_the_trial_a_bounded_number_of_times() {
        let trial = trial(&[("web", local()), ("server", ProbeKind::Contact)]);
        let mut watch = Watch::begin(&trial, Seconds(0));
        let mut extended = 0;
        for uptime in (0..10_000).step_by(20) {
            watch.advance(&trial, Seconds(uptime));
            watch.answer(&trial, &held("web"));
            watch.answer(&trial, &failed("server"));
            match watch.verdict(&trial) {
                Verdict::Undecided => {}
                Verdict::Extend => {
                    watch.extend(&trial);
                    extended += 1;
                }
                Verdict::RollBack { blame, .. } => {
                    assert_eq!((blame, extended), (Blame::Contact, EXTENSIONS));
                    return;
                }
                Verdict::Keep => panic!("kept without contact"),
            }
        }
        panic!("the trial never ended");
    }

    #[test]
    fn a_release_that_fails_besides_having_no_contact_gets_no_more_time() {
        let trial = trial(&[("web", local()), ("server", ProbeKind::Contact)]);
        let mut watch = Watch::begin(&trial, Seconds(0));
        for uptime in (0..=300).step_by(20) {
            watch.advance(&trial, Seconds(uptime));
            watch.answer(&trial, &failed("web"));
            watch.answer(&trial, &failed("server"));
        }
        assert!(matches!(watch.verdict(&trial), Verdict::RollBack { blame: Blame::Release, .. }));
    }

    #[test]
    fn a_night_of_sleep_neither_soaks_a_release_nor_condemns_it() {
        let trial = trial(&[("web", local())]);
        let mut watch = Watch::begin(&trial, Seconds(0));
        watch.answer(&trial, &failed("web"));
        watch.advance(&trial, Seconds(30_000));
        assert_eq!(watch.verdict(&trial), Verdict::Undecided);
        assert!(watch.elapsed < Seconds(200), "{}", watch.elapsed);
        watch.advance(&trial, Seconds(10));
        assert!(watch.elapsed < Seconds(200), "a clock that ran back counted");
    }

    #[test]
    fn interruptions_are_counted_and_the_one_too_many_shows() {
        let trial = trial(&[("web", local())]);
        let mut watch = Watch::begin(&trial, Seconds(0));
        for _ in 0..trial.attempts {
            assert!(watch.interrupt(Seconds(5)).is_some());
            assert_eq!(watch.due(), ["web"]);
        }
        assert!(watch.interrupt(Seconds(5)).is_none());
    }

    pub(crate) fn trial(probes: &[(&str, ProbeKind)]) -> Trial {
        Trial {
            probes: probes
                .iter()
                .map(|(name, kind)| Probe {
                    name: (*name).into(),
                    kind: kind.clone(),
                    interval_s: Seconds(20),
                })
                .collect(),
            soak_s: Seconds(100),
            deadline_s: Seconds(300),
            attempts: 2,
        }
    }

    pub(crate) fn local() -> ProbeKind {
        ProbeKind::Process { pidfile: "run/pid".into() }
    }

    pub(crate) fn held(probe: &str) -> Answer {
        answer(probe, Health::Held, "fine")
    }

    pub(crate) fn failed(probe: &str) -> Answer {
        answer(probe, Health::Failed, "refused")
    }

    fn answer(probe: &str, health: Health, detail: &str) -> Answer {
        Answer { probe: probe.into(), said: Said { health, detail: detail.into() }, latency_ms: 3 }
    }
}
