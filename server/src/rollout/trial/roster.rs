//! Who takes part: the devices of one stage's cohort that count as evidence, in dense tables. Groups
//! are the ones that devices signed into their letters; here they only get numbers.
//!
//! Devices alike in every group share a [`Kind`], so that a device costs four bytes for all its
//! groups. Numbers of devices, kinds and groups are made here and nowhere else: whoever holds one may
//! index with it.

use std::collections::BTreeMap;

use lockgate_shared::{
    bucket::Bucket,
    group::{GROUPS_PER_DEVICE, GroupKind, Habit},
    id::GroupId,
};

use serde::{Deserialize, Serialize};

/// A device's number in its roster.
pub type Device = u32;
/// A tenant's number in its roster.
pub type Tenant = u16;
/// A group's number in its roster; the fleet is [`FLEET`].
pub type Group = u32;
/// The group of everybody.
pub const FLEET: Group = 0;
/// Time zones that are told apart in cells; further ones share the last.
pub const ZONES: u8 = 8;

/// The devices of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roster {
    /// What devices are alike in.
    pub kinds: Vec<Kind>,
    /// Groups, by number.
    pub groups: Vec<Entry>,
    /// Devices, by number.
    pub devices: Vec<Member>,
    tenants: Vec<Tenant>,
    names: Vec<String>,
    numbers: BTreeMap<GroupId, Group>,
    alike: BTreeMap<[Group; GROUPS_PER_DEVICE], u32>,
}

/// Devices alike in every group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    /// Its groups, in [`GroupKind::ALL`]'s order.
    pub groups: [Group; GROUPS_PER_DEVICE],
    /// Its habit.
    pub habit: Habit,
    /// Its time zone's number.
    pub zone: u8,
    /// Its known noise.
    pub noise: Noise,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: GroupId,
    /// What its devices have in common.
    pub kind: GroupKind,
    /// The values, for people.
    pub label: String,
    /// Its devices.
    pub size: u32,
}

/// One device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its kind.
    pub kind: u32,
    /// Its bucket.
    pub bucket: Bucket,
}

/// What earlier releases did to devices of one hardware model: explicit failures that were not the
/// releases'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// The share that fails within its trial.
    pub prompt: f64,
    /// The share that fails later.
    pub late: f64,
}

/// Installs that are imagined beside those that were seen: what little was seen of proves little.
const IMAGINED: f64 = 150.0;

/// The share that may be expected to fail after `failed` of `installs` did: one deviation above what was
/// seen, because a noise that is taken too low makes a good release look bad.
pub fn expected(failed: u32, installs: u32) -> f64 {
    let failed = f64::from(failed) + 1.0;
    (failed + failed.sqrt()) / (f64::from(installs) + IMAGINED)
}

/// What a kind is made of.
#[derive(Clone, Debug)]
pub struct Likeness {
    /// Groups in [`GroupKind::ALL`]'s order, with their words.
    pub groups: Vec<(GroupId, GroupKind, String)>,
    /// The habit.
    pub habit: Habit,
    /// The time zone's number.
    pub zone: u8,
    /// The known noise.
    pub noise: Noise,
}

impl Roster {
    /// Numbers everything. `members` name their kind by its place in `kinds`; a kind with another
    /// number of groups than [`GROUPS_PER_DEVICE`] lacks the missing ones and counts as the fleet.
    pub fn new(kinds: Vec<Likeness>, members: Vec<Member>) -> Self {
        let mut roster = Self {
            kinds: Vec::with_capacity(kinds.len()),
            groups: Vec::new(),
            devices: members,
            tenants: Vec::new(),
            names: Vec::new(),
            numbers: BTreeMap::new(),
            alike: BTreeMap::new(),
        };
        for likeness in kinds {
            roster.add_kind(likeness);
        }
        for device in 0..roster.len() {
            for group in roster.kind(device).groups {
                roster.groups[group as usize].size += 1;
            }
        }
        roster
    }

    /// Says whose the devices are: each device's tenant by its place among the names.
    pub fn belongs(mut self, tenants: Vec<Tenant>, names: Vec<String>) -> Self {
        (self.tenants, self.names) = (tenants, names);
        self
    }

    /// A device's tenant; the first where nobody said.
    pub fn tenant(&self, device: Device) -> Tenant {
        self.tenants.get(device as usize).copied().unwrap_or_default()
    }

    /// The tenants' names.
    pub fn tenants(&self) -> &[String] {
        &self.names
    }

    fn add_kind(&mut self, likeness: Likeness) -> u32 {
        let mut own = [FLEET; GROUPS_PER_DEVICE];
        for (place, (id, kind, label)) in own.iter_mut().zip(likeness.groups) {
            *place = *self.numbers.entry(id).or_insert_with(|| {
                self.groups.push(Entry { id, kind, label, size: 0 });
                self.groups.len() as Group - 1
            });
        }
        let (habit, zone) = (likeness.habit, likeness.zone.min(ZONES - 1));
        let number = self.kinds.len() as u32;
        self.kinds.push(Kind { groups: own, habit, zone, noise: likeness.noise });
        self.alike.insert(own, number);
        number
    }

    /// A group's number.
    pub fn number(&self, group: &GroupId) -> Option<Group> {
        self.numbers.get(group).copied()
    }

    /// Whether a device's groups are these.
    pub fn is_like(&self, device: Device, groups: &[GroupId]) -> bool {
        let own = self.groups_of(device).iter();
        own.map(|group| self.groups[*group as usize].id).eq(groups.iter().copied())
    }

    /// Counts a device to other groups than before. What a group was larger by stays counted: a share of
    /// more devices than there are is only the smaller share.
    pub fn resettle(&mut self, device: Device, likeness: Likeness) {
        let mut own = [FLEET; GROUPS_PER_DEVICE];
        let known = own.iter_mut().zip(&likeness.groups).all(|(place, (id, ..))| {
            self.numbers.get(id).is_some_and(|number| {
                *place = *number;
                true
            })
        });
        let kind = known.then(|| self.alike.get(&own).copied()).flatten();
        let kind = kind.unwrap_or_else(|| self.add_kind(likeness));
        let before = *self.groups_of(device);
        self.devices[device as usize].kind = kind;
        for group in *self.groups_of(device) {
            self.groups[group as usize].size += u32::from(!before.contains(&group));
        }
    }

    /// How many devices there are.
    pub const fn len(&self) -> u32 {
        self.devices.len() as u32
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// A device's kind.
    pub fn kind(&self, device: Device) -> &Kind {
        &self.kinds[self.devices[device as usize].kind as usize]
    }

    /// A device's groups.
    pub fn groups_of(&self, device: Device) -> &[Group; GROUPS_PER_DEVICE] {
        &self.kind(device).groups
    }

    /// A group's share of all devices.
    pub fn share(&self, group: Group) -> f64 {
        f64::from(self.groups[group as usize].size) / f64::from(self.len().max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_lies_above_what_was_seen_and_comes_close_with_many_installs() {
        assert!(expected(0, 0) > 0.01);
        assert!(expected(3, 1_000) > 0.003 && expected(3, 1_000) < 0.006);
        assert!((expected(300, 100_000) - 0.003).abs() < 0.0003);
    }
}
