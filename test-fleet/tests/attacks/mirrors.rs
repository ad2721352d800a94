//! Mirrors that drop, lie, lag or stand still: entry 13. In each story the true server is honest, and
//! the device gets from it what the mirror keeps back.

use std::sync::Arc;

use lockgate_agent::status::Status;
use lockgate_shared::time::Seconds;
use lockgate_test_fleet::hostile::{Front, Reply};

use crate::{
    forge::{Goods, PRODUCT, honest},
    stage::{BEFORE, Victim, fake_clock, front},
};

/// How old the timestamp of a mirror that stands still is.
const STANDS_STILL: Seconds = Seconds(2 * 3600);

#[test]
fn e13_a_mirror_that_drops_or_lacks_files_does_not_keep_a_device_from_its_server() {
    let (mirror, mut victim) = behind_a_mirror();
    let attacks: [fn() -> Reply; 4] = [
        || Reply::Hangup,
        || Reply::Status(500, Vec::new()),
        || Reply::Redirect("http://127.0.0.1:1/".into()),
        || Reply::Endless { announced: Some(1 << 40) },
    ];
    let mut turn = 0_usize;
    mirror.think(move |_| {
        turn += 1;
        attacks[turn % attacks.len()]()
    });
    victim.start();
    victim.rest_on(BEFORE);
    let goods = Goods::new("1.1.0");
    victim.forge().roll_out(&goods);
    victim.rest_on("1.1.0");
    victim.well();
    assert!(!mirror.paths().is_empty(), "the mirror was asked first");
}

#[test]
fn e13_a_mirror_that_gives_garbage_is_passed_over_at_once_then_asked_last_and_named() {
    for garbage in [&b"<html>all is well</html>"[..], b"{\"signatures\": [], \"signed\": {}}"] {
        let (mirror, mut victim) = behind_a_mirror();
        mirror.think(move |_| Reply::file(garbage));
        victim.start();
        victim.rest_on(BEFORE);
        let goods = Goods::new("1.1.0");
        victim.forge().roll_out(&goods);
        victim.rest_on("1.1.0");
        victim.well();
        // One lie, and the device knows.
        assert_eq!(mirror.paths(), ["/repo/metadata/2.root.json"]);
        is_named(&mut victim, &mirror, "metadata of `root` is malformed");
    }
}

#[test]
fn e13_a_mirror_that_lies_about_the_payload_alone_does_not_hold_an_update_up() {
    let (mirror, mut victim) = behind_a_mirror();
    let forge = Arc::clone(&victim.forge);
    mirror.think(move |asked| {
        let mut reply = honest(&forge, asked);
        if let (Reply::Status(200, bytes), true) =
            (&mut reply, asked.path.starts_with("/artifacts/"))
        {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        reply
    });
    victim.start();
    victim.rest_on(BEFORE);
    let wrong = |path: &&String| path.starts_with("/artifacts/");
    assert_eq!(mirror.paths().iter().filter(wrong).count(), 1, "{:?}", mirror.paths());
    assert_eq!(victim.front.paths().iter().filter(wrong).count(), 1, "the right one at once");
    assert!(!victim.device.said().contains("these are not the signed bytes"), "{}", victim.said());
    is_named(&mut victim, &mirror, "");
}

#[test]
fn e13_a_mirror_that_stands_still_keeps_nothing_back_and_is_named() {
    let (mirror, mut victim) = behind_a_mirror();
    let old = {
        let mut old = victim.forge().clone();
        old.age = STANDS_STILL;
        old.publish("timestamp");
        old
    };
    victim.forge().say();
    victim.forge().say();
    let old = Arc::new(std::sync::Mutex::new(old));
    mirror.think(move |asked| honest(&old, asked));
    victim.start();
    victim.rest_on(BEFORE);
    let goods = Goods::new("1.1.0");
    victim.forge().roll_out(&goods);
    victim.rest_on("1.1.0");
    victim.well();
    is_named(&mut victim, &mirror, "its timestamp was signed 2 h");
}

#[test]
fn e13_a_mirror_that_is_silent_costs_one_file_and_not_each() {
    let (mirror, mut victim) = behind_a_mirror();
    mirror.think(|_| Reply::Silence);
    // Its deadline is two minutes: under a clock that runs faster it comes in seconds.
    let library = fake_clock();
    let environment = [("LD_PRELOAD", library.as_str()), ("FAKETIME", "+0 x20")];
    victim.device.start_with(&environment).expect("started");
    victim.rest_on(BEFORE);
    assert_eq!(mirror.paths(), ["/repo/metadata/2.root.json"]);
    let found = |status: &Status| {
        status.behind.iter().any(|one| one.source == mirror.url() && one.why.contains("120 s"))
    };
    victim.expect("the mirror is named", found);
}

/// A device whose owner names a mirror before the server; both are honest until they are told.
fn behind_a_mirror() -> (Front, Victim) {
    let mirror = front();
    let victim = Victim::enrolled(&[PRODUCT], &format!("mirrors = [\"{}\"]\n", mirror.url()));
    mirror.forget();
    (mirror, victim)
}

/// Status, doctor and the operator name the mirror, with what it did.
fn is_named(victim: &mut Victim, mirror: &Front, why: &str) {
    let url = mirror.url();
    victim.expect("the mirror is asked last", |status| {
        let named = |one: &lockgate_agent::status::SourceStatus| {
            one.source == url && one.why.contains("was refused") && one.why.contains(why)
        };
        status.behind.iter().any(named)
    });
    victim.owner_reads("status", &["asked last", &url, why]);
    victim.owner_reads("doctor", &["mirrors", &url, "asked last", why]);
    victim.operator_reads(&[&url, "was refused", why]);
}
