//! A server within the process, with the rules of the real one: for examples, and for the tests of
//! an app.

use std::sync::{Arc, Mutex};

use fieldbook::host::{Clock, SystemClock};
use fieldbook::sync::protocol::{CompareRequest, ExchangeRequest, Failure};
use fieldbook::sync::{
    BoxFuture, Received, ReceivedComparison, Remote, RemoteError, ServerEpoch, ServerId,
};
use fieldbook_core::authority::{Caller, ExchangeError, MemoryAuthority, Quota, compare, exchange};

/// A server that keeps its records in memory. Clones are the same server.
#[derive(Clone)]
pub(crate) struct LocalServer(Arc<Mutex<MemoryAuthority>>);

impl LocalServer {
    pub(crate) fn new() -> Self {
        let (id, epoch) = (ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([1; 16]));
        Self(Arc::new(Mutex::new(MemoryAuthority::new(id, epoch))))
    }

    fn answer(&self, request: &ExchangeRequest) -> Result<Received, Failure> {
        let failed = |code: &str| Failure::Transient {
            code: code.to_owned(),
            retry_after: None,
            marked: true,
        };
        let now = SystemClock::new().now().wall;
        let mut authority = self.0.lock().map_err(|_| failed("poisoned"))?;
        let answer = exchange(&mut *authority, request, now, &Caller::Anyone, &Quota::default());
        let answer = answer.map_err(|error| match error {
            ExchangeError::Refused(refusal) => refusal.into(),
            _ => failed("store_failed"),
        })?;
        Ok(Received { answer, bytes_sent: 0, bytes_received: 0 })
    }

    fn answer_comparison(&self, request: &CompareRequest) -> Result<ReceivedComparison, Failure> {
        let failed = |code: &str| Failure::Transient {
            code: code.to_owned(),
            retry_after: None,
            marked: true,
        };
        let now = SystemClock::new().now().wall;
        let authority = self.0.lock().map_err(|_| failed("poisoned"))?;
        let compared = compare(&*authority, request, now, &Caller::Anyone, &Quota::default());
        let compared = compared.map_err(|error| match error {
            ExchangeError::Refused(refusal) => refusal.into(),
            _ => failed("store_failed"),
        })?;
        Ok(ReceivedComparison { answer: compared.answer, bytes_sent: 0, bytes_received: 0 })
    }
}

impl Remote for LocalServer {
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        Box::pin(async move { Ok(self.answer(request)?) })
    }

    fn compare<'a>(
        &'a self,
        request: &'a CompareRequest,
    ) -> BoxFuture<'a, Result<ReceivedComparison, RemoteError>> {
        Box::pin(async move { Ok(self.answer_comparison(request)?) })
    }
}
