//! The snapshot that `status` and `explain` print, put together from what the loop knows.

use std::collections::BTreeMap;

use lockgate_shared::{
    bucket::Limit, count::count, eligibility::Reason, gather::gather, group::groups_of,
    rollout::Stop, time::Seconds,
};

use super::{Agent, ManagedProduct};
use crate::{
    core::{
        choice::{Choice, Finding},
        machine::{Now, Refused, State, Way},
        trial::Watch,
    },
    status::{
        CandidateStatus, ContactStatus, GroupWords, PinStatus, ProbeStatus, ProductStatus,
        ReasonStatus, RecallStatus, RefreshStatus, SourceStatus, Status, TrialStatus, Verdict,
    },
    transport::Cause,
    world::World,
};

/// How long the answer to a request is shown: its owner looks the same day.
const ANSWERS_LAST: Seconds = Seconds(86_400);

impl<W: World> Agent<W> {
    /// Everything the agent knows and intends.
    pub fn snapshot(&self) -> Status {
        let now = self.now();
        let groups = groups_of(&self.facts, self.hours.habit());
        let trusted = self.heard.trusted;
        let (letters, outcomes) = self.journal.waiting().unwrap_or_default();
        let left = self.next_poll.0.saturating_sub(now.uptime.0);
        Status {
            taken: now.clock,
            agent: self.writer.agent.to_string(),
            device: self.writer.device,
            tenant: self.writer.tenant.clone(),
            repository: self.writer.repository.clone(),
            model: self.facts.model_id(),
            groups: groups
                .into_iter()
                .map(|group| GroupWords { kind: group.kind.name().into(), values: group.label })
                .collect(),
            refresh: RefreshStatus {
                last: self.heard.refreshed,
                problem: self.heard.refresh_problem.clone(),
                timestamp_version: trusted.map(|trusted| trusted.timestamp_version),
                timestamp_issued: trusted.and_then(|t| t.timestamp_issued),
                expires: trusted.map(|trusted| trusted.expires()),
            },
            contact: ContactStatus {
                last: self.heard.contact,
                problem: self.heard.contact_problem.clone(),
                clock_ahead_s: self.heard.clock_ahead_s,
                letters_waiting: letters,
                outcomes_waiting: outcomes,
                next_poll: Some(now.clock.plus(Seconds(left))),
            },
            state_problem: self.state_problem(),
            behind: self.behind(now),
            products: self.products.iter().map(|managed| self.product(managed)).collect(),
            stops: self.stops(),
            notices: self.notices.clone(),
        }
    }

    fn behind(&self, now: Now) -> Vec<SourceStatus> {
        let left = |until: Seconds| Seconds(until.0.saturating_sub(now.uptime.0));
        self.behind
            .iter()
            .map(|one| SourceStatus {
                source: one.source.to_string(),
                why: match &one.cause {
                    Cause::Refused(why) => format!("what it gave was refused: {why}"),
                    Cause::Failed(why) => why.clone(),
                },
                until: now.clock.plus(left(one.until)),
            })
            .collect()
    }

    /// Every stop that the device has seen and no lift has named, and those passed on.
    fn stops(&self) -> Vec<String> {
        let stops = self.products.iter().flat_map(|managed| managed.memory.stops.values());
        let seen: BTreeMap<u64, &Stop> = gather(stops.map(|stop| (stop.number, stop)));
        let numbered = seen.values().map(|stop| {
            format!("{} {}, {}: {}", stop.kind.name(), stop.number, stop.scope, stop.reason)
        });
        let passed = self
            .orders
            .stops
            .iter()
            .map(|stop| format!("passed on by the server, {}: {}", stop.scope, stop.reason));
        numbered.chain(passed).collect()
    }

    fn product(&self, managed: &ManagedProduct) -> ProductStatus {
        let active = managed.active();
        let contents = active.as_ref().and_then(|(_, contents)| contents.clone());
        ProductStatus {
            product: managed.product.clone(),
            channel: managed.follows.clone().or_else(|| managed.channel.clone()),
            pins: managed
                .pins(&self.orders, &self.kept)
                .into_iter()
                .map(|(by, pin)| PinStatus { pin: pin.to_string(), by: by.to_string() })
                .collect(),
            state: managed.record.state.word(),
            state_text: sentence(&managed.record.state),
            slot: active.map(|(slot, _)| slot.to_string()),
            running: contents.as_ref().map(|contents| contents.version.clone()),
            running_manifest: contents.map(|contents| contents.manifest),
            other: managed.idle().map(|contents| contents.version),
            recall: managed.choice.back.as_ref().map(|back| RecallStatus {
                to: back.to.clone(),
                why: back.reason.clone(),
                reasons: reasons(&back.finding),
            }),
            rollback: managed
                .asked_back
                .clone()
                .filter(|asked| self.now().clock.since(asked.answered) < ANSWERS_LAST),
            failed: managed.record.failed.clone(),
            trial: trial(&managed.record.state),
            candidates: candidates(&managed.choice),
        }
    }
}

