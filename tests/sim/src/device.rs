//! One device of a simulated world: a real book on a simulated disk, its clocks, and the harness's
//! knowledge of it.
//!
//! Invariants that are checked here:
//! - S1: every write that was confirmed to the app, and every unit that left, is there after each
//!   reopening.
//! - S9: units that leave again leave in the order in which they left first.
//! - S2: the log of an earlier opening is the beginning of the log of a later opening.
//! - S17: after a storage error no write succeeds before the book is reopened; a write that failed
//!   without doubt is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fieldbook::audit::entry::{Entry, Item};
use fieldbook::audit::{Moment, Seq};
use fieldbook::host::SeededRandomness;
use fieldbook::record::{OpId, OpPlace, UnitId};
use fieldbook::sync::RequestId;
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest, Failure};
use fieldbook::{Book, BookOptions, EntityType, Error, Fields, Mutation, RecordKey, Schema};

use crate::app::{ENTITIES, searched as searched_fields};
use crate::broken::{Broken, ensure};
use crate::clock::SimClock;
use crate::disk::{Fault, Loss, SimDisk};
use crate::ledger::Ledger;
use crate::model::Model;
use crate::world::live::{Followed, ROWS, follow};

/// One device.
pub struct Device {
    /// The user of the device.
    pub actor: String,
    /// Its clocks.
    pub clock: SimClock,
    /// The meaning of its log.
    pub model: Model,
    /// The version of the app on it.
    pub version: u32,
    /// Whether no message gets through to it or from it.
    pub cut_off: bool,
    /// The exchange that it waits for.
    pub open: Option<RequestId>,
    /// The units that have left it, in their sent form.
    pub sent: BTreeMap<UnitId, String>,
    /// The last failure that its units may have caused, until a request without units shows the
    /// cause.
    pub doubt: Option<(ExchangeRequest, Failure)>,
    /// The number of requests with units in a row that have failed so.
    pub strikes: u32,
    /// The place of each unit in the order in which the units left first.
    pub left: BTreeMap<UnitId, usize>,
    /// For each record the last op of ours that the server applied, in each period of its store.
    pub order: BTreeMap<(usize, RecordKey), OpPlace>,
    /// The loss at the arranged failure, and the point of the recovery at which the next failure
    /// happens.
    pub arranged: Option<(Loss, Option<u64>)>,
    /// The records that an answer left out, so that the cursor passed over them.
    pub left_out: BTreeSet<RecordKey>,
    disk: SimDisk,
    book: Option<Book>,
    /// The live lists of this opening.
    lists: Vec<Followed>,
    schema: Schema,
    seed: u64,
    openings: u64,
    /// How many entries are surely durable.
    floor: u64,
    /// Whether a call may have written something that was not checked yet.
    unsure: bool,
    /// Whether a call failed because of the disk.
    failed: bool,
    acknowledged: BTreeSet<OpId>,
    /// The entries as they were before values were erased. The harness's knowledge of the log is
    /// read from them.
    whole: Vec<Entry>,
    /// The last entry that was trimmed.
    pub trimmed: u64,
}

impl Device {
    /// Makes a device with a new book.
    ///
    /// # Errors
    /// [`Broken`] if the book cannot be made.
    pub fn new(actor: String, clock: SimClock, schema: Schema, seed: u64) -> Result<Self, Broken> {
        let mut device = Self::off(actor, clock, schema, seed);
        let book = device.start(device.disk.clone());
        device.put(book.map_err(|error| Broken::new("S1", format!("no new book: {error}")))?)?;
        device.observe(&Ledger::default())?;
        Ok(device)
    }

    /// Copies the disk of another device, like a phone's backup that is restored on a second phone,
    /// and opens the book on it.
    ///
    /// # Errors
    /// [`Broken`] if it does not open, or something is missing.
    pub fn copy_of(other: &Self, seed: u64, ledger: &Ledger) -> Result<Self, Broken> {
        let clock = SimClock::new(other.clock.wall());
        let mut device = Self {
            version: other.version,
            sent: other.sent.clone(),
            left: other.left.clone(),
            order: other.order.clone(),
            model: other.model.clone(),
            floor: other.floor,
            acknowledged: other.acknowledged.clone(),
            whole: other.whole.clone(),
            trimmed: other.trimmed,
            left_out: other.left_out.clone(),
            disk: SimDisk::holding(other.disk.platter().image(Loss::Nothing)),
            ..Self::off(other.actor.clone(), clock, other.schema.clone(), seed)
        };
        let book = device.start(device.disk.clone());
        let no_book = |error| Broken::new("S1", format!("no book from a copy: {error}"));
        device.put(book.map_err(no_book)?)?;
        device.reopened(ledger)?;
        Ok(device)
    }

