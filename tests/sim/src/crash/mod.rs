//! Every point at which the power can go, or the disk can fail, while a book does all that a book does.
//!
//! ```text
//!   workload on a recording disk ──► changes 1 … n, and after which of them what was acknowledged
//!   for each point:  image without the unsynced changes │ with all │ without each │ with only each │ with random sectors
//!   for each image:  open, verify, compare with the whole log, compare the tables with the log, write
//!   for some images: the same again for each point of the opening itself
//! ```
//!
//! Invariants: S1 (acknowledged entries are there), S2 (what is there is the beginning of the whole log), S3 (it verifies),
//! S4 (the tables are what it comes to), S17 (a failed disk takes no more writes), F4 and F10 of the fault model.
//!
//! What it is not: a test of [`fieldbook::Book::create_new`], which builds a file under another name. Here a crash amid the
//! creation may leave what does not open, as long as nothing was acknowledged; such images are counted by themselves.

use std::sync::Arc;

use fieldbook::protocol::{ExchangeAnswer, ExchangeRequest, Outcome, UnitOutcome};
use fieldbook::{
    Ask, Book, BookOptions, Error, Fields, Hash, Mutation, Next, RecordKey, SeededRandomness, Seq,
    ServerEpoch, ServerId, WallTime, limits,
};
use fieldbook_core::authority::{Caller, MemoryAuthority, Quota, exchange};
use serde_json::json;

use crate::broken::{Broken, ensure};
use crate::clock::SimClock;
use crate::disk::{Change, Fault, Loss, Platter, SimDisk};

const BEGINNING: i64 = 1_767_225_600_000;
/// How many of the images are also crashed while they are opened: one of so many.
const DOUBLE_EVERY: u64 = 16;

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Only each so-manieth point, from `first` on; 1 for all.
    pub every: usize,
    /// The first point.
    pub first: usize,
    /// How many random images there are at each point.
    pub random: u64,
}

/// What was tried, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Points between two changes of the disk.
    pub points: u64,
    /// Images that were opened.
    pub images: u64,
    /// Images of a crash amid an opening.
    pub double: u64,
    /// Images that did not open, all of them before anything was acknowledged.
    pub unborn: u64,
    /// Runs with a failing disk.
    pub failures: u64,
}

impl Tried {
    /// Adds other counts.
    pub fn add(&mut self, other: Self) {
        self.points += other.points;
        self.images += other.images;
        self.double += other.double;
        self.unborn += other.unborn;
        self.failures += other.failures;
    }
}

/// A workload that was played once on a recording disk.
pub struct Recorded {
    changes: Vec<Change>,
    acks: Vec<Ack>,
    hashes: Vec<Hash>,
}

/// That so many entries were acknowledged after so many changes of the disk.
#[derive(Debug, Clone, Copy)]
struct Ack {
    changes: usize,
    entries: u64,
}

/// Plays the workload on a sound disk.
///
/// # Errors
/// [`Broken`] if it fails.
pub fn record() -> Result<Recorded, Broken> {
    let disk = SimDisk::empty();
    disk.record();
    let mut acks = Vec::new();
    let (book, ended) = play(&disk, &mut acks);
    ended.map_err(|error| Broken::new("harness", format!("the workload fails: {error:?}")))?;
    drop(book);
    let changes = disk.recording();
    let book = open(&SimDisk::holding(disk.platter().image(Loss::Everything)), 0).map_err(unopened)?;
    let entries = book.entries(Seq::new(1), usize::MAX).map_err(unopened)?;
    Ok(Recorded { changes, acks, hashes: entries.iter().map(|entry| entry.hash).collect() })
}

impl Recorded {
    /// Takes the syncs out, as if the disk lied about them: what a test of this harness must notice.
    #[must_use]
    pub fn without_syncs(mut self) -> Self {
        let first = self.changes.iter().position(|change| matches!(change, Change::Sync)).unwrap_or(0);
        let mut number = 0;
        self.changes.retain(|change| {
            number += 1;
            // The file as such is left whole, so that the book opens and shows what it lost.
            number <= first + 1 || !matches!(change, Change::Sync)
        });
        for ack in &mut self.acks {
            ack.changes = ack.changes.min(self.changes.len());
        }
        self
    }

