//! Follows records through their entries: what each entry made of them.
//!
//! Invariants:
//! 1. An image before an entry is what a fold of the log before it has; none if its values were
//!    erased since.

use std::collections::BTreeSet;

use fieldbook_core::entry::Entry;
use fieldbook_core::log::StoreError;
use fieldbook_core::record::{Change, Effect};
use fieldbook_core::rows::RecordRow;
use fieldbook_core::{RecordKey, Schema, Seq};

use super::erasures::Erasures;
use super::seqs::{history_of, seqs_of};
use crate::effects::Effects;
use crate::log_view::LogView;
use crate::memory::MemoryTables;
use crate::read::Snapshot;
use crate::rebuild::Rebuilt;
use crate::touched::touched;

/// Passes every entry of a record up to a place to `tell`, oldest first, with what it made of the
/// record. Only the record's own entries are folded, and those about the book as a whole.
///
/// # Errors
/// [`StoreError`] if an entry cannot be read.
pub fn follow_record(
    snapshot: &Snapshot,
    schema: &Schema,
    key: &RecordKey,
    upto: Seq,
    tell: impl FnMut(&Entry, &[Effect]),
) -> Result<(), StoreError> {
    let keys = BTreeSet::from([key.clone()]);
    let own: BTreeSet<Seq> = history_of(snapshot, key)?.into_iter().collect();
    let seqs = seqs_of(snapshot, &keys, upto)?;
    follow(snapshot, schema, keys, &seqs, |seq| own.contains(&seq), tell)
}

/// Passes every entry of a range to `tell`, oldest first, with what it made of the records that it
/// touched. These records are folded from their own entries before the range.
///
/// # Errors
/// [`StoreError`] if an entry cannot be read.
pub fn follow_range(
    snapshot: &Snapshot,
    schema: &Schema,
    from: Seq,
    upto: Seq,
    tell: impl FnMut(&Entry, &[Effect]),
) -> Result<(), StoreError> {
    let upto = upto.min(snapshot.last_seq()?);
    let (log, mut keys, mut range) = (snapshot.log()?, BTreeSet::new(), BTreeSet::new());
    let mut next = log.next_place(from)?;
    while let Some(seq) = next.filter(|seq| *seq <= upto) {
        keys.extend(touched(&*log.existing(seq)?, &log)?.keys);
        range.insert(seq);
        next = log.next_place(seq.next())?;
    }
    let before = Seq::new(from.number().saturating_sub(1));
    let mut seqs = seqs_of(snapshot, &keys, before)?;
    seqs.extend(range);
    follow(snapshot, schema, keys, &seqs, |seq| seq >= from, tell)
}

fn follow(
    snapshot: &Snapshot,
    schema: &Schema,
    keys: BTreeSet<RecordKey>,
    seqs: &BTreeSet<Seq>,
    is_told: impl Fn(Seq) -> bool,
    mut tell: impl FnMut(&Entry, &[Effect]),
) -> Result<(), StoreError> {
    let (log, erasures) = (snapshot.log()?, Erasures::of(snapshot)?);
    let (mut rebuilt, mut effects) = (Rebuilt::only(keys.clone()), Effects::default());
    for seq in seqs {
        let entry = log.existing(*seq)?;
        if !is_told(*seq) {
            rebuilt.take(&log, schema, &entry, &mut effects)?;
            continue;
        }
        let concerned = touched(&entry, &log)?.keys.into_iter().filter(|key| keys.contains(key));
        let mut changed: Vec<_> = concerned.map(|key| before(rebuilt.tables(), key)).collect();
        rebuilt.take(&log, schema, &entry, &mut effects)?;
        changed.iter_mut().for_each(|effect| add_after(rebuilt.tables(), effect));
        changed.iter_mut().for_each(|effect| leave_out_erased(effect, &erasures, *seq));
        tell(&entry, &changed);
    }
    Ok(())
}

/// Returns the images of a record before an entry.
pub(super) fn before(tables: &MemoryTables, key: RecordKey) -> Effect {
    let (seen, confirmed) = images(tables.records.get(&key));
    Effect {
        key,
        seen: Change { before: seen, after: None },
        confirmed: Change { before: confirmed, after: None },
    }
}

/// Adds the images of the record after the entry.
pub(super) fn add_after(tables: &MemoryTables, effect: &mut Effect) {
    (effect.seen.after, effect.confirmed.after) = images(tables.records.get(&effect.key));
}

/// Leaves out images whose values were erased: there is nothing to show.
pub(super) fn leave_out_erased(effect: &mut Effect, erasures: &Erasures, seq: Seq) {
    let nothing = || Change { before: None, after: None };
    let before = Seq::new(seq.number().saturating_sub(1));
    if erasures.of_record(&effect.key, before).is_some() {
        (effect.seen, effect.confirmed) = (nothing(), nothing());
    }
}

type Image = Option<fieldbook_core::FieldsJson>;

/// Returns what the app reads of a record, and what the server confirmed.
fn images(row: Option<&RecordRow>) -> (Image, Image) {
    let row = row.map(|row| (row.image().cloned(), row.confirmed_image().cloned()));
    row.unwrap_or_default()
}
