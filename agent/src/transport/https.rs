//! One request over HTTP/1.1 and TLS: connect, ask, read an answer that is bounded in size and time.
//!
//! A connection is kept and used again within a turn. One that the server closed in between is opened
//! anew once: every request here may come twice without harm, letters included, because they carry a
//! number. It never follows a redirect.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use lockgate_shared::{
    json,
    time::Moment,
    wire::{PROBLEM, Problem},
};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{Limits, Origin, TransportError, retry, tls};
use crate::clock;

/// The most header fields of an answer; the server sends a dozen.
const HEADERS: usize = 64;
/// The most bytes of an answer's head.
const HEAD_BYTES: usize = 16 * 1024;
/// The most bytes of a problem that are read: its texts are shown to people.
const PROBLEM_BYTES: u64 = 16 * 1024;
/// The most addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// A request's body; most have none.
type Body = Full<Bytes>;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) headers: Vec<(header::HeaderName, String)>,
    pub(super) body: Bytes,
}

impl<'a> Ask<'a> {
    /// Reads `path`.
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, headers: Vec::new(), body: Bytes::new() }
    }
}

/// A whole answer with a status of success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status, 200 to 299.
    pub status: u16,
    /// `Content-Type`, empty without one.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
    /// The server's clock, from `Date`: to be shown, never trusted.
    pub date: Option<Moment>,
}

/// The connections of a turn, one for each origin.
#[derive(Debug)]
pub(super) struct Links {
    config: Arc<rustls::ClientConfig>,
    ca: PathBuf,
    pub(super) limits: Limits,
    open: BTreeMap<Origin, SendRequest<Body>>,
}

impl Links {
    pub(super) fn new(ca: PathBuf, limits: Limits) -> Result<Self, TransportError> {
        Ok(Self { config: tls::client(&ca)?, ca, limits, open: BTreeMap::new() })
    }

    /// Closes all connections. Sessions are kept, so that the next turn resumes them.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }

    /// Asks and reads the whole answer, at most `max` bytes, within `deadline` over all.
    pub(super) async fn fetch(
        &mut self,
        origin: &Origin,
        ask: &Ask<'_>,
        max: u64,
        deadline: Duration,
    ) -> Result<Answer, TransportError> {
        let url = url(origin, ask.path);
        let work = async {
            let response = self.ask(origin, ask).await?;
            let (head, body) = response.into_parts();
            let body = read_body(body, &url, max).await?;
            Ok(Answer {
                status: head.status.as_u16(),
                content_type: text_of(&head.headers, header::CONTENT_TYPE),
                body,
                date: retry::http_date(&text_of(&head.headers, header::DATE)),
            })
        };
        let answer = timeout(deadline, work).await;
        let answer = answer.unwrap_or(Err(TransportError::Timeout { url, after: deadline }));
        let whole = match &answer {
            Ok(_) => true,
            Err(error) => error.answered(),
        };
        if !whole {
            // Whatever is left on the connection belongs to nobody.
            self.open.remove(origin);
        }
        answer
    }

    /// Asks and returns an answer of success whose body is still to be read. Anything else is an
    /// error, with what the server says about it. The caller sets the deadline.
    pub(super) async fn ask(
        &mut self,
        origin: &Origin,
        ask: &Ask<'_>,
    ) -> Result<Response<Incoming>, TransportError> {
        let url = url(origin, ask.path);
        let kept = self.open.remove(origin).filter(|sender| !sender.is_closed());
        let fresh = kept.is_none();
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect(origin).await?,
        };
        let sent = send(&mut sender, origin, ask).await;
        let response = match sent {
            Ok(response) => response,
            // The server closed a kept connection at the moment it was used again.
            Err(TransportError::Broken { .. }) if !fresh => {
                sender = self.connect(origin).await?;
                send(&mut sender, origin, ask).await?
            }
            Err(error) => return Err(error),
        };
        self.open.insert(origin.clone(), sender);
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(response, url).await)
        }
    }

    async fn connect(&self, origin: &Origin) -> Result<SendRequest<Body>, TransportError> {
        let stream = dial(origin, self.limits.connect).await?;
        let name = ServerName::try_from(origin.host().to_owned())
            .map_err(|_| TransportError::Request { path: origin.to_string() })?;
        let connector = TlsConnector::from(self.config.clone());
        let stream = timeout(self.limits.connect, connector.connect(name, stream))
            .await
            .map_err(|_| TransportError::Timeout {
                url: origin.to_string(),
                after: self.limits.connect,
            })?
            .map_err(|error| tls::explain(error, origin, &self.ca))?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(HEADERS)
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| TransportError::Broken { url: origin.to_string(), source })?;
        // It is driven only while a request is; its end is seen by the next use.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// The address in full, for people.
pub(super) fn url(origin: &Origin, path: &str) -> String {
    format!("{origin}{path}")
}

/// A header field's text, empty when it is absent or not printable.
pub(super) fn text_of(headers: &header::HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

async fn dial(origin: &Origin, limit: Duration) -> Result<TcpStream, TransportError> {
    let expired = || TransportError::Timeout { url: origin.to_string(), after: limit };
    let lookup = tokio::net::lookup_host((origin.host(), origin.port()));
    let addresses = timeout(limit, lookup).await.map_err(|_| expired())?;
    let addresses = addresses
        .map_err(|source| TransportError::Resolve { host: origin.host().to_owned(), source })?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.take(ADDRESSES) {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small requests should leave at once; a socket that refuses is good all the same.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(TransportError::Unreachable { origin: origin.clone(), source: last })
}

async fn send(
    sender: &mut SendRequest<Body>,
    origin: &Origin,
    ask: &Ask<'_>,
) -> Result<Response<Incoming>, TransportError> {
    let url = url(origin, ask.path);
    let broken = |source| TransportError::Broken { url: url.clone(), source };
    let mut request = Request::builder()
        .method(ask.method.clone())
        .uri(origin.path(ask.path))
        .header(header::HOST, origin.authority())
        .header(header::USER_AGENT, concat!("lockgate-agent/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(ask.body.clone()))
        .map_err(|_| TransportError::Request { path: ask.path.to_owned() })?;
    sender.ready().await.map_err(broken)?;
    sender.send_request(request).await.map_err(broken)
}

async fn read_body(mut body: Incoming, url: &str, max: u64) -> Result<Vec<u8>, TransportError> {
    let too_long = || TransportError::TooLong { url: url.to_owned(), max };
    if body.size_hint().lower() > max {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|source| TransportError::Broken { url: url.to_owned(), source })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() as u64 + data.len() as u64 > max {
            return Err(too_long());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// What a status other than success means.
async fn refusal(response: Response<Incoming>, url: String) -> TransportError {
    let (head, body) = response.into_parts();
    let status = head.status.as_u16();
    if head.status.is_redirection() {
        return TransportError::Redirect { url, status };
    }
    // Read in any case: only then can the connection serve the next request, and "no such file" is
    // the ordinary answer to the first one of each poll.
    let bytes = read_body(body, &url, PROBLEM_BYTES).await.unwrap_or_default();
    let problem = text_of(&head.headers, header::CONTENT_TYPE)
        .starts_with(PROBLEM)
        .then(|| json::read::<Problem>(&bytes).ok().map(Box::new))
        .flatten();
    match head.status {
        StatusCode::NOT_FOUND => TransportError::NotFound { url, problem },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let field = text_of(&head.headers, header::RETRY_AFTER);
            let retry_after = retry::retry_after(&field, clock::now());
            TransportError::Busy { url, status, retry_after, problem }
        }
        _ => TransportError::Status { url, status, problem },
    }
}
