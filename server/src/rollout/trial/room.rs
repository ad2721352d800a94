//! How far each group is open. Exposure is earned: a group that has shown nothing has room for two
//! devices, one whose devices soaked for as many as its healthy ones allow, and none grows while its own
//! evidence is close to the threshold.
//!
//! A group's limit is a share of its devices, computed from what is past and never from the bucket of a
//! device that was not let in: so every lot under it stays a lot. Small room is given to devices drawn
//! by name ([`super::coverage`]) instead of by limit, because a share of a small group lets in none or
//! many. A device may install below the smallest limit of its groups. Limits never fall, except that a
//! hold closes.

use lockgate_shared::bucket::Limit;
use serde::{Deserialize, Serialize};

use super::{
    roster::{FLEET, Group, Roster},
    terms::Terms,
};

/// Room for fewer devices than this is given by name.
const BY_NAME: f64 = 3.0;
/// The most that a group may have before it soaked: so many times the root of its size …
const CAP_OWN: f64 = 0.7;
/// … or so many times its part of the root of the fleet's.
const CAP_FLEET: f64 = 2.7;
/// The share of that cap that must have soaked.
const CAP_SOAKED: f64 = 0.08;
/// A soak of a day that is over within so many hours is waited for, even after the ramp: those who come
/// that much later come on the same day.
pub const SOON: u32 = 6;

/// What one group has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Devices let in that began.
    pub begun: u32,
    /// Devices chosen by name.
    pub drawn: u32,
    /// Of these, devices that have not begun.
    pub pending: u32,
    /// Devices that reported themselves well.
    pub healthy: u32,
    /// Devices that came to an end, well or not.
    pub resolved: u32,
    /// Devices that failed.
    pub failed: u32,
    /// Devices that soaked.
    pub soaked: u32,
    /// Devices that are well at the age asked for at the end: see [`Terms::soak_at`].
    pub grown: u32,
    /// Devices that will have soaked for a day within [`SOON`] hours, or have.
    pub growing: u32,
    /// Devices that are not heard now while most of those with their habit are.
    pub missing: u32,
    /// The hour of the last draw or begin.
    pub last: u32,
    /// The limit.
    pub limit: u32,
}

/// Whether a group has a limit of its own, or is guarded by the fleet's schedule alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// It has to earn its exposure.
    Own,
    /// It is too small, too large, or no attribute that a release can be bad for.
    Fleet,
    /// It is held.
    Held,
}

/// How groups of this roster are guarded.
pub fn guards(roster: &Roster, terms: &Terms) -> Vec<Guard> {
    let mut own: Vec<Group> = (0..roster.groups.len() as Group)
        .filter(|group| {
            let entry = &roster.groups[*group as usize];
            *group != FLEET
                && entry.kind.explains_faults()
                && entry.size >= terms.group_least
                && roster.share(*group) <= terms.group_share
        })
        .collect();
    own.sort_by_key(|group| std::cmp::Reverse(roster.groups[*group as usize].size));
    let mut guards = vec![Guard::Fleet; roster.groups.len()];
    for group in own.iter().take(terms.guarded as usize) {
        guards[*group as usize] = Guard::Own;
    }
    guards
}

/// The most devices of a group before it soaked.
pub fn cap(roster: &Roster, terms: &Terms, group: Group) -> f64 {
    let (own, fleet) = (f64::from(roster.groups[group as usize].size), f64::from(roster.len()));
    let roots = (CAP_OWN * own.sqrt()).max(CAP_FLEET * roster.share(group) * fleet.sqrt());
    roots.max(f64::from(terms.room_first))
}

/// Devices of a group that must have soaked.
fn needed(roster: &Roster, terms: &Terms, group: Group) -> f64 {
    (CAP_SOAKED * cap(roster, terms, group)).max(1.0).floor()
}

