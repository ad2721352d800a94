//! What every backend of the store must do, as one suite that each of them runs in its tests.
//!
//! It panics where a backend does not conform: it is called from tests only.

use lockgate_shared::{id::DeviceId, time::Moment, wire::Format};

use super::{Change, DeviceRow, NewEntry, Store, Table};
use crate::stream::{Entry, EntryKind};

/// Runs the suite. `fresh` makes an empty place for a store, and what it returns opens that place,
/// again and again.
///
/// # Panics
/// Where the backend does not conform.
pub fn all<Open: FnMut() -> Box<dyn Store>>(mut fresh: impl FnMut() -> Open) {
    offsets_rise_without_gaps_and_survive(&mut fresh());
    a_store_that_moves_on_takes_the_newest_entries_along(&mut fresh());
    every_kind_comes_back_as_it_went(&mut fresh());
    reading_keeps_to_its_bounds(&mut fresh());
    a_sweep_replaces_rows_and_moves_the_low_water_mark(&mut fresh());
    only_old_letters_are_taken_away_and_no_offset_is_given_twice(&mut fresh());
    small_tables_are_apart_and_change_together(&mut fresh());
}

fn offsets_rise_without_gaps_and_survive(open: &mut impl FnMut() -> Box<dyn Store>) {
    let mut store = open();
    assert_eq!(store.head().expect("a head"), 0, "an empty store begins at 0");
    assert_eq!(store.append(&[entry(1), entry(2)]).expect("an append"), 0);
    assert_eq!(store.append(&[]).expect("an append of nothing"), 2);
    assert_eq!(store.append(&[entry(3)]).expect("an append"), 2);
    drop(store);
    let mut store = open();
    assert_eq!(store.head().expect("a head"), 3, "offsets go on after a restart");
    let read = store.read(0, 10, usize::MAX).expect("entries");
    let found: Vec<(u64, &[u8])> = read.iter().map(|e| (e.offset, e.bytes.as_slice())).collect();
    assert_eq!(found, [(0, &[1u8; 10][..]), (1, &[2; 10]), (2, &[3; 10])]);
    assert_eq!(store.append(&[entry(4)]).expect("an append"), 3);
}

fn a_store_that_moves_on_takes_the_newest_entries_along(open: &mut impl FnMut() -> Box<dyn Store>) {
    let mut store = open();
    store.append(&[entry(1), entry(2), entry(3), entry(4)]).expect("an append");
    assert_eq!(store.move_on(3, 0).expect("a move"), 5, "it never goes back");
    assert_eq!(store.move_on(2, 1_000).expect("a move"), 1_002);
    drop(store);
    let mut store = open();
    assert_eq!(store.append(&[entry(5)]).expect("an append"), 1_002);
    let read = store.read(0, 10, usize::MAX).expect("entries");
    let found: Vec<(u64, u8)> = read.iter().map(|e| (e.offset, e.bytes[0])).collect();
    assert_eq!(found, [(0, 1), (1, 2), (1_000, 3), (1_001, 4), (1_002, 5)]);
    // Behind the newest there is nothing to take along, and pruning does not walk through the gap.
    let far = 1 << 36;
    assert_eq!(store.move_on(2_000, far).expect("a move"), far);
    assert_eq!(store.append(&[entry(6), entry(7), entry(8)]).expect("an append"), far);
    while store.prune(far + 2, Moment(i64::MAX)).expect("pruned") > 0 {}
    let left = store.read(0, 10, usize::MAX).expect("entries");
    assert_eq!(left.iter().map(|e| e.offset).collect::<Vec<_>>(), [far + 2]);
}

fn every_kind_comes_back_as_it_went(open: &mut impl FnMut() -> Box<dyn Store>) {
    let kinds = [
        EntryKind::Enrolment(Format::Binary),
        EntryKind::Enrolment(Format::Json),
        EntryKind::Letter(Format::Binary),
        EntryKind::Letter(Format::Json),
        EntryKind::Record,
        EntryKind::Act,
        EntryKind::Publish,
        EntryKind::Stop,
        EntryKind::Bar,
        EntryKind::Withdraw,
    ];
    let entries: Vec<NewEntry> = (0..)
        .zip(kinds)
        .map(|(n, kind)| NewEntry { received: Moment(n - 3), kind, bytes: Vec::new() })
        .collect();
    open().append(&entries).expect("an append");
    let read = open().read(0, 100, usize::MAX).expect("entries");
    let expected: Vec<Entry> = (0..)
        .zip(entries)
        .map(|(offset, NewEntry { received, kind, bytes })| Entry { offset, received, kind, bytes })
        .collect();
    assert_eq!(read, expected);
}

