//! Release, cohort and gate: entries 22 to 24 and 26 to 30. The stolen server (25) has a module of its
//! own.

use std::collections::BTreeSet;

use lockgate_server::clock;
use lockgate_shared::{
    act::{Act, Approval, Lift, SignedAct},
    bucket::{Bucket, Limit},
    id::{Digest, RolloutId},
    manifest::{Manifest, StageApproval},
    rollout::{PassedStop, RolloutEntry, Scope, Stop, StopKind},
    time::{Moment, Seconds},
    wire::{Directive, Format, Orders},
};
use lockgate_test_fleet::hostile::Reply;

use crate::{
    forge::{Forge, Goods, PRODUCT, stage},
    stage::{BEFORE, Victim},
};

/// A release of this suite that must not be installed.
const OFFERED: &str = "6.6.6";

#[test]
fn e22_a_release_for_other_hardware_another_product_or_another_repository_is_refused() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    let cases: [(fn(&mut Manifest), &str); 5] = [
        (|m| m.compatibility.models = ["Borg Tower".into()].into(), "not for this hardware model"),
        (|m| m.compatibility.os_ids = ["plan9".into()].into(), "not for this operating system"),
        (|m| m.compatibility.min_ram_mib = Some(u32::MAX), "MiB of memory"),
        (|m| m.artifacts[0].arch = Some("riscv128".into()), "no artifact for this platform"),
        (
            |m| m.artifacts[0].models = ["Acme Slate 4".into()].into(),
            "no artifact for this platform",
        ),
    ];
    for (change, words) in cases {
        let mut goods = Goods::new(OFFERED);
        change(&mut goods.manifest);
        victim.serve(&honest, |own| own.roll_out(&goods));
        victim.held(OFFERED, &[words]);
        victim.operator_reads(&[words]);
        victim.unharmed(&kept, &believed);
    }
    // Another product's manifest under this product's name, started as this product.
    let mut other = Goods::new(OFFERED);
    other.manifest.product = "app".parse().expect("a name");
    victim.serve(&honest, |own| {
        own.artifacts.insert(other.digest(), other.archive.clone());
        let bytes = serde_json::to_vec(&other.manifest).expect("JSON");
        own.target("releases-tools", "releases/tools/6.6.6.json", &bytes);
        own.publish("releases-tools");
        let start = own.start_with(&other.manifest, &["ben", "eva"], |start| {
            start.product = PRODUCT.parse().expect("a name");
        });
        own.file_of(PRODUCT).rollouts.push(Forge::entry(start));
        own.say();
    });
    victim.held(OFFERED, &["its start is not the start of this rollout and product"]);
    victim.unharmed(&kept, &believed);
    // Another model's, product's or repository's rollout file in the place of the own.
    let files: [fn(&mut lockgate_shared::rollout::RolloutFile); 2] = [
        |file| file.repository = "elsewhere".parse().expect("a name"),
        |file| file.product = "app".parse().expect("a name"),
    ];
    for change in files {
        victim.serve(&honest, |own| {
            let path = format!("rollouts/{PRODUCT}/{}.bin", crate::forge::model());
            let mut file = own.file_of(PRODUCT).clone();
            change(&mut file);
            let bytes = lockgate_shared::wire::encode_rollout_file(&file).expect("a file");
            own.target("rollouts", &path, &bytes);
            own.publish("rollouts");
            own.chain();
        });
        victim.notes(&["is about another repository, product or model"]);
        victim.unharmed(&kept, &believed);
    }
    let asked = victim.front.paths();
    let digest = Goods::new(OFFERED).digest();
    assert!(!asked.contains(&format!("/artifacts/{digest}")), "nothing of it was fetched");
}

