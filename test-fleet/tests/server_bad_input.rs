//! What the server refuses, sent to the real process by its real clients: each refusal has its own
//! name and says what to do, and nothing on the server's disk has changed after it.

use std::{collections::BTreeMap, env, path::Path, process::Command, time::Duration};

use lockgate_server::{clock, stream::Publication};
use lockgate_shared::{
    act::SignedAct,
    id::{Digest, TenantId},
    limits,
    sign::{self, Domain},
    time::{Moment, Seconds},
    wire::{BINARY, Directive, EnrolmentToken, Format, Letter, Sealed, SignedToken, codec},
};
use lockgate_test_fleet::{
    https::{Answer, Ask, Client},
    letter_writer::{LetterWriter, Post, enrolment_token, fingerprint},
    own_mounts::OwnMounts,
    process::{Programs, until},
    world::{BENCH_PLAN, World, app::Behaviour},
};
use rusqlite::{Connection, OpenFlags};

/// How long the gatekeeper may take to speak about an entry.
const SPOKEN: Duration = Duration::from_secs(30);
/// How long a second server may take to see that it is not wanted.
const NOT_WANTED: Duration = Duration::from_secs(20);
/// A year.
const YEAR: Seconds = Seconds(365 * 86_400);
/// How much the server's clock may have moved within a test.
const MOMENT: Seconds = Seconds(120);

#[test]
fn letters_that_are_wrong_are_refused_by_name_and_change_nothing() {
    let scene = Scene::letter_box();
    let ada = scene.enrolled(1, "acme");
    scene.taken(&ada, 1);
    let offset = scene.taken(&ada, 2);
    let good = sealed(&ada, 3);
    let before = scene.state();

    let version = [&[9], &good[1..]].concat();
    scene.letter(&version).is(400, "unknown-version", "version 9", "update the older");
    let unsigned = [&good[..], &[0]].concat();
    scene.letter(&unsigned).is(403, "signature", "does not hold for this device's key", "");
    let trailing = with_signed_trailing_byte(&ada, 3);
    scene.letter(&trailing).is(400, "malformed", "1 bytes follow the message", "");
    scene.letter(&good[..60]).is(400, "malformed", "it ends within its head", "");
    scene.letter(&[]).is(400, "malformed", "the message is empty", "");
    let large = vec![1; limits::LETTER_BYTES + 1];
    scene.letter(&large).is(413, "too-large", "at most 65536 bytes are read here", "");
    let stranger = writer(2, "acme");
    let mut forged = stranger.plain(3).expect("a letter").seal(Format::Binary, &stranger.key);
    if let Ok(forged) = &mut forged {
        forged.device = ada.device();
    }
    let forged = forged.expect("sealed").to_bytes().expect("bytes");
    scene.letter(&forged).is(403, "signature", "does not hold for this device's key", "");
    let unknown = sealed(&stranger, 1);
    scene.letter(&unknown).is(404, "unknown-device", "is not enrolled here", "enrol it again");
    for number in [2, 1] {
        let other = sealed_with(&ada, number, |letter| letter.uptime = Seconds(77));
        let what = format!("number {number} is not above the last number 2");
        scene.letter(&other).is(409, "sequence-replayed", &what, "a copy or a backup");
    }
    let moved = sealed_with(&ada, 3, |letter| {
        letter.repository = "elsewhere".parse().expect("a name");
    });
    let what = "meant for repository `elsewhere`, this server carries `trial`";
    scene.letter(&moved).is(403, "wrong-repository", what, "");
    let moved = sealed_with(&ada, 3, |letter| letter.tenant = "globex".parse().expect("a name"));
    scene.letter(&moved).is(403, "wrong-tenant", "names tenant `globex`", "");
    let headers = [("content-type", "text/plain")];
    let ask = Ask { method: "POST", path: "/v1/checkin", headers: &headers, body: &good };
    Refused(scene.ask(ask)).is(415, "malformed", "application/vnd.lockgate.v1", "");

    // The same bytes again are no news and no error.
    let again = scene.letter(&sealed(&ada, 2)).taken();
    assert_eq!((again.acknowledged, again.offset), (2, offset));
    assert_eq!(scene.state(), before);
    assert_eq!(scene.letter(&good).taken().offset, offset + 1, "the next letter is taken");
}

