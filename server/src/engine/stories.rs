//! The gatekeeper from entries to signed files, without a socket: what it takes, what it refuses, what
//! survives a crash.

use std::fs;

use lockgate_shared::{
    act::{Act, Approval, Grant, Lift, WaivedRule, Waiver},
    bucket::Limit,
    group::Habit,
    id::Digest,
    manifest::Manifest,
    pace,
    rollout::{Scope, StopKind},
    time::Seconds,
    wire::{Format, Letter, OutcomeKind},
};

use tough::schema::RoleType;

use super::{
    fixture::{BEGIN, Phone, Yard, first_targets, manifest, release, root_role, sign_role, signed},
    *,
};
use crate::{
    audit,
    letters::bars::BarKind,
    status::RolloutState,
    stream::{BarRequest, EntryKind, Publication, StopHow, StopRequest},
};

#[test]
fn a_good_release_is_started_climbs_and_is_complete_in_the_signed_file() {
    let mut yard = Yard::new();
    let (start, mut phones) = yard.started(6);
    let mut memory = pace::Memory::default();
    for _ in 0..20 {
        yard.tick();
        let file = yard.file("Slate 3").expect("a rollout file");
        let sight = pace::Sight {
            facts: &phones[0].facts,
            habit: Habit::Unknown,
            cohort: &|_| "general".parse().expect("a name"),
            now: yard.now,
        };
        memory.observe(&file, &yard.policy, &sight);
        let entry = file.rollouts.first().expect("the rollout").clone();
        // What a device compares with what people signed.
        let text = manifest("1.1.0");
        let signed = Manifest::from_json(text.as_bytes()).expect("a manifest");
        let memory = memory.rollouts.get(&entry.rollout);
        pace::verify(&entry, &yard.policy, &signed, &Digest::of(text.as_bytes()), memory)
            .expect("a device takes the entry");
        for phone in &mut phones {
            let view = phone.view(&start, true);
            let inside = entry
                .limit_for(&view.cohort, &view.groups)
                .is_some_and(|limit| limit.admits(view.bucket));
            if inside && phone.outcomes.count == 0 {
                yard.ends(phone, &start, OutcomeKind::Confirmed);
            }
        }
    }
    let file = yard.file("Slate 3").expect("a rollout file");
    let entry = &file.rollouts[0];
    assert!(entry.complete.is_some(), "{entry:?}");
    assert_eq!(entry.stages.len(), 2);
    assert_eq!(entry.stages[1].limit, Limit::EVERYBODY);
    let status = yard.status();
    assert_eq!(status.rollouts[0].state, RolloutState::Complete);
    assert_eq!(status.rollouts[0].stages[1].confirmed, 6);
    let numbers: Vec<u64> = yard.letters.verdicts.iter().map(|verdict| verdict.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no gaps");
    let opened: Vec<&str> = yard
        .letters
        .verdicts
        .iter()
        .filter(|verdict| verdict.decision == Decision::Open)
        .flat_map(|verdict| verdict.reasons.iter().map(String::as_str))
        .collect();
    assert!(opened.iter().all(|text| !text.contains("0 of 0")), "{opened:#?}");
    let general = "opened `general` (6 devices by the signed start) to ";
    assert!(opened.iter().any(|text| text.starts_with(general)), "{opened:#?}");
}

#[test]
fn a_device_that_goes_back_halts_the_rollout_before_the_next_tick_and_a_lift_goes_on() {
    let mut yard = Yard::new();
    let (start, mut phones) = yard.started(6);
    yard.until_somebody_may_begin();
    yard.ends(&mut phones[0], &start, OutcomeKind::RolledBack);
    yard.turn();
    let file = yard.file("Slate 3").expect("a file");
    assert_eq!(file.stops.len(), 1);
    assert_eq!((file.stops[0].number, file.stops[0].kind), (1, StopKind::Halt));
    let reason = &file.stops[0].reason;
    assert!(
        reason
            .starts_with("1 of 1 treated devices in `general` rolled back (hardware Acme Slate 3"),
        "{reason}"
    );
    assert!(reason.contains("any failure in a stage of fewer than 10 devices halts"), "{reason}");
    let before = yard.status().rollouts[0].stages[1].limit;
    yard.tick();
    assert_eq!(yard.status().rollouts[0].stages[1].limit, before, "a halted rollout stands");

    let lift = |numbers: &[u64]| {
        Act::Lift(Lift {
            repository: "trial".parse().expect("a name"),
            numbers: numbers.iter().copied().collect(),
            reason: "its disk was broken".into(),
        })
    };
    let unknown = yard.json(EntryKind::Act, &signed(&lift(&[7]), &[21]));
    yard.refused(unknown, "there never was a stop 7");
    let nobody = yard.json(EntryKind::Act, &signed(&lift(&[1]), &[11]));
    yard.refused(nobody, "0 of 1 approvals");
    let good = yard.json(EntryKind::Act, &signed(&lift(&[1]), &[21]));
    yard.accepted(good);
    let file = yard.file("Slate 3").expect("a file");
    assert!(file.stops.is_empty());
    assert_eq!(file.lifts.len(), 1);
    yard.tick();
    assert!(yard.status().stops.is_empty(), "the known failure halts no more");
    yard.ends(&mut phones[1], &start, OutcomeKind::RolledBack);
    yard.turn();
    assert_eq!(yard.status().stops[0].number, 2, "a new one does");
}

#[test]
fn letters_that_are_forged_replayed_or_of_strangers_change_nothing() {
    let mut yard = Yard::new();
    let (start, mut phones) = yard.started(6);
    let before = yard.status().rollouts[0].stages.clone();

    let mut stranger = Phone::new(99, "Slate 3");
    let offset = yard.ends(&mut stranger, &start, OutcomeKind::RolledBack);
    yard.refused(offset, "no enrolment");

    let mut forged = yard.letters.entries.last().expect("an entry").bytes.clone();
    let good = yard.sees(&mut phones[0], &start, false);
    let good = yard.letters.entries[usize::try_from(good).expect("small")].bytes.clone();
    forged.clone_from(&good);
    *forged.last_mut().expect("a byte") ^= 1;
    yard.letters.entries.pop();
    let offset = yard.send(EntryKind::Letter(Format::Binary), forged);
    yard.refused(offset, "signature");

    let kind = EntryKind::Letter(Format::Binary);
    yard.send(kind, good.clone());
    let again = yard.send(kind, good.clone());
    yard.turn();
    assert!(yard.verdict(again).is_none(), "the same bytes again are the same letter");
    let next = phones[0].letter(&yard);
    yard.post(&mut phones[0], next);
    let offset = yard.send(kind, good);
    yard.refused(offset, "is not above");

    let mut elsewhere = phones[1].letter(&yard);
    elsewhere.repository = "other".parse().expect("a name");
    let offset = yard.post(&mut phones[1], elsewhere);
    yard.refused(offset, "repository `other`");
    let mut foreign = phones[1].letter(&yard);
    foreign.tenant = "evil".parse().expect("a name");
    let offset = yard.post(&mut phones[1], foreign);
    yard.refused(offset, "tenant `evil`");
    assert_eq!(yard.status().rollouts[0].stages, before);
}

#[test]
fn tokens_of_unknown_keys_or_used_up_enrol_nobody() {
    let mut yard = Yard::new();
    let phone = |number| Phone::new(number, "Slate 3");
    let offset = yard.enrol(&phone(60), yard.token(32, 5));
    yard.refused(offset, "no enrolment key");
    let token = yard.token(31, 1);
    yard.enrol(&phone(61), token.clone());
    yard.enrol(&phone(61), token.clone());
    let offset = yard.enrol(&phone(62), token);
    yard.refused(offset, "good for 1 device");
}

#[test]
fn an_enrolment_is_judged_by_what_was_signed_and_never_by_the_letter_boxs_word() {
    let mut yard = Yard::new();
    let token = yard.token(31, 10);
    let year = Seconds(366 * 86_400);
    // Two years later the letter box claims that it took this one in time.
    let begun = yard.now;
    yard.enrol(&Phone::new(61, "Slate 3"), token.clone());
    yard.now = begun.plus(year);
    let offset = yard.letters.entries.len() as u64 - 1;
    yard.refused(offset, "is good from");
    // A gatekeeper that was away for some hours refuses nobody who came in time.
    let mut yard = Yard::new();
    yard.now = BEGIN.plus(Seconds(365 * 86_400 - 10));
    let offset = yard.enrol(&Phone::new(62, "Slate 3"), token);
    yard.now = yard.now.plus(Seconds(3_600));
    yard.turn();
    assert!(yard.verdict(offset).is_none(), "{:?}", yard.verdict(offset));
}

#[test]
fn a_crowd_of_new_devices_is_an_alarm_and_changing_facts_fill_nothing() {
    let mut yard = Yard::new();
    let mut phone = yard.phones(1, "Slate 3").remove(0);
    let engine = yard.engine.as_mut().expect("an engine");
    let acme = "acme".parse().expect("a name");
    for _ in 1..intake::ENROLMENTS_HOURLY {
        engine.book.enrolled(&acme, BEGIN);
    }
    let _another = yard.phones(1, "Slate 3");
    yard.turn();
    // The second one is the thousandth: the first came before the others were counted.
    assert!(yard.status().alarms.iter().any(|alarm| alarm.text.contains("within an hour")));
    let words = |yard: &Yard| yard.engine.as_ref().expect("an engine").book.labels.len();
    let before = words(&yard);
    for number in 0..20 {
        let mut letter = phone.letter(&yard);
        letter.facts = Some(lockgate_shared::facts::Facts {
            configuration: format!("made up {number}"),
            ..phone.facts.clone()
        });
        yard.post(&mut phone, letter);
    }
    yard.turn();
    assert!(words(&yard) <= before + 13, "{} words", words(&yard));
}

#[test]
fn a_device_that_enrolled_after_the_start_is_no_evidence_and_its_new_kind_waits() {
    let mut yard = Yard::new();
    let (start, _phones) = yard.started(6);
    let mut late = yard.phones(1, "Brick 9");
    yard.sees(&mut late[0], &start, true);
    yard.ends(&mut late[0], &start, OutcomeKind::RolledBack);
    yard.tick();
    assert_eq!(yard.status().rollouts[0].stages[1].rolled_back, 0);
    let file = yard.file("Brick 9").expect("a file for the new model");
    let view = late[0].view(&start, false);
    let entry = &file.rollouts[0];
    assert_eq!(entry.limit_for(&view.cohort, &view.groups), Some(Limit::NOBODY));
    assert!(file.letters_offset >= yard.letters.entries.len() as u64 - 1);
}

#[test]
fn starts_below_threshold_or_beside_what_was_published_are_refused() {
    let mut yard = Yard::new();
    yard.phones(3, "Slate 3");
    yard.release(2, &["1.1.0"], &[11, 12]);
    let good = yard.start("1.1.0", 3);
    let mut send = |start: &_, people: &[u8], words: &str| {
        let act = signed(&Act::Start(Clone::clone(start)), people);
        let offset = yard.json(EntryKind::Act, &act);
        yard.refused(offset, words);
    };
    send(&good, &[21], "1 of 2 approvals");
    send(&good, &[21, 21, 11], "1 of 2 approvals");
    let mut bad = good.clone();
    bad.version = "1.2.0".parse().expect("a version");
    send(&bad, &[21, 22], "is not published");
    let mut bad = good.clone();
    bad.manifest = Digest([9; 32]);
    send(&bad, &[21, 22], "another one than the start names");
    let mut bad = good.clone();
    bad.cohorts.reverse();
    send(&bad, &[21, 22], "cohorts");
    let mut bad = good.clone();
    bad.channel = "beta".parse().expect("a name");
    send(&bad, &[21, 22], "no channel");
    let mut bad = good.clone();
    bad.moment = BEGIN.plus(Seconds(3600));
    send(&bad, &[21, 22], "lies ahead");
    let mut bad = good.clone();
    bad.owner = "max".parse().expect("a name");
    send(&bad, &[21, 22], "owner");
    let act = signed(&Act::Start(good), &[21, 22]);
    let first = yard.json(EntryKind::Act, &act);
    yard.accepted(first);
    let second = yard.json(EntryKind::Act, &act);
    yard.refused(second, "already");
}

#[test]
fn publications_are_refused_unless_enough_authors_signed_the_next_version_of_fitting_releases() {
    let mut yard = Yard::new();
    let mut send = |publication: &Publication, words: &str| {
        let offset = yard.json(EntryKind::Publish, publication);
        yard.refused(offset, words);
    };
    send(&release(2, &["1.1.0"], &[11]), "1 of 2 signatures");
    send(&release(2, &["1.1.0"], &[11, 21]), "1 of 2 signatures");
    send(&release(1, &["1.1.0"], &[11, 12]), "version 1, the next one is 2");
    send(&release(3, &["1.1.0"], &[11, 12]), "version 3, the next one is 2");
    let mut bare = release(2, &["1.1.0"], &[11, 12]);
    bare.targets.clear();
    send(&bare, "lacks the text");
    let mut changed = release(2, &["1.1.0"], &[11, 12]);
    changed.targets[0].1.push(' ');
    send(&changed, "not the text that was signed");
    let mut extra = release(2, &["1.1.0"], &[11, 12]);
    extra.targets.push(("releases/app/9.9.9.json".into(), manifest("9.9.9")));
    send(&extra, "not listed");
    let mut online = release(2, &[], &[5]);
    online.role = "rollouts".into();
    send(&online, "not published by people");
    let good = yard.release(2, &["1.1.0"], &[11, 12]);
    yard.accepted(good);
    let path = yard.folder.path().join("repository/metadata/2.releases-app.json");
    assert_eq!(fs::read_to_string(path).expect("metadata"), release_text(&yard, good));
}

#[test]
fn new_targets_bring_a_new_policy_and_must_delegate_as_before() {
    let mut yard = Yard::new();
    let mut policy = yard.policy.clone();
    policy.people.remove(&"eva".parse().expect("a name"));
    policy.approvals.start_routine = 1;
    let text = serde_json::to_string_pretty(&policy).expect("json");
    let publication = |role, keys: &[u8]| Publication {
        role: "targets".into(),
        metadata: String::from_utf8(sign_role(role, keys)).expect("text"),
        targets: vec![("policy.json".into(), text.clone())],
        with: Vec::new(),
    };
    let mut wide = first_targets(2, &text);
    wide.delegations.as_mut().expect("delegations").roles.pop();
    let offset = yard.json(EntryKind::Publish, &publication(wide, &[2]));
    yard.refused(offset, "must delegate `rollouts/*/*`");
    let offset = yard.json(EntryKind::Publish, &publication(first_targets(2, &text), &[11]));
    yard.refused(offset, "0 of 1 signatures");
    let offset = yard.json(EntryKind::Publish, &publication(first_targets(2, &text), &[2]));
    yard.accepted(offset);
    yard.phones(2, "Slate 3");
    yard.release(2, &["1.1.0"], &[11, 12]);
    let start = signed(&Act::Start(yard.start("1.1.0", 2)), &[21]);
    let offset = yard.json(EntryKind::Act, &start);
    yard.accepted(offset);
}

#[test]
fn a_new_root_needs_the_old_and_the_new_keys_and_every_role_keys_enough() {
    let mut yard = Yard::new();
    let publication = |role, keys: &[u8]| Publication {
        role: "root".into(),
        metadata: String::from_utf8(sign_role(role, keys)).expect("text"),
        targets: Vec::new(),
        with: Vec::new(),
    };
    for (version, keys, words) in [
        (2, &[1][..], "0 of 1 signatures"),
        (2, &[6], "0 of 1 signatures"),
        (3, &[1, 6], "version 3, the next one is 2"),
    ] {
        let offset = yard.json(EntryKind::Publish, &publication(root_role(version, 6, 3), keys));
        yard.refused(offset, words);
    }
    let mut poor = root_role(2, 6, 3);
    poor.roles.get_mut(&RoleType::Timestamp).expect("a role").keyids.clear();
    let offset = yard.json(EntryKind::Publish, &publication(poor, &[1, 6]));
    yard.refused(offset, "fewer keys for role `timestamp`");
    let offset = yard.json(EntryKind::Publish, &publication(root_role(2, 6, 3), &[1, 6]));
    yard.accepted(offset);
    assert!(yard.folder.path().join("repository/metadata/2.root.json").exists());
    yard.start_engine();
    let root = yard.status().expiries.into_iter().find(|expiry| expiry.role == "root");
    assert_eq!(root.expect("root").version, 2);
}

#[test]
fn a_gatekeeper_whose_key_was_replaced_signs_nothing_says_so_and_goes_on_counting() {
    let mut yard = Yard::new();
    let publication = Publication {
        role: "root".into(),
        metadata: String::from_utf8(sign_role(root_role(2, 1, 7), &[1])).expect("text"),
        targets: Vec::new(),
        with: Vec::new(),
    };
    let offset = yard.json(EntryKind::Publish, &publication);
    yard.accepted(offset);
    let before = yard.status().expiries;
    yard.phones(2, "Slate 3");
    yard.tick();
    yard.tick();
    let status = yard.status();
    assert_eq!(status.expiries, before);
    assert_eq!(status.letters_offset, 5);
    let said = status.alarms.iter().filter(|alarm| alarm.text.contains("`snapshot` on this host"));
    assert_eq!(said.count(), 1);
}

#[test]
fn a_revoked_device_is_evidence_of_harm_only_and_is_expected_nowhere() {
    let mut yard = Yard::new();
    let (start, mut phones) = yard.started(6);
    yard.tick();
    let mut bar = |phone: &Phone, tenant: &str| bar(&mut yard, phone, tenant, BarKind::Revoked);
    let foreign = bar(&phones[0], "globex");
    let good = bar(&phones[0], "acme");
    bar(&phones[1], "acme");
    yard.refused(foreign, "of another tenant");
    yard.accepted(good);
    yard.ends(&mut phones[0], &start, OutcomeKind::Confirmed);
    yard.turn();
    let status = yard.status();
    assert_eq!(status.rollouts[0].stages[1].confirmed, 0, "nobody knows who wrote that");
    // A stolen letter box must not hide a sick device by revoking it.
    yard.ends(&mut phones[1], &start, OutcomeKind::RolledBack);
    yard.turn();
    assert_eq!(yard.status().rollouts[0].state, RolloutState::Halted);
}

#[test]
fn what_is_alarming_about_a_device_ends_when_it_is_revoked() {
    let mut yard = Yard::new();
    let mut phones = yard.phones(2, "Slate 3");
    yard.turn();
    let again = phones[0].letter(&yard);
    for sent in [BEGIN, BEGIN.plus(Seconds(1)), BEGIN.plus(Seconds(2))] {
        for phone in &mut phones {
            let letter = Letter { sequence: 2, sent, device: phone.id(), ..again.clone() };
            yard.post(phone, letter);
        }
    }
    let held = bar(&mut yard, &phones[0], "acme", BarKind::Held);
    yard.accepted(held);
    let alarms = |yard: &Yard, phone: &Phone| {
        let alarms = yard.status().alarms;
        let own = alarms.into_iter().filter(|alarm| alarm.device == Some(phone.id()));
        own.map(|alarm| alarm.text).collect::<Vec<_>>().join("; ")
    };
    let before = alarms(&yard, &phones[0]);
    assert!(before.contains("cloned") && before.contains("it is held: "), "{before}");
    let revoked = bar(&mut yard, &phones[0], "acme", BarKind::Revoked);
    yard.accepted(revoked);
    yard.start_engine();
    assert_eq!(alarms(&yard, &phones[0]), "", "also after a restart");
    assert!(alarms(&yard, &phones[1]).contains("cloned"), "another device's alarm stays");
    assert!(yard.letters.audit.iter().any(|line| line.contains("is revoked: stolen")));
}

fn bar(yard: &mut Yard, phone: &Phone, tenant: &str, kind: BarKind) -> u64 {
    let request = BarRequest {
        device: phone.id(),
        tenant: tenant.parse().expect("a name"),
        kind,
        reason: "stolen".into(),
        by: "tom-acme".into(),
    };
    yard.json(EntryKind::Bar, &request)
}

#[test]
fn who_may_stop_what() {
    let mut yard = Yard::new();
    let (start, _) = yard.started(4);
    let stop = |scope, how, token: &str| StopRequest {
        scope,
        how,
        reason: "looks odd".into(),
        token: token.into(),
    };
    let tenant = Scope::Tenant("acme".parse().expect("a name"));
    let mut send = |request: StopRequest| yard.json(EntryKind::Stop, &request);
    let nobody = send(stop(Scope::Everything, StopHow::Pause, "stolen"));
    let too_wide = send(stop(Scope::Everything, StopHow::Pause, "tom-acme"));
    let own = send(stop(tenant, StopHow::Pause, "tom-acme"));
    let wide = send(stop(Scope::Everything, StopHow::Pause, "ben-laptop"));
    let again = send(stop(Scope::Everything, StopHow::Pause, "ben-laptop"));
    let much = send(stop(Scope::Everything, StopHow::End, "ben-laptop"));
    yard.refused(nobody, "belongs to nobody");
    yard.refused(too_wide, "`tom` is no operator");
    yard.refused(much, "one rollout at a time");
    for offset in [own, wide, again] {
        yard.accepted(offset);
    }
    let file = yard.file("Slate 3").expect("a file");
    assert_eq!(file.stops.iter().map(|stop| stop.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(yard.status().rollouts[0].state, RolloutState::Paused);
    let end = stop(Scope::Rollout(start.rollout()), StopHow::End, "ben-laptop");
    let end = yard.json(EntryKind::Stop, &end);
    yard.accepted(end);
    assert!(yard.file("Slate 3").expect("a file").rollouts[0].ended.is_some());
}

#[test]
fn approvals_waivers_and_grants_must_fit_their_rollout_and_device() {
    let mut yard = Yard::new();
    let (start, phones) = yard.started(4);
    let repository = yard.policy.repository.clone();
    let approval = |stage, cohort: &str| {
        Act::Approve(Approval {
            repository: repository.clone(),
            rollout: start.rollout(),
            manifest: start.manifest,
            stage,
            cohort: cohort.parse().expect("a name"),
        })
    };
    let waiver = |rule, expires| {
        Act::Waive(Waiver {
            repository: repository.clone(),
            rollout: start.rollout(),
            rule,
            reason: "few devices".into(),
            expires,
        })
    };
    let grant = |device, cohort: &str| {
        Act::Grant(Grant {
            repository: repository.clone(),
            device,
            tenant: "acme".parse().expect("a name"),
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            cohort: cohort.parse().expect("a name"),
            issued: BEGIN,
            expires: BEGIN.plus(Seconds(86_400)),
            reason: "a colleague's".into(),
        })
    };
    let later = BEGIN.plus(Seconds(86_400));
    let minimum = WaivedRule::MinimumDevices(1);
    for (act, words) in [
        (approval(0, "general"), "is not `general`"),
        (waiver(minimum.clone(), BEGIN), "ended"),
        (grant(phones[0].id(), "vip"), "no channel `stable` with a cohort `vip`"),
        (grant(Phone::new(98, "x").id(), "early"), "no such device"),
    ] {
        let offset = yard.json(EntryKind::Act, &signed(&act, &[21]));
        yard.refused(offset, words);
    }
    for act in [approval(1, "general"), waiver(minimum, later), grant(phones[0].id(), "early")] {
        let offset = yard.json(EntryKind::Act, &signed(&act, &[21]));
        yard.accepted(offset);
    }
    let cohorts = yard.status().cohorts;
    let early = cohorts.iter().find(|c| c.cohort.as_str() == "early").expect("early");
    assert_eq!(early.devices, 1);
}

#[test]
fn a_device_that_claims_an_earlier_cohort_than_granted_is_an_alarm_and_no_evidence() {
    let mut yard = Yard::new();
    let (start, _) = yard.started(4);
    let mut liar = yard.phones(1, "Slate 3");
    let mut letter = liar[0].letter(&yard);
    let mut view = liar[0].view(&start, false);
    view.cohort = "early".parse().expect("a name");
    letter.rollouts.push(view);
    yard.post(&mut liar[0], letter);
    yard.turn();
    assert!(yard.status().alarms.iter().any(|alarm| alarm.text.contains("earlier cohort")));
}

#[test]
fn a_restart_counts_nothing_twice_and_signs_no_version_again() {
    let mut yard = Yard::new();
    let (start, mut phones) = yard.started(6);
    yard.tick();
    yard.ends(&mut phones[0], &start, OutcomeKind::Confirmed);
    yard.tick();
    let before = yard.status();
    let versions = |status: &Status| -> Vec<u64> {
        let online = status.expiries.iter().rev().take(3);
        online.map(|expiry| expiry.version).collect()
    };
    yard.start_engine();
    yard.turn();
    let after = yard.status();
    assert_eq!(after.letters_offset, before.letters_offset);
    assert_eq!(after.rollouts[0].stages[1].confirmed, 1);
    assert_eq!(after.rollouts[0].stages[1].limit, before.rollouts[0].stages[1].limit);
    for (old, new) in versions(&before).iter().zip(versions(&after)) {
        assert!(new > *old, "version {old} was signed again");
    }
    let log = fs::File::open(yard.folder.path().join("state/audit.log")).expect("the log");
    let keys = [lockgate_shared::sign::public(&super::fixture::key(5))].into();
    let summary = audit::verify_by(log, &keys).expect("a true chain of the gatekeeper's");
    assert_eq!(summary.signed.map(|(n, _)| n), Some(summary.entries), "the last tick signed it");
    let acts = yard.letters.audit.iter().filter(|line| audit::is_act(line)).count();
    assert_eq!(summary.entries, acts as u64, "each line was forwarded once");
    let forwarded = yard.letters.audit.join("\n") + "\n";
    let copy = audit::verify_by(forwarded.as_bytes(), &keys).expect("a copy to compare with");
    assert_eq!((copy.head, copy.entries), (summary.head, summary.entries));
}

#[test]
fn a_crash_between_any_two_files_is_made_good_at_the_next_start() {
    let mut yard = Yard::new();
    let (_start, _phones) = yard.started(6);
    yard.tick();
    let repository = yard.folder.path().join("repository");
    // As if the power had failed after each of these was due: the store knows of them, the disk not.
    for lost in ["metadata/timestamp.json", "metadata/2.releases-app.json", "metadata/1.root.json"]
    {
        fs::remove_file(repository.join(lost)).expect("a file");
    }
    for entry in fs::read_dir(repository.join("targets/rollouts/app")).expect("a folder") {
        fs::remove_file(entry.expect("an entry").path()).expect("a file");
    }
    fs::write(repository.join("metadata/timestamp.json"), b"{").expect("a torn file");
    yard.start_engine();
    let file = yard.file("Slate 3").expect("a file");
    assert_eq!(file.rollouts.len(), 1);
    assert!(repository.join("metadata/2.releases-app.json").exists());
}

#[test]
fn an_act_that_a_crash_kept_out_of_the_audit_log_is_in_it_after_the_next_start() {
    let mut yard = Yard::new();
    yard.release(2, &["1.1.0"], &[11, 12]);
    let (entries, now) = (yard.letters.entries.clone(), yard.now);
    let engine = yard.engine.as_mut().expect("an engine");
    engine.ask(&entries, now).expect("asked");
    engine.commit().expect("written down");
    // Here the power fails: the store has it, neither the log nor the repository do.
    yard.engine = None;
    let log = yard.folder.path().join("state/audit.log");
    let published = yard.folder.path().join("repository/metadata/2.releases-app.json");
    assert_eq!(fs::read_to_string(&log).expect("the log"), "");
    assert!(!published.exists());
    yard.start_engine();
    let whole = fs::read_to_string(&log).expect("the log");
    assert_eq!(whole.lines().count(), 1);
    assert!(published.exists());
    yard.start_engine();
    assert_eq!(fs::read_to_string(&log).expect("the log"), whole, "once and not twice");
    yard.turn();
    let acts = yard.letters.audit.iter().filter(|line| audit::is_act(line)).count();
    assert_eq!(acts, 1);
    assert_eq!(yard.verdict(0).expect("the verdict").0, Decision::Accepted);
}

#[test]
fn an_idle_gatekeeper_writes_nothing() {
    let mut yard = Yard::new();
    yard.phones(2, "Slate 3");
    yard.turn();
    let size = |yard: &Yard| {
        let wal = yard.folder.path().join("state/gatekeeper.db-wal");
        (fs::metadata(wal).expect("a log").len(), yard.status().expiries)
    };
    let before = size(&yard);
    for _ in 0..10 {
        yard.now = yard.now.plus(Seconds(1));
        yard.turn();
    }
    assert_eq!(size(&yard), before);
}

#[test]
fn a_letter_box_that_lost_entries_or_sends_others_is_an_alarm() {
    let mut yard = Yard::new();
    yard.phones(3, "Slate 3");
    yard.turn();
    yard.letters.entries.truncate(2);
    yard.turn();
    assert!(yard.status().alarms.iter().any(|alarm| alarm.text.contains("lost or replaced")));
}

#[test]
fn a_lost_store_never_signs_an_old_version_again() {
    let mut yard = Yard::new();
    yard.tick();
    let version = |yard: &Yard| yard.status().expiries.last().expect("timestamp").version;
    let before = version(&yard);
    yard.engine = None;
    fs::remove_dir_all(yard.folder.path().join("state")).expect("the store");
    yard.start_engine();
    assert!(version(&yard) > before);
}

#[test]
fn a_lost_store_never_gives_a_stop_s_number_again() {
    let mut yard = Yard::new();
    yard.started(4);
    let pause = |reason: &str| StopRequest {
        scope: Scope::Everything,
        how: StopHow::Pause,
        reason: reason.into(),
        token: "ben-laptop".into(),
    };
    let offset = yard.json(EntryKind::Stop, &pause("first"));
    yard.accepted(offset);
    yard.engine = None;
    fs::remove_dir_all(yard.folder.path().join("state")).expect("the store");
    yard.letters = super::fixture::LetterBox::default();
    yard.start_engine();
    let offset = yard.json(EntryKind::Stop, &pause("second"));
    yard.accepted(offset);
    assert_eq!(yard.status().stops[0].number, 2);
}

#[test]
fn the_timestamp_is_signed_again_at_its_interval_and_the_other_roles_before_they_end() {
    let mut yard = Yard::new();
    let read = |yard: &Yard, role: &str| {
        let found = yard.status().expiries.into_iter().find(|expiry| expiry.role == role);
        found.expect("the role")
    };
    let first = read(&yard, "timestamp");
    yard.now = yard.now.plus(Seconds(599));
    yard.turn();
    assert_eq!(read(&yard, "timestamp"), first);
    yard.now = yard.now.plus(Seconds(1));
    yard.letters.broken = true;
    yard.one_turn();
    assert!(read(&yard, "timestamp").version > first.version, "also without a letter box");
    assert_eq!(read(&yard, "snapshot").version, 1);
    yard.now = yard.now.plus(Seconds(4 * 86_400));
    yard.one_turn();
    assert_eq!(read(&yard, "snapshot").version, 2);
    assert_eq!(read(&yard, "rollouts").version, 2);
    assert!(yard.now < read(&yard, "snapshot").expires);
}

#[test]
fn between_two_ticks_what_devices_are_told_does_not_change() {
    let mut yard = Yard::new();
    let (start, mut phones) = yard.started(6);
    yard.tick();
    let before = yard.file("Slate 3").expect("a file");
    yard.now = yard.now.plus(Seconds(10));
    yard.ends(&mut phones[0], &start, OutcomeKind::Confirmed);
    yard.turn();
    assert_eq!(yard.file("Slate 3").expect("a file"), before);
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut yard = Yard::new();
    yard.engine = None;
    let path = yard.folder.path().join("online/snapshot.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let opened = Engine::open(&yard.config(), yard.now);
    assert!(matches!(opened, Err(EngineError::Tuf(TufError::KeyOpen { .. }))));
}

fn release_text(yard: &Yard, offset: u64) -> String {
    let entry = &yard.letters.entries[usize::try_from(offset).expect("small")];
    let publication: Publication = serde_json::from_slice(&entry.bytes).expect("a publication");
    publication.metadata
}
