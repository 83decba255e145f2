//! The declarations of an app about its entity types, as data that the rules read.
//!
//! An *open* [`Schema`] gives every entity type the default rules. A *closed* schema accepts only
//! the declared types, and keeps records of other types until their types are declared.

mod declared;
mod reading;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};
use crate::fields::Fields;
use crate::hooks::{ConflictFunction, Outgoing, Upcaster, Validator};
use crate::index::IndexRule;
use crate::names::EntityType;
use crate::op::OpKind;

pub use declared::{Declared, Hook, HookKind, declared_digest};
pub use reading::Form;

/// The rule for a field that both sides changed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The later edit wins, by `edited_at`, then by op id.
    #[default]
    LastWriteWins,
    /// The server's value wins.
    ServerWins,
    /// This device's value wins.
    DeviceWins,
    /// The larger number wins. For values that are not numbers the later edit wins.
    Max,
    /// The smaller number wins. For values that are not numbers the later edit wins.
    Min,
    /// The result is the server's list, followed by the items of the local list that are not in it.
    /// For values that are not lists the later edit wins.
    AppendUnique,
    /// Nothing is sent until a person decides.
    Manual,
    /// A function of the app decides ([`EntityRules::function`]). Without a function the later edit
    /// wins.
    Function,
}

impl Policy {
    /// Returns the word used in JSON, in tables and in errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LastWriteWins => "last_write_wins",
            Self::ServerWins => "server_wins",
            Self::DeviceWins => "device_wins",
            Self::Max => "max",
            Self::Min => "min",
            Self::AppendUnique => "append_unique",
            Self::Manual => "manual",
            Self::Function => "function",
        }
    }
}

/// Which fields of a conflict are resolved together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Granularity {
    /// Each field is resolved alone. Fields that only one side changed are merged.
    #[default]
    Field,
    /// All fields of an edit win or lose together.
    WholeRecord,
}

/// The networks over which an op may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NetworkClass {
    /// Any network.
    #[default]
    Any,
    /// Only an unmetered network.
    Unmetered,
    /// Only an unmetered network if the op's fields are larger than this number of bytes.
    UnmeteredAbove(usize),
}

/// A field whose value is the id of a record of another entity type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The field that holds the id.
    pub field: String,
    /// The entity type of the other record.
    pub entity: EntityType,
}

/// The priorities by kind of op. `None` stands for the priority of the entity type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Priorities {
    /// The priority of creates.
    pub create: Option<i32>,
    /// The priority of updates and replaces.
    pub update: Option<i32>,
    /// The priority of deletes.
    pub delete: Option<i32>,
}

/// The declarations of one entity type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityRules {
    /// The version of the app's schema for this type, from 1.
    pub schema_version: u32,
    /// A higher priority is sent earlier, but never before the ops that the op depends on.
    pub priority: i32,
    /// Priorities of single kinds of op, which replace `priority`.
    pub priorities: Priorities,
    /// Fields that point to other records.
    pub references: Vec<Reference>,
    /// The policy for conflicts, unless the field has its own policy.
    pub policy: Policy,
    /// Policies of single fields.
    pub field_policies: BTreeMap<String, Policy>,
    /// The function of the app that resolves conflicts instead of `policy`.
    pub function: Option<ConflictFunction>,
    /// The functions of the app that resolve conflicts of single fields, before any other rule.
    pub field_functions: BTreeMap<String, ConflictFunction>,
    /// Whether fields are resolved one by one.
    pub granularity: Granularity,
    /// How long an op waits for an undo before it may leave. The default is zero: the op does not
    /// wait.
    pub undo_window: Duration,
    /// The networks over which an op may leave.
    pub network: NetworkClass,
    /// Whether records of this type never leave the device.
    pub local_only: bool,
    /// The indexes by which records can be listed.
    pub indexes: Vec<IndexRule>,
    /// What converts fields from one schema version to the next, by the version that it starts
    /// from.
    pub upcasters: BTreeMap<u32, Upcaster>,
    /// The check of a change before it is sent. A change that the check refuses is held for the
    /// user.
    pub validator: Option<Validator>,
}

impl Default for EntityRules {
    fn default() -> Self {
        Self {
            schema_version: 1,
            priority: 0,
            priorities: Priorities::default(),
            references: Vec::new(),
            policy: Policy::default(),
            field_policies: BTreeMap::new(),
            function: None,
            field_functions: BTreeMap::new(),
            granularity: Granularity::default(),
            undo_window: Duration::ZERO,
            network: NetworkClass::default(),
            local_only: false,
            indexes: Vec::new(),
            upcasters: BTreeMap::new(),
            validator: None,
        }
    }
}

impl EntityRules {
    /// Returns the priority of a kind of op.
    pub fn priority_of(&self, kind: OpKind) -> i32 {
        let own = match kind {
            OpKind::Create => self.priorities.create,
            OpKind::Update | OpKind::Replace => self.priorities.update,
            OpKind::Delete => self.priorities.delete,
        };
        own.unwrap_or(self.priority)
    }

