//! Stories: `history` in sentences, `show`, `diff`, and what `log --json` tells apart.

use insta::assert_snapshot;
use serde_json::json;

use crate::looks::with_a_conflict;
use crate::settle::with_a_dead_letter;
use crate::support::{Folder, StillClock, book, fields, key};

#[test]
fn the_story_of_a_record_and_of_the_day_is_told_in_sentences() {
    let folder = with_a_conflict();
    assert_snapshot!("story_conflict", folder.ok(&["history", "ann.book", "lead/42"]));
    assert_snapshot!("story_day", folder.ok(&["history", "ann.book"]));
    let folder = with_a_dead_letter();
    assert_snapshot!("story_refused", folder.ok(&["history", "ann.book", "lead/1"]));
}

#[test]
fn no_story_shows_the_program_instead_of_words() {
    for (folder, key) in [(with_a_conflict(), "lead/42"), (with_a_dead_letter(), "lead/1")] {
        for key in [&[key][..], &[]] {
            let told = folder.ok(&[&["history", "ann.book"], key].concat());
            for wrong in ["null", "None", "Some("] {
                assert!(!told.contains(wrong), "{wrong} in {told}");
            }
        }
    }
}

#[test]
fn a_story_is_filtered_by_kind_text_and_time() {
    let folder = with_a_conflict();
    let of = |more: &[&str]| folder.ok(&[&["history", "ann.book", "lead/42"], more].concat());
    let edits = of(&["--only", "edits"]);
    assert!(edits.contains("ann created it") && !edits.contains("Sent change"), "{edits}");
    let attention = of(&["--only", "attention"]);
    assert!(
        attention.contains("conflict 11.1") && !attention.contains("ann created"),
        "{attention}"
    );
    assert!(of(&["--grep", "COLD"]).contains("cold"));
    assert!(of(&["--grep", "nowhere"]).contains("nothing happened"));
    let since = of(&["--since", "6"]);
    assert!(since.contains("changed stage") || since.contains("set phone"), "{since}");
    assert!(!since.contains("ann created it"), "{since}");
    assert!(!of(&["--until", "3"]).contains("Sent"));
    assert_eq!(of(&["--last", "1"]).matches(" [").count(), 1);
}

#[test]
fn old_and_new_values_of_a_history_are_those_of_the_log() {
    let folder = with_a_conflict();
    let entries = folder.json(&["history", "ann.book", "lead/42", "--json"]);
    let changed = |seq: u64| {
        let entry = entries.iter().find(|entry| entry["seq"] == seq).unwrap();
        entry["changed"].clone()
    };
    let change = |field: &str, old: serde_json::Value, new: &str| json!({"key": "lead/42", "field": field, "old": old, "new": new});
    assert_eq!(
        changed(3),
        json!([change("name", json!(null), "Ann"), change("stage", json!(null), "new")])
    );
    assert_eq!(
        changed(7),
        json!([change("phone", json!(null), "1"), change("stage", json!("new"), "hot")])
    );
    // The conflict was lost: the screen shows what the other device wrote.
    let lost = entries.iter().flat_map(|entry| entry["changed"].as_array().unwrap().clone());
    assert!(lost.into_iter().any(|one| one == change("stage", json!("hot"), "cold")));
}

#[test]
fn values_are_cut_with_their_length_and_the_author_is_named() {
    let folder = Folder::new();
    let clock = StillClock::new();
    let ann = book(&folder.path("ann.book"), "ann", &clock);
    let long = "s".repeat(600_000);
    ann.records().create(key("lead/42"), fields(r#"{"name":"Lake Street School"}"#)).unwrap();
    clock.advance(56);
    ann.records().update(key("lead/42"), fields(&format!(r#"{{"survey":"{long}"}}"#))).unwrap();
    ann.act_as("ben".parse().unwrap());
    clock.advance(8_040);
    ann.records().update(key("lead/42"), fields(r#"{"survey":null}"#)).unwrap();
    ann.close().unwrap();
    let told = folder.ok(&["history", "ann.book", "lead/42"]);
    let joined = told.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = format!("\"{}…\" (600,000 characters)", "s".repeat(40));
    assert!(joined.contains(&format!("ann set survey to {cut}.")), "{told}");
    assert!(joined.contains(&format!("ben removed survey (was {cut}).")), "{told}");
    assert!(told.contains("   56 s later") && told.contains("   2 h 14 min later"), "{told}");
    assert!(told.len() < 2_000);
}

#[test]
fn an_entry_is_shown_whole_with_what_it_changed() {
    let folder = with_a_conflict();
    let shown = folder.ok(&["show", "ann.book", "7"]);
    assert!(
        shown.contains("screen") && shown.contains("\"new\"") && shown.contains("\"hot\""),
        "{shown}"
    );
    assert!(shown.contains("COMMITMENT"));
    let bytes = folder.ok(&["show", "ann.book", "7", "--bytes"]);
    assert!(bytes.contains("{\"phone\":\"1\",\"st"), "{bytes}");
    let value = folder.one_json(&["show", "ann.book", "7", "--json"]);
    let logged = folder.json(&["log", "ann.book", "--limit", "0", "--json"]);
    assert_eq!((&value["hash"], &value["seq"]), (&logged[6]["hash"], &json!(7)));
    assert_eq!(value["effects"][0]["seen"]["after"]["stage"], "hot");
    assert_eq!(value["items"][0]["state"], "present");
    assert_eq!(folder.run(&["show", "ann.book", "99"]).code, 1);
}

#[test]
fn two_moments_are_compared() {
    let folder = with_a_conflict();
    let differs = folder.ok(&["diff", "ann.book", "6", "11"]);
    assert!(differs.contains("as of entry 6") && differs.contains("as of entry 11"), "{differs}");
    assert!(differs.contains("\"new\"") && differs.contains("\"cold\""), "{differs}");
    assert!(differs.contains("conflicts 0 → 1") && differs.contains("entries 6 → 11"), "{differs}");
    let same = folder.run(&["diff", "ann.book", "11", "11", "--exit-code"]);
    assert_eq!((same.code, same.out.contains("no record differs")), (0, true), "{same:?}");
    assert_eq!(folder.run(&["diff", "ann.book", "6", "11", "--exit-code"]).code, 1);
    let values = folder.json(&["diff", "ann.book", "6", "11", "lead/42", "--json"]);
    let stage = json!({"field": "stage", "old": "new", "new": "cold"});
    assert!(values[0]["fields"].as_array().unwrap().contains(&stage), "{values:?}");
    assert_eq!(values[1]["after"]["conflicts"], 1);
}

#[test]
fn a_deletion_has_no_fields_which_is_null() {
    let folder = with_a_conflict();
    folder.ok(&["rm", "ann.book", "task/7"]);
    let last = folder.json(&["log", "ann.book", "--limit", "1", "--json"]);
    assert!(last[0]["ops"][0]["fields"].is_null(), "{last:?}");
}
