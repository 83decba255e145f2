//! Runs the spec cases, in the manners that must make no difference, and checks that the rules'
//! document and the cases name each other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fieldbook_sim::spec::{Manner, run_file};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files() -> Vec<PathBuf> {
    let listed =
        std::fs::read_dir(root().join("tests/spec")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = listed
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    files
}

/// The number of seeds for each case: enough that ids drawn in one millisecond come in another
/// order.
const SEEDS: u64 = 3;

#[track_caller]
fn expect_all_good(manner: Manner) {
    let mut passed = 0;
    for file in files() {
        let report = run_file(&file, manner, 0..SEEDS).unwrap();
        assert!(
            report.is_good(),
            "{}: {:#?} {:#?}",
            file.display(),
            report.failed,
            report.unreadable
        );
        assert_eq!(report.skipped, 0, "{}", file.display());
        passed += report.passed;
    }
    assert!(passed >= 300, "only {passed} cases");
}

#[test]
fn every_case_holds() {
    expect_all_good(Manner::default());
}

#[test]
fn every_case_holds_when_the_book_is_opened_anew_after_every_step() {
    expect_all_good(Manner { reopening: true, ..Manner::default() });
}

/// Units were once sent again in the order of their ids, which are random. No case failed, because
/// no case lost a request.
#[test]
fn every_case_holds_when_a_request_is_lost_before_every_push() {
    expect_all_good(Manner { lost_requests: true, ..Manner::default() });
}

/// Failures were once kept in memory only, so they were lost if a process ended after each
/// exchange.
#[test]
fn every_case_holds_when_every_exchange_is_a_process_of_its_own() {
    expect_all_good(Manner { lost_requests: true, one_shot: true, ..Manner::default() });
}

#[test]
fn the_sync_rules_name_every_case_and_no_other() {
    let mut cases = BTreeSet::new();
    for file in files() {
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let id = case["id"].as_str().unwrap().to_owned();
            assert!(cases.insert(id.clone()), "{}: {id} stands twice", file.display());
        }
    }
    let rules = std::fs::read_to_string(root().join("docs/sync-rules.md")).unwrap();
    // In Markdown every second part between backticks is code.
    let code = rules.split('`').skip(1).step_by(2);
    let named: BTreeSet<_> = code.filter(|word| is_id(word)).map(str::to_owned).collect();
    let missing: Vec<_> = cases.difference(&named).collect();
    let unknown: Vec<_> = named.difference(&cases).collect();
    assert!(missing.is_empty(), "cases that docs/sync-rules.md does not name: {missing:?}");
    assert!(unknown.is_empty(), "docs/sync-rules.md names cases that do not exist: {unknown:?}");
}

/// Returns whether a text has the form of the id of a case: `word-12`.
fn is_id(word: &str) -> bool {
    word.rsplit_once('-').is_some_and(|(name, number)| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_lowercase())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}
