//! A device whose TPM counts: old copies of its state install nothing, and no power cut makes a copy of
//! the state that is there.

use std::{cell::RefCell, fs, io, path::Path, rc::Rc};

use lockgate_shared::wire::Outcomes;

use super::{bench::It, *};
use crate::{
    journal::{self, power},
    run::age::Counted,
    tpm::{Counter, TpmError},
};

#[test]
fn an_update_takes_few_steps_and_a_poll_takes_none() {
    let bench = with_counter();
    bench.run_until_settled(Cut::Never);
    assert_eq!(bench.running(), "1.1.0");
    let steps = stands(&bench) - FIRST;
    assert!((1..=3).contains(&steps), "{steps} steps for one update");
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 100);
    assert_eq!(stands(&bench) - FIRST, steps, "polling wore the TPM");
    assert_eq!(agent.snapshot().state_problem, None);
}

#[test]
fn a_copy_of_the_state_that_was_put_back_installs_nothing_and_says_so() {
    let bench = with_counter();
    let mut agent = bench.start().expect("started");
    drop(agent);
    let copy = tempfile::tempdir().expect("a folder");
    copy_files(bench.folder.path(), copy.path());
    bench.run_until_settled(Cut::Never);
    assert_eq!(bench.running(), "1.1.0");

    // The whole disk as it was, the slots too.
    copy_files(copy.path(), bench.folder.path());
    bench.with(|it| {
        it.active = Slot::A;
        it.slots.remove(&Slot::B);
        it.letters.clear();
        it.outcomes.clear();
        it.chain = Outcomes::default();
    });
    let fetches = bench.with(|it| it.fetches);
    agent = bench.start().expect("started");
    bench.turns(&mut agent, 20);
    assert_eq!(bench.running(), "1.0.0", "an old copy of the state installed something");
    assert_eq!(bench.with(|it| it.fetches), fetches);
    let status = agent.snapshot();
    let problem = status.state_problem.expect("the owner is told");
    assert!(problem.contains("restored from a backup") && problem.contains("enrol anew"));
    assert!(status.products[0].state_text.contains("nothing is installed by this state"));
    let told = bench.last_letter().notices;
    assert!(told.iter().any(|notice| notice.contains("restored from a backup")), "{told:?}");
}

#[test]
fn an_old_copy_goes_to_no_other_slot_either() {
    let bench = with_counter();
    bench.run_until_settled(Cut::Never);
    bench.with(|it| it.counter.stands += 1);
    let mut agent = bench.start().expect("started");
    crate::cli::Request::Rollback(app(), Consent::GoBack).leave(bench.folder.path()).expect("left");
    bench.turns(&mut agent, 1);
    assert_eq!(bench.running(), "1.1.0");
    let asked = agent.snapshot().products.remove(0).rollback.expect("answered");
    let refused = asked.refused.expect("it went back");
    assert!(refused.contains("restored from a backup"), "{refused}");
}

#[test]
fn a_counter_that_does_not_answer_makes_the_device_wait_and_no_longer() {
    let bench = with_counter();
    bench.with(|it| it.counter.silent = true);
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 10);
    assert_eq!(bench.running(), "1.0.0");
    let problem = agent.snapshot().state_problem.expect("the owner is told");
    assert!(problem.contains("nobody knows the state's age"), "{problem}");
    bench.with(|it| it.counter.silent = false);
    bench.turn_until(&mut agent, |it| !it.outcomes.is_empty());
    assert_eq!(bench.heard(), [OutcomeKind::Confirmed]);
    assert_eq!(agent.snapshot().state_problem, None);
}

#[test]
fn a_broken_journal_is_no_old_copy() {
    let bench = with_counter();
    bench.run_until_settled(Cut::Never);
    fs::write(bench.folder.path().join("journal.db"), vec![0x5a; 8192]).expect("written");
    let agent = bench.start().expect("started");
    assert_eq!(agent.snapshot().state_problem, None);
    drop(agent);
    // But with everything lost that could say how old it is, it is one.
    fs::remove_file(bench.folder.path().join("journal.db")).expect("removed");
    fs::remove_file(bench.folder.path().join("sequence")).expect("removed");
    let agent = bench.start().expect("started");
    assert!(agent.snapshot().state_problem.is_some());
}

