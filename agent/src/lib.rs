//! The endpoint agent as a library: what it decides is in [`core`], what touches the machine stands
//! beside it.

pub mod core;
pub mod status;
pub mod tuf_store;
