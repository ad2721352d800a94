//! The loop with real decisions, a real journal and a real repository; only slots, clock and server
//! are in memory. The power is cut at every instant that counts.

mod age;
mod author;
mod bench;

use bench::{Bench, World_, app, cohorts, granted, manifest, open, publish};
use lockgate_shared::{
    rollout::{Scope, Stop, StopKind},
    wire::OutcomeKind,
};

use super::*;
use crate::{
    core::{machine::Consent, tuf::testkit},
    journal::power::Cut,
    slots::Slot,
};

#[test]
fn a_release_is_installed_confirmed_and_reported() {
    let bench = Bench::new();
    bench.run_until_settled(Cut::Never);
    assert_eq!(bench.running(), "1.1.0");
    assert_eq!(bench.heard(), [OutcomeKind::Confirmed]);
}

#[test]
fn a_bad_release_goes_back_though_the_server_is_gone() {
    let bench = Bench::new();
    bench.with(|it| it.healthy = false);
    let mut agent = bench.start().expect("started");
    bench.turn_until(&mut agent, |it| it.active == Slot::B);
    bench.with(|it| it.reachable = false);
    bench.turn_until(&mut agent, |it| it.active == Slot::A);
    bench.turns(&mut agent, 5);
    assert!(bench.heard().is_empty(), "nobody can have heard of it");
    bench.with(|it| it.reachable = true);
    bench.turn_until(&mut agent, |it| !it.outcomes.is_empty());
    assert_eq!(bench.heard(), [OutcomeKind::RolledBack]);
    bench.turns(&mut agent, 20);
    assert_eq!(bench.running(), "1.0.0", "a failed version was tried again");
}

#[test]
fn a_stop_that_comes_after_the_decision_is_seen_by_the_last_look() {
    let bench = Bench::new();
    bench.with(|it| it.stop_at_fetch = true);
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 20);
    assert_eq!(bench.running(), "1.0.0");
    bench.with(|it| {
        assert!(it.slots.contains_key(&Slot::B), "the staged slot was thrown away");
        assert_eq!(it.fetches, 1);
    });
    let reasons = agent.snapshot().products.remove(0).candidates.remove(0).reasons;
    assert!(reasons.iter().any(|reason| reason.text.contains("halt 7")), "{reasons:?}");
}

#[test]
fn a_long_refusal_is_told_whole_to_the_owner_and_by_whole_words_to_the_server() {
    let bench = Bench::new();
    let reason = "it fills the disk ".repeat(30) + "and stops at the very end";
    let halt = Stop {
        number: 7,
        kind: StopKind::Halt,
        scope: Scope::Everything,
        since: Moment(testkit::NOW),
        reason: reason.clone(),
    };
    bench.with(|it| {
        it.counted = true;
        publish(&mut it.repo, vec![halt], 1000);
    });
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 3);
    let said = agent.snapshot().products.remove(0).state_text;
    assert!(said.starts_with(&format!("waits: halt 7: {reason}")), "{said}");
    let letter = bench.last_letter();
    let sent = &letter.rollouts[0].reasons[0].text;
    assert!(sent.len() <= limits::LETTER_TEXT && sent.ends_with('…'), "{sent}");
    let whole = sent.trim_end_matches('…');
    assert!(format!("halt 7: {reason} ").starts_with(&format!("{whole} ")), "{sent}");
}

#[test]
fn a_letter_box_that_says_a_letter_was_counted_is_not_believed() {
    let bench = Bench::new();
    // It answers with the offset 5 and a file that counted 1000, and lets no letter through.
    bench.with(|it| {
        it.counted = true;
        publish(&mut it.repo, vec![], 1000);
    });
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 10);
    assert_eq!(bench.running(), "1.0.0");
    let reasons = agent.snapshot().products.remove(0).candidates.remove(0).reasons;
    assert_eq!(reasons.iter().map(|reason| reason.code).collect::<Vec<_>>(), [605]);
    bench.with(|it| publish(&mut it.repo, vec![], 1001));
    bench.turn_until(&mut agent, |it| !it.outcomes.is_empty());
    assert_eq!(bench.heard(), [OutcomeKind::Confirmed]);
}

