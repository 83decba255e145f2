//! All bounds of the product. Relations between bounds are checked when this file compiles.
//!
//! Input from outside is checked against its bound before memory is allocated for it.

use std::time::Duration;

/// The longest entity type, in bytes.
pub const ENTITY_TYPE_BYTES: usize = 63;
/// The longest record id and the longest actor, in bytes.
pub const RECORD_ID_BYTES: usize = 128;
/// The longest field name, in bytes.
pub const FIELD_NAME_BYTES: usize = 255;
/// The longest name of a role, in bytes.
pub const ROLE_BYTES: usize = 128;
/// The longest name of an index, in bytes.
pub const INDEX_NAME_BYTES: usize = 63;
/// The most parts of an index.
pub const INDEX_PARTS: usize = 4;
/// The most bytes of a text in a key of an index. A longer text is cut there, and a list reads the
/// record where the difference matters.
pub const INDEX_TEXT_BYTES: usize = 256;
/// The longest text of a place in a list, in bytes: that of a key with the longest parts.
pub const INDEX_PLACE_TEXT: usize = 2048;
/// The most fields in which an entity type is searched.
pub const SEARCH_FIELDS: usize = 16;
/// The greatest weight of a field in search.
pub const SEARCH_WEIGHT: u32 = 1_000;
/// The longest word in search, in bytes. A longer one is cut there.
pub const SEARCH_WORD_BYTES: usize = 64;
/// The most words by which one record is found. Those of the fields that are declared first count.
pub const SEARCH_RECORD_WORDS: usize = 1_000;
/// The most words that one search asks for. Those that follow are not looked at.
pub const SEARCH_ASKED_WORDS: usize = 16;
/// The most entries after the mark of the words that a search looks through itself, and the most
/// records that they touch. After more, it folds the words first.
pub const SEARCH_LAG: usize = 64;
/// The largest cursor a server may hand out, in bytes.
pub const CURSOR_BYTES: usize = 256;
/// The largest fields of one op, in bytes of JSON.
pub const OP_BYTES: usize = 1024 * 1024;
/// The depth at which `serde_json` itself stops reading.
pub const JSON_DEPTH: usize = 128;
/// The deepest nesting of lists and objects in a field's value. Two levels of [`JSON_DEPTH`] are
/// for the objects around it.
pub const FIELD_LEVELS: usize = JSON_DEPTH - 2;
/// The most ops of one transaction.
pub const TRANSACTION_OPS: usize = 1_000;
/// The largest transaction, in bytes of JSON.
pub const TRANSACTION_BYTES: usize = 4 * 1024 * 1024;
/// The largest stored entry, in bytes. A page that would be larger is split into several entries.
pub const ENTRY_BYTES: usize = 64 * 1024 * 1024;
/// The largest meta part of an entry, in bytes. A hostile length cannot make the decoder allocate
/// more.
pub const META_BYTES: usize = 16 * 1024 * 1024;
/// The largest stored row of a table, in bytes.
pub const ROW_BYTES: usize = 32 * 1024 * 1024;
/// The longest code of an answer, in bytes; a longer one is cut.
pub const CODE_BYTES: usize = 64;
/// The longest message of an answer, in bytes; a longer one is cut.
pub const MESSAGE_BYTES: usize = 4 * 1024;

