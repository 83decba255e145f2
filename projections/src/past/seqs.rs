//! Finds the entries of some records: by the history, and in the part of the log that the history
//! has not folded yet by a search of its bytes.
//!
//! Invariants:
//! 1. The search finds the entries that the history would have, and perhaps more.
//! 2. An entry is taken apart only if it can concern the records: it is a decision or a plan, or
//!    its bytes have the id of a record.

use std::collections::BTreeSet;
use std::rc::Rc;

use fieldbook_core::entry::frame::Frame;
use fieldbook_core::entry::{Entry, EntryKind};
use fieldbook_core::log::StoreError;
use fieldbook_core::{RecordKey, Seq};
use memchr::memmem::Finder;

use super::erasures::Erasures;
use crate::log_view::LogView;
use crate::read::Snapshot;
use crate::touched::touched;

/// The most records whose ids are searched in the bytes. For more, every entry is taken apart.
const SEARCHED: usize = 8;

/// Returns the entries up to a place that touch any of these records or concern the book as a
/// whole.
///
/// # Errors
/// [`StoreError`] if the history or an entry cannot be read.
pub(super) fn seqs_of(
    snapshot: &Snapshot,
    keys: &BTreeSet<RecordKey>,
    upto: Seq,
) -> Result<BTreeSet<Seq>, StoreError> {
    let mut seqs: BTreeSet<Seq> = snapshot.history_of_book()?.into_iter().collect();
    for key in keys {
        seqs.extend(snapshot.history(key)?);
    }
    seqs.retain(|seq| *seq <= upto);
    seqs.extend(search(snapshot, keys, true, upto)?);
    Ok(seqs)
}

/// Returns the entries that touch a record, or that say that its values were erased, oldest first.
/// Nothing is written, and an entry that the history has not folded yet is found by a search.
///
/// # Errors
/// [`StoreError`] if the history or an entry cannot be read.
pub fn history_of(snapshot: &Snapshot, key: &RecordKey) -> Result<Vec<Seq>, StoreError> {
    let mut seqs = snapshot.history(key)?;
    seqs.extend(search(snapshot, &BTreeSet::from([key.clone()]), false, snapshot.last_seq()?)?);
    seqs.extend(Erasures::of(snapshot)?.seqs_of(key));
    seqs.sort_unstable();
    seqs.dedup();
    Ok(seqs)
}

/// Returns the last entry up to a place that concerns the book as a whole and is `wanted`. The log
/// is read backwards down to where the history is folded, and then the history.
///
/// # Errors
/// [`StoreError`] if the history or an entry cannot be read.
pub fn last_of_book(
    snapshot: &Snapshot,
    upto: Seq,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<Option<Rc<Entry>>, StoreError> {
    let (table, log) = (snapshot.entries()?, snapshot.log()?);
    let from = snapshot.state()?.history_folded.next();
    let rows = (from <= upto).then(|| table.range(from.number()..=upto.number())).transpose();
    for row in rows.map_err(StoreError::during(READING))?.into_iter().flat_map(Iterator::rev) {
        let (key, stored) = row.map_err(StoreError::during(READING))?;
        let (seq, stored) = (Seq::new(key.value()), stored.value());
        if Frame::kind_of(stored) == Some(EntryKind::Control)
            && Entry::decode(stored).is_ok_and(|entry| wanted(&entry))
        {
            return log.existing(seq).map(Some);
        }
    }
    for seq in snapshot.history_of_book()?.into_iter().rev().filter(|seq| *seq <= upto) {
        let entry = log.existing(seq)?;
        if wanted(&entry) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Searches the part of the log up to a place that the history has not folded yet.
fn search(
    snapshot: &Snapshot,
    keys: &BTreeSet<RecordKey>,
    of_book: bool,
    upto: Seq,
) -> Result<BTreeSet<Seq>, StoreError> {
    let (from, mut found) = (snapshot.state()?.history_folded.next(), BTreeSet::new());
    if from > upto {
        return Ok(found);
    }
    let (table, log) = (snapshot.entries()?, snapshot.log()?);
    let finders: Vec<_> = keys.iter().map(|key| Finder::new(key.id.as_str())).collect();
    let may_concern = |stored: &[u8]| {
        finders.len() > SEARCHED || finders.iter().any(|finder| finder.find(stored).is_some())
    };
    let concerns = |entry: &Entry| -> Result<bool, StoreError> {
        let touched = touched(entry, &log)?;
        Ok((of_book && touched.book) || touched.keys.iter().any(|key| keys.contains(key)))
    };
    // An answer without the id of a record is taken apart only if the decisions after it concern
    // the record.
    let mut answer = None;
    let rows = table.range(from.number()..=upto.number()).map_err(StoreError::during(READING))?;
    for row in rows {
        let (key, stored) = row.map_err(StoreError::during(READING))?;
        let (seq, stored) = (Seq::new(key.value()), stored.value());
        let is_decision = Frame::kind_of(stored) == Some(EntryKind::Control);
        if !is_decision && !may_concern(stored) {
            answer = (Frame::kind_of(stored) == Some(EntryKind::Upstream)).then_some(seq);
            continue;
        }
        let entry = Entry::decode(stored).map_err(|fault| StoreError::corrupt_entry(seq, fault))?;
        if concerns(&entry)? {
            if let Some(before) = answer.take()
                && concerns(&*log.existing(before)?)?
            {
                found.insert(before);
            }
            found.insert(seq);
        }
        answer = None;
    }
    Ok(found)
}

const READING: &str = "searching the log";
