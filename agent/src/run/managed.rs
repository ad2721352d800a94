//! One product's line of work in the loop: deciding, stepping its machine, writing the step down and
//! doing what follows.

use std::collections::VecDeque;

use lockgate_shared::{
    failure::Chain,
    id::{ChannelId, CohortId, Digest, ModelId, ProductId, RolloutId},
    limits,
    manifest::{Artifact, ArtifactKind, Manifest, ProbeKind},
    pace::Memory,
    pin::{Asker, Pin},
    time::Moment,
    version::Version,
    wire::{NO_CHANNEL, Orders, ProductState, RolloutView},
};

use super::{Agent, Product, RunError, report::sentence, trouble::Trouble};
use crate::{
    core::{
        choice::{self, Choice, Finding, Own, Situation},
        handover,
        kept::Kept,
        machine::{self, Effect, Event, Fault, Plan, PlannedArtifact, State},
        recall::{Recalls, Standing},
        trial::{Answer, Health, Said},
    },
    journal::{Journal, JournalError, Record},
    log,
    perform::Performer,
    repository::Release,
    slots::{Contents, Slot},
    status::RollbackStatus,
    world::World,
};

/// How many steps one event may lead to: fetch, verify, look, activate, restart and a verdict, twice.
const STEPS_AT_ONCE: usize = 32;

/// Whether a product is the agent itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Another program, image or configuration.
    Other,
    /// The agent: to restart it is to end and be run anew.
    Agent,
}

impl Role {
    /// What the product's slots can hold.
    const fn takes(self) -> ArtifactKind {
        match self {
            Self::Other => ArtifactKind::App,
            Self::Agent => ArtifactKind::Agent,
        }
    }
}

/// One product.
pub struct ManagedProduct {
    pub(super) product: ProductId,
    pub(super) channel: Option<ChannelId>,
    pub(super) own_pin: Pin,
    pub(super) role: Role,
    pub(super) performer: Box<dyn Performer>,
    pub(super) record: Record,
    pub(super) memory: Memory,
    pub(super) choice: Choice,
    /// What ran when it was made.
    judged: Option<Version>,
    /// The channel as of the last decision.
    pub(super) follows: Option<ChannelId>,
    /// The recalls that matter to it.
    pub(super) recalls: Recalls,
    /// The manifests that its last decision needed.
    pub(super) needs: Vec<Digest>,
    /// What came of the owner's last request to go back.
    pub(super) asked_back: Option<RollbackStatus>,
}

/// The key of a product's memory in the journal.
pub(super) fn memory_key(product: &ProductId) -> String {
    format!("memory/{product}")
}

/// The cohort of a device whose policy and start both name none: no ladder has it.
pub(super) fn no_cohort() -> CohortId {
    "none".parse().expect("four letters are a name")
}

impl ManagedProduct {
    /// Opens what an earlier run left.
    pub(super) fn open(product: Product, journal: &Journal) -> Result<Self, JournalError> {
        let name = product.product;
        Ok(Self {
            record: journal.record(&name)?,
            memory: journal.load(&memory_key(&name))?.unwrap_or_default(),
            product: name,
            channel: product.channel,
            own_pin: product.pin,
            role: product.role,
            performer: product.performer,
            choice: Choice::default(),
            judged: None,
            follows: None,
            recalls: Recalls::new(),
            needs: Vec::new(),
            asked_back: None,
        })
    }

    /// What the active slot holds.
    pub(super) fn active(&self) -> Option<(Slot, Option<Contents>)> {
        let slot = self.performer.device().ok()?.active?;
        Some((slot, self.performer.contents(slot).ok().flatten()))
    }

    /// The version in the active slot.
    pub(super) fn running(&self) -> Option<Version> {
        self.active()?.1.map(|contents| contents.version)
    }

    /// What the idle slot holds.
    pub(super) fn idle(&self) -> Option<Contents> {
        let slot = self.active().map_or(Slot::A, |(slot, _)| slot.other());
        self.performer.contents(slot).ok().flatten()
    }

