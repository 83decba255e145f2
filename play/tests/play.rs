//! Plays through the library: their results, and the faults of wrong ones.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics, with the line that says where"
)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fieldbook_play::{Failure, MadeUp, NoProgress, Played, Setup, Source, generate, play};
use serde_json::{Value, json};
use tempfile::TempDir;

const HISTORY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/data/crm-history/openstates-vt-de.jsonl.gz");
const TABLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/data/crm-history/openstates-vt-de.final.jsonl.gz");

/// Plays a stream and its table, with changes to the usual setup.
fn run(stream: &Path, oracle: &Path, change: impl FnOnce(&mut Setup)) -> Result<Played, Failure> {
    let temporary = TempDir::new().unwrap();
    let mut setup = Setup {
        stream: Source::File(stream.to_owned()),
        oracle: Some(Source::File(oracle.to_owned())),
        server: None,
        books: None,
        temporary: temporary.path().to_owned(),
        seed: 1,
        faults: false,
        check: true,
        progress: Arc::new(NoProgress),
    };
    change(&mut setup);
    play(setup)
}

/// Returns the report of a play, which must pass.
#[track_caller]
fn holding(played: Result<Played, Failure>) -> Value {
    let report = played.unwrap_or_else(|failure| panic!("{}", said(&failure))).report;
    assert_eq!(report.faults(), Vec::<String>::new());
    serde_json::to_value(report).unwrap()
}

/// Returns the text of a failure, with its causes.
fn said(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        text.push_str(&format!(" because {error}"));
        cause = error.source();
    }
    text
}

/// A stream and its table, written line by line.
struct Play {
    folder: TempDir,
    lines: Vec<Value>,
    table: Vec<Value>,
}

/// One transaction: its author, its base, its position, and the day and hour of its writing. It
/// arrives at the end of the day that has its position's number.
struct From(&'static str, i64, i64, &'static str);

impl Play {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), lines: Vec::new(), table: Vec::new() }
    }

    /// Adds a transaction of mutations. Each is an op, an id and a payload.
    fn writes(
        mut self,
        From(author, base, position, when): From,
        mutations: &[(&str, &str, Value)],
    ) -> Self {
        let transaction = format!("t{}", self.lines.len());
        for (op, id, payload) in mutations {
            self.lines.push(json!({
                "ts": format!("2024-03-{when}:00:00Z"), "author": author, "op": op, "entity": "person", "id": id,
                "payload": payload, "tx": transaction, "base_pos": base, "pos": position,
                "synced_at": format!("2024-03-{position:02}T23:00:00Z"),
            }));
        }
        self
    }

    /// Sets a record of the final table.
    fn comes_to(mut self, id: &str, record: Value) -> Self {
        self.table.push(json!({ "entity": "person", "id": id, "record": record }));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self) -> Result<Played, Failure> {
        let text =
            |lines: &[Value]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        fs::write(self.path("stream.jsonl"), text(&self.lines)).unwrap();
        fs::write(self.path("table.jsonl"), text(&self.table)).unwrap();
        run(&self.path("stream.jsonl"), &self.path("table.jsonl"), |_| ())
    }

    /// Plays it, which must pass, and returns the report.
    #[track_caller]
    fn holds(&self) -> Value {
        holding(self.run())
    }
}

/// Returns the keys of records in differences and conflicts.
fn keys(differences: &Value) -> Vec<&str> {
    differences
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| difference["key"].as_str().unwrap())
        .collect()
}

fn play_history(change: impl FnOnce(&mut Setup)) -> Value {
    holding(run(Path::new(HISTORY), Path::new(TABLE), change))
}

/// Removes the figures that differ from run to run.
fn lasting(mut report: Value) -> Value {
    for name in ["seconds", "peak_memory_bytes", "checked"] {
        report.as_object_mut().unwrap().remove(name).unwrap();
    }
    report
}

