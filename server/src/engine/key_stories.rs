//! Stories of the gatekeeper's keys: replaced while it runs, stolen, and driven to the end of all
//! numbers by a thief.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use lockgate_shared::{
    act::{Act, Lift},
    id::ModelId,
    rollout::{RolloutFile, Scope, Stop, StopKind},
    time::{Moment, Seconds},
    wire::encode_rollout_file,
};
use tough::schema::{RoleType, Root};

use super::fixture::{Yard, first_targets, key, root_role, sign_role, signed};
use crate::{
    status::About,
    stream::{EntryKind, Publication},
    tuf::{
        repository::{Repository, Terms},
        roles::OnlineKeys,
        trusted::Trusted,
    },
};

const DAY: Seconds = Seconds(86_400);

#[test]
fn the_next_keys_take_over_in_the_moment_in_which_a_root_names_them() {
    let mut yard = Yard::new();
    put_key(&yard, "snapshot-2", 7);
    yard.start_engine();
    let before = versions(&yard);
    let offset = yard.json(EntryKind::Publish, &root(root_role(2, 1, 7), &[1]));
    yard.accepted(offset);
    assert!(versions(&yard)["snapshot"] > before["snapshot"]);
    assert!(yard.status().alarms.is_empty(), "{:?}", yard.status().alarms);
}

#[test]
fn a_key_that_comes_after_its_root_is_taken_up_without_a_restart() {
    let mut yard = Yard::new();
    let offset = yard.json(EntryKind::Publish, &root(root_role(2, 1, 7), &[1]));
    yard.accepted(offset);
    let before = versions(&yard);
    put_key(&yard, "later", 7);
    yard.tick();
    assert!(versions(&yard)["snapshot"] > before["snapshot"]);
    assert!(versions(&yard)["timestamp"] > before["timestamp"]);
    assert!(yard.status().alarms.is_empty(), "the cause is gone: {:?}", yard.status().alarms);
}

#[test]
fn the_alarm_about_a_missing_key_ends_with_it_though_the_gatekeeper_restarted_in_between() {
    for comes_with_the_restart in [true, false] {
        let mut yard = Yard::new();
        let offset = yard.json(EntryKind::Publish, &root(root_role(2, 1, 7), &[1]));
        yard.accepted(offset);
        yard.start_engine();
        yard.tick();
        assert_eq!(yard.status().alarms.len(), 1, "{:?}", yard.status().alarms);
        let said = yard.letters.verdicts.iter().filter(|one| one.about == About::Repository);
        assert_eq!(said.count(), 1, "a restart is no news");
        put_key(&yard, "later", 7);
        if comes_with_the_restart {
            yard.start_engine();
        }
        yard.tick();
        assert!(yard.status().alarms.is_empty(), "the cause is gone: {:?}", yard.status().alarms);
    }
}

#[test]
fn a_key_that_comes_just_before_its_root_alarms_nobody() {
    let mut yard = Yard::new();
    put_key(&yard, "later", 7);
    let offset = yard.json(EntryKind::Publish, &root(root_role(2, 1, 7), &[1]));
    yard.accepted(offset);
    assert!(yard.status().alarms.is_empty(), "{:?}", yard.status().alarms);
}

#[test]
fn versions_that_a_thief_drove_to_the_end_are_low_again_under_new_keys() {
    let mut yard = Yard::new();
    steal(&yard, u64::MAX);
    yard.start_engine();
    yard.tick();
    let alarms = yard.status().alarms;
    assert!(alarms.iter().any(|alarm| alarm.text.contains("last version")), "{alarms:?}");

    let offset = yard.json(EntryKind::Publish, &root(root_role(2, 1, 7), &[1]));
    yard.accepted(offset);
    put_key(&yard, "snapshot-2", 7);
    yard.tick();
    let seconds = u64::try_from(yard.now.0).expect("after 1970");
    for (role, version) in versions(&yard) {
        assert!(version <= seconds + 10, "`{role}` has version {version}");
    }
    // A restart finds what the thief left in the folder, and does not follow it.
    yard.start_engine();
    yard.tick();
    for (role, version) in versions(&yard) {
        assert!(version <= seconds + 100, "`{role}` has version {version}");
    }
    let left = yard.folder.path().join(format!("repository/metadata/{}.snapshot.json", u64::MAX));
    assert!(!left.exists(), "the thief's snapshot is still offered");
}

#[test]
fn a_lost_store_and_a_thiefs_folder_do_not_bring_the_thiefs_versions_back() {
    let mut yard = Yard::new();
    steal(&yard, u64::MAX - 1);
    fs::write(
        yard.folder.path().join("repository/metadata/2.root.json"),
        sign_role(root_role(2, 1, 7), &[1]),
    )
    .expect("written");
    put_key(&yard, "snapshot-2", 7);
    yard.engine = None;
    fs::remove_dir_all(yard.folder.path().join("state")).expect("lost");
    yard.start_engine();
    for (role, version) in versions(&yard) {
        assert!(version < 100, "`{role}` has version {version}");
    }
}

