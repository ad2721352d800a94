//! Two makers' TUF clients, the agent's and `sigstore-tuf`, are given the same hostile repositories,
//! made at random from a seed: the same bytes at the same time, in sequences of refreshes. They must
//! give the same verdict and the same bytes, or the difference stands explained in `explained.rs`.
//!
//! A failure names its case; `LOCKGATE_TUF_CASE=N cargo test -p lockgate-test-fleet --test
//! tuf_differential` tries that one alone and tells what it does. `LOCKGATE_TUF_FROM=N` and
//! `LOCKGATE_TUF_CASES=N` try others.

mod chance;
mod clients;
mod explained;
mod hostility;
mod repository;
mod tampering;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex};

use serde_json::json;

use chance::Dice;
use clients::{Answer, Ours, Refusal, Theirs};
use explained::{EXPLAINED, RARE, Side};
use hostility::{ACTS, Scope};
use repository::{DAY, HOUR, PATHS, Pins, Repository, TARGETS_ROLES};
use tampering::TAMPERINGS;

/// Cases that find out a faulty client: each fault shows in dozens of them.
const FAULTY_CASES: u64 = 120;
/// Cases of one run: about twelve seconds on two cores that have nothing else to do.
const CASES: u64 = 2_500;

#[test]
fn on_hostile_repositories_the_verdicts_agree_or_the_difference_is_explained() {
    if let Some(case) = number("LOCKGATE_TUF_CASE") {
        let told = Case::new(case).run(&mut Tally::default(), &mut |line| println!("{line}"));
        assert!(told.is_ok(), "{}", told.expect_err("just seen"));
        return;
    }
    let from = number("LOCKGATE_TUF_FROM").unwrap_or(0);
    let cases = number("LOCKGATE_TUF_CASES").unwrap_or(CASES);
    let (next, total) = (AtomicU64::new(from), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut tally = Tally::default();
                loop {
                    let case = next.fetch_add(1, Relaxed);
                    if case >= from + cases {
                        break;
                    }
                    if let Err(unexplained) = Case::new(case).run(&mut tally, &mut |_| {}) {
                        tally.unexplained.push(unexplained);
                    }
                }
                total.lock().expect("no holder panicked").add(tally);
            });
        }
    });
    let tally = total.into_inner().expect("no holder panicked");
    println!("{tally:#?}");
    tally.judge(cases);
}

#[test]
fn an_honest_repository_is_read_to_the_last_target_by_both() {
    for pins in [Pins::All, Pins::Version] {
        for consistent in [true, false] {
            let mut repo = Repository::new(pins, json!(consistent));
            let anchor = repo.mirror.files["1.root.json"].clone();
            let (mut ours, mut theirs) = (Ours::new(&anchor), Theirs::new(&anchor));
            for _ in 0..3 {
                ours.refresh(&repo.mirror, repo.now).expect("an honest repository");
                theirs.refresh(&repo.mirror, repo.now).expect("an honest repository");
                for path in &PATHS[..7] {
                    let bytes = ours.target(&repo.mirror, path, repo.now).expect("a target");
                    assert_eq!(bytes, theirs.target(path, repo.now).expect("a target"));
                    assert!(bytes.starts_with(path.as_bytes()));
                }
                repo.now += HOUR;
                repo.add("app", "app/1", format!("app/1 at {}", repo.now).as_bytes());
                repo.publish("root");
                repo.release();
            }
        }
    }
}

#[test]
fn a_client_with_a_fault_is_found_out_by_the_comparison() {
    for (fault, words) in [
        (Fault::TakesWhatExpired, "TheirsRefuses at refresh: Expired"),
        (Fault::TakesWhatNobodySigned, "TheirsRefuses at refresh: Threshold"),
        (Fault::RefusesWhatIsGood, "OursRefuses at refresh: Fault"),
        (Fault::FindsNothing, "OursRefuses at app/1: Fault"),
        (Fault::GivesOtherBytes, "gave bytes for `app/1` that nobody listed"),
    ] {
        let mut tally = Tally::default();
        for number in 0..FAULTY_CASES {
            let case = Case { fault: Some(fault), ..Case::new(number) };
            if let Err(unexplained) = case.run(&mut tally, &mut |_| {}) {
                tally.unexplained.push(unexplained);
            }
        }
        let named = tally.unexplained.iter().any(|line| line.contains(words));
        assert!(named, "{fault:?} is not told as {words:?}: {:#?}", tally.unexplained);
        let judged = catch_unwind(AssertUnwindSafe(|| tally.judge(FAULTY_CASES)));
        assert!(judged.is_err(), "{fault:?} is let pass");
    }
}

