//! The rules: pure decisions, one file for each concern.
//!
//! ```text
//!   writes of the app
//!   admit        may this mutation be written?                       app      → ops
//!   save         which fields does saving a typed record change?     type     → patch
//!   read_through what does an update of a record of older versions change? patch → patch
//!   clock        which stamp does it get?
//!
//!   sending
//!   plan         what is sent next, what is held and why?            tail     → units, holds
//!   order        in which order are groups sent?
//!   size         how many ops fit one change?
//!   inspect      which change would the server only refuse?
//!   upcast       what do ops of an older schema version become?      ops      → ops
//!   coalesce     which change do a record's ops make?                ops      → one change
//!   freeze       which bytes are sent for a group?                   groups   → units
//!
//!   answers
//!   belonging    is it the server that the book belongs to?
//!   credible     can the answer be true?                             answer   → code
//!   restamp      which stamps are ahead of the server's time?        ops      → ops
//!   answer       what follows from outcomes and records?             answer   → decisions
//!   news         what is new, and which cursors move?                answer   → answer
//!   restore      what is offered again to a server that was set back? records → ops
//!   failure      what follows from an exchange without an answer?    failure  → decisions
//!   silence      which exchanges failed between two answers?         failures → one entry
//!   backoff      when is it tried again?
//!   parks        what do parks stop, and what ends them?             parks    → decisions
//!
//!   conflicts
//!   rebase       what becomes of a record's tail?                    tail     → decisions
//!
//!   decisions of a person
//!   undo         what takes an op back?                              op       → decisions, or an op
//!   retry        which ops are sent again?                           ops      → decisions
//!   discard      which ops end with a discarded op?                  ops      → decisions
//!   hand_over    which ops go to another user together?              ops      → decisions
//!   correct      what does a corrected dead letter become?           tail     → an op, decisions
//!   isolated     what becomes of a unit that does not get through?   unit     → decisions
//!   choose       what does a choice in an open conflict change?      conflict → decisions
//!   flip         which op reverses a resolved conflict?              conflict → an op
//!   recover      which ops of a damaged log have no end on record?   entries  → ops
//!   reset        how do unsent ops end for the server's state?       tail     → decisions
//!   resume       which parks end after a change outside?             parks    → decisions
//!   not_possible why can a decision not be carried out?
//!
//!   states
//!   failed       which ops does no sync move?                       states   → ops
//!   status       where are a record and the book, and why?           rows     → status
//!   unsent       what would be lost with the book, and whose is it?  tail     → numbers
//!   standing     is it the log that the server saw?                  heads    → standing
//!   overwritten  which values of this device did somebody replace?   records  → values
//!   explain      why is a record not synced?                         status   → words
//! ```
//!
//! Invariants: a rule reads the book only through [`View`] or its arguments, receives time and
//! randomness as arguments, and writes nothing. The same input gives the same result. Its decisions
//! become entries, and applying those needs no rule.

pub mod admit;
pub mod answer;
pub mod backoff;
pub mod belonging;
pub mod choose;
pub mod clock;
pub mod coalesce;
pub mod compare;
pub mod correct;
pub mod credible;
pub mod discard;
pub mod explain;
pub mod failed;
pub mod failure;
pub mod flip;
pub mod freeze;
pub mod group;
pub mod hand_over;
pub mod inspect;
pub mod isolated;
pub mod lend;
pub mod news;
mod not_possible;
mod order;
pub mod overwritten;
pub mod parks;
pub mod plan;
pub mod read_through;
mod rebase;
pub mod recover;
pub mod reset;
pub mod restamp;
pub mod restore;
pub mod resume;
pub mod retry;
pub mod save;
pub mod silence;
pub mod size;
pub mod standing;
pub mod status;
pub mod story;
#[cfg(test)]
mod test_tail;
#[cfg(test)]
mod test_view;
pub mod undo;
pub mod unsent;
pub mod upcast;

pub use not_possible::NotPossible;

pub use crate::op::OpContent;
pub use crate::record::apply_to_text;
pub use crate::view::View;
