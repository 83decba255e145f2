//! The tables that may lag behind the log: the tail and the history.
//!
//! Nobody reads them at the moment of an append, so an append does not update them. Each has a mark
//! in the state row, up to which it is folded.
//!
//! Invariants:
//! 1. After the tail's mark the log has intents only: every commit that plans, decides or ends an
//!    op folds the tail. So opening a book reads the table and then only appends of the app, at
//!    most [`limits::LAZY_LAG`] of them.
//! 2. The history's mark only shows how much is left to fold. A reader of a history folds first.
//! 3. The history is folded in parts, each in its own commit, so that a writer waits for one part
//!    and not for the whole log.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::{Control, Decision, Entry, Meta};
use fieldbook_core::limits;
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{StateRow, TailRow, UnitRow};
use fieldbook_core::tail::Tail;
use fieldbook_core::{OpId, OpPlace, RecordKey, Seq, UnitId};
use redb::ReadableTable;

use crate::access::{DiskTables, Tables, encode};
use crate::effects::TailEffect;
use crate::log_view::LogView;
use crate::sorted::{SortedRow, write_sorted};
use crate::tables;
use crate::tables::Which;

/// Returns whether so many entries were appended since the tail was folded that it should be folded
/// now.
pub const fn tail_is_due(state: &StateRow, head: Seq) -> bool {
    head.since(state.tail_folded) >= limits::LAZY_LAG
}

/// Completes the rows of a tail: adds the unanswered units, the dead letters and the parked ops.
pub(crate) fn completed<'r>(
    mut tail: Tail,
    units: impl Iterator<Item = (&'r UnitId, &'r UnitRow)>,
    dead: impl Iterator<Item = OpPlace>,
    parked: impl IntoIterator<Item = (OpId, String)>,
) -> Tail {
    units.for_each(|(id, row)| tail.put_unit(*id, row));
    dead.for_each(|place| tail.set_dead(place, true));
    parked.into_iter().for_each(|(op, code)| tail.set_parked(op, Some(code)));
    tail
}

/// Folds the tail's table up to the head. `tail` is the tail before this transaction. `effects` are
/// the changes of this transaction.
///
/// # Errors
/// [`StoreError`] if a table cannot be read or written.
pub fn fold_tail(
    tables: &mut DiskTables<'_>,
    tail: &Tail,
    effects: &[TailEffect],
    head: Seq,
) -> Result<(), StoreError> {
    let mut state = tables.state()?;
    let mark = state.tail_folded;
    let removed: BTreeSet<OpPlace> = effects
        .iter()
        .filter_map(|effect| match effect {
            TailEffect::Remove(place) => Some(*place),
            _ => None,
        })
        .collect();
    let inserted = effects.iter().filter_map(|effect| match effect {
        TailEffect::Insert(place, row) | TailEffect::Replace(place, row) => Some((*place, row)),
        _ => None,
    });
    let changed =
        tail.ops_after(mark).chain(inserted).filter(|(place, _)| !removed.contains(place));
    // Later changes override earlier ones.
    let (known, fresh): (BTreeMap<_, _>, BTreeMap<_, _>) =
        changed.partition(|(place, _)| place.seq <= mark);
    let rows: Vec<(OpPlace, Vec<u8>)> = fresh
        .into_iter()
        .map(|(place, row)| Ok((place, encode(row)?)))
        .collect::<Result<_, StoreError>>()?;
    let table = tables.which(Which::Tail)?;
    for (place, row) in known {
        let (key, row) = (tables::place_key(place), encode(row)?);
        let replaced = table.insert(key.as_slice(), row.as_slice());
        drop(replaced.map_err(StoreError::during("folding the tail"))?);
    }
    for place in removed.iter().filter(|place| place.seq <= mark) {
        drop(
            table
                .remove(tables::place_key(*place).as_slice())
                .map_err(StoreError::during("folding the tail"))?,
        );
    }
    // Ops after the mark were never in the table.
    let fresh = rows
        .into_iter()
        .map(|(place, row)| Ok(SortedRow::new(tables::place_key(place).to_vec(), row)));
    write_sorted(table, fresh)?;
    state.tail_folded = head;
    tables.put_state(state)
}

/// The number of entries of the history that one commit folds, and the number of rows after which
/// it ends. Each row needs a few microseconds.
const HISTORY_AT_ONCE: usize = 4_096;

