use std::collections::BTreeMap;

use fieldbook_core::protocol::{ExchangeRequest, HeadClaim, Outcome};
use fieldbook_core::{DeviceKey, Hash, Seq, limits};
use fieldbook_server::{OpenStoreError, ServeError, ServeOptions, serve};
use reqwest::StatusCode;
use serde_json::json;

use crate::support::*;

const TOKENS: &str = r#"{
    "ann-of-acme-0123456789": { "tenant": "acme", "actor": "ann" },
    "team-of-acme-0123456789": { "tenant": "acme", "actors": ["ann", "bob"] },
    "ann-of-other-0123456789": { "tenant": "other", "actor": "ann" },
    "bob-of-acme-0123456789": { "tenant": "acme", "actor": "bob" },
    "past-0123456789abcdef": { "tenant": "acme", "actor": "ann", "expires": "2020-01-01T00:00:00Z" }
}"#;

#[tokio::test]
async fn a_token_opens_its_tenant_for_its_actors_only() {
    let running = start_with(Some(TOKENS)).await.with_token("ann-of-acme-0123456789");
    assert!(matches!(running.sent(1, create("lead/1")).await, Outcome::Applied { .. }));
    let everything = serde_json::to_vec(&pull(BTreeMap::new(), 10)).unwrap();

    let running = running.with_token("team-of-acme-0123456789");
    let (_, answer) = running.post(everything.clone()).await;
    assert_eq!(answer["changes"][0]["key"], "lead/1");

    let running = running.with_token("ann-of-other-0123456789");
    let (status, answer) = running.post(everything.clone()).await;
    assert_eq!((status, answer.get("changes")), (StatusCode::OK, None));
    // The same unit id is another unit in another tenant.
    assert!(matches!(running.sent(1, create("lead/9")).await, Outcome::Applied { .. }));

    let running = running.with_token("bob-of-acme-0123456789");
    let (status, answer) = running.post(everything).await;
    assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("wrong_actor")));
}

#[tokio::test]
async fn credentials_that_do_not_hold_are_told_apart_and_never_repeated() {
    let running = start_with(Some(TOKENS)).await;
    let body = serde_json::to_vec(&pull(BTreeMap::new(), 10)).unwrap();
    let (status, answer) = running.post(body.clone()).await;
    assert_eq!((status, &answer["code"]), (StatusCode::UNAUTHORIZED, &json!("token_missing")));
    for (token, code) in
        [("canary-canary-canary", "token_unknown"), ("past-0123456789abcdef", "token_expired")]
    {
        let request = running.client().post(format!("{}/v1/exchange", running.url()));
        let request = request.header("content-type", "application/json").bearer_auth(token);
        let response = request.body(body.clone()).send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let (status, answer) = answer_of(response).await;
        assert_eq!((status, &answer["code"]), (StatusCode::UNAUTHORIZED, &json!(code)));
        assert!(!answer.to_string().contains(token));
    }
}

#[tokio::test]
async fn without_tokens_only_this_machine_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        ServeOptions::new("0.0.0.0:0".parse().unwrap(), folder.path().join("server.redb"));
    let error = serve(options).await.unwrap_err();
    assert!(matches!(error, ServeError::OpenToAll { .. }), "{error}");
    assert!(!folder.path().join("server.redb").exists());
}

/// The browser lets through a web page whose name points to this machine. The server must refuse
/// it.
#[tokio::test]
async fn without_tokens_only_names_of_this_machine_are_answered() {
    let running = start().await;
    let body = serde_json::to_vec(&request(Vec::new())).unwrap();
    for (host, status) in [
        ("evil.example", StatusCode::FORBIDDEN),
        ("127.0.0.1.evil.example:80", StatusCode::FORBIDDEN),
        ("LOCALHOST:7070", StatusCode::OK),
        ("[::1]:7070", StatusCode::OK),
    ] {
        let request =
            running.client().post(format!("{}/v1/exchange", running.url())).header("host", host);
        let request = request.header("content-type", "application/json").body(body.clone());
        assert_eq!(answer_of(request.send().await.unwrap()).await.0, status, "{host}");
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_with_the_place_and_without_their_content() {
    let running = start().await;
    let good = serde_json::to_string(&request(vec![unit(1, vec![create("lead/1")])])).unwrap();
    for (body, place) in [
        (String::new(), "line 1"),
        ("{\n \"protocol\": canary".to_owned(), "line 2"),
        (good.replace("\"protocol\":1", "\"protocol\":\"canary\""), "column"),
        (good.replace("lead/1", "Canary/1"), "column"),
        (good.replace("{\"name\":\"Ann\",", "[\"canary\",").replace("]}}]", "]]}]"), "column"),
    ] {
        let (status, answer) = running.post(body.clone().into()).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::BAD_REQUEST, &json!("bad_request")),
            "{body}"
        );
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(place) && !message.to_lowercase().contains("canary"), "{message}");
    }
    let cursor =
        good.replace("\"page_limit\":0", "\"page_limit\":5,\"cursors\":{\"lead\":\"AAAA\"}");
    let (status, answer) = running.post(cursor.into()).await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("bad_cursor")));
    assert!(running.exchange(&pull(BTreeMap::new(), 10)).await.changes.is_empty());
}

