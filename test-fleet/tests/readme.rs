//! Runs the README: every command of its walk-through, in order and in one shell, against the shipped
//! programs, and holds every reply against what the README shows. What else it states about files is
//! held against these.
//!
//! In a ```` ```console ```` block a line `$ …` begins a command, lines `> …` continue it, and what
//! follows is its reply, of both streams. A ```` ```toml ```` block whose first line is `# file: NAME` is
//! written to that file before anything runs. The folder `/tmp/lockgate-try` and the port 8443 of the
//! README are another folder and a free port here, and are named as there again in the replies.
//!
//! What differs from run to run is not compared ([`plain`]): hexadecimal strings of eight digits and
//! more, RFC 3339 times, numbers beside the few words of [`COUNTED`], and how many blanks align a
//! column. Everything else must be the same, letter for letter.
//!
//! `LOCKGATE_README=write` puts the true replies into the README instead, for a person to read.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use lockgate_agent::clock::Stopwatch;
use lockgate_server::config::Config;
use lockgate_test_fleet::process::Programs;
use rustix::process::{Pid, Signal, kill_process_group};

/// The folder of the README's walk.
const FOLDER: &str = "/tmp/lockgate-try";
/// Its server's port.
const PORT: &str = "8443";
/// The walk takes some twenty seconds on a slow machine.
const WALK: Duration = Duration::from_secs(120);
/// Before the number of each command in what the shell writes; no program writes it.
const MARK: char = '\u{1}';

/// What stands before and after a number that differs from run to run.
const COUNTED: [(&str, &str); 8] = [
    ("", " s ago"),
    ("(in ", " s)"),
    ("", " s behind the server's"),
    ("process ", ""),
    ("entry ", ""),
    ("true: ", " entries"),
    ("", " MiB are free"),
    ("place is ", " %"),
];

