use std::{cell::RefCell, fs, path::Path};

use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn every_command_takes_the_global_options_behind_it() {
    for line in [
        "lockgate-agent check --json --config /x --log debug",
        "lockgate-agent --json explain app",
        "lockgate-agent enroll --token-file -",
    ] {
        assert!(Args::try_parse_from(line.split(' ')).is_ok(), "{line}");
    }
    for line in ["lockgate-agent", "lockgate-agent enroll", "lockgate-agent rollback ../x"] {
        assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}

#[test]
fn a_command_without_a_configuration_says_where_it_looked() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = done(folder.path(), &["status"]).expect_err("there is none");
    assert_eq!(error.exit(), 3);
    assert!(error.to_string().contains("agent.toml"), "{error}");
}

#[test]
fn a_device_that_is_not_enrolled_is_told_how_to_enrol_and_takes_no_turn() {
    let folder = configured();
    let error = done(folder.path(), &["check"]).expect_err("it has no key");
    assert_eq!(error.exit(), 4);
    assert!(error.to_string().contains("lockgate-agent enroll"), "{error}");
}

#[test]
fn a_second_agent_on_the_same_state_is_refused() {
    let folder = configured();
    let _lock = Lock::take(&folder.path().join("state")).expect("nobody has it");
    let error = done(folder.path(), &["run"]).expect_err("it is taken");
    assert_eq!(error.exit(), 7);
}

#[test]
fn going_back_is_asked_for_products_of_this_device_only() {
    let folder = configured();
    let error = done(folder.path(), &["rollback", "other"]).expect_err("no such product");
    assert!(matches!(error, CliError::Product(_)), "{error}");
    let state = folder.path().join("state");
    assert_eq!(Request::waiting(&state).expect("found"), []);
    // It is not enrolled, so nothing carries the request out; it waits.
    done(folder.path(), &["rollback", "app"]).expect_err("not enrolled");
    assert_eq!(Request::waiting(&state).expect("found").len(), 1);
}

#[test]
fn the_doctor_names_every_fault_at_once() {
    let folder = configured();
    let report = done(folder.path(), &["doctor"]).expect("a report");
    assert!(matches!(report.fault, Some(CliError::Unwell)));
    let faults: Vec<_> = report.json["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter(|check| check["finding"] == "fault")
        .filter_map(|check| check["name"].as_str())
        .collect();
    assert_eq!(faults, ["key", "root", "server"]);
}

/// Counts what it was asked to do.
#[derive(Default)]
struct Counted(RefCell<Vec<&'static str>>);

impl Loop for Counted {
    fn run(&self, _: Ready) -> Result<(), LoopError> {
        self.0.borrow_mut().push("run");
        Ok(())
    }

    fn turn(&self, _: Ready) -> Result<(), LoopError> {
        self.0.borrow_mut().push("turn");
        Ok(())
    }
}

fn done(folder: &Path, words: &[&str]) -> Result<Report, CliError> {
    let config = folder.join("agent.toml");
    let mut line = vec!["lockgate-agent".to_owned()];
    line.extend(words.iter().map(|&word| word.to_owned()));
    line.extend(["--config".to_owned(), config.display().to_string()]);
    let args = Args::try_parse_from(line).expect("a command line of this test");
    let turns = Counted::default();
    let result = dispatch(&args, &turns);
    assert_eq!(turns.0.into_inner(), [""; 0], "nothing was ready for a turn");
    result
}

fn configured() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().display();
    fs::create_dir(folder.path().join("state")).expect("a state folder");
    let text = format!(
        "server = \"https://127.0.0.1:1\"\nstate = \"{at}/state\"\nanchor = \"{at}/root.json\"\nca = \"{at}/ca.pem\"\n\n[[product]]\nname = \"app\"\nslots = \"directory\"\nroot = \"{at}/app\"\n"
    );
    fs::write(folder.path().join("agent.toml"), text).expect("a configuration");
    folder
}
