//! Asks the machine for chance: the only file of the agent that does. It is asked for the
//! device's key and for those of connections; jitter and order follow from the device's id, so that they can be computed again.
#![expect(
    clippy::disallowed_methods,
    reason = "this file is where the machine is asked for chance"
)]

use thiserror::Error;

/// Why there is no chance to be had.
#[derive(Debug, Error)]
#[error(
    "the system gives no random bytes\nhint: early in the boot its pool may be empty; `systemctl restart lockgate-agent` once it is up"
)]
pub struct DiceError(#[source] getrandom::Error);

/// Fills a buffer with random bytes that nobody can guess.
pub fn fill(bytes: &mut [u8]) -> Result<(), DiceError> {
    getrandom::fill(bytes).map_err(DiceError)
}

/// Random bytes that nobody can guess.
pub fn bytes<const N: usize>() -> Result<[u8; N], DiceError> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_throws_are_alike() {
        let a: [u8; 32] = bytes().expect("the system has random bytes");
        let b: [u8; 32] = bytes().expect("the system has random bytes");
        assert_ne!(a, b);
    }
}
