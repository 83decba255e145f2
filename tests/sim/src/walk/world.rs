//! A small world: its devices and records, the actions of people, and the number of faults.
//!
//! What it is not: the list of worlds that are walked ([`super::worlds`]).

use std::time::Duration;

use fieldbook_core::{Actor, EntityRules, EntityType, OpId, Policy, RecordKey, Schema};

use super::law::Law;
use super::lists::{self, Declared};

/// The fields of a record.
pub(super) const FIELDS: [&str; 2] = ["a", "b"];
/// How many ops a device can have: those of its script, and those that a rule writes for it.
pub(super) const OPS_OF_A_DEVICE: usize = 5;
/// The value that each field has at first, where the records are given.
pub(super) const FIRST_VALUE: i64 = 1;

/// An action of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Makes a record with both fields.
    Create,
    /// Makes a record with the field `a` only.
    CreateThin,
    /// Sets the field `a`.
    SetA,
    /// Sets the field `b`.
    SetB,
    /// Gives the record an image with the field `a` only.
    Replace,
    /// Deletes the record.
    Delete,
    /// Undoes an op.
    Undo,
    /// Discards a dead letter.
    Discard,
    /// Sends a dead letter again.
    Retry,
    /// Chooses in an open conflict.
    Choose,
}

/// The stamps that new ops can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clocks {
    /// Any order that a clock within the bound allows: above the stamps that the author has read,
    /// anywhere among the stamps of others, also equal to such a stamp.
    Any,
    /// Every clock is right: a later op has a later stamp.
    Right,
    /// As `Right`, but the first device's clock is an hour ahead.
    Ahead,
}

/// The numbers of events that may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Left {
    /// A message is lost, arrives twice, or is no longer waited for.
    pub faults: u8,
    /// The server refuses a unit for good.
    pub refusals: u8,
    /// A device abandons a unit: nobody knows whether it took effect.
    pub abandons: u8,
    /// The server is set back to a backup.
    pub restores: u8,
    /// A person takes the server's state in place of everything unsent.
    pub resets: u8,
}

/// A small world.
#[derive(Debug, Clone)]
pub struct World {
    /// Its name.
    pub name: &'static str,
    /// The policy of each device; their number is the number of devices.
    pub policies: Vec<Policy>,
    /// How many ops each device may make.
    pub ops: Vec<u8>,
    /// How many records there are.
    pub records: usize,
    /// The actions of people.
    pub verbs: &'static [Verb],
    /// The stamps that new ops can get.
    pub clocks: Clocks,
    /// Whether ops may also write a value that others write too.
    pub equal_values: bool,
    /// Whether the records exist at first, known to every device.
    pub given: bool,
    /// Whether a device may also ask for a page without sending its units.
    pub pages_apart: bool,
    /// Whether op ids descend from device to device, so that ties end the other way.
    pub ids_fall: bool,
    /// Whether a refusal is forgotten, so that a late copy of the same unit may be accepted.
    pub forgets_refusals: bool,
    /// The numbers of faults.
    pub left: Left,
    /// Laws that the rules do not keep in this world yet. They are counted, and fail nothing.
    pub not_yet: Vec<Law>,
    /// The number of its states that is enough for a run of all worlds; none for all.
    pub enough: usize,
}

/// The input of devices: a world, and the declarations of its devices.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    pub(super) world: World,
    pub(super) schemas: Vec<Schema>,
    pub(super) actors: Vec<Actor>,
    pub(super) keys: Vec<RecordKey>,
    /// The indexes, the search and the lists of each device.
    pub(super) declared: Declared,
    /// Whether the law of the join is asked for.
    pub(super) asks_join: bool,
}

impl Ground {
    pub(super) fn asking(world: &World, asks_join: bool) -> Self {
        let entity =
            EntityType::parse("lead").unwrap_or_else(|_| unreachable!("BUG: the name is valid"));
        let schema = |policy: &Policy| {
            let rules = EntityRules {
                policy: *policy,
                undo_window: Duration::ZERO,
                indexes: lists::rules().to_vec(),
                ..EntityRules::default()
            };
            Schema::closed().declare(entity.clone(), rules)
        };
        let actor = |number: usize| {
            Actor::parse(device_name(number))
                .unwrap_or_else(|_| unreachable!("BUG: the name is valid"))
        };
        let key = |number: usize| {
            RecordKey::parse("lead", &(number + 1).to_string())
                .unwrap_or_else(|_| unreachable!("BUG: the name is valid"))
        };
        Self {
            schemas: world.policies.iter().map(schema).collect(),
            actors: (0..world.policies.len()).map(actor).collect(),
            keys: (0..world.records).map(key).collect(),
            declared: Declared::new(),
            world: world.clone(),
            asks_join,
        }
    }

    pub(super) fn may(&self, verb: Verb) -> bool {
        self.world.verbs.contains(&verb)
    }

    /// Returns an op's place among all ops of a world; none for a given op, and for one beyond
    /// those that are followed.
    pub(super) fn slot(&self, op: &OpId) -> Option<usize> {
        (0..self.world.policies.len() * OPS_OF_A_DEVICE).find(|slot| self.op_of(*slot) == *op)
    }

    pub(super) fn op_of(&self, slot: usize) -> OpId {
        op_id(self.world.ids_fall, slot / OPS_OF_A_DEVICE, slot % OPS_OF_A_DEVICE)
    }

    /// Returns which record a key is of.
    pub(super) fn record(&self, key: &RecordKey) -> Option<usize> {
        self.keys.iter().position(|known| known == key)
    }
}

/// Returns the id of a device's op. Ids of one device ascend. If ids descend from device to device,
/// those of a later device are below.
pub(super) fn op_id(ids_fall: bool, device: usize, number: usize) -> OpId {
    let device = if ids_fall { 14 - device.min(14) } else { device + 1 };
    let last = u8::try_from((device << 4) | (number & 15)).unwrap_or(u8::MAX);
    let mut bytes = [1; 16];
    let [.., byte] = &mut bytes;
    *byte = last;
    OpId::from_bytes(bytes)
}

/// Returns the name of a device.
pub(super) fn device_name(number: usize) -> &'static str {
    ["ann", "ben", "cyd"].get(number).copied().unwrap_or("dot")
}
