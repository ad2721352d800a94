//! The gate on simulated fleets, small enough for a debug build: what must hold in every scenario, and
//! that the simulator is what it says.

use std::path::Path;

use lockgate_server::rollout::trial::terms::Terms;
use lockgate_test_fleet::sim::{
    TICKS_PER_HOUR,
    fleet::Fleet,
    peers::Rule,
    policy::{Gate, Look, Policy as _, Standing, Update},
    presence::{Calendar, Cut, Today},
    run::{Outcome, Run},
    scenario::{self, Beside, Scenario, Start},
    story,
    table::{HOURS, Who, once},
    watch::{Observer, Watch},
};

const DEVICES: u32 = 500;

#[test]
fn there_are_at_least_twenty_scenarios_good_and_bad_and_each_says_what_it_is() {
    let scenarios = scenarios();
    assert!(scenarios.len() >= 20);
    assert!(scenarios.iter().filter(|scenario| scenario.hit.is_none()).count() >= 8);
    assert!(scenarios.iter().all(|scenario| !scenario.about.is_empty()));
}

#[test]
fn a_run_replays_from_its_seed_to_the_last_number() {
    let scenario = named("silent-10");
    let first = once(Who::Trial, &scenario, DEVICES, 7, HOURS);
    assert_eq!(first, once(Who::Trial, &scenario, DEVICES, 7, HOURS));
    assert_ne!(first, once(Who::Trial, &scenario, DEVICES, 8, HOURS));
}

#[test]
fn offices_are_awake_by_day_and_asleep_at_night_and_servers_always() {
    let scenario = named("good-quiet");
    let fleet = Fleet::new(2_000, &scenario, 3);
    let calendar = Calendar::new(Beside { start: Start::Tuesday, ..Beside::default() });
    let share = |hour: u32| {
        let on = (0..2_000).filter(|device| {
            let kind = fleet.kind(*device);
            // By their own clocks.
            let tick = calendar.start / (24 * TICKS_PER_HOUR) * 24 * TICKS_PER_HOUR;
            let tick = (tick + hour * TICKS_PER_HOUR)
                .wrapping_add_signed(-kind.ahead * TICKS_PER_HOUR as i32);
            kind.habit == lockgate_shared::group::Habit::Office
                && calendar.reaches(&fleet, *device, tick)
        });
        on.count() as f64
    };
    assert!(share(12) > 600.0, "{} of some 800 at noon", share(12));
    assert!(share(3) < 20.0, "{} of some 800 at night", share(3));
}

#[test]
fn a_day_that_was_worked_out_once_answers_like_one_that_is_worked_out_anew() {
    let beside = Beside { site_outages: 0.3, flaky: 0.05, own_habits: 0.3, ..Beside::default() };
    let scenario = Scenario { beside, ..named("good-holiday") };
    let fleet = Fleet::new(200, &scenario, 9);
    let calendar = Calendar::new(beside);
    for device in 0..200 {
        let (mut today, mut cut) = (Today::default(), Cut::default());
        for tick in (calendar.start..calendar.start + 12 * 24 * 12).step_by(7) {
            let kept = calendar.reaches_by(&fleet, device, tick, &mut today, &mut cut);
            assert_eq!(kept, calendar.reaches(&fleet, device, tick), "{device} at {tick}");
        }
    }
}

#[test]
fn what_bricks_everybody_harms_a_handful_under_the_gate_and_most_under_time_alone() {
    let scenario = named("all-brick");
    for seed in 0..3 {
        let gate = once(Who::Trial, &scenario, DEVICES, seed, HOURS);
        assert!(gate.harmed <= 7, "seed {seed}: {}", gate.harmed);
        assert!(gate.halted.is_some(), "seed {seed}");
    }
    let peer = once(Who::Peer(Rule::Mender), &scenario, DEVICES, 0, HOURS);
    assert!(peer.harmed > DEVICES / 2);
}

#[test]
fn a_good_release_is_not_halted_and_reaches_those_who_are_there() {
    for name in ["good-quiet", "good-friday"] {
        let outcome = once(Who::Trial, &named(name), DEVICES, 1, HOURS);
        assert_eq!(outcome.halted, None, "{name}: {:?}", outcome.sentences);
        assert!(outcome.hours_95.is_some_and(|hours| hours <= 110), "{name}: {outcome:?}");
    }
}

#[test]
fn nobody_begins_whom_the_gate_does_not_admit_and_the_canary_stays_within_its_bounds() {
    let scenario = named("good-quiet");
    let fleet = Fleet::new(DEVICES, &scenario, 5);
    let gate = Gate::new(&fleet, Terms::routine());
    let mut watch = Watch { gate, observer: Begun::default() };
    Run::new(&fleet, &scenario).play(&mut watch, 30);
    let (terms, Begun { begun, most }) = (Terms::routine(), watch.observer);
    assert!(begun > 0);
    assert!(f64::from(most) <= terms.canary(DEVICES) + 1.0, "{most}");
}

#[test]
fn polls_that_are_left_out_change_nothing_of_what_comes_of_a_run() {
    for name in ["good-quiet", "fail-1"] {
        let scenario = named(name);
        let fleet = Fleet::new(200, &scenario, 6);
        let mut every = Watch { gate: Gate::new(&fleet, Terms::routine()), observer: () };
        let every = Run::new(&fleet, &scenario).play(&mut every, 300);
        let skipped = once(Who::Trial, &scenario, 200, 6, 300);
        assert!(skipped.polls < every.polls, "{name}: {} of {}", skipped.polls, every.polls);
        assert_eq!(Outcome { polls: 0, ..skipped }, Outcome { polls: 0, ..every }, "{name}");
    }
}

#[test]
fn rollouts_go_as_their_stories_say() {
    let told = [
        ("good", named("good-quiet"), 1_000, 110),
        ("bad-group", named("stratum-fail"), 3_000, 72),
        ("silent", named("silent-10"), 1_000, 72),
    ];
    for (name, scenario, size, hours) in told {
        let text = story::tell(&scenario, size, 1, hours);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("stories/{name}.txt"));
        if std::env::var("LOCKGATE_STORIES").is_ok_and(|value| value == "write") {
            std::fs::write(&path, &text).expect("written");
        }
        let before = std::fs::read_to_string(&path).expect("a story");
        assert!(
            text == before,
            "`{name}` goes otherwise; if that is meant, tell it anew with LOCKGATE_STORIES=write:\n{text}"
        );
    }
}

/// How many began before the ramp.
#[derive(Default)]
struct Begun {
    begun: u32,
    most: u32,
}

impl Observer for Begun {
    fn begin_hour(&mut self, gate: &mut Gate, hour: u32, look: &Look<'_>) {
        gate.begin_hour(hour, look);
        if gate.0.clock().hours() < 22.0 {
            self.most = self.most.max(self.begun);
        }
    }

    fn letter(&mut self, gate: &mut Gate, device: u32, hour: u32, update: Update) {
        if update == Update::Waits(Standing::Begins) {
            assert!(gate.admits(device));
            self.begun += 1;
        }
        gate.letter(device, hour, update);
    }
}

fn scenarios() -> Vec<Scenario> {
    scenario::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"))).expect("scenarios")
}

fn named(name: &str) -> Scenario {
    scenarios()
        .into_iter()
        .find(|scenario| scenario.name == name)
        .expect("a scenario of the folder")
}
