//! `lockgate audit`: reading the chains, and verifying one from its file without any server.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Subcommand, ValueEnum};
use lockgate_shared::{count::count, id::PublicKey};

use super::{Session, exit::CliError, say};
use crate::{
    api::admin::audit::LINES_MAX,
    audit::{self, AuditLine},
    tuf::trusted::{Files, gatekeeper_keys},
};

/// How often `--follow` looks.
const LOOK: Duration = Duration::from_secs(2);

/// What can be done with audit chains.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the last lines of a chain
    Tail {
        /// Which chain
        #[arg(long, value_enum, default_value_t = Which::LetterBox)]
        chain: Which,
        /// How many lines
        #[arg(long, default_value_t = 20)]
        lines: usize,
        /// Go on with new ones as they come
        #[arg(long)]
        follow: bool,
        /// Print the lines as they are, to be verified
        #[arg(long)]
        raw: bool,
    },
    /// Verify a chain: that no line was changed, removed or put in
    Verify {
        /// The file of lines
        file: PathBuf,
        /// A local copy of the repository, which says whose signatures count
        #[arg(long, value_name = "DIR")]
        repository: Option<PathBuf>,
        /// The trust anchor; else the oldest root of the copy
        #[arg(long, value_name = "FILE", requires = "repository")]
        anchor: Option<PathBuf>,
    },
}

/// Which chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// What people did
    LetterBox,
    /// What the gatekeeper decided
    Gatekeeper,
}

/// Does it.
pub async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Tail { chain, lines, follow, raw } => {
            let form = if raw || session.json() { Form::AsWritten } else { Form::Words };
            let follow = if follow { Follow::On } else { Follow::No };
            tail(session, chain, lines, form, follow).await
        }
        Command::Verify { file, repository, anchor } => {
            let keys = repository.map(|folder| keys(&folder, anchor.as_deref())).transpose()?;
            verify(session, file, keys.as_ref())
        }
    }
}

/// How lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// For people.
    Words,
    /// For programs: as they stand in the chain.
    AsWritten,
}

/// Whether further lines are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follow {
    No,
    On,
}

/// A signature is reported only where the repository says whose it is.
fn verify(
    session: &Session,
    file: PathBuf,
    keys: Option<&BTreeSet<PublicKey>>,
) -> Result<(), CliError> {
    let open = File::open(&file).map_err(|source| CliError::File { path: file, source })?;
    let found = match keys {
        Some(keys) => audit::verify_by(open, keys),
        None => audit::verify(open),
    };
    let summary = found.map_err(|error| CliError::False(error.to_string()))?;
    let signed = keys.and(summary.signed);
    let words = match (keys, signed) {
        (None, _) => String::new(),
        (Some(_), None) => ", signed by nobody".to_owned(),
        (Some(_), Some((n, key))) => format!(", signed up to {n} by the gatekeeper's key {key}"),
    };
    let whole = serde_json::json!({
        "entries": summary.entries, "head": summary.head,
        "signed": signed.map(|(n, key)| serde_json::json!({"n": n, "key": key})),
    });
    session.print(&whole, |_| {
        let entries = count(summary.entries, "entry", "entries");
        format!("true: {entries}, head {}{words}", summary.head)
    })
}

/// Whose signatures count, by a repository's folder.
fn keys(folder: &Path, anchor: Option<&Path>) -> Result<BTreeSet<PublicKey>, CliError> {
    let metadata = folder.join("metadata");
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| CliError::File { path: path.to_owned(), source })
    };
    let entries = std::fs::read_dir(&metadata)
        .map_err(|source| CliError::File { path: metadata.clone(), source })?;
    let mut files = Files::new();
    for entry in entries {
        let entry = entry.map_err(|source| CliError::File { path: metadata.clone(), source })?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".root.json") || name.ends_with(".targets.json") {
            files.insert(format!("metadata/{name}"), read(&entry.path())?);
        }
    }
    let oldest = || {
        let versions = files.keys().filter_map(|path| path.strip_prefix("metadata/"));
        versions.filter_map(|name| name.strip_suffix(".root.json")?.parse::<u64>().ok()).min()
    };
    let anchor = match (anchor, oldest()) {
        (Some(anchor), _) => anchor.to_owned(),
        (None, Some(version)) => metadata.join(format!("{version}.root.json")),
        (None, None) => {
            return Err(CliError::Usage(format!("`{}` holds no root", metadata.display())));
        }
    };
    gatekeeper_keys(&read(&anchor)?, &files).map_err(|error| CliError::False(error.to_string()))
}

async fn tail(
    session: &Session,
    chain: Which,
    count: usize,
    form: Form,
    follow: Follow,
) -> Result<(), CliError> {
    let client = session.client()?;
    let name = match chain {
        Which::LetterBox => "letter-box",
        Which::Gatekeeper => "gatekeeper",
    };
    let mut from = 0;
    let mut last: Vec<String> = Vec::new();
    loop {
        let path = format!("/v1/audit?chain={name}&from={from}&max={LINES_MAX}");
        let page: Vec<String> = client.get(&path).await?;
        let end = page.len() < LINES_MAX;
        let next = page.iter().filter_map(|line| number(line)).max();
        from = next.map_or(from, |n| n + 1);
        last.extend(page);
        let skip = last.len().saturating_sub(count);
        last.drain(..skip);
        if end {
            break;
        }
    }
    if last.is_empty() && follow == Follow::No && form == Form::Words {
        say("nothing was written to this chain yet")?;
    }
    print(&last, form)?;
    if follow == Follow::No {
        return Ok(());
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let path = format!("/v1/audit?chain={name}&from={from}&max={LINES_MAX}");
        let page: Vec<String> = client.get(&path).await?;
        let next = page.iter().filter_map(|line| number(line)).max();
        from = next.map_or(from, |n| n + 1);
        print(&page, form)?;
    }
}

fn number(line: &str) -> Option<u64> {
    serde_json::from_str::<AuditLine>(line).ok().map(|line| line.n)
}

fn print(lines: &[String], form: Form) -> Result<(), CliError> {
    for text in lines {
        match serde_json::from_str::<AuditLine>(text) {
            Ok(line) if form == Form::Words => say(&format!(
                "{:>6}  {}  {}  {}: {}",
                line.n, line.at, line.who, line.act, line.detail
            ))?,
            // A signed head is for verifying.
            Err(_) if form == Form::Words => {}
            Ok(_) | Err(_) => say(text)?,
        }
    }
    Ok(())
}
