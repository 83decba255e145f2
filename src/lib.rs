//! fieldbook: an event-sourced sync core for offline-first apps.
//!
//! An app's change is appended to a local, hash-chained log; that append is atomic. The tables that
//! the app reads are folded from the log in the same transaction. The tail of the log is the sync
//! queue. Every decision of the engine is an entry too.
//!
//! ```
//! use fieldbook::{Book, BookOptions, Fields, RecordKey};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let book = Book::open_or_create(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! let key: RecordKey = "lead/42".parse()?;
//! book.records().create(key.clone(), Fields::from_value(json!({"name": "Ann", "stage": "new"}))?)?;
//! book.records().update(key.clone(), Fields::from_value(json!({"stage": "hot"}))?)?;
//!
//! let lead = book.records().get(&key)?.expect("it was just written");
//! assert_eq!(lead.json.as_str(), r#"{"name":"Ann","stage":"hot"}"#);
//! assert_eq!(book.status().pending, 2, "both ops are pending");
//! # Ok(())
//! # }
//! ```
//!
//! The names that every app needs are here. Each module has the other names of its subject, with an
//! example on its page:
//!
//! | module | for |
//! |---|---|
//! | [`record`] | keys, fields, mutations, results of writes |
//! | [`query`] | lists by an index, counts, several reads of one instant |
//! | `search` | records by words, with mistakes in them; behind the feature of this name |
//! | [`schema`] | declarations of entity types: policies, references, indexes, versions |
//! | [`sync`] | servers, credentials, runs, workers, status, the queue |
//! | [`conflict`] | conflicts, dead letters, undo: a person's decisions |
//! | [`audit`] | the log: read, export, verify, explain, replay |
//! | [`projection`] | tables of the app that follow the records |
//! | [`host`] | the clock, the randomness and the network of a book |
//! | [`error`] | errors by their cause |
//! | [`limits`] | the largest sizes |
//!
//! What it is not: a server (`fieldbook-server`), a query language, or an encryption layer.

mod archive;
mod at;
mod authors;
mod background;
mod book;
mod check;
mod compact;
mod decisions;
mod declared;
mod entity;
mod evidence;
mod examine;
mod exchange;
mod explain;
mod export;
mod failed;
mod gate;
mod guests;
#[cfg(all(doctest, feature = "http"))]
mod guide;
mod indexes;
mod inspect;
mod latest;
mod lend;
mod live;
mod maintain;
mod options;
mod origin;
mod overwritten;
mod read;
mod ready;
mod records;
mod rewrite;
mod salvage;
mod sign_out;
mod status;
mod suspended;
mod walk;
mod write;
mod writer;

pub mod audit;
pub mod conflict;
pub mod error;
pub mod host;
pub mod projection;
pub mod query;
pub mod record;
pub mod schema;
#[cfg(feature = "search")]
pub mod search;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
pub mod sync;

pub use book::Book;
pub use entity::Entity;
pub use error::Error;
pub use fieldbook_core::limits;
pub use options::BookOptions;
pub use record::{
    Actor, EntityType, Fields, Mutation, MutationFields, Record, RecordId, RecordKey, Written,
};
pub use schema::{EntityRules, Schema};
pub use sign_out::SignOut;
#[cfg(feature = "http")]
pub use sync::{HttpOptions, HttpRemote};
pub use sync::{
    Remote, RunOptions, StaticToken, SyncHandle, SyncReport, SyncState, SyncStatus, WorkerOptions,
};
