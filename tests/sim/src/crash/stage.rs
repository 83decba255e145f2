//! The objects of a scenario: a book on the disk under test, another device's book on a sound disk,
//! and the server.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::schema::{IndexRule, Policy};
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest};
use fieldbook::sync::{ExchangeParams, NextStep, ServerEpoch, ServerId};
use fieldbook::{Book, BookOptions, EntityRules, Error, Fields, RecordKey, Schema, limits};
use fieldbook_core::authority::{Caller, MemoryAuthority, Quota, exchange};
use redb::StorageBackend;
use serde_json::json;

use super::scenarios::Scenario;
use crate::clock::SimClock;
use crate::disk::{Loss, SimDisk};

const BEGINNING: i64 = 1_767_225_600_000;

/// A confirmation: the number of entries, and the number of changes of the disk before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    pub(super) changes: usize,
    pub(super) entries: u64,
}

/// The start of a scenario: the state before, at rest.
pub(super) struct Start {
    pub(super) image: Vec<u8>,
    /// The number of its entries.
    pub(super) entries: u64,
    other: Vec<u8>,
    server: MemoryAuthority,
    wall: i64,
    variant: u64,
}

/// The objects of a scenario.
pub(super) struct Stage {
    /// The book under test; none once it is closed.
    pub(super) book: Option<Book>,
    /// Another device, on a disk that does not fail.
    pub(super) other: Book,
    pub(super) server: MemoryAuthority,
    pub(super) clock: SimClock,
    pub(super) disk: SimDisk,
    pub(super) acks: Vec<Ack>,
    pub(super) variant: u64,
    pub(super) gate: Gate,
    /// The indexes with which the book is opened next.
    pub(super) indexes: Vec<IndexRule>,
    openings: u64,
}

impl Start {
    /// Plays the steps before a scenario, and closes the books.
    pub(super) fn new(scenario: &Scenario, variant: u64) -> Result<Self, Error> {
        let server =
            MemoryAuthority::new(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([2; 16]));
        let empty = Self {
            image: Vec::new(),
            entries: 0,
            other: Vec::new(),
            server,
            wall: BEGINNING,
            variant,
        };
        if scenario.before.is_empty() {
            return Ok(empty);
        }
        let disk = SimDisk::empty();
        let mut stage = Stage::open(&empty, &disk, 10)?;
        for step in scenario.before {
            stage.clock.advance(10_000);
            step(&mut stage)?;
        }
        stage.close()?;
        let entries = stage.acks.last().map_or(0, |ack| ack.entries);
        // The other device's disk is not available any more, so its book is made again and reads
        // the server's state.
        let Stage { server, clock, .. } = stage;
        let image = disk.platter().image(Loss::Everything);
        Ok(Self { image, entries, other: Vec::new(), server, wall: clock.wall(), variant })
    }
}

/// Plays a scenario until it ends or something fails.
pub(super) fn play(
    scenario: &Scenario,
    start: &Start,
    disk: &SimDisk,
) -> (Option<Stage>, Result<(), Error>) {
    let mut stage = match Stage::open(start, disk, 20) {
        Ok(stage) => stage,
        Err(error) => return (None, Err(error)),
    };
    for step in scenario.steps {
        stage.clock.advance(10_000);
        if let Err(error) = step(&mut stage) {
            return (Some(stage), Err(error));
        }
    }
    let closed = if stage.book.is_some() { stage.close() } else { Ok(()) };
    (Some(stage), closed)
}

/// Sets a stage on a sound disk.
#[cfg(test)]
pub(super) fn stage_of(start: &Start) -> Result<Stage, Error> {
    Stage::open(start, &SimDisk::holding(start.image.clone()), 20)
}

impl Stage {
    fn open(start: &Start, disk: &SimDisk, openings: u64) -> Result<Self, Error> {
        let clock = SimClock::new(start.wall);
        let other =
            open_with(SimDisk::holding(start.other.clone()), "other", 9, &clock, Vec::new())?;
        let mut stage = Self {
            book: None,
            other,
            server: start.server.clone(),
            clock,
            disk: disk.clone(),
            acks: Vec::new(),
            variant: start.variant,
            gate: Gate::default(),
            indexes: Vec::new(),
            openings,
        };
        stage.open_book()?;
        Ok(stage)
    }

    /// Opens the book under test.
    pub(super) fn open_book(&mut self) -> Result<(), Error> {
        self.openings += 1;
        let backend = Gated { disk: self.disk.clone(), gate: self.gate.clone() };
        self.book =
            Some(open_with(backend, "one", self.openings, &self.clock, self.indexes.clone())?);
        self.ack();
        Ok(())
    }

    /// Closes the book under test, and returns an error of closing.
    pub(super) fn close(&mut self) -> Result<(), Error> {
        self.book.take().map_or(Ok(()), Book::close)
    }

    pub(super) fn book(&self) -> Result<&Book, Error> {
        self.book.as_ref().ok_or(Error::Misuse("the scenario closed its book"))
    }

    /// Remembers that everything so far was acknowledged.
    pub(super) fn ack(&mut self) {
        let head = self.book.as_ref().and_then(|book| book.audit().head().ok()).flatten();
        if let Some(head) = head {
            self.acks.push(Ack { changes: self.disk.recorded(), entries: head.seq.number() });
        }
    }

