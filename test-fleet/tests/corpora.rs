//! Replays every committed corpus, and a bounded number of mutations of each entry, through the fuzz
//! targets. A crash that fuzzing once found stays in its corpus and is tried again here.

use std::{fs, path::PathBuf};

use lockgate_test_fleet::fuzz::TARGETS;

/// Mutations of each entry: enough to walk every length and tag of a small message, in seconds.
const MUTATIONS: u64 = 3_000;

#[test]
fn every_target_survives_its_corpus_and_mutations_of_it() {
    for (name, target) in TARGETS {
        let entries = corpus(name);
        assert!(!entries.is_empty(), "the corpus of `{name}` is empty");
        for (file, bytes) in &entries {
            target(bytes);
            for seed in 0..MUTATIONS {
                let mutated = mutate(bytes, seed);
                let outcome = std::panic::catch_unwind(|| target(&mutated));
                assert!(outcome.is_ok(), "{name}: {file} with mutation {seed} panicked");
            }
        }
    }
}

#[test]
fn every_target_has_its_fuzzer() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    for (name, _) in TARGETS {
        let path = folder.join(format!("{name}.rs"));
        let text = fs::read_to_string(&path).unwrap_or_default();
        assert!(text.contains(&format!("fuzz::{name}")), "{} does not call it", path.display());
    }
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
