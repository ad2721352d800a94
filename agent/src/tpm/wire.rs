//! The TPM's language: the commands that the agent gives, as bytes, and what comes back, read within
//! named limits. No IO; whatever answers may be broken or hostile, and gets an error at most.
//!
//! Numbers are named as in "Trusted Platform Module Library", parts 2 (structures) and 3 (commands),
//! where each layout stands in a table of its command's name.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

/// The longest command or answer: what kernels take and TPMs give (`TPM2_MAX_COMMAND_SIZE`).
pub const MESSAGE_BYTES: usize = 4096;
/// The longest half of a sealed object: some three times what SHA-256 and 128 bytes of secret need.
pub const BLOB_BYTES: usize = 1024;
/// The longest secret that a TPM seals (`MAX_SYM_DATA`).
pub const SECRET_BYTES: usize = 128;
/// Every message begins with its tag, its length and its code.
pub const HEADER_BYTES: usize = 10;

/// Where TCG's provisioning guidance has the storage root key persist.
pub const STORAGE_ROOT: u32 = 0x8100_0001;

const OWNER: u32 = 0x4000_0001;
const PASSWORD_SESSION: u32 = 0x4000_0009;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

const CC_NV_UNDEFINE_SPACE: u32 = 0x122;
const CC_NV_DEFINE_SPACE: u32 = 0x12a;
const CC_CREATE_PRIMARY: u32 = 0x131;
const CC_NV_INCREMENT: u32 = 0x134;
const CC_NV_READ: u32 = 0x14e;
const CC_CREATE: u32 = 0x153;
const CC_LOAD: u32 = 0x157;
const CC_UNSEAL: u32 = 0x15e;
const CC_FLUSH_CONTEXT: u32 = 0x165;
const CC_NV_READ_PUBLIC: u32 = 0x169;
const CC_READ_PUBLIC: u32 = 0x173;

const ALG_AES: u16 = 0x0006;
const ALG_KEYEDHASH: u16 = 0x0008;
const ALG_SHA256: u16 = 0x000b;
const ALG_NULL: u16 = 0x0010;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const CURVE_P256: u16 = 0x0003;
const COORDINATE_BYTES: usize = 32;

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt.
const STORAGE_ATTRIBUTES: u32 = 0x0003_0472;
/// fixedTPM, fixedParent, userWithAuth, noDA: the password, which is empty, is no guess.
const SEALED_ATTRIBUTES: u32 = 0x0000_0452;
/// A counter; read and stepped with its own password alone, of which wrong ones lock nobody out.
const COUNTER_ATTRIBUTES: u32 = 0x0204_0014;
/// Set by the TPM once a counter has been stepped.
const WRITTEN: u32 = 0x2000_0000;
const COUNTER_BYTES: u16 = 8;

/// The password of a counter.
pub type Password = Zeroizing<[u8; 32]>;

/// The label of a counter: says whose it is to whoever reads its public part.
pub type Label = [u8; 32];

/// What a TPM made of a secret. Nothing without that TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What it is (`TPMT_PUBLIC`).
    pub public: Vec<u8>,
    /// The secret, encrypted by the storage root key (`TPM2B_PRIVATE`'s buffer).
    pub private: Vec<u8>,
}

/// Whether an answer begins with the handle of what was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    /// It does.
    Made,
    /// It does not.
    None,
}

/// An answer that says yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The handle of what was made.
    pub handle: Option<u32>,
    /// The rest, without the sessions' part.
    pub parameters: &'a [u8],
}

/// Why an answer says no (`TPM_RC`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

/// Why an answer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The TPM says no.
    #[error("the TPM says no: {0}")]
    Refused(Code),
    /// Not an answer, or not to this command.
    #[error("the TPM's answer cannot be read: {0}")]
    Malformed(&'static str),
}

