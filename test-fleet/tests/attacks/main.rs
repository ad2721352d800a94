//! The attack suite: one entry of the list of attacks after the other, each with the real agent
//! against a hostile server, or the real server against a hostile client. What a test asserts is what
//! the device does, what it tells its owner, and what the operator sees.
//!
//! The table of `test-fleet/HANDBOOK.md` lists attack, defence and test; [`handbook`] checks it.

#![expect(
    clippy::type_complexity,
    reason = "cases stand in tables: what is done, and what is said"
)]

mod disk_and_archives;
mod forge;
mod handbook;
mod keys_and_roles;
mod letters_and_identity;
mod metadata;
mod mirrors;
mod operators;
mod release_and_gate;
mod stage;
mod stolen_server;
mod time;
