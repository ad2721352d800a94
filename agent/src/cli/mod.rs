//! The commands: what each does, what it prints, and how it ends.
//!
//! Results go to standard output, as text or with `--json` as one JSON object; the log goes to standard
//! error. The loop itself is behind [`Loop`]: the commands open what it needs and hand it over.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed for another reason than those below |
//! | 2 | the command line is wrong |
//! | 3 | the configuration is wrong |
//! | 4 | the device has no key or is not enrolled |
//! | 5 | the server cannot be reached, or not safely |
//! | 6 | the server refused |
//! | 7 | another agent works in the state folder |
//! | 8 | `doctor` found something that keeps the agent from working |

mod args;
mod doctor;
mod enroll;
mod request;
mod rollback;
mod show;
mod turns;

use std::{
    error::Error,
    ffi::OsString,
    fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use args::{Args, Asked, Command, Token};
use lockgate_shared::{
    count::count,
    failure::{Chain, Failure},
    id::ProductId,
};
use serde::Serialize;
use serde_json::json;
use thiserror::Error;

pub use args::ArgsError;
pub use request::{REQUESTS, Request, RequestError};
pub use turns::Turns;

use crate::{
    config::{self, ConfigError, Settings},
    core::tuf::ROOT_LIMIT,
    identity::{self, Enrolled, Identity, IdentityError},
    lock::{Lock, LockError},
    log,
    status::StatusError,
    transport::{Remedy, Sources, Transport, TransportError},
};

/// Everything that the loop needs, opened and checked.
#[derive(Debug)]
pub struct Ready {
    /// The configuration.
    pub settings: Settings,
    /// The state folder's lock, held as long as this lives.
    pub lock: Lock,
    /// The device's key, and how it is kept.
    pub identity: Identity,
    /// Where the device belongs.
    pub enrolled: Enrolled,
    /// The bytes of the trusted root.
    pub anchor: Vec<u8>,
    /// The way to the network; signals are not heeded yet.
    pub transport: Transport,
}

/// What went wrong inside the loop.
pub type LoopError = Box<dyn Error + Send + Sync>;

/// The loop, as the commands see it. A request that waits ([`Request::waiting`]) is carried out in the
/// next turn and then withdrawn.
pub trait Loop {
    /// Takes turns until told to end.
    fn run(&self, ready: Ready) -> Result<(), LoopError>;
    /// Takes one turn.
    fn turn(&self, ready: Ready) -> Result<(), LoopError>;
}

/// How a command ends, other than well.
#[derive(Debug, Error)]
pub enum CliError {
    /// The command line.
    #[error(transparent)]
    Args(#[from] ArgsError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Key or enrolment.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Another agent.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The snapshot.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// A request to the running agent.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Enrolling.
    #[error(transparent)]
    Enroll(#[from] enroll::EnrollError),
    /// The trusted root cannot be read.
    #[error(
        "cannot read the trusted root `{path}`\nhint: it comes with the installer or the image; `lockgate repo init` makes it as `root.json`",
        path = path.display()
    )]
    Anchor {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No such product here.
    #[error("`{0}` is not a product of this device\nhint: `lockgate-agent status` lists them")]
    Product(ProductId),
    /// The running agent was not told.
    #[error(
        "cannot signal the running agent (process {pid})\nhint: run this command as root, or as the agent's user"
    )]
    Signal {
        /// Its process.
        pid: i32,
        /// The system's answer.
        source: io::Error,
    },
    /// It does not go back.
    #[error(
        "`{product}` does not go back: {why}\nhint: `lockgate-agent explain {product}` shows what it may run"
    )]
    Rollback {
        /// The product.
        product: ProductId,
        /// Why.
        why: String,
    },
    /// Something keeps the agent from working.
    #[error("something keeps the agent from working")]
    Unwell,
    /// The loop failed.
    #[error("the agent stopped")]
    Loop(#[source] LoopError),
}

impl CliError {
    /// The exit code, as documented above.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Args(_) => 2,
            Self::Config(_) => 3,
            Self::Identity(_) => 4,
            Self::Transport(error) => match error.remedy() {
                Remedy::Accept => 6,
                Remedy::Wait | Remedy::Mend => 5,
                Remedy::Stop => 1,
            },
            Self::Enroll(enroll::EnrollError::Transport(error)) => match error.remedy() {
                Remedy::Accept => 6,
                Remedy::Wait | Remedy::Mend => 5,
                Remedy::Stop => 1,
            },
            Self::Lock(LockError::Held { .. }) => 7,
            Self::Unwell => 8,
            Self::Lock(LockError::Io { .. })
            | Self::Enroll(_)
            | Self::Status(_)
            | Self::Request(_)
            | Self::Anchor { .. }
            | Self::Product(_)
            | Self::Rollback { .. }
            | Self::Signal { .. }
            | Self::Loop(_) => 1,
        }
    }
}

/// What a command prints.
#[derive(Debug)]
struct Report {
    text: String,
    json: serde_json::Value,
    /// What is wrong all the same.
    fault: Option<CliError>,
}

impl Report {
    fn of(text: impl Into<String>, json: impl Serialize) -> Self {
        let json = serde_json::to_value(json).unwrap_or(serde_json::Value::Null);
        Self { text: text.into(), json, fault: None }
    }
}

