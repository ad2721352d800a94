//! The compressed bytes on their way in: counted against the signed length and hashed while they
//! pass, and the frame's head remembered. It never hands on a byte beyond the signed length.

use std::io::{self, Read};

use lockgate_shared::id::Digest;
use sha2::{Digest as _, Sha256};

use super::UnpackError;

/// As long as the head of a zstd frame can be.
const HEAD: usize = 18;

/// A reader that counts and hashes.
pub(super) struct Source<R> {
    inner: R,
    hash: Sha256,
    signed: u64,
    taken: u64,
    head: Vec<u8>,
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
        let head = Vec::with_capacity(HEAD);
        Self { inner, hash: Sha256::new(), signed, taken: 0, head, state: State::Flowing }
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

    /// Whether what came begins like a frame with a larger window than this, in bytes.
    pub(super) fn window_above(&self, most: u64) -> bool {
        window(&self.head) > Some(most)
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
        let came = buffer.get(..count).unwrap_or_default();
        self.head.extend(came.iter().take(HEAD.saturating_sub(self.head.len())));
        self.hash.update(came);
        Ok(count)
    }
}

/// The window that a zstd frame asks for, in bytes (RFC 8878, 3.1.1.1), if this is the head of one.
fn window(head: &[u8]) -> Option<u64> {
    let [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] = head else { return None };
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // Without a window of its own, the whole content is one.
    let name = match descriptor & 3 {
        3 => 4,
        short => usize::from(short),
    };
    let size = rest.get(name..name + (1 << (descriptor >> 6)))?;
    let sum = size.iter().rev().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    Some(if size.len() == 2 { sum + 256 } else { sum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_s_window_is_read_in_each_of_its_forms() {
        let of = |rest: &[u8]| window(&[&[0x28, 0xb5, 0x2f, 0xfd], rest].concat());
        assert_eq!(of(&[0x00, 0x00]), Some(1024));
        assert_eq!(of(&[0x00, 0x6b]), Some((8 << 20) / 8 * 11));
        assert_eq!(of(&[0x00, 0xff]), Some((1 << 41) / 8 * 15));
        assert_eq!(of(&[0x20, 7]), Some(7));
        assert_eq!(of(&[0x61, 9, 1, 1]), Some(513));
        assert_eq!(of(&[0xa3, 1, 2, 3, 4, 0, 0, 0, 1]), Some(1 << 24));
        assert_eq!(of(&[0xe0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 32));
        assert_eq!(of(&[0xe0, 0, 0, 0]), None);
        assert_eq!(window(b"\x28\xb5\x2f"), None);
        assert_eq!(window(b"PK\x03\x04\x00\x00"), None);
    }
}
