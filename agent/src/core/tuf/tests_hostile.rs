//! Keys that try to count twice, formats that try to confuse, and bytes that are nothing at all.

use lockgate_shared::time::Moment;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::testkit::{Device, NOW, Repo, key, key_id, key_json, sign};
use super::{FetchError, Floor, Malformed, TufError, Updater};

/// The roles whose file is fetched in a refresh of a repository at root version 2.
const ROLES: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

#[test]
fn fewer_keys_than_the_threshold_are_refused_for_every_role() {
    for role in ROLES {
        let mut repo = Repo::new();
        let mut device = Device::settled(&mut repo);
        repo.appoint(role, &[21, 22, 23], 2);
        if role == "root" {
            repo.signers.insert("root".into(), vec![key(1), key(21)]);
        } else {
            repo.signers.insert(role.into(), vec![key(22), key(66)]);
        }
        repo.publish("root");
        repo.release();
        let refused = device.refresh(&mut repo, NOW);
        let is = matches!(refused, Err(TufError::Signatures { valid: 1, threshold: 2, .. }));
        assert!(is, "{role}: {refused:?}");
    }
}

#[test]
fn one_key_under_two_key_ids_is_one_key() {
    let mut repo = Repo::new();
    let root = repo.role("root");
    root["keys"]["alias"] = key_json(2);
    root["roles"]["timestamp"] = json!({"keyids": [key_id(2), "alias"], "threshold": 2});
    repo.serve("root");
    let mut file: Value = serde_json::from_slice(&repo.files["timestamp.json"]).expect("JSON");
    let mut twin = file["signatures"][0].clone();
    twin["keyid"] = json!("alias");
    file["signatures"].as_array_mut().expect("a list").push(twin);
    repo.files.insert("timestamp.json".into(), file.to_string().into_bytes());
    let refused = Device::new(&repo).refresh(&mut repo, NOW);
    assert!(matches!(refused, Err(TufError::Signatures { valid: 1, .. })), "{refused:?}");
}

#[test]
fn one_key_id_twice_among_the_keys_of_a_role_is_one_key() {
    let mut repo = Repo::new();
    repo.role("root")["roles"]["timestamp"] =
        json!({"keyids": [key_id(2), key_id(2)], "threshold": 2});
    repo.serve("root");
    let refused = Device::new(&repo).refresh(&mut repo, NOW);
    assert!(matches!(refused, Err(TufError::Signatures { valid: 1, .. })), "{refused:?}");
}

#[test]
fn two_signatures_with_one_key_id_are_refused() {
    let mut repo = Repo::new();
    repo.signers.insert("timestamp".into(), vec![key(2), key(2)]);
    repo.serve("timestamp");
    let refused = Device::new(&repo).refresh(&mut repo, NOW);
    let is =
        matches!(refused, Err(TufError::Malformed { source: Malformed::DuplicateSignature, .. }));
    assert!(is, "{refused:?}");
}

#[test]
fn a_flood_of_signatures_is_refused() {
    let mut repo = Repo::new();
    let mut file: Value = serde_json::from_slice(&repo.signed("root")).expect("JSON");
    file["signatures"] =
        (0..300).map(|i| json!({"keyid": i.to_string(), "sig": ""})).collect::<Vec<_>>().into();
    repo.files.insert("2.root.json".into(), file.to_string().into_bytes());
    let refused = Device::new(&repo).refresh(&mut repo, NOW);
    let is =
        matches!(refused, Err(TufError::Malformed { source: Malformed::TooManySignatures(_), .. }));
    assert!(is, "{refused:?}");
}

#[test]
fn a_threshold_of_zero_is_refused_in_any_role_of_a_root() {
    for role in ROLES {
        let mut repo = Repo::new();
        let mut device = Device::settled(&mut repo);
        repo.role("root")["roles"][role]["threshold"] = json!(0);
        repo.publish("root");
        assert!(
            matches!(device.refresh(&mut repo, NOW), Err(TufError::Malformed { .. })),
            "{role}"
        );
        assert_eq!(device.root_version(), 1);
    }
}

#[test]
fn an_anchor_that_does_not_sign_itself_is_refused() {
    let repo = Repo::new();
    let mut store = Device::new(&repo).disk;
    let forged = sign(&repo.roles["root"], &[key(66)]);
    for anchor in [&forged[..], b"", b"{}", &repo.files["timestamp.json"]] {
        assert!(Updater::open(anchor, &mut store, Floor::default()).is_err());
    }
}

