//! The records that a plan looks at next, so that a plan costs what it looks at, however much waits.
//!
//! ```text
//!   a commit changes the record ──► ready, by priority and age ──► a plan looks at it ──► it goes into a unit
//!                                       ▲                              │
//!                                       └── what it waits for changes ─┴► passed over, filed under what it waits for
//! ```
//!
//! | a record that is passed over since | is looked at again when |
//! |---|---|
//! | its own ops, or what the server told of it, stand in the way | a commit changes it |
//! | another record stands in the way | a commit changes that one |
//! | it is deleted, and what refers to it has to go first | that one is looked at again, or a dead letter that refers to it changes |
//! | a time has not come | it has |
//! | an actor, an entity type, a server is parked | that park is lifted |
//! | another actor made the op | that actor uses the book |
//! | the network is metered | it is not |
//! | a record is created later than what refers to it | a commit also adds an op by which one record may wait for another |
//! | the ops of its transaction cannot go as one | a commit also changes another record of the transaction |
//! | whatever it waits for | the clock was set back |
//!
//! Invariants:
//! 1. A record with an op that waits, and with none under way, is either ready or passed over. Any other record is neither.
//! 2. What a plan over the whole tail would send is ready, but for deletions that go behind something else which is ready: they
//!    become ready with the commit that plans that one ([`passed_over`]).
//! 3. It is a cache: a queue in which every such record is ready is right as well, and only slower.
//!
//! What it is not: a judge. Whether something can go is decided by the plan that looks at it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

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

/// The records with ops that wait to be planned.
#[derive(Debug, Clone, Default)]
pub struct ReadyQueue {
    ready: BTreeSet<Turn>,
    standing: HashMap<RecordKey, Standing>,
    passed_over: BTreeMap<Cause, BTreeSet<RecordKey>>,
    /// How many ops are passed over that no run lets go on by itself.
    resting: u64,
    latest: WallTime,
}

/// When a record is looked at: the greatest priority first, then the oldest op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) priority: Reverse<i32>,
    /// The first op of the record that waits.
    pub(super) first: OpPlace,
}

#[derive(Debug, Clone)]
enum Standing {
    Ready {
        turn: Turn,
        /// What its ops that wait come to if all of them go.
        kind: OpKind,
    },
    PassedOver {
        causes: BTreeSet<Cause>,
        resting: u64,
    },
}

/// What has to change before a record is looked at again, beside the record itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    Until(WallTime),
    Parked(ParkScope),
    Actor(Actor),
    UnmeteredNetwork,
    LaterCreation,
    Transaction(Seq),
    // Last: there may be as many of these as there are records.
    Ready(RecordKey),
    Record(RecordKey),
}

/// After every time that anything waits for.
const LAST_TIME: WallTime = WallTime::from_milliseconds(i64::MAX);

impl ReadyQueue {
    /// Puts every record with an op that waits into the queue.
    pub fn of(tail: &Tail, schema: &Schema) -> Self {
        let mut queue = Self::default();
        for (_, row) in tail.ops() {
            if !queue.standing.contains_key(&row.key) {
                queue.look_again(tail, schema, vec![row.key.clone()]);
            }
        }
        queue
    }

    /// Takes note that a commit changed a record in any way. The tail is as it is after the commit.
    pub fn changed(&mut self, tail: &Tail, schema: &Schema, key: &RecordKey) {
        self.look_again(tail, schema, vec![key.clone()]);
        self.wake(tail, schema, &Cause::Record(key.clone()));
        // Without walking through the causes before them, or those that name records.
        let first = self.passed_over.range(Cause::Transaction(Seq::ZERO)..).next();
        if first.is_some_and(|(cause, _)| matches!(cause, Cause::Transaction(_))) {
            let entries: BTreeSet<_> = tail.ops_of(key).map(|place| place.seq).collect();
            entries.into_iter().for_each(|seq| self.wake(tail, schema, &Cause::Transaction(seq)));
        }
    }

    /// Takes note that a commit ended an op, so that what is left of its transaction is less.
    pub fn ended(&mut self, tail: &Tail, schema: &Schema, place: OpPlace) {
        self.wake(tail, schema, &Cause::Transaction(place.seq));
    }

