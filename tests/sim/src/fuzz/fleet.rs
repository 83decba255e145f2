//! Targets over whole books and a server: messages arrive in any order, are lost, or arrive twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use fieldbook::audit::Seq;
use fieldbook::audit::entry::{Control, Decision, Meta, PlannedOp};
use fieldbook::audit::{TableCheck, Verification};
use fieldbook::conflict::Choice;
use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::record::{FieldsJson, OpId, OpPlace, RecordRef};
use fieldbook::schema::Granularity;
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest};
use fieldbook::sync::{ExchangeParams, NextStep, ServerEpoch, ServerId};
use fieldbook::{Book, BookOptions, Error, Fields, Mutation, RecordKey, limits};
use fieldbook_core::authority::{Caller, MemoryAuthority, Quota, exchange};
use redb::backends::InMemoryBackend;
use serde_json::json;

use super::{App, Choices};
use crate::clock::SimClock;

const BEGINNING: i64 = 1_767_225_600_000;
/// The most actions.
const ACTIONS: usize = 60;
/// How many exchanges bring a device to rest at most, when nothing fails.
const EXCHANGES: usize = 60;
/// How many rounds of everyone syncing bring all to rest.
const ROUNDS: usize = 20;

/// Some devices and a server, with messages in flight.
struct Fleet {
    books: Vec<Book>,
    server: MemoryAuthority,
    clock: SimClock,
    requests: Vec<(usize, ExchangeRequest)>,
    answers: Vec<(usize, ExchangeRequest, ExchangeAnswer)>,
}

impl App {
    /// Runs two devices that write and exchange while requests and answers are lost, repeated and
    /// reordered. Once everything has come to rest, all devices read the server's state, no op is
    /// left or ended twice, and each log verifies.
    ///
    /// If only one device writes each field, the result is also exactly that of a network in order.
    pub fn reorderings(&self, data: &[u8]) {
        let mut choices = Choices(data);
        let by_field = |key: RecordKey| self.rules(&key.entity).granularity == Granularity::Field;
        let apart = choices.below(2) == 1 && self.keys().all(by_field);
        let Some(mut fleet) = Fleet::new(self, 2) else { return };
        let mut written: BTreeMap<(RecordKey, String), i64> = BTreeMap::new();
        if apart {
            // All records exist and both devices know them from the start. Each device has its own
            // field.
            for key in self.keys() {
                let fields = Fields::from_iter([
                    ("mine-0".to_owned(), json!(0)),
                    ("mine-1".to_owned(), json!(0)),
                ]);
                fleet.put(0, Mutation::create(key, fields));
            }
            fleet.settle();
        }
        for number in 1.. {
            if choices.is_empty() || number > ACTIONS {
                break;
            }
            let (what, device) = (choices.below(10), choices.below(2));
            match what {
                0..4 if apart => {
                    let Some(key) = self.key(&mut choices) else { return };
                    let (name, value) =
                        (format!("mine-{device}"), i64::try_from(number).unwrap_or(0));
                    fleet.put(
                        device,
                        Mutation::update(
                            key.clone(),
                            Fields::from_iter([(name.clone(), json!(value))]),
                        ),
                    );
                    written.insert((key, name), value);
                }
                0..4 => fleet.write(self, device, &mut choices),
                _ => fleet.act(what, device, &mut choices),
            }
            fleet.clock.advance(1_000);
        }
        fleet.settle();
        fleet.check();
        for ((key, name), value) in written {
            let record = fleet.image(&key).and_then(|json| json.to_fields().ok());
            let there = record.as_ref().and_then(|fields| fields.get(&name)).cloned();
            assert_eq!(there, Some(json!(value)), "BUG: disorder changed `{name}` of {key}");
        }
    }

