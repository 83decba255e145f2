//! Compares `docs/openapi.json` with the running server.

use std::collections::BTreeMap;

use fieldbook_core::entry::{Receipt, chain};
use fieldbook_core::protocol::{ExchangeRequest, FieldWrites, HeadClaim, UnitChange};
use fieldbook_core::{Cursor, Hash, Hlc, OpId, OpKind, Seq, ServerEpoch};
use jsonschema::Validator;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::*;

const OPENAPI: &str = include_str!("../../../docs/openapi.json");

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Refuses members that the document does not name, which devices ignore: here each must be
/// documented.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Compiles one schema of the document. References to its other schemas are resolved within it.
pub(crate) fn validator(name: &str) -> Validator {
    let mut components = document()["components"].clone();
    close(&mut components["schemas"]);
    let schema =
        json!({ "$ref": format!("#/components/schemas/{name}"), "components": components });
    jsonschema::draft202012::new(&schema).unwrap()
}

#[track_caller]
pub(crate) fn assert_valid(validator: &Validator, value: &Value) {
    let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?} in {value:#}");
}

/// A request with every member.
fn full_request() -> ExchangeRequest {
    let mut all = change("lead/a/b", OpKind::Create, None, r#"{"name":"Ann","nothing":null}"#);
    let (edited_at, op) = (Hlc::from_bits(5), OpId::from_bytes([5; 16]));
    all.older.push(FieldWrites {
        edited_at,
        op,
        fields: vec!["name".to_owned(), "nothing".to_owned()],
    });
    let mut full = request(vec![
        unit(1, vec![all, create("note/1")]),
        unit(2, vec![change("lead/a/b", OpKind::Update, Some(7), r#"{"name":null}"#)]),
        unit(3, vec![change("lead/2", OpKind::Update, None, "{}")]),
        unit(4, vec![UnitChange { edited_at: Hlc::from_bits(u64::MAX), ..create("lead/3") }]),
        unit(5, vec![UnitChange { ops: Vec::new(), ..create("lead/4") }]),
        unit(6, vec![change("lead/5", OpKind::Delete, None, "")]),
    ]);
    let anchor = Receipt { seq: Seq::new(3), hash: Hash::from_bytes([7; 32]) };
    let contents = vec![Hash::from_bytes([8; 32])];
    let hash = chain::extend(&anchor.hash, &contents);
    full.head = Some(HeadClaim { anchor: Some(anchor), contents, seq: Seq::new(4), hash });
    full.page_limit = 100;
    full
}

#[tokio::test]
async fn requests_and_answers_of_every_kind_are_as_documented() {
    let (requests, answers) = (validator("ExchangeRequest"), validator("ExchangeAnswer"));
    let running = start().await;
    let mut full = full_request();
    full.server_epoch = Some(ServerEpoch::from_bytes([9; 16]));
    let (_, elsewhere) = running.post(serde_json::to_vec(&full).unwrap()).await;
    assert_valid(&answers, &elsewhere);
    assert_eq!(elsewhere.as_object().unwrap().len(), 7, "no more than who answers: {elsewhere:#}");
    full.server_epoch = Some(serde_json::from_value(elsewhere["server_epoch"].clone()).unwrap());
    let body = serde_json::to_value(&full).unwrap();
    // The one fault that the schema can detect is removed first: unit 5 names no op.
    let mut checked = body.clone();
    checked["units"][4]["changes"][0]["ops"] = body["units"][0]["changes"][0]["ops"].clone();
    assert_valid(&requests, &checked);

    let mut seen = std::collections::BTreeSet::new();
    for sent in [
        full.clone(),
        full.clone(),
        pull(BTreeMap::new(), 2),
        pull(BTreeMap::new(), 0),
        ExchangeRequest { others: Some(Cursor::default()), ..pull(BTreeMap::new(), 2) },
        ExchangeRequest {
            head: Some(HeadClaim { hash: Hash::ZERO, ..full.head.clone().unwrap() }),
            ..request(Vec::new())
        },
    ] {
        let (status, answer) = running.post(serde_json::to_vec(&sent).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{answer:#}");
        assert_valid(&answers, &answer);
        for outcome in answer["outcomes"].as_array().into_iter().flatten() {
            seen.insert(outcome["outcome"].as_str().unwrap().to_owned());
        }
        seen.extend(answer.as_object().unwrap().keys().cloned());
        let mut next = pull(BTreeMap::new(), 2);
        if let Some(cursors) = answer.get("cursors") {
            next.cursors = serde_json::from_value(cursors.clone()).unwrap();
            assert_valid(&requests, &serde_json::to_value(&next).unwrap());
        }
    }
    for expected in [
        "applied",
        "duplicate",
        "stale",
        "rejected",
        "changes",
        "cursors",
        "others",
        "more",
        "receipt",
        "forked",
    ] {
        assert!(seen.contains(expected), "{expected} was never seen, only {seen:?}");
    }
}

#[tokio::test]
async fn every_member_that_the_document_requires_is_required() {
    let running = start().await;
    let document = document();
    let required = |name: &str| {
        let members = document["components"]["schemas"][name]["required"].as_array().unwrap();
        members.iter().map(|member| member.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (schema, pointer) in [
        ("ExchangeRequest", ""),
        ("HeadClaim", "/head"),
        ("Receipt", "/head/anchor"),
        ("Unit", "/units/0"),
        ("UnitChange", "/units/0/changes/0"),
    ] {
        for member in required(schema) {
            let mut body = serde_json::to_value(full_request()).unwrap();
            assert!(
                body.pointer_mut(pointer)
                    .unwrap()
                    .as_object_mut()
                    .unwrap()
                    .remove(&member)
                    .is_some()
            );
            let (status, _) = running.post(body.to_string().into()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{schema}.{member}");
        }
    }
}

#[tokio::test]
async fn errors_and_health_are_as_documented() {
    let (errors, health) = (validator("ErrorAnswer"), validator("Health"));
    let running = start().await;
    let (_, answer) = running.post(b"{".to_vec()).await;
    assert_valid(&errors, &answer);
    let documented =
        &document()["paths"]["/v1/exchange"]["post"]["responses"]["400"]["description"];
    assert!(
        documented.as_str().unwrap().contains(&format!("`{}`", answer["code"].as_str().unwrap()))
    );
    let response =
        running.client().get(format!("{}/v1/health", running.url())).send().await.unwrap();
    assert_valid(&health, &answer_of(response).await.1);
    let response =
        running.client().get(format!("{}/v1/ready", running.url())).send().await.unwrap();
    assert_valid(&validator("Ready"), &answer_of(response).await.1);
}

#[test]
fn the_worked_example_of_the_protocol_page_is_as_documented() {
    let page = include_str!("../../../docs/protocol.md");
    let mut blocks = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut next = || serde_json::from_str::<Value>(blocks.next().unwrap()).unwrap();
    let (sent, answered) = (next(), next());
    assert_valid(&validator("ExchangeRequest"), &sent);
    assert_valid(&validator("ExchangeAnswer"), &answered);
    let sent: ExchangeRequest = serde_json::from_str(&sent.to_string()).unwrap();
    assert!(
        page.contains(&sent.units[0].digest().to_string()),
        "the digest is {}",
        sent.units[0].digest()
    );
}
