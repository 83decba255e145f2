//! All that a book does, as scenarios.

use std::thread;
use std::time::Duration;

use fieldbook::conflict::Choice;
use fieldbook::schema::IndexRule;
use fieldbook::sync::protocol::{ExchangeRequest, Failure, Outcome, UnitOutcome};
use fieldbook::sync::{Resume, ServerEpoch};
use fieldbook::{Book, Error, Fields, Mutation};
use fieldbook_core::log::{Store, StoreOptions};
use serde_json::json;

use super::stage::{Stage, named, named_in, serve};

/// Something that a scenario does.
pub(super) type Step = fn(&mut Stage) -> Result<(), Error>;

/// A scenario: the state before, at rest, and then the steps during which the power may fail at any
/// point.
pub struct Scenario {
    /// The name of the scenario.
    pub name: &'static str,
    /// Whether it makes the same changes of the disk each time.
    pub repeats: bool,
    pub(super) before: &'static [Step],
    pub(super) steps: &'static [Step],
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "creation", repeats: true, before: &[], steps: &[create_some] },
    Scenario { name: "append", repeats: true, before: SYNCED, steps: &[append, append] },
    Scenario {
        name: "transaction",
        repeats: true,
        before: SYNCED,
        steps: &[transaction, transaction],
    },
    Scenario { name: "import", repeats: true, before: SYNCED, steps: &[import, append] },
    Scenario { name: "growth", repeats: true, before: SYNCED, steps: &[grow, grow] },
    Scenario { name: "group commit", repeats: false, before: SYNCED, steps: &[together, together] },
    Scenario { name: "plan", repeats: true, before: SYNCED, steps: &[append, plan, plan_again] },
    Scenario {
        name: "answer",
        repeats: true,
        before: SYNCED,
        steps: &[append, Stage::sync, transaction, Stage::sync],
    },
    Scenario {
        name: "failures",
        repeats: true,
        before: SYNCED,
        steps: &[append, not_now, not_allowed, Stage::sync],
    },
    Scenario {
        name: "dead letters",
        repeats: true,
        before: SYNCED,
        steps: &[refused, retried, corrected, refused, discarded],
    },
    Scenario { name: "pages", repeats: true, before: SYNCED, steps: &[others_write, Stage::sync] },
    Scenario {
        name: "rebase",
        repeats: true,
        before: SYNCED,
        steps: &[clash, Stage::sync, Stage::sync],
    },
    Scenario {
        name: "conflicts",
        repeats: true,
        before: SYNCED,
        steps: &[clash, Stage::sync, decide, flip, Stage::sync],
    },
    Scenario {
        name: "undo",
        repeats: true,
        before: SYNCED,
        steps: &[append, undo, Stage::sync, undo, Stage::sync],
    },
    Scenario {
        name: "rest",
        repeats: true,
        before: SYNCED,
        steps: &[append, rest, append, rest, Stage::sync, rest],
    },
    Scenario {
        name: "another server",
        repeats: true,
        before: SYNCED,
        steps: &[append, restored, Stage::sync, accept, Stage::sync],
    },
    Scenario {
        name: "rebuild",
        repeats: true,
        before: SYNCED,
        steps: &[append, fold, rebuild, append, rebuild],
    },
    Scenario {
        name: "compaction",
        repeats: true,
        before: WITH_HOLES,
        steps: &[compact, append, compact],
    },
    Scenario {
        name: "close",
        repeats: true,
        before: SYNCED,
        steps: &[append, reopen, append, reopen, reopen],
    },
    Scenario {
        name: NEW_INDEX,
        repeats: true,
        before: SYNCED,
        steps: &[append, reopen_by_text, append, reopen_by_number, append, reopen_by_text],
    },
];

/// The scenario in which each opening declares other indexes.
const NEW_INDEX: &str = "new index";

impl Scenario {
    /// Returns the indexes with which a book is opened after the scenario: at each of its points
    /// some of them are to be built.
    pub(super) fn indexes(&self) -> Vec<IndexRule> {
        let by_number = IndexRule::new("by_number").desc("number").asc("text");
        if self.name == NEW_INDEX { vec![by_number, "text".into()] } else { Vec::new() }
    }
}

