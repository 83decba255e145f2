//! The examination of a book's file: it checks all parts and reports all faults.
//!
//! ```text
//!   the log ─► every table ─► the anchor ─► every page ─► open it ─► (tables) fold it anew, in memory
//! ```
//!
//! Invariants:
//! 1. No byte of the file changes: the file is opened read-only, and the storage engine writes to
//!    memory.
//! 2. A fault in one part does not stop the check of another. Each part is read after opening the
//!    file anew, because the storage engine must not continue after it met a damaged page.
//! 3. The list of findings is bounded; further findings are counted.
//!
//! What it is not: proof against a person who can write the file. That needs a head that was kept
//! elsewhere.

use std::path::Path;

use fieldbook_core::entry::Receipt;
use fieldbook_core::log::{
    Damage, DamageKind, Store, StoreError, StoreOptions, Verified, catch_storage_panic, entries,
    read_entry, survey,
};
use fieldbook_core::{Hash, Seq};
use fieldbook_projections::{Snapshot, TableFault, TableFaultKind, examine_tables};

use crate::book::Book;
use crate::error::Error;
use crate::options::BookOptions;

/// The most findings in the list. Further ones are counted.
const LISTED: usize = 100;

/// The result of examining a book's file.
#[derive(Debug, Default)]
pub struct Examination {
    /// The entries of the log, damaged ones included.
    pub log: Verified,
    /// The first hundred faults, in the order in which they were found.
    pub findings: Vec<Finding>,
    /// The number of further faults.
    pub unlisted: u64,
    /// The anchor according to the file itself. The entry there has that hash.
    pub anchor: Option<Receipt>,
}

/// A fault of a book's file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// An entry of the log is damaged.
    #[error(transparent)]
    Entry(#[from] Damage),
    /// A table is damaged, or refers to entries that the log does not have.
    #[error(transparent)]
    Table(#[from] TableFault),
    /// An entry of the log differs from the anchor in the file.
    #[error(
        "entry {seq} differs from the one that the receipt in this file is for: the log was rewritten or cut"
    )]
    NotAnchored {
        /// The entry.
        seq: Seq,
    },
    /// A signed note contradicts the log.
    #[cfg(feature = "sign")]
    #[error(transparent)]
    Note(#[from] fieldbook_core::note::NoteFault),
    /// The last entry has another hash than expected.
    #[error("the log does not end as expected: its head is {head}, not {expected}")]
    OtherHead {
        /// Its hash.
        head: Hash,
        /// The expected hash.
        expected: Hash,
    },
    /// A page of the file differs from what was written. Perhaps no other check reads it.
    #[error("the file has damaged pages")]
    Pages {
        /// The error that shows it.
        #[source]
        source: Error,
    },
    /// The book cannot be opened.
    #[error("the book cannot be opened")]
    Unopened {
        /// The cause.
        #[source]
        source: Error,
    },
    /// A table differs from the log.
    #[error("the table of {table} does not match the log")]
    Differs {
        /// The name of the table.
        table: &'static str,
    },
    /// The log could not be folded.
    #[error("the tables could not be folded anew from the log")]
    Unfolded {
        /// The cause.
        #[source]
        source: Error,
    },
}

impl Finding {
    /// Returns the entry that is damaged, if the finding is about an entry.
    pub const fn entry(&self) -> Option<Seq> {
        match self {
            Self::Entry(damage) => Some(damage.seq),
            Self::NotAnchored { seq } => Some(*seq),
            #[cfg(feature = "sign")]
            Self::Note(fault) => Some(fault.noted()),
            _ => None,
        }
    }

    /// Returns whether entries may exist that could not be checked because of this fault.
    pub const fn hides_entries(&self) -> bool {
        matches!(
            self,
            Self::Entry(Damage {
                kind: DamageKind::Unreadable { .. } | DamageKind::Missing { .. },
                ..
            })
        ) || self.is_cut()
    }

    /// Returns whether a signed note contradicts the log: every hash can be right all the same.
    pub const fn is_of_a_note(&self) -> bool {
        #[cfg(feature = "sign")]
        let is_of_a_note = matches!(self, Self::Note(_));
        #[cfg(not(feature = "sign"))]
        let is_of_a_note = false;
        is_of_a_note
    }

    /// Returns whether the end of the log is missing.
    pub const fn is_cut(&self) -> bool {
        matches!(self, Self::Table(TableFault { what: TableFaultKind::BehindTheLog { .. }, .. }))
    }
}

impl Examination {
    /// Returns whether the list of findings is empty.
    pub const fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// Returns whether the log is as it was sealed, so that the tables can be folded anew from it.
    pub fn log_is_sound(&self) -> bool {
        self.log.head.is_some()
            && !self.findings.iter().any(|finding| {
                matches!(
                    finding,
                    Finding::Entry(_) | Finding::NotAnchored { .. } | Finding::OtherHead { .. }
                ) || finding.is_cut()
                    || finding.is_of_a_note()
            })
    }

