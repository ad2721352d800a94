//! The journal's writer: one thread owns the store. What comes within one tick goes to disk with one
//! sync, and only then is anybody answered. It decides nothing about letters.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use lockgate_shared::time::Moment;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use super::{
    devices::Devices,
    record::{Arrival, Update},
};
use crate::{
    clock::Stopwatch,
    store::{Change, DeviceRow, NewEntry, Store, StoreError, Table},
    stream::Entry,
};

/// Requests that wait for the writer. At a thousand syncs a second and the batch below, a full queue
/// is some seconds of work; whoever comes then is asked to come again.
const QUEUE: usize = 8_192;
/// Writes in one sync: letters of 2 KiB make 4 MiB, which a disk takes in some ten milliseconds.
const BATCH: usize = 2_048;
/// Bytes in one sync: bounds the memory of a batch of publications.
const BATCH_BYTES: usize = 32 << 20;

/// Why the journal did not take something. Nothing of it was acknowledged.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum JournalError {
    /// Too many wait already.
    #[error("too many requests wait for the journal\nhint: come again in a few seconds")]
    Busy,
    /// The disk is full.
    #[error("the disk that holds the journal is full\nhint: free space on the server")]
    Full,
    /// The store failed; the log says why.
    #[error("the journal cannot be written\nhint: see the server's log")]
    Failed,
    /// The server is stopping.
    #[error("the server is stopping\nhint: come again in a minute")]
    Stopped,
}

/// Waits until a write is on disk.
#[derive(Clone, Debug)]
pub(super) struct Written(watch::Receiver<Option<Result<u64, JournalError>>>);

/// The handle of the writer.
#[derive(Debug)]
pub(super) struct Journal {
    sender: SyncSender<Job>,
    head: watch::Receiver<u64>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// Small tables' changes and an entry. The changes go to disk first: an entry is never there without
/// them.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) changes: Vec<Change>,
    pub(super) entry: Option<NewEntry>,
    pub(super) then: Then,
}

/// What follows a write that is on disk, and who waits for it.
#[derive(Debug)]
pub(super) enum Then {
    /// The device's row takes the letter in.
    Letter(Update, watch::Sender<Option<Result<u64, JournalError>>>),
    /// The device gets its row.
    Enrol(Arrival, watch::Sender<Option<Result<u64, JournalError>>>),
    /// Nothing else.
    Tell(oneshot::Sender<Result<u64, JournalError>>),
}

type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

#[derive(Debug)]
enum Job {
    Write(Box<Write>),
    Read { from: u64, max: usize, max_bytes: usize, reply: Reply<Vec<Entry>> },
    Table { table: Table, reply: Reply<BTreeMap<String, Vec<u8>>> },
    Sweep { rows: Vec<DeviceRow>, low_water: u64, reply: Reply<()> },
    Prune { below: u64, before: Moment, reply: Reply<u64> },
    MoveOn { from: u64, to: u64, reply: Reply<u64> },
    Stop,
}

struct Writer {
    store: Box<dyn Store>,
    devices: Arc<Devices>,
    tick: Duration,
    head: watch::Sender<u64>,
}

