//! One path through a world, chosen from outside, to its rest.

use super::explore::STEPS_TO_REST;
use super::law::{Broken, Law};
use super::state::State;
use super::tell;
use super::world::{Ground, World};

/// Walks one path of at most `steps` steps: `choose` picks an action by its index, or ends the
/// path. From there it continues without faults. Returns the laws that it breaks, except those that
/// the world is known not to keep, with the steps that led there.
pub fn stroll(
    world: &World,
    steps: usize,
    mut choose: impl FnMut(usize) -> Option<usize>,
) -> (Vec<Broken>, String) {
    let ground = Ground::asking(world, false);
    let mut state = match State::first(&ground) {
        Ok(state) => state,
        Err(broken) => return (vec![broken], String::new()),
    };
    let mut path = Vec::new();
    let fails = |broken: Vec<Broken>| -> Vec<_> {
        broken.into_iter().filter(|broken| !world.not_yet.contains(&broken.law)).collect()
    };
    for step in 0..steps + STEPS_TO_REST {
        let next = if step < steps {
            let actions = state.actions(&ground);
            let chosen = if actions.is_empty() { None } else { choose(actions.len()) };
            chosen.and_then(|number| actions.get(number).copied())
        } else {
            None
        };
        let next = next.and_then(|action| Some((action, state.act(&ground, action)?)));
        let by_itself =
            || state.by_itself().find_map(|action| Some((action, state.act(&ground, action)?)));
        let Some((action, came)) = next.or_else(by_itself) else {
            return (fails(state.check_at_rest(&ground)), tell::path(&ground, &path));
        };
        path.push(action);
        let mut broken = came.broken;
        broken.extend(came.state.check(&ground));
        let broken = fails(broken);
        if !broken.is_empty() {
            return (broken, tell::path(&ground, &path));
        }
        state = came.state;
    }
    let what = format!("{STEPS_TO_REST} steps without a fault do not bring it to rest");
    (vec![Broken::new(Law::Rest, what)], tell::path(&ground, &path))
}
