//! `lockgate-server`: the letter box, the gatekeeper, or both in one process, and what it takes to
//! set one up. It only reads its configuration and starts a role; nothing is decided here.

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};
use lockgate_server::{
    api::tls::{self, TlsError},
    cli::{
        exit,
        offline::{self, Answer},
    },
    clock,
    config::{Api as ApiConfig, Config, ConfigError},
    dice, names,
    registry::{NewToken, create_token, rows::TokenRole},
    release::role::LocalRepository,
    roles::{self, api::RunError, both::BothError},
    shutdown::{Shutdown, Stopper},
    store::sqlite::SqliteStore,
};
use lockgate_shared::{failure::Chain, id::TenantId};
use rustls_pki_types::ServerName;
use serde_json::json;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// Any error that ends the program: its chain is printed, nothing is looked at.
type Failure = Box<dyn Error + Send + Sync>;

/// The exit codes, as `--help` shows them.
const EXIT_CODES: &str = "\
exit codes:
  0  done, or ended as told
  1  failed for another reason than those below
  2  the command line is wrong
  3  the configuration, or a file that it names, is wrong";

/// Lockgate's server.
#[derive(Debug, Parser)]
#[command(name = "lockgate-server", version, after_help = EXIT_CODES)]
struct Arguments {
    /// Print JSON for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the letter box: takes letters, serves repository, artifacts and the admin API
    Api(ConfigFile),
    /// Run the gatekeeper: verifies letters and acts, signs how far rollouts are open
    Gatekeeper(ConfigFile),
    /// Run both in one process, with the same socket between them: for a try-out
    Run(ConfigFile),
    /// Make a certificate for a try-out: ca.pem, server.pem, server.key
    TlsInit {
        /// The folder to write into
        #[arg(long)]
        dir: PathBuf,
        /// A host name or IP address; may be repeated
        #[arg(long = "name", required = true, value_parser = host)]
        names: Vec<String>,
    },
    /// Make API tokens while no server runs
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Read the configuration, say what is wrong with it, and end
    CheckConfig(ConfigFile),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it, once
    Create {
        #[command(flatten)]
        config: ConfigFile,
        /// The token's name, as the policy gives it to a person
        #[arg(long)]
        name: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: TokenRole,
        /// Its tenant
        #[arg(long)]
        tenant: Option<TenantId>,
    },
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long)]
    config: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { json, command } = match exit::parsed() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    start_log();
    match run(command) {
        Ok(Answer { text, json: whole }) => {
            let said = if json { format!("{whole:#}\n") } else { text };
            // Whoever closed standard output has seen enough.
            let _ = io::stdout().write_all(said.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = exit_code(&*error);
            exit::tell(&Chain(&*error).to_string(), code, json.into());
            ExitCode::from(code)
        }
    }
}

/// The code for an error, as documented above.
fn exit_code(error: &(dyn Error + Send + Sync + 'static)) -> u8 {
    let wrong = |error: &RunError| matches!(error, RunError::Config(_) | RunError::Tls(_));
    let configured = error.is::<ConfigError>()
        || error.is::<TlsError>()
        || error.is::<AnchorError>()
        || error.downcast_ref().is_some_and(wrong)
        || match error.downcast_ref() {
            Some(BothError::Config(_)) => true,
            Some(BothError::LetterBox(error)) => wrong(error),
            Some(BothError::Gatekeeper(_)) | None => false,
        };
    match error.downcast_ref() {
        Some(offline::CliError::NoTenant { .. }) => 2,
        Some(_) | None if configured => 3,
        Some(_) | None => 1,
    }
}

/// The trust anchor that a section names.
#[derive(Debug, Error)]
#[error(
    "cannot read the trust anchor `{path}`\nhint: `lockgate repo init` makes it as `root.json`; `anchor` in the configuration names it",
    path = path.display()
)]
struct AnchorError {
    path: PathBuf,
    source: io::Error,
}

