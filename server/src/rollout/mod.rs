//! A rollout as plain data, and the one question about it: what may happen now? [`climb`] answers
//! with moves and reasons; the engine writes them down and does them. Nothing here reads a clock, a
//! file or a socket.
//!
//! | where is it decided … | open |
//! |---|---|
//! | whether the next stage opens, or the rollout halts | [`gate`] |
//! | how many devices a stage lets in | [`limits`] |
//! | what counts as evidence | [`evidence`] |
//! | what people read of it | [`report`] |
//! | the same questions where a stage is a randomised trial | [`trial`] |

pub mod evidence;
pub mod gate;
pub mod limits;
pub mod report;
pub mod trial;

use std::collections::{BTreeMap, BTreeSet};

use lockgate_shared::{
    act::{SignedAct, Start},
    bucket::{Bucket, Limit},
    group::KnownGroups,
    id::{CohortId, GroupId, RolloutId},
    limits as bounds,
    manifest::{Gate, Ladder},
    rollout::{GroupLimit, OpenStage, RolloutEntry, Scope, Stop, StopKind},
    time::{Moment, Seconds},
};
use serde::{Deserialize, Serialize};

use self::{
    evidence::{Evidence, Standing},
    gate::{Judgement, StageEvidence, Timing},
    limits::Cohort,
    trial::stage::StageTrial,
};
use crate::status::Decision;

/// One started rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// The verified start.
    pub start: Start,
    /// The start as signed.
    pub signed: SignedAct,
    /// The ladder of its manifest.
    #[serde(with = "as_signed")]
    pub ladder: Ladder,
    /// The start's place in the stream: devices that enrolled before it are evidence.
    pub offset: u64,
    /// Signed approvals by stage.
    pub approvals: BTreeMap<u16, SignedAct>,
    /// The stages opened so far, in the ladder's order.
    pub steps: Vec<Step>,
    /// Groups that some device had which enrolled before the start.
    pub old_groups: BTreeSet<GroupId>,
    /// A waiver of the minimum number of devices.
    pub waived: Option<Waived>,
    /// When it was complete.
    pub complete: Option<Moment>,
    /// When a person ended it.
    pub ended: Option<Moment>,
    /// What its devices said.
    #[serde(skip)]
    pub evidence: Evidence,
    /// Buckets that were let in by name: devices refuse a list that lost one.
    pub coverage: BTreeSet<Bucket>,
    /// The trials of its open stages, by the stage's place.
    #[serde(skip)]
    pub trials: BTreeMap<usize, StageTrial>,
}

impl Rollout {
    /// A rollout that has just started: no stage is open, and nothing was heard.
    pub fn new(start: Start, signed: SignedAct, ladder: Ladder, offset: u64) -> Self {
        Self {
            id: start.rollout(),
            start,
            signed,
            ladder,
            offset,
            approvals: BTreeMap::new(),
            steps: Vec::new(),
            old_groups: BTreeSet::new(),
            waived: None,
            complete: None,
            ended: None,
            evidence: Evidence::default(),
            coverage: BTreeSet::new(),
            trials: BTreeMap::new(),
        }
    }
}

/// A ladder is kept as the text that was signed has it: a manifest is JSON, and leaves out what is not
/// there, which rows cannot.
mod as_signed {
    use lockgate_shared::{json, manifest::Ladder};
    use serde::{Deserialize as _, Deserializer, Serializer, de, ser};

    pub(super) fn serialize<S: Serializer>(ladder: &Ladder, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&serde_json::to_string(ladder).map_err(ser::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Ladder, D::Error> {
        json::read(String::deserialize(from)?.as_bytes()).map_err(de::Error::custom)
    }
}

/// An open stage and its pace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// As devices read it.
    pub open: OpenStage,
    /// When its limit last rose.
    pub raised: Moment,
    /// Devices passed over by then: they had their chance and did not begin.
    pub idle: u32,
}

/// A waiver of [`lockgate_shared::manifest::GateRule::min_devices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waived {
    /// The number in its place.
    pub devices: u32,
    /// Until when.
    pub until: Moment,
}

/// What the gatekeeper's device table says of a rollout's cohorts.
pub type Census = BTreeMap<CohortId, Head>;

/// A cohort's devices that enrolled before the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Those that were heard of lately, whether or not they named this rollout.
    pub devices: u32,
    /// Of these, those that have not named it yet.
    pub unheard: u32,
}