#[test]
fn e23_parts_of_two_releases_are_never_activated_together() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let (one, two) = (Goods::new("1.1.0"), Goods::new("1.2.0"));
    // The list of one release over the archive of another, well signed in each part.
    let mut mixed = one;
    mixed.archive = two.archive.clone();
    let mixed = mixed.sealed();
    victim.forge().roll_out(&mixed);
    victim.counted(&mixed);
    victim.says(&["etc/version", "sign"]);
    victim.unharmed(&kept, &believed);
    // The other release's archive under this one's name.
    let honest = victim.forge().clone();
    let real = Goods::new("1.3.0");
    victim.serve(&honest, |own| own.roll_out(&real));
    let body = two.archive;
    let path = format!("/artifacts/{}", real.digest());
    victim.attack_path(&path, move || Reply::file(body.clone()));
    victim.counted(&real);
    victim.says(&["bytes"]);
    victim.unharmed(&kept, &believed);
}

#[test]
fn e24_nothing_is_activated_before_all_of_it_is_there_and_the_missing_part_is_named() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let whole = Goods::new("1.1.0");
    // A part of the archive, whose own bytes are signed: it lacks a listed file.
    let folder = tempfile::tempdir().expect("a folder");
    let well = lockgate_test_fleet::world::app::Behaviour::Well;
    lockgate_test_fleet::world::app::write_version(folder.path(), "1.1.0", &well).expect("files");
    std::fs::remove_file(folder.path().join("etc/version")).expect("removed");
    let mut part = whole;
    part.archive = Goods::of_folder("1.1.0", folder.path()).archive;
    let part = part.sealed();
    victim.forge().roll_out(&part);
    victim.counted(&part);
    victim.says(&["`etc/version` is in the signed list and not in the archive"]);
    victim.operator_reads(&["`etc/version` is in the signed list and not in the archive"]);
    victim.unharmed(&kept, &believed);
    // Some requests pass and the payload never does.
    let honest = victim.forge().clone();
    let other = Goods::new("1.2.0");
    victim.serve(&honest, |own| own.roll_out(&other));
    let path = format!("/artifacts/{}", other.digest());
    victim.attack_path(&path, Reply::missing);
    victim.counted(&other);
    victim.says(&[&path, "no such file"]);
    victim.unharmed(&kept, &believed);
    victim.be_honest();
    victim.rest_on("1.2.0");
}

/// A release whose ladder has a stage before the device's own.
fn two_stages(change: impl FnOnce(&mut Manifest)) -> Goods {
    let mut goods = Goods::new(OFFERED);
    goods.manifest.ladder.stages = vec![stage("first"), stage("everyone")];
    change(&mut goods.manifest);
    goods
}

/// Releases it as authors do, starts it as approvers do, and has a thief with the gatekeeper's keys
/// make its entry.
fn open_by_thief(
    own: &mut Forge,
    goods: &Goods,
    moment: Moment,
    thief: impl FnOnce(&mut RolloutEntry),
) {
    own.artifacts.insert(goods.digest(), goods.archive.clone());
    own.release(&goods.manifest);
    let start = own.start_with(&goods.manifest, &["ben", "eva"], |start| start.moment = moment);
    let mut entry = Forge::entry(start);
    thief(&mut entry);
    own.file_of(PRODUCT).rollouts.push(entry);
    own.say();
}

