//! Spans as people write them on a command line: `90s`, `45m`, `12h`, `30d`.
//!
//! It refuses a number without a unit, so that nobody means days and gets seconds.

use std::str::FromStr;

use lockgate_shared::time::Seconds;
use thiserror::Error;

/// The longest span that any option takes: ten years. Longer ones are slips of the finger.
const MAX_SPAN: u64 = 3_660 * 86_400;

/// A span read from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Seconds);

/// Why a text is not a span.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "`{text}` is not a span of time\nhint: use a number and `s`, `m`, `h` or `d`, such as `12h` or `30d`, at most ten years"
)]
pub struct SpanError {
    /// What was given, cut to 40 characters.
    pub text: String,
}

impl FromStr for Span {
    type Err = SpanError;
    fn from_str(text: &str) -> Result<Self, SpanError> {
        let refuse = || SpanError { text: text.chars().take(40).collect() };
        let unit = text.chars().last().ok_or_else(refuse)?;
        let scale: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(refuse()),
        };
        let digits = text.strip_suffix(unit).unwrap_or_default();
        if !digits.chars().all(|c| c.is_ascii_digit()) {
            return Err(refuse());
        }
        let count: u64 = digits.parse().map_err(|_| refuse())?;
        let seconds = count.checked_mul(scale).ok_or_else(refuse)?;
        if seconds == 0 || seconds > MAX_SPAN { Err(refuse()) } else { Ok(Self(Seconds(seconds))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_with_a_unit() {
        let read = |text: &str| text.parse::<Span>().map(|span| span.0.0).ok();
        assert_eq!(read("90s"), Some(90));
        assert_eq!(read("45m"), Some(2_700));
        assert_eq!(read("12h"), Some(43_200));
        assert_eq!(read("30d"), Some(2_592_000));
        for bad in ["", "30", "d", "0d", "-1d", "+1d", "1.5h", "1w", "99999999999d", "3d ", "ü"] {
            assert_eq!(read(bad), None, "{bad:?} was taken");
        }
    }
}
