//! The story itself, chapter by chapter. Each chapter makes promises; each promise is checked on the
//! devices' own disks or by what the gatekeeper counted.

use std::{fs, path::Path, time::Duration};

use lockgate_server::status::RolloutState;
use lockgate_shared::time::Moment;

use super::{Demo, table};
use crate::world::{
    Device, DevicePlan, Error, PROFILES,
    app::Behaviour,
    plan::{ALIVE, Gate, Plan, Stage, Trial},
};

/// One of each hardware profile, in dogfood by grant.
const DOGFOOD: [&str; 3] = ["bench-1", "bench-2", "bench-3"];
/// One of each, in early by grant.
const EARLY: [&str; 3] = ["desk-1", "desk-2", "desk-3"];
/// A customer's devices: without a grant they are in the last cohort.
const GENERAL: [&str; 6] = ["till-1", "till-2", "till-3", "till-4", "till-5", "till-6"];
/// The one whose owner stays a release behind.
const PINNED: &str = "till-1";
/// The one with a maintenance window.
const WINDOWED: &str = "till-2";
/// The dogfood device of the model on which 1.2.0 crashes.
const HARMED: &str = "bench-2";

/// Cohorts of `app` and how many devices each has.
const APP: [(&str, u32); 3] = [("dogfood", 3), ("early", 3), ("general", 6)];

/// A stage takes some polls, a trial and a bake: far below this on any machine.
const STAGE: Duration = Duration::from_secs(45);
/// A stop, a refusal, a word of the server: two polls and a tick.
const POLL: Duration = Duration::from_secs(15);
/// A window opens at a full minute.
const MINUTE: Duration = Duration::from_secs(100);

/// Tells it to the end, or to the first step after which nothing else makes sense.
pub fn tell(demo: &mut Demo) {
    if let Err(error) = chapters(demo) {
        demo.promise(&format!("the story could not go on: {error}"), false);
        println!("{}", demo.world.said());
    }
    table::print(demo, "app");
}

fn chapters(demo: &mut Demo) -> Result<(), Error> {
    a_fleet(demo)?;
    everybody_gets_1_0(demo)?;
    restrictions(demo)?;
    a_good_release_climbs(demo)?;
    a_bad_release_is_stopped(demo)?;
    a_flipped_byte(demo)?;
    the_wrong_key(demo)?;
    the_window_opens(demo);
    stop_everything(demo)
}

fn a_fleet(demo: &mut Demo) -> Result<(), Error> {
    demo.chapter("A server, its gatekeeper, and twelve devices of three kinds");
    demo.world.start()?;
    demo.say("two server processes run: the letter box and the gatekeeper");
    let groups: [(&[&str], &str); 3] =
        [(&DOGFOOD, "globex"), (&EARLY, "globex"), (&GENERAL, "acme")];
    for (names, tenant) in groups {
        let count = names.len().to_string();
        let token = demo.world.enrolment_token(tenant, &count)?;
        for (index, name) in names.iter().enumerate() {
            let plan = DevicePlan {
                name: (*name).to_owned(),
                tenant: tenant.to_owned(),
                profile: PROFILES[index % PROFILES.len()].clone(),
            };
            let device = demo.world.device(plan, &["app", "tools"], &token)?;
            demo.devices.push(device);
        }
        demo.say(&format!("{} enrolled in tenant {tenant}", names.join(", ")));
    }
    for (names, cohort) in [(DOGFOOD, "dogfood"), (EARLY, "early")] {
        for name in names {
            demo.world.grant(demo.device(name), "app", cohort)?;
        }
        demo.say(&format!("{} are in {cohort} by a grant that ben signed", names.join(", ")));
    }
    for device in &mut demo.devices {
        device.start()?;
    }
    for device in &demo.devices {
        device.poke()?;
    }
    demo.expect("every device has reached its server", STAGE, |demo| {
        demo.devices
            .iter()
            .all(|device| device.status().is_some_and(|status| status.contact.last.is_some()))
    });
    Ok(())
}