/// Something that may happen to a rollout now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// The next stage opens.
    Open {
        /// Its index.
        index: usize,
        /// How far.
        limit: Limit,
    },
    /// An open stage lets in more.
    Raise {
        /// Its index.
        index: usize,
        /// How far.
        limit: Limit,
        /// Devices passed over in the count.
        idle: u32,
    },
    /// Groups are kept back; the others go on.
    Hold {
        /// The stage that shows why.
        index: usize,
        /// Which groups of it, or whose devices.
        scope: Scope,
        /// Why, in a sentence.
        sentence: String,
    },
    /// The breaker stops it.
    Halt {
        /// The stage that shows why.
        index: usize,
        /// What happened to how many.
        what: String,
        /// The rule that halts.
        why: String,
    },
    /// Its last stage is open and baked.
    Complete,
}

/// Moves, and the judgement of every stage of the ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Climb {
    /// To be written down, then done, in this order.
    pub moves: Vec<Move>,
    /// One for each stage.
    pub judgements: Vec<Judgement>,
}

/// What may happen to a rollout now. `stops` are the numbered stops that stand.
pub fn climb(rollout: &Rollout, census: &Census, stops: &[Stop], now: Moment) -> Climb {
    let sight = Sight { rollout, census, stops, now };
    let mut judgements: Vec<Judgement> =
        (0..rollout.ladder.stages.len()).map(|index| sight.judge(index)).collect();
    let mut moves = Vec::new();
    if rollout.ended.is_some() {
        return Climb { moves, judgements };
    }
    let halted = stops
        .iter()
        .any(|stop| stop.kind == StopKind::Halt && stop.scope == Scope::Rollout(rollout.id));
    let halt = judgements.iter().position(|judgement| judgement.decision == Decision::Halt);
    if let Some(index) = halt {
        if !halted {
            moves.push(sight.halt(index, &judgements));
        }
        return Climb { moves, judgements };
    }
    if let Some(stop) = stops.iter().find(|stop| rollout.is_stopped_by(&stop.scope)) {
        for judgement in &mut judgements {
            judgement.decision = Decision::Wait;
            judgement.reasons.push(format!("stop {} stands: {}", stop.number, stop.reason));
        }
        return Climb { moves, judgements };
    }
    for index in 0..rollout.steps.len() {
        moves.extend(sight.hold(index));
        moves.extend(sight.raise(index));
    }
    moves.extend(sight.next(&mut judgements));
    Climb { moves, judgements }
}

struct Sight<'a> {
    rollout: &'a Rollout,
    census: &'a Census,
    stops: &'a [Stop],
    now: Moment,
}

