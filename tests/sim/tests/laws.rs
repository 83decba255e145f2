//! The law that needs a whole book: whatever is written, sent, answered and decided, the log only
//! grows, and a plan names every op that it sends. `PROPTEST_CASES` sets the number of cases.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;

use fieldbook::audit::Seq;
use fieldbook::audit::entry::{Control, Decision, Entry, Meta};
use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::record::OpPlace;
use fieldbook::sync::protocol::{ExchangeRequest, Outcome, UnitOutcome};
use fieldbook::sync::{ExchangeParams, NextStep, ServerEpoch, ServerId};
use fieldbook::{Book, BookOptions, Fields, Mutation, RecordKey};
use fieldbook_core::authority::{Caller, MemoryAuthority, Quota, exchange};
use proptest::prelude::*;
use serde_json::json;

#[derive(Debug, Clone)]
enum Action {
    Write(u8, u8, u8),
    Transaction(Vec<(u8, u8, u8)>),
    Sync,
    /// The answer is lost.
    Lose,
    /// Every unit is refused for good.
    Refuse,
    Undo(usize),
    Retry,
    Discard,
}

fn action() -> impl Strategy<Value = Action> {
    let write = || (0..4u8, 0..3u8, 0..3u8);
    prop_oneof![
        6 => write().prop_map(|(kind, record, value)| Action::Write(kind, record, value)),
        1 => prop::collection::vec(write(), 1..4).prop_map(Action::Transaction),
        3 => Just(Action::Sync),
        1 => Just(Action::Lose),
        1 => Just(Action::Refuse),
        1 => (0..6usize).prop_map(Action::Undo),
        1 => Just(Action::Retry),
        1 => Just(Action::Discard),
    ]
}

fn mutation((kind, record, value): (u8, u8, u8)) -> Mutation {
    let key: RecordKey = format!("lead/{record}").parse().unwrap();
    let fields = Fields::from_value(json!({"a": value, "b": kind})).unwrap();
    match kind {
        0 => Mutation::create(key, fields),
        1 => Mutation::update(key, fields),
        2 => Mutation::delete(key),
        _ => Mutation::replace(key, fields),
    }
}

struct World {
    book: Book,
    server: MemoryAuthority,
    planned: BTreeSet<OpPlace>,
}

impl World {
    fn new() -> Self {
        let options =
            BookOptions::new("ann").unwrap().randomness(Box::new(SeededRandomness::from_number(1)));
        let book = Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap();
        let server =
            MemoryAuthority::new(ServerId::from_bytes([7; 16]), ServerEpoch::from_bytes([8; 16]));
        Self { book, server, planned: BTreeSet::new() }
    }

    fn entries(&self) -> Vec<Entry> {
        self.book.audit().entries(Seq::new(1), 10_000).unwrap()
    }

    fn act(&mut self, action: &Action) {
        let book = &self.book;
        // Many writes are refused, and then nothing is written.
        match action {
            Action::Write(kind, record, value) => {
                drop(book.write(mutation((*kind, *record, *value))))
            }
            Action::Transaction(all) => {
                drop(book.transaction(all.iter().copied().map(mutation).collect()));
            }
            Action::Undo(back) => {
                let ops: Vec<_> = self
                    .entries()
                    .iter()
                    .filter_map(|entry| match &entry.meta {
                        Meta::Intent(_) => Some(OpPlace { seq: entry.header.seq, index: 0 }),
                        _ => None,
                    })
                    .collect();
                if let Some(op) = ops.iter().rev().nth(*back) {
                    drop(book.queue().undo(*op));
                }
            }
            Action::Retry => drop(book.dead_letters().retry(self.letters())),
            Action::Discard => drop(book.dead_letters().discard(self.letters(), "no")),
            Action::Sync | Action::Lose | Action::Refuse => self.exchange(action),
        }
    }

    fn letters(&self) -> Vec<fieldbook::record::OpId> {
        self.book.dead_letters().all().unwrap().into_iter().map(|letter| letter.op).collect()
    }

    fn exchange(&mut self, action: &Action) {
        let ask = ExchangeParams {
            first: true,
            push: true,
            pull: true,
            batch_ops: 2,
            batch_bytes: 1_000_000,
            page_limit: 10,
        };
        let NextStep::Exchange(request) = self.book.exchange().prepare(&ask).unwrap() else {
            return;
        };
        let refused = matches!(action, Action::Refuse);
        let sent = if refused { Vec::new() } else { request.units.clone() };
        let reduced = ExchangeRequest { units: sent, ..request.clone() };
        let now = WallTime::from_milliseconds(1_700_000_000_000);
        let mut answer =
            exchange(&mut self.server, &reduced, now, &Caller::Anyone, &Quota::default())
                .expect("a server in memory does not fail");
        if refused {
            let outcome = Outcome::Rejected { code: "no".to_owned(), message: "no".to_owned() };
            let units = request.units.iter();
            answer
                .outcomes
                .extend(units.map(|unit| UnitOutcome { unit: unit.id, outcome: outcome.clone() }));
        }
        if !matches!(action, Action::Lose) {
            self.book.exchange().apply_answer(&request, answer).unwrap();
        }
    }
}

fn ops(entry: &Entry) -> Vec<OpPlace> {
    let Meta::Intent(intent) = &entry.meta else { return Vec::new() };
    (0..).zip(&intent.ops).map(|(index, _)| OpPlace { seq: entry.header.seq, index }).collect()
}

fn ended_without_sending(entry: &Entry) -> Vec<OpPlace> {
    let Meta::Control(control) = &entry.meta else { return Vec::new() };
    match control {
        Control::Planned(planned) => planned
            .cancelled
            .iter()
            .flat_map(|cancelled| &cancelled.ops)
            .map(|op| op.place)
            .collect(),
        Control::Decided(decisions) | Control::PersonActed(_, decisions) => {
            let each = decisions.iter().flat_map(|decision| match decision {
                Decision::Cancelled(cancelled) => cancelled.ops.clone(),
                Decision::Superseded { op, .. } | Decision::Discarded { op, .. } => vec![*op],
                _ => Vec::new(),
            });
            each.map(|op| op.place).collect()
        }
        _ => Vec::new(),
    }
}

proptest! {
    #[test]
    fn the_log_only_grows_and_names_every_op_that_was_sent(actions in prop::collection::vec(action(), 1..14)) {
        let mut world = World::new();
        let mut before = world.entries();
        for action in &actions {
            world.act(action);
            let after = world.entries();
            prop_assert!(after.len() >= before.len());
            prop_assert_eq!(&after[..before.len()], &before[..], "what is written is never changed");
            for entry in &after[before.len()..] {
                let Meta::Control(Control::Planned(planned)) = &entry.meta else { continue };
                for change in planned.units.iter().flat_map(|unit| &unit.changes) {
                    prop_assert!(!change.ops.is_empty(), "a change names the ops that it stands for");
                    world.planned.extend(change.ops.iter().map(|op| op.place));
                }
            }
            before = after;
        }
        let tail = world.book.snapshot().unwrap().tail(world.book.schema()).unwrap();
        let without_sending = before.iter().flat_map(ended_without_sending).collect::<BTreeSet<_>>();
        for op in before.iter().flat_map(ops) {
            let told = tail.op(op).is_some() || world.planned.contains(&op) || without_sending.contains(&op);
            prop_assert!(told, "op {} is gone, and nothing says where", op);
        }
        prop_assert!(world.book.audit().check_tables().unwrap().is_sound());
        let verified = world.book.audit().verify(|_| {}).unwrap();
        prop_assert!(verified.is_sound());
    }
}
