//! A product's machine, event by event, and against random ones: every trial ends, a slot that runs is
//! never written, and what is not due changes nothing.

use lockgate_shared::{
    id::{Digest, RolloutId},
    manifest::ProbeKind,
    time::Moment,
    version::Version,
    wire::{OutcomeKind, SlotState},
};
use proptest::prelude::*;

use super::*;
use crate::core::trial::tests::{failed, held, local, trial};
use crate::slots::Slot;

#[test]
fn a_good_release_goes_from_chosen_to_confirmed() {
    let mut sim = Sim::new();
    sim.feed(Event::Chosen(Box::new(sim.plan("1.1.0"))));
    assert_eq!(sim.state.word(), SlotState::Trial);
    for uptime in (0..=120).step_by(20) {
        sim.uptime = Seconds(uptime);
        sim.feed(Event::Tick);
    }
    assert_eq!(sim.state, State::Confirmed { version: version("1.1.0") });
    assert_eq!(sim.outcomes(), [OutcomeKind::Confirmed]);
    assert_eq!(sim.device.active, Some(Slot::B));
}

#[test]
fn a_release_whose_probes_fail_goes_back_without_any_server() {
    let mut sim = Sim { healthy: false, ..Sim::new() };
    sim.feed(Event::Chosen(Box::new(sim.plan("1.1.0"))));
    sim.run(400);
    assert!(matches!(&sim.state, State::Failed { reasons, .. } if reasons[0].contains("refused")));
    assert_eq!(sim.outcomes(), [OutcomeKind::RolledBack]);
    assert_eq!(sim.device.active, Some(Slot::A));
    assert_eq!(sim.remembered(), [version("1.1.0")]);
    assert_eq!(sim.restarts(), 2, "once into the new slot, once back");
}

#[test]
fn a_stop_before_the_last_look_keeps_the_staged_slot_and_a_later_go_uses_it_again() {
    let mut sim = Sim { clear: false, ..Sim::new() };
    sim.feed(Event::Chosen(Box::new(sim.plan("1.1.0"))));
    assert_eq!(sim.state.word(), SlotState::Waiting);
    assert_eq!(sim.device.active, Some(Slot::A));
    sim.clear = true;
    sim.feed(Event::Chosen(Box::new(sim.plan("1.1.0"))));
    assert_eq!(sim.state.word(), SlotState::Trial);
    let fetches = sim.done.iter().filter(|effect| **effect == Effect::Fetch).count();
    assert_eq!(fetches, 1, "the same bytes were fetched twice");
}

#[test]
fn a_stop_while_bytes_come_ends_the_fetch() {
    let mut sim = Sim::new();
    let plan = sim.plan("1.1.0");
    let state = State::Fetching { plan, refused: Refused::default() };
    let step = sim.step(state, Event::Refused { until: None, reasons: vec![] });
    assert_eq!(step.state.word(), SlotState::Waiting);
    assert_eq!(step.effects, [Effect::DiscardSlot { slot: Slot::B }]);
    sim.state = step.state;
}

#[test]
fn what_is_irreversible_goes_back_while_on_trial_and_never_once_confirmed() {
    for healthy in [false, true] {
        let mut sim = Sim { healthy, ..Sim::new() };
        let plan = Plan { irreversible: true, ..sim.plan("1.1.0") };
        sim.feed(Event::Chosen(Box::new(plan.clone())));
        sim.run(400);
        assert_eq!(sim.device.active, Some(if healthy { Slot::B } else { Slot::A }));
        if healthy {
            let step =
                sim.step(sim.state.clone(), Event::GoBack(Box::new(plan), Consent::LoseData));
            assert_eq!((step.state, step.effects), (sim.state, vec![]));
            assert!(step.notes[0].contains("cannot be undone"), "{:?}", step.notes);
        }
    }
}

#[test]
fn a_version_that_cannot_read_the_data_comes_back_only_when_the_owner_says_so() {
    let mut sim = Sim { healthy: false, ..Sim::new() };
    let plan = Plan { strands_data: true, ..sim.plan("1.1.0") };
    sim.feed(Event::Chosen(Box::new(plan.clone())));
    sim.run(400);
    assert_eq!(sim.device.active, Some(Slot::B), "it went back by itself");
    let State::Failed { reasons, .. } = &sim.state else { panic!("{:?}", sim.state) };
    assert!(reasons[0].contains("cannot read the data"), "{reasons:?}");
    assert!(reasons[0].contains("rollback app --lose-data"), "{reasons:?}");
    assert_eq!(sim.outcomes(), [OutcomeKind::RolledBack], "the gate must hear of the harm");
    sim.feed(Event::GoBack(Box::new(plan.clone()), Consent::GoBack));
    assert_eq!(sim.device.active, Some(Slot::B));
    sim.feed(Event::GoBack(Box::new(plan), Consent::LoseData));
    assert_eq!(sim.device.active, Some(Slot::A));
}

