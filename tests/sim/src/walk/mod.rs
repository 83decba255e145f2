//! Small worlds of the real rules, walked whole.
//!
//! Seeds find one fault in thousands of runs. A world of two devices, one or two records, two fields and a few ops is small enough
//! to be walked *whole*: every order in which people type and messages are delivered, lost, doubled or late, with a refusal, a unit
//! given up, a restored server or a clock ahead. In every state the laws must hold, and from every state, once nothing fails any
//! more, everything must come to rest where all devices equal the server, or wait for a person and say so.
//!
//! ```text
//!   world    what people may do, and how often something may go wrong     worlds   those that are walked
//!   device   the real rules and the real fold over a log in memory        server   the real authority over memory
//!   action   what may happen next            act    what comes of it
//!   rows     all that is known of what is inside of rows: what really happened beside the rules, and what tells a state
//!   name     one name for all states of which the same can come
//!   laws     what must hold                  explore  the walk, and the shortest path to what does not
//!   stroll   one path, chosen from outside
//! ```
//!
//! What is real: `rules` of core (admitting, stamps, planning, freezing, answers, failures, verbs), `projections::apply` over tables
//! in memory, and `core::authority`. What is not: what stands around them in `src/` is written out again in `device`, and a test
//! walks the same paths with real books to hold the two together.
//!
//! What is bounded: devices, records, fields and ops as each world says, at most two requests and two answers of a device on their
//! way, one value an op, no transactions, and no time that passes. Nobody waits: the run loop that says when a device sends again
//! (`transport`) is not walked, a device may send whenever no exchange of its is under way. States are told apart by a hash of 64
//! bits.

mod act;
mod action;
mod device;
mod explore;
mod law;
mod laws;
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