fn everybody_gets_1_0(demo: &mut Demo) -> Result<(), Error> {
    demo.chapter("Release 1.0.0, signed by two authors, started by two approvers, to everybody");
    let release = demo.world.release("app", "1.0.0", &Behaviour::Well, APP_PLAN)?;
    demo.world.start_rollout("app", "1.0.0", &release, &APP)?;
    demo.expect("every device runs 1.0.0", STAGE * 2, |demo| demo.all_but("app", "1.0.0", &[]));
    demo.expect("the rollout of 1.0.0 is complete", STAGE, |demo| {
        demo.rollout_is("app", "1.0.0", RolloutState::Complete)
    });
    Ok(())
}

fn restrictions(demo: &mut Demo) -> Result<(), Error> {
    demo.chapter("The customer restricts its own devices; operations pause a cohort");
    let pinned = demo.world.device_id(demo.device(PINNED))?;
    demo.world.lockgate("acme-admin", &["pin", "set", &pinned, "app", "n-1"])?;
    demo.say(&format!("{PINNED} is pinned to n-1 by its owner"));
    let foreign = demo.world.device_id(demo.device(DOGFOOD[0]))?;
    let reached = demo.world.lockgate("acme-admin", &["pin", "set", &foreign, "app", "n-1"]);
    demo.refused("acme's administrator cannot pin another tenant's device", reached, "no device");
    let reason = ["--reason", "the shop is full"];
    let pause = [&["cohort", "pause", "app", "general"][..], &reason[..]].concat();
    demo.world.lockgate("olga-laptop", &pause)?;
    demo.say("cohort general is paused by olga: the shop is full");
    Ok(())
}

fn a_good_release_climbs(demo: &mut Demo) -> Result<(), Error> {
    demo.chapter("Release 1.1.0 climbs: dogfood, early, general");
    let windowed = demo.world.device_id(demo.device(WINDOWED))?;
    let opens = window_start(demo.world.status()?.at);
    demo.world.lockgate(
        "acme-admin",
        &[
            "window",
            "set",
            &windowed,
            "--zone",
            "UTC",
            "--days",
            "mon,tue,wed,thu,fri,sat,sun",
            "--at",
            &opens,
            "--length",
            "30m",
        ],
    )?;
    demo.say(&format!("{WINDOWED} may install from {opens} UTC on, says its owner"));
    let release = demo.world.release("app", "1.1.0", &Behaviour::Well, APP_PLAN)?;
    demo.world.start_rollout("app", "1.1.0", &release, &APP)?;
    demo.expect("dogfood runs 1.1.0", STAGE, |demo| {
        DOGFOOD.iter().all(|name| runs(demo, name, "1.1.0"))
    });
    demo.expect("early follows", STAGE, |demo| EARLY.iter().all(|name| runs(demo, name, "1.1.0")));
    demo.expect("general waits and says that it is paused", STAGE, |demo| {
        GENERAL.iter().all(|name| says(demo, name, "1.1.0", "the shop is full"))
    });
    demo.expect(&format!("{WINDOWED} says that its window is closed besides"), POLL, |demo| {
        runs(demo, WINDOWED, "1.0.0") && says(demo, WINDOWED, "1.1.0", "maintenance window")
    });
    let early: Vec<&str> = [&DOGFOOD[..], &EARLY[..]].concat();
    let untouched = demo.only("app", "1.1.0", &early);
    demo.promise("nobody in general has 1.1.0", untouched);
    lift(demo)?;
    demo.expect("general follows, but for two", STAGE, |demo| {
        GENERAL[2..].iter().all(|name| runs(demo, name, "1.1.0"))
    });
    demo.expect(&format!("{PINNED} stays behind and says why"), POLL, |demo| {
        runs(demo, PINNED, "1.0.0") && says(demo, PINNED, "1.1.0", "pinned to n-1")
    });
    demo.expect("the rollout of 1.1.0 is complete", STAGE, |demo| {
        demo.rollout_is("app", "1.1.0", RolloutState::Complete)
    });
    Ok(())
}

