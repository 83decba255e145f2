//! A watcher of a book receives every change, and has the last state in the end.

use std::collections::BTreeSet;
use std::sync::Arc;

use fieldbook::{Actor, Book, RecordKey};
use shuttle::future::block_on;
use shuttle::thread;

use crate::explore::explore;
use crate::stage::{Order, Stage, Writers, key};

const THREADS: u64 = 2;
const EACH: u64 = 2;

/// Starts a thread that receives changed records until it has received all of them.
fn listener(book: &Book) -> thread::JoinHandle<()> {
    let book = book.clone();
    let mut changes = book.watch();
    thread::spawn(move || {
        let all = (0..THREADS).flat_map(|thread| (0..EACH).map(move |index| key(thread, index)));
        let mut missing: BTreeSet<RecordKey> = all.collect();
        while !missing.is_empty() {
            for changed in block_on(changes.recv()).unwrap().iter() {
                assert!(missing.remove(changed), "{changed} was told twice");
                assert!(
                    book.records().get(changed).unwrap().is_some(),
                    "{changed} is read as soon as it is told"
                );
            }
        }
    })
}

fn everyone_watches() {
    let stage = Stage::new();
    let book = &stage.book;
    let last = book.status().pending + THREADS * EACH;
    let mut status = book.watch_status();
    let waiter = thread::spawn(move || {
        block_on(status.wait_for(|status| status.pending == last)).unwrap();
        status
    });
    let listener = listener(book);
    let attempts = Writers::start(book, &Arc::new(Order::default()), THREADS, EACH).join();
    assert!(attempts.iter().all(|attempt| attempt.result.is_ok()), "{attempts:?}");
    listener.join().unwrap();
    let status = waiter.join().unwrap();
    assert_eq!(status.borrow().pending, last, "the last that is told is how it is");
}

/// Sends the state to watchers from two threads: a round and a change of the actor.
fn the_state_is_told_from_two_sides() {
    let stage = Stage::new();
    let last = stage.book.status().pending + 1;
    let status = stage.book.watch_status();
    let other = stage.book.clone();
    let switcher = thread::spawn(move || other.act_as(Actor::parse("bob").unwrap()));
    let attempts = Writers::start(&stage.book, &Arc::new(Order::default()), 1, 1).join();
    assert!(attempts.iter().all(|attempt| attempt.result.is_ok()), "{attempts:?}");
    switcher.join().unwrap();
    assert_eq!(status.borrow().pending, last, "what is told last is how it is");
}

#[test]
fn what_a_watcher_is_told_last_is_never_older_than_what_it_was_told_before() {
    explore("state", the_state_is_told_from_two_sides);
}

#[test]
fn a_watcher_hears_of_every_change_and_is_left_with_the_last_state() {
    explore("watchers", everyone_watches);
}
