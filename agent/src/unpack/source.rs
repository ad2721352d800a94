//! The compressed bytes on their way in: counted against the signed length and hashed while they
//! pass. It never hands on a byte beyond the signed length.

use std::io::{self, Read};

use lockgate_shared::id::Digest;
use sha2::{Digest as _, Sha256};

use super::UnpackError;

/// A reader that counts and hashes.
pub(super) struct Source<R> {
    inner: R,
    hash: Sha256,
    signed: u64,
    taken: u64,
    state: State,
}

enum State {
    Flowing,
    Ended,
    TooLong,
    Broken(io::ErrorKind, String),
}

impl<R: Read> Source<R> {
    pub(super) fn new(inner: R, signed: u64) -> Self {
        Self { inner, hash: Sha256::new(), signed, taken: 0, state: State::Flowing }
    }

    /// What went wrong on the way in, if that is the cause of a failure further on. A short
    /// transfer is the cause only when decoding `failed`: a whole frame may not need every byte.
    pub(super) fn breach(&self, failed: bool) -> Option<UnpackError> {
        match &self.state {
            State::TooLong => Some(UnpackError::TooLong { signed: self.signed }),
            State::Broken(kind, text) => {
                Some(UnpackError::Transfer(io::Error::new(*kind, text.clone())))
            }
            State::Ended if failed && self.taken < self.signed => {
                Some(UnpackError::Truncated { signed: self.signed, found: self.taken })
            }
            State::Ended | State::Flowing => None,
        }
    }

    /// The length and digest of all that came.
    pub(super) fn finish(self) -> (u64, Digest) {
        (self.taken, Digest(self.hash.finalize().into()))
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.inner.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.state = State::Broken(error.kind(), error.to_string());
                return Err(error);
            }
        };
        if count == 0 {
            self.state = State::Ended;
            return Ok(0);
        }
        self.taken = self.taken.saturating_add(count as u64);
        if self.taken > self.signed {
            self.state = State::TooLong;
            return Err(io::Error::other("longer than signed"));
        }
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}
