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
/// How many changes a device asks for at a time unless the app says otherwise: two pages are in memory at a time, and a writer
/// waits while one is taken in.
pub const PAGE_CHANGES: u32 = 2_000;
/// The most changes a server puts in a page, whatever it is asked for (a last whole transaction may go over it).
pub const PAGE_CHANGES_MOST: u32 = 10_000;
/// The bytes of changes after which a server ends a page.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The largest request a server reads, in bytes.
pub const REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// The most units of one request.
pub const REQUEST_UNITS: usize = 1_000;
/// The most changes of all units of one request together.
pub const REQUEST_CHANGES: usize = 10_000;
/// The most writes and names of fields (`older`) of all changes of one request together.
pub const REQUEST_STAMPS: usize = 100_000;
/// The most entity types that one request names a cursor for.
pub const REQUEST_CURSORS: usize = 10_000;
/// The most work of one request at the server, in bytes: those that are read and written of records, and something for each
/// change and each look-up. What is left of a request then is sent again.
pub const WORK_BYTES: usize = 64 * 1024 * 1024;
/// The most work of one request at the server if it has more than one unit: a request has the only writer for its first unit and
/// for what fits here beside it. Others have their turn before the rest, which is sent again.
pub const TURN_BYTES: usize = 8 * 1024 * 1024;
/// The largest commit, in bytes of the answer that brings it: a commit is never split.
pub const COMMIT_BYTES: usize = 16 * 1024 * 1024;
/// How many of those bytes may be something else than fields.
pub const COMMIT_HEAD_BYTES: usize = 4 * 1024 * 1024;
/// How many bytes of something else than fields end a page, and the list of outcomes.
pub const PAGE_HEAD_BYTES: usize = 3 * 1024 * 1024;
/// The most fields of one record at a server. What was taken away counts while its stamp is kept.
pub const RECORD_FIELDS: usize = 10_000;
/// The most stamps that a server keeps of a record's fields that were taken away.
pub const REMOVED_STAMPS: usize = 64;
/// The most entity types of one tenant.
pub const ENTITY_TYPES: usize = 1_000;
/// The largest answer a device reads, in bytes.
pub const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// The most content digests an exchange carries to extend an anchor.
pub const ANCHOR_DIGESTS: usize = 1_000;

/// How many of the newest heads a server keeps of one life of a device's log, beside the first.
pub const ANCHORS_KEPT: usize = 32;

/// How far a new life of a server numbers its commits beyond those of the backup that it was restored from: more than were made,
/// and lost, since that backup.
pub const EPOCH_COMMITS: u64 = 1 << 32;

/// The latest time that a clock, a server's time or a stamp is believed to show: the beginning of the year 2200, in
/// milliseconds since 1970. It keeps stamps so far from their largest value that counting on from one never ends.
pub const LATEST_MILLISECONDS: i64 = 7_258_118_400_000;
/// The highest version that a device takes. Every JSON reader keeps such a number, and a million restores fit below it.
pub const VERSION_MOST: u64 = (1 << 53) - 1;
/// How far a version may stand above the highest that is known of the same life of a server. A device cannot have been away
/// while so many commits were made, and a restored server is another life, of which nothing is known yet.
pub const VERSION_LEAP: u64 = 1 << 40;
/// The most records of one answer, those of its outcomes included.
pub const ANSWER_CHANGES: usize = 100_000;
/// The most cursors of one answer, and the most parts of a device's state that it can make grow.
pub const ANSWER_CURSORS: usize = 10_000;
/// The most bytes that the names and stamps of a record's older fields may take.
pub const OLDER_BYTES: usize = 4 * 1024 * 1024;
/// The size of a meta part from which an answer goes on in a further entry.
pub const META_SPLIT_BYTES: usize = 2 * 1024 * 1024;
/// How many records of an answer are in one entry. Whoever asks what happened to one of them reads that entry, and no other of the page.
pub const ENTRY_CHANGES: usize = 250;
/// The size of the values from which an answer goes on in a further entry.
pub const ITEMS_SPLIT_BYTES: usize = 16 * 1024 * 1024;
/// How many rows that were set aside a device knows again.
pub const SET_ASIDE_KNOWN: usize = 256;
/// The most bytes of a row that is set aside.
pub const SET_ASIDE_BYTES: usize = OP_BYTES + 64 * 1024;
/// The longest name of a row or an entity type outside our rule that is kept, in bytes.
pub const FOREIGN_NAME_BYTES: usize = 256;
/// How many entity types outside our rule a device reads on from where it was.
pub const FOREIGN_CURSORS: usize = 64;
/// How many pages in a row may move a cursor without bringing anything that is new.
pub const EMPTY_PAGES: u32 = 16;

