//! Examining a book's file: everything in it is looked at, and everything that is wrong with it is told.
//!
//! ```text
//!   the log ─► every table ─► what the server knows ─► every page ─► opening it ─► (tables) folding it anew, in memory
//! ```
//!
//! Invariants:
//! 1. The file keeps its every byte: it is opened for reading, and what the engine writes stays in memory.
//! 2. Nothing that is found keeps the rest from being looked at. Each part is read from an opening of its own, since nothing
//!    may be read on from where the engine stumbled over a damaged page.
//! 3. What is found is bounded; what is beyond is counted.
//!
//! What it is not: proof against whoever can write the file. That needs a head which someone else knows.

use std::path::Path;

use fieldbook_core::entry::Receipt;
use fieldbook_core::log::{
    Damage, DamageKind, Store, StoreError, StoreOptions, Verified, entries, guarded, read_entry, survey,
};
use fieldbook_core::{Hash, Seq};
use fieldbook_projections::{Snapshot, TableFault, TableFaultKind, examine_tables};

use crate::book::Book;
use crate::error::Error;
use crate::options::BookOptions;

/// How many findings are listed; more are only counted.
const LISTED: usize = 100;

/// What looking at the whole of a book's file came to.
#[derive(Debug, Default)]
pub struct Examination {
    /// What was seen of the log: every entry that is there counts, damaged or not.
    pub log: Verified,
    /// What is wrong, in the order in which it was looked at; the first hundred.
    pub findings: Vec<Finding>,
    /// How many findings there are besides.
    pub unlisted: u64,
    /// How far the server knows this log, as the file says of itself. The entry there has that hash.
    pub anchor: Option<Receipt>,
}

/// Something that is wrong with a book's file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// An entry of the log is damaged.
    #[error(transparent)]
    Entry(#[from] Damage),
    /// A table is damaged, or knows of more than the log holds.
    #[error(transparent)]
    Table(#[from] TableFault),
    /// The log has another entry than the one that the file says the server knows.
    #[error(
        "entry {seq} is not the one that the server was told of, as the file itself has it: the log was written anew or cut"
    )]
    NotAnchored {
        /// The entry.
        seq: Seq,
    },
    /// The last entry is not the one that was expected.
    #[error("the log does not end as expected: its head is {head}, not {expected}")]
    OtherHead {
        /// The hash that it has.
        head: Hash,
        /// The hash that it was to have.
        expected: Hash,
    },
    /// A page of the file is not what was written, though perhaps none that anything was read from.
    #[error("the file has damaged pages")]
    Pages {
        /// How that shows.
        #[source]
        source: Error,
    },
    /// The book cannot be opened.
    #[error("the book cannot be opened")]
    Unopened {
        /// Why not.
        #[source]
        source: Error,
    },
    /// A table is not what the log folds to.
    #[error("the table of {table} is not what follows from the log")]
    Differs {
        /// What the table is called.
        table: &'static str,
    },
    /// The log could not be folded.
    #[error("the tables could not be folded anew from the log")]
    Unfolded {
        /// Why not.
        #[source]
        source: Error,
    },
}

impl Finding {
    /// Returns the entry that is damaged, if it is one.
    pub const fn entry(&self) -> Option<Seq> {
        match self {
            Self::Entry(damage) => Some(damage.seq),
            Self::NotAnchored { seq } => Some(*seq),
            _ => None,
        }
    }

    /// Returns whether there may be entries that could not be looked at for it.
    pub const fn hides_entries(&self) -> bool {
        matches!(
            self,
            Self::Entry(Damage { kind: DamageKind::Unreadable { .. } | DamageKind::Missing { .. }, .. })
        ) || self.is_cut()
    }

    /// Returns whether it shows that the end of the log is missing.
    pub const fn is_cut(&self) -> bool {
        matches!(self, Self::Table(TableFault { what: TableFaultKind::BehindTheLog { .. }, .. }))
    }
}

impl Examination {
    /// Returns whether nothing was found.
    pub const fn is_sound(&self) -> bool {
        self.findings.is_empty()
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

/// Looks at everything in a book's file: the log, every row of every table, every page, and whether it opens; with `fold`, also
/// whether the tables are what the log folds to. The file keeps its every byte. `progress` hears how many entries were looked
/// at, and of how many.
///
/// `fold` needs memory for all records. It leaves out what depends on what the app declares: indexes, and what ops refer to.
///
/// # Errors
/// [`Error::Store`] as for [`Book::open`], if there is no file that could be a book, or someone else has it open. Damage is a
/// finding, not an error.
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
    match guarded(|| Book::open(path, options.look_only())) {
        Err(source) => found.find(Finding::Unopened { source }),
        Ok(book) if fold => {
            match guarded(|| book.audit().differing_tables(true)) {
                Ok(tables) => tables.into_iter().for_each(|table| found.find(Finding::Differs { table })),
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
    let total = guarded(|| {
        redb::ReadableTableMetadata::len(&entries).map_err(StoreError::during("counting the entries"))
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
        let transaction = guarded(|| store.begin_read());
        opened.push(store);
        transaction
    };
    let looked = guarded(|| examine_tables(begin, last, |fault| found.find(fault)));
    if let Err(error) = looked {
        found.find(Finding::Unopened { source: error.into() });
    }
    opened.into_iter().for_each(dropped);
}

fn look_at_anchor(store: &Store, found: &mut Examination) -> Result<(), Error> {
    // A state row that does not read was told of with its table.
    let Ok(state) = guarded(|| Snapshot::new(store.begin_read()?).state()) else { return Ok(()) };
    let Some(anchor) = state.anchor else { return Ok(()) };
    let entries = entries(&store.begin_read()?)?;
    match read_entry(&entries, anchor.seq) {
        Ok(Some(entry)) if entry.hash == anchor.hash => found.anchor = Some(anchor),
        // One that does not read was told of with the log.
        Err(_) => {}
        Ok(_) => found.find(Finding::NotAnchored { seq: anchor.seq }),
    }
    Ok(())
}

/// Opens the file to look at it, and lets go of it however that ends.
fn with_store<T>(path: &Path, look: impl FnOnce(&mut Store) -> Result<T, Error>) -> Result<T, Error> {
    let mut store = Store::open(path, &looking())?;
    let looked = guarded(|| look(&mut store));
    dropped(store);
    looked
}

/// Drops what may have been left half-read, which may panic.
fn dropped<T>(what: T) {
    drop(guarded(|| {
        drop(what);
        Ok::<_, StoreError>(())
    }));
}

fn looking() -> StoreOptions {
    StoreOptions { look_only: true, ..StoreOptions::default() }
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Store(store) if matches!(**store, StoreError::Corrupt { .. } | StoreError::Poisoned))
}
