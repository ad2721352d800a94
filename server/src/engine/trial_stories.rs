//! Stories of a stage that is a randomised trial, over the wire: signed letters in, signed rollout files
//! out, and devices that do what the files say.

use std::collections::BTreeMap;

use lockgate_shared::{
    act::{Act, Lift, Start, WaivedRule, Waiver},
    eligibility::Reason,
    group::GroupKind,
    id::GroupId,
    rollout::{RolloutEntry, RolloutFile, Scope, StopKind},
    time::Seconds,
    wire::{OutcomeKind, ReasonRecord},
};

use super::fixture::{Phone, Yard, signed};
use crate::{
    status::{Decision, FleetStatus, RolloutState},
    stream::EntryKind,
};

/// A device in the story: it asks every slot, and does what its file says.
struct Owner {
    phone: Phone,
    model: &'static str,
    began: Option<u32>,
    told: bool,
}

struct Street {
    yard: Yard,
    start: Start,
    owners: Vec<Owner>,
    slot: u32,
}

impl Street {
    /// Eighteen of one model and six of another, told of release 2.0.0.
    fn new() -> Self {
        let mut yard = Yard::new();
        let mut phones = yard.phones(18, "Slate 3");
        phones.extend(yard.phones(6, "Slate 4"));
        let start = yard.starts("2.0.0", &mut phones);
        let owner = |(place, phone)| Owner {
            phone,
            model: if place < 18 { "Slate 3" } else { "Slate 4" },
            began: None,
            told: false,
        };
        let owners = phones.into_iter().enumerate().map(owner).collect();
        Self { yard, start, owners, slot: 0 }
    }

    fn slots(&mut self, slots: u32, bad: &str) {
        for _ in 0..slots {
            self.slot += 1;
            self.yard.tick();
            let files: BTreeMap<&str, RolloutFile> = ["Slate 3", "Slate 4"]
                .map(|model| (model, self.yard.file(model).expect("a rollout file")))
                .into();
            for owner in &mut self.owners {
                owner.asks(&mut self.yard, &self.start, &files[owner.model], self.slot, bad);
            }
            self.yard.turn();
        }
    }

    fn began(&self, model: &str) -> usize {
        self.owners.iter().filter(|owner| owner.model == model && owner.began.is_some()).count()
    }

    fn state(&self) -> RolloutState {
        self.yard.status().rollouts[0].state
    }
}

impl Owner {
    fn asks(&mut self, yard: &mut Yard, start: &Start, file: &RolloutFile, slot: u32, bad: &str) {
        let mut view = self.phone.view(start, self.began.is_some());
        let groups = view.groups.clone();
        if self.began.is_none() {
            let reason = ReasonRecord { code: Reason::ABOVE_LIMIT, text: String::new() };
            view.reasons.push(reason);
        }
        let mut letter = self.phone.letter(yard);
        if self.began.is_some_and(|began| slot > began) && !self.told {
            self.told = true;
            let kind =
                if self.model == bad { OutcomeKind::RolledBack } else { OutcomeKind::Confirmed };
            letter.outcomes.push(self.phone.outcome(start, kind, yard.now));
            (letter.outcomes_count, letter.outcomes_digest) =
                (self.phone.outcomes.count, self.phone.outcomes.digest);
        }
        letter.rollouts.push(view);
        yard.post(&mut self.phone, letter);
        if self.began.is_none() && admits(file, start, &groups, &self.phone) {
            self.began = Some(slot);
        }
    }
}

/// Whether a file lets a device in, as [`lockgate_shared::eligibility`] has it.
fn admits(file: &RolloutFile, start: &Start, groups: &[GroupId], phone: &Phone) -> bool {
    let rollout = start.rollout();
    let entry: &RolloutEntry =
        file.rollouts.iter().find(|entry| entry.rollout == rollout).expect("the rollout");
    let stopped = file.stops.iter().any(|stop| match &stop.scope {
        Scope::Groups(of, held) => {
            *of == rollout && held.iter().any(|group| groups.contains(group))
        }
        Scope::Rollout(of) => *of == rollout,
        Scope::Cohort(..) | Scope::Tenant(_) | Scope::Product(_) | Scope::Everything => true,
    });
    let view = phone.view(start, false);
    let limit = entry.limit_for(&view.cohort, groups);
    !stopped
        && limit
            .is_some_and(|limit| limit.admits(view.bucket) || entry.coverage.contains(&view.bucket))
}

