//! The rows of an answer, as the entry keeps them.
//!
//! Invariants:
//! 1. A row that is known, of a record that needs no rebase, leaves nothing behind.
//! 2. A row of an entity type that nobody declared is kept aside, and not folded.
//!
//! What it is not: what follows.

use std::collections::BTreeMap;

use super::grown::outgrows;
use crate::entry::{ChangeMeta, Extent, Items};
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::protocol::Change;
use crate::random::Randomness;
use crate::rules::View;
use crate::schema::Schema;

/// The rows of an answer, as far as they are taken.
#[derive(Default)]
pub(super) struct Rows<'a> {
    /// What is recorded.
    pub(super) changes: Vec<ChangeMeta>,
    /// The rows of records that may have a tail.
    pub(super) told: BTreeMap<RecordKey, Vec<&'a Change>>,
    /// Rows that would be too large.
    pub(super) too_large: Vec<&'a Change>,
    /// How many have a version that was not known.
    pub(super) news: u32,
}

/// Takes the rows that the server sent, each version once though a page and an outcome may both bring it. `sizes` says how large
/// records became by parts of them, if there are any.
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
        let mut told = taken.told.get(key).into_iter().flatten();
        if told.any(|known| known.version == row.version) {
            continue;
        }
        let kept_aside = schema.rules(&key.entity).is_none();
        let version = view.confirmed_version(key)?;
        let is_news = version.is_none_or(|known| row.version > known);
        let needs_rebase = !kept_aside && view.may_need_rebase(key)?;
        // Of a record that a former server had, it is news that there never was one.
        let is_known = !is_news && version != Some(Version::default());
        if is_known && !kept_aside && !needs_rebase {
            continue;
        }
        if let Some(sizes) = &mut sizes
            && outgrows(view, sizes, row)?
        {
            taken.too_large.push(row);
            continue;
        }
        taken.changes.push(recorded(row, kept_aside, items, random));
        taken.news += u32::from(is_news);
        if needs_rebase {
            taken.told.entry(key.clone()).or_default().push(row);
        }
    }
    Ok(taken)
}

fn recorded(change: &Change, kept_aside: bool, items: &mut Items, random: &mut dyn Randomness) -> ChangeMeta {
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
        kept_aside,
    }
}
