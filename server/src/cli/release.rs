//! `lockgate release`: what was published, and carrying a signed release to the server.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use lockgate_shared::{
    count::count,
    id::{Digest, ProductId},
    recall::Recall,
    time::Seconds,
    version::Version,
};

use super::{Session, act, client::Client, exit::CliError, offline, table};
use crate::{
    api::admin::Appended,
    registry::rows::{RecallRow, ReleaseRow},
    stream::Publication,
};

/// What can be done with releases.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What needs no server
    #[command(flatten)]
    Offline(offline::release::ReleaseCommand),
    /// List releases
    List {
        /// Of one product
        #[arg(long)]
        product: Option<ProductId>,
    },
    /// Show a release: its artifacts and its ladder
    Show {
        /// The product
        product: ProductId,
        /// The version
        version: Version,
    },
    /// Upload a signed release: its artifacts, then its metadata
    Publish {
        /// The release's folder, with `publication.json` and `artifacts`
        #[arg(long)]
        dir: PathBuf,
        /// Whether to wait
        #[command(flatten)]
        wait: act::Wait,
    },
}

/// Does it.
pub async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Offline(command) => session.offline(|desk| offline::release::run(&command, desk)),
        Command::List { product } => {
            let ask = product.map(|product| format!("?product={product}")).unwrap_or_default();
            let rows: Vec<ReleaseRow> =
                session.client()?.get(&format!("/v1/releases{ask}")).await?;
            session.print(&rows, |rows| list_text(rows))
        }
        Command::Show { product, version } => {
            let row: ReleaseRow =
                session.client()?.get(&format!("/v1/releases/{product}/{version}")).await?;
            session.print(&row, show_text)
        }
        Command::Publish { dir, wait } => publish(session, &dir, &wait).await,
    }
}

async fn publish(session: &Session, dir: &Path, wait: &act::Wait) -> Result<(), CliError> {
    let path = dir.join("publication.json");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::File { path, source }
    };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(CliError::Usage(format!(
                "there is no `{}`\nhint: `lockgate release sign` writes it when enough authors have signed",
                path.display()
            )));
        }
        Err(source) => return Err(failed(&path)(source)),
    };
    let publication: Publication = serde_json::from_slice(&text).map_err(|error| {
        CliError::Usage(format!(
            "`{}` is not a publication: {error}\nhint: `lockgate release sign` writes it when enough people have signed",
            path.display()
        ))
    })?;
    let client = session.client()?;
    // Also where it is published already: a restored server may know of a release and lack its bytes.
    let uploaded = upload(session, &client, dir).await?;
    if let Some(text) = published_already(&client, &publication).await? {
        return session.done(&match uploaded {
            0 => format!("nothing changed: {text}"),
            _ => format!(
                "{text}; {} not there any more",
                count(uploaded, "artifact was", "artifacts were")
            ),
        });
    }
    let appended: Appended = client.post("/v1/publications", &publication).await?;
    act::finish(session, &client, appended, (wait, &next(dir, &publication))).await
}

/// Uploads the artifacts of a release's folder; says how many the server did not have.
async fn upload(session: &Session, client: &Client, dir: &Path) -> Result<usize, CliError> {
    let mut uploaded = 0;
    for (digest, file) in artifacts(&dir.join("artifacts"))? {
        // Asked first: a server that has it answers an upload before it came, and may hang up on it.
        let new = !client.has(&format!("/artifacts/{digest}")).await?
            && client.upload(&format!("/v1/artifacts/{digest}"), &file).await?;
        uploaded += usize::from(new);
        if !session.json() {
            let what = if new { "uploaded" } else { "was there" };
            super::say(&format!("artifact {} {what}", table::short(digest)))?;
        }
    }
    Ok(uploaded)
}

/// The command that follows a publication: a release is started, a recall is looked at.
fn next(dir: &Path, publication: &Publication) -> String {
    let named = publication.targets.last().and_then(|(path, _)| {
        path.strip_prefix("releases/")?.strip_suffix(".json")?.split_once('/')
    });
    match named.map(|(product, version)| (product, version.strip_prefix("recall-"), version)) {
        Some((product, Some(recalled), _)) => format!("lockgate release show {product} {recalled}"),
        Some((product, None, version)) => format!(
            "lockgate rollout start --product {product} --version {version} --channel CHANNEL --manifest {} --risk RISK --owner PERSON --cohort COHORT=DEVICES --repository DIR --plan FILE --out start.json",
            offline::word(dir)
        ),
        None => "lockgate doctor".to_owned(),
    }
}

