//! What the agent decides: plain data in, plain data out. Nothing in here reads a clock, a disk, a
//! socket or a source of randomness.

pub mod tuf;
