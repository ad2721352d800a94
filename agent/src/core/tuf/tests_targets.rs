//! The search for targets, and the reading of their bytes.

use serde_json::json;
use sha2::{Digest, Sha512};

use super::testkit::{DAY, Device, NOW, Repo, at, key, key_id, key_json};
use super::{DELEGATED_ROLES_PER_SEARCH, FetchError, SMALL_TARGET_LIMIT, TufError};

#[test]
fn a_target_is_found_in_the_role_that_may_list_it_with_its_custom_fields() {
    let (mut repo, mut device) = products();
    let target =
        device.find(&mut repo, "releases/app/1.2.0.json", NOW).expect("sound").expect("listed");
    assert_eq!((target.role(), target.role_version()), ("app", 1));
    assert_eq!(target.custom(), Some(&json!({"from": "app"})));
    assert_eq!(target.length(), 8);
    let hash = hex::encode(target.sha256().expect("listed"));
    assert_eq!(target.fetch_path(), format!("releases/app/{hash}.1.2.0.json"));
    assert_eq!(device.bytes(&mut repo, &target).expect("the bytes"), b"manifest");
}

#[test]
fn delegated_roles_are_fetched_on_demand_and_once() {
    let (mut repo, mut device) = products();
    repo.asked.clear();
    for _ in 0..2 {
        device.find(&mut repo, "releases/app/1.2.0.json", NOW).expect("sound");
    }
    assert_eq!(repo.asked, ["1.app.json"]);
    device.restart();
    device.refresh(&mut repo, NOW).expect("honest");
    repo.asked.clear();
    device.find(&mut repo, "releases/app/1.2.0.json", NOW).expect("sound").expect("stored");
    assert!(repo.asked.is_empty(), "{:?}", repo.asked);
}

#[test]
fn a_delegate_can_say_nothing_about_paths_that_are_not_its_own() {
    let (mut repo, mut device) = products();
    repo.add("os", "releases/app/6.6.6.json", b"evil");
    repo.add("os", "policy.json", b"evil");
    for role in ["os", "targets", "snapshot", "timestamp"] {
        repo.publish(role);
    }
    device.refresh(&mut repo, NOW).expect("validly signed");
    assert!(device.find(&mut repo, "releases/app/6.6.6.json", NOW).expect("sound").is_none());
    let policy = device.find(&mut repo, "policy.json", NOW).expect("sound").expect("listed");
    assert_eq!(policy.role(), "targets");
}

#[test]
fn a_failing_delegated_role_fails_only_what_needs_it() {
    type Spoil = fn(&mut Repo);
    let spoils: [(&str, Spoil); 5] = [
        ("badly signed", |repo| {
            repo.signers.insert("os".into(), vec![key(66)]);
        }),
        ("expired", |repo| repo.role("os")["expires"] = json!(at(NOW))),
        ("malformed", |repo| repo.role("os")["targets"] = json!(7)),
        ("of another type", |repo| repo.role("os")["_type"] = json!("snapshot")),
        ("of threshold 0", |repo| {
            repo.role("targets")["delegations"]["roles"][1]["threshold"] = json!(0);
        }),
    ];
    for (name, spoil) in spoils {
        let (mut repo, mut device) = products();
        spoil(&mut repo);
        for role in ["os", "targets", "snapshot", "timestamp"] {
            repo.publish(role);
        }
        device.refresh(&mut repo, NOW).expect("the top level is sound");
        assert!(device.find(&mut repo, "releases/os/7.json", NOW).is_err(), "{name}");
        let app = device.find(&mut repo, "releases/app/1.2.0.json", NOW);
        assert!(matches!(app, Ok(Some(_))), "{name}: {app:?}");
    }
}

