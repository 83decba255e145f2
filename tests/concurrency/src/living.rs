//! A live list and writers: the list is left with the last state, however reads, commits and wakes
//! follow one another.

use std::sync::Arc;

use fieldbook::EntityType;
use shuttle::future::block_on;
use shuttle::thread;

use crate::explore::explore;
use crate::stage::{Order, Stage, Writers};

const THREADS: u64 = 2;
const EACH: u64 = 2;

/// Follows a list until it has these rows. If a change were missed, it would wait for ever.
fn follower(stage: &Stage, rows: &'static [&'static str]) -> thread::JoinHandle<()> {
    let lead = EntityType::parse("lead").unwrap();
    let mut live = stage.book.records().query(&lead, "order").live().unwrap();
    thread::spawn(move || {
        let mut told = 0;
        loop {
            let change = block_on(live.changed()).unwrap().expect("the book is open");
            assert!(change.items.len() >= told, "no row goes");
            told = change.items.len();
            let ids: Vec<_> = change.items.iter().map(|row| row.id.as_str()).collect();
            if ids == rows {
                return;
            }
        }
    })
}

fn lists_follow_writers() {
    let stage = Stage::listing();
    let whole = follower(&stage, &["0-0", "1-0", "0-1", "1-1"]);
    let attempts = Writers::start(&stage.book, &Arc::new(Order::default()), THREADS, EACH).join();
    assert!(attempts.iter().all(|attempt| attempt.result.is_ok()), "{attempts:?}");
    whole.join().unwrap();
}

/// The first row comes while the list reads that there is none. A list without rows has no pending
/// op, so what touches it is the new key alone.
fn a_list_reads_while_its_first_row_comes() {
    let stage = Stage::listing();
    let first = follower(&stage, &["0-0"]);
    let attempts = Writers::start(&stage.book, &Arc::new(Order::default()), 1, 1).join();
    assert!(attempts.iter().all(|attempt| attempt.result.is_ok()), "{attempts:?}");
    first.join().unwrap();
}

#[test]
fn a_live_list_is_left_with_the_last_state() {
    explore("live lists", lists_follow_writers);
    explore("the first row of a live list", a_list_reads_while_its_first_row_comes);
}
