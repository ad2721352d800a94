//! Metadata, and the line to the server: entries 1 to 15 but for 13, which stands in `mirrors`.

use std::{fs, time::Duration};

use lockgate_server::clock;
use lockgate_shared::{
    id::Digest,
    recall::{Recall, RecallStep},
    time::Seconds,
};
use lockgate_test_fleet::{
    hostile::{Reply, front::Manner},
    process::until,
};
use serde_json::json;

use crate::{
    forge::{Forge, Goods, PRODUCT},
    stage::{BEFORE, PATIENCE, Victim, site},
};

/// Peak memory may grow by this much under an endless answer: the largest limit of any metadata, twice.
const MEMORY_KIB: u64 = 16 * 1024;
/// How much faster the agent's clocks go where a deadline is waited for.
const FASTER: u32 = 20;

#[test]
fn e01_what_nobody_entitled_has_signed_is_refused_at_the_first_signature() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    let goods = Goods::new("6.6.6");

    // All of his own making: a timestamp by his own key, or by nobody.
    for signers in [&["thief-1"][..], &[]] {
        victim.serve(&honest, |own| {
            own.roll_out(&goods);
            own.publish_by("timestamp", signers);
        });
        victim.refused(&["`timestamp` has 0 valid signatures and needs 1"]);
        victim.unharmed(&kept, &believed);
    }
    // A root of his own.
    victim.serve(&honest, |own| own.publish_by("root", &["thief-1", "thief-2"]));
    victim.refused(&["`root` has 0 valid signatures and needs 2"]);
    victim.unharmed(&kept, &believed);

    // A release of his own, with every online key.
    victim.serve(&honest, |own| {
        own.artifacts.insert(goods.digest(), goods.archive.clone());
        own.release_in("releases-tools", &goods.manifest, &["thief-1", "thief-2"]);
        let start = own.start(&goods.manifest, &["ben", "eva"]);
        own.file_of(PRODUCT).rollouts.push(Forge::entry(start));
        own.say();
    });
    victim.notes(&["`releases-tools` has 0 valid signatures and needs 2"]);
    victim.held("6.6.6", &["its manifest is not at hand"]);
    victim.unharmed(&kept, &believed);
    let artifact = format!("/artifacts/{}", goods.digest());
    assert!(!victim.front.paths().contains(&artifact), "not one byte of it was asked for");
}

#[test]
fn e02_a_substituted_payload_reaches_no_active_slot_and_the_right_one_is_taken_later() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let goods = Goods::new("1.1.0");
    victim.forge().roll_out(&goods);
    let path = format!("/artifacts/{}", goods.digest());
    let (mut other, mut longer) = (goods.archive.clone(), goods.archive.clone());
    let middle = other.len() / 2;
    other[middle] ^= 1;
    longer.extend_from_slice(b"more");
    let shorter = goods.archive[..middle].to_vec();
    for (bytes, words) in
        [(longer, "bytes, "), (shorter, "bytes, "), (other, "these are not the signed bytes")]
    {
        victim.attack_path(&path, move || Reply::file(bytes.clone()));
        victim.counted(&goods);
        victim.says(&[words]);
        victim.unharmed(&kept, &believed);
    }
    victim.operator_reads(&["these are not the signed bytes"]);
    // Cut off in the middle, as announced: resumed where it broke, and whole in the end.
    let (whole, size) = (goods.archive.clone(), goods.archive.len() as u64);
    let mut times = 0;
    victim.attack(move |asked| {
        times += u32::from(asked.path == path);
        let body = whole[..middle].to_vec();
        (asked.path == path && times == 1).then_some(Reply::Cut { announced: size, body })
    });
    victim.rest_on("1.1.0");
}

#[test]
fn e02_a_target_with_only_one_of_two_listed_hashes_right_is_refused() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let goods = Goods::new("1.1.0");
    victim.forge().roll_out(&goods);
    let mut own = victim.forge().clone();
    let named = &mut own.role("releases-tools")["targets"]["releases/tools/1.1.0.json"];
    named["hashes"]["sha512"] = json!("00".repeat(64));
    own.publish("releases-tools");
    own.chain();
    victim.restore(&own);
    victim.notes(&["does not have the sha512 that is named"]);
    victim.held("1.1.0", &["its manifest is not at hand"]);
    victim.unharmed(&kept, &believed);
}

