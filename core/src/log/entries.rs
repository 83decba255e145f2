//! The table of entries: reading it and adding to it.
//!
//! Invariants:
//! 1. Every read is checked: an entry is returned only if its bytes and the hash of the entry
//!    before give the hash with which it was sealed. So code that sends, shows or extends an entry
//!    needs no check of its own.
//! 2. There are gaps only in a baseline ([`crate::entry::Baseline`]): an entry after a gap is sealed after
//!    the entry before the gap.

use std::ops::Bound;

use redb::{ReadableTable, TableDefinition};

use super::error::{StoreError, catch_storage_panic};
use crate::entry::frame::Frame;
use crate::entry::{Checked, Entry, EntryError, FORMAT, Header, seal_checked};
use crate::ids::Epoch;
use crate::names::Actor;
use crate::numbers::{Hash, Seq};
use crate::time::{Hlc, WallTime};

/// The log.
///
/// Key: the entry's seq. Value: the stored bytes of the entry, as `docs/log-format.md` describes
/// them.
pub const ENTRIES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("entries-1");

/// The last entry of a log, which the next entry extends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its place.
    pub seq: Seq,
    /// Its hash in the chain.
    pub hash: Hash,
    /// Its clock.
    pub hlc: Hlc,
    /// The epoch of the log that it belongs to.
    pub epoch: Epoch,
}

/// The parts of an entry that the caller supplies when it is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The log's clock: after the head's.
    pub hlc: Hlc,
    /// The device's wall clock.
    pub wall: WallTime,
    /// The user of the book.
    pub actor: Actor,
}

/// Opens the table in a snapshot.
///
/// # Errors
/// [`StoreError`] if it is missing or the disk fails.
pub fn entries(
    transaction: &redb::ReadTransaction,
) -> Result<redb::ReadOnlyTable<u64, &'static [u8]>, StoreError> {
    catch_storage_panic(|| {
        transaction.open_table(ENTRIES).map_err(StoreError::during("opening the log"))
    })
}

/// Reads one entry; `None` if the log has no entry at that place.
///
/// # Errors
/// [`StoreError::Corrupt`] if the entry cannot be read, names another place, or was altered after
/// it was sealed.
pub fn read_entry(
    table: &impl ReadableTable<u64, &'static [u8]>,
    seq: Seq,
) -> Result<Option<Entry>, StoreError> {
    read_entry_after(table, seq, None)
}

/// Reads one entry like [`read_entry`], with the hash of the entry before if the caller has read it
/// already.
///
/// # Errors
/// As for [`read_entry`].
pub fn read_entry_after(
    table: &impl ReadableTable<u64, &'static [u8]>,
    seq: Seq,
    previous: Option<Hash>,
) -> Result<Option<Entry>, StoreError> {
    catch_storage_panic(|| {
        let Some(stored) = table.get(seq.number()).map_err(StoreError::during(READING))? else {
            return Ok(None);
        };
        let entry = decode(seq, stored.value())?;
        let previous = previous.map_or_else(|| hash_before(table, seq), Ok)?;
        checked(table, entry, previous).map(Some)
    })
}

/// Returns an entry if its bytes are those that were sealed after the entry with this hash.
fn checked(
    table: &impl ReadableTable<u64, &'static [u8]>,
    entry: Entry,
    previous: Hash,
) -> Result<Entry, StoreError> {
    if entry.follows(&previous) {
        return Ok(entry);
    }
    // If the hash of the entry before was altered, the error names that entry. If there is none
    // right before, and the entry does not follow the one before the gap, one is missing.
    let seq = entry.header.seq;
    let before = Seq::new(seq.number().saturating_sub(1));
    let culprit = match table.get(before.number()).map_err(StoreError::during(READING))? {
        Some(stored) => match decode(before, stored.value()) {
            Ok(found) if found.follows(&hash_before(table, before)?) => seq,
            _ => before,
        },
        None if before == Seq::ZERO => seq,
        None => {
            let mut earlier =
                table.range(..before.number()).map_err(StoreError::during(READING))?;
            let last = earlier.next_back().transpose().map_err(StoreError::during(READING))?;
            return Err(missing(Seq::new(last.map_or(0, |(key, _)| key.value())).next()));
        }
    };
    Err(StoreError::altered(culprit))
}

/// Returns the hash that the entry before a place carries: right before it, or before a gap.
fn hash_before(
    table: &impl ReadableTable<u64, &'static [u8]>,
    seq: Seq,
) -> Result<Hash, StoreError> {
    let before = Seq::new(seq.number().saturating_sub(1));
    if before == Seq::ZERO {
        return Ok(Hash::ZERO);
    }
    let hash_of = |stored: &[u8]| stored.last_chunk().copied().map(Hash::from_bytes);
    let stored = table.get(before.number()).map_err(StoreError::during(READING))?;
    if let Some(hash) = stored.as_ref().and_then(|stored| hash_of(stored.value())) {
        return Ok(hash);
    }
    let earlier = table.range(..before.number()).map_err(StoreError::during(READING))?.next_back();
    let earlier = earlier.transpose().map_err(StoreError::during(READING))?;
    earlier.and_then(|(_, stored)| hash_of(stored.value())).ok_or_else(|| missing(before))
}

