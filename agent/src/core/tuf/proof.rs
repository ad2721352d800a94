//! One file, from source after source, until its bytes prove to be what its parent names: what one
//! source did, the next one makes good.
//!
//! It asks a bounded number of sources, and no other file than the one that is due: nothing of a
//! source that lied is kept.

use lockgate_shared::failure::Chain;

use super::error::TufError;
use super::{Another, Fetch, FetchError, SOURCES_PER_FILE};

/// Where below the repository's base a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Metadata,
    Targets,
}

/// Reads `name` until `prove` accepts what came, and gives what it made of it, with the bytes.
pub(super) fn proved<T>(
    fetch: &mut dyn Fetch,
    (place, name): (Place, &str),
    limit: u64,
    prove: impl Fn(&[u8]) -> Result<T, TufError>,
) -> Result<(T, Vec<u8>), TufError> {
    let mut asked = 1;
    loop {
        let bytes = read(fetch, (place, name), limit)?;
        match prove(&bytes) {
            Ok(proven) => return Ok((proven, bytes)),
            Err(why) => match fetch.refused(&Chain(&why)) {
                Another::Source if asked < SOURCES_PER_FILE => asked += 1,
                Another::Source | Another::Nobody => return Err(why),
            },
        }
    }
}

/// Reads a file, trusting nobody to have kept to the limit.
pub(super) fn read(
    fetch: &mut dyn Fetch,
    (place, name): (Place, &str),
    limit: u64,
) -> Result<Vec<u8>, TufError> {
    let failed = |source| TufError::Fetch { name: name.to_owned(), source };
    let bytes = match place {
        Place::Metadata => fetch.metadata(name, limit),
        Place::Targets => fetch.target(name, limit),
    };
    let bytes = bytes.map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(failed(FetchError::TooLong { limit }));
    }
    Ok(bytes)
}
