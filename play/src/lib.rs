//! A fleet of simulated devices: a stream of mutations, played through one book per author and one server.
//!
//! ```text
//!   stream ─► schedule ─► player ─► fleet of books ─► sync ─► server
//!                                        │                      │
//!   oracle ───────────► compare ◄────────┴── census ◄───────────┘ ─► report
//! ```
//!
//! [`play`] plays a stream and returns a [`Report`]. [`demo`] plays the shipped history. [`generate`] makes up a stream of
//! any size. `docs/play.md` has the form of a stream and what is compared.
//!
//! Invariants:
//! 1. The same stream and seed end the same: nothing depends on real time, on the order of threads or on chance.
//! 2. What a play leaves is in the folders that its caller names.
//!
//! What it is not: a program. It prints nothing and hears no signals. Who calls it shows the report, tells the
//! [`Progress`] and takes the temporary folder away.

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
