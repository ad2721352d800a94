//! The gatekeeper's loop, in one thread: gather entries, ask what follows from them, write it down, do
//! it. It connects to the letter box's socket; it listens nowhere and opens nobody else's database.
//!
//! | to find out | open |
//! |---|---|
//! | how an entry is verified, and what it changes | [`intake`]; what only restricts: `restraint` |
//! | what a gate tick does | [`mod@tick`] |
//! | what is kept, and in which rows | [`book`] |
//! | in which cohort a device is expected | [`grants`] |
//! | whether the letter box is heard, and what follows | [`hearing`] |
//! | how many entries may be missing | [`gaps`] |
//! | what follows when the letter box has lost entries | [`Engine::turn`], [`crate::letters::LetterBox::follow`] |
//! | when which file of the repository is written | [`publish`] |
//! | how entries come | [`mod@source`] |

pub mod book;
pub mod gaps;
pub mod grants;
pub mod hearing;
pub mod intake;
mod kinds;
pub mod presence;
pub mod publish;
mod restraint;
pub mod source;
pub mod tick;
pub mod trials;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lockgate_shared::time::{Moment, Seconds};
use thiserror::Error;

use self::{
    book::{Book, BookError},
    gaps::{Gaps, MISSING_HOURLY},
    hearing::{Condition, Hearing},
    intake::{Intake, Urgency},
    kinds::FleetTold,
    publish::{Occasion, PublishError, Publisher, PublisherTerms},
    source::{Batch, SocketSource, Source, SourceError},
    tick::{Ears, TickKind, tick},
};
use crate::{
    audit::{self, AuditError, Chain},
    clock,
    config::{Gatekeeper, OnlineKeySource},
    gatekeeper_store::{GatekeeperStore, GatekeeperStoreError, Table},
    rollout::report,
    status::{About, CohortStatus, Decision, Expiry, FleetStatus, Status},
    tuf::{
        TufError,
        repository::{Repository, Terms, highest_stop_on_disk, versions_on_disk},
        roles::OnlineKeys,
        trusted::{Files, Trusted},
    },
};

/// Entries taken in at once: few enough that a stop among them is acted upon within a second.
const BATCH: u32 = 2_000;
/// How long the letter box may keep a pull waiting: as long as a request to end may take.
const WAIT_MS: u32 = 500;
/// Verdicts and audit lines in one report: far below a frame.
const REPORT: usize = 500;
/// The pauses between attempts to reach the letter box, in milliseconds: doubled from the first up to
/// the last.
const RECONNECT_MS: (u64, u64) = (100, 10_000);

/// The gatekeeper at work.
#[derive(Debug)]
pub struct Engine {
    store: GatekeeperStore,
    book: Book,
    trusted: Trusted,
    chain: Chain,
    publisher: Publisher,
    tick: Seconds,
    next_tick: Moment,
    hearing: Hearing,
    gaps: Gaps,
    /// What people were told of the hearing; nothing before the second tick, because a gatekeeper that
    /// has just started has yet to connect.
    told: Option<Condition>,
    /// Whether a tick has passed since the chain's head was last looked at.
    ticked: bool,
    /// Lines of the chain that the letter box does not have yet.
    lines: VecDeque<String>,
    /// Where the keys are, to take up new ones.
    keys: OnlineKeySource,
    /// The count of devices that the letter box has.
    fleet_told: Option<FleetTold>,
    /// How far entries were counted when everything was last told again.
    retold: Option<u64>,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The letter box answered.
    Heard,
    /// It could not be reached; everything else went on.
    Deaf,
}

