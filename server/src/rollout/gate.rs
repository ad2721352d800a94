//! Whether the next stage opens: the first honest rule. Plain counters in, a decision with every
//! reason out.
//!
//! 1. With fewer treated devices than `small_stage`, any harm halts. Harm is a device that went back,
//!    fell silent, or whose outcome got lost.
//! 2. Above, it halts as soon as the share of harmed devices is above `max_failure_ppm` with the asked
//!    confidence: the lower Clopper-Pearson bound lies above it.
//! 3. What follows opens only when the stage is full, has baked, enough devices confirmed, and the
//!    share of harm is below `max_failure_ppm` with the asked confidence: the upper bound lies below it.
//! 4. A stage of few devices can never show that, not even without a single failure (with a bound of
//!    5 % and 95 % confidence it takes 59). It opens what follows when it is *settled* without harm.
//!    A stage that is settled with harm, but neither bound reached, halts: no further device will
//!    decide it, so people do.
//!
//! *Settled*: nobody is at it any more, and everybody who was let in came to an end; or the stage was
//! full for one more bake and those that did not begin are kept back by something of their own.
//!
//! Devices that failed before activation, or of which nobody knows, say nothing on health: they are
//! not waited for and appear in no share.

use lockgate_shared::{
    count::count,
    manifest::{Gate, GateRule, Ladder, Stage, StageApproval},
    time::Moment,
};

use super::evidence::Tally;
use crate::status::Decision;

/// One in so many of the devices that a start promised has to have called before a rollout is complete.
const PROMISED_PARTS: u32 = 2;

/// What a stage has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageEvidence {
    /// Its counters.
    pub tally: Tally,
    /// Devices of its cohort that count, heard or not.
    pub devices: u32,
    /// Devices that its limit lets in.
    pub authorised: u32,
    /// Devices that the start promised for its cohort: what the people who signed it were shown.
    pub promised: u32,
}

/// Since when a stage is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// When it opened.
    pub opened: Moment,
    /// When its limit reached the ceiling.
    pub full: Option<Moment>,
    /// A waiver's number in place of `min_devices`.
    pub waived_minimum: Option<u32>,
}

/// A decision and every reason for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// [`Decision::Open`]: what comes after this stage may begin. [`Decision::Wait`]: not yet.
    /// [`Decision::Halt`]: the rollout stops.
    pub decision: Decision,
    /// In sentences.
    pub reasons: Vec<String>,
}

/// Decides about what comes after the ladder's stage `index`, from that stage's evidence.
pub fn decide(
    ladder: &Ladder,
    index: usize,
    evidence: &StageEvidence,
    timing: &Timing,
    now: Moment,
) -> Judgement {
    let Some(stage) = ladder.stages.get(index) else {
        return wait(vec![format!("the ladder has no stage {index}")]);
    };
    let rule = match &stage.gate {
        Gate::Count(rule) => rule,
        Gate::Trial(_) => {
            return wait(vec![format!(
                "`{}` is a trial, and its devices are not known yet",
                stage.cohort
            )]);
        }
    };
    if let Some(reason) = halts(stage, rule, evidence, timing, now) {
        return Judgement { decision: Decision::Halt, reasons: vec![reason] };
    }
    let mut reasons = Vec::new();
    match timing.full {
        None => reasons.push(format!(
            "`{}` is not open as far as its ceiling: {} of {} let in, {} confirmed",
            stage.cohort,
            evidence.authorised,
            count(evidence.devices, "device", "devices"),
            evidence.tally.confirmed
        )),
        Some(_) => enough(stage, rule, evidence, timing, now, &mut reasons),
    }
    let baked = timing.opened.plus(stage.bake_s);
    if now < baked {
        reasons.push(format!("`{}` bakes until {baked}", stage.cohort));
    }
    if reasons.is_empty() {
        reasons.push(format!(
            "{} of {} treated devices in `{}` confirmed, none is known to be worse off beyond what is allowed",
            evidence.tally.confirmed, evidence.tally.treated, stage.cohort
        ));
        return Judgement { decision: Decision::Open, reasons };
    }
    wait(reasons)
}