#[test]
fn every_command_of_the_walk_replies_as_the_readme_says() {
    let readme = read(&root("README.md"));
    let commands = commands(&readme);
    assert!(commands.len() > 25, "only {} commands were found", commands.len());
    let walk = Walk::begin(&readme, &commands);
    let replies = walk.replies(commands.len());
    if std::env::var("LOCKGATE_README").is_ok_and(|how| how == "write") {
        fs::write(root("README.md"), with_replies(&readme, &commands, &replies))
            .expect("the README can be written");
        return;
    }
    let mut wrong = String::new();
    for (command, reply) in commands.iter().zip(&replies) {
        if plain(&command.reply) != plain(reply) {
            let _ = writeln!(
                wrong,
                "$ {}\n--- the README\n{}\n--- truly\n{reply}\n",
                command.text, command.reply
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}\nhint: LOCKGATE_README=write puts these replies into it");
}

#[test]
fn the_sample_configuration_of_the_server_can_be_read() {
    let folder = root("installers/linux");
    let config = Config::parse(&read(&folder.join("server.toml")), &folder)
        .unwrap_or_else(|error| panic!("{error}"));
    config.api().expect("it has a letter box");
    config.tls().expect("it has a certificate");
    config.gatekeeper().expect("it has a gatekeeper");
}

#[test]
fn every_sample_configuration_is_read_by_a_test() {
    let names: Vec<String> = fs::read_dir(root("installers/linux"))
        .expect("the samples")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    for name in &names {
        match name.as_str() {
            "agent.toml" => {
                let settings = lockgate_agent::config::load(&root("installers/linux/agent.toml"));
                settings.unwrap_or_else(|error| panic!("{error}"));
            }
            // By the test above.
            "server.toml" => {}
            other => panic!("nothing reads `{other}`"),
        }
    }
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn every_shell_gets_completions_that_name_the_commands() {
    let programs = Programs::find().expect("the programs are built");
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(&programs.lockgate)
            .args(["completions", shell])
            .output()
            .expect("the tool runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("rollout"), "{shell}: {text}");
    }
}

#[test]
fn the_readme_and_the_help_agree_on_every_exit_code() {
    let programs = Programs::find().expect("the programs are built");
    let readme = read(&root("README.md"));
    for (column, program) in [programs.lockgate, programs.server, programs.agent].iter().enumerate()
    {
        let output = Command::new(program).arg("--help").output().expect("it starts");
        let help = String::from_utf8(output.stdout).expect("text");
        let (_, codes) = help.split_once("exit codes:\n").expect("they stand in the help");
        for line in codes.lines().filter(|line| !line.trim().is_empty()) {
            let (code, meaning) = line.trim().split_once("  ").expect("a code and its meaning");
            let row = readme.lines().find(|row| row.starts_with(&format!("| {code} | ")));
            let cell = row.and_then(|row| row.split('|').nth(2 + column));
            assert_eq!(cell.map(str::trim), Some(meaning), "{}", program.display());
        }
    }
}

#[test]
fn every_file_that_the_readme_links_to_is_there() {
    let readme = read(&root("README.md"));
    let links: Vec<&str> =
        readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 10, "{links:?}");
    for link in links {
        assert!(root(link).exists(), "`{link}` is not there");
    }
}

#[test]
fn what_differs_from_run_to_run_is_put_aside_and_nothing_else() {
    let first = "stop 1 of app since 2026-11-21T13:27:32Z: entry 15, 2 s ago (7d4dae9eed52)";
    let second = "stop 1 of app since 2026-11-22T03:07:32Z: entry 9, 14 s ago (0d4dae9eed5f)";
    assert_eq!(plain(first), plain(second));
    assert_ne!(plain(first), plain(&first.replace("stop 1", "stop 2")));
    assert_ne!(plain(first), plain(&first.replace("of app", "of tools")));
}

/// One command of the README.
struct Shown {
    /// What is typed.
    text: String,
    /// What the README says comes back.
    reply: String,
    /// Its reply's lines in the README: the first, and the one after the last.
    lines: (usize, usize),
}

/// The commands of all `console` blocks of the walk, in order.
fn commands(readme: &str) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let (mut walk, mut inside) = (false, false);
    for (number, line) in readme.lines().enumerate() {
        if line.starts_with("## ") {
            walk = line == "## A walk through";
        } else if walk && line == "```console" {
            inside = true;
        } else if line == "```" {
            inside = false;
        } else if inside && let Some(text) = line.strip_prefix("$ ") {
            let lines = (number + 1, number + 1);
            found.push(Shown { text: text.to_owned(), reply: String::new(), lines });
        } else if inside {
            let command = found.last_mut().expect("a block begins with a command");
            match line.strip_prefix("> ") {
                Some(more) if command.text.ends_with('\\') => {
                    let _ = write!(command.text, "\n{more}");
                    command.lines = (number + 1, number + 1);
                }
                Some(_) | None => {
                    let _ = writeln!(command.reply, "{line}");
                    command.lines.1 = number + 1;
                }
            }
        }
    }
    found
}

/// The files that the README shows whole.
fn files(readme: &str) -> Vec<(String, String)> {
    readme
        .split("```toml\n# file: ")
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next()?.split_once('\n'))
        .map(|(name, text)| (name.to_owned(), format!("{text}\n")))
        .collect()
}

/// The README with true replies in the place of those that it has.
fn with_replies(readme: &str, commands: &[Shown], replies: &[String]) -> String {
    let mut lines: Vec<String> = readme.lines().map(str::to_owned).collect();
    for (command, reply) in commands.iter().zip(replies).rev() {
        let (from, to) = command.lines;
        lines.splice(from..to, reply.lines().map(str::to_owned));
    }
    lines.join("\n") + "\n"
}

/// A shell on its way through the README; dropped, it is killed with everything that it started.
struct Walk {
    folder: tempfile::TempDir,
    port: String,
    shell: Child,
}

