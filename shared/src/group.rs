//! Groups: devices alike in an attribute, a pair of attributes, or all.
//!
//! One published rule, so that a device computes its own groups and nobody recomputes them: a group's
//! id is the first eight bytes of SHA-256 over a domain, the group's kind, and its values in order.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    facts::Facts,
    id::{Digest, GroupId},
};

/// How many groups every device belongs to: one for each [`GroupKind`].
pub const GROUPS_PER_DEVICE: usize = GroupKind::ALL.len();

/// What the devices of a group have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupKind {
    /// Every device.
    Fleet,
    /// Hardware vendor and model.
    Hardware,
    /// Operating system and its version.
    Os,
    /// Firmware version (with the vendor, whose number it is).
    Firmware,
    /// The owner's label for its settings.
    Configuration,
    /// When it is usually on.
    Habit,
    /// Time zone.
    TimeZone,
    /// Hardware and operating system.
    HardwareOs,
    /// Hardware and configuration.
    HardwareConfiguration,
    /// Operating system and firmware.
    OsFirmware,
    /// Operating system and configuration.
    OsConfiguration,
    /// Firmware and configuration.
    FirmwareConfiguration,
    /// All attributes.
    Stratum,
}

/// When a device is usually on, from 28 days of its own polls.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Habit {
    /// Round the clock.
    AlwaysOn,
    /// In working hours.
    Office,
    /// In the evening and at weekends.
    Home,
    /// Now and then, on duty.
    Duty,
    /// Not known yet: a value of its own.
    #[default]
    Unknown,
}

/// One group of a device, with the words that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// What its devices have in common.
    pub kind: GroupKind,
    /// The values, for people.
    pub label: String,
}

/// A set of groups as a rollout file carries it: a Bloom filter, because a fleet has more groups than
/// a file has room. It holds every group that was put in; of the others it wrongly holds about one in a
/// hundred, and a device is like no other in several groups at once. Empty, it says nothing, and every
/// group passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownGroups(Vec<u8>);

/// The most bytes of one set: 3,200 groups at ten bits each. Beyond, more of the others pass.
pub const KNOWN_BYTES: usize = 4096;
/// Bits that each group sets.
const KNOWN_PROBES: u32 = 5;

impl KnownGroups {
    /// The set of these.
    pub fn of<'a>(groups: impl IntoIterator<Item = &'a GroupId, IntoIter: Clone>) -> Self {
        let groups = groups.into_iter();
        let bytes = (groups.clone().count() * 10).div_ceil(8).clamp(8, KNOWN_BYTES);
        let mut set = Self(vec![0; bytes]);
        for group in groups {
            for (byte, bit) in set.places(group) {
                if let Some(byte) = set.0.get_mut(byte) {
                    *byte |= bit;
                }
            }
        }
        set
    }

    /// Whether a group may be in it; true for every group that is.
    pub fn may_hold(&self, group: &GroupId) -> bool {
        self.0.is_empty()
            || self
                .places(group)
                .iter()
                .all(|(byte, bit)| self.0.get(*byte).is_some_and(|byte| byte & bit != 0))
    }

    /// Whether it says nothing.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A group's bytes and bits. Its id is a hash already: its halves are start and stride.
    fn places(&self, group: &GroupId) -> [(usize, u8); KNOWN_PROBES as usize] {
        let [a, b, c, d, e, f, g, h] = group.0;
        let (start, stride) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let bits = u32::try_from(self.0.len() * 8).unwrap_or(u32::MAX).max(1);
        std::array::from_fn(|probe| {
            let probe = u32::try_from(probe).unwrap_or_default();
            let bit = start.wrapping_add(probe.wrapping_mul(stride | 1)) % bits;
            ((bit / 8) as usize, 1 << (bit % 8))
        })
    }
}

impl Serialize for KnownGroups {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&hex::encode(&self.0))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for KnownGroups {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = if deserializer.is_human_readable() {
            hex::decode(String::deserialize(deserializer)?).map_err(de::Error::custom)?
        } else {
            Vec::deserialize(deserializer)?
        };
        if bytes.len() > KNOWN_BYTES {
            return Err(de::Error::custom("more known groups than a rollout file may carry"));
        }
        Ok(Self(bytes))
    }
}

impl GroupKind {
    /// Every kind, in the order in which a device lists its groups.
    pub const ALL: [Self; 13] = [
        Self::Fleet,
        Self::Hardware,
        Self::Os,
        Self::Firmware,
        Self::Configuration,
        Self::Habit,
        Self::TimeZone,
        Self::HardwareOs,
        Self::HardwareConfiguration,
        Self::OsFirmware,
        Self::OsConfiguration,
        Self::FirmwareConfiguration,
        Self::Stratum,
    ];

    /// The kind's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Hardware => "hardware",
            Self::Os => "os",
            Self::Firmware => "firmware",
            Self::Configuration => "configuration",
            Self::Habit => "habit",
            Self::TimeZone => "time-zone",
            Self::HardwareOs => "hardware-os",
            Self::HardwareConfiguration => "hardware-configuration",
            Self::OsFirmware => "os-firmware",
            Self::OsConfiguration => "os-configuration",
            Self::FirmwareConfiguration => "firmware-configuration",
            Self::Stratum => "stratum",
        }
    }

    /// Whether a release can be bad for such a group: it is what its devices are made of, or set to.
    /// When a device is on, and where, makes no release fail.
    pub const fn explains_faults(self) -> bool {
        match self {
            Self::Fleet | Self::Habit | Self::TimeZone => false,
            Self::Hardware
            | Self::Os
            | Self::Firmware
            | Self::Configuration
            | Self::HardwareOs
            | Self::HardwareConfiguration
            | Self::OsFirmware
            | Self::OsConfiguration
            | Self::FirmwareConfiguration
            | Self::Stratum => true,
        }
    }
}