#[test]
fn the_shipped_history_ends_equal_everywhere_and_twice_the_same() {
    let first = play_history(|_| ());
    assert_eq!(first["mutations"], 6_185);
    assert_eq!((&first["devices"], &first["equal_devices"]), (&json!(51), &json!(51)));
    assert_eq!(first["records"], 771);
    assert_eq!(first["oracle"]["unexplained"], json!([]));
    assert_eq!((&first["pending_ops"], &first["dead_letters"]), (&json!(0), &json!(0)));
    assert_eq!(first["faults"], json!([]));
    assert_eq!(lasting(first), lasting(play_history(|setup| setup.check = false)));
}

#[test]
fn the_shipped_history_ends_the_same_whatever_goes_wrong_on_the_way() {
    let calm = play_history(|setup| setup.seed = 7);
    let stormy = play_history(|setup| (setup.seed, setup.faults) = (7, true));
    let injected = &stormy["injected"];
    for kind in [
        "requests_lost",
        "answers_lost",
        "requests_doubled",
        "requests_late",
        "answers_late",
        "unavailable",
        "applied_then_unavailable",
        "units_put_off",
        "unauthorized",
    ] {
        assert!(injected[kind].as_u64().unwrap() > 0, "{kind} never happened: {injected}");
    }
    assert_eq!(stormy["dead_letters"], 0);
    assert_eq!(stormy["digest"], calm["digest"]);
    assert!(calm.get("injected").is_none());
}

#[test]
fn two_edits_of_the_same_field_are_explained_by_a_conflict() {
    let play = Play::new()
        .writes(
            From("ann", 0, 1, "01T10"),
            &[("create", "1", json!({"name": "Eve", "phone": "1"}))],
        )
        .writes(From("ann", 1, 2, "02T10"), &[("update", "1", json!({"phone": "2"}))])
        // Earlier by the clock, later at the mainline: the stream has 3, the later edit is 2.
        .writes(
            From("bob", 1, 3, "02T09"),
            &[("update", "1", json!({"phone": "3", "name": "Eva"}))],
        )
        .comes_to("1", json!({"name": "Eva", "phone": "3"}));
    let report = play.holds();
    assert_eq!(keys(&report["oracle"]["explained"]), ["person/1"]);
    assert_eq!(report["oracle"]["explained"][0]["fields"], json!(["phone"]));
    assert_eq!(
        report["conflicts"],
        json!([{"policy": "last_write_wins", "winner": "local", "count": 1}])
    );
    assert_eq!(report["traffic"]["stale_units"], 1);
}

#[test]
fn a_difference_that_no_conflict_names_fails_and_says_where() {
    let play = Play::new()
        .writes(
            From("ann", 0, 1, "01T10"),
            &[("create", "1", json!({"name": "Eve", "phone": "1"}))],
        )
        .writes(From("bob", 1, 2, "02T10"), &[("create", "2", json!({"name": "Abe"}))])
        .comes_to("1", json!({"name": "Eve", "phone": "not so"}))
        .comes_to("3", json!({"name": "nobody"}));
    let report = play.run().unwrap().report;
    let said = report.faults().join("; ");
    for part in ["person/1 differs in phone", "person/2 should not exist", "person/3 is missing"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!report.holds);
}

/// If a push sent all that a device has written, ann's second change would arrive at 5 and bob
/// would build on it, unlike the stream. The result would differ without a conflict.
#[test]
fn what_was_written_later_stays_behind_when_an_earlier_transaction_is_pushed() {
    let play = Play::new()
        .writes(
            From("ann", 0, 1, "01T10"),
            &[("create", "1", json!({"phone": "0"})), ("create", "2", json!({}))],
        )
        .writes(From("ann", 1, 5, "02T10"), &[("update", "2", json!({"name": "first"}))])
        .writes(From("bob", 6, 7, "07T10"), &[("update", "1", json!({"phone": "of bob"}))])
        .writes(From("ann", 3, 9, "08T10"), &[("update", "1", json!({"phone": "of ann"}))])
        .comes_to("1", json!({"phone": "of ann"}))
        .comes_to("2", json!({"name": "first"}));
    let report = play.holds();
    assert_eq!(report["oracle"]["explained"], json!([]));
    assert_eq!(report["records_in_conflict"], 1, "bob and ann did not know of each other's edit");
}