/// The number of ops in an exchange, unless the app chooses another.
pub const BATCH_OPS: usize = 50;
/// The number of bytes of units in an exchange, unless the app chooses another.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// The number of changes that a device asks for at a time, unless the app chooses another. Two
/// pages are in memory at a time, and a writer waits while one is applied.
pub const PAGE_CHANGES: u32 = 2_000;
/// The most changes of a page, whatever the request asks for. The last transaction is whole and may
/// exceed it.
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
/// The most work of one request at the server, in bytes: the bytes of records read and written, and
/// a fixed amount for each change and each look-up. The device sends the remaining units again.
pub const WORK_BYTES: usize = 64 * 1024 * 1024;
/// The most work of one request at the server if it has more than one unit. A request keeps the
/// only writer for its first unit, and for further units that fit into this budget. Then other
/// requests have their turn. The device sends the remaining units again.
pub const TURN_BYTES: usize = 8 * 1024 * 1024;
/// The largest commit, in bytes of the answer that contains it. A commit is never split.
pub const COMMIT_BYTES: usize = 16 * 1024 * 1024;
/// The most bytes of a commit that are not fields.
pub const COMMIT_HEAD_BYTES: usize = 4 * 1024 * 1024;
/// A page, or a list of outcomes, ends after this many bytes that are not fields.
pub const PAGE_HEAD_BYTES: usize = 3 * 1024 * 1024;
/// The most fields of one record at a server. A removed field counts as long as its stamp is kept.
pub const RECORD_FIELDS: usize = 10_000;
/// The most stamps of removed fields that a server keeps of one record.
pub const REMOVED_STAMPS: usize = 64;
/// The most entity types of one tenant.
pub const ENTITY_TYPES: usize = 1_000;
/// The largest answer a device reads, in bytes.
pub const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// The largest request for a comparison that a server reads, in bytes.
pub const COMPARE_BYTES: usize = 1024 * 1024;
/// The most parts, and the most records, that one request for a comparison names.
pub const COMPARE_NAMED: usize = 1_000;
/// The most records that a server looks at for one request for a comparison. The answer then names
/// the place from which the next request goes on.
pub const COMPARE_LOOKED_AT: usize = 100_000;
/// The most records that one answer of a comparison lists.
pub const COMPARE_LISTED: usize = 10_000;
/// The most differing records that a check lists.
pub const CHECK_LISTED: usize = 100_000;
/// The most content digests an exchange carries to extend an anchor.
pub const ANCHOR_DIGESTS: usize = 1_000;

/// The number of newest heads that a server keeps of one epoch of a device's log, in addition to
/// the first head.
pub const ANCHORS_KEPT: usize = 32;

/// The most epochs of one device of which one answer of a comparison lists the heads.
pub const EPOCHS_LISTED: usize = 256;

/// A new epoch of a server numbers its commits from this far above the restored backup. The former
/// epoch cannot have made so many commits since that backup.
pub const EPOCH_COMMITS: u64 = 1 << 32;

/// The latest plausible time of a clock, a server's time or a stamp: the beginning of the year
/// 2200, in milliseconds since 1970. Stamps stay far below their largest value, so each stamp has a
/// later one.
pub const LATEST_MILLISECONDS: i64 = 7_258_118_400_000;
/// The highest version that a device accepts. Every JSON reader keeps such a number exactly, and a
/// million restores fit below it.
pub const VERSION_MOST: u64 = (1 << 53) - 1;
/// The most by which a version may exceed the highest known version of the same epoch of a server.
/// No device is away while so many commits are made. A restored server has another epoch, of which
/// nothing is known yet.
pub const VERSION_LEAP: u64 = 1 << 40;
/// The most records of one answer, those in its outcomes included.
pub const ANSWER_CHANGES: usize = 100_000;
/// The most cursors of one answer. It also bounds other parts of a device's state that an answer
/// can make grow.
pub const ANSWER_CURSORS: usize = 10_000;
/// The most bytes that the names and stamps of a record's older fields may take.
pub const OLDER_BYTES: usize = 4 * 1024 * 1024;
/// An entry of an answer ends at this size of its meta part. The rest follows in a further entry.
pub const META_SPLIT_BYTES: usize = 2 * 1024 * 1024;
/// The most records of an answer in one entry. To look up one record's history, the book reads that
/// entry and no other entry of the page.
pub const ENTRY_CHANGES: usize = 250;
/// An entry of an answer ends at this size of its values. The rest follows in a further entry.
pub const ITEMS_SPLIT_BYTES: usize = 16 * 1024 * 1024;
/// The most pending ops that a page of failed ops looks at.
pub const FAILED_LOOKED_AT: usize = 1_000;
/// The most ops that are listed as waiting for a failed one.
pub const DEPENDANTS: usize = 100;
/// The most ops that are looked at to find those that wait for a failed one.
pub const DEPENDANTS_LOOKED_AT: usize = 1_000;
/// The most entries in which a call looks for overwritten values.
pub const OVERWRITTEN_LOOKED_AT: u64 = 1_000;
/// How often an edit of a typed record is tried again, because the record changed meanwhile.
pub const EDIT_TRIES: usize = 256;
/// The number of rows set aside that a device recognises when they arrive again.
pub const SET_ASIDE_KNOWN: usize = 256;
/// The most bytes of a row that is set aside.
pub const SET_ASIDE_BYTES: usize = OP_BYTES + 64 * 1024;
/// The longest name of a row or an entity type outside the naming rule that is kept, in bytes.
pub const FOREIGN_NAME_BYTES: usize = 256;
/// The most entity types outside the naming rule whose cursors a device remembers.
pub const FOREIGN_CURSORS: usize = 64;
/// The most pages in a row that may move a cursor without news.
pub const EMPTY_PAGES: u32 = 16;

