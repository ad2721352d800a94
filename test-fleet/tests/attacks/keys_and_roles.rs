//! Keys and roles: entries 16 to 21.

use std::collections::BTreeSet;

use lockgate_agent::core::tuf::{DELEGATED_ROLES_PER_SEARCH, ROOTS_PER_REFRESH};
use lockgate_test_fleet::hostile::Reply;
use serde_json::{Value, json};

use crate::{
    forge::{Forge, Goods, PRODUCT, sign_value_as},
    stage::Victim,
};

/// Where a product's releases are signed.
const RELEASES: &str = "releases-tools";
/// The roles whose theft is tried, alone and in pairs, with the keys that sign them.
const ROLES: [(&str, &[&str]); 5] = [
    ("timestamp", &["timestamp"]),
    ("snapshot", &["snapshot"]),
    ("rollouts", &["rollouts"]),
    (RELEASES, &["ada", "alan"]),
    ("targets", &["targets-1", "targets-2"]),
];

#[test]
fn e16_one_key_less_than_the_threshold_signs_nothing_in_any_role() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    // One key of two, also when it signs twice: a second time under the same id, or for a second key.
    for role in ["root", "targets"] {
        let key = format!("{role}-1");
        let needs = format!("`{role}` has 1 valid signatures and needs 2");
        for signers in [&[key.as_str()][..], &[&key, "thief-1"]] {
            victim.serve(&honest, |own| publish_with_chain(own, role, signers));
            victim.refused(&[&needs]);
            victim.unharmed(&kept, &believed);
        }
        victim.serve(&honest, |own| publish_with_chain(own, role, &[&key, &key]));
        victim.refused(&[role, "two signatures with one key id"]);
        victim.unharmed(&kept, &believed);
    }
    for signers in [&["ada"][..], &["alan", "thief-1"], &["ben", "eva"]] {
        let valid = signers.iter().filter(|name| ["ada", "alan"].contains(name)).count();
        victim.serve(&honest, |own| offer(own, RELEASES, signers, &["ben", "eva"]));
        victim.notes(&[&format!("`{RELEASES}` has {valid} valid signatures and needs 2")]);
        victim.held("6.6.6", &["its manifest is not at hand"]);
        victim.unharmed(&kept, &believed);
    }
    // One key under two key ids is one key.
    victim.serve(&honest, |own| {
        let (ada, twin) = (own.key_id("ada"), "0a".repeat(32));
        let json = own.key_json("ada");
        own.role("targets")["delegations"]["keys"][&twin] = json;
        own.delegation(RELEASES)["keyids"] = json!([ada, twin]);
        own.publish("targets");
        offer(own, RELEASES, &["ada"], &["ben", "eva"]);
        let twice = [(ada, own.key("ada")), (twin, own.key("ada"))];
        let bytes = sign_value_as(&own.roles[RELEASES], &twice);
        let file = own.file(RELEASES);
        own.files.insert(file, bytes);
        own.name(RELEASES);
        own.chain();
    });
    victim.notes(&[&format!("`{RELEASES}` has 1 valid signatures and needs 2")]);
    victim.unharmed(&kept, &believed);
    // A threshold that nobody has to meet is none.
    victim.serve(&honest, |own| {
        own.delegation(RELEASES)["threshold"] = json!(0);
        own.publish("targets");
        offer(own, RELEASES, &[], &["ben", "eva"]);
    });
    victim.says(&["threshold of 0"]);
    victim.unharmed(&kept, &believed);
}

