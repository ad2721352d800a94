//! Artifacts and signed metadata on their way into the repository, and the releases that came of it.
//!
//! Nothing here is trusted for being uploaded: an artifact is kept under the hash that was computed
//! while it came, and metadata is the gatekeeper's to verify.

use std::{
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use axum::{
    Json,
    body::Body,
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use lockgate_shared::{
    id::{Digest, IdError, ProductId},
    limits,
    manifest::{Manifest, Severity, StageApproval},
    policy::{POLICY_PATH, Policy},
    recall::Recall,
    version::Version,
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::{fs, io::AsyncWriteExt};

use super::{Admin, Appended, Ask, Caller, Refusal, accepted, read_json};
use crate::{
    api::{
        artifacts::PART,
        paced::{self, Came, Pace, Stalled, UPLOAD},
    },
    registry::rows::{
        self, ArtifactSummary, RecallRow, ReleaseRow, ReleaseSummary, StageSummary, TokenRole,
    },
    store::Table,
    stream::{EntryKind, Publication},
};

/// A publication: metadata and manifests with long lists of files, and still one entry of the stream.
pub const PUBLICATION_BYTES: usize = 12 << 20;
/// Targets in one publication: a few releases at a time.
pub const PUBLICATION_TARGETS: usize = 64;

/// Who hands in artifacts and metadata.
const PUBLISHERS: &[TokenRole] = &[TokenRole::Publisher];
/// Who reads about releases.
const RELEASE_READERS: &[TokenRole] =
    &[TokenRole::Operator, TokenRole::Administrator, TokenRole::Auditor, TokenRole::Publisher];

/// `PUT /v1/artifacts/<sha256>`: 201 when it is new, 200 when it was there.
pub async fn upload(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(sha256): Path<String>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    caller.need_vendor(PUBLISHERS)?;
    let wanted: Digest =
        sha256.parse().map_err(|error: IdError| Refusal::malformed(error.to_string()))?;
    let path = admin.artifacts.join(wanted.to_string());
    if fs::try_exists(&path).await.unwrap_or(false) {
        return Ok(StatusCode::OK);
    }
    // A name of its own for each upload: two at once do not write into one another.
    let part = admin.artifacts.join(format!("{wanted}.{}{PART}", hex_name(&admin)));
    let written = receive(request.into_body(), &part, &UPLOAD).await;
    let size = match written {
        Ok((found, size)) if found == wanted => size,
        Ok((found, _)) => {
            discard(&part).await;
            return Err(Refusal::invalid(format!(
                "the bytes have SHA-256 `{found}`, not `{wanted}`\nhint: upload the file again"
            )));
        }
        Err(refusal) => {
            discard(&part).await;
            return Err(refusal);
        }
    };
    settle(&part, &path, &admin.artifacts).await?;
    admin.record(&caller, "artifact uploaded", &format!("sha256 {wanted}, {size} bytes"))?;
    Ok(StatusCode::CREATED)
}

fn hex_name(admin: &Admin) -> String {
    let [a, b, c, d, ..] = admin.desk.random();
    format!("{a:02x}{b:02x}{c:02x}{d:02x}")
}

/// Writes the body as it comes and hashes it on the way, as long as its sender keeps to the pace.
async fn receive(body: Body, part: &FilePath, pace: &Pace) -> Result<(Digest, u64), Refusal> {
    let late = |_| Refusal::malformed(format!("it took over {} s", pace.total.as_secs()));
    tokio::time::timeout(pace.total, write(body, part, pace)).await.map_err(late)?
}

/// Memory stays the same for any size.
async fn write(mut body: Body, part: &FilePath, pace: &Pace) -> Result<(Digest, u64), Refusal> {
    let mut file = fs::File::create(part).await.map_err(|error| disk("creating it", &error))?;
    let mut hash = Sha256::new();
    let mut size = 0u64;
    let stalled = |error: Stalled| Refusal::malformed(error.to_string());
    while let Came::Part(bytes) = paced::part(&mut body, pace).await.map_err(stalled)? {
        size = size.saturating_add(bytes.len() as u64);
        if size > limits::ARTIFACT_BYTES {
            return Err(Refusal::invalid("an artifact is larger than 64 GiB"));
        }
        hash.update(&bytes);
        file.write_all(&bytes).await.map_err(|error| disk("writing it", &error))?;
    }
    file.sync_all().await.map_err(|error| disk("writing it", &error))?;
    Ok((Digest(hash.finalize().into()), size))
}

async fn settle(part: &FilePath, path: &PathBuf, folder: &FilePath) -> Result<(), Refusal> {
    fs::rename(part, path).await.map_err(|error| disk("naming it", &error))?;
    let folder = fs::File::open(folder).await.map_err(|error| disk("naming it", &error))?;
    folder.sync_all().await.map_err(|error| disk("naming it", &error))
}

async fn discard(part: &FilePath) {
    if let Err(error) = fs::remove_file(part).await {
        tracing::warn!(%error, "a broken upload could not be removed");
    }
}

fn disk(what: &str, error: &std::io::Error) -> Refusal {
    tracing::error!(%error, what, "an artifact could not be kept");
    Refusal::unavailable(format!(
        "the artifact could not be kept: {what} failed: {error}\nhint: look at the free space where the server keeps `artifacts`"
    ))
}

/// `POST /v1/publications`
pub async fn publish(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    caller.need_vendor(PUBLISHERS)?;
    let publication: Publication = read_json(request.into_body(), PUBLICATION_BYTES).await?;
    let (mut releases, mut recalls) = check(&admin, &publication).await?;
    for part in &publication.with {
        let (more, further) = check(&admin, part).await?;
        releases.extend(more);
        recalls.extend(further);
    }
    let bytes = serde_json::to_vec(&publication).map_err(|e| Refusal::malformed(e.to_string()))?;
    let offset = admin.desk.append(EntryKind::Publish, bytes).await?;
    let submitted = admin.desk.now();
    admin
        .registry
        .change::<Refusal>(admin.tables(), |view| {
            let mut changes = Vec::new();
            for (manifest, digest) in &releases {
                let of = (manifest.product.clone(), manifest.version.clone());
                // What is published stays as it is; a second submission is the gatekeeper's to judge.
                if view.releases.get(&of).is_some_and(|row| row.published.is_some()) {
                    continue;
                }
                let row = ReleaseRow {
                    product: of.0.clone(),
                    version: of.1.clone(),
                    manifest: *digest,
                    offset,
                    submitted,
                    published: None,
                    summary: summary(manifest),
                    recall: None,
                };
                changes.push(rows::write(Table::Releases, rows::release_key(&of.0, &of.1), &row)?);
            }
            for recall in &recalls {
                let of = (recall.product.clone(), recall.version.clone());
                let Some(row) = view.releases.get(&of).filter(|row| row.recall.is_none()) else {
                    continue;
                };
                let recall = RecallRow { recall: recall.clone(), offset, published: None };
                let row = ReleaseRow { recall: Some(recall), ..row.clone() };
                changes.push(rows::write(Table::Releases, rows::release_key(&of.0, &of.1), &row)?);
            }
            Ok(changes)
        })
        .await?;
    let digest = Digest::of(publication.metadata.as_bytes());
    admin.record(
        &caller,
        "publication submitted",
        &format!("entry {offset}, role {}, metadata sha256 {digest}", roles(&publication)),
    )?;
    Ok(accepted(Appended { offset, rollout: None }))
}

/// The role that is published, and those that come with it.
fn roles(publication: &Publication) -> String {
    let with = publication.with.iter().map(|part| part.role.as_str());
    let all: Vec<&str> = [publication.role.as_str()].into_iter().chain(with).collect();
    all.join(", ")
}

/// What can be seen to be wrong without keys: a role that is not one, targets that do not belong to
/// it, artifacts that are not here.
async fn check(
    admin: &Admin,
    publication: &Publication,
) -> Result<(Vec<(Manifest, Digest)>, Vec<Recall>), Refusal> {
    let Publication { role, targets, .. } = publication;
    let product: Option<ProductId> =
        role.strip_prefix("releases-").map(str::parse).transpose().map_err(|error: IdError| {
            Refusal::invalid(format!("role `{role}` is not one: {error}"))
        })?;
    if product.is_none() && role != "root" && role != "targets" {
        return Err(Refusal::invalid(format!(
            "role `{role}` is not published this way\nhint: `root`, `targets` and `releases-<product>` are"
        )));
    }
    if targets.len() > PUBLICATION_TARGETS {
        return Err(Refusal::invalid(format!(
            "{} targets come at once, at most {PUBLICATION_TARGETS} do",
            targets.len()
        )));
    }
    let (mut releases, mut recalls) = (Vec::new(), Vec::new());
    for (path, text) in targets {
        match &product {
            Some(product) if path.starts_with(&format!("releases/{product}/recall-")) => {
                let recall = Recall::from_json(text.as_bytes())
                    .map_err(|error| Refusal::because(&format!("target `{path}`: "), &error))?;
                if recall.product != *product || *path != Recall::path(product, &recall.version) {
                    return Err(Refusal::invalid(format!(
                        "target `{path}` holds the recall of version {} of `{}`",
                        recall.version, recall.product
                    )));
                }
                recalls.push(recall);
            }
            Some(product) => {
                let manifest = Manifest::from_json(text.as_bytes())
                    .map_err(|error| Refusal::because(&format!("target `{path}`: "), &error))?;
                if manifest.product != *product
                    || *path != Manifest::path(product, &manifest.version)
                {
                    return Err(Refusal::invalid(format!(
                        "target `{path}` holds version {} of `{}`",
                        manifest.version, manifest.product
                    )));
                }
                check_release(admin, &manifest, Digest::of(text.as_bytes())).await?;
                releases.push((manifest, Digest::of(text.as_bytes())));
            }
            None if role == "targets" && path == POLICY_PATH => {
                Policy::from_json(text.as_bytes()).map_err(|error| Refusal::because("", &error))?;
            }
            None => {
                return Err(Refusal::invalid(format!("`{path}` is not a target of role `{role}`")));
            }
        }
    }
    Ok((releases, recalls))
}

async fn check_release(admin: &Admin, manifest: &Manifest, digest: Digest) -> Result<(), Refusal> {
    let of = (manifest.product.clone(), manifest.version.clone());
    if let Some(known) = admin.registry.view().releases.get(&of)
        && known.published.is_some()
        && known.manifest != digest
    {
        return Err(Refusal::conflict(format!(
            "version {} of `{}` was published with another manifest\nhint: a release never changes; give the next one a new version",
            of.1, of.0
        )));
    }
    for artifact in &manifest.artifacts {
        let path = admin.artifacts.join(artifact.sha256.to_string());
        if !fs::try_exists(path).await.unwrap_or(false) {
            return Err(Refusal::invalid(format!(
                "artifact `{}` of version {} is not here\nhint: upload it first: `lockgate release publish` does both",
                artifact.sha256, manifest.version
            )));
        }
    }
    Ok(())
}

fn summary(manifest: &Manifest) -> ReleaseSummary {
    ReleaseSummary {
        severity: match &manifest.severity {
            Severity::Routine => "routine".to_owned(),
            Severity::Security { cvss_tenths, advisories } => format!(
                "security, CVSS {}.{}{}{}",
                cvss_tenths / 10,
                cvss_tenths % 10,
                if advisories.is_empty() { "" } else { ", " },
                advisories.join(", ")
            ),
        },
        notes: manifest.notes.clone(),
        artifacts: manifest
            .artifacts
            .iter()
            .map(|artifact| ArtifactSummary {
                sha256: artifact.sha256,
                size: artifact.size,
                arch: artifact.arch.clone(),
                files: artifact.files.len() as u64,
            })
            .collect(),
        stages: manifest
            .ladder
            .stages
            .iter()
            .map(|stage| StageSummary {
                cohort: stage.cohort.to_string(),
                ceiling_ppm: stage.ceiling_ppm,
                floor_s: stage.floor_s.0,
                bake_s: stage.bake_s.0,
                approval: stage.approval == StageApproval::Required,
            })
            .collect(),
        irreversible: manifest.irreversible,
        barrier: manifest.barrier.clone(),
        end_of_support: manifest.end_of_support,
    }
}

/// `?product=`
#[derive(Debug, Deserialize)]
pub struct Releases {
    product: Option<String>,
}

/// `GET /v1/releases`: those who see one tenant see what is published, not what is on its way.
pub async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Ask(ask): Ask<Releases>,
) -> Result<Json<Vec<ReleaseRow>>, Refusal> {
    caller.need(RELEASE_READERS)?;
    let view = admin.registry.view();
    let seen = view.releases.values().filter(|row| {
        ask.product.as_deref().is_none_or(|asked| row.product.as_str() == asked)
            && (caller.tenant.is_none() || row.published.is_some())
    });
    Ok(Json(seen.cloned().collect()))
}

/// `GET /v1/releases/<product>/<version>`
pub async fn show(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path((product, version)): Path<(String, String)>,
) -> Result<Json<ReleaseRow>, Refusal> {
    caller.need(RELEASE_READERS)?;
    let product: ProductId =
        product.parse().map_err(|error: IdError| Refusal::malformed(error.to_string()))?;
    let version: Version = version
        .parse()
        .map_err(|e: lockgate_shared::version::VersionError| Refusal::malformed(e.to_string()))?;
    let view = admin.registry.view();
    let row = view.releases.get(&(product.clone(), version.clone()));
    row.filter(|row| caller.tenant.is_none() || row.published.is_some())
        .cloned()
        .map(Json)
        .ok_or_else(|| {
            Refusal::missing(format!(
                "there is no release {version} of `{product}`\nhint: `lockgate release list` shows them"
            ))
        })
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll, ready},
        time::Duration,
    };

    use hyper::body::{Bytes, Frame};
    use serde_json::json;
    use tokio::time::{Sleep, sleep};

    use super::super::testing::{Bench, manifest_text};
    use super::*;
    use crate::status::Decision;

    #[tokio::test]
    async fn an_artifact_is_kept_under_the_hash_of_its_bytes_and_under_no_other() {
        let bench = Bench::new();
        let digest = Digest::of(b"bytes");
        let path = format!("/v1/artifacts/{digest}");
        let wrong = bench.put_bytes("publisher", &path, b"other bytes").await;
        assert_eq!((wrong.status, wrong.kind()), (422, "invalid"));
        assert_eq!(bench.files(), Vec::<String>::new());
        assert_eq!(bench.put_bytes("publisher", &path, b"bytes").await.status, 201);
        assert_eq!(bench.put_bytes("publisher", &path, b"bytes").await.status, 200);
        assert_eq!(bench.files(), vec![digest.to_string()]);
        let escape = bench.put_bytes("publisher", "/v1/artifacts/..%2f..%2fx", b"bytes").await;
        assert_eq!((escape.status, escape.kind()), (400, "malformed"));
    }

    #[tokio::test]
    async fn an_upload_that_stands_still_drips_or_never_ends_is_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("part");
        let ms = Duration::from_millis;
        let pace = Pace { window: ms(200), least: 1_000, total: Duration::from_secs(60) };
        for (size, pause, pace, whole) in [
            (1_000, ms(1), pace, true),
            (1_000, Duration::from_secs(600), pace, false),
            (10, ms(20), pace, false),
            (1_000, ms(20), Pace { total: ms(500), ..pace }, false),
        ] {
            let chunk = Bytes::from(vec![7; size]);
            let left = if whole { 30 } else { u32::MAX };
            let body = Body::new(Sender { chunk, left, pause, rest: Box::pin(sleep(pause)) });
            let receive = receive(body, &place, &pace);
            let received = tokio::time::timeout(Duration::from_secs(30), receive).await;
            let received = received.expect("it held its place for ever");
            assert_eq!(received.is_ok(), whole, "{size} bytes every {pause:?}: {received:?}");
        }
    }

    /// So many chunks, with a pause before each.
    struct Sender {
        chunk: Bytes,
        left: u32,
        pause: Duration,
        rest: Pin<Box<Sleep>>,
    }

    impl hyper::body::Body for Sender {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
            ready!(self.rest.as_mut().poll(context));
            self.left = left;
            self.rest = Box::pin(sleep(self.pause));
            Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
        }
    }

    #[tokio::test]
    async fn only_publishers_upload_and_publish() {
        let bench = Bench::new();
        let path = format!("/v1/artifacts/{}", Digest::of(b"bytes"));
        for token in ["operator", "acme-admin", "auditor"] {
            assert_eq!(bench.put_bytes(token, &path, b"bytes").await.status, 403, "{token}");
            let answer = bench.post(token, "/v1/publications", &json!({})).await;
            assert_eq!(answer.status, 403, "{token}");
        }
    }

    #[tokio::test]
    async fn a_release_counts_as_published_when_the_gatekeeper_accepted_it() {
        let bench = Bench::new();
        let digest = Digest::of(b"bytes");
        let text = manifest_text("app", "1.1.0", digest);
        let body = json!({
            "role": "releases-app", "metadata": "{}",
            "targets": [["releases/app/1.1.0.json", text]],
        });
        let early = bench.post("publisher", "/v1/publications", &body).await;
        assert_eq!((early.status, early.kind()), (422, "invalid"));
        assert!(early.detail().contains(&digest.to_string()));
        let path = format!("/v1/artifacts/{digest}");
        assert_eq!(bench.put_bytes("publisher", &path, b"bytes").await.status, 201);
        let answer = bench.post("publisher", "/v1/publications", &body).await;
        assert_eq!((answer.status, answer.body["offset"].as_u64()), (202, Some(0)));
        let pending = bench.get("operator", "/v1/releases/app/1.1.0").await;
        assert_eq!(pending.body["published"], json!(null));
        assert_eq!(bench.get("acme-admin", "/v1/releases/app/1.1.0").await.status, 404);
        bench.verdict(0, Decision::Accepted, "signed by two").await;
        let done = bench.get("acme-admin", "/v1/releases/app/1.1.0").await;
        assert_eq!(done.status, 200);
        assert_eq!(done.body["manifest"], Digest::of(text.as_bytes()).to_string());
        let other =
            manifest_text("app", "1.1.0", digest).replace("first edition", "second edition");
        let body = json!({
            "role": "releases-app", "metadata": "{}",
            "targets": [["releases/app/1.1.0.json", other]],
        });
        let changed = bench.post("publisher", "/v1/publications", &body).await;
        assert_eq!((changed.status, changed.kind()), (409, "conflict"), "{}", changed.body);
    }

    #[tokio::test]
    async fn a_target_that_is_not_the_roles_is_refused() {
        let bench = Bench::new();
        let text = manifest_text("other", "1.0.0", Digest::of(b"x"));
        for (role, path) in [
            ("releases-app", "releases/app/1.0.0.json"),
            ("releases-app", "releases/other/1.0.0.json"),
            ("root", "releases/other/1.0.0.json"),
            ("snapshot", "releases/other/1.0.0.json"),
            ("releases-../x", "releases/other/1.0.0.json"),
        ] {
            let body = json!({"role": role, "metadata": "{}", "targets": [[path, text]]});
            let answer = bench.post("publisher", "/v1/publications", &body).await;
            assert_eq!(answer.status, 422, "{role} {path}");
        }
        assert_eq!(bench.entries().len(), 0);
    }
}
