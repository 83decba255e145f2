//! All tables that are folded from the log. Values are bytes, decoded with `Result`. The number at
//! the end of a table's name is its format.
//!
//! The transaction of an append folds the records, and the tables that a decision changes. The tail
//! and the history are folded later, up to a mark in the book's state row, because nobody reads
//! them at the same moment (`docs/decisions/0004-what-an-append-touches.md`).

use redb::TableDefinition;

use fieldbook_core::{EntityType, OpId, OpPlace, RecordKey, Seq, UnitId};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// One row for each record that the server confirmed or that has a tail.
///
/// Key: entity type, 0, record id. Value: `StoredRecord`.
pub(crate) const RECORDS: Definition = TableDefinition::new("records-1");

/// The ops of long tails, which are not in the rows of their records (`rows::OPS_IN_ROW`).
///
/// Key: entity type, 0, record id, 0, seq (u64 BE), index (u32 BE). Value: `Pending`.
pub(crate) const PENDING: Definition = TableDefinition::new("pending-1");

/// Unanswered units.
///
/// Key: unit id. Value: `UnitRow`.
pub(crate) const UNITS: Definition = TableDefinition::new("units-1");

/// Every conflict, open or resolved.
///
/// Key: seq of the deciding entry (u64 BE), number of the decision (u32 BE). Value: `ConflictRow`.
pub(crate) const CONFLICTS: Definition = TableDefinition::new("conflicts-1");

/// The conflicts in which a person has to choose.
///
/// Key: as in [`CONFLICTS`]. Value: nothing.
pub(crate) const OPEN_CONFLICTS: Definition = TableDefinition::new("open-conflicts-1");

/// The conflicts of each record, open or resolved.
///
/// Key: entity type, 0, record id, 0, then as in [`CONFLICTS`]. Value: the op's id.
pub(crate) const CONFLICTS_OF: Definition = TableDefinition::new("conflicts-of-1");

/// The parks of single ops.
///
/// Key: op id. Value: `ParkedOpRow`.
pub(crate) const PARKED_OPS: Definition = TableDefinition::new("parked-ops-1");

/// Dead letters.
///
/// Key: op id. Value: `DeadLetterRow`.
pub(crate) const DEAD_LETTERS: Definition = TableDefinition::new("dead-letters-1");

/// The cursor of each entity type.
///
/// Key: entity type. Value: `CursorRow`.
pub(crate) const CURSORS: Definition = TableDefinition::new("cursors-1");

/// The state of the book as a whole.
///
/// Key: nothing. Value: `StateRow`.
pub(crate) const STATE: Definition = TableDefinition::new("state-1");

/// The tail, up to a mark. Key: seq (u64 BE), index (u32 BE). Value: `TailRow`.
pub(crate) const TAIL: Definition = TableDefinition::new("tail-1");

/// The ops of [`TAIL`] that refer to a record, or that remove a reference to it.
///
/// Key: the record referred to (entity type, 0, record id), 0, then as in [`TAIL`]. Value: one
/// byte, 0 if the op refers to the record, 1 if it removes a reference.
pub(crate) const REFERENCES: Definition = TableDefinition::new("references-1");

/// The entries that changed or named a record, and those that concern the book as a whole, up to a
/// mark.
///
/// Key: entity type, 0, record id, 0, seq (u64 BE); or 0, seq (u64 BE). Value: nothing.
pub(crate) const HISTORY: Definition = TableDefinition::new("history-1");

/// Undeclared records: those of entity types that are not declared yet.
///
/// Key: entity type, 0, record id, 0, seq (u64 BE), index of the change (u32 BE). Value: nothing;
/// the log has the change.
pub(crate) const UNDECLARED: Definition = TableDefinition::new("aside-1");

/// Records in the order of the indexes that are on record in [`INDEX_SHAPES`].
///
/// Key: entity type, 0, name, 0, the parts, record id (`fieldbook_core::index`). Value: nothing.
pub(crate) const INDEXES: Definition = TableDefinition::new("indexes-2");

