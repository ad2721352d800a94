//! The letter box as a process: store, sweep, gatekeeper's socket, network. It stops in the opposite
//! order, so that what was acknowledged is swept before the store closes.

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tokio::net::TcpListener;

use crate::{
    api::{
        self,
        admin::{Admin, letter_box::LetterDesk},
        artifacts, tls,
    },
    audit::{AuditError, Chain},
    clock,
    config::{Config, ConfigError},
    letters::{LetterBox, OpenError},
    registry::{Registry, RegistryError},
    shutdown::Shutdown,
    socket,
};

/// How often the policy is looked for: a new one counts within a minute even while the gatekeeper
/// does not report.
const POLICY_EVERY: Duration = Duration::from_secs(30);

/// Why the letter box does not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// A section is missing.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The audit chain does not open.
    #[error("the letter box's audit chain cannot be used")]
    Audit(#[from] AuditError),
    /// The small tables cannot be read.
    #[error("tokens and restrictions cannot be loaded")]
    Registry(#[from] RegistryError),
    /// There is no TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// There is no socket.
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    /// The port cannot be had.
    #[error("cannot listen on `{address}`\nhint: choose another `api.listen`")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A letter box that listens.
#[derive(Debug)]
pub struct Running {
    /// Its state.
    pub letter_box: Arc<LetterBox>,
    /// Where it listens.
    pub address: std::net::SocketAddr,
    parts: Vec<tokio::task::JoinHandle<()>>,
}

/// Opens the store and starts to listen. Orders are in force before the first device is answered.
pub async fn start(config: &Config, shutdown: &Shutdown) -> Result<Running, RunError> {
    let tls = tls::server_config(config.tls()?)?;
    let letter_box = LetterBox::open(config)?;
    let opened = open_rest(config, &letter_box).await;
    let Rest { listener, address, gate, desk, registry } = match opened {
        Ok(opened) => opened,
        Err(error) => {
            letter_box.close();
            return Err(error);
        }
    };
    let admin = Admin {
        registry: Arc::clone(&registry),
        desk: Arc::clone(&desk) as _,
        artifacts: letter_box.api().state.join(artifacts::FOLDER),
    };
    tracing::info!(%address, "the letter box listens");
    let router = api::router(Arc::clone(&letter_box), Arc::new(admin));
    let parts = vec![
        tokio::spawn(api::serve(listener, tls, router, shutdown.clone())),
        tokio::spawn(socket::serve(gate, Arc::clone(&letter_box), shutdown.clone())),
        tokio::spawn(sweep(Arc::clone(&letter_box), shutdown.clone())),
        tokio::spawn(policies(Arc::clone(&letter_box), shutdown.clone())),
        tokio::spawn(follow(desk, registry, shutdown.clone())),
    ];
    Ok(Running { letter_box, address, parts })
}

/// What is open besides the store.
struct Rest {
    listener: TcpListener,
    address: std::net::SocketAddr,
    gate: tokio::net::UnixListener,
    desk: Arc<LetterDesk>,
    registry: Arc<Registry>,
}

async fn open_rest(config: &Config, letter_box: &Arc<LetterBox>) -> Result<Rest, RunError> {
    let chain = Chain::open(&letter_box.api().state.join("audit.log"))?;
    let desk = Arc::new(LetterDesk::new(Arc::clone(letter_box), chain));
    let registry = Arc::new(desk.registry().await?);
    let (listener, address, gate) = listen(config, letter_box).await?;
    Ok(Rest { listener, address, gate, desk, registry })
}

async fn listen(
    config: &Config,
    letter_box: &LetterBox,
) -> Result<(TcpListener, std::net::SocketAddr, tokio::net::UnixListener), RunError> {
    let address = config.api()?.listen;
    let fail = |source| RunError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    let gate = socket::bind(&letter_box.api().socket)?;
    Ok((listener, bound, gate))
}

impl Running {
    /// Waits until everything has stopped, sweeps, and closes the store.
    pub async fn finish(self) {
        for part in self.parts {
            if let Err(error) = part.await {
                tracing::error!(error = &error as &dyn std::error::Error, "a part ended badly");
            }
        }
        if let Err(error) = self.letter_box.sweep().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the last sweep failed: the next start replays more");
        }
        let letter_box = self.letter_box;
        let closed = tokio::task::spawn_blocking(move || letter_box.close()).await;
        if closed.is_err() {
            tracing::error!("the store was not closed in order");
        }
        tracing::info!("the letter box has stopped");
    }
}

/// Runs the letter box until the process is to stop.
pub async fn run(config: &Config, mut shutdown: Shutdown) -> Result<(), RunError> {
    let running = start(config, &shutdown).await?;
    shutdown.wait().await;
    running.finish().await;
    Ok(())
}

async fn sweep(letter_box: Arc<LetterBox>, mut shutdown: Shutdown) {
    let every = Duration::from_secs(letter_box.api().sweep_s.0);
    while tokio::time::timeout(every, shutdown.wait()).await.is_err() {
        if let Err(error) = letter_box.sweep().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a sweep failed: the next one writes its rows");
        }
        sweep_artifacts(letter_box.api().state.join(artifacts::FOLDER)).await;
    }
}

async fn sweep_artifacts(folder: std::path::PathBuf) {
    let swept = tokio::task::spawn_blocking(move || artifacts::sweep(&folder, clock::now())).await;
    match swept {
        Ok(Ok(0)) => {}
        Ok(Ok(gone)) => tracing::info!(gone, "what broken uploads left was removed"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "what broken uploads left could not be removed");
        }
        Err(error) => tracing::error!(%error, "a sweep of broken uploads broke off"),
    }
}

async fn policies(letter_box: Arc<LetterBox>, mut shutdown: Shutdown) {
    while tokio::time::timeout(POLICY_EVERY, shutdown.wait()).await.is_err() {
        let letter_box = Arc::clone(&letter_box);
        let read = tokio::task::spawn_blocking(move || letter_box.refresh_policy()).await;
        if let Err(error) = read {
            tracing::error!(%error, "reading the policy broke off: it is tried again");
        }
    }
}

async fn follow(desk: Arc<LetterDesk>, registry: Arc<Registry>, mut shutdown: Shutdown) {
    tokio::select! {
        () = desk.follow(&registry) => {}
        () = shutdown.wait() => {}
    }
}
