//! The records that a plan looks at next. With this queue, the cost of a plan depends only on the
//! records that it looks at, however many ops wait.
//!
//! ```text
//!   a commit changes the record ──► ready, by priority and age ──► a plan looks at it ──► it goes into a unit
//!                                       ▲                              │
//!                                       └── what it waits for changes ─┴► passed over, filed under what it waits for
//! ```
//!
//! | a record is passed over because | it is looked at again when |
//! |---|---|
//! | its own ops, or the server's state of it, are in the way | a commit changes it |
//! | another record is in the way | a commit changes that record |
//! | it is deleted, and records that refer to it are sent first | that record is looked at again, or a dead letter that refers to it changes |
//! | a time has not been reached | it is reached |
//! | an actor, an entity type, a server is parked | that park ends |
//! | another actor made the op | that actor uses the book |
//! | the network is metered | the network is unmetered |
//! | a record is created later than a record that refers to it | a commit adds an op, of any record, by which one record may wait for another |
//! | the ops of its transaction cannot be one unit | a commit changes another record of the transaction |
//! | any of these causes | the clock was set back |
//!
//! The queue reads the tail from its oldest op on, as far as plans need it. Records whose first
//! waiting op is behind that mark are ready too, but the queue does not know them yet.
//!
//! Invariants:
//! 1. A record with a waiting op before the mark, and with no unanswered op, is either ready or
//!    passed over. No other record is in the queue.
//! 2. Everything that a plan over the whole tail would send is ready, except deletions that follow
//!    another ready group. These become ready with the commit that plans that group
//!    ([`passed_over`]).
//! 3. The queue is a cache: the queue that has read nothing is also right, only slower.
//! 4. Ops are appended behind the mark. So most appends do not change the queue.
//!
//! What it does not do: decide. The plan that looks at a record decides whether it can be sent.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use foldhash::HashMap;

use super::{Group, Hold, Plan, PlanInput};
use crate::entry::ParkScope;
use crate::names::{Actor, RecordKey};
use crate::numbers::Seq;
use crate::op::{OpKind, OpPlace};
use crate::rows::TailRow;
use crate::rules::order::together;
use crate::schema::{EntityRules, Schema};
use crate::tail::Tail;
use crate::time::WallTime;

/// The records with ops that wait to be planned. The default has read nothing of the tail.
#[derive(Debug, Clone, Default)]
pub struct ReadyQueue {
    /// The tail is read up to this place.
    mark: OpPlace,
    ready: BTreeSet<Turn>,
    records: HashMap<RecordKey, Readiness>,
    passed_over: BTreeMap<Cause, BTreeSet<RecordKey>>,
    /// The number of passed-over ops with a hold that no run ends.
    resting: u64,
    latest: WallTime,
}

/// The order in which records are looked at: the greatest priority first, then the oldest op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) priority: Reverse<i32>,
    /// The first op of the record that waits.
    pub(super) first: OpPlace,
}

#[derive(Debug, Clone)]
enum Readiness {
    Ready {
        turn: Turn,
        /// The kind of op that its waiting ops make if all of them are sent.
        kind: OpKind,
    },
    PassedOver {
        causes: BTreeSet<Cause>,
        resting: u64,
    },
}

/// A cause for looking at a record again, in addition to a change of the record itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    Until(WallTime),
    Parked(ParkScope),
    Actor(Actor),
    UnmeteredNetwork,
    LaterCreation,
    Transaction(Seq),
    // Last, because there may be as many of these as there are records.
    Ready(RecordKey),
    Record(RecordKey),
}

/// A time after all times for which records wait.
const LAST_TIME: WallTime = WallTime::from_milliseconds(i64::MAX);
/// The number of ops that are read of the tail at a time.
const READ_AT_ONCE: usize = 256;

impl ReadyQueue {
    /// Records that a commit changed a record in any way. The tail is in its state after the
    /// commit.
    pub fn changed(&mut self, tail: &Tail, schema: &Schema, key: &RecordKey) {
        self.look_again(tail, schema, vec![key.clone()]);
        self.wake_behind(tail, schema, key);
    }

    /// Records the same of a record that has no op in the tail after the commit.
    pub fn emptied(&mut self, tail: &Tail, schema: &Schema, key: &RecordKey) {
        self.forget(key);
        self.wake_behind(tail, schema, key);
    }

