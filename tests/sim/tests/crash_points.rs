//! Power loss and disk failures at points of the workload; the program `crash_points` tries all of them.

use fieldbook_sim::crash::{Effort, record};

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_goes() {
    let recorded = record().unwrap();
    let tried = recorded.power_losses(Effort { every: 23, first: 5, random: 2 }).unwrap();
    assert!(tried.points > 20 && tried.images > 3 * tried.points, "{tried:?}");
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_more_is_written_when_the_disk_fails() {
    let recorded = record().unwrap();
    let tried = recorded.disk_failures(Effort { every: 29, first: 3, random: 0 }).unwrap();
    assert!(tried.failures > 20, "{tried:?}");
}

/// A harness that cannot fail proves nothing: a book whose writes claim to be synced and are not must be caught.
#[test]
fn a_disk_that_does_not_sync_is_noticed() {
    let recorded = record().unwrap().without_syncs();
    let broken = recorded.power_losses(Effort { every: 7, first: 6, random: 0 }).unwrap_err();
    assert_eq!(broken.invariant, "S1");
}
