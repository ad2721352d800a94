//! The story itself, chapter by chapter. Each chapter makes promises; each promise is checked on the
//! devices' own disks or by what the gatekeeper counted.

use std::{fs, path::Path, time::Duration};

use lockgate_server::status::RolloutState;
use lockgate_shared::{rollout::StopKind, time::Moment};

use super::{Demo, table};
use crate::world::{
    Device, DevicePlan, Error, PROFILES, Profile,
    app::Behaviour,
    plan::{ALIVE, By, Gate, Plan, Stage, Trial},
};

/// One of each hardware profile, in dogfood by grant.
const DOGFOOD: [&str; 3] = ["bench-1", "bench-2", "bench-3"];
/// One of each, in early by grant.
const EARLY: [&str; 3] = ["desk-1", "desk-2", "desk-3"];
/// A customer's devices: without a grant they are in the last cohort.
const GENERAL: [&str; 12] = [
    "till-1", "till-2", "till-3", "till-4", "till-5", "till-6", "till-7", "till-8", "till-9",
    "till-10", "till-11", "till-12",
];
/// The same customer's devices of a kind that neither dogfood nor early has.
const PANELS: [&str; 6] = ["panel-1", "panel-2", "panel-3", "panel-4", "panel-5", "panel-6"];
/// Their model.
const PANEL: &str = "Panel 9";
/// The one whose owner stays a release behind.
const PINNED: &str = "till-1";
/// The one with a maintenance window.
const WINDOWED: &str = "till-2";
/// The dogfood device of the model on which 1.2.0 crashes.
const HARMED: &str = "bench-2";

/// Cohorts of `app` and how many devices each has.
const APP: [(&str, u32); 3] = [("dogfood", 3), ("early", 3), ("general", 18)];
/// All of them.
const FLEET: u32 = 24;

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
    let opens = a_good_release_climbs(demo)?;
    a_bad_release_is_stopped(demo)?;
    a_flipped_byte(demo)?;
    the_wrong_key(demo)?;
    a_bad_model_is_held(demo)?;
    the_window_opens(demo, opens);
    stop_everything(demo)
}

