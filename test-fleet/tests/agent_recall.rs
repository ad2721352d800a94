//! A recall on real processes: without one nothing leads back; signed by too few it does not leave the
//! author's machine; signed by enough, the device goes back by its other slot and says why, and the
//! recalled version goes nowhere any more.

use std::time::Duration;

use lockgate_test_fleet::{
    process::{Programs, until},
    world::{
        Device, DevicePlan, PROFILES, World,
        app::Behaviour,
        plan::{ALIVE, By, Gate, Plan, Stage, Trial},
    },
};

const PRODUCT: &str = "tools";
/// Some polls and a trial: far below this on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_recalled_release_leads_back_by_the_other_slot_and_goes_nowhere_any_more() {
    let programs = Programs::find().expect("the programs");
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::create(folder.path(), &programs).expect("a world");
    world.start().expect("a server");
    let token = world.enrolment_token("globex", "8").expect("a token");
    let plan =
        DevicePlan { name: "kiosk".into(), tenant: "globex".into(), profile: PROFILES[0].clone() };
    let mut device = world.device(plan, &[PRODUCT], &token).expect("enrolled");
    let [older, newer] = ["1.0.0", "1.1.0"].map(|version| {
        let release = world.release(PRODUCT, version, &Behaviour::Well, PLAN).expect("a release");
        if version == "1.0.0" {
            start(&world, version, &release);
            device.start().expect("started");
        } else {
            start(&world, version, &release);
        }
        rests(&device, version);
        release
    });

    let text = |path: &std::path::Path| path.display().to_string();
    let out = text(&world.path("recall-1.1.0"));
    let create = |version: &str, to: &std::path::Path, out: &str| {
        world.offline(&[
            "release",
            "recall",
            "--version",
            version,
            "--to",
            &text(to),
            "--step",
            "1s=100",
            "--reason",
            "it loses data",
            "--out",
            out,
        ])
    };
    let forward = create("1.0.0", &newer, &text(&world.path("forward"))).expect_err("no way back");
    assert!(forward.to_string().contains("not older"), "{forward}");
    create("1.1.0", &older, &out).expect("a recall");
    let publish = || world.lockgate("ci", &["release", "publish", "--dir", &out, "--wait"]);
    sign(&world, &out, "ada");
    publish().expect_err("one of two authors has signed");
    assert_eq!(device.version_on_disk(PRODUCT).as_deref(), Some("1.1.0"));
    sign(&world, &out, "alan");
    publish().expect("published");
    let again = publish().expect("no failure");
    assert!(
        again.contains("nothing changed: the recall of tools 1.1.0 was published at"),
        "{again}"
    );

    bytes_that_a_server_lost_are_uploaded_again(&world, &older);

    rests(&device, "1.0.0");
    let status = device.product(PRODUCT).expect("the product");
    assert_eq!(status.slot.as_deref(), Some("a"), "1.0.0 lay in slot a already");
    let explained = device.command(&["explain"]).expect("explained");
    assert!(explained.contains("1.1.0 is recalled: it loses data"), "{explained}");
    let shown = world.lockgate("olga-laptop", &["release", "show", PRODUCT, "1.1.0"]);
    let shown = shown.expect("shown");
    assert!(shown.contains("RECALLED to 1.0.0"), "{shown}");
    for (arguments, words) in [
        (&["rollout", "list"][..], "recalled"),
        (&["rollout", "status"], "tools 1.1.0 is recalled to 1.0.0 until "),
        (&["release", "list"], "to 1.0.0"),
    ] {
        let shown = world.lockgate("olga-laptop", arguments).expect("shown");
        assert!(shown.contains(words), "{shown}");
    }
    let refused = device.command(&["rollback", PRODUCT]).expect_err("it leads nowhere");
    let words = "does not go back: 1.1.0, which ran before, is recalled";
    assert!(refused.to_string().contains(words), "{refused}");
    let shown = device.command(&["status"]).expect("a status");
    assert!(shown.contains(words), "{shown}");
    // Some polls later it is still there: the open rollout of 1.1.0 does not bring it back.
    let seen = device.status().expect("a status").refresh.last;
    until("two more refreshes", PATIENCE, || {
        let last = device.status().and_then(|status| status.refresh.last);
        last.zip(seen).is_some_and(|(last, seen)| last.since(seen).0 >= 3)
    })
    .expect("it polls");
    rests(&device, "1.0.0");
    device.stop();
}

/// As after a restore of its state, from before they came: it knows of the release and lacks its bytes.
fn bytes_that_a_server_lost_are_uploaded_again(world: &World, release: &std::path::Path) {
    let dir = release.display().to_string();
    let publish = || {
        world.lockgate("ci", &["release", "publish", "--dir", &dir, "--wait"]).expect("no failure")
    };
    let published = "tools 1.0.0 was published at";
    let said = publish();
    assert!(said.contains(&format!("nothing changed: {published}")), "{said}");
    let sent = std::fs::read_dir(release.join("artifacts")).expect("artifacts");
    let name = sent.map(|file| file.expect("a file").file_name()).next().expect("an artifact");
    let kept = world.path("api/artifacts").join(name);
    std::fs::remove_file(&kept).expect("it was there");
    let said = publish();
    assert!(said.contains(published) && said.contains("1 artifact was not there"), "{said}");
    assert!(!said.contains("nothing changed") && kept.exists(), "{said}");
}

fn start(world: &World, version: &str, release: &std::path::Path) {
    world.start_rollout(PRODUCT, version, release, &[("everyone", 1)]).expect("a rollout");
}

fn sign(world: &World, folder: &str, author: &str) {
    let key = format!("ceremony/people/{author}.key");
    let arguments =
        ["release", "sign", folder, "--repository", "repository", "--key", &key, "--yes"];
    world.offline(&arguments).expect("signed");
}

fn rests(device: &Device, version: &str) {
    let reached = until(&format!("{version} runs"), PATIENCE, || device.rests_on(PRODUCT, version));
    if let Err(error) = reached {
        panic!("{error}\n{:#?}\n{}", device.status(), device.said());
    }
}

/// One stage that lets everybody in at once.
const PLAN: Plan<'static> = Plan {
    kind: "app",
    trial: Trial { soak_s: 1, deadline_s: 20, attempts: 3, probes: &[ALIVE] },
    stages: &[Stage { cohort: "everyone", floor_s: 0, bake_s: 1, by: By::Count(Gate::OPEN) }],
};
