//! The pure core of fieldbook: ids, time, entries, the hash chain, the codec, the rules, and the
//! server's rules. With the feature `store` also the log on redb, files, and the operating system's
//! clock.
//!
//! Without that feature this crate has no clock, disk, network or randomness: they are arguments.
//! With it, only [`log`], [`new_file`] and [`system`] have them.

#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]

pub mod authority;
pub mod codec;
pub mod digest;
pub mod entry;
pub mod index;
pub mod limits;
#[cfg(feature = "store")]
#[doc(hidden)]
pub mod locks;
#[cfg(feature = "store")]
pub mod log;
#[cfg(feature = "store")]
pub mod new_file;
pub mod note;
pub mod protocol;
pub mod record;
pub mod redaction;
pub mod rows;
pub mod rules;
pub mod search;
#[cfg(feature = "store")]
pub mod system;
pub mod tail;
pub mod when;

mod device_key;
mod fields;
mod hooks;
mod ids;
mod names;
mod numbers;
mod op;
mod random;
mod schema;
mod time;
mod view;

pub use device_key::DeviceKey;
pub use fields::{Fields, FieldsJson, InvalidFields, is_json};
pub use hooks::{ConflictFunction, MergeDecision, MergeInput, Outgoing, Upcaster, Validator};
pub use ids::{
    DeviceId, Epoch, InvalidId, OpId, RequestId, ServerEpoch, ServerId, TenantId, UnitId,
};
pub use names::{Actor, EntityType, InvalidName, RecordId, RecordKey};
pub use numbers::{
    ConflictId, Cursor, Hash, InvalidConflictId, InvalidCursor, InvalidHash, Seq, Version,
};
pub use op::{Mutation, MutationFields, OpContent, OpKind, OpPlace};
pub use random::{Randomness, SeededRandomness};
pub use schema::{
    Declared, EntityRules, Form, Granularity, Hook, HookKind, NetworkClass, Policy, Priorities,
    Reference, Schema, declared_digest,
};
pub use time::{Clock, Hlc, MonotonicTime, Now, WallTime};
pub use view::View;
