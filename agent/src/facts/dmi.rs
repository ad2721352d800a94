//! The board and its firmware: DMI on PCs, the device tree on boards, EFI where it is there. It
//! reads the model and the firmware's version, and leaves serial numbers, asset tags and UUIDs
//! alone.

use std::{fs, io::Read as _};

use super::{Sources, clean, list, read};

/// What makers leave in fields that they did not fill.
const FILLERS: [&str; 10] = [
    "to be filled by o.e.m.",
    "default string",
    "system product name",
    "system manufacturer",
    "system version",
    "not specified",
    "not applicable",
    "unknown",
    "o.e.m.",
    "none",
];

/// The EFI variable that says whether secure boot is on, under the specification's own GUID.
const SECURE_BOOT: &str = "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// A board in coarse words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// Who made it.
    pub vendor: String,
    /// What it is.
    pub model: String,
    /// Its firmware's maker and version.
    pub firmware_version: String,
}

/// The board, from DMI, or else from the device tree.
pub fn board(sources: &Sources) -> Board {
    let dmi = dmi(sources);
    let tree = device_tree(sources);
    Board {
        vendor: first([dmi.vendor, tree.vendor]),
        model: first([dmi.model, tree.model]),
        firmware_version: first([dmi.firmware_version, tree.firmware_version]),
    }
}

/// Whether the machine was booted by EFI firmware.
pub fn booted_by_efi(sources: &Sources) -> bool {
    sources.sys.join("firmware/efi").is_dir()
}

/// Whether secure boot is on; `None` where no firmware says.
pub fn secure_boot(sources: &Sources) -> Option<bool> {
    if !booted_by_efi(sources) {
        return None;
    }
    // Four bytes of attributes, then the value.
    let mut variable = [0; 5];
    fs::File::open(sources.sys.join(SECURE_BOOT)).ok()?.read_exact(&mut variable).ok()?;
    let [_, _, _, _, value] = variable;
    Some(value == 1)
}

/// Whether there is a TPM; `None` where the kernel shows no devices at all.
pub fn tpm(sources: &Sources) -> Option<bool> {
    let class = sources.sys.join("class");
    match list(&class.join("tpm")) {
        Some(chips) => Some(!chips.is_empty()),
        None => class.is_dir().then_some(false),
    }
}

fn dmi(sources: &Sources) -> Board {
    let id = |name: &str| field(&read(&sources.sys.join("class/dmi/id").join(name)));
    let vendor = first([id("sys_vendor"), id("board_vendor")]);
    let model = id("product_name");
    // Some makers put the model that people know into the version, and a number into the name.
    let model = match (vendor.as_str(), id("product_version")) {
        ("LENOVO", version) if !version.is_empty() => version,
        _ => first([model, id("board_name")]),
    };
    let firmware = clean(&format!("{} {}", id("bios_vendor"), id("bios_version")));
    Board { vendor, model, firmware_version: firmware }
}

fn device_tree(sources: &Sources) -> Board {
    let tree = sources.proc.join("device-tree");
    // Properties end with a zero byte; `compatible` is a list, the most specific first.
    let property = |name: &str| {
        let text = read(&tree.join(name));
        text.split('\0').next().map(field).unwrap_or_default()
    };
    let compatible = property("compatible");
    let vendor = compatible.split_once(',').map_or("", |(vendor, _)| vendor).to_owned();
    let boot_loader =
        first([property("chosen/u-boot,version"), property("chosen/bootloader/version")]);
    Board { vendor, model: first([property("model"), compatible]), firmware_version: boot_loader }
}

fn field(text: &str) -> String {
    let word = clean(text);
    if FILLERS.contains(&word.to_ascii_lowercase().as_str()) { String::new() } else { word }
}

