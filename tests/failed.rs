//! Failed items: one call has what no sync moves, with its content, the reason, what waits for it
//! and what a person can do.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::{Server, TestClock, assert_sound, book, fields, key, options, sync, sync_with};
use fieldbook::limits::FAILED_LOOKED_AT;
use fieldbook::record::OpPlace;
use fieldbook::schema::{Policy, Reference};
use fieldbook::sync::protocol::Unit;
use fieldbook::sync::{Awaited, FailedOp, OpState, UserAction};
use fieldbook::{Actor, Book, EntityRules, EntityType, Mutation, Remote, Schema};
use serde_json::{Value, json};

fn entity(name: &str) -> EntityType {
    EntityType::parse(name).unwrap()
}

fn actor(name: &str) -> Actor {
    Actor::parse(name).unwrap()
}

/// Returns a remote whose server refuses every change of this record.
fn refusing(server: &Server, id: &'static str) -> impl Remote + use<> {
    let is_bad = move |unit: &Unit| unit.changes.iter().any(|change| change.key.to_string() == id);
    server.refusing_where(is_bad, "23514", "no phone")
}

/// Notes refer to leads, and a lead needs a name.
fn schema() -> Schema {
    let leads = EntityRules {
        field_policies: [("stage".into(), Policy::Manual)].into(),
        ..EntityRules::default()
    };
    let leads = leads.validate(|outgoing| match outgoing.image {
        Some(image) if !image.has("name") => Err("a lead needs a name".into()),
        _ => Ok(()),
    });
    let references = vec![Reference { field: "lead".into(), entity: entity("lead") }];
    let notes = EntityRules { references, ..EntityRules::default() };
    Schema::closed().declare(entity("lead"), leads).declare(entity("note"), notes)
}

fn declared(name: &str, clock: &std::sync::Arc<TestClock>) -> Book {
    let options = options(name, clock).schema(schema());
    Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap()
}

fn all(book: &Book) -> Vec<FailedOp> {
    let page = book.failed().page(None, 100).unwrap();
    assert_eq!(page.next, None);
    page.items
}

fn keys(items: &[FailedOp]) -> Vec<String> {
    items.iter().map(|item| item.key.to_string()).collect()
}

#[test]
fn a_refused_creation_is_listed_with_its_content_and_what_waits_for_it() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let ann = declared("ann", &clock);
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    ann.records().create(key("lead/2"), fields(json!({"name": "Bo"}))).unwrap();
    sync_with(&ann, &refusing(&server, "lead/1"));
    ann.records().update(key("lead/1"), fields(json!({"name": "Anna"}))).unwrap();
    ann.records().create(key("note/1"), fields(json!({"lead": "1", "text": "x"}))).unwrap();
    ann.records().create(key("note/2"), fields(json!({"lead": "2", "text": "y"}))).unwrap();
    let items = all(&ann);
    assert_eq!(keys(&items), ["lead/1"], "what depends on it has not failed by itself");
    let item = &items[0];
    assert_eq!(item.fields.as_ref().unwrap().as_str(), r#"{"name":"Ann"}"#);
    assert!(matches!(&item.op.state, OpState::DeadLettered { code, message, .. }
        if code == "23514" && message == "no phone"));
    assert_eq!(item.op.actions, [UserAction::Retry, UserAction::Correct, UserAction::Discard]);
    assert_eq!(item.op.awaits, Awaited::Person);
    let waiting: Vec<_> = item.dependants.iter().map(|it| it.key.to_string()).collect();
    assert_eq!((waiting, item.more_dependants), (vec!["lead/1".into(), "note/1".into()], false));
    // What is listed can be acted on as it is listed.
    ann.dead_letters().retry(vec![item.op.op]).unwrap();
    assert_eq!(all(&ann), []);
    sync(&ann, &server);
    assert_eq!(server.record("note/1"), Some(json!({"lead": "1", "text": "x"})));
    assert_sound(&ann);
}

#[test]
fn what_is_held_for_a_person_and_what_met_a_conflict_are_listed_in_their_order() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, ben) = (declared("ann", &clock), declared("ben", &clock));
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann", "stage": "new"}))).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    ben.records().update(key("lead/1"), fields(json!({"stage": "won"}))).unwrap();
    sync(&ben, &server);
    ann.records().create(key("lead/2"), fields(json!({"town": "x"}))).unwrap();
    ann.records().update(key("lead/1"), fields(json!({"stage": "lost"}))).unwrap();
    ann.records().create(key("lead/3"), fields(json!({"name": "Cleo"}))).unwrap();
    assert_eq!(keys(&all(&ann)), ["lead/2"], "the rest only waits for the next sync");
    sync(&ann, &server);
    let items = all(&ann);
    assert_eq!(keys(&items), ["lead/2", "lead/1"]);
    assert_eq!(items[0].op.actions, [UserAction::Discard]);
    assert_eq!(items[1].op.actions, [UserAction::Choose]);
    assert!(items[0].op.in_words().contains("a lead needs a name"), "{}", items[0].op.in_words());
    assert_eq!(items[1].fields.as_ref().unwrap().as_str(), r#"{"stage":"lost"}"#);
    let data: Value = serde_json::to_value(&items[1]).unwrap();
    assert_eq!(data["key"], json!("lead/1"));
    assert_eq!(data["state"]["state"], json!("in_conflict"));
    assert_eq!(data["fields"], json!({"stage": "lost"}));
    // A correction of the held one ends it, and a deletion has no content.
    ann.records().delete(key("lead/2")).unwrap();
    assert_eq!(keys(&all(&ann)), ["lead/1"]);
}

#[test]
fn the_ops_of_another_user_are_listed_apart() {
    let clock = TestClock::starting();
    let ann = book("ann", &clock);
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    ann.act_as(actor("ben"));
    ann.records().update(key("lead/1"), fields(json!({"name": "by Ben"}))).unwrap();
    ann.records().create(key("lead/2"), fields(json!({"name": "Bo"}))).unwrap();
    let items = all(&ann);
    assert_eq!(keys(&items), ["lead/1"]);
    assert_eq!(items[0].op.actor, actor("ann"));
    assert_eq!(items[0].op.awaits, Awaited::Actor { actor: actor("ann") });
    assert_eq!(items[0].dependants.len(), 1, "Ben's own change of it comes after");
    let of = |name| ann.failed().of(actor(name)).page(None, 100).unwrap().items;
    assert_eq!((of("ann"), of("ben")), (items, Vec::new()));
    ann.act_as(actor("ann"));
    assert_eq!(keys(&all(&ann)), ["lead/1", "lead/2"], "both are Ben's");
}

#[test]
fn pages_end_and_none_costs_more_than_its_bound() {
    let clock = TestClock::starting();
    let ann = declared("ann", &clock);
    let named = |n: usize| {
        let id = key(&format!("lead/{n}"));
        Mutation::create(id, fields(if n % 500 == 7 { json!({}) } else { json!({"name": "x"}) }))
    };
    ann.import((0..2 * FAILED_LOOKED_AT + 100).map(named).collect()).unwrap();
    let (mut after, mut pages): (Option<OpPlace>, Vec<Vec<String>>) = (None, Vec::new());
    loop {
        let page = ann.failed().page(after, 1).unwrap();
        assert!(page.next.is_none() || page.next > after, "each page goes on");
        pages.push(keys(&page.items));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let found: Vec<_> = pages.concat();
    assert_eq!(found, ["lead/7", "lead/507", "lead/1007", "lead/1507", "lead/2007"]);
    assert!(pages.len() <= 9, "{pages:?}");
}
