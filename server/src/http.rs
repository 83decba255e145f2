//! Requests and answers: the client, its request, and the status of the answer.
//!
//! ```text
//!   admit ──► a place among the requests ──► body, in its share of memory ──► a turn ──► process ──► answer, in its share
//! ```
//!
//! Invariants:
//! 1. Every answer carries the protocol's marker, so that a device never takes a proxy's page for
//!    one.
//! 2. Memory is allocated for a body only after its sender's credentials were checked, and never
//!    over the limit.
//! 3. A request takes its turn to work once its whole body has arrived, and returns it when the
//!    work is done, whether the client is still connected or not. So a client that sends or reads
//!    slowly delays nobody.
//! 4. A small exchange that waits for its commit lends its turn, and reserves no room for its
//!    answer during that time. If there is no room afterwards, the answer has no page.
//! 5. After an exchange with much work its tenant rests while other tenants are present.
//! 6. Each request makes one log line when it ends ([`line`]).

mod body;
mod comparison;
mod line;
mod problem;
mod text;

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HOST};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use fieldbook_core::authority::Quota;
use fieldbook_core::protocol::{MARKER, Outcome, PROTOCOL, UnitOutcome, read_request};
use fieldbook_core::{Clock, limits};
use tokio::time::timeout;

use self::line::{Line, Notes};
use self::problem::{Problem, json, refused, unreadable};
use self::text::Text;
use crate::door::{Door, Guest, Running, Share, Shares, Turn, Turns};
use crate::identity::{Denied, Grant, Identity};
use crate::limits::DoorLimits;
use crate::metrics::{self, Metrics};
use crate::store::{AnyStore, Incoming, StateError, StoreExchangeError};

/// The room that is reserved for an answer before it exists: a full page and a little more. Then
/// the share is resized to the answer's real size.
const ANSWER_BYTES: usize = limits::PAGE_BYTES + 1024 * 1024;

/// The largest body of an exchange that lends its turn while it waits. Such bodies in memory are a
/// small part of all bodies.
const LENDING_BYTES: usize = 64 * 1024;

/// The state that the handlers share.
pub(crate) struct App {
    store: Arc<AnyStore>,
    identity: Arc<Identity>,
    clock: Arc<dyn Clock>,
    quota: Quota,
    limits: DoorLimits,
    requests: Arc<Shares>,
    request_bytes: Arc<Shares>,
    answer_bytes: Arc<Shares>,
    turns: Arc<Turns>,
    metrics: Arc<Metrics>,
}

impl App {
    /// Makes the state of a server whose connections a door accepts.
    pub(crate) fn new(
        store: Arc<AnyStore>,
        identity: Arc<Identity>,
        (clock, quota): (Arc<dyn Clock>, Quota),
        door: &Door,
    ) -> Self {
        let limits = *door.limits();
        Self {
            store,
            identity,
            clock,
            quota,
            limits,
            requests: Shares::new(limits.requests),
            request_bytes: Shares::new(limits.request_bytes),
            answer_bytes: Shares::new(limits.answer_bytes),
            turns: Turns::with_most(limits.exchanges, limits.exchanges_beside_others),
            metrics: Arc::clone(door.metrics()),
        }
    }
}

/// Returns everything that the server answers.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/v1/exchange", post(exchange))
        .route("/v1/compare", post(compare))
        .route("/v1/health", get(health))
        .route("/v1/ready", get(ready))
        .method_not_allowed_fallback(async |Extension(guest): Extension<Arc<Guest>>| {
            let problem = Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "see docs/protocol.md",
            );
            Line::begin("another method", &guest).refused(problem)
        })
        .fallback(async |Extension(guest): Extension<Arc<Guest>>| {
            let problem =
                Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such address here");
            Line::begin("another address", &guest).refused(problem)
        })
        .with_state(Arc::new(app))
}

/// The state of the operator's address.
pub(crate) struct Watched {
    pub(crate) door: Arc<Door>,
    pub(crate) store: Arc<AnyStore>,
}

/// Returns what the operator's address answers: the counts, and nothing that a device needs.
pub(crate) fn operators_router(watched: Watched) -> Router {
    Router::new().route("/metrics", get(show_metrics)).with_state(Arc::new(watched))
}

