//! Ops that go as one unit: what a plan makes ([`super::plan`]), and what is ordered, looked at and frozen.

use crate::ids::UnitId;
use crate::names::{Actor, RecordKey};
use crate::op::OpPlace;

/// Ops that make one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The ops of each record, oldest first.
    pub records: Vec<(RecordKey, Vec<OpPlace>)>,
    /// Whose they are.
    pub actor: Actor,
    /// An attempted unit that this one takes over.
    pub replaces: Option<UnitId>,
}
