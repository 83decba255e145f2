//! The runner itself: it must fail a wrong case.

use serde_json::{Value, json};

use super::{FileReport, Manner, run_text};

const EXAMPLES: &str = include_str!("../../../spec/examples.jsonl");

fn run(case: &Value) -> FileReport {
    run_text(&case.to_string(), Manner::default(), 0..1)
}

#[track_caller]
fn expect_failure(case: &Value, words: &str) {
    let report = run(case);
    assert!(report.unreadable.is_empty() && report.passed == 0 && report.skipped == 0, "{case}");
    let [failed] = report.failed.as_slice() else { panic!("expected one failure: {report:?}") };
    assert!(
        failed.differences.iter().any(|difference| difference.contains(words)),
        "{:?}",
        failed.differences
    );
}

fn case() -> Value {
    json!({
        "id": "t-1", "title": "an update is sent", "kind": "trace",
        "given": {"local": {"cursor": 3, "rows": {"lead/L1": {"version": 1, "payload": {"a": "0"}}}, "queue": []}},
        "steps": [
            {"do": "edit", "op": "update", "key": "lead/L1", "payload": {"a": "1"}},
            {"do": "push", "results": [{"key": "lead/L1", "result": "retryable", "code": "503"}]},
        ],
        "expect": {
            "sent": [[["update", "lead/L1", {"a": "1"}]]], "queue": [["update", "lead/L1", {"a": "1"}]],
            "view": {"lead/L1": {"a": "1"}}, "tries": {"lead/L1": 1}, "cursor": 3,
        },
    })
}

#[test]
fn a_case_that_holds_passes() {
    let report = run(&case());
    assert_eq!((report.passed, report.is_good()), (1, true), "{report:?}");
}

/// Returns the ways in which a case's expectation can be made wrong.
fn wrong_expectations(expect: &Value) -> Vec<(&'static str, Value)> {
    let extra = |name: &str, item: Value| {
        let mut items = expect.get(name).cloned().unwrap_or_else(|| json!([]));
        items.as_array_mut().unwrap().push(item);
        items
    };
    let mut wrong = vec![
        ("dead", extra("dead", json!({"key": "lead/L1", "op": "update", "code": "never"}))),
        (
            "conflicts",
            extra("conflicts", json!({"key": "lead/L1", "op": "update", "lost": {"never": 1}})),
        ),
        ("tries", json!({"lead/L1": 99})),
        ("cursor", json!(77)),
        ("fates", json!({"lead/L1": ["never"]})),
        ("held", json!({"lead/L1": "never"})),
        ("status", json!({"lead/L1": "never"})),
        ("settled", json!([{"key": "lead/never"}])),
        ("entries", json!(0)),
    ];
    if expect.get("queue").is_some() {
        wrong.push(("queue", extra("queue", json!(["update", "lead/L1", {"never": 1}]))));
    }
    if expect.get("sent").is_some() {
        wrong.push(("sent", extra("sent", json!([]))));
    }
    wrong.push(("sent_any_of", json!([[[["delete", "lead/never", null]]]])));
    for key in
        expect.get("view").and_then(Value::as_object).into_iter().flat_map(|view| view.keys())
    {
        let mut view = expect["view"].clone();
        view[key] = json!({"never": 1});
        wrong.push(("view", view));
    }
    wrong
}

#[test]
fn every_wrong_expectation_fails_in_every_example() {
    let mut checked = 0;
    for line in EXAMPLES.lines() {
        let right: Value = serde_json::from_str(line).unwrap();
        for (member, wrong) in wrong_expectations(&right["expect"]) {
            let mut case = right.clone();
            case["expect"][member] = wrong;
            let report = run(&case);
            assert_eq!((report.passed, report.failed.len()), (0, 1), "{member} in {case}");
            checked += 1;
        }
    }
    assert!(checked > 250, "{checked}");
}

