//! `lockgate rollout`: how far rollouts are, and stopping them. A stop restricts, so a token is enough;
//! starting, approving and lifting take signatures and are made offline.

use std::{
    collections::BTreeSet,
    io::{IsTerminal, stderr, stdout},
    time::Duration,
};

use clap::Subcommand;
use lockgate_shared::{id::RolloutId, rollout::Scope};

use super::{
    Session, act, client::Client, enough_digits, exit::CliError, offline, overview,
    overview::Overview, say, table,
};
use crate::{
    api::admin::{
        Appended,
        acts::{EntryState, Standing},
        stops::StopAsked,
    },
    status::{RolloutState, RolloutStatus, Verdict},
    stream::StopHow,
};

/// How long a stop waits for its number: the gatekeeper signs a stop at once, unless it is down.
const NUMBERED: Duration = Duration::from_secs(5);
/// How often `--watch` looks: the gatekeeper's shortest tick is a few seconds.
const LOOK: Duration = Duration::from_secs(2);
/// Verdicts that `explain` shows: the last few decisions of every stage.
const VERDICTS_SHOWN: usize = 20;

/// What can be asked about rollouts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What needs no server
    #[command(flatten)]
    Offline(Box<offline::rollout::RolloutCommand>),
    /// List rollouts
    List,
    /// Show each stage of a rollout, or of all that are in progress
    Status {
        /// The rollout, or its first digits
        id: Option<String>,
        /// Look again until it is complete, halted or ended: ends well only if it is complete
        #[arg(long)]
        watch: bool,
    },
    /// Show why a rollout stands where it does
    Explain {
        /// The rollout, or its first digits
        id: String,
    },
    /// Pause a rollout; approvers lift the pause
    Pause {
        /// The rollout, or its first digits
        id: String,
        /// Why; whoever lifts the pause reads it
        #[arg(long)]
        reason: String,
    },
    /// End a rollout for good: nothing leads back, and devices that come later do not get it
    Stop {
        /// The rollout, or its first digits
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// Do not ask; for programs
        #[arg(long)]
        yes: bool,
    },
}

/// Does it.
pub async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Offline(command) => session.offline(|_| offline::rollout::run(&command)),
        Command::List => {
            let client = session.client()?;
            let rollouts: Vec<RolloutStatus> = client.get("/v1/rollouts").await?;
            let recalls = overview::recalls(&client).await?;
            session.print(&rollouts, |rollouts| overview::list_text(rollouts, &recalls))
        }
        Command::Status { id, watch: false } => {
            let seen = look(&session.client()?, id.as_deref(), &mut BTreeSet::new()).await?;
            session.print(&seen.json(), |_| seen.text())
        }
        Command::Status { id, watch: true } => watch(session, id.as_deref()).await,
        Command::Explain { id } => explain(session, &id).await,
        Command::Pause { id, reason } => {
            let id = resolve(&session.client()?, &id).await.map_err(CliError::not_stopped)?;
            stop(session, Scope::Rollout(id), StopHow::Pause, reason).await
        }
        Command::Stop { id, reason, yes } => {
            let client = session.client()?;
            let id = if yes { resolve(&client, &id).await } else { asked_for(&client, &id).await };
            let id = id.map_err(CliError::not_stopped)?;
            stop(session, Scope::Rollout(id), StopHow::End, reason).await
        }
    }
}

/// Stops something at once.
pub async fn stop(
    session: &Session,
    scope: Scope,
    how: StopHow,
    reason: String,
) -> Result<(), CliError> {
    let asked = StopAsked { scope, how, reason };
    let client = session.client()?;
    let appended: Result<Appended, CliError> = client.post("/v1/stops", &asked).await;
    let Appended { offset, rollout } = appended.map_err(CliError::not_stopped)?;
    if !session.json() {
        // What counts is done; the number comes from another process.
        say(&format!(
            "stopped: entry {offset}; every device it covers hears of it at its next check-in"
        ))?;
    }
    let verdict = act::verdict(&client, offset, NUMBERED).await.unwrap_or(None);
    let (reasons, number) = match verdict {
        Some(EntryState { state: Standing::Refused, reasons, .. }) => {
            return Err(CliError::RefusedEntry { offset, reasons });
        }
        Some(EntryState { reasons, stop, .. }) => (reasons, stop),
        None => (Vec::new(), None),
    };
    let whole = serde_json::json!({
        "offset": offset, "rollout": rollout, "stop": number, "reasons": reasons,
    });
    session.print(&whole, |_| stopped_text(how, number, &reasons))
}

