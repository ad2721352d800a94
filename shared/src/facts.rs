//! What a device says it is, in coarse words, and the conditions it finds itself in.
//!
//! Facts are claims: they choose groups and compatibility, never trust. Nothing personal is in them:
//! no serial number, no host name, no address.

use serde::{Deserialize, Serialize};

use crate::id::ModelId;

/// The longest word in a fact; longer ones are cut by the device and refused by the server.
pub const MAX_FACT: usize = 64;

/// Hardware, operating system and firmware of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Who made the hardware.
    pub vendor: String,
    /// The hardware model.
    pub model: String,
    /// The processor architecture, as Rust names it: `x86_64`, `aarch64`, `arm`, `riscv64`.
    pub arch: String,
    /// The operating system's id, as os-release(5) names it.
    pub os_id: String,
    /// The operating system's version.
    pub os_version: String,
    /// The kernel's release.
    pub kernel: String,
    /// The firmware's version.
    pub firmware_version: String,
    /// A label that the owner gives to the device's settings, such as `kiosk`.
    pub configuration: String,
    /// Memory in MiB.
    pub ram_mib: u32,
    /// The size of the disk that holds the slots, in MiB.
    pub disk_mib: u32,
    /// Logical processors.
    pub cpus: u16,
    /// The IANA time zone.
    pub time_zone: String,
    /// Whether secure boot is on, where the firmware says.
    pub secure_boot: Option<bool>,
    /// Whether there is a TPM.
    pub tpm: Option<bool>,
}

/// What a device finds at the moment: it changes by the hour and is never part of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Whether it runs on battery, where it has one.
    pub on_battery: Option<bool>,
    /// The battery's charge in percent.
    pub battery_percent: Option<u8>,
    /// Whether its network is paid by volume.
    pub metered: Option<bool>,
    /// Free space where the slots are, in MiB.
    pub free_disk_mib: Option<u32>,
}

impl Facts {
    /// The name of the rollout file that this device reads.
    pub fn model_id(&self) -> ModelId {
        ModelId::of_hardware(&self.vendor, &self.model)
    }

    /// Whether every word is within [`MAX_FACT`] and printable.
    pub fn well_formed(&self) -> bool {
        [
            &self.vendor,
            &self.model,
            &self.arch,
            &self.os_id,
            &self.os_version,
            &self.kernel,
            &self.firmware_version,
            &self.configuration,
            &self.time_zone,
        ]
        .into_iter()
        .all(|word| word.len() <= MAX_FACT && !word.chars().any(char::is_control))
    }
}