/// Every table that is folded from the log.
pub(crate) const ALL: [Definition; 15] = [
    RECORDS,
    PENDING,
    UNITS,
    CONFLICTS,
    OPEN_CONFLICTS,
    CONFLICTS_OF,
    PARKED_OPS,
    DEAD_LETTERS,
    CURSORS,
    STATE,
    TAIL,
    REFERENCES,
    HISTORY,
    UNDECLARED,
    INDEXES,
];

/// A table whose name is known only at run time.
pub(crate) type Named<'n> = TableDefinition<'n, &'static [u8], &'static [u8]>;

/// The device's key, made with the book. It is not in [`ALL`]: no log contains it, so that nobody
/// can read the key there, and a rebuild keeps the key.
///
/// Key: nothing. Value: the 32 bytes of the key.
pub(crate) const DEVICE_KEY: Definition = TableDefinition::new("device-key-1");

/// The shapes of the indexes that the book has. They are not in [`ALL`]: an app declares them, so
/// the log does not have them, and a rebuild keeps them.
///
/// Key: entity type; nothing for the entity types without a row. Value: `IndexShapes`.
pub(crate) const INDEX_SHAPES: Definition = TableDefinition::new("index-shapes-1");

/// The app's own projections that the book has. They are not in [`ALL`]: they are folded from the
/// records, not from the log.
///
/// Key: name. Value: `ProjectionRow` as JSON.
pub(crate) const PROJECTIONS: Definition = TableDefinition::new("projections-1");

/// Returns the name of the table of an app's own projection. Its format is the app's.
pub(crate) fn app_name(projection: &str) -> String {
    format!("app-{projection}")
}

/// Returns the table of that name. Keys and values are the app's.
pub(crate) const fn app(name: &str) -> Named<'_> {
    TableDefinition::new(name)
}

/// Returns the key of a unit.
pub(crate) fn unit_key(unit: &UnitId) -> [u8; 16] {
    *unit.as_bytes()
}

/// Returns the key of a dead letter, or of a parked op.
pub(crate) fn op_key(op: &OpId) -> [u8; 16] {
    *op.as_bytes()
}

/// Returns the key of a conflict.
pub(crate) fn conflict_key(seq: Seq, number: u32) -> [u8; 12] {
    numbered(seq, number)
}

/// Returns the key of an op of the tail.
pub(crate) fn place_key(place: OpPlace) -> [u8; 12] {
    numbered(place.seq, place.index)
}

/// Reads a key made by [`place_key`].
pub(crate) fn place_from_key(key: &[u8]) -> Option<OpPlace> {
    let (seq, index) = numbers(key)?;
    Some(OpPlace { seq, index })
}

/// Reads a seq and a number.
pub(crate) fn numbers(key: &[u8]) -> Option<(Seq, u32)> {
    let (seq, number) = key.split_at_checked(8)?;
    Some((
        Seq::new(u64::from_be_bytes(seq.try_into().ok()?)),
        u32::from_be_bytes(number.try_into().ok()?),
    ))
}

/// Returns the key of a cursor.
pub(crate) fn cursor_key(entity: &EntityType) -> &[u8] {
    entity.as_str().as_bytes()
}

/// Returns the prefix of all history keys of a record.
pub(crate) fn history_prefix(key: &RecordKey) -> Vec<u8> {
    let mut bytes = key.to_bytes();
    bytes.push(0);
    bytes
}

/// Returns the key of an entry in a record's history.
pub(crate) fn history_key(key: &RecordKey, seq: Seq) -> Vec<u8> {
    let mut bytes = history_prefix(key);
    bytes.extend_from_slice(&seq.number().to_be_bytes());
    bytes
}

/// The prefix of the history of the book as a whole. No record's key begins with it, because an
/// entity type is never empty.
pub(crate) const BOOK_HISTORY: &[u8] = &[0];