#[test]
fn a_missing_role_does_not_hand_its_paths_to_the_next() {
    for fault in [FetchError::NotFound, FetchError::Failed("reset".into())] {
        let mut repo = Repo::new();
        repo.delegate("targets", "first", 7, &["x/*"]);
        repo.delegate("targets", "second", 8, &["x/*"]);
        repo.add("first", "x/a", b"right");
        repo.add("second", "x/a", b"wrong");
        repo.publish("first");
        repo.publish("second");
        repo.release();
        let mut device = Device::settled(&mut repo);
        repo.faults.insert("1.first.json".into(), fault);
        assert!(matches!(device.find(&mut repo, "x/a", NOW), Err(TufError::Fetch { .. })));
        repo.faults.clear();
        let target = device.find(&mut repo, "x/a", NOW).expect("sound").expect("listed");
        assert_eq!(target.role(), "first");
    }
}

#[test]
fn a_role_that_the_snapshot_does_not_list_is_not_asked_for() {
    let mut repo = Repo::new();
    repo.delegate("targets", "app", 7, &["app/*"]);
    repo.release();
    let mut device = Device::settled(&mut repo);
    assert!(matches!(device.find(&mut repo, "app/x", NOW), Err(TufError::NotInSnapshot { .. })));
    assert!(repo.asked.is_empty());
}

#[test]
fn the_search_goes_depth_first_and_meets_each_role_once() {
    let mut repo = Repo::new();
    repo.delegate("targets", "a", 7, &["*"]);
    repo.delegate("targets", "b", 8, &["*"]);
    repo.delegate("a", "c", 9, &["*"]);
    repo.delegate("c", "a", 7, &["*"]);
    repo.delegate("b", "c", 9, &["*"]);
    for role in ["a", "b", "c"] {
        repo.signers.get_mut(role).expect("signers").dedup();
        repo.publish(role);
    }
    repo.release();
    let mut device = Device::settled(&mut repo);
    assert!(device.find(&mut repo, "nowhere", NOW).expect("sound").is_none());
    assert_eq!(repo.asked, ["1.a.json", "1.c.json", "1.b.json"]);
}

#[test]
fn behind_a_terminating_delegation_nobody_else_is_asked() {
    let mut repo = Repo::new();
    repo.delegate("targets", "a", 7, &["x/*"]);
    repo.delegate("targets", "b", 8, &["x/*"]);
    repo.delegate("a", "c", 9, &["x/*"]);
    repo.delegate("a", "d", 10, &["x/*"]);
    repo.role("a")["delegations"]["roles"][0]["terminating"] = json!(true);
    repo.add("b", "x/y", b"not to be seen");
    for role in ["a", "b", "c", "d"] {
        repo.publish(role);
    }
    repo.release();
    let mut device = Device::settled(&mut repo);
    assert!(device.find(&mut repo, "x/y", NOW).expect("sound").is_none());
    assert_eq!(repo.asked, ["1.a.json", "1.c.json"]);
}

#[test]
fn a_search_ends_at_its_bound() {
    let mut repo = Repo::new();
    for i in 0..DELEGATED_ROLES_PER_SEARCH + 1 {
        let name = format!("r{i}");
        repo.delegate("targets", &name, 7, &["*"]);
        repo.publish(&name);
    }
    repo.release();
    let mut device = Device::settled(&mut repo);
    assert!(matches!(device.find(&mut repo, "x", NOW), Err(TufError::TooManyRoles { .. })));
    assert_eq!(repo.asked.len(), DELEGATED_ROLES_PER_SEARCH);
}

#[test]
fn one_role_under_two_delegators_is_verified_under_each() {
    let mut repo = Repo::new();
    repo.delegate("targets", "a", 7, &["a/*"]);
    repo.delegate("targets", "b", 8, &["b/*"]);
    repo.delegate("a", "shared", 9, &["a/*"]);
    repo.delegate("b", "shared", 10, &["b/*"]);
    repo.signers.insert("shared".into(), vec![key(9)]);
    repo.add("shared", "a/x", b"right");
    repo.add("shared", "b/x", b"wrong");
    for role in ["a", "b", "shared"] {
        repo.publish(role);
    }
    repo.release();
    let mut device = Device::settled(&mut repo);
    assert!(device.find(&mut repo, "a/x", NOW).expect("sound").is_some());
    assert!(matches!(device.find(&mut repo, "b/x", NOW), Err(TufError::Signatures { .. })));
}