/// A state in a sentence.
pub(super) fn sentence(state: &State) -> String {
    match state {
        State::Idle => "nothing newer is offered".into(),
        State::Waiting { until: Some(until), reasons } => {
            format!("waits until {until} at the earliest: {}", first(reasons))
        }
        State::Waiting { until: None, reasons } => format!("waits: {}", first(reasons)),
        State::Fetching { plan, refused: Refused { times: 0, .. } } => {
            format!("fetches {} into slot {}", plan.version, plan.to)
        }
        State::Fetching { plan, refused: Refused { times, until } } => {
            let came = count(usize::from(*times), "time", "times");
            let again = until.map_or_else(String::new, |until| format!(" from {until}"));
            format!(
                "fetches {} again{again}: other bytes than the signed ones came {came}",
                plan.version
            )
        }
        State::Staged { plan } => {
            format!("{} is complete in slot {} and not active yet", plan.version, plan.to)
        }
        State::Activating { plan } => format!("switches to {} in slot {}", plan.version, plan.to),
        State::Trial { plan, watch, .. } => match watch.healthy_since {
            Some(since) => {
                let healthy = Seconds(watch.elapsed.0.saturating_sub(since.0));
                format!("{} has been healthy for {healthy} of {}", plan.version, plan.trial.soak_s)
            }
            None => format!("{} has not shown its health yet", plan.version),
        },
        State::Confirmed { version } => format!("{version} was kept"),
        State::RollingBack { plan, why, way, .. } => match way {
            Way::Switching | Way::SwitchingWithoutContact => {
                format!("goes back from {}: {why}", plan.version)
            }
            Way::Listening { .. } => {
                format!("went back from {} and listens for its server: {why}", plan.version)
            }
        },
        State::Failed { version, reasons } => {
            format!("gave up on {version}: {}", reasons.join("; "))
        }
    }
}

fn first(reasons: &[lockgate_shared::wire::ReasonRecord]) -> String {
    match reasons {
        [] => "no reason was given".into(),
        [only] => only.text.clone(),
        [first, rest @ ..] => format!("{}, and {} more", first.text, rest.len()),
    }
}

fn trial(state: &State) -> Option<TrialStatus> {
    let State::Trial { plan, watch, .. } = state else { return None };
    let healthy = watch.healthy_since;
    Some(TrialStatus {
        version: plan.version.clone(),
        elapsed: watch.elapsed,
        healthy_for: healthy.map(|since| Seconds(watch.elapsed.0.saturating_sub(since.0))),
        soak: plan.trial.soak_s,
        deadline: watch.deadline,
        attempts_left: watch.attempts_left,
        probes: probes(watch),
    })
}

fn probes(watch: &Watch) -> Vec<ProbeStatus> {
    watch
        .probes
        .iter()
        .map(|(name, tally)| ProbeStatus {
            name: name.clone(),
            held: tally.held,
            failed: tally.failed,
            last: tally.last.as_ref().map(|said| said.detail.clone()),
        })
        .collect()
}

fn candidates(choice: &Choice) -> Vec<CandidateStatus> {
    choice
        .considered
        .iter()
        .enumerate()
        .map(|(index, one)| CandidateStatus {
            version: one.start.as_ref().map(|start| start.version.clone()),
            rollout: one.rollout,
            cohort: one.cohort.clone(),
            place: one.bucket.map(|bucket| Limit(bucket.0).to_string()),
            limit: one.limit.map(|limit| limit.to_string()),
            verdict: match one.finding {
                Finding::Go if choice.chosen == Some(index) => Verdict::Chosen,
                Finding::Go => Verdict::Passed,
                Finding::Against(_) => Verdict::Waits,
                Finding::Refused(_) => Verdict::Refused,
            },
            reasons: reasons(&one.finding),
        })
        .collect()
}

fn reasons(finding: &Finding) -> Vec<ReasonStatus> {
    match finding {
        Finding::Go => Vec::new(),
        Finding::Against(reasons) => reasons.iter().map(reason).collect(),
        Finding::Refused(why) => vec![ReasonStatus {
            code: 0,
            question: "belief".into(),
            text: why.clone(),
            until: None,
        }],
    }
}

fn reason(reason: &Reason) -> ReasonStatus {
    ReasonStatus {
        code: reason.code(),
        question: format!("{:?}", reason.question()).to_lowercase(),
        text: reason.to_string(),
        until: reason.until(),
    }
}
