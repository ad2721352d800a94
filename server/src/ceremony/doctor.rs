//! Whether a repository is in good order, and for how long: ends of roles, thresholds, keys that sign
//! nothing, keys that somebody should look at again, the gatekeeper's last word. What is found is data,
//! for people, programs and metrics; the moment is an argument.
//!
//! It trusts nothing that it reads: what does not verify from the anchor on is the first finding, and
//! the last.

use std::collections::{BTreeMap, BTreeSet};

use lockgate_shared::{
    count::count,
    id::PublicKey,
    policy::{Policy, Role},
    time::{Moment, Seconds},
};
use serde::Serialize;
use tough::schema::{Role as _, RoleType, Signed, Snapshot, Targets, Timestamp};

use crate::tuf::{
    TufError,
    metadata::metadata_path,
    roles::{self, Holder},
    trusted::{Files, ROLLOUTS, Trusted},
};

/// Before a root's end: holders of its keys have to be brought together, from safes and from holidays.
pub const ROOT_WARNING: Seconds = Seconds(90 * 86_400);
/// Before the targets' end: the same people, or some of them.
pub const TARGETS_WARNING: Seconds = Seconds(60 * 86_400);
/// Before the end of a release role: authors are at work every week.
pub const RELEASE_WARNING: Seconds = Seconds(30 * 86_400);
/// Before the end of snapshot and `rollouts`, which are signed again at half of a week: with two days
/// left the gatekeeper has been still for more than a day.
pub const ONLINE_WARNING: Seconds = Seconds(2 * 86_400);
/// Before the end of a timestamp, which is good for a day and signed every ten minutes.
pub const TIMESTAMP_WARNING: Seconds = Seconds(43_200);
/// The age of the gatekeeper's last timestamp at which it has missed three in a row.
pub const TIMESTAMP_AGE_WARNING: Seconds = Seconds(1_800);
/// The age at which devices stop activating, where a ladder says nothing else.
pub const TIMESTAMP_AGE_BAD: Seconds = Seconds(3_600);
/// Before the date at which somebody should look at a third party's key.
pub const REVIEW_WARNING: Seconds = Seconds(30 * 86_400);

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// As it should be.
    Good,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Stopped, by people or by the gate: somebody decides how it goes on.
    Stopped,
    /// Something has to be done soon.
    Soon,
    /// Devices refuse it now, or soon will.
    Bad,
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub grade: Grade,
    /// What it is about: a role, a key, a threshold.
    pub what: String,
    /// In a sentence.
    pub text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How long before its end a role must be looked at.
pub fn warning(role: &str) -> Seconds {
    match role {
        "root" => ROOT_WARNING,
        "targets" => TARGETS_WARNING,
        "timestamp" => TIMESTAMP_WARNING,
        "snapshot" | ROLLOUTS => ONLINE_WARNING,
        _ => RELEASE_WARNING,
    }
}

/// Examines a repository's files. Trust begins at `anchor`.
pub fn examine(anchor: &[u8], files: &Files, now: Moment) -> Vec<Finding> {
    let trusted = match Trusted::read(anchor, files) {
        Ok(trusted) => trusted,
        Err(error) => {
            let text = "it does not verify: ".to_owned() + &error.to_string();
            return vec![Finding::of(Grade::Bad, "repository", text)];
        }
    };
    let mut found = Vec::new();
    for (role, version, expires) in trusted.expiries() {
        let hint = format!(
            "`lockgate repo resign {role} --repository DIR --out CHANGE`, then `lockgate repo sign`"
        );
        found.push(expiry(&role, version, expires, now).hint(hint));
    }
    let unsigned = trusted.unsigned_products();
    found.extend(unsigned.into_iter().map(|role| {
        let text = "its present keys have not signed it: devices refuse it".to_owned();
        let hint = format!("`lockgate repo resign {role} --repository DIR --out CHANGE`");
        Finding::of(Grade::Bad, &role, text).hint(hint)
    }));
    match online(&trusted, files, now) {
        Ok(more) => found.extend(more),
        Err(error) => {
            let text = format!("they do not verify: {error}");
            let hint = "look at the gatekeeper's log; it may lack its keys".to_owned();
            found.push(Finding::of(Grade::Bad, "gatekeeper's roles", text).hint(hint));
        }
    }
    // Trusted metadata has these roles: it was verified by them.
    found.extend(keys(&trusted).unwrap_or_default());
    found.extend(people(trusted.policy()));
    found.extend(reviews(trusted.policy(), now));
    found
}

