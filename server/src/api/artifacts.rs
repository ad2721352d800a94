//! Artifacts by the SHA-256 of their bytes: `GET /artifacts/<sha256>`. The hash is name and validator
//! at once, so a half-finished download goes on with the same bytes or not at all. What broken uploads
//! left beside them is swept.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path as FilePath, sync::Arc};

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use lockgate_shared::{
    id::Digest,
    time::{Moment, Seconds},
};

use super::{
    file::{self, Served},
    problem::Trouble,
    repository::FOREVER,
};
use crate::letters::LetterBox;

/// The folder of artifacts within the letter box's own.
pub const FOLDER: &str = "artifacts";

/// How the name of a file ends that is being uploaded.
pub const PART: &str = ".part";

/// How long a file that is being uploaded may go without a byte: an upload that stands still is cut off
/// within minutes, so an hour is past any that lives.
const PART_AGE: Seconds = Seconds(3_600);

/// Removes what broken uploads left in the folder of artifacts: a sender that hung up, a server that was
/// killed. Says how many files.
pub fn sweep(folder: &FilePath, now: Moment) -> io::Result<u32> {
    let mut gone = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().ends_with(PART) {
            continue;
        }
        // One that has just become an artifact is no longer there.
        let Ok(facts) = entry.metadata() else { continue };
        if Moment(facts.mtime()).plus(PART_AGE) <= now {
            fs::remove_file(entry.path())?;
            gone += 1;
        }
    }
    Ok(gone)
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn what_a_broken_upload_left_goes_and_what_is_under_way_or_whole_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let digest = Digest::of(b"bytes").to_string();
        for name in [digest.clone(), format!("{digest}.0badcafe{PART}")] {
            fs::write(folder.path().join(name), b"by").expect("a file");
        }
        let left = || fs::read_dir(folder.path()).expect("a folder").count();
        let now = clock::now();
        assert_eq!(sweep(folder.path(), now).expect("swept"), 0);
        assert_eq!(left(), 2, "it may be under way");
        assert_eq!(sweep(folder.path(), now.plus(Seconds(3_700))).expect("swept"), 1);
        assert_eq!(left(), 1);
        assert!(folder.path().join(digest).exists(), "an artifact is kept, however old");
    }
}
