//! The seam to the server: one request, one answer. A remote carries exchanges, and comparisons if
//! it can.
//!
//! Invariants:
//! 1. A [`Remote`] returns an answer only if it has read the whole answer and the answer names this
//!    request.
//! 2. Every other result is a [`Failure`] with a class. No text of it holds a token, a payload or a
//!    full URL.
//! 3. An exchange may be dropped at any await and sent again: each unit carries its idempotency
//!    key.
//!
//! What it does not do: retry. A remote tries once, and once more with renewed credentials. The
//! loop and the worker decide when to try again.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use fieldbook_core::protocol::{
    CANNOT_COMPARE, CompareAnswer, CompareRequest, ExchangeAnswer, ExchangeRequest, Failure,
};
use fieldbook_core::{Actor, WallTime};

/// A boxed future that can be sent between threads. It allows trait objects with async methods.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries one request to a server and returns the answer.
pub trait Remote: Send + Sync {
    /// Prepares a run that sends for an actor: a remote with tokens renews one that is about to
    /// expire. A run calls it once, before its first exchange. A failure shows in the exchange. A
    /// remote that wraps another one passes the call on.
    fn prepare<'a>(&'a self, _actor: &'a Actor, _now: WallTime) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Sends the request with its actor's credentials and returns the answer.
    ///
    /// # Errors
    /// [`RemoteError`] with the class of the failure. Unless the class is `Unreachable`, the server
    /// may have applied the units.
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>>;

    /// Sends a request for a comparison with its actor's credentials and returns the answer. A
    /// remote that does not have this method cannot compare.
    ///
    /// # Errors
    /// [`RemoteError`] with the class of the failure. It is [`Failure::Refused`] with the code
    /// [`CANNOT_COMPARE`] if the server, or the remote, cannot compare.
    fn compare<'a>(
        &'a self,
        _request: &'a CompareRequest,
    ) -> BoxFuture<'a, Result<ReceivedComparison, RemoteError>> {
        Box::pin(std::future::ready(Err(cannot_compare())))
    }
}

/// Returns the failure of a server that cannot compare.
pub(crate) fn cannot_compare() -> RemoteError {
    Failure::Refused { code: CANNOT_COMPARE.to_owned() }.into()
}

impl<R: Remote + ?Sized> Remote for Arc<R> {
    fn prepare<'a>(&'a self, actor: &'a Actor, now: WallTime) -> BoxFuture<'a, ()> {
        (**self).prepare(actor, now)
    }

    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        (**self).exchange(request)
    }

    fn compare<'a>(
        &'a self,
        request: &'a CompareRequest,
    ) -> BoxFuture<'a, Result<ReceivedComparison, RemoteError>> {
        (**self).compare(request)
    }
}

/// An answer and its size in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The answer, read whole and checked to name the request.
    pub answer: ExchangeAnswer,
    /// Bytes of bodies that left the device for this answer.
    pub bytes_sent: u64,
    /// Bytes of bodies that arrived.
    pub bytes_received: u64,
}

/// The answer to a comparison and its size in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedComparison {
    /// The answer, read whole and checked to name the request.
    pub answer: CompareAnswer,
    /// Bytes of bodies that left the device for this answer.
    pub bytes_sent: u64,
    /// Bytes of bodies that arrived.
    pub bytes_received: u64,
}

/// An exchange that failed as a whole.
#[derive(Debug)]
pub struct RemoteError {
    failure: Failure,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl RemoteError {
    /// Makes an error of a class.
    pub fn new(failure: Failure) -> Self {
        Self { failure, source: None }
    }

    /// Adds the cause, which must hold no token, payload or full URL.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the class of the failure.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Returns the class and drops the cause.
    pub fn into_failure(self) -> Failure {
        self.failure
    }
}

impl From<Failure> for RemoteError {
    fn from(failure: Failure) -> Self {
        Self::new(failure)
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Failure::Unreachable { code } => {
                write!(f, "the server cannot be reached ({code}): check the network")
            }
            Failure::Unauthorized { code } => {
                write!(f, "the credentials are not accepted ({code}): sign in again")
            }
            Failure::Transient { code, .. } => {
                write!(f, "the server cannot answer now ({code}): try again later")
            }
            Failure::TooLarge => {
                f.write_str("the request is too large for the server: send less at a time")
            }
            Failure::UpgradeRequired { code } => {
                write!(f, "the server needs another version of this program ({code}): upgrade it")
            }
            Failure::Refused { code } => {
                write!(f, "the server refuses the request ({code}): report this")
            }
            Failure::Unknown { code } => {
                write!(f, "the connection broke after sending ({code}): try again")
            }
            Failure::Misbehaved { code } => {
                write!(f, "what came back is no answer ({code}): check the server")
            }
        }
    }
}

impl Error for RemoteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