    /// Runs a device with waiting ops while changes of another device arrive in between. Each op
    /// remains or has one end. The app reads the confirmed record with the waiting ops on it.
    /// Applying the same answer again changes nothing.
    pub fn rebase(&self, data: &[u8]) {
        let mut choices = Choices(data);
        let Some(mut fleet) = Fleet::new(self, 2) else { return };
        for _ in 0..choices.below(4) {
            fleet.write(self, 1, &mut choices);
        }
        fleet.settle();
        for _ in 0..6 {
            for _ in 0..=choices.below(3) {
                let device = choices.below(2);
                fleet.write(self, device, &mut choices);
                fleet.clock.advance(u64::from(choices.byte()) * 100);
            }
            if choices.below(3) == 0 {
                fleet.begin(0, true);
                fleet.requests.clear();
            }
            fleet.sync(1);
            let Some(request) = fleet.prepare(0, choices.below(2) == 0) else { continue };
            let answer = fleet.serve(&request);
            let before = fleet.ended(0);
            fleet.take(0, &request, answer.clone());
            let after = fleet.ended(0);
            assert!(
                before.iter().all(|(op, ends)| after.get(op) >= Some(ends)),
                "BUG: an op's end is gone"
            );
            assert!(after.values().all(|ends| *ends <= 1), "BUG: an op ended twice");
            fleet.check_tail(0);
            let (length, images) = fleet.state(0);
            fleet.take(0, &request, answer);
            // The arrival is a fact and may be recorded twice; nothing is decided twice.
            let mut new = fleet.entries(0).into_iter().skip(length).map(|entry| entry.meta);
            let is_fact = |meta: &Meta| {
                matches!(meta, Meta::Upstream(_) | Meta::Control(Control::Authors(_)))
            };
            let decided = new.find(|meta| !is_fact(meta));
            assert!(
                decided.is_none(),
                "BUG: the same answer, taken again, has effects again: {decided:?}"
            );
            assert_eq!(
                fleet.state(0).1,
                images,
                "BUG: the same answer, taken again, changed a record"
            );
            fleet.check_book(0);
        }
        fleet.settle();
        fleet.check();
    }
}

impl Fleet {
    fn new(app: &App, devices: u64) -> Option<Self> {
        let clock = SimClock::new(BEGINNING);
        let book = |number: u64| {
            let options = BookOptions::new(&format!("actor-{number}")).ok()?;
            let options = options
                .schema(app.schema().clone())
                .clock(Arc::new(clock.clone()))
                .cache_bytes(1024 * 1024)
                .randomness(Box::new(SeededRandomness::from_number(number)));
            Book::on_backend(InMemoryBackend::new(), options).ok()
        };
        let books: Option<Vec<_>> = (1..=devices).map(book).collect();
        let server =
            MemoryAuthority::new(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([2; 16]));
        Some(Self { books: books?, server, clock, requests: Vec::new(), answers: Vec::new() })
    }

    fn book(&self, device: usize) -> &Book {
        match self.books.get(device) {
            Some(book) => book,
            None => panic!("BUG: the harness has no device {device}"),
        }
    }

    fn write(&mut self, app: &App, device: usize, choices: &mut Choices<'_>) {
        let Some(key) = app.key(choices) else { return };
        let is_there = self.book(device).records().get(&key).is_ok_and(|record| record.is_some());
        let mutation = app.mutation(key.clone(), is_there, choices);
        if choices.below(6) > 0 {
            return self.put(device, mutation);
        }
        let Some(other) = app.key(choices).filter(|other| *other != key) else { return };
        let is_there = self.book(device).records().get(&other).is_ok_and(|record| record.is_some());
        let second = app.mutation(other, is_there, choices);
        accept(self.book(device).transaction(vec![mutation, second]));
    }

    fn put(&mut self, device: usize, mutation: Mutation) {
        accept(self.book(device).write(mutation));
    }

    /// Does something to the network.
    fn act(&mut self, what: usize, device: usize, choices: &mut Choices<'_>) {
        match what {
            4 | 5 => self.begin(device, choices.below(2) == 0),
            6 | 7 => {
                let place = choices.below(self.requests.len());
                if let Some((device, request)) = self.requests.get(place).cloned() {
                    // The request stays in flight, so that it can arrive again.
                    let answer = self.serve(&request);
                    self.answers.push((device, request, answer));
                }
            }
            8 => {
                let place = choices.below(self.answers.len());
                if let Some((device, request, answer)) = self.answers.get(place).cloned() {
                    self.take(device, &request, answer);
                }
            }
            _ => {
                let place = choices.below(self.requests.len() + self.answers.len());
                if place < self.requests.len() {
                    self.requests.remove(place);
                } else if place - self.requests.len() < self.answers.len() {
                    self.answers.remove(place - self.requests.len());
                }
            }
        }
    }

    fn begin(&mut self, device: usize, push: bool) {
        if let Some(request) = self.prepare(device, push) {
            self.requests.push((device, request));
        }
    }

