//! How a command ends: an exit code that programs can act on, and a message that people can.

use std::{
    error::Error,
    fmt,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Command, Parser, error::ErrorKind};
use lockgate_shared::{
    failure::{Chain, Failure},
    wire::Problem,
};

use super::offline;
use crate::{ceremony::change::ChangeError, release::sign::SignError};

/// The codes, as `--help` shows them.
pub const HELP: &str = "\
exit codes:
  0  done
  1  this program failed
  2  the command line is wrong
  3  the server refused
  4  the server cannot be reached, or cannot answer now
  5  not yet: what was waited for has not happened in time, or something is due soon or stopped
  6  a verification failed, or `--strict` found a danger
  7  a rollout that was watched was halted or ended";

/// What stops a fleet whose letter box is down: nobody gets past these either.
const WITHOUT_THE_SERVER: &str = "\
check `--server` and `--ca`; what stops without it: `systemctl stop lockgate-gatekeeper`, and devices \
activate nothing once its last word is older than their release allows (an hour, where it says nothing \
else); or signed: `lockgate repo change --new-online DIR`, and the new root in `metadata/` of every \
mirror, which has devices refuse the gatekeeper's keys at their next poll";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// This program failed.
    Ours = 1,
    /// The command line or what it names is wrong.
    Usage = 2,
    /// The server refused.
    Refused = 3,
    /// The server cannot be reached, or cannot answer now.
    Unreachable = 4,
    /// What was waited for has not happened in time.
    NotYet = 5,
    /// A verification failed.
    False = 6,
    /// A rollout that was watched was halted or ended.
    Stopped = 7,
}

/// Who reads what a program says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Text.
    People,
    /// JSON.
    Programs,
}

impl From<bool> for Reader {
    /// By the option `--json`.
    fn from(json: bool) -> Self {
        if json { Self::Programs } else { Self::People }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum CliError {
    /// The command line or what it names is wrong.
    Usage(String),
    /// A file cannot be read or written.
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server said no.
    Refused(Box<Problem>),
    /// The gatekeeper said no.
    RefusedEntry {
        /// The entry.
        offset: u64,
        /// Its reasons.
        reasons: Vec<String>,
    },
    /// The server cannot be reached.
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A stop did not come to the server.
    NotStopped {
        /// Its address.
        server: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It has not happened in time.
    NotYet(String),
    /// A verification failed.
    False(String),
    /// A rollout that was watched will not get further by itself.
    Stopped(String),
    /// What needs no server failed.
    Offline(Box<offline::CliError>),
    /// This program failed.
    Ours(Box<dyn Error + Send + Sync>),
}

impl CliError {
    /// The code with which the program ends.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::File { .. } => Exit::Usage,
            Self::Refused(problem) if problem.status >= 500 => Exit::Unreachable,
            Self::Refused(_) | Self::RefusedEntry { .. } => Exit::Refused,
            Self::Unreachable { .. } | Self::NotStopped { .. } => Exit::Unreachable,
            Self::NotYet(_) => Exit::NotYet,
            Self::False(_) => Exit::False,
            Self::Stopped(_) => Exit::Stopped,
            Self::Offline(error) => offline_exit(error),
            Self::Ours(_) => Exit::Ours,
        }
    }

    /// The same about a stop: a server that is down is no reason to give it up.
    pub fn not_stopped(self) -> Self {
        let Self::Unreachable { server, source } = self else { return self };
        Self::NotStopped { server, source }
    }

    /// A failure of this program.
    pub fn ours(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Ours(error.into())
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::NotYet(text) | Self::False(text) | Self::Stopped(text) => {
                f.write_str(text)
            }
            Self::File { path, source } => {
                write!(f, "cannot read `{}`: {source}", path.display())
            }
            Self::Refused(problem) => {
                f.write_str(&problem.detail)?;
                match &problem.hint {
                    Some(hint) => write!(f, "\nhint: {hint}"),
                    None => Ok(()),
                }
            }
            Self::RefusedEntry { offset, reasons } => {
                write!(f, "the gatekeeper refused entry {offset}")?;
                reasons.iter().try_for_each(|reason| write!(f, "\n  {reason}"))
            }
            Self::Unreachable { server, source } => {
                write!(f, "`{server}` cannot be reached: {}", Chain(source.as_ref()))?;
                f.write_str("\nhint: check `--server` and `--ca`, and that the server runs")
            }
            Self::NotStopped { server, source } => {
                write!(f, "`{server}` cannot be reached: {}", Chain(source.as_ref()))?;
                write!(f, ", and no device hears of this stop\nhint: {WITHOUT_THE_SERVER}")
            }
            Self::Offline(error) => Chain(error.as_ref()).fmt(f),
            Self::Ours(error) => Chain(error.as_ref()).fmt(f),
        }
    }
}

