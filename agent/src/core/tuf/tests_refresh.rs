//! The refresh against an honest repository, a lying mirror, thieves of keys, the clock and the disk.

use lockgate_shared::time::Moment;
use serde_json::{Value, json};

use super::testkit::{DAY, Device, HOUR, NOW, Repo, at, checks, key, key_json, sign};
use super::{Change, FetchError, ROOTS_PER_REFRESH, TufError};

#[test]
fn a_first_refresh_asks_for_each_file_once_and_in_order() {
    let mut repo = Repo::new();
    repo.role("timestamp")["issued"] = json!(at(NOW - 60));
    repo.release();
    let refreshed = Device::new(&repo).refresh(&mut repo, NOW).expect("honest");
    assert_eq!(repo.asked, ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"]);
    assert_eq!(refreshed.change, Change::Content);
    let status = refreshed.status;
    assert_eq!((status.root_version, status.timestamp_version), (1, 2));
    assert_eq!((status.snapshot_version, status.targets_version), (2, 2));
    assert_eq!(status.timestamp_issued, Some(Moment(NOW - 60)));
    assert_eq!(status.expires(), Moment(NOW + DAY));
}

#[test]
fn a_refresh_without_news_asks_for_two_files_and_checks_one_signature() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    let same = checks(|| {
        let refreshed = device.refresh(&mut repo, NOW).expect("honest");
        assert_eq!(refreshed.change, Change::Nothing);
    });
    assert_eq!(same, 0);
    repo.publish("timestamp");
    let renewed = checks(|| {
        let refreshed = device.refresh(&mut repo, NOW).expect("honest");
        assert_eq!(refreshed.change, Change::Renewed);
    });
    assert_eq!(renewed, 1);
    assert_eq!(repo.asked, ["2.root.json", "timestamp.json", "2.root.json", "timestamp.json"]);
    repo.release();
    assert_eq!(device.refresh(&mut repo, NOW).expect("honest").change, Change::Content);
}

#[test]
fn after_a_restart_what_is_stored_is_verified_and_not_fetched_again() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    device.restart();
    let refreshed = device.refresh(&mut repo, NOW).expect("honest");
    assert_eq!(refreshed.change, Change::Content);
    assert_eq!(repo.asked, ["2.root.json", "timestamp.json"]);
}

#[test]
fn what_is_held_stands_for_a_file_only_in_the_version_and_with_the_content_that_are_named() {
    // By the version alone, as many repositories name their files.
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    repo.publish("targets");
    let version = repo.version("targets");
    repo.role("snapshot")["meta"]["targets.json"] = json!({"version": version});
    repo.publish("snapshot");
    let version = repo.version("snapshot");
    repo.role("timestamp")["meta"]["snapshot.json"] = json!({"version": version});
    repo.publish("timestamp");
    let status = device.refresh(&mut repo, NOW).expect("honest").status;
    assert_eq!((status.snapshot_version, status.targets_version), (2, 2));

    // By its content, where one version comes to stand for another.
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    for role in ["targets", "snapshot"] {
        repo.role(role)["x-note"] = json!("the same version once more");
        repo.serve(role);
    }
    repo.publish("timestamp");
    device.refresh(&mut repo, NOW).expect("the version is as high");
    let files = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"];
    assert_eq!(repo.asked, files);
}

#[test]
fn a_repository_without_consistent_snapshots_is_asked_for_plain_names() {
    let mut repo = Repo::new();
    repo.role("root")["consistent_snapshot"] = json!(false);
    repo.serve("root");
    for role in ["snapshot", "targets"] {
        let bytes = repo.signed(role);
        repo.files.insert(format!("{role}.json"), bytes);
    }
    Device::new(&repo).refresh(&mut repo, NOW).expect("honest");
    assert_eq!(repo.asked, ["2.root.json", "timestamp.json", "snapshot.json", "targets.json"]);
}

