//! A record with many unsent edits: its ops are in a table of their own, beyond a few. Whatever
//! happens to them, the tables stay the fold of the log, and the server gets what the app reads.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::sync::Arc;

use common::{Server, TestClock, assert_sound, book, fields, key, options, sync, sync_with, view};
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::sync::{FnRemote, TakeState};
use fieldbook::{Book, Mutation, SyncState};
use fieldbook_core::rows::OPS_IN_ROW;
use proptest::prelude::*;
use serde_json::json;

const NOTE: &str = "note/1";

fn edit(book: &Book, from: usize, count: usize) {
    for number in from..from + count {
        book.records().update(key(NOTE), fields(json!({ "n": number }))).unwrap();
    }
}

#[test]
fn edits_are_read_sent_and_ended_on_both_sides_of_the_border() {
    for count in [OPS_IN_ROW - 1, OPS_IN_ROW, OPS_IN_ROW + 1, 5 * OPS_IN_ROW] {
        let clock = TestClock::starting();
        let (server, ann) = (Server::new(&clock), book("ann", &clock));
        ann.records().create(key(NOTE), fields(json!({"text": "x"}))).unwrap();
        edit(&ann, 0, count - 1);
        assert_eq!(view(&ann, NOTE), Some(json!({"n": count - 2, "text": "x"})));
        assert_eq!(ann.status().pending, count as u64);
        assert_sound(&ann);
        sync(&ann, &server);
        assert_eq!(server.record(NOTE), view(&ann, NOTE));
        assert_eq!((ann.status().pending, ann.status().state), (0, SyncState::Idle));
        assert_sound(&ann);
    }
}

#[test]
fn edits_that_were_undone_one_by_one_go_back_into_the_row() {
    let clock = TestClock::starting();
    let ann = book("ann", &clock);
    ann.records().create(key(NOTE), fields(json!({"text": "x"}))).unwrap();
    edit(&ann, 0, 2 * OPS_IN_ROW);
    for left in (0..=2 * OPS_IN_ROW).rev() {
        assert_sound(&ann);
        let shown = view(&ann, NOTE).unwrap();
        assert_eq!(shown.get("n").and_then(|n| n.as_u64()), left.checked_sub(1).map(|n| n as u64));
        let last = ann.queue().list().unwrap().pop().unwrap();
        ann.queue().undo(last.op.place).unwrap();
    }
    assert_eq!((view(&ann, NOTE), ann.status().pending), (None, 0));
    assert_sound(&ann);
}

#[test]
fn a_book_that_is_opened_again_has_the_long_tail_and_goes_on_with_it() {
    let clock = TestClock::starting();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let ann = Book::create_new(&path, options("ann", &clock)).unwrap();
    ann.records().create(key(NOTE), fields(json!({"text": "x"}))).unwrap();
    edit(&ann, 0, 3 * OPS_IN_ROW);
    ann.close().unwrap();
    let ann = Book::open(&path, options("ann", &clock)).unwrap();
    edit(&ann, 100, 2);
    assert_sound(&ann);
    ann.audit().rebuild(|_| {}).unwrap();
    assert_eq!(view(&ann, NOTE), Some(json!({"n": 101, "text": "x"})));
    let server = Server::new(&clock);
    sync(&ann, &server);
    assert_eq!(server.record(NOTE), Some(json!({"n": 101, "text": "x"})));
    assert_sound(&ann);
}

/// What happens to the note.
#[derive(Debug, Clone, Copy)]
enum Step {
    Edit(usize),
    Replace,
    DeleteAndCreate,
    Together,
    Theirs,
    Sync,
    Lost,
    Refused,
    Retry,
    Discard,
    Undo,
    Restored,
    TakeState,
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..2 * OPS_IN_ROW).prop_map(Step::Edit),
        1 => Just(Step::Replace),
        1 => Just(Step::DeleteAndCreate),
        1 => Just(Step::Together),
        2 => Just(Step::Theirs),
        1 => Just(Step::Sync),
        2 => Just(Step::Lost),
        1 => Just(Step::Refused),
        1 => Just(Step::Retry),
        1 => Just(Step::Discard),
        2 => Just(Step::Undo),
        1 => Just(Step::Restored),
        1 => Just(Step::TakeState),
        1 => Just(Step::Rebuild),
    ]
}

struct Stage {
    clock: Arc<TestClock>,
    server: Server,
    ann: Book,
    ben: Book,
    number: usize,
}