    /// The pins that hold: the owner's own, what was ordered, and what is kept of earlier orders.
    pub(super) fn pins<'a>(&'a self, orders: &'a Orders, kept: &'a Kept) -> Vec<(Asker, &'a Pin)> {
        let kept = kept.pins(&self.product, orders).map(|pin| (Asker::Orders, pin));
        let ordered = orders.pins.get(&self.product).map(|pin| (Asker::Orders, pin));
        let all = [(Asker::Owner, &self.own_pin)].into_iter().chain(kept).chain(ordered);
        all.filter(|(_, pin)| **pin != Pin::Latest).collect()
    }

    /// How the device stands to what it runs.
    fn standing(&self, running: Option<&Version>) -> Standing {
        let harmed = matches!(
            &self.record.state, State::Failed { version, .. } if Some(version) == running
        );
        let bound = self.record.installed.as_ref().is_some_and(|plan| {
            Some(&plan.version) == running && (plan.irreversible || plan.strands_data)
        });
        Standing { harmed, undoable: !bound }
    }

    /// When waiting may end by time alone.
    pub(super) fn until(&self) -> Option<Moment> {
        match &self.record.state {
            State::Waiting { until, .. } => *until,
            State::Idle
            | State::Fetching { .. }
            | State::Staged { .. }
            | State::Activating { .. }
            | State::Trial { .. }
            | State::Confirmed { .. }
            | State::RollingBack { .. }
            | State::Failed { .. } => None,
        }
    }

    /// The highest stop it has seen.
    pub(super) fn highest_stop(&self) -> u64 {
        let seen = self.memory.stops.keys().next_back().copied();
        let lifted = self.memory.lifted.last().copied();
        seen.max(lifted).unwrap_or_default()
    }

    /// Its state as a letter carries it.
    pub(super) fn report(&self, orders: &Orders, kept: &Kept) -> ProductState {
        let active = self.active().and_then(|(_, contents)| contents);
        let channel = self.follows.clone().or_else(|| self.channel.clone());
        ProductState {
            product: self.product.clone(),
            channel: channel.unwrap_or_else(no_channel),
            // A letter has room for one: the ordered one, which its reader may not know to be there.
            pin: self.pins(orders, kept).pop().map(|(_, pin)| pin.clone()).unwrap_or_default(),
            state: self.record.state.word(),
            running: active.as_ref().map(|contents| contents.version.clone()),
            running_manifest: active.map(|contents| contents.manifest),
            other: self.idle().map(|contents| contents.version),
        }
    }

    /// Its rollouts as a letter carries them.
    pub(super) fn views(
        &self,
        running: Option<&Version>,
        treated: &dyn Fn(&RolloutId) -> bool,
    ) -> Vec<RolloutView> {
        let Some(channel) = &self.follows else { return Vec::new() };
        self.choice.views(channel, running, &self.memory, treated)
    }
}

/// Nothing is decided, for a reason outside every rule.
fn refused(text: &str) -> Event {
    Event::Refused { until: None, reasons: vec![choice::told(0, text)] }
}

/// The free space, in MiB, once what lies in the idle slot is gone.
fn with_room(free_mib: Option<u32>, idle: Option<&Artifact>) -> Option<u32> {
    let room = idle.map_or(0, Artifact::unpacked);
    free_mib.map(|free| free.saturating_add(u32::try_from(room >> 20).unwrap_or(u32::MAX)))
}

/// The channel of a product before the first refresh.
fn no_channel() -> ChannelId {
    NO_CHANNEL.parse().expect("seven letters are a name")
}