impl Journal {
    /// Starts the writer.
    pub(super) fn start(
        store: Box<dyn Store>,
        devices: Arc<Devices>,
        tick: Duration,
    ) -> Result<Self, StoreError> {
        let (head_sender, head) = watch::channel(store.head()?);
        let (sender, receiver) = sync_channel(QUEUE);
        let writer = Writer { store, devices, tick, head: head_sender };
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| StoreError::Backend {
                what: "start of the writer's thread",
                source: Box::new(error),
            })?;
        Ok(Self { sender, head, thread: std::sync::Mutex::new(Some(thread)) })
    }

    /// One beyond the newest offset on disk; every device row contains what lies below.
    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// Queues a write without waiting.
    pub(super) fn write(&self, write: Write) -> Result<(), JournalError> {
        self.send(Job::Write(Box::new(write)))
    }

    pub(super) async fn tell(
        &self,
        changes: Vec<Change>,
        entry: Option<NewEntry>,
    ) -> Result<u64, JournalError> {
        let (sender, receiver) = oneshot::channel();
        self.write(Write { changes, entry, then: Then::Tell(sender) })?;
        receiver.await.unwrap_or(Err(JournalError::Stopped))
    }

    pub(super) async fn read(
        &self,
        from: u64,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, JournalError> {
        let (reply, receiver) = oneshot::channel();
        self.send(Job::Read { from, max, max_bytes, reply })?;
        receiver.await.unwrap_or(Err(JournalError::Stopped))
    }

    pub(super) async fn table(
        &self,
        table: Table,
    ) -> Result<BTreeMap<String, Vec<u8>>, JournalError> {
        let (reply, receiver) = oneshot::channel();
        self.send(Job::Table { table, reply })?;
        receiver.await.unwrap_or(Err(JournalError::Stopped))
    }

    pub(super) async fn sweep(
        &self,
        rows: Vec<DeviceRow>,
        low_water: u64,
    ) -> Result<(), JournalError> {
        let (reply, receiver) = oneshot::channel();
        self.send(Job::Sweep { rows, low_water, reply })?;
        receiver.await.unwrap_or(Err(JournalError::Stopped))
    }

    /// Takes old letters away; says how many.
    pub(super) async fn prune(&self, below: u64, before: Moment) -> Result<u64, JournalError> {
        let (reply, receiver) = oneshot::channel();
        self.send(Job::Prune { below, before, reply })?;
        receiver.await.unwrap_or(Err(JournalError::Stopped))
    }

    /// Goes on numbering at `to`, and takes the entries from `from` on along; says what the head is then.
    pub(super) async fn move_on(&self, from: u64, to: u64) -> Result<u64, JournalError> {
        let (reply, receiver) = oneshot::channel();
        self.send(Job::MoveOn { from, to, reply })?;
        receiver.await.unwrap_or(Err(JournalError::Stopped))
    }

    /// Ends the writer after what is queued, and gives the store back to the system.
    pub(super) fn stop(&self) {
        // A writer that is gone already needs no word.
        let _ = self.sender.send(Job::Stop);
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's writer ended by a panic");
        }
    }

    fn send(&self, job: Job) -> Result<(), JournalError> {
        self.sender.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => JournalError::Busy,
            TrySendError::Disconnected(_) => JournalError::Stopped,
        })
    }
}

impl Written {
    pub(super) const fn new(receiver: watch::Receiver<Option<Result<u64, JournalError>>>) -> Self {
        Self(receiver)
    }

    /// The offset, once the write is on disk.
    pub(super) async fn wait(mut self) -> Result<u64, JournalError> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => (*outcome).unwrap_or(Err(JournalError::Stopped)),
            Err(_) => Err(JournalError::Stopped),
        }
    }

    /// Whether it is decided.
    pub(super) fn decided(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }
}

