//! The group commit and the book under shuttle, which runs their threads one at a time and chooses
//! the next thread at each lock.
//!
//! ```text
//!   scenario ──► random schedules      each step drawn
//!            └─► PCT schedules         threads by priority, which changes at a few drawn steps: finds bugs of a known depth
//!   each schedule: the assertions hold, and no thread waits for ever (shuttle checks this)
//! ```
//!
//! A failing schedule is printed, and `shuttle::replay` plays it again. `FIELDBOOK_SCHEDULES` sets
//! the number of schedules of each kind. Run the tests from this folder, whose `.cargo/config.toml`
//! compiles the product with shuttle's locks:
//!
//! ```sh
//! cd tests/concurrency && cargo test
//! ```
//!
//! These tests found each of the following bugs, which were put into the product by hand, with 600
//! schedules of each scenario:
//!
//! | bug | found by | as |
//! |---|---|---|
//! | `Slot::tell` does not notify | 8 of the 9 tests | a deadlock |
//! | `HandOver` wakes no waiting caller at the end of a round | 8 | a deadlock |
//! | `submit` looks for a leader and becomes the leader in two steps | 7 | two rounds at a time |
//! | `Shared::work` replies before the commit | 5 | a confirmed write that is not read |
//! | `Shared::round` does not `fail` the book when a commit failed | `failing` | a write after a failure |
//! | only the leader gets the error of a failed commit; or the others get "not written" | `failing` | confirmed but not there; there but not written |
//! | the status is read outside the turn in which it is sent (a former bug) | `watching` | an old state is sent last |
//! | a snapshot begun before a commit is kept during it (a former bug) | `book` | a reader reads less than before; 1 in 10,000 schedules |
//! | `Shared::let_go` does not wait for the round | `suspending` | a file that cannot be closed |
//! | a write that meets a suspension `fail`s the book | `suspending` | a write after it that is refused |
//! | `Book::resume` does not tell the live lists, or not the watchers | `suspending` | a deadlock |
//! | `Book::resume` keeps the tail and the snapshot of before | `suspending` | a list that reads for ever |
//!
//! `suspending` does not notice if a suspension does not wait for the calls of runs: such a call
//! then ends as if the run was cut a moment earlier.
//!
//! These bugs are not in `tests/planted`, because its runner builds no workspace with shuttle's
//! locks.
//!
//! What it is not: a test of atomics weaker than sequential ones (the product has none), or of the
//! locks within redb and tokio, at which shuttle switches no thread.

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
mod living;
mod stage;
mod suspending;
mod watching;
