//! The server's only look at the machine's clock. Everything that decides takes `now` as an argument.

#![expect(clippy::disallowed_methods, reason = "this is the file that asks the machine")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lockgate_shared::time::Moment;

/// The moment it is now. Before 1970, which only a broken clock shows, it is 0.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Measures a span within this process.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long ago it was started.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
