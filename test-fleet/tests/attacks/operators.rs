//! Operators and records: entries 44 and 45.

use std::fs;

use ed25519_dalek::SigningKey;
use lockgate_server::{
    audit::{AuditLine, Chain},
    clock,
};
use lockgate_shared::{
    act::{Act, Approval, Grant, SignedAct, WaivedRule, Waiver},
    id::{DeviceId, Digest, RolloutId},
    time::Seconds,
};
use lockgate_test_fleet::{
    https::{Answer, Ask},
    process::until,
    world::{BENCH_PLAN, app::Behaviour},
};

use crate::{
    forge::{Forge, Goods},
    stage::{PATIENCE, client, site},
};

#[test]
fn e44_a_changed_removed_or_moved_line_of_the_audit_chain_is_found_offline() {
    // Some acts, so that there is something to hide: stops that cover no device of this suite.
    for scope in [["--tenant", "acme"], ["--product", "app"], ["--product", "agent"]] {
        let stop = [&["stop"][..], &scope, &["--reason", "a drill"]].concat();
        site().lockgate("olga-laptop", &stop).expect("stopped");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("audit.log");
    let path = copy.display().to_string();
    for chain in ["api/audit.log", "gatekeeper/audit.log"] {
        let mut text = String::new();
        until("three lines", PATIENCE, || {
            text = fs::read_to_string(site().path(chain)).unwrap_or_default();
            text.lines().filter(|line| line.contains("\"n\":")).count() >= 3 && text.ends_with('\n')
        })
        .unwrap_or_else(|error| panic!("{error}: {text}"));
        let lines: Vec<&str> = text.lines().collect();
        let verify = |lines: &[String]| {
            fs::write(&copy, format!("{}\n", lines.join("\n"))).expect("written");
            site().offline(&["audit", "verify", &path])
        };
        let whole: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let acts: Vec<usize> =
            (0..whole.len()).filter(|index| whole[*index].contains("\"n\":")).collect();
        let good = verify(&whole).expect("a true chain");
        assert!(good.contains("true: "), "{good}");

        let mut changed = whole.clone();
        changed[acts[1]] = changed[acts[1]].replacen("\"detail\":\"", "\"detail\":\"not ", 1);
        let mut removed = whole.clone();
        removed.remove(acts[1]);
        let mut moved = whole.clone();
        moved.swap(acts[1], acts[2]);
        let mut twice = whole.clone();
        twice.insert(acts[1], whole[acts[1]].clone());
        for (what, lines, first) in [
            ("changed", changed, acts[1]),
            ("removed", removed, acts[1]),
            ("moved", moved, acts[1]),
            ("twice", twice, acts[1] + 1),
        ] {
            let said = verify(&lines).expect_err(what).to_string();
            let first = format!("false from line {}", first + 1);
            assert!(said.contains(&first), "{what}: {said} lacks {first}");
        }
    }
}

#[test]
fn e44_a_second_history_is_true_in_itself_and_its_head_is_another_or_nobodys() {
    let stop = ["stop", "--tenant", "acme", "--reason", "a drill"];
    site().lockgate("olga-laptop", &stop).expect("stopped");
    let (mut text, path) = (String::new(), site().path("gatekeeper/audit.log"));
    until("a signed head", PATIENCE, || {
        text = fs::read_to_string(&path).unwrap_or_default();
        text.lines().last().is_some_and(|line| line.contains("\"head\":")) && text.ends_with('\n')
    })
    .unwrap_or_else(|error| panic!("{error}: {text}"));
    let folder = tempfile::tempdir().expect("a folder");
    let (own, other) = (folder.path().join("own.log"), folder.path().join("other.log"));
    fs::write(&own, &text).expect("written");
    // Somebody writes it anew without its last act, and signs that with a key of his own.
    let acts: Vec<AuditLine> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut forged = Chain::open(&other).expect("a chain");
    for act in &acts[..acts.len() - 1] {
        forged.append(act.at, &act.who, &act.act, &act.detail).expect("appended");
    }
    let thief = SigningKey::from_bytes(&[66; 32]);
    forged.sign_head(&thief).expect("signed");
    let verify = |path: &std::path::Path, more: &[&str]| {
        let path = path.display().to_string();
        site().offline(&[&["audit", "verify", path.as_str()][..], more].concat())
    };
    let (true_one, false_one) = (verify(&own, &[]), verify(&other, &[]));
    let (true_one, false_one) = (true_one.expect("true"), false_one.expect("true in itself"));
    assert_ne!(true_one, false_one, "two readers who compare what they read find out");
    // Whose signature counts says the repository.
    let keys = ["--repository", "repository"];
    let good = verify(&own, &keys).expect("the gatekeeper's own");
    assert!(good.contains("true: "), "{good}");
    let said = verify(&other, &keys).expect_err("nobody's").to_string();
    assert!(said.contains("false from line"), "{said}");
}

#[test]
fn e45_the_signer_is_shown_exactly_what_is_signed_and_a_changed_act_loses_its_signatures() {
    let world = &site().world;
    let forge = Forge::of(world);
    let goods = Goods::new("6.6.6");
    let act = forge.start(&goods.manifest, &[]);
    let file = world.path("deceived.json");
    let write = |act: &SignedAct| fs::write(&file, serde_json::to_vec(act).expect("JSON"));
    // The file pretends to be harmless beside the text that is signed: nobody reads that.
    let mut deceiving = serde_json::to_value(&act).expect("JSON");
    deceiving["summary"] = serde_json::json!("a routine restart of one device");
    fs::write(&file, deceiving.to_string()).expect("written");
    let policy = world.policy().expect("the policy");
    let shown = world.offline(&["act", "show", "deceived.json", "--policy", &policy]);
    let shown = shown.expect("shown");
    assert!(shown.contains("START the rollout of tools 6.6.6"), "{shown}");
    assert!(shown.contains("10 devices"), "how many: {shown}");
    assert!(!shown.contains("routine restart"), "{shown}");
    // What the signer signs, and what is left of it when the text is swapped afterwards.
    write(&act).expect("written");
    let key = "ceremony/people/ben.key";
    let sign = ["act", "sign", "deceived.json", "--policy", &policy, "--key", key, "--yes"];
    // What follows from it cannot be shown, because nobody has the release: that is no case for `--yes`.
    let refused = world.offline(&sign).expect_err("signed unseen").to_string();
    assert!(refused.contains("nothing was signed") && refused.contains("--unseen"), "{refused}");
    let said = world.offline(&[&sign[..], &["--unseen"]].concat()).expect("signed");
    assert!(said.contains("START the rollout of tools 6.6.6"), "{said}");
    let bytes = fs::read(&file).expect("an act");
    let mut signed: SignedAct = serde_json::from_slice(&bytes).expect("an act");
    signed.text = signed.text.replacen("6.6.6", "6.6.7", 1);
    write(&signed).expect("written");
    let shown = world.offline(&["act", "show", "deceived.json", "--policy", &policy]);
    let shown = shown.expect("shown");
    assert!(shown.contains("tools 6.6.7") && shown.contains("0 of 2"), "{shown}");
}

#[test]
fn e45_a_release_folder_whose_manifest_was_swapped_is_not_signed() {
    let world = &site().world;
    let release = world.sign_release("app", "1.0.0", &Behaviour::Well, BENCH_PLAN);
    let release = release.expect("a release");
    let manifest = release.join("manifest.json");
    let bytes = fs::read(&manifest).expect("a manifest");
    let mut said: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    said["notes"] = serde_json::json!("harmless");
    fs::write(&manifest, said.to_string()).expect("swapped");
    let out = release.display().to_string();
    let key = "ceremony/people/ada.key";
    let said = world.offline(&[
        "release",
        "sign",
        &out,
        "--repository",
        "repository",
        "--key",
        key,
        "--yes",
    ]);
    assert!(said.is_err(), "it was signed: {said:?}");
}

#[test]
fn e45_a_stolen_operators_token_stops_and_starts_nothing() {
    let forge = Forge::of(&site().world);
    let goods = Goods::new("6.6.6");
    // One can stop alone.
    let stop = br#"{"scope":{"cohort":["app","early"]},"how":"pause","reason":"a stolen token"}"#;
    let stopped = ask("POST", "/v1/stops", stop);
    assert!(matches!(stopped.status, 200..=202), "{}", text(&stopped));
    let number = until_numbered();
    // Nobody starts, widens or resumes without signatures; no route does it by token.
    let lift = format!(
        r#"{{"act":"lift","repository":"trial","numbers":[{number}],"reason":"all is well"}}"#
    );
    let start = forge.start(&goods.manifest, &["thief-1", "thief-2"]);
    let manifest = Digest::of(b"a manifest");
    let rollout = RolloutId::of(&manifest, &"stable".parse().expect("a name"));
    let repository = || "trial".parse().expect("a name");
    let until = clock::now().plus(Seconds(3_600));
    let approve = Act::Approve(Approval {
        repository: repository(),
        rollout,
        manifest,
        stage: 1,
        cohort: "everyone".parse().expect("a name"),
    });
    let waive = Act::Waive(Waiver {
        repository: repository(),
        rollout,
        rule: WaivedRule::MinimumDevices(1),
        reason: "quick".into(),
        expires: until,
    });
    let grant = Act::Grant(Grant {
        repository: repository(),
        device: DeviceId([7; 32]),
        tenant: "globex".parse().expect("a name"),
        product: "app".parse().expect("a name"),
        channel: "stable".parse().expect("a name"),
        cohort: "early".parse().expect("a name"),
        issued: clock::now(),
        expires: until,
        reason: "a favour".into(),
    });
    let widening = [approve, waive, grant].map(|act| SignedAct::unsigned(&act).expect("an act"));
    let unsigned = SignedAct { text: lift, signatures: Vec::new() };
    for act in widening.iter().chain([&start, &unsigned]) {
        let answer = ask("POST", "/v1/acts", &serde_json::to_vec(act).expect("JSON"));
        assert_eq!(answer.status, 422, "{}", text(&answer));
    }
    for path in [format!("/v1/stops/{number}"), "/v1/stops".to_owned()] {
        let answer = ask("DELETE", &path, b"");
        assert!(matches!(answer.status, 404 | 405), "{path}: {}", text(&answer));
    }
    let status = site().status().expect("a status");
    assert!(status.stops.iter().any(|stop| stop.number == number), "{:?}", status.stops);
    assert!(status.rollouts.is_empty(), "{:?}", status.rollouts);
    // And the audit chain says whose token it was.
    let tail = site().lockgate("olga-laptop", &["audit", "tail", "--lines", "50"]).expect("lines");
    assert!(tail.contains("olga") && tail.contains("a stolen token"), "{tail}");
}

/// The number that the gatekeeper gave to the newest stop.
fn until_numbered() -> u64 {
    let mut number = None;
    until("the stop's number", PATIENCE, || {
        let stops = site().status().map(|status| status.stops).unwrap_or_default();
        number = stops.iter().find(|stop| stop.reason.contains("a stolen token")).map(|s| s.number);
        number.is_some()
    })
    .expect("numbered");
    number.expect("it was just found")
}

/// With the operator's token.
fn ask(method: &str, path: &str, body: &[u8]) -> Answer {
    let bearer = format!("Bearer {}", site().token("olga-laptop").expect("a token"));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    client().ask(Ask { method, path, headers: &headers, body }).expect("an answer")
}

fn text(answer: &Answer) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
}
