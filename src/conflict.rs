//! What a person decides: a conflict with the server, an op that the server refused, and undoing one's own op.
//!
//! What it is not: deciding anything by itself. By which rule a conflict is settled without a person is declared in
//! [`schema`](crate::schema).

pub use fieldbook_core::entry::{Extent, SettledBy, Winner};
pub use fieldbook_core::rules::NotPossible;
pub use fieldbook_core::rules::choose::Choice;
pub use fieldbook_core::{ConflictId, InvalidConflictId};

pub use crate::decisions::Undone;