#[test]
fn a_root_needs_the_threshold_of_the_old_keys_and_of_the_new_ones() {
    for (signers, accepted) in [
        (vec![1, 5, 6], true),
        (vec![5, 6], false),
        (vec![1], false),
        (vec![1, 5], false),
        (vec![1, 5, 5], false),
    ] {
        let mut repo = Repo::new();
        let mut device = Device::settled(&mut repo);
        repo.appoint("root", &[5, 6], 2);
        repo.signers.insert("root".into(), signers.iter().map(|&seed| key(seed)).collect());
        repo.publish("root");
        assert_eq!(device.refresh(&mut repo, NOW).is_ok(), accepted, "{signers:?}");
        assert_eq!(device.root_version(), if accepted { 2 } else { 1 }, "{signers:?}");
    }
}

#[test]
fn a_root_that_skips_a_version_is_refused() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    repo.role("root")["version"] = json!(3);
    let bytes = repo.signed("root");
    repo.files.insert("2.root.json".into(), bytes);
    let refused = device.refresh(&mut repo, NOW);
    assert!(matches!(refused, Err(TufError::Version { expected: 2, found: 3, .. })), "{refused:?}");
}

#[test]
fn only_a_clear_not_found_ends_the_root_walk() {
    for fault in [FetchError::Failed("status 500".into()), FetchError::TooLong { limit: 1 }] {
        let mut repo = Repo::new();
        let mut device = Device::settled(&mut repo);
        repo.faults.insert("2.root.json".into(), fault);
        assert!(matches!(device.refresh(&mut repo, NOW), Err(TufError::Fetch { .. })));
        assert_eq!(repo.asked, ["2.root.json"]);
        assert!(matches!(device.find(&mut repo, "x", NOW), Err(TufError::NotRefreshed)));
        repo.faults.insert("2.root.json".into(), FetchError::NotFound);
        device.refresh(&mut repo, NOW).expect("no newer root");
    }
}

#[test]
fn a_long_chain_of_roots_is_walked_in_bounded_steps_with_progress_kept() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    for _ in 0..ROOTS_PER_REFRESH + 10 {
        repo.publish("root");
    }
    let stopped = device.refresh(&mut repo, NOW);
    assert!(matches!(stopped, Err(TufError::TooManyRoots { .. })), "{stopped:?}");
    assert_eq!(repo.asked.len() as u64, ROOTS_PER_REFRESH);
    device.restart();
    assert_eq!(device.root_version(), ROOTS_PER_REFRESH + 1);
    device.refresh(&mut repo, NOW).expect("the rest");
    assert_eq!(device.root_version(), ROOTS_PER_REFRESH + 11);
}

#[test]
fn an_expired_root_is_kept_and_ends_the_refresh_before_the_timestamp() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    repo.role("root")["expires"] = json!(at(NOW));
    repo.publish("root");
    let refused = device.refresh(&mut repo, NOW);
    assert!(
        matches!(&refused, Err(TufError::Expired { role, .. }) if role == "root"),
        "{refused:?}"
    );
    assert_eq!(repo.asked, ["2.root.json", "3.root.json"]);
    assert_eq!(device.root_version(), 2);
}

#[test]
fn an_expired_file_anywhere_in_the_chain_fails_the_refresh_and_is_not_stored() {
    for role in ["timestamp", "snapshot", "targets"] {
        let mut repo = Repo::new();
        let mut device = Device::settled(&mut repo);
        let before = device.disk.files[&format!("{role}.json")].clone();
        repo.role(role)["expires"] = json!(at(NOW));
        repo.release();
        let refused = device.refresh(&mut repo, NOW);
        assert!(
            matches!(&refused, Err(TufError::Expired { role: r, .. }) if r == role),
            "{refused:?}"
        );
        assert_eq!(device.disk.files[&format!("{role}.json")], before);
    }
}

#[test]
fn what_was_held_also_expires_under_a_fresh_timestamp() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    repo.role("timestamp")["expires"] = json!(at(NOW + 30 * DAY));
    repo.publish("timestamp");
    device.refresh(&mut repo, NOW + 6 * DAY).expect("the snapshot lives for seven days");
    let refused = device.refresh(&mut repo, NOW + 7 * DAY);
    let frozen = matches!(&refused, Err(TufError::Expired { role, .. }) if role == "snapshot");
    assert!(frozen, "{refused:?}");
}