#[test]
fn a_poll_without_news_is_root_timestamp_and_one_letter_and_else_the_letter_comes_before_the_file()
{
    let bench = Bench::new();
    let mut agent = bench.start().expect("started");
    let poll = |agent: &mut Agent<World_>| {
        bench.with(|it| it.log.clear());
        agent.hurry();
        bench.turns(agent, 1);
        bench.with(|it| it.log.clone())
    };
    let log = poll(&mut agent);
    let place = |word: &str| log.iter().position(|done| done.contains(word)).expect(word);
    assert!(place("2.root.json") < place("timestamp.json"), "{log:?}");
    assert!(place("timestamp.json") < place("letter"), "{log:?}");
    assert!(place("letter") < place("rollouts/app"), "{log:?}");
    assert_eq!(log.last().map(String::as_str), Some("letter"), "what came of it is told: {log:?}");
    // The file that says that this letter was counted is news; the one after it is none.
    while poll(&mut agent).len() > 3 {}
    assert_eq!(poll(&mut agent), ["metadata/2.root.json", "metadata/timestamp.json", "letter"]);
}

#[test]
fn a_grant_in_the_answer_to_a_letter_counts_for_a_rollout_that_appears_in_the_same_poll() {
    let bench = Bench::new();
    bench.with(|it| it.orders = Some(granted("early")));
    let mut agent = bench.start().expect("started");
    bench.turn_until(&mut agent, |it| !it.letters.is_empty());
    assert_eq!(cohorts(&agent), ["early"]);
    // What was granted later is for rollouts that are first seen later.
    bench.with(|it| it.orders = Some(granted("later")));
    bench.turns(&mut agent, 3);
    assert_eq!(cohorts(&agent), ["early"]);
}

#[test]
fn no_rollout_is_first_seen_before_a_letter_was_answered() {
    let bench = Bench::new();
    bench.with(|it| it.lose_answers = 2);
    let mut agent = bench.start().expect("started");
    let mut waited = 0;
    while bench.with(|it| it.lose_answers > 0) {
        bench.turns(&mut agent, 1);
        assert_eq!(cohorts(&agent), [""; 0]);
        waited += 1;
        bench.with(|it| it.orders = Some(granted("early")));
    }
    assert!(waited > 1, "the answer was lost in two polls");
    bench.turns(&mut agent, 2);
    assert_eq!(cohorts(&agent), ["early"]);
}

#[test]
fn a_recalled_version_goes_back_by_its_other_slot_and_never_comes_again() {
    let bench = Bench::new();
    let older = bench.release("1.0.0");
    bench.with(|it| it.slots.get_mut(&Slot::A).expect("a slot").manifest = older);
    bench.run_until_settled(Cut::Never);
    assert_eq!(bench.running(), "1.1.0");
    bench.with(|it| publish(&mut it.repo, vec![], 2000));
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 5);
    assert_eq!(bench.running(), "1.1.0", "an older release lies there, and no recall leads to it");
    bench.recall(older);
    bench.turn_until(&mut agent, |it| it.active == Slot::A);
    bench.turns(&mut agent, 20);
    assert_eq!(bench.running(), "1.0.0");
    assert_eq!(bench.with(|it| it.fetches), 1, "1.1.0 was fetched, and 1.0.0 was there");
    assert_eq!(bench.heard(), [OutcomeKind::Confirmed, OutcomeKind::Confirmed]);
    let status = agent.snapshot().products.remove(0);
    let codes: Vec<u16> = status.candidates[0].reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(codes, [104], "{status:?}");
    crate::cli::Request::Rollback(app(), Consent::GoBack).leave(bench.folder.path()).expect("left");
    bench.turns(&mut agent, 3);
    assert_eq!(bench.running(), "1.0.0", "a rollback led to what is recalled");
    assert_eq!(refusal(&agent).as_deref(), Some("1.1.0, which ran before, is recalled"));
}

#[test]
fn a_recall_to_a_release_that_is_not_on_the_device_fetches_it() {
    let bench = Bench::new();
    bench.run_until_settled(Cut::Never);
    let older = bench.release("1.0.0");
    bench.recall(older);
    let mut agent = bench.start().expect("started");
    bench.turn_until(&mut agent, |it| it.active == Slot::A);
    bench.turns(&mut agent, 20);
    assert_eq!(bench.running(), "1.0.0");
    bench.with(|it| {
        assert_eq!(it.slots[&Slot::A].manifest, older);
        assert_eq!(it.fetches, 2);
    });
}

