//! The stored part of the tail, read from a snapshot when a question needs it.
//!
//! ```text
//!   an op                      a row of the tail's table
//!   the ops of a record        its row, or the table of pending ops if the tail is long
//!   what refers to a record    the table of references
//!   the place of an op         its dead letter, or the log, by the time in the op's id
//! ```
//!
//! Invariants:
//! 1. All of it is of the snapshot's moment. The snapshot is kept until the next commit, so it
//!    holds no more space in the file than any reader would.
//!
//! What it does not do: keep anything that it has read. The storage engine keeps pages.

use std::fmt;
use std::sync::Arc;

use fieldbook_core::entry::{Entry, Meta};
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{DeadLetterRow, TailRow};
use fieldbook_core::tail::{StoredTail, Tail, TailFault};
use fieldbook_core::{OpId, OpPlace, RecordKey, Seq, WallTime};
use redb::ReadableTableMetadata;

use crate::access::decode;
use crate::lazy::LEADS_AWAY;
use crate::log_view::LogView;
use crate::read::{Snapshot, damaged_key};
use crate::tables::{self, Which};

/// The stored part of the tail in one snapshot.
pub struct TailOnDisk {
    snapshot: Arc<Snapshot>,
}

impl TailOnDisk {
    /// Lends a snapshot.
    pub const fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot }
    }

    fn range(&self, from: OpPlace, most: usize) -> Result<Vec<(OpPlace, TailRow)>, StoreError> {
        let Some(table) = self.snapshot.table(Which::Tail)? else { return Ok(Vec::new()) };
        let from = tables::place_key(from);
        let rows = table.range::<&[u8]>(from.as_slice()..).map_err(StoreError::during(READING))?;
        let rows = rows.take(most).map(|row| {
            let (key, stored) = row.map_err(StoreError::during(READING))?;
            let place = tables::place_from_key(key.value()).ok_or_else(damaged_key)?;
            Ok((place, decode(stored.value())?))
        });
        rows.collect()
    }

    fn referring(&self, key: &RecordKey) -> Result<Vec<(OpPlace, bool)>, StoreError> {
        let Some(table) = self.snapshot.table(Which::References)? else { return Ok(Vec::new()) };
        let from = tables::history_prefix(key);
        let to = tables::after_prefix(&from).unwrap_or_default();
        let rows = table.range(from.as_slice()..to.as_slice());
        let rows = rows.map_err(StoreError::during(READING))?.map(|row| {
            let (key, how) = row.map_err(StoreError::during(READING))?;
            let at = tables::of_record_from_key(key.value()).ok_or_else(damaged_key)?;
            Ok((OpPlace { seq: at.1, index: at.2 }, how.value() == [LEADS_AWAY]))
        });
        rows.collect()
    }

    /// Finds an op in the log. The entries are in the order of their times, unless the clock was
    /// set back, and an op's id has the time of its entry.
    fn written(&self, op: &OpId) -> Result<Option<(OpPlace, RecordKey)>, StoreError> {
        let log = self.snapshot.log()?;
        // No op that is pending was trimmed, and behind what was there are no gaps.
        let trimmed = self.snapshot.state()?.trimmed.unwrap_or(Seq::ZERO);
        let (mut from, mut to) = (trimmed.next(), self.snapshot.last_seq()?.next());
        let (after_all, made_at) = (to, time_in(op));
        while from < to {
            let middle = Seq::new(from.number().saturating_add(to.since(from) / 2));
            let is_before = log.existing(middle)?.header.wall < made_at;
            if is_before {
                from = middle.next();
            } else {
                to = middle;
            }
        }
        while from < after_all {
            let entry = log.existing(from)?;
            if entry.header.wall != made_at {
                break;
            }
            if let Some(found) = op_in(&entry, op) {
                return Ok(Some(found));
            }
            from = from.next();
        }
        Ok(None)
    }

    fn place_of(&self, op: &OpId) -> Result<Option<OpPlace>, StoreError> {
        let dead = self.snapshot.row::<DeadLetterRow>(Which::DeadLetters, &tables::op_key(op))?;
        if let Some(dead) = dead {
            return Ok(Some(dead.op.place));
        }
        if let Some((place, key)) = self.written(op)? {
            let pending = self.snapshot.pending_at(&key, place)?;
            return Ok(pending.filter(|pending| pending.op == *op).map(|_| place));
        }
        let mut from = OpPlace::default();
        loop {
            let rows = self.range(from, ROWS_AT_ONCE)?;
            if let Some((place, _)) = rows.iter().find(|(_, row)| row.op == *op) {
                return Ok(Some(*place));
            }
            let Some((last, _)) = rows.last() else { return Ok(None) };
            from = last.next();
        }
    }
}