#[test]
fn dead_letters_and_conflicts_that_are_not_named_fail() {
    for (id, member) in [("fail-003", "dead"), ("reb-020", "conflicts")] {
        let line = EXAMPLES.lines().find(|line| line.contains(id)).unwrap();
        let mut case: Value = serde_json::from_str(line).unwrap();
        case["expect"].as_object_mut().unwrap().remove(member);
        expect_failure(&case, member);
    }
}

#[test]
fn a_difference_says_what_was_expected_and_what_was_seen() {
    let mut wrong = case();
    wrong["expect"]["view"]["lead/L1"] = json!({"a": "2"});
    expect_failure(&wrong, r#"view of lead/L1: expected {"a":"2"}, got {"a":"1"}"#);
}

#[test]
fn an_unknown_step_fails_the_case() {
    let mut wrong = case();
    wrong["steps"][1]["do"] = json!("fly");
    expect_failure(&wrong, "unknown variant `fly`");
}

#[test]
fn a_member_that_nobody_would_check_fails_the_case() {
    let mut expect = case();
    expect["expect"]["que"] = json!([]);
    let mut step = case();
    step["steps"][0]["payloads"] = json!({});
    let mut given = case();
    given["given"]["local"]["row"] = json!({});
    for wrong in [expect, step, given] {
        expect_failure(&wrong, "unknown field");
    }
}

#[test]
fn a_refusal_that_the_case_names_must_come_and_be_that_one() {
    let with = |op: &str, refused: &str| {
        let mut case = case();
        let edit = json!({"do": "edit", "op": op, "key": "lead/L1", "payload": {"a": "9"}, "refused": refused});
        case["steps"].as_array_mut().unwrap().insert(0, edit);
        case
    };
    assert_eq!(run(&with("create", "exists")).passed, 1);
    expect_failure(&with("create", "missing"), "expected to be refused as missing");
    expect_failure(&with("update", "exists"), "it was taken");
}

#[test]
fn a_case_of_another_kind_is_skipped() {
    let report = run(&json!({"id": "w-1", "title": "a wire case", "kind": "wire", "whatever": 1}));
    assert_eq!((report.passed, report.skipped, report.is_good()), (0, 1, true));
}

#[test]
fn a_line_that_is_no_case_makes_the_file_bad_and_the_others_still_run() {
    let text = format!("{}\n{{\"id\": \n\n[1]\n{{\"id\": \"x\"}}\n", case());
    let report = run_text(&text, Manner::default(), 0..1);
    assert_eq!((report.passed, report.is_good()), (1, false));
    assert_eq!(report.unreadable.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4, 5]);
}

#[test]
fn an_id_that_stands_twice_fails() {
    let text = format!("{}\n{}", case(), case());
    let report = run_text(&text, Manner::default(), 0..1);
    assert_eq!((report.passed, report.failed.len()), (1, 1));
}

#[test]
fn a_queue_is_given_with_the_tries_that_it_had() {
    let case = json!({
        "id": "t-2", "title": "what was tried leads, what was not keeps its place", "kind": "trace",
        "given": {"local": {"cursor": 1, "rows": {"lead/L1": {"version": 1, "payload": {"a": "0"}}}, "queue": [
            {"op": "update", "key": "lead/L1", "payload": {"a": "1"}, "tries": 0},
            {"op": "create", "key": "lead/L2", "payload": {"a": "2"}, "tries": 4},
            {"op": "create", "key": "lead/L3", "payload": {"a": "3"}, "tries": 1},
        ]}},
        "steps": [{"do": "push", "results": [{"key": "lead/L2", "result": "retryable", "code": "503"}]}],
        "expect": {
            "queue": [["update", "lead/L1", {"a": "1"}], ["create", "lead/L3", {"a": "3"}]],
            "tries": [0, 1], "dead": [{"key": "lead/L2", "op": "create", "code": "503"}],
        },
    });
    let report = run(&case);
    assert_eq!(report.passed, 1, "{report:?}");
}
