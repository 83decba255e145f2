//! Ops that leave as one unit. The plan makes groups ([`super::plan`]); other rules order, check
//! and freeze them.

use crate::ids::UnitId;
use crate::names::{Actor, RecordKey};
use crate::op::OpPlace;

/// Ops that make one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The ops of each record, oldest first.
    pub records: Vec<(RecordKey, Vec<OpPlace>)>,
    /// The actor who made them.
    pub actor: Actor,
    /// An unanswered unit that this one absorbs.
    pub replaces: Option<UnitId>,
}
