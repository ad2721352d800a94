//! The gatekeeper's keys are stolen, as real processes: a thief with all three drives every version to
//! the end of all numbers; people replace the keys; from its next poll on the device refuses the thief,
//! takes low versions, and installs what people sign. Polls are counted: each is a refresh and a letter.

use std::{fs, time::Duration};

use rustix::process::Signal;

use lockgate_test_fleet::{
    process::{Programs, until},
    world::{BENCH_PLAN, Device, DevicePlan, PROFILES, World, app::Behaviour},
};

/// How long a step may take on a busy machine; each takes a poll or two, of one second.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn new_keys_shut_a_thief_out_within_a_poll_and_make_low_versions_good_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let programs = Programs::find().expect("built");
    let mut world = World::create(&folder.path().join("world"), &programs).expect("a world");
    world.start().expect("a server");
    let token = world.enrolment_token("acme", "1").expect("a token");
    let (name, tenant) = ("kiosk".into(), "acme".into());
    let plan = DevicePlan { name, tenant, profile: PROFILES[0].clone() };
    let mut device = world.device(plan, &["app"], &token).expect("enrolled");
    device.start().expect("running");
    wait("the first refresh", || timestamp(&device).is_some());

    // The thief takes the gatekeeper's host, and signs with version 2^64 - 1.
    let loot = world.loot().expect("stolen");
    let now = world.status().expect("a status").at;
    world.kill_gatekeeper();
    loot.write(u64::MAX, now).expect("signed");
    wait("the device believes the thief, whose keys are in force", || {
        timestamp(&device) == Some(u64::MAX)
    });

    // The operator: a clean gatekeeper with new keys, and people who sign that they are the keys.
    let change = [
        "repo",
        "change",
        "--repository",
        "repository",
        "--new-online",
        "online-2",
        "--out",
        "change",
    ];
    world.offline(&change).expect("written");
    for key in ["root-1", "root-2", "targets-1", "targets-2"] {
        let key = format!("ceremony/offline/{key}.key");
        world
            .offline(&[
                "repo",
                "sign",
                "change",
                "--repository",
                "repository",
                "--key",
                &key,
                "--yes",
            ])
            .expect("signed");
    }
    world
        .configure("\nkeys = \"ceremony/online\"\n", "\nkeys = \"online-2\"\n")
        .expect("configured");
    world.start_gatekeeper().expect("started");
    let publish = ["repo", "publish", "change", "--repository", "repository", "--wait"];
    // The device stands still while the new keys are published and the thief strikes at once, so that
    // its very next poll finds both: the people's root, and a timestamp by the keys of before.
    device.process().expect("runs").signal(Signal::STOP);
    world.lockgate("ci", &publish).expect("published");
    world.kill_gatekeeper();
    loot.write(u64::MAX, now).expect("signed");
    let (before, refused) = (letters(&world, &device), refusals(&device));
    device.process().expect("runs").signal(Signal::CONT);
    wait("two more polls", || letters(&world, &device) >= before + 2);
    // Each poll refreshes before it writes its letter, so no refusal is missing that belongs to one.
    let polls = letters(&world, &device) - before;
    let refused = refusals(&device) - refused;
    assert!(
        refused + 1 >= polls,
        "{refused} of {polls} polls refused the thief\n{}",
        device.said()
    );
    assert!(device.folder().join("state/tuf/2.root.json").exists(), "the device knows the root");

    world.start_gatekeeper().expect("started");
    wait("and takes low versions", || timestamp(&device).is_some_and(|version| version < 1 << 40));

    // The thief comes back with the old keys: the device refuses, and keeps what it has.
    world.kill_gatekeeper();
    let believed = timestamp(&device);
    loot.write(u64::MAX, now).expect("signed");
    wait("the device refuses the thief's timestamp", || {
        let status = device.status();
        status.and_then(|status| status.refresh.problem).is_some_and(|it| it.contains("signature"))
    });
    assert_eq!(timestamp(&device), believed, "nothing of it is believed");

    // The gatekeeper goes on over what the thief left, and the fleet moves.
    world.start_gatekeeper().expect("started");
    let release = world.release("app", "1.0.0", &Behaviour::Well, BENCH_PLAN).expect("released");
    let sizes = [("dogfood", 0), ("early", 0), ("general", 1)];
    world.start_rollout("app", "1.0.0", &release, &sizes).expect("started");
    wait("the device installs what people signed", || {
        device.version_on_disk("app").as_deref() == Some("1.0.0")
    });
    let doctor = world.lockgate("olga-laptop", &["doctor", "--anchor", "ceremony/root.json"]);
    let said = match doctor {
        Ok(said) => said,
        Err(error) => panic!("{error}\n{}", world.said()),
    };
    assert!(said.contains("good root: version 2"), "{said}");

    // No private key was ever sent: the server's folders hold none but the gatekeeper's own.
    for place in ["api", "repository", "gatekeeper"] {
        assert_eq!(private_keys(&world.path(place)), Vec::<String>::new(), "in `{place}`");
    }
}

fn timestamp(device: &Device) -> Option<u64> {
    device.status()?.refresh.timestamp_version
}

/// The number of the device's last letter, of which each poll writes one.
fn letters(world: &World, device: &Device) -> usize {
    let id = world.device_id(device).expect("an id");
    let shown = world.lockgate("olga-laptop", &["device", "show", &id, "--json"]).expect("shown");
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let number = shown["sequence"].as_u64().expect("a number");
    usize::try_from(number).expect("few")
}

/// Polls in which the device refused what it was shown for its signatures.
fn refusals(device: &Device) -> usize {
    let said = device.said();
    let refused = said.lines().filter(|line| line.contains("the repository was not refreshed"));
    refused.filter(|line| line.contains("signature")).count()
}

fn wait(what: &str, holds: impl FnMut() -> bool) {
    until(what, SOON, holds).expect(what);
}

/// Files that hold what looks like a private key in PEM.
fn private_keys(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(private_keys(&path));
        } else {
            let bytes = fs::read(&path).expect("readable");
            let needle = b"PRIVATE KEY-----";
            if bytes.windows(needle.len()).any(|window| window == needle) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