#[test]
fn e17_no_role_and_no_pair_of_roles_installs_anything_or_makes_a_root() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    let mut tried = BTreeSet::new();
    for (first, _) in ROLES {
        for (second, _) in ROLES {
            let stolen = BTreeSet::from([first, second]);
            if !tried.insert(stolen.clone()) {
                continue;
            }
            victim.front.forget();
            // Twice: a device acts on a file later than the one in which it first saw a rollout.
            for _ in 0..2 {
                victim.serve(&honest, |own| best_of(own, &stolen));
                victim.polled_again();
            }
            victim.unharmed(&kept, &believed);
            let artifacts = victim.front.paths();
            assert!(
                !artifacts.iter().any(|path| path.starts_with("/artifacts")),
                "with {stolen:?} a payload was asked for: {artifacts:?}"
            );
            assert_eq!(victim.believed().roots.len(), believed.roots.len(), "{stolen:?}");
            // What the thief broke is not obeyed later: the honest repository goes on.
            victim.serve(&honest, |_| ());
            victim.believes();
        }
    }
    assert_eq!(tried.len(), 15, "five alone and ten pairs");
    let table = crate::handbook::section("Stolen roles");
    for stolen in tried {
        let names: Vec<&str> = stolen.into_iter().collect();
        let row = names.join(" + ").replace(RELEASES, "releases");
        assert!(table.contains(&format!("| {row} |")), "the handbook has no row `{row}`");
    }
}

/// The strongest repository that a thief makes with some roles' keys: a release, a start of it, its
/// opening, and everything that must name them, each signed with stolen keys where they suffice, else
/// with the thief's own.
fn best_of(own: &mut Forge, stolen: &BTreeSet<&str>) {
    let signers = |role: &str| -> Vec<&str> {
        let (_, keys) = ROLES.iter().find(|(name, _)| *name == role).expect("a role");
        if stolen.contains(role) { keys.to_vec() } else { vec!["thief-1", "thief-2"] }
    };
    let mine = |role: &str| stolen.contains(role);
    let goods = Goods::new("6.6.6");
    own.artifacts.insert(goods.digest(), goods.archive.clone());
    let mut approvers = ["thief-3", "thief-4"];
    if mine("targets") {
        // With targets: people, release keys and the gatekeeper's key of one's own.
        let keys = ["thief-1", "thief-2"];
        for name in keys {
            let (id, json) = (own.key_id(name), own.key_json(name));
            own.role("targets")["delegations"]["keys"][id] = json;
        }
        for role in [RELEASES, "rollouts"] {
            let ids: Vec<String> = keys.iter().map(|name| own.key_id(name)).collect();
            own.delegation(role)["keyids"] = json!(ids);
            own.delegation(role)["threshold"] = json!(1);
        }
        approvers = ["thief-1", "thief-2"];
        own.publish_by("targets", &signers("targets"));
    }
    own.release_in(RELEASES, &goods.manifest, &signers(RELEASES));
    let start = own.start(&goods.manifest, &approvers);
    own.file_of(PRODUCT).rollouts.push(Forge::entry(start));
    own.put_files("rollouts");
    own.publish_by("rollouts", &signers("rollouts"));
    own.publish_by("snapshot", &signers("snapshot"));
    own.publish_by("timestamp", &signers("timestamp"));
    // And a root of one's own, for whoever asks.
    let root = own.role("root").clone();
    own.publish_by("root", &["thief-1", "thief-2"]);
    if stolen.len() == 2 {
        // Not always: a refused root ends the refresh before anything else is looked at.
        own.files.retain(|path, _| !path.ends_with("2.root.json"));
        own.roles.insert("root".into(), root);
    }
}

#[test]
fn e17_with_all_online_keys_the_damage_is_a_delay() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    // Timestamp alone freezes; with snapshot it mixes within versions; with rollouts it opens nothing.
    victim.serve(&honest, |own| {
        offer(own, RELEASES, &["thief-1", "thief-2"], &["thief-3", "thief-4"]);
    });
    victim.held("6.6.6", &["its start does not count", "approvals"]);
    victim.unharmed(&kept, &believed);
    victim.serve(&honest, |own| {
        own.file_of(PRODUCT).rollouts.clear();
        own.say();
    });
    victim.believes();
    victim.polled_again();
    victim.unharmed(&kept, &believed);
}

