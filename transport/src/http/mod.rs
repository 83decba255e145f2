//! The remote over HTTP/1.1 and TLS: `POST {origin}/v1/exchange` and `…/v1/compare`, JSON both ways.
//!
//! Invariants:
//! 1. Requests go only to the configured origin: no redirects, no proxy unless the options allow
//!    it, plain HTTP only to this machine.
//! 2. Every wait has a limit: for the connection, the first byte of the answer, the next byte, the
//!    whole answer, and the credentials. At most [`limits::ANSWER_BYTES`] are read, and nothing is
//!    decompressed.
//! 3. A response is an answer only if its status, media type, length, marker, protocol and request
//!    id are all right.
//! 4. Errors of the HTTP library enter through [`failure`] alone, which removes the URL.
//!
//! What it does not do: retry. It renews a token that is about to expire before a run, and renews a
//! refused one and sends the request once more; it returns every other failure.

mod classify;
mod failure;
mod origin;
mod refresh;
mod retry_after;
mod tls;

pub use classify::Unparsable;
pub use failure::Redirected;
pub use origin::InvalidOrigin;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fieldbook_core::protocol::{CompareRequest, ExchangeRequest, Failure};
use fieldbook_core::{Actor, WallTime, limits};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};

use crate::credentials::{Credentials, NoCredentials, Secret};
use crate::remote::{BoxFuture, Received, ReceivedComparison, Remote, RemoteError, cannot_compare};
use classify::Refusal;
use origin::Origin;
use refresh::Refreshes;

/// Time limits, and whether to use a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// The longest wait for a connection, with name look-up and TLS.
    pub connect_within: Duration,
    /// The longest wait for the start of the answer after the request has left, and between two
    /// pieces of the answer.
    pub idle_within: Duration,
    /// The slowest link that is worth waiting for, in bytes per second. With the size of a body it
    /// limits the time of the whole exchange.
    pub least_rate: u32,
    /// The longest wait for [`Credentials`].
    pub credentials_within: Duration,
    /// Whether to use a proxy.
    pub proxy: ProxyUse,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(10),
            idle_within: Duration::from_secs(20),
            least_rate: 8 * 1024,
            credentials_within: Duration::from_secs(30),
            proxy: ProxyUse::Never,
        }
    }
}

impl HttpOptions {
    fn time_for(&self, bytes: usize) -> Duration {
        let seconds = bytes as u64 / u64::from(self.least_rate.max(1));
        self.idle_within.saturating_add(Duration::from_secs(seconds))
    }
}

/// Whether requests may use a proxy. Requests to this machine never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyUse {
    /// Connects directly to the server, whatever the environment variables are.
    #[default]
    Never,
    /// Follows the variables `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    Environment,
}

