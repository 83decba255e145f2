//! Every status, from our server and from others, with every media type.

use std::sync::{Arc, Mutex};

use fieldbook_core::protocol::{ExchangeAnswer, Failure};
use fieldbook_core::rules::failure::{parks, refused_for_good};
use fieldbook_core::{ServerEpoch, ServerId};
use fieldbook_transport::{HttpRemote, Remote};

use crate::fault_server::{Act, FaultServer, response};
use crate::support::{answer_json, request, short_waits};

/// Every status that a server, a proxy, a firewall or a provider is known to send, and some that
/// none should send.
const STATUSES: [u16; 44] = [
    101, 200, 201, 202, 204, 206, 207, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405,
    406, 407, 408, 409, 410, 411, 413, 414, 415, 417, 421, 422, 425, 426, 429, 431, 451, 499, 500,
    501, 502, 503, 504, 511, 599,
];

const MEDIA_TYPES: [Option<&str>; 3] =
    [Some("application/json"), Some("text/html; charset=utf-8"), None];

/// A server that returns the response set last, and a client of it.
struct Way {
    next: Arc<Mutex<Vec<u8>>>,
    remote: HttpRemote,
}

impl Way {
    async fn open() -> Self {
        let next = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::clone(&next);
        let server = FaultServer::start(move |_, _| Act::Send(sent.lock().unwrap().clone())).await;
        let remote = HttpRemote::new(&server.origin, short_waits()).unwrap();
        Self { next, remote }
    }

    async fn ask(
        &self,
        status: u16,
        media_type: Option<&str>,
        body: &[u8],
    ) -> Result<ExchangeAnswer, Failure> {
        let headers: Vec<_> = media_type.map(|name| ("Content-Type", name)).into_iter().collect();
        // A status that allows no body gets none. Otherwise the client would read the body as the
        // next response.
        let body = if matches!(status, 100..=199 | 204 | 205 | 304) { b"" } else { body };
        *self.next.lock().unwrap() = response(&format!("{status} Status"), &headers, body);
        match self.remote.exchange(&request()).await {
            Ok(received) => Ok(received.answer),
            Err(error) => Err(error.into_failure()),
        }
    }
}

/// Bodies that our server never sends. Some of them look like its own.
fn foreign_bodies() -> Vec<Vec<u8>> {
    let marked = String::from_utf8(marked("token_unknown")).unwrap();
    let answer = String::from_utf8(answer_json()).unwrap();
    vec![
        Vec::new(),
        b"<html><title>Sign in to the network</title></html>".to_vec(),
        br#"{"error":"unauthorized","code":"token_unknown","message":"no"}"#.to_vec(),
        br#"{"code":"too_large","message":"no"}"#.to_vec(),
        marked.replace("fieldbook", "Fieldbook").into_bytes(),
        marked.replace("\"fieldbook\"", "true").into_bytes(),
        format!("<pre>{marked}</pre>").into_bytes(),
        format!("[{marked}]").into_bytes(),
        format!("{{\"error\":{marked}}}").into_bytes(),
        format!("{marked} {marked}").into_bytes(),
        marked.as_bytes()[..marked.len() - 1].to_vec(),
        answer.replace("\"fieldbook\"", "\"another\"").into_bytes(),
        answer.as_bytes()[..answer.len() - 1].to_vec(),
    ]
}

fn marked(code: &str) -> Vec<u8> {
    format!(r#"{{"marker":"fieldbook","code":"{code}","message":"no"}}"#).into_bytes()
}

#[tokio::test]
async fn whatever_something_else_says_nothing_is_parked_refused_or_taken_for_an_answer() {
    let way = Way::open().await;
    let server = Some((ServerId::from_bytes([3; 16]), ServerEpoch::from_bytes([4; 16])));
    for status in STATUSES {
        for media_type in MEDIA_TYPES {
            for body in foreign_bodies() {
                let shown = format!("{status} {media_type:?} {}", String::from_utf8_lossy(&body));
                let failure = way.ask(status, media_type, &body).await.expect_err(&shown);
                match &failure {
                    Failure::Unauthorized { code } => assert_eq!(code, "http_401", "{shown}"),
                    Failure::Transient { code, marked, .. } => {
                        assert_eq!(
                            (code.as_str(), *marked),
                            (&*format!("http_{status}"), false),
                            "{shown}"
                        );
                    }
                    Failure::Unreachable { .. }
                    | Failure::Unknown { .. }
                    | Failure::Misbehaved { .. } => {}
                    _ => panic!("{shown} is taken for our server's word: {failure:?}"),
                }
                assert_eq!(parks(&failure, &request().actor, server), None, "{shown}");
                assert_eq!(refused_for_good(&failure), None, "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn what_our_server_says_is_the_same_under_every_media_type() {
    let way = Way::open().await;
    for status in STATUSES.into_iter().filter(|status| *status >= 400) {
        for code in ["some_code", "wrong_actor"] {
            let said = || code.to_owned();
            let expected = match (status, code) {
                (401, _) | (403, "wrong_actor") => Failure::Unauthorized { code: said() },
                (413, _) => Failure::TooLarge,
                (426, _) => Failure::UpgradeRequired { code: said() },
                (511, _) => Failure::Unreachable { code: "captive_portal" },
                (408 | 425 | 429 | 500.., _) => {
                    Failure::Transient { code: said(), retry_after: None, marked: true }
                }
                _ => Failure::Refused { code: said() },
            };
            for media_type in MEDIA_TYPES {
                let failure =
                    way.ask(status, media_type, &marked(code)).await.expect_err("a refusal");
                assert_eq!(failure, expected, "{status} {media_type:?} {code}");
            }
        }
    }
}

#[tokio::test]
async fn only_a_200_with_json_is_an_answer() {
    let way = Way::open().await;
    for status in STATUSES {
        for media_type in MEDIA_TYPES {
            let said = way.ask(status, media_type, &answer_json()).await;
            let is_answer = status == 200 && media_type == Some("application/json");
            assert_eq!(said.is_ok(), is_answer, "{status} {media_type:?}: {said:?}");
        }
    }
}