#[test]
fn e18_roots_are_taken_one_by_one_with_both_thresholds_and_so_many_at_a_time() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    let next = ["next-1", "next-2"];
    // Only the new keys, only the old ones.
    for (signers, valid) in [(&next[..], "0"), (&["root-1", "root-2"], "0")] {
        victim.serve(&honest, |own| {
            own.appoint("root", &next, 2);
            own.publish_by("root", signers);
        });
        victim.refused(&[&format!("`root` has {valid} valid signatures and needs 2")]);
        victim.unharmed(&kept, &believed);
    }
    // A version is skipped.
    victim.serve(&honest, |own| {
        own.role("root")["version"] = json!(2);
        own.publish("root");
        let bytes = own.bytes("root");
        own.files.insert("metadata/2.root.json".into(), bytes);
    });
    victim.refused(&["`root` has version 3 where 2 is named"]);
    victim.unharmed(&kept, &believed);
    // Two thousand valid ones: so many in each refresh, and what was reached is kept.
    victim.serve(&honest, |own| {
        for _ in 0..2_000 {
            own.publish("root");
        }
    });
    let reached = 1 + ROOTS_PER_REFRESH;
    victim.refused(&[&format!("is not the newest after {ROOTS_PER_REFRESH} steps")]);
    victim.expect("further roots are walked in the next refreshes", |status| {
        let problem = status.refresh.problem.as_deref().unwrap_or_default();
        let version = problem.split("root version ").nth(1).and_then(|rest| rest.split(' ').next());
        version.and_then(|version| version.parse::<u64>().ok()).is_some_and(|at| at > reached)
    });
    victim.unharmed(&kept, &believed);
}

#[test]
fn e19_a_rogue_delegate_spoils_its_own_paths_and_nothing_else() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    // Another product's role is expired, missing, badly signed, or lists what is not its own.
    let rogues: [fn(&mut Forge); 4] = [
        |own| {
            own.expires_in("releases-app", -10);
            own.publish("releases-app");
        },
        |own| {
            own.publish("releases-app");
            let file = own.file("releases-app");
            own.files.remove(&file);
        },
        |own| own.publish_by("releases-app", &["thief-1"]),
        |own| {
            own.target("releases-app", "policy.json", b"{}");
            own.target("releases-app", "releases/tools/1.1.0.json", b"{}");
            own.target("releases-app", "rollouts/tools/x.bin", b"{}");
            own.publish("releases-app");
        },
    ];
    for rogue in rogues {
        victim.serve(&honest, |own| {
            rogue(own);
            own.chain();
        });
        victim.believes();
        victim.unharmed(&kept, &believed);
    }
    // Cyclic delegations, and a hundred roles that all match: the search ends at its bound.
    victim.serve(&honest, |own| {
        delegate_to_itself(own);
        offer(own, RELEASES, &["ada", "alan"], &["ben", "eva"]);
        own.role(RELEASES)["targets"].as_object_mut().expect("targets").clear();
        own.publish(RELEASES);
        own.chain();
    });
    victim.notes(&["the repository has no `releases/tools/6.6.6.json`"]);
    victim.unharmed(&kept, &believed);
    let rogue = victim.serve(&honest, |own| {
        hundred_roles(own);
        own.publish("targets");
        own.chain();
        let path = format!("rollouts/{PRODUCT}/{}.bin", crate::forge::model());
        own.role("rollouts")["targets"].as_object_mut().expect("targets").remove(&path);
        own.publish("rollouts");
        own.chain();
    });
    victim.says(&[&format!("is not found in {DELEGATED_ROLES_PER_SEARCH} delegated roles")]);
    victim.unharmed(&kept, &believed);
    // And the other products go on: here, the product itself once the rogues are gone.
    victim.serve(&rogue, |own| {
        own.role("targets")["delegations"] = honest.roles["targets"]["delegations"].clone();
        own.publish("targets");
        own.roll_out(&Goods::new("1.1.0"));
    });
    victim.rest_on("1.1.0");
}

