//! Saving typed records: an older version of the app, whose type lacks a field, must not remove
//! that field.
//!
//! Once, a save was a whole new image. So every field that the type did not name was removed, on
//! all devices and without a conflict.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::{BTreeMap, HashSet};

use common::{Server, TestClock, book, fields, key, sync};
use fieldbook::{Book, Entity, RecordId, Written};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Serialize, Deserialize)]
struct Old {
    name: String,
}

#[derive(Serialize, Deserialize)]
struct New {
    name: String,
    phone: Option<String>,
}

impl Entity for Old {
    const ENTITY: &'static str = "lead";
}

impl Entity for New {
    const ENTITY: &'static str = "lead";
}

fn id() -> RecordId {
    "1".parse().unwrap()
}

/// Makes `lead/1`, reads it as a type, changes the value and saves it. Returns the record after the
/// save.
fn edited<E: Entity>(before: Value, change: impl FnOnce(&mut E)) -> (Value, Written) {
    let ann = book("ann", &TestClock::starting());
    ann.records().create(key("lead/1"), fields(before)).unwrap();
    let mut record: E = ann.get(&id()).unwrap().unwrap();
    change(&mut record);
    let written = ann.save(&id(), &record).unwrap();
    // The type that was saved can be read again.
    assert!(ann.get::<E>(&id()).unwrap().is_some());
    (image(&ann), written)
}

fn image(book: &Book) -> Value {
    let record = book.records().get(&key("lead/1")).unwrap().unwrap();
    Value::Object(record.fields().unwrap().into_map())
}

#[test]
fn a_field_that_a_type_does_not_know_outlives_its_save() {
    let clock = TestClock::starting();
    let (server, old, new) = (Server::new(&clock), book("old", &clock), book("new", &clock));
    new.save(&id(), &New { name: "Ann".into(), phone: Some("555".into()) }).unwrap();
    sync(&new, &server);
    sync(&old, &server);
    let mut lead: Old = old.get(&id()).unwrap().unwrap();
    lead.name = "Anna".into();
    old.save(&id(), &lead).unwrap();
    sync(&old, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Anna", "phone": "555"})));
}

#[test]
fn a_field_that_came_between_reading_and_saving_outlives_the_save() {
    let clock = TestClock::starting();
    let (server, old, new) = (Server::new(&clock), book("old", &clock), book("new", &clock));
    old.save(&id(), &Old { name: "Ann".into() }).unwrap();
    sync(&old, &server);
    sync(&new, &server);
    let lead: Old = old.get(&id()).unwrap().unwrap();
    new.save(&id(), &New { name: "Ann".into(), phone: Some("555".into()) }).unwrap();
    sync(&new, &server);
    sync(&old, &server);
    assert_eq!(old.save(&id(), &lead).unwrap(), Written::Unchanged);
    assert_eq!(image(&old), json!({"name": "Ann", "phone": "555"}));
}

#[test]
fn a_field_that_the_type_knows_is_taken_away_by_none() {
    let before = || json!({"name": "Ann", "phone": "555", "stage": "hot"});
    let (after, _) = edited::<New>(before(), |lead| lead.phone = None);
    assert_eq!(after, json!({"name": "Ann", "stage": "hot"}));

    #[derive(Serialize, Deserialize)]
    struct Skips {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        phone: Option<String>,
    }
    impl Entity for Skips {
        const ENTITY: &'static str = "lead";
    }
    let (after, _) = edited::<Skips>(before(), |lead| lead.phone = None);
    assert_eq!(after, json!({"name": "Ann", "stage": "hot"}), "left out, though the type knows it");
}

#[test]
fn what_a_type_does_not_know_inside_of_a_field_outlives_its_save() {
    #[derive(Serialize, Deserialize)]
    struct Address {
        street: String,
    }
    #[derive(Serialize, Deserialize)]
    struct Lead {
        name: String,
        address: Address,
        #[serde(default)]
        tags: Vec<Address>,
    }
    impl Entity for Lead {
        const ENTITY: &'static str = "lead";
    }
    let before = || json!({"name": "Ann", "address": {"street": "x", "zip": 1}, "tags": [{"street": "t", "zip": 2}]});
    let (after, _) = edited::<Lead>(before(), |lead| lead.name = "Anna".into());
    assert_eq!(
        after,
        json!({"name": "Anna", "address": {"street": "x", "zip": 1}, "tags": [{"street": "t", "zip": 2}]})
    );
    let (after, _) = edited::<Lead>(before(), |lead| lead.address.street = "y".into());
    assert_eq!(after["address"], json!({"street": "y", "zip": 1}));
}

#[test]
fn a_flattened_type_keeps_what_it_collects_and_what_it_does_not() {
    #[derive(Serialize, Deserialize)]
    struct Collects {
        name: String,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }
    impl Entity for Collects {
        const ENTITY: &'static str = "lead";
    }
    let (after, _) = edited::<Collects>(json!({"name": "Ann", "phone": 1, "stage": 2}), |lead| {
        lead.rest.remove("phone");
    });
    assert_eq!(
        after,
        json!({"name": "Ann", "stage": 2}),
        "who knows every field can take each away"
    );

    #[derive(Serialize, Deserialize)]
    struct Part {
        city: String,
    }
    #[derive(Serialize, Deserialize)]
    struct Nests {
        name: String,
        #[serde(flatten)]
        part: Part,
        kinds: HashSet<String>,
    }
    impl Entity for Nests {
        const ENTITY: &'static str = "lead";
    }
    let before =
        json!({"name": "Ann", "city": "x", "phone": 1, "kinds": ["a", "b", "c", "d", "e"]});
    let (after, _) = edited::<Nests>(before, |lead| lead.part.city = "y".into());
    assert_eq!((&after["city"], &after["phone"]), (&json!("y"), &json!(1)));
}

#[test]
fn a_field_that_was_renamed_moves_to_its_new_name() {
    #[derive(Serialize, Deserialize)]
    struct Renamed {
        #[serde(alias = "name")]
        title: String,
    }
    impl Entity for Renamed {
        const ENTITY: &'static str = "lead";
    }
    let (after, _) =
        edited::<Renamed>(json!({"name": "Ann", "phone": 1}), |lead| lead.title = "Anna".into());
    assert_eq!(after, json!({"title": "Anna", "phone": 1}));
}

#[test]
fn saving_what_was_read_writes_nothing() {
    let (_, written) = edited::<Old>(json!({"name": "Ann", "phone": 1}), |_| {});
    assert_eq!(written, Written::Unchanged);
}

#[test]
fn what_a_type_cannot_read_is_not_emptied_by_its_save() {
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        name: String,
    }
    impl Entity for Strict {
        const ENTITY: &'static str = "lead";
    }
    let ann = book("ann", &TestClock::starting());
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann", "phone": "5"}))).unwrap();
    ann.save(&id(), &Strict { name: "Anna".into() }).unwrap();
    assert_eq!(image(&ann), json!({"name": "Anna", "phone": "5"}));
}

