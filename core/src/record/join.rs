//! What a write makes of a record at the server, as far as stamps say it. A device joins values with them ([`super::registers`]);
//! a law holds the two against each other.
//!
//! ```text
//!   the record ↓ / the write →   delete              create, update                replace
//!   never known                  a tombstone         a record                      a record
//!   a tombstone                  the greater stamp   a record, if it is above      a record, if it is above
//!   there                        a tombstone, if     in each field that it names   as before, and null for every
//!                                it is above all     the greater stamp             field that it does not name
//! ```
//!
//! A record that is made anew over a tombstone counts every field that it does not have as taken away by that deletion.
//!
//! What it is not: the check of versions ([`crate::authority`]), and the values: whoever asks is told which fields of the write do
//! not stand and which others it takes away.

use std::collections::BTreeSet;

use super::{EditStamp, FieldStamps, FieldWrites, listed_by_field};
use crate::op::OpKind;

/// A write of one record without its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteStamps<'a> {
    /// What it does.
    pub kind: OpKind,
    /// The stamp of the write as a whole, and of each field that is not listed.
    pub stamp: EditStamp,
    /// The writes that the other fields come from.
    pub older: &'a [FieldWrites],
    /// The fields that it names, and of each whether its value is null.
    pub fields: &'a [(String, bool)],
}

/// What a record is before a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// Nobody knows of it.
    Never,
    /// It is deleted.
    Deleted(EditStamp),
    /// It is there.
    There(FieldStamps),
}

/// What a record is after a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// What it was.
    AsBefore,
    /// It is deleted.
    Deleted(EditStamp),
    /// It is there.
    There {
        /// Its stamps.
        stamps: FieldStamps,
        /// Whether it has none of the values from before.
        is_new: bool,
        /// The fields of the write that do not stand.
        left_out: Vec<String>,
        /// The fields that the write takes away without naming them.
        taken_away: Vec<String>,
    },
}

impl WriteStamps<'_> {
    /// Returns the stamp that each field is written with.
    fn stamps(&self) -> impl Fn(&str) -> EditStamp + use<'_> {
        let (listed, own) = (listed_by_field(self.older), self.stamp);
        move |field| listed.get(field).copied().unwrap_or(own)
    }

    /// Returns the greatest stamp of all that is written.
    fn greatest(&self) -> EditStamp {
        self.older.iter().map(FieldWrites::stamp).fold(self.stamp, EditStamp::max)
    }

    /// Returns whether a record has all that is written, by these very stamps.
    pub fn is_all_in(&self, record: &Before) -> bool {
        match (record, self.kind) {
            (Before::Deleted(stamp), OpKind::Delete) => *stamp == self.stamp,
            (Before::There(stamps), OpKind::Create | OpKind::Update | OpKind::Replace) => {
                let stamp_of = self.stamps();
                let is_in = |(name, _): &(String, bool)| stamps.of_field(name) == stamp_of(name);
                // What names no field is known by the record's own stamp.
                self.fields.iter().all(is_in) && (!self.fields.is_empty() || stamps.own == self.stamp)
            }
            _ => false,
        }
    }
}

/// Joins a write with a record.
pub fn join(before: Before, write: &WriteStamps<'_>) -> Joined {
    match (before, write.kind) {
        (Before::Never, OpKind::Delete) => Joined::Deleted(write.stamp),
        (Before::Deleted(stamp), OpKind::Delete) if write.stamp > stamp => Joined::Deleted(write.stamp),
        (Before::There(stamps), OpKind::Delete) if write.stamp > stamps.own => Joined::Deleted(write.stamp),
        (_, OpKind::Delete) => Joined::AsBefore,
        (Before::Never, _) => made(None, write),
        (Before::Deleted(stamp), _) if write.greatest() > stamp => made(Some(stamp), write),
        (Before::Deleted(_), _) => Joined::AsBefore,
        (Before::There(stamps), _) => written(stamps, write),
    }
}

/// A record that was not there has all that is written, whatever its stamps: the deletion was passed as a whole.
fn made(floor: Option<EditStamp>, write: &WriteStamps<'_>) -> Joined {
    let mut stamps = FieldStamps::only(write.stamp, floor);
    let stamp_of = write.stamps();
    for (name, is_null) in write.fields {
        stamps.set(name, stamp_of(name), !is_null);
    }
    Joined::There { stamps, is_new: true, left_out: Vec::new(), taken_away: Vec::new() }
}

fn written(mut stamps: FieldStamps, write: &WriteStamps<'_>) -> Joined {
    let (mut left_out, mut taken_away) = (Vec::new(), Vec::new());
    let mut others: Vec<(String, bool)> = Vec::new();
    let (mut stands, stamp_of) = (false, write.stamps());
    if write.kind == OpKind::Replace {
        let named: BTreeSet<_> = write.fields.iter().map(|(name, _)| name).collect();
        let is_other = |(name, _): &(&String, bool)| !named.contains(name);
        others = stamps.known().filter(is_other).map(|(name, is_there)| (name.clone(), is_there)).collect();
    }
    for (name, is_null) in write.fields {
        if stamps.join(name, stamp_of(name), !is_null) {
            stands = true;
        } else {
            left_out.push(name.clone());
        }
    }
    // What was taken away before is taken away anew: the later null is what an earlier write meets.
    for (name, was_there) in others {
        if stamps.join(&name, stamp_of(&name), false) {
            stands = true;
            if was_there {
                taken_away.push(name);
            }
        }
    }
    if !stands {
        return Joined::AsBefore;
    }
    Joined::There { stamps, is_new: false, left_out, taken_away }
}
