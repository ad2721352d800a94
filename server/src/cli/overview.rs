//! How rollouts stand, for people and for programs: what the gatekeeper last reported, together with
//! the recalls of what they brought. Everything is shown as it was told; nothing is judged.

use lockgate_shared::time::Moment;
use serde_json::{Value, json};

use super::{client::Client, exit::CliError, table};
use crate::{
    clock,
    registry::rows::{RecallRow, ReleaseRow},
    status::{Decision, RolloutStatus, StageStatus, Status},
};

/// What the counts of a recalled version's rollout are: those of how it went out.
const COUNTED: &str =
    "the counts below are of the rollout: who went back by the recall still counts as kept\n";

/// What the gatekeeper reported, and what was recalled.
#[derive(Debug)]
pub struct Overview {
    /// The report.
    pub status: Status,
    /// Every recall.
    pub recalls: Vec<RecallRow>,
}

impl Overview {
    /// Asks the server for both.
    pub async fn ask(client: &Client) -> Result<Self, CliError> {
        let status = client.get("/v1/status").await?;
        Ok(Self { status, recalls: recalls(client).await? })
    }

    /// What of it is about rollouts, and changes only when they do.
    pub fn json(&self) -> Value {
        let Self { status, recalls } = self;
        json!({
            "rollouts": status.rollouts, "stops": status.stops, "alarms": status.alarms,
            "hearing": status.hearing, "recalls": recalls,
        })
    }

    /// Rollouts stage by stage, what is recalled, and what is stopped.
    pub fn text(&self) -> String {
        let (status, now) = (&self.status, clock::now());
        let mut parts = Vec::new();
        if status.rollouts.is_empty() {
            parts
                .push("no rollout is in progress; `lockgate rollout list` shows the others".into());
        }
        for rollout in &status.rollouts {
            parts.push(rollout_text(rollout, recall_of(&self.recalls, rollout), now));
        }
        if let Some(why) = &status.hearing {
            parts.push(format!("the gatekeeper does not hear well: {why}"));
        }
        let open = self.recalls.iter().filter(|row| now < row.recall.until);
        let apart =
            open.filter(|row| !status.rollouts.iter().any(|rollout| is_about(row, rollout)));
        parts.extend(apart.map(|row| recall_text(row, now)));
        for stop in &status.stops {
            parts.push(format!(
                "stop {} ({}) of {} since {}: {}",
                stop.number,
                table::word(&stop.kind),
                stop.scope,
                stop.since,
                stop.reason
            ));
        }
        for alarm in &status.alarms {
            let device = alarm.device.map(|id| format!(" device {}", table::short(id)));
            let device = device.unwrap_or_default();
            parts.push(format!("alarm at {}{device}: {}", alarm.at, alarm.text));
        }
        parts.join("\n\n")
    }
}

/// Every recall that was handed in.
pub async fn recalls(client: &Client) -> Result<Vec<RecallRow>, CliError> {
    let releases: Vec<ReleaseRow> = client.get("/v1/releases").await?;
    Ok(releases.into_iter().filter_map(|row| row.recall).collect())
}

/// Rollouts as a list.
pub fn list_text(rollouts: &[RolloutStatus], recalls: &[RecallRow]) -> String {
    let rows = rollouts.iter().map(|rollout| {
        let recalled = recall_of(recalls, rollout).is_some_and(|row| row.published.is_some());
        let state = table::word(&rollout.state);
        vec![
            table::short(rollout.rollout),
            rollout.product.to_string(),
            rollout.channel.to_string(),
            rollout.version.to_string(),
            table::word(&rollout.risk),
            if recalled { format!("{state}, recalled") } else { state },
            rollout.owner.to_string(),
            rollout.started.to_string(),
        ]
    });
    table::of(
        &["rollout", "product", "channel", "version", "risk", "state", "owner", "started"],
        rows.collect(),
        "no rollout was started yet",
    )
}

/// A recall in a sentence.
pub fn recall_text(row: &RecallRow, now: Moment) -> String {
    let recall = &row.recall;
    let what = format!("{} {}", recall.product, recall.version);
    let way = format!("to {} until {}: {}", recall.to, recall.until, recall.reason);
    match row.published {
        None => format!("a recall of {what} waits for the gatekeeper: entry {}", row.offset),
        Some(_) if recall.until <= now => format!("{what} was recalled {way}"),
        Some(_) => format!(
            "{what} is recalled {way}; `lockgate device explain DEVICE` says how far a device is"
        ),
    }
}

fn recall_of<'a>(recalls: &'a [RecallRow], rollout: &RolloutStatus) -> Option<&'a RecallRow> {
    recalls.iter().find(|row| is_about(row, rollout))
}

