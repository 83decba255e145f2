//! How far the server has been read, as a request tells it.
//!
//! The book keeps a cursor for each entity type. A server of many types would be sent all of them each time, so a server may tell
//! with each page how far *every* type was read by it (`others`); from then on that one cursor is all that a request names.
//! It is kept in memory: the first request of each process names the cursors of the book.
//!
//! Invariants:
//! 1. Everything up to `others` is in the book: it is taken over after the commit of its page, and only from the answer to a
//!    request that began where this book then stood.
//! 2. It belongs to one life of one server, and is forgotten when another one, or the same one, is accepted anew.
//!
//! What it does not do: compare cursors. They are the server's.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use fieldbook_core::locks::{Mutex, MutexGuard};
use fieldbook_core::protocol::ExchangeRequest;
use fieldbook_core::{Cursor, EntityType, ServerEpoch, ServerId};

use crate::book::Shared;
use crate::error::Error;

/// How far every entity type was read, and of which life of which server that is said.
pub(crate) type Others = Mutex<Option<((ServerId, ServerEpoch), Cursor)>>;

impl Shared {
    /// Returns the cursors that a request names, and where all other entity types begin.
    pub(super) fn position(&self) -> Result<(BTreeMap<EntityType, Cursor>, Cursor), Error> {
        match self.others() {
            Some(others) => Ok((BTreeMap::new(), others)),
            None => Ok((self.cursors()?, Cursor::default())),
        }
    }

    /// Returns whether a request that names one cursor for everything began where this book now stands. A book that has only cursors of
    /// its entity types does not stand at the beginning.
    pub(super) fn began_here(&self, request: &ExchangeRequest) -> Result<bool, Error> {
        let Some(began) = &request.others else { return Ok(false) };
        let (cursors, others) = self.position()?;
        Ok(*began == others && request.cursors == cursors)
    }

    /// Remembers how far an answer has read everything. Its page is in the book.
    pub(super) fn read_on(&self, server: (ServerId, ServerEpoch), others: Option<Cursor>) {
        if let Some(others) = others {
            *self.lock_others() = Some((server, others));
        }
    }

    /// Forgets it while a server that was accepted is read from its beginning.
    pub(super) fn forget_others_while_rereading(&self) {
        if self.state().rereading {
            *self.lock_others() = None;
        }
    }

    fn others(&self) -> Option<Cursor> {
        let (server, rereading) = {
            let state = self.state();
            (state.server, state.rereading)
        };
        let known = self.lock_others();
        known.as_ref().filter(|(of, _)| !rereading && server == Some(*of)).map(|(_, others)| others.clone())
    }

    fn lock_others(&self) -> MutexGuard<'_, Option<((ServerId, ServerEpoch), Cursor)>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
