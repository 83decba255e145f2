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
    /// The actor who made the ops.
    pub actor: Actor,
    /// The unanswered unit that the delete of this group absorbs, if it absorbs one.
    pub absorbs: Option<UnitId>,
}