#[test]
fn e26_a_stolen_gatekeeper_moves_only_within_what_people_signed() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    let long_ago = clock::now().minus(Seconds(7_200));
    let limited = |manifest: &mut Manifest| manifest.ladder.stages[0].ceiling_ppm = 1;
    let asks = |manifest: &mut Manifest| {
        manifest.ladder.stages[1].approval = StageApproval::Required;
    };
    let covered = |manifest: &mut Manifest| manifest.ladder.coverage_max = 2;
    let plain = |_: &mut Manifest| ();
    let cases: [(&dyn Fn(&mut Manifest), &dyn Fn(&mut RolloutEntry), &str); 6] = [
        (&limited, &|_| (), "has a limit above its ceiling"),
        (&asks, &|_| (), "needs an approval that is missing"),
        (
            &covered,
            &|entry| entry.coverage = vec![Bucket(1), Bucket(2), Bucket(3)],
            "coverage list",
        ),
        (
            &plain,
            &|entry| {
                entry.stages.remove(0);
            },
            "not opened in the ladder's order",
        ),
        (&plain, &|entry| entry.stages.push(entry.stages[1].clone()), "in the ladder's order"),
        (&plain, &|entry| entry.rollout = RolloutId([7; 32]), "its start is not the start"),
    ];
    for (change, thief, words) in cases {
        let goods = two_stages(change);
        victim.serve(&honest, |own| open_by_thief(own, &goods, long_ago, thief));
        victim.held(OFFERED, &[words]);
        victim.unharmed(&kept, &believed);
    }
    victim.operator_reads(&["version 1.0.0 runs"]);
    // An entry of the coverage list that was seen does not go again.
    let goods = two_stages(|manifest| {
        covered(manifest);
        manifest.notes = "another rollout".into();
    });
    let list = |buckets: Vec<Bucket>| {
        let goods = goods.clone();
        move |own: &mut Forge| {
            open_by_thief(own, &goods, long_ago, |entry| {
                entry.stages.clear();
                entry.coverage = buckets;
            });
        }
    };
    victim.serve(&honest, list(vec![Bucket(1), Bucket(2)]));
    victim.held(OFFERED, &["is not open"]);
    victim.serve(&honest, list(vec![Bucket(1), Bucket(3)]));
    victim.held(OFFERED, &["its coverage list lost an entry"]);
    victim.unharmed(&kept, &believed);
}

#[test]
fn e26_within_the_signed_ladder_a_stolen_gatekeeper_opens_and_that_is_the_bound_of_its_damage() {
    let mut victim = Victim::installed();
    let goods = two_stages(|_| ());
    let long_ago = clock::now().minus(Seconds(7_200));
    // Floors have passed, bakes are none: everything that people signed may be open now.
    open_by_thief(&mut victim.forge(), &goods, long_ago, |_| ());
    victim.rest_on(OFFERED);
}

#[test]
fn e26_a_coverage_list_that_was_refused_does_not_bind_the_gatekeeper_that_comes_after() {
    let mut victim = Victim::installed();
    let honest = victim.forge().clone();
    let goods = Goods::new(OFFERED);
    let with = |list: Vec<Bucket>| {
        let goods = goods.clone();
        move |own: &mut Forge| {
            own.artifacts.insert(goods.digest(), goods.archive.clone());
            own.release(&goods.manifest);
            let mut entry = Forge::entry(own.start(&goods.manifest, &["ben", "eva"]));
            entry.stages[0].limit = Limit::EVERYBODY;
            entry.coverage = list;
            own.file_of(PRODUCT).rollouts.push(entry);
            own.say();
        }
    };
    victim.serve(&honest, with((1..=6).map(Bucket).collect()));
    victim.held(OFFERED, &["its coverage list has 6 entries, the ladder allows 5"]);
    victim.serve(&honest, with(Vec::new()));
    victim.rest_on(OFFERED);
}

#[test]
fn e26_a_stolen_gatekeepers_keys_are_revoked_within_one_poll() {
    let mut victim = Victim::installed();
    let kept = victim.kept();
    let honest = victim.forge().clone();
    // The operator names other online keys: two by root, one by targets.
    let repaired = victim.serve(&honest, |own| {
        own.appoint("timestamp", &["next-1"], 1);
        own.appoint("snapshot", &["next-2"], 1);
        own.publish("root");
        let (id, json) = (own.key_id("next-3"), own.key_json("next-3"));
        own.role("targets")["delegations"]["keys"][&id] = json;
        own.delegation("rollouts")["keyids"] = serde_json::json!([id]);
        own.publish("targets");
        own.publish_by("rollouts", &["next-3"]);
        own.publish_by("snapshot", &["next-2"]);
        own.publish_by("timestamp", &["next-1"]);
    });
    victim.believes();
    let believed = victim.believed();
    // The thief goes on with the old keys, as far as each reaches.
    let long_ago = clock::now().minus(Seconds(7_200));
    let goods = two_stages(|_| ());
    let stolen = |own: &mut Forge| open_by_thief(own, &goods, long_ago, |_| ());
    victim.serve(&repaired, stolen);
    victim.refused(&["`timestamp` has 0 valid signatures and needs 1"]);
    victim.unharmed(&kept, &believed);
    victim.serve(&repaired, |own| {
        stolen(own);
        own.publish_by("snapshot", &["next-2"]);
        own.publish_by("timestamp", &["next-1"]);
    });
    victim.notes(&["`rollouts` has 0 valid signatures and needs 1"]);
    victim.unharmed(&kept, &believed);
}