/// How many classified transient answers make a dead letter.
pub const TRIES: u32 = 5;
/// How many requests with units fail in a row, while those without units are answered, before the units are suspected.
pub const STRIKES: u32 = 2;
/// How often a unit may be stale before it is parked as a conflict for a person.
pub const STALE_TRIES: u32 = 20;
/// The first backoff's upper bound.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The largest backoff, also for `Retry-After`.
pub const BACKOFF_MOST: Duration = Duration::from_secs(60 * 60);
/// How far an edit's stamp may stand after the server's estimated time.
pub const CLOCK_AHEAD: Duration = Duration::from_secs(60);
/// How far after its time a server takes a stamp. The second more is room for the stamps that stand above one at
/// [`CLOCK_AHEAD`], because their author read it: each takes a 65,536th of a millisecond.
pub const STAMP_AHEAD: Duration = Duration::from_secs(61);
/// How many entries a lazily folded table may lag behind the log before an append folds it.
pub const LAZY_LAG: u64 = 1_024;

const _: () = assert!(ENTITY_TYPE_BYTES <= RECORD_ID_BYTES, "any name fits where an id does");
const _: () = assert!(OP_BYTES <= TRANSACTION_BYTES);
const _: () = assert!(TRANSACTION_BYTES < REQUEST_BYTES, "a whole transaction fits one request");
// Whatever a server accepts, every device can read. An answer is a page and one more commit, outcomes and those of one more
// unit, a cursor for each entity type, and little else.
const _: () = assert!(
    2 * (PAGE_BYTES + COMMIT_BYTES) + ENTITY_TYPES * (ENTITY_TYPE_BYTES + 20) + 1024 * 1024 < ANSWER_BYTES,
    "a page, the outcomes, and one more of each fit an answer"
);
const _: () = assert!(
    2 * (PAGE_HEAD_BYTES + COMMIT_HEAD_BYTES) + ENTITY_TYPES * (ENTITY_TYPE_BYTES + 20) + 1024 * 1024
        < META_BYTES,
    "what an answer brings besides fields fits the meta part of one entry"
);
// Each field may come from a write of its own: two numbers, an id, three names of members. The names of fields are part of the record's fields; those that were taken away may be of characters that JSON escapes.
const RECORD_HEAD_BYTES: usize =
    OP_BYTES + RECORD_FIELDS * 96 + REMOVED_STAMPS * (6 * FIELD_NAME_BYTES + 96) + 6 * RECORD_ID_BYTES + 1024;
const _: () = assert!(RECORD_HEAD_BYTES < COMMIT_HEAD_BYTES, "the largest record fits a commit of its own");
const _: () =
    assert!(RECORD_HEAD_BYTES + OP_BYTES < COMMIT_BYTES, "the largest record fits a commit of its own");
const _: () = assert!(TRANSACTION_OPS <= REQUEST_CHANGES && BATCH_OPS <= REQUEST_UNITS);
const _: () = assert!(ANSWER_BYTES <= ENTRY_BYTES, "what one answer brings fits one entry");
const _: () = assert!(
    META_SPLIT_BYTES + OLDER_BYTES < META_BYTES,
    "an entry that is split when it is large, and one more record, fit the meta part"
);
const _: () = assert!(ITEMS_SPLIT_BYTES + REQUEST_BYTES < ENTRY_BYTES);
const _: () = assert!(PAGE_CHANGES_MOST as usize <= ANSWER_CHANGES);
const _: () = assert!(RECORD_HEAD_BYTES < OLDER_BYTES, "what a server accepts of a record is taken");
const _: () = assert!(ENTITY_TYPES <= ANSWER_CURSORS);
const _: () = assert!(EPOCH_COMMITS < VERSION_LEAP, "a declared restore is no leap");
const _: () = assert!(VERSION_LEAP < VERSION_MOST / 1_000);
const _: () = assert!(VERSION_MOST / EPOCH_COMMITS > 1_000_000, "a million restores fit");
const _: () = assert!(LATEST_MILLISECONDS < 1 << 43, "a stamp has room to be counted on from, for ever");
const _: () = assert!(BATCH_OPS <= TRANSACTION_OPS);
const _: () = assert!(BACKOFF_FIRST.as_millis() < BACKOFF_MOST.as_millis());
