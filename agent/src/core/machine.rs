//! What one product on the device does next. [`step`] takes the state, an event and the slots as they
//! are on the disk, and says the next state, what is to be done, and what a person should know.
//!
//! ```text
//!           Chosen              Fetched            Verified, Cleared
//!  Idle ------------> Fetching ---------> Staged --------------------> Activating
//!   ^ |                 |    |              |                            |      |
//!   | | Refused         |    | Refused      | Refused          Activated |      | ActivateFailed
//!   | v                 |    v              v (the slot stays)           v      |
//!   | Waiting <---------+----+--------------+                          Trial    |
//!   |                   |                                              |   |    |
//!   |                   | FetchFailed, for good          probes held   |   |    | anything else
//!   |                   v                                through soak  v   v    v
//!   +--- next poll -- Failed <--------- RollingBack <------ Confirmed     RollingBack
//! ```
//!
//! The shell journals the state and the effects before it does any of them, and answers each with an
//! event. An effect may be done twice. An event that does not fit is ignored and reported. Nothing
//! here waits for a server: a trial ends, and a device falls back, without one.

use lockgate_shared::{
    manifest::ArtifactKind,
    time::{Moment, Seconds},
    wire::{Outcome, OutcomeKind},
};

pub use super::state::{
    Consent, Contact, Device, Effect, Event, Fault, Handover, Now, Plan, PlannedArtifact, Refused,
    State, Step, Way,
};
use super::trial::{Answer, Blame, Health, Verdict, Watch};

/// How often bytes that are not the signed ones are asked for again at the next poll: a damaged copy in
/// one cache is soon another's. After that there are pauses between, for wrong bytes are paid for like
/// right ones. The release is never given up for them: whoever sends them could else deny it for good.
pub const FETCH_REFUSALS: u8 = 3;

/// The first pause after that; each one more refusal doubles it.
pub const FETCH_PAUSE: Seconds = Seconds(30);

/// Between two tries at most: a device takes right bytes within a day of their being there again.
pub const FETCH_PAUSE_MOST: Seconds = Seconds(6 * 3600);

/// How many polls the old slot has to reach the server after a trial that lacked contact alone,
/// before nobody knows whose fault it was.
pub const CONTACT_POLLS: u8 = 3;

/// Why a device goes back when its owner says so.
const OWNER: &str = "its owner asked for the version before";

/// What follows from `event` in `state`.
pub fn step(state: State, event: Event, device: &Device, now: Now) -> Step {
    let at = At { device, now };
    match state {
        State::Idle | State::Waiting { .. } | State::Confirmed { .. } | State::Failed { .. } => {
            at.rest(state, event)
        }
        State::Fetching { plan, refused } => at.fetching(plan, refused, event),
        State::Staged { plan } => at.staged(plan, event),
        State::Activating { plan } => at.activating(plan, event),
        State::Trial { plan, watch, handover } => {
            at.trial(Proving { plan, watch, handover }, event)
        }
        State::RollingBack { plan, why, way, took } => {
            at.rolling_back(Retreat { plan, why, way, took }, event)
        }
    }
}

/// Where and when a step is taken.
struct At<'a> {
    device: &'a Device,
    now: Now,
}

/// The contents of [`State::Trial`].
struct Proving {
    plan: Plan,
    watch: Watch,
    handover: Handover,
}

/// The contents of [`State::RollingBack`].
struct Retreat {
    plan: Plan,
    why: String,
    way: Way,
    took: Seconds,
}

impl Proving {
    fn state(self) -> State {
        State::Trial { plan: self.plan, watch: self.watch, handover: self.handover }
    }
}

impl Refused {
    fn once_more(self, now: Moment) -> Self {
        let times = self.times.saturating_add(1);
        let until = times.checked_sub(FETCH_REFUSALS).map(|more| {
            let pause = FETCH_PAUSE.0.saturating_mul(2_u64.saturating_pow(more.into()));
            now.plus(Seconds(pause).min(FETCH_PAUSE_MOST))
        });
        Self { times, until }
    }

    /// Whether the pause is over; one that is longer than any was begun under another clock.
    fn is_over(self, now: Moment) -> bool {
        self.until.is_none_or(|until| until <= now || now.plus(FETCH_PAUSE_MOST) < until)
    }
}

impl Retreat {
    fn state(self) -> State {
        State::RollingBack { plan: self.plan, why: self.why, way: self.way, took: self.took }
    }
}

