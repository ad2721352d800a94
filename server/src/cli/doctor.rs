//! `lockgate doctor`: what of a repository ends soon, is missing or deserves a look, and, asked of a
//! server, what is stopped and what alarms. It changes nothing.

use std::path::PathBuf;

use clap::Args;
use lockgate_shared::{
    rollout::{Scope, Stop},
    time::{Moment, Seconds},
};

use super::{
    Session,
    client::Client,
    copy::{self, Depth},
    exit::CliError,
    offline, table,
};
use crate::{
    ceremony::doctor::{self, Finding, Grade},
    clock,
    status::{Alarm, Status},
    tuf::{metadata::metadata_path, repository, trusted::Files},
};

/// How long an alarm is a fault: who has not seen it within a week will not by this, and what it was
/// about is over or comes again.
const ALARM_LASTS: Seconds = Seconds(7 * 86_400);
/// Alarms that are shown one by one: a screen of them.
const ALARMS_SHOWN: usize = 20;
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

/// Does it. Ends with 6 when something is bad, with 5 when something is due soon or stopped.
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
    if args.repository.is_none() {
        findings.extend(standing(&session.client()?, now).await?);
    }
    // What has to be done comes first.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.grade));
    session.print(&findings, |findings| text(findings))?;
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
    match doctor::worst(&findings) {
        Grade::Good | Grade::Note => Ok(()),
        Grade::Stopped | Grade::Soon => {
            let waiting = count(Grade::Stopped) + count(Grade::Soon);
            Err(CliError::NotYet(format!("{} due soon or stopped", things(waiting))))
        }
        Grade::Bad => Err(CliError::False(format!("{} wrong", things(count(Grade::Bad))))),
    }
}

/// What the gatekeeper reports besides its files: what stands still, and what calls for people.
async fn standing(client: &Client, now: Moment) -> Result<Vec<Finding>, CliError> {
    match client.get::<Status>("/v1/status").await {
        Ok(status) => Ok(reported(&status, now)),
        Err(CliError::Refused(problem)) if problem.status == 403 => Ok(vec![Finding {
            grade: Grade::Note,
            what: "stops and alarms".to_owned(),
            text: problem.detail,
            hint: Some("have an operator or an auditor run this".to_owned()),
        }]),
        Err(CliError::Refused(problem)) if problem.status == 503 => Ok(vec![Finding {
            grade: Grade::Bad,
            what: "gatekeeper".to_owned(),
            text: problem.detail,
            hint: problem.hint,
        }]),
        Err(error) => Err(error),
    }
}

fn reported(status: &Status, now: Moment) -> Vec<Finding> {
    let hearing = status.hearing.as_ref().map(|why| Finding {
        grade: Grade::Bad,
        what: "gatekeeper".to_owned(),
        text: format!("it does not hear well, and opens nothing: {why}"),
        hint: Some("look at its log and at the letter box's: do both run?".to_owned()),
    });
    let newest = status.alarms.iter().rev();
    let older = status.alarms.len().saturating_sub(ALARMS_SHOWN);
    let older = (older > 0).then(|| Finding {
        grade: Grade::Note,
        what: "alarms".to_owned(),
        text: format!("{older} older ones are not shown here"),
        hint: Some("`lockgate status` shows them".to_owned()),
    });
    let alarms = newest.take(ALARMS_SHOWN).map(|alarm| alarm_finding(alarm, now));
    hearing.into_iter().chain(alarms).chain(older).chain(status.stops.iter().map(stop)).collect()
}

fn alarm_finding(alarm: &Alarm, now: Moment) -> Finding {
    let (what, hint) = match &alarm.device {
        Some(device) => (
            format!("device {}", table::short(device)),
            format!(
                "`lockgate device explain {0}` shows what it says; `lockgate device revoke {0} --reason WHY` takes no letter of it any more",
                table::short(device)
            ),
        ),
        None => (
            "alarm".to_owned(),
            "`lockgate audit tail` and the gatekeeper's log say more".to_owned(),
        ),
    };
    let grade = if now.since(alarm.at) < ALARM_LASTS { Grade::Bad } else { Grade::Note };
    Finding { grade, what, text: format!("{} (at {})", alarm.text, alarm.at), hint: Some(hint) }
}

