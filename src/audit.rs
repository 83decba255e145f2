//! The log of a book: read it, export it, verify it, and follow a record through it, now and in the
//! past.
//!
//! Every change of an app, every answer of the server and every decision is an entry of the log,
//! chained by hashes. The tables that the app reads are folded from it, and can be folded again.
//!
//! ```
//! use fieldbook::audit::{verify_export, Moment};
//! use fieldbook::{Book, BookOptions, Fields, RecordKey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! let lead: RecordKey = "lead/42".parse()?;
//! book.records().create(lead.clone(), Fields::parse(r#"{"name":"Ann"}"#)?)?;
//! let then = book.audit().head()?.expect("something was written").seq;
//! book.records().update(lead.clone(), Fields::parse(r#"{"name":"Anna"}"#)?)?;
//!
//! // The record's history, the book as it was before, and why the record is not synced.
//! assert_eq!(book.audit().timeline(&lead)?.len(), 2);
//! let past = book.at(Moment::Entry(then))?.get_record(&lead)?.expect("it was there");
//! assert_eq!(past.json.as_str(), r#"{"name":"Ann"}"#);
//! println!("{}", book.explain(&lead)?);
//!
//! // The whole log as a stream that any program can verify.
//! let mut exported = Vec::new();
//! book.audit().export(&mut exported)?;
//! let verified = verify_export(&mut exported.as_slice())?;
//! assert_eq!(verified.head, book.audit().head()?);
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: proof against a person who can write the file. That needs a head that was kept
//! elsewhere, such as the one that a server has recorded.

use std::io::Write;
use std::path::Path;

pub use fieldbook_core::codec::CodecError;
pub use fieldbook_core::entry;
use fieldbook_core::entry::{Control, Meta};
pub use fieldbook_core::entry::{Entry, Receipt};
#[cfg(feature = "sign")]
pub use fieldbook_core::log::notes_in_export as notes_of_export;
pub use fieldbook_core::log::{Damage, DamageKind, Head, Verified, survey_export, verify_export};
use fieldbook_core::log::{
    StoreError, copy_database, entries, entries_from, export_in_parts, read_entry, read_head,
};
pub use fieldbook_core::note;
pub use fieldbook_core::record::{Change, Effect};
pub use fieldbook_core::rules::explain::{
    ExplainedConflict, ExplainedOp, ExplainedVersion, Explanation, Seen,
};
pub use fieldbook_core::rules::standing::{Standing, Stood};
use fieldbook_core::rules::story::Teller;
pub use fieldbook_core::rules::story::{
    FieldChange, Kind, Paragraph, Sentence, Stories, Weight, changes, gap, shown as shown_value,
};
pub use fieldbook_core::{DeviceId, Epoch, Hash, Hlc, InvalidHash, InvalidId, Seq};
use fieldbook_core::{EntityType, RecordKey};
pub use fieldbook_projections::{KeptBy, TableFault, TableFaultKind};
use fieldbook_projections::{ProjectionRow, follow_range, follow_record, history_of, last_of_book};

pub use crate::at::{
    At, Found, InvalidWhen, Moment, Offsets, SetBack, When, Zone, offset_shown, shown,
};
use crate::authors::authors_after;
use crate::book::Book;
pub use crate::compact::{Compaction, CompactionPlan, CompactionPolicy, KeptBack};
use crate::error::Error;
#[cfg(feature = "sign")]
pub use crate::evidence::notes_of_book;
pub use crate::examine::{Examination, Finding, examine_book};
pub use crate::maintain::{read_export, read_parts, rebuild_book};
use crate::projection::ProjectionStatus;
pub use crate::salvage::{Salvage, salvage_book};
pub use crate::walk::WalkStep;

/// The result of verifying a whole log.
#[derive(Debug)]
#[must_use = "damage is a value, not an error"]
pub enum Verification {
    /// Every entry is as it was sealed.
    Sound(Verified),
    /// At least one entry was altered. This is the first of them.
    Damaged(Damage),
}

impl Verification {
    /// Returns whether every entry is as it was sealed.
    pub const fn is_sound(&self) -> bool {
        matches!(self, Self::Sound(_))
    }

    /// Returns what was verified.
    ///
    /// # Errors
    /// The first [`Damage`], if an entry was altered.
    pub fn into_result(self) -> Result<Verified, Damage> {
        match self {
            Self::Sound(verified) => Ok(verified),
            Self::Damaged(damage) => Err(damage),
        }
    }
}