    /// Takes note that a commit appended an op. The tail is as it is after the commit.
    pub fn appended(&mut self, tail: &Tail, schema: &Schema, row: &TailRow) {
        let leads_on =
            row.transaction_ops > 1 || row.kind == OpKind::Delete || row.targets().next().is_some();
        if leads_on {
            self.wake(tail, schema, &Cause::LaterCreation);
        }
        // One more edit of a record keeps back, and lets go, nobody else.
        if leads_on || row.kind == OpKind::Create || !row.led_away.is_empty() {
            self.changed(tail, schema, &row.key);
        } else if let Some(Standing::Ready { turn, kind }) = self.standing.get(&row.key) {
            // Nor has the record itself to be looked through again, however many edits it has.
            let kind = together(Some(*kind), row.kind);
            let priority = turn.priority.min(Reverse(priority_of(schema, &row.key, kind)));
            self.stand(&row.key, Turn { priority, ..*turn }, kind);
        } else {
            self.look_again(tail, schema, vec![row.key.clone()]);
        }
    }

    /// Returns how many ops are passed over that no run lets go on by itself.
    pub const fn resting(&self) -> u64 {
        self.resting
    }

    /// Returns when the first record that waits for a time is looked at again.
    pub fn wake_at(&self) -> Option<WallTime> {
        match self.passed_over.first_key_value() {
            Some((Cause::Until(at), _)) => Some(*at),
            _ => None,
        }
    }

    /// Lets those be looked at again for whom the world outside has changed.
    pub(super) fn look_around(&mut self, input: &PlanInput<'_>) {
        if input.now < self.latest {
            // An undo window that is open again parts the ops around it, so that one of them may go that waited with the others.
            *self = Self::of(input.tail, input.schema);
        }
        self.latest = input.now;
        // There may be as many times as records, so that only those that have come are gone through.
        let due = self.passed_over.range(..=Cause::Until(input.now)).map(|(cause, _)| cause);
        let outside = (Bound::Excluded(Cause::Until(LAST_TIME)), Bound::Excluded(Cause::LaterCreation));
        let outside = self.passed_over.range(outside).map(|(cause, _)| cause);
        let has_changed = |cause: &&Cause| match cause {
            Cause::Parked(scope) => !input.parks.iter().any(|(parked, _)| parked == scope),
            Cause::Actor(actor) => actor == input.actor,
            _ => input.unmetered,
        };
        let causes: Vec<_> = due.chain(outside.filter(has_changed)).cloned().collect();
        causes.iter().for_each(|cause| self.wake(input.tail, input.schema, cause));
    }

    /// Returns the records that are looked at next, at most `most` of them, and the turn of the one after them.
    pub(super) fn next(&self, most: usize) -> (Vec<OpPlace>, Option<Turn>) {
        let mut turns = self.ready.iter();
        let mut next: Vec<_> = turns.by_ref().take(most).map(|turn| turn.first).collect();
        next.sort_unstable();
        (next, turns.next().copied())
    }

