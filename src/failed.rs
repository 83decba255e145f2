//! The ops that no sync moves, for a screen of failed items: what, why, what waits for it, and what
//! a person can do.
//!
//! ```
//! use fieldbook::sync::UserAction;
//! use fieldbook::{Book, BookOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! let mut after = None;
//! loop {
//!     let page = book.failed().page(after, 50)?;
//!     for item in &page.items {
//!         println!("{}: {} ({} wait for it)", item.key, item.op.in_words(), item.dependants.len());
//!         if item.op.actions.contains(&UserAction::Retry) {
//!             book.dead_letters().retry(vec![item.op.op])?;
//!         }
//!     }
//!     after = page.next;
//!     if after.is_none() {
//!         break;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `rules::failed` decides; this module reads its input.
//!
//! What it is not: the queue. An op that waits for a time, a network or another op is not in it.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::record::TailOp;
use fieldbook_core::rules::explain::{ExplainedOp, op};
use fieldbook_core::rules::failed::{Waiting, has_failed, waits_for};
use fieldbook_core::tail::Tail;
use fieldbook_core::{Actor, FieldsJson, OpId, OpKind, OpPlace, RecordKey, UnitId, limits};
use fieldbook_projections::{LogView, Rows, Snapshot, sound};
use serde::Serialize;

use crate::book::{Book, Shared};
use crate::error::Error;
use crate::read::Page;
use crate::status::with_known;

/// An op that no sync moves.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FailedOp {
    /// The record of the op.
    pub key: RecordKey,
    /// The op, its state with the reason, whom or what it waits for, and what a person can do
    /// about it.
    #[serde(flatten)]
    pub op: ExplainedOp,
    /// What is left of it to send: an image for a create or a replace, a patch for an update;
    /// `None` for a delete.
    pub fields: Option<FieldsJson>,
    /// The ops that wait for it, at most [`DEPENDANTS`](limits::DEPENDANTS), oldest first.
    pub dependants: Vec<Dependant>,
    /// Whether more ops than these may wait for it.
    pub more_dependants: bool,
}

/// An op that waits for a failed one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Dependant {
    /// The record of the op.
    pub key: RecordKey,
    /// The id of the op.
    pub op: OpId,
    /// The place of the op in the log.
    pub place: OpPlace,
}

/// The ops that no sync moves: [`Book::failed`].
#[derive(Debug, Clone)]
pub struct Failed<'b> {
    book: &'b Book,
    made_by: Option<Actor>,
}

impl Book {
    /// Returns the ops that no sync moves: the server refused them, or they are held or parked
    /// until somebody does something.
    pub const fn failed(&self) -> Failed<'_> {
        Failed { book: self, made_by: None }
    }
}

impl<'b> Failed<'b> {
    pub(crate) const fn book(&self) -> &'b Book {
        self.book
    }

    /// Looks only at the ops of one user: those of somebody who is gone, for example.
    #[must_use]
    pub fn of(self, actor: Actor) -> Self {
        Self { made_by: Some(actor), ..self }
    }

    /// Returns failed ops in the order in which they were made, at most `limit` of them, after a
    /// place if it is given.
    ///
    /// A page looks at no more than [`FAILED_LOOKED_AT`](limits::FAILED_LOOKED_AT) pending ops, so
    /// it may have fewer ops than `limit`, or none, and still have a next page.
    ///
    /// # Errors
    /// [`Error::Store`] if the book cannot be read.
    pub fn page(
        &self,
        after: Option<OpPlace>,
        limit: usize,
    ) -> Result<Page<FailedOp, OpPlace>, Error> {
        let (tail, snapshot) = self.book.shared.tail_and_snapshot()?;
        let user = self.book.actor();
        let mut looking = Looking::new(&self.book.shared, &tail, &snapshot);
        let mut page = Page { items: Vec::new(), next: None };
        let from = after.map_or_else(OpPlace::default, |after| OpPlace {
            index: after.index.saturating_add(1),
            ..after
        });
        let (mut last, mut looked_at) = (after, 0);
        for (place, row) in tail.ops_from(from) {
            if page.items.len() == limit || looked_at == limits::FAILED_LOOKED_AT {
                page.next = last;
                break;
            }
            (last, looked_at) = (Some(place), looked_at + 1);
            if self.made_by.as_ref().is_some_and(|actor| *actor != row.actor) {
                continue;
            }
            let Some(found) = looking.explained(&row.key, place)? else { continue };
            if has_failed(&found.state, &row.actor, &user) {
                page.items.push(looking.failed(row.key.clone(), found)?);
            }
        }
        sound(&tail)?;
        Ok(page)
    }
}

