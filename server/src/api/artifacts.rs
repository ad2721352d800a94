//! Artifacts by the SHA-256 of their bytes: `GET /artifacts/<sha256>`. The hash is name and validator
//! at once, so a half-finished download goes on with the same bytes or not at all.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use lockgate_shared::id::Digest;

use super::{
    file::{self, Served},
    problem::Trouble,
    repository::FOREVER,
};
use crate::letters::LetterBox;

/// The folder of artifacts within the letter box's own.
pub const FOLDER: &str = "artifacts";

/// `GET /artifacts/<sha256>`
pub async fn artifact(
    State(letter_box): State<Arc<LetterBox>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    let digest: Digest =
        name.parse().map_err(|_| Trouble::not_found("an artifact is named by its SHA-256"))?;
    // Written out again, so that there is one name and one validator for each artifact.
    let name = digest.to_string();
    let served = Served {
        path: letter_box.api().state.join(FOLDER).join(&name),
        etag: Some(name),
        content_type: "application/octet-stream",
        cache_control: FOREVER,
    };
    file::answer(served, &headers).await
}
