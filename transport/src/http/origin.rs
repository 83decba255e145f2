//! The address of a server: scheme, host and port, checked once.
//!
//! Invariant: an [`Origin`] is HTTPS, or plain HTTP to this machine. It has no user, path, query or
//! fragment.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;

/// An address that cannot be a server's origin. The error does not repeat the address, which may
/// hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOrigin {
    /// The address is not a URL with a host.
    #[error("expected an address such as https://sync.example.com")]
    NotAUrl,
    /// The address has more than scheme, host and port.
    #[error("expected scheme, host and port only, without user, path, query or fragment")]
    NotAnOrigin,
    /// The scheme is neither `https` nor `http`.
    #[error("expected https://, or http:// for a server on this machine")]
    Scheme,
    /// The address is plain HTTP to another machine.
    #[error("plain http:// is only for a server on this machine: use https://")]
    Insecure,
}

/// The addresses of `localhost`. Port 0 leaves the port to the URL.
pub(super) const LOOPBACK: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0),
];

/// A checked origin.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Origin {
    exchanges: Url,
    comparisons: Url,
}

impl Origin {
    /// Checks an address and parses it.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidOrigin> {
        let mut url = Url::parse(text.trim()).map_err(|_| InvalidOrigin::NotAUrl)?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(InvalidOrigin::Scheme);
        }
        if !url.has_host() {
            return Err(InvalidOrigin::NotAUrl);
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidOrigin::NotAnOrigin);
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(InvalidOrigin::Insecure);
        }
        url.set_path("/v1/exchange");
        let mut comparisons = url.clone();
        comparisons.set_path("/v1/compare");
        Ok(Self { exchanges: url, comparisons })
    }

    /// Returns the URL of exchanges.
    pub(super) fn exchanges(&self) -> &Url {
        &self.exchanges
    }

    /// Returns the URL of comparisons.
    pub(super) fn comparisons(&self) -> &Url {
        &self.comparisons
    }

    /// Returns whether the server is on this machine.
    pub(super) fn is_local(&self) -> bool {
        is_loopback(&self.exchanges)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.exchanges.origin().ascii_serialization())
    }
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_anywhere_and_http_on_this_machine_are_origins() {
        for text in [
            "https://sync.example.com",
            "https://sync.example.com:8443/",
            "http://localhost:7070",
            "http://127.0.0.1:7070",
            "http://127.8.8.8:7070",
            "http://[::1]:7070",
        ] {
            let origin = Origin::parse(text).unwrap();
            assert_eq!(origin.exchanges().path(), "/v1/exchange", "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", InvalidOrigin::NotAUrl),
            ("sync.example.com", InvalidOrigin::NotAUrl),
            ("ftp://sync.example.com", InvalidOrigin::Scheme),
            ("file:///etc/hosts", InvalidOrigin::Scheme),
            ("http://sync.example.com", InvalidOrigin::Insecure),
            ("http://localhost.example.com", InvalidOrigin::Insecure),
            ("http://127.0.0.1.example.com", InvalidOrigin::Insecure),
            ("http://10.0.0.1", InvalidOrigin::Insecure),
            ("http://[::2]", InvalidOrigin::Insecure),
            ("https://ann:canary@sync.example.com", InvalidOrigin::NotAnOrigin),
            ("https://sync.example.com/base", InvalidOrigin::NotAnOrigin),
            ("https://sync.example.com/?key=canary", InvalidOrigin::NotAnOrigin),
            ("https://sync.example.com/#x", InvalidOrigin::NotAnOrigin),
        ] {
            let refused = Origin::parse(text).unwrap_err();
            assert_eq!(refused, reason, "{text}");
            assert!(!refused.to_string().contains("canary"));
        }
    }
}
