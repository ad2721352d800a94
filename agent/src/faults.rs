//! Power cuts on order: with the feature `faults`, `LOCKGATE_FAULT_KILL_AT=N` makes the process kill
//! itself right after its Nth journal write, and `N+` right after the Nth effect was done and before
//! that is noted. Not linked into a shipped agent.

use std::{
    env,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Which instant the process dies at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Write(u64),
    Effect(u64),
}

static AT: OnceLock<Option<At>> = OnceLock::new();
static WRITES: AtomicU64 = AtomicU64::new(0);
static EFFECTS: AtomicU64 = AtomicU64::new(0);

/// Called right after each journal write.
pub fn wrote() {
    let count = WRITES.fetch_add(1, Ordering::SeqCst) + 1;
    die_if(At::Write(count));
}

/// Called right after each effect.
pub fn did() {
    let count = EFFECTS.fetch_add(1, Ordering::SeqCst) + 1;
    die_if(At::Effect(count));
}

fn die_if(here: At) {
    let wanted = AT.get_or_init(|| {
        let text = env::var("LOCKGATE_FAULT_KILL_AT").ok()?;
        match text.strip_suffix('+') {
            Some(number) => number.parse().ok().map(At::Effect),
            None => text.parse().ok().map(At::Write),
        }
    });
    if *wanted == Some(here) {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
