//! The pure heart of fieldbook: ids, time, entries, the chain, the codec, the rules, the server's rules; and, behind the
//! feature `store`, the log on redb, files and the operating system's clock.
//!
//! Without that feature there is no clock, no disk, no network and no randomness in this crate: they are arguments. With it, they
//! are in [`log`], [`new_file`] and [`system`] only.

#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]

pub mod authority;
pub mod codec;
pub mod entry;
pub mod limits;
#[cfg(feature = "store")]
#[doc(hidden)]
pub mod locks;
#[cfg(feature = "store")]
pub mod log;
#[cfg(feature = "store")]
pub mod new_file;
pub mod protocol;
pub mod record;
pub mod rows;
pub mod rules;
#[cfg(feature = "store")]
pub mod system;
pub mod tail;

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
pub use hooks::{ConflictFunction, Meeting, Outgoing, Ruling, Upcaster, Validator};
pub use ids::{DeviceId, Epoch, InvalidId, OpId, RequestId, ServerEpoch, ServerId, TenantId, UnitId};
pub use names::{Actor, EntityType, InvalidName, RecordId, RecordKey};
pub use numbers::{ConflictId, Cursor, Hash, InvalidConflictId, InvalidCursor, InvalidHash, Seq, Version};
pub use op::{Mutation, MutationFields, OpContent, OpKind, OpPlace};
pub use random::{Randomness, SeededRandomness};
pub use schema::{EntityRules, Granularity, NetworkClass, Policy, Priorities, Reference, Schema};
pub use time::{Clock, Hlc, MonotonicTime, Now, WallTime};
pub use view::View;