/// Why the ladder's stage `index` may not open yet, apart from what the stage before it has shown:
/// its floor, and the people's approval.
pub fn not_before(
    ladder: &Ladder,
    index: usize,
    start: Moment,
    approved: bool,
    now: Moment,
) -> Vec<String> {
    let Some(stage) = ladder.stages.get(index) else { return Vec::new() };
    let mut reasons = Vec::new();
    let floor = start.plus(stage.floor_s);
    if now < floor {
        reasons.push(format!("`{}` opens no earlier than {floor}", stage.cohort));
    }
    match stage.approval {
        StageApproval::Required if !approved => reasons.push(format!(
            "`{}` waits for an approval that approvers sign with `lockgate rollout approve`",
            stage.cohort
        )),
        StageApproval::Required | StageApproval::None => {}
    }
    reasons
}

/// What halts, if anything does.
fn halts(
    stage: &Stage,
    rule: &GateRule,
    evidence: &StageEvidence,
    timing: &Timing,
    now: Moment,
) -> Option<String> {
    let tally = &evidence.tally;
    let harmed = tally.harmed();
    if harmed == 0 {
        return None;
    }
    if tally.treated < rule.small_stage {
        return Some(format!(
            "any failure in a stage of fewer than {} devices halts",
            rule.small_stage
        ));
    }
    if shown_harmful(rule, tally) {
        return Some(format!(
            "with {} confidence more than {} fail",
            share(rule.confidence_ppm),
            share(rule.max_failure_ppm)
        ));
    }
    if settled(stage, evidence, timing, now) && !shown_harmless(rule, tally) {
        return Some(format!(
            "no further device will show whether more than {} fail: people decide, and lift this if it is well",
            share(rule.max_failure_ppm)
        ));
    }
    None
}

/// Whether enough devices confirmed, and the bound on harm holds.
fn enough(
    stage: &Stage,
    rule: &GateRule,
    evidence: &StageEvidence,
    timing: &Timing,
    now: Moment,
    reasons: &mut Vec<String>,
) {
    let tally = &evidence.tally;
    let settled = settled(stage, evidence, timing, now);
    let minimum = timing.waived_minimum.unwrap_or(rule.min_devices);
    // Whoever withholds a whole cohort's letters must not make it look empty: it is, where the people
    // who signed the start were shown no device either.
    let nobody_at_all = evidence.devices == 0 && evidence.promised == 0;
    // A cohort smaller than the minimum needs all that were let in, and at least one that is well.
    let least = if evidence.authorised < minimum || settled { minimum.min(1) } else { minimum };
    if tally.confirmed < least && !nobody_at_all {
        reasons.push(format!(
            "{} of {least} devices that `{}` needs have confirmed",
            tally.confirmed, stage.cohort
        ));
    }
    if settled || shown_harmless(rule, tally) && evidence.authorised >= minimum {
        return;
    }
    let to_come = evidence.authorised.saturating_sub(tally.treated);
    reasons.push(format!(
        "still at it in `{}`: {}; not begun: {to_come}; what is known of {} does not yet show with {} confidence that at most {} fail",
        stage.cohort,
        tally.pending(),
        count(tally.judged(), "device", "devices"),
        share(rule.confidence_ppm),
        share(rule.max_failure_ppm)
    ));
}

/// Why a rollout is not complete although its last stage has baked: of a cohort fewer devices called than
/// half of those that the start promised. Devices retire between plan and start, and some sleep for
/// weeks, so not all of them are asked for; where most are missing, something else is wrong, and a
/// person waits, ends the rollout, or waives the number.
pub fn broken_promise(
    stage: &Stage,
    heard: u32,
    promised: u32,
    waived: Option<u32>,
) -> Option<String> {
    let half = promised.div_ceil(PROMISED_PARTS);
    let least = waived.map_or(half, |waived| waived.min(half));
    (heard < least).then(|| {
        format!(
            "the start promised {promised} devices in `{}`, and {heard} have called: it waits for {least} of them, or for people to end it or to sign a waiver",
            stage.cohort
        )
    })
}

/// Whether no further device of the stage is to be expected.
fn settled(stage: &Stage, evidence: &StageEvidence, timing: &Timing, now: Moment) -> bool {
    let Some(full) = timing.full else { return false };
    let all_ended = evidence.tally.treated >= evidence.authorised;
    evidence.tally.pending() == 0 && (all_ended || full.plus(stage.bake_s) <= now)
}