fn lift(demo: &mut Demo) -> Result<(), Error> {
    let stops = demo.world.status()?.stops;
    let numbers: Vec<String> = stops.iter().map(|stop| stop.number.to_string()).collect();
    let mut arguments = vec!["rollout", "lift"];
    arguments.extend(numbers.iter().map(String::as_str));
    let policy = demo.world.policy()?;
    arguments.extend(["--reason", "the shop is empty", "--policy", &policy, "--out", "lift.json"]);
    demo.world.offline(&arguments)?;
    let unsigned = demo.world.lockgate("olga-laptop", &["act", "submit", "lift.json", "--wait"]);
    demo.refused("a lift that no approver signed is refused", unsigned, "approvals");
    demo.world.sign_and_submit("lift.json", &["ben"])?;
    demo.say(&format!("ben signed the lift of pause {}", numbers.join(", ")));
    Ok(())
}

fn a_bad_release_is_stopped(demo: &mut Demo) -> Result<(), Error> {
    demo.chapter("Release 1.2.0 crashes on the Slate 4");
    let bad = Behaviour::CrashesOn { model: "Slate 4".into() };
    let release = demo.world.release("app", "1.2.0", &bad, APP_PLAN)?;
    demo.world.start_rollout("app", "1.2.0", &release, &APP)?;
    demo.expect(&format!("{HARMED} tries 1.2.0"), STAGE, |demo| {
        demo.device(HARMED).version_on_disk("app").as_deref() == Some("1.2.0")
    });
    demo.world.kill_api();
    demo.say("the server is killed (SIGKILL)");
    demo.expect(&format!("{HARMED} goes back to 1.1.0 without any server"), STAGE, |demo| {
        runs(demo, HARMED, "1.1.0") && demo.device(HARMED).service_alive("app")
    });
    demo.world.start_api()?;
    demo.say("the server is back");
    demo.expect("the gate halts 1.2.0 at its first stage", STAGE, |demo| {
        demo.rollout_is("app", "1.2.0", RolloutState::Halted)
    });
    // A healthy device that was slower than the halt has not begun, and never will.
    demo.expect("nothing was lost: one rolled back, who else began confirmed", POLL, |demo| {
        let stage = demo.world.rollout("app", "1.2.0").and_then(|r| r.stages.into_iter().next());
        let counted = stage.is_some_and(|stage| {
            stage.rolled_back == 1 && stage.confirmed + stage.rolled_back == stage.treated
        });
        counted
            && demo.devices.iter().all(|device| {
                device.status().is_some_and(|status| status.contact.outcomes_waiting == 0)
            })
    });
    let healthy = demo.at_most("app", "1.2.0", &["bench-1", "bench-3"]);
    demo.promise("1.2.0 is on healthy dogfood devices and nowhere else", healthy);
    if let Some(reasons) = halt_reason(demo) {
        demo.say(&format!("the gate said: {reasons}"));
    }
    Ok(())
}

fn a_flipped_byte(demo: &mut Demo) -> Result<(), Error> {
    demo.chapter("An artifact with one flipped byte, offered to everybody at once");
    let release = demo.world.release("tools", "2.0.0", &Behaviour::Well, TOOLS_PLAN)?;
    for entry in fs::read_dir(release.join("artifacts"))? {
        let name = entry?.file_name();
        flip(&demo.world.path("api/artifacts").join(name))?;
    }
    demo.say("whoever holds the server's disk flips one bit of the artifact");
    demo.world.start_rollout("tools", "2.0.0", &release, &[("everyone", 12)])?;
    demo.expect("every device that may install refuses it", STAGE, |demo| {
        demo.devices.iter().filter(|device| device.plan.name != WINDOWED).all(got_other_bytes)
    });
    let nowhere = demo.only("tools", "2.0.0", &[]);
    demo.promise("no byte of it runs anywhere", nowhere);
    Ok(())
}

fn the_wrong_key(demo: &mut Demo) -> Result<(), Error> {
    demo.chapter("A rollout signed by the wrong keys");
    let release = demo.world.release("tools", "2.1.0", &Behaviour::Well, TOOLS_PLAN)?;
    let cohorts = [("everyone", 12)];
    let act = demo.world.write_start("tools", "2.1.0", &release, &cohorts)?;
    demo.world.sign_anyway(&act, &["ada", "alan"])?;
    let submitted = demo.world.lockgate("olga-laptop", &["act", "submit", &act, "--wait"]);
    demo.refused("the server refuses a start that authors signed", submitted, "approvals");
    let forged = demo.world.forge_rollout("tools", &act);
    demo.done("a thief with every online key writes it into the repository all the same", forged);
    demo.expect("every device refuses it and says so", STAGE, |demo| {
        demo.devices.iter().all(|device| device.refusals("tools").contains("start does not count"))
    });
    let nowhere = demo.only("tools", "2.1.0", &[]);
    demo.promise("no device runs it", nowhere);
    demo.world.start_gatekeeper()?;
    demo.say("the true gatekeeper is back");
    Ok(())
}

