//! Runs spec cases: the sync rules as data (`tests/spec/README.md`), against a real book and a
//! scripted server.
//!
//! ```text
//!   case.rs     the language           world.rs      a book driven by hand     compare.rs   expectation and result
//!   answer.rs   the server's answers   exchange.rs   the messages              owed.rs      the pending ops
//!   manner.rs   how cases are run      one_shot.rs   a process per exchange    fate.rs      the fate of each op
//!   declared.rs the app's declarations
//! ```
//!
//! After every step (with further seeds: at the end), whatever the case expects:
//! 1. the tables are the fold of the log, and so is the plan;
//! 2. every hash of the log is right;
//! 3. every op has ended at most once, and the tail has exactly the ops that have not ended;
//! 4. lost units are sent again unchanged: the same units, the same bytes, the same order.

mod answer;
mod case;
mod clock;
mod compare;
mod declared;
mod disk;
mod exchange;
mod fate;
mod fault;
mod manner;
mod one_shot;
mod owed;
mod stamps;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::Path;

use fieldbook::{EntityType, RecordKey};
use serde::Deserialize;
use serde_json::Value;

use case::{Case, TRACE};
use fate::Fates;
use fault::Fault;
use world::World;

use crate::seeds::{SeedRange, on_all_cores};

pub use manner::Manner;

/// The result of a file.
#[derive(Debug, Default)]
pub struct FileReport {
    /// How many cases passed.
    pub passed: usize,
    /// How many cases are of a kind that is not run.
    pub skipped: usize,
    /// The failures.
    pub failed: Vec<FailedCase>,
    /// The lines that are no cases, by number from 1, each with the reason.
    pub unreadable: Vec<(usize, String)>,
}

/// A case that did not end as expected.
#[derive(Debug)]
pub struct FailedCase {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// The seeds with which it failed.
    pub seeds: Vec<u64>,
    /// Each difference, in words.
    pub differences: Vec<String>,
}

impl FileReport {
    /// Returns whether every line is a case, and none failed.
    pub fn is_good(&self) -> bool {
        self.failed.is_empty() && self.unreadable.is_empty()
    }
}

/// A line that is a case to be run.
struct Line {
    id: String,
    title: String,
    value: Value,
    is_repeated: bool,
}

/// Runs a file of cases, one per line, each with all seeds.
///
/// # Errors
/// If the file cannot be read.
pub fn run_file(path: &Path, manner: Manner, seeds: Range<u64>) -> io::Result<FileReport> {
    Ok(run_text(&std::fs::read_to_string(path)?, manner, seeds))
}

/// Runs cases, one per line, each with all seeds. Empty lines are skipped.
pub fn run_text(text: &str, manner: Manner, seeds: Range<u64>) -> FileReport {
    let mut report = FileReport::default();
    let lines = read_lines(text, &mut report);
    let each = seeds.end.saturating_sub(seeds.start).max(1);
    let of =
        |run: u64| (usize::try_from(run / each).unwrap_or(usize::MAX), seeds.start + run % each);
    let failures = on_all_cores(SeedRange { from: 0, seeds: each * lines.len() as u64 }, |run| {
        let (line, seed) = of(run);
        let differences = run_case(lines.get(line)?, manner, seed, seed == seeds.start);
        (!differences.is_empty()).then_some(differences)
    });
    let mut failed: BTreeMap<usize, FailedCase> = BTreeMap::new();
    for (run, differences) in failures {
        let (number, seed) = of(run);
        let Some(line) = lines.get(number) else { continue };
        let (id, title) = (line.id.clone(), line.title.clone());
        let case = || FailedCase { id, title, seeds: Vec::new(), differences };
        failed.entry(number).or_insert_with(case).seeds.push(seed);
    }
    report.passed = lines.len() - failed.len();
    report.failed = failed.into_values().collect();
    report
}

/// Reads the lines that are cases of a kind that is run, and counts the others.
fn read_lines(text: &str, report: &mut FileReport) -> Vec<Line> {
    let (mut lines, mut seen) = (Vec::new(), BTreeSet::new());
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
            report
                .unreadable
                .push((number, "a case is an object with an id and a kind".to_owned()));
            continue;
        };
        let title = member("title").unwrap_or_default();
        let is_repeated = !seen.insert(id.clone());
        if kind == TRACE {
            lines.push(Line { id, title, value, is_repeated });
        } else {
            report.skipped += 1;
        }
    }
    lines
}

/// Runs one case and returns every difference. The invariants are checked after every step or,
/// because that costs more than the step, only at the end.
fn run_case(line: &Line, manner: Manner, seed: u64, after_every_step: bool) -> Vec<String> {
    let mut entities = BTreeSet::new();
    collect_entities(&line.value, &mut entities);
    let case = match Case::deserialize(&line.value) {
        Ok(case) => case,
        Err(error) => return vec![format!("not a case: {error}")],
    };
    let manner = match case.one_run {
        Some(_) => Manner { reopening: false, one_shot: false, ..manner },
        None => manner,
    };
    let mut world = match World::new(case.given, entities, manner, seed) {
        Ok(world) => world,
        Err(fault) => return vec![format!("given: {fault}")],
    };
    for (number, step) in (1..).zip(case.steps) {
        let done = world.step(step).and_then(|()| {
            if manner.reopening {
                world.reopen_as_it_is()?;
            }
            if after_every_step { check_promises(&world) } else { Ok(()) }
        });
        if let Err(fault) = done {
            return vec![format!("step {number}: {fault}")];
        }
    }
    let compared = check_promises(&world).and_then(|()| compare::differences(&case.expect, &world));
    let mut differences = match compared {
        Ok(differences) => differences,
        Err(fault) => vec![format!("at the end: {fault}")],
    };
    if !differences.is_empty() {
        differences.extend(
            world.refusals.iter().map(|refusal| format!("(an edit was refused: {refusal})")),
        );
    }
    if line.is_repeated {
        differences.push("another case of this file has the same id".to_owned());
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

/// Checks the invariants of every step.
fn check_promises(world: &World) -> Result<(), Fault> {
    let book = world.book()?;
    Fates::read(book)?.check_tail(book)?;
    if let Err(damage) = book.audit().verify(|_| {})?.into_result() {
        return Err(Fault::Broken(format!("the log does not verify: {damage:?}")));
    }
    let plan = book.queue().plan();
    if let Some(table) = book.audit().check_tables()?.differing.first() {
        return Err(Fault::Broken(format!("the table `{table}` is not what the log comes to")));
    }
    if plan != book.queue().plan() {
        return Err(Fault::Broken("the tail in memory is not what the log comes to".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
