//! Maintenance of a book: it verifies the chain, rebuilds the tables, and adapts records and ops to
//! a new schema.

use std::io::Read;
use std::path::Path;

use fieldbook_core::entry::{Control, Decision, Draft, Items, Meta};
use fieldbook_core::log::{
    Head, PART_ENTRIES, Store, StoreError, catch_storage_panic, entries, import_parts, read_head,
    verify_in_parts,
};
use fieldbook_core::rules::parks::only_news;
use fieldbook_core::rules::upcast::{is_due, upcast};
use fieldbook_core::{EntityType, Hlc, OpPlace, RecordKey, Schema, Seq};
use fieldbook_projections::{Projections, Snapshot, TableDump, Tables, rebuild};

use crate::audit::{Audit, TableCheck, Verification};
use crate::book::{Book, WriterState, write};
use crate::error::Error;
use crate::indexes::on_record;
use crate::options::BookOptions;
use crate::projection::sound_projections;
use crate::writer::Session;

/// The number of undeclared records that one entry adopts.
const ADOPTED_AT_ONCE: usize = 10_000;
/// The number of ops that one entry upcasts: also the largest ops fit into it.
const UPCAST_AT_ONCE: usize = 48;
/// The number of ops that one commit upcasts.
const UPCAST_IN_A_COMMIT: usize = 10_000;

/// Upcasts ops to the declared schema versions.
pub(crate) fn upcast_ops(
    session: &mut Session<'_>,
    ops: &[(RecordKey, OpPlace)],
) -> Result<(), Error> {
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
        session
            .append(Draft { meta: Meta::Control(Control::Decided(decisions)), items }, Hlc::ZERO)?;
    }
    Ok(())
}