    /// Lets the power go at each point.
    ///
    /// # Errors
    /// [`Broken`] with the first image that shows a lost or damaged book.
    pub fn power_losses(&self, effort: Effort) -> Result<Tried, Broken> {
        let mut tried = Tried::default();
        let mut platter = Platter::default();
        for point in 0..=self.changes.len() {
            if let Some(change) = point.checked_sub(1).and_then(|last| self.changes.get(last)) {
                platter.take(change);
            }
            if point % effort.every == effort.first % effort.every {
                tried.points += 1;
                self.power_loss_at(point, &platter, effort, &mut tried)?;
            }
        }
        Ok(tried)
    }

    fn power_loss_at(
        &self,
        point: usize,
        platter: &Platter,
        effort: Effort,
        tried: &mut Tried,
    ) -> Result<(), Broken> {
        let mut losses = vec![Loss::Nothing];
        if platter.unsynced() > 0 {
            losses.push(Loss::Everything);
            losses.extend(
                (0..platter.unsynced()).flat_map(|number| [Loss::Only(number), Loss::AllBut(number)]),
            );
            losses.extend((0..effort.random).map(|number| Loss::Sectors {
                seed: number + 1_000 * point as u64,
                garbage: number % 2 == 1,
            }));
        }
        for loss in losses {
            tried.images += 1;
            let image = platter.image(loss);
            let at = |broken: Broken| Broken {
                what: format!("point {point}, {loss:?}: {}", broken.what),
                ..broken
            };
            if tried.images.is_multiple_of(DOUBLE_EVERY) {
                self.crash_again(point, &image, tried).map_err(at)?;
            }
            self.check(point, image, tried).map_err(at)?;
        }
        Ok(())
    }

    /// Lets the power go at each point of the opening of an image.
    fn crash_again(&self, point: usize, image: &[u8], tried: &mut Tried) -> Result<(), Broken> {
        let disk = SimDisk::holding(image.to_vec());
        disk.record();
        drop(open(&disk, 1));
        let mut platter = SimDisk::holding(image.to_vec()).platter();
        for (number, change) in disk.recording().iter().enumerate() {
            platter.take(change);
            let seed = number as u64;
            for loss in [Loss::Everything, Loss::Sectors { seed, garbage: false }] {
                tried.double += 1;
                self.check(point, platter.image(loss), tried)?;
            }
        }
        Ok(())
    }

    /// Checks a disk as a crash at a point left it.
    fn check(&self, point: usize, image: Vec<u8>, tried: &mut Tried) -> Result<(), Broken> {
        let acked = self.acks.iter().rev().find(|ack| ack.changes <= point).map_or(0, |ack| ack.entries);
        let book = match open(&SimDisk::holding(image), 2) {
            Ok(book) => book,
            Err(_) if acked == 0 => {
                tried.unborn += 1;
                return Ok(());
            }
            Err(error) => return Err(unopened(error)),
        };
        check_book(&book, &self.hashes, acked)
    }

    /// Has each change of the disk fail, once and for ever.
    ///
    /// # Errors
    /// [`Broken`] with the first failure after which something acknowledged is gone or a write succeeds.
    pub fn disk_failures(&self, effort: Effort) -> Result<Tried, Broken> {
        let mut tried = Tried::default();
        for point in (0..self.changes.len()).skip(effort.first % effort.every).step_by(effort.every) {
            for forever in [false, true] {
                tried.failures += 1;
                let at = |broken: Broken| Broken {
                    what: format!("change {point} fails, for ever: {forever}: {}", broken.what),
                    ..broken
                };
                self.disk_failure(point, forever, &mut tried).map_err(at)?;
            }
        }
        Ok(tried)
    }

    fn disk_failure(&self, point: usize, forever: bool, tried: &mut Tried) -> Result<(), Broken> {
        let disk = SimDisk::empty();
        disk.fail(Fault { after: point as u64, forever });
        let mut acks = Vec::new();
        let (book, ended) = play(&disk, &mut acks);
        let acked = acks.last().map_or(0, |ack| ack.entries);
        if let (Some(book), Err(error)) = (&book, &ended) {
            ensure(disk.has_failed(), "S17", || format!("the workload failed by itself: {error:?}"))?;
            let more = book.write(Mutation::create(key("after")?, Fields::new()));
            ensure(more.is_err(), "S17", || "a write succeeded after the disk had failed".to_owned())?;
        }
        let platter = disk.platter();
        disk.fail(Fault { after: 0, forever: true });
        drop(book);
        for loss in [Loss::Nothing, Loss::Everything, Loss::Sectors { seed: point as u64, garbage: false }] {
            tried.images += 1;
            match open(&SimDisk::holding(platter.image(loss)), 2) {
                Ok(book) => check_book(&book, &self.hashes, acked)?,
                Err(_) if acked == 0 => tried.unborn += 1,
                Err(error) => return Err(unopened(error)),
            }
        }
        Ok(())
    }

