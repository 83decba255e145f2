//! The outcome of a unit: its classes, and how an outcome is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Change;
use crate::ids::UnitId;
use crate::names::{EntityType, RecordKey};
use crate::numbers::Version;

/// The outcome of one unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OutcomeMembers")]
pub struct UnitOutcome {
    /// The unit.
    pub unit: UnitId,
    /// Its outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The classes of answers to a unit. Read as part of a [`UnitOutcome`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The unit was accepted now.
    Applied {
        /// The version of each of its records now.
        versions: BTreeMap<RecordKey, Version>,
        /// Records whose content differs from what the device expects.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        current: Vec<Change>,
    },
    /// The same unit was accepted before, or all its writes are present already.
    Duplicate {
        /// The version of each of its records after that earlier time, or its present version if
        /// the unit did not change it.
        versions: BTreeMap<RecordKey, Version>,
        /// The records whose present version is not from this unit, with their present content.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        current: Vec<Change>,
    },
    /// Some base versions are not the current ones. Nothing was applied.
    Stale {
        /// The records that differ, with their present content. A record that never existed is a
        /// deletion of version 0.
        current: Vec<Change>,
        /// The earlier units that took effect.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        applied: Vec<UnitId>,
    },
    /// A stamp is too far ahead of the server's time, which the answer contains. Nothing was
    /// applied.
    Ahead,
    /// The unit is not accepted now, but may be later. Nothing was applied.
    Transient {
        /// The reason, for machines.
        code: String,
        /// The reason, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
        /// The number of milliseconds before which the device must not try again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_milliseconds: Option<u64>,
    },
    /// The unit is never accepted in this form. Nothing was applied.
    Rejected {
        /// The reason, for machines.
        code: String,
        /// The reason, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// The server does not know the entity type or a field of it. Nothing was applied.
    Unsupported {
        /// The entity type.
        entity: EntityType,
        /// The reason, for machines.
        code: String,
    },
    /// The credentials are valid for the exchange but not for this actor's changes.
    Unauthorized {
        /// The reason, for machines.
        code: String,
    },
}

/// All members of all classes of outcomes, with records as values or still as text.
///
/// serde reads flattened and tagged values through a buffer that cannot hold raw JSON text, so a
/// stale outcome with fields could not be read. This form needs no buffer.
#[derive(Deserialize)]
pub(super) struct OutcomeMembers<C = Change> {
    unit: UnitId,
    outcome: String,
    versions: Option<BTreeMap<RecordKey, Version>>,
    // The path is needed: a plain `default` would require a default of the records too.
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
    /// Builds the class from its members. `read` makes its records.
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
            "duplicate" => {
                Outcome::Duplicate { versions: versions.ok_or(InvalidOutcome)?, current }
            }
            "stale" => Outcome::Stale { current, applied },
            "ahead" => Outcome::Ahead,
            "transient" => Outcome::Transient {
                code: code.ok_or(InvalidOutcome)?,
                message,
                retry_after_milliseconds,
            },
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
