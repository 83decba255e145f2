//! A book with several threads: confirmed writes, readers, and closing.

use std::sync::Arc;

use fieldbook::{Book, EntityType, Error, RecordKey};
use shuttle::thread;

use crate::disk::{Loss, SimDisk};
use crate::explore::explore;
use crate::stage::{Order, Stage, Writers, check_confirmed, logged};

const THREADS: u64 = 3;
const EACH: u64 = 2;

fn everyone_appends() {
    let stage = Stage::new();
    let rounds = stage.clock.rounds();
    stage.disk.record();
    let attempts = Writers::start(&stage.book, &Arc::new(Order::default()), THREADS, EACH).join();
    assert!(attempts.iter().all(|attempt| attempt.result.is_ok()), "{attempts:?}");
    check_confirmed(&stage.book, &attempts);
    assert_eq!(logged(&stage.book).len(), attempts.len(), "nothing else is in the log");
    let rounds = stage.clock.rounds() - rounds;
    assert_eq!(stage.syncs(), rounds, "one durable commit for each round");
    assert!((1..=attempts.len()).contains(&rounds));
}

/// Checks that the records that a reader reads only grow, in the order of the log, and that each
/// snapshot is a beginning of the log.
fn readers_read_meanwhile(writers: u64, each: u64) {
    let stage = Stage::new();
    let readers: Vec<_> = (0..2).map(|_| reader(&stage.book)).collect();
    let attempts = Writers::start(&stage.book, &Arc::new(Order::default()), writers, each).join();
    let log: Vec<_> = logged(&stage.book).into_iter().map(|(_, _, key)| key).collect();
    let place = |key: &RecordKey| log.iter().position(|logged| logged == key).unwrap();
    for seen in readers.into_iter().flat_map(|reader| reader.join().unwrap()) {
        let mut places: Vec<_> = seen.iter().map(place).collect();
        places.sort_unstable();
        assert!(places.iter().copied().eq(0..seen.len()), "{seen:?} is no beginning of {log:?}");
    }
    assert_eq!(attempts.len(), log.len());
}

fn reader(book: &Book) -> thread::JoinHandle<Vec<Vec<RecordKey>>> {
    let book = book.clone();
    thread::spawn(move || {
        let lead = EntityType::parse("lead").unwrap();
        let mut all: Vec<Vec<_>> = Vec::new();
        for number in 0..4 {
            // A read of the tables uses a shared snapshot, and a read of the log its own.
            let seen: Vec<_> = if number % 2 == 0 {
                let page = book.records().list(&lead, None, usize::MAX).unwrap();
                page.iter().map(|record| record.key()).collect()
            } else {
                logged(&book).into_iter().map(|(_, _, key)| key).collect()
            };
            let before = all.last().map_or(0, Vec::len);
            assert!(seen.len() >= before, "a reader that saw {before} records sees {seen:?}");
            all.push(seen);
        }
        all
    })
}

fn handles_are_dropped_and_closed_meanwhile() {
    let stage = Stage::new();
    let writers = Writers::start(&stage.book, &Arc::new(Order::default()), 2, 2);
    let other = stage.book.clone();
    let dropper = thread::spawn(move || drop(other));
    thread::yield_now();
    let closed = stage.book.close();
    assert!(matches!(closed, Ok(()) | Err(Error::InUse)), "{closed:?}");
    let attempts = writers.join();
    dropper.join().unwrap();
    assert!(attempts.iter().all(|attempt| attempt.result.is_ok()), "{attempts:?}");
    // The last handle is gone, so the synced bytes of the disk are the whole book.
    let reopened = Stage::on(SimDisk::holding(stage.disk.platter().image(Loss::Everything)));
    check_confirmed(&reopened.book, &attempts);
    assert_eq!(logged(&reopened.book).len(), attempts.len());
}

#[test]
fn every_confirmed_append_is_in_the_log_once_in_the_order_of_the_replies_and_each_round_is_one_commit()
 {
    explore("appends", everyone_appends);
}

#[test]
fn a_reader_amid_commits_sees_a_beginning_of_the_log_and_never_less_than_before() {
    explore("readers of several commits", || readers_read_meanwhile(2, 2));
    explore("readers of one commit", || readers_read_meanwhile(1, 1));
}

#[test]
fn a_handle_that_is_closed_or_dropped_leaves_every_other_caller_its_answer() {
    explore("closing", handles_are_dropped_and_closed_meanwhile);
}