#[test]
fn keys_of_unknown_kind_are_left_out_and_the_others_must_reach_the_threshold() {
    let mut repo = Repo::new();
    let root = repo.role("root");
    root["keys"]["new"] =
        json!({"keytype": "ml-dsa-65", "scheme": "ml-dsa-65", "keyval": {"public": "00"}});
    root["keys"]["odd"] = json!(["not", "even", "a", "key"]);
    root["keys"][key_id(21)] = key_json(21);
    root["roles"]["timestamp"] =
        json!({"keyids": ["new", "odd", "gone", key_id(2), key_id(21)], "threshold": 2});
    repo.serve("root");
    assert!(Device::new(&repo).refresh(&mut repo, NOW).is_err());
    repo.signers.insert("timestamp".into(), vec![key(2), key(21)]);
    repo.serve("timestamp");
    Device::new(&repo).refresh(&mut repo, NOW).expect("two known keys signed");
}

#[test]
fn a_bad_signature_beside_enough_good_ones_does_no_harm() {
    for sig in ["", "zz", "00", &"00".repeat(64)] {
        let mut repo = Repo::new();
        repo.appoint("timestamp", &[2, 21], 1);
        repo.serve("root");
        let mut file: Value = serde_json::from_slice(&repo.files["timestamp.json"]).expect("JSON");
        let list = file["signatures"].as_array_mut().expect("a list");
        list.insert(0, json!({"keyid": key_id(21), "sig": sig}));
        repo.files.insert("timestamp.json".into(), file.to_string().into_bytes());
        Device::new(&repo).refresh(&mut repo, NOW).expect("the other signature is good");
    }
}

#[test]
fn unknown_fields_are_signed_fields() {
    for role in ROLES {
        let mut repo = Repo::new();
        let device = |repo: &Repo| Device::new(repo);
        repo.role(role)["x-new"] = json!({"b": [1, null, "\u{e9}\"\\\n"], "a": true});
        repo.publish("root");
        repo.release();
        device(&repo).refresh(&mut repo, NOW).expect("signed with it");
        let name = repo.file(role);
        let text = String::from_utf8(repo.files[&name].clone()).expect("JSON");
        assert!(text.contains("x-new"));
        // Of the same length, so that only the signature, or the parent's hash, can tell.
        repo.files.insert(name, text.replace("x-new", "x-old").into_bytes());
        assert!(device(&repo).refresh(&mut repo, NOW).is_err(), "{role}");
    }
}

#[test]
fn documents_that_two_readers_could_read_differently_are_refused() {
    let repo = Repo::new();
    let text = String::from_utf8(repo.files["timestamp.json"].clone()).expect("JSON");
    let edits: [(&str, &str); 5] = [
        ("\"signed\": {", "\"signed\": {\"version\": 9,"),
        ("\"signed\": {", "\"signed\": {}, \"signed\": {"),
        ("\"version\": 1", "\"version\": 1.0"),
        ("\"version\": 1", "\"version\": 1e0"),
        ("\"version\": 1", "\"version\": 18446744073709551617"),
    ];
    for (from, to) in edits {
        let mut repo = repo.clone();
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text);
        repo.files.insert("timestamp.json".into(), edited.into_bytes());
        let refused = Device::new(&repo).refresh(&mut repo, NOW);
        assert!(matches!(refused, Err(TufError::Malformed { .. })), "{to}: {refused:?}");
    }
}

#[test]
fn an_error_quotes_no_more_than_the_beginning_of_what_came() {
    for field in ["_type", "spec_version", "expires", "version", "meta"] {
        let mut repo = Repo::new();
        repo.role("timestamp")[field] = json!("x".repeat(10_000));
        let bytes = repo.signed("timestamp");
        repo.files.insert("timestamp.json".into(), bytes);
        let refused = Device::new(&repo).refresh(&mut repo, NOW).expect_err("malformed");
        let why = std::error::Error::source(&refused).expect("what is wrong").to_string();
        assert!(why.len() < 300, "{field}: {} characters", why.len());
    }
}

