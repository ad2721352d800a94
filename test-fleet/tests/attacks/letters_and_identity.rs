//! Check-ins and identity: entries 31 and 33 to 35, the real server against hostile clients. Forged
//! evidence (32) stands beside the stolen server, which forges best.

use std::fs;

use lockgate_server::{clock, dice};
use lockgate_shared::{
    id::{Digest, TenantId},
    time::Seconds,
    wire::{BINARY, Directive, EnrolmentAnswer, EnrolmentToken, Format, SignedToken, codec},
};
use lockgate_test_fleet::{
    hostile::Reply,
    https::{Answer, Ask},
    letter_writer::{LetterWriter, enrolment_token},
    process::until,
};

use crate::{
    forge::{Goods, PRODUCT},
    stage::{PATIENCE, Victim, client, site},
};

/// The longest token: the wire's own limit.
const TOKEN_BYTES: usize = 512;

#[test]
fn e31_a_letter_counts_once_and_only_where_and_when_it_was_meant() {
    let device = enrolled("acme");
    let third = sealed(&device, 3);
    for number in [1, 2] {
        taken(&sealed(&device, number));
    }
    let offset = taken(&third).offset;
    // The same bytes again are no news.
    for _ in 0..3 {
        assert_eq!(taken(&third).offset, offset);
    }
    // Other bytes under an old number, and letters out of order.
    for number in [3, 2, 1] {
        let mut letter = device.plain(number).expect("a letter");
        letter.uptime = Seconds(77);
        let other = device.seal(&letter).expect("sealed");
        refused(&post("/v1/checkin", &other), 409, "sequence-replayed");
    }
    // Recorded for another repository or tenant, and by another key.
    let mut moved = device.plain(4).expect("a letter");
    moved.repository = "elsewhere".parse().expect("a name");
    let sealed_moved = device.seal(&moved).expect("sealed");
    refused(&post("/v1/checkin", &sealed_moved), 403, "wrong-repository");
    let mut moved = device.plain(4).expect("a letter");
    moved.tenant = "globex".parse().expect("a name");
    let sealed_moved = device.seal(&moved).expect("sealed");
    refused(&post("/v1/checkin", &sealed_moved), 403, "wrong-tenant");
    let mut forged = third;
    let last = forged.len() - 1;
    forged[last] ^= 1;
    refused(&post("/v1/checkin", &forged), 403, "signature");
    // The operator sees that somebody tried.
    let shown = operator(&["device", "show", &device.device().to_string()]);
    assert!(shown.contains("3 letters under used numbers: perhaps a clone"), "{shown}");
    assert!(taken(&sealed(&device, 4)).offset > offset, "the true one goes on");
}

#[test]
fn e31_a_device_takes_no_recorded_answer_for_its_letter() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let record = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let own = std::sync::Arc::clone(&record);
    victim.attack(move |asked| {
        let own = std::sync::Arc::clone(&own);
        (asked.path == "/v1/checkin").then(|| {
            Reply::Changed(Box::new(move |answer| {
                own.lock().expect("whole").push(answer.body.clone());
            }))
        })
    });
    victim.polled_again();
    until("an answer", PATIENCE, || !record.lock().expect("whole").is_empty()).expect("one");
    let old = record.lock().expect("whole")[0].clone();
    victim.attack_path("/v1/checkin", move || Reply::file(old.clone()));
    victim.expect("the answer is refused", |status| status.contact.problem.is_some());
    victim.owner_reads("status", &["server", "since then: "]);
    victim.unharmed(&kept, &believed);
    victim.be_honest();
    victim.well();
}

