//! What the agent decides: plain data in, plain data out. Nothing in here reads a clock, a disk, a
//! socket or a source of randomness.
//!
//! | to find out | open |
//! |---|---|
//! | what a product does next | [`machine`], in the words of [`state`] |
//! | whether a release on trial is well | [`trial`] |
//! | which release a device goes for, and every reason against the others | [`choice`] |
//! | when to poll next | [`schedule`] |
//! | when the device is usually on | [`habit`] |
//! | whether its state is an old copy | [`age`] |
//! | how the agent's own replacement is guarded | [`handover`] |
//! | which metadata a device believes | [`tuf`] |

pub mod age;
pub mod choice;
pub mod habit;
pub mod handover;
pub mod kept;
pub mod machine;
pub mod recall;
pub mod schedule;
pub mod state;
pub mod trial;
pub mod tuf;
