//! The key ceremony: a repository's keys, its first TUF metadata and its policy, made in one go on a
//! machine that the server never sees.
//!
//! [`plan`] reads what people decided; [`init()`] makes the folder; [`change`] makes the next versions,
//! for as long as the repository lives; [`charter`] is who holds which role, and [`words`] says what a
//! change changes in it; [`doctor`] says what has to be done soon. The roles are written and signed by
//! [`metadata`].

pub mod change;
pub mod charter;
pub mod doctor;
mod init;
pub mod plan;
pub mod words;

pub use crate::tuf::metadata;
pub use init::{Ceremony, CeremonyError, init};
