//! In which order the sources of the repository are asked, and what each of them did.
//!
//! The mirrors come first, in their owner's order, then the server. A source whose bytes were refused,
//! or that was slow, silent or without a file, goes behind the others for a while: it costs a refresh
//! one file's time and no more, and nobody is passed over for good. Where every source fails, the
//! order is what it was.
//!
//! It asks nobody and reads no clock. Whoever gave the same bytes as another is not called a liar:
//! then the fault is the repository's, or this device's clock's.

use std::time::Duration;

use lockgate_shared::{failure::Chain, id::Digest, time::Seconds};

use super::{Origin, TransportError};
use crate::core::{choice::short, tuf::Another};

/// A source whose bytes were refused is asked last for so long: a liar costs four wrong files a day,
/// and a mirror that only lagged is back within the day.
pub const BEHIND_REFUSED: Seconds = Seconds(6 * 3600);
/// A source that was slow, silent or lacked a file is asked last for so long: a restart, or a copy
/// that is not complete yet, is over by then.
pub const BEHIND_FAILED: Seconds = Seconds(15 * 60);
/// A small file that takes longer than this is taken, but the next one is asked of another source:
/// 4 MiB at 200 KiB a second.
pub const SLOW: Duration = Duration::from_secs(20);
/// Most answers that are refused in one turn before no further source is asked: each of nine sources
/// once, and as many again.
pub const REFUSALS: u32 = 18;
/// Most bytes of refused answers in one turn: three of the longest metadata files.
pub const REFUSED_BYTES: u64 = 16 << 20;

/// What is held against a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What it gave was not what was signed, or was older than what others have.
    Refused(String),
    /// It was slow, silent or lacked a file.
    Failed(String),
}

/// A source that is asked after the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Which.
    pub source: Origin,
    /// Why.
    pub cause: Cause,
    /// Until when, since the boot.
    pub until: Seconds,
}

/// The sources and what is held against them.
#[derive(Debug)]
pub(super) struct Order {
    /// The mirrors, then the server.
    origins: Vec<Origin>,
    /// Which of them are behind, why, and until when. Short lists: a map and a sort would cost the
    /// binary more than they save.
    behind: Vec<(usize, Cause, Seconds)>,
    file: File,
    /// What was refused in this turn: answers and their bytes.
    refused: (u32, u64),
}

/// The file that is being read.
#[derive(Debug, Default)]
struct File {
    path: String,
    /// Whether the next read of it goes on with the sources that are left.
    again: bool,
    tried: Vec<usize>,
    last: Given,
    refused: Vec<Refused>,
}

/// What came last.
#[derive(Debug, Default)]
struct Given {
    /// By whom: a payload may come from several.
    by: Vec<usize>,
    /// Of a small file, its digest and length.
    small: Option<(Digest, u64)>,
}

/// What a source gave and was refused.
#[derive(Debug)]
struct Refused {
    source: usize,
    digest: Option<Digest>,
    why: String,
}

impl Refused {
    /// Whether two sources gave the same, as far as it is known.
    fn same(&self, other: &Self) -> bool {
        match (self.digest, other.digest) {
            (None, None) => self.why == other.why,
            (own, others) => own == others,
        }
    }
}

impl Order {
    pub(super) fn new(mirrors: Vec<Origin>, server: Origin) -> Self {
        let mut origins = mirrors;
        origins.push(server);
        Self { origins, behind: Vec::new(), file: File::default(), refused: (0, 0) }
    }

    pub(super) fn origin(&self, source: usize) -> Option<Origin> {
        self.origins.get(source).cloned()
    }

    /// Whether a source is the server itself, whose "no such file" counts.
    pub(super) fn is_server(&self, source: usize) -> bool {
        source + 1 == self.origins.len()
    }

