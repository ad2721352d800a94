//! Replays every committed corpus, and mutations of each entry for a bounded time, through the fuzz
//! targets. A crash that fuzzing once found stays in its corpus and is tried again here. What a target
//! holds in memory is counted, and must stay below its named limit.

use std::{fs, path::PathBuf, sync::Mutex, time::Duration};

use lockgate_agent::clock::Stopwatch;
use lockgate_test_fleet::fuzz::{INPUT_BYTES, TARGETS, Target, anchor};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Held while memory is counted: tests of one program run side by side.
static COUNTING: Mutex<()> = Mutex::new(());

/// How long the mutations of one target are tried.
const SECONDS_PER_TARGET: Duration = Duration::from_secs(1);
/// Mutations of each entry that are tried however slow the machine is.
const MUTATIONS_AT_LEAST: u64 = 100;

#[test]
fn every_target_survives_its_corpus_and_mutations_of_it_within_its_memory() {
    let _counting = COUNTING.lock().expect("no holder panicked");
    for target in TARGETS {
        let entries = corpus(target.name);
        assert!(!entries.is_empty(), "the corpus of `{}` is empty", target.name);
        for (file, bytes) in &entries {
            try_it(target, bytes, file);
        }
        let watch = Stopwatch::start();
        let mut seed = 0;
        while seed < MUTATIONS_AT_LEAST || watch.elapsed() < SECONDS_PER_TARGET {
            for (file, bytes) in &entries {
                let mut mutated = mutate(bytes, seed);
                mutated.truncate(INPUT_BYTES);
                try_it(target, &mutated, &format!("{file} with mutation {seed}"));
            }
            seed += 1;
        }
        println!("{}: {seed} mutations of {} entries", target.name, entries.len());
    }
}

#[test]
fn a_target_that_takes_more_than_its_memory_is_noticed() {
    let _counting = COUNTING.lock().expect("no holder panicked");
    let glutton = |bytes: &[u8]| drop(vec![0_u8; 2 * bytes.len()]);
    let target = Target { name: "glutton", run: glutton, memory: 64 * 1024 };
    try_it(&target, &[0; 1024], "little");
    let noticed = std::panic::catch_unwind(|| try_it(&target, &[0; 40 * 1024], "much"));
    assert!(noticed.is_err());
}

#[test]
fn every_target_has_its_fuzzer() {
    let _counting = COUNTING.lock().expect("no holder panicked");
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    for Target { name, .. } in TARGETS {
        let path = folder.join(format!("{name}.rs"));
        let text = fs::read_to_string(&path).unwrap_or_default();
        assert!(text.contains(&format!("fuzz::{name}")), "{} does not call it", path.display());
    }
}

#[test]
fn the_corpus_of_metadata_begins_with_a_root_that_verifies() {
    let _counting = COUNTING.lock().expect("no holder panicked");
    let entries = corpus("metadata_raw");
    assert!(entries.iter().any(|(_, bytes)| *bytes == anchor()), "`root` is not the anchor");
}

/// Runs a target on `bytes`; panics with `what` if it panics or takes more memory than it may.
fn try_it(target: &Target, bytes: &[u8], what: &str) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = std::panic::catch_unwind(|| (target.run)(bytes));
    let held = MEMORY.peak_usage().saturating_sub(before);
    assert!(outcome.is_ok(), "{}: {what} panicked", target.name);
    let (name, memory) = (target.name, target.memory);
    assert!(held <= memory, "{name}: {what} took {held} bytes where {memory} are allowed");
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut entries: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let path = entry.expect("an entry of the corpus").path();
            (path.display().to_string(), fs::read(&path).expect("an entry of the corpus"))
        })
        .collect();
    entries.sort();
    entries
}

/// Flips, cuts, repeats and overwrites, all from the seed.
fn mutate(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xa5a5;
    let mut next = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound.max(1) as u64) as usize
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..=next(4) {
        let at = next(bytes.len());
        match next(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << next(8),
            1 => bytes.truncate(at),
            2 if at < bytes.len() => bytes[at] = [0, 0xff, 0x7f, 0x80][next(4)],
            3 => {
                let tail = bytes.split_off(at);
                bytes.extend(std::iter::repeat_n(next(256) as u8, next(9)));
                bytes.extend(tail);
            }
            _ => {
                let piece: Vec<u8> = bytes.iter().skip(at).take(next(17)).copied().collect();
                bytes.extend(piece);
            }
        }
    }
    bytes
}
