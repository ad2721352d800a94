//! Groups: devices alike in an attribute, a pair of attributes, or all.
//!
//! One published rule, so that a device computes its own groups and nobody recomputes them: a group's
//! id is the first eight bytes of SHA-256 over a domain, the group's kind, and its values in order.

use serde::{Deserialize, Serialize};

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

/// The groups of a device with these facts and this habit, one for each kind, in [`GroupKind::ALL`]'s
/// order.
pub fn groups_of(facts: &Facts, habit: Habit) -> Vec<Group> {
    let hardware = [facts.vendor.as_str(), facts.model.as_str()];
    let os = [facts.os_id.as_str(), facts.os_version.as_str()];
    let firmware = [facts.vendor.as_str(), facts.firmware_version.as_str()];
    let configuration = [facts.configuration.as_str()];
    let all: [&str; 9] = [
        hardware[0],
        hardware[1],
        os[0],
        os[1],
        firmware[1],
        configuration[0],
        habit.name(),
        facts.time_zone.as_str(),
        facts.arch.as_str(),
    ];
    GroupKind::ALL
        .into_iter()
        .map(|kind| {
            let values: Vec<&str> = match kind {
                GroupKind::Fleet => Vec::new(),
                GroupKind::Hardware => hardware.to_vec(),
                GroupKind::Os => os.to_vec(),
                GroupKind::Firmware => firmware.to_vec(),
                GroupKind::Configuration => configuration.to_vec(),
                GroupKind::Habit => vec![habit.name()],
                GroupKind::TimeZone => vec![facts.time_zone.as_str()],
                GroupKind::HardwareOs => [hardware, os].concat(),
                GroupKind::HardwareConfiguration => [&hardware[..], &configuration].concat(),
                GroupKind::OsFirmware => [os, firmware].concat(),
                GroupKind::OsConfiguration => [&os[..], &configuration].concat(),
                GroupKind::FirmwareConfiguration => [&firmware[..], &configuration].concat(),
                GroupKind::Stratum => all.to_vec(),
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