/// From a generated stream: with two transactions behind the pushed one, no clock keeps both back,
/// and the third was sent at the position of the first.
#[test]
fn a_third_transaction_of_an_author_is_postponed_and_does_not_leave_early() {
    let play = Play::new()
        .writes(
            From("ann", 0, 1, "01T10"),
            &[("create", "1", json!({})), ("create", "2", json!({})), ("create", "3", json!({}))],
        )
        .writes(From("ann", 1, 5, "01T11"), &[("update", "2", json!({"a": 1}))])
        .writes(From("ann", 1, 6, "01T12"), &[("update", "3", json!({"a": 1}))])
        .writes(From("bob", 6, 7, "07T10"), &[("update", "1", json!({"phone": "of bob"}))])
        .writes(From("ann", 1, 9, "08T10"), &[("update", "1", json!({"phone": "of ann"}))])
        .comes_to("1", json!({"phone": "of ann"}))
        .comes_to("2", json!({"a": 1}))
        .comes_to("3", json!({"a": 1}));
    let report = play.holds();
    assert_eq!(report["oracle"]["explained"], json!([]));
    assert_eq!(
        (&report["writes"]["postponed_transactions"], &report["records_in_conflict"]),
        (&json!(1), &json!(1))
    );
}

/// From the shipped history: two people's changes arrive at one position, the second made on top of
/// the first, with a base position that has neither.
#[test]
fn a_change_of_what_the_base_position_lacks_is_written_at_its_own_position() {
    let play = Play::new()
        .writes(From("ann", 0, 1, "01T10"), &[("create", "1", json!({"stage": "new"}))])
        .writes(
            From("ann", 1, 2, "02T10"),
            &[("create", "2", json!({})), ("update", "1", json!({"stage": "hot"}))],
        )
        .writes(
            From("bob", 1, 2, "02T11"),
            &[
                ("delete", "2", Value::Null),
                ("update", "1", json!({"stage": "new", "seen": true})),
                ("delete", "9", Value::Null),
                ("update", "8", json!({"a": 1, "b": null})),
            ],
        )
        .comes_to("1", json!({"stage": "new", "seen": true}))
        .comes_to("8", json!({"a": 1}));
    let report = play.holds();
    assert_eq!(report["oracle"]["explained"], json!([]));
    let writes = &report["writes"];
    assert_eq!(
        (&writes["late"], &writes["deletes_left_out"], &writes["updates_as_creates"]),
        (&json!(4), &json!(1), &json!(1))
    );
}

#[test]
fn a_create_of_what_is_there_replaces_it_whole() {
    let play = Play::new()
        .writes(From("ann", 0, 1, "01T10"), &[("create", "1", json!({"a": 1, "b": 1}))])
        .writes(From("bob", 1, 2, "02T10"), &[("create", "1", json!({"b": 2}))])
        .comes_to("1", json!({"b": 2}));
    assert_eq!(play.holds()["writes"]["creates_as_replaces"], 1);
}

/// From another history: bob deletes what ann made. Eve, who has read that, creates it again with
/// the same fields, before bob's deletion arrives by the positions. Her base position has ann's
/// record, so her create became a replace without an effect, and the record ended deleted.
#[test]
fn a_create_by_who_had_seen_a_deletion_that_the_base_position_lacks_makes_the_record_again() {
    let fields = json!({"name": "Ann", "role": "mayor"});
    let play = Play::new()
        .writes(From("ann", 0, 1, "01T10"), &[("create", "1", fields.clone())])
        .writes(From("bob", 1, 3, "02T10"), &[("delete", "1", Value::Null)])
        .writes(From("eve", 2, 4, "03T10"), &[("create", "1", fields.clone())])
        .comes_to("1", fields);
    let report = play.holds();
    assert_eq!(report["oracle"]["explained"], json!([]));
    assert_eq!(
        (&report["writes"]["late"], &report["writes"]["creates_as_replaces"]),
        (&json!(1), &json!(0))
    );
}