fn the_window_opens(demo: &mut Demo) {
    demo.chapter("The maintenance window opens");
    demo.expect(&format!("{WINDOWED} installs 1.1.0 when its window opens"), MINUTE, |demo| {
        runs(demo, WINDOWED, "1.1.0")
    });
    demo.expect(&format!("{WINDOWED} too refuses the flipped byte"), POLL, |demo| {
        got_other_bytes(demo.device(WINDOWED))
    });
}

fn got_other_bytes(device: &Device) -> bool {
    device.product("tools").is_some_and(|tools| {
        tools.running.is_none() && tools.state_text.contains("other bytes than the signed ones")
    })
}

fn stop_everything(demo: &mut Demo) -> Result<(), Error> {
    demo.chapter("One command stops everything");
    demo.world.lockgate("olga-laptop", &["stop", "--everything", "--reason", "drill"])?;
    demo.expect("every device says so within a poll", POLL, |demo| {
        demo.devices
            .iter()
            .filter_map(Device::status)
            .all(|status| status.stops.iter().any(|stop| stop.contains("everything: drill")))
    });
    let verified = demo.world.offline(&["audit", "verify", "gatekeeper/audit.log"]);
    demo.done("the gatekeeper's audit chain verifies offline", verified);
    Ok(())
}

fn runs(demo: &Demo, name: &str, version: &str) -> bool {
    let device = demo.device(name);
    device.version_on_disk("app").as_deref() == Some(version)
        && device.product("app").is_some_and(|status| {
            status.running.as_ref().is_some_and(|running| running.to_string() == version)
                && status.trial.is_none()
        })
}

fn says(demo: &Demo, name: &str, version: &str, word: &str) -> bool {
    demo.device(name).reasons("app", version).iter().any(|reason| reason.contains(word))
}

fn halt_reason(demo: &Demo) -> Option<String> {
    let status = demo.world.status().ok()?;
    status.stops.iter().map(|stop| stop.reason.clone()).next_back()
}

/// The first full minute that leaves a third of one to prepare.
fn window_start(now: Moment) -> String {
    let minute = (now.0 + 20).div_euclid(60) + 1;
    format!("{:02}:{:02}", minute.div_euclid(60).rem_euclid(24), minute.rem_euclid(60))
}

fn flip(path: &Path) -> Result<(), Error> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    Ok(fs::write(path, bytes)?)
}

/// Three devices at first, and as many that are well.
const GATE: Gate = Gate { min_devices: 3, silence_after_s: 30, ..Gate::CAREFUL };
/// All files of the release arrived.
const WHOLE: &str = r#"{ name = "complete", kind = "command", argv = ["/bin/sh", "-c", "test -s etc/version"], timeout_s = 5, interval_s = 1 }"#;
/// Three stages whose times are seconds: they are fields of the ladder.
const APP_PLAN: Plan<'static> = Plan {
    kind: "app",
    trial: Trial { soak_s: 2, deadline_s: 8, attempts: 3, probes: &[ALIVE, WHOLE] },
    stages: &[
        Stage { cohort: "dogfood", floor_s: 0, bake_s: 2, gate: GATE },
        Stage { cohort: "early", floor_s: 2, bake_s: 2, gate: GATE },
        Stage { cohort: "general", floor_s: 4, bake_s: 2, gate: GATE },
    ],
};

/// One stage that lets everybody in at once.
const TOOLS_PLAN: Plan<'static> = Plan {
    kind: "app",
    trial: Trial { soak_s: 2, deadline_s: 8, attempts: 3, probes: &[ALIVE] },
    stages: &[Stage {
        cohort: "everyone",
        floor_s: 0,
        bake_s: 2,
        gate: Gate { first_devices: 100, growth: 1, ..GATE },
    }],
};
