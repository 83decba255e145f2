//! The rows of the tables folded from the log. They live here, below the tables, because the rules read them.
//!
//! Rows can be thrown away and folded again, so their stored form may change between versions of the program: a book
//! whose tables have another [`ROWS_FORMAT`] is rebuilt when it is opened.

use crate::codec::{BorrowDecode, Decode, Encode};
use crate::entry::{Extent, FieldsSource, ParkScope, PlannedOp, Receipt, SettledBy, Winner};
use crate::fields::{FieldsJson, InvalidFields};
use crate::ids::{DeviceId, Epoch, OpId, ServerEpoch, ServerId, UnitId};
use crate::names::{Actor, RecordKey};
use crate::numbers::{Cursor, Hash, Seq, Version};
use crate::op::{OpKind, OpPlace};
use crate::schema::Policy;
use crate::time::{Hlc, WallTime};

/// The format of the rows. Raised with every change to a type in this file.
pub const ROWS_FORMAT: u32 = 7;

/// One record. Key: [`RecordKey::to_bytes`].
///
/// Invariants:
/// 1. `visible` is [`Visible::AsConfirmed`] if and only if `tail` is empty.
/// 2. `tail` ascends by place and holds exactly the record's ops without a terminal outcome.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Default)]
pub struct RecordRow {
    /// The server's last word; none if it never said one.
    pub confirmed: Option<Confirmed>,
    /// What the app reads.
    pub visible: Visible,
    /// The ops on top of confirmed.
    pub tail: Vec<TailRef>,
    /// When the server last said something of this record, by the device's clock.
    pub synced_at: Option<WallTime>,
}

/// The server's last word on a record.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Confirmed {
    /// The server's version.
    pub version: Version,
    /// When it was last edited.
    pub edited_at: Hlc,
    /// Whether it is deleted.
    pub deleted: bool,
    /// Its image; of a deleted record the last one known, as long as it has a tail, else empty.
    pub fields: FieldsJson,
}

/// What an app reads of a record.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Default)]
pub enum Visible {
    /// What the server confirmed.
    #[default]
    AsConfirmed,
    /// Nothing: it is deleted here.
    Absent,
    /// Confirmed with the tail folded on top.
    Own(FieldsJson),
}

/// An op of a record's tail. What it does is in the log at its place.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct TailRef {
    /// The op.
    pub op: OpId,
    /// Where it stands.
    pub place: OpPlace,
    /// What it does.
    pub kind: OpKind,
    /// How often a unit with it was stale.
    pub stale: u32,
    /// Whether it is a dead letter.
    pub dead: bool,
    /// Whether a later op, which has ended, set or deleted the whole record: then it has nothing left to say.
    pub outdated: bool,
    /// The fields it lost to conflicts; they count as not being in the op.
    pub lost: Vec<String>,
    /// Fields that a conflict's rule or a person gave it in place of its own.
    pub merged: Option<FieldsJson>,
    /// What its author had seen, if the op is or was a dead letter: pages have passed it by since.
    pub base: Option<AuthorBase>,
    /// The units that carried it and were given up without knowing whether they took effect.
    pub attempts: Vec<UnitId>,
    /// Its fields under a later schema version than that under which it was made. `lost` and `merged` are of that version.
    pub upcast: Option<Upcast>,
}

impl TailRef {
    /// Refers to an op that waits and was never sent.
    pub const fn new(op: OpId, place: OpPlace, kind: OpKind) -> Self {
        Self {
            op,
            place,
            kind,
            stale: 0,
            dead: false,
            outdated: false,
            lost: Vec::new(),
            merged: None,
            base: None,
            attempts: Vec::new(),
            upcast: None,
        }
    }

    /// Returns whether it is a dead letter, or a unit that carried it was given up.
    pub const fn was_given_up(&self) -> bool {
        self.dead || !self.attempts.is_empty()
    }
}

/// An op's fields, turned into those of another schema version.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Upcast {
    /// The version.
    pub schema_version: u32,
    /// The fields.
    pub fields: FieldsJson,
}

