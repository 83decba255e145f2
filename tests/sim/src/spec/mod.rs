//! Runs spec cases: the sync rules as data (`tests/spec/README.md`), against a real book and a scripted server.
//!
//! ```text
//!   case.rs     the language           world.rs      a book driven by hand     compare.rs   expected against seen
//!   answer.rs   what the server says   exchange.rs   what goes between them    owed.rs      what is still owed
//!                                                                              fate.rs      what became of each op
//! ```
//!
//! After every step, whatever the case expects at its end:
//! 1. the tables are what the log comes to when it is folded anew, and so is the plan;
//! 2. every hash of the log is right;
//! 3. every op has ended at most once, and the tail is exactly what has not ended.

mod answer;
mod case;
mod clock;
mod compare;
mod disk;
mod exchange;
mod fate;
mod fault;
mod owed;
mod world;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use fieldbook::{EntityType, RecordKey};
use serde_json::Value;

use case::{Case, TRACE};
use fate::Fates;
use fault::Fault;
use world::World;

/// How cases are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manner {
    /// Whether the book is closed and opened again after every step, which must make no difference.
    pub reopening: bool,
}

/// What came of a file.
#[derive(Debug, Default)]
pub struct FileReport {
    /// How many cases passed.
    pub passed: usize,
    /// How many are of a kind that is not run.
    pub skipped: usize,
    /// What failed.
    pub failed: Vec<FailedCase>,
    /// Lines that are no cases, from 1, and why.
    pub unreadable: Vec<(usize, String)>,
}

/// A case that did not end as it should.
#[derive(Debug)]
pub struct FailedCase {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Each difference, in words.
    pub differences: Vec<String>,
}

impl FileReport {
    /// Returns whether every line is a case, and none failed.
    pub fn is_good(&self) -> bool {
        self.failed.is_empty() && self.unreadable.is_empty()
    }
}

/// Runs a file of cases, one a line.
///
/// # Errors
/// If the file cannot be read.
pub fn run_file(path: &Path, manner: Manner) -> io::Result<FileReport> {
    Ok(run_text(&std::fs::read_to_string(path)?, manner))
}

/// Runs cases, one a line. Empty lines are passed over.
pub fn run_text(text: &str, manner: Manner) -> FileReport {
    let mut report = FileReport::default();
    let mut seen = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let value = match serde_json::from_str::<Value>(line) {
            Ok(value) => value,
            Err(error) => {
                report.unreadable.push((number, error.to_string()));
                continue;
            }
        };
        let member = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let (Some(id), Some(kind)) = (member("id"), member("kind")) else {
            report.unreadable.push((number, "a case is an object with an id and a kind".to_owned()));
            continue;
        };
        let title = member("title").unwrap_or_default();
        let is_repeated = !seen.insert(id.clone());
        if kind != TRACE {
            report.skipped += 1;
            continue;
        }
        let mut differences = run_case(value, manner);
        if is_repeated {
            differences.push("another case of this file has the same id".to_owned());
        }
        if differences.is_empty() {
            report.passed += 1;
        } else {
            report.failed.push(FailedCase { id, title, differences });
        }
    }
    report
}

/// Runs one case and returns every difference.
fn run_case(value: Value, manner: Manner) -> Vec<String> {
    let mut entities = BTreeSet::new();
    collect_entities(&value, &mut entities);
    let case: Case = match serde_json::from_value(value) {
        Ok(case) => case,
        Err(error) => return vec![format!("not a case: {error}")],
    };
    let mut world = match World::new(case.given, entities) {
        Ok(world) => world,
        Err(fault) => return vec![format!("given: {fault}")],
    };
    for (number, step) in (1..).zip(case.steps) {
        let done = world.step(step).and_then(|()| {
            if manner.reopening && !case.one_run {
                world.reopen(std::collections::BTreeMap::new())?;
            }
            check_promises(&world)
        });
        if let Err(fault) = done {
            return vec![format!("step {number}: {fault}")];
        }
    }
    let mut differences = match compare::differences(&case.expect, &world) {
        Ok(differences) => differences,
        Err(fault) => vec![format!("at the end: {fault}")],
    };
    if !differences.is_empty() {
        differences.extend(world.refusals.iter().map(|refusal| format!("(an edit was refused: {refusal})")));
    }
    differences
}

/// Collects the entity types of all keys that a case names, so that each has a cursor.
fn collect_entities(value: &Value, entities: &mut BTreeSet<EntityType>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_entities(item, entities)),
        Value::Object(members) => {
            entities.extend(members.get("key").and_then(Value::as_str).and_then(entity_of));
            if let Some(Value::Object(rows)) = members.get("rows") {
                entities.extend(rows.keys().filter_map(|key| entity_of(key)));
            }
            members.values().for_each(|member| collect_entities(member, entities));
        }
        _ => {}
    }
}

fn entity_of(key: &str) -> Option<EntityType> {
    key.parse::<RecordKey>().ok().map(|key| key.entity)
}

/// Checks what holds after every step.
fn check_promises(world: &World) -> Result<(), Fault> {
    let book = world.book()?;
    Fates::read(book)?.check_tail(book)?;
    if let Err(damage) = book.verify(|_| {})? {
        return Err(Fault::Broken(format!("the log does not verify: {damage:?}")));
    }
    let plan = book.plan();
    if let Some(table) = book.check_tables()? {
        return Err(Fault::Broken(format!("the table `{table}` is not what the log comes to")));
    }
    if plan != book.plan() {
        return Err(Fault::Broken("the tail in memory is not what the log comes to".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
