//! The growth of costs: the same operations beside 1,000, 10,000 and 100,000 others, as a table and
//! as pictures.
//!
//! Each point is the median of several rounds on a book in memory, without the variation of a disk.
//! `tests/what_waits.rs` of the crate `fieldbook` asserts the same by counting; nothing is asserted
//! here.

use std::path::Path;
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use fieldbook::host::{Clock, SystemClock};
use fieldbook::schema::Policy;
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest, Outcome, UnitOutcome};
use fieldbook::sync::{ExchangeParams, NextStep, ServerEpoch, ServerId};
use fieldbook::{
    Actor, Book, BookOptions, EntityRules, EntityType, Fields, Mutation, RecordId, RecordKey,
    Schema,
};
use fieldbook_core::authority::{Caller, MemoryAuthority, Quota, exchange};
use serde_json::{Value, json};

use crate::peer::Failure;
use crate::picture::{Series, picture};
use crate::race::Stopwatch;
use crate::report::duration;

/// The ops or records beside the measured operation.
#[derive(Clone, Copy)]
enum Beside {
    Waiting,
    LowerPriority,
    OtherActor,
    Conflicts,
    DeadLetters,
    SameRecord,
}

/// The measured operation.
#[derive(Clone, Copy)]
enum Thing {
    Write,
    /// An edit of the record that has all the other edits.
    Edit,
    Exchange,
    Explain,
    Open,
}

const LINES: [(&str, Beside, Thing); 12] = [
    ("an exchange of 50 ops, beside as many that wait", Beside::Waiting, Thing::Exchange),
    ("the same, beside ops of a lower priority", Beside::LowerPriority, Thing::Exchange),
    ("the same, beside ops of another actor", Beside::OtherActor, Thing::Exchange),
    ("the same, beside open conflicts", Beside::Conflicts, Thing::Exchange),
    ("the same, beside dead letters", Beside::DeadLetters, Thing::Exchange),
    ("a write, beside ops that wait", Beside::Waiting, Thing::Write),
    ("a write, beside open conflicts", Beside::Conflicts, Thing::Write),
    ("a write, beside dead letters", Beside::DeadLetters, Thing::Write),
    ("an edit of a record, beside its other unsent edits", Beside::SameRecord, Thing::Edit),
    ("a write, beside a record with unsent edits", Beside::SameRecord, Thing::Write),
    ("an explanation, beside ops that wait", Beside::Waiting, Thing::Explain),
    ("opening a book with ops that wait", Beside::Waiting, Thing::Open),
];
const ROUNDS: usize = 9;
const BATCH: usize = 50;

/// Measures every line at every size, returns the table, and draws the pictures in a folder if one
/// is given.
pub(crate) fn run(divisor: usize, pictures: Option<&Path>) -> Result<String, Failure> {
    let sizes = [1_000, 10_000, 100_000].map(|size| size / divisor);
    let mut series = Vec::new();
    for (name, beside, thing) in LINES {
        crate::say(&format!("{name} ..."));
        let points = sizes.iter().map(|size| Ok((*size, measure(beside, thing, *size)?)));
        series.push(Series {
            name: name.to_owned(),
            points: points.collect::<Result<_, Failure>>()?,
        });
    }
    if let Some(folder) = pictures {
        std::fs::create_dir_all(folder)?;
        for (file, title, thing) in [
            ("exchange.svg", "An exchange of 50 ops", Thing::Exchange),
            ("write.svg", "A write", Thing::Write),
        ] {
            let shown = LINES.iter().zip(&series).filter(|((.., of), _)| *of as u8 == thing as u8);
            std::fs::write(folder.join(file), picture(title, shown.map(|(_, series)| series)))?;
        }
    }
    Ok(table(&sizes, &series))
}

