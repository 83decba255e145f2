//! The tail and its queue of ready records, updated with each commit.
//!
//! Invariants:
//! 1. The tail changes only under the queue's lock, together with the queue: a holder of that lock
//!    finds them in the same state.
//! 2. The cost of a commit is that of the records that it changed, and of those that waited for
//!    them.
//! 3. A question takes the tail and holds no lock of it. So a commit waits for a plan of an
//!    exchange only, and for no other question.

use std::sync::{Arc, PoisonError};

use fieldbook_core::locks::MutexGuard;
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{StateRow, TailRow};
use fieldbook_core::rules::plan::{Plan, PlanInput, ReadyQueue, plan_next};
use fieldbook_core::tail::{StoredTail, Tail, TailFault};
use fieldbook_core::{OpId, OpPlace, RecordKey, Schema, Seq};
use fieldbook_projections::{Changed, Effects, Snapshot, TailEffect, TailOnDisk, sound};
use fieldbook_transport::ExchangeParams;
use foldhash::HashMap;

use crate::book::Shared;
use crate::error::Error;

/// The tail, with the snapshot of its moment.
pub(crate) struct Following {
    tail: Tail,
    /// `None` while the book is suspended.
    snapshot: Option<Arc<Snapshot>>,
}

impl Following {
    /// Reads the tail of a snapshot.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub(crate) fn of(snapshot: Arc<Snapshot>, schema: &Schema) -> Result<Self, StoreError> {
        Ok(Self { tail: snapshot.tail(schema)?, snapshot: Some(snapshot) })
    }
}

/// The changes of a record in a commit that matter to the queue.
#[derive(Default)]
struct Touched {
    /// The number of writes of its row.
    written: usize,
    /// The ops that were appended to it.
    appended: Vec<TailRow>,
    /// Whether its ops changed in another way.
    changed: bool,
    /// Whether it has no op in the tail after the commit.
    is_empty: bool,
}

impl Shared {
    /// Updates the tail and the queue after a commit, whose snapshot and state these are. Returns
    /// the records that the commit changed.
    pub(crate) fn follow_tail(
        &self,
        effects: Effects,
        snapshot: Arc<Snapshot>,
        state: &StateRow,
        head: Seq,
    ) -> Vec<RecordKey> {
        let mut touched: HashMap<RecordKey, Touched> = HashMap::default();
        touched.reserve(effects.records.len());
        for Changed { key, may_have_tail } in &effects.records {
            let known = match touched.get_mut(key) {
                Some(known) => known,
                None => touched.entry(key.clone()).or_default(),
            };
            (known.written, known.is_empty) = (known.written + 1, !may_have_tail);
        }
        let mut ended = Vec::new();
        let mut ready = self.ready();
        let tail = {
            let mut following = self.following();
            let tail = &mut following.tail;
            for effect in effects.tail {
                note(tail, &effect, &mut touched);
                if let TailEffect::Remove(place) = &effect {
                    ended.push(*place);
                }
                effect.apply_to(tail);
            }
            let stored = Arc::new(TailOnDisk::new(Arc::clone(&snapshot)));
            tail.follow(stored, state.tail_folded, &state.tail, head);
            following.snapshot = Some(snapshot);
            following.tail.clone()
        };
        for (key, Touched { written, appended, changed, is_empty }) in touched {
            if is_empty {
                ready.emptied(&tail, &self.schema, &key);
            } else if changed || written > appended.len() {
                ready.changed(&tail, &self.schema, &key);
            }
            appended.iter().for_each(|row| ready.appended(&tail, &self.schema, row));
        }
        ended.into_iter().for_each(|place| ready.ended(&tail, &self.schema, place));
        if tail.fault().is_some() {
            // A record that could not be read is not in the queue. The next plan reads it again.
            *ready = ReadyQueue::default();
        }
        effects.records.into_iter().map(|changed| changed.key).collect()
    }

    /// Returns the tail, for one question.
    pub(crate) fn tail(&self) -> Tail {
        self.following().tail.clone()
    }

    /// Returns the tail and a snapshot of the same instant. A commit is in the file a moment before
    /// it is in both.
    ///
    /// # Errors
    /// [`Error::Suspended`].
    pub(crate) fn tail_and_snapshot(&self) -> Result<(Tail, Arc<Snapshot>), Error> {
        let following = self.following();
        let snapshot = following.snapshot.as_ref().ok_or(Error::Suspended)?;
        Ok((following.tail.clone(), Arc::clone(snapshot)))
    }

