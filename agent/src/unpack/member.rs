//! The tar stream, one member after the other: header, checks of form, content, padding. The `tar`
//! crate decodes a header's fields; the walk is ours, so that memory and length stay bounded
//! whatever the stream says.
//!
//! It decides what a well-formed member is and refuses extended headers, sparse files, hard links
//! and everything else that a release never needs. What a member may be *called* or *hold* is the
//! signed list's business.

use std::io::{self, Read};

use tar::Header;
use thiserror::Error;

use super::{
    UnpackError,
    listing::{MAX_PATH, NameFault, check_name, shown},
    zstd_failed,
};

/// tar's unit.
const BLOCK: usize = 512;

/// The zero bytes that may follow the last member: GNU tar pads to 10 KiB; four times that leaves
/// room for other blocking factors and none for a bomb of zeros.
const MAX_PADDING: usize = 40 * 1024;

/// One member's header.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) path: String,
    pub(super) kind: MemberKind,
    pub(super) size: u64,
    pub(super) mode: u32,
}

/// The kinds that a release may hold.
#[derive(Debug)]
pub(super) enum MemberKind {
    File,
    Directory,
    Symlink { target: String },
}

impl MemberKind {
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink { .. } => "symbolic link",
        }
    }
}

/// The members of a tar stream.
pub(super) struct Members<R> {
    stream: R,
}

impl<R: Read> Members<R> {
    pub(super) const fn new(stream: R) -> Self {
        Self { stream }
    }

    pub(super) fn into_inner(self) -> R {
        self.stream
    }

    /// The next member's header, or `None` after a proper end. The content of the one before must
    /// have been read and its padding skipped.
    pub(super) fn next_member(&mut self) -> Result<Option<Member>, UnpackError> {
        let mut name = None;
        let mut target = None;
        loop {
            let Some(header) = self.header()? else {
                if name.is_some() || target.is_some() {
                    return Err(Framing::LoneLongName.into());
                }
                self.end()?;
                return Ok(None);
            };
            let slot = match header.entry_type().as_byte() {
                b'L' => &mut name,
                b'K' => &mut target,
                _ => return member(&header, name, target).map(Some),
            };
            if slot.is_some() {
                return Err(Framing::RepeatedLongName.into());
            }
            *slot = Some(self.long_name(&header)?);
        }
    }

    /// The next piece of content, at most `left` bytes and never empty.
    pub(super) fn content<'b>(
        &mut self,
        buffer: &'b mut [u8],
        left: u64,
    ) -> Result<&'b [u8], UnpackError> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let space = buffer.get_mut(..most).unwrap_or_default();
        let count = read_some(&mut self.stream, space)?;
        if count == 0 {
            return Err(Framing::EndsWithin.into());
        }
        Ok(buffer.get(..count).unwrap_or_default())
    }

    /// Passes over the zero bytes between a content of `size` bytes and the next header.
    pub(super) fn skip_padding(&mut self, size: u64) -> Result<(), UnpackError> {
        let beyond = (size % BLOCK as u64) as usize;
        if beyond == 0 {
            return Ok(());
        }
        let mut block = [0; BLOCK];
        let space = block.get_mut(beyond..).unwrap_or_default();
        if read_full(&mut self.stream, space)? < space.len() {
            return Err(Framing::EndsWithin.into());
        }
        if space.iter().any(|byte| *byte != 0) {
            return Err(Framing::Padding.into());
        }
        Ok(())
    }

    /// The next header whose checksum holds, or `None` at the block of zeros that ends a stream.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut header = Header::new_old();
        let count = read_full(&mut self.stream, header.as_mut_bytes())?;
        if count < BLOCK {
            return Err(if count == 0 { Framing::NoEnd } else { Framing::EndsWithin }.into());
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = (header.as_bytes().iter().enumerate())
            .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        match header.cksum() {
            Ok(stored) if stored == sum => Ok(Some(header)),
            Ok(_) | Err(_) => Err(Framing::Checksum.into()),
        }
    }

    /// After the first block of zeros only zeros may come, at least one block and not endlessly.
    fn end(&mut self) -> Result<(), UnpackError> {
        let mut zeros = 0;
        let mut block = [0; BLOCK];
        loop {
            let count = read_full(&mut self.stream, &mut block)?;
            zeros += count;
            if block.get(..count).unwrap_or_default().iter().any(|byte| *byte != 0) {
                return Err(Framing::AfterEnd.into());
            }
            if zeros > MAX_PADDING {
                return Err(Framing::EndlessEnd.into());
            }
            if count < BLOCK {
                let whole = zeros >= BLOCK && count == 0;
                return if whole { Ok(()) } else { Err(Framing::NoEnd.into()) };
            }
        }
    }

    /// The content of a GNU long name or long target, which precedes the member it belongs to.
    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, UnpackError> {
        let size = header.entry_size().map_err(|_| Framing::Field("size"))?;
        // The stored text ends with a zero byte.
        if size == 0 || size > MAX_PATH as u64 + 1 {
            return Err(UnpackError::Name { name: String::new(), fault: NameFault::TooLong });
        }
        let mut text = vec![0; size as usize];
        if read_full(&mut self.stream, &mut text)? < text.len() {
            return Err(Framing::EndsWithin.into());
        }
        self.skip_padding(size)?;
        if text.pop() != Some(0) {
            return Err(Framing::Field("long name").into());
        }
        Ok(text)
    }
}

