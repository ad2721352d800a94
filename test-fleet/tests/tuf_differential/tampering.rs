//! What a mirror does without any key: each act changes files after they were signed.

use super::chance::Dice;
use super::repository::{Repository, TARGETS_ROLES};

/// One thing that is done to what is served.
pub(crate) struct Tampering {
    pub(crate) name: &'static str,
    pub(crate) perform: fn(&mut Repository, &mut Dice),
}

const fn tampering(name: &'static str, perform: fn(&mut Repository, &mut Dice)) -> Tampering {
    Tampering { name, perform }
}

/// Every act on what is served.
pub(crate) const TAMPERINGS: &[Tampering] = &[
    tampering("a file is absent", |repo, dice| {
        let file = file(repo, dice);
        repo.mirror.files.remove(&file);
    }),
    tampering("a file does not come", |repo, dice| {
        let file = file(repo, dice);
        repo.mirror.failing.insert(file);
    }),
    tampering("the next root does not come", |repo, _| {
        let next = repo.roles["root"]["version"].as_u64().unwrap_or(0).saturating_add(1);
        repo.mirror.failing.insert(format!("{next}.root.json"));
    }),
    tampering("a file is cut short", |repo, dice| {
        let cut = dice.below(2_000);
        change(repo, dice, |bytes| bytes.truncate(bytes.len().saturating_sub(1 + cut)));
    }),
    tampering("a byte is flipped", |repo, dice| {
        let (at, bit) = (dice.below(100_000), dice.below(8));
        change(repo, dice, |bytes| {
            let at = at % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        });
    }),
    tampering("white space behind a file", |repo, dice| {
        change(repo, dice, |bytes| bytes.extend_from_slice(b" \n\t "));
    }),
    tampering("something behind a file", |repo, dice| {
        change(repo, dice, |bytes| bytes.extend_from_slice(b"{}"));
    }),
    tampering("a file is too long", |repo, dice| {
        change(repo, dice, |bytes| bytes.resize(20_000, b' '));
    }),
    tampering("a file in another layout", |repo, dice| {
        change(repo, dice, |bytes| {
            if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
                *bytes = value.to_string().into_bytes();
            }
        });
    }),
    tampering("a key twice before the true one", |repo, dice| {
        let key = *dice.pick(&["version", "_type", "expires", "meta", "x"]);
        let twin = format!("\"signed\": {{ \"{key}\": 1, ");
        change(repo, dice, move |bytes| replace(bytes, "\"signed\": {", &twin));
    }),
    tampering("a second signed part", |repo, dice| {
        let places =
            [("{", "{ \"signed\": {}, "), ("\"signed\": {", "\"signed\": {}, \"signed\": {")];
        let (from, to) = *dice.pick(&places);
        change(repo, dice, |bytes| replace(bytes, from, to));
    }),
    tampering("depth without end", |repo, dice| {
        let deep = format!("{{ \"deep\": {}{}, ", "[".repeat(5_000), "]".repeat(5_000));
        change(repo, dice, |bytes| replace(bytes, "{", &deep));
    }),
    tampering("unsigned fields besides", |repo, dice| {
        change(repo, dice, |bytes| replace(bytes, "{", "{ \"x\": [1.5, {}], "));
    }),
    tampering("no document", |repo, dice| {
        let texts: [&[u8]; 6] = [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"<html></html>"];
        let text = *dice.pick(&texts);
        change(repo, dice, |bytes| *bytes = text.to_vec());
    }),
    tampering("another role's file", |repo, dice| {
        let other = file(repo, dice);
        let other = repo.mirror.files.get(&other).cloned();
        change(repo, dice, |bytes| bytes.clone_from(other.as_ref().unwrap_or(&Vec::new())));
    }),
    tampering("an older file", |repo, dice| {
        let role = role(dice);
        let past = repo.past.get(role).cloned().unwrap_or_default();
        if !past.is_empty() {
            let file = repo.file(role);
            repo.mirror.files.insert(file, dice.pick(&past).1.clone());
        }
    }),
    tampering("the timestamp stands still", |repo, _| {
        let past = &repo.past["timestamp"];
        if let Some(older) = past.len().checked_sub(2) {
            let older = past[older].1.clone();
            repo.mirror.files.insert("timestamp.json".to_owned(), older);
        }
    }),
    tampering("a payload is changed", |repo, dice| {
        let at = dice.below(64);
        change_payloads(repo, dice, |bytes| {
            let at = at % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x20;
            }
        });
    }),
    tampering("a payload is cut short", |repo, dice| {
        change_payloads(repo, dice, |bytes| bytes.truncate(bytes.len().saturating_sub(1)));
    }),
    tampering("a payload is longer", |repo, dice| {
        change_payloads(repo, dice, |bytes| bytes.push(b'!'));
    }),
    tampering("payloads are absent", |repo, dice| {
        repo.mirror.payloads.retain(|_, _| !dice.one_in(2));
    }),
    tampering("payloads are exchanged", |repo, dice| {
        let all: Vec<Vec<u8>> = repo.mirror.payloads.values().cloned().collect();
        for bytes in repo.mirror.payloads.values_mut() {
            if dice.one_in(2) {
                bytes.clone_from(dice.pick(&all));
            }
        }
    }),
];

fn role(dice: &mut Dice) -> &'static str {
    // The top-level roles oftener: without them nothing else is asked for.
    let top = ["root", "timestamp", "snapshot", "targets"];
    let among: &[&'static str] = if dice.one_in(3) { &TARGETS_ROLES } else { &top };
    dice.pick::<&'static str>(among)
}

fn file(repo: &Repository, dice: &mut Dice) -> String {
    repo.file(role(dice))
}

fn change(repo: &mut Repository, dice: &mut Dice, act: impl Fn(&mut Vec<u8>)) {
    let file = file(repo, dice);
    if let Some(bytes) = repo.mirror.files.get_mut(&file) {
        act(bytes);
    }
}

fn change_payloads(repo: &mut Repository, dice: &mut Dice, act: impl Fn(&mut Vec<u8>)) {
    for bytes in repo.mirror.payloads.values_mut() {
        if dice.one_in(2) {
            act(bytes);
        }
    }
}

fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        *bytes = text.replacen(from, to, 1).into_bytes();
    }
}