/// What a stop became, and how it ends.
fn stopped_text(how: StopHow, number: Option<u64>, reasons: &[String]) -> String {
    let said: String = reasons.iter().map(|reason| format!("  {reason}\n")).collect();
    let next = match (how, number) {
        (StopHow::End, _) if reasons.is_empty() => {
            "hint: the gatekeeper has not signed it yet; `lockgate rollout list` shows when it has"
                .to_owned()
        }
        (StopHow::End, _) => return said.trim_end().to_owned(),
        (StopHow::Pause, Some(number)) => format!(
            "next: `lockgate rollout lift {number} --reason WHY --repository DIR --out lift.json` ends it, signed by approvers"
        ),
        (StopHow::Pause, None) => {
            "hint: the gatekeeper has not numbered it yet; `lockgate rollout status` shows its number, by which `lockgate rollout lift` ends it".to_owned()
        }
    };
    said + &next
}

/// The rollout that is to end for good, once a person has seen which it is and said so.
async fn asked_for(client: &Client, text: &str) -> Result<RolloutId, CliError> {
    let rollouts: Vec<RolloutStatus> = client.get("/v1/rollouts").await?;
    let id = pick(&rollouts, text)?;
    let ending = rollouts.iter().find(|rollout| rollout.rollout == id).map(ending_text);
    let ending = ending.unwrap_or_default();
    let question = format!("{ending}\nend it for good? Type `yes`: ");
    // Standard output may be read by a program.
    let answered = offline::answered(&mut stderr(), &question, "yes").map_err(CliError::ours)?;
    if answered { Ok(id) } else { Err(not_ended(&ending)) }
}

/// Which rollout ends, and what that means.
fn ending_text(rollout: &RolloutStatus) -> String {
    let RolloutStatus { product, version, channel, state, stages, .. } = rollout;
    let kept: u32 = stages.iter().map(|stage| stage.confirmed).sum();
    let devices: u32 = stages.iter().map(|stage| stage.devices).sum();
    format!(
        "{product} {version} on {channel}, {}, {kept} of {devices} kept\nthis cannot be taken back: no lift leads back from it, and devices that come later will not get this version",
        table::word(state)
    )
}

fn not_ended(ending: &str) -> CliError {
    CliError::Usage(format!(
        "nothing was ended: {ending}\nhint: answer `yes` at a terminal or pass `--yes`; `lockgate rollout pause` stops it at once and can be lifted"
    ))
}

/// The rollout whose first digits were given.
async fn resolve(client: &Client, text: &str) -> Result<RolloutId, CliError> {
    // A whole id is not looked up: a stop must not wait for a second answer.
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let rollouts: Vec<RolloutStatus> = client.get("/v1/rollouts").await?;
    pick(&rollouts, text)
}

pub(super) fn pick(rollouts: &[RolloutStatus], text: &str) -> Result<RolloutId, CliError> {
    enough_digits(text, "lockgate rollout list")?;
    let mut fitting =
        rollouts.iter().map(|r| r.rollout).filter(|id| id.to_string().starts_with(text));
    match (fitting.next(), fitting.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(CliError::Usage(format!(
            "several rollouts begin with `{text}`\nhint: give more digits"
        ))),
        (None, _) => Err(CliError::Usage(format!(
            "no rollout begins with `{text}`\nhint: `lockgate rollout list` shows them"
        ))),
    }
}

