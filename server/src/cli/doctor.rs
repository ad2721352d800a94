//! `lockgate doctor`: what of a repository ends soon, is missing or deserves a look. It changes
//! nothing.

use std::path::PathBuf;

use clap::Args;
use lockgate_shared::time::Moment;

use super::{
    Session,
    copy::{self, Depth},
    exit::CliError,
    offline,
};
use crate::{
    ceremony::doctor::{self, Finding, Grade},
    clock,
    tuf::{metadata::metadata_path, repository, trusted::Files},
};

/// The largest root that is read as an anchor.
const MAX_ANCHOR: usize = crate::tuf::METADATA_BYTES;

/// Options of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// A local copy of the repository; else the server's
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,
    /// The root file at which trust begins; else the oldest root in the copy
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
    /// As if it were this moment
    #[arg(long, value_name = "RFC3339")]
    at: Option<String>,
}

/// Does it. Ends with 6 when something is bad, with 5 when something is due soon.
pub async fn run(args: DoctorArgs, session: &Session) -> Result<(), CliError> {
    let files = match &args.repository {
        Some(folder) => repository::all_files(folder).map_err(|error| {
            CliError::Usage(format!("{error}\nhint: name the folder that holds `metadata/`"))
        })?,
        None => copy::fetch(&session.client()?, Depth::Policy).await?,
    };
    let anchor = match &args.anchor {
        Some(path) => offline::read(path, MAX_ANCHOR)?,
        None => oldest_root(&files)?,
    };
    let now = moment(args.at.as_deref())?;
    let mut findings = doctor::examine(&anchor, &files, now);
    // What has to be done comes first.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.grade));
    session.print(&findings, |findings| text(findings))?;
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
    match doctor::worst(&findings) {
        Grade::Good | Grade::Note => Ok(()),
        Grade::Soon => Err(CliError::NotYet(format!("{} due soon", things(count(Grade::Soon))))),
        Grade::Bad => Err(CliError::False(format!("{} wrong", things(count(Grade::Bad))))),
    }
}

fn things(count: usize) -> String {
    if count == 1 { "1 thing is".to_owned() } else { format!("{count} things are") }
}

fn moment(text: Option<&str>) -> Result<Moment, CliError> {
    let Some(text) = text else { return Ok(clock::now()) };
    Moment::parse_rfc3339(text).ok_or_else(|| {
        CliError::Usage(format!(
            "`{text}` is not a moment\nhint: write it like `2026-11-21T09:30:00Z`"
        ))
    })
}

fn oldest_root(files: &Files) -> Result<Vec<u8>, CliError> {
    let version = |path: &String| {
        path.strip_prefix("metadata/")?.strip_suffix(".root.json")?.parse::<u64>().ok()
    };
    let oldest = files.keys().filter_map(version).min();
    oldest.and_then(|version| files.get(&metadata_path("root", version)).cloned()).ok_or_else(
        || {
            CliError::Usage(
                "there is no root\nhint: name the repository's folder, or `--anchor`".into(),
            )
        },
    )
}

fn text(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| {
        let grade = match finding.grade {
            Grade::Good => "good",
            Grade::Note => "note",
            Grade::Soon => "SOON",
            Grade::Bad => "BAD",
        };
        let hint = finding.hint.as_ref().map(|hint| format!("\n     hint: {hint}"));
        format!("{grade:4} {}: {}{}", finding.what, finding.text, hint.unwrap_or_default())
    });
    lines.collect::<Vec<_>>().join("\n")
}