    /// Makes records ready that wait for a record that changed.
    fn wake_behind(&mut self, tail: &Tail, schema: &Schema, key: &RecordKey) {
        self.wake(tail, schema, &Cause::Record(key.clone()));
        // This look-up skips the causes before transactions, and those that name records.
        let first = self.passed_over.range(Cause::Transaction(Seq::ZERO)..).next();
        if first.is_some_and(|(cause, _)| matches!(cause, Cause::Transaction(_))) {
            let entries: BTreeSet<_> = tail.ops_of(key).map(|place| place.seq).collect();
            entries.into_iter().for_each(|seq| self.wake(tail, schema, &Cause::Transaction(seq)));
        }
    }

    /// Records that a commit ended an op, so that the rest of its transaction is smaller.
    pub fn ended(&mut self, tail: &Tail, schema: &Schema, place: OpPlace) {
        self.wake(tail, schema, &Cause::Transaction(place.seq));
    }

    /// Records that a commit appended an op. The tail is in its state after the commit.
    pub fn appended(&mut self, tail: &Tail, schema: &Schema, row: &TailRow) {
        let leads_on =
            row.transaction_ops > 1 || row.kind == OpKind::Delete || row.targets().next().is_some();
        if leads_on {
            self.wake(tail, schema, &Cause::LaterCreation);
        }
        // One more edit of a record delays and frees no other record.
        if leads_on || row.kind == OpKind::Create || !row.led_away.is_empty() {
            if self.records.contains_key(&row.key) {
                self.look_again(tail, schema, vec![row.key.clone()]);
            } else {
                self.wake(tail, schema, &Cause::Ready(row.key.clone()));
            }
            self.wake_behind(tail, schema, &row.key);
        } else if let Some(Readiness::Ready { turn, kind }) = self.records.get(&row.key) {
            // The record's earlier ops are not read again, however many there are.
            let kind = together(Some(*kind), row.kind);
            let priority = turn.priority.min(Reverse(priority_of(schema, &row.key, kind)));
            self.stand(&row.key, Turn { priority, ..*turn }, kind);
        } else if self.records.contains_key(&row.key) {
            self.look_again(tail, schema, vec![row.key.clone()]);
        } else {
            self.wake(tail, schema, &Cause::Ready(row.key.clone()));
        }
    }

    /// Returns the number of passed-over ops with a hold that no run ends.
    pub const fn resting(&self) -> u64 {
        self.resting
    }

    /// Returns the first time at which a record that waits for a time is looked at again.
    pub fn wake_at(&self) -> Option<WallTime> {
        match self.passed_over.first_key_value() {
            Some((Cause::Until(at), _)) => Some(*at),
            _ => None,
        }
    }

    /// Makes records ready for which something outside has changed.
    pub(super) fn look_around(&mut self, input: &PlanInput<'_>) {
        if input.now < self.latest {
            // An undo window that is open again separates the ops around it, so an op may be ready
            // that waited with the others.
            *self = Self::default();
        }
        self.latest = input.now;
        // There may be as many times as records, so only the times that have been reached are
        // visited.
        let due = self.passed_over.range(..=Cause::Until(input.now)).map(|(cause, _)| cause);
        let outside =
            (Bound::Excluded(Cause::Until(LAST_TIME)), Bound::Excluded(Cause::LaterCreation));
        let outside = self.passed_over.range(outside).map(|(cause, _)| cause);
        let has_changed = |cause: &&Cause| match cause {
            Cause::Parked(scope) => !input.parks.iter().any(|(parked, _)| parked == scope),
            Cause::Actor(actor) => actor == input.actor,
            _ => input.unmetered,
        };
        let causes: Vec<_> = due.chain(outside.filter(has_changed)).cloned().collect();
        causes.iter().for_each(|cause| self.wake(input.tail, input.schema, cause));
    }

    /// Reads the tail until it has so many ready records. With more than one priority it reads all
    /// of the tail, because the last record may be the first to send.
    pub(super) fn read_on(&mut self, tail: &Tail, schema: &Schema, most: usize) {
        let in_order = schema.has_one_priority();
        while !in_order || self.ready.len() <= most {
            // Each part is a question of its own, so that the tail keeps no more than that in mind.
            let part = tail.clone();
            let (from, mut read) = (self.mark, 0);
            for (place, row) in part.ops_from(from).take(READ_AT_ONCE) {
                (self.mark, read) = (place.next(), read + 1);
                if !self.records.contains_key(&row.key) {
                    self.look_again(&part, schema, vec![row.key.clone()]);
                }
            }
            if !tail.answers_for(&part) || read < READ_AT_ONCE {
                break;
            }
        }
    }

