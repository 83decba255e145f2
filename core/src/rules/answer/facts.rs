//! The rows of an answer, as the entry keeps them.
//!
//! Invariants:
//! 1. A known row of a record that needs no rebase is not recorded.
//! 2. A row of an entity type that is not declared is recorded as undeclared, and not folded.
//!
//! What it does not do: decide what follows.

use std::collections::BTreeMap;

use super::grown::outgrows;
use crate::entry::{ChangeMeta, Extent, Items};
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::protocol::Change;
use crate::random::Randomness;
use crate::rules::View;
use crate::schema::Schema;

/// The rows of an answer that are taken.
#[derive(Default)]
pub(super) struct Rows<'a> {
    /// The changes that are recorded.
    pub(super) changes: Vec<ChangeMeta>,
    /// The rows of records that may need a rebase.
    pub(super) changed: BTreeMap<RecordKey, Vec<&'a Change>>,
    /// Rows that would make a record too large.
    pub(super) too_large: Vec<&'a Change>,
    /// The number of rows with a version that was not known.
    pub(super) news: u32,
}

/// Takes the rows of an answer. A version of a record is taken once, though a page and an outcome
/// may both have it. `sizes` has the sizes that records get by parts of them, if the answer has
/// parts.
pub(super) fn rows<'a, V: View>(
    view: &mut V,
    schema: &Schema,
    rows: impl Iterator<Item = &'a Change>,
    mut sizes: Option<BTreeMap<RecordKey, usize>>,
    items: &mut Items,
    random: &mut dyn Randomness,
) -> Result<Rows<'a>, V::Error> {
    let mut taken = Rows::default();
    for row in rows {
        let key = &row.key;
        let mut changed = taken.changed.get(key).into_iter().flatten();
        if changed.any(|known| known.version == row.version) {
            continue;
        }
        let undeclared = schema.rules(&key.entity).is_none();
        let version = view.confirmed_version(key)?;
        let is_news = version.is_none_or(|known| row.version > known);
        let needs_rebase = !undeclared && view.may_need_rebase(key)?;
        // A record of a former server has version 0. A row of version 0 is still news for it: the
        // accepted server never had the record.
        let is_known = !is_news && version != Some(Version::default());
        if is_known && !undeclared && !needs_rebase {
            continue;
        }
        if let Some(sizes) = &mut sizes
            && outgrows(view, sizes, row)?
        {
            taken.too_large.push(row);
            continue;
        }
        taken.changes.push(recorded(row, undeclared, items, random));
        taken.news += u32::from(is_news);
        if needs_rebase {
            taken.changed.entry(key.clone()).or_default().push(row);
        }
    }
    Ok(taken)
}

fn recorded(
    change: &Change,
    undeclared: bool,
    items: &mut Items,
    random: &mut dyn Randomness,
) -> ChangeMeta {
    let extent = match (change.deleted, change.partial) {
        (true, _) => Extent::Deleted,
        (false, true) => Extent::Partial,
        (false, false) => Extent::Whole,
    };
    let fields = change.fields.clone().unwrap_or_default();
    ChangeMeta {
        key: change.key.clone(),
        version: change.version,
        extent,
        edited_at: change.edited_at,
        op: change.op,
        older: change.older.clone(),
        floor: change.floor,
        fields: (extent != Extent::Deleted).then(|| items.add_fields(&fields, random)),
        undeclared,
    }
}