/// Whether a group's devices have soaked: enough of them the full time, or towards the end for less, when
/// none of them failed and none is missing that should be heard.
pub fn soaked(roster: &Roster, terms: &Terms, group: Group, tally: &Tally) -> bool {
    let needed = needed(roster, terms, group);
    let missing = f64::from(tally.missing);
    let full = f64::from(tally.soaked) >= needed + missing;
    // Where one is missing, somebody must have lived the full time before others count for less.
    let lived = tally.missing == 0 || tally.soaked > 0;
    let grown = tally.failed == 0 && lived && f64::from(tally.grown) >= needed + 2.0 * missing;
    full || grown
}

/// How many devices of a group may have been let in when the clock stands at `clock`.
pub fn allowed(roster: &Roster, terms: &Terms, group: Group, tally: &Tally, clock: f64) -> f64 {
    let well = f64::from(tally.healthy.saturating_sub(2 * tally.missing));
    let earned = f64::from(terms.growth) * well;
    let resolved = f64::from(tally.resolved);
    if soaked(roster, terms, group, tally) {
        let earned = f64::from(terms.growth_soaked) * well;
        return resolved + earned.max(f64::from(terms.room_soaked));
    }
    let sentinels = 2.0 * roster.share(group) * f64::from(terms.sentinels(roster.len()));
    let first = f64::from(terms.room_first).max(sentinels);
    // Who fails without anybody well beside it takes room away: it was an answer.
    let lost = tally.failed + tally.missing;
    let failed = if tally.healthy < 4 * lost { f64::from(lost) } else { 0.0 };
    let soon = clock < terms.soak_day_to_h
        && tally.failed == 0
        && f64::from(tally.growing) >= needed(roster, terms, group);
    if clock >= terms.ramp_to_h && tally.missing == 0 && !soon {
        // Nobody is under way: those within the limit are not there, and an hour makes room for one;
        // four hours after a failure, whose repetition the evidence would show.
        let hours = if tally.failed == 0 { 1.0 } else { 0.25 };
        let idle = tally.begun == tally.resolved;
        let waited = if idle { hours * (clock - terms.ramp_to_h) } else { 0.0 };
        let last = first.max(f64::from(terms.room_last)) + waited;
        return resolved + earned.max((last - failed).max(0.0));
    }
    let first = (first - failed).max(0.0);
    cap(roster, terms, group).min(resolved + earned.max(first))
}

/// What else decides a group's next limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Around {
    /// Members that no other group keeps out altogether: those that are kept out have to be proven by that
    /// group first, and reserve half of their room at most.
    pub open: u32,
    /// Where the clock stands.
    pub clock: f64,
    /// Whether devices can still be drawn by name.
    pub names: Names,
}

/// Whether the coverage list has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// It has.
    Left,
    /// It is used up, but for what is spared.
    Used,
}

/// A group's next limit.
pub fn limit(roster: &Roster, terms: &Terms, group: Group, tally: &Tally, around: &Around) -> u32 {
    let all = roster.groups[group as usize].size.max(1);
    let size = f64::from(around.open.max(all / 2).max(1));
    let room = allowed(roster, terms, group, tally, around.clock) - f64::from(tally.drawn);
    let by_name = match around.names {
        Names::Left => around.clock < terms.ramp_to_h,
        // Nobody else will be named for it: a share has to do, unless its device went missing.
        Names::Used => tally.drawn > 0 && around.clock < terms.ramp_to_h,
    };
    if room < BY_NAME && (by_name || tally.missing > 0) {
        return tally.limit;
    }
    tally.limit.max(of_share(room / size))
}

/// The limit below which a share of all buckets lies.
pub fn of_share(share: f64) -> u32 {
    if share >= 1.0 {
        return Limit::EVERYBODY.0;
    }
    (share.max(0.0) * 4_294_967_296.0) as u32
}

/// The share of all buckets below a limit.
pub fn share_of(limit: u32) -> f64 {
    if limit == Limit::EVERYBODY.0 { 1.0 } else { f64::from(limit) / 4_294_967_296.0 }
}