#[test]
fn held_targets_also_expire_under_a_fresh_timestamp_and_snapshot() {
    let mut repo = Repo::new();
    repo.role("targets")["expires"] = json!(at(NOW + 2 * DAY));
    repo.role("timestamp")["expires"] = json!(at(NOW + 30 * DAY));
    repo.release();
    let mut device = Device::settled(&mut repo);
    let refused = device.refresh(&mut repo, NOW + 2 * DAY);
    let frozen = matches!(&refused, Err(TufError::Expired { role, .. }) if role == "targets");
    assert!(frozen, "{refused:?}");
}

#[test]
fn an_older_timestamp_over_the_same_snapshot_is_refused() {
    let mut old = Repo::new();
    let mut repo = old.clone();
    repo.publish("timestamp");
    let mut device = Device::settled(&mut repo);
    for _ in 0..2 {
        let refused = device.refresh(&mut old, NOW);
        let is = matches!(&refused, Err(TufError::Rollback { role, .. }) if role == "timestamp");
        assert!(is, "{refused:?}");
        device.restart();
    }
}

#[test]
fn older_metadata_is_refused_also_after_a_restart_and_when_the_newer_has_expired() {
    for later in [0, 40 * DAY] {
        let mut old = Repo::new();
        for (role, lifetime) in [("timestamp", 60 * DAY), ("snapshot", 60 * DAY)] {
            old.role(role)["expires"] = json!(at(NOW + lifetime));
        }
        old.release();
        let mut repo = old.clone();
        repo.role("timestamp")["expires"] = json!(at(NOW + 30 * DAY));
        repo.release();
        let mut device = Device::settled(&mut repo);
        for _ in 0..2 {
            let refused = device.refresh(&mut old, NOW + later);
            assert!(
                matches!(refused, Err(TufError::Rollback { trusted: 3, offered: 2, .. })),
                "{refused:?}"
            );
            device.restart();
        }
    }
}

#[test]
fn a_newer_timestamp_over_an_older_snapshot_or_older_targets_is_refused() {
    let mut repo = Repo::new();
    repo.release();
    let mut device = Device::settled(&mut repo);
    let honest = repo.clone();
    repo.role("snapshot")["version"] = json!(1);
    repo.serve("snapshot");
    repo.publish("timestamp");
    let refused = device.refresh(&mut repo, NOW);
    let is = matches!(&refused, Err(TufError::Rollback { role, .. }) if role == "snapshot");
    assert!(is, "{refused:?}");
    // Without the stored timestamp the stored snapshot still stands, and the other way round.
    for lost in ["timestamp.json", "snapshot.json"] {
        let mut device = Device::settled(&mut honest.clone());
        device.restart();
        device.disk.files.remove(lost);
        let refused = device.refresh(&mut repo, NOW);
        assert!(matches!(refused, Err(TufError::Rollback { .. })), "{lost}: {refused:?}");
    }

    let mut repo = honest;
    let mut device = Device::settled(&mut repo);
    repo.role("targets")["version"] = json!(1);
    repo.serve("targets");
    repo.publish("snapshot");
    repo.publish("timestamp");
    let refused = device.refresh(&mut repo, NOW);
    let is = matches!(&refused, Err(TufError::Rollback { role, .. }) if role == "targets.json");
    assert!(is, "{refused:?}");
}

#[test]
fn a_role_that_vanishes_from_the_snapshot_is_refused() {
    let mut repo = Repo::new();
    repo.delegate("targets", "app", 7, &["app/*"]);
    repo.publish("app");
    repo.release();
    let mut device = Device::settled(&mut repo);
    repo.role("snapshot")["meta"].as_object_mut().expect("a map").remove("app.json");
    repo.release();
    assert!(matches!(device.refresh(&mut repo, NOW), Err(TufError::Removed { .. })));
}

