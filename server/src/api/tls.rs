//! TLS 1.3 and nothing older, by aws-lc-rs; certificates from files. And a certificate authority for
//! one evening: a try-out needs a certificate that its devices can check.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use lockgate_shared::time::{Moment, Seconds};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use thiserror::Error;

use crate::config::Tls;

/// How long a self-made certificate is good: long enough for a pilot, short enough that nobody
/// forgets to replace it.
const SELF_MADE: Seconds = Seconds(397 * 86_400);

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(
        "cannot read `{path}`\nhint: `lockgate-server tls-init` makes a certificate for a try-out"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key cannot be used.
    #[error("certificate `{certificate}` and key `{key}` cannot be used together")]
    Use {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// A self-made certificate cannot be made.
    #[error("cannot make a certificate\nhint: names are host names or IP addresses")]
    Make(#[from] rcgen::Error),
    /// A file cannot be written.
    #[error("cannot write `{path}`\nhint: nothing is overwritten; remove old files first")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The cryptography of every connection, named here and not left to a default of the process.
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    // AES-128 first: the cheapest where processors have it, and enough for a century.
    let first = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    provider
}

/// What the letter box listens with.
pub fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Read { path, source }
    };
    let certificates = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(read(&tls.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(read(&tls.key))?;
    let fail = |source| TlsError::Use {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        source,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(fail)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(fail)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    // Resumption without a table on this side: a fleet's polls cost a key agreement, no signature.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(fail)?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// A certificate authority of one's own, and a server's certificate by it, PEM.
#[derive(Clone, Debug)]
pub struct SelfMade {
    /// What clients trust.
    pub ca: String,
    /// The server's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Makes a certificate for host names and IP addresses. The authority's key is forgotten at once: it
/// signs this one certificate and never another.
pub fn self_made(names: &[String], now: Moment) -> Result<SelfMade, TlsError> {
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut ca = params(&[], "Lockgate try-out authority", now)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut leaf = params(names, "Lockgate try-out server", now)?;
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = leaf.signed_by(&key, &issuer)?;
    Ok(SelfMade {
        ca: ca_certificate.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// Makes a certificate and writes `ca.pem`, `server.pem` and `server.key` into a folder.
pub fn init(folder: &Path, names: &[String], now: Moment) -> Result<(), TlsError> {
    let made = self_made(names, now)?;
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Write { path, source }
    };
    fs::create_dir_all(folder).map_err(fail(folder))?;
    for (name, mode, text) in [
        ("server.key", 0o600, &made.key),
        ("server.pem", 0o644, &made.certificate),
        ("ca.pem", 0o644, &made.ca),
    ] {
        let path = folder.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(fail(&path))?;
    }
    Ok(())
}

fn params(names: &[String], common: &str, now: Moment) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common);
    let day = |moment: Moment| {
        let stamp = jiff::Timestamp::from_second(moment.0).unwrap_or_default();
        let date = stamp.to_zoned(jiff::tz::TimeZone::UTC).date();
        let number = |part: i8| u8::try_from(part).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), number(date.month()), number(date.day()))
    };
    // A day early, for clients whose clock is behind.
    params.not_before = day(now.minus(Seconds(86_400)));
    params.not_after = day(now.plus(SELF_MADE));
    Ok(params)
}
