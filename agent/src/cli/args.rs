//! The command line: which words may stand on it, what they mean, and what to say of the others. It
//! does nothing of what they ask for.

use std::{ffi::OsString, path::PathBuf};

use lexopt::{Arg, Parser};
use lockgate_shared::id::ProductId;
use thiserror::Error;

use crate::{config, core::machine::Consent, log::Level, near::nearest};

/// A command line that was understood.
#[derive(Debug)]
pub(super) enum Asked {
    /// Something is to be done.
    Act(Args),
    /// A text is to be shown: help, or the version.
    Show(String),
}

/// What is to be done, and how.
#[derive(Debug)]
pub(super) struct Args {
    pub(super) config: PathBuf,
    pub(super) json: bool,
    pub(super) log: Level,
    pub(super) command: Command,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Command {
    Enroll(Token),
    Run,
    Check,
    Status,
    /// For this product only, or for all.
    Explain(Option<ProductId>),
    Rollback(ProductId, Consent),
    Doctor,
    CheckConfig,
}

/// Where the enrolment token is.
#[derive(Debug)]
pub(super) enum Token {
    /// On the command line.
    Text(String),
    /// In a file, or `-` for standard input.
    File(PathBuf),
}

/// Why a command line is wrong.
#[derive(Debug, Error)]
pub enum ArgsError {
    /// Nothing is to be done.
    #[error("no command is given\nhint: `lockgate-agent --help` lists them")]
    NoCommand,
    /// No such command.
    #[error("`{0}` is not a command\nhint: {hint}", hint = meant(.1, "", "`lockgate-agent --help` lists them"))]
    Command(String, Option<&'static str>),
    /// No such option, or not for this command.
    #[error("`{0}` is not an option here\nhint: {hint}", hint = meant(.1, "--", "`lockgate-agent --help` and `lockgate-agent COMMAND --help` list them"))]
    Option(String, Option<&'static str>),
    /// An option without its value.
    #[error("`{0}` needs a value\nhint: `lockgate-agent --help` says which")]
    NoValue(String),
    /// A value that an option does not take, with a hint of its own.
    #[error("`{option}`: {what}")]
    Value {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// An option that is given twice.
    #[error("`{0}` is given twice\nhint: keep one of the two")]
    Twice(&'static str),
    /// A word too many.
    #[error(
        "`{0}` is one word too many\nhint: `lockgate-agent COMMAND --help` shows what a command takes"
    )]
    TooMany(String),
    /// A command that needs a product.
    #[error("`rollback` needs a product\nhint: `lockgate-agent status` lists them")]
    NoProduct,
    /// A word that is no product's name, with a hint of its own.
    #[error("{0}")]
    Product(String),
    /// Not exactly one token.
    #[error(
        "`enroll` needs one of `--token` and `--token-file`\nhint: `lockgate-agent enroll --token-file FILE`, or `-` for standard input"
    )]
    OneToken,
    /// Anything else that the reader of words says.
    #[error(
        "the command line cannot be read: {0}\nhint: `lockgate-agent --help` shows what it takes"
    )]
    Other(String),
}

fn meant(nearest: &Option<&str>, dashes: &str, otherwise: &str) -> String {
    nearest.map_or_else(|| otherwise.to_owned(), |word| format!("did you mean `{dashes}{word}`?"))
}

/// A command as help shows it.
struct Entry {
    name: &'static str,
    about: &'static str,
    /// What may follow it.
    takes: Takes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// No command is known yet.
    Anything,
    Nothing,
    Token,
    Product,
    MaybeProduct,
}

impl Takes {
    const fn usage(self) -> &'static str {
        match self {
            Self::Anything | Self::Nothing => "",
            Self::Token => " <--token TOKEN|--token-file FILE>",
            Self::Product => " PRODUCT",
            Self::MaybeProduct => " [PRODUCT]",
        }
    }
}

static COMMANDS: [Entry; 8] = [
    entry("enroll", Takes::Token, "Bring this device into a tenant"),
    entry(
        "run",
        Takes::Nothing,
        "Poll, install and watch until told to end (SIGTERM). SIGUSR1 polls at once",
    ),
    entry("check", Takes::Nothing, "Poll once, now; where the agent is running, have it do so"),
    entry(
        "status",
        Takes::Nothing,
        "Show what runs, what is on its way, and when the next poll is due",
    ),
    entry(
        "explain",
        Takes::MaybeProduct,
        "Show every release that was considered, and every reason against it",
    ),
    entry("rollback", Takes::Product, "Go back to the other slot of a product"),
    entry(
        "doctor",
        Takes::Nothing,
        "Check everything that the agent needs to work, and say what to mend",
    ),
    entry(
        "check-config",
        Takes::Nothing,
        "Read the configuration and say everything that is wrong with it",
    ),
];

