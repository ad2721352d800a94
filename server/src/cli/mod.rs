//! The operator's tool, `lockgate`: one noun for each thing an operator works with, a table for
//! people, `--json` for programs.
//!
//! What only restricts or reads asks the server with a token ([`client`]). What expands is made and
//! signed in files, without a server, in [`offline`]; `act submit` carries it there.

pub mod act;
pub mod audit;
pub mod client;
pub mod cohort;
pub mod copy;
pub mod coverage;
pub mod device;
pub mod doctor;
pub mod exit;
pub mod offline;
pub mod overview;
pub mod plan;
pub mod release;
pub mod repo;
pub mod restrict;
pub mod rollout;
pub mod table;
pub mod tenant;
pub mod token;

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use lockgate_shared::{
    id::{DeviceId, ProductId, TenantId},
    rollout::Scope,
};
use serde::Serialize;

use self::{
    client::{Access, Client},
    exit::{CliError, Exit, Reader},
    offline::Answer,
    overview::Overview,
};
use crate::{api::admin::Caller, stream::StopHow};

/// Moves releases through a fleet: a gate opens only when what came before it is well.
#[derive(Debug, Parser)]
#[command(name = "lockgate", version, after_help = exit::HELP)]
pub struct Cli {
    #[command(flatten)]
    access: Access,
    /// Print JSON for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// What can be asked for. What needs no server joins here, and in the enums of the nouns.
#[derive(Debug, Subcommand)]
enum Command {
    /// The repository and its keys' ceremony
    #[command(subcommand)]
    Repo(repo::Command),
    /// Keys
    #[command(subcommand)]
    Key(offline::key::KeyCommand),
    /// Rollouts: starting, watching and stopping them
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Try a release's ladder on the fleet as it is now, in a simulation, before anybody signs its start
    Plan(plan::PlanArgs),
    /// Show what each group of a stage in trial has shown, and which have no device yet
    Coverage(coverage::CoverageArgs),
    /// Cohorts
    #[command(subcommand)]
    Cohort(cohort::Command),
    /// Devices, and why they do or do not install
    #[command(subcommand)]
    Device(device::Command),
    /// Releases
    #[command(subcommand)]
    Release(release::Command),
    /// Signed acts of people
    #[command(subcommand)]
    Act(act::Command),
    /// Pins: which release a device wants
    #[command(subcommand)]
    Pin(restrict::PinCommand),
    /// Maintenance windows: when a device may install
    #[command(subcommand)]
    Window(restrict::WindowCommand),
    /// Freezes: when a device may not install
    #[command(subcommand)]
    Freeze(restrict::FreezeCommand),
    /// What a tenant does with its own key
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// The audit chains
    #[command(subcommand)]
    Audit(audit::Command),
    /// API tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Stop everything, a product, or a tenant's devices, at once
    Stop(Stop),
    /// Say what of the repository ends soon or is missing, what is stopped and what alarms
    Doctor(doctor::DoctorArgs),
    /// Show everything that the gatekeeper last reported: every rollout, complete ones too
    Status,
    /// Show whose token this is
    Whoami,
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
struct Stop {
    #[command(flatten)]
    what: What,
    /// Why; whoever lifts the stop reads it
    #[arg(long)]
    reason: String,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// Every rollout of every product
    #[arg(long)]
    everything: bool,
    /// Every rollout of one product
    #[arg(long, value_name = "PRODUCT")]
    product: Option<ProductId>,
    /// One tenant's devices
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
}

/// What every command has at hand.
#[derive(Debug)]
pub struct Session {
    access: Access,
    json: bool,
}

/// The whole program.
pub fn main() -> ExitCode {
    let Cli { access, json, command } = match exit::parsed() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let session = Session { access, json };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&CliError::ours(error), json.into()),
    };
    match runtime.block_on(run(command, &session)) {
        Ok(()) => Exit::Done.into(),
        Err(error) => fail(&error, json.into()),
    }
}

fn fail(error: &CliError, reader: Reader) -> ExitCode {
    exit::tell(&error.to_string(), error.exit() as u8, reader);
    error.exit().into()
}

async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Repo(command) => repo::run(command, session).await,
        Command::Key(command) => session.offline(|_| offline::key::run(&command)),
        Command::Rollout(command) => rollout::run(command, session).await,
        Command::Plan(args) => plan::run(args, session).await,
        Command::Coverage(args) => coverage::run(args, session).await,
        Command::Cohort(command) => cohort::run(command, session).await,
        Command::Device(command) => device::run(command, session).await,
        Command::Release(command) => release::run(command, session).await,
        Command::Act(command) => act::run(command, session).await,
        Command::Pin(command) => restrict::pin(command, session).await,
        Command::Window(command) => restrict::window(command, session).await,
        Command::Freeze(command) => restrict::freeze(command, session).await,
        Command::Tenant(command) => tenant::run(command, session).await,
        Command::Audit(command) => audit::run(command, session).await,
        Command::Token(command) => token::run(command, session).await,
        Command::Stop(Stop { what, reason }) => {
            let scope = match (what.product, what.tenant) {
                (Some(product), _) => Scope::Product(product),
                (None, Some(tenant)) => Scope::Tenant(tenant),
                (None, None) => Scope::Everything,
            };
            rollout::stop(session, scope, StopHow::Pause, reason).await
        }
        Command::Doctor(args) => doctor::run(args, session).await,
        Command::Status => {
            let overview = Overview::ask(&session.client()?).await?;
            session.print(&overview.status, |_| overview.text())
        }
        Command::Whoami => {
            let caller: Caller = session.client()?.get("/v1/whoami").await?;
            session.print(&caller, |caller| {
                let tenant = caller.tenant.as_ref().map(|tenant| format!(", tenant `{tenant}`"));
                format!(
                    "token `{}`, role `{}`{}",
                    caller.name,
                    caller.role,
                    tenant.unwrap_or_default()
                )
            })
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "lockgate", &mut text);
            let script = String::from_utf8_lossy(&text);
            let whole = serde_json::json!({ "shell": shell.to_string(), "script": script });
            session.print(&whole, |_| script.clone().into_owned())
        }
    }
}

