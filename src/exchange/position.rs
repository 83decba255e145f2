//! How far the server was read, for requests.
//!
//! The book has a cursor for each entity type. Naming all of them in every request would be long,
//! so a server may send one cursor for *every* entity type with a page (`others`). From then on a
//! request names that cursor only. It is kept in memory: the first request of each process names
//! the cursors of the book.
//!
//! Invariants:
//! 1. Everything up to `others` is in the book: it is kept after the commit of its page, and only
//!    if the request began at the book's present position.
//! 2. It belongs to one epoch of one server, and is dropped when a server is accepted.
//!
//! What it does not do: compare cursors. Their bytes have a meaning for the server only.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use fieldbook_core::locks::{Mutex, MutexGuard};
use fieldbook_core::protocol::ExchangeRequest;
use fieldbook_core::{Cursor, EntityType, ServerEpoch, ServerId};

use crate::book::Shared;
use crate::error::Error;

/// The cursor for every entity type, with the server and the epoch that sent it.
pub(crate) type Others = Mutex<Option<((ServerId, ServerEpoch), Cursor)>>;

impl Shared {
    /// Returns the cursors that a request names, and the cursor for all other entity types.
    pub(crate) fn position(&self) -> Result<(BTreeMap<EntityType, Cursor>, Cursor), Error> {
        match self.others() {
            Some(others) => Ok((BTreeMap::new(), others)),
            None => Ok((self.cursors()?, Cursor::default())),
        }
    }

    /// Returns whether a request with one cursor for everything began at the book's present
    /// position. A book with cursors of single entity types only is not at the beginning.
    pub(super) fn began_here(&self, request: &ExchangeRequest) -> Result<bool, Error> {
        let Some(began) = &request.others else { return Ok(false) };
        let (cursors, others) = self.position()?;
        Ok(*began == others && request.cursors == cursors)
    }

    /// Keeps the cursor of an answer. Its page is in the book.
    pub(super) fn read_on(&self, server: (ServerId, ServerEpoch), others: Option<Cursor>) {
        if let Some(others) = others {
            *self.lock_others() = Some((server, others));
        }
    }

    /// Drops the cursor while an accepted server is read from its beginning.
    pub(super) fn forget_others_while_rereading(&self) {
        if self.state().rereading {
            *self.lock_others() = None;
        }
    }

    /// Drops the cursor after somebody else wrote to the book.
    pub(crate) fn forget_position(&self) {
        *self.lock_others() = None;
    }

    fn others(&self) -> Option<Cursor> {
        let (server, rereading) = {
            let state = self.state();
            (state.server, state.rereading)
        };
        let known = self.lock_others();
        known
            .as_ref()
            .filter(|(of, _)| !rereading && server == Some(*of))
            .map(|(_, others)| others.clone())
    }

    fn lock_others(&self) -> MutexGuard<'_, Option<((ServerId, ServerEpoch), Cursor)>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