#[test]
fn files_that_never_belonged_together_are_refused() {
    // Each is validly signed; only the parent's word of version, length or hash speaks against it.
    type Kind = fn(&TufError) -> bool;
    let cases: [(&str, Value, Kind); 6] = [
        ("version", json!(9), |e| matches!(e, TufError::Version { expected: 9, .. })),
        ("length", json!(10_000), |e| matches!(e, TufError::Length { .. })),
        ("length", json!(10), |e| matches!(e, TufError::Fetch { .. })),
        ("hashes", json!({"sha256": "00".repeat(32)}), |e| matches!(e, TufError::Hash { .. })),
        ("hashes", json!({"md5": "00"}), |e| matches!(e, TufError::NoKnownHash { .. })),
        ("hashes", json!({}), |e| matches!(e, TufError::NoKnownHash { .. })),
    ];
    for (field, value, kind) in cases {
        for (parent, file) in [("timestamp", "snapshot.json"), ("snapshot", "targets.json")] {
            let mut repo = Repo::new();
            repo.role(parent)["meta"][file][field] = value.clone();
            if parent == "snapshot" {
                repo.publish("snapshot");
            }
            repo.publish("timestamp");
            for name in ["snapshot", "targets"] {
                let bytes = repo.signed(name);
                repo.files.insert(format!("9.{name}.json"), bytes);
            }
            let refused = Device::new(&repo).refresh(&mut repo, NOW).expect_err("mixed");
            assert!(kind(&refused), "{parent} {field} {value}: {refused}");
        }
    }
}

#[test]
fn a_timestamp_changed_under_its_version_is_not_followed() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    let before = device.disk.files["timestamp.json"].clone();
    repo.role("timestamp")["meta"]["snapshot.json"]["version"] = json!(100);
    repo.serve("timestamp");
    let refreshed = device.refresh(&mut repo, NOW).expect("the one held is still good");
    assert_eq!(refreshed.change, Change::Nothing);
    assert_eq!(device.disk.files["timestamp.json"], before);
}

#[test]
fn versions_driven_to_the_maximum_are_accepted_and_nothing_overflows() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    for role in ["targets", "snapshot", "timestamp"] {
        repo.role(role)["version"] = json!(u64::MAX);
        repo.serve(role);
    }
    let status = device.refresh(&mut repo, NOW).expect("validly signed").status;
    assert_eq!((status.timestamp_version, status.targets_version), (u64::MAX, u64::MAX));
    device.refresh(&mut repo, NOW).expect("still");

    let mut repo = Repo::new();
    repo.role("root")["version"] = json!(u64::MAX);
    repo.serve("root");
    let last = repo.files[&repo.file("root")].clone();
    repo.files.insert("1.root.json".into(), last);
    let mut device = Device::new(&repo);
    device.refresh(&mut repo, NOW).expect("there is no next root to ask for");
    assert_eq!(repo.asked.first().map(String::as_str), Some("timestamp.json"));
}

#[test]
fn a_root_with_other_online_keys_recovers_from_fast_forward_also_when_an_old_key_stays() {
    type Rekey = fn(&mut Repo);
    let rekeys: [Rekey; 4] = [
        |repo| repo.appoint("timestamp", &[12], 1),
        |repo| repo.appoint("snapshot", &[13], 1),
        |repo| repo.appoint("timestamp", &[2, 12], 1),
        |repo| repo.appoint("snapshot", &[3, 13], 2),
    ];
    for (i, rekey) in rekeys.into_iter().enumerate() {
        let (mut repo, mut device) = fast_forwarded();
        assert!(matches!(device.refresh(&mut repo, NOW), Err(TufError::Rollback { .. })));
        rekey(&mut repo);
        repo.publish("root");
        repo.release();
        device.refresh(&mut repo, NOW).unwrap_or_else(|e| panic!("rekey {i}: {e}"));
        let forgotten = device.disk.log.iter().position(|l| l == "remove snapshot.json");
        let stored = device.disk.log.iter().position(|l| l == "save 2.root.json");
        assert!(forgotten.expect("forgotten") < stored.expect("stored"));
    }
}

#[test]
fn another_threshold_alone_recovers_too() {
    let mut honest = Repo::new();
    honest.appoint("snapshot", &[3, 13], 1);
    honest.serve("root");
    let mut stolen = honest.clone();
    stolen.signers.insert("snapshot".into(), vec![key(3)]);
    for role in ["snapshot", "timestamp"] {
        stolen.role(role)["version"] = json!(u64::MAX);
        stolen.serve(role);
    }
    let mut device = Device::settled(&mut stolen);
    honest.appoint("snapshot", &[3, 13], 2);
    honest.publish("root");
    honest.release();
    device.refresh(&mut honest, NOW).expect("recovered");
}