    /// Returns how many changes of the disk the workload makes.
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Returns how many entries the workload writes.
    pub fn entries(&self) -> usize {
        self.hashes.len()
    }
}

/// S1, S2, S3, S4, and that the book can be used.
fn check_book(book: &Book, hashes: &[Hash], acked: u64) -> Result<(), Broken> {
    let entries = book.entries(Seq::new(1), usize::MAX).map_err(unopened)?;
    ensure(entries.len() as u64 >= acked, "S1", || {
        format!("{} of {acked} entries are there", entries.len())
    })?;
    let same = entries.iter().zip(hashes).all(|(entry, hash)| entry.hash == *hash);
    // Before anything was acknowledged, a new log may have begun.
    ensure(same || (acked == 0 && entries.len() == 1), "S2", || "the log is another one".to_owned())?;
    if let Err(damage) = book.verify(|_| {}).map_err(unopened)? {
        return Err(Broken::new("S3", damage.to_string()));
    }
    let differs = book.check_tables().map_err(unopened)?;
    ensure(differs.is_none(), "S4", || format!("the table {differs:?} is not what the log says"))?;
    book.write(Mutation::create(key("afterwards")?, Fields::new())).map_err(unopened)?;
    Ok(())
}

/// What the workload works on.
struct Stage {
    book: Book,
    /// Someone else, on a disk that does not fail.
    other: Book,
    server: MemoryAuthority,
    clock: SimClock,
}

type Step = fn(&mut Stage) -> Result<(), Error>;

/// All that a book does, each call by itself.
const STEPS: &[Step] = &[
    |stage| stage.book.create(named("1")?, fields(1)).map(drop),
    |stage| stage.book.create(named("2")?, fields(2)).map(drop),
    |stage| stage.book.update(named("1")?, fields(3)).map(drop),
    |stage| stage.book.delete(named("2")?).map(drop),
    |stage| stage.book.create(named("2")?, fields(4)).map(drop),
    transaction,
    Stage::sync,
    |stage| stage.book.update(named("1")?, fields(5)).map(drop),
    meanwhile,
    Stage::sync,
    Stage::sync,
    bulk,
    Stage::sync,
    refused,
    given_up,
    |stage| stage.book.fold_lazy(),
    |stage| stage.book.rebuild(|_| {}).map(drop),
    |stage| stage.book.replace(named("1")?, fields(7)).map(drop),
    Stage::sync,
];

impl Stage {
    fn sync(&mut self) -> Result<(), Error> {
        let now = WallTime::from_milliseconds(self.clock.wall());
        sync(&self.book, &mut self.server, now)
    }
}

fn transaction(stage: &mut Stage) -> Result<(), Error> {
    let mutations = vec![
        Mutation::create(named("3")?, fields(1)),
        Mutation::update(named("1")?, fields(4)),
        Mutation::delete(named("2")?),
    ];
    stage.book.transaction(mutations).map(drop)
}

/// Someone else edits the same record, later than we did.
fn meanwhile(stage: &mut Stage) -> Result<(), Error> {
    let now = WallTime::from_milliseconds(stage.clock.wall());
    sync(&stage.other, &mut stage.server, now)?;
    stage.other.update(named("1")?, fields(6))?;
    stage.other.delete(named("3")?)?;
    sync(&stage.other, &mut stage.server, now)
}

/// So many records at once that the file grows.
fn bulk(stage: &mut Stage) -> Result<(), Error> {
    let mutations: Result<Vec<_>, Error> = (100..250)
        .map(|number: u64| Ok(Mutation::create(named(&number.to_string())?, fields(number))))
        .collect();
    stage.book.import(mutations?).map(drop)
}

