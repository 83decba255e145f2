//! The group commit and the book, their threads run one at a time by shuttle, which chooses at each lock who goes on.
//!
//! ```text
//!   scenario ──► random schedules      each step drawn
//!            └─► PCT schedules         threads by priority, which changes at a few drawn steps: finds bugs of a known depth
//!   each schedule: what is asserted holds, and nobody waits for ever (shuttle says so itself)
//! ```
//!
//! A failing schedule is printed; `shuttle::replay` plays it again. `FIELDBOOK_SCHEDULES` says how many there are of each
//! kind. Run it from this folder, whose `.cargo/config.toml` puts shuttle's locks in the product:
//!
//! ```sh
//! cd tests/concurrency && cargo test
//! ```
//!
//! What it is not: a test of atomics weaker than sequential ones (the product has none), or of the locks within redb and
//! tokio, in which no thread is switched away.

#![cfg(test)]

#[cfg(not(shuttle))]
compile_error!(
    "run cargo from this folder, and without RUSTFLAGS in the environment: `.cargo/config.toml` has to be heeded"
);

#[path = "../../sim/src/dice.rs"]
#[expect(dead_code, reason = "the disk needs a part of it")]
mod dice;
#[path = "../../sim/src/disk.rs"]
#[expect(dead_code, reason = "it can do more than is needed here")]
mod disk;

mod book;
mod explore;
mod failing;
mod group;
mod stage;
mod watching;
