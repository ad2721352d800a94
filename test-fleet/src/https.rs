//! One request over TLS 1.3 with whatever a stranger may send: any path, any header, any body. It is
//! a client for bad input and checks nothing of what it sends; the agent's own client is
//! `lockgate_agent::transport`.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use lockgate_shared::wire::Problem;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring, version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use thiserror::Error;

/// How long any read or write may take: far above the slowest answer of a test's server.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who asks: where the server is and whose certificate it must have.
#[derive(Clone, Debug)]
pub struct Client {
    port: u16,
    tls: Arc<ClientConfig>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, as it stands in the request line.
    pub path: &'a str,
    /// Headers besides `Host`, `Content-Length` and `Connection`.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers by their lower-case names.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpsError {
    /// The connection.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// TLS.
    #[error("tls failed")]
    Tls(#[from] rustls::Error),
    /// The certificates.
    #[error("`{0}` holds no certificate")]
    Certificate(String),
    /// What came is not an answer.
    #[error("this is no answer: {0}")]
    Answer(String),
}

impl Client {
    /// A client of the server on this machine at `port`.
    pub fn new(port: u16, ca: &Path) -> Result<Self, HttpsError> {
        let unusable = || HttpsError::Certificate(ca.display().to_string());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|_| unusable())? {
            roots.add(certificate.map_err(|_| unusable())?)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { port, tls: Arc::new(config) })
    }

    /// Asks on a connection of its own.
    pub fn ask(&self, ask: Ask<'_>) -> Result<Answer, HttpsError> {
        let name = ServerName::try_from("127.0.0.1")
            .map_err(|error| HttpsError::Answer(error.to_string()))?;
        let connection = ClientConnection::new(Arc::clone(&self.tls), name)?;
        let mut stream = StreamOwned::new(connection, self.connect()?);
        let mut request = format!(
            "{} {} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {}\r\n",
            ask.method,
            ask.path,
            ask.body.len()
        );
        for (name, value) in ask.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes())?;
        // Who refuses a body early need not read all of it: the answer counts.
        let sent = stream.write_all(ask.body).and_then(|()| stream.flush());
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        if bytes.is_empty() {
            sent.and(read.map(drop))?;
        }
        parse(&bytes)
    }

    /// Sends bytes without TLS and returns what comes until the server closes the connection.
    pub fn raw(&self, bytes: &[u8]) -> Result<Vec<u8>, HttpsError> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error.into()),
            Ok(_) | Err(_) => Ok(answer),
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

impl Answer {
    /// What the server says went wrong.
    pub fn problem(&self) -> Option<Problem> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn parse(bytes: &[u8]) -> Result<Answer, HttpsError> {
    let odd = |what: &str| {
        let start = String::from_utf8_lossy(bytes).chars().take(200).collect::<String>();
        HttpsError::Answer(format!("{what}: `{start}`"))
    };
    let end =
        bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| odd("no head"))?;
    let (head, body) = bytes.split_at(end);
    let body = body.get(4..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| odd("not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| odd("no status"))?;
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    if length.is_some_and(|length: usize| length != body.len()) {
        return Err(odd("it broke off"));
    }
    Ok(Answer { status, headers, body: body.to_vec() })
}
