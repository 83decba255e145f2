//! Signed tokens over HTTP, and files of credentials that change while the server runs.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use fieldbook_core::WallTime;
use fieldbook_core::protocol::Outcome;
use fieldbook_server::{JwtError, ServeError, ServeOptions, serve};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::*;

const SECRET: &[u8] = b"a secret of thirty-two bytes, or more";
const TOKENS: &str = r#"{ "ann-of-acme-0123456789": { "tenant": "acme", "actor": "ann" } }"#;

fn sign(claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256" })), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    let signature = ring::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

fn claims() -> Value {
    // Long after any day on which these tests run.
    let expires = WallTime::parse("2190-01-01T00:00:00Z").unwrap().milliseconds() / 1000;
    json!({
        "iss": "https://login.example/", "aud": "fieldbook", "exp": expires,
        "sub": "ann", "tenant": "acme",
    })
}

fn settings(more: &Value) -> String {
    let mut settings = json!({
        "issuer": "https://login.example/", "audience": "fieldbook", "tenant_claim": "tenant",
    });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings.to_string()
}

async fn start_signed(tokens: Option<&str>, more: &Value) -> (Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwt.json");
    write_tokens(&path, &settings(more));
    write_tokens(&folder.path().join("secret"), std::str::from_utf8(SECRET).unwrap());
    let running = start_changed(tokens, |options| options.jwt = Some(path)).await;
    (running, folder)
}

async fn post(running: &Running, token: &str) -> (StatusCode, Value, Option<String>) {
    let body = serde_json::to_vec(&pull(BTreeMap::new(), 10)).unwrap();
    let request = running.client().post(format!("{}/v1/exchange", running.url()));
    let request = request.header("content-type", "application/json").bearer_auth(token);
    let response = request.body(body).send().await.unwrap();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.map(|value| value.to_str().unwrap().to_owned());
    let (status, answer) = answer_of(response).await;
    (status, answer, retry_after)
}

#[tokio::test]
async fn a_signed_token_opens_its_tenant_beside_a_token_of_the_file() {
    let with_secret = json!({ "algorithms": ["HS256"], "secret_file": "secret" });
    let (running, _settings) = start_signed(Some(TOKENS), &with_secret).await;
    let running = running.with_token("ann-of-acme-0123456789");
    assert!(matches!(running.sent(1, create("lead/1")).await, Outcome::Applied { .. }));

    let (status, answer, _) = post(&running, &sign(&claims())).await;
    assert_eq!((status, &answer["changes"][0]["key"]), (StatusCode::OK, &json!("lead/1")));
    let mut other = claims();
    other["tenant"] = json!("other");
    let (status, answer, _) = post(&running, &sign(&other)).await;
    assert_eq!((status, answer.get("changes")), (StatusCode::OK, None));
    let mut bob = claims();
    bob["sub"] = json!("bob");
    let (status, answer, _) = post(&running, &sign(&bob)).await;
    assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("wrong_actor")));
}

#[tokio::test]
async fn each_fault_of_a_signed_token_has_its_code_and_no_answer_repeats_it() {
    let with_secret = json!({ "algorithms": ["HS256"], "secret_file": "secret" });
    let (running, _settings) = start_signed(None, &with_secret).await;
    for (member, value, code) in [
        ("exp", json!(1_000_000_000), "token_expired"),
        ("nbf", json!(6_000_000_000_u64), "token_not_yet_valid"),
        ("iss", json!("canary"), "token_wrong_issuer"),
        ("aud", json!("canary"), "token_wrong_audience"),
        ("tenant", json!("Canary"), "token_without_tenant"),
        ("sub", json!(""), "token_without_actor"),
        ("exp", json!("canary"), "token_invalid"),
    ] {
        let mut claims = claims();
        claims[member] = value;
        let token = sign(&claims);
        let (status, answer, _) = post(&running, &token).await;
        assert_eq!((status, &answer["code"]), (StatusCode::UNAUTHORIZED, &json!(code)));
        let answer = answer.to_string().to_lowercase();
        assert!(!answer.contains(&token) && !answer.contains("canary"), "{answer}");
    }
    let (status, answer, _) = post(&running, "canary-canary-canary").await;
    assert_eq!((status, &answer["code"]), (StatusCode::UNAUTHORIZED, &json!("token_invalid")));
}

/// The issuer is down: a device waits, and its user is not asked to sign in.
#[tokio::test]
async fn while_the_keys_cannot_be_fetched_a_device_is_told_to_come_again() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", closed.local_addr().unwrap());
    drop(closed);
    let (running, _settings) =
        start_signed(None, &json!({ "algorithms": ["ES256"], "keys_url": url })).await;
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"ES256","kid":"1"}"#);
    let claims = BASE64URL_NOPAD.encode(claims().to_string().as_bytes());
    let (status, answer, retry_after) =
        post(&running, &format!("{header}.{claims}.{}", "A".repeat(86))).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("keys_unavailable"))
    );
    assert!(retry_after.is_some());
}

#[tokio::test]
async fn settings_that_cannot_be_used_stop_the_start_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwt.json");
    write_tokens(&path, &settings(&json!({ "algorithms": ["none"], "keys_file": "keys.json" })));
    let data = folder.path().join("server.redb");
    let options = ServeOptions { jwt: Some(path), ..ServeOptions::new(loopback(), &data) };
    let error = serve(options).await.unwrap_err();
    assert!(matches!(error, ServeError::Jwt(JwtError::Setting { .. })), "{error:?}");
    assert!(!data.exists());
}

/// Waits until a request with the token has the status.
async fn until(running: &Running, token: &str, wanted: StatusCode) {
    for _ in 0..300 {
        if post(running, token).await.0 == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server has not noticed the file");
}

#[tokio::test]
async fn a_token_file_that_changes_is_read_again_and_a_faulty_one_changes_nothing() {
    let running = start_with(Some(TOKENS)).await;
    let (first, second) = ("ann-of-acme-0123456789", "bob-of-acme-0123456789");
    assert_eq!(post(&running, first).await.0, StatusCode::OK);
    running.write_tokens(&TOKENS.replace(first, second));
    until(&running, second, StatusCode::OK).await;
    assert_eq!(post(&running, first).await.0, StatusCode::UNAUTHORIZED);
    running.write_tokens("{ nothing");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(post(&running, second).await.0, StatusCode::OK);
    running.write_tokens(TOKENS);
    until(&running, first, StatusCode::OK).await;
}
