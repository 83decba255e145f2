//! The group commit and the book, their threads run one at a time by shuttle, which chooses at each
//! lock who goes on.
//!
//! ```text
//!   scenario ──► random schedules      each step drawn
//!            └─► PCT schedules         threads by priority, which changes at a few drawn steps: finds bugs of a known depth
//!   each schedule: what is asserted holds, and nobody waits for ever (shuttle says so itself)
//! ```
//!
//! A failing schedule is printed; `shuttle::replay` plays it again. `FIELDBOOK_SCHEDULES` says how
//! many there are of each kind. Run it from this folder, whose `.cargo/config.toml` puts shuttle's
//! locks in the product:
//!
//! ```sh
//! cd tests/concurrency && cargo test
//! ```
//!
//! That these tests can fail was seen with bugs put into the product by hand, 600 schedules of each
//! scenario; each was found:
//!
//! | bug | found by | as |
//! |---|---|---|
//! | `Slot::tell` does not notify | 8 of the 9 tests | a deadlock |
//! | `HandOver` lets a round end without waking who waits | 8 | a deadlock |
//! | `submit` looks whether someone leads, and says that it does, in two steps | 7 | two rounds at a time |
//! | `Shared::work` replies before the commit | 5 | a confirmed write that is not read |
//! | `Shared::round` does not `fail` the book when a commit failed | `failing` | a write after a failure |
//! | a failed commit is told to the leader only; or to the others as not written | `failing` | confirmed but not there; there but not written |
//! | the status is read outside of the turn to tell it (as it was) | `watching` | an old state told last |
//! | a snapshot begun before a commit is kept amid it (as it was) | `book` | a reader that sees less than before; 1 in 10,000 schedules |
//!
//! They are not in `tests/planted`, whose runner asks the simulated world; that has one thread.
//!
//! What it is not: a test of atomics weaker than sequential ones (the product has none), or of the
//! locks within redb and tokio, in which no thread is switched away.

#![cfg(test)]

#[cfg(not(shuttle))]
compile_error!(
    "run cargo from this folder, and without RUSTFLAGS in the environment: `.cargo/config.toml` has to be heeded"
);

#[path = "../../sim/src/dice.rs"]
#[expect(dead_code, reason = "the disk needs a part of it")]
mod dice;
#[path = "../../sim/src/disk/mod.rs"]
#[expect(dead_code, reason = "it can do more than is needed here")]
mod disk;

mod book;
mod explore;
mod failing;
mod group;
mod stage;
mod watching;
