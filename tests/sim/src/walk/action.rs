//! The possible next actions of a state.

use super::device::Device;
use super::rows::{Fate, awaits, has_news, image, latest_stamp, open_conflicts, waits_for_person};
use super::state::{ON_THEIR_WAY, STEP, State};
use super::world::{Clocks, Ground, OPS_OF_A_DEVICE, Verb};

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A person types an op.
    Type {
        /// The device.
        device: u8,
        /// The number of the record.
        record: u8,
        /// The action of the user.
        verb: Verb,
        /// Whether the op writes a value that others write too.
        shared: bool,
        /// The device's clock, in milliseconds after the server's time.
        wall: i32,
    },
    /// A person undoes an op.
    Undo {
        /// The number of the op.
        op: u8,
        /// The device's clock.
        wall: i32,
    },
    /// A person discards a dead letter.
    Discard {
        /// The number of the op.
        op: u8,
    },
    /// A person sends a dead letter again.
    Retry {
        /// The number of the op.
        op: u8,
    },
    /// A person chooses in an open conflict.
    Choose {
        /// The device of the op in the conflict.
        op: u8,
        /// The number of the op.
        number: u8,
        /// Whether the person chooses the own side.
        mine: bool,
    },
    /// A person accepts the server that answered.
    Accept {
        /// The device.
        device: u8,
    },
    /// A device asks for a page, with or without its units.
    Send {
        /// The device.
        device: u8,
        /// Whether it sends its units.
        push: bool,
    },
    /// A request reaches the server.
    Arrive {
        /// The device.
        device: u8,
        /// The number of the message among those of the device in flight.
        slot: u8,
        /// Whether a copy of it stays in flight.
        again: bool,
        /// Whether its units are refused.
        refuse: bool,
    },
    /// A request is lost.
    LoseRequest {
        /// The device.
        device: u8,
        /// The number of the message among those of the device in flight.
        slot: u8,
    },
    /// An answer reaches its device.
    Hear {
        /// The device.
        device: u8,
        /// The number of the message among those of the device in flight.
        slot: u8,
        /// Whether a copy of it stays in flight.
        again: bool,
    },
    /// An answer is lost.
    LoseAnswer {
        /// The device.
        device: u8,
        /// The number of the message among those of the device in flight.
        slot: u8,
    },
    /// A device no longer waits for an answer, which may still arrive.
    TimeOut {
        /// The device.
        device: u8,
    },
    /// A device abandons its unanswered unit, without knowing whether it took effect.
    Abandon {
        /// The device.
        device: u8,
    },
    /// A person takes the server's state in place of everything unsent.
    TakeState {
        /// The device.
        device: u8,
    },
    /// The server's store is backed up.
    BackUp,
    /// The server goes back to its backup, in a new epoch.
    Restore,
}

fn narrow(number: usize) -> u8 {
    // No number of a world exceeds a byte.
    u8::try_from(number).unwrap_or(u8::MAX)
}

impl State {
    /// Returns all possible actions. Those without a fault and without a person come first.
    pub(super) fn actions(&self, ground: &Ground) -> Vec<Action> {
        let mut list = Vec::with_capacity(24);
        let count = self.devices.len();
        for number in 0..count {
            if let Some(next) = self.delivery(number) {
                list.push(next);
            }
        }
        for number in 0..count {
            self.of_network(ground, number, &mut list);
        }
        for number in 0..count {
            if let Some(device) = self.device(number) {
                self.of_person(ground, number, device, &mut list);
            }
        }
        if self.left.restores > 0 {
            list.push(if self.backed_up { Action::Restore } else { Action::BackUp });
        }
        list
    }

    /// Returns the action that happens by itself at a device if nothing fails.
    fn delivery(&self, number: usize) -> Option<Action> {
        let (device, line) = (self.device(number)?, self.lines.get(number)?);
        let name = narrow(number);
        if !line.answers.is_empty() {
            return Some(Action::Hear { device: name, slot: 0, again: false });
        }
        if !line.requests.is_empty() {
            return Some(Action::Arrive { device: name, slot: 0, again: false, refuse: false });
        }
        if awaits(device, self.server.get()) {
            return Some(Action::Accept { device: name });
        }
        let owes = device.tail.ops().next().is_some();
        let sends = !line.busy && (owes || has_news(device, self.server.get()));
        sends.then_some(Action::Send { device: name, push: true })
    }

    fn of_network(&self, ground: &Ground, number: usize, list: &mut Vec<Action>) {
        let (Some(held), Some(line)) = (self.device(number), self.lines.get(number)) else {
            return;
        };
        let (faults, device) = (self.left.faults > 0, narrow(number));
        for (slot, request) in line.requests.iter().enumerate() {
            let has_units = !request.get().units.is_empty();
            let slot = narrow(slot);
            if line.answers.len() < ON_THEIR_WAY {
                for again in [false, true].into_iter().filter(|again| !again || faults) {
                    let plain = Action::Arrive { device, slot, again, refuse: false };
                    push(list, plain);
                    if self.left.refusals > 0 && has_units {
                        list.push(Action::Arrive { device, slot, again, refuse: true });
                    }
                }
            }
            if faults {
                list.push(Action::LoseRequest { device, slot });
            }
        }
        for slot in (0..line.answers.len()).map(narrow) {
            push(list, Action::Hear { device, slot, again: false });
            if faults {
                list.push(Action::Hear { device, slot, again: true });
                list.push(Action::LoseAnswer { device, slot });
            }
        }
        let room = line.requests.len() < ON_THEIR_WAY;
        let news = has_news(held, self.server.get());
        if !line.busy && room && (news || held.tail.ops().next().is_some()) {
            push(list, Action::Send { device, push: true });
            if ground.world.pages_apart && news {
                list.push(Action::Send { device, push: false });
            }
        }
        if line.busy && faults {
            list.push(Action::TimeOut { device });
        }
        if self.left.abandons > 0 && held.tail.units().next().is_some() {
            list.push(Action::Abandon { device });
        }
        if self.left.resets > 0 && held.tail.ops().next().is_some() {
            list.push(Action::TakeState { device });
        }
    }

