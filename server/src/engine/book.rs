//! The gatekeeper's book: everything it verified, in memory, and the rows to be written for it. What
//! changes here reaches the store in one transaction with the offset of the entries that changed it.
//! The book counts and remembers; whether an entry counts is [`super::intake`]'s to say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockgate_shared::{
    act::SignedAct,
    facts::Facts,
    group::{Habit, groups_of, words_of},
    id::{
        ChannelId, CohortId, DeviceId, Digest, GroupId, ModelId, ProductId, PublicKey, RolloutId,
        TenantId, TokenId,
    },
    limits,
    policy::Policy,
    rollout::{Scope, Stop, StopKind},
    time::{Moment, Seconds},
    wire::{CodecError, Letter, Outcomes, codec},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{grants::Grants, presence::Presence, source::Reached, trials};
use crate::{
    gatekeeper_store::{GatekeeperStore, GatekeeperStoreError, Table, Write},
    rollout::{
        Census, Head, Rollout,
        evidence::{Case, Evidence},
        gate::Judgement,
        report::{Label, Labels},
    },
    status::{About, Alarm, Decision, Verdict},
    stream::Entry,
    tuf::repository::Versions,
};

/// The longest row: a rollout with its start, its approvals and the groups of its fleet.
const ROW_BYTES: usize = 16 << 20;
/// Alarms that are kept for people; older ones make room, the audit log has them all.
const ALARMS: usize = 200;
/// Lifts that stay in the rollout files: with about 600 bytes each they leave room for the rollouts. A
/// device that was away for longer is helped by a new lift of the same number.
const LIFTS: usize = 32;
/// Places among the stops of a rollout file that people's pauses leave to the gate: more halts at a time
/// than there are rollouts in a file.
const HALTS: usize = 2 * limits::FILE_ROLLOUTS;
/// A device that was not heard of for this long is not expected any more: two weeks, a holiday.
const AWAY: Seconds = Seconds(14 * 86_400);
/// A letter that cannot be shown to be younger than this is late: it counts as evidence of failure, never
/// of health or presence, because whoever carries letters may have kept it back. An hour, as devices
/// bear with an old timestamp (design): a gatekeeper that was away itself waits for one more poll.
pub const LATE: Seconds = Seconds(3_600);
/// How far ahead of this host's clock a device's may be to be believed: two good clocks differ by
/// seconds; five minutes forgive a poor one.
pub const CLOCK_SKEW: Seconds = Seconds(300);
/// Versions of the timestamp that are remembered with the moment when a newer one came: one for each
/// few seconds of [`LATE`]. Beyond, a device's own clock decides.
const SUPERSEDED: usize = 1_024;

/// Single rows that are written when they changed.
const SMALL: [&str; 4] = ["counters", "alarms", "superseded", "unsigned"];

/// Everything the gatekeeper knows.
#[derive(Debug, Default)]
pub struct Book {
    /// The first entry that is not counted yet.
    pub offset: u64,
    /// Rollouts.
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// The last judgement of each rollout's stages.
    pub judgements: BTreeMap<RolloutId, Vec<Judgement>>,
    /// Numbered stops that no lift has ended.
    pub stops: BTreeMap<u64, Stop>,
    /// The newest lifts.
    pub lifts: VecDeque<SignedAct>,
    /// What an operator should look at.
    pub alarms: VecDeque<Alarm>,
    /// Why nothing can be signed, while that is so; its alarm ends with it, also after a restart.
    pub unsigned: Option<String>,
    /// Words of groups.
    pub labels: Labels,
    /// Files whose devices wait to be told that their first letter was counted.
    pub fresh: BTreeSet<(ProductId, ModelId)>,
    devices: BTreeMap<DeviceId, Device>,
    pub(super) grants: Grants,
    token_uses: BTreeMap<TokenId, u32>,
    counters: Counters,
    unreported: VecDeque<Verdict>,
    notes: Vec<Note>,
    pub(super) writes: Vec<Write>,
    saved: [Vec<u8>; 4],
    superseded: BTreeMap<u64, Moment>,
    enrolments: BTreeMap<TenantId, (i64, u32)>,
    label_uses: BTreeMap<GroupId, u32>,
    dirty_devices: BTreeSet<DeviceId>,
    dirty_rollouts: BTreeSet<RolloutId>,
    dirty_cases: BTreeSet<(RolloutId, DeviceId)>,
    pub(super) trial_rows: BTreeMap<trials::Key, trials::Rows>,
}

