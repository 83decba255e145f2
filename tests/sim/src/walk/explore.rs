//! Every state of a small world, breadth first, each once; and the shortest path to each law that
//! breaks.
//!
//! The state that follows by itself, if nothing fails, is one of the states that follow. So each
//! state is followed to its rest without walking there again, and the laws of rest are checked
//! there. Only from the states at which a walk is cut, the rest of the path is walked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::action::Action;
use super::law::{Broken, LAWS, Law};
use super::name::{ByName, name};
use super::state::State;
use super::tell;
use super::world::{Ground, World};

/// The result of a walk of one world.
#[derive(Debug, Clone)]
pub struct Walked {
    /// The world's name.
    pub world: &'static str,
    /// How many distinct states were reached and checked.
    pub states: usize,
    /// How many steps led to them, those to known states included.
    pub steps: u64,
    /// The largest number of steps from the first state to another.
    pub depth: usize,
    /// Whether all states were visited; otherwise the walk was cut.
    pub whole: bool,
    /// The duration of the walk.
    pub took: Duration,
    /// The broken laws.
    pub broken: Vec<Found>,
}

/// A law that was broken.
#[derive(Debug, Clone)]
pub struct Found {
    /// The law.
    pub law: Law,
    /// The number of states in which, or on the way from which, it was broken.
    pub times: u64,
    /// Whether the rules are known not to keep the law in this world yet.
    pub not_yet: bool,
    /// The evidence at the end of the shortest path.
    pub what: String,
    /// That path, in words.
    pub path: String,
}

/// The bounds of a walk, and the laws to test.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// The most states of a world; none for the world's own number.
    pub states: Option<usize>,
    /// Laws that fail a walk though the rules are known not to keep them.
    pub laws: Vec<Law>,
}

/// A visited state: the state before, the action, and the state that follows by itself.
struct Step {
    from: u32,
    action: Action,
    next: u32,
}

/// The state that follows by itself is unknown.
const UNKNOWN: u32 = u32::MAX;
/// The state is at rest.
const RESTS: u32 = u32::MAX - 1;
/// The most steps to rest, when nothing fails.
pub(super) const STEPS_TO_REST: usize = 400;

struct Walk<'a> {
    ground: &'a Ground,
    known: HashMap<u64, u32, ByName>,
    /// States beyond those of a cut walk that are known to come to rest correctly.
    drained: HashSet<u64, ByName>,
    steps: Vec<Step>,
    taken: u64,
    broken: BTreeMap<Law, (u64, String, Vec<Action>)>,
}

/// Walks a world.
#[expect(clippy::disallowed_methods, reason = "the duration of a walk is printed for people")]
pub fn explore(world: &World, bounds: &Bounds) -> Walked {
    let begun = Instant::now();
    let ground = Ground::asking(world, bounds.laws.contains(&Law::Join));
    let most = bounds.states.unwrap_or(world.enough);
    let mut walk = Walk {
        ground: &ground,
        known: HashMap::default(),
        drained: HashSet::default(),
        steps: Vec::new(),
        taken: 0,
        broken: BTreeMap::new(),
    };
    let (mut depth, mut frontier) = (0, Vec::new());
    match State::first(&ground) {
        Ok(first) => {
            walk.known.insert(name(&ground, &first), 0);
            walk.steps.push(Step { from: 0, action: Action::BackUp, next: UNKNOWN });
            frontier.push((0, first));
        }
        Err(broken) => walk.breaks(&broken, Vec::new),
    }
    let mut whole = true;
    while !frontier.is_empty() && whole {
        let mut next = Vec::new();
        let mut left = std::mem::take(&mut frontier).into_iter();
        for (number, state) in left.by_ref() {
            walk.expand(number, &state, &mut next);
            if walk.known.len() >= most {
                whole = false;
                break;
            }
        }
        if !whole {
            left.chain(std::mem::take(&mut next))
                .for_each(|(number, state)| walk.drain(number, &state));
        }
        depth += 1;
        frontier = next;
    }
    walk.find_circles();
    let path = |actions: &[Action]| tell::path(&ground, actions);
    let fails = |law: &Law| bounds.laws.contains(law) || !world.not_yet.contains(law);
    let each = LAWS.iter().filter_map(|law| walk.broken.get(law).map(|found| (*law, found)));
    let broken = each.map(|(law, (times, what, actions))| Found {
        law,
        times: *times,
        not_yet: !fails(&law),
        what: what.clone(),
        path: path(actions),
    });
    Walked {
        world: world.name,
        states: walk.known.len(),
        steps: walk.taken,
        depth,
        whole,
        broken: broken.collect(),
        took: begun.elapsed(),
    }
}

