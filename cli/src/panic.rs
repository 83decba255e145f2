//! Panics. A damaged file can make the storage engine panic, and the store turns such a panic into
//! an error. So the program prints nothing when a panic starts. A panic that becomes no error ends
//! the program with a failure that names its place.
//!
//! 1. The message of a panic is never printed: it may contain data of the book.
//! 2. A panic of the storage engine is reported as damage of the book.
//! 3. A second panic during the cleanup of the first one would end the process at once. It is
//!    reported in the same way.

use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Failure, damaged_pages};
use crate::show::advice::{Advice, BOOK};
use crate::temporary;

/// The place of the last panic.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Runs the program and turns a panic into a failure. With `RUST_BACKTRACE` a panic of this
/// program's own code is also printed.
pub(crate) fn caught(
    book: Option<PathBuf>,
    run: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let usual = std::env::var_os("RUST_BACKTRACE").map(|_| panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        record(info, book.as_deref());
        let place = info.location().map(|at| at.file()).unwrap_or_default();
        if let Some(usual) = usual.as_ref().filter(|_| !is_of_the_engine(place)) {
            usual(info);
        }
    }));
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_message| {
        let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        Err(failure(&place))
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the process ends in any case, and so it reports why"
)]
fn record(info: &PanicHookInfo<'_>, book: Option<&Path>) {
    let mut first = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
    if is_last(info) {
        let failure = failure(first.as_deref().unwrap_or_default());
        let _code = failure.report(book);
        temporary::remove_all();
        std::process::exit(i32::from(failure.code()));
    }
    *first = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
}

/// Returns whether the process ends with this panic in any case.
fn is_last(info: &PanicHookInfo<'_>) -> bool {
    let message = info.payload().downcast_ref::<&str>().copied().unwrap_or_default();
    message.contains("panic in a destructor during cleanup") || message.contains("cannot unwind")
}

fn is_of_the_engine(place: &str) -> bool {
    place.contains("redb-")
}

fn failure(place: &str) -> Failure {
    if is_of_the_engine(place) {
        return damaged_pages();
    }
    Failure::new("the program stopped because of a fault of its own")
        .because(format!("it panicked at {place}"))
        .hint("please report this, with the result of this command:")
        .advise(Advice::default().run(["verify", BOOK]))
}
