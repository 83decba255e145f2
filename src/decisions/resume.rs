//! What a person says of the world outside: new credentials, an upgrade, which server the book belongs to.

use std::collections::BTreeMap;

use fieldbook_core::entry::{Items, ParkScope, Receipt, Verb};
use fieldbook_core::rules::NotPossible;
use fieldbook_core::rules::belonging::{self, ServerIdentity};
use fieldbook_core::rules::resume::{Change, resume};
use fieldbook_core::{EntityType, ServerEpoch, ServerId, TenantId, WallTime};
use fieldbook_projections::Tables;

use super::decide;
use crate::book::Book;
use crate::error::Error;
use crate::writer::Session;

/// The server that a book belongs to, and what a person says of it: [`Book::servers`].
///
/// ```
/// use fieldbook::sync::ServerIdentity;
/// # use fieldbook::{Book, BookOptions, Error};
///
/// /// The server was restored from a backup, and the person who runs it says that it is meant.
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
/// // After the user has signed in again: what waited for that goes on.
/// book.servers().credentials_renewed()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Servers<'b> {
    book: &'b Book,
}

/// What a book knows of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerState {
    /// The server that the book belongs to, and the life of it that was last seen; none before the first answer.
    pub server: Option<ServerId>,
    /// The life of that server that was last seen.
    pub epoch: Option<ServerEpoch>,
    /// The tenant of that server; none if the server never said.
    pub tenant: Option<TenantId>,
    /// How far the server knows the log, as the file says.
    pub anchored: Option<Receipt>,
    /// How many records of the server this program cannot hold. The log names them.
    pub set_aside: u64,
    /// What is stopped until the world outside changes.
    pub parks: Vec<Park>,
}

/// Something that is stopped until the world outside changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Park {
    /// What is stopped.
    pub scope: ParkScope,
    /// Why, in a word.
    pub code: String,
}

impl<'b> Servers<'b> {
    pub(crate) const fn of(book: &'b Book) -> Self {
        Self { book }
    }

    /// Returns what the book knows of its server.
    pub fn state(&self) -> ServerState {
        let state = self.book.shared.state();
        let parks = state.parks.iter();
        ServerState {
            server: state.server.map(|(server, _)| server),
            epoch: state.server.map(|(_, epoch)| epoch),
            tenant: state.tenant,
            anchored: state.anchor,
            set_aside: state.set_aside.len() as u64,
            parks: parks.map(|(scope, code)| Park { scope: scope.clone(), code: code.clone() }).collect(),
        }
    }

    /// Returns when a page last moved each entity type on, by the device's wall clock.
    ///
    /// # Errors
    /// [`Error::Store`] if a row does not read.
    pub fn synced_at(&self) -> Result<BTreeMap<EntityType, WallTime>, Error> {
        let cursors = self.book.shared.snapshot()?.cursors()?;
        Ok(cursors.into_iter().map(|(entity, row)| (entity, row.synced_at)).collect())
    }

    /// Says that there are new credentials for the actor who uses the book: what was parked for want of them goes on.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn credentials_renewed(&self) -> Result<(), Error> {
        let actor = self.book.actor();
        self.book.shared.write_in_turn(move |session| go_on(session, Change::Credentials(&actor)))
    }

    /// Says that the app or the server was upgraded: entity types and protocols that were parked go on.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn upgraded(&self) -> Result<(), Error> {
        self.book.shared.write_in_turn(|session| go_on(session, Change::Upgraded))
    }

    /// Returns who answered in place of the server that this book knows: another server, another life of it, or another tenant.
    /// While there is one, every sync asks who is there, and goes on by itself once the known one answers.
    pub fn candidates(&self) -> Vec<ServerIdentity> {
        belonging::candidates(&self.book.shared.state())
    }

    /// Accepts a server as the one this book belongs to from now on: the same one restored from a backup, or another one, or
    /// another tenant of it. Everything is fetched anew; what the former one had confirmed and this one lacks is offered to it
    /// again, never dropped.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if it is none of [`Self::candidates`].
    pub fn accept(&self, accepted: ServerIdentity) -> Result<(), Error> {
        self.book.shared.write_in_turn(move |session| {
            let state = session.tables.state()?;
            let decisions = belonging::accept(&state, &accepted)?;
            decide(session, Verb::AcceptServer, decisions, Items::default())
        })
    }

    /// Accepts the only one of [`Self::candidates`], as [`Self::accept`] does.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if no other server has answered, or several have: then one has to be named.
    pub fn accept_only(&self) -> Result<(), Error> {
        match self.candidates().as_slice() {
            [] => Err(NotPossible::NoOtherServer.into()),
            [only] => self.accept(*only),
            _ => Err(NotPossible::SeveralServers.into()),
        }
    }
}

fn go_on(session: &mut Session<'_>, change: Change<'_>) -> Result<(), Error> {
    let decisions = resume(&session.tables.state()?, session.tail, change);
    if decisions.is_empty() { Ok(()) } else { decide(session, Verb::Resume, decisions, Items::default()) }
}
