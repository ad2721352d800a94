//! How bytes come and go: TLS 1.3 to the server and its mirrors, every answer bounded while it streams,
//! every wait with an end.
//!
//! | to find out | open |
//! |---|---|
//! | where a server is | `origin` |
//! | which source is asked first, and which last | `order` |
//! | how a connection is secured | `tls`, with `curve` |
//! | what one request does | `https` |
//! | how a payload is fetched over a bad line | `download` |
//! | how the TUF workflow reads from it | `repository` |
//! | when to try again | [`retry`] |
//! | what wakes the agent | `wake` |
//!
//! The facade is synchronous: each call drives a runtime on the caller's own thread until it has an
//! answer. One connection to each origin is kept within a turn and closed at its end. What arrives is
//! believed by nobody here: signatures are checked further in. It follows no redirect, offers no older
//! TLS, and knows no authority that the owner's `ca` file does not name.

mod curve;
mod download;
mod error;
mod https;
mod order;
mod origin;
mod repository;
pub mod retry;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod wake;

use std::{path::PathBuf, time::Duration};

use hyper::{Method, body::Bytes, header};
use tokio::runtime::{Builder, Runtime};

pub use download::Download;
pub use error::{Remedy, TransportError};
pub use https::Answer;
pub use order::{BEHIND_FAILED, BEHIND_REFUSED, Behind, Cause, REFUSALS, REFUSED_BYTES, SLOW};
pub use origin::{MAX_ORIGIN, Origin, OriginError};
pub use repository::Repository;
pub use tls::{AUTHORITIES, CA_BYTES};
pub use wake::Woken;

use crate::{
    clock::{self, Stopwatch},
    core::tuf::Another,
};
use https::{Ask, Links};
use order::Order;
use wake::Signals;

/// Connecting, and then agreeing on TLS, may each take this long: three losses of a packet.
pub const CONNECT: Duration = Duration::from_secs(10);
/// A small file or a letter, from connecting to the last byte: 4 MiB on a slow mobile line.
pub const ANSWER: Duration = Duration::from_secs(120);
/// A download must bring at least this many bytes in each [`RATE_WINDOW`]: 1 KiB a second. What is
/// slower than the slowest satellite line is held open by somebody.
pub const RATE_LEAST: u64 = 60 * 1024;
/// The span over which a download's rate is measured.
pub const RATE_WINDOW: Duration = Duration::from_secs(60);
/// A download is resumed this often without one more byte before it is given up until the next turn.
pub const ATTEMPTS: u32 = 6;

/// The bounds of a transport; the defaults are the constants above.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// [`CONNECT`].
    pub connect: Duration,
    /// [`ANSWER`].
    pub answer: Duration,
    /// [`RATE_LEAST`].
    pub rate_least: u64,
    /// [`RATE_WINDOW`].
    pub rate_window: Duration,
    /// [`ATTEMPTS`].
    pub attempts: u32,
    /// [`retry::PAUSE_FIRST`].
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: CONNECT,
            answer: ANSWER,
            rate_least: RATE_LEAST,
            rate_window: RATE_WINDOW,
            attempts: ATTEMPTS,
            pause: retry::PAUSE_FIRST,
        }
    }
}

/// Where bytes come from and go to.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Where letters go, and the repository if no mirror has it.
    pub server: Origin,
    /// Where the repository is read from first, in this order.
    pub mirrors: Vec<Origin>,
    /// The authorities that may vouch for all of them, in PEM.
    pub ca: PathBuf,
}

/// The agent's way to the network.
#[derive(Debug)]
pub struct Transport {
    links: Links,
    server: Origin,
    /// The mirrors and the server, as the repository is read from them.
    order: Order,
    signals: Option<Signals>,
    // Last, so that the connections' tasks end after everything that speaks to them.
    runtime: Runtime,
}

impl Transport {
    /// Reads the authorities and makes ready; connects to nobody.
    pub fn open(sources: Sources) -> Result<Self, TransportError> {
        Self::with_limits(sources, Limits::default())
    }