/// Whether the lower Clopper-Pearson bound of the share of harm lies above what is allowed: so many or
/// more failures would be less likely than the error allowed, even if the share were just that.
fn shown_harmful(rule: &GateRule, tally: &Tally) -> bool {
    let Some(below) = tally.harmed().checked_sub(1) else { return false };
    1.0 - at_most(below, tally.judged(), rule.max_failure_ppm) < error(rule)
}

/// Whether the upper Clopper-Pearson bound of the share of harm lies below what is allowed.
fn shown_harmless(rule: &GateRule, tally: &Tally) -> bool {
    at_most(tally.harmed(), tally.judged(), rule.max_failure_ppm) < error(rule)
}

fn error(rule: &GateRule) -> f64 {
    1.0 - f64::from(rule.confidence_ppm) / 1e6
}

/// The probability of at most `found` failures among `count` devices that each fail with the share
/// `ppm`. The one place of the gate with floating point: the terms of the binomial distribution are
/// summed as logarithms, largest first in weight, so that a million devices neither overflow nor
/// vanish; its error is far below any confidence that people ask for.
fn at_most(found: u32, count: u32, ppm: u32) -> f64 {
    if found >= count {
        return 1.0;
    }
    let share = f64::from(ppm) / 1e6;
    let odds = (share / (1.0 - share)).ln();
    let mut term = f64::from(count) * (1.0 - share).ln();
    let mut terms = Vec::with_capacity(found as usize + 1);
    terms.push(term);
    for number in 0..found {
        let left = f64::from(count - number);
        term += (left / f64::from(number + 1)).ln() + odds;
        terms.push(term);
    }
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms.iter().map(|term| (term - largest).exp()).sum();
    (largest + sum.ln()).exp().min(1.0)
}

fn share(ppm: u32) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

const fn wait(reasons: Vec<String>) -> Judgement {
    Judgement { decision: Decision::Wait, reasons }
}

#[cfg(test)]
mod tests {
    use lockgate_shared::time::Seconds;

    use super::*;

    #[test]
    fn one_failure_in_a_small_stage_halts() {
        let judgement = judge(tally(3, 2, 1), 3, 3);
        assert_eq!(judgement.decision, Decision::Halt);
        assert!(judgement.reasons[0].contains("fewer than 10"), "{judgement:?}");
    }

    #[test]
    fn a_forgiven_failure_halts_no_more() {
        let forgiven = Tally { forgiven: 1, ..tally(3, 2, 1) };
        assert_eq!(judge(forgiven, 3, 3).decision, Decision::Open);
    }

    #[test]
    fn few_failures_among_many_do_not_halt_and_many_do() {
        // 5 % are allowed. Of 200, 10 are just that; 20 cannot be chance.
        assert_eq!(judge(tally(200, 190, 10), 400, 400).decision, Decision::Wait);
        assert_eq!(judge(tally(200, 180, 20), 400, 400).decision, Decision::Halt);
        assert_eq!(judge(tally(400, 398, 2), 400, 400).decision, Decision::Open);
    }

    #[test]
    fn without_a_failure_it_takes_fifty_nine_devices_to_show_five_percent() {
        // (1 - 0.05)^59 = 0.0485 < 0.05 <= 0.95^58 = 0.0510
        assert_eq!(judge(tally(58, 58, 0), 100, 100).decision, Decision::Wait);
        assert_eq!(judge(tally(59, 59, 0), 100, 100).decision, Decision::Open);
    }

    #[test]
    fn a_stage_that_can_show_no_more_is_left_to_people() {
        let judgement = judge(tally(40, 38, 2), 40, 40);
        assert_eq!(judgement.decision, Decision::Halt);
        assert!(judgement.reasons[0].contains("people decide"), "{judgement:?}");
    }

    #[test]
    fn those_still_at_it_are_waited_for_and_those_that_failed_to_download_are_not() {
        assert_eq!(judge(tally(3, 2, 0), 3, 3).decision, Decision::Wait);
        let one_failed = Tally { failed: 1, ..tally(3, 2, 0) };
        assert_eq!(judge(one_failed, 3, 3).decision, Decision::Open);
    }

