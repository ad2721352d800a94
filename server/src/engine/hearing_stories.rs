//! Stories of silence: devices that say nothing, a letter box that keeps letters back, and a gatekeeper
//! that cannot hear.

use lockgate_shared::{
    time::{Moment, Seconds},
    wire::OutcomeKind,
};

use super::{Turn, fixture::Yard};
use crate::{
    status::RolloutState,
    stream::{Entry, EntryKind},
};

#[test]
fn a_treated_device_that_says_nothing_halts_and_a_deaf_gatekeeper_blames_nobody() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    yard.sees(&mut phones[0], &start, true);
    yard.turn();
    yard.letters.broken = true;
    yard.now = yard.now.plus(Seconds(3600));
    assert_eq!(yard.one_turn(), Turn::Deaf);
    assert!(yard.status().stops.is_empty(), "who is deaf cannot tell silence");
    yard.letters.broken = false;
    yard.ticks(9);
    assert!(yard.status().stops.is_empty());
    yard.ticks(3);
    assert!(yard.status().stops[0].reason.contains("fell silent"), "{:?}", yard.status().stops);
}

#[test]
fn unsigned_records_hide_no_silence_and_letters_end_it() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    yard.sees(&mut phones[0], &start, true);
    yard.sees(&mut phones[1], &start, true);
    for number in 0..9 {
        yard.tick();
        yard.record(&phones[0], 100 + number);
        let next = phones[1].letter(&yard);
        yard.post(&mut phones[1], next);
    }
    assert!(yard.status().stops.is_empty());
    yard.tick();
    yard.tick();
    let status = yard.status();
    assert_eq!(status.rollouts[0].stages[1].silent, 1, "the stolen letter box speaks for the dead");
    assert!(status.stops[0].reason.contains("fell silent"), "{:?}", status.stops);
    let next = phones[0].letter(&yard);
    yard.post(&mut phones[0], next);
    yard.turn();
    assert!(yard.status().alarms.is_empty(), "an unsigned record raised the sequence");
    assert_eq!(yard.status().rollouts[0].stages[1].silent, 0);
}

#[test]
fn who_breaks_the_stream_often_hides_no_silence_and_is_noticed() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    yard.sees(&mut phones[0], &start, true);
    yard.turn();
    for _ in 0..14 {
        yard.tick();
        yard.letters.broken = true;
        assert_eq!(yard.one_turn(), Turn::Deaf);
        yard.letters.broken = false;
    }
    yard.tick();
    let status = yard.status();
    assert!(status.stops[0].reason.contains("fell silent"), "{:?}", status.stops);
    assert!(status.hearing.expect("a finding").contains("broke"), "nobody was called");
    assert!(status.alarms.iter().any(|alarm| alarm.text.contains("broke")));
    assert!(yard.letters.audit.iter().any(|line| line.contains("hearing")));
}

#[test]
fn a_gatekeeper_that_cannot_hear_opens_nothing_and_says_so() {
    let mut yard = Yard::new();
    let (_start, _phones) = yard.started(6);
    yard.letters.broken = true;
    yard.now = yard.now.plus(Seconds(200));
    yard.ticks(10);
    let status = yard.status();
    let stage = &status.rollouts[0].stages[1];
    assert_eq!(stage.authorised, 0, "it let devices in on the strength of what it cannot hear");
    assert!(stage.reasons.iter().any(|why| why.contains("not been heard")), "{stage:?}");
    assert!(status.alarms.iter().any(|alarm| alarm.text.contains("nothing opens")));
    yard.letters.broken = false;
    yard.ticks(3);
    assert!(yard.status().rollouts[0].stages[1].authorised > 0, "{:?}", yard.status());
}

