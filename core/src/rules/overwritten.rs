//! Finds the values of this device that an answer of the server replaced.
//!
//! | this device's value, which the server had | is on record as overwritten |
//! |---|---|
//! | has another value now, by a write of somebody else | yes, field by field |
//! | is gone with the record, which somebody else deleted | yes, once for the record |
//! | has the same value now, by whichever write | no |
//! | has another value now, by another write of this device | no |
//!
//! Invariants:
//! 1. Only a value that the server had is overwritten. A value that waits meets the server's as a
//!    conflict.
//!
//! What it does not know: whether the other author had read the value. Who that is stands elsewhere
//! in the log, if the server says it.

use serde_json::Value;

use crate::ids::OpId;
use crate::record::{EditStamp, Registers};

/// A value of this device, and what replaced it.
#[derive(Debug, Clone, PartialEq)]
pub struct Replaced {
    /// The field; `None` if the record was deleted.
    pub field: Option<String>,
    /// This device's value; null for a record as a whole.
    pub local: Value,
    /// The write of this device.
    pub local_stamp: EditStamp,
    /// The value now; null if the field was removed, or the record deleted.
    pub remote: Value,
    /// The write that replaced it.
    pub remote_stamp: EditStamp,
}

/// Compares a confirmed record before and after an answer. `is_own` returns whether this device
/// made an op.
pub fn overwritten(
    before: &Registers,
    after: &Registers,
    is_own: impl Fn(&OpId) -> bool,
) -> Vec<Replaced> {
    if !before.is_live() || before == after {
        return Vec::new();
    }
    let own = before.fields.iter().filter(|(_, field)| is_own(&field.stamp.op));
    if after.is_deleted() {
        let latest = own.map(|(_, field)| field.stamp).max();
        let latest = latest.filter(|_| !is_own(&after.stamp.op));
        let deleted = latest.map(|stamp| Replaced {
            field: None,
            local: Value::Null,
            local_stamp: stamp,
            remote: Value::Null,
            remote_stamp: after.stamp,
        });
        return deleted.into_iter().collect();
    }
    let replaced = own.filter_map(|(name, field)| {
        let (remote, stamp) = (after.value_of(name), after.stamp_of(name));
        let is_replaced = *remote != field.value && stamp != field.stamp && !is_own(&stamp.op);
        is_replaced.then(|| Replaced {
            field: Some(name.clone()),
            local: field.value.clone(),
            local_stamp: field.stamp,
            remote: remote.clone(),
            remote_stamp: stamp,
        })
    });
    replaced.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::{FieldWrites, Register};
    use crate::time::Hlc;

    fn stamp(op: u8) -> EditStamp {
        EditStamp { edited_at: Hlc::from_bits(u64::from(op)), op: OpId::from_bytes([op; 16]) }
    }

    /// Makes a record of fields, each with the number of the op that wrote it. Ops up to 9 are our
    /// own.
    fn record(fields: &[(&str, Value, u8)]) -> Registers {
        let mut record = Registers::of(stamp(1), &[] as &[FieldWrites], None, []);
        for (name, value, op) in fields {
            let register = Register { value: value.clone(), stamp: stamp(*op) };
            record.fields.insert((*name).to_owned(), register);
        }
        record
    }

    #[track_caller]
    fn found(before: &Registers, after: &Registers) -> Vec<(Option<String>, Value, Value)> {
        let all = overwritten(before, after, |op| op.as_bytes()[0] < 10);
        all.into_iter().map(|found| (found.field, found.local, found.remote)).collect()
    }

    #[test]
    fn what_somebody_else_wrote_over_ours_is_found_field_by_field() {
        let before = record(&[("a", json!(1), 2), ("b", json!(1), 3), ("c", json!(1), 20)]);
        let after = record(&[("a", json!(2), 21), ("b", json!(1), 3), ("c", json!(2), 22)]);
        assert_eq!(found(&before, &after), [(Some("a".into()), json!(1), json!(2))]);
        let removed = record(&[("a", Value::Null, 21), ("b", json!(1), 3)]);
        assert_eq!(found(&before, &removed), [(Some("a".into()), json!(1), Value::Null)]);
    }

    #[test]
    fn the_same_value_and_our_own_later_value_overwrite_nothing() {
        let before = record(&[("a", json!(1), 2)]);
        assert_eq!(found(&before, &record(&[("a", json!(1), 21)])), []);
        assert_eq!(found(&before, &record(&[("a", json!(2), 4)])), []);
        assert_eq!(found(&before, &before), []);
    }

    #[test]
    fn a_deletion_by_somebody_else_is_found_once() {
        let before = record(&[("a", json!(1), 2), ("b", json!(1), 3)]);
        assert_eq!(
            found(&before, &Registers::deleted(stamp(30))),
            [(None, Value::Null, Value::Null)]
        );
        assert_eq!(found(&before, &Registers::deleted(stamp(5))), [], "we deleted it ourselves");
        let theirs = record(&[("a", json!(1), 20)]);
        assert_eq!(found(&theirs, &Registers::deleted(stamp(30))), [], "nothing in it was ours");
    }

    #[test]
    fn what_did_not_exist_was_not_overwritten() {
        assert_eq!(found(&Registers::default(), &record(&[("a", json!(2), 21)])), []);
        let deleted = Registers::deleted(stamp(5));
        assert_eq!(found(&deleted, &record(&[("a", json!(2), 21)])), []);
    }
}
