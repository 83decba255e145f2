//! The one log line of a request, however it ends, and its place in the counts.
//!
//! It shows the client, the ids, the counts and the result of the request. It never shows a
//! payload, a token or an unknown path.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fieldbook_core::protocol::{CompareRequest, ExchangeRequest};
use fieldbook_core::{Actor, DeviceId, RequestId};
use tokio::time::Instant;

use super::problem::Problem;
use crate::door::Guest;
use crate::identity::Grant;
use crate::metrics::Ended;

/// The known facts of a request so far.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) tenant: Option<String>,
    pub(super) actor: Option<Actor>,
    device: Option<DeviceId>,
    request: Option<RequestId>,
    units: Option<usize>,
    /// The units that were refused for good.
    pub(super) refused: Option<usize>,
    pub(super) changes: Option<usize>,
    pub(super) received: usize,
    sent: usize,
}

/// A request without an answer so far. If it is dropped without a result, the line has the result
/// that the sender has gone.
#[derive(Debug)]
pub(super) struct Line {
    route: &'static str,
    guest: Arc<Guest>,
    began: Instant,
    facts: Arc<Mutex<Facts>>,
    ended: bool,
}

/// The facts of a line, for the code that works on its request.
#[derive(Debug, Clone)]
pub(super) struct Notes(Arc<Mutex<Facts>>);

impl Notes {
    pub(super) fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the client of the request.
    pub(super) fn granted(&self, grant: &Grant) {
        let mut facts = self.lock();
        facts.tenant = Some(grant.tenant.as_str().to_owned());
        facts.actor = grant.only_actor().cloned();
    }

    /// Records the ids and counts of the request.
    pub(super) fn read(&self, request: &ExchangeRequest) {
        let mut facts = self.lock();
        facts.actor = Some(request.actor.clone());
        facts.device = Some(request.device);
        facts.request = Some(request.request);
        facts.units = Some(request.units.len());
    }

    /// Records the ids of a request for a comparison.
    pub(super) fn read_comparison(&self, request: &CompareRequest) {
        let mut facts = self.lock();
        facts.actor = Some(request.actor.clone());
        facts.device = Some(request.device);
        facts.request = Some(request.request);
    }
}

impl Line {
    pub(super) fn begin(route: &'static str, guest: &Arc<Guest>) -> Self {
        let (guest, began) = (Arc::clone(guest), Instant::now());
        Self { route, guest, began, facts: Arc::default(), ended: false }
    }

    pub(super) fn notes(&self) -> Notes {
        Notes(Arc::clone(&self.facts))
    }

    /// Refuses the request.
    pub(super) fn refused(mut self, problem: Problem) -> Response {
        self.write(Some(problem.status), problem.code);
        problem.into_response()
    }

    /// Answers the request.
    pub(super) fn answered(mut self, response: Response, bytes: usize) -> Response {
        self.notes().lock().sent = bytes;
        self.write(Some(response.status()), "ok");
        response
    }

    fn write(&mut self, status: Option<StatusCode>, code: &'static str) {
        self.ended = true;
        let (route, address, took) = (self.route, self.guest.address(), self.began.elapsed());
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let Facts { tenant, actor, device, request, units, refused, changes, received, sent } =
            &*facts;
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let status = status.map(|status| status.as_u16());
        let (changes_sent, bytes) = (changes.unwrap_or_default(), (*received, *sent));
        self.guest.metrics().ended(Ended { route, code, took, changes: changes_sent, bytes });
        macro_rules! line {
            ($level:ident) => {
                // Text from outside, such as an actor, is escaped.
                tracing::$level!(
                    tenant,
                    actor = actor.as_ref().map(|actor| tracing::field::debug(actor.as_str())),
                    device = device.as_ref().map(tracing::field::display),
                    request = request.as_ref().map(tracing::field::display),
                    units,
                    refused,
                    changes,
                    received,
                    sent,
                    status,
                    code,
                    milliseconds,
                    %address,
                    "{route}"
                )
            };
        }
        match status {
            Some(200) if !matches!(route, "exchange" | "compare") => line!(debug),
            Some(200) => line!(info),
            _ => line!(warn),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            self.write(None, "client_gone");
        }
    }
}
