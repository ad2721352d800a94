//! The server's roles as processes: what starts, in which order it stops. Each role has a file; here
//! is only which signals stop them.

use std::sync::Arc;

use crate::shutdown::Stopper;

pub mod api;
pub mod both;
pub mod gatekeeper;

/// Stops on SIGTERM and SIGINT.
pub async fn signals(stopper: Arc<Stopper>) -> std::io::Result<()> {
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