#[test]
fn a_root_with_the_same_online_keys_forgets_nothing() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    repo.role("root")["keys"]["renamed"] = key_json(2);
    repo.role("root")["roles"]["timestamp"]["keyids"] = json!(["key-2", "renamed"]);
    repo.publish("root");
    device.refresh(&mut repo, NOW).expect("honest");
    assert!(
        !device.disk.log.iter().any(|line| line.starts_with("remove")),
        "{:?}",
        device.disk.log
    );
}

#[test]
fn power_cut_at_any_write_of_a_recovery_does_no_harm() {
    for power in 0..100 {
        let (mut repo, mut device) = fast_forwarded();
        repo.appoint("timestamp", &[2, 12], 1);
        repo.publish("root");
        repo.release();
        let floor = device.floor.clone();
        device.disk.power = Some(power);
        let cut = device.refresh(&mut repo, NOW).is_err();
        device.restart();
        // The floor is persisted after the refresh, so a cut leaves the one from before.
        device.floor = floor;
        let status = device.refresh(&mut repo, NOW).expect("recovered").status;
        assert_eq!((status.root_version, status.timestamp_version), (2, 2), "cut after {power}");
        if !cut {
            assert!(power >= 5, "a recovery writes a root and three roles and removes two files");
            return;
        }
    }
    panic!("a recovery that never ends");
}

#[test]
fn the_anchor_is_never_written_and_stored_roots_must_follow_from_it() {
    let mut repo = Repo::new();
    repo.publish("root");
    repo.publish("root");
    let mut device = Device::settled(&mut repo);
    assert!(!device.disk.files.contains_key("1.root.json"));
    assert!(!device.disk.files.contains_key("root.json"));
    device.restart();
    assert_eq!(device.root_version(), 3);

    // A thief's root, sound in itself, but not signed by whom the anchor names.
    let mut thief = repo.clone();
    thief.appoint("root", &[66], 1);
    thief.signers.insert("root".into(), vec![key(66)]);
    thief.role("root")["version"] = json!(2);
    device.restart();
    device.disk.files.insert("2.root.json".into(), thief.signed("root"));
    assert_eq!(device.root_version(), 1);
    device.refresh(&mut repo, NOW).expect("the true roots are fetched again");
    assert_eq!(device.root_version(), 3);
    device.restart();
    assert_eq!(device.root_version(), 3);
}

#[test]
fn torn_or_edited_files_count_as_absent_and_do_not_lock_out() {
    let mut repo = Repo::new();
    repo.publish("root");
    let settled = Device::settled(&mut repo);
    let names: Vec<String> = settled.disk.files.keys().cloned().collect();
    assert_eq!(names, ["2.root.json", "snapshot.json", "targets.json", "timestamp.json"]);
    for name in &names {
        let whole = &settled.disk.files[name];
        let text = String::from_utf8(whole.clone()).expect("JSON");
        let edited = text.replace("\"version\": 1", "\"version\": 999");
        let foreign = sign(&repo.roles["targets"], &[key(66)]);
        for bytes in [vec![], whole[..whole.len() / 2].to_vec(), edited.into_bytes(), foreign] {
            let mut device = Device::settled(&mut repo);
            device.restart();
            device.disk.files.insert(name.clone(), bytes);
            let refreshed = device.refresh(&mut repo, NOW).expect("fetched again");
            assert_eq!(refreshed.status.root_version, 2);
            assert_eq!(&device.disk.files[name], whole, "{name}");
        }
    }
}

#[test]
fn a_full_disk_is_told_apart_from_a_bad_repository() {
    let mut repo = Repo::new();
    let mut device = Device::new(&repo);
    device.disk.power = Some(0);
    assert!(matches!(device.refresh(&mut repo, NOW), Err(TufError::Store(_))));
    device.disk.power = None;
    device.refresh(&mut repo, NOW).expect("once there is room");
}