/// The result of comparing the tables with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a difference is a value, not an error"]
pub struct TableCheck {
    /// The names of the tables that differed from the log. The check has folded them anew.
    pub differing: Vec<&'static str>,
}

impl TableCheck {
    /// Returns whether all tables matched the log.
    pub const fn is_sound(&self) -> bool {
        self.differing.is_empty()
    }
}

/// The log of a book, with its maintenance: [`Book::audit`].
///
/// ```
/// use fieldbook::audit::Seq;
/// # use fieldbook::{Book, BookOptions, Fields};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
/// # book.records().create("lead/42".parse()?, Fields::parse(r#"{"name":"Ann"}"#)?)?;
/// let entries = book.audit().entries(Seq::ZERO, 100)?;
/// let head = book.audit().head()?.expect("a book has at least the entry that opened it");
/// assert_eq!(entries.last().map(|entry| entry.hash), Some(head.hash));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Audit<'b> {
    pub(crate) book: &'b Book,
}

impl<'b> Audit<'b> {
    /// Returns the id of this device.
    pub fn device(&self) -> Option<DeviceId> {
        self.book.shared.state().device
    }

    /// Returns the present epoch of the log.
    pub fn epoch(&self) -> Option<Epoch> {
        self.book.shared.state().epoch
    }

