//! A payload over a bad line: read as it streams, resumed by `Range` where the connection broke, from
//! the mirrors and the server in turn.
//!
//! It hands on at most the signed length and ends early with an error, never in silence. It does not
//! check the digest: whoever reads from it hashes what passes.

use std::{
    io::{self, Read},
    time::Duration,
};

use http_body_util::BodyExt as _;
use hyper::{
    Response, StatusCode,
    body::{Buf as _, Bytes, Incoming},
    header,
};
use tokio::time::timeout;

use super::{
    Origin, Remedy, Transport, TransportError, drive,
    https::{Ask, text_of, url},
    retry,
};
use crate::{
    clock::{self, Stopwatch},
    log,
};

/// A payload on its way.
#[derive(Debug)]
pub struct Download<'a> {
    transport: &'a mut Transport,
    path: String,
    size: u64,
    /// How many bytes were handed on or lie in `chunk`.
    taken: u64,
    chunk: Bytes,
    body: Option<Flow>,
    /// The sources, in the order in which they are asked, each with its own name for the bytes, to
    /// notice that they changed.
    sources: Vec<(usize, Option<String>)>,
    /// The place in that order of the one that is asked next.
    turn: usize,
    /// Attempts since the last byte.
    failures: u32,
}

/// A body that is being read.
#[derive(Debug)]
struct Flow {
    body: Incoming,
    /// Bytes still to be thrown away, where the source does not resume.
    skip: u64,
    waited: Duration,
    came: u64,
}

impl<'a> Download<'a> {
    pub(super) fn new(transport: &'a mut Transport, path: String, size: u64) -> Self {
        let order = transport.order.begin(&path, clock::uptime());
        let sources = order.into_iter().map(|source| (source, None)).collect();
        Self {
            transport,
            path,
            size,
            taken: 0,
            chunk: Bytes::new(),
            body: None,
            sources,
            turn: 0,
            failures: 0,
        }
    }

    /// Brings the next bytes into `chunk`, through as many attempts as are allowed.
    fn advance(&mut self) -> Result<(), TransportError> {
        loop {
            let Err(error) = self.attempt() else {
                self.failures = 0;
                return Ok(());
            };
            self.body = None;
            self.transport.links.close();
            if error.remedy() == Remedy::Stop {
                return Err(error);
            }
            self.failures += 1;
            let sources = self.sources.len();
            if let Some((source, _)) = self.sources.get(self.turn) {
                self.transport.order.failed(*source, &error, clock::uptime());
            }
            // A source that has something else than was signed is passed over like one that is down.
            self.turn = (self.turn + 1) % sources.max(1);
            let lasting = matches!(error.remedy(), Remedy::Mend | Remedy::Accept);
            let tried_all = self.failures as usize >= sources;
            if self.failures >= self.transport.links.limits.attempts || (lasting && tried_all) {
                return Err(error);
            }
            log::debug(format_args!("resuming at byte {}: {error}", self.taken));
            if tried_all {
                self.pause()?;
            }
        }
    }

    fn pause(&mut self) -> Result<(), TransportError> {
        let span = retry::pause(self.transport.links.limits.pause, self.failures);
        let Transport { signals, runtime, .. } = &mut *self.transport;
        let sleep = async {
            tokio::time::sleep(span).await;
            Ok(())
        };
        drive(runtime, signals, sleep)
    }

    fn attempt(&mut self) -> Result<(), TransportError> {
        let source = self.sources.get(self.turn).map(|(source, _)| *source);
        let origin = source.and_then(|source| self.transport.order.origin(source));
        let Some((source, origin)) = source.zip(origin) else {
            return Err(TransportError::Request { path: self.path.clone() });
        };
        let mut flow = match self.body.take() {
            Some(flow) => flow,
            None => self.ask(&origin)?,
        };
        loop {
            let mut data = self.frame(&mut flow, &origin)?;
            let skipped = flow.skip.min(data.len() as u64);
            // At most the chunk's own length, so it fits.
            data.advance(usize::try_from(skipped).unwrap_or_default());
            flow.skip -= skipped;
            if data.is_empty() {
                continue;
            }
            if self.taken + data.len() as u64 > self.size {
                return Err(TransportError::TooLong {
                    url: url(&origin, &self.path),
                    max: self.size,
                });
            }
            self.taken += data.len() as u64;
            self.transport.order.gave_part(source);
            self.chunk = data;
            self.body = Some(flow);
            return Ok(());
        }
    }

