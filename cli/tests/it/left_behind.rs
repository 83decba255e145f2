//! What a user left behind who never comes back, and what others replaced.

use fieldbook::Mutation;
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::looks::server;
use crate::support::{Folder, StillClock, ann_and_ben, book, fields, key, sync};

/// A book with ops of ann, who is gone: a create and an update of `lead/1` (3 and 4), a
/// transaction of two creates (5 and 5+1), and a create of `lead/4` (6). Ben uses it now (7).
fn with_a_user_who_is_gone() -> Folder {
    let folder = Folder::new();
    let clock = StillClock::new();
    let of_both = book(&folder.path("a.book"), "ann", &clock);
    of_both.records().create(key("lead/1"), fields(r#"{"name":"Mueller"}"#)).unwrap();
    of_both.records().update(key("lead/1"), fields(r#"{"stage":"hot"}"#)).unwrap();
    let bo = Mutation::create(key("lead/2"), fields(r#"{"name":"Bo"}"#));
    let note = Mutation::create(key("note/1"), fields(r#"{"of":"lead/2"}"#));
    of_both.transaction(vec![bo, note]).unwrap();
    of_both.records().create(key("lead/4"), fields(r#"{"name":"Cleo"}"#)).unwrap();
    of_both.act_as("ben".parse().unwrap());
    of_both.records().create(key("lead/5"), fields(r#"{"name":"Di"}"#)).unwrap();
    of_both.close().unwrap();
    folder
}

/// Returns the places and the actors of the pending ops.
fn queue(folder: &Folder) -> Vec<(Value, Value)> {
    let queue = folder.json(&["queue", "a.book", "--json"]);
    queue.iter().map(|op| (op["place"].clone(), op["actor"].clone())).collect()
}

#[test]
fn named_ops_are_handed_over_with_those_that_belong_to_them() {
    let folder = with_a_user_who_is_gone();
    let all = ["3", "4", "5", "5+1", "6", "7"];
    let by = |actors: [&str; 6]| all.map(Value::from).into_iter().zip(actors.map(Value::from));
    assert!(queue(&folder).into_iter().eq(by(["ann", "ann", "ann", "ann", "ann", "ben"])));
    let handed = folder.ok(&["hand-over", "a.book", "4", "5+1", "--to", "ben"]);
    assert!(queue(&folder).into_iter().eq(by(["ben", "ben", "ben", "ben", "ann", "ben"])));
    assert_snapshot!("hand_over", handed);
    let entry = folder.json(&["log", "a.book", "--limit", "1", "--json"]).remove(0);
    assert_eq!((&entry["action"], &entry["actor"]), (&json!("hand_over"), &json!("ben")));
    let told = folder.ok(&["history", "a.book", "lead/2"]);
    assert!(told.contains("ben handed it over.") && told.contains("is sent by ben"), "{told}");
}

#[test]
fn all_that_a_user_left_is_handed_over_at_once_and_leaves_with_the_other_credentials() {
    let folder = with_a_user_who_is_gone();
    let handed = folder.one_json(&[
        "hand-over",
        "a.book",
        "--of",
        "ann",
        "--to",
        "ben",
        "--actor",
        "support",
        "--json",
    ]);
    let ops = json!(["3", "4", "5", "5+1", "6"]);
    assert_eq!(handed, json!({"handed_over": 5, "to": "ben", "ops": ops}));
    let entry = folder.json(&["log", "a.book", "--limit", "1", "--json"]).remove(0);
    assert_eq!(entry["actor"], "support", "who decided is on record");
    assert_eq!(
        folder.ok(&["failed", "a.book", "--of", "ann"]),
        "nothing that ann made has failed\n"
    );
    let plan = folder.one_json(&["plan", "a.book", "--actor", "ben", "--json"]);
    assert_eq!(plan["held"], json!([]));
    assert_eq!(plan["send"].as_array().unwrap().len(), 4);
}

#[test]
fn what_cannot_be_handed_over_is_named_and_changes_nothing() {
    let folder = with_a_user_who_is_gone();
    folder.ok(&["log", "a.book", "--export", "a.log"]);
    let before = (folder.bytes("a.book"), folder.bytes("a.log"));
    for (args, code, why) in [
        (&["a.book", "3", "99", "--to", "ben"][..], 1, "op 99 is not pending"),
        (&["a.book", "3", "7", "--to", "ben"], 1, "ben sends op 7 already"),
        (&["a.book", "--of", "dora", "--to", "ben"], 1, "no pending op is of dora"),
        (&["a.book", "--of", "ann", "--to", "ann"], 2, "name the same user"),
        (&["a.book", "--to", "ben"], 2, "<OP>..."),
        (&["a.book", "3"], 2, "--to <ACTOR>"),
        (&["a.book", "3", "--of", "ann", "--to", "ben"], 2, "cannot be used with"),
        (&["a.log", "--of", "ann", "--to", "ben"], 1, "it is an exported log"),
    ] {
        let ran = folder.run(&[&["hand-over"], args].concat());
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}: {ran:?}");
        assert!(ran.err.contains(why), "{args:?}: {}", ran.err);
    }
    assert!((folder.bytes("a.book"), folder.bytes("a.log")) == before, "a byte changed");
}

/// A book of ann, whose values ben replaced, removed and deleted.
fn with_replaced_values() -> Folder {
    let folder = Folder::new();
    let clock = StillClock::new();
    let server = server(&clock);
    let (ann, ben) = ann_and_ben(&folder, &clock);
    let first = fields(r#"{"name":"Mueller","stage":"new","town":"Ulm"}"#);
    ann.records().create(key("lead/1"), first).unwrap();
    ann.records().create(key("lead/2"), fields(r#"{"name":"Bo"}"#)).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    for change in [r#"{"stage":"hot"}"#, r#"{"stage":"won","town":null}"#] {
        clock.advance(60);
        ben.records().update(key("lead/1"), fields(change)).unwrap();
        sync(&ben, &server);
        sync(&ann, &server);
    }
    clock.advance(60);
    ben.records().delete(key("lead/2")).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    ann.close().unwrap();
    ben.close().unwrap();
    folder
}

#[test]
fn the_values_that_others_replaced_are_listed_with_both_values() {
    let folder = with_replaced_values();
    let before = folder.bytes("ann.book");
    let listed = folder.ok(&["overwritten", "ann.book"]);
    assert_snapshot!("overwritten", listed);
    let lines = folder.json(&["overwritten", "ann.book", "--json"]);
    let short: Vec<_> = lines
        .iter()
        .map(|line| json!([line["key"], line["field"], line["local"], line["remote"]]))
        .collect();
    assert_eq!(
        Value::from(short),
        json!([
            ["lead/1", "stage", "new", "hot"],
            ["lead/1", "town", "Ulm", null],
            ["lead/2", null, null, null]
        ])
    );
    let entry = lines[0]["entry"].as_u64().unwrap().to_string();
    let later = folder.json(&["overwritten", "ann.book", "--after", &entry, "--json"]);
    assert_eq!(later[..], lines[1..]);
    folder.ok(&["log", "ann.book", "--export", "ann.log"]);
    assert_eq!(folder.ok(&["overwritten", "ann.log"]), listed);
    let none = "nobody replaced a value of this device at the server\n";
    assert_eq!(folder.ok(&["overwritten", "ben.book"]), none);
    assert!(folder.bytes("ann.book") == before, "looking changes no byte");
}
