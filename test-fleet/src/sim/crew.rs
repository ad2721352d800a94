//! Many runs at once, on some threads: each by its number, and what comes of them in that order, whoever
//! was ready first. A run that panics ends all.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// What comes of the runs 0 to `runs`, on so many threads, of which there is one at least.
pub fn each<T: Send>(runs: u64, jobs: usize, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut own = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                return own;
            }
            own.push((number, run(number)));
        }
    };
    let mut all: Vec<(u64, T)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().flat_map(|worker| match worker.join() {
            Ok(own) => own,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.collect()
    });
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_in_the_order_of_their_numbers_each_once_whoever_is_ready_first() {
        // The first run waits for the last one, which another thread has to take.
        let last = std::sync::Barrier::new(2);
        let run = |number| {
            if number == 0 || number == 99 {
                last.wait();
            }
            number
        };
        assert_eq!(each(100, 2, run), (0..100).collect::<Vec<_>>());
        assert_eq!(each(3, 0, |number| number), [0, 1, 2], "somebody does it");
    }
}
