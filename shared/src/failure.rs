//! How a failure is told: an error with all that caused it, and what to do next at the very end; for
//! people in lines, for programs as one object that all of Lockgate's programs share.
//!
//! It prints nothing and decides no exit code.

use std::{error::Error, fmt};

use serde::{Deserialize, Serialize};

/// What stands before a hint in the text of an error.
const HINT: &str = "\nhint: ";

/// An error with everything that caused it, each layer in its own words and nothing twice, then every
/// layer's hint on a line of its own.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a dyn Error);

/// What a program prints with `--json` when it fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Always `false`: nothing else that a program prints has such a member.
    pub ok: bool,
    /// What went wrong, with all that caused it.
    pub error: String,
    /// What to do next, if that is known.
    pub hint: Option<String>,
    /// The exit code, as `--help` of the program lists it.
    pub exit: u8,
}

impl Failure {
    /// Takes the hints out of an error's text.
    pub fn new(text: &str, exit: u8) -> Self {
        let (error, hints) = parted(text);
        Self { ok: false, error, hint: (!hints.is_empty()).then(|| hints.join("\n")), exit }
    }

    /// A command line that its parser refused: the parser's text for people holds the fault, perhaps
    /// a tip, and the usage, each after an empty line.
    pub fn usage(text: &str, exit: u8) -> Self {
        let mut parts = text.trim().split("\n\n");
        let fault = parts.next().unwrap_or_default();
        let words: Vec<&str> = fault.split_whitespace().collect();
        let error = words.join(" ");
        let error = error.strip_prefix("error: ").unwrap_or(&error).to_owned();
        let tip = parts.find_map(|part| part.trim().strip_prefix("tip: ").map(str::to_owned));
        let hint = tip.unwrap_or_else(|| "`--help` lists what there is".to_owned());
        Self { ok: false, error, hint: Some(hint), exit }
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut said, mut hints) = parted(&self.0.to_string());
        let mut source = self.0.source();
        while let Some(cause) = source {
            let (text, more) = parted(&cause.to_string());
            // Some layers, of other makers too, quote what caused them.
            if !said.contains(&text) {
                said = format!("{said}: {text}");
            }
            hints.extend(more.into_iter().filter(|hint| !hints.contains(hint)).collect::<Vec<_>>());
            source = cause.source();
        }
        f.write_str(&said)?;
        hints.iter().try_for_each(|hint| write!(f, "{HINT}{hint}"))
    }
}

/// A text without its hints, and they.
fn parted(text: &str) -> (String, Vec<String>) {
    let mut parts = text.split(HINT);
    let mut rest = parts.next().unwrap_or_default().to_owned();
    let mut hints = Vec::new();
    for part in parts {
        // What follows a hint's line is no hint: several faults may stand below each other.
        let (hint, more) = part.split_once('\n').unwrap_or((part, ""));
        hints.push(hint.to_owned());
        if !more.is_empty() {
            rest = format!("{rest}\n{more}");
        }
    }
    (rest.trim_end().to_owned(), hints)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start\nhint: look at the configuration")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read `x`\nhint: chmod it")]
    struct Inner(#[source] io::Error);

    #[test]
    fn every_cause_is_named_and_what_to_do_stands_at_the_end() {
        let error = Outer(Inner(io::Error::other("no luck")));
        assert_eq!(
            Chain(&error).to_string(),
            "cannot start: cannot read `x`: no luck\nhint: look at the configuration\nhint: chmod it"
        );
    }

    #[test]
    fn a_layer_that_quotes_its_cause_does_not_have_it_said_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("it failed\n{0}")]
        struct Quoting(#[source] Inner);
        let error = Quoting(Inner(io::Error::other("no luck")));
        assert_eq!(
            Chain(&error).to_string(),
            "it failed\ncannot read `x`: no luck\nhint: chmod it"
        );
    }

    #[test]
    fn programs_read_the_hints_apart_from_the_fault() {
        let text = Chain(&Inner(io::Error::other("no luck"))).to_string();
        let failure = Failure::new(&text, 3);
        assert_eq!(failure.error, "cannot read `x`: no luck");
        assert_eq!(failure.hint.as_deref(), Some("chmod it"));
        assert_eq!(Failure::new("it broke", 1).hint, None);
    }

    #[test]
    fn a_refused_command_line_keeps_its_fault_and_its_tip() {
        let text = "error: unexpected argument '--fils' found\n\n  tip: a similar argument exists: '--files'\n\nUsage: x\n";
        let failure = Failure::usage(text, 2);
        assert_eq!(failure.error, "unexpected argument '--fils' found");
        assert_eq!(failure.hint.as_deref(), Some("a similar argument exists: '--files'"));
    }

    #[test]
    fn a_fault_below_the_hint_of_another_is_not_lost() {
        let failure = Failure::new("two faults\nhint: mend `a`\nand `b` too", 3);
        assert_eq!(failure.error, "two faults\nand `b` too");
        assert_eq!(failure.hint.as_deref(), Some("mend `a`"));
    }
}