    /// The next bytes that the source sends, at no less than the least rate.
    fn frame(&mut self, flow: &mut Flow, origin: &Origin) -> Result<Bytes, TransportError> {
        let limits = self.transport.links.limits;
        let url = url(origin, &self.path);
        if flow.waited >= limits.rate_window {
            if flow.came < limits.rate_least {
                let (least, window) = (limits.rate_least, limits.rate_window);
                return Err(TransportError::TooSlow { url, least, window });
            }
            (flow.waited, flow.came) = (Duration::ZERO, 0);
        }
        let left = limits.rate_window.saturating_sub(flow.waited);
        // Only the time spent waiting for the line counts: a slow disk is not the source's fault.
        let watch = Stopwatch::start();
        let work = async {
            match timeout(left, flow.body.frame()).await {
                Err(_) => Ok(Bytes::new()),
                Ok(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
                Ok(Some(Err(source))) => Err(TransportError::Broken { url: url.clone(), source }),
                Ok(None) => Err(TransportError::Length {
                    url: url.clone(),
                    found: self.taken,
                    signed: self.size,
                }),
            }
        };
        let Transport { signals, runtime, .. } = &mut *self.transport;
        let data = drive(runtime, signals, work)?;
        flow.waited += watch.elapsed();
        flow.came += data.len() as u64;
        Ok(data)
    }

    /// Asks a source for what is still missing.
    fn ask(&mut self, origin: &Origin) -> Result<Flow, TransportError> {
        let mut ask = Ask::get(&self.path);
        let tag = self.sources.get(self.turn).and_then(|(_, tag)| tag.clone());
        if self.taken > 0 {
            ask.headers.push((header::RANGE, format!("bytes={}-", self.taken)));
            if let Some(tag) = &tag {
                ask.headers.push((header::IF_RANGE, tag.clone()));
            }
        }
        let Transport { links, signals, runtime, .. } = &mut *self.transport;
        let after = links.limits.answer;
        let url = url(origin, &self.path);
        let work = async {
            let answer = timeout(after, links.ask(origin, &ask)).await;
            answer.unwrap_or(Err(TransportError::Timeout { url: url.clone(), after }))
        };
        let response = drive(runtime, signals, work)?;
        let skip = self.check_head(&response, &url, tag.as_deref())?;
        let new = text_of(response.headers(), header::ETAG);
        if let Some((_, slot)) = self.sources.get_mut(self.turn) {
            // A weak tag promises the same meaning, not the same bytes.
            *slot = (!new.is_empty() && !new.starts_with("W/")).then_some(new);
        }
        Ok(Flow { body: response.into_body(), skip, waited: Duration::ZERO, came: 0 })
    }

    /// Whether an answer goes on where the last one broke; how many of its bytes are had already.
    fn check_head(
        &self,
        response: &Response<Incoming>,
        url: &str,
        tag: Option<&str>,
    ) -> Result<u64, TransportError> {
        let refuse =
            |reason| Err(TransportError::Resume { url: url.to_owned(), at: self.taken, reason });
        let text = |name| text_of(response.headers(), name);
        let length: Option<u64> = text(header::CONTENT_LENGTH).parse().ok();
        let due = if response.status() == StatusCode::PARTIAL_CONTENT {
            if self.taken == 0 {
                return refuse("it sent a part, and the whole was asked for");
            }
            let right = format!("bytes {}-{}/{}", self.taken, self.size - 1, self.size);
            if text(header::CONTENT_RANGE) != right {
                return refuse("it sent another part");
            }
            self.size - self.taken
        } else {
            let new = text(header::ETAG);
            if tag.is_some_and(|old| old != new) {
                return refuse("the file has changed");
            }
            self.size
        };
        match length {
            Some(found) if found != due => {
                Err(TransportError::Length { url: url.to_owned(), found, signed: due })
            }
            Some(_) | None => Ok(due - (self.size - self.taken)),
        }
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.chunk.is_empty() {
            if self.taken == self.size {
                return Ok(0);
            }
            self.advance().map_err(io::Error::other)?;
        }
        let count = self.chunk.len().min(buffer.len());
        let (Some(target), Some(source)) = (buffer.get_mut(..count), self.chunk.get(..count))
        else {
            return Ok(0);
        };
        target.copy_from_slice(source);
        self.chunk.advance(count);
        Ok(count)
    }
}
