//! agent

pub mod facts;