impl Session {
    /// The connection to the server.
    pub fn client(&self) -> Result<Client, CliError> {
        self.access.client()
    }

    /// Whether programs read what is printed.
    pub const fn json(&self) -> bool {
        self.json
    }

    /// Prints a value: as JSON for programs, else as `text` makes it.
    pub fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        if self.json {
            say(&serde_json::to_string_pretty(value).map_err(CliError::ours)?)
        } else {
            say(&text(value))
        }
    }

    /// Carries out what needs no server. Programs read one object; what people read before they
    /// confirm then goes to standard error, if there is anybody.
    fn offline(
        &self,
        run: impl FnOnce(&mut dyn Write) -> Result<Answer, offline::CliError>,
    ) -> Result<(), CliError> {
        let answer = if !self.json {
            run(&mut io::stdout())?
        } else if io::stdin().is_terminal() {
            run(&mut io::stderr())?
        } else {
            run(&mut io::sink())?
        };
        self.print(&answer.json, |_| answer.text.trim_end_matches('\n').to_owned())
    }

    /// Prints that something was done.
    pub fn done(&self, what: &str) -> Result<(), CliError> {
        self.print(&serde_json::json!({ "done": what }), |_| what.to_owned())
    }
}

/// Writes to standard output. A reader that left early, such as `head`, is no failure.
pub fn say(text: &str) -> Result<(), CliError> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::ours(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// First digits of an id that name it: among a million ids two share these once in ten thousand times,
/// and nobody types so many by a slip. Tables print twelve.
const ABBREVIATION: usize = 8;

/// Refuses too few digits: one digit fits whatever happens to be the only one.
fn enough_digits(text: &str, list: &str) -> Result<(), CliError> {
    if text.len() >= ABBREVIATION {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "`{text}` is too short for an id\nhint: give its first {ABBREVIATION} digits or more; `{list}` shows them"
    )))
}

/// The whole id of a device of which the first digits were given; `*` stays.
pub async fn device_id(client: &Client, text: &str) -> Result<String, CliError> {
    if text == "*" || text.parse::<DeviceId>().is_ok() {
        return Ok(text.to_owned());
    }
    let after = before(text).ok_or_else(|| {
        CliError::Usage(format!(
            "`{text}` is not a device\nhint: give an id, or its first digits; `lockgate device list` shows them"
        ))
    })?;
    enough_digits(text, "lockgate device list")?;
    let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
    let found: Vec<crate::api::admin::desk::KnownDevice> =
        client.get(&format!("/v1/devices?limit=2{after}")).await?;
    let mut fitting =
        found.iter().map(|known| known.device.to_string()).filter(|id| id.starts_with(text));
    match (fitting.next(), fitting.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(CliError::Usage(format!(
            "several devices begin with `{text}`\nhint: give more digits"
        ))),
        (None, _) => Err(CliError::Usage(format!(
            "no device begins with `{text}`\nhint: `lockgate device list` shows them"
        ))),
    }
}

/// The id just before all that begin with these digits: none outside when they are no digits, none
/// inside when there is none before.
#[expect(clippy::option_option, reason = "no digits, and nothing before them, are two things")]
fn before(digits: &str) -> Option<Option<DeviceId>> {
    let good = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if digits.is_empty() || digits.len() > 64 || !digits.chars().all(good) {
        return None;
    }
    let first: DeviceId = format!("{digits:0<64}").parse().ok()?;
    let mut bytes = first.0;
    for byte in bytes.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            return Some(Some(DeviceId(bytes)));
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_says_where_the_exit_codes_stand() {
        let mut waiting = vec![exit::pointed(Cli::command())];
        let mut seen = 0;
        while let Some(mut command) = waiting.pop() {
            let help = command.render_help().to_string();
            assert!(help.contains("exit codes:"), "{}: {help}", command.get_name());
            seen += 1;
            let beneath = command.get_subcommands().filter(|beneath| beneath.get_name() != "help");
            waiting.extend(beneath.cloned());
        }
        assert!(seen > 50, "only {seen} commands were seen");
    }

    #[test]
    fn a_stop_needs_one_target_and_a_reason() {
        for bad in [
            "lockgate stop --reason x",
            "lockgate stop --everything",
            "lockgate stop --everything --product app --reason x",
        ] {
            assert!(Cli::try_parse_from(bad.split(' ')).is_err(), "{bad}");
        }
        let good = "lockgate stop --tenant acme --reason x --json";
        assert!(Cli::try_parse_from(good.split(' ')).expect("well formed").json);
    }

    #[test]
    fn a_few_digits_are_no_id() {
        let text = enough_digits("a", "lockgate device list").expect_err("one digit").to_string();
        for words in ["`a` is too short", "first 8 digits", "`lockgate device list`"] {
            assert!(text.contains(words), "{text}");
        }
        assert!(enough_digits("0123456", "x").is_err());
        assert!(enough_digits("01234567", "x").is_ok());
        assert!(
            table::short("0".repeat(64)).len() >= ABBREVIATION,
            "tables print less than is taken"
        );
    }

    #[test]
    fn the_page_before_some_digits_ends_just_before_them() {
        let id = before("ab01").flatten().expect("an id");
        assert!(id.to_string().starts_with("ab00ffff"));
        assert_eq!(before("000"), Some(None));
        assert_eq!(before("xyz"), None);
    }
}