impl Error for CliError {}

impl From<offline::CliError> for CliError {
    fn from(error: offline::CliError) -> Self {
        Self::Offline(Box::new(error))
    }
}

/// What a person gave that cannot be used, what does not verify, and what this machine failed at.
const fn offline_exit(error: &offline::CliError) -> Exit {
    use offline::CliError as E;
    match error {
        E::Print(_) | E::Write(_) | E::Codec(_) => Exit::Ours,
        E::Sign(SignError::Threshold { .. }) => Exit::NotYet,
        E::Sign(SignError::OtherRole(_) | SignError::Artifact { .. })
        | E::Role(_)
        | E::Metadata(_)
        | E::Act(_)
        | E::Token(_)
        | E::Signer(_)
        | E::Change(ChangeError::DoesNotFollow(_) | ChangeError::Charter(_))
        | E::Loosening(_)
        | E::NoApprover { .. }
        | E::Dangerous(_)
        | E::NoEnrolmentKey { .. } => Exit::False,
        E::Change(ChangeError::Threshold { .. }) => Exit::NotYet,
        E::Read { .. }
        | E::Key(_)
        | E::Change(_)
        | E::Plan(_)
        | E::Ceremony(_)
        | E::Create(_)
        | E::Recall(_)
        | E::ReleasePlan(_)
        | E::Sign(_)
        | E::Manifest(_)
        | E::Policy(_)
        | E::Acts(_)
        | E::NoPolicy
        | E::NoTenant { .. }
        | E::Unseen(_)
        | E::NotConfirmed
        | E::Usage(_) => Exit::Usage,
    }
}

/// The command line, or the code with which the program ends when it only asked for help or cannot be
/// understood: then it has been said.
pub fn parsed<P: Parser>() -> Result<P, ExitCode> {
    let mut command = pointed(P::command());
    let parsed = command.try_get_matches_from_mut(std::env::args_os());
    let parsed = parsed.and_then(|matches| P::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let error = error.format(&mut command);
        if !error.use_stderr() {
            // Help and version are asked for.
            let _ = error.print();
            return Exit::Done.into();
        }
        // Nobody has read the options yet.
        let json = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
        let code = Exit::Usage as u8;
        if json {
            let missing = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
            let text = if missing { "a command is missing".to_owned() } else { error.to_string() };
            print(&Failure::usage(&text, code));
        } else {
            let _ = error.print();
        }
        ExitCode::from(code)
    })
}

/// The command line, with the way to the exit codes in the help of each command below it.
pub fn pointed(command: Command) -> Command {
    let text = format!("exit codes: `{} --help` lists them", command.get_name());
    command.mut_subcommands(|command| beneath(command, &text))
}

fn beneath(command: Command, text: &str) -> Command {
    command.after_help(text.to_owned()).mut_subcommands(|command| beneath(command, text))
}

/// Says why the program ends: to programs on standard output, to people on standard error. When both
/// are gone, the exit code still speaks.
pub fn tell(text: &str, code: u8, reader: Reader) {
    match reader {
        Reader::Programs => print(&Failure::new(text, code)),
        Reader::People => {
            let _ = writeln!(io::stderr(), "error: {text}");
        }
    }
}

fn print(failure: &Failure) {
    // Text, a number and an option of text are always JSON.
    let text = serde_json::to_string_pretty(failure).unwrap_or_default();
    let _ = writeln!(io::stdout(), "{text}");
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_and_a_server_in_trouble_end_with_different_codes() {
        let problem = |status| {
            CliError::Refused(Box::new(Problem {
                kind: "x".into(),
                title: "x".into(),
                status,
                detail: "no such thing".into(),
                hint: Some("look".into()),
            }))
        };
        assert_eq!(problem(404).exit(), Exit::Refused);
        assert_eq!(problem(503).exit(), Exit::Unreachable);
        assert_eq!(problem(404).to_string(), "no such thing\nhint: look");
    }

    #[test]
    fn a_stop_that_cannot_reach_its_server_names_what_else_stops() {
        let lost = CliError::Unreachable { server: "https://x".into(), source: "refused".into() };
        let lost = lost.not_stopped();
        assert_eq!(lost.exit(), Exit::Unreachable);
        let text = lost.to_string();
        for words in ["no device hears", "lockgate-gatekeeper", "repo change --new-online"] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn every_code_stands_in_the_help() {
        for exit in [
            Exit::Done,
            Exit::Ours,
            Exit::Usage,
            Exit::Refused,
            Exit::Unreachable,
            Exit::NotYet,
            Exit::False,
            Exit::Stopped,
        ] {
            assert!(HELP.contains(&format!("\n  {}  ", exit as u8)), "{exit:?}");
        }
    }
}
