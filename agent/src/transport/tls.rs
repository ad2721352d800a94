//! TLS as the agent speaks it: version 1.3 only, the owner's authorities only, and errors told apart by
//! what somebody can do about them.

use std::{io, path::Path, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore, SignatureScheme,
    SupportedCipherSuite,
    client::Resumption,
    crypto::{
        CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
        ring::{
            cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384},
            kx_group::{SECP256R1, SECP384R1},
        },
    },
    sign::SigningKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use webpki::ring as algorithms;

use super::{
    Origin, TransportError,
    curve::{Ed25519, X25519},
};
use crate::dice;

/// The most authorities in a `ca` file: a public bundle has some 150.
pub const AUTHORITIES: usize = 1_000;
/// The largest `ca` file.
pub const CA_BYTES: u64 = 4 * 1024 * 1024;
/// Sessions kept for resumption: one for the server and each mirror, and some to spare.
const SESSIONS: usize = 16;

/// AES-128 first: quickest where the processor has AES, as the server's has, and it is the server that
/// carries a fleet. Every server that speaks TLS 1.3 has it (RFC 8446, 9.1), so nothing is lost without
/// ChaCha20, whose code for each kind of processor is 60 kB.
const SUITES: [SupportedCipherSuite; 2] = [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];

/// Every kind of certificate that public and private authorities give out: elliptic curves, Ed25519 and
/// RSA, each with the hashes it comes with. Named one by one, because the provider's own list has
/// everything of the older TLS behind it.
const SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        &Ed25519,
        algorithms::ECDSA_P256_SHA256,
        algorithms::ECDSA_P256_SHA384,
        algorithms::ECDSA_P384_SHA256,
        algorithms::ECDSA_P384_SHA384,
        algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        algorithms::RSA_PKCS1_2048_8192_SHA256,
        algorithms::RSA_PKCS1_2048_8192_SHA384,
        algorithms::RSA_PKCS1_2048_8192_SHA512,
        algorithms::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
        algorithms::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        algorithms::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    ],
    // What a server may sign a handshake of TLS 1.3 with.
    mapping: &[
        (SignatureScheme::ED25519, &[&Ed25519]),
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[algorithms::ECDSA_P256_SHA256]),
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[algorithms::ECDSA_P384_SHA384]),
        (SignatureScheme::RSA_PSS_SHA256, &[algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA384, &[algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA512, &[algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
    ],
};

/// The configuration of every connection.
pub(super) fn client(ca: &Path) -> Result<Arc<ClientConfig>, TransportError> {
    let roots = authorities(ca)?;
    let provider = CryptoProvider {
        cipher_suites: SUITES.to_vec(),
        kx_groups: vec![&X25519, SECP256R1, SECP384R1],
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Chance,
        key_provider: &NoKeys,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(TransportError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

/// The machine's chance, for keys of connections.
#[derive(Debug)]
struct Chance;

impl SecureRandom for Chance {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        dice::fill(bytes).map_err(|_| GetRandomFailed)
    }
}

/// Reads no private key: a device proves who it is in its letters and never by TLS, and signing with
/// RSA and ECDSA would be carried along for nothing.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("the agent shows no certificate of its own".to_owned()))
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TransportError> {
    use io::Read as _;
    let refuse = |reason: String| TransportError::Ca { path: path.to_path_buf(), reason };
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| refuse(error.to_string()))?;
    file.take(CA_BYTES + 1).read_to_end(&mut pem).map_err(|error| refuse(error.to_string()))?;
    if pem.len() as u64 > CA_BYTES {
        return Err(refuse(format!("it has more than {CA_BYTES} bytes")));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
        if roots.len() > AUTHORITIES {
            return Err(refuse(format!("it names more than {AUTHORITIES} authorities")));
        }
    }
    if roots.is_empty() { Err(refuse("it holds no certificate".to_owned())) } else { Ok(roots) }
}

/// What a failed handshake means.
pub(super) fn explain(error: io::Error, origin: &Origin, ca: &Path) -> TransportError {
    let origin = origin.clone();
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(fault)) => certificate(fault, origin, ca),
        Some(
            rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion),
        ) => TransportError::TlsVersion { origin },
        Some(_) | None => TransportError::Tls { origin, source: error },
    }
}

fn certificate(fault: &CertificateError, origin: Origin, ca: &Path) -> TransportError {
    use CertificateError as Fault;
    if matches!(fault, Fault::NotValidForName | Fault::NotValidForNameContext { .. }) {
        return TransportError::WrongName { origin };
    }
    let time = matches!(
        fault,
        Fault::Expired
            | Fault::ExpiredContext { .. }
            | Fault::NotValidYet
            | Fault::NotValidYetContext { .. }
    );
    if time {
        return TransportError::CertificateTime { origin };
    }
    let reason = if matches!(fault, Fault::UnknownIssuer) {
        "its issuer is not known here".to_owned()
    } else if matches!(fault, Fault::BadSignature) {
        // Made anew, an authority keeps its name and not its key.
        "its issuer has the name of one known here, and another key".to_owned()
    } else {
        fault.to_string()
    };
    TransportError::Untrusted { origin, ca: ca.to_path_buf(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_was_made_anew_is_told_in_words() {
        let origin: Origin = "https://updates.example.org:8443".parse().expect("an origin");
        let error = certificate(&CertificateError::BadSignature, origin, Path::new("/etc/ca.pem"));
        let text = error.to_string();
        assert!(text.contains("the name of one known here, and another key"), "{text}");
        assert!(text.contains("hint: put the certificate"), "{text}");
    }
}