/// The remote cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetUpError {
    /// The server's address cannot be used.
    #[error("the server's address cannot be used")]
    Origin {
        /// Why.
        #[from]
        source: InvalidOrigin,
    },
    /// The HTTP client does not start, for example because the system has no certificates.
    #[error("the HTTP client does not start: check the system's certificates")]
    Client {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A server reached over HTTP. Clones share connections and refreshes.
#[derive(Clone)]
pub struct HttpRemote {
    client: Client,
    origin: Origin,
    options: HttpOptions,
    credentials: Arc<dyn Credentials>,
    refreshes: Arc<Refreshes>,
}

/// A token that expires within this time is renewed before a run.
const RENEWED_BEFORE: Duration = Duration::from_secs(30);

impl HttpRemote {
    /// Makes a remote for an origin such as `https://sync.example.com`. It sends nothing yet. It has
    /// no token, as for a server on the same machine that needs none:
    /// [`Self::with_credentials`] gives it some.
    ///
    /// # Errors
    /// [`SetUpError`] if the address is not an origin, if it is neither HTTPS nor on this machine,
    /// or if TLS cannot start.
    pub fn new(origin: &str, options: HttpOptions) -> Result<Self, SetUpError> {
        let origin = Origin::parse(origin)?;
        let tls = tls::config().map_err(|error| SetUpError::Client { source: Box::new(error) })?;
        let client = client(&origin, &options, tls)
            .map_err(|error| SetUpError::Client { source: Box::new(error.without_url()) })?;
        let (credentials, refreshes) = (Arc::new(NoCredentials), Arc::default());
        Ok(Self { client, origin, options, credentials, refreshes })
    }

    /// Returns a remote for the same server with other credentials. It shares the connections.
    #[must_use]
    pub fn with_credentials(&self, credentials: Arc<dyn Credentials>) -> Self {
        Self { credentials, refreshes: Arc::default(), ..self.clone() }
    }

    async fn perform(&self, request: &ExchangeRequest) -> Result<Received, RemoteError> {
        let body = text(request)?;
        let to = self.origin.exchanges();
        let (response, bytes_sent) = self.send_renewing(to, body, &request.actor).await?;
        let body = self.read(response).await?;
        let (bytes_received, id) = (body.len() as u64, request.request);
        let answer = parse(body, move |body| classify::answer(body, id)).await?;
        Ok(Received { answer, bytes_sent, bytes_received })
    }

    async fn ask(&self, request: &CompareRequest) -> Result<ReceivedComparison, RemoteError> {
        let body = text(request)?;
        let to = self.origin.comparisons();
        let (response, bytes_sent) = self.send_renewing(to, body, &request.actor).await?;
        // A server from before there were comparisons does not have the address.
        let status = response.status();
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            return Err(cannot_compare());
        }
        let body = self.read(response).await?;
        let (bytes_received, id) = (body.len() as u64, request.request);
        let answer = parse(body, move |body| classify::comparison(body, id)).await?;
        Ok(ReceivedComparison { answer, bytes_sent, bytes_received })
    }

    /// Sends a body, and sends it again with a renewed token if the first was refused. Returns the
    /// response and the number of bytes that left.
    async fn send_renewing(
        &self,
        to: &reqwest::Url,
        body: Bytes,
        actor: &Actor,
    ) -> Result<(Response, u64), RemoteError> {
        let mut bytes_sent = body.len() as u64;
        let seen = self.refreshes.seen(self.options.credentials_within).await;
        let mut response = self.send(to, &body, actor).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.refresh(actor, seen).await {
            bytes_sent = bytes_sent.saturating_mul(2);
            response = self.send(to, &body, actor).await?;
        }
        Ok((response, bytes_sent))
    }

    /// Renews a token that is about to expire. The server still judges one that cannot be renewed,
    /// because the clock of the device may be wrong. If a renewed token has expired too, the clock
    /// is wrong, and is not asked again.
    async fn renew_in_time(&self, actor: &Actor, now: WallTime) {
        let seen = self.refreshes.seen(self.options.credentials_within).await;
        if !self.expires_soon(actor, now).await || !self.refreshes.trust_clock() {
            return;
        }
        if self.refresh(actor, seen).await && self.expires_soon(actor, now).await {
            self.refreshes.distrust_clock();
        }
    }

    async fn expires_soon(&self, actor: &Actor, now: WallTime) -> bool {
        let token = self.token(actor).await.ok().flatten();
        token.is_some_and(|token| token.is_over_at(now.plus(RENEWED_BEFORE)))
    }

    async fn token(&self, actor: &Actor) -> Result<Option<Secret>, RemoteError> {
        let asked = timeout(self.options.credentials_within, self.credentials.token(actor)).await;
        asked.map_err(|_| unauthorized("credentials_late"))
    }

    async fn send(
        &self,
        to: &reqwest::Url,
        body: &Bytes,
        actor: &Actor,
    ) -> Result<Response, RemoteError> {
        let mut builder = self
            .client
            .post(to.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body.clone());
        if let Some(token) = self.token(actor).await? {
            builder = builder.header(AUTHORIZATION, bearer(&token)?);
        }
        // A slow connection ends with its own error before this timeout, so this timeout measures
        // only the wait after the request began to leave.
        let within = self.options.connect_within.saturating_add(self.options.time_for(body.len()));
        match timeout(within, builder.send()).await {
            Ok(sent) => sent.map_err(failure::from_sending),
            Err(_) => Err(Failure::Unknown { code: "timeout" }.into()),
        }
    }

    async fn refresh(&self, actor: &Actor, seen: u64) -> bool {
        self.refreshes
            .refresh(actor, seen, &self.credentials, self.options.credentials_within)
            .await
    }

    /// Reads the body of a 200.
    async fn read(&self, mut response: Response) -> Result<Vec<u8>, RemoteError> {
        let status = response.status();
        if status.is_redirection() {
            return Err(failure::redirected(response.headers()));
        }
        if status != StatusCode::OK {
            let retry_after = retry_after::of(response.headers());
            // The body of a refusal only adds an error code, so a body that is cut or late counts
            // as an empty one.
            let body = self.body(&mut response, REFUSAL_BYTES).await.unwrap_or_default();
            return Err(Refusal { status, retry_after, body: &body }.classify().into());
        }
        classify::check_media_type(response.headers())?;
        self.body(&mut response, limits::ANSWER_BYTES).await
    }

    async fn body(&self, response: &mut Response, most: usize) -> Result<Vec<u8>, RemoteError> {
        let announced = response.content_length();
        if announced.is_some_and(|announced| announced > most as u64) {
            return Err(Failure::Misbehaved { code: "answer_too_large" }.into());
        }
        let expected = announced.and_then(|announced| usize::try_from(announced).ok()).unwrap_or(0);
        let mut body = Vec::with_capacity(expected.min(limits::PAGE_BYTES));
        let began = Instant::now();
        loop {
            let all_by =
                began + self.options.time_for(body.len()).saturating_add(self.options.idle_within);
            let next_by = all_by.min(Instant::now() + self.options.idle_within);
            let Ok(next) = timeout_at(next_by, response.chunk()).await else {
                return Err(Failure::Unknown { code: "answer_stalled" }.into());
            };
            let Some(chunk) = next.map_err(failure::from_reading)? else { break };
            if body.len().saturating_add(chunk.len()) > most {
                return Err(Failure::Misbehaved { code: "answer_too_large" }.into());
            }
            body.extend_from_slice(&chunk);
        }
        if announced.is_some_and(|announced| announced != body.len() as u64) {
            return Err(Failure::Misbehaved { code: "content_length" }.into());
        }
        Ok(body)
    }
}

