//! The operator's tool `lockgate`: what its commands take and print. [`offline`] holds those that
//! need no server.

pub mod offline;