/// Returns the key of an entry in the history of the book as a whole.
pub(crate) fn book_history_key(seq: Seq) -> Vec<u8> {
    [BOOK_HISTORY, &seq.number().to_be_bytes()].concat()
}

/// Reads the seq in a key of a history; `None` if this is no such key.
pub(crate) fn history_from_key(key: &[u8]) -> Option<Seq> {
    let (of, seq) = key.split_at_checked(key.len().checked_sub(8)?)?;
    if of != BOOK_HISTORY {
        RecordKey::from_bytes(of.strip_suffix(&[0])?)?;
    }
    Some(Seq::new(u64::from_be_bytes(seq.try_into().ok()?)))
}

/// Returns the key of an op of a long tail, of an undeclared change, or of a conflict: the record
/// and a place in the log.
pub(crate) fn of_record_key(key: &RecordKey, seq: Seq, number: u32) -> Vec<u8> {
    let mut bytes = history_prefix(key);
    bytes.extend_from_slice(&numbered(seq, number));
    bytes
}

/// Reads a key made by [`of_record_key`].
pub(crate) fn of_record_from_key(key: &[u8]) -> Option<(RecordKey, Seq, u32)> {
    let (record, place) = key.split_at_checked(key.len().checked_sub(12)?)?;
    let (seq, number) = numbers(place)?;
    Some((RecordKey::from_bytes(record.strip_suffix(&[0])?)?, seq, number))
}

fn numbered(seq: Seq, number: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    let (left, right) = bytes.split_at_mut(8);
    left.copy_from_slice(&seq.number().to_be_bytes());
    right.copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Returns the first key after all keys with a prefix; `None` if there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = prefix.to_vec();
    while let Some(last) = bytes.pop() {
        if last < u8::MAX {
            bytes.push(last + 1);
            return Some(bytes);
        }
    }
    None
}

/// A table by its place in the source, so that a name and its definition cannot be mixed up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    Records,
    Pending,
    Units,
    Conflicts,
    OpenConflicts,
    ConflictsOf,
    ParkedOps,
    DeadLetters,
    Cursors,
    State,
    Tail,
    References,
    History,
    Undeclared,
    Indexes,
}

impl Which {
    pub(crate) const ALL: [Self; 15] = [
        Self::Records,
        Self::Pending,
        Self::Units,
        Self::Conflicts,
        Self::OpenConflicts,
        Self::ConflictsOf,
        Self::ParkedOps,
        Self::DeadLetters,
        Self::Cursors,
        Self::State,
        Self::Tail,
        Self::References,
        Self::History,
        Self::Undeclared,
        Self::Indexes,
    ];

    pub(crate) const fn definition(self) -> Definition {
        match self {
            Self::Records => RECORDS,
            Self::Pending => PENDING,
            Self::Units => UNITS,
            Self::Conflicts => CONFLICTS,
            Self::OpenConflicts => OPEN_CONFLICTS,
            Self::ConflictsOf => CONFLICTS_OF,
            Self::ParkedOps => PARKED_OPS,
            Self::DeadLetters => DEAD_LETTERS,
            Self::Cursors => CURSORS,
            Self::State => STATE,
            Self::Tail => TAIL,
            Self::References => REFERENCES,
            Self::History => HISTORY,
            Self::Undeclared => UNDECLARED,
            Self::Indexes => INDEXES,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Pending => "pending ops",
            Self::Units => "units",
            Self::Conflicts => "conflicts",
            Self::OpenConflicts => "open conflicts",
            Self::ConflictsOf => "conflicts of records",
            Self::ParkedOps => "parked ops",
            Self::DeadLetters => "dead letters",
            Self::Cursors => "cursors",
            Self::State => "state",
            Self::Tail => "tail",
            Self::References => "references",
            Self::History => "history",
            Self::Undeclared => "undeclared",
            Self::Indexes => "indexes",
        }
    }
}