impl<W: World> Agent<W> {
    /// Decides what a product goes for, and what that means for its machine.
    pub(super) fn decide(&mut self, index: usize) -> Result<Event, RunError> {
        let now = self.now().clock;
        let model = self.facts.model_id();
        let mut conditions = self.world.conditions();
        if let Some(event) = self.undecided(index, &model) {
            return Ok(event);
        }
        let Some(managed) = self.products.get_mut(index) else { return Ok(Event::Tick) };
        let (Some(policy), Some(channel)) = (self.repository.policy(), managed.follows.clone())
        else {
            return Ok(Event::NothingNewer);
        };
        let device = managed
            .performer
            .device()
            .map_err(|source| RunError::Slots { product: managed.product.clone(), source })?;
        // What the idle slot holds makes room, or is the release itself.
        let idle = managed.idle().and_then(|held| self.repository.manifests().get(&held.manifest));
        let idle = idle.and_then(|held| held.artifact_for(&self.facts));
        conditions.free_disk_mib = with_room(conditions.free_disk_mib, idle);
        let pins = managed.pins(&self.orders, &self.kept);
        let told = [self.windows.as_slice(), &self.orders.windows];
        let windows: Vec<_> = told.into_iter().chain(self.kept.windows(&self.orders)).collect();
        let freezes = self.kept.freezes(&self.orders);
        let running = managed.running();
        let own = Own {
            id: self.writer.device,
            tenant: &self.writer.tenant,
            product: &managed.product,
            channel: &channel,
            facts: &self.facts,
            conditions: &conditions,
            takes: managed.role.takes(),
            running: running.as_ref(),
            pins: &pins,
            windows: &windows,
            preferences: self.preferences,
            freezes: &freezes,
            standing: managed.standing(running.as_ref()),
            failed: &managed.record.failed,
            orders: &self.orders,
        };
        let situation = Situation {
            policy,
            file: self.repository.file(&managed.product, &model),
            manifests: self.repository.manifests(),
            recalls: &managed.recalls,
            memory: &managed.memory,
            timestamp_issued: self.heard.trusted.and_then(|t| t.timestamp_issued),
            own,
            now,
        };
        let choice = choice::decide(&situation);
        let event = event_of(&choice, &situation, &device);
        managed.choice = choice;
        managed.judged = running;
        let known = &managed.memory.rollouts;
        let plan = managed.record.state.plan().map(|plan| plan.rollout);
        managed.record.treated.retain(|r| known.contains_key(r) || plan == Some(*r));
        Ok(event)
    }

    /// Judges anew what was judged while something else ran: what is shown between two polls agrees
    /// with what runs. What follows from it comes with the next poll.
    pub(super) fn judge_anew(&mut self) {
        for index in 0..self.products.len() {
            let other = self.products.get(index).is_some_and(|managed| {
                !managed.choice.considered.is_empty() && managed.judged != managed.running()
            });
            if other && let Err(error) = self.decide(index) {
                log::warn(Chain(&error));
            }
        }
    }

    /// Why nothing can be decided about a product, if so.
    fn undecided(&self, index: usize, model: &ModelId) -> Option<Event> {
        let managed = self.products.get(index)?;
        if let Some(why) = self.state_problem().or_else(|| self.heard.barred.clone()) {
            return Some(refused(&why));
        }
        let unread = !self.repository.knows(&managed.product, model);
        unread.then(|| refused("its rollout file could not be read"))
    }

    /// Takes an event and everything that follows from it.
    pub(super) fn drive(&mut self, index: usize, event: Event) -> Result<(), RunError> {
        let mut events = VecDeque::from([event]);
        for _ in 0..STEPS_AT_ONCE {
            let Some(event) = events.pop_front() else { return Ok(()) };
            for (number, effect) in self.step(index, event)? {
                let follows = self.perform(index, &effect)?;
                #[cfg(feature = "faults")]
                crate::faults::did();
                if let Some(number) = number {
                    self.journal.done(number)?;
                }
                events.extend(follows);
            }
        }
        Ok(())
    }

