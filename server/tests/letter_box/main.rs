//! Stories of the letter box over real TLS on the loopback: what is taken, what is refused, and what
//! is still there after a restart.

mod bench;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bench::{Answer, Bench, Device, enrolment_key, token, token_by};
use ed25519_dalek::SigningKey;
use lockgate_server::{
    clock,
    letters::{LetterBox, OpenError, OrdersBook, Page, Prepared},
    status::{About, Decision, Status, Verdict},
    store::StoreError,
    stream::{EntryKind, FRAME_BYTES, Request, Response},
};
use lockgate_shared::{
    id::Digest,
    limits,
    rollout::{PassedStop, Scope},
    sign::{self, Domain},
    time::{Moment, Seconds},
    wire::{BINARY, Directive, EnrolmentAnswer, Format, Letter, Orders, Sealed, codec},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

const ENROLL: &str = "/v1/enroll";
const CHECKIN: &str = "/v1/checkin";

fn directive(answer: &Answer) -> Directive {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 200, "{text}");
    Directive::read(&answer.body, Format::Binary).expect("a directive")
}

async fn enrolled(bench: &Bench, seed: u8) -> Device {
    let device = Device::new(seed);
    let answer = bench.post(ENROLL, &device.enrolment(&token(seed, 1))).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let answer = EnrolmentAnswer::read(&answer.body, Format::Binary).expect("an answer");
    assert_eq!(answer.device, device.id());
    device
}