impl At<'_> {
    /// Idle, Waiting, Confirmed, Failed: nothing is under way.
    fn rest(&self, state: State, event: Event) -> Step {
        match event {
            Event::Chosen(plan) => self.take(state, *plan),
            Event::Refused { until, reasons } => to(State::Waiting { until, reasons }, Vec::new()),
            Event::NothingNewer => to(State::Idle, Vec::new()),
            Event::Restarted { undone } => to(state, undone),
            Event::GoBack(plan, consent) => {
                let held = plan.from.is_some_and(|slot| self.device.holds(slot).is_some());
                if self.device.active != Some(plan.to) || !held {
                    let note = "there is no older version to go back to";
                    return noted(to(state, Vec::new()), note.into());
                }
                if plan.irreversible {
                    let note = format!("{} cannot be undone: its signers say so", plan.version);
                    return noted(to(state, Vec::new()), note);
                }
                match stranded(&plan, consent) {
                    Some(note) => noted(to(state, Vec::new()), note),
                    None => self.turn_back(*plan, OWNER.into(), Blame::Release, Seconds(0)),
                }
            }
            Event::RestartFailed { why } => {
                noted(to(state, Vec::new()), format!("the product was not restarted: {why}"))
            }
            Event::Tick | Event::Contact(_) => to(state, Vec::new()),
            Event::Cleared { .. }
            | Event::Fetched
            | Event::FetchFailed { .. }
            | Event::Verified
            | Event::VerifyFailed { .. }
            | Event::Activated
            | Event::ActivateFailed { .. }
            | Event::Probed(_) => ignored(state, &event),
        }
    }

    /// Begins with a plan, or goes on with it where its slot is filled already.
    fn take(&self, state: State, plan: Plan) -> Step {
        if self.device.active == Some(plan.to) || plan.from != self.device.active {
            return noted(to(state, Vec::new()), "the plan is for other slots: ignored".into());
        }
        if self.device.holds(plan.to) == Some(plan.manifest) {
            let slot = plan.to;
            return to(State::Staged { plan }, vec![Effect::VerifySlot { slot }]);
        }
        to(State::Fetching { plan, refused: Refused::default() }, vec![Effect::Fetch])
    }

    fn fetching(&self, plan: Plan, refused: Refused, event: Event) -> Step {
        match event {
            Event::Chosen(other) if other.manifest == plan.manifest => {
                let effects =
                    if refused.is_over(self.now.clock) { vec![Effect::Fetch] } else { Vec::new() };
                to(State::Fetching { plan, refused }, effects)
            }
            Event::Chosen(other) => self.take(State::Fetching { plan, refused }, *other),
            Event::Refused { until, reasons } => {
                let slot = plan.to;
                to(State::Waiting { until, reasons }, vec![Effect::DiscardSlot { slot }])
            }
            Event::NothingNewer => {
                let slot = plan.to;
                to(State::Idle, vec![Effect::DiscardSlot { slot }])
            }
            Event::Fetched => {
                let slot = plan.to;
                to(State::Staged { plan }, vec![Effect::VerifySlot { slot }])
            }
            Event::FetchFailed { fault: Fault::Passing, why } => noted(
                to(State::Fetching { plan, refused }, Vec::new()),
                format!("fetching is tried again at the next poll: {why}"),
            ),
            Event::FetchFailed { fault: Fault::Content, why } => {
                let refused = refused.once_more(self.now.clock);
                let again = refused.until.map_or_else(
                    || "asked for again at the next poll".to_owned(),
                    |until| format!("asked for again from {until}"),
                );
                noted(
                    to(State::Fetching { plan, refused }, Vec::new()),
                    format!("these are not the signed bytes, {again}: {why}"),
                )
            }
            // What came is unpacked from its beginning: a slot half filled cannot be trusted.
            Event::Restarted { .. } => to(State::Fetching { plan, refused }, vec![Effect::Fetch]),
            Event::Tick | Event::Contact(_) => to(State::Fetching { plan, refused }, Vec::new()),
            Event::Cleared { .. }
            | Event::Verified
            | Event::VerifyFailed { .. }
            | Event::Activated
            | Event::ActivateFailed { .. }
            | Event::RestartFailed { .. }
            | Event::GoBack(..)
            | Event::Probed(_) => ignored(State::Fetching { plan, refused }, &event),
        }
    }

    fn staged(&self, plan: Plan, event: Event) -> Step {
        let slot = plan.to;
        match event {
            Event::Verified => to(State::Staged { plan }, vec![Effect::LastLook]),
            Event::VerifyFailed { why } => noted(
                to(State::Idle, vec![Effect::DiscardSlot { slot }]),
                format!("the staged slot was discarded: {why}"),
            ),
            Event::Cleared { manifest } if manifest == plan.manifest => {
                to(State::Activating { plan }, vec![Effect::Activate { slot }])
            }
            Event::Chosen(other) => self.take(State::Staged { plan }, *other),
            Event::Refused { until, reasons } => to(State::Waiting { until, reasons }, Vec::new()),
            Event::NothingNewer => to(State::Idle, Vec::new()),
            // The last look may be long past: it is taken again.
            Event::Restarted { .. } => {
                to(State::Staged { plan }, vec![Effect::VerifySlot { slot }])
            }
            Event::Tick | Event::Contact(_) => to(State::Staged { plan }, Vec::new()),
            Event::Cleared { .. }
            | Event::Fetched
            | Event::FetchFailed { .. }
            | Event::Activated
            | Event::ActivateFailed { .. }
            | Event::RestartFailed { .. }
            | Event::GoBack(..)
            | Event::Probed(_) => ignored(State::Staged { plan }, &event),
        }
    }

    fn activating(&self, plan: Plan, event: Event) -> Step {
        let slot = plan.to;
        match event {
            Event::Activated => {
                let watch = Watch::begin(&plan.trial, self.now.uptime);
                let handover = match plan.artifact.kind {
                    ArtifactKind::Agent => Handover::Due,
                    ArtifactKind::App | ArtifactKind::Image | ArtifactKind::Config => {
                        Handover::Done
                    }
                };
                to(State::Trial { plan, watch, handover }, vec![Effect::Restart])
            }
            Event::ActivateFailed { why } if self.device.active == Some(slot) => {
                // It has not run yet, and so has migrated nothing.
                self.turn_back(plan, why, Blame::Release, Seconds(0))
            }
            Event::ActivateFailed { why } => self.give_up(plan, why),
            Event::Restarted { .. } if self.device.active == Some(slot) => {
                to(State::Activating { plan }, vec![Effect::Activate { slot }])
            }
            // Not switched yet, and the last look may be long past: it is taken again.
            Event::Restarted { .. } => {
                to(State::Staged { plan }, vec![Effect::VerifySlot { slot }])
            }
            Event::Tick
            | Event::Contact(_)
            | Event::Chosen(_)
            | Event::Refused { .. }
            | Event::NothingNewer => to(State::Activating { plan }, Vec::new()),
            Event::Cleared { .. }
            | Event::Fetched
            | Event::FetchFailed { .. }
            | Event::Verified
            | Event::VerifyFailed { .. }
            | Event::RestartFailed { .. }
            | Event::GoBack(..)
            | Event::Probed(_) => ignored(State::Activating { plan }, &event),
        }
    }

    fn trial(&self, mut trial: Proving, event: Event) -> Step {
        match event {
            Event::Probed(answer) => self.probed(trial, &answer),
            Event::Tick => {
                trial.watch.advance(&trial.plan.trial, self.now.uptime);
                let due = trial.watch.due();
                self.judge(trial, due.into_iter().map(|probe| Effect::RunProbe { probe }).collect())
            }
            Event::GoBack(_, consent) => match stranded(&trial.plan, consent) {
                Some(note) => noted(to(trial.state(), Vec::new()), note),
                None => {
                    self.turn_back(trial.plan, OWNER.into(), Blame::Release, trial.watch.elapsed)
                }
            },
            Event::RestartFailed { why } => {
                let why = format!("it did not start: {why}");
                self.retreat(trial.plan, why, Blame::Release, trial.watch.elapsed)
            }
            // The switch was thrown back while the agent was not looking, or could not write.
            Event::Restarted { .. }
                if trial.plan.from.is_some() && self.device.active == trial.plan.from =>
            {
                let why = "the old slot was active again at a start".into();
                self.turn_back(trial.plan, why, Blame::Release, trial.watch.elapsed)
            }
            Event::Restarted { undone } => self.trial_restarted(trial, undone),
            Event::Contact(_) | Event::Chosen(_) | Event::Refused { .. } | Event::NothingNewer => {
                to(trial.state(), Vec::new())
            }
            Event::Cleared { .. }
            | Event::Fetched
            | Event::FetchFailed { .. }
            | Event::Verified
            | Event::VerifyFailed { .. }
            | Event::Activated
            | Event::ActivateFailed { .. } => ignored(trial.state(), &event),
        }
    }

    fn probed(&self, mut trial: Proving, answer: &Answer) -> Step {
        trial.watch.advance(&trial.plan.trial, self.now.uptime);
        trial.watch.answer(&trial.plan.trial, answer);
        match answer.said.health {
            Health::Held | Health::Failed => self.judge(trial, Vec::new()),
            Health::Restarted => {
                let what = format!("probe `{}` found its process restarted", answer.probe);
                self.interrupted(trial, what, Vec::new())
            }
        }
    }

    /// The agent began anew during a trial: the handover to itself, or an interruption.
    fn trial_restarted(&self, mut trial: Proving, mut undone: Vec<Effect>) -> Step {
        match trial.handover {
            Handover::Due => {
                trial.handover = Handover::Done;
                trial.watch.mark = self.now.uptime;
                to(trial.state(), Vec::new())
            }
            Handover::Done => {
                // Probes are asked again by the next tick anyway.
                undone.retain(|effect| matches!(effect, Effect::Restart | Effect::SendLetter));
                self.interrupted(trial, "the agent or the machine".into(), undone)
            }
        }
    }

    fn interrupted(&self, mut trial: Proving, what: String, effects: Vec<Effect>) -> Step {
        match trial.watch.interrupt(self.now.uptime) {
            Some(()) => {
                let left = trial.watch.attempts_left;
                let note = format!("the trial was interrupted ({what}), {left} more are allowed");
                noted(to(trial.state(), effects), note)
            }
            None => {
                let why = format!("the trial was interrupted once too often ({what})");
                self.retreat(trial.plan, why, Blame::Release, trial.watch.elapsed)
            }
        }
    }

    fn judge(&self, mut trial: Proving, effects: Vec<Effect>) -> Step {
        match trial.watch.verdict(&trial.plan.trial) {
            Verdict::Undecided => to(trial.state(), effects),
            Verdict::Extend => {
                trial.watch.extend(&trial.plan.trial);
                let note = "only the contact to the server is missing: the trial is extended";
                noted(to(trial.state(), effects), note.into())
            }
            Verdict::Keep => {
                let Proving { plan, watch, .. } = trial;
                let outcome = self.outcome(&plan, OutcomeKind::Confirmed, watch.elapsed, "");
                let effects = vec![Effect::RecordOutcome { outcome }, Effect::SendLetter];
                to(State::Confirmed { version: plan.version }, effects)
            }
            Verdict::RollBack { why, blame } => {
                self.retreat(trial.plan, why, blame, trial.watch.elapsed)
            }
        }
    }

    /// Turns back to the old slot, unless what is there could not read the data any more: then the
    /// device stays, because neither version works and only its owner can weigh the data's worth.
    fn retreat(&self, plan: Plan, why: String, blame: Blame, took: Seconds) -> Step {
        match stranded(&plan, Consent::GoBack) {
            Some(note) => {
                let kind = match blame {
                    Blame::Release => OutcomeKind::RolledBack,
                    Blame::Contact => OutcomeKind::Inconclusive,
                };
                self.failed(plan, kind, format!("{why}; {note}"), took)
            }
            None => self.turn_back(plan, why, blame, took),
        }
    }

    fn turn_back(&self, plan: Plan, why: String, blame: Blame, took: Seconds) -> Step {
        let Some(slot) = plan.from else {
            let why = format!("{why}; there is no older version to go back to");
            return self.failed(plan, OutcomeKind::RolledBack, why, took);
        };
        let way = match blame {
            Blame::Release => Way::Switching,
            Blame::Contact => Way::SwitchingWithoutContact,
        };
        to(State::RollingBack { plan, why, way, took }, vec![Effect::Activate { slot }])
    }

    fn rolling_back(&self, back: Retreat, event: Event) -> Step {
        match (event, back.way) {
            (Event::Activated, Way::Switching) => {
                let mut step = self.failed(back.plan, OutcomeKind::RolledBack, back.why, back.took);
                step.effects.push(Effect::Restart);
                step
            }
            (Event::Activated, Way::SwitchingWithoutContact) => {
                let way = Way::Listening { polls: CONTACT_POLLS };
                to(Retreat { way, ..back }.state(), vec![Effect::Restart])
            }
            (Event::ActivateFailed { why }, Way::Switching | Way::SwitchingWithoutContact) => {
                let note = format!("the way back is tried again: {why}");
                noted(to(back.state(), Vec::new()), note)
            }
            (
                Event::Tick | Event::Restarted { .. },
                Way::Switching | Way::SwitchingWithoutContact,
            ) => match back.plan.from {
                Some(slot) => to(back.state(), vec![Effect::Activate { slot }]),
                None => to(back.state(), Vec::new()),
            },
            (Event::Restarted { undone }, Way::Listening { .. }) => to(back.state(), undone),
            (Event::Contact(Contact::Reached), Way::Listening { .. }) => {
                let why = format!("{}; the old version reaches it", back.why);
                self.failed(back.plan, OutcomeKind::RolledBack, why, back.took)
            }
            (Event::Contact(Contact::Missed), Way::Listening { polls }) => {
                match polls.checked_sub(1) {
                    Some(polls) if polls > 0 => {
                        to(Retreat { way: Way::Listening { polls }, ..back }.state(), Vec::new())
                    }
                    Some(_) | None => self.inconclusive(back),
                }
            }
            (Event::RestartFailed { why }, _) => {
                noted(to(back.state(), Vec::new()), format!("the product was not restarted: {why}"))
            }
            (
                Event::Tick
                | Event::Contact(_)
                | Event::Chosen(_)
                | Event::Refused { .. }
                | Event::NothingNewer,
                _,
            ) => to(back.state(), Vec::new()),
            (
                event @ (Event::Cleared { .. }
                | Event::Fetched
                | Event::FetchFailed { .. }
                | Event::Verified
                | Event::VerifyFailed { .. }
                | Event::Activated
                | Event::ActivateFailed { .. }
                | Event::GoBack(..)
                | Event::Probed(_)),
                _,
            ) => ignored(back.state(), &event),
        }
    }

    fn inconclusive(&self, back: Retreat) -> Step {
        let why = format!("{}; the old version does not reach it either", back.why);
        let outcome = self.outcome(&back.plan, OutcomeKind::Inconclusive, back.took, &why);
        to(
            State::Failed { version: back.plan.version, reasons: vec![why] },
            vec![Effect::RecordOutcome { outcome }, Effect::SendLetter],
        )
    }

    /// Gives up before the switch.
    fn give_up(&self, plan: Plan, why: String) -> Step {
        let slot = plan.to;
        let took = self.now.clock.since(plan.chosen);
        let mut step = self.failed(plan, OutcomeKind::Failed, why, took);
        step.effects.push(Effect::DiscardSlot { slot });
        step
    }

    fn failed(&self, plan: Plan, kind: OutcomeKind, why: String, took: Seconds) -> Step {
        let outcome = self.outcome(&plan, kind, took, &why);
        let version = plan.version;
        to(
            State::Failed { version: version.clone(), reasons: vec![why] },
            vec![
                Effect::RecordOutcome { outcome },
                Effect::RememberFailed { version },
                Effect::SendLetter,
            ],
        )
    }

    fn outcome(&self, plan: &Plan, kind: OutcomeKind, took: Seconds, detail: &str) -> Outcome {
        Outcome {
            rollout: plan.rollout,
            product: plan.product.clone(),
            version: plan.version.clone(),
            kind,
            at: self.now.clock,
            took,
            detail: detail.to_owned(),
        }
        .bounded()
    }
}

/// Why nothing leads back to a version that could not read the data, unless the owner agreed.
fn stranded(plan: &Plan, consent: Consent) -> Option<String> {
    let before = plan.previous.as_ref().filter(|_| plan.strands_data)?;
    match consent {
        Consent::LoseData => None,
        Consent::GoBack => Some(format!(
            "it stays on {}, because {before} cannot read the data that it migrated: back them up, \
             then `lockgate-agent rollback {} --lose-data`",
            plan.version, plan.product
        )),
    }
}

const fn to(state: State, effects: Vec<Effect>) -> Step {
    Step { state, effects, notes: Vec::new() }
}

fn noted(mut step: Step, note: String) -> Step {
    step.notes.push(note);
    step
}

fn ignored(state: State, event: &Event) -> Step {
    let note =
        format!("`{}` does not fit the state `{}`: ignored", event.word(), state.word().name());
    noted(to(state, Vec::new()), note)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
