//! A record on a device, computed in the plain way: the server's state, and the remaining fields of
//! each op on it.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook::audit::Hlc;
use fieldbook::record::{OpId, OpKind, Version};
use fieldbook::sync::protocol::EditStamp;
use serde_json::Value;

use super::Op;
use crate::ledger::{Image, Registers};

/// One record.
#[derive(Debug, Default, Clone)]
pub struct Held {
    /// The confirmed version.
    pub version: Option<Version>,
    /// All versions that ever were confirmed.
    pub seen: BTreeSet<Version>,
    /// The record at that version; none if the server never named it.
    pub confirmed: Option<Registers>,
    /// Whether an accepted server was read to its end without it.
    pub read_gone: bool,
    /// The pending ops on the record, oldest first.
    pub tail: Vec<Waiting>,
}

/// An op of a tail.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The id of the op.
    pub op: OpId,
    /// Whether it is a dead letter.
    pub dead: bool,
    /// Whether a unit that carried it was abandoned.
    pub abandoned: bool,
    /// The schema version of its fields.
    pub form: u32,
    /// The time of the op's stamp.
    pub(super) edited_at: Hlc,
    /// Its converted fields.
    pub(super) upcast: Option<Image>,
    /// The fields that the op removes without naming them, and the stamp of the removal if it is
    /// that of a deletion.
    pub(super) cleared: BTreeSet<String>,
    pub(super) cleared_at: Option<EditStamp>,
    pub(super) lost: BTreeSet<String>,
    pub(super) emptied: bool,
    pub(super) given: Image,
    pub(super) raised: BTreeMap<String, Hlc>,
    pub(super) brings_back: Option<Image>,
}

impl Waiting {
    pub(super) fn new(op: OpId, form: u32, edited_at: Hlc) -> Self {
        Self {
            op,
            dead: false,
            abandoned: false,
            form,
            edited_at,
            upcast: None,
            cleared: BTreeSet::new(),
            cleared_at: None,
            lost: BTreeSet::new(),
            emptied: false,
            given: Image::new(),
            raised: BTreeMap::new(),
            brings_back: None,
        }
    }

    pub(super) fn stamp(&self) -> EditStamp {
        EditStamp { edited_at: self.edited_at, op: self.op }
    }

    /// Returns the fields that it still names.
    pub(super) fn says(&self, op: &Op) -> Image {
        if self.emptied {
            return Image::new();
        }
        let mut fields = self.upcast.as_ref().unwrap_or(&op.fields).clone();
        fields.retain(|name, _| !self.lost.contains(name));
        fields.extend(self.given.clone());
        fields
    }

    /// Returns its writes.
    pub fn writes(&self, op: &Op) -> BTreeMap<String, (EditStamp, Value)> {
        let cleared_at = self.cleared_at.unwrap_or(self.stamp());
        let cleared =
            self.cleared.iter().filter(|name| !self.emptied && !self.lost.contains(*name));
        let mut fields: BTreeMap<_, _> =
            cleared.map(|name| (name.clone(), (cleared_at, Value::Null))).collect();
        fields.extend(self.says(op).into_iter().map(|(name, value)| (name, (self.stamp(), value))));
        for (name, edited_at) in &self.raised {
            if let Some((stamp, _)) = fields.get_mut(name) {
                *stamp = EditStamp { edited_at: *edited_at, op: self.op };
            }
        }
        fields
    }

    /// Returns its remaining fields that no other write has overwritten.
    pub(super) fn left(&self, op: &Op, confirmed: Option<&Registers>) -> Image {
        let writes = self.writes(op);
        let mut said = self.says(op);
        said.retain(|name, _| {
            let own = writes.get(name).map(|(stamp, _)| *stamp);
            confirmed.is_none_or(|known| {
                !known.is_there || own.is_some_and(|own| own > known.stamp_of(name))
            })
        });
        said
    }

    /// Returns whether any part of it would still change the record.
    pub(super) fn is_left(&self, op: &Op, confirmed: Option<&Registers>) -> bool {
        let writes = self.writes(op);
        let greatest = writes.values().map(|(stamp, _)| *stamp).fold(self.stamp(), EditStamp::max);
        let is_edit = matches!(op.kind, OpKind::Update | OpKind::Replace);
        match confirmed {
            _ if self.emptied || is_edit && writes.is_empty() && !op.fields.is_empty() => false,
            None => op.kind != OpKind::Update || !writes.is_empty(),
            Some(known) if !known.is_there => greatest > known.stamp,
            Some(known) if op.kind == OpKind::Delete => greatest > known.stamp,
            Some(known) => writes.iter().any(|(name, (stamp, _))| *stamp > known.stamp_of(name)),
        }
    }
}

impl Held {
    /// Returns the image that the app must read.
    pub(super) fn visible<'a>(&self, op_of: impl Fn(&OpId) -> Option<&'a Op>) -> Option<Image> {
        self.with_tail(op_of).and_then(|known| known.image())
    }

    /// Returns the confirmed record with the ops on it.
    pub(super) fn with_tail<'a>(
        &self,
        op_of: impl Fn(&OpId) -> Option<&'a Op>,
    ) -> Option<Registers> {
        let mut known = self.confirmed.clone();
        let ops: Vec<_> =
            self.tail.iter().filter_map(|waiting| Some((waiting, op_of(&waiting.op)?))).collect();
        for (number, (waiting, op)) in ops.iter().enumerate() {
            let makes_anew =
                |(later, op): &&(&Waiting, &Op)| op.kind == OpKind::Create && !later.emptied;
            let covered = op.kind == OpKind::Delete
                && ops.iter().skip(number + 1).any(|later| makes_anew(&later));
            if !covered && !waiting.emptied {
                known = joined(known, waiting, op);
            }
        }
        known
    }
}

/// Joins an op in the plain way.
fn joined(known: Option<Registers>, waiting: &Waiting, op: &Op) -> Option<Registers> {
    let writes = waiting.writes(op);
    let greatest = writes.values().map(|(stamp, _)| *stamp).fold(waiting.stamp(), EditStamp::max);
    let says_nothing = matches!(op.kind, OpKind::Update | OpKind::Replace)
        && writes.is_empty()
        && !op.fields.is_empty();
    if says_nothing {
        return known;
    }
    if op.kind == OpKind::Delete {
        let stands = known.as_ref().is_none_or(|known| waiting.stamp() > known.stamp);
        return if stands {
            Some(Registers { stamp: waiting.stamp(), ..Registers::default() })
        } else {
            known
        };
    }
    match known {
        Some(known) if !known.is_there => {
            if greatest <= known.stamp {
                return Some(known);
            }
            let own = if waiting.stamp() > known.stamp { waiting.stamp() } else { greatest };
            let above = known.stamp.next(waiting.op).min(own);
            let read = waiting.brings_back.clone().unwrap_or_default().into_iter();
            let read = read
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, (above, value)));
            let mut fields: BTreeMap<_, _> = read.collect();
            fields.extend(writes);
            Some(Registers { is_there: true, stamp: greatest, floor: known.stamp, fields })
        }
        known => {
            let mut after = known.unwrap_or_default();
            after.is_there = true;
            after.stamp = after.stamp.max(waiting.stamp());
            for (name, (stamp, value)) in writes {
                if stamp > after.stamp_of(&name) {
                    after.stamp = after.stamp.max(stamp);
                    after.fields.insert(name, (stamp, value));
                }
            }
            Some(after)
        }
    }
}
