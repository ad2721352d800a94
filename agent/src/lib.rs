//! The agent: polls, verifies, installs into the other slot, proves itself, and falls back on its
//! own. One thread; it wakes for a poll, for an order to stop, and for nothing else.
//!
//! | to find out | open |
//! |---|---|
//! | what the owner may configure, and how mistakes are reported | [`config`] |
//! | how bytes come and go: TLS 1.3, limits, resumed downloads, waiting | [`transport`] |
//! | what is said on standard error | [`log`] |
//! | where the machine is asked for time and chance | [`clock`], [`dice`] |

pub mod clock;
pub mod config;
pub mod dice;
pub mod log;
pub mod transport;
