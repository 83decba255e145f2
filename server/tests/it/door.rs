//! Slow, silent and greedy clients: nobody else has to wait for them.

use std::collections::BTreeMap;
use std::time::Duration;

use fieldbook_core::OpKind;
use fieldbook_core::protocol::Outcome;
use fieldbook_server::{DoorLimits, ServeOptions, serve};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

const TOKENS: &str = r#"{
    "hog-0123456789abcdef": { "tenant": "hog", "actor": "ann" },
    "good-0123456789abcdef": { "tenant": "good", "actor": "ann" }
}"#;
const HOG: &str = "hog-0123456789abcdef";
const GOOD: &str = "good-0123456789abcdef";

fn limits(change: impl FnOnce(&mut DoorLimits)) -> DoorLimits {
    let mut limits = DoorLimits::default();
    change(&mut limits);
    limits
}

async fn start_limited(tokens: Option<&str>, change: impl FnOnce(&mut DoorLimits)) -> Running {
    start_changed(tokens, |options: &mut ServeOptions| options.limits = limits(change)).await
}

/// Begins a request and leaves its body, or its head, unfinished.
async fn begin(running: &Running, token: &str, rest: &str) -> TcpStream {
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let head = format!(
        "POST /v1/exchange HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n{rest}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads until the server closes the connection.
async fn rest_of(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A connection that is reset is closed too.
    drop(stream.read_to_end(&mut text).await);
    String::from_utf8_lossy(&text).into_owned()
}

/// Waits until a condition is true, as long as a test may take.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("it comes to hold");
}

/// A permit was taken before the body was read, so 32 slow bodies stopped every tenant.
#[tokio::test]
async fn bodies_that_trickle_keep_nobody_from_being_served() {
    let running = start_limited(Some(TOKENS), |_| ()).await.with_token(GOOD);
    let mut slow = Vec::new();
    for _ in 0..64 {
        slow.push(begin(&running, HOG, "Content-Length: 2000\r\n\r\n{").await);
    }
    for number in 0..10 {
        let outcome = running.sent(number, create(&format!("lead/{number}"))).await;
        assert!(matches!(outcome, Outcome::Applied { .. }));
    }
    // The same tenant is served too.
    let running = running.with_token(HOG);
    assert!(matches!(running.sent(1, create("lead/1")).await, Outcome::Applied { .. }));
}

#[tokio::test]
async fn a_body_that_stops_is_told_so_and_so_is_one_that_trickles() {
    let running = start_limited(None, |limits| limits.patience = Duration::from_millis(300)).await;
    let stopped = begin(&running, "", "Content-Length: 2000\r\n\r\n{").await;
    let mut trickles = begin(&running, "", "Content-Length: 2000\r\n\r\n{").await;
    let trickle = async {
        while trickles.write_all(b" ").await.is_ok() && !is_readable(&trickles) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        rest_of(trickles).await
    };
    let (stopped, trickled) = tokio::join!(rest_of(stopped), trickle);
    for answer in [stopped, trickled] {
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("slow_request"), "{answer}");
        assert!(answer.contains(r#""marker":"fieldbook""#), "{answer}");
    }
}

fn is_readable(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(tokio_peek(stream, &mut byte), Some(count) if count > 0)
}

/// Returns the number of bytes that have arrived, without waiting.
fn tokio_peek(stream: &TcpStream, byte: &mut [u8]) -> Option<usize> {
    use std::task::{Context, Poll, Waker};
    let mut buffer = tokio::io::ReadBuf::new(byte);
    match stream.poll_peek(&mut Context::from_waker(Waker::noop()), &mut buffer) {
        Poll::Ready(Ok(count)) => Some(count),
        _ => None,
    }
}

/// Slow but working uplinks were cut off after a fixed minute.
#[tokio::test]
async fn a_body_that_comes_slowly_but_steadily_is_read_to_its_end() {
    let running = start_limited(None, |limits| {
        limits.patience = Duration::from_millis(500);
        limits.least_rate = 100;
    })
    .await;
    let body = serde_json::to_string(&request(vec![unit(1, vec![create("lead/1")])])).unwrap();
    let head = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut stream = begin(&running, "", &head).await;
    // Each part arrives within the patience. All of them together take longer.
    for part in body.as_bytes().chunks(body.len().div_ceil(12)) {
        stream.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let answer = rest_of(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""applied""#), "{answer}");
}

/// 140 silent connections used all descriptors, and nobody was let in any more.
#[tokio::test]
async fn silent_connections_make_room_for_who_has_a_request() {
    let running = start_limited(None, |limits| limits.connections = 16).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(running.address()).await.unwrap());
        // Some send the beginning of a head.
        if silent.len() % 2 == 0 {
            silent.last_mut().unwrap().write_all(b"POST /v1/exch").await.unwrap();
        }
    }
    assert!(matches!(running.sent(1, create("lead/1")).await, Outcome::Applied { .. }));
    assert_eq!(rest_of(silent.swap_remove(0)).await, "", "the oldest was closed");
}

#[tokio::test]
async fn a_head_that_does_not_come_closes_the_connection() {
    let running =
        start_limited(None, |limits| limits.head_within = Duration::from_millis(200)).await;
    let silent = TcpStream::connect(running.address()).await.unwrap();
    let unfinished = begin(&running, "", "X-Slow: ").await;
    for stream in [silent, unfinished] {
        let answer = rest_of(stream).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    assert!(matches!(running.sent(1, create("lead/1")).await, Outcome::Applied { .. }));
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let running = start().await;
    let mut stream = begin(&running, "", "").await;
    let header = format!("X-Filler: {}\r\n", "x".repeat(1000));
    let endless = async {
        for _ in 0..10_000 {
            if stream.write_all(header.as_bytes()).await.is_err() {
                break;
            }
        }
        rest_of(stream).await
    };
    let answer = endless.await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
}

/// Fills the store with records that make a large page.
async fn fill(running: &Running, records: u8) {
    let fields = format!(r#"{{"text":"{}"}}"#, "x".repeat(500_000));
    for number in 0..records {
        let change = change(&format!("lead/{number}"), OpKind::Create, None, &fields);
        assert!(matches!(running.sent(number, change).await, Outcome::Applied { .. }));
    }
}

/// Each unread answer kept 20 to 30 MB for ever.
#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_and_given_up() {
    let running = start_limited(Some(TOKENS), |limits| {
        limits.answer_bytes = 64 * 1024 * 1024;
        limits.patience = Duration::from_millis(1_500);
    })
    .await
    .with_token(HOG);
    fill(&running, 16).await;
    let page = serde_json::to_string(&pull(BTreeMap::new(), 1_000)).unwrap();
    let rest = format!("Content-Length: {}\r\n\r\n{page}", page.len());
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(begin(&running, HOG, &rest).await);
    }
    let ask = |running: &Running| {
        let url = format!("{}/v1/exchange", running.url());
        let request =
            running.client().post(url).bearer_auth(HOG).header("content-type", "application/json");
        request.body(serde_json::to_vec(&pull(BTreeMap::new(), 0)).unwrap()).send()
    };
    let mut refused: Option<Value> = None;
    until(async || {
        let response = ask(&running).await.unwrap();
        assert!(response.status() == 200 || response.headers().contains_key("retry-after"));
        let (status, answer) = answer_of(response).await;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            refused = Some(answer);
        }
        refused.is_some()
    })
    .await;
    assert_eq!(refused.unwrap()["code"], json!("busy"));
    // Another tenant is served during that time, and this one after its connections were given up.
    let good = running.with_token(GOOD);
    assert!(matches!(good.sent(1, create("lead/1")).await, Outcome::Applied { .. }));
    until(async || ask(&good).await.unwrap().status() == StatusCode::OK).await;
    drop(unread);
}

#[tokio::test]
async fn bodies_over_the_share_of_their_sender_are_told_to_come_again() {
    let running =
        start_limited(Some(TOKENS), |limits| limits.request_bytes = 3 * 1024 * 1024).await;
    let running = running.with_token(HOG);
    let (status, answer) = running.post(vec![b' '; 2 * 1024 * 1024]).await;
    assert_eq!((status, &answer["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("busy")));
    assert!(matches!(running.sent(1, create("lead/1")).await, Outcome::Applied { .. }));
}

#[tokio::test]
async fn a_declared_length_takes_no_memory_before_the_bytes_are_there() {
    let running = start_limited(None, |limits| limits.request_bytes = 1024 * 1024).await;
    let mut announced = Vec::new();
    for _ in 0..16 {
        announced.push(begin(&running, "", "Content-Length: 16000000\r\n\r\n{").await);
    }
    assert!(matches!(running.sent(1, create("lead/1")).await, Outcome::Applied { .. }));
}

/// One tenant sends 40 requests at once, and the other tenant's request does not wait for all of
/// them.
#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_again_and_others_are_served() {
    let running = start_limited(Some(TOKENS), |limits| limits.requests = 12).await;
    let mut slow = Vec::new();
    for _ in 0..12 {
        slow.push(begin(&running, HOG, "Content-Length: 2000\r\n\r\n{").await);
    }
    let running = running.with_token(HOG);
    let body = serde_json::to_vec(&request(Vec::new())).unwrap();
    until(async || running.post(body.clone()).await.0 == StatusCode::SERVICE_UNAVAILABLE).await;
    let running = running.with_token(GOOD);
    assert!(matches!(running.sent(1, create("lead/1")).await, Outcome::Applied { .. }));
}

#[tokio::test]
async fn a_server_stops_in_its_time_whatever_its_clients_do() {
    let running =
        start_limited(None, |limits| limits.stop_within = Duration::from_millis(200)).await;
    let _silent = TcpStream::connect(running.address()).await.unwrap();
    let _head = begin(&running, "", "X-Slow: ").await;
    let _body = begin(&running, "", "Content-Length: 2000\r\n\r\n{").await;
    running.sent(1, create("lead/1")).await;
    let folder = running.stopped().await;
    // The store was closed: it opens again.
    let again =
        serve(ServeOptions::new(loopback(), folder.path().join("server.redb"))).await.unwrap();
    again.shutdown().await.unwrap();
}

#[tokio::test]
async fn identity_is_no_encoding() {
    let running = start().await;
    for (encoding, status) in [
        ("identity", StatusCode::OK),
        ("Identity, identity", StatusCode::OK),
        ("identity, gzip", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("br", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let body = serde_json::to_vec(&request(Vec::new())).unwrap();
        let post = running.client().post(format!("{}/v1/exchange", running.url()));
        let post =
            post.header("content-type", "application/json").header("content-encoding", encoding);
        assert_eq!(answer_of(post.body(body).send().await.unwrap()).await.0, status, "{encoding}");
    }
}

#[tokio::test]
async fn a_changed_token_file_holds_once_it_is_read_again_and_a_bad_one_changes_nothing() {
    let running = start_with(Some(TOKENS)).await.with_token(HOG);
    let body = serde_json::to_vec(&request(Vec::new())).unwrap();
    assert_eq!(running.post(body.clone()).await.0, StatusCode::OK);
    running.write_tokens("{");
    assert!(running.server().reload_tokens().is_err());
    assert_eq!(running.post(body.clone()).await.0, StatusCode::OK);
    running.write_tokens(r#"{"good-0123456789abcdef": { "tenant": "good", "actor": "ann" }}"#);
    running.server().reload_tokens().unwrap();
    assert_eq!(running.post(body.clone()).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(running.with_token(GOOD).post(body).await.0, StatusCode::OK);
}

#[tokio::test]
async fn ready_and_health_say_so_while_all_is_well() {
    let running = start().await;
    for (route, status) in [("ready", "ready"), ("health", "ok")] {
        let response =
            running.client().get(format!("{}/v1/{route}", running.url())).send().await.unwrap();
        let (code, answer) = answer_of(response).await;
        assert_eq!((code, &answer["status"]), (StatusCode::OK, &json!(status)));
    }
}
