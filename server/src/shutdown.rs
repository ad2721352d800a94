//! How a process is told to stop: one says so, and every part of it hears. Nothing is ended here.

use std::sync::Arc;

use tokio::sync::watch;

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