/// After this many answers of the class *transient* an op becomes a dead letter.
pub const TRIES: u32 = 5;
/// After this many failed requests with units in a row, while requests without units are answered,
/// the units are suspected.
pub const STRIKES: u32 = 2;
/// After its units were sent back this many times, an op is parked for a person.
pub const STALE_TRIES: u32 = 20;
/// The first backoff's upper bound.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The largest backoff, also for `Retry-After`.
pub const BACKOFF_MOST: Duration = Duration::from_secs(60 * 60);
/// The most by which an edit's stamp may exceed the server's estimated time.
pub const CLOCK_AHEAD: Duration = Duration::from_secs(60);
/// The most by which a stamp may exceed the server's time when the server accepts it. The extra
/// second leaves room for the edits of authors who read a stamp at [`CLOCK_AHEAD`]: each edit adds
/// a 65,536th of a millisecond.
pub const STAMP_AHEAD: Duration = Duration::from_secs(61);
/// The most entries by which a lazily folded table may lag behind the log. The append after that
/// folds it.
pub const LAZY_LAG: u64 = 1_024;

const _: () = assert!(ENTITY_TYPE_BYTES <= RECORD_ID_BYTES, "any name fits where an id does");
const _: () = assert!(OP_BYTES <= TRANSACTION_BYTES);
const _: () = assert!(TRANSACTION_BYTES < REQUEST_BYTES, "a whole transaction fits one request");
// Every device can read everything that a server accepts. An answer has a page with one more
// commit, outcomes with those of one more unit, a cursor for each entity type, and little else.
const _: () = assert!(
    2 * (PAGE_BYTES + COMMIT_BYTES) + ENTITY_TYPES * (ENTITY_TYPE_BYTES + 20) + 1024 * 1024
        < ANSWER_BYTES,
    "a page, the outcomes, and one more of each fit an answer"
);
const _: () = assert!(
    2 * (PAGE_HEAD_BYTES + COMMIT_HEAD_BYTES)
        + ENTITY_TYPES * (ENTITY_TYPE_BYTES + 20)
        + 1024 * 1024
        < META_BYTES,
    "what an answer brings besides fields fits the meta part of one entry"
);
// Each field may come from a write of its own: two numbers, an id, three names of members. The
// names of fields are among the record's fields. The names of removed fields may need JSON escapes.
const RECORD_HEAD_BYTES: usize = OP_BYTES
    + RECORD_FIELDS * 96
    + REMOVED_STAMPS * (6 * FIELD_NAME_BYTES + 96)
    + 6 * RECORD_ID_BYTES
    + 1024;
const _: () =
    assert!(RECORD_HEAD_BYTES < COMMIT_HEAD_BYTES, "the largest record fits a commit of its own");
const _: () = assert!(
    RECORD_HEAD_BYTES + OP_BYTES < COMMIT_BYTES,
    "the largest record fits a commit of its own"
);
const _: () = assert!(TRANSACTION_OPS <= REQUEST_CHANGES && BATCH_OPS <= REQUEST_UNITS);
const _: () = assert!(ANSWER_BYTES <= ENTRY_BYTES, "what one answer brings fits one entry");
const _: () = assert!(
    META_SPLIT_BYTES + OLDER_BYTES < META_BYTES,
    "an entry that is split when it is large, and one more record, fit the meta part"
);
const _: () = assert!(ITEMS_SPLIT_BYTES + REQUEST_BYTES < ENTRY_BYTES);
const _: () = assert!(PAGE_CHANGES_MOST as usize <= ANSWER_CHANGES);
const _: () =
    assert!(RECORD_HEAD_BYTES < OLDER_BYTES, "a device takes every record that a server accepts");
const _: () = assert!(ENTITY_TYPES <= ANSWER_CURSORS);
const _: () = assert!(EPOCH_COMMITS < VERSION_LEAP, "a declared restore stays below the leap");
const _: () = assert!(VERSION_LEAP < VERSION_MOST / 1_000);
const _: () = assert!(VERSION_MOST / EPOCH_COMMITS > 1_000_000, "a million restores fit");
const _: () = assert!(LATEST_MILLISECONDS < 1 << 43, "a stamp has room for counting on for ever");
const _: () = assert!(BATCH_OPS <= TRANSACTION_OPS);
const _: () = assert!(BACKOFF_FIRST.as_millis() < BACKOFF_MOST.as_millis());
