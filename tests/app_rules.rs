//! An app's own rule for conflicts. Its decision is recorded, so nothing asks the rule again.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Server, TestClock, assert_sound, fields, key, options, sync, view};
use fieldbook::audit::rebuild_book;
use fieldbook::schema::{ConflictFunction, MergeDecision};
use fieldbook::{Book, EntityRules, EntityType, Schema};
use serde_json::json;

#[test]
fn what_an_apps_own_rule_decided_is_folded_again_without_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let sum = ConflictFunction::new("sum_of_changes", move |meeting| {
        counted.fetch_add(1, Ordering::SeqCst);
        let number = |value: &serde_json::Value| value.as_i64().unwrap_or(0);
        MergeDecision::Merged(json!(
            number(meeting.local) + number(meeting.remote) - number(meeting.base)
        ))
    });
    let rules = EntityRules {
        field_functions: [("stock".to_owned(), sum)].into(),
        undo_window: std::time::Duration::ZERO,
        ..EntityRules::default()
    };
    let schema = Schema::closed().declare(EntityType::parse("item").unwrap(), rules.clone());
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    let server = Server::new(&clock);
    let path = folder.path().join("a.book");
    let ann = Book::create_new(&path, options("ann", &clock).schema(schema.clone())).unwrap();
    let ben = common::book("ben", &clock);
    ann.records().create(key("item/1"), fields(json!({"stock": 10}))).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    ann.records().update(key("item/1"), fields(json!({"stock": 7}))).unwrap();
    ben.records().update(key("item/1"), fields(json!({"stock": 15}))).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    assert_eq!(server.record("item/1"), Some(json!({"stock": 12})));
    assert_eq!(view(&ann, "item/1"), Some(json!({"stock": 12})));
    let conflict = ann.conflicts().all().unwrap().pop().unwrap();
    assert_eq!(conflict.function_of(Some("stock")), Some("sum_of_changes"));
    let said = ann.explain(&key("item/1")).unwrap().to_string();
    assert!(said.contains("the app's rule \"sum_of_changes\""), "{said}");

    let times = asked.load(Ordering::SeqCst);
    assert!(times > 0);
    assert_sound(&ann);
    let before = ann.snapshot().unwrap().dump().unwrap();
    drop(ann.snapshot());
    ann.close().unwrap();
    // A program without the app's rules folds the log to the same tables.
    let without = EntityRules { field_functions: Default::default(), ..rules };
    let other = Schema::closed().declare(EntityType::parse("item").unwrap(), without);
    rebuild_book(&path, &options("ann", &clock).schema(other), |_, _| {}).unwrap();
    let ann = Book::open(&path, options("ann", &clock).schema(schema)).unwrap();
    ann.audit().fold_lazy().unwrap();
    assert_eq!(ann.snapshot().unwrap().dump().unwrap(), before);
    assert_eq!(asked.load(Ordering::SeqCst), times, "folding asks no rule");
}
