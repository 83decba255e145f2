//! What waits for a person, and how it is settled: dead letters, conflicts, ops of other users.

use std::sync::Arc;
use std::time::Duration;

use fieldbook::host::Clock;
use fieldbook::schema::Policy;
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest, Outcome, UnitOutcome};
use fieldbook::sync::{FnRemote, ServerEpoch, ServerId};
use fieldbook::{EntityRules, Remote, Schema};
use serde_json::json;

use crate::looks::{server, with_a_conflict};
use crate::support::{Folder, Serving, StillClock, book, book_with, fields, key, sync};

/// A server that refuses every unit.
fn refusing(clock: &Arc<StillClock>) -> impl Remote + use<> {
    refusing_with(clock, "validation", "a name\nis \u{1b}[31mneeded")
}

/// A server that refuses every unit, with this code and message.
pub(crate) fn refusing_with(
    clock: &Arc<StillClock>,
    code: &'static str,
    message: &'static str,
) -> impl Remote + use<> {
    answering(clock, Outcome::Rejected { code: code.into(), message: message.into() })
}

/// A server that gives every unit the same answer.
pub(crate) fn answering(clock: &Arc<StillClock>, outcome: Outcome) -> impl Remote + use<> {
    let clock = Arc::clone(clock);
    FnRemote::new(move |request: &ExchangeRequest| {
        let refuse = |unit: &fieldbook::sync::protocol::Unit| UnitOutcome {
            unit: unit.id,
            outcome: outcome.clone(),
        };
        let (server, epoch) = (ServerId::from_bytes([7; 16]), ServerEpoch::from_bytes([8; 16]));
        Ok(ExchangeAnswer {
            outcomes: request.units.iter().map(refuse).collect(),
            ..ExchangeAnswer::new(request.request, server, epoch, clock.now().wall)
        })
    })
}