fn member(
    header: &Header,
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
) -> Result<Member, UnpackError> {
    let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
    let mut path = text(name)?;
    let kind = match header.entry_type().as_byte() {
        b'0' | b'\0' => MemberKind::File,
        b'5' => {
            // tar marks directories by a slash at the end; the signed list does not.
            if path.len() > 1 && path.ends_with('/') {
                path.pop();
            }
            MemberKind::Directory
        }
        b'2' => {
            let target = target.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
            MemberKind::Symlink { target: text(target.unwrap_or_default())? }
        }
        other => {
            return Err(UnpackError::ForbiddenKind { path: shown(&path), found: kind_word(other) });
        }
    };
    check_name(&path).map_err(|fault| UnpackError::Name { name: shown(&path), fault })?;
    let size = header.entry_size().map_err(|_| Framing::Field("size"))?;
    if size != 0 && !matches!(kind, MemberKind::File) {
        return Err(Framing::Field("size").into());
    }
    let mode = header.mode().map_err(|_| Framing::Field("mode"))?;
    Ok(Member { path, kind, size, mode })
}

fn text(bytes: Vec<u8>) -> Result<String, UnpackError> {
    String::from_utf8(bytes).map_err(|error| UnpackError::Name {
        name: shown(&String::from_utf8_lossy(error.as_bytes())),
        fault: NameFault::NotUtf8,
    })
}

const fn kind_word(type_byte: u8) -> &'static str {
    match type_byte {
        b'1' => "hard link",
        b'3' => "character device",
        b'4' => "block device",
        b'6' => "fifo",
        b'S' => "sparse file",
        b'x' | b'g' | b'X' => "extended header",
        _ => "member of unknown kind",
    }
}

fn read_some(stream: &mut impl Read, space: &mut [u8]) -> Result<usize, UnpackError> {
    loop {
        match stream.read(space) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(zstd_failed(error)),
        }
    }
}

/// Reads until `space` is full or the stream ends.
fn read_full(stream: &mut impl Read, space: &mut [u8]) -> Result<usize, UnpackError> {
    let mut count = 0;
    while let Some(rest) = space.get_mut(count..)
        && !rest.is_empty()
    {
        match read_some(stream, rest)? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}

/// What is wrong with the form of a tar stream.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Framing {
    /// A header whose checksum does not hold.
    #[error("a header's checksum does not hold")]
    Checksum,
    /// A field that is not a number, or does not fit the kind.
    #[error("a header's {0} is malformed")]
    Field(&'static str),
    /// The stream stops inside a member.
    #[error("it ends within a member")]
    EndsWithin,
    /// The stream stops without its end mark.
    #[error("it has no end mark")]
    NoEnd,
    /// Something hides in the padding.
    #[error("the padding after a member is not zero")]
    Padding,
    /// Something hides behind the end mark.
    #[error("something follows its end mark")]
    AfterEnd,
    /// Zeros without end.
    #[error("its end mark goes on beyond {MAX_PADDING} bytes")]
    EndlessEnd,
    /// A long name and no member.
    #[error("a long name belongs to no member")]
    LoneLongName,
    /// Two long names for one member.
    #[error("a member has two long names")]
    RepeatedLongName,
}
