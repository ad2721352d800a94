//! Releases, made and signed away from the server: [`pack`] makes the archive, [`plan`] reads what
//! the author decided, [`create()`] joins both to a manifest, [`lint`] warns of what is allowed and
//! unwise, [`mod@recall`] leads back from a release, [`sign`] makes the next version of the product's TUF role and counts its signatures.
//!
//! Nothing here speaks to a server; what leaves is a file, `publication.json`, and it exists only
//! once enough authors have signed.

mod create;
pub mod lint;
pub mod pack;
pub mod plan;
pub mod recall;
pub mod role;
pub mod sign;
mod text;

pub use create::{
    ARTIFACTS_FOLDER, ArtifactSource, Create, CreateError, Created, MANIFEST_FILE, create,
};
pub use text::describe;
