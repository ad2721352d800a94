//! Pins: which of a channel's releases a device wants. N is the channel's newest complete release,
//! N-1 the newest of the line before it, N-2 of the line before that; a patch replaces its own line.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::version::Version;

/// What a device wants of its channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pin {
    /// Whatever is open to it.
    #[default]
    Latest,
    /// The line before the newest complete one.
    NMinus1,
    /// The line before that.
    NMinus2,
    /// One version and no other.
    Exact(Version),
}

/// Who asked for a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The device's owner, in its configuration.
    Owner,
    /// An administrator, through the server.
    Orders,
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "config",
            Self::Orders => "orders",
        })
    }
}

/// Of pins that all hold, those that decide. `latest` asks for nothing, and of two lines behind the
/// newest the one further behind is the stricter; everything else has to agree on one version, and a
/// device whose pins do not agree stays where it is.
pub fn strictest<'a>(pins: &[(Asker, &'a Pin)]) -> impl Iterator<Item = (Asker, &'a Pin)> {
    let further = pins.iter().any(|(_, pin)| **pin == Pin::NMinus2);
    pins.iter().copied().filter(move |(_, pin)| match pin {
        Pin::Latest => false,
        Pin::NMinus1 => !further,
        Pin::NMinus2 | Pin::Exact(_) => true,
    })
}

impl Pin {
    /// The version a pin asks for, given the channel's complete releases in any order; `None` when
    /// it asks for none in particular (`latest`) or when there is none yet.
    pub fn version<'a>(
        &'a self,
        complete: impl IntoIterator<Item = &'a Version>,
    ) -> Option<&'a Version> {
        let behind = match self {
            Self::Latest => return None,
            Self::Exact(version) => return Some(version),
            Self::NMinus1 => 1,
            Self::NMinus2 => 2,
        };
        let mut newest: Vec<&Version> = complete.into_iter().collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        newest.dedup_by_key(|version| version.line());
        newest.get(behind).copied()
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::NMinus1 => f.write_str("n-1"),
            Self::NMinus2 => f.write_str("n-2"),
            Self::Exact(version) => write!(f, "{version}"),
        }
    }
}

impl std::str::FromStr for Pin {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latest" => Ok(Self::Latest),
            "n-1" => Ok(Self::NMinus1),
            "n-2" => Ok(Self::NMinus2),
            version => version.parse().map(Self::Exact).map_err(|_| {
                format!("`{version}` is not a pin\nhint: use `latest`, `n-1`, `n-2` or a version such as `1.4.0`")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_replaces_its_own_line_and_moves_nobody_behind() {
        let complete: Vec<Version> = ["1.0.0", "1.2.0", "1.1.0", "1.2.1", "1.1.3"]
            .iter()
            .map(|text| text.parse().expect("a version"))
            .collect();
        let wanted = |pin: Pin| pin.version(&complete).map(ToString::to_string);
        assert_eq!(wanted(Pin::NMinus1).as_deref(), Some("1.1.3"));
        assert_eq!(wanted(Pin::NMinus2).as_deref(), Some("1.0.0"));
        assert_eq!(wanted(Pin::Latest), None);
    }

    #[test]
    fn a_pin_behind_the_first_release_wants_nothing_yet() {
        let complete: [Version; 1] = ["1.0.0".parse().expect("a version")];
        assert_eq!(Pin::NMinus1.version(&complete), None);
    }
}
