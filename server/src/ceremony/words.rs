//! A change in words: what the roles and the policy would say that they do not say now. Made from the
//! metadata that is signed, and from nothing else; [`ChangeSet::check`] has refused whatever these
//! words would leave out. Pure; it permits nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Write as _},
};

use lockgate_shared::{
    id::{Digest, PublicKey},
    policy::{Approvals, Person, Policy, Product, Role, Tenant},
};

use super::{
    change::{self, ChangeSet, Current, Standing},
    charter::{Charter, Office},
    metadata,
};
use crate::plain::plain;

/// What a change says, for people to read before they sign.
pub fn describe(set: &ChangeSet, current: &Current, next: &Charter) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, set, current, next);
    out
}

/// How far a change is signed, one line for each role and set of keys.
pub fn standing(all: &[Standing], policies: [&Policy; 2]) -> String {
    let mut out = String::new();
    for standing in all {
        let state = if standing.complete() { "enough" } else { "missing" };
        let (signed, needed) = (standing.signed.len(), standing.needed);
        let _ = writeln!(out, "{state:8} {}: {signed} of {needed} signatures", standing.what);
        if !standing.complete() {
            for key in &standing.missing {
                let _ = writeln!(out, "         not yet by {key}{}", whose(key, policies));
            }
        }
    }
    out
}

fn write(out: &mut String, set: &ChangeSet, current: &Current, next: &Charter) -> fmt::Result {
    let before = &current.charter;
    writeln!(out, "CHANGE of repository `{}`", next.policy.repository)?;
    if let Some(root) = &set.root {
        let (old, new) = (current.root.signed.version, root.signed.version);
        writeln!(out, "\nroot, version {old} -> {new}, good until {}", change::moment(root))?;
        let policies = [&before.policy, &next.policy];
        for (name, old, new) in [
            ("root", &before.root, &next.root),
            ("targets", &before.targets, &next.targets),
            ("snapshot", &before.snapshot, &next.snapshot),
            ("timestamp", &before.timestamp, &next.timestamp),
        ] {
            office(out, name, Some(old), Some(new), policies)?;
        }
        if before.snapshot != next.snapshot || before.timestamp != next.timestamp {
            writeln!(
                out,
                "  from here on devices refuse the old gatekeeper's keys, and forget the"
            )?;
            writeln!(out, "  versions that these counted")?;
        }
    }
    if let Some(targets) = &set.targets {
        let (old, new) = (current.targets.signed.version, targets.signed.version);
        writeln!(out, "\ntargets, version {old} -> {new}, good until {}", change::moment(targets))?;
        delegations(out, before, next)?;
        policy(out, &before.policy, &next.policy)?;
    }
    for (name, role) in &set.releases {
        let old = current.releases.get(name).map_or(0, |old| old.signed.version.get());
        let (new, count) = (role.signed.version, role.signed.targets.len());
        writeln!(out, "\n{name}, version {old} -> {new}, good until {}", change::moment(role))?;
        writeln!(out, "  the same {count} releases and recalls as before")?;
    }
    digests(out, set)
}

fn delegations(out: &mut String, before: &Charter, next: &Charter) -> fmt::Result {
    let policies = [&before.policy, &next.policy];
    let products: BTreeSet<_> = before.releases.keys().chain(next.releases.keys()).collect();
    for product in products {
        let (old, new) = (before.releases.get(product), next.releases.get(product));
        office(out, &format!("releases of `{product}`"), old, new, policies)?;
    }
    let (old, new) = (&before.rollouts, &next.rollouts);
    office(out, "rollouts (the gatekeeper)", Some(old), Some(new), policies)
}

/// The keys of a role before and after.
fn office(
    out: &mut String,
    name: &str,
    before: Option<&Office>,
    after: Option<&Office>,
    policies: [&Policy; 2],
) -> fmt::Result {
    if before == after {
        return Ok(());
    }
    let shown = |office: Option<&Office>| match office {
        Some(office) => format!("{} of {}", office.threshold, office.keys.len()),
        None => "nobody".to_owned(),
    };
    let (old, new) = (shown(before), shown(after));
    if old == new {
        writeln!(out, "  {name}: other keys, {new} must sign as before")?;
    } else {
        writeln!(out, "  {name}: {old} -> {new} must sign")?;
    }
    let none = BTreeSet::new();
    let keys = |office: Option<&Office>| office.map_or(none.clone(), |office| office.keys.clone());
    let (before, after) = (keys(before), keys(after));
    for (mark, key) in gone_and_come(&before, &after) {
        writeln!(out, "    {mark} key {key}{}", whose(key, policies))?;
    }
    Ok(())
}

fn gone_and_come<'a>(
    before: &'a BTreeSet<PublicKey>,
    after: &'a BTreeSet<PublicKey>,
) -> impl Iterator<Item = (char, &'a PublicKey)> {
    let gone = before.difference(after).map(|key| ('-', key));
    gone.chain(after.difference(before).map(|key| ('+', key)))
}

fn key_lines(
    out: &mut String,
    what: &str,
    before: &BTreeSet<PublicKey>,
    after: &BTreeSet<PublicKey>,
) -> fmt::Result {
    for (mark, key) in gone_and_come(before, after) {
        writeln!(out, "      {mark} {what}key {key}")?;
    }
    Ok(())
}

/// Whose key it is, by the policies before and after.
fn whose(key: &PublicKey, policies: [&Policy; 2]) -> String {
    let owner = policies.iter().find_map(|policy| {
        policy.people.iter().find(|(_, person)| person.keys.contains(key)).map(|(name, _)| name)
    });
    owner.map_or_else(String::new, |name| format!(" ({name})"))
}