    /// Returns the policy of a field.
    pub fn policy_of(&self, field: &str) -> Policy {
        if self.function_of(field).is_some() {
            return Policy::Function;
        }
        self.field_policies.get(field).copied().unwrap_or(self.policy)
    }

    /// Returns the app's function for a field. The field's own function comes first. The type's
    /// function applies only if the field has no policy of its own.
    pub fn function_of(&self, field: &str) -> Option<&ConflictFunction> {
        let of_all = self.function.as_ref().filter(|_| !self.field_policies.contains_key(field));
        self.field_functions.get(field).or(of_all)
    }

    /// Declares the function that converts fields from one schema version to the next, after what
    /// was declared of that step before.
    #[must_use]
    pub fn upcast_from(
        self,
        version: u32,
        upcaster: impl Fn(OpKind, Fields) -> Fields + Send + Sync + 'static,
    ) -> Self {
        self.with_step(version, Upcaster::new(upcaster))
    }

    /// Declares that a field has another name from the version after this one on, after what was
    /// declared of that step before.
    #[must_use]
    pub fn rename_from(
        self,
        version: u32,
        former: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        self.with_step(version, Upcaster::rename(former, name))
    }

    fn with_step(mut self, version: u32, upcaster: Upcaster) -> Self {
        let step = match self.upcasters.remove(&version) {
            Some(before) => before.then(upcaster),
            None => upcaster,
        };
        self.upcasters.insert(version, step);
        self
    }

    /// Declares a check of changes before they are sent. People read the text of the check's error,
    /// so the text must not hold values of fields.
    #[must_use]
    pub fn validate(
        mut self,
        validator: impl Fn(&Outgoing<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.validator = Some(Validator::new(validator));
        self
    }

    /// Returns whether changes are checked before they are sent.
    pub const fn is_inspected(&self) -> bool {
        self.validator.is_some() || !self.references.is_empty()
    }

    /// Returns whether upcasters lead from a schema version to the declared one.
    pub fn can_upcast(&self, from: u32) -> bool {
        from <= self.schema_version
            && (from..self.schema_version).all(|step| self.upcasters.contains_key(&step))
    }

    /// Converts the fields of an op from an earlier schema version to the declared one; `None` if
    /// an upcaster is missing.
    pub fn upcast(&self, from: u32, kind: OpKind, fields: Fields) -> Option<Fields> {
        if from > self.schema_version {
            return None;
        }
        (from..self.schema_version).try_fold(fields, |fields, step| {
            self.upcasters.get(&step).map(|upcaster| upcaster.apply(kind, fields))
        })
    }
}

/// All declarations of an app.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    entities: BTreeMap<EntityType, EntityRules>,
    others: Option<EntityRules>,
}

impl Schema {
    /// Makes a schema that accepts only declared types. Records of other types are kept,
    /// undeclared.
    pub fn closed() -> Self {
        Self::default()
    }

    /// Makes a schema that accepts every entity type. A type that is not declared has the rules
    /// `others`.
    pub fn open(others: EntityRules) -> Self {
        Self { entities: BTreeMap::new(), others: Some(others) }
    }

    /// Declares an entity type, and replaces an earlier declaration of it.
    #[must_use]
    pub fn declare(mut self, entity: EntityType, rules: EntityRules) -> Self {
        self.entities.insert(entity, rules);
        self
    }

    /// Returns the rules of an entity type, or `None` if it is not known.
    pub fn rules(&self, entity: &EntityType) -> Option<&EntityRules> {
        self.entities.get(entity).or(self.others.as_ref())
    }

    /// Returns whether ops of an entity type leave the device: all do, but those of a type that is
    /// declared local-only.
    pub fn leaves(&self, entity: &EntityType) -> bool {
        self.rules(entity).is_none_or(|rules| !rules.local_only)
    }

    /// Returns the rules of an entity type that was declared by name.
    pub fn declared_rules(&self, entity: &EntityType) -> Option<&EntityRules> {
        self.entities.get(entity)
    }

    /// Returns the rules of the entity types that are not declared, if the schema accepts them.
    pub const fn others(&self) -> Option<&EntityRules> {
        self.others.as_ref()
    }

    /// Returns whether any entity type has changes checked before they are sent.
    pub fn inspects(&self) -> bool {
        self.entities.values().chain(self.others.as_ref()).any(EntityRules::is_inspected)
    }

    /// Returns whether all entity types and kinds of op have the same priority, so that only age
    /// orders what is sent.
    pub fn has_one_priority(&self) -> bool {
        let kinds = [OpKind::Create, OpKind::Update, OpKind::Delete];
        let rules = self.entities.values().chain(self.others.as_ref());
        let mut priorities = rules.flat_map(|rules| kinds.map(|kind| rules.priority_of(kind)));
        let first = priorities.next();
        priorities.all(|priority| Some(priority) == first)
    }

    /// Returns the declared entity types in order.
    pub fn declared(&self) -> impl Iterator<Item = (&EntityType, &EntityRules)> {
        self.entities.iter()
    }
}
