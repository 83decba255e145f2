//! A disk that fails while several threads append.

use std::sync::Arc;

use fieldbook::record::OpId;
use fieldbook::{Error, Fields, RecordKey, SyncState};
use shuttle::rand::{Rng, thread_rng};

use crate::disk::{Failing, Fault, Loss, SimDisk};
use crate::explore::explore;
use crate::stage::{Attempt, Order, Stage, Writers, check_confirmed, key, logged};

/// The most changes of the disk before the failure: those of two commits and a half.
const CHANGES: u64 = 40;

fn a_commit_fails() {
    let stage = Stage::new();
    let after = thread_rng().gen_range(0..CHANGES);
    let failing = if thread_rng().gen_bool(0.5) { Failing::Error } else { Failing::Full };
    stage.disk.fail_as(Fault { after, forever: false }, failing);
    let order = Arc::new(Order::default());
    let attempts = Writers::start(&stage.book, &order, 3, 2).join();
    let Told { unknown, refused } = told(&attempts);
    let told_at = attempts
        .iter()
        .filter(|attempt| attempt.result.is_err())
        .map(|attempt| attempt.ended)
        .min();
    for attempt in attempts.iter().filter(|attempt| told_at.is_some_and(|at| attempt.began > at)) {
        assert!(matches!(attempt.result, Err(Error::Store(_))), "after a failure: {attempt:?}");
    }
    if stage.disk.has_failed() {
        assert!(!unknown.is_empty(), "nobody was told: {attempts:?}");
        assert_eq!(stage.book.status().state, SyncState::StorageFailed);
        let more = stage.book.records().create(key(9, 9), Fields::new());
        assert!(matches!(more, Err(Error::Store(_))), "{more:?}");
    } else {
        assert!(unknown.is_empty() && refused.is_empty(), "the disk is sound: {attempts:?}");
    }
    let platter = stage.disk.platter();
    drop(stage);
    for loss in [Loss::Everything, Loss::Nothing] {
        let reopened = Stage::on(SimDisk::holding(platter.image(loss)));
        check_confirmed(&reopened.book, &attempts);
        let log = logged(&reopened.book);
        let is_there = |op: &OpId| log.iter().any(|(_, logged, _)| logged == op);
        let there = unknown.iter().filter(|op| is_there(op)).count();
        assert!(there == 0 || there == unknown.len(), "a round is there whole or not at all");
        assert!(
            !log.iter().any(|(_, _, key)| refused.contains(key)),
            "what was not written is not there"
        );
        assert_eq!(
            log.len(),
            attempts.len() - refused.len() - unknown.len() + there,
            "nothing else is"
        );
    }
}

/// The errors of the writes that are not confirmed.
#[derive(Default)]
struct Told {
    unknown: Vec<OpId>,
    refused: Vec<RecordKey>,
}

fn told(attempts: &[Attempt]) -> Told {
    let mut told = Told::default();
    for attempt in attempts {
        match &attempt.result {
            Ok(_) => {}
            Err(Error::Unknown { ops, .. }) => {
                assert_eq!(ops.len(), 1, "its own op: {attempt:?}");
                told.unknown.extend(ops);
            }
            Err(Error::Store(_)) => told.refused.push(attempt.key.clone()),
            Err(other) => panic!("{other:?}"),
        }
    }
    told
}

#[test]
fn a_commit_that_fails_is_unknown_to_its_whole_round_and_nothing_is_written_after_it() {
    explore("a failing disk", a_commit_fails);
}
