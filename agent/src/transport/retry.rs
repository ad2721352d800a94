//! When to try again: what `Retry-After` says, and how long a broken download pauses. Plain functions;
//! when to poll again is decided in `core`.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use lockgate_shared::time::{Moment, Seconds};

/// The longest `Retry-After` that is heeded: a day. A server that asks for more, by mistake or not,
/// must not silence a device for good.
pub const RETRY_AFTER_MOST: Seconds = Seconds(86_400);

/// The pause before a download's second attempt; each further one doubles it.
pub const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between two attempts: as long as a router takes to come back.
const PAUSE_MOST: Duration = Duration::from_secs(60);

/// How long a `Retry-After` field asks to wait: seconds, or until a date (RFC 9110, 10.2.3).
pub fn retry_after(field: &str, now: Moment) -> Option<Seconds> {
    let field = field.trim();
    let span = if field.bytes().all(|byte| byte.is_ascii_digit()) && !field.is_empty() {
        // More digits than a number holds is a long time.
        Seconds(field.parse().unwrap_or(u64::MAX))
    } else {
        http_date(field)?.since(now)
    };
    Some(span.min(RETRY_AFTER_MOST))
}

/// The moment of a `Date` field or its like.
pub fn http_date(field: &str) -> Option<Moment> {
    let stamp = DateTimeParser::new().parse_timestamp(field.trim()).ok()?;
    Some(Moment(stamp.as_second()))
}

/// The pause after `failures` attempts that brought nothing, at least one; `first` after the first.
pub fn pause(first: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(PAUSE_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(784_111_777);

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        assert_eq!(retry_after("120", NOW), Some(Seconds(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", NOW), Some(Seconds(10)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", NOW), Some(Seconds(0)));
    }

    #[test]
    fn no_server_silences_a_device_for_longer_than_a_day() {
        for long in ["999999999", "99999999999999999999999999", "Sat, 06 Nov 2094 08:49:37 GMT"] {
            assert_eq!(retry_after(long, NOW), Some(RETRY_AFTER_MOST), "{long}");
        }
    }

    #[test]
    fn what_is_neither_is_no_wish() {
        for nonsense in ["", "soon", "-5", "1.5", "Sun, 99 Nov"] {
            assert_eq!(retry_after(nonsense, NOW), None, "{nonsense}");
        }
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let pauses: Vec<_> = (1..40).map(|failures| pause(PAUSE_FIRST, failures)).collect();
        assert!(pauses.is_sorted());
        assert_eq!((pauses.first(), pauses.last()), (Some(&PAUSE_FIRST), Some(&PAUSE_MOST)));
    }
}
