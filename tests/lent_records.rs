//! Four ways to read the same record: copied, listed, lent, and copied together with others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::ops::ControlFlow;

use common::{Server, TestClock, book, fields, key, sync};
use fieldbook::record::RecordRef;
use fieldbook::{Book, EntityType, Record, RecordId};
use serde_json::json;

/// The facts of a record that the tests compare, in whatever way the record was read.
type Seen = (String, String, Option<u64>, usize, bool);

fn of_record(record: &Record) -> Seen {
    let version = record.version.map(|version| version.number());
    (
        record.key.to_string(),
        record.json.as_str().to_owned(),
        version,
        record.pending,
        record.synced_at.is_some(),
    )
}

fn of_lent(record: RecordRef<'_>) -> Seen {
    let version = record.version.map(|version| version.number());
    (
        record.key().to_string(),
        record.json.to_owned(),
        version,
        record.pending,
        record.synced_at.is_some(),
    )
}

/// Makes a book with records that wait, that are confirmed, that are both, that are deleted on the
/// device, and that are of another entity type.
fn mixed() -> Book {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    for id in ["lead/1", "lead/2", "lead/3", "lead/4", "lea/9", "leads/0"] {
        ann.records().create(key(id), fields(json!({"name": "Zoë", "id": id}))).unwrap();
    }
    clock.advance(10_000);
    sync(&ann, &server);
    ann.records().update(key("lead/2"), fields(json!({"name": null, "more": [1, "\n"]}))).unwrap();
    ann.records().delete(key("lead/3")).unwrap();
    ann.records().create(key("lead/5"), fields(json!({}))).unwrap();
    ann
}

#[test]
fn every_way_to_read_tells_the_same() {
    let (ann, lead) = (mixed(), EntityType::parse("lead").unwrap());
    let listed: Vec<_> = ann.records().list(&lead, None, 10).unwrap().iter().map(of_lent).collect();
    let ids: Vec<_> = listed.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(ids, ["lead/1", "lead/2", "lead/4", "lead/5"]);
    assert_eq!(
        listed[1],
        (
            "lead/2".to_owned(),
            r#"{"id":"lead/2","more":[1,"\n"]}"#.to_owned(),
            listed[1].2,
            1,
            true
        )
    );
    assert_eq!(listed[3], ("lead/5".to_owned(), "{}".to_owned(), None, 1, false));

    let page = ann.records().list(&lead, None, 10).unwrap();
    assert_eq!((page.len(), page.is_empty(), &page.next), (4, false, &None));
    assert_eq!(page.iter().map(of_lent).collect::<Vec<_>>(), listed);
    assert_eq!(page.get(1).map(of_lent).as_ref(), listed.get(1));
    assert_eq!(page.get(4), None);

    let mut scanned = Vec::new();
    ann.records()
        .scan(&lead, None, |record| {
            scanned.push(of_lent(record));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(scanned, listed);

    for seen in &listed {
        let key = key(&seen.0);
        assert_eq!(ann.records().get(&key).unwrap().as_ref().map(of_record).as_ref(), Some(seen));
        assert_eq!(ann.records().with(&key, of_lent).unwrap().as_ref(), Some(seen));
    }
    for gone in ["lead/3", "lead/6"] {
        assert_eq!(ann.records().with(&key(gone), of_lent).unwrap(), None);
        assert_eq!(ann.records().get(&key(gone)).unwrap(), None);
    }
}

#[test]
fn a_list_and_a_scan_go_on_behind_any_id() {
    let (ann, lead) = (mixed(), EntityType::parse("lead").unwrap());
    let whole: Vec<_> =
        ann.records().list(&lead, None, usize::MAX).unwrap().iter().map(of_lent).collect();
    for after in [None, Some("0"), Some("2"), Some("3"), Some("5"), Some("x")] {
        let text = after.map(|id| format!("lead/{id}"));
        let after = after.map(|id| RecordId::parse(id).unwrap());
        for limit in 0..6 {
            let page = ann.records().list(&lead, after.as_ref(), limit).unwrap();
            let mut scanned = Vec::new();
            ann.records()
                .scan(&lead, after.as_ref(), |record| {
                    scanned.push(of_lent(record));
                    if scanned.len() < limit {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                })
                .unwrap();
            let behind: Vec<_> = whole
                .iter()
                .filter(|(id, ..)| text.as_ref().is_none_or(|text| id > text))
                .cloned()
                .collect();
            assert_eq!(
                scanned,
                behind[..behind.len().min(limit.max(1))],
                "it breaks off with the record that was enough"
            );
            assert_eq!(
                page.iter().map(of_lent).collect::<Vec<_>>(),
                behind[..behind.len().min(limit)]
            );
            let last = page
                .len()
                .checked_sub(1)
                .filter(|_| page.len() == limit)
                .and_then(|last| page.get(last));
            assert_eq!(page.next, last.map(|record| record.key().id));
        }
    }
}

#[test]
fn a_type_that_does_not_fit_says_of_which_record() {
    let ann = mixed();
    let error = ann.records().with(&key("lead/1"), |record| record.to::<Vec<u8>>()).unwrap();
    assert!(error.unwrap().unwrap_err().to_string().starts_with("lead/1 does not fit"));
}
