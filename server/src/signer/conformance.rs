//! What every signer must hold to. Each kind runs it in its own tests.

use lockgate_shared::sign::{self, Domain};

use super::{MESSAGE_BYTES, Signer, SignerError, signed_by, signed_for};

/// Panics at the first thing that does not hold: for tests.
///
/// # Panics
/// When the signer is not one.
pub fn check(signer: &dyn Signer) {
    let key = signer.public();
    assert_eq!(signer.public(), key, "its key does not change");
    // Nobody signs nothing, and some tools refuse to.
    for size in [1, 63, 64, 4_096, 300_000] {
        let bytes = vec![0x5a; size];
        let one = signed_by(signer, &bytes).expect("a signature that holds");
        let two = signed_by(signer, &bytes).expect("another");
        assert_eq!(one, two, "Ed25519 draws no dice: {size} bytes");
    }
    let signature = signed_for(signer, Domain::ActV1, b"an act").expect("a signature");
    assert!(sign::verify(&key, Domain::ActV1, b"an act", &signature));
    assert!(!sign::verify(&key, Domain::TokenV1, b"an act", &signature));
    assert!(!sign::verify(&key, Domain::ActV1, b"an axe", &signature));
    let refused = signed_by(signer, &vec![0; MESSAGE_BYTES + 1]);
    assert!(matches!(refused, Err(SignerError::TooLarge(_))), "{refused:?}");
}