    /// Makes a device whose book is not open.
    fn off(actor: String, clock: SimClock, schema: Schema, seed: u64) -> Self {
        Self {
            actor,
            clock,
            model: Model::default(),
            version: 1,
            cut_off: false,
            open: None,
            sent: BTreeMap::new(),
            doubt: None,
            strikes: 0,
            left: BTreeMap::new(),
            order: BTreeMap::new(),
            arranged: None,
            left_out: BTreeSet::new(),
            disk: SimDisk::empty(),
            book: None,
            lists: Vec::new(),
            schema,
            seed,
            openings: 0,
            floor: 0,
            unsure: false,
            failed: false,
            acknowledged: BTreeSet::new(),
            whole: Vec::new(),
            trimmed: 0,
        }
    }

    /// Returns the book.
    ///
    /// # Errors
    /// [`Broken`] if the harness lost it.
    pub fn book(&self) -> Result<&Book, Broken> {
        self.book.as_ref().ok_or_else(|| Broken::new("harness", "there is no book"))
    }

    /// Takes an opened book.
    fn put(&mut self, book: Book) -> Result<(), Broken> {
        self.lists = follow(&book, ROWS)?;
        self.book = Some(book);
        Ok(())
    }

    /// Checks that live lists have what the same lists read anew have: those for which `looks` is
    /// true.
    ///
    /// # Errors
    /// [`Broken`] if one has something else.
    pub fn check_live(&mut self, looks: impl Fn(usize) -> bool) -> Result<(), Broken> {
        let Some(book) = self.book.as_ref().filter(|_| !self.failed) else { return Ok(()) };
        let lists = self.lists.iter_mut().enumerate().filter(|(number, _)| looks(*number));
        for (_, list) in lists {
            match list.check(book) {
                // A failure that was arranged may happen now.
                Err(_) if self.disk.has_failed() => self.failed = true,
                checked => checked?,
            }
        }
        Ok(())
    }

    /// Returns the disk.
    pub const fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn start(&mut self, disk: SimDisk) -> Result<Book, Error> {
        self.openings += 1;
        let randomness = SeededRandomness::from_number(self.seed.wrapping_add(self.openings));
        let Ok(options) = BookOptions::new(&self.actor) else {
            return Err(Error::Misuse("the actor is not valid"));
        };
        let options = options
            .schema(self.schema.clone())
            .clock(Arc::new(self.clock.clone()))
            .cache_bytes(1024 * 1024)
            .randomness(Box::new(randomness));
        let searched = ENTITIES.iter().filter_map(|name| EntityType::parse(name).ok());
        let options = searched
            .fold(options, |options, entity| options.search(entity, searched_fields(self.version)));
        Book::on_backend(disk, options)
    }

    /// Records how a call ended; `None` if the disk made it fail.
    ///
    /// # Errors
    /// [`Broken`] for an error that has no cause outside the book.
    pub fn called<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Broken> {
        match result {
            Ok(value) => {
                self.unsure = true;
                Ok(Some(value))
            }
            Err(error @ (Error::Unknown { .. } | Error::Store(_))) => {
                self.unsure |= matches!(error, Error::Unknown { .. });
                self.failed = true;
                ensure(self.disk.has_failed(), "S1", || {
                    format!("{error:?} though the disk did not fail")
                })?;
                Ok(None)
            }
            Err(error) => Err(Broken::new("admit", format!("a call failed: {error:?}"))),
        }
    }

    /// Records that these ops were confirmed to the app.
    pub fn acknowledge(&mut self, ops: impl IntoIterator<Item = OpId>) {
        self.acknowledged.extend(ops);
    }

    /// Reads the new entries of the log.
    ///
    /// # Errors
    /// [`Broken`] if an entry is not allowed.
    pub fn observe(&mut self, ledger: &Ledger) -> Result<(), Broken> {
        self.read_on(ledger)?;
        self.model.check_owed()
    }

