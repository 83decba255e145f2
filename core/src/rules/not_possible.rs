//! Decisions of a person that cannot be carried out now, and the reasons.
//!
//! Invariant: each text names the reason and what the person can do instead.
//!
//! What it is not: a fault of the app's code. A sync may end an op or a conflict between the moment
//! when an app shows it and the moment when a person decides on it. So an app without a bug can
//! meet each of these.

use crate::ids::OpId;
use crate::numbers::ConflictId;
use crate::op::OpPlace;

/// A decision of a person that cannot be carried out now, and the reason. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotPossible {
    /// The log has no such op.
    #[error("the log has no op {0}: take the place from the record's history")]
    NoSuchOp(OpPlace),
    /// The op has ended, or this book never had it.
    #[error("op {0} is not pending: it has ended, so only an undo takes back what it did")]
    NotPending(OpId),
    /// Only a dead letter, or an op that is parked or does not get through, is sent again.
    #[error(
        "op {0} is neither a dead letter nor an op that is parked or does not get through: a sync sends it as it is, or it has ended"
    )]
    NotRefused(OpId),
    /// Only an op that needs a person's decision can be discarded.
    #[error(
        "op {0} waits for no such decision: it is neither a dead letter, nor parked, nor held until someone corrects it; undo it instead"
    )]
    NotHeld(OpId),
    /// The actor sends the op already.
    #[error("op {0} is this user's own already: it leaves when they are signed in")]
    SentByThem(OpId),
    /// A deletion has no fields.
    #[error("op {0} is a deletion, which has nothing to correct: retry or discard it")]
    NothingToCorrect(OpId),
    /// The book has no such conflict.
    #[error("the book has no conflict {0}: list the conflicts to see which there are")]
    NoSuchConflict(ConflictId),
    /// A person has yet to choose.
    #[error("this conflict is still open: choose in it")]
    ConflictIsOpen,
    /// The conflict is resolved already.
    #[error("this conflict is resolved already: flip it")]
    ConflictIsResolved,
    /// A rule merged both sides.
    #[error("a rule merged both sides: write the value that you want")]
    ConflictIsMerged,
    /// Nobody answered in place of the server that the book belongs to.
    #[error("no other server has answered, so there is none to accept: sync first")]
    NoOtherServer,
    /// More than one server answered in place of the known one.
    #[error("several other servers have answered: name the one that is meant")]
    SeveralServers,
    /// This server is not among those that answered.
    #[error("this server has not answered, so it cannot be accepted: choose one that has")]
    ServerHasNotAnswered,
}
