//! Comparisons over real HTTP: as documented, within their bounds, and by real devices.

use fieldbook::{Book, BookOptions, Fields, HttpOptions, HttpRemote};
use fieldbook_core::entry::chain;
use fieldbook_core::protocol::{ExchangeRequest, HeadClaim, UnitChange};
use fieldbook_core::{Epoch, Hash, OpKind, Seq};
use fieldbook_server::check_digests;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::schema::{assert_valid, validator};
use crate::support::*;

fn asking(ask: &Value) -> Value {
    let mut body = serde_json::to_value(request(Vec::new())).unwrap();
    let members = body.as_object_mut().unwrap();
    members.remove("page_limit");
    members.insert("ask".to_owned(), ask.clone());
    body
}

impl Running {
    async fn compare(&self, body: &Value) -> (StatusCode, Value) {
        let request = self.client().post(format!("{}/v1/compare", self.url()));
        let request = request.header("content-type", "application/json").body(body.to_string());
        answer_of(request.send().await.unwrap()).await
    }

    async fn found(&self, ask: &Value) -> Value {
        let body = asking(ask);
        assert_valid(&validator("CompareRequest"), &body);
        let (status, answer) = self.compare(&body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_valid(&validator("CompareAnswer"), &answer);
        answer["found"].clone()
    }
}

impl Running {
    /// Claims two heads of each of three epochs, and asks for the heads that are kept.
    async fn found_after_three_epochs(&self) -> Vec<Value> {
        let contents: Vec<_> = (1..=2).map(|number| Hash::from_bytes([number; 32])).collect();
        let own = request(Vec::new()).epoch;
        for epoch in [Epoch::from_bytes([0; 16]), own, Epoch::from_bytes([0xff; 16])] {
            for last in 1..=2 {
                let contents = contents[..last].to_vec();
                let hash = chain::extend(&Hash::ZERO, &contents);
                let head = HeadClaim { anchor: None, contents, seq: Seq::new(last as u64), hash };
                let claimed = ExchangeRequest { head: Some(head), epoch, ..request(Vec::new()) };
                self.exchange(&claimed).await;
            }
        }
        self.found(&json!("heads")).await["heads"]["logs"].as_array().unwrap().clone()
    }
}

fn creates(names: &[&str]) -> ExchangeRequest {
    let changes: Vec<UnitChange> = names.iter().map(|name| create(name)).collect();
    request((1..).zip(changes).map(|(number, change)| unit(number, vec![change])).collect())
}

#[tokio::test]
async fn questions_and_answers_are_as_documented() {
    let running = start().await;
    running.exchange(&creates(&["lead/1", "lead/2", "note/1"])).await;
    running.sent(9, change("lead/1", OpKind::Delete, Some(1), "")).await;
    let found = running.found(&json!("digests")).await;
    let digests = found["digests"].as_array().unwrap();
    assert_eq!(digests.len(), 2);
    assert_eq!(digests[0]["records"], 1, "a deleted record does not count");
    assert_eq!(digests[0]["read_to"], 0);
    assert_eq!(digests[0]["newer"], true);

    let mut read = asking(&json!("digests"));
    read["others"] = json!("AAAAAAAAAAQ");
    let (_, answer) = running.compare(&read).await;
    assert_eq!(answer["found"]["digests"][0]["read_to"], 4);
    assert_eq!(answer["found"]["digests"][0].get("newer"), None);
    assert_eq!(answer["commit"], 4);

    let whole = json!({ "entity": "lead", "parts": [""] });
    let found = running.found(&json!({ "parts": whole })).await;
    assert_eq!(found["parts"]["parts"][0].as_str().unwrap().len(), (256 * 20usize * 4).div_ceil(3));
    let found = running.found(&json!({ "versions": whole })).await;
    assert_eq!(found["versions"], json!({ "records": [["2", 2]] }));
    let after = json!({ "entity": "lead", "parts": [""], "after": "2" });
    let found = running.found(&json!({ "versions": after })).await;
    assert_eq!(found["versions"], json!({ "records": [] }));
    let keys = json!({ "records": ["lead/1", "lead/2", "lead/never"] });
    let found = running.found(&keys).await;
    assert_eq!(found["records"][0]["deleted"], true);
    assert_eq!(found["records"][1]["fields"]["name"], "Ann");
    assert_eq!(found["records"][2]["version"], 0);

    let found = running.found(&json!("heads")).await;
    assert_eq!(found["heads"], json!({ "logs": [] }), "no head was claimed");
    let logs = running.found_after_three_epochs().await;
    let kept: Vec<_> = logs.iter().map(|log| log["heads"].as_array().unwrap().len()).collect();
    assert_eq!(kept, [2, 2, 2], "{logs:?}");
    assert_eq!(logs[0]["epoch"], asking(&json!("heads"))["epoch"], "the request's own first");

    let mut elsewhere = asking(&json!("digests"));
    elsewhere["server_epoch"] = json!("00000000-0000-0000-0000-000000000009");
    let (status, answer) = running.compare(&elsewhere).await;
    assert_eq!((status, answer.get("found")), (StatusCode::OK, None));
    assert_valid(&validator("CompareAnswer"), &answer);
}

#[tokio::test]
async fn what_no_device_asks_is_refused_before_any_work() {
    let running = start().await;
    let many = |one: &'static str| vec![one; 1_001];
    let parts = |parts: &[&str]| json!({ "versions": { "entity": "lead", "parts": parts } });
    let divided = json!({ "parts": { "entity": "lead", "parts": ["12345678"] } });
    for (what, body, status, code) in [
        ("many records", asking(&json!({ "records": many("lead/1") })), 413, "too_large"),
        ("parts within each other", asking(&parts(&["a", "b", "a7"])), 400, "bad_parts"),
        ("a part twice", asking(&parts(&["a7", "a7"])), 400, "bad_parts"),
        ("no part", asking(&parts(&[])), 400, "bad_parts"),
        ("a part of one record", asking(&divided), 400, "bad_parts"),
        ("no part at all", asking(&parts(&["x"])), 400, "bad_request"),
        ("another question", asking(&json!("everything")), 400, "bad_request"),
        ("too many bytes", asking(&json!("x".repeat(2 << 20))), 413, "too_large"),
        (
            "a cursor of the future",
            {
                let mut body = asking(&json!("digests"));
                body["others"] = json!("AAAAAAAAAAQ");
                body
            },
            409,
            "server_behind",
        ),
        (
            "another protocol",
            {
                let mut body = asking(&json!("digests"));
                body["protocol"] = json!(2);
                body
            },
            426,
            "upgrade_required",
        ),
    ] {
        let (found, answer) = running.compare(&body).await;
        assert_eq!((found.as_u16(), answer["code"].as_str().unwrap()), (status, code), "{what}");
        assert_valid(&validator("ErrorAnswer"), &answer);
    }
    let wrong = r#"{"some-long-random-token":{"tenant":"acme","actor":"bob"}}"#;
    let others = start_with(Some(wrong)).await;
    let (status, answer) = others.compare(&asking(&json!("digests"))).await;
    assert_eq!((status.as_u16(), answer["code"].as_str().unwrap()), (401, "token_missing"));
}

/// The digests of a store from before there were digests are counted when a server opens it.
#[tokio::test]
async fn an_older_store_gets_its_digests_at_the_next_start_and_a_wrong_digest_is_found() {
    let running = start().await;
    if !running.is_in_a_file() {
        return;
    }
    running.exchange(&creates(&["lead/1", "lead/2", "note/1"])).await;
    running.sent(9, change("lead/1", OpKind::Delete, Some(1), "")).await;
    let kept = running.found(&json!("digests")).await;
    let data = running.data();
    let folder = running.stopped().await;
    let digests = redb::TableDefinition::<&[u8], &[u8]>::new("digests-1");
    let database = redb::Database::open(&data).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.delete_table(digests).unwrap());
    transaction.commit().unwrap();
    drop(database);
    let options = fieldbook_server::ServeOptions::new(loopback(), &data);
    let server = fieldbook_server::serve(options).await.unwrap();
    let url = format!("{}/v1/compare", server.url());
    let body = asking(&json!("digests")).to_string();
    let client = client().build().unwrap();
    let request = client.post(url).header("content-type", "application/json").body(body);
    let (_, counted) = answer_of(request.send().await.unwrap()).await;
    assert_eq!(counted["found"], kept);
    server.shutdown().await.unwrap();
    assert_eq!(check_digests(&data).unwrap(), []);
    // A store that lost a record behind the back of its server.
    let database = redb::Database::open(&data).unwrap();
    let transaction = database.begin_write().unwrap();
    let feed = redb::TableDefinition::<&[u8], &[u8]>::new("feed-1");
    transaction
        .open_table(feed)
        .unwrap()
        .retain(|key, _| !key.starts_with(b"local\0note"))
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let wrong = check_digests(&data).unwrap();
    let told: Vec<_> =
        wrong.iter().map(|one| (one.entity.as_str(), one.kept, one.counted)).collect();
    assert_eq!(told, [("note", 1, 0)]);
    assert_eq!(wrong[0].tenant, "local");
    drop(folder);
}

#[tokio::test]
async fn a_device_checks_its_book_over_http() {
    let running = start().await;
    running.exchange(&creates(&["lead/1", "lead/2"])).await;
    let folder = tempfile::tempdir().unwrap();
    let options = BookOptions::new("ann").unwrap();
    let book = Book::create_new(folder.path().join("ann.book"), options).unwrap();
    let remote = HttpRemote::new(&running.url(), HttpOptions::default()).unwrap();
    book.records().create("lead/3".parse().unwrap(), Fields::default()).unwrap();
    let found = book.check(&remote).await.unwrap();
    assert!(found.is_empty() && found.pending == 1 && found.requests == 1, "{found:?}");
    assert!(found.bytes_received > 0 && found.bytes_sent > 0);
}
