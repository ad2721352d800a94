//! The gatekeeper as a process: its loop on a thread of its own, told to end when the process is.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use thiserror::Error;

use crate::{
    config::Gatekeeper,
    engine::{self, EngineError},
    shutdown::Shutdown,
};

/// Why the gatekeeper ended early.
#[derive(Debug, Error)]
pub enum GatekeeperError {
    /// Something on this host failed.
    #[error("the gatekeeper cannot go on")]
    Engine(#[from] EngineError),
    /// A fault of ours.
    #[error("the gatekeeper's loop ended by a panic")]
    Panic,
}

/// Runs the gatekeeper until the process is to stop, or it cannot go on.
pub async fn run(config: &Gatekeeper, mut shutdown: Shutdown) -> Result<(), GatekeeperError> {
    let stop = Arc::new(AtomicBool::new(false));
    let (config, told) = (config.clone(), Arc::clone(&stop));
    let mut engine = tokio::task::spawn_blocking(move || engine::run(&config, &told));
    let ended = tokio::select! {
        ended = &mut engine => ended,
        () = shutdown.wait() => {
            stop.store(true, Ordering::Relaxed);
            engine.await
        }
    };
    match ended {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(GatekeeperError::Panic),
    }
}
