//! A record as registers, and the ops of its tail.
//!
//! ```text
//!   confirmed   the record as the server sent it             registers
//!      +
//!   tail        the ops that have not ended, oldest first    pending (stored), tail (as writes)
//!      =
//!   visible     what the app reads                           join
//! ```
//!
//! Invariants:
//! 1. `visible` is `confirmed` with the writes of the tail joined. The order of pages, lost answers
//!    and repeated answers change nothing.
//! 2. In each field of a live record the greater stamp wins. Between a deletion and writes, the
//!    greater stamp decides for the record as a whole.
//! 3. Drops, raises and ends of ops are decisions in entries of the log. This module only applies
//!    them.
//!
//! What it does not do: keep tables ([`crate::rows`]), or find conflicts ([`crate::rules`]).

mod changes;
mod effect;
mod image;
mod pending;
mod registers;
mod stamp;
mod tail;
#[cfg(test)]
pub(crate) mod test_ops;

pub use effect::{Change, Effect};
pub use image::apply_to_text;
pub use pending::{Pending, SentFor, fall_with, join_own, uncovered_by};
pub use registers::{Does, Life, Register, Registers, Writes};
pub use stamp::{EditStamp, FieldWrites, list_by_write, listed};
pub use tail::TailOp;