#[test]
fn e33_a_cloned_device_is_noticed_by_its_numbers() {
    let device = enrolled("acme");
    let clone = LetterWriter::new(device.key.to_bytes(), "acme").expect("a writer");
    taken(&sealed(&device, 1));
    taken(&sealed(&clone, 2));
    // The first one goes on with its own next number.
    let mut own = device.plain(2).expect("a letter");
    own.uptime = Seconds(999);
    let answer = post("/v1/checkin", &device.seal(&own).expect("sealed"));
    refused(&answer, 409, "sequence-replayed");
    let problem = answer.problem().expect("a problem");
    assert!(problem.hint.unwrap_or_default().contains("a copy"), "{}", text(&answer));
    let shown = operator(&["device", "show", &device.device().to_string()]);
    assert!(shown.contains("perhaps a clone"), "{shown}");
}

#[test]
fn e33_of_two_machines_with_one_key_neither_installs_and_owner_and_operator_are_told() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    victim.device.stop();
    // Its disk was copied: the copy writes the next letter.
    let secret = fs::read(victim.device.folder().join("state/device.key")).expect("a key");
    let copy = LetterWriter::new(secret.try_into().expect("32 bytes"), "globex").expect("a writer");
    assert_eq!(copy.device().to_string(), victim.id, "the copy has its identity");
    let last = victim.front.letters().last().expect("a letter").sequence;
    let told = post("/v1/checkin", &sealed(&copy, last + 20));
    assert_eq!(told.status, 200, "{}", text(&told));
    // The device goes on with its own numbers, and a release is open to it.
    victim.start();
    victim.serve(&honest, |own| own.roll_out(&Goods::new("1.1.0")));
    victim.expect("it is told of the copy", |status| {
        status.contact.problem.as_deref().is_some_and(|text| text.contains("a copy or a backup"))
    });
    victim.owner_reads("status", &["a copy or a backup"]);
    // The copy writes again, behind letters under used numbers: now both are held.
    let number = last + 40;
    let mut letter = copy.plain(number).expect("a letter");
    letter.previous = Digest([7; 32]);
    let again = post("/v1/checkin", &copy.seal(&letter).expect("sealed"));
    refused(&again, 403, "device-held");
    victim.forge().say();
    victim.expect("it is held too", |status| {
        status.contact.problem.as_deref().is_some_and(|text| text.contains("two machines"))
    });
    victim.owner_reads("status", &["two machines"]);
    victim.unharmed(&kept, &believed);
    let listed = operator(&["device", "list", "--problems"]);
    assert!(listed.contains(&victim.id[..8]), "{listed}");
    until("the alarm", PATIENCE, || {
        site().status().is_ok_and(|status| {
            let own = |alarm: &&lockgate_server::status::Alarm| {
                alarm.device.is_some_and(|device| device.to_string() == victim.id)
            };
            status.alarms.iter().filter(own).any(|alarm| alarm.text.contains("it is held"))
        })
    })
    .expect("an alarm");
}

#[test]
fn e33_a_revoked_device_is_heard_no_more_and_goes_on_running_what_it_runs() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let said = operator(&["device", "revoke", &victim.id, "--reason", "stolen from a van"]);
    assert!(said.contains("is revoked"), "{said}");
    victim.expect("its letters are refused, and it says why", |status| {
        status.contact.problem.as_deref().is_some_and(|text| text.contains("stolen from a van"))
    });
    victim.owner_reads("status", &["this device is revoked", "stolen from a van"]);
    victim.unharmed(&kept, &believed);
    let listed = operator(&["device", "list", "--problems"]);
    assert!(listed.contains(&victim.id[..8]), "{listed}");
}

