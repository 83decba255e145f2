//! A few seeds of the real client and server with something between them, and that each seed is one
//! in which something happens.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use fieldbook_middlebox::{Counts, script};
use fieldbook_sim::seeds::{SeedRange, on_threads};
use std::sync::Mutex;

const SEEDS: u64 = 12;

/// Whatever stood in the way, once it is gone everything is at the server once, everyone reads the
/// same, nothing is parked, and only what our own server refused is a dead letter. This began with
/// a firewall that refused one record, a login page, a server that was reached by mistake and a
/// token of another tenant, each of which stopped a whole book until a person came.
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
