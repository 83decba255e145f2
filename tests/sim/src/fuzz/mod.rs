//! The bodies of the fuzz targets: plain functions over bytes. libFuzzer runs them in `fuzz/`, and
//! an ordinary test runs them over the kept corpora. A finding is a panic.
//!
//! ```text
//!   stored     bytes of entries, of a book's file, of an exported log, of rows
//!   messages   requests and answers of the exchange
//!   text       fields as text
//!   laws       the rules alone, over an app's schema: admit, coalesce, policies, plan, clock
//!   fleet      books and a server, over an app's schema: reorderings, rebase
//!   small      the whole simulated world with its oracles
//! ```
//!
//! The targets of the rules use an [`App`], made of any [`fieldbook::Schema`], so that an app can
//! fuzz its own entity types and policies with a few lines: see `docs/fuzzing.md`.

mod app;
mod fleet;
mod laws;
mod messages;
mod small;
mod stored;
mod text;

use std::backtrace::Backtrace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

pub use app::App;
pub use laws::{clock, coalesce, fields_admit, policies};
pub use messages::{exchange_answer, exchange_request};
pub use small::{small_case, world};
pub use stored::{entry_decode, log_export, log_file, rows};
pub use text::fields_text;

use crate::dice::Dice;

/// A fuzz target's body.
pub type Target = fn(&[u8]);

/// Every target, by the name that its corpus has.
pub const TARGETS: &[(&str, Target)] = &[
    ("entry_decode", entry_decode),
    ("log_file", log_file),
    ("log_export", log_export),
    ("rows", rows),
    ("exchange_answer", exchange_answer),
    ("exchange_request", exchange_request),
    ("fields_admit", fields_admit),
    ("fields_text", fields_text),
    ("coalesce", coalesce),
    ("clock", clock),
    ("admit", |data| App::example().admit(data)),
    ("policies", policies),
    ("plan", |data| App::example().plan(data)),
    ("rebase", |data| App::example().rebase(data)),
    ("reorderings", |data| App::example().reorderings(data)),
    ("world", world),
];

/// The most bytes of an input that is drawn from a seed.
const DRAWN_BYTES_MOST: u64 = 200;

/// Draws an input from a seed. Each such input reaches less code than one of libFuzzer, but it
/// needs no other toolchain, and a target without coverage tracking runs several times as often.
pub fn drawn(seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let length = dice.between(1, DRAWN_BYTES_MOST);
    (0..length).map(|_| u8::try_from(dice.below(256)).unwrap_or(0)).collect()
}

/// Bytes as a stream of choices; all zeros at its end.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Returns a number below a bound; 0 for a bound of 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Runs product code that catches panics of the storage engine itself. libFuzzer would end at such
/// a panic, although it does not reach a caller of the product; only a panic that leaves the
/// product is a finding.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static LAST: Mutex<Option<(String, Backtrace)>> = Mutex::new(None);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| {
        let told = (panic.to_string(), Backtrace::force_capture());
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }));
    let done = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    done.unwrap_or_else(|_panic| {
        let told = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (message, place) =
            told.map_or_else(Default::default, |(message, place)| (message, place.to_string()));
        panic!("BUG: came out: {message}\n{place}")
    })
}
