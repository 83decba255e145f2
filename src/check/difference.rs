//! The result of a check, as data.

use fieldbook_core::protocol::Failure;
use fieldbook_core::rules::compare::Side;
use fieldbook_core::{RecordKey, Version};
use fieldbook_transport::Stopped;

use crate::error::Error;

/// The records in which a book and its server differ: the result of
/// [`Book::check`](crate::Book::check).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Difference {
    /// Records that the server has and the book does not, in the order of keys.
    pub missing: Vec<Differing>,
    /// Records that the book has as confirmed and the server does not, in the order of keys.
    pub extra: Vec<Differing>,
    /// Records that both have in different versions, in the order of keys.
    pub other_version: Vec<Differing>,
    /// Whether more records differ than are listed: a check lists at most
    /// [`limits::CHECK_LISTED`](crate::limits::CHECK_LISTED).
    pub more: bool,
    /// The number of compared records that are no difference although they may look like one: those
    /// with pending ops, which were compared as they are confirmed, and those that the server
    /// changed after what the book has read.
    pub pending: u64,
    /// The number of records that differ because the book set the server's row aside: this program
    /// cannot hold it.
    pub set_aside: u64,
    /// The number of live records of the book that were compared.
    pub records_compared: u64,
    /// The entity types that were not compared, with the reason.
    pub not_compared: Vec<NotComparedType>,
    /// The commit of the server at which its digests stood.
    pub commit: Version,
    /// The requests for the comparison.
    pub requests: u32,
    /// The bytes of their bodies that left the device.
    pub bytes_sent: u64,
    /// The bytes of their answers that arrived.
    pub bytes_received: u64,
}

impl Difference {
    pub(super) fn at(commit: Version) -> Self {
        Self { commit, ..Self::default() }
    }

    /// Puts the lists in the order of keys.
    pub(super) fn sorted(mut self) -> Self {
        for list in [&mut self.missing, &mut self.extra, &mut self.other_version] {
            list.sort_by(|one, other| one.key.cmp(&other.key));
        }
        self
    }

    /// Returns whether no record differs.
    pub fn is_empty(&self) -> bool {
        self.records() == 0
    }

    /// Returns the number of listed records.
    pub fn records(&self) -> usize {
        self.missing.len() + self.extra.len() + self.other_version.len()
    }
}

/// One record of a [`Difference`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// The record.
    pub key: RecordKey,
    /// The version that the book has as confirmed, of a deletion too; `None` if it has none.
    pub book: Option<Version>,
    /// The version that the server has, of a deletion too; `None` if it never had the record.
    pub server: Option<Version>,
}

/// What [`Book::mend`](crate::Book::mend) did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Mended {
    /// The number of records whose state at the server was applied.
    pub fetched: u64,
    /// The number of records that the book let go of.
    pub let_go: u64,
    /// The records that were left as they are: those with pending ops that the server does not
    /// have, and those whose row at the server this program cannot hold.
    pub left: Vec<RecordKey>,
}

/// Returns the version of a side; `None` if it never had the record.
pub(super) fn known(side: Side) -> Option<Version> {
    Some(side.version).filter(|version| *version > Version::default())
}

/// An entity type that was not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotComparedType {
    /// The entity type, as the server or the book writes it.
    pub entity: String,
    /// The reason.
    pub reason: NotCompared,
}

/// Why an entity type is not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotCompared {
    /// Its records never leave the device.
    LocalOnly,
    /// The app does not declare it. Its records are kept until it does.
    Undeclared,
    /// Its name breaks the rule for names: its records are set aside.
    Foreign,
}

/// A check that has no result, or a difference that was not mended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The run before the check ended early, so the book may lack what is new at the server. The
    /// app's reaction: as after such a sync.
    #[error("the book could not be brought up to date, so nothing was compared: sync it first")]
    NotUpToDate {
        /// Why the run ended.
        stopped: Stopped,
    },
    /// The server, or the app's own remote, cannot compare: it is older than comparisons.
    #[error("the server cannot compare: upgrade it")]
    CannotCompare,
    /// Another server, another epoch of it, or another tenant answered. The next sync says which.
    #[error("another server than the book's own answered: sync the book")]
    OtherServer,
    /// The server cannot be reached, or does not answer.
    #[error("the server did not compare ({}): try again", .0.code())]
    Failed(Failure),
    /// The answer cannot be true. Nothing was changed.
    #[error("the server's answer cannot be true ({code}): check the server")]
    Misbehaved {
        /// The part that cannot be true.
        code: &'static str,
    },
    /// The server has older versions of these records than the book, so it was set back: nothing of
    /// this answer was mended. The operator declares the store as restored (`fieldbook restored`),
    /// and the user accepts the server; then the book offers what the server lacks. If nobody set
    /// the server back, the tables of the book are damaged: rebuild them.
    #[error(
        "the server has older versions of {} records than the book, so it was set back: \
         declare it as restored and accept it, or rebuild the book if nobody set it back",
        .records.len()
    )]
    SetBack {
        /// The records.
        records: Vec<Differing>,
    },
    /// The book failed.
    #[error(transparent)]
    Book(#[from] Error),
}