    /// Returns the records to look at next, at most `most`, and the turn of the record after them.
    pub(super) fn next(&self, most: usize) -> (Vec<OpPlace>, Option<Turn>) {
        let mut turns = self.ready.iter();
        let mut next: Vec<_> = turns.by_ref().take(most).map(|turn| turn.first).collect();
        next.sort_unstable();
        (next, turns.next().copied())
    }

    /// Files the records that were looked at and whose first op is held.
    pub(super) fn pass_over(
        &mut self,
        tail: &Tail,
        looked_at: &[OpPlace],
        holds: &BTreeMap<OpPlace, Hold>,
    ) {
        for place in looked_at {
            // Most of them go, or are not reached, and are not read.
            let Some(hold) = holds.get(place) else { continue };
            let Some(row) = tail.op(*place) else { continue };
            let rests =
                |place: &OpPlace| holds.get(place).is_some_and(|hold| !hold.may_end_in_a_run());
            let resting = tail.ops_of(&row.key).filter(rests).count() as u64;
            self.file(&row.key, causes(tail, *place, row, holds, hold), resting);
        }
    }

    fn file(&mut self, key: &RecordKey, causes: BTreeSet<Cause>, resting: u64) {
        self.forget(key);
        for cause in &causes {
            self.passed_over.entry(cause.clone()).or_default().insert(key.clone());
        }
        self.resting = self.resting.saturating_add(resting);
        self.records.insert(key.clone(), Readiness::PassedOver { causes, resting });
    }

    /// Gives records later turns: their part that can be sent has a lower priority than expected.
    pub(super) fn put_back(&mut self, tail: &Tail, later: &[Turn]) {
        for turn in later {
            let Some(row) = tail.op(turn.first) else { continue };
            if let Some(Readiness::Ready { kind, .. }) = self.records.get(&row.key) {
                self.stand(&row.key, *turn, *kind);
            }
        }
    }

    fn stand(&mut self, key: &RecordKey, turn: Turn, kind: OpKind) {
        self.forget(key);
        self.ready.insert(turn);
        self.records.insert(key.clone(), Readiness::Ready { turn, kind });
    }

    /// Makes records ready that wait for this cause.
    fn wake(&mut self, tail: &Tail, schema: &Schema, cause: &Cause) {
        let keys = self.passed_over.remove(cause).unwrap_or_default();
        self.look_again(tail, schema, keys.into_iter().collect());
    }

    /// Makes records ready that have a waiting op and no unanswered op, and the records that may
    /// follow them.
    fn look_again(&mut self, tail: &Tail, schema: &Schema, mut next: Vec<RecordKey>) {
        while let Some(key) = next.pop() {
            self.forget(&key);
            if let Some((turn, kind)) = turn(tail, schema, &key) {
                if turn.first < self.mark {
                    self.stand(&key, turn, kind);
                }
                next.extend(self.passed_over.remove(&Cause::Ready(key)).into_iter().flatten());
            }
        }
    }

    fn forget(&mut self, key: &RecordKey) {
        match self.records.remove(key) {
            Some(Readiness::Ready { turn, .. }) => drop(self.ready.remove(&turn)),
            Some(Readiness::PassedOver { causes, resting }) => {
                self.resting = self.resting.saturating_sub(resting);
                for cause in causes {
                    if let Some(keys) = self.passed_over.get_mut(&cause) {
                        keys.remove(key);
                        if keys.is_empty() {
                            self.passed_over.remove(&cause);
                        }
                    }
                }
            }
            None => {}
        }
    }
}

/// Returns a record that breaks invariant 2: a plan over the whole tail would send something of it,
/// and a plan of the ready records passes over it. It is for tests of the invariant. Both plans
/// have no limits and are of the same moment.
pub fn passed_over(tail: &Tail, whole: &Plan, ready: &Plan) -> Option<RecordKey> {
    let sends_nothing = ready.groups.is_empty() && ready.again.is_empty();
    let deletes = |group: &Group| {
        group.records.iter().flat_map(|(_, places)| places).any(|place| is_delete(tail, *place))
    };
    let mut missing = whole.groups.iter().filter(|group| !ready.groups.contains(group));
    let passed_over = missing.find(|group| sends_nothing || !deletes(group))?;
    passed_over.records.first().map(|(key, _)| key.clone())
}

