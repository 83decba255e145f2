//! Panics: a damaged file can make the storage engine panic, and the store turns such a panic into an error. So a panic is
//! not printed where it happens; one that nobody turned into an error ends the program as a failure that says where.
//!
//! It never prints a panic's message, which may hold what was being read.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

use crate::error::Failure;

/// Where the last panic happened.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Runs the program and turns a panic into a failure. `RUST_BACKTRACE` leaves panics as they are.
pub(crate) fn caught(run: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
            *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
        }));
    }
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_message| {
        let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        Err(Failure::new("the program stopped at something that it does not know how to handle")
            .because(format!("it panicked at {place}"))
            .hint("`fieldbook verify` says whether the book is damaged; if it is not, please report this"))
    })
}
