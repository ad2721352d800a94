//! The letter box as a process: store, sweep, gatekeeper's socket, network. It stops in the opposite
//! order, so that what was acknowledged is swept before the store closes.

use std::{sync::Arc, time::Duration};

use axum::Router;
use thiserror::Error;
use tokio::net::TcpListener;

use super::{Shutdown, Stopper};
use crate::{
    api::{self, tls},
    config::{Config, ConfigError},
    letters::{LetterBox, OpenError},
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
    /// There is no TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The admin API cannot start.
    #[error(transparent)]
    Admin(#[from] api::admin::letter_box::OpenError),
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

/// Opens the store and starts to listen. `others` makes the routes besides the device's.
pub async fn start(
    config: &Config,
    shutdown: &Shutdown,
    others: impl AsyncFnOnce(&Arc<LetterBox>) -> Result<Router, RunError>,
) -> Result<Running, RunError> {
    let tls = tls::server_config(config.tls()?)?;
    let letter_box = LetterBox::open(config)?;
    let opened = listen(config, &letter_box).await;
    let (listener, address, gate) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            letter_box.close();
            return Err(error);
        }
    };
    tracing::info!(%address, "the letter box listens");
    let router = match others(&letter_box).await {
        Ok(others) => api::router(Arc::clone(&letter_box), others),
        Err(error) => {
            letter_box.close();
            return Err(error);
        }
    };
    let parts = vec![
        tokio::spawn(api::serve(listener, tls, router, shutdown.clone())),
        tokio::spawn(socket::serve(gate, Arc::clone(&letter_box), shutdown.clone())),
        tokio::spawn(sweep(Arc::clone(&letter_box), shutdown.clone())),
        tokio::spawn(policies(Arc::clone(&letter_box), shutdown.clone())),
    ];
    Ok(Running { letter_box, address, parts })
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
pub async fn run(
    config: &Config,
    mut shutdown: Shutdown,
    others: impl AsyncFnOnce(&Arc<LetterBox>) -> Result<Router, RunError>,
) -> Result<(), RunError> {
    let running = start(config, &shutdown, others).await?;
    shutdown.wait().await;
    running.finish().await;
    Ok(())
}

/// Stops on SIGTERM and SIGINT.
pub async fn signals(stopper: Stopper) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stopper.stop();
    Ok(())
}

async fn sweep(letter_box: Arc<LetterBox>, mut shutdown: Shutdown) {
    let every = Duration::from_secs(letter_box.api().sweep_s.0);
    while tokio::time::timeout(every, shutdown.wait()).await.is_err() {
        if let Err(error) = letter_box.sweep().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a sweep failed: the next one writes its rows");
        }
    }
}

async fn policies(letter_box: Arc<LetterBox>, mut shutdown: Shutdown) {
    while tokio::time::timeout(POLICY_EVERY, shutdown.wait()).await.is_err() {
        let letter_box = Arc::clone(&letter_box);
        if tokio::task::spawn_blocking(move || letter_box.refresh_policy()).await.is_err() {
            return;
        }
    }
}
