//! What one source does wrong, the next one makes good: file by file, within bounds, and without
//! anything becoming believed that one source alone would not have made so.

use std::fmt::Display;

use serde_json::json;

use super::testkit::{DAY, Device, HOUR, NOW, Repo, at, key, sign};
use super::updater::Change;
use super::{Another, Fetch, FetchError, SOURCES_PER_FILE, TufError};

const PATH: &str = "app/1";

#[test]
fn any_file_that_a_liar_spoils_comes_from_the_next_source() {
    let mut honest = repository();
    honest.publish("root");
    for file in files(&honest) {
        for lie in [&b"garbage"[..], b"", b"{}", b"null"] {
            let mut liar = honest.clone();
            liar.spoil(&file, lie);
            let mut sources = Sources::of([liar, honest.clone()]);
            let mut device = Device::new(&honest);
            let found = read_all(&mut device, &mut sources, NOW);
            assert_eq!(found.expect(&file), b"the app", "{file} as {lie:?}");
            assert_eq!(sources.refusals.len(), 1, "{file}: {:?}", sources.refusals);
        }
    }
}

#[test]
fn a_chain_may_come_in_parts_from_several_sources() {
    let honest = repository();
    let files = files(&honest);
    // Each source has one good file, and the honest one is not among them.
    let sources = files.iter().map(|good| {
        let mut source = honest.clone();
        for file in files.iter().filter(|file| *file != good) {
            source.spoil(file, b"garbage");
        }
        source
    });
    let mut sources = Sources::of(sources);
    let found = read_all(&mut Device::new(&honest), &mut sources, NOW);
    assert_eq!(found.expect("all parts are there"), b"the app");
}

#[test]
fn what_a_stranger_signed_or_what_is_old_or_expired_comes_from_the_next_source_too() {
    let mut honest = repository();
    let mut device = Device::settled(&mut honest);
    honest.release();
    let old = honest.clone();
    honest.release();
    let mut settled = Sources::of([honest.clone()]);
    device.refresh(&mut settled, NOW).expect("an honest repository");

    honest.release();
    let mut stranger = honest.clone();
    let forged = sign(&stranger.roles["timestamp"], &[key(90)]);
    stranger.files.insert("timestamp.json".into(), forged);
    let mut expired = honest.clone();
    expired.role("timestamp")["expires"] = json!(at(NOW - DAY));
    expired.publish("timestamp");
    honest.publish("timestamp");
    honest.publish("timestamp");
    for (source, why) in
        [(stranger, "0 valid signatures"), (old, "is offered in version"), (expired, "expired")]
    {
        let mut sources = Sources::of([source, honest.clone()]);
        let refreshed = device.twin().refresh(&mut sources, NOW).expect(why);
        assert_eq!(refreshed.status.timestamp_version, honest.version("timestamp"));
        assert!(sources.refusals[0].contains(why), "{:?}", sources.refusals);
    }
}

#[test]
fn where_every_source_lies_the_refresh_ends_with_the_reason_and_nothing_is_kept() {
    let honest = repository();
    let mut liar = honest.clone();
    liar.spoil("timestamp.json", b"garbage");
    let mut device = Device::new(&honest);
    let mut sources = Sources::of([liar.clone(), liar]);
    let error = device.refresh(&mut sources, NOW).expect_err("nobody had a timestamp");
    assert!(matches!(error, TufError::Malformed { .. }), "{error:?}");
    assert_eq!(sources.refusals.len(), 2);
    assert!(device.disk.files.is_empty(), "{:?}", device.disk.log);
}

#[test]
fn a_source_that_always_offers_another_is_left_after_a_bounded_number_of_reads() {
    /// Spoils one file and never says that it was enough.
    struct Endless {
        repo: Repo,
        spoiled: String,
        reads: u32,
    }
    impl Fetch for Endless {
        fn metadata(&mut self, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
            if name != self.spoiled {
                return self.repo.metadata(name, max);
            }
            self.reads += 1;
            Ok(b"garbage".to_vec())
        }
        fn target(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
            self.repo.target(path, max)
        }
        fn refused(&mut self, _: &dyn Display) -> Another {
            Another::Source
        }
    }
    for spoiled in ["2.root.json", "timestamp.json", "2.snapshot.json"] {
        let mut endless = Endless { repo: repository(), spoiled: spoiled.into(), reads: 0 };
        let ended = Device::new(&repository()).refresh(&mut endless, NOW);
        assert!(
            matches!(ended, Err(TufError::Length { .. } | TufError::Malformed { .. })),
            "{ended:?}"
        );
        assert_eq!(endless.reads, SOURCES_PER_FILE, "{spoiled}");
    }
}