async fn show_metrics(State(watched): State<Arc<Watched>>) -> Response {
    let (connections, running) = watched.door.counts();
    let is_ready = watched.store.is_ready();
    let present = metrics::Present { is_ready, connections, running };
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, watched.door.metrics().text(present)).into_response()
}

async fn health(Extension(guest): Extension<Arc<Guest>>) -> Response {
    let body =
        serde_json::json!({ "marker": MARKER, "protocol": PROTOCOL, "status": "ok" }).to_string();
    let bytes = body.len();
    Line::begin("health", &guest).answered(json(StatusCode::OK, body), bytes)
}

/// Returns whether exchanges can be answered and written. [`health`] only shows that the process
/// runs.
async fn ready(State(app): State<Arc<App>>, Extension(guest): Extension<Arc<Guest>>) -> Response {
    let line = Line::begin("ready", &guest);
    if !app.store.is_ready() {
        return line.refused(problem::store_failed());
    }
    let body = serde_json::json!({ "marker": MARKER, "protocol": PROTOCOL, "status": "ready" })
        .to_string();
    let bytes = body.len();
    line.answered(json(StatusCode::OK, body), bytes)
}

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Exchange,
    Comparison,
}

async fn exchange(
    State(app): State<Arc<App>>,
    Extension(guest): Extension<Arc<Guest>>,
    request: Request,
) -> Response {
    let line = Line::begin("exchange", &guest);
    work_on(&app, &guest, request, (Wanted::Exchange, line)).await
}

async fn compare(
    State(app): State<Arc<App>>,
    Extension(guest): Extension<Arc<Guest>>,
    request: Request,
) -> Response {
    let line = Line::begin("compare", &guest);
    work_on(&app, &guest, request, (Wanted::Comparison, line)).await
}

async fn work_on(
    app: &Arc<App>,
    guest: &Arc<Guest>,
    request: Request,
    (wanted, line): (Wanted, Line),
) -> Response {
    let (head, body) = request.into_parts();
    let admitted = admit(app, &head.headers, &line.notes()).await.and_then(|grant| {
        let mut place = app.requests.share(&grant);
        let placed = place.take(1);
        let crowded = || Problem::busy("too many exchanges are running at the same time");
        if placed { Ok((grant, place)) } else { Err(crowded()) }
    });
    let (grant, place) = match admitted {
        Ok(admitted) => admitted,
        Err(problem) => {
            // A client that asks before it sends has not sent anything yet.
            if !head.headers.contains_key(EXPECT) {
                body::drain(body).await;
            }
            return line.refused(problem);
        }
    };
    let held = Held { _place: place, _running: guest.begin() };
    match worked_on(app, (&grant, wanted), body, held, &line.notes()).await {
        Ok(bytes) => {
            let length = bytes.len();
            line.answered(json(StatusCode::OK, bytes), length)
        }
        Err(problem) => line.refused(problem),
    }
}

/// The places that an exchange holds until its answer is sent.
struct Held {
    _place: Share,
    _running: Running,
}

/// An answer and its places. Both end when the last byte has left.
struct Answer {
    bytes: Vec<u8>,
    _share: Share,
    _held: Held,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a request's body, waits for its turn, and works on it.
async fn worked_on(
    app: &Arc<App>,
    (grant, wanted): (&Arc<Grant>, Wanted),
    body: axum::body::Body,
    held: Held,
    notes: &Notes,
) -> Result<Bytes, Problem> {
    let mut memory = app.request_bytes.share(grant);
    let body = body::collect(body, &mut memory, &app.limits).await?;
    notes.lock().received = body.len();
    let turn = timeout(app.limits.turn_within, app.turns.take(&grant.tenant)).await;
    let turn = turn.map_err(|_| Problem::busy("the server has too much to do"))?;
    let mut share = app.answer_bytes.share(grant);
    if !share.take(ANSWER_BYTES) {
        return Err(Problem::busy("too many answers have not been read yet"));
    }
    let work = {
        let (app, grant, notes) = (Arc::clone(app), Arc::clone(grant), notes.clone());
        move || {
            let mut work = body.len();
            let admitted = Admitted { grant: &grant, body: &body, turn: &turn, share: &mut share };
            let answer = match wanted {
                Wanted::Exchange => process(&app, admitted, &notes, &mut work),
                Wanted::Comparison => comparison::process(&app, &admitted, &notes, &mut work),
            };
            let answer = answer.map(|bytes| {
                share.resize(bytes.capacity());
                Bytes::from_owner(Answer { bytes, _share: share, _held: held })
            });
            app.turns.rest(&grant.tenant, app.limits.rest_after(work));
            drop((body, memory, turn));
            answer
        }
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        let message = "the server failed: send the same again";
        Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "server_failed", message))
    })
}