#[test]
fn e03_older_metadata_is_refused_role_by_role_also_after_the_newer_has_expired() {
    let mut victim = Victim::installed();
    let old = victim.forge().clone();
    let new = victim.serve(&old, |own| {
        own.publish("targets");
        own.publish("releases-tools");
        own.say();
    });
    victim.believes();
    let (kept, believed) = (victim.kept(), victim.believed());

    victim.restore(&old);
    victim.refused(&["`timestamp` is offered in version"]);
    // With the timestamp's key: an older snapshot under a newer timestamp.
    victim.serve(&new, |own| {
        own.misname("snapshot", old.named("snapshot"));
        own.publish("timestamp");
    });
    victim.refused(&["`snapshot` is offered in version"]);
    // With the snapshot's key as well: one older role under a newer snapshot.
    for role in ["targets", "releases-tools", "rollouts"] {
        victim.serve(&new, |own| {
            own.misname(role, old.named(role));
            own.chain();
        });
        victim.refused(&[role, "is offered in version", "was seen"]);
    }
    victim.serve(&new, |own| {
        own.role("snapshot")["meta"].as_object_mut().expect("a table").remove("rollouts.json");
        own.chain();
    });
    victim.refused(&["`rollouts.json` was removed from the snapshot"]);
    victim.unharmed(&kept, &believed);

    // The newer copy expires meanwhile: what is older is refused all the same.
    victim.serve(&new, |own| {
        own.expires_in("timestamp", 4);
        own.publish("timestamp");
    });
    victim.believes();
    victim.refused(&["`timestamp` version", "expired"]);
    victim.restore(&new);
    victim.refused(&["`timestamp` is offered in version", "was seen"]);
    victim.unharmed(&kept, &believed);
}

#[test]
fn e04_an_older_release_is_never_installed_however_well_it_is_signed() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let older = Goods::new("0.9.0");
    victim.forge().roll_out(&older);
    victim.held("0.9.0", &["not newer"]);
    victim.operator_reads(&["version 1.0.0 runs"]);
    victim.unharmed(&kept, &believed);
    // Also not after an update, back to what once was the newest.
    let newer = Goods::new("1.1.0");
    victim.forge().roll_out(&newer);
    victim.rest_on("1.1.0");
    let kept = victim.kept();
    victim.forge().rollouts.clear();
    let again = victim.forge().start(&Goods::new(BEFORE).manifest, &["ben", "eva"]);
    victim.forge().file_of(PRODUCT).rollouts.push(Forge::entry(again));
    victim.forge().say();
    victim.held(BEFORE, &["not newer"]);
    victim.unharmed(&kept, &believed);
    let artifact = format!("/artifacts/{}", older.digest());
    assert!(!victim.front.paths().contains(&artifact), "it was not even asked for");
}

#[test]
fn e04_a_recall_leads_back_only_where_authors_signed_and_only_from_what_it_names() {
    let mut victim = Victim::installed();
    let goods = Goods::new("1.1.0");
    victim.forge().roll_out(&goods);
    victim.rest_on("1.1.0");
    let honest = victim.forge().clone();
    let (kept, believed) = (victim.kept(), victim.believed());
    let before = serde_json::to_vec(&Goods::new(BEFORE).manifest).expect("JSON");
    let version = |text: &str| text.parse().expect("a version");
    let right = Recall {
        format: 1,
        product: PRODUCT.parse().expect("a name"),
        version: version("1.1.0"),
        to: version(BEFORE),
        manifest: Digest::of(&before),
        issued: clock::now().minus(Seconds(60)),
        until: clock::now().plus(Seconds(3_600)),
        harmed_after_s: Seconds(0),
        steps: vec![RecallStep { after_s: Seconds(0), share_ppm: 1_000_000 }],
        timestamp_max_age_s: Seconds(3_600),
        reason: "it eats batteries".into(),
    };
    let put = |own: &mut Forge, role: &str, by: &[&str], recall: &Recall| {
        let path = Recall::path(&recall.product, &recall.version);
        own.target(role, &path, &serde_json::to_vec(recall).expect("JSON"));
        own.publish_by(role, by);
        own.say();
    };
    let mut elsewhere = right.clone();
    elsewhere.manifest = Digest::of(b"another release");
    let mut over = right.clone();
    over.issued = clock::now().minus(Seconds(7_200));
    over.until = clock::now().minus(Seconds(3_600));
    let mut other = right.clone();
    other.version = version("1.2.0");
    let authors = &["ada", "alan"][..];
    let wrong = [
        ("by the gatekeeper's role", "rollouts", &["rollouts"][..], &right),
        ("by one author of two", "releases-tools", &["ada"], &right),
        ("to a release that is not there", "releases-tools", authors, &elsewhere),
        ("after its end", "releases-tools", authors, &over),
        ("of another version", "releases-tools", authors, &other),
    ];
    let mut last = honest.clone();
    for (what, role, by, recall) in wrong {
        last = victim.serve(&honest, |own| put(own, role, by, recall));
        victim.polled_again();
        victim.polled_again();
        assert_eq!(victim.kept(), kept, "{what}: {}", victim.said());
        victim.unharmed(&kept, &believed);
    }
    victim.serve(&last, |own| {
        own.roles.insert("releases-tools".into(), honest.roles["releases-tools"].clone());
        let version = last.version("releases-tools") + 100;
        own.role("releases-tools")["version"] = json!(version);
        put(own, "releases-tools", authors, &right);
    });
    victim.rest_on(BEFORE);
    // What was recalled is not installed again, however wide it is open.
    victim.polled_again();
    victim.polled_again();
    assert_eq!(victim.device.version_on_disk(PRODUCT).as_deref(), Some(BEFORE));
}