/// Folds the next part of the history's table, at most up to the head. The mark shows its progress.
///
/// # Errors
/// [`StoreError`] if a table or the log cannot be read or written.
pub fn fold_history(
    tables: &mut DiskTables<'_>,
    log: &impl LogView,
    head: Seq,
) -> Result<(), StoreError> {
    let mut state = tables.state()?;
    let mut keys = Vec::new();
    for _ in 0..HISTORY_AT_ONCE {
        let seq = state.history_folded.next();
        if seq > head || keys.len() >= HISTORY_AT_ONCE {
            break;
        }
        let entry = log.existing(seq)?;
        keys.extend(touched(&entry, log)?.into_iter().map(|key| tables::history_key(&key, seq)));
        state.history_folded = seq;
    }
    keys.sort_unstable();
    let table = tables.which(Which::History)?;
    // Keys contain the entry, so no key after the mark was ever in the table.
    write_sorted(table, keys.into_iter().map(|key| Ok(SortedRow::new(key, Vec::new()))))?;
    tables.put_state(state)
}

/// Returns the records that an entry changes or names, each once.
///
/// # Errors
/// [`StoreError`] if a plan that the entry names cannot be read.
pub fn touched(entry: &Entry, log: &impl LogView) -> Result<Vec<RecordKey>, StoreError> {
    let mut keys = BTreeSet::new();
    match &entry.meta {
        Meta::Intent(intent) => keys.extend(intent.ops.iter().map(|op| op.key.clone())),
        Meta::Upstream(upstream) => {
            keys.extend(upstream.changes.iter().map(|change| change.key.clone()))
        }
        Meta::Control(Control::Planned(planned)) => {
            keys.extend(
                planned
                    .units
                    .iter()
                    .flat_map(|unit| unit.changes.iter().map(|change| change.key.clone())),
            );
            keys.extend(planned.annulled.iter().map(|annulled| annulled.key.clone()));
        }
        Meta::Control(Control::Decided(decisions) | Control::Verb(_, decisions)) => {
            for decision in decisions {
                keys.extend(keys_of(decision, log)?);
            }
        }
        Meta::Control(Control::Opened(_) | Control::EpochStarted { .. }) => {}
    }
    Ok(keys.into_iter().collect())
}

fn keys_of(decision: &Decision, log: &impl LogView) -> Result<Vec<RecordKey>, StoreError> {
    match decision {
        Decision::Acked { unit, planned, .. }
        | Decision::Tried { unit, planned, .. }
        | Decision::Dissolved { unit, planned }
        | Decision::DeadLettered { unit, planned, .. } => keys_of_unit(unit, *planned, log),
        Decision::Suspected { units, .. } => {
            let each = units.iter().map(|(unit, planned)| keys_of_unit(unit, *planned, log));
            Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
        }
        Decision::Conflicted(conflict) => Ok(vec![conflict.key.clone()]),
        Decision::Superseded { key, .. }
        | Decision::Retried { key, .. }
        | Decision::Discarded { key, .. }
        | Decision::Dropped { key, .. }
        | Decision::Raised { key, .. }
        | Decision::BroughtBack { key, .. }
        | Decision::Upcast { key, .. } => Ok(vec![key.clone()]),
        Decision::Resolved { key, .. } | Decision::TakenIn { key, .. } => Ok(vec![key.clone()]),
        Decision::Annulled(annulled) => Ok(vec![annulled.key.clone()]),
        Decision::Restamped { ops, .. } => {
            Ok(ops.iter().map(|restamp| restamp.key.clone()).collect())
        }
        Decision::Parked { .. }
        | Decision::Unparked { .. }
        | Decision::ServerAccepted { .. }
        | Decision::ServerRead
        | Decision::BelongsTo { .. }
        | Decision::SetAside { .. }
        | Decision::ReadForeign { .. } => Ok(Vec::new()),
    }
}

fn keys_of_unit(
    unit: &UnitId,
    planned: Seq,
    log: &impl LogView,
) -> Result<Vec<RecordKey>, StoreError> {
    let entry = log.existing(planned)?;
    let Meta::Control(Control::Planned(plan)) = &entry.meta else { return Ok(Vec::new()) };
    let found = plan.units.iter().filter(|planned| planned.id == *unit);
    Ok(found.flat_map(|unit| unit.changes.iter().map(|change| change.key.clone())).collect())
}

/// Reads the table of the tail.
pub(crate) fn read_tail(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Vec<(OpPlace, TailRow)>, StoreError> {
    let mut rows = Vec::new();
    for row in table.iter().map_err(StoreError::during("reading the tail"))? {
        let (key, stored) = row.map_err(StoreError::during("reading the tail"))?;
        let place = tables::place_from_key(key.value()).ok_or(StoreError::Corrupt {
            what: "a key of the tail that is folded from the log",
            seq: None,
            source: None,
        })?;
        rows.push((place, crate::access::decode(stored.value())?));
    }
    Ok(rows)
}