#[test]
fn metadata_of_one_role_does_not_pass_for_another() {
    let mut repo = Repo::new();
    repo.role("root")["roles"]["timestamp"]["keyids"] = json!([key_id(2), key_id(3)]);
    repo.serve("root");
    repo.role("snapshot")["meta"] = json!({"snapshot.json": {"version": 1}});
    let bytes = repo.signed("snapshot");
    repo.files.insert("timestamp.json".into(), bytes);
    let refused = Device::new(&repo).refresh(&mut repo, NOW);
    let is = matches!(refused, Err(TufError::Malformed { source: Malformed::Type { .. }, .. }));
    assert!(is, "{refused:?}");
}

#[test]
fn a_new_major_version_of_the_specification_is_refused_wherever_it_appears() {
    for role in ROLES {
        let mut repo = Repo::new();
        let mut device = Device::settled(&mut repo);
        repo.role(role)["spec_version"] = json!("2.0.0");
        repo.publish("root");
        repo.release();
        let refused = device.refresh(&mut repo, NOW);
        let is =
            matches!(refused, Err(TufError::Malformed { source: Malformed::SpecVersion(_), .. }));
        assert!(is, "{role}: {refused:?}");
    }
}

#[test]
fn a_transport_that_ignores_its_limit_is_cut_off() {
    let mut repo = Repo::new();
    let mut device = Device::settled(&mut repo);
    repo.endless = true;
    let refused = device.refresh(&mut repo, NOW);
    let long = matches!(refused, Err(TufError::Fetch { source: FetchError::TooLong { .. }, .. }));
    assert!(long, "{refused:?}");
}

#[test]
fn a_file_longer_than_its_parent_says_is_not_read_to_its_end() {
    let mut repo = Repo::new();
    let name = repo.file("snapshot");
    repo.files.get_mut(&name).expect("served").push(b' ');
    let refused = Device::new(&repo).refresh(&mut repo, NOW);
    let long = matches!(refused, Err(TufError::Fetch { source: FetchError::TooLong { .. }, .. }));
    assert!(long, "{refused:?}");
}

#[test]
fn every_refusal_says_what_and_what_next_without_control_characters() {
    let refusals = [
        TufError::RoleName { role: "a\u{1b}[31m\n".into() },
        TufError::SeenExpired { version: 7 },
        TufError::Expired {
            role: "root".into(),
            version: 1,
            expires: Moment(i64::MIN),
            now: Moment(i64::MAX),
        },
        TufError::TooManyRoots { reached: u64::MAX, limit: 1 },
    ];
    for refusal in refusals {
        let text = refusal.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(!refusal.hint().is_empty());
    }
}

