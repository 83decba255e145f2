//! Tokens: one for each actor, renewed once for all exchanges that wait, and shown in no output.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fieldbook_core::protocol::{ExchangeRequest, Failure};
use fieldbook_core::{Actor, WallTime};
use fieldbook_transport::{BoxFuture, Credentials, HttpRemote, Remote, Secret, StaticToken};

use crate::fault_server::{Act, FaultServer, Seen, json};
use crate::support::{CANARY, actor, answer, printed, request, short_waits};

/// Tokens that contain the actor's name and the number of renewals, such as `ann-1`.
struct Renewable {
    renewals: AtomicU32,
    works: bool,
    takes: Duration,
}

impl Renewable {
    fn new(works: bool) -> Arc<Self> {
        Arc::new(Self { renewals: AtomicU32::new(0), works, takes: Duration::from_millis(50) })
    }

    fn renewals(&self) -> u32 {
        self.renewals.load(Ordering::SeqCst)
    }
}

impl Credentials for Renewable {
    fn token<'a>(&'a self, actor: &'a Actor) -> BoxFuture<'a, Option<Secret>> {
        Box::pin(async move { Some(Secret::new(format!("{actor}-{}", self.renewals()))) })
    }

    fn refresh<'a>(&'a self, _: &'a Actor) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            self.renewals.fetch_add(1, Ordering::SeqCst);
            self.works
        })
    }
}

/// A server that accepts only tokens that were renewed once.
async fn picky_server() -> FaultServer {
    FaultServer::start(|_, seen| match seen.header("authorization") {
        Some("Bearer ann-1" | "Bearer bob-1") => Act::Send(json("200 OK", &answer_to(seen))),
        _ => Act::Send(json(
            "401 Unauthorized",
            b"{\"marker\":\"fieldbook\",\"code\":\"expired\",\"message\":\"\"}",
        )),
    })
    .await
}

fn answer_to(seen: &Seen) -> Vec<u8> {
    let request: ExchangeRequest = serde_json::from_slice(&seen.body).unwrap();
    serde_json::to_vec(&answer(&request)).unwrap()
}

fn expired() -> Failure {
    Failure::Unauthorized { code: "expired".to_owned() }
}

