//! The simulated fleet: made-up devices with days, sites, noise and faults, under the real gate and under
//! its peers' policies, from a seed, one gate tick at a time.
//!
//! | to find out | open |
//! |---|---|
//! | what a scenario says | [`scenario`] |
//! | what devices there are | [`fleet`] |
//! | when they are on | [`presence`] |
//! | what an install comes to | [`fate`] |
//! | what happens in a tick | [`run`] |
//! | who decides | [`policy`], [`peers`], [`clairvoyant`] |
//! | who looks on | [`watch`] |
//! | what is printed | [`table`] |
//! | how many runs are made at once | [`crew`] |
//! | how one rollout went | [`story`] |
//! | what a decision costs | [`cost`] |

pub mod clairvoyant;
pub mod cost;
pub mod crew;
pub mod dice;
pub mod fate;
pub mod fleet;
pub mod peers;
pub mod policy;
pub mod presence;
pub mod run;
pub mod scenario;
pub mod story;
pub mod table;
pub mod watch;

/// Gate ticks in an hour: five minutes each.
pub const TICKS_PER_HOUR: u32 = 12;
/// Gate ticks in a day.
pub const TICKS_PER_DAY: u32 = 24 * TICKS_PER_HOUR;
