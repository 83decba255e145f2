//! Losses: fields that an op loses met a recorded write of somebody else, or their own author wrote
//! them again.

use fieldbook::RecordKey;
use fieldbook::audit::entry::{Control, Entry, Meta};
use fieldbook::record::{OpId, OpKind};
use serde_json::Value;

use super::{Held, Model, Op};
use crate::broken::{Broken, ensure};
use crate::ledger::Ledger;

impl Model {
    /// Checks S6 for the loss of fields, or of all remaining fields if none is named. A person's
    /// decision needs no other record.
    ///
    /// # Errors
    /// [`Broken`] for a field of which nothing is on record.
    pub(super) fn check_loss(
        &self,
        entry: &Entry,
        key: &RecordKey,
        id: &OpId,
        names: &[String],
        ledger: &Ledger,
    ) -> Result<(), Broken> {
        let held = self.records.get(key);
        let waiting = held.and_then(|held| held.tail.iter().find(|waiting| waiting.op == *id));
        let Some((waiting, op)) = waiting.zip(self.ops.get(id)) else { return Ok(()) };
        // A copy of this book that resolved it has the record of it.
        if matches!(entry.meta, Meta::Control(Control::PersonActed(..)))
            || ledger.shared.contains(id)
        {
            return Ok(());
        }
        let confirmed =
            held.and_then(|held| held.confirmed.as_ref()).and_then(|known| known.image());
        for (name, value) in waiting.says(op) {
            let is_lost = names.is_empty() || names.contains(&name);
            let theirs = confirmed.as_ref().and_then(|image| image.get(&name));
            let is_same = theirs.map_or(value.is_null(), |theirs| *theirs == value);
            let is_agreed = || held.is_some_and(|held| was_there(ledger, key, held, &name, &value));
            if !is_lost
                || is_same
                || self.is_said_anew(op, &name)
                || self.is_on_record(key, &name)
                || is_agreed()
            {
                continue;
            }
            ensure(false, "S6", || {
                format!("op {} of {key} loses `{name}`, and nothing is on record of it", op.place)
            })?;
        }
        Ok(())
    }

    /// Returns whether a later op of the same device writes the field, or ends the record.
    fn is_said_anew(&self, op: &Op, name: &str) -> bool {
        let mut later =
            self.ops.values().filter(|later| later.key == op.key && later.place > op.place);
        let ends = |later: &Op| matches!(later.kind, OpKind::Delete | OpKind::Replace);
        later
            .any(|later| ends(later) || spellings(name).any(|name| later.fields.contains_key(name)))
    }

    fn is_on_record(&self, key: &RecordKey, name: &str) -> bool {
        let mut ops = self.ops.values().filter(|op| op.key == *key).flat_map(|op| &op.conflicts);
        let is_of = |fields: &[String]| {
            fields.is_empty()
                || spellings(name).any(|name| fields.iter().any(|field| field == name))
        };
        ops.any(|(_, fields)| is_of(fields))
    }
}

/// Returns whether the device has read this value of a field from the server: another author wrote
/// the same value, and it was overwritten since.
fn was_there(ledger: &Ledger, key: &RecordKey, held: &Held, name: &str, value: &Value) -> bool {
    let told = held.seen.iter().flat_map(|version| ledger.at(key, *version, None));
    let mut images = told.filter_map(|written| written.image.as_ref());
    images.any(|image| image.get(name).map_or(value.is_null(), |theirs| theirs == value))
}

/// Returns the names of a field in the versions of the app.
fn spellings(name: &str) -> impl Iterator<Item = &str> {
    let other = match name {
        "c" => Some("d"),
        "d" => Some("c"),
        _ => None,
    };
    std::iter::once(name).chain(other)
}
