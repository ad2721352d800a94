//! What is signed, but should not be: each act changes the repository before a role is signed, as a
//! mistake of its operator would or a thief who holds that role's keys.

use serde_json::{Value, json};

use super::chance::Dice;
use super::repository::{DAY, HOUR, Hand, Repository, at, key_id, key_json};

/// Which role an act is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Any role, the root among them.
    Any,
    /// The root.
    Root,
    /// The timestamp or the snapshot: `snapshot.json`, or a role's entry, in its `meta`.
    Parent,
    /// The snapshot alone.
    Snapshot,
    /// A targets role: its targets.
    Targets,
    /// A targets role: its delegations.
    Delegator,
}

/// One thing that is done to a role before it is signed.
pub(crate) struct Act {
    pub(crate) name: &'static str,
    pub(crate) scope: Scope,
    pub(crate) perform: fn(&mut Repository, &str, &mut Dice),
}

const fn act(
    name: &'static str,
    scope: Scope,
    perform: fn(&mut Repository, &str, &mut Dice),
) -> Act {
    Act { name, scope, perform }
}

use Scope::{Any, Delegator, Parent, Root, Snapshot, Targets};

/// Every act on what is signed.
pub(crate) const ACTS: &[Act] = &[
    act("version 0", Any, |repo, role, _| repo.role(role)["version"] = json!(0)),
    act("version two back", Any, |repo, role, _| shift_version(repo, role, -2)),
    act("version kept", Any, |repo, role, _| shift_version(repo, role, -1)),
    act("version ahead", Any, |repo, role, dice| {
        let by = 1 + dice.below(1_000) as i64;
        shift_version(repo, role, by);
    }),
    act("version at its maximum", Any, |repo, role, _| {
        repo.role(role)["version"] = json!(u64::MAX);
    }),
    act("version odd", Any, |repo, role, dice| {
        let odd = [json!("7"), json!(1.5), json!(-1), Value::Null, json!([1])];
        repo.role(role)["version"] = dice.pick(&odd).clone();
    }),
    act("expired", Any, |repo, role, dice| {
        let ago = *dice.pick(&[1, HOUR, DAY, 4_000 * DAY]);
        repo.role(role)["expires"] = json!(at(repo.now - ago));
    }),
    act("expires at this second", Any, |repo, role, _| {
        repo.role(role)["expires"] = json!(at(repo.now));
    }),
    act("expires soon", Any, |repo, role, dice| {
        let ahead = *dice.pick(&[1, HOUR, 2 * HOUR]);
        repo.role(role)["expires"] = json!(at(repo.now + ahead));
    }),
    act("expiry in another form", Any, |repo, role, dice| {
        let at = |seconds| at(seconds).trim_end_matches('Z').to_owned();
        let forms = [
            format!("{}.25Z", at(repo.now + DAY)),
            format!("{}.25Z", at(repo.now)),
            format!("{}+02:00", at(repo.now + DAY)),
            at(repo.now + DAY),
            "2027-02-30T00:00:00Z".to_owned(),
            "soon".to_owned(),
        ];
        repo.role(role)["expires"] = json!(dice.pick(&forms));
    }),
    act("another type", Any, |repo, role, dice| {
        let types = [json!("root"), json!("timestamp"), json!("targets"), json!(""), json!(1)];
        repo.role(role)["_type"] = dice.pick(&types).clone();
    }),
    act("another specification", Any, |repo, role, dice| {
        let texts = [json!("2.0.0"), json!("1"), json!("1.99"), json!("0.9"), json!(1)];
        repo.role(role)["spec_version"] = dice.pick(&texts).clone();
    }),
    act("a field missing", Any, |repo, role, dice| {
        let fields =
            ["_type", "spec_version", "expires", "version", "meta", "targets", "keys", "roles"];
        let field = *dice.pick(&fields);
        repo.role(role).as_object_mut().expect("a map").remove(field);
    }),
    act("a field of another kind", Any, |repo, role, dice| {
        let field = *dice.pick(&["meta", "targets", "keys", "roles", "delegations"]);
        if repo.roles[role].get(field).is_some() {
            let kinds = [json!([]), json!("text"), json!(7), Value::Null, json!({"x": 1})];
            repo.role(role)[field] = dice.pick(&kinds).clone();
        }
    }),
    act("an unknown field", Any, |repo, role, dice| {
        let values =
            [json!({"deep": [1, {"x": null}]}), json!("\n\"\\é"), json!(u64::MAX), json!(-5)];
        repo.role(role)["x-unknown"] = dice.pick(&values).clone();
    }),
    act("a number that is not whole", Any, |repo, role, _| repo.role(role)["x-half"] = json!(0.5)),
    act("nobody signs", Any, |repo, role, _| drop(repo.hands.insert(role.into(), Vec::new()))),
    act("a stranger signs", Any, |repo, role, _| {
        repo.hands.insert(role.into(), vec![Hand::of(90)]);
    }),
    act("a stranger signs under a listed key id", Any, |repo, role, _| {
        for hand in repo.hands.get_mut(role).into_iter().flatten() {
            hand.seed = 90;
        }
    }),
    act("another role's key signs", Any, |repo, role, dice| {
        repo.hands.insert(role.into(), vec![Hand::of(1 + dice.below(9) as u8)]);
    }),
    act("one key id signs twice", Any, |repo, role, _| {
        repo.scribbles.insert(role.into(), |list| list.extend(list.first().cloned()));
    }),
    act("an unlisted key id signs twice", Any, |repo, role, _| {
        repo.scribbles.insert(role.into(), |list| {
            let entry = json!({"keyid": "unlisted", "sig": "00"});
            list.extend([entry.clone(), entry]);
        });
    }),
    act("an empty signature besides", Any, |repo, role, _| {
        repo.scribbles.insert(role.into(), |list| {
            list.insert(0, json!({"keyid": key_id(2), "sig": ""}));
        });
    }),
    act("an empty signature twice", Any, |repo, role, _| {
        repo.scribbles.insert(role.into(), |list| {
            let empty = json!({"keyid": key_id(2), "sig": ""});
            list.splice(0..0, [empty.clone(), empty]);
        });
    }),
    act("a signature in other letters", Any, |repo, role, _| {
        repo.scribbles.insert(role.into(), |list| edit(list, str::to_ascii_uppercase));
    }),
    act("a signature that is none", Any, |repo, role, _| {
        repo.scribbles.insert(role.into(), |list| edit(list, |sig| format!("zz{}", &sig[2..])));
    }),
    act("a signature cut short", Any, |repo, role, _| {
        repo.scribbles.insert(role.into(), |list| edit(list, |sig| sig[..64].to_owned()));
    }),
    act("a flood of signatures", Any, |repo, role, _| {
        repo.scribbles.insert(role.into(), |list| {
            list.extend((0..300).map(|i| json!({"keyid": format!("s{i}"), "sig": "00"})));
        });
    }),
    act("a signature without key id", Any, |repo, role, _| {
        repo.scribbles.insert(role.into(), |list| list.push(json!({"sig": "00"})));
    }),
    act("a signature with more fields", Any, |repo, role, _| {
        repo.scribbles.insert(role.into(), |list| {
            list.push(json!({"keyid": "more", "sig": "00", "x": [1]}));
        });
    }),
    act("threshold 0", Root, |repo, _, dice| appointed(repo, dice)["threshold"] = json!(0)),
    act("threshold odd", Root, |repo, _, dice| {
        let odd = [json!("1"), json!(-1), json!(1.5), Value::Null, json!(u64::MAX)];
        let threshold = dice.pick(&odd).clone();
        appointed(repo, dice)["threshold"] = threshold;
    }),
    act("threshold above the keys", Root, |repo, _, dice| {
        appointed(repo, dice)["threshold"] = json!(3);
    }),
    act("two must sign and two do", Root, |repo, _, dice| {
        let role = *dice.pick(&["timestamp", "snapshot", "targets"]);
        repo.appoint(role, &[11, 12], 2);
    }),
    act("two must sign and one does", Root, |repo, _, dice| {
        let role = *dice.pick(&["timestamp", "snapshot", "targets"]);
        repo.appoint(role, &[11, 12], 2);
        repo.hands.insert(role.into(), vec![Hand::of(11)]);
    }),
    act("one key under two ids signs twice", Root, |repo, _, dice| {
        let role = *dice.pick(&["timestamp", "snapshot", "targets"]);
        repo.appoint(role, &[11], 2);
        let root = repo.role("root");
        root["keys"]["alias"] = key_json(11);
        root["roles"][role]["keyids"] = json!([key_id(11), "alias"]);
        let hands = vec![Hand::of(11), Hand { key_id: "alias".into(), seed: 11 }];
        repo.hands.insert(role.into(), hands);
    }),
    act("no key ids", Root, |repo, _, dice| appointed(repo, dice)["keyids"] = json!([])),
    act("a key id that leads nowhere", Root, |repo, _, dice| {
        if let Some(ids) = appointed(repo, dice)["keyids"].as_array_mut() {
            ids.insert(0, json!("nowhere"));
        }
    }),
    act("a key id listed twice", Root, |repo, _, dice| {
        let entry = appointed(repo, dice);
        if let Some(ids) = entry["keyids"].as_array_mut() {
            ids.extend(ids.first().cloned());
            entry["threshold"] = json!(2);
        }
    }),
    act("a key of unknown type", Root, |repo, _, _| {
        repo.role("root")["keys"]["odd"] =
            json!({"keytype": "ml-dsa-99", "scheme": "ml-dsa-99", "keyval": {"public": "00"}});
    }),
    act("a key that is no key", Root, |repo, _, dice| {
        let odd = [json!("text"), json!({}), json!({"keytype": "ed25519", "scheme": "ed25519"})];
        repo.role("root")["keys"]["odd"] = dice.pick(&odd).clone();
    }),
    act("key material that is none", Root, |repo, _, dice| {
        let text = *dice.pick(&["", "zz", "00", "-----BEGIN PUBLIC KEY-----"]);
        let id = key_id(3 + dice.below(3) as u8);
        if repo.roles["root"]["keys"][&id].is_object() {
            repo.role("root")["keys"][id]["keyval"]["public"] = json!(text);
        }
    }),
    act("key material in other letters", Root, |repo, _, dice| {
        let id = key_id(3 + dice.below(3) as u8);
        let key = &mut repo.role("root")["keys"][id]["keyval"]["public"];
        *key = key.as_str().map_or(Value::Null, |text| json!(text.to_ascii_uppercase()));
    }),
    act("a key with another scheme", Root, |repo, _, dice| {
        let id = key_id(3 + dice.below(3) as u8);
        let scheme = *dice.pick(&["ed448", "ecdsa-sha2-nistp256", ""]);
        repo.role("root")["keys"][id]["scheme"] = json!(scheme);
    }),
    act("a key with another type", Root, |repo, _, dice| {
        let id = key_id(3 + dice.below(3) as u8);
        repo.role("root")["keys"][id]["keytype"] = json!("ecdsa");
    }),
    act("the root's keys change, old and new sign", Root, |repo, _, _| {
        repo.appoint("root", &[21, 22], 1);
        repo.hands.insert("root".into(), vec![Hand::of(21), Hand::of(1)]);
    }),
    act("the root's keys change, only the new sign", Root, |repo, _, _| {
        repo.appoint("root", &[21, 22], 1);
        repo.hands.insert("root".into(), vec![Hand::of(21)]);
    }),
    act("the root's keys change, only the old sign", Root, |repo, _, _| {
        repo.appoint("root", &[21, 22], 1);
        repo.hands.insert("root".into(), vec![Hand::of(1)]);
    }),
    act("online keys change", Root, |repo, _, dice| {
        let role = *dice.pick(&["timestamp", "snapshot", "targets"]);
        repo.appoint(role, &[31 + dice.below(3) as u8], 1);
    }),
    act("an online key is added", Root, |repo, _, dice| {
        let (role, old) = *dice.pick(&[("timestamp", 3), ("snapshot", 4), ("targets", 5)]);
        repo.appoint(role, &[old, 31], 1);
    }),
    act("the kind of names changes", Root, |repo, _, dice| {
        let kinds = [json!(true), json!(false), json!("yes"), Value::Null];
        repo.role("root")["consistent_snapshot"] = dice.pick(&kinds).clone();
    }),
    act("a role of the root is missing", Root, |repo, _, dice| {
        let role = *dice.pick(&["timestamp", "snapshot", "targets", "root"]);
        repo.role("root")["roles"].as_object_mut().expect("a map").remove(role);
    }),
    act("an unknown role of the root", Root, |repo, _, dice| {
        let odd = [
            json!({"keyids": [], "threshold": 1}),
            json!({"keyids": [], "threshold": 0}),
            json!(1),
        ];
        repo.role("root")["roles"]["mirrors"] = dice.pick(&odd).clone();
    }),
    act("another version is named", Parent, |repo, role, dice| {
        let by = *dice.pick(&[-1, 1]);
        edit_named(repo, role, dice, |named| {
            let version = named["version"].as_i64().unwrap_or(1);
            named["version"] = json!(version.saturating_add(by).max(0));
        });
    }),
    act("another length is named", Parent, |repo, role, dice| {
        let by = *dice.pick(&[-1, 1, -100, 10_000]);
        edit_named(repo, role, dice, |named| {
            let length = named["length"].as_i64().unwrap_or(200);
            named["length"] = json!((length + by).max(0));
        });
    }),
    act("another hash is named", Parent, |repo, role, dice| {
        let hashes = [
            json!({"sha256": "00".repeat(32)}),
            json!({"sha512": "00".repeat(64)}),
            json!({"sha256": "zz"}),
            json!({"sha256": 7}),
        ];
        let hashes = dice.pick(&hashes).clone();
        edit_named(repo, role, dice, move |named| named["hashes"] = hashes.clone());
    }),
    act("a hash in other letters is named", Parent, |repo, role, dice| {
        edit_named(repo, role, dice, |named| {
            if let Some(hash) = named["hashes"]["sha256"].as_str() {
                named["hashes"] = json!({"sha256": hash.to_ascii_uppercase()});
            }
        });
    }),
    act("a hash of unknown kind alone is named", Parent, |repo, role, dice| {
        edit_named(repo, role, dice, |named| named["hashes"] = json!({"blake3": "00"}));
    }),
    act("a hash of unknown kind besides is named", Parent, |repo, role, dice| {
        edit_named(repo, role, dice, |named| {
            if named["hashes"].is_object() {
                named["hashes"]["blake3"] = json!("00");
            }
        });
    }),
    act("no hashes are named", Parent, |repo, role, dice| {
        edit_named(repo, role, dice, |named| named["hashes"] = json!({}));
    }),
    act("neither length nor hashes are named", Parent, |repo, role, dice| {
        edit_named(repo, role, dice, |named| *named = json!({"version": named["version"]}));
    }),
    act("an entry is no entry", Parent, |repo, role, dice| {
        let odd = [json!(1), json!({}), json!({"version": "1"}), Value::Null];
        let odd = dice.pick(&odd).clone();
        edit_named(repo, role, dice, move |named| *named = odd.clone());
    }),
    act("an entry more", Parent, |repo, role, _| {
        repo.role(role)["meta"]["more.json"] = json!({"version": 3});
    }),
    act("an entry more that is no entry", Parent, |repo, role, _| {
        repo.role(role)["meta"]["more.json"] = json!("no entry");
    }),
    act("an entry is missing", Parent, |repo, role, dice| {
        let names: Vec<String> = entries(repo, role);
        if let (false, Some(meta)) = (names.is_empty(), repo.role(role)["meta"].as_object_mut()) {
            meta.remove(dice.pick(&names));
        }
    }),
    act("a role leaves the snapshot for good", Snapshot, |repo, _, dice| {
        let gone = *dice.pick(&["app.json", "beta.json", "lib.json"]);
        if let Some(meta) = repo.role("snapshot")["meta"].as_object_mut() {
            meta.remove(gone);
        }
    }),
    act("another length of a target", Targets, |repo, role, dice| {
        let lengths = [json!(0), json!(3), json!(100), json!(u64::MAX), json!(-1), json!("12")];
        let length = dice.pick(&lengths).clone();
        edit_targets(repo, role, move |target| target["length"] = length.clone());
    }),
    act("another hash of a target", Targets, |repo, role, dice| {
        let hashes = [
            json!({"sha256": "00".repeat(32)}),
            json!({"sha256": "../../x"}),
            json!({"blake3": "00"}),
            json!({}),
            Value::Null,
        ];
        let hashes = dice.pick(&hashes).clone();
        edit_targets(repo, role, move |target| target["hashes"] = hashes.clone());
    }),
    act("a target's hash in other letters", Targets, |repo, role, _| {
        edit_targets(repo, role, |target| {
            let hash = target["hashes"]["sha256"].as_str().map(str::to_ascii_uppercase);
            target["hashes"] = json!({"sha256": hash});
        });
    }),
    act("a second hash of a target", Targets, |repo, role, dice| {
        let (kind, hash) = *dice.pick(&[("sha512", "00"), ("sha512", "zz"), ("blake3", "00")]);
        edit_targets(repo, role, move |target| target["hashes"][kind] = json!(hash));
    }),
    act("a target more fields", Targets, |repo, role, _| {
        edit_targets(repo, role, |target| {
            target["custom"] = json!({"a": [1, null]});
            target["x"] = json!("y");
        });
    }),
    act("a target is no target", Targets, |repo, role, dice| {
        let odd = [json!(1), json!({}), Value::Null];
        let odd = dice.pick(&odd).clone();
        edit_targets(repo, role, move |target| *target = odd.clone());
    }),
    act("targets of others are claimed", Targets, |repo, role, dice| {
        for path in super::repository::PATHS {
            if dice.one_in(2) && repo.roles[role]["targets"].is_object() {
                repo.add(role, path, format!("{path}, claimed by {role}").as_bytes());
            }
        }
    }),
    act("targets vanish", Targets, |repo, role, _| repo.role(role)["targets"] = json!({})),
    act("delegated threshold 0", Delegator, |repo, role, dice| {
        edit_delegation(repo, role, dice, |entry| entry["threshold"] = json!(0));
    }),
    act("delegated threshold above the keys", Delegator, |repo, role, dice| {
        edit_delegation(repo, role, dice, |entry| entry["threshold"] = json!(2));
    }),
    act("delegated key under two ids", Delegator, |repo, role, dice| {
        let alias = |entry: &mut Value| {
            let first = entry["keyids"][0].clone();
            entry["keyids"] = json!([first, "alias"]);
            entry["threshold"] = json!(2);
        };
        let name = edit_delegation(repo, role, dice, alias);
        let hand = name.as_ref().and_then(|name| repo.hands.get(name)?.first().cloned());
        if let (Some(name), Some(hand)) = (name, hand) {
            repo.role(role)["delegations"]["keys"]["alias"] = key_json(hand.seed);
            let twin = Hand { key_id: "alias".into(), seed: hand.seed };
            repo.hands.insert(name, vec![hand, twin]);
        }
    }),
    act("delegated to nobody", Delegator, |repo, role, dice| {
        edit_delegation(repo, role, dice, |entry| entry["keyids"] = json!([]));
    }),
    act("delegated to a key that is no key", Delegator, |repo, role, dice| {
        let odd = [json!(1), json!({"keytype": "x", "scheme": "x", "keyval": {"public": ""}})];
        let odd = dice.pick(&odd).clone();
        if repo.roles[role]["delegations"]["keys"].is_object() {
            repo.role(role)["delegations"]["keys"]["odd"] = odd;
        }
    }),
    act("a terminating delegation", Delegator, |repo, role, dice| {
        edit_delegation(repo, role, dice, |entry| entry["terminating"] = json!(true));
    }),
    act("a delegation of another scope", Delegator, |repo, role, dice| {
        let scopes = [
            json!({"paths": ["*", "*/*"]}),
            json!({"paths": ["**"]}),
            json!({"paths": ["app/**"]}),
            json!({"paths": ["app/?"]}),
            json!({"paths": ["app/[12]", "lib/[0-9]"]}),
            json!({"paths": ["app/["]}),
            json!({"paths": []}),
            json!({"path_hash_prefixes": [""]}),
            json!({"path_hash_prefixes": ["A", "B", "C", "D", "E", "F"]}),
            json!({"paths": ["*/*"], "path_hash_prefixes": ["0"]}),
            json!({}),
            json!({"paths": "app/*"}),
        ];
        let scope = dice.pick(&scopes).clone();
        edit_delegation(repo, role, dice, move |entry| {
            let fields = entry.as_object_mut().expect("a map");
            fields.remove("paths");
            fields.remove("path_hash_prefixes");
            fields.extend(scope.as_object().expect("a map").clone());
        });
    }),
    act("a circle of delegations", Delegator, |repo, role, dice| {
        let to = *dice.pick(&["app", "lib", "beta", "rest"]);
        if sound_delegations(repo, role) {
            repo.delegate(role, to, 6 + dice.below(4) as u8, &json!({"paths": ["*", "*/*"]}));
        }
    }),
    act("one name delegated to twice", Delegator, |repo, role, dice| {
        let to = *dice.pick(&["app", "lib"]);
        if sound_delegations(repo, role) {
            repo.delegate(role, to, 40, &json!({"paths": ["x/*", "app/1", "lib/1"]}));
        }
    }),
    act("a delegation first in line", Delegator, |repo, role, dice| {
        if let Some(list) = delegations(repo, role) {
            let by = dice.below(list.len());
            list.rotate_left(by);
        }
    }),
    act("a role with a reserved name", Delegator, |repo, role, dice| {
        let name = *dice.pick(&["root", "timestamp", "snapshot", "targets"]);
        edit_delegation(repo, role, dice, move |entry| entry["name"] = json!(name));
    }),
    act("a role whose name reaches out", Delegator, |repo, role, dice| {
        let long = "n".repeat(300);
        let name = *dice.pick(&["../app", "1.root", "", "a/b", "?", "\0", long.as_str()]);
        if sound_delegations(repo, role) && !repo.roles.contains_key(name) {
            repo.delegate(role, name, 41, &json!({"paths": ["nowhere", "x/*"]}));
            let mut signed = repo.roles["lib"].clone();
            signed["targets"] = json!({});
            repo.roles.insert(name.into(), signed);
            repo.add(name, "x/1", b"x/1, by the role with that name");
            repo.serve(name);
        }
    }),
    act("a role that nobody ever signed", Delegator, |repo, role, _| {
        if sound_delegations(repo, role) {
            repo.delegate(role, "ghost", 42, &json!({"paths": ["nowhere", "x/*", "lib/*"]}));
        }
    }),
    act("forty roles in line", Delegator, |repo, role, _| {
        if !sound_delegations(repo, role) || repo.roles.contains_key("r0") {
            return;
        }
        let mut signed = repo.roles["lib"].clone();
        signed["targets"] = json!({});
        for i in 0..40 {
            let name = format!("r{i}");
            repo.delegate(role, &name, 43, &json!({"paths": ["nowhere"]}));
            repo.roles.insert(name.clone(), signed.clone());
            if i == 35 {
                repo.add(&name, "nowhere", b"nowhere, by the thirty-sixth");
            }
            repo.serve(&name);
        }
    }),
    act("delegations that are none", Delegator, |repo, role, dice| {
        let odd = [
            Value::Null,
            json!({}),
            json!({"keys": {}}),
            json!({"roles": []}),
            json!({"keys": {}, "roles": null}),
            json!({"keys": {}, "roles": []}),
        ];
        repo.role(role)["delegations"] = dice.pick(&odd).clone();
    }),
    act("bins", Delegator, |repo, role, _| {
        let entry = json!({"keyids": [key_id(44)], "threshold": 1, "bit_length": 1,
            "name_prefix": "bin"});
        let mut delegations = json!({"keys": {}, "succinct_roles": entry});
        delegations["keys"][key_id(44)] = key_json(44);
        repo.role(role)["delegations"] = delegations;
        for name in ["bin-0", "bin-1"] {
            let mut signed = repo.roles["lib"].clone();
            signed["targets"] = json!({});
            repo.roles.insert(name.into(), signed);
            repo.hands.insert(name.into(), vec![Hand::of(44)]);
            repo.add(name, "nowhere", b"nowhere, from a bin");
            repo.serve(name);
        }
    }),
];

