//! One name for all states with the same future.
//!
//! Ids of units, stamps and versions count only by their rank; stamps within one millisecond also
//! by their distance. The clock of a log counts by the stamps that it has passed. If the time
//! itself matters, because a clock is ahead, stamps count as they are.
//!
//! Invariants:
//! 1. A part of a state is encoded once, however many states share it.
//! 2. The server's memory of a unit counts only while a message about that unit may still arrive.

use std::cell::OnceCell;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use fieldbook_core::authority::{AuthorityRead, MemoryAuthority, UnitFate};
use fieldbook_core::{UnitId, Version};

use super::rows::{Tokens, of_ghosts, of_holding};
use super::state::State;
use super::world::{Clocks, Ground};

/// A part of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Number(u64),
    Stamp(u64),
    Version(u64),
    /// A unit of which the server may still be asked.
    Unit(UnitId),
    /// A unit that is only named.
    Mentioned(UnitId),
    /// The clock of a log.
    Head(u64),
}

/// A part that many states share, with its tokens.
#[derive(Debug)]
pub(super) struct Held<T>(Rc<(T, OnceCell<Vec<Token>>)>);

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Held<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Rc::new((value, OnceCell::new())))
    }

    pub(super) fn get(&self) -> &T {
        &self.0.0
    }

    pub(super) fn tokens(&self, tell: impl FnOnce(&T) -> Vec<Token>) -> &[Token] {
        self.0.1.get_or_init(|| tell(&self.0.0))
    }
}

/// Two stamps that are farther apart than this many are as far apart as any.
const FAR: u64 = 1 << 16;

/// Returns a state's name.
pub(super) fn name(ground: &Ground, state: &State) -> u64 {
    let mut tokens = Tokens(Vec::with_capacity(256));
    state.tell(&mut tokens.0);
    tokens.0.extend(of_ghosts(&state.ghosts, ground.asks_join));
    let (mut units, mut living) = (Vec::new(), Vec::new());
    for token in &tokens.0 {
        match token {
            Token::Unit(unit) => {
                units.push(*unit);
                living.push(*unit);
            }
            Token::Mentioned(unit) => units.push(*unit),
            _ => {}
        }
    }
    let (units, living) = (sorted(units), sorted(living));
    let server = state.server.get();
    for unit in &living {
        tokens.number(server.refused.contains(unit).into());
        let stores = std::iter::once(&server.authority).chain(server.backup.as_deref());
        stores.for_each(|store| remembered(&mut tokens, store, unit));
    }
    let (mut versions, mut stamps) = (Vec::new(), Vec::new());
    for token in &tokens.0 {
        match token {
            Token::Version(version) => versions.push(*version),
            Token::Stamp(stamp) => stamps.push(*stamp),
            _ => {}
        }
    }
    let (versions, stamps) = (sorted(versions), sorted(stamps));
    for version in &versions {
        for (record, holding) in server.history.get(&Version::new(*version)).into_iter().flatten() {
            tokens.number(*record as u64);
            of_holding(&mut tokens, holding);
        }
    }
    let labels = labels(&stamps, ground.world.clocks == Clocks::Ahead);
    let mut mixed = Mixed::default();
    for token in &tokens.0 {
        match token {
            Token::Number(number) => mixed.write_u64(*number),
            Token::Stamp(stamp) => {
                mixed.write_u64(place(&stamps, stamp).map_or(0, |at| label(&labels, at)))
            }
            Token::Version(version) => mixed.write_u64(rank(&versions, version)),
            Token::Unit(unit) | Token::Mentioned(unit) => mixed.write_u64(rank(&units, unit)),
            Token::Head(head) => {
                let passed = stamps.partition_point(|stamp| stamp <= head) as u64;
                let next = stamps.binary_search(&head.saturating_add(1)).is_ok();
                // A clock that is right is always past the clock of the log.
                let counts = ground.world.clocks == Clocks::Any;
                mixed.write_u64(if counts { passed * 2 + u64::from(next) } else { 0 });
            }
        }
    }
    mixed.finish()
}

fn remembered(tokens: &mut Tokens, store: &MemoryAuthority, unit: &UnitId) {
    let Ok(memory) = store.unit(unit);
    match memory.map(|memory| memory.fate) {
        None => tokens.number(0),
        Some(UnitFate::Ahead) => tokens.number(1),
        Some(UnitFate::ChangedNothing) => tokens.number(2),
        Some(UnitFate::Rejected { .. }) => tokens.number(3),
        Some(UnitFate::Applied(version)) => {
            tokens.number(4);
            tokens.0.push(Token::Version(version.number()));
        }
    }
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all.dedup();
    all
}

/// Returns the label of each stamp.
fn labels(stamps: &[u64], as_they_are: bool) -> Vec<u64> {
    let (mut last, mut label) = (0, 0);
    let each = stamps.iter().map(|stamp| {
        label += if as_they_are { stamp - last } else { (stamp - last).min(FAR) };
        last = *stamp;
        label
    });
    each.collect()
}

fn place<T: Ord>(all: &[T], one: &T) -> Option<usize> {
    all.binary_search(one).ok()
}

fn label(labels: &[u64], at: usize) -> u64 {
    labels.get(at).copied().unwrap_or(0)
}

fn rank<T: Ord>(all: &[T], one: &T) -> u64 {
    place(all, one).map_or(0, |at| at as u64 + 1)
}

/// A folded multiplication for each number.
#[derive(Debug)]
pub(super) struct Mixed(u64);

impl Default for Mixed {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, number: u64) {
        let wide = u128::from(self.0 ^ number ^ 0xd6e8_feb8_6659_fd93) * 0xa076_1d64_78bd_642f;
        let folded = u64::try_from(wide >> 64).unwrap_or(0)
            ^ u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(0);
        self.0 = folded.wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
}

/// The hasher of maps whose keys are names, which are hashes already.
pub(super) type ByName = BuildHasherDefault<Same>;

/// Uses a name as its own hash.
#[derive(Debug, Default)]
pub(super) struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, name: u64) {
        self.0 = name;
    }
}