impl Sight<'_> {
    fn judge(&self, index: usize) -> Judgement {
        let Some(step) = self.rollout.steps.get(index) else {
            return Judgement {
                decision: Decision::Wait,
                reasons: vec!["the stages before it come first".into()],
            };
        };
        let cohort = &step.open.cohort;
        if let Some(trial) = self.rollout.trials.get(&index) {
            return self.judge_trial(index, step, trial);
        }
        let known = self.rollout.evidence.buckets(cohort);
        let evidence = StageEvidence {
            tally: self.rollout.evidence.tally(cohort),
            devices: self.size(cohort, known.len()),
            authorised: limits::authorised(&known, step.open.limit),
            promised: self.promised(cohort),
        };
        let waived = self.rollout.waived.filter(|waived| self.now < waived.until);
        let timing = Timing {
            opened: step.open.opened,
            full: step.open.full,
            waived_minimum: waived.map(|waived| waived.devices),
        };
        gate::decide(&self.rollout.ladder, index, &evidence, &timing, self.now)
    }

    /// A randomised trial's judgement, with what the ladder asks besides.
    fn judge_trial(&self, index: usize, step: &Step, trial: &StageTrial) -> Judgement {
        let cohort = &step.open.cohort;
        if let Some(sentence) = trial.halt() {
            return Judgement { decision: Decision::Halt, reasons: vec![sentence.to_owned()] };
        }
        let mut reasons = trial.report(cohort);
        let waived = self.rollout.waived.filter(|waived| self.now < waived.until);
        let mut against = trial.missing(cohort, waived.map(|waived| waived.devices));
        if trial.trial().roster().is_empty() && self.promised(cohort) == 0 {
            against.clear();
        }
        let bake = self.rollout.ladder.stages.get(index).map_or(Seconds(0), |stage| stage.bake_s);
        match step.open.full {
            None => against.push(format!("`{cohort}` is not open as far as its ceiling")),
            Some(full) if self.now < full.plus(bake) => {
                against.push(format!("`{cohort}` bakes until {}", full.plus(bake)));
            }
            Some(_) => {}
        }
        let decision = if against.is_empty() { Decision::Open } else { Decision::Wait };
        reasons.extend(against);
        Judgement { decision, reasons }
    }

    /// What a trial holds and no stop says yet.
    fn hold(&self, index: usize) -> Option<Move> {
        let (hold, scope) = self.rollout.trials.get(&index)?.untold(self.rollout.id)?;
        Some(Move::Hold { index, scope, sentence: hold.sentence.clone() })
    }

    /// The move of the open stage `index`, if it may let in more.
    fn raise(&self, index: usize) -> Option<Move> {
        let (step, stage) =
            (self.rollout.steps.get(index)?, self.rollout.ladder.stages.get(index)?);
        if step.open.full.is_some() || self.held(&stage.cohort) {
            return None;
        }
        let rule = match &stage.gate {
            Gate::Count(rule) => rule,
            Gate::Trial(_) => {
                let trial = self.rollout.trials.get(&index)?;
                // Nobody is there, and nobody was promised: whoever comes later, comes late.
                let empty = trial.trial().roster().is_empty() && self.promised(&stage.cohort) == 0;
                let ceiling = Limit::of_share_ppm(stage.ceiling_ppm);
                let limit = if empty { ceiling } else { trial.limit() };
                let idle = step.idle;
                return (limit > step.open.limit).then_some(Move::Raise { index, limit, idle });
            }
        };
        let evidence = &self.rollout.evidence;
        let had_their_chance = step.raised.plus(rule.silence_after_s) <= self.now;
        let idle = if had_their_chance {
            evidence.idle(&stage.cohort, step.open.limit)
        } else {
            step.idle
        };
        let allowed = limits::allowed(rule, &evidence.tally(&stage.cohort), idle);
        let limit = self.limit(index, allowed, step.open.limit)?;
        (limit > step.open.limit).then_some(Move::Raise { index, limit, idle })
    }

    /// The next stage's opening or the rollout's completion, if the last open stage has shown enough;
    /// otherwise the reasons against it are added to the judgement of the stage that waits.
    fn next(&self, judgements: &mut [Judgement]) -> Option<Move> {
        let open = self.rollout.steps.len();
        let last = open.checked_sub(1);
        let ready = last
            .is_none_or(|last| judgements.get(last).is_some_and(|j| j.decision == Decision::Open));
        let Some(stage) = self.rollout.ladder.stages.get(open) else {
            let step = self.rollout.steps.last()?;
            let bake = self.rollout.ladder.stages.last()?.bake_s;
            let baked = step.open.full?.plus(bake) <= self.now;
            if !ready || !baked || self.rollout.complete.is_some() {
                return None;
            }
            let broken = self.broken_promises();
            if broken.is_empty() {
                return Some(Move::Complete);
            }
            let last = judgements.last_mut()?;
            last.decision = Decision::Wait;
            last.reasons = broken;
            return None;
        };
        let waiting = judgements.get_mut(open)?;
        waiting.reasons = gate::not_before(
            &self.rollout.ladder,
            open,
            self.rollout.start.moment,
            self.rollout.approvals.contains_key(&u16::try_from(open).ok()?),
            self.now,
        );
        if !ready {
            waiting.reasons.insert(0, "the stage before it has not shown enough yet".into());
        }
        if self.held(&stage.cohort) || last.is_some_and(|last| self.held_index(last)) {
            waiting.reasons.push("a stop stands for this cohort or the one before it".into());
        }
        if !waiting.reasons.is_empty() {
            return None;
        }
        let rule = match &stage.gate {
            Gate::Count(rule) => rule,
            // The first are let in by name.
            Gate::Trial(_) => return Some(Move::Open { index: open, limit: Limit::NOBODY }),
        };
        let first = limits::allowed(rule, &self.rollout.evidence.tally(&stage.cohort), 0);
        let limit = self.limit(open, first, Limit::NOBODY)?;
        if limit == Limit::NOBODY {
            waiting.reasons.push(format!(
                "too few devices of `{}` have called to let in the first {first}",
                stage.cohort
            ));
            return None;
        }
        Some(Move::Open { index: open, limit })
    }

    fn limit(&self, index: usize, allowed: u32, before: Limit) -> Option<Limit> {
        let stage = self.rollout.ladder.stages.get(index)?;
        let known = self.rollout.evidence.buckets(&stage.cohort);
        let early = self.now < self.listen_from(index).plus(stage.gate.patience());
        let size = self.size(&stage.cohort, known.len());
        let unheard = if early { size.saturating_sub(count(known.len())) } else { 0 };
        let cohort = Cohort { known: &known, size, unheard };
        Some(limits::limit(allowed, &cohort, stage.ceiling_ppm, before))
    }

    /// A cohort's devices that count: what the table says, but while the rollout is young at least
    /// what the people who signed the start were shown.
    fn size(&self, cohort: &CohortId, known: usize) -> u32 {
        let table = self.census.get(cohort).map_or(0, |head| head.devices);
        let young = self.rollout.ladder.stage_of(cohort).is_some_and(|(_, stage)| {
            self.now < self.rollout.start.moment.plus(stage.gate.patience())
        });
        let signed = if young { self.promised(cohort) } else { 0 };
        table.max(signed).max(count(known))
    }

    /// How many devices of a cohort the people who signed the start were shown.
    fn promised(&self, cohort: &CohortId) -> u32 {
        let signed = self.rollout.start.cohorts.iter().find(|size| size.cohort == *cohort);
        signed.map_or(0, |size| size.devices)
    }

    fn broken_promises(&self) -> Vec<String> {
        let waived = self.rollout.waived.filter(|waived| self.now < waived.until);
        let stages = self.rollout.ladder.stages.iter();
        let broken = stages.filter_map(|stage| {
            let heard = self.rollout.evidence.tally(&stage.cohort).devices;
            let promised = self.promised(&stage.cohort);
            gate::broken_promise(stage, heard, promised, waived.map(|waived| waived.devices))
        });
        broken.collect()
    }

    /// From when devices are expected to call: the stage's opening, or its floor. They are waited for
    /// as long as silence is borne; whoever calls later finds the limit as it stands.
    fn listen_from(&self, index: usize) -> Moment {
        let floor = self.rollout.ladder.stages.get(index).map_or(Seconds(0), |stage| stage.floor_s);
        let floor = self.rollout.start.moment.plus(floor);
        self.rollout.steps.get(index).map_or(floor, |step| step.open.opened)
    }

    fn held(&self, cohort: &CohortId) -> bool {
        let scope = Scope::Cohort(self.rollout.start.product.clone(), cohort.clone());
        self.stops.iter().any(|stop| stop.scope == scope)
    }

    fn held_index(&self, index: usize) -> bool {
        self.rollout.ladder.stages.get(index).is_some_and(|stage| self.held(&stage.cohort))
    }

    fn halt(&self, index: usize, judgements: &[Judgement]) -> Move {
        let reasons = judgements.get(index).map(|judgement| judgement.reasons.clone());
        let why = reasons.unwrap_or_default().join("; ");
        if let Some(trial) = self.rollout.trials.get(&index) {
            let what = trial.halt().unwrap_or_default().to_owned();
            return Move::Halt { index, what, why: String::new() };
        }
        let Some(stage) = self.rollout.ladder.stages.get(index) else {
            return Move::Halt { index, what: String::new(), why };
        };
        let tally = self.rollout.evidence.tally(&stage.cohort);
        let harm = match (tally.rolled_back, tally.silent) {
            (_, 0) => "rolled back",
            (0, _) => "fell silent",
            (_, _) => "rolled back or fell silent",
        };
        let (harmed, treated) = (tally.harmed(), tally.treated);
        let what = format!("{harmed} of {treated} treated devices in `{}` {harm}", stage.cohort);
        Move::Halt { index, what, why }
    }
}