#[test]
fn a_root_that_no_source_has_ends_the_walk_though_one_of_them_lied() {
    let honest = repository();
    let mut liar = honest.clone();
    liar.files.insert("2.root.json".into(), b"garbage".to_vec());
    let mut sources = Sources::of([liar, honest.clone()]);
    let refreshed = Device::new(&honest).refresh(&mut sources, NOW).expect("no newer root");
    assert_eq!(refreshed.status.root_version, 1);
    assert_eq!(sources.refusals.len(), 1);
}

#[test]
fn of_sources_that_stand_still_the_newest_counts_and_a_fresh_one_before_all() {
    let mut early = repository();
    issue(&mut early, NOW - 3 * HOUR);
    let mut late = early.clone();
    issue(&mut late, NOW - 2 * HOUR);
    let mut fresh = late.clone();
    issue(&mut fresh, NOW);
    for (sources, expected, refusals) in [
        (vec![&early, &late], &late, 2),
        (vec![&late, &early], &late, 2),
        (vec![&early, &fresh, &late], &fresh, 1),
        (vec![&fresh, &early], &fresh, 0),
    ] {
        let mut sources = Sources::of(sources.into_iter().cloned());
        let refreshed = Device::new(&early).refresh(&mut sources, NOW).expect("good ones");
        assert_eq!(refreshed.status.timestamp_version, expected.version("timestamp"));
        assert_eq!(sources.refusals.len(), refusals, "{:?}", sources.refusals);
        assert!(
            sources
                .refusals
                .iter()
                .all(|why| why.contains("was signed") || why.contains("offered"))
        );
    }
    // Nothing is better elsewhere: what the standing one says still counts.
    let mut down = late.clone();
    down.faults.insert("timestamp.json".into(), FetchError::Failed("reset".into()));
    let refreshed = Device::new(&early)
        .refresh(&mut Sources::of([late.clone(), down]), NOW)
        .expect("a good one");
    assert_eq!(refreshed.change, Change::Content);
}

#[test]
fn a_disk_that_is_full_is_held_against_no_source() {
    let honest = repository();
    let mut device = Device::new(&honest);
    device.disk.power = Some(0);
    let mut sources = Sources::of([honest.clone(), honest]);
    let error = device.refresh(&mut sources, NOW).expect_err("nothing can be kept");
    assert!(matches!(error, TufError::Store(_)), "{error:?}");
    assert!(sources.refusals.is_empty(), "{:?}", sources.refusals);
}

/// Sources in their order, asked as a transport asks them: where one has not got a file, the next one
/// is asked at once.
struct Sources {
    each: Vec<Repo>,
    file: String,
    turn: usize,
    again: bool,
    refusals: Vec<String>,
}

impl Sources {
    fn of(each: impl IntoIterator<Item = Repo>) -> Self {
        let each = each.into_iter().collect();
        Self { each, file: String::new(), turn: 0, again: false, refusals: Vec::new() }
    }

    fn read(
        &mut self,
        name: &str,
        read: impl Fn(&mut Repo) -> Result<Vec<u8>, FetchError>,
    ) -> Result<Vec<u8>, FetchError> {
        if !(std::mem::take(&mut self.again) && self.file == name) {
            (self.file, self.turn) = (name.to_owned(), 0);
        }
        let mut last = Err(FetchError::NotFound);
        while let Some(source) = self.each.get_mut(self.turn) {
            self.turn += 1;
            last = read(source);
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

impl Fetch for Sources {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        self.read(name, |source| source.metadata(name, max))
    }

    fn target(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        self.read(path, |source| source.target(path, max))
    }

    fn refused(&mut self, why: &dyn Display) -> Another {
        self.refusals.push(why.to_string());
        self.again = self.turn < self.each.len();
        if self.again { Another::Source } else { Another::Nobody }
    }
}

/// A repository with one target behind a delegation.
fn repository() -> Repo {
    let mut repo = Repo::new();
    repo.delegate("targets", "app", 6, &["app/*"]);
    repo.add("app", PATH, b"the app");
    repo.publish("app");
    repo.release();
    repo
}

/// Signs the timestamp anew, as of a moment.
fn issue(repo: &mut Repo, moment: i64) {
    repo.role("timestamp")["issued"] = json!(at(moment));
    repo.publish("timestamp");
}

/// Every file that a device reads of the repository.
fn files(repo: &Repo) -> Vec<String> {
    let mut files: Vec<String> = ["timestamp", "snapshot", "targets", "app"]
        .into_iter()
        .map(|role| repo.file(role))
        .collect();
    if repo.version("root") > 1 {
        files.push(repo.file("root"));
    }
    files.extend(repo.payloads.keys().cloned());
    files
}

fn read_all(device: &mut Device, sources: &mut Sources, now: i64) -> Result<Vec<u8>, TufError> {
    device.refresh(sources, now)?;
    let found = device.find(sources, PATH, now)?.expect("it is listed");
    device.bytes(sources, &found)
}