/// Checks everything that can be checked before the body.
async fn admit(app: &App, headers: &HeaderMap, notes: &Notes) -> Result<Arc<Grant>, Problem> {
    if app.identity.is_open() && !names_this_machine(headers) {
        let message = "without a token file this server answers to localhost and 127.0.0.1 only";
        return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_host", message));
    }
    let authorization = headers.get(AUTHORIZATION).map(axum::http::HeaderValue::as_bytes);
    let present = app.identity.present();
    let grant = present.grant(authorization, app.clock.now().wall).await.map_err(denied)?;
    notes.granted(&grant);
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // This check also keeps out web pages of other origins: a browser asks the server before it
    // sends this type for such a page.
    if !kind.eq_ignore_ascii_case("application/json") || !is_plain(headers) {
        let message = "send an uncompressed body of Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message));
    }
    Ok(grant)
}

fn denied(denied: Denied) -> Problem {
    let (code, message) = denied.code_and_text();
    let status = if denied.is_transient() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::UNAUTHORIZED
    };
    Problem::new(status, code, message)
}

/// Returns whether a body has no encoding: no encoding is named, or each named one is `identity`.
fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        let names = value.to_str().unwrap_or("unreadable");
        names
            .split(',')
            .map(str::trim)
            .all(|name| name.is_empty() || name.eq_ignore_ascii_case("identity"))
    })
}

/// Returns whether a request was addressed to this machine by a name that always means this
/// machine. A web page can give its own name the address of this machine, and the browser would let
/// its requests through.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A request that is being worked on, and its share and turn.
struct Admitted<'a> {
    grant: &'a Grant,
    body: &'a [u8],
    turn: &'a Turn,
    /// The room for the answer.
    share: &'a mut Share,
}

/// Reads the request, applies it and writes the answer. `work` receives the amount of work. Blocks.
fn process(
    app: &App,
    admitted: Admitted<'_>,
    notes: &Notes,
    work: &mut usize,
) -> Result<Vec<u8>, Problem> {
    let Admitted { grant, body, turn, share } = admitted;
    let request = Arc::new(read_request(body).map_err(|error| unreadable(&error))?);
    notes.read(&request);
    let tenant = &grant.tenant;
    let (now, caller) = (app.clock.now().wall, app.identity.present().caller(grant));
    let incoming = Incoming { tenant, request: &request, now, caller: &caller, quota: &app.quota };
    let lends = !request.units.is_empty() && body.len() <= LENDING_BYTES;
    if lends {
        share.resize(body.len());
    }
    let accepted = app.store.accept(incoming, lends.then_some(turn)).map_err(failed)?;
    *work = accepted.work.max(*work);
    app.metrics.outcomes(&accepted.outcomes);
    let is_refused = |unit: &&UnitOutcome| matches!(unit.outcome, Outcome::Rejected { .. });
    notes.lock().refused = Some(accepted.outcomes.iter().filter(is_refused).count());
    let mut quota = app.quota;
    if lends {
        // Records that are shown count as work.
        share.resize(accepted.work);
        if !share.take(ANSWER_BYTES) {
            quota.page_changes = 0;
        }
    }
    let mut text = Text::default();
    let incoming = Incoming { quota: &quota, ..incoming };
    let answer =
        app.store.answer(incoming, accepted, |change| text.add(&change)).map_err(failed)?;
    notes.lock().changes = Some(text.changes);
    let bytes = text.end(&answer).map_err(|_| problem::store_damaged("a record's fields"))?;
    *work = bytes.len().max(*work);
    Ok(bytes)
}

fn failed(error: StoreExchangeError) -> Problem {
    match error {
        StoreExchangeError::Refused(refusal) => refused(refusal),
        StoreExchangeError::State(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
            match error {
                StateError::Storage(_) => problem::store_failed(),
                StateError::Damaged(damaged) => problem::store_damaged(damaged.what),
                #[cfg(feature = "postgres")]
                StateError::Database(_) => problem::store_failed(),
            }
        }
        StoreExchangeError::OutOfReach => problem::store_failed(),
    }
}
