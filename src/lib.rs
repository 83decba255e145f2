//! fieldbook: an event-sourced sync core for offline-first apps.
//!
//! An app's change is appended to a local, hash-chained log, and that append is the atomic unit. What the app reads is folded
//! from the log in the same transaction; what still has to reach the server is the log's unacknowledged tail; every decision
//! the engine takes is an entry too.
//!
//! ```
//! use fieldbook::{Book, BookOptions, Fields, RecordKey};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let book = Book::open_or_create(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! let key: RecordKey = "lead/42".parse()?;
//! book.create(key.clone(), Fields::from_value(json!({"name": "Ann", "stage": "new"}))?)?;
//! book.update(key.clone(), Fields::from_value(json!({"stage": "hot"}))?)?;
//!
//! let lead = book.get_record(&key)?.expect("it was just written");
//! assert_eq!(lead.json.as_str(), r#"{"name":"Ann","stage":"hot"}"#);
//! assert_eq!(book.status().pending, 2, "both ops are still owed to the server");
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: a server (`fieldbook-server`), a query language, or an encryption layer.

mod background;
mod book;
mod decisions;
mod entity;
mod error;
mod examine;
mod explain;
mod inspect;
mod latest;
mod maintain;
mod options;
mod projection;
mod read;
mod ready;
mod record;
mod status;
mod sync;
mod write;
mod writer;

pub use background::SyncHandle;
pub use book::Book;
pub use decisions::Undone;
pub use entity::Entity;
pub use error::Error;
pub use examine::{Examination, Finding, examine_book};
pub use maintain::{Past, rebuild_book, verify_book};
pub use options::{BookOptions, Connectivity, Unmetered};
pub use projection::{Projected, ProjectionStatus};
pub use read::{IndexPlace, Page};
pub use record::{Record, RecordRef, Records};
pub use status::{QueuedOp, SyncStatus};
pub use write::Written;

pub use fieldbook_core::log::{Damage, Head, StoreError, Verified, survey_export, verify_export};
pub use fieldbook_core::rules::NotPossible;
pub use fieldbook_core::rules::admit::Rejected;
pub use fieldbook_core::rules::belonging::{InvalidServerIdentity, OTHER_TENANT, ServerIdentity};
pub use fieldbook_core::rules::choose::Choice;
pub use fieldbook_core::rules::explain::{
    ExplainedConflict, ExplainedOp, ExplainedVersion, Explanation, Seen,
};
pub use fieldbook_core::rules::group::Group;
pub use fieldbook_core::rules::plan::{Hold, Plan};
pub use fieldbook_core::rules::status::{
    Awaited, Held, OpState, ParkReason, RecordState, RecordStatus, SyncState, UserAction,
};
pub use fieldbook_core::system::SystemClock;
pub use fieldbook_core::{
    Actor, Clock, ConflictFunction, ConflictId, Cursor, DeviceId, EntityRules, EntityType, Epoch, Fields,
    FieldsJson, Granularity, Hash, Hlc, InvalidConflictId, InvalidFields, InvalidName, Meeting,
    MonotonicTime, Mutation, MutationFields, NetworkClass, Now, OpId, OpKind, OpPlace, Outgoing, Policy,
    Priorities, Randomness, RecordId, RecordKey, Reference, RequestId, Ruling, Schema, SeededRandomness, Seq,
    ServerEpoch, ServerId, TenantId, UnitId, Upcaster, Validator, Version, WallTime, is_json,
};
pub use fieldbook_core::{entry, limits, protocol, rows};
pub use fieldbook_projections::{
    Broken, InvalidProjection, KeyValue, LogView, MemoryTables, Projection, ProjectionError, ProjectionTable,
    RecordChange, Snapshot,
};
pub use fieldbook_transport::{
    Activity, Ask, Budget, Credentials, FnRemote, Next, NoCredentials, Received, Remote, RemoteError,
    RunOptions, Secret, StaticToken, Stopped, SyncReport, Taken, WorkerError, WorkerOptions,
};
#[cfg(feature = "http")]
pub use fieldbook_transport::{HttpOptions, HttpRemote, InvalidOrigin};

/// The README's example compiles.
#[cfg(all(doctest, feature = "http"))]
#[doc = include_str!("../README.md")]
struct Readme;
