//! The loop: gather, ask, write down, do. A turn refreshes what is known of the repository, decides
//! for each product, does what follows, and writes to the server. Between turns nothing runs, except
//! the probes of a trial, at their own pace.
//!
//! No failure of a server stops a trial: probes, verdict and the way back need none. Decisions are
//! made in [`crate::core`]; what is about to be done stands in the journal before it is done.

mod age;
mod author;
mod look;
mod managed;
mod post;
mod report;
mod succession;
mod trouble;
mod wishes;

use std::path::PathBuf;

use ed25519_dalek::SigningKey;
use lockgate_shared::{
    eligibility::Preferences,
    facts::Facts,
    failure::Chain,
    id::{ChannelId, DeviceId, Digest, ProductId, RepositoryId, TenantId},
    limits,
    pin::Pin,
    sign,
    time::{Moment, Seconds},
    version::Version,
    window::Window,
    wire::Orders,
};
use thiserror::Error;

use self::{age::Aged, post::Tale, trouble::Trouble};
pub use self::{
    age::Counted,
    managed::{ManagedProduct, Role},
};
use crate::{
    cli::RequestError,
    core::{
        habit::Hours,
        handover::Watchword,
        kept::Kept,
        machine::{Event, Now},
        schedule::Schedule,
        tuf::{Floor, Status as Trusted},
    },
    journal::{Found, Journal, JournalError},
    letters::{Beacons, Writer},
    log,
    perform::Performer,
    repository::{Repository, RepositoryError},
    slots::SlotError,
    transport::{Behind, Woken},
    world::World,
};

/// Facts are gathered again after this span: they change with updates and seldom otherwise.
const FACTS_LAST: Seconds = Seconds(6 * 3600);
/// What the start had to say, that the journal was lost, is told again for so long: one poll's letter
/// may be overtaken by the next before anybody looks.
const OPENING_TOLD: Seconds = Seconds(3600);
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
    /// What the start had to say, and when that was, since the boot.
    opening: Vec<String>,
    opened_at: Seconds,
    /// The notices of the poll before, for a letter that goes before this one has looked.
    carried: Vec<String>,
    /// What the last letter told.
    told: Option<Tale>,
    /// The sources that are asked last.
    behind: Vec<Behind>,
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
        let mut opening = Vec::new();
        if let Found::Broken(aside) = found {
            let path = aside.display();
            log::error(format!("the journal could not be read and was moved to `{path}`"));
            opening.push("the journal could not be read: begun anew from the slots".to_owned());
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
            opened_at: world.uptime(),
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
            notices: Vec::new(),
            opening,
            carried: Vec::new(),
            told: None,
            behind: Vec::new(),
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
        self.behind = self.world.behind();
        self.journal.rest();
        self.show();
        Ok(self.replaced.take().map(Ended::Replaced))
    }

    /// Writes the snapshot for the owner.
    fn show(&mut self) {
        self.judge_anew();
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

    /// A poll: root and timestamp, a letter, and more only where something changed. Where there is a
    /// rollout file to be read, the letter goes first: a rollout is first seen by a device that has
    /// just been told what it was granted, and another letter tells what came of it.
    fn poll(&mut self) -> Result<(), RunError> {
        if self.last_poll.is_some() {
            self.carried = std::mem::take(&mut self.notices);
        }
        if self.world.uptime().0.saturating_sub(self.opened_at.0) < OPENING_TOLD.0 {
            self.notices.extend(self.opening.clone());
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
        let first = refreshed && self.is_unread();
        let mut retry = if first { self.write_letters()? } else { None };
        self.carried.clear();
        if refreshed && retry.is_none() {
            self.look()?;
        }
        // A device that is held decides too: that nothing is begun.
        if refreshed && (retry.is_none() || self.heard.barred.is_some()) {
            for index in 0..self.products.len() {
                let event = self.decide(index)?;
                self.drive(index, event)?;
            }
        }
        if !first || (retry.is_none() && (self.letter_due || self.has_news())) {
            retry = self.write_letters()?;
        }
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
}

#[cfg(test)]
mod tests;
