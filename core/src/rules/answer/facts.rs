//! What an answer says, as the entry that keeps it.
//!
//! Invariants:
//! 1. A row that is known, of a record that needs no rebase, leaves nothing behind.
//! 2. A row of an entity type that nobody declared is kept aside, and not folded.
//!
//! What it is not: what follows.

use std::collections::BTreeMap;

use super::grown::outgrows;
use crate::entry::{ChangeMeta, Extent, ItemIndex, Items, OutcomeMeta, Upstream};
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::protocol::{Change, ExchangeAnswer};
use crate::random::Randomness;
use crate::rules::View;
use crate::schema::Schema;

/// The entry that is being put together.
pub(super) struct Facts {
    pub(super) upstream: Upstream,
    pub(super) items: Items,
}

/// The rows of an answer, as far as they are taken.
#[derive(Default)]
pub(super) struct Rows<'a> {
    /// The rows of records that may have a tail.
    pub(super) told: BTreeMap<RecordKey, Vec<&'a Change>>,
    /// Rows that would be too large.
    pub(super) too_large: Vec<&'a Change>,
    /// How many have a version that was not known.
    pub(super) news: u32,
}

/// What a row of the server is to this book.
enum Told {
    /// It was known.
    Known,
    /// It would be too large.
    TooLarge,
    /// It is recorded.
    New {
        /// Whether its record may have a tail.
        needs_rebase: bool,
        /// Whether its version was not known.
        is_news: bool,
    },
}

impl Facts {
    pub(super) fn of(answer: &ExchangeAnswer) -> Self {
        let cursors = answer.cursors.iter();
        let upstream = Upstream {
            request: answer.request,
            server: answer.server,
            epoch: answer.server_epoch,
            server_time: answer.server_time,
            outcomes: Vec::new(),
            changes: Vec::new(),
            cursors: cursors.map(|(entity, cursor)| (entity.clone(), cursor.clone())).collect(),
            receipt: answer.receipt,
        };
        Self { upstream, items: Items::default() }
    }

    pub(super) fn outcome(&mut self, outcome: OutcomeMeta) {
        self.upstream.outcomes.push(outcome);
    }

    pub(super) fn text(&mut self, text: String, random: &mut dyn Randomness) -> ItemIndex {
        self.items.add(text, random)
    }

    /// Records the rows that the server sent, each version once though a page and an outcome may both bring it.
    pub(super) fn rows<'a, V: View>(
        &mut self,
        view: &mut V,
        schema: &Schema,
        rows: impl Iterator<Item = &'a Change>,
        mut sizes: Option<BTreeMap<RecordKey, usize>>,
        random: &mut dyn Randomness,
    ) -> Result<Rows<'a>, V::Error> {
        let mut taken = Rows::default();
        for row in rows {
            let known = taken.told.get(&row.key).map(Vec::as_slice).unwrap_or_default();
            if known.iter().any(|known| known.version == row.version) {
                continue;
            }
            match self.tell(view, schema, row, sizes.as_mut(), random)? {
                Told::Known => {}
                Told::TooLarge => taken.too_large.push(row),
                Told::New { needs_rebase, is_news } => {
                    taken.news += u32::from(is_news);
                    if needs_rebase {
                        taken.told.entry(row.key.clone()).or_default().push(row);
                    }
                }
            }
        }
        Ok(taken)
    }

    fn tell<V: View>(
        &mut self,
        view: &mut V,
        schema: &Schema,
        change: &Change,
        sizes: Option<&mut BTreeMap<RecordKey, usize>>,
        random: &mut dyn Randomness,
    ) -> Result<Told, V::Error> {
        let kept_aside = schema.rules(&change.key.entity).is_none();
        let version = view.confirmed_version(&change.key)?;
        let is_news = version.is_none_or(|known| change.version > known);
        let needs_rebase = !kept_aside && view.may_need_judging(&change.key)?;
        // Of a record that a former server had, it is news that there never was one.
        let is_known = !is_news && version != Some(Version::default());
        if is_known && !kept_aside && !needs_rebase {
            return Ok(Told::Known);
        }
        if let Some(sizes) = sizes
            && outgrows(view, sizes, change)?
        {
            return Ok(Told::TooLarge);
        }
        let extent = match (change.deleted, change.partial) {
            (true, _) => Extent::Deleted,
            (false, true) => Extent::Partial,
            (false, false) => Extent::Whole,
        };
        let fields = (extent != Extent::Deleted).then(|| {
            let fields = change.fields.clone().unwrap_or_default();
            self.items.add_fields(&fields, random)
        });
        self.upstream.changes.push(ChangeMeta {
            key: change.key.clone(),
            version: change.version,
            extent,
            edited_at: change.edited_at,
            op: change.op,
            older: change.older.clone(),
            floor: change.floor,
            fields,
            kept_aside,
        });
        Ok(Told::New { needs_rebase, is_news })
    }
}
