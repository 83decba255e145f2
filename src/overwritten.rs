//! Notices about values of this device that somebody else replaced at the server.
//!
//! A conflict is on record at the device whose value met another one while it waited. The device
//! whose value was at the server already learns it here: from its own log, from a place on.
//!
//! Invariants:
//! 1. The cost follows the entries after that place and the records in them that this device wrote.
//! 2. Asking changes nothing: the app remembers how far it has asked.
//!
//! What it does not know: whether the other author had read the value.
//! [`Audit::authors_of`](crate::audit::Audit::authors_of) says who that is, if the server does.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::{Meta, Upstream};
use fieldbook_core::record::Registers;
use fieldbook_core::rules::overwritten::{Replaced, overwritten};
use fieldbook_core::{Actor, OpId, RecordKey, Schema, Seq, Version, WallTime, limits};
use fieldbook_projections::{Erasures, LogView, Past, Snapshot, history_of};
use serde::Serialize;
use serde_json::Value;

use crate::decisions::Conflicts;
use crate::error::Error;

/// A value of this device that somebody else replaced.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Overwritten {
    /// The record.
    pub key: RecordKey,
    /// The field; `None` if the record was deleted.
    pub field: Option<String>,
    /// The value that this device had written; null if the record was deleted.
    pub local: Value,
    /// The op of this device.
    pub op: OpId,
    /// The user of this device who made that op.
    pub actor: Actor,
    /// When the value was edited here.
    pub edited_at: WallTime,
    /// The value that replaced it; null if the field was removed, or the record deleted.
    pub remote: Value,
    /// The op that replaced it, of another device.
    pub remote_op: OpId,
    /// When that op was made, by the clock of its device.
    pub remote_edited_at: WallTime,
    /// The version that the record had then.
    pub version: Version,
    /// The entry with the server's answer. If the server says who made its changes,
    /// [`Audit::authors_of`](crate::audit::Audit::authors_of) has it for this entry.
    pub entry: Seq,
    /// When that answer arrived, by this device's clock.
    pub at: WallTime,
}

/// A part of the notices: [`Conflicts::overwritten`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Overwrites {
    /// The notices, oldest first.
    pub items: Vec<Overwritten>,
    /// The entry up to which the log was looked at. Pass it to the next call, now or later.
    pub upto: Seq,
    /// Whether the log goes on after it.
    pub more: bool,
}

impl Conflicts<'_> {
    /// Returns the values of this device that somebody else replaced at the server, in the entries
    /// after `after`. A value that still waited when it met another one is a conflict instead.
    ///
    /// A call looks at no more than [`OVERWRITTEN_LOOKED_AT`](limits::OVERWRITTEN_LOOKED_AT)
    /// entries, and ends after the entry that reaches `limit` notices. The app keeps
    /// [`upto`](Overwrites::upto), and asks from there when a commit has changed something
    /// ([`Book::watch`](crate::Book::watch)).
    ///
    /// ```
    /// use fieldbook::audit::Seq;
    /// # use fieldbook::{Book, BookOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
    /// let mut seen = Seq::ZERO; // the app remembers it
    /// let part = book.conflicts().overwritten(seen, 20)?;
    /// for notice in &part.items {
    ///     let field = notice.field.as_deref().unwrap_or("the record");
    ///     println!("{} of {}: {} is {} now", field, notice.key, notice.local, notice.remote);
    /// }
    /// seen = part.upto;
    /// # assert!(!part.more && seen > Seq::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`] if an entry or a record cannot be read.
    pub fn overwritten(&self, after: Seq, limit: usize) -> Result<Overwrites, Error> {
        let book = self.book();
        if !book.shared.store.is_read_only() {
            book.audit().fold_lazy()?;
        }
        let snapshot = book.shared.snapshot()?;
        let last = snapshot.last_seq()?;
        let log = snapshot.log()?;
        let schema = &book.shared.schema;
        let erasures = Erasures::of(&snapshot)?;
        let mut looking =
            Looking { snapshot: &snapshot, log: &log, schema, erasures, own: BTreeMap::new() };
        let mut found = Overwrites { items: Vec::new(), upto: after.min(last), more: false };
        let mut next = log.next_place(after.next())?;
        for _ in 0..limits::OVERWRITTEN_LOOKED_AT {
            let Some(seq) = next.filter(|_| found.items.len() < limit) else { break };
            next = log.next_place(seq.next())?;
            let entry = log.existing(seq)?;
            if let Meta::Upstream(upstream) = &entry.meta {
                found.items.extend(looking.in_answer((seq, entry.header.wall), upstream)?);
            }
            found.upto = seq;
        }
        found.more = found.upto < last;
        Ok(found)
    }
}