#[test]
fn a_switch_that_was_not_thrown_before_a_crash_is_looked_at_again() {
    let sim = Sim::new();
    let plan = sim.plan("1.1.0");
    let restarted = Event::Restarted { undone: vec![Effect::Activate { slot: Slot::B }] };
    let step = sim.step(State::Activating { plan: plan.clone() }, restarted.clone());
    assert_eq!(step.state, State::Staged { plan: plan.clone() });
    let thrown = Sim { device: Device { active: Some(Slot::B), ..sim.device }, ..sim };
    let step = thrown.step(State::Activating { plan }, restarted);
    assert_eq!(step.effects, [Effect::Activate { slot: Slot::B }]);
}

#[test]
fn a_crash_loop_goes_back_after_the_attempts_of_the_release() {
    let mut sim = Sim::new();
    sim.feed(Event::Chosen(Box::new(sim.plan("1.1.0"))));
    for crash in 0..3 {
        assert_eq!(sim.state.word(), SlotState::Trial, "after {crash} crashes");
        sim.feed(Event::Restarted { undone: vec![] });
    }
    assert_eq!(sim.state.word(), SlotState::Failed);
    assert_eq!(sim.device.active, Some(Slot::A));
}

#[test]
fn the_first_start_of_a_new_agent_is_no_interruption() {
    let mut sim = Sim::new();
    let mut plan = sim.plan("1.1.0");
    plan.artifact.kind = ArtifactKind::Agent;
    sim.feed(Event::Chosen(Box::new(plan)));
    let attempts = |sim: &Sim| {
        let State::Trial { watch, .. } = &sim.state else { panic!("{:?}", sim.state) };
        watch.attempts_left
    };
    sim.feed(Event::Restarted { undone: vec![Effect::Restart] });
    assert_eq!(attempts(&sim), 2);
    sim.feed(Event::Restarted { undone: vec![] });
    assert_eq!(attempts(&sim), 1);
}

#[test]
fn lost_contact_is_the_releases_fault_only_if_the_old_version_has_contact() {
    for (contact, kind, remembered) in [
        (Contact::Reached, OutcomeKind::RolledBack, 1),
        (Contact::Missed, OutcomeKind::Inconclusive, 0),
    ] {
        let mut sim = Sim { contact: Contact::Missed, ..Sim::new() };
        let mut plan = sim.plan("1.1.0");
        plan.trial = trial(&[("web", local()), ("server", ProbeKind::Contact)]);
        sim.feed(Event::Chosen(Box::new(plan)));
        sim.run(2000);
        assert_eq!(sim.state.word(), SlotState::RollingBack);
        assert_eq!(sim.device.active, Some(Slot::A), "the old slot runs already");
        for _ in 0..CONTACT_POLLS {
            sim.feed(Event::Contact(contact));
        }
        assert_eq!(sim.outcomes(), [kind]);
        assert_eq!(sim.remembered().len(), remembered);
    }
}

#[test]
fn wrong_bytes_are_asked_for_more_and_more_seldom_and_never_give_a_release_up() {
    let mut sim = Sim::new();
    let plan = sim.plan("1.1.0");
    sim.state = State::Fetching { plan: plan.clone(), refused: Refused::default() };
    let begun = sim.clock;
    let mut fetches = 0;
    // A day of polls, each a minute after the last.
    for minute in 0..24 * 60 {
        sim.clock = begun.plus(Seconds(minute * 60));
        let step = sim.step(sim.state.clone(), Event::Chosen(Box::new(plan.clone())));
        sim.state = step.state;
        if step.effects.contains(&Effect::Fetch) {
            fetches += 1;
            sim.feed_alone(Event::FetchFailed { fault: Fault::Content, why: "digest".into() });
        }
    }
    assert!((10..20).contains(&fetches), "{fetches} downloads in a day");
    assert!(sim.outcomes().is_empty() && sim.remembered().is_empty(), "nothing is over");
    sim.clock = sim.clock.plus(FETCH_PAUSE_MOST);
    let step = sim.step(sim.state.clone(), Event::Chosen(Box::new(plan)));
    assert_eq!(step.effects, [Effect::Fetch], "right bytes are taken when they are there again");
}

#[test]
fn a_pause_that_another_clock_began_is_not_kept() {
    let sim = Sim::new();
    let plan = sim.plan("1.1.0");
    let until = Some(sim.clock.plus(Seconds(FETCH_PAUSE_MOST.0 + 1)));
    let state = State::Fetching { plan: plan.clone(), refused: Refused { times: 9, until } };
    assert_eq!(sim.step(state, Event::Chosen(Box::new(plan))).effects, [Effect::Fetch]);
}

