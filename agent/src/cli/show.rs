//! `status` and `explain`: the snapshot that the loop left, for people or as it is. Nothing is asked and
//! nothing decided here; both work while the agent is down, and say how old the snapshot is.

use std::{fmt::Write as _, path::Path};

use lockgate_shared::{id::ProductId, time::Moment, version::Version};
use serde_json::json;

use super::{CliError, Report};
use crate::{
    clock,
    config::Settings,
    identity,
    status::{
        CandidateStatus, ProductStatus, ReasonStatus, RecallStatus, RollbackStatus, Status,
        StatusError, Verdict,
    },
};

/// `status`.
pub(super) fn status(settings: &Settings) -> Result<Report, CliError> {
    status_in(&settings.state)
}

/// The same for a state folder.
pub(super) fn status_in(state: &Path) -> Result<Report, CliError> {
    let status = read(state)?;
    Ok(Report::of(status_text(&status, clock::now()), &status))
}

/// `explain`, for one product or all.
pub(super) fn explain(settings: &Settings, only: Option<&ProductId>) -> Result<Report, CliError> {
    let status = read(&settings.state)?;
    let products: Vec<&ProductStatus> = status
        .products
        .iter()
        .filter(|product| only.is_none_or(|only| product.product == *only))
        .collect();
    if let (Some(only), true) = (only, products.is_empty()) {
        return Err(CliError::Product(only.clone()));
    }
    let mut text = String::new();
    for product in &products {
        explain_product(&mut text, product);
    }
    for stop in &status.stops {
        // Where nothing newer is offered, no candidate has it among its reasons.
        let _ = writeln!(text, "stopped: {stop}");
    }
    let whole = json!({ "taken": status.taken, "products": products, "stops": status.stops });
    Ok(Report::of(text, whole))
}

/// What the agent wrote last. Where it never wrote, a device that is not enrolled yet is told so.
fn read(state: &Path) -> Result<Status, CliError> {
    match Status::read(state) {
        Err(absent @ StatusError::Absent(_)) => {
            identity::enrolled(state)?;
            Err(absent.into())
        }
        other => Ok(other?),
    }
}

fn status_text(status: &Status, now: Moment) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12} {}", value.replace("\nhint: ", "; hint: "));
    };
    line("as of", format!("{} ({} ago)", status.taken, now.since(status.taken)));
    line("agent", status.agent.clone());
    line("device", status.device.to_string());
    line("tenant", format!("{} of {}", status.tenant, status.repository));
    line("repository", word(status.refresh.last, status.refresh.problem.as_deref()));
    line("server", word(status.contact.last, status.contact.problem.as_deref()));
    if let Some(problem) = &status.state_problem {
        line("state", problem.clone());
    }
    if let Some(next) = status.contact.next_poll {
        line("next poll", format!("{next} (in {})", next.since(now)));
    }
    for one in &status.behind {
        line("asked last", format!("{} until {}: {}", one.source, one.until, one.why));
    }
    for product in &status.products {
        let running = product.running.as_ref().map_or("nothing".to_owned(), ToString::to_string);
        line(product.product.as_str(), format!("{running}, {}", product.state_text));
        if let Some(recall) = &product.recall {
            line("recalled", format!("{} {}", product.product, recall_text(product, recall)));
        }
        if let Some(RollbackStatus { answered, refused: Some(why) }) = &product.rollback {
            line("refused", format!("{} does not go back: {why} (at {answered})", product.product));
        }
    }
    for stop in &status.stops {
        line("stopped", stop.clone());
    }
    for notice in &status.notices {
        line("notice", notice.clone());
    }
    text
}

fn word(last: Option<Moment>, problem: Option<&str>) -> String {
    let last = last.map_or("never reached".to_owned(), |last| format!("good at {last}"));
    match problem {
        Some(problem) => format!("{last}; since then: {problem}"),
        None => last,
    }
}

fn explain_product(text: &mut String, product: &ProductStatus) {
    let running = product.running.as_ref().map_or("nothing".to_owned(), ToString::to_string);
    let channel = product.channel.as_ref().map_or("default", |channel| channel.as_str());
    let pins = product.pins.iter().map(|pin| format!("{} ({})", pin.pin, pin.by));
    let pins = match pins.collect::<Vec<_>>().join(" and ") {
        none if none.is_empty() => "latest".to_owned(),
        pins => pins,
    };
    let _ = writeln!(
        text,
        "{}: {running} runs; channel {channel}; pin {pins}; {}",
        product.product, product.state_text
    );
    if let Some(recall) = &product.recall {
        let _ = writeln!(text, "  {}", recall_text(product, recall));
        explain_reasons(text, &recall.reasons);
    }
    if let Some(other) = &product.other {
        let _ = writeln!(text, "  {other} lies in the other slot");
    }
    if product.candidates.is_empty() {
        let _ = writeln!(text, "  no release is on offer for it");
    }
    for candidate in &product.candidates {
        explain_candidate(text, candidate, product.running.as_ref());
    }
    for failed in &product.failed {
        let _ = writeln!(text, "  {failed} failed here and is not tried again");
    }
}

fn recall_text(product: &ProductStatus, recall: &RecallStatus) -> String {
    let (to, why) = (&recall.to, &recall.why);
    let running = product.running.as_ref().map_or("nothing".to_owned(), ToString::to_string);
    if product.running.as_ref() == Some(to) {
        format!("what ran before was recalled, and {to} is the way back: {why}")
    } else if recall.reasons.is_empty() {
        format!("{running} is recalled, and it goes back to {to}: {why}")
    } else {
        format!("{running} is recalled, and it waits to go back to {to}: {why}")
    }
}

fn explain_candidate(text: &mut String, candidate: &CandidateStatus, running: Option<&Version>) {
    let version = candidate.version.as_ref().map_or("?".to_owned(), ToString::to_string);
    if running.is_some() && candidate.version.as_ref() == running {
        // What speaks against it, that it is not newer than itself, helps nobody.
        let _ = writeln!(text, "  {version} runs here");
        return;
    }
    let verdict = match candidate.verdict {
        Verdict::Chosen => "is what this device goes for",
        Verdict::Passed => "could be installed; a newer one was chosen",
        Verdict::Waits => "waits",
        Verdict::Refused => "is refused",
    };
    let _ = writeln!(text, "  {version} {verdict}");
    if let (Some(place), Some(limit)) = (&candidate.place, &candidate.limit) {
        let _ = writeln!(text, "    this device's place is {place}; it is open up to {limit}");
    }
    explain_reasons(text, &candidate.reasons);
}

fn explain_reasons(text: &mut String, reasons: &[ReasonStatus]) {
    for reason in reasons {
        let until = reason.until.map(|until| format!(" (until {until})")).unwrap_or_default();
        let _ = writeln!(text, "    {}: {}{until}", reason.question, reason.text);
    }
}
