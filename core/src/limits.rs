//! Every bound of the product in one place. Relations between bounds are checked when this file compiles.
//!
//! A bound on what comes from outside is checked before memory is taken for it.

use std::time::Duration;

/// The longest entity type, in bytes.
pub const ENTITY_TYPE_BYTES: usize = 63;
/// The longest record id and the longest actor, in bytes.
pub const RECORD_ID_BYTES: usize = 128;
/// The longest field name, in bytes.
pub const FIELD_NAME_BYTES: usize = 255;
/// The largest cursor a server may hand out, in bytes.
pub const CURSOR_BYTES: usize = 256;
/// The largest fields of one op, in bytes of JSON.
pub const OP_BYTES: usize = 1024 * 1024;
/// The depth at which `serde_json` stops reading by itself.
pub const JSON_DEPTH: usize = 128;
/// The deepest nesting of lists and objects in a field's value: with the object of the fields around it, what can be read.
pub const FIELD_LEVELS: usize = JSON_DEPTH - 2;
/// The most ops of one transaction.
pub const TRANSACTION_OPS: usize = 1_000;
/// The largest transaction, in bytes of JSON.
pub const TRANSACTION_BYTES: usize = 4 * 1024 * 1024;
/// The largest stored entry, in bytes. A page that would be larger is split into several entries.
pub const ENTRY_BYTES: usize = 64 * 1024 * 1024;
/// The largest meta part of an entry, in bytes; what a hostile length can make the decoder take.
pub const META_BYTES: usize = 16 * 1024 * 1024;
/// The largest stored row of a table, in bytes.
pub const ROW_BYTES: usize = 32 * 1024 * 1024;
/// The longest code of an answer, in bytes; a longer one is cut.
pub const CODE_BYTES: usize = 64;
/// The longest message of an answer, in bytes; a longer one is cut.
pub const MESSAGE_BYTES: usize = 4 * 1024;

/// How many ops an exchange carries unless the app says otherwise.
pub const BATCH_OPS: usize = 50;
/// How many bytes of units an exchange carries unless the app says otherwise.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// How many changes a device asks for at a time unless the app says otherwise.
pub const PAGE_CHANGES: u32 = 5_000;
/// The most changes a server puts in a page, whatever it is asked for (a last whole transaction may go over it).
pub const PAGE_CHANGES_MOST: u32 = 10_000;
/// The bytes of changes after which a server ends a page.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The largest request a server reads, in bytes.
pub const REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// The largest answer a device reads, in bytes.
pub const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// The most content digests an exchange carries to extend an anchor.
pub const ANCHOR_DIGESTS: usize = 1_000;

/// How far a new life of a server numbers its commits beyond those of the backup that it was restored from: more than were made,
/// and lost, since that backup.
pub const EPOCH_COMMITS: u64 = 1 << 32;

/// How many classified transient answers make a dead letter.
pub const TRIES: u32 = 5;
/// How often a unit may be stale before it is parked as a conflict for a person.
pub const STALE_TRIES: u32 = 20;
/// The first backoff's upper bound.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The largest backoff, also for `Retry-After`.
pub const BACKOFF_MOST: Duration = Duration::from_secs(60 * 60);
/// How far an edit's stamp may stand after the server's estimated time.
pub const CLOCK_AHEAD: Duration = Duration::from_secs(60);
/// How long an op can be undone before it may leave, unless the entity type says otherwise.
pub const UNDO_WINDOW: Duration = Duration::from_secs(5);
/// How many entries a lazily folded table may lag behind the log before an append folds it.
pub const LAZY_LAG: u64 = 1_024;

const _: () = assert!(ENTITY_TYPE_BYTES <= RECORD_ID_BYTES, "any name fits where an id does");
const _: () = assert!(OP_BYTES <= TRANSACTION_BYTES);
const _: () = assert!(TRANSACTION_BYTES < REQUEST_BYTES, "a whole transaction fits one request");
const _: () =
    assert!(PAGE_BYTES + TRANSACTION_BYTES < ANSWER_BYTES, "a page and one more transaction fit an answer");
const _: () = assert!(ANSWER_BYTES <= ENTRY_BYTES, "what one answer brings fits one entry");
const _: () = assert!(BATCH_OPS <= TRANSACTION_OPS);
const _: () = assert!(BACKOFF_FIRST.as_millis() < BACKOFF_MOST.as_millis());