#[test]
fn what_the_network_does_never_gives_a_release_up() {
    let mut sim = Sim::new();
    sim.state = State::Fetching { plan: sim.plan("1.1.0"), refused: Refused::default() };
    for _ in 0..100 {
        sim.feed_alone(Event::FetchFailed { fault: Fault::Passing, why: "reset".into() });
    }
    assert_eq!(sim.state.word(), SlotState::Fetching);
    assert!(sim.outcomes().is_empty());
}

#[test]
fn an_event_that_does_not_fit_changes_nothing_and_is_reported() {
    let sim = Sim::new();
    for event in [Event::Activated, Event::Fetched, Event::Probed(held("web"))] {
        let step = sim.step(State::Idle, event);
        assert_eq!((step.state, step.effects.len()), (State::Idle, 0));
        assert!(step.notes[0].contains("ignored"), "{:?}", step.notes);
    }
}

#[test]
fn a_way_back_that_fails_is_tried_until_it_succeeds() {
    let mut sim = Sim { healthy: false, ..Sim::new() };
    sim.feed(Event::Chosen(Box::new(sim.plan("1.1.0"))));
    sim.stuck = true;
    sim.run(1000);
    assert_eq!(sim.state.word(), SlotState::RollingBack);
    assert!(sim.outcomes().is_empty(), "nothing is over yet");
    sim.stuck = false;
    sim.feed(Event::Tick);
    assert_eq!(sim.outcomes(), [OutcomeKind::RolledBack]);
    assert_eq!(sim.device.active, Some(Slot::A));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_a_sealed_slot_is_active_and_fair_events_end_it(
        events in prop::collection::vec(0u8..18, 0..60),
        healthy: bool,
        contact: bool,
    ) {
        let contact = if contact { Contact::Reached } else { Contact::Missed };
        let mut sim = Sim { healthy, contact, ..Sim::new() };
        for (number, event) in events.iter().enumerate() {
            sim.uptime = Seconds(sim.uptime.0 + u64::from(*event) * 7);
            let event = sim.draw(*event, number);
            sim.feed_alone(event);
            let active = sim.device.active.expect("one is active");
            prop_assert!(sim.device.holds(active).is_some(), "an empty slot is active");
        }
        sim.uptime = Seconds(sim.uptime.0 + 30);
        sim.feed(Event::Restarted { undone: vec![] });
        for _ in 0..300 {
            sim.uptime = Seconds(sim.uptime.0 + 20);
            sim.feed(Event::Tick);
            sim.feed(Event::Contact(contact));
        }
        sim.feed(Event::NothingNewer);
        let word = sim.state.word();
        prop_assert!(
            matches!(word, SlotState::Idle | SlotState::Confirmed | SlotState::Failed),
            "it ended in {word:?}"
        );
        let active = sim.device.active.expect("one is active");
        let old = sim.device.holds(Slot::A) == Some(Digest([0; 32]));
        prop_assert!(healthy || sim.outcomes().contains(&OutcomeKind::Confirmed)
            || !old || active == Slot::A, "an unhealthy release stayed");
    }
}

/// A machine with slots in memory and a world that answers each effect.
struct Sim {
    state: State,
    device: Device,
    uptime: Seconds,
    clock: Moment,
    /// Whether the new release's probes hold.
    healthy: bool,
    /// Whether the last look finds nothing.
    clear: bool,
    /// Whether the switch refuses to move.
    stuck: bool,
    contact: Contact,
    done: Vec<Effect>,
}

impl Sim {
    fn new() -> Self {
        Self {
            state: State::Idle,
            device: Device { active: Some(Slot::A), a: Some(Digest([0; 32])), b: None },
            uptime: Seconds(0),
            clock: Moment(1_795_000_000),
            healthy: true,
            clear: true,
            stuck: false,
            contact: Contact::Reached,
            done: Vec::new(),
        }
    }

    fn plan(&self, text: &str) -> Plan {
        let from = self.device.active;
        Plan {
            rollout: RolloutId([1; 32]),
            manifest: Digest::of(text.as_bytes()),
            version: version(text),
            product: "app".parse().expect("a name"),
            artifact: PlannedArtifact {
                kind: ArtifactKind::App,
                size: 10,
                sha256: Digest([9; 32]),
            },
            from,
            to: from.map_or(Slot::A, Slot::other),
            trial: trial(&[("web", local())]),
            previous: Some(version("1.0.0")),
            irreversible: false,
            strands_data: false,
            chosen: Moment(1_795_000_000),
        }
    }

    fn step(&self, state: State, event: Event) -> Step {
        let now = Now { clock: self.clock, uptime: self.uptime };
        step(state, event, &self.device, now)
    }

