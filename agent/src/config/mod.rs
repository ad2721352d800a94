//! The owner's configuration: one file, drop-ins beside it, every key checked before anything is done.
//!
//! A mistake is named with its file, line and column and with a line that would be right; all of them
//! at once, as far as they can be told apart. It refuses what it does not know: a key that is ignored
//! in silence is a rule that its owner believes in and nobody keeps.

pub mod fragments;
mod reader;
pub mod settings;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

pub use fragments::Place;
pub use settings::{ProductSettings, Sealing, Settings, SlotsKind, TpmSettings};
#[cfg(test)]
mod tests;

/// Where the configuration is looked for when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/lockgate-agent/agent.toml";

/// Reads and checks the configuration.
pub fn load(main: &Path) -> Result<Settings, ConfigError> {
    let (start, table) = fragments::read(main)?;
    settings::read(&start, &table).map_err(ConfigError::Faults)
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub hint: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; hint: {}", self.place, self.what, self.hint)
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file or folder that cannot be read.
    #[error(
        "cannot read `{path}`\nhint: name another with `--config`, or copy the sample from `/usr/share/doc/lockgate-agent/agent.toml`",
        path = path.display()
    )]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file beyond [`fragments::FILE_BYTES`].
    #[error("`{path}` has more than {max} bytes, which no configuration needs", path = path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The limit.
        max: u64,
    },
    /// More drop-ins than [`fragments::DROP_INS`].
    #[error("`{folder}` holds more than {max} drop-ins\nhint: put some of them together", folder = folder.display())]
    TooMany {
        /// The folder.
        folder: PathBuf,
        /// The limit.
        max: usize,
    },
    /// Mistakes in what was read, at least one, each on a line of its own.
    #[error("{}", lines(.0))]
    Faults(Vec<Fault>),
}

fn lines(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
