//! The repository's folder, read-only: `GET /repo/metadata/<file>` and `GET /repo/targets/<path>`.
//! Any web server or CDN could serve it as well. Names that could leave the folder are not looked up.

use std::{path::PathBuf, sync::Arc};

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};

use super::{
    file::{self, Served},
    problem::Trouble,
};
use crate::letters::LetterBox;

/// A consistent snapshot's file never changes under its name.
pub(super) const FOREVER: &str = "public, max-age=31536000, immutable";
/// The timestamp does: whoever keeps it asks each time.
const NEVER: &str = "no-cache";
/// Folders in a target's path: `releases/<product>/<file>` has two.
const DEPTH: usize = 8;

/// `GET /repo/metadata/<file>`
pub async fn metadata(
    State(letter_box): State<Arc<LetterBox>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    let path = letter_box.api().repository.join("metadata").join(checked(&name, 1)?);
    let versioned = name.starts_with(|c: char| c.is_ascii_digit());
    let cache_control = if versioned { FOREVER } else { NEVER };
    let content_type = "application/json";
    file::answer(Served { path, etag: None, content_type, cache_control }, &headers).await
}

/// `GET /repo/targets/<path>`
pub async fn target(
    State(letter_box): State<Arc<LetterBox>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    let path = letter_box.api().repository.join("targets").join(checked(&name, DEPTH)?);
    let content_type =
        if name.ends_with(".json") { "application/json" } else { "application/octet-stream" };
    let served = Served { path, etag: None, content_type, cache_control: FOREVER };
    file::answer(served, &headers).await
}

/// A path below a folder, if every part of it is a plain name.
fn checked(name: &str, depth: usize) -> Result<PathBuf, Trouble> {
    let plain = |part: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.len() <= 255
            && part.chars().all(good)
    };
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() <= depth && parts.iter().all(|part| plain(part)) {
        Ok(parts.iter().collect())
    } else {
        Err(Trouble::not_found("no such file is published"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_looked_up() {
        for bad in ["", "..", "../x", "a/../b", "/etc/passwd", "a//b", ".hidden", "a\0", "a/", "ä"]
        {
            assert!(checked(bad, DEPTH).is_err(), "{bad:?} was looked up");
        }
        assert!(checked("1.root.json", 1).is_ok());
        assert!(checked("releases/app/ab12.1.0.0.json", DEPTH).is_ok());
        assert!(checked("a/b", 1).is_err());
    }
}