#[test]
fn role_names_that_reach_out_overwrite_nothing() {
    for name in ["../x", "1.root", "2.root", "?", "a\0b", "/etc/passwd", "delegated-x", "Timestamp"]
    {
        let mut repo = Repo::new();
        repo.delegate("targets", name, 7, &["*"]);
        repo.add(name, "x", b"bytes");
        repo.publish(name);
        repo.release();
        let mut device = Device::settled(&mut repo);
        let before = device.disk.files.clone();
        assert!(device.find(&mut repo, "x", NOW).expect("odd, but sound").is_some(), "{name:?}");
        for (file, bytes) in &before {
            assert_eq!(&device.disk.files[file], bytes, "{name:?}");
        }
        let new: Vec<&String> =
            device.disk.files.keys().filter(|f| !before.contains_key(*f)).collect();
        assert_eq!(new.len(), 1);
        assert!(
            new.iter().all(|f| f.starts_with("delegated-") && !f.contains(['/', '\0'])),
            "{new:?}"
        );
        device.restart();
        device.refresh(&mut repo, NOW).expect("not disturbed");
    }
    for name in ["root", "timestamp", "snapshot", "targets", &"x".repeat(4096)] {
        let mut repo = Repo::new();
        repo.role("targets")["delegations"] = json!({
            "keys": {key_id(7): key_json(7)},
            "roles": [{"name": name, "keyids": [key_id(7)], "threshold": 1, "paths": ["*"]}],
        });
        repo.release();
        let mut device = Device::settled(&mut repo);
        let before = device.disk.files.clone();
        assert!(device.find(&mut repo, "x", NOW).is_err());
        assert_eq!(device.disk.files, before);
    }
}

#[test]
fn target_paths_that_reach_out_are_refused_before_anything_is_asked() {
    let (mut repo, mut device) = products();
    repo.asked.clear();
    for path in ["../x", "a/../../x", "/x", "", "a\0", &"x".repeat(4096)] {
        let refused = device.find(&mut repo, path, NOW);
        assert!(matches!(refused, Err(TufError::TargetPath { .. })), "{path:?}");
    }
    assert!(repo.asked.is_empty());
}

#[test]
fn substituted_payloads_are_refused() {
    let (mut repo, mut device) = products();
    let target =
        device.find(&mut repo, "releases/app/1.2.0.json", NOW).expect("sound").expect("listed");
    for bytes in [&b"Manifest"[..], b"manifes", b"manifest!", b""] {
        repo.payloads.insert(target.fetch_path().to_owned(), bytes.to_vec());
        device.refresh(&mut repo, NOW).expect("metadata is sound");
        assert!(device.bytes(&mut repo, &target).is_err(), "{bytes:?}");
        assert!(target.verify(bytes).is_err(), "{bytes:?}");
    }
    repo.endless = true;
    device.restart();
    let endless = device.bytes(&mut repo, &target);
    let long = matches!(endless, Err(TufError::Fetch { source: FetchError::TooLong { .. }, .. }));
    assert!(long, "{endless:?}");
}

#[test]
fn a_target_of_another_length_than_listed_is_refused_though_its_hash_is_right() {
    for (off_by, refused) in [(1, true), (0, false)] {
        let mut repo = Repo::new();
        repo.add("targets", "policy.json", b"policy");
        repo.role("targets")["targets"]["policy.json"]["length"] = json!(6 + off_by);
        repo.release();
        let mut device = Device::settled(&mut repo);
        let target = device.find(&mut repo, "policy.json", NOW).expect("sound").expect("listed");
        let read = device.bytes(&mut repo, &target);
        assert_eq!(matches!(read, Err(TufError::Length { .. })), refused, "{read:?}");
    }
}

