//! What the gatekeeper reported: kept on disk, held in memory for people to read. Nothing in it
//! decides anything here.

use std::{collections::BTreeMap, sync::Arc};

use lockgate_shared::wire::codec::{self, CodecError};
use serde::Deserialize;
use thiserror::Error;

use crate::{
    status::{About, FleetStatus, Status, Verdict},
    store::{Change, Table},
};

/// Where the state of everything stands in [`Table::Reports`].
const STATUS: &str = "status";
/// Where it stands what devices there are.
const FLEET: &str = "fleet";
/// A verdict or status on disk is at most as large as the frame that brought it.
const REPORT_BYTES: usize = crate::stream::FRAME_BYTES;
/// Verdicts and audit lines in memory, each: a year of five-minute ticks, some 40 MB. The store has
/// all of them.
const KEPT: usize = 100_000;

/// Everything the gatekeeper reported.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    status: Option<Arc<Status>>,
    fleet: Option<Arc<FleetStatus>>,
    verdicts: BTreeMap<u64, Arc<Verdict>>,
    entries: BTreeMap<u64, u64>,
    audit: BTreeMap<(u64, Row), Arc<str>>,
}

/// Why a report was not taken.
#[derive(Debug, Error)]
pub enum ReportError {
    /// An audit line that has no number.
    #[error("an audit line has no number `n`")]
    Line(#[source] serde_json::Error),
    /// It cannot be written down.
    #[error("the report cannot be encoded")]
    Codec(#[from] CodecError),
}

impl Reports {
    /// The newest state.
    pub const fn status(&self) -> Option<&Arc<Status>> {
        self.status.as_ref()
    }

    /// What devices there are, as it was last told.
    pub const fn fleet(&self) -> Option<&Arc<FleetStatus>> {
        self.fleet.as_ref()
    }

    /// Verdicts from a number on, in order.
    pub fn verdicts(&self, from: u64) -> impl Iterator<Item = &Arc<Verdict>> {
        self.verdicts.range(from..).map(|(_, verdict)| verdict)
    }

    /// The last verdict on an entry of the stream.
    pub fn entry(&self, offset: u64) -> Option<&Arc<Verdict>> {
        self.verdicts.get(self.entries.get(&offset)?)
    }

    /// Lines of the gatekeeper's audit chain from a number on, each with the signed head behind it.
    pub fn audit(&self, from: u64) -> impl Iterator<Item = &str> {
        self.audit.range((from, Row::Act)..).map(|(_, line)| &**line)
    }

    /// What a report changes on disk.
    pub(super) fn changes(
        verdicts: &[Verdict],
        status: &Status,
        audit: &[String],
    ) -> Result<Vec<Change>, ReportError> {
        let mut changes = Vec::with_capacity(verdicts.len() + audit.len() + 1);
        for verdict in verdicts {
            let bytes = codec::encode(verdict, REPORT_BYTES)?;
            changes.push(change(format!("verdict/{:020}", verdict.number), bytes));
        }
        for line in audit {
            let (number, row) = place(line)?;
            let tail = match row {
                Row::Act => "",
                Row::Head => "/head",
            };
            changes.push(change(format!("audit/{number:020}{tail}"), line.clone().into_bytes()));
        }
        if let Some(fleet) = &status.fleet {
            changes.push(change(FLEET.into(), codec::encode(fleet, REPORT_BYTES)?));
        }
        changes.push(change(STATUS.into(), codec::encode(status, REPORT_BYTES)?));
        Ok(changes)
    }

    /// Takes a report in, after it is on disk.
    pub(crate) fn take(&mut self, verdicts: Vec<Verdict>, status: Status, audit: Vec<String>) {
        for verdict in verdicts {
            self.verdict(verdict);
        }
        for line in audit {
            // `changes` has read this very number.
            if let Ok(place) = place(&line) {
                self.line(place, line);
            }
        }
        self.take_status(status);
    }

    /// Most reports say nothing new of what devices there are.
    fn take_status(&mut self, mut status: Status) {
        if let Some(fleet) = status.fleet.take() {
            self.fleet = Some(Arc::new(fleet));
        }
        self.status = Some(Arc::new(status));
    }

    /// Takes in what is on disk. A row that cannot be read is left out and logged: people lose a
    /// line, the server goes on.
    pub(super) fn load(rows: BTreeMap<String, Vec<u8>>) -> Self {
        let mut reports = Self::default();
        for (key, bytes) in rows {
            if let Err(error) = reports.row(&key, bytes) {
                tracing::warn!(
                    key,
                    error = &error as &dyn std::error::Error,
                    "a report is unreadable"
                );
            }
        }
        reports
    }

    fn row(&mut self, key: &str, bytes: Vec<u8>) -> Result<(), ReportError> {
        if key == STATUS {
            self.take_status(codec::decode_frame(&bytes, REPORT_BYTES)?);
        } else if key == FLEET {
            self.fleet = Some(Arc::new(codec::decode_frame(&bytes, REPORT_BYTES)?));
        } else if key.starts_with("verdict/") {
            self.verdict(codec::decode_frame(&bytes, REPORT_BYTES)?);
        } else if key.starts_with("audit/") {
            let line = String::from_utf8(bytes)
                .map_err(|error| CodecError::Malformed(error.to_string()))?;
            self.line(place(&line)?, line);
        }
        Ok(())
    }

    fn verdict(&mut self, verdict: Verdict) {
        if let About::Entry(offset) = verdict.about {
            self.entries.insert(offset, verdict.number);
        }
        self.verdicts.insert(verdict.number, Arc::new(verdict));
        while self.verdicts.len() > KEPT {
            let Some((number, old)) = self.verdicts.pop_first() else { break };
            if let About::Entry(offset) = old.about
                && self.entries.get(&offset) == Some(&number)
            {
                self.entries.remove(&offset);
            }
        }
    }

    fn line(&mut self, place: (u64, Row), line: String) {
        self.audit.insert(place, line.into());
        while self.audit.len() > KEPT {
            self.audit.pop_first();
        }
    }
}

fn change(key: String, value: Vec<u8>) -> Change {
    Change { table: Table::Reports, key, value: Some(value) }
}

/// What a line of the gatekeeper's chain is; a signed head stands behind its act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    Act,
    Head,
}

/// Where a line stands: the number of its act, or of the act that it signs.
fn place(line: &str) -> Result<(u64, Row), ReportError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Numbered {
        Act { n: u64 },
        Head { head: u64 },
    }
    match serde_json::from_str::<Numbered>(line).map_err(ReportError::Line)? {
        Numbered::Act { n } => Ok((n, Row::Act)),
        Numbered::Head { head } => Ok((head, Row::Head)),
    }
}

