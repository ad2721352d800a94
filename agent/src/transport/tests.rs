//! The transport against a server that answers whatever a test tells it to.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use lockgate_shared::time::Seconds;
use rustix::process::{Signal, getpid, kill_process};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, version::TLS13};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::*;

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_turn_uses_one_connection_and_the_next_turn_another() {
    let server = serve(|head, _| match head.contains("/missing") {
        true => whole(404, "", b"nothing"),
        false => whole(200, "", b"yes"),
    });
    let mut transport = server.transport();
    assert_eq!(transport.get("/a", 10, LONG).expect("an answer"), b"yes");
    let missing = transport.get("/missing", 10, LONG);
    assert!(matches!(missing, Err(TransportError::NotFound { .. })), "{missing:?}");
    assert_eq!(transport.post("/b", "text/plain", b"hello", 10).expect("an answer").body, b"yes");
    assert_eq!(server.connections(), 1);
    transport.end_turn();
    assert_eq!(transport.get("/a", 10, LONG).expect("an answer"), b"yes");
    assert_eq!(server.connections(), 2);
    assert!(server.asked().iter().any(|head| head.contains("content-length: 5")));
}

#[test]
fn a_kept_connection_that_the_server_closed_is_opened_anew() {
    let server = serve(|_, _| Reply::Close(head(200, "content-length: 3\r\n") + "yes"));
    let mut transport = server.transport();
    for _ in 0..3 {
        assert_eq!(transport.get("/a", 10, LONG).expect("an answer"), b"yes");
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn an_authority_that_the_ca_file_does_not_name_is_not_trusted() {
    let (server, other) = (serve(|_, _| whole(200, "", b"")), serve(|_, _| whole(200, "", b"")));
    let ca = other.ca();
    let mut transport =
        open(vec![], server.origin("localhost"), ca.clone(), quick()).expect("a transport");
    let error = transport.get("/a", 10, LONG).expect_err("not trusted");
    assert!(matches!(error, TransportError::Untrusted { .. }), "{error:?}");
    assert!(error.to_string().contains(&ca.display().to_string()), "{error}");
    assert_eq!(error.remedy(), Remedy::Mend);
}

#[test]
fn a_certificate_for_another_name_is_not_trusted() {
    let server = serve(|_, _| whole(200, "", b""));
    let origin = server.origin("127.0.0.1");
    let mut transport = open(vec![], origin, server.ca(), quick()).expect("a transport");
    let error = transport.get("/a", 10, LONG).expect_err("not trusted");
    assert!(matches!(error, TransportError::WrongName { .. }), "{error:?}");
}

#[test]
fn a_server_that_speaks_only_older_tls_is_told_apart() {
    // As OpenSSL answers with TLS 1.2 alone: an alert that names the version; and as some old
    // appliances do: they choose 1.2 all the same.
    let alert = vec![0x15, 3, 3, 0, 2, 2, 70];
    let mut hello = vec![0x16, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0xc0, 0x2f, 0]);
    for answer in [alert, hello] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(&answer);
                let _ = stream.read(&mut [0; 4096]);
            }
        });
        let keys = serve(|_, _| whole(200, "", b""));
        let origin = format!("https://localhost:{port}").parse().expect("an origin");
        let mut transport = open(vec![], origin, keys.ca(), quick()).expect("a transport");
        let error = transport.get("/a", 10, LONG).expect_err("no agreement");
        assert!(matches!(error, TransportError::TlsVersion { .. }), "{error:?}");
    }
}

#[test]
fn a_ca_file_without_a_certificate_is_refused_before_anything_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    let origin: Origin = "https://localhost:1".parse().expect("an origin");
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(&path, text).expect("written");
        let refused = open(vec![], origin.clone(), path.clone(), quick());
        assert!(matches!(refused, Err(TransportError::Ca { .. })), "{refused:?}");
    }
}

#[test]
fn a_body_without_end_is_left_at_the_limit() {
    let chunk = "1000\r\n".to_owned() + &"x".repeat(0x1000) + "\r\n";
    let server = serve(move |_, _| {
        Reply::Repeat(head(200, "transfer-encoding: chunked\r\n"), chunk.clone())
    });
    let error = server.transport().get("/a", 100_000, LONG).expect_err("too long");
    assert!(matches!(error, TransportError::TooLong { max: 100_000, .. }), "{error:?}");
}

#[test]
fn an_announced_length_beyond_the_limit_is_not_read() {
    let server = serve(|_, _| Reply::Close(head(200, "content-length: 11\r\n")));
    let error = server.transport().get("/a", 10, LONG).expect_err("too long");
    assert!(matches!(error, TransportError::TooLong { max: 10, .. }), "{error:?}");
}

