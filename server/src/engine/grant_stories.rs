//! Stories of grants: given by people, taken back without a signature, and handed in again by a letter
//! box that would like a device to be early.

use lockgate_shared::{
    act::{Act, Grant, SignedAct, Start},
    time::{Moment, Seconds},
};

use super::fixture::{BEGIN, Phone, Yard, signed};
use crate::{
    status::Status,
    stream::{EntryKind, WithdrawRequest},
};

#[test]
fn after_its_grant_is_withdrawn_a_device_is_expected_in_its_later_cohort_again() {
    let mut yard = Yard::new();
    let mut phones = yard.phones(2, "Slate 3");
    let given = grant(&yard, &phones[0], BEGIN);
    let offset = yard.json(EntryKind::Act, &given);
    yard.accepted(offset);
    assert_eq!(early(&yard.status()), 1);

    let offset = withdraw(&mut yard, &phones[0], "acme", BEGIN);
    yard.accepted(offset);
    yard.start_engine();
    yard.turn();
    assert_eq!(early(&yard.status()), 0, "also after a restart");
    let letter = phones[0].letter(&yard);
    yard.post(&mut phones[0], letter);
    let start = started(&mut yard, &["1.1.0"]).remove(0);
    names_early(&mut yard, &mut phones[0], &start);
    assert!(claims_too_much(&yard), "it heard of the withdrawal before it saw the rollout");
    assert_eq!(yard.status().rollouts[0].stages[0].treated, 0);
}

#[test]
fn what_a_device_saw_before_it_heard_of_the_withdrawal_it_names_once_as_it_was() {
    let mut yard = Yard::new();
    let mut phones = yard.phones(1, "Slate 3");
    let given = grant(&yard, &phones[0], BEGIN);
    let offset = yard.json(EntryKind::Act, &given);
    yard.accepted(offset);
    let starts = started(&mut yard, &["1.1.0", "1.2.0"]);
    let offset = withdraw(&mut yard, &phones[0], "acme", BEGIN);
    yard.accepted(offset);
    names_early(&mut yard, &mut phones[0], &starts[0]);
    assert!(!claims_too_much(&yard), "{:?}", yard.status().alarms);
    assert_eq!(yard.status().rollouts[0].stages[0].treated, 1);
    names_early(&mut yard, &mut phones[0], &starts[1]);
    assert!(claims_too_much(&yard), "the answer to its last letter told it");
    assert_eq!(yard.status().rollouts[1].stages[0].treated, 0);
}

#[test]
fn a_withdrawn_grant_does_not_come_back_and_nobody_withdraws_what_is_yet_to_be_signed() {
    let mut yard = Yard::new();
    let phones = yard.phones(1, "Slate 3");
    let old = grant(&yard, &phones[0], BEGIN);
    let offset = yard.json(EntryKind::Act, &old);
    yard.accepted(offset);
    for (tenant, words) in [("globex", "of another tenant"), ("acme", "")] {
        let offset = withdraw(&mut yard, &phones[0], tenant, BEGIN.plus(Seconds(1 << 33)));
        if words.is_empty() {
            yard.accepted(offset);
        } else {
            yard.refused(offset, words);
        }
    }
    let again = yard.json(EntryKind::Act, &old);
    yard.refused(again, "was withdrawn");
    yard.start_engine();
    let again = yard.json(EntryKind::Act, &old);
    yard.refused(again, "was withdrawn");
    yard.now = yard.now.plus(Seconds(3_600));
    let new = grant(&yard, &phones[0], yard.now);
    let offset = yard.json(EntryKind::Act, &new);
    yard.accepted(offset);
    assert_eq!(early(&yard.status()), 1, "people grant again");
    let between = grant(&yard, &phones[0], BEGIN.plus(Seconds(1_800)));
    let offset = yard.json(EntryKind::Act, &between);
    yard.refused(offset, "a newer grant");
}

fn grant(yard: &Yard, phone: &Phone, issued: Moment) -> SignedAct {
    let act = Act::Grant(Grant {
        repository: yard.policy.repository.clone(),
        device: phone.id(),
        tenant: "acme".parse().expect("a name"),
        product: "app".parse().expect("a name"),
        channel: "stable".parse().expect("a name"),
        cohort: "early".parse().expect("a name"),
        issued,
        expires: BEGIN.plus(Seconds(86_400)),
        reason: "a colleague's".into(),
    });
    signed(&act, &[21])
}

fn withdraw(yard: &mut Yard, phone: &Phone, tenant: &str, issued: Moment) -> u64 {
    let request = WithdrawRequest {
        device: phone.id(),
        tenant: tenant.parse().expect("a name"),
        product: "app".parse().expect("a name"),
        issued,
        by: "tom-acme".into(),
    };
    yard.json(EntryKind::Withdraw, &request)
}

fn started(yard: &mut Yard, versions: &[&str]) -> Vec<Start> {
    yard.release(2, versions, &[11, 12]);
    let mut starts = Vec::new();
    for version in versions {
        let start = yard.start(version, 1);
        let offset = yard.json(EntryKind::Act, &signed(&Act::Start(start.clone()), &[21, 22]));
        yard.accepted(offset);
        starts.push(start);
    }
    starts
}

/// A letter that names the rollout, in the early cohort and let in.
fn names_early(yard: &mut Yard, phone: &mut Phone, start: &Start) {
    let mut letter = phone.letter(yard);
    let mut view = phone.view(start, true);
    view.cohort = "early".parse().expect("a name");
    letter.rollouts.push(view);
    yard.post(phone, letter);
    yard.turn();
}

fn claims_too_much(yard: &Yard) -> bool {
    yard.status().alarms.iter().any(|alarm| alarm.text.contains("earlier cohort"))
}

/// Devices that are expected in the early cohort.
fn early(status: &Status) -> u32 {
    let found = status.cohorts.iter().find(|cohort| cohort.cohort.as_str() == "early");
    found.map_or(0, |cohort| cohort.devices)
}
