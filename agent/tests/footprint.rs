//! A process of one thread gives its code back and lives on. Not under the usual harness, which would
//! be a second thread.

use std::fs;

use lockgate_agent::footprint;

fn main() {
    // As much of the program's own constants and code as there is, once more afterwards.
    let before = work();
    let resident = code_kib();
    footprint::rest();
    let rested = code_kib();
    assert!(rested < resident / 2, "of {resident} KiB of code {rested} stayed in memory");
    for _ in 0..3 {
        assert_eq!(work(), before, "the process reads something else than before");
        footprint::rest();
    }
    let second = std::thread::spawn(|| {
        work();
        let resident = code_kib();
        footprint::rest();
        assert!(code_kib() >= resident, "code was given back beside a second thread");
    });
    second.join().expect("the second thread lives on as well");
    println!("a process of one thread gives its code back and lives on: ok");
}

/// Something of every kind: the heap, formatting, a hash, an error's text, the program's own bytes.
fn work() -> String {
    let file = fs::read("/proc/self/exe").expect("read");
    let digest = lockgate_shared::id::Digest::of(&file);
    let error = "x".parse::<u64>().expect_err("no number");
    let numbers: Vec<String> = (0..1000).map(|number| format!("{number:>5}")).collect();
    format!("{digest} {error} {}", numbers.concat())
}

/// How much of mapped files is in memory, counted page by page.
fn code_kib() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("read");
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("there");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    };
    field("Rss:") - field("Anonymous:")
}