impl Walk {
    fn begin(readme: &str, commands: &[Shown]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let here = |text: &str| {
            text.replace(FOLDER, &folder.path().display().to_string())
                .replace(&format!("127.0.0.1:{PORT}"), &format!("127.0.0.1:{port}"))
        };
        for (name, text) in files(readme) {
            fs::write(folder.path().join(name), here(&text)).expect("a file of the README");
        }
        let mut script = String::new();
        for (number, command) in commands.iter().enumerate() {
            let _ = writeln!(script, "printf '\\001{number}\\n'\n{}", here(&command.text));
        }
        let _ = writeln!(script, "printf '\\001{}\\n'", commands.len());
        fs::write(folder.path().join(".script"), script).expect("the script");
        let said = File::create(folder.path().join(".said")).expect("the replies' file");
        let programs = Programs::find().expect("the programs are built");
        let built = programs.lockgate.parent().expect("a folder").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .arg(".script")
            .current_dir(folder.path())
            .env("PATH", format!("{built}:{path}"))
            .env("XDG_CONFIG_HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a second handle"))
            .stderr(said)
            // So that it can be killed with all that it started.
            .process_group(0);
        for name in ["SERVER", "CA", "TOKEN", "TOKEN_FILE", "PASSPHRASE", "LOG"] {
            shell.env_remove(format!("LOCKGATE_{name}"));
        }
        let shell = shell.spawn().expect("a shell");
        Self { folder, port, shell }
    }

    /// What each command said, when all are done.
    fn replies(mut self, count: usize) -> Vec<String> {
        let begun = Stopwatch::start();
        while matches!(self.shell.try_wait(), Ok(None)) && begun.elapsed() < WALK {
            thread::sleep(Duration::from_millis(50));
        }
        let said = read(&self.folder.path().join(".said"))
            .replace(&self.folder.path().display().to_string(), FOLDER)
            .replace(&format!("127.0.0.1:{}", self.port), &format!("127.0.0.1:{PORT}"));
        let mut replies: Vec<String> = said
            .split(MARK)
            .skip(1)
            .filter_map(|part| part.split_once('\n'))
            .map(|(_, reply)| reply.to_owned())
            .collect();
        assert_eq!(replies.len(), count + 1, "it did not come to its end:\n{said}");
        replies.pop();
        replies
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.shell.id()).ok().and_then(Pid::from_raw) {
            // Usually all have ended by themselves, and there is no such group any more.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.shell.wait();
    }
}

/// A reply without what differs from run to run.
fn plain(reply: &str) -> String {
    let lines = reply.trim_end().lines().map(|line| {
        let words: Vec<String> = line.split_whitespace().map(time_or_hex).collect();
        // A clock is right when it is off by a second, in either direction.
        let line = words.join(" ").replace(" s ahead of the", " s behind the");
        COUNTED.iter().fold(line, |line, around| without_number(&line, *around))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A word in which times and long hexadecimal strings are put aside.
fn time_or_hex(word: &str) -> String {
    let mut plain = String::new();
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let hex = rest.chars().take_while(|c| matches!(c, '0'..='9' | 'a'..='f')).count();
        if is_time(rest.get(..20).unwrap_or_default()) {
            plain.push_str("<time>");
            rest = &rest[20..];
        } else if hex >= 8 {
            plain.push_str("<hex>");
            rest = &rest[hex..];
        } else {
            let step = hex.max(first.len_utf8());
            plain.push_str(&rest[..step]);
            rest = &rest[step..];
        }
    }
    plain
}

fn is_time(text: &str) -> bool {
    text.len() == 20
        && text.chars().zip("dddd-dd-ddTdd:dd:ddZ".chars()).all(|(c, shape)| match shape {
            'd' => c.is_ascii_digit(),
            other => c == other,
        })
}

/// Puts every number aside that stands between these words.
fn without_number(line: &str, (before, after): (&str, &str)) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (head, tail) = rest.split_at(at);
        let length = tail.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(tail.len());
        let (number, tail) = tail.split_at(length);
        plain.push_str(head);
        let here = plain.ends_with(before) && tail.starts_with(after);
        plain.push_str(if here { "<n>" } else { number });
        rest = tail;
    }
    plain + rest
}

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port().to_string()
}
