//! Requests as they come, and answers as no honest server gives them: cut short, never ending, byte by
//! byte, or none at all.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read, Write},
    thread,
    time::Duration,
};

use crate::https::Answer;

/// The longest head and the longest body of a request that are read: far above an agent's.
const HEAD_BYTES: u64 = 64 * 1024;
/// See [`HEAD_BYTES`].
const BODY_BYTES: u64 = 16 * 1024 * 1024;
/// What an endless answer sends at once.
const BLOCK: usize = 64 * 1024;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path, as it stands in the request line.
    pub path: String,
    /// Headers by their lower-case names.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// What is answered.
pub enum Reply {
    /// What the true server answers.
    Pass,
    /// What the true server answers, after a change.
    Changed(Box<dyn FnOnce(&mut Answer) + Send>),
    /// A whole answer.
    Status(u16, Vec<u8>),
    /// A redirect to an address.
    Redirect(String),
    /// An answer that announces so many bytes, sends these and breaks off.
    Cut {
        /// The announced length.
        announced: u64,
        /// What comes of it.
        body: Vec<u8>,
    },
    /// An answer that never stops, with or without an announced length.
    Endless {
        /// The announced length; without one it comes in chunks.
        announced: Option<u64>,
    },
    /// A whole answer, one byte at a time.
    Drip {
        /// The bytes of the body.
        body: Vec<u8>,
        /// The pause before each byte of the body.
        pause: Duration,
        /// The pause before each byte of the head.
        head_pause: Duration,
    },
    /// Nothing, until the asker goes away.
    Silence,
    /// The end of the connection.
    Hangup,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Pass => "Pass",
            Self::Changed(_) => "Changed",
            Self::Status(..) => "Status",
            Self::Redirect(_) => "Redirect",
            Self::Cut { .. } => "Cut",
            Self::Endless { .. } => "Endless",
            Self::Drip { .. } => "Drip",
            Self::Silence => "Silence",
            Self::Hangup => "Hangup",
        };
        f.write_str(name)
    }
}

impl Reply {
    /// A file.
    pub fn file(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Status(200, bytes.into())
    }

    /// No such file.
    pub const fn missing() -> Self {
        Self::Status(404, Vec::new())
    }
}

impl Asked {
    /// Reads one request; nothing at the end of the connection.
    pub fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.by_ref().take(HEAD_BYTES).read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Err(io::Error::other(format!("`{}` is no request", line.trim())));
        };
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.by_ref().take(HEAD_BYTES).read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let mut body = Vec::new();
        stream.by_ref().take(length.unwrap_or(0).min(BODY_BYTES)).read_to_end(&mut body)?;
        Ok(Some(Self { method, path, headers, body }))
    }
}

/// Whether the connection serves another request after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It does.
    Keep,
    /// It is closed.
    Close,
}

/// Writes an answer that is not the true server's.
pub fn write(stream: &mut impl Write, reply: Reply) -> io::Result<After> {
    match reply {
        Reply::Pass | Reply::Changed(_) | Reply::Silence | Reply::Hangup => {}
        Reply::Status(status, body) => {
            whole(stream, &Answer { status, headers: BTreeMap::new(), body })?;
            return Ok(After::Keep);
        }
        Reply::Redirect(to) => {
            let headers = BTreeMap::from([("location".to_owned(), to)]);
            whole(stream, &Answer { status: 307, headers, body: Vec::new() })?;
        }
        Reply::Cut { announced, body } => {
            write!(stream, "HTTP/1.1 200 X\r\ncontent-length: {announced}\r\n\r\n")?;
            stream.write_all(&body)?;
            stream.flush()?;
        }
        Reply::Endless { announced } => endless(stream, announced)?,
        Reply::Drip { body, pause, head_pause } => {
            let head = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", body.len());
            drip(stream, head.as_bytes(), head_pause)?;
            drip(stream, &body, pause)?;
        }
    }
    Ok(After::Close)
}

/// Writes a whole answer.
pub fn whole(stream: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
    for (name, value) in &answer.headers {
        if !matches!(name.as_str(), "connection" | "content-length" | "transfer-encoding") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", answer.body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body)?;
    stream.flush()
}

/// Ends only when the other side does not listen any more.
fn endless(stream: &mut impl Write, announced: Option<u64>) -> io::Result<()> {
    match announced {
        Some(length) => write!(stream, "HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n")?,
        None => stream.write_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")?,
    }
    let block = [b' '; BLOCK];
    loop {
        if announced.is_none() {
            write!(stream, "{BLOCK:x}\r\n")?;
        }
        stream.write_all(&block)?;
        if announced.is_none() {
            stream.write_all(b"\r\n")?;
        }
        stream.flush()?;
    }
}

fn drip(stream: &mut impl Write, bytes: &[u8], pause: Duration) -> io::Result<()> {
    for byte in bytes {
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        stream.write_all(std::slice::from_ref(byte))?;
        stream.flush()?;
    }
    Ok(())
}
