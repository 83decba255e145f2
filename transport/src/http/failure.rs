//! Turns errors of the HTTP library into ours. No other module handles a `reqwest::Error`.
//!
//! Invariants:
//! 1. Every error loses its URL here.
//! 2. Only a failure to connect is `Unreachable`. Once the request may have begun to leave, the
//!    failure is `Unknown`.

use std::error::Error;
use std::io;

use fieldbook_core::protocol::Failure;
use reqwest::Url;
use reqwest::header::{HeaderMap, LOCATION};

use crate::remote::RemoteError;

/// A redirect by something between the device and the server. Redirects are not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request was redirected to {}: sign in to the network, or set that address if it is the server's",
    self.origin.as_deref().unwrap_or("another path"))]
pub struct Redirected {
    /// The target's scheme, host and port, if the redirect named them.
    pub origin: Option<String>,
}

/// Classifies an error from before the head of an answer arrived.
pub(super) fn from_sending(error: reqwest::Error) -> RemoteError {
    let error = error.without_url();
    let failure = if error.is_connect() {
        Failure::Unreachable { code: connect_code(&error) }
    } else if error.is_builder() {
        Failure::Refused { code: "not_sendable".into() }
    } else {
        Failure::Unknown { code: if error.is_timeout() { "timeout" } else { "connection_broke" } }
    };
    RemoteError::new(failure).caused_by(error)
}

/// Classifies an error from reading the body of an answer.
pub(super) fn from_reading(error: reqwest::Error) -> RemoteError {
    RemoteError::new(Failure::Unknown { code: "answer_cut" }).caused_by(error.without_url())
}

/// Makes the failure of a redirect. It names the target's origin and no more of the address.
pub(super) fn redirected(headers: &HeaderMap) -> RemoteError {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let url = location.and_then(|text| Url::parse(text).ok()).filter(Url::has_host);
    let origin = url.map(|url| url.origin().ascii_serialization());
    RemoteError::new(Failure::Unreachable { code: "captive_portal" })
        .caused_by(Redirected { origin })
}

fn connect_code(error: &reqwest::Error) -> &'static str {
    if error.is_dns() {
        return "dns";
    }
    if error.is_timeout() {
        return "connect_timeout";
    }
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return tls_code(tls);
        }
        let inner = error.downcast_ref::<io::Error>();
        if inner.is_some_and(|inner| inner.kind() == io::ErrorKind::ConnectionRefused) {
            return "connection_refused";
        }
        // `source()` of an I/O error skips the error that it wraps, so the wrapped error is read
        // directly.
        next = match inner.and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    "connect"
}

fn tls_code(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        // Either the certificate is outside its period, or the device's clock is wrong. The error
        // alone does not show which.
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => "clock_or_tls",
        _ => "tls",
    }
}
