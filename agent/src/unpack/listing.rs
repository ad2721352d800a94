//! The signed list of files, made safe to follow: it decides which names, links and sums a release
//! may have at all, and keeps the tally of what has come. It touches no disk.
//!
//! A signature does not make `../etc/passwd` acceptable: the list is checked like the archive, so
//! that a stolen release key buys no file outside a slot.

use std::{collections::BTreeMap, fmt};

use lockgate_shared::{
    limits::{ARTIFACT_BYTES, ARTIFACT_FILES},
    manifest::{FileEntry, FileKind},
};
use thiserror::Error;

use super::UnpackError;

/// The longest name of an entry, and the longest target of a link: Linux' own limit for a path,
/// less its zero byte.
pub const MAX_PATH: usize = 4095;

/// The longest part of a name: what common file systems hold.
const MAX_PART: usize = 255;

/// A list of files that passed every check, with the tally of what has been unpacked.
#[derive(Debug)]
pub struct Listing<'l> {
    entries: BTreeMap<&'l str, Line<'l>>,
}

#[derive(Debug)]
struct Line<'l> {
    entry: &'l FileEntry,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    NotYet,
    Come,
}

impl<'l> Listing<'l> {
    /// Checks a list.
    pub fn of(files: &'l [FileEntry]) -> Result<Self, ListError> {
        if files.len() > ARTIFACT_FILES {
            return Err(ListError::TooMany { entries: files.len() });
        }
        let mut entries = BTreeMap::new();
        let mut sum: u64 = 0;
        for entry in files {
            check_name(&entry.path)
                .map_err(|fault| ListError::Name { name: shown(&entry.path), fault })?;
            match &entry.kind {
                FileKind::File { size, .. } => sum = sum.saturating_add(*size),
                FileKind::Directory => {}
                FileKind::Symlink { target } => check_target(&entry.path, target)?,
            }
            if entries.insert(&*entry.path, Line { entry, seen: Seen::NotYet }).is_some() {
                return Err(ListError::Twice { path: entry.path.clone() });
            }
        }
        if sum > ARTIFACT_BYTES {
            return Err(ListError::Sum { sum });
        }
        let listing = Self { entries };
        listing.check_parents()?;
        Ok(listing)
    }