/// Why the gatekeeper cannot go on.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Its folder cannot be made.
    #[error("cannot make `{path}`")]
    State {
        /// The folder.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Its store failed.
    #[error(transparent)]
    Store(#[from] GatekeeperStoreError),
    /// Its book failed.
    #[error(transparent)]
    Book(#[from] BookError),
    /// Its audit log failed.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The repository failed.
    #[error(transparent)]
    Tuf(#[from] TufError),
    /// The repository's files could not be made.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Runs until `stop` is set. The letter box may come and go; what fails on this host ends the run.
pub fn run(config: &Gatekeeper, stop: &Arc<AtomicBool>) -> Result<(), EngineError> {
    turns(config, stop, &clock::now)
}

fn turns(
    config: &Gatekeeper,
    stop: &AtomicBool,
    clock: &dyn Fn() -> Moment,
) -> Result<(), EngineError> {
    let mut engine = Engine::open(config, clock())?;
    let mut source = SocketSource::new(&config.socket);
    let mut pause = RECONNECT_MS.0;
    while !stop.load(Ordering::Relaxed) {
        match engine.turn(&mut source, clock)? {
            Turn::Heard => pause = RECONNECT_MS.0,
            Turn::Deaf => {
                rest(pause, stop);
                pause = (2 * pause).min(RECONNECT_MS.1);
            }
        }
    }
    Ok(())
}

/// Sleeps in short naps, so that a request to end is heard.
fn rest(pause_ms: u64, stop: &AtomicBool) {
    let mut left = pause_ms;
    while left > 0 && !stop.load(Ordering::Relaxed) {
        let nap = left.min(50);
        std::thread::sleep(Duration::from_millis(nap));
        left -= nap;
    }
}

/// Why nothing can be signed: people replaced this host's keys, a key does not answer, or a thief used up
/// the versions. The rest goes on, and devices see the timestamp age.
fn unsignable<T>(due: &Result<T, PublishError>) -> Option<String> {
    match due {
        Err(PublishError::Tuf(
            error @ (TufError::NotOurs { .. } | TufError::UsedUp { .. } | TufError::Signer { .. }),
        )) => Some(error.to_string()),
        Ok(_) | Err(_) => None,
    }
}

impl Engine {
    /// Opens everything and makes the repository whole: whatever a crash interrupted is written again.
    pub fn open(config: &Gatekeeper, now: Moment) -> Result<Self, EngineError> {
        let fail = |source| EngineError::State { path: config.state.clone(), source };
        std::fs::create_dir_all(&config.state).map_err(fail)?;
        let store = GatekeeperStore::open(&config.state.join("gatekeeper.db"))?;
        let mut book = Book::load(&store)?;
        let repository = Repository::new(
            config.repository.clone(),
            OnlineKeys::open(&config.keys)?,
            Terms {
                rollouts: config.rollouts_expiry_s,
                snapshot: config.snapshot_expiry_s,
                timestamp: config.timestamp_expiry_s,
            },
        );
        let trusted = read_people(&store, &mut book, &repository, &config.anchor)?;
        book.follow_keys(trusted.online_keys()?, now);
        book.take_versions(
            book.versions().max(versions_on_disk(&config.repository, &trusted)),
            now,
        );
        book.follow_stops(highest_stop_on_disk(&config.repository)?);
        let chain = Chain::open(&config.state.join("audit.log"))?;
        let lines = chain.lines(book.next_line(), usize::MAX)?.into();
        let terms = PublisherTerms {
            timestamp_interval: config.timestamp_interval_s,
            snapshot: config.snapshot_expiry_s,
            rollouts: config.rollouts_expiry_s,
        };
        let hearing = Hearing::new(book.listened());
        let mut engine = Self {
            store,
            book,
            trusted,
            chain,
            publisher: Publisher::new(repository, terms),
            tick: config.tick_s,
            next_tick: now,
            hearing,
            gaps: Gaps::default(),
            told: None,
            ticked: false,
            lines,
            fleet_told: None,
            retold: None,
            keys: config.keys.clone(),
        };
        engine.write_down()?;
        engine.do_it(Occasion::Change, now)?;
        Ok(engine)
    }

    /// One turn: gather, ask, write down, do, report. `clock` is asked after the entries have come.
    pub fn turn(
        &mut self,
        source: &mut dyn Source,
        clock: &dyn Fn() -> Moment,
    ) -> Result<Turn, EngineError> {
        let gathered = self.gather(source, clock);
        let (turn, entries) = match gathered {
            Ok(batch) => {
                if batch.head < self.book.offset {
                    self.letter_box_is_behind(batch.head, clock())?;
                }
                (Turn::Heard, batch.entries)
            }
            Err(error) => {
                tracing::debug!(%error, "the letter box cannot be reached");
                (Turn::Deaf, Vec::new())
            }
        };
        let now = clock();
        let occasion = self.ask(&entries, now)?;
        self.write_down()?;
        self.sign_head()?;
        self.do_it(occasion, now)?;
        let something_to_say = occasion != Occasion::Clock
            || !self.book.unreported(1).is_empty()
            || !self.lines.is_empty();
        if turn == Turn::Heard && something_to_say {
            return Ok(self.report(source, now)?.map_or(Turn::Deaf, |()| turn));
        }
        Ok(turn)
    }

    /// The state of everything, for people.
    pub fn status(&self, now: Moment) -> Status {
        let policy = self.trusted.policy();
        let stops: Vec<_> = self.book.stops.values().cloned().collect();
        let mut rollouts: Vec<_> = self.book.rollouts.values().collect();
        rollouts.sort_by_key(|rollout| rollout.offset);
        let rollouts = rollouts.into_iter().map(|rollout| {
            let census = self.book.census(rollout, policy, now);
            let judgements = self.book.judgements.get(&rollout.id);
            let judgements = judgements.map(Vec::as_slice).unwrap_or_default();
            report::status(rollout, &census, judgements, &stops, &self.book.labels)
        });
        let people = self.trusted.expiries().into_iter();
        let people = people.map(|(role, version, expires)| Expiry { role, version, expires });
        let cohorts = self.book.cohorts(policy, now).into_iter();
        Status {
            repository: policy.repository.clone(),
            at: now,
            letters_offset: self.book.offset,
            tick_s: self.tick,
            rollouts: rollouts.collect(),
            expiries: people.chain(self.publisher.expiries()).collect(),
            cohorts: cohorts
                .map(|((product, channel, cohort), devices)| CohortStatus {
                    product,
                    channel,
                    cohort,
                    devices,
                })
                .collect(),
            alarms: self.book.alarms.iter().cloned().collect(),
            hearing: match self.hearing.condition(now) {
                Condition::Good => None,
                Condition::Poor(why) | Condition::Deaf(why) => Some(why),
            },
            fleet: None,
            stops,
        }
    }

    /// What devices there are, if that is to be told anew.
    fn fleet(&self, status: &Status, now: Moment) -> Option<FleetStatus> {
        let told = self.fleet_told.as_ref();
        let holds = told.is_some_and(|told| told.holds(&status.cohorts, now));
        (!holds).then(|| self.book.kinds(self.trusted.policy(), now))
    }

    fn gather(
        &mut self,
        source: &mut dyn Source,
        clock: &dyn Fn() -> Moment,
    ) -> Result<Batch, SourceError> {
        // While a tick or a timestamp is due, nobody is waited for.
        let wait = if self.next_tick <= clock() { 0 } else { WAIT_MS };
        let batch = source
            .pull(self.book.reached(), BATCH, wait)
            .inspect_err(|_| self.hearing.broke(clock()))?;
        // Only who has caught up can say that a device is silent, and only with a letter box that takes
        // letters where they are read.
        let reached = self.book.offset + batch.entries.len() as u64;
        if (self.book.offset..=reached).contains(&batch.head) {
            self.hearing.caught_up(clock());
        }
        Ok(batch)
    }

    /// The letter box has fewer entries than were counted: its store was restored from an older backup, or
    /// is a new one. It goes on numbering from where this asks, because it was asked; what it lost of
    /// what was counted here is told to it again, so that people read one history.
    fn letter_box_is_behind(&mut self, head: u64, now: Moment) -> Result<(), EngineError> {
        let offset = self.book.offset;
        let text = format!(
            "of {offset} entries that were counted the letter box has {head} at most; its store was lost or replaced, or restored from an older backup: what was set, revoked or uploaded since is to be done again"
        );
        self.book.alarm(now, None, text.clone());
        if self.retold != Some(offset) {
            self.retold = Some(offset);
            tracing::error!(text, "the letter box is behind");
            self.book.note(now, "gatekeeper", "restored", &text)?;
            self.book.report_anew(&self.store)?;
            self.lines = self.chain.lines(self.book.next_line(), usize::MAX)?.into();
            self.fleet_told = None;
        }
        Ok(())
    }

    fn ask(
        &mut self,
        entries: &[crate::stream::Entry],
        now: Moment,
    ) -> Result<Occasion, EngineError> {
        let (mut occasion, harm) = self.take(entries, now)?;
        let due = self.next_tick <= now;
        let kind = if due { TickKind::Full } else { TickKind::Halts };
        if due || harm || occasion != Occasion::Clock {
            let policy = self.trusted.policy();
            let ears =
                Ears { listened: self.hearing.listened(), condition: self.hearing.condition(now) };
            let halted = tick(&mut self.book, policy, kind, &ears, now)?;
            if (due || halted) && occasion == Occasion::Clock {
                occasion = Occasion::Change;
            }
        }
        if due {
            self.next_tick = now.plus(self.tick);
            self.ticked = true;
            self.book.note_listened(self.hearing.listened());
            self.tell_of_hearing(now)?;
        }
        Ok(occasion)
    }

    /// Takes entries into the book, in their order: what they are an occasion for, and whether one
    /// tells of harm, which no rollout may wait with until its tick.
    fn take(
        &mut self,
        entries: &[crate::stream::Entry],
        now: Moment,
    ) -> Result<(Occasion, bool), EngineError> {
        let (mut occasion, mut harm) = (Occasion::Clock, false);
        let store = &self.store;
        let stored = |path: &str| store.row(Table::Files, path.as_bytes()).ok().flatten();
        for entry in entries {
            if entry.offset > self.book.offset {
                // The letter box can lose letters, and takes old ones away that were counted. To wait
                // for them would stop everything for good; that they are missing is said.
                let (from, to) = (self.book.offset, entry.offset - 1);
                if !self.gaps.pass(entry.offset - from, now) {
                    self.refuse_gap(now)?;
                    break;
                }
                let text = format!("entries {from} to {to} of the letter box are missing");
                self.book.alarm(now, None, text.clone());
                self.book.note(now, "gatekeeper", "missing", &text)?;
                self.book.offset = entry.offset;
            }
            if entry.offset != self.book.offset {
                // A repetition is the letter box's fault; what follows is asked for again.
                let text = format!(
                    "the letter box sent entry {} where {} was due",
                    entry.offset, self.book.offset
                );
                self.book.alarm(now, None, text);
                break;
            }
            let before = version_sum(&self.trusted);
            let mut intake = Intake {
                book: &mut self.book,
                trusted: &mut self.trusted,
                stored: &stored,
                now,
                listened: self.hearing.listened(),
                harmed: false,
            };
            match intake.take(entry)? {
                Urgency::Tick => {}
                Urgency::Harm => harm = true,
                Urgency::Now if before != version_sum(&self.trusted) => {
                    occasion = Occasion::Publication;
                }
                Urgency::Now if occasion == Occasion::Clock => occasion = Occasion::Change,
                Urgency::Now => {}
            }
        }
        Ok((occasion, harm))
    }

    /// Calls people because more entries are missing than an honest letter box leaves out. Nothing is
    /// passed over: the entry that is due is asked for again.
    fn refuse_gap(&mut self, now: Moment) -> Result<(), BookError> {
        let text = format!(
            "more than {MISSING_HOURLY} entries of the letter box are missing from {} on: that many are not passed over, and what follows waits: is it the true letter box?",
            self.book.offset
        );
        if !self.book.alarms.iter().any(|alarm| alarm.text == text) {
            tracing::error!(text, "the letter box is not followed");
            self.book.note(now, "gatekeeper", "missing", &text)?;
        }
        self.book.alarm(now, None, text);
        Ok(())
    }

    /// Calls people when the hearing turns poor or deaf, and says so when it is good again.
    fn tell_of_hearing(&mut self, now: Moment) -> Result<(), BookError> {
        let condition = self.hearing.condition(now);
        let Some(told) = &self.told else {
            self.told = Some(Condition::Good);
            return Ok(());
        };
        if std::mem::discriminant(&condition) == std::mem::discriminant(told) {
            return Ok(());
        }
        let text = match &condition {
            Condition::Good => "the letter box is heard again".to_owned(),
            Condition::Poor(why) => why.clone(),
            Condition::Deaf(why) => format!("{why}; nothing opens meanwhile"),
        };
        if condition != Condition::Good {
            tracing::warn!(text, "the gatekeeper does not hear well");
            self.book.alarm(now, None, text.clone());
        }
        self.book.note(now, "gatekeeper", "hearing", &text)?;
        self.told = Some(condition);
        Ok(())
    }

    /// One transaction for everything that changed; then the audit chain, whose lines have their
    /// numbers already, so that a crash in between is made good at the next start.
    fn write_down(&mut self) -> Result<(), EngineError> {
        self.commit()?;
        for note in self.book.take_notes() {
            if note.n > self.chain.count() {
                let line = self.chain.append(note.at, &note.who, &note.act, &note.detail)?;
                self.lines.push_back(line);
            }
        }
        self.book.follow_chain(self.chain.count());
        Ok(())
    }

    /// At a tick, the head of the chain is signed if it moved: from then on nobody writes it anew
    /// without the gatekeeper's key.
    fn sign_head(&mut self) -> Result<(), EngineError> {
        let signer = self.publisher.repository().rollouts_signer(&self.trusted);
        let Some(signer) = signer.filter(|_| self.ticked) else { return Ok(()) };
        match self.chain.sign_head(signer) {
            Ok(line) => self.lines.extend(line),
            // A key that lies elsewhere may be away for a while; the next tick asks it again.
            Err(AuditError::Signer(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the chain's head is unsigned"
                );
            }
            Err(error) => return Err(error.into()),
        }
        self.ticked = false;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), EngineError> {
        let writes = self.book.writes()?;
        if !writes.is_empty() {
            self.store.commit(&writes)?;
        }
        Ok(())
    }

    fn do_it(&mut self, occasion: Occasion, now: Moment) -> Result<(), EngineError> {
        if occasion == Occasion::Publication {
            self.publisher.repository().restore(&people_files(&self.store)?)?;
            self.book.follow_keys(self.trusted.online_keys()?, now);
        }
        let occasion = if self.book.unsigned.is_some() { Occasion::Publication } else { occasion };
        let mut due = self.publisher.due(&self.book, &self.trusted, occasion, now);
        if unsignable(&due).is_some() && self.read_keys_again() {
            due = self.publisher.due(&self.book, &self.trusted, Occasion::Publication, now);
        }
        if let Some(text) = unsignable(&due) {
            return self.cannot_sign(text, now);
        }
        self.book.signable();
        let due = due?;
        let Some(due) = due else { return Ok(()) };
        self.book.take_versions(due.versions, now);
        self.commit()?;
        self.publisher.write(due, now)?;
        if occasion != Occasion::Clock {
            self.book.fresh.clear();
        }
        Ok(())
    }

    /// The keys are read again whenever nothing can be signed, before anybody is alarmed: a new one counts
    /// as soon as people signed for it.
    fn read_keys_again(&mut self) -> bool {
        match OnlineKeys::open(&self.keys) {
            Ok(keys) => {
                self.publisher.set_keys(keys);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the keys cannot be read again");
                false
            }
        }
    }

    fn cannot_sign(&mut self, text: String, now: Moment) -> Result<(), EngineError> {
        if self.book.unsigned.as_ref() != Some(&text) {
            tracing::error!(error = %text, "the repository cannot be signed");
            self.book.verdict(now, About::Repository, Decision::Refused, vec![text.clone()])?;
            self.book.unsignable(now, text);
            self.write_down()?;
        }
        Ok(())
    }

    /// Sends what is new, in parts; what could not be sent is sent at the next turn.
    fn report(&mut self, source: &mut dyn Source, now: Moment) -> Result<Option<()>, EngineError> {
        loop {
            let verdicts = self.book.unreported(REPORT);
            let lines: Vec<String> = self.lines.iter().take(REPORT).cloned().collect();
            let counts = (verdicts.len(), lines.len());
            let acts = lines.iter().filter(|line| audit::is_act(line)).count();
            let mut status = self.status(now);
            status.fleet = self.fleet(&status, now);
            let told = status
                .fleet
                .as_ref()
                .map(|fleet| FleetTold { at: fleet.at, cohorts: status.cohorts.clone() });
            if let Err(error) = source.report(verdicts, status, lines) {
                tracing::debug!(%error, "the report did not reach the letter box");
                self.hearing.broke(now);
                return Ok(None);
            }
            self.fleet_told = told.or(self.fleet_told.take());
            self.book.reported(counts.0, acts);
            self.lines.drain(..counts.1);
            self.commit()?;
            if counts.0 < REPORT && counts.1 < REPORT {
                return Ok(Some(()));
            }
        }
    }
}

/// People's roles from the store; at the first start from the folder that the ceremony made.
fn read_people(
    store: &GatekeeperStore,
    book: &mut Book,
    repository: &Repository,
    anchor: &Path,
) -> Result<Trusted, EngineError> {
    let anchor = std::fs::read(anchor).map_err(|source| TufError::File {
        path: anchor.to_path_buf(),
        what: "reading it",
        source,
    })?;
    let mut files = people_files(store)?;
    if files.is_empty() {
        files = repository.people_files()?;
        let trusted = Trusted::read(&anchor, &files)?;
        for (path, bytes) in files {
            book.file(&path, bytes);
        }
        return Ok(trusted);
    }
    let trusted = Trusted::read(&anchor, &files)?;
    repository.restore(&files)?;
    Ok(trusted)
}

fn people_files(store: &GatekeeperStore) -> Result<Files, EngineError> {
    let rows = store.table(Table::Files)?.into_iter();
    Ok(rows.filter_map(|(path, bytes)| Some((String::from_utf8(path).ok()?, bytes))).collect())
}

/// Rises with every publication: versions only rise.
fn version_sum(trusted: &Trusted) -> u64 {
    trusted.expiries().iter().fold(0, |sum: u64, (_, version, _)| sum.saturating_add(*version))
}

#[cfg(test)]
mod beside;
#[cfg(test)]
mod desk;
#[cfg(test)]
mod fixture;
#[cfg(test)]
pub(crate) use fixture::{letter as sample_letter, manifest as sample_manifest};
#[cfg(test)]
mod grant_stories;
#[cfg(test)]
mod hearing_stories;
#[cfg(test)]
mod key_stories;
#[cfg(test)]
mod letter_stories;
#[cfg(test)]
mod restore_stories;
#[cfg(test)]
mod start_stories;
#[cfg(test)]
mod stop_stories;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod trial_stories;
