//! Stories of letters and enrolments that are not what they seem: of two machines under one identity,
//! dated ahead, contradicting themselves, with outcomes that came twice or never.

use lockgate_shared::{
    act::Start,
    bucket::Bucket,
    id::{Digest, TokenId},
    limits,
    time::{Moment, Seconds},
    wire::{EnrolmentToken, OutcomeKind, RolloutView, SignedToken},
};

use super::fixture::{BEGIN, Phone, Yard, key};
use crate::status::{RolloutState, StageStatus};

const DAY: Seconds = Seconds(86_400);
/// Ticks until two hours are over.
const TWO_HOURS: u32 = 121;

#[test]
fn two_machines_with_one_identity_are_told_by_one_number_with_two_contents() {
    let mut yard = Yard::new();
    let mut phone = yard.phones(1, "Slate 3").remove(0);
    let mut twin = phone.clone();
    let one = phone.letter(&yard);
    yard.post(&mut phone, one);
    let mut other = twin.letter(&yard);
    other.uptime = Seconds(99);
    let offset = yard.post(&mut twin, other);
    yard.refused(offset, "is not above 2, the last one");
    assert!(alarmed(&yard, "replayed or cloned"));
}

#[test]
fn an_enrolled_device_stays_in_its_tenant_whoever_has_a_token() {
    let mut yard = Yard::new();
    let phone = yard.phones(1, "Slate 3").remove(0);
    let foreign = token(&yard, &|token| token.tenant = "globex".parse().expect("a name"), 33);
    let stranger = yard.enrol(&Phone::new(99, "Slate 3"), foreign.clone());
    yard.turn();
    assert!(yard.verdict(stranger).is_none(), "the token is a good one");
    let offset = yard.enrol(&phone, foreign);
    yard.refused(offset, "is enrolled in tenant `acme`");
}

#[test]
fn a_device_that_dates_itself_ahead_uses_no_token_before_its_time() {
    let mut yard = Yard::new();
    let begin = |token: &mut EnrolmentToken| token.issued = BEGIN.plus(DAY);
    let early = token(&yard, &begin, 31);
    yard.now = BEGIN.plus(DAY).plus(Seconds(60));
    let offset = yard.enrol(&Phone::new(99, "Slate 3"), early);
    yard.now = BEGIN;
    yard.refused(offset, "is good from");
}

#[test]
fn what_contradicts_itself_in_a_letter_is_an_alarm_and_no_evidence() {
    type Change = fn(&mut RolloutView);
    let wrong: [(Change, &str); 3] = [
        (|view| view.bucket = Bucket(view.bucket.0 ^ 1), "is not the one of its id"),
        (|view| view.cohort = "vip".parse().expect("a name"), "that the ladder does not have"),
        (|view| view.groups.clear(), "which named its groups, is missing"),
    ];
    for (change, words) in wrong {
        let mut yard = Yard::new();
        let (start, mut phone) = with_a_stranger(&mut yard);
        let mut letter = phone.names(&yard, &start, true);
        change(&mut letter.rollouts[0]);
        yard.post(&mut phone, letter);
        yard.turn();
        assert!(alarmed(&yard, words), "{words}: {:?}", yard.status().alarms);
        assert_eq!(general(&yard).treated, 0, "{words}");
    }
}

#[test]
fn a_letter_dated_ahead_ends_no_silence_when_it_comes_late() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    yard.sees(&mut phones[0], &start, true);
    yard.turn();
    // Its clock is ahead by ten hours. It dies, and the letter box brings its last word after two.
    let mut last = phones[0].letter(&yard);
    last.sent = yard.now.plus(Seconds(36_000));
    yard.ticks(TWO_HOURS);
    yard.post(&mut phones[0], last);
    yard.turn();
    assert_eq!(general(&yard).silent, 1, "whoever dates ahead lives for ever");
}

#[test]
fn a_letter_that_was_kept_back_still_shows_who_began() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    let kept_back = phones[0].names(&yard, &start, true);
    yard.ticks(TWO_HOURS);
    assert_eq!(general(&yard).treated, 0);
    yard.post(&mut phones[0], kept_back);
    yard.turn();
    assert_eq!(general(&yard).treated, 1);
    yard.tick();
    assert_eq!(general(&yard).silent, 1, "it began, and was not heard of since");
}

#[test]
fn a_letter_that_was_kept_back_ends_no_silence_by_what_it_says_of_the_rollout() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    yard.sees(&mut phones[0], &start, true);
    yard.turn();
    let kept_back = phones[0].names(&yard, &start, true);
    yard.ticks(TWO_HOURS);
    yard.post(&mut phones[0], kept_back);
    yard.turn();
    assert_eq!(general(&yard).silent, 1, "it was at it two hours ago, and died since");
}

#[test]
fn an_old_timestamp_shows_no_health_to_a_gatekeeper_that_was_away() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    let timestamp = yard.status().expiries.into_iter().find(|role| role.role == "timestamp");
    let mut kept_back = phones[0].tells(&yard, &start, OutcomeKind::Confirmed);
    kept_back.timestamp_version = timestamp.expect("the timestamp").version;
    // Another timestamp comes; then nobody hears or signs anything for two hours.
    yard.now = yard.now.plus(Seconds(600));
    yard.turn();
    yard.now = yard.now.plus(Seconds(7_200));
    yard.post(&mut phones[0], kept_back);
    yard.turn();
    assert_eq!(general(&yard).confirmed, 0, "it was well more than two hours ago");
}