#[test]
fn e05_a_frozen_repository_is_believed_until_its_first_file_expires_and_the_owner_reads_since_when()
{
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    victim.serve(&honest, |own| {
        own.expires_in("timestamp", 4);
        own.publish("timestamp");
    });
    victim.believes();
    victim.refused(&["`timestamp` version", "expired"]);
    victim.owner_reads("status", &["good at", "; since then: "]);
    // A fresh timestamp over what has expired.
    for role in ["snapshot", "targets"] {
        victim.serve(&honest, |own| {
            own.expires_in(role, -10);
            if role == "targets" {
                own.publish(role);
            }
            own.publish("timestamp");
            own.chain();
        });
        victim.refused(&[&format!("`{role}` version"), "expired"]);
        victim.unharmed(&kept, &believed);
    }
    // A product's expired role holds up that product alone, and says so.
    victim.serve(&honest, |own| {
        own.expires_in("releases-tools", -10);
        own.roll_out(&Goods::new("1.1.0"));
    });
    victim.notes(&["`releases-tools` version", "expired"]);
    victim.held("1.1.0", &["its manifest is not at hand"]);
    // The root last: it is kept, and nothing below it counts until there is a newer one.
    let expired = victim.serve(&honest, |own| {
        own.expires_in("root", -10);
        own.publish("root");
    });
    victim.refused(&["`root` version 2", "expired"]);
    victim.unharmed(&kept, &believed);
    victim.serve(&expired, |own| {
        own.expires_in("root", 86_400);
        own.publish("root");
        own.expires_in("releases-tools", 86_400);
        own.publish("targets");
        own.publish("releases-tools");
        own.say();
    });
    victim.believes();
}

#[test]
fn e06_a_root_that_cannot_be_asked_for_ends_the_refresh() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    // The operator has replaced the stolen keys; the thief must keep that from devices.
    let mut forge = victim.forge().clone();
    forge.appoint("timestamp", &["next-1"], 1);
    forge.appoint("snapshot", &["next-2"], 1);
    forge.publish("root");
    victim.restore(&forge);
    let path = "/repo/metadata/2.root.json";
    let timestamp = "/repo/metadata/timestamp.json".to_owned();
    let attacks: [(fn() -> Reply, &str); 7] = [
        (|| Reply::Status(500, Vec::new()), "status 500"),
        (|| Reply::Status(403, Vec::new()), "status 403"),
        (|| Reply::Status(410, Vec::new()), "status 410"),
        (|| Reply::Redirect("/repo/metadata/1.root.json".into()), "is not followed"),
        (|| Reply::Hangup, "the connection broke"),
        (|| Reply::Endless { announced: None }, "longer than the 524288 bytes allowed"),
        (|| Reply::file(Vec::new()), "metadata of `root` is malformed"),
    ];
    for (reply, words) in attacks {
        victim.attack_path(path, reply);
        victim.front.forget();
        victim.refused(&[words]);
        assert!(!victim.front.paths().contains(&timestamp), "{words}: it went on");
        victim.unharmed(&kept, &believed);
    }
    victim.restore(&forge);
    victim.forge().publish_by("snapshot", &["next-2"]);
    victim.forge().publish_by("timestamp", &["next-1"]);
    victim.be_honest();
    victim.believes();
    assert!(victim.believed().roots.contains_key(&2));
}