/// Whether the writer goes on.
enum Next {
    On,
    Stop,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let mut batch = Vec::new();
            let mut next = self.take(job, &mut batch);
            if !batch.is_empty() && matches!(next, Next::On) {
                next = self.gather(jobs, &mut batch);
            }
            self.commit(batch);
            if matches!(next, Next::Stop) {
                return;
            }
        }
    }

    /// Gathers what comes within one tick.
    fn gather(&mut self, jobs: &Receiver<Job>, batch: &mut Vec<Write>) -> Next {
        let begun = Stopwatch::start();
        let mut bytes: usize = batch.iter().map(Write::len).sum();
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let left = self.tick.saturating_sub(begun.elapsed());
            let before = batch.len();
            match jobs.recv_timeout(left) {
                Ok(job) => {
                    if let Next::Stop = self.take(job, batch) {
                        return Next::Stop;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Next::On,
                Err(RecvTimeoutError::Disconnected) => return Next::Stop,
            }
            bytes += batch.iter().skip(before).map(Write::len).sum::<usize>();
        }
        Next::On
    }

    /// Serves a request, or puts it into the batch. Who asked may have gone: that harms nobody.
    fn take(&mut self, job: Job, batch: &mut Vec<Write>) -> Next {
        match job {
            Job::Write(write) => batch.push(*write),
            Job::Read { from, max, max_bytes, reply } => {
                let _ = reply.send(self.store.read(from, max, max_bytes).map_err(told));
            }
            Job::Table { table, reply } => {
                let _ = reply.send(self.store.table(table).map_err(told));
            }
            Job::Sweep { rows, low_water, reply } => {
                let _ = reply.send(self.store.sweep(&rows, low_water).map_err(told));
            }
            Job::Prune { below, before, reply } => {
                let _ = reply.send(self.store.prune(below, before).map_err(told));
            }
            Job::MoveOn { from, to, reply } => {
                // What waits in the batch is numbered after it.
                let moved = self.store.move_on(from, to).map_err(told);
                if let Ok(head) = moved {
                    self.head.send_replace(head);
                }
                let _ = reply.send(moved);
            }
            Job::Stop => return Next::Stop,
        }
        Next::On
    }

    fn commit(&mut self, mut batch: Vec<Write>) {
        let changes: Vec<Change> =
            batch.iter_mut().flat_map(|write| std::mem::take(&mut write.changes)).collect();
        if !changes.is_empty()
            && let Err(error) = self.store.put(&changes).map_err(told)
        {
            // Some of the batch brought no change, but nobody is acknowledged who is not on disk:
            // they come again.
            for write in batch {
                self.fail(write.then, error);
            }
            return;
        }
        let mut entries = Vec::new();
        let mut with_entry = Vec::new();
        let mut without = Vec::new();
        for write in batch {
            match write.entry {
                Some(entry) => {
                    entries.push(entry);
                    with_entry.push(write.then);
                }
                None => without.push(write.then),
            }
        }
        if !entries.is_empty() {
            match self.store.append(&entries).map_err(told) {
                Ok(first) => self.acknowledge(first, with_entry),
                Err(error) => {
                    for then in with_entry {
                        self.fail(then, error);
                    }
                }
            }
        }
        let head = *self.head.borrow();
        for then in without {
            self.finish(then, head);
        }
    }

    /// First the table, then the head, then the answers: so every row contains what lies below the
    /// head.
    fn acknowledge(&self, first: u64, batch: Vec<Then>) {
        let mut offset = first;
        let mut answers = Vec::with_capacity(batch.len());
        for then in batch {
            answers.push((self.apply(then, offset), offset));
            offset += 1;
        }
        self.head.send_replace(offset);
        for (answer, offset) in answers {
            answer.give(Ok(offset));
        }
    }

    fn finish(&self, then: Then, offset: u64) {
        self.apply(then, offset).give(Ok(offset));
    }

    fn apply(&self, then: Then, offset: u64) -> Answer {
        match then {
            Then::Letter(update, answer) => {
                self.devices.letter(update, offset);
                Answer::Watch(answer)
            }
            Then::Enrol(arrival, answer) => {
                self.devices.enrol(&arrival, offset);
                Answer::Watch(answer)
            }
            Then::Tell(answer) => Answer::Once(answer),
        }
    }

    fn fail(&self, then: Then, error: JournalError) {
        match then {
            Then::Letter(update, answer) => {
                self.devices.forget(&update.device, update.sequence);
                Answer::Watch(answer).give(Err(error));
            }
            Then::Enrol(_, answer) => Answer::Watch(answer).give(Err(error)),
            Then::Tell(answer) => Answer::Once(answer).give(Err(error)),
        }
    }
}

enum Answer {
    Watch(watch::Sender<Option<Result<u64, JournalError>>>),
    Once(oneshot::Sender<Result<u64, JournalError>>),
}

impl Answer {
    fn give(self, outcome: Result<u64, JournalError>) {
        match self {
            Self::Watch(sender) => {
                sender.send_replace(Some(outcome));
            }
            Self::Once(sender) => {
                // Who asked may have gone.
                let _ = sender.send(outcome);
            }
        }
    }
}

