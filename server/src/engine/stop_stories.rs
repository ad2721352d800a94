//! Stories of stops and lifts that come twice, or too late: they do no harm and say that nothing changed.

use lockgate_shared::{
    act::{Act, Approval, Lift, Start},
    id::Digest,
    rollout::{Scope, StopKind},
    wire::OutcomeKind,
};

use super::fixture::{Phone, Yard, signed};
use crate::{
    status::RolloutState,
    stream::{EntryKind, StopHow, StopRequest},
};

#[test]
fn a_pause_that_stands_is_named_and_gets_no_second_number() {
    let mut yard = Yard::new();
    let asked = stop(Scope::Everything, StopHow::Pause);
    let first = yard.json(EntryKind::Stop, &asked);
    assert_eq!(yard.accepted(first), "stop 1: looks odd (ben)");
    let again = yard.json(EntryKind::Stop, &asked);
    let said = yard.accepted(again);
    assert!(said.starts_with("nothing changed: stop 1 stands for this since "), "{said}");
    assert_eq!(yard.status().stops.len(), 1);
}

#[test]
fn a_lift_that_comes_again_changes_nothing_and_another_one_tells_devices_again() {
    let mut yard = Yard::new();
    let pause = yard.json(EntryKind::Stop, &stop(Scope::Everything, StopHow::Pause));
    yard.accepted(pause);
    let lift = |reason: &str| {
        let repository = "trial".parse().expect("a name");
        let lift = Lift { repository, numbers: [1].into(), reason: reason.into() };
        signed(&Act::Lift(lift), &[21])
    };
    let first = yard.json(EntryKind::Act, &lift("it is well"));
    assert_eq!(yard.accepted(first), "stop 1 is lifted: it is well");
    let lifts = |yard: &Yard| yard.engine.as_ref().expect("an engine").book.lifts.len();
    let again = yard.json(EntryKind::Act, &lift("it is well"));
    assert_eq!(yard.accepted(again), "nothing changed: this act has lifted stop 1");
    assert_eq!(lifts(&yard), 1, "a lift that devices are told of already takes another's place");
    let other = yard.json(EntryKind::Act, &lift("for those that were away"));
    let said = yard.accepted(other);
    assert!(said.starts_with("stop 1 stood no more; devices that have not heard so"), "{said}");
    assert_eq!(lifts(&yard), 2);
}

#[test]
fn a_rollout_ends_once_and_what_has_ended_cannot_be_paused() {
    let mut yard = Yard::new();
    let (start, _) = yard.started(4);
    let rollout = Scope::Rollout(start.rollout());
    let end = yard.json(EntryKind::Stop, &stop(rollout.clone(), StopHow::End));
    yard.accepted(end);
    let again = yard.json(EntryKind::Stop, &stop(rollout.clone(), StopHow::End));
    let said = yard.accepted(again);
    assert!(said.starts_with("nothing changed: rollout "), "{said}");
    let pause = yard.json(EntryKind::Stop, &stop(rollout, StopHow::Pause));
    yard.refused(pause, "nothing of it goes out");
    assert!(yard.status().stops.is_empty());
}

#[test]
fn whoever_pauses_a_complete_rollout_hears_what_that_still_means() {
    let mut yard = Yard::new();
    let (start, mut phones) = yard.started(6);
    for _ in 0..20 {
        yard.tick();
        for phone in phones.iter_mut().filter(|phone| phone.outcomes.count == 0) {
            yard.ends(phone, &start, OutcomeKind::Confirmed);
        }
    }
    assert_eq!(yard.status().rollouts[0].state, RolloutState::Complete);
    let pause = stop(Scope::Rollout(start.rollout()), StopHow::Pause);
    let pause = yard.json(EntryKind::Stop, &pause);
    let said = yard.accepted(pause);
    assert!(said.contains("the rollout is complete: devices that have it keep it"), "{said}");
}

#[test]
fn neither_a_pause_of_something_else_nor_a_halt_stands_for_a_pause() {
    let mut yard = Yard::new();
    let (start, _phones) = halted(&mut yard);
    let rollout = Scope::Rollout(start.rollout());
    for (number, scope) in
        [(2, rollout), (3, Scope::Product("app".parse().expect("a name"))), (4, Scope::Everything)]
    {
        let pause = yard.json(EntryKind::Stop, &stop(scope, StopHow::Pause));
        let said = yard.accepted(pause);
        assert!(said.starts_with(&format!("stop {number}: ")), "{said}");
    }
}

#[test]
fn harm_is_forgiven_by_whoever_lifts_the_halt_and_by_no_other_lift() {
    let mut yard = Yard::new();
    let (start, _phones) = halted(&mut yard);
    let rollout = Scope::Rollout(start.rollout());
    let pause = yard.json(EntryKind::Stop, &stop(rollout, StopHow::Pause));
    yard.accepted(pause);
    for (number, forgiven) in [(2, 0), (1, 1)] {
        let repository = "trial".parse().expect("a name");
        let lift = Lift { repository, numbers: [number].into(), reason: "looked at".into() };
        let offset = yard.json(EntryKind::Act, &signed(&Act::Lift(lift), &[21]));
        yard.accepted(offset);
        let book = &yard.engine.as_ref().expect("an engine").book;
        let tally = book.rollouts[&start.rollout()].evidence.tally(&start.cohorts[1].cohort);
        assert_eq!(tally.forgiven, forgiven, "after stop {number} was lifted");
    }
}

#[test]
fn nobody_approves_by_another_manifest_or_what_has_ended() {
    let mut yard = Yard::new();
    let (start, _) = yard.started(4);
    let approval = |manifest| {
        Act::Approve(Approval {
            repository: "trial".parse().expect("a name"),
            rollout: start.rollout(),
            manifest,
            stage: 1,
            cohort: "general".parse().expect("a name"),
        })
    };
    let other = signed(&approval(Digest([9; 32])), &[21]);
    let offset = yard.json(EntryKind::Act, &other);
    yard.refused(offset, "another manifest");
    let end = yard.json(EntryKind::Stop, &stop(Scope::Rollout(start.rollout()), StopHow::End));
    yard.accepted(end);
    let late = signed(&approval(start.manifest), &[21]);
    let offset = yard.json(EntryKind::Act, &late);
    yard.refused(offset, "was ended for good");
}

/// A rollout with one harmed device, and the halt 1 because of it.
fn halted(yard: &mut Yard) -> (Start, Vec<Phone>) {
    let (start, mut phones) = yard.started(6);
    yard.until_somebody_may_begin();
    yard.ends(&mut phones[0], &start, OutcomeKind::RolledBack);
    yard.turn();
    assert_eq!(yard.status().stops[0].kind, StopKind::Halt);
    (start, phones)
}

fn stop(scope: Scope, how: StopHow) -> StopRequest {
    StopRequest { scope, how, reason: "looks odd".into(), token: "ben-laptop".into() }
}