/// Returns the causes for looking again at a record whose first op is held.
fn causes(
    tail: &Tail,
    first: OpPlace,
    row: &TailRow,
    holds: &BTreeMap<OpPlace, Hold>,
    hold: &Hold,
) -> BTreeSet<Cause> {
    // Together with a later op, which waits alone, the first op may become another change, which
    // can be sent.
    let of_record = tail.ops_of(&row.key).filter_map(|place| Cause::of(holds.get(&place)?));
    let mut causes: BTreeSet<_> = of_record.collect();
    if row.transaction_ops > 1 {
        causes.insert(Cause::Transaction(first.seq));
    }
    let Hold::WaitsFor(other) = hold else { return causes };
    let is_creation =
        |place: &OpPlace| tail.op(*place).is_some_and(|row| row.kind == OpKind::Create);
    if tail.ops_of(other).find(is_creation).is_some_and(|created| created > first) {
        causes.insert(Cause::LaterCreation);
    }
    if tail.ops_of(&row.key).any(|place| is_delete(tail, place)) {
        // A deletion may follow the other record in one request, also after a unit that is sent
        // again once its own wait is over.
        causes.insert(Cause::Ready(other.clone()));
        causes.extend(tail.ops_of(other).filter_map(|place| Cause::of(holds.get(&place)?)));
        causes.extend(dead_letters_between(tail, first, row).map(|key| Cause::Record(key.clone())));
    }
    causes
}

/// Returns the records with dead letters that refer to a record and were made after its first op.
/// When such an op is sent again, the edits before it and a deletion behind it are no longer one
/// unit.
fn dead_letters_between<'a>(
    tail: &'a Tail,
    first: OpPlace,
    row: &'a TailRow,
) -> impl Iterator<Item = &'a RecordKey> {
    let last = tail.ops_of(&row.key).next_back();
    let between = last.into_iter().flat_map(|last| tail.referring_before(&row.key, last));
    let keys =
        between.filter(move |place| *place > first).filter_map(|place| Some(&tail.op(place)?.key));
    keys.filter(|key| tail.ops_of(key).any(|place| tail.is_dead(place)))
}

/// Returns the turn of a record and the kind of op that its ops make; `None` if none of them waits,
/// or one is unanswered.
fn turn(tail: &Tail, schema: &Schema, key: &RecordKey) -> Option<(Turn, OpKind)> {
    if tail.ops_of(key).any(|place| tail.unit_of(place).is_some()) {
        return None;
    }
    let waiting = tail.ops_of(key).filter(|place| !tail.is_dead(*place));
    let waiting = waiting.filter_map(|place| Some((place, tail.op(place)?.kind)));
    let (mut first, mut greatest) = (None, None);
    for (place, next) in waiting {
        // Perhaps not all of them can be sent at once, and the sent part decides the priority.
        let kind = together(first.map(|(_, kind)| kind), next);
        greatest = greatest.max(Some(priority_of(schema, key, kind)));
        first = Some((first.map_or(place, |(first, _)| first), kind));
    }
    let (first, kind) = first?;
    Some((Turn { priority: Reverse(greatest.unwrap_or_default()), first }, kind))
}

fn is_delete(tail: &Tail, place: OpPlace) -> bool {
    tail.op(place).is_some_and(|row| row.kind == OpKind::Delete)
}

/// Returns the priority of a kind of op of a record. A deletion has at most the priority of
/// deletions of records that may have referred to its record.
fn priority_of(schema: &Schema, key: &RecordKey, kind: OpKind) -> i32 {
    let own = schema.rules(&key.entity).map_or(0, |rules| rules.priority_of(kind));
    if kind != OpKind::Delete {
        return own;
    }
    let refers = |rules: &&EntityRules| {
        rules.references.iter().any(|reference| reference.entity == key.entity)
    };
    let referring = schema.declared().map(|(_, rules)| rules).filter(refers);
    referring.map(|rules| rules.priority_of(kind)).fold(own, i32::min)
}

impl Cause {
    /// Returns the cause that would end this hold, other than a change of its own record or of the
    /// records in its transaction.
    fn of(hold: &Hold) -> Option<Self> {
        match hold {
            Hold::UndoWindow { until } | Hold::BackingOff { until, .. } => {
                Some(Self::Until(*until))
            }
            Hold::NotLetThrough { until, .. } => until.map(Self::Until),
            Hold::WaitsFor(other) | Hold::TargetDeleted(other) => Some(Self::Record(other.clone())),
            Hold::Parked { scope: ParkScope::Op(_), .. } => None,
            Hold::Parked { scope, .. } => Some(Self::Parked(scope.clone())),
            Hold::OtherActor(actor) => Some(Self::Actor(actor.clone())),
            Hold::UnmeteredNetwork => Some(Self::UnmeteredNetwork),
            Hold::DeadCreate
            | Hold::Behind(_)
            | Hold::After(_)
            | Hold::LocalOnly
            | Hold::NoUpcaster { .. }
            | Hold::Refused { .. }
            | Hold::TooLarge { .. } => None,
        }
    }
}
