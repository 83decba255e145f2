//! The locks of the book and its writer, under one name: those of the standard library.
//!
//! Compiled with `--cfg shuttle` they are shuttle's, which lets a scheduler of its own choose who goes on at each of them:
//! `tests/concurrency` does so, and nothing else. See `docs/decisions/0011-locks-have-one-name.md`.
//!
//! What it is not: every lock there is. Those within redb, tokio and the staged disk are held for the length of one call into
//! them, in which nobody is switched away, so they stay what they are.

#[cfg(not(shuttle))]
pub use std::sync::atomic::AtomicBool;
#[cfg(not(shuttle))]
pub use std::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(shuttle)]
pub use shuttle::sync::atomic::AtomicBool;
#[cfg(shuttle)]
pub use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
