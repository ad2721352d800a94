//! The operating system: its id and version from os-release(5), the kernel's release, the time
//! zone. It does not read the machine's name or its id.

use std::fs;

use super::{Sources, clean, read};

/// The zone of a machine that names none.
const NO_ZONE: &str = "UTC";

/// The operating system in coarse words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `VERSION_ID`, or `BUILD_ID` of a rolling distribution.
    pub version: String,
}

/// What `/etc/os-release` says; `linux`, as that page of the manual has it, where there is none.
pub fn release(sources: &Sources) -> Release {
    let text = read(&sources.etc.join("os-release"));
    let value = |key: &str| {
        (text.lines())
            .filter_map(|line| line.trim().split_once('='))
            .find(|(found, _)| *found == key)
            .map(|(_, value)| clean(&unquoted(value)))
            .filter(|value| !value.is_empty())
    };
    Release {
        id: value("ID").unwrap_or_else(|| std::env::consts::OS.to_owned()),
        version: value("VERSION_ID").or_else(|| value("BUILD_ID")).unwrap_or_default(),
    }
}

/// The kernel's release.
pub fn kernel(sources: &Sources) -> String {
    match clean(&read(&sources.proc.join("sys/kernel/osrelease"))) {
        word if word.is_empty() => clean(&sysinfo::System::kernel_version().unwrap_or_default()),
        word => word,
    }
}

/// The IANA time zone: `TZ`, else the link `/etc/localtime`, else `/etc/timezone`, else `UTC`.
pub fn time_zone(sources: &Sources) -> String {
    let variable = sources.tz.as_deref().map(|tz| tz.trim_start_matches(':'));
    let link = fs::read_link(sources.etc.join("localtime")).unwrap_or_default();
    let link = link.to_string_lossy();
    let file = read(&sources.etc.join("timezone"));
    let candidates = [
        variable.map(zone_in),
        link.split_once("zoneinfo/").map(|(_, zone)| zone),
        Some(file.trim()),
    ];
    (candidates.into_iter().flatten().map(clean))
        .find(|zone| looks_like_a_zone(zone))
        .unwrap_or_else(|| NO_ZONE.to_owned())
}

/// `TZ` may name a file as well.
fn zone_in(variable: &str) -> &str {
    variable.split_once("zoneinfo/").map_or(variable, |(_, zone)| zone)
}

/// `Europe/Berlin` or `UTC`, and not a rule such as `CET-1CEST,M3.5.0,M10.5.0/3`.
fn looks_like_a_zone(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '+');
    let known = word.contains('/') || matches!(word, "UTC" | "GMT" | "UCT" | "Zulu" | "Universal");
    known && word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.chars().all(plain)
}

/// A value of os-release(5), which is quoted as a shell would.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote)) {
            return inner.replace('\\', "");
        }
    }
    value.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{put, sources},
        *,
    };

    #[test]
    fn os_release_is_read_as_its_manual_says() {
        let root = tempfile::tempdir().expect("a directory");
        put(
            root.path(),
            "etc/os-release",
            "# comment\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\nID_LIKE=x\n",
        );
        let release = release(&sources(root.path()));
        assert_eq!((release.id.as_str(), release.version.as_str()), ("debian", "12"));
    }

    #[test]
    fn a_rolling_system_has_a_build_and_none_has_its_kind() {
        let root = tempfile::tempdir().expect("a directory");
        put(root.path(), "etc/os-release", "ID='arch'\nBUILD_ID=rolling\n");
        assert_eq!(release(&sources(root.path())).version, "rolling");
        let bare = tempfile::tempdir().expect("a directory");
        assert_eq!(release(&sources(bare.path())).id, std::env::consts::OS);
    }

    #[test]
    fn the_zone_is_the_variable_then_the_link_then_the_file() {
        let root = tempfile::tempdir().expect("a directory");
        let mut sources = sources(root.path());
        put(root.path(), "etc/timezone", "America/New_York\n");
        assert_eq!(time_zone(&sources), "America/New_York");
        let link = root.path().join("etc/localtime");
        std::os::unix::fs::symlink("../usr/share/zoneinfo/Europe/Berlin", link).expect("made");
        assert_eq!(time_zone(&sources), "Europe/Berlin");
        sources.tz = Some(":Asia/Kolkata".to_owned());
        assert_eq!(time_zone(&sources), "Asia/Kolkata");
        sources.tz = Some(":/usr/share/zoneinfo/Asia/Tokyo".to_owned());
        assert_eq!(time_zone(&sources), "Asia/Tokyo");
    }

    #[test]
    fn a_rule_or_nonsense_is_no_zone() {
        let root = tempfile::tempdir().expect("a directory");
        let mut sources = sources(root.path());
        for tz in ["CET-1CEST,M3.5.0,M10.5.0/3", "/etc/passwd", "../../x", "", "a b/c"] {
            sources.tz = Some(tz.to_owned());
            assert_eq!(time_zone(&sources), "UTC", "{tz}");
        }
    }

    #[test]
    fn the_kernel_is_the_simulated_one_where_there_is_one() {
        let root = tempfile::tempdir().expect("a directory");
        put(root.path(), "proc/sys/kernel/osrelease", "6.1.0-rpi7\n");
        assert_eq!(kernel(&sources(root.path())), "6.1.0-rpi7");
    }
}