#[test]
fn a_clock_set_back_revives_nothing_and_a_small_step_back_stops_nothing() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    device.refresh(&mut repo, NOW - 30).expect("thirty seconds back");
    let expired = device.refresh(&mut repo, NOW + DAY);
    assert!(matches!(expired, Err(TufError::Expired { .. })), "{expired:?}");
    for back in [NOW, NOW - 10 * 365 * DAY] {
        device.restart();
        let refused = device.refresh(&mut repo, back);
        assert!(matches!(refused, Err(TufError::SeenExpired { version: 1 })), "{refused:?}");
    }
    repo.role("timestamp")["expires"] = json!(at(NOW + 2 * DAY));
    repo.publish("timestamp");
    device.refresh(&mut repo, NOW + DAY).expect("a newer timestamp");
    // The floor is now a day on: a snapshot that expired meanwhile stays expired in 2015 too.
    repo.role("snapshot")["expires"] = json!(at(NOW + DAY - 1));
    repo.release();
    let refused = device.refresh(&mut repo, NOW - 10 * 365 * DAY);
    let frozen = matches!(&refused, Err(TufError::Expired { role, .. }) if role == "snapshot");
    assert!(frozen, "{refused:?}");
}

#[test]
fn a_clock_set_forward_and_right_again_recovers_without_a_visit() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    assert!(device.refresh(&mut repo, NOW + 14 * 365 * DAY).is_err());
    assert!(device.refresh(&mut repo, NOW + 30 * DAY).is_err());
    device.restart();
    assert!(matches!(device.refresh(&mut repo, NOW), Err(TufError::SeenExpired { .. })));
    repo.publish("timestamp");
    device.refresh(&mut repo, NOW).expect("the next timestamp, ten minutes later");
}

#[test]
fn the_floor_is_what_the_signer_wrote_where_he_wrote_it() {
    let mut repo = Repo::new();
    repo.role("timestamp")["issued"] = json!(at(NOW - 5 * HOUR));
    repo.publish("timestamp");
    let device = Device::settled(&mut repo);
    assert!(device.floor.contains(&at(NOW - 5 * HOUR)), "{}", device.floor);
    // A device with a dead clock is lifted to it.
    let mut device = Device::new(&repo);
    device.refresh(&mut repo, 0).expect("all is unexpired in 1970");
    assert!(device.floor.contains(&at(NOW - 5 * HOUR)), "{}", device.floor);
    // Text that is no moment is as good as none.
    repo.role("timestamp")["issued"] = json!("yesterday");
    repo.publish("timestamp");
    assert_eq!(device.refresh(&mut repo, NOW).expect("fine").status.timestamp_issued, None);
}

#[test]
fn a_thief_who_dates_a_timestamp_ahead_does_not_lock_devices_out() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    repo.role("timestamp")["issued"] = json!(at(NOW + 14 * 365 * DAY));
    repo.role("timestamp")["expires"] = json!(at(NOW + 20 * 365 * DAY));
    repo.publish("timestamp");
    device.refresh(&mut repo, NOW).expect("validly signed");
    let mut honest = Repo::new();
    honest.role("timestamp")["version"] = json!(2);
    honest.publish("timestamp");
    device.refresh(&mut honest, NOW + HOUR).expect("nothing seems expired");
    // Dated within what the chain allows, it binds until the keys are replaced, and no longer.
    repo.role("timestamp")["issued"] = json!(at(NOW + 6 * DAY));
    repo.role("timestamp")["version"] = json!(8);
    repo.publish("timestamp");
    device.refresh(&mut repo, NOW).expect("validly signed");
    honest.role("timestamp")["version"] = json!(20);
    honest.publish("timestamp");
    assert!(matches!(device.refresh(&mut honest, NOW), Err(TufError::Expired { .. })));
    honest.appoint("timestamp", &[12], 1);
    honest.publish("root");
    honest.serve("timestamp");
    device.refresh(&mut honest, NOW).expect("the thief's word went with his key");
}

/// A device that was driven to the maximum with stolen online keys, and the honest repository that
/// it now refuses.
fn fast_forwarded() -> (Repo, Device) {
    let honest = Repo::new();
    let mut stolen = honest.clone();
    for role in ["snapshot", "timestamp"] {
        stolen.role(role)["version"] = json!(u64::MAX);
        stolen.serve(role);
    }
    let device = Device::settled(&mut stolen);
    (honest, device)
}