/// Looks at the answers of the server. The records of an answer share the entries that are read for
/// them.
struct Looking<'s, L> {
    snapshot: &'s Snapshot,
    log: &'s L,
    schema: &'s Schema,
    /// What was erased is not a value that somebody replaced.
    erasures: Erasures,
    /// The ops of this device, by record, each with its user.
    own: BTreeMap<RecordKey, BTreeMap<OpId, Actor>>,
}

impl<L: LogView> Looking<'_, L> {
    /// Returns the values that an answer replaced.
    fn in_answer(
        &mut self,
        (seq, at): (Seq, WallTime),
        upstream: &Upstream,
    ) -> Result<Vec<Overwritten>, Error> {
        let changes = || upstream.changes.iter().filter(|change| !change.undeclared);
        self.find_own(changes().map(|change| &change.key))?;
        let is_own = |key: &&RecordKey| self.own.get(*key).is_some_and(|own| !own.is_empty());
        let is_there = |key: &&RecordKey| self.erasures.of_record(key, seq).is_none();
        let keys: BTreeSet<_> =
            changes().map(|change| &change.key).filter(is_own).filter(is_there).cloned().collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let before = self.confirmed(&keys, Seq::new(seq.number().saturating_sub(1)))?;
        let after = self.confirmed(&keys, seq)?;
        let (nothing, mut found) = (Registers::default(), Vec::new());
        for change in changes() {
            let key = &change.key;
            let Some(own) = self.own.get(key).filter(|_| keys.contains(key)) else { continue };
            let (before, after) = (before.get(key), after.get(key));
            let (before, after) = (before.unwrap_or(&nothing), after.unwrap_or(&nothing));
            for replaced in overwritten(before, after, |op| own.contains_key(op)) {
                let Replaced { field, local, local_stamp, remote, remote_stamp } = replaced;
                let Some(actor) = own.get(&local_stamp.op) else { continue };
                found.push(Overwritten {
                    key: key.clone(),
                    field,
                    local,
                    op: local_stamp.op,
                    actor: actor.clone(),
                    edited_at: local_stamp.edited_at.wall(),
                    remote,
                    remote_op: remote_stamp.op,
                    remote_edited_at: remote_stamp.edited_at.wall(),
                    version: change.version,
                    entry: seq,
                    at,
                });
            }
        }
        Ok(found)
    }

    /// Reads the ops that this device made on records, unless they are known.
    fn find_own<'k>(&mut self, keys: impl Iterator<Item = &'k RecordKey>) -> Result<(), Error> {
        let mut new: BTreeMap<RecordKey, BTreeMap<_, _>> = BTreeMap::new();
        let mut seqs = BTreeSet::new();
        for key in keys.filter(|key| !self.own.contains_key(*key)) {
            seqs.extend(history_of(self.snapshot, key)?);
            new.entry(key.clone()).or_default();
        }
        for seq in seqs {
            let entry = self.log.existing(seq)?;
            let Meta::Intent(intent) = &entry.meta else { continue };
            for op in &intent.ops {
                if let Some(own) = new.get_mut(&op.key) {
                    own.insert(op.id, entry.header.actor.clone());
                }
            }
        }
        self.own.append(&mut new);
        Ok(())
    }

    /// Returns the records as the server had confirmed them after an entry.
    fn confirmed(
        &self,
        keys: &BTreeSet<RecordKey>,
        upto: Seq,
    ) -> Result<BTreeMap<RecordKey, Registers>, Error> {
        let rows = Past::rows(self.snapshot, self.schema, keys, upto)?.into_iter();
        rows.map(|(key, row)| Ok((key, row.registers().map_err(Error::damaged)?))).collect()
    }
}