#[test]
fn e07_versions_at_their_maximum_are_held_and_overflow_nothing() {
    let mut victim = Victim::installed();
    let kept = victim.kept();
    let honest = victim.forge().clone();
    victim.serve(&honest, |own| fast_forward(own, u64::MAX));
    victim.believes();
    victim.polled_again();
    victim.well();
    let believed = victim.believed();
    assert_eq!((believed.timestamp, believed.snapshot), (u64::MAX, u64::MAX));
    victim.restore(&honest);
    victim.refused(&["is offered in version", "after 18446744073709551615 was seen"]);
    victim.unharmed(&kept, &believed);
}

#[test]
fn e08_a_root_with_other_online_keys_ends_a_fast_forward_also_after_a_crash_in_between() {
    let mut victim = Victim::installed();
    let kept = victim.kept();
    let honest = victim.forge().clone();
    victim.serve(&honest, |own| fast_forward(own, u64::MAX - 1));
    victim.believes();
    // One key of the two is replaced, and the old one stays listed beside the new one.
    let recovered = victim.serve(&honest, |own| {
        own.appoint("timestamp", &["next-1"], 1);
        own.appoint("snapshot", &["snapshot", "next-2"], 1);
        own.publish("root");
        own.publish_by("snapshot", &["next-2"]);
        own.publish_by("timestamp", &["next-1"]);
    });
    // The power fails right after the new root came, and once more at the next file.
    for cut in ["/repo/metadata/3.root.json", "/repo/metadata/timestamp.json"] {
        victim.front.forget();
        victim.device.kill();
        victim.front.hang_up();
        victim.attack_path(cut, || Reply::Silence);
        victim.start();
        until("the last file before the cut", PATIENCE, || {
            victim.front.paths().iter().any(|path| path == cut)
        })
        .expect("it is asked for");
    }
    victim.device.kill();
    victim.front.hang_up();
    victim.restore(&recovered);
    victim.be_honest();
    victim.start();
    victim.believes();
    let believed = victim.believed();
    assert!(believed.timestamp < 1_000, "{believed:?}");
    assert!(believed.roots.contains_key(&2));
    // The thief's keys count for nothing any more.
    victim.serve(&recovered, |own| fast_forward(own, u64::MAX));
    victim.refused(&["`timestamp` has 0 valid signatures and needs 1"]);
    assert_eq!(victim.kept(), kept);
}

/// What a thief with the online keys does: the highest versions there are.
fn fast_forward(own: &mut Forge, version: u64) {
    own.role("snapshot")["version"] = json!(version);
    own.serve("snapshot", &["snapshot"]);
    own.role("timestamp")["version"] = json!(version);
    own.serve("timestamp", &["timestamp"]);
}

#[test]
fn e09_files_that_never_belonged_together_are_refused() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let old = victim.forge().clone();
    let goods = Goods::new("1.1.0");
    let new = victim.serve(&old, |own| {
        own.publish("targets");
        own.roll_out(&goods);
    });
    for role in ["snapshot", "targets"] {
        // The name of the new file, the bytes of the old one.
        victim.serve(&new, |own| {
            let file = own.file(role);
            own.files.insert(file, old.bytes(role));
        });
        victim.refused(&[&format!("`{role}`"), "named"]);
        // The same where the parent names a version alone.
        victim.serve(&new, |own| {
            own.misname(role, json!({"version": own.version(role)}));
            if role == "targets" {
                own.publish("snapshot");
            }
            own.publish("timestamp");
            let file = own.file(role);
            own.files.insert(file, old.bytes(role));
        });
        victim.refused(&[&format!("`{role}` has version"), "is named"]);
        victim.unharmed(&kept, &believed);
    }
    // And of one product's roles: its trouble alone.
    for role in ["rollouts", "releases-tools"] {
        victim.serve(&new, |own| {
            own.chain();
            let file = own.file(role);
            own.files.insert(file, old.bytes(role));
        });
        victim.notes(&[&format!("`{role}`"), "named"]);
        victim.unharmed(&kept, &believed);
    }
}

