//! `lockgate-server`: the letter box, the gatekeeper, or both in one process, and what it takes to
//! set one up. It only reads its configuration and starts a role; nothing is decided here.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};
use lockgate_server::{
    api::tls,
    clock,
    config::Config,
    dice,
    registry::{NewToken, create_token, rows::TokenRole},
    roles::{self, Shutdown, Stopper},
    store::sqlite::SqliteStore,
};
use lockgate_shared::id::TenantId;
use tracing_subscriber::EnvFilter;

/// Any error that ends the program: its chain is printed, nothing is looked at.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Lockgate's server.
#[derive(Debug, Parser)]
#[command(name = "lockgate-server", version)]
struct Arguments {
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
        #[arg(long = "name", required = true)]
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
    start_log();
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_chain(&*error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
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
            println!("wrote ca.pem, server.pem and server.key into `{}`", dir.display());
            Ok(())
        }
        Command::Token { command: TokenCommand::Create { config, name, role, tenant } } => {
            let token = NewToken { name, role, tenant };
            println!("{}", bootstrap_token(&config.config, token)?);
            Ok(())
        }
        Command::CheckConfig(ConfigFile { config }) => {
            check_config(&Config::load(&config)?)?;
            println!("`{}` can be used", config.display());
            Ok(())
        }
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
        std::fs::metadata(anchor).map_err(|error| {
            format!("cannot read the trust anchor `{}`: {error}", anchor.display())
        })?;
    }
    Ok(())
}

/// A token written straight into the store, which must not be in use: the first one cannot come
/// through the API.
fn bootstrap_token(config: &Path, token: NewToken) -> Result<String, Failure> {
    let config = Config::load(config)?;
    let state = &config.api()?.state;
    std::fs::create_dir_all(state)
        .map_err(|error| format!("cannot make the folder `{}`: {error}", state.display()))?;
    let mut store = SqliteStore::open(&state.join("store.db"))?;
    Ok(create_token(&mut store, token, &dice::bytes(), clock::now())?)
}

/// Runs a role until SIGTERM or SIGINT, or until it ends by itself.
fn until_signal(
    role: impl AsyncFnOnce(Shutdown, Arc<Stopper>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (stopper, shutdown) = Stopper::new();
        let signals = tokio::spawn(roles::signals(Arc::clone(&stopper)));
        let ended = role(shutdown, stopper).await;
        signals.abort();
        ended
    })
}

/// Lines on standard error, for the service manager to keep; `LOCKGATE_LOG` says how much.
fn start_log() {
    let filter = EnvFilter::try_from_env("LOCKGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}

fn print_chain(error: &dyn std::error::Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}
