//! Asks the server, and checks its answers.

use fieldbook_core::RequestId;
use fieldbook_core::protocol::{
    Ask, CANNOT_COMPARE, CompareAnswer, CompareRequest, Failure, PROTOCOL,
};
use fieldbook_core::rules::compare::credible_comparison;
use fieldbook_transport::{ReceivedComparison, Remote};

use super::{CheckError, Difference};
use crate::book::{Shared, read};
use crate::exchange::{identity, known_of_server};

/// The requests of one check.
pub(super) struct Asker<'a> {
    shared: &'a Shared,
    remote: &'a dyn Remote,
    requests: u32,
    bytes_sent: u64,
    bytes_received: u64,
}

impl<'a> Asker<'a> {
    pub(super) const fn new(shared: &'a Shared, remote: &'a dyn Remote) -> Self {
        Self { shared, remote, requests: 0, bytes_sent: 0, bytes_received: 0 }
    }

    /// Asks one question. The answer is from the book's server, and can be true.
    pub(super) async fn ask(&mut self, ask: Ask) -> Result<CompareAnswer, CheckError> {
        // What a server saw of a log stays true in its next epoch.
        let is_of_heads = matches!(ask, Ask::Heads);
        let request = self.request(ask)?;
        self.requests = self.requests.saturating_add(1);
        let received = self.remote.compare(&request).await;
        let ReceivedComparison { answer, bytes_sent, bytes_received } =
            received.map_err(|error| failed(error.into_failure()))?;
        self.bytes_sent = self.bytes_sent.saturating_add(bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(bytes_received);
        if answer.request != request.request {
            return Err(CheckError::Misbehaved { code: "request_id" });
        }
        let state = self.shared.state().clone();
        let is_other = state.server.is_some_and(|(server, epoch)| {
            let is_other_epoch = epoch != answer.server_epoch && !is_of_heads;
            server != answer.server || is_other_epoch
        });
        let of_tenants = state.tenant.zip(answer.tenant);
        if is_other || of_tenants.is_some_and(|(own, answered)| own != answered) {
            return Err(CheckError::OtherServer);
        }
        let credible = credible_comparison(&request, &answer, &known_of_server(&state));
        credible.map_err(|code| CheckError::Misbehaved { code })?;
        Ok(answer)
    }

    fn request(&self, ask: Ask) -> Result<CompareRequest, CheckError> {
        let is_of_heads = matches!(ask, Ask::Heads);
        let state = self.shared.state().clone();
        let (device, epoch) = identity(&state)?;
        let (cursors, others) = match ask {
            Ask::Digests => {
                let (cursors, others) = self.shared.position()?;
                (cursors, Some(others))
            }
            _ => Default::default(),
        };
        Ok(CompareRequest {
            protocol: PROTOCOL,
            request: RequestId::new(self.shared.clock.now().wall, &mut *self.shared.ids()),
            device,
            epoch,
            actor: read(&self.shared.actor).clone(),
            server_epoch: state.server.map(|(_, epoch)| epoch).filter(|_| !is_of_heads),
            tenant: state.tenant,
            cursors,
            others,
            ask,
        })
    }

    /// Adds the counts of the requests to a result.
    pub(super) fn counted(self, difference: Difference) -> Difference {
        let Self { requests, bytes_sent, bytes_received, .. } = self;
        Difference { requests, bytes_sent, bytes_received, ..difference }
    }
}

fn failed(failure: Failure) -> CheckError {
    match failure {
        Failure::Refused { code } if code == CANNOT_COMPARE => CheckError::CannotCompare,
        failure => CheckError::Failed(failure),
    }
}