fn first<const N: usize>(candidates: [String; N]) -> String {
    candidates.into_iter().find(|word| !word.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{put, sources},
        *,
    };

    #[test]
    fn a_pc_is_known_by_its_dmi() {
        let root = tempfile::tempdir().expect("a directory");
        for (name, value) in [
            ("sys_vendor", "Dell Inc.\n"),
            ("product_name", "Latitude 5440\n"),
            ("product_serial", "SECRET1\n"),
            ("product_uuid", "SECRET2\n"),
            ("chassis_asset_tag", "SECRET3\n"),
            ("bios_vendor", "Dell Inc.\n"),
            ("bios_version", "1.19.0\n"),
        ] {
            put(root.path(), &format!("sys/class/dmi/id/{name}"), value);
        }
        let board = board(&sources(root.path()));
        assert_eq!(board.vendor, "Dell Inc.");
        assert_eq!(board.model, "Latitude 5440");
        assert_eq!(board.firmware_version, "Dell Inc. 1.19.0");
        assert!(!format!("{board:?}").contains("SECRET"));
    }

    #[test]
    fn a_field_that_was_never_filled_is_empty() {
        let root = tempfile::tempdir().expect("a directory");
        put(root.path(), "sys/class/dmi/id/sys_vendor", "To Be Filled By O.E.M.\n");
        put(root.path(), "sys/class/dmi/id/board_vendor", "ASRock\n");
        put(root.path(), "sys/class/dmi/id/product_name", "Default string\n");
        put(root.path(), "sys/class/dmi/id/board_name", "B550M\n");
        let board = board(&sources(root.path()));
        assert_eq!((board.vendor.as_str(), board.model.as_str()), ("ASRock", "B550M"));
    }

    #[test]
    fn a_thinkpad_goes_by_the_name_that_people_know() {
        let root = tempfile::tempdir().expect("a directory");
        put(root.path(), "sys/class/dmi/id/sys_vendor", "LENOVO\n");
        put(root.path(), "sys/class/dmi/id/product_name", "20XW004AUS\n");
        put(root.path(), "sys/class/dmi/id/product_version", "ThinkPad X1 Carbon Gen 9\n");
        assert_eq!(board(&sources(root.path())).model, "ThinkPad X1 Carbon Gen 9");
    }

    #[test]
    fn a_board_is_known_by_its_device_tree() {
        let root = tempfile::tempdir().expect("a directory");
        let tree = "proc/device-tree";
        put(root.path(), &format!("{tree}/model"), b"Raspberry Pi 4 Model B Rev 1.4\0");
        put(root.path(), &format!("{tree}/compatible"), b"raspberrypi,4-model-b\0brcm,bcm2711\0");
        put(root.path(), &format!("{tree}/chosen/u-boot,version"), b"2024.01\0");
        let board = board(&sources(root.path()));
        assert_eq!(board.vendor, "raspberrypi");
        assert_eq!(board.model, "Raspberry Pi 4 Model B Rev 1.4");
        assert_eq!(board.firmware_version, "2024.01");
    }

    #[test]
    fn secure_boot_is_what_the_firmware_says() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(secure_boot(&sources(root.path())), None);
        put(root.path(), &format!("sys/{SECURE_BOOT}"), [6, 0, 0, 0, 1]);
        assert_eq!(secure_boot(&sources(root.path())), Some(true));
        put(root.path(), &format!("sys/{SECURE_BOOT}"), [6, 0, 0, 0, 0]);
        assert_eq!(secure_boot(&sources(root.path())), Some(false));
        put(root.path(), &format!("sys/{SECURE_BOOT}"), [6, 0]);
        assert_eq!(secure_boot(&sources(root.path())), None);
    }

    #[test]
    fn a_tpm_is_there_or_not() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(tpm(&sources(root.path())), None);
        put(root.path(), "sys/class/net/lo/type", "772");
        assert_eq!(tpm(&sources(root.path())), Some(false));
        put(root.path(), "sys/class/tpm/tpm0/tpm_version_major", "2");
        assert_eq!(tpm(&sources(root.path())), Some(true));
    }
}