#[test]
fn a_record_that_is_made_anew_has_nothing_of_the_deleted_one() {
    let ann = book("ann", &TestClock::starting());
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann", "phone": "5"}))).unwrap();
    ann.remove::<Old>(&id()).unwrap();
    ann.save(&id(), &Old { name: "Bob".into() }).unwrap();
    assert_eq!(image(&ann), json!({"name": "Bob"}));
}

#[test]
fn taking_away_what_a_type_does_not_know_is_a_call_of_its_own() {
    let ann = book("ann", &TestClock::starting());
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann", "phone": "5"}))).unwrap();
    ann.records().replace(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    assert_eq!(image(&ann), json!({"name": "Ann"}));
}

#[test]
fn an_edit_sends_what_it_changed_and_keeps_what_came_meanwhile() {
    let clock = TestClock::starting();
    let (server, ann, ben) = (Server::new(&clock), book("ann", &clock), book("ben", &clock));
    ann.save(&id(), &New { name: "Ann".into(), phone: Some("1".into()) }).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    ben.edit::<New>(&id(), |lead| lead.name = "Anna".into()).unwrap();
    sync(&ben, &server);
    let mut tries = 0;
    let written = ann.edit::<New>(&id(), |lead| {
        tries += 1;
        if tries == 1 {
            sync(&ann, &server);
        }
        lead.phone = Some(format!("{} of {}", lead.phone.as_deref().unwrap(), lead.name));
    });
    assert!(written.unwrap().op().is_some());
    assert_eq!(tries, 2, "it edits what is there when it is written");
    sync(&ann, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Anna", "phone": "1 of Anna"})));
    let requests = server.requests.lock().unwrap();
    let sent = requests.iter().flat_map(|request| &request.units).last().unwrap();
    let sent = sent.changes[0].fields.as_ref().unwrap();
    assert_eq!(sent.as_str(), r#"{"phone":"1 of Anna"}"#);
}

#[test]
fn an_edit_without_a_change_writes_nothing_and_one_of_no_record_is_refused() {
    let ann = book("ann", &TestClock::starting());
    let refused = ann.edit::<Old>(&id(), |_| {}).unwrap_err();
    assert_eq!(refused.to_string(), "lead/1 does not exist: create it first");
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann", "phone": "5"}))).unwrap();
    assert_eq!(ann.edit::<Old>(&id(), |_| {}).unwrap(), Written::Unchanged);
    ann.edit::<Old>(&id(), |lead| lead.name = "Anna".into()).unwrap();
    assert_eq!(image(&ann), json!({"name": "Anna", "phone": "5"}));
}

#[test]
fn an_edit_of_a_record_that_never_stands_still_ends() {
    let ann = book("ann", &TestClock::starting());
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann", "n": 0}))).unwrap();
    let mut n = 0;
    let refused = ann.edit::<Old>(&id(), |lead| {
        n += 1;
        ann.records().update(key("lead/1"), fields(json!({ "n": n }))).unwrap();
        lead.name = "Anna".into();
    });
    assert!(refused.unwrap_err().to_string().contains("try again"));
    assert_eq!(image(&ann), json!({"name": "Ann", "n": n}), "nothing of it was written");
}

#[test]
fn edits_of_many_threads_lose_nothing() {
    #[derive(Serialize, Deserialize)]
    struct Counter {
        n: u32,
    }
    impl Entity for Counter {
        const ENTITY: &'static str = "counter";
    }
    let ann = book("ann", &TestClock::starting());
    ann.save(&id(), &Counter { n: 0 }).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    ann.edit::<Counter>(&id(), |counter| counter.n += 1).unwrap();
                }
            });
        }
    });
    assert_eq!(ann.get::<Counter>(&id()).unwrap().unwrap().n, 400);
}
