//! The tail in memory and its queue of ready records, updated with each commit.
//!
//! Invariants:
//! 1. The queue changes together with the tail, under its lock: a reader of both finds them in the
//!    same state.
//! 2. The cost of a commit is that of the records that it changed, and of those that waited for
//!    them.

use std::collections::HashMap;
use std::sync::PoisonError;

use fieldbook_core::locks::{MutexGuard, RwLockReadGuard};
use fieldbook_core::rows::TailRow;
use fieldbook_core::rules::plan::{Plan, PlanInput, ReadyQueue, plan_next};
use fieldbook_core::tail::Tail;
use fieldbook_core::{RecordKey, Seq};
use fieldbook_projections::{Effects, Snapshot, TailEffect};
use fieldbook_transport::Ask;

use crate::book::{Shared, write};
use crate::error::Error;

/// The changes of a record in a commit that matter to the queue.
#[derive(Default)]
struct Touched {
    /// The number of writes of its row.
    written: usize,
    /// The ops that were appended to it.
    appended: Vec<TailRow>,
    /// Whether its ops changed in another way.
    changed: bool,
}

impl Shared {
    /// Updates the tail and the queue after a commit. Returns the records that the commit changed.
    pub(crate) fn follow_tail(&self, effects: Effects, head: Seq) -> Vec<RecordKey> {
        let mut touched: HashMap<RecordKey, Touched> = HashMap::new();
        for key in &effects.records {
            match touched.get_mut(key) {
                Some(known) => known.written += 1,
                None => {
                    drop(touched.insert(key.clone(), Touched { written: 1, ..Touched::default() }))
                }
            }
        }
        let mut ended = Vec::new();
        let mut tail = write(&self.tail);
        for effect in effects.tail {
            note(&tail, &effect, &mut touched);
            if let TailEffect::Remove(place) = &effect {
                ended.push(*place);
            }
            effect.apply_to(&mut tail);
        }
        tail.follow(head);
        let mut ready = self.ready();
        for (key, Touched { written, appended, changed }) in touched {
            if changed || written > appended.len() {
                ready.changed(&tail, &self.schema, &key);
            }
            appended.iter().for_each(|row| ready.appended(&tail, &self.schema, row));
        }
        ended.into_iter().for_each(|place| ready.ended(&tail, &self.schema, place));
        effects.records
    }

    /// Returns the tail and a snapshot of the same instant. A commit is in the file a moment before
    /// it is in the tail.
    pub(crate) fn tail_and_snapshot(&self) -> Result<(RwLockReadGuard<'_, Tail>, Snapshot), Error> {
        loop {
            let tail = self.tail();
            let snapshot = Snapshot::new(self.store.begin_read()?);
            if snapshot.last_seq()? == tail.followed() || self.check_alive().is_err() {
                return Ok((tail, snapshot));
            }
            drop(tail);
            std::thread::yield_now();
        }
    }

    /// Plans the next exchange.
    pub(crate) fn plan_next(&self, ask: &Ask) -> Plan {
        let tail = self.tail();
        self.planning(&tail, |input| {
            let (batch_ops, batch_bytes) = (ask.batch_ops, ask.batch_bytes);
            plan_next(&PlanInput { batch_ops, batch_bytes, ..input }, &mut self.ready())
        })
    }

    /// Replaces the tail by one that was built anew, and builds the queue anew.
    pub(crate) fn put_tail(&self, tail: Tail) {
        let mut known = write(&self.tail);
        *self.ready() = ReadyQueue::of(&tail, &self.schema);
        *known = tail;
    }

    fn ready(&self) -> MutexGuard<'_, ReadyQueue> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records the effect on the tail that is about to happen.
fn note(tail: &Tail, effect: &TailEffect, touched: &mut HashMap<RecordKey, Touched>) {
    let mut change = |key: &RecordKey| touched.entry(key.clone()).or_default().changed = true;
    match effect {
        TailEffect::Insert(_, row) => {
            touched.entry(row.key.clone()).or_default().appended.push(row.clone())
        }
        TailEffect::Replace(_, row) => change(&row.key),
        TailEffect::Remove(place) | TailEffect::Dead(place, _) => {
            tail.op(*place).into_iter().for_each(|row| change(&row.key));
        }
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
