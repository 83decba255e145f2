//! What one record goes through, as registers: one for each field and one for its life, each with a stamp.
//!
//! ```text
//!   confirmed   what the server told last                       registers
//!      +
//!   tail        the ops without an outcome, oldest first        pending (as stored), tail (as writes)
//!      =
//!   visible     what the app reads                              join
//! ```
//!
//! Invariants:
//! 1. `visible` is `confirmed` with the writes of the tail joined. The order of pages, lost answers and repetition do not matter.
//! 2. In each field of a living record the greater stamp stands; of a deletion and writes, the greater stamp decides as a whole.
//! 3. What is decided about an op (dropped, raised, ended) is a decision in an entry; here it is only applied.
//!
//! What it is not: tables, or judgements about who had seen what.

mod changes;
mod image;
mod pending;
mod registers;
mod stamp;
mod tail;
#[cfg(test)]
pub(crate) mod test_ops;

pub use image::apply_to_text;
pub use pending::{Pending, SentFor, fall_with, take_own, uncovered_by};
pub use registers::{Does, Life, Register, Registers, Writes};
pub use stamp::{EditStamp, FieldWrites, list_by_write, listed};
pub use tail::TailOp;
