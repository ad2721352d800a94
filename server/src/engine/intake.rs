//! Entries of the stream, verified byte for byte and taken into the book. Whatever does not verify is
//! refused with a reason and changes nothing: the letter box may lose letters, never write them.

use lockgate_shared::{
    act::{
        Act, ActError, Approval, Grant, Lift, SignedAct, Start, VerifiedAct, WaivedRule, Waiver,
    },
    bucket::Bucket,
    count::count,
    group::Habit,
    id::{CohortId, DeviceId, Digest, PersonId, RolloutId, TenantId},
    limits,
    manifest::{Manifest, ManifestError},
    policy::Policy,
    recall::Recall,
    rollout::{Scope, StopKind},
    time::{Moment, Seconds},
    wire::{
        CodecError, Enrolment, Format, Letter, OutcomeKind, Outcomes, RolloutView, Sealed,
        TokenError, codec,
    },
};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

use super::{
    book::{Book, BookError, CLOCK_SKEW, Device},
    presence::Presence,
};
use crate::{
    rollout::{
        Rollout, Waived,
        evidence::{Evidence, Health, Meeting, Sighting, Standing},
        trial::stage::Age,
    },
    status::{About, Decision},
    stream::{Entry, EntryKind, LetterRecord, Publication},
    tuf::{TufError, trusted::Trusted},
};

/// How far ahead of this host's clock a start's moment may lie: two hosts with good clocks differ by
/// seconds; five minutes forgive a poor one.
const START_SKEW: Seconds = Seconds(300);

/// How old an enrolment or a letter may be that is judged by the moment its device signed: a gatekeeper
/// may be away for a day.
const SIGNED_AGE: Seconds = Seconds(86_400);
/// Devices of one tenant that enrol within an hour before people are called: a workshop sets up some
/// hundred an hour, a fleet that is moved at once is announced.
pub const ENROLMENTS_HOURLY: u32 = 1_000;

/// What entries are judged by, and where they go.
pub struct Intake<'a> {
    /// The book.
    pub book: &'a mut Book,
    /// What people published.
    pub trusted: &'a mut Trusted,
    /// A published file in the store.
    pub stored: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    /// The moment.
    pub now: Moment,
    /// The time listened in all: a letter that counts as a sign of life came at this point of it.
    pub listened: Seconds,
    /// Set when an entry brought news of harm.
    pub harmed: bool,
}

/// What an entry asks for besides the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The next tick is soon enough.
    Tick,
    /// A device was harmed: whether that halts is asked at once.
    Harm,
    /// People acted: it is acted upon at once.
    Now,
}

/// Why an entry does not count.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Its bytes do not decode or verify.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The token brings nobody in.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The act does not count.
    #[error(transparent)]
    Act(#[from] ActError),
    /// The publication does not verify.
    #[error(transparent)]
    Tuf(#[from] TufError),
    /// A manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Not JSON of its kind.
    #[error("it cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A rule speaks against it.
    #[error("{0}")]
    Rule(String),
    /// The book failed, which is no fault of the entry's.
    #[error(transparent)]
    Book(#[from] BookError),
}

pub(super) fn rule<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Rule(text.into()))
}

const fn age_of(late: bool) -> Age {
    if late { Age::Late } else { Age::Fresh }
}

