//! The repository behind the transport, as the TUF workflow reads it: metadata and small targets, each
//! read with a deadline.

use std::fmt::Display;

use lockgate_shared::failure::Chain;

use super::{ANSWER, Transport, TransportError};
use crate::core::tuf::{Another, Fetch, FetchError};

/// Reads the repository through a transport: the mirrors in order, then the server.
#[derive(Debug)]
pub struct Repository<'a>(pub &'a mut Transport);

impl Fetch for Repository<'_> {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        self.read(&format!("/repo/metadata/{name}"), max)
    }

    fn target(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        self.read(&format!("/repo/targets/{path}"), max)
    }

    fn refused(&mut self, why: &dyn Display) -> Another {
        self.0.refused(&why.to_string())
    }
}

impl Repository<'_> {
    fn read(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        self.0.get(path, max, ANSWER).map_err(|error| match error.gist() {
            Gist::NotFound => FetchError::NotFound,
            Gist::TooLong => FetchError::TooLong { limit: max },
            Gist::Other => FetchError::Failed(Chain(&error).to_string()),
        })
    }
}

/// What the TUF workflow tells apart.
enum Gist {
    NotFound,
    TooLong,
    Other,
}

impl TransportError {
    const fn gist(&self) -> Gist {
        if matches!(self, Self::NotFound { .. }) {
            Gist::NotFound
        } else if matches!(self, Self::TooLong { .. }) {
            Gist::TooLong
        } else {
            Gist::Other
        }
    }
}