fn reading_keeps_to_its_bounds(open: &mut impl FnMut() -> Box<dyn Store>) {
    let mut store = open();
    let entries: Vec<NewEntry> = (0..9).map(entry).collect();
    store.append(&entries).expect("an append");
    let offsets = |from, max, bytes| -> Vec<u64> {
        store.read(from, max, bytes).expect("entries").iter().map(|entry| entry.offset).collect()
    };
    assert_eq!(offsets(0, 2, usize::MAX), [0, 1]);
    assert_eq!(offsets(7, 5, usize::MAX), [7, 8]);
    assert_eq!(offsets(3, 5, 25), [3, 4], "two of ten bytes fit into 25");
    assert_eq!(offsets(3, 5, 1), [3], "one always comes, or a large one would block the stream");
    assert!(offsets(9, 5, usize::MAX).is_empty());
}

fn a_sweep_replaces_rows_and_moves_the_low_water_mark(open: &mut impl FnMut() -> Box<dyn Store>) {
    let mut store = open();
    assert_eq!(store.load(&mut |_| panic!("an empty store has no rows")).expect("a mark"), 0);
    store.sweep(&[row(9, 1), row(2, 2)], 5).expect("a sweep");
    store.sweep(&[row(2, 3), row(4, 4)], 8).expect("a sweep");
    drop(store);
    let mut rows = Vec::new();
    assert_eq!(open().load(&mut |row| rows.push(row)).expect("a mark"), 8);
    assert_eq!(rows, [row(2, 3), row(4, 4), row(9, 1)], "in key order, the newest of each");
    open().sweep(&[], 9).expect("a sweep of no rows moves the mark");
    assert_eq!(open().load(&mut |_| {}).expect("a mark"), 9);
}

fn only_old_letters_are_taken_away_and_no_offset_is_given_twice(
    open: &mut impl FnMut() -> Box<dyn Store>,
) {
    let act = NewEntry { kind: EntryKind::Act, ..entry(2) };
    let letter = NewEntry { kind: EntryKind::Letter(Format::Binary), ..entry(3) };
    let entries = [entry(1), act, letter, entry(4), entry(5), entry(6)];
    let mut store = open();
    store.append(&entries).expect("an append");
    let left = |store: &dyn Store| -> Vec<u64> {
        store.read(0, 100, usize::MAX).expect("entries").iter().map(|entry| entry.offset).collect()
    };
    assert_eq!(store.prune(4, Moment(i64::MIN)).expect("nothing is old"), 0);
    assert_eq!(store.prune(2, Moment(4)).expect("pruned"), 1);
    assert_eq!(left(&*store), [1, 2, 3, 4, 5], "acts stay");
    assert_eq!(store.prune(4, Moment(4)).expect("pruned"), 1, "entry 3 came at 4");
    assert_eq!(store.prune(100, Moment(100)).expect("pruned"), 2);
    assert_eq!(left(&*store), [1, 5], "the newest stays, whoever asks");
    drop(store);
    let mut store = open();
    assert_eq!(store.head().expect("a head"), 6);
    assert_eq!(store.append(&[entry(7)]).expect("an append"), 6);
    assert_eq!(store.read(2, 1, usize::MAX).expect("entries")[0].offset, 5);
}

fn small_tables_are_apart_and_change_together(open: &mut impl FnMut() -> Box<dyn Store>) {
    let put = |table, key: &str, value: Option<&[u8]>| Change {
        table,
        key: key.into(),
        value: value.map(<[u8]>::to_vec),
    };
    let mut store = open();
    store
        .put(&[
            put(Table::Pins, "a", Some(b"1")),
            put(Table::Pins, "b", Some(b"2")),
            put(Table::Tokens, "a", Some(b"")),
            put(Table::Pins, "a", Some(b"3")),
        ])
        .expect("a change");
    store
        .put(&[put(Table::Pins, "b", None), put(Table::Pins, "none", None)])
        .expect("removing what is not there is no error");
    drop(store);
    let store = open();
    let pins: Vec<_> = store.table(Table::Pins).expect("a table").into_iter().collect();
    assert_eq!(pins, [("a".to_owned(), b"3".to_vec())]);
    let tokens: Vec<_> = store.table(Table::Tokens).expect("a table").into_iter().collect();
    assert_eq!(tokens, [("a".to_owned(), Vec::new())]);
    assert!(store.table(Table::Freezes).expect("a table").is_empty());
}

fn entry(byte: u8) -> NewEntry {
    NewEntry { received: Moment(i64::from(byte)), kind: EntryKind::Record, bytes: vec![byte; 10] }
}

fn row(device: u8, byte: u8) -> DeviceRow {
    DeviceRow { device: DeviceId([device; 32]), bytes: vec![byte] }
}
