//! A device that is enrolled anew on the state that it has.

use lockgate_shared::wire::{Format, Outcomes, Sealed};

use super::*;

#[test]
fn a_device_enrolled_anew_tells_nothing_in_the_name_of_the_one_before() {
    let bench = Bench::new();
    let mut agent = bench.start().expect("started");
    // It was let in, updated, and its last letters never came.
    bench.turn_until(&mut agent, |it| it.active == Slot::B);
    bench.with(|it| it.reachable = false);
    bench.turns(&mut agent, 20);
    let (letters, outcomes) = agent.journal.waiting().expect("read");
    assert!(letters > 0 && outcomes > 0, "nothing waits: {letters} {outcomes}");
    drop(agent);

    let old = bench.with(|it| {
        it.key = [43; 32];
        it.reachable = true;
        // To the server it is a device of which nobody heard.
        let old: Vec<u64> = it.letters.keys().copied().collect();
        it.outcomes.clear();
        it.chain = Outcomes::default();
        old
    });
    let mut agent = bench.start().expect("started");
    assert_eq!(agent.journal.waiting().expect("read"), (0, 0));
    bench.turns(&mut agent, 3);
    let device = DeviceId::of_key(&sign::public(&SigningKey::from_bytes(&[43; 32])));
    let mut news = 0;
    for (number, bytes) in bench.with(|it| it.letters.clone()) {
        if !old.contains(&number) {
            let sealed = Sealed::read(&bytes, Format::Binary).expect("a letter");
            assert_eq!(sealed.device, device, "a letter of the device before was sent");
            assert_eq!(open(&bytes).outcomes_count, 0);
            news += 1;
        }
    }
    assert!(news > 0, "the new device said nothing");
    let first = old.last().copied().unwrap_or_default() + 1;
    let first = bench.with(|it| open(it.letters.range(first..).next().expect("a letter").1));
    assert_eq!(first.previous, Digest([0; 32]), "it follows a letter of another device");
    assert_eq!(bench.running(), "1.1.0", "what is installed was touched");
}

#[test]
fn what_failed_on_the_machine_fails_on_the_device_that_it_becomes() {
    let bench = Bench::new();
    bench.with(|it| it.healthy = false);
    bench.run_until_settled(Cut::Never);
    assert_eq!(bench.running(), "1.0.0");
    bench.with(|it| {
        it.key = [43; 32];
        it.outcomes.clear();
        it.chain = Outcomes::default();
    });
    let mut agent = bench.start().expect("started");
    bench.turns(&mut agent, 20);
    assert_eq!(bench.with(|it| it.fetches), 1, "a release that failed here was tried again");
}
