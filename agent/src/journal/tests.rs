//! What the journal must give back after a restart, a loss and a breakage, and what it lets go.

use lockgate_shared::{
    time::{Moment, Seconds},
    wire::OutcomeKind,
};

use super::*;
use crate::slots::Slot;

#[test]
fn a_step_is_found_again_as_it_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut journal, found) = Journal::open(folder.path()).expect("open");
    assert_eq!(found, Found::Fresh);
    let mut record = Record { state: State::Confirmed { version: version() }, ..empty() };
    let effects = [Effect::Activate { slot: Slot::B }, Effect::Restart];
    let numbered = journal.commit(&app(), &mut record, &effects).expect("written");
    journal.done(numbered[0].0).expect("noted");
    drop(journal);
    let (journal, found) = Journal::open(folder.path()).expect("open");
    assert_eq!(found, Found::Sound);
    assert_eq!(journal.record(&app()).expect("read"), record);
    assert_eq!(journal.undone(&app()).expect("read"), [Effect::Restart]);
}

#[test]
fn an_entry_of_a_newer_agent_counts_as_absent_and_ends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = Journal::open(folder.path()).expect("open");
    let newer = serde_json::json!({"state": {"state": "hovering"}});
    journal.save("product/app", &newer).expect("written");
    assert_eq!(journal.record(&app()).expect("read"), empty());
}

#[test]
fn outcomes_are_chained_once_and_wait_until_their_letter_is_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = Journal::open(folder.path()).expect("open");
    for _ in 0..2 {
        let effects = [
            Effect::RecordOutcome { outcome: outcome() },
            Effect::RememberFailed { version: version() },
        ];
        let mut record = journal.record(&app()).expect("read");
        let to_do = journal.commit(&app(), &mut record, &effects).expect("written");
        assert!(to_do.is_empty(), "both are done with the entry: {to_do:?}");
        assert_eq!(record.failed, [version()]);
    }
    let chain = journal.outcomes().expect("read");
    let by_hand = Outcomes::default().with(&outcome()).expect("small");
    assert_eq!(chain, by_hand.with(&outcome()).expect("small"));
    let carries = Carries { outcomes: vec![1], ..Carries::default() };
    let letter = Spooled { sequence: 1, bytes: vec![1], carries };
    journal.spool(&letter).expect("written");
    journal.settle(&letter, &[]).expect("written");
    let waiting = journal.waiting_outcomes(16).expect("read");
    assert_eq!(waiting.iter().map(|record| record.number).collect::<Vec<_>>(), [2]);
    assert_eq!(journal.waiting().expect("read"), (0, 1));
}

#[test]
fn a_letter_is_sent_again_with_the_same_bytes_until_it_is_settled() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = Journal::open(folder.path()).expect("open");
    let sequence = journal.next_sequence().expect("a number");
    let letter = Spooled { sequence, bytes: b"sealed".to_vec(), carries: Carries::default() };
    journal.spool(&letter).expect("written");
    drop(journal);
    let (mut journal, _) = Journal::open(folder.path()).expect("open");
    assert_eq!(journal.waiting_letter().expect("read"), Some(letter.clone()));
    assert!(journal.next_sequence().expect("a number") > sequence);
    journal.settle(&letter, &[("key".into(), b"7".to_vec())]).expect("written");
    assert_eq!(journal.waiting_letter().expect("read"), None);
    assert_eq!(journal.load::<u64>("key").expect("read"), Some(7));
}

#[test]
fn a_broken_journal_is_moved_aside_and_no_number_or_outcome_count_comes_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = Journal::open(folder.path()).expect("open");
    let mut used = 0;
    for _ in 0..250 {
        used = journal.next_sequence().expect("a number");
        let letter = Spooled { sequence: used, bytes: vec![0], carries: Carries::default() };
        journal.spool(&letter).expect("written");
        journal.settle(&letter, &[]).expect("written");
    }
    let effects = [Effect::RecordOutcome { outcome: outcome() }];
    journal.commit(&app(), &mut empty(), &effects).expect("written");
    drop(journal);
    fs::write(folder.path().join(FILE), vec![0x5a; 8192]).expect("broken");
    let (mut journal, found) = Journal::open(folder.path()).expect("opened anew");
    assert!(matches!(found, Found::Broken(aside) if aside.exists()));
    assert!(journal.next_sequence().expect("a number") >= used + JUMP);
    assert_eq!(journal.outcomes().expect("read").count, 1);
    assert_eq!(journal.record(&app()).expect("read"), empty());
}

#[test]
fn a_journal_that_was_deleted_does_not_bring_old_numbers_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = Journal::open(folder.path()).expect("open");
    let used = journal.next_sequence().expect("a number");
    drop(journal);
    fs::remove_file(folder.path().join(FILE)).expect("deleted");
    let (mut journal, _) = Journal::open(folder.path()).expect("opened anew");
    assert!(journal.next_sequence().expect("a number") >= used + JUMP);
}

#[test]
fn manifests_that_nobody_names_any_more_are_let_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = Journal::open(folder.path()).expect("open");
    let (a, b, c) = (Digest([1; 32]), Digest([2; 32]), Digest([3; 32]));
    journal.keep_manifest(&a, b"a", &[]).expect("written");
    journal.keep_manifest(&b, b"b", &[a]).expect("written");
    journal.keep_manifest(&c, b"c", &[b]).expect("written");
    assert_eq!(journal.manifest(&a).expect("read"), None);
    assert_eq!(journal.manifest(&b).expect("read").as_deref(), Some(b"b".as_slice()));
    assert_eq!(journal.manifest(&c).expect("read").as_deref(), Some(b"c".as_slice()));
}

fn empty() -> Record {
    Record::default()
}

fn app() -> ProductId {
    "app".parse().expect("a name")
}

fn version() -> Version {
    "1.2.0".parse().expect("a version")
}

fn outcome() -> Outcome {
    Outcome {
        rollout: RolloutId([4; 32]),
        product: app(),
        version: version(),
        kind: OutcomeKind::RolledBack,
        at: Moment(1_795_000_000),
        took: Seconds(60),
        detail: "probe `web` failed".into(),
    }
}