    fn of_person(&self, ground: &Ground, number: usize, device: &Device, list: &mut Vec<Action>) {
        let made = self.ghosts.made.get(number).copied().unwrap_or(0);
        let may_make = ground.world.ops.get(number).is_some_and(|most| made < *most);
        if may_make {
            self.typing(ground, number, device, list);
        }
        let first = number * OPS_OF_A_DEVICE;
        for slot in first..first + OPS_OF_A_DEVICE {
            let Some(ghost) = self.ghosts.of(slot) else { continue };
            let op = narrow(slot);
            if ground.may(Verb::Undo) && !ghost.undone {
                let unsent = device.cancel(ghost.place).is_some();
                let left = ghost.fate == Fate::Acked || device.tail.unit_of(ghost.place).is_some();
                if unsent {
                    list.push(Action::Undo { op, wall: 0 });
                } else if left && may_make {
                    let wall = self.walls(ground, number, device, ghost.record);
                    list.extend(wall.into_iter().map(|wall| Action::Undo { op, wall }));
                }
            }
            if device.tail.is_dead(ghost.place) {
                if ground.may(Verb::Discard) {
                    list.push(Action::Discard { op });
                }
                if ground.may(Verb::Retry) {
                    list.push(Action::Retry { op });
                }
            }
        }
        if ground.may(Verb::Choose) {
            for (place, row) in open_conflicts(device).enumerate() {
                let Some(op) = ground.slot(&row.op.id).map(narrow) else { continue };
                let number = narrow(place);
                list.extend([true, false].map(|mine| Action::Choose { op, number, mine }));
            }
        }
        if awaits(device, self.server.get()) {
            push(list, Action::Accept { device: narrow(number) });
        }
    }

    fn typing(&self, ground: &Ground, number: usize, device: &Device, list: &mut Vec<Action>) {
        for (record, key) in ground.keys.iter().enumerate() {
            let there = image(device, key).is_some();
            let walls = self.walls(ground, number, device, record);
            for verb in ground.world.verbs {
                let fits = match verb {
                    Verb::Create | Verb::CreateThin => !there,
                    Verb::SetA | Verb::SetB | Verb::Replace | Verb::Delete => there,
                    _ => false,
                };
                if !fits {
                    continue;
                }
                for shared in [false, true] {
                    if shared && (!ground.world.equal_values || *verb == Verb::Delete) {
                        continue;
                    }
                    let typed = |wall: &i32| Action::Type {
                        device: narrow(number),
                        record: narrow(record),
                        verb: *verb,
                        shared,
                        wall: *wall,
                    };
                    list.extend(walls.iter().map(typed));
                }
            }
        }
    }

    /// Returns the possible times of a device's clock when a user edits a record: one for each
    /// place that the new stamp can have among the stamps of others.
    fn walls(&self, ground: &Ground, number: usize, device: &Device, record: usize) -> Vec<i32> {
        let Some(key) = ground.keys.get(record) else { return Vec::new() };
        if ground.world.clocks != Clocks::Any {
            return vec![i32::try_from(i64::from(self.typed + 1) * STEP).unwrap_or(0)];
        }
        // In milliseconds after the server's time; a stamp above a millisecond counts as the next
        // one.
        let beyond = |hlc: fieldbook_core::Hlc| {
            let wall = hlc.wall().milliseconds() - super::server::SERVER_TIME;
            i32::try_from(wall + i64::from(hlc.counter() > 0)).unwrap_or(0)
        };
        let floor = beyond(latest_stamp(device, key).next().max(device.head().next())).max(0);
        let mut marks: Vec<i32> = Vec::new();
        for (slot, ghost) in self.ghosts.each() {
            if slot / OPS_OF_A_DEVICE != number {
                marks.push(beyond(ghost.stamp));
            }
        }
        marks.sort_unstable();
        marks.dedup();
        marks.retain(|mark| *mark >= floor);
        let mut walls = Vec::new();
        let mut below = floor;
        for mark in marks {
            if mark - below > 1 {
                walls.push(below + (mark - below) / 2);
            }
            // The stamp is level with the mark.
            walls.push(mark);
            below = mark;
        }
        walls.push(below + (MOST - below) / 2);
        walls
    }

    /// Returns the next action if nothing fails and no person edits, discards, retries or chooses.
    /// None: the state is at rest, if an answer is no event.
    pub(super) fn by_itself(&self) -> impl Iterator<Item = Action> + '_ {
        (0..self.devices.len()).filter_map(|number| self.delivery(number))
    }

    /// Returns whether every remaining op waits for a person's decision, or for an op that does.
    pub(super) fn all_wait_for_people(&self, ground: &Ground, number: usize) -> bool {
        let (Some(device), Some(moment)) =
            (self.device(number), ground.moment(number, self.at_rest(ground)))
        else {
            return true;
        };
        let somebody = device.tail.ops().any(|(place, _)| waits_for_person(device, place));
        let plan = device.plan(moment);
        let mut left = device.tail.ops().map(|(place, _)| place);
        left.all(|place| {
            waits_for_person(device, place) || (somebody && plan.holds.contains_key(&place))
        })
    }
}

/// The latest believed clock after the server's time, in milliseconds, with room for counting on
/// from there.
const MOST: i32 = 50_000;

/// Adds an action that is not in the list already.
fn push(list: &mut Vec<Action>, action: Action) {
    if !list.contains(&action) {
        list.push(action);
    }
}