/// A book with a refused create of `lead/1` (op 2) and an update that waits behind it (op 6).
pub(crate) fn with_a_dead_letter() -> Folder {
    let folder = Folder::new();
    let clock = StillClock::new();
    let ann = book(&folder.path("ann.book"), "ann", &clock);
    ann.records().create(key("lead/1"), fields(r#"{"stage":"new"}"#)).unwrap();
    sync(&ann, &refusing(&clock));
    clock.advance(60);
    ann.records().update(key("lead/1"), fields(r#"{"stage":"hot"}"#)).unwrap();
    ann.close().unwrap();
    folder
}

/// A book with a create of `lead/1` (op 2) that was stale as often as allowed, and is parked.
pub(crate) fn with_a_worn_out_op() -> Folder {
    let folder = Folder::new();
    let clock = StillClock::new();
    let ann = book(&folder.path("ann.book"), "ann", &clock);
    ann.records().create(key("lead/1"), fields(r#"{"stage":"new"}"#)).unwrap();
    let stale = Outcome::Stale { current: Vec::new(), applied: Vec::new() };
    sync(&ann, &answering(&clock, stale));
    ann.close().unwrap();
    folder
}

/// A book of an app with the manual policy, with an open conflict: ann's value is `hot`, the
/// server's `cold`.
pub(crate) fn with_an_open_conflict() -> Folder {
    let folder = Folder::new();
    let clock = StillClock::new();
    let server = server(&clock);
    let by_hand = EntityRules {
        policy: Policy::Manual,
        undo_window: Duration::ZERO,
        ..EntityRules::default()
    };
    let ann = book_with(&folder.path("ann.book"), "ann", &clock, Schema::open(by_hand));
    let ben = book(&folder.path("ben.book"), "ben", &clock);
    ann.records().create(key("lead/1"), fields(r#"{"stage":"new"}"#)).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    ann.records().update(key("lead/1"), fields(r#"{"stage":"hot"}"#)).unwrap();
    clock.advance(60);
    ben.records().update(key("lead/1"), fields(r#"{"stage":"cold"}"#)).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    ann.close().unwrap();
    folder
}

#[test]
fn a_dead_letter_is_listed_with_its_cause_and_with_what_waits_for_it() {
    let folder = with_a_dead_letter();
    let letters = folder.json(&["dead-letters", "list", "ann.book", "--json"]);
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(
        (&letter["place"], &letter["code"], &letter["tries"]),
        (&json!("3"), &json!("validation"), &json!(1))
    );
    assert_eq!(letter["fields"], json!({"stage": "new"}));
    assert_eq!(letter["dependants"], json!(["7"]));
    let by_id = folder.one_json(&[
        "dead-letters",
        "show",
        "ann.book",
        letter["op"].as_str().unwrap(),
        "--json",
    ]);
    assert_eq!(&by_id, letter);
    let shown = folder.ok(&["dead-letters", "list", "ann.book"]);
    assert!(
        shown.contains(r"a name\nis \u{1b}[31mneeded"),
        "what a server says cannot steer the terminal: {shown:?}"
    );
    let queue = folder.json(&["queue", "ann.book", "--json"]);
    let states: Vec<_> =
        queue.iter().map(|op| (op["place"].clone(), op["state"].clone())).collect();
    assert_eq!(states, [(json!("3"), json!("dead")), (json!("7"), json!("held"))]);
    assert_eq!(queue[1]["hold"], json!({"reason": "dead_create"}));
    assert_eq!(folder.one_json(&["status", "ann.book", "--json"])["state"], "needs_attention");
}

#[test]
fn a_reset_shows_what_would_go_and_discards_it_only_when_it_is_told_to() {
    let folder = with_a_dead_letter();
    let before = folder.bytes("ann.book");
    let shown = folder.ok(&["reset", "ann.book"]);
    assert!(shown.contains("2 ops would be discarded; nothing changed:"), "{shown}");
    let advised = "# fieldbook reset ann.book --yes --reason 'not needed'";
    assert!(shown.contains(advised), "{shown}");
    assert_eq!(
        folder.one_json(&["reset", "ann.book", "--json"]),
        json!({"discarded": 0, "of": {"ann": 2}, "exported": null})
    );
    assert_eq!(folder.run(&["reset", "ann.book", "--yes"]).code, 2, "without a reason");
    assert!(folder.bytes("ann.book") == before, "no byte changed");
    assert_eq!(
        folder.ok(&["reset", "ann.book", "--yes", "--reason", "twice", "--actor", "support"]),
        "discarded 2 ops; the log keeps their fields; sync the book\n"
    );
    let entry = folder.json(&["log", "ann.book", "--limit", "1", "--json"]).remove(0);
    assert_eq!(
        (&entry["action"], &entry["actor"], &entry["reason"]),
        (&json!("discard"), &json!("support"), &json!("twice"))
    );
    assert_eq!(folder.json(&["queue", "ann.book", "--json"]).len(), 0);
    assert_eq!(
        folder.ok(&["reset", "ann.book"]),
        "the server has everything: there is nothing to discard\n"
    );
}

#[test]
fn a_reset_with_an_export_discards_only_what_is_in_the_file() {
    let folder = with_a_dead_letter();
    let before = folder.json(&["queue", "ann.book", "--json"]);
    let reset = ["reset", "ann.book", "--yes", "--reason", "twice", "--export"];
    let to = |file| [&reset[..], &[file]].concat();
    assert_eq!(folder.run(&["reset", "ann.book", "--export", "ann.log"]).code, 2, "without --yes");
    std::fs::write(folder.path("there.log"), b"of somebody else").unwrap();
    let refused = folder.run(&to("there.log"));
    assert_eq!(
        (refused.code, refused.err.as_str()),
        (
            1,
            "error: nothing was discarded: there.log exists already: choose another path\n\
             hint: choose another file for the export\n"
        )
    );
    assert_eq!(folder.bytes("there.log"), b"of somebody else");
    let refused = folder.run(&to("missing/ann.log"));
    assert!(refused.err.starts_with("error: nothing was discarded: there is no missing\n"));
    assert_eq!(folder.json(&["queue", "ann.book", "--json"]), before);

    assert_eq!(
        folder.ok(&to("ann.log")),
        "discarded 2 ops; the log with them is in ann.log, verified; sync the book\n"
    );
    assert!(folder.json(&["queue", "ann.book", "--json"]).is_empty());
    assert_eq!(folder.one_json(&["verify", "ann.log", "--json"])["ok"], true);
    assert_eq!(folder.json(&["queue", "ann.log", "--json"]), before, "what was given up");
    assert_eq!(
        folder.one_json(&[&to("more.log")[..], &["--json"]].concat()),
        json!({"discarded": 0, "of": {}, "exported": null})
    );
    assert!(!folder.path("more.log").exists(), "there was nothing to discard");
}

/// It advised to discard 0 ops.
#[test]
fn records_that_an_accepted_server_may_lack_are_nothing_to_discard() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/1", r#"{"a":1}"#]);
    for home in [Folder::new(), Folder::new()] {
        let serving = Serving::start(&home, &[]);
        folder.run(&["sync", "ann.book", "--server", &serving.url]);
    }
    folder.ok(&["accept-server", "ann.book"]);
    assert_eq!(
        folder.ok(&["reset", "ann.book"]),
        "there is nothing to discard: the accepted server may lack 1 record, and the next sync finds out\n"
    );
}

#[test]
fn a_retried_dead_letter_goes_out_again_with_what_waited() {
    let folder = with_a_dead_letter();
    assert_eq!(
        folder.ok(&["dead-letters", "retry", "ann.book", "3", "--actor", "support"]),
        "the next sync sends 1 dead letter again\n"
    );
    let plan = folder.one_json(&["plan", "ann.book", "--actor", "ann", "--json"]);
    assert_eq!(plan["send"][0]["records"], json!([{"key": "lead/1", "ops": ["3", "7"]}]));
    assert_eq!(plan["held"], json!([]));
    let entry = folder.json(&["log", "ann.book", "--limit", "1", "--json"]).remove(0);
    assert_eq!(
        (&entry["action"], &entry["actor"]),
        (&json!("retry"), &json!("support")),
        "who decided is on record"
    );
}

#[test]
fn a_discarded_dead_letter_falls_back_to_what_stands_without_it_and_says_why() {
    let folder = with_a_dead_letter();
    folder.ok(&["dead-letters", "export", "ann.book", "refused.jsonl"]);
    assert!(String::from_utf8(folder.bytes("refused.jsonl")).unwrap().contains(r#""stage":"new""#));
    let said =
        folder.ok(&["dead-letters", "discard", "ann.book", "--all", "--reason", "entered twice"]);
    assert!(
        said.starts_with("discarded 2 ops"),
        "the update behind it goes with the creation: {said}"
    );
    assert_eq!(folder.run(&["get", "ann.book", "lead/1"]).code, 1);
    let entry = folder.json(&["log", "ann.book", "--limit", "1", "--json"]).remove(0);
    assert_eq!((&entry["action"], &entry["reason"]), (&json!("discard"), &json!("entered twice")));
    assert_eq!(folder.one_json(&["status", "ann.book", "--json"])["pending"], 0);
}

#[test]
fn ops_of_somebody_else_are_held_and_the_program_says_how_they_go_out() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book", "--actor", "ann"]);
    folder.ok(&["put", "a.book", "lead/1", "{}", "--actor", "ann"]);
    folder.ok(&["put", "a.book", "lead/2", "{}", "--actor", "ben"]);
    let held = |args: &[&str]| -> Vec<_> {
        let queue = folder.json(&[&["queue", "a.book", "--json"], args].concat());
        queue.iter().filter(|op| op["state"] == "held").map(|op| op["key"].clone()).collect()
    };
    assert_eq!(held(&[]), ["lead/1"], "by default as whoever used the book last");
    assert_eq!(held(&["--actor", "ann"]), ["lead/2"]);
    let said = folder.ok(&["explain", "a.book", "lead/1"]);
    assert!(said.contains("fieldbook sync a.book --actor ann"), "{said}");
}

#[test]
fn a_corrected_dead_letter_takes_the_place_of_the_refused_op() {
    let folder = with_a_dead_letter();
    let said = folder.ok(&[
        "dead-letters",
        "correct",
        "ann.book",
        "3",
        r#"{"name":"Ann"}"#,
        "--actor",
        "ann",
    ]);
    assert!(said.starts_with("corrected 3 ("), "{said}");
    let fields = folder.one_json(&["get", "ann.book", "lead/1", "--json"])["fields"].clone();
    assert_eq!(
        fields,
        json!({"name": "Ann", "stage": "hot"}),
        "what waited behind it is part of it"
    );
    let queue = folder.json(&["queue", "ann.book", "--json"]);
    assert_eq!(
        (queue.len(), &queue[0]["kind"], &queue[0]["state"]),
        (1, &json!("create"), &json!("ready"))
    );
}

#[test]
fn an_op_that_has_not_left_is_undone_as_if_it_never_was() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    folder.ok(&["put", "a.book", "lead/1", r#"{"stage":"new"}"#]);
    folder.ok(&["patch", "a.book", "lead/1", r#"{"stage":"hot"}"#]);
    assert_eq!(folder.ok(&["undo", "a.book", "6"]), "undone: the op is not sent\n");
    assert_eq!(
        folder.one_json(&["get", "a.book", "lead/1", "--json"])["fields"],
        json!({"stage": "new"})
    );
    assert_eq!(folder.json(&["queue", "a.book", "--json"]).len(), 1);
    let refused = folder.run(&["undo", "a.book", "9"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
}

#[test]
fn a_flipped_conflict_makes_the_other_side_win_by_an_op_that_cites_it() {
    let folder = with_a_conflict();
    let said = folder.ok(&["conflicts", "flip", "ann.book", "11.1", "--actor", "ann"]);
    assert!(said.starts_with("flipped 11.1 (17)"), "{said}");
    let record = folder.one_json(&["get", "ann.book", "lead/42", "--json"]);
    assert_eq!(record["fields"]["stage"], "hot");
    let op =
        folder.json(&["log", "ann.book", "--limit", "1", "--json"]).remove(0)["ops"][0].clone();
    let cited = folder.json(&["conflicts", "list", "ann.book", "--json"])[0]["op"].clone();
    assert_eq!(op["cites"], cited);
}

#[test]
fn a_conflict_left_open_waits_for_a_choice_and_goes_on_with_it() {
    for (choice, stands, left) in [
        ("local", json!("hot"), 1),
        ("remote", json!("cold"), 0),
        (r#"{"stage":"warm"}"#, json!("warm"), 1),
    ] {
        let folder = with_an_open_conflict();
        let open = folder.json(&["conflicts", "list", "ann.book", "--open", "--json"]);
        assert_eq!(open.len(), 1);
        let id = open[0]["id"].as_str().unwrap();
        let explained = folder.ok(&["explain", "ann.book", "lead/1"]);
        assert!(
            explained.contains(&format!("\n  # fieldbook conflicts keep ann.book {id} local\n")),
            "{explained}"
        );
        assert_eq!(folder.one_json(&["status", "ann.book", "--json"])["state"], "needs_attention");

        let refused = |args: &[&str], why: &str| {
            let ran = folder.run(&[args, &["--actor", "ann"]].concat());
            assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{args:?}: {ran:?}");
            let advice = "fieldbook conflicts list ann.book";
            assert!(ran.err.contains(why) && ran.err.contains(advice), "{args:?}: {}", ran.err);
        };
        refused(
            &["conflicts", "flip", "ann.book", id],
            "this conflict is still open: choose in it",
        );
        folder.ok(&["conflicts", "keep", "ann.book", id, choice, "--actor", "ann"]);
        refused(
            &["conflicts", "keep", "ann.book", id, choice],
            "this conflict is resolved already: flip it",
        );
        assert!(folder.json(&["conflicts", "list", "ann.book", "--open", "--json"]).is_empty());
        assert_eq!(
            folder.one_json(&["get", "ann.book", "lead/1", "--json"])["fields"]["stage"],
            stands
        );
        assert_eq!(folder.one_json(&["status", "ann.book", "--json"])["pending"], left, "{choice}");
        let again = folder.run(&["conflicts", "keep", "ann.book", id, "local"]);
        assert_eq!(again.code, 1, "{again:?}");
    }
}