#[tokio::test]
async fn the_same_letter_again_is_acknowledged_again_and_another_under_its_number_is_refused() {
    let bench = Bench::start().await;
    let device = enrolled(&bench, 1).await;
    let letter = device.seal(&device.letter(1));
    let first = directive(&bench.post(CHECKIN, &letter).await);
    let again = directive(&bench.post(CHECKIN, &letter).await);
    assert_eq!((first.acknowledged, first.offset), (1, 1));
    assert_eq!((again.acknowledged, again.offset), (1, 1));
    let mut other = device.letter(1);
    other.uptime = Seconds(10);
    let refused = bench.post(CHECKIN, &device.seal(&other)).await;
    assert_eq!((refused.status, refused.kind().as_str()), (409, "sequence-replayed"));
    let third = directive(&bench.post(CHECKIN, &device.seal(&device.letter(3))).await);
    assert_eq!(third.acknowledged, 3, "numbers rise, and may leave gaps");
    let refused = bench.post(CHECKIN, &device.seal(&device.letter(2))).await;
    assert_eq!(refused.kind(), "sequence-replayed");
    let record = bench.letter_box.devices().get(&device.id()).expect("a device");
    assert_eq!((record.sequence, record.replayed), (3, 2));
    assert_eq!(*bench.letter_box.head().borrow(), 3, "one enrolment, two letters");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_letters_that_come_at_once_under_one_number_only_one_is_journalled() {
    let bench = Arc::new(Bench::start().await);
    let device = enrolled(&bench, 1).await;
    let same = device.seal(&device.letter(1)).to_bytes().expect("bytes");
    let take = |bytes: Vec<u8>| {
        let letter_box = Arc::clone(&bench.letter_box);
        tokio::spawn(async move {
            letter_box.check_in(&bytes, Format::Binary, clock::now()).await.map(|d| d.offset)
        })
    };
    let mut offsets = BTreeSet::new();
    for sent in (0..32).map(|_| take(same.clone())).collect::<Vec<_>>() {
        offsets.insert(sent.await.expect("no panic").expect("an acknowledgement"));
    }
    assert_eq!(offsets, BTreeSet::from([1]));
    let different = (0..32).map(|n| {
        let mut letter = device.letter(2);
        letter.uptime = Seconds(n);
        take(device.seal(&letter).to_bytes().expect("bytes"))
    });
    let mut taken = 0;
    for sent in different.collect::<Vec<_>>() {
        taken += usize::from(sent.await.expect("no panic").is_ok());
    }
    assert_eq!(taken, 1);
    assert_eq!(*bench.letter_box.head().borrow(), 3);
}

#[tokio::test]
async fn a_token_brings_in_as_many_devices_as_it_says_also_after_a_restart() {
    let bench = Bench::start().await;
    let two = token(9, 2);
    let offsets = async |bench: &Bench, seed| {
        let answer = bench.post(ENROLL, &Device::new(seed).enrolment(&two)).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        EnrolmentAnswer::read(&answer.body, Format::Binary).expect("an answer").offset
    };
    assert_eq!(offsets(&bench, 1).await, 0);
    assert_eq!(offsets(&bench, 1).await, 0, "the same device again is answered again");
    assert_eq!(offsets(&bench, 2).await, 1);
    let refused = bench.post(ENROLL, &Device::new(3).enrolment(&two)).await;
    assert_eq!((refused.status, refused.kind().as_str()), (403, "token-used-up"));
    let bench = bench.restart().await;
    let refused = bench.post(ENROLL, &Device::new(3).enrolment(&two)).await;
    assert_eq!(refused.kind(), "token-used-up");
    assert_eq!(offsets(&bench, 2).await, 1);
    assert_eq!(bench.letter_box.devices().len(), 2);
}

#[tokio::test]
async fn a_token_that_has_ended_or_that_no_enrolment_key_signed_brings_nobody_in() {
    let bench = Bench::start().await;
    let device = Device::new(1);
    let ended = token_by(&enrolment_key(), 1, 1, clock::now().minus(Seconds(5)));
    assert_eq!(bench.post(ENROLL, &device.enrolment(&ended)).await.kind(), "token-expired");
    let stranger = SigningKey::from_bytes(&[66; 32]);
    let forged = token_by(&stranger, 1, 1, clock::now().plus(Seconds(60)));
    assert_eq!(bench.post(ENROLL, &device.enrolment(&forged)).await.kind(), "token-invalid");
    let refused = bench.post(CHECKIN, &device.seal(&device.letter(1))).await;
    assert_eq!((refused.status, refused.kind().as_str()), (404, "unknown-device"));
    assert_eq!(*bench.letter_box.head().borrow(), 0);
}

#[tokio::test]
async fn two_machines_with_one_identity_are_both_held_and_a_gap_alone_holds_nobody() {
    let bench = Bench::start().await;
    let device = enrolled(&bench, 1).await;
    let after = |sequence, before: Option<&Sealed>| {
        let previous = before.map_or(Digest([0; 32]), Sealed::digest);
        device.seal(&Letter { previous, ..device.letter(sequence) })
    };
    let first = after(1, None);
    assert_eq!(bench.post(CHECKIN, &first).await.status, 200);
    // Here the disk is copied. One machine writes on; the other is refused under the used number and
    // goes on far above, as an agent does.
    let second = after(2, Some(&first));
    assert_eq!(bench.post(CHECKIN, &second).await.status, 200);
    let twin =
        device.seal(&Letter { previous: first.digest(), uptime: Seconds(77), ..device.letter(2) });
    assert_eq!(bench.post(CHECKIN, &twin).await.kind(), "sequence-replayed");
    let held = bench.post(CHECKIN, &after(1002, Some(&first))).await;
    assert_eq!((held.status, held.kind().as_str()), (403, "device-held"));
    let held = bench.post(CHECKIN, &after(3, Some(&second))).await;
    assert_eq!(held.kind(), "device-held", "nobody knows which of the two is the true one");
    let bench = bench.restart().await;
    let held = bench.post(CHECKIN, &after(4, Some(&second))).await;
    assert_eq!(held.kind(), "device-held");
    assert!(String::from_utf8_lossy(&held.body).contains("under a key of its own"));
    let again = bench.post(ENROLL, &device.enrolment(&token(7, 1))).await;
    assert_eq!(again.kind(), "device-held", "the same key does not come back by enrolling");
    let entries = bench.letter_box.read(0, 10, usize::MAX).await.expect("entries");
    assert_eq!(entries.iter().filter(|entry| entry.kind == EntryKind::Bar).count(), 1);

    // A server whose store was restored knows fewer letters than its devices.
    let other = enrolled(&bench, 2).await;
    let unknown = Letter { previous: Digest([9; 32]), ..other.letter(50) };
    assert_eq!(bench.post(CHECKIN, &other.seal(&unknown)).await.status, 200);
}

#[tokio::test]
async fn an_old_enrolment_does_not_move_a_device_back() {
    let bench = Bench::start().await;
    let device = enrolled(&bench, 1).await;
    let old = device.enrolment(&token(1, 1));
    assert_eq!(bench.post(ENROLL, &device.enrolment(&token(2, 1))).await.status, 200);
    let refused = bench.post(ENROLL, &old).await;
    assert_eq!((refused.status, refused.kind().as_str()), (409, "conflict"));
}

#[tokio::test]
async fn what_is_no_letter_is_refused_before_it_costs_anything() {
    let bench = Bench::start().await;
    let device = enrolled(&bench, 1).await;
    let good = device.seal(&device.letter(1)).to_bytes().expect("bytes");
    let post = async |bytes: Vec<u8>| bench.post_bytes(CHECKIN, BINARY, bytes).await;
    let mut trailing = good.clone();
    trailing.push(0);
    assert_eq!(post(trailing).await.kind(), "signature", "a byte more is not what was signed");
    let mut version = good.clone();
    version[0] = 9;
    assert_eq!(post(version).await.kind(), "unknown-version");
    assert_eq!(post(good[..50].to_vec()).await.kind(), "malformed");
    assert_eq!(post(Vec::new()).await.kind(), "malformed");
    let large = post(vec![1; limits::LETTER_BYTES + 1]).await;
    assert_eq!((large.status, large.kind().as_str()), (413, "too-large"));
    let other = bench.post_bytes(CHECKIN, "text/plain", good.clone()).await;
    assert_eq!(other.status, 415);
    assert_eq!(*bench.letter_box.head().borrow(), 1);
    assert_eq!(post(good).await.status, 200);
}

#[tokio::test]
async fn a_signed_body_with_trailing_bytes_is_malformed() {
    let bench = Bench::start().await;
    let device = enrolled(&bench, 1).await;
    let mut json = device.letter(1).seal(Format::Json, &device.key).expect("a letter");
    json.format = Format::Binary;
    let refused = bench.post(CHECKIN, &json).await;
    assert_eq!(refused.kind(), "signature", "a form's signature serves no other form");
    let mut body = codec::encode(&device.letter(1), limits::LETTER_BYTES).expect("a body");
    body.push(0);
    let signed = [&[1][..], &device.id().0, &body].concat();
    let signature = sign::sign(&device.key, Domain::LetterV1, &signed);
    let sealed = Sealed { format: Format::Binary, device: device.id(), signature, body };
    assert_eq!(bench.post(CHECKIN, &sealed).await.kind(), "malformed");
    let json = device.letter(1).seal(Format::Json, &device.key).expect("a letter");
    let mut bytes = json.to_bytes().expect("bytes");
    bytes.extend(b" {}");
    let refused = bench.post_bytes(CHECKIN, "application/json", bytes).await;
    assert_eq!(refused.kind(), "malformed");
    let answer = bench.post(CHECKIN, &json).await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(Directive::read(&answer.body, Format::Json).expect("a directive").acknowledged, 1);
}

#[tokio::test]
async fn a_letter_for_another_repository_tenant_or_by_another_key_is_refused() {
    let bench = Bench::start().await;
    let device = enrolled(&bench, 1).await;
    let mut letter = device.letter(1);
    letter.repository = "elsewhere".parse().expect("a name");
    assert_eq!(bench.post(CHECKIN, &device.seal(&letter)).await.kind(), "wrong-repository");
    let mut letter = device.letter(1);
    letter.tenant = "other".parse().expect("a name");
    assert_eq!(bench.post(CHECKIN, &device.seal(&letter)).await.kind(), "wrong-tenant");
    let mut forged = Device::new(2).seal(&device.letter(1));
    forged.device = device.id();
    assert_eq!(bench.post(CHECKIN, &forged).await.kind(), "signature");
    assert_eq!(*bench.letter_box.head().borrow(), 1);
}

#[tokio::test]
async fn orders_travel_when_the_device_holds_others_and_facts_when_the_server_lacks_them() {
    let bench = Bench::start().await;
    let device = enrolled(&bench, 1).await;
    let first = directive(&bench.post(CHECKIN, &device.seal(&device.letter(1))).await);
    assert_eq!(first.orders, None);
    assert!(first.want_facts, "the digest is not the enrolled facts'");
    let stop = PassedStop {
        offset: 1,
        scope: Scope::Everything,
        since: Moment(1),
        reason: "a person said so".into(),
    };
    let prepared = Prepared::new(Orders { stops: vec![stop], ..Orders::default() });
    let mut book = OrdersBook::empty().expect("a book");
    book.everyone = Arc::new(prepared.expect("orders"));
    let orders = book.everyone.orders().clone();
    let digest = book.everyone.digest();
    bench.letter_box.orders.store(Arc::new(book));
    let mut letter = device.letter(2);
    letter.facts = Some(lockgate_shared::facts::Facts::default());
    let second = directive(&bench.post(CHECKIN, &device.seal(&letter)).await);
    assert_eq!(second.orders, Some(orders));
    assert!(!second.want_facts);
    let mut letter = device.letter(3);
    letter.orders_digest = digest;
    let third = directive(&bench.post(CHECKIN, &device.seal(&letter)).await);
    assert_eq!((third.orders, third.want_facts), (None, false));
}

#[tokio::test]
async fn a_stop_by_token_is_in_the_next_answer_and_still_there_after_a_restart() {
    let bench = Bench::start().await;
    let device = enrolled(&bench, 1).await;
    directive(&bench.post(CHECKIN, &device.seal(&device.letter(1))).await);
    let stop = r#"{"scope":"everything","how":"pause","reason":"smoke in the lab"}"#;
    let request = |bearer: &str| {
        hyper::Request::post("/v1/stops")
            .header("authorization", format!("Bearer {bearer}"))
            .header("content-type", "application/json")
            .body(http_body_util::Full::new(stop.into()))
            .expect("a request")
    };
    let refused = bench.send(request("lgtok1_00")).await;
    assert_eq!((refused.status, refused.kind().as_str()), (401, "unauthorised"));
    let taken = bench.send(request(&bench.operator)).await;
    assert_eq!(taken.status, 202, "{}", String::from_utf8_lossy(&taken.body));
    assert!(!taken.header("strict-transport-security").is_empty());
    let told = directive(&bench.post(CHECKIN, &device.seal(&device.letter(2))).await);
    let stops = told.orders.map(|orders| orders.stops).unwrap_or_default();
    assert_eq!(stops.iter().map(|stop| &stop.scope).collect::<Vec<_>>(), [&Scope::Everything]);
    let bench = bench.restart().await;
    let told = directive(&bench.post(CHECKIN, &device.seal(&device.letter(3))).await);
    assert_eq!(told.orders.map(|orders| orders.stops), Some(stops));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash_with_the_same_answers() {
    let bench = Bench::start().await;
    let (a, b) = (enrolled(&bench, 1).await, enrolled(&bench, 2).await);
    let plain = a.seal(&a.letter(1));
    directive(&bench.post(CHECKIN, &plain).await);
    bench.letter_box.sweep().await.expect("a sweep");
    let whole = b.seal(&b.trial(4));
    let offset = directive(&bench.post(CHECKIN, &whole).await).offset;
    let later = a.seal(&a.letter(2));
    directive(&bench.post(CHECKIN, &later).await);
    let before = bench.letter_box.devices().page(&Page { limit: 10, ..Page::default() });

    // The files as a power cut would leave them: nothing was closed.
    let crashed = tempfile::tempdir().expect("a folder");
    let mut api = bench.config.api().expect("the section").clone();
    for name in ["store.db", "store.db-wal"] {
        std::fs::copy(api.state.join(name), crashed.path().join(name)).expect("a copy");
    }
    api.state = crashed.path().to_owned();
    let config = lockgate_server::config::Config { api: Some(api), ..bench.config.clone() };
    let after = LetterBox::open(&config).expect("a letter box");
    assert_eq!(after.devices().page(&Page { limit: 10, ..Page::default() }), before);
    let now = clock::now();
    let again = after.check_in(&whole.to_bytes().expect("bytes"), Format::Binary, now).await;
    assert_eq!(again.expect("an acknowledgement").offset, offset);
    let replayed = after.check_in(&plain.to_bytes().expect("bytes"), Format::Binary, now).await;
    assert!(replayed.is_err(), "an older number stays refused");
    after.close();
}

#[tokio::test]
async fn a_second_letter_box_on_the_same_state_does_not_start() {
    let bench = Bench::start().await;
    let second = LetterBox::open(&bench.config);
    assert!(matches!(second, Err(OpenError::Store(StoreError::InUse { .. }))));
}

#[tokio::test]
async fn neither_plain_http_nor_tls_before_1_3_is_spoken() {
    let bench = Bench::start().await;
    let mut plain = TcpStream::connect(bench.address).await.expect("a connection");
    plain.write_all(b"GET /repo/metadata/1.root.json HTTP/1.1\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.expect("an end");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    let mut old = TcpStream::connect(bench.address).await.expect("a connection");
    old.write_all(&tls_1_2_hello()).await.expect("sent");
    let mut answer = Vec::new();
    old.read_to_end(&mut answer).await.expect("an end");
    // An alert (21), fatal (2), protocol_version (70).
    assert_eq!((answer.first(), &answer[5..]), (Some(&21), &[2, 70][..]));
}

#[tokio::test]
async fn repository_and_artifacts_are_served_with_validators_and_ranges() {
    let bench = Bench::start().await;
    let bytes: Vec<u8> = (0..400_000u32).map(|n| (n % 251) as u8).collect();
    let name = lockgate_shared::id::Digest::of(&bytes).to_string();
    std::fs::write(bench.folder.path().join("state/artifacts").join(&name), &bytes)
        .expect("a file");
    let path = format!("/artifacts/{name}");
    let whole = bench.get(&path, &[]).await;
    assert_eq!((whole.status, whole.body.as_ref()), (200, bytes.as_slice()));
    assert_eq!(whole.header("etag"), format!("\"{name}\""));
    assert_eq!(whole.header("content-length"), "400000");
    assert!(whole.header("strict-transport-security").starts_with("max-age="));
    let part = bench.get(&path, &[("range", "bytes=300000-")]).await;
    assert_eq!((part.status, part.body.as_ref()), (206, &bytes[300_000..]));
    assert_eq!(part.header("content-range"), "bytes 300000-399999/400000");
    let outside = bench.get(&path, &[("range", "bytes=400000-")]).await;
    assert_eq!((outside.status, outside.kind().as_str()), (416, "range"));
    assert_eq!(outside.header("content-range"), "bytes */400000");

    let root = bench.get("/repo/metadata/1.root.json", &[]).await;
    assert!(root.header("cache-control").contains("immutable"));
    let known = [("if-none-match", root.header("etag"))];
    assert_eq!(bench.get("/repo/metadata/1.root.json", &known).await.status, 304);
    let timestamp = bench.get("/repo/metadata/timestamp.json", &[]).await;
    assert_eq!(timestamp.header("cache-control"), "no-cache");
    for missing in [
        "/repo/metadata/2.root.json",
        "/repo/metadata/..%2f..%2froot.json",
        "/repo/targets/../root.json",
        "/repo/targets/",
        "/artifacts/..",
        "/nothing",
    ] {
        let answer = bench.get(missing, &[]).await;
        assert_eq!((answer.status, answer.kind().as_str()), (404, "not-found"), "{missing}");
        assert!(!answer.header("strict-transport-security").is_empty());
    }
}

#[tokio::test]
async fn the_gatekeeper_waits_for_entries_and_its_report_is_kept() {
    let bench = Bench::start().await;
    let socket = bench.config.api().expect("the section").socket.clone();
    let mut gate = UnixStream::connect(&socket).await.expect("the socket");
    let waiting = tokio::spawn(async move {
        let pulled =
            ask(&mut gate, &Request::Pull { from: 0, last: None, max: 10, wait_ms: 30_000 }).await;
        (gate, pulled)
    });
    let device = enrolled(&bench, 1).await;
    directive(&bench.post(CHECKIN, &device.seal(&device.trial(1))).await);
    let (mut gate, pulled) = waiting.await.expect("no panic");
    let Response::Batch { entries, head } = pulled else { panic!("a batch, not {pulled:?}") };
    assert_eq!((entries[0].offset, entries[0].kind), (0, EntryKind::Enrolment(Format::Binary)));
    assert!(head >= 1);
    let pulled =
        ask(&mut gate, &Request::Pull { from: 1, last: None, max: 10, wait_ms: 1_000 }).await;
    let Response::Batch { entries, head: 2 } = pulled else { panic!("a batch, not {pulled:?}") };
    let sent = device.seal(&device.trial(1)).to_bytes().expect("bytes");
    assert_eq!(entries[0].bytes, sent, "letters travel byte for byte");
    let none = ask(&mut gate, &Request::Pull { from: 2, last: None, max: 10, wait_ms: 10 }).await;
    assert_eq!(none, Response::Batch { entries: Vec::new(), head: 2 });

    let report = Request::Report {
        verdicts: vec![verdict()],
        status: Box::new(status()),
        audit: vec![r#"{"n":1}"#.into()],
    };
    assert_eq!(ask(&mut gate, &report).await, Response::Reported);
    let bench = bench.restart().await;
    let reports = bench.letter_box.reports();
    assert_eq!(reports.entry(0).map(|verdict| verdict.number), Some(1));
    assert_eq!(reports.status().map(|status| status.letters_offset), Some(2));
    assert_eq!(reports.audit(0).count(), 1);
}

#[tokio::test]
async fn a_frame_that_announces_too_much_ends_the_connection() {
    let bench = Bench::start().await;
    let socket = bench.config.api().expect("the section").socket.clone();
    let mut gate = UnixStream::connect(&socket).await.expect("the socket");
    gate.write_all(&u32::MAX.to_le_bytes()).await.expect("sent");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), gate.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty());
}

async fn ask(gate: &mut UnixStream, request: &Request) -> Response {
    let bytes = codec::encode(request, FRAME_BYTES).expect("a frame");
    let length = u32::try_from(bytes.len()).expect("a short frame");
    gate.write_all(&length.to_le_bytes()).await.expect("sent");
    gate.write_all(&bytes).await.expect("sent");
    let mut length = [0; 4];
    gate.read_exact(&mut length).await.expect("an answer");
    let mut frame = vec![0; u32::from_le_bytes(length) as usize];
    gate.read_exact(&mut frame).await.expect("an answer");
    codec::decode(&frame, FRAME_BYTES).expect("a response")
}

fn verdict() -> Verdict {
    Verdict {
        number: 1,
        at: Moment(3),
        about: About::Entry(0),
        decision: Decision::Accepted,
        reasons: Vec::new(),
    }
}

fn status() -> Status {
    Status {
        repository: "trial".parse().expect("a name"),
        at: Moment(3),
        letters_offset: 2,
        tick_s: Seconds(300),
        rollouts: Vec::new(),
        stops: Vec::new(),
        expiries: Vec::new(),
        cohorts: Vec::new(),
        hearing: None,
        fleet: None,
        alarms: Vec::new(),
    }
}

/// A ClientHello of TLS 1.2, as clients without 1.3 send it.
fn tls_1_2_hello() -> Vec<u8> {
    let extensions: Vec<u8> = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..], // groups: P-256
        &[0, 11, 0, 2, 1, 0][..],        // point formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3][..],  // signatures: ECDSA with P-256 and SHA-256
        &[0, 23, 0, 0][..],              // extended master secret
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.push(0); // session
    body.extend([0, 2, 0xc0, 0x2b]); // ECDHE-ECDSA-AES128-GCM-SHA256
    body.extend([1, 0]); // no compression
    body.extend(u16::try_from(extensions.len()).expect("short").to_be_bytes());
    body.extend(extensions);
    let length = u8::try_from(body.len()).expect("short");
    let mut hello = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend(body);
    hello
}