fn shift_version(repo: &mut Repository, role: &str, by: i64) {
    let version = repo.roles[role]["version"].as_u64().unwrap_or(1);
    repo.role(role)["version"] = json!(version.saturating_add_signed(by));
}

fn edit(list: &mut [Value], change: fn(&str) -> String) {
    for entry in list {
        if let Some(sig) = entry["sig"].as_str() {
            entry["sig"] = json!(change(sig));
        }
    }
}

/// A role's keys and threshold, in the root.
fn appointed<'a>(repo: &'a mut Repository, dice: &mut Dice) -> &'a mut Value {
    let role = *dice.pick(&["timestamp", "snapshot", "targets", "root"]);
    &mut repo.role("root")["roles"][role]
}

fn entries(repo: &Repository, role: &str) -> Vec<String> {
    repo.roles[role]["meta"].as_object().map(|m| m.keys().cloned().collect()).unwrap_or_default()
}

fn edit_named(repo: &mut Repository, role: &str, dice: &mut Dice, change: impl Fn(&mut Value)) {
    let names = entries(repo, role);
    if !names.is_empty() {
        let named = &mut repo.role(role)["meta"][dice.pick(&names)];
        if named.is_object() {
            change(named);
        }
    }
}

fn edit_targets(repo: &mut Repository, role: &str, change: impl Fn(&mut Value)) {
    for target in
        repo.role(role)["targets"].as_object_mut().into_iter().flat_map(|m| m.values_mut())
    {
        if target.is_object() {
            change(target);
        }
    }
}

/// Changes one delegation of `role`; the name of the role that it leads to.
fn edit_delegation(
    repo: &mut Repository,
    role: &str,
    dice: &mut Dice,
    change: impl Fn(&mut Value),
) -> Option<String> {
    let list = delegations(repo, role)?;
    let at = dice.below(list.len());
    let entry = list.get_mut(at)?;
    change(entry);
    entry["name"].as_str().map(str::to_owned)
}

fn delegations<'a>(repo: &'a mut Repository, role: &str) -> Option<&'a mut Vec<Value>> {
    repo.role(role).get_mut("delegations")?.get_mut("roles")?.as_array_mut()
}

fn sound_delegations(repo: &Repository, role: &str) -> bool {
    repo.roles[role]["delegations"]["roles"].is_array()
}
