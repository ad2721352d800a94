//! How bytes come and go: TLS 1.3 to the server and its mirrors, every answer bounded while it streams,
//! every wait with an end.
//!
//!
//! The facade is synchronous: each call drives a runtime on the caller's own thread until it has an
//! answer. One connection to each origin is kept within a turn and closed at its end. What arrives is
//! believed by nobody here: signatures are checked further in. It follows no redirect, offers no older
//! TLS, and knows no authority that the owner's `ca` file does not name.

mod error;
mod origin;

pub use error::{Remedy, TransportError};
pub use origin::{MAX_ORIGIN, Origin, OriginError};
