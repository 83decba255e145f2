//! What a store must be able to do to be measured. Each peer does the same work on the same records.
//!
//! 1. A write is durable when the call returns: what it wrote survives a loss of power.
//! 2. A write keeps what is still owed to a server in the same transaction as the record.
//! 3. A read gives JSON text that the caller owns, or may look at during the call, and sees every write that returned before it.
//! 4. A peer is measured at its best: statements prepared once, rows sorted where the other side's are, the better way
//!    where there are several.
//! 5. What a peer is handed is made ready before the clock runs, and is the same for all where they write: ids and JSON text. What it
//!    does with them is measured, parsing and checks and all. A page of a server is handed to fieldbook as an answer.

use std::path::Path;

use crate::fieldbook::Fieldbook;
use crate::raw::Raw;
use crate::sample::{Event, Sample};
use crate::sqlite::Sqlite;

/// What went wrong; a benchmark stops at the first error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the file system refused")]
    Io(#[from] std::io::Error),
    #[error("SQLite refused")]
    Sqlite(#[from] rusqlite::Error),
    #[error("a stored body is not JSON")]
    Json(#[from] serde_json::Error),
    #[error("a sample could not be made")]
    Sample(#[from] fieldbook_core::InvalidId),
    #[error("the book refused")]
    Book(#[from] ::fieldbook::Error),
    #[error("the book refused a name")]
    Name(#[from] ::fieldbook::error::InvalidName),
    #[error("the book refused a sample's fields")]
    Fields(#[from] ::fieldbook::error::InvalidFields),
    #[error("the server did not {doing}")]
    Server {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("valgrind did not count: {said}")]
    Uncounted { said: String },
    #[error("no benchmark has a name like that; --list tells their names")]
    NoSuchBenchmark,
    /// A peer that answers wrongly is not measured.
    #[error("{peer} {what}")]
    Wrong { peer: &'static str, what: &'static str },
}

/// What can be measured. Not every peer does everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Write,
    Read,
    Apply,
    Replay,
}

/// One store, open.
pub(crate) trait Peer {
    /// Makes the next writes ready, in the order in which they will come. Not measured.
    fn ready(&mut self, _: &[Sample]) -> Result<(), Failure> {
        Ok(())
    }

    /// Writes one record durably.
    fn write(&mut self, record: &Sample) -> Result<(), Failure>;

    /// Writes records one by one, made durable together by one commit.
    fn write_in_one_commit(&mut self, records: &[Sample]) -> Result<(), Failure>;

    /// Writes records as one transaction: what happens to one happens to all, at the server too.
    fn write_as_one(&mut self, records: &[Sample]) -> Result<(), Failure> {
        self.write_in_one_commit(records)
    }

    /// Writes each slice from a thread of its own, every record durable before that thread writes its next one.
    fn write_from_threads(&mut self, slices: &[&[Sample]]) -> Result<(), Failure>;

    /// Reads records one by one, each as of now.
    fn read_each(&mut self, ids: &[&str], take: &mut dyn FnMut(&str)) -> Result<(), Failure>;

    /// Looks at records one by one, each as of now, where they lie.
    fn look_at_each(&mut self, ids: &[&str], look: &mut dyn FnMut(&str)) -> Result<(), Failure>;

    /// Reads up to `count` records in order of their ids, after the id given, and hands over each with its id, all of them owned by
    /// the caller at once.
    fn page(&mut self, after: &str, count: u32, take: &mut dyn FnMut(&str, &str)) -> Result<(), Failure>;

    /// Looks at the same records where they lie.
    fn look_at_page(
        &mut self,
        after: &str,
        count: u32,
        look: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure>;

    /// Makes the next page to apply ready. Not measured.
    fn ready_page(&mut self, _: &[Sample], _: u32) -> Result<(), Failure> {
        Ok(())
    }

    /// Applies one page of what a server said, sorted by id, and remembers the cursor, in one transaction.
    fn apply(&mut self, page: &[Sample], cursor: u32) -> Result<(), Failure>;

    /// Stores a history, in order, each event linked to the one before by hash. Not measured.
    fn load(&mut self, history: &mut dyn Iterator<Item = Event>) -> Result<(), Failure>;

    /// Returns the names of the ways to rebuild; the best of them counts.
    fn ways_to_rebuild(&self) -> &'static [&'static str];

    /// Empties the table of records and fills it again from the history.
    fn rebuild(&mut self, way: &'static str) -> Result<(), Failure>;

    /// Reads the whole history and checks every link.
    fn verify(&mut self) -> Result<(), Failure>;
}

/// How many MiB of its file a store may hold in memory where nothing else is said.
pub(crate) const CACHE: usize = 32;

/// The stores that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Raw,
    Sqlite,
    Fieldbook,
}

impl Contender {
    /// Every one, in the order of the table's columns.
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Sqlite, Self::Fieldbook];

    /// Returns the heading of its column.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "append + fdatasync",
            Self::Sqlite => "SQLite",
            Self::Fieldbook => "fieldbook",
        }
    }

    /// Returns whether it does this work. A bare file is only a floor for what writes.
    pub(crate) const fn does(self, work: Work) -> bool {
        match self {
            Self::Raw => matches!(work, Work::Write | Work::Apply),
            Self::Sqlite | Self::Fieldbook => true,
        }
    }

    /// Opens its store in a folder with so many MiB of cache, making it if there is none.
    pub(crate) fn open(self, folder: &Path, cache: usize) -> Result<Box<dyn Peer>, Failure> {
        Ok(match self {
            Self::Raw => Box::new(Raw::open(folder)?),
            Self::Sqlite => Box::new(Sqlite::open(folder, cache)?),
            Self::Fieldbook => Box::new(Fieldbook::open(folder, cache)?),
        })
    }
}
