//! The state row and the cursors as they were after an entry: folded from the entries about the
//! book as a whole, and from the last answers that said something of them.

use std::collections::BTreeSet;

use fieldbook_core::entry::frame::Frame;
use fieldbook_core::entry::{EntryKind, Meta};
use fieldbook_core::log::StoreError;
use fieldbook_core::{EntityType, Schema, Seq};

use super::fold_only;
use super::seqs::seqs_of;
use crate::log_view::LogView;
use crate::memory::MemoryTables;
use crate::read::Snapshot;

/// Sets the state row and the cursors of folded tables. `known` are entries that include those
/// about the book: without a folded history they are used, so that the log is not searched again.
pub(super) fn take_over(
    tables: &mut MemoryTables,
    snapshot: &Snapshot,
    schema: &Schema,
    upto: Seq,
    known: BTreeSet<Seq>,
) -> Result<(), StoreError> {
    let nothing = BTreeSet::new();
    let is_folded = snapshot.state()?.history_folded >= upto;
    let mut seqs = if is_folded { seqs_of(snapshot, &nothing, upto)? } else { known };
    seqs.extend(last_answers(snapshot, upto)?);
    let (of_book, _) = fold_only(snapshot, schema, nothing, &seqs)?;
    (tables.state, tables.cursors) = (of_book.state, of_book.cursors);
    Ok(())
}

/// Returns the last answer up to a place, the last one with a receipt, and for each entity type the
/// last one that moved its cursor. The log is read backwards until all are found.
fn last_answers(snapshot: &Snapshot, upto: Seq) -> Result<BTreeSet<Seq>, StoreError> {
    let state = snapshot.state()?;
    let mut seqs = BTreeSet::new();
    if state.synced_at.is_none() {
        // No server ever answered.
        return Ok(seqs);
    }
    let (table, log) = (snapshot.entries()?, snapshot.log()?);
    let present = snapshot.cursors()?.into_iter().map(|(entity, _)| entity);
    let mut wanted: BTreeSet<EntityType> = present.collect();
    // A later epoch, or another server, forgot the receipts before it.
    let forgot = state.epoch_from > Seq::ZERO.next() || state.had_other_server;
    let mut has_receipt = state.anchor.is_none() && !forgot;
    let rows = table.range(..=upto.number()).map_err(StoreError::during(READING))?;
    for row in rows.rev() {
        let (key, stored) = row.map_err(StoreError::during(READING))?;
        if Frame::kind_of(stored.value()) != Some(EntryKind::Upstream) {
            continue;
        }
        let seq = Seq::new(key.value());
        let entry = log.existing(seq)?;
        let Meta::Upstream(upstream) = &entry.meta else { continue };
        let moved = upstream.cursors.iter().filter(|(entity, _)| wanted.remove(entity)).count();
        let confirms = !has_receipt && upstream.receipt.is_some();
        if seqs.is_empty() || moved > 0 || confirms {
            seqs.insert(seq);
        }
        has_receipt |= confirms;
        if wanted.is_empty() && has_receipt {
            break;
        }
    }
    Ok(seqs)
}

const READING: &str = "reading the last answers";