#[test]
fn an_entry_that_is_dated_ahead_keeps_no_device_expected() {
    let mut yard = Yard::new();
    let (_start, mut phones) = yard.started(4);
    let next = phones[0].letter(&yard);
    yard.post(&mut phones[0], next);
    yard.record(&phones[1], 100);
    for entry in yard.letters.entries.iter_mut().rev().take(2) {
        entry.received = Moment(entry.received.0 * 2);
    }
    yard.turn();
    assert_eq!(expected(&yard), 4);
    yard.now = yard.now.plus(Seconds(15 * DAY.0));
    assert_eq!(expected(&yard), 0, "they were not heard of for two weeks");
}

#[test]
fn a_revoked_device_that_named_no_rollout_is_expected_in_none() {
    use crate::{
        letters::bars::BarKind,
        stream::{BarRequest, EntryKind},
    };

    let mut yard = Yard::new();
    let (_start, phone) = with_a_stranger(&mut yard);
    assert_eq!(expected(&yard), 4);
    let request = BarRequest {
        device: phone.id(),
        tenant: "acme".parse().expect("a name"),
        kind: BarKind::Revoked,
        reason: "stolen".into(),
        by: "tom-acme".into(),
    };
    let offset = yard.json(EntryKind::Bar, &request);
    yard.accepted(offset);
    assert_eq!(expected(&yard), 3);
}

#[test]
fn an_outcome_that_comes_again_counts_once_and_is_no_loss() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    let record = phones[0].outcome(&start, OutcomeKind::Confirmed, yard.now);
    for _ in 0..3 {
        // The answers are lost, so the device says it again.
        let mut letter = phones[0].names(&yard, &start, true);
        letter.outcomes.push(record.clone());
        yard.post(&mut phones[0], letter);
    }
    yard.turn();
    assert_eq!(general(&yard).confirmed, 1);
    assert!(yard.status().alarms.is_empty(), "{:?}", yard.status().alarms);
}

#[test]
fn more_outcomes_than_a_letter_holds_come_in_the_next_one_and_none_is_lost() {
    let (mut yard, start, mut phones) = Yard::under_way(6);
    let count = u8::try_from(limits::LETTER_OUTCOMES).expect("few") + 4;
    // Of rollouts that are over: nobody here knows of them any more.
    let mut of = |number| {
        let other = Start { manifest: Digest([number; 32]), ..start.clone() };
        phones[0].outcome(&other, OutcomeKind::Confirmed, BEGIN)
    };
    let records: Vec<_> = (100..100 + count).map(&mut of).collect();
    for part in records.chunks(limits::LETTER_OUTCOMES) {
        let mut letter = phones[0].letter(&yard);
        letter.outcomes.extend_from_slice(part);
        yard.post(&mut phones[0], letter);
        yard.turn();
        assert!(yard.status().alarms.is_empty(), "{:?}", yard.status().alarms);
    }
}

#[test]
fn a_lost_outcome_is_harm_in_a_device_that_was_let_in_and_in_no_other() {
    for let_in in [true, false] {
        let mut yard = Yard::new();
        let (start, mut phones) = yard.started(6);
        yard.until_somebody_may_begin();
        let entry = yard.file("Slate 3").expect("a file").rollouts.remove(0);
        let admits = |phone: &Phone| {
            let view = phone.view(&start, false);
            let limit = entry.limit_for(&view.cohort, &view.groups);
            limit.is_some_and(|limit| limit.admits(view.bucket))
        };
        // It never said that it began, and what came of it never arrived.
        let phone = phones.iter_mut().find(|phone| admits(phone) == let_in).expect("2 of 6");
        phone.outcome(&start, OutcomeKind::RolledBack, yard.now);
        let later = phone.letter(&yard);
        yard.post(phone, later);
        yard.turn();
        assert!(alarmed(&yard, "never arrived"));
        let halted = yard.status().rollouts[0].state == RolloutState::Halted;
        assert_eq!(halted, let_in);
    }
}

#[test]
fn harm_counts_of_a_device_whose_first_letter_somebody_kept_back() {
    let mut yard = Yard::new();
    let (start, mut phone) = with_a_stranger(&mut yard);
    yard.until_somebody_may_begin();
    let record = phone.outcome(&start, OutcomeKind::RolledBack, yard.now);
    let mut letter = phone.letter(&yard);
    letter.outcomes.push(record);
    yard.post(&mut phone, letter);
    yard.turn();
    assert_eq!(yard.status().rollouts[0].state, RolloutState::Halted);
    assert!(alarmed(&yard, "that no letter of it had named"));
}

/// A rollout that three devices have named, and a fourth one has not.
fn with_a_stranger(yard: &mut Yard) -> (Start, Phone) {
    let mut phones = yard.phones(4, "Slate 3");
    let stranger = phones.remove(0);
    let start = yard.starts("1.1.0", &mut phones);
    (start, stranger)
}

fn token(yard: &Yard, change: &dyn Fn(&mut EnrolmentToken), signer: u8) -> SignedToken {
    let mut token = EnrolmentToken {
        repository: yard.policy.repository.clone(),
        tenant: "acme".parse().expect("a name"),
        id: TokenId([7; 16]),
        issued: BEGIN,
        expires: BEGIN.plus(Seconds(10 * DAY.0)),
        uses: 10,
    };
    change(&mut token);
    SignedToken::make(&token, &key(signer)).expect("a token")
}

fn general(yard: &Yard) -> StageStatus {
    yard.status().rollouts[0].stages[1].clone()
}

fn alarmed(yard: &Yard, words: &str) -> bool {
    yard.status().alarms.iter().any(|alarm| alarm.text.contains(words))
}

/// Devices that the first rollout waits for.
fn expected(yard: &Yard) -> u32 {
    let book = &yard.engine.as_ref().expect("an engine").book;
    let rollout = book.rollouts.values().next().expect("a rollout");
    book.census(rollout, &yard.policy, yard.now).values().map(|head| head.devices).sum()
}
