//! The worlds that are walked, by name.

use fieldbook_core::Policy;

use super::law::Law;
use super::world::{Clocks, Left, Verb, World};

use Policy::{DeviceWins, LastWriteWins, Manual, Max, ServerWins};
use Verb::{Choose, Create, CreateThin, Delete, Discard, Replace, Retry, SetA, SetB, Undo};

const EDITS: &[Verb] = &[Create, SetA, SetB, Replace, Delete];
const NO_DELETIONS: &[Verb] = &[CreateThin, SetA, SetB, Replace];
const ALL: &[Verb] = &[Create, SetA, SetB, Replace, Delete, Undo, Discard, Retry, Choose];
const NO_UNDO: &[Verb] = &[Create, SetA, SetB, Replace, Delete, Discard, Retry, Choose];
const SHORT: &[Verb] = &[Create, SetA, Delete, Discard, Retry, Choose];
const FIELD: &[Verb] = &[SetA, Undo, Discard, Retry, Choose];
const FEW: &[Verb] = &[SetA, Delete];
const MORE: &[Verb] = &[SetA, SetB, Delete];

/// The number of states that is enough in a run of all worlds: for worlds that can be walked whole,
/// and for the others.
const ENOUGH_OF_SMALL: usize = 50_000;
const ENOUGH: usize = 20_000;

fn world(name: &'static str, ops: &[u8], verbs: &'static [Verb]) -> World {
    World {
        name,
        policies: vec![LastWriteWins; ops.len()],
        ops: ops.to_vec(),
        records: 1,
        verbs,
        clocks: Clocks::Any,
        equal_values: false,
        given: true,
        pages_apart: false,
        ids_fall: false,
        forgets_refusals: false,
        left: Left::default(),
        not_yet: Vec::new(),
        enough: ENOUGH,
    }
}

impl World {
    fn policy(self, policy: Policy) -> Self {
        let policies = vec![policy; self.policies.len()];
        Self { policies, ..self }
    }

    fn policies(self, policies: &[Policy]) -> Self {
        Self { policies: policies.to_vec(), ..self }
    }

    fn faults(mut self, faults: u8) -> Self {
        self.left.faults = faults;
        self
    }

    const fn refused(mut self) -> Self {
        self.left.refusals = 1;
        self
    }

    const fn abandoned(mut self) -> Self {
        self.left.abandons = 1;
        self
    }

    const fn reset(mut self) -> Self {
        self.left.resets = 1;
        self
    }

    /// Adds a restore, with the laws that it breaks. A write that the server accepted in an epoch
    /// before a restore, and that somebody overwrote in the next epoch, can be lost without a
    /// record: nobody can find out whether its author had read it. A value that the server has
    /// again can count as new.
    fn restored(mut self) -> Self {
        self.left.restores = 1;
        self.not_yet(&[Law::NothingLost, Law::NoFalse])
    }

    const fn pages_apart(mut self) -> Self {
        self.pages_apart = true;
        self
    }

    fn not_yet(mut self, laws: &[Law]) -> Self {
        self.not_yet.extend(laws);
        self
    }

    const fn clocks(mut self, clocks: Clocks) -> Self {
        self.clocks = clocks;
        self
    }

    const fn made_there(mut self) -> Self {
        self.given = false;
        self
    }
}

/// Returns every world.
pub fn worlds() -> Vec<World> {
    let mut all = one_edit_each();
    all.extend(last_write_wins());
    all.extend(with_policies());
    all.extend(deep());
    all.extend(with_resets());
    all
}

/// Returns the worlds of one op each, and others that are walked to their end.
fn one_edit_each() -> Vec<World> {
    let mut all = vec![
        world("one each", &[1, 1], EDITS).faults(1).pages_apart(),
        world("one each, two faults", &[1, 1], EDITS).faults(2),
        world("one each, made there", &[1, 1], &[Create, CreateThin, SetA, SetB, Delete])
            .faults(1)
            .made_there(),
        world("one each, refused", &[1, 1], NO_UNDO).faults(1).refused(),
        world("one each, abandoned", &[1, 1], NO_UNDO).faults(1).abandoned(),
        world("one each, undone", &[1, 1], ALL).faults(1),
        world("one each, restored", &[1, 1], FEW).restored(),
        world("one each, a clock ahead", &[1, 1], EDITS).faults(1).clocks(Clocks::Ahead),
        world("three devices", &[1, 1, 1], MORE),
    ];
    let policies = [
        (DeviceWins, "one each, device wins"),
        (ServerWins, "one each, server wins"),
        (Max, "one each, max"),
        (Manual, "one each, manual"),
    ];
    for (policy, name) in policies {
        all.push(world(name, &[1, 1], NO_UNDO).policy(policy).faults(1).refused());
    }
    all.into_iter().map(|world| World { enough: ENOUGH_OF_SMALL, ..world }).collect()
}

