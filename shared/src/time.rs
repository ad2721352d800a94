//! Moments and spans as plain numbers with a type. Nothing here asks a clock: `now` is always an
//! argument, so that a decision made yesterday can be made again today.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time: whole seconds since 1970-01-01T00:00:00Z. RFC 3339 in JSON, a number in binary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub i64);

/// A span of time in whole seconds.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seconds(pub u64);

impl Moment {
    /// The moment `span` later; stays at the last representable moment instead of wrapping.
    pub const fn plus(self, span: Seconds) -> Self {
        let span = if span.0 > i64::MAX as u64 { i64::MAX } else { span.0 as i64 };
        Self(self.0.saturating_add(span))
    }

    /// The moment `span` earlier; stays at the first representable moment instead of wrapping.
    pub const fn minus(self, span: Seconds) -> Self {
        let span = if span.0 > i64::MAX as u64 { i64::MAX } else { span.0 as i64 };
        Self(self.0.saturating_sub(span))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub const fn since(self, earlier: Self) -> Seconds {
        let span = self.0.saturating_sub(earlier.0);
        Seconds(if span > 0 { span as u64 } else { 0 })
    }

    /// Reads RFC 3339, such as `2026-11-21T09:30:00Z`. Fractions of a second are dropped.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|stamp| Self(stamp.as_second()))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(stamp) => write!(f, "{stamp}"),
            Err(_) => write!(f, "@{}", self.0),
        }
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (d, h, m, s) = (self.0 / 86_400, self.0 / 3600 % 24, self.0 / 60 % 60, self.0 % 60);
        let mut first = true;
        for (count, unit) in [(d, "d"), (h, "h"), (m, "min"), (s, "s")] {
            if count > 0 {
                write!(f, "{}{count} {unit}", if first { "" } else { " " })?;
                first = false;
            }
        }
        if first { write!(f, "0 s") } else { Ok(()) }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse_rfc3339(&text)
                .ok_or_else(|| de::Error::custom(format!("`{text}` is not an RFC 3339 moment")))
        } else {
            i64::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_its_own_text() {
        let moment = Moment(1_795_000_000);
        assert_eq!(Moment::parse_rfc3339(&moment.to_string()), Some(moment));
    }

    #[test]
    fn spans_never_wrap_and_never_run_backwards() {
        assert_eq!(Moment(i64::MAX).plus(Seconds(u64::MAX)), Moment(i64::MAX));
        assert_eq!(Moment(5).since(Moment(9)), Seconds(0));
    }

    #[test]
    fn a_span_reads_like_a_clock() {
        assert_eq!(Seconds(90_061).to_string(), "1 d 1 h 1 min 1 s");
        assert_eq!(Seconds(0).to_string(), "0 s");
    }
}