fn stop(stop: &Stop) -> Finding {
    let Stop { number, kind, scope, since, reason } = stop;
    let why = match scope {
        Scope::Rollout(id) => {
            format!("`lockgate rollout explain {}` says why; ", table::short(id))
        }
        Scope::Groups(..)
        | Scope::Cohort(..)
        | Scope::Tenant(_)
        | Scope::Product(_)
        | Scope::Everything => String::new(),
    };
    Finding {
        grade: Grade::Stopped,
        what: format!("{} {number}", kind.name()),
        text: format!("{scope} since {since}: {reason}"),
        hint: Some(format!(
            "{why}`lockgate rollout lift {number} --reason WHY --repository DIR --out lift.json` ends it, signed by approvers"
        )),
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
            Grade::Stopped => "STOP",
            Grade::Soon => "SOON",
            Grade::Bad => "BAD",
        };
        let hint = finding.hint.as_ref().map(|hint| format!("\n     hint: {hint}"));
        format!("{grade:4} {}: {}{}", finding.what, finding.text, hint.unwrap_or_default())
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
pub(super) mod tests {
    use lockgate_shared::{id::DeviceId, rollout::StopKind};

    use super::*;

    const NOW: Moment = Moment(1_795_000_000);

    #[test]
    fn a_stop_is_named_with_its_scope_reason_and_the_way_to_end_it() {
        let stop = Stop {
            number: 3,
            kind: StopKind::Pause,
            scope: Scope::Everything,
            since: NOW,
            reason: "a drill (olga)".into(),
        };
        let found = reported(&Status { stops: vec![stop], ..status() }, NOW);
        assert_eq!(doctor::worst(&found), Grade::Stopped);
        let text = text(&found);
        assert!(text.starts_with("STOP pause 3: everything since 2026-"), "{text}");
        assert!(text.contains(": a drill (olga)\n"), "{text}");
        assert!(text.contains("`lockgate rollout lift 3 "), "{text}");
    }

    #[test]
    fn an_alarm_is_a_fault_for_a_week_and_names_what_to_do_with_its_device() {
        let device = Some(DeviceId([0xab; 32]));
        let alarm = Alarm { at: NOW, device, text: "two machines have its identity".into() };
        let found = |now| reported(&Status { alarms: vec![alarm.clone()], ..status() }, now);
        assert_eq!(doctor::worst(&found(NOW)), Grade::Bad);
        assert!(text(&found(NOW)).contains("lockgate device explain abababababab"));
        assert_eq!(doctor::worst(&found(NOW.plus(ALARM_LASTS))), Grade::Note);
    }

    #[test]
    fn many_alarms_are_counted_and_a_deaf_gatekeeper_is_a_fault() {
        let alarm =
            |number: usize| Alarm { at: NOW, device: None, text: format!("alarm {number}") };
        let alarms = (0..ALARMS_SHOWN + 5).map(alarm).collect();
        let hearing = Some("nothing came for an hour".to_owned());
        let text = text(&reported(&Status { alarms, hearing, ..status() }, NOW));
        assert!(text.contains("5 older ones are not shown here"), "{text}");
        assert!(text.contains("alarm 24 ") && !text.contains("alarm 4 "), "{text}");
        assert!(text.contains("nothing came for an hour"), "{text}");
        assert!(reported(&status(), NOW).is_empty());
    }

    /// Of a server that has nothing.
    pub(in crate::cli) fn status() -> Status {
        Status {
            repository: "trial".parse().expect("a name"),
            at: NOW,
            letters_offset: 0,
            tick_s: Seconds(300),
            rollouts: vec![],
            stops: vec![],
            expiries: vec![],
            cohorts: vec![],
            alarms: vec![],
            hearing: None,
            fleet: None,
        }
    }
}
