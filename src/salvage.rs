//! Makes a new book of what can still be found in a damaged file.
//!
//! ```text
//!   raw bytes ─► entries ─► linked from the first: the log of the new book ─► its pending ops are parked
//!                     └──► later ones: their ops without an end ─► written anew, and parked
//! ```
//!
//! Invariants:
//! 1. The damaged file is only read.
//! 2. The new book appears whole or not at all, and replaces no file.
//! 3. No op is sent by itself: it is not known whether it reached the server or what a person
//!    decided about it since. Each waits for a person, with its content.
//! 4. What was erased does not come back.
//!
//! The new book is the same device if the device's key can still be read. Otherwise it is a new
//! device, and the whole log counts as found without a beginning: confirmed records come back with
//! the next sync.
//!
//! What it is not: a repair. If only tables are damaged,
//! [`rebuild_book`](crate::audit::rebuild_book) loses nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use fieldbook_core::entry::{Control, Decision, Draft, Entry, Items, Meta, PlannedOp};
use fieldbook_core::log::{
    ENTRIES, Piece, Pieces, Store, StoreError, StoreOptions, carve, catch_storage_panic, entries,
    not_made, open_to_read, read_head,
};
use fieldbook_core::new_file::new_file_by_path;
use fieldbook_core::rules::recover::{Recovered, Recovery, write_again};
use fieldbook_core::rules::status::ParkReason;
use fieldbook_core::{DeviceKey, Hlc, RecordKey, Seq, WallTime};
use fieldbook_projections::{DiskTables, Snapshot};

use crate::book::Book;
use crate::error::Error;
use crate::maintain::refold;
use crate::options::BookOptions;
use crate::writer::Session;

/// The number of transactions that one commit writes again.
const WRITTEN_AT_ONCE: usize = 500;

/// The number of decisions that one entry takes.
const DECIDED_AT_ONCE: usize = 10_000;

/// What was found in a damaged file, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvage {
    /// The number of entries from the first on, each linked to the one before.
    pub linked: u64,
    /// The first and the last entry of each later part, linked within itself.
    pub islands: Vec<(Seq, Seq)>,
    /// The first and the last entry of each gap. What came after the last entry is not known.
    pub missing: Vec<(Seq, Seq)>,
    /// When the last entry that was found was written.
    pub last_written_at: Option<WallTime>,
    /// Whether the new book is the same device, with the linked part as its log.
    pub same_device: bool,
    /// The records with ops that wait for a person, each with the number of these ops.
    pub waiting: BTreeMap<RecordKey, u64>,
}

