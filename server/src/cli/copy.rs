//! A copy of the repository from the server, for people who sign and for the doctor. What comes is not
//! believed: names that could leave a folder are refused here, signatures are the reader's to count.

use std::path::Path;

use lockgate_shared::id::Digest;
use serde_json::Value;

use super::{client::Client, exit::CliError};
use crate::{
    release::role::LocalRepository,
    tuf::{
        metadata::{metadata_path, target_path},
        trusted::Files,
    },
    whole_folder::{Readers, WholeFolder},
};

/// Roots that are followed: one a day for thirty years.
const ROOTS: u64 = 10_000;
/// Files in a copy: a thousand releases of each of a hundred products.
const FILES: usize = 100_000;

/// How much is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Metadata, and the policy.
    Policy,
    /// Manifests and rollout files too.
    Whole,
}

/// Fetches the repository's files as the server offers them now.
pub async fn fetch(client: &Client, depth: Depth) -> Result<Files, CliError> {
    let mut files = Files::new();
    for version in 1..=ROOTS {
        if !take(client, &mut files, &metadata_path("root", version)).await? {
            break;
        }
    }
    let timestamp = "metadata/timestamp.json";
    if !take(client, &mut files, timestamp).await? {
        return Err(odd("it has no timestamp: has the gatekeeper ever run?"));
    }
    let snapshot = json(&files, timestamp)?["signed"]["meta"]["snapshot.json"]["version"].as_u64();
    let snapshot = metadata_path("snapshot", snapshot.ok_or_else(|| odd("its timestamp"))?);
    take(client, &mut files, &snapshot).await?;
    let listed = json(&files, &snapshot)?;
    for (name, meta) in listed["signed"]["meta"].as_object().into_iter().flatten() {
        let role = name.strip_suffix(".json").ok_or_else(|| odd("its snapshot"))?;
        let version = meta["version"].as_u64().ok_or_else(|| odd("its snapshot"))?;
        let path = metadata_path(role, version);
        if !take(client, &mut files, &path).await? {
            return Err(odd(&format!("it lacks `{path}`")));
        }
        if depth == Depth::Whole || role == "targets" {
            targets(client, &mut files, &path).await?;
        }
    }
    Ok(files)
}

/// Writes a fetched copy into a new folder, if it verifies.
pub fn keep(files: &Files, out: &Path, anchor: Option<&Path>) -> Result<LocalRepository, CliError> {
    let offline = |error: super::offline::CliError| CliError::from(error);
    let folder = WholeFolder::begin(out).map_err(|error| offline(error.into()))?;
    for (path, bytes) in files {
        folder.file(path, bytes, Readers::Everybody).map_err(|error| offline(error.into()))?;
    }
    let copy = LocalRepository::open(folder.draft(), anchor)
        .and_then(|copy| copy.policy().map(|_| copy))
        .map_err(|error| offline(error.into()))?;
    folder.finish().map_err(|error| offline(error.into()))?;
    Ok(copy)
}

async fn targets(client: &Client, files: &mut Files, role: &str) -> Result<(), CliError> {
    let role = json(files, role)?;
    for (path, target) in role["signed"]["targets"].as_object().into_iter().flatten() {
        let digest = target["hashes"]["sha256"].as_str().and_then(|text| text.parse().ok());
        let digest: Digest = digest.ok_or_else(|| odd("a target without a hash"))?;
        take(client, files, &target_path(path, &digest)).await?;
    }
    Ok(())
}

/// Fetches one file; whether it is there.
async fn take(client: &Client, files: &mut Files, path: &str) -> Result<bool, CliError> {
    if !path.split('/').all(plain) || files.len() >= FILES {
        return Err(odd(&format!("it names `{}`", crate::plain::plain(path))));
    }
    let Some(bytes) = client.file(&format!("/repo/{path}")).await? else { return Ok(false) };
    files.insert(path.to_owned(), bytes.to_vec());
    Ok(true)
}

/// Names that stay inside a folder and mean the same in an address.
fn plain(part: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    part.starts_with(|c: char| c.is_ascii_alphanumeric())
        && part.len() <= 255
        && part.chars().all(good)
}

fn json(files: &Files, path: &str) -> Result<Value, CliError> {
    let bytes = files.get(path).ok_or_else(|| odd(&format!("it lacks `{path}`")))?;
    serde_json::from_slice(bytes).map_err(|error| odd(&format!("`{path}`: {error}")))
}

fn odd(what: &str) -> CliError {
    CliError::False(format!("the server's repository cannot be read: {what}"))
}