/// What is done to our side, to see the comparison fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    TakesWhatExpired,
    TakesWhatNobodySigned,
    RefusesWhatIsGood,
    FindsNothing,
    GivesOtherBytes,
}

impl Fault {
    fn refreshed(self, result: Result<(), Refusal>) -> Result<(), Refusal> {
        match (self, result) {
            (Self::TakesWhatExpired, Err(why)) if why.kind == "Expired" => Ok(()),
            (Self::TakesWhatNobodySigned, Err(why)) if why.kind == "Signatures" => Ok(()),
            (Self::RefusesWhatIsGood, Ok(())) => Err(Self::refusal()),
            (_, result) => result,
        }
    }

    fn found(self, path: &str, answer: Answer) -> Answer {
        match (self, answer) {
            (Self::FindsNothing, Ok(_)) if path == "app/1" => Err(Self::refusal()),
            (Self::GivesOtherBytes, Ok(mut bytes)) if path == "app/1" => {
                bytes.push(b'!');
                Ok(bytes)
            }
            (_, answer) => answer,
        }
    }

    fn refusal() -> Refusal {
        Refusal { kind: "Fault".into(), text: "made for this test".into() }
    }
}

/// One sequence of refreshes.
struct Case {
    number: u64,
    /// What is wrong with ours on purpose.
    fault: Option<Fault>,
    dice: Dice,
    /// What the operator means.
    good: Repository,
    ours: Ours,
    theirs: Theirs,
    /// The newest timestamp that the referee ever took.
    newest: Option<u64>,
    /// What was done so far.
    done: BTreeSet<&'static str>,
    /// What was served as which version of which role.
    served: BTreeMap<(String, String), Vec<u8>>,
}

