//! Ops and records in memory, for the tests of the record and of the rules.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{EditStamp, Life, Pending, Register, Registers, TailOp};
use crate::entry::PlannedOp;
use crate::fields::Fields;
use crate::ids::OpId;
use crate::numbers::Seq;
use crate::op::{OpContent, OpKind, OpPlace};
use crate::time::Hlc;

pub(crate) fn op_id(number: u8) -> OpId {
    OpId::from_bytes([100 + number; 16])
}

pub(crate) fn fields(value: Value) -> Fields {
    Fields::from_value(value).unwrap()
}

/// The place of the only op of an entry.
pub(crate) fn place(seq: u8) -> OpPlace {
    OpPlace { seq: Seq::new(seq.into()), index: 0 }
}

/// The op with this number, which is the only op of the entry with this number.
pub(crate) fn planned(seq: u8) -> PlannedOp {
    PlannedOp { id: op_id(seq), place: place(seq) }
}

/// Op `number` of a record. Its time is its number, and nothing of it was dropped.
pub(crate) fn tail_op(number: u8, kind: OpKind, said: Value) -> TailOp {
    let edited_at = Hlc::from_bits(number.into());
    let content =
        OpContent { id: op_id(number), kind, edited_at, schema_version: 1, fields: fields(said) };
    TailOp::new(Pending::new(op_id(number), place(number), kind, edited_at), content).unwrap()
}

/// A live record at the server. Each field has its name, its value, the op that wrote it, and the
/// time of the write.
pub(crate) fn there(fields: &[(&str, Value, u8, u64)]) -> Registers {
    let register = |(name, value, op, at): &(&str, Value, u8, u64)| {
        let stamp = EditStamp { edited_at: Hlc::from_bits(*at), op: op_id(*op) };
        ((*name).to_owned(), Register { value: value.clone(), stamp })
    };
    let fields: BTreeMap<_, _> = fields.iter().map(register).collect();
    let stamp = fields.values().map(|field| field.stamp).max().unwrap_or_default();
    Registers { life: Life::Live, stamp, fields, floor: EditStamp::NEVER }
}

/// A record that was deleted by an op at a time.
pub(crate) fn deleted(op: u8, at: u64) -> Registers {
    let stamp = EditStamp { edited_at: Hlc::from_bits(at), op: op_id(op) };
    Registers { life: Life::Deleted, stamp, ..Registers::default() }
}