    /// Begins to read a file at `now`, or goes on where its last source was refused. Gives the sources
    /// to ask, in order.
    pub(super) fn begin(&mut self, path: &str, now: Seconds) -> Vec<usize> {
        if !(self.file.again && self.file.path == path) {
            self.settle(now);
            self.file.path = path.to_owned();
        }
        self.file.again = false;
        self.file.last = Given::default();
        self.behind.retain(|(_, _, until)| now < *until);
        let untried = |source: &usize| !self.file.tried.contains(source);
        let is_behind = |source: &usize| self.behind.iter().any(|(known, ..)| known == source);
        let mut sources = Vec::with_capacity(self.origins.len());
        for late in [false, true] {
            let all = (0..self.origins.len()).filter(untried);
            sources.extend(all.filter(|source| is_behind(source) == late));
        }
        sources
    }

    /// A source gave a small file, after so long.
    pub(super) fn gave(&mut self, source: usize, bytes: &[u8], took: Duration, now: Seconds) {
        self.file.tried.push(source);
        let small = Some((Digest::of(bytes), bytes.len() as u64));
        self.file.last = Given { by: vec![source], small };
        if took > SLOW {
            let why = format!("`{}` took it {} s", self.file.path, took.as_secs());
            self.put_behind(source, Cause::Failed(why), now);
        }
    }

    /// A source gave a part of a payload.
    pub(super) fn gave_part(&mut self, source: usize) {
        if !self.file.last.by.contains(&source) {
            self.file.last.by.push(source);
        }
    }

    /// A source gave nothing that could be used.
    pub(super) fn failed(&mut self, source: usize, error: &TransportError, now: Seconds) {
        self.file.tried.push(source);
        let absent = matches!(error, TransportError::NotFound { .. });
        // Whether there is a newer root is a question, and no is its ordinary answer. Everything else
        // that is asked for was named by somebody.
        let ordinary = absent && (self.file.path.ends_with(".root.json") || self.is_server(source));
        if error.is_sources_fault() && !ordinary {
            let text = Chain(error).to_string();
            let why = text.split("\nhint: ").next().unwrap_or_default();
            self.put_behind(source, Cause::Failed(short(why)), now);
        }
    }

    /// What came last was refused. Says whether another source is left to ask for the same file.
    pub(super) fn refused(&mut self, why: &str) -> Another {
        let Given { mut by, small } = std::mem::take(&mut self.file.last);
        // Where the server went on with what a mirror had begun, the mirror is suspected alone: with
        // it behind, the server is asked from the first byte next time, and stands for itself.
        if by.len() > 1 {
            by.retain(|source| !self.is_server(*source));
        }
        if by.is_empty() {
            return Another::Nobody;
        }
        let (digest, length) = small.unzip();
        self.refused.0 += 1;
        self.refused.1 = self.refused.1.saturating_add(length.unwrap_or_default());
        for source in by {
            self.file.tried.push(source);
            self.file.refused.push(Refused { source, digest, why: short(why) });
        }
        let left = (0..self.origins.len()).any(|source| !self.file.tried.contains(&source));
        self.file.again = left && self.refused.0 < REFUSALS && self.refused.1 < REFUSED_BYTES;
        if self.file.again { Another::Source } else { Another::Nobody }
    }

    /// Ends the turn: what was refused in the next one is counted anew.
    pub(super) fn end_turn(&mut self, now: Seconds) {
        self.settle(now);
        self.refused = (0, 0);
    }

    /// The sources that are asked after the others.
    pub(super) fn behind(&mut self, now: Seconds) -> Vec<Behind> {
        self.settle(now);
        self.behind
            .iter()
            .filter(|(_, _, until)| now < *until)
            .filter_map(|(source, cause, until)| {
                let source = self.origin(*source)?;
                Some(Behind { source, cause: cause.clone(), until: *until })
            })
            .collect()
    }