/// The worst grade of all.
pub fn worst(findings: &[Finding]) -> Grade {
    findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Good)
}

impl Finding {
    fn of(grade: Grade, what: &str, text: String) -> Self {
        Self { grade, what: what.to_owned(), text, hint: None }
    }

    /// With what to do, unless all is well.
    fn hint(self, hint: String) -> Self {
        match self.grade {
            Grade::Good => self,
            Grade::Note | Grade::Stopped | Grade::Soon | Grade::Bad => {
                Self { hint: Some(hint), ..self }
            }
        }
    }
}

fn expiry(role: &str, version: u64, expires: Moment, now: Moment) -> Finding {
    if expires <= now {
        let text = format!("version {version} ended at {expires}: devices refuse it");
        return Finding::of(Grade::Bad, role, text);
    }
    let left = days(expires.since(now));
    let grade = if expires <= now.plus(warning(role)) { Grade::Soon } else { Grade::Good };
    Finding::of(grade, role, format!("version {version} is good until {expires} ({left})"))
}

/// Whole days, or less than one in hours.
fn days(span: Seconds) -> String {
    match span.0 / 86_400 {
        0 => format!("{} h", span.0 / 3_600),
        days => count(days, "day", "days"),
    }
}

/// What the gatekeeper last signed.
fn online(trusted: &Trusted, files: &Files, now: Moment) -> Result<Vec<Finding>, TufError> {
    let Some(bytes) = files.get("metadata/timestamp.json") else {
        let text = "this copy has none: it was made before the gatekeeper's first word".to_owned();
        return Ok(vec![Finding::of(Grade::Note, "timestamp", text)]);
    };
    let missing = |what: &str| TufError::Missing { what: what.to_owned() };
    let timestamp: Signed<Timestamp> = roles::parse("timestamp", bytes)?;
    Holder::of_root(trusted.root(), RoleType::Timestamp)?.verify(&timestamp)?;
    let version = timestamp.signed.meta.get("snapshot.json").ok_or_else(|| missing("snapshot"))?;
    let path = metadata_path("snapshot", version.version.get());
    let snapshot: Signed<Snapshot> =
        roles::parse("snapshot", files.get(&path).ok_or_else(|| missing(&path))?)?;
    Holder::of_root(trusted.root(), RoleType::Snapshot)?.verify(&snapshot)?;
    let listed = snapshot.signed.meta.get("rollouts.json").ok_or_else(|| missing(ROLLOUTS))?;
    let path = metadata_path(ROLLOUTS, listed.version.get());
    let rollouts: Signed<Targets> =
        roles::parse(ROLLOUTS, files.get(&path).ok_or_else(|| missing(&path))?)?;
    let delegations = roles::delegations(trusted.targets())?;
    Holder::of_delegation(delegations, ROLLOUTS)?.verify(&rollouts)?;
    let still = || "the gatekeeper signs it by itself: is it running?".to_owned();
    let end = |at: jiff::Timestamp| Moment(at.as_second());
    let (t, s, r) = (&timestamp.signed, &snapshot.signed, &rollouts.signed);
    let mut found: Vec<Finding> = [
        expiry("timestamp", t.version.get(), end(t.expires), now),
        expiry("snapshot", s.version.get(), end(s.expires), now),
        expiry(ROLLOUTS, r.version().get(), end(r.expires), now),
    ]
    .into_iter()
    .map(|finding| finding.hint(still()))
    .collect();
    let issued = t._extra.get("issued").and_then(|value| value.as_str());
    if let Some(issued) = issued.and_then(Moment::parse_rfc3339) {
        found.push(age(issued, now).hint(still()));
    }
    Ok(found)
}

fn age(issued: Moment, now: Moment) -> Finding {
    let age = now.since(issued);
    let grade = match age {
        age if age >= TIMESTAMP_AGE_BAD => Grade::Bad,
        age if age >= TIMESTAMP_AGE_WARNING => Grade::Soon,
        _ => Grade::Good,
    };
    let text = match grade {
        Grade::Bad => format!("its last word is {age} old: devices activate nothing"),
        Grade::Good | Grade::Note | Grade::Stopped | Grade::Soon => {
            format!("its last word is {age} old")
        }
    };
    Finding::of(grade, "gatekeeper", text)
}

