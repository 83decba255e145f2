//! What became of a unit: one class of answer each, and how one is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Change;
use crate::ids::UnitId;
use crate::names::{EntityType, RecordKey};
use crate::numbers::Version;

/// What became of one unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OutcomeMembers")]
pub struct UnitOutcome {
    /// The unit.
    pub unit: UnitId,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The classes of answers to a unit. Read as part of a [`UnitOutcome`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Accepted now.
    Applied {
        /// The version each of its records has by it.
        versions: BTreeMap<RecordKey, Version>,
        /// Records that became something else than the device expects.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        current: Vec<Change>,
    },
    /// The same unit was accepted before, or all that it writes is there already.
    Duplicate {
        /// The version each of its records got then, or has if the unit did not change it.
        versions: BTreeMap<RecordKey, Version>,
        /// The records whose present version is not one that the unit made, as they are now.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        current: Vec<Change>,
    },
    /// Some base versions are not the current ones. Nothing was applied.
    Stale {
        /// The records that differ, as they are now; a record that never was is a deletion of version 0.
        current: Vec<Change>,
        /// Which of the units that it replaces took effect.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        applied: Vec<UnitId>,
    },
    /// A stamp is further ahead of the server's time, which the answer tells, than any may be. Nothing was applied.
    Ahead,
    /// Not now. Nothing was applied.
    Transient {
        /// Why, for machines.
        code: String,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
        /// Not again before so many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_milliseconds: Option<u64>,
    },
    /// Never, as it is. Nothing was applied.
    Rejected {
        /// Why, for machines.
        code: String,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// The server does not know the entity type or a field of it. Nothing was applied.
    Unsupported {
        /// The entity type.
        entity: EntityType,
        /// Why, for machines.
        code: String,
    },
    /// The credentials hold for the exchange but not for this actor's changes.
    Unauthorized {
        /// Why, for machines.
        code: String,
    },
}

/// Every member that an outcome of any class may have, side by side, with its records as they are or still as text.
///
/// serde reads flattened and tagged values through a buffer that cannot hold JSON text as it stands, so a stale outcome
/// with fields in it would not read. This form needs no buffer.
#[derive(Deserialize)]
pub(super) struct OutcomeMembers<C = Change> {
    unit: UnitId,
    outcome: String,
    versions: Option<BTreeMap<RecordKey, Version>>,
    // The path, since a plain `default` would ask for a default of the records too.
    #[serde(default = "Vec::new")]
    current: Vec<C>,
    #[serde(default)]
    applied: Vec<UnitId>,
    code: Option<String>,
    #[serde(default)]
    message: String,
    retry_after_milliseconds: Option<u64>,
    entity: Option<EntityType>,
}

impl TryFrom<OutcomeMembers> for UnitOutcome {
    type Error = InvalidOutcome;

    fn try_from(members: OutcomeMembers) -> Result<Self, InvalidOutcome> {
        members.read(|current| current)
    }
}

impl<C> OutcomeMembers<C> {
    /// Puts the members that the class has together, with the records that `read` makes of what came.
    pub(super) fn read(
        self,
        read: impl FnOnce(Vec<C>) -> Vec<Change>,
    ) -> Result<UnitOutcome, InvalidOutcome> {
        let Self {
            unit,
            outcome,
            versions,
            current,
            applied,
            code,
            message,
            retry_after_milliseconds,
            entity,
        } = self;
        let current = read(current);
        let outcome = match outcome.as_str() {
            "applied" => Outcome::Applied { versions: versions.ok_or(InvalidOutcome)?, current },
            "duplicate" => Outcome::Duplicate { versions: versions.ok_or(InvalidOutcome)?, current },
            "stale" => Outcome::Stale { current, applied },
            "ahead" => Outcome::Ahead,
            "transient" => {
                Outcome::Transient { code: code.ok_or(InvalidOutcome)?, message, retry_after_milliseconds }
            }
            "rejected" => Outcome::Rejected { code: code.ok_or(InvalidOutcome)?, message },
            "unsupported" => Outcome::Unsupported {
                entity: entity.ok_or(InvalidOutcome)?,
                code: code.ok_or(InvalidOutcome)?,
            },
            "unauthorized" => Outcome::Unauthorized { code: code.ok_or(InvalidOutcome)? },
            _ => return Err(InvalidOutcome),
        };
        Ok(UnitOutcome { unit, outcome })
    }
}

/// An outcome of an unknown class, or without a member that its class has.
#[derive(Debug, thiserror::Error)]
#[error("an outcome is of an unknown class or lacks a member of its class")]
pub(super) struct InvalidOutcome;