#[test]
fn e27_a_skipped_or_back_dated_opening_is_refused() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    let now = clock::now();
    // The floor counts from the signed start, whatever the opening claims.
    let floor = |manifest: &mut Manifest| manifest.ladder.stages[1].floor_s = Seconds(3_600);
    let goods = two_stages(floor);
    victim.serve(&honest, |own| open_by_thief(own, &goods, now, |_| ()));
    victim.held(OFFERED, &["stage `everyone` was opened before its floor"]);
    victim.unharmed(&kept, &believed);
    // An opening that claims the floor's own moment, in the future: the device asks its own clock.
    victim.serve(&honest, |own| {
        open_by_thief(own, &goods, now, |entry| entry.stages[1].opened = now.plus(Seconds(3_600)));
    });
    victim.held(OFFERED, &["its stage opens no earlier than"]);
    victim.unharmed(&kept, &believed);
    // A bake that the claimed moments do not hold, and one that only the device's own eyes deny.
    let bake = |manifest: &mut Manifest| manifest.ladder.stages[0].bake_s = Seconds(3_600);
    let goods = two_stages(bake);
    let long_ago = now.minus(Seconds(7_200));
    victim.serve(&honest, |own| open_by_thief(own, &goods, long_ago, |_| ()));
    victim.held(OFFERED, &["before the stage before it had baked"]);
    victim.serve(&honest, |own| {
        open_by_thief(own, &goods, long_ago, |entry| {
            entry.stages[1].opened = long_ago.plus(Seconds(3_600));
        });
    });
    victim.held(OFFERED, &["the stage before `everyone` bakes until"]);
    victim.operator_reads(&["the stage before `everyone` bakes until"]);
    victim.unharmed(&kept, &believed);
}

#[test]
fn e28_an_approval_counts_once_for_one_person_and_one_rollout_alone() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    let goods = Goods::new(OFFERED);
    let wrong: [(&[&str], &str); 6] = [
        (&[], "0 of 2 approvals"),
        (&["ben"], "1 of 2 approvals"),
        (&["ben", "ben"], "1 of 2 approvals"),
        (&["ben", "ada"], "1 of 2 approvals"),
        (&["ada", "alan"], "0 of 2 approvals"),
        (&["thief-1", "thief-2", "targets-1", "root-1"], "0 of 2 approvals"),
    ];
    for (people, words) in wrong {
        victim.serve(&honest, |own| {
            own.release(&goods.manifest);
            let start = own.start(&goods.manifest, people);
            own.file_of(PRODUCT).rollouts.push(Forge::entry(start));
            own.say();
        });
        victim.says_of_candidates(&["its start does not count", words]);
        victim.unharmed(&kept, &believed);
    }
    // A start that people signed for another release, and one whose text was changed afterwards.
    let foreign: [fn(&Forge, &Goods) -> SignedAct; 2] = [
        |own, _| own.start(&Goods::new("6.6.5").manifest, &["ben", "eva"]),
        |own, goods| {
            let mut start = own.start(&Goods::new("6.6.5").manifest, &["ben", "eva"]);
            let own_start = own.start(&goods.manifest, &[]);
            start.text = own_start.text;
            start
        },
    ];
    for make in foreign {
        victim.serve(&honest, |own| {
            own.release(&goods.manifest);
            let mut entry = Forge::entry(make(own, &goods));
            entry.rollout = RolloutId::of(
                &Digest::of(&serde_json::to_vec(&goods.manifest).expect("JSON")),
                &"stable".parse().expect("a name"),
            );
            own.file_of(PRODUCT).rollouts.push(entry);
            own.say();
        });
        victim.says_of_candidates(&["its start"]);
        victim.unharmed(&kept, &believed);
    }
    // A stage's approval: of another stage, of another rollout, by an author.
    let asks = two_stages(|manifest| {
        manifest.ladder.stages[1].approval = StageApproval::Required;
    });
    let long_ago = clock::now().minus(Seconds(7_200));
    let manifest = Digest::of(&serde_json::to_vec(&asks.manifest).expect("JSON"));
    let rollout = RolloutId::of(&manifest, &"stable".parse().expect("a name"));
    let approval = |rollout, stage, by: &[&str]| {
        let act = Act::Approve(Approval {
            repository: "trial".parse().expect("a name"),
            rollout,
            manifest,
            stage,
            cohort: "everyone".parse().expect("a name"),
        });
        honest.act(&act, by)
    };
    let other = RolloutId([3; 32]);
    for wrong in [
        approval(rollout, 0, &["ben"]),
        approval(other, 1, &["ben"]),
        approval(rollout, 1, &["ada"]),
    ] {
        victim.serve(&honest, |own| {
            open_by_thief(own, &asks, long_ago, |entry| entry.approvals = vec![wrong]);
        });
        victim.held(OFFERED, &["needs an approval that is missing"]);
        victim.unharmed(&kept, &believed);
    }
    let right = approval(rollout, 1, &["eva"]);
    victim.serve(&honest, |own| {
        open_by_thief(own, &asks, long_ago, |entry| entry.approvals = vec![right]);
    });
    victim.rest_on(OFFERED);
}