impl Audit<'_> {
    /// Checks every hash of the log against the stored bytes. `progress` is called with the number
    /// of checked entries.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be opened. Damage is a value, not an error.
    pub fn verify(&self, progress: impl FnMut(u64)) -> Result<Verification, Error> {
        let verified =
            verify_in_parts(&self.book.shared.snapshot()?.entries()?, PART_ENTRIES, progress);
        Ok(verified.map_or_else(Verification::Damaged, Verification::Sound))
    }

    /// Folds the log anew and returns the tables that differed, byte for byte. Tables that lag
    /// behind are folded to the end first. The app's own projections are checked last, unless they
    /// are broken; a projection that differs has a fault: its table depends on more than each
    /// change's before and after. The words for search are compared with the records, as far as
    /// they are folded, and folded anew by the next search.
    ///
    /// # Errors
    /// [`Error::Store`] if the log or a table cannot be read.
    pub fn check_tables(&self) -> Result<TableCheck, Error> {
        Ok(TableCheck { differing: self.differing_tables(false)? })
    }

    /// Returns the tables that differ from the log, and folds them anew. A program that does not
    /// know the app's declarations can leave out the tables that depend on them. No other write
    /// comes between the two states that are compared.
    pub(crate) fn differing_tables(
        &self,
        leave_out_declared: bool,
    ) -> Result<Vec<&'static str>, Error> {
        self.fold_lazy()?;
        let mut writer = self.book.shared.writer.lock().map_err(|_| Error::Interrupted)?;
        self.fold_rest(&mut writer)?;
        let dump = |snapshot: &Snapshot| -> Result<Vec<TableDump>, StoreError> {
            let mut all = snapshot.dump()?;
            let indexes = &self.book.shared.indexes;
            if !snapshot.index_shapes()?.are(indexes) || !indexes.can_be_followed() {
                // The book was opened read-only, and another version of the program built them, or
                // they need upcasters that this program lacks.
                all.retain(|table| !table.is_of_indexes());
            }
            if leave_out_declared {
                all.into_iter().map(TableDump::without_declared).collect()
            } else {
                Ok(all)
            }
        };
        let (before, projected, words_differ) = {
            let snapshot = self.book.shared.snapshot()?;
            let projected = sound_projections(&writer, &snapshot)?;
            (dump(&snapshot)?, projected, self.words_differ(&snapshot)?)
        };
        self.rebuild_with(&mut writer, |_| {})?;
        self.fold_rest(&mut writer)?;
        let snapshot = self.book.shared.snapshot()?;
        let after = dump(&snapshot)?;
        let pairs = before.iter().zip(&after).filter(|(before, after)| before != after);
        let mut differing: Vec<_> = pairs.map(|(before, _)| before.name).collect();
        let folded = sound_projections(&writer, &snapshot)?;
        drop(writer);
        if !projected.iter().all(|(name, table)| folded.get(name) == Some(table)) {
            differing.push("app projections");
        }
        if words_differ {
            differing.push("words for search");
        }
        Ok(differing)
    }

    /// Returns whether the words for search differ from the records that were folded into them.
    #[cfg(feature = "search")]
    fn words_differ(&self, snapshot: &Snapshot) -> Result<bool, StoreError> {
        for (entity, rule) in &self.book.shared.searches {
            if !snapshot.search_is_sound(entity, rule)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    #[cfg(not(feature = "search"))]
    const fn words_differ(&self, _: &Snapshot) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Folds all tables anew, the app's own projections too, in one commit. `progress` is called
    /// with every entry.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read or the disk fails. The tables are unchanged then.
    pub fn rebuild(&self, progress: impl FnMut(Seq)) -> Result<Seq, Error> {
        // The writer's lock keeps every round out while the tables are replaced.
        let mut writer = self.book.shared.writer.lock().map_err(|_| Error::Interrupted)?;
        self.rebuild_with(&mut writer, progress)
    }

    fn rebuild_with(
        &self,
        writer: &mut WriterState,
        progress: impl FnMut(Seq),
    ) -> Result<Seq, Error> {
        self.book.shared.check_alive()?;
        let entries = self.book.shared.snapshot()?.entries()?;
        let transaction = self.book.shared.store.begin_write()?;
        let (schema, indexes) = (&self.book.shared.schema, &self.book.shared.indexes);
        let (state, _) = rebuild(&transaction, &entries, schema, indexes, writer.head, progress)?;
        drop(entries);
        writer.projections.fold_anew(&transaction)?;
        writer.at_rest = false;
        #[cfg(feature = "search")]
        fieldbook_projections::search::drop_search(&transaction)?;
        let committed = self.book.shared.store.commit(transaction);
        self.book.shared.latest.forget();
        if let Err(error) = committed {
            self.book.shared.fail();
            return Err(error.into());
        }
        *write(&self.book.shared.state) = state;
        self.book.shared.put_tail().inspect_err(|_| self.book.shared.fail())?;
        self.book.shared.live.all_changed();
        Ok(writer.head.map_or(Seq::ZERO, |head| head.seq))
    }

    /// Folds the tables that lag behind up to the present head of the log, in parts, so that other
    /// writes come in between.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn fold_lazy(&self) -> Result<(), Error> {
        let head = self.head()?.map_or(Seq::ZERO, |head| head.seq);
        while self.folded() < head {
            self.book.shared.write_in_turn(|session| {
                session.want_history();
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Folds the tables that lag behind up to the head of the log, without other writes in between.
    fn fold_rest(&self, writer: &mut WriterState) -> Result<(), Error> {
        while self.folded() < writer.head.map_or(Seq::ZERO, |head| head.seq) {
            self.book.shared.fold_next_part(writer)?;
        }
        Ok(())
    }

    /// Returns the entry up to which every table is folded.
    fn folded(&self) -> Seq {
        let state = self.book.shared.state();
        state.history_folded.min(state.tail_folded)
    }
}

impl Book {
    /// Adopts undeclared records whose entity type is declared now.
    pub(crate) fn adopt_what_is_declared_now(&self) -> Result<(), Error> {
        let undeclared = self.shared.snapshot()?.undeclared()?;
        let known = undeclared
            .into_iter()
            .filter(|(key, ..)| self.shared.schema.rules(&key.entity).is_some());
        // The order is that of the server, so a record's versions ascend.
        let mut known: Vec<_> = known.collect();
        known.sort_by_key(|(_, seq, number)| (*seq, *number));
        for part in known.chunks(ADOPTED_AT_ONCE) {
            let adopted = part.iter().map(|(key, seq, number)| Decision::Adopted {
                key: key.clone(),
                seq: *seq,
                number: *number,
            });
            self.shared.decide(adopted.collect())?;
        }
        Ok(())
    }

    /// Upcasts waiting ops to the declared schema versions, so that the app reads them and they are
    /// sent in that form.
    pub(crate) fn upcast_what_waits(&self) -> Result<(), Error> {
        let due: Vec<_> = {
            let tail = self.shared.tail();
            let outgrown = |(entity, form): (&EntityType, u32)| {
                self.shared.schema.rules(entity).is_some_and(|rules| rules.schema_version != form)
            };
            if !tail.sum().forms().any(outgrown) {
                return Ok(());
            }
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

/// Folds the tables of a book's file anew from the log without reading any of them. So a book whose
/// tables are too damaged to open can be used again. `progress` is called with every entry and the
/// number of all entries.
///
/// # Errors
/// [`Error::Store`] as for [`Book::open`], or if the log cannot be read. The tables are unchanged
/// then.
pub fn rebuild_book(
    path: impl AsRef<Path>,
    options: &BookOptions,
    mut progress: impl FnMut(Seq, Seq),
) -> Result<Seq, Error> {
    let store = Store::open(path.as_ref(), &options.store)?;
    let log = entries(&store.begin_read()?)?;
    let (head, schema) = (read_head(&log)?, options.schema.to_fold(&log)?);
    drop(log);
    let last = head.map_or(Seq::ZERO, |head| head.seq);
    refold(&store, &schema, head, |seq| progress(seq, last))?;
    store.close()?;
    Ok(last)
}

/// Opens an exported log ([`Audit::export`]) as a read-only book in memory: its entries are
/// verified and stored, and its tables are folded. The log is in memory twice meanwhile.
///
/// # Errors
/// [`Error::Store`] if the log was altered after it was sealed, or the stream is no exported log;
/// [`Error::EmptyLog`] if the log has no entry.
///
/// ```
/// # use fieldbook::{Book, BookOptions, Fields, RecordKey};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
/// let lead: RecordKey = "lead/42".parse()?;
/// book.records().create(lead.clone(), Fields::parse(r#"{"name":"Ann"}"#)?)?;
/// let mut exported = Vec::new();
/// book.audit().export(&mut exported)?;
///
/// let read = fieldbook::audit::read_export(&mut exported.as_slice(), BookOptions::new("support")?)?;
/// assert_eq!(read.records().get(&lead)?, book.records().get(&lead)?);
/// # Ok(())
/// # }
/// ```
pub fn read_export(reader: &mut impl Read, options: BookOptions) -> Result<Book, Error> {
    read_parts(&mut [reader], options)
}

/// Opens a log whose beginning was trimmed as a read-only book in memory, as it was before: the
/// archives of it, the oldest first, and last the exported log of what is left.
///
/// # Errors
/// [`Error::Store`] as for [`read_export`], or if a part does not go on where the one before ends;
/// [`Error::EmptyLog`].
pub fn read_parts<R: Read>(parts: &mut [&mut R], options: BookOptions) -> Result<Book, Error> {
    let options = options.read_only();
    let store = Store::with_backend(redb::backends::InMemoryBackend::new(), &options.store)?;
    let verified = import_parts(parts.iter_mut().map(|part| &mut **part), &store)?;
    if verified.head.is_none() {
        return Err(Error::EmptyLog);
    }
    Book::start(store, options)
}

/// Folds the tables of a store anew, with the indexes that it has on record, in one commit.
pub(crate) fn refold(
    store: &Store,
    schema: &Schema,
    head: Option<Head>,
    progress: impl FnMut(Seq),
) -> Result<(), Error> {
    let indexes = on_record(store, schema);
    let entries = entries(&store.begin_read()?)?;
    let transaction = store.begin_write()?;
    rebuild(&transaction, &entries, schema, &indexes, head, progress)?;
    catch_storage_panic(|| indexes.put_on_file(&transaction))?;
    drop(entries);
    // The app's own projections are removed: opening the book with them folds them again.
    catch_storage_panic(|| Projections::default().fold_anew(&transaction))?;
    Ok(store.commit(transaction)?)
}

#[cfg(test)]
mod tests {
    use fieldbook_core::log::export;

    use super::*;

    #[test]
    fn a_log_without_an_entry_is_no_fault_of_the_app() {
        let options = BookOptions::new("ann").unwrap();
        let memory = redb::backends::InMemoryBackend::new();
        let store = Store::with_backend(memory, &options.store).unwrap();
        let mut exported = Vec::new();
        export(&entries(&store.begin_read().unwrap()).unwrap(), &mut exported).unwrap();
        let read = read_export(&mut exported.as_slice(), options);
        assert!(matches!(read, Err(Error::EmptyLog)), "{read:?}");
    }
}