#[test]
fn what_follows_a_late_create_in_its_transaction_is_late_too() {
    let play = Play::new()
        .writes(
            From("ann", 0, 1, "01T10"),
            &[("create", "1", json!({"a": 1})), ("create", "2", json!({"a": 1}))],
        )
        .writes(
            From("bob", 1, 2, "02T10"),
            &[("delete", "1", Value::Null), ("delete", "2", Value::Null)],
        )
        .writes(
            From("eve", 1, 3, "03T10"),
            &[
                ("create", "1", json!({"a": 1})),
                ("update", "1", json!({"a": 2, "b": 3})),
                ("create", "2", json!({"a": 1})),
                ("delete", "2", Value::Null),
            ],
        )
        .comes_to("1", json!({"a": 2, "b": 3}));
    let report = play.holds();
    assert_eq!(report["oracle"]["explained"], json!([]));
    assert_eq!(report["writes"]["late"], 4);
}

#[test]
fn a_create_that_arrives_with_the_deletion_that_it_stands_on_makes_the_record_again() {
    let play = Play::new()
        .writes(From("ann", 0, 1, "01T10"), &[("create", "1", json!({"a": 1, "b": 1}))])
        .writes(From("bob", 1, 2, "02T10"), &[("delete", "1", Value::Null)])
        .writes(From("eve", 1, 2, "02T11"), &[("create", "1", json!({"a": 1}))])
        .comes_to("1", json!({"a": 1}));
    assert_eq!(play.holds()["oracle"]["explained"], json!([]));
}

#[test]
fn a_transaction_over_the_limits_is_split_and_arrives_whole() {
    let mutations: Vec<_> =
        (0..2_300).map(|number| (number.to_string(), json!({"number": number}))).collect();
    let creates: Vec<_> =
        mutations.iter().map(|(id, payload)| ("create", id.as_str(), payload.clone())).collect();
    let mut play = Play::new().writes(From("ann", 0, 1, "01T10"), &creates);
    for (id, payload) in &mutations {
        play = play.comes_to(id, payload.clone());
    }
    let report = play.holds();
    assert_eq!(report["writes"]["split_parts"], 3);
    assert_eq!((&report["records"], &report["units"]), (&json!(2_300), &json!(3)));
}

/// The large stream of `docs/play.md`, scaled down, but with its largest transaction.
#[test]
fn a_made_up_stream_with_a_transaction_of_3_400_ops_ends_equal_everywhere() {
    let folder = TempDir::new().unwrap();
    let (stream, table) =
        (folder.path().join("stream.jsonl.gz"), folder.path().join("table.jsonl"));
    generate(MadeUp { mutations: 5_000, devices: Some(40), seed: 1 }, &stream, &table).unwrap();
    let report = holding(run(&stream, &table, |_| ()));
    assert_eq!(report["mutations"], 5_000);
    assert_eq!(report["devices"], 35, "of 40, those that are drawn to write something");
    assert_eq!(report["equal_devices"], 35);
    assert_eq!(report["oracle"]["unexplained"], json!([]));
    assert_eq!((&report["pending_ops"], &report["dead_letters"]), (&json!(0), &json!(0)));
    // 1,000 ops are the most that one transaction may have.
    assert_eq!(
        (&report["writes"]["split_transactions"], &report["writes"]["split_parts"]),
        (&json!(1), &json!(4))
    );
}

#[test]
fn a_line_that_is_no_mutation_is_named_by_its_number() {
    let mut play = Play::new().writes(From("ann", 0, 1, "01T10"), &[("create", "1", json!({}))]);
    let mut second = play.lines[0].clone();
    second["base_pos"] = json!(7);
    play.lines.push(second);
    let said = said(&play.run().unwrap_err());
    assert!(said.contains("line 2 has a base_pos that is not below its pos"), "{said}");
}
