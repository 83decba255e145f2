//! A few seeds of the real client and server with a box between them, and a check that they made
//! ops and faults of many kinds.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use fieldbook_middlebox::{Counts, script};
use fieldbook_sim::seeds::{SeedRange, on_threads};
use std::sync::Mutex;

const SEEDS: u64 = 12;

/// Once the faults end, every op has taken effect once, all books read the server's records,
/// nothing is parked, and only ops that our own server refused are dead letters. The reasons for
/// this test were a firewall that refused one record, a login page, another server that was reached
/// by mistake, and a token of another tenant: each of them stopped a whole book until a person
/// acted.
#[test]
fn once_nothing_is_in_the_way_everything_has_arrived_without_a_person() {
    let counts = Mutex::new(Counts::default());
    let failures = on_threads(4, SeedRange::first(SEEDS), |seed| {
        let (counted, broken) = script::run_seed(seed);
        counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(&counted);
        broken
    });
    if let Some((seed, broken)) = failures.first() {
        panic!("{} of {SEEDS} seeds, the first is {seed}: {broken}", failures.len());
    }
    let counts = counts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    assert!(counts.ops > 10 * SEEDS && counts.faults.len() > 8, "{counts:?}");
}
