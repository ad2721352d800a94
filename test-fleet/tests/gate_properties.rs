//! What holds in every rollout of the gate, whatever the fleet, the plan and the fault: exposure stays
//! under what people signed, what was let in stays let in until a hold, every device comes to an end that
//! is known, and neither order within a tick nor a second run changes anything.

use std::collections::BTreeSet;

use lockgate_server::rollout::trial::terms::Terms;
use lockgate_shared::{bucket::Limit, terms::TrialTerms};
use lockgate_test_fleet::sim::{
    fleet::Fleet,
    policy::{Gate, Look, Policy as _, Standing, Update},
    run::{Outcome, Run},
    scenario::{Beside, Hit, How, Scenario, Start, Who},
    watch::{Observer, Watch},
};
use proptest::prelude::*;

/// Hours after the start: the routine schedule, and time for the last to tell.
const HOURS: u32 = 110;
/// The longest install and trial, and a poll.
const OVER_H: u32 = 12;

proptest! {
    // A rollout takes half a second in a debug build.
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_rollout_breaks_what_was_signed(story in stories()) {
        let fleet = Fleet::new(story.devices, &story.scenario, story.seed);
        let (outcome, strict) = Strict::play(&fleet, &story);
        prop_assert!(strict.broken.is_empty(), "{:?}", strict.broken);
        for (device, end) in strict.ends.iter().enumerate() {
            // Whoever began told its end, or is not heard any more: that silence is what is reported.
            let untold = end.begun.is_some() && end.told.is_none();
            let heard_since = end.begun.is_some_and(|begun| end.heard > begun + OVER_H);
            prop_assert!(!(untold && heard_since), "device {device}: {end:?}");
        }
        let begun = strict.ends.iter().filter(|end| end.begun.is_some()).count();
        prop_assert_eq!(begun, outcome.begun as usize);
        let (second, _) = Strict::play(&fleet, &story);
        prop_assert_eq!(outcome, second, "a replay differs");
    }

    #[test]
    fn the_order_of_letters_within_a_tick_changes_nothing(story in stories()) {
        let fleet = Fleet::new(story.devices, &story.scenario, story.seed);
        let play = |order| {
            let gate = Gate::new(&fleet, story.terms());
            let observer = Mixed { order, kept: Vec::new(), begun: BTreeSet::new() };
            let mut watch = Watch { gate, observer };
            let outcome = Run::new(&fleet, &story.scenario).play(&mut watch, HOURS);
            (Outcome { peak: 0.0, ..outcome }, watch.observer.begun)
        };
        prop_assert_eq!(play(Order::AsTheyCome), play(Order::Backwards));
    }
}

/// A fleet, a plan and a fault.
#[derive(Clone, Debug)]
struct Story {
    devices: u32,
    seed: u64,
    scenario: Scenario,
    plan: TrialTerms,
    ceiling_ppm: u32,
}

impl Story {
    fn terms(&self) -> Terms {
        Terms::of(&self.plan, self.ceiling_ppm)
    }
}

fn stories() -> impl Strategy<Value = Story> {
    let who = prop_oneof![
        Just(Who::All),
        (0.01..0.5).prop_map(Who::Share),
        (0.02..0.3).prop_map(Who::Attribute),
        (0.01..0.1).prop_map(Who::Pair),
    ];
    let how =
        prop_oneof![Just(How::Explicit), Just(How::Silent), Just(How::Half), Just(How::CrashLoop)];
    let hit = (who, how, 0.1..1.0, 0.0..40.0).prop_map(|(who, how, rate, after_h)| Hit {
        who,
        rate,
        how,
        after_h,
    });
    let beside = (0.0..0.4, 0.0..0.4, 0.0..0.2, 0.0..0.1, any::<bool>()).prop_map(
        |(windows, batteries, site_outages, flaky, friday)| Beside {
            windows,
            batteries,
            site_outages,
            flaky,
            start: if friday { Start::Friday } else { Start::Tuesday },
            ..Beside::default()
        },
    );
    let plan = (1..6u32, 6..12u32, 20..120u32, 60..240u32, 1..5u32).prop_map(
        |(first_devices, sentinels, ramp_growth_percent, coverage, growth)| TrialTerms {
            first_devices,
            sentinels,
            ramp_growth_percent,
            coverage,
            growth,
            ..TrialTerms::default()
        },
    );
    (60..240u32, any::<u64>(), prop::option::of(hit), beside, plan, 100_000..=1_000_000u32)
        .prop_map(|(devices, seed, hit, beside, plan, ceiling_ppm)| {
            assert_eq!(plan.problem(), None);
            let (name, about) = (String::new(), String::new());
            let scenario = Scenario { name, about, hit, beside };
            Story { devices, seed, scenario, plan, ceiling_ppm }
        })
}

/// How one device fares.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    begun: Option<u32>,
    told: Option<u32>,
    heard: u32,
}