/// Checks that all of the tail could be read that a question asked for. Otherwise its answer is of
/// no use.
///
/// # Errors
/// [`StoreError`] if something could not be read.
pub fn sound(tail: &Tail) -> Result<(), StoreError> {
    let Some(fault) = tail.fault() else { return Ok(()) };
    let fault = fault.downcast::<StoreError>();
    Err(fault.map_or_else(|source| StoreError::Disk { during: READING, source }, |fault| *fault))
}

/// Returns the time in an op's id (a UUIDv7).
fn time_in(op: &OpId) -> WallTime {
    let bytes = op.as_bytes().iter().take(6);
    WallTime::from_milliseconds(bytes.fold(0, |time, byte| time << 8 | i64::from(*byte)))
}

/// Returns the place and the record of an op in an entry.
fn op_in(entry: &Entry, op: &OpId) -> Option<(OpPlace, RecordKey)> {
    let Meta::Intent(intent) = &entry.meta else { return None };
    let (index, meta) = (0..).zip(&intent.ops).find(|(_, meta)| meta.id == *op)?;
    Some((OpPlace { seq: entry.header.seq, index }, meta.key.clone()))
}

impl StoredTail for TailOnDisk {
    fn op(&self, place: OpPlace) -> Result<Option<TailRow>, TailFault> {
        Ok(self.snapshot.row(Which::Tail, &tables::place_key(place))?)
    }

    fn ops_from(&self, place: OpPlace, most: usize) -> Result<Vec<(OpPlace, TailRow)>, TailFault> {
        Ok(self.range(place, most)?)
    }

    fn ops_of_entry(&self, seq: Seq) -> Result<Vec<(OpPlace, TailRow)>, TailFault> {
        let (mut ops, mut from) = (Vec::new(), OpPlace { seq, index: 0 });
        loop {
            // Most entries have one op.
            let rows = self.range(from, if from.index == 0 { 2 } else { ROWS_AT_ONCE })?;
            let Some((last, _)) = rows.last() else { return Ok(ops) };
            (from, ops) = (last.next(), grown(ops, rows));
            if from.seq != seq {
                ops.retain(|(place, _)| place.seq == seq);
                return Ok(ops);
            }
        }
    }

    fn ops_of(&self, key: &RecordKey) -> Result<Vec<(OpPlace, bool)>, TailFault> {
        let ops = self.snapshot.pending(key)?.into_iter();
        Ok(ops.map(|pending| (pending.place, pending.dead)).collect())
    }

    fn referring(&self, key: &RecordKey) -> Result<Vec<(OpPlace, bool)>, TailFault> {
        Ok(Self::referring(self, key)?)
    }

    fn has_references(&self) -> Result<bool, TailFault> {
        let Some(table) = self.snapshot.table(Which::References)? else { return Ok(false) };
        Ok(!table.is_empty().map_err(StoreError::during(READING))?)
    }

    fn place_of(&self, op: &OpId) -> Result<Option<OpPlace>, TailFault> {
        Ok(Self::place_of(self, op)?)
    }

    fn dead_letters(&self) -> Result<u64, TailFault> {
        Ok(self.snapshot.count(Which::DeadLetters)?)
    }
}

fn grown<T>(mut all: Vec<T>, more: Vec<T>) -> Vec<T> {
    all.extend(more);
    all
}

impl fmt::Debug for TailOnDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TailOnDisk")
    }
}

const READING: &str = "reading the tail";
/// The number of rows that are read together.
const ROWS_AT_ONCE: usize = 256;
