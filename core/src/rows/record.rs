//! A record's row: what the server confirmed, what the app reads, and the ops between the two.

use crate::codec::{BorrowDecode, Decode, Encode};
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::ids::{OpId, UnitId};
use crate::numbers::Version;
use crate::op::{OpKind, OpPlace};
use crate::rules::OpContent;
use crate::time::{Hlc, WallTime};

/// One record. Key: [`RecordKey::to_bytes`](crate::names::RecordKey::to_bytes).
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
    /// What its author had seen, if the op is or was a dead letter, or a unit that carried it was given up: pages have passed it by
    /// since.
    pub base: Option<AuthorBase>,
    /// The units that carried it and were given up without knowing whether they took effect.
    pub attempts: Vec<UnitId>,
    /// Its fields under a later schema version than that under which it was made. `lost` and `merged` are of that version.
    pub upcast: Option<Upcast>,
    /// When it counts as made, if the stamp that it was made with was ahead of the server's time.
    pub restamped: Option<Hlc>,
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
            restamped: None,
        }
    }

    /// Returns when an op counts as made.
    pub fn edited_at(&self, content: &OpContent) -> Hlc {
        self.restamped.unwrap_or(content.edited_at)
    }

    /// Returns whether it is a dead letter, or a unit that carried it was given up.
    pub const fn was_given_up(&self) -> bool {
        self.dead || !self.attempts.is_empty()
    }

    /// Gives it values, on top of those that it was given before.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn merge(&mut self, values: &Fields) -> Result<(), InvalidFields> {
        let known = self.merged.as_ref().map(FieldsJson::to_fields).transpose()?;
        let mut merged = known.unwrap_or_default();
        merged.compose(values.clone());
        self.merged = Some(merged.to_json());
        Ok(())
    }

    /// Counts values as seen by who made it.
    fn learn(&mut self, values: &Fields) -> Result<(), InvalidFields> {
        if let Some(seen) = self.base.as_mut().and_then(|base| base.fields.as_mut()) {
            let mut fields = seen.to_fields()?;
            fields.apply(values);
            *seen = fields.to_json();
        }
        Ok(())
    }

    fn keep_merged(&mut self, keep: impl Fn(&str) -> bool) -> Result<(), InvalidFields> {
        let Some(merged) = self.merged.as_ref() else { return Ok(()) };
        let kept = merged.to_fields()?.filtered(keep);
        self.merged = (!kept.is_empty()).then(|| kept.to_json());
        Ok(())
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
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn outdate(&mut self, later: OpPlace, kind: OpKind, names: &[String]) -> Result<(), InvalidFields> {
        for reference in self.tail.iter_mut().filter(|found| found.place < later && found.was_given_up()) {
            if kind == OpKind::Update {
                let news = names.iter().filter(|name| !reference.lost.contains(name));
                let news: Vec<_> = news.cloned().collect();
                reference.lost.extend(news);
                reference.keep_merged(|name| !names.iter().any(|lost| lost == name))?;
            } else {
                reference.outdated = true;
            }
        }
        Ok(())
    }

    /// Gives what a later update of ours said, when it ends, to dead letters and to what is sent again that set the whole
    /// record: they were typed first, and would take it away. Nor does its author meet there what is our own.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn hand_down(&mut self, later: OpPlace, said: &Fields) -> Result<(), InvalidFields> {
        let mut is_over_deletion = false;
        for reference in self.tail.iter_mut().filter(|found| found.place < later && !found.outdated) {
            let sets_all = match reference.kind {
                OpKind::Replace => true,
                OpKind::Create => is_over_deletion,
                OpKind::Update | OpKind::Delete => false,
            };
            is_over_deletion |= reference.kind == OpKind::Delete;
            if sets_all && reference.was_given_up() {
                reference.merge(said)?;
                reference.learn(said)?;
            }
        }
        Ok(())
    }

    /// Returns whether nothing is known of the record any more, so that it needs no row.
    pub fn is_empty(&self) -> bool {
        self.confirmed.is_none() && self.tail.is_empty()
    }

    /// Returns the server's image as values; empty if there is none.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn confirmed_fields(&self) -> Result<Fields, InvalidFields> {
        self.confirmed_image().map_or_else(|| Ok(Fields::new()), FieldsJson::to_fields)
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