const SYNCED: &[Step] = &[create_some, Stage::sync];
const WITH_HOLES: &[Step] = &[create_some, grow, Stage::sync, empty];

fn create_some(stage: &mut Stage) -> Result<(), Error> {
    for number in 0..3 + 4 * (stage.variant / 3) {
        let fields = stage.fields(number);
        stage.call(|book| book.records().create(named(&number.to_string())?, fields.clone()))?;
        stage.call(|book| book.records().create(named_in("note", &number.to_string())?, fields))?;
    }
    Ok(())
}

fn rest(stage: &mut Stage) -> Result<(), Error> {
    stage.call(Book::rest)
}

/// Writes one op of each kind.
fn append(stage: &mut Stage) -> Result<(), Error> {
    let id = format!("new-{}", stage.acks.len());
    let (fields, other) = (stage.fields(7), stage.fields(8));
    stage.call(|book| book.records().create(named(&id)?, fields.clone()))?;
    stage.call(|book| book.records().update(named("0")?, other.clone()))?;
    stage.call(|book| {
        book.records().replace(named("1")?, Fields::from_iter([("b".to_owned(), json!(id))]))
    })?;
    stage.call(|book| {
        book.records().update(named("0")?, Fields::from_iter([("c".to_owned(), json!(id))]))
    })?;
    stage.call(|book| book.records().delete(named(&id)?))?;
    stage.call(|book| book.records().create(named(&id)?, other))?;
    Ok(())
}

fn transaction(stage: &mut Stage) -> Result<(), Error> {
    let id = format!("t-{}", stage.acks.len());
    let mutations = vec![
        Mutation::create(named(&id)?, stage.fields(1)),
        Mutation::update(named("0")?, Fields::from_iter([("d".to_owned(), json!(id))])),
        Mutation::create(named_in("note", &id)?, stage.fields(2)),
        Mutation::update(named_in("note", "0")?, Fields::from_iter([("d".to_owned(), json!(id))])),
    ];
    stage.call(|book| book.transaction(mutations))?;
    stage.call(|book| {
        book.transaction(vec![
            Mutation::delete(named(&id)?),
            Mutation::delete(named_in("note", &id)?),
        ])
    })?;
    Ok(())
}

/// Writes many entries in one commit.
fn import(stage: &mut Stage) -> Result<(), Error> {
    let mutations: Result<Vec<_>, Error> = (100..115)
        .map(|number| Ok(Mutation::create(named(&number.to_string())?, stage.fields(number))))
        .collect();
    let mutations = mutations?;
    stage.call(|book| book.import(mutations)).map(drop)
}

/// Writes so much at once that the file grows.
fn grow(stage: &mut Stage) -> Result<(), Error> {
    let text = "x".repeat(200_000);
    let from = stage.acks.len();
    let mutations: Result<Vec<_>, Error> = (from..from + 3)
        .map(|number| {
            let fields = Fields::from_iter([("text".to_owned(), json!(text))]);
            Ok(Mutation::create(named(&format!("large-{from}-{number}"))?, fields))
        })
        .collect();
    let mutations = mutations?;
    stage.call(|book| book.import(mutations)).map(drop)
}

/// Writes from several threads at the same time: the first commit takes long, and the other threads
/// share the next commit.
fn together(stage: &mut Stage) -> Result<(), Error> {
    let book = stage.book()?.clone();
    let (gate, fields) = (stage.gate.clone(), stage.fields(5));
    let from = stage.acks.len();
    gate.shut();
    let write = |number: usize| {
        let (book, fields) = (book.clone(), fields.clone());
        thread::spawn(move || book.records().create(named(&format!("together-{number}"))?, fields))
    };
    let mut writers = vec![write(from)];
    gate.await_arrival();
    writers.extend((1..5).map(|number| write(from + 100 * number)));
    // The wait is long enough for all threads to join the waiting round. A later thread has its own
    // round, which is also fine.
    thread::sleep(Duration::from_millis(20));
    gate.open();
    for writer in writers {
        writer.join().map_err(|_| Error::Interrupted)??;
    }
    drop(book);
    stage.ack();
    Ok(())
}

fn plan(stage: &mut Stage) -> Result<(), Error> {
    stage.prepare(true).map(drop)
}