    /// Plans the next exchange.
    ///
    /// # Errors
    /// [`Error::Store`] if the tail cannot be read.
    pub(crate) fn plan_next(&self, ask: &ExchangeParams) -> Result<Plan, Error> {
        let mut ready = self.ready();
        let tail = self.tail();
        let plan = self.planning(&tail, |input| {
            let (batch_ops, batch_bytes) = (ask.batch_ops, ask.batch_bytes);
            plan_next(&PlanInput { batch_ops, batch_bytes, ..input }, &mut ready)
        });
        sound(&tail).inspect_err(|_| *ready = ReadyQueue::default())?;
        Ok(plan)
    }

    /// Replaces the tail by that of tables that were folded anew, and forgets the queue.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub(crate) fn put_tail(&self) -> Result<(), Error> {
        self.follow(Following::of(Arc::new(self.snapshot()?), &self.schema)?);
        Ok(())
    }

    /// Replaces the tail, and forgets the queue.
    pub(crate) fn follow(&self, following: Following) {
        let mut ready = self.ready();
        *ready = ReadyQueue::default();
        *self.following() = following;
    }

    /// Lets go of the snapshot, so that nothing keeps a closed file. What the tail has in memory
    /// stays, for the status.
    pub(crate) fn let_go_of_snapshots(&self) {
        self.latest.forget();
        let mut following = self.following();
        following.tail.set_stored(Arc::new(Closed));
        following.snapshot = None;
    }

    fn following(&self) -> MutexGuard<'_, Following> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> MutexGuard<'_, ReadyQueue> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stored part of the tail of a suspended book.
#[derive(Debug)]
struct Closed;

impl Closed {
    fn fault<T>() -> Result<T, TailFault> {
        Err(StoreError::Closed.into())
    }
}

impl StoredTail for Closed {
    fn op(&self, _: OpPlace) -> Result<Option<TailRow>, TailFault> {
        Self::fault()
    }

    fn ops_from(&self, _: OpPlace, _: usize) -> Result<Vec<(OpPlace, TailRow)>, TailFault> {
        Self::fault()
    }

    fn ops_of_entry(&self, _: Seq) -> Result<Vec<(OpPlace, TailRow)>, TailFault> {
        Self::fault()
    }

    fn ops_of(&self, _: &RecordKey) -> Result<Vec<(OpPlace, bool)>, TailFault> {
        Self::fault()
    }

    fn referring(&self, _: &RecordKey) -> Result<Vec<(OpPlace, bool)>, TailFault> {
        Self::fault()
    }

    fn has_references(&self) -> Result<bool, TailFault> {
        Self::fault()
    }

    fn place_of(&self, _: &OpId) -> Result<Option<OpPlace>, TailFault> {
        Self::fault()
    }

    fn dead_letters(&self) -> Result<u64, TailFault> {
        Self::fault()
    }
}

/// Records the effect on the tail that is about to happen. The rows of ops that end or become dead
/// letters are not read: each writes its record's row.
fn note(tail: &Tail, effect: &TailEffect, touched: &mut HashMap<RecordKey, Touched>) {
    let mut change = |key: &RecordKey| touched.entry(key.clone()).or_default().changed = true;
    match effect {
        TailEffect::Insert(_, row) => {
            touched.entry(row.key.clone()).or_default().appended.push(row.clone())
        }
        TailEffect::Replace(_, row) => change(&row.key),
        TailEffect::Remove(_) | TailEffect::Dead(..) => {}
        TailEffect::Parked(op, _) => {
            let row = tail.place_of(op).and_then(|place| tail.op(place));
            row.into_iter().for_each(|row| change(&row.key));
        }
        TailEffect::Unit(_, unit) => unit.changes.iter().for_each(|changed| change(&changed.key)),
        TailEffect::UnitGone(id) => {
            tail.unit(id).into_iter().flat_map(|unit| &unit.records).for_each(change);
        }
    }
}

#[cfg(feature = "simulation")]
#[doc(hidden)]
impl crate::book::Book {
    /// Returns a record with an op that could be sent and that the queue passes over. If there is
    /// one, fieldbook has a fault. The call plans the whole tail: it is for tests and support.
    pub fn passed_over(&self) -> Option<RecordKey> {
        let tail = self.shared.tail();
        let whole = self.shared.plan(&tail, usize::MAX, usize::MAX);
        let mut queue = self.shared.ready().clone();
        let ready = self.shared.planning(&tail, |input| plan_next(&input, &mut queue));
        fieldbook_core::rules::plan::passed_over(&tail, &whole, &ready)
    }
}