/// A verified device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its key.
    pub key: PublicKey,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its enrolment's place in the stream: it is evidence for rollouts that started after it.
    pub enrolled: u64,
    /// When.
    pub enrolled_at: Moment,
    /// What it says it is.
    pub facts: Facts,
    /// The number of its last whole letter.
    pub sequence: u64,
    /// That letter's digest.
    pub letter: Digest,
    /// When its last verified letter came that was no late one: the only sign of life that counts.
    pub last_seen: Moment,
    /// How much had been listened then: silence is measured from there.
    pub heard_at: Seconds,
    /// When an unsigned record last named it. The letter box could have written that itself, so it ends
    /// no silence; a device that it names is only expected to call, which makes gates slower.
    pub mentioned: Moment,
    /// Rollouts that it confirmed in a late letter: they count with its next letter that is none.
    pub late_good: BTreeSet<RolloutId>,
    /// Whether it was revoked or is held: no evidence of health, and expected nowhere.
    pub barred: bool,
    /// The chain of its outcomes.
    pub outcomes: Outcomes,
    /// The channel of each of its products.
    pub products: BTreeMap<ProductId, ChannelId>,
    /// In which hours it was heard lately.
    pub presence: Presence,
    /// The habit that it signed last.
    pub habit: Habit,
}

/// The highest number of a stop: one a second for a century. What stands above it was never numbered
/// here, and a lift may name it: so a thief's stop at the end of all numbers can be ended too.
const STOP_NUMBERS: u64 = 1 << 32;

/// Numbers that only rise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counters {
    offset: u64,
    stops: u64,
    lifts: u64,
    verdicts: u64,
    reported: u64,
    notes: u64,
    notes_reported: u64,
    versions: Versions,
    listened: Seconds,
    /// The online keys that counted the versions.
    online_keys: Option<Digest>,
    /// The last entry that was counted.
    last: Option<Digest>,
}

/// An act on its way into the audit chain; its number there is fixed in the same transaction, so that
/// a crash neither loses nor doubles it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its number in the chain.
    pub n: u64,
    /// When.
    pub at: Moment,
    /// Who.
    pub who: String,
    /// What, in a word.
    pub act: String,
    /// The rest.
    pub detail: String,
}

/// Why the book cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] GatekeeperStoreError),
    /// A row does not fit its form.
    #[error("a row of the gatekeeper's store cannot be read or written")]
    Row(#[from] CodecError),
}

