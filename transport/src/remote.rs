//! The seam to the server: one request, one answer.
//!
//! Invariants:
//! 1. A [`Remote`] hands back an answer only if it read the whole of it and it answers this very request.
//! 2. Whatever else happens is a [`Failure`], by class; none of its texts holds a token, a payload or a full URL.
//! 3. An exchange may be dropped at any await and sent again: units carry their idempotency keys.
//!
//! What it is not: retrying. A remote tries once (and once more with refreshed credentials); when to try again is the
//! loop's and the worker's to say.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Failure};

/// A future that can be sent between threads, boxed so that traits with async methods can be objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries one request to a server and brings its answer back.
pub trait Remote: Send + Sync {
    /// Sends the request with its actor's credentials and returns the answer.
    ///
    /// # Errors
    /// [`RemoteError`] with the class of what went wrong. Unless it is `Unreachable`, the units may have been applied.
    fn exchange<'a>(&'a self, request: &'a ExchangeRequest) -> BoxFuture<'a, Result<Received, RemoteError>>;
}

impl<R: Remote + ?Sized> Remote for Arc<R> {
    fn exchange<'a>(&'a self, request: &'a ExchangeRequest) -> BoxFuture<'a, Result<Received, RemoteError>> {
        (**self).exchange(request)
    }
}

/// An answer and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The answer, read whole and checked to answer the request.
    pub answer: ExchangeAnswer,
    /// Bytes of bodies that left the device for it.
    pub bytes_sent: u64,
    /// Bytes of bodies that came in.
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

    /// Keeps the cause, which must hold no token, payload or full URL.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the class of the failure.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Takes the class out and leaves the cause.
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
            Failure::TooLarge => f.write_str("the request is too large for the server: send less at a time"),
            Failure::UpgradeRequired { code } => {
                write!(f, "the server needs another version of this program ({code}): upgrade it")
            }
            Failure::Refused { code } => write!(f, "the server refuses the request ({code}): report this"),
            Failure::Unknown { code } => write!(f, "the connection broke after sending ({code}): try again"),
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