#[test]
fn a_target_without_a_known_hash_is_no_answer_and_nothing_is_asked_for() {
    for hashes in [json!({}), json!({"blake3": "00".repeat(32)})] {
        let mut repo = Repo::new();
        repo.add("targets", "policy.json", b"policy");
        repo.role("targets")["targets"]["policy.json"]["hashes"] = hashes;
        repo.release();
        let found = Device::settled(&mut repo).find(&mut repo, "policy.json", NOW);
        assert!(matches!(found, Err(TufError::NoKnownHash { .. })), "{found:?}");
    }
}

#[test]
fn a_delegated_role_that_is_held_gives_way_to_the_one_that_is_named() {
    for restarts in [false, true] {
        let (mut repo, mut device) = products();
        let before = device.find(&mut repo, "releases/app/1.2.0.json", NOW).expect("sound");
        assert_eq!(before.expect("listed").role_version(), 1);
        repo.add("app", "releases/app/1.3.0.json", b"next");
        for role in ["app", "snapshot", "timestamp"] {
            repo.publish(role);
        }
        if restarts {
            device.restart();
        }
        device.refresh(&mut repo, NOW).expect("honest");
        let next = device.find(&mut repo, "releases/app/1.3.0.json", NOW).expect("sound");
        assert_eq!(next.expect("listed").role_version(), 2, "restarted: {restarts}");
    }
}

#[test]
fn a_delegated_role_expires_also_where_it_is_held() {
    for restarts in [false, true] {
        let (mut repo, _) = products();
        repo.role("app")["expires"] = json!(at(NOW + 100));
        for role in ["app", "snapshot", "timestamp"] {
            repo.publish(role);
        }
        let mut device = Device::settled(&mut repo);
        let find = |device: &mut Device, repo: &mut Repo, now| {
            device.find(repo, "releases/app/1.2.0.json", now)
        };
        find(&mut device, &mut repo, NOW + 99).expect("in time").expect("listed");
        if restarts {
            device.restart();
            device.refresh(&mut repo, NOW + 99).expect("honest");
        }
        let late = find(&mut device, &mut repo, NOW + 100);
        assert!(matches!(late, Err(TufError::Expired { .. })), "restarted: {restarts}, {late:?}");
    }
}

#[test]
fn of_two_hashes_both_must_be_right_and_an_unknown_one_alone_is_not_enough() {
    for (hashes, accepted) in [
        (json!({"sha512": hex::encode(Sha512::digest(b"policy"))}), true),
        (json!({"sha512": "00".repeat(64)}), false),
        (json!({"blake3": "00".repeat(32)}), false),
        (json!({}), false),
    ] {
        let mut repo = Repo::new();
        repo.add("targets", "policy.json", b"policy");
        let (sha512_name, listed) =
            (hashes["sha512"].as_str().map(|hash| format!("{hash}.policy.json")), hashes.clone());
        repo.role("targets")["targets"]["policy.json"]["hashes"] = listed;
        if let Some(name) = sha512_name {
            repo.payloads.insert(name, b"policy".to_vec());
        }
        repo.release();
        let mut device = Device::settled(&mut repo);
        let read = device
            .find(&mut repo, "policy.json", NOW)
            .and_then(|target| device.bytes(&mut repo, &target.expect("listed")));
        assert_eq!(read.is_ok(), accepted, "{hashes}: {read:?}");
    }
    let mut repo = Repo::new();
    repo.add("targets", "policy.json", b"policy");
    repo.role("targets")["targets"]["policy.json"]["hashes"]["sha512"] = json!("00".repeat(64));
    repo.release();
    let mut device = Device::settled(&mut repo);
    let target = device.find(&mut repo, "policy.json", NOW).expect("sound").expect("listed");
    assert!(matches!(device.bytes(&mut repo, &target), Err(TufError::Hash { .. })));
}

