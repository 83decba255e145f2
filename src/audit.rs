//! The log of a book: read it, export it, verify it, and follow a record through it, now and in the
//! past.
//!
//! Every change of an app, every answer of the server and every decision is an entry of the log,
//! chained by hashes. The tables that the app reads are folded from it, and can be folded again.
//!
//! ```
//! use fieldbook::audit::{verify_export, Seq};
//! use fieldbook::{Book, BookOptions, Fields, RecordKey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! let lead: RecordKey = "lead/42".parse()?;
//! book.create(lead.clone(), Fields::parse(r#"{"name":"Ann"}"#)?)?;
//! let then = book.audit().head()?.expect("something was written").seq;
//! book.update(lead.clone(), Fields::parse(r#"{"name":"Anna"}"#)?)?;
//!
//! // The record's history, the book as it was before, and why the record is not synced.
//! assert_eq!(book.audit().timeline(&lead)?.len(), 2);
//! let past = book.audit().replay_at(then)?.get_record(&lead).expect("it was there");
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

pub use fieldbook_core::codec::CodecError;
pub use fieldbook_core::entry;
pub use fieldbook_core::entry::{Entry, Receipt};
pub use fieldbook_core::log::{Damage, DamageKind, Head, Verified, survey_export, verify_export};
use fieldbook_core::log::{
    StoreError, entries, entries_from, export_in_parts, read_entry, read_head,
};
pub use fieldbook_core::rules::explain::{
    ExplainedConflict, ExplainedOp, ExplainedVersion, Explanation, Seen,
};
pub use fieldbook_core::{DeviceId, Epoch, Hash, Hlc, InvalidHash, InvalidId, Seq};
use fieldbook_core::{EntityType, RecordKey};
use fieldbook_projections::{ProjectionRow, Rebuilt, fold};
pub use fieldbook_projections::{TableFault, TableFaultKind};

use crate::book::Book;
use crate::error::Error;
pub use crate::examine::{Examination, Finding, examine_book};
pub use crate::maintain::rebuild_book;
use crate::projection::ProjectionStatus;
use crate::record::Record;

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
/// # book.create("lead/42".parse()?, Fields::parse(r#"{"name":"Ann"}"#)?)?;
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

impl Audit<'_> {
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
        Ok(self.book.shared.store.file_bytes()?)
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
            .map(|(name, ProjectionRow { version, broken })| ProjectionStatus {
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

    /// Returns every entry that concerns a record, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`] if an entry cannot be read.
    pub fn timeline(&self, key: &RecordKey) -> Result<Vec<Entry>, Error> {
        self.fold_lazy()?;
        let snapshot = self.book.shared.snapshot()?;
        let log = snapshot.entries()?;
        let missing =
            |seq| StoreError::Corrupt { what: "an entry is missing", seq: Some(seq), source: None };
        let entries = snapshot.history(key)?.into_iter();
        entries.map(|seq| Ok(read_entry(&log, seq)?.ok_or_else(|| missing(seq))?)).collect()
    }

    /// Folds the log up to an entry in memory: the book as it was then.
    ///
    /// # Errors
    /// [`Error::Store`] if an entry cannot be read.
    pub fn replay_at(&self, seq: Seq) -> Result<Past, Error> {
        let snapshot = self.book.shared.snapshot()?;
        Ok(Past { rebuilt: fold(&snapshot.entries()?, &self.book.shared.schema, seq, |_| {})? })
    }
}

/// A book as it was after an entry. It is in memory and read-only.
pub struct Past {
    rebuilt: Rebuilt,
}

impl Past {
    /// Returns a record as the app read it then.
    pub fn get_record(&self, key: &RecordKey) -> Option<Record> {
        self.rebuilt.tables().records.get(key).and_then(|row| Record::from_row(key.clone(), row))
    }
}

impl std::fmt::Debug for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Past({} records)", self.rebuilt.tables().records.len())
    }
}