#[test]
fn a_slow_body_ends_at_the_deadline() {
    let server = serve(|_, _| Reply::Trickle(head(200, "content-length: 1000\r\n")));
    let deadline = Duration::from_millis(300);
    let error = server.transport().get("/a", 1000, deadline).expect_err("too slow");
    assert!(matches!(error, TransportError::Timeout { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::Wait);
}

#[test]
fn a_head_without_end_is_refused() {
    let line = format!("x-filler: {}\r\n", "x".repeat(1000));
    let server = serve(move |_, _| Reply::Repeat("HTTP/1.1 200 OK\r\n".to_owned(), line.clone()));
    let error = server.transport().get("/a", 10, LONG).expect_err("too long");
    assert!(matches!(error, TransportError::Broken { .. }), "{error:?}");
}

#[test]
fn a_redirect_is_reported_and_not_followed() {
    let server = serve(|_, _| whole(302, "location: /elsewhere\r\n", b""));
    let error = server.transport().get("/a", 10, LONG).expect_err("a redirect");
    assert!(matches!(error, TransportError::Redirect { status: 302, .. }), "{error:?}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn no_such_file_is_an_answer_and_a_broken_server_is_not() {
    let problem = br#"{"type":"unknown-device","title":"t","status":403,"detail":"who is it","hint":"enrol"}"#;
    let server = serve(|head, _| {
        let status = if head.contains("/404") { 404 } else { 500 };
        if head.contains("/403") {
            return whole(403, "content-type: application/problem+json\r\n", problem);
        }
        whole(status, "", b"<html>")
    });
    let mut transport = server.transport();
    let missing = transport.get("/404", 10, LONG).expect_err("missing");
    assert!(matches!(missing, TransportError::NotFound { problem: None, .. }), "{missing:?}");
    let broken = transport.get("/500", 10, LONG).expect_err("broken");
    assert!(matches!(broken, TransportError::Status { status: 500, .. }), "{broken:?}");
    assert_eq!((missing.remedy(), broken.remedy()), (Remedy::Accept, Remedy::Wait));
    let refused = transport.post("/403", "text/plain", b"", 10).expect_err("refused");
    assert_eq!(refused.problem().map(|problem| problem.kind.as_str()), Some("unknown-device"));
    assert!(refused.to_string().ends_with("status 403: who is it\nhint: enrol"), "{refused}");
}

#[test]
fn a_busy_server_says_how_long_to_wait() {
    let server = serve(|head, _| {
        let status = if head.contains("/429") { 429 } else { 503 };
        whole(status, "retry-after: 120\r\n", b"")
    });
    let mut transport = server.transport();
    for path in ["/429", "/503"] {
        let error = transport.post(path, "text/plain", b"x", 10).expect_err("busy");
        assert!(matches!(error, TransportError::Busy { .. }), "{error:?}");
        assert_eq!(error.retry_after(), Some(Seconds(120)));
    }
}

#[test]
fn mirrors_are_asked_first_and_the_server_has_the_last_word() {
    let mirror = serve(|_, _| whole(404, "", b""));
    let server = serve(|head, _| match head.contains("/both") {
        true => whole(404, "", b""),
        false => whole(200, "", b"server"),
    });
    let down: Origin = "https://localhost:1".parse().expect("an origin");
    let ca = authorities(&[&mirror, &server]);
    let mirrors = vec![down, mirror.origin("localhost")];
    let path = ca.path().join("ca.pem");
    let origin = server.origin("localhost");
    let mut transport = open(mirrors, origin, path, quick()).expect("a transport");
    assert_eq!(transport.get("/only", 10, LONG).expect("an answer"), b"server");
    let missing = transport.get("/both", 10, LONG);
    assert!(matches!(missing, Err(TransportError::NotFound { .. })), "{missing:?}");
    transport.post("/letter", "text/plain", b"", 10).expect("the server alone");
    assert!(mirror.asked().iter().all(|head| !head.contains("/letter")));
}

#[test]
fn a_refused_file_comes_from_the_next_source_and_who_gave_it_is_asked_last_from_then_on() {
    let mirror = serve(|head, _| match head.contains("/late") {
        true => whole(404, "", b""),
        false => whole(200, "", b"garbage"),
    });
    let server = serve(|_, _| whole(200, "", b"true"));
    let (_ca, mut transport) = both(&mirror, &server);
    assert_eq!(transport.get("/a", 10, LONG).expect("an answer"), b"garbage");
    assert_eq!(transport.refused("no metadata"), Another::Source);
    assert_eq!(transport.get("/a", 10, LONG).expect("an answer"), b"true");
    assert_eq!(transport.get("/b", 10, LONG).expect("an answer"), b"true");
    assert_eq!(mirror.asked().len(), 1, "it is asked last");
    transport.end_turn();
    let behind = transport.behind();
    assert_eq!(behind.len(), 1);
    assert_eq!(behind[0].source, mirror.origin("localhost"));
    assert_eq!(behind[0].cause, Cause::Refused("no metadata".into()));
    // Where the server itself is refused, a mirror's "no such file" is not the repository's word.
    assert_eq!(transport.get("/late", 10, LONG).expect("an answer"), b"true");
    assert_eq!(transport.refused("it is too old"), Another::Source);
    let ended = transport.get("/late", 10, LONG);
    assert!(matches!(ended, Err(TransportError::Status { status: 404, .. })), "{ended:?}");
    assert_eq!(transport.refused("nothing came"), Another::Nobody);
}

#[test]
fn a_refused_payload_comes_from_another_source_also_where_the_server_ended_it() {
    // The mirror gives a wrong beginning and hangs up; the server goes on where it stopped.
    let mirror = serve(|_, _| Reply::Reset((head(200, "content-length: 10\r\n") + "wrong").into()));
    let server = serve(|asked, _| match field(asked, "range") {
        None => whole(200, "", b"0123456789"),
        Some(_) => Reply::Keep(
            (head(206, "content-range: bytes 5-9/10\r\ncontent-length: 5\r\n") + "56789").into(),
        ),
    });
    let (_ca, mut transport) = both(&mirror, &server);
    for expected in [&b"wrong56789"[..], b"0123456789"] {
        let mut got = Vec::new();
        let mut download = transport.download("/x", 10).expect("a download");
        download.read_to_end(&mut got).expect("all of it");
        assert_eq!(got, expected);
        if got.starts_with(b"wrong") {
            assert_eq!(transport.refused("another digest"), Another::Source);
        }
    }
    assert_eq!(mirror.asked().len(), 1);
}

#[test]
fn a_download_goes_on_where_the_connection_broke() {
    let payload: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let bytes = payload.clone();
    let server = serve(move |asked, _| {
        let size = bytes.len();
        let at: usize = field(asked, "range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .unwrap_or(0);
        let status = if at == 0 { 200 } else { 206 };
        let mut fields = format!("etag: \"one\"\r\ncontent-length: {}\r\n", size - at);
        if at > 0 {
            fields += &format!("content-range: bytes {at}-{}/{size}\r\n", size - 1);
        }
        let mut all = head(status, &fields).into_bytes();
        // Never more than 70,000 bytes of body on one connection.
        let end = size.min(at + 70_000);
        all.extend(&bytes[at..end]);
        if end == size { Reply::Keep(all) } else { Reply::Reset(all) }
    });
    let mut transport = server.transport();
    let mut got = Vec::new();
    let mut download = transport.download("/artifacts/x", 200_000).expect("a download");
    download.read_to_end(&mut got).expect("all of it");
    assert!(got == payload, "the bytes differ");
    let asked = server.asked();
    assert!(asked.len() >= 3, "{asked:?}");
    for again in &asked[1..] {
        assert!(field(again, "range").is_some(), "{again}");
        assert_eq!(field(again, "if-range"), Some("\"one\""), "{again}");
    }
}

#[test]
fn a_download_of_another_length_than_signed_hands_on_nothing() {
    for announced in [9, 11] {
        let server = serve(move |_, _| {
            Reply::Keep(
                (head(200, &format!("content-length: {announced}\r\n")) + "0123456789x").into(),
            )
        });
        let (got, error) = download(&mut server.transport(), 10);
        assert!(got.is_empty());
        assert!(error.contains("10 are signed"), "{error}");
    }
}

#[test]
fn a_download_that_ends_early_is_an_error_and_never_an_end() {
    // Says ten, sends five, closes: each time.
    let server = serve(|_, _| Reply::Close(head(200, "content-length: 10\r\n") + "01234"));
    let (_, error) = download(&mut server.transport(), 10);
    assert!(error.contains("connection broke") || error.contains("resume"), "{error}");
    let chunked = head(200, "transfer-encoding: chunked\r\n") + "5\r\n01234\r\n0\r\n\r\n";
    let server = serve(move |_, _| Reply::Keep(chunked.clone().into()));
    let (_, error) = download(&mut server.transport(), 10);
    assert!(error.contains("has 5 bytes, 10 are signed"), "{error}");
}

#[test]
fn a_download_without_end_stops_at_the_signed_length() {
    let chunk = "b\r\n0123456789x\r\n".to_owned();
    let server = serve(move |_, _| {
        Reply::Repeat(head(200, "transfer-encoding: chunked\r\n"), chunk.clone())
    });
    let (got, error) = download(&mut server.transport(), 10);
    assert!(got.is_empty());
    assert!(error.contains("longer than the 10 bytes"), "{error}");
}

#[test]
fn a_resumed_download_must_be_the_same_file_at_the_right_place() {
    for (fields, reason) in [
        ("content-range: bytes 0-4/10\r\ncontent-length: 5\r\n", "another part"),
        ("content-range: bytes 5-9/11\r\ncontent-length: 5\r\n", "another part"),
        ("content-length: 5\r\n", "another part"),
    ] {
        let server = serve(move |asked, _| match field(asked, "range") {
            None => Reply::Reset((head(200, "content-length: 10\r\n") + "01234").into()),
            Some(_) => Reply::Keep((head(206, fields) + "56789").into()),
        });
        let (got, error) = download(&mut server.transport(), 10);
        assert_eq!(got, b"01234");
        assert!(error.contains(reason), "{error}");
    }
    let server = serve(|asked, nth| {
        let fields = format!("content-length: 10\r\netag: \"{nth}\"\r\n");
        match field(asked, "range") {
            None => Reply::Reset((head(200, &fields) + "01234").into()),
            Some(_) => Reply::Keep((head(200, &fields) + "abcdefghij").into()),
        }
    });
    let (got, error) = download(&mut server.transport(), 10);
    assert_eq!(got, b"01234");
    assert!(error.contains("changed"), "{error}");
}

#[test]
fn a_source_that_does_not_resume_is_read_again_from_its_beginning() {
    let server = serve(|_, nth| match nth {
        0 => Reply::Reset((head(200, "content-length: 10\r\netag: \"one\"\r\n") + "01234").into()),
        _ => whole(200, "etag: \"one\"\r\n", b"0123456789"),
    });
    let mut got = Vec::new();
    let mut transport = server.transport();
    transport.download("/x", 10).expect("a download").read_to_end(&mut got).expect("all of it");
    assert_eq!(got, b"0123456789");
}

#[test]
fn a_download_below_the_least_rate_is_given_up() {
    let server = serve(|_, _| Reply::Trickle(head(200, "content-length: 100000\r\n")));
    let limits = Limits {
        rate_least: 10_000,
        rate_window: Duration::from_millis(200),
        attempts: 1,
        ..quick()
    };
    let origin = server.origin("localhost");
    let mut transport = open(vec![], origin, server.ca(), limits).expect("a transport");
    let (_, error) = download(&mut transport, 100_000);
    assert!(error.contains("fewer than 10000 bytes"), "{error}");
}

#[test]
fn paths_that_do_not_fit_a_request_line_are_refused() {
    let mut transport = serve(|_, _| whole(200, "", b"")).transport();
    for bad in ["", "x", "/a b", "/a\r\nx: y", "/ä", "/a/../b", "/a#b"] {
        let refused = transport.get(bad, 10, LONG);
        assert!(matches!(refused, Err(TransportError::Request { .. })), "{bad:?}");
    }
}

#[test]
fn a_wait_ends_by_time_by_a_poke_and_for_good_by_an_order_to_end() {
    let server = serve(|_, _| whole(200, "", b"yes"));
    let mut transport = server.transport();
    transport.heed_signals().expect("handlers");
    assert_eq!(transport.wait(Duration::ZERO).expect("a wait"), Woken::Time);
    kill_process(getpid(), Signal::USR1).expect("a signal to oneself");
    assert_eq!(transport.wait(LONG).expect("a wait"), Woken::Poked);
    assert_eq!(transport.get("/a", 10, LONG).expect("an answer"), b"yes");
    kill_process(getpid(), Signal::TERM).expect("a signal to oneself");
    assert_eq!(transport.wait(LONG).expect("a wait"), Woken::Terminate);
    let ended = transport.get("/a", 10, LONG);
    assert!(matches!(ended, Err(TransportError::Terminated)), "{ended:?}");
    assert_eq!(transport.wait(LONG).expect("a wait"), Woken::Terminate);
}

/// What the server does with a request.
pub(crate) enum Reply {
    /// Sends this and waits for the next request.
    Keep(Vec<u8>),
    /// Sends this and closes in good order.
    Close(String),
    /// Sends this and drops the connection.
    Reset(Vec<u8>),
    /// Sends the first, then the second until nobody listens.
    Repeat(String, String),
    /// Sends this, then a byte now and then until nobody listens.
    Trickle(String),
}

pub(crate) struct Server {
    port: u16,
    folder: tempfile::TempDir,
    pem: String,
    connections: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn origin(&self, host: &str) -> Origin {
        format!("https://{host}:{}", self.port).parse().expect("an origin")
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn transport(&self) -> Transport {
        open(vec![], self.origin("localhost"), self.ca(), quick()).expect("a transport")
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic before").clone()
    }
}

pub(crate) fn serve(script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Server {
    let keys = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("keys");
    let key = PrivatePkcs8KeyDer::from(keys.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![keys.cert.der().clone()], key.into())
        .expect("a key that fits");
    let config = Arc::new(config);
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("ca.pem"), keys.cert.pem()).expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (connections, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let shared = (connections.clone(), asked.clone(), Arc::new(script));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), config) = (stream, config.clone()) else { return };
            let (connections, asked, script) = shared.clone();
            thread::spawn(move || {
                let Ok(session) = ServerConnection::new(config) else { return };
                let mut stream = StreamOwned::new(session, stream);
                let mut first = true;
                while let Some(head) = read_head(&mut stream) {
                    if std::mem::take(&mut first) {
                        connections.fetch_add(1, Ordering::SeqCst);
                    }
                    let nth = {
                        let mut asked = asked.lock().expect("no panic before");
                        asked.push(head.clone());
                        asked.len() - 1
                    };
                    if answer(&mut stream, script(&head, nth)).is_none() {
                        return;
                    }
                }
            });
        }
    });
    Server { port, folder, pem: keys.cert.pem(), connections, asked }
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

fn answer(stream: &mut Tls, reply: Reply) -> Option<()> {
    match reply {
        Reply::Keep(bytes) => stream.write_all(&bytes).and_then(|()| stream.flush()).ok(),
        Reply::Reset(bytes) => {
            let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
            None
        }
        Reply::Close(text) => {
            let _ = stream.write_all(text.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
            None
        }
        Reply::Repeat(head, again) => {
            stream.write_all(head.as_bytes()).ok()?;
            loop {
                stream.write_all(again.as_bytes()).ok()?;
            }
        }
        Reply::Trickle(head) => {
            stream.write_all(head.as_bytes()).ok()?;
            loop {
                stream.write_all(b"x").and_then(|()| stream.flush()).ok()?;
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn read_head(stream: &mut Tls) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        bytes.extend(byte);
    }
    let head = String::from_utf8(bytes).ok()?;
    let length = field(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some(head)
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn head(status: u16, fields: &str) -> String {
    format!("HTTP/1.1 {status} Words\r\n{fields}\r\n")
}

pub(crate) fn whole(status: u16, fields: &str, body: &[u8]) -> Reply {
    let mut bytes =
        head(status, &format!("{fields}content-length: {}\r\n", body.len())).into_bytes();
    bytes.extend(body);
    Reply::Keep(bytes)
}

fn quick() -> Limits {
    Limits {
        connect: LONG,
        answer: LONG,
        attempts: 3,
        pause: Duration::from_millis(1),
        ..Limits::default()
    }
}

fn open(
    mirrors: Vec<Origin>,
    server: Origin,
    ca: PathBuf,
    limits: Limits,
) -> Result<Transport, TransportError> {
    Transport::with_limits(Sources { server, mirrors, ca }, limits)
}

/// A transport to a mirror and a server, and the folder with their authorities.
fn both(mirror: &Server, server: &Server) -> (tempfile::TempDir, Transport) {
    let ca = authorities(&[mirror, server]);
    let path = ca.path().join("ca.pem");
    let mirrors = vec![mirror.origin("localhost")];
    let transport = open(mirrors, server.origin("localhost"), path, quick());
    (ca, transport.expect("a transport"))
}

fn authorities(servers: &[&Server]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let pem: Vec<&str> = servers.iter().map(|server| server.pem.as_str()).collect();
    fs::write(folder.path().join("ca.pem"), pem.join("\n")).expect("written");
    folder
}

/// What came of a download, and how it failed.
fn download(transport: &mut Transport, size: u64) -> (Vec<u8>, String) {
    let mut got = Vec::new();
    let mut download = transport.download("/x", size).expect("a download");
    let error = download.read_to_end(&mut got).expect_err("a failure");
    (got, error.to_string())
}