/// What the author of an op had seen of the record that the server has.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct AuthorBase {
    /// The server's version.
    pub version: Option<Version>,
    /// The fields that the op touches, with a null for each that was not there; the whole image for an op that sets or
    /// deletes the whole record; nothing if there was no record.
    pub fields: Option<FieldsJson>,
}

impl RecordRow {
    /// Returns the image that the app reads, or `None` if there is no such record for it.
    pub fn image(&self) -> Option<&FieldsJson> {
        match &self.visible {
            Visible::AsConfirmed => self.confirmed_image(),
            Visible::Absent => None,
            Visible::Own(fields) => Some(fields),
        }
    }

    /// Returns the server's image, or `None` if the server has no such record as far as is known.
    pub fn confirmed_image(&self) -> Option<&FieldsJson> {
        self.confirmed.as_ref().filter(|confirmed| !confirmed.deleted).map(|confirmed| &confirmed.fields)
    }

    /// Returns the version on which an edit made now would be based.
    pub fn version(&self) -> Option<Version> {
        self.confirmed.as_ref().map(|confirmed| confirmed.version)
    }

    /// Returns whether a version of the record is newer than what is confirmed.
    pub fn is_behind(&self, version: Version) -> bool {
        self.version().is_none_or(|known| version > known)
    }

    /// Forgets the versions of a former server: what it said is to be confirmed by the one that was accepted.
    pub fn await_confirmation(&mut self) {
        if let Some(confirmed) = self.confirmed.as_mut() {
            confirmed.version = Version::default();
        }
        for base in self.tail.iter_mut().filter_map(|reference| reference.base.as_mut()) {
            base.version = base.version.map(|_| Version::default());
        }
    }

    /// Takes from dead letters, and from those that are sent again, what a later op of ours said anew, when that op ends: what
    /// a person typed first must not come back over what was typed last.
    pub fn outdate(&mut self, later: OpPlace, kind: OpKind, names: &[String]) {
        for reference in self.tail.iter_mut().filter(|found| found.place < later && found.was_given_up()) {
            if kind == OpKind::Update {
                let news = names.iter().filter(|name| !reference.lost.contains(name));
                let news: Vec<_> = news.cloned().collect();
                reference.lost.extend(news);
            } else {
                reference.outdated = true;
            }
        }
    }

    /// Returns whether nothing is known of the record any more, so that it needs no row.
    pub fn is_empty(&self) -> bool {
        self.confirmed.is_none() && self.tail.is_empty()
    }

    /// Returns the server's image as values; empty if there is none.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn confirmed_fields(&self) -> Result<crate::fields::Fields, InvalidFields> {
        self.confirmed_image().map_or_else(|| Ok(crate::fields::Fields::new()), FieldsJson::to_fields)
    }
}

/// A record's row read where it lies, for who only wants to know what the app reads. Member by member as [`RecordRow`] is
/// stored.
#[derive(Debug, Clone, PartialEq, BorrowDecode)]
pub struct RecordView<'a> {
    confirmed: Option<ConfirmedView<'a>>,
    visible: VisibleView<'a>,
    tail: Vec<TailRef>,
    /// When the server last said something of this record, by the device's clock.
    pub synced_at: Option<WallTime>,
}

#[derive(Debug, Clone, PartialEq, BorrowDecode)]
struct ConfirmedView<'a> {
    version: Version,
    edited_at: Hlc,
    deleted: bool,
    fields: &'a str,
}

#[derive(Debug, Clone, PartialEq, BorrowDecode)]
enum VisibleView<'a> {
    AsConfirmed,
    Absent,
    Own(&'a str),
}