#[tokio::test]
async fn a_refused_token_is_renewed_and_the_same_request_sent_once_more() {
    let (server, credentials) = (picky_server().await, Renewable::new(true));
    let remote = HttpRemote::new(&server.origin, short_waits())
        .unwrap()
        .with_credentials(Arc::clone(&credentials) as _);
    let received = remote.exchange(&request()).await.unwrap();
    let [first, second] = &server.seen()[..] else { panic!("two requests") };
    assert_eq!(first.body, second.body);
    assert_eq!(received.bytes_sent, 2 * first.body.len() as u64);
    assert_eq!(credentials.renewals(), 1);
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_unauthorized_after_one_request() {
    let (server, credentials) = (picky_server().await, Renewable::new(false));
    let remote = HttpRemote::new(&server.origin, short_waits())
        .unwrap()
        .with_credentials(Arc::clone(&credentials) as _);
    assert_eq!(remote.exchange(&request()).await.unwrap_err().failure(), &expired());
    assert_eq!((server.seen().len(), credentials.renewals()), (1, 1));
}

#[tokio::test]
async fn a_renewed_token_that_is_refused_too_is_not_renewed_again() {
    let (server, credentials) = (picky_server().await, Renewable::new(true));
    credentials.renewals.store(5, Ordering::SeqCst);
    let remote = HttpRemote::new(&server.origin, short_waits())
        .unwrap()
        .with_credentials(Arc::clone(&credentials) as _);
    assert_eq!(remote.exchange(&request()).await.unwrap_err().failure(), &expired());
    assert_eq!((server.seen().len(), credentials.renewals()), (2, 6));
}

#[tokio::test]
async fn exchanges_that_are_refused_together_share_one_refresh() {
    for works in [true, false] {
        let (server, credentials) = (picky_server().await, Renewable::new(works));
        let remote = HttpRemote::new(&server.origin, short_waits())
            .unwrap()
            .with_credentials(Arc::clone(&credentials) as _);
        let exchanges: Vec<_> = (0..8)
            .map(|_| {
                let remote = remote.clone();
                tokio::spawn(async move { remote.exchange(&request()).await })
            })
            .collect();
        for exchange in exchanges {
            assert_eq!(exchange.await.unwrap().is_ok(), works);
        }
        assert_eq!(credentials.renewals(), 1);
    }
}

#[tokio::test]
async fn a_token_that_expires_again_is_renewed_again() {
    let credentials = Renewable::new(true);
    let server = FaultServer::start(|number, seen| match (number, seen.header("authorization")) {
        (0..4, Some("Bearer ann-1")) | (4.., Some("Bearer ann-2")) => {
            Act::Send(json("200 OK", &answer_to(seen)))
        }
        _ => Act::Send(json("401 Unauthorized", b"")),
    })
    .await;
    let remote = HttpRemote::new(&server.origin, short_waits())
        .unwrap()
        .with_credentials(Arc::clone(&credentials) as _);
    for _ in 0..5 {
        remote.exchange(&request()).await.unwrap();
    }
    assert_eq!((server.seen().len(), credentials.renewals()), (7, 2));
}

/// The issuer had taken the refresh token, and the new one was thrown away with the run.
#[tokio::test]
async fn a_renewal_that_has_begun_ends_also_if_the_run_does_not_wait_for_it() {
    let server = picky_server().await;
    let mut waits = short_waits();
    // Once the run is dropped, and once it stops waiting.
    for credentials_within in [Duration::from_secs(60), Duration::from_millis(20)] {
        waits.credentials_within = credentials_within;
        let credentials = Arc::new(Renewable {
            renewals: AtomicU32::new(0),
            works: true,
            takes: Duration::from_millis(300),
        });
        let remote = HttpRemote::new(&server.origin, waits.clone())
            .unwrap()
            .with_credentials(Arc::clone(&credentials) as _);
        let request = request();
        let run = remote.exchange(&request);
        let ended = tokio::time::timeout(Duration::from_millis(100), run).await;
        assert!(!matches!(ended, Ok(Ok(_))));
        assert_eq!(credentials.renewals(), 0, "it is under way");
        while credentials.renewals() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        remote.exchange(&request).await.expect("with the token of that renewal");
        assert_eq!(credentials.renewals(), 1);
    }
}

#[tokio::test]
async fn a_refresh_that_never_ends_is_given_up() {
    let credentials = Arc::new(Renewable {
        renewals: AtomicU32::new(0),
        works: true,
        takes: Duration::from_secs(600),
    });
    let server = picky_server().await;
    let remote =
        HttpRemote::new(&server.origin, short_waits()).unwrap().with_credentials(credentials);
    assert_eq!(remote.exchange(&request()).await.unwrap_err().failure(), &expired());
}

#[tokio::test]
async fn a_request_leaves_with_its_own_actors_token_only() {
    let server = FaultServer::start(|_, seen| Act::Send(json("200 OK", &answer_to(seen)))).await;
    let credentials = StaticToken::new(actor("ann"), Secret::new(CANARY));
    let remote = HttpRemote::new(&server.origin, short_waits())
        .unwrap()
        .with_credentials(Arc::new(credentials));
    for name in ["ann", "bob"] {
        remote.exchange(&ExchangeRequest { actor: actor(name), ..request() }).await.unwrap();
    }
    let sent: BTreeMap<_, _> = server
        .seen()
        .iter()
        .map(|seen| {
            let request: ExchangeRequest = serde_json::from_slice(&seen.body).unwrap();
            (request.actor.to_string(), seen.header("authorization").map(str::to_owned))
        })
        .collect();
    assert_eq!(sent["ann"], Some(format!("Bearer {CANARY}")));
    assert_eq!(sent["bob"], None);
}

#[tokio::test]
async fn no_token_shows_in_debug_or_errors() {
    let server = FaultServer::start(|_, _| Act::Reset).await;
    for token in [CANARY.to_owned(), format!("{CANARY}\nX-Injected: 1")] {
        let credentials = StaticToken::new(actor("ann"), Secret::new(token));
        let remote = HttpRemote::new(&server.origin, short_waits())
            .unwrap()
            .with_credentials(Arc::new(credentials));
        let error = remote.exchange(&request()).await.unwrap_err();
        let printed = format!("{remote:?} {remote:#?} {}", printed(&error));
        assert!(!printed.contains("canary"), "{printed}");
    }
    assert_eq!(server.seen().len(), 1, "a token with a line break is not sent");
}

/// Tokens that end a while after a moment, such as `ann-1`, and how often each was renewed.
struct Expiring {
    renewals: AtomicU32,
    works: bool,
    /// When each token expires, in seconds; the last one holds for all that follow.
    ends: Vec<i64>,
}

impl Expiring {
    fn new(works: bool, ends: &[i64]) -> Arc<Self> {
        Arc::new(Self { renewals: AtomicU32::new(0), works, ends: ends.to_vec() })
    }
}

impl Credentials for Expiring {
    fn token<'a>(&'a self, actor: &'a Actor) -> BoxFuture<'a, Option<Secret>> {
        Box::pin(async move {
            let renewals = self.renewals.load(Ordering::SeqCst);
            let ends = self.ends.get(renewals as usize).or(self.ends.last()).unwrap();
            let token = Secret::new(format!("{actor}-{renewals}"));
            Some(token.expires_at(WallTime::from_milliseconds(ends * 1000)))
        })
    }

    fn refresh<'a>(&'a self, _: &'a Actor) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            self.renewals.fetch_add(u32::from(self.works), Ordering::SeqCst);
            self.works
        })
    }
}

