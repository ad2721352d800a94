//! What a preflight must say of fleets whose fate is plain.

use lockgate_server::{
    preflight::{self, Subject},
    release::plan::Preset,
    status::{KindStatus, KindWords},
};
use lockgate_shared::{group::Habit, id::Digest, manifest::Gate, time::Moment};

use super::*;

/// Tuesday, 24 November 2026, nine o'clock.
const TUESDAY: Moment = Moment(1_795_510_800);

fn answer(question: &Question) -> Result<Answer, PlanError> {
    super::answer(question, &|_| ())
}

/// Devices that are always on.
pub(super) fn kind(cohort: &str, model: &str, devices: u32) -> KindStatus {
    KindStatus {
        product: "app".parse().expect("a name"),
        channel: "stable".parse().expect("a name"),
        cohort: cohort.parse().expect("a name"),
        devices,
        words: KindWords { model: model.into(), ..KindWords::default() },
        habit: Habit::AlwaysOn,
        heard: [95; 24],
        failed: 0,
        installs: 0,
    }
}

fn question(preset: Preset, simulations: u32) -> Question {
    let cohorts = ["dogfood", "general"].map(|name| name.parse().expect("a name"));
    let ladder = preset.ladder(&cohorts);
    Question {
        format: FORMAT,
        subject: Subject::new(
            ("app".parse().expect("a name"), "1.0.0".parse().expect("a version")),
            "stable".parse().expect("a name"),
            Digest([7; 32]),
            &ladder,
        )
        .expect("json"),
        ladder,
        at: TUESDAY,
        polls: Seconds(300),
        artifact_bytes: 36_000_000,
        kinds: vec![
            kind("dogfood", "Slate 3", 5),
            kind("general", "Slate 3", 250),
            kind("general", "Slate 4", 40),
        ],
        left_out: 3,
        seed: 7,
        simulations,
    }
}

#[test]
fn a_good_release_climbs_in_the_presets_time_and_a_bad_one_is_stopped_at_a_handful() {
    let answer = answer(&question(Preset::Routine, 3)).expect("an answer");
    let hours = |moment: Option<Seconds>| moment.expect("it happens").0 / 3_600;
    let [dogfood, general] = &answer.stages[..] else { panic!("two stages") };
    assert_eq!(hours(dogfood.opens.median), 0);
    assert!((24..30).contains(&hours(general.opens.median)), "{:?}", general.opens);
    let trial = hours(general.full.median) - hours(general.opens.median);
    assert!((60..110).contains(&trial), "{trial} h");
    let begun: u64 = general.phases.iter().map(|phase| phase.devices.median).sum();
    // Medians of the phases, each of another run, need not add up.
    assert!((240..=300).contains(&begun), "{:?}", general.phases);
    assert!(general.phases[0].devices.p95 <= 9, "{:?}", general.phases);
    let rate = answer.bytes_per_second.median;
    assert_eq!(rate, answer.busiest_hour.median * 10_000);
    let risk = |name: &str| {
        answer.risks.iter().find(|risk| risk.scenario == name).expect("it was tried").clone()
    };
    let brick = risk("all-brick");
    assert_eq!(brick.stopped, 3);
    assert!((1..=7).contains(&brick.most), "{brick:?}");
    assert!(risk("crash-loop-6").most <= 20, "{:?}", risk("crash-loop-6"));
    assert!(answer.holes.is_empty(), "{:?}", answer.holes);
    assert_eq!((answer.simulated, answer.left_out), (295, 3), "who was not tried is named");
}

#[test]
fn the_same_question_has_the_same_bytes_and_another_seed_has_others() {
    let mut asked = question(Preset::Security, 1);
    asked.kinds[1].devices = 30;
    asked.kinds[2].devices = 20;
    let bytes = |question: &Question| {
        preflight::canonical(&answer(question).expect("an answer")).expect("json")
    };
    assert_eq!(bytes(&asked), bytes(&asked));
    assert_ne!(bytes(&asked), bytes(&Question { seed: 8, ..asked.clone() }));
}