impl RecordView<'_> {
    /// Returns what [`RecordRow::image`] does.
    pub fn image(&self) -> Option<FieldsJson> {
        let text = match &self.visible {
            VisibleView::AsConfirmed => self
                .confirmed
                .as_ref()
                .filter(|confirmed| !confirmed.deleted)
                .map(|confirmed| confirmed.fields),
            VisibleView::Absent => None,
            VisibleView::Own(text) => Some(*text),
        };
        text.map(FieldsJson::from_stored_text)
    }

    /// Returns what [`RecordRow::version`] does.
    pub fn version(&self) -> Option<Version> {
        self.confirmed.as_ref().map(|confirmed| confirmed.version)
    }

    /// Returns how many ops stand on top of confirmed.
    pub const fn pending(&self) -> usize {
        self.tail.len()
    }
}

/// A unit that is planned and has no final answer. Key: the unit's id.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct UnitRow {
    /// The entry that planned it.
    pub planned: Seq,
    /// Whose credentials it may be sent with.
    pub actor: Actor,
    /// Its changes.
    pub changes: Vec<UnitChangeRow>,
    /// The hash of its frozen content.
    pub digest: Hash,
    /// Attempted units some of whose ops it carries again.
    pub replaces: Vec<UnitId>,
    /// How many classified transient answers it has had.
    pub tries: u32,
    /// The code of the last of them.
    pub code: String,
    /// When the first of them came.
    pub first_try: Option<WallTime>,
    /// Not to be sent again before this.
    pub retry_at: Option<WallTime>,
}

/// What a planned unit does to one record.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct UnitChangeRow {
    /// The record.
    pub key: RecordKey,
    /// What is done to it.
    pub kind: OpKind,
    /// The ops that it stands for, oldest first.
    pub ops: Vec<PlannedOp>,
    /// The version it is meant for.
    pub base: Option<Version>,
    /// What both sides were when they were last the same, for the fields that the change touches, with a null for each that
    /// was not there; the whole image for changes that set or delete the whole record.
    pub base_fields: Option<FieldsJson>,
    /// The last edit among its ops.
    pub edited_at: Hlc,
    /// The fields that were edited earlier.
    pub older: Vec<(String, Hlc)>,
    /// The schema version of its fields.
    pub schema_version: u32,
    /// Where its fields are.
    pub fields: FieldsSource,
}

/// A conflict. Key: the entry that recorded it, then its number among the decisions of that entry, both big-endian.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct ConflictRow {
    /// The record.
    pub key: RecordKey,
    /// The local op.
    pub op: PlannedOp,
    /// What the local op does.
    pub kind: OpKind,
    /// When the local op was made.
    pub edited_at: Hlc,
    /// The server's version that it met.
    pub version: Version,
    /// What the server did.
    pub extent: Extent,
    /// When the server's side was edited.
    pub remote_edited_at: Hlc,
    /// Each field with its rule and its winner.
    pub fields: Vec<(String, Policy, Winner)>,
    /// Who won as a whole.
    pub winner: Winner,
    /// The rule by which the whole was settled.
    pub rule: Policy,
    /// The overlapping fields as both sides had them before.
    pub base: FieldsJson,
    /// The overlapping fields as the local op has them.
    pub local: FieldsJson,
    /// The overlapping fields as the server has them.
    pub remote: FieldsJson,
    /// What a merging rule made of both.
    pub merged: Option<FieldsJson>,
    /// The functions of the app that settled it.
    pub functions: Vec<SettledBy>,
    /// When it was found, by the device's clock.
    pub at: WallTime,
    /// Whether a person still has to choose.
    pub open: bool,
}

impl ConflictRow {
    /// Returns the name of the app's function that settled a field, or the whole.
    pub fn function_of(&self, field: Option<&str>) -> Option<&str> {
        let found = self.functions.iter().find(|settled| settled.field.as_deref() == field);
        found.map(|settled| settled.function.as_str())
    }

    /// Notes what a person chose, if it was still open.
    pub fn close(&mut self, winner: Winner, merged: Option<&FieldsJson>) {
        if !self.open {
            return;
        }
        self.open = false;
        self.winner = winner;
        self.merged = merged.cloned().or(self.merged.take());
        for (.., of_field) in self.fields.iter_mut().filter(|(.., of_field)| *of_field == Winner::Undecided) {
            *of_field = winner;
        }
    }
}

