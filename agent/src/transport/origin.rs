//! Where a server is: `https`, a host, a port, perhaps a folder. Nothing else that a URL may hold is
//! taken, above all no user, no query and no other scheme.

use std::{fmt, str::FromStr};

use hyper::Uri;
use rustls_pki_types::ServerName;
use thiserror::Error;

/// The longest address: a host name of 253 characters and room for a folder.
pub const MAX_ORIGIN: usize = 512;

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    host: String,
    port: u16,
    folder: String,
}

/// Why a text is not an address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{text}` is not an address of a server: {reason}\nhint: write it like `https://updates.example.org:8443`"
)]
pub struct OriginError {
    /// What was given, cut to 80 characters.
    pub text: String,
    /// What is wrong.
    pub reason: &'static str,
}

impl Origin {
    /// The host's name or number, an IPv6 one without its brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What stands in a `Host` field.
    pub fn authority(&self) -> String {
        if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The path of a request: the folder, then `path`, which begins with `/`.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.folder)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.folder)
    }
}

impl FromStr for Origin {
    type Err = OriginError;
    fn from_str(text: &str) -> Result<Self, OriginError> {
        let refuse = |reason| OriginError { text: text.chars().take(80).collect(), reason };
        if text.len() > MAX_ORIGIN {
            return Err(refuse("it is too long"));
        }
        let uri: Uri = text.parse().map_err(|_| refuse("it cannot be read"))?;
        if uri.scheme_str() != Some("https") {
            return Err(refuse("it does not begin with `https://`"));
        }
        let authority = uri.authority().ok_or_else(|| refuse("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("it names a user"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(refuse("it has a query or fragment"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 443,
            Some(rest) => rest
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port != 0)
                .ok_or_else(|| refuse("its port is not one"))?,
            None => return Err(refuse("it cannot be read")),
        };
        let origin = Self {
            host: authority.host().to_ascii_lowercase(),
            port,
            folder: uri.path().trim_end_matches('/').to_owned(),
        };
        if ServerName::try_from(origin.host()).is_err() {
            return Err(refuse("its host is not a name that a certificate can have"));
        }
        Ok(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_back_in_one_form() {
        for (text, again) in [
            ("https://Updates.example.org", "https://updates.example.org"),
            ("https://updates.example.org:443/", "https://updates.example.org"),
            ("https://127.0.0.1:8443/a/b/", "https://127.0.0.1:8443/a/b"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ] {
            let origin: Origin = text.parse().expect("an address of this test");
            assert_eq!(origin.to_string(), again);
        }
        let six: Origin = "https://[::1]:8443".parse().expect("an address of this test");
        assert_eq!((six.host(), six.port()), ("::1", 8443));
    }

    #[test]
    fn what_is_more_or_less_than_an_address_is_refused() {
        for bad in [
            "",
            "updates.example.org",
            "http://updates.example.org",
            "https://",
            "https://ada@updates.example.org",
            "https://updates.example.org?x=1",
            "https://updates.example.org#x",
            "https://updates.example.org:0",
            "https://updates.example.org:70000",
            "https://two words",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?} was taken");
        }
    }
}