/// Returns worlds in which the last write wins.
fn last_write_wins() -> Vec<World> {
    vec![
        world("edits", &[2, 2], EDITS).faults(1),
        world("edits without deletions", &[2, 2], NO_DELETIONS).faults(1).made_there(),
        world("edits, pages apart", &[2, 1], EDITS).faults(1).pages_apart(),
        World { equal_values: true, ..world("edits, equal values", &[2, 1], EDITS).faults(1) },
        World { ids_fall: true, ..world("edits, op ids fall", &[2, 1], EDITS).faults(1) },
        world("refused", &[2, 2], NO_UNDO).faults(1).refused(),
        world("abandoned", &[2, 1], NO_UNDO).faults(1).abandoned(),
        world("all verbs, refused", &[2, 2], ALL).faults(1).refused(),
        world("all verbs, abandoned", &[2, 1], ALL).faults(1).abandoned(),
        world("one field, three ops", &[3, 2], FIELD).faults(1).refused(),
        world("right clocks", &[3, 2], NO_UNDO).faults(1).refused().clocks(Clocks::Right),
        world("a clock ahead", &[2, 1], NO_UNDO).faults(1).refused().clocks(Clocks::Ahead),
        world("restored", &[2, 1], EDITS).faults(1).restored().clocks(Clocks::Right),
        World {
            records: 2,
            ..world("two records", &[2, 1], EDITS).faults(1).clocks(Clocks::Right)
        },
        world("three devices, one fault", &[1, 1, 1], EDITS).faults(1),
    ]
}

/// Returns worlds with the other policies.
fn with_policies() -> Vec<World> {
    vec![
        world("device wins", &[2, 2], NO_UNDO).policy(DeviceWins).faults(1).refused(),
        world("server wins", &[2, 2], NO_UNDO).policy(ServerWins).faults(1).refused(),
        world("max", &[2, 2], NO_UNDO).policy(Max).faults(1).refused(),
        world("manual", &[2, 2], NO_UNDO).policy(Manual).faults(1).refused(),
        world("device wins meets server wins", &[2, 2], NO_UNDO)
            .policies(&[DeviceWins, ServerWins])
            .faults(1)
            .refused(),
        world("manual meets the last write", &[2, 2], NO_UNDO)
            .policies(&[Manual, LastWriteWins])
            .faults(1)
            .refused(),
        world("device wins, three and one", &[3, 1], NO_UNDO).policy(DeviceWins).refused(),
        world("server wins, three and one", &[3, 1], NO_UNDO).policy(ServerWins).refused(),
        world("manual, three and one", &[3, 1], NO_UNDO).policy(Manual).refused(),
        world("device wins, abandoned", &[2, 1], NO_UNDO).policy(DeviceWins).faults(1).abandoned(),
        world("manual, abandoned", &[2, 1], NO_UNDO).policy(Manual).faults(1).abandoned(),
        world("device wins, restored", &[2, 1], FEW).policy(DeviceWins).restored(),
    ]
}

/// Returns worlds of two ops at each of two devices under each policy, without faults: rules about
/// chains of ops are the most likely to be wrong.
fn deep() -> Vec<World> {
    vec![
        world("chains", &[2, 2], SHORT).refused(),
        world("chains, device wins", &[2, 2], SHORT).policy(DeviceWins).refused(),
        world("chains, server wins", &[2, 2], SHORT).policy(ServerWins).refused(),
        world("chains, manual", &[2, 2], SHORT).policy(Manual).refused(),
    ]
}

/// Returns worlds in which a person takes the server's state at any moment, also while an answer is
/// on its way.
fn with_resets() -> Vec<World> {
    vec![
        world("one each, reset", &[1, 1], NO_UNDO).faults(1).reset(),
        world("reset", &[2, 2], EDITS).faults(1).reset(),
        world("reset, refused", &[2, 1], NO_UNDO).faults(1).refused().reset(),
        world("reset, manual", &[2, 1], NO_UNDO).policy(Manual).faults(1).reset(),
    ]
}