#[test]
fn two_stolen_roles_install_nothing_and_three_no_more_than_their_own_paths() {
    let mine = |stolen: &[&str]| -> Vec<&'static str> {
        let online = stolen.contains(&"timestamp") && stolen.contains(&"snapshot");
        match online {
            true if stolen.contains(&"targets") => vec!["app/x", "lib/x"],
            true if stolen.contains(&"app") => vec!["app/x"],
            true if stolen.contains(&"lib") => vec!["lib/x"],
            true | false => vec![],
        }
    };
    let roles = ["timestamp", "snapshot", "targets", "app", "lib"];
    let mut sets: Vec<Vec<&str>> = roles.iter().map(|role| vec![*role]).collect();
    for (i, one) in roles.iter().enumerate() {
        sets.extend(roles[i + 1..].iter().map(|other| vec![*one, *other]));
    }
    sets.extend(["targets", "app", "lib"].map(|role| vec!["timestamp", "snapshot", role]));
    for stolen in sets {
        for forge in [Forge::WhatIsNotStolen, Forge::Nothing] {
            let (mut repo, mut device) = two_products();
            steal(&mut repo, &stolen, forge);
            let given: Vec<&str> = match device.refresh(&mut repo, NOW) {
                Ok(_) => ["app/x", "lib/x"]
                    .into_iter()
                    .filter(|path| {
                        let found = device.find(&mut repo, path, NOW).ok().flatten();
                        found.and_then(|target| device.bytes(&mut repo, &target).ok())
                            == Some(b"evil".to_vec())
                    })
                    .collect(),
                Err(_) => Vec::new(),
            };
            let may = mine(&stolen);
            assert!(given.iter().all(|path| may.contains(path)), "{stolen:?} gave {given:?}");
            if forge == Forge::Nothing {
                assert_eq!(given, may, "{stolen:?} can do what it may");
            }
            assert_eq!(device.root_version(), 1, "{stolen:?} never makes a root");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_bytes_in_place_of_any_file_are_refused_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..512),
        role in 0..ROLES.len(),
    ) {
        let mut repo = Repo::new();
        repo.publish("root");
        let name = repo.file(ROLES[role]);
        repo.files.insert(name, bytes);
        prop_assert!(Device::new(&repo).refresh(&mut repo, NOW).is_err());
    }

    #[test]
    fn random_json_signed_by_the_right_keys_never_panics(
        field in "[a-z_]{1,12}",
        value in json_value(),
        role in 0..ROLES.len(),
        replace in any::<proptest::sample::Index>(),
    ) {
        let mut repo = Repo::new();
        let signed = repo.role(ROLES[role]).as_object_mut().expect("a map");
        let known: Vec<String> = signed.keys().cloned().collect();
        signed.insert(known[replace.index(known.len())].clone(), value.clone());
        signed.insert(field, value);
        if super::json::canonical(&repo.roles[ROLES[role]]).is_some() {
            if ROLES[role] == "root" {
                let bytes = repo.signed("root");
                repo.files.insert("2.root.json".into(), bytes);
            } else {
                let bytes = repo.signed(ROLES[role]);
                repo.files.insert(format!("1.{}.json", ROLES[role]), bytes.clone());
                if ROLES[role] == "timestamp" {
                    repo.files.insert("timestamp.json".into(), bytes);
                }
            }
        }
        let _ = Device::new(&repo).refresh(&mut repo, NOW);
    }

    #[test]
    fn a_flipped_bit_in_any_file_is_noticed_or_changes_nothing(
        role in 0..ROLES.len(),
        place in any::<proptest::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut repo = Repo::new();
        repo.publish("root");
        let honest = Device::new(&repo).refresh(&mut repo, NOW).expect("honest").status;
        let name = repo.file(ROLES[role]);
        let file = repo.files.get_mut(&name).expect("served");
        let place = place.index(file.len());
        file[place] ^= 1 << bit;
        // Outside the signed part, white space for instance, a flip may be without meaning.
        if let Ok(refreshed) = Device::new(&repo).refresh(&mut repo, NOW) {
            prop_assert_eq!(refreshed.status, honest);
        }
    }

    #[test]
    fn random_bytes_in_the_store_are_absent(
        bytes in proptest::collection::vec(any::<u8>(), 0..512),
        role in 0..ROLES.len(),
    ) {
        let mut repo = Repo::new();
        repo.publish("root");
        let mut device = Device::settled(&mut repo);
        device.restart();
        let name = if ROLES[role] == "root" { "2.root.json".into() } else { format!("{}.json", ROLES[role]) };
        device.disk.files.insert(name, bytes);
        prop_assert!(device.refresh(&mut repo, NOW).is_ok());
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What a thief does about the roles whose keys he does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Forge {
    /// He signs them himself.
    WhatIsNotStolen,
    /// He serves them as they are.
    Nothing,
}

/// Lists other bytes in every targets role that the thief changes, and signs a new root too.
fn steal(repo: &mut Repo, stolen: &[&str], forge: Forge) {
    for role in ["app", "lib", "targets", "snapshot", "timestamp"] {
        let has = stolen.contains(&role);
        if !has && forge == Forge::Nothing {
            continue;
        }
        if !has {
            repo.signers.insert(role.into(), vec![key(66)]);
        }
        match role {
            "app" => repo.add("app", "app/x", b"evil"),
            "lib" => repo.add("lib", "lib/x", b"evil"),
            "targets" => {
                repo.add("targets", "app/x", b"evil");
                repo.add("targets", "lib/x", b"evil");
            }
            _ => {}
        }
        repo.publish(role);
    }
    repo.appoint("targets", &[66], 1);
    repo.signers.insert("root".into(), vec![key(66)]);
    let (version, bytes) = (repo.version("root") + 1, repo.signed("root"));
    if forge == Forge::WhatIsNotStolen {
        repo.files.insert(format!("{version}.root.json"), bytes);
    }
}

fn two_products() -> (Repo, Device) {
    let mut repo = Repo::new();
    for (role, seed, path) in [("app", 7, "app/x"), ("lib", 8, "lib/x")] {
        repo.delegate("targets", role, seed, &[&format!("{role}/*")]);
        repo.add(role, path, b"good");
        repo.publish(role);
    }
    repo.release();
    let device = Device::settled(&mut repo);
    (repo, device)
}
