//! Both roles in one process, for a try-out: the same two stores and the same socket between them.
//! When one of them cannot go on, both end.

use thiserror::Error;

use super::{
    api::{self, RunError},
    gatekeeper::{self, GatekeeperError},
};
use crate::{
    config::{Config, ConfigError},
    shutdown::{Shutdown, Stopper},
};

/// Why the process ended early.
#[derive(Debug, Error)]
pub enum BothError {
    /// A section is missing.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The letter box.
    #[error(transparent)]
    LetterBox(#[from] RunError),
    /// The gatekeeper.
    #[error(transparent)]
    Gatekeeper(#[from] GatekeeperError),
}

/// Runs both until the process is to stop.
pub async fn run(config: &Config, shutdown: Shutdown, stopper: &Stopper) -> Result<(), BothError> {
    let gate = config.gatekeeper()?;
    let letter_box = api::start(config, &shutdown).await?;
    let ended = gatekeeper::run(gate, shutdown).await;
    stopper.stop();
    letter_box.finish().await;
    Ok(ended?)
}