fn table(sizes: &[usize], series: &[Series]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    let header =
        ["median".to_owned()].into_iter().chain(sizes.iter().map(|size| format!("beside {size}")));
    table.set_header(header.chain(["last / first".to_owned()]));
    for line in series {
        let seconds: Vec<f64> = line.points.iter().map(|(_, seconds)| *seconds).collect();
        let ratio = seconds.last().zip(seconds.first()).map_or(0.0, |(last, first)| last / first);
        let row = [line.name.clone()].into_iter().chain(seconds.into_iter().map(duration));
        table.add_row(row.chain([format!("{ratio:.2}")]));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn measure(beside: Beside, thing: Thing, size: usize) -> Result<f64, Failure> {
    if let Thing::Open = thing {
        return opening(size);
    }
    let mut stage = Stage::new(beside, size)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let took = match thing {
            Thing::Write => {
                let mutation = mutation("fresh", size + round, "y")?;
                timed(|| stage.book.write(mutation))?
            }
            Thing::Edit => {
                let edit = Mutation::update(key("lead", 0)?, fields(json!({ "round": round }))?);
                timed(|| stage.book.write(edit))?
            }
            Thing::Explain => {
                let key = key(Stage::type_of(beside), 0)?;
                timed(|| stage.book.explain(&key))?
            }
            _ => stage.exchange(round)?,
        };
        times.push(took);
    }
    Ok(median(times))
}

fn opening(size: usize) -> Result<f64, Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.book");
    let book = Book::create_new(&path, BookOptions::new("ann")?.schema(schema(Beside::Waiting)?))?;
    write(&book, "lead", size, "x")?;
    book.close()?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let options = BookOptions::new("ann")?.schema(schema(Beside::Waiting)?);
        let begun = Stopwatch::start();
        let book = Book::open(&path, options)?;
        times.push(begun.read());
        book.close()?;
    }
    Ok(median(times))
}

fn timed<T, E: Into<Failure>>(what: impl FnOnce() -> Result<T, E>) -> Result<Duration, Failure> {
    let begun = Stopwatch::start();
    what().map_err(Into::into)?;
    Ok(begun.read())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

/// A book beside which something waits, and a server within the process.
struct Stage {
    book: Book,
    server: MemoryAuthority,
    beside: Beside,
}

impl Stage {
    fn new(beside: Beside, size: usize) -> Result<Self, Failure> {
        let server =
            MemoryAuthority::new(ServerId::from_bytes([7; 16]), ServerEpoch::from_bytes([8; 16]));
        let mut stage = Self { book: open("ann", beside)?, server, beside };
        match beside {
            Beside::Waiting | Beside::LowerPriority => {
                write(&stage.book, Self::type_of(beside), size, "x")?
            }
            Beside::SameRecord => stage.edit(size)?,
            Beside::OtherActor => {
                stage.book.act_as(Actor::parse("ben")?);
                write(&stage.book, "lead", size, "x")?;
                stage.book.act_as(Actor::parse("ann")?);
            }
            Beside::Conflicts => stage.meet_conflicts(size)?,
            Beside::DeadLetters => {
                write(&stage.book, "lead", size, "x")?;
                while let Some(request) =
                    request(&stage.book, 1_000)?.filter(|request| !request.units.is_empty())
                {
                    let answer = stage.refuse(&request)?;
                    stage.book.exchange().apply_answer(&request, answer)?;
                }
            }
        }
        // The first plan looks once at ops that cannot be sent. One would send all edits of a
        // record.
        if !matches!(beside, Beside::SameRecord) {
            stage.exchange(ROUNDS)?;
        }
        Ok(stage)
    }

    const fn type_of(beside: Beside) -> &'static str {
        if let Beside::LowerPriority = beside { "later" } else { "lead" }
    }

    /// Makes a record with many edits.
    fn edit(&self, size: usize) -> Result<(), Failure> {
        write(&self.book, "lead", 1, "x")?;
        let edit = |number| {
            Ok(Mutation::update(key("lead", 0)?, fields(json!({ "number": number + 1 }))?))
        };
        let all = (0..size).map(edit).collect::<Result<Vec<_>, Failure>>()?;
        for some in all.chunks(10_000) {
            self.book.import(some.to_vec())?;
        }
        Ok(())
    }

    /// Sends 50 ops and applies the answer.
    fn exchange(&mut self, round: usize) -> Result<Duration, Failure> {
        if !matches!(self.beside, Beside::Waiting) {
            let mutations = (0..BATCH).map(|number| mutation("fresh", round * BATCH + number, "x"));
            self.book.import(mutations.collect::<Result<_, Failure>>()?)?;
        }
        let begun = Stopwatch::start();
        let Some(request) = request(&self.book, BATCH)? else { return Ok(begun.read()) };
        let prepared = begun.read();
        let answer = self.answer(&request)?;
        let begun = Stopwatch::start();
        self.book.exchange().apply_answer(&request, answer)?;
        Ok(prepared + begun.read())
    }

    fn answer(&mut self, request: &ExchangeRequest) -> Result<ExchangeAnswer, Failure> {
        let (caller, quota) = (Caller::Anyone, Quota::default());
        // The device's own time: a server whose clock is behind makes it lower the stamps of all
        // waiting ops.
        let now = SystemClock::new().now().wall;
        let answer = exchange(&mut self.server, request, now, &caller, &quota);
        answer.map_err(|_| Failure::Wrong { peer: "fieldbook", what: "its server did not answer" })
    }

    fn refuse(&mut self, request: &ExchangeRequest) -> Result<ExchangeAnswer, Failure> {
        let answer = self.answer(&ExchangeRequest { units: Vec::new(), ..request.clone() })?;
        let refused = Outcome::Rejected { code: "no".to_owned(), message: String::new() };
        let outcomes = request
            .units
            .iter()
            .map(|unit| UnitOutcome { unit: unit.id, outcome: refused.clone() });
        Ok(ExchangeAnswer { outcomes: outcomes.collect(), ..answer })
    }

    /// Makes two people change the same records, so that a person has to choose in each.
    fn meet_conflicts(&mut self, size: usize) -> Result<(), Failure> {
        write(&self.book, "lead", size, "x")?;
        self.drain()?;
        let ours = std::mem::replace(&mut self.book, open("ben", Beside::Conflicts)?);
        self.drain()?;
        let updates = |name: &str| -> Result<Vec<_>, Failure> {
            let value = json!({ "name": name });
            (0..size)
                .map(|number| Ok(Mutation::update(key("lead", number)?, fields(value.clone())?)))
                .collect()
        };
        self.book.import(updates("by ben")?)?;
        self.drain()?;
        self.book = ours;
        self.book.import(updates("by ann")?)?;
        self.drain()
    }

    fn drain(&mut self) -> Result<(), Failure> {
        loop {
            let Some(request) = request(&self.book, 1_000)? else { return Ok(()) };
            let (answer, is_empty) = (self.answer(&request)?, request.units.is_empty());
            let more = answer.more;
            self.book.exchange().apply_answer(&request, answer)?;
            if is_empty && !more {
                return Ok(());
            }
        }
    }
}

