//! Lockgate's server in its two roles, and the operator's tool.
//!
//! The letter box ([`api`]) carries letters and passes on what restricts; the gatekeeper ([`engine`])
//! verifies them, asks [`rollout`] and signs how far a rollout is open. They share no store and meet
//! only in [`stream`].

pub mod acts;
pub mod acts_text;
pub mod api;
pub mod audit;
pub mod ceremony;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dice;
pub mod engine;
pub mod gatekeeper_store;
pub mod keys;
pub mod letters;
pub mod names;
pub mod plain;
pub mod preflight;
pub mod registry;
pub mod release;
pub mod roles;
pub mod rollout;
pub mod shutdown;
pub mod signer;
pub mod socket;
pub mod span;
pub mod status;
pub mod store;
pub mod stream;
pub mod tuf;
pub mod whole_folder;