#[test]
fn a_letter_from_another_year_is_taken_at_the_servers_own_time() {
    let scene = Scene::whole();
    let ada = scene.enrolled(1, "acme");
    let now = clock::now();
    let mut last = 0;
    for (number, sent) in [(1, now.plus(YEAR)), (2, now.minus(YEAR)), (3, now.plus(YEAR))] {
        let letter = sealed_with(&ada, number, |letter| letter.sent = sent);
        let directive = scene.letter(&letter).taken();
        last = directive.offset;
        near(directive.server_time);
    }
    let path = format!("/v1/devices/{}", ada.device());
    let shown = scene.admin("olga-laptop", "GET", &path, &[]);
    let seen = find(&shown.json(), "seen").and_then(|seen| seen.as_str().map(str::to_owned));
    near(Moment::parse_rfc3339(&seen.expect("when it was seen")).expect("a moment"));
    until("the gatekeeper counts them", SPOKEN, || {
        scene.world.status().is_ok_and(|status| status.letters_offset > last)
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", scene.world.said()));
    near(scene.world.status().expect("a status").at);
    let verdicts = scene.admin("olga-laptop", "GET", "/v1/verdicts", &[]).json();
    let refused = verdicts.as_array().into_iter().flatten().any(|v| v["decision"] == "refused");
    assert!(!refused, "{verdicts}");
}

#[test]
fn enrolments_without_a_good_token_are_refused_by_name_and_change_nothing() {
    let scene = Scene::letter_box();
    let acme: TenantId = "acme".parse().expect("a name");
    let key = scene.world.key("tenants/acme.key").expect("the enrolment key");
    let globex = scene.world.key("tenants/globex.key").expect("the other one");
    let past = clock::now().minus(Seconds(60));
    let one_use = enrolment_token(&acme, 1, past, &key).expect("a token");
    let (ada, bob) = (writer(1, "acme"), writer(2, "acme"));
    let enrolled = ada.enrolment(&one_use).expect("an enrolment");
    let first = scene.enrolment(&enrolled).0;
    assert_eq!(first.status, 200, "{}", text(&first));
    let before = scene.state();

    let again = scene.enrolment(&enrolled).0;
    assert_eq!((again.status, &again.body), (200, &first.body), "the same device, the same answer");
    let try_with =
        |token: &SignedToken| scene.enrolment(&bob.enrolment(token).expect("an enrolment"));
    try_with(&one_use).is(403, "token-used-up", "used up", "`lockgate token enrol`");
    let what = "no enrolment key of tenant `acme` signed this token";
    for other in [&bob.key, &globex] {
        let token = enrolment_token(&acme, 9, past, other).expect("a token");
        try_with(&token).is(403, "token-invalid", what, "`lockgate token enrol`");
    }
    let good = enrolment_token(&acme, 9, past, &key).expect("a token");
    let mut changed = good.clone();
    let said = EnrolmentToken { uses: 10, ..good.unverified().expect("a token") };
    changed.bytes = codec::encode(&said, 512).expect("bytes");
    try_with(&changed).is(403, "token-invalid", what, "`lockgate token enrol`");
    let old = enrolment_token(&acme, 9, past.minus(Seconds(7_200)), &key).expect("a token");
    try_with(&old).is(403, "token-expired", "the enrolment token is good from", "set the clock");
    let early = enrolment_token(&acme, 9, past.plus(Seconds(7_200)), &key).expect("a token");
    try_with(&early).is(403, "token-expired", "the enrolment token is good from", "set the clock");
    let nobody = enrolment_token(&"nobody".parse().expect("a name"), 9, past, &key);
    let what = "tenant `nobody`, which the policy does not name";
    try_with(&nobody.expect("a token")).is(403, "token-invalid", what, "");
    let said = EnrolmentToken {
        repository: "elsewhere".parse().expect("a name"),
        ..good.unverified().expect("a token")
    };
    let elsewhere = SignedToken::make(&said, &key).expect("a token");
    try_with(&elsewhere).is(403, "wrong-repository", "meant for repository `elsewhere`", "");
    let mut spoilt = bob.enrolment(&good).expect("an enrolment");
    spoilt[40] ^= 1;
    scene.enrolment(&spoilt).is(403, "signature", "signature does not hold", "");
    assert_eq!(scene.state(), before);
}

#[test]
fn api_tokens_that_are_revoked_unknown_or_another_tenants_open_nothing() {
    let scene = Scene::letter_box();
    let (ours, theirs) = (scene.enrolled(1, "acme"), scene.enrolled(2, "globex"));
    let asked = br#"{"name":"temp","role":"administrator"}"#;
    let made = scene.admin("acme-admin", "POST", "/v1/tokens", asked);
    assert_eq!(made.status, 201, "{}", text(&made));
    let temporary = made.json()["token"].as_str().expect("a token").to_owned();
    let whoami = |token: &str| scene.with_token(token, "GET", "/v1/whoami", &[]);
    assert_eq!(whoami(&temporary).json()["tenant"], "acme");
    let revoked = scene.admin("acme-admin", "DELETE", "/v1/tokens/temp", &[]);
    assert!(revoked.status < 300, "{}", text(&revoked));
    let before = scene.state();

    let unauthorised = |answer: Answer, what: &str, hint: &str| {
        Refused(answer).is(401, "unauthorised", what, hint);
    };
    unauthorised(whoami(&temporary), "not known or was revoked", "`lockgate token create`");
    unauthorised(whoami("lgtok1_00"), "not known or was revoked", "`lockgate token create`");
    unauthorised(whoami("secret"), "not a token", "send `Authorization: Bearer lgtok1_");
    let pin = br#"{"pin":"n-minus1"}"#;
    let pin_of = |who: &LetterWriter| format!("/v1/pins/{}/app", who.device());
    let ask = |path: &str| scene.with_token(&temporary, "PUT", path, pin);
    unauthorised(ask(&pin_of(&ours)), "not known or was revoked", "`lockgate token create`");
    let bare = scene.ask(Ask { method: "GET", path: "/v1/devices", ..Ask::default() });
    unauthorised(bare, "no token was sent", "send `Authorization: Bearer lgtok1_");

    let foreign = |method: &str, path: &str, body: &[u8]| {
        Refused(scene.admin("acme-admin", method, path, body))
    };
    let device = theirs.device();
    let what = format!("no device `{device}` has enrolled");
    let list = "`lockgate device list`";
    foreign("PUT", &pin_of(&theirs), pin).is(404, "not-found", &what, list);
    foreign("GET", &format!("/v1/devices/{device}"), &[]).is(404, "not-found", &what, list);
    let what = "token `acme-admin` belongs to tenant `acme`";
    let hint = "leave `tenant` out";
    foreign("GET", "/v1/devices?tenant=globex", &[]).is(403, "forbidden", what, hint);
    foreign("PUT", "/v1/pins/*/app?tenant=globex", pin).is(403, "forbidden", what, hint);
    let stop = br#"{"scope":{"tenant":"globex"},"how":"pause","reason":"not mine"}"#;
    let what = "stops the devices of the own tenant `acme`, and nothing else";
    foreign("POST", "/v1/stops", stop).is(403, "forbidden", what, "");
    let stop = br#"{"scope":"everything","how":"pause","reason":"not mine"}"#;
    foreign("POST", "/v1/stops", stop).is(403, "forbidden", what, "");
    let what = "token `acme-admin` has role `administrator`, this needs `operator`";
    let act = br#"{"text":"{}","signatures":[]}"#;
    foreign("POST", "/v1/acts", act).is(403, "forbidden", what, "");
    assert_eq!(scene.state(), before);
}

#[test]
fn acts_and_releases_below_their_threshold_or_by_the_wrong_people_change_nothing() {
    let scene = Scene::whole();
    let world = &scene.world;
    let release = world.sign_release("app", "1.0.0", &Behaviour::Well, BENCH_PLAN);
    let release = release.expect("a release");
    let cohorts = [("dogfood", 1), ("early", 1), ("general", 1)];
    let start = world.write_start("app", "1.0.0", &release, &cohorts).expect("a start");
    let policy = world.policy().expect("the policy");
    let lift = ["rollout", "lift", "1", "--reason", "x", "--policy", &policy, "--out", "lift"];
    world.offline(&lift).expect("a lift");
    let before = scene.state();
    for (act, missing) in [(start.as_str(), "0 of 2"), ("lift", "0 of 1")] {
        let bytes = std::fs::read(world.path(act)).expect("an act");
        let unsigned: SignedAct = serde_json::from_slice(&bytes).expect("an act");
        scene.act(&unsigned).is(422, "invalid", missing, "`lockgate act sign`");
        let mut by_authors = unsigned.clone();
        for author in ["ada", "alan"] {
            by_authors.sign(&world.key(&format!("people/{author}.key")).expect("a key"));
        }
        scene.act(&by_authors).is(422, "invalid", missing, "`lockgate act sign`");
        let mut by_a_stranger = unsigned.clone();
        by_a_stranger.sign(&writer(9, "acme").key);
        scene.act(&by_a_stranger).is(422, "invalid", missing, "`lockgate act sign`");
        let mut changed = unsigned.clone();
        let ben = world.key("people/ben.key").expect("a key");
        changed.sign(&ben);
        changed.text = changed.text.replacen("app", "web", 1).replacen("\"x\"", "\"y\"", 1);
        scene.act(&changed).is(422, "invalid", missing, "`lockgate act sign`");
    }
    let bytes = std::fs::read(world.path(&start)).expect("an act");
    let mut by_one: SignedAct = serde_json::from_slice(&bytes).expect("an act");
    by_one.sign(&world.key("people/ben.key").expect("a key"));
    scene.act(&by_one).is(422, "invalid", "1 of 2", "`lockgate act sign`");
    assert_eq!(scene.state(), before);

    below_its_threshold(&scene, &release);
    assert_eq!(scene.state().repository, before.repository, "nothing was published");
}

/// A publication that lacks a signature: the gatekeeper refuses it, and devices never hear of it.
fn below_its_threshold(scene: &Scene, release: &Path) {
    let bytes = std::fs::read(release.join("publication.json")).expect("a publication");
    let mut publication: Publication = serde_json::from_slice(&bytes).expect("a publication");
    let mut metadata: serde_json::Value =
        serde_json::from_str(&publication.metadata).expect("metadata");
    metadata["signatures"].as_array_mut().expect("signatures").pop();
    publication.metadata = metadata.to_string();
    let body = serde_json::to_vec(&publication).expect("JSON");
    let hand_in = || scene.admin("ci", "POST", "/v1/publications", &body);
    Refused(hand_in()).is(422, "invalid", "is not here", "upload it first");
    for entry in std::fs::read_dir(release.join("artifacts")).expect("artifacts").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = std::fs::read(entry.path()).expect("an artifact");
        let put = scene.admin("ci", "PUT", &format!("/v1/artifacts/{name}"), &bytes);
        assert_eq!(put.status, 201, "{}", text(&put));
    }
    let taken = hand_in();
    assert_eq!(taken.status, 202, "{}", text(&taken));
    let path = format!("/v1/entries/{}", taken.json()["offset"]);
    let mut state = serde_json::Value::Null;
    until("the gatekeeper's word", SPOKEN, || {
        state = scene.admin("ci", "GET", &path, &[]).json();
        state["state"] != "pending"
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", scene.world.said()));
    assert_eq!(state["state"], "refused");
    let reasons = state["reasons"].to_string();
    assert!(reasons.contains("has 1 of 2 signatures it needs"), "{reasons}");
    let shown = scene.admin("ci", "GET", "/v1/releases/app/1.0.0", &[]).json();
    assert!(shown["published"].is_null(), "{shown}");
}

#[test]
fn files_that_are_not_what_they_say_and_requests_that_leave_the_folder_are_refused() {
    let scene = Scene::letter_box();
    let bytes = b"an artifact".repeat(1_000);
    let name = Digest::of(&bytes).to_string();
    let path = format!("/v1/artifacts/{name}");
    let put = scene.admin("ci", "PUT", &path, &bytes);
    assert_eq!(put.status, 201, "{}", text(&put));
    let before = scene.state();

    let wrong = Digest::of(b"something else").to_string();
    let spoilt = scene.admin("ci", "PUT", &format!("/v1/artifacts/{wrong}"), &bytes);
    let what = format!("the bytes have SHA-256 `{name}`, not `{wrong}`");
    Refused(spoilt).is(422, "invalid", &what, "upload the file again");
    let odd = scene.admin("ci", "PUT", "/v1/artifacts/..%2f..%2fstore.db", &bytes);
    Refused(odd).is(400, "malformed", "is not 32 bytes in hexadecimal", "");
    let missing = format!("/artifacts/{wrong}");
    scene.get(&missing, &[]).is(404, "not-found", "no such file is published", "");

    let path = format!("/artifacts/{name}");
    let beyond = format!("bytes={}-", bytes.len());
    let beyond = scene.get(&path, &[("range", &beyond)]);
    assert_eq!(beyond.0.headers.get("content-range"), Some(&format!("bytes */{}", bytes.len())));
    beyond.is(416, "range", &format!("the file has {} bytes", bytes.len()), "");
    let inside = scene.get(&path, &[("range", "bytes=10990-")]).0;
    assert_eq!((inside.status, inside.body.as_slice()), (206, &bytes[10_990..]));
    for path in [
        "/repo/metadata/..",
        "/repo/metadata/../../ceremony/online/timestamp.key",
        "/repo/metadata/..%2f..%2fceremony%2fonline%2ftimestamp.key",
        "/repo/targets/../metadata/1.root.json",
        "/repo/targets/%2e%2e/metadata/1.root.json",
        "/repo/targets//etc/passwd",
        "/artifacts/../store.db",
        "/artifacts/..%2fstore.db",
    ] {
        let answer = scene.get(path, &[]);
        assert_eq!(answer.0.status, 404, "{path}: {}", text(&answer.0));
        answer.is(404, "not-found", "", "");
    }
    assert_eq!(scene.state(), before);
}

#[test]
fn neither_plain_text_nor_tls_1_2_is_spoken() {
    let scene = Scene::letter_box();
    let before = scene.state();
    let plain = scene.client.raw(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n").expect("an end");
    assert!(!plain.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&plain));
    let old = scene.client.raw(&hello_of_tls_1_2()).expect("an end");
    // An alert (21) that is fatal (2): protocol_version (70).
    assert_eq!((old.first(), old.get(5..)), (Some(&21), Some(&[2, 70][..])));
    let health = scene.ask(Ask { method: "GET", path: "/v1/health", ..Ask::default() });
    assert_eq!(health.status, 200, "with TLS 1.3 it answers: {}", text(&health));
    assert_eq!(scene.state(), before);
}

#[test]
fn a_second_server_on_the_same_store_ends_at_once_and_says_why() {
    let scene = Scene::whole();
    let ada = scene.enrolled(1, "acme");
    scene.taken(&ada, 1);
    for (role, what) in
        [("api", "one server at a time works on a store"), ("gatekeeper", "one gatekeeper works")]
    {
        let log = scene.world.path(&format!("second-{role}.log"));
        let mut second = scene.world.server_process(role, &log).expect("a process");
        let status = second.wait(NOT_WANTED).expect("an end");
        let said = second.said();
        assert!(!status.success(), "{said}");
        assert!(said.contains("is in use by another process"), "{said}");
        assert!(said.contains(&format!("hint: {what}")), "{said}");
    }
    // Neither noticed anything.
    let last = scene.taken(&ada, 2);
    until("the gatekeeper counts on", SPOKEN, || {
        scene.world.status().is_ok_and(|status| status.letters_offset > last)
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", scene.world.said()));
}

/// Where the small disk is, in the process that has it.
const DISK: &str = "LOCKGATE_TEST_DISK";
/// This test's name, for the process that it starts.
const FULL_DISK: &str = "a_full_disk_refuses_new_letters_and_keeps_every_acknowledged_one";

#[test]
fn a_full_disk_refuses_new_letters_and_keeps_every_acknowledged_one() {
    if let Some(disk) = env::var_os(DISK) {
        return on_a_full_disk(Path::new(&disk));
    }
    let disk = tempfile::tempdir().expect("a folder");
    let mounts = OwnMounts::find().unwrap_or_else(|error| panic!("{error}"));
    let script = format!("mount -t tmpfs -o size=2m none \"${DISK}\" && exec \"$0\" \"$@\"");
    let output = Command::new("unshare")
        .args(mounts.unshare)
        .args(["sh", "-c", &script])
        .env(DISK, disk.path())
        .arg(env::current_exe().expect("this test"))
        .args([FULL_DISK, "--exact", "--nocapture"])
        .output()
        .expect("it ran a moment ago");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "the test has another name: {said}");
}

fn on_a_full_disk(disk: &Path) {
    let mut scene = Scene::prepare();
    let state = format!("state = \"{}\"", disk.join("api").display());
    scene.world.configure("state = \"api\"", &state).expect("a setting");
    scene.world.make_tokens().expect("tokens");
    scene.world.start_api().expect("the letter box");
    let ada = scene.enrolled(1, "acme");
    let mut acknowledged = Vec::new();
    let refused = loop {
        let number = acknowledged.len() as u64 + 1;
        let letter = sealed_with(&ada, number, fill);
        let answer = scene.letter(&letter);
        if answer.0.status != 200 {
            break (letter, answer);
        }
        acknowledged.push((letter, answer.taken().offset));
        assert!(acknowledged.len() < 2_000, "the disk never fills");
    };
    let (letter, answer) = refused;
    assert!(answer.0.headers.contains_key("retry-after"), "{:?}", answer.0.headers);
    answer.is(503, "unavailable", "the disk that holds the journal is full", "free space");
    let (last, offset) = acknowledged.last().expect("some were taken");
    assert_eq!(scene.letter(last).taken().offset, *offset, "the last one is acknowledged again");
    scene.letter(&letter).is(503, "unavailable", "is full", "free space");

    let larger = Command::new("mount").args(["-o", "remount,size=16m"]).arg(disk).status();
    assert!(larger.expect("mount runs").success());
    let next = acknowledged.len() as u64 + 1;
    assert_eq!(scene.letter(&letter).taken().acknowledged, next, "with space it goes on");
    scene.world.kill_api();
    scene.world.start_api().expect("the letter box again");
    let entries = entries(&disk.join("api/store.db"));
    for (bytes, offset) in &acknowledged {
        assert!(entries.get(offset) == Some(bytes), "entry {offset} is not what was sent");
    }
}

/// Fills a letter that is journalled whole up to some 4 KiB.
fn fill(letter: &mut Letter) {
    let long = "x".repeat(limits::LETTER_TEXT);
    letter.notices = vec![long; limits::LETTER_REASONS];
}

/// A world, and a stranger who may ask it for anything.
struct Scene {
    world: World,
    client: Client,
    // Last, so that the processes end before their folder goes.
    _folder: tempfile::TempDir,
}

/// What is on the server's disk that a request may change.
#[derive(Debug, PartialEq, Eq)]
struct State {
    entries: BTreeMap<u64, Digest>,
    tables: BTreeMap<(String, String), Digest>,
    artifacts: BTreeMap<String, Digest>,
    repository: BTreeMap<String, Digest>,
    audit: Option<Digest>,
}

impl Scene {
    /// A world in which nothing runs.
    fn prepare() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let programs = Programs::find().expect("the programs are built");
        let world = World::create(folder.path(), &programs).expect("a world");
        let client = Client::new(world.port(), &world.path("tls/ca.pem")).expect("a client");
        Self { world, client, _folder: folder }
    }

    /// With a letter box and no gatekeeper.
    fn letter_box() -> Self {
        let mut scene = Self::prepare();
        scene.world.make_tokens().expect("tokens");
        scene.world.start_api().expect("the letter box");
        scene
    }

    /// With both.
    fn whole() -> Self {
        let mut scene = Self::prepare();
        scene.world.start().expect("both processes");
        scene
    }

    fn ask(&self, ask: Ask<'_>) -> Answer {
        self.client.ask(ask).unwrap_or_else(|error| panic!("{error:?}\n{}", self.world.said()))
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Refused {
        Refused(self.ask(Ask { method: "GET", path, headers, body: &[] }))
    }

    fn letter(&self, body: &[u8]) -> Refused {
        self.device("/v1/checkin", body)
    }

    fn enrolment(&self, body: &[u8]) -> Refused {
        self.device("/v1/enroll", body)
    }

    fn device(&self, path: &str, body: &[u8]) -> Refused {
        let headers = [("content-type", BINARY)];
        Refused(self.ask(Ask { method: "POST", path, headers: &headers, body }))
    }

    /// With the token of somebody by name.
    fn admin(&self, who: &str, method: &str, path: &str, body: &[u8]) -> Answer {
        self.with_token(&self.world.token(who).expect("a token"), method, path, body)
    }

    fn with_token(&self, token: &str, method: &str, path: &str, body: &[u8]) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.ask(Ask { method, path, headers: &headers, body })
    }

    fn act(&self, act: &SignedAct) -> Refused {
        let body = serde_json::to_vec(act).expect("JSON");
        Refused(self.admin("olga-laptop", "POST", "/v1/acts", &body))
    }

    /// A device of a tenant that has enrolled.
    fn enrolled(&self, number: u8, tenant: &str) -> LetterWriter {
        let device = writer(number, tenant);
        let key = self.world.key(&format!("tenants/{tenant}.key")).expect("the enrolment key");
        let past = clock::now().minus(Seconds(60));
        let token = enrolment_token(&device.tenant, 1, past, &key).expect("a token");
        let mut post =
            Post::open(&self.world.url(), &self.world.path("tls/ca.pem")).expect("a client");
        post.enrol(&device.enrolment(&token).expect("an enrolment")).expect("an answer");
        device
    }

    /// Sends a good letter and returns its offset.
    fn taken(&self, device: &LetterWriter, number: u64) -> u64 {
        self.letter(&sealed(device, number)).taken().offset
    }

    /// Everything but what changes by itself: device rows, which are swept, and the gatekeeper's
    /// reports and timestamp.
    fn state(&self) -> State {
        let api = self.world.path("api");
        let mut repository = fingerprint(&self.world.path("repository")).expect("a folder");
        repository.retain(|name, _| {
            ["timestamp", "snapshot", "rollouts"].iter().all(|online| !name.contains(online))
        });
        let digest = |bytes: Vec<u8>| Digest::of(&bytes);
        let entries = entries(&api.join("store.db")).into_iter();
        State {
            entries: entries.map(|(offset, bytes)| (offset, digest(bytes))).collect(),
            tables: small_tables(&api.join("store.db")),
            artifacts: fingerprint(&api.join("artifacts")).expect("a folder"),
            repository,
            audit: std::fs::read(api.join("audit.log")).ok().map(digest),
        }
    }
}

/// An answer that should be a refusal.
struct Refused(Answer);

impl Refused {
    /// It has this status and kind, its detail and its hint contain these words.
    #[track_caller]
    fn is(&self, status: u16, kind: &str, detail: &str, hint: &str) {
        let said = text(&self.0);
        let problem = self.0.problem().unwrap_or_else(|| panic!("no problem: {said}"));
        assert_eq!((problem.status, problem.kind.as_str()), (status, kind), "{said}");
        assert_eq!(self.0.status, status, "{said}");
        let named = self.0.headers.get("content-type").map(String::as_str);
        assert_eq!(named, Some("application/problem+json"), "{said}");
        assert!(!problem.detail.is_empty() && problem.detail.contains(detail), "{said}");
        assert!(problem.hint.unwrap_or_default().contains(hint), "{said}");
    }

    /// It is none: a letter was taken.
    #[track_caller]
    fn taken(&self) -> Directive {
        assert_eq!(self.0.status, 200, "{}", text(&self.0));
        Directive::read(&self.0.body, Format::Binary).expect("a directive")
    }
}

fn writer(number: u8, tenant: &str) -> LetterWriter {
    LetterWriter::new([number; 32], tenant).expect("a writer")
}

fn sealed(device: &LetterWriter, number: u64) -> Vec<u8> {
    sealed_with(device, number, |letter| letter.sent = Moment(1_790_000_000))
}

fn sealed_with(device: &LetterWriter, number: u64, change: impl FnOnce(&mut Letter)) -> Vec<u8> {
    let mut letter = device.with_groups(number).expect("a letter");
    change(&mut letter);
    device.seal(&letter).expect("sealed")
}

/// A letter whose device signed one byte more than the letter has.
fn with_signed_trailing_byte(device: &LetterWriter, number: u64) -> Vec<u8> {
    let letter = device.plain(number).expect("a letter");
    let mut body = codec::encode(&letter, limits::LETTER_BYTES).expect("a body");
    body.push(0);
    let signed = [&[1][..], &device.device().0, &body].concat();
    let signature = sign::sign(&device.key, Domain::LetterV1, &signed);
    let sealed = Sealed { format: Format::Binary, device: device.device(), signature, body };
    sealed.to_bytes().expect("bytes")
}

/// The entries of a store that another process may have open.
fn entries(path: &Path) -> BTreeMap<u64, Vec<u8>> {
    let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("open");
    let mut select = store.prepare("SELECT offset, bytes FROM entries").expect("a table");
    let rows = select.query_map([], |row| Ok((row.get::<_, u32>(0)?.into(), row.get(1)?)));
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

fn small_tables(path: &Path) -> BTreeMap<(String, String), Digest> {
    let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("open");
    let mut select = store
        .prepare("SELECT name, key, value FROM small WHERE name <> 'reports'")
        .expect("a table");
    let rows = select.query_map([], |row| {
        let value: Vec<u8> = row.get(2)?;
        Ok(((row.get(0)?, row.get(1)?), Digest::of(&value)))
    });
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

fn text(answer: &Answer) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
}

#[track_caller]
fn near(moment: Moment) {
    let now = clock::now();
    let off = now.since(moment).0.max(moment.since(now).0);
    assert!(off <= MOMENT.0, "{moment} is {off} s away from {now}");
}

/// The first value under a key, however deep.
fn find<'a>(value: &'a serde_json::Value, key: &str) -> Option<&'a serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => {
            map.get(key).or_else(|| map.values().find_map(|inner| find(inner, key)))
        }
        serde_json::Value::Array(values) => values.iter().find_map(|inner| find(inner, key)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => None,
    }
}

/// The first message of a client that knows TLS 1.2 and nothing newer.
fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..], // groups: P-256
        &[0, 13, 0, 4, 0, 2, 4, 3][..],  // signatures: ECDSA with P-256 and SHA-256
    ]
    .concat();
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a short message");
    let mut hello = vec![3, 3]; // TLS 1.2
    hello.extend([7; 32]); // random
    hello.push(0); // no session
    hello.extend([0, 2, 0xc0, 0x2b]); // ECDHE-ECDSA with AES-128-GCM
    hello.extend([1, 0]); // no compression
    hello.extend([0, length(&extensions)]);
    hello.extend(&extensions);
    let message = [&[1, 0, 0, length(&hello)][..], &hello].concat();
    [&[22, 3, 1, 0, length(&message)][..], &message].concat()
}