impl Code {
    /// A blob that another TPM sealed, or that was changed.
    pub const INTEGRITY: u32 = 0x09f;
    /// There is nothing under this handle.
    pub const HANDLE: u32 = 0x08b;
    /// The password is another.
    pub const BAD_AUTH: u32 = 0x0a2;
    /// The same where wrong passwords are counted.
    pub const AUTH_FAIL: u32 = 0x08e;
    const NV_AUTHORIZATION: u32 = 0x149;
    const NV_SPACE: u32 = 0x14b;
    const OBJECT_MEMORY: u32 = 0x902;
    const NV_RATE: u32 = 0x920;
    const LOCKOUT: u32 = 0x921;

    /// The code without the number of the handle, session or parameter that it is about.
    pub const fn kind(self) -> u32 {
        if self.0 & 0x80 == 0 { self.0 } else { self.0 & 0xbf }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.kind() {
            Self::INTEGRITY => "another TPM sealed this, or it was changed",
            Self::HANDLE => "there is nothing of this number",
            Self::BAD_AUTH | Self::AUTH_FAIL => "it asks for a password",
            Self::NV_AUTHORIZATION => "the counter was given away",
            Self::NV_SPACE => "its memory for counters is full",
            Self::OBJECT_MEMORY => "its memory for keys is full",
            Self::NV_RATE => "it writes no more for now, to spare its memory",
            Self::LOCKOUT => "it is locked after too many wrong passwords",
            _ => return write!(f, "code {:#x}", self.0),
        };
        write!(f, "{text} ({:#x})", self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({:#x})", self.0)
    }
}

/// `TPM2_CreatePrimary` of the storage root key, by TCG's template for P-256: always the same key in
/// one TPM, until its owner clears it.
pub fn create_primary() -> Zeroizing<Vec<u8>> {
    let mut command = Command::new(SESSIONS, CC_CREATE_PRIMARY);
    command.u32(OWNER).password(&[]);
    command.sized(|sensitive| sensitive.u16(0).u16(0));
    command.sized(|public| {
        public.u16(ALG_ECC).u16(ALG_SHA256).u32(STORAGE_ATTRIBUTES).u16(0);
        public.u16(ALG_AES).u16(128).u16(ALG_CFB).u16(ALG_NULL).u16(CURVE_P256).u16(ALG_NULL);
        public.blob(&[0; COORDINATE_BYTES]).blob(&[0; COORDINATE_BYTES])
    });
    command.nothing_more().end()
}

/// `TPM2_Create` of a sealed object.
pub fn create(parent: u32, secret: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut command = Command::new(SESSIONS, CC_CREATE);
    command.u32(parent).password(&[]);
    command.sized(|sensitive| sensitive.u16(0).blob(secret));
    command.sized(|public| {
        public.u16(ALG_KEYEDHASH).u16(ALG_SHA256).u32(SEALED_ATTRIBUTES).u16(0).u16(ALG_NULL).u16(0)
    });
    command.nothing_more().end()
}

/// `TPM2_Load` of a sealed object.
pub fn load(parent: u32, sealed: &Sealed) -> Zeroizing<Vec<u8>> {
    let mut command = Command::new(SESSIONS, CC_LOAD);
    command.u32(parent).password(&[]).blob(&sealed.private).blob(&sealed.public).end()
}

/// `TPM2_Unseal`.
pub fn unseal(object: u32) -> Zeroizing<Vec<u8>> {
    Command::new(SESSIONS, CC_UNSEAL).u32(object).password(&[]).end()
}

/// `TPM2_FlushContext`.
pub fn flush(object: u32) -> Zeroizing<Vec<u8>> {
    Command::new(NO_SESSIONS, CC_FLUSH_CONTEXT).u32(object).end()
}

/// `TPM2_ReadPublic`, to see whether there is such an object.
pub fn read_public(object: u32) -> Zeroizing<Vec<u8>> {
    Command::new(NO_SESSIONS, CC_READ_PUBLIC).u32(object).end()
}

/// `TPM2_NV_DefineSpace` of a counter. Its label is its policy, which nobody can satisfy and nothing
/// asks for.
pub fn define_counter(index: u32, password: &Password, label: &Label) -> Zeroizing<Vec<u8>> {
    let mut command = Command::new(SESSIONS, CC_NV_DEFINE_SPACE);
    command.u32(OWNER).password(&[]).blob(password.as_ref());
    command.sized(|public| {
        public.u32(index).u16(ALG_SHA256).u32(COUNTER_ATTRIBUTES).blob(label).u16(COUNTER_BYTES)
    });
    command.end()
}

/// `TPM2_NV_UndefineSpace`.
pub fn undefine_counter(index: u32) -> Zeroizing<Vec<u8>> {
    Command::new(SESSIONS, CC_NV_UNDEFINE_SPACE).u32(OWNER).u32(index).password(&[]).end()
}

/// `TPM2_NV_ReadPublic`.
pub fn counter_public(index: u32) -> Zeroizing<Vec<u8>> {
    Command::new(NO_SESSIONS, CC_NV_READ_PUBLIC).u32(index).end()
}

/// `TPM2_NV_Increment`.
pub fn step_counter(index: u32, password: &Password) -> Zeroizing<Vec<u8>> {
    let mut command = Command::new(SESSIONS, CC_NV_INCREMENT);
    command.u32(index).u32(index).password(password.as_ref()).end()
}

/// `TPM2_NV_Read` of a whole counter.
pub fn read_counter(index: u32, password: &Password) -> Zeroizing<Vec<u8>> {
    let mut command = Command::new(SESSIONS, CC_NV_READ);
    command.u32(index).u32(index).password(password.as_ref()).u16(COUNTER_BYTES).u16(0).end()
}

/// How long the message is that begins with these bytes; none while they are too few to say.
pub fn announced(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let mut reader = Reader(bytes);
    let (Ok(_tag), Ok(size)) = (reader.u16(), reader.u32()) else { return Ok(None) };
    match usize::try_from(size) {
        Ok(size) if (HEADER_BYTES..=MESSAGE_BYTES).contains(&size) => Ok(Some(size)),
        Ok(_) | Err(_) => Err(WireError::Malformed("its length is out of bounds")),
    }
}

/// Reads an answer.
pub fn answer(bytes: &[u8], handle: Handle) -> Result<Answer<'_>, WireError> {
    if announced(bytes)? != Some(bytes.len()) {
        return Err(WireError::Malformed("it is not as long as it says"));
    }
    let mut reader = Reader(bytes);
    let (tag, _size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
    if code != 0 {
        return Err(WireError::Refused(Code(code)));
    }
    let handle = match handle {
        Handle::Made => Some(reader.u32()?),
        Handle::None => None,
    };
    let parameters = match tag {
        NO_SESSIONS => reader.0,
        SESSIONS => {
            let size = reader.u32()?;
            reader.take(usize::try_from(size).unwrap_or(usize::MAX))?
        }
        _ => return Err(WireError::Malformed("its tag is unknown")),
    };
    Ok(Answer { handle, parameters })
}

/// What `TPM2_Create` gave: the two halves of a sealed object, before what nobody asked for.
pub fn created(parameters: &[u8]) -> Result<Sealed, WireError> {
    let mut reader = Reader(parameters);
    let private = reader.blob(BLOB_BYTES)?.to_vec();
    let public = reader.blob(BLOB_BYTES)?.to_vec();
    Ok(Sealed { public, private })
}

/// What `TPM2_Unseal` gave.
pub fn secret(parameters: &[u8]) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let mut reader = Reader(parameters);
    let secret = Zeroizing::new(reader.blob(SECRET_BYTES)?.to_vec());
    reader.end()?;
    Ok(secret)
}

/// What `TPM2_NV_Read` gave of a counter.
pub fn count(parameters: &[u8]) -> Result<u64, WireError> {
    let mut reader = Reader(parameters);
    let mut count = Reader(reader.blob(usize::from(COUNTER_BYTES))?);
    reader.end()?;
    let value = count.u64()?;
    count.end()?;
    Ok(value)
}

/// Whether `TPM2_NV_ReadPublic` gave a counter made by [`define_counter`] with this label.
pub fn is_counter(parameters: &[u8], index: u32, label: &Label) -> Result<bool, WireError> {
    let mut reader = Reader(parameters);
    let mut public = Reader(reader.blob(BLOB_BYTES)?);
    let (found, algorithm, attributes) = (public.u32()?, public.u16()?, public.u32()?);
    let (policy, size) = (public.blob(BLOB_BYTES)?, public.u16()?);
    public.end()?;
    Ok(found == index
        && algorithm == ALG_SHA256
        && attributes & !WRITTEN == COUNTER_ATTRIBUTES
        && policy == label
        && size == COUNTER_BYTES)
}

impl Sealed {
    /// As it lies in a file, without a title of its own.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for half in [&self.public, &self.private] {
            bytes.extend(length(half).to_be_bytes());
            bytes.extend(half);
        }
        bytes
    }