const fn entry(name: &'static str, takes: Takes, about: &'static str) -> Entry {
    Entry { name, about, takes }
}

const OPTIONS: [(&str, &str); 5] = [
    (
        "--config PATH",
        "The configuration; drop-ins lie beside it in `agent.d` [default: /etc/lockgate-agent/agent.toml]",
    ),
    ("--json", "Print one JSON object instead of text"),
    ("--log LEVEL", "How much goes to standard error: error, warn, info or debug [default: info]"),
    ("-h, --help", "Print help"),
    ("-V, --version", "Print the version"),
];
const TOKEN_OPTIONS: [(&str, &str); 2] = [
    ("--token TOKEN", "The enrolment token; whoever lists this machine's processes can read it"),
    ("--token-file FILE", "A file that holds it, or `-` for standard input"),
];
const ROLLBACK_OPTIONS: [(&str, &str); 1] =
    [("--lose-data", "Also to a version that cannot read the product's data any more")];
/// The codes, as `--help` shows them.
const EXIT_CODES: &str = "\
exit codes:
  0  done
  1  failed for another reason than those below
  2  the command line is wrong
  3  the configuration is wrong
  4  the device has no key or is not enrolled
  5  the server cannot be reached, or not safely
  6  the server refused
  7  another agent works in the state folder
  8  `doctor` found something that keeps the agent from working";

/// Understands a command line; its first word is the program's name.
pub(super) fn read(line: impl IntoIterator<Item = OsString>) -> Result<Asked, ArgsError> {
    let mut words = Words::default();
    let mut parser = Parser::from_iter(line);
    while let Some(arg) = parser.next().map_err(other)? {
        let option = match arg {
            Arg::Value(word) => {
                words.word(word)?;
                continue;
            }
            Arg::Short('h') => "help",
            Arg::Short('V') => "version",
            Arg::Short(letter) => return Err(ArgsError::Option(format!("-{letter}"), None)),
            Arg::Long(name) => known(name, words.takes())?,
        };
        match option {
            "help" => words.help = true,
            "version" => {
                let version = concat!("lockgate-agent ", env!("CARGO_PKG_VERSION"), "\n");
                return Ok(Asked::Show(version.to_owned()));
            }
            "json" => words.json = true,
            "lose-data" => words.lose_data = true,
            "config" => set(&mut words.config, "--config", parser.value().map_err(other)?)?,
            "log" => set(&mut words.log, "--log", parser.value().map_err(other)?)?,
            "token" => set(&mut words.token, "--token", parser.value().map_err(other)?)?,
            _ => set(&mut words.token_file, "--token-file", parser.value().map_err(other)?)?,
        }
    }
    words.asked()
}

/// An option of this name, as it stands in the lists above.
fn known(name: &str, takes: Takes) -> Result<&'static str, ArgsError> {
    let own: &[&str] = match takes {
        Takes::Anything => &["token", "token-file", "lose-data"],
        Takes::Token => &["token", "token-file"],
        Takes::Product => &["lose-data"],
        Takes::Nothing | Takes::MaybeProduct => &[],
    };
    let options = ["help", "version", "json", "config", "log"];
    let mut here = options.iter().chain(own).copied();
    let nearest = nearest(name, here.clone());
    let found = here.find(|option| *option == name);
    found.ok_or_else(|| ArgsError::Option(format!("--{name}"), nearest))
}

fn set(
    place: &mut Option<OsString>,
    option: &'static str,
    value: OsString,
) -> Result<(), ArgsError> {
    if place.replace(value).is_some() { Err(ArgsError::Twice(option)) } else { Ok(()) }
}

/// In words of ours, where there are any.
fn other(error: lexopt::Error) -> ArgsError {
    if let lexopt::Error::MissingValue { option: Some(option) } = error {
        return ArgsError::NoValue(option);
    }
    if let lexopt::Error::UnexpectedOption(option) = error {
        return ArgsError::Option(option, None);
    }
    ArgsError::Other(error.to_string())
}

/// The words of a command line, before they mean anything.
#[derive(Default)]
struct Words {
    help: bool,
    json: bool,
    lose_data: bool,
    command: Option<&'static Entry>,
    operand: Option<OsString>,
    config: Option<OsString>,
    log: Option<OsString>,
    token: Option<OsString>,
    token_file: Option<OsString>,
}

impl Words {
    /// What may follow: before the command, anything may.
    fn takes(&self) -> Takes {
        self.command.map_or(Takes::Anything, |command| command.takes)
    }

