//! Every client can read every accepted write. The server receives the largest of everything that
//! it accepts. A new device reads all of it over HTTP, stores it in its book, and reads it again
//! after the book was reopened.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use fieldbook::sync::Stopped;
use fieldbook::{Book, BookOptions, Fields, HttpOptions, HttpRemote, RunOptions};
use fieldbook_core::protocol::{Change, Outcome, Unit, UnitChange};
use fieldbook_core::record::FieldWrites;
use fieldbook_core::{FieldsJson, Hlc, OpId, OpKind, RecordKey, UnitId, Version, WallTime, limits};
use reqwest::StatusCode;

use crate::support::*;

/// A stamp of as many digits as a stamp of our time has.
fn edited() -> Hlc {
    Hlc::at(WallTime::parse("2024-05-01T12:00:00Z").unwrap())
}

fn earlier() -> Hlc {
    Hlc::from_bits(edited().to_bits() - 1)
}

/// A key of the longest entity type and the longest id, which is escaped where JSON escapes it.
fn longest_key(number: usize) -> String {
    let id = format!("{number:04}{}", "\"\\é".repeat(31));
    assert_eq!(id.len(), limits::RECORD_ID_BYTES);
    format!("{}/{id}", "e".repeat(limits::ENTITY_TYPE_BYTES))
}