/// The product's role delegates to itself and back.
fn delegate_to_itself(own: &mut Forge) {
    let (ada, alan) = (own.key_id("ada"), own.key_id("alan"));
    let (one, two) = (own.key_json("ada"), own.key_json("alan"));
    let to = |name: &str| {
        json!({
            "name": name, "keyids": [ada, alan], "threshold": 2, "terminating": false,
            "paths": ["releases/tools/*"],
        })
    };
    let keys = json!({ &ada: one, &alan: two });
    own.role(RELEASES)["delegations"] =
        json!({"keys": keys, "roles": [to(RELEASES), to("releases-app")]});
    own.role("releases-app")["delegations"] = json!({"keys": keys, "roles": [to(RELEASES)]});
    own.publish("releases-app");
}

/// A hundred roles, validly signed, before the one that is meant; each matches the product's file.
fn hundred_roles(own: &mut Forge) {
    let id = own.key_id("next-1");
    let json = own.key_json("next-1");
    own.role("targets")["delegations"]["keys"][&id] = json;
    let mut roles: Vec<Value> = Vec::new();
    for number in 0..100 {
        let name = format!("many-{number}");
        roles.push(json!({
            "name": name, "keyids": [id], "threshold": 1, "terminating": false,
            "paths": ["rollouts/*/*"],
        }));
        let mut role = own.roles["releases-app"].clone();
        role["version"] = json!(0);
        own.roles.insert(name.clone(), role);
        own.publish_by(&name, &["next-1"]);
    }
    own.role("targets")["delegations"]["roles"] = json!(roles);
}

#[test]
fn e20_names_that_reach_out_of_the_folder_write_and_overwrite_nothing() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    let outside = folder_of(&victim);
    let long = "x".repeat(4_096);
    let names =
        ["../x", "../../enrolment", "root", "1.root", "timestamp", "?", "a\0b", "/etc/x", &long];
    let mut rogue = honest.clone();
    for name in names {
        rogue = victim.serve(&rogue, |own| {
            own.rollouts = honest.rollouts.clone();
            own.role("targets")["delegations"] = honest.roles["targets"]["delegations"].clone();
            let (id, json) = (own.key_id("next-1"), own.key_json("next-1"));
            own.role("targets")["delegations"]["keys"][&id] = json;
            let rogue = json!({
                "name": name, "keyids": [id], "threshold": 1, "terminating": true,
                "paths": ["releases/tools/*"],
            });
            let roles = own.role("targets")["delegations"]["roles"].as_array_mut();
            roles.expect("a list").insert(0, rogue);
            own.publish("targets");
            // Its file stands under every name that a client may make of it.
            let mut role = own.roles["releases-app"].clone();
            role["version"] = json!(7);
            let bytes = crate::forge::sign_value(&role, &[own.key("next-1")]);
            own.misname(name, json!({"version": 7}));
            for file in [name.to_owned(), lockgate_agent::core::tuf::escape(name)] {
                own.files.insert(format!("metadata/7.{file}.json"), bytes.clone());
            }
            offer(own, RELEASES, &["ada", "alan"], &["ben", "eva"]);
        });
        victim.held("6.6.6", &["its manifest is not at hand"]);
        victim.unharmed(&kept, &believed);
        let asked = victim.front.paths();
        assert!(!asked.iter().any(|path| path.split('/').any(|part| part == "..")), "{asked:?}");
    }
    assert_eq!(
        folder_of(&victim),
        outside,
        "a file was made or lost outside the folder of metadata"
    );
    // Targets' names are names in a table: whoever asks for one asks for exactly that.
    victim.serve(&rogue, |own| {
        own.rollouts = honest.rollouts.clone();
        own.role("targets")["delegations"] = honest.roles["targets"]["delegations"].clone();
        own.publish("targets");
        for name in ["../../../etc/passwd", "releases/tools/../../x", "releases/tools/\0"] {
            own.role(RELEASES)["targets"][name] =
                json!({"length": 1, "hashes": {"sha256": "00".repeat(32)}});
        }
        own.roll_out(&Goods::new("1.1.0"));
    });
    victim.rest_on("1.1.0");
    assert_eq!(folder_of(&victim), outside);
}