impl Write {
    fn len(&self) -> usize {
        let changes: usize =
            self.changes.iter().map(|change| change.value.as_ref().map_or(0, Vec::len)).sum();
        changes + self.entry.as_ref().map_or(0, |entry| entry.bytes.len())
    }
}

/// Logs what the store said, and says as much of it as concerns a caller.
fn told(error: StoreError) -> JournalError {
    let full = matches!(error, StoreError::Full);
    tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
    if full { JournalError::Full } else { JournalError::Failed }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use lockgate_shared::{
        id::{DeviceId, Digest, PublicKey, TokenId},
        time::Moment,
        wire::Format,
    };

    use super::*;
    use crate::{
        letters::devices::{Number, Reserved},
        store::memory::MemoryStore,
        stream::EntryKind,
    };

    const DEVICE: DeviceId = DeviceId([7; 32]);

    #[tokio::test]
    async fn a_letter_that_did_not_reach_the_disk_is_not_acknowledged_and_may_come_again() {
        let bench = Bench::new(Duration::ZERO);
        bench.full.store(true, Ordering::SeqCst);
        let refused = written(bench.send(1, 1)).wait().await;
        assert_eq!(refused, Err(JournalError::Full));
        assert_eq!(bench.devices.get(&DEVICE).map(|record| record.sequence), Some(0));
        bench.full.store(false, Ordering::SeqCst);
        assert_eq!(written(bench.send(1, 1)).wait().await, Ok(0));
        assert_eq!(bench.devices.get(&DEVICE).map(|record| record.sequence), Some(1));
    }

    #[tokio::test]
    async fn what_comes_within_one_tick_shares_one_sync() {
        let bench = Bench::new(Duration::from_millis(200));
        let mut waiting = Vec::new();
        for _ in 0..50 {
            waiting.push(bench.journal.tell(Vec::new(), Some(entry())));
        }
        let told = futures(waiting).await;
        assert!(told.iter().all(Result::is_ok));
        let batches = bench.batches.lock().expect("a list").clone();
        assert_eq!(batches.iter().sum::<usize>(), 50);
        assert!(batches.len() <= 3, "{batches:?}");
    }

    #[tokio::test]
    async fn a_full_queue_is_said_at_once_and_nothing_is_lost_of_what_was_taken() {
        let bench = Bench::new(Duration::ZERO);
        let hold = bench.gate.lock().expect("a gate");
        let mut taken = Vec::new();
        let busy = loop {
            let (sender, receiver) = oneshot::channel();
            let then = Then::Tell(sender);
            match bench.journal.write(Write { changes: Vec::new(), entry: Some(entry()), then }) {
                Ok(()) => taken.push(receiver),
                Err(error) => break error,
            }
        };
        assert_eq!(busy, JournalError::Busy);
        assert!(taken.len() >= QUEUE);
        drop(hold);
        for (expected, receiver) in (0..).zip(taken) {
            assert_eq!(receiver.await.expect("an answer"), Ok(expected));
        }
    }

    #[tokio::test]
    async fn a_newer_letter_waits_for_the_one_before_it() {
        let bench = Bench::new(Duration::from_millis(50));
        let first = written(bench.send(1, 1));
        assert!(matches!(bench.send(2, 2), Reserved::Behind(_)));
        assert!(matches!(bench.send(1, 9), Reserved::Replayed { last: 1 }));
        assert_eq!(first.wait().await, Ok(0));
        assert_eq!(written(bench.send(2, 2)).wait().await, Ok(1));
        assert!(matches!(bench.send(2, 2), Reserved::Known(1)));
    }

    struct Bench {
        journal: Journal,
        devices: Arc<Devices>,
        full: Arc<AtomicBool>,
        gate: Arc<Mutex<()>>,
        batches: Arc<Mutex<Vec<usize>>>,
    }

    impl Bench {
        fn new(tick: Duration) -> Self {
            let devices = Arc::new(Devices::default());
            devices.enrol(
                &Arrival {
                    device: DEVICE,
                    tenant: "acme".parse().expect("a name"),
                    key: PublicKey([1; 32]),
                    token: TokenId([1; 16]),
                    received: Moment(1),
                    facts_digest: Digest([0; 32]),
                    facts: Box::default(),
                },
                0,
            );
            let store = Moody::default();
            let (full, gate) = (Arc::clone(&store.full), Arc::clone(&store.gate));
            let batches = Arc::clone(&store.batches);
            let journal = Journal::start(Box::new(store), Arc::clone(&devices), tick);
            Self { journal: journal.expect("a writer"), devices, full, gate, batches }
        }

        fn send(&self, sequence: u64, digest: u8) -> Reserved {
            let digest = Digest([digest; 32]);
            let received = Moment(2);
            self.devices.reserve(
                Number { device: DEVICE, sequence, digest, previous: Digest([0; 32]) },
                |answer| {
                    let update = Update { device: DEVICE, sequence, digest, received, said: None };
                    let then = Then::Letter(update, answer);
                    self.journal.write(Write { changes: Vec::new(), entry: Some(entry()), then })
                },
            )
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            self.journal.stop();
        }
    }

    /// A store whose disk is full when told so, and that waits while its gate is held.
    #[derive(Default)]
    struct Moody {
        inner: MemoryStore,
        full: Arc<AtomicBool>,
        gate: Arc<Mutex<()>>,
        batches: Arc<Mutex<Vec<usize>>>,
    }

    impl Store for Moody {
        fn append(&mut self, entries: &[NewEntry]) -> Result<u64, StoreError> {
            drop(self.gate.lock().expect("a gate"));
            if self.full.load(Ordering::SeqCst) {
                return Err(StoreError::Full);
            }
            self.batches.lock().expect("a list").push(entries.len());
            self.inner.append(entries)
        }

        fn move_on(&mut self, from: u64, to: u64) -> Result<u64, StoreError> {
            self.inner.move_on(from, to)
        }

        fn head(&self) -> Result<u64, StoreError> {
            self.inner.head()
        }

        fn read(&self, from: u64, max: usize, bytes: usize) -> Result<Vec<Entry>, StoreError> {
            self.inner.read(from, max, bytes)
        }

        fn sweep(&mut self, rows: &[DeviceRow], low_water: u64) -> Result<(), StoreError> {
            self.inner.sweep(rows, low_water)
        }

        fn load(&self, each: &mut dyn FnMut(DeviceRow)) -> Result<u64, StoreError> {
            self.inner.load(each)
        }

        fn put(&mut self, changes: &[Change]) -> Result<(), StoreError> {
            self.inner.put(changes)
        }

        fn prune(&mut self, below: u64, before: Moment) -> Result<u64, StoreError> {
            self.inner.prune(below, before)
        }

        fn table(&self, table: Table) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
            self.inner.table(table)
        }
    }

    fn written(reserved: Reserved) -> Written {
        match reserved {
            Reserved::Queued(written) => written,
            Reserved::Known(_)
            | Reserved::Behind(_)
            | Reserved::Replayed { .. }
            | Reserved::Forked
            | Reserved::Refused(_)
            | Reserved::Unknown => panic!("not queued but {reserved:?}"),
        }
    }

    fn entry() -> NewEntry {
        let kind = EntryKind::Letter(Format::Binary);
        NewEntry { received: Moment(1), kind, bytes: vec![1; 100] }
    }

    /// Polls all of them together.
    async fn futures<F: Future>(all: Vec<F>) -> Vec<F::Output> {
        let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
        let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
        std::future::poll_fn(move |context| {
            for (future, done) in all.iter_mut().zip(&mut done) {
                if done.is_none()
                    && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
                {
                    *done = Some(output);
                }
            }
            if done.iter().all(Option::is_some) {
                std::task::Poll::Ready(done.iter_mut().filter_map(Option::take).collect())
            } else {
                std::task::Poll::Pending
            }
        })
        .await
    }
}
