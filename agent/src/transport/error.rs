//! What can go wrong between this device and a server, told apart by what somebody can do about it.

use std::{io, path::PathBuf, time::Duration};

use lockgate_shared::{time::Seconds, wire::Problem};
use thiserror::Error;

use super::Origin;

/// Why there is no answer, or none that can be used.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The runtime or a signal handler could not be set up.
    #[error("cannot start the network's runtime")]
    Runtime(#[source] io::Error),
    /// The `ca` file cannot be read, or holds something else than certificates.
    #[error(
        "cannot read certificates from `{path}`: {reason}\nhint: the `ca` key must name a PEM file with `-----BEGIN CERTIFICATE-----` in it",
        path = path.display()
    )]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// TLS could not be set up at all.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
    /// A request that is none: a fault of this program.
    #[error("`{path}` cannot be asked for")]
    Request {
        /// The path.
        path: String,
    },
    /// The name has no address.
    #[error(
        "`{host}` has no address\nhint: check the `server` key, and the name service with `getent hosts {host}`"
    )]
    Resolve {
        /// The host.
        host: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("cannot reach `{origin}`\nhint: check the network, and that the server is running")]
    Unreachable {
        /// Where.
        origin: Origin,
        /// The system's answer to the last address tried.
        source: io::Error,
    },
    /// The certificate is not vouched for by an authority in the `ca` file.
    #[error(
        "the certificate of `{origin}` is not trusted: {reason}\nhint: put the certificate of the authority that issued it into `{ca}`",
        ca = ca.display()
    )]
    Untrusted {
        /// Whose.
        origin: Origin,
        /// The file that names the authorities.
        ca: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate is for another name.
    #[error(
        "the certificate of `{origin}` is for another name\nhint: write the name that it has into the `server` key, or have it issued for this one"
    )]
    WrongName {
        /// Whose.
        origin: Origin,
    },
    /// The certificate is not valid at this time.
    #[error(
        "the certificate of `{origin}` has expired or is not valid yet\nhint: compare this device's clock (`date -u`); if it is right, the server needs a new certificate"
    )]
    CertificateTime {
        /// Whose.
        origin: Origin,
    },
    /// The server does not speak TLS 1.3.
    #[error(
        "`{origin}` does not speak TLS 1.3\nhint: allow TLS 1.3 there, or on the proxy in front of it; older versions are not spoken here"
    )]
    TlsVersion {
        /// Who.
        origin: Origin,
    },
    /// Another fault of TLS.
    #[error("cannot agree on TLS with `{origin}`")]
    Tls {
        /// With whom.
        origin: Origin,
        /// Why.
        source: io::Error,
    },
    /// It took longer than it may.
    #[error("`{url}` gave no whole answer within {} s", .after.as_secs())]
    Timeout {
        /// What was asked for.
        url: String,
        /// The deadline.
        after: Duration,
    },
    /// Fewer bytes came in a window than the least rate.
    #[error("`{url}` sent fewer than {least} bytes in {} s", .window.as_secs())]
    TooSlow {
        /// What was asked for.
        url: String,
        /// The least.
        least: u64,
        /// In this span.
        window: Duration,
    },
    /// The connection broke, or what came was not HTTP within its limits.
    #[error("the connection broke while reading `{url}`")]
    Broken {
        /// What was asked for.
        url: String,
        /// Why.
        source: hyper::Error,
    },
    /// HTTP status 404.
    #[error("`{url}`: no such file")]
    NotFound {
        /// What was asked for.
        url: String,
        /// What the server says besides.
        problem: Option<Box<Problem>>,
    },
    /// A redirect, which is never followed: the owner named the server.
    #[error(
        "`{url}` sends on to somewhere else (status {status}), which is not followed\nhint: name the right address in the `server` or `mirrors` key"
    )]
    Redirect {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// The server is too busy, or asks for patience: status 429 or 503.
    #[error("`{url}` is not available now (status {status}){}", said(.problem))]
    Busy {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Seconds>,
        /// What the server says besides.
        problem: Option<Box<Problem>>,
    },
    /// Any other status than success.
    #[error("`{url}` answered with status {status}{}", said(.problem))]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// What the server says besides.
        problem: Option<Box<Problem>>,
    },
    /// More bytes came, or were announced, than asked for.
    #[error("`{url}` is longer than the {max} bytes allowed")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The limit.
        max: u64,
    },
    /// A payload of another length than the signed one.
    #[error("`{url}` has {found} bytes, {signed} are signed")]
    Length {
        /// What was asked for.
        url: String,
        /// What was announced.
        found: u64,
        /// What is right.
        signed: u64,
    },
    /// The server resumed at another place than asked, or with another file.
    #[error("`{url}` did not resume at byte {at}: {reason}")]
    Resume {
        /// What was asked for.
        url: String,
        /// Where it should have gone on.
        at: u64,
        /// What it did.
        reason: &'static str,
    },
    /// The agent was told to stop while it waited for an answer.
    #[error("told to stop")]
    Terminated,
}

