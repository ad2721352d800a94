//! The letter box's HTTP side.

pub mod admin;
