//! The loop: gather, ask, write down, do. A turn refreshes what is known of the repository, decides
//! for each product, does what follows, and writes to the server. Between turns nothing runs, except
//! the probes of a trial, at their own pace.
//!
//! No failure of a server stops a trial: probes, verdict and the way back need none. Decisions are
//! made in [`crate::core`]; what is about to be done stands in the journal before it is done.

mod age;
mod author;
mod managed;
mod report;
mod succession;

mod trouble;
mod wishes;

use std::{collections::BTreeSet, path::PathBuf};

use ed25519_dalek::SigningKey;
use lockgate_shared::{
    act::Start,
    eligibility::Preferences,
    facts::Facts,
    failure::Chain,
    gather::gather,
    id::{ChannelId, DeviceId, Digest, ProductId, RepositoryId, TenantId},
    limits,
    pace::Sight,
    pin::Pin,
    recall::Recall,
    sign,
    time::{Moment, Seconds},
    version::Version,
    window::Window,
    wire::{Directive, Format, Orders, Sealed},
};
use thiserror::Error;

use self::{age::Aged, trouble::Trouble};
pub use self::{
    age::Counted,
    managed::{ManagedProduct, Role},
};
use crate::{
    cli::RequestError,
    core::{
        choice,
        habit::Hours,
        handover::Watchword,
        kept::{Kept, Whose},
        machine::{Contact, Event, Now},
        recall::Recalls,
        schedule::Schedule,
        tuf::{Floor, Status as Trusted},
    },
    journal::{Found, Journal, JournalError, Spooled, to_json},
    letters::{self, Beacons, Draft, Writer},
    log,
    perform::Performer,
    repository::{Release, Repository, RepositoryError},
    slots::SlotError,
    transport::Woken,
    world::{Fate, Refusal, World},
};

/// How many letters one turn sends: one that waited, one that tells the news, one in reserve.
const LETTERS_IN_A_TURN: usize = 3;
/// Facts are gathered again after this span: they change with updates and seldom otherwise.
const FACTS_LAST: Seconds = Seconds(6 * 3600);
/// After so long without anything newly signed an owner is told: a timestamp is signed again every few
/// minutes, and a server that shows an old one may be hiding a stop.
const QUIET: Seconds = Seconds(2 * 3600);
/// The longest sleep: windows and clocks change, and a wake-up an hour costs nothing.
const LONGEST_SLEEP: Seconds = Seconds(3600);

