//! A server that means harm: it speaks TLS with a certificate that devices trust, because whoever
//! steals a server has its key, and answers as a test wants. What it is not told to answer it passes
//! on to the true server, so that letters arrive and operators see what devices say of it.
//!
//! | to find out | open |
//! |---|---|
//! | how connections are taken, kept and passed on | [`front`] |
//! | what a request and a hostile answer are on the wire | [`http`] |

pub mod front;
pub mod http;

pub use front::Front;
pub use http::{Asked, Reply};