/// What can be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Try again later: the network, the server's load.
    Wait,
    /// A person must change something: the configuration, a certificate, the server.
    Mend,
    /// Nothing: it is an answer, such as "no such file".
    Accept,
    /// End.
    Stop,
}

impl TransportError {
    /// What can be done about it.
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Resolve { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::TooSlow { .. }
            | Self::Broken { .. }
            | Self::Busy { .. }
            | Self::Tls { .. }
            | Self::Resume { .. } => Remedy::Wait,
            Self::Runtime(_)
            | Self::Ca { .. }
            | Self::Setup(_)
            | Self::Request { .. }
            | Self::Untrusted { .. }
            | Self::WrongName { .. }
            | Self::CertificateTime { .. }
            | Self::TlsVersion { .. }
            | Self::Redirect { .. }
            | Self::TooLong { .. }
            | Self::Length { .. } => Remedy::Mend,
            Self::Status { status, .. } if *status >= 500 => Remedy::Wait,
            Self::Status { .. } | Self::NotFound { .. } => Remedy::Accept,
            Self::Terminated => Remedy::Stop,
        }
    }

    /// What the server itself said, where it said something.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::NotFound { problem, .. }
            | Self::Busy { problem, .. }
            | Self::Status { problem, .. } => problem.as_deref(),
            Self::Runtime(_)
            | Self::Ca { .. }
            | Self::Setup(_)
            | Self::Request { .. }
            | Self::Resolve { .. }
            | Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::WrongName { .. }
            | Self::CertificateTime { .. }
            | Self::TlsVersion { .. }
            | Self::Tls { .. }
            | Self::Timeout { .. }
            | Self::TooSlow { .. }
            | Self::Broken { .. }
            | Self::Redirect { .. }
            | Self::TooLong { .. }
            | Self::Length { .. }
            | Self::Resume { .. }
            | Self::Terminated => None,
        }
    }

    /// Whether it is the doing of the source that was asked, or of the way to it.
    pub(super) const fn is_sources_fault(&self) -> bool {
        match self {
            Self::Runtime(_)
            | Self::Ca { .. }
            | Self::Setup(_)
            | Self::Request { .. }
            | Self::Terminated => false,
            Self::Resolve { .. }
            | Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::WrongName { .. }
            | Self::CertificateTime { .. }
            | Self::TlsVersion { .. }
            | Self::Tls { .. }
            | Self::Timeout { .. }
            | Self::TooSlow { .. }
            | Self::Broken { .. }
            | Self::NotFound { .. }
            | Self::Redirect { .. }
            | Self::Busy { .. }
            | Self::Status { .. }
            | Self::TooLong { .. }
            | Self::Length { .. }
            | Self::Resume { .. } => true,
        }
    }

    /// The same from a source whose "no such file" does not count: it may be behind.
    pub(super) fn of_a_mirror(self) -> Self {
        if let Self::NotFound { url, problem } = self {
            Self::Status { url, status: 404, problem }
        } else {
            self
        }
    }

    /// Whether the server answered, in whole, with something else than success.
    pub(super) const fn answered(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Busy { .. } | Self::Status { .. })
    }

    /// How long the server asks to wait, where it does.
    pub const fn retry_after(&self) -> Option<Seconds> {
        if let Self::Busy { retry_after, .. } = self { *retry_after } else { None }
    }
}

fn said(problem: &Option<Box<Problem>>) -> String {
    match problem {
        None => String::new(),
        Some(problem) => match &problem.hint {
            Some(hint) => format!(": {}\nhint: {hint}", problem.detail),
            None => format!(": {}", problem.detail),
        },
    }
}