#[test]
fn e34_a_token_lets_in_as_many_as_it_says_where_and_while_it_says_so() {
    let acme: TenantId = "acme".parse().expect("a name");
    let key = site().key("tenants/acme.key").expect("the enrolment key");
    let globex = site().key("tenants/globex.key").expect("another's");
    let past = clock::now().minus(Seconds(60));
    let enrol = |token: &SignedToken| {
        post("/v1/enroll", &writer("acme").enrolment(token).expect("an enrolment"))
    };
    let one = enrolment_token(&acme, 1, past, &key).expect("a token");
    assert_eq!(enrol(&one).status, 200);
    refused(&enrol(&one), 403, "token-used-up");
    // Made by the server's own hand, by another tenant, or changed.
    let invented = ed25519_dalek::SigningKey::from_bytes(&dice::bytes());
    for other in [&invented, &globex] {
        let token = enrolment_token(&acme, 9, past, other).expect("a token");
        refused(&enrol(&token), 403, "token-invalid");
    }
    let good = enrolment_token(&acme, 1, past, &key).expect("a token");
    let mut changed = good.clone();
    let said = EnrolmentToken { uses: 1_000, ..good.unverified().expect("a token") };
    changed.bytes = codec::encode(&said, TOKEN_BYTES).expect("bytes");
    refused(&enrol(&changed), 403, "token-invalid");
    let mut changed = good.clone();
    let said = EnrolmentToken {
        tenant: "globex".parse().expect("a name"),
        ..good.unverified().expect("a token")
    };
    changed.bytes = codec::encode(&said, TOKEN_BYTES).expect("bytes");
    refused(&enrol(&changed), 403, "token-invalid");
    let old = enrolment_token(&acme, 9, past.minus(Seconds(7_200)), &key).expect("a token");
    refused(&enrol(&old), 403, "token-expired");
    // Guessed ids are not enrolled, whoever signs.
    refused(&post("/v1/checkin", &sealed(&writer("acme"), 1)), 404, "unknown-device");
    assert_eq!(enrol(&good).status, 200, "the right one is good all the same");
}

#[test]
fn e34_enrolment_brings_no_trust_in_a_repository() {
    // A hostile server that answers an enrolment with another repository's name.
    let victim = Victim::enrolled(&[PRODUCT], "");
    let folder = victim.device.folder().to_owned();
    let anchor = site().path("ceremony/root.json");
    let before = fs::read(&anchor).expect("the anchor");
    fs::remove_file(folder.join("state/enrolment.json")).expect("not enrolled");
    victim.attack(|asked| {
        (asked.path == "/v1/enroll").then(|| {
            Reply::Changed(Box::new(|answer| {
                let Ok(mut said) = EnrolmentAnswer::read(&answer.body, Format::Binary) else {
                    return;
                };
                said.tenant = "acme".parse().expect("a name");
                said.repository = "elsewhere".parse().expect("a name");
                answer.body = said.to_bytes(Format::Binary).expect("bytes");
            }))
        })
    });
    let token = site().enrolment_token("globex", "1").expect("a token");
    let enrolled = victim.device.enroll(&token);
    assert!(enrolled.is_err(), "the device believed another repository: {enrolled:?}");
    assert!(!folder.join("state/enrolment.json").exists(), "nothing was written");
    assert_eq!(fs::read(&anchor).expect("the anchor"), before);
}

