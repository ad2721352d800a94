//! What programs read: every command of the agent answers in JSON, and its failures have the shape that
//! all of Lockgate's programs share.

use std::{
    fs,
    process::{Command, Output},
};

use lockgate_shared::failure::Failure;

/// What is typed on a device that is not enrolled, and the exit code with which it ends. Every command
/// that `--help` lists occurs.
const EVERY_COMMAND: &[(&str, i32)] = &[
    ("--config @agent.toml check-config", 0),
    ("--config @nowhere.toml check-config", 3),
    ("--config @agent.toml run", 4),
    ("--config @agent.toml check", 4),
    ("--config @agent.toml status", 4),
    ("--config @agent.toml explain", 4),
    ("--config @agent.toml rollback other", 1),
    ("--config @agent.toml rollback app", 4),
    ("--config @agent.toml enroll --token nonsense", 1),
    ("--config @agent.toml enroll --token-file @nowhere", 1),
    ("--config @agent.toml enroll", 2),
    ("--config @agent.toml explain --produkt app", 2),
];

#[test]
fn every_command_answers_programs_in_json_and_failures_have_one_shape() {
    let folder = configured();
    for (line, code) in EVERY_COMMAND {
        let output = run(folder.path(), line);
        assert_eq!(output.status.code(), Some(*code), "{line}: {}", text(&output));
        let value: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{line}: {error}: {}", text(&output)));
        if *code != 0 {
            let failure: Failure = serde_json::from_value(value).expect("the shape");
            assert_eq!((failure.ok, i32::from(failure.exit)), (false, *code), "{line}");
            assert!(!failure.error.is_empty(), "{line}");
        }
    }
    // The doctor's answer is its list, well or not.
    let output = run(folder.path(), "--config @agent.toml doctor");
    assert_eq!(output.status.code(), Some(8), "{}", text(&output));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["ok"], false);
    let help = Command::new(env!("CARGO_BIN_EXE_lockgate-agent")).arg("--help").output();
    let help = String::from_utf8(help.expect("it starts").stdout).expect("text");
    let (_, below) = help.split_once("\nCommands:\n").expect("a list of commands");
    for line in below.lines().take_while(|line| !line.is_empty()) {
        let Some(name) = line.split_whitespace().next() else { continue };
        let tried = EVERY_COMMAND.iter().any(|(line, _)| line.contains(name));
        assert!(tried || name == "doctor" || name == "help", "`{name}` is not tried");
    }
}

fn run(folder: &std::path::Path, line: &str) -> Output {
    let line = line.replace('@', &format!("{}/", folder.display()));
    Command::new(env!("CARGO_BIN_EXE_lockgate-agent"))
        .args(line.split(' '))
        .args(["--json", "--log", "error"])
        .output()
        .expect("it starts")
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

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}