    fn prepare(&self, device: usize, push: bool) -> Option<ExchangeRequest> {
        self.ask(device, push, true, 2)
    }

    fn ask(
        &self,
        device: usize,
        push: bool,
        pull: bool,
        page_limit: u32,
    ) -> Option<ExchangeRequest> {
        let ask = ExchangeParams {
            first: true,
            push,
            pull,
            batch_ops: limits::BATCH_OPS,
            batch_bytes: limits::BATCH_BYTES,
            page_limit,
        };
        match self.book(device).exchange().prepare(&ask) {
            Ok(NextStep::Exchange(request)) => Some(request),
            Ok(NextStep::Idle { .. }) => None,
            Err(error) => panic!("BUG: an exchange cannot be prepared: {error:?}"),
        }
    }

    fn serve(&mut self, request: &ExchangeRequest) -> ExchangeAnswer {
        let now = WallTime::from_milliseconds(self.clock.wall());
        match exchange(&mut self.server, request, now, &Caller::Anyone, &Quota::default()) {
            Ok(answer) => answer,
            Err(error) => panic!("BUG: the server refuses a request of a device: {error:?}"),
        }
    }

    fn take(&self, device: usize, request: &ExchangeRequest, answer: ExchangeAnswer) -> bool {
        match self.book(device).exchange().apply_answer(request, answer) {
            Ok(taken) => taken.more,
            Err(error) => panic!("BUG: an answer broke the book: {error:?}"),
        }
    }

    /// Syncs a device with nothing failing.
    fn sync(&mut self, device: usize) {
        let mut pull = true;
        for _ in 0..EXCHANGES {
            let Some(request) = self.ask(device, true, pull, 20) else { return };
            let answer = self.serve(&request);
            pull = self.take(device, &request, answer);
        }
        panic!("BUG: {EXCHANGES} exchanges did not bring a device to rest");
    }

    /// Syncs all devices and decides what waits for people, until nothing is left.
    fn settle(&mut self) {
        self.requests.clear();
        self.answers.clear();
        for round in 0..ROUNDS {
            let before = self.server.records().map(|(_, row)| row.version).max();
            for device in 0..self.books.len() {
                self.decide(device, round);
                self.sync(device);
            }
            self.clock.advance(3_600_000);
            let owed: u64 = self.books.iter().map(|book| book.status().pending).sum();
            if owed == 0 && self.server.records().map(|(_, row)| row.version).max() == before {
                return;
            }
        }
        let holds: Vec<_> = self.books.iter().map(|book| book.queue().plan().holds).collect();
        panic!("BUG: {ROUNDS} rounds did not bring everyone to rest: {holds:?}");
    }

    fn decide(&self, device: usize, round: usize) {
        let book = self.book(device);
        let dead: Vec<_> =
            book.dead_letters().all().unwrap_or_default().into_iter().map(|row| row.op).collect();
        for op in dead {
            // The op may have ended together with the op before.
            drop(book.dead_letters().discard(vec![op], "no longer wanted"));
        }
        let holds = book.queue().plan().holds;
        let held =
            holds.iter().filter(|(_, hold)| hold.waits_for_correction()).map(|(place, _)| *place);
        for place in held {
            if round.is_multiple_of(2) {
                // The op may have ended together with the op before.
                drop(book.queue().undo(place));
            } else {
                // If newer ops depend on the op, the undo may have no effect, or may make an op
                // that waits for the op.
                self.give_up(device, place);
            }
        }
        for conflict in book.conflicts().all().unwrap_or_default() {
            if conflict.open {
                drop(book.conflicts().resolve(conflict.id, Choice::Local));
            }
        }
    }

    fn give_up(&self, device: usize, place: OpPlace) {
        let book = self.book(device);
        let tail = book.snapshot().and_then(|snapshot| Ok(snapshot.tail(book.schema())?));
        let held = tail.ok().and_then(|tail| tail.op(place).map(|row| row.op));
        // The op may have ended together with the op before.
        drop(held.map(|op| book.dead_letters().discard(vec![op], "it cannot be sent")));
    }