/// The names of what lies beside the folder of metadata and the product.
fn folder_of(victim: &Victim) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["", "state", "state/.."] {
        for entry in std::fs::read_dir(victim.device.folder().join(folder)).expect("a folder") {
            names.insert(format!("{folder}/{}", entry.expect("an entry").file_name().display()));
        }
    }
    // The journal's helpers come and go with it.
    names.retain(|name| {
        !name.ends_with("-wal") && !name.ends_with("-shm") && !name.ends_with(".new")
    });
    names
}

#[test]
fn e21_unknown_and_hostile_formats_are_refused_or_passed_over_in_bounded_time() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    // By the timestamp's own key: documents that are valid but odd.
    let odd: [(fn(&mut Value), &str); 6] = [
        (|role| role["spec_version"] = json!("2.0.0"), "specification version `2.0.0`"),
        (|role| role["_type"] = json!("snapshot"), "where `timestamp` is due"),
        (|role| role["version"] = json!(0), "version 0"),
        (|role| role["expires"] = json!("tomorrow"), "is not a moment"),
        (|role| role["odd"] = json!(1.5), "not whole"),
        (
            |role| {
                role["meta"]["snapshot.json"]["hashes"] = json!({"sha1024": "00"});
            },
            "no hash of a known kind",
        ),
    ];
    for (change, words) in odd {
        victim.serve(&honest, |own| {
            let version = own.version("timestamp") + 1;
            own.role("timestamp")["version"] = json!(version);
            change(own.role("timestamp"));
            let bytes = own.signed("timestamp", &["timestamp"]);
            own.files.insert("metadata/timestamp.json".into(), bytes);
        });
        victim.refused(&[words]);
        victim.unharmed(&kept, &believed);
    }
    // Bytes that are no honest JSON: before any signature is looked at.
    let timestamp = String::from_utf8(honest.bytes("timestamp")).expect("text");
    let twice = timestamp.replacen("\"signed\"", "\"signed\": {}, \"signed\"", 1);
    let huge = timestamp.replacen("\"version\": ", "\"version\": 99999999999999999999999999", 1);
    let deep = format!("{{\"signatures\": [], \"signed\": {}", "[".repeat(15_000));
    let mut broken = timestamp.into_bytes();
    let middle = broken.len() / 2;
    broken[middle] = 0xff;
    let hostile = [twice.into_bytes(), huge.into_bytes(), deep.into_bytes(), broken, Vec::new()];
    for bytes in hostile {
        victim.attack_path("/repo/metadata/timestamp.json", move || Reply::file(bytes.clone()));
        victim.refused(&["metadata of `timestamp` is malformed"]);
        victim.unharmed(&kept, &believed);
        victim.be_honest();
        victim.serve(&honest, |_| ());
        victim.believes();
    }
    // A key of a new type is passed over, an unknown field is part of what is signed.
    victim.serve(&honest, |own| {
        let id = "0b".repeat(32);
        own.role("root")["keys"][&id] =
            json!({"keytype": "moon", "scheme": "moon", "keyval": {"public": "00"}});
        let ids = own.role("root")["roles"]["timestamp"]["keyids"].as_array_mut().expect("ids");
        ids.push(json!(id));
        own.role("root")["novelty"] = json!({"kept": true});
        own.publish("root");
        own.role("timestamp")["novelty"] = json!([1, 2]);
        own.publish("timestamp");
    });
    victim.believes();
    assert!(victim.believed().roots.contains_key(&2));
    victim.unharmed(&kept, &believed);
}

/// A release 6.6.6, its start and its opening, signed by these.
fn offer(own: &mut Forge, role: &str, authors: &[&str], approvers: &[&str]) {
    let goods = Goods::new("6.6.6");
    own.artifacts.insert(goods.digest(), goods.archive.clone());
    own.release_in(role, &goods.manifest, authors);
    let start = own.start(&goods.manifest, approvers);
    own.file_of(PRODUCT).rollouts.push(Forge::entry(start));
    own.say();
}

/// Publishes a role and what names it.
fn publish_with_chain(own: &mut Forge, role: &str, signers: &[&str]) {
    own.publish_by(role, signers);
    if role != "root" {
        own.chain();
    }
}