    /// The entry at `path`, whether or not it has come.
    pub fn entry(&self, path: &str) -> Option<&'l FileEntry> {
        self.entries.get(path).map(|line| line.entry)
    }

    /// All entries in the order of their names, directories before what they hold.
    pub fn entries(&self) -> impl Iterator<Item = &'l FileEntry> {
        self.entries.values().map(|line| line.entry)
    }

    /// Marks `path` as come, which it may only once and only after its directory. Since every
    /// directory was made by this pass, nothing is ever written through a link.
    pub(super) fn take(&mut self, path: &str) -> Result<&'l FileEntry, UnpackError> {
        if let Some((parent, _)) = path.rsplit_once('/')
            && self.entries.get(parent).is_some_and(|line| line.seen == Seen::NotYet)
        {
            return Err(UnpackError::BeforeParent { path: path.to_owned() });
        }
        let Some(line) = self.entries.get_mut(path) else {
            return Err(UnpackError::Extra { path: path.to_owned() });
        };
        match line.seen {
            Seen::NotYet => {
                line.seen = Seen::Come;
                Ok(line.entry)
            }
            Seen::Come => Err(UnpackError::Twice { path: path.to_owned() }),
        }
    }

    /// The first entry that has not come.
    pub(super) fn first_absent(&self) -> Option<&'l str> {
        self.entries.values().find(|line| line.seen == Seen::NotYet).map(|line| &*line.entry.path)
    }

    fn check_parents(&self) -> Result<(), ListError> {
        for path in self.entries.keys() {
            let Some((parent, _)) = path.rsplit_once('/') else { continue };
            match self.entries.get(parent).map(|line| &line.entry.kind) {
                Some(FileKind::Directory) => {}
                Some(FileKind::File { .. } | FileKind::Symlink { .. }) | None => {
                    return Err(ListError::Parent {
                        path: (*path).to_owned(),
                        parent: parent.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Whether `name` is a plain relative name, safe to join to a slot's directory.
pub fn check_name(name: &str) -> Result<(), NameFault> {
    if name.is_empty() {
        return Err(NameFault::Empty);
    }
    if name.len() > MAX_PATH {
        return Err(NameFault::TooLong);
    }
    if name.starts_with('/') {
        return Err(NameFault::Absolute);
    }
    check_characters(name)?;
    name.split('/').try_for_each(|part| match part {
        "" => Err(NameFault::EmptyPart),
        "." => Err(NameFault::Dot),
        ".." => Err(NameFault::Parent),
        part if part.len() > MAX_PART => Err(NameFault::PartTooLong),
        _ => Ok(()),
    })
}

/// Whether a link at `path` stays inside the slot. `..` may stand only at the target's beginning:
/// there it climbs real directories, which can be counted; after a name it would climb from
/// wherever another link leads.
fn check_target(path: &str, target: &str) -> Result<(), ListError> {
    let refuse = |fault| ListError::Target { path: path.to_owned(), fault };
    if target.is_empty() {
        return Err(refuse(NameFault::Empty));
    }
    if target.len() > MAX_PATH {
        return Err(refuse(NameFault::TooLong));
    }
    if target.starts_with('/') {
        return Err(refuse(NameFault::Absolute));
    }
    check_characters(target).map_err(refuse)?;
    let depth = path.matches('/').count();
    let parts: Vec<&str> = target.split('/').collect();
    let climbs = parts.iter().take_while(|part| **part == "..").count();
    if climbs > depth {
        return Err(refuse(NameFault::Parent));
    }
    parts.iter().skip(climbs).try_for_each(|part| match *part {
        "" => Err(refuse(NameFault::EmptyPart)),
        "." => Err(refuse(NameFault::Dot)),
        ".." => Err(refuse(NameFault::Parent)),
        part if part.len() > MAX_PART => Err(refuse(NameFault::PartTooLong)),
        _ => Ok(()),
    })
}

fn check_characters(name: &str) -> Result<(), NameFault> {
    name.chars().try_for_each(|c| match c {
        '\0' => Err(NameFault::Nul),
        '\\' => Err(NameFault::Backslash),
        c if c.is_control() => Err(NameFault::Control),
        _ => Ok(()),
    })
}

/// A name from outside, cut and made printable for a message.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// No characters.
    Empty,
    /// Beyond [`MAX_PATH`].
    TooLong,
    /// One part beyond 255 bytes.
    PartTooLong,
    /// Begins with `/`.
    Absolute,
    /// Climbs out, or may.
    Parent,
    /// A part `.`.
    Dot,
    /// `//`, or `/` at the end.
    EmptyPart,
    /// A byte of zero.
    Nul,
    /// A backslash, which other systems read as a separator.
    Backslash,
    /// A control character, which would speak to a terminal.
    Control,
    /// Not UTF-8.
    NotUtf8,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::TooLong => "is longer than 4095 bytes",
            Self::PartTooLong => "has a part longer than 255 bytes",
            Self::Absolute => "is absolute",
            Self::Parent => "leads out with `..`",
            Self::Dot => "has a part `.`",
            Self::EmptyPart => "has an empty part",
            Self::Nul => "holds a zero byte",
            Self::Backslash => "holds a backslash",
            Self::Control => "holds a control character",
            Self::NotUtf8 => "is not UTF-8",
        })
    }
}

/// Why a signed list of files is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ListError {
    /// Beyond [`ARTIFACT_FILES`].
    #[error("{entries} entries are listed, and {ARTIFACT_FILES} are the limit")]
    TooMany {
        /// How many.
        entries: usize,
    },
    /// A name that is never written.
    #[error("the list holds the name `{name}`, which {fault}")]
    Name {
        /// The name, cut and made printable.
        name: String,
        /// What is wrong.
        fault: NameFault,
    },
    /// A link that may lead out of the slot.
    #[error("the target of the link `{path}` {fault}")]
    Target {
        /// The link.
        path: String,
        /// What is wrong.
        fault: NameFault,
    },
    /// One name, two entries.
    #[error("`{path}` is listed twice")]
    Twice {
        /// The name.
        path: String,
    },
    /// An entry below something that is no listed directory.
    #[error("`{path}` is listed below `{parent}`, which is not a listed directory")]
    Parent {
        /// The entry.
        path: String,
        /// What it lies in.
        parent: String,
    },
    /// More content than any release may have.
    #[error("the listed files hold {sum} bytes together, and {ARTIFACT_BYTES} are the limit")]
    Sum {
        /// Of the list.
        sum: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_pass() {
        for name in ["a", "bin/lockgate-agent", "a/..b/c..", "ünï/ cödé ", "-rf", "...", "~"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        assert_eq!(check_name(&format!("{}/b", "a".repeat(255))), Ok(()));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused_by_their_fault() {
        for (name, fault) in [
            ("", NameFault::Empty),
            ("/etc/passwd", NameFault::Absolute),
            ("..", NameFault::Parent),
            ("a/../../b", NameFault::Parent),
            ("./a", NameFault::Dot),
            ("a//b", NameFault::EmptyPart),
            ("a/", NameFault::EmptyPart),
            ("a\0b", NameFault::Nul),
            ("a\\..\\b", NameFault::Backslash),
            ("a\x1b[2Jb", NameFault::Control),
        ] {
            assert_eq!(check_name(name), Err(fault), "{name:?}");
        }
        assert_eq!(check_name(&"a/".repeat(2100)), Err(NameFault::TooLong));
        assert_eq!(check_name(&"a".repeat(256)), Err(NameFault::PartTooLong));
    }

    #[test]
    fn a_link_may_climb_as_far_as_the_slot_and_no_further() {
        let list = |target: &str| {
            let files = [
                entry("d", FileKind::Directory),
                entry("d/l", FileKind::Symlink { target: target.to_owned() }),
            ];
            Listing::of(&files).map(|_| ())
        };
        assert_eq!(list("../lib"), Ok(()));
        assert_eq!(list(".."), Ok(()));
        for target in ["../..", "../../etc", "/etc", "x/../..", "x/..", "", "a\\b", "./x", "a//b"] {
            assert!(matches!(list(target), Err(ListError::Target { .. })), "{target:?}");
        }
    }

    #[test]
    fn nothing_may_lie_below_a_link_or_a_file() {
        for kind in [FileKind::Symlink { target: "d".to_owned() }, file(0)] {
            let files = [entry("l", kind), entry("l/f", file(0))];
            assert!(matches!(Listing::of(&files), Err(ListError::Parent { .. })));
        }
        let orphan = [entry("d/f", file(0))];
        assert!(matches!(Listing::of(&orphan), Err(ListError::Parent { .. })));
    }

    #[test]
    fn sums_counts_and_repetitions_are_bounded() {
        let sum = [entry("a", file(ARTIFACT_BYTES)), entry("b", file(1))];
        assert!(Listing::of(&sum[..1]).is_ok());
        let wrapping = [entry("a", file(u64::MAX)), entry("b", file(2))];
        assert!(matches!(Listing::of(&wrapping), Err(ListError::Sum { .. })));
        assert!(matches!(Listing::of(&sum), Err(ListError::Sum { .. })));
        let twice = [entry("a", file(1)), entry("a", file(1))];
        assert!(matches!(Listing::of(&twice), Err(ListError::Twice { .. })));
        let many: Vec<FileEntry> =
            (0..=ARTIFACT_FILES).map(|n| entry(&format!("f{n}"), file(0))).collect();
        assert!(matches!(Listing::of(&many), Err(ListError::TooMany { .. })));
    }

    fn entry(path: &str, kind: FileKind) -> FileEntry {
        FileEntry { path: path.to_owned(), kind }
    }

    fn file(size: u64) -> FileKind {
        FileKind::File { size, sha256: lockgate_shared::id::Digest([0; 32]), executable: false }
    }
}
