//! Looking at the repository: what is new, what each product's file shows, and the manifests and
//! recalls that follow from it. What cannot be read is complained of, and the rest goes on.

use std::collections::BTreeSet;

use lockgate_shared::{
    act::Start,
    failure::Chain,
    gather::gather,
    grant,
    id::{Digest, ProductId},
    pace::Sight,
    recall::Recall,
    time::Seconds,
    version::Version,
};

use super::{Agent, RunError, managed, trouble::Trouble};
use crate::{
    core::{choice, recall::Recalls},
    log,
    repository::{Release, RepositoryError},
    transport::Cause,
    world::World,
};

/// After so long without anything newly signed an owner is told: a timestamp is signed again every few
/// minutes, and a server that shows an old one may be hiding a stop.
const QUIET: Seconds = Seconds(2 * 3600);

impl<W: World> Agent<W> {
    /// Asks the repository for news: root and timestamp, and what they say has changed.
    pub(super) fn refresh(&mut self) -> Result<(), Trouble> {
        let clock = self.world.clock();
        let result = self.repository.refresh(&mut self.world, clock);
        self.note_liars();
        // The floor may have risen by a refresh that failed, too.
        self.journal.save("floor", self.repository.floor()).map_err(RunError::from)?;
        self.heard.trusted = Some(result?);
        self.heard.refreshed = Some(self.now().clock);
        self.heard.refresh_problem = None;
        self.note_quiet();
        if self.keep_orders() {
            self.journal.save("kept", &self.kept).map_err(RunError::from)?;
        }
        Ok(())
    }

    /// Whether some product's rollout file has still to be read.
    pub(super) fn is_unread(&self) -> bool {
        let model = self.facts.model_id();
        self.products.iter().any(|managed| !self.repository.knows(&managed.product, &model))
    }

    /// Takes in what each product's rollout file shows, after a refresh that succeeded.
    pub(super) fn look(&mut self) -> Result<(), RunError> {
        let (clock, model) = (self.world.clock(), self.facts.model_id());
        for index in 0..self.products.len() {
            let Some(managed) = self.products.get(index) else { break };
            let product = managed.product.clone();
            let place = (&product, &model);
            match self.repository.read_file(&mut self.world, place, clock) {
                Ok(()) => self.observe(index)?,
                Err(error) => self.complain(&product, &error),
            }
        }
        self.note_liars();
        self.forget_manifests();
        Ok(())
    }

    /// Says which sources gave something else than was signed: their operator learns it by the letter.
    fn note_liars(&mut self) {
        for behind in self.world.behind() {
            let Cause::Refused(why) = &behind.cause else { continue };
            let text = format!("what `{}` gave was refused: {why}", behind.source);
            if !self.notices.contains(&text) {
                log::warn(&text);
                self.notices.push(text);
            }
        }
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

    /// Remembers what a product's file shows, and fetches the manifests that it needs.
    fn observe(&mut self, index: usize) -> Result<(), RunError> {
        let (now, model) = (self.now().clock, self.facts.model_id());
        let Some(managed) = self.products.get_mut(index) else { return Ok(()) };
        let Some(policy) = self.repository.policy() else { return Ok(()) };
        let product = managed.product.clone();
        let grants = &self.orders.grants;
        let given = choice::granted(policy, grants, &self.writer.device, &product, now);
        let granted = given.as_ref().map(|given| &given.channel);
        managed.follows = choice::channel(policy, managed.channel.as_ref(), granted, &product);
        let file = self.repository.file(&product, &model);
        match file {
            None => managed.memory.observe_none(now),
            Some(file) => {
                let cohort = |start: &Start| {
                    let named = grant::cohort(policy, given.as_ref(), &product, &start.channel);
                    let last = || start.cohorts.last().map(|size| &size.cohort);
                    named.or_else(last).cloned().unwrap_or_else(managed::no_cohort)
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
    fn believe(&mut self, index: usize) -> Result<(), RunError> {
        let Some(managed) = self.products.get_mut(index) else { return Ok(()) };
        let file = self.repository.file(&managed.product, &self.facts.model_id());
        if let (Some(policy), Some(file)) = (self.repository.policy(), file) {
            managed.memory.believe(file, policy, self.repository.manifests());
        }
        let key = managed::memory_key(&managed.product);
        Ok(self.journal.save(&key, &managed.memory)?)
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
}
