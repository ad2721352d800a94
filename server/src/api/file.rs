//! One file as an answer: validators, a single range, bytes from the disk in pieces. Memory is one
//! piece per answer, whatever the file's size, and no thread waits for a slow reader.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::problem::Trouble;

/// Bytes read at once: few system calls, and a thousand downloads fit into 128 MiB.
const PIECE: usize = 128 * 1024;

/// A file to serve.
#[derive(Clone, Debug)]
pub struct Served {
    /// Where it lies.
    pub path: PathBuf,
    /// Its strong validator without quotes; none makes one of size, time and inode.
    pub etag: Option<String>,
    /// Its type.
    pub content_type: &'static str,
    /// How long it may be kept.
    pub cache_control: &'static str,
}

/// Answers a GET with a file.
pub async fn answer(served: Served, request: &HeaderMap) -> Result<Response, Trouble> {
    let Served { path, etag, content_type, cache_control } = served;
    let opened = tokio::task::spawn_blocking(move || open(path)).await;
    let (file, facts) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Trouble::not_found("no such file is published"));
        }
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a file cannot be served");
            return Err(Trouble::unavailable("the file cannot be read now", 60));
        }
        Err(_) => return Err(Trouble::unavailable("the server is stopping", 60)),
    };
    let etag = format!("\"{}\"", etag.unwrap_or(facts.tag));
    let length = facts.length;
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(value) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, value);
    }
    if names(request, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let (status, part) = match range(request, &etag, length) {
        Wanted::Whole => (StatusCode::OK, Part { from: 0, length }),
        Wanted::Part(part) => {
            let last = part.from + part.length - 1;
            content_range(&mut headers, &format!("bytes {}-{last}/{length}", part.from));
            (StatusCode::PARTIAL_CONTENT, part)
        }
        Wanted::Outside => {
            let mut response = Trouble::range(length).into_response();
            content_range(response.headers_mut(), &format!("bytes */{length}"));
            return Ok(response);
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(part.length));
    Ok((status, headers, Body::new(FileBody::new(file, part))).into_response())
}

struct FileFacts {
    length: u64,
    tag: String,
}

fn open(path: PathBuf) -> io::Result<(File, FileFacts)> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let tag =
        format!("{:x}-{:x}.{:x}-{:x}", facts.len(), facts.mtime(), facts.mtime_nsec(), facts.ino());
    Ok((file, FileFacts { length: facts.len(), tag }))
}

fn content_range(headers: &mut HeaderMap, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(header::CONTENT_RANGE, value);
    }
}

/// Whether `If-None-Match` names this validator.
fn names(request: &HeaderMap, etag: &str) -> bool {
    request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(
        |value| {
            value
                .split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
        },
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    from: u64,
    length: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Part),
    Outside,
}

/// What `Range` asks for. Several ranges, other units and what cannot be read are answered whole, as
/// RFC 9110 allows.
fn range(request: &HeaderMap, etag: &str, length: u64) -> Wanted {
    let text = |name| request.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(asked) = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    if request.contains_key(header::IF_RANGE) && text(header::IF_RANGE) != Some(etag) {
        return Wanted::Whole;
    }
    let Some((from, to)) = asked.trim().split_once('-') else { return Wanted::Whole };
    let (from, last) = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) if from <= to => (from, to.min(length.saturating_sub(1))),
        (Ok(from), Err(_)) if to.is_empty() => (from, length.saturating_sub(1)),
        (Err(_), Ok(count)) if from.is_empty() => {
            if count == 0 {
                return Wanted::Outside;
            }
            (length.saturating_sub(count), length.saturating_sub(1))
        }
        (Ok(_) | Err(_), Ok(_) | Err(_)) => return Wanted::Whole,
    };
    if from >= length {
        return Wanted::Outside;
    }
    Wanted::Part(Part { from, length: last - from + 1 })
}

/// A part of a file, read piece by piece.
struct FileBody {
    next: Option<JoinHandle<(File, io::Result<Bytes>)>>,
    left: u64,
}

impl FileBody {
    fn new(file: File, part: Part) -> Self {
        let next = (part.length > 0).then(|| read(file, Some(part.from), part.length));
        Self { next, left: part.length }
    }
}

fn read(mut file: File, from: Option<u64>, left: u64) -> JoinHandle<(File, io::Result<Bytes>)> {
    tokio::task::spawn_blocking(move || {
        let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; size];
        let outcome = from
            .map_or(Ok(0), |from| file.seek(SeekFrom::Start(from)))
            .and_then(|_| file.read_exact(&mut piece));
        (file, outcome.map(|()| Bytes::from(piece)))
    })
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let read_piece = ready!(Pin::new(next).poll(context));
        self.next = None;
        let (file, piece) = match read_piece {
            Ok(done) => done,
            Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
        };
        Poll::Ready(Some(piece.map(|piece| {
            self.left = self.left.saturating_sub(piece.len() as u64);
            if self.left > 0 {
                self.next = Some(read(file, None, self.left));
            }
            Frame::data(piece)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range_text: &str, if_range: Option<&str>) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range_text.parse().expect("a header"));
        if let Some(tag) = if_range {
            headers.insert(header::IF_RANGE, tag.parse().expect("a header"));
        }
        range(&headers, "\"tag\"", 100)
    }

    #[test]
    fn a_range_is_served_as_asked_and_never_beyond_the_file() {
        let part = |from, length| Wanted::Part(Part { from, length });
        assert_eq!(asked("bytes=0-9", None), part(0, 10));
        assert_eq!(asked("bytes=90-", None), part(90, 10));
        assert_eq!(asked("bytes=90-1000", None), part(90, 10));
        assert_eq!(asked("bytes=-7", None), part(93, 7));
        assert_eq!(asked("bytes=-700", None), part(0, 100));
        assert_eq!(asked("bytes=100-", None), Wanted::Outside);
        assert_eq!(asked("bytes=-0", None), Wanted::Outside);
    }

    #[test]
    fn what_is_no_single_range_is_answered_whole() {
        for odd in ["bytes=5-2", "bytes=1-2,4-5", "bytes=-", "lines=1-2", "bytes=x-", "bytes=1"] {
            assert_eq!(asked(odd, None), Wanted::Whole, "{odd}");
        }
    }

    #[test]
    fn a_range_of_another_version_of_the_file_is_answered_whole() {
        assert_eq!(asked("bytes=0-9", Some("\"other\"")), Wanted::Whole);
        assert_ne!(asked("bytes=0-9", Some("\"tag\"")), Wanted::Whole);
    }
}