fn a_fleet(demo: &mut Demo) -> Result<(), Error> {
    demo.chapter("A server, its gatekeeper, and twenty-four devices of four kinds");
    demo.world.start()?;
    demo.say("two server processes run: the letter box and the gatekeeper");
    let panel = [Profile { vendor: "Borg", model: PANEL, firmware: "3.4" }];
    let groups: [(&[&str], &str, &[Profile]); 4] = [
        (&DOGFOOD, "globex", &PROFILES),
        (&EARLY, "globex", &PROFILES),
        (&GENERAL, "acme", &PROFILES),
        (&PANELS, "acme", &panel),
    ];
    for (names, tenant, profiles) in groups {
        let count = names.len().to_string();
        let token = demo.world.enrolment_token(tenant, &count)?;
        for (index, name) in names.iter().enumerate() {
            let plan = DevicePlan {
                name: (*name).to_owned(),
                tenant: tenant.to_owned(),
                profile: profiles[index % profiles.len()].clone(),
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
    let release = demo.world.release("app", "1.0.0", &Behaviour::Well, FIRST_PLAN)?;
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

/// Returns when the windowed device's window opens.
fn a_good_release_climbs(demo: &mut Demo) -> Result<Moment, Error> {
    demo.chapter("Release 1.1.0 climbs: dogfood, early, general");
    let windowed = demo.world.device_id(demo.device(WINDOWED))?;
    let opens = window_start(demo.world.status()?.at);
    let at = time_of_day(opens);
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
            &at,
            "--length",
            "30m",
        ],
    )?;
    demo.say(&format!("{WINDOWED} may install from {at} UTC on, says its owner"));
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
    Ok(opens)
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

fn a_bad_model_is_held(demo: &mut Demo) -> Result<(), Error> {
    demo.chapter("Release 1.3.0 crashes on a model that only customers have");
    let bad = Behaviour::CrashesOn { model: PANEL.into() };
    let release = demo.world.release("app", "1.3.0", &bad, TRIAL_PLAN)?;
    demo.world.start_rollout("app", "1.3.0", &release, &APP)?;
    demo.expect("dogfood and early run 1.3.0: neither has the model", STAGE * 2, |demo| {
        [DOGFOOD, EARLY].concat().iter().all(|name| runs(demo, name, "1.3.0"))
    });
    demo.expect(&format!("the gate holds {PANEL}, and nothing else"), STAGE * 4, |demo| {
        let stops = demo.world.status().map(|status| status.stops).unwrap_or_default();
        matches!(&stops[..], [.., stop] if stop.kind == StopKind::Hold && stop.reason.contains(PANEL))
    });
    if let Some(reason) = halt_reason(demo) {
        demo.say(&format!("the gate said: {reason}"));
        let id = demo.world.rollout("app", "1.3.0").map(|rollout| rollout.rollout.to_string());
        let explain = ["rollout", "explain", &id.unwrap_or_default()];
        let said = demo.world.lockgate("olga-laptop", &explain)?;
        demo.promise("`lockgate rollout explain` says the same", said.contains(&reason));
    }
    demo.expect("the healthy models of general go on, but for two", STAGE, |demo| {
        GENERAL[2..].iter().all(|name| runs(demo, name, "1.3.0"))
    });
    demo.expect("every harmed device is back on 1.1.0", POLL, |demo| {
        PANELS.iter().all(|name| runs(demo, name, "1.1.0"))
    });
    let harmed = demo
        .world
        .rollout("app", "1.3.0")
        .map(|rollout| rollout.stages.iter().map(|stage| stage.rolled_back).sum::<u32>());
    let few = harmed.is_some_and(|harmed| (1..6).contains(&harmed));
    demo.promise(&format!("{} of six were harmed", harmed.unwrap_or_default()), few);
    demo.expect("those that were spared say that they are held", POLL, |demo| {
        let held = |name: &&&str| says(demo, name, "1.3.0", "hold");
        PANELS.iter().filter(held).count() == PANELS.len()
    });
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
    demo.world.start_rollout("tools", "2.0.0", &release, &[("everyone", FLEET)])?;
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
    let cohorts = [("everyone", FLEET)];
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

fn the_window_opens(demo: &mut Demo, opens: Moment) {
    demo.chapter("The maintenance window opens");
    demo.expect(&format!("{WINDOWED} runs 1.3.0"), MINUTE, |demo| runs(demo, WINDOWED, "1.3.0"));
    let first = demo.left(WINDOWED, "app", "1.0.0");
    demo.promise(
        &format!("{WINDOWED} left 1.0.0 once {} had struck, not before", time_of_day(opens)),
        first.is_some_and(|first| first >= opens),
    );
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
const fn window_start(now: Moment) -> Moment {
    Moment(((now.0 + 20).div_euclid(60) + 1) * 60)
}

fn time_of_day(at: Moment) -> String {
    let minute = at.0.div_euclid(60);
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
/// Everybody at once.
const AT_ONCE: Gate = Gate { first_devices: 100, growth: 1, ..GATE };
/// All files of the release arrived.
const WHOLE: &str = r#"{ name = "complete", kind = "command", argv = ["/bin/sh", "-c", "test -s etc/version"], timeout_s = 5, interval_s = 1 }"#;
/// Three stages so many seconds apart, because times are fields of the ladder: two of a few devices that are
/// counted, and the customers' with its bake.
const fn ladder(
    pace_s: u32,
    few: Gate,
    (bake_s, customers): (u32, By<'static>),
) -> [Stage<'static>; 3] {
    let by = By::Count(few);
    [
        Stage { cohort: "dogfood", floor_s: 0, bake_s: pace_s, by },
        Stage { cohort: "early", floor_s: pace_s, bake_s: pace_s, by },
        Stage { cohort: "general", floor_s: 2 * pace_s, bake_s, by: customers },
    ]
}

/// Each stage is counted.
const APP_PLAN: Plan<'static> = Plan {
    kind: "app",
    trial: Trial { soak_s: 2, deadline_s: 8, attempts: 3, probes: &[ALIVE, WHOLE] },
    stages: &ladder(2, GATE, (2, By::Count(GATE))),
};

/// The same, but that each cohort is let in at once: nothing runs yet that could break.
const FIRST_PLAN: Plan<'static> =
    Plan { stages: &ladder(1, AT_ONCE, (1, By::Count(AT_ONCE))), ..APP_PLAN };

/// The same, but that the customers' stage is a randomised trial. Its slots are two seconds, and groups of
/// three prove themselves, because the fleet is small.
const TRIAL_PLAN: Plan<'static> = Plan {
    trial: Trial { deadline_s: 6, ..APP_PLAN.trial },
    stages: &ladder(1, GATE, (2, By::Trial(TERMS))),
    ..APP_PLAN
};
pub(super) const TERMS: &[(&str, u32)] = &[
    ("slot_s", 2),
    ("first_devices", 3),
    ("sentinels", 3),
    ("first_live", 3),
    ("sentinel_live", 4),
    ("canary_from", 5),
    ("canary_full", 7),
    ("canary_roots_percent", 180),
    ("ramp_from", 10),
    ("ramp_to", 13),
    ("ramp_growth_percent", 100),
    ("open_at", 15),
    ("ramp_live", 5),
    ("soak", 6),
    ("cover_from", 8),
    ("soak_falls_from", 10),
    ("soak_day", 3),
    ("soak_least", 3),
    ("group_least", 3),
    ("room_last", 2),
    ("group_share_ppm", 400_000),
    ("held_share_ppm", 500_000),
    ("near", 2),
    ("patience", 3),
    ("redraw", 3),
    ("spare", 6),
    ("min_devices", 5),
];

/// One stage that lets everybody in at once.
const TOOLS_PLAN: Plan<'static> = Plan {
    kind: "app",
    trial: Trial { soak_s: 2, deadline_s: 8, attempts: 3, probes: &[ALIVE] },
    stages: &[Stage { cohort: "everyone", floor_s: 0, bake_s: 2, by: By::Count(AT_ONCE) }],
};

#[cfg(test)]
mod tests {
    use lockgate_server::{
        release::plan::ReleasePlan,
        rollout::trial::{
            BEFORE, Letter, Trial,
            judge::Verdict,
            roster::{Likeness, Member, Noise, Roster, expected},
            terms::Terms,
        },
    };
    use lockgate_shared::{
        bucket::Bucket,
        facts::Facts,
        group::{Habit, groups_of},
        id::{DeviceId, Digest},
        manifest,
    };

    use super::*;

    /// What a lot made of the customers' stage.
    struct Told {
        /// Who began.
        began: Vec<bool>,
        held: Vec<String>,
        /// The first slot after which something was held.
        held_at: Option<u32>,
        verdict: Verdict,
    }

    /// The customers' stage as the story tells it: the last six fail three slots after they begin, the
    /// others are well then; the first is pinned, and the second's window opens in this slot.
    fn told(salt: u32, window: u32) -> Told {
        let plan = ReleasePlan::from_toml(&TRIAL_PLAN.to_string()).expect("a plan");
        let ladder = plan.ladder.ladder(None).expect("explicit");
        let manifest::Gate::Trial(terms) = &ladder.stages[2].gate else { panic!("a trial") };
        let kind = |model: &str| {
            let facts = Facts { vendor: "A".into(), model: model.into(), ..Facts::default() };
            let groups = groups_of(&facts, Habit::Unknown).into_iter();
            let share = expected(0, 6);
            Likeness {
                groups: groups.map(|group| (group.id, group.kind, group.label)).collect(),
                habit: Habit::Unknown,
                zone: 0,
                noise: Noise { prompt: share, late: share },
            }
        };
        let kinds = ["Slate 3", "Slate 4", "Tower", PANEL].map(kind).into();
        let salt = Digest::of(&salt.to_be_bytes());
        let member = |device: u32| Member {
            kind: if device < 12 { device % 3 } else { 3 },
            bucket: Bucket::of(
                &salt,
                &"stable".parse().expect("a name"),
                &DeviceId(Digest::of(&device.to_be_bytes()).0),
            ),
        };
        let roster = Roster::new(kinds, (0..18).map(member).collect());
        let mut trial = Trial::new(Terms::of(terms, 1_000_000), roster, salt);
        let mut began = [None; 18];
        let mut held_at = None;
        for slot in 0..90 {
            trial.begin_hour(BEFORE + slot);
            for device in 0..18 {
                let place = device as usize;
                match began[place] {
                    None if device == 0 || device == 1 && slot < window => {
                        trial.letter(device, Letter::Kept);
                    }
                    None => {
                        trial.letter(device, Letter::AtRisk);
                        if trial.admits(device) {
                            began[place] = Some(slot);
                            trial.letter(device, Letter::Begins);
                        }
                    }
                    Some(at) if device >= 12 && slot == at + 3 => {
                        trial.letter(device, Letter::Failed(None));
                    }
                    Some(at) if device < 12 && slot == at + 3 => {
                        trial.letter(device, Letter::Healthy);
                    }
                    Some(_) => trial.letter(device, Letter::On),
                }
            }
            if held_at.is_none() && !trial.holds().is_empty() {
                held_at = Some(slot);
            }
        }
        Told {
            began: began.map(|at| at.is_some()).to_vec(),
            held: trial.holds().iter().map(|hold| hold.sentence.clone()).collect(),
            held_at,
            verdict: *trial.verdict(),
        }
    }

    #[test]
    fn however_the_lots_fall_the_bad_model_is_held_alone_and_the_others_go_on() {
        const LOTS: u32 = 200;
        let (mut harmed_in_all, mut slots) = (0, Vec::new());
        for lot in 0..LOTS {
            let Told { began, held, held_at, verdict } = told(lot, lot % 20);
            assert_eq!(verdict, Verdict::Open, "lot {lot}: {held:?}");
            assert!(matches!(&held[..], [only] if only.contains(PANEL)), "lot {lot}: {held:?}");
            assert!(began[1..12].iter().all(|began| *began), "lot {lot}: the healthy go on");
            let harmed = began[12..].iter().filter(|began| **began).count();
            assert!((1..6).contains(&harmed), "lot {lot}: {harmed} were harmed");
            harmed_in_all += harmed;
            slots.extend(held_at);
        }
        assert!(harmed_in_all * 2 <= LOTS as usize * 7, "{harmed_in_all} in {LOTS} lots");
        slots.sort_unstable();
        let late = slots[slots.len() * 9 / 10];
        assert!(late <= 36, "a tenth of the lots are held after {late} slots of two seconds");
    }
}