    /// Adds a finding.
    pub fn find(&mut self, finding: impl Into<Finding>) {
        if self.findings.len() < LISTED {
            self.findings.push(finding.into());
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }
}

/// Checks everything in a book's file: the log, every row of every table, every page, and whether
/// the book opens. With `fold` it also compares the tables with the log. No byte of the file
/// changes. `progress` is called with the number of checked entries and of all entries.
///
/// `fold` needs memory for all records. It leaves out the tables that depend on the app's
/// declarations: indexes, and references of ops.
///
/// # Errors
/// [`Error::Store`] as for [`Book::open`], if the file does not exist or is open elsewhere. Damage
/// is a finding, not an error.
pub fn examine_book(
    path: impl AsRef<Path>,
    options: BookOptions,
    fold: bool,
    progress: impl FnMut(u64, u64),
) -> Result<Examination, Error> {
    let path = path.as_ref();
    let mut found = Examination::default();
    match with_store(path, |store| look_at_log(store, &mut found, progress)) {
        Ok(()) => {}
        Err(error) if is_damage(&error) => {
            found.find(Finding::Unopened { source: error });
            return Ok(found);
        }
        Err(error) => return Err(error),
    }
    look_at_tables(path, &mut found);
    if let Err(error) = with_store(path, |store| look_at_anchor(store, &mut found)) {
        found.find(Finding::Unopened { source: error });
    }
    if let Err(source) = with_store(path, |store| Ok(store.check_pages()?)) {
        found.find(Finding::Pages { source });
    }
    match catch_storage_panic(|| Book::open(path, options.read_only())) {
        Err(source) => found.find(Finding::Unopened { source }),
        Ok(book) if fold => {
            match catch_storage_panic(|| book.audit().differing_tables(true)) {
                Ok(tables) => {
                    tables.into_iter().for_each(|table| found.find(Finding::Differs { table }))
                }
                Err(source) => found.find(Finding::Unfolded { source }),
            }
            dropped(book);
        }
        Ok(book) => dropped(book),
    }
    Ok(found)
}

fn look_at_log(
    store: &Store,
    found: &mut Examination,
    mut progress: impl FnMut(u64, u64),
) -> Result<(), Error> {
    let entries = entries(&store.begin_read()?)?;
    let total = catch_storage_panic(|| {
        redb::ReadableTableMetadata::len(&entries)
            .map_err(StoreError::during("counting the entries"))
    })?;
    let mut damages = Vec::new();
    let mut unlisted = 0;
    found.log = survey(
        &entries,
        |done| progress(done, total),
        |damage| {
            if damages.len() < LISTED {
                damages.push(damage);
            } else {
                unlisted += 1;
            }
        },
    );
    damages.into_iter().for_each(|damage| found.find(damage));
    found.unlisted += unlisted;
    Ok(())
}

fn look_at_tables(path: &Path, found: &mut Examination) {
    let last = found.log.head.map_or(Seq::ZERO, |head| head.seq);
    let mut opened: Vec<Store> = Vec::new();
    let begin = || {
        let store = Store::open(path, &looking())?;
        let transaction = catch_storage_panic(|| store.begin_read());
        opened.push(store);
        transaction
    };
    let looked = catch_storage_panic(|| examine_tables(begin, last, |fault| found.find(fault)));
    if let Err(error) = looked {
        found.find(Finding::Unopened { source: error.into() });
    }
    opened.into_iter().for_each(dropped);
}

fn look_at_anchor(store: &Store, found: &mut Examination) -> Result<(), Error> {
    // A state row that cannot be read was reported with its table.
    let Ok(state) = catch_storage_panic(|| Snapshot::new(store.begin_read()?).state()) else {
        return Ok(());
    };
    // The entry of a receipt that was trimmed cannot be compared.
    let is_there = |anchor: &Receipt| state.trimmed.is_none_or(|upto| anchor.seq >= upto);
    let Some(anchor) = state.anchor.filter(is_there) else { return Ok(()) };
    let entries = entries(&store.begin_read()?)?;
    match read_entry(&entries, anchor.seq) {
        Ok(Some(entry)) if entry.hash == anchor.hash => found.anchor = Some(anchor),
        // An entry that cannot be read was reported with the log.
        Err(_) => {}
        Ok(_) => found.find(Finding::NotAnchored { seq: anchor.seq }),
    }
    Ok(())
}

/// Opens the file read-only, and closes it however the check ends.
fn with_store<T>(
    path: &Path,
    look: impl FnOnce(&mut Store) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut store = Store::open(path, &looking())?;
    let looked = catch_storage_panic(|| look(&mut store));
    dropped(store);
    looked
}

/// Drops a value that may be read in part. The drop may panic.
fn dropped<T>(what: T) {
    drop(catch_storage_panic(|| {
        drop(what);
        Ok::<_, StoreError>(())
    }));
}

fn looking() -> StoreOptions {
    StoreOptions { read_only: true, ..StoreOptions::default() }
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Store(store) if matches!(**store, StoreError::Corrupt { .. } | StoreError::Poisoned))
}
