//! The handbook's table against the tests that there are.

use std::{collections::BTreeSet, fs, path::Path};

/// Entries of the list of attacks.
const ENTRIES: u32 = 45;

#[test]
fn the_handbook_names_every_entry_and_every_test_that_it_names_exists() {
    let table = section("Attacks, defences and tests");
    let tests = tests();
    let mut numbers = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let Ok(number) = cells[0].parse::<u32>() else { continue };
        numbers.push(number);
        let named: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "entry {number} names no test");
        for test in named {
            assert!(tests.contains(test), "entry {number} names `{test}`, which is no test");
        }
        for place in cells[2].split('`').skip(1).step_by(2).filter(|word| word.contains('/')) {
            let path = place.split(',').next().unwrap_or_default();
            assert!(
                root().join(path).exists(),
                "entry {number} names `{path}`, which is not there"
            );
        }
    }
    assert_eq!(numbers, (1..=ENTRIES).collect::<Vec<_>>());
}

/// A section of the handbook, by its heading.
pub(crate) fn section(heading: &str) -> String {
    let text = fs::read_to_string(root().join("test-fleet/HANDBOOK.md")).expect("the handbook");
    let (_, after) = text.split_once(&format!("## {heading}\n")).expect("the heading");
    after.split("\n## ").next().unwrap_or_default().to_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Every test of this crate's process tests, as `binary::name` or `name` for those of this binary.
fn tests() -> BTreeSet<String> {
    let folder = root().join("test-fleet/tests");
    let mut found = BTreeSet::new();
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).expect("tests").flatten() {
        files.push((entry.path(), entry.path().file_stem().map(|stem| stem.display().to_string())));
    }
    for entry in fs::read_dir(folder.join("attacks")).expect("tests").flatten() {
        files.push((entry.path(), None));
    }
    for (path, binary) in files {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.trim() != "#[test]" {
                continue;
            }
            let name = lines.find_map(|line| line.trim().strip_prefix("fn "));
            let name = name.and_then(|name| name.split('(').next()).expect("a test's name");
            found.insert(match &binary {
                Some(binary) => format!("{binary}::{name}"),
                None => name.to_owned(),
            });
        }
    }
    found
}
