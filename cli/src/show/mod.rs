//! How things look to a person: tables, progress, times, entries as text.

pub(crate) mod progress;
pub(crate) mod table;