#[test]
fn a_target_too_long_for_memory_is_refused_before_it_is_asked_for() {
    let mut repo = Repo::new();
    repo.add("targets", "big", b"x");
    repo.role("targets")["targets"]["big"]["length"] = json!(SMALL_TARGET_LIMIT + 1);
    repo.release();
    let mut device = Device::settled(&mut repo);
    let target = device.find(&mut repo, "big", NOW).expect("sound").expect("listed");
    assert!(matches!(device.bytes(&mut repo, &target), Err(TufError::TargetTooLong { .. })));
    assert!(repo.asked.is_empty());
}

#[test]
fn targets_are_not_looked_up_before_a_refresh_or_after_the_chain_expired() {
    let (mut repo, _) = products();
    let mut device = Device::new(&repo);
    assert!(matches!(device.find(&mut repo, "x", NOW), Err(TufError::NotRefreshed)));
    device.refresh(&mut repo, NOW).expect("honest");
    device.find(&mut repo, "x", NOW).expect("fresh");
    assert!(matches!(device.find(&mut repo, "x", NOW + DAY), Err(TufError::Expired { .. })));
}

#[test]
fn a_clock_set_back_does_not_revive_a_delegated_role() {
    let mut repo = Repo::new();
    repo.delegate("targets", "app", 7, &["app/*"]);
    repo.role("app")["expires"] = json!(at(NOW - 1));
    repo.publish("app");
    repo.release();
    let mut device = Device::settled(&mut repo);
    let refused = device.find(&mut repo, "app/x", NOW - 10);
    assert!(matches!(refused, Err(TufError::Expired { .. })), "{refused:?}");
}

#[test]
fn hash_prefixes_and_bins_lead_to_their_roles() {
    // SHA-256 of `a` begins with ca978112.
    let mut repo = Repo::new();
    repo.delegate("targets", "low", 7, &[]);
    repo.delegate("targets", "high", 8, &[]);
    for (i, prefixes) in [["0", "c0"], ["c9", "ca"]].iter().enumerate() {
        let role = &mut repo.role("targets")["delegations"]["roles"][i];
        role.as_object_mut().expect("a map").remove("paths");
        role["path_hash_prefixes"] = json!(prefixes);
    }
    repo.add("high", "a", b"bytes");
    repo.publish("low");
    repo.publish("high");
    repo.release();
    let mut device = Device::settled(&mut repo);
    let target = device.find(&mut repo, "a", NOW).expect("sound").expect("listed");
    assert_eq!(target.role(), "high");
    assert_eq!(repo.asked, ["1.high.json"]);

    let mut repo = Repo::new();
    repo.delegate("targets", "bin-c", 7, &[]);
    repo.role("targets")["delegations"] = json!({
        "keys": {key_id(7): key_json(7)},
        "succinct_roles":
            {"keyids": [key_id(7)], "threshold": 1, "bit_length": 4, "name_prefix": "bin"},
    });
    repo.add("bin-c", "a", b"bytes");
    repo.publish("bin-c");
    repo.release();
    let mut device = Device::settled(&mut repo);
    let target = device.find(&mut repo, "a", NOW).expect("sound").expect("listed");
    assert_eq!(target.role(), "bin-c");
}

/// A repository with `policy.json` and two products, and a device that has refreshed.
fn products() -> (Repo, Device) {
    let mut repo = Repo::new();
    repo.delegate("targets", "app", 7, &["releases/app/*"]);
    repo.delegate("targets", "os", 8, &["releases/os/*"]);
    repo.add("targets", "policy.json", b"policy");
    repo.add("app", "releases/app/1.2.0.json", b"manifest");
    repo.publish("app");
    repo.publish("os");
    repo.release();
    let device = Device::settled(&mut repo);
    (repo, device)
}