#[cfg(test)]
mod tests {
    use lockgate_shared::time::{Moment, Seconds};

    use super::*;
    use crate::status::Decision;

    #[test]
    fn what_was_reported_is_there_again_after_a_restart() {
        let verdict = Verdict {
            number: 3,
            at: Moment(5),
            about: About::Entry(9),
            decision: Decision::Refused,
            reasons: vec!["one signature is missing".into()],
        };
        let status = status();
        let line = r#"{"n":12,"at":"x"}"#.to_owned();
        let head = r#"{"head":12,"hash":"x"}"#.to_owned();
        let audit = [head.clone(), line.clone()];
        let changes = Reports::changes(std::slice::from_ref(&verdict), &status, &audit)
            .expect("a report that can be written");
        let rows =
            changes.into_iter().filter_map(|change| Some((change.key, change.value?))).collect();
        let reports = Reports::load(rows);
        assert_eq!(reports.status().map(|status| &**status), Some(&status));
        assert_eq!(reports.entry(9).map(|verdict| &**verdict), Some(&verdict));
        assert_eq!(reports.audit(12).collect::<Vec<_>>(), [line.as_str(), head.as_str()]);
        assert_eq!(reports.verdicts(4).count(), 0);
    }

    #[test]
    fn an_audit_line_without_a_number_is_refused() {
        let refused = Reports::changes(&[], &status(), &["{}".into()]);
        assert!(matches!(refused, Err(ReportError::Line(_))));
    }

    fn status() -> Status {
        Status {
            repository: "trial".parse().expect("a name"),
            at: Moment(7),
            letters_offset: 3,
            tick_s: Seconds(300),
            rollouts: Vec::new(),
            stops: Vec::new(),
            expiries: Vec::new(),
            cohorts: Vec::new(),
            alarms: Vec::new(),
            hearing: None,
            fleet: None,
        }
    }
}