/// The status, with one rollout, or with all that are in progress and those in `followed`, which
/// grows by them: whoever watches sees how they end.
async fn look(
    client: &Client,
    id: Option<&str>,
    followed: &mut BTreeSet<RolloutId>,
) -> Result<Overview, CliError> {
    let mut seen = Overview::ask(client).await?;
    let rollouts = &mut seen.status.rollouts;
    match id {
        Some(text) => {
            let id = pick(rollouts, text)?;
            rollouts.retain(|rollout| rollout.rollout == id);
        }
        None => keep_in_progress(rollouts, followed),
    }
    Ok(seen)
}

fn keep_in_progress(rollouts: &mut Vec<RolloutStatus>, followed: &mut BTreeSet<RolloutId>) {
    rollouts.retain(|rollout| !over(rollout.state) || followed.contains(&rollout.rollout));
    followed.extend(rollouts.iter().map(|rollout| rollout.rollout));
}

const fn over(state: RolloutState) -> bool {
    match state {
        RolloutState::Complete | RolloutState::Ended => true,
        RolloutState::Running | RolloutState::Paused | RolloutState::Halted => false,
    }
}

async fn watch(session: &Session, id: Option<&str>) -> Result<(), CliError> {
    let client = session.client()?;
    let (mut before, mut followed) = (String::new(), BTreeSet::new());
    loop {
        let seen = look(&client, id, &mut followed).await?;
        if session.json() {
            let line = serde_json::to_string(&seen.json()).map_err(CliError::ours)?;
            if line != before {
                say(&line)?;
                before = line;
            }
        } else {
            let text = seen.text();
            if text != before {
                // Clears the screen, and what has scrolled stays where it is.
                let clear = if stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
                say(&format!("{clear}{text}"))?;
                before = text;
            }
        }
        if let Some(end) = end(&seen.status.rollouts) {
            return end;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How a watch ends, once none of its rollouts gets further by itself: well only where all are complete.
fn end(rollouts: &[RolloutStatus]) -> Option<Result<(), CliError>> {
    let mut stopped = Vec::new();
    for rollout in rollouts {
        let word = match rollout.state {
            RolloutState::Running | RolloutState::Paused => return None,
            RolloutState::Complete => continue,
            RolloutState::Halted => "halted",
            RolloutState::Ended => "ended for good",
        };
        stopped.push((rollout, word));
    }
    let Some((first, _)) = stopped.first() else { return Some(Ok(())) };
    let hint = format!("`lockgate rollout explain {}` says why", table::short(first.rollout));
    let each = stopped.iter().map(|(rollout, word)| {
        let RolloutStatus { product, version, channel, .. } = rollout;
        format!("{product} {version} on `{channel}` was {word}")
    });
    let text = each.collect::<Vec<_>>().join("; ");
    Some(Err(CliError::Stopped(format!("{text}\nhint: {hint}"))))
}

async fn explain(session: &Session, id: &str) -> Result<(), CliError> {
    let client = session.client()?;
    let seen = look(&client, Some(id), &mut BTreeSet::new()).await?;
    let Some(rollout) = seen.status.rollouts.first() else { return Ok(()) };
    let path = format!("/v1/verdicts?rollout={}", rollout.rollout);
    // Only the vendor's people read verdicts; the rest of the explanation is everybody's.
    let mut verdicts: Vec<Verdict> = match client.get(&path).await {
        Ok(verdicts) => verdicts,
        Err(CliError::Refused(problem)) if problem.status == 403 => Vec::new(),
        Err(error) => return Err(error),
    };
    let skip = verdicts.len().saturating_sub(VERDICTS_SHOWN);
    verdicts.drain(..skip);
    let whole =
        serde_json::json!({ "rollout": rollout, "stops": seen.status.stops, "verdicts": verdicts });
    session.print(&whole, |_| {
        let mut text = seen.text();
        for stage in &rollout.stages {
            text += &format!("\n\n{} ({}):", stage.cohort, table::word(&stage.decision));
            for reason in &stage.reasons {
                text += &format!("\n  {reason}");
            }
        }
        for verdict in &verdicts {
            text += &format!(
                "\n\nverdict {} at {}: {}",
                verdict.number,
                verdict.at,
                table::word(&verdict.decision)
            );
            for reason in &verdict.reasons {
                text += &format!("\n  {reason}");
            }
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use lockgate_shared::{act::RiskClass, id::Digest, time::Moment};

    use super::*;
    use crate::status::{Decision, StageStatus};

    #[test]
    fn whoever_watches_all_rollouts_sees_how_they_end() {
        let mut followed = BTreeSet::new();
        let mut rollouts = vec![rollout(1, RolloutState::Running), rollout(2, RolloutState::Ended)];
        keep_in_progress(&mut rollouts, &mut followed);
        assert_eq!(rollouts.len(), 1, "what was over before is left out");
        let mut rollouts =
            vec![rollout(1, RolloutState::Complete), rollout(2, RolloutState::Ended)];
        keep_in_progress(&mut rollouts, &mut followed);
        assert_eq!(rollouts, [rollout(1, RolloutState::Complete)]);
    }

    #[test]
    fn a_watch_goes_on_while_something_climbs_and_ends_well_only_if_all_is_complete() {
        use RolloutState as S;
        let end = |states: &[RolloutState]| {
            let rollouts: Vec<_> = states.iter().map(|state| rollout(1, *state)).collect();
            end(&rollouts)
        };
        assert!(end(&[S::Complete, S::Running]).is_none());
        assert!(end(&[S::Halted, S::Paused]).is_none());
        assert!(matches!(end(&[]), Some(Ok(()))));
        assert!(matches!(end(&[S::Complete]), Some(Ok(()))));
        for (state, word) in [(S::Halted, "was halted"), (S::Ended, "was ended for good")] {
            let Some(Err(error)) = end(&[S::Complete, state]) else { panic!("it ended well") };
            assert_eq!(error.exit() as u8, 7);
            let text = error.to_string();
            assert!(text.contains(word) && text.contains("lockgate rollout explain"), "{text}");
        }
    }

    #[test]
    fn whoever_ends_a_rollout_reads_which_it_is_and_that_nothing_leads_back() {
        let mut complete = rollout(1, RolloutState::Complete);
        complete.stages = vec![StageStatus {
            cohort: "everyone".parse().expect("a name"),
            devices: 1,
            authorised: 1,
            treated: 1,
            confirmed: 1,
            rolled_back: 0,
            failed: 0,
            inconclusive: 0,
            silent: 0,
            limit: None,
            opened: None,
            full: None,
            decision: Decision::Complete,
            reasons: Vec::new(),
        }];
        let text = not_ended(&ending_text(&complete)).to_string();
        for words in [
            "app 1.0.0 on stable, complete, 1 of 1 kept\n",
            "cannot be taken back",
            "devices that come later will not get this version",
            "`--yes`",
            "`lockgate rollout pause`",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn a_rollout_is_not_named_by_one_digit() {
        let rollouts = [rollout(1, RolloutState::Complete)];
        let text = pick(&rollouts, "0").expect_err("one digit").to_string();
        assert!(text.contains("too short") && text.contains("lockgate rollout list"), "{text}");
        assert_eq!(pick(&rollouts, "01010101").expect("eight digits"), rollouts[0].rollout);
    }

    #[test]
    fn a_stop_says_its_number_or_where_to_find_it() {
        let said = ["stop 3: it burns (olga)".to_owned()];
        let text = stopped_text(StopHow::Pause, Some(3), &said);
        assert!(text.starts_with("  stop 3: it burns (olga)\nnext: `lockgate rollout lift 3 "));
        let text = stopped_text(StopHow::Pause, None, &[]);
        assert!(text.contains("`lockgate rollout status` shows its number"), "{text}");
        let said = ["rollout 1 is ended for good: it burns".to_owned()];
        assert_eq!(stopped_text(StopHow::End, None, &said), format!("  {}", said[0]));
    }

    fn rollout(id: u8, state: RolloutState) -> RolloutStatus {
        RolloutStatus {
            rollout: RolloutId([id; 32]),
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            version: "1.0.0".parse().expect("a version"),
            manifest: Digest([0; 32]),
            owner: "eva".parse().expect("a name"),
            risk: RiskClass::Routine,
            started: Moment(0),
            state,
            stages: Vec::new(),
            groups: Vec::new(),
            coverage: Vec::new(),
        }
    }
}
