//! Faults in the network: none may look like an answer, and each has the right class.

use std::time::Duration;

use fieldbook_core::limits;
use fieldbook_core::protocol::{ExchangeRequest, Failure};
use fieldbook_transport::{HttpOptions, HttpRemote, Received, Remote, RemoteError};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::fault_server::{Act, FaultServer, json, response};
use crate::support::{CANARY, answer, answer_json, printed, request, short_waits, unit};

fn remote(origin: &str, options: HttpOptions) -> HttpRemote {
    HttpRemote::new(origin, options).unwrap()
}

async fn exchange_with(server: &FaultServer) -> Result<Received, RemoteError> {
    remote(&server.origin, short_waits()).exchange(&request()).await
}

/// Sends a request to a server that does one thing, and returns the failure of the exchange.
#[track_caller]
fn failure_of(result: Result<Received, RemoteError>) -> Failure {
    let error = result.expect_err("no answer");
    assert!(!printed(&error).contains("/v1/exchange"), "no full URL: {}", printed(&error));
    error.into_failure()
}

async fn failure_when_sent(bytes: Vec<u8>) -> Failure {
    failure_of(exchange_with(&FaultServer::sending(bytes).await).await)
}

#[tokio::test]
async fn a_whole_answer_is_handed_back_with_what_it_cost() {
    let server = FaultServer::sending(json("200 OK", &answer_json())).await;
    let received = exchange_with(&server).await.unwrap();
    assert_eq!(received.answer, answer(&request()));
    assert_eq!(received.bytes_received, answer_json().len() as u64);
    let [seen] = &server.seen()[..] else { panic!("one request") };
    assert_eq!(received.bytes_sent, seen.body.len() as u64);
    assert_eq!(serde_json::from_slice::<ExchangeRequest>(&seen.body).unwrap(), request());
    assert!(seen.head.starts_with("POST /v1/exchange HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.header("content-type"), Some("application/json"));
    for absent in ["authorization", "accept-encoding", "referer", "cookie", "user-agent"] {
        assert_eq!(seen.header(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn an_answer_with_nothing_new_is_small() {
    let sent = serde_json::to_vec(&request()).unwrap().len();
    assert!(sent < 500 && answer_json().len() < 500, "{sent} out, {} in", answer_json().len());
}

#[tokio::test]
async fn media_types_are_compared_without_case_and_parameters() {
    let bytes =
        response("200 OK", &[("Content-Type", "Application/JSON; charset=utf-8")], &answer_json());
    let server = FaultServer::sending(bytes).await;
    assert!(exchange_with(&server).await.is_ok());
}

#[tokio::test]
async fn a_server_that_never_answers_leaves_the_outcome_unknown() {
    let server = FaultServer::start(|_, _| Act::Stall(Vec::new())).await;
    assert_eq!(failure_of(exchange_with(&server).await), Failure::Unknown { code: "timeout" });
}

#[tokio::test]
async fn an_answer_that_stalls_leaves_the_outcome_unknown() {
    let server = FaultServer::start(|_, _| {
        let whole = json("200 OK", &answer_json());
        Act::Stall(whole[..whole.len() - 10].to_vec())
    })
    .await;
    assert_eq!(
        failure_of(exchange_with(&server).await),
        Failure::Unknown { code: "answer_stalled" }
    );
}

#[tokio::test]
async fn an_answer_that_drips_for_ever_is_cut_by_its_size() {
    let server = FaultServer::start(|_, _| {
        Act::Drip(json("200 OK", &answer_json()), Duration::from_millis(10))
    });
    let server = server.await;
    let options = HttpOptions {
        connect_within: Duration::from_secs(5),
        least_rate: 1_000_000,
        ..short_waits()
    };
    let began = Instant::now();
    let result = remote(&server.origin, options).exchange(&request()).await;
    assert_eq!(failure_of(result), Failure::Unknown { code: "answer_stalled" });
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_connection_reset_after_the_request_leaves_the_outcome_unknown() {
    let server = FaultServer::start(|_, _| Act::Reset).await;
    assert_eq!(
        failure_of(exchange_with(&server).await),
        Failure::Unknown { code: "connection_broke" }
    );
    assert_eq!(server.seen().len(), 1, "it is not sent again by itself");
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_leaves_the_outcome_unknown() {
    assert_eq!(failure_when_sent(Vec::new()).await, Failure::Unknown { code: "connection_broke" });
}

#[tokio::test]
async fn bytes_that_are_not_http_leave_the_outcome_unknown() {
    let failure = failure_when_sent(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()).await;
    assert_eq!(failure, Failure::Unknown { code: "connection_broke" });
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let result = remote(&origin, short_waits()).exchange(&request()).await;
    assert_eq!(failure_of(result), Failure::Unreachable { code: "connection_refused" });
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_unreachable() {
    let result = remote("https://sync.invalid", short_waits()).exchange(&request()).await;
    let failure = failure_of(result);
    assert!(
        matches!(failure, Failure::Unreachable { code: "dns" | "connect_timeout" }),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_unreachable_and_gets_no_plain_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://{}", listener.local_addr().unwrap());
    let hello = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 512];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut bytes).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        bytes.truncate(read);
        bytes
    });
    let result = remote(&origin, short_waits()).exchange(&request()).await;
    assert_eq!(failure_of(result), Failure::Unreachable { code: "tls" });
    assert_eq!(hello.await.unwrap()[0], 22, "a TLS handshake record");
}

#[tokio::test]
async fn a_server_that_never_finishes_connecting_is_unreachable() {
    // The kernel accepts the connection. Nobody answers the TLS greeting.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://{}", listener.local_addr().unwrap());
    let result = remote(&origin, short_waits()).exchange(&request()).await;
    assert_eq!(failure_of(result), Failure::Unreachable { code: "connect_timeout" });
}

#[tokio::test]
async fn a_truncated_answer_leaves_the_outcome_unknown() {
    let whole = json("200 OK", &answer_json());
    let failure = failure_when_sent(whole[..whole.len() - 1].to_vec()).await;
    assert_eq!(failure, Failure::Unknown { code: "answer_cut" });
}

#[tokio::test]
async fn a_chunked_answer_without_its_end_leaves_the_outcome_unknown() {
    let mut bytes =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    bytes.extend_from_slice(format!("{:x}\r\n", answer_json().len()).as_bytes());
    bytes.extend_from_slice(&answer_json());
    bytes.extend_from_slice(b"\r\n");
    assert_eq!(failure_when_sent(bytes).await, Failure::Unknown { code: "answer_cut" });
}

#[tokio::test]
async fn a_content_length_that_is_too_short_cuts_the_answer_and_it_is_none() {
    let body = answer_json();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len() - 5
    );
    let failure = failure_when_sent([head.as_bytes(), &body].concat()).await;
    assert_eq!(failure, Failure::Misbehaved { code: "not_an_answer" });
}

#[tokio::test]
async fn an_answer_that_announces_too_much_is_not_read() {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        limits::ANSWER_BYTES + 1
    );
    let failure = failure_when_sent(head.into_bytes()).await;
    assert_eq!(failure, Failure::Misbehaved { code: "answer_too_large" });
}

#[tokio::test]
async fn an_answer_without_a_length_is_cut_at_the_limit() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    let server =
        FaultServer::start(|_, _| Act::Flood(head.to_vec(), 2 * limits::ANSWER_BYTES)).await;
    let failure = failure_of(exchange_with(&server).await);
    assert_eq!(failure, Failure::Misbehaved { code: "answer_too_large" });
}

#[tokio::test]
async fn a_packed_answer_is_not_unpacked() {
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    let failure = failure_when_sent(response("200 OK", &headers, b"\x1f\x8b\x08")).await;
    assert_eq!(failure, Failure::Misbehaved { code: "not_an_answer" });
}

#[tokio::test]
async fn an_empty_200_is_no_answer() {
    let failure = failure_when_sent(json("200 OK", b"")).await;
    assert_eq!(failure, Failure::Misbehaved { code: "empty_answer" });
}

#[tokio::test]
async fn a_200_of_another_media_type_is_no_answer() {
    for headers in
        [&[("Content-Type", "text/plain")][..], &[("Content-Type", "application/json5")], &[]]
    {
        let failure = failure_when_sent(response("200 OK", headers, &answer_json())).await;
        assert_eq!(failure, Failure::Misbehaved { code: "media_type" }, "{headers:?}");
    }
}

#[tokio::test]
async fn a_200_of_json_that_is_no_answer_misbehaves_without_being_quoted() {
    let body = format!("{{\"marker\":\"fieldbook\",\"protocol\":\"{CANARY}\"}}");
    let server = FaultServer::sending(json("200 OK", body.as_bytes())).await;
    let error = exchange_with(&server).await.unwrap_err();
    assert_eq!(error.failure(), &Failure::Misbehaved { code: "not_an_answer" });
    assert!(!printed(&error).contains("canary"), "{}", printed(&error));
}

#[tokio::test]
async fn deep_nesting_is_no_answer_and_no_crash() {
    let body = "[".repeat(1_000_000);
    let failure = failure_when_sent(json("200 OK", body.as_bytes())).await;
    assert_eq!(failure, Failure::Misbehaved { code: "not_an_answer" });
}

#[tokio::test]
async fn an_answer_to_another_request_of_another_protocol_or_unmarked_is_none() {
    let changed = |change: fn(&mut fieldbook_core::protocol::ExchangeAnswer)| {
        let mut answer = answer(&request());
        change(&mut answer);
        json("200 OK", &serde_json::to_vec(&answer).unwrap())
    };
    for (bytes, code) in [
        (changed(|answer| answer.marker = "outbook".to_owned()), "marker"),
        (changed(|answer| answer.protocol = 2), "protocol"),
        (
            changed(|answer| answer.request = fieldbook_core::RequestId::from_bytes([9; 16])),
            "request_id",
        ),
    ] {
        assert_eq!(failure_when_sent(bytes).await, Failure::Misbehaved { code });
    }
}

#[tokio::test]
async fn a_captive_portal_is_unreachable() {
    let html = response(
        "200 OK",
        &[("Content-Type", "text/html; charset=utf-8")],
        b"<html>Sign in</html>",
    );
    assert_eq!(failure_when_sent(html).await, Failure::Unreachable { code: "captive_portal" });
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_names_only_its_origin() {
    let elsewhere = FaultServer::sending(json("200 OK", &answer_json())).await;
    for status in
        ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let location = format!("{}/login?token={CANARY}", elsewhere.origin);
        let server = FaultServer::sending(response(status, &[("Location", &location)], b"")).await;
        let error = exchange_with(&server).await.unwrap_err();
        assert_eq!(error.failure(), &Failure::Unreachable { code: "captive_portal" });
        let printed = printed(&error);
        assert!(printed.contains(&elsewhere.origin) && !printed.contains("canary"), "{printed}");
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_request_over_the_limit_is_not_sent() {
    let server = FaultServer::sending(json("200 OK", &answer_json())).await;
    let mut large = request();
    let mut part = unit(1);
    part.changes[0].ops = vec![part.changes[0].ops[0]; limits::REQUEST_BYTES / 38];
    large.units.push(part);
    let result = remote(&server.origin, short_waits()).exchange(&large).await;
    assert_eq!(failure_of(result), Failure::TooLarge);
    assert!(server.seen().is_empty());
}