#[test]
fn e35_every_route_of_another_tenants_device_is_closed() {
    let theirs = enrolled("globex").device().to_string();
    let pin = br#"{"pin":"n-minus1"}"#;
    let freeze =
        br#"[{"from":"2026-01-01T00:00:00Z","until":"2036-01-01T00:00:00Z","reason":"x"}]"#;
    let routes: [(&str, String, &[u8]); 14] = [
        ("POST", format!("/v1/devices/{theirs}/revoke"), br#"{"reason":"not mine"}"#),
        ("GET", format!("/v1/devices/{theirs}"), b""),
        ("GET", format!("/v1/devices/{theirs}/explain"), b""),
        ("GET", format!("/v1/pins/{theirs}/app"), b""),
        ("PUT", format!("/v1/pins/{theirs}/app"), pin),
        ("DELETE", format!("/v1/pins/{theirs}/app"), b""),
        ("GET", format!("/v1/windows/{theirs}"), b""),
        ("PUT", format!("/v1/windows/{theirs}"), b"[]"),
        ("DELETE", format!("/v1/windows/{theirs}"), b""),
        ("GET", format!("/v1/freezes/{theirs}"), b""),
        ("PUT", format!("/v1/freezes/{theirs}"), freeze),
        ("DELETE", format!("/v1/freezes/{theirs}"), b""),
        ("DELETE", format!("/v1/grants/{theirs}/app"), b""),
        ("GET", "/v1/devices?tenant=globex".into(), b""),
    ];
    for (method, path, body) in routes {
        let answer = admin(method, &path, body);
        let closed = matches!(answer.status, 403 | 404);
        assert!(closed, "{method} {path}: {}", text(&answer));
        assert!(!text(&answer).contains("Slate"), "{method} {path}: {}", text(&answer));
    }
    // Lists hold the own tenant alone, and what is stopped is the own tenant's.
    for path in ["/v1/devices?limit=500", "/v1/pins", "/v1/windows", "/v1/freezes", "/v1/grants"] {
        let answer = admin("GET", path, b"");
        assert_eq!(answer.status, 200, "{path}: {}", text(&answer));
        assert!(!text(&answer).contains(&theirs), "{path}: {}", text(&answer));
    }
    for scope in [r#"{"tenant":"globex"}"#, r#""everything""#, r#"{"product":"app"}"#] {
        let stop = format!(r#"{{"scope":{scope},"how":"pause","reason":"not mine"}}"#);
        let answer = admin("POST", "/v1/stops", stop.as_bytes());
        assert_eq!(answer.status, 403, "{scope}: {}", text(&answer));
    }
    for query in ["/v1/pins/*/app?tenant=globex", "/v1/windows/*?tenant=globex"] {
        let body: &[u8] = if query.contains("pins") { pin } else { b"[]" };
        let answer = admin("PUT", query, body);
        assert_eq!(answer.status, 403, "{query}: {}", text(&answer));
    }
    let shown = operator(&["device", "show", &theirs]);
    assert!(shown.contains("0 pins, 0 windows, 0 freezes"), "{shown}");
}

/// A device with a key of its own.
fn writer(tenant: &str) -> LetterWriter {
    LetterWriter::new(dice::bytes(), tenant).expect("a writer")
}

/// One that has enrolled.
fn enrolled(tenant: &str) -> LetterWriter {
    let device = writer(tenant);
    let key = site().key(&format!("tenants/{tenant}.key")).expect("the enrolment key");
    let past = clock::now().minus(Seconds(60));
    let token = enrolment_token(&device.tenant, 1, past, &key).expect("a token");
    let answer = post("/v1/enroll", &device.enrolment(&token).expect("an enrolment"));
    assert_eq!(answer.status, 200, "{}", text(&answer));
    device
}

fn sealed(device: &LetterWriter, number: u64) -> Vec<u8> {
    device.seal(&device.plain(number).expect("a letter")).expect("sealed")
}

fn post(path: &str, body: &[u8]) -> Answer {
    let headers = [("content-type", BINARY)];
    client().ask(Ask { method: "POST", path, headers: &headers, body }).expect("an answer")
}

fn taken(letter: &[u8]) -> Directive {
    let answer = post("/v1/checkin", letter);
    assert_eq!(answer.status, 200, "{}", text(&answer));
    Directive::read(&answer.body, Format::Binary).expect("a directive")
}

/// As the administrator of tenant `acme`.
fn admin(method: &str, path: &str, body: &[u8]) -> Answer {
    let bearer = format!("Bearer {}", site().token("acme-admin").expect("a token"));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    client().ask(Ask { method, path, headers: &headers, body }).expect("an answer")
}

fn operator(arguments: &[&str]) -> String {
    site().lockgate("olga-laptop", arguments).expect("a command")
}

#[track_caller]
fn refused(answer: &Answer, status: u16, kind: &str) {
    let problem = answer.problem().unwrap_or_else(|| panic!("no problem: {}", text(answer)));
    assert_eq!((answer.status, problem.kind.as_str()), (status, kind), "{}", text(answer));
}

fn text(answer: &Answer) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
}
