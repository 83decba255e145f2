//! Whole runs: a seed, a kept case, and shrinking a failing run.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::action::{Action, Case, Setup};
use crate::broken::Broken;
use crate::seeds::words_of;
use crate::swarm::Swarm;
use crate::world::World;

/// The counts of a run.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Simulated time, over all devices.
    pub device_milliseconds: u64,
    /// Ops that the apps wrote.
    pub ops: u64,
    /// Requests that left.
    pub exchanges: u64,
    /// Conflicts that were recorded.
    pub conflicts: u64,
    /// Books that were opened after a failure of the disk during a call.
    pub recoveries: u64,
    /// How often a log was trimmed.
    pub trimmed: u64,
    /// Checks of a device with the server that ended.
    pub checks: u64,
    /// Records that a check found to differ.
    pub differences: u64,
    /// Records that were mended.
    pub mended: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.device_milliseconds += other.device_milliseconds;
        self.ops += other.ops;
        self.exchanges += other.exchanges;
        self.conflicts += other.conflicts;
        self.recoveries += other.recoveries;
        self.trimmed += other.trimmed;
        self.checks += other.checks;
        self.differences += other.differences;
        self.mended += other.mended;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

/// How a run went.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its setup.
    pub setup: Setup,
    /// Its actions.
    pub actions: Vec<Action>,
    /// Its counts.
    pub stats: Stats,
    /// A number that is equal for equal runs.
    pub trace: u64,
    /// The broken invariant, if there is one.
    pub broken: Option<Broken>,
    /// If something was broken: the end of each device's log.
    pub logs: String,
}

/// Runs a world from a seed: the safety phase, healing, and the liveness phase.
pub fn run_seed(seed: u64) -> Ran {
    let (setup, mut swarm) = Swarm::new(seed);
    let length = swarm.length();
    let mut actions = Vec::with_capacity(length);
    let mut source = |world: &World| {
        let action = (actions.len() < length).then(|| swarm.next(world));
        actions.extend(action.clone());
        action
    };
    let Outcome { stats, trace, broken, logs } = guarded(&setup, &mut source);
    Ran { setup, actions, stats, trace, broken, logs }
}

/// Plays a kept run.
pub fn play(setup: &Setup, actions: &[Action]) -> Ran {
    let mut left = actions.iter();
    let Outcome { stats, trace, broken, logs } =
        guarded(setup, &mut |_: &World| left.next().cloned());
    Ran { setup: setup.clone(), actions: actions.to_vec(), stats, trace, broken, logs }
}

/// Shrinks a failing run: leaves out everything that can be left out while the same invariant still
/// breaks.
pub fn shrink(ran: &Ran) -> Case {
    let invariant = ran.broken.as_ref().map(|broken| broken.invariant);
    let (setup, mut actions) = (ran.setup.clone(), ran.actions.clone());
    let still_fails = |actions: &[Action]| {
        play(&setup, actions).broken.map(|broken| broken.invariant) == invariant
    };
    let mut size = actions.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        let mut removed = false;
        while from < actions.len() {
            let mut fewer = actions.clone();
            fewer.drain(from..(from + size).min(actions.len()));
            if still_fails(&fewer) {
                actions = fewer;
                removed = true;
            } else {
                from += size;
            }
        }
        if !removed || size > 1 {
            size /= 2;
        }
    }
    let story = play(&setup, &actions).broken.map_or_else(String::new, |broken| broken.to_string());
    Case { story, setup, actions }
}

#[derive(Default)]
struct Outcome {
    stats: Stats,
    trace: u64,
    broken: Option<Broken>,
    logs: String,
}

impl Outcome {
    fn not_run(broken: Broken) -> Self {
        Self { broken: Some(broken), ..Self::default() }
    }
}

fn guarded(setup: &Setup, source: &mut dyn FnMut(&World) -> Option<Action>) -> Outcome {
    // A run uses up its world, so a broken state within it cannot be used afterwards.
    catch_unwind(AssertUnwindSafe(|| run(setup, source)))
        .unwrap_or_else(|panic| Outcome::not_run(Broken::new("panic", words_of(&*panic))))
}

fn run(setup: &Setup, source: &mut dyn FnMut(&World) -> Option<Action>) -> Outcome {
    let mut world = match World::new(setup.clone()) {
        Ok(world) => world,
        Err(broken) => return Outcome::not_run(broken),
    };
    let mut broken = None;
    while broken.is_none()
        && let Some(action) = source(&world)
    {
        broken = world.step(&action).err();
    }
    if broken.is_none() {
        broken = world.heal().and_then(|()| world.settle_all()).err();
    }
    let logs = if broken.is_some() { world.logs() } else { String::new() };
    Outcome { stats: world.stats().clone(), trace: world.trace(), broken, logs }
}
