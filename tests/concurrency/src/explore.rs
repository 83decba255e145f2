//! Running one scenario under many schedules.

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use crate::stage::Stage;

/// The number of schedules of each kind, unless the environment variable sets another.
const SCHEDULES: usize = 1_000;
/// The number of steps at which the priorities of a PCT schedule change. A bug may need as many
/// events in a certain order.
const DEPTH: usize = 3;
/// The size of the stacks. redb needs more than shuttle's default.
const STACK_BYTES: usize = 512 * 1024;

/// Plays a scenario under random and under PCT schedules.
pub(crate) fn explore(name: &str, scenario: fn()) {
    let schedules = std::env::var("FIELDBOOK_SCHEDULES").ok().and_then(|count| count.parse().ok());
    let schedules: usize = schedules.unwrap_or(SCHEDULES);
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    Runner::new(RandomScheduler::new(1), config.clone()).run(Stage::prepare);
    let started = std::time::Instant::now();
    let random = Runner::new(RandomScheduler::new(schedules), config.clone()).run(scenario);
    let pct = Runner::new(PctScheduler::new(DEPTH, schedules), config).run(scenario);
    println!(
        "{name}: {random} random and {pct} PCT schedules in {} s",
        started.elapsed().as_secs()
    );
}
