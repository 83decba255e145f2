//! Every status, with the marker of our server and without.

use std::time::Duration;

use fieldbook_core::protocol::{
    Ask, CANNOT_COMPARE, CompareAnswer, CompareRequest, ExchangeRequest, Failure,
};
use fieldbook_core::{RequestId, ServerEpoch, ServerId, limits};
use fieldbook_transport::{FnRemote, HttpRemote, ReceivedComparison, Remote};

use crate::fault_server::{FaultServer, json, response};
use crate::support::{CANARY, printed, request, short_waits};

async fn failure_when_sent(bytes: Vec<u8>) -> Failure {
    let server = FaultServer::sending(bytes).await;
    let remote = HttpRemote::new(&server.origin, short_waits()).unwrap();
    let error = remote.exchange(&request()).await.unwrap_err();
    assert!(!printed(&error).contains("canary"), "{}", printed(&error));
    error.into_failure()
}

fn marked(code: &str) -> Vec<u8> {
    format!("{{\"marker\":\"fieldbook\",\"code\":\"{code}\",\"message\":\"{CANARY}\"}}")
        .into_bytes()
}

fn transient(code: &str, marked: bool) -> Failure {
    Failure::Transient { code: code.to_owned(), retry_after: None, marked }
}

#[tokio::test]
async fn what_our_server_says_is_told_by_status_first_and_code_second() {
    let code = || "some_code".to_owned();
    for (status, expected) in [
        (400, Failure::Refused { code: code() }),
        (401, Failure::Unauthorized { code: code() }),
        (403, Failure::Refused { code: code() }),
        (404, Failure::Refused { code: code() }),
        (405, Failure::Refused { code: code() }),
        (408, transient("some_code", true)),
        (413, Failure::TooLarge),
        (415, Failure::Refused { code: code() }),
        (422, Failure::Refused { code: code() }),
        (425, transient("some_code", true)),
        (426, Failure::UpgradeRequired { code: code() }),
        (429, transient("some_code", true)),
        (500, transient("some_code", true)),
        (503, transient("some_code", true)),
    ] {
        let failure =
            failure_when_sent(json(&format!("{status} Status"), &marked("some_code"))).await;
        assert_eq!(failure, expected, "{status}");
    }
}

#[tokio::test]
async fn what_something_else_says_is_not_taken_for_our_servers_word() {
    let not_ours = || Failure::Unreachable { code: "not_our_server" };
    for (status, expected) in [
        (202, Failure::Misbehaved { code: "status" }),
        (204, Failure::Misbehaved { code: "status" }),
        (400, not_ours()),
        (401, Failure::Unauthorized { code: "http_401".to_owned() }),
        (403, not_ours()),
        (404, not_ours()),
        (405, not_ours()),
        (407, Failure::Unreachable { code: "proxy" }),
        (402, not_ours()),
        (404, not_ours()),
        (406, not_ours()),
        (409, not_ours()),
        (410, not_ours()),
        (413, not_ours()),
        (414, not_ours()),
        (415, not_ours()),
        (422, not_ours()),
        (425, transient("http_425", false)),
        (426, not_ours()),
        (429, transient("http_429", false)),
        (431, not_ours()),
        (451, not_ours()),
        (500, transient("http_500", false)),
        (502, transient("http_502", false)),
        (504, transient("http_504", false)),
        (511, Failure::Unreachable { code: "captive_portal" }),
        (599, transient("http_599", false)),
    ] {
        let body = if status == 204 { &b""[..] } else { b"<html>canary-5f3a</html>" };
        let bytes = response(&format!("{status} Status"), &[("Content-Type", "text/html")], body);
        assert_eq!(failure_when_sent(bytes).await, expected, "{status}");
    }
}

#[tokio::test]
async fn another_actors_token_is_a_matter_of_credentials() {
    let failure = failure_when_sent(json("403 Forbidden", &marked("wrong_actor"))).await;
    assert_eq!(failure, Failure::Unauthorized { code: "wrong_actor".to_owned() });
}

#[tokio::test]
async fn a_code_that_is_none_is_replaced() {
    // A code with the prefix of foreign responses could be mistaken for such a response.
    for code in
        ["", "http_401", "two words", "line\\nbreak", "ü", &"x".repeat(limits::CODE_BYTES + 1)]
    {
        let failure = failure_when_sent(json("400 Bad Request", &marked(code))).await;
        assert_eq!(failure, Failure::Refused { code: "unreadable_code".to_owned() }, "{code}");
    }
}

