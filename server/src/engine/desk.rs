//! The real letter box before a gatekeeper's stories: on a real file, over the real socket, as one process
//! of its own would be.

use std::{fs, path::PathBuf, sync::Arc};

use lockgate_shared::{
    time::Seconds,
    wire::{Format, Letter},
};
use tokio::{runtime::Runtime, task::JoinHandle};

use super::{
    Engine,
    fixture::{Phone, Yard},
    source::SocketSource,
};
use crate::{
    config::{self, Polls},
    letters::LetterBox,
    shutdown::Stopper,
    socket,
    store::{NewEntry, sqlite::SqliteStore},
    stream::EntryKind,
};

/// A letter box that serves its socket, and the way to it.
pub(super) struct Desk {
    pub(super) runtime: Runtime,
    pub(super) letter_box: Arc<LetterBox>,
    stopper: Arc<Stopper>,
    served: JoinHandle<()>,
    source: SocketSource,
    store: PathBuf,
}

impl Desk {
    pub(super) fn open(yard: &Yard) -> Self {
        let api = config::tests::api(yard.folder.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (stopper, shutdown) = Stopper::new();
        fs::create_dir_all(&api.state).expect("a folder");
        let store = api.state.join("store.db");
        let opened = SqliteStore::open(&store).expect("a store");
        let letter_box =
            LetterBox::open_store(Box::new(opened), &api, Polls::default()).expect("a letter box");
        let guard = runtime.enter();
        let listener = socket::bind(&api.socket).expect("a socket");
        drop(guard);
        let served = runtime.spawn(socket::serve(listener, Arc::clone(&letter_box), shutdown));
        let source = SocketSource::new(&api.socket);
        Self { runtime, letter_box, stopper, served, source, store }
    }

    /// Puts everything into its journal that the story's own letter box has.
    pub(super) fn hand_over(&self, yard: &Yard) {
        for entry in &yard.letters.entries {
            self.append(NewEntry {
                received: entry.received,
                kind: entry.kind,
                bytes: entry.bytes.clone(),
            });
        }
    }

    pub(super) fn take(&self, yard: &Yard, phone: &Phone, letter: &Letter) {
        let format = Format::Binary;
        let sealed = letter.seal(format, &phone.key).expect("sealed");
        let bytes = sealed.to_bytes().expect("bytes");
        self.append(NewEntry { received: yard.now, kind: EntryKind::Letter(format), bytes });
    }

    fn append(&self, entry: NewEntry) {
        self.runtime.block_on(self.letter_box.append(entry)).expect("on disk");
    }

    /// Turns of the gatekeeper, until it has what there is.
    pub(super) fn turn(&mut self, yard: &mut Yard) {
        yard.now = yard.now.plus(Seconds(60));
        let now = yard.now;
        let engine: &mut Engine = yard.engine.as_mut().expect("an engine");
        for _ in 0..4 {
            engine.turn(&mut self.source, &|| now).expect("a turn");
        }
    }

    pub(super) fn head(&self) -> u64 {
        *self.letter_box.head().borrow()
    }

    pub(super) fn audit(&self) -> Vec<String> {
        self.letter_box.reports().audit(1).map(str::to_owned).collect()
    }

    pub(super) fn close(self) {
        self.stopper.stop();
        self.runtime.block_on(self.served).expect("the socket's end");
        self.runtime.block_on(self.letter_box.sweep()).expect("swept");
        self.letter_box.close();
    }

    pub(super) fn close_and_copy(self) -> Vec<u8> {
        let store = self.store.clone();
        self.close();
        fs::read(store).expect("a store")
    }

    pub(super) fn close_and_restore(self, backup: &[u8]) {
        let store = self.store.clone();
        self.close();
        for helper in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{helper}", store.display()));
        }
        if !backup.is_empty() {
            fs::write(store, backup).expect("restored");
        }
    }
}