/// When all that a publication brings was published before, byte for byte: it would only be refused. What
/// is not a release's or a recall's is the gatekeeper's to judge.
async fn published_already(
    client: &Client,
    publication: &Publication,
) -> Result<Option<String>, CliError> {
    if publication.targets.is_empty() || !publication.with.is_empty() {
        return Ok(None);
    }
    let mut said = Vec::new();
    for (path, text) in &publication.targets {
        let Some((product, version)) = released(path) else { return Ok(None) };
        let row: ReleaseRow = match client.get(&format!("/v1/releases/{product}/{version}")).await {
            Ok(row) => row,
            Err(CliError::Refused(problem)) if problem.status == 404 => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(line) = same(&row, path, text) else { return Ok(None) };
        said.push(line);
    }
    Ok(Some(said.join("; ")))
}

/// Product and version of which a target of a release role tells.
fn released(path: &str) -> Option<(&str, &str)> {
    let (product, name) = path.strip_prefix("releases/")?.split_once('/')?;
    let name = name.strip_suffix(".json")?;
    Some((product, name.strip_prefix("recall-").unwrap_or(name)))
}

/// What a row says of a target that was published with these very bytes.
fn same(row: &ReleaseRow, path: &str, text: &str) -> Option<String> {
    let of = format!("{} {}", row.product, row.version);
    if path == Recall::path(&row.product, &row.version) {
        let known = row.recall.as_ref()?;
        let same = Recall::from_json(text.as_bytes()).is_ok_and(|recall| recall == known.recall);
        let at = known.published.filter(|_| same)?;
        return Some(format!("the recall of {of} was published at {at}"));
    }
    let at = row.published.filter(|_| Digest::of(text.as_bytes()) == row.manifest)?;
    Some(format!("{of} was published at {at}"))
}

/// The files of a folder that are named by their hash. Without a folder there are none: a root or a
/// policy is published without artifacts.
fn artifacts(folder: &Path) -> Result<Vec<(Digest, PathBuf)>, CliError> {
    let failed = |source| CliError::File { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let digest = name.parse().map_err(|_| {
            CliError::Usage(format!(
                "`{}` is not named by its SHA-256\nhint: `lockgate release create` fills this folder",
                entry.path().display()
            ))
        })?;
        found.push((digest, entry.path()));
    }
    found.sort();
    Ok(found)
}

fn list_text(rows: &[ReleaseRow]) -> String {
    let rows = rows.iter().map(|row| {
        vec![
            row.product.to_string(),
            row.version.to_string(),
            row.summary.severity.clone(),
            row.published.map_or_else(
                || format!("not yet: entry {}", row.offset),
                |published| published.to_string(),
            ),
            table::short(row.manifest),
            match &row.recall {
                None => "-".to_owned(),
                Some(RecallRow { published: None, offset, .. }) => {
                    format!("not yet: entry {offset}")
                }
                Some(RecallRow { recall, .. }) => format!("to {}", recall.to),
            },
        ]
    });
    let header = ["product", "version", "severity", "published", "manifest", "recalled"];
    table::of(&header, rows.collect(), "no release was handed in yet")
}

fn show_text(row: &ReleaseRow) -> String {
    let summary = &row.summary;
    let artifacts = summary.artifacts.iter().map(|artifact| {
        vec![
            artifact.arch.clone().unwrap_or_else(|| "any".into()),
            artifact.size.to_string(),
            artifact.files.to_string(),
            artifact.sha256.to_string(),
        ]
    });
    let stages = summary.stages.iter().map(|stage| {
        vec![
            stage.cohort.clone(),
            format!("{} %", f64::from(stage.ceiling_ppm) / 10_000.0),
            Seconds(stage.floor_s).to_string(),
            Seconds(stage.bake_s).to_string(),
            if stage.approval { "needed" } else { "-" }.to_owned(),
        ]
    });
    let mut text = format!(
        "{} {}, {}\nmanifest {}\npublished {}",
        row.product,
        row.version,
        summary.severity,
        row.manifest,
        table::dash(row.published)
    );
    if let Some(RecallRow { recall, published, .. }) = &row.recall {
        text += &format!(
            "\nRECALLED to {} until {}: {} (published {})",
            recall.to,
            recall.until,
            recall.reason,
            table::dash(*published)
        );
    }
    if summary.irreversible {
        text += "\nit cannot be undone";
    }
    if let Some(barrier) = &summary.barrier {
        text += &format!("\nit installs from version {barrier} on");
    }
    if let Some(end) = summary.end_of_support {
        text += &format!("\nit is supported until {end}");
    }
    if !summary.notes.is_empty() {
        text += &format!("\n\n{}", summary.notes);
    }
    text += "\n\n";
    text += &table::of(&["arch", "bytes", "files", "sha256"], artifacts.collect(), "");
    text += "\n\n";
    text += &table::of(&["stage", "ceiling", "floor", "bake", "approval"], stages.collect(), "");
    text
}

#[cfg(test)]
mod tests {
    use lockgate_shared::time::Moment;

    use super::*;
    use crate::registry::rows::ReleaseSummary;

    #[test]
    fn a_release_counts_as_published_only_with_the_very_bytes_that_were() {
        assert_eq!(released("releases/app/1.0.0.json"), Some(("app", "1.0.0")));
        assert_eq!(released("releases/app/recall-1.0.0.json"), Some(("app", "1.0.0")));
        assert_eq!(released("policy.json"), None);
        let row = |published| ReleaseRow {
            product: "app".parse().expect("a name"),
            version: "1.0.0".parse().expect("a version"),
            manifest: Digest::of(b"{}"),
            offset: 3,
            submitted: Moment(0),
            published,
            summary: ReleaseSummary {
                severity: "routine".into(),
                artifacts: vec![],
                stages: vec![],
                irreversible: false,
                barrier: None,
                end_of_support: None,
                notes: String::new(),
            },
            recall: None,
        };
        let path = "releases/app/1.0.0.json";
        assert!(same(&row(Some(Moment(5))), path, "{}").is_some());
        assert!(same(&row(Some(Moment(5))), path, "{ }").is_none(), "other bytes");
        assert!(same(&row(None), path, "{}").is_none(), "the gatekeeper has not spoken");
        let recall = "releases/app/recall-1.0.0.json";
        assert!(same(&row(Some(Moment(5))), recall, "{}").is_none(), "it is not recalled");
    }
}
