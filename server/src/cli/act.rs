//! `lockgate act`: carrying what people signed to the gatekeeper, and waiting for its word.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use lockgate_shared::{
    act::{Act, SignedAct},
    limits,
};

use super::{Session, client::Client, exit::CliError, offline};
use crate::{
    api::admin::{
        Appended,
        acts::{EntryState, Standing},
    },
    clock::Stopwatch,
};

/// How soon to ask whether the gatekeeper has spoken: it usually has in a moment. Each time doubles this.
const ASK_FIRST: Duration = Duration::from_millis(50);
/// How often to ask at most, below any limit on requests.
const ASK: Duration = Duration::from_secs(1);
/// The largest file that is read as an act: its text may be escaped to twice its size.
const FILE_BYTES: u64 = 2 * limits::ACT_BYTES as u64 + 16 * 1024;

/// What can be done with acts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What needs no server
    #[command(flatten)]
    Offline(offline::act::ActCommand),
    /// Hand a signed act in
    Submit {
        /// The act's file
        file: PathBuf,
        /// Whether to wait
        #[command(flatten)]
        wait: Wait,
    },
}

/// Whether to wait for the gatekeeper.
#[derive(Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Wait until the gatekeeper has accepted or refused it
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 120, requires = "wait", value_name = "SECONDS")]
    timeout: u64,
}

/// Does it.
pub async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Offline(command) => session.offline(|desk| offline::act::run(&command, desk)),
        Command::Submit { file, wait } => {
            let signed = read(&file)?;
            let client = session.client()?;
            let appended: Appended = client.post("/v1/acts", &signed).await?;
            let next = match (appended.rollout, signed.unverified()) {
                (Some(rollout), _) => format!("lockgate rollout status {rollout} --watch"),
                (None, Ok(Act::Grant(_))) => "lockgate cohort list".to_owned(),
                (None, _) => "lockgate rollout status".to_owned(),
            };
            finish(session, &client, appended, (&wait, &next)).await
        }
    }
}

fn read(path: &Path) -> Result<SignedAct, CliError> {
    let failed = |source| CliError::File { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES {
        return Err(CliError::Usage(format!("`{}` is larger than any act", path.display())));
    }
    let text = std::fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| {
        CliError::Usage(format!(
            "`{}` is not a signed act: {error}\nhint: `lockgate rollout start` and others write them",
            path.display()
        ))
    })
}

/// The gatekeeper's word about an entry; none when it has not spoken within `patience`.
pub async fn verdict(
    client: &Client,
    offset: u64,
    patience: Duration,
) -> Result<Option<EntryState>, CliError> {
    let (waited, mut pause) = (Stopwatch::start(), ASK_FIRST);
    loop {
        let state: EntryState = client.get(&format!("/v1/entries/{offset}")).await?;
        match state.state {
            Standing::Accepted | Standing::Refused => return Ok(Some(state)),
            Standing::Pending if waited.elapsed() >= patience => return Ok(None),
            Standing::Pending => tokio::time::sleep(pause).await,
        }
        pause = ASK.min(pause * 2);
    }
}

/// Says what became of an entry, at once or when the gatekeeper has spoken, and which command is next.
pub async fn finish(
    session: &Session,
    client: &Client,
    appended: Appended,
    (wait, next): (&Wait, &str),
) -> Result<(), CliError> {
    let offset = appended.offset;
    if !wait.wait {
        return session.print(&appended, |appended| {
            let rollout = appended.rollout.map(|id| format!(", rollout {id}"));
            let rollout = rollout.unwrap_or_default();
            format!("handed in: entry {offset}{rollout}\nnext: `{next}`")
        });
    }
    let Some(state) = verdict(client, offset, Duration::from_secs(wait.timeout)).await? else {
        return Err(CliError::NotYet(format!(
            "the gatekeeper has not spoken about entry {offset} in {} s\nhint: nothing is lost; is the gatekeeper running?",
            wait.timeout
        )));
    };
    if state.state == Standing::Refused {
        return Err(CliError::RefusedEntry { offset, reasons: state.reasons });
    }
    let whole = serde_json::json!({
        "offset": offset, "rollout": appended.rollout,
        "state": state.state, "reasons": state.reasons,
    });
    session.print(&whole, |_| {
        let rollout = appended.rollout.map(|id| format!(", rollout {id}"));
        let mut text = format!("accepted: entry {offset}{}", rollout.unwrap_or_default());
        state.reasons.iter().for_each(|reason| text += &format!("\n  {reason}"));
        text + &format!("\nnext: `{next}`")
    })
}
