//! Health probes: one question to the device, asked with a hard deadline, answered with yes or no
//! and a short reason. What the answers mean for a trial is decided in `core`.
//!
//! Probes come as data from the signed manifest of a release; a probe never outlives its deadline,
//! never holds more than a few KiB, and never leaves a process behind.

pub mod command;
pub mod http;
pub mod process;

use std::{collections::BTreeMap, path::Path, time::Duration};

pub use lockgate_shared::manifest::{Probe, ProbeKind};
use lockgate_shared::time::Seconds;

use crate::clock::Stopwatch;

pub use process::Identity;

/// The longest any probe may take, whatever its manifest says: it holds up the agent's only thread.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest reason, which travels in a letter.
pub const MAX_DETAIL: usize = lockgate_shared::limits::LETTER_TEXT;

/// Asks one question. `None` for [`ProbeKind::Contact`]: whether the agent reached its server is
/// known to its loop and cannot be asked of the device.
pub fn run(probe: &Probe, place: Place<'_>) -> Option<ProbeResult> {
    match &probe.kind {
        ProbeKind::Command { argv, timeout_s } => {
            Some(command::probe(argv, bounded(*timeout_s), place.slot))
        }
        ProbeKind::Http { url, status, timeout_s } => {
            Some(http::probe(url, *status, bounded(*timeout_s)))
        }
        ProbeKind::Process { pidfile } => {
            Some(process::probe(&place.product.join(pidfile), Path::new("/proc")))
        }
        ProbeKind::Contact => None,
    }
}

/// Where a release on trial lives.
#[derive(Clone, Copy, Debug)]
pub struct Place<'p> {
    /// The slot's directory.
    pub slot: &'p Path,
    /// The product's directory, which both slots share and where its pid file may be.
    pub product: &'p Path,
}

/// Asks the same questions again and again, and remembers which process answered, so that one that
/// keeps dying and being restarted is not taken for one that lives.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    seen: BTreeMap<String, Identity>,
}

impl Watch {
    /// Asks one question, and says besides whether its process was restarted since the last time.
    pub fn run(&mut self, probe: &Probe, place: Place<'_>) -> Option<(ProbeResult, Continuity)> {
        let result = run(probe, place)?;
        let Some(now) = result.process else { return Some((result, Continuity::Same)) };
        let continuity = match self.seen.insert(probe.name.clone(), now) {
            Some(before) if before != now => Continuity::Restarted,
            Some(_) | None => Continuity::Same,
        };
        Some((result, continuity))
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

/// A span within which something must have ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    watch: Stopwatch,
    limit: Duration,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self { watch: Stopwatch::start(), limit }
    }

    /// What is left, or `None` when it has passed.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.watch.left(self.limit)
    }

    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.watch.elapsed().as_millis()).unwrap_or(u32::MAX)
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
    fn contact_with_the_server_is_not_asked_of_the_device() {
        let probe =
            Probe { name: "contact".to_owned(), kind: ProbeKind::Contact, interval_s: Seconds(1) };
        let place = Place { slot: Path::new("/"), product: Path::new("/") };
        assert_eq!(run(&probe, place), None);
    }

    #[test]
    fn a_service_that_was_restarted_is_not_taken_for_one_that_lives() {
        let product = tempfile::tempdir().expect("a directory");
        let place = Place { slot: Path::new("/"), product: product.path() };
        let probe = Probe {
            name: "service".to_owned(),
            kind: ProbeKind::Process { pidfile: "pid".to_owned() },
            interval_s: Seconds(1),
        };
        let mut watch = Watch::default();
        let mut ask = |pid: u32| {
            std::fs::write(product.path().join("pid"), format!("{pid}\n")).expect("written");
            let (result, continuity) = watch.run(&probe, place).expect("a question for the device");
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
