//! Stories of stops and lifts that come twice, or too late: they do no harm and say that nothing changed.

use lockgate_shared::{
    act::{Act, Lift},
    rollout::Scope,
    wire::OutcomeKind,
};

use super::fixture::{Yard, signed};
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

fn stop(scope: Scope, how: StopHow) -> StopRequest {
    StopRequest { scope, how, reason: "looks odd".into(), token: "ben-laptop".into() }
}
