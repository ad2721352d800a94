//! The way to a TPM: the kernel's device, or a Unix socket on which another program plays one. It
//! carries one command and its answer, within the limits of [`super::wire`]; it keeps nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::FileTypeExt as _, net::UnixStream},
    },
    path::Path,
    time::Duration,
};

use zeroize::Zeroizing;

use super::{TpmError, wire};

/// How long a program on a socket may think. The kernel has limits of its own for each command; this
/// is above all of them (five minutes are for making RSA keys, which is never asked for).
const THINK: Duration = Duration::from_secs(60);

/// An open way: the kernel's resource manager, whatever is loaded goes when it is closed; or a socket.
#[derive(Debug)]
pub(super) struct Line(File);

impl Line {
    /// Opens the device or the socket at `place`.
    pub(super) fn open(place: &Path) -> Result<Self, TpmError> {
        let open = || -> io::Result<File> {
            if fs::metadata(place)?.file_type().is_socket() {
                let socket = UnixStream::connect(place)?;
                socket.set_read_timeout(Some(THINK))?;
                socket.set_write_timeout(Some(THINK))?;
                return Ok(OwnedFd::from(socket).into());
            }
            OpenOptions::new().read(true).write(true).open(place)
        };
        open().map(Self).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                return TpmError::Absent(place.to_owned());
            }
            TpmError::Line { act: "open", place: place.to_owned(), source }
        })
    }

    /// Sends a command and waits for the whole answer.
    pub(super) fn ask(
        &mut self,
        place: &Path,
        command: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let failed = |act, source| TpmError::Line { act, place: place.to_owned(), source };
        self.0.write_all(command).map_err(|source| failed("write to", source))?;
        // Within its capacity from the start: an answer may hold a key.
        let mut answer = Zeroizing::new(vec![0; wire::MESSAGE_BYTES]);
        let mut filled = 0;
        loop {
            let room = answer.get_mut(filled..).unwrap_or_default();
            let count = match self.0.read(room) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            filled += count.map_err(|source| failed("read from", source))?;
            let begun = answer.get(..filled).unwrap_or_default();
            if wire::announced(begun)?.is_some_and(|whole| filled >= whole) {
                answer.truncate(filled);
                return Ok(answer);
            }
        }
    }
}
