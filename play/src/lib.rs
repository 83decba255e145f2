//! A fleet of simulated devices: a stream of mutations, played through one book for each author and
//! one server.
//!
//! ```text
//!   stream ─► schedule ─► player ─► fleet of books ─► sync ─► server
//!                                        │                      │
//!   oracle ───────────► compare ◄────────┴── census ◄───────────┘ ─► report
//! ```
//!
//! [`play`] plays a stream and returns a [`Report`]. [`demo`] plays the shipped history.
//! [`generate`] makes a stream of any size. `docs/play.md` has the format of a stream and the
//! comparison.
//!
//! Invariants:
//! 1. The same stream and seed have the same result: nothing depends on real time, on the order of
//!    threads or on chance.
//! 2. A play leaves files only in the folders that its caller names.
//!
//! What it is not: a program. It prints nothing and handles no signals. The caller shows the
//! report, implements [`Progress`] and removes the temporary folder.

mod census;
mod clock;
mod compare;
mod demo;
mod failure;
mod faults;
mod fleet;
mod generate;
mod numbers;
mod player;
mod progress;
mod report;
mod rows;
mod run;
mod schedule;
mod scratch;
mod server;
mod source;
mod stream;
mod sync;
mod write;

pub use census::{ConflictCount, InConflict};
pub use compare::{Difference, Kind};
pub use demo::{Demo, Meeting, demo};
pub use failure::Failure;
pub use faults::FaultCounts;
pub use generate::{MadeUp, generate};
pub use progress::{NoProgress, Progress};
pub use report::{Oracle, Report, Unequal};
pub use rows::{Row, Tone};
pub use run::{Played, Setup, play};
pub use source::Source;
pub use sync::Traffic;
pub use write::Writes;
