//! What a person says of the world outside: new credentials, an upgrade, which server the book belongs to.

use fieldbook_core::entry::{Items, Verb};
use fieldbook_core::rules::NotPossible;
use fieldbook_core::rules::belonging::{ServerIdentity, accept, candidates};
use fieldbook_core::rules::resume::{Change, resume};
use fieldbook_projections::Tables;

use super::decide;
use crate::book::Book;
use crate::error::Error;
use crate::writer::Session;

impl Book {
    /// Says that there are new credentials for the actor who uses the book: what was parked for want of them goes on.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn credentials_renewed(&self) -> Result<(), Error> {
        let actor = self.actor();
        self.shared.write_in_turn(move |session| go_on(session, Change::Credentials(&actor)))
    }

    /// Says that the app or the server was upgraded: entity types and protocols that were parked go on.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn upgraded(&self) -> Result<(), Error> {
        self.shared.write_in_turn(|session| go_on(session, Change::Upgraded))
    }

    /// Returns who answered in place of the server that this book knows: another server, another life of it, or another tenant.
    /// While there is one, every sync asks who is there, and goes on by itself once the known one answers.
    pub fn servers_to_accept(&self) -> Vec<ServerIdentity> {
        candidates(&self.shared.state())
    }

    /// Accepts a server as the one this book belongs to from now on: the same one restored from a backup, or another one, or
    /// another tenant of it. Everything is fetched anew; what the former one had confirmed and this one lacks is offered to it
    /// again, never dropped.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if it is none of [`Self::servers_to_accept`].
    pub fn accept_this_server(&self, accepted: ServerIdentity) -> Result<(), Error> {
        self.shared.write_in_turn(move |session| {
            let state = session.tables.state()?;
            let decisions = accept(&state, &accepted)?;
            decide(session, Verb::AcceptServer, decisions, Items::default())
        })
    }

    /// Accepts the only one of [`Self::servers_to_accept`], as [`Self::accept_this_server`] does.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if no other server has answered, or several have: then one has to be named.
    pub fn accept_server(&self) -> Result<(), Error> {
        match self.servers_to_accept().as_slice() {
            [] => Err(NotPossible::NoOtherServer.into()),
            [only] => self.accept_this_server(*only),
            _ => Err(NotPossible::SeveralServers.into()),
        }
    }
}

fn go_on(session: &mut Session<'_>, change: Change<'_>) -> Result<(), Error> {
    let decisions = resume(&session.tables.state()?, session.tail, change);
    if decisions.is_empty() { Ok(()) } else { decide(session, Verb::Resume, decisions, Items::default()) }
}
