//! Looking after a book: verifying the chain, rebuilding the tables, taking in what an app declares anew.

use std::path::Path;

use fieldbook_core::entry::{Control, Decision, Draft, Items, Meta};
use fieldbook_core::log::{
    Head, PART_ENTRIES, Store, StoreError, commit, entries, guarded, read_head, verify_in_parts,
};
use fieldbook_core::rules::parks::only_news;
use fieldbook_core::rules::upcast::{is_due, upcast};
use fieldbook_core::{Hlc, OpPlace, RecordKey, Schema, Seq};
use fieldbook_projections::{Projections, Snapshot, TableDump, Tables, rebuild};

use crate::audit::{Audit, TableCheck, Verification};
use crate::book::{Book, write};
use crate::error::Error;
use crate::options::BookOptions;
use crate::writer::Session;

/// How many records kept aside are taken in with one entry.
const TAKEN_IN_AT_ONCE: usize = 10_000;
/// How many ops are turned with one entry: at their largest they fit it.
const UPCAST_AT_ONCE: usize = 48;
/// How many ops are turned in one commit.
const UPCAST_IN_A_COMMIT: usize = 10_000;

/// Turns ops into what they are under the declared schema versions.
pub(crate) fn upcast_ops(session: &mut Session<'_>, ops: &[(RecordKey, OpPlace)]) -> Result<(), Error> {
    ops.chunks(UPCAST_AT_ONCE).try_for_each(|part| upcast_some(session, part))
}

fn upcast_some(session: &mut Session<'_>, ops: &[(RecordKey, OpPlace)]) -> Result<(), Error> {
    let (mut decisions, mut items) = (Vec::new(), Items::default());
    let schema = session.schema;
    for (key, place) in ops {
        let (mut view, randomness) = session.view();
        decisions.extend(upcast(&mut view, schema, key, *place, &mut items, randomness)?);
    }
    let decisions = only_news(&session.tables.state()?, session.tail, decisions);
    if !decisions.is_empty() {
        session.append(Draft { meta: Meta::Control(Control::Decided(decisions)), items }, Hlc::ZERO)?;
    }
    Ok(())
}