    /// Returns the last entry's place, hash and clock.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub fn head(&self) -> Result<Option<Head>, Error> {
        Ok(read_head(&self.book.shared.snapshot()?.entries()?)?)
    }

    /// Returns the size of the book's file on disk, in bytes, free pages included. It waits for no
    /// write, and its cost does not depend on the size.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn used_bytes(&self) -> Result<u64, Error> {
        Ok(self.book.shared.store.with(fieldbook_core::log::Store::file_bytes)?)
    }

    /// Returns the entity types that have records in the book.
    ///
    /// # Errors
    /// [`Error::Store`] if a key cannot be read.
    pub fn entity_types(&self) -> Result<Vec<EntityType>, Error> {
        Ok(self.book.shared.snapshot()?.entity_types()?)
    }

    /// Returns the state of each of the app's projections that the book has.
    ///
    /// # Errors
    /// [`Error::Store`] if a row cannot be read.
    pub fn projections(&self) -> Result<Vec<ProjectionStatus>, Error> {
        let rows = self.book.shared.snapshot()?.projections()?.into_iter();
        Ok(rows
            .map(|(name, ProjectionRow { version, broken, .. })| ProjectionStatus {
                name,
                version,
                broken,
            })
            .collect())
    }

    /// Writes the log up to its present end as a stream that other programs can verify
    /// (`docs/log-format.md`), and returns the number of entries. The log is read in parts, so a
    /// slow writer keeps no pages of the file in use.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read or the writer fails.
    pub fn export(&self, writer: &mut impl Write) -> Result<u64, Error> {
        Ok(export_in_parts(|| entries(&self.book.shared.store.begin_read()?), writer)?)
    }

    /// Copies the whole book, as the last commit left it, into a new file, and returns the number
    /// of rows. Writers go on meanwhile. The copy is a book that opens by itself and verifies.
    /// `progress` is called with the number of copied rows and of all rows. A panic in it ends the
    /// call, and nothing new is at the path.
    ///
    /// A copy of the file by other means is torn if the book is written meanwhile. What a device
    /// sends after it was restored from a backup continues an older log: the server notices this,
    /// and the log starts a new epoch. Never use a book and its backup at the same time.
    ///
    /// ```
    /// # use fieldbook::{Book, BookOptions, Fields};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
    /// book.audit().backup(folder.path().join("crm.backup"), |_, _| {})?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`]: the path exists, its folder is missing, the disk failed or is full, or a
    /// row cannot be read. Nothing new is at the path then, unless only the folder could not be
    /// synced.
    pub fn backup(
        &self,
        path: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<u64, Error> {
        let snapshot = self.book.shared.store.begin_read()?;
        Ok(copy_database(&snapshot, path.as_ref(), &mut progress)?)
    }

    /// Returns the entries from a place on, at most `limit` of them.
    ///
    /// # Errors
    /// [`Error::Store`] if an entry cannot be read.
    pub fn entries(&self, from: Seq, limit: usize) -> Result<Vec<Entry>, Error> {
        let snapshot = self.book.shared.snapshot()?;
        let entries = snapshot.entries()?;
        let found: Result<Vec<_>, StoreError> = entries_from(&entries, from).take(limit).collect();
        Ok(found?)
    }

    /// Returns every entry that concerns a record, oldest first: its changes, the plans with them,
    /// the answers to these, and the decisions about it.
    ///
    /// # Errors
    /// [`Error::Store`] if an entry cannot be read.
    pub fn timeline(&self, key: &RecordKey) -> Result<Vec<Entry>, Error> {
        // A read-only book keeps nothing that it folds, so its log is searched instead.
        if !self.book.shared.store.is_read_only() {
            self.fold_lazy()?;
        }
        let snapshot = self.book.shared.snapshot()?;
        let log = snapshot.entries()?;
        let missing =
            |seq| StoreError::Corrupt { what: "an entry is missing", seq: Some(seq), source: None };
        let entries = history_of(&snapshot, key)?.into_iter();
        entries.map(|seq| Ok(read_entry(&log, seq)?.ok_or_else(|| missing(seq))?)).collect()
    }

    /// Passes entries to `tell`, oldest first, with what each made of the records that it touched:
    /// all entries of a range, or those about one record, which costs only these.
    ///
    /// # Errors
    /// [`Error::Store`] if an entry cannot be read.
    pub fn follow(
        &self,
        about: Option<&RecordKey>,
        from: Seq,
        upto: Seq,
        mut tell: impl FnMut(&Entry, &[Effect]),
    ) -> Result<(), Error> {
        let (snapshot, schema) = (self.book.shared.snapshot()?, &self.book.shared.schema);
        match about {
            Some(key) => follow_record(&snapshot, schema, key, upto, |entry, effects| {
                if entry.header.seq >= from {
                    tell(entry, effects);
                }
            })?,
            None => follow_range(&snapshot, schema, from, upto, tell)?,
        }
        Ok(())
    }

    /// Tells what happened in sentences: to one record, or on the device, from one entry to
    /// another. An exchange with the server is one paragraph.
    ///
    /// ```
    /// use fieldbook::audit::Seq;
    /// # use fieldbook::{Book, BookOptions, Fields, RecordKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("ann")?)?;
    /// let lead: RecordKey = "lead/42".parse()?;
    /// book.records().create(lead.clone(), Fields::parse(r#"{"stage":"new"}"#)?)?;
    /// book.records().update(lead.clone(), Fields::parse(r#"{"stage":"won"}"#)?)?;
    /// let story = book.audit().story(Some(&lead), Seq::ZERO, Seq::new(u64::MAX))?;
    /// let told: Vec<_> = story.iter().map(|paragraph| paragraph.text()).collect();
    /// assert_eq!(told, [
    ///     r#"ann created it: stage "new"."#,
    ///     r#"ann changed stage from "new" to "won"."#,
    /// ]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`] if an entry cannot be read.
    pub fn story(
        &self,
        about: Option<&RecordKey>,
        from: Seq,
        upto: Seq,
    ) -> Result<Vec<Paragraph>, Error> {
        let mut teller = Teller::new(about.cloned());
        let first = if about.is_some() { Seq::ZERO } else { from };
        let log = self.book.shared.snapshot()?.entries()?;
        let mut unread = Ok(());
        self.follow(about, first, upto, |entry, effects| match authors_after(&log, entry) {
            Ok(authors) => teller.tell(entry, effects, &authors),
            Err(error) => unread = Err(error),
        })?;
        unread?;
        let mut told = teller.end();
        told.retain(|paragraph| paragraph.to >= from);
        Ok(told)
    }

    /// Folds the log up to an entry in memory: the book as it was then. [`Book::at`] returns the
    /// same at a cost that follows what changed since.
    ///
    /// # Errors
    /// [`Error::NoSuchEntry`] for an entry after the end of the log; [`Error::Store`] if an entry
    /// cannot be read.
    pub fn replay_at(&self, seq: Seq) -> Result<At<'b>, Error> {
        At::folded(self.book, seq)
    }

    /// Returns the offset of the device's clock from UTC at an entry, in minutes to the east, as
    /// the last opening up to there recorded it; `None` if it is not on record.
    ///
    /// # Errors
    /// [`Error::Store`] if an entry cannot be read.
    pub fn offset_at(&self, seq: Seq) -> Result<Option<i32>, Error> {
        let opened = last_of_book(&self.book.shared.snapshot()?, seq, |entry| {
            matches!(entry.meta, Meta::Control(Control::Session(_)))
        })?;
        Ok(match opened.as_ref().map(|entry| &entry.meta) {
            Some(Meta::Control(Control::Session(session))) => session.utc_offset,
            _ => None,
        })
    }
}