fn run(command: Command) -> Result<Answer, Failure> {
    match command {
        Command::Api(ConfigFile { config }) => until_signal(async |shutdown, _| {
            Ok(roles::api::run(&Config::load(&config)?, shutdown).await?)
        }),
        Command::Gatekeeper(ConfigFile { config }) => until_signal(async |shutdown, _| {
            let config = Config::load(&config)?;
            Ok(roles::gatekeeper::run(config.gatekeeper()?, shutdown).await?)
        }),
        Command::Run(ConfigFile { config }) => until_signal(async |shutdown, stopper| {
            Ok(roles::both::run(&Config::load(&config)?, shutdown, &stopper).await?)
        }),
        Command::TlsInit { dir, names } => {
            tls::init(&dir, &names, clock::now())?;
            Ok(Answer {
                text: format!("wrote ca.pem, server.pem and server.key into `{}`\n", dir.display()),
                json: json!({
                    "ca": dir.join("ca.pem"),
                    "certificate": dir.join("server.pem"),
                    "key": dir.join("server.key"),
                }),
            })
        }
        Command::Token { command: TokenCommand::Create { config, name, role, tenant } } => {
            let token = NewToken { name, role, tenant };
            let whole = json!({ "name": token.name, "role": token.role, "tenant": token.tenant });
            let secret = bootstrap_token(&config.config, token)?;
            let mut answer = Answer { text: format!("{secret}\n"), json: whole };
            if let Some(whole) = answer.json.as_object_mut() {
                whole.insert("token".into(), secret.into());
            }
            Ok(answer)
        }
        Command::CheckConfig(ConfigFile { config }) => {
            check_config(&Config::load(&config)?)?;
            Ok(Answer {
                text: format!("`{}` can be used\n", config.display()),
                json: json!({ "ok": true, "config": config }),
            })
        }
    }
}

/// A name that a client can ask for.
fn host(text: &str) -> Result<String, String> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write a host name or an IP address".to_owned()),
    }
}

/// Every file that a section names and that must be there before a role starts.
fn check_config(config: &Config) -> Result<(), Failure> {
    if let Some(tls) = &config.tls {
        tls::server_config(tls)?;
    }
    let anchors = [
        config.api.as_ref().map(|api| &api.anchor),
        config.gatekeeper.as_ref().map(|gatekeeper| &gatekeeper.anchor),
    ];
    for anchor in anchors.into_iter().flatten() {
        std::fs::metadata(anchor).map_err(|source| AnchorError { path: anchor.clone(), source })?;
    }
    Ok(())
}

/// A token written straight into the store, which must not be in use: the first one cannot come
/// through the API.
fn bootstrap_token(config: &Path, token: NewToken) -> Result<String, Failure> {
    let config = Config::load(config)?;
    let api = config.api()?;
    if let Some(tenant) = &token.tenant {
        check_tenant(api, tenant)?;
    }
    let state = &api.state;
    std::fs::create_dir_all(state)
        .map_err(|error| format!("cannot make the folder `{}`: {error}", state.display()))?;
    let mut store = SqliteStore::open(&state.join("store.db"))?;
    Ok(create_token(&mut store, token, &dice::bytes(), clock::now())?)
}

/// Refuses a tenant that the policy does not name: a token of it would restrict nobody's devices.
fn check_tenant(api: &ApiConfig, tenant: &TenantId) -> Result<(), Failure> {
    let copy = LocalRepository::open(&api.repository, Some(&api.anchor));
    let policy = match copy.and_then(|copy| copy.policy()) {
        Ok(policy) => policy,
        Err(error) => {
            tracing::warn!(
                "no policy could be read, so nobody looked whether there is a tenant `{tenant}`: {}",
                Chain(&error)
            );
            return Ok(());
        }
    };
    if policy.tenants.contains_key(tenant) {
        return Ok(());
    }
    let known = names::instead_of(tenant.as_str(), policy.tenants.keys().map(TenantId::as_str));
    Err(offline::CliError::NoTenant { tenant: tenant.clone(), known }.into())
}

/// Runs a role until SIGTERM or SIGINT, or until it ends by itself.
fn until_signal(
    role: impl AsyncFnOnce(Shutdown, Arc<Stopper>) -> Result<(), Failure>,
) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (stopper, shutdown) = Stopper::new();
        let signals = tokio::spawn(roles::signals(Arc::clone(&stopper)));
        let ended = role(shutdown, stopper).await;
        signals.abort();
        ended.map(|()| Answer { text: String::new(), json: json!({ "ok": true }) })
    })
}

/// Lines on standard error, for the service manager to keep; `LOCKGATE_LOG` says how much.
fn start_log() {
    let filter = EnvFilter::try_from_env("LOCKGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