    /// One step of a machine, written down. Gives what is to be done, with its number in the journal.
    fn step(&mut self, index: usize, event: Event) -> Result<Vec<(Option<i64>, Effect)>, RunError> {
        let now = self.now();
        let Some(managed) = self.products.get_mut(index) else { return Ok(Vec::new()) };
        let device = managed
            .performer
            .device()
            .map_err(|source| RunError::Slots { product: managed.product.clone(), source })?;
        let step = machine::step(managed.record.state.clone(), event, &device, now);
        for note in &step.notes {
            let text = format!("`{}`: {note}", managed.product);
            log::info(&text);
            // Each once until the next poll: a switch that fails is tried again between polls.
            if self.notices.len() < limits::LETTER_REASONS && !self.notices.contains(&text) {
                self.notices.push(text);
            }
        }
        if step.state.word() != managed.record.state.word() {
            log::info(format!("`{}`: {}", managed.product, sentence(&step.state)));
        }
        let (probes, lasting): (Vec<Effect>, Vec<Effect>) =
            step.effects.into_iter().partition(|effect| matches!(effect, Effect::RunProbe { .. }));
        let mut to_do: Vec<(Option<i64>, Effect)> = Vec::new();
        if lasting.is_empty() && quiet(&managed.record.state, &step.state) {
            // A probe's answer alone is not worth a sync: after a crash the soak begins anew.
            managed.record.state = step.state;
        } else {
            let mut record = Record { state: step.state, ..managed.record.clone() };
            // A failed one stays where the version before could not read its data.
            if matches!(record.state, State::Confirmed { .. } | State::Failed { .. })
                && let Some(plan) = managed.record.state.plan()
                && device.active == Some(plan.to)
            {
                record.installed = Some(plan.clone());
            }
            if let Some(plan) = record.state.plan()
                && !record.treated.contains(&plan.rollout)
            {
                record.treated.push(plan.rollout);
            }
            match self.journal.commit(&managed.product, &mut record, &lasting) {
                Ok(numbered) => {
                    managed.record = record;
                    to_do.extend(numbered.into_iter().map(|(n, effect)| (Some(n), effect)));
                }
                // A disk that takes no more entries must not keep a device on a bad release: the
                // switch back needs none, and the machine finds out after a start by itself.
                Err(error) if matches!(record.state, State::RollingBack { .. }) => {
                    log::error(Chain(&error));
                    managed.record = record;
                    to_do.extend(lasting.into_iter().map(|effect| (None, effect)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        to_do.extend(probes.into_iter().map(|effect| (None, effect)));
        Ok(to_do)
    }

    fn perform(&mut self, index: usize, effect: &Effect) -> Result<Option<Event>, RunError> {
        log::debug(format!("{effect:?}"));
        match effect {
            Effect::LastLook => self.last_look(index).map(Some),
            Effect::SendLetter => {
                self.letter_due = true;
                Ok(None)
            }
            Effect::RunProbe { probe } => Ok(self.ask(index, probe).map(Event::Probed)),
            Effect::Fetch => self.fetch(index).map(Some),
            Effect::VerifySlot { slot } => self.verify(index, *slot).map(Some),
            Effect::Activate { slot } => Ok(self.switch(index, *slot)),
            Effect::DiscardSlot { slot } => {
                if let Some(Err(error)) =
                    self.products.get_mut(index).map(|managed| managed.performer.discard(*slot))
                {
                    log::warn(Chain(&error));
                }
                Ok(None)
            }
            Effect::Restart => Ok(self.restart(index)),
            // Done with the journal's entry.
            Effect::RecordOutcome { .. } | Effect::RememberFailed { .. } => Ok(None),
        }
    }

    fn restart(&mut self, index: usize) -> Option<Event> {
        let managed = self.products.get_mut(index)?;
        match managed.role {
            Role::Agent => {
                self.replaced = Some(managed.product.clone());
                None
            }
            Role::Other => {
                let (slot, _) = managed.active()?;
                managed.performer.restart(slot).err().map(|why| Event::RestartFailed { why })
            }
        }
    }

    /// The last look before the point of no return: everything once more, from the server's word on.
    fn last_look(&mut self, index: usize) -> Result<Event, RunError> {
        let manifest = self.products.get(index).and_then(|managed| managed.record.state.plan());
        let Some(manifest) = manifest.map(|plan| plan.manifest) else { return Ok(Event::Tick) };
        match self.refresh() {
            Ok(()) => {}
            Err(Trouble::World(error)) => {
                return Ok(refused(&format!("the last look failed: {}", Chain(&error))));
            }
            Err(Trouble::Own(error)) => return Err(error),
        }
        if let Some(refusal) = self.last_letter()? {
            return Ok(refused(&format!("the last look failed: {}", refusal.text)));
        }
        self.look()?;
        let event = self.decide(index)?;
        let same = matches!(&event, Event::Chosen(plan) if plan.manifest == manifest);
        Ok(if same { Event::Cleared { manifest } } else { event })
    }

    fn fetch(&mut self, index: usize) -> Result<Event, RunError> {
        let failed = |why: &str| Event::FetchFailed { fault: Fault::Passing, why: why.into() };
        let Some(managed) = self.products.get_mut(index) else { return Ok(Event::Tick) };
        let Some(plan) = managed.record.state.plan().cloned() else { return Ok(Event::Tick) };
        let manifest = match self.repository.manifests().get(&plan.manifest) {
            Some(manifest) => manifest.clone(),
            None => match kept(&self.journal, &plan.manifest)? {
                Some(manifest) => manifest,
                None => return Ok(failed("its manifest is not at hand")),
            },
        };
        let Some(artifact) = artifact(&manifest, &plan) else {
            return Ok(failed("its manifest lists other bytes"));
        };
        // After a restart the list of files must be at hand without a server, and its bytes must be
        // those that were signed: whoever changes them on the disk is found out.
        if kept(&self.journal, &plan.manifest)?.is_none() {
            let Plan { product, version, manifest, .. } = &plan;
            let release = Release { product, version, manifest: *manifest };
            let clock = self.world.clock();
            let read = self.repository.manifest_bytes(&mut self.world, release, clock);
            let bytes = match read {
                Ok(bytes) => bytes,
                Err(error) => return Ok(failed(&Chain(&error).to_string())),
            };
            let others: Vec<Digest> = self
                .products
                .iter()
                .filter_map(|managed| managed.record.state.plan())
                .map(|plan| plan.manifest)
                .collect();
            self.journal.keep_manifest(&plan.manifest, &bytes, &others)?;
        }
        let Some(managed) = self.products.get_mut(index) else { return Ok(Event::Tick) };
        Ok(managed.performer.fetch(&plan, artifact, &mut self.world))
    }

    fn verify(&mut self, index: usize, slot: Slot) -> Result<Event, RunError> {
        let Some(managed) = self.products.get_mut(index) else { return Ok(Event::Tick) };
        let Some(plan) = managed.record.state.plan().cloned() else { return Ok(Event::Tick) };
        let manifest = match self.repository.manifests().get(&plan.manifest) {
            Some(manifest) => Some(manifest.clone()),
            None => kept(&self.journal, &plan.manifest)?,
        };
        let files = manifest.as_ref().and_then(|manifest| artifact(manifest, &plan));
        Ok(match files {
            Some(artifact) => managed.performer.verify(slot, &artifact.files),
            None => Event::VerifyFailed { why: "its list of files is not at hand".into() },
        })
    }

    /// Asks a probe of the release on trial.
    fn ask(&mut self, index: usize, name: &str) -> Option<Answer> {
        let managed = self.products.get_mut(index)?;
        let plan = managed.record.state.plan()?;
        let (slot, product) = (plan.to, managed.product.clone());
        let probe = plan.trial.probes.iter().find(|probe| probe.name == name)?.clone();
        let answer = match probe.kind {
            ProbeKind::Contact if managed.role == Role::Agent && self.heard.contact.is_none() => {
                self.ask_letter(name)
            }
            ProbeKind::Contact => self.ask_contact(name, probe.interval_s),
            ProbeKind::Command { .. } | ProbeKind::Http { .. } | ProbeKind::Process { .. } => {
                managed.performer.probe(&probe, slot)?
            }
        };
        self.beacons.count(&product, &answer);
        Some(answer)
    }

    /// Whether the agent reaches its server: a letter acknowledged within the interval is proof, else
    /// the smallest file of the repository is asked for.
    fn ask_contact(&mut self, name: &str, interval: lockgate_shared::time::Seconds) -> Answer {
        let uptime = self.world.uptime();
        let recent = self.heard.contact_problem.is_none()
            && self
                .heard
                .contact_uptime
                .is_some_and(|at| at <= uptime && uptime.0.saturating_sub(at.0) <= interval.0);
        let reached = if recent {
            Ok(())
        } else {
            let limit = crate::core::tuf::TIMESTAMP_LIMIT;
            self.world.read("metadata/timestamp.json", limit).map(drop)
        };
        let (health, detail) = match reached {
            Ok(()) => (Health::Held, "the server was reached".to_owned()),
            Err(error) => (Health::Failed, choice::short(&Chain(&error).to_string())),
        };
        Answer { probe: name.to_owned(), said: Said { health, detail }, latency_ms: 0 }
    }

    /// A letter on the way to the switch: what the server says against it counts.
    pub(super) fn last_letter(&mut self) -> Result<Option<crate::world::Refusal>, RunError> {
        for _ in 0..super::post::LETTERS_IN_A_TURN {
            let waiting = self.journal.waiting_letter()?;
            let fresh = waiting.is_none();
            let letter = match waiting {
                Some(letter) => Some(letter),
                None => self.compose()?,
            };
            let Some(letter) = letter else { return Ok(None) };
            match self.send(&letter)? {
                None if fresh => return Ok(None),
                None => {}
                Some(refusal) => return Ok(Some(refusal)),
            }
        }
        Ok(None)
    }
}

/// What a decision means for the machine.
fn event_of(choice: &Choice, situation: &Situation<'_>, device: &machine::Device) -> Event {
    let own = &situation.own;
    let chosen = choice.chosen.and_then(|index| choice.considered.get(index));
    let forward = chosen.and_then(|one| one.start.as_ref());
    let forward = forward.map(|start| (start.rollout(), start.manifest));
    let back = choice.back.as_ref();
    let open = back.filter(|back| back.finding == Finding::Go);
    let goal = forward.or_else(|| open.map(|back| (back.rollout, back.manifest)));
    if let Some((rollout, digest)) = goal
        && let Some(manifest) = situation.manifests.get(&digest)
        && let Some(artifact) = manifest.artifact_for(own.facts)
    {
        return Event::Chosen(Box::new(Plan {
            rollout,
            manifest: digest,
            version: manifest.version.clone(),
            product: manifest.product.clone(),
            artifact: PlannedArtifact {
                kind: artifact.kind,
                size: artifact.size,
                sha256: artifact.sha256,
            },
            from: device.active,
            to: device.active.map_or(Slot::A, Slot::other),
            trial: handover::trial(artifact.kind, &manifest.trial),
            previous: own.running.cloned(),
            irreversible: manifest.irreversible,
            strands_data: own.running.is_some_and(|running| manifest.unreadable_by(running)),
            chosen: situation.now,
        }));
    }
    if let Some(back) = back {
        return Event::Refused { until: back.finding.until(), reasons: back.finding.told() };
    }
    let newest = choice.open(own.channel, own.running).next();
    match newest {
        Some(newest) => {
            let until = choice.open(own.channel, own.running).filter_map(choice::Considered::until);
            Event::Refused { until: until.min(), reasons: newest.finding.told() }
        }
        None => Event::NothingNewer,
    }
}

/// Whether a state is the same but for what a probe or the clock adds to a trial.
fn quiet(before: &State, after: &State) -> bool {
    match (before, after) {
        (
            State::Trial { watch: a, handover: x, .. },
            State::Trial { watch: b, handover: y, .. },
        ) => a.attempts_left == b.attempts_left && a.extensions == b.extensions && x == y,
        (a, b) => a == b,
    }
}

fn artifact<'m>(manifest: &'m Manifest, plan: &Plan) -> Option<&'m Artifact> {
    manifest.artifacts.iter().find(|artifact| artifact.sha256 == plan.artifact.sha256)
}

/// A manifest that an earlier run kept, if it is still the one that was signed.
pub(super) fn kept(journal: &Journal, digest: &Digest) -> Result<Option<Manifest>, JournalError> {
    let bytes = journal.manifest(digest)?;
    let whole = bytes.filter(|bytes| Digest::of(bytes) == *digest);
    Ok(whole.and_then(|bytes| Manifest::from_json(&bytes).ok()))
}
