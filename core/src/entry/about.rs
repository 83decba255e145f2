//! What a decision is about: the one list that every reader of decisions by record uses.

use super::Decision;
use crate::ids::UnitId;
use crate::names::RecordKey;
use crate::numbers::Seq;

/// What a decision is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About<'a> {
    /// Records.
    Records(Vec<&'a RecordKey>),
    /// Units and so their records, each with the entry that planned it.
    Units(Vec<(UnitId, Seq)>),
    /// The book as a whole. The park of a single op does not name its record, so it counts too.
    Book,
}

impl Decision {
    /// Returns what the decision is about.
    pub fn about(&self) -> About<'_> {
        match self {
            Self::Acked { unit, planned, .. }
            | Self::Tried { unit, planned, .. }
            | Self::Requeued { unit, planned }
            | Self::DeadLettered { unit, planned, .. } => About::Units(vec![(*unit, *planned)]),
            Self::Suspected { units, .. } => About::Units(units.clone()),
            Self::Conflicted(conflict) => About::Records(vec![&conflict.key]),
            Self::Cancelled(cancelled) => About::Records(vec![&cancelled.key]),
            Self::Restamped { ops, .. } => {
                About::Records(ops.iter().map(|restamp| &restamp.key).collect())
            }
            Self::Superseded { key, .. }
            | Self::Dropped { key, .. }
            | Self::Raised { key, .. }
            | Self::BroughtBack { key, .. }
            | Self::Retried { key, .. }
            | Self::Discarded { key, .. }
            | Self::Upcast { key, .. }
            | Self::Resolved { key, .. }
            | Self::HandedOver { key, .. }
            | Self::LetGo { key, .. }
            | Self::Adopted { key, .. } => About::Records(vec![key]),
            Self::Parked { .. }
            | Self::Unparked { .. }
            | Self::ServerAccepted { .. }
            | Self::ServerRead
            | Self::BelongsTo { .. }
            | Self::SetAside { .. }
            | Self::ReadForeign { .. } => About::Book,
        }
    }
}
