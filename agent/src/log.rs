//! The agent's log: one line a message on standard error, where journald takes its level from the
//! number in front.
//!
//! Levels by who is woken: `error` when something is halted, `warn` when it is worth a look at three in
//! the morning, `info` when a state changed, `debug` for why. It never adds a time (journald does) and
//! no device identity stands above `debug`: callers keep to that.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    str::FromStr,
    sync::atomic::{AtomicU8, Ordering},
};

/// How much is said: everything up to this level.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// The longest message that is written, in bytes: a line that quotes a whole answer helps nobody.
const MAX_LINE: usize = 4096;

/// Who should hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something is halted.
    Error = 0,
    /// Worth a look at three in the morning.
    Warn = 1,
    /// A state changed.
    Info = 2,
    /// Why.
    Debug = 3,
}

impl Level {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// Its number in front of a line, as sd-daemon(3) has it.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Error => "<3>",
            Self::Warn => "<4>",
            Self::Info => "<6>",
            Self::Debug => "<7>",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
            format!("`{text}` is not a level\nhint: use `error`, `warn`, `info` or `debug`")
        })
    }
}

/// Says everything up to `level` from now on.
pub fn set(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether a message of this level would be written.
pub fn says(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Something is halted.
pub fn error(message: impl fmt::Display) {
    write(Level::Error, &message);
}

/// Worth a look at three in the morning.
pub fn warn(message: impl fmt::Display) {
    write(Level::Warn, &message);
}

/// A state changed.
pub fn info(message: impl fmt::Display) {
    write(Level::Info, &message);
}

/// Why. The only level that may name the device.
pub fn debug(message: impl fmt::Display) {
    write(Level::Debug, &message);
}

fn write(level: Level, message: &dyn fmt::Display) {
    if !says(level) {
        return;
    }
    let mut error = io::stderr().lock();
    let style = if error.is_terminal() { Style::Person } else { Style::Journal };
    // Whoever closed standard error wants to hear nothing; that is no reason to stop.
    let _ = error.write_all(line(level, &message.to_string(), style).as_bytes());
}

enum Style {
    Person,
    Journal,
}

/// One line: control characters, which a server's answer may hold, are escaped, so that nobody
/// forges a second one.
fn line(level: Level, message: &str, style: Style) -> String {
    let mut end = message.len().min(MAX_LINE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let message = message.get(..end).unwrap_or_default().replace("\nhint:", "; hint:");
    let mut line = match style {
        Style::Person => format!("{level}: "),
        Style::Journal => level.prefix().to_owned(),
    };
    for c in message.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_from_outside_cannot_forge_a_second_line() {
        let line = line(Level::Warn, "it said `a\n<3>all is lost\x1b[2J`", Style::Journal);
        assert_eq!(line, "<4>it said `a\\n<3>all is lost\\u{1b}[2J`\n");
    }

    #[test]
    fn a_long_message_is_cut_at_a_characters_border() {
        let line = line(Level::Info, &"ä".repeat(MAX_LINE), Style::Person);
        assert_eq!(line.len(), "info: ".len() + MAX_LINE + "\n".len());
    }

    #[test]
    fn levels_are_read_by_their_words_only() {
        assert_eq!("debug".parse(), Ok(Level::Debug));
        assert!("DEBUG".parse::<Level>().is_err());
        assert!(Level::Error < Level::Debug);
    }
}
