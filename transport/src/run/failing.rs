//! The consequences of a failed exchange: the loop sends less, sends units and pages apart, or ends
//! the run.

use std::ops::ControlFlow;

use fieldbook_core::protocol::{ExchangeRequest, Failure};
use fieldbook_core::rules::failure::{Blame, blame};

use super::doubt::{AfterFailure, comes_back_later};
use super::host::SyncHost;
use super::report::Stopped;
use super::{FRUITLESS_MOST, Flow, Run, RunError, carried};
use crate::remote::RemoteError;

impl<D: SyncHost> Run<'_, D> {
    /// Continues after a request without an answer.
    pub(super) async fn failed(
        &mut self,
        request: ExchangeRequest,
        error: RemoteError,
        pull: bool,
    ) -> Result<Flow, RunError<D::Error>> {
        let failure = error.failure();
        if request.units.is_empty() && may_be_the_page(&request, failure) && self.spent().is_none()
        {
            tracing::debug!(?failure, changes = request.page_limit, "a page failed");
            self.pages.failed(request.page_limit, error.into_failure());
            return Ok(Flow::Continue(pull));
        }
        self.failed_at_all(request, error, pull).await
    }

    /// Continues after a request without an answer, or with an answer that cannot be true, whatever
    /// page it asked for.
    pub(super) async fn failed_at_all(
        &mut self,
        request: ExchangeRequest,
        error: RemoteError,
        pull: bool,
    ) -> Result<Flow, RunError<D::Error>> {
        tracing::debug!(failure = ?error.failure(), "exchange failed");
        let failure = error.into_failure();
        let units = request.units.len();
        let may_be_theirs = units > 0 && blame(&failure) == Blame::Request;
        if units > 1 && failure == Failure::TooLarge {
            return Ok(self.send_less(&request, pull));
        }
        let (noted, ends) = (failure.clone(), failure.clone());
        let next =
            if may_be_theirs { self.doubt.failed(&request, &failure) } else { AfterFailure::End };
        match next {
            AfterFailure::AskForPage => return Ok(Flow::Continue(pull)),
            AfterFailure::Resolve => {
                let is_decided = self.resolve_doubt(request, failure).await?;
                if is_decided && !comes_back_later(&ends) && !self.doubt.is_enough() {
                    return Ok(Flow::Continue(pull));
                }
            }
            AfterFailure::End => {
                let settled = self.on_host(move |host| host.fail(&request, &noted)).await?;
                self.report.add(&settled);
            }
        }
        // If units failed before, that failure decides whether less is sent.
        let cause = self.doubt.failure().unwrap_or_else(|| ends.clone());
        if let Failure::Transient { .. } | Failure::Unknown { .. } | Failure::Misbehaved { .. } =
            cause
        {
            self.sizer.failed(self.options);
        }
        Ok(Flow::Break(Stopped::Failed(ends)))
    }

    /// Continues with smaller requests after a request of several units was too large.
    fn send_less(&mut self, request: &ExchangeRequest, pull: bool) -> Flow {
        let units = request.units.len();
        let shrunk = self.refused.replace(units).is_none_or(|before| units < before);
        self.sizer.too_large(carried(request), self.options);
        self.count(shrunk);
        if self.fruitless >= FRUITLESS_MOST {
            return ControlFlow::Break(Stopped::NoProgress);
        }
        ControlFlow::Continue(pull)
    }

    /// Lets the book decide about units that do not get through while others do. Returns whether it
    /// decided.
    pub(super) async fn resolve_doubt(
        &mut self,
        request: ExchangeRequest,
        failure: Failure,
    ) -> Result<bool, RunError<D::Error>> {
        let (carried, units, strikes) =
            (carried(&request), request.units.len(), self.doubt.strikes());
        let settled = self.on_host(move |host| host.isolate(&request, &failure, strikes)).await?;
        self.report.add(&settled);
        let is_decided = settled.progressed();
        match units {
            0 | 1 if is_decided => {
                self.sizer.culprit_found();
                self.refused = None;
            }
            // Perhaps the units were too many at once.
            2.. if is_decided => self.sizer.too_large(carried, self.options),
            _ => {}
        }
        Ok(is_decided)
    }
}

/// Returns whether the page that was asked for may be the cause of the failure. A refusal by our
/// server concerns the request, not the page. After a server named a time to come back, no earlier
/// request is made.
fn may_be_the_page(request: &ExchangeRequest, failure: &Failure) -> bool {
    let is_its_word = matches!(
        failure,
        Failure::TooLarge
            | Failure::Refused { .. }
            | Failure::Transient { retry_after: Some(_), marked: true, .. }
    );
    request.page_limit > 0 && blame(failure) == Blame::Request && !is_its_word
}
