//! Health probes: one question to the device, asked with a hard deadline, answered with yes or no
//! and a short reason. What the answers mean for a trial is decided in `core`.
//!
//! Probes come as data from the signed manifest of a release; a probe never outlives its deadline,
//! never holds more than a few KiB, and never leaves a process behind.

pub mod command;
pub mod http;
pub mod process;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub use process::Identity;

/// The longest any probe may take, whatever its manifest says: it holds up the agent's only thread.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest reason, which travels in a letter.
pub const MAX_DETAIL: usize = 200;

/// Asks one question. `slot_dir` is the directory of the slot on trial.
pub fn run(probe: &Probe, slot_dir: &Path) -> ProbeResult {
    match &probe.kind {
        ProbeKind::Command { argv, timeout } => command::probe(argv, bounded(*timeout), slot_dir),
        ProbeKind::Http { url, expect_status, timeout } => {
            http::probe(url, *expect_status, bounded(*timeout))
        }
        ProbeKind::ProcessAlive { pidfile } => {
            process::probe(&slot_dir.join(pidfile), Path::new("/proc"))
        }
    }
}

/// Asks the same questions again and again, and remembers which process answered, so that one that
/// keeps dying and being restarted is not taken for one that lives.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    seen: BTreeMap<String, Identity>,
}

impl Watch {
    /// Asks one question, and says besides whether its process was restarted since the last time.
    pub fn run(&mut self, probe: &Probe, slot_dir: &Path) -> (ProbeResult, Continuity) {
        let result = run(probe, slot_dir);
        let Some(now) = result.process else { return (result, Continuity::Same) };
        let continuity = match self.seen.insert(probe.name.clone(), now) {
            Some(before) if before != now => Continuity::Restarted,
            Some(_) | None => Continuity::Same,
        };
        (result, continuity)
    }
}

/// Whether the process behind a probe is still the one that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// The same one, or none to compare with.
    Same,
    /// Another one: the service has crashed or been restarted.
    Restarted,
}

/// One question of a release's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Its name, unique in the manifest.
    pub name: String,
    /// What is asked.
    pub kind: ProbeKind,
    /// How often it is asked during a trial.
    pub interval: Seconds,
}

/// The kinds of questions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// A program of the slot ends with 0.
    Command {
        /// The program and its arguments; a name with `/` is relative to the slot unless it
        /// begins with one.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Seconds,
    },
    /// A service on this device answers with a status.
    Http {
        /// `http://` to a loopback address.
        url: String,
        /// The status that means healthy.
        expect_status: u16,
        /// How long it may take.
        timeout: Seconds,
    },
    /// The process named in a file is running.
    ProcessAlive {
        /// The file; relative to the slot unless it begins with `/`.
        pidfile: String,
    },
}

/// A span of time in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub u64);

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// Whether it is healthy.
    pub ok: bool,
    /// Why, in at most [`MAX_DETAIL`] printable characters.
    pub detail: String,
    /// How long the answer took.
    pub latency_ms: u32,
    /// The process that answered, where the probe watches one.
    pub process: Option<Identity>,
}

impl ProbeResult {
    fn new(verdict: Result<String, String>, deadline: &Deadline) -> Self {
        let (ok, detail) = match verdict {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        Self { ok, detail: printable(&detail), latency_ms: deadline.elapsed_ms(), process: None }
    }
}

/// A moment by which something must have ended. The only place in this module that asks the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    start: Instant,
    limit: Duration,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self { start: Instant::now(), limit }
    }

    /// What is left, or `None` when it has passed.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.limit.checked_sub(self.start.elapsed()).filter(|left| !left.is_zero())
    }

    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.start.elapsed().as_millis()).unwrap_or(u32::MAX)
    }
}

fn bounded(timeout: Seconds) -> Duration {
    Duration::from_secs(timeout.0).min(MAX_TIMEOUT)
}

/// Text from outside as one short line for a log or a letter.
fn printable(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }));
        if line.len() > MAX_DETAIL {
            line.truncate(MAX_DETAIL);
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_printable_line() {
        let detail = printable(&format!("a\n\x1b[31mb\tü {}", "x".repeat(500)));
        assert!(detail.starts_with("a [31mb ? xxx"), "{detail}");
        assert_eq!(detail.len(), MAX_DETAIL);
    }

    #[test]
    fn no_manifest_can_hold_the_agent_up_for_long() {
        assert_eq!(bounded(Seconds(u64::MAX)), MAX_TIMEOUT);
        assert_eq!(bounded(Seconds(3)), Duration::from_secs(3));
    }

    #[test]
    fn a_service_that_was_restarted_is_not_taken_for_one_that_lives() {
        let slot = tempfile::tempdir().expect("a directory");
        let probe = Probe {
            name: "service".to_owned(),
            kind: ProbeKind::ProcessAlive { pidfile: "pid".to_owned() },
            interval: Seconds(1),
        };
        let mut watch = Watch::default();
        let mut ask = |pid: u32| {
            std::fs::write(slot.path().join("pid"), format!("{pid}\n")).expect("written");
            let (result, continuity) = watch.run(&probe, slot.path());
            assert!(result.ok, "{result:?}");
            continuity
        };
        assert_eq!(ask(std::process::id()), Continuity::Same);
        assert_eq!(ask(std::process::id()), Continuity::Same);
        let mut other =
            std::process::Command::new("sleep").arg("60").spawn().expect("sleep is there");
        let after = ask(other.id());
        other.kill().expect("killed");
        other.wait().expect("reaped");
        assert_eq!(after, Continuity::Restarted);
    }
}
