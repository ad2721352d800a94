//! The server's only look at the machine's clock. Everything that decides takes `now` as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_shared::time::Moment;

/// The moment it is now. Before 1970, which only a broken clock shows, it is 0.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