/// Reads the command line, does what it says, and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>, turns: &dyn Loop) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // Asked before anybody has read the options: a mistake in them is told in the same way.
    let json = args.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    let args = match args::read(args) {
        Ok(Asked::Act(args)) => args,
        Ok(Asked::Show(text)) => {
            print(&text);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let error = CliError::Args(error);
            say(&error, json);
            return ExitCode::from(error.exit());
        }
    };
    log::set(args.log);
    let (report, fault) = match dispatch(&args, turns) {
        Ok(Report { text, json, fault }) => (Some((text, json)), fault),
        Err(error) => (None, Some(error)),
    };
    if let Some((text, json)) = report {
        print(&if args.json { pretty(&json) } else { text });
    }
    let Some(error) = fault else { return ExitCode::SUCCESS };
    say(&error, args.json && !matches!(error, CliError::Unwell));
    ExitCode::from(error.exit())
}

fn dispatch(args: &Args, turns: &dyn Loop) -> Result<Report, CliError> {
    match &args.command {
        Command::CheckConfig => {
            let settings = config::load(&args.config)?;
            let products: Vec<_> = settings.products.keys().map(ToString::to_string).collect();
            let text = format!(
                "{} is right: {} from {}\n",
                args.config.display(),
                count(products.len(), "product", "products"),
                settings.server
            );
            let server = settings.server.to_string();
            Ok(Report::of(text, json!({ "ok": true, "server": server, "products": products })))
        }
        Command::Enroll(token) => {
            let settings = config::load(&args.config)?;
            enroll::enroll(&settings, &token_text(token)?)
        }
        Command::Run => {
            let ready = ready(config::load(&args.config)?)?;
            turns.run(ready).map_err(CliError::Loop)?;
            Ok(Report::of("", json!({ "ok": true })))
        }
        Command::Check => turn_or_poke(config::load(&args.config)?, turns, "polled once"),
        Command::Status => show::status(&config::load(&args.config)?),
        Command::Explain(product) => show::explain(&config::load(&args.config)?, product.as_ref()),
        Command::Rollback(product, consent) => {
            let settings = config::load(&args.config)?;
            rollback::rollback(settings, turns, product, *consent)
        }
        Command::Doctor => Ok(doctor::doctor(&args.config)),
    }
}

/// Takes one turn, or has the running agent take it.
fn turn_or_poke(settings: Settings, turns: &dyn Loop, done: &str) -> Result<Report, CliError> {
    let state = settings.state.clone();
    let ready = match ready(settings) {
        Ok(ready) => ready,
        Err(CliError::Lock(LockError::Held { pid: Some(pid), .. })) => {
            poke(pid)?;
            let text = format!("the running agent (process {pid}) was told to poll now\n");
            return Ok(Report::of(text, json!({ "ok": true, "poked": pid })));
        }
        Err(error) => return Err(error),
    };
    turns.turn(ready).map_err(CliError::Loop)?;
    let mut report = show::status_in(&state)?;
    report.text = format!("{done}\n{}", report.text);
    Ok(report)
}

fn poke(pid: i32) -> Result<(), CliError> {
    use rustix::process::{Pid, Signal, kill_process};
    let failed = |source| CliError::Signal { pid, source };
    let process =
        Pid::from_raw(pid).ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidInput)))?;
    kill_process(process, Signal::USR1).map_err(|errno| failed(errno.into()))
}

/// Opens everything that the loop needs; the lock first, so that nothing else is touched without it.
fn ready(settings: Settings) -> Result<Ready, CliError> {
    if !settings.state.exists() {
        // Nobody enrolled yet: that makes the folder.
        identity::enrolled(&settings.state)?;
    }
    let lock = Lock::take(&settings.state)?;
    let identity = identity::key(&settings.state, &settings.tpm)?;
    let enrolled = Enrolled::read(&settings.state, &identity.key)?;
    let anchor = anchor(&settings.anchor)?;
    let transport = transport(&settings)?;
    Ok(Ready { settings, lock, identity, enrolled, anchor, transport })
}

fn transport(settings: &Settings) -> Result<Transport, TransportError> {
    Transport::open(Sources {
        server: settings.server.clone(),
        mirrors: settings.mirrors.clone(),
        ca: settings.ca.clone(),
    })
}

fn anchor(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |source| CliError::Anchor { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(ROOT_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > ROOT_LIMIT {
        return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    Ok(bytes)
}

fn token_text(token: &Token) -> Result<String, CliError> {
    match token {
        Token::Text(text) => Ok(text.clone()),
        Token::File(path) => Ok(enroll::read_token(path)?),
    }
}

fn say(error: &CliError, json: bool) {
    let text = Chain(error).to_string();
    if json {
        print(&pretty(&json!(Failure::new(&text, error.exit()))));
    } else {
        // Several faults of a configuration stand on lines of their own.
        let _ = writeln!(io::stderr(), "error: {text}");
    }
}

fn pretty(json: &serde_json::Value) -> String {
    format!("{json:#}\n")
}

/// Whoever closed standard output has seen enough.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests;
