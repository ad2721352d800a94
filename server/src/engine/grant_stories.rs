//! Stories of grants: given by people, at their end, taken back without a signature, and handed in again
//! by a letter box that would like a device to be early.

use lockgate_shared::{
    act::{Act, Grant, SignedAct, Start},
    time::{Moment, Seconds},
    wire::{Letter, OutcomeKind},
};

use super::fixture::{BEGIN, Phone, Yard, signed};
use crate::{
    status::{StageStatus, Status},
    stream::{EntryKind, WithdrawRequest},
};

#[test]
fn after_its_grant_is_withdrawn_a_device_is_expected_in_its_later_cohort_again() {
    let mut yard = Yard::new();
    let mut phones = yard.phones(2, "Slate 3");
    give(&mut yard, &phones[0], BEGIN);
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
    give(&mut yard, &phones[0], BEGIN);
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
    let old = give(&mut yard, &phones[0], BEGIN);
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
    let now = yard.now;
    give(&mut yard, &phones[0], now);
    assert_eq!(early(&yard.status()), 1, "people grant again");
    let between = grant(&yard, &phones[0], BEGIN.plus(Seconds(1_800)));
    let offset = yard.json(EntryKind::Act, &between);
    yard.refused(offset, "a newer grant");
}

#[test]
fn a_grant_that_has_ended_moves_no_device_of_a_rollout_that_it_has_not_seen() {
    let mut yard = Yard::new();
    let mut phones = yard.phones(3, "Slate 3");
    give(&mut yard, &phones[0], BEGIN);
    yard.now = END.minus(Seconds(60));
    let start = started(&mut yard, &["1.1.0"]).remove(0);
    let counted = |yard: &Yard| {
        let stages = yard.status().rollouts.remove(0).stages;
        (early(&yard.status()), stages[0].devices, stages[1].devices)
    };
    assert_eq!(counted(&yard), (1, 1, 2), "a second before the end would do");
    yard.now = END;
    yard.turn();
    assert_eq!(counted(&yard), (0, 0, 3));
    yard.start_engine();
    yard.turn();
    assert_eq!(counted(&yard), (0, 0, 3), "also after a restart");

    let letter = phones[0].letter(&yard);
    yard.post(&mut phones[0], letter);
    names_early(&mut yard, &mut phones[0], &start);
    assert!(claims_too_much(&yard), "it wrote a letter after the end, and saw the rollout later");
    assert_eq!(stage(&yard, 0).treated, 0);
}

#[test]
fn what_a_device_came_to_that_was_let_in_by_a_grant_counts_there_after_its_end() {
    let mut yard = Yard::new();
    let mut phones = yard.phones(3, "Slate 3");
    for phone in &phones {
        give(&mut yard, phone, BEGIN);
    }
    yard.now = END.minus(Seconds(60));
    let start = started(&mut yard, &["1.1.0"]).remove(0);
    names_early(&mut yard, &mut phones[0], &start);
    // Written before the end, and under way until after it.
    let late = early_letter(&yard, &mut phones[1], &start);
    let quiet = phones[1].letter(&yard);
    // The third one's first letter about the rollout is lost.
    let _lost = early_letter(&yard, &mut phones[2], &start);

    yard.now = END.plus(Seconds(60));
    yard.post(&mut phones[1], late);
    yard.post(&mut phones[1], quiet);
    yard.turn();
    for (place, kind) in [OutcomeKind::Confirmed, OutcomeKind::Confirmed, OutcomeKind::RolledBack]
        .into_iter()
        .enumerate()
    {
        let (now, phone) = (yard.now, &mut phones[place]);
        let outcome = phone.outcome(&start, kind, now);
        let mut letter = phone.letter(&yard);
        letter.outcomes.push(outcome);
        yard.post(&mut phones[place], letter);
    }
    yard.turn();
    assert!(!claims_too_much(&yard), "{:?}", yard.status().alarms);
    let (early, general) = (stage(&yard, 0), stage(&yard, 1));
    assert_eq!((early.treated, early.confirmed, early.rolled_back), (3, 2, 1));
    assert_eq!((general.treated, general.devices), (0, 0), "nobody is counted twice");
}

