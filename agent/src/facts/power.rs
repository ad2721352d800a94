//! Power: whether the machine runs on battery and how full it is, from the kernel's power supplies.
//! Batteries of mice and headsets do not count.

use std::path::Path;

use super::{Sources, list, read};

/// How a machine is powered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Power {
    /// Whether it draws from a battery; `None` where the kernel does not say.
    pub on_battery: Option<bool>,
    /// The charge of its batteries together; `None` without one.
    pub battery_percent: Option<u8>,
}

/// Looks at all power supplies.
pub fn power(sources: &Sources) -> Power {
    let Some(supplies) = list(&sources.sys.join("class/power_supply")) else {
        return Power::default();
    };
    let mut plugged = false;
    let mut discharging = false;
    let mut charges = Vec::new();
    for supply in supplies.iter().filter(|supply| word(supply, "scope") != "Device") {
        match word(supply, "type").as_str() {
            "Battery" if word(supply, "present") != "0" => {
                discharging |= word(supply, "status") == "Discharging";
                charges.extend(charge(supply));
            }
            "Mains" | "USB" | "Wireless" => plugged |= word(supply, "online") != "0",
            _ => {}
        }
    }
    Power {
        // A battery that empties although a charger is plugged in holds the machine up all the
        // same: what counts is that power may end.
        on_battery: Some(discharging || (!charges.is_empty() && !plugged && !all_full(&supplies))),
        battery_percent: together(&charges),
    }
}

/// A battery's charge in percent, and its size for weighing it against others.
fn charge(supply: &Path) -> Option<(u32, u64)> {
    let percent: u32 = word(supply, "capacity").parse().ok()?;
    let size =
        ["energy_full", "charge_full"].iter().find_map(|name| word(supply, name).parse().ok());
    Some((percent.min(100), size.unwrap_or(1).max(1)))
}

fn together(charges: &[(u32, u64)]) -> Option<u8> {
    let size: u128 = charges.iter().map(|(_, size)| u128::from(*size)).sum();
    let filled: u128 =
        charges.iter().map(|(percent, size)| u128::from(*percent) * u128::from(*size)).sum();
    u8::try_from(filled.checked_div(size)?).ok()
}

/// Boards that hide their charger still say that the battery is full or charging.
fn all_full(supplies: &[std::path::PathBuf]) -> bool {
    (supplies.iter())
        .filter(|supply| word(supply, "type") == "Battery" && word(supply, "scope") != "Device")
        .all(|supply| {
            matches!(word(supply, "status").as_str(), "Full" | "Charging" | "Not charging")
        })
}

fn word(supply: &Path, name: &str) -> String {
    read(&supply.join(name)).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{put, sources},
        *,
    };

    #[test]
    fn a_laptop_on_battery_says_so() {
        let root = laptop("Discharging", "0");
        let power = power(&sources(root.path()));
        assert_eq!(power, Power { on_battery: Some(true), battery_percent: Some(41) });
    }

    #[test]
    fn a_laptop_on_mains_is_not_on_battery() {
        for status in ["Charging", "Full", "Not charging"] {
            let root = laptop(status, "1");
            assert_eq!(power(&sources(root.path())).on_battery, Some(false), "{status}");
        }
    }

    #[test]
    fn a_charger_too_weak_for_the_machine_does_not_count() {
        let root = laptop("Discharging", "1");
        assert_eq!(power(&sources(root.path())).on_battery, Some(true));
    }

    #[test]
    fn a_desktop_with_a_wireless_mouse_has_no_battery() {
        let root = tempfile::tempdir().expect("a directory");
        supply(
            &root,
            "hidpp_battery_0",
            &[
                ("type", "Battery"),
                ("scope", "Device"),
                ("capacity", "5"),
                ("status", "Discharging"),
            ],
        );
        let power = power(&sources(root.path()));
        assert_eq!(power, Power { on_battery: Some(false), battery_percent: None });
    }

    #[test]
    fn two_batteries_are_weighed_by_their_size() {
        let root = laptop("Discharging", "0");
        supply(
            &root,
            "BAT1",
            &[
                ("type", "Battery"),
                ("capacity", "81"),
                ("energy_full", "30000000"),
                ("status", "Unknown"),
            ],
        );
        supply(&root, "BAT0", &[("energy_full", "10000000")]);
        assert_eq!(power(&sources(root.path())).battery_percent, Some(71));
    }

    #[test]
    fn a_machine_without_that_knowledge_says_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(power(&sources(root.path())), Power::default());
    }

    fn laptop(status: &str, online: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        supply(&root, "AC", &[("type", "Mains"), ("online", online)]);
        supply(
            &root,
            "BAT0",
            &[("type", "Battery"), ("capacity", "41"), ("status", status), ("present", "1")],
        );
        root
    }

    fn supply(root: &tempfile::TempDir, name: &str, fields: &[(&str, &str)]) {
        for (field, value) in fields {
            put(
                root.path(),
                &format!("sys/class/power_supply/{name}/{field}"),
                format!("{value}\n"),
            );
        }
    }
}
