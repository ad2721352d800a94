//! agent

pub mod facts;
pub mod health;
