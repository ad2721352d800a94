//! The server's only source of chance: the operating system's. Nothing that decides uses it.

#![expect(clippy::disallowed_methods, reason = "this is the file that asks the machine")]

/// Random bytes, good enough for keys and tokens.
///
/// # Panics
/// When the operating system has no randomness to give: then nothing that needs a secret may go on.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .expect("an operating system that runs this program gives randomness");
    bytes
}
