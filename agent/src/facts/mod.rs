//! What this device is and the conditions it finds itself in, gathered from the places where the
//! system says so. Coarse by default: no serial number, no host name, no address is ever read, and
//! sizes are rounded.
//!
//! A fact that cannot be read is left empty; nothing here fails, because a device that cannot say
//! what it is must still be able to ask for its update.

pub mod dmi;
pub mod network;
pub mod os;
pub mod power;

use std::{
    env, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

pub use lockgate_shared::facts::{Conditions, Facts, MAX_FACT};
use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, System};

/// The most that is read of any one file: os-release, the longest, has some hundred bytes.
const MAX_FILE: u64 = 16 * 1024;

const MIB: u64 = 1024 * 1024;

/// Gathers the facts. Costs as much as the rest of a poll, so it is done daily or on change.
pub fn gather(sources: &Sources, overrides: &Overrides, slots: &Path) -> Facts {
    let release = os::release(sources);
    let board = dmi::board(sources);
    let (ram, cpus) = machine();
    let found = Facts {
        vendor: board.vendor,
        model: board.model,
        arch: env::consts::ARCH.to_owned(),
        os_id: release.id,
        os_version: release.version,
        kernel: os::kernel(sources),
        firmware_version: board.firmware_version,
        configuration: String::new(),
        ram_mib: coarse(ram / MIB),
        disk_mib: coarse(disk(slots).map_or(0, |disk| disk.size / MIB)),
        cpus,
        time_zone: os::time_zone(sources),
        secure_boot: dmi::secure_boot(sources),
        tpm: dmi::tpm(sources),
    };
    overrides.apply(found)
}

/// Looks at what changes by the hour: power, network, free space where the slots are.
pub fn conditions(sources: &Sources, slots: &Path) -> Conditions {
    let power = power::power(sources);
    Conditions {
        on_battery: power.on_battery,
        battery_percent: power.battery_percent,
        metered: network::metered(sources),
        free_disk_mib: disk(slots).map(|disk| saturated(disk.free / MIB)),
    }
}

/// Where the system keeps what it says about itself. Tests and simulated devices point elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/etc`.
    pub etc: PathBuf,
    /// The value of `TZ`, where it is set.
    pub tz: Option<String>,
}

impl Sources {
    /// Those of the machine that the agent runs on.
    pub fn system() -> Self {
        Self {
            sys: "/sys".into(),
            proc: "/proc".into(),
            etc: "/etc".into(),
            tz: env::var("TZ").ok(),
        }
    }
}

/// What the owner says instead, word by word: the `[facts]` table of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// Instead of [`Facts::vendor`].
    pub vendor: Option<String>,
    /// Instead of [`Facts::model`].
    pub model: Option<String>,
    /// Instead of [`Facts::arch`].
    pub arch: Option<String>,
    /// Instead of [`Facts::os_id`].
    pub os_id: Option<String>,
    /// Instead of [`Facts::os_version`].
    pub os_version: Option<String>,
    /// Instead of [`Facts::kernel`].
    pub kernel: Option<String>,
    /// Instead of [`Facts::firmware_version`].
    pub firmware_version: Option<String>,
    /// A label for the device's settings, such as `kiosk`; there is no other source for it.
    pub configuration: Option<String>,
    /// Instead of [`Facts::ram_mib`].
    pub ram_mib: Option<u32>,
    /// Instead of [`Facts::disk_mib`].
    pub disk_mib: Option<u32>,
    /// Instead of [`Facts::cpus`].
    pub cpus: Option<u16>,
    /// Instead of [`Facts::time_zone`].
    pub time_zone: Option<String>,
    /// Instead of [`Facts::secure_boot`].
    pub secure_boot: Option<bool>,
    /// Instead of [`Facts::tpm`].
    pub tpm: Option<bool>,
}

impl Overrides {
    fn apply(&self, found: Facts) -> Facts {
        let word = |said: &Option<String>, found: String| match said {
            Some(said) => clean(said),
            None => found,
        };
        Facts {
            vendor: word(&self.vendor, found.vendor),
            model: word(&self.model, found.model),
            arch: word(&self.arch, found.arch),
            os_id: word(&self.os_id, found.os_id),
            os_version: word(&self.os_version, found.os_version),
            kernel: word(&self.kernel, found.kernel),
            firmware_version: word(&self.firmware_version, found.firmware_version),
            configuration: word(&self.configuration, found.configuration),
            ram_mib: self.ram_mib.unwrap_or(found.ram_mib),
            disk_mib: self.disk_mib.unwrap_or(found.disk_mib),
            cpus: self.cpus.unwrap_or(found.cpus),
            time_zone: word(&self.time_zone, found.time_zone),
            secure_boot: self.secure_boot.or(found.secure_boot),
            tpm: self.tpm.or(found.tpm),
        }
    }
}