    /// Out of a file.
    pub fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        let public = reader.blob(BLOB_BYTES)?.to_vec();
        let private = reader.blob(BLOB_BYTES)?.to_vec();
        reader.end()?;
        Ok(Self { public, private })
    }
}

/// A command that grows.
struct Command(Zeroizing<Vec<u8>>);

impl Command {
    fn new(tag: u16, code: u32) -> Self {
        // It never grows beyond its first place: nothing secret is left behind in a smaller one.
        let mut command = Self(Zeroizing::new(Vec::with_capacity(MESSAGE_BYTES)));
        command.u16(tag).u32(0).u32(code);
        command
    }

    fn u16(&mut self, number: u16) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Bytes after their number, as every `TPM2B` is.
    fn blob(&mut self, bytes: &[u8]) -> &mut Self {
        self.u16(length(bytes)).0.extend(bytes);
        self
    }

    /// A structure after its length.
    fn sized(&mut self, fill: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        let start = self.0.len();
        fill(self.u16(0));
        let written = self.0.len().saturating_sub(start + 2);
        self.patch(start, &u16::try_from(written).unwrap_or(u16::MAX).to_be_bytes());
        self
    }

    /// One session: a password, in the clear.
    fn password(&mut self, password: &[u8]) -> &mut Self {
        // Handle, no nonce, no attributes, the password.
        let size = 4 + 2 + 1 + 2 + u32::from(length(password));
        self.u32(size).u32(PASSWORD_SESSION).u16(0).0.push(0);
        self.blob(password)
    }

    /// No outside information, no PCRs to note.
    fn nothing_more(&mut self) -> &mut Self {
        self.u16(0).u32(0)
    }

    fn end(&mut self) -> Zeroizing<Vec<u8>> {
        let size = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.patch(2, &size.to_be_bytes());
        std::mem::take(&mut self.0)
    }

    fn patch(&mut self, start: usize, bytes: &[u8]) {
        for (place, byte) in self.0.iter_mut().skip(start).zip(bytes) {
            *place = *byte;
        }
    }
}

/// The length as it stands before bytes; what is longer than any blob is cut short, and refused.
fn length(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or(WireError::Malformed("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) =
            self.0.split_first_chunk().ok_or(WireError::Malformed("it is cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    fn blob(&mut self, most: usize) -> Result<&'a [u8], WireError> {
        let size = usize::from(self.u16()?);
        if size > most {
            return Err(WireError::Malformed("a part of it is longer than such parts are"));
        }
        self.take(size)
    }

    fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Malformed("it goes on too long")) }
    }
}

#[cfg(test)]
mod tests;
