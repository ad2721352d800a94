//! A TPM 2.0, as far as the agent needs one: it seals the device's key, so that a copy of the disk is
//! not the device, and it keeps a counter that nothing sets back, so that an old copy of the state is
//! known for one.
//!
//! Sealed is under the storage root key, in TCG's own form: the persistent one where there is one that
//! takes it, else one that is made for the moment. It is bound to no PCR: those change with every
//! update, which is what the agent is for. So whoever runs as the agent's user on this very device can
//! unseal the key; a disk, an image or a backup alone cannot. Passwords and secrets cross the wire
//! between processor and TPM in the clear: it keeps nobody out who solders.
//!
//! The language is our own, four hundred lines for eleven commands. Of what there is, `tss-esapi` is a
//! C library's coat, and `tpm2-protocol`, which is pure Rust and depends on nothing, spells out the
//! whole standard and recast its interface with each of its last releases; the agent's size and its
//! reviewers would carry both. What the kernel does, it leaves to the kernel: start-up, swapping, and
//! asking again when the TPM is busy.

mod line;
pub mod wire;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use lockgate_shared::id::Digest;
use thiserror::Error;
use zeroize::Zeroizing;

pub use self::wire::{Password, Sealed};
use self::{
    line::Line,
    wire::{Answer, Code, Handle, Label, WireError},
};

/// Where the kernel's resource manager is.
pub const DEVICE: &str = "/dev/tpmrm0";
/// The numbers from which an owner of a TPM may give counters (TCG's registry of reserved handles).
pub const COUNTERS: std::ops::RangeInclusive<u32> = 0x0180_0000..=0x01bf_ffff;
/// Where the agent's own begin unless its owner names another: the two bytes after these follow from the
/// state folder's path, so that two agents on one machine seldom meet.
const COUNTERS_OWN: u32 = 0x0182_0000;

/// Why the TPM does not do it.
#[derive(Debug, Error)]
pub enum TpmError {
    /// There is none.
    #[error(
        "there is no TPM at `{place}`\nhint: switch it on in the firmware, or name the right one with `tpm_device`",
        place = .0.display()
    )]
    Absent(PathBuf),
    /// It cannot be reached.
    #[error(
        "cannot {act} the TPM at `{place}`\nhint: does the agent's user have the right to? `ls -l {place}`",
        place = place.display()
    )]
    Line {
        /// What was tried.
        act: &'static str,
        /// Where.
        place: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// What it answers to a command.
    #[error("cannot {act}")]
    Answer {
        /// What was tried.
        act: &'static str,
        /// What it says.
        source: WireError,
    },
    /// Not an answer at all.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// What is sealed was sealed by another.
    #[error(
        "another TPM sealed it, or this one was cleared since\nhint: put the disk back into its device; where that cannot be, enrol anew"
    )]
    Foreign,
    /// Somebody else's is under the counter's number.
    #[error(
        "`{0:#010x}` is somebody else's in this TPM\nhint: name a free one, such as `tpm_counter = {free:#010x}`",
        free = .0.saturating_add(1)
    )]
    Taken(u32),
}

/// A TPM within reach. What it loads it flushes again.
#[derive(Debug)]
pub struct Tpm {
    line: Line,
    place: PathBuf,
}

impl Tpm {
    /// Opens the way to it. Nothing is asked yet.
    pub fn open(place: &Path) -> Result<Self, TpmError> {
        Ok(Self { line: Line::open(place)?, place: place.to_owned() })
    }

    /// Seals at most [`wire::SECRET_BYTES`].
    pub fn seal(&mut self, secret: &[u8]) -> Result<Sealed, TpmError> {
        const ACT: &str = "seal in the TPM";
        self.under_root(|tpm, root| {
            let answer = tpm.ask(&wire::create(root, secret))?;
            answered(ACT, &answer, Handle::None)
                .and_then(|answer| wire::created(answer.parameters).map_err(no(ACT)))
        })
    }

    /// Unseals what this TPM sealed.
    pub fn unseal(&mut self, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        const ACT: &str = "unseal by the TPM";
        let opened = self.under_root(|tpm, root| {
            let object = tpm.made(ACT, &wire::load(root, sealed))?;
            let answer = tpm.ask(&wire::unseal(object));
            tpm.flush(object)?;
            let answer = answer?;
            answered(ACT, &answer, Handle::None)
                .and_then(|answer| wire::secret(answer.parameters).map_err(no(ACT)))
        });
        match opened {
            Err(error) if error.code() == Some(Code::INTEGRITY) => Err(TpmError::Foreign),
            other => other,
        }
    }

    /// Makes a counter and takes its first step; gives its value, which is above that of every counter
    /// that this TPM ever had. One of the same label is replaced: nothing but its maker counts with it.
    pub fn make_counter(&mut self, place: &CounterPlace) -> Result<u64, TpmError> {
        const ACT: &str = "make a counter in the TPM";
        let CounterPlace { index, password, label } = place;
        let public = self.ask(&wire::counter_public(*index))?;
        match wire::answer(&public, Handle::None) {
            Ok(answer)
                if wire::is_counter(answer.parameters, *index, label).map_err(no(ACT))? =>
            {
                self.told(ACT, &wire::undefine_counter(*index))?;
            }
            Ok(_) => return Err(TpmError::Taken(*index)),
            Err(WireError::Refused(code)) if code.kind() == Code::HANDLE => {}
            Err(source) => return Err(no(ACT)(source)),
        }
        self.told(ACT, &wire::define_counter(*index, password, label))?;
        self.told(ACT, &wire::step_counter(*index, password))?;
        self.counted(*index, password)
    }