#[test]
fn a_stop_at_the_end_of_all_numbers_is_lifted_like_any_and_numbers_go_on_as_before() {
    let mut yard = Yard::new();
    steal(&yard, 1_000);
    yard.start_engine();
    yard.tick();
    let lift = |number| {
        let repository = yard.policy.repository.clone();
        signed(
            &Act::Lift(Lift { repository, numbers: [number].into(), reason: "forged".into() }),
            &[21],
        )
    };
    let (forged, unborn) = (lift(u64::MAX), lift(9));
    let offset = yard.json(EntryKind::Act, &forged);
    yard.accepted(offset);
    let offset = yard.json(EntryKind::Act, &unborn);
    yard.refused(offset, "9");
    yard.start_engine();
    yard.tick();
}

#[test]
fn a_root_that_does_not_stand_behind_the_targets_comes_with_new_ones_or_not_at_all() {
    let mut yard = Yard::new();
    let mut role = root_role(2, 1, 3);
    // From here on the key 8 signs targets.
    let eight = root_role(2, 8, 3).roles[&RoleType::Root].keyids.clone();
    role.roles.get_mut(&RoleType::Targets).expect("a role").keyids = eight;
    let alone = root(role, &[1]);
    let offset = yard.json(EntryKind::Publish, &alone);
    yard.refused(offset, "does not stand behind the targets");
    yard.start_engine();

    let text = serde_json::to_string_pretty(&yard.policy).expect("json");
    let targets = |keys: &[u8]| Publication {
        role: "targets".into(),
        metadata: String::from_utf8(sign_role(first_targets(2, &text), keys)).expect("text"),
        targets: Vec::new(),
        with: Vec::new(),
    };
    let wrong = Publication { with: vec![targets(&[2])], ..alone.clone() };
    let offset = yard.json(EntryKind::Publish, &wrong);
    yard.refused(offset, "0 of 1 signatures");
    assert!(!yard.folder.path().join("repository/metadata/2.root.json").exists());
    let right = Publication { with: vec![targets(&[8])], ..alone };
    let offset = yard.json(EntryKind::Publish, &right);
    yard.accepted(offset);
    yard.start_engine();
    let roles: BTreeMap<String, u64> =
        yard.status().expiries.into_iter().map(|e| (e.role, e.version)).collect();
    assert_eq!((roles["root"], roles["targets"]), (2, 2));
}

/// Versions of the online roles as last signed.
fn versions(yard: &Yard) -> BTreeMap<String, u64> {
    let online = ["rollouts", "snapshot", "timestamp"];
    let expiries = yard.status().expiries.into_iter();
    expiries
        .filter(|expiry| online.contains(&expiry.role.as_str()))
        .map(|expiry| (expiry.role, expiry.version))
        .collect()
}

fn root(role: Root, keys: &[u8]) -> Publication {
    Publication {
        role: "root".into(),
        metadata: String::from_utf8(sign_role(role, keys)).expect("text"),
        targets: Vec::new(),
        with: Vec::new(),
    }
}

fn put_key(yard: &Yard, name: &str, number: u8) {
    let path = yard.folder.path().join(format!("online/{name}.key"));
    let pem = key(number).to_pkcs8_pem(pkcs8::LineEnding::LF).expect("pem");
    fs::write(&path, pem.as_bytes()).expect("a key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

/// With all three online keys: every version as given, and a stop of everything at the end of all
/// numbers.
fn steal(yard: &Yard, version: u64) {
    let folder = yard.folder.path();
    let terms = Terms { rollouts: DAY, snapshot: DAY, timestamp: DAY };
    let keys = OnlineKeys::load(&folder.join("online")).expect("keys");
    let repository = Repository::new(folder.join("repository"), keys, terms);
    let files = repository.people_files().expect("files");
    let trusted = Trusted::read(&anchor(folder), &files).expect("trusted");
    let product = "app".parse().expect("a name");
    let model = ModelId::of_hardware("Acme", "Slate 3");
    let file = RolloutFile {
        repository: yard.policy.repository.clone(),
        product,
        model: model.clone(),
        issued: yard.now,
        letters_offset: 0,
        rollouts: Vec::new(),
        stops: vec![Stop {
            number: u64::MAX,
            kind: StopKind::Pause,
            scope: Scope::Everything,
            since: Moment(0),
            reason: "a thief's".into(),
        }],
        lifts: Vec::new(),
    };
    let path = RolloutFile::path(&file.product, &model);
    let targets = [(path, encode_rollout_file(&file).expect("a file"))].into();
    let rollouts = repository.rollouts(&trusted, &targets, version, yard.now).expect("signed");
    let snapshot = repository.snapshot(&trusted, &rollouts, version, yard.now).expect("signed");
    let timestamp = repository.timestamp(&trusted, &snapshot, version, yard.now).expect("signed");
    repository.write_rollouts(&targets, &rollouts).expect("written");
    repository.write_snapshot(&snapshot).expect("written");
    repository.write_timestamp(&timestamp).expect("written");
}

fn anchor(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("root.json")).expect("the anchor")
}