fn is_about(row: &RecallRow, rollout: &RolloutStatus) -> bool {
    row.recall.product == rollout.product && row.recall.version == rollout.version
}

fn rollout_text(rollout: &RolloutStatus, recall: Option<&RecallRow>, now: Moment) -> String {
    let published = recall.filter(|row| row.published.is_some());
    let recall = recall.map(|row| format!("{}\n", recall_text(row, now)));
    format!(
        "{} {} on `{}`: {}{} ({})\n{}{}{}",
        rollout.product,
        rollout.version,
        rollout.channel,
        table::word(&rollout.state),
        if published.is_some() { ", recalled" } else { "" },
        table::short(rollout.rollout),
        recall.unwrap_or_default(),
        if published.is_some() { COUNTED } else { "" },
        table::of(
            &[
                "stage", "devices", "let in", "treated", "kept", "back", "failed", "silent",
                "open to", "decision", "because",
            ],
            rollout.stages.iter().map(stage_row).collect(),
            "it has no stage",
        )
    )
}

fn stage_row(stage: &StageStatus) -> Vec<String> {
    let closed = match stage.decision {
        Decision::Complete => "complete",
        Decision::Accepted
        | Decision::Refused
        | Decision::Open
        | Decision::Wait
        | Decision::Hold
        | Decision::Halt
        | Decision::End => "closed",
    };
    vec![
        stage.cohort.to_string(),
        stage.devices.to_string(),
        stage.authorised.to_string(),
        stage.treated.to_string(),
        stage.confirmed.to_string(),
        stage.rolled_back.to_string(),
        stage.failed.to_string(),
        stage.silent.to_string(),
        stage.limit.map_or_else(|| closed.to_owned(), |limit| limit.to_string()),
        table::word(&stage.decision),
        stage.reasons.first().cloned().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use lockgate_shared::{
        act::RiskClass,
        id::{Digest, RolloutId},
        recall::{Recall, RecallStep},
        time::Seconds,
    };

    use super::*;
    use crate::status::RolloutState;

    #[test]
    fn a_recall_stands_with_its_rollout_and_by_itself_while_it_is_open() {
        let row = row(Some(Moment(5)), clock::now().plus(Seconds(3600)));
        let words = "app 1.1.0 is recalled to 1.0.0 until ";
        let mut overview = Overview { status: status(), recalls: vec![row] };
        let text = overview.text();
        assert!(text.starts_with(&format!(
            "app 1.1.0 on `stable`: complete, recalled (010101010101)\n{words}"
        )));
        assert!(text.contains("who went back by the recall still counts as kept"), "{text}");
        assert_eq!(text.matches(words).count(), 1, "{text}");
        assert!(
            list_text(&overview.status.rollouts, &overview.recalls).contains("complete, recalled")
        );
        overview.status.rollouts.clear();
        assert!(overview.text().contains(words));
        overview.recalls[0].recall.until = Moment(9);
        assert!(!overview.text().contains("recalled"), "what is long over is shown for ever");
    }

    #[test]
    fn a_recall_that_nobody_verified_is_not_shown_as_one() {
        let row = row(None, clock::now().plus(Seconds(3600)));
        let overview = Overview { status: status(), recalls: vec![row] };
        let text = overview.text();
        assert!(text.contains("waits for the gatekeeper: entry 7"));
        assert!(text.contains("complete (0101") && !text.contains("still counts"), "{text}");
        assert!(!list_text(&overview.status.rollouts, &overview.recalls).contains("recalled"));
    }

    fn row(published: Option<Moment>, until: Moment) -> RecallRow {
        let recall = Recall {
            format: 1,
            product: "app".parse().expect("a name"),
            version: "1.1.0".parse().expect("a version"),
            to: "1.0.0".parse().expect("a version"),
            manifest: Digest([1; 32]),
            issued: Moment(0),
            until,
            harmed_after_s: Seconds(0),
            steps: vec![RecallStep { after_s: Seconds(0), share_ppm: 1_000_000 }],
            timestamp_max_age_s: Seconds(3600),
            reason: "it loses data".into(),
        };
        RecallRow { recall, offset: 7, published }
    }

    fn status() -> Status {
        let rollout = RolloutStatus {
            rollout: RolloutId([1; 32]),
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            version: "1.1.0".parse().expect("a version"),
            manifest: Digest([0; 32]),
            owner: "eva".parse().expect("a name"),
            risk: RiskClass::Routine,
            started: Moment(0),
            state: RolloutState::Complete,
            stages: Vec::new(),
            groups: Vec::new(),
            coverage: Vec::new(),
        };
        Status { at: Moment(0), rollouts: vec![rollout], ..crate::cli::doctor::tests::status() }
    }
}