impl Rollout {
    /// Does one move.
    pub fn apply(&mut self, step: &Move, now: Moment) {
        match step {
            Move::Open { index, limit } => {
                let Some(stage) = self.ladder.stages.get(*index) else { return };
                let full = *limit == Limit::of_share_ppm(stage.ceiling_ppm);
                self.steps.push(Step {
                    open: OpenStage {
                        cohort: stage.cohort.clone(),
                        opened: now,
                        limit: *limit,
                        full: full.then_some(now),
                        groups: Vec::new(),
                    },
                    raised: now,
                    idle: 0,
                });
            }
            Move::Raise { index, limit, idle } => {
                let ceiling = self.ladder.stages.get(*index).map(|stage| stage.ceiling_ppm);
                let (Some(open), Some(ceiling)) = (self.steps.get_mut(*index), ceiling) else {
                    return;
                };
                open.open.limit = *limit;
                open.raised = now;
                open.idle = *idle;
                if *limit == Limit::of_share_ppm(ceiling) {
                    open.open.full = Some(now);
                }
            }
            Move::Complete => self.complete = Some(now),
            // The stop is numbered elsewhere.
            Move::Hold { index, .. } => {
                if let Some(trial) = self.trials.get_mut(index) {
                    trial.tell();
                }
            }
            // A halt is a numbered stop, which is not the rollout's own.
            Move::Halt { .. } => {}
        }
    }

