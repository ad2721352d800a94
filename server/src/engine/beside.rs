//! The gatekeeper beside the real letter box, over the real socket, as one process each would be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lockgate_shared::{act::Act, time::Seconds};

use super::fixture::{BEGIN, Phone, Yard, signed};
use crate::{
    clock::Stopwatch,
    config::{Api, Polls},
    letters::LetterBox,
    shutdown::Stopper,
    socket,
    status::{About, Decision},
    store::{NewEntry, sqlite::SqliteStore},
    stream::EntryKind,
};

#[test]
fn what_the_letter_box_takes_is_judged_and_the_verdicts_come_back() {
    let mut yard = Yard::new();
    yard.phones(3, "Slate 3");
    yard.release(2, &["1.1.0"], &[11, 12]);
    let start = yard.start("1.1.0", 3);
    let forged = yard.json(EntryKind::Act, &signed(&Act::Start(start.clone()), &[21]));
    let good = yard.json(EntryKind::Act, &signed(&Act::Start(start), &[21, 22]));
    let stranger = yard.enrol(&Phone::new(90, "Slate 3"), yard.token(32, 1));
    yard.engine = None;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let (stopper, shutdown) = Stopper::new();
    let config = yard.config();
    let api = Api {
        listen: "127.0.0.1:0".parse().expect("an address"),
        state: yard.folder.path().join("api"),
        repository: config.repository.clone(),
        socket: config.socket.clone(),
        anchor: config.anchor.clone(),
        sweep_s: Seconds(60),
        journal_tick_ms: 1,
        device_letters_per_minute: Api::device_letters(),
        address_requests_per_minute: Api::address_requests(),
        letters_kept_s: Api::letters_kept(),
    };
    std::fs::create_dir_all(&api.state).expect("a folder");
    let store = SqliteStore::open(&api.state.join("store.db")).expect("a store");
    let letter_box =
        LetterBox::open_store(Box::new(store), &api, Polls::default()).expect("a letter box");
    let guard = runtime.enter();
    let listener = socket::bind(&api.socket).expect("a socket");
    drop(guard);
    let served = runtime.spawn(socket::serve(listener, Arc::clone(&letter_box), shutdown));
    for entry in &yard.letters.entries {
        let (received, kind, bytes) = (entry.received, entry.kind, entry.bytes.clone());
        let entry = NewEntry { received, kind, bytes };
        runtime.block_on(letter_box.append(entry)).expect("on disk");
    }

    let stop = Arc::new(AtomicBool::new(false));
    let (config, ended) = (config, Arc::clone(&stop));
    let gatekeeper = std::thread::spawn(move || super::turns(&config, &ended, &|| BEGIN));
    let waited = Stopwatch::start();
    let decided = |offset| {
        let reports = letter_box.reports();
        reports.entry(offset).map(|verdict| verdict.decision)
    };
    while decided(stranger).is_none() {
        assert!(waited.elapsed() < Duration::from_secs(20), "no verdict came");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(decided(forged), Some(Decision::Refused));
    assert_eq!(decided(good), Some(Decision::Accepted));
    assert_eq!(decided(stranger), Some(Decision::Refused));
    assert!(letter_box.reports().verdicts(1).count() >= 4);
    let status = letter_box.reports().status().cloned().expect("a status");
    assert_eq!(status.rollouts.len(), 1);
    assert!(letter_box.reports().audit(1).count() >= 3);
    let about = About::Entry(good);
    assert!(letter_box.reports().verdicts(1).any(|verdict| verdict.about == about));

    stop.store(true, Ordering::Relaxed);
    gatekeeper.join().expect("no panic").expect("a good end");
    stopper.stop();
    runtime.block_on(served).expect("the socket's end");
    letter_box.close();
    yard.start_engine();
    assert!(yard.file("Slate 3").is_some());
}