impl Remote for HttpRemote {
    fn prepare<'a>(&'a self, actor: &'a Actor, now: WallTime) -> BoxFuture<'a, ()> {
        Box::pin(self.renew_in_time(actor, now))
    }

    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        Box::pin(self.perform(request))
    }

    fn compare<'a>(
        &'a self,
        request: &'a CompareRequest,
    ) -> BoxFuture<'a, Result<ReceivedComparison, RemoteError>> {
        Box::pin(self.ask(request))
    }
}

impl fmt::Debug for HttpRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRemote")
            .field("origin", &self.origin)
            .field("options", &self.options)
            .finish()
    }
}

fn client(
    origin: &Origin,
    options: &HttpOptions,
    tls: rustls::ClientConfig,
) -> reqwest::Result<Client> {
    // Sends no header that describes the program: a request without news is mostly headers already.
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(options.connect_within)
        .pool_idle_timeout(POOL_IDLE);
    if origin.is_local() {
        // Resolves `localhost` to this machine whatever the resolver returns: plain HTTP is allowed
        // to it.
        builder = builder.resolve_to_addrs("localhost", &origin::LOOPBACK);
    } else {
        builder = builder.https_only(true);
    }
    if origin.is_local() || options.proxy == ProxyUse::Never {
        builder = builder.no_proxy();
    }
    builder.build()
}

fn bearer(token: &Secret) -> Result<HeaderValue, RemoteError> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
        .map_err(|_| unauthorized("token_has_control_characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unauthorized(code: &'static str) -> RemoteError {
    Failure::Unauthorized { code: code.into() }.into()
}

/// Returns the text of a request.
fn text(request: &impl serde::Serialize) -> Result<Bytes, RemoteError> {
    let body =
        serde_json::to_vec(request).map_err(|_| Failure::Refused { code: "not_json".into() })?;
    if body.len() > limits::REQUEST_BYTES {
        return Err(Failure::TooLarge.into());
    }
    Ok(Bytes::from(body))
}

/// Parses an answer. A large answer is parsed on its own thread, so that the app's other tasks
/// continue.
async fn parse<T: Send + 'static>(
    body: Vec<u8>,
    read: impl FnOnce(&[u8]) -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    if body.len() < PARSED_INLINE_BYTES {
        return read(&body);
    }
    match tokio::task::spawn_blocking(move || read(&body)).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::Unknown { code: "parsing_stopped" }.into()),
    }
}

/// The most bytes that are read of a refusal's body.
const REFUSAL_BYTES: usize = 64 * 1024;
/// An answer of this size or more is parsed off the async threads.
const PARSED_INLINE_BYTES: usize = 64 * 1024;
/// How long an idle connection is kept. After a longer pause it is probably dead, unnoticed by the
/// device.
const POOL_IDLE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_with_the_token_is_marked_so_that_nothing_prints_or_indexes_it() {
        let header = bearer(&Secret::new("canary-71")).unwrap();
        assert!(header.is_sensitive() && !format!("{header:?}").contains("canary"));
    }
}
