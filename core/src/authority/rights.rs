//! Who may write what: the operator's declarations, and the judgement of a change.
//!
//! ```text
//!   the record is          create, replace   update    delete
//!   unknown or deleted     create            (stale)   delete
//!   live                   update            update    delete
//! ```
//!
//! Invariants:
//! 1. Rights are judged after the bases of a unit match, so a device always learns the state that
//!    it was judged against.
//! 2. A field is judged if a change *names* it. A change that names a field which its author may
//!    not set is refused: the field is never left out in silence. A replace names all fields of a
//!    record, so it is judged by those that it changes or removes.
//! 3. A check is of the values that a change brings. A record that broke a check before the check
//!    was declared can still be changed elsewhere.
//! 4. Without declarations nothing is judged.
//!
//! What it does not do: hide anything. Rights are about writing. Whoever may delete and create a
//! record can make it anew without the fields that it may not set.

mod check;
mod declared;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fault::rejected;
use super::row::Row;
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::limits;
use crate::names::{Actor, EntityType};
use crate::op::OpKind;
use crate::protocol::{Outcome, UnitChange};

use check::Check;
pub use declared::InvalidRights;

/// A role of an actor, as the credentials name it: 1 to 128 bytes without spaces and controls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role(Box<str>);

impl Role {
    /// Checks a name; none if it is empty, over 128 bytes, or has a space or a control character.
    pub fn parse(name: &str) -> Option<Self> {
        let is_plain = !name.chars().any(|char| char.is_control() || char.is_whitespace());
        (!name.is_empty() && name.len() <= limits::ROLE_BYTES && is_plain)
            .then(|| Self(name.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What actors may write, by entity type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    types: BTreeMap<EntityType, TypeRights>,
    other_types: Who,
}

/// A caller whose changes are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// The actors that the credentials allow; none for any actor.
    pub actors: Option<BTreeSet<Actor>>,
    /// The roles of the credentials.
    pub roles: BTreeSet<Role>,
    /// The declared rights.
    pub rights: Arc<Rights>,
}

/// Those who may do something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Who {
    #[default]
    Anyone,
    /// Whoever has one of these roles; nobody if there are none.
    Roles(BTreeSet<Role>),
}

impl Who {
    fn has(&self, roles: &BTreeSet<Role>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Roles(allowed) => !allowed.is_disjoint(roles),
        }
    }
}

/// The rights of one entity type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct TypeRights {
    create: Who,
    update: Who,
    delete: Who,
    fields: BTreeMap<String, FieldRights>,
    checks: BTreeMap<String, Check>,
}

/// Who may set a field when the record is created, and later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct FieldRights {
    create: Who,
    update: Who,
}

/// What a change does to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Create,
    Update,
    Delete,
}

impl Limited {
    /// Returns the refusal of a change whose base matches its record. `met` is the record's row if
    /// it is live and was read.
    pub(super) fn refusal_of(
        &self,
        change: &UnitChange,
        is_live: bool,
        met: Option<&Row>,
    ) -> Result<Option<Outcome>, InvalidFields> {
        let entity = &change.key.entity;
        let act = match change.kind {
            OpKind::Delete => Act::Delete,
            OpKind::Create | OpKind::Update | OpKind::Replace if is_live => Act::Update,
            OpKind::Create | OpKind::Update | OpKind::Replace => Act::Create,
        };
        let rights = self.rights.types.get(entity);
        let who = rights.map_or(&self.rights.other_types, |rights| rights.who(act));
        if !who.has(&self.roles) {
            return Ok(Some(forbidden(act, entity)));
        }
        let (Some(rights), Some(fields)) = (rights, &change.fields) else { return Ok(None) };
        if let Some(field) = self.forbidden_field(rights, act, change.kind, fields, met)? {
            let message = format!("{field} of {entity} is not yours to set: leave it out");
            return Ok(Some(rejected("field_forbidden", &message)));
        }
        if rights.checks.is_empty() {
            return Ok(None);
        }
        let is_whole = change.kind != OpKind::Update;
        Ok(rights.failed_check(entity, &fields.to_fields()?, is_whole))
    }

    /// Returns a field that a change sets and that the caller may not set.
    fn forbidden_field<'r>(
        &self,
        rights: &'r TypeRights,
        act: Act,
        kind: OpKind,
        fields: &FieldsJson,
        met: Option<&Row>,
    ) -> Result<Option<&'r str>, InvalidFields> {
        let is_withheld = |who: &FieldRights| !who.at(act).has(&self.roles);
        let withheld = rights.fields.iter().filter(|(_, who)| is_withheld(who));
        let mut withheld = withheld.map(|(name, _)| name.as_str()).peekable();
        if withheld.peek().is_none() {
            return Ok(None);
        }
        let image = met.and_then(|row| row.fields.as_ref());
        match image {
            // A whole image names every field of the record, also by leaving it out.
            Some(image) if kind != OpKind::Update => {
                let (before, after) = (image.to_fields()?, fields.to_fields()?);
                Ok(withheld.find(|name| {
                    let after = after.get(name).filter(|value| !value.is_null());
                    // Values are compared as text, in which `0.0` and `-0.0` differ.
                    before.get(name).map(ToString::to_string) != after.map(ToString::to_string)
                }))
            }
            _ => {
                let named = fields.names()?;
                let is_named = |field: &&str| {
                    let found = named.binary_search_by(|(name, _)| name.as_str().cmp(field));
                    // A creation names the fields that it gives a value.
                    let is_null = |at: usize| named.get(at).is_some_and(|(_, is_null)| *is_null);
                    found.is_ok_and(|at| act != Act::Create || !is_null(at))
                };
                Ok(withheld.find(is_named))
            }
        }
    }
}

impl TypeRights {
    const fn who(&self, act: Act) -> &Who {
        match act {
            Act::Create => &self.create,
            Act::Update => &self.update,
            Act::Delete => &self.delete,
        }
    }

    /// Returns the refusal by the first check that a change fails.
    fn failed_check(
        &self,
        entity: &EntityType,
        fields: &Fields,
        is_whole: bool,
    ) -> Option<Outcome> {
        self.checks.iter().find_map(|(name, check)| {
            let value = fields.get(name);
            if value.is_none() && !is_whole {
                return None;
            }
            let fault = check.fault(value.filter(|value| !value.is_null()))?;
            Some(rejected("check_failed", &format!("{name} of {entity} {fault}")))
        })
    }
}

impl FieldRights {
    const fn at(&self, act: Act) -> &Who {
        match act {
            Act::Create => &self.create,
            Act::Update | Act::Delete => &self.update,
        }
    }
}

fn forbidden(act: Act, entity: &EntityType) -> Outcome {
    let (code, word) = match act {
        Act::Create => ("create_forbidden", "create"),
        Act::Update => ("update_forbidden", "change"),
        Act::Delete => ("delete_forbidden", "delete"),
    };
    rejected(code, &format!("you may not {word} records of the type {entity}"))
}