/// The server refuses a change for good.
fn refused(stage: &mut Stage) -> Result<(), Error> {
    stage.book.create(named("bad")?, fields(1))?;
    let Next::Exchange(request) = stage.book.prepare(&ask(true))? else { return Ok(()) };
    let without = ExchangeRequest { units: Vec::new(), ..request.clone() };
    let now = WallTime::from_milliseconds(stage.clock.wall());
    let mut answer = serve(&mut stage.server, &without, now)?;
    let outcome = Outcome::Rejected { code: "simulated".to_owned(), message: "never".to_owned() };
    let refused = request.units.iter().map(|unit| UnitOutcome { unit: unit.id, outcome: outcome.clone() });
    answer.outcomes.extend(refused);
    stage.book.take(&request, answer).map(drop)
}

fn given_up(stage: &mut Stage) -> Result<(), Error> {
    let dead = stage.book.dead_letters()?.into_iter().map(|row| row.op.id).collect();
    stage.book.discard(dead, "never")
}

fn sync(book: &Book, server: &mut MemoryAuthority, now: WallTime) -> Result<(), Error> {
    let mut pull = true;
    while let Next::Exchange(request) = book.prepare(&ask(pull))? {
        let answer = serve(server, &request, now)?;
        pull = book.take(&request, answer)?.more;
    }
    Ok(())
}

fn serve(
    server: &mut MemoryAuthority,
    request: &ExchangeRequest,
    now: WallTime,
) -> Result<ExchangeAnswer, Error> {
    exchange(server, request, now, &Caller::Anyone, &Quota::default())
        .map_err(|_| Error::Misuse("the simulated server refused a request of the workload"))
}

const fn ask(pull: bool) -> Ask {
    Ask {
        first: true,
        push: true,
        pull,
        batch_ops: limits::BATCH_OPS,
        batch_bytes: limits::BATCH_BYTES,
        page_limit: 20,
    }
}

/// Plays the workload until it ends or something fails. `acks` hears what was acknowledged.
fn play(disk: &SimDisk, acks: &mut Vec<Ack>) -> (Option<Book>, Result<(), Error>) {
    let clock = SimClock::new(BEGINNING);
    let opened = open_with(disk.clone(), "one", 0, &clock);
    let book = match opened {
        Ok(book) => book,
        Err(error) => return (None, Err(error)),
    };
    let other = match open_with(SimDisk::empty(), "other", 9, &clock) {
        Ok(other) => other,
        Err(error) => return (Some(book), Err(error)),
    };
    let server = MemoryAuthority::new(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([2; 16]));
    let mut stage = Stage { book, other, server, clock };
    acks.extend(acknowledged(disk, &stage.book));
    for step in STEPS {
        stage.clock.advance(10_000);
        if let Err(error) = step(&mut stage) {
            return (Some(stage.book), Err(error));
        }
        if !disk.has_failed() {
            acks.extend(acknowledged(disk, &stage.book));
        }
    }
    let Stage { book, .. } = stage;
    let closed = book.close();
    (None, closed)
}

/// Returns what a call that just went well has acknowledged.
fn acknowledged(disk: &SimDisk, book: &Book) -> Option<Ack> {
    let head = book.head().ok().flatten()?;
    Some(Ack { changes: disk.recorded(), entries: head.seq.number() })
}

fn open(disk: &SimDisk, seed: u64) -> Result<Book, Error> {
    open_with(disk.clone(), "one", seed, &SimClock::new(BEGINNING + 10_000_000))
}

fn open_with(disk: SimDisk, actor: &str, seed: u64, clock: &SimClock) -> Result<Book, Error> {
    let options = BookOptions::new(actor).map_err(|_| Error::Misuse("the actor is not valid"))?;
    let options = options
        .clock(Arc::new(clock.clone()))
        .cache_bytes(1024 * 1024)
        .randomness(Box::new(SeededRandomness::from_number(seed)));
    Book::on_backend(disk, options)
}

fn fields(number: u64) -> Fields {
    let text = "a field book is written in ink, on the spot ".repeat(6);
    Fields::from_iter([("number".to_owned(), json!(number)), ("text".to_owned(), json!(text))])
}

fn named(id: &str) -> Result<RecordKey, Error> {
    RecordKey::parse("lead", id).map_err(|_| Error::Misuse("the key is not valid"))
}

fn key(id: &str) -> Result<RecordKey, Broken> {
    named(id).map_err(unopened)
}

fn unopened(error: Error) -> Broken {
    Broken::new("S1", format!("{error:?}"))
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorded({} changes, {} entries)", self.changes.len(), self.hashes.len())
    }
}