fn missing(seq: Seq) -> StoreError {
    StoreError::Corrupt { what: MISSING, seq: Some(seq), source: None }
}

/// Reads the head; `None` for an empty log.
///
/// # Errors
/// [`StoreError::Corrupt`] if the last entry cannot be read or names another place.
pub fn read_head(
    table: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<Option<Head>, StoreError> {
    catch_storage_panic(|| {
        let Some((key, stored)) = table.last().map_err(StoreError::during(READING))? else {
            return Ok(None);
        };
        let seq = Seq::new(key.value());
        let Frame { header, hash, .. } =
            Frame::parse(stored.value()).map_err(|error| StoreError::corrupt_entry(seq, error))?;
        check_place(seq, header.seq)?;
        Ok(Some(Head { seq, hash, hlc: header.hlc, epoch: header.epoch }))
    })
}

/// Reads the entries from a place on, in order. An entry that is missing is an error, and so is one
/// that was altered after it was sealed. Nothing follows an error. The gaps of a baseline are none: the
/// next entry follows.
pub fn entries_from(
    table: &impl ReadableTable<u64, &'static [u8]>,
    from: Seq,
) -> impl Iterator<Item = Result<Entry, StoreError>> {
    let first = from.max(Seq::ZERO.next()).number();
    let mut rows =
        Some(catch_storage_panic(|| table.range(first..).map_err(StoreError::during(READING))));
    let mut previous = None;
    std::iter::from_fn(move || {
        let entry = match rows.as_mut()? {
            Ok(rows) => catch_storage_panic(|| {
                let Some(row) = rows.next() else { return Ok(None) };
                let entry = decode_row(row)?;
                let at = entry.header.seq;
                let before = match previous {
                    Some(hash) => hash,
                    None => hash_before(table, at)?,
                };
                checked(table, entry, before).map(Some)
            })
            .transpose()?,
            Err(_) => Err(rows.take()?.err()?),
        };
        previous = entry.as_ref().ok().map(|entry| entry.hash);
        if entry.is_err() {
            rows = None;
        }
        Some(entry)
    })
}

/// Returns the first place from a place on that has an entry.
///
/// # Errors
/// [`StoreError`] if the log cannot be read.
pub fn next_place(
    table: &impl ReadableTable<u64, &'static [u8]>,
    from: Seq,
) -> Result<Option<Seq>, StoreError> {
    catch_storage_panic(|| {
        let mut rows = table.range(from.number()..).map_err(StoreError::during(READING))?;
        let next = rows.next().transpose().map_err(StoreError::during(READING))?;
        Ok(next.map(|(key, _)| Seq::new(key.value())))
    })
}

type Row<'a> = (redb::AccessGuard<'a, u64>, redb::AccessGuard<'a, &'static [u8]>);

fn decode_row(row: Result<Row<'_>, redb::StorageError>) -> Result<Entry, StoreError> {
    let (key, stored) = row.map_err(StoreError::during(READING))?;
    decode(Seq::new(key.value()), stored.value())
}

/// Adds entries to the log within the caller's write transaction.
///
/// Nothing is durable before the transaction is committed. If it is not committed, the head of this
/// appender is invalid too.
///
/// Entries that follow each other may be held until [`Self::flush`]: writing them together costs a
/// third.
pub struct Appender<'t> {
    table: redb::Table<'t, u64, &'static [u8]>,
    head: Option<Head>,
    held: Held,
}

/// Entries that are sealed and not in the table yet, in order.
#[derive(Default)]
struct Held {
    entries: Vec<(Seq, Vec<u8>)>,
    bytes: usize,
}

/// Held entries are written once they reach this size.
const HELD_BYTES: usize = 1024 * 1024;

impl<'t> Appender<'t> {
    /// Begins to append after `head`, the head after the last commit.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be opened.
    ///
    /// # Panics
    /// If `head` is not the end of the log: the new entries would not continue the chain.
    pub fn open(
        transaction: &'t redb::WriteTransaction,
        head: Option<Head>,
    ) -> Result<Self, StoreError> {
        let table =
            transaction.open_table(ENTRIES).map_err(StoreError::during("opening the log"))?;
        let last = table
            .last()
            .map_err(StoreError::during(READING))?
            .map(|(key, _)| Seq::new(key.value()));
        assert_eq!(head.map(|head| head.seq), last, "BUG: the log does not end at the given head");
        Ok(Self { table, head, held: Held::default() })
    }

    /// Seals an entry, writes it, and returns it as a later read will.
    ///
    /// # Errors
    /// [`StoreError::Unstorable`] if the entry is over a limit, or the stamp's clock is not after
    /// the head's; then nothing was added. Otherwise [`StoreError`] of the disk.
    pub fn append(&mut self, draft: impl Into<Checked>, stamp: Stamp) -> Result<Entry, StoreError> {
        let entry = self.hold(draft, stamp)?;
        self.flush()?;
        Ok(entry)
    }