#[test]
fn a_release_that_is_bad_for_one_model_is_held_for_that_model_and_goes_on_elsewhere() {
    let mut street = Street::new();
    street.slots(60, "Slate 4");
    let status = street.yard.status();
    let hold = &status.stops[0];
    assert_eq!((status.stops.len(), hold.kind), (1, StopKind::Hold), "{:?}", status.stops);
    assert!(matches!(&hold.scope, Scope::Groups(_, groups) if groups.len() == 1));
    assert!(hold.reason.contains(" hardware Acme Slate 4 that were let in failed"), "{hold:?}");
    assert!(hold.reason.contains("odds"), "{hold:?}");
    let reasons = &status.rollouts[0].stages.last().expect("a stage").reasons;
    assert!(reasons.contains(&hold.reason), "people read it beside the stage: {reasons:?}");
    let harmed = street.began("Slate 4");
    assert!((2..=4).contains(&harmed), "{harmed} of six were harmed");
    street.slots(60, "Slate 4");
    assert_eq!(street.began("Slate 3"), 18, "the healthy go on");
    assert_eq!(street.began("Slate 4"), harmed, "and the held wait");
    assert_eq!(street.state(), RolloutState::Running);
    let status = street.yard.status();
    let stage = status.rollouts[0].stages.last().expect("a stage");
    let let_in = 18 + u32::try_from(harmed).expect("six at most");
    assert_eq!(stage.authorised, let_in, "who began was let in, also where nobody is any more");
    let verdicts = &street.yard.letters.verdicts;
    assert!(verdicts.iter().any(|verdict| verdict.decision == Decision::Hold));
}

#[test]
fn the_coverage_matrix_says_of_each_group_what_it_has_shown() {
    let mut street = Street::new();
    street.slots(40, "Slate 4");
    let status = street.yard.status();
    let [matrix] = &status.rollouts[0].coverage[..] else { panic!("one stage is in trial") };
    assert_eq!((matrix.devices, matrix.left_out), (24, 0));
    assert!(matrix.groups.iter().all(|group| group.devices >= matrix.group_least));
    assert!(matrix.groups.is_sorted_by(|a, b| a.devices >= b.devices), "the largest first");
    let of = |kind, label: &str| {
        let found = matrix.groups.iter().find(|group| group.kind == kind && group.label == label);
        found.unwrap_or_else(|| panic!("no {kind:?} {label} in {:?}", matrix.groups)).clone()
    };
    let healthy = of(GroupKind::Hardware, "Acme Slate 3");
    assert_eq!(healthy.devices, 18);
    let began = u32::try_from(street.began("Slate 3")).expect("eighteen at most");
    // Who began in the last slot has not said so.
    assert!((began.saturating_sub(3)..=began).contains(&healthy.begun), "{healthy:?}");
    assert!(healthy.well > 0 && healthy.failed == 0 && healthy.named > 0, "{healthy:?}");
    assert_eq!(matrix.without, 0, "{:?}", matrix.groups);
}

#[test]
fn the_fleet_is_counted_by_kind_when_it_has_grown_and_not_in_every_report() {
    let mut street = Street::new();
    street.slots(1, "");
    let fleet = street.yard.letters.fleets.last().expect("it was counted").clone();
    let counted = |fleet: &FleetStatus, model: &str| -> u32 {
        let kinds = fleet.kinds.iter().filter(|kind| kind.words.model == model);
        kinds.map(|kind| kind.devices).sum()
    };
    assert_eq!((counted(&fleet, "Slate 3"), counted(&fleet, "Slate 4")), (18, 6));
    assert_eq!(fleet.left_out, 0);
    let counts = street.yard.letters.fleets.len();
    street.slots(15, "");
    // A slot of the story is a minute, and the count is made anew every ten.
    let again = street.yard.letters.fleets.len() - counts;
    assert!((1..=2).contains(&again), "{again} counts in a quarter of an hour");
}

