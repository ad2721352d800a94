//! Whose fault it is when a turn does not go on: what follows is decided where it is caught.

use super::RunError;
use crate::repository::RepositoryError;

/// Whose fault a turn's trouble is.
pub(super) enum Trouble {
    /// The world's: the turn goes on without.
    World(RepositoryError),
    /// Ours: the agent ends and says why.
    Own(RunError),
}

impl From<RepositoryError> for Trouble {
    fn from(error: RepositoryError) -> Self {
        Self::World(error)
    }
}

impl From<RunError> for Trouble {
    fn from(error: RunError) -> Self {
        Self::Own(error)
    }
}