/// Thresholds, and keys that did not sign.
fn keys(trusted: &Trusted) -> Result<Vec<Finding>, TufError> {
    let mut found = Vec::new();
    let mut places: BTreeMap<PublicKey, BTreeSet<String>> = BTreeMap::new();
    let root = trusted.root();
    for role in [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
        let holder = Holder::of_root(root, role)?;
        for key in holder.keys() {
            places.entry(key).or_default().insert(role.to_string());
        }
    }
    let delegations = roles::delegations(trusted.targets())?;
    for role in &delegations.roles {
        for key in Holder::of_delegation(delegations, &role.name)?.keys() {
            let what = if role.name == ROLLOUTS { ROLLOUTS } else { "releases" };
            places.entry(key).or_default().insert(what.to_owned());
        }
    }
    for (role, holder, signers) in trusted.offices()? {
        found.extend(office(&role, &holder, &signers));
    }
    for (key, roles) in &places {
        if roles.len() > 1 {
            let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
            let text = format!("one key in several roles: {}", roles.join(", "));
            found.push(Finding::of(Grade::Note, &short(key), text));
        }
    }
    let tables = root.keys.len() + delegations.keys.len();
    let idle = root.keys.iter().chain(&delegations.keys).filter(|(_, key)| {
        super::metadata::public_key(key).is_none_or(|key| !places.contains_key(&key))
    });
    let idle = idle.count();
    if idle > 0 {
        let text = format!("{idle} of {tables} listed keys belong to no role");
        let hint = "the next `lockgate repo change` leaves them out".to_owned();
        found.push(Finding::of(Grade::Note, "keys", text).hint(hint));
    }
    Ok(found)
}

fn office(role: &str, holder: &Holder<'_>, signers: &BTreeSet<PublicKey>) -> Vec<Finding> {
    let (keys, threshold) = (holder.keys(), holder.threshold());
    let mut found = Vec::new();
    let shown = format!("{threshold} of {} keys must sign", keys.len());
    if keys.len() as u64 == threshold {
        let text = format!("{shown}: one that is lost stops every change");
        let hint = "give it one key more than must sign".to_owned();
        found.push(Finding::of(Grade::Note, role, text).hint(hint));
    } else if threshold == 1 {
        let text = format!("{shown}: one that is stolen is enough");
        found.push(Finding::of(Grade::Note, role, text));
    }
    for key in keys.difference(signers) {
        let text = format!("its key {} did not sign the present version", short(key));
        let hint = "have its holder show that it is still there: `lockgate key show`".to_owned();
        found.push(Finding::of(Grade::Note, role, text).hint(hint));
    }
    found
}

/// People whose key is asked for and missing.
fn people(policy: &Policy) -> Vec<Finding> {
    let asked =
        |roles: &BTreeSet<Role>| roles.contains(&Role::Approver) || roles.contains(&Role::Author);
    let without = policy.people.iter().filter(|(_, p)| asked(&p.roles) && p.keys.is_empty());
    without
        .map(|(name, _)| {
            Finding::of(Grade::Note, &name.to_string(), "signs, and has no key".to_owned())
        })
        .collect()
}

fn reviews(policy: &Policy, now: Moment) -> Vec<Finding> {
    let due = policy.reviews.iter().filter(|(_, date)| **date <= now.plus(REVIEW_WARNING));
    due.map(|(key, date)| {
        let word = if *date <= now { "was" } else { "is" };
        let text = format!("its review {word} due at {date}");
        let hint = "ask its holder whether it is still needed and still theirs, then give `[reviews]` of the plan the next date".to_owned();
        Finding::of(Grade::Soon, &short(key), text).hint(hint)
    })
    .collect()
}

