//! `rollback`: leaves the owner's request, has the agent take a turn, and says what came of it. Whether
//! it goes back is decided in the loop, and told in its snapshot.

use std::{path::Path, thread, time::Duration};

use lockgate_shared::id::ProductId;
use serde_json::json;

use super::{CliError, Loop, Report, Request, turn_or_poke};
use crate::{
    clock::Stopwatch,
    config::Settings,
    core::machine::Consent,
    status::{RollbackStatus, Status},
};

/// How long the running agent's answer is waited for: its poll comes first, and a server that is down
/// costs that one some ten seconds.
const ANSWER: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Does it.
pub(super) fn rollback(
    settings: Settings,
    turns: &dyn Loop,
    product: &ProductId,
    consent: Consent,
) -> Result<Report, CliError> {
    if !settings.products.contains_key(product) {
        return Err(CliError::Product(product.clone()));
    }
    let state = settings.state.clone();
    Request::Rollback(product.clone(), consent).leave(&state)?;
    let report = turn_or_poke(settings, turns, "polled once")?;
    let begun = Stopwatch::start();
    while waits(&state, product)? {
        if begun.left(ANSWER).is_none() {
            let text = format!(
                "the request to go back waits; `lockgate-agent status` shows what comes of it\n{}",
                report.text
            );
            return Ok(Report { text, ..report });
        }
        thread::sleep(LOOK);
    }
    answer(&state, product)
}

fn waits(state: &Path, product: &ProductId) -> Result<bool, CliError> {
    let waiting = Request::waiting(state)?;
    Ok(waiting.iter().any(|Request::Rollback(asked, _)| asked == product))
}

/// What the loop says of a request that it has withdrawn.
pub(super) fn answer(state: &Path, product: &ProductId) -> Result<Report, CliError> {
    let status = Status::read(state)?;
    let shown = status.products.into_iter().find(|shown| shown.product == *product);
    let Some(shown) = shown else { return Err(CliError::Product(product.clone())) };
    if let Some(RollbackStatus { refused: Some(why), .. }) = shown.rollback {
        return Err(CliError::Rollback { product: product.clone(), why });
    }
    let running = shown.running.as_ref().map_or("nothing".to_owned(), ToString::to_string);
    let text = format!("{product}: {running} runs; {}\n", shown.state_text);
    Ok(Report::of(text, json!({ "ok": true, "product": shown })))
}