    /// Feeds an event and answers every effect.
    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.feed_alone(event) {
                events.extend(self.act(&effect));
            }
        }
    }

    /// Feeds an event; what follows is noted and only the slots are changed.
    fn feed_alone(&mut self, event: Event) -> Vec<Effect> {
        let state = std::mem::take(&mut self.state);
        let step = self.step(state, event);
        self.state = step.state;
        self.done.extend(step.effects.clone());
        step.effects
    }

    fn act(&mut self, effect: &Effect) -> Option<Event> {
        match effect {
            Effect::Fetch => {
                let plan = self.state.plan().expect("a fetch has a plan");
                assert_ne!(self.device.active, Some(plan.to), "the active slot was written");
                let manifest = plan.manifest;
                self.put(plan.to, Some(manifest));
                Some(Event::Fetched)
            }
            Effect::DiscardSlot { slot } => {
                assert_ne!(self.device.active, Some(*slot), "the active slot was emptied");
                self.put(*slot, None);
                None
            }
            Effect::VerifySlot { .. } => Some(Event::Verified),
            Effect::LastLook if self.clear => {
                let manifest = self.state.plan().expect("a plan").manifest;
                Some(Event::Cleared { manifest })
            }
            Effect::LastLook => Some(Event::Refused { until: None, reasons: vec![] }),
            Effect::Activate { .. } if self.stuck => {
                Some(Event::ActivateFailed { why: "read-only".into() })
            }
            Effect::Activate { slot } => {
                self.device.active = Some(*slot);
                Some(Event::Activated)
            }
            Effect::RunProbe { probe } => Some(Event::Probed(match probe.as_str() {
                "server" if self.contact == Contact::Missed => failed(probe),
                _ if self.healthy => held(probe),
                _ => failed(probe),
            })),
            Effect::Restart
            | Effect::RecordOutcome { .. }
            | Effect::RememberFailed { .. }
            | Effect::SendLetter => None,
        }
    }

    fn put(&mut self, slot: Slot, manifest: Option<Digest>) {
        match slot {
            Slot::A => self.device.a = manifest,
            Slot::B => self.device.b = manifest,
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds / 20 {
            self.uptime = Seconds(self.uptime.0 + 20);
            self.feed(Event::Tick);
        }
    }

    fn outcomes(&self) -> Vec<OutcomeKind> {
        let kind = |effect: &Effect| {
            let Effect::RecordOutcome { outcome } = effect else { return None };
            Some(outcome.kind)
        };
        self.done.iter().filter_map(kind).collect()
    }

    fn remembered(&self) -> Vec<Version> {
        let version = |effect: &Effect| {
            let Effect::RememberFailed { version } = effect else { return None };
            Some(version.clone())
        };
        self.done.iter().filter_map(version).collect()
    }

    fn restarts(&self) -> usize {
        self.done.iter().filter(|effect| **effect == Effect::Restart).count()
    }

    /// An event by number, in or out of place. Events that claim an effect do that effect first, as
    /// the shell would.
    fn draw(&mut self, number: u8, salt: usize) -> Event {
        let why = || "drawn".to_owned();
        match number {
            0 | 1 => Event::Chosen(Box::new(self.plan(if salt.is_multiple_of(3) {
                "1.2.0"
            } else {
                "1.1.0"
            }))),
            2 => Event::Refused { until: None, reasons: vec![] },
            3 => Event::NothingNewer,
            4 | 5 => match (&self.state, self.state.plan().cloned()) {
                (State::Fetching { .. }, Some(plan)) => {
                    self.put(plan.to, Some(plan.manifest));
                    Event::Fetched
                }
                _ => Event::Tick,
            },
            6 => Event::FetchFailed { fault: Fault::Passing, why: why() },
            7 => Event::FetchFailed { fault: Fault::Content, why: why() },
            8 => Event::Verified,
            9 => Event::VerifyFailed { why: why() },
            10 | 11 => {
                let manifest = self.state.plan().map_or(Digest([7; 32]), |plan| plan.manifest);
                Event::Cleared { manifest }
            }
            12 | 13 => match (&self.state, self.state.plan().cloned()) {
                (State::Activating { .. }, Some(plan)) => {
                    self.device.active = Some(plan.to);
                    Event::Activated
                }
                (State::RollingBack { way: Way::Listening { .. }, .. }, _) => Event::Tick,
                (State::RollingBack { .. }, Some(plan)) => {
                    self.device.active = plan.from;
                    Event::Activated
                }
                _ => Event::Tick,
            },
            14 => Event::ActivateFailed { why: why() },
            15 => Event::Probed(if self.healthy { held("web") } else { failed("web") }),
            16 => Event::RestartFailed { why: why() },
            _ => Event::Restarted { undone: vec![] },
        }
    }
}

fn version(text: &str) -> Version {
    text.parse().expect("a version")
}
