//! agent

pub mod facts;
pub mod health;
pub mod slots;
pub mod unpack;
