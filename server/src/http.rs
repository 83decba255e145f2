//! Requests and answers: who asks, what they ask for, and which status says what.
//!
//! Invariants:
//! 1. Every answer carries the protocol's marker, so that a proxy's page is never taken for one.
//! 2. Memory is taken for a body only after its sender's credentials were found to hold, and never over the limit.
//! 3. What a log line shows of a request is its ids, its counts and its status; never a payload or a token.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fieldbook_core::authority::{Quota, Refusal, RefusalClass};
use fieldbook_core::protocol::{ErrorAnswer, MARKER, PROTOCOL, UnreadableRequest, read_request};
use fieldbook_core::{Clock, limits};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::store::{Store, StoreExchangeError};
use crate::tokens::{Credentials, Denied, Grant};

/// How long a request's body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How much of a body is read only to be dropped, so that its sender gets to see why it was refused.
const DRAIN_BYTES: usize = 4 * limits::REQUEST_BYTES;

/// What the handlers share.
pub(crate) struct App {
    pub(crate) store: Arc<Store>,
    pub(crate) credentials: Credentials,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) quota: Quota,
    pub(crate) permits: Semaphore,
}

/// Returns everything that the server answers.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/v1/exchange", post(exchange))
        .route("/v1/health", get(health))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "see docs/protocol.md")
        })
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such address here"))
        .with_state(Arc::new(app))
}

/// An answer that is not 200.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, message } = self;
        let answer = ErrorAnswer { marker: MARKER.to_owned(), code: code.to_owned(), message };
        // Three strings have no way not to be written.
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

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = (status, body.into()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn health() -> Response {
    let body = serde_json::json!({ "marker": MARKER, "protocol": PROTOCOL, "status": "ok" });
    json(StatusCode::OK, body.to_string())
}

async fn exchange(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let grant = match admit(&app, &head.headers) {
        Ok(grant) => grant,
        Err(problem) => {
            drain(body).await;
            return problem.into_response();
        }
    };
    // The permits are never closed, so there is always one to come.
    let _permit = app.permits.acquire().await;
    let body = match tokio::time::timeout(BODY_TIME, collect(body)).await {
        Ok(Ok(body)) => body,
        Ok(Err(problem)) => return problem.into_response(),
        Err(_) => {
            let message = "the request did not arrive within 60 seconds: send less at a time";
            return Problem::new(StatusCode::REQUEST_TIMEOUT, "slow_request", message).into_response();
        }
    };
    let span = tracing::info_span!(
        "exchange",
        device = tracing::field::Empty,
        request = tracing::field::Empty,
        units = tracing::field::Empty,
        changes = tracing::field::Empty,
    );
    let work = {
        let (app, span) = (Arc::clone(&app), span.clone());
        move || span.in_scope(|| treat(&app, &grant, &body))
    };
    let treated = tokio::task::spawn_blocking(work).instrument(span.clone()).await;
    let treated = treated.unwrap_or_else(|_| {
        let message = "the server failed: send the same again";
        Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "server_failed", message))
    });
    let _entered = span.entered();
    match treated {
        Ok(body) => {
            tracing::info!(bytes = body.len(), "answered");
            json(StatusCode::OK, body)
        }
        Err(problem) => {
            tracing::warn!(status = problem.status.as_u16(), code = problem.code, "refused");
            problem.into_response()
        }
    }
}

/// Checks everything that can be checked before the body.
fn admit(app: &App, headers: &HeaderMap) -> Result<Arc<Grant>, Problem> {
    if matches!(app.credentials, Credentials::Open(_)) && !names_this_machine(headers) {
        let message = "without a token file this server answers to localhost and 127.0.0.1 only";
        return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_host", message));
    }
    let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let grant = app.credentials.grant(authorization, app.clock.now().wall).map_err(|denied| {
        let (code, message) = match denied {
            Denied::Missing => ("token_missing", "send the header Authorization: Bearer TOKEN"),
            Denied::Unknown => ("token_unknown", "this token is not known here: sign in again"),
            Denied::Expired => ("token_expired", "this token has expired: sign in again"),
        };
        Problem::new(StatusCode::UNAUTHORIZED, code, message)
    })?;
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // This also keeps web pages of other origins out: they may not send this type unasked.
    if !kind.eq_ignore_ascii_case("application/json") || headers.contains_key(CONTENT_ENCODING) {
        let message = "send an uncompressed body of Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message));
    }
    Ok(grant)
}

/// Returns whether a request was addressed to this machine by a name that always means it. A web page can give its own
/// name this machine's address, and would then be let in by the browser.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Reads a body up to the limit, and to its end even if it is over, so that the sender sees the answer.
async fn collect(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "broken_body", "the request broke off"));
        };
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > limits::REQUEST_BYTES {
            drop(bytes);
            drain(body).await;
            let message =
                format!("a request has at most {} bytes: send less at a time", limits::REQUEST_BYTES);
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}

/// Reads what a refused sender still sends, within bounds.
async fn drain(mut body: Body) {
    let all = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > DRAIN_BYTES {
                break;
            }
        }
    };
    // Whoever is slower than that does not get to see the answer.
    drop(tokio::time::timeout(Duration::from_secs(10), all).await);
}

/// Reads the request, applies it and writes the answer. Blocks.
fn treat(app: &App, grant: &Grant, body: &[u8]) -> Result<Vec<u8>, Problem> {
    let request = read_request(body).map_err(|error| unreadable(&error))?;
    let span = tracing::Span::current();
    span.record("device", tracing::field::display(&request.device));
    span.record("request", tracing::field::display(&request.request));
    span.record("units", request.units.len());
    let now = app.clock.now().wall;
    let answer =
        app.store.exchange(&grant.tenant, &request, now, &grant.caller, &app.quota).map_err(|error| {
            match error {
                StoreExchangeError::Refused(refusal) => refused(refusal),
                StoreExchangeError::State(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
                    let message = "the server's store failed: its operator has to look at it";
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", message)
                }
            }
        })?;
    span.record("changes", answer.changes.len());
    let mut bytes = Vec::with_capacity(512 + 400 * answer.changes.len());
    serde_json::to_writer(&mut bytes, &answer).map_err(|_| {
        let message = "the server's store holds a record that does not read";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_damaged", message)
    })?;
    Ok(bytes)
}

fn refused(refusal: Refusal) -> Problem {
    let status = match refusal.class {
        RefusalClass::BadRequest => StatusCode::BAD_REQUEST,
        RefusalClass::Forbidden => StatusCode::FORBIDDEN,
        RefusalClass::Behind => StatusCode::CONFLICT,
        RefusalClass::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalClass::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
    };
    Problem::new(status, refusal.code, refusal.message)
}

/// Tells why a body is not looked at, without repeating any of it.
fn unreadable(error: &UnreadableRequest) -> Problem {
    let (status, code) = match error {
        UnreadableRequest::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        UnreadableRequest::OtherProtocol { .. } => (StatusCode::UPGRADE_REQUIRED, "upgrade_required"),
        _ => (StatusCode::BAD_REQUEST, "bad_request"),
    };
    Problem::new(status, code, error.to_string())
}
