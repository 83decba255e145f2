//! Keys that are fetched from the issuer.
//!
//! ```text
//!   at the start, then every 10 minutes ──┐
//!   a token names an unknown key ─────────┴─► at most one fetch a minute, one at a time
//! ```
//!
//! Invariants:
//! 1. A fetch ends within its time, whatever the other side does, and reads at most
//!    [`ANSWER_BYTES`]. It follows no redirect, and uses plain HTTP to this machine only.
//! 2. A fetch that fails changes nothing: the keys that were read before stay valid for a day.
//! 3. A fetch goes on although the client that caused it has gone.
//!
//! What it does not do: decide whether a token is valid.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::{Client, StatusCode, Url};
use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout};

use super::keys::{KeySet, UnusableKeys};
use super::settings::JwtError;

/// The most bytes of a key set. Real ones have a few thousand.
const ANSWER_BYTES: usize = 256 * 1024;

/// When keys are fetched, and how long they are used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The longest time of one fetch.
    pub(super) within: Duration,
    /// The shortest time between two fetches.
    pub(super) apart: Duration,
    /// The time after which keys are fetched again.
    pub(super) every: Duration,
    /// The time for which keys are used if no fetch succeeds.
    pub(super) kept: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(10),
            apart: Duration::from_secs(60),
            every: Duration::from_secs(10 * 60),
            kept: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// The address of a key set: HTTPS, or plain HTTP to this machine.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address(Url);

impl Address {
    /// Checks an address.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "keys_url is an address such as https://login.example.com/.well-known/jwks.json";
        let url = Url::parse(text).map_err(|_| FORM)?;
        let host = url.host_str().ok_or(FORM)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("keys_url has no user and no password");
        }
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_loopback(host) => Ok(Self(url)),
            "http" => Err("keys_url is https: keys that come in the open could be anybody's"),
            _ => Err(FORM),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the issuer cannot be reached, or broke off")]
    Http(#[source] reqwest::Error),
    #[error("the issuer answered with status {0}")]
    Status(StatusCode),
    #[error("the answer is larger than {ANSWER_BYTES} bytes")]
    TooLarge,
    #[error("the issuer did not answer in time")]
    TooSlow,
    #[error("the issuer's keys cannot be used")]
    Keys(#[source] UnusableKeys),
}

/// The keys at an address.
#[derive(Debug)]
pub(super) struct FetchedKeys {
    address: Address,
    algorithms: Vec<Algorithm>,
    client: Client,
    pace: Pace,
    /// The keys, and when they were read.
    present: RwLock<Option<(KeySet, Instant)>>,
    /// The last fetch. Whoever fetches holds the lock.
    last: Arc<Mutex<Option<Fetch>>>,
}

/// A fetch that has ended.
#[derive(Debug, Clone, Copy)]
struct Fetch {
    ended: Instant,
    succeeded: bool,
}

impl FetchedKeys {
    /// Makes the keys of an address. Nothing is fetched yet.
    pub(super) fn new(address: Address, algorithms: Vec<Algorithm>) -> Result<Self, JwtError> {
        Self::at_pace(address, algorithms, Pace::default())
    }

    pub(super) fn at_pace(
        address: Address,
        algorithms: Vec<Algorithm>,
        pace: Pace,
    ) -> Result<Self, JwtError> {
        let failed = |source| JwtError::Client { source };
        let tls = tls().map_err(|error| failed(error.into()))?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(pace.within)
            .timeout(pace.within);
        if address.0.scheme() == "https" {
            builder = builder.https_only(true);
        }
        let client = builder.build().map_err(|error| failed(error.without_url().into()))?;
        let (present, last) = (RwLock::default(), Arc::default());
        Ok(Self { address, algorithms, client, pace, present, last })
    }

    /// Returns whether these are the keys of an address for these algorithms.
    pub(super) fn is_of(&self, address: &Address, algorithms: &[Algorithm]) -> bool {
        self.address == *address && self.algorithms == algorithms
    }

    /// Returns the key of a token's header, if it is known and not too old.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
        let (keys, read) = present.as_ref()?;
        (read.elapsed() < self.pace.kept).then(|| keys.find(id, algorithm)).flatten()
    }

    /// Fetches the keys if they are due.
    pub(super) async fn fetch_if_due(self: &Arc<Self>) {
        let last = Arc::clone(&self.last).lock_owned().await;
        let pause = |last: &Fetch| if last.succeeded { self.pace.every } else { self.pace.apart };
        if last.as_ref().is_none_or(|last| last.ended.elapsed() >= pause(last)) {
            self.fetch(last).await;
        }
    }

    /// Fetches the keys for a token whose key is not known, unless they were fetched just before.
    /// Returns whether keys were read since the call.
    pub(super) async fn fetch_for_token(self: &Arc<Self>) -> bool {
        let asked = Instant::now();
        let last = Arc::clone(&self.last).lock_owned().await;
        match *last {
            // Another request has waited for the same.
            Some(last) if last.ended >= asked => last.succeeded,
            Some(last) if last.ended.elapsed() < self.pace.apart => false,
            _ => self.fetch(last).await,
        }
    }

    /// Fetches the keys, and returns whether that succeeded.
    async fn fetch(self: &Arc<Self>, mut last: OwnedMutexGuard<Option<Fetch>>) -> bool {
        let keys = Arc::clone(self);
        let fetch = tokio::spawn(async move {
            let read = match timeout(keys.pace.within, keys.read()).await {
                Ok(read) => read,
                Err(_) => Err(FetchError::TooSlow),
            };
            let ended = Instant::now();
            let had_failed = last.is_some_and(|last| !last.succeeded);
            let succeeded = read.is_ok();
            match read {
                Ok(set) => {
                    *keys.present.write().unwrap_or_else(PoisonError::into_inner) =
                        Some((set, ended));
                    if had_failed {
                        tracing::warn!(issuer = ?keys.address, "the issuer's keys were read again");
                    }
                }
                Err(error) => tracing::error!(
                    issuer = ?keys.address,
                    error = &error as &dyn std::error::Error,
                    "the issuer's keys cannot be read: keys that were read before stay valid for a day"
                ),
            }
            *last = Some(Fetch { ended, succeeded });
            succeeded
        });
        fetch.await.unwrap_or(false)
    }

    async fn read(&self) -> Result<KeySet, FetchError> {
        let failed = |error: reqwest::Error| FetchError::Http(error.without_url());
        let mut response = self.client.get(self.address.0.clone()).send().await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut text = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if text.len() + piece.len() > ANSWER_BYTES {
                return Err(FetchError::TooLarge);
            }
            text.extend_from_slice(&piece);
        }
        KeySet::parse(&text, &self.algorithms).map_err(FetchError::Keys)
    }
}

/// Returns the TLS of a fetch: the certificates that the system trusts, and ring.
fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = CryptoProvider::get_default()
        .map_or_else(|| Arc::new(ring::default_provider()), Arc::clone);
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_platform_verifier()?.with_no_client_auth())
}