#[test]
fn who_dates_letters_back_stretches_an_ended_grant_by_a_day_and_no_more() {
    let mut yard = Yard::new();
    let mut phones = yard.phones(1, "Slate 3");
    give(&mut yard, &phones[0], BEGIN);
    yard.now = END.plus(Seconds(86_400 + 60));
    let start = started(&mut yard, &["1.1.0"]).remove(0);
    let mut letter = phones[0].letter(&yard);
    letter.sent = END.minus(Seconds(1));
    yard.post(&mut phones[0], letter);
    let mut letter = early_letter(&yard, &mut phones[0], &start);
    letter.sent = END.minus(Seconds(1));
    yard.post(&mut phones[0], letter);
    yard.turn();
    assert!(claims_too_much(&yard));
    assert_eq!(stage(&yard, 0).treated, 0);
}

/// When [`grant`] ends.
const END: Moment = BEGIN.plus(Seconds(86_400));

#[test]
fn a_grant_is_for_a_device_of_its_tenant_and_not_over() {
    let mut yard = Yard::new();
    let phones = yard.phones(1, "Slate 3");
    type Change = fn(&mut Grant);
    let wrong: [(Change, &str); 2] = [
        (
            |grant| grant.tenant = "globex".parse().expect("a name"),
            "of another tenant than `globex`",
        ),
        (|grant| grant.expires = BEGIN, "it ended at"),
    ];
    for (change, words) in wrong {
        let act = granted(&yard, &phones[0], BEGIN, &change);
        let offset = yard.json(EntryKind::Act, &act);
        yard.refused(offset, words);
    }
    assert_eq!(early(&yard.status()), 0);
}

#[test]
fn nothing_is_withdrawn_of_a_product_that_nobody_knows() {
    let mut yard = Yard::new();
    let phone = yard.phones(1, "Slate 3").remove(0);
    let product = "other".parse().expect("a name");
    let request = WithdrawRequest { product, ..withdrawal(&phone, "acme", BEGIN) };
    let offset = yard.json(EntryKind::Withdraw, &request);
    yard.refused(offset, "names no product `other`");
}

/// A grant that is accepted.
fn give(yard: &mut Yard, phone: &Phone, issued: Moment) -> SignedAct {
    let given = grant(yard, phone, issued);
    let offset = yard.json(EntryKind::Act, &given);
    yard.accepted(offset);
    given
}

fn grant(yard: &Yard, phone: &Phone, issued: Moment) -> SignedAct {
    granted(yard, phone, issued, &|_| {})
}

fn granted(yard: &Yard, phone: &Phone, issued: Moment, change: &dyn Fn(&mut Grant)) -> SignedAct {
    let mut grant = Grant {
        repository: yard.policy.repository.clone(),
        device: phone.id(),
        tenant: "acme".parse().expect("a name"),
        product: "app".parse().expect("a name"),
        channel: "stable".parse().expect("a name"),
        cohort: "early".parse().expect("a name"),
        issued,
        expires: END,
        reason: "a colleague's".into(),
    };
    change(&mut grant);
    signed(&Act::Grant(grant), &[21])
}

fn withdraw(yard: &mut Yard, phone: &Phone, tenant: &str, issued: Moment) -> u64 {
    yard.json(EntryKind::Withdraw, &withdrawal(phone, tenant, issued))
}

fn withdrawal(phone: &Phone, tenant: &str, issued: Moment) -> WithdrawRequest {
    WithdrawRequest {
        device: phone.id(),
        tenant: tenant.parse().expect("a name"),
        product: "app".parse().expect("a name"),
        issued,
        by: "tom-acme".into(),
    }
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
    let letter = early_letter(yard, phone, start);
    yard.post(phone, letter);
    yard.turn();
}

fn early_letter(yard: &Yard, phone: &mut Phone, start: &Start) -> Letter {
    let mut letter = phone.names(yard, start, true);
    letter.rollouts[0].cohort = "early".parse().expect("a name");
    letter
}

fn stage(yard: &Yard, index: usize) -> StageStatus {
    yard.status().rollouts.remove(0).stages.remove(index)
}

fn claims_too_much(yard: &Yard) -> bool {
    yard.status().alarms.iter().any(|alarm| alarm.text.contains("earlier cohort"))
}

/// Devices that are expected in the early cohort.
fn early(status: &Status) -> u32 {
    let found = status.cohorts.iter().find(|cohort| cohort.cohort.as_str() == "early");
    found.map_or(0, |cohort| cohort.devices)
}
