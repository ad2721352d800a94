//! `lockgate audit`: reading the chains, and verifying one from its file without any server.

use std::{fs::File, path::PathBuf, time::Duration};

use clap::{Subcommand, ValueEnum};
use lockgate_shared::count::count;

use super::{Session, exit::CliError, say};
use crate::{
    api::admin::audit::LINES_MAX,
    audit::{self, Line},
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
            tail(session, chain, (lines, raw), follow).await
        }
        Command::Verify { file } => {
            let open = File::open(&file).map_err(|source| CliError::File { path: file, source })?;
            let summary =
                audit::verify(open).map_err(|error| CliError::False(error.to_string()))?;
            let signed = summary.signed.map(|(n, key)| format!(", signed up to {n} by key {key}"));
            let whole = serde_json::json!({
                "entries": summary.entries, "head": summary.head,
                "signed": summary.signed.map(|(n, key)| serde_json::json!({"n": n, "key": key})),
            });
            session.print(&whole, |_| {
                format!(
                    "true: {}, head {}{}",
                    count(summary.entries, "entry", "entries"),
                    summary.head,
                    signed.unwrap_or_default()
                )
            })
        }
    }
}

async fn tail(
    session: &Session,
    chain: Which,
    (count, raw): (usize, bool),
    follow: bool,
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
    if last.is_empty() && !follow && !session.json() && !raw {
        say("nothing was written to this chain yet")?;
    }
    print(session, &last, raw)?;
    if !follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let path = format!("/v1/audit?chain={name}&from={from}&max={LINES_MAX}");
        let page: Vec<String> = client.get(&path).await?;
        let next = page.iter().filter_map(|line| number(line)).max();
        from = next.map_or(from, |n| n + 1);
        print(session, &page, raw)?;
    }
}

fn number(line: &str) -> Option<u64> {
    serde_json::from_str::<Line>(line).ok().map(|line| line.n)
}

fn print(session: &Session, lines: &[String], raw: bool) -> Result<(), CliError> {
    for text in lines {
        match serde_json::from_str::<Line>(text) {
            Ok(line) if !raw && !session.json() => say(&format!(
                "{:>6}  {}  {}  {}: {}",
                line.n, line.at, line.who, line.act, line.detail
            ))?,
            Ok(_) | Err(_) => say(text)?,
        }
    }
    Ok(())
}