#[test]
fn e10_endless_answers_end_at_their_limits_with_bounded_memory() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    victim.polled_again();
    let peak = victim.peak_kib();
    let goods = Goods::new("1.1.0");
    victim.forge().publish("targets");
    victim.forge().roll_out(&goods);
    let forge = victim.forge().clone();
    let meta = |role: &str| format!("/repo/{}", forge.file(role));
    let target = |start: &str, end: &str| {
        let mut found = forge.files.keys().filter(|path| {
            path.starts_with(start) && path.ends_with(end) && !path.starts_with("metadata")
        });
        format!("/repo/{}", found.next_back().expect("a target"))
    };
    let manifest = serde_json::to_vec(&goods.manifest).expect("JSON");
    let manifest = Digest::of(&manifest).to_string();
    let newest = forge.roles["rollouts"]["targets"].as_object().expect("targets");
    let file = newest.values().next().expect("a target")["hashes"]["sha256"].as_str();
    let file = file.expect("a digest").to_owned();
    // In the order in which they are asked for, so that each attack is met.
    let paths = [
        ("/repo/metadata/2.root.json".to_owned(), "longer than"),
        (meta("timestamp"), "longer than"),
        (meta("snapshot"), "longer than"),
        (meta("targets"), "longer than"),
        (meta("rollouts"), "longer than"),
        (target(&format!("targets/rollouts/tools/{file}"), ""), "longer than"),
        (meta("releases-tools"), "longer than"),
        (target(&format!("targets/releases/tools/{manifest}"), ""), "longer than"),
        ("/v1/checkin".to_owned(), "longer than"),
        (format!("/artifacts/{}", goods.digest()), "longer than"),
    ];
    for (number, (path, words)) in paths.into_iter().enumerate() {
        if path.starts_with("/artifacts") {
            victim.be_honest();
            victim.forge().artifacts.clear();
            victim.counted(&goods);
        }
        // Half of them with a length that no disk holds.
        let announced = (number % 2 == 1).then_some(1 << 50);
        victim.attack_path(&path, move || Reply::Endless { announced });
        match announced.filter(|_| path.starts_with("/artifacts")) {
            Some(_) => victim.says(&["bytes, "]),
            None => victim.says(&[words]),
        }
        victim.unharmed(&kept, &believed);
    }
    let grown = victim.peak_kib().saturating_sub(peak);
    assert!(grown < MEMORY_KIB, "the agent grew by {grown} KiB");
    victim.forge().artifacts.clone_from(&forge.artifacts);
    victim.be_honest();
    victim.rest_on("1.1.0");
}

#[test]
fn e11_slow_answers_meet_their_deadlines_and_the_next_poll_comes() {
    let mut victim = Victim::enrolled(&[PRODUCT], "");
    // Deadlines of two minutes: under a clock that runs faster they come in seconds.
    let speed = format!("+0 x{FASTER}");
    let library = crate::stage::fake_clock();
    let environment = [("LD_PRELOAD", library.as_str()), ("FAKETIME", speed.as_str())];
    victim.device.start_with(&environment).expect("started");
    victim.rest_on(BEFORE);
    let (kept, believed) = (victim.kept(), victim.believed());
    let timestamp = "/repo/metadata/timestamp.json";
    let slow = Duration::from_millis(100);

    victim.front.behave(Manner::Mute);
    victim.says(&["gave no whole answer within 10 s"]);
    victim.front.behave(Manner::Tls);
    victim.well();
    let none = Duration::ZERO;
    let drip = |pause, head_pause| Reply::Drip { body: vec![b' '; 1_000], pause, head_pause };
    let attacks: [(&str, Box<dyn Fn() -> Reply + Send>); 4] = [
        (timestamp, Box::new(|| Reply::Silence)),
        (timestamp, Box::new(move || drip(slow, none))),
        (timestamp, Box::new(move || drip(none, slow * 10))),
        ("/v1/checkin", Box::new(move || drip(slow, none))),
    ];
    for (path, reply) in attacks {
        victim.attack_path(path, reply);
        victim.says(&[path, "gave no whole answer within 120 s"]);
        victim.unharmed(&kept, &believed);
        victim.be_honest();
        victim.well();
    }
    // A payload: the least rate.
    let goods = Goods::new("1.1.0");
    victim.forge().roll_out(&goods);
    let body = goods.archive.clone();
    victim.attack_path(&format!("/artifacts/{}", goods.digest()), move || Reply::Drip {
        body: body.clone(),
        pause: slow,
        head_pause: none,
    });
    victim.counted(&goods);
    victim.says(&["sent fewer than 61440 bytes in 60 s"]);
    victim.unharmed(&kept, &believed);
    victim.be_honest();
    victim.rest_on("1.1.0");
}

