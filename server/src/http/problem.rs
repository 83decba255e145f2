//! Answers other than 200, and the parts that all answers share.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fieldbook_core::authority::{Refusal, RefusalClass};
use fieldbook_core::protocol::{ErrorAnswer, MARKER, UnreadableRequest};

/// An answer that is not 200.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    message: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// Returns the answer to a client that has its full share of the server. `what` names the
    /// resource that is used up.
    pub(super) fn busy(what: &str) -> Self {
        let message = format!("{what}: send the same again a little later");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, message } = self;
        let answer = ErrorAnswer { marker: MARKER.to_owned(), code: code.to_owned(), message };
        // Writing three strings cannot fail.
        let body = serde_json::to_vec(&answer).unwrap_or_default();
        let mut response = json(status, body);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = (status, body.into()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns the answer while the store cannot be written, or not even read.
pub(super) fn store_failed() -> Problem {
    let message = "the server's store cannot be written now; it recovers by itself once its disk or its database works";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", message)
}

/// Returns the answer for a store with bytes that differ from the written ones.
pub(super) fn store_damaged(what: &str) -> Problem {
    let message = format!("the server's store is damaged ({what}): its operator has to restore it");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_damaged", message)
}

pub(super) fn refused(refusal: Refusal) -> Problem {
    let status = match refusal.class {
        RefusalClass::BadRequest => StatusCode::BAD_REQUEST,
        RefusalClass::Forbidden | RefusalClass::DeviceOfAnother => StatusCode::FORBIDDEN,
        RefusalClass::Behind => StatusCode::CONFLICT,
        RefusalClass::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalClass::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
        RefusalClass::NotNow => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, refusal.code, refusal.message)
}

/// Returns why a body is not accepted, without repeating any of it.
pub(super) fn unreadable(error: &UnreadableRequest) -> Problem {
    let (status, code) = match error {
        UnreadableRequest::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        UnreadableRequest::OtherProtocol { .. } => {
            (StatusCode::UPGRADE_REQUIRED, "upgrade_required")
        }
        _ => (StatusCode::BAD_REQUEST, "bad_request"),
    };
    Problem::new(status, code, error.to_string())
}