    /// Makes a call of the book. Its writes then count as acknowledged.
    pub(super) fn call<T>(
        &mut self,
        work: impl FnOnce(&Book) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let done = work(self.book()?)?;
        self.ack();
        Ok(done)
    }

    pub(super) fn now(&self) -> WallTime {
        WallTime::from_milliseconds(self.clock.wall())
    }

    /// Prepares an exchange; none if there is nothing to exchange.
    pub(super) fn prepare(&mut self, pull: bool) -> Result<Option<ExchangeRequest>, Error> {
        self.prepare_as(&ask(true, pull))
    }

    fn prepare_as(&mut self, ask: &ExchangeParams) -> Result<Option<ExchangeRequest>, Error> {
        Ok(match self.call(|book| book.exchange().prepare(ask))? {
            NextStep::Exchange(request) => Some(request),
            NextStep::Idle { .. } => None,
        })
    }

    /// Exchanges until nothing is left. It asks for the server's identity once, like a run.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        let (mut first, mut pull) = (true, true);
        while let Some(request) = self.prepare_as(&ask(first, pull))? {
            let now = self.now();
            let answer = serve(&mut self.server, &request, now)?;
            pull = self.call(|book| book.exchange().apply_answer(&request, answer))?.more;
            first = false;
        }
        Ok(())
    }

    /// Has the other device exchange until nothing is left.
    pub(super) fn sync_other(&mut self) -> Result<(), Error> {
        let (mut first, mut pull, now) = (true, true, self.now());
        while let NextStep::Exchange(request) = self.other.exchange().prepare(&ask(first, pull))? {
            let answer = serve(&mut self.server, &request, now)?;
            pull = self.other.exchange().apply_answer(&request, answer)?.more;
            first = false;
        }
        Ok(())
    }

    /// Returns fields of the size that the variant asks for.
    pub(super) fn fields(&self, number: u64) -> Fields {
        let times =
            [1, 6, 24].get(usize::try_from(self.variant % 3).unwrap_or(0)).copied().unwrap_or(1);
        let text = "a field book is written in ink, on the spot ".repeat(times);
        Fields::from_iter([("number".to_owned(), json!(number)), ("text".to_owned(), json!(text))])
    }
}

/// Treats a request as the server does.
pub(super) fn serve(
    server: &mut MemoryAuthority,
    request: &ExchangeRequest,
    now: WallTime,
) -> Result<ExchangeAnswer, Error> {
    exchange(server, request, now, &Caller::Anyone, &Quota::default())
        .map_err(|_| Error::Misuse("the simulated server refused a request of the scenario"))
}

const fn ask(first: bool, pull: bool) -> ExchangeParams {
    ExchangeParams {
        first,
        push: true,
        pull,
        batch_ops: limits::BATCH_OPS,
        batch_bytes: limits::BATCH_BYTES,
        page_limit: 5,
    }
}

/// Opens a book long after every scenario.
pub(super) fn open(disk: &SimDisk, seed: u64, indexes: Vec<IndexRule>) -> Result<Book, Error> {
    open_with(disk.clone(), "one", seed, &SimClock::new(BEGINNING + 10_000_000), indexes)
}

fn open_with(
    backend: impl StorageBackend,
    actor: &str,
    seed: u64,
    clock: &SimClock,
    indexes: Vec<IndexRule>,
) -> Result<Book, Error> {
    let options = BookOptions::new(actor).map_err(|_| Error::Misuse("the actor is not valid"))?;
    let rules = EntityRules { indexes, ..EntityRules::default() };
    let manual = EntityRules { policy: Policy::Manual, ..rules.clone() };
    let options = options
        .schema(Schema::open(rules).declare(named_in("note", "1")?.entity, manual))
        .clock(Arc::new(clock.clone()))
        .cache_bytes(1024 * 1024)
        .randomness(Box::new(SeededRandomness::from_number(seed)));
    Book::on_backend(backend, options)
}

/// Returns the key of a lead.
pub(super) fn named(id: &str) -> Result<RecordKey, Error> {
    named_in("lead", id)
}

/// Returns a key.
pub(super) fn named_in(entity: &str, id: &str) -> Result<RecordKey, Error> {
    RecordKey::parse(entity, id).map_err(|_| Error::Misuse("the key is not valid"))
}

/// Delays a sync, so that callers that arrive in the meantime share the next commit.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    shut: bool,
    waiting: bool,
}

impl Gate {
    /// Has the next sync wait.
    pub(super) fn shut(&self) {
        self.state().shut = true;
    }

    /// Waits until a sync waits.
    pub(super) fn await_arrival(&self) {
        let state = self.state();
        let waiting = self.0.1.wait_while(state, |state| state.shut && !state.waiting);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets the sync continue.
    pub(super) fn open(&self) {
        self.state().shut = false;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state();
        while state.shut {
            state.waiting = true;
            self.0.1.notify_all();
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk behind a gate.
#[derive(Debug)]
struct Gated {
    disk: SimDisk,
    gate: Gate,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl StorageBackend for Gated {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write(offset, bytes)
    }
}