#[test]
fn where_a_model_bricks_a_last_stage_that_counts_risks_more_than_one_in_trial() {
    let mut counted = question(Preset::Routine, 3);
    counted.ladder.stages[1].gate = counted.ladder.stages[0].gate.clone();
    let harmed = |question: &Question, name: &str| {
        let answer = answer(question).expect("an answer");
        answer.risks.iter().find(|risk| risk.scenario == name).expect("it was tried").harmed.median
    };
    let name = "stratum-brick";
    let (counted, tried) = (harmed(&counted, name), harmed(&question(Preset::Routine, 3), name));
    assert!(counted >= 3 * tried, "{counted} and {tried}");
}

#[test]
fn a_question_of_another_version_is_refused() {
    let asked = Question { format: FORMAT + 1, ..question(Preset::Routine, 1) };
    assert!(matches!(answer(&asked), Err(PlanError::Format(_))));
}

/// Two devices in a trial with slots of so many seconds.
fn hurried(slot: u64) -> Question {
    let mut asked = question(Preset::Routine, 1);
    asked.kinds = vec![kind("general", "Slate 3", 2)];
    asked.ladder.stages.remove(0);
    asked.ladder.stages[0].floor_s = Seconds(0);
    let Gate::Trial(terms) = &mut asked.ladder.stages[0].gate else { panic!("a trial") };
    terms.slot_s = Seconds(slot);
    asked
}

#[test]
fn slots_shorter_than_a_step_cost_no_more_than_those_of_a_step_and_the_answer_says_so() {
    let tried = |slot| bound::within(&hurried(slot), 2, bound::WORK).question.into_owned().ladder;
    assert_eq!(tried(5), hurried(300).ladder);
    assert_eq!(tried(1_800), hurried(1_800).ladder);
    let (short, long) = (hurried(5), hurried(300));
    let (short, long) = (answer(&short).expect("an answer"), answer(&long).expect("an answer"));
    assert_eq!((&short.stages, short.complete), (&long.stages, long.complete));
    assert!(short.notes[0].contains("a slot of 5 s"), "{:?}", short.notes);
    assert!(short.notes[0].contains("60 times too long"), "{:?}", short.notes);
}

#[test]
fn simulations_that_would_take_too_long_are_left_out_and_counted() {
    let asked = question(Preset::Routine, 1_000);
    let bound = bound::within(&asked, 295, bound::WORK);
    assert_eq!((bound.question.simulations, bound.notes), (1_000, Vec::new()));
    let asked = question(Preset::Routine, 20);
    let bound = bound::within(&asked, town::DEVICES, bound::WORK);
    assert_eq!((bound.question.simulations, bound.notes), (20, Vec::new()), "the usual number");
    let asked = question(Preset::Routine, 1_000);
    let bound = bound::within(&asked, town::DEVICES, bound::WORK);
    assert!((20..1_000).contains(&bound.question.simulations), "{}", bound.question.simulations);
    assert!(bound.notes[0].contains("not 1000 times"), "{:?}", bound.notes);
}

#[test]
fn who_waits_is_told_of_every_simulation() {
    let seen = std::sync::Mutex::new(Vec::new());
    let told = |progress: Progress| seen.lock().expect("nobody fell").push(progress);
    super::answer(&hurried(3_600), &told).expect("an answer");
    let mut done: Vec<u64> =
        seen.into_inner().expect("nobody fell").iter().map(|p| p.done).collect();
    done.sort_unstable();
    assert_eq!(done, (1..=FUTURES).collect::<Vec<_>>());
}

#[test]
fn a_trial_that_never_lets_everybody_in_says_how_it_stands_and_one_that_does_says_nothing() {
    let mut ill = hurried(3_600);
    ill.kinds[0].installs = 200;
    ill.kinds[0].failed = 200;
    let few = answer(&ill).expect("an answer");
    assert_eq!(few.stages[0].full.median, None, "nobody is ever well");
    assert!(few.notes[0].starts_with("not open to everybody in 1 of 1"), "{:?}", few.notes);
    assert!(few.notes[0].contains("of 2 devices let in"), "{:?}", few.notes);
    let many = answer(&question(Preset::Routine, 1)).expect("an answer");
    assert_eq!(many.notes, [""; 0]);
}
