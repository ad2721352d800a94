//! The gatekeeper beside the real letter box, over the real socket, as one process each would be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lockgate_shared::act::Act;

use super::{
    desk::Desk,
    fixture::{BEGIN, Phone, Yard, signed},
};
use crate::{
    clock::Stopwatch,
    status::{About, Decision},
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

    let desk = Desk::open(&yard);
    desk.hand_over(&yard);

    let stop = Arc::new(AtomicBool::new(false));
    let (config, ended) = (yard.config(), Arc::clone(&stop));
    let gatekeeper = std::thread::spawn(move || super::turns(&config, &ended, &|| BEGIN));
    let waited = Stopwatch::start();
    let letter_box = &desk.letter_box;
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
    desk.close();
    yard.start_engine();
    assert!(yard.file("Slate 3").is_some());
}
