//! The declarations of an app: its entity types, and for each type its policies, references and
//! indexes, when changes are sent, and how ops of an older version of the app are converted.
//!
//! ```
//! use std::time::Duration;
//!
//! use fieldbook::schema::{Policy, Reference};
//! use fieldbook::{Book, BookOptions, EntityRules, EntityType, Schema};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let lead = EntityType::parse("lead")?;
//! let call = EntityRules {
//!     references: vec![Reference { field: "lead".to_owned(), entity: lead.clone() }],
//!     ..EntityRules::default()
//! };
//! let leads = EntityRules {
//!     policy: Policy::Manual,            // a person chooses where both sides changed a field
//!     indexes: vec!["stage".into()],     // leads can be listed by their stage
//!     undo_window: Duration::ZERO,       // changes may leave at once: the default
//!     ..EntityRules::default()
//! };
//! let schema = Schema::closed() // other entity types are refused
//!     .declare(lead, leads)
//!     .declare(EntityType::parse("call")?, call); // a call is sent after its lead
//! let options = BookOptions::new("user-7")?.schema(schema);
//! let book = Book::open_or_create(folder.path().join("crm.book"), options)?;
//! # drop(book);
//! # Ok(())
//! # }
//! ```
//!
//! The book records the declarations with the first write after they changed, and the names of the
//! functions. So a support program applies them too
//! ([`BookOptions::recorded_schema`](crate::BookOptions::recorded_schema)).
//!
//! What it is not: taken from the book by an app. An app declares a schema each time it opens a
//! book, and each version of an app may declare another schema.

pub use fieldbook_core::index::{IndexPart, IndexRule, InvalidIndex};
pub use fieldbook_core::{
    ConflictFunction, EntityRules, Granularity, Hook, HookKind, MergeDecision, MergeInput,
    NetworkClass, Outgoing, Policy, Priorities, Reference, Schema, Upcaster, Validator,
};