#[tokio::test]
async fn another_protocol_is_told_to_upgrade_even_if_its_request_does_not_read() {
    let running = start().await;
    for body in [r#"{"protocol":2,"something":"new"}"#.to_owned(), {
        let other = ExchangeRequest { protocol: 2, ..request(Vec::new()) };
        serde_json::to_string(&other).unwrap()
    }] {
        let (status, answer) = running.post(body.into()).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::UPGRADE_REQUIRED, &json!("upgrade_required"))
        );
    }
}

#[tokio::test]
async fn a_request_over_the_limit_is_told_so() {
    let running = start().await;
    let (status, answer) = running.post(vec![b' '; limits::REQUEST_BYTES + 1]).await;
    assert_eq!((status, &answer["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large")));
    let one = serde_json::to_value(unit(1, vec![create("lead/1")])).unwrap();
    let mut many = serde_json::to_value(request(Vec::new())).unwrap();
    many["units"] = json!(vec![one; 1_001]);
    let (status, _) = running.post(many.to_string().into()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn other_addresses_methods_and_media_types_are_refused_in_the_same_form() {
    let running = start().await;
    let (client, url) = (running.client(), running.url());
    let exchange = format!("{url}/v1/exchange");
    let (status, answer) =
        answer_of(client.get(format!("{url}/v1/health")).send().await.unwrap()).await;
    assert_eq!((status, &answer["status"]), (StatusCode::OK, &json!("ok")));
    let (status, _) =
        answer_of(client.get(format!("{url}/v2/exchange")).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = answer_of(client.get(&exchange).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    for (name, value) in [("content-type", "text/plain"), ("content-encoding", "gzip")] {
        let body = serde_json::to_vec(&request(Vec::new())).unwrap();
        let (status, _) =
            answer_of(client.post(&exchange).header(name, value).body(body).send().await.unwrap())
                .await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{name}");
    }
}

#[tokio::test]
async fn a_store_that_is_open_or_is_none_is_refused_and_left_as_it_is() {
    let running = start().await;
    if !running.is_in_a_file() {
        return;
    }
    let second = serve(ServeOptions::new(loopback(), running.data())).await.unwrap_err();
    assert!(matches!(second, ServeError::Store(OpenStoreError::AlreadyOpen { .. })), "{second}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.redb");
    for bytes in [Vec::new(), b"not a store".to_vec(), vec![7; 8192]] {
        std::fs::write(&path, &bytes).unwrap();
        let error = serve(ServeOptions::new(loopback(), &path)).await.unwrap_err();
        assert!(matches!(error, ServeError::Store(OpenStoreError::NotAStore { .. })), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    let nowhere =
        serve(ServeOptions::new(loopback(), folder.path().join("no/such/server.redb"))).await;
    assert!(matches!(nowhere.unwrap_err(), ServeError::Store(OpenStoreError::Io { .. })));
}

#[tokio::test]
async fn a_fresh_store_leaves_nothing_but_itself_in_its_folder() {
    let running = start().await;
    if !running.is_in_a_file() {
        return;
    }
    let folder = running.data().parent().unwrap().to_owned();
    let names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, ["server.redb"]);
}

#[tokio::test]
async fn a_device_is_known_by_its_key_also_after_a_restart() {
    let running = start().await;
    let key = |number| Some(DeviceKey::from_seed(&[number; 32]));
    let claim = |seq, device_key| {
        let head =
            HeadClaim { anchor: None, contents: Vec::new(), seq: Seq::new(seq), hash: Hash::ZERO };
        ExchangeRequest { head: Some(head), device_key, ..request(Vec::new()) }
    };
    assert!(running.exchange(&claim(1, key(1))).await.receipt.is_some());
    let running = running.restarted().await;
    let (status, answer) = running.post(serde_json::to_vec(&claim(9, key(2))).unwrap()).await;
    assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("device_of_another")));
    assert!(running.exchange(&claim(1, key(1))).await.receipt.is_some());
    if !running.is_in_a_file() {
        return;
    }
    let told = String::from(key(1).unwrap());
    let stored = std::fs::read(running.data()).unwrap();
    assert!(
        !stored.windows(32).any(|window| window == key(1).unwrap().as_bytes()),
        "the key itself is kept: {}",
        told.len()
    );
}