    /// The same with other limits than the defaults.
    pub fn with_limits(sources: Sources, limits: Limits) -> Result<Self, TransportError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            // Only name lookups are done beside the agent's thread, one at a time. Theirs is gone before
            // the agent pauses: nothing wakes up in a pause, and memory is given back.
            .max_blocking_threads(1)
            .thread_keep_alive(Duration::ZERO)
            .build()
            .map_err(TransportError::Runtime)?;
        Ok(Self {
            links: Links::new(sources.ca, limits)?,
            order: Order::new(sources.mirrors, sources.server.clone()),
            server: sources.server,
            signals: None,
            runtime,
        })
    }

    /// Reads a small file of the repository, at most `max` bytes, within `deadline` for each source.
    /// The mirrors are asked in order, then the server, then those that did badly of late; only the
    /// server's "no such file" counts, because a mirror may be behind. After [`Self::refused`] the
    /// same file is asked of the sources that are left.
    pub fn get(
        &mut self,
        path: &str,
        max: u64,
        deadline: Duration,
    ) -> Result<Vec<u8>, TransportError> {
        let ask = Ask::get(checked(path)?);
        let Self { links, order, signals, runtime, .. } = self;
        let work = async {
            let mut last = TransportError::Request { path: path.to_owned() };
            for source in order.begin(path, clock::uptime()) {
                let Some(origin) = order.origin(source) else { continue };
                let watch = Stopwatch::start();
                let answer = links.fetch(&origin, &ask, max, deadline).await;
                let (took, now) = (watch.elapsed(), clock::uptime());
                match answer {
                    Ok(answer) => {
                        order.gave(source, &answer.body, took, now);
                        return Ok(answer.body);
                    }
                    Err(error) => {
                        order.failed(source, &error, now);
                        match (order.is_server(source), error) {
                            (true, gone @ TransportError::NotFound { .. }) => return Err(gone),
                            (true, error) => last = error,
                            (false, error) => last = error.of_a_mirror(),
                        }
                    }
                }
            }
            Err(last)
        };
        drive(runtime, signals, work)
    }

    /// Hears that what came last is not what was signed, and why; says whether another source is left
    /// to ask for the same. Whoever gave it is asked last for a while.
    pub fn refused(&mut self, why: &str) -> Another {
        self.order.refused(why)
    }

    /// The sources that are asked after the others now, and why.
    pub fn behind(&mut self) -> Vec<Behind> {
        self.order.behind(clock::uptime())
    }

    /// Asks the server itself for a small answer, with its head.
    pub fn ask(&mut self, path: &str, max: u64) -> Result<Answer, TransportError> {
        let ask = Ask::get(checked(path)?);
        let Self { links, server, signals, runtime, .. } = self;
        let deadline = links.limits.answer;
        drive(runtime, signals, links.fetch(server, &ask, max, deadline))
    }

    /// Sends a message to the server and reads its answer, at most `max` bytes. An answer other than
    /// success is an error, with the server's problem and its `Retry-After` in it.
    pub fn post(
        &mut self,
        path: &str,
        content_type: &str,
        body: &[u8],
        max: u64,
    ) -> Result<Answer, TransportError> {
        let ask = Ask {
            method: Method::POST,
            path: checked(path)?,
            headers: vec![(header::CONTENT_TYPE, content_type.to_owned())],
            body: Bytes::copy_from_slice(body),
        };
        let Self { links, server, signals, runtime, .. } = self;
        let deadline = links.limits.answer;
        drive(runtime, signals, links.fetch(server, &ask, max, deadline))
    }

    /// Reads a payload of the signed length `size`, resumed where the line breaks. Nothing is asked
    /// for before the first read.
    pub fn download(&mut self, path: &str, size: u64) -> Result<Download<'_>, TransportError> {
        checked(path)?;
        Ok(Download::new(self, path.to_owned(), size))
    }

    /// Closes the turn's connections. Their TLS sessions are resumed in the next turn.
    pub fn end_turn(&mut self) {
        self.order.end_turn(clock::uptime());
        self.links.close();
        // Lets the connections' tasks see that they are not needed, and say goodbye.
        self.runtime.block_on(tokio::task::yield_now());
    }

    /// From now on SIGTERM and SIGINT end a request or a wait in good order, and SIGUSR1 pokes.
    /// Before this call they do what they do by default.
    pub fn heed_signals(&mut self) -> Result<(), TransportError> {
        if self.signals.is_none() {
            let _inside = self.runtime.enter();
            self.signals = Some(Signals::heed()?);
        }
        Ok(())
    }

    /// Sleeps until the span is over, the agent is told to end, or somebody pokes it. A signal that
    /// came while the agent was busy ends the wait at once.
    pub fn wait(&mut self, span: Duration) -> Result<Woken, TransportError> {
        self.heed_signals()?;
        let Self { signals, runtime, .. } = self;
        let Some(signals) = signals else { return Ok(Woken::Time) };
        Ok(runtime.block_on(signals.wait(span)))
    }
}

/// Drives a request to its end, or until the agent is told to end.
fn drive<T>(
    runtime: &Runtime,
    signals: &mut Option<Signals>,
    work: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    match signals {
        Some(signals) => runtime.block_on(signals.unless_ended(work)),
        None => runtime.block_on(work),
    }
}

/// A path that can stand in a request line as it is.
fn checked(path: &str) -> Result<&str, TransportError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\' | b'"');
    let good = path.starts_with('/') && path.bytes().all(plain) && !path.contains("/../");
    if good {
        Ok(path)
    } else {
        Err(TransportError::Request { path: path.chars().take(200).collect() })
    }
}