/// An op that the server refused for good. Key: the op's id.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct DeadLetterRow {
    /// The record.
    pub key: RecordKey,
    /// The op.
    pub op: PlannedOp,
    /// What it does.
    pub kind: OpKind,
    /// Who made it.
    pub actor: Actor,
    /// The unit in which it was refused.
    pub unit: UnitId,
    /// The server's code.
    pub code: String,
    /// The server's message.
    pub message: String,
    /// How many classified answers it had.
    pub tries: u32,
    /// When the first of them came, by the device's clock.
    pub first_at: WallTime,
    /// When the last of them came.
    pub last_at: WallTime,
    /// The entry that recorded it.
    pub recorded: Seq,
}

/// An op of the tail, enough of it to plan without reading the log. Key: seq, index, both big-endian.
///
/// The table lags behind the log by design: it is folded up to [`StateRow::tail_folded`] and completed in memory from the
/// entries above when a book is opened.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct TailRow {
    /// The op.
    pub op: OpId,
    /// The record.
    pub key: RecordKey,
    /// What it does.
    pub kind: OpKind,
    /// Who made it.
    pub actor: Actor,
    /// When it was made, in the order that decides conflicts.
    pub edited_at: Hlc,
    /// When it was made, by the device's clock.
    pub made_at: WallTime,
    /// The schema version it was made under.
    pub schema_version: u32,
    /// The schema version that it was turned into since.
    pub upcast: Option<u32>,
    /// How many ops its transaction has.
    pub transaction_ops: u32,
    /// How many bytes its fields take.
    pub bytes: u64,
    /// The declared references that it sets.
    pub references: Vec<FieldReference>,
}

/// A declared reference that an op sets.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct FieldReference {
    /// The field.
    pub field: String,
    /// The record that it points to; none if it points nowhere.
    pub target: Option<RecordKey>,
}

impl TailRow {
    /// Returns the records that it refers to.
    pub fn targets(&self) -> impl Iterator<Item = &RecordKey> {
        self.references.iter().filter_map(|reference| reference.target.as_ref())
    }

    /// Returns the schema version of its fields as they are now.
    pub fn form(&self) -> u32 {
        self.upcast.unwrap_or(self.schema_version)
    }
}

/// How far one entity type was read. Key: the entity type.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct CursorRow {
    /// The server's cursor.
    pub cursor: Cursor,
    /// When a page last moved it, by the device's clock.
    pub synced_at: WallTime,
}

/// What is known of the book as a whole. One row.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Default)]
pub struct StateRow {
    /// The format of the rows.
    pub format: u32,
    /// The device.
    pub device: Option<DeviceId>,
    /// The log's present epoch.
    pub epoch: Option<Epoch>,
    /// The first entry of that epoch.
    pub epoch_from: Seq,
    /// The server that this book belongs to, and the life of it that was last seen.
    pub server: Option<(ServerId, ServerEpoch)>,
    /// How far the server knows this log.
    pub anchor: Option<Receipt>,
    /// The server's clock, and the device's, at the last answer.
    pub server_time: Option<(WallTime, WallTime)>,
    /// When the server last answered, by the device's clock.
    pub synced_at: Option<WallTime>,
    /// What is stopped, and by which code.
    pub parks: Vec<(ParkScope, String)>,
    /// Whether an accepted server has yet to be read to its end; until then confirmed records of version 0 are those that
    /// the former one had.
    pub rereading: bool,
    /// Whether another server was ever accepted. What its former one had deleted may still be news to it, whenever another
    /// device offers it the record.
    pub had_other_server: bool,
    /// How far the table of the tail is folded.
    pub tail_folded: Seq,
    /// How far the table of the history is folded.
    pub history_folded: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::numbers::Seq;