    #[test]
    fn a_device_that_does_not_begin_is_waited_for_through_one_more_bake() {
        let evidence =
            StageEvidence { tally: tally(2, 2, 0), devices: 3, authorised: 3, promised: 3 };
        let timing = Timing { opened: Moment(0), full: Some(Moment(50)), waived_minimum: None };
        let at = |now| decide(&ladder(), 0, &evidence, &timing, Moment(now)).decision;
        assert_eq!(at(149), Decision::Wait);
        assert_eq!(at(150), Decision::Open);
    }

    #[test]
    fn a_stage_in_which_nobody_confirmed_opens_nothing_unless_it_is_empty_or_waived() {
        let evidence =
            StageEvidence { tally: Tally::default(), devices: 3, authorised: 3, promised: 0 };
        let mut timing = Timing { opened: Moment(0), full: Some(Moment(0)), waived_minimum: None };
        let at = |evidence, timing: &Timing| {
            decide(&ladder(), 0, &evidence, timing, Moment(10_000)).decision
        };
        assert_eq!(at(evidence, &timing), Decision::Wait);
        let empty = StageEvidence { devices: 0, authorised: 0, ..evidence };
        assert_eq!(at(empty, &timing), Decision::Open);
        let withheld = StageEvidence { promised: 3, ..empty };
        assert_eq!(
            at(withheld, &timing),
            Decision::Wait,
            "nobody was let in, and some were promised"
        );
        timing.waived_minimum = Some(0);
        assert_eq!(at(evidence, &timing), Decision::Open);
    }

    #[test]
    fn a_waiver_never_asks_for_more_than_the_rule() {
        let waits = |heard, waived| broken_promise(&ladder().stages[0], heard, 50, waived);
        assert!(waits(24, None).is_some());
        for (heard, waived) in [(25, None), (25, Some(60)), (3, Some(3))] {
            assert_eq!(waits(heard, waived), None, "{heard} of 50, waived: {waived:?}");
        }
        assert!(waits(2, Some(3)).is_some());
    }

    #[test]
    fn nothing_opens_before_bake_floor_and_approval() {
        let evidence =
            StageEvidence { tally: tally(3, 3, 0), devices: 3, authorised: 3, promised: 3 };
        let timing = Timing { opened: Moment(0), full: Some(Moment(0)), waived_minimum: None };
        assert_eq!(decide(&ladder(), 0, &evidence, &timing, Moment(99)).decision, Decision::Wait);
        let mut ladder = ladder();
        ladder.stages[0].approval = StageApproval::Required;
        assert_eq!(not_before(&ladder, 0, Moment(100), false, Moment(109)).len(), 2);
        assert!(not_before(&ladder, 0, Moment(100), true, Moment(110)).is_empty());
    }

    #[test]
    fn a_million_devices_neither_overflow_nor_vanish() {
        let half = at_most(50_000, 1_000_000, 50_000);
        assert!((half - 0.5).abs() < 0.01, "{half}");
        assert!(at_most(40_000, 1_000_000, 50_000) < 1e-9);
    }

    fn judge(tally: Tally, devices: u32, authorised: u32) -> Judgement {
        let timing = Timing { opened: Moment(0), full: Some(Moment(950)), waived_minimum: None };
        let evidence = StageEvidence { tally, devices, authorised, promised: devices };
        decide(&ladder(), 0, &evidence, &timing, Moment(1000))
    }

    fn tally(treated: u32, confirmed: u32, rolled_back: u32) -> Tally {
        Tally { devices: treated, treated, confirmed, rolled_back, ..Tally::default() }
    }

    fn ladder() -> Ladder {
        Ladder {
            stages: vec![Stage {
                cohort: "dogfood".parse().expect("a name of this test"),
                ceiling_ppm: 1_000_000,
                floor_s: Seconds(10),
                bake_s: Seconds(100),
                approval: StageApproval::None,
                gate: Gate::Count(GateRule {
                    first_devices: 3,
                    growth: 2,
                    min_devices: 3,
                    small_stage: 10,
                    max_failure_ppm: 50_000,
                    confidence_ppm: 950_000,
                    silence_after_s: Seconds(600),
                }),
            }],
            timestamp_max_age_s: Seconds(3600),
            coverage_max: 200,
        }
    }
}