#[test]
fn e12_only_what_a_role_entitled_to_it_lists_is_followed() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    let goods = Goods::new("6.6.6");
    // The gatekeeper's role, and another product's, list a release of this one.
    for (role, signers) in [("rollouts", &["rollouts"][..]), ("releases-app", &["ada", "alan"])] {
        victim.serve(&honest, |own| {
            own.artifacts.insert(goods.digest(), goods.archive.clone());
            own.release_in(role, &goods.manifest, signers);
            let start = own.start(&goods.manifest, &["ben", "eva"]);
            own.file_of(PRODUCT).rollouts.push(Forge::entry(start));
            own.say();
        });
        victim.notes(&["the repository has no `releases/tools/6.6.6.json`"]);
        victim.held("6.6.6", &["its manifest is not at hand"]);
        victim.unharmed(&kept, &believed);
    }
    // Prerequisites in places that mean nothing: nobody asks for them.
    victim.serve(&honest, |own| {
        own.role("timestamp")["requires"] = json!(["releases/app/6.6.6.json"]);
        own.role("rollouts")["targets"]["rollouts/tools/needs.bin"] = json!({
            "length": 1, "hashes": {"sha256": "00".repeat(32)},
            "custom": {"requires": ["releases/app/6.6.6.json"]},
        });
        own.publish("releases-app");
        own.say();
    });
    victim.believes();
    victim.polled_again();
    let named = |path: &String| path.contains("6.6.6") && path.contains("app");
    assert!(!victim.front.paths().iter().any(named), "{:?}", victim.front.paths());
    victim.unharmed(&kept, &believed);
}

#[test]
fn e14_a_dropped_line_is_retried_more_and_more_seldom_and_the_owner_reads_since_when() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    victim.attack(|_| Some(Reply::Hangup));
    victim.says(&["the connection broke"]);
    victim.expect("the pause grows", |status| {
        let next = status.contact.next_poll.expect("a poll is planned");
        next.since(status.taken) >= Seconds(4)
    });
    victim.owner_reads("status", &["good at", "; since then: "]);
    victim.unharmed(&kept, &believed);
    // Only letters, only payloads, only the repository: each is named, and the rest goes on.
    let goods = Goods::new("1.1.0");
    victim.forge().roll_out(&goods);
    victim.attack(|asked| asked.path.starts_with("/artifacts").then_some(Reply::missing()));
    victim.counted(&goods);
    victim.says(&["no such file"]);
    victim.unharmed(&kept, &believed);
    victim.attack(|asked| asked.path.starts_with("/v1/").then_some(Reply::Hangup));
    victim.says(&["/v1/checkin", "the connection broke"]);
    victim.unharmed(&kept, &believed);
    victim.be_honest();
    victim.rest_on("1.1.0");
}

#[test]
fn e15_what_is_not_tls_1_3_by_a_known_authority_is_not_spoken_to() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    // An alert of the older protocol, plain text, and a redirect to it.
    victim.front.behave(Manner::Bytes(vec![21, 3, 3, 0, 2, 2, 70]));
    victim.says(&["does not speak TLS 1.3"]);
    victim.front.behave(Manner::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()));
    victim.says(&["cannot agree on TLS"]);
    victim.front.behave(Manner::Tls);
    victim.attack(|_| Some(Reply::Redirect("http://127.0.0.1:80/repo/".into())));
    victim.says(&["sends on to somewhere else"]);
    victim.unharmed(&kept, &believed);
    victim.be_honest();
    victim.well();

    // Another authority's certificate, for the right name.
    site().world.authority("wrong-authority").expect("another authority");
    let folder = site().world.path("wrong-authority");
    let wrong = lockgate_test_fleet::hostile::Front::open(
        &folder.join("server.pem"),
        &folder.join("server.key"),
        crate::stage::client(),
    )
    .expect("a server");
    victim.device.stop();
    victim
        .device
        .drop_in("60-server.toml", &format!("server = \"{}\"\n", wrong.url()))
        .expect("set");
    victim.start();
    victim.says(&["is not trusted"]);
    assert!(wrong.paths().is_empty(), "not one request was sent to it");
    victim.unharmed(&kept, &believed);

    // What its letters say of the machine is coarse: no name of the host or of a person.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let letters = victim.front.letters();
    let facts = letters.iter().find_map(|letter| letter.facts.clone()).expect("facts were sent");
    let facts = serde_json::to_string(&facts).expect("JSON");
    assert!(!facts.contains(&format!("\"{}\"", host.trim())), "{facts}");
    assert!(!facts.contains("/home/"), "{facts}");
}
