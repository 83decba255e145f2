//! Every public future of a book, dropped at every poll of eight scenarios (C6, L8). Written ops
//! are still there, the log verifies, and the next sync ends as without the drop.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use common::{Server, TestClock, assert_sound, book, fields, key, options, sync};
use fieldbook::sync::protocol::{ExchangeRequest, Failure, Outcome, UnitOutcome};
use fieldbook::sync::{Budget, Received, RemoteError};
use fieldbook::{Book, Mutation, Remote, RunOptions, SyncState, WorkerOptions};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::yield_now;

/// More polls than any scenario takes.
const POLLS: usize = 400;

/// A server behind a slow network: there are polls before the request arrives, after the request
/// took effect, and before the answer arrives.
struct Slow {
    server: Server,
    trouble: Trouble,
}

/// The server's treatment of the units that it receives.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    None,
    Rejects,
    NotNow,
    TooLarge,
}

impl Remote for Slow {
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Received, RemoteError>> + Send + 'a>> {
        Box::pin(async move {
            yield_now().await;
            let mut treated = request.clone();
            let outcome = match self.trouble {
                Trouble::TooLarge if request.units.len() > 1 => {
                    return Err(Failure::TooLarge.into());
                }
                Trouble::None | Trouble::TooLarge => None,
                Trouble::Rejects => {
                    Some(Outcome::Rejected { code: "never".to_owned(), message: String::new() })
                }
                Trouble::NotNow => Some(Outcome::Transient {
                    code: "busy".to_owned(),
                    message: String::new(),
                    retry_after_milliseconds: None,
                }),
            };
            let refused =
                if outcome.is_some() { std::mem::take(&mut treated.units) } else { Vec::new() };
            let mut answer = self.server.try_answer(&treated)?;
            answer.outcomes.extend(
                refused
                    .into_iter()
                    .zip(outcome.into_iter().cycle())
                    .map(|(unit, outcome)| UnitOutcome { unit: unit.id, outcome }),
            );
            yield_now().await;
            yield_now().await;
            Ok(Received { answer, bytes_sent: 0, bytes_received: 0 })
        })
    }
}

/// A book, its server, and the behaviour of the server at first.
struct Stage {
    book: Book,
    server: Server,
    clock: Arc<TestClock>,
    trouble: Trouble,
}

impl Stage {
    fn new(trouble: Trouble) -> Self {
        let clock = TestClock::starting();
        Self { book: book("ann", &clock), server: Server::new(&clock), clock, trouble }
    }

    fn slow(&self) -> Slow {
        Slow { server: self.server.clone(), trouble: self.trouble }
    }

    fn create(&self, record: &str) {
        self.book.records().create(key(record), fields(json!({"name": record}))).unwrap();
    }

    /// Checks that, without failures, the book comes to rest: every op has ended, and the book
    /// reads the server's records.
    fn check(self, at: usize) {
        self.clock.advance(3 * 3_600_000);
        for _ in 0..3 {
            let dead = self
                .book
                .dead_letters()
                .all()
                .unwrap()
                .into_iter()
                .map(|row| row.op)
                .collect::<Vec<_>>();
            if !dead.is_empty() {
                self.book.dead_letters().retry(dead).unwrap();
            }
            sync(&self.book, &self.server);
            self.clock.advance(3 * 3_600_000);
        }
        assert_sound(&self.book);
        let status = self.book.status();
        assert_eq!((status.pending, status.state), (0, SyncState::Idle), "dropped at poll {at}");
        let authority = self.server.authority.lock().unwrap();
        for (key, row) in authority.records() {
            let ours = self.book.records().get(key).unwrap().map(|record| record.json);
            assert_eq!(ours.as_ref(), row.fields.as_ref(), "{key}, dropped at poll {at}");
        }
        // A unit that takes effect makes one commit, and a record's version is that of its commit.
        let commits = authority.records().map(|(_, row)| row.version.number()).max();
        drop(authority);
        let requests = self.server.requests.lock().unwrap();
        let units: BTreeSet<_> =
            requests.iter().flat_map(|request| &request.units).map(|unit| unit.id).collect();
        assert!(commits <= Some(units.len() as u64), "a unit took effect twice, {at}: {commits:?}");
    }
}