impl Walk<'_> {
    /// Visits every state that follows a state.
    fn expand(&mut self, number: u32, state: &State, next: &mut Vec<(u32, State)>) {
        let alone: Vec<_> = state.by_itself().collect();
        let mut goes_on = None;
        for action in state.actions(self.ground) {
            let Some(came) = state.act(self.ground, action) else { continue };
            self.taken += 1;
            let mut path = None;
            for broken in &came.broken {
                let path = path.get_or_insert_with(|| self.path(number, action)).clone();
                self.breaks(broken, || path);
            }
            if came.broken.iter().any(|broken| broken.law == Law::Sound) {
                continue;
            }
            let reached = self.reach(number, action, came.state, next);
            if goes_on.is_none() && alone.contains(&action) {
                goes_on = Some(reached);
            }
        }
        if goes_on.is_none() {
            self.rests(number, state);
        }
        if let Some(step) = self.steps.get_mut(number as usize) {
            step.next = goes_on.unwrap_or(RESTS);
        }
    }

    fn reach(
        &mut self,
        from: u32,
        action: Action,
        state: State,
        next: &mut Vec<(u32, State)>,
    ) -> u32 {
        let name = name(self.ground, &state);
        if let Some(known) = self.known.get(&name) {
            return *known;
        }
        let number = u32::try_from(self.steps.len()).unwrap_or(RESTS);
        self.known.insert(name, number);
        self.steps.push(Step { from, action, next: UNKNOWN });
        for broken in state.check(self.ground) {
            let path = self.path_to(number);
            self.breaks(&broken, || path);
        }
        next.push((number, state));
        number
    }

    fn rests(&mut self, number: u32, state: &State) {
        for broken in state.check_at_rest(self.ground) {
            let path = self.path_to(number);
            self.breaks(&broken, || path);
        }
    }

    /// Follows a state at which the walk was cut to its rest.
    fn drain(&mut self, number: u32, state: &State) {
        let (mut way, mut beyond) = (Vec::new(), Vec::new());
        let mut state = state.clone();
        let mut passed = vec![number];
        for _ in 0..STEPS_TO_REST {
            let next = state
                .by_itself()
                .find_map(|action| Some((action, state.act(self.ground, action)?)));
            let Some((action, came)) = next else {
                let broken = state.check_at_rest(self.ground);
                self.settle(number, &passed, &way, &broken, RESTS);
                if broken.is_empty() {
                    self.drained.extend(beyond);
                }
                return;
            };
            way.push(action);
            if !came.broken.is_empty() {
                self.settle(number, &passed, &way, &came.broken, RESTS);
                return;
            }
            state = came.state;
            let name = name(self.ground, &state);
            if let Some(known) = self.known.get(&name).copied() {
                let is_settled =
                    self.steps.get(known as usize).is_some_and(|step| step.next != UNKNOWN);
                if is_settled {
                    self.settle(number, &passed, &way, &[], known);
                    self.drained.extend(beyond);
                    return;
                }
                passed.push(known);
            } else if self.drained.contains(&name) {
                self.settle(number, &passed, &way, &[], RESTS);
                self.drained.extend(beyond);
                return;
            } else {
                beyond.push(name);
                let broken = state.check(self.ground);
                if !broken.is_empty() {
                    self.settle(number, &passed, &way, &broken, RESTS);
                    return;
                }
            }
        }
        let what = format!("{STEPS_TO_REST} steps without a fault do not bring it to rest");
        self.settle(number, &passed, &way, &[Broken::new(Law::Rest, what)], RESTS);
    }

    fn settle(
        &mut self,
        number: u32,
        passed: &[u32],
        way: &[Action],
        broken: &[Broken],
        next: u32,
    ) {
        for broken in broken {
            let mut path = self.path_to(number);
            path.extend(way);
            self.breaks(broken, || path);
        }
        for passed in passed {
            if let Some(step) =
                self.steps.get_mut(*passed as usize).filter(|step| step.next == UNKNOWN)
            {
                step.next = next;
            }
        }
    }

    /// Finds states that continue by themselves for ever.
    fn find_circles(&mut self) {
        let mut seen = vec![0_u32; self.steps.len()];
        for start in 0..u32::try_from(self.steps.len()).unwrap_or(0) {
            let mut at = start;
            while let Some(mark) = seen.get_mut(at as usize) {
                if *mark == start + 1 {
                    let path = self.path_to(start);
                    self.breaks(&Broken::new(Law::Rest, "it goes on for ever"), || path);
                    break;
                }
                if *mark > 0 {
                    break;
                }
                *mark = start + 1;
                let Some(step) = self.steps.get(at as usize) else { break };
                at = step.next;
            }
        }
    }

    fn breaks(&mut self, broken: &Broken, path: impl FnOnce() -> Vec<Action>) {
        let found =
            self.broken.entry(broken.law).or_insert_with(|| (0, broken.what.clone(), path()));
        found.0 += 1;
    }

    fn path(&self, from: u32, action: Action) -> Vec<Action> {
        let mut path = self.path_to(from);
        path.push(action);
        path
    }

    fn path_to(&self, number: u32) -> Vec<Action> {
        let (mut path, mut at) = (Vec::new(), number);
        while at > 0 {
            let Some(step) = self.steps.get(at as usize) else { break };
            path.push(step.action);
            at = step.from;
        }
        path.reverse();
        path
    }
}