#[test]
fn a_good_release_reaches_everybody_and_is_complete_after_its_bake() {
    let mut street = Street::new();
    street.slots(9, "");
    assert!((1..=7).contains(&(street.began("Slate 3") + street.began("Slate 4"))));
    street.slots(75, "");
    assert_eq!(street.began("Slate 3") + street.began("Slate 4"), 24);
    assert_eq!(street.state(), RolloutState::Complete);
    assert!(street.yard.status().stops.is_empty(), "{:?}", street.yard.status().stops);
}

#[test]
fn a_restart_at_any_moment_costs_the_time_that_was_not_listened_and_nothing_else() {
    let tell = |restarts: &[u32]| {
        let mut street = Street::new();
        for slot in 0..60 {
            street.slots(1, "Slate 4");
            if restarts.contains(&slot) {
                street.yard.start_engine();
            }
        }
        let stops = street.yard.status().stops.into_iter().map(|stop| stop.reason);
        let began: Vec<Option<u32>> = street.owners.iter().map(|owner| owner.began).collect();
        (began, stops.collect::<Vec<String>>())
    };
    let undisturbed = tell(&[]);
    for restarts in [&[3][..], &[10, 11, 25, 40, 58]] {
        let (began, stops) = tell(restarts);
        assert_eq!(stops, undisturbed.1);
        for (then, now) in undisturbed.0.iter().zip(began) {
            let late = |then: u32, now: u32| now.checked_sub(then).is_some_and(|by| by <= 5);
            match (*then, now) {
                (Some(then), Some(now)) => assert!(late(then, now), "{then} became {now}"),
                // A few slots were lost at the end of the story.
                (then, None) => assert!(then.is_none_or(|then| then > 60 - 5), "{then:?}"),
                (None, Some(now)) => panic!("somebody was let in at {now} who was not before"),
            }
        }
    }
}

#[test]
fn whoever_lifts_a_hold_lets_the_held_in_again() {
    let mut street = Street::new();
    street.slots(60, "Slate 4");
    let hold = street.yard.status().stops[0].number;
    let lift = Lift {
        repository: street.yard.policy.repository.clone(),
        numbers: [hold].into(),
        reason: "the charger was at fault".into(),
    };
    let before = street.began("Slate 4");
    let offset = street.yard.json(EntryKind::Act, &signed(&Act::Lift(lift), &[21, 22]));
    street.yard.accepted(offset);
    street.slots(60, "");
    assert_eq!(street.began("Slate 4"), 6, "{before} before");
    assert!(street.yard.status().stops.is_empty());
}

#[test]
fn a_waiver_of_a_trials_number_counts_until_its_end_and_not_beyond() {
    let mut street = Street::new();
    let waits = |street: &Street| {
        let status = street.yard.status();
        let reasons = &status.rollouts[0].stages[1].reasons;
        reasons.iter().any(|why| why.contains("devices in `general` confirmed"))
    };
    let waiver = Waiver {
        repository: street.yard.policy.repository.clone(),
        rollout: street.start.rollout(),
        rule: WaivedRule::MinimumDevices(0),
        reason: "they are at sea".into(),
        expires: street.yard.now.plus(Seconds(300)),
    };
    let offset = street.yard.json(EntryKind::Act, &signed(&Act::Waive(waiver), &[21]));
    street.yard.accepted(offset);
    for (ticks, waits_then) in [(4, false), (1, true)] {
        for _ in 0..ticks {
            street.yard.tick();
        }
        assert_eq!(waits(&street), waits_then, "{:?}", street.yard.status().rollouts[0].stages);
    }
}