/// Memory in bytes, and the number of logical processors.
fn machine() -> (u64, u16) {
    let Ok(mut system) = System::new() else { return (0, 0) };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    (system.total_memory(), u16::try_from(system.cpus().len()).unwrap_or(u16::MAX))
}

struct Disk {
    size: u64,
    free: u64,
}

/// The file system that holds `path`, and no other: asking after all of them may hang on a network
/// share and wakes sleeping disks.
fn disk(path: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        size: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// Rounds up to an eighth of the next lower power of two. An exact size would tell devices apart;
/// and a board sold with 512 MiB, of which the kernel shows 490, counts as what it was sold with.
fn coarse(mib: u64) -> u32 {
    let step = mib.checked_ilog2().map_or(1, |log| (1 << log) / 8).max(1);
    saturated(mib.div_ceil(step).saturating_mul(step))
}

fn saturated(mib: u64) -> u32 {
    u32::try_from(mib).unwrap_or(u32::MAX)
}

/// A word from outside as a fact: printable ASCII, single spaces, at most [`MAX_FACT`] bytes.
fn clean(text: &str) -> String {
    let mut word = String::new();
    for part in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        let part: String = part.chars().filter(char::is_ascii_graphic).collect();
        if part.is_empty() {
            continue;
        }
        if !word.is_empty() {
            word.push(' ');
        }
        word.push_str(&part);
    }
    word.truncate(MAX_FACT);
    word.truncate(word.trim_end().len());
    word
}

/// The beginning of a file, as text; empty where there is none.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// The names in a directory, in order; `None` where it cannot be listed.
fn list(directory: &Path) -> Option<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    Some(paths)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_processors_and_a_disk() {
        let facts = gather(&Sources::system(), &Overrides::default(), Path::new("/"));
        assert!(facts.ram_mib > 0 && facts.cpus > 0 && facts.disk_mib > 0, "{facts:?}");
        assert!(!facts.kernel.is_empty() && !facts.time_zone.is_empty(), "{facts:?}");
        let conditions = conditions(&Sources::system(), Path::new("/"));
        assert!(conditions.free_disk_mib.is_some());
    }

    #[test]
    fn a_machine_that_says_nothing_still_has_facts() {
        let root = tempfile::tempdir().expect("a directory");
        let facts = gather(&sources(root.path()), &Overrides::default(), root.path());
        assert_eq!((facts.vendor.as_str(), facts.model.as_str()), ("", ""));
        assert_eq!((facts.secure_boot, facts.tpm), (None, None));
        assert_eq!(facts.time_zone, "UTC");
        let conditions = conditions(&sources(root.path()), Path::new("/no such place"));
        assert_eq!(conditions, Conditions::default());
    }

    #[test]
    fn what_the_owner_says_holds_and_is_cleaned_too() {
        let root = tempfile::tempdir().expect("a directory");
        let overrides = Overrides {
            model: Some(format!("Kiosk\n{}", "x".repeat(200))),
            configuration: Some("lobby".to_owned()),
            ram_mib: Some(512),
            tpm: Some(false),
            ..Overrides::default()
        };
        let facts = gather(&sources(root.path()), &overrides, root.path());
        assert!(facts.model.starts_with("Kiosk xxx") && facts.model.len() == MAX_FACT);
        assert_eq!(facts.configuration, "lobby");
        assert_eq!((facts.ram_mib, facts.tpm), (512, Some(false)));
    }

    #[test]
    fn words_are_printable_and_short_whatever_the_firmware_says() {
        assert_eq!(clean("  Think\u{0}Pad \t X1\n"), "Think Pad X1");
        assert_eq!(clean("Börd\u{1b}[31m™"), "Brd [31m");
        let edge = format!("{} tail", "y".repeat(MAX_FACT - 1));
        assert_eq!(clean(&edge).len(), MAX_FACT - 1);
    }

    #[test]
    fn sizes_are_coarse_and_never_below_the_truth() {
        assert_eq!(coarse(0), 0);
        assert_eq!(coarse(490), 512);
        assert_eq!(coarse(512), 512);
        assert_eq!(coarse(24_105), 24_576);
        assert_eq!(coarse(u64::MAX), u32::MAX);
        for mib in 1..5000 {
            let rounded = u64::from(coarse(mib));
            assert!(rounded >= mib && rounded <= mib + mib / 8 + 1, "{mib} -> {rounded}");
        }
    }

    /// Sources below a directory that a test fills.
    pub(crate) fn sources(root: &Path) -> Sources {
        Sources { sys: root.join("sys"), proc: root.join("proc"), etc: root.join("etc"), tz: None }
    }

    pub(crate) fn put(root: &Path, path: &str, content: impl AsRef<[u8]>) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("created");
        fs::write(path, content).expect("written");
    }
}