    /// Seals an entry and returns it as a later read will. The entry belongs to the log, and
    /// [`Self::read`] finds it, but only [`Self::flush`] writes it, which must happen before the
    /// commit.
    ///
    /// # Errors
    /// As for [`Self::append`].
    pub fn hold(&mut self, draft: impl Into<Checked>, stamp: Stamp) -> Result<Entry, StoreError> {
        let checked = draft.into();
        let Stamp { epoch, hlc, wall, actor } = stamp;
        let (seq, previous) = match &self.head {
            // The times of a clock or a server are checked earlier. But they come from outside, so
            // this check is not an assertion.
            Some(head) if hlc <= head.hlc => {
                return Err(StoreError::Unstorable { source: EntryError::ClockEnded });
            }
            Some(head) => (head.seq.next(), head.hash),
            None => (Seq::ZERO.next(), Hash::ZERO),
        };
        let header =
            Header { format: FORMAT, kind: checked.meta().kind(), epoch, seq, hlc, wall, actor };
        let sealed = seal_checked(&header, &checked, &previous);
        let sealed = sealed.map_err(|source| StoreError::Unstorable { source })?;
        let draft = checked.draft;
        self.held.bytes += sealed.bytes.len();
        self.held.entries.push((seq, sealed.bytes));
        self.head = Some(Head { seq, hash: sealed.hash, hlc, epoch });
        if self.held.bytes >= HELD_BYTES {
            self.flush()?;
        }
        Ok(Entry {
            header,
            meta: draft.meta,
            items: draft.items.into(),
            content: sealed.content,
            hash: sealed.hash,
            joint: None,
            told: false,
        })
    }

    /// Writes the held entries.
    ///
    /// # Errors
    /// [`StoreError`] of the disk.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        fn failed(error: impl Into<redb::Error>) -> StoreError {
            StoreError::during("appending an entry")(error)
        }
        let held = std::mem::take(&mut self.held).entries;
        if let [(seq, bytes)] = held.as_slice() {
            let before = self.table.insert(seq.number(), bytes.as_slice()).map_err(failed)?;
            assert!(before.is_none(), "BUG: there is an entry at the place of the next one");
        } else if !held.is_empty() {
            let mut cursor = self.table.upper_bound_mut(Bound::<u64>::Unbounded).map_err(failed)?;
            // The cursor refuses a key that is not after the key before it.
            held.iter()
                .try_for_each(|(seq, bytes)| cursor.insert_before(seq.number(), bytes.as_slice()))
                .map_err(failed)?;
            cursor.close().map_err(failed)?;
        }
        Ok(())
    }

    /// Reads an entry as [`read_entry_after`] does, held or written.
    ///
    /// # Errors
    /// As for [`read_entry`].
    pub fn read(&self, seq: Seq, previous: Option<Hash>) -> Result<Option<Entry>, StoreError> {
        match self
            .held
            .entries
            .first()
            .and_then(|(first, _)| seq.number().checked_sub(first.number()))
        {
            Some(place) => {
                let held =
                    usize::try_from(place).ok().and_then(|place| self.held.entries.get(place));
                held.map(|(seq, bytes)| decode(*seq, bytes)).transpose()
            }
            None => read_entry_after(&self.table, seq, previous),
        }
    }

    /// Does the same as [`next_place`], held or written.
    ///
    /// # Errors
    /// As for [`next_place`].
    pub fn next_place(&self, from: Seq) -> Result<Option<Seq>, StoreError> {
        if let Some(written) = next_place(&self.table, from)? {
            return Ok(Some(written));
        }
        Ok(self.held.entries.iter().map(|(seq, _)| *seq).find(|seq| *seq >= from))
    }

    /// Returns the head, with the entries appended so far.
    pub const fn head(&self) -> Option<Head> {
        self.head
    }

    /// Returns the table, with the entries appended so far.
    ///
    /// # Errors
    /// [`StoreError`] if held entries cannot be written.
    pub fn table(&mut self) -> Result<&redb::Table<'t, u64, &'static [u8]>, StoreError> {
        self.flush()?;
        Ok(&self.table)
    }
}

impl std::fmt::Debug for Appender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Appender(after {:?})", self.head.map(|head| head.seq))
    }
}

fn decode(seq: Seq, stored: &[u8]) -> Result<Entry, StoreError> {
    let entry = Entry::decode(stored).map_err(|error| StoreError::corrupt_entry(seq, error))?;
    check_place(seq, entry.header.seq)?;
    Ok(entry)
}

fn check_place(key: Seq, header: Seq) -> Result<(), StoreError> {
    if key == header {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        what: "an entry stands in another's place",
        seq: Some(key),
        source: None,
    })
}

const READING: &str = "reading the log";
const MISSING: &str = "an entry is missing";