#[test]
fn a_device_that_sees_nothing_new_tells_owner_and_server_since_when() {
    let bench = Bench::new();
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 3);
    let told = |notices: &[String]| notices.iter().any(|notice| notice.contains("nothing newer"));
    assert!(!told(&agent.snapshot().notices));
    bench.with(|it| it.uptime += 3 * 3600);
    bench.turns(&mut agent, 2);
    assert!(told(&agent.snapshot().notices));
    assert!(told(&bench.last_letter().notices));
}

#[test]
fn a_list_of_files_that_was_changed_on_the_disk_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = Journal::open(folder.path()).expect("a journal");
    let good = serde_json::to_vec(&manifest()).expect("json");
    let digest = Digest::of(&good);
    journal.keep_manifest(&digest, &good, &[]).expect("kept");
    assert_eq!(managed::kept(&journal, &digest).expect("read"), Some(manifest()));
    let bad = String::from_utf8(good).expect("text").replace("run", "sh");
    journal.keep_manifest(&digest, bad.as_bytes(), &[]).expect("kept");
    assert_eq!(managed::kept(&journal, &digest).expect("read"), None);
}

#[test]
fn a_recall_that_cannot_be_read_keeps_the_device_from_what_it_names() {
    let bench = Bench::new();
    let older = bench.release("1.0.0");
    bench.recall(older);
    bench.with(|it| it.repo.payloads.retain(|path, _| !path.contains("recall")));
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 10);
    assert_eq!(bench.running(), "1.0.0");
    let reasons = agent.snapshot().products.remove(0).candidates.remove(0).reasons;
    assert!(reasons[0].text.contains("recalled could not be read"), "{reasons:?}");
}

#[test]
fn an_owner_who_wants_the_version_before_gets_it_and_keeps_it() {
    let bench = Bench::new();
    bench.run_until_settled(Cut::Never);
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 3);
    let request = crate::cli::Request::Rollback(app(), Consent::GoBack);
    request.leave(bench.folder.path()).expect("left");
    bench.turns(&mut agent, 10);
    assert_eq!(bench.running(), "1.0.0");
    assert_eq!(refusal(&agent), None);
    assert_eq!(bench.heard(), [OutcomeKind::Confirmed, OutcomeKind::RolledBack]);
    assert_eq!(crate::cli::Request::waiting(bench.folder.path()).expect("found"), []);
    request.leave(bench.folder.path()).expect("left");
    bench.turns(&mut agent, 3);
    assert_eq!(bench.running(), "1.0.0", "there is nothing before that");
    assert_eq!(refusal(&agent).as_deref(), Some("1.0.0 runs already, and nothing older is kept"));
    bench.with(|it| it.uptime += 2 * 86_400);
    assert_eq!(refusal(&agent), None, "what was asked days ago is still told");
}

#[test]
fn what_speaks_against_a_release_is_said_by_what_runs_after_going_back() {
    let bench = Bench::new();
    bench.run_until_settled(Cut::Never);
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 3);
    crate::cli::Request::Rollback(app(), Consent::GoBack).leave(bench.folder.path()).expect("left");
    // Nothing polls meanwhile: only the request is heeded.
    agent.heed_requests().expect("heeded");
    assert_eq!(bench.running(), "1.0.0");
    let shown = crate::status::Status::read(bench.folder.path()).expect("a snapshot");
    let app = shown.products.into_iter().next().expect("a product");
    assert_eq!(app.running, "1.0.0".parse().ok());
    let reasons: Vec<&str> =
        app.candidates.iter().flat_map(|one| &one.reasons).map(|one| one.text.as_str()).collect();
    assert!(!reasons.iter().any(|text| text.contains("1.1.0, which runs")), "{reasons:?}");
    assert!(!reasons.is_empty(), "1.1.0 failed here");
}

#[test]
fn a_request_to_go_back_is_answered_before_it_is_gone() {
    let bench = Bench::new();
    let mut agent = bench.start().expect("started");
    let state = bench.folder.path();
    let request = crate::cli::Request::Rollback(app(), Consent::GoBack);
    request.leave(state).expect("left");
    agent.heed_requests().expect("heeded");
    assert_eq!(crate::cli::Request::waiting(state).expect("found"), []);
    let shown = crate::status::Status::read(state).expect("a snapshot").products.remove(0);
    let refused = shown.rollback.expect("an answer").refused;
    assert_eq!(refused.as_deref(), Some("there is no older version to go back to"));
}

