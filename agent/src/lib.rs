//! The endpoint agent as a library: what it decides is in [`core`], what touches the machine stands
//! beside it.

pub mod core;
pub mod facts;
#[cfg(feature = "faults")]
pub mod faults;
pub mod health;
pub mod journal;
pub mod slots;
pub mod status;
pub mod tuf_store;
pub mod unpack;