/// Polls a future this many times and drops it. Returns the result of the future if it ended
/// before.
fn polled<F: Future>(runtime: &Runtime, future: F, polls: usize) -> Option<F::Output> {
    runtime.block_on(async {
        let mut future = pin!(future);
        let mut done = 0;
        std::future::poll_fn(|context| {
            if done == polls {
                return Poll::Ready(None);
            }
            done += 1;
            future.as_mut().poll(context).map(Some)
        })
        .await
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Drops the sync of a stage at each poll until it ends by itself.
fn drop_everywhere(make: impl Fn() -> Stage, run: &RunOptions) {
    let runtime = runtime();
    for polls in 0..POLLS {
        let stage = make();
        let slow = stage.slow();
        let ended = polled(&runtime, stage.book.sync(&slow, run), polls);
        // A call into the book that has begun runs to its end. `check` writes, and so waits for
        // that call.
        stage.check(polls);
        if ended.is_some() {
            assert!(polls > 3, "it ended after {polls} polls");
            return;
        }
    }
    panic!("it did not end within {POLLS} polls");
}

#[test]
fn a_dropped_push_is_sent_again() {
    let stage = || {
        let stage = Stage::new(Trouble::None);
        stage.create("lead/1");
        stage.create("lead/2");
        stage
    };
    drop_everywhere(stage, &RunOptions::default());
}

#[test]
fn a_dropped_push_of_a_transaction_is_sent_again_as_a_whole() {
    let stage = || {
        let stage = Stage::new(Trouble::None);
        let records = ["lead/1", "note/1", "note/2"];
        let create = |record: &&str| Mutation::create(key(record), fields(json!({"name": "x"})));
        stage.book.transaction(records.iter().map(create).collect()).unwrap();
        stage
    };
    drop_everywhere(stage, &RunOptions::default());
}

#[test]
fn a_dropped_pull_goes_on_where_it_stopped() {
    let stage = || {
        let stage = Stage::new(Trouble::None);
        let other = book("ben", &stage.clock);
        for number in 0..6 {
            other
                .records()
                .create(key(&format!("lead/{number}")), fields(json!({"n": number})))
                .unwrap();
        }
        sync(&other, &stage.server);
        stage
    };
    drop_everywhere(stage, &RunOptions { page_limit: 2, ..RunOptions::default() });
}

#[test]
fn a_dropped_sync_amid_a_conflict_resolves_it_once() {
    let stage = || {
        let stage = Stage::new(Trouble::None);
        stage.create("lead/1");
        sync(&stage.book, &stage.server);
        let other = book("ben", &stage.clock);
        sync(&other, &stage.server);
        stage.book.records().update(key("lead/1"), fields(json!({"name": "ours"}))).unwrap();
        stage.clock.advance(1_000);
        other.records().update(key("lead/1"), fields(json!({"name": "theirs"}))).unwrap();
        sync(&other, &stage.server);
        stage
    };
    drop_everywhere(stage, &RunOptions::default());
}

#[test]
fn a_dropped_sync_amid_a_refusal_leaves_a_dead_letter_or_an_op_that_is_sent_again() {
    let stage = || {
        let stage = Stage::new(Trouble::Rejects);
        stage.create("lead/1");
        stage
    };
    drop_everywhere(stage, &RunOptions::default());
}

#[test]
fn a_dropped_sync_amid_a_wish_to_wait_is_tried_again() {
    let stage = || {
        let stage = Stage::new(Trouble::NotNow);
        stage.create("lead/1");
        stage.create("lead/2");
        stage
    };
    drop_everywhere(stage, &RunOptions::default());
}

#[test]
fn a_dropped_sync_amid_the_halving_of_a_batch_sends_all_the_same() {
    let stage = || {
        let stage = Stage::new(Trouble::TooLarge);
        (1..5).for_each(|number| stage.create(&format!("lead/{number}")));
        stage
    };
    drop_everywhere(stage, &RunOptions::default());
}

#[test]
fn a_dropped_sync_on_a_budget_is_gone_on_with() {
    let stage = || {
        let stage = Stage::new(Trouble::None);
        (1..5).for_each(|number| stage.create(&format!("lead/{number}")));
        stage
    };
    let budget = Budget { ops: Some(2), ..Budget::default() };
    drop_everywhere(stage, &RunOptions { budget, ..RunOptions::default() });
}

/// The background sync holds nothing that the book needs. An app can wait for its end, and can drop
/// the wait at any poll.
#[test]
fn a_dropped_shutdown_of_the_background_sync_ends_it_all_the_same() {
    let runtime = runtime();
    for polls in 0..POLLS {
        let stage = Stage::new(Trouble::None);
        stage.create("lead/1");
        let handle = {
            let _inside = runtime.enter();
            stage.book.keep_syncing(Arc::new(stage.slow()), WorkerOptions::default()).unwrap()
        };
        let ended = polled(&runtime, handle.shutdown(), polls);
        stage.check(polls);
        if ended.is_some() {
            return;
        }
    }
    panic!("it did not end within {POLLS} polls");
}

/// A write by a call is durable before the call returns, also during a sync.
#[test]
fn what_was_written_while_a_sync_was_dropped_is_there() {
    let runtime = runtime();
    let stage = Stage::new(Trouble::None);
    stage.create("lead/1");
    let slow = stage.slow();
    for polls in 0..12 {
        drop(polled(&runtime, stage.book.sync(&slow, &RunOptions::default()), polls));
        stage.create(&format!("lead/during-{polls}"));
    }
    let there = stage.book.records().list(&key("lead/1").entity, None, 100).unwrap().len();
    assert_eq!(there, 13);
    drop(options("ann", &stage.clock));
    stage.check(12);
}
