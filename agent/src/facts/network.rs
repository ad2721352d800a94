//! Network: which kinds of links are up, from the kernel's list. It reads no address and no name of
//! a network, and asks no service.

use std::path::Path;

use super::{Sources, list, read};

/// `ARPHRD_LOOPBACK`, the kernel's number for the loopback device.
const LOOPBACK: &str = "772";

/// The kind of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// A cable.
    Ethernet,
    /// Wireless LAN.
    Wifi,
    /// A mobile network.
    Cellular,
    /// A tunnel, a bridge and the like, which runs over one of the others.
    Virtual,
}

/// One link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// Whether it carries traffic.
    pub state: LinkState,
}

/// Whether a link carries traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkState {
    /// It does.
    Up,
    /// It does not.
    Down,
}

/// All links but loopback, in the order of their names.
pub fn links(sources: &Sources) -> Vec<Link> {
    let devices = list(&sources.sys.join("class/net")).unwrap_or_default();
    devices.iter().filter_map(|device| link(device)).collect()
}

/// Whether the network is paid by volume. Known only in one case: when nothing but a mobile network
/// is up. A telephone's hotspot looks like any wireless LAN, so `Some(false)` is never claimed.
pub fn metered(sources: &Sources) -> Option<bool> {
    let links = links(sources);
    let mut carrying = (links.iter())
        .filter(|link| link.state == LinkState::Up && link.kind != LinkKind::Virtual)
        .peekable();
    carrying.peek()?;
    carrying.all(|link| link.kind == LinkKind::Cellular).then_some(true)
}

fn link(device: &Path) -> Option<Link> {
    let word = |name: &str| read(&device.join(name)).trim().to_owned();
    // Not every name in the directory is a device: `bonding_masters` is a file.
    let hardware = word("type");
    if hardware.is_empty() || hardware == LOOPBACK {
        return None;
    }
    let uevent = word("uevent");
    let kind_named = |name: &str| uevent.lines().any(|line| line == format!("DEVTYPE={name}"));
    let kind = if kind_named("wwan") {
        LinkKind::Cellular
    } else if kind_named("wlan")
        || device.join("wireless").exists()
        || device.join("phy80211").exists()
    {
        LinkKind::Wifi
    } else if device.join("device").exists() {
        LinkKind::Ethernet
    } else {
        LinkKind::Virtual
    };
    let up = match word("operstate").as_str() {
        "up" => true,
        // Mobile modems often do not say; carrier does.
        "unknown" => word("carrier") == "1",
        _ => false,
    };
    Some(Link { kind, state: if up { LinkState::Up } else { LinkState::Down } })
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{put, sources},
        *,
    };

    #[test]
    fn links_are_told_apart() {
        let root = tempfile::tempdir().expect("a directory");
        device(&root, "lo", "772", "", "unknown");
        device(&root, "eth0", "1", "", "down");
        device(&root, "wlan0", "1", "DEVTYPE=wlan\nINTERFACE=wlan0\n", "up");
        put(root.path(), "sys/class/net/eth0/device/vendor", "0x8086\n");
        put(root.path(), "sys/class/net/bonding_masters", "bond0\n");
        device(&root, "wg0", "65534", "DEVTYPE=wireguard\n", "unknown");
        let found = links(&sources(root.path()));
        assert_eq!(
            found,
            [
                Link { kind: LinkKind::Ethernet, state: LinkState::Down },
                Link { kind: LinkKind::Virtual, state: LinkState::Down },
                Link { kind: LinkKind::Wifi, state: LinkState::Up },
            ]
        );
    }

    #[test]
    fn only_a_mobile_network_alone_is_known_to_be_metered() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(metered(&sources(root.path())), None);
        device(&root, "wwan0", "65534", "DEVTYPE=wwan\n", "unknown");
        assert_eq!(metered(&sources(root.path())), None, "not up");
        put(root.path(), "sys/class/net/wwan0/carrier", "1\n");
        assert_eq!(metered(&sources(root.path())), Some(true));
        device(&root, "wlan0", "1", "DEVTYPE=wlan\n", "up");
        assert_eq!(metered(&sources(root.path())), None);
    }

    fn device(root: &tempfile::TempDir, name: &str, hardware: &str, uevent: &str, state: &str) {
        for (field, value) in [("type", hardware), ("uevent", uevent), ("operstate", state)] {
            put(root.path(), &format!("sys/class/net/{name}/{field}"), value);
        }
    }
}