impl Intake<'_> {
    /// Takes in one entry. An error is the book's own; a refused entry is a verdict.
    pub fn take(&mut self, entry: &Entry) -> Result<Urgency, BookError> {
        let result = match entry.kind {
            EntryKind::Enrolment(format) => self.enrolment(entry, format),
            EntryKind::Letter(format) => self.letter(entry, format),
            EntryKind::Record => self.record(entry),
            EntryKind::Act => self.act(entry),
            EntryKind::Publish => self.publication(entry),
            EntryKind::Stop => self.stop(entry),
            EntryKind::Bar => self.bar(entry),
            EntryKind::Withdraw => self.withdraw(entry),
        };
        self.book.count(entry);
        let about = About::Entry(entry.offset);
        match result {
            Ok(None) if self.harmed => Ok(Urgency::Harm),
            Ok(None) => Ok(Urgency::Tick),
            Ok(Some(what)) => {
                self.book.verdict(self.now, about, Decision::Accepted, vec![what])?;
                Ok(Urgency::Now)
            }
            Err(Refusal::Book(error)) => Err(error),
            Err(refusal) => {
                let text = refusal.to_string();
                self.book.note(
                    self.now,
                    "gatekeeper",
                    "refuse",
                    &format!("entry {}: {text}", entry.offset),
                )?;
                self.book.verdict(self.now, about, Decision::Refused, vec![text])?;
                Ok(Urgency::Tick)
            }
        }
    }

    pub(super) fn policy(&self) -> &Policy {
        self.trusted.policy()
    }

    /// When a device was heard: never later than now, or a letter box could keep silence from counting
    /// by dating an entry ahead.
    fn heard(&self, entry: &Entry) -> Moment {
        entry.received.min(self.now)
    }

    fn enrolment(&mut self, entry: &Entry, format: Format) -> Result<Option<String>, Refusal> {
        let sealed = Sealed::read(&entry.bytes, format)?;
        let enrolment = Enrolment::open(&sealed)?;
        let token = enrolment.token.verify(self.policy(), self.signed_moment(enrolment.sent))?;
        if let Some(known) = self.book.device(&sealed.device) {
            if known.tenant != token.tenant {
                return rule(format!("the device is enrolled in tenant `{}`", known.tenant));
            }
            let device = Device { facts: enrolment.facts, ..known.clone() };
            self.book.put_device(sealed.device, device);
            return Ok(None);
        }
        if self.book.token_uses(&token.id) >= token.uses {
            let devices = count(token.uses, "device", "devices");
            return rule(format!("the enrolment token was good for {devices}"));
        }
        self.book.use_token(token.id)?;
        self.count_enrolment(&token.tenant)?;
        let device = Device {
            key: enrolment.key,
            tenant: token.tenant,
            enrolled: entry.offset,
            enrolled_at: entry.received,
            facts: enrolment.facts,
            sequence: 0,
            letter: Digest([0; 32]),
            last_seen: self.heard(entry),
            heard_at: self.listened,
            mentioned: self.heard(entry),
            late_good: BTreeSet::new(),
            barred: false,
            outcomes: Outcomes::default(),
            products: BTreeMap::new(),
            presence: Presence::default(),
            habit: Habit::Unknown,
        };
        self.book.put_device(sealed.device, device);
        Ok(None)
    }

    /// By when an enrolment, or the end of a grant, is judged: by the moment that its device signed, where
    /// this host's clock bears it out, and else by this host's clock. Never by the letter box's word. A
    /// gatekeeper that was away for a day refuses nobody; who dates an enrolment or a letter back stretches
    /// a token or a grant by that day and no more.
    fn signed_moment(&self, sent: Moment) -> Moment {
        let borne_out = self.now.minus(SIGNED_AGE) <= sent && sent <= self.now.plus(CLOCK_SKEW);
        if borne_out { sent } else { self.now }
    }

    /// Counts a verified enrolment; phantoms come in crowds.
    fn count_enrolment(&mut self, tenant: &TenantId) -> Result<(), BookError> {
        if self.book.enrolled(tenant, self.now) == ENROLMENTS_HOURLY {
            let text = format!(
                "tenant `{tenant}` enrolled {ENROLMENTS_HOURLY} devices within an hour: is somebody making them up?"
            );
            self.book.alarm(self.now, None, text.clone());
            self.book.note(self.now, "gatekeeper", "enrolments", &text)?;
        }
        Ok(())
    }

    fn record(&mut self, entry: &Entry) -> Result<Option<String>, Refusal> {
        let record: LetterRecord = codec::decode(&entry.bytes, limits::LETTER_BYTES)?;
        // Nobody signed it, so the letter box may have made it up: it is no sign of life.
        self.book.mention(&record.device, self.heard(entry));
        Ok(None)
    }

    fn letter(&mut self, entry: &Entry, format: Format) -> Result<Option<String>, Refusal> {
        let sealed = Sealed::read(&entry.bytes, format)?;
        let Some(device) = self.book.device(&sealed.device).cloned() else {
            return rule("no enrolment of this device was verified");
        };
        let letter = Letter::open(&sealed, &device.key)?;
        if letter.repository != self.policy().repository {
            return rule(format!("the letter is for repository `{}`", letter.repository));
        }
        if letter.tenant != device.tenant {
            return rule(format!("the letter names tenant `{}`", letter.tenant));
        }
        let digest = sealed.digest();
        if letter.sequence == device.sequence && digest == device.letter {
            return Ok(None);
        }
        if letter.sequence <= device.sequence {
            self.alarm(&letter, "an old letter came again with other bytes: replayed or cloned");
            return rule(format!(
                "its number {} is not above {}, the last one",
                letter.sequence, device.sequence
            ));
        }
        let mut known = device;
        known.sequence = letter.sequence;
        known.letter = digest;
        // A barred device's word is good for harm only, as that of long ago.
        let late = known.barred || self.book.is_late(&letter, self.now);
        if !late {
            known.last_seen = known.last_seen.max(self.heard(entry));
            known.heard_at = self.listened;
            known.presence.note(self.heard(entry));
            self.book.lives_in_trials(&letter);
        }
        if let Some(view) = letter.rollouts.last() {
            known.habit = view.habit;
        }
        if let Some(facts) = &letter.facts {
            known.facts = facts.clone();
        }
        known.products =
            letter.products.iter().map(|p| (p.product.clone(), p.channel.clone())).collect();
        for view in &letter.rollouts {
            self.view(&letter, &known, view, late);
        }
        if !late {
            self.speaks_again(&letter);
            for rollout in std::mem::take(&mut known.late_good) {
                self.outcome(&letter, &known, rollout, OutcomeKind::Confirmed);
            }
        }
        self.outcomes(&letter, &mut known, late)?;
        self.book.heard_of_grants(&letter.device, self.signed_moment(letter.sent))?;
        self.book.put_device(letter.device, known);
        Ok(None)
    }

    /// What a letter says of one rollout.
    fn view(&mut self, letter: &Letter, device: &Device, view: &RolloutView, late: bool) {
        let Some(rollout) = self.book.rollouts.get(&view.rollout) else { return };
        let start = rollout.start.clone();
        let bucket = Bucket::of(&start.manifest, &start.channel, &letter.device);
        if bucket != view.bucket {
            self.alarm(letter, "its bucket in a rollout is not the one of its id");
            return;
        }
        let stages = &rollout.ladder.stages;
        let place = |cohort| stages.iter().position(|stage| stage.cohort == cohort);
        let claimed = place(view.cohort.clone());
        let (expected, leaving) = self.cohorts_of(&letter.device, &start);
        let earliest = expected.and_then(place).into_iter().chain(leaving.and_then(place)).min();
        let Some(claimed) = claimed else {
            self.alarm(letter, "it names a cohort that the ladder does not have");
            return;
        };
        let counts = device.enrolled < rollout.offset;
        // Its place was settled by the first letter; grants may have changed since.
        let known = rollout.evidence.case(&letter.device).is_some();
        if !known && earliest.is_some_and(|earliest| claimed < earliest) {
            self.alarm(letter, "it claims an earlier cohort than anybody granted");
            return;
        }
        if !known && view.groups.is_empty() {
            self.alarm(
                letter,
                "its first letter about a rollout, which named its groups, is missing",
            );
            return;
        }
        let sighting = Sighting {
            cohort: view.cohort.clone(),
            bucket,
            groups: view.groups.clone(),
            standing: if counts { Standing::Counts } else { Standing::Newcomer },
        };
        let Some(evidence) = self.book.evidence_mut(&view.rollout, &letter.device) else { return };
        let meeting = evidence.meet(letter.device, sighting);
        if !late {
            evidence.speak(letter.device, view.treated);
        } else if view.treated {
            evidence.begin(letter.device);
        }
        if meeting == Meeting::First && counts {
            self.book.meet_trial(view, device, &letter.device);
        }
        match meeting {
            Meeting::Known | Meeting::First => {
                self.book.view_in_trial(view, &letter.device, age_of(late));
            }
            Meeting::Contradiction(_) => {}
        }
        match meeting {
            Meeting::Known => {}
            Meeting::Contradiction(what) => self.alarm(letter, what),
            Meeting::First => {
                let model = device.facts.model_id();
                self.book.fresh.insert((start.product, model));
                if counts && let Some(rollout) = self.book.rollout_mut(&view.rollout) {
                    rollout.old_groups.extend(&view.groups);
                }
            }
        }
    }

    /// The cohort in which a device is expected in a rollout, and that which it may still name by a grant.
    fn cohorts_of(&self, device: &DeviceId, start: &Start) -> (Option<CohortId>, Option<CohortId>) {
        let place = (&start.product, &start.channel);
        let expected = self.book.expected_cohort(self.policy(), device, place, self.now);
        (expected, self.book.grants().last_cohort(device, place.0, place.1).cloned())
    }

    /// A verified letter ends a device's silence, whatever it is about.
    fn speaks_again(&mut self, letter: &Letter) {
        for rollout in self.rollouts_where(letter, |_, health| health == Health::Silent) {
            if let Some(evidence) = self.book.evidence_mut(&rollout, &letter.device) {
                evidence.speak(letter.device, false);
            }
        }
    }

    /// Outcomes in the order of the device's life: each continues the chain, or one got lost.
    fn outcomes(
        &mut self,
        letter: &Letter,
        device: &mut Device,
        late: bool,
    ) -> Result<(), Refusal> {
        let mut lost = false;
        for record in &letter.outcomes {
            if record.number <= device.outcomes.count {
                continue;
            }
            lost |= record.number > device.outcomes.count + 1;
            device.outcomes = device.outcomes.with(&record.outcome)?;
            let (rollout, kind) = (record.outcome.rollout, record.outcome.kind);
            if late && kind == OutcomeKind::Confirmed {
                // It was well when it wrote this, which may be long ago. Its next letter settles it.
                device.late_good.insert(rollout);
            } else {
                device.late_good.remove(&rollout);
                self.outcome(letter, device, rollout, kind);
            }
        }
        let said = Outcomes { count: letter.outcomes_count, digest: letter.outcomes_digest };
        // A device with more outcomes than fit sends the rest in its next letters.
        let more_to_come =
            letter.outcomes.len() == limits::LETTER_OUTCOMES && said.count > device.outcomes.count;
        if !more_to_come && (lost || said != device.outcomes) {
            self.lost(letter);
            device.outcomes = said;
        }
        Ok(())
    }

    fn outcome(&mut self, letter: &Letter, device: &Device, id: RolloutId, kind: OutcomeKind) {
        let Some(rollout) = self.book.rollouts.get(&id) else { return };
        let start = rollout.start.clone();
        if rollout.evidence.case(&letter.device).is_none() {
            // Its first letter never came, but the outcome did: harm counts even so.
            self.alarm(letter, "an outcome came for a rollout that no letter of it had named");
            let counts = self.book.rollouts.get(&id).is_some_and(|r| device.enrolled < r.offset);
            // It was let in by what it was granted then, which may be over.
            let (expected, leaving) = self.cohorts_of(&letter.device, &start);
            let Some(cohort) = leaving.or(expected) else { return };
            let sighting = Sighting {
                cohort,
                bucket: Bucket::of(&start.manifest, &start.channel, &letter.device),
                groups: Vec::new(),
                standing: if counts { Standing::Counts } else { Standing::Newcomer },
            };
            if let Some(evidence) = self.book.evidence_mut(&id, &letter.device) {
                evidence.meet(letter.device, sighting);
            }
        }
        if let Some(evidence) = self.book.evidence_mut(&id, &letter.device) {
            self.harmed |=
                evidence.conclude(letter.device, kind) && kind == OutcomeKind::RolledBack;
        }
        let age = age_of(self.book.is_late(letter, self.now));
        self.book.outcome_in_trial(&id, &letter.device, kind, age);
    }

    /// An outcome that the device had never arrived. It counts as harm where the device was treated;
    /// where nobody knows of a treatment, wherever it had been let in.
    fn lost(&mut self, letter: &Letter) {
        self.alarm(letter, "an outcome that it had never arrived: somebody keeps news back");
        let at_it = |_: &Rollout, health| matches!(health, Health::Treated | Health::Silent);
        let mut about = self.rollouts_where(letter, at_it);
        if about.is_empty() {
            about = self.rollouts_where(letter, |rollout, health| {
                let case = rollout.evidence.case(&letter.device);
                health == Health::Waiting
                    && case.is_some_and(|case| {
                        let entry = rollout.steps.iter().find(|s| s.open.cohort == case.cohort);
                        entry.is_some_and(|step| step.open.limit.admits(case.bucket))
                    })
            });
        }
        for rollout in about {
            if let Some(evidence) = self.book.evidence_mut(&rollout, &letter.device) {
                self.harmed |= evidence.lose(letter.device);
            }
        }
    }

    fn rollouts_where(
        &self,
        letter: &Letter,
        holds: impl Fn(&Rollout, Health) -> bool,
    ) -> Vec<RolloutId> {
        let case = |evidence: &Evidence| evidence.case(&letter.device).map(|case| case.health);
        let rollouts = self.book.rollouts.values();
        rollouts
            .filter(|rollout| case(&rollout.evidence).is_some_and(|health| holds(rollout, health)))
            .map(|rollout| rollout.id)
            .collect()
    }

    fn alarm(&mut self, letter: &Letter, what: &str) {
        self.book.alarm(self.now, Some(letter.device), what.to_owned());
    }

    fn act(&mut self, entry: &Entry) -> Result<Option<String>, Refusal> {
        let signed: SignedAct = serde_json::from_slice(&entry.bytes)?;
        let verified = signed.verify(self.policy())?;
        let (word, what) = match verified.act() {
            Act::Start(start) => ("start", self.start(entry, &signed, &verified, start)?),
            Act::Approve(approval) => ("approve", self.approve(&signed, approval)?),
            Act::Lift(lift) => ("lift", self.lift(&signed, lift)?),
            Act::Waive(waiver) => ("waive", self.waive(waiver)?),
            Act::Grant(grant) => ("grant", self.grant(grant)?),
        };
        let people: Vec<&str> = verified.people().iter().map(PersonId::as_str).collect();
        self.book.note(self.now, &people.join(", "), word, &what)?;
        Ok(Some(what))
    }

    fn start(
        &mut self,
        entry: &Entry,
        signed: &SignedAct,
        verified: &VerifiedAct,
        start: &Start,
    ) -> Result<String, Refusal> {
        let id = start.rollout();
        if self.book.rollouts.contains_key(&id) {
            return rule("this manifest goes out on this channel already: one rollout for each");
        }
        let policy = self.policy();
        let Some(product) = policy.products.get(&start.product) else {
            return rule(format!("the policy names no product `{}`", start.product));
        };
        if !product.channels.contains(&start.channel) {
            return rule(format!("`{}` has no channel `{}`", start.product, start.channel));
        }
        if !policy.people.contains_key(&start.owner) {
            return rule(format!("the owner `{}` is not in the policy", start.owner));
        }
        if self.now.plus(START_SKEW) < start.moment {
            return rule(format!("its moment {} lies ahead: submit it then", start.moment));
        }
        let recall = Recall::path(&start.product, &start.version);
        if self.trusted.release(&start.product, &recall).is_some() {
            return rule(format!("`{}` {} is recalled", start.product, start.version));
        }
        let manifest = self.manifest_of(start)?;
        let named = start.cohorts.iter().map(|size| &size.cohort);
        let stages = manifest.ladder.stages.iter().map(|stage| &stage.cohort);
        if !named.clone().eq(stages) || !named.eq(&product.cohorts) {
            return rule("its cohorts are not those of ladder and policy, in their order");
        }
        let path = Manifest::path(&start.product, &start.version);
        let authors = self.trusted.release(&start.product, &path).map(|release| release.authors);
        let author = verified.people().iter().find(|person| {
            let keys = policy.people.get(person).map(|person| &person.keys);
            keys.zip(authors.as_ref()).is_some_and(|(keys, authors)| !keys.is_disjoint(authors))
        });
        if let Some(author) = author {
            return rule(format!("`{author}` signed the release and may not approve its start"));
        }
        let what = format!("`{}` {} on `{}` starts", start.product, start.version, start.channel);
        let old_groups = self.book.groups_before(entry.offset);
        let rollout = Rollout::new(start.clone(), signed.clone(), manifest.ladder, entry.offset);
        self.book.put_rollout(Rollout { old_groups, ..rollout });
        Ok(what)
    }

    /// The published manifest that a start names, read again from the bytes that were signed.
    fn manifest_of(&self, start: &Start) -> Result<Manifest, Refusal> {
        let path = Manifest::path(&start.product, &start.version);
        let Some(release) = self.trusted.release(&start.product, &path) else {
            return rule(format!("`{path}` is not published"));
        };
        if release.digest != start.manifest {
            return rule(format!("the published `{path}` is another one than the start names"));
        }
        let bytes = self.book.new_file(&release.file).or_else(|| (self.stored)(&release.file));
        let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == release.digest) else {
            return rule(format!("the text of `{path}` is missing"));
        };
        Ok(Manifest::from_json(&bytes)?)
    }

    fn approve(&mut self, signed: &SignedAct, approval: &Approval) -> Result<String, Refusal> {
        let Some(rollout) = self.book.rollouts.get(&approval.rollout) else {
            return rule("there is no such rollout");
        };
        if rollout.start.manifest != approval.manifest {
            return rule("it approves another manifest than the rollout's");
        }
        if rollout.ended.is_some() {
            return rule("the rollout was ended for good");
        }
        let stage = rollout.ladder.stages.get(usize::from(approval.stage));
        if stage.is_none_or(|stage| stage.cohort != approval.cohort) {
            return rule(format!("stage {} is not `{}`", approval.stage, approval.cohort));
        }
        if let Some(rollout) = self.book.rollout_mut(&approval.rollout) {
            rollout.approvals.entry(approval.stage).or_insert_with(|| signed.clone());
        }
        Ok(format!("stage `{}` of rollout {} is approved", approval.cohort, approval.rollout))
    }

    fn lift(&mut self, signed: &SignedAct, lift: &Lift) -> Result<String, Refusal> {
        if let Some(number) = lift.numbers.iter().find(|number| !self.book.knows_stop(**number)) {
            return rule(format!("there never was a stop {number}"));
        }
        let halted: Vec<RolloutId> = lift
            .numbers
            .iter()
            .filter_map(|number| self.book.stops.get(number))
            .filter(|stop| stop.kind == StopKind::Halt)
            .filter_map(|stop| match &stop.scope {
                Scope::Rollout(rollout) => Some(*rollout),
                Scope::Groups(..)
                | Scope::Cohort(..)
                | Scope::Tenant(_)
                | Scope::Product(_)
                | Scope::Everything => None,
            })
            .collect();
        for id in halted {
            let Some(rollout) = self.book.rollout_mut(&id) else { continue };
            rollout.trials.values_mut().for_each(|trial| trial.forgive(None));
            let forgiven = rollout.evidence.forgive();
            self.book.cases_changed(id, forgiven);
        }
        let held = lift.numbers.iter().filter_map(|number| self.book.stops.get(number));
        let held: Vec<Scope> = held
            .filter(|stop| stop.kind == StopKind::Hold)
            .map(|stop| stop.scope.clone())
            .collect();
        for scope in held {
            match scope {
                Scope::Groups(id, groups) => {
                    if let Some(rollout) = self.book.rollout_mut(&id) {
                        rollout.trials.values_mut().for_each(|trial| trial.forgive(Some(&groups)));
                    }
                }
                Scope::Tenant(tenant) => {
                    for rollout in self.book.rollouts.values_mut() {
                        rollout.trials.values_mut().for_each(|trial| trial.forgive_tenant(&tenant));
                    }
                }
                Scope::Rollout(_) | Scope::Cohort(..) | Scope::Product(_) | Scope::Everything => {}
            }
        }
        let (stand, past): (Vec<u64>, Vec<u64>) =
            lift.numbers.iter().partition(|number| self.book.stops.contains_key(number));
        let numbers = |numbers: &[u64]| {
            let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            texts.join(", ")
        };
        if stand.is_empty() && self.book.lifts.iter().any(|known| known.text == signed.text) {
            return Ok(format!("nothing changed: this act has lifted stop {}", numbers(&past)));
        }
        self.book.lift(signed, &lift.numbers)?;
        let reason = &lift.reason;
        Ok(match (stand.as_slice(), past.as_slice()) {
            (stand, []) => format!("stop {} is lifted: {reason}", numbers(stand)),
            ([], past) => format!(
                "stop {} stood no more; devices that have not heard so are told again: {reason}",
                numbers(past)
            ),
            (stand, past) => format!(
                "stop {} is lifted, stop {} stood no more: {reason}",
                numbers(stand),
                numbers(past)
            ),
        })
    }

    fn waive(&mut self, waiver: &Waiver) -> Result<String, Refusal> {
        if waiver.expires <= self.now {
            return rule(format!("it ended at {}", waiver.expires));
        }
        let Some(rollout) = self.book.rollout_mut(&waiver.rollout) else {
            return rule("there is no such rollout");
        };
        match waiver.rule {
            WaivedRule::MinimumDevices(devices) => {
                rollout.waived =
                    Some(Waived { devices: u32::from(devices), until: waiver.expires });
                Ok(format!(
                    "{devices} devices are enough for a stage of rollout {} until {}: {}",
                    waiver.rollout, waiver.expires, waiver.reason
                ))
            }
            WaivedRule::Coverage(group) => {
                if rollout.trials.is_empty() {
                    return rule(format!(
                        "no group is held back for coverage, so {group} needs no waiver"
                    ));
                }
                rollout.trials.values_mut().for_each(|trial| trial.waive(&group));
                Ok(format!(
                    "group {group} widens in rollout {} without proof of its own: {}",
                    waiver.rollout, waiver.reason
                ))
            }
        }
    }

    fn grant(&mut self, grant: &Grant) -> Result<String, Refusal> {
        if grant.expires <= self.now {
            return rule(format!("it ended at {}", grant.expires));
        }
        match self.book.device(&grant.device) {
            None => return rule("no such device is enrolled"),
            Some(device) if device.tenant != grant.tenant => {
                return rule(format!("the device is of another tenant than `{}`", grant.tenant));
            }
            Some(_) => {}
        }
        let product = self.policy().products.get(&grant.product);
        let fits = product.is_some_and(|product| {
            product.channels.contains(&grant.channel) && product.cohorts.contains(&grant.cohort)
        });
        if !fits {
            return rule(format!(
                "`{}` has no channel `{}` with a cohort `{}`",
                grant.product, grant.channel, grant.cohort
            ));
        }
        if let Some(why) = self.book.grants().outdated(grant) {
            return rule(why);
        }
        self.book.grant(grant)?;
        Ok(format!(
            "device {} may be in `{}` of `{}` until {}: {}",
            grant.device, grant.cohort, grant.product, grant.expires, grant.reason
        ))
    }

    fn publication(&mut self, entry: &Entry) -> Result<Option<String>, Refusal> {
        let publication: Publication = serde_json::from_slice(&entry.bytes)?;
        let published = |path: &str| self.book.new_file(path).or_else(|| (self.stored)(path));
        let accepted = self.trusted.examine(&publication, &published, self.now)?;
        for (path, bytes) in accepted.files {
            self.book.file(&path, bytes);
        }
        *self.trusted = accepted.next;
        self.book.note(self.now, "gatekeeper", "publish", &accepted.what)?;
        Ok(Some(format!("published {}", accepted.what)))
    }
}