#[test]
fn e29_a_stop_once_seen_binds_until_approvers_lift_it_by_its_number() {
    let mut victim = Victim::installed();
    let honest = victim.forge().clone();
    let goods = Goods::new(OFFERED);
    let stop = |scope| Stop {
        number: 4,
        kind: StopKind::Pause,
        scope,
        since: clock::now(),
        reason: "smoke in the lab".into(),
    };
    victim.serve(&honest, |own| {
        own.file_of(PRODUCT).stops = vec![stop(Scope::Everything)];
        own.say();
    });
    victim.expect("the stop is seen", |status| {
        status.stops.iter().any(|stop| stop.contains("pause 4, everything: smoke in the lab"))
    });
    victim.owner_reads("status", &["pause 4, everything: smoke in the lab"]);
    let (kept, believed) = (victim.kept(), victim.believed());
    // The operator sees who has confirmed it.
    let shown = |victim: &Victim| victim.operator(&["device", "show", &victim.id]);
    victim.polled_again();
    assert!(shown(&victim).contains("highest stop  4"), "{}", shown(&victim));

    // The thief withholds it, narrows it, or lifts it without an approver.
    let lift = |by: &[&str], number| {
        let act = Act::Lift(Lift {
            repository: "trial".parse().expect("a name"),
            numbers: BTreeSet::from([number]),
            reason: "all is well".into(),
        });
        honest.act(&act, by)
    };
    let narrow = Scope::Product("app".parse().expect("a name"));
    let moves: [(Vec<Stop>, Vec<SignedAct>); 5] = [
        (Vec::new(), Vec::new()),
        (vec![stop(narrow)], Vec::new()),
        (Vec::new(), vec![lift(&["ada", "alan"], 4)]),
        (Vec::new(), vec![lift(&["thief-1"], 4)]),
        (Vec::new(), vec![lift(&["ben"], 5)]),
    ];
    for (stops, lifts) in moves {
        victim.serve(&honest, |own| {
            own.file_of(PRODUCT).stops = stops;
            own.file_of(PRODUCT).lifts = lifts;
            own.roll_out(&goods);
        });
        victim.believes();
        victim.held(OFFERED, &["pause 4: smoke in the lab"]);
        victim.operator_reads(&["pause 4: smoke in the lab"]);
        victim.unharmed(&kept, &believed);
    }
    victim.serve(&honest, |own| {
        own.file_of(PRODUCT).lifts = vec![lift(&["ben"], 4)];
        own.roll_out(&goods);
    });
    victim.rest_on(OFFERED);
}

