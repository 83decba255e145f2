//! The answers of a wrong, broken or hostile server must not harm a device. Each row makes one
//! member of the answers of three runs hostile. After that the book opens, verifies and accepts
//! writes, a sound server drains it, and the numbers of exchanges and entries are small.
//!
//! The first rows were faults. Some answers kept a device busy for ever with an entry for each
//! exchange. Another froze a record. After another, every write panicked. Another was stored and
//! could not be read again. In another, one invalid record stopped the reading of all others.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Server, TestClock, assert_sound, fields, key, options, sync, sync_with, view};
use fieldbook::audit::entry::Receipt;
use fieldbook::audit::{Hash, Hlc, Seq};
use fieldbook::host::WallTime;
use fieldbook::record::{FieldsJson, OpId, UnitId, Version};
use fieldbook::sync::protocol::FieldWrites;
use fieldbook::sync::protocol::{
    Change, ExchangeAnswer, ExchangeRequest, Failure, Outcome, UnitOutcome,
};
use fieldbook::sync::{Cursor, FnRemote, ServerEpoch, ServerId, Stopped, TenantId};
use fieldbook::{Book, EntityType, SyncState, limits};
use serde_json::{Value, json};

/// A function that makes a sound answer hostile. Its last argument is the number of earlier
/// exchanges.
type Lie = Box<
    dyn Fn(&ExchangeRequest, ExchangeAnswer, u32) -> Result<ExchangeAnswer, Failure> + Send + Sync,
>;

/// The way in which a book continues after the hostile server.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// The book continues without a person.
    GoesOn,
    /// The book continues after a person accepted the sound server as set back: a device cannot
    /// check a cursor, whose bytes are opaque.
    WantsAPerson,
}

struct Row {
    name: &'static str,
    lie: Lie,
    then: Then,
}

fn row(
    name: &'static str,
    lie: impl Fn(&ExchangeRequest, &mut ExchangeAnswer, u32) + Send + Sync + 'static,
) -> Row {
    let lie = move |request: &ExchangeRequest, mut answer: ExchangeAnswer, number| {
        lie(request, &mut answer, number);
        Ok(answer)
    };
    Row { name, lie: Box::new(lie), then: Then::GoesOn }
}

/// Makes a row whose answer does not fit the types of the program. It is written as JSON and read
/// as a remote reads an answer.
fn text(
    name: &'static str,
    lie: impl Fn(&ExchangeRequest, &mut Value) + Send + Sync + 'static,
) -> Row {
    let lie = move |request: &ExchangeRequest, answer: ExchangeAnswer, _| {
        let mut json = serde_json::to_value(&answer).unwrap();
        lie(request, &mut json);
        ExchangeAnswer::read(&serde_json::to_vec(&json).unwrap())
            .map_err(|_| Failure::Misbehaved { code: "not_an_answer" })
    };
    Row { name, lie: Box::new(lie), then: Then::GoesOn }
}

fn wants_a_person(row: Row) -> Row {
    Row { then: Then::WantsAPerson, ..row }
}

fn lead() -> EntityType {
    EntityType::parse("lead").unwrap()
}

fn cursor(number: u64) -> Cursor {
    Cursor::new(number.to_be_bytes().to_vec()).unwrap()
}

