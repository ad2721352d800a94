//! What a policy is: it hears letters, and says once an hour how far a rollout is open. The trial and its
//! peers stand behind the same door, and see the same fleets.

use lockgate_server::rollout::trial::{Letter, Trial, judge::Verdict, terms::Terms};
use lockgate_shared::id::Digest;

use super::{fleet::Fleet, presence::Calendar};

/// A letter's news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The device waits, or begins now.
    Waits(Standing),
    /// It has begun, and says nothing new.
    On,
    /// Its trial ended well.
    Healthy,
    /// It failed, at this site.
    Failed(u32),
}

/// What keeps a device that has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The bucket alone.
    AtRisk,
    /// More than the bucket.
    Kept,
    /// Nothing: it begins.
    Begins,
}

/// What only the clairvoyant looks at.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// The fleet.
    pub fleet: &'a Fleet,
    /// Its days.
    pub calendar: &'a Calendar,
}

/// A policy.
pub trait Policy {
    /// A new hour, counted from the run's first.
    fn begin_hour(&mut self, hour: u32, look: &Look<'_>);
    /// Whether a device may install.
    fn admits(&self, device: u32) -> bool;
    /// A letter.
    fn letter(&mut self, device: u32, hour: u32, update: Update);
    /// A gate tick within an hour: what was reported may stop, and opens nothing.
    fn look(&mut self, _hour: u32) {}
    /// Whether from now on only beginnings and failures change anything, so that nothing else need be
    /// heard.
    fn rests(&self) -> bool {
        false
    }
    /// Whether the rollout is stopped for everybody.
    fn halted(&self) -> bool;
    /// Whether a stop covers a device: then more than its bucket keeps it back.
    fn stops(&self, _device: u32) -> bool {
        self.halted()
    }
    /// Sentences of what was held.
    fn sentences(&self) -> Vec<String> {
        Vec::new()
    }
    /// The highest evidence, as a number that a good release passes with a chance of its inverse.
    fn peak(&self) -> f64 {
        1.0
    }
}

/// The real gate.
#[derive(Debug)]
pub struct Gate(pub Trial);

impl Gate {
    /// The gate over this fleet.
    pub fn new(fleet: &Fleet, terms: Terms) -> Self {
        Self(Trial::new(terms, fleet.roster.clone(), salt(fleet)))
    }
}

/// The rollout's own salt, by which its draws fall.
pub fn salt(fleet: &Fleet) -> Digest {
    Digest::of_parts("lockgate simulated rollout v1", &[&fleet.dice.0.to_be_bytes()])
}

impl Policy for Gate {
    fn begin_hour(&mut self, hour: u32, _: &Look<'_>) {
        self.0.begin_hour(hour);
    }

    fn admits(&self, device: u32) -> bool {
        self.0.admits(device)
    }

    fn letter(&mut self, device: u32, _: u32, update: Update) {
        let letter = match update {
            Update::Waits(Standing::AtRisk) => Letter::AtRisk,
            Update::Waits(Standing::Kept) => Letter::Kept,
            Update::Waits(Standing::Begins) => Letter::Begins,
            Update::On => Letter::On,
            Update::Healthy => Letter::Healthy,
            Update::Failed(site) => Letter::Failed(Some(site)),
        };
        self.0.letter(device, letter);
    }

    fn look(&mut self, _: u32) {
        self.0.look();
    }

    fn rests(&self) -> bool {
        self.0.is_settled()
    }

    fn halted(&self) -> bool {
        *self.0.verdict() == Verdict::Halt
    }

    fn stops(&self, device: u32) -> bool {
        self.halted() || !self.0.holds().is_empty() && self.0.is_held(device)
    }

    fn sentences(&self) -> Vec<String> {
        self.0.holds().iter().map(|hold| hold.sentence.clone()).collect()
    }

    fn peak(&self) -> f64 {
        self.0.peak()
    }
}