/// Fields of exactly this size, with values that grow when written: escapes, the deepest value, the
/// largest numbers.
fn fields_of(bytes: usize) -> String {
    let depth = limits::FIELD_LEVELS;
    let deep = format!("{}0{}", "[".repeat(depth), "]".repeat(depth));
    let numbers = "[18446744073709551615,-9223372036854775808,1.7976931348623157e308]";
    let short = FieldsJson::parse(&format!(r#"{{"a":{deep},"b":{numbers},"c":""}}"#)).unwrap();
    let head = short.as_str().strip_suffix("\"}").unwrap();
    let left = bytes - head.len() - 2;
    let text = format!("{head}{}{}\"}}", r"\u0001".repeat(left / 6), "x".repeat(left % 6));
    assert_eq!(text.len(), bytes);
    text
}

/// A record in which every field has its own stamp.
fn stamped(
    name: &str,
    kind: OpKind,
    base: Option<u64>,
    names: impl Iterator<Item = String>,
    value: &str,
) -> UnitChange {
    let mut fields = Fields::new();
    let mut older = Vec::new();
    for (number, name) in (0u128..).zip(names) {
        fields.set(name.clone(), serde_json::from_str::<serde_json::Value>(value).unwrap());
        older.push(FieldWrites {
            edited_at: earlier(),
            op: OpId::from_bytes(number.to_be_bytes()),
            fields: vec![name],
        });
    }
    let text = serde_json::to_string(&fields).unwrap();
    UnitChange { older, ..change(name, kind, base, &text) }
}

fn numbered(number: u64, changes: Vec<UnitChange>) -> Unit {
    Unit {
        id: UnitId::from_bytes(u128::from(number).to_be_bytes()),
        changes,
        earlier_units: Vec::new(),
    }
}

/// Sends a unit, which has to be accepted, and returns its version.
async fn taken(running: &Running, number: u64, changes: Vec<UnitChange>) -> u64 {
    let answer = running.exchange(&request(vec![numbered(number, changes)])).await;
    match &answer.outcomes[0].outcome {
        Outcome::Applied { versions, .. } => versions.values().next().unwrap().number(),
        other => panic!("unit {number} was not taken: {other:?}"),
    }
}

/// Sends a unit, which has to be refused for its size.
async fn too_large(running: &Running, changes: Vec<UnitChange>) {
    // Each under an id of its own: a refusal is remembered.
    static NUMBER: AtomicU64 = AtomicU64::new(1_000);
    let unit = numbered(NUMBER.fetch_add(1, Ordering::Relaxed), changes);
    let outcome = running.exchange(&request(vec![unit])).await.outcomes.remove(0).outcome;
    assert!(
        matches!(&outcome, Outcome::Rejected { code, .. } if code == "unit_too_large"),
        "{outcome:?}"
    );
}

/// Returns how many such records fit a commit, by the bytes that are not fields.
fn most_heads(one: &UnitChange) -> usize {
    let as_told = Change {
        key: one.key.clone(),
        version: Version::new(1),
        edited_at: one.edited_at,
        op: OpId::from_bytes([9; 16]),
        by: Some(request(Vec::new()).actor),
        older: one.older.clone(),
        floor: None,
        deleted: false,
        partial: false,
        fields: one.fields.clone(),
    };
    // The versions have two digits.
    limits::COMMIT_HEAD_BYTES / (as_told.size().head + 1)
}

fn remote(running: &Running) -> HttpRemote {
    HttpRemote::new(&running.url(), HttpOptions::default()).unwrap()
}

/// Compares the records of a book with those of the server.
fn held(book: &Book, changes: &BTreeMap<RecordKey, Change>) {
    for (key, change) in changes {
        let record = book.records().get(key).unwrap();
        assert!(record.map(|record| record.json) == change.fields, "{key:?} differs");
    }
}

/// Reads everything as any client would, each answer within the limits.
async fn read_all(running: &Running) -> BTreeMap<RecordKey, Change> {
    let (mut cursors, mut all) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let body = serde_json::to_vec(&pull(cursors.clone(), limits::PAGE_CHANGES_MOST)).unwrap();
        let post = running.client().post(format!("{}/v1/exchange", running.url()));
        let response =
            post.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let bytes = response.bytes().await.unwrap();
        assert!(bytes.len() <= limits::ANSWER_BYTES, "an answer of {} bytes", bytes.len());
        let answer: fieldbook_core::protocol::ExchangeAnswer =
            serde_json::from_slice(&bytes).unwrap();
        cursors.extend(answer.cursors);
        all.extend(answer.changes.into_iter().map(|change| (change.key.clone(), change)));
        if !answer.more {
            return all;
        }
    }
}

/// Makes the largest of everything in one store.
async fn fill(running: &Running) {
    // The largest record, under the longest key.
    let name = longest_key(0);
    taken(running, 1, vec![change(&name, OpKind::Create, None, &fields_of(limits::OP_BYTES))])
        .await;
    // The widest record, with a stamp for each field; and the stamps of removed fields, whose names
    // grow sixfold.
    let wide = (0..limits::RECORD_FIELDS).map(|n| format!("{n:085}"));
    let version =
        taken(running, 2, vec![stamped(&longest_key(1), OpKind::Create, None, wide, "0")]).await;
    let gone = (0..limits::REMOVED_STAMPS)
        .map(|n| format!("{n:03}{}", "\u{1}".repeat(limits::FIELD_NAME_BYTES - 3)));
    taken(running, 3, vec![stamped(&longest_key(1), OpKind::Update, Some(version), gone, "null")])
        .await;
    // The unit with the most changes and the longest keys. Each change has the longest possible
    // list of ops.
    let many = (0..limits::TRANSACTION_OPS).map(|n| UnitChange {
        ops: (0..20u8).map(|n| OpId::from_bytes([n; 16])).collect(),
        ..change(&longest_key(1_000 + n), OpKind::Create, None, r#"{"a":1}"#)
    });
    taken(running, 4, many.collect()).await;
    // The largest commit, made of large records: one more of them is too many.
    for n in 0..17 {
        let large = change(
            &format!("large/{n}"),
            OpKind::Create,
            None,
            &fields_of(limits::OP_BYTES - 1_000),
        );
        taken(running, 100 + n, vec![large]).await;
    }
    let touched = |n: u64| change(&format!("large/{n}"), OpKind::Update, Some(5 + n), r#"{"d":1}"#);
    too_large(running, (0..17).map(touched).collect()).await;
    taken(running, 5, (0..16).map(touched).collect()).await;
    // The largest commit, made of stamps: one more record is too many.
    let names = || (0..100).map(|n| format!("{n:021}"));
    let wide = |n: usize| stamped(&format!("wide/{n:04}"), OpKind::Create, None, names(), "0");
    let most = most_heads(&wide(0));
    too_large(running, (0..=most).map(wide).collect()).await;
    taken(running, 6, (0..most).map(wide).collect()).await;
    // As many entity types as allowed, and the longest list of tombstones.
    let types = limits::ENTITY_TYPES - 3;
    let named = |n: usize| format!("{}{n:04}/1", "t".repeat(limits::ENTITY_TYPE_BYTES - 4));
    let types_at = taken(
        running,
        7,
        (0..types).map(|n| change(&named(n), OpKind::Create, None, "{}")).collect(),
    )
    .await;
    taken(
        running,
        8,
        (0..types / 2).map(|n| change(&named(n), OpKind::Delete, Some(types_at), "")).collect(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_of_everything_that_is_accepted_is_read_by_a_new_device() {
    let running = start().await;
    fill(&running).await;
    let all = read_all(&running).await;
    assert!(all.len() > 2 * limits::TRANSACTION_OPS);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.fieldbook");
    let book = Book::create_new(&path, BookOptions::new("ann").unwrap()).unwrap();
    let report = book.sync(&remote(&running), &RunOptions::default()).await.unwrap();
    assert_eq!(report.stopped, Stopped::Idle, "{report:?}");
    held(&book, &all);
    book.close().unwrap();

    let book = Book::open(&path, BookOptions::new("ann").unwrap()).unwrap();
    held(&book, &all);
    assert!(book.audit().verify(|_| {}).unwrap().is_sound());
    assert!(book.audit().check_tables().unwrap().is_sound());
    // It can still be written, and the news is small.
    let key: RecordKey = longest_key(0).parse().unwrap();
    book.records().update(key, patch_of("b", 7.into())).unwrap();
    let report = book.sync(&remote(&running), &RunOptions::default()).await.unwrap();
    assert_eq!((report.units_acked, report.stopped), (1, Stopped::Idle));

    // Others changed the largest commit in the meantime, in the fields that were edited here too.
    // One answer has records that made units stale, and that commit. Every edit meets another one.
    let version =
        |n: u64| all[&format!("large/{n}").parse::<RecordKey>().unwrap()].version.number();
    for n in 0..16 {
        book.records()
            .update(format!("large/{n}").parse().unwrap(), patch_of("d", "mine".into()))
            .unwrap();
    }
    let theirs = |n: u64| {
        change(&format!("large/{n}"), OpKind::Update, Some(version(n)), r#"{"d":"theirs"}"#)
    };
    taken(&running, 9, (0..16).map(theirs).collect()).await;
    let report = book.sync(&remote(&running), &RunOptions::default()).await.unwrap();
    assert_eq!((report.conflicts, report.stopped), (16, Stopped::Idle));
    held(&book, &read_all(&running).await);
    assert!(book.audit().verify(|_| {}).unwrap().is_sound());
}

fn patch_of(name: &str, value: serde_json::Value) -> Fields {
    let mut patch = Fields::new();
    patch.set(name, value);
    patch
}