impl Book {
    /// Reads the book from its store.
    pub fn load(store: &GatekeeperStore) -> Result<Self, BookError> {
        let mut book = Self::default();
        if let Some(row) = store.row(Table::Meta, b"counters")? {
            book.counters = decode(&row)?;
        }
        book.offset = book.counters.offset;
        if let Some(row) = store.row(Table::Meta, b"alarms")? {
            book.alarms = decode(&row)?;
        }
        if let Some(row) = store.row(Table::Meta, b"superseded")? {
            book.superseded = decode(&row)?;
        }
        if let Some(row) = store.row(Table::Meta, b"unsigned")? {
            book.unsigned = decode(&row)?;
        }
        for (key, row) in store.table(Table::Devices)? {
            let device: Device = decode(&row)?;
            book.learn_words(&device.facts);
            book.devices.insert(DeviceId(array(&key)?), device);
        }
        for (_, row) in store.table(Table::Rollouts)? {
            let rollout: Rollout = decode(&row)?;
            book.rollouts.insert(rollout.id, rollout);
        }
        let mut cases: BTreeMap<RolloutId, Vec<(DeviceId, Case)>> = BTreeMap::new();
        for (key, row) in store.table(Table::Cases)? {
            let (rollout, device) = key.split_at_checked(32).unwrap_or_default();
            let device = DeviceId(array(device)?);
            cases.entry(RolloutId(array(rollout)?)).or_default().push((device, decode(&row)?));
        }
        for (id, cases) in cases {
            if let Some(rollout) = book.rollouts.get_mut(&id) {
                rollout.evidence = Evidence::of_cases(cases);
            }
        }
        book.read_trials(store)?;
        book.grants = Grants::load(store)?;
        for (_, row) in store.table(Table::Stops)? {
            let stop: Stop = decode(&row)?;
            book.stops.insert(stop.number, stop);
        }
        for (_, row) in store.table(Table::Lifts)? {
            book.lifts.push_back(decode(&row)?);
        }
        for (key, row) in store.table(Table::TokenUses)? {
            book.token_uses.insert(TokenId(array(&key)?), decode(&row)?);
        }
        let next = book.counters.reported + 1;
        for (_, row) in store.rows(Table::Verdicts, &next.to_be_bytes(), usize::MAX)? {
            book.unreported.push_back(decode(&row)?);
        }
        for (_, row) in store.table(Table::Audit)? {
            book.notes.push(decode(&row)?);
        }
        Ok(book)
    }

    /// Every change since the last time, as rows; none when nothing changed.
    pub fn writes(&mut self) -> Result<Vec<Write>, BookError> {
        self.counters.offset = self.offset;
        let mut writes = std::mem::take(&mut self.writes);
        for id in std::mem::take(&mut self.dirty_devices) {
            if let Some(device) = self.devices.get(&id) {
                writes.push(Write::put(Table::Devices, id.0, encode(device)?));
            }
        }
        for id in std::mem::take(&mut self.dirty_rollouts) {
            if let Some(rollout) = self.rollouts.get(&id) {
                writes.push(Write::put(Table::Rollouts, id.0, encode(rollout)?));
            }
        }
        for (id, device) in std::mem::take(&mut self.dirty_cases) {
            let case = self.rollouts.get(&id).and_then(|rollout| rollout.evidence.case(&device));
            if let Some(case) = case {
                let key = [id.0, device.0].concat();
                writes.push(Write::put(Table::Cases, key, encode(case)?));
            }
        }
        self.trial_writes(&mut writes)?;
        let small = [
            encode(&self.counters)?,
            encode(&self.alarms)?,
            encode(&self.superseded)?,
            encode(&self.unsigned)?,
        ];
        for ((name, row), saved) in SMALL.iter().zip(&small).zip(&self.saved) {
            if row != saved {
                writes.push(Write::put(Table::Meta, *name, row.clone()));
            }
        }
        self.saved = small;
        Ok(writes)
    }