    /// Files those of the records that were looked at whose first op is held.
    pub(super) fn pass_over(&mut self, tail: &Tail, looked_at: &[OpPlace], holds: &BTreeMap<OpPlace, Hold>) {
        for place in looked_at {
            let (Some(hold), Some(row)) = (holds.get(place), tail.op(*place)) else { continue };
            let rests = |place: &OpPlace| holds.get(place).is_some_and(|hold| !hold.may_end_in_a_run());
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
        self.standing.insert(key.clone(), Standing::PassedOver { causes, resting });
    }

    /// Gives records later turns than they had: what goes of them has a lower priority than it might have had.
    pub(super) fn put_back(&mut self, tail: &Tail, later: &[Turn]) {
        for turn in later {
            let Some(row) = tail.op(turn.first) else { continue };
            if let Some(Standing::Ready { kind, .. }) = self.standing.get(&row.key) {
                self.stand(&row.key, *turn, *kind);
            }
        }
    }

    fn stand(&mut self, key: &RecordKey, turn: Turn, kind: OpKind) {
        self.forget(key);
        self.ready.insert(turn);
        self.standing.insert(key.clone(), Standing::Ready { turn, kind });
    }

    /// Has those looked at again that wait for this.
    fn wake(&mut self, tail: &Tail, schema: &Schema, cause: &Cause) {
        let keys = self.passed_over.remove(cause).unwrap_or_default();
        self.look_again(tail, schema, keys.into_iter().collect());
    }

    /// Makes records ready of which an op waits and none is under way, and those that may go behind them.
    fn look_again(&mut self, tail: &Tail, schema: &Schema, mut next: Vec<RecordKey>) {
        while let Some(key) = next.pop() {
            self.forget(&key);
            if let Some((turn, kind)) = turn(tail, schema, &key) {
                self.stand(&key, turn, kind);
                next.extend(self.passed_over.remove(&Cause::Ready(key)).into_iter().flatten());
            }
        }
    }

    fn forget(&mut self, key: &RecordKey) {
        match self.standing.remove(key) {
            Some(Standing::Ready { turn, .. }) => drop(self.ready.remove(&turn)),
            Some(Standing::PassedOver { causes, resting }) => {
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

/// Returns a record with something that a plan over the whole tail would send, and that a plan of what is ready passes over against
/// invariant 2: for who checks that. Neither plan has bounds, and both are of the same instant.
pub fn passed_over(tail: &Tail, whole: &Plan, ready: &Plan) -> Option<RecordKey> {
    let sends_nothing = ready.groups.is_empty() && ready.again.is_empty();
    let deletes = |group: &Group| {
        group.records.iter().flat_map(|(_, places)| places).any(|place| is_delete(tail, *place))
    };
    let mut missing = whole.groups.iter().filter(|group| !ready.groups.contains(group));
    let passed_over = missing.find(|group| sends_nothing || !deletes(group))?;
    passed_over.records.first().map(|(key, _)| key.clone())
}

/// Returns what has to change before a record is looked at again whose first op is held.
fn causes(
    tail: &Tail,
    first: OpPlace,
    row: &TailRow,
    holds: &BTreeMap<OpPlace, Hold>,
    hold: &Hold,
) -> BTreeSet<Cause> {
    // With a later op, that waits by itself, the first may say something else, which may go.
    let of_record = tail.ops_of(&row.key).filter_map(|place| Cause::of(holds.get(&place)?));
    let mut causes: BTreeSet<_> = of_record.collect();
    if row.transaction_ops > 1 {
        causes.insert(Cause::Transaction(first.seq));
    }
    let Hold::WaitsFor(other) = hold else { return causes };
    let is_creation = |place: &OpPlace| tail.op(*place).is_some_and(|row| row.kind == OpKind::Create);
    if tail.ops_of(other).find(is_creation).is_some_and(|created| created > first) {
        causes.insert(Cause::LaterCreation);
    }
    if tail.ops_of(&row.key).any(|place| is_delete(tail, place)) {
        // A deletion may go behind the other in one request, also behind a unit that is sent again once its own wait is over.
        causes.insert(Cause::Ready(other.clone()));
        causes.extend(tail.ops_of(other).filter_map(|place| Cause::of(holds.get(&place)?)));
        causes.extend(dead_letters_between(tail, first, row).map(|key| Cause::Record(key.clone())));
    }
    causes
}

/// Returns the records with dead letters that refer to a record and were made after its first op: once such an op is sent again, the
/// edits before it no longer go as one with a deletion behind it.
fn dead_letters_between<'a>(
    tail: &'a Tail,
    first: OpPlace,
    row: &'a TailRow,
) -> impl Iterator<Item = &'a RecordKey> {
    let last = tail.ops_of(&row.key).next_back();
    let between = last.into_iter().flat_map(|last| tail.referring_before(&row.key, last));
    let keys = between.filter(move |place| *place > first).filter_map(|place| Some(&tail.op(place)?.key));
    keys.filter(|key| tail.ops_of(key).any(|place| tail.is_dead(place)))
}

/// Returns the turn of a record and what its ops come to; `None` if none of them waits, or one is under way.
fn turn(tail: &Tail, schema: &Schema, key: &RecordKey) -> Option<(Turn, OpKind)> {
    if tail.ops_of(key).any(|place| tail.unit_of(place).is_some()) {
        return None;
    }
    let waiting = tail.ops_of(key).filter(|place| !tail.is_dead(*place));
    let waiting = waiting.filter_map(|place| Some((place, tail.op(place)?.kind)));
    let (mut first, mut greatest) = (None, None);
    for (place, next) in waiting {
        // Not all of them may go at once, and what goes decides the priority.
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

/// A deletion goes no earlier than those of the records that may have referred to its own.
fn priority_of(schema: &Schema, key: &RecordKey, kind: OpKind) -> i32 {
    let own = schema.rules(&key.entity).map_or(0, |rules| rules.priority_of(kind));
    if kind != OpKind::Delete {
        return own;
    }
    let refers =
        |rules: &&EntityRules| rules.references.iter().any(|reference| reference.entity == key.entity);
    let referring = schema.declared().map(|(_, rules)| rules).filter(refers);
    referring.map(|rules| rules.priority_of(kind)).fold(own, i32::min)
}

impl Cause {
    /// Returns what an op waits for by this hold, beside its own record and the others of its transaction.
    fn of(hold: &Hold) -> Option<Self> {
        match hold {
            Hold::UndoWindow { until } | Hold::BackingOff { until, .. } => Some(Self::Until(*until)),
            Hold::NotLetThrough { until, .. } => until.map(Self::Until),
            Hold::WaitsFor(other) | Hold::Gone(other) => Some(Self::Record(other.clone())),
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