impl Stage {
    fn new() -> Self {
        let clock = TestClock::starting();
        let server = Server::new(&clock);
        let (ann, ben) = (book("ann", &clock), book("ben", &clock));
        Self { clock, server, ann, ben, number: 0 }
    }

    fn next(&mut self) -> usize {
        self.number += 1;
        self.number
    }

    fn take(&mut self, step: Step) {
        self.clock.advance(60_000);
        let records = self.ann.records();
        let exists = view(&self.ann, NOTE).is_some();
        match step {
            Step::Edit(count) if exists => {
                let from = self.next();
                self.number += count;
                edit(&self.ann, from, count);
            }
            Step::Edit(_) => {
                let text = fields(json!({"text": self.number, "created": true}));
                records.create(key(NOTE), text).unwrap();
            }
            Step::Replace if exists => {
                records.replace(key(NOTE), fields(json!({"only": self.number}))).unwrap();
            }
            Step::DeleteAndCreate if exists => {
                records.delete(key(NOTE)).unwrap();
                records.create(key(NOTE), fields(json!({"anew": self.number}))).unwrap();
            }
            Step::Together if exists => {
                let number = self.next();
                let other = Mutation::create(key(&format!("lead/{number}")), fields(json!({})));
                let own = Mutation::update(key(NOTE), fields(json!({"together": number})));
                drop(self.ann.transaction(vec![other, own]).unwrap());
            }
            Step::Theirs => {
                let number = self.next();
                sync(&self.ben, &self.server);
                if view(&self.ben, NOTE).is_some() {
                    let theirs = fields(json!({"n": number, "by": "ben"}));
                    self.ben.records().update(key(NOTE), theirs).unwrap();
                }
                sync(&self.ben, &self.server);
            }
            Step::Sync => drop(sync(&self.ann, &self.server)),
            // The server takes the request, and the answer is lost.
            Step::Lost => {
                let server = self.server.clone();
                let lost = FnRemote::new(move |request: &ExchangeRequest| {
                    drop(server.try_answer(request)?);
                    let code = "lost".to_owned();
                    Err(Failure::Transient { code, retry_after: None, marked: false }.into())
                });
                drop(sync_with(&self.ann, &lost));
            }
            Step::Refused => drop(sync_with(&self.ann, &self.server.refusing("no", "not this"))),
            Step::Retry | Step::Discard => {
                let letters = self.ann.dead_letters().all().unwrap();
                let Some(letter) = letters.first() else { return };
                if let Step::Retry = step {
                    self.ann.dead_letters().retry(vec![letter.op]).unwrap();
                } else {
                    self.ann.dead_letters().discard(vec![letter.op], "a test").unwrap();
                }
            }
            Step::Undo => {
                if let Some(last) = self.ann.queue().list().unwrap().pop() {
                    self.ann.queue().undo(last.op.place).unwrap();
                }
            }
            Step::Restored => {
                let backup = self.server.authority.lock().unwrap().clone();
                let epoch = u8::try_from(9 + self.next() % 200).unwrap();
                self.server.restore(&backup, epoch);
                sync(&self.ann, &self.server);
                for book in [&self.ann, &self.ben] {
                    sync(book, &self.server);
                    drop(book.servers().accept_only());
                }
            }
            Step::TakeState => {
                self.ann.servers().take_state(TakeState::new("a test")).unwrap();
            }
            Step::Rebuild => {
                self.ann.audit().rebuild(|_| {}).unwrap();
            }
            Step::Replace | Step::DeleteAndCreate | Step::Together => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_happens_to_a_long_tail_the_tables_are_the_fold_of_the_log(
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let mut stage = Stage::new();
        stage.take(Step::Edit(1));
        for step in steps {
            stage.take(step);
            assert_sound(&stage.ann);
        }
        let letters = stage.ann.dead_letters().all().unwrap().into_iter().map(|letter| letter.op);
        stage.ann.dead_letters().discard(letters.collect(), "a test").unwrap();
        for _ in 0..3 {
            stage.clock.advance(3_600_000);
            sync(&stage.ann, &stage.server);
            drop(stage.ann.servers().accept_only());
            drop(stage.ben.servers().accept_only());
            sync(&stage.ben, &stage.server);
        }
        assert_sound(&stage.ann);
        prop_assert_eq!(stage.ann.status().pending, 0);
        prop_assert_eq!(view(&stage.ann, NOTE), stage.server.record(NOTE));
        prop_assert_eq!(view(&stage.ben, NOTE), stage.server.record(NOTE));
    }
}