    /// Whether a stop of this scope keeps the whole rollout from climbing.
    pub fn is_stopped_by(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Rollout(rollout) => *rollout == self.id,
            Scope::Product(product) => *product == self.start.product,
            Scope::Everything => true,
            // A part of its devices: the others go on.
            Scope::Groups(..) | Scope::Cohort(..) | Scope::Tenant(_) => false,
        }
    }

    /// As devices read it.
    pub fn entry(&self) -> RolloutEntry {
        RolloutEntry {
            rollout: self.id,
            start: self.signed.clone(),
            approvals: self.approvals.values().cloned().collect(),
            stages: self.open_stages(),
            groups: self.new_groups(),
            known: self.known_groups(),
            coverage: self.coverage.iter().copied().collect(),
            complete: self.complete,
            ended: self.ended,
        }
    }

    /// The open stages, with the groups that their trials open less far.
    fn open_stages(&self) -> Vec<OpenStage> {
        let narrower = |index: &usize| {
            let trial = self.trials.get(index).filter(|_| self.complete.is_none());
            trial.map(StageTrial::groups).unwrap_or_default()
        };
        let steps = self.steps.iter().enumerate();
        steps
            .map(|(index, step)| OpenStage { groups: narrower(&index), ..step.open.clone() })
            .collect()
    }

    /// Takes over whom trials let in by name; says whether that was anybody new.
    pub fn coverage_grows(&mut self) -> bool {
        let before = self.coverage.len();
        self.coverage.extend(self.trials.values().flat_map(StageTrial::coverage));
        self.coverage.len() > before
    }

    /// The groups of which devices are known, so that one of another kind waits until its letter is
    /// counted and its group stands among the new ones.
    fn known_groups(&self) -> KnownGroups {
        if self.complete.is_some() || self.ended.is_some() {
            return KnownGroups::default();
        }
        // Those of a device that counts as evidence were added to the old ones when it was met.
        let newcomers = self.evidence.cases().filter(|(_, case)| case.standing != Standing::Counts);
        let mut all: BTreeSet<&GroupId> = newcomers.flat_map(|(_, case)| &case.groups).collect();
        all.extend(&self.old_groups);
        KnownGroups::of(all.iter().copied())
    }

    /// Groups that are new since the start: nobody who was there before is like these devices, so no
    /// evidence speaks for them, and they wait until the rollout is complete. For each newcomer the
    /// coarsest of its new groups is listed, which keeps it back and the list short.
    fn new_groups(&self) -> Vec<GroupLimit> {
        if self.complete.is_some() {
            return Vec::new();
        }
        let mut listed: BTreeSet<GroupId> = BTreeSet::new();
        for (_, case) in self.evidence.cases() {
            if case.standing == Standing::Counts || case.groups.iter().any(|g| listed.contains(g)) {
                continue;
            }
            let new = case.groups.iter().find(|group| !self.old_groups.contains(group));
            if let Some(group) = new
                && listed.len() < bounds::FILE_GROUPS
            {
                listed.insert(*group);
            }
        }
        listed.into_iter().map(|group| GroupLimit { group, limit: Limit::NOBODY }).collect()
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod stories;