    /// Takes a counter's next step; gives its value then.
    pub fn step_counter(&mut self, index: u32, password: &Password) -> Result<u64, TpmError> {
        self.told("step the TPM's counter", &wire::step_counter(index, password))?;
        self.counted(index, password)
    }

    /// A counter's value.
    pub fn counted(&mut self, index: u32, password: &Password) -> Result<u64, TpmError> {
        const ACT: &str = "read the TPM's counter";
        let bytes = self.ask(&wire::read_counter(index, password))?;
        let answer = answered(ACT, &bytes, Handle::None)?;
        wire::count(answer.parameters).map_err(no(ACT))
    }

    /// Does something under the storage root key: the persistent one, and where that is missing or does
    /// not do it, the one of the template.
    fn under_root<T>(
        &mut self,
        work: impl Fn(&mut Self, u32) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let answer = self.ask(&wire::read_public(wire::STORAGE_ROOT))?;
        let first = match wire::answer(&answer, Handle::None) {
            Ok(_) => match work(self, wire::STORAGE_ROOT) {
                Err(error) => Some(error),
                done @ Ok(_) => return done,
            },
            Err(_) => None,
        };
        let root = self.made("make the TPM's storage key", &wire::create_primary())?;
        let done = work(self, root);
        self.flush(root)?;
        match (done, first) {
            // Not sealed under this one: what kept the other from it is the reason.
            (Err(error), Some(first)) if error.code() == Some(Code::INTEGRITY) => Err(first),
            (done, _) => done,
        }
    }

    fn flush(&mut self, object: u32) -> Result<(), TpmError> {
        self.told("flush the TPM", &wire::flush(object))
    }

    /// Gives a command that makes something; gives its handle.
    fn made(&mut self, act: &'static str, command: &[u8]) -> Result<u32, TpmError> {
        let bytes = self.ask(command)?;
        let handle = answered(act, &bytes, Handle::Made)?.handle;
        handle.ok_or_else(|| no(act)(WireError::Malformed("it names nothing")))
    }

    /// Gives a command whose answer is yes or no.
    fn told(&mut self, act: &'static str, command: &[u8]) -> Result<(), TpmError> {
        let bytes = self.ask(command)?;
        answered(act, &bytes, Handle::None).map(drop)
    }

    fn ask(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.line.ask(&self.place, command)
    }
}

fn answered<'a>(
    act: &'static str,
    bytes: &'a [u8],
    handle: Handle,
) -> Result<Answer<'a>, TpmError> {
    wire::answer(bytes, handle).map_err(no(act))
}

fn no(act: &'static str) -> impl Fn(WireError) -> TpmError {
    move |source| TpmError::Answer { act, source }
}

impl TpmError {
    /// What the TPM said no with.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Answer { source: WireError::Refused(code), .. } => Some(code.kind()),
            Self::Answer { source: WireError::Malformed(_), .. }
            | Self::Absent(_)
            | Self::Line { .. }
            | Self::Wire(_)
            | Self::Foreign
            | Self::Taken(_) => None,
        }
    }
}

/// A counter in a TPM: under which number, and what opens it.
pub struct CounterPlace {
    /// Its number.
    pub index: u32,
    password: Password,
    label: Label,
}

impl fmt::Debug for CounterPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CounterPlace({:#010x})", self.index)
    }
}

impl CounterPlace {
    /// The counter of a state folder: its number from the folder's path, where the owner named none,
    /// its password from the device's key, so that no other user of the TPM steps it.
    pub fn of(state: &Path, named: Option<u32>, key: &[u8; 32]) -> Self {
        let path = state.as_os_str().as_encoded_bytes();
        let label = Digest::of_parts("lockgate counter v1", &[path]).0;
        let [high, low, ..] = label;
        let index = named.unwrap_or(COUNTERS_OWN | u32::from(u16::from_be_bytes([high, low])));
        let password = Digest::of_parts("lockgate counter password v1", &[key]).0;
        Self { index, password: Zeroizing::new(password), label }
    }
}

/// Something that counts upwards and never back.
pub trait Counter {
    /// Where it stands.
    fn value(&mut self) -> Result<u64, TpmError>;
    /// Takes a step; gives where it stands then.
    fn step(&mut self) -> Result<u64, TpmError>;
}

/// A counter in a TPM. The way to it is opened for each act: nobody is kept from it in between.
#[derive(Debug)]
pub struct InTpm {
    /// The way to the TPM.
    pub device: PathBuf,
    /// The counter.
    pub place: CounterPlace,
}

impl Counter for InTpm {
    fn value(&mut self) -> Result<u64, TpmError> {
        Tpm::open(&self.device)?.counted(self.place.index, &self.place.password)
    }

    fn step(&mut self) -> Result<u64, TpmError> {
        Tpm::open(&self.device)?.step_counter(self.place.index, &self.place.password)
    }
}