    fn read_on(&mut self, ledger: &Ledger) -> Result<(), Broken> {
        // What was trimmed is read as it was.
        let trimmed = self.book()?.snapshot().and_then(|snapshot| Ok(snapshot.state()?.trimmed));
        let trimmed = trimmed
            .map_err(|error| Broken::new("S3", format!("the state does not read: {error:?}")))?;
        let gone = usize::try_from(trimmed.map_or(0, Seq::number)).unwrap_or(usize::MAX);
        let known = usize::try_from(self.model.entries).unwrap_or(usize::MAX);
        for entry in self.whole.iter().take(gone).skip(known) {
            self.model.take(entry, ledger)?;
        }
        let from = Seq::new(self.model.entries + 1);
        let entries = self.book()?.audit().entries(from, usize::MAX);
        let entries = entries
            .map_err(|error| Broken::new("S3", format!("the log does not read: {error:?}")))?;
        for entry in &entries {
            self.model.take(as_written(&self.whole, entry)?, ledger)?;
        }
        self.floor = self.model.entries;
        self.unsure = false;
        Ok(())
    }

    /// Signs out with the unsent changes kept, and opens the book again.
    ///
    /// # Errors
    /// [`Broken`] if something unsent is missing then, or something else is left.
    pub fn keep_unsent(&mut self, ledger: &Ledger) -> Result<(), Broken> {
        let from = Seq::new(self.whole.len() as u64 + 1);
        let new = SimDisk::empty();
        let written = self.book()?.write_unsent(new.clone());
        let written = written.and_then(|()| {
            self.book.as_ref().ok_or(Error::InUse)?.audit().entries(from, usize::MAX)
        });
        let Some(mut whole) = self.called(written)? else {
            return self.crash(Loss::Nothing, true, None, ledger);
        };
        let (plan, before) = (self.book()?.queue().plan(), self.model.pending());
        self.close_roughly();
        self.disk = new.clone();
        self.whole.append(&mut whole);
        let opened = self.start(new);
        let opened = self.called(opened)?;
        let book = opened.ok_or_else(|| Broken::new("S1", "a disk without a fault failed"))?;
        let same = book.queue().plan() == plan;
        self.put(book)?;
        self.reopened(ledger)?;
        ensure(same && self.model.pending() == before, "erased", || {
            format!("{before} ops waited, and something else is planned after the sign-out")
        })?;
        let left = self.model.records.len();
        ensure(before > 0 || self.model.rereading || left == 0, "erased", || {
            format!("{left} records are left though nothing was unsent")
        })
    }

    /// Trims the log, and opens the book again. Returns whether there was anything to trim.
    ///
    /// # Errors
    /// [`Broken`] if something that waits is missing then, or planned in another way.
    pub fn compact(&mut self, keep: u64, ledger: &Ledger) -> Result<bool, Broken> {
        let from = Seq::new(self.whole.len() as u64 + 1);
        let new = SimDisk::empty();
        let book = self.book()?;
        let trimmed = book.snapshot().and_then(|snapshot| Ok(snapshot.state()?.trimmed));
        let written = trimmed.and_then(|trimmed| {
            let last = book.audit().head()?.map_or(0, |head| head.seq.number());
            let before = Seq::new(last.saturating_sub(keep)).max(trimmed.unwrap_or(Seq::ZERO));
            let plan = book.write_compacted(Moment::Entry(before), new.clone())?;
            Ok((plan, book.audit().entries(from, usize::MAX)?))
        });
        let Some((done, mut whole)) = self.called(written)? else {
            return self.crash(Loss::Nothing, true, None, ledger).map(|()| false);
        };
        let Some(upto) = done.upto else { return Ok(false) };
        self.trimmed = upto.number();
        let (plan, before) = (self.book()?.queue().plan(), self.model.pending());
        let records = self.model.records.len();
        self.close_roughly();
        self.disk = new.clone();
        self.whole.append(&mut whole);
        let opened = self.start(new);
        let opened = self.called(opened)?;
        let book = opened.ok_or_else(|| Broken::new("S1", "a disk without a fault failed"))?;
        let same = book.queue().plan() == plan;
        self.put(book)?;
        self.reopened(ledger)?;
        let after = (self.model.pending(), self.model.records.len());
        ensure(same && after == (before, records), "trimmed", || {
            format!("{before} ops of {records} records waited, {after:?} after trimming")
        })?;
        Ok(true)
    }

    /// Arranges that the disk fails.
    pub fn arrange(&mut self, fault: Fault, loss: Loss, again: Option<u64>) {
        self.arranged = Some((loss, again));
        self.disk.fail(fault);
    }

