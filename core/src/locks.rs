//! The locks of the book and its writer under one name: the locks of the standard library.
//!
//! With `--cfg shuttle` they are the locks of shuttle, whose scheduler chooses the next thread at
//! each of them. Only `tests/concurrency` is compiled so. See
//! `docs/decisions/0011-locks-have-one-name.md`.
//!
//! What it is not: all locks. A lock within redb, tokio or the staged disk is held during one call
//! only, in which the scheduler switches no thread, so those locks are not replaced.

#[cfg(not(shuttle))]
pub use std::sync::atomic::AtomicBool;
#[cfg(not(shuttle))]
pub use std::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(shuttle)]
pub use shuttle::sync::atomic::AtomicBool;
#[cfg(shuttle)]
pub use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