    fn dead(seq: u64) -> TailRef {
        let place = OpPlace { seq: Seq::new(seq), index: 0 };
        TailRef { dead: true, ..TailRef::new(OpId::from_bytes([0; 16]), place, OpKind::Update) }
    }

    #[test]
    fn dead_letters_lose_what_a_later_op_said_anew() {
        let mut row = RecordRow { tail: vec![dead(1), dead(9)], ..RecordRow::default() };
        let later = OpPlace { seq: Seq::new(5), index: 0 };
        row.outdate(later, OpKind::Update, &["a".to_owned()]);
        assert_eq!((row.tail[0].lost.as_slice(), row.tail[1].lost.len()), (["a".to_owned()].as_slice(), 0));
        row.outdate(later, OpKind::Create, &[]);
        assert_eq!((row.tail[0].outdated, row.tail[1].outdated), (true, false));
    }

    #[test]
    fn a_conflict_keeps_what_a_person_chose_and_is_closed_once() {
        let op = PlannedOp { id: OpId::from_bytes([0; 16]), place: OpPlace::default() };
        let mut row = ConflictRow {
            key: RecordKey::parse("lead", "1").unwrap(),
            op,
            kind: OpKind::Update,
            edited_at: Hlc::ZERO,
            version: Version::default(),
            extent: Extent::Whole,
            remote_edited_at: Hlc::ZERO,
            fields: vec![
                ("a".to_owned(), Policy::Manual, Winner::Undecided),
                ("b".to_owned(), Policy::LastWriteWins, Winner::Local),
            ],
            winner: Winner::Undecided,
            rule: Policy::Manual,
            base: FieldsJson::default(),
            local: FieldsJson::default(),
            remote: FieldsJson::default(),
            merged: None,
            functions: Vec::new(),
            at: WallTime::default(),
            open: true,
        };
        row.close(Winner::Remote, None);
        row.close(Winner::Local, None);
        let winners: Vec<_> = row.fields.iter().map(|(.., winner)| *winner).collect();
        assert_eq!(
            (row.open, row.winner, winners),
            (false, Winner::Remote, vec![Winner::Remote, Winner::Local])
        );
    }

    #[test]
    fn a_view_says_what_the_row_says() {
        let fields = |text: &str| FieldsJson::parse(text).unwrap();
        let confirmed = |deleted| Confirmed {
            version: Version::new(300),
            edited_at: Hlc::from_bits(70_000),
            deleted,
            fields: fields(r#"{"a":"é"}"#),
        };
        let reference = TailRef {
            op: OpId::from_bytes([7; 16]),
            place: OpPlace { seq: Seq::new(9), index: 2 },
            kind: OpKind::Update,
            stale: 1,
            dead: true,
            outdated: false,
            lost: vec!["b".to_owned()],
            merged: Some(fields("{}")),
            attempts: vec![UnitId::from_bytes([7; 16])],
            base: Some(AuthorBase { version: Some(Version::new(7)), fields: Some(fields("{}")) }),
            upcast: Some(Upcast { schema_version: 2, fields: fields("{}") }),
        };
        let rows = [
            RecordRow { confirmed: Some(confirmed(false)), ..RecordRow::default() },
            RecordRow { confirmed: Some(confirmed(true)), ..RecordRow::default() },
            RecordRow {
                confirmed: Some(confirmed(false)),
                visible: Visible::Absent,
                tail: vec![reference.clone()],
                synced_at: Some(WallTime::from_milliseconds(5)),
            },
            RecordRow {
                confirmed: None,
                visible: Visible::Own(fields(r#"{"b":1}"#)),
                tail: vec![reference.clone(), reference],
                synced_at: None,
            },
        ];
        for row in rows {
            let bytes = codec::encode(&row).unwrap();
            let view: RecordView<'_> = codec::view(&bytes).unwrap();
            assert_eq!(view.image().as_ref(), row.image());
            assert_eq!(view.version(), row.version());
            assert_eq!((view.pending(), view.synced_at), (row.tail.len(), row.synced_at));
            assert!(codec::view::<RecordView<'_>>(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
