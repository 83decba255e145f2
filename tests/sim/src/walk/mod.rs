//! Small worlds of the real rules, walked whole.
//!
//! Seeds find one fault in thousands of runs. A world of two devices, one or two records, two
//! fields and a few ops is small enough to be walked *whole*: every order of edits and of messages
//! that are delivered, lost, doubled or late, with a refusal, an abandoned unit, a restored server
//! or a clock ahead. The laws must be true in every state. From every state, once failures end,
//! everything must come to rest, where every device equals the server, or waits for a person and
//! reports it.
//!
//! ```text
//!   world    the actions of people, and the number of faults              worlds   the worlds that are walked
//!   device   the real rules and the real fold over a log in memory        server   the real authority in memory
//!   action   the possible next actions    act    their results
//!   rows     the walk's knowledge of rows: the true events, and the tokens of a state
//!   name     one name for all states with the same future
//!   laws     what must be true            lists    what must be true of lists and of search
//!   explore  the walk, and the shortest path to a broken law
//!   stroll   one path, chosen from outside
//! ```
//!
//! Real are core's `rules` (admitting, stamps, planning, freezing, answers, failures, a person's
//! decisions), `projections::apply` over tables in memory, and `core::authority`. Not real is the
//! code around them in `src/`: `device` is a second implementation of it, and a test walks the same
//! paths with real books to compare the two.
//!
//! The bounds: devices, records, fields and ops by the world, at most two requests and two answers
//! of a device in flight, one value for an op, no transactions, and no passage of time. Nobody
//! waits: the run loop that decides when a device sends again (`transport`) is not walked, so a
//! device may send whenever it has no running exchange. States are distinguished by a hash of 64
//! bits.

mod act;
mod action;
mod device;
mod explore;
mod law;
mod laws;
mod lists;
mod name;
mod rows;
mod server;
mod state;
mod stroll;
mod tell;
#[cfg(test)]
mod tests;
mod world;
mod worlds;

pub use action::Action;
pub use explore::{Bounds, Found, Walked, explore};
pub use law::{Broken, LAWS, Law};
pub use stroll::stroll;
pub use world::{Clocks, Left, Verb, World};
pub use worlds::worlds;
