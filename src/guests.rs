//! Who uses a book for a moment without keeping it open: a live list that reads, the thread that
//! lends the book.
//!
//! Invariants:
//! 1. A guest holds the book for one call, and is gone before a close looks for other handles.
//! 2. A guest that comes during a close waits for its result: a close that is refused ends no list.

use std::sync::{Arc, PoisonError, Weak};

use fieldbook_core::locks::{Condvar, Mutex, MutexGuard};

use crate::book::{Book, Shared};

#[derive(Default)]
pub(crate) struct Guests {
    door: Mutex<Door>,
    changed: Condvar,
}

#[derive(Default)]
struct Door {
    inside: usize,
    /// The number of closes that look for other handles now.
    closing: usize,
    gone: bool,
}

impl Guests {
    /// Lends the book; `None` if it is closed.
    pub(crate) fn enter(self: &Arc<Self>, book: &Weak<Shared>) -> Option<Guest> {
        let mut door = self.door();
        while door.closing > 0 && !door.gone {
            door = self.changed.wait(door).unwrap_or_else(PoisonError::into_inner);
        }
        let shared = book.upgrade().filter(|_| !door.gone)?;
        door.inside += 1;
        drop(door);
        Some(Guest { book: Some(Book { shared }), guests: Arc::clone(self) })
    }

    /// Keeps guests out until [`Self::open`], and waits until nobody is inside.
    pub(crate) fn shut(&self) {
        let mut door = self.door();
        door.closing += 1;
        while door.inside > 0 {
            door = self.changed.wait(door).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets guests in again after [`Self::shut`].
    pub(crate) fn open(&self) {
        self.door().closing -= 1;
        self.changed.notify_all();
    }

    /// Keeps guests out for good.
    pub(crate) fn end(&self) {
        self.door().gone = true;
        self.changed.notify_all();
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The book, lent to a guest.
pub(crate) struct Guest {
    /// Present until the guest leaves.
    book: Option<Book>,
    guests: Arc<Guests>,
}

impl Guest {
    pub(crate) fn book(&self) -> Option<&Book> {
        self.book.as_ref()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // The handle is gone before anybody counts handles.
        drop(self.book.take());
        self.guests.door().inside -= 1;
        self.guests.changed.notify_all();
    }
}
