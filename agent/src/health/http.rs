//! Asks a service on this device over plain HTTP/1.1, with one deadline over connecting, sending
//! and reading. It speaks to loopback only: a probe is no way to make a fleet call somebody, and
//! no name is ever looked up.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use super::{Deadline, ProbeResult};

/// How much of an answer is read at most: the status line is all that counts.
const MAX_STATUS_LINE: usize = 1024;

/// The longest URL.
const MAX_URL: usize = 1024;

/// Probes by fetching `url`: healthy when the answer's status is `expect_status`.
pub fn probe(url: &str, expect_status: u16, timeout: Duration) -> ProbeResult {
    let deadline = Deadline::after(timeout);
    let verdict = match Target::parse(url) {
        Err(fault) => Err(format!("`{url}` {fault}")),
        Ok(target) => match ask(&target, &deadline) {
            Ok(status) if status == expect_status => Ok(format!("status {status}")),
            Ok(status) => Err(format!("status {status} instead of {expect_status}")),
            Err(error) if is_timeout(&error) => {
                Err(format!("no answer after {} ms", deadline.limit().as_millis()))
            }
            Err(error) => Err(error.to_string()),
        },
    };
    ProbeResult::new(verdict, &deadline)
}

/// Whether a URL may stand in a probe: plain HTTP to a loopback address. What a release tool asks
/// before it signs.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    Target::parse(url).map(drop)
}

#[derive(Debug, PartialEq, Eq)]
struct Target<'u> {
    host: &'u str,
    port: u16,
    path: &'u str,
    addresses: Vec<SocketAddr>,
}

impl<'u> Target<'u> {
    fn parse(url: &'u str) -> Result<Self, &'static str> {
        if url.len() > MAX_URL {
            return Err("is longer than 1024 characters");
        }
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("holds a space or a character that is not printable ASCII");
        }
        let rest = url.strip_prefix("http://").ok_or("does not begin with `http://`")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).ok_or("has no host")?;
        let path = path.split('#').next().unwrap_or_default();
        let (host, port) = split_port(authority)?;
        let addresses = match host {
            "localhost" => vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
            _ => {
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let address = match bare {
                    Some(six) => six.parse().map(IpAddr::V6),
                    None => host.parse().map(IpAddr::V4),
                };
                vec![address.map_err(|_| "names no loopback address")?]
            }
        };
        if !addresses.iter().all(IpAddr::is_loopback) {
            return Err("names no loopback address");
        }
        let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        Ok(Self { host, port, path, addresses })
    }
}

fn split_port(authority: &str) -> Result<(&str, u16), &'static str> {
    // The colons of an IPv6 address stand before its bracket.
    let colon = authority.rfind(':').filter(|at| authority.rfind(']').is_none_or(|end| end < *at));
    let Some((host, port)) = colon.and_then(|at| authority.split_at_checked(at)) else {
        return Ok((authority, 80));
    };
    match port.trim_start_matches(':').parse() {
        Ok(0) | Err(_) => Err("has a port that is not a number from 1 to 65535"),
        Ok(port) => Ok((host, port)),
    }
}

fn ask(target: &Target<'_>, deadline: &Deadline) -> io::Result<u16> {
    let mut stream = connect(target, deadline)?;
    // `/` is what a path that is empty, or only a query, stands for.
    let slash = if target.path.starts_with('/') { "" } else { "/" };
    let request = format!(
        "GET {slash}{} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: lockgate-agent\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        target.path, target.host, target.port
    );
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let mut line = Vec::new();
    let mut buffer = [0; 256];
    while !line.contains(&b'\n') {
        if line.len() >= MAX_STATUS_LINE {
            return Err(io::Error::other("the answer's first line does not end"));
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the connection was closed without an answer")),
            Ok(count) => line.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    status(&line).ok_or_else(|| io::Error::other("the answer is not HTTP/1"))
}

fn connect(target: &Target<'_>, deadline: &Deadline) -> io::Result<TcpStream> {
    let mut last = io::Error::other("no address");
    for address in &target.addresses {
        match TcpStream::connect_timeout(address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The status of `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Option<u16> {
    let end = line.iter().position(|byte| *byte == b'\n')?;
    let line = str::from_utf8(line.get(..end)?).ok()?;
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok().filter(|status| (100..1000).contains(status))
}

fn left(deadline: &Deadline) -> io::Result<Duration> {
    deadline.left().ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn the_expected_status_is_healthy_and_another_is_not() {
        let url = serve(|stream| stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n"));
        let result = probe(&format!("{url}/health?full=1#x"), 204, Duration::from_secs(10));
        assert!(result.ok && result.detail == "status 204", "{result:?}");
        let url = serve(|stream| stream.write_all(b"HTTP/1.0 503 Busy\r\n\r\n"));
        let result = probe(&url, 200, Duration::from_secs(10));
        assert!(!result.ok && result.detail == "status 503 instead of 200", "{result:?}");
    }

    #[test]
    fn the_path_and_the_host_arrive_as_written() {
        let url = serve(|stream| {
            let mut request = [0; 512];
            let count = stream.read(&mut request)?;
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            let good = request.starts_with("GET /a/b?c=d HTTP/1.1\r\nHost: 127.0.0.1:");
            stream.write_all(if good { b"HTTP/1.1 200 OK\r\n" } else { b"HTTP/1.1 400 Bad\r\n" })
        });
        let result = probe(&format!("{url}/a/b?c=d#e"), 200, Duration::from_secs(10));
        assert!(result.ok, "{result:?}");
    }

    #[test]
    fn a_service_that_answers_by_drops_is_cut_off_at_the_deadline() {
        let url = serve(|stream| {
            loop {
                stream.write_all(b"H")?;
                thread::sleep(Duration::from_millis(20));
            }
        });
        let result = probe(&url, 200, Duration::from_millis(300));
        assert!(!result.ok && result.detail == "no answer after 300 ms", "{result:?}");
        assert!(result.latency_ms < 5_000, "{result:?}");
    }

    #[test]
    fn an_endless_or_foreign_answer_is_unhealthy() {
        let endless = serve(|stream| stream.write_all(&[b'x'; 64 * 1024]));
        let foreign = serve(|stream| stream.write_all(b"SSH-2.0-x\r\n"));
        let mute = serve(|_| Ok(()));
        for url in [endless, foreign, mute] {
            let result = probe(&url, 200, Duration::from_secs(5));
            assert!(!result.ok, "{result:?}");
        }
    }

    #[test]
    fn nobody_listening_is_unhealthy() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let result = probe(&format!("http://127.0.0.1:{port}"), 200, Duration::from_secs(5));
        assert!(!result.ok && result.detail.contains("refused"), "{result:?}");
    }

    #[test]
    fn only_loopback_is_ever_asked() {
        for url in [
            "http://127.0.0.1",
            "http://127.8.9.10:81/x",
            "http://[::1]:8080/",
            "http://localhost/a",
        ] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        for url in [
            "https://127.0.0.1/",
            "http://192.0.2.1/",
            "http://[2001:db8::1]/",
            "http://example.com/",
            "http://localhost.example.com/",
            "http://127.0.0.1@example.com/",
            "http://example.com@127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/\r\nX: y",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://",
            "",
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }

    /// A service that takes one connection.
    fn serve(answer: impl Fn(&mut TcpStream) -> io::Result<()> + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            if let Ok((mut stream, _)) = listener.accept() {
                // The other side may leave first; that is what some of these tests are about.
                let _ = answer(&mut stream);
            }
        });
        format!("http://{address}")
    }
}
