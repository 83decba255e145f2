//! A real book on a disk in memory, driven by hand, one step at a time. The case itself is the
//! server.
//!
//! ```text
//!   edit        Book::write, Book::transaction
//!   begin_push  prepare ─► a request in flight; what is in flight already is not sent a second time
//!   end_push    an answer built from the results ─► apply_answer, for each request in flight
//!   pull        prepare for a page only ─► an answer with the changes ─► apply_answer
//! ```
//!
//! Invariants:
//! 1. Nothing of the engine is imitated: requests, pending ops, holds and records come from the
//!    book.
//! 2. A unit that is sent again has the bytes that it had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fieldbook::conflict::Conflict;
use fieldbook::conflict::{Choice, Undone};
use fieldbook::error::Rejected;
use fieldbook::host::{Clock, Connectivity, SeededRandomness};
use fieldbook::record::{OpId, OpKind, Version};
use fieldbook::sync::Resume;
use fieldbook::sync::protocol::{ExchangeRequest, Unit};
use fieldbook::{
    Actor, Book, BookOptions, EntityRules, EntityType, Error, Fields, Mutation, RecordKey, Schema,
};
use serde_json::Value;

use super::answer;
use super::case::{Declared, Edit, Given, Pulled, Queued, Side, Step};
use super::clock::CaseClock;
use super::declared::rules;
use super::disk::MemoryDisk;
use super::exchange::Batch;
use super::fate::Fates;
use super::fault::Fault;
use super::manner::Manner;

/// The undo window of loaded ops, so long that only the ops to try leave while a queue is loaded.
const LOADING_WINDOW_MS: i64 = 60 * 60 * 1_000;

/// A case's device, its server, and the messages between them.
pub(super) struct World {
    disk: MemoryDisk,
    book: Option<Book>,
    pub(super) clock: Arc<CaseClock>,
    network: Arc<Network>,
    declared: BTreeMap<EntityType, Declared>,
    closed: bool,
    actor: String,
    /// The entity types that the case names: each has a cursor.
    entities: BTreeSet<EntityType>,
    pub(super) in_flight: Vec<ExchangeRequest>,
    pub(super) server_epoch: u8,
    /// Every unit that ever left, in the order of leaving.
    pub(super) units: Vec<Unit>,
    /// The requests, as the case shows them.
    pub(super) sent: Vec<Vec<Value>>,
    /// Edits that the book refused and the case did not expect.
    pub(super) refusals: Vec<String>,
    /// How cases are run.
    pub(super) manner: Manner,
    /// How many requests were lost.
    pub(super) lost: u64,
    /// The seed of ids, salts and jitter.
    seed: u64,
    /// A counter for ids that only the server knows.
    pub(super) drawn: u128,
}

/// A network that may cost by the byte.
#[derive(Debug, Default)]
struct Network(AtomicBool);

