//! A thief in the letter box's place: the true gatekeeper connects to its socket and pulls whatever
//! stream it makes up from the stolen journal. It holds everything that the API server holds and no
//! key of anybody else; the stream can be shortened, repeated and added to.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use lockgate_server::{
    clock,
    status::{About, Status, Verdict},
    store::{Store as _, sqlite::SqliteStore},
    stream::{Entry, EntryKind, FRAME_BYTES, Request, Response},
};
use lockgate_shared::wire::codec;

/// Entries and bytes that are read of a stolen journal: all that a test ever writes.
const ALL: usize = 1 << 20;
/// How often a waiting pull looks for news.
const LOOK: Duration = Duration::from_millis(50);

/// The letter box that the gatekeeper believes to talk to; dropped, it hangs up.
#[derive(Debug)]
pub struct StolenLetterBox {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    stop: AtomicBool,
    entries: Mutex<Vec<Entry>>,
    verdicts: Mutex<BTreeMap<u64, Verdict>>,
    status: Mutex<Option<Status>>,
    /// One beyond the newest offset that was pulled.
    pulled: Mutex<u64>,
}

impl StolenLetterBox {
    /// Takes the journal out of a store that nobody has open.
    pub fn journal(store: &Path) -> io::Result<Vec<Entry>> {
        let store = SqliteStore::open(store).map_err(io::Error::other)?;
        store.read(0, ALL, ALL << 6).map_err(io::Error::other)
    }

    /// Listens where the true letter box listened, with this journal.
    pub fn open(socket: &Path, entries: Vec<Entry>) -> io::Result<Self> {
        // What lies there is the dead one's.
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        let inner = Arc::new(Inner { entries: Mutex::new(entries), ..Inner::default() });
        let own = Arc::clone(&inner);
        thread::spawn(move || {
            while !own.stop.load(Ordering::SeqCst) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(LOOK);
                    continue;
                };
                let own = Arc::clone(&own);
                // A gatekeeper that goes away ends the conversation: it comes again.
                thread::spawn(move || own.converse(stream));
            }
        });
        Ok(Self { inner })
    }

    /// Adds an entry. Gives its offset.
    pub fn append(&self, kind: EntryKind, bytes: Vec<u8>) -> u64 {
        let mut entries = locked(&self.inner.entries);
        let offset = entries.last().map_or(0, |entry| entry.offset + 1);
        entries.push(Entry { offset, received: clock::now(), kind, bytes });
        offset
    }

    /// The entries as they stand.
    pub fn entries(&self) -> Vec<Entry> {
        locked(&self.inner.entries).clone()
    }

    /// What the gatekeeper said of an entry.
    pub fn verdict(&self, offset: u64) -> Option<Verdict> {
        locked(&self.inner.verdicts).get(&offset).cloned()
    }

    /// The gatekeeper's newest report.
    pub fn status(&self) -> Option<Status> {
        locked(&self.inner.status).clone()
    }
}

impl Drop for StolenLetterBox {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
    }
}

impl Inner {
    fn converse(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        while !self.stop.load(Ordering::SeqCst) {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let length = u32::from_le_bytes(length) as usize;
            if length > FRAME_BYTES {
                return Err(io::Error::other("a frame that is too long"));
            }
            let mut frame = vec![0; length];
            stream.read_exact(&mut frame)?;
            let request = codec::decode(&frame, FRAME_BYTES).map_err(io::Error::other)?;
            let answer = codec::encode(&self.answer(request), FRAME_BYTES);
            let answer = answer.map_err(io::Error::other)?;
            let length = u32::try_from(answer.len()).map_err(io::Error::other)?;
            stream.write_all(&length.to_le_bytes())?;
            stream.write_all(&answer)?;
        }
        Ok(())
    }

    fn answer(&self, request: Request) -> Response {
        match request {
            Request::Pull { from, last: _, max, wait_ms } => {
                let mut waited = Duration::ZERO;
                let wait = Duration::from_millis(wait_ms.into());
                loop {
                    let entries = locked(&self.entries).clone();
                    let head = entries.last().map_or(0, |entry| entry.offset + 1);
                    if head > from || waited >= wait || self.stop.load(Ordering::SeqCst) {
                        *locked(&self.pulled) = from;
                        let entries = entries.into_iter().filter(|entry| entry.offset >= from);
                        let entries = entries.take(max as usize).collect();
                        return Response::Batch { entries, head };
                    }
                    thread::sleep(LOOK);
                    waited += LOOK;
                }
            }
            Request::Report { verdicts, status, audit: _ } => {
                let mut known = locked(&self.verdicts);
                for verdict in verdicts {
                    if let About::Entry(offset) = verdict.about {
                        known.insert(offset, verdict);
                    }
                }
                *locked(&self.status) = Some(*status);
                Response::Reported
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