/// What must hold of the gate, and what did not.
struct Strict {
    ceiling: Limit,
    coverage: usize,
    admitted: Vec<bool>,
    drawn: Vec<u32>,
    fleet_limit: Limit,
    ends: Vec<End>,
    broken: Vec<String>,
}

impl Strict {
    fn play(fleet: &Fleet, story: &Story) -> (Outcome, Self) {
        let gate = Gate::new(fleet, story.terms());
        let mut watch = Watch { gate, observer: Self::new(story) };
        let outcome = Run::new(fleet, &story.scenario).play(&mut watch, HOURS);
        (outcome, watch.observer)
    }

    fn new(story: &Story) -> Self {
        let devices = story.devices as usize;
        Self {
            ceiling: Limit::of_share_ppm(story.ceiling_ppm),
            coverage: story.plan.coverage as usize,
            admitted: vec![false; devices],
            drawn: Vec::new(),
            fleet_limit: Limit::NOBODY,
            ends: vec![End::default(); devices],
            broken: Vec::new(),
        }
    }

    fn must(&mut self, holds: bool, what: &str, hour: u32) {
        if !holds {
            self.broken.push(format!("hour {hour}: {what}"));
        }
    }

    fn watch(&mut self, gate: &Gate, hour: u32) {
        let trial = &gate.0;
        let (limit, drawn) = (trial.fleet_limit(), trial.drawn().collect::<Vec<u32>>());
        self.must(limit <= self.ceiling, "the stage is open beyond its ceiling", hour);
        self.must(limit >= self.fleet_limit, "the stage's limit fell", hour);
        self.must(drawn.starts_with(&self.drawn), "the coverage list lost an entry", hour);
        self.must(drawn.len() <= self.coverage, "the coverage list is too long", hour);
        let narrower = trial.narrower();
        self.must(narrower.iter().all(|(_, own)| *own <= limit), "a group is open wider", hour);
        for device in 0..self.admitted.len() as u32 {
            let place = device as usize;
            let (admits, stops) = (gate.admits(device), gate.stops(device));
            let bucket = trial.roster().devices[place].bucket;
            let fell =
                self.admitted[place] && !admits && !stops && self.ends[place].begun.is_none();
            self.must(!fell, "who was let in is not any more", hour);
            let named = trial.is_chosen(device);
            let beyond = admits && !named && !self.ceiling.admits(bucket);
            self.must(!beyond, "somebody above the ceiling is let in", hour);
            self.must(!(admits && stops), "somebody held is let in", hour);
            self.admitted[place] = admits;
        }
        (self.fleet_limit, self.drawn) = (limit, drawn);
    }
}

impl Observer for Strict {
    fn begin_hour(&mut self, gate: &mut Gate, hour: u32, look: &Look<'_>) {
        gate.begin_hour(hour, look);
        self.watch(gate, hour);
    }

    fn letter(&mut self, gate: &mut Gate, device: u32, hour: u32, update: Update) {
        let end = &mut self.ends[device as usize];
        end.heard = hour;
        match update {
            Update::Waits(Standing::Begins) => {
                end.begun = Some(hour);
                self.must(gate.admits(device), "somebody began who was not let in", hour);
            }
            Update::Healthy | Update::Failed(_) => end.told = Some(hour),
            Update::Waits(Standing::AtRisk | Standing::Kept) | Update::On => {}
        }
        gate.letter(device, hour, update);
    }
}

/// In which order the letters of a tick are heard.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    AsTheyCome,
    Backwards,
}

/// Keeps a tick's letters until its end.
struct Mixed {
    order: Order,
    kept: Vec<(u32, u32, Update)>,
    begun: BTreeSet<(u32, u32)>,
}

impl Mixed {
    fn hand_on(&mut self, gate: &mut Gate) {
        // A device's own letters stay in their order.
        match self.order {
            Order::AsTheyCome => self.kept.sort_by_key(|(device, ..)| *device),
            Order::Backwards => self.kept.sort_by_key(|(device, ..)| std::cmp::Reverse(*device)),
        }
        for (device, hour, update) in std::mem::take(&mut self.kept) {
            // Two failures at one place are a tie: who comes first is the surprise.
            let update = match update {
                Update::Failed(_) => Update::Failed(device),
                Update::Waits(_) | Update::On | Update::Healthy => update,
            };
            gate.letter(device, hour, update);
        }
    }
}

impl Observer for Mixed {
    fn begin_hour(&mut self, gate: &mut Gate, hour: u32, look: &Look<'_>) {
        self.hand_on(gate);
        gate.begin_hour(hour, look);
    }

    fn letter(&mut self, _: &mut Gate, device: u32, hour: u32, update: Update) {
        if update == Update::Waits(Standing::Begins) {
            self.begun.insert((device, hour));
        }
        self.kept.push((device, hour, update));
    }

    fn look(&mut self, gate: &mut Gate, hour: u32) {
        self.hand_on(gate);
        gate.look(hour);
    }
}