impl Connectivity for Network {
    fn is_unmetered(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

impl World {
    /// Opens a book and loads the given state of a case.
    pub(super) fn new(
        given: Given,
        entities: BTreeSet<EntityType>,
        manner: Manner,
        seed: u64,
    ) -> Result<Self, Fault> {
        let mut world = Self {
            disk: MemoryDisk::new(),
            book: None,
            clock: Arc::new(CaseClock::new()),
            network: Arc::default(),
            declared: given.schema,
            closed: given.closed,
            actor: given.actor.unwrap_or_else(|| "user-1".to_owned()),
            entities,
            in_flight: Vec::new(),
            server_epoch: 1,
            units: Vec::new(),
            sent: Vec::new(),
            refusals: Vec::new(),
            // The given state exists already: how it arrived is not tested.
            manner: Manner::default(),
            lost: 0,
            seed,
            drawn: 0,
        };
        let tried = given.local.queue.iter().any(|queued| queued.tries > 0);
        world.open(tried)?;
        let rows = given.local.rows.into_iter().map(|(key, row)| Pulled {
            key,
            version: row.version,
            payload: row.payload,
            deleted: row.deleted,
            partial: false,
            own: false,
            edited: None,
            edited_ms: None,
            older: Vec::new(),
        });
        let rows: Vec<_> = rows.collect();
        if !rows.is_empty() || given.local.cursor > 0 {
            world.pull(&rows, Some(given.local.cursor))?;
        }
        world.load(given.local.queue)?;
        if tried {
            world.clock.advance(24 * LOADING_WINDOW_MS);
            world.reopen_as_it_is()?;
        }
        world.manner = manner;
        Ok(world)
    }

    /// Writes the pending ops at the start, and makes the server put off the tried ones as often as
    /// given.
    ///
    /// Only the ops to try may leave. The others are written with a wall clock hours ahead, so that
    /// the undo window, which is long during loading, holds them.
    fn load(&mut self, queue: Vec<Queued>) -> Result<(), Fault> {
        let most = queue.iter().map(|queued| queued.tries).max().unwrap_or(0);
        let mut tried = Vec::new();
        for queued in queue {
            let ahead = if most > 0 && queued.tries == 0 { 12 * LOADING_WINDOW_MS } else { 0 };
            self.clock.jump(ahead);
            self.edit(mutation(queued.op, queued.key.clone(), queued.payload), None)?;
            self.clock.jump(-ahead);
            self.clock.advance(1);
            tried.push((queued.key, queued.tries));
        }
        self.clock.advance(if most > 0 { 2 * LOADING_WINDOW_MS } else { 0 });
        for round in 0..most {
            self.begin_push(Batch::of(None, None), false)?;
            let due = tried.iter().filter(|(_, tries)| *tries > round);
            let results: Vec<_> = due.map(|(key, _)| answer::put_off(key.clone())).collect();
            self.end_push(&results)?;
        }
        self.sent.clear();
        match self.refusals.pop() {
            Some(refusal) => Err(Fault::Case(format!("given.queue: {refusal}"))),
            None => Ok(()),
        }
    }

    fn open(&mut self, loading: bool) -> Result<(), Fault> {
        let options = BookOptions::new(&self.actor)
            .map_err(|fault| Fault::Case(format!("actor: {fault}")))?
            .schema(self.schema(loading))
            .clock(Arc::clone(&self.clock) as Arc<dyn Clock>)
            .connectivity(Arc::clone(&self.network) as Arc<dyn Connectivity>)
            .randomness(Box::new(SeededRandomness::from_number(self.drawn_number())));
        self.book = Some(Book::on_backend(self.disk.clone(), options)?);
        Ok(())
    }

    fn schema(&self, loading: bool) -> Schema {
        let window = if loading { LOADING_WINDOW_MS.unsigned_abs() } else { 0 };
        let others = EntityRules {
            undo_window: std::time::Duration::from_millis(window),
            ..EntityRules::default()
        };
        let start = if self.closed && !loading { Schema::closed() } else { Schema::open(others) };
        self.declared.iter().filter(|_| !loading).fold(start, |schema, (entity, declared)| {
            schema.declare(entity.clone(), rules(declared))
        })
    }

    /// Closes the book and opens it again.
    pub(super) fn reopen(&mut self, schema: BTreeMap<EntityType, Declared>) -> Result<(), Fault> {
        if let Some(book) = self.book.take() {
            book.close()?;
        }
        self.declared.extend(schema);
        self.open(false)
    }

    /// Closes the book and opens it again, with the declarations that it had.
    pub(super) fn reopen_as_it_is(&mut self) -> Result<(), Fault> {
        self.reopen(BTreeMap::new())
    }

    pub(super) fn book(&self) -> Result<&Book, Fault> {
        self.book.as_ref().ok_or_else(|| Fault::Case("the book is closed".to_owned()))
    }

    /// Returns the entity types that the case names.
    pub(super) const fn entities(&self) -> &BTreeSet<EntityType> {
        &self.entities
    }

    /// Performs one step.
    pub(super) fn step(&mut self, step: Step) -> Result<(), Fault> {
        self.clock.advance(1);
        match step {
            Step::Edit { op, key, payload, refused } => {
                self.edit(mutation(op, key, payload), refused)
            }
            Step::EditAll { edits, refused } => self.edit_all(edits, refused),
            Step::BeginPush { limit, limit_bytes, heed_backoff } => {
                self.begin_push(Batch::of(limit, limit_bytes), heed_backoff)
            }
            Step::EndPush { results } => self.end_push(&results),
            Step::Push { results, limit, limit_bytes, heed_backoff } => {
                self.push(&results, Batch::of(limit, limit_bytes), heed_backoff)
            }
            Step::Pull { changes, cursor } => self.pull(&changes, cursor),
            Step::TokenRefreshed {} => Ok(self.book()?.servers().resume(Resume::Authenticated)?),
            Step::Upgraded {} => Ok(self.book()?.servers().resume(Resume::Upgraded)?),
            Step::Clock { advance_ms, jump_ms } => {
                self.clock.advance(advance_ms);
                self.clock.jump(jump_ms);
                Ok(())
            }
            Step::Retry { keys, nth } => {
                let mut ops = self.dead_letters(&keys)?;
                if let Some(nth) = nth {
                    ops = ops.into_iter().skip(nth).take(1).collect();
                }
                Ok(self.book()?.dead_letters().retry(ops)?)
            }
            Step::Discard { keys, reason } => {
                let mut ops = self.dead_letters(&keys)?;
                if ops.is_empty() {
                    ops = self.held(&keys)?;
                }
                Ok(self.book()?.dead_letters().discard(ops, &reason)?)
            }
            Step::Undo { key, nth, becomes } => self.undo(&key, nth, &becomes),
            Step::Flip { key } => {
                let book = self.book()?;
                let id = self.conflict(&key, |_| true)?.id;
                Ok(book.conflicts().flip(id).map(drop)?)
            }
            Step::Choose { key, choice, payload } => {
                let id = self.conflict(&key, |conflict| conflict.open)?.id;
                let choice = match choice {
                    Side::Mine => Choice::Local,
                    Side::Theirs => Choice::Remote,
                    Side::Merged => Choice::Merged(payload.unwrap_or_default()),
                };
                Ok(self.book()?.conflicts().resolve(id, choice)?)
            }
            Step::Correct { key, payload, nth } => {
                let op = self.dead_letters(std::slice::from_ref(&key))?.into_iter().nth(nth);
                let op =
                    op.ok_or_else(|| Fault::Case(format!("{key}: no dead letter to correct")))?;
                Ok(self.book()?.dead_letters().correct(op, payload).map(drop)?)
            }
            Step::Server { epoch } => {
                self.server_epoch = epoch;
                Ok(())
            }
            Step::AcceptServer {} => Ok(self.book()?.servers().accept_only()?),
            Step::Network { metered } => {
                self.network.0.store(metered, Ordering::Relaxed);
                Ok(())
            }
            Step::ActAs { actor } => {
                let name = Actor::parse(&actor)
                    .map_err(|fault| Fault::Case(format!("act_as: {fault}")))?;
                self.book()?.act_as(name);
                self.actor = actor;
                Ok(())
            }
            Step::Reopen { schema } => self.reopen(schema),
        }
    }

    fn undo(&self, key: &RecordKey, nth: Option<usize>, becomes: &str) -> Result<(), Fault> {
        let book = self.book()?;
        let places = Fates::read(book)?.places(key);
        let place = nth.map_or(places.last(), |nth| places.get(nth)).copied();
        let place = place.ok_or_else(|| Fault::Case(format!("{key}: no such op to undo")))?;
        let seen = match book.queue().undo(place)? {
            Undone::Cancelled => "cancelled",
            Undone::Compensated(_) => "compensated",
            Undone::Nothing => "nothing",
        };
        if seen == becomes {
            Ok(())
        } else {
            Err(Fault::Case(format!("undo of {key}: expected {becomes}, got {seen}")))
        }
    }

    fn conflict(
        &self,
        key: &RecordKey,
        wanted: impl Fn(&Conflict) -> bool,
    ) -> Result<Conflict, Fault> {
        let conflicts = self.book()?.conflicts().all()?.into_iter();
        let mut found = conflicts.filter(|conflict| conflict.key == *key && wanted(conflict));
        found.next_back().ok_or_else(|| Fault::Case(format!("{key}: no such conflict")))
    }

    fn edit(&mut self, mutation: Mutation, refused: Option<String>) -> Result<(), Fault> {
        let what = format!("{} {}", mutation.kind, mutation.key);
        let written = self.book()?.write(mutation).map(drop);
        self.written(what, written, refused)
    }

    fn edit_all(&mut self, edits: Vec<Edit>, refused: Option<String>) -> Result<(), Fault> {
        let mutations =
            edits.into_iter().map(|edit| mutation(edit.op, edit.key, edit.payload)).collect();
        let written = self.book()?.transaction(mutations).map(drop);
        self.written("transaction".to_owned(), written, refused)
    }

    /// Compares a refusal with the case's expectation. An unexpected one writes nothing and is
    /// remembered, to be shown if the case fails.
    fn written(
        &mut self,
        what: String,
        written: Result<(), Error>,
        refused: Option<String>,
    ) -> Result<(), Fault> {
        let seen = match written {
            Ok(()) => None,
            Err(Error::Rejected(rejected)) => Some((word(&rejected), rejected.to_string())),
            Err(error) => return Err(error.into()),
        };
        match (seen, refused) {
            (Some((seen, text)), Some(refused)) if seen != refused => Err(Fault::Case(format!(
                "{what}: expected to be refused as {refused}, but: {text}"
            ))),
            (None, Some(refused)) => Err(Fault::Case(format!(
                "{what}: expected to be refused as {refused}, but it was taken"
            ))),
            (Some((_, text)), None) => {
                self.refusals.push(text);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn dead_letters(&self, keys: &[RecordKey]) -> Result<Vec<OpId>, Fault> {
        let letters = self.book()?.dead_letters().all()?;
        let ops =
            letters.into_iter().filter(|letter| keys.contains(&letter.key)).map(|letter| letter.op);
        Ok(ops.collect())
    }

    /// Returns the ops of records that wait for a correction.
    fn held(&self, keys: &[RecordKey]) -> Result<Vec<OpId>, Fault> {
        let book = self.book()?;
        let tail = book.snapshot()?.tail(book.schema())?;
        let plan = book.queue().plan();
        let held = plan.holds.iter().filter(|(_, hold)| hold.waits_for_correction());
        let rows =
            held.filter_map(|(place, _)| tail.op(*place)).filter(|row| keys.contains(&row.key));
        Ok(rows.map(|row| row.op).collect())
    }

    /// Draws a number that no other opening of any seed has.
    fn drawn_number(&mut self) -> u64 {
        self.drawn += 1;
        u64::try_from(self.drawn).unwrap_or(u64::MAX).wrapping_add(self.seed << 32)
    }

    /// Draws a unique id.
    pub(super) fn draw(&mut self) -> [u8; 16] {
        self.drawn += 1;
        self.drawn.to_be_bytes()
    }
}

fn mutation(op: OpKind, key: RecordKey, payload: Option<Fields>) -> Mutation {
    Mutation { key, kind: op, fields: payload.unwrap_or_default().into(), cites: None }
}

/// Returns the name that cases use for a refusal.
fn word(rejected: &Rejected) -> &'static str {
    match rejected {
        Rejected::Exists(_) => "exists",
        Rejected::Missing(_) => "missing",
        Rejected::UnknownEntity(_) => "unknown_entity",
        Rejected::Fields { .. } => "fields",
        Rejected::TooManyFields { .. } => "too_many_fields",
        Rejected::KeepsChanging(_) => "keeps_changing",
        Rejected::TooManyOps { .. } => "too_many_ops",
        Rejected::TooManyBytes { .. } => "too_many_bytes",
        _ => "other",
    }
}

/// Returns a version as the server counts.
pub(super) const fn version(number: u64) -> Version {
    Version::new(number)
}