#[test]
fn no_power_cut_around_a_step_of_the_counter_locks_a_device_out() {
    let mut half_way = 0;
    for kind in [Cut::AfterWrite as fn(u32) -> Cut, Cut::AfterEffect] {
        for at in 0.. {
            let bench = with_counter();
            power::set(kind(at));
            let settled = bench.start().map(|mut agent| {
                while !power::is_off() && bench.heard().is_empty() && agent.turn().is_ok() {
                    let pause = agent.pause().0;
                    bench.with(|it| it.uptime += pause);
                }
            });
            let was_cut = power::is_off();
            assert!(was_cut || settled.is_ok());
            power::set(Cut::Never);
            let tally = journal::tally(bench.folder.path());
            let stands = stands(&bench);
            half_way += u32::from(tally.is_some_and(|tally| tally.value < stands));

            let agent = bench.start().expect("started");
            assert_eq!(agent.snapshot().state_problem, None, "power cut at {:?}", kind(at));
            drop(agent);
            bench.run_until_settled(Cut::Never);
            assert_eq!(bench.running(), "1.1.0", "power cut at {:?}", kind(at));
            if !was_cut {
                break;
            }
        }
    }
    assert!(half_way >= 2, "the power was cut only {half_way} times between a step and its entry");
}

#[test]
fn a_device_that_is_enrolled_anew_goes_by_its_own_counter_and_not_by_the_one_before() {
    let bench = with_counter();
    bench.run_until_settled(Cut::Never);
    assert!(stands(&bench) > FIRST, "nothing was counted that could stand in the way");
    bench.with(|it| {
        it.key = [43; 32];
        it.counter.stands = FIRST;
        it.outcomes.clear();
        it.chain = Outcomes::default();
    });
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 3);
    assert_eq!(agent.snapshot().state_problem, None, "the way out leads nowhere");
}

/// Where the counter stands when the device is enrolled.
const FIRST: u64 = 7;

/// A TPM's counter.
#[derive(Default)]
pub(super) struct OnPaper {
    there: bool,
    stands: u64,
    silent: bool,
}

/// The device's counter, if it has one.
pub(super) fn counted(it: &Rc<RefCell<It>>) -> Option<Counted> {
    let counter = Box::new(Shared(Rc::clone(it)));
    it.borrow().counter.there.then_some(Counted { counter, start: FIRST })
}

struct Shared(Rc<RefCell<It>>);

impl Counter for Shared {
    fn value(&mut self) -> Result<u64, TpmError> {
        let counter = &self.0.borrow().counter;
        if counter.silent { Err(silence()) } else { Ok(counter.stands) }
    }

    fn step(&mut self) -> Result<u64, TpmError> {
        let counter = &mut self.0.borrow_mut().counter;
        if counter.silent {
            return Err(silence());
        }
        counter.stands += 1;
        Ok(counter.stands)
    }
}

fn silence() -> TpmError {
    TpmError::Line { act: "read from", place: "tpm".into(), source: io::Error::other("silence") }
}

fn with_counter() -> Bench {
    let bench = Bench::new();
    bench.with(|it| it.counter = OnPaper { there: true, stands: FIRST, ..OnPaper::default() });
    bench
}

fn stands(bench: &Bench) -> u64 {
    bench.with(|it| it.counter.stands)
}

/// Copies a state folder over another.
fn copy_files(from: &Path, to: &Path) {
    fs::remove_dir_all(to).expect("emptied");
    fs::create_dir(to).expect("made");
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        for entry in fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            let copy = to.join(entry.file_name());
            if entry.file_type().expect("a kind").is_dir() {
                fs::create_dir(&copy).expect("made");
                folders.push((entry.path(), copy));
            } else {
                fs::copy(entry.path(), copy).expect("copied");
            }
        }
    }
}
