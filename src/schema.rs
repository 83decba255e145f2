//! Declaring what an app keeps: its entity types, and for each how conflicts are settled, which fields refer to other
//! records, which are indexes, when changes are sent, and how what an older version of the app wrote is read.
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
//!     indexes: vec!["stage".to_owned()], // leads can be listed by their stage
//!     undo_window: Duration::ZERO,       // changes may leave at once: the default
//!     ..EntityRules::default()
//! };
//! let schema = Schema::closed() // other entity types are refused
//!     .declare(lead, leads)
//!     .declare(EntityType::parse("call")?, call); // a call waits until its lead is at the server
//! let options = BookOptions::new("user-7")?.schema(schema);
//! let book = Book::open_or_create(folder.path().join("crm.book"), options)?;
//! # drop(book);
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: stored. A schema is declared each time that a book is opened, and each version of an app may declare
//! another one.

pub use fieldbook_core::{
    ConflictFunction, EntityRules, Granularity, Meeting, NetworkClass, Outgoing, Policy, Priorities,
    Reference, Ruling, Schema, Upcaster, Validator,
};
