//! Walks through the log: the tables after each entry, and what the entry made of the records.
//!
//! Invariants:
//! 1. After each entry the tables are what a fold of the log up to it has.
//! 2. The whole log is folded once, so a walk costs what one rebuild in memory does, and the images
//!    of the records that each entry touches.
//!
//! What it does not do: say in which state a record is. That is a question for the rules.

use fieldbook_core::entry::Entry;
use fieldbook_core::log::StoreError;
use fieldbook_core::record::Effect;
use fieldbook_core::tail::Tail;
use fieldbook_core::{Schema, Seq};

use super::Past;
use super::erasures::Erasures;
use super::follow::{add_after, before, leave_out_erased};
use crate::apply::apply;
use crate::effects::Effects;
use crate::log_view::LogView;
use crate::memory::MemoryTables;
use crate::read::Snapshot;
use crate::touched::{Touched, touched};

/// One entry of a walk.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// What the entry touches.
    pub touched: &'a Touched,
    /// What the entry made of the records that it touches.
    pub effects: &'a [Effect],
    /// What it made of all other records, if it can change every record: another server was
    /// accepted, or read to its end.
    pub others: &'a [Effect],
    /// The tables after the entry.
    pub past: &'a Past,
}

/// Passes every entry up to a place to `tell`, oldest first, with the tables after it.
///
/// # Errors
/// [`StoreError`] if an entry cannot be read; the error of `tell`.
pub fn walk<E: From<StoreError>>(
    snapshot: &Snapshot,
    schema: &Schema,
    upto: Seq,
    mut tell: impl FnMut(Step<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let (log, erasures) = (snapshot.log()?, Erasures::of(snapshot)?);
    let upto = upto.min(snapshot.last_seq()?);
    let mut past = Past {
        upto: Seq::ZERO,
        folded: None,
        tables: MemoryTables::default(),
        tail: Tail::of(Vec::new()),
    };
    let mut changed = Effects::default();
    let mut next = log.next_place(Seq::ZERO)?;
    while let Some(seq) = next.filter(|seq| *seq <= upto) {
        next = log.next_place(seq.next())?;
        let entry = log.existing(seq)?;
        let touched = touched(&entry, &log)?;
        let mut effects: Vec<_> =
            touched.keys.iter().map(|key| before(&past.tables, key.clone())).collect();
        let mut others = if touched.all { others(&past, &touched) } else { Vec::new() };
        apply(&mut past.tables, &log, schema, &entry, &mut changed)?;
        changed.tail.drain(..).for_each(|effect| effect.apply_to(&mut past.tail));
        changed.records.clear();
        past.tail.set_followed(seq);
        past.upto = seq;
        let all = effects.iter_mut().chain(&mut others);
        all.for_each(|effect| {
            add_after(&past.tables, effect);
            leave_out_erased(effect, &erasures, seq);
        });
        let step = Step {
            entry: &entry,
            touched: &touched,
            effects: &effects,
            others: &others,
            past: &past,
        };
        tell(step)?;
    }
    Ok(())
}

/// Returns the images of all records that an entry does not name, in the order of their keys.
fn others(past: &Past, touched: &Touched) -> Vec<Effect> {
    let mut keys: Vec<_> =
        past.tables.records.keys().filter(|key| touched.keys.binary_search(key).is_err()).collect();
    keys.sort();
    keys.into_iter().map(|key| before(&past.tables, key.clone())).collect()
}