/// Sends units without an answer again, together with later writes.
fn plan_again(stage: &mut Stage) -> Result<(), Error> {
    append(stage)?;
    stage.prepare(true)?;
    Stage::sync(stage)
}

fn answered(stage: &mut Stage, outcome: &Outcome) -> Result<(), Error> {
    let Some(request) = stage.prepare(true)? else { return Ok(()) };
    let without = ExchangeRequest { units: Vec::new(), ..request.clone() };
    let now = stage.now();
    let mut answer = serve(&mut stage.server, &without, now)?;
    let outcomes =
        request.units.iter().map(|unit| UnitOutcome { unit: unit.id, outcome: outcome.clone() });
    answer.outcomes.extend(outcomes);
    stage.call(|book| book.exchange().apply_answer(&request, answer)).map(drop)
}

fn not_now(stage: &mut Stage) -> Result<(), Error> {
    let (code, message) = ("simulated".to_owned(), "not now".to_owned());
    answered(stage, &Outcome::Transient { code, message, retry_after_milliseconds: None })?;
    stage.clock.advance(3_600_000);
    let Some(request) = stage.prepare(true)? else { return Ok(()) };
    let failure =
        Failure::Transient { code: "simulated".to_owned(), retry_after: None, marked: true };
    stage.call(|book| book.exchange().fail(&request, &failure))?;
    // A single unit is isolated, and several units are split. Each of these is one decision.
    stage.call(|book| book.exchange().isolate(&request, &failure, fieldbook::limits::STRIKES))?;
    stage.clock.advance(3_600_000);
    Ok(())
}

fn not_allowed(stage: &mut Stage) -> Result<(), Error> {
    let Some(request) = stage.prepare(true)? else { return Ok(()) };
    let failure = Failure::Unauthorized { code: "simulated".to_owned() };
    stage.call(|book| book.exchange().fail(&request, &failure))?;
    stage.call(|book| book.servers().resume(Resume::Authenticated))
}

/// Sends changes that the server refuses for good.
fn refused(stage: &mut Stage) -> Result<(), Error> {
    let id = format!("bad-{}", stage.acks.len());
    let fields = stage.fields(1);
    stage.call(|book| book.records().create(named(&id)?, fields))?;
    stage.call(|book| {
        let more = Fields::from_iter([("bad".to_owned(), json!(id))]);
        book.transaction(vec![
            Mutation::update(named("0")?, more.clone()),
            Mutation::update(named("1")?, more),
        ])
    })?;
    answered(
        stage,
        &Outcome::Rejected { code: "simulated".to_owned(), message: "never".to_owned() },
    )
}

fn retried(stage: &mut Stage) -> Result<(), Error> {
    let dead = stage.book()?.dead_letters().all()?.into_iter().map(|row| row.op).collect();
    stage.call(|book| book.dead_letters().retry(dead))?;
    answered(
        stage,
        &Outcome::Rejected { code: "simulated".to_owned(), message: "never".to_owned() },
    )
}

fn corrected(stage: &mut Stage) -> Result<(), Error> {
    let dead = stage.book()?.dead_letters().all()?;
    let Some(letter) = dead.first() else { return Ok(()) };
    let better = Fields::from_iter([("better".to_owned(), json!(true))]);
    stage.call(|book| book.dead_letters().correct(letter.op, better))?;
    stage.sync()
}

fn discarded(stage: &mut Stage) -> Result<(), Error> {
    let dead = stage.book()?.dead_letters().all()?.into_iter().map(|row| row.op).collect();
    stage.call(|book| book.dead_letters().discard(dead, "never"))?;
    stage.sync()
}

/// Makes the other device write and send more than two pages of changes.
fn others_write(stage: &mut Stage) -> Result<(), Error> {
    for number in 0..12 {
        let fields = stage.fields(number);
        stage.other.records().create(named(&format!("theirs-{number}"))?, fields)?;
    }
    stage.sync_other()
}

