//! The rules: pure decisions, one file a concern.
//!
//! ```text
//!   what the app writes
//!   admit        may this mutation be written?                       app      → ops
//!   save         what does a typed record change of what is there?   type     → patch
//!   clock        which stamp does it get?
//!
//!   what is sent
//!   plan         what is sent next, what is held and why?            tail     → units, holds
//!   order        what goes first of what could be sent?
//!   size         how much of it can go as one?
//!   inspect      what would only be sent to fail?
//!   upcast       what do ops of an older schema version become?      ops      → ops
//!   coalesce     what do a record's ops come to?                     ops      → one change
//!   freeze       what is sent of them, fitted to what is confirmed?  groups   → units
//!
//!   what comes back
//!   belonging    is it the server that the book belongs to?
//!   credible     can the answer be true at all?                      answer   → code
//!   restamp      which stamps are ahead of the server's time?        ops      → ops
//!   answer       what follows from what it says of units and records? answer  → decisions
//!   news         what of it is new, and which cursors move?          answer   → answer
//!   restore      what is offered again to a server that was set back? records → ops
//!   failure      what follows from an exchange without an answer?    failure  → decisions
//!   backoff      when is it tried again?
//!   parks        what do parks stop, and what lifts them?            parks    → decisions
//!
//!   what meets
//!   rebase       what becomes of a record's tail?                     tail     → decisions
//!
//!   what a person decides
//!   undo         what takes an op back?                              op       → decisions, or an op
//!   retry        what goes again?                                    ops      → decisions
//!   discard      what ends with an op that is given up?              ops      → decisions
//!   correct      what does a corrected dead letter become?           tail     → an op, decisions
//!   isolated     what becomes of a unit that does not get through?   unit     → decisions
//!   choose       what does a choice in an open conflict come to?     conflict → decisions
//!   flip         what makes the other side of a settled one win?     conflict → an op
//!   resume       what goes on after a change outside?                parks    → decisions
//!   not_possible why can a decision not be carried out?
//!
//!   where it stands
//!   status       where do a record and the book stand, and why?      rows     → status
//!   explain      why is a record not synced?                         status   → words
//! ```
//!
//! Invariants: a rule reads the book only through [`View`] or its arguments, gets time and randomness as arguments, writes
//! nothing, and gives the same result for the same input. What it decides becomes entries; applying those needs no rule.

pub mod admit;
pub mod answer;
pub mod backoff;
pub mod belonging;
pub mod choose;
pub mod clock;
pub mod coalesce;
pub mod correct;
pub mod credible;
#[cfg(test)]
mod desk;
pub mod discard;
pub mod explain;
pub mod failure;
pub mod flip;
pub mod freeze;
pub mod group;
pub mod inspect;
pub mod isolated;
pub mod news;
mod not_possible;
mod order;
pub mod parks;
pub mod plan;
mod rebase;
pub mod restamp;
pub mod restore;
pub mod resume;
pub mod retry;
pub mod save;
pub mod size;
pub mod status;
#[cfg(test)]
mod test_tail;
pub mod undo;
pub mod upcast;

pub use not_possible::NotPossible;

pub use crate::op::OpContent;
pub use crate::record::apply_to_text;
pub use crate::view::View;
