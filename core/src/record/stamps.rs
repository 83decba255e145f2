//! The stamps of a record's fields as they are told and kept, taken apart to be joined with a write, and put together again.
//!
//! Invariants:
//! 1. In each field of a living record the greater stamp stands: joining is associative, commutative and idempotent, as long as no
//!    stamp of a field that was taken away had to be forgotten.
//! 2. At most [`limits::REMOVED_STAMPS`] fields that were taken away are listed. The floor is at or above what was forgotten, and
//!    below everything that is listed of them.
//! 3. Whoever joins the same write with the same stamps gets the same stamps. A device keeps registers, and a law holds the two
//!    against each other.
//!
//! What it is not: the values. Who joins is told which fields of a write stand.

use std::collections::BTreeMap;

use super::{EditStamp, FieldWrites};
use crate::limits;

/// Returns the stamp under which a field is listed.
pub fn listed(older: &[FieldWrites], field: &str) -> Option<EditStamp> {
    older.iter().find(|write| write.fields.iter().any(|name| name == field)).map(FieldWrites::stamp)
}

/// Returns the stamp under which each listed field is listed, for who asks of many.
pub fn listed_by_field(older: &[FieldWrites]) -> BTreeMap<&str, EditStamp> {
    let mut fields = BTreeMap::new();
    for write in older {
        for name in &write.fields {
            // As `listed` reads it: the first that names a field counts.
            fields.entry(name.as_str()).or_insert_with(|| write.stamp());
        }
    }
    fields
}

/// Lists fields by the writes that they come from: in the order of stamps, and of names within a write.
pub fn list_by_write(fields: impl IntoIterator<Item = (String, EditStamp)>) -> Vec<FieldWrites> {
    let mut by_stamp = BTreeMap::<EditStamp, Vec<String>>::new();
    for (name, stamp) in fields {
        by_stamp.entry(stamp).or_default().push(name);
    }
    let write = |(EditStamp { edited_at, op }, mut fields): (EditStamp, Vec<String>)| {
        fields.sort_unstable();
        FieldWrites { edited_at, op, fields }
    };
    by_stamp.into_iter().map(write).collect()
}

/// The stamps of a record that is there, field by field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldStamps {
    /// The record's own stamp, the greatest.
    pub own: EditStamp,
    /// When fields that are not known count as taken away.
    pub floor: Option<EditStamp>,
    /// Each known field, and whether it is in the image.
    fields: BTreeMap<String, (EditStamp, bool)>,
}

impl FieldStamps {
    /// Takes apart the stamps of a record that has these fields.
    pub fn of(
        own: EditStamp,
        older: &[FieldWrites],
        floor: Option<EditStamp>,
        present: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut fields: BTreeMap<_, _> = present.into_iter().map(|name| (name, (own, true))).collect();
        for (name, stamp) in listed_by_field(older) {
            let field = fields.entry(name.to_owned()).or_insert((own, false));
            field.0 = stamp;
        }
        Self { own, floor, fields }
    }

    /// Returns the stamp of a field, known or not.
    pub fn of_field(&self, field: &str) -> EditStamp {
        self.fields.get(field).map_or(self.floor.unwrap_or(EditStamp::NEVER), |(stamp, _)| *stamp)
    }

    /// The stamps of a record of which no field is known.
    pub const fn only(own: EditStamp, floor: Option<EditStamp>) -> Self {
        Self { own, floor, fields: BTreeMap::new() }
    }

    /// Returns the fields that are known, and of each whether it is in the image.
    pub fn known(&self) -> impl Iterator<Item = (&String, bool)> {
        self.fields.iter().map(|(name, (_, is_there))| (name, *is_there))
    }

    /// Joins a write of one field, and returns whether it stands.
    pub fn join(&mut self, field: &str, stamp: EditStamp, is_there: bool) -> bool {
        let stands = stamp > self.of_field(field);
        if stands {
            self.set(field, stamp, is_there);
        }
        stands
    }

    /// Sets what is known of a field, whatever was known before.
    pub fn set(&mut self, field: &str, stamp: EditStamp, is_there: bool) {
        match self.fields.get_mut(field) {
            Some(known) => *known = (stamp, is_there),
            None => drop(self.fields.insert(field.to_owned(), (stamp, is_there))),
        }
        self.own = self.own.max(stamp);
    }

    /// Puts together what is told and kept: the record's own stamp, the fields that do not have it, and the floor.
    pub fn into_parts(mut self) -> (EditStamp, Vec<FieldWrites>, Option<EditStamp>) {
        self.forget_oldest_removed();
        let own = self.own;
        let differs = |(stamp, is_there): &(EditStamp, bool)| !is_there || *stamp != own;
        let listed = self.fields.into_iter().filter(|(_, known)| differs(known));
        (own, list_by_write(listed.map(|(name, (stamp, _))| (name, stamp))), self.floor)
    }

    fn forget_oldest_removed(&mut self) {
        let removed = self.fields.values().filter(|(_, is_there)| !is_there).map(|(stamp, _)| *stamp);
        let mut removed: Vec<_> = removed.collect();
        if let Some(surplus) =
            removed.len().checked_sub(limits::REMOVED_STAMPS).filter(|surplus| *surplus > 0)
        {
            removed.sort_unstable();
            self.floor = self.floor.max(removed.get(surplus - 1).copied());
        }
        let floor = self.floor;
        // One at the floor is known by it.
        self.fields.retain(|_, (stamp, is_there)| *is_there || Some(*stamp) > floor);
    }
}
