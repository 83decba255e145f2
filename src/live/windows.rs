//! The live lists of a book, on the side of its writer: which of them a commit touches.
//!
//! ```text
//!   list:    registers as unknown ─► takes a snapshot ─► reads its rows ─► registers its window
//!   writer:  commit ─► updates the tail in memory ─► for each list: does the commit touch it? ─► wakes it
//! ```
//!
//! Invariants:
//! 1. A list that read its rows before a commit became readable is told of that commit, if it
//!    touches the window. While a list reads, its window is not known, and every commit touches it.
//! 2. Nothing waits here for a slow list: it is told that something changed, once, however many
//!    commits there were.
//! 3. No lock is held while a list is woken, but that of the registered lists.

use std::sync::{Arc, PoisonError, Weak};

use fieldbook_core::index::{Turn, Window};
use fieldbook_core::locks::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::book::Book;

/// The registered lists.
#[derive(Default)]
pub(crate) struct LiveLists {
    lists: Mutex<Vec<Registered>>,
    files: Mutex<Vec<Weak<dyn WriteLast>>>,
}

/// A list that is kept in a file.
pub(super) trait WriteLast: Send + Sync {
    /// Writes what the list shows now, if the file has not got it: the book is about to close.
    fn write_last(&self, book: &Book);
}

struct Registered {
    extent: SharedExtent,
    touched: watch::Sender<()>,
}

/// What a list shows, as the writer has to know it.
#[derive(Debug)]
pub(super) enum Extent {
    /// The list reads its rows, or could not read them.
    Unknown,
    /// The list shows this.
    Known {
        window: Window,
        /// Whether a row has pending ops. What is sent, planned or parked elsewhere can change its
        /// status.
        is_pending: bool,
    },
}

pub(super) type SharedExtent = Arc<Mutex<Extent>>;

impl LiveLists {
    /// Registers a list, which is told at once that it has something to read.
    pub(super) fn register(&self) -> (SharedExtent, watch::Receiver<()>) {
        let extent = Arc::new(Mutex::new(Extent::Unknown));
        let (touched, mut told) = watch::channel(());
        told.mark_changed();
        let mut lists = self.lists();
        lists.retain(|list| !list.touched.is_closed());
        lists.push(Registered { extent: Arc::clone(&extent), touched });
        (extent, told)
    }

    /// Registers a list that is kept in a file, as long as somebody holds it.
    pub(super) fn register_file(&self, file: Weak<dyn WriteLast>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|file| file.strong_count() > 0);
        files.push(file);
    }

    /// Writes the lists that are kept in files, before the book is closed or suspended.
    pub(crate) fn write_files(&self, book: &Book) {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        files.iter().filter_map(Weak::upgrade).for_each(|file| file.write_last(book));
    }

    /// Returns whether there are lists.
    pub(crate) fn has_any(&self) -> bool {
        !self.lists().is_empty()
    }

    /// Tells the lists of a commit that everybody can read now. `all` is true if every record may
    /// have changed.
    pub(crate) fn committed(&self, turn: &Turn<'_>, all: bool) {
        self.tell(|window, is_pending| all || is_pending || window.is_touched(turn));
    }

    /// Tells the lists that the status of records with pending ops may have changed without a
    /// commit.
    pub(crate) fn statuses_changed(&self) {
        self.tell(|_, is_pending| is_pending);
    }

    /// Tells the lists that everything may have changed.
    pub(crate) fn all_changed(&self) {
        self.tell(|_, _| true);
    }

    fn tell(&self, touches: impl Fn(&Window, bool) -> bool) {
        let mut lists = self.lists();
        lists.retain(|list| !list.touched.is_closed());
        for list in lists.iter() {
            let is_touched = match &*lock(&list.extent) {
                Extent::Unknown => true,
                Extent::Known { window, is_pending } => touches(window, *is_pending),
            };
            if is_touched {
                list.touched.send_replace(());
            }
        }
    }

    fn lists(&self) -> MutexGuard<'_, Vec<Registered>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks what a list shows. No code under this lock can panic in the middle of a change.
pub(super) fn lock(extent: &SharedExtent) -> MutexGuard<'_, Extent> {
    extent.lock().unwrap_or_else(PoisonError::into_inner)
}