fn policy(out: &mut String, before: &Policy, after: &Policy) -> fmt::Result {
    if before == after {
        return writeln!(out, "  the same people, tenants and products as before");
    }
    both(&before.people, &after.people, |name, old, new| person(out, name, old, new))?;
    approvals(out, &before.approvals, &after.approvals)?;
    both(&before.tenants, &after.tenants, |name, old, new| tenant(out, name, old, new))?;
    both(&before.products, &after.products, |name, old, new| product(out, name, old, new))?;
    both(&before.reviews, &after.reviews, |key, old, new| {
        let shown = |date: Option<&_>| match date {
            Some(date) => format!("{date}"),
            None => "never".to_owned(),
        };
        writeln!(out, "  review of key {key}: {} -> {}", shown(old), shown(new))
    })
}

/// Calls for every name of two tables whose entries differ.
fn both<K: Ord, V: PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    mut each: impl FnMut(&K, Option<&V>, Option<&V>) -> fmt::Result,
) -> fmt::Result {
    let names: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old != new {
            each(name, old, new)?;
        }
    }
    Ok(())
}

/// `+` what comes, `-` what goes, `~` what changes.
const fn sign_of<T>(old: Option<&T>, new: Option<&T>) -> char {
    match (old, new) {
        (None, _) => '+',
        (Some(_), None) => '-',
        (Some(_), Some(_)) => '~',
    }
}

fn person(
    out: &mut String,
    name: &impl Display,
    old: Option<&Person>,
    new: Option<&Person>,
) -> fmt::Result {
    let shown = |person: Option<&Person>| -> (String, String) {
        let none = || "none".to_owned();
        let Some(person) = person else { return (none(), none()) };
        let roles: Vec<&str> = person.roles.iter().map(|role| role_name(*role)).collect();
        let tokens: Vec<String> = person.tokens.iter().map(|token| plain(token)).collect();
        let text = |list: &str| if list.is_empty() { none() } else { list.to_owned() };
        (text(&roles.join(", ")), text(&tokens.join(", ")))
    };
    writeln!(out, "  {} person {name}", sign_of(old, new))?;
    let ((roles, tokens), (new_roles, new_tokens)) = (shown(old), shown(new));
    if roles != new_roles {
        writeln!(out, "      roles: {roles} -> {new_roles}")?;
    }
    if tokens != new_tokens {
        writeln!(out, "      tokens: {tokens} -> {new_tokens}")?;
    }
    let keys = |person: Option<&Person>| person.map(|p| p.keys.clone()).unwrap_or_default();
    key_lines(out, "", &keys(old), &keys(new))
}

/// A person's role in a word.
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Author => "author",
        Role::Approver => "approver",
        Role::Operator => "operator",
        Role::Administrator => "administrator",
        Role::Auditor => "auditor",
    }
}

fn approvals(out: &mut String, old: &Approvals, new: &Approvals) -> fmt::Result {
    for (what, old, new) in [
        ("start a routine rollout", old.start_routine, new.start_routine),
        ("start a security rollout", old.start_security, new.start_security),
        ("start an emergency rollout", old.start_emergency, new.start_emergency),
        ("open a stage that asks for consent", old.stage, new.stage),
        ("lift a stop", old.lift, new.lift),
        ("grant an earlier cohort", old.grant, new.grant),
        ("waive a rule", old.waiver, new.waiver),
    ] {
        if old != new {
            writeln!(out, "  approvers to {what}: {old} -> {new}")?;
        }
    }
    Ok(())
}

fn tenant(
    out: &mut String,
    name: &impl Display,
    old: Option<&Tenant>,
    new: Option<&Tenant>,
) -> fmt::Result {
    writeln!(out, "  {} tenant {name}", sign_of(old, new))?;
    let keys = |t: Option<&Tenant>| t.map(|t| t.enrolment_keys.clone()).unwrap_or_default();
    key_lines(out, "enrolment ", &keys(old), &keys(new))?;
    let own = |t: Option<&Tenant>| t.and_then(|t| t.tenant_key).into_iter().collect();
    key_lines(out, "its own ", &own(old), &own(new))
}

fn product(
    out: &mut String,
    name: &impl Display,
    old: Option<&Product>,
    new: Option<&Product>,
) -> fmt::Result {
    let list = |names: Vec<String>| if names.is_empty() { "none".into() } else { names.join(", ") };
    let channels = |p: Option<&Product>| {
        list(p.into_iter().flat_map(|p| &p.channels).map(ToString::to_string).collect())
    };
    let cohorts = |p: Option<&Product>| {
        list(p.into_iter().flat_map(|p| &p.cohorts).map(ToString::to_string).collect())
    };
    writeln!(out, "  {} product {name}", sign_of(old, new))?;
    for (what, old, new) in
        [("channels", channels(old), channels(new)), ("cohorts", cohorts(old), cohorts(new))]
    {
        if old != new {
            writeln!(out, "      {what}: {old} -> {new}")?;
        }
    }
    Ok(())
}

/// What exactly is signed: to be compared between two machines.
fn digests(out: &mut String, set: &ChangeSet) -> fmt::Result {
    writeln!(out, "\nsigned is exactly")?;
    let mut line = |name: &str, bytes: Option<Vec<u8>>| match bytes {
        Some(bytes) => writeln!(out, "  {name}  sha256 {}", Digest::of(&bytes)),
        None => Ok(()),
    };
    if let Some(root) = &set.root {
        line("root", metadata::signed_bytes(root).ok())?;
    }
    if let Some(targets) = &set.targets {
        line("targets", metadata::signed_bytes(targets).ok())?;
    }
    for (name, role) in &set.releases {
        line(name, metadata::signed_bytes(role).ok())?;
    }
    Ok(())
}