#[test]
fn letters_that_were_kept_back_show_harm_and_never_life_or_health() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    for phone in &mut phones[..3] {
        yard.sees(phone, &start, true);
    }
    yard.turn();
    // They write at once and die; the letter box brings it two hours later. Meanwhile the stream works.
    let seen = phones[0].letter(&yard);
    let outcome = phones[1].outcome(&start, OutcomeKind::Confirmed, yard.now);
    let mut well = phones[1].letter(&yard);
    well.outcomes.push(outcome);
    yard.ticks(121);
    assert_eq!(yard.status().rollouts[0].stages[1].silent, 3);
    yard.post(&mut phones[0], seen);
    yard.post(&mut phones[1], well);
    yard.turn();
    let stage = yard.status().rollouts[0].stages[1].clone();
    assert_eq!((stage.silent, stage.confirmed), (3, 0), "a letter of long ago counted as health");
    // The one that lives after all calls again, and what it had confirmed counts.
    let next = phones[1].letter(&yard);
    yard.post(&mut phones[1], next);
    // A clock that is wrong by years makes no letter late while the device verifies timestamps.
    let mut odd = phones[2].letter(&yard);
    odd.sent = Moment(0);
    let timestamp = yard.status().expiries.into_iter().find(|role| role.role == "timestamp");
    odd.timestamp_version = timestamp.expect("the timestamp").version;
    yard.post(&mut phones[2], odd);
    yard.turn();
    let stage = yard.status().rollouts[0].stages[1].clone();
    assert_eq!((stage.silent, stage.confirmed), (1, 1), "{stage:?}");
}

#[test]
fn an_outcome_that_never_arrived_counts_as_harm() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    yard.sees(&mut phones[0], &start, true);
    // It goes back; the letter that says so is lost, and a later one shows the count.
    let at = yard.now;
    phones[0].outcome(&start, OutcomeKind::RolledBack, at);
    let later = phones[0].letter(&yard);
    yard.post(&mut phones[0], later);
    yard.turn();
    let status = yard.status();
    assert_eq!(status.rollouts[0].stages[1].silent, 1);
    assert_eq!(status.rollouts[0].state, RolloutState::Halted);
    assert!(status.alarms.iter().any(|alarm| alarm.text.contains("never arrived")));
}

#[test]
fn a_letter_box_cannot_push_the_gatekeeper_beyond_what_its_successor_will_ever_have() {
    let mut yard = Yard::new();
    let mut phones = yard.phones(1, "Slate 3");
    yard.tick();
    let reached = yard.status().letters_offset;
    let (received, kind) = (yard.now, EntryKind::Record);
    for offset in [u64::MAX, u64::MAX - 1, 1 << 40] {
        yard.letters.entries.push(Entry { offset, received, kind, bytes: Vec::new() });
        yard.turn();
        yard.letters.entries.pop();
        let status = yard.status();
        assert_eq!(status.letters_offset, reached, "it followed to {offset}");
        let said = status.alarms.iter().filter(|alarm| alarm.text.contains("not passed over"));
        assert_eq!(said.count(), 1, "{:?}", status.alarms);
    }
    let noted = yard.letters.audit.iter().filter(|line| line.contains("not passed over"));
    assert_eq!(noted.count(), 1, "who repeats it fills no chain");
    // The true letter box takes its place, with the entry that is due.
    let next = phones[0].letter(&yard);
    yard.post(&mut phones[0], next);
    yard.turn();
    assert_eq!(yard.status().letters_offset, reached + 1);
}

#[test]
fn letters_that_an_honest_letter_box_has_taken_away_hold_nobody_up() {
    let mut yard = Yard::new();
    let mut phones = yard.phones(1, "Slate 3");
    yard.tick();
    // As after a restore of the gatekeeper's store: what lay between was counted, and is gone.
    let gone = 1_000_000_000;
    let next = phones[0].letter(&yard);
    let place = usize::try_from(yard.post(&mut phones[0], next)).expect("small");
    yard.letters.entries[place].offset += gone;
    yard.turn();
    let status = yard.status();
    assert_eq!(status.letters_offset, place as u64 + gone + 1);
    assert!(status.alarms.iter().any(|alarm| alarm.text.contains("are missing")));
}