impl Case {
    fn new(number: u64) -> Self {
        let mut dice = Dice::new(number.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let pins = if dice.one_in(2) { Pins::All } else { Pins::Version };
        let consistent = !dice.one_in(4);
        let good = base(pins, consistent);
        let anchor = good.mirror.files["1.root.json"].clone();
        let (ours, theirs) = (Ours::new(&anchor), Theirs::new(&anchor));
        let fault = None;
        Self {
            number,
            fault,
            dice,
            good,
            ours,
            theirs,
            newest: None,
            done: BTreeSet::new(),
            served: BTreeMap::new(),
        }
    }

    /// Runs to the end, or to the first difference: after it the two have different pasts.
    fn run(mut self, tally: &mut Tally, tell: &mut dyn FnMut(String)) -> Result<(), String> {
        for step in 0..2 + self.dice.below(4) {
            let mut served = self.operate();
            // Beginnings are honest more often than not, so that there is something to lose.
            let acts = if step == 0 && !self.dice.one_in(3) { 0 } else { self.dice.below(4) };
            self.attack(&mut served, acts, tell);
            self.notice_twins(&served);
            if self.dice.one_in(3) {
                tell("both restart".to_owned());
                self.ours.restart();
                self.theirs.restart();
            }
            let now = self.clock();
            tell(format!("both refresh at {}", repository::at(now)));
            let newest = self.newest;
            let (ours, theirs) = (self.ours.refresh(&served.mirror, now), self.judge(&served, now));
            let ours = self.fault.map_or(ours.clone(), |fault| fault.refreshed(ours));
            tell(format!("  ours {ours:?}\n  theirs {theirs:?}"));
            self.newest = newest.max(self.theirs.kept()[1]);
            tally.count(&ours);
            match (ours, theirs) {
                (Ok(()), Ok(())) => {}
                (Err(ours), Err(theirs)) => match self.ahead(newest) {
                    None => continue,
                    // Ours has an older one because it took what the referee refused for its age.
                    Some(_) if theirs.is_older("timestamp") => {
                        return self.explain(Side::TheirsRefuses, "what is kept", &theirs, tally);
                    }
                    Some(Side::TheirsRefuses) => {
                        return self.explain(Side::TheirsRefuses, "what is kept", &theirs, tally);
                    }
                    Some(side) => return self.explain(side, "what is kept", &ours, tally),
                },
                (Err(why), Ok(())) => {
                    return self.explain(Side::OursRefuses, "refresh", &why, tally);
                }
                (Ok(()), Err(why)) if self.held_explains(&served, now, None) => {
                    tally.held += 1;
                    tell(format!("ours holds what theirs fetches again: {}", why.kind));
                    return Ok(());
                }
                (Ok(()), Err(why)) => {
                    return self.explain(Side::TheirsRefuses, "refresh", &why, tally);
                }
            }
            for path in PATHS {
                let ours = self.ours.target(&served.mirror, path, now);
                let ours = self.fault.map_or(ours.clone(), |fault| fault.found(path, ours));
                let theirs = self.theirs.target(path, now);
                tell(format!("  {path}: ours {}\n    theirs {}", told(&ours), told(&theirs)));
                if self.settle(&served, now, path, (ours, theirs), tally)? == Settled::Apart {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What an operator does between two refreshes.
    fn operate(&mut self) -> Repository {
        let Self { good, dice, .. } = self;
        good.now += HOUR * dice.below(30) as i64;
        if dice.one_in(4) {
            good.publish("root");
        }
        for role in TARGETS_ROLES {
            if dice.one_in(3) {
                let paths: Vec<String> = good.roles[role]["targets"]
                    .as_object()
                    .map(|targets| targets.keys().cloned().collect())
                    .unwrap_or_default();
                if !paths.is_empty() {
                    let path = dice.pick(&paths).clone();
                    good.add(role, &path, format!("{path} at {}", good.now).as_bytes());
                }
                good.publish(role);
            }
        }
        if !dice.one_in(4) {
            good.publish("snapshot");
        }
        if !dice.one_in(5) {
            good.publish("timestamp");
        }
        good.clone()
    }

    /// Signs what should not be signed, from the leaves to the timestamp as an operator would, then
    /// tampers with what is served.
    fn attack(&mut self, repo: &mut Repository, acts: usize, tell: &mut dyn FnMut(String)) {
        let mut chosen: BTreeMap<usize, Vec<&hostility::Act>> = BTreeMap::new();
        let mut tamperings = Vec::new();
        for _ in 0..acts {
            if self.dice.one_in(3) {
                tamperings.push(self.dice.pick(TAMPERINGS));
            } else {
                let act = self.dice.pick(ACTS);
                chosen.entry(self.place(act.scope)).or_default().push(act);
            }
        }
        let signing = !chosen.is_empty();
        for (place, role) in ORDER.into_iter().enumerate() {
            let mut acts = chosen.remove(&place).unwrap_or_default();
            // What breaks a document's form comes last: the others need the form.
            acts.sort_by_key(|act| BREAKING.contains(&act.name));
            let follows = signing && matches!(role, "snapshot" | "timestamp");
            if acts.is_empty() && !follows {
                continue;
            }
            repo.renew(role);
            let file = repo.file(role);
            for act in acts {
                tell(format!("{role}: {}", act.name));
                self.done.insert(act.name);
                (act.perform)(repo, role, &mut self.dice);
            }
            repo.serve(role);
            // Whatever version it says it has, it comes when the next one is asked for.
            let bytes = repo.past[role].last().expect("just served").1.clone();
            repo.mirror.files.insert(file, bytes);
        }
        let whole = !BREAKING.iter().any(|name| self.done.contains(name));
        if signing && whole && self.dice.one_in(3) {
            tell("and the operator goes on from there".to_owned());
            self.good = repo.clone();
        } else if signing {
            for role in &ORDER[1..] {
                let hostile = repo.roles[*role]["version"].as_u64().unwrap_or(0);
                if hostile < 10_000 && Some(hostile) > self.good.roles[*role]["version"].as_u64() {
                    self.good.role(role)["version"] = json!(hostile);
                }
            }
        }
        for tampering in tamperings {
            tell(format!("mirror: {}", tampering.name));
            self.done.insert(tampering.name);
            (tampering.perform)(repo, &mut self.dice);
        }
    }

    /// Notes whether some version of a role has been served in two contents.
    fn notice_twins(&mut self, repo: &Repository) {
        for (role, past) in &repo.past {
            for (version, bytes) in past {
                let first = self.served.entry((role.clone(), version.clone()));
                if first.or_insert_with(|| bytes.clone()) != bytes {
                    self.done.insert("one version, two contents");
                }
            }
        }
    }

    /// Where in the order of signing a role stands that an act of this scope may be done to.
    fn place(&mut self, scope: Scope) -> usize {
        let delegators = ["targets", "targets", "app", "lib"];
        let role = match scope {
            Scope::Any => *self.dice.pick(&ORDER),
            Scope::Root => "root",
            Scope::Parent => *self.dice.pick(&["snapshot", "timestamp"]),
            Scope::Snapshot => "snapshot",
            Scope::Targets => *self.dice.pick(&TARGETS_ROLES),
            Scope::Delegator => *self.dice.pick(&delegators),
        };
        ORDER.iter().position(|known| *known == role).expect("a role of the base")
    }

    /// What the device's clock says: mostly the truth.
    fn clock(&mut self) -> i64 {
        let off = match self.dice.below(12) {
            0 => -30,
            1 => -3 * DAY,
            2 => -400 * DAY,
            3 => 8 * DAY,
            4 => 4_000 * DAY,
            _ => 0,
        };
        if !(-30..=0).contains(&off) {
            self.done.insert("the clock is wrong");
        }
        self.good.now + off
    }

    /// Which of the two, after both refused, has gone no further than the other: the root and the
    /// timestamp that one of them keeps bind it from now on. `newest` is the newest timestamp that
    /// the referee had before.
    fn ahead(&self, newest: Option<u64>) -> Option<Side> {
        let ([root, timestamp], [their_root, their_timestamp]) =
            (self.ours.kept(), self.theirs.kept());
        // Who has no timestamp has less than who has just taken one. Who forgot it with its keys has not,
        // as long as the other keeps what it had.
        let taken = newest < their_timestamp;
        let timestamp = if taken { timestamp.or(Some(0)) } else { timestamp };
        for (ours, theirs) in [(root, their_root), (timestamp, their_timestamp)] {
            let (Some(ours), Some(theirs)) = (ours, theirs) else { continue };
            match ours.cmp(&theirs) {
                Ordering::Less => return Some(Side::OursRefuses),
                Ordering::Equal => {}
                Ordering::Greater => return Some(Side::TheirsRefuses),
            }
        }
        None
    }

    /// Whether the referee gives what ours gives once it is served what ours verified before and
    /// still holds: ours does not fetch a role again whose name, version, length and hashes stand
    /// unchanged in the snapshot, so a mirror that spoils it spoils nothing.
    fn held_explains(
        &mut self,
        repo: &Repository,
        now: i64,
        target: Option<(&str, &[u8])>,
    ) -> bool {
        let mended = self.ours.mend(&repo.mirror);
        self.theirs.restart();
        let refreshed = self.theirs.refresh(&mended, now).is_ok();
        refreshed
            && target.is_none_or(|(path, bytes)| {
                self.theirs.target(path, now).is_ok_and(|theirs| theirs == bytes)
            })
    }

    fn judge(&mut self, repo: &Repository, now: i64) -> Result<(), Refusal> {
        let theirs = &mut self.theirs;
        catch_unwind(AssertUnwindSafe(|| theirs.refresh(&repo.mirror, now))).unwrap_or_else(|_| {
            Err(Refusal { kind: "Panic".to_owned(), text: "the referee panicked".to_owned() })
        })
    }

    /// Compares what the two say about one target. Neither may give what no role ever listed.
    fn settle(
        &mut self,
        repo: &Repository,
        now: i64,
        path: &str,
        (ours, theirs): (Answer, Answer),
        tally: &mut Tally,
    ) -> Result<Settled, String> {
        if let Ok(bytes) = &ours
            && !repo.listed.contains(&(path.to_owned(), bytes.clone()))
        {
            let number = self.number;
            return Err(format!("case {number}: ours gave bytes for `{path}` that nobody listed"));
        }
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) if ours == theirs => tally.targets += 1,
            (Err(_), Err(_)) => {}
            (Ok(_), Ok(_)) => {
                let why = Refusal { kind: "OtherBytes".into(), text: "other bytes".into() };
                self.explain(Side::BothGive, path, &why, tally)?;
                return Ok(Settled::Apart);
            }
            (Err(why), Ok(_)) => {
                self.explain(Side::OursRefuses, path, &why, tally)?;
                return Ok(Settled::Apart);
            }
            (Ok(ours), Err(_)) if self.held_explains(repo, now, Some((path, &ours))) => {
                tally.held += 1;
                return Ok(Settled::Apart);
            }
            (Ok(_), Err(why)) => {
                self.explain(Side::TheirsRefuses, path, &why, tally)?;
                return Ok(Settled::Apart);
            }
        }
        Ok(Settled::Agreed)
    }

    fn explain(
        &self,
        side: Side,
        what: &str,
        why: &Refusal,
        tally: &mut Tally,
    ) -> Result<(), String> {
        match EXPLAINED.iter().chain(RARE).position(|row| row.covers(side, why, &self.done)) {
            Some(row) => {
                *tally.explained.entry(row).or_default() += 1;
                Ok(())
            }
            None => Err(format!(
                "case {}: {side:?} at {what}: {} ({}) after {:?}",
                self.number, why.kind, why.text, self.done
            )),
        }
    }
}

/// Acts after which a document has not the form that the others expect.
const BREAKING: [&str; 3] =
    ["a field missing", "a field of another kind", "delegations that are none"];

/// In which order roles are signed.
const ORDER: [&str; 8] = ["root", "beta", "app", "lib", "rest", "targets", "snapshot", "timestamp"];

#[derive(Debug, PartialEq, Eq)]
enum Settled {
    Agreed,
    Apart,
}

/// What became of the cases.
#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    refused: BTreeMap<String, u64>,
    targets: u64,
    /// Differences that vanish once the referee is served what ours holds.
    held: u64,
    explained: BTreeMap<usize, u64>,
    unexplained: Vec<String>,
}

impl Tally {
    fn count(&mut self, ours: &Result<(), Refusal>) {
        match ours {
            Ok(()) => self.accepted += 1,
            Err(why) => *self.refused.entry(why.kind.clone()).or_default() += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.targets += other.targets;
        self.held += other.held;
        for (kind, count) in other.refused {
            *self.refused.entry(kind).or_default() += count;
        }
        for (row, count) in other.explained {
            *self.explained.entry(row).or_default() += count;
        }
        self.unexplained.extend(other.unexplained);
    }

    /// Nothing unexplained; no row of the table that explains nothing; and both verdicts often enough
    /// that agreement means something.
    fn judge(&self, cases: u64) {
        let shown: Vec<&String> = self.unexplained.iter().take(10).collect();
        let count = self.unexplained.len();
        assert!(shown.is_empty(), "{count} unexplained differences, among them {shown:#?}");
        let refused: u64 = self.refused.values().sum();
        assert!(self.accepted > cases, "only {} refreshes were accepted", self.accepted);
        assert!(refused > cases / 2, "only {refused} refreshes were refused");
        assert!(self.targets > 5 * cases, "only {} targets were read", self.targets);
        if cases >= CASES {
            for (row, explained) in EXPLAINED.iter().enumerate() {
                let met = self.explained.contains_key(&row);
                assert!(met, "no case needs this explanation: {}", explained.reason);
            }
        }
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Ok(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Err(why) => why.text.clone(),
    }
}

/// The repository that every case begins with. Made once: its keys and signatures take time.
fn base(pins: Pins, consistent: bool) -> Repository {
    static BASES: LazyLock<[Repository; 4]> = LazyLock::new(|| {
        [(Pins::All, true), (Pins::All, false), (Pins::Version, true), (Pins::Version, false)]
            .map(|(pins, consistent)| Repository::new(pins, json!(consistent)))
    });
    let at = if pins == Pins::All { 0 } else { 2 } + usize::from(!consistent);
    BASES[at].clone()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}
