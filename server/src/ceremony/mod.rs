//! The key ceremony: a repository's keys, its first TUF metadata and its policy, made in one go on a
//! machine that the server never sees.
//!
//! [`plan`] reads what people decided; [`init()`] makes the folder; [`metadata`] writes and signs TUF
//! roles, here and for releases. Re-signing and new products are other acts, not part of this.

mod init;
pub mod metadata;
pub mod plan;

pub use init::{Ceremony, CeremonyError, ROLLOUTS_ROLE, init};
