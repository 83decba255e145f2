//! `docs/traceability.md` has every row of the fault model, and names only tests that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fieldbook_sim::fuzz::TARGETS;

/// The fault tables, the invariants of the fault model, the faults found by using the product, and
/// what the log says of the device: a letter, and the number of its rows.
const ROWS: &[(&str, u32)] = &[
    ("F", 12),
    ("N", 19),
    ("V", 9),
    ("C", 8),
    ("M", 12),
    ("S", 20),
    ("X", 8),
    ("L", 8),
    ("T", 29),
    ("H", 6),
    ("P", 20),
    ("Q", 3),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(&path))
        .unwrap_or_else(|_| panic!("{}", path.as_ref().display()))
}

/// Returns the rows by their names, with the tests that show them.
fn rows() -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for line in text("docs/traceability.md").lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["", row, _, shown, ""] = cells.as_slice()
            && row.ends_with(|last: char| last.is_ascii_digit())
        {
            assert!(
                rows.insert((*row).to_owned(), (*shown).to_owned()).is_none(),
                "{row} stands twice"
            );
        }
    }
    rows
}

/// Returns the texts between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_row_of_the_fault_model_is_there_and_no_other() {
    let expected: BTreeSet<_> = ROWS
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |row| format!("{letter}{row}")))
        .collect();
    let found: BTreeSet<_> = rows().into_keys().collect();
    assert_eq!(found, expected);
}

#[test]
fn every_test_that_is_named_exists() {
    let mut named = 0;
    for (row, shown) in rows() {
        for test in code(&shown).filter(|code| code.contains("::")) {
            let (file, name) = test.split_once("::").unwrap();
            let source = text(file);
            let at = source
                .find(&format!("fn {name}("))
                .unwrap_or_else(|| panic!("{row}: there is no {test}"));
            let before: Vec<_> = source.get(..at).unwrap().lines().rev().take(6).collect();
            let is_test = before
                .iter()
                .any(|line| line.contains("#[test]") || line.contains("#[tokio::test"));
            assert!(is_test, "{row}: {test} is no test");
            named += 1;
        }
    }
    assert!(named > 80, "only {named} tests are named");
}

#[test]
fn every_fuzz_target_and_planted_bug_that_is_named_exists() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    for (row, shown) in rows() {
        for part in shown.split(';').map(str::trim) {
            if let Some(list) = part.strip_prefix("fuzz target") {
                code(list).for_each(|target| {
                    assert!(targets.contains(target), "{row}: no target {target}")
                });
            }
            if let Some(list) = part.strip_prefix("planted ") {
                for bug in code(list) {
                    assert!(
                        root().join(format!("tests/planted/{bug}.patch")).exists(),
                        "{row}: no bug {bug}"
                    );
                }
            }
        }
    }
}

/// A row without a test gives the reason.
#[test]
fn every_row_says_what_shows_it_or_why_nothing_does() {
    for (row, shown) in rows() {
        let shows = shown.contains("::")
            || shown.contains("World")
            || shown.contains("fuzz target")
            || shown.contains("the same")
            || shown.starts_with("not tested: ");
        assert!(shows, "{row} says nothing: {shown}");
    }
}
