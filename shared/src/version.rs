//! Versions of a product: semantic versioning 2.0.0 (semver.org), bounded in length. Build metadata
//! is refused, because two versions that differ only there would compare as equal.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The longest version text: it stands in file names and in every letter.
pub const MAX_VERSION: usize = 40;

/// A product's version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

/// Why a text is not a version.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "`{text}` is not a version\nhint: use `MAJOR.MINOR.PATCH`, such as `1.4.0` or `2.0.0-rc.1`, at most {MAX_VERSION} characters and no `+build`"
)]
pub struct VersionError {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl Version {
    /// The release line: a patch replaces its own line, so `1.4.2` and `1.4.3` share one.
    pub const fn line(&self) -> (u64, u64) {
        (self.0.major, self.0.minor)
    }
}

impl FromStr for Version {
    type Err = VersionError;
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let refuse = || VersionError { text: text.chars().take(80).collect() };
        if text.len() > MAX_VERSION {
            return Err(refuse());
        }
        let version = semver::Version::parse(text).map_err(|_| refuse())?;
        if version.build.is_empty() { Ok(Self(version)) } else { Err(refuse()) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_by_meaning_and_not_by_text() {
        let v = |text: &str| text.parse::<Version>().expect("a version of this test");
        assert!(v("1.10.0") > v("1.9.9"));
        assert!(v("2.0.0-rc.1") < v("2.0.0"));
        assert_eq!(v("1.4.2").line(), v("1.4.9").line());
    }

    #[test]
    fn what_compares_as_equal_without_being_equal_is_refused() {
        for bad in ["1.0", "1.0.0+a", "v1.0.0", "", "1.0.0 "] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?} was taken");
        }
    }
}
