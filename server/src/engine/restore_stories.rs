//! Stories of a letter box whose store was restored from an older backup: the real one, on a real file,
//! over the real socket, before a gatekeeper that has counted further.

use std::sync::Arc;

use lockgate_shared::wire::OutcomeKind;

use super::{desk::Desk, fixture::Yard};
use crate::{
    status::{About, Decision, RolloutState, Status, Verdict},
    stream::EntryKind,
};

#[test]
fn after_a_restore_the_fleet_goes_on_and_what_was_lost_is_no_health() {
    let mut yard = Yard::new();
    let (start, mut phones) = yard.started(3);
    for phone in &mut phones {
        yard.sees(phone, &start, true);
    }
    let mut desk = Desk::open(&yard);
    desk.hand_over(&yard);
    desk.turn(&mut yard);
    let (counted, treated) = (desk.head(), yard.status().rollouts[0].stages[1].treated);
    assert_eq!((yard.status().letters_offset, treated), (counted, 3));
    let started = yard.letters.entries.iter().position(|entry| entry.kind == EntryKind::Act);
    let started = About::Entry(started.expect("a start") as u64);

    let backup = desk.close_and_copy();
    let mut desk = Desk::open(&yard);
    // It was counted, and is in no backup.
    let told = phones[0].tells(&yard, &start, OutcomeKind::Confirmed);
    desk.take(&yard, &phones[0], &told);
    desk.turn(&mut yard);
    // It was acknowledged, and neither counted nor in a backup.
    let lost = phones[1].tells(&yard, &start, OutcomeKind::Confirmed);
    desk.take(&yard, &phones[1], &lost);
    let reached = yard.status().letters_offset;
    let lines = desk.audit().len();
    desk.close_and_restore(&backup);

    // It came after the restore, before the gatekeeper did: as many entries as were counted and lost.
    let mut desk = Desk::open(&yard);
    let kept = phones[2].tells(&yard, &start, OutcomeKind::Confirmed);
    desk.take(&yard, &phones[2], &kept);
    assert_eq!(desk.head(), reached, "it looks as if nothing had been lost");
    desk.turn(&mut yard);
    let status = yard.status();
    assert_eq!(desk.head(), reached + 1, "numbers go on behind what was counted");
    assert_eq!(status.letters_offset, desk.head());
    assert_eq!(status.rollouts[0].stages[1].confirmed, 2, "what came in between is not lost");
    let called = |status: &Status, words: &str| {
        status.alarms.iter().filter(|alarm| alarm.text.contains(words)).count()
    };
    assert_eq!(called(&status, "restored from an older backup"), 1);

    // The device whose news was lost has nothing to say: its count of outcomes says it.
    let next = phones[1].letter(&yard);
    desk.take(&yard, &phones[1], &next);
    desk.turn(&mut yard);
    let status = yard.status();
    let stage = &status.rollouts[0].stages[1];
    assert_eq!((stage.confirmed, stage.silent), (2, 1), "{stage:?}");
    assert_eq!(status.rollouts[0].state, RolloutState::Halted);
    assert_eq!(called(&status, "never arrived"), 1);

    // People read one history there, as if nothing had been lost.
    let verdicts = desk.letter_box.reports().verdicts(1).cloned().collect::<Vec<_>>();
    let numbers: Vec<u64> = verdicts.iter().map(|verdict| verdict.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let good = |verdict: &&Arc<Verdict>| verdict.about == started;
    assert_eq!(
        verdicts.iter().find(good).map(|verdict| verdict.decision),
        Some(Decision::Accepted)
    );
    let now = desk.audit();
    assert!(now.len() > lines && now.iter().any(|line| line.contains("restored")), "{now:?}");
    crate::audit::verify(format!("{}\n", now.join("\n")).as_bytes())
        .expect("a chain without a gap");

    // And so it stays, whoever is started anew.
    desk.close();
    let mut desk = Desk::open(&yard);
    yard.start_engine();
    desk.turn(&mut yard);
    let next = phones[0].letter(&yard);
    desk.take(&yard, &phones[0], &next);
    desk.turn(&mut yard);
    assert_eq!(yard.status().letters_offset, desk.head());
    assert_eq!(called(&yard.status(), "restored from an older backup"), 1);
    desk.close();
}

#[test]
fn a_letter_box_with_an_empty_store_takes_the_place_of_one_that_was_lost() {
    let mut yard = Yard::new();
    let (start, mut phones) = yard.started(2);
    let mut desk = Desk::open(&yard);
    desk.hand_over(&yard);
    desk.turn(&mut yard);
    let reached = yard.status().letters_offset;
    desk.close_and_restore(&[]);

    let mut desk = Desk::open(&yard);
    desk.turn(&mut yard);
    assert_eq!((desk.head(), yard.status().letters_offset), (reached, reached));
    // It was stopped before it had anything to number.
    desk.close();
    let mut desk = Desk::open(&yard);
    let letter = phones[0].tells(&yard, &start, OutcomeKind::Confirmed);
    desk.take(&yard, &phones[0], &letter);
    desk.turn(&mut yard);
    assert_eq!((desk.head(), yard.status().letters_offset), (reached + 1, reached + 1));
    assert_eq!(yard.status().rollouts[0].stages[1].confirmed, 1);
    desk.close();
}

#[test]
fn nobody_is_followed_to_the_end_of_all_numbers() {
    let yard = Yard::new();
    let desk = Desk::open(&yard);
    for far in [u64::MAX, 1 << 40] {
        desk.runtime.block_on(desk.letter_box.follow(far, None)).expect("no failure");
        assert_eq!(desk.head(), 0, "it went to {far}");
    }
    desk.close();
}
