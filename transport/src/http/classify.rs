//! The meaning of an HTTP response: pure functions from its parts to an answer or a [`Failure`].
//! The status is read first, the error code second.
//!
//! | response | is |
//! |---|---|
//! | 200, JSON, marker, protocol, request id | the answer |
//! | 200 with HTML, any redirect, 511 | `Unreachable`: a captive portal |
//! | 200 otherwise, other 1xx and 2xx | `Misbehaved` |
//! | 401; 403 `wrong_actor` of our server | `Unauthorized` |
//! | 408, 425, 429, 5xx | `Transient` |
//! | 413 of our server | `TooLarge` |
//! | 426 of our server | `UpgradeRequired` |
//! | other 4xx of our server | `Refused` |
//! | other 4xx of something else, 413 and 426 too | `Unreachable`: not our server |
//!
//! A response is "of our server" if it carries the marker of the protocol, whatever its media type.
//!
//! Invariants:
//! 1. No text of a response enters an error, except an error code of at most [`limits::CODE_BYTES`]
//!    plain characters.
//! 2. The error code of a response without the marker begins with [`UNMARKED`] or is a code of this
//!    module. No code of a response with the marker begins with [`UNMARKED`].

use std::time::Duration;

use fieldbook_core::protocol::{
    CompareAnswer, ErrorAnswer, ExchangeAnswer, Failure, MARKER, PROTOCOL, UNMARKED,
};
use fieldbook_core::{RequestId, limits};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use crate::remote::RemoteError;

/// A body that is not an answer. The error names the place of the fault, never the text at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an answer of the protocol: line {line}, column {column}")]
pub struct Unparsable {
    /// The line of the fault, from 1.
    pub line: usize,
    /// The column of the fault, from 1.
    pub column: usize,
}

/// Reads the body of a 200.
pub(super) fn answer(body: &[u8], request: RequestId) -> Result<ExchangeAnswer, RemoteError> {
    if body.is_empty() {
        return Err(misbehaved("empty_answer"));
    }
    let answer = ExchangeAnswer::read(body).map_err(|error| unparsable(&error))?;
    check((&answer.marker, answer.protocol), answer.request, request)?;
    Ok(answer)
}

/// Reads the body of a 200 that answers a comparison.
pub(super) fn comparison(body: &[u8], request: RequestId) -> Result<CompareAnswer, RemoteError> {
    if body.is_empty() {
        return Err(misbehaved("empty_answer"));
    }
    let answer = CompareAnswer::read(body).map_err(|error| unparsable(&error))?;
    check((&answer.marker, answer.protocol), answer.request, request)?;
    Ok(answer)
}

fn unparsable(error: &serde_json::Error) -> RemoteError {
    // The error itself may quote the body.
    misbehaved("not_an_answer").caused_by(Unparsable { line: error.line(), column: error.column() })
}

fn check(
    (marker, protocol): (&str, u32),
    answered: RequestId,
    asked: RequestId,
) -> Result<(), RemoteError> {
    if marker != MARKER {
        return Err(misbehaved("marker"));
    }
    if protocol != PROTOCOL {
        return Err(misbehaved("protocol"));
    }
    if answered != asked {
        return Err(misbehaved("request_id"));
    }
    Ok(())
}

/// Checks that the media type of a 200 is JSON.
pub(super) fn check_media_type(headers: &HeaderMap) -> Result<(), RemoteError> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(()),
        "text/html" | "application/xhtml+xml" => {
            Err(Failure::Unreachable { code: "captive_portal" }.into())
        }
        _ => Err(misbehaved("media_type")),
    }
}

/// A response that is neither a 200 nor a redirect.
pub(super) struct Refusal<'a> {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: &'a [u8],
}

impl Refusal<'_> {
    /// Returns the class of the response.
    pub(super) fn classify(self) -> Failure {
        let marked = serde_json::from_slice::<ErrorAnswer>(self.body)
            .ok()
            .filter(|error| error.marker == MARKER)
            .map(|error| plain_code(error.code));
        let ours = marked.is_some();
        let code = marked.unwrap_or_else(|| format!("{UNMARKED}{}", self.status.as_u16()));
        match self.status.as_u16() {
            401 => Failure::Unauthorized { code },
            403 if ours && code == "wrong_actor" => Failure::Unauthorized { code },
            413 if ours => Failure::TooLarge,
            426 if ours => Failure::UpgradeRequired { code },
            511 => Failure::Unreachable { code: "captive_portal" },
            408 | 425 | 429 | 500..=599 => {
                Failure::Transient { code, retry_after: self.retry_after, marked: ours }
            }
            400..=499 if ours => Failure::Refused { code },
            407 => Failure::Unreachable { code: "proxy" },
            400..=499 => Failure::Unreachable { code: "not_our_server" },
            _ => Failure::Misbehaved { code: "status" },
        }
    }
}

fn misbehaved(code: &'static str) -> RemoteError {
    Failure::Misbehaved { code }.into()
}

/// Returns the code if it is short and of plain characters, because it appears in errors and logs.
fn plain_code(code: String) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_code = !code.is_empty() && code.len() <= limits::CODE_BYTES && code.bytes().all(plain);
    if is_code && !code.starts_with(UNMARKED) {
        return code;
    }
    "unreadable_code".to_owned()
}