#[tokio::test]
async fn a_token_that_is_about_to_expire_is_renewed_before_a_run_and_no_request_is_refused() {
    let (server, credentials) = (picky_server().await, Expiring::new(true, &[1000, 5000]));
    let remote = HttpRemote::new(&server.origin, short_waits())
        .unwrap()
        .with_credentials(Arc::clone(&credentials) as _);
    let at = WallTime::from_milliseconds;
    remote.prepare(&actor("ann"), at(969_000)).await;
    assert_eq!(credentials.renewals.load(Ordering::SeqCst), 0, "it is good for half a minute");
    remote.prepare(&actor("ann"), at(975_000)).await;
    remote.exchange(&request()).await.unwrap();
    assert_eq!((server.seen().len(), credentials.renewals.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn an_expired_token_that_cannot_be_renewed_is_judged_by_the_server() {
    let server = FaultServer::start(|_, seen| Act::Send(json("200 OK", &answer_to(seen)))).await;
    let credentials = Expiring::new(false, &[1000]);
    let remote =
        HttpRemote::new(&server.origin, short_waits()).unwrap().with_credentials(credentials);
    remote.prepare(&actor("ann"), WallTime::from_milliseconds(2_000_000)).await;
    assert!(remote.exchange(&request()).await.is_ok(), "the device's clock may be wrong");
}

#[tokio::test]
async fn a_clock_that_is_ahead_does_not_renew_a_good_token_in_each_run() {
    let server = FaultServer::start(|_, seen| Act::Send(json("200 OK", &answer_to(seen)))).await;
    let credentials = Expiring::new(true, &[1000, 5000]);
    let remote = HttpRemote::new(&server.origin, short_waits())
        .unwrap()
        .with_credentials(Arc::clone(&credentials) as _);
    for _ in 0..5 {
        remote.prepare(&actor("ann"), WallTime::from_milliseconds(90_000_000)).await;
        remote.exchange(&request()).await.unwrap();
    }
    assert_eq!(credentials.renewals.load(Ordering::SeqCst), 1);
}
