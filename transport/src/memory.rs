//! A remote within the process: a function from request to answer.
//!
//! Invariant: the answer passes the same check as an answer over HTTP: it names the request.
//!
//! What it is not: a server. The server's rules are in core's authority. This type adapts any
//! function, for tests and simulations.

use std::fmt;
use std::io;

use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Failure};

use crate::remote::{BoxFuture, Received, Remote, RemoteError};

/// A remote that calls a function. It counts the bytes of the JSON that HTTP would carry.
pub struct FnRemote<F>(F);

impl<F> FnRemote<F>
where
    F: Fn(&ExchangeRequest) -> Result<ExchangeAnswer, RemoteError> + Send + Sync,
{
    /// Makes a remote of a function. The thread that polls the exchange calls the function, so it
    /// should not block for long.
    pub fn new(answer: F) -> Self {
        Self(answer)
    }
}

impl<F> Remote for FnRemote<F>
where
    F: Fn(&ExchangeRequest) -> Result<ExchangeAnswer, RemoteError> + Send + Sync,
{
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        Box::pin(async move {
            let answer = (self.0)(request)?;
            if answer.request != request.request {
                return Err(Failure::Misbehaved { code: "request_id" }.into());
            }
            Ok(Received {
                bytes_sent: json_bytes(request),
                bytes_received: json_bytes(&answer),
                answer,
            })
        })
    }
}

impl<F> fmt::Debug for FnRemote<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FnRemote")
    }
}

fn json_bytes<T: serde::Serialize>(value: &T) -> u64 {
    let mut counter = Counter(0);
    // The counter never fails to write, and every value of the protocol has a JSON form.
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) | Err(_) => counter.0,
    }
}

struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