/// Searches the raw bytes of a file for the entries of a book's log, and makes a new book of them
/// at a path that does not exist. `progress` is called with the number of searched bytes and of all
/// bytes.
///
/// Each op that may not have reached the server waits in the new book until a person sends it with
/// [`DeadLetters::retry`](crate::conflict::DeadLetters::retry) or ends it with
/// [`DeadLetters::discard`](crate::conflict::DeadLetters::discard).
///
/// # Errors
/// [`Error::Store`]: there is no such file, no entry was found in it, the new path exists, or the
/// disk failed. Nothing is at the new path then.
pub fn salvage_book(
    damaged: impl AsRef<Path>,
    new: impl AsRef<Path>,
    options: BookOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<Salvage, Error> {
    let (damaged, new) = (damaged.as_ref(), new.as_ref());
    if fs::symlink_metadata(new).is_ok() {
        return Err(StoreError::AlreadyExists { path: new.to_owned() }.into());
    }
    let mut file = BufReader::new(open_to_read(damaged, READING)?);
    let bytes = file.get_ref().metadata().map_err(StoreError::disk(READING))?.len();
    let pieces =
        carve(&mut file, bytes, |done| progress(done, bytes)).map_err(StoreError::disk(READING))?;
    let last = pieces.islands.last().unwrap_or(&pieces.linked).last();
    let Some(last_written_at) = last.map(|piece| piece.wall) else {
        let why = "no entry of a log was found in it";
        return Err(StoreError::NotABook { path: damaged.to_owned(), why }.into());
    };
    let recovery = follow(&mut file, &pieces)?;
    let key = device_key(damaged).filter(|_| !pieces.linked.is_empty());
    let waiting = new_file_by_path(new, |path| {
        let end = match &key {
            Some(key) => write_linked(path, &mut file, &pieces.linked, key, &options)?,
            None => Seq::ZERO,
        };
        let book = Book::open_or_create(path, options)?;
        let waiting = book.park_recovered(&recovery, end)?;
        book.close()?;
        Ok::<_, Error>(waiting)
    })
    .map_err(|error| not_made(error, new, WRITING))?;
    let ends = |island: &Vec<Piece>| Some((island.first()?.seq, island.last()?.seq));
    Ok(Salvage {
        linked: pieces.linked.len() as u64,
        islands: pieces.islands.iter().filter_map(ends).collect(),
        missing: pieces.missing(),
        last_written_at: Some(last_written_at),
        same_device: key.is_some(),
        waiting,
    })
}

/// Returns the device's key, if the pages on the way to it can be read.
fn device_key(path: &Path) -> Option<DeviceKey> {
    let options = StoreOptions { read_only: true, ..StoreOptions::default() };
    let read = catch_storage_panic(|| {
        let store = Store::open(path, &options)?;
        let key = catch_storage_panic(|| Snapshot::new(store.begin_read()?).device_key());
        drop(catch_storage_panic(|| {
            drop(store);
            Ok::<_, StoreError>(())
        }));
        key
    });
    read.ok().flatten()
}

/// Makes a book whose log is the linked entries. Returns the last of them.
fn write_linked(
    path: &Path,
    file: &mut BufReader<File>,
    linked: &[Piece],
    key: &DeviceKey,
    options: &BookOptions,
) -> Result<Seq, Error> {
    let store = Store::create(path, &options.store)?;
    let transaction = store.begin_write()?;
    {
        let mut table = transaction.open_table(ENTRIES).map_err(StoreError::during(WRITING))?;
        for piece in linked {
            let bytes = piece.read(file).map_err(StoreError::disk(READING))?;
            table
                .insert(piece.seq.number(), bytes.as_slice())
                .map_err(StoreError::during(WRITING))?;
        }
    }
    DiskTables::new(&transaction).set_device_key(key)?;
    store.commit(transaction)?;
    let log = entries(&store.begin_read()?)?;
    let (head, schema) = (read_head(&log)?, options.schema.to_fold(&log)?);
    drop(log);
    refold(&store, &schema, head, |_| {})?;
    store.close()?;
    Ok(head.map_or(Seq::ZERO, |head| head.seq))
}

fn follow(file: &mut BufReader<File>, pieces: &Pieces) -> Result<Recovery, Error> {
    let mut recovery = Recovery::default();
    for piece in pieces.linked.iter().chain(pieces.islands.iter().flatten()) {
        let bytes = piece.read(file).map_err(StoreError::disk(READING))?;
        let entry = Entry::decode(&bytes)
            .map_err(|error| StoreError::corrupt("a salvaged entry", Some(piece.seq), error))?;
        recovery.follow(&entry).map_err(Error::damaged)?;
    }
    Ok(recovery)
}

impl Book {
    /// Parks the pending ops of the log, and writes the recovered ops of later entries anew, parked
    /// too. Returns the number of these ops of each record.
    fn park_recovered(
        &self,
        recovery: &Recovery,
        end: Seq,
    ) -> Result<BTreeMap<RecordKey, u64>, Error> {
        let mut waiting = BTreeMap::new();
        let (mut ended, mut parked) = (Vec::new(), Vec::new());
        {
            let known: BTreeMap<_, _> = recovery.ended().collect();
            let tail = self.shared.tail();
            let pending = tail.ops().filter(|(place, row)| {
                !tail.is_dead(*place)
                    && tail.unit_of(*place).is_none()
                    && self.shared.schema.leaves(&row.key.entity)
            });
            for (place, row) in pending {
                if known.contains_key(&place) {
                    let op = PlannedOp { id: row.op, place };
                    ended.push(Decision::Discarded { key: row.key.clone(), op });
                } else {
                    *waiting.entry(row.key.clone()).or_insert(0) += 1;
                    parked.push(ParkReason::Recovered.park(row.op));
                }
            }
        }
        for part in ended.chunks(DECIDED_AT_ONCE).chain(parked.chunks(DECIDED_AT_ONCE)) {
            self.shared.decide(part.to_vec())?;
        }
        let mut transactions: BTreeMap<Seq, Vec<Recovered>> = BTreeMap::new();
        for (place, op) in recovery.open().filter(|(place, _)| place.seq > end) {
            *waiting.entry(op.op.key.clone()).or_insert(0) += 1;
            transactions.entry(place.seq).or_default().push(op.clone());
        }
        let transactions: Vec<_> = transactions.into_values().collect();
        for part in transactions.chunks(WRITTEN_AT_ONCE) {
            let part = part.to_vec();
            self.shared.write_in_turn(move |session| {
                part.iter().try_for_each(|ops| write_parked(session, ops))
            })?;
        }
        Ok(waiting)
    }
}

/// Writes the ops of one transaction again, as their author, and parks them.
fn write_parked(session: &mut Session<'_>, ops: &[Recovered]) -> Result<(), Error> {
    let Some(first) = ops.first() else { return Ok(()) };
    session.actor = first.actor.clone();
    let latest = ops.iter().map(|op| op.op.edited_at).max().unwrap_or(Hlc::ZERO);
    let (draft, parks) = write_again(ops, session.randomness);
    session.append(draft, latest)?;
    let decided = Meta::Control(Control::Decided(parks));
    session.append(Draft { meta: decided, items: Items::default() }, Hlc::ZERO)?;
    Ok(())
}

const READING: &str = "reading the damaged file";
const WRITING: &str = "writing the new book";