    fn word(&mut self, word: OsString) -> Result<(), ArgsError> {
        let Some(command) = self.command else {
            if word == "help" {
                self.help = true;
            } else {
                self.command = Some(command(&word.to_string_lossy())?);
            }
            return Ok(());
        };
        match command.takes {
            Takes::Product | Takes::MaybeProduct if self.operand.is_none() => {
                self.operand = Some(word);
                Ok(())
            }
            Takes::Product
            | Takes::MaybeProduct
            | Takes::Nothing
            | Takes::Token
            | Takes::Anything => Err(ArgsError::TooMany(word.to_string_lossy().into_owned())),
        }
    }

    fn asked(self) -> Result<Asked, ArgsError> {
        if self.help {
            return Ok(Asked::Show(help(self.command)));
        }
        let command = self.command()?;
        let log = match &self.log {
            None => Level::Info,
            Some(level) => {
                let parsed = level.to_string_lossy().parse();
                parsed.map_err(|what| ArgsError::Value { option: "--log", what })?
            }
        };
        let config = self.config.unwrap_or_else(|| config::DEFAULT_PATH.into()).into();
        Ok(Asked::Act(Args { config, json: self.json, log, command }))
    }

    fn command(&self) -> Result<Command, ArgsError> {
        let Some(entry) = self.command else { return Err(ArgsError::NoCommand) };
        if entry.takes != Takes::Token && (self.token.is_some() || self.token_file.is_some()) {
            let option = if self.token.is_some() { "--token" } else { "--token-file" };
            return Err(ArgsError::Option(option.to_owned(), None));
        }
        if entry.takes != Takes::Product && self.lose_data {
            return Err(ArgsError::Option("--lose-data".to_owned(), None));
        }
        Ok(match entry.name {
            "enroll" => Command::Enroll(self.token()?),
            "run" => Command::Run,
            "check" => Command::Check,
            "status" => Command::Status,
            "explain" => Command::Explain(self.product()?),
            "rollback" => {
                let consent = if self.lose_data { Consent::LoseData } else { Consent::GoBack };
                Command::Rollback(self.product()?.ok_or(ArgsError::NoProduct)?, consent)
            }
            "doctor" => Command::Doctor,
            _ => Command::CheckConfig,
        })
    }

    fn product(&self) -> Result<Option<ProductId>, ArgsError> {
        let Some(word) = &self.operand else { return Ok(None) };
        let product = word.to_string_lossy().parse::<ProductId>();
        product.map(Some).map_err(|error| ArgsError::Product(error.to_string()))
    }

    fn token(&self) -> Result<Token, ArgsError> {
        match (&self.token, &self.token_file) {
            (Some(text), None) => match text.to_str() {
                Some(text) => Ok(Token::Text(text.to_owned())),
                None => {
                    let what = "it is not text\nhint: a token begins with `lgenrol1_`".to_owned();
                    Err(ArgsError::Value { option: "--token", what })
                }
            },
            (None, Some(file)) => Ok(Token::File(file.into())),
            (Some(_), Some(_)) | (None, None) => Err(ArgsError::OneToken),
        }
    }
}

fn command(word: &str) -> Result<&'static Entry, ArgsError> {
    let found = COMMANDS.iter().find(|entry| entry.name == word);
    found.ok_or_else(|| {
        let nearest = nearest(word, COMMANDS.iter().map(|entry| entry.name));
        ArgsError::Command(word.to_owned(), nearest)
    })
}

/// Help for everything, or for one command.
fn help(command: Option<&Entry>) -> String {
    let mut text = String::new();
    let mut row = |name: &str, about: &str| text.push_str(&format!("  {name:<18} {about}\n"));
    let head = match command {
        Some(Entry { name, about, takes }) => {
            let own: &[(&str, &str)] = match takes {
                Takes::Token => &TOKEN_OPTIONS,
                Takes::Product => &ROLLBACK_OPTIONS,
                Takes::Anything | Takes::Nothing | Takes::MaybeProduct => &[],
            };
            own.iter().for_each(|(name, about)| row(name, about));
            format!(
                "{about}\n\nUsage: lockgate-agent {name} [OPTIONS]{}\n\nOptions:\n",
                takes.usage()
            )
        }
        None => {
            for Entry { name, about, .. } in &COMMANDS {
                row(name, about);
            }
            row("help", "Print this, or the help of a command");
            text.push_str("\nOptions:\n");
            "Installs what this device's people released and approved, and falls back on its own\n\n\
             Usage: lockgate-agent [OPTIONS] COMMAND\n\nCommands:\n"
                .to_owned()
        }
    };
    let mut row = |name: &str, about: &str| text.push_str(&format!("  {name:<18} {about}\n"));
    OPTIONS.iter().for_each(|(name, about)| row(name, about));
    text.push_str(&match command {
        Some(_) => "\nexit codes: `lockgate-agent --help` lists them\n".to_owned(),
        None => format!("\n{EXIT_CODES}\n"),
    });
    head + &text
}