    /// Checks that all devices read the server's state, nothing is pending, and each book is sound.
    fn check(&self) {
        for (device, book) in self.books.iter().enumerate() {
            for (key, row) in self.server.records() {
                let record = book.records().get(key).unwrap_or_default();
                let read = record.as_ref().map(|record| record.json.as_str());
                let there = row.fields.as_ref().map(FieldsJson::as_str);
                assert_eq!(
                    read, there,
                    "BUG: device {device} reads {key} otherwise than the server"
                );
            }
            let open: Vec<_> =
                self.ended(device).into_iter().filter(|(_, ends)| *ends != 1).collect();
            assert!(open.is_empty(), "BUG: ops without one end: {open:?}");
            self.check_book(device);
        }
    }

    fn check_book(&self, device: usize) {
        let book = self.book(device);
        let verified = book.audit().verify(|_| {});
        assert!(
            verified.as_ref().is_ok_and(Verification::is_sound),
            "BUG: the log does not verify: {verified:?}"
        );
        let differs = book.audit().check_tables();
        assert!(
            differs.as_ref().is_ok_and(TableCheck::is_sound),
            "BUG: the tables are not what the log says: {differs:?}"
        );
    }

    /// Checks that the tail has exactly the ops that have not ended.
    fn check_tail(&self, device: usize) {
        let open = self.ended(device).into_values().filter(|ends| *ends == 0).count() as u64;
        assert_eq!(
            self.book(device).status().pending,
            open,
            "BUG: the tail is not the ops without an end"
        );
    }

    fn image(&self, key: &RecordKey) -> Option<FieldsJson> {
        let mut records = self.server.records();
        records.find(|(found, _)| *found == key).and_then(|(_, row)| row.fields.clone())
    }

    /// Returns the length of the log, and every record.
    fn state(&self, device: usize) -> (usize, Vec<String>) {
        let book = self.book(device);
        let images =
            book.audit().entity_types().unwrap_or_default().into_iter().flat_map(|entity| {
                let listed = book.records().list(&entity, None, usize::MAX).ok();
                let image = |record: RecordRef<'_>| format!("{} {}", record.key(), record.json);
                listed.iter().flat_map(|records| records.iter()).map(image).collect::<Vec<_>>()
            });
        (self.entries(device).len(), images.collect())
    }

    fn entries(&self, device: usize) -> Vec<fieldbook::audit::entry::Entry> {
        self.book(device).audit().entries(Seq::new(1), usize::MAX).unwrap_or_default()
    }

    /// Returns for each op of the log how often it ended.
    fn ended(&self, device: usize) -> BTreeMap<OpId, u32> {
        let mut ends = BTreeMap::new();
        let mut units: BTreeMap<_, Vec<OpId>> = BTreeMap::new();
        for entry in self.entries(device) {
            let mut cancelled: Vec<PlannedOp> = Vec::new();
            let decisions = match &entry.meta {
                Meta::Intent(intent) => {
                    ends.extend(intent.ops.iter().map(|op| (op.id, 0)));
                    continue;
                }
                Meta::Control(Control::Planned(planned)) => {
                    cancelled.extend(
                        planned
                            .cancelled
                            .iter()
                            .flat_map(|cancelled| cancelled.ops.iter().copied()),
                    );
                    for unit in &planned.units {
                        let ops = unit
                            .changes
                            .iter()
                            .flat_map(|change| change.ops.iter().map(|op| op.id));
                        units.insert(unit.id, ops.collect());
                    }
                    &[][..]
                }
                Meta::Control(Control::Decided(decisions) | Control::PersonActed(_, decisions)) => {
                    decisions
                }
                _ => continue,
            };
            let mut ended: Vec<OpId> = cancelled.into_iter().map(|op| op.id).collect();
            for decision in decisions {
                match decision {
                    Decision::Acked { unit, .. } => {
                        ended.extend(units.get(unit).into_iter().flatten())
                    }
                    Decision::Superseded { op, .. } | Decision::Discarded { op, .. } => {
                        ended.push(op.id)
                    }
                    Decision::Cancelled(cancelled) => {
                        ended.extend(cancelled.ops.iter().map(|op| op.id))
                    }
                    _ => {}
                }
            }
            for op in ended {
                *ends.entry(op).or_default() += 1;
            }
        }
        ends
    }
}

/// Accepts the refusal of a write that no longer makes sense. No other error can happen here.
fn accept<T>(result: Result<T, Error>) {
    match result {
        Ok(_) | Err(Error::Rejected(_)) => {}
        Err(error) => panic!("BUG: a write failed: {error:?}"),
    }
}