    /// A device.
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.get(id)
    }

    /// How many devices enrolled.
    pub(super) fn devices_count(&self) -> usize {
        self.devices.len()
    }

    /// Writes a device down.
    pub fn put_device(&mut self, id: DeviceId, device: Device) {
        let before = self.devices.get(&id).map(|known| known.facts.clone());
        if before.as_ref() != Some(&device.facts) {
            self.learn_words(&device.facts);
            if let Some(facts) = before {
                self.forget_words(&facts);
            }
        }
        self.devices.insert(id, device);
        self.dirty_devices.insert(id);
    }

    /// Counts a new device of a tenant; says how many came within this hour. In memory only: a restart
    /// begins the hour anew.
    pub fn enrolled(&mut self, tenant: &TenantId, now: Moment) -> u32 {
        let hour = now.0.div_euclid(3_600);
        let count = self.enrolments.entry(tenant.clone()).or_insert((hour, 0));
        if count.0 != hour {
            *count = (hour, 0);
        }
        count.1 = count.1.saturating_add(1);
        count.1
    }

    /// Notes when a record named a device: in memory, and once a day on disk, because a row update per
    /// letter would cost more than everything else here.
    pub fn mention(&mut self, id: &DeviceId, at: Moment) {
        let day = |moment: Moment| moment.0.div_euclid(86_400);
        if let Some(device) = self.devices.get_mut(id)
            && device.mentioned < at
        {
            if day(device.mentioned) < day(at) {
                self.dirty_devices.insert(*id);
            }
            device.mentioned = at;
        }
    }

    /// The time listened in all, as of the last tick.
    pub const fn listened(&self) -> Seconds {
        self.counters.listened
    }

    /// Notes the time listened, so that a restart goes on from there.
    pub const fn note_listened(&mut self, listened: Seconds) {
        self.counters.listened = listened;
    }

    /// Whether a letter is late: neither its own clock nor the newest timestamp that it verified shows
    /// that it was written within the last [`LATE`]. Either is enough, because a device's clock may be
    /// wrong, and timestamps may be kept from it; neither can be forged by whoever carries the letter.
    pub fn is_late(&self, letter: &Letter, now: Moment) -> bool {
        let oldest = now.minus(LATE);
        let by_clock = oldest <= letter.sent && letter.sent <= now.plus(CLOCK_SKEW);
        let newest = letter.timestamp_version == self.counters.versions.timestamp;
        let superseded = self.superseded.get(&letter.timestamp_version);
        !(by_clock || newest || superseded.is_some_and(|at| oldest <= *at))
    }

    /// Every verified device.
    pub(super) fn devices(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.devices.iter()
    }

    /// The models of all devices.
    pub fn models(&self) -> BTreeSet<ModelId> {
        self.devices.values().map(|device| device.facts.model_id()).collect()
    }

    /// The groups that any device has which enrolled before `offset`, whatever its habit.
    pub fn groups_before(&self, offset: u64) -> BTreeSet<GroupId> {
        let habits = [Habit::AlwaysOn, Habit::Office, Habit::Home, Habit::Duty, Habit::Unknown];
        let before = self.devices.values().filter(|device| device.enrolled < offset);
        // A fleet has far fewer kinds of devices than devices.
        let kinds: BTreeMap<[&str; 8], &Facts> =
            before.map(|device| (words_of(&device.facts), &device.facts)).collect();
        kinds
            .into_values()
            .flat_map(|facts| habits.iter().flat_map(|habit| groups_of(facts, *habit)))
            .map(|group| group.id)
            .collect()
    }

    /// How often a token was used.
    pub fn token_uses(&self, token: &TokenId) -> u32 {
        self.token_uses.get(token).copied().unwrap_or(0)
    }

    /// Counts one use of a token.
    pub fn use_token(&mut self, token: TokenId) -> Result<(), BookError> {
        let uses = self.token_uses.entry(token).or_default();
        *uses = uses.saturating_add(1);
        let row = encode(uses)?;
        self.writes.push(Write::put(Table::TokenUses, token.0, row));
        Ok(())
    }

    /// Begins or changes a rollout.
    pub fn put_rollout(&mut self, rollout: Rollout) {
        self.dirty_rollouts.insert(rollout.id);
        self.rollouts.insert(rollout.id, rollout);
    }

    /// A rollout to be changed.
    pub fn rollout_mut(&mut self, id: &RolloutId) -> Option<&mut Rollout> {
        let rollout = self.rollouts.get_mut(id)?;
        self.dirty_rollouts.insert(*id);
        Some(rollout)
    }

    /// A rollout's evidence to be changed for one device.
    pub fn evidence_mut(&mut self, id: &RolloutId, device: &DeviceId) -> Option<&mut Evidence> {
        let rollout = self.rollouts.get_mut(id)?;
        self.dirty_cases.insert((*id, *device));
        Some(&mut rollout.evidence)
    }

    /// Notes that cases of a rollout changed.
    pub fn cases_changed(&mut self, id: RolloutId, devices: impl IntoIterator<Item = DeviceId>) {
        self.dirty_cases.extend(devices.into_iter().map(|device| (id, device)));
    }

    /// Numbers a stop. `None` when as many stand as a rollout file can carry.
    pub fn stop(
        &mut self,
        kind: StopKind,
        scope: Scope,
        reason: &str,
        since: Moment,
    ) -> Result<Option<u64>, BookError> {
        let most = match kind {
            StopKind::Hold | StopKind::Halt => limits::FILE_STOPS,
            StopKind::Pause => limits::FILE_STOPS - HALTS,
        };
        if self.stops.len() >= most {
            return Ok(None);
        }
        self.counters.stops += 1;
        let number = self.counters.stops;
        let stop = Stop { number, kind, scope, since, reason: reason.chars().take(500).collect() };
        self.writes.push(Write::put(Table::Stops, number.to_be_bytes(), encode(&stop)?));
        self.stops.insert(number, stop);
        Ok(Some(number))
    }

    /// Makes the numbers of stops follow those that devices may have seen.
    pub const fn follow_stops(&mut self, number: u64) {
        if self.counters.stops < number && number <= STOP_NUMBERS {
            self.counters.stops = number;
        }
    }

    /// Whether a stop with this number may stand on a device: one that was given, or one that never
    /// will be, which only a thief of the online keys gave.
    pub const fn knows_stop(&self, number: u64) -> bool {
        number > 0 && (number <= self.counters.stops || number > STOP_NUMBERS)
    }

    /// Ends stops and keeps the act for the devices that saw them.
    pub fn lift(&mut self, act: &SignedAct, numbers: &BTreeSet<u64>) -> Result<(), BookError> {
        for number in numbers {
            if self.stops.remove(number).is_some() {
                self.writes.push(Write::remove(Table::Stops, number.to_be_bytes()));
            }
        }
        self.counters.lifts += 1;
        let row = encode(act)?;
        self.writes.push(Write::put(Table::Lifts, self.counters.lifts.to_be_bytes(), row));
        self.lifts.push_back(act.clone());
        while self.lifts.len() > LIFTS {
            self.lifts.pop_front();
            let oldest = self.counters.lifts - self.lifts.len() as u64;
            self.writes.push(Write::remove(Table::Lifts, oldest.to_be_bytes()));
        }
        Ok(())
    }

    /// Numbers a verdict.
    pub fn verdict(
        &mut self,
        at: Moment,
        about: About,
        decision: Decision,
        reasons: Vec<String>,
    ) -> Result<(), BookError> {
        self.counters.verdicts += 1;
        let verdict = Verdict { number: self.counters.verdicts, at, about, decision, reasons };
        let key = verdict.number.to_be_bytes();
        self.writes.push(Write::put(Table::Verdicts, key, encode(&verdict)?));
        self.unreported.push_back(verdict);
        Ok(())
    }

    /// Notes an act for the audit chain.
    pub fn note(
        &mut self,
        at: Moment,
        who: &str,
        act: &str,
        detail: &str,
    ) -> Result<(), BookError> {
        self.counters.notes += 1;
        let note = Note {
            n: self.counters.notes,
            at,
            who: who.into(),
            act: act.into(),
            detail: detail.into(),
        };
        self.writes.push(Write::put(Table::Audit, note.n.to_be_bytes(), encode(&note)?));
        self.notes.push(note);
        Ok(())
    }

    /// Ends the alarm about what cannot be signed: it can be.
    pub fn signable(&mut self) {
        if let Some(text) = self.unsigned.take() {
            self.alarms.retain(|alarm| alarm.device.is_some() || alarm.text != text);
        }
    }

    /// Alarms people because nothing can be signed, instead of an alarm for another reason.
    pub fn unsignable(&mut self, at: Moment, text: String) {
        self.signable();
        self.alarm(at, None, text.clone());
        self.unsigned = Some(text);
    }

    /// Ends what is alarming about a device: it is out of the fleet.
    pub fn end_alarms(&mut self, device: &DeviceId) {
        self.alarms.retain(|alarm| alarm.device.as_ref() != Some(device));
    }

    /// Something an operator should look at.
    pub fn alarm(&mut self, at: Moment, device: Option<DeviceId>, text: String) {
        // Who says the same thing in every letter is one line, with the newest moment.
        self.alarms.retain(|alarm| alarm.device != device || alarm.text != text);
        self.alarms.push_back(Alarm { at, device, text });
        while self.alarms.len() > ALARMS {
            self.alarms.pop_front();
        }
    }

    /// Keeps a published file.
    pub fn file(&mut self, path: &str, bytes: Vec<u8>) {
        self.writes.push(Write::put(Table::Files, path, bytes));
    }

    /// A published file that is not yet in the store.
    pub fn new_file(&self, path: &str) -> Option<Vec<u8>> {
        let found = self.writes.iter().rev();
        found
            .filter(|write| write.table == Table::Files && write.key == path.as_bytes())
            .find_map(|write| write.value.clone())
    }

    /// Acts that were committed and are not known to be in the audit chain.
    pub fn take_notes(&mut self) -> Vec<Note> {
        for note in &self.notes {
            self.writes.push(Write::remove(Table::Audit, note.n.to_be_bytes()));
        }
        std::mem::take(&mut self.notes)
    }

    /// Makes the numbers of notes follow a chain of this length.
    pub const fn follow_chain(&mut self, count: u64) {
        if self.counters.notes < count {
            self.counters.notes = count;
        }
    }

    /// The next verdicts to report.
    pub fn unreported(&self, max: usize) -> Vec<Verdict> {
        self.unreported.iter().take(max).cloned().collect()
    }

    /// The first audit line to report.
    pub const fn next_line(&self) -> u64 {
        self.counters.notes_reported + 1
    }

    /// Verdicts and lines have reached the letter box.
    pub fn reported(&mut self, verdicts: usize, lines: usize) {
        for verdict in self.unreported.drain(..verdicts.min(self.unreported.len())) {
            self.counters.reported = verdict.number;
        }
        self.counters.notes_reported += lines as u64;
    }

    /// Counts an entry.
    pub fn count(&mut self, entry: &Entry) {
        self.offset = entry.offset + 1;
        self.counters.last = Some(entry.digest());
    }

    /// How far entries were counted.
    pub const fn reached(&self) -> Reached {
        Reached { from: self.offset, last: self.counters.last }
    }

    /// Every verdict and line is to be reported again: the letter box has lost some.
    pub fn report_anew(&mut self, store: &GatekeeperStore) -> Result<(), BookError> {
        let written = store.table(Table::Verdicts)?.into_iter();
        let mut all: BTreeMap<u64, Verdict> =
            std::mem::take(&mut self.unreported).into_iter().map(|one| (one.number, one)).collect();
        for (_, row) in written {
            let verdict: Verdict = decode(&row)?;
            all.insert(verdict.number, verdict);
        }
        self.unreported = all.into_values().collect();
        (self.counters.reported, self.counters.notes_reported) = (0, 0);
        Ok(())
    }

    /// The versions of the online roles.
    pub const fn versions(&self) -> Versions {
        self.counters.versions
    }

    /// Makes the count of versions follow the keys that sign them.
    pub fn follow_keys(&mut self, keys: Digest, now: Moment) {
        if self.counters.online_keys != Some(keys) {
            self.counters.versions = self.counters.versions.under_new_keys(now);
            self.counters.online_keys = Some(keys);
            // Numbers of other keys say nothing on when a letter was written.
            self.superseded.clear();
        }
    }

    /// Notes which versions are taken, and when.
    pub fn take_versions(&mut self, versions: Versions, now: Moment) {
        let before = self.counters.versions.timestamp;
        if before < versions.timestamp {
            self.superseded.insert(before, now);
            let oldest = now.minus(LATE);
            self.superseded.retain(|_, at| oldest <= *at);
            while self.superseded.len() > SUPERSEDED {
                self.superseded.pop_first();
            }
        }
        self.counters.versions = versions;
    }

    /// The devices of a rollout's cohorts that enrolled before its start and were heard of lately.
    pub fn census(&self, rollout: &Rollout, policy: &Policy, now: Moment) -> Census {
        let mut census = Census::new();
        for (id, device) in &self.devices {
            if let Some(cohort) = self.cohort_in(rollout, policy, id, device, now) {
                let head: &mut Head = census.entry(cohort).or_default();
                head.devices += 1;
                head.unheard += u32::from(rollout.evidence.case(id).is_none());
            }
        }
        census
    }

    /// The devices of one of a rollout's cohorts that enrolled before its start and were heard of lately,
    /// by rising id.
    pub(super) fn expected_in<'a>(
        &'a self,
        rollout: &'a Rollout,
        cohort: &'a CohortId,
        policy: &'a Policy,
        now: Moment,
    ) -> impl Iterator<Item = (&'a DeviceId, &'a Device)> {
        self.devices.iter().filter(move |(id, device)| {
            self.cohort_in(rollout, policy, id, device, now).as_ref() == Some(cohort)
        })
    }

    /// The cohort of a device in a rollout, if it enrolled before the start and was heard of lately.
    fn cohort_in(
        &self,
        rollout: &Rollout,
        policy: &Policy,
        id: &DeviceId,
        device: &Device,
        now: Moment,
    ) -> Option<CohortId> {
        let case = rollout.evidence.case(id);
        if device.barred && case.is_none()
            || device.enrolled >= rollout.offset
            || device.last_seen.max(device.mentioned).plus(AWAY) < now
        {
            return None;
        }
        let (product, channel) = (&rollout.start.product, &rollout.start.channel);
        match case {
            Some(case) => Some(case.cohort.clone()),
            None if device.products.get(product) == Some(channel) => {
                self.expected_cohort(policy, id, (product, channel), now)
            }
            None => None,
        }
    }

    /// How many devices each cohort of each product and channel has at `now`.
    pub fn cohorts(
        &self,
        policy: &Policy,
        now: Moment,
    ) -> BTreeMap<(ProductId, ChannelId, CohortId), u32> {
        let mut cohorts = BTreeMap::new();
        for (name, product) in &policy.products {
            for channel in &product.channels {
                for cohort in &product.cohorts {
                    cohorts.insert((name.clone(), channel.clone(), cohort.clone()), 0);
                }
            }
        }
        for (id, device) in &self.devices {
            for (product, channel) in &device.products {
                let place = (product, channel);
                let Some(cohort) = self.expected_cohort(policy, id, place, now) else { continue };
                *cohorts.entry((product.clone(), channel.clone(), cohort)).or_default() += 1;
            }
        }
        cohorts
    }

    fn learn_words(&mut self, facts: &Facts) {
        for group in groups_of(facts, Habit::Unknown) {
            *self.label_uses.entry(group.id).or_default() += 1;
            self.labels.entry(group.id).or_insert(Label { kind: group.kind, words: group.label });
        }
    }

    /// Words that no device has any more go, so that a device that changes its facts with every letter
    /// fills nothing; those of a rollout's groups stay for its report.
    fn forget_words(&mut self, facts: &Facts) {
        for group in groups_of(facts, Habit::Unknown) {
            let Some(uses) = self.label_uses.get_mut(&group.id) else { continue };
            *uses = uses.saturating_sub(1);
            let used = *uses > 0
                || self.rollouts.values().any(|rollout| rollout.old_groups.contains(&group.id));
            if !used {
                self.label_uses.remove(&group.id);
                self.labels.remove(&group.id);
            }
        }
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    codec::encode(value, ROW_BYTES)
}

pub(super) fn decode<T: DeserializeOwned>(row: &[u8]) -> Result<T, CodecError> {
    codec::decode_frame(row, ROW_BYTES)
}

fn array<const N: usize>(key: &[u8]) -> Result<[u8; N], CodecError> {
    key.try_into().map_err(|_| CodecError::Field("a key has the wrong length"))
}