    /// Checks that a book whose disk failed accepts no more writes.
    ///
    /// # Errors
    /// [`Broken`] if the book accepts a write.
    pub fn check_stopped(&self) -> Result<(), Broken> {
        if !self.failed {
            return Ok(());
        }
        let Ok(key) = RecordKey::parse("lead", "after-the-error") else { return Ok(()) };
        let written = self.book()?.write(Mutation::create(key, Fields::new()));
        ensure(written.is_err(), "S17", || "a write succeeded after a storage error".to_owned())
    }

    /// Makes the power fail, or the process die, and reopens the book.
    ///
    /// # Errors
    /// [`Broken`] if it does not open, or something is missing.
    pub fn crash(
        &mut self,
        loss: Loss,
        killed: bool,
        again: Option<u64>,
        ledger: &Ledger,
    ) -> Result<(), Broken> {
        let mut platter = self.disk.platter();
        self.close_roughly();
        for attempt in 0..2 {
            let disk = if killed && attempt == 0 {
                SimDisk::with_platter(platter.clone())
            } else {
                SimDisk::holding(platter.image(loss))
            };
            if let (0, Some(changes)) = (attempt, again) {
                disk.fail(Fault { after: changes, forever: true });
            }
            match self.start(disk.clone()) {
                Ok(book) => {
                    // The failure during the recovery may not have happened. It must not happen
                    // later.
                    disk.heal();
                    self.disk = disk;
                    self.put(book)?;
                    return self.reopened(ledger);
                }
                Err(_) if disk.has_failed() => platter = disk.platter(),
                Err(error) => {
                    return Err(Broken::new(
                        "S1",
                        format!("the book does not open after {loss:?}: {error:?}"),
                    ));
                }
            }
        }
        Err(Broken::new("S1", "the book does not open after a crash of its recovery"))
    }

    /// Drops the book, which cannot change its disk any more.
    fn close_roughly(&mut self) {
        self.disk.fail(Fault { after: 0, forever: true });
        self.book = None;
        self.open = None;
        self.arranged = None;
        self.failed = false;
    }

    /// Closes the book properly and opens it.
    ///
    /// # Errors
    /// [`Broken`] if something is missing then, or the plan differs.
    pub fn reopen(&mut self, ledger: &Ledger) -> Result<(), Broken> {
        let Some(book) = self.book.take() else { return Ok(()) };
        let plan = book.queue().plan();
        let closed = book.close();
        if self.called(closed)?.is_none() {
            return self.crash(Loss::Nothing, true, None, ledger);
        }
        let disk = self.disk.clone();
        let book = self.start(disk.clone());
        let Some(book) = self.called(book)? else {
            return self.crash(Loss::Nothing, true, None, ledger);
        };
        let same = book.queue().plan() == plan;
        self.put(book)?;
        self.open = None;
        self.unsure = false;
        let entries = self.model.entries;
        self.reopened(ledger)?;
        // Ops that were unanswered before are converted to the app's version when the book is
        // opened.
        let is_turned = self.model.entries > entries;
        ensure(same || is_turned, "S5", || "after reopening something else is planned".to_owned())
    }

    /// Closes the book and opens it by another version of the app.
    ///
    /// # Errors
    /// [`Broken`] if something is missing then, or still has the form of the former version.
    pub fn upgrade(&mut self, schema: Schema, version: u32, ledger: &Ledger) -> Result<(), Broken> {
        let Some(book) = self.book.take() else { return Ok(()) };
        (self.schema, self.version) = (schema, version);
        let closed = book.close();
        let opened = match self.called(closed)? {
            Some(()) => {
                let book = self.start(self.disk.clone());
                self.called(book)?
            }
            None => None,
        };
        match opened {
            Some(book) => {
                self.put(book)?;
                self.open = None;
                self.reopened(ledger)?;
            }
            None => self.crash(Loss::Nothing, true, None, ledger)?,
        }
        self.model.check_forms(version)
    }