/// The states of the records that a page looks at, each read once.
struct Looking<'a> {
    shared: &'a Shared,
    tail: &'a Tail,
    snapshot: &'a Snapshot,
    sending: BTreeSet<UnitId>,
    records: BTreeMap<RecordKey, BTreeMap<OpPlace, ExplainedOp>>,
}

impl<'a> Looking<'a> {
    fn new(shared: &'a Shared, tail: &'a Tail, snapshot: &'a Snapshot) -> Self {
        Self { shared, tail, snapshot, sending: shared.sending(), records: BTreeMap::new() }
    }

    /// Explains an op of a record.
    fn explained(&mut self, key: &RecordKey, place: OpPlace) -> Result<Option<ExplainedOp>, Error> {
        if !self.records.contains_key(key) {
            let explained = self.record(key)?;
            self.records.insert(key.clone(), explained);
        }
        Ok(self.records.get(key).and_then(|ops| ops.get(&place)).cloned())
    }

    fn record(&self, key: &RecordKey) -> Result<BTreeMap<OpPlace, ExplainedOp>, Error> {
        let holds = self.shared.plan_record(self.tail, key).holds;
        with_known(self.snapshot, self.tail, &self.sending, [key], &holds, |known| {
            let rows = self.tail.ops_of(key).filter_map(|at| Some((at, self.tail.op(at)?)));
            rows.map(|(at, row)| (at, op(known, at, row))).collect()
        })
    }

    fn failed(&mut self, key: RecordKey, found: ExplainedOp) -> Result<FailedOp, Error> {
        let record = Rows::record(self.snapshot, &key)?.unwrap_or_default();
        let pending = record.tail.into_iter().find(|pending| pending.place == found.place);
        let fields = match pending {
            Some(pending) => {
                let content = self.snapshot.log()?.op(pending.place)?;
                let op = TailOp::new(pending, content).map_err(Error::damaged)?;
                (op.kind != OpKind::Delete).then(|| op.named.to_json())
            }
            None => None,
        };
        let (dependants, more_dependants) = self.dependants(&key, &found)?;
        Ok(FailedOp { key, op: found, fields, dependants, more_dependants })
    }

    /// Returns the ops that wait for an op: of its record, of its transaction, and of records that
    /// refer to its record.
    fn dependants(
        &mut self,
        key: &RecordKey,
        of: &ExplainedOp,
    ) -> Result<(Vec<Dependant>, bool), Error> {
        let tail = self.tail;
        let of_record = tail.ops_of(key).filter_map(|at| Some((at, tail.op(at)?)));
        let of_entry = tail.ops_of_entry(of.place.seq);
        let candidates = of_record.chain(of_entry).chain(tail.referrers(key));
        let mut found = BTreeMap::new();
        for (looked_at, (place, row)) in candidates.enumerate() {
            if looked_at == limits::DEPENDANTS_LOOKED_AT || found.len() == limits::DEPENDANTS {
                return Ok((found.into_values().collect(), true));
            }
            let Some(other) = self.explained(&row.key, place)? else { continue };
            let waiting =
                Waiting { state: &other.state, place, key: &row.key, made_by: &row.actor };
            if waits_for(waiting, of.place, key, &of.actor) {
                found.insert(place, Dependant { key: row.key.clone(), op: row.op, place });
            }
        }
        Ok((found.into_values().collect(), false))
    }
}
