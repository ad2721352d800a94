//! The server's roles as processes: what starts, in which order it stops. Each role has a file; here
//! is only how they are told to stop.

use std::sync::Arc;

use tokio::sync::watch;

pub mod api;
pub mod both;
pub mod gatekeeper;

/// Tells every part of a process that it is to stop.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Hears that the process is to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Stopper {
    /// A pair.
    pub fn new() -> (Arc<Self>, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (Arc::new(Self(sender)), Shutdown(receiver))
    }

    /// Tells everyone to stop.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Waits until the process is to stop. Whoever could say so being gone means the same.
    pub async fn wait(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

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