impl Audit<'_> {
    /// Walks the whole log and checks every hash against the stored bytes. `progress` hears how many entries are checked.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be opened. Damage is a value, not an error.
    pub fn verify(&self, progress: impl FnMut(u64)) -> Result<Verification, Error> {
        let verified = verify_in_parts(&self.book.shared.snapshot()?.entries()?, PART_ENTRIES, progress);
        Ok(verified.map_or_else(Verification::Damaged, Verification::Sound))
    }

    /// Folds the log anew and says which tables are not what it comes to, byte for byte. Folds the tables that lag behind
    /// first. The app's own projections are looked at last, if they are not broken; one that differs does not depend on the
    /// difference between before and after only.
    ///
    /// # Errors
    /// [`Error::Store`] if the log or a table does not read.
    pub fn check_tables(&self) -> Result<TableCheck, Error> {
        Ok(TableCheck { differing: self.differing_tables(false)? })
    }

    /// Returns the tables that are not what the log comes to, and folds them anew. What depends on what the app declares may be
    /// left out, for programs that do not know it.
    pub(crate) fn differing_tables(&self, leave_out_declared: bool) -> Result<Vec<&'static str>, Error> {
        self.fold_lazy()?;
        let dump = |snapshot: &Snapshot| -> Result<Vec<TableDump>, StoreError> {
            let all = snapshot.dump()?;
            if leave_out_declared {
                all.into_iter().map(TableDump::without_declared).collect()
            } else {
                Ok(all)
            }
        };
        let (before, projected) = {
            let snapshot = self.book.shared.snapshot()?;
            (dump(&snapshot)?, self.book.sound_projections(&snapshot)?)
        };
        self.rebuild(|_| {})?;
        self.fold_lazy()?;
        let snapshot = self.book.shared.snapshot()?;
        let after = dump(&snapshot)?;
        let pairs = before.iter().zip(&after).filter(|(before, after)| before != after);
        let mut differing: Vec<_> = pairs.map(|(before, _)| before.name).collect();
        let folded = self.book.sound_projections(&snapshot)?;
        if !projected.iter().all(|(name, table)| folded.get(name) == Some(table)) {
            differing.push("app projections");
        }
        Ok(differing)
    }

    /// Throws the tables away and folds them anew, the app's own projections too, in one commit. `progress` hears of every
    /// entry.
    ///
    /// # Errors
    /// [`Error::Store`] if the log does not read or the disk fails; then the tables are as they were.
    pub fn rebuild(&self, progress: impl FnMut(Seq)) -> Result<Seq, Error> {
        self.book.shared.check_alive()?;
        // The writer's lock keeps every round out while the tables are being replaced.
        let mut writer = self.book.shared.writer.lock().map_err(|_| Error::Interrupted)?;
        let entries = self.book.shared.snapshot()?.entries()?;
        let transaction = self.book.shared.store.begin_write()?;
        let (state, rebuilt) =
            rebuild(&transaction, &entries, &self.book.shared.schema, writer.head, progress)?;
        drop(entries);
        let mut tail = rebuilt.into_tail();
        tail.follow(writer.head.map_or(Seq::ZERO, |head| head.seq));
        writer.projections.fold_anew(&transaction)?;
        let committed = commit(transaction);
        self.book.shared.latest.forget();
        if let Err(error) = committed {
            self.book.shared.fail();
            return Err(error.into());
        }
        *write(&self.book.shared.state) = state;
        self.book.shared.put_tail(tail);
        Ok(writer.head.map_or(Seq::ZERO, |head| head.seq))
    }

    /// Folds the tables that lag behind the log up to where its head is now, in parts: others write in between.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn fold_lazy(&self) -> Result<(), Error> {
        let head = self.head()?.map_or(Seq::ZERO, |head| head.seq);
        let folded = || {
            let state = self.book.shared.state();
            state.history_folded.min(state.tail_folded)
        };
        while folded() < head {
            self.book.shared.write_in_turn(|session| {
                session.want_history();
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Book {
    /// Takes in records that were kept aside because their entity type was not declared, and is now.
    pub(crate) fn take_in_what_is_declared_now(&self) -> Result<(), Error> {
        let aside = self.shared.snapshot()?.aside()?;
        let known = aside.into_iter().filter(|(key, ..)| self.shared.schema.rules(&key.entity).is_some());
        // In the order in which the server sent them, so that a record's versions ascend.
        let mut known: Vec<_> = known.collect();
        known.sort_by_key(|(_, seq, number)| (*seq, *number));
        for part in known.chunks(TAKEN_IN_AT_ONCE) {
            let taken = part.iter().map(|(key, seq, number)| Decision::TakenIn {
                key: key.clone(),
                seq: *seq,
                number: *number,
            });
            self.shared.decide(taken.collect())?;
        }
        Ok(())
    }

    /// Turns what waits into what it is under the declared schema versions, so that the app reads and sends it so.
    pub(crate) fn upcast_what_waits(&self) -> Result<(), Error> {
        let due: Vec<_> = {
            let tail = self.shared.tail();
            let due = tail.ops().filter(|(place, _)| is_due(&self.shared.schema, &tail, *place));
            due.map(|(place, row)| (row.key.clone(), place)).collect()
        };
        for part in due.chunks(UPCAST_IN_A_COMMIT) {
            let part = part.to_vec();
            self.shared.write_in_turn(move |session| upcast_ops(session, &part))?;
        }
        Ok(())
    }
}

/// Throws the tables of a book's file away and folds them anew from the log, without reading any of them, so that a book
/// whose tables are too damaged to be opened can be used again. `progress` hears of every entry, and of how many there are.
///
/// # Errors
/// [`Error::Store`] as for [`Book::open`], or if the log does not read; then the tables are as they were.
pub fn rebuild_book(
    path: impl AsRef<Path>,
    options: &BookOptions,
    mut progress: impl FnMut(Seq, Seq),
) -> Result<Seq, Error> {
    let store = Store::open(path.as_ref(), &options.store)?;
    let head = read_head(&entries(&store.begin_read()?)?)?;
    let last = head.map_or(Seq::ZERO, |head| head.seq);
    refold(&store, &options.schema, head, |seq| progress(seq, last))?;
    store.close()?;
    Ok(last)
}

/// Folds the tables of a store anew, in one commit.
pub(crate) fn refold(
    store: &Store,
    schema: &Schema,
    head: Option<Head>,
    progress: impl FnMut(Seq),
) -> Result<(), Error> {
    let entries = entries(&store.begin_read()?)?;
    let transaction = store.begin_write()?;
    rebuild(&transaction, &entries, schema, head, progress)?;
    drop(entries);
    // The app's own projections are taken away: the app folds them again when it opens the book with them.
    guarded(|| Projections::default().fold_anew(&transaction))?;
    Ok(commit(transaction)?)
}