/// Makes both devices edit the same records, the other device later, and makes the other device
/// sync.
fn clash(stage: &mut Stage) -> Result<(), Error> {
    stage.sync_other()?;
    let edit =
        |by: &str| Fields::from_iter([("number".to_owned(), json!(by)), (by.to_owned(), json!(1))]);
    for entity in ["lead", "note"] {
        for (id, change) in [("0", true), ("1", true), ("2", false)] {
            stage.call(|book| book.records().update(named_in(entity, id)?, edit("ours")))?;
            stage.clock.advance(1_000);
            if change {
                stage.other.records().update(named_in(entity, id)?, edit("theirs"))?;
            } else {
                stage.other.records().delete(named_in(entity, id)?)?;
            }
        }
    }
    stage.sync_other()
}

/// Resolves every open conflict, as a person does.
fn decide(stage: &mut Stage) -> Result<(), Error> {
    let conflicts = stage.book()?.conflicts().all()?;
    for (number, conflict) in conflicts.iter().filter(|conflict| conflict.open).enumerate() {
        let choice = if number % 2 == 0 { Choice::Local } else { Choice::Remote };
        stage.call(|book| book.conflicts().resolve(conflict.id, choice))?;
    }
    Ok(())
}

/// Flips a resolved conflict, as a person does.
fn flip(stage: &mut Stage) -> Result<(), Error> {
    let conflicts = stage.book()?.conflicts().all()?;
    for conflict in conflicts.iter().filter(|conflict| !conflict.open).take(2) {
        match stage.call(|book| book.conflicts().flip(conflict.id)) {
            Ok(_) | Err(Error::NotPossible(_) | Error::Rejected(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Undoes the last op: the op is cancelled, or another op reverses it.
fn undo(stage: &mut Stage) -> Result<(), Error> {
    let change = Fields::from_iter([("wrong".to_owned(), json!(stage.acks.len()))]);
    let written = stage.call(|book| book.records().update(named("0")?, change))?;
    if stage.acks.len().is_multiple_of(2) {
        stage.sync()?;
    }
    let Some(op) = written.op() else { return Ok(()) };
    let place = stage.book()?.queue().find(op)?;
    let Some(place) = place else { return Ok(()) };
    stage.call(|book| book.queue().undo(place)).map(drop)
}

/// Starts a new epoch of the server's store.
fn restored(stage: &mut Stage) -> Result<(), Error> {
    stage.server.start_epoch(ServerEpoch::from_bytes([3; 16]));
    Ok(())
}

fn accept(stage: &mut Stage) -> Result<(), Error> {
    stage.call(|book| book.servers().accept_only())
}

fn fold(stage: &mut Stage) -> Result<(), Error> {
    stage.call(|book| book.audit().fold_lazy())
}

fn rebuild(stage: &mut Stage) -> Result<(), Error> {
    stage.call(|book| book.audit().rebuild(|_| {})).map(drop)
}

/// Deletes the large records, so that the file has holes.
fn empty(stage: &mut Stage) -> Result<(), Error> {
    let large = stage.book()?.records().list(&named("0")?.entity, None, usize::MAX)?;
    for record in large.iter().filter(|record| record.json.len() > 100_000) {
        stage.call(|book| book.records().delete(record.key()))?;
    }
    stage.sync()
}

fn compact(stage: &mut Stage) -> Result<(), Error> {
    compacted(stage).map(drop)
}

fn compacted(stage: &mut Stage) -> Result<bool, Error> {
    stage.close()?;
    let options = StoreOptions { cache_bytes: 1024 * 1024, read_only: false };
    let mut store = Store::with_backend(stage.disk.clone(), &options)?;
    let did = store.compact()?;
    store.close()?;
    stage.open_book()?;
    Ok(did)
}

fn reopen(stage: &mut Stage) -> Result<(), Error> {
    stage.close()?;
    stage.open_book()
}

fn reopen_by_text(stage: &mut Stage) -> Result<(), Error> {
    stage.indexes = vec!["text".into()];
    reopen(stage)
}

fn reopen_by_number(stage: &mut Stage) -> Result<(), Error> {
    stage.indexes = vec!["number".into(), IndexRule::new("text").desc("text")];
    reopen(stage)
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scenario({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Start, stage_of};
    use super::*;

    #[test]
    fn there_is_something_to_compact() {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == "compaction").unwrap();
        let did = (0..3).filter(|variant| {
            let start = Start::new(scenario, *variant).unwrap();
            compacted(&mut stage_of(&start).unwrap()).unwrap()
        });
        assert!(did.count() > 0);
    }
}
