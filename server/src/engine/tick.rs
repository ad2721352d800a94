//! One gate tick: who fell silent, what each rollout may do now, and what becomes of it in the book.
//! The questions are answered by [`crate::rollout`]; here they are asked and written down.

use lockgate_shared::{
    bucket::Limit,
    count::count,
    id::RolloutId,
    manifest::Gate,
    policy::Policy,
    rollout::{Scope, Stop, StopKind},
    time::{Moment, Seconds},
};

use super::{
    book::{Book, BookError},
    hearing::Condition,
};
use crate::{
    rollout::{
        self, Climb, Move,
        evidence::Silence,
        gate::Judgement,
        limits,
        report::{common_words, halt_sentence},
    },
    status::{About, Decision},
};

/// How far a tick goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickKind {
    /// At the fixed interval: everything that may happen happens.
    Full,
    /// Between two ticks: only halts. What devices are told changes by nothing else then.
    Halts,
}

/// What was heard until this tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ears {
    /// The time listened in all.
    pub listened: Seconds,
    /// How well. While the gatekeeper cannot hear, nothing opens: it only halts, and says why.
    pub condition: Condition,
}

/// Asks every rollout, and says whether one was halted.
pub fn tick(
    book: &mut Book,
    policy: &Policy,
    kind: TickKind,
    ears: &Ears,
    now: Moment,
) -> Result<bool, BookError> {
    let mut halted = false;
    let ids: Vec<RolloutId> = book.rollouts.keys().copied().collect();
    for id in ids {
        silence(book, &id, ears.listened);
        match (kind, &ears.condition) {
            (TickKind::Full, Condition::Good | Condition::Poor(_)) => {
                book.pass_trials(&id, ears.listened);
            }
            (TickKind::Full, Condition::Deaf(_)) | (TickKind::Halts, _) => book.look_at_trials(&id),
        }
        let Some(rollout) = book.rollouts.get(&id) else { continue };
        let census = book.census(rollout, policy, now);
        let stops: Vec<Stop> = book.stops.values().cloned().collect();
        let mut climb = rollout::climb(rollout, &census, &stops, now);
        let is_halt = |step: &Move| matches!(step, Move::Halt { .. } | Move::Hold { .. });
        match kind {
            TickKind::Full => {}
            TickKind::Halts => climb.moves.retain(is_halt),
        }
        match &ears.condition {
            Condition::Good | Condition::Poor(_) => {}
            Condition::Deaf(why) => {
                climb.moves.retain(is_halt);
                for judgement in &mut climb.judgements {
                    wait_for_hearing(judgement, why);
                }
            }
        }
        halted |= climb.moves.iter().any(is_halt);
        record(book, &id, &climb, now)?;
        for step in &climb.moves {
            if let Move::Open { index, .. } = step {
                book.begin_trial(&id, *index, policy, ears.listened, now);
            }
        }
        book.judgements.insert(id, climb.judgements);
    }
    Ok(halted)
}

fn wait_for_hearing(judgement: &mut Judgement, why: &str) {
    if judgement.decision != Decision::Halt {
        judgement.decision = Decision::Wait;
        judgement.reasons.push(why.to_owned());
    }
}

fn silence(book: &mut Book, id: &RolloutId, listened: Seconds) {
    let Some(rollout) = book.rollouts.get(id) else { return };
    let stages = rollout.ladder.stages.iter();
    // In a trial silence is compared, and no device's own counts as harm.
    let after = stages
        .filter_map(|stage| match &stage.gate {
            Gate::Count(rule) => Some((stage.cohort.clone(), rule.silence_after_s)),
            Gate::Trial(_) => None,
        })
        .collect();
    let heard_at = |device: &_| book.device(device).map(|device| device.heard_at);
    let silence = Silence { heard_at: &heard_at, after: &after, listened };
    let silent = rollout.evidence.overdue(&silence);
    if let Some(rollout) = book.rollout_mut(id).filter(|_| !silent.is_empty()) {
        rollout.evidence.fall_silent(&silent);
    }
    book.cases_changed(*id, silent);
}

/// Writes a rollout's moves down, and does them in the book.
fn record(book: &mut Book, id: &RolloutId, climb: &Climb, now: Moment) -> Result<(), BookError> {
    for step in &climb.moves {
        let (about, decision, sentence) = match step {
            Move::Open { index, limit } => {
                let Some((about, reach)) = stage(book, id, *index, *limit) else { continue };
                (about, Decision::Open, format!("opened {reach}"))
            }
            Move::Raise { index, limit, .. } => {
                let Some((about, reach)) = stage(book, id, *index, *limit) else { continue };
                (about, Decision::Open, format!("opened further: {reach}"))
            }
            Move::Complete => {
                let text = "every stage is open and baked".to_owned();
                (About::Rollout(*id), Decision::Complete, text)
            }
            Move::Hold { sentence, .. } => (About::Rollout(*id), Decision::Hold, sentence.clone()),
            Move::Halt { index, what, why } => {
                let Some(rollout) = book.rollouts.get(id) else { continue };
                let words = common_words(rollout, *index, &book.labels);
                (About::Rollout(*id), Decision::Halt, halt_sentence(what, &words, why))
            }
        };
        let stop = match step {
            Move::Halt { .. } => Some((StopKind::Halt, Scope::Rollout(*id))),
            Move::Hold { scope, .. } => {
                if let Scope::Tenant(_) = scope {
                    book.alarm(now, None, sentence.clone());
                }
                Some((StopKind::Hold, scope.clone()))
            }
            Move::Open { .. } | Move::Raise { .. } | Move::Complete => None,
        };
        if let Some((kind, scope)) = stop
            && book.stop(kind, scope, &sentence, now)?.is_none()
        {
            book.alarm(now, None, format!("no stop could be numbered: {sentence}"));
        }
        if let Some(rollout) = book.rollout_mut(id) {
            rollout.apply(step, now);
        }
        let word = match decision {
            Decision::Halt => "halt",
            Decision::Complete => "complete",
            Decision::Open => "open",
            Decision::Hold => "hold",
            Decision::Accepted | Decision::Refused | Decision::Wait | Decision::End => "decide",
        };
        book.note(now, "gatekeeper", word, &format!("rollout {id}: {sentence}"))?;
        book.verdict(now, about, decision, vec![sentence])?;
    }
    Ok(())
}

/// A stage, and in words how far a limit lets its devices in. How many there are is what people signed:
/// when a stage opens, no device of it need have written under this rollout yet.
fn stage(book: &Book, id: &RolloutId, index: usize, limit: Limit) -> Option<(About, String)> {
    let rollout = book.rollouts.get(id)?;
    let cohort = &rollout.ladder.stages.get(index)?.cohort;
    let size = rollout.start.cohorts.iter().find(|size| size.cohort == *cohort);
    let devices = size.map_or(0, |size| size.devices);
    let known = rollout.evidence.buckets(cohort);
    let heard = match limits::authorised(&known, limit) {
        _ if known.is_empty() => "none has written under this rollout yet".to_owned(),
        inside => format!("{inside} of {} that wrote are let in", known.len()),
    };
    let reach = format!(
        "`{cohort}` ({} by the signed start) to {limit}; {heard}",
        count(devices, "device", "devices")
    );
    Some((About::Stage(*id, cohort.clone()), reach))
}