#[test]
fn a_rollout_file_that_cannot_be_read_for_a_while_changes_nothing() {
    let bench = Bench::new();
    bench.with(|it| it.repo.payloads.retain(|path, _| !path.starts_with("rollouts")));
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 5);
    assert_eq!(agent.snapshot().products[0].state, lockgate_shared::wire::SlotState::Waiting);
    bench.with(|it| publish(&mut it.repo, vec![], 1));
    bench.turn_until(&mut agent, |it| !it.outcomes.is_empty());
    assert_eq!(bench.heard(), [OutcomeKind::Confirmed]);
}

#[test]
fn a_lost_answer_is_asked_for_with_the_same_bytes() {
    let bench = Bench::new();
    bench.with(|it| it.lose_answers = 4);
    bench.run_until_settled(Cut::Never);
    bench.with(|it| {
        assert!(it.resent > 0, "no letter came twice");
        assert_eq!(it.replays, 0, "a number came with other bytes");
    });
    assert_eq!(bench.heard(), [OutcomeKind::Confirmed]);
}

#[test]
fn why_a_fetch_failed_is_told_to_owner_and_server_until_it_works() {
    let bench = Bench::new();
    bench.with(|it| it.disk_is_full = true);
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 10);
    let told = |notices: &[String]| notices.iter().any(|notice| notice.contains("disk is full"));
    let notices = agent.snapshot().notices;
    assert!(told(&notices), "{notices:?}");
    assert_eq!(notices.len(), 1, "one failure is told once");
    assert!(told(&bench.last_letter().notices));
    bench.with(|it| it.disk_is_full = false);
    bench.turn_until(&mut agent, |it| !it.outcomes.is_empty());
    bench.turns(&mut agent, 3);
    assert!(!told(&agent.snapshot().notices));
}

#[test]
fn a_lost_journal_is_told_from_the_first_letter_on_and_for_a_while() {
    let bench = Bench::new();
    std::fs::write(bench.folder.path().join("journal.db"), vec![0x5a; 8192]).expect("written");
    let mut agent = bench.start().expect("started");
    while bench.with(|it| it.letters.is_empty()) {
        bench.turns(&mut agent, 1);
    }
    let notices = bench.with(|it| open(it.letters.values().next().expect("a letter"))).notices;
    let told = |notices: &[String]| notices.iter().filter(|one| one.contains("begun anew")).count();
    assert_eq!(told(&notices), 1, "{notices:?}");
    // Also by the letters after it, because each takes the place of the one before; not for ever.
    bench.turns(&mut agent, 5);
    assert_eq!(told(&bench.last_letter().notices), 1);
    assert_eq!(told(&agent.snapshot().notices), 1);
    bench.with(|it| it.uptime += 3600);
    bench.turns(&mut agent, 2);
    assert_eq!(told(&bench.last_letter().notices), 0);
}

#[test]
fn power_cut_after_any_write_or_effect_leaves_one_slot_good_and_one_outcome() {
    for healthy in [true, false] {
        // At the least: a dozen entries from the first poll to the outcome, and three effects.
        for (kind, least) in [(Cut::AfterWrite as fn(u32) -> Cut, 12), (Cut::AfterEffect, 3)] {
            let mut at = 0;
            while survives(kind(at), healthy) {
                at += 1;
            }
            assert!(at >= least, "the power was cut only {at} times");
        }
    }
}

/// Why the agent does not go back, as its snapshot tells it.
fn refusal<W: World>(agent: &Agent<W>) -> Option<String> {
    agent.snapshot().products.remove(0).rollback?.refused
}

/// Runs the story with one power cut and holds it to its end. Says whether the cut came at all.
fn survives(cut: Cut, healthy: bool) -> bool {
    let bench = Bench::new();
    bench.with(|it| it.healthy = healthy);
    let was_cut = bench.run_until_settled(cut);
    let (version, kind) = if healthy {
        ("1.1.0", OutcomeKind::Confirmed)
    } else {
        ("1.0.0", OutcomeKind::RolledBack)
    };
    assert_eq!(bench.running(), version, "power cut at {cut:?}");
    assert_eq!(bench.heard(), [kind], "power cut at {cut:?}");
    was_cut
}
