//! Where entries come from: the letter box's Unix socket, or a list in a test. The other side is
//! trusted with nothing but delivery.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use lockgate_shared::{
    id::Digest,
    wire::{CodecError, codec},
};
use thiserror::Error;

use crate::{
    status::{Status, Verdict},
    stream::{Entry, FRAME_BYTES, Request, Response},
};

/// How long the letter box may take beyond what it was asked to wait: a report is synced to disk, and
/// a batch is read from it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far entries were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The first offset that was not.
    pub from: u64,
    /// The digest of the last that was.
    pub last: Option<Digest>,
}

/// Entries, and the offset that the next one will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The entries, without gaps.
    pub entries: Vec<Entry>,
    /// One beyond the newest offset; below what was counted, if the letter box has lost some of that.
    pub head: u64,
}

/// The letter box, as the gatekeeper sees it.
pub trait Source {
    /// Entries behind what was reached; waits for the first for at most `wait_ms`.
    fn pull(&mut self, reached: Reached, max: u32, wait_ms: u32) -> Result<Batch, SourceError>;

    /// Hands over what was decided; the letter box has it on disk when this returns.
    fn report(
        &mut self,
        verdicts: Vec<Verdict>,
        status: Status,
        audit: Vec<String>,
    ) -> Result<(), SourceError>;
}

/// Why the letter box could not be asked. The next call connects anew.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The socket failed.
    #[error(
        "the letter box's socket `{path}` failed\nhint: is `lockgate-server api` running, and may this user open the socket?"
    )]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A frame is too long or does not decode.
    #[error("the letter box sent something else than an answer")]
    Frame(#[from] CodecError),
    /// The letter box refused.
    #[error("the letter box refused: {0}")]
    Refused(String),
}

/// The letter box behind its socket.
#[derive(Debug)]
pub struct SocketSource {
    path: PathBuf,
    stream: Option<UnixStream>,
}

impl SocketSource {
    /// Connects at the first call.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), stream: None }
    }

    fn ask(&mut self, request: &Request, wait: Duration) -> Result<Response, SourceError> {
        let answer = self.exchange(request, wait);
        if answer.is_err() {
            self.stream = None;
        }
        match answer? {
            Response::Refused(why) => Err(SourceError::Refused(why)),
            response @ (Response::Batch { .. } | Response::Reported) => Ok(response),
        }
    }

    fn exchange(&mut self, request: &Request, wait: Duration) -> Result<Response, SourceError> {
        let path = self.path.clone();
        let fail = |source| SourceError::Socket { path: path.clone(), source };
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => UnixStream::connect(&self.path).map_err(fail)?,
        };
        stream.set_read_timeout(Some(wait + PATIENCE)).map_err(fail)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(fail)?;
        let body = codec::encode(request, FRAME_BYTES)?;
        // An encoded body is at most FRAME_BYTES long, which fits.
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        stream.write_all(&length).and_then(|()| stream.write_all(&body)).map_err(fail)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length).map_err(fail)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_BYTES {
            return Err(CodecError::TooLarge { found: length, max: FRAME_BYTES }.into());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).map_err(fail)?;
        let response = codec::decode_frame(&body, FRAME_BYTES)?;
        self.stream = Some(stream);
        Ok(response)
    }
}

impl Source for SocketSource {
    fn pull(&mut self, reached: Reached, max: u32, wait_ms: u32) -> Result<Batch, SourceError> {
        let Reached { from, last } = reached;
        let wait = Duration::from_millis(u64::from(wait_ms));
        match self.ask(&Request::Pull { from, last, max, wait_ms }, wait)? {
            Response::Batch { entries, head } => Ok(Batch { entries, head }),
            Response::Reported | Response::Refused(_) => Err(unexpected()),
        }
    }

    fn report(
        &mut self,
        verdicts: Vec<Verdict>,
        status: Status,
        audit: Vec<String>,
    ) -> Result<(), SourceError> {
        let request = Request::Report { verdicts, status: Box::new(status), audit };
        match self.ask(&request, Duration::ZERO)? {
            Response::Reported => Ok(()),
            Response::Batch { .. } | Response::Refused(_) => Err(unexpected()),
        }
    }
}

fn unexpected() -> SourceError {
    SourceError::Refused("it answered another question".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use lockgate_shared::time::Moment;

    use super::*;
    use crate::stream::EntryKind;

    fn reached(from: u64) -> Reached {
        Reached { from, last: None }
    }

    /// Answers each request of one connection as `answer` says, in frames.
    fn serve(listener: &UnixListener, answers: &[Response]) -> Vec<Request> {
        let (mut stream, _) = listener.accept().expect("a gatekeeper");
        let mut asked = Vec::new();
        for answer in answers {
            let mut length = [0; 4];
            stream.read_exact(&mut length).expect("a length");
            let mut body = vec![0; u32::from_le_bytes(length) as usize];
            stream.read_exact(&mut body).expect("a body");
            asked.push(codec::decode_frame(&body, FRAME_BYTES).expect("a request"));
            let body = codec::encode(answer, FRAME_BYTES).expect("an answer");
            let length = u32::try_from(body.len()).expect("short").to_le_bytes();
            stream.write_all(&length).and_then(|()| stream.write_all(&body)).expect("sent");
        }
        asked
    }

    #[test]
    fn entries_come_over_the_socket_and_a_broken_connection_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let mut source = SocketSource::new(&path);
        assert!(matches!(source.pull(reached(0), 1, 0), Err(SourceError::Socket { .. })));
        let listener = UnixListener::bind(&path).expect("a socket");
        let entry =
            Entry { offset: 7, received: Moment(1), kind: EntryKind::Act, bytes: vec![1, 2] };
        let batch = Response::Batch { entries: vec![entry.clone()], head: 8 };
        let answers = [batch.clone(), Response::Refused("not now".into())];
        let server = std::thread::spawn(move || {
            let first = serve(&listener, &answers);
            let second = serve(&listener, &[batch]);
            (first, second)
        });
        let expected = Batch { entries: vec![entry], head: 8 };
        assert_eq!(source.pull(reached(7), 10, 0).expect("a batch"), expected);
        let refused = source.pull(reached(8), 10, 0);
        assert!(matches!(refused, Err(SourceError::Refused(why)) if why == "not now"));
        let closed = source.pull(reached(7), 10, 0);
        assert!(matches!(closed, Err(SourceError::Socket { .. })), "{closed:?}");
        assert_eq!(source.pull(reached(7), 10, 0).expect("a batch"), expected);
        let (first, second) = server.join().expect("the letter box");
        assert_eq!(first[0], Request::Pull { from: 7, last: None, max: 10, wait_ms: 0 });
        assert_eq!((first.len(), second.len()), (2, 1));
    }
}
