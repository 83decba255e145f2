//! Copies a log with a baseline in place of its oldest entries ([`crate::entry::Baseline`]).
//!
//! Invariants:
//! 1. The entries behind the joint have the bytes and the hashes of the original.
//! 2. An entry that was altered is not copied: the copy fails.
//! 3. Every row of the baseline has the place and the clock of a trimmed entry, in order, so the log's
//!    clock still grows.
//!
//! What it is not: an entry that says so. The caller appends it, in the same transaction.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadableTable, WriteTransaction};

use super::entries::{ENTRIES, entries_from, read_entry};
use super::error::StoreError;
use crate::entry::frame::{self, Frame};
use crate::entry::{Draft, Header, Receipt, Trimmed, seal};
use crate::numbers::{Hash, Seq};

/// What stands in place of trimmed entries.
#[derive(Debug, Clone, PartialEq)]
pub struct BaselineDraft {
    /// The entries that stay, before the joint.
    pub kept: BTreeSet<Seq>,
    /// The records.
    pub parts: Vec<Draft>,
    /// The state of the book.
    pub joint: Draft,
}

/// The places of a baseline in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselinePlaces {
    /// The places of the parts, in order.
    parts: Vec<Seq>,
    /// The joint: the last trimmed entry.
    upto: Seq,
    /// The number of rows that go.
    pub gone: u64,
    /// The bytes of the rows up to the joint as they are now.
    pub bytes: u64,
}

/// Finds places for a baseline. Returns `None` if it would have at least as many rows as the entries in
/// whose place it stands.
///
/// # Errors
/// [`StoreError`] if the log cannot be read.
pub fn places_for(
    log: &impl ReadableTable<u64, &'static [u8]>,
    upto: Seq,
    baseline: &BaselineDraft,
) -> Result<Option<BaselinePlaces>, StoreError> {
    let (mut free, mut rows, mut bytes) = (Vec::new(), 0, 0);
    for row in log.range(..=upto.number()).map_err(StoreError::during(READING))? {
        let (key, stored) = row.map_err(StoreError::during(READING))?;
        (rows, bytes) = (rows + 1, bytes + stored.value().len() as u64);
        let seq = Seq::new(key.value());
        if seq < upto && !baseline.kept.contains(&seq) {
            free.push(seq);
        }
    }
    let needed = baseline.parts.len();
    let stay = (baseline.kept.len() + needed + 1) as u64;
    if free.len() < needed || stay >= rows {
        return Ok(None);
    }
    let parts = free.split_off(free.len() - needed);
    Ok(Some(BaselinePlaces { parts, upto, gone: rows - stay, bytes }))
}

/// Copies a log into an empty one, with a baseline in place of the entries up to its joint. Returns the
/// entry that says so.
///
/// # Errors
/// [`StoreError::Corrupt`] if an entry was altered or cannot be read; [`StoreError::Unstorable`] if
/// a part is too large; [`StoreError`] if the copy cannot be written.
pub fn copy_trimmed(
    log: &impl ReadableTable<u64, &'static [u8]>,
    copy: &WriteTransaction,
    baseline: &BaselineDraft,
    places: &BaselinePlaces,
) -> Result<Trimmed, StoreError> {
    let during = StoreError::during::<redb::StorageError>;
    let mut table = copy.open_table(ENTRIES).map_err(StoreError::during(COPYING))?;
    let mut drafts: BTreeMap<Seq, Option<&Draft>> =
        baseline.kept.iter().map(|seq| (*seq, None)).collect();
    drafts.extend(places.parts.iter().copied().zip(baseline.parts.iter().map(Some)));
    let mut previous = Hash::ZERO;
    for (seq, draft) in drafts {
        let bytes;
        (bytes, previous) = match draft {
            Some(draft) => {
                let sealed = sealed(log, seq, draft, &previous)?;
                (sealed.bytes, sealed.hash)
            }
            None => kept(log, seq, &previous)?,
        };
        table.insert(seq.number(), bytes.as_slice()).map_err(during(COPYING))?;
    }
    let upto = places.upto;
    let last = read_entry(log, upto)?.ok_or_else(|| missing(upto))?;
    let joint = sealed(log, upto, &baseline.joint, &previous)?;
    let bytes = frame::joint(&joint, &last.hash);
    table.insert(upto.number(), bytes.as_slice()).map_err(during(COPYING))?;
    for entry in entries_from(log, upto.next()) {
        let seq = entry?.header.seq;
        let stored = log.get(seq.number()).map_err(during(COPYING))?;
        let stored = stored.ok_or_else(|| missing(seq))?;
        table.insert(seq.number(), stored.value()).map_err(during(COPYING))?;
    }
    let upto = Receipt { seq: upto, hash: last.hash };
    Ok(Trimmed { upto, baseline: joint.hash, entries: places.gone, archive: None })
}

/// Seals a part of the baseline in the place of an entry, with that entry's clock.
fn sealed(
    log: &impl ReadableTable<u64, &'static [u8]>,
    seq: Seq,
    draft: &Draft,
    previous: &Hash,
) -> Result<crate::entry::Sealed, StoreError> {
    let stored = log.get(seq.number()).map_err(StoreError::during(READING))?;
    let stored = stored.ok_or_else(|| missing(seq))?;
    let frame =
        Frame::parse(stored.value()).map_err(|fault| StoreError::corrupt_entry(seq, fault))?;
    let header = Header { kind: draft.meta.kind(), ..frame.header };
    seal(&header, draft, previous).map_err(|source| StoreError::Unstorable { source })
}

/// Seals an entry that stays after another one than before.
fn kept(
    log: &impl ReadableTable<u64, &'static [u8]>,
    seq: Seq,
    previous: &Hash,
) -> Result<(Vec<u8>, Hash), StoreError> {
    // An altered entry is not sealed anew.
    read_entry(log, seq)?.ok_or_else(|| missing(seq))?;
    let stored = log.get(seq.number()).map_err(StoreError::during(READING))?;
    let stored = stored.ok_or_else(|| missing(seq))?;
    let frame =
        Frame::parse(stored.value()).map_err(|fault| StoreError::corrupt_entry(seq, fault))?;
    Ok(frame.sealed_after(previous))
}

fn missing(seq: Seq) -> StoreError {
    StoreError::Corrupt { what: "an entry is missing", seq: Some(seq), source: None }
}

const READING: &str = "reading the log";
const COPYING: &str = "copying the log";