/// Enough of a key to find it again.
fn short(key: &PublicKey) -> String {
    key.to_string().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ceremony::{
            init,
            plan::{Plan, tests::PLAN},
        },
        keys::Passphrase,
        tuf::{
            repository::{Repository, Terms},
            roles::OnlineKeys,
        },
    };

    const NOW: Moment = Moment(1_795_000_000);
    const DAY: u64 = 86_400;

    #[test]
    fn every_role_is_named_when_its_warning_begins_and_is_bad_when_it_has_ended() {
        let (anchor, files) = repository();
        for (role, life) in [("root", 365), ("targets", 365), ("releases-app", 90)] {
            let end = NOW.plus(Seconds(life * DAY));
            let grade = |now: Moment| {
                let found = examine(&anchor, &files, now);
                let own = found.into_iter().find(|finding| finding.what == role);
                own.expect("a finding").grade
            };
            let begins = end.minus(warning(role));
            assert_eq!(grade(begins.minus(Seconds(1))), Grade::Good, "{role}");
            assert_eq!(grade(begins), Grade::Soon, "{role}");
            assert_eq!(grade(end.minus(Seconds(1))), Grade::Soon, "{role}");
            assert_eq!(grade(end), Grade::Bad, "{role}");
        }
    }

    #[test]
    fn a_gatekeeper_that_has_gone_still_is_noticed_before_devices_stop_activating() {
        let (anchor, files) = repository();
        let grade = |after: u64| {
            let found = examine(&anchor, &files, NOW.plus(Seconds(after)));
            found.into_iter().find(|finding| finding.what == "gatekeeper").expect("found").grade
        };
        assert_eq!(grade(600), Grade::Good);
        assert_eq!(grade(TIMESTAMP_AGE_WARNING.0), Grade::Soon);
        assert_eq!(grade(TIMESTAMP_AGE_BAD.0), Grade::Bad);
    }

    #[test]
    fn a_third_partys_key_is_named_a_month_before_its_review() {
        let (key, due) = (PublicKey([9; 32]), NOW.plus(Seconds(100 * DAY)));
        let plan = format!("{PLAN}\n[reviews]\n\"{key}\" = \"{due}\"\n");
        let (anchor, files) = made(&plan);
        let named = |now| examine(&anchor, &files, now).iter().any(|f| f.text.contains("review"));
        assert!(!named(due.minus(REVIEW_WARNING).minus(Seconds(1))));
        assert!(named(due.minus(REVIEW_WARNING)));
        assert!(named(due.plus(Seconds(1))));
    }

    #[test]
    fn thresholds_without_a_spare_key_and_keys_that_did_not_sign_are_notes_and_no_alarm() {
        let (anchor, files) = repository();
        let found = examine(&anchor, &files, NOW);
        assert_eq!(worst(&found), Grade::Note, "{found:?}");
        let says = |what: &str, words: &str| {
            assert!(found.iter().any(|f| f.what == what && f.text.contains(words)), "{words}");
        };
        says("root", "did not sign the present version");
        says("targets", "one that is stolen is enough");
        says("releases-app", "one that is lost stops every change");
    }

    #[test]
    fn what_does_not_verify_is_bad_and_nothing_else_is_said() {
        let (anchor, mut files) = repository();
        let targets = files.get_mut("metadata/1.targets.json").expect("targets");
        let text = String::from_utf8(targets.clone()).expect("text");
        *targets = text.replacen("\"threshold\": 2", "\"threshold\": 1", 1).into_bytes();
        let found = examine(&anchor, &files, NOW);
        assert_eq!((found.len(), worst(&found)), (1, Grade::Bad));
    }

    fn repository() -> (Vec<u8>, Files) {
        made(PLAN)
    }

    /// A repository right after its ceremony, with the gatekeeper's first word.
    fn made(plan: &str) -> (Vec<u8>, Files) {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let out = temp.path().join("repo");
        let plan = Plan::from_toml(plan).expect("a plan");
        init(&plan, &out, &Passphrase::new("correct horse battery"), NOW).expect("made");
        let anchor = std::fs::read(out.join("root.json")).expect("readable");
        let keys = OnlineKeys::load(&out.join("online")).expect("keys");
        let day = Seconds(DAY);
        let terms = Terms { rollouts: day, snapshot: day, timestamp: day };
        let repository = Repository::new(out.join("repository"), keys, terms);
        let mut files = repository.people_files().expect("readable");
        let trusted = Trusted::read(&anchor, &files).expect("trusted");
        let week = Seconds(7 * DAY);
        let later = NOW.plus(week).minus(day);
        let rollouts = repository.rollouts(&trusted, &BTreeMap::new(), 1, later).expect("signed");
        let snapshot = repository.snapshot(&trusted, &rollouts, 1, later).expect("signed");
        let timestamp = repository.timestamp(&trusted, &snapshot, 1, NOW).expect("signed");
        files.insert("metadata/1.rollouts.json".into(), rollouts.bytes);
        files.insert("metadata/1.snapshot.json".into(), snapshot.bytes);
        files.insert("metadata/timestamp.json".into(), timestamp.bytes);
        (anchor, files)
    }
}