    /// Holds against each source what was refused of it, once it is clear who gave what.
    fn settle(&mut self, now: Seconds) {
        let refused = std::mem::take(&mut self.file).refused;
        for (at, one) in refused.iter().enumerate() {
            let mut others = refused.iter().enumerate().filter(|(other, _)| *other != at);
            if !others.any(|(_, other)| one.same(other)) {
                self.put_behind(one.source, Cause::Refused(one.why.clone()), now);
            }
        }
    }

    /// Puts a source behind the others, where there are others.
    fn put_behind(&mut self, source: usize, cause: Cause, now: Seconds) {
        let span = match cause {
            Cause::Refused(_) => BEHIND_REFUSED,
            Cause::Failed(_) => BEHIND_FAILED,
        };
        let until = Seconds(now.0.saturating_add(span.0));
        let longer = self.behind.iter().any(|(known, _, end)| *known == source && *end > until);
        if self.origins.len() > 1 && !longer {
            self.behind.retain(|(known, ..)| *known != source);
            self.behind.push((source, cause, until));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const NOW: Seconds = Seconds(1_000);
    const SOON: Duration = Duration::from_millis(5);
    const FILE: &str = "/repo/metadata/timestamp.json";

    #[test]
    fn the_same_file_is_asked_of_each_source_once_and_a_liar_comes_last_afterwards() {
        let mut order = order(2);
        assert_eq!(order.begin(FILE, NOW), [0, 1, 2]);
        order.gave(0, b"garbage", SOON, NOW);
        assert_eq!(order.refused("not acceptable JSON"), Another::Source);
        assert_eq!(order.begin(FILE, NOW), [1, 2]);
        order.gave(1, b"the true one", SOON, NOW);
        assert_eq!(order.begin("/repo/metadata/7.snapshot.json", NOW), [1, 2, 0]);
        let behind = order.behind(NOW);
        assert_eq!(behind.len(), 1);
        assert_eq!(behind[0].source, origin(0));
        assert_eq!(behind[0].cause, Cause::Refused("not acceptable JSON".into()));
        let later = Seconds(NOW.0 + BEHIND_REFUSED.0);
        assert_eq!(order.begin(FILE, later), [0, 1, 2], "nobody is passed over for good");
        assert_eq!(order.behind(later), []);
    }

    #[test]
    fn who_gives_what_the_server_gives_is_not_called_a_liar() {
        let mut order = order(1);
        for (source, again) in [(0, Another::Source), (1, Another::Nobody)] {
            order.begin(FILE, NOW);
            order.gave(source, b"expired", SOON, NOW);
            assert_eq!(order.refused("it has expired"), again);
        }
        assert_eq!(order.behind(NOW), []);
        assert_eq!(order.begin(FILE, NOW), [0, 1]);
    }

    #[test]
    fn a_source_that_is_slow_silent_or_without_a_named_file_is_behind_for_a_short_while() {
        let mut order = order(3);
        order.begin("/repo/targets/policy.json", NOW);
        order.gave(0, b"policy", SLOW * 2, NOW);
        order.begin("/repo/targets/policy.json", NOW);
        let gone = TransportError::NotFound { url: "x".into(), problem: None };
        order.failed(1, &gone, NOW);
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        order.failed(2, &TransportError::Unreachable { origin: origin(2), source }, NOW);
        order.failed(3, &gone, NOW);
        assert_eq!(order.begin(FILE, NOW), [3, 0, 1, 2]);
        assert!(order.behind(NOW).iter().all(|one| matches!(one.cause, Cause::Failed(_))));
        assert_eq!(order.begin(FILE, Seconds(NOW.0 + BEHIND_FAILED.0)), [0, 1, 2, 3]);
    }

    #[test]
    fn that_there_is_no_newer_root_is_held_against_nobody() {
        let mut order = order(1);
        order.begin("/repo/metadata/2.root.json", NOW);
        order.failed(0, &TransportError::NotFound { url: "x".into(), problem: None }, NOW);
        assert_eq!(order.begin(FILE, NOW), [0, 1]);
    }

    #[test]
    fn a_lie_is_remembered_longer_than_the_failure_that_comes_after_it() {
        let mut order = order(1);
        order.begin(FILE, NOW);
        order.gave(0, b"garbage", SOON, NOW);
        order.refused("garbage");
        order.begin(FILE, NOW);
        order.gave(1, b"the true one", SOON, NOW);
        order.begin(FILE, NOW);
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        order.failed(0, &TransportError::Unreachable { origin: origin(0), source }, NOW);
        assert_eq!(order.behind(NOW)[0].cause, Cause::Refused("garbage".into()));
    }

    #[test]
    fn what_is_refused_in_one_turn_is_bounded_in_number_and_in_bytes() {
        let mut asked = 0;
        let mut many = order(1);
        // Another file each time, so that every one has a source left.
        while asked < 1_000 {
            many.begin(&format!("/repo/targets/{asked}"), NOW);
            many.gave(0, b"garbage", SOON, NOW);
            asked += 1;
            if many.refused("garbage") == Another::Nobody {
                break;
            }
        }
        assert_eq!(asked, REFUSALS);
        many.end_turn(NOW);
        many.begin(FILE, NOW);
        many.gave(0, b"garbage", SOON, NOW);
        assert_eq!(many.refused("garbage"), Another::Source, "the next turn begins anew");

        let mut large = order(1);
        let bytes = vec![0; usize::try_from(REFUSED_BYTES / 2).expect("it fits")];
        for (file, again) in [("/a", Another::Source), ("/b", Another::Nobody)] {
            large.begin(file, NOW);
            large.gave(0, &bytes, SOON, NOW);
            assert_eq!(large.refused("garbage"), again);
        }
    }

    #[test]
    fn whoever_was_tried_for_one_file_is_asked_for_the_next() {
        let mut order = order(2);
        order.begin(FILE, NOW);
        order.gave(0, b"garbage", SOON, NOW);
        assert_eq!(order.refused("garbage"), Another::Source);
        // Nobody asks for that file again, but for another.
        assert_eq!(order.begin("/repo/metadata/2.root.json", NOW), [1, 2, 0]);
    }

    #[test]
    fn where_nothing_came_nobody_is_blamed_and_nobody_else_is_asked() {
        let mut order = order(1);
        order.begin(FILE, NOW);
        assert_eq!(order.refused("the beginning was read before"), Another::Nobody);
        assert_eq!(order.begin(FILE, NOW), [0, 1]);
        assert_eq!(order.behind(NOW), []);
    }

    #[test]
    fn what_is_the_devices_own_fault_is_held_against_no_source() {
        let mut order = order(1);
        order.begin("/repo/targets/policy.json", NOW);
        order.failed(0, &TransportError::Terminated, NOW);
        assert_eq!(order.begin(FILE, NOW), [0, 1]);
    }

    #[test]
    fn of_a_payload_from_a_mirror_and_the_server_the_mirror_is_suspected() {
        let mut order = order(1);
        order.begin("/artifacts/x", NOW);
        order.gave_part(0);
        order.gave_part(1);
        assert_eq!(order.refused("another digest"), Another::Source);
        assert_eq!(order.begin("/artifacts/x", NOW), [1]);
        order.gave_part(1);
        assert_eq!(order.begin("/artifacts/y", NOW), [1, 0]);
    }

    #[test]
    fn a_server_without_mirrors_is_never_behind() {
        let mut order = order(0);
        order.begin(FILE, NOW);
        order.gave(0, b"garbage", SLOW * 2, NOW);
        assert_eq!(order.refused("garbage"), Another::Nobody);
        assert_eq!(order.behind(NOW), []);
    }

    /// So many mirrors, and the server.
    fn order(mirrors: usize) -> Order {
        Order::new((0..mirrors).map(origin).collect(), origin(99))
    }

    fn origin(number: usize) -> Origin {
        format!("https://source-{number}.example.org").parse().expect("an address")
    }
}
