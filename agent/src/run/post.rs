//! Letters in the loop: what is written, what becomes of a letter that was sent, and what its answer
//! tells. A letter stays on the disk until it is acknowledged.

use lockgate_shared::{
    failure::Chain,
    id::{Digest, ProductId},
    limits,
    wire::{Directive, Format, ProductState, RolloutView, Sealed},
};

use super::{Agent, ManagedProduct, RunError, managed};
use crate::{
    core::{
        kept::Whose,
        machine::{Contact, Event},
    },
    journal::{Spooled, to_json},
    letters::{self, Draft},
    log,
    world::{Fate, Refusal, World},
};

/// How many letters one turn sends: one that waited, one that tells the news, one in reserve.
pub(super) const LETTERS_IN_A_TURN: usize = 3;

/// What a letter tells besides outcomes and probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tale {
    products: Vec<ProductState>,
    rollouts: Vec<(ProductId, RolloutView)>,
    notices: Vec<String>,
}

impl<W: World> Agent<W> {
    /// Keeps what it was told, where its tenant has a key of its own. Says whether that is news.
    pub(super) fn keep_orders(&mut self) -> bool {
        let now = self.now().clock;
        let policy = self.repository.policy();
        let whose = Whose { device: &self.writer.device, tenant: &self.writer.tenant };
        self.kept.heed(&self.orders, policy, whose, now)
    }

    /// Sends what waits, then the news. Gives the refusal that ended it.
    pub(super) fn write_letters(&mut self) -> Result<Option<Refusal>, RunError> {
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
    pub(super) fn compose(&mut self) -> Result<Option<Spooled>, RunError> {
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

    /// What a letter written now would tell of products, rollouts and troubles.
    fn tale(&self) -> Tale {
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
        let reports = self.products.iter();
        let mut notices = self.carried.clone();
        notices.extend(self.notices.iter().filter(|one| !self.carried.contains(one)).cloned());
        Tale {
            products: reports.map(|managed| managed.report(&self.orders, &self.kept)).collect(),
            rollouts,
            notices,
        }
    }

    /// Whether the last letter left out something that has come to light since.
    pub(super) fn has_news(&self) -> bool {
        let now = self.tale();
        self.told.as_ref().is_none_or(|told| {
            told.products != now.products
                || told.rollouts != now.rollouts
                || !now.notices.iter().all(|notice| told.notices.contains(notice))
        })
    }

    fn draft(&mut self) -> Result<Draft, RunError> {
        let sequence = self.journal.next_sequence()?;
        let now = self.now();
        let tale = self.tale();
        self.told = Some(tale.clone());
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
            products: tale.products,
            rollouts: tale.rollouts,
            beacons: self.beacons.take(),
            chain: self.journal.outcomes()?,
            outcomes: self.journal.waiting_outcomes(limits::LETTER_OUTCOMES)?,
            notices: tale.notices,
        })
    }

    /// Sends one letter and settles it. Gives the refusal, if there was one.
    pub(super) fn send(&mut self, letter: &Spooled) -> Result<Option<Refusal>, RunError> {
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
