//! The simulated world of fieldbook, and the runner of its spec cases.

pub mod spec;
