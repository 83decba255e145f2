//! The operations that a store needs to be measured. Each peer does the same work on the same
//! records.
//!
//! 1. A write is durable when the call returns: it survives a loss of power.
//! 2. A write also stores the change that a server still needs, in the same transaction as the
//!    record.
//! 3. A read returns JSON text that the caller owns, or may borrow during the call. It includes
//!    every write that returned before it.
//! 4. A peer is measured at its best: statements prepared once, rows sorted where the other side's
//!    are, the better way where there are several.
//! 5. The input of a peer is made before the clock starts, and is the same for all writers: ids and
//!    JSON text. Everything that a peer does with it is measured, parsing and checks included.
//!    fieldbook receives a page of a server as an answer.

use std::path::Path;

use crate::fieldbook::Fieldbook;
use crate::raw::Raw;
use crate::sample::{Event, Sample};
use crate::sqlite::Sqlite;

/// An error; a benchmark stops at the first one.
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
    #[error("no benchmark has a name like that; --list prints their names")]
    NoSuchBenchmark,
    #[error("missed the goal of: {}", missed.join("; "))]
    Missed { missed: Vec<&'static str> },
    /// A peer that answers wrongly is not measured.
    #[error("{peer} {what}")]
    Wrong { peer: &'static str, what: &'static str },
}

/// The kinds of work. Not every peer does all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Write,
    Read,
    Apply,
    Replay,
}

/// One store, open.
pub(crate) trait Peer {
    /// Prepares the next writes, in their order. This is not measured.
    fn ready(&mut self, _: &[Sample]) -> Result<(), Failure> {
        Ok(())
    }

    /// Does what makes an opening after a kill fast, if the store has such a call. This is not
    /// measured.
    fn rest(&mut self) -> Result<(), Failure>;

    /// Writes one record durably.
    fn write(&mut self, record: &Sample) -> Result<(), Failure>;

    /// Writes records one by one, made durable together by one commit.
    fn write_in_one_commit(&mut self, records: &[Sample]) -> Result<(), Failure>;

    /// Writes records as one transaction: all of them are applied or none, at the server too.
    fn write_as_one(&mut self, records: &[Sample]) -> Result<(), Failure> {
        self.write_in_one_commit(records)
    }

    /// Writes each slice in its own thread. Every record is durable before the thread writes its
    /// next one.
    fn write_from_threads(&mut self, slices: &[&[Sample]]) -> Result<(), Failure>;

    /// Reads records one by one, each in its present state.
    fn read_each(&mut self, ids: &[&str], take: &mut dyn FnMut(&str)) -> Result<(), Failure>;

    /// Borrows records one by one, each in its present state and in place.
    fn look_at_each(&mut self, ids: &[&str], look: &mut dyn FnMut(&str)) -> Result<(), Failure>;

    /// Reads up to `count` records in order of their ids, after the id given, and passes each with
    /// its id to `take`. The caller owns all of them at once.
    fn page(
        &mut self,
        after: &str,
        count: u32,
        take: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure>;

    /// Borrows the same records in place.
    fn look_at_page(
        &mut self,
        after: &str,
        count: u32,
        look: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure>;

    /// Reads the last `count` records of a stage whose value is at most `value`, the highest value
    /// first, by the index of the stage and the value. The caller owns all of them at once.
    fn page_of_stage(
        &mut self,
        stage: &str,
        value: usize,
        count: u32,
        take: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure>;

    /// Prepares the next page to apply. This is not measured.
    fn ready_page(&mut self, _: &[Sample], _: u32) -> Result<(), Failure> {
        Ok(())
    }

    /// Applies one page of a server, sorted by id, and stores the cursor, in one transaction.
    fn apply(&mut self, page: &[Sample], cursor: u32) -> Result<(), Failure>;

    /// Stores a history, in order, each event linked by hash to the event before. This is not
    /// measured.
    fn load(&mut self, history: &mut dyn Iterator<Item = Event>) -> Result<(), Failure>;

    /// Returns the names of the ways to rebuild; the best of them counts.
    fn ways_to_rebuild(&self) -> &'static [&'static str];

    /// Empties the table of records and fills it again from the history.
    fn rebuild(&mut self, way: &'static str) -> Result<(), Failure>;

    /// Reads the whole history and checks every link.
    fn verify(&mut self) -> Result<(), Failure>;
}

/// The default cache of a store, in MiB.
pub(crate) const CACHE: usize = 32;

/// The index of the stage and the value, when a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Index {
    /// As the store has it.
    AsItIs,
    /// It is built, if the store does not have it.
    Built,
    /// It is dropped.
    Dropped,
}

/// The stores that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Raw,
    Sqlite,
    Fieldbook,
}

impl Contender {
    /// All contenders, in the order of the table's columns.
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Sqlite, Self::Fieldbook];

    /// Returns the heading of the contender's column.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "append + fdatasync",
            Self::Sqlite => "SQLite",
            Self::Fieldbook => "fieldbook",
        }
    }

    /// Returns whether the contender does this work. A bare file is only a lower bound for writes.
    pub(crate) const fn does(self, work: Work) -> bool {
        match self {
            Self::Raw => matches!(work, Work::Write | Work::Apply),
            Self::Sqlite | Self::Fieldbook => true,
        }
    }

    /// Opens the contender's store in a folder with a cache of this many MiB. Makes the store if
    /// there is none.
    pub(crate) fn open(
        self,
        folder: &Path,
        cache: usize,
        index: Index,
    ) -> Result<Box<dyn Peer>, Failure> {
        Ok(match self {
            Self::Raw => Box::new(Raw::open(folder)?),
            Self::Sqlite => Box::new(Sqlite::open(folder, cache, index)?),
            Self::Fieldbook => Box::new(Fieldbook::open(folder, cache, index)?),
        })
    }
}
