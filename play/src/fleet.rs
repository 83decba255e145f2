//! The devices: one book for each author. Only some are open at a time.
//!
//! Invariants:
//! 1. At most [`OPEN_BOOKS`] books are open. The book that was used longest ago is closed for
//!    another.
//! 2. A book has other randomness each time it is opened, and the same in every play with the same
//!    seed.
//! 3. A device's clock stays when its book is closed.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::record::OpId;
use fieldbook::{Actor, Book, BookOptions, EntityRules, Schema};

use crate::clock::VirtualClock;
use crate::failure::Failure;
use crate::scratch::Scratch;
use crate::write::Late;

/// The most open books.
const OPEN_BOOKS: usize = 3;
/// The cache of each open book, in bytes. Few books with a large cache are faster than many with a
/// small one: pages that a commit changes and that do not fit are written, read and written again.
const CACHE_BYTES: usize = 24 * 1024 * 1024;
/// The undo window. It keeps a later transaction on the device while an earlier one is sent: the
/// later window is still open then. A device writes its transactions at least this far apart.
pub(crate) const UNDO_WINDOW: Duration = Duration::from_millis(1);

/// One author's device.
pub(crate) struct Device {
    pub(crate) actor: Actor,
    pub(crate) path: PathBuf,
    pub(crate) clock: Arc<VirtualClock>,
    /// Written transactions that are not pushed yet, oldest first.
    pub(crate) owed: VecDeque<Owed>,
    /// Transactions that could not be written at their base position, oldest first.
    pub(crate) waiting: VecDeque<usize>,
    /// The time of its last write, by its own clock.
    pub(crate) wrote_at: WallTime,
    /// Whether it may have pending ops.
    pub(crate) may_owe: bool,
    book: Option<Book>,
    opened: u32,
    used: u64,
}

/// A transaction that a device has written.
pub(crate) struct Owed {
    pub(crate) transaction: usize,
    pub(crate) written_at: WallTime,
    pub(crate) ops: Vec<OpId>,
    /// The late mutations, which the device could not write yet.
    pub(crate) late: Vec<Late>,
}

pub(crate) struct Fleet {
    pub(crate) devices: Vec<Device>,
    /// Whether the books stay after the play.
    kept: bool,
    seed: u64,
    uses: u64,
    open: usize,
}

impl Fleet {
    /// Gives each author a device in a folder. A book is made when it is first needed. Books that
    /// are not `kept` are never synced to disk.
    pub(crate) fn new(authors: &[Actor], folder: &Path, kept: bool, seed: u64) -> Self {
        let device = |actor: &Actor| Device {
            actor: actor.clone(),
            path: folder.join(file_name(actor.as_str())),
            clock: Arc::default(),
            owed: VecDeque::new(),
            waiting: VecDeque::new(),
            wrote_at: WallTime::default(),
            may_owe: false,
            book: None,
            opened: 0,
            used: 0,
        };
        Self { devices: authors.iter().map(device).collect(), kept, seed, uses: 0, open: 0 }
    }

    pub(crate) fn device(&mut self, number: usize) -> Result<&mut Device, Failure> {
        self.devices
            .get_mut(number)
            .ok_or_else(|| Failure::new("the stream names an author it does not have"))
    }

    /// Returns a device's clock.
    pub(crate) fn clock(&mut self, number: usize) -> Result<Arc<VirtualClock>, Failure> {
        Ok(Arc::clone(&self.device(number)?.clock))
    }

    /// Returns a device's book, and opens it if it is closed.
    pub(crate) fn book(&mut self, number: usize) -> Result<Book, Failure> {
        self.uses += 1;
        let (seed, uses, kept) = (self.seed, self.uses, self.kept);
        let device = self.device(number)?;
        device.used = uses;
        if let Some(book) = &device.book {
            return Ok(book.clone());
        }
        if self.open >= OPEN_BOOKS {
            self.close_oldest()?;
        }
        let device = self.device(number)?;
        warm(&device.path);
        device.opened += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&device.opened.to_le_bytes());
        hasher.update(device.actor.as_str().as_bytes());
        let randomness = SeededRandomness::new(*hasher.finalize().as_bytes());
        let options = options(&device.actor)?
            .clock(Arc::<VirtualClock>::clone(&device.clock))
            .randomness(Box::new(randomness));
        let book = if kept {
            Book::open_or_create(&device.path, options)
        } else {
            let scratch = Scratch::open(&device.path).map_err(|error| {
                Failure::new(format!("cannot open {}", device.path.display())).because(error)
            })?;
            Book::on_backend(scratch, options)
        };
        let book = book.map_err(|error| device.failed("open", error))?;
        device.book = Some(book.clone());
        self.open += 1;
        Ok(book)
    }

    fn close_oldest(&mut self) -> Result<(), Failure> {
        let open = self.devices.iter().enumerate().filter(|(_, device)| device.book.is_some());
        match open.min_by_key(|(_, device)| device.used).map(|(number, _)| number) {
            Some(number) => self.close(number),
            None => Ok(()),
        }
    }

    /// Closes a device's book if it is open.
    pub(crate) fn close(&mut self, number: usize) -> Result<(), Failure> {
        let device = self.device(number)?;
        let Some(book) = device.book.take() else { return Ok(()) };
        let closed = book.close().map_err(|error| device.failed("close", error));
        self.open -= 1;
        closed
    }

    /// Closes a device's book and removes its file, to free space.
    pub(crate) fn discard(&mut self, number: usize) -> Result<(), Failure> {
        self.close(number)?;
        let device = self.device(number)?;
        fs::remove_file(&device.path).map_err(|error| {
            Failure::new(format!("cannot remove {}", device.path.display())).because(error)
        })
    }

    /// Closes all books.
    pub(crate) fn close_all(&mut self) -> Result<(), Failure> {
        (0..self.devices.len()).try_for_each(|number| self.close(number))
    }
}

impl Device {
    pub(crate) fn failed(&self, verb: &str, error: fieldbook::Error) -> Failure {
        Failure::new(format!("cannot {verb} the book of {}", self.actor)).because(error)
    }
}

/// Asks the system to read a file into its memory, if there is room. A book that was closed for
/// long is then read at once instead of page by page. Pages in memory are not read again.
#[cfg(target_os = "linux")]
fn warm(path: &Path) {
    let will_need = |file| Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::WillNeed)?);
    // Opening the book reports a missing or unreadable file.
    drop(fs::File::open(path).and_then(will_need));
}

/// Other systems read the file when it is needed.
#[cfg(not(target_os = "linux"))]
fn warm(_: &Path) {}

/// Returns the options of the books of a play, without clock and randomness.
pub(crate) fn options(actor: &Actor) -> Result<BookOptions, Failure> {
    let rules = EntityRules { undo_window: UNDO_WINDOW, ..EntityRules::default() };
    let options = BookOptions::new(actor.as_str()).map_err(|error| {
        Failure::new("an author of the stream cannot use a book").because(error)
    })?;
    Ok(options.schema(Schema::open(rules)).cache_bytes(CACHE_BYTES))
}

/// Returns the name of an author's book. Bytes that a file name may not have everywhere are written
/// `%41`.
pub(crate) fn file_name(author: &str) -> String {
    let mut name = String::with_capacity(author.len() + 5);
    for byte in author.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'@')
            || (byte == b'.' && !name.is_empty())
        {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name.push_str(".book");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_cannot_lead_out_of_the_folder() {
        assert_eq!(file_name("dev-001"), "dev-001.book");
        assert_eq!(file_name("../ann b"), "%2e.%2fann%20b.book");
    }
}