#[tokio::test]
async fn a_refusal_whose_body_is_cut_keeps_its_status() {
    let whole = json("503 Service Unavailable", &marked("busy"));
    let failure = failure_when_sent(whole[..whole.len() - 3].to_vec()).await;
    assert_eq!(failure, transient("http_503", false));
}

#[tokio::test]
async fn retry_after_is_read_in_all_its_forms() {
    let date = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    for (value, seconds) in [
        ("30", Some(30)),
        ("0", Some(1)),
        ("86400", Some(3600)),
        ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(3600)),
        ("whenever", None),
    ] {
        let headers = [date, ("Retry-After", value)];
        let failure = failure_when_sent(response("503 Service Unavailable", &headers, b"")).await;
        let retry_after = seconds.map(Duration::from_secs);
        let expected =
            Failure::Transient { code: "http_503".to_owned(), retry_after, marked: false };
        assert_eq!(failure, expected, "{value}");
    }
}

fn comparison() -> CompareRequest {
    let ExchangeRequest { protocol, request, device, epoch, actor, .. } = request();
    CompareRequest {
        protocol,
        request,
        device,
        epoch,
        actor,
        server_epoch: None,
        tenant: None,
        cursors: std::collections::BTreeMap::new(),
        others: None,
        ask: Ask::Digests,
    }
}

async fn compared_with(bytes: Vec<u8>) -> Result<ReceivedComparison, Failure> {
    let server = FaultServer::sending(bytes).await;
    let remote = HttpRemote::new(&server.origin, short_waits()).unwrap();
    let compared = remote.compare(&comparison()).await;
    assert!(server.seen()[0].head.starts_with("POST /v1/compare "));
    compared.map_err(|error| {
        assert!(!printed(&error).contains("canary"), "{}", printed(&error));
        error.into_failure()
    })
}

/// A server from before there were comparisons lacks the address.
#[tokio::test]
async fn a_server_without_the_address_of_comparisons_cannot_compare() {
    let cannot = || Failure::Refused { code: CANNOT_COMPARE.to_owned() };
    for bytes in [
        json("404 Not Found", &marked("not_found")),
        json("405 Method Not Allowed", &marked("method_not_allowed")),
        response("404 Not Found", &[("Content-Type", "text/html")], b"<html>canary-5f3a</html>"),
    ] {
        assert_eq!(compared_with(bytes).await.unwrap_err(), cannot());
    }
    let busy = compared_with(json("503 Service Unavailable", &marked("busy"))).await;
    assert_eq!(busy.unwrap_err(), transient("busy", true));
    let nobody = FnRemote::new(|_: &ExchangeRequest| Err(Failure::TooLarge.into()));
    let told = nobody.compare(&comparison()).await.unwrap_err();
    assert_eq!(*told.failure(), cannot(), "a remote of an app's own has no comparisons at first");
}

#[tokio::test]
async fn an_answer_of_a_comparison_is_checked_as_every_answer_is() {
    let id = (ServerId::from_bytes([3; 16]), ServerEpoch::from_bytes([4; 16]));
    let answer = CompareAnswer::new(&comparison(), id);
    let body = serde_json::to_vec(&answer).unwrap();
    let length = body.len() as u64;
    let compared = compared_with(json("200 OK", &body)).await.unwrap();
    assert_eq!((compared.answer, compared.bytes_received), (answer.clone(), length));
    let other = RequestId::from_bytes([9; 16]);
    for (code, body) in [
        ("empty_answer", Vec::new()),
        ("not_an_answer", b"{\"canary-5f3a\":".to_vec()),
        ("marker", to_json(&CompareAnswer { marker: CANARY.to_owned(), ..answer.clone() })),
        ("protocol", to_json(&CompareAnswer { protocol: 2, ..answer.clone() })),
        ("request_id", to_json(&CompareAnswer { request: other, ..answer })),
    ] {
        let failure = compared_with(json("200 OK", &body)).await.unwrap_err();
        assert_eq!(failure, Failure::Misbehaved { code }, "{code}");
    }
}

fn to_json(answer: &CompareAnswer) -> Vec<u8> {
    serde_json::to_vec(answer).unwrap()
}
