//! The stamps of a server that sends one for each row: its earlier rows show which of the row's
//! fields are new.
//!
//! | a value | its stamp |
//! |---|---|
//! | equals the earlier value | stays |
//! | is another one | the row's, or the next above the one that it replaces |
//! | is the server's result for a value of ours | the next above ours |

use std::collections::BTreeMap;

use fieldbook::RecordKey;
use fieldbook::record::{OpId, Version};
use fieldbook::sync::protocol::{Change, ExchangeRequest, Outcome, UnitChange, UnitOutcome};
use fieldbook_core::record::{EditStamp, Life, Register, Registers};
use fieldbook_core::rows::Confirmed;
use serde_json::Value;

use super::fault::Fault;

/// The earlier states of records from the server, as the book has applied them.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(pub(super) BTreeMap<RecordKey, (Registers, Version)>);

impl Known {
    /// Gives every field of an answer's outcomes its stamp.
    pub(super) fn stamp(
        &mut self,
        request: &ExchangeRequest,
        outcomes: &mut [UnitOutcome],
    ) -> Result<(), Fault> {
        for told in outcomes {
            let unit = request.units.iter().find(|unit| unit.id == told.unit);
            match &mut told.outcome {
                Outcome::Applied { current, .. } => {
                    for change in current {
                        let sent = unit.and_then(|unit| {
                            unit.changes.iter().find(|sent| sent.key == change.key)
                        });
                        self.one(change, sent)?;
                    }
                }
                Outcome::Duplicate { current, .. } | Outcome::Stale { current, .. } => {
                    current.iter_mut().try_for_each(|change| self.one(change, None))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives every field of a page its stamp. `own` are changes of ours that rows of it may be.
    pub(super) fn page(
        &mut self,
        mut changes: Vec<Change>,
        own: &[UnitChange],
    ) -> Result<Vec<Change>, Fault> {
        for change in &mut changes {
            let sent = own
                .iter()
                .rev()
                .find(|sent| sent.key == change.key && sent.ops.contains(&change.op));
            self.one(change, sent)?;
        }
        Ok(changes)
    }

    fn one(&mut self, change: &mut Change, sent: Option<&UnitChange>) -> Result<(), Fault> {
        let (before, version) = self.0.get(&change.key).cloned().unwrap_or_default();
        let damaged = |fault: fieldbook::error::InvalidFields| Fault::Case(fault.to_string());
        let is_newer = change.version > version;
        if change.version < version {
            return Ok(());
        }
        let mut before = before;
        let mut stamp = change.stamp();
        if let Some(sent) = sent {
            let fields =
                sent.fields.as_ref().map(fieldbook::record::FieldsJson::to_fields).transpose();
            before.join_sent(sent, fields.map_err(damaged)?.unwrap_or_default());
            stamp = just_above(stamp);
        }
        let mut after = before.clone();
        let listed = |name: &str| {
            let of =
                change.older.iter().find(|writes| writes.fields.iter().any(|field| field == name));
            of.map_or(stamp, |writes| EditStamp { edited_at: writes.edited_at, op: writes.op })
        };
        let payload =
            change.fields.as_ref().map(fieldbook::record::FieldsJson::to_fields).transpose();
        let payload = payload.map_err(damaged)?.unwrap_or_default();
        if change.deleted {
            let at = match before.life {
                Life::Deleted if sent.is_some() => before.stamp,
                Life::Deleted => before.stamp.max(stamp),
                _ if is_newer => above(stamp, before.stamp),
                _ => stamp,
            };
            after = Registers { life: Life::Deleted, stamp: at, ..Registers::default() };
        } else {
            if !before.is_live() {
                let floor = if before.is_deleted() { before.stamp } else { EditStamp::NEVER };
                let at = above(stamp, before.stamp);
                after = Registers { life: Life::Live, stamp: at, fields: BTreeMap::new(), floor };
            }
            let mut names: Vec<String> = payload.names().map(str::to_owned).collect();
            if !change.partial {
                names.extend(after.fields.keys().cloned());
            }
            for name in names {
                let value = payload.get(&name).cloned().unwrap_or(Value::Null);
                if *after.value_of(&name) != value || !after.fields.contains_key(&name) {
                    let stamp = above(listed(&name), after.stamp_of(&name));
                    after.stamp = after.stamp.max(stamp);
                    after.fields.insert(name, Register { value, stamp });
                }
            }
        }
        let mut told = after.clone();
        if change.partial {
            told.fields.retain(|name, _| payload.has(name));
        }
        if let Some(row) = Confirmed::of(&told, change.version) {
            (change.edited_at, change.op, change.older, change.floor) =
                (row.edited_at, row.op, row.older, row.floor);
        }
        self.0.insert(change.key.clone(), (after, change.version));
        Ok(())
    }
}

/// Returns a stamp, or the next above the one that it replaces.
fn above(stamp: EditStamp, taken: EditStamp) -> EditStamp {
    if stamp > taken { stamp } else { just_above(taken) }
}

fn just_above(stamp: EditStamp) -> EditStamp {
    let op = u128::from_be_bytes(*stamp.op.as_bytes()).wrapping_add(1);
    EditStamp { edited_at: stamp.edited_at, op: OpId::from_bytes(op.to_be_bytes()) }
}