impl Habit {
    /// The habit's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AlwaysOn => "always-on",
            Self::Office => "office",
            Self::Home => "home",
            Self::Duty => "duty",
            Self::Unknown => "unknown",
        }
    }
}

/// Every word that enters a group: vendor, model, architecture, operating system and its version,
/// firmware, configuration, time zone. Devices with these words and one habit are in the same groups.
pub fn words_of(facts: &Facts) -> [&str; 8] {
    [
        &facts.vendor,
        &facts.model,
        &facts.arch,
        &facts.os_id,
        &facts.os_version,
        &facts.firmware_version,
        &facts.configuration,
        &facts.time_zone,
    ]
}

/// The groups of a device with these facts and this habit, one for each kind, in [`GroupKind::ALL`]'s
/// order.
pub fn groups_of(facts: &Facts, habit: Habit) -> Vec<Group> {
    let [vendor, model, arch, os_id, os_version, firmware, configuration, time_zone] =
        words_of(facts);
    let habit = habit.name();
    let (hardware, os, firmware) = ([vendor, model], [os_id, os_version], [vendor, firmware]);
    let configuration = [configuration];
    GroupKind::ALL
        .into_iter()
        .map(|kind| {
            let values: Vec<&str> = match kind {
                GroupKind::Fleet => Vec::new(),
                GroupKind::Hardware => hardware.to_vec(),
                GroupKind::Os => os.to_vec(),
                GroupKind::Firmware => firmware.to_vec(),
                GroupKind::Configuration => configuration.to_vec(),
                GroupKind::Habit => vec![habit],
                GroupKind::TimeZone => vec![time_zone],
                GroupKind::HardwareOs => [hardware, os].concat(),
                GroupKind::HardwareConfiguration => [&hardware[..], &configuration].concat(),
                GroupKind::OsFirmware => [os, firmware].concat(),
                GroupKind::OsConfiguration => [&os[..], &configuration].concat(),
                GroupKind::FirmwareConfiguration => [&firmware[..], &configuration].concat(),
                GroupKind::Stratum => {
                    let own = [firmware[1], configuration[0], habit, time_zone, arch];
                    [&hardware[..], &os, &own].concat()
                }
            };
            Group { id: id_of(kind, &values), kind, label: values.join(" ") }
        })
        .collect()
}

fn id_of(kind: GroupKind, values: &[&str]) -> GroupId {
    let mut parts: Vec<&[u8]> = vec![kind.name().as_bytes()];
    parts.extend(values.iter().map(|value| value.as_bytes()));
    let digest = Digest::of_parts("lockgate group v1", &parts);
    let mut id = [0; 8];
    id.copy_from_slice(&digest.0[..8]);
    GroupId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_known_groups_holds_what_was_put_in_and_next_to_nothing_else() {
        let group = |number: u64| {
            let digest = Digest::of(&number.to_be_bytes());
            GroupId(digest.0[..8].try_into().expect("eight bytes"))
        };
        let own: Vec<GroupId> = (0..1000).map(group).collect();
        let set = KnownGroups::of(&own);
        assert!(own.iter().all(|group| set.may_hold(group)));
        let others = (1000..11_000).map(group).filter(|group| set.may_hold(group)).count();
        assert!(others < 300, "{others} of 10000");
        assert!(KnownGroups::default().may_hold(&group(0)), "an empty set says nothing");
        assert!(!KnownGroups::of(&[]).may_hold(&group(0)), "a set of no groups is not empty");
        let json = serde_json::to_string(&set).expect("json");
        assert_eq!(serde_json::from_str::<KnownGroups>(&json).expect("read"), set);
    }

    fn laptop() -> Facts {
        Facts {
            vendor: "Acme".into(),
            model: "Slate 3".into(),
            os_id: "debian".into(),
            os_version: "12".into(),
            firmware_version: "1.2".into(),
            configuration: "kiosk".into(),
            time_zone: "Europe/Berlin".into(),
            ..Facts::default()
        }
    }

    #[test]
    fn every_device_belongs_to_one_group_of_each_kind() {
        let groups = groups_of(&laptop(), Habit::Office);
        let kinds: Vec<_> = groups.iter().map(|group| group.kind).collect();
        assert_eq!(kinds, GroupKind::ALL);
        let ids: std::collections::BTreeSet<_> = groups.iter().map(|group| group.id).collect();
        assert_eq!(ids.len(), GROUPS_PER_DEVICE);
    }

    #[test]
    fn devices_share_exactly_the_groups_in_which_they_are_alike() {
        let other = Facts { firmware_version: "1.3".into(), ..laptop() };
        let (a, b) = (groups_of(&laptop(), Habit::Home), groups_of(&other, Habit::Home));
        let apart: Vec<_> =
            a.iter().zip(&b).filter(|(a, b)| a.id != b.id).map(|(a, _)| a.kind).collect();
        assert_eq!(
            apart,
            [
                GroupKind::Firmware,
                GroupKind::OsFirmware,
                GroupKind::FirmwareConfiguration,
                GroupKind::Stratum
            ]
        );
    }
}
