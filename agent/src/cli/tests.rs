//! The command line in words and in JSON, and what the commands say of a device.

use std::{cell::RefCell, fs, path::Path};

use lockgate_shared::wire::SlotState;

use super::*;
use crate::status::{ProductStatus, ReasonStatus, RecallStatus, RollbackStatus, Status};

#[test]
fn every_command_takes_the_global_options_behind_it() {
    for line in [
        "lockgate-agent check --json --config /x --log debug",
        "lockgate-agent --json explain app",
        "lockgate-agent --config=/x explain",
        "lockgate-agent enroll --token-file -",
        "lockgate-agent --token x enroll",
        "lockgate-agent rollback -- app",
    ] {
        assert!(matches!(asked(line), Ok(Asked::Act(_))), "{line}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_and_told_what_would_be_right() {
    for (line, what) in [
        ("lockgate-agent", "no command is given\nhint: `lockgate-agent --help`"),
        ("lockgate-agent stauts", "`stauts` is not a command\nhint: did you mean `status`?"),
        ("lockgate-agent install", "`lockgate-agent --help` lists them"),
        (
            "lockgate-agent --jsno run",
            "`--jsno` is not an option here\nhint: did you mean `--json`?",
        ),
        ("lockgate-agent -x run", "`-x` is not an option here"),
        ("lockgate-agent run --token x", "`--token` is not an option here"),
        ("lockgate-agent --token x run", "`--token` is not an option here"),
        ("lockgate-agent run --config", "`--config` needs a value"),
        ("lockgate-agent run --log loud", "`--log`: `loud` is not a level\nhint: use"),
        ("lockgate-agent --config /a run --config /b", "`--config` is given twice"),
        ("lockgate-agent run --json=yes", "--json"),
        ("lockgate-agent enroll", "needs one of `--token` and `--token-file`\nhint:"),
        ("lockgate-agent enroll --token a --token-file b", "needs one of"),
        ("lockgate-agent rollback", "needs a product\nhint: `lockgate-agent status`"),
        ("lockgate-agent rollback ../x", "`../x` is not a name\nhint:"),
        ("lockgate-agent rollback app more", "`more` is one word too many"),
        ("lockgate-agent status app", "`app` is one word too many"),
    ] {
        let error = CliError::Args(asked(line).expect_err(line));
        assert_eq!(error.exit(), 2, "{line}");
        assert!(error.to_string().contains(what), "{line}: {error}");
    }
}

#[test]
fn help_names_every_command_option_and_exit_code_wherever_it_is_asked_for() {
    let shown = |line: &str| match asked(line) {
        Ok(Asked::Show(text)) => text,
        other => panic!("{line}: {other:?}"),
    };
    let all = shown("lockgate-agent --help");
    for word in
        ["enroll", "check-config", "--config PATH", "--log LEVEL", "8  `doctor`", "[default: "]
    {
        assert!(all.contains(word), "{word}");
    }
    assert!(all.contains(config::DEFAULT_PATH));
    assert_eq!(shown("lockgate-agent help"), all);
    let enroll = shown("lockgate-agent enroll -h");
    assert!(enroll.contains("--token-file FILE") && !enroll.contains("Commands:"), "{enroll}");
    assert_eq!(shown("lockgate-agent help enroll"), enroll);
    for line in ["lockgate-agent run --help", "lockgate-agent help status"] {
        let help = shown(line);
        assert!(help.ends_with("exit codes: `lockgate-agent --help` lists them\n"), "{help}");
    }
    assert!(shown("lockgate-agent -V").starts_with("lockgate-agent "));
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
fn before_the_enrolment_makes_the_state_folder_everybody_is_told_to_enrol() {
    let folder = configured();
    fs::remove_dir(folder.path().join("state")).expect("it was empty");
    for command in ["run", "check", "status"] {
        let error = done(folder.path(), &[command]).expect_err("it has no key");
        assert_eq!(error.exit(), 4, "{command}: {error}");
        assert!(error.to_string().contains("lockgate-agent enroll"), "{command}: {error}");
    }
    let report = done(folder.path(), &["doctor"]).expect("a report");
    assert!(report.text.contains("hint: `lockgate-agent enroll` makes it"), "{}", report.text);
    assert!(!folder.path().join("state").exists(), "only the enrolment makes it");
}

#[test]
fn a_stop_is_explained_where_nothing_is_offered_that_it_could_keep_away() {
    let folder = configured();
    let stops = vec!["pause 1, everything: a drill (olga)".to_owned()];
    let status = Status { stops: stops.clone(), ..snapshot() };
    status.write(&folder.path().join("state")).expect("written");
    let report = done(folder.path(), &["explain"]).expect("a snapshot");
    assert!(
        report.text.ends_with("stopped: pause 1, everything: a drill (olga)\n"),
        "{}",
        report.text
    );
    assert_eq!(report.json["stops"], json!(stops));
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
fn a_refused_rollback_ends_with_its_reason_and_status_shows_it_too() {
    let folder = configured();
    let state = folder.path().join("state");
    let app: ProductId = "app".parse().expect("a name");
    let mut status = snapshot();
    status.write(&state).expect("written");
    let report = rollback::answer(&state, &app).expect("it goes back");
    assert_eq!(report.text, "app: 1.0.0 runs; gave up on 1.1.0: its owner asked\n");
    let why = "1.0.0, which ran before, is recalled";
    status.products[0].rollback =
        Some(RollbackStatus { answered: status.taken, refused: Some(why.into()) });
    status.write(&state).expect("written");
    let error = rollback::answer(&state, &app).expect_err("it does not");
    assert_eq!(error.exit(), 1);
    let told = format!("`app` does not go back: {why}");
    assert!(error.to_string().starts_with(&told), "{error}");
    let shown = done(folder.path(), &["status"]).expect("a snapshot").text;
    assert!(shown.contains(&format!("refused      app does not go back: {why}")), "{shown}");
}

#[test]
fn a_recall_stands_in_the_status_of_a_device_that_waits_for_its_turn() {
    let folder = configured();
    let mut status = snapshot();
    let app = &mut status.products[0];
    app.state = SlotState::Waiting;
    app.state_text = "waits: its stage opens no earlier than tomorrow".into();
    app.running = Some("1.1.0".parse().expect("a version"));
    let turn = ReasonStatus {
        code: 604,
        question: "stage".into(),
        text: "its stage opens no earlier than tomorrow".into(),
        until: None,
    };
    app.recall = Some(RecallStatus {
        to: "1.0.0".parse().expect("a version"),
        why: "it loses data".into(),
        reasons: vec![turn],
    });
    status.write(&folder.path().join("state")).expect("written");
    let told = "1.1.0 is recalled, and it waits to go back to 1.0.0: it loses data\n";
    let shown = done(folder.path(), &["status"]).expect("a snapshot").text;
    assert!(shown.contains(&format!("recalled     app {told}")), "{shown}");
    let explained = done(folder.path(), &["explain"]).expect("a snapshot").text;
    assert!(explained.contains(told), "{explained}");
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

fn asked(line: &str) -> Result<Asked, ArgsError> {
    args::read(line.split(' ').map(OsString::from))
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
    let Ok(Asked::Act(args)) = args::read(line.into_iter().map(OsString::from)) else {
        panic!("a command line of this test")
    };
    let turns = Counted::default();
    let result = dispatch(&args, &turns);
    assert_eq!(turns.0.into_inner(), [""; 0], "nothing was ready for a turn");
    result
}

/// A device that went back to 1.0.0.
fn snapshot() -> Status {
    let app = ProductStatus {
        product: "app".parse().expect("a name"),
        channel: None,
        pins: vec![],
        state: SlotState::Failed,
        state_text: "gave up on 1.1.0: its owner asked".into(),
        slot: Some("a".into()),
        running: Some("1.0.0".parse().expect("a version")),
        running_manifest: None,
        other: None,
        recall: None,
        rollback: None,
        failed: vec![],
        trial: None,
        candidates: vec![],
    };
    Status { products: vec![app], notices: vec![], ..crate::status::tests::snapshot() }
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