fn request(book: &Book, batch_ops: usize) -> Result<Option<ExchangeRequest>, Failure> {
    let ask = ExchangeParams {
        first: true,
        push: true,
        pull: true,
        batch_ops,
        batch_bytes: 1 << 20,
        page_limit: 1_000,
    };
    Ok(match book.exchange().prepare(&ask)? {
        NextStep::Exchange(request) => Some(request),
        NextStep::Idle { .. } => None,
    })
}

fn schema(beside: Beside) -> Result<Schema, Failure> {
    let policy =
        if let Beside::Conflicts = beside { Policy::Manual } else { Policy::LastWriteWins };
    let rules = EntityRules { policy, undo_window: Duration::ZERO, ..EntityRules::default() };
    let later = EntityRules { priority: -1, ..rules.clone() };
    Ok(match beside {
        Beside::LowerPriority => Schema::open(rules).declare(EntityType::parse("later")?, later),
        _ => Schema::open(rules),
    })
}

fn open(actor: &str, beside: Beside) -> Result<Book, Failure> {
    let backend = redb::backends::InMemoryBackend::new();
    Ok(Book::on_backend(backend, BookOptions::new(actor)?.schema(schema(beside)?))?)
}

fn write(book: &Book, entity: &str, count: usize, name: &str) -> Result<(), Failure> {
    let all = (0..count)
        .map(|number| mutation(entity, number, name))
        .collect::<Result<Vec<_>, Failure>>()?;
    for some in all.chunks(10_000) {
        book.import(some.to_vec())?;
    }
    Ok(())
}

fn mutation(entity: &str, number: usize, name: &str) -> Result<Mutation, Failure> {
    Ok(Mutation::create(key(entity, number)?, fields(json!({ "name": name, "number": number }))?))
}

fn key(entity: &str, number: usize) -> Result<RecordKey, Failure> {
    Ok(RecordKey::new(EntityType::parse(entity)?, RecordId::parse(&format!("{number:08}"))?))
}

fn fields(value: Value) -> Result<Fields, Failure> {
    Ok(Fields::from_value(value)?)
}
