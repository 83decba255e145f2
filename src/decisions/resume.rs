//! A person's decisions about the world outside: new credentials, an upgrade, the server of the
//! book.

use std::collections::BTreeMap;

use fieldbook_core::entry::{Items, ParkScope, PersonAction, Receipt};
use fieldbook_core::rows::StateRow;
use fieldbook_core::rules::NotPossible;
use fieldbook_core::rules::belonging::{self, ServerIdentity};
use fieldbook_core::rules::resume::{Change, resume};
use fieldbook_core::{EntityType, ServerEpoch, ServerId, TenantId, WallTime};
use fieldbook_projections::Tables;

use super::decide;
use crate::book::Book;
use crate::error::Error;

/// The server of a book, and a person's decisions about it: [`Book::servers`].
///
/// ```
/// use fieldbook::sync::{Resume, ServerIdentity};
/// # use fieldbook::{Book, BookOptions, Error};
///
/// /// The server was restored from a backup, and its operator confirms that.
/// fn accept(book: &Book, meant: ServerIdentity) -> Result<(), Error> {
///     if book.servers().candidates().contains(&meant) {
///         book.servers().accept(meant)?;
///     }
///     Ok(())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
/// // After the user has signed in again, parked ops resume.
/// book.servers().resume(Resume::Authenticated)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Servers<'b> {
    pub(super) book: &'b Book,
}

/// The state of a book at its server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerState {
    /// The server that the book belongs to; `None` before the first answer.
    pub server: Option<ServerId>,
    /// The epoch of that server in its last answer.
    pub epoch: Option<ServerEpoch>,
    /// The tenant of that server; `None` if the server has not sent it.
    pub tenant: Option<TenantId>,
    /// The anchor, according to the file.
    pub anchored: Option<Receipt>,
    /// The number of records that were set aside: this program cannot hold them. The log names
    /// them.
    pub set_aside: u64,
    /// What is parked until something outside changes.
    pub parks: Vec<Park>,
}

/// A park that waits for something outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Park {
    /// What is parked.
    pub scope: ParkScope,
    /// The code of the reason.
    pub code: String,
}

/// What has changed outside the book, so that parked ops can be sent again ([`Servers::resume`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// The book's actor has new credentials: the ops that were parked for lack of them resume.
    Authenticated,
    /// The app or the server was upgraded: the parks of entity types and of the protocol end.
    Upgraded,
}

impl ServerState {
    pub(crate) fn of(state: &StateRow) -> Self {
        let parks = state.parks.iter();
        Self {
            server: state.server.map(|(server, _)| server),
            epoch: state.server.map(|(_, epoch)| epoch),
            tenant: state.tenant,
            anchored: state.anchor,
            set_aside: state.set_aside.len() as u64,
            parks: parks
                .map(|(scope, code)| Park { scope: scope.clone(), code: code.clone() })
                .collect(),
        }
    }
}

impl<'b> Servers<'b> {
    pub(crate) const fn of(book: &'b Book) -> Self {
        Self { book }
    }

    /// Returns the state of the book at its server.
    pub fn state(&self) -> ServerState {
        ServerState::of(&self.book.shared.state())
    }

    /// Returns for each entity type when a page last moved its cursor, by the device's wall clock.
    ///
    /// # Errors
    /// [`Error::Store`] if a row cannot be read.
    pub fn synced_at(&self) -> Result<BTreeMap<EntityType, WallTime>, Error> {
        let cursors = self.book.shared.snapshot()?.cursors()?;
        Ok(cursors.into_iter().map(|(entity, row)| (entity, row.synced_at)).collect())
    }

    /// Ends the parks of what may be sent again now: their ops resume. Without such parks nothing
    /// is written.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn resume(&self, after: Resume) -> Result<(), Error> {
        let actor = self.book.actor();
        self.book.shared.write_in_turn(move |session| {
            let change = match after {
                Resume::Authenticated => Change::Credentials(&actor),
                Resume::Upgraded => Change::Upgraded,
            };
            let decisions = resume(&session.tables.state()?, session.tail, change);
            if decisions.is_empty() {
                return Ok(());
            }
            decide(session, PersonAction::Resume, decisions, Items::default())
        })
    }

    /// Returns the servers that answered instead of the known one: another server, another epoch of
    /// it, or another tenant. While there is one, each sync first asks which server answers, and
    /// continues when the known server does.
    pub fn candidates(&self) -> Vec<ServerIdentity> {
        belonging::candidates(&self.book.shared.state())
    }

    /// Accepts a server for this book: the same server restored from a backup, another server, or
    /// another tenant. Everything is fetched anew. Records that the former server confirmed and the
    /// accepted one lacks are offered again, never dropped.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if it is not among [`Self::candidates`].
    pub fn accept(&self, accepted: ServerIdentity) -> Result<(), Error> {
        self.book.shared.write_in_turn(move |session| {
            let state = session.tables.state()?;
            let decisions = belonging::accept(&state, &accepted)?;
            decide(session, PersonAction::AcceptServer, decisions, Items::default())
        })
    }

    /// Accepts the only one of [`Self::candidates`], as [`Self::accept`] does.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if no other server has answered, or if several have.
    pub fn accept_only(&self) -> Result<(), Error> {
        match self.candidates().as_slice() {
            [] => Err(NotPossible::NoOtherServer.into()),
            [only] => self.accept(*only),
            _ => Err(NotPossible::SeveralServers.into()),
        }
    }
}