/// What ends the agent.
#[derive(Debug, Error)]
pub enum RunError {
    /// The journal cannot be used: nothing may be done that cannot be written down.
    #[error("the agent cannot write down what it is about to do")]
    Journal(#[from] JournalError),
    /// The trust anchor, or the folder of trusted metadata.
    #[error("the agent cannot begin to trust its repository")]
    Repository(#[from] RepositoryError),
    /// A product's slots.
    #[error("the slots of `{product}` cannot be used")]
    Slots {
        /// The product.
        product: ProductId,
        /// Why.
        source: SlotError,
    },
    /// A request of the owner.
    #[error("what the owner asks for cannot be read")]
    Request(#[from] RequestError),
}

/// Why the loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// The agent was replaced: the installed binary is to be run in this one's place.
    Replaced(ProductId),
}

/// Who the agent is and what its owner wants.
pub struct Setup {
    /// Its state folder.
    pub state: PathBuf,
    /// The pinned root.
    pub anchor: Vec<u8>,
    /// The device's key.
    pub key: SigningKey,
    /// What counts how old the state is, where the device has such a thing.
    pub counted: Option<Counted>,
    /// Where it was enrolled.
    pub repository: RepositoryId,
    /// Its tenant.
    pub tenant: TenantId,
    /// The agent's version.
    pub agent: Version,
    /// How often to poll until the server has said something.
    pub poll: Seconds,
    /// The owner's windows.
    pub windows: Vec<Window>,
    /// What the owner asks for.
    pub preferences: Preferences,
    /// The products.
    pub products: Vec<Product>,
}

/// A product to be set up.
pub struct Product {
    /// Its name.
    pub product: ProductId,
    /// The channel, where the owner names one.
    pub channel: Option<ChannelId>,
    /// The owner's pin.
    pub pin: Pin,
    /// Whether it is the agent itself.
    pub role: Role,
    /// Its slots and processes.
    pub performer: Box<dyn Performer>,
}

/// The agent.
pub struct Agent<W> {
    world: W,
    journal: Journal,
    repository: Repository,
    writer: Writer,
    aged: Option<Aged>,
    state: PathBuf,
    windows: Vec<Window>,
    preferences: Preferences,
    products: Vec<ManagedProduct>,
    schedule: Schedule,
    orders: Orders,
    kept: Kept,
    hours: Hours,
    facts: Facts,
    facts_at: Option<Seconds>,
    facts_known: Option<Digest>,
    beacons: Beacons,
    notices: Vec<String>,
    heard: Heard,
    next_poll: Seconds,
    last_poll: Option<Seconds>,
    polled_at: Option<Moment>,
    letter_due: bool,
    replaced: Option<ProductId>,
    /// Where this agent is a new one that an old one watches over.
    watched: Option<Watchword>,
}

/// What was last heard from outside.
#[derive(Clone, Debug, Default)]
struct Heard {
    refreshed: Option<Moment>,
    refresh_problem: Option<String>,
    trusted: Option<Trusted>,
    contact: Option<Moment>,
    contact_uptime: Option<Seconds>,
    contact_problem: Option<String>,
    /// Why the server takes no letter of this device: nothing is begun meanwhile.
    barred: Option<String>,
    clock_ahead_s: Option<i64>,
}

impl<W: World> Agent<W> {
    /// Opens what an earlier run left and goes on where that stopped.
    pub fn open(mut world: W, setup: Setup) -> Result<Self, RunError> {
        let (mut journal, found) = Journal::open(&setup.state)?;
        let mut notices = Vec::new();
        if let Found::Broken(aside) = found {
            let path = aside.display();
            log::error(format!("the journal could not be read and was moved to `{path}`"));
            notices.push("the journal could not be read: begun anew from the slots".to_owned());
        }
        let floor: Floor = journal.load("floor")?.unwrap_or_default();
        let folder = setup.state.join("tuf");
        let repository = Repository::open(&setup.anchor, &folder, floor)?;
        let device = DeviceId::of_key(&sign::public(&setup.key));
        let named: Vec<ProductId> = setup.products.iter().map(|one| one.product.clone()).collect();
        author::sign_for(&mut journal, device, &setup.tenant, &named)?;
        let schedule: Schedule =
            journal.load("schedule")?.unwrap_or_else(|| Schedule::new(setup.poll));
        let products = setup
            .products
            .into_iter()
            .take(limits::DEVICE_PRODUCTS)
            .map(|product| ManagedProduct::open(product, &journal))
            .collect::<Result<Vec<ManagedProduct>, JournalError>>()?;
        let facts = world.facts();
        let next_poll = Seconds(world.uptime().0.saturating_add(schedule.first(&device).0));
        let mut agent = Self {
            facts_at: Some(world.uptime()),
            orders: journal.load("orders")?.unwrap_or_default(),
            kept: journal.load("kept")?.unwrap_or_default(),
            hours: journal.load("hours")?.unwrap_or_default(),
            facts_known: journal.load("facts-known")?,
            writer: Writer {
                device,
                key: setup.key,
                repository: setup.repository,
                tenant: setup.tenant,
                agent: setup.agent,
            },
            world,
            journal,
            repository,
            aged: setup.counted.map(Aged::of),
            state: setup.state,
            windows: setup.windows,
            preferences: setup.preferences,
            products,
            schedule,
            facts,
            beacons: Beacons::default(),
            notices,
            heard: Heard::default(),
            next_poll,
            last_poll: None,
            polled_at: None,
            letter_due: false,
            replaced: None,
            watched: None,
        };
        agent.look_at_age()?;
        agent.look_for_guard();
        agent.resume()?;
        agent.sign();
        Ok(agent)
    }

    /// Runs until told to end or replaced.
    pub fn run(&mut self) -> Result<Ended, RunError> {
        loop {
            if let Some(ended) = self.turn()? {
                return Ok(ended);
            }
            match self.world.wait(self.pause()) {
                Woken::Time => {}
                Woken::Poked => self.hurry(),
                Woken::Terminate => return Ok(Ended::Told),
            }
        }
    }

    /// One turn, without the sleep after it.
    pub fn turn(&mut self) -> Result<Option<Ended>, RunError> {
        let uptime = self.world.uptime();
        // A machine that booted counts from zero again.
        let behind = self.last_poll.is_some_and(|last| uptime < last);
        if uptime >= self.next_poll || behind || self.opened() {
            self.poll()?;
        }
        self.heed_requests()?;
        for index in 0..self.products.len() {
            self.drive(index, Event::Tick)?;
        }
        if self.letter_due {
            self.write_letters()?;
        }
        self.count()?;
        self.sign();
        self.world.rest();
        self.journal.rest();
        self.show();
        Ok(self.replaced.take().map(Ended::Replaced))
    }

    /// Writes the snapshot for the owner.
    fn show(&self) {
        if let Err(error) = self.snapshot().write(&self.state) {
            // A full disk must not end a trial's supervision.
            log::warn(Chain(&error));
        }
    }

    /// Has the next turn poll, whatever the schedule says: somebody asks for it now.
    pub fn hurry(&mut self) {
        self.next_poll = self.world.uptime();
    }

    /// How long there is nothing to do.
    pub fn pause(&self) -> Seconds {
        let poll = self.next_poll.0.saturating_sub(self.world.uptime().0);
        let rests = self.products.iter().filter_map(|managed| managed.record.state.rest());
        let least = rests.fold(Seconds(poll), Seconds::min).min(LONGEST_SLEEP);
        // A window that opens before the next poll brings that poll forward.
        let now = self.now().clock;
        let opening = self.openings().map(|until| until.since(now)).fold(least, Seconds::min);
        Seconds(opening.0.max(1))
    }

    /// When waiting may end by time alone, in the future of the last poll. Spread by the device's
    /// place, because a window opens for a whole site at once.
    fn openings(&self) -> impl Iterator<Item = Moment> {
        let place = self.schedule.first(&self.writer.device);
        let polled = self.polled_at;
        let untils = self.products.iter().filter_map(ManagedProduct::until);
        untils.map(move |until| until.plus(place)).filter(move |until| polled < Some(*until))
    }

    /// Whether waiting may have ended since the last poll.
    fn opened(&self) -> bool {
        let now = self.now().clock;
        self.openings().any(|until| until <= now)
    }

    /// The moment, by the guarded clock and since the boot.
    fn now(&self) -> Now {
        Now { clock: self.repository.guarded(self.world.clock()), uptime: self.world.uptime() }
    }

    /// Tells each machine that the agent has started, and what was under way.
    fn resume(&mut self) -> Result<(), RunError> {
        for index in 0..self.products.len() {
            self.heed_guard(index)?;
            let Some(managed) = self.products.get(index) else { break };
            let undone = self.journal.undone(&managed.product)?;
            self.drive(index, Event::Restarted { undone })?;
        }
        Ok(())
    }

    /// A poll: what is new, what follows, and a letter.
    fn poll(&mut self) -> Result<(), RunError> {
        // What the start had to say is told by the first poll.
        if self.last_poll.is_some() {
            self.notices.clear();
        }
        self.look_at_age()?;
        self.gather()?;
        let refreshed = match self.refresh() {
            Ok(()) => true,
            Err(Trouble::World(error)) => {
                let text = Chain(&error).to_string();
                log::warn(format!("the repository was not refreshed: {text}"));
                self.notices.push(format!("refresh: {text}"));
                self.heard.refresh_problem = Some(text);
                false
            }
            Err(Trouble::Own(error)) => return Err(error),
        };
        if refreshed {
            for index in 0..self.products.len() {
                let event = self.decide(index)?;
                self.drive(index, event)?;
            }
        }
        self.letter_due = false;
        let retry = self.write_letters()?;
        let reached = retry.is_none() && refreshed;
        let device = self.writer.device;
        let pause = if reached {
            self.schedule.succeeded(&device)
        } else {
            self.schedule.failed(&device, retry.and_then(|refusal| refusal.retry_after))
        };
        self.journal.save("schedule", &self.schedule)?;
        let uptime = self.world.uptime();
        self.last_poll = Some(uptime);
        self.polled_at = Some(self.now().clock);
        self.next_poll = Seconds(uptime.0.saturating_add(pause.0));
        Ok(())
    }

    /// Notes that the device is on, and looks at itself again now and then.
    fn gather(&mut self) -> Result<(), RunError> {
        let now = self.now();
        let since =
            self.last_poll.map_or(now.uptime, |last| Seconds(now.uptime.0.saturating_sub(last.0)));
        self.hours.note(now.clock, since, &self.facts.time_zone);
        self.journal.save("hours", &self.hours)?;
        let old = self
            .facts_at
            .is_none_or(|at| now.uptime < at || now.uptime.0.saturating_sub(at.0) >= FACTS_LAST.0);
        if old {
            self.facts = self.world.facts();
            self.facts_at = Some(now.uptime);
        }
        Ok(())
    }

    /// Says for how long it has seen nothing new.
    fn note_quiet(&mut self) {
        let issued = self.heard.trusted.and_then(|trusted| trusted.timestamp_issued);
        let Some(issued) = issued.filter(|issued| self.now().clock.since(*issued) > QUIET) else {
            return;
        };
        let text = format!("nothing newer than {issued} was seen from the signers");
        if !self.notices.contains(&text) {
            self.notices.push(text);
        }
    }

    /// Keeps what it was told, where its tenant has a key of its own. Says whether that is news.
    fn keep_orders(&mut self) -> bool {
        let now = self.now().clock;
        let policy = self.repository.policy();
        let whose = Whose { device: &self.writer.device, tenant: &self.writer.tenant };
        self.kept.heed(&self.orders, policy, whose, now)
    }

    /// Asks the repository for news and takes in what each product's file shows.
    fn refresh(&mut self) -> Result<(), Trouble> {
        let clock = self.world.clock();
        let result = self.repository.refresh(&mut self.world, clock);
        // The floor may have risen by a refresh that failed, too.
        self.journal.save("floor", self.repository.floor()).map_err(RunError::from)?;
        self.heard.trusted = Some(result?);
        self.heard.refreshed = Some(self.now().clock);
        self.heard.refresh_problem = None;
        self.note_quiet();
        if self.keep_orders() {
            self.journal.save("kept", &self.kept).map_err(RunError::from)?;
        }
        let model = self.facts.model_id();
        for index in 0..self.products.len() {
            let Some(managed) = self.products.get(index) else { break };
            let product = managed.product.clone();
            let place = (&product, &model);
            match self.repository.read_file(&mut self.world, place, clock) {
                Ok(()) => self.observe(index)?,
                Err(error) => self.complain(&product, &error),
            }
        }
        self.forget_manifests();
        Ok(())
    }

    /// Remembers what a product's file shows, and fetches the manifests that it needs.
    fn observe(&mut self, index: usize) -> Result<(), Trouble> {
        let (now, model) = (self.now().clock, self.facts.model_id());
        let Some(managed) = self.products.get_mut(index) else { return Ok(()) };
        let Some(policy) = self.repository.policy() else { return Ok(()) };
        let product = managed.product.clone();
        let grants = &self.orders.grants;
        let grant = choice::granted(policy, grants, &self.writer.device, &product, now);
        let granted = grant.as_ref().map(|(channel, _)| channel);
        managed.follows = choice::channel(policy, managed.channel.as_ref(), granted, &product);
        let file = self.repository.file(&product, &model);
        match file {
            None => managed.memory.observe_none(now),
            Some(file) => {
                let last = policy.default_place(&product).map(|(_, cohort)| cohort.clone());
                let cohort = |start: &Start| match (&grant, &last) {
                    (Some((channel, cohort)), _) if *channel == start.channel => cohort.clone(),
                    (_, Some(cohort)) => cohort.clone(),
                    (_, None) => start
                        .cohorts
                        .last()
                        .map_or_else(managed::no_cohort, |size| size.cohort.clone()),
                };
                let habit = self.hours.habit();
                let sight = Sight { facts: &self.facts, habit, cohort: &cohort, now };
                managed.memory.observe(file, policy, &sight);
            }
        }
        let wanted = match (file, &managed.follows) {
            (Some(file), Some(channel)) => {
                let pins = managed.pins(&self.orders, &self.kept);
                choice::wanted(policy, file, channel, &pins, managed.running().as_ref())
            }
            (None, _) | (_, None) => Vec::new(),
        };
        managed.needs = wanted.iter().map(|start| start.manifest).collect();
        let clock = self.world.clock();
        for start in &wanted {
            let Start { product, version, manifest, .. } = start;
            let release = Release { product, version, manifest: *manifest };
            if let Err(error) = self.repository.read_manifest(&mut self.world, release, clock) {
                self.complain(product, &error);
            }
        }
        self.believe(index)?;
        self.observe_recalls(index, gather(wanted.into_iter().map(|start| start.version)));
        Ok(())
    }

    /// Remembers what agrees with the manifests, and keeps what was seen and believed.
    fn believe(&mut self, index: usize) -> Result<(), Trouble> {
        let Some(managed) = self.products.get_mut(index) else { return Ok(()) };
        let file = self.repository.file(&managed.product, &self.facts.model_id());
        if let (Some(policy), Some(file)) = (self.repository.policy(), file) {
            managed.memory.believe(file, policy, self.repository.manifests());
        }
        let key = managed::memory_key(&managed.product);
        Ok(self.journal.save(&key, &managed.memory).map_err(RunError::from)?)
    }

    /// Learns which of the versions that matter are recalled: what runs, what lies in the other slot, and
    /// what it may go to. A recall that is listed and cannot be read counts as one.
    fn observe_recalls(&mut self, index: usize, mut versions: BTreeSet<Version>) {
        let clock = self.world.clock();
        let Some(managed) = self.products.get(index) else { return };
        let (product, running) = (managed.product.clone(), managed.running());
        versions.extend(running.clone());
        versions.extend(managed.idle().map(|held| held.version));
        let mut recalls = Recalls::new();
        for version in versions {
            let place = (&product, &version);
            match self.repository.read_recall(&mut self.world, place, clock) {
                Ok(None) => {}
                Ok(Some((digest, recall))) => {
                    if running.as_ref() == Some(&version) {
                        self.read_way_back(index, &recall);
                    }
                    recalls.insert(version, Some((digest, recall)));
                }
                Err(error) => {
                    self.complain(&product, &error);
                    recalls.insert(version, None);
                }
            }
        }
        if let Some(managed) = self.products.get_mut(index) {
            managed.recalls = recalls;
        }
    }

    fn read_way_back(&mut self, index: usize, recall: &Recall) {
        let clock = self.world.clock();
        let Recall { product, to, manifest, .. } = recall;
        let release = Release { product, version: to, manifest: *manifest };
        if let Err(error) = self.repository.read_manifest(&mut self.world, release, clock) {
            self.complain(product, &error);
        }
        if let Some(managed) = self.products.get_mut(index) {
            managed.needs.push(*manifest);
        }
    }

    /// Says why a product's file or manifest is not used, and goes on.
    fn complain(&mut self, product: &ProductId, error: &RepositoryError) {
        let text = Chain(error).to_string();
        log::warn(format!("`{product}`: {text}"));
        self.notices.push(format!("{product}: {text}"));
    }

    fn forget_manifests(&mut self) {
        let needed: Vec<Digest> =
            self.products.iter().flat_map(|managed| managed.needs.iter().copied()).collect();
        self.repository.keep(&needed);
    }

    /// Sends what waits, then the news. Gives the refusal that ended it.
    fn write_letters(&mut self) -> Result<Option<Refusal>, RunError> {
        self.letter_due = false;
        for _ in 0..LETTERS_IN_A_TURN {
            let waiting = self.journal.waiting_letter()?;
            let fresh = waiting.is_none();
            let letter = match waiting {
                Some(letter) => letter,
                None => match self.compose()? {
                    Some(letter) => letter,
                    None => return Ok(None),
                },
            };
            match self.send(&letter)? {
                None if fresh => return self.contact(Contact::Reached).map(|()| None),
                // An old letter was acknowledged: now for the news.
                None => {}
                Some(refusal) if matches!(refusal.fate, Fate::Keep | Fate::Barred) => {
                    self.contact(Contact::Missed)?;
                    return Ok(Some(refusal));
                }
                Some(_) => {}
            }
        }
        self.contact(Contact::Reached).map(|()| None)
    }

    /// Writes, seals and spools a letter.
    fn compose(&mut self) -> Result<Option<Spooled>, RunError> {
        let draft = self.draft()?;
        match self.writer.write(draft) {
            Ok(letter) => {
                self.journal.spool(&letter)?;
                Ok(Some(letter))
            }
            Err(error) => {
                log::error(Chain(&error));
                self.heard.contact_problem = Some(Chain(&error).to_string());
                Ok(None)
            }
        }
    }

    fn draft(&mut self) -> Result<Draft, RunError> {
        let sequence = self.journal.next_sequence()?;
        let now = self.now();
        let treated_of = |managed: &ManagedProduct| {
            let treated = managed.record.treated.clone();
            move |rollout: &lockgate_shared::id::RolloutId| treated.contains(rollout)
        };
        let mut rollouts = Vec::new();
        for managed in &self.products {
            let running = managed.running();
            for view in managed.views(running.as_ref(), &treated_of(managed)) {
                rollouts.push((managed.product.clone(), view));
            }
        }
        rollouts.truncate(limits::LETTER_ROLLOUTS);
        Ok(Draft {
            sequence,
            previous: self.journal.load("acknowledged")?.unwrap_or(Digest([0; 32])),
            now: now.clock,
            uptime: now.uptime,
            facts: self.facts.clone(),
            facts_known: self.facts_known,
            orders: self.orders.clone(),
            timestamp_version: self.heard.trusted.map_or(0, |trusted| trusted.timestamp_version),
            highest_stop: self
                .products
                .iter()
                .map(ManagedProduct::highest_stop)
                .max()
                .unwrap_or_default(),
            products: self
                .products
                .iter()
                .map(|managed| managed.report(&self.orders, &self.kept))
                .collect(),
            rollouts,
            beacons: self.beacons.take(),
            chain: self.journal.outcomes()?,
            outcomes: self.journal.waiting_outcomes(limits::LETTER_OUTCOMES)?,
            notices: self.notices.clone(),
        })
    }

    /// Sends one letter and settles it. Gives the refusal, if there was one.
    fn send(&mut self, letter: &Spooled) -> Result<Option<Refusal>, RunError> {
        let answer = match self.world.check_in(&letter.bytes) {
            Ok(answer) => answer,
            Err(refusal) => return self.refused(letter, refusal).map(Some),
        };
        match letters::read(&answer, letter) {
            Ok(directive) => {
                self.settle(letter, &directive)?;
                Ok(None)
            }
            Err(error) => {
                let text = Chain(&error).to_string();
                let refusal = Refusal { fate: Fate::Keep, text, retry_after: None };
                self.refused(letter, refusal).map(Some)
            }
        }
    }

    fn refused(&mut self, letter: &Spooled, refusal: Refusal) -> Result<Refusal, RunError> {
        log::warn(format!("letter {} was not acknowledged: {}", letter.sequence, refusal.text));
        self.heard.contact_problem = Some(refusal.text.clone());
        match refusal.fate {
            Fate::Keep => {}
            // Nothing that it writes is taken, so nothing that it installs would be seen.
            Fate::Barred => self.heard.barred = Some(refusal.text.clone()),
            Fate::Jump => {
                self.journal.drop_letter(letter.sequence)?;
                self.journal.jump()?;
                self.notices.push(format!("letter {} was taken for a replay", letter.sequence));
            }
            Fate::Drop => {
                self.journal.drop_letter(letter.sequence)?;
                self.notices.push(format!("letter {} was refused", letter.sequence));
            }
        }
        Ok(refusal)
    }

    /// Takes in an acknowledgement: what was carried is settled, what was told is kept.
    fn settle(&mut self, letter: &Spooled, directive: &Directive) -> Result<(), RunError> {
        let now = self.now();
        let mut saved = Vec::new();
        for (product, rollout) in &letter.carries.grouped {
            let Some(managed) =
                self.products.iter_mut().find(|managed| managed.product == *product)
            else {
                continue;
            };
            if let Some(known) = managed.memory.rollouts.get_mut(rollout) {
                known.first_letter.get_or_insert(directive.offset);
                let key = managed::memory_key(product);
                saved.push((key.clone(), to_json(&key, &managed.memory)?));
            }
        }
        if let Some(orders) = &directive.orders {
            self.orders = orders.clone();
            saved.push(("orders".to_owned(), to_json("orders", orders)?));
            self.keep_orders();
            saved.push(("kept".to_owned(), to_json("kept", &self.kept)?));
        }
        if letter.carries.facts.is_some() {
            self.facts_known = letter.carries.facts;
        }
        if directive.want_facts {
            self.facts_known = None;
        }
        saved.push(("facts-known".to_owned(), to_json("facts-known", &self.facts_known)?));
        if let Ok(sealed) = Sealed::read(&letter.bytes, Format::Binary) {
            saved.push(("acknowledged".to_owned(), to_json("acknowledged", &sealed.digest())?));
        }
        self.schedule.heed(directive);
        saved.push(("schedule".to_owned(), to_json("schedule", &self.schedule)?));
        self.journal.settle(letter, &saved)?;
        self.heard.contact = Some(now.clock);
        self.heard.contact_uptime = Some(now.uptime);
        self.heard.contact_problem = None;
        self.heard.barred = None;
        self.heard.clock_ahead_s =
            Some(self.world.clock().0.saturating_sub(directive.server_time.0));
        Ok(())
    }

    fn contact(&mut self, contact: Contact) -> Result<(), RunError> {
        for index in 0..self.products.len() {
            self.drive(index, Event::Contact(contact))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