    fn reopened(&mut self, ledger: &Ledger) -> Result<(), Broken> {
        let before = std::mem::take(&mut self.model);
        let (floor, unsure) = (self.floor, self.unsure);
        self.model.read_before = before.entries;
        self.read_on(ledger)?;
        // Decisions since then may concern owed records.
        self.model.owed.clear();
        let now = &self.model;
        let same = before.hashes.iter().zip(&now.hashes).all(|(before, now)| before == now);
        ensure(same, "S2", || "the log is another one after reopening".to_owned())?;
        ensure(now.entries >= floor, "S1", || {
            format!("of {floor} durable entries {} are there after reopening", now.entries)
        })?;
        ensure(!now.ends_with_the_device || now.entries == 2, "S17", || {
            "an opening or a silence is recorded without a write".to_owned()
        })?;
        let upkeep = (floor + 1..=now.entries).all(|entry| now.upkeep.contains(&entry));
        ensure(unsure || upkeep, "S17", || {
            format!(
                "a write that failed is there after reopening: {floor} entries, then {}",
                now.entries
            )
        })?;
        let lost = self.acknowledged.iter().find(|op| !now.ops.contains_key(op));
        ensure(lost.is_none(), "S1", || format!("op {lost:?} was acknowledged and is lost"))?;
        let lost = self.sent.keys().find(|unit| !now.ever_planned.contains(unit));
        ensure(lost.is_none(), "S1", || format!("unit {lost:?} left and its plan is lost"))
    }

    /// Checks a request that is about to leave.
    ///
    /// # Errors
    /// [`Broken`] if something leaves that is not planned durably, or in another form than before.
    pub fn check_departure(&mut self, request: &ExchangeRequest) -> Result<(), Broken> {
        ensure(request.actor.as_str() == self.actor, "S19", || {
            "another actor's request".to_owned()
        })?;
        for unit in &request.units {
            ensure(self.model.units.contains_key(&unit.id), "S5", || {
                format!("unit {} leaves and is not unanswered", unit.id)
            })?;
            let ops = unit.changes.iter().flat_map(|change| &change.ops);
            let known = ops.filter_map(|op| self.model.ops.get(op));
            let other = known.map(|op| &op.sender).find(|sender| **sender != self.actor);
            ensure(other.is_none(), "S19", || {
                format!("an op of {other:?} leaves with the credentials of {}", self.actor)
            })?;
            let text = serde_json::to_string(unit).unwrap_or_default();
            let before = self.sent.insert(unit.id, text.clone());
            ensure(before.is_none_or(|before| before == text), "S7", || {
                format!("unit {} leaves with other bytes than before", unit.id)
            })?;
            let next = self.left.len();
            self.left.entry(unit.id).or_insert(next);
        }
        // Units are sent again in the order in which they were sent first, and before new ones.
        // Suspected units are sent last.
        let known = request.units.iter().filter(|unit| !self.model.suspected.contains(&unit.id));
        let places: Vec<_> = known.filter_map(|unit| self.left.get(&unit.id)).collect();
        ensure(places.is_sorted(), "S9", || {
            format!("units leave in another order than before: {places:?}")
        })?;
        if request.units.is_empty() || !self.disk.is_dirty() {
            return Ok(());
        }
        let durable = self.start(SimDisk::holding(self.disk.platter().image(Loss::Everything)));
        let head = durable.ok().and_then(|book| book.audit().head().ok()).flatten();
        ensure(head.is_some_and(|head| head.seq.number() >= self.model.entries), "S1", || {
            "a unit leaves before its plan is durable".to_owned()
        })
    }

    /// Applies an answer.
    ///
    /// # Errors
    /// [`Broken`] if the book fails for no reason.
    pub fn take(
        &mut self,
        request: &ExchangeRequest,
        answer: ExchangeAnswer,
    ) -> Result<bool, Broken> {
        let taken = self.book()?.exchange().apply_answer(request, answer);
        Ok(self.called(taken)?.is_some_and(|taken| taken.more))
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({}, {} entries)", self.actor, self.model.entries)
    }
}

/// Returns an entry with the values that it had before any of them was erased.
fn as_written<'e>(whole: &'e [Entry], entry: &'e Entry) -> Result<&'e Entry, Broken> {
    let at = usize::try_from(entry.header.seq.number()).unwrap_or_default();
    let Some(whole) = at.checked_sub(1).and_then(|at| whole.get(at)) else {
        return Ok(entry);
    };
    let commitments = |entry: &Entry| entry.items.iter().map(Item::commitment).collect::<Vec<_>>();
    let same = commitments(whole) == commitments(entry) && whole.hash == entry.hash;
    ensure(same, "S2", || format!("entry {at} is another one after an erasure"))?;
    Ok(whole)
}
