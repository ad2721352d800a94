//! The letter box's end of the stream: a Unix socket where the gatekeeper pulls entries and reports.
//! Who may open the socket is the file system's to say; what comes through it restricts nothing and
//! opens nothing here, it is kept and shown.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lockgate_shared::wire::{CodecError, codec};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::{
    letters::{Followed, JournalError, LetterBox},
    shutdown::Shutdown,
    stream::{Entry, FRAME_BYTES, Request, Response},
};

/// Connections at once: the gatekeeper has one; a second while the first dies, and two to spare.
const CONNECTIONS: usize = 4;
/// Entries in one answer at most, whatever is asked for.
const ENTRIES: usize = 65_536;
/// Bytes of entries in one answer: large enough to catch up fast, and letters wait only some
/// milliseconds while they are read. The frame has room for heads and one oversized entry.
const ENTRY_BYTES: usize = 4 << 20;
/// The longest wait for the next entry.
const WAIT: Duration = Duration::from_secs(60);
/// The user and the group: the gatekeeper's user belongs to the socket's group.
const MODE: u32 = 0o660;

/// Why the socket does not work.
#[derive(Debug, Error)]
pub enum SocketError {
    /// It cannot be made.
    #[error(
        "cannot listen on `{path}`\nhint: its folder must exist, be writable, and hold nothing else by that name"
    )]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a connection ended early.
#[derive(Debug, Error)]
enum StreamError {
    #[error("the connection broke off")]
    Io(#[from] io::Error),
    #[error("a frame cannot be read or written")]
    Codec(#[from] CodecError),
    #[error("a frame of {0} bytes was announced")]
    Frame(u32),
}

/// Makes the socket. The store's lock is held by now, so a socket that lies there is a dead one's.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let bound = remove_dead(path).and_then(|()| UnixListener::bind(path)).and_then(|listener| {
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map(|()| listener)
    });
    bound.map_err(|source| SocketError::Bind { path: path.to_owned(), source })
}

fn remove_dead(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Serves the gatekeeper until the server is to stop.
pub async fn serve(listener: UnixListener, letter_box: Arc<LetterBox>, mut shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let stopping = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.wait() => return,
        };
        let Ok((stream, _)) = accepted else {
            tracing::warn!("a connection of the gatekeeper failed");
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("too many connections at the gatekeeper's socket");
            continue;
        };
        let (letter_box, mut stopping) = (Arc::clone(&letter_box), stopping.clone());
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = converse(stream, &letter_box) => ended,
                () = stopping.wait() => Ok(()),
            };
            if let Err(error) = ended {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the gatekeeper's connection ended");
            }
            drop(place);
        });
    }
}

async fn converse(mut stream: UnixStream, letter_box: &LetterBox) -> Result<(), StreamError> {
    tracing::info!("the gatekeeper is connected");
    while let Some(frame) = read_frame(&mut stream).await? {
        let request = codec::decode_frame(&frame, FRAME_BYTES)?;
        let response = answer(request, letter_box).await;
        let bytes = codec::encode(&response, FRAME_BYTES)?;
        let length = u32::try_from(bytes.len()).map_err(|_| StreamError::Frame(u32::MAX))?;
        stream.write_all(&length.to_le_bytes()).await?;
        stream.write_all(&bytes).await?;
    }
    Ok(())
}

/// The next frame; none when the other side has ended.
async fn read_frame(stream: &mut UnixStream) -> Result<Option<Vec<u8>>, StreamError> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = u32::from_le_bytes(length);
    if length as usize > FRAME_BYTES {
        return Err(StreamError::Frame(length));
    }
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await?;
    Ok(Some(frame))
}

async fn answer(request: Request, letter_box: &LetterBox) -> Response {
    let answered = match request {
        Request::Pull { from, last, max, wait_ms } => {
            let wait = Duration::from_millis(wait_ms.into()).min(WAIT);
            // It asks for what it does not have on disk yet.
            letter_box.acknowledge(from);
            match letter_box.follow(from, last).await {
                Ok(Followed::Agrees) => pull(letter_box, from, max as usize, wait).await,
                // It tells people, and asks again.
                Ok(Followed::Behind(head)) => Ok(Response::Batch { entries: Vec::new(), head }),
                Err(error) => Err(error),
            }
            .map_err(|error| error.to_string())
        }
        Request::Report { verdicts, status, audit } => letter_box
            .take_report(verdicts, *status, audit)
            .await
            .map(|()| Response::Reported)
            .map_err(|error| error.to_string()),
    };
    answered.unwrap_or_else(|message| {
        tracing::warn!(message, "a request of the gatekeeper was refused");
        Response::Refused(message)
    })
}

async fn pull(
    letter_box: &LetterBox,
    from: u64,
    max: usize,
    wait: Duration,
) -> Result<Response, JournalError> {
    let mut head = letter_box.head();
    // Whether it timed out or the writer ended, the answer is what there is.
    let _ = tokio::time::timeout(wait, head.wait_for(|head| *head > from)).await;
    let entries: Vec<Entry> = letter_box.read(from, max.clamp(1, ENTRIES), ENTRY_BYTES).await?;
    let newest = entries.last().map_or(0, |entry| entry.offset + 1);
    let head = newest.max(*head.borrow());
    Ok(Response::Batch { entries, head })
}