fn change(record: &str, version: u64) -> Change {
    Change {
        key: key(record),
        version: Version::new(version),
        edited_at: Hlc::from_bits(1 << 40),
        op: OpId::from_bytes([9; 16]),
        by: None,
        older: Vec::new(),
        floor: None,
        deleted: false,
        partial: false,
        fields: Some(FieldsJson::parse(r#"{"theirs":1}"#).unwrap()),
    }
}

fn written(edited_at: u64, fields: Vec<String>) -> FieldWrites {
    FieldWrites { edited_at: Hlc::from_bits(edited_at), op: OpId::from_bytes([8; 16]), fields }
}

fn receipt(seq: u64) -> Receipt {
    Receipt { seq: Seq::new(seq), hash: Hash::from_bytes([5; 32]) }
}

/// Returns a record that the sound server does not have.
fn odd(key: &str) -> Value {
    json!({"key": key, "version": 2, "edited_at": 1u64 << 40, "op": "018f3a2b-7000-7000-8000-0000000000c1",
           "fields": {"a": 1}})
}

fn with(mut row: Value, member: &str, value: Value) -> Value {
    row[member] = value;
    row
}

fn add(answer: &mut Value, row: Value) {
    match answer.get_mut("changes").and_then(Value::as_array_mut) {
        Some(changes) => changes.push(row),
        None => answer["changes"] = json!([row]),
    }
}

fn first_versions(
    answer: &mut ExchangeAnswer,
) -> Option<&mut BTreeMap<fieldbook::RecordKey, Version>> {
    answer.outcomes.iter_mut().find_map(|told| match &mut told.outcome {
        Outcome::Applied { versions, .. } | Outcome::Duplicate { versions, .. } => Some(versions),
        _ => None,
    })
}

fn conversations() -> Vec<Row> {
    vec![
        row("more, and nothing", |_, a, _| {
            (a.changes, a.cursors, a.more) = (Vec::new(), BTreeMap::new(), true);
        }),
        wants_a_person(row("more, and a new cursor each time", |_, a, number| {
            a.changes.clear();
            a.cursors.insert(EntityType::parse("note").unwrap(), cursor(u64::from(number)));
            a.more = true;
        })),
        row("more, and cursors in a circle", |_, a, number| {
            a.cursors.insert(EntityType::parse("note").unwrap(), cursor(u64::from(number % 2)));
            a.more = true;
        }),
        wants_a_person(row("more, and the same record at each new cursor", |_, a, number| {
            a.changes = vec![change("note/1", 1)];
            a.cursors.insert(EntityType::parse("note").unwrap(), cursor(u64::from(number)));
            a.more = true;
        })),
        row("more, and the same record without a cursor", |_, a, _| {
            a.changes = vec![change("note/1", 1)];
            a.cursors.clear();
            a.more = true;
        }),
        row("forked in each answer, of the entry before", |request, a, _| {
            let head = request.head.as_ref().map_or(1, |head| head.seq.number());
            a.forked = Some(receipt(head.saturating_sub(1)));
            (a.outcomes, a.changes, a.cursors) = Default::default();
        }),
        row("forked in each answer, of an entry that is not there yet", |request, a, _| {
            let head = request.head.as_ref().map_or(1, |head| head.seq.number());
            a.forked = Some(receipt(head + 1_000));
            (a.outcomes, a.changes, a.cursors) = Default::default();
        }),
        row("forked at the end of numbers", |_, a, _| a.forked = Some(receipt(u64::MAX))),
        row("forked at zero", |_, a, _| a.forked = Some(receipt(0))),
        wants_a_person(row("a cursor at the end of numbers", |_, a, _| {
            a.cursors.insert(lead(), cursor(u64::MAX));
        })),
        row("10,001 cursors", |_, a, _| {
            let names = (0..=limits::ANSWER_CURSORS).map(|number| format!("type{number}"));
            a.cursors.extend(names.map(|name| (EntityType::parse(&name).unwrap(), cursor(1))));
        }),
    ]
}

fn numbers() -> Vec<Row> {
    let version = |record: &'static str, version: u64| {
        move |_: &ExchangeRequest, a: &mut ExchangeAnswer, _: u32| {
            a.changes.push(change(record, version))
        }
    };
    vec![
        row("a version of 2^64-1", version("lead/1", u64::MAX)),
        row("a version of 2^63", version("lead/1", 1 << 63)),
        row("a version of 2^53", version("lead/1", 1 << 53)),
        row("a version that leaps", version("lead/1", 1 << 50)),
        row("a living record of version 0", version("lead/9", 0)),
        row("a version of 2^64-1 for what was sent", |_, a, _| {
            if let Some(versions) = first_versions(a) {
                versions.values_mut().for_each(|version| *version = Version::new(u64::MAX));
            }
        }),
        row("a version of 0 for what was sent", |_, a, _| {
            if let Some(versions) = first_versions(a) {
                versions.values_mut().for_each(|version| *version = Version::new(0));
            }
        }),
        row("a version of 2^64-1 beside an outcome", |_, a, _| {
            for told in &mut a.outcomes {
                if let Outcome::Applied { current, .. } = &mut told.outcome {
                    current.push(change("lead/1", u64::MAX));
                }
            }
        }),
        row("a server's time of 2^63-1 with a stamp of 2^64-1", |_, a, _| {
            a.server_time = WallTime::from_milliseconds(i64::MAX);
            a.changes.push(Change { edited_at: Hlc::from_bits(u64::MAX), ..change("lead/9", 1) });
        }),
        row("a server's time of 2^63-1", |_, a, _| {
            a.server_time = WallTime::from_milliseconds(i64::MAX)
        }),
        row("a server's time of -2^63", |_, a, _| {
            a.server_time = WallTime::from_milliseconds(i64::MIN)
        }),
        row("a server's time in 2199", |_, a, _| {
            a.server_time = WallTime::from_milliseconds(limits::LATEST_MILLISECONDS);
        }),
        row("a server's time of 0", |_, a, _| a.server_time = WallTime::from_milliseconds(0)),
        row("a stamp of 2^64-1", |_, a, _| {
            a.changes.push(Change { edited_at: Hlc::from_bits(u64::MAX), ..change("lead/9", 1) });
        }),
        row("an older stamp of 2^64-1", |_, a, _| {
            let older = vec![written(u64::MAX, vec!["theirs".to_owned()])];
            a.changes.push(Change { older, ..change("lead/9", 1) });
        }),
        row("a receipt for the end of numbers", |_, a, _| a.receipt = Some(receipt(u64::MAX))),
        row("a receipt for entry 1 under another hash", |_, a, _| a.receipt = Some(receipt(1))),
        row("a receipt for the claimed entry under another hash", |request, a, _| {
            a.receipt = request.head.as_ref().map(|head| receipt(head.seq.number()));
        }),
    ]
}

fn sizes() -> Vec<Row> {
    vec![
        row("100,001 records", |_, a, _| {
            a.changes = vec![change("lead/9", 1); limits::ANSWER_CHANGES + 1]
        }),
        row("a name of an older field of 5 MiB", |_, a, _| {
            let older = vec![written(0, vec!["n".repeat(5 * 1024 * 1024)])];
            a.changes.push(Change { older, ..change("note/9", 1) });
        }),
        row("a hundred thousand names of older fields, thrice", |_, a, _| {
            for record in ["note/7", "note/8", "note/9"] {
                let older =
                    vec![written(0, (0..100_000u32).map(|number| format!("{number:x}")).collect())];
                a.changes.push(Change { older, ..change(record, 1) });
            }
        }),
        wants_a_person(row("parts of a record without end", |_, a, number| {
            let fields = format!(r#"{{"f{number}":"{}"}}"#, "x".repeat(900_000));
            let fields = Some(FieldsJson::parse(&fields).unwrap());
            a.changes.push(Change {
                partial: true,
                fields,
                ..change("note/9", u64::from(number) + 1)
            });
            a.cursors.insert(EntityType::parse("note").unwrap(), cursor(u64::from(number)));
            a.more = number < 20;
        })),
        row("thirty parts of one record at once", |_, a, _| {
            a.changes.extend((0..30u32).map(|number| {
                let fields = format!(r#"{{"f{number}":"{}"}}"#, "x".repeat(900_000));
                let fields = Some(FieldsJson::parse(&fields).unwrap());
                Change { partial: true, fields, ..change("note/9", u64::from(number) + 1) }
            }));
        }),
        row(
            "a message of 1 MiB and a code of 10 kB, not before the end of time",
            |_, a, number| {
                for told in a.outcomes.iter_mut().filter(|_| number == 0) {
                    told.outcome = Outcome::Transient {
                        code: "c".repeat(10_000),
                        message: "m".repeat(1024 * 1024),
                        retry_after_milliseconds: Some(u64::MAX),
                    };
                }
            },
        ),
    ]
}

fn outcomes() -> Vec<Row> {
    vec![
        row("an outcome of a unit that was never sent", |_, a, _| {
            let outcome = Outcome::Duplicate { versions: BTreeMap::new(), current: Vec::new() };
            a.outcomes.push(UnitOutcome { unit: UnitId::from_bytes([6; 16]), outcome });
        }),
        row("each outcome twice", |_, a, _| a.outcomes.extend(a.outcomes.clone())),
        row("accepted and refused in one", |_, a, _| {
            let refused = a.outcomes.iter().map(|told| UnitOutcome {
                unit: told.unit,
                outcome: Outcome::Rejected { code: "no".to_owned(), message: String::new() },
            });
            let refused: Vec<_> = refused.collect();
            a.outcomes.extend(refused);
        }),
        row("accepted, but no version", |_, a, _| {
            if let Some(versions) = first_versions(a) {
                versions.clear();
            }
        }),
        row("accepted, but the versions of other records", |_, a, _| {
            if let Some(versions) = first_versions(a) {
                *versions = BTreeMap::from([(key("other/1"), Version::new(3))]);
            }
        }),
        row("no entity type that the unit touches is known", |_, a, _| {
            for told in &mut a.outcomes {
                let entity = EntityType::parse("bogus").unwrap();
                told.outcome = Outcome::Unsupported { entity, code: "unknown".to_owned() };
            }
        }),
        row("no outcome at all, and more", |_, a, _| {
            a.outcomes.clear();
            a.cursors.clear();
            a.more = true;
        }),
        text("an outcome of an unknown class", |_, a| {
            for told in a["outcomes"].as_array_mut().into_iter().flatten() {
                told["outcome"] = json!("perhaps");
            }
        }),
        text("stale, and the record that it shows does not read", |_, a| {
            if let Some(outcomes) = a["outcomes"].as_array_mut() {
                outcomes.clear();
            }
            add(a, odd("Lead/1"));
        }),
        row("the same record twice, in falling versions", |_, a, _| {
            a.changes.extend([change("note/9", 9), change("note/9", 8), change("note/9", 9)]);
        }),
    ]
}

fn names() -> Vec<Row> {
    let page = |name, row: Value| text(name, move |_, a| add(a, row.clone()));
    let long_name = "n".repeat(limits::FIELD_NAME_BYTES + 1);
    vec![
        page("an entity type with capitals", odd("OrderLine/7")),
        page("an entity type of 64 letters", odd(&format!("{}/7", "a".repeat(64)))),
        page("no entity type", odd("/7")),
        page("no record id", odd("lead/")),
        page("a record id of 129 bytes", odd(&format!("lead/{}", "x".repeat(129)))),
        page("a control character in a record id", odd("lead/a\u{1b}[2Jb")),
        page("a bidi override in an entity type", odd("le\u{202e}ad/1")),
        page("a key that is a number", with(odd("lead/8"), "key", json!(7))),
        page("a version that is a text", with(odd("lead/8"), "version", json!("2"))),
        page("a negative version", with(odd("lead/8"), "version", json!(-2))),
        page("a stamp that is a fraction", with(odd("lead/8"), "edited_at", json!(1.5))),
        page("an op id that is none", with(odd("lead/8"), "op", json!("me"))),
        page("a field's name of 256 bytes", with(odd("lead/8"), "fields", json!({long_name: 1}))),
        page(
            "fields of 2 MiB",
            with(odd("lead/8"), "fields", json!({"a": "x".repeat(2 * 1024 * 1024)})),
        ),
        page("fields that are a list", with(odd("lead/8"), "fields", json!([1]))),
        page("older stamps that are a text", with(odd("lead/8"), "older", json!("a"))),
        page("a record that is null", Value::Null),
        text("a cursor of an entity type with capitals, and more", |_, a| {
            a["cursors"]["OrderLine"] = json!("AAE");
            a["more"] = json!(true);
        }),
        text("a hundred cursors of entity types with capitals", |_, a| {
            for number in 0..100 {
                a["cursors"][format!("OrderLine{number}")] = json!("AAE");
            }
        }),
        text("a cursor that is none", |_, a| a["cursors"]["note"] = json!("%%")),
        text("an entity type of 300 bytes among the cursors", |_, a| {
            a["cursors"]["a".repeat(300)] = json!("AAE");
        }),
    ]
}

fn identities() -> Vec<Row> {
    vec![
        row("another server", |_, a, _| a.server = ServerId::from_bytes([1; 16])),
        row("another server each time", |_, a, number| {
            a.server = ServerId::from_bytes([u8::try_from(number % 200).unwrap() + 10; 16]);
        }),
        row("another epoch of the server", |_, a, _| {
            a.server_epoch = ServerEpoch::from_bytes([1; 16])
        }),
        row("another epoch of the server each time", |_, a, number| {
            a.server_epoch =
                ServerEpoch::from_bytes([u8::try_from(number % 200).unwrap() + 10; 16]);
        }),
        row("another tenant", |_, a, _| a.tenant = Some(TenantId::from_bytes([1; 16]))),
        row("another tenant each time", |_, a, number| {
            a.tenant = Some(TenantId::from_bytes([u8::try_from(number % 200).unwrap() + 10; 16]));
        }),
    ]
}

fn rows() -> Vec<Row> {
    [conversations(), numbers(), sizes(), outcomes(), names(), identities()]
        .into_iter()
        .flatten()
        .collect()
}

const RUNS: u32 = 3;
/// The most exchanges of one run.
const EXCHANGES: u32 = 24;
/// The most entries of all runs.
const ENTRIES: u64 = 64;

fn open(path: &Path, clock: &Arc<TestClock>) -> Book {
    Book::open_or_create(path, options("ann", clock)).unwrap()
}

fn treat(row: Row) {
    let clock = TestClock::starting();
    let mut server = Server::new(&clock);
    {
        let mut authority = server.authority.lock().unwrap();
        *authority = authority.clone().of_tenant(TenantId::from_bytes([7; 16]));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let ann = open(&path, &clock);
    ann.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    sync(&ann, &server);
    let ben = common::book("ben", &clock);
    ben.records().create(key("lead/2"), fields(json!({"b": 1}))).unwrap();
    sync(&ben, &server);
    clock.advance(1_000);
    ann.records().update(key("lead/1"), fields(json!({"a": 2}))).unwrap();
    ann.records().create(key("lead/3"), fields(json!({"c": 1}))).unwrap();

    let before = ann.audit().head().unwrap().unwrap().seq;
    let (lies, sound) = (Arc::new(AtomicU32::new(0)), server.clone());
    let (told, lie, name) = (Arc::clone(&lies), row.lie, row.name);
    let hostile = FnRemote::new(move |request: &ExchangeRequest| {
        let answer = sound.try_answer(request)?;
        Ok(lie(request, answer, told.fetch_add(1, Ordering::SeqCst))?)
    });
    for _ in 0..RUNS {
        let already = lies.load(Ordering::SeqCst);
        sync_with(&ann, &hostile);
        let exchanges = lies.load(Ordering::SeqCst) - already;
        assert!(exchanges <= EXCHANGES, "{name}: {exchanges} exchanges in one run");
        clock.advance(10_000);
    }
    let entries = ann.audit().head().unwrap().unwrap().seq.since(before);
    assert!(entries <= ENTRIES, "{name}: {entries} entries");
    clock.advance(60_000);
    ann.records()
        .update(key("lead/1"), fields(json!({"d": 1})))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_sound(&ann);
    ann.close().unwrap();
    let ann = open(&path, &clock);
    server.requests = Arc::default();
    for round in 0..4 {
        clock.advance(2 * 60 * 60 * 1_000);
        sync(&ann, &server);
        if round == 0 && row.then == Then::WantsAPerson {
            assert_eq!(ann.status().state, SyncState::NeedsServerConfirmed, "{name}");
            ann.servers().accept_only().unwrap();
        }
    }
    assert_eq!((ann.status().pending, ann.status().state), (0, SyncState::Idle), "{name}");
    for record in ["lead/1", "lead/2", "lead/3"] {
        assert!(server.record(record).is_some(), "{name}: {record}");
        assert_eq!(view(&ann, record), server.record(record), "{name}: {record}");
    }
    assert_eq!(server.record("lead/1"), Some(json!({"a": 2, "d": 1})), "{name}");
    assert_sound(&ann);
}

#[test]
fn a_hostile_conversation_ends() {
    conversations().into_iter().for_each(treat);
}

#[test]
fn hostile_numbers_are_not_taken() {
    numbers().into_iter().for_each(treat);
}

#[test]
fn hostile_sizes_are_bounded() {
    sizes().into_iter().for_each(treat);
}

#[test]
fn hostile_outcomes_settle_nothing() {
    outcomes().into_iter().for_each(treat);
}

#[test]
fn names_that_cannot_be_held_keep_nobody_from_reading() {
    names().into_iter().for_each(treat);
}

#[test]
fn another_one_in_place_of_the_server_is_given_nothing() {
    identities().into_iter().for_each(treat);
}

#[test]
fn the_promises_count_the_rows() {
    let promises = include_str!("../docs/promises.md");
    let counted = format!("{} hostile answers", rows().len());
    assert!(promises.contains(&counted), "the promises do not say: {counted}");
}

/// After an answer with a `server_time` of 2^63-1 and a stamp of 2^64-1, every write panicked from
/// the next minute on.
#[test]
fn an_hour_after_the_end_of_time_the_log_still_grows() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let ann = common::book("ann", &clock);
    sync(&ann, &server);
    let sound = server.clone();
    let hostile = FnRemote::new(move |request: &ExchangeRequest| {
        let mut answer = sound.try_answer(request)?;
        answer.server_time = WallTime::from_milliseconds(i64::MAX);
        answer.changes.push(Change { edited_at: Hlc::from_bits(u64::MAX), ..change("lead/1", 1) });
        Ok(answer)
    });
    let report = sync_with(&ann, &hostile);
    assert_eq!(report.stopped, Stopped::Failed(Failure::Misbehaved { code: "server_time" }));
    ann.records().create(key("lead/2"), fields(json!({"minute": null}))).unwrap();
    for minute in 0..60 {
        clock.advance(60_000);
        ann.records().replace(key("lead/2"), fields(json!({"minute": minute}))).unwrap();
    }
    assert!(ann.audit().head().unwrap().unwrap().hlc.is_plausible());
    assert_sound(&ann);
}

/// A server sends a record that this program cannot hold. The record is recorded once, and all
/// others are read.
#[test]
fn what_cannot_be_held_is_set_aside_once_and_named() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let ben = common::book("ben", &clock);
    ben.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    sync(&ben, &server);
    let ann = common::book("ann", &clock);
    let sound = server.clone();
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let richer = FnRemote::new(move |request: &ExchangeRequest| {
        seen.lock().unwrap().push(serde_json::to_value(request).unwrap()["cursors"].clone());
        let mut json = serde_json::to_value(sound.try_answer(request)?).unwrap();
        add(&mut json, odd("OrderLine/7"));
        json["cursors"]["OrderLine"] = json!("AAE");
        Ok(ExchangeAnswer::read(&serde_json::to_vec(&json).unwrap()).unwrap())
    });
    let report = sync_with(&ann, &richer);
    assert_eq!((report.changes, report.set_aside, report.stopped), (1, 1, Stopped::Idle));
    assert_eq!(view(&ann, "lead/1"), Some(json!({"a": 1})));
    let head = ann.audit().head().unwrap();
    let report = sync_with(&ann, &richer);
    assert_eq!(
        (report.set_aside, ann.audit().head().unwrap()),
        (0, head),
        "the same again is no news"
    );
    assert_eq!(
        asked.lock().unwrap().last().unwrap()["OrderLine"],
        "AAE",
        "it is read on from there"
    );
    let log = ann.audit().entries(Seq::new(1), usize::MAX).unwrap();
    let named = log.iter().flat_map(|entry| &entry.items).filter_map(|item| item.bytes());
    assert_eq!(named.filter(|bytes| *bytes == b"OrderLine/7").count(), 1, "its name is on record");
    assert_sound(&ann);
}