#[test]
fn e29_nothing_is_activated_on_a_word_older_than_the_ladder_allows() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    // Whoever withholds a stop has to show an old timestamp.
    victim.serve(&honest, |own| {
        own.age = Seconds(3 * 3_600);
        own.roll_out(&Goods::new("1.1.0"));
    });
    victim.held("1.1.0", &["nothing newer than", "was heard from the signers"]);
    victim.operator_reads(&["was heard from the signers"]);
    victim.unharmed(&kept, &believed);
    victim.serve(&honest, |own| own.roll_out(&Goods::new("1.1.0")));
    victim.rest_on("1.1.0");
}

#[test]
fn e29_a_stop_passed_on_by_the_server_binds_at_once() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let stop = PassedStop {
        offset: u64::MAX,
        scope: Scope::Everything,
        since: clock::now().plus(Seconds(3_600)),
        reason: "stop at once".into(),
    };
    victim.attack(move |asked| {
        let stop = stop.clone();
        (asked.path == "/v1/checkin").then(|| {
            Reply::Changed(Box::new(move |answer| {
                let Ok(mut directive) = Directive::read(&answer.body, Format::Binary) else {
                    return;
                };
                directive.orders = Some(Orders { stops: vec![stop], ..Orders::default() });
                answer.body = directive.to_bytes(Format::Binary).expect("a directive");
            }))
        })
    });
    victim.expect("the stop is passed on", |status| {
        status.stops.iter().any(|stop| stop.contains("passed on by the server, everything"))
    });
    victim.forge().roll_out(&Goods::new("1.1.0"));
    victim.held("1.1.0", &["stopped by the server: stop at once"]);
    victim.unharmed(&kept, &believed);
}

#[test]
fn e30_other_facts_do_not_leave_a_hold_and_the_place_is_bound_to_the_key() {
    let mut victim = Victim::installed();
    let honest = victim.forge().clone();
    let goods = Goods::new(OFFERED);
    // Nobody is let in yet: the device sees the rollout and fixes its groups.
    let closed = |own: &mut Forge, change: &dyn Fn(&mut RolloutEntry)| {
        own.artifacts.insert(goods.digest(), goods.archive.clone());
        own.release(&goods.manifest);
        let mut entry = Forge::entry(own.start(&goods.manifest, &["ben", "eva"]));
        change(&mut entry);
        own.file_of(PRODUCT).rollouts.push(entry);
        own.say();
    };
    let nobody = |entry: &mut RolloutEntry| entry.stages[0].limit = Limit::NOBODY;
    victim.serve(&honest, |own| closed(own, &nobody));
    victim.held(OFFERED, &["its turn has not come"]);
    let letters = victim.front.letters();
    let view = letters.iter().rev().flat_map(|letter| &letter.rollouts).find(|view| {
        !view.groups.is_empty() && view.reasons.iter().any(|reason| reason.text.contains("turn"))
    });
    let view = view.expect("a letter named its groups").clone();
    let bucket = view.bucket;
    let (kept, believed) = (victim.kept(), victim.believed());
    // One of its groups is held. Its owner claims another system, to be in none of them.
    let held = view
        .groups
        .iter()
        .map(|group| lockgate_shared::rollout::GroupLimit { group: *group, limit: Limit::NOBODY });
    let mut held: Vec<_> = held.collect();
    held.sort_by_key(|entry| entry.group);
    victim.serve(&honest, |own| closed(own, &|entry| entry.groups.clone_from(&held)));
    victim.device.stop();
    let facts = "[facts]\nos_id = \"arch\"\nos_version = \"99\"\nfirmware_version = \"9.9\"\n";
    victim.device.drop_in("70-claims.toml", facts).expect("written");
    victim.start();
    victim.believes();
    victim.held(OFFERED, &["its turn has not come: 0"]);
    victim.unharmed(&kept, &believed);
    // Its place is what its enrolled key makes it, salted by the release.
    let id = victim.id.parse().expect("an id");
    let manifest = Digest::of(&serde_json::to_vec(&goods.manifest).expect("JSON"));
    assert_eq!(bucket, Bucket::of(&manifest, &"stable".parse().expect("a name"), &id));
    assert_ne!(BEFORE, OFFERED);
}
