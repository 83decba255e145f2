//! Power loss and disk failures at points of the scenarios. The program `crash_points` tries all of
//! them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use fieldbook_sim::crash::{Effort, SCENARIOS, Scenario, Tried, record};

fn scenario(name: &str) -> &'static Scenario {
    SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_goes() {
    let mut sum = Tried::default();
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        let recorded = record(scenario, 1).unwrap();
        let effort = Effort { every: 37, first: 7 * number, random: 6 };
        let tried = recorded.power_losses(effort).unwrap();
        assert!(tried.points > 0 && tried.images >= tried.points, "{}: {tried:?}", scenario.name);
        sum.add(tried);
    }
    assert!(sum.points > 50 && sum.images > 5 * sum.points, "{sum:?}");
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_more_is_written_when_the_disk_fails() {
    let mut sum = Tried::default();
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        let recorded = record(scenario, 0).unwrap();
        sum.add(
            recorded.disk_failures(Effort { every: 43, first: 5 * number, random: 0 }).unwrap(),
        );
    }
    assert!(sum.failures > 50, "{sum:?}");
}

/// A harness that cannot fail proves nothing. It must report a book whose writes count as synced
/// and are not.
#[test]
fn a_disk_that_does_not_sync_is_noticed() {
    let recorded = record(scenario("append"), 0).unwrap().without_syncs();
    let broken = recorded.power_losses(Effort { every: 1, first: 0, random: 0 }).unwrap_err();
    assert_eq!(broken.invariant, "S1", "{broken}");
}
